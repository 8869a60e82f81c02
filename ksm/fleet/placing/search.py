# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host, and knows no others.
"""Going downhill from a placement: the best single move, and where there is none, the best exchange of two sources, until neither helps."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from ksm.fleet.placing.problem import Numbers
from ksm.fleet.placing.state import State

MANY = 1 << 18  # sources times hosts: from there on, a look at all is used for several moves
MOST_PAIRS = 1 << 22  # of sources, whose exchanges are looked at, at once
TRIED = 64  # exchanges that look good, of which the exact gain is computed


def descend(state: State, deadline: float, chance: np.random.Generator) -> None:
    """Until no move and no exchange makes the hosts smaller, or the deadline of time.monotonic() has passed."""
    while time.monotonic() < deadline and (best_move(state) or best_exchange(state, chance)):
        pass


def gains_of(state: State) -> Numbers:
    """For each source and host: by how many pages the price becomes less if it moves there."""
    costs, problem = state.costs, state.problem
    gains: Numbers = costs[np.arange(len(state.at)), state.at][:, None] - costs
    if problem.least:
        away = problem.start[:, None] != np.arange(len(problem.hosts))
        gains += problem.least * ((state.at != problem.start).astype(np.int64)[:, None] - away)
    return gains


def may_leave(state: State) -> NDArray[np.bool_]:
    """Which sources may have another host than now, by the number of moves and because they are not pinned."""
    problem = state.problem
    free = np.array([not source.pinned for source in problem.sources], np.bool_)
    if state.moved >= state.most:
        free &= state.at != problem.start
    return free


def best_move(state: State) -> bool:
    """Make the move that gains most; of a large fleet, for each source its best one, if it still gains. Of moves that gain nothing, one
    that brings a source back home counts, too. Whether there was one.
    """
    problem = state.problem
    gains = gains_of(state)
    added = state.costs if state.after else problem.pages[:, None]
    fits = state.load + added <= problem.limits
    home = np.zeros(gains.shape, np.bool_)
    away = np.flatnonzero(state.at != problem.start)
    home[away, problem.start[away]] = True
    wanted = ((gains > 0) | (home & (gains == 0))) & fits & may_leave(state)[:, None]
    several = gains.size > MANY
    if several:
        best = np.argmax(np.where(wanted, gains, -1), 1)
        sources = np.flatnonzero(wanted[np.arange(len(best)), best])
        hosts = best[sources]
    else:
        sources, hosts = np.nonzero(wanted)
    made = False
    for place in np.argsort(-gains[sources, hosts], kind="stable"):
        source, host = int(sources[place]), int(hosts[place])
        if made and not still_gains(state, source, host):
            continue
        if state.allowed(source)[host]:
            state.move(source, host)
            made = True
            if not several:
                return True
    return made


def still_gains(state: State, source: int, host: int) -> bool:
    """Whether a move gains anything, or brings a source home for nothing, after others were made."""
    problem = state.problem
    origin = int(state.at[source])
    if origin == host or (state.moved >= state.most and origin == problem.start[source]):
        return False
    freed = state.remove(source)
    taken = state.costs_on(source, host)
    added = taken if state.after else int(problem.pages[source])
    gain = freed - taken + problem.least * (int(origin != problem.start[source]) - int(host != problem.start[source]))
    fine = state.load[host] + added <= problem.limits[host] and (gain > 0 or (gain == 0 and host == problem.start[source]))
    state.put(source, origin)
    return bool(fine)


def best_exchange(state: State, chance: np.random.Generator) -> bool:
    """Let the two sources change places of which that gains most; of a large fleet, several pairs. Whether there were any.

    What is computed for all pairs is the exact gain and, of contents that both have and no other source of their hosts, their pages.
    """
    problem = state.problem
    movable = np.flatnonzero([not source.pinned for source in problem.sources])
    rows = movable
    if len(rows) * len(rows) > MOST_PAIRS:
        rows = np.sort(chance.choice(movable, MOST_PAIRS // len(movable), replace=False))
    gains = gains_of(state)
    found = gains[np.ix_(rows, state.at[movable])] + gains[np.ix_(movable, state.at[rows])].T
    found[state.at[rows][:, None] == state.at[movable]] = 0
    if not state.after:  # pages in advance, which costs less than asking for each pair
        room = (problem.limits - state.load)[state.at]
        more = problem.pages[movable] - problem.pages[rows][:, None]
        found[(more > room[rows][:, None]) | (-more > room[movable])] = 0
    places = np.flatnonzero(found > 0)
    tried = 8 * TRIED if gains.size > MANY else TRIED
    if len(places) > tried:
        places = places[np.argpartition(-found.ravel()[places], tried)[:tried]]
    places = places[np.argsort(-found.ravel()[places], kind="stable")]
    several = gains.size > MANY
    made = False
    best, chosen = 0, (0, 0)
    for place in places:
        first, second = int(rows[place // len(movable)]), int(movable[place % len(movable)])
        if found.ravel()[place] <= best:
            break
        if state.at[first] == state.at[second]:
            continue
        on_a, on_b = state.swap_of(first, second)
        gain = -on_a - on_b - problem.least * moves_more(state, first, second)
        if gain > best and exchange_fits(state, first, second, on_a, on_b):
            if several:
                exchange(state, first, second)
                made = True
                continue
            best, chosen = gain, (first, second)
    if best:
        exchange(state, *chosen)
    return made or bool(best)


def moves_more(state: State, first: int, second: int) -> int:
    """How many more sources are not where they were, if two change places."""
    start, a, b = state.problem.start, int(state.at[first]), int(state.at[second])
    return int(b != start[first]) + int(a != start[second]) - int(a != start[first]) - int(b != start[second])


def exchange_fits(state: State, first: int, second: int, on_a: int, on_b: int) -> bool:
    problem = state.problem
    a, b = int(state.at[first]), int(state.at[second])
    if state.after and not (state.used[a] + on_a <= problem.limits[a] and state.used[b] + on_b <= problem.limits[b]):
        return False
    if state.moved + moves_more(state, first, second) > state.most:
        return False
    if state.free:
        return True
    state.remove(first)
    state.remove(second)
    fine = bool(state.allowed(first)[b] and state.allowed(second)[a])
    state.put(first, a)
    state.put(second, b)
    return fine


def exchange(state: State, first: int, second: int) -> None:
    a, b = int(state.at[first]), int(state.at[second])
    state.remove(first)
    state.remove(second)
    state.put(first, b)
    state.put(second, a)

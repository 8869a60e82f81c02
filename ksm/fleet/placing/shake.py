# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host, and knows no others.
"""Taking some sources off their hosts, and putting each where it costs least: so a placement is built, and so one leaves a dead end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ksm.fleet.placing.problem import Numbers
from ksm.fleet.placing.state import State, sums

How = Literal["regret", "largest", "chance"]  # who is next: whose second choice is much worse, the largest, anybody
EACH_HOW: tuple[How, ...] = ("regret", "largest", "chance")
MANY = 500  # sources
MOST_OFF = 40  # sources that are taken off at once
NEVER = 1 << 60  # pages


def rebuild(
    state: State, sources: Sequence[int], how: How, chance: np.random.Generator, deadline: float = float("inf")
) -> bool:
    """Put sources that are nowhere on hosts. False if one of them fits nowhere, or it takes too long; then some are still nowhere."""
    if len(sources) > MANY:
        return rebuild_many(state, sources, how, chance, deadline)
    waiting = Waiting(state, sources)
    while waiting.sources:
        if time.monotonic() >= deadline:
            return False
        choices = waiting.choices()
        best = choices.min(1)
        if np.max(best) >= NEVER:
            return False
        if how == "regret":
            place = int(np.argmax(regrets(choices, best, waiting)))
        elif how == "largest":
            place = int(np.argmax(state.problem.pages[waiting.sources]))
        else:
            place = int(chance.integers(len(waiting.sources)))
        waiting.put(place, int(np.argmin(choices[place])))
    return True


def rebuild_many(state: State, sources: Sequence[int], how: How, chance: np.random.Generator, deadline: float) -> bool:
    """The same for so many sources that what each of them would add to each host is not kept. Regret is that of a group: its sources come
    one after the other, the largest groups first.
    """
    problem = state.problem
    order = np.array(sources)[np.argsort(-problem.pages[[*sources]], kind="stable")]
    if how == "chance":
        order = chance.permutation(order)
    elif how == "regret":
        value = problem.weights / np.maximum(1, [len(members) for members in problem.members])
        firsts = [max(problem.groups_of(source).tolist(), key=value.__getitem__, default=-1) for source in order.tolist()]
        order = order[np.argsort(firsts, kind="stable")]
    for source in order.tolist():
        costs = state.costs_of(source)
        fine = state.allowed(source) & (state.load + (costs if state.after else problem.pages[source]) <= problem.limits)
        if state.moved >= state.most:
            fine &= np.arange(len(fine)) == problem.start[source]
        if not fine.any() or time.monotonic() >= deadline:
            return False
        away = np.arange(len(fine)) != problem.start[source]
        state.put(source, int(np.argmin(np.where(fine, 2 * costs + (2 * problem.least + 1) * away, NEVER))))
    return True


def regrets(choices: Numbers, best: Numbers, waiting: Waiting) -> Numbers:
    """How much worse the second choice of each source is than the first; of equal ones, the larger source is next."""
    if choices.shape[1] == 1:
        return waiting.state.problem.pages[waiting.sources]
    second = np.partition(choices, 1, axis=1)[:, 1]
    pages = waiting.state.problem.pages[waiting.sources]
    result: Numbers = np.minimum(second - best, NEVER) + pages // 16
    return result


class Waiting:
    """Sources that are nowhere, and what each of them would add to each host."""

    def __init__(self, state: State, sources: Sequence[int]) -> None:
        self.state = state
        self.sources = [*sources]
        self.costs = np.array([state.costs_of(source) for source in sources], np.int64).reshape(len(sources), len(state.problem.hosts))
        self.allowed: NDArray[np.bool_] = np.array([state.allowed(source) for source in sources], np.bool_).reshape(self.costs.shape)
        self.index()

    def index(self) -> None:
        """The groups of those that are left, one after the other."""
        problem = self.state.problem
        each = [problem.groups_of(source) for source in self.sources]
        self.groups = np.concatenate(each) if each else np.zeros(0, np.int64)
        self.starts = np.zeros(len(each) + 1, np.int64)
        np.cumsum([len(groups) for groups in each], out=self.starts[1:])

    def choices(self) -> Numbers:
        """Twice what each source would add to the price on each host, and one more where it was not before; NEVER where it must not be."""
        state, problem = self.state, self.state.problem
        sources = np.array(self.sources)
        added = self.costs if state.after else problem.pages[sources][:, None]
        fine = self.allowed & (state.load + added <= problem.limits)
        home = problem.start[sources][:, None] == np.arange(len(problem.hosts))
        if state.moved >= state.most:
            fine &= home
        return np.where(fine, 2 * self.costs + (2 * problem.least + 1) * ~home, NEVER)

    def put(self, place: int, host: int) -> None:
        state, problem = self.state, self.state.problem
        state.put(self.sources[place], host)
        keep = np.arange(len(self.sources)) != place
        del self.sources[place]
        self.costs, self.allowed = self.costs[keep], self.allowed[keep]
        self.index()
        weights = np.where(state.counts[self.groups, host] == 0, problem.weights[self.groups], 0)
        self.costs[:, host] = problem.own[self.sources] + sums(weights, self.starts)
        if not state.free:
            self.allowed[:, host] = [state.allowed(source)[host] for source in self.sources]


def taken_off(state: State, chance: np.random.Generator) -> list[int]:
    """Some sources to take off: those of a few hosts with contents in common, those that have a content in common, or any."""
    problem = state.problem
    movable = [source for source, each in enumerate(problem.sources) if not each.pinned]
    kind = int(chance.integers(3))
    waste = problem.weights * np.maximum(0, (state.counts > 0).sum(1) - 1)
    if kind == 2 or not waste.any():
        return some(movable, int(chance.integers(2, 20)), chance)
    group = int(chance.choice(len(waste), p=waste / waste.sum()))
    hosts = np.flatnonzero(state.counts[group])
    if kind == 0:
        pair = chance.permutation(hosts)[: int(chance.integers(2, 4))]
        return some([source for source in movable if state.at[source] in pair], MOST_OFF, chance)
    # Where few sources of the group are, these; and some others of where many are, to make room
    order = hosts[np.argsort(state.counts[group, hosts], kind="stable")]
    few = [source for source in problem.members[group].tolist() if state.at[source] in order[:2] and not problem.sources[source].pinned]
    members = set(problem.members[group].tolist())
    many = [source for source in movable if state.at[source] in order[-2:] and source not in members]
    return sorted({*some(few, MOST_OFF // 2, chance), *some(many, MOST_OFF // 2, chance)})


def some(sources: Sequence[int], count: int, chance: np.random.Generator) -> list[int]:
    if len(sources) <= count:
        return [*sources]
    return sorted(chance.choice(np.array(sources), count, replace=False).tolist())


def shake(state: State, chance: np.random.Generator, slack: int) -> bool:
    """Take some sources off and put them back. What becomes larger by more than `slack` pages is taken back: False."""
    off = taken_off(state, chance)
    before, price = state.at[off].tolist(), state.price
    for source in off:
        state.remove(source)
    how = EACH_HOW[int(chance.integers(len(EACH_HOW)))]
    if rebuild(state, off, how, chance) and state.price <= price + slack:
        return True
    state.restore(off, before)
    return False

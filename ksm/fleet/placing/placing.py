# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host, and knows no others.
"""A placement that takes less: from the present one and from nothing downhill, shaken, and, where the fleet is small, by HiGHS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np

from ksm.fleet.placing import SECONDS, solver
from ksm.fleet.placing.bound import bound_of
from ksm.fleet.placing.problem import Numbers, PlaceError, Problem
from ksm.fleet.placing.search import descend
from ksm.fleet.placing.shake import EACH_HOW, rebuild, shake
from ksm.fleet.placing.state import State

ROUNDS = 2000
PATIENCE = 400  # rounds that may find nothing better, and one for each source
REPAIRS = 50
FOR_BOUND, FOR_PRESENT, FOR_SOLVER = 0.2, 0.3, 0.5  # of the time that is left
SLACK = 0.002  # of all pages: as many more a round may take, at the beginning

# It is the best that there is; the search found nothing better for a long time; its time was over; Ctrl-C
Ended = Literal["proved", "rounds", "time", "interrupted"]
Progress = Callable[[str, int, int], None]


def no_progress(what: str, done: int, total: int) -> None:
    pass


class Found(NamedTuple):
    """The host of each source, the pages that all hosts have at least in any placement, and why the search ended."""

    at: Numbers
    least: int
    ended: Ended


def place(
    problem: Problem, *, seed: int = 0, seconds: float = SECONDS, rounds: int = ROUNDS, keep: bool = False,
    progress: Progress = no_progress,
) -> Found:  # fmt: skip
    """The best placement that was found. The same seed and rounds give the same one, unless the time is over first. PlaceError.

    With `keep`, Ctrl-C ends the search, and what it has found is kept.
    """
    began = time.monotonic()
    deadline = began + seconds
    chance = np.random.default_rng(seed)
    progress("looking for a bound", 0, 0)
    bound, copies = bound_of(problem, began + FOR_BOUND * seconds)
    try:
        best = best_of(problem, starts(problem, chance, deadline, progress))
    except PlaceError:
        if not solver.usable(problem):
            raise
        solved = solver.solve(problem, copies, began + FOR_SOLVER * seconds, seed)
        if solved.at is None or problem.faults(solved.at):
            raise
        best = solved.at
    if problem.total(best) > bound and solver.usable(problem):
        progress("solving", 0, 0)
        until = time.monotonic() + FOR_SOLVER * (deadline - time.monotonic())
        solved = solver.solve(problem, copies, until, seed)
        bound = max(bound, solved.least)
        if solved.at is not None and not problem.faults(solved.at):
            best = best_of(problem, iter([best, solved.at]))
    ended: Ended = "proved"
    if problem.total(best) > bound or problem.least:
        search = Shaken(best, problem.price(best))
        try:
            ended = shaken(problem, search, bound, chance, deadline, rounds, progress)
        except KeyboardInterrupt:
            if not keep:
                raise
            ended = "interrupted"
        best = search.best
    return Found(settled(problem, best), bound, ended)


def best_of(problem: Problem, found: Iterator[Numbers]) -> Numbers:
    """The placement with the least price, and of those the one with the fewest moves."""
    return min(found, key=lambda at: (problem.price(at), problem.moved(at)))


def starts(problem: Problem, chance: np.random.Generator, deadline: float, progress: Progress) -> Iterator[Numbers]:
    """Placements to begin with: from the present one, and built from nothing."""
    progress("from the present placement", 0, 0)
    state = State(problem, problem.start)
    if state.any_meet():
        repair(state, chance, deadline)
    movable = [source for source, each in enumerate(problem.sources) if not each.pinned]
    if problem.moves is not None and 2 * problem.moves < len(movable):
        descend(state, deadline, chance)
        yield state.at.copy()
        return
    descend(state, time.monotonic() + FOR_PRESENT * (deadline - time.monotonic()), chance)
    yield state.at.copy()
    for how in EACH_HOW:
        if time.monotonic() >= deadline:
            return
        progress("from empty hosts", 0, 0)
        state = State(problem, problem.start)
        for source in movable:
            state.remove(source)
        if rebuild(state, movable, how, chance, deadline):
            descend(state, deadline, chance)
            yield state.at.copy()


def repair(state: State, chance: np.random.Generator, deadline: float) -> None:
    """Take apart what must not meet now. PlaceError if that is not possible, or was not found. One attempt is made in any case."""
    problem = state.problem
    movable = [source for source, each in enumerate(problem.sources) if not each.pinned]
    for number in range(REPAIRS):
        before = state.at.copy()
        if number < REPAIRS // 2:
            off = []
            for source in chance.permutation(movable).tolist():
                if state.meets(source):
                    state.remove(source)
                    off.append(source)
        else:
            off = [*movable]
            for source in off:
                state.remove(source)
        if rebuild(state, off, EACH_HOW[number % len(EACH_HOW)], chance) and not state.any_meet():
            return
        state.restore(range(len(before)), before.tolist())
        if time.monotonic() >= deadline:
            break
    what = problem.faults(problem.start)[0]
    within = "" if problem.moves is None else f" with {problem.moves} moves"
    raise PlaceError(f"no placement was found{within} that is as asked for: now, {what}")


class Shaken:
    """The best placement of a search that goes on."""

    def __init__(self, best: Numbers, price: int) -> None:
        self.best, self.price = best, price


def shaken(
    problem: Problem, search: Shaken, bound: int, chance: np.random.Generator, deadline: float, rounds: int, progress: Progress
) -> Ended:
    """Many rounds in which some sources are taken off and put back. Why it ended."""
    state = State(problem, search.best)
    slack = SLACK * state.total
    calm = 0
    for number in range(rounds):
        progress("looking further", number, rounds)
        if time.monotonic() >= deadline:
            return "time"
        if calm > PATIENCE + len(problem.sources):
            break
        calm += 1
        left = 1 - number / rounds
        if not shake(state, chance, int(slack * left * left)):
            continue
        descend(state, deadline, chance)
        if (state.price, state.moved) < (search.price, problem.moved(search.best)):
            calm = calm if state.price == search.price else 0
            search.best, search.price = state.at.copy(), state.price
            if search.price <= bound:
                return "proved"
        elif state.price > search.price + slack:
            state.restore(range(len(search.best)), search.best.tolist())
    return "rounds"


def settled(problem: Problem, at: Numbers) -> Numbers:
    """The same placement with fewer moves: hosts of one kind change names, and sources go home where that costs less than a move has to be
    worth. All of them stay if nothing is saved then.
    """
    at = renamed(problem, at)
    state = State(problem, at)
    for source in sorted(np.flatnonzero(at != problem.start).tolist(), key=lambda each: (problem.pages[each], each)):
        host, home = int(at[source]), int(problem.start[source])
        freed = state.remove(source)
        costs = int(state.costs_of(source)[home])
        fits = state.load[home] + (costs if state.after else problem.pages[source]) <= problem.limits[home]
        state.put(source, home if costs < freed + max(1, problem.least) and fits and state.allowed(source)[home] else host)
    saves = state.total < problem.total(problem.start)
    return state.at if saves or problem.faults(problem.start) else problem.start


def renamed(problem: Problem, at: Numbers) -> Numbers:
    """What is planned for a host may as well be on any other one with as much room. Where most of it is already is best."""
    hosts = len(problem.hosts)
    load = problem.used(at) if problem.fit == "after" else problem.filled(at)
    name = {int(host): int(host) for source, host in enumerate(problem.start) if problem.sources[source].pinned}
    free = set(range(hosts)) - set(name.values())
    both, counts = np.unique(at * hosts + problem.start, return_counts=True)
    for place in np.argsort(-counts, kind="stable"):
        planned, host = divmod(int(both[place]), hosts)
        if planned not in name and host in free and load[planned] <= problem.limits[host]:
            name[planned] = host
            free.remove(host)
    # What nobody has now: on its own host, or on the least that is free and has the room
    left = sorted((planned for planned in range(hosts) if planned not in name and load[planned]), key=lambda each: -load[each])
    for planned in left:
        fits = [host for host in free if load[planned] <= problem.limits[host]]
        if not fits:
            return at
        name[planned] = min(fits, key=lambda host: (host != planned, problem.limits[host], host))
        free.remove(name[planned])
    result = np.array([name.get(host, host) for host in range(hosts)], np.int64)[at]
    return result if problem.moved(result) <= problem.moved(at) and not problem.faults(result) else at

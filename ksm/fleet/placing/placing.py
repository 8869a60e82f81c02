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

Ended = Literal["proved", "rounds", "time"]  # it is the best that there is; the search had its rounds; its time was over
Progress = Callable[[str, int, int], None]


def no_progress(what: str, done: int, total: int) -> None:
    pass


class Found(NamedTuple):
    """The host of each source, the pages that all hosts have at least in any placement, and why the search ended."""

    at: Numbers
    least: int
    ended: Ended


def place(
    problem: Problem, *, seed: int = 0, seconds: float = SECONDS, rounds: int = ROUNDS, least: int = 0, progress: Progress = no_progress
) -> Found:
    """The best placement that was found. The same seed and rounds give the same one, unless the time is over first. PlaceError.

    A source that could as well stay where it is, for less than `least` pages more, stays.
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
    if problem.total(best) > bound:
        best, ended = shaken(problem, best, bound, chance, deadline, rounds, progress)
    return Found(settled(problem, best, least), bound, ended)


def best_of(problem: Problem, found: Iterator[Numbers]) -> Numbers:
    """The placement that takes least, and of those the one with the fewest moves."""
    return min(found, key=lambda at: (problem.total(at), problem.moved(at)))


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


def shaken(
    problem: Problem, at: Numbers, least: int, chance: np.random.Generator, deadline: float, rounds: int, progress: Progress
) -> tuple[Numbers, Ended]:
    """The best of many rounds in which some sources are taken off and put back."""
    state = State(problem, at)
    best, total = at.copy(), state.total
    slack = SLACK * total
    calm = 0
    for number in range(rounds):
        progress("looking further", number, rounds)
        if time.monotonic() >= deadline:
            return best, "time"
        if calm > PATIENCE + len(problem.sources):
            break
        calm += 1
        left = 1 - number / rounds
        if not shake(state, chance, int(slack * left * left)):
            continue
        descend(state, deadline, chance)
        if (state.total, state.moved) < (total, problem.moved(best)):
            calm = calm if state.total == total else 0
            best, total = state.at.copy(), state.total
            if total <= least:
                return best, "proved"
        elif state.total > total + slack:
            state.restore(range(len(best)), best.tolist())
    return best, "rounds"


def settled(problem: Problem, at: Numbers, least: int) -> Numbers:
    """The same placement with fewer moves: hosts of one kind change names, and sources go home where that costs nothing, or less than
    `least` pages. All of them stay if nothing is saved then.
    """
    at = renamed(problem, at)
    state = State(problem, at)
    for source in sorted(np.flatnonzero(at != problem.start).tolist(), key=lambda each: (problem.pages[each], each)):
        host, home = int(at[source]), int(problem.start[source])
        freed = state.remove(source)
        costs = int(state.costs_of(source)[home])
        fits = state.load[home] + (costs if state.after else problem.pages[source]) <= problem.limits[home]
        state.put(source, home if costs < freed + max(1, least) and fits and state.allowed(source)[home] else host)
    saves = state.total < problem.total(problem.start)
    return state.at if saves or problem.faults(problem.start) else problem.start


def renamed(problem: Problem, at: Numbers) -> Numbers:
    """What is planned for a host may as well be on any other one with as much room. Where most of it is already is best."""
    hosts = len(problem.hosts)
    pinned = {int(problem.start[source]) for source, each in enumerate(problem.sources) if each.pinned}
    stay = np.zeros((hosts, hosts), np.int64)
    np.add.at(stay, (at, problem.start), 1)
    load = problem.used(at) if problem.fit == "after" else problem.filled(at)
    # Of each planned set of sources, its room and where it may go
    name = np.full(hosts, -1)
    taken: set[int] = set()
    for planned in pinned:
        name[planned] = planned
        taken.add(planned)
    order = sorted(((int(stay[planned, host]), planned, host) for planned in range(hosts) for host in range(hosts)),
                   key=lambda each: (-each[0], each[1] != each[2], each))  # fmt: skip
    for _, planned, host in order:
        if name[planned] < 0 and host not in taken and load[planned] <= problem.limits[host]:
            name[planned] = host
            taken.add(host)
    if (name < 0).any():
        return at
    result = name[at]
    return result if problem.moved(result) <= problem.moved(at) and not problem.faults(result) else at

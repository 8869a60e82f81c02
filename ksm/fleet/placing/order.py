# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host, and knows no others.
"""The moves from one placement to another, in an order in which they can be made: what fits now, and of that what gains most, is next.

Midway a host may be filled up to its capacity, and the reserve of `limit` with it; KSM has time to merge between two moves. Where nothing
that is left fits, as when two full hosts exchange sources, one of them waits on a third host, if the moves that are allowed suffice for
that. Where that does not help either, the move that exceeds a capacity least is next, and says so.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ksm.fleet.placing.problem import Numbers, Problem
from ksm.fleet.placing.state import State


class Step(NamedTuple):
    """A source moves from `origin` to `host`.

    gain     pages by which all hosts together become smaller; less than 0 where they become larger
    over     pages by which the host's capacity is exceeded then
    meets    whether the source meets one there that it must not meet, until that one moves
    waits    whether it moves again later
    """

    source: int
    origin: int
    host: int
    gain: int
    over: int = 0
    meets: bool = False
    waits: bool = False


def ordered(problem: Problem, at: Numbers) -> list[Step]:
    """The moves that lead from the present placement to this one. Their gains add up to what it saves."""
    state = State(problem, problem.start)
    capacity = np.maximum(np.array([host.capacity for host in problem.hosts], np.int64), problem.limits)
    left = np.flatnonzero(at != problem.start).tolist()
    spare = len(problem.sources) if problem.moves is None else problem.moves - len(left)
    waited: set[int] = set()
    steps: list[Step] = []

    def take(source: int, host: int, **more: bool) -> None:
        origin = int(state.at[source])
        gain = state.move(source, host)
        over = max(0, int(state.load[host] - capacity[host]))
        steps.append(Step(source, origin, host, gain, over, **more))

    while left:
        sources = np.array(left)
        targets = at[sources]
        gains, over = looked_at(state, sources, targets, capacity)
        meets = np.array([not state.allowed(source)[host] for source, host in zip(left, targets.tolist(), strict=True)])
        fine = np.flatnonzero((over <= 0) & ~meets)
        if len(fine):
            place = int(fine[np.argmax(gains[fine])])
        else:
            if spare and (way := way_out(state, at, [source for source in left if source not in waited], left, capacity)):
                take(*way, waits=True)
                waited.add(way[0])
                spare -= 1
                continue
            place = int(np.lexsort((-gains, over, meets))[0])
        take(left[place], int(targets[place]), meets=bool(meets[place]))
        del left[place]
    return steps


def looked_at(state: State, sources: Numbers, targets: Numbers, capacity: Numbers) -> tuple[Numbers, Numbers]:
    """What each source gains if it moves to its target, and by how much that exceeds the capacity there."""
    costs = state.costs
    taken = costs[sources, targets]
    gains = costs[sources, state.at[sources]] - taken
    added = taken if state.after else state.problem.pages[sources]
    return gains, np.maximum(0, state.load[targets] + added - capacity[targets])


def way_out(state: State, at: Numbers, movable: list[int], left: list[int], capacity: Numbers) -> tuple[int, int] | None:
    """A source that may wait on a third host, and that host, so that another move can be made: what takes the fewest pages."""
    ways = []
    costs = state.costs
    for source in movable:
        added = costs[source] if state.after else state.problem.pages[source]
        fits = (state.load + added <= capacity) & state.allowed(source)
        fits[[state.at[source], at[source]]] = False
        if fits.any():
            host = int(np.flatnonzero(fits)[np.argmin(costs[source][fits])])
            ways.append((int(costs[source, host]), source, host))
    for _, source, host in sorted(ways):
        if any(opens(state, source, other, capacity) for other in left if at[other] == state.at[source] and other != source):
            return source, host
    return None


def opens(state: State, source: int, other: int, capacity: Numbers) -> bool:
    """Whether another source may come to a host when this one has left it."""
    host = int(state.at[source])
    if state.after:
        more, _ = state.swap_of(source, other)
    else:
        more = int(state.problem.pages[other] - state.problem.pages[source])
    if state.load[host] + more > capacity[host]:
        return False
    if state.free:
        return True
    state.remove(source)
    fine = bool(state.allowed(other)[host])
    state.put(source, host)
    return fine

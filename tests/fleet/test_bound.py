# SPDX-License-Identifier: GPL-2.0-only
"""No placement takes less than the bound says: held against all placements of small fleets."""

import pytest

pytest.importorskip("numpy")
pytest.importorskip("hypothesis")

import numpy as np
import planted
from hypothesis import given, settings
from hypothesis import strategies as st

from ksm.fleet.placing import solver
from ksm.fleet.placing.bound import bound_of
from ksm.fleet.placing.problem import Host, Problem, Source

pytestmark = pytest.mark.once
fits = st.sampled_from(["after", "before"])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32), fit=fits)
def test_no_placement_takes_less(seed, fit):
    problem = planted.small(seed, fit, sources=5)
    best = planted.best_by_trying(problem)
    if best is not None:
        assert bound_of(problem).least <= best


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 32), fit=fits)
def test_the_solver_ends_at_the_best(seed, fit):
    """Of fleets as small as these, HiGHS says the least exactly."""
    pytest.importorskip("highspy")
    problem = planted.small(seed, fit, sources=5)
    best = planted.best_by_trying(problem)
    if best is None:
        return
    assert solver.usable(problem)
    solved = solver.solve(problem, bound_of(problem).copies, float("inf"), 0)
    assert solved.least == best
    assert solved.at is not None
    assert (problem.total(solved.at), problem.faults(solved.at)) == (best, [])


def test_a_problem_that_presolve_solves():
    """HiGHS 1.16, given a placement to begin with, would return that one as the best of these."""
    pytest.importorskip("highspy")
    problem = planted.small(1_910_663_934, "before", sources=5)
    solved = solver.solve(problem, bound_of(problem).copies, float("inf"), 0)
    assert problem.total(solved.at) == solved.least == 180 == planted.best_by_trying(problem)


def test_the_bound_is_the_best_where_images_fill_their_hosts():
    problem, best = planted.planted()
    assert problem.faults(problem.start) == problem.faults(best) == []
    assert bound_of(problem).least == problem.total(best)


def fleet(sources, groups, rooms, **more):
    return Problem([Host(f"h{number}", room, room) for number, room in enumerate(rooms)], sources, groups, **more)


def test_room_for_what_must_be_on_each_host():
    """Three sources of 10 pages with 6 in common: two fit into 15 pages, so that two hosts have the 6."""
    sources = [Source(f"s{number}", 10, 4, number) for number in range(3)]
    problem = fleet(sources, [((0, 1, 2), 6)], [15, 15, 15])
    assert bound_of(problem).least == 3 * 4 + 2 * 6 == planted.best_by_trying(problem)


def test_sources_that_fit_beside_none():
    """Before sharing, three sources of 6 pages are no two on a host of 10, although four hosts' room is 40."""
    sources = [Source(f"s{number}", 6, 1, number) for number in range(3)]
    problem = fleet(sources, [((0, 1, 2), 5)], [10, 10, 10, 10], fit="before")
    assert bound_of(problem).least == 3 * 6 == planted.best_by_trying(problem)


@pytest.mark.parametrize("more, hosts", [
    ({}, 1), ({"apart": [frozenset([0, 1, 2])]}, 3), ({"apart": [frozenset([1, 3])]}, 2), ({"tenants_apart": True}, 2), ({"moves": 1}, 3),
    ({"moves": 2}, 2), ({"moves": 3}, 1),
])  # fmt: skip
def test_what_must_not_meet_and_what_may_not_move(more, hosts):
    sources = [Source(f"s{number}", 9, 2, number, tenant=["blue", "red"][number % 2]) for number in range(4)]
    problem = fleet(sources, [((0, 1, 2, 3), 7)], [100] * 4, **more)
    bound = bound_of(problem)
    assert bound.copies.tolist() == [hosts]
    assert bound.least == 4 * 2 + hosts * 7 == planted.best_by_trying(problem)


def test_pinned_sources_keep_their_copies():
    sources = [Source(f"s{number}", 9, 2, number, pinned=number < 2) for number in range(4)]
    problem = fleet(sources, [((0, 1, 2, 3), 7)], [100] * 4)
    assert bound_of(problem).least == 4 * 2 + 2 * 7 == planted.best_by_trying(problem)


def test_few_moves_save_their_largest_shares():
    """One move takes one source away from many that have its contents: it saves nothing, and the bound says no more than its share."""
    sources = [Source(f"s{number}", 13, 3, number % 2) for number in range(8)]
    problem = fleet(sources, [(tuple(range(8)), 10)], [100, 100], moves=1)
    now = problem.total(problem.start)
    assert now == 8 * 3 + 2 * 10 == planted.best_by_trying(problem)
    assert bound_of(problem).least == now
    assert now - bound_of(fleet(sources, [(tuple(range(8)), 10)], [100, 100], moves=4)).least == 10


def test_groups_that_come_too_late_count_once():
    problem, _ = planted.planted(8, 4)
    assert bound_of(problem, 0.0).least == int(problem.own.sum() + problem.weights.sum())
    assert np.all(bound_of(problem, 0.0).copies == 1)

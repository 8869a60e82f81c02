# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host, and knows no others.
"""A small fleet as a mixed-integer program for HiGHS: an exact answer, or a bound and a placement by the time that is left.

Variables: x(s, h), whether source s is on host h; y(g, h), whether one of the sources of group g is; with tenants apart z(t, h), whether
host h is tenant t's. All hosts have the sum of own pages, and of weight(g) * y(g, h). The hosts that a group needs at least (bound.py) are
a row each, without which the program's relaxation would spread each source over all hosts and say little.
"""

from __future__ import annotations

import importlib
import math
import threading
import time
from typing import Any, NamedTuple

import numpy as np

from ksm.fleet.placing.problem import Numbers, Problem

MOST_VARIABLES = 500
MOST_ENTRIES = 10_000
NODES = 1000  # of the tree
DOUBT = 1e-6  # of a bound: what floating-point numbers may make of it


class Solved(NamedTuple):
    """All hosts together have `least` pages at least; and the best placement that was found, if any."""

    least: int
    at: Numbers | None


def usable(problem: Problem) -> bool:
    """Whether HiGHS is there, and the program small enough for it."""
    hosts, sources, groups = len(problem.hosts), len(problem.sources), len(problem.groups)
    entries = hosts * (3 * sources + sum(2 + 2 * len(members) for members in problem.members))
    if (sources + groups) * hosts > MOST_VARIABLES or entries > MOST_ENTRIES:
        return False
    try:
        importlib.import_module("highspy")
    except ImportError:
        return False
    return True


class Rows:
    """Rows of a program: lower <= sum of factor * variable <= upper."""

    def __init__(self) -> None:
        self.lower: list[float] = []
        self.upper: list[float] = []
        self.starts = [0]
        self.variables: list[int] = []
        self.factors: list[float] = []

    def add(self, lower: float, upper: float, *terms: tuple[int, float]) -> None:
        self.lower.append(lower)
        self.upper.append(upper)
        self.variables += [variable for variable, _ in terms]
        self.factors += [factor for _, factor in terms]
        self.starts.append(len(self.variables))


def program(problem: Problem, copies: Numbers) -> Any:
    """The program, as a HighsLp."""
    import highspy

    hosts = range(len(problem.hosts))
    sources, groups = len(problem.sources), len(problem.groups)
    tenants = int(np.max(problem.tenants, initial=0)) + 1 if problem.tenants_apart else 0
    wide = len(hosts)
    x = [[source * wide + host for host in hosts] for source in range(sources)]
    y = [[(sources + group) * wide + host for host in hosts] for group in range(groups)]
    z = [[(sources + groups + tenant) * wide + host for host in hosts] for tenant in range(tenants)]
    count = (sources + groups + tenants) * wide
    never = highspy.kHighsInf
    rows = Rows()
    for source in range(sources):
        rows.add(1, 1, *((x[source][host], 1) for host in hosts))
    for group, members in enumerate(problem.members):
        rows.add(float(copies[group]), never, *((y[group][host], 1) for host in hosts))
        for host in hosts:
            for source in members.tolist():
                rows.add(0, never, (y[group][host], 1), (x[source][host], -1))
    for host in hosts:
        sizes = problem.own if problem.fit == "after" else problem.pages
        terms = [(x[source][host], float(sizes[source])) for source in range(sources)]
        if problem.fit == "after":
            terms += [(y[group][host], float(problem.weights[group])) for group in range(groups)]
        rows.add(-never, float(problem.limits[host]), *terms)
        for clique in problem.apart:
            rows.add(-never, 1, *((x[source][host], 1) for source in sorted(clique)))
        if tenants:
            rows.add(-never, 1, *((z[tenant][host], 1) for tenant in range(tenants)))
            for source in range(sources):
                rows.add(0, never, (z[problem.tenants[source]][host], 1), (x[source][host], -1))
    if problem.moves is not None:
        rows.add(float(sources - problem.moves), never, *((x[source][problem.start[source]], 1) for source in range(sources)))
    lower = np.zeros(count)
    for source, each in enumerate(problem.sources):
        if each.pinned:
            lower[x[source][problem.start[source]]] = 1
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = count, len(rows.lower)
    cost = np.zeros(count)
    cost[sources * wide : (sources + groups) * wide] = np.repeat(problem.weights, wide)
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = cost, lower, np.ones(count)
    lp.row_lower_, lp.row_upper_ = np.array(rows.lower), np.array(rows.upper)
    lp.offset_ = float(problem.own.sum())
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = (
        np.array(rows.starts), np.array(rows.variables), np.array(rows.factors, float),
    )  # fmt: skip
    lp.integrality_ = [highspy.HighsVarType.kInteger] * count
    return lp


def solve(problem: Problem, copies: Numbers, deadline: float, seed: int) -> Solved:
    """See the top of the file. HiGHS is given no placement to begin with: where its presolve finds the best one, 1.16 returns that one."""
    import highspy

    highs = quiet(highspy.Highs)
    highs.HandleUserInterrupt = True  # else cancelSolve() does nothing
    options = {
        "time_limit": max(0.1, deadline - time.monotonic()), "mip_rel_gap": 0.0, "mip_abs_gap": 0.5, "threads": 1,
        "random_seed": seed % (1 << 31), "mip_max_nodes": NODES,
    }  # fmt: skip
    for name, value in options.items():
        highs.setOptionValue(name, value)
    highs.passModel(program(problem, copies))
    run(highs)
    info = highs.getInfo()
    least = int(problem.own.sum() + problem.weights.sum())
    if math.isfinite(info.mip_dual_bound):
        least = max(least, math.ceil(info.mip_dual_bound - DOUBT * max(1.0, abs(info.mip_dual_bound))))
    found = None
    if info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible:
        values = np.array(highs.getSolution().col_value[: len(problem.sources) * len(problem.hosts)])
        found = values.reshape(len(problem.sources), -1).argmax(1).astype(np.int64)
    return Solved(least, found)


def quiet(kind: Any) -> Any:
    """A Highs that prints nothing. It gives itself callbacks when it is made, and with these comes a banner, unless it was told not to."""

    def enable(highs: Any) -> None:
        highs.setOptionValue("output_flag", False)
        kind.enableCallbacks(highs)

    return type("Quiet", (kind,), {"enableCallbacks": enable})()


def run(highs: Any) -> None:
    """Run HiGHS in a thread, so that Ctrl-C is heard."""
    thread = threading.Thread(target=highs.run, daemon=True)
    thread.start()
    try:
        thread.join()
    except BaseException:
        highs.cancelSolve()
        thread.join()
        raise

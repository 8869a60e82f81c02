# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host, and knows no others.
"""What all hosts need at least, whatever the placement: no search can come below that.

Each content is on as many hosts as have one of its sources. So if the sources of group g have to be spread over n(g) hosts at least, then
all hosts together have at least the sum of own pages and of weight(g) * n(g). This holds for each group by itself, and so for the sum.

n(g) is the largest of these, each of which holds for any set M of sources:

    room      n hosts have no more room than the n largest ones. They must have what M takes on n hosts at least: before sharing, its pages;
              after sharing, own pages, one copy of each content that M has, n copies of a content that all of M have, and n(h) copies of a
              content whose sources are all in M. The least n for which that fits.
    items     sources of which no two fit into the largest host together need a host each.
    apart     as many as M has sources of one set of which no two may meet.
    tenants   where a host has one tenant only: the sum over tenants of what his part of M needs.
    pinned    as many as the pinned sources of M are on.
    moves     with K moves, a host is left by M when all sources that M has there move. The hosts with the fewest are left first.

With K moves there is a second bound. A host loses its copy of a content when all sources that have it there move; each of them gets its
share of that copy. What K moves save is at most the sum of the K largest sums of shares. Contents that are on n(g) hosts already save
nothing.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from ksm.fleet.placing.problem import Numbers, Problem

MOST_GROUPS = 4000  # that are looked at; the others count as on one host, which is true of each


class Bound(NamedTuple):
    """All hosts together have `least` pages at least. `copies` has the hosts that each group needs at least."""

    least: int
    copies: Numbers


def bound_of(problem: Problem, deadline: float = float("inf")) -> Bound:
    """By counting. Groups whose turn has not come by the deadline count as on one host, too."""
    finder = Finder(problem)
    # Small sets first: what they need counts in the larger ones around them.
    heavy = sorted(range(len(problem.groups)), key=lambda each: -problem.weights[each] * len(problem.members[each]))[:MOST_GROUPS]
    for group in sorted(heavy, key=lambda each: (len(problem.members[each]), -problem.weights[each])):
        if time.monotonic() >= deadline:
            break
        finder.copies[group] = finder.hosts_for(problem.members[group])
    least = int(problem.own.sum() + problem.weights @ finder.copies)
    if problem.moves is not None:
        least = max(least, finder.after_moves(problem.moves))
    return Bound(least, finder.copies)


class Finder:
    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.copies = np.ones(len(problem.groups), np.int64)
        self.sizes = np.array([len(members) for members in problem.members], np.int64)
        self.room = np.concatenate([[0], np.cumsum(np.sort(problem.limits)[::-1])])
        self.pinned = np.array([source.pinned for source in problem.sources], np.bool_)
        self.cliques = [np.array(sorted(clique), np.int64) for clique in problem.apart]

    def hosts_for(self, members: Numbers) -> int:
        """The number of hosts that a set of sources needs at least."""
        problem = self.problem
        parts = [members[problem.tenants[members] == tenant] for tenant in np.unique(problem.tenants[members])]
        return max(
            sum(max(self.by_room(part), self.by_items(part)) for part in parts),
            max((int(np.isin(clique, members).sum()) for clique in self.cliques), default=1),
            len(np.unique(problem.start[members[self.pinned[members]]])),
            self.by_moves(members),
        )

    def by_room(self, members: Numbers) -> int:
        problem = self.problem
        if problem.fit == "before":
            fits = self.room >= problem.pages[members].sum()
        else:
            groups, starts = problem.index
            mine = np.concatenate([groups[starts[each] : starts[each + 1]] for each in members])
            have = np.bincount(mine, minlength=len(self.sizes))
            everywhere = have == len(members)
            inside = (have == self.sizes) & ~everywhere
            once = problem.own[members].sum() + problem.weights @ np.where(inside, self.copies, (have > 0) & ~everywhere)
            fits = self.room >= once + problem.weights[everywhere].sum() * np.arange(len(self.room))
        enough = np.flatnonzero(fits[1:])
        return int(enough[0]) + 1 if len(enough) else len(problem.hosts)

    def by_items(self, members: Numbers) -> int:
        """Before sharing: the sources that take more than half of the largest host, and one more that fits beside none of them."""
        problem = self.problem
        if problem.fit == "after":
            return 1
        sizes = np.sort(problem.pages[members])[::-1]
        largest = int(np.max(problem.limits))
        count = int((2 * sizes > largest).sum())
        if 0 < count < len(sizes) and sizes[count - 1] + sizes[count] > largest:
            count += 1
        return max(1, count)

    def by_moves(self, members: Numbers) -> int:
        problem = self.problem
        if problem.moves is None:
            return 1
        there = np.sort(np.bincount(problem.start[members], minlength=len(problem.hosts)))
        there = there[there > 0]
        left = int(np.searchsorted(np.cumsum(there), problem.moves, side="right"))
        return max(1, len(there) - left)

    def after_moves(self, moves: int) -> int:
        """The second bound."""
        problem = self.problem
        counts = problem.counts(problem.start)
        gains = (counts > 0).sum(1) > self.copies
        groups, starts = problem.index
        owners = np.repeat(np.arange(len(problem.sources)), np.diff(starts))
        shares = np.where(gains[groups], problem.weights[groups] / counts[groups, problem.start[owners]], 0.0)
        each = np.where(self.pinned, 0.0, np.bincount(owners, shares, len(problem.sources)))
        most = np.sort(each)[::-1][:moves].sum()
        return problem.total(problem.start) - int(most * (1 + 1e-9) + 1e-6)

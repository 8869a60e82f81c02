# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host, and knows no others.
"""A placement that is being changed: what each host has, and what each source would add to each of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ksm.fleet.placing.problem import Numbers, Problem

NOWHERE = -1


class State:
    """`at` has the host of each source, or NOWHERE. `costs` has, for each source and host, the pages that it adds there to what others
    have.
    """

    def __init__(self, problem: Problem, at: Numbers) -> None:
        self.problem = problem
        self.at = at.astype(np.int64)
        self.counts = problem.counts(at)
        self.used = problem.used(at)
        self.filled = problem.filled(at)
        self.after = problem.fit == "after"
        self.moved = problem.moved(at)
        self.most = len(problem.sources) if problem.moves is None else problem.moves
        hosts = len(problem.hosts)
        self.meet = np.zeros((len(problem.apart), hosts), np.int64)
        self.tenant_counts = np.zeros((int(np.max(problem.tenants, initial=0)) + 1, hosts), np.int64)
        self.free = not problem.apart and not problem.tenants_apart
        for source, host in enumerate(at):
            self.note(source, int(host), 1)
        self._costs = np.zeros((len(problem.sources), hosts), np.int64)
        self._stale = set(range(hosts))

    @property
    def total(self) -> int:
        return int(self.used.sum())

    @property
    def price(self) -> int:
        """See Problem.price()."""
        return self.total + self.problem.least * self.moved

    @property
    def load(self) -> Numbers:
        """What must fit into the limits."""
        return self.used if self.after else self.filled

    def note(self, source: int, host: int, by: int) -> None:
        self.meet[self.problem.cliques[source], host] += by
        self.tenant_counts[self.problem.tenants[source], host] += by

    @property
    def costs(self) -> Numbers:
        """Columns of hosts that were changed since the last look are made anew."""
        if self._stale:
            problem = self.problem
            groups, starts = problem.index
            for host in self._stale:
                here = self.counts[:, host]
                column = self._costs[:, host]
                column[:] = problem.own + sums(np.where(here == 0, problem.weights, 0)[groups], starts)
                alone = np.where(here == 1, problem.weights, 0)
                for source in np.flatnonzero(self.at == host).tolist():
                    column[source] = problem.own[source] + alone[problem.groups_of(source)].sum()
            self._stale.clear()
        return self._costs

    def costs_of(self, source: int) -> Numbers:
        """What a source that is nowhere adds to each host."""
        problem = self.problem
        groups = problem.groups_of(source)
        costs: Numbers = problem.own[source] + problem.weights[groups] @ (self.counts[groups] == 0)
        return costs

    def costs_on(self, source: int, host: int) -> int:
        """What a source that is nowhere adds to one host."""
        problem = self.problem
        groups = problem.groups_of(source)
        return int(problem.own[source] + problem.weights[groups] @ (self.counts[groups, host] == 0))

    def remove(self, source: int) -> int:
        """Take a source off its host: how many pages that frees."""
        problem = self.problem
        host = int(self.at[source])
        groups = problem.groups_of(source)
        self.counts[groups, host] -= 1
        freed = int(problem.own[source] + problem.weights[groups] @ (self.counts[groups, host] == 0))
        self.used[host] -= freed
        self.filled[host] -= problem.pages[source]
        self.moved -= bool(host != problem.start[source])
        self.at[source] = NOWHERE
        self.note(source, host, -1)
        self._stale.add(host)
        return freed

    def put(self, source: int, host: int) -> int:
        """Put a source that is nowhere on a host: how many pages that takes."""
        problem = self.problem
        groups = problem.groups_of(source)
        taken = self.costs_on(source, host)
        self.counts[groups, host] += 1
        self.used[host] += taken
        self.filled[host] += problem.pages[source]
        self.moved += bool(host != problem.start[source])
        self.at[source] = host
        self.note(source, host, 1)
        self._stale.add(host)
        return taken

    def move(self, source: int, host: int) -> int:
        """By how many pages that makes all hosts together smaller."""
        return self.remove(source) - self.put(source, host)

    def restore(self, sources: Sequence[int], at: Sequence[int]) -> None:
        """Put sources where they were."""
        for source, host in zip(sources, at, strict=True):
            if self.at[source] != host:
                if self.at[source] != NOWHERE:
                    self.remove(source)
                self.put(source, host)

    def allowed(self, source: int) -> NDArray[np.bool_]:
        """The hosts on which a source, wherever it is now, meets none that it must not meet. A pinned one has its own host alone."""
        problem = self.problem
        if problem.sources[source].pinned:
            return np.equal(np.arange(len(problem.hosts)), self.problem.sources[source].host)
        if self.free:
            return np.ones(len(problem.hosts), np.bool_)
        tenant = problem.tenants[source]
        others = self.meet[problem.cliques[source]].sum(0) + self.tenant_counts.sum(0) - self.tenant_counts[tenant]
        if self.at[source] != NOWHERE:
            others[self.at[source]] -= len(problem.cliques[source])
        fine: NDArray[np.bool_] = others == 0
        return fine

    def meets(self, source: int) -> bool:
        """Whether a source meets one that it must not meet. One that is nowhere does not."""
        host, cliques = self.at[source], self.problem.cliques[source]
        if host == NOWHERE or self.free:
            return False
        tenants = self.tenant_counts[:, host]
        return bool(self.meet[cliques, host].sum() > len(cliques) or tenants.sum() > tenants[self.problem.tenants[source]])

    def any_meet(self) -> bool:
        return any(map(self.meets, range(len(self.at))))

    def swap_of(self, first: int, second: int) -> tuple[int, int]:
        """If two sources changed places: by how many pages the host of the first and that of the second would become larger."""
        problem = self.problem
        a, b = int(self.at[first]), int(self.at[second])
        both = np.intersect1d(problem.groups_of(first), problem.groups_of(second), assume_unique=True)
        weights = problem.weights[both]
        costs = self.costs
        on_a = costs[second, a] + weights @ (self.counts[both, a] == 1) - costs[first, a]
        on_b = costs[first, b] + weights @ (self.counts[both, b] == 1) - costs[second, b]
        return int(on_a), int(on_b)


def sums(values: Numbers, starts: Numbers) -> Numbers:
    """The sum of each part of the values; the parts begin at `starts`, whose last is the end."""
    ends = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=ends[1:])
    result: Numbers = ends[starts[1:]] - ends[starts[:-1]]
    return result

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host, and knows no others.
"""What is asked of a placement: hosts with room, sources with pages, the contents that sources have in common, and what must not be.

All sizes are in pages. A host's memory is one frame for each distinct content of its sources: what KSM comes to, but for max_page_sharing,
of which `ksm fleet check` knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Fit = Literal["after", "before"]  # what must fit into a host: its memory after sharing, or all pages of its sources
MOST_CELLS = 1 << 27  # of the table of contents and hosts: half a GiB
MOST_PLACES = 1 << 25  # of the table of sources and hosts, of which there are several at times: 256 MiB


class PlaceError(Exception):
    """A placement cannot be asked for, or there is none. The text is one line."""


@dataclass(frozen=True)
class Host:
    """A host. `capacity` is what it has for its sources, `limit` what may be used of that at the end."""

    name: str
    capacity: int
    limit: int


@dataclass(frozen=True)
class Source:
    """A source. `own` are distinct contents that no other source has; `pages` all pages that it has mapped."""

    name: str
    pages: int
    own: int
    host: int
    tenant: str | None = None
    pinned: bool = False


@dataclass(frozen=True)
class Problem:
    """What is asked. `groups` are contents by the sources that have them: (numbers of sources, ascending, two at least; contents).

    apart         sets of sources, of which no two may meet on a host
    tenants_apart  a host has sources of one tenant at most; those of none count as those of one more
    moves         as many sources may have another host than now; None for all
    least         what a move has to be worth: the placement is sought with the least memory and so many pages for each move
    fit           what must fit into `limit`: see Fit
    """

    hosts: Sequence[Host]
    sources: Sequence[Source]
    groups: Sequence[tuple[Sequence[int], int]]
    apart: Sequence[frozenset[int]] = ()
    tenants_apart: bool = False
    moves: int | None = None
    least: int = 0
    fit: Fit = "after"
    # What follows is made of the fields above.
    start: Numbers = field(init=False, compare=False)  # the host of each source, now
    own: Numbers = field(init=False, compare=False)
    pages: Numbers = field(init=False, compare=False)
    weights: Numbers = field(init=False, compare=False)  # contents of each group

    def __post_init__(self) -> None:
        if len(self.groups) * len(self.hosts) > MOST_CELLS:
            raise PlaceError(
                f"{len(self.groups):,} sets of sources have contents in common, too many for {len(self.hosts):,} hosts: take a sample"
            )
        if len(self.sources) * len(self.hosts) > MOST_PLACES:
            raise PlaceError(
                f"{len(self.sources):,} sources and {len(self.hosts):,} hosts are too many for one search: take parts of the fleet"
            )
        put = object.__setattr__
        put(self, "start", np.array([source.host for source in self.sources], np.int64))
        put(self, "own", np.array([source.own for source in self.sources], np.int64))
        put(self, "pages", np.array([source.pages for source in self.sources], np.int64))
        put(self, "weights", np.array([count for _, count in self.groups], np.int64))

    @cached_property
    def limits(self) -> Numbers:
        """What may be used of each host, at the end. A host that is fuller now must not get fuller."""
        now = self.used(self.start) if self.fit == "after" else self.filled(self.start)
        return np.maximum(np.array([host.limit for host in self.hosts], np.int64), now)

    @cached_property
    def index(self) -> tuple[Numbers, Numbers]:
        """The groups of all sources, one source after the other, and where each source begins, with the end of the last one."""
        return listed([members for members, _ in self.groups], len(self.sources))

    @cached_property
    def members(self) -> list[Numbers]:
        """The sources of each group."""
        return [np.array(members, np.int64) for members, _ in self.groups]

    def groups_of(self, source: int) -> Numbers:
        groups, starts = self.index
        return groups[starts[source] : starts[source + 1]]

    @cached_property
    def tenants(self) -> Numbers:
        """The tenant of each source, as a number; all 0 where tenants may meet."""
        names: dict[str | None, int] = {}
        if not self.tenants_apart:
            return np.zeros(len(self.sources), np.int64)
        return np.array([names.setdefault(source.tenant, len(names)) for source in self.sources], np.int64)

    @cached_property
    def cliques(self) -> list[list[int]]:
        """The sets of `apart` that each source is in."""
        result: list[list[int]] = [[] for _ in self.sources]
        for number, members in enumerate(self.apart):
            for source in members:
                result[source].append(number)
        return result

    def counts(self, at: Numbers) -> NDArray[np.int32]:
        """For each group and host: how many sources of the group are there."""
        counts = np.zeros((len(self.groups), len(self.hosts)), np.int32)
        groups, starts = self.index
        np.add.at(counts, (groups, np.repeat(at, np.diff(starts))), 1)
        return counts

    def used(self, at: Numbers) -> Numbers:
        """Distinct contents on each host."""
        own = np.bincount(at, self.own, len(self.hosts)).astype(np.int64)
        used: Numbers = own + self.weights @ (self.counts(at) > 0)
        return used

    def filled(self, at: Numbers) -> Numbers:
        """Pages of the sources on each host."""
        return np.bincount(at, self.pages, len(self.hosts)).astype(np.int64)

    def total(self, at: Numbers) -> int:
        return int(self.used(at).sum())

    def moved(self, at: Numbers) -> int:
        return int((at != self.start).sum())

    def price(self, at: Numbers) -> int:
        """What a placement is judged by: the less, the better."""
        return self.total(at) + self.least * self.moved(at)

    def faults(self, at: Numbers) -> list[str]:
        """What is not as it was asked for: a line each. Of a placement that place() gives, there are none."""
        lines = []
        load = self.used(at) if self.fit == "after" else self.filled(at)
        for number in np.flatnonzero(load > self.limits).tolist():
            lines.append(f"{self.hosts[number].name} has {load[number]:,} pages, and room for {self.limits[number]:,}")
        for clique in self.apart:
            for first, second in pairs_that_meet(clique, at):
                lines.append(f"{self.sources[first].name} and {self.sources[second].name} are both on {self.hosts[at[first]].name}")
        for number in range(len(self.hosts) if self.tenants_apart else 0):
            if len(set(self.tenants[at == number].tolist())) > 1:
                lines.append(f"{self.hosts[number].name} has sources of several tenants")
        for number in np.flatnonzero(at != self.start).tolist():
            if self.sources[number].pinned:
                lines.append(f"{self.sources[number].name} is pinned, and not on {self.hosts[self.start[number]].name}")
        if self.moves is not None and self.moved(at) > self.moves:
            lines.append(f"{self.moved(at)} sources are not where they were, and {self.moves} may be")
        return lines


def listed(sets: Sequence[Sequence[int]], sources: int) -> tuple[Numbers, Numbers]:
    """Of sets of sources: the sets of each source, one source after the other, and where each begins."""
    lengths = np.fromiter(map(len, sets), np.int64, len(sets))
    sources_of = np.fromiter((source for members in sets for source in members), np.int64, int(lengths.sum()))
    order = np.argsort(sources_of, kind="stable")
    starts = np.zeros(sources + 1, np.int64)
    np.cumsum(np.bincount(sources_of, minlength=sources), out=starts[1:])
    return np.repeat(np.arange(len(sets)), lengths)[order], starts


def pairs_that_meet(clique: Iterable[int], at: Numbers) -> Iterable[tuple[int, int]]:
    """One pair for each source of a set that meets another one on its host."""
    first: dict[int, int] = {}
    for source in sorted(clique):
        host = int(at[source])
        if host in first:
            yield first[host], source
        else:
            first[host] = source


def merge_groups(patterns: Iterable[tuple[Sequence[int], int]]) -> list[tuple[tuple[int, ...], int]]:
    """Patterns with each set of sources once, in a fixed order: the largest first."""
    found: dict[tuple[int, ...], int] = {}
    for members, count in patterns:
        key = tuple(sorted(members))
        found[key] = found.get(key, 0) + count
    return sorted(found.items(), key=lambda item: (-item[1] * (len(item[0]) - 1), item[0]))


def own_of(distinct: Sequence[int], groups: Iterable[tuple[Sequence[int], int]]) -> list[int]:
    """The contents that each source alone has, from all that it has."""
    own = [*distinct]
    for members, count in groups:
        for source in members:
            own[source] -= count
    return own

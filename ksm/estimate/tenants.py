# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges whatever is equal, and knows no tenants.
"""Pages that merge across tenants: what they could tell of each other, and what it would cost to keep them apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ksm.constants import PAGE_SIZE
from ksm.estimate.again import look_again
from ksm.estimate.copies import copied_frames
from ksm.estimate.found import KINDS, NO_TENANT, Kind, Tenant, Tenants
from ksm.estimate.result import Result, Stretch
from ksm.estimate.savings import STATES
from ksm.estimate.scan import Scan
from ksm.estimate.shares import UNKNOWN, Shares
from ksm.fingerprint.classes import CLASSES
from ksm.machine import Machine
from ksm.sources.base import Source
from ksm.sources.pieces import Piece, Run

VOLATILE, SHARED, SPLIT = (STATES.index(name) for name in ("volatile", "shared", "split"))


class Copy(Source):
    """Pages of sources that a machine has after its last pass, without those that are volatile, for a machine of fingerprints.

    Pages that share a frame since a fork are mappings, each of which counts against max_page_sharing. Those that are merged are pages of
    their own here, `forked_pages` of them, and merge again; what that frees was free before.
    """

    kind = "image"
    zeros_are_real = True

    def __init__(self, name: str, machine: Machine, sources: Sequence[Source], states: Sequence[Sequence[Stretch]]) -> None:
        super().__init__(name)
        self.machine, self.originals, self.states = machine, sources, states
        left_out = [0, VOLATILE, SPLIT]
        self.wanted = bytes(2 if place == SHARED else place not in left_out for place in range(256))
        self.forked_pages = 0
        self.copied = PAGE_SIZE * sum(
            len(each.states) - sum(each.states.count(state) for state in left_out) for stretches in states for each in stretches
        )
        self._ranges: list[Run] = []

    def attach(self, machine: Machine) -> None:
        process = self.spawn(machine)
        if not self.copied:
            return
        addr = process.mmap(self.copied)
        self._ranges.append((addr, self.copied))
        for source, stretches in zip(self.originals, self.states, strict=True):
            for (_, words), stretch in zip(source.page_tables(), stretches, strict=True):
                frames, forked = copied_frames(self.machine, words, stretch.states.translate(self.wanted))
                self.forked_pages += forked
                process.load(addr, frames, always=True)
                addr += len(frames) // 32 * PAGE_SIZE

    def ranges(self) -> list[Run]:
        return self._ranges

    def pieces(self) -> Iterator[Piece]:
        raise NotImplementedError  # nobody writes fingerprints of it


def make_tenants(
    scan: Scan, shares: Shares, result: Result, tenants: Mapping[str, Sequence[Source]], *, settings: Mapping[str, str], key: bytes | None
) -> Tenants:
    """The tenants after the last pass. SourceError where there is no memory for another machine."""
    names = list(tenants)
    place_of = {id(source): place for place, name in enumerate(names) for source in tenants[name]}
    groups = [place_of.get(id(source), len(names)) for source in scan.sources]
    if len(names) in groups:
        names.append(NO_TENANT)
    classes = classes_between(scan, shares, groups, len(names), key)
    found = shares.by_class(groups, len(names), classes)
    kinds = []
    for name, parts, tells in KINDS:
        rows = [found[place] for place in (CLASSES.index(part) for part in parts) if place in found]
        if not parts and UNKNOWN in found:
            rows = [found[UNKNOWN]]
        contents, pages, frames = sum(row[0] for row in rows), sum(row[1] for row in rows), sum(row[3] for row in rows)
        each = [sum(row[2][place] for row in rows) for place in range(len(names))]
        if parts or rows:
            kinds.append(Kind(name, contents, pages, frames, each, tells))
    every = []
    apart = result.ledger.split + sum(source.standing.zeros for source in scan.sources)
    for place, name in enumerate(names):
        own = [number for number, group in enumerate(groups) if group == place]
        sources = [scan.sources[number] for number in own]
        freed = freed_apart(scan, name, sources, [scan.states[number] for number in own], settings)
        apart += freed
        pages = sum(result.sources[number].pages for number in own)
        merged = sum(kind.tenants[place] for kind in kinds)
        every.append(Tenant(name, [source.name for source in sources], pages, merged, freed))
    return Tenants(every, kinds, result.ledger.freed, apart)


def classes_between(scan: Scan, shares: Shares, groups: list[int], nr: int, key: bytes | None) -> bytes:
    """The class of each content that several groups have."""
    _, _, keys, classes = shares.between(groups, nr)
    wanted = {key for key, kind in zip(keys, classes, strict=True) if kind == UNKNOWN}
    if not wanted:
        return bytes(classes)
    found = look_again(scan.sources, wanted, key=key).classes
    return bytes(found.get(key, kind) if kind == UNKNOWN else kind for key, kind in zip(keys, classes, strict=True))


def freed_apart(
    scan: Scan, name: str, sources: list[Source], states: Sequence[Sequence[Stretch]], settings: Mapping[str, str]
) -> int:
    """The pages that would be freed of these sources alone: KSM is run over a copy of them."""
    copy = Copy(name, scan.machine, sources, states)
    if not copy.copied:
        return 0
    with Scan([copy], settings=settings, era=scan.era, exact=False, threads=1) as alone:
        return alone.run().ledger.freed - copy.forked_pages

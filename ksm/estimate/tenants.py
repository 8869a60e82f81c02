# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges whatever is equal, and knows no tenants.
"""Pages that merge across tenants: what they could tell of each other, and what it would cost to keep them apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ksm.constants import PAGE_SIZE
from ksm.estimate.again import look_again
from ksm.estimate.copies import copied_frames
from ksm.estimate.savings import STATES
from ksm.estimate.scan import NO_TENANT
from ksm.estimate.shares import UNKNOWN, Shares
from ksm.fingerprint.classes import CLASSES
from ksm.machine import Machine
from ksm.sources.base import Source
from ksm.sources.pieces import Piece, Run

if TYPE_CHECKING:
    from ksm.estimate.scan import Result, Scan, Stretch

VOLATILE, SHARED, SPLIT = (STATES.index(name) for name in ("volatile", "shared", "split"))

HOW = (
    "A tenant who fills a page of his own, and times a write to it once ksmd has come by, learns whether another tenant has a page with "
    "these contents: a write to a merged page takes longer, because the page is copied first."
)
# The classes that are reported, the classes of pages that they stand for, and what a tenant can find out of another one by them
KINDS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("zero", ("zero",), "Nothing: all tenants have pages of zeros."),
    ("one value", ("byte", "word"), "Little: that a page holds one value over and over, as memory does that was freed and poisoned."),
    (
        "text", ("text",),
        "Whether another tenant has exactly this text: a configuration, a document, a page of a web site. Where all but a secret is known, "
        "each guess of the secret can be tried.",
    ),
    ("code", ("code",), "Which programs and libraries another tenant runs, and in which versions, and so which faults they have."),
    (
        "pointers", ("pointers",),
        "Whether another tenant has the same structures at the same addresses. That defeats the randomisation of his addresses.",
    ),
    ("other", ("other",), "Whether another tenant has exactly these data: a part of a file, a table, an image."),
    ("unknown", (), "What these pages are is not known: their bytes could not be read again."),
)  # fmt: skip


class Kind(NamedTuple):
    """Contents of one class that several tenants have.

    contents  how many
    pages     of all tenants that have them
    frames    freed because tenants share: each content is kept once, and each of its tenants but one would need a frame
    tenants   the pages of each tenant, in the order of Tenants.tenants
    tells     what another tenant can find out by them
    """

    name: str
    contents: int
    pages: int
    frames: int
    tenants: list[int]
    tells: str


class Tenant(NamedTuple):
    """A tenant: his sources, his pages, how many of these are merged with another tenant's, and what merging would free of his alone."""

    name: str
    sources: list[str]
    pages: int
    merged: int
    apart: int


class Tenants(NamedTuple):
    """What is merged across tenants. Sources that are no tenant's are the last tenant, NO_TENANT, if there are any.

    freed  pages that are freed with all tenants in one machine, as the ledger has them
    apart  pages that are freed with each tenant in a machine of his own
    """

    tenants: list[Tenant]
    kinds: list[Kind]
    freed: int
    apart: int

    @property
    def cost(self) -> int:
        """Pages that it costs to forbid merging across tenants."""
        return self.freed - self.apart

    @property
    def merged(self) -> int:
        """Pages that are merged with those of another tenant."""
        return sum(kind.pages for kind in self.kinds)

    def as_json(self) -> dict[str, Any]:
        names = [tenant.name for tenant in self.tenants]
        return {
            "tenants": [tenant._asdict() for tenant in self.tenants],
            "how": HOW,
            "classes": [
                {**kind._asdict(), "tenants": dict(zip(names, kind.tenants, strict=True))} for kind in self.kinds
            ],
            "merged": self.merged,
            "freed": self.freed,
            "apart": self.apart,
            "cost": self.cost,
        }


class Copy(Source):
    """Pages of sources that a machine has after its last pass, without those that are volatile, for a machine of fingerprints."""

    kind = "image"
    zeros_are_real = True

    def __init__(self, name: str, machine: Machine, sources: Sequence[Source], states: Sequence[Sequence[Stretch]]) -> None:
        super().__init__(name)
        self.machine, self.originals, self.states = machine, sources, states
        left_out = [0, VOLATILE, SHARED, SPLIT]
        self.wanted = bytes(place not in left_out for place in range(256))
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
                frames = copied_frames(self.machine, words, stretch.states.translate(self.wanted))
                process.load(addr, frames, always=True)
                addr += len(frames) // 32 * PAGE_SIZE

    def ranges(self) -> list[Run]:
        return self._ranges

    def pieces(self) -> Iterator[Piece]:
        raise NotImplementedError  # nobody writes fingerprints of it


def make_tenants(
    scan: Scan, shares: Shares, states: Sequence[Sequence[Stretch]], result: Result, tenants: Mapping[str, Sequence[Source]]
) -> Tenants:
    """The tenants after the last pass. SourceError where there is no memory for another machine."""
    names = list(tenants)
    place_of = {id(source): place for place, name in enumerate(names) for source in tenants[name]}
    groups = [place_of.get(id(source), len(names)) for source in scan.sources]
    if len(names) in groups:
        names.append(NO_TENANT)
    classes = classes_between(scan, shares, groups, len(names))
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
        freed = freed_apart(scan, name, sources, [states[number] for number in own])
        apart += freed
        pages = sum(result.sources[number].pages for number in own)
        merged = sum(kind.tenants[place] for kind in kinds)
        every.append(Tenant(name, [source.name for source in sources], pages, merged, freed))
    return Tenants(every, kinds, result.ledger.freed, apart)


def classes_between(scan: Scan, shares: Shares, groups: list[int], nr: int) -> bytes:
    """The class of each content that several groups have."""
    _, _, keys, classes = shares.between(groups, nr)
    wanted = {key for key, kind in zip(keys, classes, strict=True) if kind == UNKNOWN}
    if not wanted:
        return bytes(classes)
    found = look_again(scan.sources, wanted, key=scan.key).classes
    return bytes(found.get(key, kind) if kind == UNKNOWN else kind for key, kind in zip(keys, classes, strict=True))


def freed_apart(scan: Scan, name: str, sources: list[Source], states: Sequence[Sequence[Stretch]]) -> int:
    """The pages that would be freed of these sources alone: KSM is run over a copy of them."""
    from ksm.estimate.scan import Scan as Another

    copy = Copy(name, scan.machine, sources, states)
    if not copy.copied:
        return 0
    with Another([copy], settings=scan.settings, era=scan.era, exact=False, threads=1) as alone:
        return alone.run().ledger.freed

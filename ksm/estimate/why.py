# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what `ksm why` says, as objects.
"""What became of the pages of some sources, and why: the answer of `ksm why`. look.py finds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from ksm.constants import PAGE_SIZE
from ksm.estimate.reasons import BY_CODE, BY_NAME, FILES, READABLE, UNLUCKY, Reason
from ksm.estimate.scan import Result
from ksm.record.decisions import Visit
from ksm.sources.page_codes import PageCodes


class Gain(NamedTuple):
    """Of the pages of one reason: how many have an equal, and how many would be freed if all of them could merge."""

    equal: int
    freed: int


class Place(NamedTuple):
    """A page: the name of its source, and its address there."""

    source: str
    address: int


@dataclass(frozen=True)
class Region:
    """A mapping of a process, or a range of a file.

    start, end  addresses in the source
    name        the file, "[heap]", ...; "" without a name
    reasons     pages by the name of a reason; they add up to the pages of the region
    gains       of those, by reason, what could be gained
    rss, swap   bytes, as smaps has them; None of files
    """

    number: int
    start: int
    end: int
    name: str
    reasons: dict[str, int]
    gains: dict[str, Gain] = field(default_factory=dict)
    rss: int | None = None
    swap: int | None = None
    _codes: PageCodes = field(default_factory=PageCodes, repr=False, compare=False)

    @property
    def pages(self) -> int:
        return (self.end - self.start) // PAGE_SIZE

    @property
    def merged(self) -> int:
        """Pages that are merged."""
        return sum(count for name, count in self.reasons.items() if BY_NAME[name].group == "merged")

    @property
    def there(self) -> int:
        """Pages that there are, or that are swapped out."""
        return self.pages - self.reasons.get("absent", 0)

    @property
    def freed(self) -> int:
        """Pages that could be freed besides."""
        return sum(gain.freed for gain in self.gains.values())

    def codes(self) -> bytes:
        """A byte for each page: Reason.code. A region may be very large: see runs()."""
        return self._codes.codes(self.start, self.end)

    def runs(self) -> Iterator[tuple[int, int, str]]:
        """Neighbouring pages of one reason, by address: (start, end, name of the reason). Pages that are not there are left out."""
        for start, end, code in self._codes.runs(self.start, self.end):
            yield start, end, BY_CODE[code].name


@dataclass(frozen=True)
class Examined:
    """A source, and what became of its pages.

    kind        "process", "image", "core" or "dump"
    regions     by address
    notes       what is not known of it
    """

    name: str
    kind: str
    regions: tuple[Region, ...]
    notes: tuple[str, ...] = ()

    @cached_property
    def reasons(self) -> dict[str, int]:
        """Pages by the name of a reason."""
        total: Counter[str] = Counter()
        for region in self.regions:
            total.update(region.reasons)
        return dict(total)

    @property
    def pages(self) -> int:
        return sum(region.pages for region in self.regions)


class Chance(NamedTuple):
    """What could be gained by one remedy. `equal` and `freed` are None where contents were not read. `where` has the sources, those with
    most first, with how many pages each.
    """

    reason: Reason
    pages: int
    equal: int | None
    freed: int | None
    where: list[tuple[str, int]]


@dataclass(frozen=True)
class Story:
    """One page: where it is, its reason, what each visit decided, and which pages share its frame, or have the same content."""

    place: Place
    region: Region | None
    reason: Reason
    visits: tuple[Visit, ...]
    names: dict[int, str]  # of the processes of the machine, by mm_id
    same_frame: tuple[Place, ...]
    same_content: tuple[Place, ...]
    more: bool  # there are more than those


@dataclass(frozen=True)
class Why:
    """What became of the pages of some sources, and why.

    scan        what `ksm scan` says of the same sources
    sources     each with its regions
    gains       by the name of a reason, of all sources together
    quick       what KSM never looks at was not read
    story       of one page, if it was asked for
    """

    scan: Result
    sources: tuple[Examined, ...]
    gains: dict[str, Gain]
    quick: bool = False
    story: Story | None = None

    @cached_property
    def reasons(self) -> dict[str, int]:
        """Pages by the name of a reason."""
        total: Counter[str] = Counter()
        for source in self.sources:
            total.update(source.reasons)
        return dict(total)

    @property
    def regions(self) -> Iterator[tuple[Examined, Region]]:
        for source in self.sources:
            for region in source.regions:
                yield source, region

    def chances(self) -> list[Chance]:
        """What could be gained, by what it takes; the largest gain first, then what is not known, by size.

        Files come last of these: the page cache has each of them once already.
        """
        found = []
        for name, pages in self.reasons.items():
            reason = BY_NAME[name]
            if not reason.remedy:
                continue
            where = [(source.name, source.reasons.get(name, 0)) for source in self.sources]
            where = sorted(((source, count) for source, count in where if count), key=lambda each: -each[1])
            known = name in self.gains or reason.code in UNLUCKY or (not self.quick and reason.code in READABLE)
            gain = self.gains.get(name, Gain(0, 0)) if known else None
            found.append(Chance(reason, pages, gain.equal if gain else None, gain.freed if gain else None, where))
        def order(chance: Chance) -> tuple[int, bool, bool, int]:
            return -(chance.freed or 0), chance.freed is not None, chance.reason.code in FILES, -chance.pages

        return sorted(found, key=order)

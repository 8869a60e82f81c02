# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what `ksm why` does, without the command line.
"""Scan sources as `ksm scan` does, and say of each page why it is merged, or not. The scan counts what it would count without that."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from ksm.constants import PAGE_SIZE
from ksm.estimate import outcomes
from ksm.estimate.contents import Contents
from ksm.estimate.outcomes import Outcomes
from ksm.estimate.pace import BUDGET
from ksm.estimate.reasons import BY_CODE, BY_NAME, READABLE, UNLUCKY, Reason
from ksm.estimate.regions import Found, ranges_of
from ksm.estimate.scan import Result, Scan
from ksm.fingerprint.frames import frames_of
from ksm.record.decisions import Decisions, Visit
from ksm.sources import Source, SourceError
from ksm.sources.areas import Unread, contents
from ksm.sources.base import CHUNK
from ksm.sources.live import LiveSource
from ksm.sources.page_codes import PageCodes
from ksm.sources.pieces import Run

MOST_ALIKE = 1000  # pages that are listed as equal to one


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

    @property
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

    @property
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
        """What could be gained, by what it takes; the largest gain first, then what is not known, by size."""
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
        return sorted(found, key=lambda chance: (-(chance.freed or 0), chance.freed is not None, -chance.pages))


class Look(Scan):
    """A scan that keeps what was decided of each page. After run(), `why` says it."""

    quick = False
    key: bytes | None = None
    followed: tuple[int, int] | None = None  # number of a source, address in it
    decisions: Decisions | None = None
    why: Why | None = None

    def scan(self, number: int) -> int:
        if self.decisions is None:
            self.decisions = Decisions(self.machine)
            self.follow()
        return super().scan(number)

    def follow(self) -> None:
        """Keep the visits of the page that is asked for. SourceError if there is none."""
        if self.followed is None:
            return
        number, address = self.followed
        source = self.asked = self.sources[number]
        assert source.process is not None and self.decisions is not None
        for addr, start, length in source.places():
            if start <= address < start + length:
                self.decisions.follow(source.process.mm_id, addr + address - start)

    def result(self, passes: int, settled: bool, seconds: Sequence[float] = ()) -> Result:
        result = super().result(passes, settled, seconds)
        self.progress("looking why", 0, 0)
        finder = Finder(self)
        self.why = finder.why(result)
        return result

    def close(self) -> None:
        if self.decisions is not None:
            self.decisions.stop()

    def __enter__(self) -> Look:
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(ValueError):
            self.close()
        super().__exit__(*exception)


class Finder:
    """Finds the reason of each page, after the last pass."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self.outcomes = Outcomes(look.machine)
        self.found: list[Found] = []
        self.unread = Unread()

    def why(self, result: Result) -> Why:
        look = self.look
        for source in look.sources:
            self.outcomes.next_source()
            for _, words in source.page_tables():
                self.outcomes.add(words)
        first = 0
        for source in look.sources:
            ranges = ranges_of(source, self.scanned(source), first)
            first += len(ranges.regions)
            self.found.append(ranges)
        gains = self.gains()
        examined = []
        for source, found in zip(look.sources, self.found, strict=True):
            regions = tuple(
                Region(
                    number, range.start, range.end, range.name, range.reasons(found.codes),
                    {BY_CODE[code].name: gain for code, gain in gains.get(number, {}).items()},
                    range.rss, range.swap, found.codes,
                )
                for number, range in enumerate(found.regions, found.first)
            )  # fmt: skip
            examined.append(Examined(source.name, source.kind, regions, tuple(found.notes)))
        total = {BY_CODE[code].name: gain for code, gain in gains.get(-1, {}).items()}
        return Why(result, tuple(examined), total, look.quick, self.story(examined))

    def scanned(self, source: Source) -> PageCodes:
        """The reasons of the pages that the machine has, at their addresses in the source."""
        codes, apart = PageCodes(), PageCodes()
        for start, end in source.apart:
            apart.fill(start, end, outcomes.APART)
        assert source.process is not None and self.look.decisions is not None
        mm_id = source.process.mm_id
        for addr, start, length in sorted(source.places()):
            for done in range(0, length, CHUNK):
                part = min(CHUNK, length - done)
                at = addr + done
                words = source.process.page_table(at, part)
                source.repeat(at, words)
                decisions = self.look.decisions.of(mm_id, at, len(words))
                if source.apart:
                    codes.put(start + done, apart.codes(at, at + part))
                codes.put(start + done, self.outcomes.reasons(words, decisions))
        return codes

    def gains(self) -> dict[int, dict[int, Gain]]:
        """By the number of a region, -1 for all of them, and by reason. Empty where nothing could be gained."""
        look = self.look
        into = Contents(look.machine)
        readable = False
        for source, found in zip(look.sources, self.found, strict=True):
            if not look.quick and isinstance(source, LiveSource):
                readable = self.read(source, found, into) or readable
        if not readable and not any(found.codes.counts(range.start, range.end)[code]
                                    for found in self.found for range in found.regions for code in UNLUCKY):  # fmt: skip
            return {}
        for source, found in zip(look.sources, self.found, strict=True):
            self.add(source, found, into)
        result: dict[int, dict[int, Gain]] = {}
        for reason, region, equal, freed in into.gains():
            result.setdefault(region, {})[reason] = Gain(equal, freed)
        return result

    def add(self, source: Source, found: Found, into: Contents) -> None:
        """Add what the machine has of a source."""
        assert source.process is not None
        starts = [range.start for range in found.regions]
        for addr, start, length in source.places():
            at, end = start, start + length
            place = max(0, bisect_right(starts, start) - 1)
            while at < end and place < len(starts):
                region = found.regions[place]
                at = max(at, region.start)
                last = min(end, region.end, at + CHUNK)
                if at < last:
                    words = source.process.page_table(addr + at - start, last - at)
                    source.repeat(addr + at - start, words)
                    into.add(words, found.codes.codes(at, last), found.first + place)
                    at = last
                if at >= region.end:
                    place += 1

    def read(self, source: LiveSource, found: Found, into: Contents) -> bool:
        """Read what KSM never looks at of a process, and add it: whether there was any."""
        any_read = False
        for number, range in enumerate(found.regions, found.first):
            counts = found.codes.counts(range.start, range.end)
            if not any(counts[code] for code in READABLE):
                continue
            by_code: dict[int, list[Run]] = {}
            for start, end, code in found.codes.runs(range.start, range.end):
                if code in READABLE:
                    by_code.setdefault(code, []).append((start, end))
            for code, runs in by_code.items():
                if range.file and code != outcomes.NOT_MERGEABLE:
                    runs = self.unread.of(range.file, runs, range.offset - range.start)
                try:
                    for frames in contents(source, runs, lambda view: frames_of(view, key=self.look.key)):
                        into.add_frames(frames, number, code)
                        any_read = True
                except SourceError:
                    found.notes.append("has exited, so that what KSM never looks at was not read")
                    return any_read
        return any_read

    def story(self, examined: list[Examined]) -> Story | None:
        look = self.look
        if look.followed is None:
            return None
        address = look.followed[1]
        source = look.asked
        if source not in look.sources:
            raise SourceError(f"{source.name}: exited during the scan")
        number = look.sources.index(source)
        region = next((each for each in examined[number].regions if each.start <= address < each.end), None)
        code = self.found[number].codes.get(address) if region else outcomes.ABSENT
        assert look.decisions is not None and source.process is not None
        words = None
        for addr, start, length in source.places():
            if start <= address < start + length:
                words = source.process.page_table(addr + address - start, PAGE_SIZE)
        same: list[Place] = []
        alike: list[Place] = []
        if words and words[0] & 1:
            for each, other in zip(look.sources, examined, strict=True):
                self.add_alike(each, other.name, words[0] >> 8, same, alike)
        own = Place(source.name, address)
        names = {each.process.mm_id: each.name for each in look.sources if each.process is not None}
        return Story(
            own, region, BY_CODE[code], tuple(look.decisions.visits()), names, tuple(place for place in same if place != own), tuple(alike),
            len(same) + len(alike) >= MOST_ALIKE,
        )  # fmt: skip

    def add_alike(self, source: Source, name: str, pfn: int, same: list[Place], alike: list[Place]) -> None:
        """Find the pages of a source that have this frame, or the same content."""
        assert source.process is not None
        for addr, start, length in source.places():
            for done in range(0, length, CHUNK):
                words = source.process.page_table(addr + done, min(CHUNK, length - done))
                for index, is_same in self.outcomes.like(words, pfn, MOST_ALIKE - len(same) - len(alike)):
                    (same if is_same else alike).append(Place(name, start + done + index * PAGE_SIZE))


def examine(look: Look, passes: int | None = None, interval: float | None = None, budget: float = BUDGET) -> Why:
    """Run the scan, and say why. SourceError."""
    look.run(passes, interval, budget)
    assert look.why is not None
    return look.why

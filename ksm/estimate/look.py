# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what `ksm why` does, without the command line.
"""Scan sources as `ksm scan` does, and say of each page why it is merged, or not. The scan counts what it would count without that."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ksm.constants import PAGE_SIZE
from ksm.estimate import outcomes
from ksm.estimate.contents import Contents
from ksm.estimate.eras import ERA
from ksm.estimate.outcomes import Outcomes
from ksm.estimate.pace import BUDGET
from ksm.estimate.reasons import BY_CODE, READABLE, UNLUCKY
from ksm.estimate.regions import Found, memory_of_guests, ranges_of
from ksm.estimate.scan import Progress, Result, Scan, Zeros, no_progress
from ksm.estimate.why import Examined, Gain, Place, Region, Story, Why
from ksm.fingerprint.frames import frames_of
from ksm.record.decisions import Decisions
from ksm.sources import Host, Source, SourceError, Which, open_sources
from ksm.sources.advice import of_which
from ksm.sources.areas import Part, Unread, contents
from ksm.sources.base import CHUNK
from ksm.sources.gentle import gently
from ksm.sources.live import LiveSource
from ksm.sources.page_codes import PageCodes

if TYPE_CHECKING:
    from ksm.machine import _Era as Era
    from ksm.sources.input import Holes

MOST_ALIKE = 1000  # pages that are listed as equal to one
FRAME = 32  # bytes that frames_of() makes of a page


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
        memory_of_guests(self.found)
        gains = self.gains()
        self.add_zeros_apart(gains)
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

    def add_zeros_apart(self, gains: dict[int, dict[int, Gain]]) -> None:
        """Pages of zeros that were set apart are equal to each other, and to all zeros that are merged."""
        counts = {}
        for found in self.found:
            for number, range in enumerate(found.regions, found.first):
                counts[number] = found.codes.counts(range.start, range.end)
        kept = not any(each[outcomes.ZERO] for each in counts.values()) and not self.look.counter("use_zero_pages")
        apart = {number: each[outcomes.APART] for number, each in counts.items() if each[outcomes.APART]}
        for number, pages in [*apart.items(), *([(-1, sum(apart.values()))] if apart else [])]:
            gains.setdefault(number, {})[outcomes.APART] = Gain(pages if pages > kept else 0, pages - kept)

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
        wanted = self.wanted(found)
        starts = [start for start, _, _, _ in wanted]
        any_read = False
        try:
            for runs, frames in contents(source, [(start, end) for start, end, _, _ in wanted], self.frames_of):
                done = 0
                for start, end in runs:
                    place = bisect_right(starts, start) - 1
                    while start < end:
                        _, last, number, code = wanted[place]
                        pages = (min(end, last) - start) // PAGE_SIZE
                        into.add_frames(frames[done * FRAME : (done + pages) * FRAME], number, code)
                        any_read = True
                        done += pages
                        start += pages * PAGE_SIZE
                        place += 1
        except SourceError:
            found.notes.append("has exited, so that not all was read that KSM never looks at")
        return any_read

    def frames_of(self, view: memoryview) -> bytes:
        return frames_of(view, key=self.look.key)

    def wanted(self, found: Found) -> list[tuple[int, int, int, int]]:
        """What has contents that can be read, and that were not read yet: start, end, number of the region, code."""
        wanted: list[tuple[int, int, int, int]] = []
        of_files: dict[tuple[str, int], list[Part]] = {}
        for number, range in enumerate(found.regions, found.first):
            counts = found.codes.counts(range.start, range.end)
            if not any(counts[code] for code in READABLE):
                continue
            for start, end, code in found.codes.runs(range.start, range.end):
                if code in READABLE and range.file and code != outcomes.NOT_MERGEABLE:
                    offset = range.start - range.offset
                    of_files.setdefault(range.file, []).append(Part(start - offset, end - offset, offset, number, code))
                elif code in READABLE:
                    wanted.append((start, end, number, code))
        for file, parts in of_files.items():
            for part in self.unread.of(file, parts):
                wanted.append((part.start + part.offset, part.end + part.offset, part.region, part.code))
        return sorted(wanted)

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


def ask(
    texts: Sequence[str],
    address: int | None = None,
    *,
    which: Which = "prctl",
    era: Era = ERA,
    settings: Mapping[str, str] | None = None,
    passes: int | None = None,
    budget: float = BUDGET,
    interval: float | None = None,
    as_passes: bool = False,
    quick: bool = False,
    holes: Holes | None = None,
    zeros: Zeros = "apart",
    exact: bool = False,
    key: bytes | None = None,
    threads: int | None = None,
    gentle: bool = False,
    progress: Progress = no_progress,
) -> Why:
    """Open the sources that these texts name, scan them, and say why. `address` is that of a page of the first one. SourceError,
    SettingError.
    """
    host = Host(gentle=gentle)
    opened: list[Source] = []
    remarks: list[str] = []
    try:
        with gently(gentle):
            if as_passes:
                from ksm.sources.snapshots import open_snapshots  # few have snapshots

                opened, passes = open_snapshots(texts, holes), passes or len(texts)
            else:
                opened, remarks = open_sources(texts, host, which=which, holes=holes)
            if not opened:
                raise SourceError("there is no process that you may read" + (f": {remarks[0]}" if remarks else ""))
            with Look(
                opened, settings=settings, era=era, exact=exact or None, key=key, threads=threads, zeros=zeros, progress=progress
            ) as look:
                look.quick, look.key = quick, key
                look.followed = None if address is None else (0, address // PAGE_SIZE * PAGE_SIZE)
                found = examine(look, passes, interval, budget)
    finally:
        for source in opened:
            source.close()
        host.close()
    found.scan.notes[:0] = of_which(opened, which)
    found.scan.notes.extend(remarks)
    return found

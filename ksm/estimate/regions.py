# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the regions of sources.
"""The regions of a source, and the reason of each of their pages: of processes, those that KSM never looks at, too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from ksm.estimate import outcomes
from ksm.estimate.reasons import BY_CODE, REFUSED
from ksm.sources import Source, SourceGone
from ksm.sources.areas import Area, areas, is_hypervisor, pagemap_of
from ksm.sources.fingerprints import RowsSource
from ksm.sources.live import LiveSource
from ksm.sources.mappings import MERGEABLE
from ksm.sources.page_codes import PageCodes, fill_kinds
from ksm.sources.snapshots import SnapshotSource

KERNEL_HALF = 1 << 63


class Range(NamedTuple):
    """A region. See ksm.estimate.why.Region; `file` and `offset` say which file it maps, and from where on."""

    start: int
    end: int
    name: str
    rss: int | None = None
    swap: int | None = None
    file: tuple[str, int] | None = None
    offset: int = 0

    def reasons(self, codes: PageCodes) -> dict[str, int]:
        """Pages by the name of a reason."""
        return {BY_CODE[code].name: count for code, count in enumerate(codes.counts(self.start, self.end)) if count}


@dataclass
class Found:
    """The regions of a source, numbered from `first` on, and the reason of each page."""

    first: int
    regions: list[Range]
    codes: PageCodes
    notes: list[str] = field(default_factory=list)


def ranges_of(source: Source, scanned: PageCodes, first: int) -> Found:
    """The regions of a source; `scanned` has the reasons of the pages that the scan has seen."""
    if isinstance(source, LiveSource):
        try:
            return of_process(source, scanned, first)
        except SourceGone:
            ranges = [Range(mapping.start, mapping.end, mapping.name) for mapping in source.mappings]
            return Found(first, ranges, scanned, ["has exited, so that only the mappings are known that KSM looks at"])
    notes = []
    moments = source.moments_of()
    if any(isinstance(moment, RowsSource) for moment in moments):
        notes.append("fingerprints have neither mappings nor what KSM never looks at")
        if not isinstance(source, SnapshotSource):
            notes.append("fingerprints of one moment do not tell what changes: --as-passes takes several")
    elif source.still and not isinstance(source, SnapshotSource):
        notes.append("of a still image: what a running machine keeps writing to looks as if it held still")
    if source.holes:
        notes.append(f"{source.holes:,} pages are left out of the file, and are in no region")
    return Found(first, of_places(source, scanned), scanned, notes)


def of_places(source: Source, scanned: PageCodes) -> list[Range]:
    """Of a file: its neighbouring pages together. Where the machine has them in blocks, a block has more than the file."""
    names = {"image": "image", "core": "segment"}
    ranges: list[Range] = []
    for start, length in sorted((start, length) for _, start, length in source.places()):
        if ranges and start <= ranges[-1].end:
            ranges[-1] = ranges[-1]._replace(end=max(ranges[-1].end, start + length))
        else:
            ranges.append(Range(start, start + length, names.get(source.kind, "")))
    spans = ((range, scanned.span(range.start, range.end)) for range in ranges)
    return [range._replace(start=span[0], end=span[1]) for range, span in spans if span is not None]


def of_process(source: LiveSource, scanned: PageCodes, first: int) -> Found:
    """Of a process: its mappings, as they are now. SourceError."""
    found = Found(first, [], PageCodes())
    every = source.which == "prctl" and not source.standing.merge_any
    with source.inside():
        hypervisor = is_hypervisor(source)
        with pagemap_of(source) as pagemap:
            for area in areas(source):
                if area.start < KERNEL_HALF:  # pagemap has nothing of [vsyscall]
                    fill(found.codes, scanned, area, pagemap, source.host.kpageflags, every, hypervisor)
                found.regions.append(Range(
                    area.start, area.end, area.name, area.rss, area.swap, area.file if area.file[1] else None, area.offset,
                ))  # fmt: skip
    if source.standing.zeros:
        found.notes.append(f"{source.standing.zeros:,} of the pages that were only read are the zero page by KSM (ksm_zero_pages)")
    return found


def fill(
    codes: PageCodes, scanned: PageCodes, area: Area, pagemap: int, kpageflags: int, every: bool, hypervisor: bool
) -> None:
    """Give the pages of a mapping their reasons."""
    # What has an entry like a page in swap may be something else: smaps tells.
    swapped = outcomes.SWAPPED if area.swap else outcomes.ABSENT
    refused = area.refused
    if refused:
        code = REFUSED[refused]
        if hypervisor and area.shared and (refused in ("shared memory", "hugetlb") or in_memory(area.name)):
            code = outcomes.GUEST
        fill_kinds(
            pagemap, kpageflags, area.start, area.end, codes, None, anonymous=code, missing=code, file=code, zero=outcomes.ONLY_READ,
            swapped=swapped,
        )  # fmt: skip
        return
    taken = every or MERGEABLE in area.flags
    fill_kinds(
        pagemap, kpageflags, area.start, area.end, codes, scanned if taken else None, anonymous=outcomes.NOT_MERGEABLE,
        missing=outcomes.WAITING, file=outcomes.FILE_PAGE, zero=outcomes.ONLY_READ, swapped=swapped,
    )  # fmt: skip


def in_memory(path: str) -> bool:
    """Whether a file lies where guests have their memory: in a file system that is memory, as a rule."""
    return path.startswith(("/dev/shm/", "/dev/hugepages", "/run/"))


def memory_of_guests(found: list[Found]) -> None:
    """What a guest has is a guest's in other processes, too, as virtiofsd: they map the same file."""
    files = {
        range.file
        for each in found
        for range in each.regions
        if range.file and each.codes.counts(range.start, range.end)[outcomes.GUEST]
    }
    for each in found if files else ():
        for range in each.regions:
            if range.file in files:
                for start, end, code in list(each.codes.runs(range.start, range.end)):
                    if code in (outcomes.SHARED_MEMORY, outcomes.SHARED_FILE):
                        each.codes.fill(start, end, outcomes.GUEST)

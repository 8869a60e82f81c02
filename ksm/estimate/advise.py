# SPDX-License-Identifier: GPL-2.0-only
# Follows ksm_process_profit() of Linux 6.12, mm/ksm.c, for each mapping.
"""Which mappings of processes are worth madvise(MADV_MERGEABLE), and whether prctl(PR_SET_MEMORY_MERGE) does as well."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ksm.constants import PAGE_SIZE
from ksm.estimate.eras import ERA
from ksm.estimate.ledger import SIZES
from ksm.estimate.pace import VISIT
from ksm.estimate.replay import Reader, Replay
from ksm.estimate.scan import Progress, no_progress
from ksm.fs.proc.task_mmu import PAGE_FLAGS_SHIFT, PAGE_KSM, PAGE_KSM_ZERO, PAGE_ZERO
from ksm.sources import SourceError
from ksm.sources.live import LiveSource

if TYPE_CHECKING:
    from ksm.machine import _Era as Era

ITEM = SIZES[ERA].rmap_item  # bytes
THUMB = PAGE_SIZE // ITEM  # rmap_items for a merged page, above which a mapping costs more than it gives
MOST_TRIED = 10  # mappings of which all choices are tried
AS_WELL = 0.95  # of the profit: prctl() does as well


class Region(NamedTuple):
    """A mapping of a process.

    source      which process, as ksm scan names it
    start, end  its addresses
    name        what /proc/PID/maps has: "[heap]", a file, or "" for anonymous memory
    pages       pages that KSM would keep an rmap_item for, or has given the zero page
    merging     of those, pages that are merged where every mapping is mergeable: ksm_merging_pages
    zeros       of those, pages that get the kernel's zero page
    profit      bytes: (merging + zeros) pages less the rmap_items, as ksm_process_profit counts
    gain        bytes that it adds to the profit of the mappings that are advised, or would take away
    advised     whether it is among them
    mergeable   whether it is mergeable already
    """

    source: str
    start: int
    end: int
    name: str
    pages: int
    merging: int
    zeros: int
    profit: int
    gain: int
    advised: bool
    mergeable: bool

    @property
    def per_page(self) -> float | None:
        """rmap_items for each page that is merged; None if none is. More than 64 cost more than a page gives."""
        return self.pages / (self.merging + self.zeros) if self.merging + self.zeros else None


class Outcome(NamedTuple):
    """What comes of it: pages that are looked at, pages that are freed, and bytes: of KSM's structures, and freed less these."""

    pages: int
    freed: int
    metadata: int
    profit: int


class Advice(NamedTuple):
    """What to advise.

    regions   all mappings that could be mergeable, those with the highest gain first
    advised   what a machine makes of the advised ones alone
    whole     what it makes of all, as after prctl(PR_SET_MEMORY_MERGE)
    better    "madvise", "prctl", or "nothing", where neither pays
    notes     what else to know
    """

    regions: list[Region]
    advised: Outcome
    whole: Outcome
    better: str
    notes: list[str]


class Found(NamedTuple):
    """What a machine has made of a mapping: its pages, the zero pages, and how many of its pages have each merged frame."""

    pages: int
    zeros: int
    merged: Counter[int]


class Place(NamedTuple):
    """A mapping as /proc/PID/maps has it."""

    source: str
    start: int
    end: int
    name: str
    mergeable: bool


def advise(
    reader: Reader, *, settings: Mapping[str, str] | None = None, era: Era = ERA, progress: Progress = no_progress
) -> Advice:
    """See ksm.advise(). `reader` has read processes. SourceError."""
    sources = [source for source in reader.sources if isinstance(source, LiveSource)]
    if len(sources) < len(reader.sources):
        other = next(source for source in reader.sources if not isinstance(source, LiveSource))
        raise SourceError(f"{other.name}: only the mappings of a process can be advised: pid:N")
    places = [place for source in sources for place in places_of(source)]
    progress("all mappings", 0, 2)
    whole, found, notes = outcome(reader, settings, era, places, None)
    chosen = worth_it(found)
    progress("the advised ones", 1, 2)
    only: dict[str, list[tuple[int, int]]] = {source.name: [] for source in sources}
    for number in sorted(chosen):
        only[places[number].source].append(places[number][1:3])
    advised, _, _ = outcome(reader, settings, era, [], only) if chosen else (Outcome(0, 0, 0, 0), [], [])
    gains = gains_of(found, chosen)
    regions = [region(*each, number in chosen) for number, each in enumerate(zip(places, found, gains, strict=True))]
    regions.sort(key=lambda one: (-one.gain, -one.profit, one.source, one.start))
    return Advice(regions, advised, whole, better(advised, whole), notes)


def better(advised: Outcome, whole: Outcome) -> str:
    if advised.profit <= 0 and whole.profit <= 0:
        return "nothing"
    return "prctl" if whole.profit >= AS_WELL * advised.profit else "madvise"


def places_of(source: LiveSource) -> list[Place]:
    """The mappings of a process that could be mergeable, by address."""
    result: list[Place] = []
    mappings = iter(sorted(source.mappings))
    mapping = next(mappings, None)
    for line in source.maps.splitlines():
        addresses, _, _, _, _, *name = line.split(None, 5)
        start, end = (int(part, 16) for part in addresses.split("-"))
        while mapping is not None and mapping.end <= start:
            mapping = next(mappings, None)
        if mapping is not None and mapping.start < end and mapping.end > start:
            place = Place(source.name, max(start, mapping.start), min(end, mapping.end), name[0] if name else "", mapping.mergeable)
            result.append(place)
    return result


def outcome(
    reader: Reader, settings: Mapping[str, str] | None, era: Era, places: Sequence[Place],
    only: Mapping[str, list[tuple[int, int]]] | None,
) -> tuple[Outcome, list[Found], list[str]]:  # fmt: skip
    """Let a machine merge all, or `only` these addresses of each source; what has become of the places, and notes."""
    with Replay(reader, settings=settings, era=era, cost=VISIT, only=only) as replay:
        result = replay.run(interval=0.0)
        by_name = {source.name: source for source in replay.sources}
        found = [look(by_name[place.source], place) for place in places if place.source in by_name]
        ledger = result.ledger
        notes = [doubt.why for doubt in result.doubts] + result.notes
        return Outcome(ledger.pages, ledger.freed, ledger.metadata, ledger.profit), found, notes


def look(source: Any, place: Place) -> Found:
    pages = zeros = 0
    merged: Counter[int] = Counter()
    for addr, length in source.ranges():
        start, end = max(addr, place.start), min(addr + length, place.end)
        if start >= end:
            continue
        for word in source.process.page_table(start, end - start):
            if not word:
                continue
            pages += 1
            if word & PAGE_ZERO or word & PAGE_KSM_ZERO:
                zeros += 1
            elif word & PAGE_KSM:
                merged[word >> PAGE_FLAGS_SHIFT] += 1
    return Found(pages, zeros, merged)


def region(place: Place, found: Found, gain: int, advised: bool) -> Region:
    merging = sum(found.merged.values())
    profit = (merging + found.zeros) * PAGE_SIZE - found.pages * ITEM
    return Region(
        place.source, place.start, place.end, place.name, found.pages, merging, found.zeros, profit, gain, advised, place.mergeable
    )


def value(pages: int) -> int:
    """Bytes that a content gives which so many pages have. A stable node is left out, as ksm_process_profit() leaves it out."""
    return max(0, pages - 1) * PAGE_SIZE


def gain_of(found: Found, total: Mapping[int, int]) -> int:
    """Bytes that a mapping adds to others; `total` are the pages of each content, those of the mapping among them."""
    shared = sum(value(total[content]) - value(total[content] - count) for content, count in found.merged.items())
    return shared + found.zeros * PAGE_SIZE - found.pages * ITEM


def worth_it(found: Sequence[Found]) -> set[int]:
    """The mappings that give the most profit together, by their numbers.

    What a mapping adds grows with what else is mergeable, as more of its pages find an equal one. So one that loses where all others are
    mergeable loses in any choice, and one that wins with those that are certain wins in any choice that has them. In between may be
    mappings that win only together: of those that have contents in common, all choices are tried; of more than MOST_TRIED, all or none.
    """
    chosen = {number for number, each in enumerate(found) if each.pages}
    certain: set[int] = set()
    while True:
        total = sum_of(found[number].merged for number in chosen)
        losing = {number for number in chosen - certain if gain_of(found[number], total) < 0}
        chosen -= losing
        total = sum_of(found[number].merged for number in certain)
        winning = {number for number in chosen - certain if gain_of(found[number], with_it(found[number], total)) >= 0}
        certain |= winning
        if not losing and not winning:
            break
    for some in related(found, chosen - certain, total):
        certain.update(best_of(found, some, total))
    return certain


def related(found: Sequence[Found], numbers: set[int], total: Mapping[int, int]) -> list[list[int]]:
    """These mappings in groups that have contents in common which are not in `total`."""
    groups: list[tuple[set[int], list[int]]] = []
    for number in sorted(numbers):
        contents, members = {content for content in found[number].merged if not total.get(content)}, [number]
        for group in [group for group in groups if group[0] & contents]:
            groups.remove(group)
            contents |= group[0]
            members += group[1]
        groups.append((contents, members))
    return [members for _, members in groups]


def best_of(found: Sequence[Found], numbers: list[int], total: Mapping[int, int]) -> tuple[int, ...]:
    """Of these mappings, those that add most to what is in `total` already."""
    sizes = range(len(numbers), -1, -1) if len(numbers) <= MOST_TRIED else (len(numbers), 0)
    best: tuple[int, tuple[int, ...]] | None = None
    for choice in itertools.chain.from_iterable(itertools.combinations(numbers, size) for size in sizes):
        adds, sums = 0, Counter(total)
        for number in choice:
            sums.update(found[number].merged)
            adds += gain_of(found[number], sums)
        if best is None or adds > best[0]:
            best = adds, choice
    return best[1] if best else ()


def with_it(found: Found, total: Mapping[int, int]) -> dict[int, int]:
    """`total` and the mapping's own pages, for the contents that it has."""
    return {content: total.get(content, 0) + count for content, count in found.merged.items()}


def gains_of(found: Sequence[Found], chosen: set[int]) -> Iterator[int]:
    """What each mapping adds to the others that are chosen; of one that is not, what it would add to them."""
    total = sum_of(found[number].merged for number in chosen)
    for number, each in enumerate(found):
        yield gain_of(each, total if number in chosen else with_it(each, total))


def sum_of(counters: Iterable[Counter[int]]) -> Counter[int]:
    total: Counter[int] = Counter()
    for counter in counters:
        total.update(counter)
    return total

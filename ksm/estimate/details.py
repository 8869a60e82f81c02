# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it has counters of all pages together.
"""What pictures of a scan are made of: what became of the pages, a map of them, the contents that free most, and who shares with whom."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from ksm.constants import PAGE_SIZE
from ksm.estimate.again import look_again
from ksm.estimate.found import Content, Details, Matrix
from ksm.estimate.page_map import make_map
from ksm.estimate.result import Stretch
from ksm.estimate.savings import STATES
from ksm.estimate.shares import Shares
from ksm.fingerprint.classes import CLASSES, classes_of
from ksm.machine import Machine
from ksm.sources import Source

MOST_CONTENTS = 20
MOST_GROUPS = 32  # rows of the matrix
NOWHERE = 1 << 64
LOOK = 512  # bytes that are shown of a page
OTHERS = "all others"
PRESENT = re.compile(rb"[^\0]+")


def make_details(
    sources: Sequence[Source], machine: Machine, shares: Shares, states: Sequence[Sequence[Stretch]], *, key: bytes | None, contents: bool
) -> Details:
    """The details after the last pass. `contents`: with bytes."""
    counts = []
    for stretches in states:
        sums = [sum(stretch.states.count(place) for stretch in stretches) for place in range(len(STATES))]
        counts.append(dict(zip(STATES[1:], sums[1:], strict=True)))
    totals = [sum(each.values()) for each in counts]
    return Details(
        counts,
        make_map([pieces_of(source, each) for source, each in zip(sources, states, strict=True)], totals, STATES[1:]),
        most_shared(sources, machine, shares, key, bytes_too=contents),
        make_matrix(sources, shares, counts),
    )


class Addresses:
    """The source's own addresses, by those of the machine's process: virtual ones, offsets in an image, or physical ones."""

    def __init__(self, source: Source) -> None:
        self.places = sorted(source.places())
        self.starts = [addr for addr, *_ in self.places]

    def own(self, addr: int) -> int:
        place = bisect_right(self.starts, addr) - 1
        return addr - self.places[place][0] + self.places[place][1] if place >= 0 else addr

    def end(self, addr: int) -> int:
        """Where the part ends that lies side by side in the source and in the process."""
        place = bisect_right(self.starts, addr)
        return self.starts[place] if place < len(self.starts) else NOWHERE


def pieces_of(source: Source, stretches: Sequence[Stretch]) -> Iterator[tuple[int, bytearray]]:
    """The states of a source's pages, those that lie side by side together: (the source's own address of the first one, states)."""
    addresses = Addresses(source)
    for start, states in stretches:
        for run in PRESENT.finditer(states):
            at, end = run.span()
            while at < end:
                addr = start + at * PAGE_SIZE
                pages = min(end - at, (addresses.end(addr) - addr) // PAGE_SIZE)
                yield addresses.own(addr), states[at : at + pages]
                at += pages


def most_shared(sources: Sequence[Source], machine: Machine, shares: Shares, key: bytes | None, *, bytes_too: bool) -> list[Content]:
    rows = shares.most(MOST_CONTENTS)
    pages: dict[int, bytes] = {0: bytes(PAGE_SIZE)}
    kinds: dict[int, int] = {}
    if machine.pages == "bytes":
        for row in rows:
            if row.key:
                with machine.frame(row.frame) as frame:
                    pages[row.key] = bytes(frame)
        kinds = {key: classes_of(data)[0] for key, data in pages.items()}
    else:
        keys = {row.key for row in rows} - {0}
        found = look_again(sources, keys, keep=keys if bytes_too else (), key=key)
        kinds = {0: CLASSES.index("zero"), **found.classes}
        pages.update(found.bytes)
    contents = []
    addresses = {place: Addresses(sources[place]) for place in {row.source for row in rows}}
    for row in rows:
        source = sources[row.source]
        kind = CLASSES[kinds[row.key]] if row.key in kinds else "unknown"
        look = pages[row.key][:LOOK] if bytes_too and row.key in pages else None
        contents.append(Content(row.pages, row.frames, row.sources, source.name, addresses[row.source].own(row.address), kind, look))
    return contents


def make_matrix(sources: Sequence[Source], shares: Shares, counts: list[dict[str, int]]) -> Matrix:
    """Of many sources, those with most pages have a row each, and all others one together."""
    names = [source.name for source in sources]
    sizes = [sum(states.values()) for states in counts]
    own = sorted(range(len(names)), key=lambda place: -sizes[place])
    if len(names) > MOST_GROUPS:
        own = own[: MOST_GROUPS - 1]
    own.sort()
    groups = [len(own)] * len(names)
    for row, place in enumerate(own):
        groups[place] = row
    rows = [names[place] for place in own] + ([OTHERS] if len(own) < len(names) else [])
    return Matrix(rows, shares.matrix(groups, len(rows)))

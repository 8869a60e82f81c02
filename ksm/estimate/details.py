# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it has counters of all pages together.
"""What pictures of a scan are made of: what became of the pages, a map of them, the contents that free most, and who shares with whom."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ksm.constants import PAGE_SIZE
from ksm.estimate.again import look_again
from ksm.estimate.page_map import Map, make_map
from ksm.estimate.savings import STATES
from ksm.estimate.shares import Shares
from ksm.fingerprint.classes import CLASSES, classes_of

if TYPE_CHECKING:
    from ksm.estimate.scan import Scan, Stretch
    from ksm.sources import Source

MOST_CONTENTS = 20
MOST_GROUPS = 32  # rows of the matrix
NOWHERE = 1 << 64
LOOK = 512  # bytes that are shown of a page
OTHERS = "all others"
PRESENT = re.compile(rb"[^\0]+")


class Content(NamedTuple):
    """What equal pages have.

    pages    that have it
    frames   that are kept for it: one for each max_page_sharing pages; 0 where it has become the kernel's zero page
    sources  that have it
    source   the name of one of them
    address  of the first page there, in the source's own addresses: virtual ones, offsets in a file, or physical ones
    kind     its class, a word of CLASSES; "unknown" where its bytes could not be read again
    bytes    its first LOOK bytes; None where nobody asked, or they could not be read again
    """

    pages: int
    frames: int
    sources: int
    source: str
    address: int
    kind: str
    bytes: bytes | None

    @property
    def freed(self) -> int:
        return self.pages - self.frames

    def as_json(self) -> dict[str, Any]:
        data = {**self._asdict(), "freed": self.freed, "bytes": self.bytes.hex() if self.bytes is not None else None}
        data["class"] = data.pop("kind")
        return data


class Matrix(NamedTuple):
    """pages[a][b]: how many pages of the source names[a] have contents that names[b] has, too; of a itself, that another page of a has."""

    names: list[str]
    pages: list[list[int]]


class Details(NamedTuple):
    """What became of the pages of each source, by STATES; a map of them; contents that free most; and who shares with whom."""

    states: list[dict[str, int]]
    map: Map
    contents: list[Content]
    matrix: Matrix

    def as_json(self) -> dict[str, Any]:
        return {
            "states": self.states, "map": self.map.as_json(), "contents": [content.as_json() for content in self.contents],
            "matrix": self.matrix._asdict(),
        }  # fmt: skip


def make_details(scan: Scan, shares: Shares, states: Sequence[Sequence[Stretch]], *, contents: bool) -> Details:
    """The details after the last pass. `contents`: with bytes."""
    counts = []
    for stretches in states:
        sums = [sum(stretch.states.count(place) for stretch in stretches) for place in range(len(STATES))]
        counts.append(dict(zip(STATES[1:], sums[1:], strict=True)))
    totals = [sum(each.values()) for each in counts]
    return Details(
        counts,
        make_map([pieces_of(source, each) for source, each in zip(scan.sources, states, strict=True)], totals, STATES[1:]),
        most_shared(scan, shares, bytes_too=contents),
        make_matrix(scan, shares, counts),
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


def most_shared(scan: Scan, shares: Shares, *, bytes_too: bool) -> list[Content]:
    rows = shares.most(MOST_CONTENTS)
    pages: dict[int, bytes] = {0: bytes(PAGE_SIZE)}
    kinds: dict[int, int] = {}
    if scan.machine.pages == "bytes":
        for row in rows:
            if row.key:
                with scan.machine.frame(row.frame) as frame:
                    pages[row.key] = bytes(frame)
        kinds = {key: classes_of(data)[0] for key, data in pages.items()}
    else:
        keys = {row.key for row in rows} - {0}
        found = look_again(scan.sources, keys, keep=keys if bytes_too else (), key=scan.key)
        kinds = {0: CLASSES.index("zero"), **found.classes}
        pages.update(found.bytes)
    contents = []
    addresses = {place: Addresses(scan.sources[place]) for place in {row.source for row in rows}}
    for row in rows:
        source = scan.sources[row.source]
        kind = CLASSES[kinds[row.key]] if row.key in kinds else "unknown"
        look = pages[row.key][:LOOK] if bytes_too and row.key in pages else None
        contents.append(Content(row.pages, row.frames, row.sources, source.name, addresses[row.source].own(row.address), kind, look))
    return contents


def make_matrix(scan: Scan, shares: Shares, counts: list[dict[str, int]]) -> Matrix:
    """Of many sources, those with most pages have a row each, and all others one together."""
    names = [source.name for source in scan.sources]
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

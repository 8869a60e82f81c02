# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: tools/libs/ctrl/xc_core.c of Xen writes this.
"""A core of a Xen domain, of `xl dump-core`: an ELF file without segments, whose memory is in sections.

.xen_pages has the pages, one after the other. .xen_pfn has the page frame number of each (a guest with a table of its own: HVM, PVH), or
.xen_p2m has two numbers of each, the guest's and the machine's (PV). A number of all ones stands for a page that was not there any more.
The table lies behind the pages, so the file is read by random access: a pipe cannot be read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from ksm.constants import PAGE_SIZE
from ksm.sources.base import Source, SourceError
from ksm.sources.core import HEADER, SECTION, damaged, read_header
from ksm.sources.dumps.common import MOST, hole_pages
from ksm.sources.input import Input
from ksm.sources.parts import FileParts
from ksm.sources.pieces import PIECE, InFile, Piece
from ksm.sources.stream import StreamSource

PAGES, PFN, P2M = b".xen_pages", b".xen_pfn", b".xen_p2m"
LONGEST = 32  # bytes of a name that are looked at
NOWHERE = (1 << 64) - 1
MOST_NAMES = 1 << 20  # bytes of the table of names
ENTRIES = 32768  # of the table of numbers that are read at once


class Section(NamedTuple):
    offset: int
    length: int


class XenSource(StreamSource):
    kind = "core"

    def __init__(self, input: Input, parts: FileParts, pages: Section, table: Section, entry: struct.Struct) -> None:
        super().__init__(input.name)
        self.input, self._parts = input, parts
        self._pages, self._table, self._entry = pages, table, entry
        self.copied = pages.length
        self.zero_holes = hole_pages(parts.fd, *pages)

    def pieces(self) -> Iterator[Piece]:
        count = self._pages.length // PAGE_SIZE
        first = start = end = 0  # the run that was begun, and the place of its first page
        gone = 0
        for place, number in enumerate(self._numbers(count)):
            address = number * PAGE_SIZE
            if number != NOWHERE and address >= MOST:
                raise damaged(self.name, f"a page with the number {number:#x}")
            if address != end or end - start == PIECE:
                yield from self._piece(first, start, end)
                first, start, end = place, address, address
            if number == NOWHERE:
                gone += 1
                start = end = 0
                continue
            end += PAGE_SIZE
        yield from self._piece(first, start, end)
        self.notes = [f"left out {gone:,} pages that went while the core was written"] if gone else []

    def _piece(self, first: int, start: int, end: int) -> Iterator[Piece]:
        if start < end:
            gone = SourceError(f"{self.name}: was truncated meanwhile")
            yield InFile(start, end - start, self._parts.fd, self._pages.offset + first * PAGE_SIZE, gone)

    def _numbers(self, count: int) -> Iterator[int]:
        size = self._entry.size
        for at in range(0, count, ENTRIES):
            data = self._parts.part(self._table.offset + at * size, min(ENTRIES, count - at) * size)
            for (number,) in self._entry.iter_unpack(data):
                yield number

    def close(self) -> None:
        super().close()
        self.input.close()


def open_xen(input: Input) -> Source:
    """The source of a Xen domain's core. It takes over the input, unless there is an error."""
    name = input.name
    file = input.plain()
    if file is None:
        raise SourceError(f"{name}: a core of Xen, which can be read only as a file that is not packed")
    parts = FileParts(name, *file)
    layout, _, _ = read_header(parts)
    header, section = layout.struct(HEADER), layout.struct(SECTION)
    _, _, _, _, _, table, _, _, _, _, entry, number, names_at = header.unpack(parts.part(0, header.size))
    if entry != section.size or names_at >= number:
        raise damaged(name, f"{number:,} sections of {entry:,} bytes")
    sections = list(section.iter_unpack(parts.part(table, number * section.size)))
    names = sections[names_at]
    text = parts.part(names[4], min(names[5], MOST_NAMES))
    found = {text[each[0] : each[0] + LONGEST].partition(b"\0")[0]: Section(each[4], each[5]) for each in sections}
    pages = found.get(PAGES)
    if pages is None:
        raise SourceError(f"{name}: an ELF core without memory")
    numbers, words = found.get(PFN), 1
    if numbers is None:
        numbers, words = found.get(P2M), 2
    count = pages.length // PAGE_SIZE
    if numbers is None or pages.length % PAGE_SIZE or numbers.length < count * 8 * words:
        raise damaged(name, f"a core of Xen without the numbers of its {count:,} pages")
    for each in (pages, numbers):
        parts.whole(each.offset + each.length)
    return XenSource(input, parts, pages, numbers, struct.Struct(layout.order + "Q" + "8x" * (words - 1)))

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: forms in which Windows stores memory.
"""Crash dumps of Windows, of 64 bits (PAGEDU64) and 32 bits (PAGEDUMP), all numbers little-endian.

    1         complete: the header lists runs of pages
    5, 6      a bitmap says which pages there are. The dump is complete ("FDMP"), or of the kernel or of active memory ("SDMP")
    8, 9, 10  a table behind the header lists runs of pages, as newer debuggers write it: kernel, kernel and processes, complete

All pages follow in the order of their addresses. What is in no run is absent. Smaller dumps have no pages.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from ksm.constants import PAGE_SIZE
from ksm.sources.base import SourceError
from ksm.sources.dumps.common import MOST, Bitmap, DumpSource, check_left, counted
from ksm.sources.input import Input
from ksm.sources.pieces import Piece

MAGIC_64, MAGIC_32 = b"PAGEDU64", b"PAGEDUMP"


class Layout(NamedTuple):
    """Where the header has what, in bytes.

    length  of the header
    kind    the dump's type
    number  how many runs there are
    runs    the first of them, each a `run`: page, pages
    end     where there is no room for more
    """

    length: int
    kind: int
    number: int
    runs: int
    end: int
    run: struct.Struct


LAYOUT = {
    MAGIC_64: Layout(0x2000, 0xF98, 0x88, 0x98, 0x88 + 700, struct.Struct("<2Q")),
    MAGIC_32: Layout(0x1000, 0xF88, 0x64, 0x6C, 0x64 + 700, struct.Struct("<2I")),
}
COMPLETE, TABLE_COMPLETE = 1, 10
BITMAP, TABLE = (5, 6), (8, 9, 10)
UNREAD = {2: "a kernel dump of an old form", 3: "a dump without pages", 4: "a small dump (minidump, triage)", 7: "a dump without pages"}
PART_OF_MEMORY = {6: "of the kernel's memory", 8: "of the kernel's memory", 9: "of the kernel's and the processes' memory"}

BITMAP_HEADER = struct.Struct("<4s4s24x3Q")  # SDMP or FDMP, DUMP, where the first page is, pages in the dump, bits of the bitmap
TABLE_HEADER = struct.Struct("<I4s4s4x2Q8xQ")  # 0x40, RDMP, DUMP, length of the table, where the first page is, pages in the dump
MOST_TABLE = 16 << 20  # bytes of a table of runs: a million
GAP = 16 << 20  # bytes between a table and the first page, at most


class WindowsSource(DumpSource):
    def __init__(self, input: Input) -> None:
        super().__init__(input)
        head = input.peek(LAYOUT[MAGIC_32].length)
        if len(head) < LAYOUT[MAGIC_32].length:
            raise SourceError(f"{self.name}: truncated: a crash dump of Windows has more than {len(head):,} bytes")
        self._layout = LAYOUT[MAGIC_64 if head.startswith(MAGIC_64) else MAGIC_32]
        self._kind = int.from_bytes(head[self._layout.kind :][:4], "little")
        if self._kind not in (COMPLETE, *BITMAP, *TABLE):
            what = UNREAD.get(self._kind, f"of type {self._kind:#x}")
            raise SourceError(f"{self.name}: a crash dump of Windows, {what}, which is not read")
        if part := PART_OF_MEMORY.get(self._kind):
            self.notes.append(f"a dump {part} only")
        if input.size is not None:
            self.copied = input.size

    def pieces(self) -> Iterator[Piece]:
        input = self.begin()
        header = input.read(self._layout.length)
        if self._kind == COMPLETE:
            runs = self._runs(header)
        elif self._kind in BITMAP:
            runs = self._bitmap(input)
        else:
            runs = self._table(input)
        for first, pages in runs:
            if not 0 < pages <= MOST // PAGE_SIZE or first > MOST // PAGE_SIZE - pages:
                raise self.damaged(f"{counted(pages)} from page {first:#x} on")
            yield from self.stored(input, first * PAGE_SIZE, pages * PAGE_SIZE)

    def _runs(self, header: bytes) -> Iterator[tuple[int, int]]:
        layout = self._layout
        (count,) = struct.unpack_from("<I", header, layout.number)
        if not 0 < count <= (layout.end - layout.runs) // layout.run.size:
            raise self.damaged(f"{count:,} runs of memory")
        for place in range(count):
            first, pages = layout.run.unpack_from(header, layout.runs + place * layout.run.size)
            yield first, pages

    def _skip_to(self, input: Input, first_page: int) -> None:
        gap = first_page - (input.position - self._begin)
        if not 0 <= gap <= GAP:
            raise self.damaged(f"a first page at byte {first_page:,}")
        input.skip(gap)

    def _bitmap(self, input: Input) -> Iterator[tuple[int, int]]:
        magic, valid, first_page, present, pages = BITMAP_HEADER.unpack(input.read(BITMAP_HEADER.size))
        if magic not in (b"SDMP", b"FDMP") or valid != b"DUMP":
            raise self.damaged("no header of a bitmap")
        if pages > MOST // PAGE_SIZE:
            raise self.damaged(f"a bitmap of {pages:,} pages")
        if magic == b"SDMP" and self._kind == BITMAP[0]:
            self.notes = ["a dump of the kernel's memory, or of active memory, only"]
        bitmap = Bitmap(input, pages)
        if bitmap.count() != present:
            raise self.damaged(f"a bitmap of {counted(bitmap.count())}, and not of {present:,}")
        self._skip_to(input, first_page)
        check_left(input, present * PAGE_SIZE)
        return ((first, end - first) for there, first, end in bitmap.runs() if there)

    def _table(self, input: Input) -> Iterator[tuple[int, int]]:
        mark, magic, valid, length, first_page, total = TABLE_HEADER.unpack(input.read(TABLE_HEADER.size))
        if mark != 0x40 or magic != b"RDMP" or valid != b"DUMP":
            raise self.damaged("no header of a table of runs")
        room = first_page - self._layout.length - TABLE_HEADER.size
        if not 0 <= room <= MOST_TABLE:
            raise self.damaged(f"a table of runs of {length:,} bytes, and a first page at byte {first_page:,}")
        table = input.read(room // 16 * 16)
        self._skip_to(input, first_page)
        left = total if self._kind == TABLE_COMPLETE else MOST // PAGE_SIZE
        for first, pages in struct.iter_unpack("<2Q", table):
            if not first or not left:
                break
            if pages > left:
                raise self.damaged(f"runs of more than {counted(total)}")
            left -= pages
            yield first, pages


def open_windows(input: Input) -> WindowsSource:
    """The source of a crash dump of Windows. It takes over the input."""
    return WindowsSource(input)

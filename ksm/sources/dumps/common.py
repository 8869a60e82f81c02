# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: forms in which other programs store memory.
"""What the readers of dumps have in common."""

from __future__ import annotations

from collections.abc import Iterator

from ksm.constants import PAGE_SIZE
from ksm.host.holes import data_extents
from ksm.sources.base import SourceError
from ksm.sources.input import Input
from ksm.sources.pieces import Loaded, Piece, Run, in_file
from ksm.sources.stream import BLOCK, StreamSource

PART = 1 << 20  # bytes of a piece that is in memory, at most
MOST = 1 << 46  # bytes of memory, and the highest address: more is no machine's
BITMAP_PART = 64 << 10


class DumpSource(StreamSource):
    """Memory of a dump. The Input is read once; if pages are wanted again, from the front, where that is possible."""

    kind = "dump"

    def __init__(self, input: Input) -> None:
        super().__init__(input.name)
        self.inputs = [input]
        self._begin = input.position
        self._used = False

    def begin(self) -> Input:
        """The Input where the dump begins."""
        if self._used:
            again = self.inputs[0].again()
            if again is None:
                raise SourceError(f"{self.name}: comes through a pipe, and can be read only once")
            self.inputs.append(again)
            again.skip(self._begin)
        self._used = True
        self.zero_holes = 0
        return self.inputs[-1]

    def stored(self, input: Input, address: int, length: int) -> Iterator[Piece]:
        """The next `length` bytes of the input, which are whole pages: where they lie in a file, or read from a pipe."""
        check_left(input, length)
        file = input.plain()
        if file is not None:
            fd, offset = file[0], input.position
            self.zero_holes += hole_pages(fd, offset, length)
            input.skip(length)
            yield from in_file(address, length, fd, offset, SourceError(f"{self.name}: was truncated meanwhile"))
            return
        while length:
            part = min(length, PART)
            yield Loaded(address, input.read(part))
            address += part
            length -= part

    def damaged(self, what: str) -> SourceError:
        return damaged(self.name, what)

    def close(self) -> None:
        super().close()
        for input in self.inputs:
            input.close()


def damaged(name: str, what: str) -> SourceError:
    return SourceError(f"{name}: damaged: {what}")


def check_left(input: Input, length: int) -> None:
    """SourceError if the input is known to have fewer bytes than this left."""
    if input.size is not None and length > input.size - input.position:
        raise input.truncated()


def hole_pages(fd: int, offset: int, length: int) -> int:
    """How many of these pages of a file lie in its holes. They are pages of zeros: in a dump, a hole has no other meaning."""
    pages = length // PAGE_SIZE
    done = 0  # pages that were looked at
    for start, end in data_extents(fd, offset + length, offset):
        first = max(done, (start - offset) // PAGE_SIZE)
        last = -(-(end - offset) // PAGE_SIZE)
        pages -= max(0, last - first)
        done = max(done, last)
    return pages


class Bitmap:
    """A bit a page, the lowest bit of a byte first. A part of zeros takes no memory, so that a file with holes cannot fill it."""

    def __init__(self, input: Input, pages: int) -> None:
        """Read (pages + 7) // 8 bytes. SourceError."""
        self.pages = pages
        length = (pages + 7) // 8
        check_left(input, length)
        self._parts: list[bytes | None] = []
        for at in range(0, length, BITMAP_PART):
            part = input.read(min(BITMAP_PART, length - at))
            self._parts.append(None if part.count(0) == len(part) else part)
        if pages % 8 and self._parts and (last := self._parts[-1]) is not None:
            self._parts[-1] = last[:-1] + bytes([last[-1] & ((1 << pages % 8) - 1)])

    def count(self) -> int:
        return sum(int.from_bytes(part, "little").bit_count() for part in self._parts if part is not None)

    def runs(self) -> Iterator[tuple[bool, int, int]]:
        """(whether the bits are set, first page, end) of each run of equal bits, in order."""
        value, start = False, 0
        for place, part in enumerate(self._parts):
            base = place * BITMAP_PART * 8
            for ones, at in edges(part, BITMAP_PART * 8):
                if ones != value:
                    if base + at > start:
                        yield value, start, base + at
                    value, start = ones, base + at
        if start < self.pages:
            yield value, start, self.pages


def edges(part: bytes | None, bits: int) -> Iterator[tuple[bool, int]]:
    """(whether the bits from here on are set, place) where that changes in a part of a bitmap; the first one is at place 0."""
    if part is None:
        yield False, 0
        return
    value: bool | None = None
    for place in range(0, len(part), 8):
        word = int.from_bytes(part[place : place + 8], "little")
        width = 8 * min(8, len(part) - place)
        at = 0
        while at < width:
            rest = word >> at
            ones = bool(rest & 1)
            if ones != value:
                value = ones
                yield ones, place * 8 + at
            if ones:
                rest ^= (1 << (width - at)) - 1
            at = at + (rest & -rest).bit_length() - 1 if rest else width


class Seen:
    """Which pages have come: a number of one bit a page, for each block."""

    PAGES = BLOCK // PAGE_SIZE
    FULL = (1 << PAGES) - 1

    def __init__(self) -> None:
        self._blocks: dict[int, int] = {}

    def add(self, run: Run) -> None:
        start, end = run
        while start < end:
            block = start // BLOCK
            stop = min(end, (block + 1) * BLOCK)
            if stop - start == BLOCK:
                self._blocks[block] = self.FULL
            else:
                ones = (1 << (stop - start) // PAGE_SIZE) - 1
                bits = self._blocks.get(block, 0) | ones << (start % BLOCK) // PAGE_SIZE
                self._blocks[block] = self.FULL if bits == self.FULL else bits
            start = stop

    def count(self, run: Run) -> int:
        """Pages of the run, which begins and ends with a block, that have come."""
        blocks = range(run[0] // BLOCK, -(-run[1] // BLOCK))
        if len(blocks) < len(self._blocks):
            return sum(self._blocks.get(block, 0).bit_count() for block in blocks)
        return sum(bits.bit_count() for block, bits in self._blocks.items() if block in blocks)


def counted(number: int) -> str:
    return f"{number:,} page" + "s" * (number != 1)

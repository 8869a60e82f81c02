# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the flattened form of makedumpfile, in which QEMU writes too.
"""A crash dump in makedumpfile's flattened form: blocks of the dump in the order in which they were written, each with its place.

It is put in order while it is read, as makedumpfile -R does, but not on a disk. For this it is read once to learn where the blocks are, and
then again; so it cannot come through a pipe. Where a block overwrites an earlier one, the later one counts. What no block writes is zeros.
"""

from __future__ import annotations

import heapq
import os
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator

from ksm.sources.base import SourceError
from ksm.sources.input import Input

HEADER = 4096  # bytes before the first block
BLOCK = struct.Struct(">2q")  # before each block: its place in the dump, and its length; both are -1 behind the last one
END = -1
TYPE, VERSION = 1, 1  # of the header
MOST = 1 << 20  # rows of the table of blocks: 33 MiB. Neighbours of equal length are one row, and makedumpfile's blocks mostly are.
TURNS = 64  # times that packed data may be read again from the front
GAP = 1 << 20  # bytes of zeros at once


class Blocks:
    """Where the blocks are: rows of `count` blocks of `size` bytes each, neighbours in the dump from `place` on, and in the file."""

    def __init__(self) -> None:
        self.place, self.size, self.count, self.position = (array("q") for _ in range(4))

    def add(self, place: int, size: int, position: int) -> bool:
        """A block that lies at `position` in the file. False if there are too many."""
        if self.place:
            blocks, last = self.count[-1], self.size[-1]
            if (place, size, position) == (self.place[-1] + blocks * last, last, self.position[-1] + blocks * (last + BLOCK.size)):
                self.count[-1] += 1
                return True
        if len(self.place) == MOST:
            return False
        for column, value in ((self.place, place), (self.size, size), (self.count, 1), (self.position, position)):
            column.append(value)
        return True

    def end(self, row: int) -> int:
        return self.place[row] + self.size[row] * self.count[row]

    def find(self, row: int, place: int) -> tuple[int, int]:
        """Where a byte of the dump is in the file that the row has, and how many of the same block follow it there, itself included."""
        block, within = divmod(place - self.place[row], self.size[row])
        return self.position[row] + block * (self.size[row] + BLOCK.size) + within, self.size[row] - within

    def in_order(self) -> Iterator[tuple[int, int, int]]:
        """(start, end, row): which row has each byte of the dump. A later row hides an earlier one."""
        order = sorted(range(len(self.place)), key=self.place.__getitem__)
        active: list[int] = []  # a heap of rows, the latest first
        at = following = 0
        while following < len(order) or active:
            if not active:
                at = max(at, self.place[order[following]])
            while following < len(order) and self.place[order[following]] <= at:
                heapq.heappush(active, -order[following])
                following += 1
            while active and self.end(-active[0]) <= at:
                heapq.heappop(active)
            if active:
                row = -active[0]
                stop = self.end(row)
                if following < len(order):
                    stop = min(stop, self.place[order[following]])
                yield at, stop, row
                at = stop


class Places:
    """Which row of the blocks has which bytes of the dump."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self.start, self.end, self.row = (array("q") for _ in range(3))
        for start, end, row in blocks.in_order():
            if self.row and (self.row[-1], self.end[-1]) == (row, start):
                self.end[-1] = end
            else:
                for column, value in ((self.start, start), (self.end, end), (self.row, row)):
                    column.append(value)
        self.size = self.end[-1] if self.end else 0

    def find(self, place: int) -> tuple[int | None, int]:
        """Where a byte of the dump is in the file, None for zeros; and how many follow it there, itself included; none at the end."""
        at = bisect_right(self.start, place) - 1
        if at >= 0 and place < self.end[at]:
            position, follow = self.blocks.find(self.row[at], place)
            return position, min(follow, self.end[at] - place)
        return None, (self.start[at + 1] if at + 1 < len(self.start) else self.size) - place


class Rearranged(Input):
    """The dump in order. It takes over the input, which it reads again from the front whenever a block lies behind."""

    def __init__(self, flat: Input, places: Places) -> None:
        super().__init__(flat.name, places.size, flat.holes)
        self.flat = flat
        self.places = places
        self.file = flat.plain()
        self.turns = 0

    def _next(self, most: int) -> bytes:
        position, follow = self.places.find(self.position + len(self._head))
        if follow <= 0:
            return b""
        if position is None:
            return bytes(min(most, follow, GAP))
        return self._at(position, min(most, follow))

    def _at(self, position: int, most: int) -> bytes:
        if self.file:
            try:
                data = os.pread(self.file[0], most, position)
            except OSError as error:
                raise SourceError(f"{self.name}: {error.strerror or error}") from None
            if not data:
                raise SourceError(f"{self.name}: was truncated meanwhile")
            return data
        if position < self.flat.position:
            self.turns += 1
            if self.turns > TURNS:
                raise SourceError(f"{self.name}: its blocks lie too far from their places: put it in order with makedumpfile -R")
            again = again_of(self.flat)
            self.flat.close()
            self.flat = again
        self.flat.skip(position - self.flat.position)
        data = self.flat.some(most)
        if not data:
            raise self.flat.truncated()
        return data

    def skip(self, length: int) -> None:
        if length > self.places.size - self.position:
            raise self.truncated()
        self.position += length
        self._head = self._head[length:]

    def again(self) -> Input | None:
        return Rearranged(again_of(self.flat), self.places)

    def close(self) -> None:
        self.flat.close()


def again_of(input: Input) -> Input:
    again = input.again()
    if again is None:
        raise SourceError(
            f"{input.name}: in makedumpfile's flattened form, which has to be read more than once: write it to a file, or makedumpfile -R"
        )
    return again


def rearranged(input: Input) -> Input:
    """The dump that lies in an input in the flattened form."""
    flat = again_of(input)
    try:
        places = Places(read_blocks(input))
    except BaseException:
        flat.close()
        raise
    input.close()
    return Rearranged(flat, places)


def read_blocks(input: Input) -> Blocks:
    _, kind, version = struct.unpack_from(">16s2q", input.read(HEADER))
    if (kind, version) != (TYPE, VERSION):
        raise SourceError(f"{input.name}: a flattened crash dump of an unknown version: {kind}, {version}")
    blocks = Blocks()
    while True:
        place, size = BLOCK.unpack(input.read(BLOCK.size))
        if place == size == END:
            return blocks
        if place < 0 or size < 0 or place + size >= 1 << 62:
            raise SourceError(f"{input.name}: damaged: a block of {size:,} bytes for the place {place:,} of the dump")
        position = input.position
        input.skip(size)
        if size and not blocks.add(place, size, position):
            raise SourceError(f"{input.name}: a flattened crash dump in too many pieces: put it in order with makedumpfile -R")

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the flattened form of makedumpfile, in which QEMU writes too.
"""A crash dump in makedumpfile's flattened form: blocks of the dump in the order in which they were written, each with its place.

It is put in order while it is read, as makedumpfile -R does, but not on a disk. For this it is read once to learn where the blocks are, and
then again; so it cannot come through a pipe. Where a block overwrites an earlier one, the later one counts. What no block writes is zeros.

There is a block for each few KiB of a dump, so they are not all remembered. Blocks that follow each other in the dump are a lane, whatever
lies between them in the file: bitmaps, descriptions and pages are one each. Of a lane, only some blocks are remembered, and the others are
found from there.
"""

from __future__ import annotations

import heapq
import os
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from ksm.sources.base import SourceError
from ksm.sources.input import Input

HEADER = 4096  # bytes before the first block
BLOCK = struct.Struct(">2q")  # before each block: its place in the dump, and its length; both are -1 behind the last one
END = -1
TYPE, VERSION = 1, 1  # of the header
MOST = 4096  # lanes
APART = 4 << 20  # bytes of the file between two blocks that are remembered
TURNS = 64  # times that packed data may be read again from the front
GAP = 1 << 20  # bytes of zeros at once


class Lane:
    """Blocks that follow each other in the dump, from `start` to `end`. No block may make it longer than up to `limit`.

    Some of its blocks are remembered: `places` in the dump, and `positions` of their headers in the file.
    """

    def __init__(self, place: int, size: int, position: int) -> None:
        self.start, self.end = place, place + size
        self.limit = 1 << 63
        self.places, self.positions = array("q", [place]), array("q", [position])

    def extend(self, size: int, position: int) -> None:
        if position - self.positions[-1] >= APART:
            self.places.append(self.end)
            self.positions.append(position)
        self.end += size

    def before(self, place: int) -> int:
        """The position of the last block that is remembered, and does not begin behind this place."""
        return self.positions[bisect_right(self.places, place) - 1]


class Lanes:
    """All lanes, in the order in which they were begun. Where two overlap, all of the later one was written after the earlier one."""

    def __init__(self) -> None:
        self.lanes: list[Lane] = []
        self._open: dict[int, Lane] = {}  # by their ends

    def add(self, place: int, size: int, position: int) -> bool:
        """A block whose header lies at `position` in the file. False if there are too many lanes."""
        lane = self._open.get(place)
        if lane is not None and place + size <= lane.limit:
            del self._open[place]
            lane.extend(size, position)
            self._open[lane.end] = lane
            return True
        if len(self.lanes) == MOST:
            return False
        new = Lane(place, size, position)
        for other in self.lanes:
            if other.end <= place:
                other.limit = min(other.limit, place)
            elif other.start >= new.end:
                new.limit = min(new.limit, other.start)
            else:  # the new one overwrites a part of it: it gets no more
                other.limit = min(other.limit, other.end)
        self.lanes.append(new)
        self._open[new.end] = new
        return True

    def in_order(self) -> Iterator[tuple[int, int, Lane]]:
        """(start, end, lane): which lane has each byte of the dump. A later one hides an earlier one."""
        lanes = self.lanes
        order = sorted(range(len(lanes)), key=lambda number: lanes[number].start)
        active: list[int] = []  # a heap of lanes, the latest first
        at = following = 0
        while following < len(order) or active:
            if not active:
                at = max(at, lanes[order[following]].start)
            while following < len(order) and lanes[order[following]].start <= at:
                heapq.heappush(active, -order[following])
                following += 1
            while active and lanes[-active[0]].end <= at:
                heapq.heappop(active)
            if active:
                lane = lanes[-active[0]]
                stop = lane.end
                if following < len(order):
                    stop = min(stop, lanes[order[following]].start)
                yield at, stop, lane
                at = stop


class Block(NamedTuple):
    """A block: its place in the dump, its length, and where its first byte is in the file."""

    place: int
    size: int
    position: int

    @property
    def end(self) -> int:
        return self.place + self.size


class Rearranged(Input):
    """The dump in order. It takes over the input, which it reads again from the front whenever a block lies behind."""

    def __init__(self, flat: Input, parts: list[tuple[int, int, Lane]]) -> None:
        self.parts = parts
        self.starts = [start for start, _, _ in parts]
        super().__init__(flat.name, parts[-1][1] if parts else 0, flat.holes)
        self.flat = flat
        self.file = flat.plain()
        self.turns = 0
        self._at: tuple[Lane, Block] | None = None  # where the last bytes were

    def _next(self, most: int) -> bytes:
        place = self.position + len(self._head)
        number = bisect_right(self.starts, place) - 1
        if number < 0 or self.parts[number][1] <= place:
            after = self.starts[number + 1] if number + 1 < len(self.parts) else place
            return bytes(min(most, after - place, GAP))
        _, end, lane = self.parts[number]
        block = self._find(lane, place)
        return self._read(block.position + place - block.place, min(most, block.end - place, end - place))

    def _find(self, lane: Lane, place: int) -> Block:
        """The block of the lane that has this place."""
        position = lane.before(place)
        block = self._at[1] if self._at and self._at[0] is lane else None
        if block is None or not block.place <= place or (block.end <= place and block.position < position):
            block = self._block(position)
        while block.end <= place:
            following = block.end
            block = self._block(block.position + block.size)
            while block.place != following or not block.size:
                block = self._block(block.position + block.size)
        self._at = lane, block
        return block

    def _block(self, position: int) -> Block:
        """The block whose header lies there."""
        header = b""
        while len(header) < BLOCK.size:
            header += self._read(position + len(header), BLOCK.size - len(header))
        place, size = BLOCK.unpack(header)
        if place < 0 or size < 0:
            raise SourceError(f"{self.name}: was changed meanwhile")
        return Block(place, size, position + BLOCK.size)

    def _read(self, position: int, most: int) -> bytes:
        """Up to `most` bytes of the file, at least one."""
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
        assert self.size is not None
        if length > self.size - self.position:
            raise self.truncated()
        self.position += length
        self._head = self._head[length:]

    def again(self) -> Input | None:
        return Rearranged(again_of(self.flat), self.parts)

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
        parts = list(read_blocks(input).in_order())
    except BaseException:
        flat.close()
        raise
    input.close()
    return Rearranged(flat, parts)


def read_blocks(input: Input) -> Lanes:
    _, kind, version = struct.unpack_from(">16s2q", input.read(HEADER))
    if (kind, version) != (TYPE, VERSION):
        raise SourceError(f"{input.name}: a flattened crash dump of an unknown version: {kind}, {version}")
    lanes = Lanes()
    while True:
        position = input.position
        place, size = BLOCK.unpack(input.read(BLOCK.size))
        if place == size == END:
            return lanes
        if place < 0 or size < 0 or place + size >= 1 << 62:
            raise SourceError(f"{input.name}: damaged: a block of {size:,} bytes for the place {place:,} of the dump")
        input.skip(size)
        if size and not lanes.add(place, size, position):
            raise SourceError(f"{input.name}: a flattened crash dump in too many pieces: put it in order with makedumpfile -R")

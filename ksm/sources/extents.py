# SPDX-License-Identifier: GPL-2.0-only
"""Memory that lies in a file: where its pages are, and how they come into a machine."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import pairwise
from typing import NamedTuple

from ksm.constants import MADV_DONTNEED, PAGE_SIZE
from ksm.machine import Machine
from ksm.process import Process
from ksm.sources.base import Kind, Source, SourceError
from ksm.sources.input import Holes, Input
from ksm.sources.pieces import Loaded, Piece, in_file, page_zeros
from ksm.sources.stream import InputSource, bring
from ksm.sources.work import in_order

WIDE_HOLE = 16 << 20  # holes from this size on split a mapping; smaller ones are mapped and thrown away
ALIGNED = 2 << 20  # a mapping's frames begin at a multiple of this
CHUNK = 4 << 20  # bytes copied at once
STEP = 1 << 20  # bytes of a piece of a stream


class Extent(NamedTuple):
    """Whole pages of memory in a file; their offset need not be a multiple of the page size.

    address   of the first page in the source: virtual, or physical
    """

    offset: int
    length: int
    address: int

    @property
    def end(self) -> int:
        return self.offset + self.length

    def part(self, start: int, end: int) -> Extent:
        """From one byte of the extent to another."""
        return Extent(self.offset + start, end - start, self.address + start)


def split(extents: Iterable[Extent], data: Iterable[tuple[int, int]]) -> tuple[list[Extent], list[Extent]]:
    """The pages of the extents that have any data, and those that lie in holes, in the order of the extents.

    `data` has the parts (start, end) of the file that are not holes. A page that is data only in part is data.
    """
    parts = sorted(data)
    ends = [end for _, end in parts]
    full: list[Extent] = []
    hollow: list[Extent] = []
    for extent in extents:
        done = 0  # bytes of this extent that were looked at
        for place in range(bisect_right(ends, extent.offset), len(parts)):
            start, end = parts[place]
            if start >= extent.end:
                break
            first = max(done, (start - extent.offset) // PAGE_SIZE * PAGE_SIZE)
            last = min(extent.length, (end - extent.offset + PAGE_SIZE - 1) // PAGE_SIZE * PAGE_SIZE)
            if first < last:
                if done < first:
                    hollow.append(extent.part(done, first))
                full.append(extent.part(first, last))
                done = last
        if done < extent.length:
            hollow.append(extent.part(done, extent.length))
    return full, hollow


def length_of(extents: Iterable[Extent]) -> int:
    return sum(extent.length for extent in extents)


def groups(extents: Iterable[Extent]) -> Iterator[list[Extent]]:
    """The extents, in groups that are one mapping each: there is no wide hole in a group."""
    group: list[Extent] = []
    for extent in extents:
        if group and not 0 <= extent.offset - group[-1].end < WIDE_HOLE:
            yield group
            group = []
        group.append(extent)
    if group:
        yield group


class FileSource(Source):
    """A file with memory in it: extents, of which `data` has the parts (start, end) of the file that are not holes.

    A machine of fingerprints reads it. In a machine of bytes, extents that are aligned to pages are mapped, and the others are copied, as
    holes are that stand for zeros: a file system may give a hole memory when it is looked at through a mapping.
    """

    def __init__(self, name: str, kind: Kind, fd: int, extents: list[Extent], data: Iterable[tuple[int, int]], holes: Holes) -> None:
        super().__init__(name)
        self.kind = kind
        self.fd = fd
        self.extents, self.hollow = split(extents, data)
        pages = length_of(self.hollow) // PAGE_SIZE
        if holes == "zeros":
            self.zero_holes = pages
        else:
            self.holes = pages
            self.hollow = []
        self.groups = list(groups(extent for extent in self.extents if not extent.offset % PAGE_SIZE))
        self.odd = [extent for extent in self.extents if extent.offset % PAGE_SIZE]
        self.mapped = sum(group[-1].end - group[0].offset + 2 * ALIGNED for group in self.groups)
        self.copied = length_of(self.odd) + length_of(self.hollow)
        self.needed = max((extent.end for extent in self.extents + self.hollow), default=0)  # bytes that the file has to have
        in_order = all(before.address + before.length <= after.address for before, after in pairwise(self.extents))
        self.ordered = in_order and not self.hollow
        self._ranges: list[tuple[int, int]] = []
        self._places: list[tuple[int, int, int]] = []

    def attach(self, machine: Machine) -> None:
        process = self.spawn(machine)
        try:
            if os.fstat(self.fd).st_size < self.needed:
                raise SourceError(f"{self.name}: was truncated meanwhile")
            if machine.pages == "fingerprints":
                self._read(process)
            else:
                for group in self.groups:
                    self._map(process, group)
                if self.copied:
                    self._copy(process)
        except ValueError:  # mmap_image() has seen that the file ends before its memory
            raise SourceError(f"{self.name}: was truncated meanwhile") from None
        except OSError as error:
            raise SourceError(f"{self.name}: {error.strerror or error}") from None

    def _read(self, process: Process) -> None:
        # One page after the other, in the order in which _map() and _copy() have them
        full = [extent for group in self.groups for extent in group] + self.odd
        total = length_of(full) + length_of(self.hollow)
        if not total:
            return
        addr = process.mmap(total)
        self._ranges.append((addr, total))
        self._place(full + self.hollow, addr)
        pieces = self.pieces_of(*(list(placed(extents, at)) for extents, at in ((full, addr), (self.hollow, addr + length_of(full)))))
        sink = bring(process, same_checksums=self.same_checksums)
        for _ in in_order(pieces, lambda piece, buffer: piece.read(buffer, sink), self.threads):
            pass

    def _place(self, extents: list[Extent], addr: int) -> None:
        """Note that the extents lie in the process one after the other, from this address on."""
        self._places += [(at.address, extent.address, extent.length) for at, extent in zip(placed(extents, addr), extents, strict=True)]

    def pieces(self) -> Iterator[Piece]:
        return self.pieces_of(self.extents, self.hollow)

    def pieces_of(self, full: list[Extent], hollow: list[Extent]) -> Iterator[Piece]:
        truncated = SourceError(f"{self.name}: was truncated meanwhile")
        for extent, zeros in merge(((each, False) for each in full), ((each, True) for each in hollow), key=lambda one: one[0].address):
            if zeros:
                yield from page_zeros(extent.address, extent.length)
            else:
                yield from in_file(extent.address, extent.length, self.fd, extent.offset, truncated)

    def _map(self, process: Process, group: list[Extent]) -> None:
        first, length = group[0].offset, group[-1].end - group[0].offset
        # The mapping begins at an offset that is aligned as its frames are, so that the system can map huge pages.
        head = first % ALIGNED
        addr = process.mmap_image(self.fd, first - head, head + length, still=True)
        if head:
            process.madvise(addr, head, MADV_DONTNEED)
            addr += head
        for before, after in pairwise(group):
            if before.end < after.offset:
                process.madvise(addr + before.end - first, after.offset - before.end, MADV_DONTNEED)
        self._ranges.append((addr, length))
        self._places += [(addr + extent.offset - first, extent.address, extent.length) for extent in group]

    def _copy(self, process: Process) -> None:
        addr = process.mmap(self.copied)
        self._ranges.append((addr, self.copied))
        self._place(self.odd + self.hollow, addr)
        with memoryview(bytearray(CHUNK)) as buffer:
            for extent in self.odd:
                for at in range(0, extent.length, CHUNK):
                    part = buffer[: min(CHUNK, extent.length - at)]
                    if os.preadv(self.fd, [part], extent.offset + at) < len(part):
                        raise SourceError(f"{self.name}: was truncated meanwhile")
                    process.write(addr, part)
                    addr += len(part)
        zeros = bytes(CHUNK)
        for extent in self.hollow:
            for at in range(0, extent.length, CHUNK):
                length = min(CHUNK, extent.length - at)
                process.write(addr, zeros[:length])
                addr += length

    def ranges(self) -> list[tuple[int, int]]:
        return self._ranges

    def places(self) -> list[tuple[int, int, int]]:
        return self._places

    def close(self) -> None:
        super().close()
        os.close(self.fd)


def placed(extents: Iterable[Extent], addr: int) -> Iterator[Extent]:
    """The extents, one after the other in memory from this address on."""
    for extent in extents:
        yield extent._replace(address=addr)
        addr += extent.length


class ExtentStream(InputSource):
    """Extents of an input that is read from front to back, for which there have to be `needed` bytes in it.

    The input may stand behind its first byte already, but not behind the first extent.
    """

    def __init__(self, input: Input, kind: Kind, extents: list[Extent], needed: int) -> None:
        super().__init__(input, kind)
        self.extents = sorted(extents)
        self.needed = needed
        self.copied = length_of(self.extents)
        if any(after.offset < before.end for before, after in pairwise(self.extents)):
            raise SourceError(f"{self.name}: its parts overlap, so that it cannot be read from front to back: unpack it to a file")
        self.ordered = all(before.address + before.length <= after.address for before, after in pairwise(self.extents))
        self._ranges: list[tuple[int, int]] = []
        self._places: list[tuple[int, int, int]] = []
        self._placed = self.extents

    def attach(self, machine: Machine) -> None:
        process = self.spawn(machine)
        try:
            if self.copied:
                addr = process.mmap(self.copied)
                self._ranges.append((addr, self.copied))
                self._placed = list(placed(self.extents, addr))
                self._places = [(at.address, each.address, each.length) for at, each in zip(self._placed, self.extents, strict=True)]
            self.take(process, self.pieces())
        finally:
            self._placed = self.extents

    def read(self, input: Input) -> Iterator[Piece]:
        for extent in self._placed:
            input.skip(extent.offset - input.position)
            for at in range(0, extent.length, STEP):
                yield Loaded(extent.address + at, input.read(min(STEP, extent.length - at)))
        input.skip(max(0, self.needed - input.position))

    def ranges(self) -> list[tuple[int, int]]:
        return self._ranges

    def places(self) -> list[tuple[int, int, int]]:
        return self._places

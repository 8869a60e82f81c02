# SPDX-License-Identifier: GPL-2.0-only
"""Memory that lies in a file: where its pages are, and how they come into a machine."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from ksm.constants import MADV_DONTNEED, PAGE_SIZE
from ksm.machine import Machine
from ksm.process import Process
from ksm.sources.base import Kind, Source, SourceError
from ksm.sources.pieces import Piece, in_file
from ksm.sources.stream import bring
from ksm.sources.work import in_order

WIDE_HOLE = 16 << 20  # holes from this size on split a mapping; smaller ones are mapped and thrown away
ALIGNED = 2 << 20  # a mapping's frames begin at a multiple of this
CHUNK = 4 << 20  # bytes copied at once


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


def without_holes(extents: Iterable[Extent], data: Iterable[tuple[int, int]]) -> list[Extent]:
    """The pages of the extents that have any data, in the order of the extents. A page that is data only in part is data."""
    parts = sorted(data)
    ends = [end for _, end in parts]
    result: list[Extent] = []
    for extent in extents:
        done = 0  # pages of this extent that were looked at
        for place in range(bisect_right(ends, extent.offset), len(parts)):
            start, end = parts[place]
            if start >= extent.end:
                break
            first = max(done, (start - extent.offset) // PAGE_SIZE)
            done = min(extent.length, end - extent.offset + PAGE_SIZE - 1) // PAGE_SIZE
            if first < done:
                skipped = first * PAGE_SIZE
                result.append(Extent(extent.offset + skipped, (done - first) * PAGE_SIZE, extent.address + skipped))
    return result


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
    """A file with memory in it.

    A machine of fingerprints reads it. In a machine of bytes, extents that are aligned to pages are mapped, and the others are copied.
    """

    def __init__(self, name: str, kind: Kind, fd: int, extents: list[Extent]) -> None:
        super().__init__(name)
        self.kind = kind
        self.fd = fd
        self.extents = extents
        self.groups = list(groups(extent for extent in extents if not extent.offset % PAGE_SIZE))
        self.odd = [extent for extent in extents if extent.offset % PAGE_SIZE]
        self.mapped = sum(group[-1].end - group[0].offset + 2 * ALIGNED for group in self.groups)
        self.copied = sum(extent.length for extent in self.odd)
        self.needed = max((extent.end for extent in extents), default=0)  # bytes that the file has to have
        self.ordered = all(before.address + before.length <= after.address for before, after in pairwise(extents))
        self._ranges: list[tuple[int, int]] = []

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
                if self.odd:
                    self._copy(process)
        except ValueError:  # mmap_image() has seen that the file ends before its memory
            raise SourceError(f"{self.name}: was truncated meanwhile") from None
        except OSError as error:
            raise SourceError(f"{self.name}: {error.strerror or error}") from None

    def _read(self, process: Process) -> None:
        total = sum(extent.length for extent in self.extents)
        if not total:
            return
        # One page after the other, in the order in which _map() and _copy() have them
        addr = process.mmap(total)
        self._ranges.append((addr, total))
        placed = []
        for extent in [extent for group in self.groups for extent in group] + self.odd:
            placed.append(extent._replace(address=addr))
            addr += extent.length
        sink = bring(process, same_checksums=self.same_checksums)
        for _ in in_order(self.pieces_of(placed), lambda piece, buffer: piece.read(buffer, sink), self.threads):
            pass

    def pieces(self) -> Iterator[Piece]:
        return self.pieces_of(self.extents)

    def pieces_of(self, extents: list[Extent]) -> Iterator[Piece]:
        truncated = SourceError(f"{self.name}: was truncated meanwhile")
        for extent in extents:
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

    def _copy(self, process: Process) -> None:
        addr = process.mmap(self.copied)
        self._ranges.append((addr, self.copied))
        with memoryview(bytearray(CHUNK)) as buffer:
            for extent in self.odd:
                for at in range(0, extent.length, CHUNK):
                    part = buffer[: min(CHUNK, extent.length - at)]
                    if os.preadv(self.fd, [part], extent.offset + at) < len(part):
                        raise SourceError(f"{self.name}: was truncated meanwhile")
                    process.write(addr, part)
                    addr += len(part)

    def ranges(self) -> list[tuple[int, int]]:
        return self._ranges

    def close(self) -> None:
        super().close()
        os.close(self.fd)

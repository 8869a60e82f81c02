# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: CRIU writes this; images/*.proto and criu/pagemap.c of CRIU say how.
"""A folder that `criu dump` has written (or podman, docker checkpoint): a tree of processes, each a source of its own.

Of a process N, pagemap-N.img lists runs of pages, and says which pages-M.img has them, one after the other. mm-N.img lists its mappings:
KSM looks at private ones. A pre-dump leaves pages in the folder before, which the link "parent" leads to.

The images have no pages of zeros that the process only read, and none of files. A page that processes share since a fork is there for
each of them. Each image is a magic number and messages of protobuf, each behind its length.
"""

from __future__ import annotations

import os
import re
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from ksm.constants import PAGE_SIZE
from ksm.host.files import FileError, open_to_read, read_file
from ksm.sources.base import HIGHEST, SourceError
from ksm.sources.dumps.common import counted, damaged
from ksm.sources.pieces import PIECE, InFile, Piece, Run, Sink
from ksm.sources.stream import BASE, BLOCK, StreamSource

COMMON, PAGEMAP, MM = 0x54564319, 0x56084025, 0x57492820  # magic numbers
NOWHERE, IN_PARENT = -1, -2
PARENT, PRESENT = 1, 4  # flags of a run: its pages are in the folder before, or in this one
# Flags of a mapping. The last ones: vsyscall, vdso, System V, socket, vvar, AIO
FILE_PRIVATE, ANON_PRIVATE, SPECIAL = 1 << 6, 1 << 9, 1 << 2 | 1 << 3 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13
MAP_HUGETLB = 0x40000
VMAS = 14  # the field of mm_entry that has a mapping

MOST_IMAGE = 64 << 20
MOST_PARENTS = 64
TOP = 1 << 47
STEP = 1 << 36
LIMIT = (HIGHEST - BASE) // BLOCK * BLOCK  # no address of a StreamSource is higher
NAME = re.compile(r"pagemap-([0-9]{1,10})\.img")


class Place(NamedTuple):
    """Pages of a process, and where they are: in a file, or nowhere."""

    start: int
    end: int
    path: str
    offset: int


class InPath(Piece):
    """Pages in a file that is open only while they are read: a tree has more processes than one may have open files."""

    def __init__(self, name: str, address: int, length: int, path: str, offset: int) -> None:
        self.runs = [(address, address + length)]
        self.name, self.path, self.offset = name, path, offset

    def read(self, buffer: memoryview, sink: Sink) -> None:
        try:
            fd = open_to_read(self.path)
        except FileError as error:
            raise SourceError(f"{self.name}: {error}") from None
        try:
            gone = SourceError(f"{self.name}: {self.path}: was truncated meanwhile")
            InFile(self.runs[0][0], self.length, fd, self.offset, gone).read(buffer, sink)
        finally:
            os.close(fd)


class PageMap:
    """pagemap-N.img: runs of pages in the order of their addresses. Each has an offset in the file of pages, or NOWHERE, or IN_PARENT."""

    def __init__(self, name: str, folder: str, pid: int, depth: int = 0) -> None:
        self.name, self.folder = name, folder
        self.starts, self.ends, self.offsets = array("Q"), array("Q"), array("q")
        messages = read_image(name, os.path.join(folder, f"pagemap-{pid}.img"), PAGEMAP)
        head = dict(fields(name, next(messages, b"")))
        self.path = os.path.join(folder, f"pages-{number_of(name, head.get(1))}.img")
        offset = 0
        for message in messages:
            entry = dict(fields(name, message))
            start, pages = number_of(name, entry.get(1)), number_of(name, entry.get(5, entry.get(2)))
            flags = number_of(name, entry.get(4, PRESENT)) | (PARENT if entry.get(3) else 0)
            if max(entry) > 5:
                raise SourceError(f"{name}: pages that CRIU has stored in a newer way, which is not read")
            if start % PAGE_SIZE or pages > TOP // PAGE_SIZE or start + pages * PAGE_SIZE > TOP or start < (self.ends or (0,))[-1]:
                raise damaged(name, f"{counted(pages)} at {start:#x}")
            self.starts.append(start)
            self.ends.append(start + pages * PAGE_SIZE)
            if flags & PARENT:
                self.offsets.append(IN_PARENT)
            elif flags & PRESENT:
                self.offsets.append(offset)
                offset += pages * PAGE_SIZE
            else:
                self.offsets.append(NOWHERE)
        self.parent: PageMap | None = None
        if IN_PARENT in self.offsets:
            if depth == MOST_PARENTS:
                raise SourceError(f"{name}: more than {MOST_PARENTS} folders, each the parent of the one before")
            parent = os.path.join(folder, "parent")
            if not os.path.isdir(parent):
                raise SourceError(f"{name}: a part of a dump: the folder {parent} is missing, which has the other pages")
            self.parent = PageMap(name, os.path.realpath(parent), pid, depth + 1)
        if offset:
            try:
                size = os.stat(self.path).st_size
            except OSError as error:
                raise SourceError(f"{name}: {self.path}: {error.strerror}") from None
            if size < offset:
                raise SourceError(f"{name}: truncated: {self.path} has {size:,} bytes, and should have {offset:,}")

    def places(self, start: int, end: int) -> Iterator[Place]:
        """Where the pages from start to end are."""
        at = max(bisect_right(self.starts, start) - 1, 0)
        while at < len(self.starts) and self.starts[at] < end:
            first, last, offset = max(start, self.starts[at]), min(end, self.ends[at]), self.offsets[at]
            if first < last:
                if offset >= 0:
                    yield Place(first, last, self.path, offset + first - self.starts[at])
                elif offset == IN_PARENT and self.parent is not None:
                    yield from self.parent.places(first, last)
            at += 1


class CriuSource(StreamSource):
    kind = "dump"
    zeros_are_real = True

    def __init__(self, folder: str, pid: int) -> None:
        super().__init__(f"{folder}:{pid}")
        self._map = PageMap(self.name, folder, pid)
        path = os.path.join(folder, f"mm-{pid}.img")
        if os.path.exists(path):
            self._kept = list(mergeable(self.name, path))
        else:
            self._kept = [(0, TOP)]
            self.notes.append(f"mm-{pid}.img is missing: pages that KSM would not merge may be among these")
        listed = sum(end - start for start, end in zip(self._map.starts, self._map.ends, strict=True))
        kept = 0
        for place in self._places():
            kept += place.end - place.start
        self.copied = kept
        inside = sum(end - start for start, end in self._runs())
        if listed > inside:
            self.notes.append(f"left out {counted((listed - inside) // PAGE_SIZE)} of mappings that KSM does not look at")
        self.holes = (inside - kept) // PAGE_SIZE
        self._moved = self._find_room()

    def _runs(self) -> Iterator[Run]:
        """The parts of the process's runs of pages that KSM looks at."""
        place = 0
        for start, end in zip(self._map.starts, self._map.ends, strict=True):
            while place < len(self._kept) and self._kept[place][1] <= start:
                place += 1
            at = place
            while at < len(self._kept) and self._kept[at][0] < end:
                yield max(start, self._kept[at][0]), min(end, self._kept[at][1])
                at += 1

    def _places(self) -> Iterator[Place]:
        for start, end in self._runs():
            yield from self._map.places(start, end)

    def _find_room(self) -> int:
        """How much lower the pages above LIMIT are put: a stack is there if addresses were not randomised."""
        high = [start for start, end in self._runs() if end > LIMIT]
        lower = 0
        if high:
            # Whole blocks of a StreamSource
            start_of_all = min(high) // BLOCK * BLOCK
            lower = STEP
            while any(start < TOP - lower and end > start_of_all - lower for start, end in self._runs()):
                lower += STEP
                if lower > start_of_all:
                    raise SourceError(f"{self.name}: memory at {min(high):#x}, which is higher than this can be read")
        return lower

    def pieces(self) -> Iterator[Piece]:
        for start, end, path, offset in self._places():
            for at in range(start, end, PIECE):
                address = at - self._moved if end > LIMIT else at
                yield InPath(self.name, address, min(PIECE, end - at), path, offset + at - start)


def read_image(name: str, path: str, magic: int) -> Iterator[bytes]:
    """The messages of an image. SourceError."""
    try:
        data = read_file(path, MOST_IMAGE)
    except FileError as error:
        raise SourceError(f"{name}: {error}") from None
    if len(data) < 8:
        raise SourceError(f"{name}: truncated: {path} has {len(data):,} bytes")
    if struct.unpack_from("<2I", data) != (COMMON, magic):
        raise damaged(name, f"{path} does not begin as it should")
    at = 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        if at + 4 + length > len(data):
            raise SourceError(f"{name}: truncated: {path} has {len(data):,} bytes")
        yield data[at + 4 : at + 4 + length]
        at += 4 + length


def fields(name: str, message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message of protobuf: (number, value). SourceError."""
    at = 0
    while at < len(message):
        key, at = varint(name, message, at)
        value: int | bytes
        if key & 7 == 0:
            value, at = varint(name, message, at)
        else:
            length = 8 if key & 7 == 1 else 4
            if key & 7 == 2:
                length, at = varint(name, message, at)
            elif key & 7 not in (1, 5):
                raise damaged(name, f"a field of kind {key & 7} in an image of CRIU")
            value, at = message[at : at + length], at + length
            if at > len(message):
                raise damaged(name, "an image of CRIU with a field that is cut off")
        yield key >> 3, value


def varint(name: str, data: bytes, at: int) -> tuple[int, int]:
    """A number, 7 bits a byte, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & (1 << 64) - 1, at
    raise damaged(name, "an image of CRIU with a number that is cut off")


def number_of(name: str, value: int | bytes | None) -> int:
    if not isinstance(value, int):
        raise damaged(name, "an image of CRIU without a number that it must have")
    return value


def mergeable(name: str, path: str) -> Iterator[Run]:
    """The mappings of mm-N.img that KSM looks at, in the order of their addresses."""
    message = next(read_image(name, path, MM), b"")
    found: list[Run] = []
    for number, value in fields(name, message):
        if number == VMAS and isinstance(value, bytes):
            vma = dict(fields(name, value))
            start, end, flags, status = (number_of(name, vma.get(field)) for field in (1, 2, 6, 7))
            if start % PAGE_SIZE or end % PAGE_SIZE or not start <= end <= TOP:
                raise damaged(name, f"a mapping from {start:#x} to {end:#x}")
            if status & (FILE_PRIVATE | ANON_PRIVATE) and not status & SPECIAL and not flags & MAP_HUGETLB:
                found.append((start, end))
    done = 0
    for start, end in sorted(found):
        if max(start, done) < end:
            yield max(start, done), end
            done = end


def open_criu(folder: str) -> list[CriuSource]:
    """A source for each process of the folder. The first one has a note on all of them. SourceError."""
    folder = folder.rstrip("/") or "/"
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise SourceError(f"{folder}: {error.strerror}") from None
    pids = sorted(int(match[1]) for name in names if (match := NAME.fullmatch(name)))
    if not pids:
        raise SourceError(f"{folder}: is a directory, and not one that CRIU has written")
    sources = [CriuSource(folder, pid) for pid in pids]
    note = "CRIU stores no pages of zeros that were only read"
    if len(sources) > 1:
        note += ", and a page that processes share since a fork once for each of them: these count as duplicates here"
    sources[0].notes.append(note)
    return sources

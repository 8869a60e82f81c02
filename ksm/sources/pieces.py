# SPDX-License-Identifier: GPL-2.0-only
"""Memory on its way: pieces of a source, in the order of the source, each read, used and forgotten.

A reader of a format yields pieces. Who uses them does not know the format: a machine takes their pages in, `ksm fingerprint` writes a row
for each. read() of a piece is called in any thread, with a buffer that stays in the processor's cache.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from ksm.constants import PAGE_SIZE

Run = tuple[int, int]  # (start, end) of neighbouring pages, in addresses of the source: virtual ones, or physical ones

BUFFER = 512 << 10  # bytes that are read at once: half of a second-level cache of today
PIECE = 4 << 20  # bytes of a piece, at most: the work of one thread

# Takes pages: the runs where they lie, and their bytes, one run after the other. The bytes are the sink's only during the call.
Sink = Callable[[list[Run], memoryview], None]


class Piece(ABC):
    """Whole pages of a source; `runs` says where. read(buffer, sink) gives them to the sink, as many at once as the buffer holds."""

    runs: list[Run]

    @abstractmethod
    def read(self, buffer: memoryview, sink: Sink) -> None: ...

    @property
    def length(self) -> int:
        return sum(end - start for start, end in self.runs)


class Loaded(Piece):
    """Pages that were read or unpacked already. Nobody writes to `data` any more."""

    def __init__(self, address: int, data: bytes | bytearray | memoryview) -> None:
        self.data = memoryview(data).cast("B")
        self.runs = [(address, address + len(self.data))]

    def read(self, buffer: memoryview, sink: Sink) -> None:
        sink(self.runs, self.data)


class Zeros(Piece):
    """Pages of zeros that the format names without storing them. A page that it leaves out is absent, and in no piece."""

    def __init__(self, address: int, length: int) -> None:
        self.runs = [(address, address + length)]

    def read(self, buffer: memoryview, sink: Sink) -> None:
        buffer[:] = bytes(len(buffer))
        for address, view in chunks(self.runs[0], buffer):
            sink([(address, address + len(view))], view)


class Wait(Piece):
    """No pages: all pieces before it are used before those behind it, which have some of the same pages."""

    runs: list[Run] = []  # noqa: RUF012  (nobody adds to it)

    def read(self, buffer: memoryview, sink: Sink) -> None:
        return None


class InFile(Piece):
    """Pages that lie in a file as they are."""

    def __init__(self, address: int, length: int, fd: int, offset: int, truncated: Exception) -> None:
        self.runs = [(address, address + length)]
        self.fd, self.offset, self.truncated = fd, offset, truncated

    def read(self, buffer: memoryview, sink: Sink) -> None:
        offset = self.offset
        for address, view in chunks(self.runs[0], buffer):
            done = 0
            while done < len(view):
                got = os.preadv(self.fd, [view[done:]], offset + done)
                if not got:
                    raise self.truncated
                done += got
            sink([(address, address + len(view))], view)
            offset += len(view)


def chunks(run: Run, buffer: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The run in parts that the buffer holds: (address, part of the buffer)."""
    start, end = run
    for address in range(start, end, len(buffer)):
        yield address, buffer[: min(len(buffer), end - address)]


def in_file(address: int, length: int, fd: int, offset: int, truncated: Exception) -> Iterator[InFile]:
    """Pieces of a part of a file."""
    for done in range(0, length, PIECE):
        yield InFile(address + done, min(PIECE, length - done), fd, offset + done, truncated)


def page_zeros(address: int, length: int) -> Iterator[Zeros]:
    for done in range(0, length, PIECE):
        yield Zeros(address + done, min(PIECE, length - done))


assert not BUFFER % PAGE_SIZE and not PIECE % BUFFER

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the kernel module LiME and Microsoft's AVML write this.
"""LiME's dumps (format=lime) and AVML's: ranges of physical memory, each behind a header, all numbers little-endian.

The header has the first and the last address of the range. AVML of version 1 writes LiME's format; of version 2, each range is packed
with snappy in its framing format, and 8 bytes behind it say how long that is. Memory that is in no range is absent: reserved addresses,
devices. LiME writes zeros for pages that it could not read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

from ksm.constants import PAGE_SIZE
from ksm.sources.base import SourceError
from ksm.sources.dumps.common import MOST, PART, DumpSource, check_left, damaged
from ksm.sources.input import Input
from ksm.sources.pieces import Piece, Sink

HEADER = struct.Struct("<4sI2Q8x")
LIME, AVML = b"EMiL", b"AVML"
VERSION = {LIME: 1, AVML: 2}

# Chunks of snappy's framing format: a byte that says what it is, three bytes of length, and so many bytes. Of data, they are a checksum
# of 4 bytes and at most 64 KiB, packed or as they are; a packed block begins with the length of its data.
PACKED, AS_IT_IS, SKIPPED, IDENTIFIER = 0, 1, 0x80, 0xFF
NAME = b"sNaPpY"
CHECKSUM = 4
MOST_DATA = 65536
MOST_CHUNK = CHECKSUM + 32 + MOST_DATA + MOST_DATA // 6  # no packed block is longer
MOST_TOGETHER = 16 << 20  # bytes of chunks that end with a page together

Unpack = tuple[Callable[[bytes], Any], type[Exception]]  # unpacks the framing format; what it raises if that is damaged


class LimeSource(DumpSource):
    def __init__(self, input: Input) -> None:
        super().__init__(input)
        if input.peek(HEADER.size).startswith(AVML):
            snappy(self.name)  # if it is missing, the user should know now
        elif input.size is not None:
            self.copied = input.size

    def pieces(self) -> Iterator[Piece]:
        input = self.begin()
        cut = 0
        self.notes = []
        while input.peek(1):
            at = input.position
            magic, version, first, last = HEADER.unpack(input.read(HEADER.size))
            if magic not in VERSION:
                raise self.damaged(f"no header of a range at byte {at:,}")
            if version != VERSION[magic]:
                raise SourceError(f"{self.name}: a dump of {magic.decode()}, version {version:,}, which is not read")
            if not first <= last < MOST:
                raise self.damaged(f"a range from {first:#x} to {last:#x}")
            end = last + 1
            if magic == AVML:
                if first % PAGE_SIZE or end % PAGE_SIZE:
                    raise self.damaged(f"a packed range from {first:#x} to {last:#x}, which are not whole pages")
                yield from packed(input, first, end)
                continue
            # A page that is there only in part, at an end of a range, is not memory that the system hands out
            check_left(input, end - first)
            head = min(-first % PAGE_SIZE, end - first)
            tail = (end - first - head) % PAGE_SIZE
            input.skip(head)
            yield from self.stored(input, first + head, end - first - head - tail)
            input.skip(tail)
            cut += (head > 0) + (tail > 0)
        if cut:
            self.notes = [f"left out {cut:,} pages that are there only in part, at the ends of ranges"]


class PackedPiece(Piece):
    """Chunks of snappy that are whole pages together. Unpacking them is the work of a thread."""

    def __init__(self, name: str, address: int, length: int, chunks: bytes, unpack: Unpack) -> None:
        self.runs = [(address, address + length)]
        self.name, self.chunks = name, chunks
        self.unpack, self.error = unpack

    def read(self, buffer: memoryview, sink: Sink) -> None:
        try:
            data = bytes(self.unpack(chunk(IDENTIFIER, NAME) + self.chunks))
        except self.error as error:
            raise damaged(self.name, f"pages from {self.runs[0][0]:#x} on cannot be unpacked: {error}") from None
        if len(data) != self.length:
            raise damaged(self.name, f"{len(data):,} bytes of unpacked pages, and not {self.length:,}")
        sink(self.runs, memoryview(data))


def packed(input: Input, address: int, end: int) -> Iterator[Piece]:
    """A packed range."""
    unpack = snappy(input.name)
    began = input.position
    chunks: list[bytes] = []
    length = size = 0
    while address + length < end:
        head = input.read(4)
        kind, data_length = head[0], int.from_bytes(head[1:], "little")
        if kind in (PACKED, AS_IT_IS):
            if not CHECKSUM < data_length <= MOST_CHUNK:
                raise damaged(input.name, f"a chunk of {data_length:,} bytes")
            data = input.read(data_length)
            chunks.append(head + data)
            size += data_length
            length += unpacked_length(data[CHECKSUM:]) if kind == PACKED else data_length - CHECKSUM
            if address + length > end or max(size, length) > MOST_TOGETHER:
                raise damaged(input.name, f"chunks that do not end with a page, at byte {input.position:,}")
            if not length % PAGE_SIZE and (length >= PART or address + length == end):
                yield PackedPiece(input.name, address, length, b"".join(chunks), unpack)
                address += length
                chunks, length, size = [], 0, 0
        elif kind == IDENTIFIER:
            if data_length != len(NAME) or input.read(data_length) != NAME:
                raise damaged(input.name, "a packed range that is not snappy's")
        elif kind >= SKIPPED:
            input.skip(data_length)
        else:
            raise damaged(input.name, f"a chunk of type {kind:#x} at byte {input.position:,}")
    real = input.position - began
    said = int.from_bytes(input.read(8), "little")
    if said != real:
        raise damaged(input.name, f"a range of {real:,} packed bytes, and not of {said:,}")


def unpacked_length(block: bytes) -> int:
    """The length that a packed block says at its beginning, 7 bits a byte; more than a chunk may have if it is none."""
    length = 0
    for place, byte in enumerate(block[:3]):
        length |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return length if 0 < length <= MOST_DATA else MOST
    return MOST


def chunk(kind: int, data: bytes) -> bytes:
    return bytes([kind]) + len(data).to_bytes(3, "little") + data


def snappy(name: str) -> Unpack:
    """What unpacks snappy's framing format. SourceError if the library is missing."""
    try:
        import cramjam
    except ImportError:
        raise SourceError(f"{name}: a dump of AVML that is packed with snappy: pip install ksm[formats]") from None
    return cramjam.snappy.decompress, cramjam.DecompressionError


def open_lime(input: Input) -> LimeSource:
    """The source of a dump of LiME or AVML. It takes over the input."""
    return LimeSource(input)

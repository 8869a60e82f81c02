# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the format of makedumpfile, in which QEMU writes too.
"""A compressed crash dump, as makedumpfile, `virsh dump --memory-only --format=kdump-*` and QEMU's dump-guest-memory write it.

The file has a header, a second header, two bitmaps with a bit for each page of the machine (the first one: there is such a page; the second
one: it is in the dump), a description of each page in the dump, and the pages, each packed for itself. A page that is not in the dump is
absent. Pages of zeros share one description's data. Everything is read from front to back.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ksm.constants import PAGE_SIZE
from ksm.sources.base import HIGHEST, SourceError
from ksm.sources.input import Input
from ksm.sources.pieces import BUFFER, Piece, Run, Sink
from ksm.sources.stream import InputSource
from ksm.sources.unpack import first_module

# The header, for each width of a long: the places of status, block_size, sub_hdr_size, bitmap_blocks and max_mapnr, which are neighbours.
# What is before them is the signature, the version, uname and a time.
VERSION_AT = 8
FIELDS_AT = {64: 424, 32: 412}
FIELDS = "iiiII"
# The second header: dump_level, split, and max_mapnr_64, which is there since version 6 where a long has 64 bits
LEVEL_AT = {64: 8, 32: 4}
MAX_MAPNR_AT = 96
SECOND = 104  # bytes of it that are read

MOST_VERSION = 99
INCOMPLETE = 8  # status: there was no room for the last pages
LARGEST_PAGE = 1 << 20
DESCRIPTION = "QIIQ"  # offset, size, flags, page_flags
DESCRIBED = 24  # bytes of a description
STEP = 64 << 10  # bytes of a bitmap that are looked at together
SHARED = 8  # pages whose data several descriptions share, that are kept
TURNS = 64  # times that packed data may be read again from the front


class Header(NamedTuple):
    """What the headers say.

    order      "<" or ">"
    page       bytes of a page
    bitmaps    where the first bitmap begins; the second one follows it
    length     bytes of each of them
    pages      pages that the machine may have: bits of a bitmap
    level      makedumpfile -d
    """

    order: str
    page: int
    bitmaps: int
    length: int
    pages: int
    level: int
    incomplete: bool


def open_kdump(input: Input) -> KdumpSource:
    """The source of a compressed crash dump."""
    return KdumpSource(input, read_header(input))


def damaged(name: str, what: str = "") -> SourceError:
    return SourceError(f"{name}: damaged crash dump" + (f": {what}" if what else ""))


def read_header(input: Input) -> Header:
    """What the headers say. The input then stands at the second one."""
    name = input.name
    order, bits, version, status, page, second, blocks, pages = fields_of(name, input.peek())
    if page < PAGE_SIZE:
        raise SourceError(f"{name}: a crash dump with pages of {page} bytes")
    input.skip(page)
    more = input.peek(SECOND)
    if len(more) < SECOND:
        raise SourceError(f"{name}: truncated after {input.position + len(more):,} bytes")
    level, split = struct.unpack_from(order + "2i", more, LEVEL_AT[bits])
    if version >= 2 and split:
        raise SourceError(f"{name}: one part of a crash dump that is split: put the parts together with makedumpfile --reassemble")
    if version >= 6 and bits == 64:
        [pages] = struct.unpack_from(order + "Q", more, MAX_MAPNR_AT)
    length = blocks // 2 * page
    if second < 1 or length * 8 < pages:
        raise damaged(name, f"{pages:,} pages, and bitmaps for {length * 8:,}")
    if pages * page > HIGHEST:
        raise damaged(name, f"{pages:,} pages are more memory than a machine has")
    return Header(order, page, (1 + second) * page, length, pages, level, bool(status & INCOMPLETE))


def fields_of(name: str, head: bytes) -> tuple[str, int, int, int, int, int, int, int]:
    """Byte order, bits of a long, version, and the fields of the first header: a file of any computer can be read on any other."""
    for order in "<>":
        for bits, at in FIELDS_AT.items():
            if len(head) < at + struct.calcsize(FIELDS):
                raise SourceError(f"{name}: truncated after {len(head):,} bytes")
            [version] = struct.unpack_from(order + "i", head, VERSION_AT)
            status, page, second, blocks, pages = struct.unpack_from(order + FIELDS, head, at)
            if 1 <= version <= MOST_VERSION and page & -page == page and 512 <= page <= LARGEST_PAGE:
                return order, bits, version, status, page, second, blocks, pages
    raise damaged(name, "its header")


class Bitmap:
    """The bits of the pages that are in the dump, which are kept packed: one for each page of the machine at most."""

    def __init__(self, input: Input, header: Header) -> None:
        """Read both bitmaps: how many pages the machine has, and which ones are in the dump."""
        self.machine = sum(chunk.bit_count() for chunk in chunks(input, header))
        self.dumped = 0
        self._chunks: list[bytes] = []
        for chunk in chunks(input, header):
            self.dumped += chunk.bit_count()
            self._chunks.append(zlib.compress(chunk.to_bytes(STEP, "little"), 1) if chunk else b"")

    def runs(self) -> Iterator[Run]:
        """The runs of set bits, as (start, end)."""
        first: int | None = None  # of a run that has begun
        for number, packed in enumerate(self._chunks):
            at = number * STEP * 8
            if not packed:
                if first is not None:
                    yield first, at
                first = None
                continue
            for place, byte in enumerate(zlib.decompress(packed)):
                if byte == (0 if first is None else 0xFF):
                    continue
                for bit in range(8):
                    if bool(byte >> bit & 1) == (first is None):
                        here = at + 8 * place + bit
                        if first is None:
                            first = here
                        else:
                            yield first, here
                            first = None
        if first is not None:
            yield first, len(self._chunks) * STEP * 8


def chunks(input: Input, header: Header) -> Iterator[int]:
    """The bits of a bitmap, STEP bytes at a time, as numbers. What is behind the last page is left out."""
    wanted = -(-header.pages // 8)
    zeros = bytes(STEP)
    for at in range(0, wanted, STEP):
        data = input.read(min(STEP, wanted - at))
        chunk = 0 if data == zeros else int.from_bytes(data, "little")
        beyond = header.pages - at * 8
        yield chunk & (1 << beyond) - 1 if beyond < STEP * 8 else chunk
    input.skip(header.length - wanted)


class Packed(Piece):
    """Pages of a dump: one after the other in `data`, or a page that was unpacked already, in the order of `pages`."""

    def __init__(self, runs: list[Run], pages: list[tuple[int, Unpack] | bytes], data: bytes, page: int, error: SourceError) -> None:
        self.runs = runs
        self.pages = pages
        self.data = data
        self.page = page
        self.error = error

    def read(self, buffer: memoryview, sink: Sink) -> None:
        length = self.page
        if length > len(buffer):
            buffer = memoryview(bytearray(length))
        at = filled = 0
        for page in self.pages:
            if isinstance(page, tuple):
                size, unpack = page
                page = unpack(self.data[at : at + size], length)
                at += size
                if len(page) != length:
                    raise self.error
            buffer[filled : filled + length] = page
            filled += length
        sink(self.runs, buffer[:filled])


# Unpacks a page: (data, length of the page). If it gives another length, the page is damaged.
Unpack = Callable[[bytes, int], bytes]


def plain(data: bytes, length: int) -> bytes:
    return data


def by_zlib(data: bytes, length: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, length)
    except zlib.error:
        return b""


def by_lzo(library: Any) -> Unpack:
    def unpack(data: bytes, length: int) -> bytes:
        try:
            return bytes(library.LZOCompressor.decompress(data, length))
        except (library.LZOError, ValueError):
            return b""

    return unpack


def by_snappy(library: Any) -> Unpack:
    def unpack(data: bytes, length: int) -> bytes:
        # The library believes the length that the data begin with, so it is looked at before: 7 bits in a byte, the lowest ones first.
        said = shift = 0
        for byte in data[:3]:
            said |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        else:
            return b""
        try:
            return bytes(library.snappy.decompress_raw(data)) if said == length else b""
        except library.DecompressionError:
            return b""

    return unpack


def by_zstd(library: Any) -> Unpack:
    def unpack(data: bytes, length: int) -> bytes:
        try:
            unpacked: bytes = library.ZstdDecompressor().decompress(data, length)
            return unpacked
        except library.ZstdError:
            return b""

    return unpack


# The flags of a description: what the page is packed with, the modules that unpack it, and how
PACKED: dict[int, tuple[str, tuple[str, ...], Callable[[Any], Unpack]]] = {
    2: ("lzo", ("lzallright",), by_lzo),
    4: ("snappy", ("cramjam",), by_snappy),
    0x20: ("zstd", ("compression.zstd", "backports.zstd"), by_zstd),
}


class KdumpSource(InputSource):
    """A compressed crash dump."""

    def __init__(self, input: Input, header: Header) -> None:
        super().__init__(input, "dump")
        self.header = header
        self.known: dict[int, Unpack] = {0: plain, 1: by_zlib}

    def read(self, input: Input) -> Iterator[Piece]:
        header = self.header
        input.skip(header.bitmaps - input.position)
        bitmap = Bitmap(input, header)
        self.say(bitmap)
        described = bitmap.dumped * DESCRIBED
        data = input.again()
        if data is not None:
            reader = Pages(self, data)
            try:
                reader.start_at(input.position + described)
                yield from reader.read(bitmap.runs(), lambda number: input.read(number * DESCRIBED))
            finally:
                reader.data.close()
            return
        # From a pipe the descriptions come once, before the pages. They are kept, packed.
        kept = Kept(input, described)
        reader = Pages(self, input)
        reader.start_at(input.position)
        yield from reader.read(bitmap.runs(), lambda number: kept.read(number * DESCRIBED))

    def say(self, bitmap: Bitmap) -> None:
        """Notes on what is not in the dump."""
        missing = self.holes = max(0, bitmap.machine - bitmap.dumped)
        if missing and not self.notes:
            level = self.header.level
            zeros = ", pages of zeros among them" if level & 1 else ""
            self.notes.append(f"left out {missing:,} pages that are not in the dump (makedumpfile -d {level}){zeros}")
        if self.header.incomplete and len(self.notes) < 2:
            self.notes.append("the dump is incomplete: there was no room for its last pages")

    def unpack_of(self, flags: int) -> Unpack:
        """How a page with these flags is unpacked. SourceError."""
        if flags not in PACKED:
            raise damaged(self.name, f"a page with the flags {flags:#x}")
        what, modules, make = PACKED[flags]
        library = first_module(*modules)
        if library is None:
            raise SourceError(f"{self.name}: its pages are packed with {what}, which needs pip install ksm[formats]")
        return self.known.setdefault(flags, make(library))


class Kept:
    """Bytes of an input, packed, to be read later."""

    def __init__(self, input: Input, length: int) -> None:
        self._packed = [zlib.compress(input.read(min(STEP, length - at)), 1) for at in range(0, length, STEP)]
        self._packed.reverse()
        self._open = b""

    def read(self, length: int) -> bytes:
        while len(self._open) < length:
            self._open += zlib.decompress(self._packed.pop())
        data, self._open = self._open[:length], self._open[length:]
        return data


class Pages:
    """The pages of a dump, collected to pieces."""

    def __init__(self, source: KdumpSource, data: Input) -> None:
        self.source = source
        self.name = source.name
        self.data = data
        self.page = source.header.page
        self.shared: dict[int, bytes] = {}  # pages by their offsets, that other pages are like
        self.turns = 0
        self._clear()

    def _clear(self) -> None:
        self.begin = self.end = -1  # where the data of the piece are
        self.pages: list[tuple[int, Unpack] | bytes] = []
        self.runs: list[Run] = []

    def start_at(self, offset: int) -> None:
        """The pages begin at this offset. The first one is often that of zeros, which many others are like, so its data are kept."""
        self.data.skip(offset - self.data.position)
        self.first = offset
        self.head = self.data.peek(self.page)

    def read(self, runs: Iterator[Run], descriptions: Callable[[int], bytes]) -> Iterator[Piece]:
        """The pieces. descriptions(number) gives the next ones."""
        header, page, known = self.source.header, self.page, self.source.known
        description = struct.Struct(header.order + DESCRIPTION)
        most = max(1, BUFFER // page)
        for start, end in runs:
            for first in range(start, end, most):
                table = descriptions(min(most, end - first))
                for number, (offset, size, flags, _) in enumerate(description.iter_unpack(table), first):
                    if not 0 < size <= page:
                        if header.incomplete and not (offset and size):
                            continue
                        raise damaged(self.name, f"a page of {size:,} bytes")
                    unpack = known.get(flags) or self.source.unpack_of(flags)
                    shared = self.shared.get(offset)
                    if shared is None and offset != self.end:
                        if self.end >= 0:
                            yield self.piece()
                        if offset < self.data.position or offset == self.first:
                            shared = self.share(offset, size, unpack)
                        else:
                            self.begin = self.end = offset
                    if shared is None:
                        self.end += size
                        self.pages.append((size, unpack))
                    else:
                        self.pages.append(shared)
                    address = number * page
                    if self.runs and self.runs[-1][1] == address:
                        self.runs[-1] = (self.runs[-1][0], address + page)
                    else:
                        self.runs.append((address, address + page))
                    if len(self.pages) == most:
                        yield self.piece()
        if self.pages:
            yield self.piece()

    def piece(self) -> Piece:
        """What was collected."""
        data = b""
        if self.end >= 0:
            self.data.skip(self.begin - self.data.position)
            data = self.data.read(self.end - self.begin)
        piece = Packed(self.runs, self.pages, data, self.page, damaged(self.name, "a page that cannot be unpacked"))
        self._clear()
        return piece

    def share(self, offset: int, size: int, unpack: Unpack) -> bytes:
        """The page whose data are the first ones, or were passed already."""
        packed = self.head[:size] if offset == self.first else self.passed(offset, size)
        page = unpack(packed, self.page)
        if len(page) != self.page:
            raise damaged(self.name, "a page that cannot be unpacked")
        if len(self.shared) == SHARED:
            del self.shared[next(iter(self.shared))]
        self.shared[offset] = page
        return page

    def passed(self, offset: int, size: int) -> bytes:
        """Data that were passed already: everything is read again from the front."""
        self.turns += 1
        data = self.data.again() if self.turns <= TURNS else None
        if data is None:
            raise SourceError(f"{self.name}: its pages do not follow each other: unpack it to a file")
        self.data.close()
        self.data = data
        self.data.skip(offset)
        return self.data.read(size)

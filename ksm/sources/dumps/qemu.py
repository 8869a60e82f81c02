# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: migration/ram.c and migration/savevm.c of QEMU write this.
"""QEMU's migration stream: of `migrate exec:` and `file:`, of Proxmox' vmstate, and behind the header of `virsh save`.

Sections follow one another, all numbers big-endian. The first one is "ram"; its START lists the RAM blocks, its PARTs and its END have
pages. What comes behind the END are devices, which cannot be read without their descriptions, and which have no memory: reading stops
there. All RAM has come when the END has. Addresses are those of the blocks, laid one after the other.

A page may come several times, if the guest ran meanwhile: the last one counts. With mapped-ram, the pages of a block lie behind its entry
in the list, with a bitmap of those that are not zeros.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from ksm.constants import PAGE_SIZE
from ksm.sources.base import SourceError
from ksm.sources.dumps.common import MOST, PART, Bitmap, DumpSource, Seen, check_left, counted
from ksm.sources.input import Input
from ksm.sources.pieces import Loaded, Piece, page_zeros
from ksm.sources.stream import BLOCK

MAGIC = b"QEVM"
# Types of sections
EOF, START, PART_, END, FULL, SUBSECTION, CONFIGURATION, COMMAND, FOOTER = 0, 1, 2, 3, 4, 5, 7, 8, 0x7E
# Flags of a page's address. COMPRESSED ended with QEMU 9.1.
ZERO, MEM_SIZE, PAGE, EOS, CONTINUE, XBZRLE, HOOK, COMPRESSED, MULTIFD_FLUSH = 2, 4, 8, 16, 32, 64, 128, 256, 512
REFUSED = {XBZRLE: "XBZRLE", HOOK: "RDMA", MULTIFD_FLUSH: "multifd"}
# Commands that say that pages come by another way, or without an end
ADVISE = 3
REFUSED_COMMANDS = {4: "postcopy", 5: "postcopy", 6: "postcopy", 7: "postcopy", 8: "postcopy", 10: "COLO"}
PAGE_BITS = PAGE_SIZE.bit_length() - 1
MOST_BLOCKS = 1 << 12
MOST_TEXT = 1 << 12  # bytes of the machine's name
MOST_NAMED = 4  # RAM blocks in a note
MOST_COMPRESSED = 2 * PAGE_SIZE

NEXT_PAGE = struct.Struct(f">Q{PAGE_SIZE}x")
NEXT_ZEROS = struct.Struct(">QB")
MAPPED = struct.Struct(">I3Q")  # version, page size, where the bitmap is, where the pages are
PAGES_ALIGNED = 1 << 20


class RamBlock(NamedTuple):
    """base: where it lies among the source's addresses"""

    name: str
    base: int
    length: int


class Cursor:
    """Small reads of an Input, from a large buffer."""

    def __init__(self, input: Input) -> None:
        self.input = input
        self.view = memoryview(b"")
        self.at = 0

    def need(self, length: int) -> None:
        """See to it that the buffer has `length` bytes from `at` on."""
        parts = [bytes(self.view[self.at :])]
        have = len(parts[0])
        while have < length:
            part = self.input.some(PART)
            if not part:
                raise self.input.truncated()
            parts.append(part)
            have += len(part)
        self.view = memoryview(b"".join(parts))
        self.at = 0

    def take(self, length: int) -> memoryview:
        if len(self.view) - self.at < length:
            self.need(length)
        self.at += length
        return self.view[self.at - length : self.at]

    def leave(self) -> Input:
        """The input, at the place that was reached."""
        self.input.back(bytes(self.view[self.at :]))
        self.view, self.at = memoryview(b""), 0
        return self.input

    def number(self, length: int) -> int:
        return int.from_bytes(self.take(length), "big")

    def text(self, length: int) -> str:
        return bytes(self.take(length)).decode(errors="backslashreplace")


class PageRun:
    """Neighbouring pages, from start to end: these parts, or zeros."""

    def __init__(self, start: int, zeros: bool) -> None:
        self.start = self.end = start
        self.zeros = zeros
        self.parts: list[memoryview] = []

    def follow(self, cursor: Cursor, block: RamBlock) -> None:
        """Add the pages that are next in the stream and in the block, and of the same kind, as most are. Each step here counts."""
        each = NEXT_ZEROS if self.zeros else NEXT_PAGE
        room = min(len(cursor.view) - cursor.at, (self.start + PART - self.end) // PAGE_SIZE * each.size)
        room = min(room, (block.base + block.length - self.end) // PAGE_SIZE * each.size) // each.size * each.size
        begin = cursor.at
        at = begin
        expected = self.end - block.base | CONTINUE | (ZERO if self.zeros else PAGE)
        if self.zeros:
            for word, byte in each.iter_unpack(cursor.view[begin : begin + room]):
                if word != expected or byte:
                    break
                at += each.size
                expected += PAGE_SIZE
        else:
            for (word,) in each.iter_unpack(cursor.view[begin : begin + room]):
                if word != expected:
                    break
                at += each.size
                expected += PAGE_SIZE
            self.parts += [cursor.view[place + 8 : place + each.size] for place in range(begin, at, each.size)]
        cursor.at = at
        self.end += (at - begin) // each.size * PAGE_SIZE

    def pieces(self) -> Iterator[Piece]:
        if self.zeros:
            yield from page_zeros(self.start, self.end - self.start)
        elif self.parts:
            yield Loaded(self.start, b"".join(self.parts))


class QemuSource(DumpSource):
    """A stream. Its blocks are in the notes once it was read."""

    def __init__(self, input: Input) -> None:
        super().__init__(input)
        self._opened: Cursor | None = self._read_head()
        self.copied = self._total

    def refused(self, what: str) -> SourceError:
        return SourceError(f"{self.name}: a migration stream of QEMU with {what}, which is not read")

    def pieces(self) -> Iterator[Piece]:
        cursor = self._opened or self._read_head()
        self._opened = None
        seen = Seen()
        for piece in self._sections(cursor):
            for run in piece.runs:
                seen.add(run)
            yield piece
        self._take_notes(seen)

    def _read_head(self) -> Cursor:
        """All that comes before the list of RAM blocks."""
        self.blocks: dict[str, RamBlock] = {}
        self._block = RamBlock("", 0, 0)  # that of the last page
        self._capabilities: set[str] = set()
        cursor = Cursor(self.begin())
        if cursor.take(4) != MAGIC:
            raise self.refused("another beginning")
        version = cursor.number(4)
        if version != 3:
            raise self.refused(f"version {version:,}")
        kind = cursor.number(1)
        while kind in (CONFIGURATION, COMMAND):
            if kind == CONFIGURATION:
                self._read_configuration(cursor)
            else:
                self._read_command(cursor)
            kind = cursor.number(1)
        if kind not in (START, FULL):
            raise self.damaged(f"a section of type {kind:#x}")
        self._section = cursor.number(4)
        self._check_ram(cursor, kind)
        word = cursor.number(8)
        self._total = word & -PAGE_SIZE
        if word != self._total | MEM_SIZE or self._total > MOST:
            raise self.damaged(f"no list of RAM blocks, but {word:#x}")
        return cursor

    def _check_ram(self, cursor: Cursor, kind: int) -> None:
        name = cursor.text(cursor.number(1))
        _, version = cursor.number(4), cursor.number(4)
        if name != "ram" or kind == FULL:
            raise self.refused(f"the section {name[:40]!r} before the end of its memory")
        if version != 4:
            raise self.refused(f"version {version:,} of its memory")

    def _sections(self, cursor: Cursor) -> Iterator[Piece]:
        """The pages of all sections up to the END of "ram"."""
        yield from self._list(cursor)
        yield from self._pages(cursor)
        while True:
            kind = cursor.number(1)
            if kind == COMMAND:
                self._read_command(cursor)
            elif kind == FOOTER:
                cursor.take(4)
            elif kind in (PART_, END):
                number = cursor.number(4)
                if number != self._section:
                    raise self.refused(f"the section number {number:,} before the end of its memory")
                yield from self._pages(cursor)
                if kind == END:
                    return
            elif kind in (START, FULL):
                cursor.take(4)
                self._check_ram(cursor, kind)
                raise self.damaged("a second section of RAM")
            elif kind == EOF:
                raise self.damaged("it ends before its memory does; was the migration cancelled?")
            else:
                raise self.damaged(f"a section of type {kind:#x}")

    def _read_configuration(self, cursor: Cursor) -> None:
        length = cursor.number(4)
        if length > MOST_TEXT:
            raise self.damaged(f"a machine's name of {length:,} bytes")
        cursor.take(length)
        while True:
            kind = cursor.number(1)
            if kind != SUBSECTION:
                cursor.at -= 1
                return
            name = cursor.text(cursor.number(1))
            cursor.take(4)
            if name == "configuration/target-page-bits":
                bits = cursor.number(4)
                if bits != PAGE_BITS:
                    raise self.refused(f"pages of 2^{bits} bytes" if bits < 64 else "pages of another size")
            elif name == "configuration/capabilities":
                count = cursor.number(4)
                if count > MOST_TEXT:
                    raise self.damaged(f"{count:,} capabilities")
                self._capabilities = {cursor.text(cursor.number(1)) for _ in range(count)}
            elif name == "configuration/uuid":
                cursor.take(16)
            else:
                raise self.refused(f"{name[:80]!r}")

    def _read_command(self, cursor: Cursor) -> None:
        command, length = cursor.number(2), cursor.number(2)
        if command in REFUSED_COMMANDS:
            raise self.refused(REFUSED_COMMANDS[command])
        data = cursor.take(length)
        # Postcopy could come, but did not if all of the memory is here. With pages of several sizes, the list of blocks has more numbers.
        if command == ADVISE and length and int.from_bytes(data[:8], "big") != PAGE_SIZE:
            raise self.refused("postcopy of huge pages")

    def _pages(self, cursor: Cursor) -> Iterator[Piece]:
        """What a section of "ram" has. Neighbouring pages become one piece."""
        run = PageRun(0, False)
        while True:
            word = cursor.number(8)
            flags = word & (PAGE_SIZE - 1)
            address = word - flags
            if flags in (PAGE, ZERO, COMPRESSED):
                # A block is named where it is another one than that of the page before, in this section or in the one before
                block = self.blocks.get(cursor.text(cursor.number(1)))
                if block is None:
                    raise self.damaged("a page of a RAM block that is not in the list")
                self._block = block
            flags &= ~CONTINUE
            if flags not in (PAGE, ZERO, COMPRESSED):
                yield from run.pieces()
                if flags == EOS:
                    return
                raise self.refused(REFUSED[flags]) if flags in REFUSED else self.damaged(f"a page with flags {flags:#x}")
            if address >= self._block.length:
                raise self.damaged(f"a page at {address:#x} of a RAM block of {self._block.length:#x} bytes")
            page = None
            if flags == PAGE:
                page = cursor.take(PAGE_SIZE)
            elif flags == COMPRESSED:
                page = self._unpacked(cursor)
            elif byte := cursor.number(1):
                page = memoryview(bytes([byte]) * PAGE_SIZE)
            address += self._block.base
            if address != run.end or run.zeros != (page is None) or run.end - run.start >= PART:
                yield from run.pieces()
                run = PageRun(address, page is None)
            if page is not None:
                run.parts.append(page)
            run.end += PAGE_SIZE
            run.follow(cursor, self._block)

    def _unpacked(self, cursor: Cursor) -> memoryview:
        """A page that the capability "compress" packed, with zlib."""
        length = cursor.number(4)
        if length > MOST_COMPRESSED:
            raise self.damaged(f"a compressed page of {length:,} bytes")
        unpack = zlib.decompressobj()
        try:
            page = unpack.decompress(cursor.take(length), PAGE_SIZE)
        except zlib.error:
            page = b""
        if len(page) != PAGE_SIZE:
            raise self.damaged("a compressed page that cannot be unpacked")
        return memoryview(page)

    def _list(self, cursor: Cursor) -> Iterator[Piece]:
        """The list of RAM blocks; with mapped-ram, their pages too."""
        total, base = self._total, 0
        while total:
            name = cursor.text(cursor.number(1))
            length = cursor.number(8)
            if length > total or length % PAGE_SIZE or name in self.blocks or len(self.blocks) == MOST_BLOCKS:
                raise self.damaged(f"a RAM block of {length:,} bytes, of {total:,}")
            block = self.blocks[name] = RamBlock(name, base, length)
            total -= length
            base += -(-length // BLOCK) * BLOCK
            if "x-ignore-shared" in self._capabilities:
                cursor.take(8)
            if "mapped-ram" in self._capabilities:
                yield from self._mapped_block(cursor, block)

    def _mapped_block(self, cursor: Cursor, block: RamBlock) -> Iterator[Piece]:
        version, page_size, bitmap_at, pages_at = MAPPED.unpack(cursor.take(MAPPED.size))
        if version != 1 or page_size != PAGE_SIZE:
            raise self.refused(f"mapped-ram of version {version:,} and pages of {page_size:,} bytes")
        if not bitmap_at and not pages_at:
            return  # shared memory that QEMU was told to leave out
        input = cursor.leave()
        # The offsets are those in the file, or in the stream, if that was put behind something else
        shift = input.position - bitmap_at
        bitmap = Bitmap(input, block.length // PAGE_SIZE)
        gap = pages_at + shift - input.position
        if shift not in (0, self._begin) or not 0 <= gap <= PAGES_ALIGNED:
            raise self.damaged(f"mapped-ram with a bitmap at {bitmap_at:,} and pages at {pages_at:,}")
        input.skip(gap)
        check_left(input, block.length)
        for there, first, end in bitmap.runs():
            address, length = block.base + first * PAGE_SIZE, (end - first) * PAGE_SIZE
            if there:
                yield from self.stored(input, address, length)
            else:
                input.skip(length)
                yield from page_zeros(address, length)

    def _take_notes(self, seen: Seen) -> None:
        """Say what each block has; the smaller ones together."""
        counts = {block: seen.count((block.base, block.base + block.length)) for block in self.blocks.values()}
        present = sum(counts.values())
        if not present:
            raise SourceError(f"{self.name}: no memory in this stream of QEMU; with multifd, it came through other connections")
        listed = sorted(((count, block.name) for block, count in counts.items() if count), reverse=True)
        texts = [f"{name} {counted(count)}" for count, name in listed[:MOST_NAMED]]
        if rest := listed[MOST_NAMED:]:
            texts.append(f"{len(rest)} more {counted(sum(count for count, _ in rest))}")
        self.notes = [f"RAM blocks of QEMU: {', '.join(texts)}"]
        absent = self._total // PAGE_SIZE - present
        if "x-ignore-shared" in self._capabilities:
            shared = sum(block.length // PAGE_SIZE for block, count in counts.items() if not count)
            self.notes.append(f"left out {counted(shared)} of shared memory, which is not in the stream")
            absent -= shared
        self.holes = absent


def open_qemu(input: Input) -> QemuSource:
    """The source of a migration stream. It takes over the input."""
    return QemuSource(input)

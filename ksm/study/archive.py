# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""Files out of a kernel's tarball, which is read from the front until all of them are found.

tarfile does the same for archives that do no harm. It keeps a list of all members, reads headers of any size into memory, and has no limit
on what comes out of a compressed file. Here each of these has a limit.
"""

from __future__ import annotations

import bz2
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

BLOCK = 512
CHUNK = 1 << 15
MOST_STREAMS = 100_000  # a compressed file may be several, one after the other
MOST_BYTES = 3 << 30  # read, or unpacked: Linux 6.12 has 1.3 GiB in front of mm/ksm.c
MOST_MEMBERS = 250_000  # Linux 6.12 has 92,000
DICTIONARY = 256 << 20  # bytes of memory for xz, whose -9 takes 64 MiB

WITHOUT_DATA = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)


class ArchiveError(Exception):
    """An archive cannot be read. The text says what is wrong with it."""


class Gzip:
    """zlib's decompressor with the interface of the other two."""

    def __init__(self) -> None:
        self.inner = zlib.decompressobj(16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self.inner.eof

    @property
    def unused_data(self) -> bytes:
        return self.inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self.inner.unconsumed_tail

    def decompress(self, data: bytes, most: int) -> bytes:
        return self.inner.decompress(self.inner.unconsumed_tail + data, most)


# How a compressed file begins, and what unpacks it.
FORMATS: dict[bytes, Callable[[], Any]] = {
    b"\x1f\x8b": Gzip,
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\0": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, DICTIONARY),
}


def is_archive(head: bytes) -> bool:
    """Whether a file that begins like this is compressed, or a tarball."""
    if head.startswith(tuple(FORMATS)):
        return True
    try:
        tarfile.TarInfo.frombuf(head[:BLOCK], "utf-8", "replace")
    except tarfile.TarError:
        return False
    return True


def unpacked(file: IO[bytes]) -> Iterator[bytes]:
    """The bytes of the tarball, piece by piece. ArchiveError."""
    data = file.read(CHUNK)
    magic = next((magic for magic in FORMATS if data.startswith(magic)), None)
    if magic is None:
        while data:
            yield data
            data = file.read(CHUNK)
        return
    for _ in range(MOST_STREAMS):
        decoder = FORMATS[magic]()
        while not decoder.eof:
            if decoder.needs_input and not data:
                data = file.read(CHUNK)
                if not data:
                    raise ArchiveError("it ends too early")
            try:
                piece = decoder.decompress(data, CHUNK * 8)
            except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
                raise ArchiveError(f"it is damaged: {error}") from None
            data = b""
            yield piece
        # Another stream follows, or zeros that fill a block, or something that is not a stream.
        data = decoder.unused_data + file.read(len(magic))
        if not data.startswith(magic):
            return
    raise ArchiveError(f"it is made of more than {MOST_STREAMS:,} compressed streams")


class Tape:
    """The unpacked bytes, read from the front to the back."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.pieces = file, unpacked(file)
        self.piece = memoryview(b"")
        self.seen = 0

    def parts(self, count: int) -> Iterator[memoryview]:
        """The next `count` bytes in parts; fewer at the end."""
        while count:
            if not self.piece:
                try:
                    self.piece = memoryview(next(self.pieces))
                except StopIteration:
                    return
                self.seen += len(self.piece)
                if max(self.seen, self.file.tell()) > MOST_BYTES:
                    raise ArchiveError(f"what was looked for is not in the first {MOST_BYTES >> 30} GiB")
            part = self.piece[:count]
            self.piece = self.piece[len(part) :]
            count -= len(part)
            yield part

    def read(self, count: int) -> bytes:
        return b"".join(self.parts(count))

    def skip(self, count: int) -> None:
        for _ in self.parts(count):
            pass


def files_in(file: IO[bytes], wanted: set[str], limit: int) -> dict[str, bytes]:
    """The wanted files, by their names below the folder at the top, whatever its name: limit + 1 bytes of each at most. ArchiveError."""
    tape = Tape(file)
    found: dict[str, bytes] = {}
    for _ in range(MOST_MEMBERS):
        block = tape.read(BLOCK)
        if not block.strip(b"\0"):
            return found  # the end of the archive, whole or cut off
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
        except tarfile.TarError:
            raise ArchiveError("it is no tar archive, or damaged") from None
        if member.type in WITHOUT_DATA:
            continue
        if member.size < 0:
            raise ArchiveError("it is damaged: a member of negative size")
        left = -(-member.size // BLOCK) * BLOCK
        name = member.name.removeprefix("./").partition("/")[2]
        if name in wanted and member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            found[name] = tape.read(min(member.size, limit + 1))
            left -= len(found[name])
            if len(found) == len(wanted):
                return found
        tape.skip(left)
    raise ArchiveError(f"it has more than {MOST_MEMBERS:,} members")

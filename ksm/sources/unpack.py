# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: files that somebody has compressed.
"""Inputs that are unpacked while they are read, in bounded memory and never to disk: gzip, zstd, xz, bzip2, lz4, lzma, framed snappy.

A decompressor is asked for a limited number of bytes at a time, so that it makes no difference how much a file unpacks to. Its own window
is limited too: MOST_XZ and MOST_ZSTD.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

from ksm.sources.base import SourceError
from ksm.sources.formats import is_skippable, packing_of
from ksm.sources.input import AHEAD, Input

STEP = 64 << 10  # packed bytes that a decompressor gets at once
MOST_ZSTD = 27  # the largest window, as a power of 2: 128 MiB, which is the limit of the zstd command too
MOST_XZ = 256 << 20  # bytes that xz may need: four times those of xz -9
MOST_CHUNK = 80 << 10  # bytes of a chunk of snappy, which has 64 KiB of data: those grow by a sixth at most
SNAPPY_START = b"\xff\x06\x00\x00sNaPpY"


class Decompressor(Protocol):
    """What the standard library's decompressors of bz2, lzma and zstd are: for one member of a file."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class Unpacked(Input):
    """What a compressed input unpacks to: all of its members, one after the other. It takes over the input.

    make     a new decompressor
    failed   exceptions that say that the data are damaged
    advice   what to do if a decompressor would need more memory than it may have
    """

    ahead = AHEAD

    def __init__(
        self, packed: Input, what: str, make: Callable[[], Decompressor], failed: tuple[type[Exception], ...], advice: str = ""
    ) -> None:
        super().__init__(packed.name, holes=packed.holes)
        self.packed = packed
        self.what = what
        self.make = make
        self.failed = failed
        self.advice = advice
        self._member: Decompressor | None = make()

    def _next(self, most: int) -> bytes:
        while True:
            if self._member is None:
                if not self._another():
                    return b""
                self._member = self.make()
            member = self._member
            packed = b""
            if member.needs_input:
                packed = self.packed.some(STEP)
                if not packed:
                    raise self._error(f"truncated: the {self.what} data end after {self.packed.position:,} bytes")
            try:
                data = member.decompress(packed, most)
            except self.failed as error:
                if "emory" in str(error):  # lzma: "Memory usage limit exceeded"; zstd: "Frame requires too much memory for decoding"
                    raise self._error(self.advice) from None
                raise self._error(f"damaged {self.what} data before byte {self.packed.position:,}") from None
            except (MemoryError, OverflowError):
                raise self._error(f"not enough memory to unpack {self.what} data") from None
            if member.eof:
                self.packed.back(member.unused_data or b"")
                self._member = None
            if data:
                return data

    def _another(self) -> bool:
        """Whether another member follows. Zeros between members, and behind the last one, are padding."""
        while (data := self.packed.some(STEP)) and not (rest := data.lstrip(b"\0")):
            pass
        if not data:
            return False
        self.packed.back(rest)
        head = self.packed.peek()
        packing = packing_of(head)
        if not (packing and packing.what == self.what) and not (self.what == "lz4" and is_skippable(head)):
            raise self._error(f"damaged: byte {self.packed.position:,} is behind the {self.what} data, and does not begin more of them")
        return True

    def _error(self, what: str) -> SourceError:
        return SourceError(f"{self.name}: {what}")

    def again(self) -> Input | None:
        packed = self.packed.again()
        return packed and Unpacked(packed, self.what, self.make, self.failed, self.advice)

    def close(self) -> None:
        self.packed.close()


class Deflate:
    """zlib's decompressor of one member of a gzip file, as a Decompressor."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail and not self._full

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    _full = False

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        result = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        # What fills the buffer may leave more in zlib's window, with no input left over.
        self._full = len(result) == max_length
        return result


class FramedSnappy(Input):
    """What framed snappy unpacks to: chunks of a type, a length of 3 bytes, a checksum, and 64 KiB of data at most."""

    ahead = AHEAD

    def __init__(self, packed: Input, decompress: Callable[[bytes], Any], failed: type[Exception]) -> None:
        super().__init__(packed.name, holes=packed.holes)
        self.packed = packed
        self.decompress = decompress
        self.failed = failed
        self._chunk = b""

    def _next(self, most: int) -> bytes:
        while not self._chunk:
            head = self.packed.block(4)
            if not head:
                return b""
            kind, length = head[0], int.from_bytes(head[1:], "little")
            if len(head) < 4:
                raise self.packed.truncated()
            if 0x80 <= kind < 0xFF:  # nobody has to understand these
                self.packed.skip(length)
                continue
            if length > MOST_CHUNK:
                raise self._damaged()
            try:
                # As a file of this one chunk, so that the checksum is compared
                self._chunk = bytes(self.decompress(SNAPPY_START + head + self.packed.read(length)))
            except self.failed:
                raise self._damaged() from None
        data, self._chunk = self._chunk[:most], self._chunk[most:]
        return data

    def _damaged(self) -> SourceError:
        return SourceError(f"{self.name}: damaged snappy data before byte {self.packed.position:,}")

    def again(self) -> Input | None:
        packed = self.packed.again()
        return packed and FramedSnappy(packed, self.decompress, self.failed)

    def close(self) -> None:
        self.packed.close()


def missing(input: Input, what: str, command: str) -> SourceError:
    """What to do where the package is not installed that unpacks this."""
    return SourceError(f"{input.name}: packed with {what}, which needs pip install ksm[formats]; or pipe it: {command} | ksm scan -")


def gzip(input: Input) -> Input:
    return Unpacked(input, "gzip", Deflate, (zlib.error,))


def bzip2(input: Input) -> Input:
    from bz2 import BZ2Decompressor

    return Unpacked(input, "bzip2", BZ2Decompressor, (OSError, ValueError))


def xz(input: Input, what: str = "xz") -> Input:
    from lzma import FORMAT_ALONE, FORMAT_XZ, LZMADecompressor, LZMAError

    form = FORMAT_XZ if what == "xz" else FORMAT_ALONE
    advice = f"{what} needs more than {MOST_XZ >> 20} MiB to unpack this: xz -dc FILE | ksm scan -"
    return Unpacked(input, what, lambda: LZMADecompressor(form, memlimit=MOST_XZ), (LZMAError, EOFError), advice)


def lzma(input: Input) -> Input:
    return xz(input, "lzma")


def zstd(input: Input) -> Input:
    # The standard library's module, which Python has since 3.14, or the package that brings it to older ones
    library = first_module("compression.zstd", "backports.zstd")
    if library is None:
        raise missing(input, "zstd", "zstd -dc FILE")
    advice = f"packed with a window of more than {1 << MOST_ZSTD >> 20} MiB (zstd --long): zstd -dc --long=31 FILE | ksm scan -"
    options = {library.DecompressionParameter.window_log_max: MOST_ZSTD}
    return Unpacked(input, "zstd", lambda: library.ZstdDecompressor(options=options), (library.ZstdError,), advice)


def lz4(input: Input) -> Input:
    library = first_module("lz4.frame")
    if library is None:
        raise missing(input, "lz4", "lz4 -dc FILE")
    return Unpacked(input, "lz4", library.LZ4FrameDecompressor, (RuntimeError, EOFError))


def snappy(input: Input) -> Input:
    library = first_module("cramjam")
    if library is None:
        raise missing(input, "snappy", "snzip -dc FILE")
    return FramedSnappy(input, library.snappy.decompress, library.DecompressionError)


def first_module(*names: str) -> Any:
    """The first of these modules that is installed; None if none is. Their types are not: none of them has to be there."""
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    return None

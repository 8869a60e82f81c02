# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: fingerprints of pages in files.
"""Thrift's compact protocol, as far as Parquet's footers and headers of pages need it. Nothing is kept that nobody asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ksm.rows.format import RowsError

STOP, TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(13)
NUMBERS = (I16, I32, I64)
MOST_NESTED = 8


class Thrift:
    """Reads from some bytes, from `at` on. RowsError if they make no sense, or end too soon."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data = data
        self.at = 0
        self.what = what

    def damaged(self) -> RowsError:
        return RowsError(f"damaged: {self.what}")

    def take(self, length: int) -> bytes:
        data = self.data[self.at : self.at + length]
        if len(data) < length:
            raise self.damaged()
        self.at += length
        return data

    def unsigned(self) -> int:
        """A number without a sign, 7 bits a byte."""
        value = shift = 0
        while shift < 64:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value
            shift += 7
        raise self.damaged()

    def signed(self) -> int:
        value = self.unsigned()
        return value >> 1 ^ -(value & 1)

    def struct(self, wanted: Mapping[int, Callable[[int], None]], depth: int = 0) -> None:
        """A structure: wanted[field](type) reads a field, all others are passed over."""
        field = 0
        while True:
            byte = self.take(1)[0]
            kind, step = byte & 15, byte >> 4
            if kind == STOP:
                return
            field = field + step if step else self.signed()
            if field in wanted:
                wanted[field](kind)
            else:
                self.skip(kind, depth)

    def structure(self, kind: int, wanted: Mapping[int, Callable[[int], None]]) -> None:
        """struct(), for a field that should be one."""
        if kind != STRUCT:
            raise self.damaged()
        self.struct(wanted)

    def number(self, kind: int) -> int:
        if kind not in NUMBERS:
            raise self.damaged()
        return self.signed()

    def list_of(self, kind: int, element: int) -> int:
        """The head of a list whose elements are of this type: how many there are. Each of them has a byte at least."""
        if kind != LIST:
            raise self.damaged()
        count, found = self.list_head()
        if count and found != element:
            raise self.damaged()
        return count

    def list_head(self) -> tuple[int, int]:
        byte = self.take(1)[0]
        count = byte >> 4 if byte >> 4 < 15 else self.unsigned()
        if count > len(self.data) - self.at:
            raise self.damaged()
        return count, byte & 15

    def skip(self, kind: int, depth: int = 0, inside: bool = False) -> None:
        """Pass over a value; `inside` of a list, a truth is a byte of its own."""
        if depth > MOST_NESTED:
            raise self.damaged()
        if kind in NUMBERS:
            self.unsigned()
        elif kind == BINARY:
            self.take(self.unsigned())
        elif kind == STRUCT:
            self.struct({}, depth + 1)
        elif kind in (LIST, SET):
            count, element = self.list_head()
            for _ in range(count):
                self.skip(element, depth + 1, inside=True)
        elif kind == BYTE or (kind in (TRUE, FALSE) and inside):
            self.take(1)
        elif kind == DOUBLE:
            self.take(8)
        elif kind not in (TRUE, FALSE):
            raise self.damaged()

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: fingerprints of pages in files.
"""The pages of Parquet of a row group, looked at before they are unpacked: pyarrow takes as much memory as a page says that it needs.

A page begins with a header in Thrift's compact protocol. Its fields 2 and 3 are the bytes of the page, unpacked and as it is in the file.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ksm.rows.format import MOST_PAGE, RowsError

if TYPE_CHECKING:
    import pyarrow.parquet

HEADER = 1024  # bytes of a header that are read; statistics may be in it
MOST_PAGES = 4096  # of a column in a row group
MOST_NESTED = 4

# Types of the compact protocol
STOP, TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, STRUCT = 0, 1, 2, 3, 4, 5, 6, 7, 8, 12


class Header:
    """Reads a header from its bytes. IndexError where they end too soon."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def number(self) -> int:
        """A number without a sign, 7 bits a byte. RowsError if it has more than 64 bits."""
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value
            if shift > 63:
                raise RowsError("damaged: the header of a page")

    def fields(self, depth: int = 0) -> dict[int, int]:
        """The numbers of a structure, by their field; everything else is passed over."""
        found: dict[int, int] = {}
        field = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            kind, step = byte & 15, byte >> 4
            if kind == STOP:
                return found
            if step:
                field += step
            else:
                value = self.number()
                field = value >> 1 ^ -(value & 1)
            if kind in (I16, I32, I64):
                value = self.number()
                found[field] = value >> 1 ^ -(value & 1)
            elif kind == BYTE:
                self.at += 1
            elif kind == DOUBLE:
                self.at += 8
            elif kind == BINARY:
                length = self.number()
                self.at += length
            elif kind == STRUCT and depth < MOST_NESTED:
                self.fields(depth + 1)
            elif kind not in (TRUE, FALSE):
                raise RowsError("damaged: the header of a page")


def check_pages(fd: int, group: pyarrow.parquet.RowGroupMetaData) -> None:
    """RowsError if a page of the row group is larger than any that ksm writes, or if they are not where the file says."""
    for place in range(group.num_columns):
        column = group.column(place)
        starts = [column.data_page_offset, column.dictionary_page_offset if column.has_dictionary_page else None]
        at = min(start for start in starts if start is not None)
        end = at + column.total_compressed_size
        for _ in range(MOST_PAGES):
            if at >= end:
                break
            header = Header(os.pread(fd, HEADER, at))
            try:
                fields = header.fields()
            except IndexError:
                raise RowsError("damaged: the header of a page") from None
            unpacked, packed = fields.get(2, -1), fields.get(3, -1)
            if not 0 <= packed <= end - at or not 0 <= unpacked <= MOST_PAGE:
                raise RowsError(f"damaged: a page of {unpacked:,} bytes, in {packed:,}")
            at += header.at + packed
        if at != end:
            raise RowsError("damaged: a column is longer or shorter than its pages")

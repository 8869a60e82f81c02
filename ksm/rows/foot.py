# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: fingerprints of pages in files.
"""A Parquet file, looked at before pyarrow is given it.

pyarrow ends the whole program on some footers, and takes as much memory as a page says that it needs. So what a fingerprint file can not
have is refused here: in the footer, and in the header before each page.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from ksm.rows.format import MAGIC, MOST_FOOT, MOST_GROUP, MOST_PAGE, RowsError
from ksm.rows.thrift import LIST, STRUCT, Thrift

TAIL = 8  # bytes: the footer's length, and MAGIC once more
HEADER = 1024  # bytes of a page's header that are read; statistics may be in it
MOST_PAGES = 4096  # of a column in a row group
# Fields of the metadata of a column: its bytes in the file, the offsets of its first page and of its dictionary, and counts of levels, of
# which pyarrow expects as many as there are levels
LENGTH, OFFSETS, SIZES = 7, (9, 11), 16


class Column(NamedTuple):
    """Where a column of a row group lies in the file."""

    start: int
    length: int


class Group(NamedTuple):
    rows: int
    columns: list[Column]


def read_foot(fd: int, size: int) -> list[Group]:
    """The row groups of a file. RowsError."""
    tail = os.pread(fd, TAIL, max(0, size - TAIL))
    if size < len(MAGIC) + TAIL or not tail.endswith(MAGIC):
        raise RowsError("truncated: a Parquet file ends with its footer")
    length = int.from_bytes(tail[:4], "little")
    if length > min(MOST_FOOT, size - TAIL - len(MAGIC)):
        raise RowsError(f"damaged: a footer of {length:,} bytes")
    foot = Thrift(os.pread(fd, length, size - TAIL - length), "its footer")
    groups: list[Group] = []

    def row_groups(kind: int) -> None:
        for _ in range(foot.list_of(kind, STRUCT)):
            groups.append(row_group(foot, size - TAIL - length))

    foot.struct({4: row_groups})
    return groups


def row_group(foot: Thrift, end: int) -> Group:
    """A row group, whose columns lie in front of `end`."""
    found: list[Column] = []
    counts: list[int] = []

    def columns(kind: int) -> None:
        for _ in range(foot.list_of(kind, STRUCT)):
            found.append(column(foot, end))

    foot.struct({1: columns, 3: lambda kind: counts.append(foot.number(kind))})
    if len(counts) != 1:
        raise foot.damaged()
    if not 0 < counts[0] <= MOST_GROUP:
        raise RowsError(f"damaged: a row group of {counts[0]:,} rows")
    return Group(counts[0], found)


def column(foot: Thrift, end: int) -> Column:
    numbers: dict[int, int] = {}

    def note(field: int) -> Callable[[int], None]:
        def take(kind: int) -> None:
            numbers[field] = foot.number(kind)

        return take

    def levels(kind: int) -> None:
        """Counts of levels. Where no value is null, there is one level."""
        count, element = foot.list_head() if kind == LIST else (2, kind)
        if count > 1:
            raise foot.damaged()
        for _ in range(count):
            foot.skip(element, inside=True)

    def metadata(kind: int) -> None:
        foot.structure(kind, {**{field: note(field) for field in OFFSETS}, LENGTH: note(LENGTH), SIZES: sizes})

    def sizes(kind: int) -> None:
        foot.structure(kind, {2: levels, 3: levels})

    foot.struct({3: metadata})
    starts = [numbers[field] for field in OFFSETS if field in numbers]
    start, length = min(starts, default=-1), numbers.get(LENGTH, -1)
    if not len(MAGIC) <= start <= start + length <= end:
        raise RowsError("damaged: a column that is not in the file")
    return Column(start, length)


def check_pages(fd: int, group: Group) -> None:
    """RowsError if a page of the row group is larger than any that ksm writes, or if they are not where the footer says."""
    for at, length in group.columns:
        end = at + length
        for _ in range(MOST_PAGES):
            if at >= end:
                break
            unpacked, packed, begins = read_header(fd, at)
            if not 0 <= packed <= end - begins or not 0 <= unpacked <= MOST_PAGE:
                raise RowsError(f"damaged: a page of {unpacked:,} bytes, in {packed:,}")
            at = begins + packed
        if at != end:
            raise RowsError("damaged: a column is longer or shorter than its pages")


def read_header(fd: int, at: int) -> tuple[int, int, int]:
    """Of a page: its bytes, unpacked and as they are in the file, and where they begin."""
    header = Thrift(os.pread(fd, HEADER, at), "the header of a page")
    sizes: list[int] = []

    def size(kind: int) -> None:
        sizes.append(header.number(kind))

    header.struct({2: size, 3: size})
    if len(sizes) != 2:
        raise header.damaged()
    return sizes[0], sizes[1], at + header.at

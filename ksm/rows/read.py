# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: fingerprints of pages in files.
"""Reading a fingerprint file, some rows at a time. Whatever is in the file, an error is a RowsError, and memory is bounded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from ksm.fingerprint.classes import CLASSES
from ksm.fingerprint.rows import frames_from, runs_of
from ksm.host.text import printable
from ksm.rows.foot import check_pages, read_foot
from ksm.rows.format import COLUMNS, ENTRY, MOST_FOOT, Head, RowsError, from_json, need_pyarrow, schema

if TYPE_CHECKING:
    import pyarrow

BATCH = 1 << 16  # rows that are read at once
BUFFER = 256 << 10  # bytes of a column that are read at once
HIGHEST = 1 << 63  # addresses of pages end below

PLACES = {name: place for place, name in enumerate(CLASSES)}

Run = tuple[int, int]


class Batch(NamedTuple):
    """Neighbouring rows: the runs of their addresses, and their frames, one run after the other."""

    runs: list[Run]
    frames: bytearray


class RowsFile:
    """An open fingerprint file. The descriptor stays the caller's, and open as long as this is used."""

    head: Head

    def __init__(self, fd: int, size: int) -> None:
        need_pyarrow()
        from pyarrow import parquet

        self.fd = fd
        self.found = read_foot(fd, size)
        file = os.fdopen(fd, "rb", buffering=0, closefd=False)
        with errors():
            self.file = parquet.ParquetFile(
                file, buffer_size=BUFFER, pre_buffer=False, page_checksum_verification=True, thrift_string_size_limit=MOST_FOOT,
                thrift_container_size_limit=MOST_FOOT // 16,
            )  # fmt: skip
            self.head = self.read_head()
            self.groups = self.share_out()

    def read_head(self) -> Head:
        """What the file says of itself; and its columns are those that the format has."""
        metadata = self.file.metadata
        text = (metadata.metadata or {}).get(ENTRY)
        if text is None:
            raise RowsError("a Parquet file, but none that ksm fingerprint has written")
        head = from_json(text)
        there, wanted = self.file.schema_arrow, schema()
        if not there.equals(wanted):
            for name in wanted.names:
                if name not in there.names or there.field(name) != wanted.field(name):
                    raise RowsError(f"damaged: no column {name} of the type {wanted.field(name).type}")
            raise RowsError(f"damaged: columns that the format has not: {', '.join(there.names)[:200]}")
        return head

    def share_out(self) -> list[range]:
        """The row groups of each source."""
        if any(len(group.columns) != len(COLUMNS) for group in self.found) or self.file.metadata.num_row_groups != len(self.found):
            raise RowsError("damaged: a row group without all columns")
        result = []
        group = 0
        for source in self.head.sources:
            first, rows = group, 0
            while rows < source.pages and group < len(self.found):
                rows += self.found[group].rows
                group += 1
            if rows != source.pages:
                raise RowsError(f"damaged: {rows:,} rows of {source.name}, and there should be {source.pages:,}")
            result.append(range(first, group))
        if group != len(self.found):
            raise RowsError("damaged: rows of no source")
        return result

    def batches(self, place: int, least: int = 0, most: int = HIGHEST) -> Iterator[Batch]:
        """The rows of a source, by its place in head.sources, with addresses in [least, most)."""
        name = self.head.sources[place].name
        columns = ["source", "address", "fingerprint", "checksum"]
        with errors():
            for group in self.groups[place]:
                check_pages(self.fd, self.found[group])
                rows = 0
                for part in self.file.iter_batches(BATCH, [group], columns=columns, use_threads=False):
                    rows += part.num_rows
                    batch = batch_of(part, name, least, most)
                    least = batch.runs[-1][1]
                    yield batch
                if rows != self.found[group].rows:
                    raise RowsError(f"damaged: {rows:,} rows in a row group")

    def classes(self, place: int) -> Iterator[tuple[list[int], bytes]]:
        """Of the rows of a source: the first 8 bytes of each fingerprint, as numbers of this computer, and the classes. RowsError."""
        for fingerprints, kinds in self.columns(place):
            keys = memoryview(bytes(values(fingerprints, 16))).cast("Q")[::2].tolist()
            yield keys, bytes(values(kinds, 1))

    def columns(self, place: int) -> Iterator[tuple[pyarrow.Array, pyarrow.Array]]:
        """Of the rows of a source: the fingerprints, and the classes as their places in CLASSES, numbers of 8 bits. RowsError."""
        import pyarrow as pa

        name = self.head.sources[place].name
        with errors():
            for group in self.groups[place]:
                check_pages(self.fd, self.found[group])
                for part in self.file.iter_batches(BATCH, [group], columns=["source", "fingerprint", "class"], use_threads=False):
                    check_rows(part, name)
                    kinds = part.column("class")
                    names = kinds.dictionary.to_pylist()
                    if not PLACES.keys() >= set(names):
                        raise RowsError(f"damaged: a class {(set(names) - PLACES.keys()).pop()!r}"[:200])
                    yield part.column("fingerprint"), pa.array(map(PLACES.__getitem__, names), pa.uint8()).take(kinds.indices)

    def close(self) -> None:
        self.file.close(force=True)


def batch_of(part: pyarrow.RecordBatch, name: str, least: int, most: int) -> Batch:
    """The rows of a record batch, which are all of the source of this name."""
    check_rows(part, name)
    try:
        runs = runs_of(values(part.column("address"), 8), least, most)
    except ValueError as error:
        raise RowsError(f"damaged: {error} is not in the order of addresses, or cannot be there") from None
    return Batch(runs, frames_from(values(part.column("fingerprint"), 16), values(part.column("checksum"), 4)))


def check_rows(part: pyarrow.RecordBatch, name: str) -> None:
    """RowsError if a value is missing, or a row is not of the source of this name."""
    if any(column.null_count for column in part.columns):
        raise RowsError("damaged: a row without a value")
    named = part.column("source").unique().to_pylist()
    if named != [name]:
        raise RowsError(f"damaged: rows of {', '.join(map(str, named))[:200]!r} among those of {name!r}")


def values(column: pyarrow.Array, width: int) -> memoryview:
    """The bytes of a column of fixed width."""
    data = memoryview(column.buffers()[1]).cast("B")
    return data[column.offset * width : (column.offset + len(column)) * width]


@contextmanager
def errors() -> Iterator[None]:
    """What pyarrow raises on a damaged file, as RowsError."""
    import pyarrow as pa

    try:
        yield
    except RowsError:
        raise
    except MemoryError:
        raise RowsError("damaged: it needs more memory than there is") from None
    except (pa.ArrowException, OSError, ValueError, KeyError, IndexError, OverflowError) as error:
        lines = str(error).split("\n")
        raise RowsError(f"damaged: {printable(lines[0])[:200]}") from None

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: fingerprints of pages in files.
"""Writing a fingerprint file, a row group at a time."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import IO, Any

from ksm.fingerprint.classes import CLASSES
from ksm.fingerprint.rows import addresses_of, columns_of
from ksm.host.text import printable
from ksm.rows.format import ENTRY, GROUP, MOST_NAME, Head, SourceHead, as_json, need_pyarrow, schema

Run = tuple[int, int]


class Writer:
    """Rows of one source after the other, into a file that is open:

        begin(name, kind)                   the next source
        add(runs, frames, classes)          pages of it, by ascending address
        end(notes, holes=...)               of this source: remarks on it, and its counts
        finish()                            of the file: without it, nobody can read it
        drop()                              instead, after an error: nothing is written to the file any more

    A row group has rows of one source, and GROUP of them or a few more.
    """

    def __init__(self, file: IO[bytes], head: Head) -> None:
        need_pyarrow()
        from pyarrow import parquet

        self.head = head
        self.schema = schema()
        self.sink = Sink(file)
        self.writer = parquet.ParquetWriter(
            self.sink, self.schema, compression="zstd", compression_level=1, use_dictionary=["source", "class"],
            column_encoding={"address": "DELTA_BINARY_PACKED", "fingerprint": "PLAIN", "checksum": "PLAIN"},
            write_statistics=["source", "address"], write_page_checksum=True,
        )  # fmt: skip
        self.clear()

    def clear(self) -> None:
        self.runs: list[Run] = []
        self.frames: list[bytes | bytearray] = []
        self.classes: list[bytes | bytearray] = []
        self.rows = 0

    def begin(self, name: str, kind: str) -> None:
        self.source = SourceHead(printable(name[-MOST_NAME:]), kind)

    def add(self, runs: list[Run], frames: bytes | bytearray, classes: bytes | bytearray) -> None:
        self.runs += runs
        self.frames.append(frames)
        self.classes.append(classes)
        self.rows += len(classes)
        if self.rows >= GROUP:
            self.flush()

    def end(self, notes: Iterable[str], *, holes: int = 0, zero_holes: int = 0, shared: int = 0, hidden: int = 0) -> None:
        self.flush()
        said = tuple(printable(note[:MOST_NAME]) for note in notes)
        source = self.source._replace(holes=holes, zero_holes=zero_holes, shared=shared, hidden=hidden, notes=said)
        self.head.sources.append(source)

    def flush(self) -> None:
        """Write the rows that are there as a row group."""
        import pyarrow as pa

        rows = self.rows
        if not rows:
            return
        fingerprints, checksums = columns_of(b"".join(self.frames))
        names = pa.array([self.source.name], pa.string())
        kinds = pa.array(CLASSES, pa.string())

        def column(type: pa.DataType, data: bytes | bytearray) -> pa.Array:
            return pa.Array.from_buffers(type, rows, [None, pa.py_buffer(data)])

        columns = [
            pa.DictionaryArray.from_arrays(column(pa.int32(), bytes(4 * rows)), names),
            column(pa.uint64(), addresses_of(self.runs)),
            column(pa.binary(16), fingerprints),
            column(pa.uint32(), checksums),
            pa.DictionaryArray.from_arrays(column(pa.int8(), b"".join(self.classes)).cast(pa.int32()), kinds),
        ]
        self.writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self.schema))
        self.source = self.source._replace(pages=self.source.pages + rows)
        self.clear()

    def finish(self) -> None:
        self.writer.add_key_value_metadata({ENTRY: as_json(self.head)})
        self.writer.close()

    def drop(self) -> None:
        """Without this, pyarrow would end the file when it forgets the writer, and then say that the file is closed."""
        self.sink.dropped = True
        self.writer.close()


class Sink(io.RawIOBase):
    """What pyarrow writes into."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.position = 0
        self.dropped = False

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if not self.dropped:
            self.file.write(data)
        self.position += len(data)
        return len(data)

    def tell(self) -> int:
        return self.position

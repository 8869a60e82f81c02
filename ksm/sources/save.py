# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: fingerprints of pages in files.
"""Sources on their way into a fingerprint file: read once, hashed by several threads, written while they are read."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import NamedTuple

import ksm
from ksm.constants import PAGE_SIZE
from ksm.fingerprint.classes import classes_of
from ksm.fingerprint.frames import frames_of, key_name
from ksm.fingerprint.rows import marked, unmarked
from ksm.host.files import replacing
from ksm.rows import KEYED_HASH, PLAIN_HASH
from ksm.rows.format import Head
from ksm.rows.write import Writer
from ksm.sources.base import Source, SourceError, SourceGone
from ksm.sources.fingerprints import NO_BYTES
from ksm.sources.pieces import BUFFER, Piece, Run
from ksm.sources.work import in_order

FRAME = 32  # bytes
BLOCK = 512  # pages
HIGHEST = 1 << 63  # addresses end below

Progress = Callable[[str, int, int], None]


class Rows(NamedTuple):
    """Pages of a source: where they lie, their frames, and their classes."""

    runs: list[Run]
    frames: bytes | bytearray
    classes: bytes | bytearray


def hashed(piece: Piece, buffer: memoryview, key: bytes | None) -> Rows:
    """The rows of a piece."""
    found: list[Run] = []
    frames: list[bytes] = []
    classes: list[bytes] = []

    def sink(runs: list[Run], view: memoryview) -> None:
        found.extend(runs)
        # Each part is read twice, and stays in the processor's cache meanwhile.
        for at in range(0, len(view), BUFFER):
            part = view[at : at + BUFFER]
            frames.append(frames_of(part, key=key))
            classes.append(classes_of(part))

    piece.read(buffer, sink)
    return Rows(found, b"".join(frames), b"".join(classes))


def save(source: Source, writer: Writer, folder: str, *, key: bytes | None = None, progress: Progress) -> None:
    """Read a source, and write its rows. SourceError before anything of it was written, or else with the file being of no use."""
    total = source.copied + source.mapped
    done = 0

    def rows() -> Iterator[Rows]:
        nonlocal done
        try:
            for some in in_order(source.pieces(), lambda piece, buffer: hashed(piece, buffer, key), source.threads):
                done += len(some.classes) * PAGE_SIZE
                progress(f"reading {source.name}", min(done, total), total)
                yield some
        except OSError as error:
            raise source.error(error) from None

    if source.ordered:
        writer.begin(source.name, source.kind)
        put(rows(), writer, source.name)
    else:
        with Spool(folder) as spool:
            for some in rows():
                spool.put(some)
            writer.begin(source.name, source.kind)
            put(spool.rows(), writer, source.name)
    writer.end(source.notes, holes=source.holes, zero_holes=source.zero_holes, shared=source.shared, hidden=source.hidden)


def put(rows: Iterator[Rows], writer: Writer, name: str) -> None:
    last = 0
    for some in rows:
        for start, end in some.runs:
            if start < last or end > HIGHEST:
                raise SourceError(f"{name}: damaged: a page at {start:#x}, which is not in the order of addresses")
            last = end
        writer.add(*some)


class Spool:
    """Rows in any order, kept in a temporary file, and given back by ascending address; of a page that came twice, the later one.

    Each block of neighbouring pages has a place in the file, in the order in which blocks came.
    """

    def __init__(self, folder: str) -> None:
        self.file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (__exit__ closes it)
        self.places: dict[int, int] = {}

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def put(self, rows: Rows) -> None:
        fd = self.file.fileno()
        frames = memoryview(marked(rows.frames, rows.classes))
        at = 0
        for start, end in rows.runs:
            page, last = start // PAGE_SIZE, end // PAGE_SIZE
            while page < last:
                block, first = divmod(page, BLOCK)
                place = self.places.setdefault(block, len(self.places))
                count = min(last - page, BLOCK - first)
                data = frames[at : at + count * FRAME]
                write_at(fd, data, (place * BLOCK + first) * FRAME)
                at += len(data)
                page += count

    def rows(self) -> Iterator[Rows]:
        fd = self.file.fileno()
        for block in sorted(self.places):
            data = os.pread(fd, BLOCK * FRAME, self.places[block] * BLOCK * FRAME)
            yield Rows(*unmarked(data, block * BLOCK * PAGE_SIZE))


def write_at(fd: int, data: memoryview, offset: int) -> None:
    """All of the data: a write that was cut short is followed by one that has the reason for its error."""
    while data:
        done = os.pwrite(fd, data, offset)
        data, offset = data[done:], offset + done


class Saved(NamedTuple):
    """A fingerprint file that was written: its pages, its bytes, the sources in it, and why others were left out."""

    pages: int
    size: int
    sources: list[Source]
    left: list[str]


def save_file(
    path: str, sources: list[Source], *, key: bytes | None = None, host: str | None = None, progress: Progress
) -> Saved:
    """Write a fingerprint file, or leave what is there as it was. SourceError; RowsError without pyarrow; OSError of writing.

    Of several processes, those that exit meanwhile are left out. The file says that it is of `host`, by default this computer.
    """
    for source in sources:
        if source.hash:
            raise SourceError(f"{source.name}: {NO_BYTES}: it has their fingerprints already")
    time = datetime.now(timezone.utc).isoformat(timespec="seconds")
    name = key_name(key) if key is not None else ""
    head = Head(host or os.uname().nodename, time, KEYED_HASH if name else PLAIN_HASH, name, ksm.__version__, [])
    kept: list[Source] = []
    left: list[str] = []
    with replacing(path) as file:
        writer = Writer(file, head)
        try:
            for source in sources:
                try:
                    save(source, writer, os.path.dirname(os.path.realpath(path)), key=key, progress=progress)
                except SourceGone as error:
                    left.append(str(error))
                    if len(left) == len(sources):
                        raise
                else:
                    kept.append(source)
            if len({source.name for source in head.sources}) < len(kept):
                raise SourceError("two sources have one name, and could not be told apart in the file")
            writer.finish()
        except BaseException:
            writer.drop()
            raise
        size = file.tell()
    return Saved(sum(source.pages for source in head.sources), size, kept, left)

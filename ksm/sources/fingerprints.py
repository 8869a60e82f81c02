# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: fingerprints of pages in files.
"""A fingerprint file, as ksm fingerprint writes it: each of its sources is a source again, for a machine of fingerprints."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from ksm.constants import PAGE_SIZE
from ksm.machine import Machine
from ksm.rows.format import RowsError
from ksm.rows.read import RowsFile
from ksm.sources.base import Kind, Source, SourceError
from ksm.sources.follow import Follower
from ksm.sources.input import Input
from ksm.sources.pieces import Piece, Run

FRAME = 32  # bytes
NO_BYTES = "a fingerprint file has no bytes of pages"


class RowsSource(Source):
    """One source of a fingerprint file. `place` is its place there; `own` is its name there."""

    def __init__(self, path: str, opened: Opened, place: int) -> None:
        head = opened.file.head.sources[place]
        super().__init__(f"{path}: {head.name}")
        self.kind = cast(Kind, head.kind)
        self.own = head.name
        self.zeros_are_real = head.kind == "process"
        self.opened = opened
        self.place = place
        self.hash = opened.file.head.hashed
        self.copied = head.pages * PAGE_SIZE
        self.holes, self.zero_holes, self.shared, self.hidden = head.holes, head.zero_holes, head.shared, head.hidden
        self.notes += head.notes
        self.follower: Follower | None = None

    def attach(self, machine: Machine) -> None:
        self.follower = Follower(self.name, self.spawn(machine), self.lowest())
        self.bring(self.follower)

    def bring(self, follower: Follower) -> None:
        """Make the pages of a process those of the file."""
        process = follower.process
        follower.begin()
        with named(self.name):
            for runs, frames in self.opened.file.batches(self.place):
                follower.take(runs)
                view = memoryview(frames)
                at = 0
                for start, end in runs:
                    length = (end - start) // PAGE_SIZE * FRAME
                    process.load(follower.base + start, view[at : at + length])
                    at += length
            follower.end()

    def lowest(self) -> int:
        """The lowest address that there is."""
        with named(self.name):
            for runs, _ in self.opened.file.batches(self.place):
                return runs[0][0]
        return 0

    def ranges(self) -> list[Run]:
        return self.follower.ranges() if self.follower else []

    def places(self) -> list[tuple[int, int, int]]:
        return self.follower.places() if self.follower else []

    def pieces(self) -> Iterator[Piece]:
        raise SourceError(f"{self.name}: {NO_BYTES}")

    def close(self) -> None:
        super().close()
        self.opened.release()


class Opened:
    """An open file that several sources use. The last one closes it."""

    def __init__(self, file: RowsFile, input: Input) -> None:
        self.file = file
        self.input = input
        self.users = 1

    def release(self) -> None:
        self.users -= 1
        if not self.users:
            self.file.close()
            self.input.close()


class Several(RowsSource):
    """The first of several sources of a file, which stands for all of them until parts() was called."""

    def parts(self) -> list[Source]:
        self.opened.users = len(self.opened.file.head.sources)
        return [RowsSource(self.opened.input.name, self.opened, place) for place in range(self.opened.users)]


@contextmanager
def named(name: str) -> Iterator[None]:
    """Errors of a file and of the machine, with the name of the source."""
    try:
        yield
    except RowsError as error:
        raise SourceError(f"{name}: {error}") from None
    except ValueError as error:  # of Process.load()
        raise SourceError(f"{name}: damaged: {error}") from None
    except OSError as error:
        what = "more memory than this scan can take" if error.errno == errno.ENOMEM else error.strerror or str(error)
        raise SourceError(f"{name}: {what}") from None


def open_fingerprints(input: Input) -> Source:
    """The sources of a fingerprint file. It takes over the input, unless there is an error."""
    file = input.plain()
    if file is None:
        raise SourceError(f"{input.name}: a fingerprint file is read from its end: unpack it into a file first")
    try:
        opened = RowsFile(*file)
    except RowsError as error:
        raise SourceError(f"{input.name}: {error}") from None
    if not opened.head.sources:
        opened.close()
        raise SourceError(f"{input.name}: a fingerprint file without sources")
    return Several(input.name, Opened(opened, input), 0)

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the same memory at several moments.
"""Snapshots of the same memory, in the order of time: each pass of a scan sees the next one.

KSM merges a page whose checksum is that of the last pass. So pages that differ between two snapshots are volatile, and a merged page that
was written to since is one no more. After the last pass, what is merged has lasted.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence

from ksm.machine import Machine
from ksm.sources import open_file
from ksm.sources.base import Source, SourceError
from ksm.sources.extents import ExtentStream, FileSource
from ksm.sources.fingerprints import RowsSource
from ksm.sources.follow import Follower
from ksm.sources.input import Holes
from ksm.sources.pieces import Piece, Run
from ksm.sources.stream import apart, bring, watched
from ksm.sources.work import in_order


class SnapshotSource(Source):
    """Memory at several moments: `moments` has a source for each, or None where it was not there."""

    still = False

    def __init__(self, name: str, moments: Sequence[Source | None]) -> None:
        super().__init__(name)
        self.moments = list(moments)
        self.snapshots = len(self.moments)
        there = [moment for moment in moments if moment is not None]
        self.kind = there[0].kind
        self.hash = next((moment.hash for moment in there if moment.hash), "")
        sizes = [moment.copied + moment.mapped if moment else 0 for moment in moments]
        # While a snapshot is read, the pages of the last one are still there.
        self.copied = max(size + after for size, after in zip(sizes, [*sizes[1:], 0], strict=True))
        self.follower: Follower | None = None

    def attach(self, machine: Machine) -> None:
        lowest = min(lowest_of(moment) for moment in self.moments if moment is not None)
        self.follower = Follower(self.name, self.spawn(machine), lowest)
        self._see(0)

    def refresh(self, number: int) -> None:
        # Passes after the last snapshot see it again.
        if number < len(self.moments):
            self._see(number)

    def _see(self, number: int) -> None:
        assert self.follower is not None
        moment = self.moments[number]
        if moment is None:
            self.follower.begin()
            self.follower.end()
            self.notes = [f"not in snapshot {number + 1}"]
            return
        moment.threads, moment.same_checksums = self.threads, self.same_checksums
        if isinstance(moment, RowsSource):
            moment.bring(self.follower)
        else:
            read_into(self.follower, moment)
        self.holes, self.zero_holes, self.shared, self.hidden = moment.holes, moment.zero_holes, moment.shared, moment.hidden
        self.zeros_are_real = moment.zeros_are_real
        self.notes = moment.notes

    def moments_of(self) -> list[Source]:
        return [moment for moment in self.moments if moment is not None]

    def ranges(self) -> list[Run]:
        return self.follower.ranges() if self.follower else []

    def places(self) -> list[tuple[int, int, int]]:
        return self.follower.places() if self.follower else []

    def pieces(self) -> Iterator[Piece]:
        raise SourceError(f"{self.name}: several snapshots are not memory of one moment")

    def close(self) -> None:
        super().close()
        for moment in self.moments:
            if moment is not None:
                moment.close()


def read_into(follower: Follower, source: Source) -> None:
    """Make the pages of a process those of a source, as they are now."""
    sink = bring(follower.process, follower.base, same_checksums=source.same_checksums)

    def mapped() -> Iterator[Piece]:
        for piece in watched(source.name, apart(source.pieces(), source.threads)):
            follower.take(piece.runs)
            yield piece

    follower.begin()
    try:
        for _ in in_order(mapped(), lambda piece, buffer: piece.read(buffer, sink), source.threads):
            pass
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise SourceError(f"{source.name}: more memory than this scan can take") from None
        raise source.error(error) from None
    follower.end()


def lowest_of(source: Source) -> int:
    """The lowest address of a source; 0 where it is not known before it was read."""
    if isinstance(source, RowsSource):
        return source.lowest()
    extents = source.extents if isinstance(source, (FileSource, ExtentStream)) else []
    return min((extent.address for extent in extents), default=0)


def open_snapshots(texts: Sequence[str], holes: Holes | None = None) -> list[Source]:
    """The sources that are in these files, each of which is a snapshot. SourceError.

    Files with one source each have that source. If one of them has several, they are told apart by name. `holes` is as for open_file().
    """
    opened: list[list[Source]] = []
    try:
        for text in texts:
            if text.startswith("pid:"):
                raise SourceError(f"{text}: a process is no snapshot: ksm fingerprint --every makes some of it")
            if os.path.isdir(text):
                raise SourceError(f"{text}: a folder is no snapshot: ksm fingerprint makes one of it")
            opened.append(open_file(text, holes).parts())
        if all(len(sources) == 1 for sources in opened):
            return [SnapshotSource(opened[-1][0].name, [sources[0] for sources in opened])]
        return by_name(texts, opened)
    except BaseException:
        for sources in opened:
            for source in sources:
                source.close()
        raise


def by_name(texts: Sequence[str], opened: list[list[Source]]) -> list[Source]:
    named: list[dict[str, Source]] = []
    for text, sources in zip(texts, opened, strict=True):
        if not all(isinstance(source, RowsSource) for source in sources):
            raise SourceError(f"{text}: one source without a name of its own, and other snapshots have several")
        named.append({source.own: source for source in sources if isinstance(source, RowsSource)})
    names = dict.fromkeys(name for snapshot in named for name in snapshot)
    return [SnapshotSource(name, [snapshot.get(name) for snapshot in named]) for name in names]

# SPDX-License-Identifier: GPL-2.0-only
"""Memory that is read once, from front to back: of a file in a format of its own, compressed, or from a pipe."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterator

from ksm.constants import MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_PRIVATE, PROT_READ, PROT_WRITE
from ksm.machine import Machine
from ksm.process import Process
from ksm.sources.base import HIGHEST, Source, SourceError
from ksm.sources.pieces import Piece, Run, Sink, Wait
from ksm.sources.work import AHEAD, in_order

BLOCK = 2 << 20  # the machine's process maps a block while the source has a page in it
BASE = BLOCK  # where the address 0 of the source is in the process


def bring(process: Process, base: int = 0) -> Sink:
    """A sink that takes pages into the process, at the source's addresses plus `base`."""

    def sink(runs: list[Run], view: memoryview) -> None:
        at = 0
        for start, end in runs:
            process.update(base + start, view[at : at + end - start])
            at += end - start

    return sink


class StreamSource(Source):
    """Pages at addresses of their own, in any order; where a page comes twice, the later one counts. Subclasses have pieces()."""

    def attach(self, machine: Machine) -> None:
        process = self.spawn(machine)
        self._blocks: set[int] = set()
        sink = bring(process, BASE)
        try:
            for piece in in_order(self._mapped(process), lambda piece, buffer: piece.read(buffer, sink), self.threads):
                del piece
        except OSError as error:
            what = "more memory than this scan can take" if error.errno == errno.ENOMEM else error.strerror or str(error)
            raise SourceError(f"{self.name}: {what}") from None

    def _mapped(self, process: Process) -> Iterator[Piece]:
        """The pieces, each after its blocks were mapped. One that has a page of another piece that may be in work still has to wait."""
        recent: deque[Run] = deque(maxlen=(AHEAD + 1) * self.threads + 1)
        for piece in self.pieces():
            for start, end in piece.runs:
                if self.threads > 1 and any(start < last and first < end for first, last in recent):
                    recent.clear()
                    yield Wait()
                    break
            if piece.runs:
                recent.append((min(piece.runs)[0], max(end for _, end in piece.runs)))
            for start, end in piece.runs:
                if end > HIGHEST - BASE:
                    raise SourceError(f"{self.name}: damaged: a page at {end:#x}")
                for block in range(start // BLOCK, -(-end // BLOCK)):
                    if block not in self._blocks:
                        self._blocks.add(block)
                        process.mmap(
                            BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, addr=BASE + block * BLOCK
                        )
            yield piece

    def ranges(self) -> list[Run]:
        return [(BASE + block * BLOCK, BLOCK) for block in sorted(self._blocks)]

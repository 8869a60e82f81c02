# SPDX-License-Identifier: GPL-2.0-only
"""Memory that is read once, from front to back: of a file in a format of its own, compressed, or from a pipe."""

from __future__ import annotations

import errno
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator

from ksm.constants import MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_PRIVATE, PAGE_SIZE, PROT_READ, PROT_WRITE
from ksm.fingerprint.frames import frames_of
from ksm.host.memory import available_memory
from ksm.machine import Machine
from ksm.process import Process
from ksm.sources.base import HIGHEST, Kind, Source, SourceError
from ksm.sources.input import Input
from ksm.sources.notebook import NotedProcess
from ksm.sources.pieces import Piece, Run, Sink, Wait
from ksm.sources.work import AHEAD, in_order

BLOCK = 2 << 20  # the machine's process maps a block while the source has a page in it
BASE = BLOCK  # where the address 0 of the source is in the process
WATCH = 64 << 20  # bytes of memory between two looks at what this computer has left
LEAST = 64 << 20  # bytes that are left to others
LATER = 96  # bytes that a page takes after it was read, in the first passes: an rmap_item, and a part of a stable node


def bring(process: Process | NotedProcess, base: int = 0, *, same_checksums: bool = False, always: bool = False) -> Sink:
    """A sink that takes pages into the process, at the source's addresses plus `base`. See Source.same_checksums and Process.update()."""
    if isinstance(process, NotedProcess):
        return process.sink(base, always)

    def sink(runs: list[Run], view: memoryview) -> None:
        at = 0
        for start, end in runs:
            part = view[at : at + end - start]
            if same_checksums:
                process.load(base + start, frames_of(part), always=always)
            else:
                process.update(base + start, part, always=always)
            at += end - start

    return sink


def watched(name: str, pieces: Iterator[Piece]) -> Iterator[Piece]:
    """The pieces, while there is memory for them: a stream may not say how long it is. SourceError."""
    read = looked = 0
    for piece in pieces:
        read += piece.length
        if read - looked >= WATCH:
            looked = read
            if available_memory() < LEAST + read // PAGE_SIZE * LATER:
                raise SourceError(f"{name}: not enough memory: it runs out after {read >> 20:,} MiB of the source")
        yield piece


def apart(pieces: Iterator[Piece], threads: int) -> Iterator[Piece]:
    """The pieces, with a Wait before each that has pages of another one that may be in work still."""
    recent: deque[Run] = deque(maxlen=(AHEAD + 1) * threads + 1)
    for piece in pieces:
        if threads > 1 and any(start < last and first < end for start, end in piece.runs for first, last in recent):
            recent.clear()
            yield Wait()
        if piece.runs:
            recent.append((min(piece.runs)[0], max(end for _, end in piece.runs)))
        yield piece


class StreamSource(Source):
    """Pages at addresses of their own, in any order; where a page comes twice, the later one counts. Subclasses have pieces()."""

    def attach(self, machine: Machine) -> None:
        process = self.spawn(machine)
        self._blocks: set[int] = set()
        self.take(process, self._mapped(process), BASE)

    def take(self, process: Process, pieces: Iterator[Piece], base: int = 0) -> None:
        """Read pieces into mapped memory of the process. SourceError, also where memory runs out: a stream may not say how long it is."""
        sink = bring(process, base, same_checksums=self.same_checksums)
        try:
            for _ in in_order(watched(self.name, pieces), lambda piece, buffer: piece.read(buffer, sink), self.threads):
                pass
        except OSError as error:
            what = "more memory than this scan can take" if error.errno == errno.ENOMEM else error.strerror or str(error)
            raise SourceError(f"{self.name}: {what}") from None

    def _mapped(self, process: Process) -> Iterator[Piece]:
        """The pieces, each after its blocks were mapped."""
        for piece in apart(self.pieces(), self.threads):
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

    def places(self) -> list[tuple[int, int, int]]:
        return [(addr, addr - BASE, length) for addr, length in self.ranges()]


class InputSource(StreamSource):
    """Pages from an Input, which it takes over. Subclasses have read()."""

    def __init__(self, input: Input, kind: Kind) -> None:
        super().__init__(input.name)
        self.kind = kind
        self.input = input
        self._again: list[Input] = []  # open until the end, because pieces may be read later
        self._begun = False

    @abstractmethod
    def read(self, input: Input) -> Iterator[Piece]:
        """The pieces that the input holds, from its first byte on."""

    def pieces(self) -> Iterator[Piece]:
        if not self._begun:
            self._begun = True
            yield from self.read(self.input)
            return
        input = self.input.again()
        if input is None:
            raise SourceError(f"{self.name}: comes through a pipe, and can be read only once")
        self._again.append(input)
        yield from self.read(input)

    def close(self) -> None:
        super().close()
        for input in (self.input, *self._again):
            input.close()

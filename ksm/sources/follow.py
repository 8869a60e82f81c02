# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: a process of a machine that is made like memory elsewhere.
"""The pages of a machine's process, made those of memory that is read anew, and again."""

from __future__ import annotations

from collections.abc import Iterable

from ksm.constants import MADV_DONTNEED, MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_PRIVATE, PAGE_SIZE, PROT_READ, PROT_WRITE
from ksm.process import Process
from ksm.sources.base import HIGHEST, LOWEST, SourceError
from ksm.sources.pieces import Run
from ksm.sources.stream import BASE, BLOCK

PAGES = BLOCK // PAGE_SIZE
# Blocks that memory may lie in: each takes a page table, however few pages it has. A process has 65,530 mappings at most.
MOST_BLOCKS, LEAST_PAGES = 1 << 16, 16


class Follower:
    """A process, and which pages the memory has that it follows:

        begin()         the memory is read once more
        take(runs)      these pages are there: their blocks are mapped, and somebody writes or loads them
        end()           what was not taken is gone

    A block is mapped while there is a page in it. `base` is where the address 0 of the memory is in the process.
    """

    def __init__(self, name: str, process: Process, lowest: int) -> None:
        """lowest    the lowest address that the memory will have"""
        self.name = name
        self.process = process
        self.base = 0 if lowest >= LOWEST else BASE
        self.least, self.most = (LOWEST, HIGHEST) if not self.base else (0, HIGHEST - self.base)
        self.before: dict[int, int] = {}  # block: a bit for each page
        self.now: dict[int, int] = {}
        self.mapped: set[int] = set()
        self.pages = 0

    def begin(self) -> None:
        self.before, self.now = self.now, {}
        self.pages = 0

    def take(self, runs: Iterable[Run]) -> None:
        """SourceError for addresses that a process cannot have, or that are spread too wide."""
        for start, end in runs:
            if start < self.least or end > self.most:
                raise SourceError(f"{self.name}: damaged: a page at {start if start < self.least else end:#x}")
            page, last = start // PAGE_SIZE, end // PAGE_SIZE
            self.pages += last - page
            new: list[int] = []
            while page < last:
                block, first = divmod(page, PAGES)
                count = min(last - page, PAGES - first)
                if block not in self.mapped:
                    new.append(block)
                self.now[block] = self.now.get(block, 0) | ((1 << count) - 1) << first
                page += count
            if len(self.now) > MOST_BLOCKS + self.pages // LEAST_PAGES:
                raise SourceError(f"{self.name}: damaged: {self.pages:,} pages in {len(self.now):,} places")
            for block in new:
                self._map(block)

    def _map(self, block: int) -> None:
        start, length = self._range(block)
        self.process.mmap(length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, addr=start)
        self.mapped.add(block)

    def _range(self, block: int) -> Run:
        """Address and length of a block in the process."""
        start, end = self.base + block * BLOCK, self.base + (block + 1) * BLOCK
        start, end = max(start, LOWEST), min(end, HIGHEST)
        return start, end - start

    def end(self) -> None:
        for block, pages in self.before.items():
            kept = self.now.get(block, 0)
            if not kept:
                self.process.munmap(*self._range(block))
                self.mapped.discard(block)
            elif gone := pages & ~kept:
                for first, count in bits(gone):
                    self.process.madvise(self.base + block * BLOCK + first * PAGE_SIZE, count * PAGE_SIZE, MADV_DONTNEED)
        self.before = {}

    def ranges(self) -> list[Run]:
        return [self._range(block) for block in sorted(self.mapped)]

    def places(self) -> list[tuple[int, int, int]]:
        """See Source.places()."""
        return [(addr, addr - self.base, length) for addr, length in self.ranges()]


def bits(word: int) -> Iterable[Run]:
    """The groups of neighbouring bits that are set: (first, count)."""
    place = 0
    while word:
        skip = (word & -word).bit_length() - 1
        word >>= skip
        place += skip
        count = (word ^ (word + 1)).bit_length() - 1
        yield place, count
        word >>= count
        place += count

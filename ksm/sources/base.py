# SPDX-License-Identifier: GPL-2.0-only
"""What a source of memory is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator
from typing import ClassVar, Literal

from ksm.constants import MADV_DONTNEED, PAGE_SIZE
from ksm.machine import Machine
from ksm.process import Process
from ksm.sources.merged import MergedFrames
from ksm.sources.pieces import Piece
from ksm.sources.standing import Standing
from ksm.sources.zeros import zero_runs

# The lowest and highest addresses that a source's memory may have in its process
LOWEST, HIGHEST = 65536, (1 << 47) - 2 * PAGE_SIZE

CHUNK = 128 << 20  # bytes of memory whose page table is looked at at once

Kind = Literal["process", "image", "core", "dump"]


class SourceError(Exception):
    """A source cannot be used. The text is one line: which source, and what is wrong with it."""


class SourceGone(SourceError):
    """A process that could be read a moment ago cannot be read any more: it has exited, or the user may not read it."""


class SourceDenied(SourceGone):
    """The user may not read the process."""


class Source(ABC):
    """Memory to be scanned: a running process, or a file. It becomes one process of a machine.

        attach(machine)     map the memory into a new process
        refresh(number)     before every later pass: follow what changed; number counts passes, from 1 for the one after attach()
        ranges()            where in the process the memory lies: (address, length)
        pieces()            the memory itself, as it is now, whether there is a machine or not
        close()             let go of files; the process, if the machine still exists, exits

    name            as the report shows it
    text            what the user wrote for it; "" if he named none
    kind            "process", "image", "core" or "dump"
    live            whether the memory may change between passes
    still           whether it is memory of one moment
    snapshots       moments that it has, one for each pass; 0 if it is no snapshots
    ordered         whether pieces() has each page once, by ascending address
    hash            how its fingerprints were made, if they were made before: bytes are not there any more
    copied, mapped  bytes that the machine needs for the source: of its own memory, and of addresses for mapped files
    shared          pages that pieces() has left out, because another source has given the same frames
    forked          bytes of `copied` that those take which are shared, as far as that is known before the scan
    hidden          pages that other processes map too; whether those processes are in the scan is not known
    mthp            pages in large folios of other sizes than 2 MiB, as far as that can be seen
    holes           pages that the source does not have, although it could: holes of a file, and what a dump leaves out
    zero_holes      pages of it that lie in holes of a file, and count as pages of zeros
    zeros_are_real  whether its pages of zeros are there in the running machine, or perhaps only what was written for memory without pages
    zeros           pages of zeros that were set apart, because they are perhaps not real; `apart` has where they were in the process
    same_checksums  whether its frames get the checksum of 6.12 in every era, as those of fingerprint files, to be equal to them
    threads         how many threads may read at the same time
    standing        what a process has of KSM, pins and shared frames already
    notes           lines for the report: what was left out, and why
    """

    kind: Kind
    live: ClassVar[bool] = False
    zeros_are_real: bool = False
    still: ClassVar[bool] = True
    ordered: bool = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = ""
        self.hash = ""
        self.snapshots = 0
        self.copied = 0
        self.mapped = 0
        self.forked = 0
        self.shared = 0
        self.hidden = 0
        self.mthp = 0
        self.holes = 0
        self.zero_holes = 0
        self.zeros = 0
        self.apart: list[tuple[int, int]] = []
        self.same_checksums = False
        self.threads = 1
        self.standing = Standing()
        self.notes: list[str] = []
        self.process: Process | None = None

    @abstractmethod
    def attach(self, machine: Machine) -> None: ...

    def refresh(self, number: int) -> None:
        return None  # nothing changes in a file

    def set_zeros_apart(self, machine: Machine) -> None:
        """Take the pages of zeros away from the machine's process, and count them."""
        assert self.process is not None
        self.zeros = 0
        self.apart.clear()
        for start, words in self.page_tables():
            for first, end in zero_runs(machine, start, words):
                self.process.madvise(first, end - first, MADV_DONTNEED)
                self.zeros += (end - first) // PAGE_SIZE
                self.apart.append((first, end))

    def page_tables(self) -> Iterator[tuple[int, array[int]]]:
        """The page tables of the machine's process, in parts: the address of the first page of each, and Process.page_table()."""
        assert self.process is not None
        for addr, length in self.ranges():
            for start in range(addr, addr + length, CHUNK):
                yield start, self.process.page_table(start, min(CHUNK, addr + length - start))

    def look_back(self, merged: MergedFrames) -> None:
        """Called after the last pass: bring `standing` up to date. `merged` has what KSM has merged in the sources before this one.

        Files of fingerprints know no more than how many pages were hidden.
        """
        self.standing.hidden = self.hidden
        self.standing.common = self.hidden * PAGE_SIZE
        self.standing.merged = None

    def count_outside(self) -> None:
        """Called after look_back(): count in `standing` what the machine has merged of frames that others have, too."""
        return None  # only processes know of others

    def repeat(self, start: int, words: array[int]) -> int:
        """Mark in a page table, from the address `start` on, the pages whose frames count for another source: how many. See Tally."""
        return 0

    @abstractmethod
    def ranges(self) -> list[tuple[int, int]]: ...

    def places(self) -> list[tuple[int, int, int]]:
        """What of the source lies where in the process: (address in the process, address in the source, length)."""
        return [(addr, addr, length) for addr, length in self.ranges()]

    @abstractmethod
    def pieces(self) -> Iterator[Piece]: ...

    def error(self, error: OSError) -> SourceError:
        """What an error of reading means for the user."""
        return SourceError(f"{self.name}: {error.strerror or error}")

    def parts(self) -> list[Source]:
        """The sources that it stands for: a file may hold several."""
        return [self]

    def moments_of(self) -> list[Source]:
        """The sources that its passes read: itself, or snapshots."""
        return [self]

    def close(self) -> None:
        if self.process is not None:
            self.process.exit()

    def spawn(self, machine: Machine) -> Process:
        """A process of the machine, as if it had called prctl(PR_SET_MEMORY_MERGE).

        The process has one mapping at HIGHEST, as a real one has its stack: KSM forgets a process without mappings.
        """
        self.process = process = new_process(machine, self.name)
        return process


def new_process(machine: Machine, name: str) -> Process:
    """See Source.spawn()."""
    process = machine.spawn(name)
    process._merge_any()
    process.mmap(PAGE_SIZE, addr=HIGHEST)
    return process

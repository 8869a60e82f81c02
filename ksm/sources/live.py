# SPDX-License-Identifier: GPL-2.0-only
"""A running process: the pages of its private memory that are anonymous and present, read anew for every pass.

The machine's process has the pages at the same addresses, in blocks of 2 MiB. A block is mapped while the real process has a page in it.
(With mappings as large as the real ones, KSM would walk through all the addresses that Go, Java or a sanitizer reserve.)
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ksm.constants import MADV_DONTNEED, MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_PRIVATE, PROT_READ, PROT_WRITE
from ksm.machine import Machine
from ksm.sources.base import HIGHEST, LOWEST, Source, SourceDenied, SourceError, SourceGone
from ksm.sources.pagemap import anonymous_runs, own_runs, read_runs, same_memory
from ksm.sources.pieces import PIECE, Piece, Run, Sink
from ksm.sources.stream import BLOCK, bring
from ksm.sources.work import in_order

# A mapping in /proc/PID/smaps: start, end, permissions, anonymous kB, flags.
MAPPING = re.compile(
    r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) .*?^Anonymous: +(\d+) kB$.*?^VmFlags:([^\n]*)$", re.MULTILINE | re.DOTALL
)
# What vma_ksm_compatible() of mm/ksm.c refuses: shared, may be shared, IO, PFN map, do not expand, mixed map, hugetlb, droppable
REFUSED = frozenset({"sh", "ms", "io", "pf", "de", "mm", "ht", "dp"})
MERGEABLE = "mg"
PF_KTHREAD = 0x00200000  # include/linux/sched.h


class Mapping(NamedTuple):
    """A mapping of the process: its addresses, bytes of anonymous memory, and whether KSM may have merged some of that."""

    start: int
    end: int
    anonymous: int
    mergeable: bool


class Host:
    """What the processes of one scan have in common: the frames that were already seen in this pass."""

    def __init__(self) -> None:
        self.claimed: set[int] = set()
        self.number = 0
        self.kpageflags = -1
        if os.access("/proc/kpageflags", os.R_OK):
            self.kpageflags = os.open("/proc/kpageflags", os.O_RDONLY | os.O_CLOEXEC)

    def begin(self, number: int) -> None:
        """Called before a process reads its pages for pass `number`. A new pass forgets the frames of the last one."""
        if number != self.number:
            self.claimed.clear()
            self.number = number

    def close(self) -> None:
        if self.kpageflags >= 0:
            os.close(self.kpageflags)
            self.kpageflags = -1


class InProcess(Piece):
    """Pages of a process. Those that it unmaps before they are read are left out."""

    def __init__(self, runs: list[Run], pid: int, mem: int, by_file: bool) -> None:
        self.runs, self.pid, self.mem, self.by_file = runs, pid, mem, by_file

    def read(self, buffer: memoryview, sink: Sink) -> None:
        read_runs(self.pid, self.mem, self.runs, sink, buffer, by_file=self.by_file)


class KernelThread(SourceError):
    """A kernel thread, which has no memory of its own."""


class LiveSource(Source):
    kind = "process"
    live = True

    def __init__(self, pid: int, host: Host, *, advised: bool = False) -> None:
        super().__init__(f"pid {pid}")
        self.pid = pid
        self.host = host
        self.advised = advised
        self.parent = 0
        self.started = ""
        self.kernel_thread = False
        self.folder = -1
        self.runs: list[Run] = []
        self.blocks: list[Run] = []
        with self._inside():
            self.name = f"pid {pid} ({self._text('comm').rstrip()})"
            self.copied = sum(mapping.anonymous for mapping in self._mappings())

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """Open /proc/PID as self.folder, and check that it is still the same process: another one may have its number. SourceError."""
        try:
            self.folder = os.open(f"/proc/{self.pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                # The fields from the state on: the name before them may hold any character. See proc_pid_stat(5).
                stat = self._text("stat").rpartition(")")[2].split()
                if self.started not in ("", stat[19]):
                    raise self.gone()
                self.parent, self.started = int(stat[1]), stat[19]
                self.kernel_thread = bool(int(stat[6]) & PF_KTHREAD)
                yield
            finally:
                os.close(self.folder)
        except OSError as error:
            raise self.error(error) from None

    def error(self, error: OSError) -> SourceError:
        """What an error of /proc means for the user."""
        known = self.process is not None
        if error.errno in (errno.ENOENT, errno.ESRCH):
            return self.gone() if known else SourceGone(f"{self.name}: no such process")
        if error.errno in (errno.EACCES, errno.EPERM):
            return SourceDenied(f"{self.name}: no permission to read its memory")
        if error.errno == errno.ENOMEM and known:
            return SourceError(f"{self.name}: its memory has grown too large for this scan")
        return (SourceGone if known else SourceError)(f"{self.name}: {error.strerror or error}")

    def gone(self) -> SourceGone:
        return SourceGone(f"{self.name}: exited during the scan" if self.process is not None else f"{self.name}: has exited")

    def _open(self, file: str) -> int:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.folder)

    def _text(self, file: str) -> str:
        with os.fdopen(self._open(file), errors="replace") as stream:
            return stream.read()

    def _mappings(self) -> Iterator[Mapping]:
        """The mappings that KSM may look at."""
        text = self._text("smaps")
        if not text:
            # A zombie has no memory any more.
            raise KernelThread(f"{self.name}: a kernel thread has no memory of its own") if self.kernel_thread else self.gone()
        for start, end, permissions, anonymous, flags in MAPPING.findall(text):
            names = set(flags.split())
            if anonymous == "0" or permissions[3] != "p" or names & REFUSED or (self.advised and MERGEABLE not in names):
                continue
            first, last = max(int(start, 16), LOWEST), min(int(end, 16), HIGHEST)
            if first < last:
                yield Mapping(first, last, int(anonymous) << 10, MERGEABLE in names)

    def attach(self, machine: Machine) -> None:
        self.spawn(machine)
        self.refresh(0)

    def refresh(self, number: int) -> None:
        self.host.begin(number)
        with self._inside():
            self._follow()

    def _follow(self) -> None:
        """Make the machine's process equal to the real one."""
        process = self.process
        assert process is not None
        alone, common = self._present()
        runs = sorted(alone + common)
        self._forget(without(self.runs, runs))
        self._map(blocks_of(runs))
        store = bring(process)

        def work(piece: Piece, buffer: memoryview) -> list[Run]:
            read: list[Run] = []

            def sink(some: list[Run], view: memoryview) -> None:
                store(some, view)
                read.extend(some)

            piece.read(buffer, sink)
            return read

        with self._memory() as mem:
            parts = in_order(self._parts(alone, common, mem), work, self.threads)
            self.runs = joined(sorted(run for part in parts for run in part))
        # Pages that vanished between reading pagemap and reading them
        self._forget(without(runs, self.runs))

    @contextmanager
    def _memory(self) -> Iterator[int]:
        mem = self._open("mem")
        try:
            yield mem
        finally:
            os.close(mem)

    def _parts(self, alone: list[Run], common: list[Run], mem: int) -> Iterator[Piece]:
        for runs, by_file in ((alone, False), (common, True)):
            for part in parts_of(runs, PIECE):
                yield InProcess(part, self.pid, mem, by_file)

    def pieces(self) -> Iterator[Piece]:
        self.host.begin(self.host.number)
        with self._inside():
            alone, common = self._present()
            with self._memory() as mem:
                yield from self._parts(alone, common, mem)

    def _present(self) -> tuple[list[Run], list[Run]]:
        """The pages that count for this process: those that it alone maps, and those that several processes may map."""
        mappings = list(self._mappings())
        pagemap = self._open("pagemap")
        try:
            found = [
                own_runs(pagemap, self.host.kpageflags, anonymous_runs(pagemap, self.host.kpageflags, areas), self.host.claimed)
                for areas in (
                    [(mapping.start, mapping.end) for mapping in mappings if not mapping.mergeable],
                    [(mapping.start, mapping.end) for mapping in mappings if mapping.mergeable],
                )
            ]
        finally:
            os.close(pagemap)
        (alone, common, shared, hidden), (merged_alone, merged_common, *others) = found
        self.shared, self.hidden = shared + others[0], hidden + others[1]
        # A page that KSM has merged may have one mapping left. It is still read from the file: see read_runs().
        return alone, common + merged_alone + merged_common

    def _forget(self, runs: list[Run]) -> None:
        assert self.process is not None
        for start, end in runs:
            self.process.madvise(start, end - start, MADV_DONTNEED)

    def _map(self, blocks: list[Run]) -> None:
        """Map these blocks, and no others."""
        assert self.process is not None
        for start, end in without(self.blocks, blocks):
            self.process.munmap(start, end - start)
        for start, end in without(blocks, self.blocks):
            self.process.mmap(
                end - start, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, addr=start
            )
        self.blocks = blocks

    def ranges(self) -> list[Run]:
        return [(start, end - start) for start, end in self.blocks]


def blocks_of(runs: list[Run]) -> list[Run]:
    """The blocks in which the runs lie, neighbours joined."""
    blocks: list[Run] = []
    for start, end in runs:
        first = max(start // BLOCK * BLOCK, LOWEST)
        last = min(-(-end // BLOCK) * BLOCK, HIGHEST)
        if blocks and first <= blocks[-1][1]:
            blocks[-1] = (blocks[-1][0], max(last, blocks[-1][1]))
        else:
            blocks.append((first, last))
    return blocks


def parts_of(runs: list[Run], size: int) -> Iterator[list[Run]]:
    """The runs in lists of `size` bytes at most; a run may be cut."""
    part: list[Run] = []
    left = size
    for start, end in runs:
        while start < end:
            cut = min(end, start + left)
            part.append((start, cut))
            left -= cut - start
            start = cut
            if not left:
                yield part
                part, left = [], size
    if part:
        yield part


def joined(runs: list[Run]) -> list[Run]:
    """Sorted runs, neighbours made one."""
    result: list[Run] = []
    for start, end in runs:
        if result and result[-1][1] == start:
            start = result.pop()[0]
        result.append((start, end))
    return result


def without(runs: list[Run], others: list[Run]) -> list[Run]:
    """The parts of the runs that none of the others covers; all are sorted."""
    result: list[Run] = []
    place = 0
    for start, end in runs:
        while place < len(others) and others[place][1] <= start:
            place += 1
        other = place
        while other < len(others) and others[other][0] < end:
            if start < others[other][0]:
                result.append((start, others[other][0]))
            start = max(start, others[other][1])
            other += 1
        if start < end:
            result.append((start, end))
    return result


def open_process(pid: int, host: Host, *, advised: bool = False) -> LiveSource:
    """The source of one process. SourceError says why there is none."""
    if pid == os.getpid():
        raise SourceError(f"pid {pid}: that is this ksm")
    return LiveSource(pid, host, advised=advised)


def open_all(host: Host, *, advised: bool = False) -> tuple[list[Source], list[str]]:
    """All processes that may be read, except this one; and remarks on those that are left out."""
    sources: dict[int, LiveSource] = {}
    remarks: list[str] = []
    denied = same = 0
    for pid in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        if pid == os.getpid():
            continue
        try:
            source = LiveSource(pid, host, advised=advised)
        except SourceDenied:
            denied += 1
        except (SourceGone, KernelThread):
            pass
        except SourceError as error:
            remarks.append(f"skipped {error}")
        else:
            if source.parent in sources and same_memory(pid, source.parent):
                same += 1
            else:
                sources[pid] = source
    if denied:
        remarks.append(f"skipped, for lack of permission to read their memory: {denied:,} of the processes")
    if same:
        remarks.append(f"skipped, because they run in their parent's memory: {same:,} of the processes")
    return [*sources.values()], remarks

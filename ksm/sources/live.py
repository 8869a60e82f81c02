# SPDX-License-Identifier: GPL-2.0-only
"""A running process: the pages of its private memory that are anonymous and present, read anew for every pass.

The machine's process has the pages at the same addresses, in blocks of 2 MiB. A block is mapped while the real process has a page in it.
(With mappings as large as the real ones, KSM would walk through all the addresses that Go, Java or a sanitizer reserve.) Processes that
share pages since a fork share them in the machine: see families.py.
"""

from __future__ import annotations

import errno
import os
import re
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

from ksm.constants import MADV_DONTNEED, MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_PRIVATE, PROT_READ, PROT_WRITE
from ksm.host.memory import has_mthp, read_text
from ksm.machine import Machine
from ksm.process import Process
from ksm.sources.base import HIGHEST, LOWEST, Source, SourceDenied, SourceError, SourceGone
from ksm.sources.frames import Frames, read_frames, shared_runs
from ksm.sources.huge import huge_blocks
from ksm.sources.pagemap import anonymous_runs, own_runs, read_runs, same_memory
from ksm.sources.pieces import PIECE, Piece, Run, Sink
from ksm.sources.stream import BLOCK, bring
from ksm.sources.work import in_order

# What vma_ksm_compatible() of mm/ksm.c refuses: shared, may be shared, IO, PFN map, do not expand, mixed map, hugetlb, droppable
REFUSED = frozenset({"sh", "ms", "io", "pf", "de", "mm", "ht", "dp"})
MERGEABLE = "mg"
LOCKED = "lo"
PF_KTHREAD = 0x00200000  # include/linux/sched.h
STRETCH = 16 << 20  # bytes of pages that are asked for before they are read


class Mapping(NamedTuple):
    """A mapping of the process: its addresses, bytes of anonymous memory, whether KSM may have merged some of that, whether it is locked,
    and whether it has huge pages and pages that others map, too.
    """

    start: int
    end: int
    anonymous: int
    mergeable: bool
    locked: bool
    shared: bool


class Host:
    """What the processes of this computer have in common: the frames that pieces() has given already, in this pass; whether any has large
    folios of other sizes than 2 MiB.
    """

    def __init__(self) -> None:
        self.claimed: set[int] = set()
        self.number = 0
        self.mthp = has_mthp()
        self.kpageflags = self.kpagecount = -1
        if os.access("/proc/kpageflags", os.R_OK):
            self.kpageflags = os.open("/proc/kpageflags", os.O_RDONLY | os.O_CLOEXEC)
            self.kpagecount = os.open("/proc/kpagecount", os.O_RDONLY | os.O_CLOEXEC)

    def begin(self, number: int) -> None:
        """Called before a process reads its pages for pass `number`. A new pass forgets the frames of the last one."""
        if number != self.number:
            self.claimed.clear()
            self.number = number

    def close(self) -> None:
        if self.kpageflags >= 0:
            os.close(self.kpageflags)
            os.close(self.kpagecount)
            self.kpageflags = self.kpagecount = -1


class Memory:
    """/proc/PID/mem. It is open until the last piece is forgotten, which may be read after the process was looked through."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


class InProcess(Piece):
    """Pages of a process. Those that it unmaps before they are read are left out. See read_runs() and Process.update()."""

    def __init__(self, runs: list[Run], pid: int, mem: Memory, *, by_file: bool, always: bool = False) -> None:
        self.runs, self.pid, self.mem, self.by_file, self.always = runs, pid, mem, by_file, always

    def read(self, buffer: memoryview, sink: Sink) -> None:
        read_runs(self.pid, self.mem.fd, self.runs, sink, buffer, by_file=self.by_file)


class KernelThread(SourceError):
    """A kernel thread, which has no memory of its own."""


class LiveSource(Source):
    kind = "process"
    live = True
    zeros_are_real = True

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
        self.mappings: list[Mapping] = []
        self.frames = Frames()  # that it shares
        self.maps = ""  # /proc/PID/maps, from which self.mappings are
        with self._inside():
            guest = guest_name(self._text("cmdline"))
            self.name = f"pid {pid} ({self._text('comm').rstrip()}{f', {guest}' if guest else ''})"
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

    @property
    def kpagecount(self) -> int:
        """/proc/kpagecount, if it is needed: counting takes longer than all else that is asked of a page."""
        return self.host.kpagecount if any(mapping.shared for mapping in self.mappings) else -1

    def _mappings(self) -> list[Mapping]:
        """The mappings that KSM may look at.

        For smaps the kernel looks at each page, for maps it does not. So smaps is read when maps has changed, or where the flag "mg" may
        have changed and matters.
        """
        maps = self._text("maps")
        if not maps:
            # A zombie has no memory any more.
            raise KernelThread(f"{self.name}: a kernel thread has no memory of its own") if self.kernel_thread else self.gone()
        if maps != self.maps or self.advised or ksmd_runs():
            self.mappings = [mapping for mapping in mappings_of(self._text("smaps")) if mapping.mergeable or not self.advised]
            self.maps = maps
        return self.mappings

    def attach(self, machine: Machine) -> None:
        if self.process is None:  # one of a family has it already
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
        runs = self._present()
        self._forget(without(self.runs, runs))
        blocks = blocks_of(runs)
        new = without(blocks, self.blocks)
        self._map(blocks)
        fault_huge(process, self.huge(new), runs)
        held: list[Run] = []
        read = self._take(process, self._parts(runs, held))
        self.runs = joined(sorted(read + held))
        # Pages that vanished before they were read, and what is not anonymous
        self._forget(without(runs, self.runs))

    def _take(self, process: Process, pieces: Iterator[InProcess], check: Callable[[list[Run]], None] | None = None) -> list[Run]:
        """Read pieces into a process of the machine: what was there. `check` is told what was read, before anything can change."""
        store = bring(process, same_checksums=self.same_checksums)
        store_always = bring(process, same_checksums=self.same_checksums, always=True)

        def work(piece: InProcess, buffer: memoryview) -> list[Run]:
            read: list[Run] = []

            def sink(some: list[Run], view: memoryview) -> None:
                if check is not None:
                    check(some)
                (store_always if piece.always else store)(some, view)
                read.extend(some)

            piece.read(buffer, sink)
            return read

        return [run for part in in_order(pieces, work, self.threads) for run in part]

    def _parts(self, runs: list[Run], held: list[Run]) -> Iterator[InProcess]:
        """Pieces of the pages that are to be read. Those that the process shares in the machine already are added to `held`.

        Threads read one stretch while the next one is asked for.
        """
        self.shared = self.hidden = 0
        mem = Memory(self._open("mem"))
        pagemap = self._open("pagemap")
        try:
            for stretch in parts_of(runs, STRETCH):
                alone, common, forced, shared, hidden = shared_runs(
                    pagemap, self.host.kpageflags, stretch, self.frames, kpagecount=self.kpagecount
                )
                held += shared
                self.hidden += hidden
                yield from self._stretch(mem, alone, common)
                for part in parts_of(forced, PIECE):
                    yield InProcess(part, self.pid, mem, by_file=True, always=True)
        finally:
            os.close(pagemap)

    def _stretch(self, mem: Memory, alone: list[Run], common: list[Run]) -> Iterator[InProcess]:
        # A page that KSM has merged may have one mapping left. It is still read from the file: see read_runs(). So is a part of a huge page
        # that others may map, where frames cannot be seen: see read_counted().
        blind = self.host.kpagecount < 0
        doubtful = joined([(mapping.start, mapping.end) for mapping in self.mappings if mapping.mergeable or (blind and mapping.shared)])
        if doubtful:
            sure = without(alone, doubtful)
            common = sorted(common + without(alone, sure))
            alone = sure
        for part in parts_of(alone, PIECE):
            yield InProcess(part, self.pid, mem, by_file=False)
        for part in parts_of(common, PIECE):
            yield InProcess(part, self.pid, mem, by_file=True)

    def pieces(self) -> Iterator[Piece]:
        """The pages that no other process has given in this pass."""
        self.host.begin(self.host.number)
        self.shared = self.hidden = 0
        with self._inside():
            mem = Memory(self._open("mem"))
            pagemap = self._open("pagemap")
            try:
                for stretch in parts_of(self._present(), STRETCH):
                    alone, common, shared, hidden = own_runs(
                        pagemap, self.host.kpageflags, stretch, self.host.claimed, kpagecount=self.kpagecount
                    )
                    self.shared += shared
                    self.hidden += hidden
                    yield from self._stretch(mem, alone, common)
            finally:
                os.close(pagemap)

    def huge(self, blocks: list[Run]) -> list[Run]:
        """The blocks that have a huge page, or what is left of one. OSError.

        Where memory is locked, a split leaves parts of zeros as they are: for KSM, the huge page is no more than its small ones.
        """
        if not blocks:
            return []
        locked = blocks_of([(mapping.start, mapping.end) for mapping in self.mappings if mapping.locked])
        pagemap = self._open("pagemap")
        try:
            huge, others = huge_blocks(pagemap, self.host.kpageflags, without(blocks, locked), others=self.host.mthp)
        finally:
            os.close(pagemap)
        self.mthp += others
        return huge

    # What a family does with its members

    def look(self, old: Frames | None = None) -> Frames:
        """The frames that it has in common with others, and those of the pages that `old` has as shared. SourceError."""
        with self._inside():
            runs = self._present()
            pagemap = self._open("pagemap")
            try:
                return read_frames(pagemap, runs, old, kpagecount=self.kpagecount)
            finally:
                os.close(pagemap)

    def lend_huge(self, process: Process, blocks: list[Run], runs: list[Run]) -> list[Run]:
        """Fault the huge pages that it has into a process of the machine, which has nothing yet in these blocks: which they are. The parts
        that are in no run are left out. SourceError.
        """
        with self._inside():
            huge = self.huge(blocks)
            fault_huge(process, huge, runs)
        return huge

    def lend(self, process: Process, frames: Frames, runs: list[Run]) -> list[Run]:
        """Write these pages into a process of the machine: the runs of those that had other frames than in the table when they were read,
        or were gone. SourceError.
        """
        changed: list[Run] = []
        with self._inside():
            mem = Memory(self._open("mem"))
            pagemap = self._open("pagemap")
            try:
                pieces = (InProcess(part, self.pid, mem, by_file=True, always=True) for part in parts_of(runs, PIECE))
                read = self._take(process, pieces, lambda some: changed.extend(frames.changed(pagemap, some)))
            finally:
                os.close(pagemap)
        return changed + without(runs, joined(sorted(read)))

    def repeat(self, start: int, words: array[int]) -> int:
        return self.frames.repeat(start, words)

    def _present(self) -> list[Run]:
        """The anonymous pages that may be there, those of other processes included.

        A mapping that is half full is taken whole: own_runs() looks at each page anyway, and to ask twice would take as long as hashing.
        """
        full: list[Run] = []
        others: list[Run] = []
        for mapping in self._mappings():
            whole = self.host.kpageflags >= 0 and 2 * mapping.anonymous >= mapping.end - mapping.start
            (full if whole else others).append((mapping.start, mapping.end))
        pagemap = self._open("pagemap")
        try:
            return joined(sorted(full + anonymous_runs(pagemap, self.host.kpageflags, others)))
        finally:
            os.close(pagemap)

    def _forget(self, runs: list[Run]) -> None:
        assert self.process is not None
        for start, end in runs:
            self.process.madvise(start, end - start, MADV_DONTNEED)

    def _map(self, blocks: list[Run]) -> None:
        """Map these blocks, and no others."""
        assert self.process is not None
        map_blocks(self.process, self.blocks, blocks)
        self.blocks = blocks

    def ranges(self) -> list[Run]:
        return [(start, end - start) for start, end in self.blocks]


def guest_name(cmdline: str) -> str:
    """The name of QEMU's guest, from its /proc/PID/cmdline (-name NAME, -name guest=NAME,...); "" if it is no QEMU, or has none."""
    program, *arguments = cmdline.split("\0")
    if not re.search("qemu|kvm", os.path.basename(program)):
        return ""
    name = ""
    for option, value in pairwise(arguments):
        if option in ("-name", "--name"):
            # A comma that belongs to a value is written twice.
            for number, part in enumerate(re.split("(?<!,),(?!,)", value)):
                key, equals, text = part.partition("=")
                if key == "guest" or (number == 0 and not equals):
                    name = (text if equals else key).replace(",,", ",")
    return name


def mappings_of(smaps: str) -> Iterator[Mapping]:
    """The mappings of /proc/PID/smaps that KSM may look at."""
    first, *others = smaps.split("\nVmFlags:")
    for other in others:
        # What comes before the flags belongs to them, what comes after their line to the next mapping.
        mapping, (flags, _, first) = first, other.partition("\n")
        names = set(flags.split())
        addresses, permissions = mapping.split(None, 2)[:2]
        if permissions[3] != "p" or names & REFUSED:
            continue
        start, _, end = addresses.partition("-")
        begin, last = max(int(start, 16), LOWEST), min(int(end, 16), HIGHEST)
        if begin < last:
            shared = bool(kib(mapping, "AnonHugePages") and kib(mapping, "Shared_Dirty") + kib(mapping, "Shared_Clean"))
            yield Mapping(begin, last, kib(mapping, "Anonymous") << 10, MERGEABLE in names, LOCKED in names, shared)


def kib(mapping: str, name: str) -> int:
    """A figure of a mapping in smaps; 0 if the kernel does not have it."""
    place = mapping.find(f"\n{name}:")
    return int(mapping[place:].split(None, 2)[1]) if place >= 0 else 0


def fault_huge(process: Process, huge: list[Run], runs: list[Run]) -> None:
    """Fault huge pages into these blocks, where the process has nothing yet, and unmap the parts that are in no run. OSError.

    No other thread may use the machine meanwhile: its faults would get huge pages, too.
    """
    machine = process.machine
    mode = machine.transparent_hugepage
    try:
        machine.transparent_hugepage = "always"
        for start, end in huge:
            for block in range(start, end, BLOCK):
                process.touch(block)
    finally:
        machine.transparent_hugepage = mode
    for start, end in without(huge, runs):
        process.madvise(start, end - start, MADV_DONTNEED)


def map_blocks(process: Process, old: list[Run], new: list[Run]) -> None:
    """Map the new blocks in place of the old ones. OSError."""
    for start, end in without(old, new):
        process.munmap(start, end - start)
    for start, end in without(new, old):
        process.mmap(end - start, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, addr=start)


def ksmd_runs() -> bool:
    """Whether the running kernel's KSM may merge pages now."""
    try:
        return read_text("/sys/kernel/mm/ksm/run").strip() == "1"
    except OSError:
        return False


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

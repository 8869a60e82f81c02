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
from contextlib import contextmanager, suppress
from itertools import pairwise

from ksm.constants import MADV_DONTNEED, PAGE_SIZE
from ksm.fs.proc.task_mmu import PAGE_KSM, PAGE_KSM_ZERO
from ksm.host.ksm import ksmd_runs
from ksm.host.memory import has_mthp
from ksm.machine import Machine
from ksm.process import Process
from ksm.sources.base import CHUNK, Source, SourceDenied, SourceError, SourceGone
from ksm.sources.blocks import blocks_of, fault_huge, map_blocks
from ksm.sources.frames import Frames, read_frames, shared_runs
from ksm.sources.held import Held
from ksm.sources.huge import huge_blocks
from ksm.sources.mappings import Mapping, Which, by_kind, ksm_stat_of, mappings_of, parted
from ksm.sources.merged import MergedFrames
from ksm.sources.notebook import Notebook, NotedHeld
from ksm.sources.pagemap import anonymous_runs, learn_ksm_flag, own_runs, read_runs, sees_frames
from ksm.sources.pieces import PIECE, Piece, Run, Sink
from ksm.sources.pins import pages_in_pipes, registered_buffers
from ksm.sources.plain import Plain
from ksm.sources.room import Room
from ksm.sources.runs import joined, parts_of, without
from ksm.sources.standing import bytes_in
from ksm.sources.stream import bring
from ksm.sources.work import in_order

PF_KTHREAD = 0x00200000  # include/linux/sched.h
STRETCH = 16 << 20  # bytes of pages that are asked for before they are read


class Host:
    """What the processes of this computer have in common: the frames that pieces() has given already, in this pass; whether any has large
    folios of other sizes than 2 MiB. `gentle`: hold nobody up, even where that hides who has asked for KSM.
    """

    def __init__(self, *, gentle: bool = False) -> None:
        self.gentle = gentle
        self.claimed: set[object] = set()
        self.room = Room()
        self.number = 0
        self.mthp = has_mthp()
        self.whole = False  # whether the scan has all processes of this computer
        self.kpageflags = self.kpagecount = -1
        frames = sees_frames()  # in a container, root may open these files, and does not know which frames to look up
        if frames and os.access("/proc/kpageflags", os.R_OK):
            self.kpageflags = os.open("/proc/kpageflags", os.O_RDONLY | os.O_CLOEXEC)
            learn_ksm_flag(self.kpageflags)
        if frames and os.access("/proc/kpagecount", os.R_OK):
            self.kpagecount = os.open("/proc/kpagecount", os.O_RDONLY | os.O_CLOEXEC)

    def begin(self, number: int) -> None:
        """Called before a process reads its pages for pass `number`. A new pass forgets the frames of the last one."""
        if number != self.number:
            self.claimed.clear()
            self.room.begin()
            self.number = number

    def close(self) -> None:
        for fd in (self.kpageflags, self.kpagecount):
            if fd >= 0:
                os.close(fd)
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

    def __init__(self, pid: int, host: Host, *, which: Which = "prctl") -> None:
        super().__init__(f"pid {pid}")
        self.pid = pid
        self.host = host
        self.which = which
        self.parent = 0
        self.started = ""
        self.kernel_thread = False
        self.folder = -1
        self.runs: list[Run] = []
        self.blocks: list[Run] = []
        self.mappings: list[Mapping] = []
        self.frames = Frames()  # that it shares
        self.held: Held | NotedHeld | None = None  # of the machine, what is pinned of the process
        self.pinned: list[Run] = []
        self.elsewhere: list[Run] = []  # pages whose frames others may have, too, and that are not shared in the machine
        self.others_have: list[Run] = []  # of these, pages whose frames others have
        self.exact = False  # the machine keeps bytes
        self.most = (0, 0)  # that _grow() has seen
        self.maps = ""  # /proc/PID/maps, from which self.mappings are
        self.plain = Plain()
        self.full: list[Run] = []  # mappings that are read whole, and the others: see _present()
        self.others: list[Run] = []
        self.mergeable: list[Run] = []  # mappings in which KSM may have merged pages
        self.shared_huge: list[Run] = []  # others that have huge pages, and pages that others map, too
        with self.inside():
            guest = guest_name(self._text("cmdline"))
            self.name = f"pid {pid} ({self._text('comm').rstrip()}{f', {guest}' if guest else ''})"
            self.copied = sum(mapping.anonymous for mapping in self._mappings())
            self.most = self.copied, self._resident()

    @contextmanager
    def inside(self) -> Iterator[None]:
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
        """/proc/kpagecount, if it is needed: counting takes longer than all else that is asked of a page. Only smaps tells who needs it."""
        return self.host.kpagecount if self.plain.found is not None or any(mapping.shared for mapping in self.mappings) else -1

    def _mappings(self) -> list[Mapping]:
        """The mappings that KSM may look at.

        For smaps the kernel looks at each page, for maps it does not. So smaps is read when maps has changed, or where the flag "mg" may
        have changed and matters.
        """
        maps = self._text("maps")
        if not maps:
            # A zombie has no memory any more.
            raise KernelThread(f"{self.name}: a kernel thread has no memory of its own") if self.kernel_thread else self.gone()
        if maps != self.maps or self.plain.found is not None or self.which != "prctl" or self.standing.merge_any or ksmd_runs():
            stat = self._ksm_stat()
            self.standing.take_ksm_stat(stat)
            if not self._plain(maps, stat):
                self._look_at_mappings()
            self.maps = maps
        return self.mappings

    def _ksm_stat(self) -> dict[str, int]:
        """/proc/PID/ksm_stat, which is there since Linux 6.1."""
        try:
            return ksm_stat_of(self._text("ksm_stat"))
        except (FileNotFoundError, PermissionError):
            return {}

    def _look_at_mappings(self) -> None:
        taken, left = parted(mappings_of(self._text("smaps")), self.which, self.standing.merge_any or False)
        self._take_mappings(taken)
        self.standing.left = by_kind(left)
        self.plain.forget()

    def _plain(self, maps: str, stat: dict[str, int]) -> bool:
        """Take the mappings from maps and pagemap: whether that was possible. It is for a process that has none with the flag "mg"."""
        mergeable = stat.get("ksm_mergeable", 1)
        if self.host.gentle and "ksm_mergeable" not in stat:  # before Linux 6.14
            mergeable = stat.get("ksm_rmap_items", 1)
        if mergeable or self.standing.merge_any or self.which != "prctl" or self.host.kpageflags < 0:
            return False
        if bytes_in(self._text("status"), "\nVmLck:"):
            return False
        before = self.plain.found
        pagemap = self._open("pagemap")
        try:
            found = self.plain.look(maps, pagemap, self.host.kpageflags)
        finally:
            os.close(pagemap)
        if found is None:
            return False
        if found is not before:
            # Whether there are huge pages that others map, only smaps would tell.
            self._take_mappings([Mapping(start, end, anonymous, False, shared=True) for start, end, anonymous in found])
            self.standing.left.clear()
        return True

    def _take_mappings(self, mappings: list[Mapping]) -> None:
        self.mappings, self.full, self.others = mappings, [], []
        for mapping in mappings:
            whole = self.host.kpageflags >= 0 and 2 * mapping.anonymous >= mapping.end - mapping.start
            (self.full if whole else self.others).append((mapping.start, mapping.end))
        self.full = joined(self.full)
        self.mergeable = joined([(mapping.start, mapping.end) for mapping in mappings if mapping.mergeable])
        self.shared_huge = joined([(mapping.start, mapping.end) for mapping in mappings if mapping.shared and not mapping.mergeable])

    def look_back(self, merged: MergedFrames) -> None:
        super().look_back(merged)
        with suppress(SourceError), self.inside():  # of one that has exited, what was known stays
            if stat := self._ksm_stat():
                self.standing.take_ksm_stat(stat)
            self.standing.take_pins(self._text("status"), self.maps)
            self.standing.pipes = pages_in_pipes(self.pid, self.folder)
            if self.hidden:
                self._look_at_mappings()
                by_ksm = sum(mapping.merged for mapping in self.mappings) or stat.get("ksm_merging_pages", 0) * PAGE_SIZE
                self.standing.take_hidden(sum(mapping.common for mapping in self.mappings), by_ksm)
            pagemap = self._open("pagemap")
            try:
                self.standing.repeated, self.others_have = merged.add(pagemap, self.host.kpageflags, self.elsewhere)
            finally:
                os.close(pagemap)

    def count_outside(self) -> None:
        words = self._words(self.others_have)
        self.standing.outside = sum(word & (PAGE_KSM | PAGE_KSM_ZERO) != 0 for some in words for word in some)

    def attach(self, machine: Machine) -> None:
        self.exact = machine.pages == "bytes"
        self.host.room.new += self.copied
        if self.process is None:  # one of a family has it already
            self.spawn(machine)
        self.refresh(0)

    def refresh(self, number: int) -> None:
        self.host.begin(number)
        with self.inside():
            self._follow()

    def _follow(self) -> None:
        """Make the machine's process equal to the real one."""
        process = self.process
        assert process is not None
        runs = self._present()
        self._grow(runs)
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
        self._hold(process)

    def _grow(self, runs: list[Run]) -> None:
        """See that there is memory for what the process has now. Runs may have gaps, and RssAnon what does not count. SourceError."""
        room = self.host.room
        size = sum(end - start for start, end in runs), self._resident()
        grown = min(now - most for now, most in zip(size, self.most, strict=True))
        if grown > 0:
            room.take(self.name, grown, exact=self.exact)
            room.new += grown
        self.most = max(size[0], self.most[0]), max(size[1], self.most[1])

    def _resident(self) -> int:
        return bytes_in(self._text("status"), "\nRssAnon:")

    def _hold(self, process: Process) -> None:
        """Hold in the machine what io_uring holds of the real process. A pin that writes takes a page out of what shares it."""
        pinned = bytes_in(self._text("status"), "\nVmPin:")
        buffers = registered_buffers(self.folder) if pinned else []
        if sum(end - start for start, end in buffers) > pinned:
            buffers = []  # they are another process's, which has given away the ring
        runs = without(self.runs, without(self.runs, buffers))
        if self.held is None:
            self.held = held_in(process.machine)
        self.held.release()
        for start, end in without(runs, self.pinned):
            process.touch(start, end - start)
        for words in self._words(runs):
            self.held.add(words)
        self.pinned = runs
        self.standing.held = len(self.held)

    def _words(self, runs: list[Run]) -> Iterator[array[int]]:
        """The machine's page tables of these pages."""
        assert self.process is not None
        for part in parts_of(runs, CHUNK):
            for start, end in part:
                yield self.process.page_table(start, end - start)

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
        self.elsewhere = []
        mem = Memory(self._open("mem"))
        pagemap = self._open("pagemap")
        try:
            for stretch in parts_of(runs, STRETCH):
                alone, common, forced, shared, hidden = shared_runs(
                    pagemap, self.host.kpageflags, stretch, self.frames, kpagecount=self.kpagecount
                )
                held += shared
                self.hidden += hidden
                self.elsewhere += sorted(common + forced)
                yield from self._stretch(mem, alone, common)
                for part in parts_of(forced, PIECE):
                    yield InProcess(part, self.pid, mem, by_file=True, always=True)
        finally:
            os.close(pagemap)

    def _stretch(self, mem: Memory, alone: list[Run], common: list[Run]) -> Iterator[InProcess]:
        # A page that KSM has merged may have one mapping left. It is still read from the file: see read_runs(). So is a part of a huge page
        # that others may map, where frames cannot be seen: see read_counted().
        blind = self.host.kpagecount < 0
        doubtful = joined(sorted(self.mergeable + self.shared_huge)) if blind else self.mergeable
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
        with self.inside():
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

    def close(self) -> None:
        if self.held is not None and self.process is not None and self.process.alive:
            self.held.release()
        super().close()

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
        with self.inside():
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
        with self.inside():
            huge = self.huge(blocks)
            fault_huge(process, huge, runs)
        return huge

    def lend(self, process: Process, frames: Frames, runs: list[Run]) -> list[Run]:
        """Write these pages into a process of the machine: the runs of those that had other frames than in the table when they were read,
        or were gone. SourceError.
        """
        changed: list[Run] = []
        with self.inside():
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
        self._mappings()
        pagemap = self._open("pagemap")
        try:
            return joined(sorted(self.full + anonymous_runs(pagemap, self.host.kpageflags, self.others)))
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


def held_in(machine: Machine | Notebook) -> Held | NotedHeld:
    return machine.held() if isinstance(machine, Notebook) else Held(machine)


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

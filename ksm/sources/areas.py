# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the other side of fs/proc/task_mmu.c.
"""All mappings of a process, with those that KSM never looks at, and why it does not."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ksm.sources.base import HIGHEST, LOWEST
from ksm.sources.live import InProcess, LiveSource, Memory
from ksm.sources.mappings import MERGEABLE, REFUSED
from ksm.sources.pieces import PIECE, Run
from ksm.sources.runs import joined, parts_of, without
from ksm.sources.standing import bytes_in
from ksm.sources.work import in_order

# Files that are memory: of shm_open(), memfd_create(), shmget(), mmap(MAP_SHARED | MAP_ANONYMOUS), and of io_setup()
SHARED_MEMORY = ("/dev/shm/", "/memfd:", "/SYSV", "/dev/zero", "[anon_shmem", "/[aio]", "/run/shm/")

# Programs that run virtual machines
HYPERVISOR = re.compile(r"qemu|kvm|cloud-hyperviso|firecracker|crosvm|dragonball|VBoxHeadless")

PART = 1 << 18  # characters of smaps that are read at once

SPECIAL = frozenset({"io", "pf", "de", "mm"})


class Area(NamedTuple):
    """A mapping, as /proc/PID/smaps has it; figures in bytes.

    name        the file, "[stack]", or ""
    flags       the two letters of each flag
    rss, swap   what is there, and what is swapped out; pages of hugetlb are in neither of them
    hugetlb     what is there of those
    file        device and inode, (0, 0) where there is no file; `offset` is in it
    """

    start: int
    end: int
    name: str
    shared: bool
    flags: frozenset[str]
    rss: int
    swap: int
    hugetlb: int
    file: tuple[str, int]
    offset: int

    @property
    def refused(self) -> str:
        """Why vma_ksm_compatible() refuses it: "hugetlb", "shared memory", "shared file", "special", "droppable", or "" if it does not.

        Addresses that no machine can have count as special.
        """
        if MERGEABLE in self.flags:
            return ""
        if "ht" in self.flags:
            return "hugetlb"
        if self.shared or self.flags & {"sh", "ms"}:
            if self.flags & {"io", "pf"}:
                return "special"
            return "shared memory" if self.name.startswith(SHARED_MEMORY) or not self.name else "shared file"
        if self.flags & SPECIAL or self.start >= HIGHEST or self.end <= LOWEST:
            return "special"
        if "dp" in self.flags:
            return "droppable"
        return "special" if self.flags & REFUSED else ""


def areas_of(smaps: str) -> Iterator[Area]:
    """The mappings of /proc/PID/smaps."""
    first, *others = smaps.split("\nVmFlags:")
    for other in others:
        # What comes before the flags belongs to them, what comes after their line to the next mapping.
        area, (flags, _, first) = first, other.partition("\n")
        header, _, figures = area.partition("\n")
        addresses, permissions, offset, device, inode, *name = header.split(None, 5)
        start, _, end = addresses.partition("-")
        names = frozenset(flags.split())
        hugetlb = 0
        if "ht" in names:
            hugetlb = bytes_in(figures, "\nShared_Hugetlb:") + bytes_in(figures, "\nPrivate_Hugetlb:")
        yield Area(
            int(start, 16), int(end, 16), name[0] if name else "", permissions[3] == "s", names,
            bytes_in(figures, "\nRss:"), bytes_in(figures, "\nSwap:"), hugetlb, (device, int(inode)), int(offset, 16),
        )  # fmt: skip


# Of a process whose folder is open: LiveSource.inside()


def areas(source: LiveSource) -> Iterator[Area]:
    """All its mappings. SourceGone without any: it is a zombie, or has exited.

    smaps has a kilobyte for each mapping, of which there may be very many: it is read in parts.
    """
    any_read = False
    rest = ""
    with os.fdopen(source._open("smaps"), errors="replace") as stream:
        while part := stream.read(PART):
            any_read = True
            rest += part
            # The last line of a mapping are its flags.
            end = rest.find("\n", rest.rfind("\nVmFlags:") + 1) + 1 if "\nVmFlags:" in rest else 0
            yield from areas_of(rest[:end])
            rest = rest[end:]
    if not any_read:
        raise source.gone()


def is_hypervisor(source: LiveSource) -> bool:
    """Whether it runs virtual machines."""
    program = os.path.basename(source._text("cmdline").partition("\0")[0])
    return bool(HYPERVISOR.search(program or source._text("comm")))


@contextmanager
def pagemap_of(source: LiveSource) -> Iterator[int]:
    pagemap = source._open("pagemap")
    try:
        yield pagemap
    finally:
        os.close(pagemap)


def contents(source: LiveSource, runs: list[Run], make: Callable[[memoryview], bytes]) -> Iterator[tuple[list[Run], bytes]]:
    """What `make` makes of the pages of these runs, which may be shared memory, or of a file: some runs, and what was made of their pages.

    Pages that go meanwhile are left out. SourceError.
    """

    def work(piece: InProcess, buffer: memoryview) -> list[tuple[list[Run], bytes]]:
        made: list[tuple[list[Run], bytes]] = []
        piece.read(buffer, lambda some, view: made.append((list(some), make(view))))
        return made

    with source.inside():
        mem = Memory(source._open("mem"))
        pieces = (InProcess(part, source.pid, mem, by_file=True) for part in parts_of(runs, PIECE))
        for made in in_order(pieces, work, source.threads):
            yield from made


class Part(NamedTuple):
    """Pages of a file or of shared memory: places in it, in bytes; they are mapped at these plus `offset`, in a region, and have a code."""

    start: int
    end: int
    offset: int
    region: int
    code: int


class Unread:
    """Parts of files and of shared memory that were not read yet: what several processes map is one memory."""

    def __init__(self) -> None:
        self.read: dict[tuple[str, int], list[Run]] = {}

    def of(self, file: tuple[str, int], parts: list[Part]) -> Iterator[Part]:
        """What no earlier call has had of this file; what several of the parts have is in the first of them."""
        apart: list[Part] = []
        done = 0
        for part in sorted(parts):
            start = max(part.start, done)
            if start < part.end:
                apart.append(part._replace(start=start))
                done = part.end
        before = self.read.get(file, [])
        new = without([(part.start, part.end) for part in apart], before)
        self.read[file] = joined(sorted(before + new))
        place = 0
        for start, end in new:
            while apart[place].end <= start:
                place += 1
            yield apart[place]._replace(start=start, end=end)

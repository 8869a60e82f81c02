# SPDX-License-Identifier: GPL-2.0-only
"""The real processes of a workload on the kernel."""

from __future__ import annotations

import ctypes
import functools
import itertools
import mmap
import os
import re
import struct
from pathlib import Path
from typing import Any

from ksm.constants import MAP_FIXED_NOREPLACE, MREMAP_FIXED, MREMAP_MAYMOVE, PR_SET_MEMORY_MERGE
from ksm.oracle import breaking
from ksm.oracle.ptrace import PATH_AT, SYS_MMAP, SYS_MUNMAP, Tracee, Window, libc
from ksm.oracle.workload import ADVICE, PAGE, PLACES, Json, OracleError, Task, errno_name, expand, memory_of, page_bytes

SYS_MPROTECT, SYS_MREMAP, SYS_MADVISE, SYS_PRCTL, SYS_SET_MEMPOLICY, SYS_MOVE_PAGES = 10, 25, 28, 157, 238, 279
MADV_PAGEOUT, MADV_HWPOISON, MADV_SOFT_OFFLINE = 21, 100, 101  # which the port does not have
MPOL_BIND, MPOL_MF_MOVE, MPOL_MF_MOVE_ALL = 2, 2, 4
# Of a mapping in /proc/PID/smaps: kB in memory, anonymous, merged, in whole huge pages, swapped out.
SMAPS = ("Rss", "Anonymous", "KSM", "AnonHugePages", "Swap")
PM_PRESENT, PM_SWAP, PM_PFN = 1 << 63, 1 << 62, (1 << 55) - 1
KPF_KSM, KPF_ZERO_PAGE = 1 << 21, 1 << 24


def runs(contents: list[Any], count: int) -> list[tuple[int, bytes]]:
    """Runs of pages to be written at once: (number of the first page, data)."""
    pages = enumerate(itertools.islice(expand(contents), count))
    found = []
    for absent, group in itertools.groupby(pages, lambda page: page[1] is None):
        if not absent:
            numbered = list(group)
            found.append((numbered[0][0], b"".join(page_bytes(content) for _, content in numbered if content is not None)))
    return found


def move_pages(pid: int, addrs: list[int], nodes: list[int] | None, flags: int) -> list[int]:
    """The status of each page: its node, or -errno."""
    status = (ctypes.c_int * len(addrs))()
    wanted = (ctypes.c_int * len(addrs))(*nodes) if nodes is not None else None
    if libc.syscall(ctypes.c_long(SYS_MOVE_PAGES), pid, ctypes.c_ulong(len(addrs)), (ctypes.c_void_p * len(addrs))(*addrs), wanted, status,
                    flags) < 0:
        raise OracleError("move_pages() failed: " + os.strerror(ctypes.get_errno()))
    return list(status)


class RealTask(Task):
    """A real process, which is made to do each operation from outside."""

    def __init__(self, tracee: Tracee, parent: Task | None = None) -> None:
        super().__init__(parent)
        self.tracee = tracee

    @classmethod
    def start(cls, window: Window, on_node_0: bool) -> RealTask:
        tracee = Tracee(window)
        if on_node_0:
            tracee.syscall(SYS_SET_MEMPOLICY, MPOL_BIND, window.put(PATH_AT, struct.pack("<Q", 1)), 64)
        return cls(tracee)

    @property
    def pid(self) -> int:
        return self.tracee.pid

    def call(self, op: str, **args: Any) -> Json:
        try:
            getattr(self, "do_" + op)(**args)
        except OSError as error:
            return {"error": errno_name(error)}
        except OracleError as error:
            raise OracleError(f"{error}: {op} {args}") from None
        return {}

    def do_mmap(self, addr: int, pages: int, contents: list[Any], mergeable: bool) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
        self.tracee.syscall(SYS_MMAP, addr, pages * PAGE, mmap.PROT_READ | mmap.PROT_WRITE, flags, 0xFFFF_FFFF_FFFF_FFFF, 0)
        self.do_madvise(addr, pages, "nohugepage")
        self.do_write(addr, pages, contents)
        if mergeable:
            self.do_madvise(addr, pages, "mergeable")

    def do_write(self, addr: int, count: int, contents: list[Any]) -> None:
        for page, data in runs(contents, count):
            self.tracee.write(addr + page * PAGE, data)

    def do_touch(self, addr: int, count: int) -> None:
        self.tracee.run("touch", rdi=addr, rcx=count)

    def do_read(self, addr: int, count: int) -> None:
        self.tracee.run("read", rdi=addr, rcx=count)

    def do_poke(self, addr: int, count: int, contents: list[Any]) -> None:
        with open(f"/proc/{self.pid}/mem", "r+b", buffering=0) as file:
            for number, content in enumerate(itertools.islice(expand(contents), count)):
                if content is not None:
                    os.pwrite(file.fileno(), page_bytes(content), addr + number * PAGE)

    def do_peek(self, addr: int, count: int) -> None:
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as file:
            for page in range(addr, addr + count * PAGE, PAGE):
                os.pread(file.fileno(), 1, page)

    def do_madvise(self, addr: int, count: int, advice: str) -> None:
        self.tracee.syscall(SYS_MADVISE, addr, count * PAGE, ADVICE[advice])

    def do_pageout(self, addr: int, count: int) -> None:
        self.tracee.syscall(SYS_MADVISE, addr, count * PAGE, MADV_PAGEOUT)

    def do_mprotect(self, addr: int, count: int, prot: int) -> None:
        self.tracee.syscall(SYS_MPROTECT, addr, count * PAGE, prot)

    def do_munmap(self, addr: int, count: int) -> None:
        self.tracee.syscall(SYS_MUNMAP, addr, count * PAGE)

    def do_mremap(self, addr: int, old: int, new: int, to: int) -> None:
        self.tracee.syscall(SYS_MREMAP, addr, old * PAGE, new * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED if to != addr else 0, to)

    def do_prctl(self, merge: int, arg3: int) -> None:
        self.tracee.syscall(SYS_PRCTL, PR_SET_MEMORY_MERGE, merge, arg3, 0, 0)

    def do_migrate(self, addr: int, count: int, node: int) -> None:
        move_pages(self.pid, [addr + number * PAGE for number in range(count)], [node] * count, MPOL_MF_MOVE_ALL)

    def do_soft_offline(self, addr: int, count: int, by: str = "frame", node: int | None = None) -> None:
        for number, frame in enumerate(self.frames(addr, count, node)):
            if frame >= 0 and by == "frame":
                breaking.soft_offline(frame)
            elif frame >= 0:
                self.tracee.dangerous_syscall(SYS_MADVISE, addr + number * PAGE, PAGE, MADV_SOFT_OFFLINE)

    def do_hwpoison(self, addr: int, count: int, by: str = "frame", node: int | None = None) -> None:
        frame = self.frames(addr, 1, node)[0]
        if frame >= 0 and by == "frame":
            breaking.hwpoison(frame)
        elif frame >= 0:
            self.tracee.dangerous_syscall(SYS_MADVISE, addr, PAGE, MADV_HWPOISON)

    def fork(self, child: str) -> RealTask:
        return RealTask(self.tracee.fork(), self)

    def execute(self) -> None:
        self.tracee.execute()

    def exit(self) -> None:
        self.tracee.exit()

    def kill(self) -> None:
        self.tracee.kill()

    def stat(self) -> Json:
        proc = Path(f"/proc/{self.pid}")
        stat = dict(line.replace(":", "").split() for line in (proc / "ksm_stat").read_text().splitlines())
        stat["ksm_merging_pages_file"] = (proc / "ksm_merging_pages").read_text()
        counts: Json = {key: value if value in ("yes", "no") else int(value) for key, value in stat.items()}
        return counts | memory_in((proc / "smaps").read_text())

    def rss(self) -> int | None:
        return anonymous_memory(self.pid) if counts_exactly() else None

    def killed_at(self) -> int | None:
        return self.tracee.bus_error if self.tracee.bus_error is not None else self.tracee.pending_bus_error()

    def frames(self, addr: int, count: int, node: int | None = None) -> list[int]:
        """The frame of each page; -1 where there is none, or the zero page, or where it is on another node."""
        return [frame if kind != "0" and node in (None, on) else -1
                for (frame, kind), on in zip(self.pages(addr, count, kinds=True), self.nodes(addr, count), strict=True)]

    def nodes(self, addr: int, count: int) -> list[int]:
        return [max(-1, node) for node in move_pages(self.pid, [addr + number * PAGE for number in range(count)], None, MPOL_MF_MOVE)]

    def pages(self, addr: int, count: int, kinds: bool) -> list[tuple[int, str]]:
        with open(f"/proc/{self.pid}/pagemap", "rb", buffering=0) as file:
            data = os.pread(file.fileno(), count * 8, addr // PAGE * 8)
        entries = [entry for (entry,) in struct.iter_unpack("<Q", data)]
        frames = [entry & PM_PFN if entry & PM_PRESENT else -1 for entry in entries]
        if not kinds:
            return [(frame, "a") for frame in frames]
        with open("/proc/kpageflags", "rb", buffering=0) as file:
            return [(frame, "s" if entry & PM_SWAP else frame_kind(file.fileno(), frame))
                    for frame, entry in zip(frames, entries, strict=True)]


def memory_in(smaps: str) -> Json:
    """What /proc/PID/smaps says of the mappings of a workload. Before Linux 6.6 it has no line on KSM, and then no sizes are told."""
    names = [name for name in SMAPS if name != "KSM" or "\nKSM:" in smaps]
    found = re.findall(r"^([0-9a-f]+)-.*\n" + "".join(rf"(?:\w+:.*\n)*?{name}: +(\d+) kB\n" for name in names), smaps, re.M)
    told = [dict(zip(names, (int(kb) << 10 for kb in sizes), strict=True)) for start, *sizes in found if int(start, 16) in PLACES]
    memory = memory_of([[sizes.get(name, 0) for name in SMAPS] for sizes in told])
    if len(names) < len(SMAPS):
        del memory["smaps"]
    return memory


def anonymous_memory(pid: int) -> int:
    """Bytes, as the kernel counts them."""
    found = re.search(r"^RssAnon:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    return int(found[1]) << 10 if found else 0


@functools.cache
def counts_exactly() -> bool:
    """Whether the kernel adds the counts of all processors up when it is asked. Linux 6.1 does not, nor do early releases of 6.12: a page
    more shows only when a processor has counted some dozens.
    """
    with mmap.mmap(-1, 8 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        sizes = [anonymous_memory(os.getpid())]
        for page in range(8):
            memory[page * PAGE] = 1
            sizes.append(anonymous_memory(os.getpid()))
        return all(after - before >= PAGE for before, after in itertools.pairwise(sizes))


def kind_of_own_page(addr: int) -> str:
    """What the kernel says of a page of this process."""
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap, open("/proc/kpageflags", "rb", buffering=0) as kpageflags:
        (entry,) = struct.unpack("<Q", os.pread(pagemap.fileno(), 8, addr // PAGE * 8))
        return frame_kind(kpageflags.fileno(), entry & PM_PFN)


def frame_kind(kpageflags: int, frame: int) -> str:
    if frame < 0:
        return "-"
    flags = struct.unpack("<Q", os.pread(kpageflags, 8, frame * 8))[0]
    return "0" if flags & KPF_ZERO_PAGE else "k" if flags & KPF_KSM else "a"

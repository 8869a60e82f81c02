# SPDX-License-Identifier: GPL-2.0-only
"""Run a workload on the port: a machine of its own, whose clock moves only when the workload sleeps."""

from __future__ import annotations

import contextlib
import errno
from collections import Counter
from typing import TYPE_CHECKING, Any

import ksm
from ksm.oracle.check import check_workload
from ksm.oracle.workload import (
    ADVICE,
    DEFAULTS,
    PAGE,
    PLACES,
    Json,
    OracleError,
    Run,
    Side,
    Task,
    errno_name,
    expand,
    memory_of,
    page_bytes,
)
from ksm.record.recording import Recording

if TYPE_CHECKING:
    from ksm.machine import _Era as Era

TRACE_CAPACITY = 1 << 16


class PortTask(Task):
    """A process of the port's machine."""

    def __init__(self, process: ksm.Process, names: dict[int, str], told: dict[int, int], parent: Task | None = None) -> None:
        super().__init__(parent)
        self.process, self.names, self.told = process, names, told
        names[process.mm_id] = process.name

    def call(self, op: str, **args: Any) -> Json:
        try:
            getattr(self, "do_" + op)(**args)
        except OSError as error:
            if error.errno == errno.EFAULT and op in ("write", "touch", "read"):  # SIGSEGV
                raise OracleError(f"a workload process does not survive: {op} {args}") from error
            if op in ("poke", "peek") and error.errno == errno.EFAULT:
                return {"error": "EIO"}  # as /proc/PID/mem reports it
            return {"error": errno_name(error)}
        except MemoryError:
            raise
        except Exception as error:  # an error of the workload's author
            return {"error": repr(error)}
        return {}

    def do_mmap(self, addr: int, pages: int, contents: list[Any], mergeable: bool) -> None:
        flags = ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED_NOREPLACE
        self.process.mmap(pages * PAGE, ksm.PROT_READ | ksm.PROT_WRITE, flags, addr)
        self.do_madvise(addr, pages, "nohugepage")
        self.do_write(addr, pages, contents)
        if mergeable:
            self.do_madvise(addr, pages, "mergeable")

    def do_write(self, addr: int, count: int, contents: list[Any]) -> None:
        for number, content in zip(range(count), expand(contents), strict=False):
            if content is not None:
                self.process.write(addr + number * PAGE, page_bytes(content))

    def do_touch(self, addr: int, count: int) -> None:
        self.process.touch(addr, count * PAGE)

    def do_read(self, addr: int, count: int) -> None:
        self.process.touch(addr, count * PAGE, write=False)

    def do_madvise(self, addr: int, count: int, advice: str) -> None:
        self.process.madvise(addr, count * PAGE, ADVICE[advice])

    def do_poke(self, addr: int, count: int, contents: list[Any]) -> None:
        for number, content in zip(range(count), expand(contents), strict=False):
            if content is not None:
                self.process.write(addr + number * PAGE, page_bytes(content), force=True)

    def do_peek(self, addr: int, count: int) -> None:
        for page in range(addr, addr + count * PAGE, PAGE):
            self.process.read(page, 1, force=True)

    def do_migrate(self, addr: int, count: int, node: int) -> None:
        self.process.move_pages(addr, count * PAGE, node)

    def frames(self, addr: int, count: int, node: int | None = None) -> list[int]:
        """The frames of the pages that are there, or on this node, without the zero page."""
        return [word >> ksm.PAGE_FLAGS_SHIFT
                for word, on in zip(self.process.page_table(addr, count * PAGE), self.nodes(addr, count), strict=True)
                if is_own(word) and node in (None, on)]

    def do_soft_offline(self, addr: int, count: int, by: str = "frame", node: int | None = None) -> None:
        for frame in self.frames(addr, count, node):
            self.process.machine.soft_offline(frame)

    def do_hwpoison(self, addr: int, count: int, by: str = "frame", node: int | None = None) -> None:
        for frame in self.frames(addr, 1, node):
            for process, where in self.process.machine.memory_failure(frame):
                if process is not None:
                    self.told.setdefault(process.pid, where)

    def do_pageout(self, addr: int, count: int) -> None:
        """MADV_PAGEOUT: a page that another process maps stays."""
        mapped = Counter(word >> ksm.PAGE_FLAGS_SHIFT for process in self.process.machine.processes.values() for vma in process.maps()
                         for word in process.page_table(vma.start, vma.end - vma.start) if word & ksm.PAGE_PRESENT)
        for number, word in enumerate(self.process.page_table(addr, count * PAGE)):
            if word & ksm.PAGE_PRESENT and mapped[word >> ksm.PAGE_FLAGS_SHIFT] == 1:
                self.process.swap_out(addr + number * PAGE, PAGE)

    def do_mprotect(self, addr: int, count: int, prot: int) -> None:
        self.process.mprotect(addr, count * PAGE, prot)

    def do_munmap(self, addr: int, count: int) -> None:
        self.process.munmap(addr, count * PAGE)

    def do_mremap(self, addr: int, old: int, new: int, to: int) -> None:
        if to == addr:
            self.process.mremap(addr, old * PAGE, new * PAGE, 0)
        else:
            self.process.mremap(addr, old * PAGE, new * PAGE, new_addr=to)

    def do_prctl(self, merge: int, arg3: int) -> None:
        self.process.prctl(ksm.PR_SET_MEMORY_MERGE, merge, arg3)

    def fork(self, child: str) -> PortTask:
        return PortTask(self.process.fork(child), self.names, self.told, self)

    def execute(self) -> None:
        self.process.exec()
        self.names[self.process.mm_id] = self.process.name
        for vma in self.process.maps():  # the stack: the kernel's side has none either
            self.process.munmap(vma.start, vma.end - vma.start)

    def exit(self) -> None:
        self.process.exit()

    def kill(self) -> None:
        self.process.exit()

    def rss(self) -> int:
        return self.process.rss() * PAGE

    def killed_at(self) -> int | None:
        return self.told.pop(self.process.pid, None)

    def nodes(self, addr: int, count: int) -> list[int]:
        return [max(-1, node) for node in self.process.move_pages(addr, count * PAGE, None)]

    def stat(self) -> Json:
        """The counters of the process, with two that only newer kernels have."""
        merge_any = 0
        with contextlib.suppress(OSError):  # before Linux 6.4
            merge_any = self.process.prctl(ksm.PR_GET_MEMORY_MERGE)
        mergeable = any(vma.mergeable for vma in self.process.maps())
        smaps = [[vma.rss, vma.anonymous, vma.ksm, vma.anon_huge_pages, vma.swap] for vma in self.process.smaps() if vma.start in PLACES]
        return {**self.process.ksm_stat(), "ksm_merge_any": "yes" if merge_any else "no",
                "ksm_mergeable": "yes" if mergeable else "no", "ksm_merging_pages_file": self.process.ksm_merging_pages,
                **memory_of(smaps)}

    def pages(self, addr: int, count: int, kinds: bool) -> list[tuple[int, str]]:
        return [(word >> ksm.PAGE_FLAGS_SHIFT, frame_kind(word)) if word & ksm.PAGE_PRESENT else (-1, "s" if word else "-")
                for word in self.process.page_table(addr, count * PAGE)]


def is_own(word: int) -> bool:
    """Whether an entry of a page table has a page in memory that is not the zero page."""
    return bool(word & ksm.PAGE_PRESENT and not word & ksm.PAGE_ZERO)


def frames_of_node(machine: ksm.Machine) -> int:
    return machine.memory // PAGE // machine.nodes & -512


def frame_kind(word: int) -> str:
    return "0" if word & ksm.PAGE_ZERO else "k" if word & ksm.PAGE_KSM else "a"


class PortSide(Side):
    """A machine of the port."""

    def __init__(self, machine: ksm.Machine, events: bool) -> None:
        self.kernel = f"ksm {ksm.__version__} (Linux {machine.era})"
        self.machine, self.ksm = machine, machine.ksm
        self.names: dict[int, str] = {}  # of address spaces
        self.told: dict[int, int] = {}  # of a broken frame: the process's number, and the page's address
        self.recording: Recording | None = None
        if events:
            self.ksm.trace.start(TRACE_CAPACITY)

    def files(self) -> list[str]:
        return sorted(self.ksm.names())

    def read(self, file: str) -> Any:
        return getattr(self.ksm, file)

    def write(self, file: str, value: Any) -> None:
        try:
            self.ksm.store(file, f"{value}\n")
        except KeyError:
            raise OSError(errno.ENOENT, file) from None
        except AttributeError:
            raise OSError(errno.EACCES, file) from None

    def batch(self) -> bool:
        return bool(self.ksm.scan(pages=self.ksm.pages_to_scan))

    def drain_lru(self) -> None:
        self.machine.lru_add_drain_all()

    def sleep(self, ms: float) -> None:
        self.machine.advance(ms / 1000)

    def spawn(self, name: str) -> PortTask:
        return PortTask(self.machine.spawn(name), self.names, self.told)

    def set_online(self, node: int, online: bool) -> None:
        frames = frames_of_node(self.machine)
        (self.machine.online if online else self.machine.offline)(node * frames, frames)

    def done(self, what: str) -> None:
        if self.recording is not None:
            self.recording.note(what)

    def mark(self, process: str) -> None:
        """Nothing to do: events of the port have the numbers of address spaces."""

    def take_events(self, owners: dict[int, str]) -> list[list[Any]]:
        if self.ksm.trace.lost:
            raise OracleError("trace events were lost")
        return [self.event(event, owners) for event in self.ksm.trace.read()]

    def event(self, event: Any, owners: dict[int, str]) -> list[Any]:
        result: list[Any] = [event.name.removeprefix("ksm_")]
        if event.mm_id:
            result.append(self.names.get(event.mm_id, "?"))
        if event.name == "ksm_merge_one_page":
            result += ["ksm", "zero", event.error]
        elif event.name == "ksm_merge_with_ksm_page":
            result += ["ksm" if event.ksm_page else "anon", owners.get(event.pfn, "?"), event.error]
        elif event.name in ("ksm_start_scan", "ksm_stop_scan"):
            result += [event.seq, event.rmap_entries]
        return result


def run_port(
    workload: Json, *, pages: bool = False, events: bool = False, memory: str = "1G", record: int = 0, by_frames: bool = False,
    era: Era = "6.12",
) -> Json:
    """The outcome of a workload on the port. OracleError if it cannot be run.

    `record` is how many steps of KSM are recorded at most. If it is not 0, the outcome has a "recording" for `ksm study`, and the machine
    is a plain one.
    """
    check_workload(workload)
    nodes, swap = workload.get("nodes", 1), workload.get("swap", 0) * PAGE or None
    with ksm.Machine(memory, max_memory=memory, nodes=nodes, swap=swap, clock="manual", plain=bool(record) or None, era=era) as machine:
        side = PortSide(machine, events)
        side.by_frames = by_frames
        for name, value in DEFAULTS.items():
            if name in side.files():
                side.write(name, value)
        if not record:
            return Run(workload, side, pages=pages, events=events).execute()
        with machine.record(record) as side.recording:
            outcome = Run(workload, side, pages=pages, events=events).execute()
        title = str(workload.get("name") or "A workload")
        return {**outcome, "recording": side.recording.data(title, f"The workload {title}, as ksm replay has run it.")}

# SPDX-License-Identifier: GPL-2.0-only
"""Run a KSM workload, step by step, and record every counter after every full scan.

A workload is JSON. It runs on a side: the kernel (ksm.oracle.kernel) or the port (ksm.oracle.replay); the outcome has the same form.

WORKLOAD  {"name": str, "settings": {sysfs file: value}, "nodes": n, "procs": [PROC], "steps": [STEP]}; the processes start one after the
          other, on NUMA node 0; "nodes", by default 1, is how many there have to be; "swap": pages of a swap area, by default none.
          At a time there may be 65,536 pages (256 MiB) in 10,000 VMAs of 1,000 processes. A page that several processes map counts for
          each of them; pages that were unmapped do not count. A name has at most 200 characters, which can be printed.
PROC      {"name": str, "vmas": [VMA]}
VMA       {"name": str, "pages": n, "contents": CONTENTS, "mergeable": true, "slot": k}: mapped at 2**45 + slot * 2**30, by default
          in the next slot that is free
CONTENTS  list of ITEM, from the first page on. ITEM is a content id, null (the page stays as it is) or [content id or null, repeat]
STEP      {"op": op, its keys}. "proc", "vma", "page", "count" select pages: page is 0 and count the rest of the VMA by default

  write   pages, contents           write whole pages, in order
  touch   pages                     rewrite the first byte of each page with its own value
  read    pages                     read the first byte of each page (this maps the zero page)
  poke    pages, contents           write whole pages through /proc/PID/mem, like a debugger
  peek    pages                     read the first byte of each page in this way
  madvise pages, advice             [un]mergeable, dontneed, [no]hugepage, dontfork, dofork, wipeonfork, keeponfork
  mprotect pages, prot              0 (nothing), 1 (read), 3 (read and write)
  munmap  pages
  pageout pages                     write to the swap area what only this process maps
  migrate pages, node               move_pages(2), also of pages that are shared
  soft_offline pages [by] [node]    pages (that are on the node) leave their frames, which are about to break; by "frame" or "madvise"
  hwpoison pages [by] [node]        the frame of the first page breaks: who has it is killed, and all its further steps fail with ESRCH
  mmap    proc, vma, keys of VMA    a new VMA
  mremap  proc, vma [pages] [slot]  in place if only "pages" is given, else the whole VMA moves to a new slot
  move    pages, into [slot]        mremap of a part of a VMA, which becomes the VMA "into" in a new slot
  fork    proc, child               "proc" forks; the new process is "child"
  exec    proc                      an empty address space, which inherits "merge"
  prctl   proc, merge [arg3]        1: all memory that can be merged, now and in future; 0: none. EINVAL if arg3 is not 0
  exit    proc
  sysfs   file, value               errors are recorded; run=1 is "batch"; sleep_millisecs is refused
  scan    [passes]                  full scans; the first completes one that "batch" has cut
  batch   [pages]                   one batch: of pages_to_scan, or of "pages"
  record                            "scan" (after every pass) and "batch" record, too
  sleep   ms
  offline node                      the memory of a NUMA node goes, and its pages move to other nodes
  online  node                      it comes back

Content: the low 32 bits of the id, as a little-endian word, fill the page; then the last byte is XORed with bits 32-39 and the first
with bits 40-47. So id 0 is the zero page, and 5 and 5|1<<32 differ in their last byte only.

OUTCOME   {"workload": name, "kernel": release, "records": [RECORD]}. RECORD has the step's number, and {"sysfs", "value", "error"},
          {"error"} of an operation that failed, {"killed": {process: address}} by SIGBUS, or {"op", "ksm": {file: value},
          "procs": {process: {counter: value}}} and, on request, "pages" {process: {vma: [kind]}} with "-" absent, "a" anonymous,
          "0" the zero page, "s" swapped out, n the nth KSM page, and "events". "rss" is [step, process, bytes of its own in memory] after
          each step since the last record. With several nodes, "nodes" is like "pages", and has the node of each page, or -1. An outcome
          with more than 4,000,000 values is refused.

Counters that the kernel counts since boot (SINCE_BOOT) count from the workload's start. A scan while no process is registered is "stalled".
In events, pages are named after the process, VMA and page that map them just before the scan, address spaces after their process.
"""

from __future__ import annotations

import errno
import itertools
import re
import struct
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ksm import constants

Json = dict[str, Any]
Mapping = tuple[str, str, int, int, str]  # process, VMA, page, frame or -1, kind: "-", "a", "0", "k"

PAGE = 4096
BASE, STRIDE = 1 << 45, 1 << 30
PLACES = range(BASE, BASE + (1 << 44))  # the mappings of a workload are here, and no others
MAX_PAGES, SLOTS, MAX_NODES = STRIDE // PAGE, 1 << 16, 8
ADVICE: dict[str, int] = {
    name: getattr(constants, f"MADV_{name.upper()}")
    for name in ("mergeable", "unmergeable", "dontneed", "hugepage", "nohugepage", "dontfork", "dofork", "wipeonfork", "keeponfork")
}
WHOLE_PASS = 0xFFFF_FFFF  # pages_to_scan
# The settings that every workload starts with. With a prune interval of 0, chains do not depend on the clock.
DEFAULTS: Json = {
    "advisor_mode": "none", "merge_across_nodes": 1, "max_page_sharing": 256, "use_zero_pages": 0, "smart_scan": 1,
    "pages_to_scan": WHOLE_PASS, "stable_node_chains_prune_millisecs": 0, "advisor_max_cpu": 70, "advisor_min_pages_to_scan": 500,
    "advisor_max_pages_to_scan": 30000, "advisor_target_scan_time": 200,
}
# Counters that the kernel never resets. ksm_zero_pages is 0 when nothing is merged, unless earlier forks have made it wrong.
SINCE_BOOT = ("pages_scanned", "pages_skipped", "ksm_zero_pages", "general_profit")
UNRECORDED = ("sleep_millisecs", "run")  # a side uses these files to step ksmd

MOST_VALUES = 4_000_000  # in the records of an outcome: they take less than half a GiB
RANGE_OPS = ("write", "touch", "read", "poke", "peek", "madvise", "mprotect", "munmap", "pageout", "migrate", "soft_offline", "hwpoison")
BREAKING = ("offline", "online", "soft_offline", "hwpoison")  # what only a guest's kernel is asked to do


class OracleError(Exception):
    """The workload cannot be run, or the machine is not in a usable state."""


class Stalled(OracleError):
    """The kernel does not get on with a workload, or has ended."""


def page_bytes(content: int) -> bytes:
    """The bytes of a page with the given content id."""
    page = bytearray(struct.pack("<I", content & 0xFFFF_FFFF) * (PAGE // 4))
    page[-1] ^= content >> 32 & 0xFF
    page[0] ^= content >> 40 & 0xFF
    return bytes(page)


def expand(contents: list[Any]) -> Iterator[int | None]:
    """One content id, or None, for each page of a CONTENTS list."""
    for item in contents:
        content, repeat = item if isinstance(item, list) else (item, 1)
        yield from itertools.repeat(content, repeat)


def memory_of(smaps: list[list[int]]) -> Json:
    """What a record says of a process's memory. A VMA's `smaps`: bytes in memory, anonymous, merged, in whole huge pages, swapped out."""
    resident, anonymous, merged, huge, swapped = (sum(sizes) for sizes in zip(*(smaps or [[0] * 5]), strict=True))
    return {"smaps": [resident, anonymous, merged, swapped] if smaps else [], "anon_huge_pages": huge}


def errno_name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, str(error))


def kstrtouint(value: Any) -> int | None:
    """The number that the kernel reads from a write to a file; None if it is not a number."""
    return int(value) if re.fullmatch(r"\+?[0-9]{1,64}", str(value)) else None


class Task(ABC):
    """A process of a workload, on one of the sides."""

    def __init__(self, parent: Task | None = None) -> None:
        self.vmas: dict[str, tuple[int, int]] = dict(parent.vmas) if parent else {}  # address, pages
        self.next_slot: int = parent.next_slot if parent else 0

    def slot(self, wanted: int | None) -> int:
        """The address of a slot: the wanted one, or the next."""
        number = self.next_slot if wanted is None else wanted
        self.next_slot = max(self.next_slot, number + 1)
        return BASE + number * STRIDE

    @abstractmethod
    def call(self, op: str, **args: Any) -> Json:
        """Do mmap, mremap, prctl or one of RANGE_OPS; {"error": errno's name} if it fails."""

    @abstractmethod
    def fork(self, child: str) -> Task: ...

    @abstractmethod
    def execute(self) -> None:
        """Begin a new program, which has no memory."""

    @abstractmethod
    def exit(self) -> None:
        """Exit and wait until the memory is gone."""

    @abstractmethod
    def kill(self) -> None:
        """End the process, whatever has happened to it."""

    @abstractmethod
    def stat(self) -> Json:
        """The counters of the process."""

    @abstractmethod
    def rss(self) -> int | None:
        """Bytes of its anonymous memory by the kernel's own count; None where that count is not exact."""

    @abstractmethod
    def killed_at(self) -> int | None:
        """Where the broken frame was for which the process is being killed; None if it is not."""

    @abstractmethod
    def nodes(self, addr: int, count: int) -> list[int]:
        """The NUMA node of each page; -1 where there is no page of the process's own."""

    @abstractmethod
    def pages(self, addr: int, count: int, kinds: bool) -> list[tuple[int, str]]:
        """Frame and kind of each page. Without `kinds`, the kind of all is "a"."""


def in_words(number: int, step: Json) -> str:
    """A step of a workload in one line, for people."""
    args = ", ".join(f"{key} {value if isinstance(value, str | int | float) else '...'}" for key, value in step.items() if key != "op")
    return f"Step {number} of the workload was {step['op']}" + (f": {args}." if args else ".")


class Side(ABC):
    """Where a workload runs. `by_frames`: it does not tell merged pages from others that share a frame."""

    kernel: str
    by_frames = False

    @abstractmethod
    def files(self) -> list[str]:
        """The names of the files in sysfs."""

    @abstractmethod
    def read(self, file: str) -> Any: ...

    @abstractmethod
    def write(self, file: str, value: Any) -> None:
        """Raises OSError as the kernel does."""

    @abstractmethod
    def batch(self) -> bool:
        """One batch of ksmd: true when it has completed a full scan."""

    @abstractmethod
    def drain_lru(self) -> None: ...

    @abstractmethod
    def sleep(self, ms: float) -> None: ...

    @abstractmethod
    def spawn(self, name: str) -> Task: ...

    @abstractmethod
    def mark(self, process: str) -> None:
        """Name the process that does the next operation."""

    @abstractmethod
    def set_online(self, node: int, online: bool) -> None:
        """Take the memory of a node away, or bring it back. Raises OSError as the kernel does."""

    def done(self, what: str) -> None:  # noqa: B027 most sides do not care
        """A step of the workload is done."""

    @abstractmethod
    def take_events(self, owners: dict[int, str]) -> list[list[Any]]:
        """The events since the last call, in the form of an outcome."""


class Run:
    """One execution of a workload that ksm.oracle.check has accepted."""

    def __init__(self, workload: Json, side: Side, *, pages: bool = False, events: bool = False) -> None:
        self.workload, self.side, self.with_pages, self.with_events = workload, side, pages, events
        self.tasks: dict[str, Task] = {}
        self.records: list[Json] = []
        self.values = 0  # in the records so far
        self.nodes = workload.get("nodes", 1)
        self.offline: set[int] = set()  # nodes
        self.dead: set[str] = set()  # processes that were killed, and their children that never were
        self.rss: list[list[Any]] = []  # since the last record
        self.mid_scan = False
        self.owners: dict[int, str] = {}  # of frames, for the events
        self.there = set(side.files())
        self.base = {name: side.read(name) for name in SINCE_BOOT if name in self.there}

    def execute(self) -> Json:
        for name, value in self.workload.get("settings", {}).items():
            if error := self.set_sysfs(name, value):
                raise OracleError(f"settings: {name}={value}: {error}")
        for process in self.workload["procs"]:
            self.tasks[process["name"]] = self.side.spawn(process["name"])
            for vma in process["vmas"]:
                self.op_mmap(-1, process["name"], vma["name"], **{key: vma[key] for key in vma if key != "name"})
        self.side.done("The processes have their memory.")
        for number, step in enumerate(self.workload["steps"]):
            self.step(number, step["op"], {key: value for key, value in step.items() if key != "op"})
            self.side.done(in_words(number, step))
        outcome = {"workload": self.workload.get("name", ""), "kernel": self.side.kernel, "records": self.records}
        return outcome | ({"by_frames": True} if self.side.by_frames and self.with_pages else {})

    def step(self, number: int, op: str, args: Json) -> None:
        if args.get("proc") in self.dead:
            self.dead |= {args["child"]} if op == "fork" else set()
            self.note(number, {"error": "ESRCH"})
            return
        if op in RANGE_OPS:
            self.range_op(number, op, **args)
        else:
            getattr(self, "op_" + op)(number, **args)
        for name in (args.get("proc"), args.get("child")):
            if name in self.tasks and (size := self.tasks[name].rss()) is not None:
                self.rss.append([number, name, size])

    # Records

    def note(self, number: int, answer: Json) -> bool:
        """Record an operation that failed: this is a result, too."""
        if "error" in answer:
            self.add({"step": number, "error": answer["error"]})
        return "error" not in answer

    def mappings(self, kinds: bool) -> Iterator[Mapping]:
        for name, task in self.tasks.items():
            for vma, (addr, count) in task.vmas.items():
                for number, (frame, kind) in enumerate(task.pages(addr, count, kinds)):
                    yield name, vma, number, frame, kind

    def page_kinds(self) -> Json:
        """What each page is. Merged pages have the number of their frame; or, by frames, all pages that share their frame have."""
        kinds: Json = {}
        numbers: dict[int, int] = {}
        found = list(self.mappings(kinds=True))
        mapped = Counter(frame for _, _, _, frame, _ in found) if self.side.by_frames else Counter()
        for name, vma, _, frame, kind in found:
            value: int | str = kind
            if self.side.by_frames and kind in ("a", "k"):
                value = numbers.setdefault(frame, len(numbers) + 1) if mapped[frame] > 1 else "a"
            elif kind == "k":
                value = numbers.setdefault(frame, len(numbers) + 1)
            kinds.setdefault(name, {}).setdefault(vma, []).append(value)
        return kinds

    def record(self, number: int, **more: Any) -> None:
        ksm = {file: self.side.read(file) for file in self.side.files() if file not in UNRECORDED}
        ksm |= {name: ksm[name] - base for name, base in self.base.items()}
        record: Json = {"step": number, **more, "ksm": ksm, "procs": {name: task.stat() for name, task in self.tasks.items()}}
        if self.with_pages:
            record["pages"] = self.page_kinds()
            if self.nodes > 1:
                record["nodes"] = {name: {vma: task.nodes(*where) for vma, where in task.vmas.items()} for name, task in self.tasks.items()}
        if self.with_events:
            record["events"] = self.side.take_events(self.owners)
        if self.rss:
            record["rss"], self.rss = self.rss, []
        self.add(record)

    def add(self, record: Json) -> None:
        """Add a record. OracleError if the outcome has too many values, before they take all the memory."""
        self.values += len(record) + len(record.get("ksm", ())) + sum(map(len, record.get("procs", {}).values()))
        self.values += sum(map(len, [*record.get("events", ()), *record.get("rss", ())]))
        self.values += sum(len(pages) for key in ("pages", "nodes") for vmas in record.get(key, {}).values() for pages in vmas.values())
        if self.values > MOST_VALUES:
            raise OracleError(f"step {record['step']}: the outcome has more than {MOST_VALUES:,} values")
        self.records.append(record)

    # Operations of a process

    def task(self, number: int, name: str) -> Task:
        if name not in self.tasks:
            raise OracleError(f"step {number}: there is no process {name!r}")
        return self.tasks[name]

    def vma(self, number: int, task: Task, name: str, page: int = 0) -> tuple[int, int]:
        if name not in task.vmas:
            raise OracleError(f"step {number}: there is no VMA {name!r}")
        addr, pages = task.vmas[name]
        if page > pages:
            raise OracleError(f"step {number}: there is no page {page} in VMA {name!r}, which has {pages}")
        return addr, pages

    def range_op(self, number: int, op: str, proc: str, vma: str, page: int = 0, count: int | None = None, **args: Any) -> None:
        task = self.task(number, proc)
        self.side.mark(proc)
        if op == "pageout" or op in BREAKING:
            self.side.drain_lru()
        addr, pages = self.vma(number, task, vma, page)
        if op == "migrate" and args["node"] in self.offline:
            self.note(number, {"error": "ENODEV"})
            return
        self.note(number, task.call(op, addr=addr + page * PAGE, count=pages - page if count is None else count, **args))
        if op == "hwpoison":
            killed = {name: where for name, other in self.tasks.items() if (where := other.killed_at()) is not None}
            self.add({"step": number, "killed": {name: f"{where - BASE:#x}" for name, where in killed.items()}})
            for name in killed:
                self.tasks.pop(name).kill()
            self.dead |= set(killed)

    def op_mmap(self, number: int, proc: str, vma: str, pages: int, contents: Any = (), mergeable: bool = True,
                slot: int | None = None) -> None:
        task = self.task(number, proc)
        self.side.mark(proc)
        addr = task.slot(slot)
        task.vmas[vma] = addr, pages
        self.note(number, task.call("mmap", addr=addr, pages=pages, contents=contents, mergeable=mergeable))

    def op_mremap(self, number: int, proc: str, vma: str, pages: int | None = None, slot: int | None = None) -> None:
        task = self.task(number, proc)
        addr, old = self.vma(number, task, vma)
        new = old if pages is None else pages
        to = addr if slot is None and pages is not None else task.slot(slot)
        if self.note(number, task.call("mremap", addr=addr, old=old, new=new, to=to)):
            task.vmas[vma] = to, new

    def op_move(self, number: int, proc: str, vma: str, into: str, page: int = 0, count: int | None = None,
                slot: int | None = None) -> None:
        task = self.task(number, proc)
        addr, pages = self.vma(number, task, vma, page)
        count = pages - page if count is None else count
        to = task.slot(slot)
        if self.note(number, task.call("mremap", addr=addr + page * PAGE, old=count, new=count, to=to)):
            task.vmas[into] = to, count

    def op_fork(self, number: int, proc: str, child: str) -> None:
        parent = self.task(number, proc)
        self.side.mark(child)
        self.tasks[child] = parent.fork(child)

    def op_exec(self, number: int, proc: str) -> None:
        task = self.task(number, proc)
        self.side.mark(proc)
        task.execute()
        task.vmas, task.next_slot = {}, 0

    def op_prctl(self, number: int, proc: str, merge: int, arg3: int = 0) -> None:
        task = self.task(number, proc)
        self.side.mark(proc)
        self.note(number, task.call("prctl", merge=merge, arg3=arg3))

    def op_exit(self, number: int, proc: str) -> None:
        self.task(number, proc)
        self.tasks.pop(proc).exit()

    # Operations of the machine

    def set_online(self, number: int, node: int, online: bool) -> None:
        if node >= self.nodes:
            raise OracleError(f"step {number}: there is no node {node}")
        if online != (node in self.offline):
            self.note(number, {"error": "EINVAL"})
            return
        self.side.drain_lru()
        try:
            self.side.set_online(node, online)
        except OSError as error:
            self.note(number, {"error": errno_name(error)})
        else:
            (self.offline.discard if online else self.offline.add)(node)
        self.side.drain_lru()

    def op_offline(self, number: int, node: int) -> None:
        self.set_online(number, node, False)

    def op_online(self, number: int, node: int) -> None:
        self.set_online(number, node, True)

    # Operations of KSM

    def set_sysfs(self, file: str, value: Any) -> str:
        if file == "sleep_millisecs":
            raise OracleError("sleep_millisecs is used to step ksmd")
        try:
            self.side.write(file, value)
        except OSError as error:
            return errno_name(error)
        return ""

    def op_sysfs(self, number: int, file: str, value: Any) -> None:
        run = kstrtouint(value) if file == "run" else None
        if run == 1:
            self.op_batch(number)
            return
        error = self.set_sysfs(file, value)
        if file == "run":
            self.side.write("run", 0)
            self.mid_scan = self.mid_scan and run != 2  # run=2 begins the scan anew
        self.add({"step": number, "sysfs": file, "value": value, "error": error})

    def before_batches(self) -> None:
        if self.mid_scan:
            self.side.drain_lru()
        if self.with_events:
            self.owners = {frame: f"{name}/{vma}/{page}" for name, vma, page, frame, _ in reversed(list(self.mappings(kinds=False)))}

    def op_scan(self, number: int, passes: int = 1) -> None:
        for count in range(1, passes + 1):
            self.before_batches()
            batches, done, scanned = 0, False, -1
            while not done and scanned != self.scanned(batches):
                scanned = self.scanned(batches)
                done = self.side.batch()
                batches += 1
            self.mid_scan = False
            self.record(number, op="scan", scan=count, batches=batches, **({} if done else {"stalled": True}))

    def scanned(self, batches: int) -> int:
        """What grows while ksmd has something to do: pages_scanned. Before 6.6 there is no such file, and as many batches are made as all
        pages need.
        """
        if "pages_scanned" in self.there:
            scanned: int = self.side.read("pages_scanned")
            return scanned
        pages = sum(count for task in self.tasks.values() for _, count in task.vmas.values())
        needed: int = pages // max(1, self.side.read("pages_to_scan")) + 2
        return min(batches, needed)

    def op_batch(self, number: int, pages: int | None = None) -> None:
        self.before_batches()
        old = self.side.read("pages_to_scan")
        if pages is not None:
            self.side.write("pages_to_scan", pages)
        done = self.side.batch()
        if pages is not None:
            self.side.write("pages_to_scan", old)
        self.mid_scan = not done
        self.record(number, op="batch", completed_scan=done)

    def op_record(self, number: int) -> None:
        self.record(number, op="record")

    def op_sleep(self, number: int, ms: float) -> None:
        self.side.sleep(ms)

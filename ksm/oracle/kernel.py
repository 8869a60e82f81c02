# SPDX-License-Identifier: GPL-2.0-only
"""Run a workload on the running kernel: real processes, the kernel's own ksmd, in exact steps. Needs root.

How ksmd is stepped. ksmd does a batch of pages_to_scan pages, then waits for sleep_millisecs; this wait also ends when sleep_millisecs
is changed. With run=0 it waits for run=1 instead. A batch stops at the end of a full scan. So, with a sleep of many days:

  park   run=0, change sleep_millisecs, wait until ksmd sleeps: it waits for run=1 now (run=0 alone leaves it in the timed wait,
         where it does not hear run=1)
  batch  run=1, wait until ksmd sleeps again: one batch was done

ksmd is in state S in these two waits only (for its locks it waits in D), and the writes that wake it return after it has become
runnable. So S after such a write means that the work is complete; no timing is involved.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import itertools
import json
import mmap
import os
import platform
import re
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from ksm.host.files import FileError, open_to_write, write_whole
from ksm.host.json_file import read_json, shown
from ksm.host.knobs import chosen
from ksm.oracle import breaking
from ksm.oracle.check import check_workload
from ksm.oracle.huge import HugePages, wants_huge_pages, without_huge_pages
from ksm.oracle.lru import OlderLists
from ksm.oracle.observe import Events, has_events
from ksm.oracle.proc import kernel_thread, proc_text, processes, wait_asleep
from ksm.oracle.process import MPOL_MF_MOVE, RealTask, kind_of_own_page, move_pages
from ksm.oracle.ptrace import Window
from ksm.oracle.workload import DEFAULTS, PAGE, Json, OracleError, Run, Side
from ksm.oracle.zram import Swap

KSM = Path("/sys/kernel/mm/ksm")
PARK_SLEEPS = (2_000_000_000, 2_000_000_001)  # sleep_millisecs, used in turn
DEFAULT_SLEEP = 20  # the kernel's
MOST_SAVED = 1 << 16  # bytes of the file with the settings
TIMEOUT = 120.0


def unavailable() -> str:
    """Why the kernel's KSM cannot be driven; empty if it can."""
    if not (KSM / "run").exists():
        return "this kernel has no KSM"
    if os.geteuid():
        return "only root may drive the kernel's KSM"
    if not os.access(KSM / "run", os.W_OK):
        return "the kernel's KSM is read-only here"
    return ""


def default_lock() -> Path:
    """The lock file: one program at a time drives KSM."""
    folder = Path("/run")  # root's own, and empty after a boot
    return (folder if folder.is_dir() else Path(tempfile.gettempdir())) / "ksm_oracle.lock"


def sysfs_read(name: str) -> Any:
    text = chosen((KSM / name).read_text().strip())
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def sysfs_write(name: str, value: Any) -> None:
    (KSM / name).write_text(f"{value}\n")


def writable_files() -> Json:
    """The files of KSM that can be written, and what is in them."""
    return {file.name: sysfs_read(file.name) for file in sorted(KSM.iterdir()) if file.stat().st_mode & 0o200}


def saved_settings(path: Path) -> Json:
    """The settings to restore: those in the file, from before a run that was killed; else those of now, which are put there. OracleError.

    The file has all of the settings, or does not exist. It exists before the first setting is changed.
    """
    now = writable_files()
    saved = read_saved(path, now) if os.path.lexists(path) else now
    if saved["sleep_millisecs"] in PARK_SLEEPS:  # left from a run whose file is lost
        saved["sleep_millisecs"] = DEFAULT_SLEEP
    if saved is now:
        try:
            write_whole(str(path), json.dumps(saved))
        except OSError as error:
            raise OracleError(f"{path} cannot be written: {error.strerror or error}") from None
    return saved


def read_saved(path: Path, now: Json) -> Json:
    """The settings in the file. OracleError if they cannot be settings of this kernel."""
    try:
        saved: Json = read_json(str(path), MOST_SAVED)
        if not isinstance(saved, dict) or saved.keys() != now.keys():
            raise ValueError("these are not the files of KSM")
        for name, value in saved.items():
            if type(value) is not type(now[name]) or not re.fullmatch(r"[a-z-]{1,40}|[0-9]{1,20}", str(value)):
                raise ValueError(f"{name} cannot be {shown(value)}")
    except (FileError, ValueError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise OracleError(f"{path} is damaged ({reason}): it has KSM's settings from before a run that was killed; set them, and remove it"
                          ) from None
    return saved


def leaves_traces(workload: Json) -> str:
    """Why a workload would leave the kernel's counters wrong until the next boot; empty if it would not.

    A child counts all zero pages of its parent, also those that it did not get: this excess stays in ksm_zero_pages.
    """
    steps = workload["steps"]
    advice = any(step.get("advice") in ("dontfork", "wipeonfork") for step in steps)
    zero = workload.get("settings", {}).get("use_zero_pages", 0) or any(step.get("file") == "use_zero_pages" for step in steps)
    if zero and advice and any(step["op"] == "fork" for step in steps):
        return "fork with zero pages and MADV_DONTFORK or MADV_WIPEONFORK leaves the kernel's ksm_zero_pages wrong until the next boot"
    return ""


def wrong_machine(workload: Json, guest: bool = False) -> str:
    """Why this machine cannot run a workload; empty if it can. A guest may lose memory."""
    if breaking.breaks(workload) and not guest:
        return "the workload breaks frames or takes memory away: only a guest does that (ksm verify --kernel)"
    nodes = len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or 1
    if workload.get("nodes", 1) > nodes:
        return f"the workload needs {workload['nodes']} NUMA nodes, and this machine has {nodes}"
    files = [step["file"] for step in workload["steps"] if step["op"] == "sysfs"]
    if workload.get("nodes", 1) > 1 and "merge_across_nodes" in files:
        return "merge_across_nodes that changes on several NUMA nodes can make the kernel follow stale pointers"
    return without_huge_pages() if wants_huge_pages(workload) else ""


def tells_merged_pages() -> bool:
    """Whether /proc/kpageflags tells merged pages from others. That of 6.12 has KPF_KSM for every anonymous page."""
    with mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory[0] = 1
        page = ctypes.c_char.from_buffer(memory)
        told = kind_of_own_page(ctypes.addressof(page)) == "a"
        del page  # the memory can be unmapped only then
        return told


def drain_lru() -> None:
    """Empty the LRU batches, whose references to pages can prevent merges: ksmd does so only at the start of a full scan.

    move_pages() empties them as a side effect, whatever it is asked to move.
    """
    target = ctypes.create_string_buffer(1)
    move_pages(0, [ctypes.addressof(target)], [0], MPOL_MF_MOVE)


def hold_signals() -> None:
    """Block the signals that end this program, until the settings are restored."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGHUP, signal.SIGINT))


class Ksmd:
    """Steps ksmd, and restores its settings."""

    def __init__(self, backup: Path) -> None:
        folder = kernel_thread("ksmd")
        self.refuse_others(sure=False)
        self.sleeps = itertools.cycle(PARK_SLEEPS)
        self.written: Json = {}
        self.backup = backup  # the file outlives a run that was killed, which leaves its own values in sysfs
        self.stat = os.open(folder / "stat", os.O_RDONLY)
        try:
            self.saved = saved_settings(backup)
        except BaseException:
            os.close(self.stat)
            raise

    def refuse_others(self, sure: bool, own: frozenset[int] = frozenset()) -> None:
        users = [path.name for path in processes()
                 if int(path.name) not in own and re.search(r"merge(able|_any): yes", proc_text(path / "ksm_stat"))]
        if users or sure:
            raise OracleError(f"other processes have mergeable memory: {', '.join(users) or 'unknown'}")

    def wait_asleep(self) -> None:
        wait_asleep("ksmd", self.stat, TIMEOUT)

    def park(self) -> None:
        sysfs_write("run", 0)
        self.wait_asleep()
        if (value := next(self.sleeps)) == sysfs_read("sleep_millisecs"):
            value = next(self.sleeps)
        self.set("sleep_millisecs", value)
        self.wait_asleep()

    def set(self, name: str, value: Any) -> None:
        sysfs_write(name, value)
        self.written[name] = sysfs_read(name)
        if name == "advisor_mode":
            self.written.pop("pages_to_scan", None)  # the advisor writes it

    def check_undisturbed(self, own: frozenset[int]) -> None:
        """Raise OracleError if a program that does not take the lock has used KSM meanwhile."""
        self.refuse_others(sure=False, own=own)
        for name, value in self.written.items():
            if name != "run" and sysfs_read(name) != value:
                raise OracleError(f"another program has written to {name}")

    def batch(self) -> bool:
        before = sysfs_read("full_scans")
        sysfs_write("run", 1)
        self.wait_asleep()
        self.park()
        return bool(sysfs_read("full_scans") != before)

    def flush(self) -> None:
        """Unmerge everything. run=2 does so only if `run` was not 2 before."""
        for run in (0, 2, 0):
            sysfs_write("run", run)

    def start(self) -> None:
        """Reach the state that every workload starts with. OracleError if another process has mergeable memory."""
        self.park()
        for _ in range(3):  # a scan drops the processes that have nothing mergeable left
            self.flush()
            for name, value in DEFAULTS.items():
                if name in self.saved:
                    self.set(name, value)
            if not self.batch():
                return  # nothing is registered
        self.refuse_others(sure=True)

    def restore(self) -> None:
        """Put every setting back. OracleError names those that could not be put back. The file then stays for the next run."""
        hold_signals()
        try:
            self.park()
            self.flush()
            # advisor_mode and run come last: while the advisor is on, the kernel refuses a write to pages_to_scan.
            last = {name: self.saved[name] for name in ("advisor_mode", "run") if name in self.saved}
            first = {name: "none" if name == "advisor_mode" else 0 for name in last}
            rest = [(name, value) for name, value in self.saved.items() if name not in last]
            failed = []
            for name, value in (*first.items(), *rest, *last.items()):
                try:
                    sysfs_write(name, value)
                except OSError as error:
                    failed.append(f"{name} = {value}: {error.strerror}")
        finally:
            os.close(self.stat)
        if failed:
            raise OracleError(f"KSM's settings could not all be put back ({'; '.join(failed)}): they stand in {self.backup}")
        self.backup.unlink()

class KernelSide(Side):
    """The running kernel."""

    def __init__(self, ksmd: Ksmd, window: Window, events: Events | None, nodes: int) -> None:
        self.kernel = platform.release()
        self.ksmd, self.window, self.events, self.nodes = ksmd, window, events, nodes
        self.by_frames = not tells_merged_pages()

    def files(self) -> list[str]:
        return sorted(file.name for file in KSM.iterdir())

    def read(self, file: str) -> Any:
        return sysfs_read(file)

    def write(self, file: str, value: Any) -> None:
        self.ksmd.set(file, value)

    def batch(self) -> bool:
        return self.ksmd.batch()

    def drain_lru(self) -> None:
        drain_lru()

    def sleep(self, ms: float) -> None:
        time.sleep(ms / 1000)

    def set_online(self, node: int, online: bool) -> None:
        (breaking.bring_back if online else breaking.take_away)(node)

    def spawn(self, name: str) -> RealTask:
        return RealTask.start(self.window, self.nodes > 1)

    def mark(self, process: str) -> None:
        if self.events:
            self.events.mark(process)

    def take_events(self, owners: dict[int, str]) -> list[list[Any]]:
        return self.events.take(owners) if self.events else []


def run_kernel(workload: Json, *, pages: bool = False, events: bool = False, lock: Path | None = None, guest: bool = False) -> Json:
    """The outcome of a workload on the running kernel. OracleError if it cannot be run. Settings of KSM are restored."""
    check_workload(workload)
    if reason := unavailable() or wrong_machine(workload, guest) or leaves_traces(workload):
        raise OracleError(reason)
    lock = lock or default_lock()
    with contextlib.ExitStack() as stack:
        stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        fcntl.flock(stack.enter_context(open(open_to_write(lock), "wb")), fcntl.LOCK_EX)
        ksmd = Ksmd(lock.with_name(lock.name + ".saved"))
        stack.callback(ksmd.restore)
        ksmd.start()
        stack.callback(OlderLists(lock.with_name(lock.name + ".lru")).close)
        tracer = Events() if events and has_events() else None
        if tracer:
            stack.callback(tracer.close)
        if "swap" in workload:
            stack.callback(Swap(workload["swap"]).close)
        if breaking.breaks(workload):
            stack.callback(breaking.Breaking(workload.get("nodes", 1)).close)
        huge = HugePages() if wants_huge_pages(workload) else None
        if huge:
            stack.callback(huge.close)
        window = Window()
        stack.callback(window.close)
        run = Run(workload, KernelSide(ksmd, window, tracer, workload.get("nodes", 1)), pages=pages, events=tracer is not None)
        try:
            outcome = run.execute()
            ksmd.check_undisturbed(frozenset(task.pid for task in run.tasks.values() if isinstance(task, RealTask)))
            if huge:
                huge.check()
            return outcome
        finally:
            hold_signals()
            for task in run.tasks.values():
                task.kill()

# SPDX-License-Identifier: GPL-2.0-only
"""Workloads in processes, what `ksm scan` says of them, and what the running kernel's KSM then does with them."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import physical

import ksm
from ksm.host.files import open_to_write
from ksm.oracle.kernel import Ksmd, default_lock, sysfs_read
from ksm.oracle.proc import proc_text
from ksm.oracle.workload import OracleError

PR_SET_PDEATHSIG, PR_SET_MEMORY_MERGE = 1, 67
COUNTERS = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "ksm_zero_pages", "general_profit", "full_scans")
# What a kernel has after a boot, but for its pace
BOOTED = {"stable_node_chains_prune_millisecs": 2000}
FAST = {"pages_to_scan": 10_000_000, "sleep_millisecs": 0}
DEFAULT_PACE = {"pages_to_scan": 100, "sleep_millisecs": 20}
ALIKE = 12  # full scans that have to leave the counters as they are: more than smart_scan lets a page be, which is eight
STILL, FEW = 0.002, 16  # of a count, and pages: what may change meanwhile, because programs live
BESIDE = bool(os.environ.get("KSM_TRUTH_BESIDE"))  # go on where other processes have mergeable memory
STARTED, SETTLED = 120.0, 600.0  # seconds, at most

libc = ctypes.CDLL(None, use_errno=True)


def become(user: tuple[int, int] | None, mergeable: bool) -> None:
    """In a new process, before its program: it ends with its parent, and KSM may merge its memory, and that of its children."""
    if user:
        os.setgroups([])
        os.setresgid(user[1], user[1], user[1])
        os.setresuid(user[0], user[0], user[0])
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if mergeable and libc.prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0):
        os._exit(99)


class Programs:
    """The processes of a workload. All of them, and their children, are killed at the end."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Programs:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        finally:
            for process in self.started:
                process.kill()
                process.communicate()

    def start(self, *command: object, mergeable: bool = True, user: tuple[int, int] | None = None, env: Mapping[str, str] | None = None,
              **options: Any) -> subprocess.Popen[str]:
        """Start a program. Its standard input and output are pipes, unless the options say otherwise."""
        process: subprocess.Popen[str] = subprocess.Popen(
            [*map(str, command)], text=True, env={**os.environ, **(env or {})}, start_new_session=True,
            preexec_fn=lambda: become(user, mergeable), **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, **options}
        )  # fmt: skip
        self.started.append(process)
        return process

    def pids(self) -> list[int]:
        """The programs and their children, and theirs."""
        children: dict[int, list[int]] = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError):
                fields = proc_text(path / "stat").rpartition(")")[2].split()
                if fields[0] != "Z":
                    children.setdefault(int(fields[1]), []).append(int(path.name))
        found = [process.pid for process in self.started if process.poll() is None]
        for pid in found:
            found.extend(children.get(pid, []))
        return found


def said(process: subprocess.Popen[str], text: str = "ready") -> str:
    """Wait for a line that begins so."""
    assert process.stdout
    for line in process.stdout:
        if line.startswith(text):
            return line
    raise AssertionError(f"{process.args!r} has ended with {process.wait()}")


def wait_until(true: Callable[[], object], what: str, seconds: float = STARTED) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"after {seconds:g} s: {what}"
        time.sleep(0.1)


def at_rest(pids: Iterable[int], seconds: float = 1.0) -> None:
    """Wait until the processes have taken no more memory, and little processor time, for so long."""
    pids = [*pids]

    def state() -> tuple[int, int]:
        resident = ticks = 0
        for pid in pids:
            fields = proc_text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
            resident += int(fields[21])
        return resident, ticks

    before, alike = state(), 0
    deadline = time.monotonic() + STARTED
    while alike < 5 * seconds:
        assert time.monotonic() < deadline, "the processes do not come to rest"
        time.sleep(0.2)
        now = state()
        alike = alike + 1 if abs(now[0] - before[0]) <= 16 and now[1] - before[1] <= 2 else 0
        before = now


def predicted(pids: Iterable[int], *options: str) -> dict[str, Any]:
    """What `ksm scan --json` says of processes, as a user runs it, for the running kernel's knobs."""
    return scanned("--knobs", "running", *options, *(f"pid:{pid}" for pid in pids))


def scanned(*arguments: str) -> dict[str, Any]:
    """What `ksm scan --json` says."""
    command = [sys.executable, "-m", "ksm", "scan", "--json", *arguments]
    path = str(Path(ksm.__file__).resolve().parents[1])
    run = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=600)
    if run.returncode:
        raise RuntimeError(run.stderr)  # no AssertionError, which a part that is not there yet may lead to
    report: dict[str, Any] = json.loads(run.stdout)
    return report


class Outcome(NamedTuple):
    """What the kernel did: its counters, frames freed, and for each process its ksm_stat, and frames freed in it if that was asked for."""

    counters: dict[str, int]
    freed: int
    own: dict[int, dict[str, int]]
    seconds: float
    memory: physical.Memory  # before


class Tolerant(Ksmd):
    """Ksmd that goes on beside processes with mergeable memory, and says so."""

    others: tuple[str, ...] = ()

    def refuse_others(self, sure: bool, own: frozenset[int] = frozenset()) -> None:
        try:
            super().refuse_others(sure=False, own=own)
        except OracleError as error:
            self.others = (*self.others, str(error))


class Running:
    """The kernel's ksmd, for one test. It takes the lock and the settings from ksm.oracle, which puts them back, also after a kill."""

    def __init__(self, **settings: int) -> None:
        with contextlib.ExitStack() as stack:
            lock = default_lock()
            fcntl.flock(stack.enter_context(open(open_to_write(lock), "wb")), fcntl.LOCK_EX)
            self.ksmd = (Tolerant if BESIDE else Ksmd)(lock.with_name(lock.name + ".saved"))
            stack.callback(self.ksmd.restore)
            self.ksmd.start()
            for name, value in {**BOOTED, **FAST, **settings}.items():
                self.ksmd.set(name, value)
            self.base = {name: sysfs_read(name) for name in ("ksm_zero_pages", "general_profit")}
            self.end = stack.pop_all()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end.close()

    def counters(self) -> dict[str, int]:
        return {name: sysfs_read(name) - self.base.get(name, 0) for name in COUNTERS}

    def merge(self, pids: Iterable[int], *, each: bool = False, scans: int | None = None) -> Outcome:
        """Let ksmd run until all holds still, or for so many full scans, then stop it. `each`: count the frames of each process, too."""
        pids = [*pids]
        groups = [pids, *([pid] for pid in pids if each)]
        before = [physical.memory_of(group) for group in groups]
        start = time.monotonic()
        self.ksmd.set("run", 1)
        if scans is None:
            self.settle(pids)
        else:
            last = sysfs_read("full_scans") + scans
            wait_until(lambda: sysfs_read("full_scans") >= last, f"not {scans} full scans", SETTLED)
        self.ksmd.set("run", 0)
        self.ksmd.wait_asleep()
        seconds = time.monotonic() - start
        self.ksmd.check_undisturbed(frozenset(pids))
        counters = self.counters()
        after = [physical.memory_of(group) for group in groups]
        freed = [new.saved - old.saved for new, old in zip(after, before, strict=True)]
        own = {pid: ksm_stat(pid) for pid in pids}
        if isinstance(self.ksmd, Tolerant) and self.ksmd.others:
            print(f"\n{self.ksmd.others[-1]}: the kernel's counters are reckoned from the frames and the ksm_stat of the workload alone")
            counters.update(reckoned(after[0], [*own.values()]))
        for pid, count in zip(pids, freed[1:], strict=False):
            own[pid]["freed"] = count
        return Outcome(counters, freed[0], own, seconds, before[0])

    def settle(self, pids: list[int]) -> None:
        """Wait until ALIKE full scans have changed neither counters nor frames: parts of huge pages are freed uncounted."""
        deadline = time.monotonic() + SETTLED
        saved = None
        while True:
            self.hold_still(pids, deadline)
            before, saved = saved, physical.memory_of(pids).saved
            if before is not None and not moved(before, saved):
                return

    def hold_still(self, pids: list[int], deadline: float) -> None:
        """Wait until ALIKE full scans have changed no counter of these processes."""
        base = merged_in(pids)
        while True:
            time.sleep(0.02)
            now = merged_in(pids)
            if moved(base.pages, now.pages) or moved(base.zeros, now.zeros):
                base = now
            elif now.scans - base.scans >= ALIKE:
                return
            assert time.monotonic() < deadline, f"the kernel's KSM does not settle: {base}, then {now}"


class Merged(NamedTuple):
    """What KSM has merged in some processes, pages of zeros among it, and how many full scans it has made."""

    pages: int
    zeros: int
    scans: int


def merged_in(pids: Iterable[int]) -> Merged:
    stats = [ksm_stat(pid) for pid in pids]
    pages, zeros = (sum(stat.get(name, 0) for stat in stats) for name in ("ksm_merging_pages", "ksm_zero_pages"))
    return Merged(pages, zeros, sysfs_read("full_scans"))


def reckoned(memory: physical.Memory, stats: list[dict[str, int]]) -> dict[str, int]:
    """The counters that the kernel would have if no other process had mergeable memory."""
    profit = sum(stat["ksm_process_profit"] for stat in stats)
    return {
        "pages_shared": memory.ksm,
        "pages_sharing": memory.merged - memory.ksm,
        "ksm_zero_pages": sum(stat["ksm_zero_pages"] for stat in stats),
        "general_profit": profit - memory.ksm * physical.PAGE,  # a process counts all its merged pages, the kernel all but one
    }


def moved(before: int, now: int) -> bool:
    return abs(now - before) > max(STILL * now, FEW)


def ksm_stat(pid: int) -> dict[str, int]:
    with contextlib.suppress(OSError):
        pairs = (line.replace(":", " ").split() for line in Path(f"/proc/{pid}/ksm_stat").read_text().splitlines())
        return {name: int(value) for name, value in pairs if value.lstrip("-").isdigit()}
    return {}

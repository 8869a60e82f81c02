# SPDX-License-Identifier: GPL-2.0-only
"""Runs one life after the other, each in a process of its own, watches it, and writes findings down."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import ksm.check
import ksm.record.recording  # noqa: F401  (so that no life has to)
from fuzz import sanitizers
from fuzz.forks import Leave
from fuzz.life import make_life
from fuzz.lives import run_life
from fuzz.world import Common, Finding

ENDS_WELL, FOUND = 0, 3
PATIENCE = 60.0  # seconds for a life, or for its next call; most lives take less than two


class Result:
    """How a life ended: `text` is empty if all was well."""

    def __init__(self, kind: str = "", text: str = "", report: str = "", actions: int = 0) -> None:
        self.kind, self.text, self.report, self.actions = kind, text, report, actions

    @property
    def signature(self) -> str:
        """The part of the result that the same fault has in another life, too."""
        if self.kind in ("bytes", "maps"):
            return self.kind
        text = re.sub(r"\(at \[.*|: \[.*", "", self.text)
        text = re.sub(r"content\(\d+\)|0x[0-9a-f]+|[0-9a-f]{16}\.\.\.[0-9a-f]*|\d+", "N", text)
        return f"{self.kind}: {text}".split(";")[0][:160]


class Log:
    """A file that has each line at once, even if the process crashes. Signal handlers and threads write to it, too."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)

    def write(self, line: str) -> None:
        os.write(self.fd, line.encode(errors="backslashreplace"))


def in_child(life: dict[str, Any], without: set[str], folder: Path, leaks: bool) -> int:
    """Run a life in this process: its exit code."""
    os.setsid()
    errors = os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    faulthandler.register(signal.SIGUSR2, file=2, all_threads=True)
    if sanitizers.sanitized():
        faulthandler.disable()  # the sanitizers' own report says more
    else:
        faulthandler.enable(2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    counted = Common.actions
    told: dict[str, Any] = {}
    try:
        run_life(life, without, Log(folder / "calls"))
        gc.collect()
        if leaks and life["life"] != "refused":
            sys.stderr.flush()
            sanitizers.look_for_leaks()
    except Finding as finding:
        told = {"kind": finding.kind, "text": finding.text}
    except Leave:
        raise
    except BaseException as error:
        told = {"kind": "exception", "text": f"{type(error).__name__}: {error}"}
        traceback.print_exc()
    told["actions"] = Common.actions - counted
    (folder / "told").write_text(json.dumps(told))
    return FOUND if "kind" in told else ENDS_WELL


def live(life: dict[str, Any], without: set[str], folder: Path, *, patience: float = PATIENCE, leaks: bool = False) -> Result:
    """Run a life in a process of its own, and wait for its end."""
    for name in ("stderr", "calls", "told"):
        (folder / name).unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        leaves = False
        try:
            code = in_child(life, without, folder, leaks)
        except Leave:
            leaves = True
        except BaseException:
            traceback.print_exc()
            code = 1
        if leaves:
            sys.exit(0)  # a forked child of the life: it ends as programs do
        os._exit(code)
    stuck = not ended(pid, patience, folder / "calls")
    where = ""
    if stuck:
        where = look_into(pid, folder)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    _pid, status = os.waitpid(pid, 0)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)  # processes that the life left behind
    report = read(folder / "stderr") + where
    told = json.loads(read(folder / "told") or "{}")
    code = os.waitstatus_to_exitcode(status)
    if stuck:
        return Result("stuck", f"after {patience:.0f} s, in {last_call(folder)}", report)
    actions = told.get("actions", 0)
    if "kind" in told:
        return Result(told["kind"], told["text"], report, actions)
    if code != ENDS_WELL:
        return Result("crash", sanitizers.crash(report) or f"ended with {code}, in {last_call(folder)}", report, actions)
    ours = sanitizers.leaks(report) if leaks else []
    if ours:
        return Result("leak", "; ".join(ours[:3]), report, actions)
    return Result(actions=actions)


def ended(pid: int, patience: float, calls: Path) -> bool:
    """Whether the process ends. It may take `patience` seconds, and as long again, five times in all, as long as it makes new calls: a
    computer with much to do makes a life slow."""
    fd = os.pidfd_open(pid)
    made = -1
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        for _ in range(5):
            if poll.poll(patience * 1000):
                return True
            before, made = made, calls.stat().st_size if calls.exists() else 0
            if made == before:
                return False
        return False
    finally:
        os.close(fd)


def look_into(pid: int, folder: Path) -> str:
    """Where a process is stuck: its threads in Python, and in C if there is gdb."""
    os.kill(pid, signal.SIGUSR2)
    time.sleep(0.5)
    if shutil.which("gdb") is None:
        return ""
    with contextlib.suppress(subprocess.TimeoutExpired):
        env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        command = ["gdb", "-p", str(pid), "-batch", "-nx", "-ex", "thread apply all bt full 14"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env).stdout
    return ""


def read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def last_call(folder: Path) -> str:
    lines = [line for line in read(folder / "calls").splitlines() if not line.startswith("#   ")]
    return lines[-1].split("(")[0][:100] if lines else "nothing"


class Hunt:
    def __init__(self, without: set[str], findings: Path, shrink_seconds: float, only: str | None = None) -> None:
        self.only = only
        self.without, self.findings, self.shrink_seconds = without, findings, shrink_seconds
        self.lives = self.actions = 0
        self.found: dict[str, int] = {}
        self.began = time.monotonic()

    def life(self, seed: int, folder: Path) -> Result:
        life = make_life(seed, self.without, self.only)
        result = live(life, self.without, folder, leaks=seed % 4 == 0)
        self.lives += 1
        self.actions += result.actions
        if result.text:
            again = self.found.get(result.signature, 0)
            self.found[result.signature] = again + 1
            if not again:
                self.write_down(life, result, folder)
        return result

    def write_down(self, life: dict[str, Any], result: Result, folder: Path) -> None:
        """The report, the calls, and the smallest life that ends in the same way."""
        from fuzz.shrink import shrink

        seconds = time.monotonic() - self.began
        print(f"seed {life['seed']}, a life of {life['life']}, after {seconds:.0f} s: {result.kind}: {result.text}"[:600], flush=True)
        calls = read(folder / "calls")
        place = self.findings / f"{len(self.found)}-{result.kind}-seed-{life['seed']}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "report").write_text(f"{result.kind}: {result.text}\n\nseed {life['seed']}\n\n{result.report}")
        (place / "calls").write_text(calls)
        (place / "life.json").write_text(json.dumps(life))
        small, smaller, note = shrink(life, result, self.without, folder, self.shrink_seconds)
        (place / "report").write_text(f"{result.kind}: {smaller.text}\n\nseed {life['seed']}, {note}\n\n{smaller.report}")
        (place / "calls").write_text(read(folder / "calls") or calls)
        (place / "life.json").write_text(json.dumps(small))
        print(f"    {note}; see {place}", flush=True)

    def run(self, seed: int, lives: int | None, minutes: float | None) -> int:
        until = self.began + minutes * 60 if minutes is not None else None
        number = 0
        folder = Path(tempfile.mkdtemp(prefix="ksm-fuzz-"))
        here = os.getpid()
        try:
            while (lives is None or number < lives) and (until is None or time.monotonic() < until):
                self.life(seed + number, folder)
                number += 1
        except KeyboardInterrupt:
            print("interrupted")
        finally:
            if os.getpid() == here:  # not in a forked child of a life
                shutil.rmtree(folder, ignore_errors=True)
        for signature, times in self.found.items():
            print(f"{times} times: {signature}")
        print(f"fuzz: {self.lives} lives from seed {seed} on, {self.actions} actions, {time.monotonic() - self.began:.0f} seconds, "
              f"{len(self.found)} findings")  # fmt: skip
        return 1 if self.found else 0

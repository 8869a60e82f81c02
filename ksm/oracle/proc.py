# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what the kernel says in /proc.
"""Processes and threads of the running kernel, by /proc."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ksm.oracle.workload import OracleError, Stalled

PROC = Path("/proc")
KTHREADD = "2"  # the parent of every kernel thread; any other process may be called ksmd, too


def proc_text(path: Path) -> str:
    """The text of a file of /proc; empty if the process is gone."""
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace")
    return ""


def processes() -> Iterator[Path]:
    """The folder in /proc of each process."""
    return PROC.glob("[0-9]*")


def kernel_thread(name: str) -> Path:
    """The folder in /proc of a kernel thread. OracleError if there is none, or if it cannot be seen."""
    for path in processes():
        if proc_text(path / "comm") == f"{name}\n" and proc_text(path / "stat").rpartition(")")[2].split()[1:2] == [KTHREADD]:
            return path
    raise OracleError(f"this kernel has no {name}")


def is_asleep(stat: int) -> bool:
    """Whether the thread sleeps whose /proc/PID/stat this file is.

    State S alone does not say so: a thread has it for a moment before it looks once more whether it has something to do. Another processor
    may see this, above all a guest's, which may stand still meanwhile. The kernel tells of the thread's system call only when the thread is
    on no processor and waits for none.
    """
    def sleeps() -> bool:
        return os.pread(stat, 512, 0).rpartition(b") ")[2][:1] == b"S"

    return sleeps() and proc_text(Path(os.readlink(f"/proc/self/fd/{stat}")).with_name("syscall")) != "running\n" and sleeps()


def wait_asleep(name: str, stat: int, timeout: float, pause: float = 0.0) -> None:
    """Until the thread sleeps whose /proc/PID/stat this file is: looked at again and again, with `pause` seconds between. Stalled."""
    deadline = time.monotonic() + timeout
    while not is_asleep(stat):
        if time.monotonic() > deadline:
            raise Stalled(f"{name} does not come to rest")
        if pause:
            time.sleep(pause)

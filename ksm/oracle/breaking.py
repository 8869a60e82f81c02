# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: files of /sys/devices/system.
"""On the kernel's side: memory that goes and comes back, and frames that break. Only a guest is asked for this: a broken frame is lost."""

from __future__ import annotations

import contextlib
import errno
import re
import signal
from collections.abc import Iterator
from pathlib import Path

from ksm.oracle.workload import BREAKING, Json, OracleError

SYSTEM = Path("/sys/devices/system")
PATIENCE = 5.0  # seconds
EARLY_KILL = Path("/proc/sys/vm/memory_failure_early_kill")


def breaks(workload: Json) -> bool:
    return any(step["op"] in BREAKING for step in workload["steps"])


def blocks(node: int) -> list[Path]:
    """The folders of a node's blocks of memory."""
    found = (SYSTEM / f"node/node{node}").glob("memory[0-9]*")
    return sorted(found, key=lambda path: int(re.sub(r"\D", "", path.name)))


def put(path: Path, text: str) -> None:
    """Write to a file of sysfs once. A buffered file would write again when it is closed after an error. OSError."""
    with path.open("wb", buffering=0) as file:
        file.write(text.encode())


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """Have a call that takes too long end with OSError EBUSY: the kernel tries to move a page until a signal comes."""
    def enough(*_: object) -> None:
        raise OSError(errno.EBUSY, "a page of the memory cannot be moved")

    before = signal.signal(signal.SIGALRM, enough)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def bring_back(node: int) -> None:
    """Have all memory of a node online, for pages that can move. OSError."""
    for block in blocks(node):
        if (block / "state").read_text() != "online\n":
            put(block / "state", "online_movable")


def take_away(node: int) -> None:
    """Have all memory of a node offline. OSError when some pages cannot be moved; the memory is online then, and has these pages only."""
    failed: OSError | None = None
    for block in blocks(node):
        try:
            with patience():
                put(block / "state", "offline")
        except OSError as error:
            failed = error
    if failed:
        bring_back(node)
        raise failed


def soft_offline(frame: int) -> None:
    """Have the page in this frame moved elsewhere. OSError."""
    put(SYSTEM / "memory/soft_offline_page", f"{frame << 12:#x}")


def hwpoison(frame: int) -> None:
    """Have this frame broken. OSError."""
    put(SYSTEM / "memory/hard_offline_page", f"{frame << 12:#x}")


class Breaking:
    """While a workload runs that breaks frames, each process with the page is killed at once, and not only when it touches the page."""

    def __init__(self, nodes: int) -> None:
        if not EARLY_KILL.exists():
            raise OracleError("the workload breaks frames, and this kernel has no CONFIG_MEMORY_FAILURE")
        self.nodes = nodes
        self.saved = EARLY_KILL.read_text()
        EARLY_KILL.write_text("1")

    def close(self) -> None:
        EARLY_KILL.write_text(self.saved)
        for node in range(1, self.nodes):
            with contextlib.suppress(OSError):
                bring_back(node)

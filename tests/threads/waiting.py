# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: a test that holds a lock wants to know when another thread waits for it.
"""A thread waits: for a lock of the machine (it sleeps again and again), or for ksm_thread_mutex (it sleeps, and goes on sleeping)."""

import threading
import time


def until_it_waits(thread: threading.Thread) -> None:
    """Return when the thread waits, or has ended. AssertionError after 30 s."""
    deadline = time.monotonic() + 30
    first = before = switches(thread)
    since = time.monotonic()
    while thread.is_alive():
        now = switches(thread)
        if now - first >= 20:
            return
        if now != before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since > 0.1 and asleep(thread):
            return
        assert time.monotonic() < deadline
        time.sleep(0.001)


def switches(thread: threading.Thread) -> int:
    """How often the thread has given its processor away of its own accord."""
    return int(field(thread, "voluntary_ctxt_switches") or 0)


def asleep(thread: threading.Thread) -> bool:
    return (field(thread, "State") or "").startswith("S")


def field(thread: threading.Thread, name: str) -> str | None:
    try:
        with open(f"/proc/self/task/{thread.native_id}/status") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith(name + ":"))
    except (OSError, StopIteration):
        return None

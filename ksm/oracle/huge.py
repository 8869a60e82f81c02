# SPDX-License-Identifier: GPL-2.0-only
"""Huge pages on the kernel's side: faults of the workload have to get them, and khugepaged must not make any.

khugepaged puts small pages together in every VMA that MADV_HUGEPAGE was used on. While it has an address space to look after, it sleeps
for scan_sleep_millisecs between its rounds. A new address space does not wake it from that sleep. A write to scan_sleep_millisecs does,
for one round. So this process gives khugepaged an address space, and then a sleep of many days.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import re
from pathlib import Path

from ksm.oracle.proc import kernel_thread, wait_asleep
from ksm.oracle.workload import Json, OracleError

THP = Path("/sys/kernel/mm/transparent_hugepage")
SLEEP = THP / "khugepaged" / "scan_sleep_millisecs"
STATS = THP / "hugepages-2048kB" / "stats"
PARK_SLEEPS = ("2000000000", "2000000001")  # such a value that is there before is left from a run that was killed
DEFAULT_SLEEP = "10000"
SIZE = 1 << 21
TIMEOUT = 60.0


def wants_huge_pages(workload: Json) -> bool:
    return any(step.get("advice") == "hugepage" for step in workload["steps"])


def chosen(path: Path) -> str:
    """The chosen word of a sysfs file, which stands in brackets; "" if there is no such file."""
    with contextlib.suppress(OSError):
        return path.read_text().partition("[")[2].partition("]")[0]
    return ""


def without_huge_pages() -> str:
    """Why MADV_HUGEPAGE gives no huge pages here; empty if it does."""
    mode, own = chosen(THP / "enabled"), chosen(THP / "hugepages-2048kB" / "enabled") or "inherit"
    if mode not in ("always", "madvise") and own not in ("always", "madvise"):
        return f"the workload needs huge pages, and transparent_hugepage/enabled is {mode or 'not there'}"
    if own == "never":
        return "the workload needs huge pages, and hugepages-2048kB/enabled is never"
    return ""


def refused() -> int:
    """How many faults, of any process since boot, did not get the huge page that they wanted."""
    with contextlib.suppress(OSError):
        return sum(int(file.read_text()) for file in STATS.iterdir()
                   if file.name.startswith("anon_fault_") and file.name != "anon_fault_alloc")
    return sum(map(int, re.findall(r"^thp_fault_fallback(?:_charge)? (\d+)$", Path("/proc/vmstat").read_text(), re.M)))


class HugePages:
    def __init__(self) -> None:
        if reason := without_huge_pages():
            raise OracleError(reason)
        khugepaged = kernel_thread("khugepaged")
        self.memory = mmap.mmap(-1, 2 * SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.memory.madvise(mmap.MADV_HUGEPAGE)
        self.stat = os.open(khugepaged / "stat", os.O_RDONLY)
        saved = SLEEP.read_text().strip()
        self.saved = DEFAULT_SLEEP if saved in PARK_SLEEPS else saved
        try:
            # Two writes: the first one may only end khugepaged's wait for memory, within a round.
            values = itertools.dropwhile(lambda value: value == saved, itertools.cycle(PARK_SLEEPS))
            for value in itertools.islice(values, 2):
                SLEEP.write_text(value)
                wait_asleep("khugepaged", self.stat, TIMEOUT)
        except BaseException:
            self.close()
            raise
        self.refused = refused()

    def check(self) -> None:
        """Raise OracleError if a fault had to do with small pages."""
        if refused() != self.refused:
            raise OracleError("another program, or a lack of free memory, was in the way: a huge page could not be had")

    def close(self) -> None:
        SLEEP.write_text(self.saved)
        os.close(self.stat)
        self.memory.close()

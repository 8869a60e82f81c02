# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what fs/proc tells of a process besides its pages.
"""What a process has already that changes what KSM would free: merged pages, pins, frames that it shares."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ksm.constants import PAGE_SIZE

VFIO = ("/dev/vfio/", "[vfio")  # in the name of what a process maps: a device that it drives itself


@dataclass
class Standing:
    """What a process has; in pages, where nothing else is said.

    zeros       pages for which KSM has given it the kernel's zero page: they are not among its pages any more
    repeated    pages that KSM has merged, and whose frame counts for another page of the scan; only root sees that
    hidden      pages that other processes map, too, by a fork or by KSM, and whose frame only root sees
    merged      of these, how many KSM has merged; None where that is not known
    common      of these, how many bytes are in one frame with another page, at most: those of a page are shared out among its mappings
    outside     pages that the machine has merged, and whose frame others have, too: perhaps processes that are not in the scan
    held        pages that the kernel holds for the process, known by their addresses: they are not merged
    pinned      other pages that it holds, or a device does, at most: which, cannot be seen
    pipes       pipes that it has open, and how many pages lie in each at most: perhaps its own (vmsplice), which are held then
    device      it drives a device itself (VFIO), which pins memory that `pinned` does not have
    merge_any   it has called prctl(PR_SET_MEMORY_MERGE); None where the kernel does not tell
    left        bytes of anonymous memory that do not count, because they are not mergeable: by what a report calls the mappings
    """

    zeros: int = 0
    repeated: int = 0
    hidden: int = 0
    merged: int | None = 0
    common: int = 0
    outside: int = 0
    held: int = 0
    pinned: int = 0
    pipes: dict[str, int] = field(default_factory=dict)
    device: bool = False
    merge_any: bool | None = None
    left: Counter[str] = field(default_factory=Counter)

    def take_ksm_stat(self, stat: dict[str, int]) -> None:
        """From /proc/PID/ksm_stat. A counter may be below 0 for a moment."""
        self.zeros = max(0, stat.get("ksm_zero_pages", 0))
        self.merge_any = bool(stat["ksm_merge_any"]) if "ksm_merge_any" in stat else None

    def take_pins(self, status: str, maps: str) -> None:
        """From /proc/PID/status and maps. io_uring, RDMA and iommufd count in VmPin, VFIO in VmLck, where mlock() counts, too."""
        self.device = any(name in maps for name in VFIO)
        pinned = bytes_in(status, "\nVmPin:") + (bytes_in(status, "\nVmLck:") if self.device else 0)
        self.pinned = max(0, pinned // PAGE_SIZE - self.held)

    def take_hidden(self, common: int, merged: int | None) -> None:
        """From smaps: of the hidden pages, how many may be one frame with others, and how many KSM has merged; in bytes.

        Pss counts a page as 1 / mappings of its frame. What it is short of the pages is what all mappings together save: no more than that
        can be saved between the processes of a scan.
        """
        self.common = min(self.hidden * PAGE_SIZE, common)
        self.merged = None if merged is None else min(self.hidden, merged // PAGE_SIZE)


def bytes_in(figures: str, name: str) -> int:
    """A line of smaps or status in kB, "\\nName:"; 0 if there is none."""
    place = figures.find(name)
    if place < 0:
        return 0
    place += len(name)
    return int(figures[place : figures.index(" kB", place)]) << 10

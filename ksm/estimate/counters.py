# SPDX-License-Identifier: GPL-2.0-only
# Follows ksm_process_profit(), general_profit_show() and pages_volatile_show() of mm/ksm.c, in each version of Linux since 2.6.32.
"""The counters of a kernel's KSM: their names, since when there are which, and what they add up to in each version."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from ksm.constants import PAGE_SIZE
from ksm.estimate.ledger import SIZES
from ksm.estimate.pace import Pace
from ksm.host.knobs import chosen

Version = tuple[int, ...]
Stat = Mapping[str, "int | str"]

RMAP_ITEM = SIZES["6.12"].rmap_item  # bytes, on 64 bits; it has had its 64 since 2.6.32
# Bytes of a stable node since a version: with links for a move between NUMA nodes, and for chains.
STABLE_NODES = {(4, 13): SIZES["6.12"].stable_node, (3, 9): 48, (0,): SIZES["2.6.38"].stable_node}
WRAPPED = 1 << 63  # a counter of 64 bits that is as large has been counted below 0


class Counter(NamedTuple):
    """A file or a line: whether it only rises ("counter"), is a level ("gauge") or is set ("knob"); the first version with it; meaning."""

    kind: str
    since: str
    help: str


SYSFS = {
    "sleep_millisecs": Counter("knob", "2.6.32", "Milliseconds that ksmd sleeps between two batches"),
    "pages_to_scan": Counter("knob", "2.6.32", "Pages of a batch"),
    "run": Counter("knob", "2.6.32", "1: ksmd scans, 0: it is stopped, 2: it is stopped and everything is unmerged"),
    "pages_scanned": Counter("counter", "6.6", "Pages that ksmd has looked at since boot"),
    "pages_shared": Counter("gauge", "2.6.32", "Merged pages, each the one copy of a content"),
    "pages_sharing": Counter("gauge", "2.6.32", "Further mappings of merged pages: frames that are saved"),
    "pages_unshared": Counter("gauge", "2.6.32", "Pages that held still and have no equal"),
    "pages_volatile": Counter("gauge", "2.6.32", "All other pages that ksmd keeps a note of, whatever the reason"),
    "pages_skipped": Counter("counter", "6.7", "Visits that smart scan has left out"),
    "ksm_zero_pages": Counter("gauge", "6.6", "Mappings of the zero page that ksmd has made and that are still there"),
    "full_scans": Counter("counter", "2.6.32", "Passes that have ended since boot or since everything was unmerged"),
    "merge_across_nodes": Counter("knob", "3.9", "1: pages of different NUMA nodes may merge"),
    "max_page_sharing": Counter("knob", "4.13", "Mappings that may share one frame"),
    "stable_node_chains": Counter("gauge", "4.13", "Contents that have reached max_page_sharing"),
    "stable_node_dups": Counter("gauge", "4.13", "Frames in chains"),
    "stable_node_chains_prune_millisecs": Counter("knob", "4.13", "Milliseconds until a chain that is met is looked through again"),
    "use_zero_pages": Counter("knob", "4.11", "1: pages of zeros get the kernel's zero page"),
    "general_profit": Counter("gauge", "6.4", "Bytes that are saved less those of rmap_items"),
    "smart_scan": Counter("knob", "6.7", "1: pages that found no equal are looked at less often"),
    "advisor_mode": Counter("knob", "6.8", "scan-time: pages_to_scan is chosen after each pass"),
    "advisor_max_cpu": Counter("knob", "6.8", "Percent of a processor that the advisor lets ksmd have"),
    "advisor_min_pages_to_scan": Counter("knob", "6.8", "Pages of a batch that the advisor begins with"),
    "advisor_max_pages_to_scan": Counter("knob", "6.8", "Pages of a batch that the advisor gives at most"),
    "advisor_target_scan_time": Counter("knob", "6.8", "Seconds that the advisor wants a pass to take"),
}
VMSTAT = {
    "ksm_swpin_copy": Counter("counter", "5.18", "Merged pages that were copied when they were swapped in"),
    "cow_ksm": Counter("counter", "5.19", "Writes to merged pages, each of which made a copy"),
    "thp_split_page": Counter("counter", "4.5", "Huge pages that were split, by KSM or by others"),
}
KSM_STAT = {
    "ksm_rmap_items": Counter("gauge", "6.1", "Pages of the process that ksmd keeps a note of"),
    "ksm_zero_pages": Counter("gauge", "6.6", "Mappings of the zero page that ksmd has made in the process"),
    "ksm_merging_pages": Counter("gauge", "5.19", "Pages of the process that are merged"),
    "ksm_process_profit": Counter("gauge", "6.4", "Bytes that the process saves less those of its rmap_items"),
    "ksm_merge_any": Counter("knob", "6.14", "1: the process has called prctl(PR_SET_MEMORY_MERGE)"),
    "ksm_mergeable": Counter("knob", "6.14", "1: the process has mappings that may be merged"),
}
SYSTEM = {**SYSFS, **VMSTAT}
PAGES = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")
TREES = PAGES[:3]
WORDS = {"yes": 1, "no": 0}  # of ksm_merge_any and ksm_mergeable


def version_of(text: str) -> Version:
    """The numbers of a kernel's release: (6, 12, 117) of "6.12.117-amd64". ValueError."""
    numbers = re.match(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,5}))?(?!\d)", text)
    if not numbers:
        raise ValueError(f"{text[:40]!r} is no version of a kernel, as 6.12 is")
    return tuple(int(number) for number in numbers.groups() if number is not None)


def number_of(name: str, value: int | str) -> int | str:
    """The value of a counter, of 64 bits; of advisor_mode, its word. TypeError, ValueError."""
    if name == "advisor_mode":
        word = chosen(str(value))
        if word not in ("none", "scan-time"):
            raise ValueError(f"{name}: {word[:40]!r} is not none or scan-time")
        return word
    if isinstance(value, str):
        text = value.strip()
        if name in ("ksm_merge_any", "ksm_mergeable") and text in WORDS:
            return WORDS[text]
        if not re.fullmatch(r"-?[0-9]{1,20}", text):
            raise ValueError(f"{name}: {text[:40]!r} is not a number of 64 bits")
        value = int(text)
    elif not isinstance(value, int):
        raise TypeError(f"{name}: it is {type(value).__name__}, and not int or str")
    if not -WRAPPED <= value < 2 * WRAPPED:
        raise ValueError(f"{name}: {str(value)[:40]} is not a number of 64 bits")
    return int(value)


class Process:
    """What ksm_stat says of a process. `name` is how it is called in what is printed."""

    def __init__(self, name: str, stat: Stat, kernel: Version) -> None:
        self.name, self.kernel = name, kernel
        self.values = {key: number_of(key, value) for key, value in stat.items() if key in KSM_STAT}

    def get(self, name: str) -> int:
        """A number; 0 if there is none, or one that cannot be."""
        value = self.values.get(name, 0)
        return value if isinstance(value, int) and 0 <= value < WRAPPED else 0

    @property
    def items(self) -> int:
        return self.get("ksm_rmap_items")

    @property
    def saved(self) -> int:
        """Pages, as ksm_process_profit counts them: zero pages since 6.6."""
        return self.get("ksm_merging_pages") + (self.get("ksm_zero_pages") if self.kernel >= (6, 6) else 0)


class Counters:
    """The counters of a system at one moment.

    Each may be missing: get() is 0 then, and `name in counters` is False. Impossible values (below 0, wrapped) count as 0, and raw() has
    them. `kernel` is the version that has counted.
    """

    def __init__(self, values: Stat, processes: Mapping[str, Stat], kernel: Version, page_size: int = PAGE_SIZE) -> None:
        if page_size < 4096 or page_size & (page_size - 1) or page_size > 1 << 20:
            raise ValueError(f"page_size: {page_size} is no size of a page")
        self.values = {name: number_of(name, value) for name, value in values.items() if name in SYSTEM}
        self.processes = [Process(name, stat, kernel) for name, stat in processes.items()]
        self.kernel, self.page_size = kernel, page_size

    def __contains__(self, name: object) -> bool:
        return name in self.values

    def raw(self, name: str) -> int | str | None:
        return self.values.get(name)

    def get(self, name: str, default: int = 0) -> int:
        value = self.values.get(name, default)
        return value if isinstance(value, int) and 0 <= value < WRAPPED else default

    @property
    def advised(self) -> bool:
        """Whether the advisor chooses pages_to_scan."""
        return self.values.get("advisor_mode") == "scan-time"

    @property
    def running(self) -> bool:
        return self.get("run") & 3 == 1

    @property
    def saved(self) -> int:
        """Pages: pages_sharing, and since 6.6 ksm_zero_pages. Before, no counter has the zero pages."""
        return self.get("pages_sharing") + (self.get("ksm_zero_pages") if self.kernel >= (6, 6) else 0)

    @property
    def volatile(self) -> int:
        """pages_volatile; where only that was not read, what the rmap_items leave."""
        if "pages_volatile" in self.values or not self.knows_trees:
            return self.get("pages_volatile")
        return max(0, self.known_items() - self.in_trees)

    @property
    def knows_trees(self) -> bool:
        """Whether all counters of pages in trees were read."""
        return all(name in self.values for name in TREES)

    @property
    def in_trees(self) -> int:
        """rmap_items that are in the stable or the unstable tree."""
        return self.get("pages_shared") + self.get("pages_sharing") + self.get("pages_unshared")

    @property
    def items(self) -> int:
        """rmap_items. pages_volatile is computed from them, so the four counters add up to them. Without one of these: known_items()."""
        return max(self.in_trees + self.volatile, self.known_items() if self.missing else 0)

    @property
    def missing(self) -> list[str]:
        """Of the counters that everything is computed from, those that were not read, and count as 0 or as what others leave."""
        return [name for name in PAGES if name not in self.values]

    def known_items(self) -> int:
        """rmap_items from what there is besides: general_profit, or the sum over processes; 0 if there is neither."""
        profit = self.values.get("general_profit")
        if isinstance(profit, int):
            profit -= 2 * WRAPPED if profit >= WRAPPED else 0
            return max(0, (self.saved * self.page_size - profit) // RMAP_ITEM)
        return sum(process.items for process in self.processes)

    @property
    def profit(self) -> int:
        """Bytes, by the formula of general_profit in this version; before 6.4, by that of 6.4."""
        return self.saved * self.page_size - self.items * RMAP_ITEM

    @property
    def stable_node(self) -> int:
        """Bytes of a stable node in this version."""
        return next(size for since, size in STABLE_NODES.items() if self.kernel >= since)

    @property
    def metadata(self) -> int:
        """Bytes of rmap_items and of stable nodes: one for each merged page, and one for each chain."""
        return self.items * RMAP_ITEM + (self.get("pages_shared") + self.get("stable_node_chains")) * self.stable_node

    @property
    def merged(self) -> int:
        """Pages that KSM has merged, into whichever frame."""
        return self.get("pages_shared") + self.get("pages_sharing") + self.get("ksm_zero_pages")

    @property
    def registered(self) -> bool:
        """Whether a process says that it may be merged."""
        return any(process.get("ksm_merge_any") or process.get("ksm_mergeable") for process in self.processes)

    def pace(self) -> Pace | None:
        """ksmd's pace at these knobs; None if they were not read, or ksmd looks at nothing."""
        sleep = self.get("sleep_millisecs", -1) / 1000
        if sleep < 0:
            return None
        if self.advised:
            names = ("advisor_target_scan_time", "advisor_max_pages_to_scan")
            if not all(self.get(name) for name in names):
                return None
            # The least is where the advisor begins, and no bound of what it chooses.
            return Pace(max(1, self.get("pages_to_scan")), sleep, float(self.get(names[0])), self.get(names[1]))
        pages = self.get("pages_to_scan")
        return Pace(pages, sleep) if pages else None

    def pass_seconds(self) -> float | None:
        """Seconds of a pass over all pages that ksmd keeps a note of, at these knobs."""
        pace = self.pace()
        return pace.seconds(self.items) if pace else None

    def formulas(self) -> list[tuple[str, str, int]]:
        """What the counters add up to in this version: what it is, the formula with its numbers, and the bytes.

        None without pages_sharing.
        """
        if "pages_sharing" not in self.values:
            return []
        zero = self.kernel >= (6, 6)
        sharing, size = f"pages_sharing {self.get('pages_sharing'):,}", f"{self.page_size:,}"
        zeros = f"{self.get('ksm_zero_pages'):,}" if "ksm_zero_pages" in self.values else "0, not read"
        saved = f"({sharing} + ksm_zero_pages {zeros})" if zero else sharing
        nodes = self.get("pages_shared") + self.get("stable_node_chains")
        profit = "general_profit" if self.kernel >= (6, 4) else "general_profit, by 6.4's formula: this kernel has none"
        return [
            ("saved", f"{saved} x {size}", self.saved * self.page_size),
            ("metadata", f"{self.items:,} rmap_items x {RMAP_ITEM} + {nodes:,} stable nodes x {self.stable_node}", self.metadata),
            (profit, f"{self.saved:,} x {size} - {self.items:,} rmap_items x {RMAP_ITEM}", self.profit),
        ]

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: KSM has counters of rmap_items, and none of what they add up to.
"""Where the pages of a scan went: each page is in one line of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ksm.constants import PAGE_SIZE

if TYPE_CHECKING:
    from ksm.estimate.savings import Tally
    from ksm.machine import _Era as Era


class Sizes(NamedTuple):
    """Bytes of KSM's structures on a 64-bit kernel: struct ksm_rmap_item, ksm_stable_node and ksm_mm_slot, as 6.12 names them."""

    rmap_item: int
    stable_node: int
    mm_slot: int


SIZES: dict[Era, Sizes] = {"7.3": Sizes(64, 64, 48), "6.12": Sizes(64, 64, 48), "6.1": Sizes(64, 64, 48), "2.6.38": Sizes(64, 40, 48)}


class Ledger(NamedTuple):
    """Frames by what became of them. `pages` is the sum of freed and kept; freed and kept are the sums of the lines below them.

    zero          freed: pages of zeros, all but one, or all where use_zero_pages gives them the kernel's zero page
    split         freed: parts of zeros of huge pages, which have the zero page since the huge page was split; KSM does not count them
    within        freed: duplicates in one source
    across        freed: duplicates of pages in another source
    merged        kept: the one copy of pages that are merged
    unshared      kept: pages in the unstable tree: they were compared, and have no equal
    skipped       kept: pages that smart_scan passed over in the last pass, because earlier ones found no equal
    volatile      kept: pages that changed between passes, or were not seen often enough to tell
    rmap_items    structures that KSM has, as all that follow; one for each page of each process
    stable_nodes  one for each merged page, and one more for each chain
    mm_slots      one for each process
    metadata      bytes of these structures
    """

    pages: int
    zero: int
    split: int
    within: int
    across: int
    merged: int
    unshared: int
    skipped: int
    volatile: int
    rmap_items: int
    stable_nodes: int
    mm_slots: int
    metadata: int

    @property
    def freed(self) -> int:
        return self.zero + self.split + self.within + self.across

    @property
    def kept(self) -> int:
        return self.merged + self.unshared + self.skipped + self.volatile

    @property
    def profit(self) -> int:
        """Bytes that are freed, less those of KSM's structures. The kernel's general_profit takes off only the rmap_items."""
        return self.freed * PAGE_SIZE - self.metadata

    def as_json(self) -> dict[str, int]:
        return {"pages": self.pages, "freed": self.freed, "kept": self.kept, **self._asdict(), "profit": self.profit}


def make_ledger(era: Era, *, pages: int, zeros: int, tally: Tally, slabs: Mapping[str, int]) -> Ledger:
    """The ledger after a pass: from the page tables and rmap_items, which the tally has counted, and from KSM's slabs.

    `pages` are the frames before: a frame that processes share since a fork is one page. A merge into several frames, because of
    max_page_sharing, can take more than there were; then `zero` or `within` is below 0. `zeros` of them are the kernel's zero page since
    before the scan, by the KSM of this computer.
    """
    rmap_items, stable_nodes, mm_slots = (slabs[f"ksm_{name}"] for name in Sizes._fields)
    metadata = sum(count * size for count, size in zip((rmap_items, stable_nodes, mm_slots), SIZES[era], strict=True))
    ledger = Ledger(
        pages=pages, zero=tally.zero + zeros, split=tally.split, within=tally.within, across=tally.across, merged=tally.merged,
        unshared=tally.unshared, skipped=tally.skipped, volatile=tally.volatile, rmap_items=rmap_items, stable_nodes=stable_nodes,
        mm_slots=mm_slots, metadata=metadata,
    )  # fmt: skip
    assert ledger.freed + ledger.kept == pages, f"pages are missing: {ledger}"
    return ledger


def differences(ledger: Ledger, ksm: Mapping[str, Any], again: int) -> list[str]:
    """A line for each of the kernel's counters that is not what the ledger has, and why.

    `again` pages are not merged, and share their frame since a fork with a page that is counted.
    """
    lines = []
    sharing = ksm["pages_sharing"] + ksm.get("ksm_zero_pages", 0)
    if sharing != ledger.freed and ksm.get("use_zero_pages") and "ksm_zero_pages" not in ksm:
        lines.append(f"pages_sharing is {sharing:,}, and not the {ledger.freed:,} freed: KSM does not count what became the zero page")
    elif sharing != ledger.freed:
        why = [f"no counter has the {ledger.split:,} zeros of split huge pages"] if ledger.split else []
        if sharing + ledger.split != ledger.freed:
            why.append("KSM counts mappings")
        lines.append(f"pages_sharing and ksm_zero_pages are {sharing:,}, and not the {ledger.freed:,} freed: {', and '.join(why)}")
        if "general_profit" in ksm:
            lines.append("general_profit and the profit of each source are made from what KSM counts")
    if ksm["pages_shared"] != ledger.merged:
        lines.append(f"pages_shared is {ksm['pages_shared']:,}, and not the {ledger.merged:,} merged: KSM still counts pages that went")
    if ksm["pages_unshared"] != ledger.unshared:
        lines.append(f"pages_unshared is {ksm['pages_unshared']:,}, and not the {ledger.unshared:,} unshared: KSM counts rmap_items")
    changed = ksm["pages_volatile"]
    if changed != ledger.volatile:
        others = [f"the {ledger.skipped:,} skipped"] if ledger.skipped else []
        if again:
            others.append(f"the {again:,} that share a page which is not merged since a fork")
        rest = changed - ledger.volatile - ledger.skipped - again
        if rest > 0:
            others.append(f"{rest:,} that have become zero pages or went, and are not forgotten yet")
        lines.append(f"pages_volatile also counts {' and '.join(others)}" if others else f"pages_volatile is {changed:,}")
    return lines

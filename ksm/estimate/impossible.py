# SPDX-License-Identifier: GPL-2.0-only
# Follows remove_rmap_item_from_tree(), stable_tree_append() and *_show() of Linux 6.12, mm/ksm.c, in which counters cannot be.
"""The rules of `ksm doctor` on counters that a right kernel does not show, with the version that has mended it where one has."""

from __future__ import annotations

from ksm.estimate.counters import SYSTEM, WRAPPED, Counters, Process, Version
from ksm.estimate.rules import BUG, NAMED, REMARK, RULES, rule

__all__ = ["RULES"]  # all of them, those of ksm.estimate.rules and the ones below

SIGNED = ("general_profit",)
SLACK = 1.05  # the files of processes are read one after the other
AGAIN = "read them once more: files are read one after the other; if it stays, the kernel has lost count, and a restart mends that"


def below_zero(value: int | str | None) -> bool:
    return isinstance(value, int) and not 0 <= value < WRAPPED


def said(value: int | str | None) -> str:
    """The number, and below 0 what it was before it wrapped."""
    assert isinstance(value, int)
    return f"{value}, which is {value - 2 * WRAPPED}" if value >= WRAPPED else str(value)


def with_zero_pages(c: Counters) -> list[Process]:
    return [process for process in c.processes if below_zero(process.values.get("ksm_zero_pages"))]


def why_below_zero(kernel: Version) -> str:
    """Which fault of this version takes ksm_zero_pages below 0."""
    reasons = ["before Linux 6.10 it was counted without a lock (c2dc78b86e08)"] if kernel < (6, 10) else []
    if not counts_forks(kernel):
        reasons.append("before Linux 6.18 the zero pages that a fork inherits were not added, and taken off when they went (4d6fc29f3634)")
    return "; ".join(reasons) or "no version is known that takes it there"


def counts_forks(kernel: Version) -> bool:
    """Whether 4d6fc29f3634 is in this version: it is in 6.18, and in 6.12.117 at the latest."""
    return kernel >= (6, 18) or (kernel[:2] == (6, 12) and kernel >= (6, 12, 117))


@rule(BUG, lambda c: below_zero(c.raw("ksm_zero_pages")) or bool(with_zero_pages(c)),
      "take it for 0, and update to Linux 6.18; if that or a later one runs here, report it to linux-mm")  # fmt: skip
def zero_pages_below_zero(c: Counters) -> str:
    whose = [f"{process.name} has {said(process.values['ksm_zero_pages'])}" for process in with_zero_pages(c)[:NAMED]]
    if below_zero(c.raw("ksm_zero_pages")):
        whose.insert(0, f"it is {said(c.raw('ksm_zero_pages'))}")
    return f"ksm_zero_pages is below 0 ({', '.join(whose)}): {why_below_zero(c.kernel)}"


def wrapped(c: Counters) -> list[str]:
    """Counters below 0 other than ksm_zero_pages and general_profit, which may be."""
    return [name for name in SYSTEM if name not in (*SIGNED, "ksm_zero_pages") and below_zero(c.raw(name))]


@rule(BUG, lambda c: bool(wrapped(c)), AGAIN)
def counters_below_zero(c: Counters) -> str:
    return f"what is counted is never below 0: {', '.join(f'{name} is {said(c.raw(name))}' for name in wrapped(c)[:NAMED])}"


@rule(BUG, lambda c: c.get("pages_sharing") > 0 and c.raw("pages_shared") == 0, AGAIN)
def sharing_without_shared(c: Counters) -> str:
    return f"pages_sharing is {c.get('pages_sharing'):,} and pages_shared is 0: of each merged page, the first sharer is counted there"


@rule(BUG, lambda c: c.get("stable_node_dups") > 0 and c.raw("stable_node_chains") == 0, AGAIN)
def dups_without_chains(c: Counters) -> str:
    return f"stable_node_dups is {c.get('stable_node_dups'):,} and stable_node_chains is 0: a dup stands in a chain"


@rule(BUG, lambda c: "run" in c and not below_zero(c.raw("run")) and (c.get("run") > 6 or c.get("run") & 3 == 3), AGAIN)
def unknown_run(c: Counters) -> str:
    return f"run is {c.get('run')}: it is 0, 1 or 2, and 4 more while memory goes offline"


@rule(BUG, lambda c: "max_page_sharing" in c and not below_zero(c.raw("max_page_sharing")) and c.get("max_page_sharing") < 2, AGAIN)
def max_page_sharing_below_two(c: Counters) -> str:
    return f"max_page_sharing is {c.get('max_page_sharing')}: the kernel takes no less than 2"


def more_than_fit(c: Counters) -> bool:
    limit = c.get("max_page_sharing")
    return limit >= 2 and 0 < c.get("pages_shared") * (limit - 1) < c.get("pages_sharing")


@rule(REMARK, more_than_fit, "nothing: the children's pages are let over the limit on purpose")
def forks_over_the_limit(c: Counters) -> str:
    return f"more pages share than max_page_sharing {c.get('max_page_sharing'):,} lets: merged pages that a fork has inherited"


def merging(c: Counters) -> int:
    """Pages that the processes say are merged, all together."""
    return sum(process.get("ksm_merging_pages") for process in c.processes)


def more_merging(c: Counters) -> bool:
    return "pages_shared" in c and "pages_sharing" in c and merging(c) > SLACK * (c.get("pages_shared") + c.get("pages_sharing"))


@rule(BUG, more_merging, "update to Linux 6.18 or Debian's 6.12.117; if that runs already, report it to linux-mm")
def fork_copies_counts(c: Counters) -> str:
    there = c.get("pages_shared") + c.get("pages_sharing")
    why = "no version is known to do that" if counts_forks(c.kernel) else "before Linux 6.18 a child began with its parent's (4d6fc29f3634)"
    return f"the processes have {merging(c):,} ksm_merging_pages, and all of KSM {there:,}: {why}; their profits are too high"

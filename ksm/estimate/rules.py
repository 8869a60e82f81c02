# SPDX-License-Identifier: GPL-2.0-only
# Follows ksm_do_scan(), scan_time_advisor() and the *_store() functions of Linux 6.12, mm/ksm.c, in what counters and knobs mean.
"""The rules of `ksm doctor`: each is a condition on counters, a sentence on what it means, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ksm.estimate.counters import RMAP_ITEM, Counters, Process
from ksm.estimate.pace import VISIT, Pace, spell
from ksm.host.text import size

BUG, PROBLEM, REMARK = "kernel bug", "problem", "remark"
SETTLED = 3  # passes: the first takes checksums, the second merges, the third shows that this was all
SLOW = 3600.0  # seconds of a pass
TARGET = 200  # seconds: the advisor's default
MOST_ZEROS = 0.9  # of what is saved
NAMED = 3  # processes in a sentence


class Rule(NamedTuple):
    """`when` says whether it holds of counters; `sentence` and `advice` are for a person."""

    name: str
    level: str
    when: Callable[[Counters], bool]
    sentence: Callable[[Counters], str]
    advice: str


RULES: list[Rule] = []


def rule(level: str, when: Callable[[Counters], bool], advice: str) -> Callable[[Callable[[Counters], str]], Callable[[Counters], str]]:
    """Put a rule into the table. Its name is that of the function that makes its sentence."""

    def put(sentence: Callable[[Counters], str]) -> Callable[[Counters], str]:
        RULES.append(Rule(sentence.__name__.replace("_", "-"), level, when, sentence, advice))
        return sentence

    return put


def pages(counters: Counters, count: int) -> str:
    return f"{count:,} pages ({size(count * counters.page_size)})"


def stopped(c: Counters) -> bool:
    return "run" in c and c.get("run") & 3 == 0


def has_pages(c: Counters) -> bool:
    return bool(c.items or c.get("ksm_zero_pages"))


def has_none(c: Counters) -> bool:
    """Whether all counters of pages were read, and are 0."""
    return not c.missing and not has_pages(c)


@rule(REMARK, lambda c: stopped(c) and "pages_shared" in c and not c.merged,
      "ask ksm scan what KSM would save here; if it pays: echo 1 > /sys/kernel/mm/ksm/run")  # fmt: skip
def off(c: Counters) -> str:
    return "KSM is off (run is 0), and nothing is merged"


@rule(PROBLEM, lambda c: stopped(c) and bool(c.merged),
      "echo 1 > /sys/kernel/mm/ksm/run to go on, or 2 to unmerge everything, which takes again what is saved")  # fmt: skip
def stopped_with_merged_pages(c: Counters) -> str:
    return f"ksmd is stopped (run is 0): {pages(c, c.merged)} stay merged, writes take them apart, and nothing new merges"


@rule(REMARK, lambda c: c.get("run") & 3 == 2 and "pages_shared" in c and not c.merged, "echo 1 > /sys/kernel/mm/ksm/run to merge again")
def unmerged(c: Counters) -> str:
    return "run is 2: everything was unmerged, and ksmd is stopped; what is registered stays registered"


@rule(PROBLEM, lambda c: c.get("run") & 3 == 2 and bool(c.merged), "read again in a minute; if they stay, look for out of memory in dmesg")
def unmerging(c: Counters) -> str:
    return f"run is 2, and {pages(c, c.merged)} are merged: they are being unmerged now, or a count is wrong"


@rule(REMARK, lambda c: bool(c.get("run") & 4), "wait until the memory is offline")
def going_offline(c: Counters) -> str:
    return f"run is {c.get('run')}: ksmd waits while memory goes offline"


@rule(PROBLEM, lambda c: c.running and has_none(c) and not c.registered,
      "have programs call madvise(MADV_MERGEABLE) or prctl(PR_SET_MEMORY_MERGE); QEMU does, unless told mem-merge=off")  # fmt: skip
def nothing_registered(c: Counters) -> str:
    return "run is 1, and all counters of pages are 0: no process has asked for KSM, or ksmd has not come to it yet"


@rule(PROBLEM, lambda c: c.running and has_none(c) and c.registered,
      "use private anonymous memory: QEMU without share=on, no memfd, no hugetlbfs; if full_scans does not rise yet, wait")  # fmt: skip
def nothing_eligible(c: Counters) -> str:
    return "processes have asked for KSM, and it has no page of theirs: shared memory, files and hugetlb pages never merge"


@rule(PROBLEM, lambda c: c.running and not c.advised and "pages_to_scan" in c and not c.get("pages_to_scan"),
      "echo 100 > /sys/kernel/mm/ksm/pages_to_scan")  # fmt: skip
def no_pages_to_scan(c: Counters) -> str:
    return "pages_to_scan is 0: ksmd wakes up, and looks at no page"


@rule(PROBLEM, lambda c: c.running and "sleep_millisecs" in c and not c.get("sleep_millisecs") and has_pages(c),
      "echo 20 > /sys/kernel/mm/ksm/sleep_millisecs")  # fmt: skip
def no_sleep(c: Counters) -> str:
    return "sleep_millisecs is 0: ksmd takes a whole processor for as long as there are pages"


@rule(PROBLEM, lambda c: c.running and c.items > 0 and "full_scans" in c and c.get("full_scans") < SETTLED,
      "judge after three passes; a write of 2 to run begins to count again")  # fmt: skip
def not_settled(c: Counters) -> str:
    seconds = c.pass_seconds()
    takes = f", and a pass takes {spell(seconds)} at these knobs ({c.pace()})" if seconds is not None else ""
    return f"not settled: full_scans is {c.get('full_scans')}, a page merges at its second visit at the earliest{takes}"


def wanted(c: Counters) -> int:
    """pages_to_scan for a pass in the advisor's time."""
    return Pace(1, c.get("sleep_millisecs") / 1000, TARGET, 1 << 32).at_once(c.items)


@rule(PROBLEM, lambda c: c.running and (c.pass_seconds() or 0.0) > SLOW,
      "raise pages_to_scan, lower sleep_millisecs, or since 6.8: echo scan-time > /sys/kernel/mm/ksm/advisor_mode")  # fmt: skip
def slow_pass(c: Counters) -> str:
    at = "" if c.advised else f"; pages_to_scan {wanted(c):,} would make it {TARGET} s"
    return f"a pass over {c.items:,} pages takes {spell(c.pass_seconds() or 0.0)} at these knobs ({c.pace()}){at}"


def zero_share(c: Counters) -> float:
    return c.get("ksm_zero_pages") / c.saved if c.saved else 0.0


@rule(REMARK, lambda c: c.kernel >= (6, 6) and zero_share(c) >= MOST_ZEROS,
      "free page reporting or a balloon gives a guest's free pages back without KSM")  # fmt: skip
def only_zeros(c: Counters) -> str:
    return f"{100 * zero_share(c):.1f} % of what is saved are pages of zeros: memory that programs have cleared or not used yet"


@rule(PROBLEM, lambda c: "pages_sharing" in c and c.profit < 0,
      "end MADV_MERGEABLE in processes where nothing merges, or echo 2 > /sys/kernel/mm/ksm/run")  # fmt: skip
def negative_profit(c: Counters) -> str:
    return f"KSM costs more than it saves: {size(c.saved * c.page_size)} saved, {size(c.items * RMAP_ITEM)} of rmap_items"


def works_for_little(c: Counters) -> bool:
    return "pages_sharing" in c and c.profit >= 0 and c.get("pages_unshared") > 4 * max(1, c.saved)


@rule(PROBLEM, works_for_little, "register only memory that has equals")
def mostly_unshared(c: Counters) -> str:
    return f"{pages(c, c.get('pages_unshared'))} are compared in each pass and have no equal, {c.saved:,} do: ksmd works for little"


def mostly_volatile(c: Counters) -> bool:
    return c.knows_trees and 2 * c.volatile > c.items > 0


@rule(PROBLEM, mostly_volatile, "wait for three passes; then register only memory that holds still")
def over_half_volatile(c: Counters) -> str:
    told = "" if "pages_volatile" in c else "; pages_volatile was not read, and follows from the rmap_items"
    return f"{100 * c.volatile / c.items:.1f} % of the pages that ksmd keeps a note of are volatile: {c.volatile:,} of {c.items:,}{told}"


@rule(REMARK, mostly_volatile, "run ksm scan as root: it tells what forks share from what changes")
def forks_count_as_volatile(c: Counters) -> str:
    return (
        "pages_volatile also has pages that hold still: those that processes share since a fork and that have no equal elsewhere, once for "
        f"each further process, with {RMAP_ITEM} bytes of metadata each; pages not visited twice yet; and pages that smart scan skips"
    )


@rule(REMARK, lambda c: 2 * c.get("stable_node_dups") > c.get("pages_shared") > 0,
      "raise max_page_sharing for more savings, at the cost of latency: echo 2 > run, then the new value, then echo 1 > run")  # fmt: skip
def chains_carry_most(c: Counters) -> str:
    dups, chains = c.get("stable_node_dups"), c.get("stable_node_chains")
    limit = f" (max_page_sharing {c.get('max_page_sharing'):,})" if "max_page_sharing" in c else ""
    return f"{dups:,} of {c.get('pages_shared'):,} merged pages are copies in {chains:,} chains: contents with more sharers than fit{limit}"


@rule(REMARK, lambda c: c.get("stable_node_chains") > 0 and c.raw("stable_node_dups") == 0,
      "nothing; while pages_shared is 0, another value in max_page_sharing clears them")  # fmt: skip
def empty_chains(c: Counters) -> str:
    count = c.get("stable_node_chains")
    chains, they = ("chain is", "it takes") if count == 1 else ("chains are", "they take")
    return f"{count:,} {chains} empty and harmless: ksmd drops one when a search meets it, and nothing has; {they} {size(64 * count)}"


def advisor_limits(c: Counters) -> bool:
    pace = c.pace()
    return bool(c.advised and pace and c.items and pace.seconds(c.items) > 1.1 * pace.target)


@rule(PROBLEM, advisor_limits, "raise advisor_max_pages_to_scan or advisor_target_scan_time, or lower sleep_millisecs")
def advisor_cannot_reach_target(c: Counters) -> str:
    pace = c.pace()
    assert pace
    return (
        f"the advisor is to make a pass take {pace.target:g} s, and {c.items:,} pages take {spell(pace.seconds(c.items))} at "
        f"advisor_max_pages_to_scan {pace.most:,} and sleep_millisecs {round(pace.sleep * 1000)}"
    )


def target_cpu(c: Counters) -> float:
    """Percent of a processor that a pass in the target's time takes."""
    return 100 * c.items * VISIT / max(1, c.get("advisor_target_scan_time"))


@rule(PROBLEM, lambda c: c.advised and "advisor_max_cpu" in c and target_cpu(c) > c.get("advisor_max_cpu"),
      "raise advisor_max_cpu or advisor_target_scan_time")  # fmt: skip
def advisor_has_no_cpu(c: Counters) -> str:
    return (
        f"advisor_max_cpu {c.get('advisor_max_cpu')} is less than the {target_cpu(c):.0f} % of a processor that the target takes, "
        f"at {VISIT * 1e6:g} us a page"
    )


@rule(PROBLEM, lambda c: c.advised and c.get("advisor_min_pages_to_scan") > c.get("advisor_max_pages_to_scan", 1 << 63),
      "set advisor_min_pages_to_scan below advisor_max_pages_to_scan")  # fmt: skip
def advisor_least_over_most(c: Counters) -> str:
    least, most = (c.get(f"advisor_{name}_pages_to_scan") for name in ("min", "max"))
    return f"the advisor begins with {least:,} pages, and then gives {most:,} at most"


ADVISOR = {"advisor_max_cpu": 70, "advisor_min_pages_to_scan": 500, "advisor_max_pages_to_scan": 30000, "advisor_target_scan_time": 200}


def set_in_vain(c: Counters) -> list[str]:
    return [name for name, default in ADVISOR.items() if name in c and c.get(name) != default]


@rule(PROBLEM, lambda c: c.raw("advisor_mode") == "none" and bool(set_in_vain(c)), "echo scan-time > /sys/kernel/mm/ksm/advisor_mode")
def advisor_is_off(c: Counters) -> str:
    return f"{', '.join(set_in_vain(c))} {'is' if len(set_in_vain(c)) == 1 else 'are'} set, and the advisor is off"


@rule(REMARK, lambda c: c.advised, "to set it by hand: echo none > /sys/kernel/mm/ksm/advisor_mode, which also puts it back to 100")
def advisor_sets_pages_to_scan(c: Counters) -> str:
    return "the advisor chooses pages_to_scan after each pass: whoever writes it, as ksmtuned does, gets EINVAL"


@rule(REMARK, lambda c: c.raw("merge_across_nodes") == 0 and has_pages(c), "1 saves more, and far memory is slower: echo 2 > run first")
def nodes_apart(c: Counters) -> str:
    return "merge_across_nodes is 0: equal pages of different NUMA nodes do not merge"


@rule(REMARK, lambda c: c.kernel < (6, 6) and c.get("use_zero_pages") == 1,
      "use Linux 6.6 or later, which has ksm_zero_pages, or compare MemAvailable")  # fmt: skip
def zero_pages_not_counted(c: Counters) -> str:
    return "use_zero_pages is 1, and before Linux 6.6 no counter has the zero pages: what is saved is more than pages_sharing"


def may_have_split(c: Counters) -> bool:
    return c.kernel >= (6, 12) and c.merged > 0 and c.get("thp_split_page", 1) > 0


@rule(REMARK, may_have_split, "ksm scan counts them, in a line of its own: zeros of huge pages that are split")
def zeros_of_split_huge_pages(c: Counters) -> str:
    return "since Linux 6.12, parts of zeros of a huge page that is split get the zero page, and no counter of KSM has them"


def losers(c: Counters) -> list[Process]:
    """Processes of which the rmap_items take more than is saved, the worst first."""
    found = [process for process in c.processes if process.items * RMAP_ITEM > process.saved * c.page_size]
    return sorted(found, key=lambda process: process.saved * c.page_size - process.items * RMAP_ITEM)


@rule(PROBLEM, lambda c: bool(losers(c)), "end MADV_MERGEABLE or PR_SET_MEMORY_MERGE there, unless it has only begun")
def process_costs_more(c: Counters) -> str:
    found = losers(c)
    named = [f"{each.name} ({each.items:,} rmap_items, {each.saved:,} pages saved)" for each in found[:NAMED]]
    more = f", and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
    return f"more than {c.page_size // RMAP_ITEM} rmap_items for each page saved: {', '.join(named)}{more}"

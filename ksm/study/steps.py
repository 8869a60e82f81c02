# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recording what KSM does.
"""What each step of a recording means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import ksm
from ksm.study.functions import Source


@dataclass(frozen=True)
class Step:
    """`text` is filled in by the player: {item} is a page of a process, {current} the one that is scanned, {page} a frame, {node} a stable
    node, {fault} who has caused a page fault; {value} and {offset} are those of recorder.pyx. Where more depends on what has happened
    before, replay.js has the words. anchors.py has the lines that take the step."""

    name: str
    function: str
    text: str
    kind: str = ""  # what it means for the page: seen, volatile, unstable, stable, broken; or compare, merge, pass


STEPS = (
    Step("NOTE", "", ""),
    Step("PASS_BEGINS", "scan_get_next_rmap_item",
         "A pass begins, after {value} others: the unstable tree is dropped, the cursor goes to the first process.", "pass"),
    Step("NEXT", "ksm_do_scan", "The cursor comes to {item}, which is in frame {page}.", "seen"),
    Step("SKIPPED", "should_skip_rmap_item", "{item} is skipped by smart scan, which goes by its age. Skips left: {value}.", "volatile"),
    Step("PASS_ENDS", "scan_get_next_rmap_item", "The pass ends. Passes so far: {value}.", "pass"),
    Step("AT_ITS_NODE", "cmp_and_merge_page", "{item} is merged already, and its item is at the node of frame {page}: nothing to do."),
    Step("FORKED", "cmp_and_merge_page",
         "{item} maps the merged frame {page}, and its item is not at the node yet: after a fork, or because the node has moved."),
    Step("NODE_MOVED", "cmp_and_merge_page", "Frame {page} is on another NUMA node than its tree: its stable node waits in migrate_nodes."),
    Step("CHANGED", "cmp_and_merge_page", "{checksum} It is remembered, and the page left alone.", "volatile"),
    Step("UNCHANGED", "cmp_and_merge_page",
         "The checksum of {item} is that of the last visit: the page has kept still since, and may be merged."),
    Step("ZERO_MERGED", "cmp_and_merge_page", "{item} holds nothing but zeros, and shares the zero page now.", "stable"),
    Step("STABLE_COMPARE", "stable_tree_search",
         "In the stable tree: {current} is compared with the merged frame {page}: {compared}.", "compare"),
    Step("STABLE_FOUND", "cmp_and_merge_page", "An equal page is merged already: frame {page}.", "merge"),
    Step("STABLE_MISS", "cmp_and_merge_page", "{miss}"),
    Step("STABLE_FULL", "stable_tree_search", "{full}"),
    Step("STABLE_BUSY", "cmp_and_merge_page", "The equal page is locked by somebody: another time."),
    Step("NODE_STALE", "remove_node_from_stable_tree",
         "Frame {value} is no merged page any more: its stable node goes, and lets its items go.", "broken"),
    Step("LEFT_STABLE", "remove_rmap_item_from_tree", "{item} leaves its stable node{mapped}.", "broken"),
    Step("LEFT_UNSTABLE", "remove_rmap_item_from_tree", "{item} {left}.", "left"),
    Step("UNSTABLE_COMPARE", "unstable_tree_search_insert",
         "In the unstable tree: {current} is compared with {item}, in frame {page}: {compared}.", "compare"),
    Step("UNSTABLE_INSERTED", "unstable_tree_search_insert",
         "No equal on the way down: {item} becomes a leaf of the unstable tree, red at first.", "unstable"),
    Step("UNSTABLE_GAVE_UP", "unstable_tree_search_insert", "The search ends at {item}: {gone}. The scanned page is in no tree."),
    Step("UNSTABLE_FOUND", "unstable_tree_search_insert", "An equal: {item}, in frame {page}. The two can become one.", "merge"),
    Step("WRITE_PROTECTED", "try_to_merge_one_page", "{protected}"),
    Step("NOT_PROTECTED", "try_to_merge_one_page",
         "Frame {page} cannot be write-protected: it has more references than mappings, and somebody may be writing to it; or "
         "its mapping has changed. No merge."),
    Step("BECAME_KSM", "try_to_merge_one_page", "Frame {page} becomes a merged page, without a node as yet.", "merge"),
    Step("REPLACED", "try_to_merge_one_page", "{replaced}", "merge"),
    Step("DIFFERS", "try_to_merge_one_page", "Compared once more, now that it holds still: not equal. No merge."),
    Step("MERGED", "cmp_and_merge_page", "{item} {merged} frame {page}.", "merge"),
    Step("TWO_MERGED", "cmp_and_merge_page", "Two pages {became}.", "merge"),
    Step("APPENDED", "stable_tree_append", "{item} is entered at the stable node. Sharers there: {value}.", "stable"),
    Step("INSERT_COMPARE", "stable_tree_insert", "A place for the new node: compared with frame {page}: {compared}.", "compare"),
    Step("STABLE_INSERTED", "stable_tree_insert", "Frame {page} gets a stable node, which goes into the stable tree.", "merge"),
    Step("CHAIN_MADE", "alloc_stable_node_chain", "A chain takes the place of the node in the tree, and the node hangs in it.", "merge"),
    Step("DUP_ADDED", "stable_tree_insert",
         "Frame {page} has the contents of one that is full: its node joins the chain as a dup.", "merge"),
    Step("BREAK_COW", "break_cow", "The merge could not be completed: {item} does not stay at a merged page.", "broken"),
    Step("BREAK_KSM", "break_ksm", "A fault is asked for at page {value} of {process}, to copy the merged frame {page}.", "broken"),
    Step("COW", "",
         "Page fault{fault} do_wp_page() in mm/memory.c finds that it is not its own, and wp_page_copy() gives it a copy.", "broken"),
)
NAMES = tuple(step.name for step in STEPS)


def names_of_enum() -> tuple[str, ...]:
    """The steps as ksm/step.pxd has them: STEPS is in that order."""
    text = (Path(ksm.__file__).parent / "step.pxd").read_text()
    return tuple(re.findall(r"^    STEP_(\w+)", text, re.MULTILINE))


def era_of(source: Source) -> str:
    """The era of a machine that takes its steps in the order of this version; "" if none does.

    It is told by the text: a file may come without its version, and distributions take over what is newer.
    """
    names, text = source.functions, "\n".join(source.lines)
    if "is_page_sharing_candidate" not in names:
        return "" if "merge_across_nodes" in text else "2.6.38"
    function = names.get("cmp_and_merge_page")
    body = source.lines[function.first - 1:function.last] if function else []
    places = [next((number for number, line in enumerate(body) if re.search(sign, line)), -1)
              for sign in (r"= calc_checksum\(", r"= stable_tree_search\(")]
    if -1 in places:
        return ""
    if places[0] < places[1]:
        return "7.3" if re.search(r"->linear_page_index\b", text) else "6.12"
    return "" if "should_skip_rmap_item" in names else "6.1"

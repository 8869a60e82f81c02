# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recording what KSM does.
"""What each step of a recording means, and where it is taken, in the kernel's file and in the port's."""

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
    before, replay.js has the words. `anchors` find the line in the kernel's function: the first of them that is there, for versions differ.
    The port's line is the one that names the step, or that PORT finds in the function."""

    name: str
    function: str
    anchors: str | tuple[str, ...]
    text: str
    kind: str = ""  # what it means for the page: seen, volatile, unstable, stable, broken; or compare, merge, pass


UNSTABLE = "unstable_tree_search_insert"

STEPS = (
    Step("NOTE", "", "", ""),
    Step("PASS_BEGINS", "scan_get_next_rmap_item", r"root_unstable_tree(?:\[nid\])? = RB_ROOT",
         "A pass begins, after {value} others: the unstable tree is dropped, the cursor goes to the first process.", "pass"),
    Step("NEXT", "ksm_do_scan", r"cmp_and_merge_page\(", "The cursor comes to {item}, which is in frame {page}.", "seen"),
    Step("SKIPPED", "should_skip_rmap_item", r"ksm_pages_skipped\+\+|remaining_skips--",
         "{item} is skipped by smart scan, which goes by its age. Skips left: {value}.", "volatile"),
    Step("PASS_ENDS", "scan_get_next_rmap_item", r"ksm_scan\.seqnr\+\+", "The pass ends. Passes so far: {value}.", "pass"),
    Step("AT_ITS_NODE", "cmp_and_merge_page", r"rmap_item->head == stable_node",
         "{item} is merged already, and its item is at the node of frame {page}: nothing to do."),
    Step("FORKED", "cmp_and_merge_page", r"is_page_sharing_candidate\(stable_node\)",
         "{item} maps the merged frame {page}, and its item is not there yet: a fork's, or the page's of a moved node."),
    Step("NODE_MOVED", "cmp_and_merge_page", r"list_add\(&stable_node->list",
         "Frame {page} is on another NUMA node than its tree: its stable node waits in migrate_nodes."),
    Step("CHANGED", "cmp_and_merge_page", r"oldchecksum = checksum",
         "{checksum} It is remembered, and the page left alone.", "volatile"),
    Step("UNCHANGED", "cmp_and_merge_page", r"oldchecksum != checksum",
         "The checksum of {item} is that of the last visit: the page has kept still since, and may be merged."),
    Step("ZERO_MERGED", "cmp_and_merge_page", r"try_to_merge_with_zero_page|ksm_use_zero_pages",
         "{item} holds nothing but zeros, and shares the zero page now.", "stable"),
    Step("STABLE_COMPARE", "stable_tree_search", r"memcmp_pages",
         "In the stable tree: {current} is compared with the merged frame {page}: {compared}.", "compare"),
    Step("STABLE_FOUND", "cmp_and_merge_page", r"if \(k(?:page|folio)\)", "An equal page is merged already: frame {page}.", "merge"),
    Step("STABLE_MISS", "cmp_and_merge_page", r"= stable_tree_search\(", "{miss}"),
    Step("STABLE_FULL", "stable_tree_search", (r"!is_page_sharing_candidate\(stable_node_dup\)", r"^ {24}if \(!stable_node_dup\)"),
         "{full}"),
    Step("STABLE_BUSY", "cmp_and_merge_page", r"-EBUSY", "The equal page is locked by somebody: another time."),
    Step("NODE_STALE", "remove_node_from_stable_tree", r"free_stable_node\(",
         "Frame {value} is no merged page any more: its stable node goes, and lets its items go.", "broken"),
    Step("LEFT_STABLE", "remove_rmap_item_from_tree", (r"rmap_item->head = NULL", r"hlist_del\("),
         "{item} leaves its stable node{mapped}.", "broken"),
    Step("LEFT_UNSTABLE", "remove_rmap_item_from_tree", r"ksm_pages_unshared--",
         "{item} {left}.", "left"),
    Step("UNSTABLE_COMPARE", "unstable_tree_search_insert", r"memcmp_pages",
         "In the unstable tree: {current} is compared with {item}, in frame {page}: {compared}.", "compare"),
    Step("UNSTABLE_INSERTED", "unstable_tree_search_insert", r"rb_insert_color",
         "No equal on the way down: {item} becomes a leaf of the unstable tree, red at first.", "unstable"),
    Step("UNSTABLE_GAVE_UP", UNSTABLE, r"if \((?:!tree_page|IS_ERR_OR_NULL\(tree_page\))\)",
         "The search ends at {item}: {gone}. The scanned page is in no tree."),
    Step("UNSTABLE_FOUND", "unstable_tree_search_insert", r"\*tree_pagep = tree_page",
         "An equal: {item}, in frame {page}. The two can become one.", "merge"),
    Step("WRITE_PROTECTED", "try_to_merge_one_page", r"write_protect_page\(vma",
         "Frame {page} is write-protected: nobody can change it now."),
    Step("NOT_PROTECTED", "try_to_merge_one_page", r"write_protect_page\(vma",
         "Frame {page} cannot be write-protected: it has more references than mappings, and somebody may be writing to it; or its mapping "
         "has changed. No merge."),
    Step("BECAME_KSM", "try_to_merge_one_page", r"set_stable_node\(|set_page_stable_node",
         "Frame {page} becomes a merged page, without a node as yet.", "merge"),
    Step("REPLACED", "try_to_merge_one_page", r"= replace_page\(",
         "{replaced}", "merge"),
    Step("DIFFERS", "try_to_merge_one_page", r"pages_identical\(", "Compared once more, now that it holds still: not equal. No merge."),
    Step("MERGED", "cmp_and_merge_page", r"try_to_merge_with_ksm_page\(rmap_item", "{item} {merged} frame {page}.", "merge"),
    Step("TWO_MERGED", "cmp_and_merge_page", r"try_to_merge_two_pages\(", "Two pages {became}.", "merge"),
    Step("APPENDED", "stable_tree_append", r"hlist_add_head\(&rmap_item->hlist",
         "{item} is entered at the stable node. Sharers there: {value}.", "stable"),
    Step("INSERT_COMPARE", "stable_tree_insert", r"memcmp_pages",
         "A place for the new node: compared with frame {page}: {compared}.", "compare"),
    Step("STABLE_INSERTED", "stable_tree_insert", r"(?:folio_set|set_page)_stable_node\(",
         "Frame {page} gets a stable node, which goes into the stable tree.", "merge"),
    Step("CHAIN_MADE", "alloc_stable_node_chain", r"rb_replace_node",
         "A chain takes the place of the node in the tree, and the node hangs in it.", "merge"),
    Step("DUP_ADDED", "stable_tree_insert", r"stable_node_chain_add_dup\(",
         "Frame {page} has the contents of one that is full: its node joins the chain as a dup.", "merge"),
    Step("BREAK_COW", "break_cow", r"break_ksm\(", "The merge could not be completed: {item} does not stay at a merged page.", "broken"),
    Step("BREAK_KSM", "break_ksm", r"handle_mm_fault\(",
         "A fault is asked for at page {value} of {process}, to copy the merged frame {page}.", "broken"),
    Step("COW", "", "", "Page fault{fault} do_wp_page() in mm/memory.c finds that it is not its own, and wp_page_copy() gives it a copy.",
         "broken"),
)
NAMES = tuple(step.name for step in STEPS)

# A search of the unstable tree gives up for one of three reasons, each with a line of its own: what finds it on either side.
GAVE_UP = {
    "gone": (r"if \((?:!tree_page|IS_ERR_OR_NULL\(tree_page\))\)", "if tree_page == NULL"),
    "same": (r"if \(page == tree_page\)", "if page == tree_page"),
    "node": (r"page_to_nid\(tree_page\) != nid", r"page_to_nid\(tree_page\) != nid"),
}

# Steps that no call of ksm_step() in the port's function names: a seam or the recorder makes them. What finds their lines
PORT = {
    "NEXT": r"scan_ahead\(",
    "PASS_ENDS": r"ksm_scan\.seqnr \+= 1",
    "STABLE_COMPARE": r"memcmp_pages\(",
    "STABLE_FOUND": "STABLE_SEARCHED",
    "STABLE_MISS": r"= stable_tree_search\(",
    "STABLE_BUSY": "-EBUSY",
    "UNSTABLE_COMPARE": r"memcmp_pages\(",
    "UNSTABLE_INSERTED": r"rb_insert_color\(",
    "UNSTABLE_GAVE_UP": "if tree_page == NULL",
    "UNSTABLE_FOUND": r"tree_pagep\[0\] = tree_page",
    "INSERT_COMPARE": r"memcmp_pages\(",
}


def names_of_enum() -> tuple[str, ...]:
    """The steps as ksm/step.pxd has them: STEPS is in that order."""
    text = (Path(ksm.__file__).parent / "step.pxd").read_text()
    return tuple(re.findall(r"^    STEP_(\w+)", text, re.MULTILINE))


def kernel_line(step: Step, source: Source) -> int:
    """The line where this version of mm/ksm.c takes the step; 0 if it does not take it."""
    anchors = (step.anchors,) if isinstance(step.anchors, str) else step.anchors
    return next(filter(None, (line_with(source, step.function, anchor) for anchor in anchors)), 0)


def gave_up_lines(source: Source | None, port: Source) -> dict[str, list[int]]:
    """The line of the kernel and that of the port for each reason of a search to give up; 0 if there is none."""
    return {reason: [line_with(source, UNSTABLE, theirs) if source else 0, line_with(port, UNSTABLE, ours)]
            for reason, (theirs, ours) in GAVE_UP.items()}


def line_with(source: Source, name: str, sign: str) -> int:
    """The first line of a function with something in it; 0 if no line has it, or without the function."""
    function = source.functions.get(name)
    lines = range(function.first, function.last + 1) if function else ()
    return next((number for number in lines if re.search(sign, source.lines[number - 1])), 0)


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


def port_lines(step: Step, source: Source) -> list[int]:
    """The lines where the port takes the step. Of two lines the later one is that of 6.1 or 2011, or of a rarer reason."""
    if step.name not in PORT:
        return [number for number, line in enumerate(source.lines, 1) if "ksm_step(" in line and re.search(rf"\bSTEP_{step.name}\b", line)]
    functions = [source.functions[name] for name in (step.function, f"{step.function}_2011") if name in source.functions]
    lines = [number for function in functions for number in range(function.first, function.last + 1)]
    return [number for number in lines if re.search(PORT[step.name], source.lines[number - 1])]

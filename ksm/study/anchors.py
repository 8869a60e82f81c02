# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recording what KSM does.
"""The line that takes each step of a recording: in mm/ksm.c of each era's kernel, and in the port when it runs that era.

A step has an anchor: a function, and a sign that finds one line of it. What a recording says of a step may decide between several anchors
("case"). anchors.json has the line's number and hash in a version of each era, and nothing of its text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ksm.study.eras import ERAS, unreached
from ksm.study.functions import Source
from ksm.study.steps import NAMES, Step

ANCHORS = Path(__file__).with_name("anchors.json")
KSM, MEMORY = "mm/ksm.c", "mm/memory.c"
_2011, _6_1, _6_12, _7_3 = ERAS
OLD, NEW, NOT_2011 = ERAS[:2], ERAS[2:], ERAS[1:]


class AnchorError(LookupError):
    """A step has no line in an era, or several. The text says which."""


@dataclass(frozen=True)
class Anchor:
    """The line of `function` that `sign` finds, and no other line of it. In the port the function may have another name: `ours`."""

    function: str
    sign: str
    ours: str  # the sign in the port
    eras: Sequence[str] = ERAS
    case: str = ""
    file: str = KSM
    at: str = ""  # the function in the port, if it is another one


VISIT, VISIT_2011, CHANGED_6_1 = "cmp_and_merge_page", "cmp_and_merge_page_2011", "page_changed"
SEARCH, UNSTABLE, INSERT, MERGE = "stable_tree_search", "unstable_tree_search_insert", "stable_tree_insert", "try_to_merge_one_page"
SCAN, LEAVE = "scan_get_next_rmap_item", "remove_rmap_item_from_tree"


def visit(sign: str, ours: str) -> tuple[Anchor, ...]:
    """A line of cmp_and_merge_page(), of which the port has another one for 2011."""
    return (Anchor(VISIT, sign, ours, NOT_2011), Anchor(VISIT, sign, ours, (_2011,), at=VISIT_2011))


# No line of the kernel takes these: a note is the program's own.
WITHOUT = ("NOTE",)

OF_STEP: Mapping[str, tuple[Anchor, ...]] = {
    "PASS_BEGINS": (Anchor(SCAN, r"root_unstable_tree(?:\[nid\])? = RB_ROOT", r"root_unstable_tree\[nid\]\.rb_node = NULL"),),
    "NEXT": (Anchor("ksm_do_scan", r"= scan_get_next_rmap_item\(", r"= scan_ahead\("),),
    "SKIPPED": (Anchor("should_skip_rmap_item", r"remaining_skips--", r"remaining_skips -= 1", NEW),),
    "PASS_ENDS": (Anchor(SCAN, r"ksm_scan\.seqnr\+\+", r"ksm_scan\.seqnr \+= 1"),),
    "AT_ITS_NODE": (Anchor(VISIT, r"^\s+rmap_item->head == stable_node\)", r"migrate_nodes and rmap_item\.head == stable_node", NOT_2011),),
    "FORKED": (
        Anchor(SEARCH, r"if \(stable_node\)", r"^    if stable_node != NULL", (_2011,), at=VISIT_2011),
        Anchor(VISIT, r"!is_page_sharing_candidate\(stable_node\)", r"not is_page_sharing_candidate\(g, stable_node\)", NOT_2011)),
    "NODE_MOVED": (Anchor(VISIT, r"list_add\(&stable_node->list", r"list_add\(&stable_node\.list", NOT_2011),),
    "CHANGED": (
        Anchor(VISIT, r"oldchecksum = checksum", r"oldchecksum = checksum", OLD, at=CHANGED_6_1),
        Anchor(VISIT, r"oldchecksum = checksum", r"oldchecksum = checksum", NEW)),
    "UNCHANGED": (
        Anchor(VISIT, r"oldchecksum != checksum", r"oldchecksum != checksum", OLD, at=CHANGED_6_1),
        Anchor(VISIT, r"oldchecksum != checksum", r"oldchecksum != checksum", NEW)),
    "ZERO_MERGED": (
        Anchor(VISIT, r"try_to_merge_one_page\(", r"if not try_to_merge_with_zero_page\(", (_6_1,)),
        Anchor(VISIT, r"try_to_merge_with_zero_page\(", r"if not try_to_merge_with_zero_page\(", NEW)),
    "STABLE_COMPARE": (Anchor(SEARCH, r"= memcmp_pages\(", r"= memcmp_pages\("),),
    "STABLE_FOUND": visit(r"^ {8}if \(k(?:page|folio)\)", r"^    if kpage != NULL"),
    "STABLE_MISS": visit(r"= stable_tree_search\(", r"= stable_tree_search\("),
    "STABLE_FULL": (
        Anchor(SEARCH, r"^ {24}if \(!stable_node_dup\)", r"not is_page_sharing_candidate\(g, stable_node_dup\)", (_6_1,)),
        Anchor(SEARCH, r"!is_page_sharing_candidate\(stable_node_dup\)", r"not is_page_sharing_candidate\(g, stable_node_dup\)", NEW)),
    "STABLE_BUSY": (Anchor(VISIT, r"-EBUSY", r"-EBUSY", NOT_2011),),
    "NODE_STALE": (Anchor("remove_node_from_stable_tree", r"free_stable_node\(", r"free_stable_node\("),),
    "LEFT_STABLE": (Anchor(LEAVE, r"hlist_del\(", r"hlist_del\("),),
    "LEFT_UNSTABLE": (
        Anchor(LEAVE, r"rb_erase\(", r"rb_erase\(", case="tree"),
        Anchor(LEAVE, r"ksm_pages_unshared--", r"ksm_pages_unshared -= 1", case="mark")),
    "UNSTABLE_COMPARE": (Anchor(UNSTABLE, r"= memcmp_pages\(", r"= memcmp_pages\("),),
    "UNSTABLE_INSERTED": (Anchor(UNSTABLE, r"rb_insert_color\(", r"rb_insert_color\("),),
    # A search gives up for one of three reasons.
    "UNSTABLE_GAVE_UP": (
        Anchor(UNSTABLE, r"if \((?:!tree_page|IS_ERR_OR_NULL\(tree_page\))\)", r"if tree_page == NULL", case="gone"),
        Anchor(UNSTABLE, r"if \(page == tree_page\)", r"if page == tree_page", case="same"),
        Anchor(UNSTABLE, r"page_to_nid\(tree_page\) != nid", r"page_to_nid\(tree_page\) != nid", NOT_2011, case="node")),
    "UNSTABLE_FOUND": (Anchor(UNSTABLE, r"\*tree_pagep = tree_page", r"tree_pagep\[0\] = tree_page"),),
    "WRITE_PROTECTED": (Anchor(MERGE, r"write_protect_page\(vma", r"write_protect_page\(vma"),),
    "NOT_PROTECTED": (Anchor(MERGE, r"write_protect_page\(vma", r"write_protect_page\(vma"),),
    "BECAME_KSM": (Anchor(MERGE, r"set_(?:page_)?stable_node\(", r"folio_set_stable_node\("),),
    "REPLACED": (Anchor(MERGE, r"= replace_page\(", r"= replace_page\("),),
    "DIFFERS": (Anchor(MERGE, r"pages_identical\(", r"pages_identical\("),),
    "MERGED": visit(r"= try_to_merge_with_ksm_page\(", r"= try_to_merge_with_ksm_page\("),
    "TWO_MERGED": visit(r"= try_to_merge_two_pages\(", r"= try_to_merge_two_pages\("),
    "APPENDED": (Anchor("stable_tree_append", r"hlist_add_head\(&rmap_item->hlist", r"hlist_add_head\(&rmap_item\.hlist"),),
    "INSERT_COMPARE": (Anchor(INSERT, r"= memcmp_pages\(", r"= memcmp_pages\("),),
    "STABLE_INSERTED": (Anchor(INSERT, r"rb_insert_color\(", r"rb_insert_color\("),),
    "CHAIN_MADE": (Anchor("alloc_stable_node_chain", r"rb_replace_node\(", r"rb_replace_node\(", NOT_2011),),
    "DUP_ADDED": (Anchor(INSERT, r"stable_node_chain_add_dup\(", r"stable_node_chain_add_dup\(", NOT_2011),),
    "BREAK_COW": (Anchor("break_cow", r"break_ksm\(vma", r"break_ksm\(vma"),),
    "BREAK_KSM": (Anchor("break_ksm", r"= handle_mm_fault\(", r"= handle_mm_fault\("),),
    "COW": (
        Anchor("do_wp_page", r"cow_user_page\(", r"copy_highpage\(", (_2011,), file=MEMORY, at="wp_page_copy"),
        Anchor("wp_page_copy", r"__wp_page_copy_user\(", r"copy_highpage\(", NOT_2011, file=MEMORY)),
}


def case_of(step: Sequence[int]) -> str:
    """Which of several anchors a step of a recording has; "" if its kind of step has one. lens.js does the same."""
    name, page, value = NAMES[step[0]], step[2], step[4]
    if name == "UNSTABLE_GAVE_UP":
        return "node" if value == 1 else "gone" if page < 0 else "same"
    if name == "LEFT_UNSTABLE":
        return "mark" if value else "tree"
    return ""


def anchors(name: str, era: str) -> dict[str, Anchor]:
    """The anchors of a kind of step in an era, by case."""
    return {anchor.case: anchor for anchor in OF_STEP.get(name, ()) if era in anchor.eras}


def line_of(source: Source, function: str, sign: str, without: Container[int] = ()) -> int:
    """The one line of a function with something in it, other than some lines. AnchorError."""
    found = source.functions.get(function)
    if found is None:
        raise AnchorError(f"there is no {function}()")
    lines = [number for number in range(found.first, found.last + 1) if re.search(sign, source.lines[number - 1]) and number not in without]
    if len(lines) != 1:
        raise AnchorError(f"{len(lines)} lines of {function}() have {sign}")
    return lines[0]


def kernel_line(anchor: Anchor, source: Source) -> int:
    """The line of the kernel's file. AnchorError."""
    return line_of(source, anchor.function, anchor.sign)


def port_line(anchor: Anchor, source: Source, era: str) -> int:
    """The line of the port's file that runs in the era. AnchorError."""
    name = anchor.at or anchor.function
    return line_of(source, name, anchor.ours, unreached(source.functions[name], era) if name in source.functions else ())


def lines(step: Step, era: str, source: Source | None, file: str = KSM, *, port: bool = False) -> dict[str, int]:
    """The line of each case of a step in a file; a case that the file does not have is left out."""
    found = {}
    for case, anchor in anchors(step.name, era).items():
        if source is not None and anchor.file == file:
            try:
                found[case] = port_line(anchor, source, era) if port else kernel_line(anchor, source)
            except AnchorError:
                continue
    return found


def hash_of(text: str) -> str:
    """A line's hash. Spaces do not count."""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:16]


def table_of(era: str, sources: Mapping[str, Source]) -> dict[str, list[object]]:
    """What anchors.json keeps of a version: for each step and case, the file, the function, the line's number and its hash. AnchorError."""
    result: dict[str, list[object]] = {}
    for name in OF_STEP:
        for case, anchor in anchors(name, era).items():
            if source := sources.get(anchor.file):
                line = kernel_line(anchor, source)
                result[f"{name}:{case}" if case else name] = [anchor.file, anchor.function, line, hash_of(source.lines[line - 1])]
    return result


@cache
def known() -> dict[str, dict[str, list[object]]]:
    """anchors.json: the table of each era."""
    found: dict[str, dict[str, list[object]]] = {era: table["lines"] for era, table in json.loads(ANCHORS.read_text()).items()}
    return found


def versions() -> dict[str, str]:
    """The version that was read for each era. That of 2.6.38 was computed: docs/eras.md says how."""
    return {era: table["version"] for era, table in json.loads(ANCHORS.read_text()).items()}

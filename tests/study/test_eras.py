# SPDX-License-Identifier: GPL-2.0-only
"""Which lines of the port run in which era."""

import os
import re
from pathlib import Path

import pytest

from ksm.study.anchors import hash_of
from ksm.study.eras import ERAS, absent, asks, unreached
from ksm.study.functions import c_source, cython_source
from ksm.study.lens import running, section_eras
from ksm.study.pairing import read_port

pytestmark = pytest.mark.once

ERAS_DOC = Path(__file__).parents[2] / "docs/eras.md"

# Pieces of functions that run in some eras only: the function, the eras, the first line of the piece, and how many lines of code it has.
PIECES = [
    ("break_cow", "7.3", "if since_7_3(g):", 2),
    ("remove_node_from_stable_tree", "7.3", "if since_7_3(g):", 2),
    ("ksm_get_folio_at", "6.1 6.12 7.3", "cpu_relax()", 1),
    ("remove_rmap_item_from_tree", "7.3", "if since_7_3(g):", 2),
    ("unmerge_and_remove_all_rmap_items", "6.1 6.12 7.3", "if not era_2011(g):", 2),
    ("calc_checksum", "2.6.38", "if era_2011(g):", 2),
    ("calc_checksum", "6.1 6.12 7.3", "checksum = <u32>xxhash(addr, PAGE_SIZE, 0)", 1),
    ("write_protect_pte", "2.6.38", "if anon_exclusive:", 2),
    ("replace_pte", "2.6.38 6.1", "newpte = pte_mkspecial(pfn_pte(page_to_pfn(m, kpage), vma.vm_page_prot))", 1),
    ("replace_pte", "6.12 7.3", "else:", 2),
    ("try_to_merge_one_page", "6.1 6.12 7.3", "if not PageDirty(page) and not era_2011(globals_of(vma.vm_mm)):", 2),
    ("try_to_merge_with_ksm_page", "6.1 6.12 7.3", "if not era_2011(g):", 2),
    ("try_to_merge_with_ksm_page", "7.3", "if since_7_3(g):", 2),
    ("stable_tree_search", "2.6.38", "if era_2011(g) and ret == 0:", 2),
    ("stable_tree_insert", "2.6.38", "if era_2011(g):", 2),
    ("stable_tree_insert", "6.1 6.12 7.3", "again = True", 2),
    ("stable_tree_insert", "2.6.38", "if era_2011(g):", 2),
    ("stable_tree_insert", "6.1 6.12 7.3", "need_chain = True", 2),
    ("cmp_and_merge_page", "6.12 7.3", "elif not until_6_1(g):", 11),
    ("cmp_and_merge_page", "6.1", "if until_6_1(g):", 6),
    ("should_skip_rmap_item", "7.3", "if since_7_3(g) and rmap_item.address & STABLE_FLAG:", 2),
    ("ksm_do_scan", "2.6.38", "cmp_and_merge_page_2011(g, page, rmap_item)", 1),
    ("ksm_do_scan", "6.1 6.12 7.3", "else:", 2),
    ("__ksm_enter", "6.1 6.12 7.3", "list_add_tail(&slot.mm_node, &g.ksm_mm_head.slot.mm_node)", 1),
    ("rmap_walk_ksm", "7.3", "if since_7_3(globals_of(vma.vm_mm)) and not has_index(vma, rmap_item):", 2),
    ("collect_procs_ksm", "7.3", "if since_7_3(globals_of(vma.vm_mm)) and not has_index(vma, rmap_item):", 2),
    ("ksm_attrs_init", "6.12 7.3", 'ksm_attr(g, b"pages_scanned", pages_scanned_show, NULL, ERA_6_12)', 1),
    ("ksm_attrs_init", "6.12 7.3", 'ksm_attr(g, b"pages_skipped", pages_skipped_show, NULL, ERA_6_12)', 2),
    ("ksm_attrs_init", "6.1 6.12 7.3", 'ksm_attr(g, b"merge_across_nodes", merge_across_nodes_show, merge_across_nodes_store, ERA_6_1)', 7),
    ("ksm_attrs_init", "6.12 7.3", 'ksm_attr(g, b"general_profit", general_profit_show, NULL, ERA_6_12)', 7),
]

# Functions that run in some eras only.
WHOLE = {
    "2.6.38": ["cmp_and_merge_page_2011"],
    "2.6.38 6.1": ["page_changed"],
    "6.1 6.12 7.3": [
        "remove_stable_node", "remove_stable_node_chain", "remove_all_stable_nodes", "try_to_merge_with_zero_page", "cmp_and_merge_page",
        "merge_across_nodes_show", "merge_across_nodes_store", "use_zero_pages_show", "use_zero_pages_store", "max_page_sharing_show",
        "max_page_sharing_store", "stable_node_dups_show", "stable_node_chains_show", "stable_node_chains_prune_millisecs_show",
        "stable_node_chains_prune_millisecs_store"],
    "6.12 7.3": [
        "set_advisor_defaults", "pages_scanned_show", "pages_skipped_show", "ksm_zero_pages_show", "general_profit_show", "smart_scan_show",
        "smart_scan_store", "advisor_mode_show", "advisor_mode_store", "advisor_max_cpu_show", "advisor_max_cpu_store",
        "advisor_min_pages_to_scan_show", "advisor_min_pages_to_scan_store", "advisor_max_pages_to_scan_show",
        "advisor_max_pages_to_scan_store", "advisor_target_scan_time_show", "advisor_target_scan_time_store"],
    "7.3": ["has_index"],
}

# Lines that ask for the era, and run in all of them: a part of an expression depends on the era, and what follows runs either way.
WITHIN = [
    "cdef bint y2011 = era == ERA_2_6_38", "g.ksm_smart_scan = era > ERA_6_1",
    "return g.era == ERA_2_6_38", "return g.era <= ERA_6_1", "return g.era >= ERA_7_3",
    "cdef unsigned int unshare = FAULT_FLAG_WRITE if until_6_1(globals_of(vma.vm_mm)) else FAULT_FLAG_UNSHARE",
    "if not folio_test_swapcache(folio) or era_2011(g):", "if READ_ONCE_ulong(stable_node.kpfn) == kpfn or era_2011(g):",
    "rb_erase(&rmap_item.node, g.root_unstable_tree + (0 if era_2011(g) else rmap_item.nid))",
    "until_6_1(g) and not (prune_stale_stable_nodes and is_page_sharing_candidate(g, found))):", "again = not era_2011(g)",
]


def code_of(line):
    return line.partition("#")[0].strip()


def eras_without(lines):
    return " ".join(era for era in ERAS if era not in lines)


def pieces(port):
    """As PIECES, and as WHOLE."""
    found, parts, whole = absent(port), [], {}
    for name, function in port.functions.items():
        lines = range(function.first, function.last + 1)
        never = frozenset.intersection(*(found.get(line, frozenset()) for line in lines))
        if never:
            whole.setdefault(eras_without(never), []).append(name)
        runs = []
        for line in lines:
            if rest := found.get(line, frozenset()) - never:
                if runs and runs[-1][1][-1] == line - 1 and runs[-1][0] == rest:
                    runs[-1][1].append(line)
                else:
                    runs.append((rest, [line]))
        for rest, run in runs:
            code = [code for line in run if (code := code_of(port.lines[line - 1]))]
            parts.append((name, eras_without(rest | never), code[0], len(code)))
    return parts, whole


def test_the_lines_of_each_era():
    """A new branch of the port has to be entered here, and is then dimmed on the page."""
    parts, whole = pieces(read_port())
    assert parts == PIECES
    assert whole == WHOLE


def test_every_line_that_asks_for_the_era_is_known():
    port = read_port()
    found = absent(port)
    for number, line in enumerate(port.lines, 1):
        if not asks(line) or line.startswith(("cdef", "#", "Where")):
            continue
        # The line does not run in each era, or the one after it does not, or it is one of WITHIN; or it makes a file of 2.6.38 on.
        near = number in found or number + 1 in found or "ERA_2_6_38)" in line
        assert near or code_of(line) in WITHIN or any(code_of(line).startswith(each) for each in WITHIN), line
    assert all(any(code_of(line).startswith(each) for line in port.lines) for each in WITHIN)


OURS = """
cdef void both(ksm_globals *g) noexcept nogil:
    first(g)
    if era_2011(g) or until_6_1(g):
        old(g)
        return
    elif not since_7_3(g) and asked(g):
        middle(g)
    if not era_2011(g) and since_7_3(g):
        new(g)
    else:
        rest(g)
    while g.more:
        if until_6_1(g):
            break
        after(g)
    last(g)


cdef void old(ksm_globals *g) noexcept nogil:
    deep(g)


cdef void deep(ksm_globals *g) noexcept nogil:
    pass


cdef void middle(ksm_globals *g) noexcept nogil:
    pass
"""


def running_in(source, era):
    found = absent(source)
    return [code for number, line in enumerate(source.lines, 1) if era not in found.get(number, ()) and (code := code_of(line))]


@pytest.mark.parametrize(("era", "runs", "not_there"), [
    ("2.6.38", "first( old(g) return deep(g)", "middle( new( rest( after( last("),
    ("6.1", "first( old(g) return", "middle( new( rest( last("),
    ("6.12", "first( middle(g) rest(g) after(g) last(g)", "old( deep( new( return break"),
    ("7.3", "first( new(g) after(g) last(g)", "old( deep( middle( rest("),
])
def test_branches_returns_and_calls(era, runs, not_there):
    lines = "\n".join(running_in(cython_source(OURS), era))
    assert [each for each in runs.split() if each not in lines] == []
    assert [each for each in not_there.split() if each in lines] == []


# The lines of 2.6.38 that docs/eras.md names, with the hash of each
LINES = {
    155: "2a33de8ffe7aa1ee", 354: "43f11e97d1cf8850", 518: "c26d1133585a0ac1", 526: "744aaab92f97111b",
    572: "8645edfd79c22282", 673: "fb9bcb24ac33cb68", 689: "43924a2dc0f955ea", 731: "775e5cc05ad85e5e",
    817: "12e68cdb8aa556a2", 905: "31f4ebb837e01379", 952: "95afd1502dffb930", 1004: "573f01d52fe52ef5",
    1016: "7362c95474e5cc2b", 1028: "a5a9bab30fcf542a", 1054: "7362c95474e5cc2b", 1071: "fac41d6d417c6689",
    1166: "fb9e975ac0d86c32", 1192: "1e24c407bde849bc", 1195: "cc095a62c977af61", 1218: "d909fa98bc309a15",
    1235: "66be27d4d15ce9ba", 1426: "d1cdc6750f39e90f", 1523: "9adfb0d0260f0871",
}


def test_the_lines_of_2_6_38():
    """Each function of the port that asks for 2011 has a row in docs/eras.md, with the line of 2.6.38 that says so."""
    rows = re.findall(r"^\| `(\w+)\(\)` \| .* \| (?:`(\w+)\(\)`|\(at file level\)) \| (\d+) \|$", ERAS_DOC.read_text(), re.MULTILINE)
    asking = {name for name, function in read_port().functions.items() for line in function.text.split("\n")
              if re.search(r"\bera_2011\(|until_6_1\(|_2011\(|== ERA_2_6_38\b", line.partition("#")[0])}
    assert asking - {"era_2011", "until_6_1"} <= {ours for ours, _, _ in rows} <= read_port().functions.keys()
    assert {int(line) for _, _, line in rows} == LINES.keys()
    found = sorted(Path(os.environ.get("KSM_KERNEL_SOURCES") or "/nowhere").glob("linux-source-2.6.38*/mm/ksm.c"))
    if found:
        source = c_source(found[0].read_text())
        for _, name, line in rows:
            assert hash_of(source.lines[int(line) - 1]) == LINES[int(line)]
            if name:
                assert source.functions[name].first <= int(line) <= source.functions[name].last


def test_a_function_that_cannot_be_read_runs_in_every_era():
    source = cython_source("cdef void odd(ksm_globals *g) noexcept nogil:\n    if era_2011(g) ? 1 : 2:\n        pass\n")
    assert all(unreached(function, era) == frozenset() for function in source.functions.values() for era in ERAS)


def test_cells_and_sections_say_their_eras():
    port = read_port()
    cells = running(port)
    line = next(number for number, text in enumerate(port.lines, 1) if re.match(r" +return jhash2\(", text))
    assert cells[line] == {"data-era": "2.6.38"} and line - 2 not in cells
    assert section_eras("should_skip_rmap_item") == "6.12 7.3" and section_eras("alloc_stable_node_chain") == "6.1 6.12 7.3"
    assert section_eras("cmp_and_merge_page") == section_eras("globals_of") == ""

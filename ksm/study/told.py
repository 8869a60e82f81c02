# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""What the changes of mm/ksm.c mean for a page: what is known of each function, from docs/eras.md; and names that mean the same.

A fact has a sign: it is told if one of two versions has the sign in the function, and the other has not. So it does not matter which
versions they are, nor which of them is the older one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ksm.study.functions import code_hash, without_comments

BEHAVIOUR = "behaviour"  # what a page meets
READ = "read"  # what can be read or asked
CODE = "code"  # neither
TRACE = "trace"  # trace events


@dataclass(frozen=True)
class Fact:
    """`text` says what holds where the sign is, and, where that is not plain, what held before. `since`: the version, if it is known.
    `sign`: what is found in the function's code, "" if the function alone is the sign. `old`: only older versions have the sign, and the
    text says what is otherwise since. `base`: Linux 6.12.117 has the sign."""

    functions: tuple[str, ...]
    since: str
    kind: str
    sign: str
    text: str
    base: bool = True
    old: bool = False

    def found(self, code: str | None) -> bool:
        """Whether a version has the sign. `code`: its function, without comments, and with single spaces; None if it is not there."""
        return code is not None and re.search(self.sign, code) is not None


FACTS: tuple[Fact, ...] = (
    Fact(("cmp_and_merge_page",), "6.11", BEHAVIOUR, r"calc_checksum\(page\).*stable_tree_search\(page\)",
         "The checksum comes before the stable tree. A page that has changed is not looked for in it, so a page that is equal to "
         "a merged one merges at its second visit. Before, it merged at the first."),
    Fact(("cmp_and_merge_page",), "4.11", BEHAVIOUR, "zero_checksum|try_to_merge_with_zero_page",
         "With use_zero_pages, a page of zeros becomes the zero page, and needs neither a node nor an equal."),
    Fact(("cmp_and_merge_page",), "4.13", BEHAVIOUR, "max_page_sharing_bypass",
         "A merged page may have so many sharers that it takes no more: max_page_sharing."),
    Fact(("cmp_and_merge_page",), "3.9", BEHAVIOUR, "migrate_nodes",
         "A merged page that is on another NUMA node than its tree leaves the tree, and waits in migrate_nodes for a place in "
         "the right one."),
    Fact(("cmp_and_merge_page",), "4.17", BEHAVIOUR, r"\bsplit\b",
         "Two equal pages of one huge page merge: the huge page is split first."),
    Fact(("cmp_and_merge_page",), "", BEHAVIOUR, "-EBUSY",
         "An equal page that is locked is left for another time."),
    Fact(("cmp_and_merge_page",), "", CODE, r"\bkfolio\b",
         "Folios in place of pages: nothing follows for a page.", base=False),
    Fact(("stable_tree_search",), "", BEHAVIOUR, "goto again",
         "A stale node on the way makes the search begin again. In 2.6.38 the search ends, and the page waits for a later pass."),
    Fact(("stable_tree_search",), "3.9", BEHAVIOUR, "page_node",
         "A page that is merged may come in, too: its node is put into the tree of its NUMA node."),
    Fact(("stable_tree_search",), "4.13", BEHAVIOUR, "chain_prune",
         "The equal node may be a chain of dups. The dup that has room, and most sharers, is taken."),
    Fact(("stable_tree_search",), "", BEHAVIOUR, "TRYLOCK",
         "An equal page is taken only if nobody has locked it: a thread that moves the page holds its lock."),
    Fact(("stable_tree_search",), "6.11", CODE, r"!is_page_sharing_candidate\(stable_node_dup\)",
         "stable_node_dup() gives a full dup, too, so the search need not ask for any dup of the chain."),
    Fact(("stable_tree_search",), "", CODE, r"static struct folio \*stable_tree_search",
         "The value is a folio: nothing follows for a page.", base=False),
    Fact(("stable_tree_insert",), "", BEHAVIOUR, "goto again",
         "A stale node on the way makes the search begin again. In 2.6.38 the search ends, and the page waits for a later pass."),
    Fact(("stable_tree_insert",), "4.13", BEHAVIOUR, "need_chain",
         "An equal node that is full becomes a chain, which the new node joins. In 2.6.38 the page cannot be inserted, and both "
         "pages are broken."),
    Fact(("stable_tree_insert",), "", CODE, "folio_set_stable_node.*return stable_node_dup",
         "The frame points to its node only when the node is in the tree: a chain that cannot be made leaves no frame behind "
         "with a freed node."),
    Fact(("stable_node_dup",), "6.11", BEHAVIOUR, "hlist_is_singular_node",
         "A chain with one dup left becomes a single node at the next search. Before, it stayed a chain until it was time to "
         "prune, and until the dup had room."),
    Fact(("break_ksm",), "6.2", BEHAVIOUR, "FAULT_FLAG_UNSHARE|break_ksm_ops",
         "A merged page is broken by an unshare fault: the copy is read-only and clean. Before, by a write fault: the copy was "
         "dirty, and writable where its mapping is."),
    Fact(("break_ksm",), "3.9", BEHAVIOUR, "MIGRATION|break_ksm_ops",
         "A page that is just being moved is waited for, and broken. In 2.6.38 it stays merged."),
    Fact(("break_ksm",), "6.6", BEHAVIOUR, "is_ksm_zero_pte|break_ksm_ops",
         "Unmerging breaks zero pages that KSM has placed, as it does merged pages."),
    Fact(("break_ksm",), "6.19", BEHAVIOUR, "walk_page_range_vma",
         "It takes a range, and jumps over holes. Where a file is truncated at that moment (SIGBUS), the rest of the range stays "
         "merged.", base=False),
    Fact(("unmerge_ksm_pages",), "6.19", CODE, "",
         "break_ksm() takes a range: this loop over single pages is gone.", old=True),
    Fact(("break_ksm_pmd_entry",), "6.19", CODE, "",
         "It looks at a whole table for the next merged page: holes cost nothing.", base=False),
    Fact(("break_cow", "remove_rmap_item_from_tree", "remove_node_from_stable_tree"), "7.3", BEHAVIOUR, "linear_page_index",
         "The item gets its checksum and its age anew: they share their place with the index of the merged page. A page that is "
         "no longer merged needs one more visit before it merges again, and smart scan does not skip it by its old age.", base=False),
    Fact(("try_to_merge_with_ksm_page",), "7.3", BEHAVIOUR, "linear_page_index",
         "The item takes the page's index, by which those who map the page are found. It lies over the checksum and the age.", base=False),
    Fact(("rmap_walk_ksm", "collect_procs_ksm"), "7.3", CODE, "linear_page_index|index, index",
         "Only the mappings that have the page's index are asked. The same ones are found, sooner.", base=False),
    Fact(("calc_checksum",), "5.0", CODE, "xxhash",
         "xxh64 in place of jhash2: other numbers, for the same question."),
    Fact(("get_mergeable_page",), "", BEHAVIOUR, "folio_walk_start",
         "A page to which its mapping gives no access (PROT_NONE) is looked at as any other. In 6.1 a search of the unstable "
         "tree ended at it."),
    Fact(("replace_page",), "4.11", BEHAVIOUR, "is_zero_pfn",
         "The page may become the zero page."),
    Fact(("replace_page",), "4.17", BEHAVIOUR, "dec_mm_counter",
         "A process whose page becomes the zero page has one anonymous page less."),
    Fact(("replace_page",), "6.6", BEHAVIOUR, r"pte_mkdirty\(pte_mkspecial",
         "An entry of the zero page that KSM has made is marked as dirty, and counted. Before, it was that of a read fault, and "
         "nothing counted it."),
    Fact(("write_protect_page",), "", BEHAVIOUR, "PageAnonExclusive",
         "A page that is this process's alone is made a shared one first. In 2.6.38 no page is exclusive."),
    Fact(("write_protect_page",), "", CODE, "savedwrite",
         "In 6.1 an entry of NUMA balancing keeps its W in another bit, which is asked for, too.", base=False),
    Fact(("write_protect_page",), "7.3", CODE, r"!pte_present\(entry\)",
         "It gives up at an entry that is not present: only pages of devices have such entries here.", base=False),
    Fact(("try_to_merge_one_page",), "2.6.38", BEHAVIOUR, "split_huge_page|anon_split",
         "A huge page is split to merge a part of it."),
    Fact(("try_to_merge_one_page",), "", CODE, "anon_split",
         "A huge page is split while the page is locked. In 2.6.38, before.", base=False, old=True),
    Fact(("try_to_merge_one_page",), "", CODE, "VM_MERGEABLE",
         "The callers ask whether the mapping is mergeable. In 2.6.38, this function does.", base=False, old=True),
    Fact(("try_to_merge_with_zero_page",), "6.11", CODE, "",
         "These lines were a part of cmp_and_merge_page()."),
    Fact(("should_skip_rmap_item",), "6.7", BEHAVIOUR, "",
         "Smart scan: a page that several passes have found unmerged is skipped in some of the next."),
    Fact(("should_skip_rmap_item",), "7.3", BEHAVIOUR, "STABLE_FLAG",
         "A page that was merged is looked at. Before, its old age could skip it.", base=False),
    Fact(("skip_age",), "6.7", BEHAVIOUR, "",
         "How many passes skip a page, by its age: 1, 2, 4 or 8."),
    Fact(("scan_get_next_rmap_item",), "3.9", BEHAVIOUR, r"root_unstable_tree ?(?:\+|\[) ?nid",
         "There is an unstable tree for each NUMA node."),
    Fact(("scan_get_next_rmap_item",), "6.7", BEHAVIOUR, "should_skip_rmap_item",
         "Smart scan may skip the page."),
    Fact(("scan_get_next_rmap_item",), "", CODE, "walk_page_range_vma",
         "Tables are looked through for the next page: holes cost nothing."),
    Fact(("scan_get_next_rmap_item",), "7.3", CODE, r"if \(ksm_test_exit\(mm\)\) goto no_vmas; int found",
         "A process that exits while its mapping is scanned leaves the list at once.", base=False),
    Fact(("ksm_do_scan",), "", BEHAVIOUR, "in_stable_tree",
         "A page that is merged already goes to cmp_and_merge_page(), which looks whether it is at the right node. In 2.6.38 it "
         "is passed over.", base=False, old=True),
    Fact(("ksm_do_scan",), "6.6", READ, "ksm_pages_scanned",
         "Pages are counted in pages_scanned."),
    Fact(("unmerge_and_remove_all_rmap_items",), "3.9", BEHAVIOUR, "remove_all_stable_nodes",
         "run = 2 also sweeps the stable tree, so that no node is left."),
    Fact(("__ksm_enter",), "3.9", BEHAVIOUR, "KSM_RUN_UNMERGE",
         "A new process goes to the end of the list while all is unmerged (run = 2)."),
    Fact(("ksm_might_need_to_copy",), "", BEHAVIOUR, "EHWPOISON",
         "A copy of a frame that cannot be read fails, and says so."),
    Fact(("collect_procs_ksm",), "6.4", BEHAVIOUR, "",
         "A broken frame with a merged page: the processes that map it are found. Before, nobody was named."),
    Fact(("is_page_sharing_candidate",), "4.13", BEHAVIOUR, "",
         "max_page_sharing: a merged page takes no more sharers than that."),
    Fact(("get_kpfn_nid",), "3.9", BEHAVIOUR, "",
         "A tree for each NUMA node, if merge_across_nodes is 0."),
    Fact(("alloc_stable_node_chain", "free_stable_node_chain", "stable_node_chain_add_dup", "__stable_node_dup_del",
          "stable_node_dup_del", "stable_node_dup", "__stable_node_chain", "chain_prune", "chain", "is_stable_node_chain",
          "is_stable_node_dup", "__is_page_sharing_candidate", "remove_stable_node_chain"),
         "4.13", BEHAVIOUR, "",
         "Chains: equal merged pages, each with as many sharers as max_page_sharing allows."),
    Fact(("stable_node_dup_any",), "6.11", CODE, "",
         "stable_node_dup() gives a full dup, too.", base=False, old=True),
    Fact(("remove_stable_node", "remove_all_stable_nodes"), "3.9", BEHAVIOUR, "",
         "run = 2 also sweeps the stable tree."),
    Fact(("ksm_enable_merge_any", "ksm_disable_merge_any", "ksm_disable", "ksm_add_vmas", "ksm_del_vmas", "__ksm_add_vma",
          "__ksm_del_vma"),
         "6.4", BEHAVIOUR, "",
         "prctl(PR_SET_MEMORY_MERGE): all memory of a process may merge, without madvise()."),
    Fact(("ksm_add_vma",), "6.4", BEHAVIOUR, "",
         "After prctl(PR_SET_MEMORY_MERGE), a new mapping is made mergeable once it is there."),
    Fact(("ksm_add_vma",), "6.17", BEHAVIOUR, "",
         "ksm_vma_flags() makes a new mapping mergeable, before it is joined with its neighbours.", old=True),
    Fact(("ksm_vma_flags", "__ksm_should_add_vma"), "6.17", BEHAVIOUR, "",
         "After prctl(), a new mapping is mergeable before it is joined with its neighbours; so it is joined, and huge pages fit "
         "across.", base=False),
    Fact(("scan_time_advisor", "advisor_start_scan", "advisor_stop_scan", "set_advisor_defaults", "prev_scan_time", "ewma"),
         "6.8", BEHAVIOUR, "",
         "The advisor sets pages_to_scan after each pass, so that a pass takes the time that is wanted."),
    Fact(("ksm_process_profit",), "6.4", READ, "",
         "/proc/PID/ksm_stat tells what merging saves the process."),
    Fact(("ksm_process_mergeable",), "6.14", READ, "",
         "/proc/PID/ksm_stat tells whether the process has mergeable memory.", base=False),
    Fact(("vma_ksm_compatible",), "6.4", CODE, "",
         "These lines were a part of ksm_madvise()."),
    Fact(("ksm_compatible",), "6.17", CODE, "",
         "These lines were vma_ksm_compatible(): the same flags, asked before there is a mapping.", base=False),
    Fact(("pages_to_scan_store",), "6.8", BEHAVIOUR, "ksm_advisor",
         "pages_to_scan cannot be written while the advisor sets it: EINVAL."),
    Fact(("break_cow", "unmerge_ksm_pages", "unmerge_and_remove_all_rmap_items"),
         "6.5", CODE, r"\b(?:lock_vma|false)\)|addr \+ PAGE_SIZE, false\)",
         "The caller says whether the mapping is to be locked, against faults that take this lock alone."),
    Fact(("remove_node_from_stable_tree",), "6.4", CODE, "trace_ksm",
         "Trace events: which item and which node go."),
    Fact(("unmerge_and_remove_all_rmap_items",), "6.4", BEHAVIOUR, "MERGE_ANY",
         "A process that exits loses the flag of prctl(), too."),
    Fact(("folio_set_stable_node",), "", CODE, "WARN_ON_FOLIO|WRITE_ONCE",
         "A debug build warns where it stopped before."),
    Fact(("folio_set_stable_node",), "", CODE, "WRITE_ONCE",
         "The mapping is written by WRITE_ONCE(), for it is read without a lock.", base=False),
    Fact(("folio_migrate_ksm",), "", CODE, r"WRITE_ONCE\(stable_node->kpfn",
         "The frame's number is written by WRITE_ONCE(), for it is read without a lock.", base=False),
    Fact(("__stable_node_chain",), "6.11", CODE, r"!is_stable_node_chain\(stable_node\)\) \{ \*_stable_node_dup",
         "A full node is given, too: the caller asks whether it has room."),
    Fact(("chain",), "6.11", CODE, "return __stable_node_chain",
         "The caller gets the node again: looking for a dup may have made a single node of the chain."),
    Fact(("ksm_next_page_pmd_entry",), "", CODE, "pmdp_get",
         "Entries are read through functions."),
    Fact(("ksm_scan_thread",), "6.8", CODE, "wait_event_freezable_timeout",
         "Waiting and freezing are one step."),
    Fact(("ksm_madvise",), "6.4", CODE, "vma_ksm_compatible",
         "Which mappings may merge is asked of a function of its own."),
    Fact(("ksm_madvise", "__ksm_del_vma", "unmerge_and_remove_all_rmap_items"), "6.19", CODE, r"break_ksm\(vma",
         "break_ksm() takes the range; there is no loop over single pages.", base=False),
    Fact(("__ksm_exit",), "6.4", CODE, "MERGE_ANY",
         "The flag of prctl() goes with the process."),
    Fact(("__ksm_exit",), "", CODE, "goto unlock",
         "The same steps, with a jump in place of a condition.", base=False),
    Fact(("ksm_init",), "", CODE, "KSM_CALLBACK_PRI",
         "A number has got a name."),
    Fact(("vma_ksm_compatible",), "6.17", CODE, r"ksm_compatible\(vma->vm_file",
         "The flags are asked in ksm_compatible(), which needs no mapping.", base=False),
    Fact(("folio_stable_node",), "", CODE, "const struct folio",
         "The parameter is const.", base=False),
    Fact(("replace_page",), "", CODE, r"page_address_in_vma\(folio",
         "The page's folio is asked at the beginning: nothing follows for a page.", base=False),
    Fact(("try_to_merge_one_page",), "", CODE, r"folio_trylock\(folio\)",
         "Folios in place of pages: nothing follows for a page.", base=False),
    Fact(("__ksm_add_vma",), "6.17", CODE, "__ksm_should_add_vma",
         "Whether the mapping is to be mergeable is asked of a function of its own.", base=False),
    Fact(("ksm_might_need_to_copy",), "7.3", CODE, "linear_anon_page_index",
         "The page's index is asked by another function.", base=False),
    Fact(("merge_across_nodes_store",), "", CODE, "kzalloc_objs",
         "Memory for the trees is taken by another function.", base=False),
    Fact(("__ksm_enter",), "", CODE, r"spin_lock\(&ksm_mmlist_lock\);.*needs_wakeup = ",
         "Whether the list is empty is asked with the lock held, so that ksmd does not sleep on.", base=False),
    Fact(("try_to_merge_with_ksm_page", "__ksm_enter", "__ksm_exit"), "6.4", TRACE, "trace_ksm",
         "A trace event."),
    Fact(("page_stable_node",), "", CODE, "",
         "Older versions have it in include/linux/ksm.h."),
    Fact(("page_stable_node",), "", CODE, "",
         "Folios are asked in place of pages.", old=True),
    Fact(("ksm_madvise",), "", CODE, "VM_NONLINEAR",
         "Other flags keep a mapping from merging, for other flags exist.", base=False, old=True),
    Fact(("alloc_rmap_item",), "", CODE, "__GFP_NORETRY",
         "Memory for an item is not tried for at any price: without it the page waits for a later pass, and nothing is logged."),
    Fact(("free_rmap_item", "get_next_rmap_item"), "6.1", READ, "mm->ksm_rmap_items",
         "/proc/PID/ksm_stat counts the items of the process."),
    Fact(("remove_node_from_stable_tree", "remove_rmap_item_from_tree", "stable_tree_append"), "5.19", READ, "ksm_merging_pages",
         "/proc/PID/ksm_merging_pages counts the merged pages of the process."),
    Fact(("alloc_stable_node",), "", CODE, "__GFP_HIGH",
         "A node may come from the kernel's reserve of memory."),
    Fact(("free_stable_node",), "4.13", CODE, "rmap_hlist_len",
         "A debug build checks that no item is left at the node."),
    Fact(("find_mergeable_vma",), "", CODE, "",
         "These lines were in break_cow(), in get_mergeable_page(), and in part in try_to_merge_with_ksm_page()."),
    Fact(("break_cow", "get_mergeable_page", "try_to_merge_with_ksm_page"), "", CODE, "find_mergeable_vma",
         "Whether the mapping is still there, and mergeable, is asked of find_mergeable_vma()."),
    Fact(("try_to_merge_with_ksm_page",), "3.9", CODE, "remove_rmap_item_from_tree",
         "The item leaves the unstable tree here, for its anon_vma takes the place of the number of the NUMA node."),
    Fact(("ksm_get_folio", "get_ksm_page"), "3.9", BEHAVIOUR, "goto again",
         "The frame may have moved meanwhile: it is looked for once more, at its new place. In 2.6.38 a merged page does not "
         "move."),
    Fact(("ksm_get_folio", "get_ksm_page"), "", CODE, "_LOCK",
         "The caller may ask for the page's lock, too."),
    Fact(("remove_node_from_stable_tree",), "3.9", BEHAVIOUR, "migrate_nodes",
         "The node may be in no tree: it waits in migrate_nodes."),
    Fact(("remove_node_from_stable_tree",), "4.13", BEHAVIOUR, "stable_node_dup_del",
         "The node may be a dup of a chain."),
    Fact(("remove_rmap_item_from_tree", "unstable_tree_search_insert"), "3.9", BEHAVIOUR, r"root_unstable_tree \+",
         "There is an unstable tree for each NUMA node."),
    Fact(("unstable_tree_search_insert",), "3.9", BEHAVIOUR, "ksm_merge_across_nodes",
         "With merge_across_nodes 0, the search ends at an item whose page has moved to another node."),
    Fact(("stable_tree_append",), "4.13", BEHAVIOUR, "rmap_hlist_len",
         "The sharers of a node are counted, for max_page_sharing."),
    Fact(("get_next_rmap_item", "ksmd_should_run"), "6.1", CODE, r"slot\.mm",
         "The list of processes is made of slots as khugepaged has them."),
    Fact(("alloc_mm_slot", "free_mm_slot", "get_mm_slot", "insert_to_mm_slots_hash"), "6.1", CODE, "",
         "Slots of processes are in mm/mm_slot.h, for khugepaged, too.", base=False, old=True),
    Fact(("remove_trailing_rmap_items",), "", CODE, "struct mm_slot",
         "A parameter that was not used is gone.", base=False, old=True),
    Fact(("in_stable_tree",), "", CODE, "",
         "Only ksm_do_scan() of 2.6.38 asks this.", base=False, old=True),
    Fact(("hold_anon_vma", "ksm_drop_anon_vma"), "", CODE, "",
         "get_anon_vma() and put_anon_vma() are called directly.", base=False, old=True),
    Fact(("page_trans_compound_anon", "page_trans_compound_anon_split"), "", CODE, "",
         "split_huge_page() asks what these asked.", base=False, old=True),
    Fact(("ksm_scan_thread",), "3.9", BEHAVIOUR, "wait_while_offlining",
         "ksmd waits while memory is unplugged. In 2.6.38 it is locked out."),
    Fact(("wait_while_offlining",), "3.9", BEHAVIOUR, "",
         "KSM waits while memory is unplugged. In 2.6.38 it is locked out."),
    Fact(("ksm_scan_thread",), "", READ, "ksm_iter_wait",
         "Another value of sleep_millisecs ends the sleep."),
    Fact(("folio_stable_node",), "", CODE, "",
         "The node of a folio, as page_stable_node() gives that of a page."),
    Fact(("set_page_stable_node", "folio_set_stable_node"), "", CODE, "",
         "Older versions have it in include/linux/ksm.h."),
    Fact(("ksm_next_page_pmd_entry",), "", CODE, "",
         "It looks through a table for the next page: holes cost nothing."),
)

# Names of other versions, and those of 6.12 or newer for the same: a function that differs by these alone does the same steps.
SYNONYMS = tuple((re.compile(old), new) for old, new in (
    (r"\bstruct (?:page|folio)\b", "struct folio"),
    (r"&(\w+)->page\b", r"\1"),
    (r"\bstruct (rmap_item|mm_slot|stable_node)\b", r"struct ksm_\1"),
    (r"\bpage_folio\((\w+)\)", r"\1"),
    (r"\bdown_read\(&(\w+)->mmap_(?:sem|lock)\)", r"mmap_read_lock(\1)"),
    (r"\bup_read\(&(\w+)->mmap_(?:sem|lock)\)", r"mmap_read_unlock(\1)"),
    (r"\btest_bit\((MMF_\w+), &(\w+)->flags\)", r"mm_flags_test(\1, \2)"),
    (r"\bset_bit\((MMF_\w+), &(\w+)->flags\)", r"mm_flags_set(\1, \2)"),
    (r"\bclear_bit\((MMF_\w+), &(\w+)->flags\)", r"mm_flags_clear(\1, \2)"),
    (r"\bget_page_unless_zero\b", "folio_try_get"), (r"\b(get|put|lock|unlock|trylock)_page\b", r"folio_\1"),
    (r"\bPageSwapCache\b", "folio_test_swapcache"),
    (r"\bPage(Ksm|Anon|Dirty|Uptodate)\b", lambda found: f"folio_test_{found[1].lower()}"),
    (r"\bSetPageDirty\b|\bset_page_dirty\b", "folio_mark_dirty"), (r"\bmark_page_accessed\b", "folio_mark_accessed"),
    (r"\bpage_(mapped|mapcount|stable_node)\b", r"folio_\1"), (r"\bpage_count\b", "folio_ref_count"),
    (r"\bset_page_stable_node\b", "folio_set_stable_node"),
    (r"\bpage_to_pfn\b", "folio_pfn"), (r"\bpfn_to_page\b", "pfn_folio"),
    (r"\bget_ksm_page_flags\b", "ksm_get_folio_flags"), (r"\bget_ksm_page\b", "ksm_get_folio"), (r"\bGET_KSM_PAGE_", "KSM_GET_FOLIO_"),
    (r"\b(k|tree_|new_)?page\b", lambda found: f"{found[1] or ''}folio"), (r"\bPAGE_MAPPING_KSM\b", "FOLIO_MAPPING_KSM"),
    (r"\bkmap_atomic\b", "kmap_local_page"), (r"\bkunmap_atomic\b", "kunmap_local"), (r"\bKSM_KMEM_CACHE\b", "KMEM_CACHE"),
    (r"\bksm_migrate_page\b", "folio_migrate_ksm"),
))


OF_2011 = "_2011"  # what the port adds to the name of a function that it has once more, as 2.6.38 has it


def with_one_name(code: str) -> str:
    """The code with the names of one version for what other versions call otherwise."""
    for old, new in SYNONYMS:
        code = old.sub(new, code)
    return code


def steps_hash(text: str) -> str:
    """The same for two texts of a function that differ by such names alone."""
    return code_hash(with_one_name(without_comments(text)))

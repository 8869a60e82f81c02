# SPDX-License-Identifier: GPL-2.0-only
"""Bugs to put into the port on purpose: `ksm verify` must find each. A bug that changes no outcome does not belong here."""

from typing import NamedTuple


class Mutant(NamedTuple):
    name: str
    old: str  # found exactly once in the file
    new: str
    file: str = "mm/ksm.pyx"
    modules: tuple[str, ...] = ("mm/ksm.pyx",)  # to be built again when the file changes
    shown_by: tuple[int | str, ...] = ()  # seeds of workloads for two nodes, and names of files in traps/


MUTANTS = (
    # The trees are in the opposite order: only searches among stale and changed pages show it.
    Mutant("memcmp-order", "return memcmp(page_address(m, page1), page_address(m, page2), frame_size(m))",
           "return memcmp(page_address(m, page2), page_address(m, page1), frame_size(m))", file="mm/util.pxd",
           modules=("mm/ksm.pyx", "fast/seams.pyx")),
    # A page that was compared keeps the reference: it does not merge any more.
    Mutant("missed-put", """\
        if ret < 0:
            put_page(g.m, tree_page)
            new = &parent.rb_left
""", """\
        if ret < 0:
            new = &parent.rb_left
"""),
    Mutant("age-off-by-one", "    if age < 3:\n        return False\n", "    if age < 4:\n        return False\n"),
    Mutant("skips-off-by-one", "    if age <= 5:\n        return 2\n", "    if age < 5:\n        return 2\n"),
    Mutant("chain-not-pruned", "        stable_node.chain_prune_time = jiffies(g.m)\n\n    pos =",
           "        prune_stale_stable_nodes = False\n\n    pos ="),
    Mutant("checksum-skipped", """\
            return
        ksm_step(g.m, STEP_UNCHANGED, rmap_item, page, NULL, checksum)

        if not try_to_merge_with_zero_page""", """\
        ksm_step(g.m, STEP_UNCHANGED, rmap_item, page, NULL, checksum)

        if not try_to_merge_with_zero_page"""),
    Mutant("zero-page-not-counted", "        ksm_map_zero_page(mm)\n", ""),
    Mutant("zero-page-stays-anonymous", "pte_mkdirty(pte_mkspecial(pfn_pte(page_to_pfn(m, kpage), vma.vm_page_prot)))",
           "pte_mkspecial(pfn_pte(page_to_pfn(m, kpage), vma.vm_page_prot))"),
    Mutant("sharing-limit-off-by-one", "stable_node.rmap_hlist_len + offset < g.ksm_max_page_sharing",
           "stable_node.rmap_hlist_len + offset <= g.ksm_max_page_sharing"),
    Mutant("exit-does-not-move-the-slot", "            list_move(&slot.mm_node, &g.ksm_scan.mm_slot.slot.mm_node)\n", "            pass\n"),
    Mutant("new-slot-before-all", "        list_add_tail(&slot.mm_node, &g.ksm_scan.mm_slot.slot.mm_node)",
           "        list_add(&slot.mm_node, &g.ksm_mm_head.slot.mm_node)"),
    Mutant("dup-moves-too-early", "__is_page_sharing_candidate(g, found, 1)", "__is_page_sharing_candidate(g, found, 0)"),
    Mutant("run-2-keeps-the-pass-number",
           "        remove_all_stable_nodes(g)\n    g.ksm_scan.seqnr = 0\n",
           "        remove_all_stable_nodes(g)\n"),
    Mutant("unmerge-forgets-nodes", "    if not era_2011(g):\n        remove_all_stable_nodes(g)\n", ""),
    Mutant("merge-the-other-way", """\
    err = try_to_merge_with_ksm_page(g, rmap_item, page, NULL)
    if not err:
        err = try_to_merge_with_ksm_page(g, tree_rmap_item, tree_page, page)
""", """\
    err = try_to_merge_with_ksm_page(g, tree_rmap_item, tree_page, NULL)
    if not err:
        err = try_to_merge_with_ksm_page(g, rmap_item, page, tree_page)
    if not err:
        return tree_page
"""),
)

# Only several nodes show these: they are compared with a guest of two.
GUEST_MUTANTS = (
    Mutant("stable-tree-of-another-page", "    nid = get_kpfn_nid(g, kpfn)\n", "    nid = get_kpfn_nid(g, g.m.zero_pfn)\n",
           shown_by=(13, 2040)),
    Mutant("unstable-tree-of-another-page", "    nid = get_kpfn_nid(g, page_to_pfn(g.m, page))\n    root = g.root_unstable_tree + nid\n",
           "    nid = get_kpfn_nid(g, g.m.zero_pfn)\n    root = g.root_unstable_tree + nid\n", shown_by=(9, 2015)),
    Mutant("migrate-nodes-not-pruned", """\
                folio = ksm_get_folio(g, stable_node, KSM_GET_FOLIO_NOLOCK)
                if folio != NULL:
                    folio_put(g.m, folio)
                cond_resched()
                pos = next
""", """\
                cond_resched()
                pos = next
""", shown_by=("trap-9-offline",)),
    Mutant("run-2-leaves-migrate-nodes", """\
        if remove_stable_node(g, stable_node):
            err = -EBUSY
        cond_resched()
        pos = next
    return err
""", """\
        cond_resched()
        pos = next
    return err
""", shown_by=("trap-9-run-2",)),
    Mutant("frames-that-go-leave-migrate-nodes", """\
        if start_pfn <= READ_ONCE_ulong(stable_node.kpfn) < end_pfn:
            remove_node_from_stable_tree(g, stable_node)
        cond_resched()
        pos = next
""", """\
        cond_resched()
        pos = next
""", shown_by=("trap-9-frames-that-go",)),
)

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: verifying what ksmd remembers.
"""Checks that keys, checksums and watched pages are as ksm/fast/watch.pxd says. See ksm/check/invariants.pyx."""

from linux.atomic cimport atomic_long_read
from linux.highmem cimport frame_checksum, has_bytes
from linux.list cimport list_head
from linux.mm_types cimport PAGE_SHIFT, PAGE_SIZE, PMD_SIZE, machine, pmd_t, pte_t, struct_folio, struct_page
from linux.page_flags cimport (PAGE_MAPPING_KSM, PG_ksm_watched, PG_swapcache, folio_mapped, folio_mapping_word, folio_test_anon,
                               page_address, page_folio, pfn_to_page, test_page_flag)
from linux.pgtable cimport pmd_leaf, pmd_offset_mm, pmd_pfn, pmdp_get, pte_offset_map, pte_pfn, pte_present, ptep_get
from linux.rbtree cimport rb_node
from linux.types cimport u32

from ksm.check.checker cimport checker, finding
from ksm.fast.stable_keys cimport page_key, stable_key_known, stable_trees_lack
from ksm.fast.state cimport fast_of, fast_state
from ksm.fast.watch cimport item_key, item_key_known, item_number
from ksm.lib.rbtree cimport rb_first, rb_next
from ksm.lib.xxhash cimport xxhash
from ksm.mm.ksm cimport (STABLE_FLAG, is_stable_node_chain, ksm_globals, ksm_rmap_item, ksm_stable_node, mm_slot_of, rmap_item_of,
                         stable_node_of)


cdef struct_page *page_of(machine *m, ksm_rmap_item *item) noexcept nogil:
    """The page that is mapped at the item's address."""
    cdef pmd_t *pmd = pmd_offset_mm(item.mm, item.address)
    cdef pte_t *pte = pte_offset_map(pmd, item.address) if pmd != NULL else NULL
    if pmd != NULL and pmd_leaf(pmdp_get(pmd)):
        return pfn_to_page(m, pmd_pfn(pmdp_get(pmd)) + ((item.address & (PMD_SIZE - 1)) >> PAGE_SHIFT))
    if pte == NULL or not pte_present(ptep_get(pte)):
        return NULL
    return pfn_to_page(m, pte_pfn(ptep_get(pte)))


cdef void check_item_key(checker *c, ksm_rmap_item *item) noexcept nogil:
    cdef fast_state *fast = fast_of(c.g)
    cdef struct_page *page
    if item.address & STABLE_FLAG or not item_key_known(item):
        return
    page = page_of(c.m, item)
    if page == NULL or not test_page_flag(page, PG_ksm_watched) or page.private != item_number(fast, item):
        finding(&c.found, b"item %p at 0x%lx has a key, and no link to page %ld", item, item.address,
                <long>(page - c.m.mem_map) if page != NULL else -1)
        return
    if item_key(item) and item_key(item) != page_key(fast, page):
        finding(&c.found, b"item %p at 0x%lx: its key is not that of frame %ld", item, item.address, <long>(page - c.m.mem_map))
    if item.oldchecksum != (<u32>xxhash(page_address(c.m, page), PAGE_SIZE, 0) if has_bytes(c.m) else frame_checksum(c.m, page)):
        finding(&c.found, b"item %p at 0x%lx: oldchecksum is not that of frame %ld", item, item.address, <long>(page - c.m.mem_map))


cdef void check_stable_key(checker *c, ksm_stable_node *node) noexcept nogil:
    cdef struct_page *page
    if not stable_key_known(node):
        return
    page = pfn_to_page(c.m, node.kpfn)
    if (<unsigned long>folio_mapping_word(page) == (<unsigned long>node | PAGE_MAPPING_KSM)
            and node.key << 1 >> 1 != page_key(fast_of(c.g), page)):
        finding(&c.found, b"node %p: its key is not that of frame %lu", node, node.kpfn)
    elif stable_trees_lack(fast_of(c.g), node.key << 1 >> 1):
        finding(&c.found, b"node %p: the filter does not know its key", node)


cdef void check_keys(checker *c) noexcept nogil:
    cdef ksm_globals *g = c.g
    cdef fast_state *fast = fast_of(g)
    cdef list_head *pos = g.ksm_mm_head.slot.mm_node.next
    cdef ksm_rmap_item *item
    cdef rb_node *node
    cdef struct_page *page
    cdef struct_folio *folio
    cdef unsigned long pfn
    cdef long unkeyed = 0, counted
    cdef int nid
    if fast == NULL:
        return
    while pos != &g.ksm_mm_head.slot.mm_node:
        item = mm_slot_of(pos).rmap_list
        while item != NULL:
            check_item_key(c, item)
            item = item.rmap_list
        pos = pos.next
    for nid in range(g.ksm_nr_node_ids):
        node = rb_first(g.root_stable_tree + nid)
        while node != NULL:
            unkeyed += not stable_key_known(stable_node_of(node))
            if not is_stable_node_chain(stable_node_of(node)):
                check_stable_key(c, stable_node_of(node))
            elif stable_node_of(node).key:
                finding(&c.found, b"chain %p has a key", node)
            node = rb_next(node)
        if g.ksm_scan.mm_slot == &g.ksm_mm_head or fast.rotten:
            continue
        node = rb_first(g.root_unstable_tree + nid)
        while node != NULL:
            item = rmap_item_of(node)
            # settle() checks the key of the leaving item before the next page.
            if item != fast.leaving and not item_key_known(item):
                finding(&c.found, b"the unstable tree is said to be in order, and item %p has no key", item)
            node = rb_next(node)
    counted = g.stable_node_cache.nr_objects - atomic_long_read(&fast.stable_keyed)
    if unkeyed > counted:
        finding(&c.found, b"%ld stable nodes have no key, and %ld are counted", unkeyed, counted)
    for pfn in range(1, c.m.plugged_pfn):
        page = pfn_to_page(c.m, pfn)
        folio = page_folio(page)
        if test_page_flag(page, PG_ksm_watched) and (test_page_flag(page, PG_swapcache) or not folio_mapped(folio)
                                                     or not folio_test_anon(folio)):
            finding(&c.found, b"frame %lu is watched: flags 0x%x", pfn, page.flags)

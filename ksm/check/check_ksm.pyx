# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: verifying the data of KSM.
"""Checks stable trees, chains, lists of rmap_items, slots, unstable trees and counters. See ksm/check/invariants.pyx."""

from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from linux.atomic cimport test_bit
from linux.highmem cimport frame_size
from linux.mm_types cimport (MMF_VM_MERGEABLE, PAGE_SHIFT, PGMIGRATE_SUCCESS, mm_struct, page_mask, struct_page)
from linux.page_flags cimport PAGE_MAPPING_KSM, page_address, page_to_nid
from linux.rbtree cimport rb_node
from linux.types cimport hlist_node, list_head

from ksm.check.checker cimport (ANON_VMA_ITEMS, MM_ITEMS, MM_SLOTS, MM_STABLE_ITEMS, NODE_IS_CHAIN, NODE_PLACES, checker, finding,
                                looks_like_object, map_find, map_put, see_anon_vma, tally)
from ksm.check.rbtree_check cimport rb_check, rb_check_str
from ksm.lib.rbtree cimport rb_first, rb_next
from ksm.mm.ksm cimport (MM_SLOTS_HASH_BITS, STABLE_FLAG, STABLE_NODE_CHAIN, UNSTABLE_FLAG, ksm_globals, ksm_mm_slot, ksm_rmap_item,
                         ksm_stable_node, mm_slot_entry, mm_slot_of, rmap_item_of, rmap_item_of_hlist, stable_node_of, stable_node_of_dup,
                         stable_node_of_list)
from ksm.mm.mm_slot cimport mm_slot_lookup, mm_slot_of_hash


cdef inline list_head *dup_tag(ksm_globals *g) noexcept nogil:
    """STABLE_NODE_DUP_HEAD of mm/ksm.c."""
    return <list_head *>&g.migrate_nodes.prev


# Stable items, found by the address and the node of their page

cdef inline size_t item_place(checker *c, unsigned long address, ksm_stable_node *node) noexcept nogil:
    return (((address >> PAGE_SHIFT) ^ (<unsigned long>node >> 6)) * 0x9e3779b97f4a7c15UL >> 20) & (c.items_size - 1)


cdef ksm_rmap_item *find_item(checker *c, unsigned long address, ksm_stable_node *node, mm_struct *mm, size_t *from_) noexcept nogil:
    """The next stable item with this address and node, and with this mm (NULL: any mm). *from_ is 0 at first. NULL if there are no more."""
    cdef ksm_rmap_item *item
    cdef size_t i
    if c.items_size == 0:
        return NULL
    if from_[0] == 0:
        from_[0] = c.items_size + item_place(c, address, node)
    while True:
        i = from_[0] & (c.items_size - 1)
        item = c.items[i]
        if item == NULL:
            return NULL
        from_[0] += 1
        if item.address & page_mask() == address and item.head == node and (mm == NULL or item.mm == mm):
            return item


cdef void add_item(checker *c, ksm_rmap_item *item) noexcept nogil:
    cdef ksm_rmap_item **old = c.items
    cdef size_t i, old_size = c.items_size
    if c.stable_items * 2 >= c.items_size:
        c.items = <ksm_rmap_item **>calloc(old_size * 2 if old_size else 1024, sizeof(ksm_rmap_item *))
        if c.items == NULL:
            c.items = old
            c.no_memory = True
            return
        c.items_size = old_size * 2 if old_size else 1024
        c.stable_items = 0
        for i in range(old_size):
            if old[i] != NULL:
                add_item(c, old[i])
        free(old)
    i = item_place(c, item.address & page_mask(), item.head)
    while c.items[i] != NULL:
        i = (i + 1) & (c.items_size - 1)
    c.items[i] = item
    c.stable_items += 1


# Stable nodes

cdef bint enter_node(checker *c, ksm_stable_node *node, bint chain) noexcept nogil:
    """Note that the node was found; False when it cannot be looked into, or was seen before."""
    cdef tally *seen
    if not looks_like_object(node):
        finding(&c.found, b"stable node %p: not an object of its cache", node)
        return False
    seen = map_put(c, &c.nodes, node)
    if seen == NULL:
        return False
    seen.n[NODE_PLACES] += 1
    seen.n[NODE_IS_CHAIN] = chain
    if seen.n[NODE_PLACES] > 1:
        finding(&c.found, b"stable node %p: in %lu places, not 1", node, seen.n[NODE_PLACES])
        return False
    return True


cdef struct_page *live_page(checker *c, ksm_stable_node *node) noexcept nogil:
    """The node's page; NULL if the node is stale."""
    cdef struct_page *page
    if node.kpfn >= c.m.plugged_pfn:
        finding(&c.found, b"stable node %p: pfn %lu of %lu", node, node.kpfn, c.m.plugged_pfn)
        return NULL
    page = c.m.mem_map + node.kpfn
    return page if <unsigned long>page.mapping == (<unsigned long>node | PAGE_MAPPING_KSM) else NULL


cdef void check_node(checker *c, ksm_stable_node *node, int nid, unsigned long *shared, unsigned long *sharing) noexcept nogil:
    """Check a node that is no chain: its rmap_items, their number, the tree that it names (-1: none)."""
    cdef hlist_node *pos = node.hlist.first
    cdef hlist_node **link = &node.hlist.first
    cdef ksm_rmap_item *item
    cdef struct_page *page
    cdef long length = 0
    if nid >= 0 and node.nid != nid:
        finding(&c.found, b"stable node of pfn %lu: nid %d, in the tree of %d", node.kpfn, node.nid, nid)
    page = live_page(c, node)
    if page != NULL and nid >= 0 and not c.g.ksm_merge_across_nodes and page_to_nid(page) != nid and not c.m.vm_event[PGMIGRATE_SUCCESS]:
        finding(&c.found, b"stable node of pfn %lu: its page is on node %d, in the tree of %d", node.kpfn, page_to_nid(page), nid)
    while pos != NULL:
        item = rmap_item_of_hlist(pos)
        if not looks_like_object(item):
            finding(&c.found, b"stable node of pfn %lu: rmap_item %p is not an object of its cache", node.kpfn, item)
            break
        if pos.pprev != link:
            finding(&c.found, b"stable node of pfn %lu: rmap_item of %#lx is not linked back", node.kpfn, item.address)
            break
        if item.address & ~page_mask() != STABLE_FLAG:
            finding(&c.found, b"stable node of pfn %lu: rmap_item of %#lx has flags %#lx, not %#x", node.kpfn, item.address & page_mask(),
                    item.address & ~page_mask(), <unsigned int>STABLE_FLAG)
            break
        if item.head != node:
            finding(&c.found, b"stable node %p of pfn %lu: rmap_item of %#lx names node %p", node, node.kpfn, item.address & page_mask(),
                    item.head)
            break
        length += 1
        link = &pos.next
        pos = pos.next
    if node.rmap_hlist_len != length:
        finding(&c.found, b"stable node of pfn %lu: %ld rmap_items, and says %d", node.kpfn, length, node.rmap_hlist_len)
    if node.rmap_hlist_len > c.g.ksm_max_page_sharing and not c.g.sharing_bypassed:
        finding(&c.found, b"stable node of pfn %lu: %d sharers, allowed are %d", node.kpfn, node.rmap_hlist_len, c.g.ksm_max_page_sharing)
    c.listed_items += <unsigned long>length
    if length:
        shared[0] += 1
        sharing[0] += <unsigned long>length - 1


cdef struct_page *check_chain(checker *c, ksm_stable_node *chain, int nid, unsigned long *shared, unsigned long *sharing,
                              unsigned long *dups) noexcept nogil:
    """Check a chain and its dups; it may have none. Returns a live page of a dup, if there is one."""
    cdef hlist_node *pos = chain.hlist.first
    cdef hlist_node **link = &chain.hlist.first
    cdef ksm_stable_node *dup
    cdef struct_page *page
    cdef struct_page *first = NULL
    while pos != NULL:
        dup = stable_node_of_dup(pos)
        if not enter_node(c, dup, False):
            break
        if pos.pprev != link:
            finding(&c.found, b"chain %p: dup of pfn %lu is not linked back", chain, dup.kpfn)
            break
        if dup.head != dup_tag(c.g):
            finding(&c.found, b"chain %p: dup of pfn %lu has head %p, not %p", chain, dup.kpfn, dup.head, dup_tag(c.g))
        if dup.rmap_hlist_len < 0:
            finding(&c.found, b"chain %p: dup of pfn %lu has length %d", chain, dup.kpfn, dup.rmap_hlist_len)
        check_node(c, dup, nid, shared, sharing)
        dups[0] += 1
        page = live_page(c, dup)
        if page != NULL and first != NULL and memcmp(page_address(c.m, first), page_address(c.m, page), frame_size(c.m)) != 0:
            finding(&c.found, b"chain %p: pages %lu and %lu differ", chain, <unsigned long>(first - c.m.mem_map), dup.kpfn)
        if first == NULL:
            first = page
        link = &pos.next
        pos = pos.next
    return first


cdef void check_stable_trees(checker *c) noexcept nogil:
    """Check every stable node in trees, chains and migrate_nodes, and the counters that follow from them."""
    cdef ksm_globals *g = c.g
    cdef ksm_stable_node *node
    cdef struct_page *page
    cdef struct_page *previous
    cdef rb_node *pos
    cdef list_head *link
    cdef unsigned long shared = 0, sharing = 0, chains = 0, dups = 0
    cdef int nid, result, order
    for nid in range(1 if g.root_stable_tree == g.one_stable_tree else c.m.nr_node_ids):
        result = rb_check(g.root_stable_tree + nid, NULL)
        if result:
            finding(&c.found, b"stable tree %d: %s", nid, rb_check_str(result))
            continue
        if nid >= g.ksm_nr_node_ids and g.root_stable_tree[nid].rb_node != NULL:
            finding(&c.found, b"stable tree %d: not empty, with %d trees in use", nid, g.ksm_nr_node_ids)
        previous = NULL
        pos = rb_first(g.root_stable_tree + nid)
        while pos != NULL:
            node = stable_node_of(pos)
            pos = rb_next(pos)
            if not enter_node(c, node, node.rmap_hlist_len == STABLE_NODE_CHAIN):
                continue
            if node.rmap_hlist_len == STABLE_NODE_CHAIN:
                chains += 1
                page = check_chain(c, node, nid, &shared, &sharing, &dups)
            elif node.rmap_hlist_len < 0:
                finding(&c.found, b"stable node of pfn %lu: length %d", node.kpfn, node.rmap_hlist_len)
                continue
            else:
                check_node(c, node, nid, &shared, &sharing)
                page = live_page(c, node)
            if page == NULL:
                continue
            if previous != NULL:
                order = memcmp(page_address(c.m, previous), page_address(c.m, page), frame_size(c.m))
                if order >= 0:
                    finding(&c.found, b"stable tree %d: pages %lu and %lu are %s", nid, <unsigned long>(previous - c.m.mem_map),
                            <unsigned long>(page - c.m.mem_map), b"out of order" if order > 0 else b"equal")
            previous = page

    link = g.migrate_nodes.next
    while link != &g.migrate_nodes:
        node = stable_node_of_list(link)
        if not enter_node(c, node, False):
            break
        if node.head != &g.migrate_nodes or link.prev.next != link:
            finding(&c.found, b"migrate_nodes: node of pfn %lu has head %p, not %p, or is not linked back", node.kpfn, node.head,
                    &g.migrate_nodes)
            break
        if g.ksm_merge_across_nodes:
            finding(&c.found, b"migrate_nodes: node of pfn %lu, while pages merge across nodes", node.kpfn)
        check_node(c, node, -1, &shared, &sharing)
        link = link.next

    if g.ksm_pages_shared != shared:
        finding(&c.found, b"pages_shared: %lu, counted %lu", g.ksm_pages_shared, shared)
    if g.ksm_pages_sharing != sharing:
        finding(&c.found, b"pages_sharing: %lu, counted %lu", g.ksm_pages_sharing, sharing)
    if g.ksm_stable_node_chains != chains:
        finding(&c.found, b"stable_node_chains: %lu, counted %lu", g.ksm_stable_node_chains, chains)
    if g.ksm_stable_node_dups != dups:
        finding(&c.found, b"stable_node_dups: %lu, counted %lu", g.ksm_stable_node_dups, dups)


# Slots and their rmap_items

cdef void check_item(checker *c, mm_struct *mm, tally *of_mm, ksm_rmap_item *item) noexcept nogil:
    cdef unsigned long address = item.address & page_mask(), flags = item.address & ~page_mask()
    cdef tally *seen
    cdef unsigned char age
    c.all_items += 1
    of_mm.n[MM_ITEMS] += 1
    if flags & STABLE_FLAG:
        of_mm.n[MM_STABLE_ITEMS] += 1
        seen = map_find(&c.nodes, item.head)
        if flags != STABLE_FLAG:
            finding(&c.found, b"mm %lu: rmap_item of %#lx has flags %#lx", mm.id, address, flags)
        elif seen == NULL or seen.n[NODE_IS_CHAIN]:
            finding(&c.found, b"mm %lu: rmap_item of %#lx is at %p, which is no stable node", mm.id, address, item.head)
        elif not looks_like_object(item.anon_vma):
            finding(&c.found, b"mm %lu: rmap_item of %#lx has anon_vma %p", mm.id, address, item.anon_vma)
        else:
            seen = see_anon_vma(c, item.anon_vma)
            if seen != NULL:
                seen.n[ANON_VMA_ITEMS] += 1
        add_item(c, item)
    elif flags & UNSTABLE_FLAG:
        c.unstable_items += 1
        age = <unsigned char>(c.g.ksm_scan.seqnr - item.address)
        if age == 0:
            c.fresh_items += 1
        elif age > 1:
            finding(&c.found, b"mm %lu: rmap_item of %#lx is %d passes old in the unstable tree", mm.id, address, <int>age)
    elif flags:
        finding(&c.found, b"mm %lu: rmap_item of %#lx has flags %#lx", mm.id, address, flags)


cdef void check_rmap_list(checker *c, ksm_mm_slot *slot, tally *of_mm) noexcept nogil:
    """Check that the items are ascending and all of this mm, and note where the cursor stands in the list."""
    cdef mm_struct *mm = slot.slot.mm
    cdef ksm_rmap_item **link = &slot.rmap_list
    cdef ksm_rmap_item *item
    cdef unsigned long address, previous = 0
    cdef bint at_cursor = c.g.ksm_scan.mm_slot == slot
    cdef bint passed = not at_cursor
    while True:
        if at_cursor and c.g.ksm_scan.rmap_list == link:
            passed = True
        item = link[0]
        if item == NULL:
            break
        if not looks_like_object(item):
            finding(&c.found, b"mm %lu: rmap_item %p is not an object of its cache", mm.id, item)
            return
        address = item.address & page_mask()
        if address <= previous:
            finding(&c.found, b"mm %lu: rmap_item of %#lx behind that of %#lx", mm.id, address, previous)
            return
        previous = address
        if item.mm != mm:
            finding(&c.found, b"mm %lu: rmap_item of %#lx names mm %p, not %p", mm.id, address, item.mm, mm)
            return
        if not passed and address >= c.g.ksm_scan.address:
            finding(&c.found, b"mm %lu: rmap_item of %#lx before the cursor, which is at %#lx", mm.id, address, c.g.ksm_scan.address)
        check_item(c, mm, of_mm, item)
        link = &item.rmap_list
    if not passed:
        finding(&c.found, b"mm %lu: the cursor's rmap_list %p is not in its list", mm.id, c.g.ksm_scan.rmap_list)


cdef void check_slots(checker *c) noexcept nogil:
    """Check the list of slots, the hash of slots, the cursor, and for every mm whether it is registered."""
    cdef ksm_globals *g = c.g
    cdef list_head *head = &g.ksm_mm_head.slot.mm_node
    cdef list_head *pos = head.next
    cdef hlist_node *hashed
    cdef ksm_mm_slot *slot
    cdef tally *of_mm
    cdef mm_struct *mm
    cdef bint cursor = g.ksm_scan.mm_slot == &g.ksm_mm_head
    cdef unsigned long in_hash = 0
    cdef int i
    while pos != head:
        slot = mm_slot_of(pos)
        if not looks_like_object(slot) or pos.prev.next != pos:
            finding(&c.found, b"slot %p: not an object of its cache, or not linked back", slot)
            break
        c.nr_slots += 1
        cursor = cursor or g.ksm_scan.mm_slot == slot
        of_mm = map_find(&c.mm, slot.slot.mm)
        if of_mm == NULL:
            finding(&c.found, b"slot %p: its mm %p does not exist", slot, slot.slot.mm)
        else:
            of_mm.n[MM_SLOTS] += 1
            if of_mm.n[MM_SLOTS] > 1:
                finding(&c.found, b"mm %lu: %lu slots", slot.slot.mm.id, of_mm.n[MM_SLOTS])
                break
            if mm_slot_lookup(g.mm_slots_hash, MM_SLOTS_HASH_BITS, slot.slot.mm) != &slot.slot:
                finding(&c.found, b"mm %lu: its slot %p is not in the hash", slot.slot.mm.id, slot)
            check_rmap_list(c, slot, of_mm)
        pos = pos.next
    for i in range(1 << MM_SLOTS_HASH_BITS):
        hashed = g.mm_slots_hash[i].first
        while hashed != NULL and looks_like_object(mm_slot_entry(mm_slot_of_hash(hashed))) and in_hash <= c.nr_slots:
            in_hash += 1
            hashed = hashed.next
    if in_hash != c.nr_slots:
        finding(&c.found, b"slots: %lu in the list, %lu in the hash", c.nr_slots, in_hash)
    if not cursor:
        finding(&c.found, b"the cursor is at slot %p, which is not in the list", g.ksm_scan.mm_slot)

    for i in range(c.nr_mms):
        mm = c.mms[i]
        of_mm = map_find(&c.mm, mm)
        if <int>of_mm.n[MM_SLOTS] != test_bit(MMF_VM_MERGEABLE, &mm.flags):
            finding(&c.found, b"mm %lu: %lu slots, and MMF_VM_MERGEABLE is %d", mm.id, of_mm.n[MM_SLOTS],
                    <int>test_bit(MMF_VM_MERGEABLE, &mm.flags))
        if mm.ksm_rmap_items - mm.parents_rmap_items != of_mm.n[MM_ITEMS]:
            finding(&c.found, b"mm %lu: ksm_rmap_items %lu, counted %lu, and its parent's %lu", mm.id, mm.ksm_rmap_items,
                    of_mm.n[MM_ITEMS], mm.parents_rmap_items)
        if mm.ksm_merging_pages - mm.parents_merging_pages != of_mm.n[MM_STABLE_ITEMS]:
            finding(&c.found, b"mm %lu: ksm_merging_pages %lu, counted %lu, and its parent's %lu", mm.id, mm.ksm_merging_pages,
                    of_mm.n[MM_STABLE_ITEMS], mm.parents_merging_pages)


# Unstable trees

cdef void check_unstable_trees(checker *c) noexcept nogil:
    """Check the unstable trees within a pass. Between two passes the roots still have items of the last one, and some of them may be freed.
    """
    cdef ksm_globals *g = c.g
    cdef ksm_rmap_item *item
    cdef rb_node *pos
    cdef unsigned long count, total = 0
    cdef int nid, result
    if g.ksm_scan.mm_slot == &g.ksm_mm_head:
        return
    for nid in range(1 if g.root_unstable_tree == g.one_unstable_tree else c.m.nr_node_ids):
        result = rb_check(g.root_unstable_tree + nid, &count)
        total += count
        if result:
            finding(&c.found, b"unstable tree %d: %s", nid, rb_check_str(result))
            continue
        pos = rb_first(g.root_unstable_tree + nid)
        while pos != NULL:
            item = rmap_item_of(pos)
            pos = rb_next(pos)
            if item.address & (UNSTABLE_FLAG | STABLE_FLAG) != UNSTABLE_FLAG or <unsigned char>(g.ksm_scan.seqnr - item.address):
                finding(&c.found, b"unstable tree %d: rmap_item of %#lx has flags %#lx, not those of pass %lu", nid,
                        item.address & page_mask(), item.address & ~page_mask(), g.ksm_scan.seqnr)
            elif item.nid != nid:
                finding(&c.found, b"unstable tree %d: rmap_item of %#lx has nid %d", nid, item.address & page_mask(), item.nid)
    if total != c.fresh_items:
        finding(&c.found, b"unstable trees: %lu nodes, and %lu rmap_items of this pass", total, c.fresh_items)


cdef void check_counters(checker *c) noexcept nogil:
    cdef ksm_globals *g = c.g
    if g.ksm_rmap_items != c.all_items:
        finding(&c.found, b"ksm_rmap_items: %lu, counted %lu", g.ksm_rmap_items, c.all_items)
    if g.ksm_pages_unshared != c.unstable_items:
        finding(&c.found, b"pages_unshared: %lu, counted %lu", g.ksm_pages_unshared, c.unstable_items)
    if c.stable_items != c.listed_items:
        finding(&c.found, b"stable rmap_items: %lu in the lists of stable nodes, %lu in those of mms", c.listed_items, c.stable_items)
    if <long>(g.ksm_rmap_items - g.ksm_pages_shared - g.ksm_pages_sharing - g.ksm_pages_unshared) < 0:
        finding(&c.found, b"pages_volatile: negative, %lu rmap_items for %lu + %lu + %lu", g.ksm_rmap_items, g.ksm_pages_shared,
                g.ksm_pages_sharing, g.ksm_pages_unshared)

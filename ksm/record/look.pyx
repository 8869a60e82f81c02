# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recording what KSM does.
"""Looking at the whole state: look_at_ksm() wants ksm_thread_mutex held, look_at_mms() wants no other lock held."""

from libc.stdlib cimport realloc

from linux.atomic cimport atomic_inc_not_zero, atomic_read
from linux.ksm cimport is_ksm_zero_pte
from linux.list cimport list_head
from linux.mm cimport vm_normal_page
from linux.mm_types cimport COW_KSM, PAGE_SHIFT, PAGE_SIZE, machine, mm_struct, pte_t, struct_folio, struct_page, vm_area_struct
from linux.mmap_lock cimport mmap_read_lock, mmap_read_unlock
from linux.page_flags cimport PageAnonExclusive, folio_mapcount, folio_ref_count, folio_test_anon, folio_test_ksm, page_folio
from linux.pgtable cimport (entry_offset_map_lock, pmd_leaf, pmd_offset_mm, pmdp_get_lockless, pte_pfn, pte_present, pte_write,
                            ptep_get)
from linux.rbtree cimport rb_node, rb_root
from linux.spinlock cimport spin_lock, spin_unlock, spinlock_t
from linux.swapops cimport is_swap_pte, swp_offset
from linux.types cimport hlist_node

from ksm.kernel.fork cimport mmdrop
from ksm.lib.rbtree cimport rb_first, rb_next
from ksm.mm.ksm cimport (ERA_2_6_38, SEQNR_MASK, STABLE_FLAG, STABLE_NODE_CHAIN, UNSTABLE_FLAG, ksm_globals, ksm_mm_slot, ksm_rmap_item,
                         ksm_stable_node)
from ksm.mm.mm_slot cimport struct_mm_slot
from ksm.step cimport STEP_PASS_ENDS


cdef bint put(longs *row, long value) noexcept nogil:
    """Append a number; False if there is no memory."""
    cdef size_t room
    cdef long *a
    if row.n == row.room:
        room = row.room * 2 if row.room else 4096
        a = <long *>realloc(row.a, room * sizeof(long))
        if a == NULL:
            row.no_memory = True
            return False
        row.a = a
        row.room = room
    row.a[row.n] = value
    row.n += 1
    return True


cdef void saw(longs *seen, int kind, unsigned long key, long a, long b, long c, long d, long e, long f) noexcept nogil:
    cdef long[VALUES + 2] all
    cdef int i
    all[0], all[1], all[2], all[3], all[4], all[5], all[6], all[7] = kind, <long>key, a, b, c, d, e, f
    for i in range(VALUES + 2):
        put(seen, all[i])


cdef void look_at_node(longs *seen, ksm_stable_node *node, int place, ksm_stable_node *chain, int position) noexcept nogil:
    saw(seen, NODE, <unsigned long>node, place, -1 if place == NODE_CHAIN else <long>node.kpfn,
        -1 if place == NODE_CHAIN else node.rmap_hlist_len, node.nid, <long>chain, position)


cdef void look_at_stable(longs *seen, ksm_stable_node *node) noexcept nogil:
    """A node of a stable tree, with its dups if it is a chain."""
    cdef hlist_node *pos
    cdef int position = 0
    if node.rmap_hlist_len != STABLE_NODE_CHAIN:
        look_at_node(seen, node, NODE_IN_TREE, NULL, 0)
        return
    look_at_node(seen, node, NODE_CHAIN, NULL, 0)
    pos = node.hlist.first
    while pos != NULL:
        look_at_node(seen, <ksm_stable_node *>(<char *>pos - <size_t>&(<ksm_stable_node *>NULL).hlist_dup), NODE_IN_CHAIN, node, position)
        position += 1
        pos = pos.next


cdef unsigned long object_of(rb_node *node, bint unstable) noexcept nogil:
    if node == NULL:
        return 0
    return <unsigned long>node - (<unsigned long>&(<ksm_rmap_item *>NULL).node if unstable else 0)


cdef void look_at_tree(longs *seen, ksm_globals *g, rb_root *root, int nid, bint unstable) noexcept nogil:
    cdef rb_node *node = rb_first(root)
    saw(seen, ROOT, <unsigned long>(unstable << 16 | nid), unstable, nid, <long>object_of(root.rb_node, unstable), 0, 0, 0)
    while node != NULL:
        saw(seen, LINK, object_of(node, unstable), <long>object_of(node, unstable),
            <long>object_of(<rb_node *>(node.__rb_parent_color & ~3UL), unstable), <long>object_of(node.rb_left, unstable),
            <long>object_of(node.rb_right, unstable), not node.__rb_parent_color & 1, unstable)
        if not unstable:
            look_at_stable(seen, <ksm_stable_node *>node)
        node = rb_next(node)


cdef void look_at_ksm(longs *seen, ksm_globals *g, int which) noexcept nogil:
    cdef unsigned long[12] counters
    cdef unsigned long in_trees = g.ksm_pages_shared + g.ksm_pages_sharing + g.ksm_pages_unshared
    # Between two passes the unstable roots may lead to freed items. When a pass has just ended, they do not yet.
    cdef bint between = g.ksm_scan.mm_slot == &g.ksm_mm_head
    cdef list_head *pos
    cdef ksm_mm_slot *slot
    cdef ksm_rmap_item *item
    cdef int i, place
    cdef long where
    counters[0], counters[1], counters[2], counters[3] = g.ksm_scan.seqnr, g.ksm_pages_scanned, g.ksm_pages_shared, g.ksm_pages_sharing
    counters[4], counters[5] = g.ksm_pages_unshared, g.ksm_rmap_items - in_trees if g.ksm_rmap_items > in_trees else 0
    counters[6], counters[7] = g.ksm_pages_skipped, <unsigned long>g.m.ksm_zero_pages
    counters[8], counters[9], counters[10] = g.ksm_stable_node_chains, g.ksm_stable_node_dups, g.ksm_rmap_items
    counters[11] = <unsigned long>g.m.vm_event[COW_KSM]
    for i in range(12):
        saw(seen, COUNTER, <unsigned long>i, i, <long>counters[i], 0, 0, 0, 0)
    for i in range(g.ksm_nr_node_ids):
        look_at_tree(seen, g, g.root_stable_tree + i, i, False)
        if not between or which == STEP_PASS_ENDS:
            look_at_tree(seen, g, g.root_unstable_tree + i, i, True)
    pos = g.migrate_nodes.next
    i = 0
    while pos != &g.migrate_nodes:
        look_at_node(seen, <ksm_stable_node *>(<char *>pos - <size_t>&(<ksm_stable_node *>NULL).list), NODE_MIGRATING, NULL, i)
        i += 1
        pos = pos.next

    spin_lock(&g.ksm_mmlist_lock)
    if not between:
        saw(seen, CURSOR, 0, <long>g.ksm_scan.mm_slot.slot.mm.id, <long>(g.ksm_scan.address >> PAGE_SHIFT), <long>g.ksm_scan.seqnr, 0, 0, 0)
    pos = g.ksm_mm_head.slot.mm_node.next
    while pos != &g.ksm_mm_head.slot.mm_node:
        slot = <ksm_mm_slot *>(<char *>pos - <size_t>&(<struct_mm_slot *>NULL).mm_node)
        item = slot.rmap_list
        while item != NULL:
            where = -1
            place = ITEM_VOLATILE
            if item.address & STABLE_FLAG:
                place, where = ITEM_STABLE, <long>item.head
            elif item.address & UNSTABLE_FLAG:
                place, where = ITEM_UNSTABLE, 0 if g.era == ERA_2_6_38 else item.nid
                if between or (item.address & SEQNR_MASK) != (g.ksm_scan.seqnr & SEQNR_MASK):
                    place = ITEM_STALE
            saw(seen, ITEM, <unsigned long>item, <long>item.mm.id, <long>(item.address >> PAGE_SHIFT), place, where, item.oldchecksum,
                item.age | item.remaining_skips << 8)
            item = item.rmap_list
        saw(seen, MM, slot.slot.mm.id, <long>slot.slot.mm.id, <long>slot.slot.mm.ksm_rmap_items,
            <long>slot.slot.mm.ksm_merging_pages, 1, 0, 0)
        pos = pos.next
    spin_unlock(&g.ksm_mmlist_lock)


cdef void look_at_entry(longs *seen, machine *m, vm_area_struct *vma, unsigned long addr, pte_t pte) noexcept nogil:
    cdef struct_page *page
    cdef long bits = 0
    cdef unsigned long key = vma.vm_mm.id << 40 | addr >> PAGE_SHIFT
    if pte_present(pte):
        page = vm_normal_page(vma, addr, pte)
        bits = 1 | (BIT_WRITE if pte_write(pte) else 0)
        if page == NULL:
            bits |= BIT_ZERO | (BIT_KSM_ZERO if is_ksm_zero_pte(m, pte) else 0)
        elif folio_test_ksm(page):
            bits |= BIT_KSM | BIT_ANON
        elif folio_test_anon(page):
            bits |= BIT_ANON | (BIT_EXCLUSIVE if PageAnonExclusive(page) else 0)
        saw(seen, PTE, key, <long>vma.vm_mm.id, <long>(addr >> PAGE_SHIFT), <long>pte_pfn(pte), bits, 0, 0)
        if page != NULL:
            saw(seen, FRAME, pte_pfn(pte), <long>pte_pfn(pte), folio_mapcount(page), folio_ref_count(page), -1,
                bits & (BIT_KSM | BIT_ANON), 0)
    elif is_swap_pte(pte):
        saw(seen, PTE, key, <long>vma.vm_mm.id, <long>(addr >> PAGE_SHIFT), <long>swp_offset(pte), BIT_SWAPPED, 0, 0)


cdef void look_at_huge(longs *seen, machine *m, vm_area_struct *vma, unsigned long addr, unsigned long pfn, bint write) noexcept nogil:
    """One page of a huge page."""
    cdef struct_page *page = m.mem_map + pfn
    cdef struct_folio *folio = page_folio(page)
    cdef unsigned long key = vma.vm_mm.id << 40 | addr >> PAGE_SHIFT
    cdef long bits = 1 | BIT_ANON | BIT_HUGE | (BIT_WRITE if write else 0)
    saw(seen, PTE, key, <long>vma.vm_mm.id, <long>(addr >> PAGE_SHIFT), <long>pfn, bits, 0, 0)
    saw(seen, FRAME, pfn, <long>pfn, folio_mapcount(folio), folio_ref_count(folio), -1, BIT_ANON | BIT_HUGE, 0)


cdef void look_at_mm(longs *seen, machine *m, mm_struct *mm) noexcept nogil:
    cdef unsigned long addr, table, pfn = 0
    cdef vm_area_struct *vma
    cdef spinlock_t *ptl = NULL
    cdef pte_t *ptep
    cdef bint huge
    cdef int i
    mmap_read_lock(mm)
    for i in range(mm.map_count if atomic_read(&mm.mm_users) else 0):
        vma = mm.vmas[i]
        if vma.anon_vma == NULL:
            continue
        addr = vma.vm_start
        while addr < vma.vm_end:
            table = (addr & ~0x1fffffUL) + 0x200000
            # One entry of a table, or the entry of a huge page
            ptep = entry_offset_map_lock(mm, addr, &ptl, &pfn)
            if ptep == NULL:
                addr = table
                continue
            huge = pmd_leaf(pmdp_get_lockless(pmd_offset_mm(mm, addr)))
            while addr < table and addr < vma.vm_end:
                if huge:
                    look_at_huge(seen, m, vma, addr, pfn, pte_write(ptep_get(ptep)))
                    pfn += 1
                else:
                    look_at_entry(seen, m, vma, addr, ptep_get(ptep))
                    ptep += 1
                addr += PAGE_SIZE
            spin_unlock(ptl)
    mmap_read_unlock(mm)


cdef void look_at_mms(longs *seen, machine *m) noexcept nogil:
    """All address spaces, one after the other, in the order of their birth."""
    cdef mm_struct *mm
    cdef mm_struct *last = NULL
    cdef list_head *pos
    while True:
        spin_lock(&m.mmlist_lock)
        pos = m.mmlist.next if last == NULL else last.mmlist.next
        mm = NULL
        while pos != &m.mmlist and mm == NULL:
            mm = <mm_struct *>(<char *>pos - <size_t>&(<mm_struct *>NULL).mmlist)
            # An address space without references is about to leave the list.
            if not atomic_inc_not_zero(&mm.mm_count):
                mm = NULL
            pos = pos.next
        spin_unlock(&m.mmlist_lock)
        if last != NULL:
            mmdrop(last)
        if mm == NULL:
            return
        look_at_mm(seen, m, mm)
        last = mm

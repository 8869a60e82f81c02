# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recording what KSM does.
"""Looking at the whole state: look_at_ksm() wants ksm_thread_mutex held. look_at_mms() wants no other lock held, if it is to wait."""

from libc.stdlib cimport realloc

from linux.atomic cimport READ_ONCE_ulong, atomic_inc_not_zero, atomic_read
from linux.list cimport list_head
from linux.mm_types cimport COW_KSM, PAGE_SHIFT, machine, mm_of_mmlist, mm_struct, pmd_t, pte_t, struct_page, vm_area_struct
from linux.mmap_lock cimport mmap_read_lock, mmap_read_trylock, mmap_read_unlock
from linux.page_flags cimport PageAnonExclusive, folio_mapcount, folio_ref_count, page_folio, pfn_to_page
from linux.pgtable cimport pmd_offset_mm, pte_offset_map, pte_pfn, pte_present, pte_write, ptep_get
from linux.rbtree cimport rb_node, rb_root
from linux.spinlock cimport spin_lock, spin_unlock
from linux.types cimport hlist_node

from ksm.fs.proc.task_mmu cimport (PAGE_ANON, PAGE_FLAGS_SHIFT, PAGE_KSM, PAGE_KSM_ZERO, PAGE_PRESENT, PAGE_SWAPPED, PAGE_THP, PAGE_ZERO,
                                   pagemap_walk)
from ksm.kernel.fork cimport mmdrop
from ksm.lib.rbtree cimport rb_first, rb_next
from ksm.mm.ksm cimport (ERA_2_6_38, ERA_7_3, KSM_RUN_UNMERGE, SEQNR_MASK, STABLE_FLAG, STABLE_NODE_CHAIN, UNSTABLE_FLAG, ksm_globals,
                         ksm_mm_slot, ksm_rmap_item, ksm_stable_node, mm_slot_of, rmap_item_of, stable_node_of, stable_node_of_dup,
                         stable_node_of_list)
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
        look_at_node(seen, stable_node_of_dup(pos), NODE_IN_CHAIN, node, position)
        position += 1
        pos = pos.next


cdef unsigned long object_of(rb_node *node, bint unstable) noexcept nogil:
    if node == NULL:
        return 0
    return <unsigned long>rmap_item_of(node) if unstable else <unsigned long>stable_node_of(node)


cdef void look_at_tree(longs *seen, ksm_globals *g, rb_root *root, int nid, bint unstable) noexcept nogil:
    cdef rb_node *node = rb_first(root)
    saw(seen, ROOT, <unsigned long>(unstable << 16 | nid), unstable, nid, <long>object_of(root.rb_node, unstable), 0, 0, 0)
    while node != NULL:
        saw(seen, LINK, object_of(node, unstable), <long>object_of(node, unstable),
            <long>object_of(<rb_node *>(node.__rb_parent_color & ~3UL), unstable), <long>object_of(node.rb_left, unstable),
            <long>object_of(node.rb_right, unstable), not node.__rb_parent_color & 1, unstable)
        if not unstable:
            look_at_stable(seen, stable_node_of(node))
        node = rb_next(node)


cdef void look_at_item(longs *seen, ksm_globals *g, ksm_rmap_item *item, int which) noexcept nogil:
    # Between two passes, and when one has just ended, see look_at_ksm().
    cdef bint between = g.ksm_scan.mm_slot == &g.ksm_mm_head and which != STEP_PASS_ENDS
    cdef unsigned long pass_of_tree = g.ksm_scan.seqnr - (which == STEP_PASS_ENDS)
    cdef int place = ITEM_VOLATILE
    cdef long where = -1
    cdef bint known
    if item.address & STABLE_FLAG:
        place, where = ITEM_STABLE, <long>item.head
    elif item.address & UNSTABLE_FLAG:
        place, where = ITEM_UNSTABLE, 0 if g.era == ERA_2_6_38 else item.nid
        if between or (item.address & SEQNR_MASK) != (pass_of_tree & SEQNR_MASK):
            place = ITEM_STALE
    known = g.era < ERA_7_3 or place != ITEM_STABLE     # else the index of the page lies over them
    saw(seen, ITEM, <unsigned long>item, <long>item.mm.id, <long>(item.address >> PAGE_SHIFT), place, where,
        item.oldchecksum if known else 0, item.age | item.remaining_skips << 8 if known else 0)


cdef bint of_this_pass(ksm_globals *g, rb_root *root) noexcept nogil:
    """Whether an unstable tree is that of the pass under way, while all is unmerged: after a run = 2 that has failed there is none.

    The pass was broken off, and the root is still that of its tree, whose items the next run = 2 frees.
    """
    cdef list_head *pos
    cdef ksm_rmap_item *item
    cdef bint found = False
    if not READ_ONCE_ulong(g.ksm_run) & KSM_RUN_UNMERGE or root.rb_node == NULL:
        return True
    spin_lock(&g.ksm_mmlist_lock)
    pos = g.ksm_mm_head.slot.mm_node.next
    while pos != &g.ksm_mm_head.slot.mm_node and not found:
        item = mm_slot_of(pos).rmap_list
        while item != NULL and not found:
            found = (item == rmap_item_of(root.rb_node) and item.address & UNSTABLE_FLAG
                     and (item.address & SEQNR_MASK) == (g.ksm_scan.seqnr & SEQNR_MASK))
            item = item.rmap_list
        pos = pos.next
    spin_unlock(&g.ksm_mmlist_lock)
    return found


cdef void look_at_ksm(longs *seen, ksm_globals *g, int which, bint in_pass) noexcept nogil:
    cdef unsigned long[12] counters
    cdef unsigned long in_trees = g.ksm_pages_shared + g.ksm_pages_sharing + g.ksm_pages_unshared
    # Between two passes the unstable roots may lead to freed items, also while run 2 goes from slot to slot. When a pass has just ended,
    # they do not yet.
    cdef bint between = g.ksm_scan.mm_slot == &g.ksm_mm_head
    cdef list_head *pos
    cdef ksm_mm_slot *slot
    cdef ksm_rmap_item *item
    cdef int i
    counters[0], counters[1], counters[2], counters[3] = g.ksm_scan.seqnr, g.ksm_pages_scanned, g.ksm_pages_shared, g.ksm_pages_sharing
    counters[4], counters[5] = g.ksm_pages_unshared, g.ksm_rmap_items - in_trees if g.ksm_rmap_items > in_trees else 0
    counters[6], counters[7] = g.ksm_pages_skipped, <unsigned long>g.m.ksm_zero_pages
    counters[8], counters[9], counters[10] = g.ksm_stable_node_chains, g.ksm_stable_node_dups, g.ksm_rmap_items
    counters[11] = <unsigned long>g.m.vm_event[COW_KSM]
    for i in range(12):
        saw(seen, COUNTER, <unsigned long>i, i, <long>counters[i], 0, 0, 0, 0)
    for i in range(g.ksm_nr_node_ids):
        look_at_tree(seen, g, g.root_stable_tree + i, i, False)
        if (in_pass and not between and of_this_pass(g, g.root_unstable_tree + i)) or which == STEP_PASS_ENDS:
            look_at_tree(seen, g, g.root_unstable_tree + i, i, True)
    pos = g.migrate_nodes.next
    i = 0
    while pos != &g.migrate_nodes:
        look_at_node(seen, stable_node_of_list(pos), NODE_MIGRATING, NULL, i)
        i += 1
        pos = pos.next

    spin_lock(&g.ksm_mmlist_lock)
    if not between:
        saw(seen, CURSOR, 0, <long>g.ksm_scan.mm_slot.slot.mm.id, <long>(g.ksm_scan.address >> PAGE_SHIFT), <long>g.ksm_scan.seqnr, 0, 0, 0)
    pos = g.ksm_mm_head.slot.mm_node.next
    while pos != &g.ksm_mm_head.slot.mm_node:
        slot = mm_slot_of(pos)
        item = slot.rmap_list
        while item != NULL:
            look_at_item(seen, g, item, which)
            item = item.rmap_list
        saw(seen, MM, slot.slot.mm.id, <long>slot.slot.mm.id, <long>slot.slot.mm.ksm_rmap_items,
            <long>slot.slot.mm.ksm_merging_pages, 1, 0, 0)
        pos = pos.next
    spin_unlock(&g.ksm_mmlist_lock)


cdef void look_at_entry(vm_area_struct *vma, unsigned long addr, pte_t pte, unsigned long word, void *seen) noexcept nogil:
    """Also for each of the pages that a huge page is."""
    cdef unsigned long pfn = word >> PAGE_FLAGS_SHIFT, key = vma.vm_mm.id << 40 | addr >> PAGE_SHIFT
    cdef struct_page *page = vma.vm_mm.machine.mem_map + pfn
    cdef long bits = word & (PAGE_PRESENT | PAGE_KSM | PAGE_ZERO | PAGE_KSM_ZERO | PAGE_ANON | PAGE_SWAPPED)
    cdef long of_frame = bits & (PAGE_KSM | PAGE_ANON)
    if not word:
        return
    if word & PAGE_PRESENT:
        bits |= BIT_WRITE if pte_write(pte) else 0
        if word & PAGE_THP:
            bits |= BIT_HUGE
            of_frame |= BIT_HUGE
        elif word & PAGE_ANON and not word & PAGE_KSM and PageAnonExclusive(page):
            bits |= BIT_EXCLUSIVE
    saw(<longs *>seen, PTE, key, <long>vma.vm_mm.id, <long>(addr >> PAGE_SHIFT), <long>pfn, bits, 0, 0)
    if word & PAGE_PRESENT and not word & PAGE_ZERO:
        saw(<longs *>seen, FRAME, pfn, <long>pfn, folio_mapcount(page_folio(page)), folio_ref_count(page_folio(page)), -1, of_frame, 0)


cdef bint look_at_mm(longs *seen, mm_struct *mm, bint wait, mm_struct *held) noexcept nogil:
    cdef vm_area_struct *vma
    cdef int i
    if wait:
        mmap_read_lock(mm)
    elif mm != held and not mmap_read_trylock(mm):
        return False
    for i in range(mm.map_count if atomic_read(&mm.mm_users) else 0):
        vma = mm.vmas[i]
        pagemap_walk(vma, vma.vm_start, vma.vm_end, look_at_entry, seen)
    if mm != held:
        mmap_read_unlock(mm)
    return True


cdef bint look_at_mms(longs *seen, machine *m, bint wait, mm_struct *held) noexcept nogil:
    """All address spaces, one after the other, in the order of their birth. False without `wait`, if mmap_lock of one is not to be had.

    `held`: the one whose mmap_lock the thread holds, for reading or writing. Without `wait` it may also hold others for reading.
    """
    cdef mm_struct *mm
    cdef mm_struct *last = NULL
    cdef list_head *pos
    cdef bint seen_all = True
    while True:
        spin_lock(&m.mmlist_lock)
        pos = m.mmlist.next if last == NULL else last.mmlist.next
        mm = NULL
        while pos != &m.mmlist and mm == NULL:
            mm = mm_of_mmlist(pos)
            # One without references is about to leave the list.
            if not atomic_inc_not_zero(&mm.mm_count):
                mm = NULL
            pos = pos.next
        spin_unlock(&m.mmlist_lock)
        if last != NULL:
            mmdrop(last)
        if mm == NULL:
            return seen_all
        seen_all = seen_all and look_at_mm(seen, mm, wait, held)
        last = mm


cdef struct_page *page_of(machine *m, ksm_rmap_item *item) noexcept nogil:
    """The page that is mapped at the item's address, or NULL."""
    cdef pmd_t *pmd = pmd_offset_mm(item.mm, item.address)
    cdef pte_t *pte = pte_offset_map(pmd, item.address) if pmd != NULL else NULL
    return pfn_to_page(m, pte_pfn(ptep_get(pte))) if pte != NULL and pte_present(ptep_get(pte)) else NULL

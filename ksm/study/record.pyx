# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recording what KSM does.
"""machine.record(): each step of a scan, and what it changed.

A step is written down where ksm.pyx takes it (ksm/step.pxd). Then the recorder looks at everything, as far as the locks that are held at
that place allow, and writes down what is not as it was: counters, roots and links of the trees, stable nodes, rmap_items, page table
entries, frames. A player that applies these changes in their order has the state of every step, and comes back by what they replaced.

What is written is a sequence of numbers, one record a step:

    step, rmap_item, frame, node, value, offset, length     -1 is none; `offset`: the first byte that differs, where pages are compared
    then `length` numbers: kind + 1, object, values...      has these values now;   -(kind + 1), object    is no more

An object's number is its own for the whole recording. The kinds and their values are in enum what.
"""

from array import array

from libc.errno cimport EBUSY
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from linux.list cimport list_head
from linux.mm cimport vm_normal_page
from linux.mm_types cimport (COW_KSM, PAGE_SHIFT, PAGE_SIZE, machine, mm_struct, pte_t, struct_folio, struct_page, vm_area_struct)
from linux.mmap_lock cimport mmap_read_lock, mmap_read_unlock
from linux.atomic cimport READ_ONCE_int, WRITE_ONCE_ptr, atomic_inc_not_zero, atomic_read
from linux.ksm cimport is_ksm_zero_pte
from linux.page_flags cimport (PageAnonExclusive, folio_mapcount, folio_ref_count, folio_test_anon, folio_test_ksm, page_address,
                               page_folio)
from linux.pgtable cimport (entry_offset_map_lock, pmd_leaf, pmd_offset_mm, pmdp_get_lockless, pte_pfn, pte_present, pte_write,
                            ptep_get)
from linux.rbtree cimport rb_node, rb_root
from linux.spinlock cimport mutex_lock, mutex_unlock, spin_lock, spin_lock_init, spin_unlock, spinlock_t
from linux.swapops cimport is_swap_pte, swp_offset
from linux.types cimport hlist_node

from ksm.kernel.fork cimport mmdrop
from ksm.lib.rbtree cimport rb_first, rb_next
from ksm.lib.xxhash cimport xxhash
from ksm.machine cimport Machine, oserror
from ksm.mm.ksm cimport (ERA_2_6_38, SEQNR_MASK, STABLE_FLAG, STABLE_NODE_CHAIN, UNSTABLE_FLAG, ksm_globals, ksm_mm_slot, ksm_rmap_item,
                         ksm_stable_node, wait_while_offlining)
from ksm.mm.mm_slot cimport struct_mm_slot
from ksm.step cimport (NR_STEPS, STEP_AT_ITS_NODE, STEP_BREAK_COW, STEP_BREAK_KSM, STEP_CHAIN_MADE, STEP_CHANGED, STEP_COW,
                       STEP_DUP_ADDED, STEP_APPENDED, STEP_FORKED, STEP_INSERT_COMPARE, STEP_MERGED, STEP_NEXT, STEP_NODE_MOVED,
                       STEP_NOTE, STEP_PASS_BEGINS, STEP_PASS_ENDS, STEP_SKIPPED, STEP_STABLE_BUSY, STEP_STABLE_COMPARE,
                       STEP_STABLE_FOUND, STEP_STABLE_FULL, STEP_STABLE_INSERTED, STEP_STABLE_MISS, STEP_TWO_MERGED,
                       STEP_UNCHANGED, STEP_UNSTABLE_COMPARE, STEP_UNSTABLE_FOUND, STEP_UNSTABLE_GAVE_UP, STEP_UNSTABLE_INSERTED,
                       STEP_ZERO_MERGED)

# As the files of sysfs, but for the last two: what free_rmap_item() counts down, and /proc/vmstat's.
COUNTERS = ("full_scans", "pages_scanned", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "pages_skipped",
            "ksm_zero_pages", "stable_node_chains", "stable_node_dups", "rmap_items", "cow_ksm")

cdef enum what:
    COUNTER                     # number, value
    ROOT                        # tree (0 stable, 1 unstable), NUMA node, object at the root
    LINK                        # object, parent, left, right, red
    NODE                        # place, frame, rmap_hlist_len, nid, chain, position in it
    ITEM                        # mm, page number, place, object or nid, checksum, age | remaining skips << 8
    PTE                         # mm, page number, frame or swap slot, bits
    FRAME                       # frame, mapcount, references, contents, bits
    CURSOR                      # mm, page number, seqnr
    MM                          # mm, rmap_items, merging pages, registered
    CONTENT                     # never written: what the others call contents
    NR_KINDS

cdef enum:
    VALUES = 6
    LABEL = 24                  # bytes of a page that are kept
    # Places
    NODE_IN_TREE = 0
    NODE_IN_CHAIN = 1
    NODE_MIGRATING = 2
    NODE_CHAIN = 3
    ITEM_VOLATILE = 0
    ITEM_UNSTABLE = 1
    ITEM_STABLE = 2
    ITEM_STALE = 3              # of the last pass's unstable tree
    # Bits of an entry of a page table, and of a frame
    BIT_KSM = 2
    BIT_ZERO = 4
    BIT_KSM_ZERO = 8
    BIT_ANON = 16
    BIT_SWAPPED = 32
    BIT_WRITE = 64
    BIT_EXCLUSIVE = 128
    BIT_HUGE = 256
    # How far a step can look
    LOOK_NOT = 0                # somebody's locks are held, or KSM's are not
    LOOK_KSM = 1                # at what KSM keeps: the thread has ksm_thread_mutex
    LOOK_ALL = 2                # at the page tables, too: it has no other lock

cdef int[NR_KINDS] widths
widths[:] = [2, 3, 5, 6, 6, 4, 5, 3, 4, 0]

cdef int[NR_STEPS] look
memset(look, 0, sizeof(look))
look[<int>STEP_SKIPPED] = look[<int>STEP_APPENDED] = look[<int>STEP_INSERT_COMPARE] = LOOK_KSM
look[<int>STEP_STABLE_INSERTED] = look[<int>STEP_DUP_ADDED] = look[<int>STEP_CHAIN_MADE] = LOOK_KSM
for _step in (STEP_NOTE, STEP_PASS_BEGINS, STEP_NEXT, STEP_PASS_ENDS, STEP_AT_ITS_NODE, STEP_FORKED, STEP_NODE_MOVED, STEP_CHANGED,
              STEP_UNCHANGED, STEP_ZERO_MERGED, STEP_STABLE_COMPARE, STEP_STABLE_FOUND, STEP_STABLE_MISS, STEP_STABLE_FULL,
              STEP_STABLE_BUSY, STEP_UNSTABLE_COMPARE, STEP_UNSTABLE_FOUND, STEP_UNSTABLE_GAVE_UP, STEP_UNSTABLE_INSERTED, STEP_MERGED,
              STEP_TWO_MERGED, STEP_BREAK_COW):
    look[<int>_step] = LOOK_ALL


cdef struct entry:
    unsigned long key
    int kind
    bint live
    unsigned int seen           # the last look at which it was there
    long v[VALUES]


cdef struct longs:
    long *a
    size_t n, room


cdef struct label:
    unsigned char bytes[LABEL]


cdef struct recorder:
    # One for each recording of a machine, freed with the machine: a step in another thread may come late.
    spinlock_t lock             # all below
    recorder *older
    bint active, no_memory, truncated
    unsigned long steps, most_steps
    longs out
    entry *entries              # their places are the objects' numbers
    size_t nr_entries, room
    unsigned int *index         # place + 1, by hash
    size_t index_size
    label *labels               # by the number that FRAME has as contents
    size_t nr_labels, labels_room
    # Of the thread that holds ksm_thread_mutex
    unsigned int looks
    long pfn                    # the page that is being scanned
    bint refresh                # all contents are to be looked at again
    longs seen                  # kind, key, values


# Numbers in a row, and objects by what they are

cdef bint put(recorder *r, longs *row, long value) noexcept nogil:
    cdef size_t room
    cdef long *a
    if row.n == row.room:
        room = row.room * 2 if row.room else 4096
        a = <long *>realloc(row.a, room * sizeof(long))
        if a == NULL:
            r.no_memory = True
            return False
        row.a = a
        row.room = room
    row.a[row.n] = value
    row.n += 1
    return True


cdef size_t slot_of(recorder *r, int kind, unsigned long key) noexcept nogil:
    """Where the index has it, or where it would be entered."""
    cdef size_t i = ((key ^ (<unsigned long>kind << 57)) * 0x9e3779b97f4a7c15UL >> 17) & (r.index_size - 1)
    cdef entry *e
    while r.index[i]:
        e = &r.entries[r.index[i] - 1]
        if e.key == key and e.kind == kind:
            break
        i = (i + 1) & (r.index_size - 1)
    return i


cdef bint grow(recorder *r) noexcept nogil:
    cdef size_t room = r.room * 2 if r.room else 1024, i
    cdef entry *entries = <entry *>realloc(r.entries, room * sizeof(entry))
    cdef unsigned int *index
    if entries == NULL:
        return False
    r.entries = entries
    index = <unsigned int *>calloc(room * 4, sizeof(unsigned int))
    if index == NULL:
        return False
    free(r.index)
    r.index = index
    r.index_size = room * 4
    r.room = room
    for i in range(r.nr_entries):
        r.index[slot_of(r, r.entries[i].kind, r.entries[i].key)] = <unsigned int>i + 1
    return True


cdef long number_of(recorder *r, int kind, unsigned long key, bint make) noexcept nogil:
    """The object's number; -1 if it is not known, or without memory."""
    cdef size_t i
    cdef entry *e
    if r.nr_entries == r.room and not grow(r):
        r.no_memory = True
        return -1
    i = slot_of(r, kind, key)
    if r.index[i]:
        return r.index[i] - 1
    if not make:
        return -1
    e = &r.entries[r.nr_entries]
    memset(e, 0, sizeof(entry))
    e.key = key
    e.kind = kind
    r.nr_entries += 1
    r.index[i] = <unsigned int>r.nr_entries
    return <long>r.nr_entries - 1


# Looking: what is there goes into r.seen as it is, with addresses for objects

cdef void saw(recorder *r, int kind, unsigned long key, long a, long b, long c, long d, long e, long f) noexcept nogil:
    cdef long[VALUES + 2] all
    cdef int i
    all[0], all[1], all[2], all[3], all[4], all[5], all[6], all[7] = kind, <long>key, a, b, c, d, e, f
    for i in range(VALUES + 2):
        put(r, &r.seen, all[i])


cdef void look_at_node(recorder *r, ksm_stable_node *node, int place, ksm_stable_node *chain, int position) noexcept nogil:
    saw(r, NODE, <unsigned long>node, place, -1 if place == NODE_CHAIN else <long>node.kpfn,
        -1 if place == NODE_CHAIN else node.rmap_hlist_len, node.nid, <long>chain, position)


cdef void look_at_stable(recorder *r, ksm_stable_node *node) noexcept nogil:
    """A node of a stable tree, with its dups if it is a chain."""
    cdef hlist_node *pos
    cdef int position = 0
    if node.rmap_hlist_len != STABLE_NODE_CHAIN:
        look_at_node(r, node, NODE_IN_TREE, NULL, 0)
        return
    look_at_node(r, node, NODE_CHAIN, NULL, 0)
    pos = node.hlist.first
    while pos != NULL:
        look_at_node(r, <ksm_stable_node *>(<char *>pos - <size_t>&(<ksm_stable_node *>NULL).hlist_dup), NODE_IN_CHAIN, node, position)
        position += 1
        pos = pos.next


cdef unsigned long object_of(rb_node *node, bint unstable) noexcept nogil:
    if node == NULL:
        return 0
    return <unsigned long>node - (<unsigned long>&(<ksm_rmap_item *>NULL).node if unstable else 0)


cdef void look_at_tree(recorder *r, ksm_globals *g, rb_root *root, int nid, bint unstable) noexcept nogil:
    cdef rb_node *node = rb_first(root)
    saw(r, ROOT, <unsigned long>(unstable << 16 | nid), unstable, nid, <long>object_of(root.rb_node, unstable), 0, 0, 0)
    while node != NULL:
        saw(r, LINK, object_of(node, unstable), <long>object_of(node, unstable),
            <long>object_of(<rb_node *>(node.__rb_parent_color & ~3UL), unstable), <long>object_of(node.rb_left, unstable),
            <long>object_of(node.rb_right, unstable), not node.__rb_parent_color & 1, unstable)
        if not unstable:
            look_at_stable(r, <ksm_stable_node *>node)
        node = rb_next(node)


cdef void look_at_ksm(recorder *r, ksm_globals *g, int which) noexcept nogil:
    cdef unsigned long[12] counters
    cdef unsigned long in_trees = g.ksm_pages_shared + g.ksm_pages_sharing + g.ksm_pages_unshared
    # Between two passes the unstable roots lead to what may be freed; not yet when one has just ended.
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
        saw(r, COUNTER, <unsigned long>i, i, <long>counters[i], 0, 0, 0, 0)
    for i in range(g.ksm_nr_node_ids):
        look_at_tree(r, g, g.root_stable_tree + i, i, False)
        if not between or which == STEP_PASS_ENDS:
            look_at_tree(r, g, g.root_unstable_tree + i, i, True)
    pos = g.migrate_nodes.next
    i = 0
    while pos != &g.migrate_nodes:
        look_at_node(r, <ksm_stable_node *>(<char *>pos - <size_t>&(<ksm_stable_node *>NULL).list), NODE_MIGRATING, NULL, i)
        i += 1
        pos = pos.next

    spin_lock(&g.ksm_mmlist_lock)
    if not between:
        saw(r, CURSOR, 0, <long>g.ksm_scan.mm_slot.slot.mm.id, <long>(g.ksm_scan.address >> PAGE_SHIFT), <long>g.ksm_scan.seqnr, 0, 0, 0)
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
            saw(r, ITEM, <unsigned long>item, <long>item.mm.id, <long>(item.address >> PAGE_SHIFT), place, where, item.oldchecksum,
                item.age | item.remaining_skips << 8)
            item = item.rmap_list
        saw(r, MM, slot.slot.mm.id, <long>slot.slot.mm.id, <long>slot.slot.mm.ksm_rmap_items, <long>slot.slot.mm.ksm_merging_pages, 1, 0, 0)
        pos = pos.next
    spin_unlock(&g.ksm_mmlist_lock)


cdef void look_at_entry(recorder *r, machine *m, vm_area_struct *vma, unsigned long addr, pte_t pte) noexcept nogil:
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
        saw(r, PTE, key, <long>vma.vm_mm.id, <long>(addr >> PAGE_SHIFT), <long>pte_pfn(pte), bits, 0, 0)
        if page != NULL:
            saw(r, FRAME, pte_pfn(pte), <long>pte_pfn(pte), folio_mapcount(page), folio_ref_count(page), -1, bits & (BIT_KSM | BIT_ANON), 0)
    elif is_swap_pte(pte):
        saw(r, PTE, key, <long>vma.vm_mm.id, <long>(addr >> PAGE_SHIFT), <long>swp_offset(pte), BIT_SWAPPED, 0, 0)


cdef void look_at_huge(recorder *r, machine *m, vm_area_struct *vma, unsigned long addr, unsigned long pfn, bint write) noexcept nogil:
    """One of the pages that a huge page is."""
    cdef struct_page *page = m.mem_map + pfn
    cdef struct_folio *folio = page_folio(page)
    cdef unsigned long key = vma.vm_mm.id << 40 | addr >> PAGE_SHIFT
    cdef long bits = 1 | BIT_ANON | BIT_HUGE | (BIT_WRITE if write else 0)
    saw(r, PTE, key, <long>vma.vm_mm.id, <long>(addr >> PAGE_SHIFT), <long>pfn, bits, 0, 0)
    saw(r, FRAME, pfn, <long>pfn, folio_mapcount(folio), folio_ref_count(folio), -1, BIT_ANON | BIT_HUGE, 0)


cdef void look_at_mm(recorder *r, machine *m, mm_struct *mm) noexcept nogil:
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
                    look_at_huge(r, m, vma, addr, pfn, pte_write(ptep_get(ptep)))
                    pfn += 1
                else:
                    look_at_entry(r, m, vma, addr, ptep_get(ptep))
                    ptep += 1
                addr += PAGE_SIZE
            spin_unlock(ptl)
    mmap_read_unlock(mm)


cdef void look_at_mms(recorder *r, machine *m) noexcept nogil:
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
            # One without references is about to leave the list.
            if not atomic_inc_not_zero(&mm.mm_count):
                mm = NULL
            pos = pos.next
        spin_unlock(&m.mmlist_lock)
        if last != NULL:
            mmdrop(last)
        if mm == NULL:
            return
        look_at_mm(r, m, mm)
        last = mm


# Writing down what has changed. The recorder is locked.

cdef long contents_of(recorder *r, machine *m, long pfn) noexcept nogil:
    """A number for the bytes that the frame has."""
    cdef const unsigned char *bytes = <const unsigned char *>page_address(m, m.mem_map + pfn)
    cdef long number = number_of(r, CONTENT, xxhash(bytes, PAGE_SIZE, 0), True)
    cdef label *labels
    cdef entry *e
    if number < 0:
        return -1
    e = &r.entries[number]
    if not e.live:
        if r.nr_labels == r.labels_room:
            labels = <label *>realloc(r.labels, (r.labels_room * 2 + 64) * sizeof(label))
            if labels == NULL:
                r.no_memory = True
                return -1
            r.labels = labels
            r.labels_room = r.labels_room * 2 + 64
        memcpy(r.labels[r.nr_labels].bytes, bytes, LABEL)
        e.live = True
        e.v[0] = <long>r.nr_labels
        r.nr_labels += 1
    return e.v[0]


cdef long as_number(recorder *r, int kind, long address) noexcept nogil:
    return number_of(r, kind, <unsigned long>address, True) if address else -1


cdef void note_change(recorder *r, machine *m, long *seen, long fresh_pfn) noexcept nogil:
    """One thing that was seen: into the record, if it is new or not as it was."""
    cdef int kind = <int>seen[0], i, tree
    cdef long *v = seen + 2
    cdef long number
    cdef entry *e
    if kind == LINK or kind == ROOT:
        tree = ITEM if (v[0] if kind == ROOT else v[5]) else NODE
        for i in range(2 if kind == ROOT else 0, 3 if kind == ROOT else 4):
            v[i] = as_number(r, tree, v[i])
    elif kind == NODE:
        v[4] = as_number(r, NODE, v[4])
    elif kind == ITEM and v[2] == ITEM_STABLE:
        v[3] = as_number(r, NODE, v[3])
    number = number_of(r, kind, <unsigned long>seen[1], True)
    if number < 0:
        return
    e = &r.entries[number]
    if kind == FRAME:
        if e.live and e.seen == r.looks:
            return              # another place maps it, too
        v[3] = e.v[3]
        if not e.live or r.refresh or v[0] == fresh_pfn:
            v[3] = contents_of(r, m, v[0])
            e = &r.entries[number]
    e.seen = r.looks
    for i in range(widths[kind]):
        if not e.live or e.v[i] != v[i]:
            break
    else:
        return
    e.live = True
    put(r, &r.out, kind + 1)
    put(r, &r.out, number)
    for i in range(widths[kind]):
        e.v[i] = v[i]
        put(r, &r.out, v[i])


cdef void note_gone(recorder *r, int looked) noexcept nogil:
    """What was there at the last look and was not seen at this one."""
    cdef entry *e
    cdef size_t i
    for i in range(r.nr_entries):
        e = &r.entries[i]
        if e.live and e.seen != r.looks and e.kind != CONTENT and (looked == LOOK_ALL or e.kind != PTE and e.kind != FRAME):
            e.live = False
            put(r, &r.out, -(e.kind + 1))
            put(r, &r.out, <long>i)


cdef long difference(machine *m, long a, long b) noexcept nogil:
    """The first byte in which two frames differ; -1 if none does."""
    cdef const unsigned char *p = <const unsigned char *>page_address(m, m.mem_map + a)
    cdef const unsigned char *q = <const unsigned char *>page_address(m, m.mem_map + b)
    cdef long i
    for i in range(PAGE_SIZE):
        if p[i] != q[i]:
            return i
    return -1


cdef void record_step(machine *m, int which, void *item, void *page, void *node, long value) noexcept nogil:
    cdef recorder *r = <recorder *>m.recorder
    cdef ksm_globals *g = <ksm_globals *>m.ksm
    cdef long pfn = -1 if page == NULL else <long>(<struct_page *>page - m.mem_map), item_number = -1, node_number = -1, offset = -1
    cdef int looked = look[which]
    cdef size_t i, header, start
    cdef int _i
    if not READ_ONCE_int(r.active):
        return
    if looked:
        r.seen.n = 0
        look_at_ksm(r, g, which)
        if looked == LOOK_ALL:
            look_at_mms(r, m)
        if which == STEP_NEXT:
            r.pfn = pfn
        elif which == STEP_PASS_BEGINS or which == STEP_NOTE:
            r.refresh = True
            r.pfn = -1
        if (which == STEP_STABLE_COMPARE or which == STEP_UNSTABLE_COMPARE or which == STEP_INSERT_COMPARE) and r.pfn >= 0:
            offset = difference(m, r.pfn, pfn)

    spin_lock(&r.lock)
    if r.active and r.steps >= r.most_steps:
        r.truncated = True
        r.active = False
    if r.active:
        header = r.out.n
        for _i in range(7):
            put(r, &r.out, 0)
        start = r.out.n
        if looked:
            r.looks += 1
            i = 0
            while i < r.seen.n:
                note_change(r, m, &r.seen.a[i], pfn)
                i += VALUES + 2
            note_gone(r, looked)
            r.refresh = False
        if which == STEP_BREAK_KSM or which == STEP_COW:
            node_number = <long>(<mm_struct *>item).id
            value = <long>(<unsigned long>value >> PAGE_SHIFT)
        else:
            item_number = number_of(r, ITEM, <unsigned long>item, False) if item != NULL else -1
            node_number = number_of(r, NODE, <unsigned long>node, False) if node != NULL else -1
        if r.no_memory:
            r.out.n = header
            r.active = False
        else:
            r.out.a[header], r.out.a[header + 1], r.out.a[header + 2], r.out.a[header + 3] = which, item_number, pfn, node_number
            r.out.a[header + 4], r.out.a[header + 5], r.out.a[header + 6] = value, offset, <long>(r.out.n - start)
            r.steps += 1
    spin_unlock(&r.lock)


cdef void empty(recorder *r) noexcept nogil:
    """Free what the recorder has, except itself."""
    free(r.out.a)
    free(r.seen.a)
    free(r.entries)
    free(r.index)
    free(r.labels)
    memset(&r.out, 0, sizeof(longs))
    memset(&r.seen, 0, sizeof(longs))
    r.entries = NULL
    r.index = NULL
    r.labels = NULL
    r.nr_entries = r.room = r.index_size = r.nr_labels = r.labels_room = 0


cdef void free_recorders(machine *m) noexcept nogil:
    """With the machine. Nobody is inside."""
    cdef recorder *r = <recorder *>m.recorder
    cdef recorder *older
    while r != NULL:
        older = r.older
        empty(r)
        free(r)
        r = older
    m.recorder = NULL


cdef class Recorder:
    """A recording under way: Machine.record() has it. See ksm/study/recording.py for what is made of it."""

    cdef readonly Machine machine
    cdef recorder *r
    cdef public object words
    cdef public list labels

    def __cinit__(self, Machine of not None, unsigned long most_steps):
        cdef bint busy
        self.machine = of
        self.words, self.labels = array("l"), []
        of.enter()
        try:
            self.r = <recorder *>calloc(1, sizeof(recorder))
            if self.r == NULL:
                raise MemoryError
            spin_lock_init(&self.r.lock)
            self.r.most_steps = most_steps
            self.r.active = True
            self.r.pfn = -1
            with nogil:
                mutex_lock(&of.g.ksm_thread_mutex)
                busy = of.m.step != NULL
                if not busy:
                    self.r.older = <recorder *>of.m.recorder
                    of.m.recorder = self.r
                    of.m.recorder_exit = <void *>free_recorders
                    WRITE_ONCE_ptr(of.m.step, <void *>record_step)
                mutex_unlock(&of.g.ksm_thread_mutex)
            if busy:
                free(self.r)
                raise oserror(EBUSY, "the machine is being recorded already")
        finally:
            of.leave()

    def look(self):
        """A step of its own between two calls: what they have changed. False once the recording has come to its end."""
        cdef machine *m
        cdef bint active
        self.machine.enter()
        m = self.machine.m
        with nogil:
            mutex_lock(&self.machine.g.ksm_thread_mutex)
            wait_while_offlining(self.machine.g)
            active = self.r.active
            if active:
                record_step(m, STEP_NOTE, NULL, NULL, NULL, 0)
                active = self.r.active
            mutex_unlock(&self.machine.g.ksm_thread_mutex)
        self.machine.leave()
        return active

    def stop(self):
        """Record no more, and take what there is into `words` and `labels`: (steps, truncated)."""
        cdef recorder *r = self.r
        cdef size_t i
        self.machine.enter()
        try:
            with nogil:
                mutex_lock(&self.machine.g.ksm_thread_mutex)
                WRITE_ONCE_ptr(self.machine.m.step, NULL)
                spin_lock(&r.lock)
                r.active = False
                spin_unlock(&r.lock)
                mutex_unlock(&self.machine.g.ksm_thread_mutex)
            if r.no_memory:
                raise MemoryError
            self.words.frombytes(<bytes>(<char *>r.out.a)[:r.out.n * sizeof(long)] if r.out.n else b"")
            self.labels = [<bytes>(<char *>r.labels[i].bytes)[:LABEL] for i in range(r.nr_labels)]
            return r.steps, bool(r.truncated)
        finally:
            empty(r)
            self.machine.leave()

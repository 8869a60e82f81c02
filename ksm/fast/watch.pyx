# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: pages that ksmd need not read again, because they were not written to. See watch.pxd.

from linux.atomic cimport (READ_ONCE_uint, WRITE_ONCE_int, WRITE_ONCE_uint, data_race_cmpxchg, data_race_uint, smp_load_acquire_ulong,
                           smp_mb)
from linux.list cimport list_head
from linux.mm cimport vm_normal_page
from linux.mm_types cimport PAGE_SIZE, machine, mm_struct, page_mask, pte_t, struct_page, vm_area_struct
from linux.page_flags cimport PG_ksm_watched, clear_page_flag, pfn_to_page, test_page_flag
from linux.pgtable cimport entry_offset_map_lock, pmd_addr_end, pmd_offset_mm, pte_present, ptep_get
from linux.spinlock cimport spin_lock, spin_unlock, spinlock_t

from ksm.fast.state cimport fast_of, fast_state, ksm_prefetch
from ksm.fast.watch cimport KEY_KNOWN, in_tree, item_key_known, item_number, numbered_item
from ksm.mm.ksm cimport ksm_globals, ksm_rmap_item, mm_slot_of


cdef inline void forget_key(fast_state *fast, unsigned int number) noexcept nogil:
    # The caller holds watch_lock.
    cdef ksm_rmap_item *rmap_item = numbered_item(fast, number)
    cdef unsigned int known = data_race_uint(&rmap_item.key)
    if known & KEY_KNOWN and data_race_cmpxchg(&rmap_item.key, known, 0):
        smp_mb()                # settle() in seams.pyx sees this, or this thread sees that the item is in the tree
        if in_tree(fast, rmap_item) and rmap_item != fast.leaving:
            WRITE_ONCE_int(fast.rotten, 1)


cdef void unwatch(fast_state *fast, struct_page *page) noexcept nogil:
    # The caller holds watch_lock.
    cdef unsigned int number
    if not test_page_flag(page, PG_ksm_watched):
        return
    clear_page_flag(page, PG_ksm_watched)
    number = READ_ONCE_uint(page.private)
    if number:
        forget_key(fast, number)
        WRITE_ONCE_uint(page.private, 0)


cdef void page_changed(machine *m, struct_page *page) noexcept nogil:
    cdef fast_state *fast = fast_of(<ksm_globals *>m.ksm)
    spin_lock(&fast.watch_lock)
    unwatch(fast, page)
    spin_unlock(&fast.watch_lock)


cdef void range_changed(vm_area_struct *vma, unsigned long start, unsigned long end) noexcept nogil:
    cdef mm_struct *mm = vma.vm_mm
    cdef fast_state *fast = fast_of(<ksm_globals *>mm.machine.ksm)
    cdef unsigned long addr = start & page_mask(), until
    cdef unsigned long pfn = 0
    cdef spinlock_t *ptl = NULL
    cdef struct_page *page
    cdef pte_t *pte
    cdef bint huge
    while addr < end:
        until = pmd_addr_end(addr, end)
        pte = entry_offset_map_lock(mm, addr, &ptl, &pfn)
        if pte != NULL:
            huge = pte == pmd_offset_mm(mm, addr)
            spin_lock(&fast.watch_lock)
            while addr < until:
                if huge:
                    unwatch(fast, pfn_to_page(mm.machine, pfn))
                    pfn += 1
                else:
                    if pte_present(ptep_get(pte)):
                        page = vm_normal_page(vma, addr, ptep_get(pte))
                        if page != NULL:
                            unwatch(fast, page)
                    pte += 1
                addr += PAGE_SIZE
            spin_unlock(&fast.watch_lock)
            spin_unlock(ptl)
        addr = until


cdef void forget_all_pages(fast_state *fast) noexcept nogil:
    cdef machine *m = fast.g.m
    cdef unsigned long pfn
    for pfn in range(smp_load_acquire_ulong(m.plugged_pfn)):
        if test_page_flag(pfn_to_page(m, pfn), PG_ksm_watched):
            page_changed(m, pfn_to_page(m, pfn))


cdef bint link_item(fast_state *fast, struct_page *page, ksm_rmap_item *rmap_item, unsigned long key) noexcept nogil:
    """Let the item keep the page's key; false if the page was changed since it was watched. oldchecksum is its checksum, or will be before
    another thread reads the item.
    """
    cdef unsigned int number
    cdef bint linked
    if fast.first_item == NULL:
        fast.first_item = <char *>rmap_item
    number = item_number(fast, rmap_item)
    if number == 0:
        return False
    spin_lock(&fast.watch_lock)
    linked = test_page_flag(page, PG_ksm_watched)
    if linked:
        if page.private and page.private != number:
            forget_key(fast, page.private)  # the item of a forked process
        WRITE_ONCE_uint(page.private, number)
        rmap_item.key_low = <unsigned short>key
        WRITE_ONCE_uint(rmap_item.key, <unsigned int>(key >> 16) | KEY_KNOWN)
    else:
        WRITE_ONCE_uint(rmap_item.key, 0)
    spin_unlock(&fast.watch_lock)
    return linked


cdef void forget_item_keys(fast_state *fast) noexcept nogil:
    """Forget the keys of all items, but not that their pages are unwritten. The unstable trees are empty."""
    cdef ksm_globals *g = fast.g
    cdef list_head *pos
    cdef ksm_rmap_item *rmap_item
    cdef unsigned int nr = 0
    spin_lock(&g.ksm_mmlist_lock)
    pos = g.ksm_mm_head.slot.mm_node.next
    while pos != &g.ksm_mm_head.slot.mm_node:
        rmap_item = mm_slot_of(pos).rmap_list
        spin_lock(&fast.watch_lock)
        while rmap_item != NULL:
            ksm_prefetch(rmap_item.rmap_list)
            if item_key_known(rmap_item):
                WRITE_ONCE_uint(rmap_item.key, KEY_KNOWN)
                rmap_item.key_low = 0
            rmap_item = rmap_item.rmap_list
            nr += 1
            if nr % 1024 == 0:      # no other thread changes the list, but every thread that writes to a page wants the lock
                spin_unlock(&fast.watch_lock)
                spin_lock(&fast.watch_lock)
        spin_unlock(&fast.watch_lock)
        pos = pos.next
    spin_unlock(&g.ksm_mmlist_lock)

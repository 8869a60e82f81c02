# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/vmscan.c and the pageout half of mm/madvise.c of Linux 6.12.
"""Reclaim of pages that the caller names. There is no LRU order. When memory is full, pages that only the swap cache has are freed.

A page leaves memory in four steps. It is taken off the LRU. It gets a slot, and joins the swap cache. Its mappings become entries of that
slot. It is written, and leaves the cache, which frees the frame. If a step fails, the page stays usable: it is in the cache, and the next
fault maps it again.
"""

from linux.atomic cimport READ_ONCE_ptr
from linux.mm cimport vma_find_index
from linux.mm_types cimport PAGE_SIZE, machine, mm_struct, struct_folio, struct_page, swap_info_struct, vm_area_struct
from linux.mmap_lock cimport mmap_read_lock, mmap_read_unlock
from linux.page_flags cimport (PageHWPoison, folio_get, folio_mapped, folio_ref_count, folio_ref_freeze, folio_ref_unfreeze,
                               folio_test_anon, folio_test_clear_dirty, folio_test_clear_lru, folio_test_dirty, folio_test_large,
                               folio_test_swapcache, folio_trylock, folio_unlock, page_folio)
from linux.pagewalk cimport FW_PROTNONE, folio_walk, folio_walk_end
from linux.pgtable cimport pmd_addr_end, pmd_offset_mm
from linux.rmap cimport folio_maybe_dma_pinned, vma_has_anon_vma
from linux.spinlock cimport spin_lock, spin_unlock
from linux.swap cimport folio_swap, vm_swap_full

from ksm.mm.huge_memory cimport split_folio
from ksm.mm.page_alloc cimport __folio_put, folio_put
from ksm.mm.page_io cimport swap_writepage
from ksm.mm.pagewalk cimport folio_walk_start
from ksm.mm.rmap cimport try_to_unmap
from ksm.mm.swap cimport folio_add_lru, lru_add_drain
from ksm.mm.swap_state cimport __delete_from_swap_cache, add_to_swap, swap_cache_get_folio
from ksm.mm.swapfile cimport folio_free_swap, get_swap_device, put_swap_device, put_swap_folio


cdef bint folio_isolate_lru(struct_folio *folio) noexcept nogil:
    """Take the page off the LRU, with a reference. False for a page that is not on it, also because another thread has taken it."""
    if not folio_test_clear_lru(folio):
        return False
    folio_get(folio)
    return True


cdef void folio_putback_lru(machine *m, struct_folio *folio) noexcept nogil:
    """Put the page back on the LRU by way of the batch, and drop the reference of folio_isolate_lru()."""
    folio_add_lru(m, folio)
    folio_put(m, folio)


cdef bint __remove_mapping(machine *m, struct_folio *folio) noexcept nogil:
    """Take an unmapped page out of the swap cache, unless it is dirty or another thread has a reference. The page has no reference left
    then.
    """
    cdef unsigned long swap = folio_swap(folio)
    spin_lock(&m.swap_info.i_pages_lock)
    # The two references are the cache's and the caller's. The count is checked before the dirty flag: a thread with a reference may have
    # written to the page and then dropped the reference.
    if not folio_ref_freeze(folio, 2):
        spin_unlock(&m.swap_info.i_pages_lock)
        return False
    if folio_test_dirty(folio):
        folio_ref_unfreeze(folio, 2)
        spin_unlock(&m.swap_info.i_pages_lock)
        return False
    __delete_from_swap_cache(m, folio, swap)
    spin_unlock(&m.swap_info.i_pages_lock)
    put_swap_folio(m, swap)
    return True


cdef bint shrink_folio(machine *m, struct_folio *folio) noexcept nogil:
    """shrink_folio_list() for one isolated anonymous page: true when its frame is free."""
    cdef bint locked = folio_trylock(folio)
    cdef bint freed = False
    if not locked:
        folio_putback_lru(m, folio)
        return False
    if folio_test_swapcache(folio) or (not folio_maybe_dma_pinned(folio) and add_to_swap(m, folio)):
        if folio_mapped(folio):
            try_to_unmap(m, folio)
        if folio_mapped(folio) or folio_maybe_dma_pinned(folio):
            # activate_locked:
            if vm_swap_full(m.swap_info):
                folio_free_swap(m, folio)
        else:
            # pageout(): only when no other thread has a reference.
            if folio_ref_count(folio) == 2 and folio_test_clear_dirty(folio):
                swap_writepage(m, folio)
                locked = folio_trylock(folio)
            if locked and not folio_test_dirty(folio) and folio_test_swapcache(folio):
                freed = __remove_mapping(m, folio)
    if locked:
        folio_unlock(folio)
    if freed:
        __folio_put(m, folio)
    else:
        folio_putback_lru(m, folio)
    return freed


cdef bint try_to_free_pages(machine *m) noexcept nogil:
    """Free the pages of the swap cache that no process maps: those that ksm_might_need_to_copy() has replaced by a copy, and those that had
    another reference when they were written. False if there were none. Pages in use stay; the kernel would take them, too.
    """
    cdef swap_info_struct *si = get_swap_device(m, 0)
    cdef struct_folio *folio
    cdef unsigned long entry
    cdef bint isolated, freed = False
    if si == NULL:
        return False
    lru_add_drain(m)
    for entry in range(1, si.max):
        if READ_ONCE_ptr((<void **>&si.i_pages[entry])[0]) == NULL:
            continue
        folio = swap_cache_get_folio(m, entry)
        if folio == NULL:
            continue
        isolated = not folio_mapped(folio) and not PageHWPoison(folio) and folio_isolate_lru(folio)
        folio_put(m, folio)
        if isolated:
            shrink_folio(m, folio)
            freed = True
    put_swap_device(si)
    lru_add_drain(m)
    return freed


cdef long reclaim_vma(vm_area_struct *vma, unsigned long addr, unsigned long end) noexcept nogil:
    cdef machine *m = vma.vm_mm.machine
    cdef folio_walk fw
    cdef struct_folio *folio
    cdef struct_page *page
    cdef bint isolated, split
    cdef long nr_reclaimed = 0
    while addr < end:
        if pmd_offset_mm(vma.vm_mm, addr) == NULL:
            addr = pmd_addr_end(addr, end)
            continue
        folio = folio_walk_start(&fw, vma, addr, FW_PROTNONE)
        if folio != NULL and folio_test_large(folio):
            # A huge page is split first. If that fails, the page stays.
            page = fw.page
            folio_get(folio)
            folio_walk_end(&fw, vma)
            split = split_folio(m, page)
            folio_put(m, page_folio(page))
            folio = folio_walk_start(&fw, vma, addr, FW_PROTNONE) if split else NULL
        if folio != NULL:
            isolated = (folio_test_anon(folio) and not folio_test_large(folio) and not PageHWPoison(folio)
                        and folio_isolate_lru(folio))
            folio_walk_end(&fw, vma)
            if isolated:
                nr_reclaimed += shrink_folio(m, folio)
        addr += PAGE_SIZE
    return nr_reclaimed


cdef long reclaim_range(mm_struct *mm, unsigned long start, unsigned long end) noexcept nogil:
    """OURS: MADV_PAGEOUT, also for pages that other processes map, which madvise leaves to ordinary reclaim. Returns the number of frames
    freed.
    """
    cdef vm_area_struct *vma
    cdef unsigned long first, last
    cdef long nr_reclaimed = 0
    cdef int i
    lru_add_drain(mm.machine)
    mmap_read_lock(mm)
    i = vma_find_index(mm, start)
    while i < mm.map_count and mm.vmas[i].vm_start < end:
        vma = mm.vmas[i]
        first = vma.vm_start if vma.vm_start > start else start
        last = vma.vm_end if vma.vm_end < end else end
        if vma_has_anon_vma(vma):
            nr_reclaimed += reclaim_vma(vma, first, last)
        i += 1
    mmap_read_unlock(mm)
    return nr_reclaimed

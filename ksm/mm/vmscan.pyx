# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/vmscan.c and the pageout half of mm/madvise.c of Linux 6.12.
"""Reclaim, of pages that the caller names: there is no LRU order here. When memory is full, what goes is what the swap cache alone has.

A page leaves in four steps: it is taken off the LRU; it gets a slot, and joins the swap cache; its mappings become entries of that slot; it
is written, and leaves the cache, which frees the frame. Whatever stops it on the way, the page stays usable: in the cache, and mapped again
by the next fault.
"""

from linux.atomic cimport READ_ONCE_ptr
from linux.mm cimport vma_find_index
from linux.mm_types cimport PAGE_SIZE, machine, mm_struct, struct_folio, struct_page, swap_info_struct, vm_area_struct
from linux.mmap_lock cimport mmap_read_lock, mmap_read_unlock
from linux.page_flags cimport (PageHWPoison, folio_get, folio_mapped, folio_ref_count, folio_ref_freeze, folio_ref_unfreeze,
                               folio_test_anon, folio_test_clear_dirty, folio_test_clear_lru, folio_test_dirty, folio_test_large,
                               folio_test_swapcache, folio_trylock, folio_unlock, page_folio)
from linux.pagewalk cimport folio_walk, folio_walk_end
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
    """Take the page off the LRU, with a reference. False for a page that is not there, or that somebody else has taken."""
    if not folio_test_clear_lru(folio):
        return False
    folio_get(folio)
    return True


cdef void folio_putback_lru(machine *m, struct_folio *folio) noexcept nogil:
    """Back, by way of the batch, without that reference."""
    folio_add_lru(m, folio)
    folio_put(m, folio)


cdef bint __remove_mapping(machine *m, struct_folio *folio) noexcept nogil:
    """Take an unmapped page out of the swap cache, unless somebody else has a reference or has made it dirty; it has none left then."""
    cdef unsigned long swap = folio_swap(folio)
    spin_lock(&m.swap_info.i_pages_lock)
    # The cache's reference and ours. The count first: who had a reference may have written, and then let go.
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
            # pageout(): only when nobody but the cache and we have it.
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
    """Free the pages of the swap cache that nobody maps: those that a copy has replaced (ksm_might_need_to_copy()), or that were being
    written when somebody held them. False if there were none. Pages in use stay: the kernel would take them, too."""
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
        folio = folio_walk_start(&fw, vma, addr, 0)
        if folio != NULL and folio_test_large(folio):
            # Split first; if that cannot be, this page stays.
            page = fw.page
            folio_get(folio)
            folio_walk_end(&fw, vma)
            split = split_folio(m, page)
            folio_put(m, page_folio(page))
            folio = folio_walk_start(&fw, vma, addr, 0) if split else NULL
        if folio != NULL:
            isolated = (folio_test_anon(folio) and not folio_test_large(folio) and not PageHWPoison(folio)
                        and folio_isolate_lru(folio))
            folio_walk_end(&fw, vma)
            if isolated:
                nr_reclaimed += shrink_folio(m, folio)
        addr += PAGE_SIZE
    return nr_reclaimed


cdef long reclaim_range(mm_struct *mm, unsigned long start, unsigned long end) noexcept nogil:
    """OURS: MADV_PAGEOUT, and for pages that others map as well, which madvise leaves to reclaim proper: frames that became free."""
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

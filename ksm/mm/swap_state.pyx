# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/swap_state.c of Linux 6.12.
"""The swap cache: pages that have a slot.

A page joins the cache on its way out, before it is unmapped, and on its way in, before the first process maps it. So two processes that
share the slot find the same page. The cache holds a reference on each page, which is the `swapped` of write_protect_page(). A merged page
in the cache keeps its stable node. When the page is freed, it is no longer known as merged.
"""

from libc.errno cimport EEXIST

from linux.atomic cimport WRITE_ONCE_uint
from linux.bug cimport BUG_ON, VM_BUG_ON
from linux.ksm cimport ksm_page_unwatch
from linux.mm_types cimport machine, struct_folio, swap_info_struct, vm_area_struct
from linux.page_flags cimport (PG_ksm_relatives, PG_swapcache, __folio_set_locked, clear_page_flag, folio_get, folio_mapped,
                               folio_mark_dirty, folio_ref_add, folio_test_ksm, folio_test_locked, folio_test_swapcache,
                               folio_test_uptodate, folio_trylock, folio_unlock, set_page_flag)
from linux.spinlock cimport backoff, spin_lock, spin_unlock
from linux.swap cimport folio_swap

from ksm.mm.page_alloc cimport alloc_pages_node, folio_put
from ksm.mm.page_io cimport swap_read_folio
from ksm.mm.swap cimport folio_add_lru
from ksm.mm.swapfile cimport (folio_alloc_swap, folio_free_swap, get_swap_device, put_swap_device, put_swap_folio, swap_swapcount,
                              swapcache_prepare)


cdef void add_to_swap_cache(machine *m, struct_folio *folio, unsigned long entry) noexcept nogil:
    """Give the locked page this slot, and the cache a reference on it."""
    cdef swap_info_struct *si = m.swap_info
    VM_BUG_ON(not folio_test_locked(folio))
    VM_BUG_ON(folio_test_swapcache(folio))
    folio_ref_add(folio, 1)
    set_page_flag(folio, PG_swapcache)
    ksm_page_unwatch(m, folio)      # OURS: after the flag, so that ksmd does not watch it again; before `private` is set
    WRITE_ONCE_uint(folio.private, <unsigned int>entry)
    if folio_test_ksm(folio):
        set_page_flag(folio, PG_ksm_relatives)      # OURS: for Machine.check()
    spin_lock(&si.i_pages_lock)
    si.i_pages[entry] = folio
    spin_unlock(&si.i_pages_lock)


cdef void __delete_from_swap_cache(machine *m, struct_folio *folio, unsigned long entry) noexcept nogil:
    """Take the page out of the cache, which is locked. The caller gets the cache's reference."""
    BUG_ON(m.swap_info.i_pages[entry] != folio)
    m.swap_info.i_pages[entry] = NULL
    WRITE_ONCE_uint(folio.private, 0)
    clear_page_flag(folio, PG_swapcache)


cdef bint add_to_swap(machine *m, struct_folio *folio) noexcept nogil:
    """Give the locked page a slot, if there is one."""
    cdef unsigned long entry
    VM_BUG_ON(not folio_test_locked(folio))
    VM_BUG_ON(not folio_test_uptodate(folio))
    entry = folio_alloc_swap(m)
    if not entry:
        return False
    add_to_swap_cache(m, folio, entry)
    # The page was not written to the area yet, even if no entry of it is dirty.
    folio_mark_dirty(folio)
    return True


cdef void delete_from_swap_cache(machine *m, struct_folio *folio) noexcept nogil:
    """Take the locked page out of the cache. The caller has a reference of its own."""
    cdef swap_info_struct *si = m.swap_info
    cdef unsigned long entry = folio_swap(folio)
    spin_lock(&si.i_pages_lock)
    __delete_from_swap_cache(m, folio, entry)
    spin_unlock(&si.i_pages_lock)
    put_swap_folio(m, entry)
    folio_ref_add(folio, -1)


cdef void free_swap_cache(machine *m, struct_folio *folio) noexcept nogil:
    """Drop a page from the cache that the caller has just unmapped, if no other process maps it or needs its slot."""
    if folio_test_swapcache(folio) and not folio_mapped(folio) and folio_trylock(folio):
        folio_free_swap(m, folio)
        folio_unlock(folio)


cdef struct_folio *swap_cache_get_folio(machine *m, unsigned long entry) noexcept nogil:
    """The page of this slot, with a reference; NULL if it is not in memory. The caller keeps the area from going away."""
    cdef swap_info_struct *si = m.swap_info
    cdef struct_folio *folio
    spin_lock(&si.i_pages_lock)
    folio = si.i_pages[entry]
    if folio != NULL:
        folio_get(folio)
    spin_unlock(&si.i_pages_lock)
    return folio


cdef struct_folio *__read_swap_cache_async(machine *m, unsigned long entry, int nid, bint *new_page_allocated) noexcept nogil:
    """The page of the slot, with a reference: from the cache, or a new locked page in it, which is still to be read. NULL without memory,
    or if the slot is free by now.
    """
    cdef swap_info_struct *si = get_swap_device(m, entry)
    cdef struct_folio *folio = NULL
    cdef struct_folio *new_folio = NULL
    cdef int err, spins = 0
    new_page_allocated[0] = False
    if si == NULL:
        return NULL
    while True:
        folio = swap_cache_get_folio(m, entry)
        if folio != NULL or not swap_swapcount(si, entry):
            break
        if new_folio == NULL:
            new_folio = alloc_pages_node(m, nid, 0, False)
            if new_folio == NULL:
                break
        err = swapcache_prepare(m, entry)
        if err == 0:
            __folio_set_locked(new_folio)
            add_to_swap_cache(m, new_folio, entry)
            folio_add_lru(m, new_folio)
            new_page_allocated[0] = True
            folio = new_folio
            break
        if err != -EEXIST:
            break
        # Another thread has claimed the slot, and is putting a page into the cache or taking one out.
        backoff(&spins)
    put_swap_device(si)
    if new_folio != NULL and not new_page_allocated[0]:
        folio_put(m, new_folio)
    return folio


cdef struct_folio *swapin_readahead(machine *m, unsigned long entry, vm_area_struct *vma) noexcept nogil:
    """The page of the slot, read from the area, with a reference. Its neighbours are not read ahead, since that saves nothing here."""
    cdef bint page_allocated = False
    cdef struct_folio *folio = __read_swap_cache_async(m, entry, vma.vm_mm.nid, &page_allocated)
    if page_allocated:
        swap_read_folio(m, folio)
    return folio

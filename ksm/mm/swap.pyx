# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/swap.c of Linux 6.12.
"""New pages wait in a batch before they reach the LRU lists, and the batch holds a reference on each. Pages to be activated wait in another
batch.

These references are what KSM sees of the LRU. While a page is in a batch, it has more references than mappings. write_protect_page()
refuses it, and an unmapped KSM page is not stale yet. The machine has the batches of one processor, of 31 pages like the kernel's. A full
batch is drained, and ksmd drains both at the start of a full scan. While move_pages() moves pages or memory goes offline, pages do not
wait.

The first mark_page_accessed() makes a page referenced, the second activates it. Merging marks a page, and so does access by another process
(access_remote_vm()): a KSM page that a debugger reads once gets into the batch.
"""

from linux.atomic cimport atomic_dec, atomic_inc, atomic_read
from linux.mm_types cimport FOLIO_BATCH_SIZE, machine, struct_folio, struct_page
from linux.page_flags cimport (PG_active, PG_lru, PG_referenced, clear_page_flag, folio_get, folio_test_large, folio_test_lru, page_folio,
                               set_page_flag, test_page_flag)
from linux.spinlock cimport spin_lock, spin_unlock

from ksm.mm.page_alloc cimport folio_put


cdef int folio_batch_take(struct_folio **batch, int *count, struct_folio **folios) noexcept nogil:
    """Move a batch to `folios`. The lock is held."""
    cdef int i, nr = count[0]
    for i in range(nr):
        folios[i] = batch[i]
    count[0] = 0
    return nr


cdef void folio_batch_move_lru(machine *m, struct_folio **folios, int nr, unsigned int flag) noexcept nogil:
    """Move folios to the lists: new pages to the inactive list (PG_lru), others from there to the active one (PG_active)."""
    cdef int i
    for i in range(nr):
        set_page_flag(folios[i], flag)
        folio_put(m, folios[i])


cdef inline bint lru_cache_disabled(machine *m) noexcept nogil:
    return atomic_read(&m.lru_disable_count) != 0


cdef void folio_batch_add_and_move(machine *m, struct_folio **batch, int *count, struct_folio *folio, unsigned int flag) noexcept nogil:
    """Put a folio into the batch. A full batch moves on to the lists, and so does a batch with a huge page."""
    cdef struct_folio *folios[FOLIO_BATCH_SIZE]
    cdef int nr = 0
    folio_get(folio)
    spin_lock(&m.lru_lock)
    batch[count[0]] = folio
    count[0] += 1
    if count[0] == FOLIO_BATCH_SIZE or folio_test_large(folio) or lru_cache_disabled(m):
        nr = folio_batch_take(batch, count, folios)
    spin_unlock(&m.lru_lock)
    folio_batch_move_lru(m, folios, nr, flag)


cdef void folio_activate(machine *m, struct_folio *folio) noexcept nogil:
    if test_page_flag(folio, PG_active) or not folio_test_lru(folio):
        return
    folio_batch_add_and_move(m, m.lru_activate, &m.nr_lru_activate, folio, PG_active)


cdef void __lru_cache_activate_folio(machine *m, struct_folio *folio) noexcept nogil:
    """Mark a page active that is in the batch of new pages: it will go to the active list."""
    cdef int i
    spin_lock(&m.lru_lock)
    for i in range(m.nr_lru_add - 1, -1, -1):
        if m.lru_add[i] == folio:
            set_page_flag(folio, PG_active)
            break
    spin_unlock(&m.lru_lock)


cdef void mark_page_accessed(machine *m, struct_page *page) noexcept nogil:
    """folio_mark_accessed() of its folio. There is no unevictable, idle or generational LRU."""
    cdef struct_folio *folio = page_folio(page)
    if not test_page_flag(folio, PG_referenced):
        set_page_flag(folio, PG_referenced)
    elif not test_page_flag(folio, PG_active):
        if folio_test_lru(folio):
            folio_activate(m, folio)
        else:
            __lru_cache_activate_folio(m, folio)
        clear_page_flag(folio, PG_referenced)


cdef void folio_add_lru(machine *m, struct_folio *folio) noexcept nogil:
    folio_batch_add_and_move(m, m.lru_add, &m.nr_lru_add, folio, PG_lru)


cdef void lru_add_drain(machine *m) noexcept nogil:
    """Empty the batches."""
    cdef struct_folio *folios[FOLIO_BATCH_SIZE]
    cdef int nr
    spin_lock(&m.lru_lock)
    nr = folio_batch_take(m.lru_add, &m.nr_lru_add, folios)
    spin_unlock(&m.lru_lock)
    folio_batch_move_lru(m, folios, nr, PG_lru)
    spin_lock(&m.lru_lock)
    nr = folio_batch_take(m.lru_activate, &m.nr_lru_activate, folios)
    spin_unlock(&m.lru_lock)
    folio_batch_move_lru(m, folios, nr, PG_active)


cdef void lru_add_drain_all(machine *m) noexcept nogil:
    """Empty the batches of all processors. There is one processor."""
    lru_add_drain(m)


cdef void lru_cache_disable(machine *m) noexcept nogil:
    """Empty the batches, and have pages go to the lists at once until lru_cache_enable()."""
    if m.ksm_pages_move:        # in 2011 the batches are emptied only: migrate_prep()
        atomic_inc(&m.lru_disable_count)
    lru_add_drain_all(m)


cdef void lru_cache_enable(machine *m) noexcept nogil:
    if m.ksm_pages_move:
        atomic_dec(&m.lru_disable_count)

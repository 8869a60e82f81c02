# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/swap.c of Linux 6.12.
"""New pages wait in a batch before they reach the LRU lists, and the batch holds a reference on each.

That reference is all of the LRU that KSM can see: as long as a page is in the batch, its count is one higher than its mappings
explain, and write_protect_page() refuses it. The machine has one processor's batch, of 31 pages like the kernel's; a full one is
drained, and ksmd drains it at the start of a full scan.
"""

from linux.mm_types cimport FOLIO_BATCH_SIZE, machine, struct_folio
from linux.page_flags cimport PG_lru, folio_get, set_page_flag
from linux.spinlock cimport spin_lock, spin_unlock

from ksm.mm.page_alloc cimport folio_put


cdef int folio_batch_take(machine *m, struct_folio **folios) noexcept nogil:
    cdef int i, nr = m.nr_lru_add
    for i in range(nr):
        folios[i] = m.lru_add[i]
    m.nr_lru_add = 0
    return nr


cdef void folio_batch_move_lru(machine *m, struct_folio **folios, int nr) noexcept nogil:
    cdef int i
    for i in range(nr):
        set_page_flag(folios[i], PG_lru)
        folio_put(m, folios[i])


cdef void folio_add_lru(machine *m, struct_folio *folio) noexcept nogil:
    """Into the batch; a full batch moves on to the lists."""
    cdef struct_folio *folios[FOLIO_BATCH_SIZE]
    cdef int nr = 0
    folio_get(folio)
    spin_lock(&m.lru_lock)
    m.lru_add[m.nr_lru_add] = folio
    m.nr_lru_add += 1
    if m.nr_lru_add == FOLIO_BATCH_SIZE:
        nr = folio_batch_take(m, folios)
    spin_unlock(&m.lru_lock)
    folio_batch_move_lru(m, folios, nr)


cdef void lru_add_drain(machine *m) noexcept nogil:
    """Empty the batch."""
    cdef struct_folio *folios[FOLIO_BATCH_SIZE]
    cdef int nr
    spin_lock(&m.lru_lock)
    nr = folio_batch_take(m, folios)
    spin_unlock(&m.lru_lock)
    folio_batch_move_lru(m, folios, nr)


cdef void lru_add_drain_all(machine *m) noexcept nogil:
    """Empty the batches of all processors: there is one."""
    lru_add_drain(m)

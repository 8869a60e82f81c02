# SPDX-License-Identifier: GPL-2.0-only
# Follows include/linux/rmap.h of Linux 6.12.
"""Reverse mapping: from a frame to the places that map it. The functions are in ksm/mm/rmap.pyx."""

from libc.errno cimport EBUSY

from linux.atomic cimport atomic_add_return, atomic_inc, smp_load_acquire_ptr, test_bit
from linux.mm_types cimport MMF_HAS_PINNED, mm_struct, rmap_walk_control, struct_anon_vma, struct_folio, struct_page, vm_area_struct
from linux.page_flags cimport ClearPageAnonExclusive, PageAnonExclusive, folio_ref_count, folio_test_large
from linux.spinlock cimport down_read, down_read_trylock, down_write, up_read, up_write


cdef enum:
    RMAP_NONE = 0
    RMAP_EXCLUSIVE = 1
    GUP_PIN_COUNTING_BIAS = 1024


cdef inline bint vma_has_anon_vma(vm_area_struct *vma) noexcept nogil:
    # OURS: the caller holds mmap_lock for reading, and a fault may be about to give the vma an anon_vma. The load acquires, so the anon_vma
    # is complete.
    return smp_load_acquire_ptr((<void **>&vma.anon_vma)[0]) != NULL


cdef inline void get_anon_vma(struct_anon_vma *anon_vma) noexcept nogil:
    atomic_inc(&anon_vma.refcount)


cdef inline void anon_vma_lock_read(struct_anon_vma *anon_vma) noexcept nogil:
    down_read(&anon_vma.root.rwsem)


cdef inline bint anon_vma_trylock_read(struct_anon_vma *anon_vma) noexcept nogil:
    return down_read_trylock(&anon_vma.root.rwsem)


cdef inline void anon_vma_unlock_read(struct_anon_vma *anon_vma) noexcept nogil:
    up_read(&anon_vma.root.rwsem)


cdef inline void anon_vma_lock_write(struct_anon_vma *anon_vma) noexcept nogil:
    down_write(&anon_vma.root.rwsem)


cdef inline void anon_vma_unlock_write(struct_anon_vma *anon_vma) noexcept nogil:
    up_write(&anon_vma.root.rwsem)


cdef inline bint folio_maybe_dma_pinned(struct_folio *folio) noexcept nogil:
    return folio_ref_count(folio) >= GUP_PIN_COUNTING_BIAS


cdef inline bint folio_needs_cow_for_dma(vm_area_struct *vma, struct_folio *folio) noexcept nogil:
    return test_bit(MMF_HAS_PINNED, &vma.vm_mm.flags) and folio_maybe_dma_pinned(folio)


cdef inline void __folio_add_rmap(struct_folio *folio, struct_page *page) noexcept nogil:
    atomic_add_return(&page._mapcount, 1)
    if folio_test_large(folio):
        atomic_add_return(<int *>&folio[1].index, 1)


cdef inline int folio_try_dup_anon_rmap_pte(struct_folio *folio, struct_page *page, vm_area_struct *src_vma) noexcept nogil:
    """Count one more mapping, for fork: -EBUSY when the page may be pinned and so has to be copied."""
    if PageAnonExclusive(page):
        if folio_needs_cow_for_dma(src_vma, folio):
            return -EBUSY
        ClearPageAnonExclusive(page)
    __folio_add_rmap(folio, page)
    return 0


cdef inline int folio_try_dup_anon_rmap_pmd(struct_folio *folio, vm_area_struct *src_vma) noexcept nogil:
    """The same for a pmd entry."""
    if PageAnonExclusive(folio):
        if folio_needs_cow_for_dma(src_vma, folio):
            return -EBUSY
        ClearPageAnonExclusive(folio)
    folio_entire_mapcount_add(folio, 1)
    return 0


cdef inline void folio_entire_mapcount_add(struct_folio *folio, int nr) noexcept nogil:
    # OURS: count one more or one fewer pmd entry that maps this huge folio: see ksm/mm/huge_memory.pyx for the two counts.
    atomic_add_return(<int *>&folio[1].index, nr)
    atomic_add_return(<int *>&folio[2].index, nr)


cdef inline int folio_try_share_anon_rmap_pte(struct_folio *folio, struct_page *page) noexcept nogil:
    """Make a page no longer exclusive, after its entry was cleared: -EBUSY when it may be pinned."""
    if folio_maybe_dma_pinned(folio):
        return -EBUSY
    ClearPageAnonExclusive(page)
    return 0

# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/page_vma_mapped.c and include/linux/rmap.h of Linux 6.12.

from linux.mm_types cimport pte_t, struct_folio, vm_area_struct
from linux.page_flags cimport folio_pfn
from linux.spinlock cimport spinlock_t


cdef enum:
    PVMW_MIGRATION = 1 << 1     # look for the page's migration entry instead


cdef struct page_vma_mapped_walk_control:
    unsigned long pfn
    vm_area_struct *vma
    unsigned long address
    pte_t *pte
    spinlock_t *ptl
    unsigned int flags


cdef inline void DEFINE_FOLIO_VMA_WALK(page_vma_mapped_walk_control *pvmw, struct_folio *folio, vm_area_struct *vma,
                                       unsigned long address, unsigned int flags) noexcept nogil:
    pvmw.pfn = folio_pfn(vma.vm_mm.machine, folio)
    pvmw.vma = vma
    pvmw.address = address
    pvmw.flags = flags


cdef bint page_vma_mapped_walk(page_vma_mapped_walk_control *pvmw) noexcept nogil
cdef void page_vma_mapped_walk_done(page_vma_mapped_walk_control *pvmw) noexcept nogil

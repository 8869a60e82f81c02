# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/page_vma_mapped.c of Linux 6.12.
"""Finds out whether a frame is mapped at an address of a vma. A small page has one entry, so the walk has one step."""

from linux.mm_types cimport mm_struct, pmd_t, pte_t
from linux.pgtable cimport mm_find_pmd, pte_offset_map_lock, pte_pfn, pte_present, ptep_get
from linux.spinlock cimport spin_unlock
from linux.swapops cimport is_migration_pte, swp_offset


cdef bint page_vma_mapped_walk(page_vma_mapped_walk_control *pvmw) noexcept nogil:
    """True with pvmw.pte set and its table locked, when the entry at pvmw.address maps pvmw.pfn."""
    cdef mm_struct *mm = pvmw.vma.vm_mm
    cdef pmd_t *pmd = mm_find_pmd(mm, pvmw.address)
    cdef pte_t pte
    if pmd == NULL:
        return False
    pvmw.pte = pte_offset_map_lock(mm, pmd, pvmw.address, &pvmw.ptl)
    if pvmw.pte == NULL:
        return False
    pte = ptep_get(pvmw.pte)
    if pvmw.flags & PVMW_MIGRATION:
        if is_migration_pte(pte) and swp_offset(pte) == pvmw.pfn:
            return True
    elif pte_present(pte) and pte_pfn(pte) == pvmw.pfn:
        return True
    page_vma_mapped_walk_done(pvmw)
    return False


cdef void page_vma_mapped_walk_done(page_vma_mapped_walk_control *pvmw) noexcept nogil:
    spin_unlock(pvmw.ptl)

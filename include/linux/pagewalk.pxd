# SPDX-License-Identifier: GPL-2.0-only
# Follows include/linux/pagewalk.h of Linux 6.12.
"""Walks over page tables. The functions are in ksm/mm/pagewalk.pyx."""

from linux.mm_types cimport mm_struct, pmd_t, pte_t, struct_page, vm_area_struct
from linux.spinlock cimport spin_unlock, spinlock_t


cdef enum:
    FW_MIGRATION = 0x1          # also a page that is being migrated
    FW_ZEROPAGE = 0x2           # also the zero page
    FW_PROTNONE = 0x100         # OURS: also, in the era 6.1, a page to which the mapping gives no access

    FW_LEVEL_PTE = 0
    FW_LEVEL_PMD = 1

    PGWALK_RDLOCK = 0


cdef struct folio_walk:
    struct_page *page           # NULL for the zero page and for a page under migration
    int level
    pte_t *ptep
    pte_t pte
    pmd_t *pmdp
    pmd_t pmd
    spinlock_t *ptl


cdef struct mm_walk:
    const mm_walk_ops *ops
    mm_struct *mm
    vm_area_struct *vma
    void *private


cdef struct mm_walk_ops:
    int (*pmd_entry)(pmd_t *pmdp, unsigned long addr, unsigned long end, mm_walk *walk) noexcept nogil
    int walk_lock


cdef inline void folio_walk_end(folio_walk *fw, vm_area_struct *vma) noexcept nogil:
    spin_unlock(fw.ptl)

# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/pagewalk.c of Linux 6.12.
"""Looking into page tables: one address (folio_walk_start), or every table of a range (walk_page_range_vma)."""

from libc.errno cimport EINVAL

from linux.atomic cimport READ_ONCE_ulong
from linux.mm cimport vm_normal_page
from linux.mm_types cimport PAGE_SHIFT, PGDIR_SHIFT, PMD_SIZE, PUD_SHIFT, mm_struct, pmd_t, struct_folio, struct_page, vm_area_struct
from linux.page_flags cimport PG_ksm_relatives, folio_test_ksm, page_folio, pfn_to_page, set_page_flag
from linux.pagewalk cimport FW_LEVEL_PMD, FW_LEVEL_PTE, FW_MIGRATION, FW_PROTNONE, FW_ZEROPAGE, folio_walk, mm_walk, mm_walk_ops
from linux.pgtable cimport (is_zero_pfn, mm_find_pmd, pmd_addr_end, pmd_leaf, pmd_lock, pmd_none, pmd_offset_mm, pmd_pfn, pmdp_get,
                            pmdp_get_lockless, pte_offset_map_lock, pte_pfn, pte_present, pte_protnone, ptep_get)
from linux.spinlock cimport spin_unlock
from linux.swapops cimport is_migration_pte, pfn_swap_entry_to_page


cdef int walk_page_range_vma(vm_area_struct *vma, unsigned long start, unsigned long end, const mm_walk_ops *ops,
                             void *private) noexcept nogil:
    """Call ops.pmd_entry() for every pmd entry of [start, end) that is not empty.

    Stops at the first value that is not 0, and returns it; -EINVAL for a range that is empty or not in the vma.
    """
    cdef mm_walk walk
    cdef mm_struct *mm = vma.vm_mm
    cdef pmd_t *pmd
    cdef unsigned long addr = start, following
    cdef int err = 0
    if start >= end or start < vma.vm_start or end > vma.vm_end:
        return -EINVAL
    walk.ops = ops
    walk.mm = mm
    walk.vma = vma
    walk.private = private
    while addr < end and err == 0:
        following = pmd_addr_end(addr, end)
        pmd = pmd_offset_mm(mm, addr)
        if pmd == NULL:
            # The entry of a higher level is empty: go on behind its range.
            following = (addr + (1UL << PUD_SHIFT)) & ~((1UL << PUD_SHIFT) - 1)
            if READ_ONCE_ulong(mm.pgd[(addr >> PGDIR_SHIFT) & 511]) == 0:
                following = (addr + (1UL << PGDIR_SHIFT)) & ~((1UL << PGDIR_SHIFT) - 1)
        elif not pmd_none(pmdp_get_lockless(pmd)):
            err = ops.pmd_entry(pmd, addr, following, &walk)
        addr = following
    return err


cdef struct_folio *folio_walk_start(folio_walk *fw, vm_area_struct *vma, unsigned long addr, int flags) noexcept nogil:
    """The folio mapped at addr, with the table locked; NULL and nothing locked if there is none.

    Pages of the zero page and pages under migration count only when flags ask for them, and leave fw.page NULL. The low bits of
    addr do not matter. folio_walk_end() unlocks. In the era 6.1 a page to which the mapping gives no access counts only with
    FW_PROTNONE, as follow_page() did not find it there, if the kernel has CONFIG_NUMA_BALANCING.
    """
    cdef mm_struct *mm = vma.vm_mm
    cdef pmd_t *pmdp = mm_find_pmd(mm, addr)
    cdef pmd_t pmd
    cdef struct_page *page = NULL
    cdef bint accessible = mm.machine.protnone_is_no_page and not flags & FW_PROTNONE
    if pmdp == NULL:
        return NULL
    pmd = pmdp_get_lockless(pmdp)
    if pmd_leaf(pmd):
        fw.ptl = pmd_lock(mm, pmdp)
        pmd = pmdp_get(pmdp)
        if accessible and pte_protnone(pmd):
            spin_unlock(fw.ptl)
            return NULL
        if pmd_leaf(pmd):
            fw.level = FW_LEVEL_PMD
            fw.pmdp = pmdp
            fw.pmd = pmd
            page = pfn_to_page(mm.machine, pmd_pfn(pmd))
            fw.page = page + ((addr & (PMD_SIZE - 1)) >> PAGE_SHIFT)
            return page_folio(page)
        spin_unlock(fw.ptl)

    fw.ptep = pte_offset_map_lock(mm, pmdp, addr, &fw.ptl)
    if fw.ptep == NULL:
        return NULL
    fw.level = FW_LEVEL_PTE
    fw.pte = ptep_get(fw.ptep)
    fw.page = NULL
    if accessible and pte_protnone(fw.pte):
        page = vm_normal_page(vma, addr, fw.pte)
        if page != NULL and folio_test_ksm(page_folio(page)):
            set_page_flag(page, PG_ksm_relatives)       # OURS: for Machine.check(): break_ksm() leaves it merged
    elif pte_present(fw.pte):
        page = vm_normal_page(vma, addr, fw.pte)
        if page != NULL:
            fw.page = page
            return page_folio(page)
        if (flags & FW_ZEROPAGE) and is_zero_pfn(mm.machine, pte_pfn(fw.pte)):
            return page_folio(pfn_to_page(mm.machine, pte_pfn(fw.pte)))
    elif (flags & FW_MIGRATION) and is_migration_pte(fw.pte):
        return page_folio(pfn_swap_entry_to_page(mm.machine, fw.pte))
    spin_unlock(fw.ptl)
    return NULL

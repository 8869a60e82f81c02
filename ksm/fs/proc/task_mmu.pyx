# SPDX-License-Identifier: GPL-2.0-only
# Follows fs/proc/task_mmu.c of Linux 6.12: the part of /proc/PID/smaps that has to do with KSM.
"""What the pages of a mapping are: present, anonymous, merged, swapped out.

There are no counts here of how pages are shared (Pss and its relatives), of pages read (Referenced), nor of hugetlb and files.
"""

from linux.mm cimport (VM_ACCOUNT, VM_DONTCOPY, VM_DONTEXPAND, VM_DROPPABLE, VM_EXEC, VM_GROWSDOWN, VM_HUGEPAGE, VM_HUGETLB, VM_IO,
                       VM_LOCKED, VM_MAYEXEC, VM_MAYREAD, VM_MAYSHARE, VM_MAYWRITE, VM_MERGEABLE, VM_MIXEDMAP, VM_NOHUGEPAGE,
                       VM_NORESERVE, VM_PFNMAP, VM_READ, VM_SHARED, VM_WIPEONFORK, VM_WRITE, vm_normal_page)
from linux.mm_types cimport PAGE_SIZE, PMD_SIZE, pmd_t, pte_t, struct_folio, struct_page, vm_area_struct, vm_flags_t
from linux.page_flags cimport folio_test_anon, folio_test_ksm, page_folio, pfn_to_page
from linux.pagewalk cimport PGWALK_RDLOCK, mm_walk, mm_walk_ops
from linux.pgtable cimport (pmd_leaf, pmd_lock, pmd_none, pmd_pfn, pmdp_get, pmdp_get_lockless, pte_offset_map_lock, pte_present,
                            pte_unmap_unlock, ptep_get)
from linux.spinlock cimport spin_unlock, spinlock_t
from linux.swapops cimport is_migration_pte, is_swap_pte, pfn_swap_entry_to_page

from ksm.mm.pagewalk cimport walk_page_range_vma


cdef inline void smaps_account(mem_size_stats *mss, struct_page *page, bint compound) noexcept nogil:
    cdef struct_folio *folio = page_folio(page)
    cdef unsigned long size = PMD_SIZE if compound else PAGE_SIZE
    if folio_test_anon(folio):
        mss.anonymous += size
    if folio_test_ksm(folio):
        mss.ksm += size
    mss.resident += size


cdef inline void smaps_pte_entry(pte_t *pte, unsigned long addr, mm_walk *walk) noexcept nogil:
    cdef mem_size_stats *mss = <mem_size_stats *>walk.private
    cdef struct_page *page = NULL
    cdef pte_t ptent = ptep_get(pte)
    if pte_present(ptent):
        page = vm_normal_page(walk.vma, addr, ptent)        # none for the zero page, even if KSM has put it there
    elif is_swap_pte(ptent):
        mss.swap += PAGE_SIZE
    elif is_migration_pte(ptent):
        page = pfn_swap_entry_to_page(walk.mm.machine, ptent)
    if page != NULL:
        smaps_account(mss, page, False)


cdef void smaps_pmd_entry(pmd_t pmd, mm_walk *walk) noexcept nogil:
    cdef mem_size_stats *mss = <mem_size_stats *>walk.private
    cdef struct_page *page = pfn_to_page(walk.mm.machine, pmd_pfn(pmd))
    if folio_test_anon(page_folio(page)):
        mss.anonymous_thp += PMD_SIZE
    else:
        mss.shmem_thp += PMD_SIZE
    smaps_account(mss, page, True)


cdef int smaps_pte_range(pmd_t *pmdp, unsigned long addr, unsigned long end, mm_walk *walk) noexcept nogil:
    cdef pte_t *pte
    cdef spinlock_t *ptl = NULL
    while not pmd_none(pmdp_get_lockless(pmdp)):
        if pmd_leaf(pmdp_get_lockless(pmdp)):
            # pmd_trans_huge_lock()
            ptl = pmd_lock(walk.mm, pmdp)
            if pmd_leaf(pmdp_get(pmdp)):
                smaps_pmd_entry(pmdp_get(pmdp), walk)
                spin_unlock(ptl)
                break
            spin_unlock(ptl)
        pte = pte_offset_map_lock(walk.mm, pmdp, addr, &ptl)
        if pte == NULL:
            continue            # ACTION_AGAIN
        while addr != end:
            smaps_pte_entry(pte, addr, walk)
            pte += 1
            addr += PAGE_SIZE
        pte_unmap_unlock(pte - 1, ptl)
        break
    return 0


cdef object mnemonics = {
    VM_READ: "rd", VM_WRITE: "wr", VM_EXEC: "ex", VM_SHARED: "sh", VM_MAYREAD: "mr", VM_MAYWRITE: "mw", VM_MAYEXEC: "me", VM_MAYSHARE: "ms",
    VM_GROWSDOWN: "gd", VM_PFNMAP: "pf", VM_LOCKED: "lo", VM_IO: "io", VM_DONTCOPY: "dc", VM_DONTEXPAND: "de", VM_ACCOUNT: "ac",
    VM_NORESERVE: "nr", VM_HUGETLB: "ht", VM_WIPEONFORK: "wf", VM_MIXEDMAP: "mm", VM_HUGEPAGE: "hg", VM_NOHUGEPAGE: "nh",
    VM_MERGEABLE: "mg", VM_DROPPABLE: "dp",
}


cdef object show_smap_vma_flags(vm_flags_t vm_flags):
    """The names of the flags, in the order of their bits: a tuple."""
    return tuple([mnemonics.get(1UL << i, "??") for i in range(64) if vm_flags & (1UL << i)])


cdef mm_walk_ops smaps_walk_ops
smaps_walk_ops.pmd_entry = smaps_pte_range
smaps_walk_ops.walk_lock = PGWALK_RDLOCK


cdef void smap_gather_stats(vm_area_struct *vma, mem_size_stats *mss) noexcept nogil:
    """Add the pages of a mapping to the counts. Under mmap_lock."""
    walk_page_range_vma(vma, vma.vm_start, vma.vm_end, &smaps_walk_ops, mss)

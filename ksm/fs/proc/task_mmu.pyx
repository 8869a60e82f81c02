# SPDX-License-Identifier: GPL-2.0-only
# Follows fs/proc/task_mmu.c of Linux 6.12: the parts of /proc/PID/smaps and pagemap that have to do with KSM.
"""The state of the pages of a mapping: present, anonymous, merged, swapped out.

How pages are shared (Pss and its relatives), pages read (Referenced), hugetlb pages and files are not counted.
"""

from linux.ksm cimport is_ksm_zero_pte
from linux.mm cimport (VM_ACCOUNT, VM_DONTCOPY, VM_DONTEXPAND, VM_DROPPABLE, VM_EXEC, VM_GROWSDOWN, VM_HUGEPAGE, VM_HUGETLB, VM_IO,
                       VM_LOCKED, VM_MAYEXEC, VM_MAYREAD, VM_MAYSHARE, VM_MAYWRITE, VM_MERGEABLE, VM_MIXEDMAP, VM_NOHUGEPAGE,
                       VM_NORESERVE, VM_PFNMAP, VM_READ, VM_SHARED, VM_WIPEONFORK, VM_WRITE, vm_normal_page)
from linux.mm_types cimport PAGE_SHIFT, PAGE_SIZE, PMD_SIZE, pmd_t, pte_t, struct_folio, struct_page, vm_area_struct, vm_flags_t
from linux.page_flags cimport PageTransCompound, folio_test_anon, folio_test_ksm, page_folio, pfn_to_page
from linux.pagewalk cimport PGWALK_RDLOCK, mm_walk, mm_walk_ops
from linux.pgtable cimport (pmd_leaf, pmd_lock, pmd_none, pmd_pfn, pmdp_get, pmdp_get_lockless, pte_offset_map_lock, pte_pfn,
                            pte_present, pte_unmap_unlock, ptep_get)
from linux.spinlock cimport spin_unlock, spinlock_t
from linux.swapops cimport is_migration_pte, is_swap_pte, pfn_swap_entry_to_page, swp_offset

from ksm.mm.pagewalk cimport walk_page_range_vma


cdef inline void smaps_account(mem_size_stats *mss, struct_page *page, bint compound) noexcept nogil:
    cdef struct_folio *folio = page_folio(page)
    cdef unsigned long size = PMD_SIZE if compound else PAGE_SIZE
    if folio_test_anon(folio):
        mss.anonymous += size
    if folio_test_ksm(folio):
        mss.ksm += size
    mss.resident += size


cdef void smaps_pte_entry(vm_area_struct *vma, unsigned long addr, pte_t ptent, void *private) noexcept nogil:
    cdef mem_size_stats *mss = <mem_size_stats *>private
    cdef struct_page *page = NULL
    if pte_present(ptent):
        page = vm_normal_page(vma, addr, ptent)     # NULL for the zero page, even if KSM has mapped it
    elif is_swap_pte(ptent):
        mss.swap += PAGE_SIZE
    elif is_migration_pte(ptent):
        page = pfn_swap_entry_to_page(vma.vm_mm.machine, ptent)
    if page != NULL:
        smaps_account(mss, page, False)


cdef void smaps_pmd_entry(vm_area_struct *vma, unsigned long addr, unsigned long end, pmd_t pmd, void *private) noexcept nogil:
    cdef mem_size_stats *mss = <mem_size_stats *>private
    cdef struct_page *page = pfn_to_page(vma.vm_mm.machine, pmd_pfn(pmd))
    if folio_test_anon(page_folio(page)):
        mss.anonymous_thp += PMD_SIZE
    else:
        mss.shmem_thp += PMD_SIZE
    smaps_account(mss, page, True)


# smaps_pte_range() and pagemap_pmd_range(), which take the same steps

cdef struct entry_walk:
    void (*pte_entry)(vm_area_struct *vma, unsigned long addr, pte_t pte, void *private) noexcept nogil
    void (*pmd_entry)(vm_area_struct *vma, unsigned long addr, unsigned long end, pmd_t pmd, void *private) noexcept nogil
    void *private


cdef int walk_pmd_range(pmd_t *pmdp, unsigned long addr, unsigned long end, mm_walk *walk) noexcept nogil:
    cdef entry_walk *entries = <entry_walk *>walk.private
    cdef pte_t *pte
    cdef spinlock_t *ptl = NULL
    while not pmd_none(pmdp_get_lockless(pmdp)):
        if pmd_leaf(pmdp_get_lockless(pmdp)):
            # pmd_trans_huge_lock()
            ptl = pmd_lock(walk.mm, pmdp)
            if pmd_leaf(pmdp_get(pmdp)):
                entries.pmd_entry(walk.vma, addr, end, pmdp_get(pmdp), entries.private)
                spin_unlock(ptl)
                break
            spin_unlock(ptl)
        pte = pte_offset_map_lock(walk.mm, pmdp, addr, &ptl)
        if pte == NULL:
            continue            # ACTION_AGAIN
        while addr != end:
            entries.pte_entry(walk.vma, addr, ptep_get(pte), entries.private)
            pte += 1
            addr += PAGE_SIZE
        pte_unmap_unlock(pte - 1, ptl)
        break
    return 0


cdef mm_walk_ops entry_walk_ops
entry_walk_ops.pmd_entry = walk_pmd_range
entry_walk_ops.walk_lock = PGWALK_RDLOCK


cdef void smap_gather_stats(vm_area_struct *vma, mem_size_stats *mss) noexcept nogil:
    """Add the pages of a mapping to the counts. The caller holds mmap_lock."""
    cdef entry_walk entries
    entries.pte_entry, entries.pmd_entry, entries.private = smaps_pte_entry, smaps_pmd_entry, mss
    walk_page_range_vma(vma, vma.vm_start, vma.vm_end, &entry_walk_ops, &entries)


cdef struct pagemapread:
    entry_function entry
    void *arg


cdef inline unsigned long pte_to_pagemap_entry(vm_area_struct *vma, unsigned long addr, pte_t pte) noexcept nogil:
    cdef unsigned long word = PAGE_PRESENT
    cdef struct_page *page
    if not pte_present(pte):
        return swp_offset(pte) << PAGE_FLAGS_SHIFT | PAGE_SWAPPED if is_swap_pte(pte) else 0
    page = vm_normal_page(vma, addr, pte)
    if page == NULL:
        word |= PAGE_ZERO | (PAGE_KSM_ZERO if is_ksm_zero_pte(vma.vm_mm.machine, pte) else 0)
    else:
        if PageTransCompound(page):
            word |= PAGE_THP
        if folio_test_ksm(page_folio(page)):
            word |= PAGE_KSM | PAGE_ANON
        elif folio_test_anon(page_folio(page)):
            word |= PAGE_ANON
    return word | pte_pfn(pte) << PAGE_FLAGS_SHIFT


cdef void pagemap_pte_entry(vm_area_struct *vma, unsigned long addr, pte_t pte, void *private) noexcept nogil:
    cdef pagemapread *pm = <pagemapread *>private
    pm.entry(vma, addr, pte, pte_to_pagemap_entry(vma, addr, pte), pm.arg)


cdef void pagemap_pmd_entry(vm_area_struct *vma, unsigned long addr, unsigned long end, pmd_t pmd, void *private) noexcept nogil:
    cdef pagemapread *pm = <pagemapread *>private
    cdef unsigned long pfn = pmd_pfn(pmd) + ((addr & (PMD_SIZE - 1)) >> PAGE_SHIFT)
    cdef unsigned long flags = PAGE_PRESENT | PAGE_THP
    if folio_test_anon(page_folio(pfn_to_page(vma.vm_mm.machine, pfn))):
        flags |= PAGE_ANON
    while addr != end:
        pm.entry(vma, addr, pmd, pfn << PAGE_FLAGS_SHIFT | flags, pm.arg)
        addr += PAGE_SIZE
        pfn += 1


cdef void pagemap_walk(vm_area_struct *vma, unsigned long start, unsigned long end, entry_function entry, void *arg) noexcept nogil:
    """Call entry() for every entry of the tables in the range. The caller holds mmap_lock."""
    cdef pagemapread pm
    cdef entry_walk entries
    pm.entry, pm.arg = entry, arg
    entries.pte_entry, entries.pmd_entry, entries.private = pagemap_pte_entry, pagemap_pmd_entry, &pm
    walk_page_range_vma(vma, start, end, &entry_walk_ops, &entries)


cdef object mnemonics = {
    VM_READ: "rd", VM_WRITE: "wr", VM_EXEC: "ex", VM_SHARED: "sh", VM_MAYREAD: "mr", VM_MAYWRITE: "mw", VM_MAYEXEC: "me", VM_MAYSHARE: "ms",
    VM_GROWSDOWN: "gd", VM_PFNMAP: "pf", VM_LOCKED: "lo", VM_IO: "io", VM_DONTCOPY: "dc", VM_DONTEXPAND: "de", VM_ACCOUNT: "ac",
    VM_NORESERVE: "nr", VM_HUGETLB: "ht", VM_WIPEONFORK: "wf", VM_MIXEDMAP: "mm", VM_HUGEPAGE: "hg", VM_NOHUGEPAGE: "nh",
    VM_MERGEABLE: "mg", VM_DROPPABLE: "dp",
}


cdef object show_smap_vma_flags(vm_flags_t vm_flags):
    """The names of the flags, in the order of their bits: a tuple."""
    return tuple([mnemonics.get(1UL << i, "??") for i in range(64) if vm_flags & (1UL << i)])

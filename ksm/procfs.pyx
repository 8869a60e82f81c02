# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what /proc/PID shows, for ksm/process.pyx.
"""The files of /proc/PID that show memory: maps, smaps, ksm_stat and pagemap, for an address space that the caller keeps alive."""

from typing import NamedTuple

from libc.string cimport memset

from linux.atomic cimport READ_ONCE_ulong
from linux.ksm cimport is_ksm_zero_pte, ksm_process_profit, mm_ksm_zero_pages
from linux.mm cimport VM_EXEC, VM_MERGEABLE, VM_READ, VM_SHARED, VM_WRITE, vm_normal_page, vma_lookup
from linux.mm_types cimport PAGE_SIZE, PMD_SIZE, mm_struct, pte_t, struct_page, vm_area_struct
from linux.mmap_lock cimport mmap_read_lock, mmap_read_unlock
from linux.page_flags cimport PageTransCompound, folio_test_anon, folio_test_ksm, page_folio
from linux.pgtable cimport entry_offset_map_lock, pmd_offset_mm, pte_pfn, pte_present, pte_unmap_unlock, ptep_get
from linux.spinlock cimport spinlock_t
from linux.swapops cimport is_swap_pte, swp_offset

from ksm.fs.proc.task_mmu cimport mem_size_stats, show_smap_vma_flags, smap_gather_stats

PAGE_PRESENT = 1
PAGE_KSM = 2
PAGE_ZERO = 4
PAGE_KSM_ZERO = 8
PAGE_ANON = 16
PAGE_SWAPPED = 32
PAGE_THP = 64
PAGE_FLAGS_SHIFT = 8


class Vma(NamedTuple):
    """A line of /proc/PID/maps: start and end address, what may be done (PROT_*), whether shared, whether mergeable, page offset."""

    start: int
    end: int
    prot: int
    shared: bool
    mergeable: bool
    pgoff: int


class Smap(NamedTuple):
    """A mapping of /proc/PID/smaps, in bytes: start and end address; its size; pages in memory, without the zero page; of them anonymous,
    merged, and in huge pages (of anonymous and of shared memory); pages swapped out; the names of its flags, "mg" if mergeable."""

    start: int
    end: int
    size: int
    rss: int
    anonymous: int
    ksm: int
    anon_huge_pages: int
    shmem_pmd_mapped: int
    swap: int
    vm_flags: tuple


cdef object show_maps(mm_struct *mm):
    cdef vm_area_struct *vma
    cdef int i
    result = []
    with nogil:
        mmap_read_lock(mm)
    try:
        for i in range(mm.map_count):
            vma = mm.vmas[i]
            result.append(Vma(vma.vm_start, vma.vm_end, <int>(vma.vm_flags & (VM_READ | VM_WRITE | VM_EXEC)),
                              (vma.vm_flags & VM_SHARED) != 0, (vma.vm_flags & VM_MERGEABLE) != 0, vma.vm_pgoff))
    finally:
        mmap_read_unlock(mm)
    return result


cdef object show_smaps(mm_struct *mm):
    cdef vm_area_struct *vma
    cdef mem_size_stats mss
    cdef int i
    result = []
    with nogil:
        mmap_read_lock(mm)
    try:
        for i in range(mm.map_count):
            vma = mm.vmas[i]
            memset(&mss, 0, sizeof(mss))
            with nogil:
                smap_gather_stats(vma, &mss)
            result.append(Smap(vma.vm_start, vma.vm_end, vma.vm_end - vma.vm_start, mss.resident, mss.anonymous, mss.ksm,
                               mss.anonymous_thp, mss.shmem_thp, mss.swap, show_smap_vma_flags(vma)))
    finally:
        mmap_read_unlock(mm)
    return result


cdef object show_ksm_stat(mm_struct *mm):
    return {"ksm_rmap_items": READ_ONCE_ulong(mm.ksm_rmap_items), "ksm_zero_pages": mm_ksm_zero_pages(mm),
            "ksm_merging_pages": READ_ONCE_ulong(mm.ksm_merging_pages), "ksm_process_profit": ksm_process_profit(mm)}


cdef void read_page_table(mm_struct *mm, unsigned long addr, unsigned long nr_pages, unsigned long *words) noexcept nogil:
    """A word for each page: see Process.page_table()."""
    cdef unsigned long i = 0, pfn, until
    cdef vm_area_struct *vma
    cdef spinlock_t *ptl = NULL
    cdef pte_t *start
    cdef pte_t *ptep
    mmap_read_lock(mm)
    while i < nr_pages:
        vma = vma_lookup(mm, addr)
        start = entry_offset_map_lock(mm, addr, &ptl, &pfn) if vma != NULL else NULL
        if start == NULL:
            words[i] = 0
            addr += PAGE_SIZE
            i += 1
            continue
        # With one lock to the end of the table; the entry of a huge page is in no table.
        until = (addr + PMD_SIZE) & ~(<unsigned long>PMD_SIZE - 1)
        if start == pmd_offset_mm(mm, addr):
            until = addr + PAGE_SIZE
        if until > vma.vm_end:
            until = vma.vm_end
        ptep = start
        while True:
            words[i] = entry_word(vma, addr, ptep_get(ptep), pfn)
            addr += PAGE_SIZE
            i += 1
            if addr >= until or i == nr_pages:
                break
            ptep += 1
            pfn = pte_pfn(ptep_get(ptep))
        pte_unmap_unlock(start, ptl)
    mmap_read_unlock(mm)


cdef inline unsigned long entry_word(vm_area_struct *vma, unsigned long addr, pte_t pte, unsigned long pfn) noexcept nogil:
    cdef unsigned long word = 1
    cdef struct_page *page
    if not pte_present(pte):
        return (swp_offset(pte) << 8) | 32 if is_swap_pte(pte) else 0
    page = vm_normal_page(vma, addr, pte)
    if page != NULL and PageTransCompound(page):
        word |= 64
    if page == NULL:
        word |= 4 | (8 if is_ksm_zero_pte(vma.vm_mm.machine, pte) else 0)
    elif folio_test_ksm(page_folio(page)):
        word |= 2 | 16
    elif folio_test_anon(page_folio(page)):
        word |= 16
    return word | pfn << 8

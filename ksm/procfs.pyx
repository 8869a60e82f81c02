# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what /proc/PID shows, for ksm/process.pyx.
"""The files of /proc/PID that show memory: maps, smaps, ksm_stat and pagemap, for an address space that the caller keeps alive."""

from typing import NamedTuple

from libc.stdlib cimport calloc, free

from linux.atomic cimport READ_ONCE_ulong
from linux.ksm cimport is_ksm_zero_pte, ksm_process_profit, mm_ksm_zero_pages
from linux.mm cimport VM_EXEC, VM_MERGEABLE, VM_READ, VM_SHARED, VM_WRITE, vm_normal_page, vma_lookup
from linux.mm_types cimport PAGE_SIZE, PMD_SIZE, mm_struct, pte_t, struct_page, vm_area_struct
from linux.mmap_lock cimport mmap_read_lock, mmap_read_unlock
from linux.page_flags cimport PageTransCompound, folio_test_anon, folio_test_ksm, page_folio
from linux.pgtable cimport entry_offset_map_lock, pmd_offset_mm, pte_pfn, pte_present, pte_unmap_unlock, ptep_get
from linux.spinlock cimport spinlock_t
from linux.swapops cimport is_swap_pte, swp_offset

from ksm.fs.proc.task_mmu cimport show_smap_vma_flags, smap_gather_stats

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


cdef void read_maps(mm_struct *mm, vma_lines *lines, bint pages) noexcept nogil:
    """Note all mappings, with counts of their pages if these are asked for. Who shows the lines frees them."""
    cdef vma_line *line
    cdef int i
    mmap_read_lock(mm)
    lines.count = mm.map_count
    lines.lines = <vma_line *>calloc(<size_t>mm.map_count + 1, sizeof(vma_line))
    for i in range(mm.map_count if lines.lines != NULL else 0):
        line = &lines.lines[i]
        line.start = mm.vmas[i].vm_start
        line.end = mm.vmas[i].vm_end
        line.pgoff = mm.vmas[i].vm_pgoff
        line.flags = mm.vmas[i].vm_flags
        if pages:
            smap_gather_stats(mm.vmas[i], &line.mss)
    mmap_read_unlock(mm)


cdef object show_maps(vma_lines *lines):
    cdef vma_line *line
    cdef int i
    result = []
    try:
        if lines.lines == NULL:
            raise MemoryError
        for i in range(lines.count):
            line = &lines.lines[i]
            result.append(Vma(line.start, line.end, <int>(line.flags & (VM_READ | VM_WRITE | VM_EXEC)), (line.flags & VM_SHARED) != 0,
                              (line.flags & VM_MERGEABLE) != 0, line.pgoff))
    finally:
        free(lines.lines)
    return result


cdef object show_smaps(vma_lines *lines):
    cdef vma_line *line
    cdef int i
    result = []
    try:
        if lines.lines == NULL:
            raise MemoryError
        for i in range(lines.count):
            line = &lines.lines[i]
            result.append(Smap(line.start, line.end, line.end - line.start, line.mss.resident, line.mss.anonymous, line.mss.ksm,
                               line.mss.anonymous_thp, line.mss.shmem_thp, line.mss.swap, show_smap_vma_flags(line.flags)))
    finally:
        free(lines.lines)
    return result


cdef void show_ksm_stat(mm_struct *mm, ksm_stat_lines *lines) noexcept nogil:
    lines.ksm_rmap_items = READ_ONCE_ulong(mm.ksm_rmap_items)
    lines.ksm_zero_pages = mm_ksm_zero_pages(mm)
    lines.ksm_merging_pages = READ_ONCE_ulong(mm.ksm_merging_pages)
    lines.ksm_process_profit = ksm_process_profit(mm)


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

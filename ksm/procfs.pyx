# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the files of /proc/PID, for ksm/process.pyx.
"""The files of /proc/PID that show memory: maps, smaps, ksm_stat and pagemap, for an address space that the caller keeps alive."""

from typing import NamedTuple

from libc.stdlib cimport calloc, free

from linux.atomic cimport READ_ONCE_ulong, test_bit
from linux.ksm cimport ksm_process_profit, mm_ksm_zero_pages
from linux.mm cimport VM_EXEC, VM_MERGEABLE, VM_READ, VM_SHARED, VM_WRITE, vma_iter_init, vma_iterator, vma_next
from linux.mm_types cimport MMF_VM_MERGE_ANY, PAGE_SHIFT, mm_struct, pte_t, vm_area_struct
from linux.mmap_lock cimport mmap_read_lock, mmap_read_unlock

from ksm.fs.proc.task_mmu cimport pagemap_walk, show_smap_vma_flags, smap_gather_stats


class Vma(NamedTuple):
    """A line of /proc/PID/maps: start and end address, access rights (PROT_*), whether shared, whether mergeable, page offset."""

    start: int
    end: int
    prot: int
    shared: bool
    mergeable: bool
    pgoff: int


class Smap(NamedTuple):
    """A mapping of /proc/PID/smaps, in bytes: start and end address; its size; pages in memory, without the zero page; how many of them are
    anonymous, merged, and in huge pages (of anonymous and of shared memory); pages swapped out; the names of its flags, "mg" if mergeable.
    """

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
    """Note all mappings, and the counts of their pages if these are asked for. The caller shows the lines and frees them."""
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


cdef bint ksm_process_mergeable(mm_struct *mm) noexcept nogil:
    """Whether a mapping of the process can be merged (mm/ksm.c, since 6.14)."""
    cdef bint mergeable = False
    cdef vma_iterator vmi
    cdef vm_area_struct *vma
    mmap_read_lock(mm)
    vma_iter_init(&vmi, mm, 0)
    vma = vma_next(&vmi)
    while vma != NULL and not mergeable:
        mergeable = vma.vm_flags & VM_MERGEABLE != 0
        vma = vma_next(&vmi)
    mmap_read_unlock(mm)
    return mergeable


cdef void show_ksm_stat(mm_struct *mm, ksm_stat_lines *lines) noexcept nogil:
    lines.ksm_rmap_items = READ_ONCE_ulong(mm.ksm_rmap_items)
    lines.ksm_zero_pages = mm_ksm_zero_pages(mm)
    lines.ksm_merging_pages = READ_ONCE_ulong(mm.ksm_merging_pages)
    lines.ksm_process_profit = ksm_process_profit(mm)
    lines.ksm_merge_any = test_bit(MMF_VM_MERGE_ANY, &mm.flags)
    lines.ksm_mergeable = ksm_process_mergeable(mm)


cdef struct words_of:
    unsigned long start
    unsigned long *words


cdef void put_word(vm_area_struct *vma, unsigned long addr, pte_t pte, unsigned long word, void *arg) noexcept nogil:
    (<words_of *>arg).words[(addr - (<words_of *>arg).start) >> PAGE_SHIFT] = word


cdef void read_page_table(mm_struct *mm, unsigned long addr, unsigned long nr_pages, unsigned long *words) noexcept nogil:
    """A word for each page: see Process.page_table(). The words are 0 before."""
    cdef unsigned long end = addr + (nr_pages << PAGE_SHIFT)
    cdef words_of there
    cdef vma_iterator vmi
    cdef vm_area_struct *vma
    there.start, there.words = addr, words
    mmap_read_lock(mm)
    vma_iter_init(&vmi, mm, addr)
    vma = vma_next(&vmi)
    while vma != NULL and vma.vm_start < end:
        pagemap_walk(vma, max(addr, vma.vm_start), min(end, vma.vm_end), put_word, &there)
        vma = vma_next(&vmi)
    mmap_read_unlock(mm)

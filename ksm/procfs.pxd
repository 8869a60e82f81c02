# SPDX-License-Identifier: GPL-2.0-only

from linux.mm_types cimport mm_struct, vm_flags_t

from ksm.fs.proc.task_mmu cimport mem_size_stats


cdef struct vma_line:
    unsigned long start
    unsigned long end
    unsigned long pgoff
    vm_flags_t flags
    mem_size_stats mss          # of smaps


cdef struct vma_lines:
    vma_line *lines             # NULL: there is no memory for them
    int count


# The lines of /proc/PID/ksm_stat
cdef struct ksm_stat_lines:
    unsigned long ksm_rmap_items
    long ksm_zero_pages
    unsigned long ksm_merging_pages
    long ksm_process_profit
    int ksm_merge_any           # these two since 6.14
    int ksm_mergeable


cdef void read_maps(mm_struct *mm, vma_lines *lines, bint pages) noexcept nogil
cdef object show_maps(vma_lines *lines)
cdef object show_smaps(vma_lines *lines)
cdef void show_ksm_stat(mm_struct *mm, ksm_stat_lines *lines) noexcept nogil
cdef void read_page_table(mm_struct *mm, unsigned long addr, unsigned long nr_pages, unsigned long *words) noexcept nogil

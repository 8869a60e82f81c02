# SPDX-License-Identifier: GPL-2.0-only
# Follows fs/proc/task_mmu.c of Linux 6.12.

from linux.mm_types cimport pte_t, vm_area_struct, vm_flags_t


# A word of Process.page_table(). The low 8 bits say what the entry is, and the frame stands from bit 8 on; for a swapped-out page it is the
# slot. /proc/PID/pagemap has a different word of 64 bits.
cpdef enum:
    PAGE_PRESENT = 1
    PAGE_KSM = 2
    PAGE_ZERO = 4
    PAGE_KSM_ZERO = 8
    PAGE_ANON = 16
    PAGE_SWAPPED = 32
    PAGE_THP = 64
    PAGE_FLAGS_SHIFT = 8


# All fields are in bytes.
cdef struct mem_size_stats:
    unsigned long resident
    unsigned long anonymous
    unsigned long anonymous_thp
    unsigned long shmem_thp
    unsigned long swap
    unsigned long ksm


# Called with the table locked, for each entry of a table, and for each part of a huge page with the huge page's entry.
ctypedef void (*entry_function)(vm_area_struct *vma, unsigned long addr, pte_t pte, unsigned long word, void *arg) noexcept nogil

cdef void pagemap_walk(vm_area_struct *vma, unsigned long start, unsigned long end, entry_function entry, void *arg) noexcept nogil
cdef void smap_gather_stats(vm_area_struct *vma, mem_size_stats *mss) noexcept nogil
cdef object show_smap_vma_flags(vm_flags_t vm_flags)

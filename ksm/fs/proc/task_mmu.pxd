# SPDX-License-Identifier: GPL-2.0-only
# Follows fs/proc/task_mmu.c of Linux 6.12.

from linux.mm_types cimport vm_area_struct, vm_flags_t


# All of them in bytes
cdef struct mem_size_stats:
    unsigned long resident
    unsigned long anonymous
    unsigned long anonymous_thp
    unsigned long shmem_thp
    unsigned long swap
    unsigned long ksm


cdef void smap_gather_stats(vm_area_struct *vma, mem_size_stats *mss) noexcept nogil
cdef object show_smap_vma_flags(vm_flags_t vm_flags)

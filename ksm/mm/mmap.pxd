# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/mmap.c of Linux 6.12.

from linux.mm_types cimport mm_struct


cdef long do_mmap(mm_struct *mm, unsigned long addr, unsigned long length, int prot, int flags) noexcept nogil
cdef int do_munmap(mm_struct *mm, unsigned long start, unsigned long length) noexcept nogil
cdef long do_brk(mm_struct *mm, unsigned long brk) noexcept nogil
cdef int check_mmap_addr(unsigned long addr, unsigned long length) noexcept nogil
cdef unsigned long get_unmapped_area(mm_struct *mm, unsigned long length) noexcept nogil
cdef unsigned long task_size() noexcept nogil

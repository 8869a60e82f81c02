# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the processor.

from linux.mm_types cimport mm_struct


cdef unsigned long cpu_access(mm_struct *mm, unsigned long addr, char *buf, unsigned long length, bint write, int *error) noexcept nogil
cdef long cpu_update(mm_struct *mm, unsigned long addr, const char *buf, unsigned long nr_pages, bint always,
                     int *error) noexcept nogil
cdef unsigned long cpu_touch(mm_struct *mm, unsigned long addr, unsigned long end, bint write, int *error) noexcept nogil

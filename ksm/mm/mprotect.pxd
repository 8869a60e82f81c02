# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/mprotect.c of Linux 6.12.

from linux.mm_types cimport mm_struct


cdef int do_mprotect(mm_struct *mm, unsigned long start, unsigned long length, int prot) noexcept nogil

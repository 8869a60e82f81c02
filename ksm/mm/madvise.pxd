# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/madvise.c of Linux 6.12.

from linux.mm_types cimport mm_struct


cdef int do_madvise(mm_struct *mm, unsigned long start, unsigned long len_in, int behavior) noexcept nogil

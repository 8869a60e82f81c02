# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/mremap.c of Linux 6.12.

from linux.mm_types cimport mm_struct


cdef long do_mremap(mm_struct *mm, unsigned long addr, unsigned long old_len, unsigned long new_len, int flags,
                    unsigned long new_addr) noexcept nogil

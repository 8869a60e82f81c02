# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: pages of bytes, stored as fingerprints.

from linux.mm_types cimport mm_struct

cdef long store_pages(mm_struct *mm, unsigned long addr, const char *pages, unsigned long nr_pages, bint always,
                      int *error) noexcept nogil

# SPDX-License-Identifier: GPL-2.0-only

from linux.mm_types cimport mm_struct


cdef object show_maps(mm_struct *mm)
cdef object show_smaps(mm_struct *mm)
cdef object show_ksm_stat(mm_struct *mm)
cdef void read_page_table(mm_struct *mm, unsigned long addr, unsigned long nr_pages, unsigned long *words) noexcept nogil

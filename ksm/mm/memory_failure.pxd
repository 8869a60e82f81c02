# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/memory-failure.c of Linux 6.12: what happens to a page, and who is killed for it.

from linux.mm_types cimport machine, mm_struct, to_kill_list


cdef void add_to_kill_ksm(mm_struct *mm, to_kill_list *tokill, unsigned long addr) noexcept nogil
cdef int memory_failure(machine *m, unsigned long pfn, to_kill_list *tokill) noexcept nogil
cdef int soft_offline_page(machine *m, unsigned long pfn) noexcept nogil

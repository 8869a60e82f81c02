# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: verifying the swap area.

from linux.mm_types cimport mm_struct, pte_t

from ksm.check.checker cimport checker


cdef bint check_swap_entry(checker *c, mm_struct *mm, unsigned long addr, pte_t pte) noexcept nogil
cdef void check_swap(checker *c) noexcept nogil

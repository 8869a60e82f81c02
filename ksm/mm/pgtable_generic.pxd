# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/pgtable-generic.c of Linux 6.12.

from linux.mm_types cimport machine, mm_struct
from linux.pgtable cimport pte_table


cdef unsigned long *table_alloc(machine *m) noexcept nogil
cdef void table_free(machine *m, unsigned long *table) noexcept nogil
cdef pte_table *pte_alloc_one(mm_struct *mm) noexcept nogil
cdef void pte_free(mm_struct *mm, pte_table *table) noexcept nogil
cdef void pgtable_trans_huge_deposit(mm_struct *mm, pte_table *table) noexcept nogil
cdef pte_table *pgtable_trans_huge_withdraw(mm_struct *mm) noexcept nogil

# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/pgtable-generic.c of Linux 6.12.
"""Tables of entries: making them, and keeping one ready for every huge page, so that splitting its mapping can never fail."""

from libc.stdlib cimport free
from libc.string cimport memset

from linux.mm_types cimport mm_struct
from linux.pgtable cimport pte_table
from linux.spinlock cimport spin_lock_init


cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t align, size_t size)


cdef pte_table *pte_alloc_one(mm_struct *mm) noexcept nogil:
    """An empty table; NULL without memory."""
    cdef pte_table *table = <pte_table *>aligned_alloc(64, (sizeof(pte_table) + 63) & ~<size_t>63)
    if table != NULL:
        memset(table, 0, sizeof(pte_table))
        spin_lock_init(&table.ptl)
    return table


cdef void pte_free(mm_struct *mm, pte_table *table) noexcept nogil:
    free(table)


cdef void pgtable_trans_huge_deposit(mm_struct *mm, pte_table *table) noexcept nogil:
    """Put a table aside for a huge page. The page table lock is held; the tables are linked through their first entries."""
    table.pte[0] = <unsigned long>mm.pmd_huge_pte
    mm.pmd_huge_pte = table


cdef pte_table *pgtable_trans_huge_withdraw(mm_struct *mm) noexcept nogil:
    """Take one back. There is one for every huge page that is mapped."""
    cdef pte_table *table = <pte_table *>mm.pmd_huge_pte
    mm.pmd_huge_pte = <void *>table.pte[0]
    table.pte[0] = 0
    return table

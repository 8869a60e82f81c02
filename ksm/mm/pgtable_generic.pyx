# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/pgtable-generic.c of Linux 6.12.
"""Allocating tables of page table entries, and keeping one ready for every huge page, so that splitting its mapping can never fail.

The tables of the upper levels come from the same cache, which is freed with its machine. The heap would keep their memory.
"""

from linux.mm_types cimport machine, mm_struct
from linux.pgtable cimport pte_table
from linux.spinlock cimport spin_lock_init

from ksm.mm.slub cimport kmem_cache_free, kmem_cache_zalloc


cdef unsigned long *table_alloc(machine *m) noexcept nogil:
    """OURS: an empty table of an upper level; NULL without memory."""
    return <unsigned long *>kmem_cache_zalloc(m.pgtable_cachep)


cdef void table_free(machine *m, unsigned long *table) noexcept nogil:
    kmem_cache_free(m.pgtable_cachep, table)


cdef pte_table *pte_alloc_one(mm_struct *mm) noexcept nogil:
    """An empty table; NULL without memory."""
    cdef pte_table *table = <pte_table *>kmem_cache_zalloc(mm.machine.pgtable_cachep)
    if table != NULL:
        spin_lock_init(&table.ptl)
    return table


cdef void pte_free(mm_struct *mm, pte_table *table) noexcept nogil:
    kmem_cache_free(mm.machine.pgtable_cachep, table)


cdef void pgtable_trans_huge_deposit(mm_struct *mm, pte_table *table) noexcept nogil:
    """Put a table aside for a huge page. The page table lock is held; the tables are linked through their first entries."""
    table.pte[0] = <unsigned long>mm.pmd_huge_pte
    mm.pmd_huge_pte = table


cdef pte_table *pgtable_trans_huge_withdraw(mm_struct *mm) noexcept nogil:
    """Take back a table that was put aside. There is one for every mapped huge page."""
    cdef pte_table *table = <pte_table *>mm.pmd_huge_pte
    mm.pmd_huge_pte = <void *>table.pte[0]
    table.pte[0] = 0
    return table

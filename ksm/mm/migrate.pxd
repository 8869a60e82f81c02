# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/migrate.c of Linux 6.12.

from linux.mm_types cimport machine, mm_struct, pmd_t, pte_t, struct_folio, struct_page, vm_area_struct


cdef void migration_entry_wait(mm_struct *mm, pmd_t *pmd, unsigned long address) noexcept nogil
cdef enum migrate_reason:
    MR_MEMORY_FAILURE = 1
    MR_MEMORY_HOTPLUG = 2
    MR_SYSCALL = 3

cdef enum:
    MOST_QUEUED = 1024

cdef struct pages_move:
    bint stayed     # a page of the queue has not moved
    bint ended      # the rest is not tried

cdef int migrate_pages(machine *m, struct_folio *folio, int nid, unsigned long nodemask, int reason, unsigned long *new_pfn) noexcept nogil
cdef long migrate_pfn(machine *m, unsigned long pfn, int nid) noexcept nogil
cdef unsigned long do_pages_move(mm_struct *mm, unsigned long addr, int nr_pages, int node, int *status, pages_move *state) noexcept nogil
cdef void do_pages_stat(mm_struct *mm, unsigned long addr, unsigned long nr_pages, int *status) noexcept nogil
cdef void map_in_place_of_migration_pte(vm_area_struct *vma, unsigned long addr, pte_t *ptep, struct_page *page) noexcept nogil

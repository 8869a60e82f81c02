# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/migrate.c of Linux 6.12.

from linux.mm_types cimport machine, mm_struct, pmd_t, struct_folio


cdef void migration_entry_wait(mm_struct *mm, pmd_t *pmd, unsigned long address) noexcept nogil
cdef int migrate_pages(machine *m, struct_folio *folio, int nid, unsigned long nodemask, unsigned long *new_pfn) noexcept nogil
cdef long migrate_pfn(machine *m, unsigned long pfn, int nid) noexcept nogil
cdef int add_folio_for_migration(mm_struct *mm, unsigned long addr, int node, struct_folio **folio) noexcept nogil

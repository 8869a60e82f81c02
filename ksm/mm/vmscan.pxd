# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/vmscan.c of Linux 6.12.

from linux.mm_types cimport machine, mm_struct, struct_folio


cdef bint folio_isolate_lru(struct_folio *folio) noexcept nogil
cdef void folio_putback_lru(machine *m, struct_folio *folio) noexcept nogil
cdef bint try_to_free_pages(machine *m) noexcept nogil
cdef long reclaim_range(mm_struct *mm, unsigned long start, unsigned long end) noexcept nogil

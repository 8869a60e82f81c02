# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/swap.c of Linux 6.12.

from linux.mm_types cimport machine, struct_folio, struct_page


cdef void mark_page_accessed(machine *m, struct_page *page) noexcept nogil
cdef void folio_add_lru(machine *m, struct_folio *folio) noexcept nogil
cdef void lru_add_drain(machine *m) noexcept nogil
cdef void lru_add_drain_all(machine *m) noexcept nogil
cdef void lru_cache_disable(machine *m) noexcept nogil
cdef void lru_cache_enable(machine *m) noexcept nogil

# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/page_alloc.c of Linux 6.12.

from linux.mm_types cimport machine, struct_folio, struct_page, zone
from linux.page_flags cimport folio_put_testzero, page_folio


cdef int zone_init(machine *m, int nid, unsigned long start_pfn, unsigned long end_pfn) noexcept nogil
cdef void zone_destroy(zone *z) noexcept nogil
cdef struct_page *__alloc_pages(machine *m, int preferred_nid, unsigned long nodemask, unsigned int order, bint zero) noexcept nogil
cdef struct_page *alloc_pages_node(machine *m, int nid, unsigned int order, bint zero) noexcept nogil
cdef void __folio_put(machine *m, struct_folio *folio) noexcept nogil
cdef void release_plugged(machine *m) noexcept nogil
cdef void drain_all_pages(machine *m) noexcept nogil
cdef void free_one_page(machine *m, zone *z, unsigned long pfn, unsigned int order) noexcept nogil
cdef void start_isolate_page_range(machine *m, zone *z, unsigned long start_pfn, unsigned long end_pfn) noexcept nogil
cdef void undo_isolate_page_range(machine *m, zone *z, unsigned long start_pfn, unsigned long end_pfn) noexcept nogil
cdef unsigned long nr_free_pages(machine *m) noexcept nogil
cdef void prep_new_page(struct_page *page, int nid, unsigned int extra_flags) noexcept nogil


cdef inline void folio_put(machine *m, struct_folio *folio) noexcept nogil:
    if folio_put_testzero(folio):
        __folio_put(m, folio)


cdef inline void put_page(machine *m, struct_page *page) noexcept nogil:
    folio_put(m, page_folio(page))

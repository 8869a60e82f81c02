# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the look ahead at the pages that ksmd will scan next. See look_ahead.pyx.

from linux.mm_types cimport mm_struct

from ksm.fast.state cimport fast_state, scanned_page
from ksm.mm.ksm cimport ksm_globals, ksm_rmap_item

cdef bint will_skip(ksm_globals *g, ksm_rmap_item *rmap_item) noexcept nogil
cdef unsigned int watch_pages(fast_state *fast, mm_struct *mm, unsigned long addr, scanned_page *pages, unsigned int want) noexcept nogil
cdef void find_items(scanned_page *pages, unsigned int nr, ksm_rmap_item *rmap_item) noexcept nogil
cdef void read_pages(fast_state *fast, scanned_page **unread, unsigned int nr) noexcept nogil
cdef bint look_ahead(fast_state *fast, unsigned long address, ksm_rmap_item *rmap_item, unsigned int most) noexcept nogil

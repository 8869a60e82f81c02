# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading pages with several threads.

from linux.mm_types cimport mm_struct

from ksm.fast.state cimport fast_state, scanned_page
from ksm.mm.ksm cimport ksm_rmap_item

cdef int read_ahead_init(fast_state *fast) noexcept nogil
cdef void read_ahead_exit(fast_state *fast) noexcept nogil
cdef unsigned int not_read_ahead(fast_state *fast, mm_struct *mm, ksm_rmap_item *rmap_item, scanned_page **unread, unsigned int nr,
                                 unsigned int most) noexcept nogil

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the look ahead at the pages that ksmd will scan next. See look_ahead.pyx.

from linux.mm_types cimport mm_struct

from ksm.fast.state cimport fast_state
from ksm.mm.ksm cimport ksm_rmap_item

cdef bint look_ahead(fast_state *fast, unsigned long address, ksm_rmap_item *rmap_item, unsigned int most) noexcept nogil
cdef void watch_pages(fast_state *fast, mm_struct *mm, unsigned long addr, unsigned int want, bint first) noexcept nogil

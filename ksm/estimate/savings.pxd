# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: KSM itself counts no further than pages_sharing.

from linux.mm_types cimport machine as struct_machine
from linux.page_flags cimport PG_reserved, test_page_flag


cdef inline bint frame_is_there(struct_machine *m, unsigned long pfn) noexcept nogil:
    """Whether the frame can be read. Holes between images are reserved, and so are frames of a removed image, and the zero page."""
    return pfn < m.plugged_pfn and (pfn == m.zero_pfn or not test_page_flag(m.mem_map + pfn, PG_reserved))

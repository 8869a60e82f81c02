# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/util.c and include/linux/mm.h of Linux 6.12.
"""Comparing pages. Their bytes may change during the comparison. A caller that needs a certain result has write-protected the pages before.
"""

from libc.string cimport memcmp

from linux.highmem cimport frame_size
from linux.mm_types cimport machine, struct_page
from linux.page_flags cimport page_address

from ksm.step cimport COMPARED, ksm_step


cdef inline int memcmp_bytes(machine *m, struct_page *page1, struct_page *page2) noexcept nogil:
    """The sign of the first difference, byte by byte, as unsigned numbers. It decides the shape of the trees."""
    return memcmp(page_address(m, page1), page_address(m, page2), frame_size(m))


cdef inline int memcmp_pages(machine *m, struct_page *page1, struct_page *page2) noexcept nogil:
    # OURS: ksmd may know the order of the two pages without reading them (ksm/fast). Only ksmd asks, for the page that it scans.
    cdef int ret
    if m.fast_ops != NULL:
        return m.fast_ops.memcmp_pages(m, page1, page2)
    ret = memcmp_bytes(m, page1, page2)
    ksm_step(m, COMPARED, NULL, page2, NULL, ret)
    return ret


cdef inline bint pages_identical(machine *m, struct_page *page1, struct_page *page2) noexcept nogil:
    # OURS: the speed layer may know that the pages are equal. Any thread may ask.
    if m.fast_ops != NULL and m.fast_ops.pages_identical(m, page1, page2):
        return True
    return memcmp_bytes(m, page1, page2) == 0

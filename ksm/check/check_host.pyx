# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: verifying the memory behind the frames.
"""Checks that free frames have lost their old contents, and that frames hold fingerprints where they should. See ksm/check/invariants.pyx.
"""

from libc.string cimport memset

from linux.highmem cimport has_bytes, ksm_frame, page_is_zero, stands_for_none
from linux.mm_types cimport zone
from linux.page_flags cimport PG_hwpoison, PG_offline, page_address

from ksm.check.checker cimport checker, finding
from ksm.host.arena cimport arena_present


cdef enum:
    AT_ONCE = 4096              # frames in one question to the operating system


cdef bint said_to_be_zeros(checker *c, zone *z, unsigned long pfn) noexcept nogil:
    """Whether a frame is said to read as zeros: it is on the buddy lists, claimed, offline, or was never used. A frame in `recent` is
    cleared when it is allocated.
    """
    if c.use[pfn].zeros or pfn >= z.fresh_pfn:
        return True
    return c.m.mem_map[pfn].flags & PG_offline and not c.m.mem_map[pfn].flags & PG_hwpoison


cdef void check_zeros(checker *c) noexcept nogil:
    """Check that free frames are zeros, after the frames were checked. Frames without memory read as zeros and are not read here. Where the
    system does not say which have memory, all frames that were ever used are read.
    """
    cdef unsigned char there[AT_ONCE]
    cdef unsigned long first, nr, pfn
    cdef zone *z
    cdef int i
    for i in range(c.m.nr_node_ids):
        z = &c.m.zones[i]
        first = z.zone_start_pfn
        while first < z.zone_end_pfn:
            nr = min(<unsigned long>AT_ONCE, z.zone_end_pfn - first)
            if not arena_present(c.m, first, nr, there):
                memset(there, 0, nr)
                if first < z.fresh_pfn:
                    memset(there, 1, min(nr, z.fresh_pfn - first))
            for pfn in range(first, first + nr):
                if there[pfn - first] & 1 and said_to_be_zeros(c, z, pfn) and not page_is_zero(c.m, c.m.mem_map + pfn):
                    finding(&c.found, b"frame %lu: free, and not all zeros", pfn)
            first += nr


cdef void check_fingerprints(checker *c) noexcept nogil:
    """Check that each frame that was ever used holds what stands for a page."""
    cdef unsigned long pfn
    cdef zone *z
    cdef int i
    if has_bytes(c.m):
        return
    for i in range(c.m.nr_node_ids):
        z = &c.m.zones[i]
        for pfn in range(z.zone_start_pfn, z.fresh_pfn):
            if stands_for_none(<ksm_frame *>page_address(c.m, c.m.mem_map + pfn)):
                finding(&c.found, b"frame %lu: it holds what stands for no page", pfn)

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: verifying the memory behind the frames.
"""Free frames hold nothing of what was in them before. See ksm/check/invariants.pyx."""

from libc.string cimport memcmp, memset

from linux.mm_types cimport PAGE_SHIFT, PAGE_SIZE, zone
from linux.page_flags cimport PG_hwpoison, PG_offline

from ksm.check.checker cimport checker, finding
from ksm.host.arena cimport arena_present


cdef enum:
    AT_ONCE = 4096              # frames that the system is asked about


cdef bint said_to_be_zeros(checker *c, zone *z, unsigned long pfn) noexcept nogil:
    """On the buddy lists, claimed, offline, or never used. What was freed a moment ago is cleared by whoever takes it."""
    if c.use[pfn].zeros or pfn >= z.fresh_pfn:
        return True
    return c.m.mem_map[pfn].flags & PG_offline and not c.m.mem_map[pfn].flags & PG_hwpoison


cdef void check_zeros(checker *c) noexcept nogil:
    """After the frames. Frames without memory are zeros, and stay without; where the system does not say which, those once used count."""
    cdef unsigned char there[AT_ONCE]
    cdef unsigned long first, nr, pfn
    cdef const char *bytes
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
                bytes = c.m.arena + (pfn << PAGE_SHIFT)
                if there[pfn - first] & 1 and said_to_be_zeros(c, z, pfn) and (bytes[0] or memcmp(bytes, bytes + 1, PAGE_SIZE - 1)):
                    finding(&c.found, b"frame %lu: free, and not all zeros", pfn)
            first += nr

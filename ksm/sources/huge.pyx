# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what mm/huge_memory.c has put into a process, as pagemap and kpageflags show it.
"""Which blocks of 2 MiB of a process belong to a huge page.

A huge page that is mapped by one entry is seen by everybody who may read the process (PAGEMAP_SCAN, Linux 6.7). One that is mapped by
entries of its own, because a part of it was unmapped, or copied after a fork, is only seen by who sees frames.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint64_t

from linux.mm_types cimport HPAGE_PMD_NR, PMD_SIZE

from ksm.sources.pagemap cimport PAGE_IS_HUGE, PM_FILE, PM_PFRAME, PM_PRESENT, append, page_flags, pread, read_entries, scan_area


cdef enum:
    # include/uapi/linux/kernel-page-flags.h
    KPF_ANON = 12
    KPF_COMPOUND_HEAD = 15
    KPF_COMPOUND_TAIL = 16
    KPF_THP = 22

    TRIES = 4                   # frames of a block that are asked for a huge page
    SMALLEST = 4                # pages of the smallest large folio

cdef uint64_t HEAD = <uint64_t>1 << KPF_ANON | <uint64_t>1 << KPF_COMPOUND_HEAD | <uint64_t>1 << KPF_THP
cdef uint64_t TAIL = <uint64_t>1 << KPF_COMPOUND_TAIL
cdef uint64_t PART = <uint64_t>1 << KPF_COMPOUND_HEAD | TAIL


def huge_blocks(int pagemap, int kpageflags, list blocks, *, bint ask_ioctl=True, bint others=False):
    """Which of these blocks have a huge page, or what is left of one: (huge, pages).

    Both are runs of addresses, and those of `blocks` are multiples of 2 MiB. With `others`, `pages` counts pages in folios of other sizes,
    and in parts of huge pages that were moved to another place of a block, as far as frames can be seen. OSError.
    """
    cdef list mapped = [], huge = []
    cdef uint64_t start, end, first
    cdef Py_ssize_t place = 0
    cdef unsigned long pages = 0
    for start, end in blocks:
        if ask_ioctl:
            # False for a kernel that does not have the ioctl
            ask_ioctl = scan_area(pagemap, start, end, mapped, PAGE_IS_HUGE)
        for first in range(start, end, PMD_SIZE):
            while place < len(mapped) and (<tuple>mapped[place])[1] <= first:
                place += 1
            if place < len(mapped) and (<tuple>mapped[place])[0] <= first:
                append(huge, first, first + PMD_SIZE)
            elif kpageflags >= 0 and has_parts(pagemap, kpageflags, first, &pages if others else NULL):
                append(huge, first, first + PMD_SIZE)
        PyErr_CheckSignals()
    return huge, pages


cdef bint has_parts(int pagemap, int kpageflags, uint64_t block, unsigned long *others) except -1:
    """Whether pages of the block are parts of one huge page, each at its place. If not, *others grows by the pages of other large folios.
    """
    cdef uint64_t entries[HPAGE_PMD_NR]
    cdef uint64_t pfn, asked = 0
    cdef ssize_t n = read_entries(pagemap, entries, block, HPAGE_PMD_NR), i
    cdef int tries = 0
    for i in range(n):
        pfn = anonymous_frame(entries[i])
        if pfn and pfn & (HPAGE_PMD_NR - 1) == <uint64_t>i and pfn - <uint64_t>i != asked and tries < TRIES:
            asked = pfn - <uint64_t>i
            tries += 1
            if is_huge(kpageflags, asked):
                return True
    if others != NULL:
        i = 0
        while i + SMALLEST <= n:
            pfn = anonymous_frame(entries[i])
            if pfn and page_flags(kpageflags, pfn) & PART:
                others[0] += SMALLEST
            i += SMALLEST
    return False


cdef inline uint64_t anonymous_frame(uint64_t entry) noexcept nogil:
    """The frame; 0 if there is none, or one of a file, or it cannot be seen."""
    return entry & PM_PFRAME if entry & PM_PRESENT and not entry & PM_FILE else 0


cdef bint is_huge(int kpageflags, uint64_t head) noexcept nogil:
    """Whether these 512 frames are one anonymous folio."""
    cdef uint64_t flags[HPAGE_PMD_NR]
    cdef int i
    if pread(kpageflags, flags, sizeof(flags), <long>head * 8) != sizeof(flags) or flags[0] & HEAD != HEAD:
        return False
    for i in range(1, HPAGE_PMD_NR):
        if flags[i] & TAIL == 0:
            return False
    return True

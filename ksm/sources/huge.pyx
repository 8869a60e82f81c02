# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what mm/huge_memory.c has put into a process, as pagemap and kpageflags show it.
"""Which blocks of 2 MiB of a process belong to a huge page.

A huge page that is mapped by one entry is seen by everybody who may read the process (PAGEMAP_SCAN, Linux 6.7). One that is mapped by
entries of its own, because a part of it was unmapped, or copied after a fork, is only seen by who sees frames.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint64_t

from linux.mm_types cimport HPAGE_PMD_NR, PAGE_SHIFT, PMD_SIZE

from ksm.sources.pagemap cimport PAGE_IS_HUGE, PM_FILE, PM_PFRAME, PM_PRESENT, append, page_flags, pread, read_entries, scan_area


cdef enum:
    # include/uapi/linux/kernel-page-flags.h
    KPF_ANON = 12
    KPF_COMPOUND_HEAD = 15
    KPF_COMPOUND_TAIL = 16
    KPF_THP = 22

    STRIDE = 33                 # pages of a block of which one is asked
    SMALLEST = 4                # pages of the smallest large folio

cdef uint64_t BLOCK_MASK = ~(<uint64_t>PMD_SIZE - 1)
cdef uint64_t HEAD = <uint64_t>1 << KPF_ANON | <uint64_t>1 << KPF_COMPOUND_HEAD | <uint64_t>1 << KPF_THP
cdef uint64_t TAIL = <uint64_t>1 << KPF_COMPOUND_TAIL
cdef uint64_t PART = <uint64_t>1 << KPF_COMPOUND_HEAD | TAIL


def huge_blocks(int pagemap, int kpageflags, list blocks, *, bint ask_ioctl=True, bint others=False):
    """Which of these blocks have a huge page, or what is left of one: (huge, pages).

    Both are runs of addresses. A part of a block, at an end of `blocks`, has none. With `others`, `pages` counts pages in folios of other
    sizes, and parts of huge pages that have moved to another place in a block, as far as frames can be seen. OSError.
    """
    cdef list mapped = [], huge = []
    cdef uint64_t start, end, first
    cdef Py_ssize_t place = 0
    cdef unsigned long pages = 0
    for start, end in blocks:
        if ask_ioctl:
            # False for a kernel that does not have the ioctl
            ask_ioctl = scan_area(pagemap, start, end, mapped, PAGE_IS_HUGE)
        for first in range((start + PMD_SIZE - 1) & BLOCK_MASK, end & BLOCK_MASK, PMD_SIZE):
            while place < len(mapped) and (<tuple>mapped[place])[1] <= first:
                place += 1
            if place < len(mapped) and (<tuple>mapped[place])[0] <= first:
                append(huge, first, first + PMD_SIZE)
            elif kpageflags >= 0 and has_parts(pagemap, kpageflags, first):
                append(huge, first, first + PMD_SIZE)
            elif kpageflags >= 0 and others:
                pages += in_others(pagemap, kpageflags, first)
        PyErr_CheckSignals()
    return huge, pages


cdef bint has_parts(int pagemap, int kpageflags, uint64_t block) except -1:
    """Whether pages of the block are parts of one huge page, each at its place. Some are asked: a huge page of which few parts are left may
    be overlooked.
    """
    cdef uint64_t entry, pfn, asked = 0
    cdef int place
    for place in range(0, HPAGE_PMD_NR, STRIDE):
        if read_entries(pagemap, &entry, block + (<uint64_t>place << PAGE_SHIFT), 1) == 0:
            break
        pfn = anonymous_frame(entry)
        if pfn and pfn & (HPAGE_PMD_NR - 1) == <uint64_t>place and pfn - <uint64_t>place != asked:
            asked = pfn - <uint64_t>place
            if is_huge(kpageflags, asked):
                return True
    return False


cdef unsigned long in_others(int pagemap, int kpageflags, uint64_t block) except? 1:
    """How many pages of the block are in large folios, as far as these lie at multiples of the smallest size."""
    cdef uint64_t entries[HPAGE_PMD_NR]
    cdef ssize_t n = read_entries(pagemap, entries, block, HPAGE_PMD_NR), i
    cdef unsigned long pages = 0
    cdef uint64_t pfn
    for i in range(0, n, SMALLEST):
        pfn = anonymous_frame(entries[i])
        if pfn and page_flags(kpageflags, pfn) & PART:
            pages += SMALLEST
    return pages


cdef inline uint64_t anonymous_frame(uint64_t entry) noexcept nogil:
    """The frame; 0 if there is none, or one of a file, or it cannot be seen."""
    return entry & PM_PFRAME if entry & PM_PRESENT and not entry & PM_FILE else 0


cdef bint is_huge(int kpageflags, uint64_t head) noexcept nogil:
    """Whether these 512 frames are one anonymous folio."""
    cdef uint64_t flags[HPAGE_PMD_NR]
    cdef int i
    if page_flags(kpageflags, head) & HEAD != HEAD or pread(kpageflags, flags, sizeof(flags), <long>head * 8) != sizeof(flags):
        return False
    for i in range(1, HPAGE_PMD_NR):
        if flags[i] & TAIL == 0:
            return False
    return True

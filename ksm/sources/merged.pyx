# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what mm/ksm.c has left behind, as fs/proc/page.c shows it.
"""Pages that the running kernel's KSM has merged already, told by their frames."""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint64_t

cimport cython

from linux.mm_types cimport PAGE_SHIFT, PAGE_SIZE

from ksm.sources.pagemap cimport (KPF_KSM, NR_ENTRIES, PM_FILE, PM_MMAP_EXCLUSIVE, PM_PFRAME, PM_PRESENT, append, known_flags, page_flags,
                                  read_entries)


cdef enum:
    CHUNK_SHIFT = 15            # frames in a piece of the bitmap, which has a bit for each


@cython.no_gc_clear
cdef class MergedFrames:
    """MergedFrames()
--

    The frames of KSM's pages that were met so far: a bitmap, in pieces.
    """

    cdef dict chunks

    def __cinit__(self):
        self.chunks = {}

    def __reduce__(self):
        raise TypeError("a set of frames cannot be copied or pickled")

    def add(self, int pagemap, int kpageflags, list runs):
        """Add what KSM has merged of the pages in the runs: for how many their frame was there already, and the runs of pages that are not
        KSM's, and have several mappings. OSError.

        Pages that are mapped once are passed over: their frame saves nothing. Where the flag of KSM's pages means nothing (see
        learn_ksm_flag()), each frame that was there already counts as KSM's, and each other one as nobody's.
        """
        cdef uint64_t entries[NR_ENTRIES]
        cdef uint64_t entry, pfn, addr, end
        cdef ssize_t n, i
        cdef unsigned long repeated = 0
        cdef bint told = known_flags >> KPF_KSM & 1
        cdef list others = []
        for start, stop in runs:
            addr = start
            end = stop
            while addr < end:
                n = read_entries(pagemap, entries, addr, (end - addr) >> PAGE_SHIFT)
                if n == 0:
                    break
                for i in range(n):
                    entry = entries[i]
                    pfn = entry & PM_PFRAME
                    if entry & PM_PRESENT and not entry & (PM_FILE | PM_MMAP_EXCLUSIVE) and pfn:
                        if told and not page_flags(kpageflags, pfn) >> KPF_KSM & 1:
                            append(others, addr, addr + PAGE_SIZE)
                        elif self.is_there(pfn):
                            repeated += 1
                        elif not told:
                            append(others, addr, addr + PAGE_SIZE)
                    addr += PAGE_SIZE
            PyErr_CheckSignals()
        return repeated, others

    cdef bint is_there(self, uint64_t pfn) except -1:
        """Whether the frame is there; it is there afterwards."""
        cdef uint64_t number = pfn >> CHUNK_SHIFT
        cdef uint64_t place = pfn & ((<uint64_t>1 << CHUNK_SHIFT) - 1)
        cdef unsigned char bit = <unsigned char>(1 << (place & 7))
        cdef bytearray chunk = <bytearray>self.chunks.get(number)
        cdef bint was_there
        if chunk is None:
            chunk = bytearray((1 << CHUNK_SHIFT) // 8)
            self.chunks[number] = chunk
        was_there = chunk[<Py_ssize_t>(place >> 3)] & bit != 0
        chunk[<Py_ssize_t>(place >> 3)] |= bit
        return was_there

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: KSM itself counts no further than pages_sharing.
"""What merging saves, split by where the equal pages are."""

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cimport cython

from linux.highmem cimport page_is_zero
from linux.mm_types cimport machine as struct_machine
from linux.page_flags cimport PG_reserved, test_page_flag
from linux.spinlock cimport mutex_lock, mutex_unlock

from ksm.fs.proc.task_mmu cimport PAGE_FLAGS_SHIFT, PAGE_KSM, PAGE_KSM_ZERO
from ksm.machine cimport Machine
from ksm.sources.frames cimport PAGE_REPEATED


cdef enum:
    ZERO = 0
    WITHIN
    ACROSS
    COUNTS

# Bits beside the source's number in Tally.last: the frame holds nothing but zeros; only repeated pages were seen to map it.
cdef uint32_t ZEROS = <uint32_t>1 << 31
cdef uint32_t OWED = <uint32_t>1 << 30


@cython.no_gc_clear
cdef class Tally:
    """Tally(machine)
--

    Counts frames saved, from the page tables of the sources, one source after the other.

    A merged page with n mappings saves n - 1 frames. For a page of zeros all of them count as `zero`, and so does every page that became
    the kernel's zero page. For any other page, `within` counts the frames that a separate merge inside each source would have saved.
    `across` counts the rest: one less than there are sources with the page.

    Pages that share a frame since a fork were one frame before. One of them stands for it, the others are marked PAGE_REPEATED. Where KSM
    has merged them into different pages, because of max_page_sharing, a page that has no other mappings has cost a frame.
    """

    cdef Machine machine
    cdef uint32_t *last         # for each frame: the source that was last seen to map it, from 1
    cdef uint32_t source
    cdef readonly long zero
    cdef readonly long within
    cdef readonly long across

    def __cinit__(self, Machine machine not None):
        with nogil:
            machine.enter()
            self.last = <uint32_t *>calloc(machine.m.max_pfn, sizeof(uint32_t))
            machine.leave()
        if self.last == NULL:
            raise MemoryError
        self.machine = machine

    def __dealloc__(self):
        free(self.last)

    def __reduce__(self):
        raise TypeError("a tally cannot be copied or pickled")

    def next_source(self):
        """The page tables that are added from now on belong to the next source."""
        begin_source(self)

    def add(self, const unsigned long[::1] words):
        """Count a page table, as Process.page_table() gives it: how many pages are present. ValueError for a frame that is not there."""
        cdef long counts[COUNTS]
        cdef unsigned long present = 0, word
        cdef Py_ssize_t i
        cdef bint beyond = False
        cdef struct_machine *m
        cdef uint32_t *last = self.last
        cdef uint32_t source = self.source
        if source == 0:
            raise ValueError("next_source() has to be called before add()")
        memset(counts, 0, sizeof(counts))
        with nogil:
            self.machine.enter()
            m = self.machine.m
            # The lock keeps images from being removed meanwhile.
            mutex_lock(&m.hotplug_lock)
            for i in range(words.shape[0]):
                word = words[i]
                present += word != 0
                if word & (PAGE_KSM | PAGE_KSM_ZERO):
                    beyond = not frame_is_there(m, word >> PAGE_FLAGS_SHIFT)
                    if beyond:
                        break
                    count_word(m, word, last, source, counts)
            mutex_unlock(&m.hotplug_lock)
            self.machine.leave()
        if beyond:
            raise ValueError("the page table has frames that the machine has not")
        add_counts(self, counts)
        return present


# Without the GIL two threads could add at the same time, and one sum be lost.

@cython.critical_section
cdef int begin_source(Tally tally) except -1:
    tally.source += 1
    return 0


@cython.critical_section
cdef int add_counts(Tally tally, const long *counts) except -1:
    tally.zero += counts[ZERO]
    tally.within += counts[WITHIN]
    tally.across += counts[ACROSS]
    return 0


cdef inline bint frame_is_there(struct_machine *m, unsigned long pfn) noexcept nogil:
    """Whether the frame can be read. Holes between images are reserved, and so are frames of a removed image, and the zero page."""
    return pfn < m.plugged_pfn and (pfn == m.zero_pfn or not test_page_flag(m.mem_map + pfn, PG_reserved))


cdef inline void count_word(struct_machine *m, unsigned long word, uint32_t *last, uint32_t source,
                            long *counts) noexcept nogil:
    """Count a mapping of a merged page, or of KSM's zero page."""
    cdef unsigned long frame = word >> PAGE_FLAGS_SHIFT
    if word & PAGE_KSM_ZERO:
        counts[ZERO] += not word & PAGE_REPEATED
        return
    if word & PAGE_REPEATED:
        if last[frame] == 0:
            last[frame] = OWED | (ZEROS if page_is_zero(m, m.mem_map + frame) else 0)
            counts[ZERO if last[frame] & ZEROS else WITHIN] -= 1
        return
    if last[frame] & OWED:
        # Another one has stood in for the first mapping.
        counts[ZERO if last[frame] & ZEROS else WITHIN] += 1
        last[frame] &= ZEROS
    elif last[frame] == 0:
        # The first mapping saves nothing.
        last[frame] = ZEROS if page_is_zero(m, m.mem_map + frame) else 0
    elif last[frame] & ZEROS:
        counts[ZERO] += 1
    elif last[frame] == source:
        counts[WITHIN] += 1
    else:
        counts[ACROSS] += 1
    last[frame] = (last[frame] & ZEROS) | source

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: KSM itself counts no further than pages_sharing.
"""What merging saves, split by where the equal pages are."""

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

from linux.mm_types cimport PAGE_SHIFT, PAGE_SIZE

from ksm.machine cimport Machine


cdef extern from "<string.h>" nogil:
    int memcmp(const void *a, const void *b, size_t n)

cdef enum:
    PAGE_KSM = 2
    PAGE_KSM_ZERO = 8
    PAGE_FLAGS_SHIFT = 8

# Beside the number of a source: the frame holds nothing but zeros.
cdef uint32_t ZEROS = <uint32_t>1 << 31


cdef class Tally:
    """Counts frames saved, from the page tables of the sources, one source after the other.

    A merged page with n mappings saves n - 1 frames. Of a page of zeros, all of them are `zero`, and so is every page that became the
    kernel's zero page. Of any other, `within` has those that the same number of separate merges, one inside each source, would have
    saved; `across` has the rest: one less than there are sources with the page.
    """

    cdef Machine machine
    cdef uint32_t *last         # of a frame: the source that was last seen to map it, from 1
    cdef uint32_t source
    cdef readonly unsigned long zero
    cdef readonly unsigned long within
    cdef readonly unsigned long across

    def __cinit__(self, Machine machine):
        machine.enter()
        self.last = <uint32_t *>calloc(machine.m.max_pfn, sizeof(uint32_t))
        machine.leave()
        if self.last == NULL:
            raise MemoryError
        self.machine = machine

    def __dealloc__(self):
        free(self.last)

    def next_source(self):
        """What is added from now on belongs to another source."""
        self.source += 1

    def add(self, const unsigned long[::1] words):
        """A page table, as Process.page_table() gives it: how many of its pages are present."""
        cdef unsigned long word, frame, present = 0
        cdef uint32_t last
        cdef Py_ssize_t i
        if self.source == 0:
            raise ValueError("next_source() comes first")
        self.machine.enter()
        with nogil:
            for i in range(words.shape[0]):
                word = words[i]
                present += word != 0
                if word & PAGE_KSM_ZERO:
                    self.zero += 1
                elif word & PAGE_KSM:
                    frame = word >> PAGE_FLAGS_SHIFT
                    last = self.last[frame]
                    if last == 0:
                        last = ZEROS if is_zeros(self.machine.m.arena + (frame << PAGE_SHIFT)) else 0
                    elif last & ZEROS:
                        self.zero += 1
                    elif last == self.source:
                        self.within += 1
                    else:
                        self.across += 1
                    self.last[frame] = (last & ZEROS) | self.source
        self.machine.leave()
        return present


cdef bint is_zeros(const char *page) noexcept nogil:
    # If the first byte is 0 and every byte equals the next one
    return page[0] == 0 and memcmp(page, page + 1, PAGE_SIZE - 1) == 0

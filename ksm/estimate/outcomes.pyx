# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: why a page is merged, or not.
"""The reason of each page that KSM looks at: from the page tables after the last pass, and from what was decided of each page.

Pages are told apart here as Tally does it for the ledger of a scan. Tally counts frames, and so has one of several copies as kept. Here
each copy has the same reason.
"""

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cimport cython

from linux.highmem cimport page_is_zero
from linux.mm_types cimport machine as struct_machine
from linux.page_flags cimport PG_reserved, test_page_flag
from linux.spinlock cimport mutex_lock, mutex_unlock

from ksm.fs.proc.task_mmu cimport PAGE_FLAGS_SHIFT, PAGE_KSM, PAGE_KSM_ZERO, PAGE_PRESENT, PAGE_THP, PAGE_ZERO
from ksm.machine cimport Machine
from ksm.mm.ksm cimport ERA_6_1
from ksm.mm.util cimport memcmp_bytes
from ksm.record cimport decisions as decided
from ksm.sources.frames cimport PAGE_REPEATED

# Bits beside the number of the first source that maps a merged frame: another mapping was seen; that of another source.
cdef uint32_t TWICE = <uint32_t>1 << 31
cdef uint32_t SEVERAL = <uint32_t>1 << 30
cdef uint32_t SOURCE = SEVERAL - 1

cdef unsigned char[<int>decided.NR_DECISIONS] reason_of
memset(reason_of, WAITING, sizeof(reason_of))
reason_of[<int>decided.CHANGED] = VOLATILE
reason_of[<int>decided.SKIPPED] = SMART_SCAN
reason_of[<int>decided.NO_EQUAL] = ALONE
reason_of[<int>decided.EQUAL_FULL] = FULL
reason_of[<int>decided.SAME_FRAME] = ALONE
reason_of[<int>decided.MET_GONE] = AGAIN
reason_of[<int>decided.OTHER_NODE] = OTHER_NODE
reason_of[<int>decided.HELD] = HELD
reason_of[<int>decided.EQUAL_HELD] = EQUAL_HELD
reason_of[<int>decided.BUSY] = AGAIN
reason_of[<int>decided.DIFFERS] = AGAIN
reason_of[<int>decided.FAILED] = AGAIN
# MERGED and TO_ZERO_PAGE: it was written to since, and KSM has not come by again.


cdef inline bint frame_is_there(struct_machine *m, unsigned long pfn) noexcept nogil:
    return pfn < m.plugged_pfn and (pfn == m.zero_pfn or not test_page_flag(m.mem_map + pfn, PG_reserved))


@cython.no_gc_clear
cdef class Outcomes:
    """Outcomes(machine)
--

    Why each page of the sources is merged, or not. First all page tables are added, source by source; then reasons() says it.
    """

    cdef Machine machine
    cdef uint32_t *frames
    cdef unsigned long nr
    cdef uint32_t source

    def __cinit__(self, Machine machine not None):
        with nogil:
            machine.enter()
            self.nr = machine.m.max_pfn
            self.frames = <uint32_t *>calloc(self.nr, sizeof(uint32_t))
            machine.leave()
        if self.frames == NULL:
            raise MemoryError
        self.machine = machine

    def __dealloc__(self):
        free(self.frames)

    def __reduce__(self):
        raise TypeError("outcomes cannot be copied or pickled")

    def next_source(self):
        """The page tables that are added from now on belong to the next source."""
        self.source += 1

    def add(self, const unsigned long[::1] words):
        """Note who maps the merged frames of a page table, as Process.page_table() gives it."""
        cdef Py_ssize_t i
        cdef unsigned long word, pfn
        cdef uint32_t *frame
        if self.source == 0:
            raise ValueError("next_source() has to be called before add()")
        with nogil:
            for i in range(words.shape[0]):
                word = words[i]
                pfn = word >> PAGE_FLAGS_SHIFT
                if word & PAGE_KSM and pfn < self.nr:
                    frame = self.frames + pfn
                    if frame[0] == 0:
                        frame[0] = self.source
                    else:
                        frame[0] |= TWICE | (SEVERAL if frame[0] & SOURCE != self.source else 0)

    def reasons(self, const unsigned long[::1] words, const unsigned char[::1] decisions):
        """The reason of each page of a page table, and what was decided of it, as Decisions.of() says: a byte for each."""
        cdef bytearray result = bytearray(words.shape[0])
        cdef unsigned char[::1] reasons = result
        cdef Py_ssize_t i
        cdef unsigned long zero
        cdef struct_machine *m
        if words.shape[0] != decisions.shape[0]:
            raise ValueError("a page table and the decisions on other pages")
        with nogil:
            self.machine.enter()
            m = self.machine.m
            zero = PAGE_KSM_ZERO if self.machine.g.era > ERA_6_1 else PAGE_ZERO
            # The lock keeps images from being removed meanwhile.
            mutex_lock(&m.hotplug_lock)
            for i in range(words.shape[0]):
                reasons[i] = self.reason(m, words[i], decisions[i], zero)
            mutex_unlock(&m.hotplug_lock)
            self.machine.leave()
        return bytes(result)

    def like(self, const unsigned long[::1] words, unsigned long pfn, unsigned long most):
        """The pages of a page table that have this frame, or another one with the same content: (index, whether it is this frame), `most`
        of them.
        """
        cdef list found = []
        cdef Py_ssize_t i = 0
        cdef struct_machine *m
        cdef unsigned long other = 0
        while i < words.shape[0] and <unsigned long>len(found) < most:
            with nogil:
                self.machine.enter()
                m = self.machine.m
                mutex_lock(&m.hotplug_lock)
                while i < words.shape[0]:
                    other = words[i] >> PAGE_FLAGS_SHIFT
                    if words[i] & PAGE_PRESENT and frame_is_there(m, pfn) and frame_is_there(m, other):
                        if other == pfn or memcmp_bytes(m, m.mem_map + pfn, m.mem_map + other) == 0:
                            break
                    i += 1
                mutex_unlock(&m.hotplug_lock)
                self.machine.leave()
            if i < words.shape[0]:
                found.append((i, other == pfn))
                i += 1
        return found

    cdef unsigned char reason(self, struct_machine *m, unsigned long word, unsigned char decision, unsigned long zero) noexcept nogil:
        cdef unsigned long pfn = word >> PAGE_FLAGS_SHIFT
        cdef uint32_t frame
        cdef unsigned char why
        if not word & PAGE_PRESENT:
            return ABSENT
        if word & PAGE_ZERO:
            return ZERO if word & zero else SPLIT
        if word & PAGE_KSM:
            if pfn >= self.nr or not frame_is_there(m, pfn):
                return LAST
            frame = self.frames[pfn]
            if not frame & TWICE:
                return LAST
            if page_is_zero(m, m.mem_map + pfn):
                return ZERO
            return ACROSS if frame & SEVERAL else WITHIN
        if word & PAGE_REPEATED:
            return FORKED
        why = reason_of[decision] if decision < decided.NR_DECISIONS else WAITING
        return HUGE if why == ALONE and word & PAGE_THP else why

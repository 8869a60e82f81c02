# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what would merge, if it could.
"""What could be gained: of pages that did not merge, and of memory that KSM never looks at, how much has an equal somewhere.

Each frame of the sources counts once, by 64 bits of its fingerprint. Of n pages, any two are taken for equal by mistake with a
probability of n²/2^65: for 1 TiB that is 1 in 512. The figures are what would be freed if all pages of one reason could merge, and nothing
else changed.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, qsort, realloc
from libc.string cimport memcpy

cimport cython

from linux.highmem cimport has_bytes, ksm_frame
from linux.mm_types cimport frame_maker, machine as struct_machine
from linux.page_flags cimport PG_reserved, page_address, test_page_flag
from linux.spinlock cimport mutex_lock, mutex_unlock

from ksm.estimate.outcomes cimport ABSENT, EQUAL_HELD, FORKED, HUGE, NR_REASONS, WITHIN
from ksm.fingerprint.frames cimport frame_maker_init, make_fingerprints
from ksm.fs.proc.task_mmu cimport PAGE_FLAGS_SHIFT, PAGE_PRESENT, PAGE_ZERO
from ksm.machine cimport Machine

cdef enum:
    OTHERS = 0                  # in place of a reason: pages that are merged, have no equal, or would merge as soon as their equal could


cdef struct entry:
    uint64_t hash
    uint32_t region
    uint32_t reason


cdef int order(const void *a, const void *b) noexcept nogil:
    cdef const entry *left = <const entry *>a
    cdef const entry *right = <const entry *>b
    if left.hash != right.hash:
        return -1 if left.hash < right.hash else 1
    if left.reason != right.reason:
        return -1 if left.reason < right.reason else 1
    return -1 if left.region < right.region else left.region > right.region


@cython.no_gc_clear
cdef class Contents:
    """Contents(machine)
--

    The contents of all pages of a machine's sources, and of other memory.
    """

    cdef Machine machine
    cdef unsigned char *seen    # a bit for each frame
    cdef unsigned long nr_frames
    cdef entry *entries
    cdef size_t nr, room
    cdef frame_maker maker      # where the machine keeps bytes

    def __cinit__(self, Machine machine not None):
        with nogil:
            machine.enter()
            self.nr_frames = machine.m.max_pfn
            self.seen = <unsigned char *>calloc(self.nr_frames // 8 + 1, 1)
            machine.leave()
        if self.seen == NULL:
            raise MemoryError
        frame_maker_init(&self.maker, False, NULL)
        self.machine = machine

    def __dealloc__(self):
        free(self.seen)
        free(self.entries)

    def __reduce__(self):
        raise TypeError("contents cannot be copied or pickled")

    cdef int reserve(self, size_t more) except -1:
        cdef size_t room = self.nr + more
        cdef void *entries
        if room > self.room:
            room = max(room, self.room + self.room // 2)
            entries = realloc(self.entries, room * sizeof(entry))
            if entries == NULL:
                raise MemoryError
            self.entries = <entry *>entries
            self.room = room
        return 0

    def add(self, const unsigned long[::1] words, const unsigned char[::1] reasons, uint32_t region):
        """Add the frames of a page table of one region, whose pages have these reasons."""
        cdef struct_machine *m
        cdef Py_ssize_t i
        cdef unsigned long pfn
        self.reserve(words.shape[0])
        if words.shape[0] != reasons.shape[0]:
            raise ValueError("a page table and the reasons of other pages")
        with nogil:
            self.machine.enter()
            m = self.machine.m
            # The lock keeps images from being removed meanwhile.
            mutex_lock(&m.hotplug_lock)
            for i in range(words.shape[0]):
                pfn = words[i] >> PAGE_FLAGS_SHIFT
                if words[i] & (PAGE_PRESENT | PAGE_ZERO) != PAGE_PRESENT or pfn >= self.nr_frames or pfn >= m.plugged_pfn:
                    continue
                if self.seen[pfn >> 3] >> (pfn & 7) & 1 or reasons[i] == FORKED or test_page_flag(m.mem_map + pfn, PG_reserved):
                    continue
                self.seen[pfn >> 3] |= <unsigned char>(1 << (pfn & 7))
                self.entries[self.nr].hash = self.hash_of(m, pfn)
                self.entries[self.nr].region = region
                self.entries[self.nr].reason = reason_that_counts(reasons[i])
                self.nr += 1
            mutex_unlock(&m.hotplug_lock)
            self.machine.leave()

    cdef uint64_t hash_of(self, struct_machine *m, unsigned long pfn) noexcept nogil:
        cdef const char *page = <const char *>page_address(m, m.mem_map + pfn)
        cdef ksm_frame frame
        cdef ksm_frame *made = &frame
        cdef uint64_t hash
        if has_bytes(m):
            make_fingerprints(&self.maker, &page, &made, 1)
            page = <const char *>frame.fingerprint
        memcpy(&hash, page, sizeof(hash))
        return hash

    def add_frames(self, const unsigned char[::1] frames, uint32_t region, uint32_t reason):
        """Add pages that are not in the machine, as frames_of() gives them."""
        cdef Py_ssize_t i, nr = frames.shape[0] // <Py_ssize_t>sizeof(ksm_frame)
        self.reserve(nr)
        for i in range(nr):
            memcpy(&self.entries[self.nr].hash, &frames[i * <Py_ssize_t>sizeof(ksm_frame)], sizeof(uint64_t))
            self.entries[self.nr].region = region
            self.entries[self.nr].reason = reason
            self.nr += 1

    def gains(self):
        """For each reason and region: (reason, region, pages whose content is somewhere else, too, pages that would be freed if the pages
        of this reason in this region merged). Region -1 stands for all regions together.
        """
        cdef size_t start = 0, end, first, last, part, until
        cdef bint others
        cdef dict found = {}
        with nogil:
            qsort(self.entries, self.nr, sizeof(entry), order)
        while start < self.nr:
            end = start + 1
            while end < self.nr and self.entries[end].hash == self.entries[start].hash:
                end += 1
            # Entries of other reasons come first. A content that only pages of two reasons have would be merged by no change of one.
            others = self.entries[start].reason == OTHERS
            first = start
            while first < end:
                last = first
                while last < end and self.entries[last].reason == self.entries[first].reason:
                    last += 1
                if self.entries[first].reason != OTHERS:
                    note(found, self.entries[first].reason, -1, last - first, others)
                    part = first
                    while part < last:
                        until = part
                        while until < last and self.entries[until].region == self.entries[part].region:
                            until += 1
                        note(found, self.entries[first].reason, self.entries[part].region, until - part, others)
                        part = until
                first = last
            start = end
        return [(reason, region, equal, freed) for (reason, region), (equal, freed) in sorted(found.items())]


cdef int note(dict found, long reason, long region, size_t own, bint others) except -1:
    """One content: `own` pages of the reason have it, and `others` that KSM has looked at."""
    if own == 1 and not others:
        return 0
    cdef object key = (reason, region)
    equal, freed = found.get(key, (0, 0))
    found[key] = (equal + own, freed + (own if others else own - 1))
    return 0


cdef inline uint32_t reason_that_counts(unsigned char reason) noexcept nogil:
    if WITHIN <= reason <= HUGE or reason == EQUAL_HELD or reason == ABSENT or reason >= NR_REASONS:
        return OTHERS
    return reason

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: a stable node has a list of rmap_items, and nobody asks whose they are.
"""Which sources share which contents, after a scan."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, qsort, realloc
from libc.string cimport memcpy, memset

cimport cython

from array import array as new_array
from collections import namedtuple

from linux.highmem cimport has_bytes, ksm_frame
from linux.mm_types cimport PAGE_SHIFT, frame_maker, machine as struct_machine
from linux.page_flags cimport page_address
from linux.spinlock cimport mutex_lock, mutex_unlock

from ksm.estimate.savings cimport frame_is_there
from ksm.fingerprint.frames cimport frame_maker_init, make_fingerprints
from ksm.fs.proc.task_mmu cimport PAGE_FLAGS_SHIFT, PAGE_KSM, PAGE_KSM_ZERO, PAGE_ZERO
from ksm.machine cimport Machine
from ksm.mm.ksm cimport ERA_6_1
from ksm.sources.frames cimport PAGE_REPEATED


cdef extern from "page_class.h" nogil:
    int class_forms() noexcept
    int page_class(const char *page, int form) noexcept


UNKNOWN = 255                   # the class of a page whose bytes are not kept

# A content: how many pages have it; in how many frames; how many sources have it; one of them by its place, with the address in the
# machine's process, and the frame; and the key.
Shared = namedtuple("Shared", "pages frames sources source address frame key", module=__name__)

cdef enum:
    NO_CLASS = 255
    AT_ONCE = 64

cdef struct share:
    uint64_t key                # of the contents: 0 for zeros
    uint64_t addr               # of the first page in the source
    uint32_t pfn
    uint32_t source             # from 0
    uint32_t pages

cdef struct content:
    size_t first, end           # in Shares.shares
    uint64_t pages
    uint64_t freed              # the pages less their frames
    uint32_t frames, sources


@cython.no_gc_clear
cdef class Shares:
    """Shares(machine)
--

    The merged contents of the sources: next_source() and add() as for a Tally, then done(). A content is what equal pages have, in however
    many frames max_page_sharing puts them. Pages whose frame counts for another one since a fork are left out.

    RuntimeError where a thread calls while another one does.
    """

    cdef Machine machine
    cdef uint32_t *now          # for each frame: the pages of this source that have it
    cdef share *shares
    cdef size_t nr, room, began  # began: the first share of this source
    cdef content *contents
    cdef size_t nr_contents
    cdef uint32_t nr_sources
    cdef bint busy

    def __cinit__(self, Machine machine not None):
        with nogil:
            machine.enter()
            self.now = <uint32_t *>calloc(machine.m.max_pfn, sizeof(uint32_t))
            machine.leave()
        if self.now == NULL:
            raise MemoryError
        self.machine = machine

    def __dealloc__(self):
        free(self.now)
        free(self.shares)
        free(self.contents)

    def __reduce__(self):
        raise TypeError("shares cannot be copied or pickled")

    def __len__(self):
        return self.nr_contents

    def next_source(self):
        """The page tables that are added from now on belong to the next source."""
        take(self)
        try:
            self.end_source()
            self.nr_sources += 1
        finally:
            self.busy = False

    def add(self, unsigned long start, const unsigned long[::1] words):
        """Note the merged pages of a page table from the address `start` on. ValueError for a frame that is not there."""
        cdef Py_ssize_t i
        cdef unsigned long word, zero, pfn
        cdef struct_machine *m
        cdef int ret = 0
        take(self)
        try:
            if self.nr_sources == 0 or self.now == NULL:
                raise ValueError("add() comes after next_source() and before done()")
            with nogil:
                self.machine.enter()
                m = self.machine.m
                zero = PAGE_KSM_ZERO if self.machine.g.era > ERA_6_1 else PAGE_ZERO
                mutex_lock(&m.hotplug_lock)
                for i in range(words.shape[0]):
                    word = words[i]
                    if not word & (PAGE_KSM | zero) or word & PAGE_REPEATED:
                        continue
                    pfn = m.zero_pfn if word & zero else word >> PAGE_FLAGS_SHIFT
                    if not frame_is_there(m, pfn):
                        ret = 1
                        break
                    if self.now[pfn] == 0:
                        ret = self.begin_share(pfn, start + (<unsigned long>i << PAGE_SHIFT))
                        if ret:
                            break
                    self.now[pfn] += 1
                mutex_unlock(&m.hotplug_lock)
                self.machine.leave()
            if ret < 0:
                raise MemoryError
            if ret:
                raise ValueError("the page table has frames that the machine has not")
        finally:
            self.busy = False

    cdef int begin_share(self, unsigned long pfn, unsigned long addr) noexcept nogil:
        cdef share *more
        if self.nr == self.room:
            self.room = 2 * self.room + 1024
            more = <share *>realloc(self.shares, self.room * sizeof(share))
            if more == NULL:
                return -1
            self.shares = more
        more = self.shares + self.nr
        memset(more, 0, sizeof(share))
        more.addr = addr
        more.pfn = <uint32_t>pfn
        more.source = self.nr_sources - 1
        self.nr += 1
        return 0

    cdef void end_source(self) noexcept:
        cdef size_t i
        for i in range(self.began, self.nr):
            self.shares[i].pages = self.now[self.shares[i].pfn]
            self.now[self.shares[i].pfn] = 0
        self.began = self.nr

    def done(self):
        """Put the shares in order, those of a content together, and the contents by what they free, most first.

        Contents are told apart by 64 bits of their fingerprints.
        """
        cdef size_t i, contents = 0
        take(self)
        try:
            if self.now == NULL:
                raise ValueError("done() is called once")
            self.end_source()
            with nogil:
                self.machine.enter()
                mutex_lock(&self.machine.m.hotplug_lock)
                find_keys(self.machine.m, self.shares, self.nr)
                mutex_unlock(&self.machine.m.hotplug_lock)
                self.machine.leave()
                qsort(self.shares, self.nr, sizeof(share), compare_shares)
                for i in range(self.nr):
                    contents += i == 0 or self.shares[i].key != self.shares[i - 1].key
            self.contents = <content *>calloc(contents + 1, sizeof(content))
            if self.contents == NULL:
                raise MemoryError
            with nogil:
                self.nr_contents = find_contents(self.shares, self.nr, self.contents, self.machine.m.zero_pfn, self.now)
                qsort(self.contents, self.nr_contents, sizeof(content), compare_contents)
            free(self.now)
            self.now = NULL
        finally:
            self.busy = False

    def most(self, size_t number):
        """The contents that free most, as Shared."""
        cdef size_t i
        cdef share *s
        cdef content *c
        take(self)
        try:
            result = []
            for i in range(min(number, self.nr_contents)):
                s = self.shares + self.contents[i].first
                c = self.contents + i
                result.append(Shared(c.pages, c.frames, c.sources, s.source, s.addr, s.pfn, s.key))
            return result
        finally:
            self.busy = False

    def matrix(self, list groups not None, size_t nr):
        """Of groups of sources, rows[a][b]: how many pages of a have contents that b has, too; rows[a][a]: that another page of a has, too.

        `groups` has the group of each source, 0 to nr - 1, or -1 for none. ValueError.
        """
        cdef size_t i, a, b
        cdef uint64_t *here
        cdef uint64_t[::1] counts = new_array("Q", bytes(8 * (nr * nr + nr + 1)))
        cdef int[::1] group = self.groups_in(groups, nr)
        take(self)
        try:
            here = &counts[nr * nr]
            with nogil:
                for i in range(self.nr_contents):
                    memset(here, 0, nr * sizeof(uint64_t))
                    self.pages_of_groups(self.contents + i, group, here)
                    for a in range(nr):
                        if here[a]:
                            for b in range(nr):
                                if here[b] and (a != b or here[a] > 1):
                                    counts[a * nr + b] += here[a]
            return [[counts[a * nr + b] for b in range(nr)] for a in range(nr)]
        finally:
            self.busy = False

    def between(self, list groups not None, size_t nr):
        """The contents that several groups have, as arrays: (place of a source, address there, key of the contents, class) of each.

        The class is UNKNOWN where the machine does not keep bytes, but for zeros. ValueError.
        """
        cdef size_t i, n = 0
        cdef share *s
        cdef struct_machine *m
        cdef int form = class_forms()
        cdef int[::1] group = self.groups_in(groups, nr)
        cdef uint64_t[::1] here = new_array("Q", bytes(8 * (nr + 1)))
        cdef size_t most = self.nr_contents
        cdef unsigned int[::1] place
        cdef uint64_t[::1] addr, key
        cdef unsigned char[::1] kind
        take(self)
        try:
            places, addrs, keys, classes = (new_array(code, bytes(most * size)) for code, size in (("I", 4), ("Q", 8), ("Q", 8), ("B", 1)))
            place, addr, key, kind = places, addrs, keys, classes
            with nogil:
                self.machine.enter()
                m = self.machine.m
                mutex_lock(&m.hotplug_lock)
                for i in range(self.nr_contents):
                    if self.has_several(self.contents + i, group, &here[0], nr):
                        s = self.shares + self.contents[i].first
                        place[n] = s.source
                        addr[n] = s.addr
                        key[n] = s.key
                        if s.key == 0:
                            kind[n] = 0
                        elif has_bytes(m):
                            kind[n] = <unsigned char>page_class(<const char *>page_address(m, m.mem_map + s.pfn), form)
                        else:
                            kind[n] = NO_CLASS
                        n += 1
                mutex_unlock(&m.hotplug_lock)
                self.machine.leave()
            place, addr, key, kind = None, None, None, None
            for each in (places, addrs, keys, classes):
                del each[n:]
            return places, addrs, keys, classes
        finally:
            self.busy = False

    def by_class(self, list groups not None, size_t nr, const unsigned char[::1] classes not None):
        """Contents that several groups have, by the classes that are known by now: a dictionary of class: (contents, pages, pages of each
        group, frames that are kept for one group and would be needed by each). `classes` are in the order of between(). ValueError.
        """
        cdef size_t i, k, a, n = 0
        cdef int[::1] group = self.groups_in(groups, nr)
        cdef uint64_t[::1] here = new_array("Q", bytes(8 * (nr + 1)))
        cdef uint64_t *counts = <uint64_t *>calloc(256 * (nr + 2), sizeof(uint64_t))
        take(self)
        try:
            if counts == NULL:
                raise MemoryError
            try:
                for i in range(self.nr_contents):
                    k = self.has_several(self.contents + i, group, &here[0], nr)
                    if not k:
                        continue
                    if n >= <size_t>classes.shape[0]:
                        raise ValueError("each content has a class")
                    for a in range(nr):
                        counts[classes[n] * (nr + 2) + a] += here[a]
                    counts[classes[n] * (nr + 2) + nr] += 1
                    counts[classes[n] * (nr + 2) + nr + 1] += k - 1
                    n += 1
                result = {}
                for k in range(256):
                    here_too = [counts[k * (nr + 2) + a] for a in range(nr)]
                    if any(here_too):
                        result[k] = (counts[k * (nr + 2) + nr], sum(here_too), here_too, counts[k * (nr + 2) + nr + 1])
                return result
            finally:
                free(counts)
        finally:
            self.busy = False

    cdef size_t has_several(self, content *c, const int[::1] group, uint64_t *here, size_t nr) noexcept nogil:
        """How many groups have the content, if several have; `here` gets the pages of each."""
        cdef size_t a, several = 0
        memset(here, 0, nr * sizeof(uint64_t))
        if c.sources < 2:
            return 0
        self.pages_of_groups(c, group, here)
        for a in range(nr):
            several += here[a] != 0
        return several if several > 1 else 0

    cdef void pages_of_groups(self, content *c, const int[::1] group, uint64_t *here) noexcept nogil:
        cdef size_t k
        for k in range(c.first, c.end):
            if group[self.shares[k].source] >= 0:
                here[group[self.shares[k].source]] += self.shares[k].pages

    cdef object groups_in(self, list groups, size_t nr):
        if self.contents == NULL:
            raise ValueError("done() comes first")
        if <size_t>len(groups) != self.nr_sources or not all(-1 <= group < <Py_ssize_t>nr for group in groups):
            raise ValueError(f"each source has a group: -1 to {nr - 1}")
        return new_array("i", groups or [-1])


@cython.critical_section
cdef int take(Shares shares) except -1:
    """The shares are this thread's, until it says that they are not busy."""
    if shares.busy:
        raise RuntimeError("another thread uses these shares")
    shares.busy = True
    return 0


cdef void find_keys(struct_machine *m, share *shares, size_t nr) noexcept nogil:
    """The beginning of the fingerprint of each frame. That of a page of zeros is 0."""
    cdef frame_maker maker
    cdef ksm_frame[64] made
    cdef ksm_frame *frames[AT_ONCE]
    cdef const char *pages[AT_ONCE]
    cdef size_t i = 0
    cdef int some, k
    if not has_bytes(m):
        for i in range(nr):
            memcpy(&shares[i].key, page_address(m, m.mem_map + shares[i].pfn), sizeof(uint64_t))
        return
    frame_maker_init(&maker, False, NULL)
    while i < nr:
        some = <int>min(nr - i, <size_t>AT_ONCE)
        for k in range(some):
            frames[k] = &made[k]
            pages[k] = <const char *>page_address(m, m.mem_map + shares[i + k].pfn)
        make_fingerprints(&maker, pages, frames, some)
        for k in range(some):
            memcpy(&shares[i + k].key, made[k].fingerprint, sizeof(uint64_t))
        i += some


cdef size_t find_contents(const share *shares, size_t nr, content *contents, unsigned long zero_pfn, uint32_t *seen) noexcept nogil:
    """Shares with one key are one content. They are in the order of compare_shares(). `seen` is 0 for each frame."""
    cdef size_t i = 0, k, n = 0
    cdef content *c
    while i < nr:
        c = contents + n
        c.first = i
        for k in range(i, nr):
            if shares[k].key != shares[i].key:
                break
            c.end = k + 1
            c.pages += shares[k].pages
            c.sources += k == i or shares[k].source != shares[k - 1].source
            c.frames += not seen[shares[k].pfn] and shares[k].pfn != zero_pfn
            seen[shares[k].pfn] = 1
        c.freed = c.pages - c.frames
        i = c.end
        n += 1
    return n


cdef int compare_shares(const void *left, const void *right) noexcept nogil:
    cdef const share *a = <const share *>left
    cdef const share *b = <const share *>right
    if a.key != b.key:
        return -1 if a.key < b.key else 1
    if a.source != b.source:
        return -1 if a.source < b.source else 1
    return (a.pfn > b.pfn) - (a.pfn < b.pfn)


cdef int compare_contents(const void *left, const void *right) noexcept nogil:
    cdef const content *a = <const content *>left
    cdef const content *b = <const content *>right
    if a.freed != b.freed:
        return -1 if a.freed > b.freed else 1
    return (a.first > b.first) - (a.first < b.first)

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what the pages of a benchmark hold.
"""Memory for benchmarks: the same bytes for the port, for the kernel and for Python, made page by page and never stored."""

from libc.stdint cimport uint64_t
from libc.string cimport memset

from linux.mm_types cimport PAGE_SIZE

cdef enum:
    UNIQUE
    GROUPS      # half of the pages are in groups of equal ones
    ZERO        # seven pages of eight hold zeros
    IDENTICAL
    LAST        # equal up to the last 8 bytes
    SPARSE      # zeros, and 8 bytes somewhere
    REAL

    WORDS = 512

# Name: how the pages are made, and how many equal pages a group has
WORKLOADS = {
    "unique": (UNIQUE, 1), "pairs": (GROUPS, 2), "groups of 8": (GROUPS, 8), "groups of 256": (GROUPS, 256),
    "volatile": (UNIQUE, 1), "zero": (ZERO, 1), "identical": (IDENTICAL, 1), "last bytes": (LAST, 1), "sparse": (SPARSE, 1),
    "real": (REAL, 3),
}

cdef enum:
    STEP = 2654435761       # a prime above any number of pages: i * STEP modulo that number visits each page once


cdef inline uint64_t mixed(uint64_t x) noexcept nogil:
    """A bijection that leaves no pattern: the end of splitmix64."""
    x = (x ^ (x >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * <uint64_t>0x94D049BB133111EB
    return x ^ (x >> 31)


cdef void random_page(uint64_t *page, uint64_t state) noexcept nogil:
    cdef int i
    for i in range(WORDS):
        page[i] = mixed(state + <uint64_t>i * <uint64_t>0x9E3779B97F4A7C15)


cdef void heap_page(uint64_t *page, uint64_t state) noexcept nogil:
    """A page of objects: pointers into few regions, small numbers, zeros, short texts."""
    cdef uint64_t x
    cdef int i
    for i in range(WORDS):
        x = mixed(state + i)
        if x & 7 < 2:
            page[i] = <uint64_t>0x00007f0000000000 | ((x >> 8) & 0x3ffffff0)
        elif x & 7 < 5:
            page[i] = 0
        elif x & 7 < 7:
            page[i] = (x >> 8) & 0xff
        else:
            page[i] = <uint64_t>0x6168206369747265 ^ ((x >> 8) & 0x0f0f0f0f)


cdef void sparse_page(uint64_t *page, uint64_t state) noexcept nogil:
    """A page of zeros with a few other words. In half of such pages the first word is one of them."""
    cdef int i
    memset(page, 0, PAGE_SIZE)
    for i in range(1, 25):
        page[mixed(state + i) % WORDS] = mixed(state ^ i) >> 40
    page[WORDS - 1 - state % 64] = state
    page[0] = state >> 32 & 0xff if state & 1024 else 0


cdef void text_page(uint64_t *page, uint64_t state) noexcept nogil:
    """A page of text: each word is one of 512."""
    cdef int i
    for i in range(WORDS):
        page[i] = (mixed(mixed(state + i) & 511) & <uint64_t>0x0707070707070707) | <uint64_t>0x2068606078706860


cdef void real_page(uint64_t *page, uint64_t state) noexcept nogil:
    """A page of a mix like real memory: six pages of ten begin with a word that begins more than 16 others; three of ten words are unique.

    The model is 123,000 pages of anonymous memory of running programs: 61 % and 31 %, and a word of zeros in 18 %.
    """
    cdef uint64_t kind = state % 10
    if kind < 4:
        heap_page(page, state)
    elif kind < 6:
        sparse_page(page, state)
    elif kind < 8:
        text_page(page, state)
    else:
        random_page(page, state)


cdef uint64_t content_of(int how, uint64_t group, uint64_t place, uint64_t total) noexcept nogil:
    """The number of a page's contents, 0 for zeros. Pages with the same number are equal."""
    cdef uint64_t i = place * STEP % total
    if how == GROUPS:
        # The pages of an incomplete last group are unique.
        return 1 + (i // group if i < total // 2 // group * group else total + i)
    if how == ZERO:
        return 0 if i % 8 else 1 + i
    if how == IDENTICAL:
        return 1
    if how == REAL:
        # A tenth of the pages are zeros, a fifth are there three times (equal pages of several programs), the rest are unique
        if i < total // 10:
            return 0
        i -= total // 10
        return 1 + (i // group if i < total // 5 // group * group else total + i)
    return 1 + i


def fill(unsigned char[::1] memory not None, name, unsigned long first=0, total=None, uint64_t seed=0):
    """Write the pages of a workload of `total` pages into memory, from number `first` on. With another seed all pages are different ones.

    By default total is the pages in memory. KeyError for a name that is not in WORKLOADS, ValueError for memory that is not whole pages.
    """
    cdef int how = WORKLOADS[name][0]
    cdef uint64_t group = WORKLOADS[name][1], content, state
    cdef unsigned long i, count = memory.shape[0] // PAGE_SIZE, pages = count if total is None else total
    cdef uint64_t *page
    if memory.shape[0] % PAGE_SIZE or not 0 < count <= pages or first > pages - count or pages >= 1 << 31:
        raise ValueError("memory has to be whole pages, and all of them pages of the workload")
    with nogil:
        for i in range(count):
            page = <uint64_t *>&memory[i * PAGE_SIZE]
            content = content_of(how, group, first + i, pages)
            state = mixed(content + (seed << 40))
            if content == 0:
                memset(page, 0, PAGE_SIZE)
            elif how == LAST:
                random_page(page, seed)
                page[WORDS - 1] = state
            elif how == SPARSE:
                memset(page, 0, PAGE_SIZE)
                page[mixed(state) % WORDS] = state
            elif how == REAL:
                real_page(page, state)
            else:
                random_page(page, state)


def duplicates(name, unsigned long first, unsigned long count, unsigned long total):
    """How many of these pages have an equal one somewhere."""
    cdef int how = WORKLOADS[name][0]
    cdef uint64_t group = WORKLOADS[name][1], i
    cdef unsigned long place, found = 0
    for place in range(first, first + count):
        i = place * STEP % total
        if how == GROUPS:
            found += i < total // 2 // group * group
        elif how == ZERO:
            found += i % 8 != 0
        elif how == IDENTICAL:
            found += 1
        elif how == REAL:
            found += i < total // 10 + total // 5 // group * group
    return found


def read_once(const unsigned char[::1] memory not None):
    """Read every byte, and do no more with it than the compiler needs to read it."""
    cdef const uint64_t *word = <const uint64_t *>&memory[0]
    cdef unsigned long i, words = memory.shape[0] // 8
    cdef uint64_t a = 0, b = 0, c = 0, d = 0
    with nogil:
        for i in range(0, words & ~<unsigned long>3, 4):
            a ^= word[i]
            b ^= word[i + 1]
            c ^= word[i + 2]
            d ^= word[i + 3]
    return a ^ b ^ c ^ d


def touch(unsigned char[::1] memory not None):
    """Write the first byte of every page with its own value."""
    cdef unsigned long i
    cdef volatile unsigned char *page
    with nogil:
        for i in range(memory.shape[0] // <unsigned long>PAGE_SIZE):
            page = &memory[i * PAGE_SIZE]
            page[0] = page[0]

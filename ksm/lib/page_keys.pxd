# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: short keys that order pages as memcmp() does. See page_keys.pyx.

from libc.stdint cimport uint32_t, uint64_t


cdef enum:
    KEY_BITS = 46
    PAGE_WORDS = 512

cdef struct page_sample:
    const char *bytes
    int words

cdef struct key_word:
    uint64_t word               # as a number that memcmp() would order it by
    uint32_t place              # of the gap before it; its own place is the next one, if it has no branch
    uint32_t branch             # where pages that hold it part again; 0 if they do not

cdef struct key_branch:
    uint32_t place              # of pages below the words that all samples here have in common
    uint32_t common             # these words, in key_book.common: those from `start` on, before `at`
    uint32_t words              # the first of nr key_words, sorted; one more has the place of the last gap
    uint32_t nr
    int start
    int at

cdef struct key_book:
    key_branch *branches
    key_word *words
    uint64_t *common
    uint32_t nr_branches
    uint32_t nr_words
    uint32_t nr_common
    int place_bits
    bint failed

cdef uint64_t page_key_in(const key_book *book, const char *page, int words) noexcept nogil
cdef void sort_samples(page_sample *samples, unsigned int nr) noexcept nogil
cdef key_book *key_book_make(const page_sample *sorted_samples, unsigned int nr) noexcept nogil
cdef void key_book_free(key_book *book) noexcept nogil
cdef unsigned int count_ties(const key_book *book, const page_sample *sorted_samples, unsigned int nr,
                             unsigned int *distinct) noexcept nogil

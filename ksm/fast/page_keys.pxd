# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: short keys that order pages as memcmp() does. See page_keys.pyx.

from libc.stdint cimport uint32_t, uint64_t


cdef enum:
    KEY_BITS = 46
    PAGE_WORDS = 512
    KEYS_AT_ONCE = 64

cdef struct page_sample:
    const char *bytes
    int words

cdef struct key_branch:
    uint32_t place              # of pages below the words that all samples here have in common
    uint32_t words              # where the nr words are listed by which they part, sorted; behind them stands what is above all
    uint32_t nr
    uint32_t samples
    const char *last            # of them; only while the book is made
    int start                   # the words in common are those from here on,
    int at                      # before this one

cdef struct key_path:           # from a branch to where most samples go, and on
    uint32_t branches           # in key_book.on_path: nr_branches of them
    uint32_t nr_branches
    uint32_t words              # in key_book.path_words: those that a page holds that goes all the way
    int start                   # from this word on,
    int end                     # before this one, in which the last branch parts

cdef struct key_book:
    key_branch *branches
    uint64_t *words             # as numbers that are ordered as memcmp() orders the words
    uint32_t *places            # of the gap before a word; its own place is the next one, if it has no branch
    uint32_t *onward            # the path that begins with this word; while the book is made, the branch; 0 if there is none
    key_path *paths
    uint32_t *on_path
    uint64_t *path_words        # as they lie in memory
    uint32_t nr_branches
    uint32_t nr_words
    uint32_t nr_paths
    uint32_t nr_on_path
    uint32_t nr_path_words
    int place_bits
    bint failed

cdef uint64_t page_key_in(const key_book *book, const char *page, int words) noexcept nogil
cdef void page_keys_in(const key_book *book, const char **pages, uint64_t *keys, int nr, int words) noexcept nogil
cdef void sort_samples(page_sample *samples, unsigned int nr) noexcept nogil
cdef key_book *key_book_make(const page_sample *sorted_samples, unsigned int nr) noexcept nogil
cdef void key_book_free(key_book *book) noexcept nogil
cdef unsigned int count_ties(const key_book *book, const page_sample *sorted_samples, unsigned int nr,
                             unsigned int *distinct) noexcept nogil

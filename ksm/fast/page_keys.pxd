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
    uint32_t place              # place of pages that are less than the words in common
    uint32_t words              # index of the nr words by which the samples part, sorted; a word above them all follows
    uint32_t nr
    uint32_t samples
    const char *last            # the last sample; only while the book is made
    int start                   # the words in common begin here,
    int at                      # and end before this one

cdef struct key_path:           # the way that most samples go, from a branch on
    uint32_t branches           # index of the nr_branches branches in key_book.on_path
    uint32_t nr_branches
    uint32_t words              # index in key_book.path_words of the words that a page on the whole path has
    int start                   # the words begin here,
    int end                     # and end before this one, at which the last branch parts

cdef struct key_book:
    key_branch *branches
    uint64_t *words             # as numbers, ordered as memcmp() orders the words
    uint32_t *places            # the place of the gap before a word; the word's own place is the next one, if it leads to no branch
    uint32_t *onward            # the path that begins with this word (while the book is made: the branch), or 0
    key_path *paths
    uint32_t *on_path
    uint64_t *path_words        # in the byte order of memory
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

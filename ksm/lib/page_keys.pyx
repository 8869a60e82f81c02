# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: short keys that order pages as memcmp() does.
"""How a page compares, in 46 bits: of two pages whose keys differ, the one with the greater key is the greater one for memcmp().

A page is taken as 512 words of 8 bytes, each a number that is ordered as its bytes are. Without a book, a key says how many words of
zeros come first, and the first 40 bits after them. Real pages often begin alike, and then such keys are often the same.

A book is made from samples. It is a tree of branches: at each, the samples that came there have some words in common, and part in the
word after them. The words that they hold there are listed. A page is led through the tree as long as it holds the same words as
some samples, and ends in a place: at a listed word, in the gap between two of them, or below or above the words in common. Places are
numbered in the order of the pages that end there, and a key is the number of the place, and, in the bits that are left, where in the
gap the page lies, or how it goes on. So keys have few bits for what most pages share, and many where pages differ, be that in their
last word.

Any samples make a right book; good ones make one that tells most pages apart. Key 0 is nobody's.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memcmp


cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static inline uint64_t ksm_word_at(const char *page, int number)
    {
        uint64_t v;
        memcpy(&v, page + 8 * number, 8);
    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        v = __builtin_bswap64(v);
    #endif
        return v;
    }
    #define ksm_width(v) ((v) ? 64 - __builtin_clzll(v) : 0)
    """
    uint64_t word_at "ksm_word_at"(const char *page, int number) noexcept nogil
    int width "ksm_width"(uint64_t v) noexcept nogil


cdef enum:
    ZERO_WORDS = 62             # as many are counted
    MOST_PLACES = 1 << 20
    DEPTH_BITS = 6


cdef inline uint64_t beginning(const char *page, int at, int words) noexcept nogil:
    """The words from `at` on, without a book: fewer zeros ahead are more."""
    cdef int first = at, last = words if words - at < ZERO_WORDS else at + ZERO_WORDS
    cdef uint64_t v = 0
    while at < last:
        v = word_at(page, at)
        if v:
            break
        at += 1
    if at == last:
        v = word_at(page, at) if at < words else 0
    return <uint64_t>(ZERO_WORDS + 1 - (at - first)) << 40 | v >> 24


cdef inline uint64_t off_the_way(const key_branch *branch, const char *page, int number, bint above, int bits) noexcept nogil:
    """In `bits` bits, a page that differs from the words in common in this one. The later it does, the nearer it is to them."""
    cdef uint64_t depth = number - branch.start
    cdef uint64_t more
    cdef int room = bits - DEPTH_BITS
    if depth >= 63:
        return (0 if above else <uint64_t>63) << room
    more = word_at(page, number) >> (64 - room)
    return ((63 - depth) if above else depth) << room | more


cdef inline uint64_t book_key(const key_book *book, const char *page, int words) noexcept nogil:
    cdef const key_branch *branch = book.branches
    cdef const key_word *listed
    cdef const uint64_t *common
    cdef uint64_t word, low, high
    cdef uint32_t first, half, nr
    cdef int number, bits = KEY_BITS - book.place_bits, room
    while True:
        number = branch.start
        if branch.at >= words:
            return 0
        if number < branch.at:
            common = book.common + branch.common - number
            while number < branch.at and word_at(page, number) == common[number]:
                number += 1
            if number < branch.at:
                if word_at(page, number) < common[number]:
                    return <uint64_t>branch.place << bits | off_the_way(branch, page, number, False, bits)
                return <uint64_t>(book.words[branch.words + branch.nr].place + 1) << bits | off_the_way(branch, page, number, True, bits)
        word = word_at(page, number)
        listed = book.words + branch.words
        # The first that is not less
        first = 0
        nr = branch.nr
        while nr:
            half = nr >> 1
            if listed[first + half].word < word:
                first += half + 1
                nr -= half + 1
            else:
                nr = half
        if first == branch.nr or listed[first].word != word:
            break
        if not listed[first].branch:
            return <uint64_t>(listed[first].place + 1) << bits | beginning(page, number + 1, words) >> (KEY_BITS - bits)
        branch = book.branches + listed[first].branch
    low = listed[first - 1].word if first else 0
    high = listed[first].word if first < branch.nr else ~<uint64_t>0
    room = bits - width(high - low)
    word -= low
    if room <= 0:
        word >>= -room
    else:
        word = word << room | beginning(page, number + 1, words) >> (KEY_BITS - room)
    return <uint64_t>listed[first].place << bits | word


cdef uint64_t page_key_in(const key_book *book, const char *page, int words) noexcept nogil:
    """The key of a page of which so many words are there; 0 where these are too few to tell. NULL: without a book."""
    return book_key(book, page, words) if book != NULL else beginning(page, 0, words)


# Making a book

cdef int compare_samples(const void *a, const void *b) noexcept nogil:
    """One that is the beginning of the other comes first."""
    cdef const page_sample *left = <const page_sample *>a
    cdef const page_sample *right = <const page_sample *>b
    cdef int answer = memcmp(left.bytes, right.bytes, 8 * (left.words if left.words < right.words else right.words))
    return answer if answer else left.words - right.words


cdef void sort_samples(page_sample *samples, unsigned int nr) noexcept nogil:
    qsort(samples, nr, sizeof(page_sample), &compare_samples)


cdef inline int same_words(const char *a, const char *b, int number, int words) noexcept nogil:
    """The number of the first word that differs, looked for from `number` on."""
    while number < words and word_at(a, number) == word_at(b, number):
        number += 1
    return number


cdef void *longer(void *array, uint32_t have, uint32_t more, size_t size) noexcept nogil:
    """Room for `more` behind the `have` that there are: arrays are as long as the next power of 2. NULL without memory; array is kept."""
    cdef uint32_t room = 1 << width(have - 1) if have else 0, wanted = have + more
    if wanted <= room:
        return array
    return realloc(array, <size_t>(1 << width(wanted - 1)) * size)


cdef key_branch *add_branch(key_book *book, uint32_t nr_common, uint32_t nr_words) noexcept nogil:
    """Room for one more, with its words; NULL without memory."""
    cdef void *branches = longer(book.branches, book.nr_branches, 1, sizeof(key_branch))
    cdef void *common
    cdef void *words
    if branches != NULL:
        book.branches = <key_branch *>branches
    common = longer(book.common, book.nr_common, nr_common, sizeof(uint64_t))
    if common != NULL:
        book.common = <uint64_t *>common
    words = longer(book.words, book.nr_words, nr_words, sizeof(key_word))
    if words != NULL:
        book.words = <key_word *>words
    if branches == NULL or common == NULL and nr_common or words == NULL:
        book.failed = True
        return NULL
    book.nr_branches += 1
    book.nr_common += nr_common
    book.nr_words += nr_words
    return &book.branches[book.nr_branches - 1]


cdef unsigned int with_same_word(const page_sample *samples, unsigned int first, unsigned int end, int at) noexcept nogil:
    """Where the next word begins."""
    cdef unsigned int i = first + 1
    cdef uint64_t word = word_at(samples[first].bytes, at)
    while i < end and word_at(samples[i].bytes, at) == word:
        i += 1
    return i


cdef uint32_t make_branch(key_book *book, const page_sample *samples, unsigned int first, unsigned int end, int start,
                          uint32_t place) noexcept nogil:
    """A branch for samples that are the same up to `start`, and those below it. Returns the first place after them, or 0 if there is
    none to make: no two samples differ."""
    cdef uint32_t words, common, after, below
    cdef unsigned int i, following, nr = 0
    cdef int at = start, k
    cdef key_branch *branch
    cdef const char *last = samples[end - 1].bytes
    while True:
        # Who has ended here says nothing more.
        while first < end and samples[first].words <= at:
            first += 1
        if first == end:
            return 0
        at = same_words(samples[first].bytes, last, at, min(samples[first].words, samples[end - 1].words))
        if at < samples[first].words:
            break
    i = first
    while i < end:
        i = with_same_word(samples, i, end, at)
        nr += 1
    common = book.nr_common
    words = book.nr_words
    branch = add_branch(book, at - start, nr + 1)
    if branch == NULL:
        return 0
    branch.place = place
    branch.common = common
    branch.words = words
    branch.nr = nr
    branch.start = start
    branch.at = at
    for k in range(start, at):
        book.common[common + k - start] = word_at(last, k)
    place += 1
    nr = 0
    i = first
    while i < end:
        following = with_same_word(samples, i, end, at)
        book.words[words + nr].word = word_at(samples[i].bytes, at)
        book.words[words + nr].place = place
        book.words[words + nr].branch = 0
        below = book.nr_branches
        after = make_branch(book, samples, i, following, at + 1, place + 1) if following - i > 1 else 0
        if after:
            book.words[words + nr].branch = below
        place = after if after else place + 2
        nr += 1
        i = following
    book.words[words + nr].word = ~<uint64_t>0
    book.words[words + nr].place = place
    book.words[words + nr].branch = 0
    # The last gap, and what is above the words in common
    return place + 2


cdef key_book *key_book_make(const page_sample *sorted_samples, unsigned int nr) noexcept nogil:
    """A book from sorted samples; NULL if no two of them differ, or without memory."""
    cdef key_book *book = <key_book *>calloc(1, sizeof(key_book)) if nr else NULL
    cdef uint32_t places
    if book == NULL:
        return NULL
    places = make_branch(book, sorted_samples, 0, nr, 0, 1)
    if not places or book.failed or places > MOST_PLACES:
        key_book_free(book)
        return NULL
    book.place_bits = width(places)
    return book


cdef void key_book_free(key_book *book) noexcept nogil:
    if book != NULL:
        free(book.branches)
        free(book.words)
        free(book.common)
        free(book)


cdef unsigned int count_ties(const key_book *book, const page_sample *sorted_samples, unsigned int nr,
                             unsigned int *distinct) noexcept nogil:
    """How many of the samples that differ from the one before have its key; `distinct` is how many differ."""
    cdef const page_sample *sample
    cdef const page_sample *last = NULL
    cdef uint64_t key, before = 0
    cdef unsigned int i, ties = 0
    cdef int words
    distinct[0] = 0
    for i in range(nr):
        sample = &sorted_samples[i]
        key = page_key_in(book, sample.bytes, sample.words)
        words = min(sample.words, last.words) if last != NULL else 0
        if not words or memcmp(sample.bytes, last.bytes, 8 * words):
            distinct[0] += 1
            ties += key == before
        before = key
        last = sample
    return ties


# For tests

def keys(pages, samples=None):
    """The key of each page, under a book made from samples: bytes of whole words, 8 to 4096 bytes. None: without a book.

    With samples that do not differ there is no book, either. ValueError for a page that is not 4096 bytes.
    """
    cdef page_sample *sorted_samples = NULL
    cdef key_book *book = NULL
    cdef unsigned int nr = 0
    samples = list(samples or ())
    if any(len(page) != 8 * PAGE_WORDS for page in pages) or any(not 0 < len(each) <= 8 * PAGE_WORDS or len(each) % 8 for each in samples):
        raise ValueError("not pages, or not samples of pages")
    if samples:
        sorted_samples = <page_sample *>malloc(len(samples) * sizeof(page_sample))
        if sorted_samples == NULL:
            raise MemoryError
        for each in samples:
            sorted_samples[nr].bytes = <const char *><bytes>each
            sorted_samples[nr].words = <int>len(each) // 8
            nr += 1
        sort_samples(sorted_samples, nr)
        book = key_book_make(sorted_samples, nr)
        free(sorted_samples)
    found = [page_key_in(book, <const char *><bytes>page, PAGE_WORDS) for page in pages]
    key_book_free(book)
    return found

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: short keys that order pages as memcmp() does.
"""Keys: the order of pages in 46 bits. Of two pages whose keys differ, the page with the greater key is the greater one for memcmp().

A page is taken as 512 words of 8 bytes. Each word is a number that is ordered as its bytes are. Without a book, a key has the number of
leading words of zeros, and the first 40 bits after them. Real pages often begin alike, and such keys are then often the same.

A book is made from samples. It is a tree of branches. The samples that reach a branch have some words in common, and part in the word after
them. The branch lists the values of that word. A page goes down the tree as long as it has the same words as some samples. It ends in a
place: at a listed word, in the gap between two of them, or below or above the words in common. Places are numbered in the order of the
pages that end there. A key is the number of the place; the bits that are left say where in the gap the page lies, or how it goes on. So a
key spends few bits on what most pages share, and many on where pages differ, even in their last word.

A book from any samples orders pages correctly. A book from good samples tells most pages apart. No page has the key 0.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memcmp, memcpy


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
    #define ksm_prefetch_line(p) __builtin_prefetch(p)
    #define ksm_width(v) ((v) ? 64 - __builtin_clzll(v) : 0)
    """
    uint64_t word_at "ksm_word_at"(const char *page, int number) noexcept nogil
    void prefetch "ksm_prefetch_line"(const void *p) noexcept nogil
    int width "ksm_width"(uint64_t v) noexcept nogil


cdef enum:
    ZERO_WORDS = 62             # at most so many leading words of zeros are counted
    MOST_PLACES = 1 << 20
    DEPTH_BITS = 6
    BLOCK = 16                  # number of words compared at once


cdef inline int same_words(const char *a, const char *b, int number, int words) noexcept nogil:
    """The number of the first word that differs, looked for from `number` on."""
    while number < words and word_at(a, number) == word_at(b, number):
        number += 1
    return number


cdef inline uint64_t beginning(const char *page, int at, int words) noexcept nogil:
    """The key of the words from `at` on, without a book. Fewer leading zeros make it greater."""
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
    """`bits` bits for a page that differs from the words in common in word `number`. A page that differs later is nearer to those words."""
    cdef uint64_t depth = number - branch.start
    cdef uint64_t more
    cdef int room = bits - DEPTH_BITS
    if depth >= 63:
        return (0 if above else <uint64_t>63) << room
    more = word_at(page, number) >> (64 - room)
    return ((63 - depth) if above else depth) << room | more


cdef inline uint64_t at_word(const key_book *book, const key_branch *branch, uint32_t first, const char *page, uint64_t word,
                             int words) noexcept nogil:
    """The key of a page that ends at this branch, where it has `word`. Its place is at the listed word `first`, the first that is not less
    than `word`, or before it.
    """
    cdef const uint64_t *listed = book.words + branch.words
    cdef uint64_t place = book.places[branch.words + first], low, high
    cdef int bits = KEY_BITS - book.place_bits, room
    if first < branch.nr and listed[first] == word:
        return (place + 1) << bits | beginning(page, branch.at + 1, words) >> (KEY_BITS - bits)
    low = listed[first - 1] if first else 0
    high = listed[first] if first < branch.nr else ~<uint64_t>0
    room = bits - width(high - low)
    word -= low
    if room <= 0:
        word >>= -room
    else:
        word = word << room | beginning(page, branch.at + 1, words) >> (KEY_BITS - room)
    return place << bits | word


cdef inline const key_branch *leave_path(const key_book *book, const key_path *path, const char *page, int words,
                                         uint64_t *key) noexcept nogil:
    """The branch where a page leaves the path, or where the path ends; *key is the page's word there. NULL if the page leaves the path
    between two branches; *key is then its key, or 0 if words are missing.
    """
    cdef const char *common = <const char *>(book.path_words + path.words - path.start)
    cdef const uint32_t *on_path = book.on_path + path.branches
    cdef const key_branch *branch
    cdef uint32_t first = 0, half, left = path.nr_branches
    cdef int at = path.start, end = min(path.end, words), bits = KEY_BITS - book.place_bits
    while at + BLOCK <= end and memcmp(page + 8 * at, common + 8 * at, 8 * BLOCK) == 0:
        at += BLOCK
    at = same_words(page, common, at, end)
    if at == words:
        key[0] = 0
        return NULL
    key[0] = word_at(page, at)
    # Find the first branch that is not before this word.
    while left > 1:
        half = left >> 1
        first += half if book.branches[on_path[first + half - 1]].at < at else 0
        left -= half
    branch = book.branches + on_path[first]
    if branch.at == at:
        return branch
    if key[0] < word_at(common, at):
        key[0] = <uint64_t>branch.place << bits | off_the_way(branch, page, at, False, bits)
    else:
        key[0] = <uint64_t>(book.places[branch.words + branch.nr] + 1) << bits | off_the_way(branch, page, at, True, bits)
    return NULL


cdef struct seeker:
    int number                  # of the page
    const key_path *path
    const key_branch *branch
    const uint64_t *listed
    uint32_t first              # the first listed word that is not less, as far as the search has come
    uint32_t left


cdef void page_keys_in(const key_book *book, const char **pages, uint64_t *keys, int nr, int words) noexcept nogil:
    """The keys of `nr` pages, KEYS_AT_ONCE at most, of which the first `words` words are given. A key is 0 if these words are too few.

    book may be NULL. All pages take their steps together, so that their memory accesses overlap.
    """
    cdef seeker seekers[KEYS_AT_ONCE]
    cdef seeker *seeker
    cdef uint32_t half, longest, at
    cdef int i, going, arrived
    if book == NULL:
        for i in range(nr):
            keys[i] = beginning(pages[i], 0, words)
        return
    for i in range(nr):
        seekers[i].number = i
        seekers[i].path = book.paths
    going = nr
    while going:
        for i in range(going):
            prefetch(&book.path_words[seekers[i].path.words])
            prefetch(&book.on_path[seekers[i].path.branches])
        arrived = 0
        longest = 0
        for i in range(going):
            seeker = &seekers[arrived]
            seeker[0] = seekers[i]
            seeker.branch = leave_path(book, seeker.path, pages[seeker.number], words, &keys[seeker.number])
            if seeker.branch != NULL:
                seeker.listed = book.words + seeker.branch.words
                seeker.first = 0
                seeker.left = seeker.branch.nr
                longest = max(longest, seeker.left)
                arrived += 1
        # This loop has no branches, which would be mispredicted.
        while longest > 1:
            for i in range(arrived):
                seeker = &seekers[i]
                half = seeker.left >> 1
                at = seeker.first + half - (half != 0)
                seeker.first += -<uint32_t>(seeker.listed[at] < keys[seeker.number]) & half
                seeker.left -= half
            longest -= longest >> 1
        for i in range(arrived):
            seeker = &seekers[i]
            seeker.first += seeker.listed[seeker.first] < keys[seeker.number]
            prefetch(&book.onward[seeker.branch.words + seeker.first])
            prefetch(&book.places[seeker.branch.words + seeker.first])
        going = 0
        for i in range(arrived):
            seeker = &seekers[i]
            at = book.onward[seeker.branch.words + seeker.first]
            if at and seeker.listed[seeker.first] == keys[seeker.number]:
                seekers[going].number = seeker.number
                seekers[going].path = book.paths + at
                prefetch(seekers[going].path)
                going += 1
            else:
                keys[seeker.number] = at_word(book, seeker.branch, seeker.first, pages[seeker.number], keys[seeker.number], words)


cdef uint64_t page_key_in(const key_book *book, const char *page, int words) noexcept nogil:
    cdef uint64_t key
    page_keys_in(book, &page, &key, 1, words)
    return key


# Making a book

cdef int compare_samples(const void *a, const void *b) noexcept nogil:
    """Order two samples. A sample that is the beginning of the other comes first."""
    cdef const page_sample *left = <const page_sample *>a
    cdef const page_sample *right = <const page_sample *>b
    cdef int answer = memcmp(left.bytes, right.bytes, 8 * (left.words if left.words < right.words else right.words))
    return answer if answer else left.words - right.words


cdef void sort_samples(page_sample *samples, unsigned int nr) noexcept nogil:
    qsort(samples, nr, sizeof(page_sample), &compare_samples)


cdef void *longer(void *array, uint32_t have, uint32_t more, size_t size) noexcept nogil:
    """Make room for `more` elements after the `have` there are. Arrays are as long as the next power of 2. NULL without memory; array is
    kept then.
    """
    cdef uint32_t room = 1 << width(have - 1) if have else 0, wanted = have + more
    if wanted <= room:
        return array
    return realloc(array, <size_t>(1 << width(wanted - 1)) * size)


cdef key_branch *add_branch(key_book *book, uint32_t nr_words) noexcept nogil:
    """Make room for one more branch and its words; NULL without memory."""
    cdef void *branches = longer(book.branches, book.nr_branches, 1, sizeof(key_branch))
    cdef void *words = longer(book.words, book.nr_words, nr_words, sizeof(uint64_t))
    cdef void *places = longer(book.places, book.nr_words, nr_words, sizeof(uint32_t))
    cdef void *onward = longer(book.onward, book.nr_words, nr_words, sizeof(uint32_t))
    # The arrays that were moved must be noted even if another one could not grow.
    book.branches = <key_branch *>(branches if branches != NULL else book.branches)
    book.words = <uint64_t *>(words if words != NULL else book.words)
    book.places = <uint32_t *>(places if places != NULL else book.places)
    book.onward = <uint32_t *>(onward if onward != NULL else book.onward)
    if branches == NULL or words == NULL or places == NULL or onward == NULL:
        book.failed = True
        return NULL
    book.nr_branches += 1
    book.nr_words += nr_words
    return &book.branches[book.nr_branches - 1]


cdef unsigned int with_same_word(const page_sample *samples, unsigned int first, unsigned int end, int at) noexcept nogil:
    """The first sample after `first` with another word at `at`."""
    cdef unsigned int i = first + 1
    cdef uint64_t word = word_at(samples[first].bytes, at)
    while i < end and word_at(samples[i].bytes, at) == word:
        i += 1
    return i


cdef uint32_t make_branch(key_book *book, const page_sample *samples, unsigned int first, unsigned int end, int start,
                          uint32_t place) noexcept nogil:
    """Make a branch for samples that are the same up to `start`, and the branches below it. Returns the first place after them, or 0 if no
    two samples differ. It calls itself at most once for each word, which takes 64 KiB of stack.
    """
    cdef uint32_t words, after, below
    cdef unsigned int i, following, nr = 0
    cdef int at = start
    cdef key_branch *branch
    cdef const char *last = samples[end - 1].bytes
    while True:
        # Samples that end here have no word to compare.
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
    words = book.nr_words
    branch = add_branch(book, nr + 1)
    if branch == NULL:
        return 0
    branch.place = place
    branch.words = words
    branch.nr = nr
    branch.samples = end - first
    branch.start = start
    branch.at = at
    branch.last = last
    place += 1
    nr = 0
    i = first
    while i < end:
        following = with_same_word(samples, i, end, at)
        book.words[words + nr] = word_at(samples[i].bytes, at)
        book.places[words + nr] = place
        book.onward[words + nr] = 0
        below = book.nr_branches
        after = make_branch(book, samples, i, following, at + 1, place + 1) if following - i > 1 else 0
        if after:
            book.onward[words + nr] = below
        place = after if after else place + 2
        nr += 1
        i = following
    book.words[words + nr] = ~<uint64_t>0
    book.places[words + nr] = place
    book.onward[words + nr] = 0
    # Two places follow: the last gap, and the pages above the words in common.
    return place + 2


cdef uint32_t heaviest(const key_book *book, const key_branch *branch) noexcept nogil:
    """The number of the word that leads most samples to another branch; nr if no word does."""
    cdef uint32_t i, to, best = branch.nr, samples = 0
    for i in range(branch.nr):
        to = book.onward[branch.words + i]
        if to and book.branches[to].samples > samples:
            samples = book.branches[to].samples
            best = i
    return best


cdef bint make_path(key_book *book, uint32_t number) noexcept nogil:
    """Make a path that begins at this branch. False without memory."""
    cdef key_path *path
    cdef key_branch *branch = book.branches + number
    cdef uint32_t heavy
    cdef void *array = longer(book.paths, book.nr_paths, 1, sizeof(key_path))
    if array == NULL:
        return False
    book.paths = <key_path *>array
    path = book.paths + book.nr_paths
    book.nr_paths += 1
    path.branches = book.nr_on_path
    path.nr_branches = 0
    path.words = book.nr_path_words
    path.start = branch.start
    while True:
        array = longer(book.on_path, book.nr_on_path, 1, sizeof(uint32_t))
        if array == NULL:
            return False
        book.on_path = <uint32_t *>array
        book.on_path[book.nr_on_path] = <uint32_t>(branch - book.branches)
        book.nr_on_path += 1
        path.nr_branches += 1
        heavy = heaviest(book, branch)
        if heavy == branch.nr:
            break
        branch = book.branches + book.onward[branch.words + heavy]
    path.end = branch.at
    array = longer(book.path_words, book.nr_path_words, path.end - path.start, sizeof(uint64_t))
    if array == NULL and path.end > path.start:
        return False
    book.path_words = <uint64_t *>array
    if path.end > path.start:
        memcpy(book.path_words + book.nr_path_words, branch.last + 8 * path.start, 8 * (path.end - path.start))
    book.nr_path_words += path.end - path.start
    return True


cdef bint make_paths(key_book *book) noexcept nogil:
    """Make the paths, when all branches exist. A branch that is not on the way of most samples begins a path of its own."""
    cdef uint32_t number, i, k, heavy
    cdef key_branch *branch
    if not make_path(book, 0):
        return False
    number = 0
    while number < book.nr_on_path:
        branch = book.branches + book.on_path[number]
        heavy = heaviest(book, branch)
        for i in range(branch.nr):
            k = branch.words + i
            if book.onward[k]:
                if i != heavy and not make_path(book, book.onward[k]):
                    return False
                book.onward[k] = book.nr_paths - 1 if i != heavy else 0
        number += 1
    return True


cdef key_book *key_book_make(const page_sample *sorted_samples, unsigned int nr) noexcept nogil:
    """A book from sorted samples; NULL if no two of them differ, or without memory."""
    cdef key_book *book = <key_book *>calloc(1, sizeof(key_book)) if nr else NULL
    cdef uint32_t places
    if book == NULL:
        return NULL
    places = make_branch(book, sorted_samples, 0, nr, 0, 1)
    if not places or book.failed or places > MOST_PLACES or not make_paths(book):
        key_book_free(book)
        return NULL
    book.place_bits = width(places)
    return book


cdef void key_book_free(key_book *book) noexcept nogil:
    if book != NULL:
        free(book.branches)
        free(book.words)
        free(book.places)
        free(book.onward)
        free(book.paths)
        free(book.on_path)
        free(book.path_words)
        free(book)


cdef unsigned int count_ties(const key_book *book, const page_sample *sorted_samples, unsigned int nr,
                             unsigned int *distinct) noexcept nogil:
    """The number of samples that differ from the one before and have the same key. `distinct` is the number that differ."""
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
    cdef const char *part[KEYS_AT_ONCE]
    cdef uint64_t together[KEYS_AT_ONCE]
    cdef unsigned int nr = 0, i
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
    found = []
    for each in pages:
        part[len(found) % KEYS_AT_ONCE] = <const char *><bytes>each
        found.append(page_key_in(book, <const char *><bytes>each, PAGE_WORDS))
        if len(found) % KEYS_AT_ONCE == 0 or len(found) == len(pages):
            nr = (len(found) - 1) % KEYS_AT_ONCE + 1
            page_keys_in(book, part, together, nr, PAGE_WORDS)
            if found[len(found) - nr :] != [together[i] for i in range(nr)]:
                raise AssertionError("page_keys_in() and page_key_in() differ")
    key_book_free(book)
    return found

# SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
# No twin in the kernel: the checksums of many pages at once; xxhash_many.h says how.
"""xxh64 and jhash2 over whole pages, as many at once as the processor can."""

from libc.stdint cimport uint32_t, uint64_t

from linux.jhash cimport jhash2
from linux.mm_types cimport PAGE_SIZE
from linux.types cimport u32


cdef extern from "xxhash_many.h" nogil:
    const int MANY_BEST
    const int MANY_PLAIN
    const int MANY_AVX2
    const int MANY_AVX512
    const int MANY_PAGE
    int many_best() noexcept
    void many_xxh64(const void **pages, uint64_t *out, int count, int way) noexcept
    int many_jhash2(const void **pages, uint32_t *out, int count, uint32_t seed, int way) noexcept


cdef enum:
    JHASH_SEED = 17


cdef void xxh64_pages(const void **pages, uint64_t *out, int count) noexcept nogil:
    many_xxh64(pages, out, count, MANY_BEST)


cdef void jhash2_pages_as(const void **pages, uint32_t *out, int count, int way) noexcept nogil:
    cdef int i
    for i in range(many_jhash2(pages, out, count, JHASH_SEED, way), count):
        out[i] = jhash2(<const u32 *>pages[i], PAGE_SIZE // 4, JHASH_SEED)


cdef void jhash2_pages(const void **pages, uint32_t *out, int count) noexcept nogil:
    jhash2_pages_as(pages, out, count, MANY_BEST)


# For tests and benchmarks

WAYS = ("plain", "avx2", "avx512")[:many_best() + 1]    # those that this processor has; the last one is taken


def hash_pages(const unsigned char[::1] data, offsets, bint jhash=False, way=None):
    """The checksums of the pages that begin at these offsets in data, as integers: xxh64, or jhash2 with 17.

    way is one of WAYS; None is the best of them. IndexError for a page that is not all in data.
    """
    cdef const void *pages[256]
    cdef uint64_t sums[256]
    cdef uint32_t small[256]
    cdef int count = 0, how = MANY_BEST if way is None else WAYS.index(way)
    cdef Py_ssize_t offset
    if len(offsets) > 256:
        raise ValueError("256 pages at most")
    for offset in offsets:
        if not 0 <= offset <= data.shape[0] - MANY_PAGE:
            raise IndexError("not in data")
        pages[count] = &data[offset]
        count += 1
    with nogil:
        if jhash:
            jhash2_pages_as(pages, small, count, how)
        else:
            many_xxh64(pages, sums, count, how)
    return [small[i] if jhash else sums[i] for i in range(count)]

# SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
# No twin in the kernel: the checksums of many pages at once; xxhash_many.h says how.
"""xxh64 over whole pages, as many at once as the processor can."""

from libc.stdint cimport uint64_t


cdef extern from "xxhash_many.h" nogil:
    const int MANY_BEST
    const int MANY_PLAIN
    const int MANY_AVX2
    const int MANY_AVX512
    const int MANY_PAGE
    int many_best() noexcept
    void many_xxh64(const void **pages, uint64_t *out, int count, int way) noexcept


cdef void xxh64_pages(const void **pages, uint64_t *out, int count) noexcept nogil:
    many_xxh64(pages, out, count, MANY_BEST)


# For tests and benchmarks

WAYS = ("plain", "avx2", "avx512")[:many_best() + 1]    # those that this processor has; the last one is taken


def hash_pages(const unsigned char[::1] data, offsets, way=None):
    """The checksums of the pages that begin at these offsets in data, as integers: xxh64.

    way is one of WAYS; None is the best of them. IndexError for a page that is not all in data.
    """
    cdef const void *pages[256]
    cdef uint64_t sums[256]
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
        many_xxh64(pages, sums, count, how)
    return [sums[i] for i in range(count)]

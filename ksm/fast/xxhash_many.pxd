# SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
# No twin in the kernel: the checksums of many pages at once.

from libc.stdint cimport uint64_t


# xxh64() of `count` whole pages with seed 0; out[i] is the checksum of page i. The pages may stand anywhere, and be the same one. While one
# group of eight is hashed, the next is fetched from memory, so one call with 16 pages is faster than two calls with 8. More than 64 pages
# gain nothing more. Any count is allowed, also 0.
cdef void xxh64_pages(const void **pages, uint64_t *out, int count) noexcept nogil

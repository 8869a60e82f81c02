# SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
# Follows include/linux/xxhash.h of Linux 6.12. Not in include/: xxhash() calls this module, and headers import nothing from ksm/.
#
# xxHash is by Yann Collet, copyright (C) 2012-2016.

from libc.stdint cimport uint64_t

cdef uint64_t xxh64(const void *input, size_t length, uint64_t seed) noexcept nogil


# The hash as wide as a machine word: xxh64(), with BITS_PER_LONG 64.
cdef inline unsigned long xxhash(const void *input, size_t length, uint64_t seed) noexcept nogil:
    return xxh64(input, length, seed)

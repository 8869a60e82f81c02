# SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
# Follows lib/xxhash.c of Linux 6.12.
#
# xxHash is by Yann Collet, copyright (C) 2012-2016; LICENSES/BSD-2-Clause.txt has the terms.
"""The checksum of KSM: xxh64 over bytes in one piece."""

from libc.stdint cimport uint8_t, uint64_t

from linux.unaligned cimport get_unaligned_le32, get_unaligned_le64


cdef extern from *:
    """
    #define PRIME64_1 11400714785074694791ULL
    #define PRIME64_2 14029467366897019727ULL
    #define PRIME64_3 1609587929392839161ULL
    #define PRIME64_4 9650029242287828579ULL
    #define PRIME64_5 2870177450012600261ULL
    """
    const uint64_t PRIME64_1
    const uint64_t PRIME64_2
    const uint64_t PRIME64_3
    const uint64_t PRIME64_4
    const uint64_t PRIME64_5


cdef inline uint64_t xxh_rotl64(uint64_t x, int r) noexcept nogil:
    return (x << r) | (x >> (64 - r))


# xxh32_copy_state(), xxh64_copy_state(): left out with the states, below.
# xxh32_round(), xxh32(): left out, xxhash() takes the 64-bit form on every machine that this runs on.


cdef inline uint64_t xxh64_round(uint64_t acc, uint64_t input) noexcept nogil:
    acc += input * PRIME64_2
    acc = xxh_rotl64(acc, 31)
    acc *= PRIME64_1
    return acc


cdef inline uint64_t xxh64_merge_round(uint64_t acc, uint64_t val) noexcept nogil:
    val = xxh64_round(0, val)
    acc ^= val
    acc = acc * PRIME64_1 + PRIME64_4
    return acc


cdef uint64_t xxh64(const void *input, size_t length, uint64_t seed) noexcept nogil:
    cdef const uint8_t *p = <const uint8_t *>input
    cdef const uint8_t *b_end = p + length
    cdef const uint8_t *limit
    cdef uint64_t h64, k1
    cdef uint64_t v1, v2, v3, v4

    if length >= 32:
        limit = b_end - 32
        v1 = seed + PRIME64_1 + PRIME64_2
        v2 = seed + PRIME64_2
        v3 = seed + 0
        v4 = seed - PRIME64_1

        while True:
            v1 = xxh64_round(v1, get_unaligned_le64(p))
            p += 8
            v2 = xxh64_round(v2, get_unaligned_le64(p))
            p += 8
            v3 = xxh64_round(v3, get_unaligned_le64(p))
            p += 8
            v4 = xxh64_round(v4, get_unaligned_le64(p))
            p += 8
            if p > limit:
                break

        h64 = xxh_rotl64(v1, 1) + xxh_rotl64(v2, 7) + xxh_rotl64(v3, 12) + xxh_rotl64(v4, 18)
        h64 = xxh64_merge_round(h64, v1)
        h64 = xxh64_merge_round(h64, v2)
        h64 = xxh64_merge_round(h64, v3)
        h64 = xxh64_merge_round(h64, v4)

    else:
        h64 = seed + PRIME64_5

    h64 += <uint64_t>length

    while p + 8 <= b_end:
        k1 = xxh64_round(0, get_unaligned_le64(p))

        h64 ^= k1
        h64 = xxh_rotl64(h64, 27) * PRIME64_1 + PRIME64_4
        p += 8

    if p + 4 <= b_end:
        h64 ^= <uint64_t>get_unaligned_le32(p) * PRIME64_1
        h64 = xxh_rotl64(h64, 23) * PRIME64_2 + PRIME64_3
        p += 4

    while p < b_end:
        h64 ^= p[0] * PRIME64_5
        h64 = xxh_rotl64(h64, 11) * PRIME64_1
        p += 1

    h64 ^= h64 >> 33
    h64 *= PRIME64_2
    h64 ^= h64 >> 29
    h64 *= PRIME64_3
    h64 ^= h64 >> 32

    return h64


# xxh32_reset() to xxh64_digest(), hashing in pieces: left out, a page is hashed whole.

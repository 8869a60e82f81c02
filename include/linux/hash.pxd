# SPDX-License-Identifier: GPL-2.0-only
# Follows include/linux/hash.h of Linux 6.12, with BITS_PER_LONG 64.

from linux.types cimport u32, u64


cdef extern from *:
    """
    #ifndef GOLDEN_RATIO_32
    #define GOLDEN_RATIO_32 0x61C88647U
    #define GOLDEN_RATIO_64 0x61C8864680B583EBULL
    #endif
    """
    const u32 GOLDEN_RATIO_32
    const u64 GOLDEN_RATIO_64


cdef inline u32 __hash_32(u32 val) noexcept nogil:
    return val * GOLDEN_RATIO_32


# A product is best mixed at its top: take the bits from there.
cdef inline u32 hash_32(u32 val, unsigned int bits) noexcept nogil:
    return __hash_32(val) >> (32 - bits)


cdef inline u32 hash_64(u64 val, unsigned int bits) noexcept nogil:
    return <u32>(val * GOLDEN_RATIO_64 >> (64 - bits))


cdef inline u32 hash_long(unsigned long val, unsigned int bits) noexcept nogil:
    return hash_64(val, bits)


cdef inline u32 hash_ptr(const void *ptr, unsigned int bits) noexcept nogil:
    return hash_long(<unsigned long>ptr, bits)


cdef inline u32 hash32_ptr(const void *ptr) noexcept nogil:
    cdef unsigned long val = <unsigned long>ptr

    val ^= val >> 32
    return <u32>val

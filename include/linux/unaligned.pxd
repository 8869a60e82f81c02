# SPDX-License-Identifier: GPL-2.0-only
# Follows include/linux/unaligned.h of Linux 6.12, the loads that hashes use.
"""Loads from any address. memcpy() of a fixed size is one load on every machine that allows it."""

from libc.string cimport memcpy

from linux.types cimport u32, u64


cdef extern from *:
    """
    #ifndef le64_to_cpu
    #if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    #define le32_to_cpu(x) __builtin_bswap32(x)
    #define le64_to_cpu(x) __builtin_bswap64(x)
    #else
    #define le32_to_cpu(x) (x)
    #define le64_to_cpu(x) (x)
    #endif
    #endif
    """
    u32 le32_to_cpu(u32 x) noexcept nogil
    u64 le64_to_cpu(u64 x) noexcept nogil


cdef inline u32 __get_unaligned_cpu32(const void *p) noexcept nogil:
    cdef u32 x

    memcpy(&x, p, sizeof(x))
    return x


cdef inline u32 get_unaligned_le32(const void *p) noexcept nogil:
    return le32_to_cpu(__get_unaligned_cpu32(p))


cdef inline u64 get_unaligned_le64(const void *p) noexcept nogil:
    cdef u64 x

    memcpy(&x, p, sizeof(x))
    return le64_to_cpu(x)

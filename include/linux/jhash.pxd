# SPDX-License-Identifier: GPL-2.0-only
# Follows include/linux/jhash.h of Linux 6.12.
#
# lookup3.c is by Bob Jenkins, May 2006, in the public domain; the kernel's form is by Jozsef Kadlecsik, copyright (C) 2009-2010.
"""The hash that KSM used as its checksum before xxhash. Words are read in the byte order of the machine, as in the kernel."""

from linux.bitops cimport rol32
from linux.types cimport u8, u32
from linux.unaligned cimport __get_unaligned_cpu32


cdef inline u32 jhash_size(u32 n) noexcept nogil:
    return 1U << n


cdef inline u32 jhash_mask(u32 n) noexcept nogil:
    return jhash_size(n) - 1


# Reversible: no two states of (a, b, c) are mixed into the same one.
cdef inline void __jhash_mix(u32 *a, u32 *b, u32 *c) noexcept nogil:
    a[0] -= c[0]; a[0] ^= rol32(c[0], 4); c[0] += b[0]
    b[0] -= a[0]; b[0] ^= rol32(a[0], 6); a[0] += c[0]
    c[0] -= b[0]; c[0] ^= rol32(b[0], 8); b[0] += a[0]
    a[0] -= c[0]; a[0] ^= rol32(c[0], 16); c[0] += b[0]
    b[0] -= a[0]; b[0] ^= rol32(a[0], 19); a[0] += c[0]
    c[0] -= b[0]; c[0] ^= rol32(b[0], 4); b[0] += a[0]


# Brings all bits of the state to bear on c.
cdef inline void __jhash_final(u32 *a, u32 *b, u32 *c) noexcept nogil:
    c[0] ^= b[0]; c[0] -= rol32(b[0], 14)
    a[0] ^= c[0]; a[0] -= rol32(c[0], 11)
    b[0] ^= a[0]; b[0] -= rol32(a[0], 25)
    c[0] ^= b[0]; c[0] -= rol32(b[0], 16)
    a[0] ^= c[0]; a[0] -= rol32(c[0], 4)
    b[0] ^= a[0]; b[0] -= rol32(a[0], 14)
    c[0] ^= b[0]; c[0] -= rol32(b[0], 24)


cdef enum:
    JHASH_INITVAL = 0xdeadbeef


# length is in bytes; key may stand at any address.
cdef inline u32 jhash(const void *key, u32 length, u32 initval) noexcept nogil:
    cdef u32 a, b, c
    cdef const u8 *k = <const u8 *>key

    a = b = c = <u32>JHASH_INITVAL + length + initval

    while length > 12:
        a += __get_unaligned_cpu32(k)
        b += __get_unaligned_cpu32(k + 4)
        c += __get_unaligned_cpu32(k + 8)
        __jhash_mix(&a, &b, &c)
        length -= 12
        k += 12

    # The kernel's switch falls through from the number of bytes left down to 1.
    if length == 0:
        return c
    if length >= 12:
        c += <u32>k[11] << 24
    if length >= 11:
        c += <u32>k[10] << 16
    if length >= 10:
        c += <u32>k[9] << 8
    if length >= 9:
        c += k[8]
    if length >= 8:
        b += <u32>k[7] << 24
    if length >= 7:
        b += <u32>k[6] << 16
    if length >= 6:
        b += <u32>k[5] << 8
    if length >= 5:
        b += k[4]
    if length >= 4:
        a += <u32>k[3] << 24
    if length >= 3:
        a += <u32>k[2] << 16
    if length >= 2:
        a += <u32>k[1] << 8
    a += k[0]
    __jhash_final(&a, &b, &c)

    return c


# length is in words.
cdef inline u32 jhash2(const u32 *k, u32 length, u32 initval) noexcept nogil:
    cdef u32 a, b, c

    a = b = c = <u32>JHASH_INITVAL + (length << 2) + initval

    while length > 3:
        a += k[0]
        b += k[1]
        c += k[2]
        __jhash_mix(&a, &b, &c)
        length -= 3
        k += 3

    # Up to three words are left; the kernel's switch falls through.
    if length == 0:
        return c
    if length >= 3:
        c += k[2]
    if length >= 2:
        b += k[1]
    a += k[0]
    __jhash_final(&a, &b, &c)

    return c


cdef inline u32 __jhash_nwords(u32 a, u32 b, u32 c, u32 initval) noexcept nogil:
    a += initval
    b += initval
    c += initval

    __jhash_final(&a, &b, &c)

    return c


cdef inline u32 jhash_3words(u32 a, u32 b, u32 c, u32 initval) noexcept nogil:
    return __jhash_nwords(a, b, c, initval + <u32>JHASH_INITVAL + (3 << 2))


cdef inline u32 jhash_2words(u32 a, u32 b, u32 initval) noexcept nogil:
    return __jhash_nwords(a, b, 0, initval + <u32>JHASH_INITVAL + (2 << 2))


cdef inline u32 jhash_1word(u32 a, u32 initval) noexcept nogil:
    return __jhash_nwords(a, 0, 0, initval + <u32>JHASH_INITVAL + (1 << 2))

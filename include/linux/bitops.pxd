# SPDX-License-Identifier: GPL-2.0-only
# Follows include/linux/bitops.h of Linux 6.12, rol32().

from linux.types cimport u32


cdef inline u32 rol32(u32 word, unsigned int shift) noexcept nogil:
    return (word << (shift & 31)) | (word >> ((-shift) & 31))

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: a byte for each page of a source.

from libc.stdint cimport uint64_t


cdef class PageCodes:
    cdef dict blocks
    cdef unsigned char *block(self, uint64_t number, bint make) except? NULL
    cdef list numbers(self, uint64_t start, uint64_t end)
    cdef int fill_run(self, uint64_t start, uint64_t end, unsigned char code) except -1

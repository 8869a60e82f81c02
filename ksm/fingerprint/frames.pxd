# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what stands for a page where its bytes are not kept.

from linux.highmem cimport ksm_frame
from linux.types cimport u32

cdef enum:
    FRAMES_AT_ONCE = 64


# Which checksum frames carry: that of the machine's era.
cdef struct frame_maker:
    bint jhash                  # jhash2() of 2011, in place of xxhash()
    u32 zero_checksum           # of a page of zeros


cdef void frame_maker_init(frame_maker *maker, bint jhash) noexcept nogil
cdef void make_fingerprints(const char **pages, ksm_frame **frames, int nr) noexcept nogil
cdef void make_checksums(const frame_maker *maker, const char **pages, ksm_frame **frames, int nr) noexcept nogil

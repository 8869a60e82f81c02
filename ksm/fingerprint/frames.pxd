# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what stands for a page where its bytes are not kept.

from libc.stdint cimport uint32_t, uint64_t

from linux.highmem cimport ksm_frame
from linux.types cimport u32

cdef enum:
    FRAMES_AT_ONCE = 64
    KEY_LENGTH = 32


# How frames are made: with which key, or with the checksum of which era. And what a page of zeros would have in its frame.
cdef struct frame_maker:
    bint keyed                  # BLAKE3 with `key`, in place of XXH3 and of a checksum
    uint32_t key[8]
    bint jhash                  # jhash2() of 2011, in place of xxhash()
    unsigned char zeros[16]
    u32 zero_checksum


cdef void frame_maker_init(frame_maker *maker, bint jhash, const unsigned char *key) noexcept nogil
cdef void make_fingerprints(const frame_maker *maker, const char **pages, ksm_frame **frames, int nr) noexcept nogil
cdef void make_checksums(const frame_maker *maker, const char **pages, ksm_frame **frames, int nr) noexcept nogil

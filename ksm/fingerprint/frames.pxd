# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what stands for a page where its bytes are not kept.

from linux.highmem cimport ksm_frame
from linux.mm_types cimport frame_maker

cdef enum:
    FRAMES_AT_ONCE = 64
    KEY_LENGTH = 32


cdef void frame_maker_init(frame_maker *maker, bint jhash, const unsigned char *key) noexcept nogil
cdef void make_fingerprints(const frame_maker *maker, const char **pages, ksm_frame **frames, int nr) noexcept nogil
cdef void make_checksums(const frame_maker *maker, const char **pages, ksm_frame **frames, int nr) noexcept nogil

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what stands for a page where its bytes are not kept.
"""A frame of a machine of fingerprints, made from the page's bytes.

The fingerprint is XXH3 with 128 bits, in the order in which it is printed, so that memcmp() orders frames as the numbers. Each field is
stored XOR that of a page of zeros: a frame of zeros is the page of zeros. XXH3 is fast and not cryptographic: who may choose the contents
of pages can make two different ones with one fingerprint. docs/fingerprints.md says what that means.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memset

from linux.highmem cimport ksm_frame
from linux.jhash cimport jhash2
from linux.mm_types cimport PAGE_SIZE
from linux.types cimport u32

from ksm.fast.xxhash_many cimport xxh64_pages


cdef extern from "page_hash.h" nogil:
    void page_hash_128(const void *page, uint64_t *high, uint64_t *low) noexcept
    void store_be64(unsigned char *to, uint64_t value) noexcept


cdef char[4096] zeros
memset(zeros, 0, sizeof(zeros))
cdef uint64_t zero_high, zero_low
page_hash_128(zeros, &zero_high, &zero_low)


cdef void make_fingerprints(const char **pages, ksm_frame **frames, int nr) noexcept nogil:
    """The fingerprints of these pages, into their frames."""
    cdef uint64_t high, low
    cdef int i
    for i in range(nr):
        page_hash_128(pages[i], &high, &low)
        store_be64(frames[i].fingerprint, high ^ zero_high)
        store_be64(frames[i].fingerprint + 8, low ^ zero_low)


cdef void make_checksums(const frame_maker *maker, const char **pages, ksm_frame **frames, int nr) noexcept nogil:
    """The rest of the frames: FRAMES_AT_ONCE at most."""
    cdef uint64_t wide[FRAMES_AT_ONCE]
    cdef u32 checksum
    cdef int i
    if not maker.jhash:
        xxh64_pages(<const void **>pages, wide, nr)
    for i in range(nr):
        checksum = jhash2(<const u32 *>pages[i], PAGE_SIZE // 4, 17) if maker.jhash else <u32>wide[i]
        frames[i].checksum = checksum ^ maker.zero_checksum
        memset(frames[i].rest, 0, sizeof(frames[i].rest))


cdef void frame_maker_init(frame_maker *maker, bint jhash) noexcept nogil:
    cdef ksm_frame frame
    cdef ksm_frame *frames = &frame
    cdef const char *page = zeros
    maker.jhash = jhash
    maker.zero_checksum = 0
    make_checksums(maker, &page, &frames, 1)
    maker.zero_checksum = frame.checksum


def frames_of(const unsigned char[::1] data not None, *, bint jhash=False):
    """The frames of these pages, 32 bytes each, as bytes. ValueError for a part of a page."""
    cdef Py_ssize_t nr = data.shape[0] // PAGE_SIZE, done = 0
    cdef const char *pages[FRAMES_AT_ONCE]
    cdef ksm_frame *frames[FRAMES_AT_ONCE]
    cdef frame_maker maker
    cdef unsigned char[::1] result
    cdef int some, i
    if data.shape[0] % PAGE_SIZE:
        raise ValueError("whole pages have frames")
    made = bytearray(nr * sizeof(ksm_frame))
    if nr == 0:
        return bytes(made)
    result = made
    with nogil:
        frame_maker_init(&maker, jhash)
        while done < nr:
            some = <int>min(nr - done, <Py_ssize_t>FRAMES_AT_ONCE)
            for i in range(some):
                pages[i] = <const char *>&data[(done + i) * PAGE_SIZE]
                frames[i] = <ksm_frame *>&result[(done + i) * <Py_ssize_t>sizeof(ksm_frame)]
            make_fingerprints(pages, frames, some)
            make_checksums(&maker, pages, frames, some)
            done += some
    return bytes(made)

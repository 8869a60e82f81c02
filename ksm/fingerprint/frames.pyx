# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what stands for a page where its bytes are not kept.
"""A frame of a machine of fingerprints, made from the page's bytes.

The fingerprint has 128 bits: XXH3 in the order in which it is printed, so that memcmp() orders frames as the numbers. XXH3 is fast and not
cryptographic: who may choose the contents of pages can make two different ones with one fingerprint. With a key, it is the beginning of
keyed BLAKE3. The checksum is what calc_checksum() gives for the page. It would tell something of the page to those who have not the key.
So with a key it is 32 more bits of BLAKE3: KSM asks only whether it has changed. docs/fingerprints.md says what each protects against.

Each field is stored XOR that of a page of zeros: a frame of zeros is the page of zeros.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from linux.highmem cimport ksm_frame
from linux.jhash cimport jhash2
from linux.mm_types cimport PAGE_SIZE
from linux.types cimport u32

from ksm.fast.xxhash_many cimport xxh64_pages


cdef extern from "page_hash.h" nogil:
    enum:
        KEYED_AT_ONCE
    void page_hash_128(const void *page, unsigned char *hash) noexcept
    void page_hashes_keyed(const uint32_t *key, const char **pages, int nr, unsigned char *hashes) noexcept
    void key_words(const unsigned char *key, uint32_t *words) noexcept
    void key_digest(const char *context, const unsigned char *key, unsigned char *digest, size_t length) noexcept
    size_t blake3_simd_degree() noexcept


# Names keys, and nothing else. Another context would give the keys other names.
cdef const char *NAME_CONTEXT = b"ksm 2026-11-29 the name of a key of fingerprints"

cdef char[4096] zeros
memset(zeros, 0, sizeof(zeros))
blake3_simd_degree()            # looks at the processor, before threads do


cdef inline void take_off(unsigned char *fingerprint, const unsigned char *zeros) noexcept nogil:
    """Take off that of a page of zeros: in words, since a compiler that must expect the two to overlap goes byte by byte."""
    cdef uint64_t[2] words
    cdef uint64_t[2] others
    memcpy(words, fingerprint, sizeof(words))
    memcpy(others, zeros, sizeof(others))
    words[0] ^= others[0]
    words[1] ^= others[1]
    memcpy(fingerprint, words, sizeof(words))


cdef void make_keyed(const frame_maker *maker, const char **pages, ksm_frame **frames, int nr) noexcept nogil:
    cdef unsigned char[16][32] hashes
    cdef u32 checksum
    cdef int i
    page_hashes_keyed(maker.key, pages, nr, hashes[0])
    for i in range(nr):
        memcpy(frames[i].fingerprint, hashes[i], sizeof(frames[i].fingerprint))
        memcpy(&checksum, hashes[i] + sizeof(frames[i].fingerprint), sizeof(checksum))
        frames[i].checksum = checksum ^ maker.zero_checksum


cdef void make_fingerprints(const frame_maker *maker, const char **pages, ksm_frame **frames, int nr) noexcept nogil:
    """The fingerprints of these pages, into their frames."""
    cdef int i = 0
    if maker.keyed:
        while i < nr:
            make_keyed(maker, pages + i, frames + i, min(nr - i, <int>KEYED_AT_ONCE))
            i += KEYED_AT_ONCE
    else:
        for i in range(nr):
            page_hash_128(pages[i], frames[i].fingerprint)
    for i in range(nr):
        take_off(frames[i].fingerprint, maker.zeros)


cdef void make_checksums(const frame_maker *maker, const char **pages, ksm_frame **frames, int nr) noexcept nogil:
    """The rest of frames that have their fingerprints: FRAMES_AT_ONCE at most."""
    cdef uint64_t[64] wide
    cdef u32 checksum
    cdef int i
    if not maker.jhash and not maker.keyed:
        xxh64_pages(<const void **>pages, wide, nr)
    for i in range(nr):
        if not maker.keyed:     # else the checksum came with the fingerprint
            checksum = jhash2(<const u32 *>pages[i], PAGE_SIZE // 4, 17) if maker.jhash else <u32>wide[i]
            frames[i].checksum = checksum ^ maker.zero_checksum
        memset(frames[i].rest, 0, sizeof(frames[i].rest))


cdef void frame_maker_init(frame_maker *maker, bint jhash, const unsigned char *key) noexcept nogil:
    """Frames for a machine of 2011 or not, with a key of KEY_LENGTH bytes or NULL."""
    cdef ksm_frame frame
    cdef ksm_frame *frames = &frame
    cdef const char *page = zeros
    memset(maker, 0, sizeof(frame_maker))
    maker.jhash = jhash
    maker.keyed = key != NULL
    if key != NULL:
        key_words(key, maker.key)
    make_fingerprints(maker, &page, &frames, 1)
    make_checksums(maker, &page, &frames, 1)
    memcpy(maker.zeros, frame.fingerprint, sizeof(maker.zeros))
    maker.zero_checksum = frame.checksum


cdef const unsigned char[::1] checked_key(object key):
    """The bytes of a key. TypeError for what has no bytes, ValueError for another length."""
    cdef const unsigned char[::1] view = memoryview(key).cast("B")
    if view.shape[0] != KEY_LENGTH:
        raise ValueError(f"a key has {KEY_LENGTH} bytes, not {view.shape[0]}")
    return view


def frames_of(const unsigned char[::1] data not None, *, bint jhash=False, key=None):
    """The frames of these pages, 32 bytes each, as bytes. `jhash` is for machines of the era 2.6.38. With a key, they are for machines with
    the same key. ValueError for a part of a page, and for a key that has not 32 bytes.
    """
    cdef Py_ssize_t nr = data.shape[0] // PAGE_SIZE, done = 0
    cdef const unsigned char[::1] view
    cdef const unsigned char *secret = NULL
    cdef const char *pages[FRAMES_AT_ONCE]
    cdef ksm_frame *frames[FRAMES_AT_ONCE]
    cdef frame_maker maker
    cdef unsigned char[::1] result
    cdef int some, i
    if data.shape[0] % PAGE_SIZE:
        raise ValueError("whole pages have frames")
    if key is not None:
        view = checked_key(key)
        secret = &view[0]
    made = bytearray(nr * sizeof(ksm_frame))
    if nr == 0:
        return bytes(made)
    result = made
    with nogil:
        frame_maker_init(&maker, jhash, secret)
        while done < nr:
            some = <int>min(nr - done, <Py_ssize_t>FRAMES_AT_ONCE)
            for i in range(some):
                pages[i] = <const char *>&data[(done + i) * PAGE_SIZE]
                frames[i] = <ksm_frame *>&result[(done + i) * <Py_ssize_t>sizeof(ksm_frame)]
            make_fingerprints(&maker, pages, frames, some)
            make_checksums(&maker, pages, frames, some)
            done += some
    return bytes(made)


def key_name(key):
    """Eight hex digits that name a key: whoever has the key can compute them, and they do not help to find it. ValueError, TypeError."""
    cdef const unsigned char[::1] view = checked_key(key)
    cdef unsigned char[4] digest
    key_digest(NAME_CONTEXT, &view[0], digest, sizeof(digest))
    return digest[:4].hex()

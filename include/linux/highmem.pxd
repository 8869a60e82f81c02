# SPDX-License-Identifier: GPL-2.0-only
# Follows include/linux/highmem.h of Linux 6.12: a page's contents, copied and cleared.
"""What a frame holds. In a machine of bytes it is the 4096 bytes of its page; in one of fingerprints, 20 bytes that stand for them.

Everything that copies, clears or compares pages comes here or to memcmp_pages(), so that nothing else knows how large a frame is.
"""

from libc.string cimport memcmp, memcpy, memset

from linux.mm_types cimport PAGE_SIZE, machine, struct_page
from linux.page_flags cimport page_address
from linux.types cimport u32


cdef extern from *:
    """
    #include <stdint.h>
    /* What stands for a page. A frame of a machine of fingerprints holds the first FRAME_SIZE bytes of it. Each field is stored XOR that of
       a page of zeros, so that memory of zeros is the page of zeros, as in a machine of bytes. */
    struct ksm_frame {
        unsigned char fingerprint[16];
        uint32_t checksum;              /* what calc_checksum() gives for the page */
        unsigned char rest[12];         /* zeros, and not kept */
    };
    """
    struct ksm_frame:
        unsigned char fingerprint[16]
        u32 checksum
        unsigned char rest[12]


cdef enum:
    FRAME_SIZE = 20             # of fingerprints


cdef inline bint has_bytes(const machine *m) noexcept nogil:
    """Does a frame hold its page's bytes?"""
    return m.frame_size == PAGE_SIZE


cdef inline size_t frame_size(const machine *m) noexcept nogil:
    return m.frame_size


cdef inline void copy_highpage(machine *m, struct_page *to, struct_page *from_) noexcept nogil:
    memcpy(page_address(m, to), page_address(m, from_), frame_size(m))


cdef inline void clear_highpage(machine *m, struct_page *page) noexcept nogil:
    memset(page_address(m, page), 0, frame_size(m))


cdef inline bint page_is_zero(machine *m, const struct_page *page) noexcept nogil:
    cdef const char *data = <const char *>page_address(m, page)
    cdef size_t last = frame_size(m) - 1
    return data[last] == 0 and data[0] == 0 and memcmp(data, data + 1, last) == 0


cdef inline u32 frame_checksum(machine *m, const struct_page *page) noexcept nogil:
    """calc_checksum() of the page, in a machine of fingerprints."""
    return (<ksm_frame *>page_address(m, page)).checksum ^ m.maker.zero_checksum


cdef inline bint stands_for_none(const ksm_frame *frame) noexcept nogil:
    """No page has this in its frame: the fingerprint of a page of zeros, and another checksum."""
    cdef unsigned int i, fingerprint = 0
    for i in range(sizeof(frame.fingerprint)):
        fingerprint |= frame.fingerprint[i]
    return not fingerprint and frame.checksum != 0


cdef inline bint frame_damaged(const ksm_frame *frame) noexcept nogil:
    """The same, of what is to be stored: its rest has to be zeros."""
    cdef unsigned int i, rest = 0
    for i in range(sizeof(frame.rest)):
        rest |= frame.rest[i]
    return rest != 0 or stands_for_none(frame)

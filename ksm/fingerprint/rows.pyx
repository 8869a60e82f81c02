# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: frames of fingerprints on their way into files, and back.
"""Columns of a fingerprint file, made of frames; frames, made of columns. A run is a tuple (start, end) of addresses of neighbouring pages.

A marked frame has the page's class plus 1 in its first byte that a machine leaves 0; without a mark, there is no page.
"""

from libc.string cimport memcpy, memset

from linux.highmem cimport ksm_frame
from linux.mm_types cimport PAGE_SHIFT, PAGE_SIZE
from linux.types cimport u64


def columns_of(const unsigned char[::1] frames not None):
    """The columns of these frames: (fingerprints, 16 bytes each; checksums, 4 bytes each)."""
    cdef Py_ssize_t nr = frames.shape[0] // <Py_ssize_t>sizeof(ksm_frame), i
    cdef const ksm_frame *frame
    cdef unsigned char[::1] fingerprint, checksum
    made, sums = bytearray(nr * 16), bytearray(nr * 4)
    if nr:
        fingerprint, checksum = made, sums
        with nogil:
            for i in range(nr):
                frame = <const ksm_frame *>&frames[i * <Py_ssize_t>sizeof(ksm_frame)]
                memcpy(&fingerprint[i * 16], frame.fingerprint, 16)
                memcpy(&checksum[i * 4], &frame.checksum, 4)
    return made, sums


def frames_from(const unsigned char[::1] fingerprints not None, const unsigned char[::1] checksums not None):
    """The frames that columns_of() had. ValueError if the columns are not equally long."""
    cdef Py_ssize_t nr = fingerprints.shape[0] // 16, i
    cdef ksm_frame *frame
    cdef unsigned char[::1] result
    if fingerprints.shape[0] != nr * 16 or checksums.shape[0] != nr * 4:
        raise ValueError("a fingerprint has 16 bytes, a checksum 4, and there are as many of both")
    made = bytearray(nr * sizeof(ksm_frame))
    if nr:
        result = made
        with nogil:
            for i in range(nr):
                frame = <ksm_frame *>&result[i * <Py_ssize_t>sizeof(ksm_frame)]
                memcpy(frame.fingerprint, &fingerprints[i * 16], 16)
                memcpy(&frame.checksum, &checksums[i * 4], 4)
    return made


def addresses_of(list runs not None):
    """The address of each page of the runs, as 8 bytes in this computer's order."""
    cdef Py_ssize_t nr = 0, i = 0
    cdef u64 start, end
    cdef unsigned char[::1] result
    for start, end in runs:
        nr += (end - start) >> PAGE_SHIFT
    made = bytearray(nr * 8)
    if nr:
        result = made
        for start, end in runs:
            while start < end:
                memcpy(&result[i], &start, 8)
                i += 8
                start += PAGE_SIZE
    return made


def runs_of(const unsigned char[::1] addresses not None, u64 least, u64 most):
    """The runs of these addresses of 8 bytes each. ValueError if they do not ascend, are not of pages, or not in [least, most)."""
    cdef Py_ssize_t nr = addresses.shape[0] // 8, i
    cdef u64 address = 0, start = 0, end = least
    cdef list runs = []
    for i in range(nr):
        memcpy(&address, &addresses[i * 8], 8)
        if address < end or address >= most or address & (PAGE_SIZE - 1):
            raise ValueError(f"a page at {address:#x}")
        if address != end or i == 0:
            if i:
                runs.append((start, end))
            start = address
        end = address + PAGE_SIZE
    if nr:
        runs.append((start, end))
    return runs


def marked(const unsigned char[::1] frames not None, const unsigned char[::1] classes not None):
    """A copy of the frames with marks. ValueError if there is not a class for each."""
    cdef Py_ssize_t nr = classes.shape[0], i
    cdef ksm_frame *frame
    cdef unsigned char[::1] result
    if frames.shape[0] != nr * <Py_ssize_t>sizeof(ksm_frame):
        raise ValueError("each frame has a class")
    made = bytearray(frames)
    if nr:
        result = made
        with nogil:
            for i in range(nr):
                frame = <ksm_frame *>&result[i * <Py_ssize_t>sizeof(ksm_frame)]
                frame.rest[0] = classes[i] + 1
    return made


def unmarked(const unsigned char[::1] frames not None, u64 address):
    """Of frames that lie side by side from `address` on, those with a mark: (their runs, the frames, their classes)."""
    cdef Py_ssize_t nr = frames.shape[0] // <Py_ssize_t>sizeof(ksm_frame), i, kept = 0
    cdef const ksm_frame *frame
    cdef ksm_frame *to
    cdef unsigned char[::1] result, kinds
    cdef list runs = []
    cdef u64 start = 0
    cdef bint inside = False
    if nr == 0:
        return runs, bytearray(), bytearray()
    made, classes = bytearray(nr * sizeof(ksm_frame)), bytearray(nr)
    result, kinds = made, classes
    for i in range(nr):
        frame = <const ksm_frame *>&frames[i * <Py_ssize_t>sizeof(ksm_frame)]
        if frame.rest[0]:
            to = <ksm_frame *>&result[kept * <Py_ssize_t>sizeof(ksm_frame)]
            memcpy(to, frame, sizeof(ksm_frame))
            memset(to.rest, 0, sizeof(to.rest))
            kinds[kept] = frame.rest[0] - 1
            kept += 1
        if inside != (frame.rest[0] != 0):
            if inside:
                runs.append((start, address + <u64>i * PAGE_SIZE))
            start = address + <u64>i * PAGE_SIZE
            inside = not inside
    if inside:
        runs.append((start, address + <u64>nr * PAGE_SIZE))
    del result, kinds
    del made[kept * sizeof(ksm_frame):], classes[kept:]
    return runs, made, classes

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: pages of bytes, stored as fingerprints.
"""cpu_update() for a machine of fingerprints: what comes are pages, and what is compared and stored are their frames.

Most pages of a second pass have not changed. So the fingerprint comes first, and the checksum only for pages whose fingerprint is another.
"""

from libc.string cimport memcmp

from linux.highmem cimport ksm_frame
from linux.mm_types cimport PAGE_SIZE, frame_maker, mm_struct, pte_t
from linux.mmap_lock cimport mmap_read_lock, mmap_read_unlock
from linux.pgtable cimport entry_offset_map_lock, pte_present, pte_unmap_unlock, ptep_get
from linux.spinlock cimport mutex_lock, mutex_unlock, spinlock_t

from ksm.cpu cimport cpu_update
from ksm.fingerprint.frames cimport FRAMES_AT_ONCE, make_checksums, make_fingerprints


cdef bint has_fingerprint(mm_struct *mm, unsigned long addr, const ksm_frame *frame) noexcept nogil:
    """Is a page with this fingerprint there? mmap_lock is held."""
    cdef unsigned long pfn = 0
    cdef spinlock_t *ptl = NULL
    cdef pte_t *pte = entry_offset_map_lock(mm, addr, &ptl, &pfn)
    cdef bint same = False
    if pte != NULL:
        if pte_present(ptep_get(pte)):
            same = memcmp(mm.machine.arena + (pfn * mm.machine.frame_size), frame.fingerprint, sizeof(frame.fingerprint)) == 0
        pte_unmap_unlock(pte, ptl)
    return same


cdef long store_pages(mm_struct *mm, unsigned long addr, const char *pages, unsigned long nr_pages, bint always,
                      int *error) noexcept nogil:
    """Make whole pages those of `pages`, writing to those that differ or are not there, or `always`: how many; 0 or -errno in *error."""
    cdef const frame_maker *maker = &mm.machine.maker
    cdef ksm_frame made[FRAMES_AT_ONCE]
    cdef ksm_frame *frames[FRAMES_AT_ONCE]
    cdef ksm_frame *other[FRAMES_AT_ONCE]
    cdef const char *bytes[FRAMES_AT_ONCE]
    cdef const char *other_bytes[FRAMES_AT_ONCE]
    cdef int i, some, nr
    cdef long changed = 0
    error[0] = 0
    while nr_pages and not error[0]:
        some = <int>min(nr_pages, <unsigned long>FRAMES_AT_ONCE)
        for i in range(some):
            frames[i] = &made[i]
            bytes[i] = pages + <size_t>i * PAGE_SIZE
        make_fingerprints(maker, bytes, frames, some)
        nr = 0
        mmap_read_lock(mm)
        for i in range(some):
            if always or not has_fingerprint(mm, addr + <unsigned long>i * PAGE_SIZE, frames[i]):
                other[nr] = frames[i]
                other_bytes[nr] = bytes[i]
                nr += 1
        mmap_read_unlock(mm)
        make_checksums(maker, other_bytes, other, nr)
        if nr:
            # One thread at a time: faults of several in one process wait for each other, and take twice as long.
            mutex_lock(&mm.machine.store_lock)
            i = 0
            while i < nr and not error[0]:
                changed += cpu_update(mm, addr + <unsigned long>(other_bytes[i] - pages), <const char *>other[i], 1, always, error)
                i += 1
            mutex_unlock(&mm.machine.store_lock)
        addr += <unsigned long>some * PAGE_SIZE
        pages += <size_t>some * PAGE_SIZE
        nr_pages -= some
    return changed

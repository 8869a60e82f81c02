# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it has one machine.
"""Pages of a machine, as frames for another machine."""

from libc.string cimport memcpy

from linux.highmem cimport frame_size, has_bytes, ksm_frame
from linux.mm_types cimport frame_maker, machine as struct_machine
from linux.page_flags cimport page_address
from linux.spinlock cimport mutex_lock, mutex_unlock

from ksm.estimate.savings cimport frame_is_there
from ksm.fingerprint.frames cimport frame_maker_init, make_checksums, make_fingerprints
from ksm.fs.proc.task_mmu cimport PAGE_FLAGS_SHIFT, PAGE_KSM, PAGE_PRESENT, PAGE_ZERO
from ksm.machine cimport Machine
from ksm.mm.ksm cimport ERA_2_6_38


def copied_frames(Machine machine not None, const unsigned long[::1] words not None, const unsigned char[::1] wanted not None):
    """The frames, 32 bytes each, of pages of a page table for which `wanted` has 1, or 2 and they are merged: what Process.load() takes,
    in a machine of the same era and key. Returns (frames, how many are those with 2). ValueError for a frame that is not there.
    """
    cdef Py_ssize_t i, nr = 0, merged = 0
    cdef unsigned long word
    cdef struct_machine *m
    cdef frame_maker maker
    cdef ksm_frame *frame
    cdef const char *page
    cdef unsigned char[::1] result
    cdef bint beyond = False
    if wanted.shape[0] < words.shape[0]:
        raise ValueError("wanted needs a byte for each word")
    made = bytearray(words.shape[0] * sizeof(ksm_frame))
    if words.shape[0] == 0:
        return made, 0
    result = made
    with nogil:
        frame_maker_init(&maker, machine.g.era == ERA_2_6_38, NULL)
        machine.enter()
        m = machine.m
        mutex_lock(&m.hotplug_lock)
        for i in range(words.shape[0]):
            word = words[i]
            if not wanted[i] or not word & (PAGE_PRESENT | PAGE_KSM | PAGE_ZERO):
                continue
            if wanted[i] == 2:
                if not word & (PAGE_KSM | PAGE_ZERO):
                    continue
                merged += 1
            frame = <ksm_frame *>&result[nr * <Py_ssize_t>sizeof(ksm_frame)]
            nr += 1
            if word & PAGE_ZERO:
                continue            # a frame of zeros is a page of zeros
            beyond = not frame_is_there(m, word >> PAGE_FLAGS_SHIFT)
            if beyond:
                break
            page = <const char *>page_address(m, m.mem_map + (word >> PAGE_FLAGS_SHIFT))
            if has_bytes(m):
                make_fingerprints(&maker, &page, &frame, 1)
                make_checksums(&maker, &page, &frame, 1)
            else:
                memcpy(frame, page, frame_size(m))
        mutex_unlock(&m.hotplug_lock)
        machine.leave()
    del result
    if beyond:
        raise ValueError("the page table has frames that the machine has not")
    del made[nr * sizeof(ksm_frame):]
    return made, merged

# SPDX-License-Identifier: GPL-2.0-only
# Follows include/linux/memory.h and notifier.h of Linux 6.12.
"""The notifications when frames are added to the machine or taken away. KSM alone listens."""

from linux.mm_types cimport machine

cdef enum:
    MEM_ONLINE = 1 << 0
    MEM_GOING_OFFLINE = 1 << 1
    MEM_OFFLINE = 1 << 2
    MEM_GOING_ONLINE = 1 << 3
    MEM_CANCEL_ONLINE = 1 << 4
    MEM_CANCEL_OFFLINE = 1 << 5

    NOTIFY_OK = 1


cdef struct struct_memory_notify:
    unsigned long start_pfn
    unsigned long nr_pages


cdef inline int memory_notify(machine *m, unsigned long action, unsigned long start_pfn, unsigned long nr_pages) noexcept nogil:
    cdef struct_memory_notify mn
    if m.ksm_ops == NULL:
        return NOTIFY_OK
    mn.start_pfn = start_pfn
    mn.nr_pages = nr_pages
    return m.ksm_ops.memory_callback(m, action, &mn)

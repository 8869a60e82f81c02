# SPDX-License-Identifier: GPL-2.0-only
# Follows include/trace/events/ksm.h of Linux 6.12.
"""The nine tracepoints of KSM, written to a ring in the machine.

An event keeps what the kernel's record keeps. An address space is also kept by its id, since an address can be used again. While the ring
is off, nothing is recorded and almost no time is spent. A full ring drops its oldest events.
"""

from libc.string cimport memset

from linux.mm_types cimport mm_struct
from linux.spinlock cimport spin_lock, spin_unlock, spinlock_t


cdef enum ksm_trace_type:
    KSM_START_SCAN
    KSM_STOP_SCAN
    KSM_ENTER
    KSM_EXIT
    KSM_MERGE_ONE_PAGE
    KSM_MERGE_WITH_KSM_PAGE
    KSM_REMOVE_KSM_PAGE
    KSM_REMOVE_RMAP_ITEM
    KSM_ADVISOR
    NR_KSM_TRACE_EVENTS


cdef struct ksm_trace_event:
    int type
    int err
    unsigned long pfn           # for the advisor: pages_to_scan
    void *ksm_page
    void *rmap_item
    void *mm
    unsigned long mm_id
    long seq                    # for the advisor: the scan time in seconds
    unsigned int rmap_entries   # for the advisor: the share of a processor in percent


cdef struct ksm_trace_ring:
    spinlock_t lock
    bint enabled
    ksm_trace_event *events
    unsigned long capacity      # a power of two
    unsigned long head          # events written since the ring was switched on
    unsigned long tail          # events read or dropped
    unsigned long lost          # events dropped unread


cdef inline ksm_trace_event *trace_reserve(ksm_trace_ring *ring, int type) noexcept nogil:
    """The next record, cleared, with the ring locked; NULL and unlocked when it is off."""
    cdef ksm_trace_event *event
    if not ring.enabled:
        return NULL
    spin_lock(&ring.lock)
    if ring.events == NULL:
        spin_unlock(&ring.lock)
        return NULL
    if ring.head - ring.tail == ring.capacity:
        ring.tail += 1
        ring.lost += 1
    event = &ring.events[ring.head & (ring.capacity - 1)]
    ring.head += 1
    memset(event, 0, sizeof(ksm_trace_event))
    event.type = type
    return event


cdef inline void trace_commit(ksm_trace_ring *ring) noexcept nogil:
    spin_unlock(&ring.lock)


cdef inline void trace_scan(ksm_trace_ring *ring, int type, int seq, unsigned int rmap_entries) noexcept nogil:
    cdef ksm_trace_event *event = trace_reserve(ring, type)
    if event != NULL:
        event.seq = seq
        event.rmap_entries = rmap_entries
        trace_commit(ring)


cdef inline void trace_ksm_start_scan(ksm_trace_ring *ring, int seq, unsigned int rmap_entries) noexcept nogil:
    trace_scan(ring, KSM_START_SCAN, seq, rmap_entries)


cdef inline void trace_ksm_stop_scan(ksm_trace_ring *ring, int seq, unsigned int rmap_entries) noexcept nogil:
    trace_scan(ring, KSM_STOP_SCAN, seq, rmap_entries)


cdef inline void trace_mm(ksm_trace_ring *ring, int type, mm_struct *mm) noexcept nogil:
    cdef ksm_trace_event *event = trace_reserve(ring, type)
    if event != NULL:
        event.mm = mm
        event.mm_id = mm.id
        trace_commit(ring)


cdef inline void trace_ksm_enter(ksm_trace_ring *ring, mm_struct *mm) noexcept nogil:
    trace_mm(ring, KSM_ENTER, mm)


cdef inline void trace_ksm_exit(ksm_trace_ring *ring, mm_struct *mm) noexcept nogil:
    trace_mm(ring, KSM_EXIT, mm)


cdef inline void trace_ksm_merge_one_page(ksm_trace_ring *ring, unsigned long pfn, void *rmap_item, mm_struct *mm,
                                          int err) noexcept nogil:
    cdef ksm_trace_event *event = trace_reserve(ring, KSM_MERGE_ONE_PAGE)
    if event != NULL:
        event.pfn = pfn
        event.rmap_item = rmap_item
        event.mm = mm
        event.mm_id = mm.id
        event.err = err
        trace_commit(ring)


cdef inline void trace_ksm_merge_with_ksm_page(ksm_trace_ring *ring, void *ksm_page, unsigned long pfn, void *rmap_item,
                                               mm_struct *mm, int err) noexcept nogil:
    cdef ksm_trace_event *event = trace_reserve(ring, KSM_MERGE_WITH_KSM_PAGE)
    if event != NULL:
        event.ksm_page = ksm_page
        event.pfn = pfn
        event.rmap_item = rmap_item
        event.mm = mm
        event.mm_id = mm.id
        event.err = err
        trace_commit(ring)


cdef inline void trace_ksm_remove_ksm_page(ksm_trace_ring *ring, unsigned long pfn) noexcept nogil:
    cdef ksm_trace_event *event = trace_reserve(ring, KSM_REMOVE_KSM_PAGE)
    if event != NULL:
        event.pfn = pfn
        trace_commit(ring)


cdef inline void trace_ksm_remove_rmap_item(ksm_trace_ring *ring, unsigned long pfn, void *rmap_item, mm_struct *mm) noexcept nogil:
    cdef ksm_trace_event *event = trace_reserve(ring, KSM_REMOVE_RMAP_ITEM)
    if event != NULL:
        event.pfn = pfn
        event.rmap_item = rmap_item
        event.mm = mm
        event.mm_id = mm.id
        trace_commit(ring)


cdef inline void trace_ksm_advisor(ksm_trace_ring *ring, long scan_time, unsigned long pages_to_scan,
                                   unsigned int cpu_percent) noexcept nogil:
    cdef ksm_trace_event *event = trace_reserve(ring, KSM_ADVISOR)
    if event != NULL:
        event.seq = scan_time
        event.pfn = pages_to_scan
        event.rmap_entries = cpu_percent
        trace_commit(ring)

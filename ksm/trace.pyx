# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the trace events of KSM for Python.
"""machine.ksm.trace: the events of include/trace/events/ksm.pxd, recorded while the ring is on.

An event costs a few nanoseconds and 72 bytes. A full ring drops its oldest events and counts them.
"""

import operator
from typing import NamedTuple

cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from linux.spinlock cimport spin_lock, spin_unlock
from trace.events.ksm cimport ksm_trace_event, ksm_trace_ring

from ksm.machine cimport Machine

# In the order of enum ksm_trace_type
EVENTS = ("ksm_start_scan", "ksm_stop_scan", "ksm_enter", "ksm_exit", "ksm_merge_one_page", "ksm_merge_with_ksm_page",
          "ksm_remove_ksm_page", "ksm_remove_rmap_item", "ksm_advisor")

cdef enum:
    CHUNK = 256                 # events copied at a time, with the ring locked
    MAX_CAPACITY = 1 << 28


cdef struct ring_state:
    bint enabled
    unsigned long capacity
    unsigned long lost
    unsigned long length


class Event(NamedTuple):
    """One event. Fields that it does not have are 0.

    name            as in the kernel, "ksm_merge_one_page"
    pfn, error      the page, and 0 or -errno; ksm_page is 0 if the merge made a new KSM page
    mm_id           the address space, as Process.mm_id; unlike the address mm it is never used again
    seq             number of the scan; rmap_entries is the number of all rmap_items then
    ksm_advisor     has the scan time in seq, pages_to_scan in pfn and the share of the processor in rmap_entries
    """

    name: str
    seq: int
    rmap_entries: int
    pfn: int
    ksm_page: int
    rmap_item: int
    mm: int
    mm_id: int
    error: int

    def __str__(self):
        """The line of the kernel's trace, from the name on."""
        return f"{self.name}: {_FORMATS[self.name](self)}"


def _scan(event):
    return f"seq {event.seq} rmap size {event.rmap_entries}"


def _mm(event):
    return f"mm {event.mm:016x}"


def _merge(event):
    ksm = "ksm " if event.ksm_page or event.name == "ksm_merge_one_page" else ""
    return f"{ksm}pfn {event.pfn} rmap_item {event.rmap_item:016x} mm {event.mm:016x} error {event.error}"


def _remove_ksm_page(event):
    return f"pfn {event.pfn}"


def _remove_rmap_item(event):
    return f"pfn {event.pfn} rmap_item {event.rmap_item:016x} mm {event.mm:016x}"


def _advisor(event):
    return f"ksm scan time {event.seq} pages_to_scan {event.pfn} cpu percent {event.rmap_entries}"


_FORMATS = dict(zip(EVENTS, (_scan, _scan, _mm, _mm, _merge, _merge, _remove_ksm_page, _remove_rmap_item, _advisor), strict=True))


@cython.no_gc_clear
cdef class Trace:
    """Trace(machine)
--

    The event ring of a machine, which is off until start(). Any number of threads may use it."""

    cdef Machine machine

    def __cinit__(self, Machine machine not None):
        self.machine = machine

    def __reduce__(self):
        raise TypeError("the trace of a machine cannot be copied or pickled")

    cdef int state(self, ring_state *found) except -1 nogil:
        cdef ksm_trace_ring *ring
        self.machine.enter()
        ring = &self.machine.g.trace
        spin_lock(&ring.lock)
        found.enabled = ring.enabled
        found.capacity = ring.capacity
        found.lost = ring.lost
        found.length = ring.head - ring.tail
        spin_unlock(&ring.lock)
        self.machine.leave()
        return 0

    def start(self, capacity=65536):
        """Record events from now on. The ring has room for `capacity` events, rounded up to a power of two. Earlier events are dropped."""
        cdef unsigned long wanted, size = 1
        cdef ksm_trace_event *events
        cdef ksm_trace_ring *ring
        cdef bint made
        capacity = operator.index(capacity)
        if not 1 <= capacity <= MAX_CAPACITY:
            raise ValueError(f"capacity must be between 1 and {MAX_CAPACITY}, not {capacity}")
        wanted = capacity
        while size < wanted:
            size *= 2
        with nogil:
            self.machine.enter()
            events = <ksm_trace_event *>calloc(size, sizeof(ksm_trace_event))
            made = events != NULL
            if made:
                ring = &self.machine.g.trace
                spin_lock(&ring.lock)
                events, ring.events = ring.events, events
                ring.capacity = size
                ring.head = ring.tail = ring.lost = 0
                ring.enabled = True
                spin_unlock(&ring.lock)
                free(events)
            self.machine.leave()
        if not made:
            raise MemoryError

    def stop(self):
        """Stop recording. Recorded events can still be read."""
        with nogil:
            self.machine.enter()
            self.machine.g.trace.enabled = False
            self.machine.leave()

    def read(self, limit=None):
        """Take the oldest events out of the ring, all that are there when the call begins, or at most `limit`: a list of Event."""
        cdef ksm_trace_event[CHUNK] chunk
        cdef ksm_trace_ring *ring
        # No more than there are now: ksmd may go on to add events.
        cdef unsigned long i, count = 1, left = len(self) if limit is None else max(0, min(operator.index(limit), len(self)))
        result = []
        while count:
            with nogil:
                self.machine.enter()
                ring = &self.machine.g.trace
                spin_lock(&ring.lock)
                count = min(ring.head - ring.tail, left, <unsigned long>CHUNK)
                for i in range(count):
                    memcpy(&chunk[i], &ring.events[(ring.tail + i) & (ring.capacity - 1)], sizeof(ksm_trace_event))
                ring.tail += count
                spin_unlock(&ring.lock)
                self.machine.leave()
            left -= count
            for i in range(count):
                result.append(as_event(&chunk[i]))
        return result

    @property
    def enabled(self):
        """Whether events are recorded."""
        cdef ring_state found
        with nogil:
            self.state(&found)
        return found.enabled

    @property
    def capacity(self):
        """The number of events that the ring can hold; 0 before the first start()."""
        cdef ring_state found
        with nogil:
            self.state(&found)
        return found.capacity

    @property
    def lost(self):
        """The number of events that were dropped unread since start()."""
        cdef ring_state found
        with nogil:
            self.state(&found)
        return found.lost

    def __len__(self):
        cdef ring_state found
        with nogil:
            self.state(&found)
        return found.length

    def __bool__(self):
        return True


cdef object as_event(ksm_trace_event *event):
    return Event(EVENTS[event.type], event.seq, event.rmap_entries, event.pfn, <size_t>event.ksm_page, <size_t>event.rmap_item,
                 <size_t>event.mm, event.mm_id, event.err)

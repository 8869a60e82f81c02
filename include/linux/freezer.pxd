# SPDX-License-Identifier: GPL-2.0-only
# Stands in for include/linux/freezer.h of Linux 6.12.
"""When a scan breaks off between two pages. There, because the computer is suspended; here, because somebody waits.

The machine may be about to go. Or whoever scans in a thread of his own wants to hear signals, and his slice of time ends: the clock is
looked at every 64 pages, and more often where pages take long.
"""

from linux.atomic cimport READ_ONCE_int
from linux.mm_types cimport machine
from linux.wait cimport CLOCK_MONOTONIC_COARSE, clock_gettime, timespec


cdef enum:
    LOOK_EACH = 64              # a power of 2
    SLOW_NS = 6000000           # for so many pages; the clock counts in steps of 4 ms


cdef struct freezer:
    unsigned long long until    # when the slice ends, 0: there is no slice
    unsigned long long last     # when the clock was looked at
    unsigned int each           # how many pages ago that may have been
    bint frozen                 # it has ended


cdef inline unsigned long long coarse_ns() noexcept nogil:
    cdef timespec ts
    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts)
    return <unsigned long long>ts.tv_sec * 1000000000 + <unsigned long long>ts.tv_nsec


cdef inline void start_slice(freezer *task, unsigned long long ns) noexcept nogil:
    task.last = coarse_ns() if ns else 0
    task.until = task.last + ns
    task.each = LOOK_EACH
    task.frozen = False


cdef inline bint slice_over(freezer *task) noexcept nogil:
    cdef unsigned long long now = coarse_ns()
    task.each = 1 if now - task.last > SLOW_NS else LOOK_EACH
    task.last = now
    task.frozen = now > task.until
    return task.frozen


cdef inline bint freezing(machine *m, freezer *task, unsigned int left) noexcept nogil:
    """`left` pages before the end of the batch, is it time?"""
    return READ_ONCE_int(m.freezing) != 0 or (left & (task.each - 1) == 0 and task.until != 0 and slice_over(task))

# SPDX-License-Identifier: GPL-2.0-only
# Stands in for include/linux/freezer.h of Linux 6.12.
"""When a scan breaks off between two pages. The kernel does so when the computer is suspended. Here another thread is waiting for the scan.

Either the machine is about to be closed. Or the scan runs in its caller's thread, which has to handle signals, and its slice of time is
over. The clock is read every 64 pages, and more often where pages take long.
"""

from linux.atomic cimport READ_ONCE_int
from linux.mm_types cimport machine
from linux.wait cimport CLOCK_MONOTONIC_COARSE, clock_gettime, timespec


cdef enum:
    LOOK_EACH = 64              # a power of 2
    SLOW_NS = 6000000           # longest time for LOOK_EACH pages, in nanoseconds; the clock counts in steps of 4 ms


cdef struct freezer:
    unsigned long long until    # end of the slice; 0: there is no slice
    unsigned long long last     # when the clock was last read
    unsigned int each           # the clock is read every `each` pages
    bint frozen                 # the slice has ended


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
    """Whether the scan has to break off now, `left` pages before the end of the batch."""
    return READ_ONCE_int(m.freezing) != 0 or (left & (task.each - 1) == 0 and task.until != 0 and slice_over(task))

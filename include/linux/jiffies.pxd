# SPDX-License-Identifier: GPL-2.0-only
# Stands in for include/linux/jiffies.h, ktime.h and timekeeping.h of Linux 6.12.
"""The clock of a machine: the real one, or one that the caller moves."""

from linux.mm_types cimport machine
from linux.wait cimport CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, clock_gettime, timespec

cdef enum:
    HZ = 250
    MSEC_PER_SEC = 1000
    NSEC_PER_MSEC = 1000000

# The largest number of nanoseconds
cdef extern from *:
    const long KTIME_SEC_MAX "9223372036L"


cdef inline long ktime_get(machine *m) noexcept nogil:
    """The time in nanoseconds; a manual clock starts at 0."""
    cdef timespec ts
    if m.manual_clock:
        return m.clock_ns
    clock_gettime(CLOCK_MONOTONIC, &ts)
    return ts.tv_sec * 1000000000 + ts.tv_nsec


cdef inline long ktime_ms_delta(long later, long earlier) noexcept nogil:
    return (later - earlier) // NSEC_PER_MSEC


cdef inline unsigned long jiffies(machine *m) noexcept nogil:
    # The system's coarse clock is enough: it is the same clock, read at each tick, and costs less.
    cdef timespec ts
    if m.manual_clock:
        return <unsigned long>m.clock_ns // (1000000000 // HZ)
    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts)
    return (<unsigned long>ts.tv_sec * 1000000000 + <unsigned long>ts.tv_nsec) // (1000000000 // HZ)


cdef inline unsigned long msecs_to_jiffies(unsigned int msecs) noexcept nogil:
    # The value is rounded up, in 32 bits. Milliseconds that are negative as an int mean for ever: MAX_JIFFY_OFFSET, which still fits into a
    # comparison of jiffies.
    if <int>msecs < 0:
        return 0x3ffffffffffffffeUL
    return (msecs + <unsigned int>(1000 // HZ - 1)) // <unsigned int>(1000 // HZ)


cdef inline bint time_before(unsigned long a, unsigned long b) noexcept nogil:
    return <long>(a - b) < 0

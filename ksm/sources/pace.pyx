# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: how much a scan asks of the processes that it looks at.
"""Rests between looks at other processes.

Each look takes the mmap_lock of a process for reading. Who maps or unmaps memory there waits until it ends, and for longer if the next look
follows at once: a reader may take a lock before a writer that has waited for less than 4 ms (mm_lock is a rw_semaphore; see
rwsem_down_read_slowpath() and RWSEM_WAIT_TIMEOUT of kernel/locking/rwsem.c). So looks leave gaps, in which a writer wakes up. A thread that
loses its processor while it has the lock keeps it until its next turn.
"""

from libc.time cimport timespec
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, nanosleep

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from *:
    """
    static _Thread_local long long looked;      /* time of looks without a gap */
    static _Thread_local long long ended;       /* when the last one ended */
    static _Thread_local long long since;       /* when the last rest ended */
    """
    long long looked
    long long ended
    long long since

cdef enum:
    GAP_NS = 60_000             # a gap: as long as a nap takes, with the slack of timers
    NAP_NS = 10_000
    MOST_LOOKED_NS = 100_000    # time of looks without a gap
    LEAST_NS = 20_000           # shorter work is put together before a rest
    MOST_NS = 10_000_000        # other work, such as a pass of KSM, needs no longer rest
    STEP = 64 << 10             # bytes that are read at once where there are rests

# The share of time that work takes; 0 where it takes all
cdef double share = 0


cdef long long now() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <long long>t.tv_sec * 1_000_000_000 + t.tv_nsec


cdef void sleep_for(long long ns) noexcept nogil:
    cdef timespec t
    t.tv_sec = 0
    t.tv_nsec = <long>ns
    nanosleep(&t, NULL)


cdef void turn() noexcept nogil:
    """Called before a read, which takes the lock many times. Others run first: so this thread keeps its processor meanwhile."""
    if share == 0:
        sched_yield()


cdef void look_ends(long long begun) noexcept nogil:
    """Called after a look that began at now(). Leave a gap, if it is time for one."""
    global looked, ended
    if share != 0:
        rest()
        return
    if begun - ended > GAP_NS:
        looked = 0
    ended = now()
    looked += ended - begun
    if looked > MOST_LOOKED_NS:
        sleep_for(NAP_NS)


cdef void rest() noexcept nogil:
    """Called after work. Sleep as long as the share asks for the work since the last rest."""
    global since
    cdef long long worked
    if share == 0:
        return
    worked = now() - since
    if worked < LEAST_NS:
        return
    sleep_for(<long long>(min(worked, <long long>MOST_NS) * (1 / share - 1)))
    since = now()


cdef size_t step(size_t length) noexcept nogil:
    """Bytes that are read at once: `length`, or fewer where there are rests."""
    return STEP if share != 0 and length > STEP else length


def pause():
    """See rest(). Called between other pieces of work."""
    with nogil:
        rest()


def set_share(double wanted):
    """Rest, so that the work of each thread takes this share of the time, from 0.1 to 1; 0 ends the rests. Returns the share until now.

    It holds for all of this program. ValueError.
    """
    global share
    if wanted != 0 and not 0.1 <= wanted <= 1:
        raise ValueError(f"a share of {wanted:g}: it is 0, or from 0.1 to 1")
    before = share
    share = wanted
    return before

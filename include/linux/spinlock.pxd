# SPDX-License-Identifier: GPL-2.0-only
# Stands in for include/linux/spinlock.h, rwsem.h and mutex.h of Linux 6.12.
"""The three kinds of lock that mm/ uses.

A spinlock is one word. A thread that has to wait long gives the processor away, since the holder may have been preempted. A rw_semaphore
counts its readers; a waiting writer holds off new ones. A mutex is the C library's, because a scan can hold ksm_thread_mutex for seconds.
"""

from linux.atomic cimport (READ_ONCE_ulong, WRITE_ONCE_ulong, atomic_add_return, atomic_read, atomic_try_cmpxchg, cpu_relax,
                           smp_store_release_int, xchg_int)


cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from "<unistd.h>" nogil:
    int usleep(unsigned int usec)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *lock, void *attr)
    int pthread_mutex_destroy(pthread_mutex_t *lock)
    int pthread_mutex_lock(pthread_mutex_t *lock)
    int pthread_mutex_trylock(pthread_mutex_t *lock)
    int pthread_mutex_unlock(pthread_mutex_t *lock)
    unsigned long pthread_self "(unsigned long)pthread_self"()


cdef struct spinlock_t:
    int locked


cdef struct rw_semaphore:
    int count                   # number of readers, or -1 with a writer
    int waiting_writers


cdef struct mutex:
    pthread_mutex_t lock
    unsigned long owner         # the thread that holds it; 0 for none


cdef inline void backoff(int *spins) noexcept nogil:
    # OURS: wait a little, then yield, then sleep: the holder may not be running at all.
    spins[0] += 1
    if spins[0] < 64:
        cpu_relax()
    elif spins[0] < 256:
        sched_yield()
    else:
        usleep(50)


cdef inline void spin_lock_init(spinlock_t *lock) noexcept nogil:
    lock.locked = 0


cdef inline void spin_lock(spinlock_t *lock) noexcept nogil:
    cdef int spins = 0
    while xchg_int(&lock.locked, 1) != 0:
        while atomic_read(&lock.locked) != 0:
            backoff(&spins)


cdef inline void spin_unlock(spinlock_t *lock) noexcept nogil:
    smp_store_release_int(lock.locked, 0)


cdef inline void init_rwsem(rw_semaphore *sem) noexcept nogil:
    sem.count = 0
    sem.waiting_writers = 0


cdef inline bint down_read_trylock(rw_semaphore *sem) noexcept nogil:
    cdef int count = atomic_read(&sem.count)
    while count >= 0:
        if atomic_try_cmpxchg(&sem.count, count, count + 1):
            return True
        count = atomic_read(&sem.count)
    return False


cdef inline void down_read(rw_semaphore *sem) noexcept nogil:
    cdef int spins = 0
    while atomic_read(&sem.waiting_writers) != 0 or not down_read_trylock(sem):
        backoff(&spins)


cdef inline void up_read(rw_semaphore *sem) noexcept nogil:
    atomic_add_return(&sem.count, -1)


cdef inline void down_write(rw_semaphore *sem) noexcept nogil:
    cdef int spins = 0
    if atomic_try_cmpxchg(&sem.count, 0, -1):
        return
    atomic_add_return(&sem.waiting_writers, 1)
    while not atomic_try_cmpxchg(&sem.count, 0, -1):
        backoff(&spins)
    atomic_add_return(&sem.waiting_writers, -1)


cdef inline void up_write(rw_semaphore *sem) noexcept nogil:
    smp_store_release_int(sem.count, 0)


cdef inline bint rwsem_is_locked(rw_semaphore *sem) noexcept nogil:
    return atomic_read(&sem.count) != 0


cdef inline bint rwsem_is_write_locked(rw_semaphore *sem) noexcept nogil:
    return atomic_read(&sem.count) < 0


cdef inline void mutex_init(mutex *lock) noexcept nogil:
    pthread_mutex_init(&lock.lock, NULL)
    lock.owner = 0


cdef inline void mutex_destroy(mutex *lock) noexcept nogil:
    pthread_mutex_destroy(&lock.lock)


cdef inline void mutex_lock(mutex *lock) noexcept nogil:
    pthread_mutex_lock(&lock.lock)
    WRITE_ONCE_ulong(lock.owner, pthread_self())


cdef inline bint mutex_trylock(mutex *lock) noexcept nogil:
    if pthread_mutex_trylock(&lock.lock):
        return False
    WRITE_ONCE_ulong(lock.owner, pthread_self())
    return True


cdef inline bint mutex_is_mine(mutex *lock) noexcept nogil:
    # OURS: whether this thread holds it.
    return READ_ONCE_ulong(lock.owner) == pthread_self()


cdef inline void mutex_unlock(mutex *lock) noexcept nogil:
    WRITE_ONCE_ulong(lock.owner, 0)
    pthread_mutex_unlock(&lock.lock)

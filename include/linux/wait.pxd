# SPDX-License-Identifier: GPL-2.0-only
# Stands in for include/linux/wait.h and kthread.h of Linux 6.12.
"""Wait queues and the one kernel thread.

A wait queue counts its wake-ups. A waiter reads the count, tests its condition, and sleeps only while the count has not changed. So no
wake-up between test and sleep is lost.
"""

from linux.spinlock cimport pthread_mutex_t, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock


cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *ts)
    int CLOCK_MONOTONIC
    int CLOCK_MONOTONIC_COARSE
    int CLOCK_THREAD_CPUTIME_ID

cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t
    ctypedef struct pthread_cond_t:
        pass
    ctypedef struct pthread_condattr_t:
        pass
    int pthread_condattr_init(pthread_condattr_t *attr)
    int pthread_condattr_setclock(pthread_condattr_t *attr, int clock)
    int pthread_condattr_destroy(pthread_condattr_t *attr)
    int pthread_cond_init(pthread_cond_t *cond, pthread_condattr_t *attr)
    int pthread_cond_destroy(pthread_cond_t *cond)
    int pthread_cond_broadcast(pthread_cond_t *cond)
    int pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock)
    int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *lock, timespec *until)
    int pthread_create(pthread_t *thread, void *attr, void *(*start)(void *) noexcept nogil, void *arg)
    int pthread_join(pthread_t thread, void **result)


cdef struct wait_queue_head:
    pthread_mutex_t lock
    pthread_cond_t cond
    unsigned long wakeups


cdef inline void init_waitqueue_head(wait_queue_head *wq) noexcept nogil:
    cdef pthread_condattr_t attr
    pthread_mutex_init(&wq.lock, NULL)
    pthread_condattr_init(&attr)
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC)
    pthread_cond_init(&wq.cond, &attr)
    pthread_condattr_destroy(&attr)
    wq.wakeups = 0


cdef inline void destroy_waitqueue_head(wait_queue_head *wq) noexcept nogil:
    pthread_cond_destroy(&wq.cond)
    pthread_mutex_destroy(&wq.lock)


cdef inline void wake_up_interruptible(wait_queue_head *wq) noexcept nogil:
    pthread_mutex_lock(&wq.lock)
    wq.wakeups += 1
    pthread_cond_broadcast(&wq.cond)
    pthread_mutex_unlock(&wq.lock)


cdef inline unsigned long prepare_to_wait(wait_queue_head *wq) noexcept nogil:
    """The ticket to take before testing the condition."""
    cdef unsigned long ticket
    pthread_mutex_lock(&wq.lock)
    ticket = wq.wakeups
    pthread_mutex_unlock(&wq.lock)
    return ticket


cdef inline void wait_for_wakeup(wait_queue_head *wq, unsigned long ticket) noexcept nogil:
    """Sleep until a thread has woken the queue since `ticket` was taken."""
    pthread_mutex_lock(&wq.lock)
    while wq.wakeups == ticket:
        pthread_cond_wait(&wq.cond, &wq.lock)
    pthread_mutex_unlock(&wq.lock)


cdef inline bint wait_for_wakeup_timeout(wait_queue_head *wq, unsigned long ticket, unsigned long long ns) noexcept nogil:
    """The same for at most `ns` nanoseconds; true when woken."""
    cdef timespec until
    cdef bint woken
    clock_gettime(CLOCK_MONOTONIC, &until)
    ns += <unsigned long long>until.tv_nsec
    until.tv_sec += <time_t>(ns // 1000000000)
    until.tv_nsec = <long>(ns % 1000000000)
    pthread_mutex_lock(&wq.lock)
    while wq.wakeups == ticket:
        if pthread_cond_timedwait(&wq.cond, &wq.lock, &until) != 0:
            break
    woken = wq.wakeups != ticket
    pthread_mutex_unlock(&wq.lock)
    return woken

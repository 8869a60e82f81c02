# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading pages with several threads.
"""Checksums and keys of the next READ_AHEAD pages, computed by several threads: ksm.Machine(threads=N).

Most of a first pass is reading pages. When the look ahead comes to pages of which it knows nothing, ksmd watches the next ones, too, starts
threads that read them, and waits for the threads. So nobody else runs when ksmd goes on, and a fork or a close() meets no thread of a pool.

What was read holds as long as the page is watched (watch.pxd). Only ksmd begins to watch a page. When its look ahead comes to the page, and
finds that it has to begin anew, the page may have been written to since it was read, and is read again (scanned_page.fresh). A page that is
mapped more than once is not read here: ksmd could come to it at another address first, and begin to watch it anew there.
"""

from libc.errno cimport ENOMEM
from libc.stdlib cimport calloc, free

from linux.atomic cimport atomic_read
from linux.mm cimport vma_lookup
from linux.mm_types cimport PAGE_SHIFT, mm_struct, vm_area_struct
from linux.mmap_lock cimport mmap_read_trylock, mmap_read_unlock
from linux.page_flags cimport folio_mapcount, folio_test_ksm

from ksm.fast.look_ahead cimport find_items, read_pages, watch_pages, will_skip
from ksm.fast.state cimport LOOK_AHEAD, fast_state, scanned_page
from ksm.fast.watch cimport page_linked
from ksm.mm.ksm cimport ksm_rmap_item

cdef extern from *:
    """
    #include <pthread.h>
    #include <signal.h>

    enum { KSM_MOST_THREADS = 64 };

    struct ksm_work {
        void (*run)(void *work);
        unsigned int next;              /* taken by all threads */
    };

    static void *ksm_work_thread(void *arg)
    {
        struct ksm_work *work = arg;

        work->run(work);
        return NULL;
    }

    /* Run it on so many threads, of which this is one, until all are done. A thread that the system has no room for is left out. */
    static void ksm_run_on_threads(void *arg, int threads)
    {
        struct ksm_work *work = arg;
        pthread_t others[KSM_MOST_THREADS];
        sigset_t all, old;
        int started = 0;

        /* Signals are for the program's own threads, but for those that an instruction causes: a read of a mapped image may fail. */
        sigfillset(&all);
        sigdelset(&all, SIGBUS);
        sigdelset(&all, SIGSEGV);
        sigdelset(&all, SIGFPE);
        sigdelset(&all, SIGILL);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        while (started < threads - 1 && !pthread_create(&others[started], NULL, ksm_work_thread, work))
            started++;
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        work->run(work);
        while (started)
            pthread_join(others[--started], NULL);
    }

    static unsigned int ksm_take(void *work, unsigned int nr)
    {
        return __atomic_fetch_add(&((struct ksm_work *)work)->next, nr, __ATOMIC_RELAXED);
    }
    """
    enum:
        KSM_MOST_THREADS
    struct ksm_work:
        void (*run)(void *work) noexcept nogil
        unsigned int next
    void ksm_run_on_threads(void *work, int threads) nogil
    unsigned int ksm_take(void *work, unsigned int nr) nogil


cdef enum:
    READ_AHEAD = 8192
    LEAST = 512                 # pages for which it is worth while to start threads
    WAIT = READ_AHEAD // LOOK_AHEAD // 4


cdef struct reading:
    ksm_work work               # first: the threads get its address
    fast_state *fast
    unsigned int nr


cdef int read_ahead_init(fast_state *fast) noexcept nogil:
    """Make room for what several threads read: 0 or -ENOMEM."""
    if fast.g.m.threads < 2:
        return 0
    fast.ahead = <scanned_page *>calloc(READ_AHEAD, sizeof(scanned_page))
    fast.to_read = <scanned_page **>calloc(READ_AHEAD, sizeof(scanned_page *))
    if fast.ahead != NULL and fast.to_read != NULL:
        return 0
    read_ahead_exit(fast)
    return -ENOMEM


cdef void read_ahead_exit(fast_state *fast) noexcept nogil:
    free(fast.ahead)
    free(fast.to_read)


cdef void read_some(void *work) noexcept nogil:
    """What each thread does: take a few pages, and read them."""
    cdef reading *r = <reading *>work
    cdef unsigned int first = ksm_take(work, LOOK_AHEAD)
    while first < r.nr:
        read_pages(r.fast, r.fast.to_read + first, min(<unsigned int>LOOK_AHEAD, r.nr - first))
        first = ksm_take(work, LOOK_AHEAD)


cdef void read_ahead(fast_state *fast, mm_struct *mm, unsigned long address, ksm_rmap_item *rmap_item) noexcept nogil:
    """Read the next pages of an address space, if there are enough."""
    cdef vm_area_struct *vma
    cdef scanned_page *seen
    cdef reading r
    cdef unsigned int i
    fast.nr_ahead = 0
    fast.next_ahead = 0
    fast.ahead_mm = mm.id
    if not mmap_read_trylock(mm):
        return
    vma = vma_lookup(mm, address)
    if vma != NULL and (vma.vm_end - address) >> PAGE_SHIFT >= LEAST and atomic_read(&mm.mm_users) != 0:
        fast.nr_ahead = watch_pages(fast, mm, address, fast.ahead, READ_AHEAD)
    mmap_read_unlock(mm)
    find_items(fast.ahead, fast.nr_ahead, rmap_item)
    r.fast = fast
    r.nr = 0
    for i in range(fast.nr_ahead):
        seen = &fast.ahead[i]
        if folio_test_ksm(seen.page) or folio_mapcount(seen.page) != 1:
            continue
        if seen.rmap_item == NULL or not will_skip(fast.g, seen.rmap_item) and not page_linked(fast, seen.page, seen.rmap_item):
            fast.to_read[r.nr] = seen
            r.nr += 1
    if r.nr >= LEAST:
        r.work.run = read_some
        r.work.next = 0
        ksm_run_on_threads(&r, min(fast.g.m.threads, <int>KSM_MOST_THREADS))
    else:
        fast.nr_ahead = 0
        fast.ahead_wait = WAIT


cdef unsigned int take_read(fast_state *fast, scanned_page **unread, unsigned int nr, bint just_now) noexcept nogil:
    """Give these pages what was read of them. Those of which nothing was read, or that may have changed since, are moved to the front: how
    many.
    """
    cdef scanned_page *seen
    cdef scanned_page *was
    cdef unsigned int i, left = 0
    for i in range(nr):
        seen = unread[i]
        while fast.next_ahead < fast.nr_ahead and fast.ahead[fast.next_ahead].address < seen.address:
            fast.next_ahead += 1
        was = &fast.ahead[fast.next_ahead]
        if (fast.next_ahead < fast.nr_ahead and was.address == seen.address and was.page == seen.page and was.key
                and (just_now or not seen.fresh)):
            seen.checksum = was.checksum
            seen.key = was.key
        else:
            unread[left] = seen
            left += 1
    return left


cdef unsigned int not_read_ahead(fast_state *fast, mm_struct *mm, ksm_rmap_item *rmap_item, scanned_page **unread, unsigned int nr,
                                 unsigned int most) noexcept nogil:
    """For a look ahead: fill in what was read of these pages, and read more if they are the first of many. How many have yet to be read;
    these are moved to the front.
    """
    if fast.ahead_mm == mm.id:
        nr = take_read(fast, unread, nr, False)
    if nr == LOOK_AHEAD and most >= LEAST:
        if fast.ahead_wait:
            fast.ahead_wait -= 1
        else:
            read_ahead(fast, mm, unread[0].address, rmap_item)
            nr = take_read(fast, unread, nr, True)
    return nr

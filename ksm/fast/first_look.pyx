# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: checksums by several threads.
"""A first look: the checksums and keys of some thousand pages, computed by several threads before ksmd comes to them.

Where all pages of a look ahead have to be read, most of a pass is spent on their checksums. So the pages behind them are watched, and each
thread reads a part of them. ksmd itself is one of the threads, and goes on when all of them are done: nothing is computed while it scans.

What was computed for a page holds as long as the page is watched. looked_at() takes it for a page that the look ahead has found watched.
A page that the look ahead has to watch anew was written to in between, and what was computed for it is dropped for good. So the results
are those of one thread, whatever is written meanwhile.

The threads are made for one first look and end with it: it takes some milliseconds, and making a thread some microseconds. So a fork and a
close() meet no thread of a pool.
"""

from libc.errno cimport ENOMEM
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free

from linux.atomic cimport atomic_read
from linux.highmem cimport has_bytes
from linux.mm_types cimport mm_struct
from linux.mmap_lock cimport mmap_read_trylock, mmap_read_unlock
from linux.page_flags cimport page_address
from linux.types cimport u32
from linux.wait cimport pthread_join, pthread_t

from ksm.fast.look_ahead cimport watch_pages
from ksm.fast.page_keys cimport page_keys_in
from ksm.fast.state cimport LOOK_AHEAD, fast_state, frame_words, scanned_page
from ksm.fast.xxhash_many cimport xxh64_pages


cdef extern from *:
    """
    #include <pthread.h>
    #include <signal.h>

    /* Make a thread that gets no signals but those that its own instructions cause: a read of a mapped image may fail. */
    static int ksm_make_thread(pthread_t *thread, void *(*start)(void *), void *arg)
    {
        static const int own[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL};
        sigset_t all, before;
        int err;

        sigfillset(&all);
        for (unsigned int i = 0; i < sizeof(own) / sizeof(own[0]); i++)
            sigdelset(&all, own[i]);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        err = pthread_create(thread, NULL, start, arg);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        return err;
    }
    """
    int make_thread "ksm_make_thread"(pthread_t *thread, void *(*start)(void *) noexcept nogil, void *arg) nogil

cdef enum:
    PART = 4096                 # pages of one thread
    LEAST = 2048                # pages that are worth a thread


cdef struct reader:
    fast_state *fast
    scanned_page *pages
    unsigned int nr
    pthread_t thread


cdef int first_look_init(fast_state *fast, unsigned int threads) noexcept nogil:
    """Let `threads` threads compute checksums: 0 or -ENOMEM."""
    fast.threads = threads
    fast.first_least = LEAST
    if threads > 1:
        fast.first = <scanned_page *>calloc(<size_t>threads * PART, sizeof(scanned_page))
        fast.readers = calloc(threads, sizeof(reader))
    return -ENOMEM if threads > 1 and (fast.first == NULL or fast.readers == NULL) else 0


cdef void first_look_exit(fast_state *fast) noexcept nogil:
    free(fast.first)
    free(fast.readers)


cdef void *read_part(void *arg) noexcept nogil:
    """The work of one thread."""
    cdef reader *own = <reader *>arg
    cdef fast_state *fast = own.fast
    cdef const void *pages[LOOK_AHEAD]
    cdef uint64_t checksums[LOOK_AHEAD]
    cdef uint64_t keys[LOOK_AHEAD]
    cdef unsigned int done = 0, some, i
    while done < own.nr:
        some = own.nr - done if own.nr - done < LOOK_AHEAD else LOOK_AHEAD
        for i in range(some):
            pages[i] = page_address(fast.g.m, own.pages[done + i].page)
        xxh64_pages(pages, checksums, <int>some)
        page_keys_in(fast.book, <const char **>pages, keys, <int>some, frame_words(fast))
        for i in range(some):
            own.pages[done + i].checksum = <u32>checksums[i]
            own.pages[done + i].key = keys[i]
        done += some
    return NULL


cdef void first_look(fast_state *fast, mm_struct *mm, unsigned long address, unsigned long most) noexcept nogil:
    """Look at the pages from this address on, `most` of them at most, that are not watched yet."""
    cdef reader *readers = <reader *>fast.readers
    cdef unsigned int want = fast.threads * PART, begun = 0, part, left, i
    cdef scanned_page *pages = fast.first
    if most < want:
        want = <unsigned int>most
    fast.nr_first = 0
    fast.next_first = 0
    fast.first_mm = mm
    if fast.threads < 2 or want < fast.first_least or not has_bytes(fast.g.m) or not mmap_read_trylock(mm):
        return
    if atomic_read(&mm.mm_users) != 0:
        watch_pages(fast, mm, address, want, True)
    mmap_read_unlock(mm)
    left = fast.nr_first
    fast.pages_read += left
    part = (left + fast.threads - 1) // fast.threads
    while left:
        readers[begun].fast = fast
        readers[begun].pages = pages
        readers[begun].nr = part if part < left else left
        pages += readers[begun].nr
        left -= readers[begun].nr
        # ksmd itself reads the last part, and each that no thread can be had for.
        if left == 0 or make_thread(&readers[begun].thread, read_part, &readers[begun]):
            read_part(&readers[begun])
        else:
            begun += 1
    for i in range(begun):
        pthread_join(readers[i].thread, NULL)


cdef bint looked_at(fast_state *fast, scanned_page *seen) noexcept nogil:
    """Set the checksum and key of a page of the look ahead, if a first look has them. Pages come in the order of their addresses."""
    cdef scanned_page *first
    if fast.next_first == fast.nr_first or fast.first_mm != fast.g.ksm_scan.mm_slot.slot.mm:
        return False
    while fast.next_first < fast.nr_first and fast.first[fast.next_first].address < seen.address:
        fast.next_first += 1
    first = &fast.first[fast.next_first]
    if fast.next_first == fast.nr_first or first.address != seen.address or first.page != seen.page:
        return False
    if not seen.watched_before:
        first.page = NULL
        return False
    seen.checksum = first.checksum
    seen.key = first.key
    fast.pages_known += 1
    return True

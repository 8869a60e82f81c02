# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: bus errors of the computer that this runs on.
# cython: linetrace=False
"""SIGBUS: what a thread gets that reads a mapped image whose file was truncated, or whose disk fails.

The page becomes a page of zeros, and is counted. The instruction that failed is repeated, and reads the zeros. Every other SIGBUS goes to
the handler that was there before. A signal handler belongs to the process, not to a machine: its data is kept once for all machines, and
it is installed when the first image is mapped.
"""

from libc.errno cimport EINVAL, ENOMEM, errno
from libc.signal cimport raise_, SIGBUS
from libc.stdlib cimport calloc

from linux.atomic cimport atomic_long_inc, smp_load_acquire_ptr, smp_store_release_ptr
from linux.mm_types cimport PAGE_SHIFT, PAGE_SIZE, machine, struct_page
from linux.page_flags cimport PG_file, PG_lost, set_page_flag, test_page_flag
from linux.spinlock cimport spin_lock, spin_unlock, spinlock_t

from ksm.host.mman cimport (MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE, c_madvise, c_mmap)

cdef extern from *:
    """
    #include <signal.h>
    #include <sys/mman.h>
    #ifndef MADV_POPULATE_READ
    #define MADV_POPULATE_READ 22
    #endif
    """
    const int MADV_POPULATE_READ
    const int SA_SIGINFO
    const int SA_ONSTACK
    const int BUS_ADRERR
    ctypedef struct siginfo_t:
        int si_code
        void *si_addr
    ctypedef void (*handler_t)(int) noexcept nogil
    ctypedef void (*sigaction_t)(int, siginfo_t *, void *) noexcept nogil
    struct sigaction_s "sigaction":
        handler_t sa_handler
        sigaction_t sa_sigaction
        int sa_flags
    int sigaction(int signum, const sigaction_s *action, sigaction_s *old) nogil
    handler_t SIG_DFL
    handler_t SIG_IGN


cdef struct watched_arena:
    watched_arena *next
    void *m                     # NULL: the entry is free
    char *start
    char *end


cdef watched_arena *arenas = NULL       # entries are added and used again, and never freed
cdef sigaction_s others                 # the handler before ours: it gets every fault that is not ours
cdef bint installed = False
cdef spinlock_t lock                    # of the list, and of install()
cdef spinlock_t losing                  # held while a page becomes zeros


cdef bint lose_page(machine *m, unsigned long pfn) noexcept nogil:
    """Put zeros in place of a page that cannot be read: True if it can be read now."""
    cdef struct_page *page = m.mem_map + pfn
    cdef void *start = m.arena + (pfn << PAGE_SHIFT)
    cdef bint done = True
    if not test_page_flag(page, PG_file):
        return False
    spin_lock(&losing)
    if test_page_flag(page, PG_lost):
        # Another thread has put the zeros there, or there is no memory for them. A kernel before 5.14 cannot tell: EINVAL.
        done = c_madvise(start, PAGE_SIZE, MADV_POPULATE_READ) == 0 or errno == EINVAL
    elif c_mmap(start, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED:
        done = False            # no more mappings are allowed
    else:
        set_page_flag(page, PG_lost)
        atomic_long_inc(&m.nr_lost)
    spin_unlock(&losing)
    return done


cdef bint is_ours(char *address) noexcept nogil:
    cdef watched_arena *arena = <watched_arena *>smp_load_acquire_ptr((<void **>&arenas)[0])
    cdef machine *m
    while arena != NULL:
        # A machine is not closed while a thread reads its memory.
        m = <machine *>smp_load_acquire_ptr(arena.m)
        if m != NULL and arena.start <= address < arena.end:
            return lose_page(m, <unsigned long>(address - arena.start) >> PAGE_SHIFT)
        arena = arena.next
    return False


cdef void pass_on(int signum, siginfo_t *info, void *context) noexcept nogil:
    cdef sigaction_s default
    if others.sa_flags & SA_SIGINFO:
        others.sa_sigaction(signum, info, context)
    elif others.sa_handler == SIG_IGN and info.si_code <= 0:
        pass                    # a process has sent the signal
    elif others.sa_handler == SIG_DFL or others.sa_handler == SIG_IGN:
        default = others
        default.sa_handler = SIG_DFL
        sigaction(signum, &default, NULL)
        # A fault is repeated when this handler returns; a signal that was sent is not.
        if info.si_code <= 0:
            raise_(signum)
    else:
        others.sa_handler(signum)


cdef void on_bus_error(int signum, siginfo_t *info, void *context) noexcept nogil:
    cdef int before = errno
    if not (info.si_code == BUS_ADRERR and is_ours(<char *>info.si_addr)):
        pass_on(signum, info, context)
    (&errno)[0] = before


cdef void install() noexcept nogil:
    cdef sigaction_s action
    global installed
    if not installed and sigaction(SIGBUS, NULL, &others) == 0:
        action = others
        action.sa_sigaction = on_bus_error
        action.sa_flags = SA_SIGINFO | SA_ONSTACK
        installed = sigaction(SIGBUS, &action, NULL) == 0


cdef int watch_arena(machine *m) noexcept nogil:
    """From now on, pages of this machine's images that cannot be read become zeros: 0 or -ENOMEM."""
    cdef watched_arena *arena
    cdef watched_arena *free_one = NULL
    global arenas
    spin_lock(&lock)
    install()
    arena = arenas
    while arena != NULL and arena.m != m:
        if arena.m == NULL:
            free_one = arena
        arena = arena.next
    if arena == NULL and free_one != NULL:
        free_one.end = NULL     # in whatever order a thread sees these stores, the entry has no address of another arena
        free_one.start = m.arena
        free_one.end = m.arena + (m.max_pfn << PAGE_SHIFT)
        smp_store_release_ptr(free_one.m, m)
        arena = free_one
    if arena == NULL:
        arena = <watched_arena *>calloc(1, sizeof(watched_arena))
        if arena != NULL:
            arena.m = m
            arena.start = m.arena
            arena.end = m.arena + (m.max_pfn << PAGE_SHIFT)
            arena.next = arenas
            smp_store_release_ptr((<void **>&arenas)[0], arena)
    spin_unlock(&lock)
    return 0 if arena != NULL else -ENOMEM


cdef void unwatch_arena(machine *m) noexcept nogil:
    """Forget a machine that is closed. The lock is not taken: in a forked child, the thread that holds it may not exist."""
    cdef watched_arena *arena = <watched_arena *>smp_load_acquire_ptr((<void **>&arenas)[0])
    while arena != NULL:
        if arena.m == m:
            smp_store_release_ptr(arena.m, NULL)
        arena = arena.next

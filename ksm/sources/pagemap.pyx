# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the other side of fs/proc/task_mmu.c and mm/process_vm_access.c.
"""Which pages a running process has, and what is in them.

A run is a tuple (start, end) of addresses of neighbouring pages. Nothing here faults a page in: pagemap is asked first, and only what is
present is read.
"""

import mmap
import os

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EFAULT, EINTR, EIO, ENOTTY, errno
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from linux.mm_types cimport HPAGE_PMD_NR, PAGE_SHIFT, PAGE_SIZE

from ksm.sources.pace cimport look_ends, now, rest, step, turn


cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t process_vm_readv(int pid, const iovec *local, unsigned long nr_local, const iovec *remote, unsigned long nr_remote,
                             unsigned long flags)

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)
    int getpid()

cdef extern from "<sys/syscall.h>" nogil:
    """
    #ifndef SYS_kcmp            /* left out of some C libraries */
    #define SYS_kcmp -1
    #endif
    """
    long SYS_kcmp


cdef enum:
    IN_HUGE = HPAGE_PMD_NR - 1  # the bits of a page's number that say where in a block of 2 MiB it is

    KCMP_VM = 1

    NR_IOVEC = 1024             # IOV_MAX

cdef uint64_t PAGEMAP_SCAN = (<uint64_t>3 << 30) | (<uint64_t>sizeof(pm_scan_arg) << 16) | (<uint64_t>c'f' << 8) | 16

# Bits of a pagemap entry
cdef uint64_t PM_PRESENT = <uint64_t>1 << 63
cdef uint64_t PM_SWAP = <uint64_t>1 << 62
cdef uint64_t PM_FILE = <uint64_t>1 << 61
cdef uint64_t PM_MMAP_EXCLUSIVE = <uint64_t>1 << 56
cdef uint64_t PM_ALONE = PM_PRESENT | PM_FILE | PM_MMAP_EXCLUSIVE
cdef uint64_t PM_PFRAME = (<uint64_t>1 << 55) - 1

cdef uint64_t known_flags = ~<uint64_t>0


cdef void append(list runs, uint64_t start, uint64_t end):
    """Add a run, joined with the last one if that ends here."""
    if runs and (<tuple>runs[len(runs) - 1])[1] == start:
        start = (<tuple>runs.pop())[0]
    runs.append((start, end))


def anonymous_runs(int pagemap, int kpageflags, list areas, *, bint ask_ioctl=True):
    """The runs of present anonymous pages in `areas`, a list of (start, end); pages that are the kernel's zero page are left out.

    Kernels before 6.7 do not have the PAGEMAP_SCAN ioctl, and their pagemap does not show the zero page. There /proc/kpageflags shows it;
    without that file (-1), pages that are the zero page stay in. ask_ioctl=False treats every kernel like these. OSError;
    ProcessLookupError when the process is gone.
    """
    cdef list runs = []
    for start, end in areas:
        if not ask_ioctl or not scan_area(pagemap, start, end, runs, 0):
            walk_area(pagemap, kpageflags, start, end, runs)
        PyErr_CheckSignals()
    return runs


def has_scan(int pagemap):
    """Whether the kernel has the PAGEMAP_SCAN ioctl."""
    return scan_area(pagemap, 0, PAGE_SIZE, [], 0)


cdef int find_regions(int fd, pm_scan_arg *arg, uint64_t start, uint64_t end, page_region *regions) except -2:
    """Ask PAGEMAP_SCAN once, for the categories in `arg`: how many regions were found, NR_REGIONS at most; the next look begins at
    `arg.walk_end`. -1 if the kernel does not have it.
    """
    cdef long long begun
    cdef int n, error
    arg.size = sizeof(arg[0])
    arg.start = start
    arg.end = end if end - start < WALKED_AT_ONCE else start + WALKED_AT_ONCE
    arg.max_pages = FOUND_AT_ONCE
    arg.vec = <uint64_t>regions
    arg.vec_len = NR_REGIONS
    while True:
        with nogil:
            begun = now()
            n = ioctl(fd, PAGEMAP_SCAN, arg)
            error = errno
            look_ends(begun)
        if n >= 0:
            return n
        if error == ENOTTY:
            return -1
        if error != EINTR:
            raise OSError(error, os.strerror(error))
        PyErr_CheckSignals()


cdef bint scan_area(int fd, uint64_t start, uint64_t end, list runs, uint64_t also) except -1:
    """Add the area's runs, found by PAGEMAP_SCAN: pages that are also in these categories. False if the kernel does not have it."""
    cdef page_region regions[NR_REGIONS]
    cdef pm_scan_arg arg
    cdef int n, i
    memset(&arg, 0, sizeof(arg))
    arg.category_inverted = PAGE_IS_FILE | PAGE_IS_PFNZERO
    arg.category_mask = PAGE_IS_PRESENT | PAGE_IS_FILE | PAGE_IS_PFNZERO | also
    arg.return_mask = PAGE_IS_PRESENT
    while start < end:
        n = find_regions(fd, &arg, start, end, regions)
        if n < 0:
            return False
        for i in range(n):
            append(runs, regions[i].start, regions[i].end)
        if arg.walk_end <= start:
            break
        start = arg.walk_end
    return True


cdef ssize_t read_entries(int fd, uint64_t *entries, uint64_t addr, uint64_t nr_pages) except -1:
    """Read the pagemap entries of at most NR_ENTRIES pages: how many were read; 0 where the address space ends."""
    cdef ssize_t n
    cdef int error
    cdef long long begun
    if nr_pages > NR_ENTRIES:
        nr_pages = NR_ENTRIES
    with nogil:
        begun = now()
        n = pread(fd, entries, nr_pages * sizeof(uint64_t), <long>(addr >> PAGE_SHIFT) * <long>sizeof(uint64_t))
        error = errno
        look_ends(begun)
    if n < 0:
        raise OSError(error, os.strerror(error))
    return n // <ssize_t>sizeof(uint64_t)


cdef ssize_t read_counted(int fd, int kpagecount, uint64_t *entries, uint64_t addr, uint64_t nr_pages) except -1:
    """read_entries() as far as a block of 2 MiB goes, with PM_MMAP_EXCLUSIVE off in each part of a huge page of which any part is shared.

    To read one such part with process_vm_readv() would split the mapping of the huge page, and copy the part. Where one entry maps the huge
    page, Linux 6.18 says of each part what is true of the first. /proc/kpagecount, if it can be read, tells of all.
    """
    cdef uint64_t place = addr >> PAGE_SHIFT & IN_HUGE, base
    cdef uint64_t counts[NR_ENTRIES]
    cdef ssize_t n = read_entries(fd, entries, addr, min(nr_pages, HPAGE_PMD_NR - place)), i, k
    if kpagecount < 0 or n <= 0:
        return n
    for i in range(n):
        if not entries[i] & PM_MMAP_EXCLUSIVE and is_part(entries[i], place + <uint64_t>i):
            keep_together(entries, n, place, base_of(entries[i], place + <uint64_t>i))
            return n
    base = base_of(entries[0], place)
    if entries[0] & PM_MMAP_EXCLUSIVE and is_part(entries[0], place) and entries[n - 1] & PM_PFRAME == base + place + <uint64_t>n - 1:
        if pread(kpagecount, counts, <size_t>n * 8, <long>(base + place) * 8) == n * 8:
            for k in range(n):
                if counts[k] > 1:
                    keep_together(entries, n, place, base)
                    break
    return n


cdef inline bint is_part(uint64_t entry, uint64_t place) noexcept nogil:
    """Whether the frame may be a part of a huge page: it then is at the place of the page in a block of 2 MiB."""
    return entry & PM_PRESENT and not entry & PM_FILE and entry & PM_PFRAME and (entry ^ place) & IN_HUGE == 0


cdef inline uint64_t base_of(uint64_t entry, uint64_t place) noexcept nogil:
    return (entry & PM_PFRAME) - place


cdef void keep_together(uint64_t *entries, ssize_t n, uint64_t place, uint64_t base) noexcept nogil:
    cdef ssize_t i
    for i in range(n):
        if is_part(entries[i], place + <uint64_t>i) and base_of(entries[i], place + <uint64_t>i) == base:
            entries[i] &= ~PM_MMAP_EXCLUSIVE


cdef uint64_t page_flags(int kpageflags, uint64_t pfn) noexcept nogil:
    """The flags of a frame; 0 if they cannot be read."""
    cdef uint64_t flags = 0
    if kpageflags < 0 or pfn == 0 or pread(kpageflags, &flags, sizeof(flags), <long>pfn * 8) != sizeof(flags):
        return 0
    return flags & known_flags


cdef uint64_t frame_of(unsigned char[::1] page) except? 0:
    """Write to a page of this program: the number of its frame; 0 where this program sees no frames."""
    cdef uint64_t entry = 0
    page[0] = 1
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        read_entries(pagemap.fileno(), &entry, <uint64_t>&page[0], 1)
    return entry & PM_PFRAME


def sees_frames():
    """Whether this program sees the numbers of frames. Without CAP_SYS_ADMIN, pagemap shows 0 in their place, to root, too."""
    try:
        return frame_of(mmap.mmap(-1, PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)) != 0
    except OSError:
        return False


def learn_ksm_flag(int kpageflags):
    """Find out whether the flag KPF_KSM in /proc/kpageflags tells KSM's pages from others, and pass over it from now on if not. OSError.

    In 6.12, each anonymous page has it: stable_page_flags() asks for any bit of two. A page of this program, which nobody has merged, shows
    it. Where this program sees no frames, the flag is believed.
    """
    global known_flags
    cdef uint64_t flags = 0
    memory = mmap.mmap(-1, PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    cdef uint64_t pfn = frame_of(memory)
    if pfn and pread(kpageflags, &flags, sizeof(flags), <long>pfn * 8) == sizeof(flags) and flags >> KPF_KSM & 1:
        known_flags = ~(<uint64_t>1 << KPF_KSM)
    else:
        known_flags = ~<uint64_t>0
    return known_flags >> KPF_KSM & 1 == 1


cdef int walk_area(int fd, int kpageflags, uint64_t start, uint64_t end, list runs) except -1:
    cdef uint64_t entries[NR_ENTRIES]
    cdef uint64_t entry, addr = start
    cdef ssize_t n, i
    while addr < end:
        n = read_entries(fd, entries, addr, (end - addr) >> PAGE_SHIFT)
        if n == 0:
            break
        for i in range(n):
            entry = entries[i]
            if entry & PM_PRESENT and not entry & PM_FILE:
                # The zero page has many mappings, so a page that is mapped exclusively is not the zero page.
                if entry & PM_MMAP_EXCLUSIVE or not page_flags(kpageflags, entry & PM_PFRAME) >> KPF_ZERO_PAGE & 1:
                    append(runs, addr, addr + PAGE_SIZE)
            addr += PAGE_SIZE
    return 0


def own_runs(int pagemap, int kpageflags, list runs, set claimed, *, int kpagecount=-1):
    """The anonymous pages of the runs without those that another process has brought: (alone, common, shared, hidden).

    Pages that are not there, of a file, or the zero page (if kpageflags can be read) are left out. `alone` has the pages that no other
    process maps. `common` has those that other processes map too, and that count for this one. Pages that processes share since a fork are
    one frame already: the first process puts it into `claimed`; for the next ones the page is left out, and counts as shared. A frame that
    the kernel's own KSM has merged does not count as shared: that it is one frame is what KSM saves. Without CAP_SYS_ADMIN, pagemap shows
    no frames: such pages stay in, and count as hidden. kpagecount is /proc/kpagecount: see read_counted().
    """
    cdef uint64_t entries[NR_ENTRIES]
    cdef uint64_t entry, pfn, addr, end
    cdef unsigned long shared = 0, hidden = 0
    cdef ssize_t n, i
    cdef list alone = [], common = []
    for run_start, run_end in runs:
        addr = run_start
        end = run_end
        while addr < end:
            n = read_counted(pagemap, kpagecount, entries, addr, (end - addr) >> PAGE_SHIFT)
            if n == 0:
                break
            i = 0
            while i < n:
                entry = entries[i]
                if entry & PM_ALONE == PM_PRESENT | PM_MMAP_EXCLUSIVE:
                    first = addr
                    while i < n and entries[i] & PM_ALONE == PM_PRESENT | PM_MMAP_EXCLUSIVE:
                        i += 1
                        addr += PAGE_SIZE
                    append(alone, first, addr)
                    continue
                if entry & PM_PRESENT and not entry & PM_FILE and not page_flags(kpageflags, entry & PM_PFRAME) >> KPF_ZERO_PAGE & 1:
                    pfn = entry & PM_PFRAME
                    if pfn == 0:
                        hidden += 1
                        append(common, addr, addr + PAGE_SIZE)
                    else:
                        # Where the flag of KSM's pages means nothing, a page at another address is not there by a fork.
                        frame = <object>pfn if known_flags >> KPF_KSM & 1 else <object>(pfn, addr)
                        if frame in claimed and not page_flags(kpageflags, pfn) >> KPF_KSM & 1:
                            shared += 1
                        else:
                            claimed.add(frame)
                            append(common, addr, addr + PAGE_SIZE)
                i += 1
                addr += PAGE_SIZE
        PyErr_CheckSignals()
    return alone, common, shared, hidden


def same_memory(int first, int second):
    """Whether two processes share one address space (vfork, CLONE_VM); False where the kernel does not say."""
    return SYS_kcmp >= 0 and syscall(SYS_kcmp, first, second, KCMP_VM, 0, 0) == 0


cdef ssize_t read_batch(int pid, iovec *remote, int nr, char *buf, size_t length) noexcept nogil:
    """process_vm_readv: bytes read, or -errno."""
    cdef iovec local
    cdef ssize_t n
    local.iov_base = buf
    local.iov_len = length
    n = process_vm_readv(pid, &local, 1, remote, nr, 0)
    return n if n >= 0 else -errno


cdef ssize_t read_forced(int mem, char *buf, size_t length, uint64_t addr) noexcept nogil:
    """Read /proc/PID/mem, even pages that the process itself may not read (PROT_NONE): bytes read, 0 if nothing is mapped any more."""
    cdef ssize_t n = pread(mem, buf, length, <long>addr)
    return n if n >= 0 else (0 if errno == EIO or errno == EFAULT else -errno)


def read_runs(int pid, int mem, list runs, sink, unsigned char[::1] buf, *, bint by_file):
    """Read the runs' pages, a buffer at a time, and call sink(runs of the buffer, their bytes one after the other).

    by_file=True reads /proc/PID/mem. Otherwise process_vm_readv() reads, which is faster by half. It fails for pages that the process
    itself may not read (PROT_NONE): these are read from the file too. Since Linux 5.19, process_vm_readv() gives the process its own copy
    of a page that it shared with others by a fork or by KSM. Such pages must be read from the file.

    A page that could not be read is gone: the process has unmapped it meanwhile. OSError; ProcessLookupError when the process is gone.
    """
    cdef iovec *remote = <iovec *>malloc(NR_IOVEC * sizeof(iovec))
    cdef size_t size = step(buf.shape[0]) & ~(<size_t>PAGE_SIZE - 1), length, left, n, at
    cdef uint64_t addr, end
    cdef ssize_t got
    cdef int nr, i
    cdef Py_ssize_t place = 0, nr_runs = len(runs)
    cdef list batch
    cdef bint forced = by_file      # read the next batch, a run or a part of one, from the file
    if remote == NULL:
        raise MemoryError
    view = memoryview(buf)
    addr = runs[0][0] if runs else 0
    try:
        while place < nr_runs:
            # A batch: as many runs, or the first part of one, as the buffer holds. After a page that process_vm_readv() could not read,
            # the batch is what is left of its run, and is read from the file.
            length = nr = 0
            while place < nr_runs and nr < NR_IOVEC and length < size:
                end = (<tuple>runs[place])[1]
                n = end - addr if end - addr < size - length else size - length
                remote[nr].iov_base = <void *><size_t>addr
                remote[nr].iov_len = n
                nr += 1
                length += n
                addr += n
                if addr == end:
                    place += 1
                    addr = (<tuple>runs[place])[0] if place < nr_runs else 0
                if forced:
                    break
            with nogil:
                turn()
                if forced:
                    got = read_forced(mem, <char *>&buf[0], length, <uint64_t>remote[0].iov_base)
                else:
                    got = read_batch(pid, remote, nr, <char *>&buf[0], length)
            if got == -EFAULT:
                got = 0
            if got < 0:
                raise OSError(-got, os.strerror(<int>-got))
            got &= ~(<ssize_t>PAGE_SIZE - 1)
            at = 0
            batch = []
            for i in range(nr):
                left = <size_t>got - at
                n = remote[i].iov_len if remote[i].iov_len < left else left
                if n:
                    append(batch, <uint64_t>remote[i].iov_base, <uint64_t>remote[i].iov_base + n)
                    at += n
                if n < remote[i].iov_len:
                    # Go back to the page that could not be read, or past it if it could not be read from the file either.
                    addr = <uint64_t>remote[i].iov_base + n
                    place = place_of(runs, addr)
                    if forced and n == 0:
                        addr += PAGE_SIZE
                        if addr == (<tuple>runs[place])[1]:
                            place += 1
                            addr = (<tuple>runs[place])[0] if place < nr_runs else 0
                    forced = by_file or not (forced and n == 0)
                    break
            else:
                forced = by_file
            if batch:
                sink(batch, view[:at])
            with nogil:
                rest()
            PyErr_CheckSignals()
    finally:
        free(remote)


cdef Py_ssize_t place_of(list runs, uint64_t addr) except -1:
    """The index of the run that addr lies in."""
    cdef Py_ssize_t low = 0, high = len(runs), mid
    while high - low > 1:
        mid = (low + high) // 2
        if (<tuple>runs[mid])[0] <= addr:
            low = mid
        else:
            high = mid
    return low

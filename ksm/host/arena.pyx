# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the memory that stands in for physical memory.
"""The memory of a machine: one range of addresses, with a page frame every 4096 bytes. Frames of fingerprints have 20 bytes. A machine of
them has no images, so all of its range is memory from the start.

The range is reserved once, without access, for as many frames as the machine may ever have. RAM that is plugged in is anonymous memory in
its part of the range, and an image may be read into it. An image that nobody writes to can be mapped there instead, privately: the system
reads its pages when they are looked at. Freed frames go back to the system in batches, and read as zeros at their next use. The system
refuses to take them if the memory is locked, or if a filter of system calls forbids it: such frames are cleared instead.
"""

from libc.errno cimport EINTR, EIO, ENOMEM, errno
from libc.stdlib cimport free, qsort
from libc.string cimport memcmp, memcpy, memset

from linux.highmem cimport frame_size, has_bytes
from linux.mm_types cimport PAGE_SHIFT, PAGE_SIZE, PMD_SIZE, machine, struct_page

from ksm.host.busfault cimport unwatch_arena, watch_arena
from ksm.host.mman cimport (MADV_DONTDUMP, MADV_DONTNEED, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED,
                            MAP_NORESERVE, MAP_PRIVATE, PROT_NONE, PROT_READ, PROT_WRITE, c_madvise, c_mincore, c_mmap, c_munmap)

cdef extern from *:
    """
    #include <sys/mman.h>
    #include <sys/syscall.h>
    #include <sys/uio.h>
    #include <unistd.h>
    #ifndef MADV_POPULATE_WRITE
    #define MADV_POPULATE_WRITE 23
    #endif
    /* Older C libraries lack these two system calls. Older kernels refuse process_madvise(), or this advice. */
    static int ksm_madvise_ranges(struct iovec *ranges, size_t count, int advice)
    {
    #if defined(SYS_pidfd_open) && defined(SYS_process_madvise)
        long done, wanted = 0;
        int fd = (int)syscall(SYS_pidfd_open, (long)getpid(), 0);
        if (fd < 0)
            return -1;
        done = syscall(SYS_process_madvise, fd, ranges, count, advice, 0);
        close(fd);
        for (size_t i = 0; i < count; i++)
            wanted += (long)ranges[i].iov_len;
        return done == wanted ? 0 : -1;     /* process_madvise() may stop half way: it returns the bytes done */
    #else
        return -1;
    #endif
    }
    """
    ctypedef struct iovec "struct iovec":
        void *iov_base
        size_t iov_len
    const int MADV_POPULATE_WRITE
    int c_madvise_ranges "ksm_madvise_ranges"(iovec *ranges, size_t count, int advice) nogil
    ssize_t pread(int fd, void *buf, size_t count, long offset) nogil
    void *aligned_alloc(size_t align, size_t size) nogil


cdef enum:
    RANGES = 1024               # UIO_MAXIOV
    CHUNK = 1048576             # bytes that are read at once
    RADIX_BITS = 8


cdef void *reserve(size_t length, size_t align, int prot) noexcept nogil:
    """Addresses without memory, aligned; NULL if there are none."""
    cdef char *start = <char *>c_mmap(NULL, length + align, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    cdef size_t head
    if start == <char *>MAP_FAILED:
        return NULL
    head = (align - <size_t>start % align) % align
    if head:
        c_munmap(start, head)
    if align - head:
        c_munmap(start + head + length, align - head)
    return start + head


cdef size_t arena_length(machine *m) noexcept nogil:
    """Whole pages of the system."""
    return (m.max_pfn * m.frame_size + PAGE_SIZE - 1) & ~<size_t>(PAGE_SIZE - 1)


cdef int arena_create(machine *m, unsigned long max_pfn) noexcept nogil:
    """Reserve the frames [0, max_pfn) and their struct pages, which read as zeros until somebody uses them."""
    m.max_pfn = max_pfn
    m.arena = <char *>reserve(arena_length(m), PMD_SIZE, PROT_NONE if has_bytes(m) else PROT_READ | PROT_WRITE)
    if m.arena == NULL:
        return -ENOMEM
    m.mem_map = <struct_page *>reserve(max_pfn * sizeof(struct_page), PMD_SIZE, PROT_READ | PROT_WRITE)
    if m.mem_map == NULL:
        c_munmap(m.arena, arena_length(m))
        m.arena = NULL
        return -ENOMEM
    # madvise() may fail, here and below: that costs only time and space.
    if not has_bytes(m):
        c_madvise(m.arena, arena_length(m), MADV_NOHUGEPAGE)
    c_madvise(m.mem_map, max_pfn * sizeof(struct_page), MADV_DONTDUMP)
    # Every step of KSM looks at a struct page, often one far from the last: huge pages save misses of the TLB.
    c_madvise(m.mem_map, max_pfn * sizeof(struct_page), MADV_HUGEPAGE)
    return 0


cdef void arena_destroy(machine *m) noexcept nogil:
    if m.mem_map != NULL:
        c_munmap(m.mem_map, m.max_pfn * sizeof(struct_page))
        m.mem_map = NULL
    if m.arena != NULL:
        unwatch_arena(m)
        c_munmap(m.arena, arena_length(m))
        m.arena = NULL


cdef int arena_map(machine *m, unsigned long pfn, unsigned long nr_pages, int prot, int flags, int fd,
                   unsigned long offset) noexcept nogil:
    cdef void *start = m.arena + (pfn * m.frame_size)
    if c_mmap(start, nr_pages * m.frame_size, prot, flags | MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, <long>offset) == MAP_FAILED:
        return -errno
    return 0


cdef int arena_add_ram(machine *m, unsigned long pfn, unsigned long nr_pages) noexcept nogil:
    """Put anonymous memory behind the frames: small pages, even where the system is set to use huge pages always.

    A part of a huge page that is given back is not free before the rest is, and the system may fill it again.
    """
    cdef int err
    if not has_bytes(m):
        return 0                # it is there
    err = arena_map(m, pfn, nr_pages, PROT_READ | PROT_WRITE, MAP_ANONYMOUS, -1, 0)
    if err == 0:
        c_madvise(m.arena + (pfn * m.frame_size), nr_pages * m.frame_size, MADV_NOHUGEPAGE)
    return err


cdef int arena_add_file(machine *m, unsigned long pfn, unsigned long nr_pages, int fd, unsigned long offset) noexcept nogil:
    """Map a part of the file at the frames, privately: writes to the frames do not reach the file. Writes of others to the file may show.

    A private copy is not safe for a page that others merge with: truncating the file drops the private copies, too.
    """
    # The file is first mapped anywhere: a mapping at the frames that fails could drop their reservation. The probe is at an offset where
    # no huge page begins: hugetlbfs, whose pages cannot be split, refuses that.
    cdef void *probe = c_mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, <long>(offset | PAGE_SIZE))
    cdef int err
    if probe == MAP_FAILED:
        return -errno
    c_munmap(probe, PAGE_SIZE)
    err = watch_arena(m)
    if err == 0:
        err = arena_map(m, pfn, nr_pages, PROT_READ | PROT_WRITE, 0, fd, offset)
    if err == 0:
        # Pages that have to be read from the disk come as huge pages: for this mapping, and for whoever maps the file later.
        c_madvise(m.arena + (pfn << PAGE_SHIFT), nr_pages << PAGE_SHIFT, MADV_HUGEPAGE)
    return err


cdef inline bint is_zeros(const char *page) noexcept nogil:
    return page[0] == 0 and memcmp(page, page + 1, PAGE_SIZE - 1) == 0


cdef long arena_read_file(machine *m, unsigned long pfn, unsigned long nr_pages, int fd, unsigned long offset) noexcept nogil:
    """Copy a part of the file into frames that read as zeros: how many were read before a signal came. -EIO if the file is shorter.

    A frame whose page is zeros stays without memory.
    """
    cdef char *buffer = <char *>aligned_alloc(PAGE_SIZE, CHUNK)     # aligned as O_DIRECT wants it
    cdef char *target = m.arena + (pfn << PAGE_SHIFT)
    cdef unsigned long done = 0, length, i, run
    cdef ssize_t got = 0
    if buffer == NULL:
        return -ENOMEM
    while done < nr_pages:
        length = min(<unsigned long>CHUNK >> PAGE_SHIFT, nr_pages - done)
        got = pread(fd, buffer, length << PAGE_SHIFT, <long>(offset + (done << PAGE_SHIFT)))
        if got < PAGE_SIZE:     # fewer pages than asked for are no error: the next turn reads the rest
            got = -EIO if got >= 0 else -errno
            break
        length = <unsigned long>got >> PAGE_SHIFT
        i = 0
        while i < length:
            run = i
            while run < length and not is_zeros(buffer + (run << PAGE_SHIFT)):
                run += 1
            if run > i:
                arena_populate(m, pfn + done + i, run - i)
                memcpy(target + ((done + i) << PAGE_SHIFT), buffer + (i << PAGE_SHIFT), (run - i) << PAGE_SHIFT)
            i = run + 1
        done += length
    free(buffer)
    return got if got < 0 and got != -EINTR else <long>done


cdef void arena_remove(machine *m, unsigned long pfn, unsigned long nr_pages) noexcept nogil:
    """Make the frames reserved addresses again. If that fails, their memory stays until the next image takes their place."""
    arena_map(m, pfn, nr_pages, PROT_NONE, MAP_ANONYMOUS, -1, 0)


cdef int compare_pfns(const void *a, const void *b) noexcept nogil:
    cdef unsigned int left = (<const unsigned int *>a)[0], right = (<const unsigned int *>b)[0]
    return (left > right) - (left < right)


cdef void sort_pfns(unsigned int *pfns, unsigned int count) noexcept nogil:
    """Sort in place. Most batches are ascending runs with stray frames between them. qsort() would call back for every comparison."""
    cdef unsigned int buffer[RANGES]
    cdef unsigned int *source = pfns
    cdef unsigned int *target = buffer
    cdef unsigned int places[1 << RADIX_BITS]
    cdef unsigned int i, shift = 0, digit, place, differ = 0
    cdef bint sorted_already = True
    for i in range(1, count):
        differ |= pfns[i] ^ pfns[0]
        if pfns[i] < pfns[i - 1]:
            sorted_already = False
    if sorted_already:
        return
    if count > RANGES or count < 64:
        qsort(pfns, count, sizeof(unsigned int), &compare_pfns)
        return
    # A radix sort from the lowest digit. Digits in which all frames agree are passed over.
    while shift < 32 and differ >> shift:
        if differ >> shift & ((1 << RADIX_BITS) - 1):
            memset(places, 0, sizeof(places))
            for i in range(count):
                places[source[i] >> shift & ((1 << RADIX_BITS) - 1)] += 1
            place = 0
            for digit in range(1 << RADIX_BITS):
                i = places[digit]
                places[digit] = place
                place += i
            for i in range(count):
                digit = source[i] >> shift & ((1 << RADIX_BITS) - 1)
                target[places[digit]] = source[i]
                places[digit] += 1
            source, target = target, source
        shift += RADIX_BITS
    if source != pfns:
        memcpy(pfns, source, count * sizeof(unsigned int))


cdef void clear(char *start, size_t length) noexcept nogil:
    """Clear whole frames that the system does not take back. A frame of zeros is only read: a store would give it memory."""
    cdef char *end = start + length
    while start < end:
        if not is_zeros(start):
            memset(start, 0, PAGE_SIZE)
        start += PAGE_SIZE


cdef void give_back_ranges(iovec *ranges, unsigned int count) noexcept nogil:
    cdef unsigned int i
    # All ranges in one call, if the system can do that. Giving a range back twice does no harm.
    if count > 1 and c_madvise_ranges(ranges, count, MADV_DONTNEED) == 0:
        return
    for i in range(count):
        if c_madvise(ranges[i].iov_base, ranges[i].iov_len, MADV_DONTNEED):
            clear(<char *>ranges[i].iov_base, ranges[i].iov_len)


cdef void arena_give_back(machine *m, unsigned int *pfns, unsigned int count) noexcept nogil:
    """Give these frames' memory back to the system: they read as zeros then. `pfns` is sorted, so that neighbours go as one range."""
    cdef iovec ranges[RANGES]
    cdef unsigned int i = 0, first, nr = 0
    if not has_bytes(m):
        for i in range(count):
            memset(m.arena + (<unsigned long>pfns[i] * m.frame_size), 0, frame_size(m))
        return
    sort_pfns(pfns, count)
    while i < count:
        first = i
        i += 1
        while i < count and pfns[i] == pfns[i - 1] + 1:
            i += 1
        ranges[nr].iov_base = m.arena + (<unsigned long>pfns[first] << PAGE_SHIFT)
        ranges[nr].iov_len = <size_t>(i - first) << PAGE_SHIFT
        nr += 1
        if nr == RANGES or i == count:
            give_back_ranges(ranges, nr)
            nr = 0


cdef void arena_give_back_page(machine *m, unsigned long number) noexcept nogil:
    """Of a machine of fingerprints: the frames that lie in this page of the arena read as zeros, and nobody uses them."""
    c_madvise(m.arena + number * PAGE_SIZE, PAGE_SIZE, MADV_DONTNEED)


cdef bint arena_resident(machine *m, unsigned long pfn) noexcept nogil:
    """Whether the frame can be read without waiting for a disk."""
    cdef unsigned char there = 0
    return not has_bytes(m) or c_mincore(m.arena + (pfn << PAGE_SHIFT), 1, &there) == 0 and there & 1


cdef bint arena_present(machine *m, unsigned long pfn, unsigned long nr_pages, unsigned char *there) noexcept nogil:
    """Which of these frames have memory: the lowest bit of one byte for each. False if the system tells of many at once."""
    return has_bytes(m) and c_mincore(m.arena + (pfn << PAGE_SHIFT), nr_pages << PAGE_SHIFT, there) == 0


cdef void arena_populate(machine *m, unsigned long pfn, unsigned long nr_pages) noexcept nogil:
    """Give memory to free frames that will be written to soon: one call instead of a fault for each. Failure does no harm."""
    cdef unsigned long start = pfn * m.frame_size & ~<unsigned long>(PAGE_SIZE - 1), end = (pfn + nr_pages) * m.frame_size
    c_madvise(m.arena + start, end - start, MADV_POPULATE_WRITE)

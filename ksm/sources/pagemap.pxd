# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the other side of fs/proc/task_mmu.c.

from libc.stdint cimport uint64_t

cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int fd, void *buf, size_t count, long offset)

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, ...)


# include/uapi/linux/fs.h, since Linux 6.7: newer than the headers of many systems.
cdef struct pm_scan_arg:
    uint64_t size
    uint64_t flags
    uint64_t start
    uint64_t end
    uint64_t walk_end
    uint64_t vec
    uint64_t vec_len
    uint64_t max_pages
    uint64_t category_inverted
    uint64_t category_mask
    uint64_t category_anyof_mask
    uint64_t return_mask

cdef struct page_region:
    uint64_t start
    uint64_t end
    uint64_t categories


cdef enum:
    NR_ENTRIES = 512            # of pagemap in one read

    # Categories of PAGEMAP_SCAN, in the same header
    PAGE_IS_FILE = 1 << 2
    PAGE_IS_PRESENT = 1 << 3
    PAGE_IS_SWAPPED = 1 << 4
    PAGE_IS_PFNZERO = 1 << 5
    PAGE_IS_HUGE = 1 << 6

    # It takes the mmap_lock until it has found so many pages, or has walked over so many bytes: 0.1 ms
    FOUND_AT_ONCE = 1024
    WALKED_AT_ONCE = 64 << 20
    NR_REGIONS = 512

    # include/uapi/linux/kernel-page-flags.h
    KPF_KSM = 21
    KPF_ZERO_PAGE = 24

cdef uint64_t PAGEMAP_SCAN

# Bits of a pagemap entry
cdef uint64_t PM_PRESENT
cdef uint64_t PM_SWAP
cdef uint64_t PM_FILE
cdef uint64_t PM_MMAP_EXCLUSIVE
cdef uint64_t PM_ALONE
cdef uint64_t PM_PFRAME

# The flags of frames that mean something: see learn_ksm_flag()
cdef uint64_t known_flags

cdef void append(list runs, uint64_t start, uint64_t end)
cdef int find_regions(int fd, pm_scan_arg *arg, uint64_t start, uint64_t end, page_region *regions) except -2
cdef bint scan_area(int fd, uint64_t start, uint64_t end, list runs, uint64_t also) except -1
cdef ssize_t read_entries(int fd, uint64_t *entries, uint64_t addr, uint64_t nr_pages) except -1
cdef ssize_t read_counted(int fd, int kpagecount, uint64_t *entries, uint64_t addr, uint64_t nr_pages) except -1
cdef uint64_t page_flags(int kpageflags, uint64_t pfn) noexcept nogil

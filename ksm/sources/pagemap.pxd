# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the other side of fs/proc/task_mmu.c.

from libc.stdint cimport uint64_t

cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int fd, void *buf, size_t count, long offset)

cdef enum:
    NR_ENTRIES = 512            # of pagemap in one read
    PAGE_IS_HUGE = 1 << 6       # include/uapi/linux/fs.h

    # include/uapi/linux/kernel-page-flags.h
    KPF_KSM = 21
    KPF_ZERO_PAGE = 24

# Bits of a pagemap entry
cdef uint64_t PM_PRESENT
cdef uint64_t PM_FILE
cdef uint64_t PM_MMAP_EXCLUSIVE
cdef uint64_t PM_ALONE
cdef uint64_t PM_PFRAME

# The flags of frames that mean something: see learn_ksm_flag()
cdef uint64_t known_flags

cdef void append(list runs, uint64_t start, uint64_t end)
cdef bint scan_area(int fd, uint64_t start, uint64_t end, list runs, uint64_t also) except -1
cdef ssize_t read_entries(int fd, uint64_t *entries, uint64_t addr, uint64_t nr_pages) except -1
cdef ssize_t read_counted(int fd, int kpagecount, uint64_t *entries, uint64_t addr, uint64_t nr_pages) except -1
cdef uint64_t page_flags(int kpageflags, uint64_t pfn) noexcept nogil

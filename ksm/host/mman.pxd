# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: <sys/mman.h> of the system that this runs on. include/linux/mman.pxd is the machine's own.

cdef extern from "<sys/mman.h>" nogil:
    void *c_mmap "mmap"(void *addr, size_t length, int prot, int flags, int fd, long offset)
    int c_munmap "munmap"(void *addr, size_t length)
    int c_mincore "mincore"(void *addr, size_t length, unsigned char *vec)
    int c_madvise "madvise"(void *addr, size_t length, int advice)
    void *MAP_FAILED
    enum:
        PROT_NONE
        PROT_READ
        PROT_WRITE
        MAP_PRIVATE
        MAP_ANONYMOUS
        MAP_NORESERVE
        MAP_FIXED
        MADV_DONTNEED
        MADV_DONTDUMP
        MADV_HUGEPAGE
        MADV_NOHUGEPAGE

# SPDX-License-Identifier: GPL-2.0-only
# Follows include/uapi/linux/mman.h, asm-generic/mman-common.h and uapi/linux/prctl.h of Linux 6.12.
"""The constants of user space for mmap, mprotect, mremap, madvise and prctl."""

cdef enum:
    PROT_NONE = 0x0
    PROT_READ = 0x1
    PROT_WRITE = 0x2
    PROT_EXEC = 0x4

    MAP_SHARED = 0x01
    MAP_PRIVATE = 0x02
    MAP_TYPE = 0x0f
    MAP_FIXED = 0x10
    MAP_ANONYMOUS = 0x20
    MAP_NORESERVE = 0x4000
    MAP_POPULATE = 0x8000
    MAP_FIXED_NOREPLACE = 0x100000

    MREMAP_MAYMOVE = 1
    MREMAP_FIXED = 2
    MREMAP_DONTUNMAP = 4

    MADV_NORMAL = 0
    MADV_DONTNEED = 4
    MADV_DONTFORK = 10
    MADV_DOFORK = 11
    MADV_MERGEABLE = 12
    MADV_UNMERGEABLE = 13
    MADV_HUGEPAGE = 14
    MADV_NOHUGEPAGE = 15
    MADV_WIPEONFORK = 18
    MADV_KEEPONFORK = 19

    PR_SET_MEMORY_MERGE = 67
    PR_GET_MEMORY_MERGE = 68

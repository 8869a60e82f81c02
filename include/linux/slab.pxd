# SPDX-License-Identifier: GPL-2.0-only
# Stands in for include/linux/slab.h, fault-inject.h and gfp.h of Linux 6.12.
"""Object caches, and allocations that fail when they are told to. The code is in ksm/mm/slub.pyx."""

from linux.spinlock cimport spinlock_t


# Let the nth allocation from now fail, `times` of them in a row; nth 0 is off.
cdef struct fault_attr:
    long nth
    long times


cdef struct kmem_cache:
    const char *name
    size_t object_size          # as asked for
    size_t size                 # as laid out: a multiple of 64
    spinlock_t lock
    void *freelist              # last freed, first used
    void *slabs                 # all chunks, linked through their first word
    char *fresh                 # never used part of the newest chunk
    char *fresh_end
    long nr_objects             # in use
    unsigned long nr_freed      # so far
    long nr_slabs
    fault_attr fail
    bint typesafe               # SLAB_TYPESAFE_BY_RCU: a freed object keeps its contents until it is used as the same type again
    void (*freed)(void *arg, void *object) noexcept nogil   # OURS: called before an object is freed, if it is not NULL
    void *freed_arg


cdef inline bint should_fail(fault_attr *attr) noexcept nogil:
    """Whether this allocation fails. The caller holds the lock of the allocator."""
    if attr.nth == 0:
        return False
    if attr.nth > 1:
        attr.nth -= 1
        return False
    attr.times -= 1
    if attr.times <= 0:
        attr.nth = 0
    return True

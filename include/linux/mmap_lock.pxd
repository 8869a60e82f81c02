# SPDX-License-Identifier: GPL-2.0-only
# Follows include/linux/mmap_lock.h and sched/mm.h of Linux 6.12.
"""The lock of an address space, and the references on it."""

from linux.atomic cimport atomic_inc, atomic_inc_not_zero
from linux.mm_types cimport mm_struct, vm_area_struct
from linux.spinlock cimport down_read, down_read_trylock, down_write, rwsem_is_write_locked, up_read, up_write


cdef inline void mmap_read_lock(mm_struct *mm) noexcept nogil:
    down_read(&mm.mmap_lock)


cdef inline bint mmap_read_trylock(mm_struct *mm) noexcept nogil:
    return down_read_trylock(&mm.mmap_lock)


cdef inline void mmap_read_unlock(mm_struct *mm) noexcept nogil:
    up_read(&mm.mmap_lock)


cdef inline void mmap_write_lock(mm_struct *mm) noexcept nogil:
    down_write(&mm.mmap_lock)


cdef inline void mmap_write_unlock(mm_struct *mm) noexcept nogil:
    up_write(&mm.mmap_lock)


cdef inline bint mmap_is_write_locked(mm_struct *mm) noexcept nogil:
    return rwsem_is_write_locked(&mm.mmap_lock)


cdef inline void vma_start_write(vm_area_struct *vma) noexcept nogil:
    # There are no per-vma locks here: a fault holds mmap_lock, and the caller holds it for writing already.
    pass


cdef inline void mmgrab(mm_struct *mm) noexcept nogil:
    atomic_inc(&mm.mm_count)


cdef inline void mmget(mm_struct *mm) noexcept nogil:
    atomic_inc(&mm.mm_users)


cdef inline bint mmget_not_zero(mm_struct *mm) noexcept nogil:
    return atomic_inc_not_zero(&mm.mm_users)

# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/madvise.c of Linux 6.12.
"""madvise: flags for KSM, huge pages and fork, and DONTNEED, which throws pages away."""

from libc.errno cimport EAGAIN, EINVAL, ENOMEM

from linux.ksm cimport ksm_madvise
from linux.mm cimport (VM_DONTCOPY, VM_DROPPABLE, VM_HUGEPAGE, VM_HUGETLB, VM_IO, VM_LOCKED, VM_NOHUGEPAGE, VM_PFNMAP, VM_SHARED,
                       VM_WIPEONFORK, find_vma, vm_flags_reset)
from linux.mm_types cimport PAGE_SIZE, mm_struct, page_mask, vm_area_struct, vm_flags_t
from linux.mman cimport (MADV_DOFORK, MADV_DONTFORK, MADV_DONTNEED, MADV_HUGEPAGE, MADV_KEEPONFORK, MADV_MERGEABLE,
                         MADV_NOHUGEPAGE, MADV_NORMAL, MADV_UNMERGEABLE, MADV_WIPEONFORK)
from linux.mmap_lock cimport mmap_read_lock, mmap_read_unlock, mmap_write_lock, mmap_write_unlock

from ksm.mm.memory cimport unmap_page_range
from ksm.mm.swap cimport lru_add_drain
from ksm.mm.vma cimport vma_modify_flags


cdef bint madvise_behavior_valid(int behavior) noexcept nogil:
    return behavior in (MADV_NORMAL, MADV_DONTNEED, MADV_DONTFORK, MADV_DOFORK, MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_HUGEPAGE,
                        MADV_NOHUGEPAGE, MADV_WIPEONFORK, MADV_KEEPONFORK)


cdef bint madvise_need_mmap_write(int behavior) noexcept nogil:
    return behavior != MADV_DONTNEED


cdef int madvise_dontneed(vm_area_struct *vma, unsigned long start, unsigned long end) noexcept nogil:
    if vma.vm_flags & (VM_LOCKED | VM_PFNMAP | VM_HUGETLB):
        return -EINVAL
    if not vma.vm_mm.machine.lru_drained_seldom:
        lru_add_drain(vma.vm_mm.machine)
    unmap_page_range(vma, start, end)
    return 0


cdef int madvise_update_vma(vm_area_struct **vma, unsigned long start, unsigned long end, vm_flags_t new_flags) noexcept nogil:
    cdef int error = 0
    if new_flags == vma[0].vm_flags:
        return 0
    vma[0] = vma_modify_flags(vma[0], start, end, new_flags, &error)
    if vma[0] == NULL:
        return error
    vm_flags_reset(vma[0], new_flags)
    return 0


cdef int madvise_vma_behavior(vm_area_struct **vma, unsigned long start, unsigned long end, int behavior) noexcept nogil:
    """Apply the advice to one vma's part of the range. vma[0] is replaced by the vma that it became."""
    cdef int error = 0
    cdef vm_flags_t new_flags = vma[0].vm_flags
    if behavior == MADV_DONTNEED:
        return madvise_dontneed(vma[0], start, end)
    if behavior == MADV_DONTFORK:
        new_flags |= VM_DONTCOPY
    elif behavior == MADV_DOFORK:
        if new_flags & VM_IO:
            return -EINVAL
        new_flags &= ~VM_DONTCOPY
    elif behavior == MADV_WIPEONFORK:
        if vma[0].vm_file != NULL or new_flags & VM_SHARED:
            return -EINVAL
        new_flags |= VM_WIPEONFORK
    elif behavior == MADV_KEEPONFORK:
        if new_flags & VM_DROPPABLE:
            return -EINVAL
        new_flags &= ~VM_WIPEONFORK
    elif behavior == MADV_MERGEABLE or behavior == MADV_UNMERGEABLE:
        # Pages are unmerged before the vma is split, over the part that was asked for.
        error = ksm_madvise(vma[0], start, end, behavior, &new_flags)
    elif behavior == MADV_HUGEPAGE:
        new_flags = (new_flags & ~VM_NOHUGEPAGE) | VM_HUGEPAGE
    elif behavior == MADV_NOHUGEPAGE:
        new_flags = (new_flags & ~VM_HUGEPAGE) | VM_NOHUGEPAGE
    if not error:
        error = madvise_update_vma(vma, start, end, new_flags)
    # The caller gets -EAGAIN when memory is short: ENOMEM means a hole in the range.
    return -EAGAIN if error == -ENOMEM else error


cdef int madvise_walk_vmas(mm_struct *mm, unsigned long start, unsigned long end, int behavior) noexcept nogil:
    """Apply the advice to every vma in the range. Holes are passed over; the value is -ENOMEM then."""
    cdef vm_area_struct *vma = find_vma(mm, start)
    cdef unsigned long tmp
    cdef int error, unmapped_error = 0
    while True:
        if vma == NULL:
            return -ENOMEM
        if start < vma.vm_start:
            unmapped_error = -ENOMEM
            start = vma.vm_start
            if start >= end:
                break
        tmp = vma.vm_end if vma.vm_end < end else end
        error = madvise_vma_behavior(&vma, start, tmp, behavior)
        if error:
            return error
        start = tmp
        if start < vma.vm_end:
            start = vma.vm_end
        if start >= end:
            break
        vma = find_vma(mm, vma.vm_end)
    return unmapped_error


cdef int do_madvise(mm_struct *mm, unsigned long start, unsigned long len_in, int behavior) noexcept nogil:
    """madvise(2): 0, -EINVAL, -ENOMEM for a range with holes, -EAGAIN without memory. Takes mmap_lock."""
    cdef unsigned long length = (len_in + PAGE_SIZE - 1) & page_mask(), end
    cdef int error
    if not madvise_behavior_valid(behavior) or start & (PAGE_SIZE - 1):
        return -EINVAL
    if len_in and not length:
        return -EINVAL
    end = start + length
    if end < start:
        return -EINVAL
    if end == start:
        return 0
    if madvise_need_mmap_write(behavior):
        mmap_write_lock(mm)
        error = madvise_walk_vmas(mm, start, end, behavior)
        mmap_write_unlock(mm)
    else:
        mmap_read_lock(mm)
        error = madvise_walk_vmas(mm, start, end, behavior)
        mmap_read_unlock(mm)
    return error

# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/vma.c of Linux 6.12, on a sorted array in place of the maple tree.
"""The ranges of an address space: making, splitting, merging and removing them.

Neighbours with the same flags and object, fitting offsets and compatible anon_vmas are one vma. While its range changes, a vma is taken out
of the interval trees of its anon_vmas.
"""

from libc.errno cimport ENOMEM
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove

from linux.atomic cimport atomic_add_return, atomic_dec_and_test
from linux.list cimport INIT_LIST_HEAD, list_head, list_is_singular
from linux.mm cimport (VM_EXEC, VM_READ, VM_SHARED, VM_WRITE, vma_find_index, vma_pages)
from linux.mm_types cimport (PAGE_SHIFT, avc_of_same_vma, file, machine, mm_struct, pgprot_t, struct_anon_vma,
                             vm_area_struct, vm_flags_t)
from linux.mmap_lock cimport mmap_write_lock, mmap_write_unlock
from linux.pgtable cimport _PAGE_ACCESSED, _PAGE_PRESENT, _PAGE_PROTNONE, _PAGE_RW
from linux.rmap cimport anon_vma_lock_write, anon_vma_unlock_write

from ksm.mm.huge_memory cimport vma_adjust_trans_huge
from ksm.mm.interval_tree cimport anon_vma_interval_tree_insert, anon_vma_interval_tree_remove
from ksm.mm.memory cimport free_page_tables, free_pgd_range, unmap_page_range
from ksm.mm.page_alloc cimport folio_put
from ksm.mm.rmap cimport anon_vma_clone, unlink_anon_vmas
from ksm.mm.slub cimport kmem_cache_alloc, kmem_cache_free
from ksm.mm.swap cimport lru_add_drain


cdef enum:
    MAX_MAP_COUNT = 65530       # sysctl_max_map_count


cdef pgprot_t vm_get_page_prot(vm_flags_t vm_flags) noexcept nogil:
    """The protection that new entries of such a vma get (mm/mmap.c, protection_map). Private memory never starts writable."""
    if not (vm_flags & (VM_READ | VM_WRITE | VM_EXEC)):
        return _PAGE_PROTNONE | _PAGE_ACCESSED
    if (vm_flags & (VM_SHARED | VM_WRITE)) == (VM_SHARED | VM_WRITE):
        return _PAGE_PRESENT | _PAGE_ACCESSED | _PAGE_RW
    return _PAGE_PRESENT | _PAGE_ACCESSED


cdef vm_area_struct *vm_area_alloc(mm_struct *mm) noexcept nogil:
    cdef vm_area_struct *vma = <vm_area_struct *>kmem_cache_alloc(mm.machine.vm_area_cachep)
    if vma != NULL:
        vma.vm_mm = mm
        vma.vm_flags = 0
        vma.vm_page_prot = 0
        vma.anon_vma = NULL
        vma.vm_file = NULL
        vma.vm_pgoff = 0
        INIT_LIST_HEAD(&vma.anon_vma_chain)
    return vma


cdef vm_area_struct *vm_area_dup(vm_area_struct *orig, mm_struct *mm) noexcept nogil:
    """A copy for mm; its anon_vma is copied, the links to anon_vmas are not."""
    cdef vm_area_struct *new = <vm_area_struct *>kmem_cache_alloc(mm.machine.vm_area_cachep)
    if new != NULL:
        memcpy(new, orig, sizeof(vm_area_struct))
        new.vm_mm = mm
        INIT_LIST_HEAD(&new.anon_vma_chain)
    return new


cdef void vm_area_free(vm_area_struct *vma) noexcept nogil:
    kmem_cache_free(vma.vm_mm.machine.vm_area_cachep, vma)


cdef inline void get_file(file *object) noexcept nogil:
    if object != NULL:
        atomic_add_return(&object.f_count, 1)


cdef void fput(machine *m, file *object) noexcept nogil:
    cdef unsigned long i
    if object != NULL and atomic_dec_and_test(&object.f_count):
        for i in range(object.nr_pages):
            if object.pages[i] != NULL:
                folio_put(m, object.pages[i])
        free(object.pages)
        free(object)


# The array

cdef int vma_link(mm_struct *mm, vm_area_struct *vma) noexcept nogil:
    """Put a vma into its place in the array; -ENOMEM."""
    cdef int i
    cdef vm_area_struct **grown
    if mm.map_count == mm.map_capacity:
        i = mm.map_capacity * 2 if mm.map_capacity else 8
        grown = <vm_area_struct **>realloc(mm.vmas, i * sizeof(vm_area_struct *))
        if grown == NULL:
            return -ENOMEM
        mm.vmas = grown
        mm.map_capacity = i
    i = vma_find_index(mm, vma.vm_start)
    memmove(mm.vmas + i + 1, mm.vmas + i, (mm.map_count - i) * sizeof(vm_area_struct *))
    mm.vmas[i] = vma
    mm.map_count += 1
    mm.total_vm += vma_pages(vma)
    return 0


cdef void vma_unlink(mm_struct *mm, vm_area_struct *vma) noexcept nogil:
    cdef int i = vma_find_index(mm, vma.vm_start)
    mm.map_count -= 1
    memmove(mm.vmas + i, mm.vmas + i + 1, (mm.map_count - i) * sizeof(vm_area_struct *))
    mm.total_vm -= vma_pages(vma)


cdef void remove_vma(vm_area_struct *vma) noexcept nogil:
    """Free a vma that is in no array and no anon_vma any more."""
    fput(vma.vm_mm.machine, vma.vm_file)
    vm_area_free(vma)


# Changes of range

cdef void vma_set_range(vm_area_struct *vma, unsigned long start, unsigned long end, unsigned long pgoff) noexcept nogil:
    cdef struct_anon_vma *locked = NULL
    cdef list_head *pos = vma.anon_vma_chain.next
    vma_adjust_trans_huge(vma, start, end)
    if pos != &vma.anon_vma_chain:
        locked = avc_of_same_vma(pos).anon_vma.root
        anon_vma_lock_write(locked)
    while pos != &vma.anon_vma_chain:
        anon_vma_interval_tree_remove(avc_of_same_vma(pos), &avc_of_same_vma(pos).anon_vma.rb_root)
        pos = pos.next
    vma.vm_mm.total_vm += ((end - start) >> PAGE_SHIFT) - vma_pages(vma)
    vma.vm_start = start
    vma.vm_end = end
    vma.vm_pgoff = pgoff
    pos = vma.anon_vma_chain.next
    while pos != &vma.anon_vma_chain:
        anon_vma_interval_tree_insert(avc_of_same_vma(pos), &avc_of_same_vma(pos).anon_vma.rb_root)
        pos = pos.next
    if locked != NULL:
        anon_vma_unlock_write(locked)


cdef int split_vma(vm_area_struct *vma, unsigned long addr, bint new_below) noexcept nogil:
    """Cut the vma in two at addr; the new one is the lower or the upper part. -ENOMEM."""
    cdef mm_struct *mm = vma.vm_mm
    cdef vm_area_struct *new
    cdef int err
    if mm.map_count >= MAX_MAP_COUNT:
        return -ENOMEM
    new = vm_area_dup(vma, mm)
    if new == NULL:
        return -ENOMEM
    if new_below:
        new.vm_end = addr
    else:
        new.vm_start = addr
        new.vm_pgoff += (addr - vma.vm_start) >> PAGE_SHIFT
    err = anon_vma_clone(new, vma)
    if err:
        vm_area_free(new)
        return err
    get_file(new.vm_file)
    if new_below:
        vma_set_range(vma, addr, vma.vm_end, vma.vm_pgoff + ((addr - vma.vm_start) >> PAGE_SHIFT))
    else:
        vma_set_range(vma, vma.vm_start, addr, vma.vm_pgoff)
    err = vma_link(mm, new)
    if err:
        if new_below:
            vma_set_range(vma, new.vm_start, vma.vm_end, new.vm_pgoff)
        else:
            vma_set_range(vma, vma.vm_start, new.vm_end, vma.vm_pgoff)
        unlink_anon_vmas(new)
        remove_vma(new)
    return err


# Merging

cdef bint is_mergeable_anon_vma(struct_anon_vma *anon_vma1, struct_anon_vma *anon_vma2, vm_area_struct *vma) noexcept nogil:
    # If one anon_vma is missing, a vma that fork has linked to several anon_vmas is not joined.
    if (anon_vma1 == NULL or anon_vma2 == NULL) and (vma == NULL or list_is_singular(&vma.anon_vma_chain)):
        return True
    return anon_vma1 == anon_vma2


cdef bint can_vma_merge_after(vm_area_struct *prev, vm_flags_t flags, file *object, struct_anon_vma *anon_vma,
                              unsigned long pgoff) noexcept nogil:
    return (prev.vm_flags == flags and prev.vm_file == object and is_mergeable_anon_vma(anon_vma, prev.anon_vma, prev)
            and prev.vm_pgoff + vma_pages(prev) == pgoff)


cdef bint can_vma_merge_before(vm_area_struct *following, vm_flags_t flags, file *object, struct_anon_vma *anon_vma,
                               unsigned long pgoff_end) noexcept nogil:
    return (following.vm_flags == flags and following.vm_file == object
            and is_mergeable_anon_vma(anon_vma, following.anon_vma, following) and following.vm_pgoff == pgoff_end)


cdef int dup_anon_vma(vm_area_struct *dst, vm_area_struct *src) noexcept nogil:
    """Give dst the anon_vma of src, before dst takes over the pages of src."""
    if src.anon_vma != NULL and dst.anon_vma == NULL:
        dst.anon_vma = src.anon_vma
        return anon_vma_clone(dst, src)
    return 0


cdef void drop_merged(mm_struct *mm, vm_area_struct *vma) noexcept nogil:
    """Remove a vma whose range now belongs to a neighbour, or is about to."""
    vma_unlink(mm, vma)
    unlink_anon_vmas(vma)
    remove_vma(vma)


cdef vm_area_struct *vma_merge_existing_range(vm_area_struct *vma, unsigned long start, unsigned long end, vm_flags_t flags,
                                              int *error) noexcept nogil:
    """Give [start, end) of the vma, which gets `flags`, to neighbours that have these flags already; NULL if there are none."""
    cdef mm_struct *mm = vma.vm_mm
    cdef int i = vma_find_index(mm, vma.vm_start)
    cdef vm_area_struct *prev = NULL
    cdef vm_area_struct *following = NULL
    cdef unsigned long pgoff = vma.vm_pgoff + ((start - vma.vm_start) >> PAGE_SHIFT)
    cdef unsigned long pgoff_end = pgoff + ((end - start) >> PAGE_SHIFT), far_end
    cdef bint left = False, right = False
    if start == vma.vm_start and i > 0 and mm.vmas[i - 1].vm_end == start:
        prev = mm.vmas[i - 1]
        left = can_vma_merge_after(prev, flags, vma.vm_file, vma.anon_vma, pgoff)
    if end == vma.vm_end and i + 1 < mm.map_count and mm.vmas[i + 1].vm_start == end:
        following = mm.vmas[i + 1]
        right = can_vma_merge_before(following, flags, vma.vm_file, vma.anon_vma, pgoff_end)
    if left and right and is_mergeable_anon_vma(prev.anon_vma, following.anon_vma, NULL):
        error[0] = dup_anon_vma(prev, following if following.anon_vma != NULL else vma)
        if error[0]:
            return NULL
        far_end = following.vm_end
        drop_merged(mm, following)
        drop_merged(mm, vma)
        vma_set_range(prev, prev.vm_start, far_end, prev.vm_pgoff)
        return prev
    if left:
        error[0] = dup_anon_vma(prev, vma)
        if error[0]:
            return NULL
        if end == vma.vm_end:
            drop_merged(mm, vma)
        else:
            vma_set_range(vma, end, vma.vm_end, pgoff_end)
        vma_set_range(prev, prev.vm_start, end, prev.vm_pgoff)
        return prev
    if right:
        error[0] = dup_anon_vma(following, vma)
        if error[0]:
            return NULL
        if start == vma.vm_start:
            drop_merged(mm, vma)
        else:
            vma_set_range(vma, vma.vm_start, start, vma.vm_pgoff)
        vma_set_range(following, start, following.vm_end, pgoff)
        return following
    return NULL


cdef vm_area_struct *vma_modify_flags(vm_area_struct *vma, unsigned long start, unsigned long end, vm_flags_t flags,
                                      int *error) noexcept nogil:
    """A vma of exactly [start, end) that is to have `flags`, or a larger joined vma that has them; NULL with an errno.

    The vma is joined with neighbours or split off. The caller sets the flags where they are not set yet.
    """
    cdef vm_area_struct *merged
    error[0] = 0
    merged = vma_merge_existing_range(vma, start, end, flags, error)
    if merged != NULL or error[0]:
        return merged
    if vma.vm_start < start:
        error[0] = split_vma(vma, start, True)
        if error[0]:
            return NULL
    if vma.vm_end > end:
        error[0] = split_vma(vma, end, False)
        if error[0]:
            return NULL
    return vma


cdef vm_area_struct *vma_merge_new_range(mm_struct *mm, unsigned long start, unsigned long end, vm_flags_t flags,
                                         unsigned long pgoff, vm_area_struct *like) noexcept nogil:
    """Let a neighbour grow over the free range [start, end); NULL if none can.

    `like` is the vma from which pages will move there (mremap), or NULL for a new mapping without pages.
    """
    cdef int i = vma_find_index(mm, start)
    cdef vm_area_struct *prev = mm.vmas[i - 1] if i > 0 and mm.vmas[i - 1].vm_end == start else NULL
    cdef vm_area_struct *following = mm.vmas[i] if i < mm.map_count and mm.vmas[i].vm_start == end else NULL
    cdef struct_anon_vma *anon_vma = like.anon_vma if like != NULL else NULL
    cdef file *object = like.vm_file if like != NULL else NULL
    cdef unsigned long pgoff_end = pgoff + ((end - start) >> PAGE_SHIFT), far_end
    cdef bint left = prev != NULL and can_vma_merge_after(prev, flags, object, anon_vma, pgoff)
    cdef bint right = following != NULL and can_vma_merge_before(following, flags, object, anon_vma, pgoff_end)
    if left and right and is_mergeable_anon_vma(prev.anon_vma, following.anon_vma, NULL):
        if dup_anon_vma(prev, following) or (like != NULL and dup_anon_vma(prev, like)):
            return NULL
        far_end = following.vm_end
        drop_merged(mm, following)
        vma_set_range(prev, prev.vm_start, far_end, prev.vm_pgoff)
        return prev
    if left:
        if like != NULL and dup_anon_vma(prev, like):
            return NULL
        vma_set_range(prev, prev.vm_start, end, prev.vm_pgoff)
        return prev
    if right:
        if like != NULL and dup_anon_vma(following, like):
            return NULL
        vma_set_range(following, start, following.vm_end, pgoff)
        return following
    return NULL


# Unmapping

cdef int do_vma_munmap(mm_struct *mm, unsigned long start, unsigned long end) noexcept nogil:
    """Remove everything in [start, end): split at the ends, take the pages, the anon_vmas, the tables, the vmas. -ENOMEM."""
    cdef int first, i, err
    cdef unsigned long floor, ceiling, tables_start, tables_end
    cdef vm_area_struct *vma
    first = vma_find_index(mm, start)
    if first == mm.map_count or mm.vmas[first].vm_start >= end:
        return 0
    if mm.vmas[first].vm_start < start:
        # A hole in the middle adds a vma, so the limit is checked before anything is done.
        if mm.vmas[first].vm_end > end and mm.map_count >= MAX_MAP_COUNT:
            return -ENOMEM
        err = split_vma(mm.vmas[first], start, True)
        if err:
            return err
        first += 1
    i = vma_find_index(mm, end - 1)
    if i < mm.map_count and mm.vmas[i].vm_start < end < mm.vmas[i].vm_end:
        err = split_vma(mm.vmas[i], end, True)
        if err:
            return err
    floor = mm.vmas[first - 1].vm_end if first > 0 else 0
    if not mm.machine.lru_drained_seldom:
        lru_add_drain(mm.machine)       # unmapped pages can then be freed at once
    tables_start = mm.vmas[first].vm_start
    tables_end = tables_start
    while first < mm.map_count and mm.vmas[first].vm_start < end:
        vma = mm.vmas[first]
        tables_end = vma.vm_end
        unmap_page_range(vma, vma.vm_start, vma.vm_end)
        vma_unlink(mm, vma)
        unlink_anon_vmas(vma)
        remove_vma(vma)
    ceiling = mm.vmas[first].vm_start if first < mm.map_count else 0
    free_pgd_range(mm, tables_start, tables_end, floor, ceiling)
    return 0


cdef void exit_mmap(mm_struct *mm) noexcept nogil:
    """Unmap the whole address space (mm/mmap.c)."""
    cdef int i
    if not mm.machine.lru_drained_seldom:
        lru_add_drain(mm.machine)
    mmap_write_lock(mm)
    for i in range(mm.map_count):
        unmap_page_range(mm.vmas[i], mm.vmas[i].vm_start, mm.vmas[i].vm_end)
    for i in range(mm.map_count):
        unlink_anon_vmas(mm.vmas[i])
        remove_vma(mm.vmas[i])
    mm.map_count = 0
    mm.total_vm = 0
    free_page_tables(mm)
    mmap_write_unlock(mm)

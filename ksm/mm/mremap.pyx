# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/mremap.c of Linux 6.12.
"""mremap: resize a mapping in place, or move it with its pages.

Pages keep their index when they move, so the new vma gets the old one's offset and anon_vmas. Merged pages do not move. They are unmerged
first, because at the new address they could not be matched with their rmap_items. MREMAP_DONTUNMAP is not offered. The era 7.3 moves all
mappings of a range, as Linux does since 6.17.
"""

from libc.errno cimport EFAULT, EINVAL, ENOMEM

from linux.atomic cimport atomic_add_return
from linux.ksm cimport ksm_madvise
from linux.mm cimport VM_DONTEXPAND, VM_PFNMAP, VM_SHARED, find_vma, vma_lookup
from linux.mm_types cimport (PAGE_SHIFT, PAGE_SIZE, PMD_SIZE, mm_struct, page_mask, pmd_t, pte_t, vm_area_struct, vm_flags_t)
from linux.mman cimport MADV_UNMERGEABLE, MREMAP_FIXED, MREMAP_MAYMOVE
from linux.pgtable cimport (pmd_leaf, pmd_none, pmd_offset_mm, pmdp_get_lockless, pte_none, pte_offset_map_lock, ptep_get,
                            ptep_get_and_clear, set_pte_at)
from linux.rmap cimport anon_vma_lock_write, anon_vma_unlock_write
from linux.spinlock cimport spin_unlock, spinlock_t

from ksm.mm.huge_memory cimport move_huge_pmd, split_huge_pmd
from ksm.mm.memory cimport pmd_alloc, pte_alloc
from ksm.mm.mmap cimport check_mmap_addr, do_munmap, get_unmapped_area, task_size
from ksm.mm.rmap cimport anon_vma_clone, unlink_anon_vmas
from ksm.mm.vma cimport (do_vma_munmap, remove_vma, vm_area_dup, vm_area_free, vma_link, vma_merge_new_range, vma_set_range)


cdef enum:
    MAX_MAP_COUNT = 65530


cdef void move_ptes(vm_area_struct *vma, pmd_t *old_pmd, unsigned long old_addr, unsigned long old_end, pmd_t *new_pmd,
                    unsigned long new_addr) noexcept nogil:
    """Move the entries of one table to another; the two may be the same."""
    cdef mm_struct *mm = vma.vm_mm
    cdef spinlock_t *old_ptl = NULL
    cdef spinlock_t *new_ptl = NULL
    cdef pte_t *old_pte = pte_offset_map_lock(mm, old_pmd, old_addr, &old_ptl)
    cdef pte_t *new_pte
    cdef pte_t pte
    if old_pte == NULL:
        return
    if pmdp_get_lockless(old_pmd) == pmdp_get_lockless(new_pmd):
        new_pte = old_pte + ((new_addr >> PAGE_SHIFT) & 511) - ((old_addr >> PAGE_SHIFT) & 511)
    else:
        new_pte = pte_offset_map_lock(mm, new_pmd, new_addr, &new_ptl)
    while old_addr < old_end:
        if not pte_none(ptep_get(old_pte)):
            pte = ptep_get_and_clear(mm, old_addr, old_pte)
            set_pte_at(mm, new_addr, new_pte, pte)
        old_pte += 1
        new_pte += 1
        old_addr += PAGE_SIZE
        new_addr += PAGE_SIZE
    if new_ptl != NULL:
        spin_unlock(new_ptl)
    spin_unlock(old_ptl)


cdef unsigned long move_page_tables(vm_area_struct *vma, unsigned long old_addr, vm_area_struct *new_vma, unsigned long new_addr,
                                    unsigned long length) noexcept nogil:
    """Move the entries of a range. Returns the number of bytes moved, which is smaller than `length` if there was no memory for a table."""
    cdef mm_struct *mm = vma.vm_mm
    cdef unsigned long start = old_addr, old_end = old_addr + length, extent, until
    cdef pmd_t *old_pmd
    cdef pmd_t *new_pmd
    # An rmap walk must find the page at the old place or at the new one.
    if vma.anon_vma != NULL:
        anon_vma_lock_write(vma.anon_vma)
    while old_addr < old_end:
        # One step stays within one table on both sides.
        until = (old_addr + PMD_SIZE) & ~(<unsigned long>PMD_SIZE - 1)
        extent = (until if until < old_end else old_end) - old_addr
        until = ((new_addr + PMD_SIZE) & ~(<unsigned long>PMD_SIZE - 1)) - new_addr
        if extent > until:
            extent = until
        old_pmd = pmd_offset_mm(mm, old_addr)
        if old_pmd != NULL and not pmd_none(pmdp_get_lockless(old_pmd)):
            new_pmd = pmd_alloc(mm, new_addr)
            if new_pmd == NULL:
                break
            if pmd_leaf(pmdp_get_lockless(old_pmd)):
                if extent == PMD_SIZE and move_huge_pmd(new_vma, old_pmd, new_addr, new_pmd):
                    old_addr += extent
                    new_addr += extent
                    continue
                split_huge_pmd(vma, old_pmd, old_addr)
            if pte_alloc(mm, new_pmd):
                break
            move_ptes(new_vma, old_pmd, old_addr, old_addr + extent, new_pmd, new_addr)
        old_addr += extent
        new_addr += extent
    if vma.anon_vma != NULL:
        anon_vma_unlock_write(vma.anon_vma)
    return old_addr - start


cdef vm_area_struct *copy_vma(vm_area_struct *vma, unsigned long addr, unsigned long length, unsigned long pgoff) noexcept nogil:
    """A vma at the new place for the pages of `vma` (mm/vma.c); NULL without memory."""
    cdef mm_struct *mm = vma.vm_mm
    cdef vm_area_struct *new_vma
    if vma.vm_file == NULL and vma.anon_vma == NULL:
        # Nothing was written yet. The offset is chosen to fit the new place, so that the vma can join neighbours there.
        pgoff = addr >> PAGE_SHIFT
    new_vma = vma_merge_new_range(mm, addr, addr + length, vma.vm_flags, pgoff, vma)
    if new_vma != NULL:
        return new_vma
    new_vma = vm_area_dup(vma, mm)
    if new_vma == NULL:
        return NULL
    new_vma.vm_start = addr
    new_vma.vm_end = addr + length
    new_vma.vm_pgoff = pgoff
    if anon_vma_clone(new_vma, vma):
        vm_area_free(new_vma)
        return NULL
    if new_vma.vm_file != NULL:
        atomic_add_return(&new_vma.vm_file.f_count, 1)
    if vma_link(mm, new_vma):
        unlink_anon_vmas(new_vma)
        remove_vma(new_vma)
        return NULL
    return new_vma


cdef long move_vma(vm_area_struct *vma, unsigned long old_addr, unsigned long old_len, unsigned long new_len,
                   unsigned long new_addr) noexcept nogil:
    cdef mm_struct *mm = vma.vm_mm
    cdef vm_area_struct *new_vma
    cdef vm_flags_t vm_flags = vma.vm_flags
    cdef unsigned long moved_len
    cdef int err
    if mm.map_count >= MAX_MAP_COUNT - 3:
        return -ENOMEM
    # Only the copy in vm_flags is changed: the vma stays mergeable at the old place and at the new one.
    err = ksm_madvise(vma, old_addr, old_addr + old_len, MADV_UNMERGEABLE, &vm_flags)
    if err:
        return err
    new_vma = copy_vma(vma, new_addr, new_len, vma.vm_pgoff + ((old_addr - vma.vm_start) >> PAGE_SHIFT))
    if new_vma == NULL:
        return -ENOMEM
    if new_vma.vm_start <= old_addr < new_vma.vm_end:
        vma = new_vma           # the new range joined the old vma, which may have been freed
    moved_len = move_page_tables(vma, old_addr, new_vma, new_addr, old_len)
    if moved_len < old_len:
        # Move the entries back. The tables for that exist already.
        move_page_tables(new_vma, new_addr, vma, old_addr, moved_len)
        do_vma_munmap(mm, new_addr, new_addr + new_len)
        return -ENOMEM
    do_vma_munmap(mm, old_addr, old_addr + old_len)
    return <long>new_addr


cdef long vma_to_resize(vm_area_struct *vma, unsigned long addr, unsigned long old_len, unsigned long new_len) noexcept nogil:
    if old_len == 0 and not (vma.vm_flags & VM_SHARED):
        return -EINVAL
    if old_len > vma.vm_end - addr:
        return -EFAULT
    if new_len == old_len:
        return 0
    if vma.vm_flags & (VM_DONTEXPAND | VM_PFNMAP):
        return -EFAULT
    return 0


cdef int check_mremap_params(unsigned long addr, unsigned long old_len, unsigned long new_addr, unsigned long new_len) noexcept nogil:
    # The checks of a new place, which since 6.17 come before all others.
    if new_addr & (PAGE_SIZE - 1) or new_len > task_size() or new_addr > task_size() - new_len:
        return -EINVAL
    if addr + old_len > new_addr and new_addr + new_len > addr:
        return -EINVAL
    return 0


cdef long mremap_to(mm_struct *mm, unsigned long addr, unsigned long old_len, unsigned long new_addr,
                    unsigned long new_len) noexcept nogil:
    cdef vm_area_struct *vma
    cdef long ret
    ret = check_mremap_params(addr, old_len, new_addr, new_len)
    if ret:
        return ret
    ret = do_munmap(mm, new_addr, new_len)
    if ret:
        return ret
    if old_len > new_len:
        ret = do_munmap(mm, addr + new_len, old_len - new_len)
        if ret:
            return ret
        old_len = new_len
    vma = vma_lookup(mm, addr)
    if vma == NULL:
        return -EFAULT
    ret = vma_to_resize(vma, addr, old_len, new_len)
    if ret:
        return ret
    # This check comes last, as in the kernel: the mappings at the new place, and the part that is cut off, are unmapped by now.
    ret = check_mmap_addr(new_addr, new_len)
    if ret:
        return ret
    return move_vma(vma, addr, old_len, new_len, new_addr)


cdef long remap_move(mm_struct *mm, unsigned long start, unsigned long length, unsigned long new_addr) noexcept nogil:
    """Move all mappings of a range, and keep the gaps between them (since 6.17)."""
    cdef unsigned long end = start + length, addr = start, target = new_addr, last_end = 0, extent
    cdef vm_area_struct *vma = find_vma(mm, start)
    cdef long ret
    if vma == NULL or vma.vm_start > start:
        return -EFAULT
    while vma != NULL and vma.vm_start < end:
        if last_end:
            addr = vma.vm_start
            target += addr - last_end
        last_end = vma.vm_end
        extent = min(end, last_end) - addr
        ret = mremap_to(mm, addr, extent, target, extent)
        if ret < 0:
            return ret
        target = <unsigned long>ret + extent
        vma = find_vma(mm, last_end)
    return <long>new_addr


cdef long do_mremap(mm_struct *mm, unsigned long addr, unsigned long old_len, unsigned long new_len, int flags,
                    unsigned long new_addr) noexcept nogil:
    """mremap(2): the new address, or -EINVAL, -EFAULT, -ENOMEM, -EPERM. mmap_lock is held for writing."""
    cdef vm_area_struct *vma
    cdef vm_area_struct *following
    cdef long ret
    if flags & ~(MREMAP_FIXED | MREMAP_MAYMOVE) or (flags & MREMAP_FIXED and not flags & MREMAP_MAYMOVE) or addr & (PAGE_SIZE - 1):
        return -EINVAL
    old_len = (old_len + PAGE_SIZE - 1) & page_mask()
    new_len = (new_len + PAGE_SIZE - 1) & page_mask()
    if new_len == 0 or (new_len > task_size() and mm.machine.mremap_moves_many):    # 6.17 looks at the size first
        return -EINVAL
    if flags & MREMAP_FIXED and mm.machine.mremap_moves_many:
        ret = check_mremap_params(addr, old_len, new_addr, new_len)
        if ret:
            return ret
        if old_len == new_len:
            return remap_move(mm, addr, old_len, new_addr)
    vma = vma_lookup(mm, addr)
    if vma == NULL:
        return -EFAULT
    if flags & MREMAP_FIXED and mm.machine.mremap_moves_many:
        # Since 6.17, nothing is unmapped at the new place if the old one cannot be moved.
        ret = vma_to_resize(vma, addr, min(old_len, new_len), new_len)
        if ret:
            return ret
    if flags & MREMAP_FIXED:
        return mremap_to(mm, addr, old_len, new_addr, new_len)
    if old_len >= new_len:
        if old_len > new_len:
            ret = do_munmap(mm, addr + new_len, old_len - new_len)
            if ret:
                return ret
        return <long>addr
    ret = vma_to_resize(vma, addr, old_len, new_len)
    if ret:
        return ret
    if old_len == vma.vm_end - addr and new_len <= task_size() and addr <= task_size() - new_len:
        following = find_vma(mm, vma.vm_end)
        if following == NULL or following.vm_start >= addr + new_len:
            if vma_merge_extend(vma, addr + new_len):
                return <long>addr
            return -ENOMEM
    if not flags & MREMAP_MAYMOVE:
        return -ENOMEM
    new_addr = get_unmapped_area(mm, new_len)
    if new_addr == 0:
        return -ENOMEM
    return move_vma(vma, addr, old_len, new_len, new_addr)


cdef bint vma_merge_extend(vm_area_struct *vma, unsigned long end) noexcept nogil:
    """Let the vma grow to `end`, and join the vma that begins there if it fits (mm/vma.c)."""
    cdef unsigned long old_end = vma.vm_end
    if vma_merge_new_range(vma.vm_mm, old_end, end, vma.vm_flags, vma.vm_pgoff + ((old_end - vma.vm_start) >> PAGE_SHIFT),
                           vma) != NULL:
        return True
    # The new range does not even join the vma itself, because fork has linked the vma to several anon_vmas. The vma can still be made
    # longer.
    vma_set_range(vma, vma.vm_start, end, vma.vm_pgoff)
    return True

# SPDX-License-Identifier: GPL-2.0-only
# Follows include/linux/ksm.h of Linux 6.12.
"""The interface of KSM to the rest of memory management.

The substrate stands below ksm/mm/ksm.pyx and cannot import it, so the functions that the kernel declares here are reached through
the table machine.ksm_ops. A machine without KSM has no table, and the inlines do what they do without CONFIG_KSM.
"""

from linux.atomic cimport (atomic_long_add, atomic_long_dec, atomic_long_inc, atomic_long_read, test_bit)
from linux.mm cimport VM_MERGEABLE
from linux.mm_types cimport (MMF_VM_MERGEABLE, MMF_VM_MERGE_ANY, machine, mm_struct, pte_t, struct_folio, struct_page,
                             to_kill_list, vm_area_struct, vm_flags_t)
from linux.mman cimport MADV_UNMERGEABLE
from linux.page_flags cimport PG_ksm_watched, folio_test_ksm, test_page_flag
from linux.pgtable cimport is_zero_pfn, pte_dirty, pte_pfn
from linux.rmap cimport rmap_walk_control


cdef inline int ksm_madvise(vm_area_struct *vma, unsigned long start, unsigned long end, int advice,
                            vm_flags_t *vm_flags) noexcept nogil:
    if vma.vm_mm.machine.ksm_ops == NULL:
        return 0
    if advice == MADV_UNMERGEABLE:
        ksm_range_changed(vma, start, end)      # OURS
    return vma.vm_mm.machine.ksm_ops.madvise(vma, start, end, advice, vm_flags)


cdef inline void ksm_add_vma(vm_area_struct *vma) noexcept nogil:
    if vma.vm_mm.machine.ksm_ops != NULL and not vma.vm_mm.machine.ksm_flags_first:     # OURS: since 6.17, ksm_vma_flags() has done it
        vma.vm_mm.machine.ksm_ops.add_vma(vma)


cdef inline vm_flags_t ksm_vma_flags(mm_struct *mm, vm_flags_t vm_flags) noexcept nogil:
    if mm.machine.ksm_ops == NULL or not mm.machine.ksm_flags_first:    # OURS: until 6.16, ksm_add_vma() does it
        return vm_flags
    return mm.machine.ksm_ops.vma_flags(mm, vm_flags)


cdef inline int ksm_enable_merge_any(mm_struct *mm) noexcept nogil:
    return mm.machine.ksm_ops.enable_merge_any(mm)


cdef inline int ksm_disable_merge_any(mm_struct *mm) noexcept nogil:
    cdef int i
    for i in range(mm.map_count):
        ksm_range_changed(mm.vmas[i], mm.vmas[i].vm_start, mm.vmas[i].vm_end)   # OURS
    return mm.machine.ksm_ops.disable_merge_any(mm)


cdef inline int __ksm_enter(mm_struct *mm) noexcept nogil:
    return mm.machine.ksm_ops.enter(mm)


cdef inline void __ksm_exit(mm_struct *mm) noexcept nogil:
    mm.machine.ksm_ops.exit(mm)


# A zero page that KSM put there has the dirty bit, which nothing else sets on an entry of the zero page.

cdef inline bint is_ksm_zero_pte(machine *m, pte_t pte) noexcept nogil:
    return is_zero_pfn(m, pte_pfn(pte)) and pte_dirty(pte)


cdef inline void ksm_map_zero_page(mm_struct *mm) noexcept nogil:
    atomic_long_inc(&mm.machine.ksm_zero_pages)
    atomic_long_inc(&mm.ksm_zero_pages)


cdef inline void ksm_might_unmap_zero_page(mm_struct *mm, pte_t pte) noexcept nogil:
    if is_ksm_zero_pte(mm.machine, pte):
        atomic_long_dec(&mm.machine.ksm_zero_pages)
        atomic_long_dec(&mm.ksm_zero_pages)


cdef inline long mm_ksm_zero_pages(mm_struct *mm) noexcept nogil:
    return atomic_long_read(&mm.ksm_zero_pages)


cdef inline void ksm_fork(mm_struct *mm, mm_struct *oldmm) noexcept nogil:
    cdef long nr_ksm_zero_pages
    # If the child cannot be registered, ksmd does not scan it.
    if test_bit(MMF_VM_MERGEABLE, &oldmm.flags):
        nr_ksm_zero_pages = atomic_long_read(&mm.ksm_zero_pages)
        if mm.machine.fork_resets_ksm_counts:       # OURS: until 6.1 a child counts its parent's pages, too
            mm.ksm_merging_pages = 0
            mm.ksm_rmap_items = 0
            mm.parents_merging_pages = 0
            mm.parents_rmap_items = 0
        atomic_long_add(nr_ksm_zero_pages, &mm.machine.ksm_zero_pages)
        __ksm_enter(mm)


cdef inline int ksm_execve(mm_struct *mm) noexcept nogil:
    if test_bit(MMF_VM_MERGE_ANY, &mm.flags):
        return __ksm_enter(mm)
    return 0


cdef inline void ksm_exit(mm_struct *mm) noexcept nogil:
    if test_bit(MMF_VM_MERGEABLE, &mm.flags):
        __ksm_exit(mm)


cdef inline struct_folio *ksm_might_need_to_copy(struct_folio *folio, vm_area_struct *vma, unsigned long addr) noexcept nogil:
    if vma.vm_mm.machine.ksm_ops == NULL:
        return folio
    return vma.vm_mm.machine.ksm_ops.might_need_to_copy(folio, vma, addr)


cdef inline void rmap_walk_ksm(machine *m, struct_folio *folio, rmap_walk_control *rwc) noexcept nogil:
    if m.ksm_ops != NULL:
        m.ksm_ops.rmap_walk(folio, rwc)


cdef inline void folio_migrate_ksm(machine *m, struct_folio *newfolio, struct_folio *folio) noexcept nogil:
    if m.ksm_ops != NULL:
        m.ksm_ops.migrate(m, newfolio, folio)


cdef inline void collect_procs_ksm(machine *m, struct_folio *folio, to_kill_list *tokill) noexcept nogil:
    if m.ksm_ops != NULL:
        m.ksm_ops.collect_procs(folio, tokill)


cdef inline long ksm_process_profit(mm_struct *mm) noexcept nogil:
    if mm.machine.ksm_ops == NULL:
        return 0
    return mm.machine.ksm_ops.process_profit(mm)


# OURS: these make ksmd forget what it remembers of a page (ksm/fast). The kernel's ksmd remembers nothing.

cdef inline void ksm_page_changed(machine *m, struct_page *page) noexcept nogil:
    """Forget a page that is about to be written to, was unmapped somewhere, or has moved. Its table is locked, or it is not mapped there
    yet.
    """
    if test_page_flag(page, PG_ksm_watched):
        m.fast_ops.page_changed(m, page)


cdef inline void ksm_page_unwatch(machine *m, struct_page *page) noexcept nogil:
    """The same for a page that ksmd may just be starting to watch."""
    if m.fast_ops != NULL:
        m.fast_ops.page_changed(m, page)


cdef inline void ksm_range_changed(vm_area_struct *vma, unsigned long start, unsigned long end) noexcept nogil:
    """The same for all pages of a range that will not be mergeable any more, or will move. mmap_lock is held for writing."""
    if vma.vm_flags & VM_MERGEABLE and vma.vm_mm.machine.fast_ops != NULL:
        vma.vm_mm.machine.fast_ops.range_changed(vma, start, end)


cdef inline void ksm_page_freed(machine *m, struct_folio *folio) noexcept nogil:
    """Forget a merged page whose last reference is gone. Its mapping word is still there."""
    if folio_test_ksm(folio) and m.fast_ops != NULL:
        m.fast_ops.page_freed(m, folio)

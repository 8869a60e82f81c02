# SPDX-License-Identifier: GPL-2.0-only
# Follows include/linux/mm.h, mm_inline.h, pagemap.h, vmstat.h and mmu_notifier.h of Linux 6.12.
"""Flags of a mapping, flags of a fault, and the small inlines that all of mm/ uses."""

from linux.atomic cimport READ_ONCE_int, WRITE_ONCE_ulong, atomic_long_add_return, atomic_long_read
from linux.mm_types cimport (PAGE_SHIFT, machine, mm_struct, pmd_t, pte_t, struct_page,
                             vm_area_struct, vm_flags_t)
from linux.page_flags cimport pfn_to_page
from linux.pgtable cimport is_zero_pfn, pmd_pfn, pte_pfn, pte_special


cdef extern from *:
    """
    #ifndef KSM_VM_FLAGS_DEFINED
    #define KSM_VM_FLAGS_DEFINED
    #define KSM_VM(bit) (1UL << (bit))
    #endif
    """
    # All flags are unsigned long: a narrower VM_MERGEABLE, negated, would clear the upper half of vm_flags.
    const vm_flags_t VM_READ "KSM_VM(0)"
    const vm_flags_t VM_WRITE "KSM_VM(1)"
    const vm_flags_t VM_EXEC "KSM_VM(2)"
    const vm_flags_t VM_SHARED "KSM_VM(3)"
    const vm_flags_t VM_MAYREAD "KSM_VM(4)"
    const vm_flags_t VM_MAYWRITE "KSM_VM(5)"
    const vm_flags_t VM_MAYEXEC "KSM_VM(6)"
    const vm_flags_t VM_MAYSHARE "KSM_VM(7)"
    const vm_flags_t VM_GROWSDOWN "KSM_VM(8)"
    const vm_flags_t VM_PFNMAP "KSM_VM(10)"
    const vm_flags_t VM_LOCKED "KSM_VM(13)"
    const vm_flags_t VM_IO "KSM_VM(14)"
    const vm_flags_t VM_DONTCOPY "KSM_VM(17)"
    const vm_flags_t VM_DONTEXPAND "KSM_VM(18)"
    const vm_flags_t VM_ACCOUNT "KSM_VM(20)"
    const vm_flags_t VM_NORESERVE "KSM_VM(21)"
    const vm_flags_t VM_HUGETLB "KSM_VM(22)"
    const vm_flags_t VM_WIPEONFORK "KSM_VM(25)"
    const vm_flags_t VM_MIXEDMAP "KSM_VM(28)"
    const vm_flags_t VM_HUGEPAGE "KSM_VM(29)"
    const vm_flags_t VM_NOHUGEPAGE "KSM_VM(30)"
    const vm_flags_t VM_MERGEABLE "KSM_VM(31)"
    const vm_flags_t VM_DROPPABLE "KSM_VM(40)"


cdef enum:
    FAULT_FLAG_WRITE = 0x01
    FAULT_FLAG_USER = 0x40
    FAULT_FLAG_REMOTE = 0x80
    FAULT_FLAG_UNSHARE = 0x400
    FAULT_FLAG_ORIG_PTE_VALID = 0x800

    VM_FAULT_OOM = 0x000001
    VM_FAULT_SIGBUS = 0x000002
    VM_FAULT_HWPOISON = 0x000010
    VM_FAULT_SIGSEGV = 0x000040
    VM_FAULT_NOPAGE = 0x000100
    VM_FAULT_RETRY = 0x000400
    VM_FAULT_FALLBACK = 0x000800
    VM_FAULT_ERROR = 0x000873


cdef inline void vm_flags_reset(vm_area_struct *vma, vm_flags_t flags) noexcept nogil:
    # The word is written in one piece, because try_to_unmap_one() reads it without mmap_lock.
    WRITE_ONCE_ulong(vma.vm_flags, flags)


cdef inline void vm_flags_set(vm_area_struct *vma, vm_flags_t flags) noexcept nogil:
    vm_flags_reset(vma, vma.vm_flags | flags)


cdef inline void vm_flags_clear(vm_area_struct *vma, vm_flags_t flags) noexcept nogil:
    vm_flags_reset(vma, vma.vm_flags & ~flags)


cdef inline bint is_cow_mapping(vm_flags_t flags) noexcept nogil:
    return (flags & (VM_SHARED | VM_MAYWRITE)) == VM_MAYWRITE


cdef inline bint vma_is_accessible(vm_area_struct *vma) noexcept nogil:
    return (vma.vm_flags & (VM_READ | VM_WRITE | VM_EXEC)) != 0


cdef inline bint vma_is_dax(vm_area_struct *vma) noexcept nogil:
    return False                # no persistent memory here


cdef inline unsigned long vma_pages(vm_area_struct *vma) noexcept nogil:
    return (vma.vm_end - vma.vm_start) >> PAGE_SHIFT


cdef inline unsigned long linear_page_index(vm_area_struct *vma, unsigned long address) noexcept nogil:
    return ((address - vma.vm_start) >> PAGE_SHIFT) + vma.vm_pgoff


# vmas, ascending; vma_find_index() stands in for the walk of the kernel's maple tree.

cdef inline int vma_find_index(mm_struct *mm, unsigned long addr) noexcept nogil:
    """Index of the first vma that ends above addr, or map_count."""
    cdef int low = 0, high = mm.map_count, middle
    while low < high:
        middle = (low + high) >> 1
        if mm.vmas[middle].vm_end > addr:
            high = middle
        else:
            low = middle + 1
    return low


cdef inline vm_area_struct *find_vma(mm_struct *mm, unsigned long addr) noexcept nogil:
    cdef int i = vma_find_index(mm, addr)
    return mm.vmas[i] if i < mm.map_count else NULL


cdef inline vm_area_struct *vma_lookup(mm_struct *mm, unsigned long addr) noexcept nogil:
    cdef vm_area_struct *vma = find_vma(mm, addr)
    if vma == NULL or vma.vm_start > addr:
        return NULL
    return vma


cdef struct vma_iterator:
    mm_struct *mm
    unsigned long addr


cdef inline void vma_iter_init(vma_iterator *vmi, mm_struct *mm, unsigned long addr) noexcept nogil:
    vmi.mm = mm
    vmi.addr = addr


cdef inline vm_area_struct *vma_next(vma_iterator *vmi) noexcept nogil:
    cdef vm_area_struct *vma = find_vma(vmi.mm, vmi.addr)
    if vma != NULL:
        vmi.addr = vma.vm_end
    return vma


# vm_normal_page(): the frame behind a present entry, unless the entry is special (the zero page).

cdef inline struct_page *vm_normal_page(vm_area_struct *vma, unsigned long addr, pte_t pte) noexcept nogil:
    if pte_special(pte) or is_zero_pfn(vma.vm_mm.machine, pte_pfn(pte)):
        return NULL
    return pfn_to_page(vma.vm_mm.machine, pte_pfn(pte))


cdef inline struct_page *vm_normal_page_pmd(vm_area_struct *vma, unsigned long addr, pmd_t pmd) noexcept nogil:
    return pfn_to_page(vma.vm_mm.machine, pmd_pfn(pmd))     # huge pages are never special: there is no huge zero page


# Counters

cdef inline void add_mm_counter(mm_struct *mm, int member, long value) noexcept nogil:
    atomic_long_add_return(&mm.rss_stat[member], value)


cdef inline void inc_mm_counter(mm_struct *mm, int member) noexcept nogil:
    atomic_long_add_return(&mm.rss_stat[member], 1)


cdef inline void dec_mm_counter(mm_struct *mm, int member) noexcept nogil:
    atomic_long_add_return(&mm.rss_stat[member], -1)


cdef inline long get_mm_counter(mm_struct *mm, int member) noexcept nogil:
    return atomic_long_read(&mm.rss_stat[member])


cdef inline void count_vm_event(machine *m, int item) noexcept nogil:
    atomic_long_add_return(&m.vm_event[item], 1)


cdef inline bint mm_tlb_flush_pending(mm_struct *mm) noexcept nogil:
    return atomic_long_read(&mm.tlb_flush_pending) > 0


# There are no mmu notifiers here; the calls are counted.

cdef inline void mmu_notifier_invalidate_range_start(mm_struct *mm) noexcept nogil:
    atomic_long_add_return(<long *>&mm.notifier_invalidations, 1)


cdef inline void mmu_notifier_invalidate_range_end(mm_struct *mm) noexcept nogil:
    pass


cdef inline bint signal_pending(machine *m) noexcept nogil:
    return READ_ONCE_int(m.sigpending) != 0

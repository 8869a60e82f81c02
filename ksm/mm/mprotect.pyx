# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/mprotect.c of Linux 6.12.
"""mprotect. Pages are not moved or copied. Merged pages and zero pages stay read-only, whatever the vma becomes."""

from libc.errno cimport EINVAL, ENOMEM

from linux.atomic cimport WRITE_ONCE_ulong
from linux.ksm cimport ksm_range_changed
from linux.mm cimport (VM_ACCOUNT, VM_EXEC, VM_HUGETLB, VM_NORESERVE, VM_READ, VM_SHARED, VM_WRITE, find_vma, vm_flags_reset,
                       vm_normal_page)
from linux.mm_types cimport PAGE_SIZE, PMD_SIZE, mm_struct, page_mask, pmd_t, pte_t, struct_page, vm_area_struct, vm_flags_t
from linux.mman cimport PROT_EXEC, PROT_READ, PROT_WRITE
from linux.page_flags cimport PageAnonExclusive, folio_test_anon, page_folio
from linux.pgtable cimport (pmd_addr_end, pmd_leaf, pmd_none, pmd_offset_mm, pmdp_get_lockless, pte_mkwrite, pte_modify,
                            pte_offset_map_lock, pte_present, pte_protnone, pte_write, ptep_get, ptep_get_and_clear, set_pte_at)
from linux.spinlock cimport spin_unlock, spinlock_t
from linux.swapops cimport is_migration_pte, is_writable_migration_pte, make_migration_pte, swp_offset

from ksm.mm.huge_memory cimport change_huge_pmd, split_huge_pmd
from ksm.mm.vma cimport vm_get_page_prot, vma_modify_flags


cdef bint can_change_private_pte_writable(vm_area_struct *vma, unsigned long addr, pte_t pte) noexcept nogil:
    """Whether a write fault would reuse the page in place of copying it. It does so for anonymous pages that are marked exclusive."""
    cdef struct_page *page = vm_normal_page(vma, addr, pte)
    return page != NULL and folio_test_anon(page_folio(page)) and PageAnonExclusive(page)


cdef void change_pte_range(vm_area_struct *vma, pmd_t *pmd, unsigned long addr, unsigned long end) noexcept nogil:
    cdef spinlock_t *ptl = NULL
    cdef pte_t *pte = pte_offset_map_lock(vma.vm_mm, pmd, addr, &ptl)
    cdef pte_t ptent
    if pte == NULL:
        return
    while addr < end:
        if pte_present(ptep_get(pte)):
            ptent = pte_modify(ptep_get_and_clear(vma.vm_mm, addr, pte), vma.vm_page_prot)
            if (vma.vm_flags & (VM_WRITE | VM_SHARED)) == VM_WRITE and not pte_write(ptent) \
                    and can_change_private_pte_writable(vma, addr, ptent):
                ptent = pte_mkwrite(ptent)
            set_pte_at(vma.vm_mm, addr, pte, ptent)
        elif is_migration_pte(ptep_get(pte)) and is_writable_migration_pte(ptep_get(pte)):
            # The entry becomes read-only and stays exclusive. A later write fault decides whether the page may be written to.
            set_pte_at(vma.vm_mm, addr, pte, make_migration_pte(swp_offset(ptep_get(pte)), False, True))
        pte += 1
        addr += PAGE_SIZE
    spin_unlock(ptl)


cdef void change_protection(vm_area_struct *vma, unsigned long addr, unsigned long end) noexcept nogil:
    cdef unsigned long following
    cdef pmd_t *pmd
    while addr < end:
        following = pmd_addr_end(addr, end)
        pmd = pmd_offset_mm(vma.vm_mm, addr)
        if pmd != NULL and pmd_leaf(pmdp_get_lockless(pmd)):
            if following - addr != PMD_SIZE:
                split_huge_pmd(vma, pmd, addr)
            elif change_huge_pmd(vma, pmd, addr):
                addr = following
                continue
        if pmd != NULL and not pmd_none(pmdp_get_lockless(pmd)):
            change_pte_range(vma, pmd, addr, following)
        addr = following


cdef int mprotect_fixup(vm_area_struct *vma, unsigned long start, unsigned long end, vm_flags_t newflags) noexcept nogil:
    cdef int error = 0
    if newflags == vma.vm_flags:
        return 0
    # Memory is accounted once it has become writable. It is no longer accounted if it becomes read-only before anything was written.
    if newflags & VM_WRITE:
        if not vma.vm_flags & (VM_ACCOUNT | VM_WRITE | VM_HUGETLB | VM_SHARED | VM_NORESERVE):
            newflags |= VM_ACCOUNT
    elif vma.vm_flags & VM_ACCOUNT and vma.vm_file == NULL and vma.anon_vma == NULL:
        newflags &= ~VM_ACCOUNT
    vma = vma_modify_flags(vma, start, end, newflags, &error)
    if vma == NULL:
        return error
    vm_flags_reset(vma, newflags)
    WRITE_ONCE_ulong(vma.vm_page_prot, vm_get_page_prot(newflags))
    change_protection(vma, start, end)
    if vma.vm_mm.machine.protnone_is_no_page and pte_protnone(vma.vm_page_prot):
        ksm_range_changed(vma, start, end)      # OURS: a search of 6.1 ends at these pages, and the speed layer must not lead past them
    return 0


cdef int do_mprotect(mm_struct *mm, unsigned long start, unsigned long length, int prot) noexcept nogil:
    """mprotect(2): -EINVAL, or -ENOMEM for a range with holes, of which the part before the hole is changed."""
    cdef unsigned long end, tmp
    cdef vm_area_struct *vma
    cdef vm_flags_t newflags, access = VM_READ | VM_WRITE | VM_EXEC
    cdef int error
    if start & (PAGE_SIZE - 1):
        return -EINVAL
    if length == 0:
        return 0
    end = start + ((length + PAGE_SIZE - 1) & page_mask())
    if end <= start:
        return -ENOMEM
    if prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC):
        return -EINVAL
    while start < end:
        vma = find_vma(mm, start)
        if vma == NULL or vma.vm_start > start:
            return -ENOMEM
        newflags = vma.vm_flags & ~access
        if prot & PROT_READ:
            newflags |= VM_READ
        if prot & PROT_WRITE:
            newflags |= VM_WRITE
        if prot & PROT_EXEC:
            newflags |= VM_EXEC
        tmp = vma.vm_end if vma.vm_end < end else end
        error = mprotect_fixup(vma, start, tmp, newflags)
        if error:
            return error
        start = tmp
    return 0

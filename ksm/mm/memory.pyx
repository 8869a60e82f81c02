# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/memory.c of Linux 6.12.
"""Page tables and page faults of anonymous memory.

KSM depends on what happens here. A first read maps the zero page, a first write a new page. A write to a page that others may see copies it
(copy on write), unless the page is exclusive to this process. Fork shares pages between parent and child. Unmapping removes a mapping, and
the last one frees the page. A fault with FAULT_FLAG_UNSHARE makes the private copy without a write: the new page is exclusive, clean and
read-only. KSM breaks its merged pages that way.

An entry without a page names a slot of the swap area, from which the fault brings the page back, or a page that is being moved, for which
the fault waits.
"""

from libc.errno cimport EAGAIN, EFAULT, EIO, ENOMEM
from libc.string cimport memcpy

from linux.atomic cimport READ_ONCE_ptr, atomic_add_return, smp_load_acquire_ulong, smp_store_release_ulong
from linux.bug cimport BUG_ON, VM_BUG_ON
from linux.err cimport IS_ERR
from linux.highmem cimport copy_highpage
from linux.ksm cimport ksm_might_need_to_copy, ksm_might_unmap_zero_page, ksm_page_changed
from linux.mm cimport (FAULT_FLAG_ORIG_PTE_VALID, FAULT_FLAG_REMOTE, FAULT_FLAG_UNSHARE, FAULT_FLAG_WRITE, VM_FAULT_ERROR,
                       VM_FAULT_FALLBACK, VM_FAULT_HWPOISON, VM_FAULT_OOM, VM_FAULT_SIGBUS, VM_LOCKED, VM_MAYREAD, VM_MAYSHARE, VM_READ,
                       VM_SHARED, VM_WRITE, add_mm_counter, count_vm_event, dec_mm_counter, inc_mm_counter, is_cow_mapping,
                       linear_page_index, mmu_notifier_invalidate_range_end, mmu_notifier_invalidate_range_start, vm_normal_page,
                       vma_lookup)
from linux.mm_types cimport (COW_KSM, MM_ANONPAGES, MM_SHMEMPAGES, MM_SWAPENTS, PAGE_SHIFT, PAGE_SIZE, PGDIR_SHIFT, PGFAULT, PMD_SHIFT,
                             PMD_SIZE, PUD_SHIFT, file, machine, mm_struct, page_mask, pmd_t, pte_t, struct_folio, struct_page,
                             swap_info_struct, vm_area_struct, vm_fault_t)
from linux.page_flags cimport (PG_file, PG_lru, PG_plugged, PG_uptodate, PageAnonExclusive, PageHWPoison, SetPageAnonExclusive,
                               SetPageDirty, __folio_mark_uptodate, folio_get, folio_lock, folio_ref_count, folio_test_anon, folio_test_ksm,
                               folio_test_large, folio_test_lru, folio_test_swapcache, folio_test_uptodate, folio_trylock, folio_unlock,
                               page_folio, page_to_nid, pfn_to_page)
from linux.pgtable cimport (_PAGE_PRESENT, entry_offset_map_lock, is_zero_pfn, mk_pte, my_zero_pfn, pfn_pte, pmd_addr_end, pmd_leaf,
                            pmd_none, pmd_offset_mm, pmd_table, pmdp_get_lockless, pte_mkclean, pte_mkdirty, pte_mkold, pte_mkspecial,
                            pte_mkwrite, pte_mkyoung, pte_none, pte_offset_map, pte_offset_map_lock, pte_pfn, pte_present, pte_same,
                            pte_table, pte_unmap_unlock, pte_write, pte_wrprotect, ptep_clear_flush, ptep_get, ptep_get_and_clear,
                            set_pte_at)
from linux.rmap cimport RMAP_EXCLUSIVE, RMAP_NONE, folio_try_dup_anon_rmap_pte
from linux.spinlock cimport spin_lock, spin_unlock, spinlock_t
from linux.swap cimport folio_swap, vm_swap_full
from linux.swapops cimport (is_migration_pte, is_readable_migration_pte, is_swap_pte, make_migration_pte, pfn_swap_entry_folio,
                            pte_swp_clear_exclusive, pte_swp_exclusive, swp_offset)

from ksm.mm.huge_memory cimport (copy_huge_pmd, do_huge_pmd_anonymous_page, do_huge_pmd_wp_page, huge_pmd_set_accessed, split_huge_pmd,
                                 zap_huge_pmd)
from ksm.mm.migrate cimport migration_entry_wait
from ksm.mm.page_alloc cimport alloc_pages_node, folio_put, prep_new_page
from ksm.mm.pgtable_generic cimport pte_alloc_one, pte_free, table_alloc, table_free
from ksm.mm.rmap cimport anon_vma_prepare, folio_add_anon_rmap_pte, folio_add_new_anon_rmap, folio_move_anon_rmap, folio_remove_rmap_pte
from ksm.mm.swap cimport folio_add_lru, lru_add_drain, mark_page_accessed
from ksm.mm.swap_state cimport free_swap_cache, swap_cache_get_folio, swapin_readahead
from ksm.mm.swapfile cimport folio_free_swap, free_swap_and_cache, get_swap_device, put_swap_device, swap_duplicate, swap_free
from ksm.step cimport STEP_COW, ksm_step


cdef struct vm_fault:
    vm_area_struct *vma
    unsigned long address
    unsigned int flags
    unsigned long pgoff
    pmd_t *pmd
    pte_t *pte
    pte_t orig_pte
    spinlock_t *ptl
    struct_page *page


# Tables: made when the first page below them is, freed when their whole range is unmapped

cdef void free_pte_table(mm_struct *mm, pmd_t *pmdp) noexcept nogil:
    pte_free(mm, pmd_table(pmdp[0]))
    pmdp[0] = 0
    mm.nr_page_tables -= 1


cdef inline bint inside(unsigned long addr, unsigned long shift, unsigned long floor, unsigned long ceiling) noexcept nogil:
    """Whether the whole aligned block around addr lies in [floor, ceiling). A ceiling of 0 is the end of the address space."""
    cdef unsigned long start = addr >> shift << shift
    return start >= floor and (ceiling == 0 or start + (1UL << shift) <= ceiling)


cdef void free_pgd_range(mm_struct *mm, unsigned long addr, unsigned long end, unsigned long floor,
                         unsigned long ceiling) noexcept nogil:
    """Free the tables below [addr, end), as far as no mapping outside [floor, ceiling) needs them."""
    cdef unsigned long *pud_table
    cdef unsigned long *pmds
    cdef unsigned long step
    while addr < end:
        step = 1UL << PGDIR_SHIFT
        pud_table = <unsigned long *>mm.pgd[(addr >> PGDIR_SHIFT) & 511]
        if pud_table != NULL:
            step = 1UL << PUD_SHIFT
            pmds = <unsigned long *>pud_table[(addr >> PUD_SHIFT) & 511]
            if pmds != NULL:
                step = PMD_SIZE
                if not pmd_none(pmds[(addr >> PMD_SHIFT) & 511]) and inside(addr, PMD_SHIFT, floor, ceiling):
                    free_pte_table(mm, &pmds[(addr >> PMD_SHIFT) & 511])
        addr = (addr + step) & ~(step - 1)
        # When the last table of a 1 GiB block is freed, the block's own table is freed with it, and so on upwards.
        if pud_table != NULL:
            if inside(addr - 1, PUD_SHIFT, floor, ceiling) and (addr & ((1UL << PUD_SHIFT) - 1) == 0 or addr >= end):
                pmds = <unsigned long *>pud_table[((addr - 1) >> PUD_SHIFT) & 511]
                if pmds != NULL:
                    table_free(mm.machine, pmds)
                    pud_table[((addr - 1) >> PUD_SHIFT) & 511] = 0
                    mm.nr_page_tables -= 1
            if inside(addr - 1, PGDIR_SHIFT, floor, ceiling) and (addr & ((1UL << PGDIR_SHIFT) - 1) == 0 or addr >= end):
                table_free(mm.machine, pud_table)
                mm.pgd[((addr - 1) >> PGDIR_SHIFT) & 511] = 0
                mm.nr_page_tables -= 1


cdef void free_page_tables(mm_struct *mm) noexcept nogil:
    """Free all page tables. Nothing is mapped any more."""
    cdef unsigned long *puds
    cdef unsigned long *pmds
    cdef int i, j, k
    for i in range(512):
        puds = <unsigned long *>mm.pgd[i]
        if puds == NULL:
            continue
        for j in range(512):
            pmds = <unsigned long *>puds[j]
            if pmds == NULL:
                continue
            for k in range(512):
                if not pmd_none(pmds[k]):
                    free_pte_table(mm, &pmds[k])
            table_free(mm.machine, pmds)
            mm.nr_page_tables -= 1
        table_free(mm.machine, puds)
        mm.nr_page_tables -= 1
        mm.pgd[i] = 0


cdef bint alloc_upper(mm_struct *mm, unsigned long *entry) noexcept nogil:
    """Make a table for this upper entry, unless it has one."""
    cdef unsigned long *table
    if smp_load_acquire_ulong(entry[0]) != 0:
        return True
    table = table_alloc(mm.machine)
    if table == NULL:
        return False
    spin_lock(&mm.page_table_lock)
    if entry[0] == 0:
        smp_store_release_ulong(entry[0], <unsigned long>table)
        mm.nr_page_tables += 1
        table = NULL
    spin_unlock(&mm.page_table_lock)
    if table != NULL:
        table_free(mm.machine, table)
    return True


cdef pmd_t *pmd_alloc(mm_struct *mm, unsigned long addr) noexcept nogil:
    """The pmd entry for addr, with all levels above it made; NULL without memory."""
    cdef unsigned long *pgdp = &mm.pgd[(addr >> PGDIR_SHIFT) & 511]
    cdef unsigned long *pudp
    if not alloc_upper(mm, pgdp):
        return NULL
    pudp = <unsigned long *>smp_load_acquire_ulong(pgdp[0]) + ((addr >> PUD_SHIFT) & 511)
    if not alloc_upper(mm, pudp):
        return NULL
    return <pmd_t *>smp_load_acquire_ulong(pudp[0]) + ((addr >> PMD_SHIFT) & 511)


cdef int pte_alloc(mm_struct *mm, pmd_t *pmdp) noexcept nogil:
    """Make a table of entries for this pmd entry, unless it has one; -ENOMEM."""
    cdef pte_table *table
    if not pmd_none(pmdp_get_lockless(pmdp)):
        return 0
    table = pte_alloc_one(mm)
    if table == NULL:
        return -ENOMEM
    spin_lock(&mm.page_table_lock)
    if pmd_none(pmdp[0]):
        smp_store_release_ulong(pmdp[0], <unsigned long>table | _PAGE_PRESENT)
        mm.nr_page_tables += 1
        table = NULL
    spin_unlock(&mm.page_table_lock)
    if table != NULL:
        pte_free(mm, table)
    return 0


# fork

cdef int copy_nonpresent_pte(mm_struct *dst_mm, mm_struct *src_mm, pte_t *dst_pte, pte_t *src_pte, vm_area_struct *dst_vma,
                             unsigned long addr) noexcept nogil:
    """Give the child the parent's swap or migration entry. Neither entry is exclusive afterwards. -EIO if the slot cannot count one more.
    """
    cdef machine *m = dst_mm.machine
    cdef pte_t orig_pte = ptep_get(src_pte)
    cdef pte_t pte = orig_pte
    if is_swap_pte(orig_pte):
        if swap_duplicate(m, swp_offset(orig_pte)) < 0:
            return -EIO
        if pte_swp_exclusive(orig_pte):
            pte = pte_swp_clear_exclusive(orig_pte)
            set_pte_at(src_mm, addr, src_pte, pte)
        inc_mm_counter(dst_mm, MM_SWAPENTS)
    elif is_migration_pte(orig_pte):
        inc_mm_counter(dst_mm, MM_ANONPAGES if folio_test_anon(pfn_swap_entry_folio(m, orig_pte)) else MM_SHMEMPAGES)
        if not is_readable_migration_pte(orig_pte) and is_cow_mapping(dst_vma.vm_flags):
            # The young and dirty bits are dropped, as in the kernel: the page has the dirty bit already.
            pte = make_migration_pte(swp_offset(orig_pte), False, False)
            set_pte_at(src_mm, addr, src_pte, pte)
    set_pte_at(dst_mm, addr, dst_pte, pte)
    return 0


cdef inline void __copy_present_pte(vm_area_struct *dst_vma, vm_area_struct *src_vma, pte_t *dst_pte, pte_t *src_pte, pte_t pte,
                                    unsigned long addr) noexcept nogil:
    # Parent and child write from now on only after a fault.
    if is_cow_mapping(src_vma.vm_flags) and pte_write(pte):
        set_pte_at(src_vma.vm_mm, addr, src_pte, pte_wrprotect(ptep_get(src_pte)))
        pte = pte_wrprotect(pte)
    if src_vma.vm_flags & VM_SHARED:
        pte = pte_mkclean(pte)
    set_pte_at(dst_vma.vm_mm, addr, dst_pte, pte_mkold(pte))


cdef int copy_present_page(vm_area_struct *dst_vma, pte_t *dst_pte, unsigned long addr, struct_folio **prealloc,
                           struct_page *page) noexcept nogil:
    """Give the child its own copy of a page that the parent may have pinned; -EAGAIN when no frame is at hand."""
    cdef machine *m = dst_vma.vm_mm.machine
    cdef struct_folio *new_folio = prealloc[0]
    if new_folio == NULL:
        return -EAGAIN
    copy_highpage(m, new_folio, page)
    prealloc[0] = NULL
    __folio_mark_uptodate(new_folio)
    folio_add_new_anon_rmap(new_folio, dst_vma, addr, RMAP_EXCLUSIVE)
    folio_add_lru(m, new_folio)
    inc_mm_counter(dst_vma.vm_mm, MM_ANONPAGES)
    set_pte_at(dst_vma.vm_mm, addr, dst_pte, maybe_mkwrite(pte_mkdirty(mk_pte(m, new_folio, dst_vma.vm_page_prot)), dst_vma))
    return 0


cdef int copy_present_pte(vm_area_struct *dst_vma, vm_area_struct *src_vma, pte_t *dst_pte, pte_t *src_pte, pte_t pte,
                          unsigned long addr, struct_folio **prealloc) noexcept nogil:
    cdef struct_page *page = vm_normal_page(src_vma, addr, pte)
    cdef struct_folio *folio
    if page != NULL:
        folio = page_folio(page)
        folio_get(folio)
        if folio_test_anon(folio):
            if folio_try_dup_anon_rmap_pte(folio, page, src_vma):
                folio_put(dst_vma.vm_mm.machine, folio)
                return copy_present_page(dst_vma, dst_pte, addr, prealloc, page)
            inc_mm_counter(dst_vma.vm_mm, MM_ANONPAGES)
        else:
            atomic_add_return(&page._mapcount, 1)
            inc_mm_counter(dst_vma.vm_mm, MM_SHMEMPAGES)
    # The zero page is not counted. Its dirty bit is copied, so the child's entry is KSM's, too.
    __copy_present_pte(dst_vma, src_vma, dst_pte, src_pte, pte, addr)
    return 0


cdef int copy_pte_range(vm_area_struct *dst_vma, vm_area_struct *src_vma, pmd_t *dst_pmd, pmd_t *src_pmd, unsigned long addr,
                        unsigned long end) noexcept nogil:
    cdef machine *m = dst_vma.vm_mm.machine
    cdef struct_folio *prealloc = NULL
    cdef pte_t *dst_pte
    cdef pte_t *src_pte
    cdef spinlock_t *dst_ptl = NULL
    cdef spinlock_t *src_ptl = NULL
    cdef pte_t pte
    cdef int ret
    while addr < end:
        ret = 0
        dst_pte = pte_offset_map_lock(dst_vma.vm_mm, dst_pmd, addr, &dst_ptl)
        src_pte = pte_offset_map_lock(src_vma.vm_mm, src_pmd, addr, &src_ptl)
        if src_pte == NULL:
            pte_unmap_unlock(dst_pte, dst_ptl)
            break
        while addr < end:
            pte = ptep_get(src_pte)
            if pte_present(pte):
                ret = copy_present_pte(dst_vma, src_vma, dst_pte, src_pte, pte, addr, &prealloc)
            elif not pte_none(pte):
                ret = copy_nonpresent_pte(dst_vma.vm_mm, src_vma.vm_mm, dst_pte, src_pte, dst_vma, addr)
            if ret:
                break
            addr += PAGE_SIZE
            src_pte += 1
            dst_pte += 1
        pte_unmap_unlock(src_pte, src_ptl)
        pte_unmap_unlock(dst_pte, dst_ptl)
        if ret == -EAGAIN:
            prealloc = alloc_pages_node(m, src_vma.vm_mm.nid, 0, False)
            if prealloc == NULL:
                return -ENOMEM
        elif ret:
            ret = -ENOMEM
            break
    if prealloc != NULL:
        folio_put(m, prealloc)
    return ret


cdef int copy_page_range(vm_area_struct *dst_vma, vm_area_struct *src_vma) noexcept nogil:
    """Give the child the parent's pages of this vma; -ENOMEM. Pages that a fault can make again are left out."""
    cdef unsigned long addr = src_vma.vm_start, end = src_vma.vm_end, following
    cdef pmd_t *src_pmd
    cdef pmd_t *dst_pmd
    cdef int ret
    if src_vma.anon_vma == NULL:
        return 0
    while addr < end:
        following = pmd_addr_end(addr, end)
        src_pmd = pmd_offset_mm(src_vma.vm_mm, addr)
        if src_pmd != NULL and not pmd_none(pmdp_get_lockless(src_pmd)):
            dst_pmd = pmd_alloc(dst_vma.vm_mm, addr)
            if dst_pmd == NULL:
                return -ENOMEM
            if pmd_leaf(pmdp_get_lockless(src_pmd)):
                ret = copy_huge_pmd(dst_vma, src_vma, dst_pmd, src_pmd, addr)
                if ret == -ENOMEM:
                    return ret
                if ret == 0:
                    addr = following
                    continue
            if pte_alloc(dst_vma.vm_mm, dst_pmd):
                return -ENOMEM
            ret = copy_pte_range(dst_vma, src_vma, dst_pmd, src_pmd, addr, following)
            if ret:
                return ret
        addr = following
    return 0


# Unmapping

cdef void zap_present_pte(vm_area_struct *vma, pte_t *pte, pte_t ptent, unsigned long addr) noexcept nogil:
    cdef mm_struct *mm = vma.vm_mm
    cdef struct_page *page = vm_normal_page(vma, addr, ptent)
    cdef struct_folio *folio
    ptep_get_and_clear(mm, addr, pte)
    if page == NULL:
        ksm_might_unmap_zero_page(mm, ptent)
        return
    folio = page_folio(page)
    dec_mm_counter(mm, MM_ANONPAGES if folio_test_anon(folio) else MM_SHMEMPAGES)
    folio_remove_rmap_pte(folio, page, vma)
    # free_pages_and_swap_cache()
    free_swap_cache(mm.machine, folio)
    folio_put(mm.machine, folio)


cdef void zap_nonpresent_pte(vm_area_struct *vma, pte_t *pte, pte_t ptent, unsigned long addr) noexcept nogil:
    # OURS: the rest of the kernel's loop in zap_pte_range().
    cdef mm_struct *mm = vma.vm_mm
    if is_swap_pte(ptent):
        dec_mm_counter(mm, MM_SWAPENTS)
        free_swap_and_cache(mm.machine, swp_offset(ptent))
    elif is_migration_pte(ptent):
        dec_mm_counter(mm, MM_ANONPAGES if folio_test_anon(pfn_swap_entry_folio(mm.machine, ptent)) else MM_SHMEMPAGES)
    set_pte_at(mm, addr, pte, 0)


cdef void zap_pte_range(vm_area_struct *vma, pmd_t *pmd, unsigned long addr, unsigned long end) noexcept nogil:
    cdef spinlock_t *ptl = NULL
    cdef pte_t *pte = pte_offset_map_lock(vma.vm_mm, pmd, addr, &ptl)
    cdef pte_t ptent
    if pte == NULL:
        return
    while addr < end:
        ptent = ptep_get(pte)
        if pte_present(ptent):
            zap_present_pte(vma, pte, ptent, addr)
        elif not pte_none(ptent):
            zap_nonpresent_pte(vma, pte, ptent, addr)
        pte += 1
        addr += PAGE_SIZE
    spin_unlock(ptl)


cdef void unmap_page_range(vm_area_struct *vma, unsigned long addr, unsigned long end) noexcept nogil:
    """Unmap every page that the vma maps in [addr, end)."""
    cdef unsigned long following
    cdef pmd_t *pmd
    mmu_notifier_invalidate_range_start(vma.vm_mm)
    while addr < end:
        following = pmd_addr_end(addr, end)
        pmd = pmd_offset_mm(vma.vm_mm, addr)
        if pmd != NULL and pmd_leaf(pmdp_get_lockless(pmd)):
            if following - addr != PMD_SIZE:
                split_huge_pmd(vma, pmd, addr)
            elif zap_huge_pmd(vma, pmd, addr):
                addr = following
                continue
        if pmd != NULL and not pmd_none(pmdp_get_lockless(pmd)):
            zap_pte_range(vma, pmd, addr, following)
        addr = following
    mmu_notifier_invalidate_range_end(vma.vm_mm)


# Faults

cdef inline pte_t maybe_mkwrite(pte_t pte, vm_area_struct *vma) noexcept nogil:
    # A forced write into read-only memory (FOLL_FORCE) does not make the entry writable.
    return pte_mkwrite(pte) if vma.vm_flags & VM_WRITE else pte


cdef struct_folio *folio_prealloc(vm_area_struct *vma, bint need_zero) noexcept nogil:
    return alloc_pages_node(vma.vm_mm.machine, vma.vm_mm.nid, 0, need_zero)


cdef vm_fault_t wp_page_copy(vm_fault *vmf) noexcept nogil:
    """Put a private copy where the shared page was. vmf.page has been given a reference, or is NULL for the zero page."""
    cdef bint unshare = vmf.flags & FAULT_FLAG_UNSHARE
    cdef vm_area_struct *vma = vmf.vma
    cdef mm_struct *mm = vma.vm_mm
    cdef machine *m = mm.machine
    cdef struct_folio *old_folio = NULL
    cdef struct_folio *new_folio = NULL
    cdef struct_folio *unused
    cdef pte_t entry
    cdef bint pfn_is_zero, page_copied = False
    if vmf.page != NULL:
        old_folio = page_folio(vmf.page)
    pfn_is_zero = is_zero_pfn(m, pte_pfn(vmf.orig_pte))
    if anon_vma_prepare(vma) == 0:
        new_folio = folio_prealloc(vma, pfn_is_zero)
    if new_folio == NULL:
        if old_folio != NULL:
            folio_put(m, old_folio)
        return VM_FAULT_OOM
    if not pfn_is_zero:
        copy_highpage(m, new_folio, vmf.page)
    __folio_mark_uptodate(new_folio)

    mmu_notifier_invalidate_range_start(mm)
    unused = new_folio
    vmf.pte = pte_offset_map_lock(mm, vmf.pmd, vmf.address, &vmf.ptl)
    # The table was unlocked meanwhile: another thread may have handled the fault.
    if vmf.pte != NULL and pte_same(ptep_get(vmf.pte), vmf.orig_pte):
        if old_folio != NULL:
            if not folio_test_anon(old_folio):
                dec_mm_counter(mm, MM_SHMEMPAGES)
                inc_mm_counter(mm, MM_ANONPAGES)
        else:
            ksm_might_unmap_zero_page(mm, vmf.orig_pte)
            inc_mm_counter(mm, MM_ANONPAGES)
        entry = mk_pte(m, new_folio, vma.vm_page_prot)
        if not unshare:
            entry = maybe_mkwrite(pte_mkdirty(entry), vma)
        ptep_clear_flush(vma, vmf.address, vmf.pte)
        folio_add_new_anon_rmap(new_folio, vma, vmf.address, RMAP_EXCLUSIVE)
        folio_add_lru(m, new_folio)
        BUG_ON(unshare and pte_write(entry))
        set_pte_at(mm, vmf.address, vmf.pte, entry)
        if old_folio != NULL:
            # The old page loses its mapping only after the entry has changed. Otherwise another process could take the page for exclusive
            # while this entry still leads to it.
            folio_remove_rmap_pte(old_folio, vmf.page, vma)
        unused = old_folio
        page_copied = True
        pte_unmap_unlock(vmf.pte, vmf.ptl)
    elif vmf.pte != NULL:
        pte_unmap_unlock(vmf.pte, vmf.ptl)
    mmu_notifier_invalidate_range_end(mm)

    if unused != NULL:
        folio_put(m, unused)
    if old_folio != NULL:
        if page_copied:
            free_swap_cache(m, old_folio)
        folio_put(m, old_folio)
    return 0


cdef bint wp_can_reuse_anon_folio(struct_folio *folio, vm_area_struct *vma) noexcept nogil:
    """Whether this process is the only one that can see the page. Never true of a merged page: its stable node may hand it out again."""
    # 7.3 counts the references that may be there, before it empties the batches.
    cdef int most = 3
    if vma.vm_mm.machine.lru_drained_seldom:
        most = 1 + (not folio_test_lru(folio)) + folio_test_swapcache(folio)
    if folio_test_large(folio):
        return False
    if folio_test_ksm(folio) or folio_ref_count(folio) > most:
        return False
    if not folio_test_lru(folio):
        lru_add_drain(vma.vm_mm.machine)
    if folio_ref_count(folio) > 1 + folio_test_swapcache(folio):
        return False
    if not folio_trylock(folio):
        return False
    if folio_test_swapcache(folio):
        folio_free_swap(vma.vm_mm.machine, folio)
    if folio_test_ksm(folio) or folio_ref_count(folio) != 1:
        folio_unlock(folio)
        return False
    folio_move_anon_rmap(folio, vma)
    folio_unlock(folio)
    return True


cdef void wp_page_reuse(vm_fault *vmf) noexcept nogil:
    cdef vm_area_struct *vma = vmf.vma
    set_pte_at(vma.vm_mm, vmf.address, vmf.pte, maybe_mkwrite(pte_mkdirty(pte_mkyoung(vmf.orig_pte)), vma))
    pte_unmap_unlock(vmf.pte, vmf.ptl)


cdef vm_fault_t do_wp_page(vm_fault *vmf) noexcept nogil:
    """Handle a write or an unsharing of a read-only entry. The table is locked; this unlocks it."""
    cdef bint unshare = vmf.flags & FAULT_FLAG_UNSHARE
    cdef vm_area_struct *vma = vmf.vma
    cdef struct_folio *folio = NULL
    cdef struct_folio *merged = NULL
    cdef vm_fault_t ret
    vmf.page = vm_normal_page(vma, vmf.address, vmf.orig_pte)
    if vmf.page != NULL:
        folio = page_folio(vmf.page)

    if vma.vm_flags & (VM_SHARED | VM_MAYSHARE):
        wp_page_reuse(vmf)
        return 0

    # An exclusive page is reused at once. Any other page is reused if it can become exclusive.
    if folio != NULL and folio_test_anon(folio) and (PageAnonExclusive(vmf.page) or wp_can_reuse_anon_folio(folio, vma)):
        if not PageAnonExclusive(vmf.page):
            SetPageAnonExclusive(vmf.page)
        if unshare:
            pte_unmap_unlock(vmf.pte, vmf.ptl)
            return 0
        wp_page_reuse(vmf)
        return 0

    if folio != NULL:
        folio_get(folio)
    pte_unmap_unlock(vmf.pte, vmf.ptl)
    if folio != NULL and folio_test_ksm(folio):
        count_vm_event(vma.vm_mm.machine, COW_KSM)
        merged = folio
    ret = wp_page_copy(vmf)
    if merged != NULL and not ret & VM_FAULT_ERROR:
        ksm_step(vma.vm_mm.machine, STEP_COW, vma.vm_mm, merged, NULL, <long>vmf.address)
    return ret


cdef vm_fault_t do_anonymous_page(vm_fault *vmf) noexcept nogil:
    """Nothing is mapped yet: map the zero page for a read, a new page for a write."""
    cdef vm_area_struct *vma = vmf.vma
    cdef mm_struct *mm = vma.vm_mm
    cdef machine *m = mm.machine
    cdef struct_folio *folio = NULL
    cdef pte_t entry
    if pte_alloc(mm, vmf.pmd):
        return VM_FAULT_OOM
    if not (vmf.flags & FAULT_FLAG_WRITE):
        entry = pte_mkspecial(pfn_pte(my_zero_pfn(m, vmf.address), vma.vm_page_prot))
    else:
        if anon_vma_prepare(vma):
            return VM_FAULT_OOM
        folio = folio_prealloc(vma, True)
        if folio == NULL:
            return VM_FAULT_OOM
        __folio_mark_uptodate(folio)
        entry = mk_pte(m, folio, vma.vm_page_prot)
        if vma.vm_flags & VM_WRITE:
            entry = pte_mkwrite(pte_mkdirty(entry))

    vmf.pte = pte_offset_map_lock(mm, vmf.pmd, vmf.address, &vmf.ptl)
    if vmf.pte == NULL or not pte_none(ptep_get(vmf.pte)):
        # Another thread's fault has mapped a page meanwhile.
        if vmf.pte != NULL:
            pte_unmap_unlock(vmf.pte, vmf.ptl)
        if folio != NULL:
            folio_put(m, folio)
        return 0
    if folio != NULL:
        add_mm_counter(mm, MM_ANONPAGES, 1)
        folio_add_new_anon_rmap(folio, vma, vmf.address, RMAP_EXCLUSIVE)
        folio_add_lru(m, folio)
    set_pte_at(mm, vmf.address, vmf.pte, entry)
    pte_unmap_unlock(vmf.pte, vmf.ptl)
    return 0


cdef vm_fault_t do_shared_fault(vm_fault *vmf) noexcept nogil:
    """Map a page of a shared object: the one that the object has, or a new one."""
    cdef vm_area_struct *vma = vmf.vma
    cdef mm_struct *mm = vma.vm_mm
    cdef file *object = vma.vm_file
    cdef struct_page *page
    cdef struct_page *fresh = NULL
    if vmf.pgoff >= object.nr_pages:
        return VM_FAULT_SIGBUS
    if READ_ONCE_ptr((<void **>&object.pages[vmf.pgoff])[0]) == NULL:
        fresh = alloc_pages_node(mm.machine, mm.nid, 0, True)
        if fresh == NULL:
            return VM_FAULT_OOM
        __folio_mark_uptodate(fresh)
    spin_lock(&object.lock)
    if object.pages[vmf.pgoff] == NULL:
        object.pages[vmf.pgoff] = fresh         # the object keeps the page's first reference
        fresh = NULL
    page = object.pages[vmf.pgoff]
    folio_get(page)
    spin_unlock(&object.lock)
    if fresh != NULL:
        folio_put(mm.machine, fresh)
    if pte_alloc(mm, vmf.pmd):
        folio_put(mm.machine, page)
        return VM_FAULT_OOM
    vmf.pte = pte_offset_map_lock(mm, vmf.pmd, vmf.address, &vmf.ptl)
    if vmf.pte != NULL and pte_none(ptep_get(vmf.pte)):
        atomic_add_return(&page._mapcount, 1)
        inc_mm_counter(mm, MM_SHMEMPAGES)
        set_pte_at(mm, vmf.address, vmf.pte, mk_pte(mm.machine, page, vma.vm_page_prot))
        page = NULL
    if vmf.pte != NULL:
        pte_unmap_unlock(vmf.pte, vmf.ptl)
    if page != NULL:
        folio_put(mm.machine, page)
    return 0


cdef inline bint should_try_to_free_swap(machine *m, struct_folio *folio, vm_area_struct *vma, unsigned int fault_flags) noexcept nogil:
    if not folio_test_swapcache(folio):
        return False
    if vm_swap_full(m.swap_info) or vma.vm_flags & VM_LOCKED:
        return True
    # The page is mapped writable only if no other process uses it. The swap cache's reference would speak against that.
    return fault_flags & FAULT_FLAG_WRITE and not folio_test_ksm(folio) and folio_ref_count(folio) == 2


cdef vm_fault_t do_swap_page_map(vm_fault *vmf, unsigned long entry, struct_folio *folio, struct_folio *swapcache) noexcept nogil:
    """OURS: the end of do_swap_page(). Both folios and the table are locked at the start; all are unlocked and put at the end."""
    cdef vm_area_struct *vma = vmf.vma
    cdef mm_struct *mm = vma.vm_mm
    cdef machine *m = mm.machine
    cdef bint exclusive = False
    cdef int rmap_flags = RMAP_NONE
    cdef pte_t pte
    # The page of a swap entry is never marked exclusive.
    BUG_ON(folio_test_anon(folio) and PageAnonExclusive(folio))

    # This needs the table's lock, because fork may make the entry a shared one.
    if not folio_test_ksm(folio):
        # No other process has seen a copy that KSM has just made.
        exclusive = pte_swp_exclusive(vmf.orig_pte) or folio != swapcache

    swap_free(m, entry)
    if should_try_to_free_swap(m, folio, vma, vmf.flags):
        folio_free_swap(m, folio)

    inc_mm_counter(mm, MM_ANONPAGES)
    dec_mm_counter(mm, MM_SWAPENTS)
    pte = mk_pte(m, folio, vma.vm_page_prot)
    if not folio_test_ksm(folio) and (exclusive or folio_ref_count(folio) == 1):
        if vma.vm_flags & VM_WRITE:
            pte = pte_mkwrite(pte)
            if vmf.flags & FAULT_FLAG_WRITE:
                pte = pte_mkdirty(pte)
                vmf.flags &= ~<unsigned int>FAULT_FLAG_WRITE
        rmap_flags |= RMAP_EXCLUSIVE
    vmf.orig_pte = pte

    if folio != swapcache:
        folio_add_new_anon_rmap(folio, vma, vmf.address, RMAP_EXCLUSIVE)
        folio_add_lru(m, folio)
    elif not folio_test_anon(folio):
        folio_add_new_anon_rmap(folio, vma, vmf.address, rmap_flags)
    else:
        folio_add_anon_rmap_pte(folio, folio, vma, vmf.address, rmap_flags)
    VM_BUG_ON(pte_write(pte) and not PageAnonExclusive(folio))
    set_pte_at(mm, vmf.address, vmf.pte, pte)

    folio_unlock(folio)
    if folio != swapcache:
        # The old page stayed locked until now, so that the slot could not be given to another page before the entry was compared.
        folio_unlock(swapcache)
        folio_put(m, swapcache)

    if vmf.flags & FAULT_FLAG_WRITE:
        return do_wp_page(vmf)
    pte_unmap_unlock(vmf.pte, vmf.ptl)
    return 0


cdef vm_fault_t do_swap_page(vm_fault *vmf) noexcept nogil:
    """Handle a fault on a page that is in the swap area or being moved. The value is also 0 when another thread has changed the entry
    meanwhile.
    """
    cdef vm_area_struct *vma = vmf.vma
    cdef machine *m = vma.vm_mm.machine
    cdef swap_info_struct *si
    cdef struct_folio *folio
    cdef struct_folio *swapcache
    cdef unsigned long entry
    cdef vm_fault_t ret = 0
    if not is_swap_pte(vmf.orig_pte):
        if is_migration_pte(vmf.orig_pte):
            migration_entry_wait(vma.vm_mm, vmf.pmd, vmf.address)
            return 0
        return VM_FAULT_SIGBUS

    entry = swp_offset(vmf.orig_pte)
    si = get_swap_device(m, entry)
    if si == NULL:
        return 0
    folio = swap_cache_get_folio(m, entry)
    if folio == NULL:
        folio = swapin_readahead(m, entry, vma)
        if folio == NULL:
            # Either there is no memory, or another thread has changed the entry.
            vmf.pte = pte_offset_map_lock(vma.vm_mm, vmf.pmd, vmf.address, &vmf.ptl)
            if vmf.pte != NULL:
                if pte_same(ptep_get(vmf.pte), vmf.orig_pte):
                    ret = VM_FAULT_OOM
                pte_unmap_unlock(vmf.pte, vmf.ptl)
            put_swap_device(si)
            return ret
    elif PageHWPoison(folio):
        folio_put(m, folio)
        put_swap_device(si)
        return VM_FAULT_HWPOISON

    swapcache = folio
    folio_lock(folio)
    # Only the page lock keeps the page in the swap cache. A reference and an unchanged entry do not.
    if not folio_test_swapcache(folio) or folio_swap(folio) != entry:
        folio_unlock(folio)
        folio_put(m, folio)
        put_swap_device(si)
        return 0
    # A merged page may be mapped again. A page that belongs to another place of a process is copied, also if it was merged once and its
    # node is gone.
    folio = ksm_might_need_to_copy(folio, vma, vmf.address)
    if folio == NULL or IS_ERR(folio):
        ret = VM_FAULT_OOM if folio == NULL else VM_FAULT_HWPOISON
        folio_unlock(swapcache)
        folio_put(m, swapcache)
        put_swap_device(si)
        return ret
    if (vmf.flags & FAULT_FLAG_WRITE and folio == swapcache and not folio_test_ksm(folio) and not folio_test_lru(folio)
            and not m.lru_drained_seldom):
        lru_add_drain(m)

    vmf.pte = pte_offset_map_lock(vma.vm_mm, vmf.pmd, vmf.address, &vmf.ptl)
    if vmf.pte != NULL and pte_same(ptep_get(vmf.pte), vmf.orig_pte) and folio_test_uptodate(folio):
        ret = do_swap_page_map(vmf, entry, folio, swapcache)
    else:
        # out_nomap:
        if vmf.pte != NULL:
            if pte_same(ptep_get(vmf.pte), vmf.orig_pte):
                ret = VM_FAULT_SIGBUS
            pte_unmap_unlock(vmf.pte, vmf.ptl)
        folio_unlock(folio)
        folio_put(m, folio)
        if folio != swapcache:
            folio_unlock(swapcache)
            folio_put(m, swapcache)
    put_swap_device(si)
    return ret


cdef vm_fault_t do_pte_missing(vm_fault *vmf) noexcept nogil:
    if vmf.vma.vm_file == NULL:
        return do_anonymous_page(vmf)
    return do_shared_fault(vmf)


cdef vm_fault_t handle_pte_fault(vm_fault *vmf) noexcept nogil:
    cdef pte_t entry
    vmf.pte = pte_offset_map(vmf.pmd, vmf.address)
    if vmf.pte != NULL:
        vmf.orig_pte = ptep_get(vmf.pte)
        vmf.flags |= FAULT_FLAG_ORIG_PTE_VALID
    if vmf.pte == NULL or pte_none(vmf.orig_pte):
        return do_pte_missing(vmf)
    if not pte_present(vmf.orig_pte):
        return do_swap_page(vmf)

    vmf.pte = pte_offset_map_lock(vmf.vma.vm_mm, vmf.pmd, vmf.address, &vmf.ptl)
    entry = vmf.orig_pte
    if pte_same(ptep_get(vmf.pte), entry):
        if vmf.flags & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE):
            if not pte_write(entry):
                return do_wp_page(vmf)
            if vmf.flags & FAULT_FLAG_WRITE:
                entry = pte_mkdirty(entry)
        set_pte_at(vmf.vma.vm_mm, vmf.address, vmf.pte, pte_mkyoung(entry))
    pte_unmap_unlock(vmf.pte, vmf.ptl)
    return 0


cdef vm_fault_t handle_mm_fault(vm_area_struct *vma, unsigned long address, unsigned int flags) noexcept nogil:
    """Make the page at this address present, writable or unshared, as `flags` ask. mmap_lock is held.

    Returns 0 or bits of VM_FAULT_*. 0 does not promise success: the caller looks again, as a processor does that runs the instruction once
    more.
    """
    cdef vm_fault vmf
    cdef mm_struct *mm = vma.vm_mm
    cdef pmd_t orig_pmd
    cdef vm_fault_t ret
    vmf.vma = vma
    vmf.address = address & page_mask()
    vmf.flags = flags
    vmf.pgoff = linear_page_index(vma, vmf.address)
    vmf.pte = NULL
    vmf.orig_pte = 0
    vmf.ptl = NULL
    vmf.page = NULL
    count_vm_event(mm.machine, PGFAULT)
    vmf.pmd = pmd_alloc(mm, vmf.address)
    if vmf.pmd == NULL:
        return VM_FAULT_OOM
    orig_pmd = pmdp_get_lockless(vmf.pmd)
    if pmd_none(orig_pmd):
        # There is no huge zero page: a read maps the small one.
        if flags & FAULT_FLAG_WRITE:
            ret = do_huge_pmd_anonymous_page(vma, vmf.pmd, vmf.address)
            if not ret & VM_FAULT_FALLBACK:
                return ret
    elif pmd_leaf(orig_pmd):
        if not flags & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE) or pte_write(orig_pmd):
            huge_pmd_set_accessed(vma, vmf.pmd, vmf.address, orig_pmd, flags)
            return 0
        ret = do_huge_pmd_wp_page(vma, vmf.pmd, vmf.address, orig_pmd, flags)
        if not ret & VM_FAULT_FALLBACK:
            return ret
    return handle_pte_fault(&vmf)


# Access from outside, as ptrace and /proc/PID/mem have it

cdef bint can_follow(vm_area_struct *vma, pte_t pte, unsigned long addr, bint write) noexcept nogil:
    """Whether the page of this entry may be used. For a write into memory that is not writable, the page has to be exclusive."""
    cdef struct_page *page
    if not pte_present(pte):
        return False
    if not write or pte_write(pte):
        return True
    if vma.vm_flags & (VM_WRITE | VM_SHARED | VM_MAYSHARE):
        return False
    page = vm_normal_page(vma, addr, pte)
    return page != NULL and folio_test_anon(page_folio(page)) and PageAnonExclusive(page)


cdef unsigned long access_remote_vm(mm_struct *mm, unsigned long addr, char *buf, unsigned long length, bint write,
                                    int *error) noexcept nogil:
    """Read or write memory of any protection, as a debugger does (FOLL_FORCE). Returns the number of bytes done.

    OURS: *error says why it ended early: 0, -EFAULT or -ENOMEM. get_user_page_vma_remote() has this value and the kernel drops it.
    """
    cdef machine *m = mm.machine
    cdef vm_area_struct *vma
    cdef unsigned long done = 0, chunk
    cdef pte_t *pte
    cdef spinlock_t *ptl = NULL
    cdef unsigned long pfn = 0
    cdef char *maddr
    cdef vm_fault_t ret
    error[0] = 0
    while done < length:
        vma = vma_lookup(mm, addr)
        if vma == NULL or (write and not (vma.vm_flags & VM_WRITE) and not is_cow_mapping(vma.vm_flags)) \
                or (not write and not (vma.vm_flags & (VM_READ | VM_MAYREAD))):
            error[0] = -EFAULT
            break
        pte = entry_offset_map_lock(mm, addr, &ptl, &pfn)
        if pte == NULL or not can_follow(vma, ptep_get(pte), addr, write):
            if pte != NULL:
                pte_unmap_unlock(pte, ptl)
            ret = handle_mm_fault(vma, addr, FAULT_FLAG_REMOTE | (FAULT_FLAG_WRITE if write else 0))
            if ret & VM_FAULT_ERROR:
                error[0] = -ENOMEM if ret & VM_FAULT_OOM else -EFAULT
                break
            continue
        chunk = PAGE_SIZE - (addr & (PAGE_SIZE - 1))
        if chunk > length - done:
            chunk = length - done
        if not is_zero_pfn(m, pfn):
            mark_page_accessed(m, pfn_to_page(m, pfn))      # FOLL_TOUCH
        maddr = m.arena + (pfn * m.frame_size) + (addr & (PAGE_SIZE - 1))
        if write:
            ksm_page_changed(m, pfn_to_page(m, pfn))
            memcpy(maddr, buf + done, chunk)
            SetPageDirty(pfn_to_page(m, pfn))       # set_page_dirty_lock(): no processor has set the entry's bit
        else:
            memcpy(buf + done, maddr, chunk)
        pte_unmap_unlock(pte, ptl)
        addr += chunk
        done += chunk
    return done


cdef int insert_frames(vm_area_struct *vma, unsigned long addr, unsigned long pfn, unsigned long nr_pages) noexcept nogil:
    """OURS: let the vma map frames that were plugged in, as if the process had filled them itself; -ENOMEM, -EFAULT if some
    page is there already. mmap_lock is held for writing."""
    cdef mm_struct *mm = vma.vm_mm
    cdef machine *m = mm.machine
    cdef struct_page *page
    cdef pmd_t *pmd
    cdef pte_t *pte
    cdef pte_t entry
    cdef spinlock_t *ptl = NULL
    cdef unsigned long end = addr + (nr_pages << PAGE_SHIFT), following
    if anon_vma_prepare(vma):
        return -ENOMEM
    while addr < end:
        following = pmd_addr_end(addr, end)
        pmd = pmd_alloc(mm, addr)
        if pmd == NULL or pte_alloc(mm, pmd):
            return -ENOMEM
        pte = pte_offset_map_lock(mm, pmd, addr, &ptl)
        if pte == NULL:
            return -EFAULT
        while addr < following:
            if not pte_none(ptep_get(pte)):
                spin_unlock(ptl)
                return -EFAULT
            page = pfn_to_page(m, pfn)
            prep_new_page(page, page_to_nid(page), PG_plugged | page.flags & PG_file | PG_uptodate | PG_lru)
            folio_add_new_anon_rmap(page, vma, addr, RMAP_EXCLUSIVE)
            entry = mk_pte(m, page, vma.vm_page_prot)
            if vma.vm_flags & VM_WRITE:
                entry = pte_mkwrite(pte_mkdirty(entry))
            set_pte_at(mm, addr, pte, entry)
            inc_mm_counter(mm, MM_ANONPAGES)
            pfn += 1
            pte += 1
            addr += PAGE_SIZE
        spin_unlock(ptl)
    return 0

# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/huge_memory.c of Linux 6.12.
"""Huge pages of anonymous memory: 512 frames as one folio, mapped by one pmd entry.

KSM merges small pages only. A huge page becomes small pages in two steps. Splitting the mapping (split_huge_pmd) replaces the pmd entry by
a table of 512 entries, and leaves the folio whole; it never fails. Splitting the folio (split_huge_page) makes 512 small pages of it. It is
refused while anybody but the mappings and the caller has a reference.

The counts of a huge folio are kept in the `index` field of its tail pages. The first tail counts all entries that map the folio or a part
of it, the second counts the pmd entries. While a pmd entry maps the folio, the head's PG_anon_exclusive stands for all parts. There is no
huge zero page: a read of untouched memory maps the small one. There is no khugepaged, which would put small pages together.
"""

from libc.errno cimport EAGAIN, EBUSY, ENOMEM

from linux.atomic cimport READ_ONCE_int, READ_ONCE_ulong, WRITE_ONCE_ptr, WRITE_ONCE_uint
from linux.ksm cimport ksm_page_changed
from linux.mm cimport (FAULT_FLAG_UNSHARE, FAULT_FLAG_WRITE, VM_FAULT_FALLBACK, VM_FAULT_OOM, VM_HUGEPAGE, VM_LOCKED, VM_NOHUGEPAGE,
                       VM_WRITE, add_mm_counter, count_vm_event, dec_mm_counter)
from linux.mm_types cimport (HPAGE_PMD_NR, HPAGE_PMD_ORDER, MM_ANONPAGES, PAGE_SHIFT, PMD_SIZE, THP_FAULT_ALLOC, THP_FAULT_FALLBACK,
                             THP_SPLIT_PAGE, THP_SPLIT_PAGE_FAILED, THP_SPLIT_PMD, anon_vma_chain, machine, mm_struct, pmd_t, pte_t,
                             struct_anon_vma, struct_folio, struct_page, vm_area_struct, vm_fault_t)
from linux.page_flags cimport (PG_active, PG_dirty, PG_locked, PG_lru, PG_node_shift, PG_referenced, PG_swapbacked, PG_uptodate,
                               PageAnonExclusive, PageHWPoison, PageTransCompound, SetPageAnonExclusive, __folio_mark_uptodate, folio_get,
                               folio_mapcount, folio_mark_dirty, folio_ref_add, folio_ref_count, folio_ref_freeze, folio_ref_unfreeze,
                               folio_trylock, folio_unlock, page_folio, page_to_nid, page_to_pfn, pfn_to_page)
from linux.pgtable cimport (ZERO_PAGE, _PAGE_ACCESSED, _PAGE_DIRTY, _PAGE_PRESENT, _PAGE_PSE, _PAGE_RW, mk_pte, mm_find_pmd, my_zero_pfn,
                            pfn_pte, pmd_leaf, pmd_lock, pmd_none, pmd_pfn, pmdp_get, pmdp_get_lockless, pte_dirty, pte_mkspecial,
                            pte_modify, pte_offset_map_lock, pte_pfn, pte_present, pte_table, pte_unmap_unlock, pte_write, pte_young,
                            ptep_clear_flush, ptep_get, set_pmd_at, set_pte_at)
from linux.rmap cimport (RMAP_EXCLUSIVE, RMAP_NONE, anon_vma_lock_write, anon_vma_unlock_write, folio_entire_mapcount_add,
                         folio_try_dup_anon_rmap_pmd, folio_try_share_anon_rmap_pte)
from linux.spinlock cimport spin_lock, spin_unlock, spinlock_t
from linux.swapops cimport is_migration_pte, make_migration_pte, make_migration_pte_dirty, make_migration_pte_young, swp_offset

from ksm.mm.interval_tree cimport anon_vma_interval_tree_iter_first, anon_vma_interval_tree_iter_next
from ksm.mm.migrate cimport map_in_place_of_migration_pte
from ksm.mm.page_alloc cimport alloc_pages_node, folio_put
from ksm.mm.pgtable_generic cimport pgtable_trans_huge_deposit, pgtable_trans_huge_withdraw, pte_alloc_one, pte_free
from ksm.mm.rmap cimport (anon_vma_prepare, folio_add_anon_rmap_pte, folio_add_new_anon_rmap, folio_get_anon_vma, folio_move_anon_rmap,
                          folio_remove_rmap_pte, put_anon_vma)
from ksm.mm.swap cimport folio_add_lru
from ksm.mm.util cimport pages_identical


cdef inline unsigned long huge_start(unsigned long address) noexcept nogil:
    return address & ~(<unsigned long>PMD_SIZE - 1)


cdef bint thp_vma_allowable(vm_area_struct *vma, unsigned long haddr) noexcept nogil:
    """Whether a huge page may be put at haddr. It has to lie in the vma, and huge pages have to be switched on: for all memory, or for
    memory with MADV_HUGEPAGE.
    """
    if haddr < vma.vm_start or haddr + PMD_SIZE > vma.vm_end or vma.vm_file != NULL or vma.vm_flags & VM_NOHUGEPAGE:
        return False
    if vma.vm_flags & VM_HUGEPAGE:
        return READ_ONCE_int(vma.vm_mm.machine.transparent_hugepage) >= 1
    return READ_ONCE_int(vma.vm_mm.machine.transparent_hugepage) == 2


cdef vm_fault_t do_huge_pmd_anonymous_page(vm_area_struct *vma, pmd_t *pmdp, unsigned long address) noexcept nogil:
    """Map a huge page for a first write, where nothing is mapped below the pmd entry. VM_FAULT_FALLBACK asks for a small page instead."""
    cdef mm_struct *mm = vma.vm_mm
    cdef machine *m = mm.machine
    cdef unsigned long haddr = huge_start(address)
    cdef struct_folio *folio
    cdef pte_table *pgtable
    cdef spinlock_t *ptl
    cdef pmd_t entry
    if not thp_vma_allowable(vma, haddr):
        return VM_FAULT_FALLBACK
    if anon_vma_prepare(vma):
        return VM_FAULT_OOM
    folio = alloc_pages_node(m, mm.nid, HPAGE_PMD_ORDER, True)
    if folio == NULL:
        count_vm_event(m, THP_FAULT_FALLBACK)
        return VM_FAULT_FALLBACK
    pgtable = pte_alloc_one(mm)
    if pgtable == NULL:
        folio_put(m, folio)
        return VM_FAULT_OOM
    __folio_mark_uptodate(folio)

    ptl = pmd_lock(mm, pmdp)
    if not pmd_none(pmdp_get(pmdp)):
        # Another thread has mapped a huge page or a table meanwhile.
        spin_unlock(ptl)
        pte_free(mm, pgtable)
        folio_put(m, folio)
        return 0
    entry = mk_pte(m, folio, vma.vm_page_prot) | _PAGE_PSE | _PAGE_DIRTY
    if vma.vm_flags & VM_WRITE:
        entry |= _PAGE_RW
    folio_add_new_anon_rmap(folio, vma, haddr, RMAP_EXCLUSIVE)
    folio_add_lru(m, folio)
    pgtable_trans_huge_deposit(mm, pgtable)
    set_pmd_at(mm, haddr, pmdp, entry)
    add_mm_counter(mm, MM_ANONPAGES, HPAGE_PMD_NR)
    mm.nr_page_tables += 1
    spin_unlock(ptl)
    count_vm_event(m, THP_FAULT_ALLOC)
    return 0


cdef void huge_pmd_set_accessed(vm_area_struct *vma, pmd_t *pmdp, unsigned long address, pmd_t orig_pmd, unsigned int flags) noexcept nogil:
    cdef spinlock_t *ptl = pmd_lock(vma.vm_mm, pmdp)
    if pmdp_get(pmdp) == orig_pmd:
        set_pmd_at(vma.vm_mm, huge_start(address), pmdp, orig_pmd | _PAGE_ACCESSED | (_PAGE_DIRTY if flags & FAULT_FLAG_WRITE else 0))
    spin_unlock(ptl)


cdef vm_fault_t do_huge_pmd_wp_page(vm_area_struct *vma, pmd_t *pmdp, unsigned long address, pmd_t orig_pmd,
                                    unsigned int flags) noexcept nogil:
    """A write or an unsharing meets a read-only huge page: reuse the page, or split its mapping and let the fault for a small page copy a
    part.
    """
    cdef mm_struct *mm = vma.vm_mm
    cdef machine *m = mm.machine
    cdef bint unshare = flags & FAULT_FLAG_UNSHARE
    cdef bint reuse
    cdef struct_folio *folio
    cdef spinlock_t *ptl = pmd_lock(mm, pmdp)
    if pmdp_get(pmdp) != orig_pmd:
        spin_unlock(ptl)
        return 0
    folio = page_folio(pfn_to_page(m, pmd_pfn(orig_pmd)))
    reuse = PageAnonExclusive(folio)
    if not reuse and folio_trylock(folio):
        # No other process has the page any more, so it becomes exclusive to this one.
        if folio_ref_count(folio) == 1:
            folio_move_anon_rmap(folio, vma)
            SetPageAnonExclusive(folio)
            reuse = True
        folio_unlock(folio)
    if reuse:
        if not unshare:
            orig_pmd |= _PAGE_ACCESSED | _PAGE_DIRTY
            if vma.vm_flags & VM_WRITE:
                orig_pmd |= _PAGE_RW
            set_pmd_at(mm, huge_start(address), pmdp, orig_pmd)
        spin_unlock(ptl)
        return 0
    spin_unlock(ptl)
    split_huge_pmd(vma, pmdp, address)
    return VM_FAULT_FALLBACK


cdef int copy_huge_pmd(vm_area_struct *dst_vma, vm_area_struct *src_vma, pmd_t *dst_pmd, pmd_t *src_pmd,
                       unsigned long addr) noexcept nogil:
    """Share a huge page with a child: 0 or -ENOMEM. -EAGAIN when the page may be pinned: its mapping was split so that the parts can be
    copied.
    """
    cdef machine *m = dst_vma.vm_mm.machine
    cdef pte_table *pgtable = pte_alloc_one(dst_vma.vm_mm)
    cdef struct_folio *folio
    cdef spinlock_t *dst_ptl
    cdef pmd_t pmd
    if pgtable == NULL:
        return -ENOMEM
    dst_ptl = pmd_lock(dst_vma.vm_mm, dst_pmd)
    spin_lock(&src_vma.vm_mm.page_table_lock)
    pmd = pmdp_get(src_pmd)
    if not pmd_leaf(pmd):
        spin_unlock(&src_vma.vm_mm.page_table_lock)
        spin_unlock(dst_ptl)
        pte_free(dst_vma.vm_mm, pgtable)
        return -EAGAIN
    folio = page_folio(pfn_to_page(m, pmd_pfn(pmd)))
    folio_get(folio)
    if folio_try_dup_anon_rmap_pmd(folio, src_vma):
        folio_put(m, folio)
        spin_unlock(&src_vma.vm_mm.page_table_lock)
        spin_unlock(dst_ptl)
        pte_free(dst_vma.vm_mm, pgtable)
        split_huge_pmd(src_vma, src_pmd, addr)
        return -EAGAIN
    add_mm_counter(dst_vma.vm_mm, MM_ANONPAGES, HPAGE_PMD_NR)
    dst_vma.vm_mm.nr_page_tables += 1
    pgtable_trans_huge_deposit(dst_vma.vm_mm, pgtable)
    pmd &= ~<pmd_t>_PAGE_RW
    set_pmd_at(src_vma.vm_mm, addr, src_pmd, pmd)
    set_pmd_at(dst_vma.vm_mm, addr, dst_pmd, pmd & ~<pmd_t>_PAGE_ACCESSED)
    spin_unlock(&src_vma.vm_mm.page_table_lock)
    spin_unlock(dst_ptl)
    return 0


cdef bint zap_huge_pmd(vm_area_struct *vma, pmd_t *pmdp, unsigned long addr) noexcept nogil:
    """Unmap a whole huge page; false if no huge page is mapped any more."""
    cdef mm_struct *mm = vma.vm_mm
    cdef machine *m = mm.machine
    cdef spinlock_t *ptl = pmd_lock(mm, pmdp)
    cdef pmd_t pmd = pmdp_get(pmdp)
    cdef struct_folio *folio
    cdef int i
    if not pmd_leaf(pmd):
        spin_unlock(ptl)
        return False
    set_pmd_at(mm, addr, pmdp, 0)
    folio = page_folio(pfn_to_page(m, pmd_pfn(pmd)))
    for i in range(HPAGE_PMD_NR):
        ksm_page_changed(m, folio + i)              # OURS: as folio_remove_rmap_pte() does for a small page
    folio_entire_mapcount_add(folio, -1)
    add_mm_counter(mm, MM_ANONPAGES, -HPAGE_PMD_NR)
    pte_free(mm, pgtable_trans_huge_withdraw(mm))
    mm.nr_page_tables -= 1
    spin_unlock(ptl)
    folio_put(m, folio)
    return True


cdef bint move_huge_pmd(vm_area_struct *vma, pmd_t *old_pmd, unsigned long new_addr, pmd_t *new_pmd) noexcept nogil:
    """Move a whole huge page to an empty place; false if a table is mapped there. mremap holds the anon_vma's lock."""
    cdef spinlock_t *ptl = pmd_lock(vma.vm_mm, old_pmd)
    cdef bint moved = pmd_leaf(pmdp_get(old_pmd)) and pmd_none(pmdp_get(new_pmd))
    if moved:
        set_pmd_at(vma.vm_mm, new_addr, new_pmd, pmdp_get(old_pmd))
        set_pmd_at(vma.vm_mm, new_addr, old_pmd, 0)
    spin_unlock(ptl)
    return moved


cdef bint change_huge_pmd(vm_area_struct *vma, pmd_t *pmdp, unsigned long addr) noexcept nogil:
    """Give a whole huge page the vma's protection; false if no huge page is mapped any more."""
    cdef spinlock_t *ptl = pmd_lock(vma.vm_mm, pmdp)
    cdef pmd_t pmd = pmdp_get(pmdp)
    cdef bint leaf = pmd_leaf(pmd)
    if leaf:
        pmd = pte_modify(pmd, vma.vm_page_prot)
        # The page becomes writable at once if a write fault would make it so, which means that it is exclusive to this process.
        if vma.vm_flags & VM_WRITE and PageAnonExclusive(pfn_to_page(vma.vm_mm.machine, pmd_pfn(pmd))):
            pmd |= _PAGE_RW
        set_pmd_at(vma.vm_mm, addr, pmdp, pmd)
    spin_unlock(ptl)
    return leaf


cdef void split_huge_pmd(vm_area_struct *vma, pmd_t *pmdp, unsigned long address) noexcept nogil:
    """Map a huge page by 512 entries instead of one. The page itself stays whole."""
    cdef mm_struct *mm = vma.vm_mm
    cdef machine *m = mm.machine
    cdef unsigned long haddr = huge_start(address)
    cdef spinlock_t *ptl = pmd_lock(mm, pmdp)
    cdef pmd_t pmd = pmdp_get(pmdp)
    cdef pte_table *table
    cdef struct_page *page
    cdef bint exclusive
    cdef pte_t entry
    cdef int i
    if not pmd_leaf(pmd):
        spin_unlock(ptl)
        return
    page = pfn_to_page(m, pmd_pfn(pmd))
    exclusive = PageAnonExclusive(page)
    table = pgtable_trans_huge_withdraw(mm)
    if pmd & _PAGE_DIRTY:
        folio_mark_dirty(page)      # no effect: the page has no slot, its entries are dirty, and unmap_parts() looks at them
    # One reference and one mapping become 512 of each.
    folio_ref_add(page, HPAGE_PMD_NR - 1)
    for i in range(HPAGE_PMD_NR):
        entry = mk_pte(m, page + i, READ_ONCE_ulong(vma.vm_page_prot) & ~<unsigned long>_PAGE_ACCESSED)
        entry |= pmd & (_PAGE_RW | _PAGE_DIRTY | _PAGE_ACCESSED)
        if exclusive:
            SetPageAnonExclusive(page + i)
        folio_add_anon_rmap_pte(page, page + i, vma, haddr + (<unsigned long>i << PAGE_SHIFT), RMAP_NONE)
        table.pte[i] = entry
    folio_entire_mapcount_add(page, -1)
    set_pmd_at(mm, haddr, pmdp, <unsigned long>table | _PAGE_PRESENT)
    spin_unlock(ptl)
    count_vm_event(m, THP_SPLIT_PMD)


cdef void split_huge_pmd_if_needed(vm_area_struct *vma, unsigned long address) noexcept nogil:
    cdef pmd_t *pmdp
    if address & (<unsigned long>PMD_SIZE - 1) == 0:
        return
    pmdp = mm_find_pmd(vma.vm_mm, address)
    if pmdp != NULL and pmd_leaf(pmdp_get_lockless(pmdp)):
        split_huge_pmd(vma, pmdp, address)


cdef void vma_adjust_trans_huge(vm_area_struct *vma, unsigned long start, unsigned long end) noexcept nogil:
    """The vma is about to become [start, end): split the mapping of a huge page that crosses one of its ends."""
    if start > vma.vm_start:
        split_huge_pmd_if_needed(vma, start)
    if end < vma.vm_end:
        split_huge_pmd_if_needed(vma, end)


# Splitting a folio. Every mapping becomes a migration entry, so that no thread can reach a page or take a reference. Then the frames are
# made independent. Then the entries become mappings again.

cdef void unmap_parts(vm_area_struct *vma, struct_folio *folio) noexcept nogil:
    cdef mm_struct *mm = vma.vm_mm
    cdef machine *m = mm.machine
    cdef unsigned long i, address, pfn = page_to_pfn(m, folio)
    cdef spinlock_t *ptl = NULL
    cdef struct_page *page
    cdef pmd_t *pmdp
    cdef pte_t *pte
    cdef pte_t entry, old
    cdef bint exclusive
    for i in range(HPAGE_PMD_NR):
        if folio.index + i < vma.vm_pgoff:
            continue
        address = vma.vm_start + ((folio.index + i - vma.vm_pgoff) << PAGE_SHIFT)
        if address >= vma.vm_end:
            break
        pmdp = mm_find_pmd(mm, address)
        if pmdp == NULL:
            continue
        if pmd_leaf(pmdp_get_lockless(pmdp)):
            split_huge_pmd(vma, pmdp, address)
        pte = pte_offset_map_lock(mm, pmdp, address, &ptl)
        if pte == NULL:
            continue
        entry = ptep_get(pte)
        if pte_present(entry) and pte_pfn(entry) == pfn + i:
            page = folio + i
            entry = ptep_clear_flush(vma, address, pte)
            exclusive = PageAnonExclusive(page)
            if exclusive and folio_try_share_anon_rmap_pte(folio, page):
                set_pte_at(mm, address, pte, entry)
            else:
                old = make_migration_pte(pfn + i, pte_write(entry), exclusive)
                if pte_dirty(entry):
                    folio_mark_dirty(folio)     # no effect: the pmd entry was dirty, too, and split_huge_pmd() has marked it
                    old = make_migration_pte_dirty(old)
                if pte_young(entry):
                    old = make_migration_pte_young(old)
                set_pte_at(mm, address, pte, old)
                folio_remove_rmap_pte(folio, page, vma)
                folio_put(m, folio)
        pte_unmap_unlock(pte, ptl)


cdef bint try_to_map_unused_to_zeropage(vm_area_struct *vma, unsigned long address, pte_t *pte, struct_page *page) noexcept nogil:
    """Map the zero page in place of a part that holds zeros only, which was perhaps never used. The frame is free then (mm/migrate.c)."""
    cdef machine *m = vma.vm_mm.machine
    if not m.map_unused_to_zeropage or PageTransCompound(page) or PageHWPoison(page) or READ_ONCE_ulong(vma.vm_flags) & VM_LOCKED:
        return False
    if not pages_identical(m, page, ZERO_PAGE(m, address)):
        return False
    set_pte_at(vma.vm_mm, address, pte, pte_mkspecial(pfn_pte(my_zero_pfn(m, address), READ_ONCE_ulong(vma.vm_page_prot))))
    dec_mm_counter(vma.vm_mm, MM_ANONPAGES)
    return True


cdef void remap_parts(vm_area_struct *vma, unsigned long index, unsigned long pfn) noexcept nogil:
    cdef mm_struct *mm = vma.vm_mm
    cdef machine *m = mm.machine
    cdef unsigned long i, address
    cdef spinlock_t *ptl = NULL
    cdef struct_page *page
    cdef pmd_t *pmdp
    cdef pte_t *pte
    cdef pte_t old
    for i in range(HPAGE_PMD_NR):
        if index + i < vma.vm_pgoff:
            continue
        address = vma.vm_start + ((index + i - vma.vm_pgoff) << PAGE_SHIFT)
        if address >= vma.vm_end:
            break
        pmdp = mm_find_pmd(mm, address)
        pte = pte_offset_map_lock(mm, pmdp, address, &ptl) if pmdp != NULL else NULL
        if pte == NULL:
            continue
        old = ptep_get(pte)
        if is_migration_pte(old) and swp_offset(old) == pfn + i:
            page = pfn_to_page(m, pfn + i)
            if not try_to_map_unused_to_zeropage(vma, address, pte, page):
                map_in_place_of_migration_pte(vma, address, pte, page)
        pte_unmap_unlock(pte, ptl)


cdef void __split_huge_page(machine *m, struct_folio *folio, struct_page *page) noexcept nogil:
    """Make 512 small folios, each locked and with one reference. The reference count of the head is frozen at zero."""
    cdef unsigned long i
    cdef unsigned int kept = folio.flags & <unsigned int>(PG_uptodate | PG_dirty | PG_referenced | PG_active | PG_lru | PG_swapbacked)
    kept |= (<unsigned int>page_to_nid(folio) << PG_node_shift) | PG_locked
    for i in range(1, HPAGE_PMD_NR):
        WRITE_ONCE_uint(folio[i].private, 0)
        folio[i].index = folio.index + i
        WRITE_ONCE_ptr(folio[i].mapping, folio.mapping)
        WRITE_ONCE_uint(folio[i].flags, kept)
        folio_ref_unfreeze(folio + i, 1)
    WRITE_ONCE_uint(folio.flags, kept)
    folio_ref_unfreeze(folio, 1)


cdef int split_huge_page(machine *m, struct_page *page) noexcept nogil:
    """Make small pages of the huge page that `page` is a part of: 0, or -EBUSY, -EAGAIN when the huge page has another reference.

    The caller has locked the huge page and has one reference on it. Afterwards the lock and the reference are on `page`.
    """
    return split_huge_page_of_two(m, page, NULL)


cdef int split_huge_page_of_two(machine *m, struct_page *page, struct_page *other) noexcept nogil:
    """OURS: split_huge_page() for a caller with a second reference, on the part `other`, which the caller keeps. other may be NULL.

    In 2011 the references on a part were counted with that part, and no reference stopped a split.
    """
    cdef struct_folio *folio = page_folio(page)
    cdef struct_anon_vma *anon_vma = folio_get_anon_vma(m, folio)
    cdef anon_vma_chain *avc
    cdef unsigned long i, index = folio.index, pfn = page_to_pfn(m, folio)
    cdef bint done
    cdef int pins = 1 if other == NULL else 2
    if anon_vma == NULL:
        # The page is not mapped any more, and its anon_vma may be gone, too.
        count_vm_event(m, THP_SPLIT_PAGE_FAILED)
        return -EBUSY
    anon_vma_lock_write(anon_vma)
    if folio_mapcount(folio) != folio_ref_count(folio) - pins:
        anon_vma_unlock_write(anon_vma)
        put_anon_vma(m, anon_vma)
        count_vm_event(m, THP_SPLIT_PAGE_FAILED)
        return -EAGAIN
    avc = anon_vma_interval_tree_iter_first(&anon_vma.rb_root, index, index + HPAGE_PMD_NR - 1)
    while avc != NULL:
        unmap_parts(avc.vma, folio)
        avc = anon_vma_interval_tree_iter_next(avc, index, index + HPAGE_PMD_NR - 1)
    # Only the caller's references are left.
    done = folio_ref_freeze(folio, pins)
    if done:
        __split_huge_page(m, folio, page)
    count_vm_event(m, THP_SPLIT_PAGE if done else THP_SPLIT_PAGE_FAILED)
    avc = anon_vma_interval_tree_iter_first(&anon_vma.rb_root, index, index + HPAGE_PMD_NR - 1)
    while avc != NULL:
        remap_parts(avc.vma, index, pfn)
        avc = anon_vma_interval_tree_iter_next(avc, index, index + HPAGE_PMD_NR - 1)
    anon_vma_unlock_write(anon_vma)
    put_anon_vma(m, anon_vma)
    if not done:
        return -EAGAIN
    for i in range(HPAGE_PMD_NR):
        if folio + i != page:
            folio_unlock(folio + i)
            if folio + i != other:
                folio_put(m, folio + i)     # a part that is not mapped is freed now
    return 0


cdef bint split_folio(machine *m, struct_page *page) noexcept nogil:
    """OURS: for callers that move or swap small pages only. Returns true if `page` is a small page now. The caller has a reference on it.
    """
    cdef bint small = not PageTransCompound(page)
    if not small and folio_trylock(page_folio(page)):
        small = split_huge_page(m, page) == 0
        folio_unlock(page_folio(page))
    return small

# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/rmap.c of Linux 6.12.
"""Reverse mapping of anonymous pages.

A page does not list its mappings. It names an anon_vma, and the anon_vma lists the vmas in which the page may be: the one in which it was
first written, and those that fork and split made of it. Each vma is linked to each of its anon_vmas by an anon_vma_chain. All anon_vmas
that descend from one by fork share its root, and the root's lock.

A merged page no longer has an anon_vma. Each of its rmap_items has a reference on one, so an anon_vma can outlive its last vma; its tree is
empty then.
"""

from libc.errno cimport EFAULT, ENOMEM

from linux.atomic cimport (READ_ONCE_ptr, READ_ONCE_ulong, WRITE_ONCE_ptr, atomic_add_return, atomic_dec_and_test,
                           atomic_inc_not_zero, atomic_set, smp_store_release_ptr)
from linux.bug cimport BUG_ON, VM_BUG_ON
from linux.ksm cimport ksm_page_changed, rmap_walk_ksm
from linux.list cimport list_add, list_del, list_head, list_is_singular
from linux.mm cimport (VM_EXEC, VM_LOCKED, VM_READ, VM_WRITE, dec_mm_counter, inc_mm_counter, linear_page_index,
                       mmu_notifier_invalidate_range_end, mmu_notifier_invalidate_range_start, vma_find_index, vma_pages)
from linux.mm_types cimport (HPAGE_PMD_NR, MM_ANONPAGES, MM_SWAPENTS, PAGE_SHIFT, anon_vma_chain, avc_of_same_vma, machine, mm_struct,
                             pte_t, struct_anon_vma, struct_folio, struct_page, vm_area_struct)
from linux.page_flags cimport (PAGE_MAPPING_ANON, PageAnonExclusive, SetPageAnonExclusive, folio_anon_vma, folio_mapped,
                               folio_mapping_word, folio_mark_dirty, folio_set_mapping_word, folio_test_anon,
                               folio_test_ksm, folio_test_large,
                               folio_test_locked, folio_test_swapcache, page_folio)
from linux.pgtable cimport pte_dirty, pte_write, pte_young, ptep_clear_flush, set_pte_at
from linux.rmap cimport (RMAP_EXCLUSIVE, __folio_add_rmap, anon_vma_lock_read, anon_vma_lock_write, anon_vma_trylock_read,
                         anon_vma_unlock_read, anon_vma_unlock_write, folio_entire_mapcount_add, folio_try_share_anon_rmap_pte,
                         get_anon_vma, rmap_walk_control)
from linux.spinlock cimport down_read_trylock, rwsem_is_locked, spin_lock, spin_unlock, up_read
from linux.swap cimport folio_swap
from linux.swapops cimport make_migration_pte, make_migration_pte_dirty, make_migration_pte_young, make_swap_pte

from ksm.mm.interval_tree cimport (anon_vma_interval_tree_insert, anon_vma_interval_tree_iter_first,
                                   anon_vma_interval_tree_iter_next, anon_vma_interval_tree_remove)
from ksm.mm.page_alloc cimport folio_put
from ksm.mm.page_vma_mapped cimport DEFINE_FOLIO_VMA_WALK, page_vma_mapped_walk, page_vma_mapped_walk_control, page_vma_mapped_walk_done
from ksm.mm.slub cimport kmem_cache_alloc, kmem_cache_free
from ksm.mm.swapfile cimport swap_duplicate, swap_free


cdef struct_anon_vma *anon_vma_alloc(machine *m) noexcept nogil:
    cdef struct_anon_vma *anon_vma = <struct_anon_vma *>kmem_cache_alloc(m.anon_vma_cachep)
    if anon_vma != NULL:
        # The lock is not reset. It is free, or a thread still uses it for the anon_vma that was here before: see
        # folio_lock_anon_vma_read().
        atomic_set(&anon_vma.refcount, 1)
        anon_vma.num_children = 0
        anon_vma.num_active_vmas = 0
        anon_vma.rb_root.rb_node = NULL
        anon_vma.parent = anon_vma
        # The anon_vma is its own root, until anon_vma_fork() changes that.
        WRITE_ONCE_ptr((<void **>&anon_vma.root)[0], anon_vma)
    return anon_vma


cdef void anon_vma_free(machine *m, struct_anon_vma *anon_vma) noexcept nogil:
    VM_BUG_ON(anon_vma.refcount != 0)
    # folio_lock_anon_vma_read() may hold the lock without a reference. It unlocks as soon as it sees that the page is unmapped.
    if rwsem_is_locked(&anon_vma.root.rwsem):
        anon_vma_lock_write(anon_vma)
        anon_vma_unlock_write(anon_vma)
    kmem_cache_free(m.anon_vma_cachep, anon_vma)


cdef anon_vma_chain *anon_vma_chain_alloc(machine *m) noexcept nogil:
    return <anon_vma_chain *>kmem_cache_alloc(m.anon_vma_chain_cachep)


cdef void anon_vma_chain_free(machine *m, anon_vma_chain *avc) noexcept nogil:
    kmem_cache_free(m.anon_vma_chain_cachep, avc)


cdef void anon_vma_chain_link(vm_area_struct *vma, anon_vma_chain *avc, struct_anon_vma *anon_vma) noexcept nogil:
    avc.vma = vma
    avc.anon_vma = anon_vma
    list_add(&avc.same_vma, &vma.anon_vma_chain)
    anon_vma_interval_tree_insert(avc, &anon_vma.rb_root)


# find_mergeable_anon_vma() and its helpers are in the kernel's mm/vma.c. Here they stand next to their only caller.

cdef bint anon_vma_compatible(vm_area_struct *a, vm_area_struct *b) noexcept nogil:
    return (a.vm_end == b.vm_start and a.vm_file == b.vm_file
            and not ((a.vm_flags ^ b.vm_flags) & ~(VM_READ | VM_WRITE | VM_EXEC))
            and b.vm_pgoff == a.vm_pgoff + vma_pages(a))


cdef struct_anon_vma *reusable_anon_vma(vm_area_struct *old, vm_area_struct *a, vm_area_struct *b) noexcept nogil:
    cdef struct_anon_vma *anon_vma
    if anon_vma_compatible(a, b):
        anon_vma = <struct_anon_vma *>READ_ONCE_ptr((<void **>&old.anon_vma)[0])
        if anon_vma != NULL and list_is_singular(&old.anon_vma_chain):
            return anon_vma
    return NULL


cdef struct_anon_vma *find_mergeable_anon_vma(vm_area_struct *vma) noexcept nogil:
    """The anon_vma of a neighbour with which this vma could be merged later, if there is one."""
    cdef mm_struct *mm = vma.vm_mm
    cdef int i = vma_find_index(mm, vma.vm_start)
    cdef struct_anon_vma *anon_vma = NULL
    if i + 1 < mm.map_count:
        anon_vma = reusable_anon_vma(mm.vmas[i + 1], vma, mm.vmas[i + 1])
    if anon_vma == NULL and i > 0:
        anon_vma = reusable_anon_vma(mm.vmas[i - 1], mm.vmas[i - 1], vma)
    return anon_vma


cdef int __anon_vma_prepare(vm_area_struct *vma) noexcept nogil:
    """Give the vma an anon_vma before its first anonymous page; -ENOMEM."""
    cdef mm_struct *mm = vma.vm_mm
    cdef machine *m = mm.machine
    cdef struct_anon_vma *anon_vma
    cdef struct_anon_vma *allocated = NULL
    cdef anon_vma_chain *avc = anon_vma_chain_alloc(m)
    if avc == NULL:
        return -ENOMEM
    # Two faults may come here at once, and the neighbour's anon_vma may be new, too.
    spin_lock(&mm.page_table_lock)
    anon_vma = find_mergeable_anon_vma(vma)
    spin_unlock(&mm.page_table_lock)
    if anon_vma == NULL:
        anon_vma = anon_vma_alloc(m)
        if anon_vma == NULL:
            anon_vma_chain_free(m, avc)
            return -ENOMEM
        anon_vma.num_children += 1      # counts itself
        allocated = anon_vma

    anon_vma_lock_write(anon_vma)
    spin_lock(&mm.page_table_lock)
    if vma.anon_vma == NULL:
        smp_store_release_ptr((<void **>&vma.anon_vma)[0], anon_vma)
        anon_vma_chain_link(vma, avc, anon_vma)
        anon_vma.num_active_vmas += 1
        allocated = NULL
        avc = NULL
    spin_unlock(&mm.page_table_lock)
    anon_vma_unlock_write(anon_vma)

    if allocated != NULL:
        put_anon_vma(m, allocated)
    if avc != NULL:
        anon_vma_chain_free(m, avc)
    return 0


cdef int anon_vma_clone(vm_area_struct *dst, vm_area_struct *src) noexcept nogil:
    """Link dst to all anon_vmas of src; -ENOMEM, and nothing is linked then.

    For a fork (dst without anon_vma, src with one) it may also choose an anon_vma that no other vma uses for new pages. This keeps a line
    of forks from growing without end.
    """
    cdef machine *m = dst.vm_mm.machine
    cdef anon_vma_chain *avc
    cdef struct_anon_vma *anon_vma
    cdef list_head *pos = src.anon_vma_chain.prev
    while pos != &src.anon_vma_chain:
        anon_vma = avc_of_same_vma(pos).anon_vma
        avc = anon_vma_chain_alloc(m)
        if avc == NULL:
            # dst is not counted in num_active_vmas yet, so unlink_anon_vmas() must not count it down.
            dst.anon_vma = NULL
            unlink_anon_vmas(dst)
            return -ENOMEM
        anon_vma_lock_write(anon_vma)
        anon_vma_chain_link(dst, avc, anon_vma)
        if (dst.anon_vma == NULL and src.anon_vma != NULL and anon_vma.num_children < 2
                and anon_vma.num_active_vmas == 0):
            dst.anon_vma = anon_vma
        anon_vma_unlock_write(anon_vma)
        pos = pos.prev
    if dst.anon_vma != NULL:
        dst.anon_vma.num_active_vmas += 1
    return 0


cdef int anon_vma_fork(vm_area_struct *vma, vm_area_struct *pvma) noexcept nogil:
    """Link the child's vma to the parent's anon_vmas, and give it one of its own for the pages that it will write."""
    cdef machine *m = vma.vm_mm.machine
    cdef anon_vma_chain *avc
    cdef struct_anon_vma *anon_vma
    cdef int error
    if pvma.anon_vma == NULL:
        return 0
    vma.anon_vma = NULL
    error = anon_vma_clone(vma, pvma)
    if error:
        return error
    if vma.anon_vma != NULL:            # anon_vma_clone() has reused an anon_vma
        return 0

    anon_vma = anon_vma_alloc(m)
    if anon_vma == NULL:
        unlink_anon_vmas(vma)
        return -ENOMEM
    anon_vma.num_active_vmas += 1
    avc = anon_vma_chain_alloc(m)
    if avc == NULL:
        put_anon_vma(m, anon_vma)
        unlink_anon_vmas(vma)
        return -ENOMEM
    WRITE_ONCE_ptr((<void **>&anon_vma.root)[0], pvma.anon_vma.root)
    anon_vma.parent = pvma.anon_vma
    get_anon_vma(anon_vma.root)         # the root's lock is needed as long as this anon_vma lives
    vma.anon_vma = anon_vma
    anon_vma_lock_write(anon_vma)
    anon_vma_chain_link(vma, avc, anon_vma)
    anon_vma.parent.num_children += 1
    anon_vma_unlock_write(anon_vma)
    return 0


cdef void unlink_anon_vmas(vm_area_struct *vma) noexcept nogil:
    """Take the vma out of all its anon_vmas, and drop those that are no longer needed."""
    cdef machine *m = vma.vm_mm.machine
    cdef struct_anon_vma *root = NULL
    cdef struct_anon_vma *anon_vma
    cdef anon_vma_chain *avc
    cdef list_head *pos = vma.anon_vma_chain.next
    cdef list_head *following
    if pos != &vma.anon_vma_chain:
        root = avc_of_same_vma(pos).anon_vma.root
        anon_vma_lock_write(root)
    while pos != &vma.anon_vma_chain:
        following = pos.next
        avc = avc_of_same_vma(pos)
        anon_vma = avc.anon_vma
        anon_vma_interval_tree_remove(avc, &anon_vma.rb_root)
        if anon_vma.rb_root.rb_node == NULL:
            # The anon_vma has no other vma. put_anon_vma() is called below, since it may not be called under the lock.
            anon_vma.parent.num_children -= 1
        else:
            list_del(&avc.same_vma)
            anon_vma_chain_free(m, avc)
        pos = following
    if vma.anon_vma != NULL:
        vma.anon_vma.num_active_vmas -= 1
        vma.anon_vma = NULL
    if root != NULL:
        anon_vma_unlock_write(root)

    pos = vma.anon_vma_chain.next
    while pos != &vma.anon_vma_chain:
        following = pos.next
        avc = avc_of_same_vma(pos)
        put_anon_vma(m, avc.anon_vma)
        list_del(&avc.same_vma)
        anon_vma_chain_free(m, avc)
        pos = following


cdef void __put_anon_vma(machine *m, struct_anon_vma *anon_vma) noexcept nogil:
    cdef struct_anon_vma *root = anon_vma.root
    anon_vma_free(m, anon_vma)
    if root != anon_vma and atomic_dec_and_test(&root.refcount):
        anon_vma_free(m, root)


cdef inline bint same_mapping(struct_folio *folio, struct_anon_vma *anon_vma) noexcept nogil:
    return <unsigned long>folio_mapping_word(folio) == <unsigned long>anon_vma | PAGE_MAPPING_ANON


cdef struct_anon_vma *folio_get_anon_vma(machine *m, struct_folio *folio) noexcept nogil:
    """The page's anon_vma with a reference; NULL if the page is not mapped, because its mapping word may then be out of date.

    The anon_vma may be freed at any moment here, but its memory stays an anon_vma, perhaps another one (SLAB_TYPESAFE_BY_RCU). If the page
    is still mapped after the reference was taken, its anon_vma was never freed.
    """
    cdef struct_anon_vma *anon_vma = folio_anon_vma(folio)
    if anon_vma == NULL or not folio_mapped(folio) or not atomic_inc_not_zero(&anon_vma.refcount):
        return NULL
    if not folio_mapped(folio):
        put_anon_vma(m, anon_vma)
        return NULL
    return anon_vma


cdef struct_anon_vma *folio_lock_anon_vma_read(machine *m, struct_folio *folio, rmap_walk_control *rwc) noexcept nogil:
    """folio_get_anon_vma() with the lock in place of the reference. With rwc.try_lock it does not wait for the lock, but sets
    rwc.contended.
    """
    cdef struct_anon_vma *anon_vma
    cdef struct_anon_vma *root_anon_vma
    while True:                 # retry:
        anon_vma = folio_anon_vma(folio)
        if anon_vma == NULL or not folio_mapped(folio):
            return NULL
        root_anon_vma = <struct_anon_vma *>READ_ONCE_ptr((<void **>&anon_vma.root)[0])
        if down_read_trylock(&root_anon_vma.rwsem):
            # A write fault that reused the page may have changed its anon_vma.
            if not same_mapping(folio, anon_vma):
                up_read(&root_anon_vma.rwsem)
                continue
            # If the page is still mapped, this is its anon_vma, and stays so under the lock.
            if not folio_mapped(folio):
                up_read(&root_anon_vma.rwsem)
                return NULL
            return anon_vma

        if rwc != NULL and rwc.try_lock:
            rwc.contended = True
            return NULL

        # A thread takes a reference before it waits for the lock.
        if not atomic_inc_not_zero(&anon_vma.refcount):
            return NULL
        if not folio_mapped(folio):
            put_anon_vma(m, anon_vma)
            return NULL
        anon_vma_lock_read(anon_vma)
        if not same_mapping(folio, anon_vma):
            anon_vma_unlock_read(anon_vma)
            put_anon_vma(m, anon_vma)
            continue
        if atomic_dec_and_test(&anon_vma.refcount):
            # This was the last reference: unlock the anon_vma before it is freed.
            anon_vma_unlock_read(anon_vma)
            __put_anon_vma(m, anon_vma)
            return NULL
        return anon_vma


cdef unsigned long vma_address(vm_area_struct *vma, unsigned long pgoff) noexcept nogil:
    """The address of page pgoff of the object in this vma, or -EFAULT."""
    cdef unsigned long address
    if pgoff < vma.vm_pgoff:
        return <unsigned long>-EFAULT
    address = vma.vm_start + ((pgoff - vma.vm_pgoff) << PAGE_SHIFT)
    if address < vma.vm_start or address >= vma.vm_end:
        return <unsigned long>-EFAULT
    return address


cdef unsigned long page_address_in_vma(struct_page *page, vm_area_struct *vma) noexcept nogil:
    """The address that the page would have in this vma by its anon_vma and index, or -EFAULT.

    A merged page has no anon_vma, so the value is -EFAULT in every vma; write_protect_page() depends on that.
    """
    cdef struct_folio *folio = page_folio(page)
    cdef struct_anon_vma *page__anon_vma
    if not folio_test_anon(folio):
        return <unsigned long>-EFAULT
    page__anon_vma = folio_anon_vma(folio)
    if vma.anon_vma == NULL or page__anon_vma == NULL or vma.anon_vma.root != page__anon_vma.root:
        return <unsigned long>-EFAULT
    return vma_address(vma, folio.index + <unsigned long>(page - folio))


cdef void folio_move_anon_rmap(struct_folio *folio, vm_area_struct *vma) noexcept nogil:
    """Make this vma the only one that the folio belongs to. An rmap walk then need not look in the vmas of its relatives."""
    VM_BUG_ON(not folio_test_locked(folio))
    VM_BUG_ON(vma.anon_vma == NULL)
    folio_set_mapping_word(folio, <void *>(<unsigned long>vma.anon_vma | PAGE_MAPPING_ANON))


cdef void __folio_set_anon(struct_folio *folio, vm_area_struct *vma, unsigned long address, bint exclusive) noexcept nogil:
    cdef struct_anon_vma *anon_vma = vma.anon_vma
    BUG_ON(anon_vma == NULL)
    if not exclusive:
        # Relatives may map the page: only the root anon_vma leads to all of them.
        anon_vma = anon_vma.root
    folio_set_mapping_word(folio, <void *>(<unsigned long>anon_vma | PAGE_MAPPING_ANON))
    folio.index = linear_page_index(vma, address)


cdef void folio_add_anon_rmap_pte(struct_folio *folio, struct_page *page, vm_area_struct *vma, unsigned long address,
                                  int flags) noexcept nogil:
    """Count one more entry that maps this anonymous page. The table's lock is held."""
    VM_BUG_ON(not folio_test_anon(folio))
    __folio_add_rmap(folio, page)
    # A merged page may be mapped at any address, another page only at the address that its index gives.
    VM_BUG_ON(not folio_test_ksm(folio) and folio.index + <unsigned long>(page - folio) != linear_page_index(vma, address))
    if flags & RMAP_EXCLUSIVE:
        SetPageAnonExclusive(page)


cdef void folio_add_new_anon_rmap(struct_folio *folio, vm_area_struct *vma, unsigned long address, int flags) noexcept nogil:
    """Count the first entry that maps a new page; for a huge page it is a pmd entry."""
    cdef bint exclusive = flags & RMAP_EXCLUSIVE
    __folio_set_anon(folio, vma, address, exclusive)
    if folio_test_large(folio):
        folio_entire_mapcount_add(folio, 1)
    else:
        folio._mapcount = 0
    if exclusive:
        SetPageAnonExclusive(folio)


cdef void folio_remove_rmap_pte(struct_folio *folio, struct_page *page, vm_area_struct *vma) noexcept nogil:
    """Count one entry fewer that maps this page. The caller still holds that entry's reference."""
    ksm_page_changed(vma.vm_mm.machine, page)       # OURS
    atomic_add_return(&page._mapcount, -1)
    if folio_test_large(folio):
        atomic_add_return(<int *>&folio[1].index, -1)


# Unmapping a page everywhere: for swap, and for a move to another frame

cdef bint try_to_unmap_one(struct_folio *folio, vm_area_struct *vma, unsigned long address, void *arg) noexcept nogil:
    """Replace the page's entry by a swap entry with its slot; False stops the walk."""
    cdef mm_struct *mm = vma.vm_mm
    cdef machine *m = mm.machine
    cdef page_vma_mapped_walk_control pvmw
    cdef bint anon_exclusive, ret = False
    cdef pte_t pteval
    cdef unsigned long entry
    DEFINE_FOLIO_VMA_WALK(&pvmw, folio, vma, address, 0)
    mmu_notifier_invalidate_range_start(mm)
    if not page_vma_mapped_walk(&pvmw):
        ret = True
    elif not READ_ONCE_ulong(vma.vm_flags) & VM_LOCKED:
        anon_exclusive = PageAnonExclusive(folio)
        pteval = ptep_clear_flush(vma, address, pvmw.pte)
        if pte_dirty(pteval):
            folio_mark_dirty(folio)
        entry = folio_swap(folio)
        if not folio_test_swapcache(folio) or swap_duplicate(m, entry) < 0:
            set_pte_at(mm, address, pvmw.pte, pteval)
        elif anon_exclusive and folio_try_share_anon_rmap_pte(folio, folio):
            swap_free(m, entry)
            set_pte_at(mm, address, pvmw.pte, pteval)
        else:
            dec_mm_counter(mm, MM_ANONPAGES)
            inc_mm_counter(mm, MM_SWAPENTS)
            set_pte_at(mm, address, pvmw.pte, make_swap_pte(entry, anon_exclusive))
            folio_remove_rmap_pte(folio, folio, vma)
            folio_put(m, folio)
            ret = True
        page_vma_mapped_walk_done(&pvmw)
    else:
        page_vma_mapped_walk_done(&pvmw)
    mmu_notifier_invalidate_range_end(mm)
    return ret


cdef bint folio_not_mapped(struct_folio *folio) noexcept nogil:
    return not folio_mapped(folio)


cdef void try_to_unmap(machine *m, struct_folio *folio) noexcept nogil:
    """Unmap a locked page of the swap cache from every process, as far as possible. The caller checks whether it is still mapped."""
    cdef rmap_walk_control rwc
    rwc.arg = NULL
    rwc.try_lock = False
    rwc.contended = False
    rwc.rmap_one = try_to_unmap_one
    rwc.done = folio_not_mapped
    rwc.invalid_vma = NULL
    rwc.anon_lock = True
    rmap_walk(m, folio, &rwc)


cdef bint try_to_migrate_one(struct_folio *folio, vm_area_struct *vma, unsigned long address, void *arg) noexcept nogil:
    """Replace the page's entry by a migration entry, at which a thread that wants the page has to wait; False stops the walk."""
    cdef mm_struct *mm = vma.vm_mm
    cdef machine *m = mm.machine
    cdef page_vma_mapped_walk_control pvmw
    cdef bint anon_exclusive, ret = True
    cdef pte_t pteval, entry
    DEFINE_FOLIO_VMA_WALK(&pvmw, folio, vma, address, 0)
    mmu_notifier_invalidate_range_start(mm)
    if page_vma_mapped_walk(&pvmw):
        anon_exclusive = PageAnonExclusive(folio)
        pteval = ptep_clear_flush(vma, address, pvmw.pte)
        if pte_dirty(pteval):
            folio_mark_dirty(folio)
        VM_BUG_ON(pte_write(pteval) and not anon_exclusive)
        if anon_exclusive and folio_try_share_anon_rmap_pte(folio, folio):
            set_pte_at(mm, address, pvmw.pte, pteval)
            ret = False
        else:
            entry = make_migration_pte(pvmw.pfn, pte_write(pteval), anon_exclusive)
            if pte_young(pteval):
                entry = make_migration_pte_young(entry)
            if pte_dirty(pteval):
                entry = make_migration_pte_dirty(entry)
            set_pte_at(mm, address, pvmw.pte, entry)
            folio_remove_rmap_pte(folio, folio, vma)
            folio_put(m, folio)
        page_vma_mapped_walk_done(&pvmw)
    mmu_notifier_invalidate_range_end(mm)
    return ret


cdef void try_to_migrate(machine *m, struct_folio *folio) noexcept nogil:
    """Replace every mapping of a locked page by a migration entry, as far as possible."""
    cdef rmap_walk_control rwc
    rwc.arg = NULL
    rwc.try_lock = False
    rwc.contended = False
    rwc.rmap_one = try_to_migrate_one
    rwc.done = folio_not_mapped
    rwc.invalid_vma = NULL
    rwc.anon_lock = True
    rmap_walk(m, folio, &rwc)


cdef struct_anon_vma *rmap_walk_anon_lock(machine *m, struct_folio *folio, rmap_walk_control *rwc) noexcept nogil:
    cdef struct_anon_vma *anon_vma
    if rwc.anon_lock:
        return folio_lock_anon_vma_read(m, folio, rwc)
    # With remove_migration_ptes() the page is not mapped. The caller then has a reference on the anon_vma, or on a process that keeps it.
    anon_vma = folio_anon_vma(folio)
    if anon_vma == NULL or anon_vma_trylock_read(anon_vma):
        return anon_vma
    if rwc.try_lock:
        rwc.contended = True
        return NULL
    anon_vma_lock_read(anon_vma)
    return anon_vma


cdef void rmap_walk_anon(machine *m, struct_folio *folio, rmap_walk_control *rwc) noexcept nogil:
    cdef struct_anon_vma *anon_vma = rmap_walk_anon_lock(m, folio, rwc)
    cdef anon_vma_chain *avc
    cdef unsigned long pgoff_start, pgoff_end, address
    if anon_vma == NULL:
        return
    pgoff_start = folio.index
    pgoff_end = pgoff_start + (HPAGE_PMD_NR - 1 if folio_test_large(folio) else 0)
    avc = anon_vma_interval_tree_iter_first(&anon_vma.rb_root, pgoff_start, pgoff_end)
    while avc != NULL:
        address = vma_address(avc.vma, pgoff_start if pgoff_start > avc.vma.vm_pgoff else avc.vma.vm_pgoff)
        if rwc.invalid_vma == NULL or not rwc.invalid_vma(avc.vma, rwc.arg):
            if not rwc.rmap_one(folio, avc.vma, address, rwc.arg):
                break
            if rwc.done != NULL and rwc.done(folio):
                break
        avc = anon_vma_interval_tree_iter_next(avc, pgoff_start, pgoff_end)
    anon_vma_unlock_read(anon_vma)


cdef void rmap_walk(machine *m, struct_folio *folio, rmap_walk_control *rwc) noexcept nogil:
    """Call rmap_one() for every place that may map this anonymous or merged page. The folio is locked."""
    if folio_test_ksm(folio):
        rmap_walk_ksm(m, folio, rwc)
    elif folio_test_anon(folio):
        rmap_walk_anon(m, folio, rwc)

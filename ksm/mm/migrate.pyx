# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/migrate.c of Linux 6.12, for one small anonymous page at a time.
"""Moving a page to another frame, while processes go on using it.

The page is taken off the LRU and locked, and every entry that maps it becomes a migration entry. A thread that touches the page then waits
until it is unlocked. If the page has only the known references, its bytes, mapping word and flags go to the new frame, and the migration
entries become mappings of that frame. A merged page takes its stable node along, in folio_migrate_ksm(). The rmap walks before and after
the move find its mappings by the node.
"""

from libc.errno cimport EAGAIN, EBUSY, EFAULT, ENOENT, ENOMEM

from linux.atomic cimport READ_ONCE_ulong, WRITE_ONCE_uint
from linux.bug cimport VM_BUG_ON
from linux.ksm cimport folio_migrate_ksm
from linux.mm cimport count_vm_event, vma_lookup
from linux.highmem cimport copy_highpage
from linux.mm_types cimport (PAGE_SIZE, PGMIGRATE_FAIL, PGMIGRATE_SUCCESS, machine, mm_struct, pmd_t, pte_t, struct_anon_vma,
                             struct_folio, struct_page, swap_info_struct, vm_area_struct)
from linux.mmap_lock cimport mmap_read_lock, mmap_read_unlock
from linux.page_flags cimport (PG_active, PG_dirty, PG_ksm_relatives, PG_referenced, PG_reserved, PG_swapcache, PG_uptodate,
                               PageHWPoison, clear_page_flag, folio_get, folio_lock, folio_mapcount, folio_mapped, folio_pfn,
                               folio_ref_count, folio_ref_freeze, folio_mapping_word, folio_set_mapping_word,
                               folio_ref_unfreeze, folio_set_dirty, folio_test_anon, folio_test_clear_dirty, folio_test_dirty,
                               folio_test_ksm, folio_test_large, folio_test_locked, folio_test_swapcache, folio_try_get,
                               folio_unlock, page_folio, page_to_nid, pfn_folio, pfn_to_page, set_page_flag, test_page_flag)
from linux.pagewalk cimport FW_ZEROPAGE, folio_walk, folio_walk_end
from linux.pgtable cimport (is_zero_pfn, mk_pte, pte_mkdirty, pte_mkold, pte_mkwrite, pte_offset_map_lock, ptep_get, set_pte_at)
from linux.rmap cimport RMAP_EXCLUSIVE, RMAP_NONE, rmap_walk_control
from linux.spinlock cimport backoff, spin_lock, spin_unlock, spinlock_t
from linux.swap cimport folio_swap
from linux.swapops cimport (is_migration_pte, is_migration_pte_dirty, is_migration_pte_young, is_readable_migration_pte,
                            is_writable_migration_pte, pfn_swap_entry_folio)

from ksm.mm.huge_memory cimport split_folio
from ksm.mm.page_alloc cimport __alloc_pages, folio_put
from ksm.mm.page_vma_mapped cimport (DEFINE_FOLIO_VMA_WALK, PVMW_MIGRATION, page_vma_mapped_walk, page_vma_mapped_walk_control,
                                     page_vma_mapped_walk_done)
from ksm.mm.pagewalk cimport folio_walk_start
from ksm.mm.rmap cimport folio_add_anon_rmap_pte, folio_get_anon_vma, put_anon_vma, rmap_walk, try_to_migrate
from ksm.mm.swap cimport folio_add_lru, lru_add_drain_all, lru_cache_disable, lru_cache_enable
from ksm.mm.vmscan cimport folio_isolate_lru, folio_putback_lru


cdef enum:
    NR_MAX_MIGRATE_PAGES_RETRY = 10


cdef void map_in_place_of_migration_pte(vm_area_struct *vma, unsigned long addr, pte_t *ptep, struct_page *page) noexcept nogil:
    """OURS: the half of remove_migration_pte() that splitting a huge page needs, too. The table is locked."""
    cdef struct_folio *folio = page_folio(page)
    cdef int rmap_flags = RMAP_NONE
    cdef pte_t old_pte = ptep_get(ptep), pte
    folio_get(folio)
    pte = mk_pte(vma.vm_mm.machine, page, READ_ONCE_ulong(vma.vm_page_prot))
    if not is_migration_pte_young(old_pte):
        pte = pte_mkold(pte)
    if folio_test_dirty(folio) and is_migration_pte_dirty(old_pte):
        pte = pte_mkdirty(pte)
    if is_writable_migration_pte(old_pte):
        pte = pte_mkwrite(pte)
    if not is_readable_migration_pte(old_pte):
        rmap_flags |= RMAP_EXCLUSIVE
    folio_add_anon_rmap_pte(folio, page, vma, addr, rmap_flags)
    set_pte_at(vma.vm_mm, addr, ptep, pte)


cdef bint remove_migration_pte(struct_folio *folio, vm_area_struct *vma, unsigned long addr, void *arg) noexcept nogil:
    """Map the page where a migration entry names the frame that the page had, arg."""
    cdef page_vma_mapped_walk_control pvmw
    DEFINE_FOLIO_VMA_WALK(&pvmw, <struct_folio *>arg, vma, addr, PVMW_MIGRATION)
    if page_vma_mapped_walk(&pvmw):
        map_in_place_of_migration_pte(vma, addr, pvmw.pte, folio)
        page_vma_mapped_walk_done(&pvmw)
    return True


cdef void remove_migration_ptes(machine *m, struct_folio *src, struct_folio *dst) noexcept nogil:
    """Turn the migration entries of src into mappings of dst, which is src itself when the move was given up."""
    cdef rmap_walk_control rwc
    rwc.arg = src
    rwc.try_lock = False
    rwc.contended = False
    rwc.rmap_one = remove_migration_pte
    rwc.done = NULL
    rwc.invalid_vma = NULL
    rwc.anon_lock = False
    rmap_walk(m, dst, &rwc)


cdef void migration_entry_wait(mm_struct *mm, pmd_t *pmd, unsigned long address) noexcept nogil:
    """Wait until the page behind the migration entry at this address is unlocked."""
    cdef spinlock_t *ptl = NULL
    cdef struct_folio *folio = NULL
    cdef pte_t *ptep = pte_offset_map_lock(mm, pmd, address, &ptl)
    cdef pte_t pte
    cdef int spins = 0
    if ptep == NULL:
        return
    pte = ptep_get(ptep)
    if is_migration_pte(pte):
        folio = pfn_swap_entry_folio(mm.machine, pte)
    spin_unlock(ptl)
    # No reference is taken: it would stop the migration. The frame may get another user meanwhile, and the loop then watches that user's
    # lock. The caller looks at the entry again in any case.
    while folio != NULL and folio_test_locked(folio):
        backoff(&spins)


cdef inline int folio_expected_ref_count(struct_folio *folio) noexcept nogil:
    return folio_test_swapcache(folio) + folio_mapcount(folio)


cdef int __folio_migrate_mapping(machine *m, struct_folio *newfolio, struct_folio *folio, int expected_count) noexcept nogil:
    """Give newfolio the place of folio, in the swap cache too: 0, or -EAGAIN if there are more references than expected."""
    cdef swap_info_struct *si
    if not folio_test_swapcache(folio):
        newfolio.index = folio.index
        folio_set_mapping_word(newfolio, folio_mapping_word(folio))
        return 0
    si = m.swap_info
    spin_lock(&si.i_pages_lock)
    if not folio_ref_freeze(folio, expected_count):
        spin_unlock(&si.i_pages_lock)
        return -EAGAIN
    newfolio.index = folio.index
    folio_set_mapping_word(newfolio, folio_mapping_word(folio))
    folio_get(newfolio)
    set_page_flag(newfolio, PG_swapcache)
    WRITE_ONCE_uint(newfolio.private, folio.private)
    # These two lines move the dirty bit early. folio_migrate_flags() would move it in time, too: newfolio is locked and cannot be dropped
    # meanwhile.
    if folio_test_clear_dirty(folio):
        folio_set_dirty(newfolio)
    si.i_pages[folio_swap(folio)] = newfolio
    folio_ref_unfreeze(folio, expected_count - 1)
    spin_unlock(&si.i_pages_lock)
    return 0


cdef void folio_migrate_flags(machine *m, struct_folio *newfolio, struct_folio *folio) noexcept nogil:
    if test_page_flag(folio, PG_referenced):
        set_page_flag(newfolio, PG_referenced)
    if test_page_flag(folio, PG_uptodate):
        set_page_flag(newfolio, PG_uptodate)
    if test_page_flag(folio, PG_active):
        clear_page_flag(folio, PG_active)
        set_page_flag(newfolio, PG_active)
    if test_page_flag(folio, PG_dirty):
        set_page_flag(newfolio, PG_dirty)
    if test_page_flag(folio, PG_ksm_relatives):         # OURS
        set_page_flag(newfolio, PG_ksm_relatives)

    folio_migrate_ksm(m, newfolio, folio)
    # The flag is cleared after the node has moved. While the count is frozen, ksm_get_folio() waits for as long as it sees the flag, and
    # then follows the node.
    if folio_test_swapcache(folio):
        clear_page_flag(folio, PG_swapcache)
    WRITE_ONCE_uint(folio.private, 0)


cdef int migrate_folio(machine *m, struct_folio *dst, struct_folio *src) noexcept nogil:
    """Move the contents of src to dst. Both are locked, and src is not mapped: 0, or -EAGAIN if src has another reference."""
    cdef int expected_count = folio_expected_ref_count(src) + 1
    cdef int rc
    VM_BUG_ON(not folio_test_locked(src))
    VM_BUG_ON(not folio_test_locked(dst))
    if folio_ref_count(src) != expected_count:
        return -EAGAIN
    copy_highpage(m, dst, src)
    rc = __folio_migrate_mapping(m, dst, src, expected_count)
    if rc == 0:
        folio_migrate_flags(m, dst, src)
    return rc


cdef void migrate_folio_undo(machine *m, struct_folio *src, struct_folio *dst, bint page_was_mapped,
                             struct_anon_vma *anon_vma) noexcept nogil:
    if page_was_mapped:
        remove_migration_ptes(m, src, src)
    if anon_vma != NULL:
        put_anon_vma(m, anon_vma)
    folio_unlock(src)
    folio_unlock(dst)


cdef void migrate_folio_done(machine *m, struct_folio *src, int reason) noexcept nogil:
    """Free the frame that the page had. page_handle_poison() frees one that is not to be used again."""
    if reason != MR_MEMORY_FAILURE:
        folio_put(m, src)


cdef int unmap_and_move(machine *m, struct_folio *src, struct_folio *dst, int reason) noexcept nogil:
    """migrate_folio_unmap() and migrate_folio_move(): one attempt. On success the caller's reference on src is gone, and dst belongs to the
    processes; with MR_MEMORY_FAILURE the reference stays. -EAGAIN and -EBUSY leave all as it was.
    """
    cdef struct_anon_vma *anon_vma = NULL
    cdef bint page_was_mapped = False
    cdef int rc = -EAGAIN, _retry
    folio_lock(src)
    if folio_test_ksm(src) and reason != MR_MEMORY_HOTPLUG and not m.ksm_pages_move:
        folio_unlock(src)       # in 2011 a search holds no lock that would keep the page in its frame
        return -EBUSY
    # The object in the mapping word has to stay while the page is not mapped. This reference keeps an anon_vma. The page lock keeps the
    # stable node of a merged page.
    if folio_test_anon(src) and not folio_test_ksm(src):
        anon_vma = folio_get_anon_vma(m, src)
    folio_lock(dst)             # dst is new, so nobody else has its lock
    if folio_mapped(src):
        try_to_migrate(m, src)
        page_was_mapped = True
    if not folio_mapped(src):
        for _retry in range(NR_MAX_MIGRATE_PAGES_RETRY):
            rc = migrate_folio(m, dst, src)
            if rc != -EAGAIN:
                break
    if rc:
        migrate_folio_undo(m, src, dst, page_was_mapped, anon_vma)
        return rc

    folio_add_lru(m, dst)
    if page_was_mapped:
        remove_migration_ptes(m, src, dst)
    folio_unlock(dst)
    folio_put(m, dst)           # the first reference; the mappings have their own
    if anon_vma != NULL:
        put_anon_vma(m, anon_vma)
    folio_unlock(src)
    migrate_folio_done(m, src, reason)
    return 0


cdef int migrate_pages(machine *m, struct_folio *folio, int nid, unsigned long nodemask, int reason, unsigned long *new_pfn) noexcept nogil:
    """Move an isolated page to a frame of the nodes in nodemask, of nid if possible. Returns 0 and the frame. -ENOMEM, -EAGAIN and -EBUSY
    put the page back on the LRU.
    """
    cdef struct_folio *dst = NULL
    cdef int rc = 0, _retry
    if folio_ref_count(folio) == 1:
        # The page was freed meanwhile: this is the last reference.
        migrate_folio_done(m, folio, reason)
        new_pfn[0] = 0
        return 0
    dst = __alloc_pages(m, nid, nodemask, 0, False)
    if dst == NULL:
        rc = -ENOMEM
    else:
        new_pfn[0] = folio_pfn(m, dst)
        for _retry in range(NR_MAX_MIGRATE_PAGES_RETRY):
            rc = unmap_and_move(m, folio, dst, reason)
            if rc != -EAGAIN:
                break
    if rc:
        count_vm_event(m, PGMIGRATE_FAIL)
        if dst != NULL:
            folio_put(m, dst)
        folio_putback_lru(m, folio)
    else:
        count_vm_event(m, PGMIGRATE_SUCCESS)
    return rc


cdef long migrate_pfn(machine *m, unsigned long pfn, int nid) noexcept nogil:
    """OURS: move the page in this frame to this node, or with NUMA_NO_NODE to any node with room. Returns its new frame.

    -EBUSY if the frame has no page that can move: it is free, broken, of a shared object, or another thread has a reference; in 2011 also
    if it is merged. -ENOMEM, -EAGAIN.
    """
    cdef struct_folio *folio
    cdef unsigned long new_pfn = 0
    cdef bint isolated
    cdef int rc
    lru_add_drain_all(m)
    folio = pfn_folio(m, pfn)
    if test_page_flag(folio, PG_reserved) or not folio_try_get(folio):
        return -EBUSY
    # Huge pages are split first. The kernel moves them as a whole if there is room for that.
    isolated = split_folio(m, pfn_to_page(m, pfn))
    folio = pfn_folio(m, pfn)
    isolated = isolated and not PageHWPoison(folio) and folio_isolate_lru(folio)
    folio_put(m, folio)
    if not isolated:
        return -EBUSY
    rc = migrate_pages(m, folio, page_to_nid(folio) if nid < 0 else nid,
                       ~(<unsigned long>0) if nid < 0 else <unsigned long>1 << nid, MR_SYSCALL, &new_pfn)
    return rc if rc else <long>new_pfn


cdef int add_folio_for_migration(mm_struct *mm, unsigned long addr, int node, struct_folio **folio) noexcept nogil:
    """Isolate the page at this address: 1, or 0 if it is on the node already. -ENOENT without a page, -EFAULT for the zero page and where
    nothing is mapped, -EBUSY if the page cannot be isolated.
    """
    cdef vm_area_struct *vma
    cdef folio_walk fw
    cdef struct_page *page
    cdef bint split
    cdef int err = -EFAULT
    mmap_read_lock(mm)
    vma = vma_lookup(mm, addr)
    if vma != NULL:
        folio[0] = folio_walk_start(&fw, vma, addr, FW_ZEROPAGE)
        err = -ENOENT
        if folio[0] != NULL:
            if is_zero_pfn(mm.machine, folio_pfn(mm.machine, folio[0])):
                err = -EFAULT
            elif page_to_nid(folio[0]) == node:
                err = 0
            elif folio_test_large(folio[0]):
                # Split the huge page, and look again. The kernel moves it as a whole.
                page = fw.page
                folio_get(folio[0])
                folio_walk_end(&fw, vma)
                split = split_folio(mm.machine, page)
                folio_put(mm.machine, page_folio(page))
                mmap_read_unlock(mm)
                return add_folio_for_migration(mm, addr, node, folio) if split else -EBUSY
            elif folio_test_anon(folio[0]) and not PageHWPoison(folio[0]) and folio_isolate_lru(folio[0]):
                err = 1
            else:
                err = -EBUSY
            folio_walk_end(&fw, vma)
    mmap_read_unlock(mm)
    return err


cdef bint move_pages_and_store_status(machine *m, struct_folio **pagelist, int queued, int node, int *status) noexcept nogil:
    """Move the isolated pages, and store for each its node, or -errno. Whether one has stayed."""
    cdef unsigned long new_pfn = 0
    cdef bint stayed = False
    cdef int i, rc
    for i in range(queued):
        rc = migrate_pages(m, pagelist[i], node, <unsigned long>1 << node, MR_SYSCALL, &new_pfn)
        status[i] = rc if rc else node
        stayed |= rc != 0
    return stayed


cdef unsigned long do_pages_move(mm_struct *mm, unsigned long addr, int nr_pages, int node, int *status, pages_move *state) noexcept nogil:
    """Move pages, MOST_QUEUED at most, to a node. Returns how many were tried; `state` goes on to the next call.

    Pages that can be isolated are queued. The first one that cannot, or is on the node already, has the queue moved. A page of it that
    stays ends the call (since 4.17).
    """
    cdef struct_folio *pagelist[MOST_QUEUED]
    cdef int i = 0, queued = 0, err
    lru_cache_disable(mm.machine)
    while i < nr_pages and not state.ended:
        err = add_folio_for_migration(mm, addr + i * PAGE_SIZE, node, &pagelist[queued])
        i += 1
        if err > 0:
            queued += 1
            continue
        status[i - 1] = err if err else node
        state.stayed |= move_pages_and_store_status(mm.machine, pagelist, queued, node, status + i - 1 - queued)
        state.ended = state.stayed and mm.machine.ksm_pages_move
        queued = 0
    # OURS: the kernel's queue has no end. Here the next call goes on with it.
    state.stayed |= move_pages_and_store_status(mm.machine, pagelist, queued, node, status + i - queued)
    lru_cache_enable(mm.machine)
    return i


cdef void do_pages_stat(mm_struct *mm, unsigned long addr, unsigned long nr_pages, int *status) noexcept nogil:
    """Store the node of each page, -ENOENT without one, -EFAULT for the zero page and where nothing is mapped."""
    cdef vm_area_struct *vma
    cdef struct_folio *folio
    cdef folio_walk fw
    cdef unsigned long i
    mmap_read_lock(mm)
    for i in range(nr_pages):
        status[i] = -EFAULT
        vma = vma_lookup(mm, addr + i * PAGE_SIZE)
        if vma == NULL:
            continue
        folio = folio_walk_start(&fw, vma, addr + i * PAGE_SIZE, FW_ZEROPAGE)
        status[i] = -ENOENT
        if folio != NULL:
            status[i] = -EFAULT if is_zero_pfn(mm.machine, folio_pfn(mm.machine, folio)) else page_to_nid(folio)
            folio_walk_end(&fw, vma)
    mmap_read_unlock(mm)

# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/swapfile.c of Linux 6.12, with one area a machine.
"""The slots of the swap area.

swap_map counts for each slot how many page table entries name it, and has a bit for a page in the swap cache. A slot is free when both are
gone. The kernel's area is a file or a partition. The area here is memory outside the arena, which the system provides page by page as slots
are written. So pages that are swapped out really leave the machine's memory.
"""

from libc.errno cimport EBUSY, EEXIST, EINTR, EINVAL, EIO, ENOENT, ENOMEM
from libc.stdlib cimport calloc, free

from linux.atomic cimport (READ_ONCE_uint, READ_ONCE_ulong, WRITE_ONCE_uint, WRITE_ONCE_ulong, atomic_dec, atomic_inc_not_zero,
                           smp_load_acquire_int, smp_load_acquire_ptr, smp_store_release_int, smp_store_release_ptr)
from linux.bug cimport BUG_ON, VM_BUG_ON
from linux.err cimport IS_ERR
from linux.highmem cimport frame_size
from linux.ksm cimport ksm_might_need_to_copy
from linux.list cimport list_head
from linux.mm cimport dec_mm_counter, inc_mm_counter, signal_pending
from linux.mm_types cimport (MM_ANONPAGES, MM_SWAPENTS, PAGE_SIZE, machine, mm_of_mmlist, mm_struct, pmd_t, pte_t,
                             struct_folio, swap_info_struct, vm_area_struct)
from linux.mmap_lock cimport mmap_read_lock, mmap_read_unlock, mmget_not_zero
from linux.page_flags cimport (PageHWPoison, folio_get, folio_lock, folio_mapped, folio_set_dirty, folio_test_anon, folio_test_locked,
                               folio_test_swapcache, folio_trylock, folio_unlock)
from linux.pgtable cimport (mk_pte, pmd_addr_end, pmd_none, pmd_offset_mm, pmdp_get_lockless, pte_mkold, pte_offset_map,
                            pte_offset_map_lock, pte_unmap_unlock, ptep_get, set_pte_at)
from linux.rmap cimport RMAP_EXCLUSIVE, RMAP_NONE, vma_has_anon_vma
from linux.spinlock cimport backoff, mutex_lock, mutex_unlock, spin_lock, spin_lock_init, spin_unlock, spinlock_t
from linux.swap cimport SWAP_HAS_CACHE, SWAP_MAP_MAX, SWP_USED, SWP_WRITEOK, folio_swap, vm_swap_full
from linux.swapops cimport is_swap_pte, make_swap_pte, pte_swp_clear_exclusive, pte_swp_exclusive, swp_offset

from ksm.host.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE, c_mmap, c_munmap
from ksm.kernel.fork cimport mmput
from ksm.mm.page_alloc cimport folio_put
from ksm.mm.rmap cimport folio_add_anon_rmap_pte, folio_add_new_anon_rmap
from ksm.mm.swap cimport folio_add_lru
from ksm.mm.swap_state cimport delete_from_swap_cache, swap_cache_get_folio, swapin_readahead


cdef enum:
    TTRS_ANYWAY = 0x1           # reclaim it in any case
    TTRS_UNMAPPED = 0x2         # reclaim it if no process maps the page
    TTRS_FULL = 0x4             # reclaim it if the area is nearly full


# Keeping swapoff() from taking the area away

cdef swap_info_struct *get_swap_device(machine *m, unsigned long entry) noexcept nogil:
    """The area of this slot, kept until put_swap_device(); NULL if it is gone."""
    cdef swap_info_struct *si = <swap_info_struct *>smp_load_acquire_ptr((<void **>&m.swap_info)[0])
    if si == NULL or not atomic_inc_not_zero(&si.users):
        return NULL
    if entry >= si.max:
        put_swap_device(si)
        return NULL
    return si


cdef void put_swap_device(swap_info_struct *si) noexcept nogil:
    atomic_dec(&si.users)


# Slots

cdef int __try_to_reclaim_swap(machine *m, swap_info_struct *si, unsigned long offset, int flags) noexcept nogil:
    """Take the slot away from its page in memory: 1 if done, -1 if not possible now, 0 if there is no such page."""
    cdef struct_folio *folio = swap_cache_get_folio(m, offset)
    cdef int ret = -1
    if folio == NULL:
        return 0
    # The caller may hold a page lock, so this does not wait for one.
    if folio_trylock(folio):
        if ((flags & TTRS_ANYWAY or (flags & TTRS_UNMAPPED and not folio_mapped(folio)) or (flags & TTRS_FULL and vm_swap_full(si)))
                and folio_test_swapcache(folio) and folio_swap(folio) == offset
                and READ_ONCE_uint(si.swap_map[offset]) == SWAP_HAS_CACHE):
            delete_from_swap_cache(m, folio)
            folio_set_dirty(folio)      # no effect, as in folio_free_swap()
            ret = 1
        folio_unlock(folio)
    folio_put(m, folio)
    return ret


cdef unsigned long scan_swap_map_slots(machine *m, swap_info_struct *si) noexcept nogil:
    """A free slot, with SWAP_HAS_CACHE set; 0 if there is none. The search begins where the last one ended."""
    cdef unsigned long offset, _i, found = 0
    spin_lock(&si.lock)
    offset = si.cluster_next
    for _i in range(si.max - 1):
        if not si.flags & SWP_WRITEOK or si.inuse_pages == si.max - 1:
            break
        if offset >= si.max:
            offset = 1
        if si.swap_map[offset] == SWAP_HAS_CACHE and vm_swap_full(si):
            # Only the swap cache has this slot.
            spin_unlock(&si.lock)
            __try_to_reclaim_swap(m, si, offset, TTRS_ANYWAY)
            spin_lock(&si.lock)
            if not si.flags & SWP_WRITEOK:
                break
        if si.swap_map[offset] == 0:
            WRITE_ONCE_uint(si.swap_map[offset], SWAP_HAS_CACHE)
            WRITE_ONCE_ulong(si.inuse_pages, si.inuse_pages + 1)
            si.cluster_next = offset + 1
            found = offset
            break
        offset += 1
    spin_unlock(&si.lock)
    return found


cdef unsigned long folio_alloc_swap(machine *m) noexcept nogil:
    """A slot for a page that is about to join the swap cache (mm/swap_slots.c); 0 if there is none."""
    cdef swap_info_struct *si = get_swap_device(m, 0)
    cdef unsigned long entry
    if si == NULL:
        return 0
    entry = scan_swap_map_slots(m, si)
    put_swap_device(si)
    return entry


cdef void swap_entry_range_free(swap_info_struct *si, unsigned long offset) noexcept nogil:
    BUG_ON(si.swap_map[offset] != 0)
    si.zeromap[offset] = 0
    WRITE_ONCE_ulong(si.inuse_pages, si.inuse_pages - 1)


cdef unsigned int __swap_entry_free(swap_info_struct *si, unsigned long offset, unsigned int usage) noexcept nogil:
    """Count one entry fewer (usage 1), or clear the cache's bit (SWAP_HAS_CACHE). Returns what is left."""
    cdef unsigned int count
    spin_lock(&si.lock)
    count = si.swap_map[offset]
    BUG_ON(count & SWAP_HAS_CACHE == 0 if usage == SWAP_HAS_CACHE else count & ~<unsigned int>SWAP_HAS_CACHE == 0)
    count -= usage
    WRITE_ONCE_uint(si.swap_map[offset], count)
    if count == 0:
        swap_entry_range_free(si, offset)
    spin_unlock(&si.lock)
    return count


cdef void swap_free(machine *m, unsigned long entry) noexcept nogil:
    """Count one page table entry fewer that has the slot."""
    __swap_entry_free(m.swap_info, entry, 1)


cdef void put_swap_folio(machine *m, unsigned long entry) noexcept nogil:
    """Note that the swap cache does not have the slot any more."""
    __swap_entry_free(m.swap_info, entry, SWAP_HAS_CACHE)


cdef unsigned int swap_swapcount(swap_info_struct *si, unsigned long entry) noexcept nogil:
    """The number of page table entries that have the slot."""
    cdef unsigned int count
    spin_lock(&si.lock)
    count = si.swap_map[entry] & ~<unsigned int>SWAP_HAS_CACHE
    spin_unlock(&si.lock)
    return count


cdef int __swap_duplicate(swap_info_struct *si, unsigned long offset, unsigned int usage) noexcept nogil:
    cdef unsigned int count
    cdef int err = 0
    spin_lock(&si.lock)
    count = si.swap_map[offset]
    if count == 0:
        err = -ENOENT
    elif usage == SWAP_HAS_CACHE and count & SWAP_HAS_CACHE:
        err = -EEXIST
    elif usage == 1 and count & ~<unsigned int>SWAP_HAS_CACHE == SWAP_MAP_MAX:
        err = -ENOMEM
    else:
        WRITE_ONCE_uint(si.swap_map[offset], count + usage)
    spin_unlock(&si.lock)
    return err


cdef int swap_duplicate(machine *m, unsigned long entry) noexcept nogil:
    """Count one more page table entry that has the slot: 0, -ENOENT if it is free, -ENOMEM."""
    return __swap_duplicate(m.swap_info, entry, 1)


cdef int swapcache_prepare(machine *m, unsigned long entry) noexcept nogil:
    """Claim the slot for a page that is about to be read: 0, -EEXIST if another thread has claimed it, -ENOENT if the slot is free by now.
    """
    return __swap_duplicate(m.swap_info, entry, SWAP_HAS_CACHE)


cdef bint folio_free_swap(machine *m, struct_folio *folio) noexcept nogil:
    """Take a locked page out of the swap cache, and free its slot, if no entry needs the slot."""
    VM_BUG_ON(not folio_test_locked(folio))
    if not folio_test_swapcache(folio):
        return False
    if swap_swapcount(m.swap_info, folio_swap(folio)) != 0:
        return False
    delete_from_swap_cache(m, folio)
    folio_set_dirty(folio)      # the copy in the area is given up. No effect here: add_to_swap() makes each page dirty that gets a slot
    return True


cdef void free_swap_and_cache(machine *m, unsigned long entry) noexcept nogil:
    """Drop the slot of a page table entry that is unmapped. With the last such entry the page in memory is dropped, too."""
    cdef swap_info_struct *si = get_swap_device(m, entry)
    BUG_ON(si == NULL)          # an entry keeps swapoff() from finishing
    if __swap_entry_free(si, entry, 1) == SWAP_HAS_CACHE:
        __try_to_reclaim_swap(m, si, entry, TTRS_UNMAPPED | TTRS_FULL)
    put_swap_device(si)


# swapoff: every page back into memory

cdef inline bint pte_same_as_swp(pte_t pte, unsigned long entry) noexcept nogil:
    return is_swap_pte(pte) and pte_swp_clear_exclusive(pte) == make_swap_pte(entry, False)


cdef int unuse_pte(vm_area_struct *vma, pmd_t *pmd, unsigned long addr, unsigned long entry, struct_folio *folio) noexcept nogil:
    """Map the locked folio in place of the entry: 1, 0 if the entry has changed, -ENOMEM. The new entry is old and read-only."""
    cdef machine *m = vma.vm_mm.machine
    cdef struct_folio *swapcache = folio
    cdef spinlock_t *ptl = NULL
    cdef pte_t *pte
    cdef pte_t old_pte
    cdef int rmap_flags = RMAP_NONE, ret = 1
    folio = ksm_might_need_to_copy(folio, vma, addr)
    if folio == NULL:
        return -ENOMEM
    if IS_ERR(folio) or PageHWPoison(swapcache):
        return -EIO             # the kernel leaves a poisoned entry; here the swap entry stays

    pte = pte_offset_map_lock(vma.vm_mm, pmd, addr, &ptl)
    if pte == NULL or not pte_same_as_swp(ptep_get(pte), entry):
        ret = 0
    else:
        old_pte = ptep_get(pte)
        dec_mm_counter(vma.vm_mm, MM_SWAPENTS)
        inc_mm_counter(vma.vm_mm, MM_ANONPAGES)
        folio_get(folio)
        if folio == swapcache:
            if pte_swp_exclusive(old_pte):
                rmap_flags |= RMAP_EXCLUSIVE
            if not folio_test_anon(folio):
                folio_add_new_anon_rmap(folio, vma, addr, rmap_flags)
            else:
                folio_add_anon_rmap_pte(folio, folio, vma, addr, rmap_flags)
        else:                   # KSM made a copy
            folio_add_new_anon_rmap(folio, vma, addr, RMAP_EXCLUSIVE)
            folio_add_lru(m, folio)
        set_pte_at(vma.vm_mm, addr, pte, pte_mkold(mk_pte(m, folio, vma.vm_page_prot)))
        swap_free(m, entry)
    # out:
    if pte != NULL:
        pte_unmap_unlock(pte, ptl)
    if folio != swapcache:
        folio_unlock(folio)
        folio_put(m, folio)
    return ret


cdef int unuse_pte_range(vm_area_struct *vma, pmd_t *pmd, unsigned long addr, unsigned long end) noexcept nogil:
    cdef machine *m = vma.vm_mm.machine
    cdef swap_info_struct *si = m.swap_info
    cdef struct_folio *folio
    cdef unsigned long offset
    cdef pte_t *pte
    cdef pte_t ptent
    cdef int ret
    while addr < end:
        pte = pte_offset_map(pmd, addr)
        if pte == NULL:
            return 0
        ptent = ptep_get(pte)
        if is_swap_pte(ptent):
            offset = swp_offset(ptent)
            folio = swap_cache_get_folio(m, offset)
            if folio == NULL:
                folio = swapin_readahead(m, offset, vma)
            if folio == NULL:
                # The slot was freed meanwhile, or there is no memory.
                if READ_ONCE_uint(si.swap_map[offset]) != 0:
                    return -ENOMEM
            else:
                folio_lock(folio)
                ret = unuse_pte(vma, pmd, addr, offset, folio)
                if ret >= 0:
                    folio_free_swap(m, folio)
                folio_unlock(folio)
                folio_put(m, folio)
                if ret < 0:
                    return ret
        addr += PAGE_SIZE
    return 0


cdef int unuse_vma(vm_area_struct *vma) noexcept nogil:
    cdef unsigned long addr = vma.vm_start, following
    cdef pmd_t *pmd
    cdef int ret = 0
    while addr < vma.vm_end and ret == 0:
        following = pmd_addr_end(addr, vma.vm_end)
        pmd = pmd_offset_mm(vma.vm_mm, addr)
        if pmd != NULL and not pmd_none(pmdp_get_lockless(pmd)):
            ret = unuse_pte_range(vma, pmd, addr, following)
        addr = following
    return ret


cdef int unuse_mm(mm_struct *mm) noexcept nogil:
    cdef int i = 0, ret = 0
    mmap_read_lock(mm)
    while i < mm.map_count and ret == 0:
        if vma_has_anon_vma(mm.vmas[i]):
            ret = unuse_vma(mm.vmas[i])
        i += 1
    mmap_read_unlock(mm)
    return ret


cdef int try_to_unuse(machine *m) noexcept nogil:
    """Bring the pages of all slots back into memory: 0, -ENOMEM, -EINTR."""
    cdef swap_info_struct *si = m.swap_info
    cdef mm_struct *mm
    cdef mm_struct *prev_mm
    cdef list_head *p
    cdef struct_folio *folio
    cdef unsigned long i
    cdef int retval = 0, spins = 0
    while READ_ONCE_ulong(si.inuse_pages):      # retry:
        prev_mm = NULL
        spin_lock(&m.mmlist_lock)
        p = m.mmlist.next
        while READ_ONCE_ulong(si.inuse_pages) and not signal_pending(m) and p != &m.mmlist:
            mm = mm_of_mmlist(p)
            if mmget_not_zero(mm):
                # prev_mm keeps its place in the list until the loop goes on from there.
                spin_unlock(&m.mmlist_lock)
                if prev_mm != NULL:
                    mmput(prev_mm)
                prev_mm = mm
                retval = unuse_mm(mm)
                if retval:
                    mmput(prev_mm)
                    return retval
                spin_lock(&m.mmlist_lock)
            p = p.next
        spin_unlock(&m.mmlist_lock)
        if prev_mm != NULL:
            mmput(prev_mm)

        # Pages that only the swap cache has
        i = 1
        while READ_ONCE_ulong(si.inuse_pages) and not signal_pending(m) and i < si.max:
            if READ_ONCE_uint(si.swap_map[i]) != 0:
                folio = swap_cache_get_folio(m, i)
                if folio != NULL:
                    folio_lock(folio)
                    folio_free_swap(m, folio)
                    folio_unlock(folio)
                    folio_put(m, folio)
            i += 1
        # The slots that are left belong to a process that exits, or got a page before the area was closed to new pages.
        if READ_ONCE_ulong(si.inuse_pages):
            if signal_pending(m):
                return -EINTR
            backoff(&spins)
    return 0


cdef int swapoff(machine *m) noexcept nogil:
    """swapoff(2): 0, -EINVAL without an area. -ENOMEM if the pages do not fit into memory, -EINTR; the area stays in use then."""
    cdef swap_info_struct *si
    cdef int err = -EINVAL, spins = 0
    mutex_lock(&m.swapon_mutex)
    si = m.swap_info
    if si != NULL and si.flags & SWP_USED:
        spin_lock(&si.lock)
        si.flags &= ~<unsigned long>SWP_WRITEOK
        spin_unlock(&si.lock)
        err = try_to_unuse(m)
        if err:
            spin_lock(&si.lock)
            si.flags |= SWP_WRITEOK
            spin_unlock(&si.lock)
        else:
            # The thread that has freed the last slot may still hold this lock.
            spin_lock(&si.lock)
            spin_unlock(&si.lock)
            # percpu_ref_kill(): wait until no thread uses the area
            atomic_dec(&si.users)
            while smp_load_acquire_int(si.users) != 0:
                backoff(&spins)
            c_munmap(si.data, si.data_length)
            si.flags = 0
    mutex_unlock(&m.swapon_mutex)
    return err


cdef int swapon(machine *m, unsigned long nr_pages) noexcept nogil:
    """swapon(2): make an area of nr_pages pages. 0, -EBUSY if there is an area already, -EINVAL, -ENOMEM."""
    cdef swap_info_struct *si
    cdef unsigned long maxpages = nr_pages + 1, length
    cdef char *start
    cdef int err = 0
    if nr_pages == 0 or maxpages > 0xffffffffUL:
        return -EINVAL
    mutex_lock(&m.swapon_mutex)
    si = m.swap_info
    if si == NULL:
        si = <swap_info_struct *>calloc(1, sizeof(swap_info_struct))
        if si != NULL:
            spin_lock_init(&si.lock)
            spin_lock_init(&si.i_pages_lock)
            smp_store_release_ptr((<void **>&m.swap_info)[0], si)
        else:
            err = -ENOMEM
    elif si.flags & SWP_USED:
        err = -EBUSY
    if not err:
        length = (maxpages * frame_size(m) + sizeof(struct_folio *) - 1) & ~(sizeof(struct_folio *) - 1)
        si.data_length = length + maxpages * (sizeof(struct_folio *) + sizeof(unsigned int) + 1)
        start = <char *>c_mmap(NULL, si.data_length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        if start == <char *>MAP_FAILED:
            err = -ENOMEM
    if not err:
        si.data = start
        si.i_pages = <struct_folio **>(start + length)
        si.swap_map = <unsigned int *>(si.i_pages + maxpages)
        si.zeromap = <unsigned char *>(si.swap_map + maxpages)
        si.max = maxpages
        si.cluster_next = 1
        si.inuse_pages = 0
        si.flags = SWP_USED | SWP_WRITEOK
        # percpu_ref_resurrect(): from now on get_swap_device() finds the area, with all that was set above
        smp_store_release_int(si.users, 1)
    mutex_unlock(&m.swapon_mutex)
    return err


cdef void swap_exit(machine *m) noexcept nogil:
    # OURS: the machine is freed, and no entry has a slot any more.
    if m.swap_info != NULL:
        if m.swap_info.flags & SWP_USED:
            c_munmap(m.swap_info.data, m.swap_info.data_length)
        free(m.swap_info)
        m.swap_info = NULL

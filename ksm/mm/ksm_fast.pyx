# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what lets ksmd answer faster, with the same answers. See ksm_fast.pxd.
"""Looking ahead, and remembering.

Before ksmd comes to a page, ksm_look_ahead() has seen it, together with those that follow: it watches them, computes the checksums of
eight at once, and goes down the trees for all of them at once, only to have the nodes in the cache when the real walk comes. Nothing
that is found here counts, except what a page that is still watched when ksmd comes to it cannot have changed: its bytes, and where it is.
"""

from libc.stdint cimport uint64_t

from linux.atomic cimport READ_ONCE_uint, WRITE_ONCE_uint, WRITE_ONCE_ulong, atomic_read
from linux.mm cimport VM_MERGEABLE, vm_normal_page, vma_iter_init, vma_iterator, vma_next
from linux.mm_types cimport (PAGE_SHIFT, PAGE_SIZE, PMD_SIZE, machine, mm_struct, page_mask, pmd_t, pte_t, struct_folio, struct_page,
                             vm_area_struct)
from linux.mmap_lock cimport mmap_read_unlock
from linux.page_flags cimport (PG_ksm_watched, PG_swapcache, PageTransCompound, clear_page_flag, folio_raw_mapping, folio_test_anon,
                               folio_test_ksm, page_address, page_to_nid, set_page_flag, test_page_flag)
from linux.pgtable cimport pmd_offset_mm, pte_offset_map_lock, pte_present, ptep_get
from linux.rbtree cimport rb_node, rb_root
from linux.spinlock cimport down_read_trylock, spin_lock, spin_unlock, spinlock_t
from linux.types cimport u32

from ksm.lib.xxhash_many cimport xxh64_pages
from ksm.mm.ksm cimport (LOOK_AHEAD, calc_checksum, ksm_globals, ksm_rmap_item, ksm_stable_node, looked_at, struct_look_ahead)


# Watching and forgetting

cdef inline void unwatch(ksm_globals *g, struct_page *page) noexcept nogil:
    # With watch_lock
    cdef ksm_rmap_item *rmap_item
    if not test_page_flag(page, PG_ksm_watched):
        return
    clear_page_flag(page, PG_ksm_watched)
    if page.private:
        rmap_item = numbered_item(g, page.private)
        page.private = 0
        if item_key_known(rmap_item):
            WRITE_ONCE_uint(rmap_item.key, 0)


cdef void page_changed_hook(machine *m, struct_page *page) noexcept nogil:
    cdef ksm_globals *g = <ksm_globals *>m.ksm
    spin_lock(&g.watch_lock)
    unwatch(g, page)
    spin_unlock(&g.watch_lock)


cdef void page_freed_hook(struct_folio *folio) noexcept nogil:
    # The node may be freed already, should ksmd have found it stale, or be another page's: that has no key then until somebody looks.
    cdef ksm_stable_node *stable_node = <ksm_stable_node *>folio_raw_mapping(folio)
    if stable_node != NULL:
        WRITE_ONCE_ulong(stable_node.key, 0)


cdef void unwatch_range(vm_area_struct *vma, unsigned long start, unsigned long end) noexcept nogil:
    """The range will not be mergeable, or its pages not merged: mmap_lock is held."""
    cdef mm_struct *mm = vma.vm_mm
    cdef ksm_globals *g = <ksm_globals *>mm.machine.ksm
    cdef unsigned long addr = start & page_mask(), until
    cdef spinlock_t *ptl = NULL
    cdef struct_page *page
    cdef pmd_t *pmd
    cdef pte_t *pte
    if g.plain:
        return
    while addr < end:
        until = (addr + PMD_SIZE) & ~(<unsigned long>PMD_SIZE - 1)
        if until > end:
            until = end
        pmd = pmd_offset_mm(mm, addr)
        pte = pte_offset_map_lock(mm, pmd, addr, &ptl) if pmd != NULL else NULL
        if pte != NULL:
            spin_lock(&g.watch_lock)
            while addr < until:
                if pte_present(ptep_get(pte)):
                    page = vm_normal_page(vma, addr, ptep_get(pte))
                    if page != NULL:
                        unwatch(g, page)
                pte += 1
                addr += PAGE_SIZE
            spin_unlock(&g.watch_lock)
            spin_unlock(ptl)
        addr = until


cdef void link_item(ksm_globals *g, struct_page *page, ksm_rmap_item *rmap_item, unsigned long key) noexcept nogil:
    """Let the item keep the page's key, and that oldchecksum is its checksum, unless the page was changed since it was watched."""
    cdef unsigned int number = item_number(g, rmap_item)
    cdef ksm_rmap_item *other
    if number == 0:
        return
    spin_lock(&g.watch_lock)
    if test_page_flag(page, PG_ksm_watched):
        if page.private and page.private != number:
            # A fork's item
            other = numbered_item(g, page.private)
            if item_key_known(other):
                WRITE_ONCE_uint(other.key, 0)
        page.private = number
        rmap_item.key_low = <unsigned short>((key << 1) | KEY_CHECKSUM)
        WRITE_ONCE_uint(rmap_item.key, <unsigned int>(key >> 15) | KEY_KNOWN)
    else:
        WRITE_ONCE_uint(rmap_item.key, 0)
    spin_unlock(&g.watch_lock)


# What the real walk asks

cdef u32 known_checksum(ksm_globals *g, struct_page *page, ksm_rmap_item *rmap_item) noexcept nogil:
    """calc_checksum() of the item's page, which will be its oldchecksum in any case."""
    cdef looked_at *seen
    if g.plain:
        return calc_checksum(g, page)
    if page_linked(g, page, rmap_item) and rmap_item.key_low & KEY_CHECKSUM:
        return rmap_item.oldchecksum
    if g.ahead.next:
        seen = &g.ahead.pages[g.ahead.next - 1]
        if seen.page == page and seen.key and test_page_flag(page, PG_ksm_watched):
            link_item(g, page, rmap_item, seen.key & ~STABLE_KEY_KNOWN)
            return seen.checksum
    # Its key is of other bytes, or of another page.
    unlink_item(g, rmap_item)
    return calc_checksum(g, page)


cdef unsigned long scanned_key(ksm_globals *g, struct_page *page, ksm_rmap_item *rmap_item) noexcept nogil:
    """page_key() of the item's page, which need not be read for it."""
    if page_linked(g, page, rmap_item):
        return item_key(rmap_item, READ_ONCE_uint(rmap_item.key))
    return page_key(g.m, page)


# Looking ahead

cdef bint will_skip(ksm_globals *g, ksm_rmap_item *rmap_item) noexcept nogil:
    """What should_skip_rmap_item() is going to say."""
    return g.ksm_smart_scan and rmap_item.age >= 3 and rmap_item.remaining_skips != 0


cdef bint watch_table(ksm_globals *g, vm_area_struct *vma, unsigned long addr, unsigned long end, unsigned int want) noexcept nogil:
    """Watch the pages that one table maps, up to `want` of them in all. False: the next page is one that is not for us, or enough."""
    cdef struct_look_ahead *ahead = &g.ahead
    cdef mm_struct *mm = vma.vm_mm
    cdef pmd_t *pmd = pmd_offset_mm(mm, addr)
    cdef spinlock_t *ptl = NULL
    cdef struct_page *page
    cdef pte_t *ptep
    cdef pte_t pte
    cdef bint more = True
    if pmd == NULL:
        return True
    ptep = pte_offset_map_lock(mm, pmd, addr, &ptl)
    if ptep == NULL:
        # Nothing there, or a huge page: let the scan find out.
        return pmd[0] == 0
    spin_lock(&g.watch_lock)
    while addr < end:
        pte = ptep_get(ptep)
        if pte_present(pte):
            page = vm_normal_page(vma, addr, pte)
            if page != NULL and folio_test_anon(page):
                if ahead.nr == want or PageTransCompound(page) or test_page_flag(page, PG_swapcache):
                    more = False
                    break
                if not test_page_flag(page, PG_ksm_watched):
                    set_page_flag(page, PG_ksm_watched)
                ahead.pages[ahead.nr].page = page
                ahead.pages[ahead.nr].address = addr
                ahead.pages[ahead.nr].key = 0
                ahead.nr += 1
        ptep += 1
        addr += PAGE_SIZE
    spin_unlock(&g.watch_lock)
    spin_unlock(ptl)
    return more


cdef void watch_pages(ksm_globals *g, mm_struct *mm, unsigned int want) noexcept nogil:
    """Watch the pages that the scan will come to, in its order."""
    cdef vma_iterator vmi
    cdef vm_area_struct *vma
    cdef unsigned long addr, until
    cdef int tables = 4         # in a sparse range, not for long
    vma_iter_init(&vmi, mm, g.ksm_scan.address)
    vma = vma_next(&vmi)
    while vma != NULL and not (vma.vm_flags & VM_MERGEABLE and vma.anon_vma != NULL):
        vma = vma_next(&vmi)
    if vma == NULL:
        return
    addr = g.ksm_scan.address if g.ksm_scan.address > vma.vm_start else vma.vm_start
    while addr < vma.vm_end and tables:
        until = (addr + PMD_SIZE) & ~(<unsigned long>PMD_SIZE - 1)
        if until > vma.vm_end:
            until = vma.vm_end
        if not watch_table(g, vma, addr, until, want):
            break
        addr = until
        tables -= 1


cdef void read_pages(ksm_globals *g, looked_at **seen, unsigned int nr) noexcept nogil:
    """Their checksums and keys."""
    cdef const void *pages[LOOK_AHEAD]
    cdef uint64_t checksums[LOOK_AHEAD]
    cdef unsigned int i
    for i in range(nr):
        pages[i] = page_address(g.m, seen[i].page)
    xxh64_pages(pages, checksums, <int>nr)
    for i in range(nr):
        seen[i].checksum = <u32>checksums[i]
        seen[i].key = page_key(g.m, seen[i].page) | STABLE_KEY_KNOWN


cdef void warm_tree(rb_node *root, unsigned long *keys, unsigned int nr, bint stable) noexcept nogil:
    """Go down for all keys in turns, and ask for each node before it is looked at."""
    cdef rb_node *nodes[LOOK_AHEAD]
    cdef rb_node *node
    cdef unsigned int i, alive
    cdef int side
    for i in range(nr):
        nodes[i] = root
    while nr:
        alive = 0
        for i in range(nr):
            node = nodes[i]
            if stable:
                side = compare_stable_key(keys[i], <ksm_stable_node *>node)
            else:
                side = compare_key(keys[i], <ksm_rmap_item *>(<char *>node - <size_t>&(<ksm_rmap_item *>NULL).node))
            if side == 0:
                continue
            node = node.rb_left if side < 0 else node.rb_right
            if node == NULL:
                continue
            ksm_prefetch(node)
            nodes[alive] = node
            keys[alive] = keys[i]
            alive += 1
        nr = alive


cdef void warm_trees(ksm_globals *g, unsigned long *keys, int *nids, unsigned int nr) noexcept nogil:
    """For each tree the keys of its node."""
    cdef unsigned long some[LOOK_AHEAD]
    cdef unsigned int i, count
    cdef int nid
    for nid in range(g.ksm_nr_node_ids if not g.ksm_merge_across_nodes else 1):
        if g.root_stable_tree[nid].rb_node != NULL:
            count = 0
            for i in range(nr):
                if nids[i] == nid:
                    some[count] = keys[i]
                    count += 1
            warm_tree(g.root_stable_tree[nid].rb_node, some, count, True)
        if g.root_unstable_tree[nid].rb_node != NULL:
            count = 0
            for i in range(nr):
                if nids[i] == nid:
                    some[count] = keys[i]
                    count += 1
            warm_tree(g.root_unstable_tree[nid].rb_node, some, count, False)


cdef void ksm_look_ahead(ksm_globals *g, unsigned int npages) noexcept nogil:
    """Called before each page that is scanned; that, and npages more, are wanted at most."""
    cdef struct_look_ahead *ahead = &g.ahead
    cdef looked_at *unread[LOOK_AHEAD]
    cdef ksm_rmap_item *items[LOOK_AHEAD]
    cdef unsigned long keys[LOOK_AHEAD]
    cdef int nids[LOOK_AHEAD]
    cdef ksm_rmap_item *rmap_item
    cdef looked_at *seen
    cdef mm_struct *mm
    cdef unsigned int i, nr_unread = 0, nr_keys = 0

    if g.plain or ahead.next < ahead.nr:
        return
    ahead.nr = 0
    ahead.next = 0
    ahead.mm_slot = g.ksm_scan.mm_slot
    if ahead.mm_slot == &g.ksm_mm_head:
        return
    mm = ahead.mm_slot.slot.mm
    if not down_read_trylock(&mm.mmap_lock):
        return
    if atomic_read(&mm.mm_users) != 0:
        watch_pages(g, mm, npages + 1 if npages < LOOK_AHEAD else LOOK_AHEAD)
    mmap_read_unlock(mm)

    rmap_item = g.ksm_scan.rmap_list[0]
    for i in range(ahead.nr):
        seen = &ahead.pages[i]
        while rmap_item != NULL and rmap_item.address < seen.address:
            rmap_item = rmap_item.rmap_list
        items[i] = NULL
        if rmap_item != NULL and (rmap_item.address & page_mask()) == seen.address:
            items[i] = rmap_item
            ksm_prefetch(rmap_item.rmap_list)
        if folio_test_ksm(seen.page):
            ksm_prefetch(folio_raw_mapping(seen.page))
        elif items[i] != NULL and will_skip(g, items[i]):
            pass
        elif items[i] != NULL and page_linked(g, seen.page, items[i]):
            keys[nr_keys] = item_key(items[i], READ_ONCE_uint(items[i].key))
            nids[nr_keys] = 0 if g.ksm_merge_across_nodes else page_to_nid(seen.page)
            nr_keys += 1
        else:
            unread[nr_unread] = seen
            nr_unread += 1

    if nr_unread:
        read_pages(g, unread, nr_unread)
        for i in range(ahead.nr):
            seen = &ahead.pages[i]
            if seen.key and items[i] != NULL and items[i].oldchecksum == seen.checksum:
                keys[nr_keys] = seen.key & ~STABLE_KEY_KNOWN
                nids[nr_keys] = 0 if g.ksm_merge_across_nodes else page_to_nid(seen.page)
                nr_keys += 1
    if nr_keys:
        warm_trees(g, keys, nids, nr_keys)

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the look ahead at the pages that ksmd will scan next.
"""look_ahead() looks at the next pages together, before ksmd comes to them. It watches them, computes the checksums of eight at once, and
goes down the trees for all of them at once, so that the nodes are in the cache when ksmd searches. ksmd uses what was found here only for a
page that is still watched: such a page has the same bytes and the same place as before.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memcmp, memset

from linux.atomic cimport READ_ONCE_int, atomic_read, smp_load_acquire_int
from linux.highmem cimport frame_checksum, frame_size, has_bytes
from linux.mm cimport VM_MERGEABLE, vm_normal_page, vma_iter_init, vma_iterator, vma_next
from linux.mm_types cimport PAGE_SIZE, mm_struct, page_mask, pmd_t, pte_t, struct_page, vm_area_struct
from linux.mmap_lock cimport mmap_read_trylock, mmap_read_unlock
from linux.page_flags cimport (PG_ksm_watched, PG_swapcache, folio_raw_mapping, folio_test_anon, folio_test_ksm, page_address,
                               page_folio, page_to_nid, pfn_to_page, set_page_flag, test_page_flag)
from linux.pgtable cimport (entry_offset_map_lock, pmd_addr_end, pmd_offset_mm, pmdp_get_lockless, pte_offset_map, pte_pfn, pte_present,
                            pte_protnone, ptep_get)
from linux.rbtree cimport rb_node, rb_parent
from linux.rbtree_augmented cimport rb_is_red
from linux.rmap cimport vma_has_anon_vma
from linux.spinlock cimport spin_lock, spin_unlock, spinlock_t
from linux.types cimport u32

from ksm.fast.first_look cimport first_look, looked_at
from ksm.fast.page_keys cimport page_keys_in
from ksm.fast.stable_keys cimport compare_stable_key, filter_place, node_with_key, stable_trees_lack
from ksm.fast.state cimport LOOK_AHEAD, PLACE_BETWEEN, PLACE_EQUAL, PLACE_UNKNOWN, fast_state, frame_words, ksm_prefetch, scanned_page
from ksm.fast.watch cimport compare_key, item_key, item_key_known, link_item, page_linked
from ksm.fast.xxhash_many cimport xxh64_pages
from ksm.mm.ksm cimport ksm_globals, ksm_rmap_item, rmap_item_of, stable_node_of


cdef bint will_skip(ksm_globals *g, ksm_rmap_item *rmap_item) noexcept nogil:
    """What should_skip_rmap_item() will return."""
    return g.ksm_smart_scan and rmap_item.age >= 3 and rmap_item.remaining_skips != 0


# The pages, in the order in which the scan will come to them

cdef bint watch_table(fast_state *fast, vm_area_struct *vma, unsigned long addr, unsigned long end, unsigned int want,
                      bint first) noexcept nogil:
    """Watch the pages that one table maps, until `want` pages are watched in all. False if that many are watched, or if the next page is
    one that cannot be looked at ahead. A first look takes only pages that nobody watches.
    """
    cdef scanned_page *pages = fast.first if first else fast.pages
    cdef unsigned int nr = fast.nr_first if first else fast.nr
    cdef mm_struct *mm = vma.vm_mm
    cdef pmd_t *pmd = pmd_offset_mm(mm, addr)
    cdef spinlock_t *ptl = NULL
    cdef struct_page *page
    cdef scanned_page *seen
    cdef unsigned long pfn = 0
    cdef pte_t *ptep
    cdef pte_t pte
    cdef unsigned int flags
    cdef bint more = True, huge
    if pmd == NULL:
        return True
    ptep = entry_offset_map_lock(mm, addr, &ptl, &pfn)
    if ptep == NULL:
        return pmdp_get_lockless(pmd) == 0
    huge = ptep == pmd
    spin_lock(&fast.watch_lock)
    while addr < end:
        pte = ptep_get(ptep)
        if huge or pte_present(pte):
            page = pfn_to_page(fast.g.m, pfn) if huge else vm_normal_page(vma, addr, pte)
            # Only the first part of a huge page says whether it is anonymous. At a page without access, a search of 6.1 ends.
            if page != NULL and folio_test_anon(page_folio(page)):
                # When the swap cache clears its flag, it has already cleared `private`.
                flags = <unsigned int>smp_load_acquire_int((<int *>&page.flags)[0])
                if (nr == want or flags & PG_swapcache or page.private and not flags & PG_ksm_watched
                        or pte_protnone(pte) and fast.g.m.protnone_is_no_page):
                    more = False
                    break
                seen = &pages[nr]
                seen.watched_before = test_page_flag(page, PG_ksm_watched)
                if not seen.watched_before:
                    set_page_flag(page, PG_ksm_watched)
                seen.page = page
                seen.address = addr
                seen.key = 0
                seen.place = PLACE_UNKNOWN
                if not (first and seen.watched_before):
                    nr += 1
        if huge:
            pfn += 1
        else:
            ptep += 1
        addr += PAGE_SIZE
    if first:
        fast.nr_first = nr
    else:
        fast.nr = nr
    spin_unlock(&fast.watch_lock)
    spin_unlock(ptl)
    return more


cdef void watch_pages(fast_state *fast, mm_struct *mm, unsigned long addr, unsigned int want, bint first) noexcept nogil:
    """Watch up to `want` pages of one mapping, from this address on. mmap_lock is held."""
    cdef vma_iterator vmi
    cdef vm_area_struct *vma
    cdef unsigned long until
    cdef unsigned int tables = 4 + want // 128      # not more, so that a sparse range does not take long
    vma_iter_init(&vmi, mm, addr)
    vma = vma_next(&vmi)
    while vma != NULL and not (vma.vm_flags & VM_MERGEABLE and vma_has_anon_vma(vma)):
        vma = vma_next(&vmi)
    if vma == NULL:
        return
    if addr < vma.vm_start:
        addr = vma.vm_start
    while addr < vma.vm_end and tables:
        until = pmd_addr_end(addr, vma.vm_end)
        if not watch_table(fast, vma, addr, until, want, first):
            break
        addr = until
        tables -= 1


cdef void find_items(fast_state *fast, ksm_rmap_item *rmap_item) noexcept nogil:
    """Find the items that the pages have already: rmap_item, or one after it in its list."""
    cdef scanned_page *seen
    cdef unsigned int i
    for i in range(fast.nr):
        seen = &fast.pages[i]
        while rmap_item != NULL and rmap_item.address < seen.address:
            rmap_item = rmap_item.rmap_list
        seen.rmap_item = NULL
        if rmap_item != NULL and (rmap_item.address & page_mask()) == seen.address:
            seen.rmap_item = rmap_item
            ksm_prefetch(rmap_item.rmap_list)


# Keys and checksums

cdef void read_pages(fast_state *fast, scanned_page **unread, unsigned int nr) noexcept nogil:
    """Compute the checksums and keys of pages from their bytes."""
    cdef const void *pages[LOOK_AHEAD]
    cdef uint64_t checksums[LOOK_AHEAD]
    cdef uint64_t keys[LOOK_AHEAD]
    cdef unsigned int i
    for i in range(nr):
        pages[i] = page_address(fast.g.m, unread[i].page)
    if has_bytes(fast.g.m):
        xxh64_pages(pages, checksums, <int>nr)
    page_keys_in(fast.book, <const char **>pages, keys, <int>nr, frame_words(fast))
    for i in range(nr):
        unread[i].checksum = <u32>checksums[i] if has_bytes(fast.g.m) else frame_checksum(fast.g.m, unread[i].page)
        unread[i].key = keys[i]


cdef void make_keys(fast_state *fast, scanned_page **linked, unsigned int nr) noexcept nogil:
    """Compute new keys for pages whose items had a key by an old book."""
    cdef const char *pages[LOOK_AHEAD]
    cdef uint64_t keys[LOOK_AHEAD]
    cdef unsigned int i
    for i in range(nr):
        pages[i] = <const char *>page_address(fast.g.m, linked[i].page)
    page_keys_in(fast.book, pages, keys, <int>nr, frame_words(fast))
    for i in range(nr):
        link_item(fast, linked[i].page, linked[i].rmap_item, keys[i])
        linked[i].key = keys[i]
        ksm_prefetch(&fast.filter[filter_place(fast, keys[i]) >> 6])


# Places in the trees

cdef struct descent:
    scanned_page *seen
    unsigned long key
    int nid
    bint again                  # an earlier page of this look ahead has the key
    rb_node *node
    rb_node *bound[2]           # the last node that is less, and the last one that is more
    pte_t *pte                  # when bytes have to be compared: the entry of the node's page, and its bytes
    const char *bytes


cdef inline void start(fast_state *fast, descent *d, scanned_page *seen) noexcept nogil:
    d.seen = seen
    d.key = seen.key
    d.nid = 0 if fast.g.ksm_merge_across_nodes else page_to_nid(seen.page)


cdef void find_pairs(descent *all, unsigned int nr) noexcept nogil:
    """Find the pages whose key an earlier page of this look ahead has."""
    cdef unsigned char[2 * LOOK_AHEAD] places       # 0, or 1 more than the last page with such a key
    cdef unsigned int i, at
    memset(places, 0, sizeof(places))
    for i in range(nr):
        at = <unsigned int>(all[i].key * 0x9E3779B97F4A7C15UL >> 57)
        while places[at] and all[places[at] - 1].key != all[i].key:
            at = (at + 1) & (2 * LOOK_AHEAD - 1)
        all[i].again = places[at] != 0
        places[at] = <unsigned char>(i + 1)


cdef void warm_stable_tree(fast_state *fast, descent *all, unsigned int nr) noexcept nogil:
    """Go down a stable tree for all keys at once, one step each, and fetch each node before it is read."""
    cdef descent *active[LOOK_AHEAD]
    cdef descent *d
    cdef unsigned int i, alive = 0
    cdef int side
    for i in range(nr):
        d = &all[i]
        d.node = fast.g.root_stable_tree[d.nid].rb_node
        # A page with an equal in the unstable tree will be merged and put into this tree. So will one whose equal is about to get there.
        if d.node != NULL and (not stable_trees_lack(fast, d.key) or d.seen.place == PLACE_EQUAL or d.again):
            active[alive] = d
            alive += 1
    while alive:
        nr = alive
        alive = 0
        for i in range(nr):
            d = active[i]
            side = compare_stable_key(d.key, node_with_key(stable_node_of(d.node)))
            d.node = (&d.node.rb_right)[side < 0]
            if side and d.node != NULL:
                ksm_prefetch(d.node)
                active[alive] = d
                alive += 1


cdef pte_t *item_pte(mm_struct *mm, ksm_rmap_item *rmap_item) noexcept nogil:
    """The page table entry of the item's page. NULL without a table, and for an item of an address space other than mm, whose mmap_lock is
    held.
    """
    cdef pmd_t *pmd
    if rmap_item.mm != mm:
        return NULL
    pmd = pmd_offset_mm(mm, rmap_item.address)
    return pte_offset_map(pmd, rmap_item.address) if pmd != NULL else NULL


cdef inline void prefetch_sibling(rb_node *node) noexcept nogil:
    """Fetch what rb_insert_color() reads when this node gets a child: the sibling of a red node."""
    cdef rb_node *parent = rb_parent(node)
    if parent != NULL and rb_is_red(node):
        ksm_prefetch((&parent.rb_right)[parent.rb_right == node])


cdef inline bint go_down(descent *d, int side) noexcept nogil:
    """Go one step down; false at the end of the way, where the page's place is known."""
    # The side cannot be predicted, so there is no branch.
    cdef rb_node *node = d.node
    cdef int left = side < 0
    cdef rb_node *child = (&node.rb_right)[left]
    d.bound[left] = node
    if child != NULL:
        ksm_prefetch(child)
        d.node = child
        return True
    d.seen.place = PLACE_BETWEEN
    d.seen.less = d.bound[0]
    d.seen.more = d.bound[1]
    prefetch_sibling(node)
    return False


cdef void find_places(fast_state *fast, mm_struct *mm, descent *all, unsigned int nr) noexcept nogil:
    """Go down the unstable trees for all keys at once, and note where each page belongs.

    Where keys are equal, bytes are compared. The places are not used if the tree is out of order.
    """
    cdef descent *active[LOOK_AHEAD]
    cdef descent *equal[LOOK_AHEAD]
    cdef descent *d
    cdef unsigned int i, alive = 0, equals
    cdef pte_t pte
    cdef int side
    for i in range(nr):
        d = &all[i]
        d.node = fast.g.root_unstable_tree[d.nid].rb_node
        d.bound[0] = NULL
        d.bound[1] = NULL
        if d.node != NULL:
            active[alive] = d
            alive += 1
    while alive:
        nr = alive
        alive = 0
        equals = 0
        for i in range(nr):
            d = active[i]
            side = compare_key(d.key, rmap_item_of(d.node))
            if side:
                if go_down(d, side):
                    active[alive] = d
                    alive += 1
            elif item_key_known(rmap_item_of(d.node)) and not READ_ONCE_int(fast.rotten):
                d.pte = item_pte(mm, rmap_item_of(d.node))
                if d.pte != NULL:
                    ksm_prefetch(d.pte)
                    equal[equals] = d
                    equals += 1
        for i in range(equals):
            d = equal[i]
            d.bytes = NULL
            pte = ptep_get(d.pte)       # read once: the table is not locked, and the entry may change
            if pte_present(pte):
                d.bytes = fast.g.m.arena + (pte_pfn(pte) * fast.g.m.frame_size)
                ksm_prefetch(d.bytes)
                ksm_prefetch(page_address(fast.g.m, d.seen.page))
                ksm_prefetch(fast.g.m.mem_map + pte_pfn(pte))
                # If the pages are equal, this node will leave the tree.
                ksm_prefetch(d.node.rb_left)
                ksm_prefetch(d.node.rb_right)
        for i in range(equals):
            d = equal[i]
            if d.bytes == NULL:
                continue
            side = memcmp(page_address(fast.g.m, d.seen.page), d.bytes, frame_size(fast.g.m))
            fast.key_ties += side != 0
            if not side:
                d.seen.place = PLACE_EQUAL
                d.seen.less = d.node
            elif go_down(d, side):
                active[alive] = d
                alive += 1


cdef bint look_ahead(fast_state *fast, unsigned long address, ksm_rmap_item *rmap_item, unsigned int most) noexcept nogil:
    """Look at `most` pages of the scanned address space at most, from this address on. Their items are rmap_item and those after it in its
    list. False if no page can be looked at.

    For each page it finds the address, the item, the key and checksum, and the place in the unstable tree: all fields of a scanned_page.
    """
    cdef ksm_globals *g = fast.g
    cdef mm_struct *mm = g.ksm_scan.mm_slot.slot.mm
    cdef scanned_page *unread[LOOK_AHEAD]
    cdef scanned_page *unkeyed[LOOK_AHEAD]
    cdef descent down[LOOK_AHEAD]
    cdef scanned_page *seen
    cdef unsigned int i, nr_unread = 0, nr_linked = 0, nr_looked_at = 0, nr_unkeyed = 0, nr_down = 0
    cdef const char *bytes

    fast.nr = 0
    fast.next = 0
    fast.equal_page = NULL      # a page that was written to may be watched again
    fast.nr_freed = g.rmap_item_cache.nr_freed
    if not mmap_read_trylock(mm):
        return False
    if atomic_read(&mm.mm_users) != 0:
        watch_pages(fast, mm, address, most if most < LOOK_AHEAD else LOOK_AHEAD, False)
    mmap_read_unlock(mm)
    if fast.nr == 0:
        return False

    find_items(fast, rmap_item)
    for i in range(fast.nr):
        seen = &fast.pages[i]
        if folio_test_ksm(seen.page):
            ksm_prefetch(folio_raw_mapping(seen.page))
        elif seen.rmap_item != NULL and will_skip(g, seen.rmap_item):
            pass
        elif seen.rmap_item != NULL and page_linked(fast, seen.page, seen.rmap_item):
            nr_linked += 1
            seen.key = item_key(seen.rmap_item)
            seen.checksum = seen.rmap_item.oldchecksum
            if seen.key:
                ksm_prefetch(&fast.filter[filter_place(fast, seen.key) >> 6])
            else:
                bytes = <const char *>page_address(g.m, seen.page)
                ksm_prefetch(bytes)
                ksm_prefetch(bytes + 64)
                unkeyed[nr_unkeyed] = seen
                nr_unkeyed += 1
        elif looked_at(fast, seen):
            nr_looked_at += 1
        else:
            unread[nr_unread] = seen
            nr_unread += 1
    if nr_unread == LOOK_AHEAD and fast.threads > 1:
        first_look(fast, mm, seen.address + PAGE_SIZE, most - LOOK_AHEAD + fast.first_beyond)
    if nr_unkeyed:
        make_keys(fast, unkeyed, nr_unkeyed)
    if nr_unread:
        read_pages(fast, unread, nr_unread)

    # Only a page that has not changed will be searched for.
    for i in range(fast.nr if nr_unread or nr_linked or nr_looked_at else 0):
        seen = &fast.pages[i]
        if seen.key and seen.rmap_item != NULL and seen.rmap_item.oldchecksum == seen.checksum:
            start(fast, &down[nr_down], seen)
            nr_down += 1
    if nr_down:
        # mmap_lock keeps the page tables.
        if mmap_read_trylock(mm):
            if atomic_read(&mm.mm_users) != 0:
                find_places(fast, mm, down, nr_down)
            mmap_read_unlock(mm)
        find_pairs(down, nr_down)
        warm_stable_tree(fast, down, nr_down)
    return True

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what lets ksmd answer faster, with the same answers. See ksm_fast.pxd.
"""Looking ahead, and remembering.

Before ksmd comes to a page, ksm_look_ahead() has seen it, together with those that follow: it watches them, computes the checksums of
eight at once, and goes down the trees for all of them at once, only to have the nodes in the cache when the real walk comes. Nothing
that is found here counts, except what a page that is still watched when ksmd comes to it cannot have changed: its bytes, and where it is.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memcmp

from linux.atomic cimport (READ_ONCE_int, READ_ONCE_uint, READ_ONCE_ulong, WRITE_ONCE_int, WRITE_ONCE_uint, atomic_read,
                           smp_load_acquire_int, smp_mb)
from linux.mm cimport VM_MERGEABLE, vm_normal_page, vma_iter_init, vma_iterator, vma_next
from linux.mm_types cimport (PAGE_SHIFT, PAGE_SIZE, PMD_SIZE, machine, mm_struct, page_mask, pmd_t, pte_t, struct_page, vm_area_struct)
from linux.mmap_lock cimport mmap_read_unlock
from linux.page_flags cimport (PG_head, PG_ksm_watched, PG_swapcache, PG_tail, PageTransCompound, clear_page_flag, folio_raw_mapping,
                               folio_test_anon, folio_test_ksm, page_address, page_to_nid, set_page_flag, test_page_flag)
from linux.pgtable cimport pmd_offset_mm, pmdp_get_lockless, pte_offset_map, pte_offset_map_lock, pte_pfn, pte_present, ptep_get
from linux.rbtree cimport rb_node, rb_parent
from linux.rbtree_augmented cimport rb_is_red
from linux.rmap cimport vma_has_anon_vma
from linux.spinlock cimport down_read_trylock, spin_lock, spin_unlock, spinlock_t
from linux.types cimport list_head, u32

from ksm.fast.ksm_keys cimport STABLE_KEY_KNOWN, compare_stable_key, filter_place, node_with_key, page_key, stable_trees_lack
from ksm.fast.page_keys cimport PAGE_WORDS, page_keys_in
from ksm.fast.xxhash_many cimport xxh64_pages
from ksm.lib.rbtree cimport rb_next, rb_prev
from ksm.mm.ksm cimport (LOOK_AHEAD, SEQNR_MASK, UNSTABLE_FLAG, calc_checksum, ksm_globals, ksm_mm_slot,
                         ksm_rmap_item, ksm_stable_node, looked_at, struct_look_ahead)


# Watching and forgetting

cdef inline ksm_rmap_item *item_of(rb_node *node) noexcept nogil:
    return <ksm_rmap_item *>(<char *>node - <size_t>&(<ksm_rmap_item *>NULL).node)


cdef inline bint in_tree(ksm_globals *g, ksm_rmap_item *rmap_item) noexcept nogil:
    """In an unstable tree of this pass?"""
    cdef unsigned long of_this_pass = UNSTABLE_FLAG | (READ_ONCE_ulong(g.ksm_scan.seqnr) & SEQNR_MASK)
    return (READ_ONCE_ulong(rmap_item.address) & (UNSTABLE_FLAG | SEQNR_MASK)) == of_this_pass


cdef inline void forget_key(ksm_globals *g, unsigned int number) noexcept nogil:
    # With watch_lock
    cdef ksm_rmap_item *rmap_item = numbered_item(g, number)
    if item_key_known(rmap_item):
        WRITE_ONCE_uint(rmap_item.key, 0)
        smp_mb()                # tree_grows() sees that, or we see that the item is in the tree
        if in_tree(g, rmap_item) and rmap_item != g.leaving:
            WRITE_ONCE_int(g.rotten, 1)


cdef inline void unwatch(ksm_globals *g, struct_page *page) noexcept nogil:
    # With watch_lock
    if not test_page_flag(page, PG_ksm_watched):
        return
    clear_page_flag(page, PG_ksm_watched)
    if page.private:
        forget_key(g, page.private)
        WRITE_ONCE_uint(page.private, 0)


cdef void tree_grows(ksm_globals *g, ksm_rmap_item *rmap_item) noexcept nogil:
    """The item is in an unstable tree from now on."""
    smp_mb()
    if not item_key_known(rmap_item) or not item_key(rmap_item, READ_ONCE_uint(rmap_item.key)):
        WRITE_ONCE_int(g.rotten, 1)


cdef void item_leaves(ksm_globals *g, ksm_rmap_item *rmap_item) noexcept nogil:
    """Its page is going to be merged, and unwatched by that: the tree is not out of order when the key goes."""
    spin_lock(&g.watch_lock)
    g.leaving = rmap_item
    spin_unlock(&g.watch_lock)


cdef void item_left(ksm_globals *g, ksm_rmap_item *rmap_item, int err) noexcept nogil:
    """The attempt to merge the page of g.leaving is over. If it failed, the item stays where it is, perhaps without a key now."""
    spin_lock(&g.watch_lock)
    g.leaving = NULL
    spin_unlock(&g.watch_lock)
    if err and in_tree(g, rmap_item):
        tree_grows(g, rmap_item)


cdef void page_changed_hook(machine *m, struct_page *page) noexcept nogil:
    cdef ksm_globals *g = <ksm_globals *>m.ksm
    spin_lock(&g.watch_lock)
    unwatch(g, page)
    spin_unlock(&g.watch_lock)


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
    if number == 0:
        return
    spin_lock(&g.watch_lock)
    if test_page_flag(page, PG_ksm_watched):
        if page.private and page.private != number:
            forget_key(g, page.private)     # a fork's item
        WRITE_ONCE_uint(page.private, number)
        rmap_item.key_low = <unsigned short>((key << 1) | KEY_CHECKSUM)
        WRITE_ONCE_uint(rmap_item.key, <unsigned int>(key >> 15) | KEY_KNOWN)
    else:
        WRITE_ONCE_uint(rmap_item.key, 0)
    spin_unlock(&g.watch_lock)


cdef void forget_item_keys(ksm_globals *g) noexcept nogil:
    """Not that their pages are unwritten: only how these compare. The unstable trees are empty."""
    cdef list_head *pos
    cdef ksm_rmap_item *rmap_item
    cdef unsigned int nr = 0
    spin_lock(&g.ksm_mmlist_lock)
    pos = g.ksm_mm_head.slot.mm_node.next
    while pos != &g.ksm_mm_head.slot.mm_node:
        rmap_item = (<ksm_mm_slot *>(<char *>pos - <size_t>&(<ksm_mm_slot *>NULL).slot.mm_node)).rmap_list
        spin_lock(&g.watch_lock)
        while rmap_item != NULL:
            ksm_prefetch(rmap_item.rmap_list)
            if item_key_known(rmap_item):
                WRITE_ONCE_uint(rmap_item.key, KEY_KNOWN)
                rmap_item.key_low &= KEY_CHECKSUM
            rmap_item = rmap_item.rmap_list
            nr += 1
            if nr % 1024 == 0:      # nobody else changes the list, but all who write want the lock
                spin_unlock(&g.watch_lock)
                spin_lock(&g.watch_lock)
        spin_unlock(&g.watch_lock)
        pos = pos.next
    spin_unlock(&g.ksm_mmlist_lock)


# What the real walk asks

cdef u32 known_checksum(ksm_globals *g, struct_page *page, ksm_rmap_item *rmap_item) noexcept nogil:
    """calc_checksum() of the item's page, which will be its oldchecksum in any case."""
    cdef looked_at *seen
    if g.plain:
        return calc_checksum(g, page)
    if page_linked(g, page, rmap_item) and rmap_item.key_low & KEY_CHECKSUM:
        return rmap_item.oldchecksum
    if not g.ahead.next:
        # The scan has come here in its own way.
        look_from(g, rmap_item.address & page_mask(), rmap_item)
        if g.ahead.nr and g.ahead.pages[0].page == page:
            g.ahead.next = 1
        else:
            g.ahead.nr = 0
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
    cdef unsigned long key
    if not page_linked(g, page, rmap_item):
        return page_key(g, page)
    key = item_key(rmap_item, READ_ONCE_uint(rmap_item.key))
    if not key:
        key = page_key(g, page)
        link_item(g, page, rmap_item, key)
    return key


cdef bint known_place(ksm_globals *g, struct_page *page, ksm_rmap_item *rmap_item, rb_node **parent, rb_node ***new) noexcept nogil:
    """Where unstable_tree_search_insert() would come out for the item's page, or the link to its equal, if that can be said at once.

    The page was between two neighbours when it was looked at. If the first is in the tree still, the tree is in order, and the second is
    still the next one, it belongs between them, and the link between two neighbours is one. Neither can have been freed: as long as
    some of the pages that were looked at are left, the items that go lie ahead of the cursor, and are in no tree of this pass.
    """
    cdef looked_at *seen
    cdef rb_node *node
    if READ_ONCE_int(g.rotten) or not g.ahead.next:
        return False
    seen = &g.ahead.pages[g.ahead.next - 1]
    if seen.page != page or seen.place == NULL or not page_linked(g, page, rmap_item) or not in_tree(g, item_of(seen.place)):
        return False
    if seen.side == 0:
        new[0] = &seen.place
        return True
    if seen.side < 0:
        if seen.place.rb_left != NULL:
            return False
        node = rb_prev(seen.place)
    else:
        if seen.place.rb_right != NULL:
            return False
        node = rb_next(seen.place)
    if node != seen.neighbour:
        return False
    parent[0] = seen.place
    new[0] = &seen.place.rb_left if seen.side < 0 else &seen.place.rb_right
    return True


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
    cdef unsigned int flags
    cdef bint more = True
    if pmd == NULL:
        return True
    ptep = pte_offset_map_lock(mm, pmd, addr, &ptl)
    if ptep == NULL:
        # Nothing there, or a huge page: let the scan find out.
        return pmdp_get_lockless(pmd) == 0
    spin_lock(&g.watch_lock)
    while addr < end:
        pte = ptep_get(ptep)
        if pte_present(pte):
            page = vm_normal_page(vma, addr, pte)
            # Parts of huge pages are not for us; of theirs only the first says whether it is anonymous.
            if page != NULL and (PageTransCompound(page) or folio_test_anon(page)):
                # What the swap cache has put into `private` is out of there when the flag is gone.
                flags = <unsigned int>smp_load_acquire_int((<int *>&page.flags)[0])
                if ahead.nr == want or flags & (PG_head | PG_tail | PG_swapcache) or page.private and not flags & PG_ksm_watched:
                    more = False
                    break
                if g.counts_as_written:
                    unwatch(g, page)
                if not test_page_flag(page, PG_ksm_watched):
                    set_page_flag(page, PG_ksm_watched)
                ahead.pages[ahead.nr].page = page
                ahead.pages[ahead.nr].address = addr
                ahead.pages[ahead.nr].key = 0
                ahead.pages[ahead.nr].place = NULL
                ahead.nr += 1
        ptep += 1
        addr += PAGE_SIZE
    spin_unlock(&g.watch_lock)
    spin_unlock(ptl)
    return more


cdef void watch_pages(ksm_globals *g, mm_struct *mm, unsigned long addr, unsigned int want) noexcept nogil:
    """Watch the pages that the scan will come to, in its order."""
    cdef vma_iterator vmi
    cdef vm_area_struct *vma
    cdef unsigned long until
    cdef int tables = 4         # in a sparse range, not for long
    vma_iter_init(&vmi, mm, addr)
    vma = vma_next(&vmi)
    while vma != NULL and not (vma.vm_flags & VM_MERGEABLE and vma_has_anon_vma(vma)):
        vma = vma_next(&vmi)
    if vma == NULL:
        return
    if addr < vma.vm_start:
        addr = vma.vm_start
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
    cdef uint64_t keys[LOOK_AHEAD]
    cdef unsigned int i
    for i in range(nr):
        pages[i] = page_address(g.m, seen[i].page)
    xxh64_pages(pages, checksums, <int>nr)
    page_keys_in(g.book, <const char **>pages, keys, <int>nr, PAGE_WORDS)
    for i in range(nr):
        seen[i].checksum = <u32>checksums[i]
        seen[i].key = keys[i] | STABLE_KEY_KNOWN


cdef struct descent:
    looked_at *seen
    unsigned long key
    int nid
    rb_node *node
    rb_node *bound[2]           # the last node that is less, and the last one that is more
    pte_t *pte                  # of the node's page, and that page, when bytes have to be compared
    const char *bytes


cdef void warm_stable_tree(ksm_globals *g, descent *all, unsigned int nr) noexcept nogil:
    """Go down for all keys in turns, and ask for each node before it is looked at."""
    cdef descent *active[LOOK_AHEAD]
    cdef descent *d
    cdef unsigned int i, alive = 0
    cdef int side
    for i in range(nr):
        all[i].node = g.root_stable_tree[all[i].nid].rb_node
        # Who has found an equal in the unstable tree will be put in here.
        if all[i].node != NULL and (not stable_trees_lack(g, all[i].key) or all[i].seen.place != NULL and all[i].seen.side == 0):
            active[alive] = &all[i]
            alive += 1
    while alive:
        nr = alive
        alive = 0
        for i in range(nr):
            d = active[i]
            side = compare_stable_key(d.key, node_with_key(<ksm_stable_node *>d.node))
            d.node = (&d.node.rb_right)[side < 0]
            if side and d.node != NULL:
                ksm_prefetch(d.node)
                active[alive] = d
                alive += 1


cdef pte_t *item_pte(mm_struct *mm, ksm_rmap_item *rmap_item) noexcept nogil:
    """The entry of the item's page; NULL for an item of another mm than this, whose mmap_lock is held, or without a table."""
    cdef pmd_t *pmd
    if rmap_item.mm != mm:
        return NULL
    pmd = pmd_offset_mm(mm, rmap_item.address)
    return pte_offset_map(pmd, rmap_item.address) if pmd != NULL else NULL


cdef inline void prefetch_sibling(rb_node *node) noexcept nogil:
    """What rb_insert_color() looks at when a child of this node comes: if the node is red, the node beside it."""
    cdef rb_node *parent = rb_parent(node)
    if parent != NULL and rb_is_red(node):
        ksm_prefetch((&parent.rb_right)[parent.rb_right == node])


cdef inline bint go_down(descent *d, int side) noexcept nogil:
    """One step; false at the end of the way, and seen.place is known."""
    # Which side it is, nobody can foretell: so without a branch.
    cdef rb_node *node = d.node
    cdef int left = side < 0
    cdef rb_node *child = (&node.rb_right)[left]
    d.bound[left] = node
    if child != NULL:
        ksm_prefetch(child)
        d.node = child
        return True
    d.seen.place = node
    d.seen.side = side
    d.seen.neighbour = d.bound[not left]
    prefetch_sibling(node)
    return False


cdef void find_places(ksm_globals *g, mm_struct *mm, descent *all, unsigned int nr) noexcept nogil:
    """The same in the unstable trees, with an eye on where the ways end.

    Where keys are equal, bytes are compared. In a tree that is not in order nobody asks for the place.
    """
    cdef descent *active[LOOK_AHEAD]
    cdef descent *equal[LOOK_AHEAD]
    cdef descent *d
    cdef unsigned int i, alive = 0, equals
    cdef pte_t pte
    cdef int side
    for i in range(nr):
        d = &all[i]
        d.node = g.root_unstable_tree[d.nid].rb_node
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
            side = compare_key(d.key, item_of(d.node))
            if side:
                if go_down(d, side):
                    active[alive] = d
                    alive += 1
            elif item_key_known(item_of(d.node)) and not READ_ONCE_int(g.rotten):
                d.pte = item_pte(mm, item_of(d.node))
                if d.pte != NULL:
                    ksm_prefetch(d.pte)
                    equal[equals] = d
                    equals += 1
        for i in range(equals):
            d = equal[i]
            d.bytes = NULL
            pte = ptep_get(d.pte)       # once: without its lock it may change
            if pte_present(pte):
                d.bytes = g.m.arena + (pte_pfn(pte) << PAGE_SHIFT)
                ksm_prefetch(d.bytes)
                ksm_prefetch(page_address(g.m, d.seen.page))
                ksm_prefetch(g.m.mem_map + pte_pfn(pte))
                # If they are equal, this node will leave the tree.
                ksm_prefetch(d.node.rb_left)
                ksm_prefetch(d.node.rb_right)
        for i in range(equals):
            d = equal[i]
            if d.bytes == NULL:
                continue
            side = memcmp(page_address(g.m, d.seen.page), d.bytes, PAGE_SIZE)
            g.key_ties += side != 0
            if not side:
                d.seen.place = d.node
                d.seen.side = 0
            elif go_down(d, side):
                active[alive] = d
                alive += 1


cdef void make_keys(ksm_globals *g, descent *all, unsigned int nr, ksm_rmap_item **items) noexcept nogil:
    """For pages that are linked and have a key of an old book; items are those of the pages looked at."""
    cdef const char *pages[LOOK_AHEAD]
    cdef uint64_t keys[LOOK_AHEAD]
    cdef descent *d
    cdef unsigned int i, made = 0
    for i in range(nr):
        if not all[i].key:
            pages[made] = <const char *>page_address(g.m, all[i].seen.page)
            made += 1
    page_keys_in(g.book, pages, keys, <int>made, PAGE_WORDS)
    made = 0
    for i in range(nr):
        d = &all[i]
        if not d.key:
            d.key = keys[made]
            made += 1
            link_item(g, d.seen.page, items[d.seen - g.ahead.pages], d.key)
            ksm_prefetch(&g.stable_filter[filter_place(g, d.key) >> 6])


cdef void look_from(ksm_globals *g, unsigned long address, ksm_rmap_item *rmap_item) noexcept nogil:
    """Look at the pages from this address on; rmap_item and those after it in its list are theirs."""
    cdef struct_look_ahead *ahead = &g.ahead
    cdef looked_at *unread[LOOK_AHEAD]
    cdef ksm_rmap_item *items[LOOK_AHEAD]
    cdef descent down[LOOK_AHEAD]
    cdef looked_at *seen
    cdef mm_struct *mm
    cdef unsigned int i, nr_unread = 0, nr_unkeyed = 0, nr_keys = 0
    cdef const char *bytes

    ahead.nr = 0
    ahead.next = 0
    ahead.mm_slot = g.ksm_scan.mm_slot
    mm = ahead.mm_slot.slot.mm
    if not down_read_trylock(&mm.mmap_lock):
        return
    if atomic_read(&mm.mm_users) != 0:
        watch_pages(g, mm, address, ahead.most)
    mmap_read_unlock(mm)

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
            down[nr_keys].seen = seen
            down[nr_keys].key = item_key(items[i], READ_ONCE_uint(items[i].key))
            if down[nr_keys].key:
                ksm_prefetch(&g.stable_filter[filter_place(g, down[nr_keys].key) >> 6])
            else:
                bytes = <const char *>page_address(g.m, seen.page)
                ksm_prefetch(bytes)
                ksm_prefetch(bytes + 64)
                nr_unkeyed += 1
            down[nr_keys].nid = 0 if g.ksm_merge_across_nodes else page_to_nid(seen.page)
            nr_keys += 1
        else:
            unread[nr_unread] = seen
            nr_unread += 1

    if nr_unkeyed:
        make_keys(g, down, nr_keys, items)
    if nr_unread:
        read_pages(g, unread, nr_unread)
        for i in range(ahead.nr):
            seen = &ahead.pages[i]
            if seen.key and items[i] != NULL and items[i].oldchecksum == seen.checksum:
                down[nr_keys].seen = seen
                down[nr_keys].key = seen.key & ~STABLE_KEY_KNOWN
                down[nr_keys].nid = 0 if g.ksm_merge_across_nodes else page_to_nid(seen.page)
                nr_keys += 1
    if nr_keys:
        # Under the lock, page tables stay.
        if down_read_trylock(&mm.mmap_lock):
            if atomic_read(&mm.mm_users) != 0:
                find_places(g, mm, down, nr_keys)
            mmap_read_unlock(mm)
        warm_stable_tree(g, down, nr_keys)


cdef void ksm_look_ahead(ksm_globals *g, unsigned int npages) noexcept nogil:
    """Called before each page that is scanned; that, and npages more, are wanted at most."""
    cdef struct_look_ahead *ahead = &g.ahead
    g.equal_page = NULL
    if g.plain or ahead.next < ahead.nr:
        return
    ahead.nr = 0
    ahead.next = 0
    ahead.most = npages + 1 if npages < LOOK_AHEAD else LOOK_AHEAD
    # Where a pass begins is not known yet.
    if g.ksm_scan.mm_slot != &g.ksm_mm_head:
        look_from(g, g.ksm_scan.address, g.ksm_scan.rmap_list[0])

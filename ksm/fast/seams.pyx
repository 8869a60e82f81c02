# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the seams between ksm/mm/ksm.pyx and the speed layer. See seams.pxd.

from libc.errno cimport ENOMEM
from libc.stdlib cimport calloc, free

from linux.atomic cimport READ_ONCE_int, WRITE_ONCE_int, data_race_ptr, smp_mb
from linux.list cimport list_empty
from linux.mm_types cimport PAGE_SIZE, ksm_fast_operations, machine, page_mask, struct_page
from linux.page_flags cimport PG_ksm_watched, folio_raw_mapping, folio_test_ksm, page_folio, test_page_flag
from linux.rbtree cimport rb_node, rb_parent
from linux.spinlock cimport spin_lock, spin_lock_init, spin_unlock
from linux.types cimport u32

from ksm.fast.first_look cimport first_look_exit, first_look_init
from ksm.fast.look_ahead cimport look_ahead
from ksm.fast.page_keys cimport key_book, key_book_free
from ksm.fast.samples cimport look_at_book
from ksm.fast.stable_keys cimport (compare_stable_key, node_freed, node_inserted, page_freed, page_key, stable_key_is, stable_key_known,
                                   stable_keys_exit, stable_keys_init, stable_trees_lack, tidy_stable_keys)
from ksm.fast.seams cimport watched_still
from ksm.fast.state cimport PLACE_EQUAL, PLACE_UNKNOWN, fast_of, fast_state, scanned_page
from ksm.fast.watch cimport (compare_key, forget_all_pages, forget_item_keys, in_tree, item_key_known, link_item, page_changed,
                             page_linked, range_changed)
from ksm.lib.rbtree cimport rb_next, rb_prev
from ksm.mm.ksm cimport (get_next_rmap_item, ksm_globals, ksm_rmap_item, ksm_stable_node, rmap_item_of,
                         scan_get_next_rmap_item, should_skip_rmap_item, stable_node_of)
from ksm.mm.page_alloc cimport folio_put
from ksm.mm.util cimport memcmp_bytes


cdef ksm_fast_operations fast_ops
fast_ops.page_changed = page_changed
fast_ops.range_changed = range_changed
fast_ops.page_freed = page_freed
fast_ops.memcmp_pages = memcmp_pages_by_keys
fast_ops.pages_identical = pages_found_identical


cdef int fast_init(ksm_globals *g, unsigned int threads) noexcept nogil:
    """Start the speed layer, before the machine has a process: 0 or -ENOMEM. `threads` threads compute checksums."""
    cdef fast_state *fast = <fast_state *>calloc(1, sizeof(fast_state))
    if fast == NULL or first_look_init(fast, threads) or stable_keys_init(fast):
        if fast != NULL:
            first_look_exit(fast)
        free(fast)
        return -ENOMEM
    fast.g = g
    fast.now = &fast.alone
    spin_lock_init(&fast.watch_lock)
    # A thread that takes a key away may do so after the item or node was freed.
    g.rmap_item_cache.typesafe = True
    g.stable_node_cache.typesafe = True
    g.stable_node_cache.freed = node_freed
    g.stable_node_cache.freed_arg = fast
    g.fast = fast
    g.m.fast_ops = &fast_ops
    return 0


cdef void fast_exit(ksm_globals *g) noexcept nogil:
    """Free the speed layer, with the machine."""
    cdef fast_state *fast = fast_of(g)
    if fast == NULL:
        return
    g.m.fast_ops = NULL
    g.fast = NULL
    g.stable_node_cache.freed = NULL
    first_look_exit(fast)
    stable_keys_exit(fast)
    key_book_free(fast.book)
    free(fast)


cdef void fast_distrust(ksm_globals *g) noexcept nogil:
    """For ksm bench: forget all pages, and let the next pass treat its unstable trees as out of order."""
    if g.fast != NULL:
        fast_of(g).distrust = True
        forget_all_pages(fast_of(g))


# The next page

cdef void begin_pass(fast_state *fast) noexcept nogil:
    """Begin a pass. The items that are left in the unstable trees no longer count."""
    cdef key_book *book
    fast.nr_first = 0
    fast.next_first = 0
    spin_lock(&fast.watch_lock)
    WRITE_ONCE_int(fast.rotten, fast.distrust)
    fast.distrust = False
    spin_unlock(&fast.watch_lock)
    if fast.g.ksm_rmap_items == 0 and fast.g.rmap_item_cache.nr_freed:
        forget_all_pages(fast)  # run=2 has freed the items without telling the speed layer
    book = look_at_book(fast)
    if book != NULL:
        key_book_free(fast.book)
        fast.book = book
        forget_item_keys(fast)
    tidy_stable_keys(fast, book != NULL)


cdef inline void check_order(fast_state *fast, ksm_rmap_item *rmap_item) noexcept nogil:
    if rmap_item != NULL and in_tree(fast, rmap_item):
        smp_mb()                # a thread that takes the key away sees the item in the tree, or this thread sees that the key is gone
        if not item_key_known(rmap_item):
            WRITE_ONCE_int(fast.rotten, 1)


cdef void settle(fast_state *fast) noexcept nogil:
    """Find out what has become of the last page."""
    cdef ksm_rmap_item *leaving = fast.leaving
    fast.unsettled = False
    check_order(fast, fast.now.rmap_item)       # it may have been put into a tree
    if leaving != NULL:                         # or merged with this item's page; if that failed, this item is still in the tree
        spin_lock(&fast.watch_lock)
        fast.leaving = NULL                     # first: from now on a thread that takes its key away sets `rotten` itself
        spin_unlock(&fast.watch_lock)
        check_order(fast, leaving)
    if fast.inserted != NULL:
        node_inserted(fast, fast.inserted, fast.key)
        fast.inserted = NULL


cdef ksm_rmap_item *next_known_item(ksm_globals *g, struct_page **page, unsigned int scan_npages) noexcept nogil:
    cdef fast_state *fast = fast_of(g)
    cdef ksm_rmap_item *rmap_item
    cdef scanned_page *seen
    if fast.unsettled:
        settle(fast)
    if fast.next == fast.nr and g.ksm_scan.mm_slot != &g.ksm_mm_head:
        look_ahead(fast, g.ksm_scan.address, g.ksm_scan.rmap_list[0], scan_npages + 1)
    while fast.next < fast.nr:
        seen = &fast.pages[fast.next]
        if not watched_still(fast, seen):
            break
        g.ksm_scan.address = seen.address
        rmap_item = g.ksm_scan.rmap_list[0]
        # get_next_rmap_item() would answer the same item, if it is this page's.
        if rmap_item == NULL or (rmap_item.address & page_mask()) != seen.address:
            rmap_item = get_next_rmap_item(g, g.ksm_scan.mm_slot, g.ksm_scan.rmap_list, seen.address)
        if rmap_item == NULL:
            folio_put(g.m, page_folio(seen.page))
            fast.nr = 0
            fast.next = 0
            return NULL
        g.ksm_scan.rmap_list = &rmap_item.rmap_list
        g.ksm_scan.address += PAGE_SIZE
        fast.next += 1
        if not (g.ksm_smart_scan and should_skip_rmap_item(g, seen.page, rmap_item)):
            seen.rmap_item = rmap_item
            fast.now = seen
            page[0] = seen.page
            return rmap_item
        folio_put(g.m, page_folio(seen.page))
    return first_item(fast, page, scan_npages)


cdef ksm_rmap_item *first_item(fast_state *fast, struct_page **page, unsigned int scan_npages) noexcept nogil:
    """Find the next item as the kernel does, and look ahead from its page on."""
    cdef ksm_globals *g = fast.g
    cdef ksm_rmap_item *rmap_item
    fast.nr = 0
    fast.next = 0
    if g.ksm_scan.mm_slot == &g.ksm_mm_head and not list_empty(&g.ksm_mm_head.slot.mm_node):
        begin_pass(fast)
    rmap_item = scan_get_next_rmap_item(g, page)
    if rmap_item == NULL:
        return NULL
    if look_ahead(fast, rmap_item.address & page_mask(), rmap_item, scan_npages + 1) and fast.pages[0].page == page[0]:
        fast.now = &fast.pages[0]
        fast.now.rmap_item = rmap_item
        fast.next = 1
    else:
        fast.nr = 0
        fast.now = &fast.alone
        fast.alone.page = page[0]
        fast.alone.rmap_item = rmap_item
    return rmap_item


cdef bint checksum_of(ksm_globals *g, struct_page *page, u32 *checksum) noexcept nogil:
    # The item is in no tree and at no stable node now, so it can have the key.
    cdef fast_state *fast = fast_of(g)
    cdef scanned_page *now = fast.now
    if page != now.page or not now.key or not page_linked(fast, page, now.rmap_item) and not link_item(fast, page, now.rmap_item, now.key):
        return False
    checksum[0] = now.checksum
    return True


# Searching

cdef inline unsigned long key_of(fast_state *fast, struct_page *page) noexcept nogil:
    if page == fast.now.page and fast.now.key and test_page_flag(page, PG_ksm_watched):
        return fast.now.key
    return page_key(fast, page)


cdef bint stable_tree_go_down(ksm_globals *g, struct_page *page, rb_node **parent, rb_node ***new) noexcept nogil:
    cdef fast_state *fast = fast_of(g)
    cdef rb_node **link = new[0]
    cdef int side
    if parent[0] == NULL:
        fast.key = key_of(fast, page)
        if not folio_test_ksm(page):
            if stable_trees_lack(fast, fast.key):
                return False
        elif folio_raw_mapping(page) == NULL:
            fast.inserted = page
            fast.unsettled = True
    while link[0] != NULL:
        side = compare_stable_key(fast.key, stable_node_of(link[0]))
        if not side:
            break
        parent[0] = link[0]
        link = &parent[0].rb_left if side < 0 else &parent[0].rb_right
    new[0] = link
    return link[0] != NULL


cdef bint known_place(fast_state *fast, struct_page *page, rb_node **parent, rb_node ***new) noexcept nogil:
    """Set *new to the end of the search, or to the link of the page's equal, if the look ahead has found it. False if not.

    The look ahead has found an equal item, or two neighbours with the page between them. The place holds if these are still in the tree, if
    the tree is in order, and if no item has come between the neighbours. Of the two links between neighbours one is free.
    """
    cdef scanned_page *now = fast.now
    cdef rb_node *less = now.less
    cdef rb_node *more = now.more
    if (now.place == PLACE_UNKNOWN or READ_ONCE_int(fast.rotten) or fast.nr_freed != fast.g.rmap_item_cache.nr_freed
            or not page_linked(fast, page, now.rmap_item)):
        return False
    if less != NULL and not in_tree(fast, rmap_item_of(less)):
        return False
    if now.place == PLACE_EQUAL:
        parent[0] = rb_parent(less)
        if parent[0] != NULL:
            new[0] = &parent[0].rb_left if parent[0].rb_left == less else &parent[0].rb_right
        fast.at_equal = True
        return True
    if more != NULL and not in_tree(fast, rmap_item_of(more)):
        return False
    if less != NULL and less.rb_right == NULL:
        if rb_next(less) != more:
            return False
        parent[0] = less
        new[0] = &less.rb_right
    else:
        if more == NULL or more.rb_left != NULL or rb_prev(more) != less:
            return False
        parent[0] = more
        new[0] = &more.rb_left
    return True


cdef bint unstable_tree_go_down(ksm_globals *g, struct_page *page, rb_node **parent, rb_node ***new) noexcept nogil:
    cdef fast_state *fast = fast_of(g)
    cdef rb_node **link
    cdef int side
    cdef bint known = False
    if parent[0] == NULL:
        fast.key = key_of(fast, page)
        fast.at_equal = False
        known = page == fast.now.page and known_place(fast, page, parent, new)
    link = new[0]
    while link[0] != NULL and not known:
        side = compare_key(fast.key, rmap_item_of(link[0]))
        if not side:
            break
        parent[0] = link[0]
        link = &parent[0].rb_left if side < 0 else &parent[0].rb_right
    new[0] = link
    if link[0] != NULL:
        fast.tree_item = rmap_item_of(link[0])
        return True
    fast.unsettled = True
    if not page_linked(fast, page, fast.now.rmap_item):
        WRITE_ONCE_int(fast.rotten, 1)
    return False


# Comparing

cdef int memcmp_pages_by_keys(machine *m, struct_page *page, struct_page *tree_page) noexcept nogil:
    """memcmp_pages() for the current search. An equal page is remembered."""
    cdef fast_state *fast = fast_of(<ksm_globals *>m.ksm)
    cdef ksm_stable_node *stable_node = NULL
    cdef int ret = 0
    if folio_test_ksm(tree_page):
        stable_node = <ksm_stable_node *>folio_raw_mapping(tree_page)
    if stable_node != NULL:
        ret = compare_stable_key(fast.key, stable_node)     # the key of a dup: a chain has none
        if ret:
            return ret
    if stable_node != NULL or not fast.at_equal or not page_linked(fast, tree_page, fast.tree_item):
        ret = memcmp_bytes(m, page, tree_page)
    fast.at_equal = False       # only the first node of the search is the known equal
    if stable_node != NULL and not stable_key_known(stable_node):
        stable_key_is(fast, stable_node, page_key(fast, tree_page))
    if not ret:
        fast.equal_page = page
        fast.equal_other = tree_page
        fast.equal_stable = stable_node != NULL
        if stable_node == NULL:
            # The tree item will leave the tree. Its page will be unwatched before that, which must not count as disorder.
            fast.unsettled = True
            spin_lock(&fast.watch_lock)
            fast.leaving = fast.tree_item
            spin_unlock(&fast.watch_lock)
    return ret


cdef bint pages_found_identical(machine *m, struct_page *page, struct_page *kpage) noexcept nogil:
    """Whether two write-protected pages are known to be equal. A page that is still watched has not been written to since it was compared,
    and a merged page never is.
    """
    # A thread that splits a huge page may ask here, too, for the zero page, and reads what ksmd is writing. The zero page is no tree page,
    # so the value is false.
    cdef fast_state *fast = fast_of(<ksm_globals *>m.ksm)
    cdef struct_page *equal_page = <struct_page *>data_race_ptr(<void **>&fast.equal_page)
    cdef struct_page *equal_other = <struct_page *>data_race_ptr(<void **>&fast.equal_other)
    if page == equal_page and kpage == equal_other and fast.equal_stable:
        return test_page_flag(page, PG_ksm_watched)
    return (page == equal_other and kpage == equal_page and not fast.equal_stable
            and test_page_flag(page, PG_ksm_watched) and test_page_flag(kpage, PG_ksm_watched))

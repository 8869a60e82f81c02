# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the seams between ksm/mm/ksm.pyx and the speed layer.
"""The seams. ksm.pyx asks the speed layer here, in one line each, and gets the kernel's result:

    the next page to scan                                   scan_ahead()
    the way down a tree, to a node that has to be looked at stable_tree_descend(), unstable_tree_descend()
    how the page compares with a tree page                  memcmp_pages() and pages_identical() of ksm/mm/util.pxd
    its checksum                                            known_checksum()
    a dup that a search need not look at                    passes_over()

Only a machine without the speed layer is recorded step by step (ksm/step.pxd). In it the seams tell a recording what they are asked. What
is decided of each page is the same with the speed layer, and ksm.pyx tells it in both (ksm/record/decisions.pyx).

ksm_page_changed() and ksm_range_changed() of include/linux/ksm.pxd make the speed layer forget a page. Built with KSM_STUB=1, the module
remembers nothing: tests/fast/seams_stub.pyx.
"""

from linux.atomic cimport atomic_read
from linux.highmem cimport frame_checksum, has_bytes
from linux.mm_types cimport PAGE_SIZE, page_mask, struct_folio, struct_page
from linux.page_flags cimport PG_ksm_watched, folio_try_get, page_folio, test_page_flag
from linux.rbtree cimport rb_node
from linux.types cimport u32

from ksm.fast.stable_keys cimport stable_key_known
from ksm.fast.state cimport fast_of, fast_state, scanned_page
from ksm.fast.watch cimport page_linked
from ksm.mm.ksm cimport ksm_globals, ksm_rmap_item, ksm_stable_node, scan_get_next_rmap_item
from ksm.mm.page_alloc cimport folio_put
from ksm.step cimport STEP_NEXT, STEP_PASS_ENDS, ksm_step


cdef int fast_init(ksm_globals *g, unsigned int threads) noexcept nogil
cdef void fast_exit(ksm_globals *g) noexcept nogil
cdef void fast_distrust(ksm_globals *g) noexcept nogil
cdef ksm_rmap_item *next_known_item(ksm_globals *g, struct_page **page, unsigned int scan_npages) noexcept nogil
cdef bint stable_tree_go_down(ksm_globals *g, struct_page *page, rb_node **parent, rb_node ***new) noexcept nogil
cdef bint unstable_tree_go_down(ksm_globals *g, struct_page *page, rb_node **parent, rb_node ***new) noexcept nogil
cdef bint checksum_of(ksm_globals *g, struct_page *page, u32 *checksum) noexcept nogil


cdef inline bint watched_still(fast_state *fast, scanned_page *seen) noexcept nogil:
    """Take a reference on a page that was looked at ahead, if it is still watched. False if it is not, or if the process exits."""
    # A part of a huge page that is still watched is still a part of it: a split unmaps it first.
    cdef struct_folio *folio = page_folio(seen.page)
    if atomic_read(&fast.g.ksm_scan.mm_slot.slot.mm.mm_users) == 0 or not folio_try_get(folio):
        return False
    if test_page_flag(seen.page, PG_ksm_watched):
        return True
    folio_put(fast.g.m, folio)
    return False


cdef inline ksm_rmap_item *scan_ahead(ksm_globals *g, struct_page **page, unsigned int scan_npages) noexcept nogil:
    """scan_get_next_rmap_item(), with a look ahead at the pages that follow: scan_npages more are wanted at most."""
    cdef fast_state *fast = fast_of(g)
    cdef ksm_rmap_item *rmap_item
    cdef scanned_page *seen
    cdef unsigned long seqnr = g.ksm_scan.seqnr
    if fast == NULL:
        rmap_item = scan_get_next_rmap_item(g, page)
        if rmap_item != NULL:
            ksm_step(g.m, STEP_NEXT, rmap_item, page[0], NULL, 0)
        elif g.ksm_scan.seqnr != seqnr:
            ksm_step(g.m, STEP_PASS_ENDS, NULL, NULL, NULL, <long>g.ksm_scan.seqnr)
        return rmap_item
    if fast.next < fast.nr and not fast.unsettled and not g.ksm_smart_scan:
        # The last page needs no settle(), and this page has an item. This is most of a pass over merged pages.
        seen = &fast.pages[fast.next]
        rmap_item = g.ksm_scan.rmap_list[0]
        if rmap_item != NULL and (rmap_item.address & page_mask()) == seen.address and watched_still(fast, seen):
            g.ksm_scan.rmap_list = &rmap_item.rmap_list
            g.ksm_scan.address = seen.address + PAGE_SIZE
            fast.next += 1
            seen.rmap_item = rmap_item
            fast.now = seen
            page[0] = seen.page
            return rmap_item
    return next_known_item(g, page, scan_npages)


cdef inline bint stable_tree_descend(ksm_globals *g, struct_page *page, rb_node **parent, rb_node ***new) noexcept nogil:
    """Go down a stable tree for as many steps as need no look at a node's page, and read `*new`. A search begins with *parent NULL, at the
    root. True if a node is at `*new`.
    """
    cdef bint at_node = new[0][0] != NULL if g.fast == NULL else stable_tree_go_down(g, page, parent, new)
    g.search_at = new[0]
    return at_node


cdef inline bint unstable_tree_descend(ksm_globals *g, struct_page *page, rb_node **parent, rb_node ***new) noexcept nogil:
    """The same in an unstable tree. At the end of the way the page's rmap_item is put into the tree."""
    cdef bint at_node = new[0][0] != NULL if g.fast == NULL else unstable_tree_go_down(g, page, parent, new)
    g.search_at = new[0]
    return at_node


cdef inline bint known_checksum(ksm_globals *g, struct_page *page, u32 *checksum) noexcept nogil:
    """What calc_checksum() would say; false if that is not known. It is going to be the rmap_item's oldchecksum, too."""
    cdef fast_state *fast = fast_of(g)
    if fast != NULL:
        if page == fast.now.page and fast.now.key and page_linked(fast, page, fast.now.rmap_item):
            checksum[0] = fast.now.checksum     # unwritten since the last pass: nothing is left to do
            return True
        if checksum_of(g, page, checksum):
            return True
    if has_bytes(g.m):
        return False
    checksum[0] = frame_checksum(g.m, page)
    return True


cdef inline bint passes_over(ksm_globals *g, ksm_stable_node *found, ksm_stable_node *dup) noexcept nogil:
    """Whether stable_node_dup() passes over this dup: another dup was found, this one is full, and its page lives, so that it need not be
    dropped.
    """
    return g.fast != NULL and found != NULL and dup.rmap_hlist_len >= g.ksm_max_page_sharing and stable_key_known(dup)

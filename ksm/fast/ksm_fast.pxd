# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what lets ksmd answer faster, with the same answers.
"""What ksmd remembers of pages. ksm/mm/ksm.pyx asks here first, and does as the kernel does when nothing is known.

A watched page (PG_ksm_watched) was neither written to nor unmapped anywhere, and its vma stayed mergeable, since ksmd set the flag. It is
set under the lock of the page's table, by ksm_look_ahead() alone, and whoever ends what it says clears it, by ksm_page_changed():
a store, a debugger's write, folio_remove_rmap_pte(), the swap cache, unmerge_ksm_pages(), which mremap() calls, too.

A page that is watched can have a link to one rmap_item: `private` has the item's number. As long as the link is there, the item's page
table entry maps this page, whose bytes are those that ksmd saw. So the item can keep the page's key (ksm_keys.pyx), 46 bits in the room
that struct ksm_rmap_item leaves. A walk of the tree compares keys, and comes to the page itself, its table and its locks only where
they are equal, or one is not known. KEY_CHECKSUM says that oldchecksum is the checksum of these very bytes. A key of zeros is that of a
page that is linked, and whose key is to be made by another book now.

watch_lock guards the flag, `private` and KEY_KNOWN of items. An item may be freed, or used again, while a page still has its number:
then either KEY_KNOWN is not set and nothing happens when the link is cut, or another page's key is forgotten, which costs time only.
Slabs of items stay as long as the machine. Whoever stores into anon_vma, which lies over the key, cuts the link first.

As long as every item in the unstable tree has a key (`rotten` is not set), nothing in the tree was written to since it was put in, so
the tree is in order, and a page that is watched still belongs where the look ahead has found that it does, between two neighbours.

Two pages are compared once: see still_equal().
"""

from linux.atomic cimport READ_ONCE_uint, WRITE_ONCE_uint
from linux.mm_types cimport machine, struct_page, vm_area_struct
from linux.page_flags cimport PG_ksm_watched, test_page_flag
from linux.rbtree cimport rb_node
from linux.spinlock cimport spin_lock, spin_unlock
from linux.types cimport u32

from ksm.mm.ksm cimport ksm_globals, ksm_rmap_item


cdef extern from *:
    """
    #define ksm_prefetch(p) __builtin_prefetch(p)
    """
    void ksm_prefetch(const void *p) noexcept nogil


cdef enum:
    KEY_CHECKSUM = 1            # of key_low
# Of ksm_rmap_item.key: the upper half of a pointer, which may lie there, never has it.
cdef extern from *:
    const unsigned int KEY_KNOWN "0x80000000U"


# Items

cdef inline unsigned int item_number(ksm_globals *g, ksm_rmap_item *rmap_item) noexcept nogil:
    """For struct page: not 0; 0 for an item too far away to have a number."""
    cdef long distance = (<char *>rmap_item - g.first_item) >> 6
    if not -0x7fffffff <= distance <= 0x7fffffff:
        return 0
    return <unsigned int>(distance + 0x80000000L)


cdef inline ksm_rmap_item *numbered_item(ksm_globals *g, unsigned int number) noexcept nogil:
    return <ksm_rmap_item *>(g.first_item + ((<long>number - 0x80000000L) << 6))


cdef inline bint item_key_known(ksm_rmap_item *rmap_item) noexcept nogil:
    return (READ_ONCE_uint(rmap_item.key) & KEY_KNOWN) != 0


cdef inline unsigned long item_key(ksm_rmap_item *rmap_item, unsigned int key) noexcept nogil:
    return (<unsigned long>(key & ~KEY_KNOWN) << 15) | (rmap_item.key_low >> 1)


cdef inline bint page_linked(ksm_globals *g, struct_page *page, ksm_rmap_item *rmap_item) noexcept nogil:
    """Is this the item's page, and unwritten?"""
    return (item_key_known(rmap_item) and test_page_flag(page, PG_ksm_watched)
            and READ_ONCE_uint(page.private) == item_number(g, rmap_item))


cdef inline void unlink_item(ksm_globals *g, ksm_rmap_item *rmap_item) noexcept nogil:
    """The item is freed, or becomes a stable node's. Its page may go on bearing its number."""
    if item_key_known(rmap_item):
        spin_lock(&g.watch_lock)
        WRITE_ONCE_uint(rmap_item.key, 0)
        spin_unlock(&g.watch_lock)


cdef inline int compare_key(unsigned long key, ksm_rmap_item *tree_rmap_item) noexcept nogil:
    """The sign of memcmp_pages(page, tree_page) for a page with this key; 0 where only that can tell."""
    cdef unsigned int known = READ_ONCE_uint(tree_rmap_item.key)
    cdef unsigned long other
    if not known & KEY_KNOWN:
        return 0
    other = item_key(tree_rmap_item, known)
    return (key > other) - (key < other) if other else 0


# Pages found equal

cdef inline void remember_equal(ksm_globals *g, struct_page *page, struct_page *other, bint stable) noexcept nogil:
    g.equal_page = page
    g.equal_other = other
    g.equal_stable = stable


cdef inline bint still_equal(ksm_globals *g, struct_page *page, struct_page *kpage) noexcept nogil:
    """Both are write-protected. A page that is still watched has not been written to since it was compared; a merged one never is."""
    if g.counts_as_written:
        return False
    if page == g.equal_page and kpage == g.equal_other and g.equal_stable:
        return test_page_flag(page, PG_ksm_watched)
    return (page == g.equal_other and kpage == g.equal_page and not g.equal_stable
            and test_page_flag(page, PG_ksm_watched) and test_page_flag(kpage, PG_ksm_watched))


cdef bint known_place(ksm_globals *g, struct_page *page, ksm_rmap_item *rmap_item, rb_node **parent, rb_node ***new) noexcept nogil
cdef void item_leaves(ksm_globals *g, ksm_rmap_item *rmap_item) noexcept nogil
cdef void item_left(ksm_globals *g, ksm_rmap_item *rmap_item, int err) noexcept nogil
cdef void tree_grows(ksm_globals *g, ksm_rmap_item *rmap_item) noexcept nogil
cdef unsigned long scanned_key(ksm_globals *g, struct_page *page, ksm_rmap_item *rmap_item) noexcept nogil
cdef u32 known_checksum(ksm_globals *g, struct_page *page, ksm_rmap_item *rmap_item) noexcept nogil
cdef void ksm_look_ahead(ksm_globals *g, unsigned int npages) noexcept nogil
cdef void unwatch_range(vm_area_struct *vma, unsigned long start, unsigned long end) noexcept nogil
cdef void page_changed_hook(machine *m, struct_page *page) noexcept nogil
cdef void forget_item_keys(ksm_globals *g) noexcept nogil

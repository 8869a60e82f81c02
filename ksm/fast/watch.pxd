# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: pages that ksmd need not read again, because nobody has written to them.
"""Watched pages, and the keys that rmap_items keep of them.

A watched page (PG_ksm_watched) was neither written to nor unmapped anywhere, and its vma stayed mergeable, since ksmd set the flag. The
flag is set under the lock of the page's table, by look_ahead.pyx alone. Whoever ends what it says clears it: ksm_page_changed() and
ksm_range_changed() of include/linux/ksm.pxd.

A watched page can have a link to one rmap_item: `private` has the item's number. As long as the link is there, the item's page table entry
maps this page, whose bytes are those that ksmd saw; oldchecksum is their checksum. So the item can keep the page's key (stable_keys.pxd),
46 bits in the room that struct ksm_rmap_item leaves. A walk of the tree compares keys, and comes to the page itself, its table and its
locks only where two keys are equal, or one is not known. An item whose key is 0 has a link, and its key has yet to be made by a new book.

watch_lock guards the flag and `private`. Under it somebody else than ksmd may take the key of an item away, which is the one word of an
item that others write; they exchange it for 0 if it is still what they saw. An item may be freed, or used again, while a page still has
its number: then either there is no key, or another page's key goes, which costs time only. Slabs of items stay as long as the machine.
anon_vma lies over the key, and no pointer looks like a key that is known.

As long as every item in the unstable trees has a key (`rotten` is not set), nothing in them was written to since it was put in, so the
trees are in order, and a watched page still belongs where the look ahead has found that it does.
"""

from linux.atomic cimport data_race_uint, data_race_ulong
from linux.mm_types cimport machine, struct_page, vm_area_struct
from linux.page_flags cimport PG_ksm_watched, test_page_flag
from linux.atomic cimport READ_ONCE_uint

from ksm.fast.state cimport fast_state
from ksm.mm.ksm cimport SEQNR_MASK, UNSTABLE_FLAG, ksm_rmap_item


# Of ksm_rmap_item.key: the upper half of a pointer, which may lie there, never has it.
cdef extern from *:
    const unsigned int KEY_KNOWN "0x80000000U"


cdef inline unsigned int item_number(fast_state *fast, ksm_rmap_item *rmap_item) noexcept nogil:
    """For struct page: not 0; 0 for an item too far away to have a number."""
    cdef long distance = (<char *>rmap_item - fast.first_item) >> 6
    if not -0x7fffffff <= distance <= 0x7fffffff:
        return 0
    return <unsigned int>(distance + 0x80000000L)


cdef inline ksm_rmap_item *numbered_item(fast_state *fast, unsigned int number) noexcept nogil:
    return <ksm_rmap_item *>(fast.first_item + ((<long>number - 0x80000000L) << 6))


cdef inline bint item_key_known(ksm_rmap_item *rmap_item) noexcept nogil:
    return (data_race_uint(&rmap_item.key) & KEY_KNOWN) != 0


cdef inline unsigned long key_from(unsigned int known, unsigned short low) noexcept nogil:
    return <unsigned long>(known & ~KEY_KNOWN) << 16 | low


cdef inline unsigned long item_key(ksm_rmap_item *rmap_item) noexcept nogil:
    return key_from(data_race_uint(&rmap_item.key), rmap_item.key_low)


cdef inline bint page_linked(fast_state *fast, struct_page *page, ksm_rmap_item *rmap_item) noexcept nogil:
    """Is this the item's page, and unwritten?"""
    return (item_key_known(rmap_item) and test_page_flag(page, PG_ksm_watched)
            and READ_ONCE_uint(page.private) == item_number(fast, rmap_item))


cdef inline int compare_key(unsigned long key, ksm_rmap_item *tree_rmap_item) noexcept nogil:
    """The sign of memcmp_pages(page, tree_page) for a page with this key; 0 where only that can tell."""
    cdef unsigned int known = data_race_uint(&tree_rmap_item.key)
    cdef unsigned long other
    if not known & KEY_KNOWN:
        return 0
    other = key_from(known, tree_rmap_item.key_low)
    return (key > other) - (key < other) if other else 0


cdef inline bint in_tree(fast_state *fast, ksm_rmap_item *rmap_item) noexcept nogil:
    """In an unstable tree of this pass?"""
    cdef unsigned long of_this_pass = UNSTABLE_FLAG | (data_race_ulong(&fast.g.ksm_scan.seqnr) & SEQNR_MASK)
    return (data_race_ulong(&rmap_item.address) & (UNSTABLE_FLAG | SEQNR_MASK)) == of_this_pass


cdef bint link_item(fast_state *fast, struct_page *page, ksm_rmap_item *rmap_item, unsigned long key) noexcept nogil
cdef void unwatch(fast_state *fast, struct_page *page) noexcept nogil
cdef void forget_item_keys(fast_state *fast) noexcept nogil
cdef void forget_all_pages(fast_state *fast) noexcept nogil
cdef void page_changed(machine *m, struct_page *page) noexcept nogil
cdef void range_changed(vm_area_struct *vma, unsigned long start, unsigned long end) noexcept nogil

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: pages that ksmd need not read again, because they were not written to.
"""Watched pages, and the keys that rmap_items keep of them.

A watched page (PG_ksm_watched) was neither written to nor unmapped anywhere, and its vma stayed mergeable, since ksmd set the flag. Only
look_ahead.pyx sets the flag, with the page's table locked. A thread that is about to change this clears the flag by ksm_page_changed() or
ksm_range_changed() of include/linux/ksm.pxd.

A watched page can be linked to one rmap_item: `private` has the item's number. As long as the link is there, the item's page table entry
maps this page, the page has the bytes that ksmd saw, and oldchecksum is their checksum. So the item can keep the page's key
(stable_keys.pxd), 46 bits in the room that struct ksm_rmap_item leaves. A search in a tree compares keys. It reads the page, its table and
its locks only where two keys are equal, or one is not known. A linked item may have the known key 0: its key was made with an old book, and
the look ahead has to make a new one.

watch_lock guards the flag and `private`. With it, a thread other than ksmd may take the key of an item away. This is the only word of an
item that other threads write. They exchange it for 0 if it is still the key that they read. An item may be freed, or used again, while a
page still has its number. Then there is no key to take, or the key of another page is taken, which costs time only. The memory of items is
kept as long as the machine. anon_vma lies over the key, and no pointer looks like a known key.

As long as every item in the unstable trees has a key (`rotten` is not set), no page in them was written to since it was put in. Then the
trees are in order, and a watched page still belongs where the look ahead has found that it belongs.
"""

from linux.atomic cimport data_race_uint, data_race_ulong
from linux.mm_types cimport machine, struct_page, vm_area_struct
from linux.page_flags cimport PG_ksm_watched, test_page_flag
from linux.atomic cimport READ_ONCE_uint

from ksm.fast.state cimport fast_state
from ksm.mm.ksm cimport SEQNR_MASK, UNSTABLE_FLAG, ksm_rmap_item


# A bit of ksm_rmap_item.key. A pointer may lie there, and its upper half never has this bit.
cdef extern from *:
    const unsigned int KEY_KNOWN "0x80000000U"


cdef inline unsigned int item_number(fast_state *fast, ksm_rmap_item *rmap_item) noexcept nogil:
    """The number of an item for page.private; 0 for an item that is too far away to have one."""
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
    """Whether the page is linked to this item, and so was not written to."""
    return (item_key_known(rmap_item) and test_page_flag(page, PG_ksm_watched)
            and READ_ONCE_uint(page.private) == item_number(fast, rmap_item))


cdef inline int compare_key(unsigned long key, ksm_rmap_item *tree_rmap_item) noexcept nogil:
    """The sign of memcmp_pages(page, tree_page) for a page with this key; 0 if only memcmp_pages() can tell."""
    cdef unsigned int known = data_race_uint(&tree_rmap_item.key)
    cdef unsigned long other
    if not known & KEY_KNOWN:
        return 0
    other = key_from(known, tree_rmap_item.key_low)
    return (key > other) - (key < other) if other else 0


cdef inline bint in_tree(fast_state *fast, ksm_rmap_item *rmap_item) noexcept nogil:
    """Whether the item is in an unstable tree of this pass."""
    cdef unsigned long of_this_pass = UNSTABLE_FLAG | (data_race_ulong(&fast.g.ksm_scan.seqnr) & SEQNR_MASK)
    return (data_race_ulong(&rmap_item.address) & (UNSTABLE_FLAG | SEQNR_MASK)) == of_this_pass


cdef bint link_item(fast_state *fast, struct_page *page, ksm_rmap_item *rmap_item, unsigned long key) noexcept nogil
cdef void unwatch(fast_state *fast, struct_page *page) noexcept nogil
cdef void forget_item_keys(fast_state *fast) noexcept nogil
cdef void forget_all_pages(fast_state *fast) noexcept nogil
cdef void page_changed(machine *m, struct_page *page) noexcept nogil
cdef void range_changed(vm_area_struct *vma, unsigned long start, unsigned long end) noexcept nogil

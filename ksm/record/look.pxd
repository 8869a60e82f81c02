# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recording what KSM does.
"""What a recorder sees, as a row of numbers: of each object its kind, its address or number, and VALUES values."""

from linux.mm_types cimport machine, mm_struct, struct_page

from ksm.mm.ksm cimport ksm_globals, ksm_rmap_item


cdef enum what:
    COUNTER                     # number, value
    ROOT                        # tree (0 stable, 1 unstable), NUMA node, object at the root
    LINK                        # object, parent, left, right, red
    NODE                        # place, frame, rmap_hlist_len, nid, chain, position in it
    ITEM                        # mm, page number, place, object or nid, checksum, age | remaining skips << 8
    PTE                         # mm, page number, frame or swap slot, bits
    FRAME                       # frame, mapcount, references, contents, bits
    CURSOR                      # mm, page number, seqnr
    MM                          # mm, rmap_items, merging pages, registered
    BYTES                       # of the scanned page and of the one that it is compared with, where they differ; gone at the next step
    CONTENT                     # the bytes of a page; never in a recording, where FRAME has their number
    NR_KINDS


cdef enum:
    VALUES = 6
    # Places
    NODE_IN_TREE = 0
    NODE_IN_CHAIN = 1
    NODE_MIGRATING = 2
    NODE_CHAIN = 3
    ITEM_VOLATILE = 0
    ITEM_UNSTABLE = 1
    ITEM_STABLE = 2
    ITEM_STALE = 3              # of the last pass's unstable tree
    # Bits of an entry of a page table, and of a frame, beside those of a page table's words up to PAGE_SWAPPED
    BIT_WRITE = 64
    BIT_EXCLUSIVE = 128
    BIT_HUGE = 256


cdef struct longs:
    long *a
    size_t n, room
    bint no_memory              # a number could not be appended


cdef bint put(longs *row, long value) noexcept nogil
cdef void saw(longs *seen, int kind, unsigned long key, long a, long b, long c, long d, long e, long f) noexcept nogil
cdef void look_at_item(longs *seen, ksm_globals *g, ksm_rmap_item *item, int which) noexcept nogil
cdef void look_at_ksm(longs *seen, ksm_globals *g, int which, bint in_pass) noexcept nogil
cdef bint look_at_mms(longs *seen, machine *m, bint wait, mm_struct *held) noexcept nogil
cdef struct_page *page_of(machine *m, ksm_rmap_item *item) noexcept nogil

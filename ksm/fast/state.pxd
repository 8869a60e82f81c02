# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the state of the speed layer.
"""What ksmd remembers, one set for each machine: ksm_globals.fast. It is NULL in a plain machine.

Only the scanning thread writes here, with ksm_thread_mutex held, except where a comment says otherwise.
"""

from linux.mm_types cimport mm_struct, struct_page
from linux.rbtree cimport rb_node
from linux.spinlock cimport spinlock_t
from linux.types cimport u32

from ksm.fast.page_keys cimport key_book
from ksm.mm.ksm cimport ksm_globals, ksm_rmap_item, ksm_stable_node


cdef enum:
    LOOK_AHEAD = 64
    KNOWN_CHAINS = 16

# Where a page belongs in its unstable tree
cdef enum place_kind:
    PLACE_UNKNOWN
    PLACE_EQUAL                 # at `less`, which is its equal
    PLACE_BETWEEN               # between the neighbours `less` and `more`; one is NULL at an end of the tree


# A page that is scanned now or soon. The fields hold as long as the page is watched (watch.pxd).
cdef struct scanned_page:
    struct_page *page
    unsigned long address
    ksm_rmap_item *rmap_item    # NULL if the page has none yet
    unsigned long key           # its key (stable_keys.pxd); 0: not known
    u32 checksum                # its checksum, if the key is known
    bint watched_before         # it was watched already when the look ahead came to it
    int place
    rb_node *less
    rb_node *more


# A search leads past the chain only if its key is between `below` and `above`.
cdef struct known_chain:
    ksm_stable_node *chain
    unsigned long below
    unsigned long above


cdef struct fast_state:
    ksm_globals *g

    # Watched pages: watch.pyx. Every thread takes watch_lock to change this.
    spinlock_t watch_lock       # guards PG_ksm_watched, `private` of watched pages, and taking keys of items away
    int rotten                  # an item in the unstable trees has no key: the trees may be out of order
    ksm_rmap_item *leaving      # an item that is about to leave the unstable tree, because its page is being merged
    char *first_item            # the item from which the others are numbered

    # The page that is scanned now, and the next ones: look_ahead.pyx
    scanned_page *now
    scanned_page alone          # a page that was not looked at ahead
    scanned_page pages[LOOK_AHEAD]
    unsigned int nr
    unsigned int next           # the first page that ksmd has not visited
    unsigned long nr_freed      # number of rmap_items freed before the look ahead

    # What several threads have read of the pages behind the look ahead: first_look.pyx
    unsigned int threads
    unsigned int first_least    # pages that are worth threads
    unsigned int first_beyond   # for tests: pages behind the last one of this scan that are read, too
    scanned_page *first         # address, page, checksum and key; page is NULL if they do not hold any more
    void *readers
    mm_struct *first_mm
    unsigned int nr_first
    unsigned int next_first     # the first one that the look ahead has not come to
    unsigned long pages_read    # by threads, and how many of these the look ahead has taken
    unsigned long pages_known

    # The current search: seams.pyx
    unsigned long key           # the key of the page that is searched for
    ksm_rmap_item *tree_item    # the item that the search in an unstable tree has come to
    bint at_equal               # tree_item is the equal that the look ahead has found
    struct_page *equal_page     # equal_page and equal_other: the last two pages found equal
    struct_page *equal_other
    bint equal_stable           # equal_other was merged already
    struct_page *inserted       # a merged page that is getting a stable node
    bint unsettled              # settle() has to find out what became of the last page

    # Stable nodes and their keys: stable_keys.pyx
    long stable_keyed           # nodes with a key. Atomic, because any thread that frees a page takes the key of its node away
    unsigned long *filter       # a bit for each key that a stable node has or had, by hash
    unsigned int filter_bits    # the filter has 1 << this many bits
    unsigned long filter_set    # keys put in
    known_chain chains[KNOWN_CHAINS]
    unsigned int nr_chains      # number of known chains; if it is not ksm_stable_node_chains, some are missing
    bint chains_moved           # the bounds in `chains` may be out of date

    # The book with which keys are made: samples.pyx
    key_book *book              # NULL: keys are made without a book
    unsigned long book_pages    # mergeable pages when the book was last checked
    unsigned int book_wait      # passes until ties can cause another check
    unsigned long key_ties      # pairs of different pages with the same key in this pass
    bint distrust               # for ksm bench: the next pass treats its trees as out of order


cdef extern from *:
    """
    #define ksm_prefetch(p) __builtin_prefetch(p)
    """
    void ksm_prefetch(const void *p) noexcept nogil


cdef inline int frame_words(fast_state *fast) noexcept nogil:
    """Words of 8 bytes in a frame, from which its key is made."""
    return <int>(fast.g.m.frame_size // 8)


cdef inline fast_state *fast_of(ksm_globals *g) noexcept nogil:
    return <fast_state *>g.fast

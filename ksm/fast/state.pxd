# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what lets ksmd answer faster, with the same answers.
"""What ksmd remembers, one set a machine: ksm_globals.fast. NULL in a machine that scans as the kernel does.

ksmd writes here, holding ksm_thread_mutex, except where it says otherwise.
"""

from linux.mm_types cimport struct_page
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
    PLACE_EQUAL                 # where `less` is, which is its equal
    PLACE_BETWEEN               # between `less` and `more`, which are neighbours; NULL: at an end


# A page that is scanned, or will be soon. What it says holds as long as the page is watched (watch.pxd).
cdef struct scanned_page:
    struct_page *page
    unsigned long address
    ksm_rmap_item *rmap_item    # NULL as long as there is none
    unsigned long key           # how its bytes compare (stable_keys.pxd); 0: not known
    u32 checksum                # of its bytes, where the key is known
    int place
    rb_node *less
    rb_node *more


# A search whose key is not between these two does not come past the chain.
cdef struct known_chain:
    ksm_stable_node *chain
    unsigned long below
    unsigned long above


cdef struct fast_state:
    ksm_globals *g

    # Pages that are watched: watch.pyx. Under watch_lock, whoever it is.
    spinlock_t watch_lock       # PG_ksm_watched, `private` of such pages, and that keys of items go
    int rotten                  # an item in the unstable trees has no key: the trees may be out of order
    ksm_rmap_item *leaving      # it is about to leave them, because its page is being merged
    char *first_item            # from which the numbers of items are counted

    # The page that is scanned, and those that come next: look_ahead.pyx
    scanned_page *now
    scanned_page alone          # one that was not looked at ahead
    scanned_page pages[LOOK_AHEAD]
    unsigned int nr
    unsigned int next           # the first that was not visited
    unsigned long nr_freed      # rmap_items, when they were looked at

    # The search that is under way: seams.pyx
    unsigned long key           # of the page that is searched for
    ksm_rmap_item *tree_item    # which the search in an unstable tree has come to
    bint at_equal               # and it is in the place that was known
    struct_page *equal_page     # the last two pages that were found equal,
    struct_page *equal_other
    bint equal_stable           # of which the other one was merged already
    struct_page *inserted       # a merged page that is getting a stable node
    bint unsettled              # what became of the last page has to be looked at: settle()

    # Stable nodes and their keys: stable_keys.pyx
    long stable_keyed           # nodes with a key. Atomic: whoever frees a page takes its node's key away
    unsigned long *filter       # a bit for each key that a stable node has or had, by hash
    unsigned int filter_bits    # 1 << that many bits
    unsigned long filter_set    # how many keys went in
    known_chain chains[KNOWN_CHAINS]
    unsigned int nr_chains      # in there; if that is not ksm_stable_node_chains, some are missing
    bint chains_moved           # perhaps: the tree is not what it was

    # The book that keys are made by: samples.pyx
    key_book *book              # NULL: they are made without one
    unsigned long book_pages    # how many there were when it was last looked at
    unsigned int book_wait      # passes until it may be looked at again
    unsigned long key_ties      # how often, in this pass, two keys were the same and the pages were not
    bint distrust               # for ksm bench: the next pass takes its trees for rotten


cdef extern from *:
    """
    #define ksm_prefetch(p) __builtin_prefetch(p)
    """
    void ksm_prefetch(const void *p) noexcept nogil


cdef inline fast_state *fast_of(ksm_globals *g) noexcept nogil:
    return <fast_state *>g.fast

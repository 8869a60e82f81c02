# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the keys by which ksmd compares pages without reading them.
"""The keys of pages, and of stable nodes. page_keys.pyx says how a key is made, watch.pxd how items keep theirs.

All keys in use are made with one book, fast_state.book.

The key of a stable node holds as long as its page lives, because nobody writes to the page. Freeing the page clears the key, so that
ksm_get_folio() finds the stale node when the kernel would. A chain has no key. The filter has the keys of all nodes, and perhaps of nodes
that are gone. If every node but the chains has a key, and the filter lacks a page's key, no search would find an equal of the page, so the
search is left out. The search must not lead past a chain, where it might have to prune. If there are few chains, it is known which keys
lead to them.
"""

from linux.atomic cimport READ_ONCE_ulong, WRITE_ONCE_ulong, atomic_long_inc, atomic_long_read
from linux.mm_types cimport machine, struct_folio, struct_page
from linux.page_flags cimport page_address

from ksm.fast.page_keys cimport page_key_in
from ksm.fast.state cimport KNOWN_CHAINS, fast_state, frame_words
from ksm.mm.ksm cimport STABLE_NODE_CHAIN, ksm_stable_node, stable_node_of_dup


cdef extern from *:
    const unsigned long STABLE_KEY_KNOWN "0x8000000000000000UL"


cdef inline unsigned long page_key(fast_state *fast, const struct_page *page) noexcept nogil:
    """The key of a page. Two keys that differ order their pages as memcmp_pages() would. It is never 0."""
    return page_key_in(fast.book, <const char *>page_address(fast.g.m, page), frame_words(fast))


# Stable nodes

cdef inline int compare_stable_key(unsigned long key, ksm_stable_node *stable_node) noexcept nogil:
    """The sign of memcmp_pages() for a page with this key and the node's page. 0 if only memcmp_pages() can tell, and for a chain."""
    cdef unsigned long known = READ_ONCE_ulong(stable_node.key)
    if not known & STABLE_KEY_KNOWN:
        return 0
    known &= ~STABLE_KEY_KNOWN
    return (key > known) - (key < known)


cdef inline ksm_stable_node *node_with_key(ksm_stable_node *stable_node) noexcept nogil:
    """The node that has the key: the node itself, or a chain's first dup, since all dups have the same key. An empty chain is returned
    itself, and has no key.
    """
    if stable_node.rmap_hlist_len == STABLE_NODE_CHAIN and stable_node.hlist.first != NULL:
        return stable_node_of_dup(stable_node.hlist.first)
    return stable_node


cdef inline bint stable_key_known(ksm_stable_node *stable_node) noexcept nogil:
    """Whether the node has a key. If it has one, its page lives."""
    return (READ_ONCE_ulong(stable_node.key) & STABLE_KEY_KNOWN) != 0


# The filter

cdef inline unsigned long filter_place(fast_state *fast, unsigned long key) noexcept nogil:
    return (key * 0x9E3779B97F4A7C15UL) >> (64 - fast.filter_bits)


cdef inline void filter_add(fast_state *fast, unsigned long key) noexcept nogil:
    cdef unsigned long place = filter_place(fast, key)
    fast.filter[place >> 6] |= <unsigned long>1 << (place & 63)
    fast.filter_set += 1


cdef inline void stable_key_is(fast_state *fast, ksm_stable_node *stable_node, unsigned long key) noexcept nogil:
    """Set the key of a node. The caller has a reference on the node's page."""
    if not READ_ONCE_ulong(stable_node.key):
        filter_add(fast, key)
        WRITE_ONCE_ulong(stable_node.key, key | STABLE_KEY_KNOWN)
        atomic_long_inc(&fast.stable_keyed)
        fast.chains_moved = True


cdef inline bint stable_trees_lack(fast_state *fast, unsigned long key) noexcept nogil:
    """Whether a search for a page with this key would find nothing and change nothing. This is so if each node has a key, and none has this
    one.
    """
    cdef unsigned long place
    cdef unsigned int i
    if fast.g.stable_node_cache.nr_objects - atomic_long_read(&fast.stable_keyed) != fast.nr_chains:
        return False
    place = filter_place(fast, key)
    if fast.filter[place >> 6] >> (place & 63) & 1:
        return False
    if fast.nr_chains:
        if fast.nr_chains != fast.g.ksm_stable_node_chains or fast.g.m.nr_node_ids > 1:
            return False
        if fast.chains_moved:
            find_chains(fast)
        for i in range(fast.nr_chains):
            if fast.chains[i].below < key < fast.chains[i].above:
                return False
    return True


cdef int stable_keys_init(fast_state *fast) noexcept nogil
cdef void stable_keys_exit(fast_state *fast) noexcept nogil
cdef void find_chains(fast_state *fast) noexcept nogil
cdef void tidy_stable_keys(fast_state *fast, bint new_book) noexcept nogil
cdef void node_inserted(fast_state *fast, struct_page *page, unsigned long key) noexcept nogil
cdef void node_freed(void *fast, void *stable_node) noexcept nogil
cdef void page_freed(machine *m, struct_folio *folio) noexcept nogil

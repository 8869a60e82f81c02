# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the keys by which ksmd compares pages without reading them.
"""The keys of pages, and of stable nodes. ksm/fast/page_keys.pyx says how a key is made, ksm_fast.pxd how items keep theirs.

All keys in use are made by one book, ksm_globals.book. A pass begins with a look at it: if there is much more memory than when it was
made, or too many keys were the same, it is made anew from samples of all pages, should that tell more of them apart.

The key of a stable node holds as long as its page lives: nobody writes to it. Freeing the page clears it, so that ksm_get_folio() finds
the stale node when the kernel would. A chain has none. As long as each other node has one, and the filter says that no node ever had
the key of a page, a search for it would go from key to key and find nothing, so there is none. It must not come past a chain, where it
might have to prune: where there are few chains, it is known which keys lead there.
"""

from linux.atomic cimport READ_ONCE_ulong, WRITE_ONCE_ulong, atomic_long_dec, atomic_long_inc, atomic_long_read, xchg_ulong
from linux.mm_types cimport machine, struct_folio, struct_page
from linux.page_flags cimport page_address

from ksm.fast.page_keys cimport PAGE_WORDS, page_key_in
from ksm.mm.ksm cimport KNOWN_CHAINS, STABLE_NODE_CHAIN, ksm_globals, ksm_stable_node


cdef extern from *:
    const unsigned long STABLE_KEY_KNOWN "0x8000000000000000UL"


cdef inline unsigned long page_key(ksm_globals *g, const struct_page *page) noexcept nogil:
    """Two keys that differ order their pages as memcmp_pages() would. Not 0."""
    return page_key_in(g.book, <const char *>page_address(g.m, page), PAGE_WORDS)


# Stable nodes

cdef inline int compare_stable_key(unsigned long key, ksm_stable_node *stable_node) noexcept nogil:
    """The same for the page of a node that is no chain."""
    cdef unsigned long known = READ_ONCE_ulong(stable_node.key)
    if not known & STABLE_KEY_KNOWN:
        return 0
    known &= ~STABLE_KEY_KNOWN
    return (key > known) - (key < known)


cdef inline ksm_stable_node *node_with_key(ksm_stable_node *stable_node) noexcept nogil:
    """The node itself; of a chain the first dup, for all have the same key; of an empty chain the chain, which has none."""
    if stable_node.rmap_hlist_len == STABLE_NODE_CHAIN and stable_node.hlist.first != NULL:
        return <ksm_stable_node *>(<char *>stable_node.hlist.first - <size_t>&(<ksm_stable_node *>NULL).hlist_dup)
    return stable_node


cdef inline bint stable_key_known(ksm_stable_node *stable_node) noexcept nogil:
    """Then its page lives, too."""
    return (READ_ONCE_ulong(stable_node.key) & STABLE_KEY_KNOWN) != 0


cdef inline void stable_key_unknown(ksm_globals *g, ksm_stable_node *stable_node) noexcept nogil:
    """A new node, whatever lay there before."""
    WRITE_ONCE_ulong(stable_node.key, 0)
    atomic_long_inc(&g.stable_unkeyed)
    g.chains_moved = True


cdef inline void chain_made(ksm_globals *g, ksm_stable_node *chain) noexcept nogil:
    if g.nr_chains < KNOWN_CHAINS:
        g.chains[g.nr_chains].chain = chain
        g.nr_chains += 1


cdef inline void forget_stable_key(ksm_globals *g, ksm_stable_node *stable_node, bint is_chain) noexcept nogil:
    """The node goes."""
    cdef unsigned int i
    g.chains_moved = True
    if is_chain:
        for i in range(g.nr_chains):
            if g.chains[i].chain == stable_node:
                g.nr_chains -= 1
                g.chains[i] = g.chains[g.nr_chains]
                break
    if not xchg_ulong(&stable_node.key, 0) & STABLE_KEY_KNOWN:
        atomic_long_dec(&g.stable_unkeyed)


# The filter

cdef inline unsigned long filter_place(ksm_globals *g, unsigned long key) noexcept nogil:
    return (key * 0x9E3779B97F4A7C15UL) >> (64 - g.stable_filter_bits)


cdef inline void filter_add(ksm_globals *g, unsigned long key) noexcept nogil:
    cdef unsigned long place = filter_place(g, key)
    g.stable_filter[place >> 6] |= <unsigned long>1 << (place & 63)
    g.stable_filter_set += 1


cdef inline void stable_key_is(ksm_globals *g, ksm_stable_node *stable_node, unsigned long key) noexcept nogil:
    """The caller has a reference on the node's page, whose key that is."""
    if not g.plain and not READ_ONCE_ulong(stable_node.key):
        filter_add(g, key)
        WRITE_ONCE_ulong(stable_node.key, key | STABLE_KEY_KNOWN)
        atomic_long_dec(&g.stable_unkeyed)
        g.chains_moved = True


cdef inline void set_stable_key(ksm_globals *g, ksm_stable_node *stable_node, struct_page *page) noexcept nogil:
    if not g.plain and not READ_ONCE_ulong(stable_node.key):
        stable_key_is(g, stable_node, page_key(g, page))


cdef inline bint stable_trees_lack(ksm_globals *g, unsigned long key) noexcept nogil:
    """Would a search for a page with this key find nothing, and change nothing? Where each node has a key, and none this one."""
    cdef unsigned long place
    cdef unsigned int i
    if g.plain or atomic_long_read(&g.stable_unkeyed) != g.nr_chains:
        return False
    place = filter_place(g, key)
    if g.stable_filter[place >> 6] >> (place & 63) & 1:
        return False
    if g.nr_chains:
        if g.nr_chains != g.ksm_stable_node_chains or g.m.nr_node_ids > 1:
            return False
        if g.chains_moved:
            find_chains(g)
        for i in range(g.nr_chains):
            if g.chains[i].below < key < g.chains[i].above:
                return False
    return True


cdef void find_chains(ksm_globals *g) noexcept nogil
cdef int ksm_keys_init(ksm_globals *g) noexcept nogil
cdef void ksm_keys_exit(ksm_globals *g) noexcept nogil
cdef void begin_pass(ksm_globals *g) noexcept nogil
cdef void page_freed_hook(machine *m, struct_folio *folio) noexcept nogil

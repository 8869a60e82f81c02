# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the keys by which ksmd compares pages without reading them. See stable_keys.pxd.

from libc.errno cimport ENOMEM
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from linux.atomic cimport READ_ONCE_ulong, atomic_long_dec, xchg_ulong
from linux.mm_types cimport machine, struct_folio, struct_page
from linux.page_flags cimport folio_raw_mapping, folio_test_ksm, folio_try_get, pfn_to_page
from linux.rbtree cimport rb_node, rb_parent
from linux.types cimport hlist_node, list_head

from ksm.fast.stable_keys cimport STABLE_KEY_KNOWN, filter_add, node_with_key, page_key, stable_key_is, stable_key_known
from ksm.fast.state cimport KNOWN_CHAINS, fast_of, fast_state, known_chain
from ksm.lib.rbtree cimport rb_first, rb_next
from ksm.mm.ksm cimport (is_stable_node_chain, is_stable_node_dup, ksm_globals, ksm_stable_node, stable_node_of, stable_node_of_dup,
                         stable_node_of_first, stable_node_of_list)
from ksm.mm.page_alloc cimport folio_put


cdef enum:
    FILTER_LEAST = 15           # the smallest filter has 1 << this many bits
    FILTER_BITS = 4             # bits for each item, at least; there are at most half as many stable nodes as items


cdef int stable_keys_init(fast_state *fast) noexcept nogil:
    """Make the filter: 0 or -ENOMEM."""
    fast.filter_bits = FILTER_LEAST
    fast.filter = <unsigned long *>calloc(1, <size_t>1 << (FILTER_LEAST - 3))
    return 0 if fast.filter != NULL else -ENOMEM


cdef void stable_keys_exit(fast_state *fast) noexcept nogil:
    free(fast.filter)


# Stable nodes

cdef void page_freed(machine *m, struct_folio *folio) noexcept nogil:
    # ksmd may have found the node stale and freed it, and it may be another page's node by now. That node then has no key until a search
    # reads its page.
    cdef ksm_stable_node *stable_node = <ksm_stable_node *>folio_raw_mapping(folio)
    if stable_node != NULL:
        key_goes(fast_of(<ksm_globals *>m.ksm), stable_node)


cdef inline bint key_goes(fast_state *fast, ksm_stable_node *stable_node) noexcept nogil:
    """Take the node's key away; true if it had one."""
    if not stable_key_known(stable_node) or not xchg_ulong(&stable_node.key, 0) & STABLE_KEY_KNOWN:
        return False
    atomic_long_dec(&fast.stable_keyed)
    return True


cdef void node_freed(void *arg, void *stable_node) noexcept nogil:
    """Forget a node that is being freed. kmem_cache_free() calls this."""
    cdef fast_state *fast = <fast_state *>arg
    cdef unsigned int i
    key_goes(fast, <ksm_stable_node *>stable_node)
    fast.chains_moved = True
    for i in range(fast.nr_chains):
        if fast.chains[i].chain == stable_node:
            fast.nr_chains -= 1
            fast.chains[i] = fast.chains[fast.nr_chains]
            break


cdef void node_inserted(fast_state *fast, struct_page *page, unsigned long key) noexcept nogil:
    """Give the node of a newly merged page its key. There is no node if there was no memory for one. The node may be the second dup of a
    new chain.
    """
    cdef ksm_stable_node *stable_node
    if not folio_try_get(page):
        return
    stable_node = <ksm_stable_node *>folio_raw_mapping(page) if folio_test_ksm(page) else NULL
    if stable_node != NULL:
        stable_key_is(fast, stable_node, key)
        if fast.nr_chains != fast.g.ksm_stable_node_chains and is_stable_node_dup(fast.g, stable_node):
            # The dup is the first of its chain.
            chain_made(fast, stable_node_of_first(stable_node.hlist_dup.pprev))
    folio_put(fast.g.m, page)


# Chains

cdef void chain_made(fast_state *fast, ksm_stable_node *chain) noexcept nogil:
    cdef unsigned int i
    for i in range(fast.nr_chains):
        if fast.chains[i].chain == chain:
            return
    if fast.nr_chains < KNOWN_CHAINS:
        fast.chains[fast.nr_chains].chain = chain
        fast.nr_chains += 1
        fast.chains_moved = True


cdef void list_chains(fast_state *fast) noexcept nogil:
    """List all chains. There were more than KNOWN_CHAINS, and are no longer."""
    cdef rb_node *node = rb_first(fast.g.root_stable_tree)
    fast.nr_chains = 0
    fast.chains_moved = True
    while node != NULL:
        if is_stable_node_chain(stable_node_of(node)):
            chain_made(fast, stable_node_of(node))
        node = rb_next(node)


cdef void find_chains(fast_state *fast) noexcept nogil:
    """Find the keys that lead past each chain. A search comes there if it turns towards the chain at each node above. The nearest nodes
    above on both sides are the bounds.
    """
    cdef known_chain *known
    cdef rb_node *node
    cdef rb_node *parent
    cdef unsigned long key
    cdef unsigned int i
    for i in range(fast.nr_chains):
        known = &fast.chains[i]
        known.below = 0
        known.above = ~<unsigned long>0
        node = &known.chain.node
        parent = rb_parent(node)
        while parent != NULL and (known.below == 0 or known.above == ~<unsigned long>0):
            key = READ_ONCE_ulong(node_with_key(stable_node_of(parent)).key) & ~STABLE_KEY_KNOWN
            if parent.rb_left == node:
                if key and known.above == ~<unsigned long>0:
                    known.above = key
            elif known.below == 0:
                known.below = key
            node = parent
            parent = rb_parent(node)
    fast.chains_moved = False


# The filter

cdef void key_by_new_book(fast_state *fast, ksm_stable_node *stable_node) noexcept nogil:
    cdef struct_folio *folio
    if not key_goes(fast, stable_node):
        return
    folio = pfn_to_page(fast.g.m, READ_ONCE_ulong(stable_node.kpfn))
    if folio_try_get(folio):
        if folio_test_ksm(folio) and folio_raw_mapping(folio) == stable_node:
            stable_key_is(fast, stable_node, page_key(fast, folio))
        folio_put(fast.g.m, folio)


cdef void filter_add_node(fast_state *fast, ksm_stable_node *stable_node, bint new_book) noexcept nogil:
    cdef unsigned long key
    if new_book:
        key_by_new_book(fast, stable_node)
        return
    key = READ_ONCE_ulong(stable_node.key)
    if key & STABLE_KEY_KNOWN:
        filter_add(fast, key & ~STABLE_KEY_KNOWN)


cdef void filter_refill(fast_state *fast, bint new_book) noexcept nogil:
    """Fill the filter anew with the present keys: those of the trees, of dups in chains, and of nodes in migrate_nodes."""
    cdef ksm_globals *g = fast.g
    cdef rb_node *node
    cdef hlist_node *pos
    cdef list_head *link
    cdef int nid
    cdef unsigned int bits = FILTER_LEAST
    cdef unsigned long *larger
    while <unsigned long>1 << bits < FILTER_BITS * g.ksm_rmap_items:
        bits += 1
    larger = <unsigned long *>calloc(1, <size_t>1 << (bits - 3))
    if larger != NULL:
        free(fast.filter)
        fast.filter = larger
        fast.filter_bits = bits
    else:
        memset(fast.filter, 0, <size_t>1 << (fast.filter_bits - 3))
    fast.filter_set = 0
    for nid in range(1 if g.root_stable_tree == g.one_stable_tree else g.m.nr_node_ids):
        node = rb_first(g.root_stable_tree + nid)
        while node != NULL:
            if is_stable_node_chain(stable_node_of(node)):
                pos = stable_node_of(node).hlist.first
                while pos != NULL:
                    filter_add_node(fast, stable_node_of_dup(pos), new_book)
                    pos = pos.next
            else:
                filter_add_node(fast, stable_node_of(node), new_book)
            node = rb_next(node)
    link = g.migrate_nodes.next
    while link != &g.migrate_nodes:
        filter_add_node(fast, stable_node_of_list(link), new_book)
        link = link.next


cdef void tidy_stable_keys(fast_state *fast, bint new_book) noexcept nogil:
    """Tidy up between two passes: make keys with a new book, enlarge the filter if needed, and list the chains if they are few."""
    cdef ksm_globals *g = fast.g
    if (new_book or fast.filter_set > 2 * <unsigned long>g.stable_node_cache.nr_objects + 64
            or FILTER_BITS * g.ksm_rmap_items > <unsigned long>1 << fast.filter_bits):
        filter_refill(fast, new_book)
    if fast.nr_chains != g.ksm_stable_node_chains <= KNOWN_CHAINS and g.m.nr_node_ids == 1:
        list_chains(fast)

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel. TEST SUPPORT: the state of KSM as Python values, so that two machines can be compared. Nothing else imports it.
"""Trees with their shapes and colours, lists of rmap_items, and the cursor, without any addresses."""

from linux.list cimport list_head
from linux.rbtree cimport rb_node
from linux.types cimport hlist_node

from ksm.fast.state cimport fast_of, fast_state
from ksm.machine cimport Machine
from ksm.mm.ksm cimport (is_stable_node_chain, ksm_globals, ksm_mm_slot, ksm_rmap_item, ksm_stable_node, mm_slot_of, rmap_item_of,
                         rmap_item_of_hlist, stable_node_of, stable_node_of_dup, stable_node_of_list)


cdef object item(ksm_rmap_item *rmap_item):
    return (rmap_item.mm.id, rmap_item.address, rmap_item.oldchecksum, rmap_item.age, rmap_item.remaining_skips)


cdef object stable_node(ksm_stable_node *node):
    cdef hlist_node *pos = node.hlist.first
    inside = []
    if is_stable_node_chain(node):
        while pos != NULL:
            inside.append(stable_node(stable_node_of_dup(pos)))
            pos = pos.next
        return ("chain", inside)
    while pos != NULL:
        inside.append(item(rmap_item_of_hlist(pos)))
        pos = pos.next
    return (node.kpfn, node.nid, node.rmap_hlist_len, inside)


cdef list tree(rb_node *root, bint stable):
    """The nodes in preorder: depth, side, colour, content."""
    cdef rb_node *node
    found, todo = [], [(0, "root", <size_t>root)]
    while todo:
        depth, side, address = todo.pop()
        node = <rb_node *><size_t>address
        if node == NULL:
            continue
        content = stable_node(stable_node_of(node)) if stable else item(rmap_item_of(node))
        found.append((depth, side, node.__rb_parent_color & 1, content))
        todo.append((depth + 1, "right", <size_t>node.rb_right))
        todo.append((depth + 1, "left", <size_t>node.rb_left))
    return found


def state(Machine machine not None, bint in_pass=True):
    """The whole state, for comparing. No thread may be at work on the machine. The unstable trees are out of use between passes, and are
    left out then; `in_pass`: and they are left out without it. While everything is unmerged, roots lead to items that are gone.
    """
    cdef ksm_globals *g
    cdef list_head *pos
    cdef ksm_mm_slot *slot
    cdef ksm_rmap_item *rmap_item
    cdef int nid
    machine.enter()
    try:
        g = machine.g
        slots = []
        pos = g.ksm_mm_head.slot.mm_node.next
        while pos != &g.ksm_mm_head.slot.mm_node:
            slot = mm_slot_of(pos)
            items = []
            rmap_item = slot.rmap_list
            while rmap_item != NULL:
                items.append(item(rmap_item))
                rmap_item = rmap_item.rmap_list
            slots.append((slot.slot.mm.id, items))
            pos = pos.next
        waiting = []
        pos = g.migrate_nodes.next
        while pos != &g.migrate_nodes:
            waiting.append(stable_node(stable_node_of_list(pos)))
            pos = pos.next
        mm_id = None if g.ksm_scan.mm_slot == &g.ksm_mm_head else g.ksm_scan.mm_slot.slot.mm.id
        between = mm_id is None or not in_pass
        return {
            "stable": [tree(g.root_stable_tree[nid].rb_node, True) for nid in range(g.ksm_nr_node_ids)],
            "unstable": [] if between else [tree(g.root_unstable_tree[nid].rb_node, False) for nid in range(g.ksm_nr_node_ids)],
            "waiting": waiting,
            "slots": slots,
            "cursor": (mm_id, g.ksm_scan.address, g.ksm_scan.seqnr),
        }
    finally:
        machine.leave()


def branches(Machine machine not None):
    """The number of branches of the book that keys are made with; 0 without a book. See ksm/fast/page_keys.pyx."""
    cdef fast_state *fast
    machine.enter()
    fast = fast_of(machine.g)
    found = fast.book.nr_branches if fast != NULL and fast.book != NULL else 0
    machine.leave()
    return found


def claimed(Machine machine not None):
    """The number of frames in `claimed`. See claim_frames() in ksm/mm/page_alloc.pyx."""
    cdef unsigned int nid, nr = 0
    machine.enter()
    for nid in range(machine.m.nr_node_ids):
        nr += machine.m.zones[nid].nr_claimed
    machine.leave()
    return nr


def chains_known(Machine machine not None):
    """(number of known chains, number of all chains). See stable_trees_lack() in ksm/fast/stable_keys.pxd."""
    machine.enter()
    found = (fast_of(machine.g).nr_chains, machine.g.ksm_stable_node_chains)
    machine.leave()
    return found


def look_from(Machine machine not None, unsigned int pages, unsigned int beyond):
    """Let a first look by several threads begin with this many pages, and not with thousands, and go beyond the pages of its scan."""
    if machine.g.fast != NULL:
        fast_of(machine.g).first_least = pages
        fast_of(machine.g).first_beyond = beyond


def first_looks(Machine machine not None):
    """How many pages threads have looked at, and for how many of them that was of use."""
    cdef fast_state *fast = fast_of(machine.g)
    return fast.pages_read, fast.pages_known

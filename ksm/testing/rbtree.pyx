# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel. TEST SUPPORT: the tests of ksm/lib/rbtree.pyx reach C from Python through this. Nothing else imports it.
"""Red-black trees as Python objects, for tests only."""

from libc.stdlib cimport calloc, free

from ksm.check.rbtree_check cimport rb_check, rb_check_count, rb_check_str
from ksm.lib.rbtree cimport (
    rb_erase, rb_erase_augmented, rb_erase_augmented_cached, rb_erase_cached, rb_first, rb_first_postorder, rb_insert_augmented,
    rb_insert_augmented_cached, rb_insert_color, rb_insert_color_cached, rb_last, rb_next, rb_next_postorder, rb_prev,
    rb_replace_node, rb_replace_node_cached,
)
from linux.list cimport INIT_LIST_HEAD, list_add, list_del
from linux.rbtree cimport RB_CLEAR_NODE, RB_EMPTY_NODE, RB_EMPTY_ROOT, rb_first_cached, rb_link_node, rb_parent
from linux.rbtree_augmented cimport rb_augment_callbacks, rb_color, rb_is_red, rb_set_parent, rb_set_parent_color
from linux.rbtree_types cimport rb_node, rb_root, rb_root_cached
from linux.types cimport list_head

SIZES = {"rb_node": sizeof(rb_node), "rb_root": sizeof(rb_root)}


cdef struct tree_item:
    rb_node node
    list_head all           # the RBTree's list of all its items, which are freed with it
    long key
    unsigned long size      # the summary of an augmented tree: the number of items here and below


cdef inline tree_item *rb_item(const rb_node *p) noexcept nogil:
    return <tree_item *>(<char *>p - <size_t>&(<tree_item *>NULL).node)


cdef inline tree_item *all_item(const list_head *p) noexcept nogil:
    return <tree_item *>(<char *>p - <size_t>&(<tree_item *>NULL).all)


cdef inline unsigned long size_of(const rb_node *p) noexcept nogil:
    return rb_item(p).size if p is not NULL else 0


# The callbacks that RB_DECLARE_CALLBACKS() makes in C. True where nothing changed, so that the walk upwards may end.
cdef bint size_compute(tree_item *item, bint may_exit) noexcept nogil:
    cdef unsigned long size = 1 + size_of(item.node.rb_left) + size_of(item.node.rb_right)

    if may_exit and item.size == size:
        return True
    item.size = size
    return False


cdef void size_propagate(rb_node *node, rb_node *stop) noexcept nogil:
    while node != stop:
        if size_compute(rb_item(node), True):
            break
        node = rb_parent(node)


cdef void size_copy(rb_node *old, rb_node *new) noexcept nogil:
    rb_item(new).size = rb_item(old).size


cdef void size_rotate(rb_node *old, rb_node *new) noexcept nogil:
    rb_item(new).size = rb_item(old).size
    size_compute(rb_item(old), False)


cdef object node_shape(const rb_node *node):
    if node is NULL:
        return None
    return (rb_item(node).key, "R" if rb_is_red(node) else "B", node_shape(node.rb_left), node_shape(node.rb_right))


cdef class RBTree:
    """A tree of integers. kind: plain, cached (the leftmost node is kept), augmented (sizes are kept) or augmented_cached."""

    cdef rb_root_cached root
    cdef list_head items
    cdef rb_augment_callbacks callbacks
    cdef bint cached, augmented
    cdef public unsigned long count

    def __cinit__(self, str kind="plain"):
        INIT_LIST_HEAD(&self.items)
        if kind not in ("plain", "cached", "augmented", "augmented_cached"):
            raise ValueError(kind)
        self.cached = kind.endswith("cached")
        self.augmented = kind.startswith("augmented")
        self.callbacks.propagate = size_propagate
        self.callbacks.copy = size_copy
        self.callbacks.rotate = size_rotate

    def __dealloc__(self):
        cdef list_head *pos = self.items.next
        while pos is not NULL and pos != &self.items:
            pos = pos.next
            free(all_item(pos.prev))

    cdef tree_item *new_item(self, long key) except NULL:
        cdef tree_item *item = <tree_item *>calloc(1, sizeof(tree_item))
        if item is NULL:
            raise MemoryError
        item.key = key
        item.size = 1
        list_add(&item.all, &self.items)
        return item

    cdef tree_item *find(self, long key) except NULL:
        cdef rb_node *node = self.root.rb_root.rb_node
        while node is not NULL:
            if rb_item(node).key == key:
                return rb_item(node)
            node = node.rb_left if key < rb_item(node).key else node.rb_right
        raise KeyError(key)

    def insert(self, long key):
        cdef rb_node **link = &self.root.rb_root.rb_node
        cdef rb_node *parent = NULL
        cdef bint leftmost = True
        cdef tree_item *item = self.new_item(key)
        while link[0] is not NULL:
            parent = link[0]
            if key < rb_item(parent).key:
                link = &parent.rb_left
            else:
                link = &parent.rb_right
                leftmost = False
        rb_link_node(&item.node, parent, link)
        self.count += 1
        if self.augmented:
            size_propagate(parent, NULL)
        if self.augmented and self.cached:
            rb_insert_augmented_cached(&item.node, &self.root, leftmost, &self.callbacks)
        elif self.augmented:
            rb_insert_augmented(&item.node, &self.root.rb_root, &self.callbacks)
        elif self.cached:
            rb_insert_color_cached(&item.node, &self.root, leftmost)
        else:
            rb_insert_color(&item.node, &self.root.rb_root)

    def erase(self, long key):
        cdef tree_item *item = self.find(key)
        if self.augmented and self.cached:
            rb_erase_augmented_cached(&item.node, &self.root, &self.callbacks)
        elif self.augmented:
            rb_erase_augmented(&item.node, &self.root.rb_root, &self.callbacks)
        elif self.cached:
            rb_erase_cached(&item.node, &self.root)
        else:
            rb_erase(&item.node, &self.root.rb_root)
        self.count -= 1
        list_del(&item.all)
        free(item)

    def replace(self, long key):
        """Replaces the node by another one with the same key."""
        cdef tree_item *item = self.find(key)
        cdef tree_item *other = self.new_item(key)
        other.size = item.size
        if self.cached:
            rb_replace_node_cached(&item.node, &other.node, &self.root)
        else:
            rb_replace_node(&item.node, &other.node, &self.root.rb_root)
        list_del(&item.all)
        free(item)

    def shape(self):
        """(key, "R" or "B", left, right), or None for a missing node."""
        return node_shape(self.root.rb_root.rb_node)

    def empty(self):
        return RB_EMPTY_ROOT(&self.root.rb_root)

    def first(self):
        """The first key as the root remembers it (cached) or finds it."""
        cdef rb_node *node = rb_first_cached(&self.root) if self.cached else rb_first(&self.root.rb_root)
        return rb_item(node).key if node is not NULL else None

    def keys(self):
        cdef rb_node *node = rb_first(&self.root.rb_root)
        found = []
        while node is not NULL:
            found.append(rb_item(node).key)
            node = rb_next(node)
        return found

    def keys_reversed(self):
        cdef rb_node *node = rb_last(&self.root.rb_root)
        found = []
        while node is not NULL:
            found.append(rb_item(node).key)
            node = rb_prev(node)
        return found

    def keys_postorder(self):
        cdef rb_node *node = rb_first_postorder(&self.root.rb_root)
        found = []
        while node is not NULL:
            found.append(rb_item(node).key)
            node = rb_next_postorder(node)
        return found

    def sizes(self):
        """The summaries of an augmented tree, in the order of the keys."""
        cdef rb_node *node = rb_first(&self.root.rb_root)
        found = []
        while node is not NULL:
            found.append(rb_item(node).size)
            node = rb_next(node)
        return found

    def check(self, expected=None):
        """(code, what it means, nodes counted); expected: the number of nodes that there should be."""
        cdef unsigned long nr_nodes = 0
        cdef int result
        with nogil:
            result = rb_check(&self.root.rb_root, &nr_nodes)
        if expected is not None:
            result = rb_check_count(&self.root.rb_root, expected)
        return result, rb_check_str(result).decode(), nr_nodes

    # To break a tree, for the tests of rb_check().

    def paint(self, long key, int color):
        cdef tree_item *item = self.find(key)
        rb_set_parent_color(&item.node, rb_parent(&item.node), color)

    def set_parent(self, long key, parent):
        rb_set_parent(&self.find(key).node, &self.find(parent).node if parent is not None else NULL)

    def set_child(self, long key, str side, child, unsigned long tag=0):
        cdef tree_item *item = self.find(key)
        cdef rb_node *node = &self.find(child).node if child is not None else NULL
        node = <rb_node *>(<unsigned long>node | tag)
        if side == "left":
            item.node.rb_left = node
        else:
            item.node.rb_right = node


def empty_node():
    """The values of RB_EMPTY_NODE(), rb_next() and rb_prev() for a cleared node, of rb_next_postorder() for NULL, and of RB_EMPTY_NODE()
    for a linked node.
    """
    cdef rb_root root
    cdef rb_node node
    root.rb_node = NULL
    RB_CLEAR_NODE(&node)
    cleared = (RB_EMPTY_NODE(&node), rb_next(&node) is NULL, rb_prev(&node) is NULL, rb_next_postorder(NULL) is NULL)
    rb_link_node(&node, NULL, &root.rb_node)
    rb_insert_color(&node, &root)
    return (*cleared, RB_EMPTY_NODE(&node), rb_color(&node))

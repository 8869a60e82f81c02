# SPDX-License-Identifier: GPL-2.0-or-later
# Follows include/linux/rbtree.h and rbtree_augmented.h of Linux 6.12: what they declare extern, and the inlines over it.

from linux.rbtree cimport rb_node, rb_root, rb_root_cached
from linux.rbtree_augmented cimport __rb_erase_augmented, rb_augment_callbacks

# include/linux/rbtree.h

cdef void rb_insert_color(rb_node *node, rb_root *root) noexcept nogil
cdef void rb_erase(rb_node *node, rb_root *root) noexcept nogil

cdef rb_node *rb_next(const rb_node *node) noexcept nogil
cdef rb_node *rb_prev(const rb_node *node) noexcept nogil
cdef rb_node *rb_first(const rb_root *root) noexcept nogil
cdef rb_node *rb_last(const rb_root *root) noexcept nogil

# Children come before their parent.
cdef rb_node *rb_first_postorder(const rb_root *root) noexcept nogil
cdef rb_node *rb_next_postorder(const rb_node *node) noexcept nogil

# new takes over victim's place and colour without rebalancing, so it must sort as victim does.
cdef void rb_replace_node(rb_node *victim, rb_node *new, rb_root *root) noexcept nogil


cdef inline void rb_insert_color_cached(rb_node *node, rb_root_cached *root, bint leftmost) noexcept nogil:
    if leftmost:
        root.rb_leftmost = node
    rb_insert_color(node, &root.rb_root)


# Returns the new first node if node was the first, else NULL.
cdef inline rb_node *rb_erase_cached(rb_node *node, rb_root_cached *root) noexcept nogil:
    cdef rb_node *leftmost = NULL

    if root.rb_leftmost == node:
        leftmost = root.rb_leftmost = rb_next(node)

    rb_erase(node, &root.rb_root)

    return leftmost


cdef inline void rb_replace_node_cached(rb_node *victim, rb_node *new, rb_root_cached *root) noexcept nogil:
    if root.rb_leftmost == victim:
        root.rb_leftmost = new
    rb_replace_node(victim, new, &root.rb_root)


# include/linux/rbtree_augmented.h

cdef void __rb_insert_augmented(rb_node *node, rb_root *root,
                                void (*augment_rotate)(rb_node *old, rb_node *new) noexcept nogil) noexcept nogil


# The caller has linked node and updated the summaries above it. augment updates those of the nodes that rebalancing moves.
cdef inline void rb_insert_augmented(rb_node *node, rb_root *root, const rb_augment_callbacks *augment) noexcept nogil:
    __rb_insert_augmented(node, root, augment.rotate)


cdef inline void rb_insert_augmented_cached(rb_node *node, rb_root_cached *root, bint newleft,
                                            const rb_augment_callbacks *augment) noexcept nogil:
    if newleft:
        root.rb_leftmost = node
    rb_insert_augmented(node, &root.rb_root, augment)


# rb_add_augmented_cached(): left out, as every form that takes the order of nodes as a function.

cdef void __rb_erase_color(rb_node *parent, rb_root *root,
                           void (*augment_rotate)(rb_node *old, rb_node *new) noexcept nogil) noexcept nogil


cdef inline void rb_erase_augmented(rb_node *node, rb_root *root, const rb_augment_callbacks *augment) noexcept nogil:
    cdef rb_node *rebalance = __rb_erase_augmented(node, root, augment)

    if rebalance is not NULL:
        __rb_erase_color(rebalance, root, augment.rotate)


cdef inline void rb_erase_augmented_cached(rb_node *node, rb_root_cached *root,
                                           const rb_augment_callbacks *augment) noexcept nogil:
    if root.rb_leftmost == node:
        root.rb_leftmost = rb_next(node)
    rb_erase_augmented(node, &root.rb_root, augment)

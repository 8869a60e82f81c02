# SPDX-License-Identifier: GPL-2.0-or-later
# Follows include/linux/rbtree_augmented.h of Linux 6.12.
"""Rebalancing a tree, and the callbacks by which a node can carry a summary of the nodes below it.

rb_insert_augmented(), rb_erase_augmented() and their _cached forms call ksm.lib.rbtree and stand in its .pxd.
"""

from linux.rbtree_types cimport rb_node, rb_root


# propagate: recompute the summaries from node upwards, before stop; copy: new takes the summary of old;
# rotate: new has taken the place of old, and old is now its child.
cdef struct rb_augment_callbacks:
    void (*propagate)(rb_node *node, rb_node *stop) noexcept nogil
    void (*copy)(rb_node *old, rb_node *new) noexcept nogil
    void (*rotate)(rb_node *old, rb_node *new) noexcept nogil


# RB_DECLARE_CALLBACKS(), RB_DECLARE_CALLBACKS_MAX(): left out, templates of the preprocessor; ksm/lib/testing.pyx writes a set out.


cdef enum:
    RB_RED = 0
    RB_BLACK = 1


cdef inline rb_node *__rb_parent(unsigned long pc) noexcept nogil:
    return <rb_node *>(pc & ~<unsigned long>3)


cdef inline int __rb_color(unsigned long pc) noexcept nogil:
    return pc & 1


cdef inline bint __rb_is_black(unsigned long pc) noexcept nogil:
    return __rb_color(pc)


cdef inline bint __rb_is_red(unsigned long pc) noexcept nogil:
    return not __rb_color(pc)


cdef inline int rb_color(const rb_node *rb) noexcept nogil:
    return __rb_color(rb.__rb_parent_color)


cdef inline bint rb_is_red(const rb_node *rb) noexcept nogil:
    return __rb_is_red(rb.__rb_parent_color)


cdef inline bint rb_is_black(const rb_node *rb) noexcept nogil:
    return __rb_is_black(rb.__rb_parent_color)


cdef inline void rb_set_parent(rb_node *rb, rb_node *p) noexcept nogil:
    rb.__rb_parent_color = rb_color(rb) + <unsigned long>p


cdef inline void rb_set_parent_color(rb_node *rb, rb_node *p, int color) noexcept nogil:
    rb.__rb_parent_color = <unsigned long>p + color


cdef inline void __rb_change_child(rb_node *old, rb_node *new, rb_node *parent, rb_root *root) noexcept nogil:
    if parent is not NULL:
        if parent.rb_left == old:
            parent.rb_left = new
        else:
            parent.rb_right = new
    else:
        root.rb_node = new


# __rb_change_child_rcu(): left out, no tree here has readers without a lock.


# Unlink node. Returns the parent of a place that has one black node too few, for ____rb_erase_color(), or NULL.
cdef inline rb_node *__rb_erase_augmented(rb_node *node, rb_root *root, const rb_augment_callbacks *augment) noexcept nogil:
    cdef rb_node *child = node.rb_right
    cdef rb_node *tmp = node.rb_left
    cdef rb_node *parent
    cdef rb_node *rebalance
    cdef rb_node *successor
    cdef rb_node *child2
    cdef unsigned long pc

    if tmp is NULL:
        # Case 1: at most one child. An only child is a red leaf, so giving it the black of node keeps the balance.
        pc = node.__rb_parent_color
        parent = __rb_parent(pc)
        __rb_change_child(node, child, parent, root)
        if child is not NULL:
            child.__rb_parent_color = pc
            rebalance = NULL
        else:
            rebalance = parent if __rb_is_black(pc) else NULL
        tmp = parent
    elif child is NULL:
        # Case 1 again, the only child is the left one.
        pc = node.__rb_parent_color
        tmp.__rb_parent_color = pc
        parent = __rb_parent(pc)
        __rb_change_child(node, tmp, parent, root)
        rebalance = NULL
        tmp = parent
    else:
        successor = child
        tmp = child.rb_left
        if tmp is NULL:
            # Case 2: the right child has no left one, so it is the successor and moves up with its own right child.
            parent = successor
            child2 = successor.rb_right

            augment.copy(node, successor)
        else:
            # Case 3: the successor is at the end of the left edge below the right child; its right child takes its place there.
            while True:
                parent = successor
                successor = tmp
                tmp = tmp.rb_left
                if tmp is NULL:
                    break
            child2 = successor.rb_right
            parent.rb_left = child2
            successor.rb_right = child
            rb_set_parent(child, successor)

            augment.copy(node, successor)
            augment.propagate(parent, successor)

        tmp = node.rb_left
        successor.rb_left = tmp
        rb_set_parent(tmp, successor)

        pc = node.__rb_parent_color
        tmp = __rb_parent(pc)
        __rb_change_child(node, successor, tmp, root)

        if child2 is not NULL:
            rb_set_parent_color(child2, parent, RB_BLACK)
            rebalance = NULL
        else:
            rebalance = parent if rb_is_black(successor) else NULL
        successor.__rb_parent_color = pc
        tmp = successor

    augment.propagate(tmp, NULL)
    return rebalance

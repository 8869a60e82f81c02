# SPDX-License-Identifier: GPL-2.0-or-later
# Follows include/linux/rbtree.h of Linux 6.12.
"""Red-black trees: the part that needs no function of ksm.lib.rbtree.

A caller writes its own descent, links the new node with rb_link_node() and hands it to rb_insert_color():

    cdef rb_node **new_ = &root.rb_node
    cdef rb_node *parent = NULL
    while new_[0] is not NULL:
        parent = new_[0]
        new_ = &parent.rb_left if key < entry(parent).key else &parent.rb_right
    rb_link_node(&item.node, parent, new_)
    rb_insert_color(&item.node, root)

What the kernel's header declares `extern`, and the inlines over it, is in ksm/lib/rbtree.pxd: headers import nothing from ksm/.

rb_entry(): Cython has no macros over types. The kernel's container_of() is written out once per type, in an inline beside it:

    <T *>(<char *>p - <size_t>&(<T *>NULL).node)

A field whose name begins with two underscores, such as __rb_parent_color, is mangled inside a class: read it in a function
outside, or through the inlines here.
"""

from linux.rbtree_types cimport rb_node, rb_root, rb_root_cached


cdef inline rb_node *rb_parent(const rb_node *r) noexcept nogil:
    return <rb_node *>(r.__rb_parent_color & ~<unsigned long>3)


cdef inline bint RB_EMPTY_ROOT(const rb_root *root) noexcept nogil:
    return root.rb_node is NULL


# A cleared node is its own parent. No node of a tree is.
cdef inline bint RB_EMPTY_NODE(const rb_node *node) noexcept nogil:
    return node.__rb_parent_color == <unsigned long>node


cdef inline void RB_CLEAR_NODE(rb_node *node) noexcept nogil:
    node.__rb_parent_color = <unsigned long>node


# The new node is red, and a leaf. rb_insert_color() must follow.
cdef inline void rb_link_node(rb_node *node, rb_node *parent, rb_node **rb_link) noexcept nogil:
    node.__rb_parent_color = <unsigned long>parent
    node.rb_left = node.rb_right = NULL

    rb_link[0] = node


# rb_link_node_rcu(): left out, no tree here has readers without a lock.
# rb_entry_safe(), rbtree_postorder_for_each_entry_safe(): left out, macros over types; take the next node before the body.


cdef inline rb_node *rb_first_cached(const rb_root_cached *root) noexcept nogil:
    return root.rb_leftmost


# rb_insert_color_cached(), rb_erase_cached(), rb_replace_node_cached(): in ksm/lib/rbtree.pxd.
# rb_add_cached() to rb_for_each(), which take the order of nodes as a function: left out, every descent here is written out.

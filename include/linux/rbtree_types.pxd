# SPDX-License-Identifier: GPL-2.0-or-later
# Follows include/linux/rbtree_types.h of Linux 6.12.

cdef extern from "linux/rbtree_types.h":
    struct rb_node:
        unsigned long __rb_parent_color
        rb_node *rb_right
        rb_node *rb_left

    struct rb_root:
        rb_node *rb_node

    struct rb_root_cached:
        rb_root rb_root
        rb_node *rb_leftmost

# RB_ROOT and RB_ROOT_CACHED: a root is empty when its pointers are NULL, so memory from calloc() holds empty roots.

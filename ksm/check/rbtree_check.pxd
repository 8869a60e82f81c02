# SPDX-License-Identifier: GPL-2.0-or-later
# No twin in the kernel: lib/rbtree_test.c is the nearest.

from linux.rbtree_types cimport rb_root

cdef enum rb_check_result:
    RB_CHECK_OK = 0
    RB_CHECK_ROOT_RED = -1
    RB_CHECK_RED_RED = -2
    RB_CHECK_BLACK_HEIGHT = -3
    RB_CHECK_PARENT = -4        # a node's parent word names another node, or the node is in the tree twice
    RB_CHECK_POINTER = -5       # a link with low bits set, or bit 1 of a parent word
    RB_CHECK_COUNT = -6

# RB_CHECK_OK, or the first rule found broken. nr_nodes: the number of nodes counted, also in a broken tree; may be NULL.
cdef int rb_check(const rb_root *root, unsigned long *nr_nodes) noexcept nogil

# The same; the tree must have exactly `expected` nodes.
cdef int rb_check_count(const rb_root *root, unsigned long expected) noexcept nogil

cdef const char *rb_check_str(int result) noexcept nogil

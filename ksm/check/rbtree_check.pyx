# SPDX-License-Identifier: GPL-2.0-or-later
# No twin in the kernel: lib/rbtree_test.c is the nearest.
"""Checks the rules of a red-black tree.

The walk takes no memory and no recursion. It ends on any tree whose links lead to nodes. A node is entered only from the node that its
parent word names, so a ring, or a node with two parents, is found at its first wrong link.

The caller checks the order of the keys.
"""

from linux.rbtree cimport rb_parent
from linux.rbtree_augmented cimport rb_is_black, rb_is_red
from linux.rbtree_types cimport rb_node, rb_root


# Whether the walk may go down this link.
cdef inline int check_link(const rb_node *parent, const rb_node *child) noexcept nogil:
    if <unsigned long>child & 3:
        return RB_CHECK_POINTER
    if child.__rb_parent_color & 2:
        return RB_CHECK_POINTER
    if rb_parent(child) != parent:
        return RB_CHECK_PARENT
    if parent is NULL:
        return RB_CHECK_ROOT_RED if rb_is_red(child) else RB_CHECK_OK
    if rb_is_red(parent) and rb_is_red(child):
        return RB_CHECK_RED_RED
    return RB_CHECK_OK


cdef int rb_check(const rb_root *root, unsigned long *nr_nodes) noexcept nogil:
    cdef const rb_node *node = root.rb_node
    cdef const rb_node *came_from = NULL
    cdef const rb_node *child
    cdef unsigned long count = 0
    cdef long height = -1               # black nodes above a missing child, once the first is met
    cdef long blacks = 0                # from the root to node
    cdef int result = RB_CHECK_OK

    if node is not NULL:
        result = check_link(NULL, node)

    while node is not NULL and result == RB_CHECK_OK:
        if came_from == rb_parent(node):
            count += 1
            blacks += rb_is_black(node)
            if node.rb_left == node.rb_right and node.rb_left is not NULL:
                result = RB_CHECK_PARENT
                break
            if node.rb_left is NULL or node.rb_right is NULL:
                if height == -1:
                    height = blacks
                elif height != blacks:
                    result = RB_CHECK_BLACK_HEIGHT
                    break
            child = node.rb_left if node.rb_left is not NULL else node.rb_right
        elif came_from == node.rb_left:
            child = node.rb_right
        else:
            child = NULL

        if child is not NULL:
            result = check_link(node, child)
            came_from = node
            node = child
        else:
            blacks -= rb_is_black(node)
            came_from = node
            node = rb_parent(node)

    if nr_nodes is not NULL:
        nr_nodes[0] = count
    return result


cdef int rb_check_count(const rb_root *root, unsigned long expected) noexcept nogil:
    cdef unsigned long count
    cdef int result = rb_check(root, &count)

    if result == RB_CHECK_OK and count != expected:
        return RB_CHECK_COUNT
    return result


cdef const char *rb_check_str(int result) noexcept nogil:
    if result == RB_CHECK_OK:
        return b"ok"
    if result == RB_CHECK_ROOT_RED:
        return b"the root is red"
    if result == RB_CHECK_RED_RED:
        return b"a red node has a red child"
    if result == RB_CHECK_BLACK_HEIGHT:
        return b"two ways down have unequal numbers of black nodes"
    if result == RB_CHECK_PARENT:
        return b"a node does not name the parent that it hangs from"
    if result == RB_CHECK_POINTER:
        return b"a link is not the address of a node"
    if result == RB_CHECK_COUNT:
        return b"the number of nodes is not the expected one"
    return b"unknown"

# SPDX-License-Identifier: GPL-2.0-or-later
# Follows lib/rbtree.c of Linux 6.12.
#
# Red-black trees are by Andrea Arcangeli (1999), David Woodhouse (2002) and Michel Lespinasse (2012).
"""Red-black trees whose shape after every operation is the kernel's.

The rules: the root is black, a red node has no red child, and every way from a node down to a missing child meets the same number of
black nodes.

In the comments A(b, -) is a black node A with a red child b on its left and whatever there was on its right; A? may be of either colour.

In the kernel every link is stored with WRITE_ONCE(), so that readers without a lock get through a tree that is being changed. No
tree here has such readers, and the stores are plain.
"""

from linux.rbtree cimport RB_EMPTY_NODE, rb_parent
from linux.rbtree_augmented cimport (
    RB_BLACK, RB_RED, __rb_change_child, __rb_erase_augmented, rb_augment_callbacks, rb_is_black, rb_is_red, rb_set_parent,
    rb_set_parent_color,
)
from linux.rbtree_types cimport rb_node, rb_root


# For a red node only: its colour bit is 0, so the addition sets it.
cdef inline void rb_set_black(rb_node *rb) noexcept nogil:
    rb.__rb_parent_color += RB_BLACK


# For a red node only: its colour bit is 0, so its word is the parent's address.
cdef inline rb_node *rb_red_parent(rb_node *red) noexcept nogil:
    return <rb_node *>red.__rb_parent_color


# The end of a rotation: new takes the parent and colour of old, and old hangs below new in the given colour.
cdef inline void __rb_rotate_set_parents(rb_node *old, rb_node *new, rb_root *root, int color) noexcept nogil:
    cdef rb_node *parent = rb_parent(old)

    new.__rb_parent_color = old.__rb_parent_color
    rb_set_parent_color(old, new, color)
    __rb_change_child(old, new, parent, root)


cdef inline void __rb_insert(rb_node *node, rb_root *root,
                             void (*augment_rotate)(rb_node *old, rb_node *new) noexcept nogil) noexcept nogil:
    cdef rb_node *parent = rb_red_parent(node)
    cdef rb_node *gparent
    cdef rb_node *tmp

    while True:
        # node is red, here and after every turn.
        if parent is NULL:
            # node is the root: the only node so far, or the node at which the colour flips of case 1 ended.
            rb_set_parent_color(node, NULL, RB_BLACK)
            break

        # Red under black breaks no rule.
        if rb_is_black(parent):
            break

        gparent = rb_red_parent(parent)

        tmp = gparent.rb_right
        if parent != tmp:  # parent is the left child
            if tmp is not NULL and rb_is_red(tmp):
                # Case 1: G(p(n, -), u) becomes g(P(n, -), U). The uncle is red too, so both generations change colour; go on from g.
                rb_set_parent_color(tmp, gparent, RB_BLACK)
                rb_set_parent_color(parent, gparent, RB_BLACK)
                node = gparent
                parent = rb_parent(node)
                rb_set_parent_color(node, parent, RB_RED)
                continue

            tmp = parent.rb_right
            if node == tmp:
                # Case 2: G(p(-, n), U) becomes G(n(p, -), U). A left rotation brings the lower red to the outer side, for case 3.
                tmp = node.rb_left
                parent.rb_right = tmp
                node.rb_left = parent
                if tmp is not NULL:
                    rb_set_parent_color(tmp, parent, RB_BLACK)
                rb_set_parent_color(parent, node, RB_RED)
                augment_rotate(parent, node)
                parent = node
                tmp = node.rb_right

            # Case 3: G(p(n, -), U) becomes P(n, g(-, U)). A right rotation.
            gparent.rb_left = tmp  # which is parent.rb_right
            parent.rb_right = gparent
            if tmp is not NULL:
                rb_set_parent_color(tmp, gparent, RB_BLACK)
            __rb_rotate_set_parents(gparent, parent, root, RB_RED)
            augment_rotate(gparent, parent)
            break
        else:
            tmp = gparent.rb_left
            if tmp is not NULL and rb_is_red(tmp):
                # Case 1, mirrored.
                rb_set_parent_color(tmp, gparent, RB_BLACK)
                rb_set_parent_color(parent, gparent, RB_BLACK)
                node = gparent
                parent = rb_parent(node)
                rb_set_parent_color(node, parent, RB_RED)
                continue

            tmp = parent.rb_left
            if node == tmp:
                # Case 2, mirrored: a right rotation at parent.
                tmp = node.rb_right
                parent.rb_left = tmp
                node.rb_right = parent
                if tmp is not NULL:
                    rb_set_parent_color(tmp, parent, RB_BLACK)
                rb_set_parent_color(parent, node, RB_RED)
                augment_rotate(parent, node)
                parent = node
                tmp = node.rb_left

            # Case 3, mirrored: a left rotation at the grandparent.
            gparent.rb_right = tmp  # which is parent.rb_left
            parent.rb_left = gparent
            if tmp is not NULL:
                rb_set_parent_color(tmp, gparent, RB_BLACK)
            __rb_rotate_set_parents(gparent, parent, root, RB_RED)
            augment_rotate(gparent, parent)
            break


cdef inline void ____rb_erase_color(rb_node *parent, rb_root *root,
                                    void (*augment_rotate)(rb_node *old, rb_node *new) noexcept nogil) noexcept nogil:
    cdef rb_node *node = NULL
    cdef rb_node *sibling
    cdef rb_node *tmp1
    cdef rb_node *tmp2

    while True:
        # node is black, or NULL at first, and never the root. Every way down through it has one black node too few, so the sibling
        # exists.
        sibling = parent.rb_right
        if node != sibling:  # node is the left child
            if rb_is_red(sibling):
                # Case 1: P(N, s(A, B)) becomes S(p(N, A), B). A left rotation gives node a black sibling, and a red parent.
                tmp1 = sibling.rb_left
                parent.rb_right = tmp1
                sibling.rb_left = parent
                rb_set_parent_color(tmp1, parent, RB_BLACK)
                __rb_rotate_set_parents(parent, sibling, root, RB_RED)
                augment_rotate(parent, sibling)
                sibling = tmp1
            tmp1 = sibling.rb_right
            if tmp1 is NULL or rb_is_black(tmp1):
                tmp2 = sibling.rb_left
                if tmp2 is NULL or rb_is_black(tmp2):
                    # Case 2: P?(N, S(A, B)) becomes P(N, s(A, B)). Now both sides lack a black node. A red parent, which case 1 always
                    # leaves, turns black and makes up for it. From a black parent the loop goes on.
                    rb_set_parent_color(sibling, parent, RB_RED)
                    if rb_is_red(parent):
                        rb_set_black(parent)
                    else:
                        node = parent
                        parent = rb_parent(node)
                        if parent is not NULL:
                            continue
                    break
                # Case 3: P?(N, S(a, B)) becomes P?(N, a(-, S(-, B))). A right rotation that leaves the colours to case 4, as it may put
                # red below red for a moment.
                tmp1 = tmp2.rb_right
                sibling.rb_left = tmp1
                tmp2.rb_right = sibling
                parent.rb_right = tmp2
                if tmp1 is not NULL:
                    rb_set_parent_color(tmp1, sibling, RB_BLACK)
                augment_rotate(sibling, tmp2)
                tmp1 = sibling
                sibling = tmp2
            # Case 4: P?(N, S(A?, b)) becomes S?(P(N, A?), B). A left rotation; the sibling takes the parent's colour.
            tmp2 = sibling.rb_left
            parent.rb_right = tmp2
            sibling.rb_left = parent
            rb_set_parent_color(tmp1, sibling, RB_BLACK)
            if tmp2 is not NULL:
                rb_set_parent(tmp2, parent)
            __rb_rotate_set_parents(parent, sibling, root, RB_BLACK)
            augment_rotate(parent, sibling)
            break
        else:
            sibling = parent.rb_left
            if rb_is_red(sibling):
                # Case 1, mirrored: a right rotation at parent.
                tmp1 = sibling.rb_right
                parent.rb_left = tmp1
                sibling.rb_right = parent
                rb_set_parent_color(tmp1, parent, RB_BLACK)
                __rb_rotate_set_parents(parent, sibling, root, RB_RED)
                augment_rotate(parent, sibling)
                sibling = tmp1
            tmp1 = sibling.rb_left
            if tmp1 is NULL or rb_is_black(tmp1):
                tmp2 = sibling.rb_right
                if tmp2 is NULL or rb_is_black(tmp2):
                    # Case 2, mirrored.
                    rb_set_parent_color(sibling, parent, RB_RED)
                    if rb_is_red(parent):
                        rb_set_black(parent)
                    else:
                        node = parent
                        parent = rb_parent(node)
                        if parent is not NULL:
                            continue
                    break
                # Case 3, mirrored: a left rotation at the sibling.
                tmp1 = tmp2.rb_left
                sibling.rb_right = tmp1
                tmp2.rb_left = sibling
                parent.rb_left = tmp2
                if tmp1 is not NULL:
                    rb_set_parent_color(tmp1, sibling, RB_BLACK)
                augment_rotate(sibling, tmp2)
                tmp1 = sibling
                sibling = tmp2
            # Case 4, mirrored: a right rotation at parent.
            tmp2 = sibling.rb_right
            parent.rb_left = tmp2
            sibling.rb_right = parent
            rb_set_parent_color(tmp1, sibling, RB_BLACK)
            if tmp2 is not NULL:
                rb_set_parent(tmp2, parent)
            __rb_rotate_set_parents(parent, sibling, root, RB_BLACK)
            augment_rotate(parent, sibling)
            break


# For rb_erase_augmented(), in other modules.
cdef void __rb_erase_color(rb_node *parent, rb_root *root,
                           void (*augment_rotate)(rb_node *old, rb_node *new) noexcept nogil) noexcept nogil:
    ____rb_erase_color(parent, root, augment_rotate)


# Trees without summaries: callbacks that do nothing, which the compiler inlines away.

cdef inline void dummy_propagate(rb_node *node, rb_node *stop) noexcept nogil:
    pass


cdef inline void dummy_copy(rb_node *old, rb_node *new) noexcept nogil:
    pass


cdef inline void dummy_rotate(rb_node *old, rb_node *new) noexcept nogil:
    pass


cdef void rb_insert_color(rb_node *node, rb_root *root) noexcept nogil:
    __rb_insert(node, root, dummy_rotate)


cdef void rb_erase(rb_node *node, rb_root *root) noexcept nogil:
    cdef rb_augment_callbacks dummy_callbacks
    cdef rb_node *rebalance

    dummy_callbacks.propagate = dummy_propagate     # OURS: there it is static and const; of a local one nothing is left after inlining
    dummy_callbacks.copy = dummy_copy               # OURS: the same
    dummy_callbacks.rotate = dummy_rotate           # OURS: the same
    rebalance = __rb_erase_augmented(node, root, &dummy_callbacks)
    if rebalance is not NULL:
        ____rb_erase_color(rebalance, root, dummy_rotate)


cdef void __rb_insert_augmented(rb_node *node, rb_root *root,
                                void (*augment_rotate)(rb_node *old, rb_node *new) noexcept nogil) noexcept nogil:
    __rb_insert(node, root, augment_rotate)


cdef rb_node *rb_first(const rb_root *root) noexcept nogil:
    cdef rb_node *n = root.rb_node

    if n is NULL:
        return NULL
    while n.rb_left is not NULL:
        n = n.rb_left
    return n


cdef rb_node *rb_last(const rb_root *root) noexcept nogil:
    cdef rb_node *n = root.rb_node

    if n is NULL:
        return NULL
    while n.rb_right is not NULL:
        n = n.rb_right
    return n


cdef rb_node *rb_next(const rb_node *node) noexcept nogil:
    cdef rb_node *parent

    if RB_EMPTY_NODE(node):
        return NULL

    # The next node is the first one of the right subtree, if there is one.
    if node.rb_right is not NULL:
        node = node.rb_right
        while node.rb_left is not NULL:
            node = node.rb_left
        return <rb_node *>node

    # Else it is the first ancestor that has node on its left: the ancestors passed on the way sort before node.
    parent = rb_parent(node)
    while parent is not NULL and node == parent.rb_right:
        node = parent
        parent = rb_parent(node)

    return parent


cdef rb_node *rb_prev(const rb_node *node) noexcept nogil:
    cdef rb_node *parent

    if RB_EMPTY_NODE(node):
        return NULL

    # rb_next(), mirrored.
    if node.rb_left is not NULL:
        node = node.rb_left
        while node.rb_right is not NULL:
            node = node.rb_right
        return <rb_node *>node

    parent = rb_parent(node)
    while parent is not NULL and node == parent.rb_left:
        node = parent
        parent = rb_parent(node)

    return parent


cdef void rb_replace_node(rb_node *victim, rb_node *new, rb_root *root) noexcept nogil:
    cdef rb_node *parent = rb_parent(victim)

    # All three words: parent with colour, and both children.
    new[0] = victim[0]

    if victim.rb_left is not NULL:
        rb_set_parent(victim.rb_left, new)
    if victim.rb_right is not NULL:
        rb_set_parent(victim.rb_right, new)
    __rb_change_child(victim, new, parent, root)


# rb_replace_node_rcu(): left out, no tree here has readers without a lock.


cdef rb_node *rb_left_deepest_node(const rb_node *node) noexcept nogil:
    while True:
        if node.rb_left is not NULL:
            node = node.rb_left
        elif node.rb_right is not NULL:
            node = node.rb_right
        else:
            return <rb_node *>node


cdef rb_node *rb_next_postorder(const rb_node *node) noexcept nogil:
    cdef const rb_node *parent

    if node is NULL:
        return NULL
    parent = rb_parent(node)

    # Everything below node has been visited. From a left child the walk goes to the bottom of its sibling, else to the parent.
    if parent is not NULL and node == parent.rb_left and parent.rb_right is not NULL:
        return rb_left_deepest_node(parent.rb_right)
    else:
        return <rb_node *>parent


cdef rb_node *rb_first_postorder(const rb_root *root) noexcept nogil:
    if root.rb_node is NULL:
        return NULL

    return rb_left_deepest_node(root.rb_node)

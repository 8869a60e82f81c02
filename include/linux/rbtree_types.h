/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Follows include/linux/rbtree_types.h of Linux 6.12. In C, so that other C structures can hold a node. */
#ifndef _LINUX_RBTREE_TYPES_H
#define _LINUX_RBTREE_TYPES_H

/* The alignment leaves the two low bits of every node's address free: one of them is the colour of its children's parent word. */
struct rb_node {
	unsigned long __rb_parent_color;
	struct rb_node *rb_right;
	struct rb_node *rb_left;
} __attribute__((aligned(sizeof(long))));

struct rb_root {
	struct rb_node *rb_node;
};

/* A root that also remembers its first node. */
struct rb_root_cached {
	struct rb_root rb_root;
	struct rb_node *rb_leftmost;
};

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Follows include/linux/types.h of Linux 6.12, its three list structures. Not named types.h, nor may any header here be named like one
 * in /usr/include/linux: with -Iinclude it would hide that one from the C library.
 */
#ifndef _LINUX_LIST_TYPES_H
#define _LINUX_LIST_TYPES_H

struct list_head {
	struct list_head *next, *prev;
};

struct hlist_node;

struct hlist_head {
	struct hlist_node *first;
};

struct hlist_node {
	struct hlist_node *next, **pprev;
};

#endif

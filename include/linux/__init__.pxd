# SPDX-License-Identifier: GPL-2.0-only
# Makes include/linux a package for Cython: `from linux.rbtree cimport rb_node` is its `#include <linux/rbtree.h>`.

# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/interval_tree.c of Linux 6.12.

from linux.mm_types cimport anon_vma_chain
from linux.rbtree cimport rb_root


cdef void anon_vma_interval_tree_insert(anon_vma_chain *node, rb_root *root) noexcept nogil
cdef void anon_vma_interval_tree_remove(anon_vma_chain *node, rb_root *root) noexcept nogil
cdef anon_vma_chain *anon_vma_interval_tree_iter_first(rb_root *root, unsigned long first, unsigned long last) noexcept nogil
cdef anon_vma_chain *anon_vma_interval_tree_iter_next(anon_vma_chain *node, unsigned long first, unsigned long last) noexcept nogil

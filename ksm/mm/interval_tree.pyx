# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/interval_tree.c of Linux 6.12.
"""The vmas of an anon_vma, ordered by the page offsets that they cover.

The kernel's tree keeps the last offset below each node, to skip subtrees. This one is a plain tree in the same order, and a query walks
from the first vma on. An anon_vma seldom has more than a few vmas. The results and their order are the same.
"""

from linux.mm_types cimport anon_vma_chain, avc_of_rb
from linux.mm cimport vma_pages
from linux.rbtree cimport rb_link_node, rb_node, rb_root

from ksm.lib.rbtree cimport rb_erase, rb_first, rb_insert_color, rb_next


cdef inline unsigned long avc_start_pgoff(anon_vma_chain *avc) noexcept nogil:
    return avc.vma.vm_pgoff


cdef inline unsigned long avc_last_pgoff(anon_vma_chain *avc) noexcept nogil:
    return avc.vma.vm_pgoff + vma_pages(avc.vma) - 1


cdef void anon_vma_interval_tree_insert(anon_vma_chain *node, rb_root *root) noexcept nogil:
    cdef rb_node **link = &root.rb_node
    cdef rb_node *parent = NULL
    cdef unsigned long start = avc_start_pgoff(node)
    while link[0] != NULL:
        parent = link[0]
        if start < avc_start_pgoff(avc_of_rb(parent)):
            link = &parent.rb_left
        else:
            link = &parent.rb_right
    rb_link_node(&node.rb, parent, link)
    rb_insert_color(&node.rb, root)


cdef void anon_vma_interval_tree_remove(anon_vma_chain *node, rb_root *root) noexcept nogil:
    rb_erase(&node.rb, root)


cdef anon_vma_chain *overlapping(rb_node *node, unsigned long first, unsigned long last) noexcept nogil:
    """The first vma from `node` on that overlaps [first, last]."""
    while node != NULL and avc_start_pgoff(avc_of_rb(node)) <= last:
        if avc_last_pgoff(avc_of_rb(node)) >= first:
            return avc_of_rb(node)
        node = rb_next(node)
    return NULL


cdef anon_vma_chain *anon_vma_interval_tree_iter_first(rb_root *root, unsigned long first, unsigned long last) noexcept nogil:
    return overlapping(rb_first(root), first, last)


cdef anon_vma_chain *anon_vma_interval_tree_iter_next(anon_vma_chain *node, unsigned long first, unsigned long last) noexcept nogil:
    return overlapping(rb_next(&node.rb), first, last)

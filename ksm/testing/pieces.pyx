# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: loops over the small pieces, for benchmarks/test_pieces.py.
"""Small pieces of KSM's work, each repeated many times in one call, since a call from Python costs more than most of them."""

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from linux.mm_types cimport PAGE_SIZE
from linux.rbtree cimport rb_link_node, rb_node, rb_root

from ksm.fast.xxhash_many cimport xxh64_pages
from ksm.lib.rbtree cimport rb_erase, rb_insert_color
from ksm.lib.xxhash cimport xxhash

cdef struct item:
    rb_node node
    uint64_t key


def rb_insert_erase(unsigned long count):
    """Insert `count` nodes into a tree, in an order without a pattern, and take them out again. Returns the number taken out."""
    cdef rb_root root
    cdef rb_node **link
    cdef rb_node *parent
    cdef unsigned long i, left = 0
    cdef item *items = <item *>calloc(max(count, 1), sizeof(item))
    if items == NULL:
        raise MemoryError
    root.rb_node = NULL
    with nogil:
        for i in range(count):
            items[i].key = i * <uint64_t>0x9E3779B97F4A7C15
            link = &root.rb_node
            parent = NULL
            while link[0] != NULL:
                parent = link[0]
                link = &parent.rb_left if items[i].key < (<item *>parent).key else &parent.rb_right
            rb_link_node(&items[i].node, parent, link)
            rb_insert_color(&items[i].node, &root)
        for i in range(count):
            rb_erase(&items[i].node, &root)
            left += root.rb_node != NULL
    free(items)
    return left + 1 if count else 0


def checksum(const unsigned char[::1] memory not None):
    """The sum of the xxhash of every page, one page after the other."""
    cdef uint64_t total = 0
    cdef Py_ssize_t i
    with nogil:
        for i in range(memory.shape[0] // <Py_ssize_t>PAGE_SIZE):
            total += xxhash(&memory[i * <Py_ssize_t>PAGE_SIZE], PAGE_SIZE, 0)
    return total


def checksums(const unsigned char[::1] memory not None):
    """The same sum as checksum(), with 64 pages in a call of xxh64_pages()."""
    cdef const void *pages[64]
    cdef uint64_t sums[64]
    cdef uint64_t total = 0
    cdef Py_ssize_t i = 0, all_pages = memory.shape[0] // <Py_ssize_t>PAGE_SIZE
    cdef int have, j
    with nogil:
        while i < all_pages:
            have = <int>min(all_pages - i, 64)
            for j in range(have):
                pages[j] = &memory[(i + j) * <Py_ssize_t>PAGE_SIZE]
            xxh64_pages(pages, sums, have)
            for j in range(have):
                total += sums[j]
            i += have
    return total


def compare(const unsigned char[::1] memory not None):
    """memcmp of every page with the next one. Returns the number that were equal."""
    cdef Py_ssize_t i, found = 0
    with nogil:
        for i in range(memory.shape[0] // <Py_ssize_t>PAGE_SIZE - 1):
            found += memcmp(&memory[i * <Py_ssize_t>PAGE_SIZE], &memory[(i + 1) * <Py_ssize_t>PAGE_SIZE], PAGE_SIZE) == 0
    return found

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel. TEST SUPPORT: the tests of include/ and ksm/lib/ reach C from Python through this. Nothing else imports it.
"""The lists and hashes of include/linux and ksm.lib as Python objects, for tests only. Trees are in rbtree.pyx."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from ksm.lib.xxhash cimport xxh64 as c_xxh64
from ksm.lib.xxhash cimport xxhash as c_xxhash
from linux.hash cimport hash32_ptr as c_hash32_ptr
from linux.hash cimport hash_32 as c_hash_32
from linux.hash cimport hash_64 as c_hash_64
from linux.hash cimport hash_long
from linux.hash cimport hash_ptr as c_hash_ptr
from linux.hashtable cimport hash_add, hash_del, hash_empty, hash_hashed, hash_init
from linux.jhash cimport jhash as c_jhash
from linux.jhash cimport jhash2 as c_jhash2
from linux.jhash cimport jhash_1word, jhash_2words, jhash_3words, jhash_mask
from linux.jhash cimport jhash_size as c_jhash_size
from linux.list cimport (
    INIT_HLIST_HEAD, INIT_HLIST_NODE, INIT_LIST_HEAD, hlist_add_before, hlist_add_behind, hlist_add_head, hlist_count_nodes,
    hlist_del, hlist_del_init, hlist_empty, hlist_is_singular_node, hlist_move_list, hlist_unhashed, list_add, list_add_tail,
    list_bulk_move_tail, list_del, list_del_init, list_empty, list_is_first, list_is_head, list_is_last, list_is_singular, list_move,
    list_move_tail, list_replace, list_replace_init, list_rotate_left, list_rotate_to_front, list_splice, list_splice_init,
    list_splice_tail, list_splice_tail_init, list_swap,
)
from linux.poison cimport LIST_POISON1, LIST_POISON2
from linux.types cimport hlist_head, hlist_node, list_head

SIZES = {"list_head": sizeof(list_head), "hlist_head": sizeof(hlist_head), "hlist_node": sizeof(hlist_node)}


# Lists

cdef struct ring_item:
    list_head node
    int number


cdef inline ring_item *ring_entry(list_head *p) noexcept nogil:
    return <ring_item *>(<char *>p - <size_t>&(<ring_item *>NULL).node)


cdef class Rings:
    """Some heads and some items, by number. The methods are those of linux/list.h. They do not check whether a call is legal."""

    cdef list_head *heads
    cdef ring_item *items
    cdef readonly int nr_heads, nr_items

    def __cinit__(self, int nr_heads, int nr_items):
        cdef int i
        self.nr_heads, self.nr_items = nr_heads, nr_items
        self.heads = <list_head *>calloc(nr_heads, sizeof(list_head))
        self.items = <ring_item *>calloc(nr_items, sizeof(ring_item))
        if self.heads is NULL or self.items is NULL:
            raise MemoryError
        for i in range(nr_heads):
            INIT_LIST_HEAD(&self.heads[i])
        for i in range(nr_items):
            INIT_LIST_HEAD(&self.items[i].node)
            self.items[i].number = i

    def __dealloc__(self):
        free(self.heads)
        free(self.items)

    def order(self, int h):
        """The items of a ring, forwards. The way back must give the same."""
        cdef list_head *pos = self.heads[h].next
        found = []
        while pos != &self.heads[h]:
            if pos.next.prev != pos or pos.prev.next != pos:
                raise AssertionError(f"broken at {ring_entry(pos).number}")
            found.append(ring_entry(pos).number)
            pos = pos.next
        return found

    def list_add(self, int i, int h):
        list_add(&self.items[i].node, &self.heads[h])

    def list_add_tail(self, int i, int h):
        list_add_tail(&self.items[i].node, &self.heads[h])

    def list_del(self, int i):
        list_del(&self.items[i].node)

    def list_del_init(self, int i):
        list_del_init(&self.items[i].node)

    def list_replace(self, int i, int j):
        list_replace(&self.items[i].node, &self.items[j].node)

    def list_replace_init(self, int i, int j):
        list_replace_init(&self.items[i].node, &self.items[j].node)

    def list_swap(self, int i, int j):
        list_swap(&self.items[i].node, &self.items[j].node)

    def list_move(self, int i, int h):
        list_move(&self.items[i].node, &self.heads[h])

    def list_move_tail(self, int i, int h):
        list_move_tail(&self.items[i].node, &self.heads[h])

    def list_bulk_move_tail(self, int h, int i, int j):
        list_bulk_move_tail(&self.heads[h], &self.items[i].node, &self.items[j].node)

    def list_rotate_left(self, int h):
        list_rotate_left(&self.heads[h])

    def list_rotate_to_front(self, int i, int h):
        list_rotate_to_front(&self.items[i].node, &self.heads[h])

    def list_splice(self, int h, int g):
        """Leaves head h as it was: initialise it with init() before it is used again."""
        list_splice(&self.heads[h], &self.heads[g])

    def list_splice_tail(self, int h, int g):
        list_splice_tail(&self.heads[h], &self.heads[g])

    def list_splice_init(self, int h, int g):
        list_splice_init(&self.heads[h], &self.heads[g])

    def list_splice_tail_init(self, int h, int g):
        list_splice_tail_init(&self.heads[h], &self.heads[g])

    def init(self, int h):
        INIT_LIST_HEAD(&self.heads[h])

    def list_empty(self, int h):
        return list_empty(&self.heads[h])

    def list_is_singular(self, int h):
        return list_is_singular(&self.heads[h])

    def list_is_first(self, int i, int h):
        return list_is_first(&self.items[i].node, &self.heads[h])

    def list_is_last(self, int i, int h):
        return list_is_last(&self.items[i].node, &self.heads[h])

    def list_is_head(self, int h, int g):
        return list_is_head(&self.heads[h], &self.heads[g])

    def links(self, int i):
        """(next, prev) of an item, as numbers."""
        return <unsigned long>self.items[i].node.next, <unsigned long>self.items[i].node.prev

    def alone(self, int i):
        return list_empty(&self.items[i].node)


cdef struct chain_item:
    hlist_node node
    int number


cdef inline chain_item *chain_entry(hlist_node *p) noexcept nogil:
    return <chain_item *>(<char *>p - <size_t>&(<chain_item *>NULL).node)


cdef object chain_order(hlist_head *head):
    cdef hlist_node **link = &head.first
    found = []
    while link[0] is not NULL:
        if link[0].pprev != link:
            raise AssertionError(f"broken at {chain_entry(link[0]).number}")
        found.append(chain_entry(link[0]).number)
        link = &link[0].next
    if hlist_count_nodes(head) != <size_t>len(found):
        raise AssertionError("hlist_count_nodes")
    return found


cdef class Chains:
    """The same for hlist: heads and items by number."""

    cdef hlist_head *heads
    cdef chain_item *items
    cdef readonly int nr_heads, nr_items

    def __cinit__(self, int nr_heads, int nr_items):
        cdef int i
        self.nr_heads, self.nr_items = nr_heads, nr_items
        self.heads = <hlist_head *>calloc(nr_heads, sizeof(hlist_head))
        self.items = <chain_item *>calloc(nr_items, sizeof(chain_item))
        if self.heads is NULL or self.items is NULL:
            raise MemoryError
        for i in range(nr_heads):
            INIT_HLIST_HEAD(&self.heads[i])
        for i in range(nr_items):
            INIT_HLIST_NODE(&self.items[i].node)
            self.items[i].number = i

    def __dealloc__(self):
        free(self.heads)
        free(self.items)

    def order(self, int h):
        return chain_order(&self.heads[h])

    def hlist_add_head(self, int i, int h):
        hlist_add_head(&self.items[i].node, &self.heads[h])

    def hlist_add_before(self, int i, int j):
        hlist_add_before(&self.items[i].node, &self.items[j].node)

    def hlist_add_behind(self, int i, int j):
        hlist_add_behind(&self.items[i].node, &self.items[j].node)

    def hlist_del(self, int i):
        hlist_del(&self.items[i].node)

    def hlist_del_init(self, int i):
        hlist_del_init(&self.items[i].node)

    def hlist_move_list(self, int h, int g):
        hlist_move_list(&self.heads[h], &self.heads[g])

    def hlist_empty(self, int h):
        return hlist_empty(&self.heads[h])

    def hlist_unhashed(self, int i):
        return hlist_unhashed(&self.items[i].node)

    def hlist_is_singular_node(self, int i, int h):
        return hlist_is_singular_node(&self.items[i].node, &self.heads[h])

    def links(self, int i):
        """(next, pprev) of an item, as numbers."""
        return <unsigned long>self.items[i].node.next, <unsigned long>self.items[i].node.pprev


def poison():
    return <unsigned long>LIST_POISON1, <unsigned long>LIST_POISON2


cdef class HashTable:
    """Items by number, each under a key of its own choice."""

    cdef hlist_head *table
    cdef chain_item *items
    cdef readonly unsigned int bits

    def __cinit__(self, unsigned int bits, int nr_items):
        cdef int i
        self.bits = bits
        self.table = <hlist_head *>calloc(1 << bits, sizeof(hlist_head))
        self.items = <chain_item *>calloc(nr_items, sizeof(chain_item))
        if self.table is NULL or self.items is NULL:
            raise MemoryError
        hash_init(self.table, bits)
        for i in range(nr_items):
            INIT_HLIST_NODE(&self.items[i].node)
            self.items[i].number = i

    def __dealloc__(self):
        free(self.table)
        free(self.items)

    def hash_add(self, int i, unsigned long key):
        hash_add(self.table, self.bits, &self.items[i].node, key)

    def hash_del(self, int i):
        hash_del(&self.items[i].node)

    def hash_hashed(self, int i):
        return hash_hashed(&self.items[i].node)

    def hash_empty(self):
        return hash_empty(self.table, self.bits)

    def bucket(self, unsigned long key):
        return chain_order(&self.table[hash_long(key, self.bits)])


# Hashes

cdef inline const unsigned char *start(const unsigned char[::1] data) noexcept nogil:
    return &data[0] if data.shape[0] else NULL


def xxh64(const unsigned char[::1] data, uint64_t seed=0):
    return c_xxh64(start(data), data.shape[0], seed)


def xxhash(const unsigned char[::1] data, uint64_t seed=0):
    return c_xxhash(start(data), data.shape[0], seed)


def jhash(const unsigned char[::1] data, uint32_t initval=0):
    return c_jhash(start(data), <uint32_t>data.shape[0], initval)


def jhash2(const unsigned char[::1] data, uint32_t initval=0):
    """Over the 32-bit words of data, in the byte order of this machine."""
    if data.shape[0] % 4:
        raise ValueError("not a whole number of words")
    return c_jhash2(<const uint32_t *>start(data), <uint32_t>(data.shape[0] // 4), initval)


def jhash_words(words, uint32_t initval=0):
    """jhash_1word(), jhash_2words() or jhash_3words()."""
    if len(words) == 1:
        return jhash_1word(words[0], initval)
    if len(words) == 2:
        return jhash_2words(words[0], words[1], initval)
    return jhash_3words(words[0], words[1], words[2], initval)


def jhash_size(uint32_t n):
    return c_jhash_size(n), jhash_mask(n)


def hash_32(uint32_t val, unsigned int bits):
    return c_hash_32(val, bits)


def hash_64(uint64_t val, unsigned int bits):
    return c_hash_64(val, bits)


def hash_ptr(unsigned long address, unsigned int bits):
    return c_hash_ptr(<void *>address, bits)


def hash32_ptr(unsigned long address):
    return c_hash32_ptr(<void *>address)

# SPDX-License-Identifier: GPL-2.0-only
# Follows include/linux/hashtable.h of Linux 6.12.
"""A hash table is an array of 1 << bits hlist_head.

OURS: the kernel's macros read the number of bits off the type of the array; here it is an argument, next to the table. Keys are
longs, so hash_min() is hash_long(). The hash_for_each family is a loop over hlist_node, see linux/list.pxd; a bucket is
table[hash_long(key, bits)].
"""

from linux.hash cimport hash_long
from linux.list cimport INIT_HLIST_HEAD, hlist_add_head, hlist_del_init, hlist_empty, hlist_unhashed
from linux.types cimport hlist_head, hlist_node


cdef inline void __hash_init(hlist_head *ht, unsigned int sz) noexcept nogil:
    cdef unsigned int i

    for i in range(sz):
        INIT_HLIST_HEAD(&ht[i])


cdef inline void hash_init(hlist_head *hashtable, unsigned int bits) noexcept nogil:
    __hash_init(hashtable, 1U << bits)


cdef inline void hash_add(hlist_head *hashtable, unsigned int bits, hlist_node *node, unsigned long key) noexcept nogil:
    hlist_add_head(node, &hashtable[hash_long(key, bits)])


# hash_add_rcu(): left out, as every _rcu form: no table here has readers without a lock.


cdef inline bint hash_hashed(hlist_node *node) noexcept nogil:
    return not hlist_unhashed(node)


cdef inline bint __hash_empty(hlist_head *ht, unsigned int sz) noexcept nogil:
    cdef unsigned int i

    for i in range(sz):
        if not hlist_empty(&ht[i]):
            return False

    return True


cdef inline bint hash_empty(hlist_head *hashtable, unsigned int bits) noexcept nogil:
    return __hash_empty(hashtable, 1U << bits)


cdef inline void hash_del(hlist_node *node) noexcept nogil:
    hlist_del_init(node)

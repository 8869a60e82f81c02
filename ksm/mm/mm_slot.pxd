# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/mm_slot.h of Linux 6.12.
"""The part of a slot that KSM shares with khugepaged: it finds the slot of an address space by hash or in a list."""

from linux.hash cimport hash_long
from linux.hashtable cimport hash_add
from linux.mm_types cimport mm_struct
from linux.slab cimport kmem_cache
from linux.types cimport hlist_head, hlist_node, list_head

from ksm.mm.slub cimport kmem_cache_free, kmem_cache_zalloc


cdef struct struct_mm_slot "mm_slot":
    hlist_node hash
    list_head mm_node
    mm_struct *mm


cdef inline struct_mm_slot *mm_slot_of_hash(hlist_node *link) noexcept nogil:
    return <struct_mm_slot *>(<char *>link - <size_t>&(<struct_mm_slot *>NULL).hash)


cdef inline void *mm_slot_alloc(kmem_cache *cache) noexcept nogil:
    if cache == NULL:
        return NULL
    return kmem_cache_zalloc(cache)


cdef inline void mm_slot_free(kmem_cache *cache, void *objp) noexcept nogil:
    kmem_cache_free(cache, objp)


cdef inline struct_mm_slot *mm_slot_lookup(hlist_head *hashtable, unsigned int bits, mm_struct *mm) noexcept nogil:
    cdef hlist_node *node = hashtable[hash_long(<unsigned long>mm, bits)].first
    while node != NULL:
        if mm_slot_of_hash(node).mm == mm:
            return mm_slot_of_hash(node)
        node = node.next
    return NULL


cdef inline void mm_slot_insert(hlist_head *hashtable, unsigned int bits, mm_struct *mm, struct_mm_slot *slot) noexcept nogil:
    slot.mm = mm
    hash_add(hashtable, bits, &slot.hash, <unsigned long>mm)

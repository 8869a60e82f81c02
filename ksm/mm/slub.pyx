# SPDX-License-Identifier: GPL-2.0-only
# Stands in for mm/slub.c of Linux 6.12.
"""Caches of equal objects, for rmap_items, stable nodes, vmas and the like.

Objects start at multiples of 64 bytes, so the low bits of their addresses are free for flags. The object that was freed last is handed out
first. Objects come from chunks. The chunks grow with the cache up to the size of a huge page, and ask the system for huge pages, because a
search in a tree of rmap_items jumps from one end of them to the other. A chunk stays until the cache is destroyed. kmem_cache_alloc() does
not clear the object, kmem_cache_zalloc() does.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memset

from linux.mm_types cimport PAGE_SIZE
from linux.slab cimport kmem_cache, should_fail
from linux.spinlock cimport spin_lock, spin_lock_init, spin_unlock

from ksm.host.arena cimport reserve
from ksm.host.mman cimport MADV_HUGEPAGE, PROT_READ, PROT_WRITE, c_madvise, c_munmap


cdef enum:
    SMALLEST_CHUNK = 16384
    LARGEST_CHUNK = 2097152
    POISON_FREE = 0x6b


cdef struct chunk_header:
    void *next
    size_t length


cdef kmem_cache *kmem_cache_create(const char *name, size_t size) noexcept nogil:
    """A cache for objects of this size; NULL without memory."""
    cdef kmem_cache *cache = <kmem_cache *>calloc(1, sizeof(kmem_cache))
    if cache == NULL:
        return NULL
    cache.name = name
    cache.object_size = size
    cache.size = (size + 63) & ~<size_t>63
    spin_lock_init(&cache.lock)
    return cache


cdef kmem_cache *kmem_cache_create_typesafe(const char *name, size_t size) noexcept nogil:
    """The same, for objects that may be read after they were freed: SLAB_TYPESAFE_BY_RCU. New objects are zeros."""
    cdef kmem_cache *cache = kmem_cache_create(name, size + sizeof(void *))     # the link of free objects follows the object
    if cache != NULL:
        cache.object_size = size
        cache.typesafe = True
    return cache


cdef inline void **free_link(kmem_cache *cache, void *object) noexcept nogil:
    return <void **>(<char *>object + cache.size - sizeof(void *)) if cache.typesafe else <void **>object


cdef void kmem_cache_destroy(kmem_cache *cache) noexcept nogil:
    cdef chunk_header *chunk
    if cache == NULL:
        return
    while cache.slabs != NULL:
        chunk = <chunk_header *>cache.slabs
        cache.slabs = chunk.next
        c_munmap(chunk, chunk.length)
    free(cache)


cdef bint grow(kmem_cache *cache) noexcept nogil:
    cdef size_t length = SMALLEST_CHUNK
    cdef chunk_header *chunk = <chunk_header *>cache.slabs
    if chunk != NULL:
        length = chunk.length * 2 if chunk.length < LARGEST_CHUNK else LARGEST_CHUNK
    chunk = <chunk_header *>reserve(length, length, PROT_READ | PROT_WRITE)
    if chunk == NULL:
        return False
    # A page table fills a whole page anyway, so its chunk is not made of huge pages.
    if length == LARGEST_CHUNK and cache.size < PAGE_SIZE:
        c_madvise(chunk, length, MADV_HUGEPAGE)
    chunk.next = cache.slabs
    chunk.length = length
    cache.slabs = chunk
    cache.nr_slabs += 1
    cache.fresh = <char *>chunk + 64
    cache.fresh_end = <char *>chunk + length
    return True


cdef void *kmem_cache_alloc(kmem_cache *cache) noexcept nogil:
    """An object with unknown content; NULL without memory, or when the cache was told to fail."""
    cdef void *object = NULL
    spin_lock(&cache.lock)
    if should_fail(&cache.fail):
        spin_unlock(&cache.lock)
        return NULL
    if cache.freelist != NULL:
        object = cache.freelist
        cache.freelist = free_link(cache, object)[0]
    elif cache.fresh != NULL and cache.fresh + cache.size <= cache.fresh_end or grow(cache):
        object = cache.fresh
        cache.fresh += cache.size
    if object != NULL:
        cache.nr_objects += 1
    spin_unlock(&cache.lock)
    return object


cdef void *kmem_cache_zalloc(kmem_cache *cache) noexcept nogil:
    """The same, filled with zeros."""
    cdef void *object = kmem_cache_alloc(cache)
    if object != NULL:
        memset(object, 0, cache.size)
    return object


cdef void kmem_cache_free(kmem_cache *cache, void *object) noexcept nogil:
    if cache.freed != NULL:
        cache.freed(cache.freed_arg, object)
    if not cache.typesafe:
        memset(object, POISON_FREE, cache.object_size)
    spin_lock(&cache.lock)
    free_link(cache, object)[0] = cache.freelist
    cache.freelist = object
    cache.nr_objects -= 1
    cache.nr_freed += 1
    spin_unlock(&cache.lock)

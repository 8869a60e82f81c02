# SPDX-License-Identifier: GPL-2.0-only
# Stands in for mm/slub.c of Linux 6.12.

from linux.slab cimport kmem_cache


cdef kmem_cache *kmem_cache_create(const char *name, size_t size) noexcept nogil
cdef kmem_cache *kmem_cache_create_typesafe(const char *name, size_t size) noexcept nogil
cdef void kmem_cache_destroy(kmem_cache *cache) noexcept nogil
cdef void *kmem_cache_alloc(kmem_cache *cache) noexcept nogil
cdef void *kmem_cache_zalloc(kmem_cache *cache) noexcept nogil
cdef void kmem_cache_free(kmem_cache *cache, void *object) noexcept nogil

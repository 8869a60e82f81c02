# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: verifying a machine.
"""The parts that the files of the checker share. See ksm/check/invariants.pyx."""

from libc.stdlib cimport calloc, free

from linux.mm_types cimport struct_anon_vma


# Maps from addresses to counters: open addressing, never more than half full

cdef inline size_t place_of(ptr_map *map, const void *key) noexcept nogil:
    """The index at which the key is, or would be put."""
    cdef size_t i = ((<unsigned long>key >> 6) * 0x9e3779b97f4a7c15UL >> 20) & (map.size - 1)
    while map.slots[i].key != NULL and map.slots[i].key != key:
        i = (i + 1) & (map.size - 1)
    return i


cdef tally *map_find(ptr_map *map, const void *key) noexcept nogil:
    """The counters of this address; NULL if it is not in the map."""
    cdef size_t i
    if map.used == 0 or key == NULL:
        return NULL
    i = place_of(map, key)
    return &map.slots[i] if map.slots[i].key != NULL else NULL


cdef bint map_grow(ptr_map *map) noexcept nogil:
    cdef ptr_map larger
    cdef size_t i
    larger.size = map.size * 2 if map.size else 256
    larger.slots = <tally *>calloc(larger.size, sizeof(tally))
    if larger.slots == NULL:
        return False
    for i in range(map.size):
        if map.slots[i].key != NULL:
            larger.slots[place_of(&larger, map.slots[i].key)] = map.slots[i]
    free(map.slots)
    map.slots = larger.slots
    map.size = larger.size
    return True


cdef tally *map_put(checker *c, ptr_map *map, const void *key) noexcept nogil:
    """The counters of this address, zeros if it is new; valid until the next map_put(). NULL without memory."""
    cdef size_t i
    if map.used * 2 >= map.size and not map_grow(map):
        c.no_memory = True
        return NULL
    i = place_of(map, key)
    if map.slots[i].key == NULL:
        map.slots[i].key = key
        map.used += 1
    return &map.slots[i]


# Anon_vmas

cdef tally *see_relative(checker *c, struct_anon_vma *anon_vma, struct_anon_vma *relative) noexcept nogil:
    if not looks_like_object(relative):
        finding(&c.found, b"anon_vma %p: root or parent %p", anon_vma, relative)
        return NULL
    see_anon_vma(c, relative)
    return map_put(c, &c.anon_vmas, relative)


cdef tally *see_anon_vma(checker *c, struct_anon_vma *anon_vma) noexcept nogil:
    """map_put() for an anon_vma. When it is seen for the first time, its root is counted one more descendant, and its parent one more
    child.
    """
    cdef tally *seen = map_put(c, &c.anon_vmas, anon_vma)
    if seen == NULL or seen.n[ANON_VMA_SEEN]:
        return seen
    seen.n[ANON_VMA_SEEN] = 1
    if anon_vma.root != anon_vma:
        seen = see_relative(c, anon_vma, anon_vma.root)
        if seen != NULL:
            seen.n[ANON_VMA_DESCENDANTS] += 1
    # An anon_vma without vmas may have survived its parent.
    if anon_vma.rb_root.rb_node != NULL:
        seen = see_relative(c, anon_vma, anon_vma.parent)
        if seen != NULL:
            seen.n[ANON_VMA_CHILDREN] += 1
    return map_put(c, &c.anon_vmas, anon_vma)

# SPDX-License-Identifier: GPL-2.0-only
# Follows include/linux/page-flags.h, page_ref.h and the page parts of mm.h of Linux 6.12.
"""A frame's flags, its two counts and its tagged mapping word.

The two low bits of `mapping` say what a frame is: 1 anonymous (the rest is its anon_vma), 3 merged by KSM (the rest is its stable node, or
NULL). folio_test_anon() is true for both, folio_anon_vma() returns a pointer for the first only.
"""

from linux.atomic cimport (READ_ONCE_uint, atomic_add_return, atomic_fetch_and, atomic_fetch_or, atomic_inc_not_zero, atomic_read,
                           atomic_try_cmpxchg, smp_load_acquire_ptr, smp_store_release_int, smp_store_release_ptr)
from linux.mm_types cimport HPAGE_PMD_NR, machine, struct_anon_vma, struct_folio, struct_page
from linux.spinlock cimport backoff


cdef enum:
    PG_locked = 0x1
    PG_referenced = 0x2
    PG_uptodate = 0x4
    PG_dirty = 0x8
    PG_lru = 0x10
    PG_swapcache = 0x20
    PG_writeback = 0x40
    PG_hwpoison = 0x80
    PG_head = 0x100
    PG_tail = 0x200
    PG_anon_exclusive = 0x400
    PG_buddy = 0x800            # on a free list
    PG_isolated = 0x1000        # taken off the LRU by migration
    PG_reserved = 0x2000        # the zero page, and frames that do not exist
    PG_plugged = 0x4000         # in a plugged-in range: not for the page allocator
    PG_file = 0x40000           # in a plugged-in mapped file, which the system may have to read
    PG_swapbacked = 0x8000
    PG_active = 0x10000
    PG_offline = 0x100000       # free, memory given back, on no free list: the range is or goes offline, or is plugged in
    PG_lost = 0x200000          # OURS: the page could not be read from its file, and is zeros (ksm/host/busfault.pyx)
    # OURS: the page was mapped by relatives when KSM merged it, or was swapped since. Entries in any vma may map it that no rmap_item leads
    # to, and may be dirty.
    PG_ksm_relatives = 0x20000
    # OURS: the page was neither written to nor unmapped since ksmd looked at it. `private` may be the number of its rmap_item
    # (ksm/fast/watch.pxd).
    PG_ksm_watched = 0x80000
    PG_node_shift = 24          # the node is in the top byte

cdef enum:
    PAGE_MAPPING_ANON = 0x1
    PAGE_MAPPING_MOVABLE = 0x2
    PAGE_MAPPING_KSM = 0x3
    PAGE_MAPPING_FLAGS = 0x3


cdef inline struct_page *pfn_to_page(machine *m, unsigned long pfn) noexcept nogil:
    return m.mem_map + pfn


cdef inline unsigned long page_to_pfn(machine *m, const struct_page *page) noexcept nogil:
    return <unsigned long>(page - m.mem_map)


cdef inline struct_folio *pfn_folio(machine *m, unsigned long pfn) noexcept nogil:
    return page_folio(pfn_to_page(m, pfn))


cdef inline unsigned long folio_pfn(machine *m, struct_folio *folio) noexcept nogil:
    return page_to_pfn(m, folio)


cdef inline struct_page *compound_head(struct_page *page) noexcept nogil:
    # mem_map is aligned to the structs of one huge page, so a tail's own address leads to its head.
    if READ_ONCE_uint(page.flags) & PG_tail:
        return <struct_page *>(<unsigned long>page & ~(<unsigned long>HPAGE_PMD_NR * sizeof(struct_page) - 1))
    return page


cdef inline struct_folio *page_folio(struct_page *page) noexcept nogil:
    return compound_head(page)


cdef inline struct_page *folio_page(struct_folio *folio, unsigned long n) noexcept nogil:
    return folio + n


cdef inline int page_to_nid(const struct_page *page) noexcept nogil:
    return <int>(READ_ONCE_uint(page.flags) >> PG_node_shift)


cdef inline void *page_address(machine *m, const struct_page *page) noexcept nogil:
    return m.arena + (page_to_pfn(m, page) * m.frame_size)


# Flags

cdef inline bint test_page_flag(const struct_page *page, unsigned int flag) noexcept nogil:
    return (READ_ONCE_uint(page.flags) & flag) != 0


cdef inline void set_page_flag(struct_page *page, unsigned int flag) noexcept nogil:
    atomic_fetch_or(&page.flags, flag)


cdef inline void clear_page_flag(struct_page *page, unsigned int flag) noexcept nogil:
    atomic_fetch_and(&page.flags, ~flag)


cdef inline bint folio_test_swapcache(const struct_folio *folio) noexcept nogil:
    return test_page_flag(folio, PG_swapcache)


cdef inline bint folio_test_large(const struct_folio *folio) noexcept nogil:
    return test_page_flag(folio, PG_head)


cdef inline bint PageTransCompound(const struct_page *page) noexcept nogil:
    return test_page_flag(page, PG_head | PG_tail)


cdef inline bint folio_test_lru(const struct_folio *folio) noexcept nogil:
    return test_page_flag(folio, PG_lru)


cdef inline bint folio_test_uptodate(const struct_folio *folio) noexcept nogil:
    return test_page_flag(folio, PG_uptodate)


cdef inline void __folio_mark_uptodate(struct_folio *folio) noexcept nogil:
    set_page_flag(folio, PG_uptodate)


cdef inline bint PageDirty(const struct_page *page) noexcept nogil:
    return test_page_flag(compound_head(<struct_page *>page), PG_dirty)


cdef inline void SetPageDirty(struct_page *page) noexcept nogil:
    set_page_flag(compound_head(page), PG_dirty)


cdef inline void folio_mark_dirty(struct_folio *folio) noexcept nogil:
    set_page_flag(folio, PG_dirty)


cdef inline void folio_set_dirty(struct_folio *folio) noexcept nogil:
    set_page_flag(folio, PG_dirty)


cdef inline bint folio_test_dirty(const struct_folio *folio) noexcept nogil:
    return test_page_flag(folio, PG_dirty)


cdef inline bint folio_test_clear_dirty(struct_folio *folio) noexcept nogil:
    return (atomic_fetch_and(&folio.flags, ~<unsigned int>PG_dirty) & PG_dirty) != 0


cdef inline bint folio_test_clear_lru(struct_folio *folio) noexcept nogil:
    return (atomic_fetch_and(&folio.flags, ~<unsigned int>PG_lru) & PG_lru) != 0


cdef inline bint PageHWPoison(const struct_page *page) noexcept nogil:
    return test_page_flag(page, PG_hwpoison)


cdef inline bint PageAnonExclusive(const struct_page *page) noexcept nogil:
    return test_page_flag(page, PG_anon_exclusive)


cdef inline void SetPageAnonExclusive(struct_page *page) noexcept nogil:
    set_page_flag(page, PG_anon_exclusive)


cdef inline void ClearPageAnonExclusive(struct_page *page) noexcept nogil:
    clear_page_flag(page, PG_anon_exclusive)


cdef inline bint folio_is_zone_device(const struct_folio *folio) noexcept nogil:
    return False                # no device memory here


# The page lock

cdef inline bint folio_trylock(struct_folio *folio) noexcept nogil:
    return not (atomic_fetch_or(&folio.flags, PG_locked) & PG_locked)


cdef inline void folio_lock(struct_folio *folio) noexcept nogil:
    cdef int spins = 0
    while not folio_trylock(folio):
        while test_page_flag(folio, PG_locked):
            backoff(&spins)


cdef inline void folio_unlock(struct_folio *folio) noexcept nogil:
    atomic_fetch_and(&folio.flags, ~<unsigned int>PG_locked)


cdef inline bint folio_test_locked(const struct_folio *folio) noexcept nogil:
    return test_page_flag(folio, PG_locked)


cdef inline void __folio_set_locked(struct_folio *folio) noexcept nogil:
    set_page_flag(folio, PG_locked)


cdef inline bint trylock_page(struct_page *page) noexcept nogil:
    return folio_trylock(page_folio(page))


cdef inline void lock_page(struct_page *page) noexcept nogil:
    folio_lock(page_folio(page))


cdef inline void unlock_page(struct_page *page) noexcept nogil:
    folio_unlock(page_folio(page))


# The two counts

cdef inline int folio_ref_count(const struct_folio *folio) noexcept nogil:
    return atomic_read(<int *>&folio._refcount)


cdef inline void folio_get(struct_folio *folio) noexcept nogil:
    atomic_add_return(&folio._refcount, 1)


cdef inline void folio_ref_add(struct_folio *folio, int nr) noexcept nogil:
    atomic_add_return(&folio._refcount, nr)


cdef inline bint folio_try_get(struct_folio *folio) noexcept nogil:
    return atomic_inc_not_zero(&folio._refcount)


cdef inline bint folio_put_testzero(struct_folio *folio) noexcept nogil:
    return atomic_add_return(&folio._refcount, -1) == 0


cdef inline bint folio_ref_freeze(struct_folio *folio, int count) noexcept nogil:
    # No thread can take a reference until the count is unfrozen.
    return atomic_try_cmpxchg(<int *>&folio._refcount, count, 0)


cdef inline void folio_ref_unfreeze(struct_folio *folio, int count) noexcept nogil:
    smp_store_release_int(folio._refcount, count)


cdef inline int folio_mapcount(const struct_folio *folio) noexcept nogil:
    # For a huge page, `index` of its first tail counts the mappings of all parts, see ksm/mm/huge_memory.pyx.
    if folio_test_large(folio):
        return atomic_read(<int *>&(<struct_folio *>folio)[1].index)
    return atomic_read(<int *>&folio._mapcount) + 1


cdef inline bint folio_mapped(const struct_folio *folio) noexcept nogil:
    return folio_mapcount(folio) >= 1


# The mapping word

cdef inline void *folio_mapping_word(const struct_folio *folio) noexcept nogil:
    # The load acquires, and the store releases. A thread that finds that a stable node's page has another mapping word takes the node
    # apart, after the node's last user has left it. The kernel has fences for that, in ksm_get_folio() and folio_migrate_ksm(), which
    # ThreadSanitizer does not know.
    return smp_load_acquire_ptr((<struct_folio *>folio).mapping)


cdef inline void folio_set_mapping_word(struct_folio *folio, void *mapping) noexcept nogil:
    smp_store_release_ptr(folio.mapping, mapping)


cdef inline bint folio_test_anon(const struct_folio *folio) noexcept nogil:
    return (<unsigned long>folio_mapping_word(folio) & PAGE_MAPPING_ANON) != 0


cdef inline bint PageAnon(const struct_page *page) noexcept nogil:
    return folio_test_anon(compound_head(<struct_page *>page))


cdef inline bint folio_test_ksm(const struct_folio *folio) noexcept nogil:
    return (<unsigned long>folio_mapping_word(folio) & PAGE_MAPPING_FLAGS) == PAGE_MAPPING_KSM


cdef inline bint PageKsm(const struct_page *page) noexcept nogil:
    return folio_test_ksm(compound_head(<struct_page *>page))


cdef inline void *folio_raw_mapping(const struct_folio *folio) noexcept nogil:
    return <void *>(<unsigned long>folio_mapping_word(folio) & ~<unsigned long>PAGE_MAPPING_FLAGS)


cdef inline struct_anon_vma *folio_anon_vma(const struct_folio *folio) noexcept nogil:
    cdef unsigned long mapping = <unsigned long>folio_mapping_word(folio)
    if (mapping & PAGE_MAPPING_FLAGS) != PAGE_MAPPING_ANON:
        return NULL
    return <struct_anon_vma *>(mapping & ~<unsigned long>PAGE_MAPPING_FLAGS)

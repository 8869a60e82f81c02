# SPDX-License-Identifier: GPL-2.0-only
# Follows include/linux/swap.h of Linux 6.12.
"""Swap: an area of slots, and the swap cache, which has the page of a slot while that page is also in memory.

A slot lives as long as an entry names it or the cache has a page for it. The functions are in ksm/mm/swapfile.pyx (slots) and
ksm/mm/swap_state.pyx (cache).
"""

from linux.atomic cimport READ_ONCE_ulong
from linux.mm_types cimport struct_folio, swap_info_struct


cdef enum:
    SWAP_HAS_CACHE = 0x40000000  # in swap_map, above the count; the kernel's count has 6 bits and continues elsewhere
    SWAP_MAP_MAX = 0x3fffffff

    SWP_USED = 0x1
    SWP_WRITEOK = 0x2           # slots may be handed out


cdef inline unsigned long folio_swap(struct_folio *folio) noexcept nogil:
    # folio->swap: the slot of a folio with PG_swapcache.
    return folio.private


cdef inline bint vm_swap_full(swap_info_struct *si) noexcept nogil:
    # More than half of the area is in use: pages in memory should not keep slots.
    cdef unsigned long total = si.max - 1
    return (total - READ_ONCE_ulong(si.inuse_pages)) * 2 < total

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: verifying the swap area.
"""Checks the slots, the entries that name them, and the swap cache. See ksm/check/invariants.pyx."""

from libc.string cimport memcmp

from linux.highmem cimport frame_size, page_is_zero
from linux.mm_types cimport mm_struct, pte_t, struct_page, swap_info_struct
from linux.page_flags cimport PG_anon_exclusive, PG_dirty, PG_swapcache, page_address
from linux.swap cimport SWAP_HAS_CACHE
from linux.swapops cimport is_swap_pte, pte_swp_exclusive, swp_offset

from ksm.check.checker cimport checker, finding


cdef bint check_swap_entry(checker *c, mm_struct *mm, unsigned long addr, pte_t pte) noexcept nogil:
    """Note an entry that is not present; True if it is a swap entry."""
    cdef unsigned long slot = swp_offset(pte)
    if not is_swap_pte(pte) or c.slots == NULL or slot == 0 or slot >= c.m.swap_info.max:
        finding(&c.found, b"mm %lu: at %#lx an entry that is not present, nor of the swap area: %#lx", mm.id, addr, pte)
        return False
    c.slots[slot] += 1
    if pte_swp_exclusive(pte) and c.m.swap_info.swap_map[slot] & ~<unsigned int>SWAP_HAS_CACHE != 1:
        finding(&c.found, b"mm %lu: at %#lx an exclusive entry of slot %lu, whose swap_map is %#x", mm.id, addr, slot,
                c.m.swap_info.swap_map[slot])
    return True


cdef void check_clean(checker *c, unsigned long slot, unsigned long pfn) noexcept nogil:
    """Check the slot of a page that is not marked dirty: it must hold the same bytes, because such a page is dropped without being written.
    """
    cdef swap_info_struct *si = c.m.swap_info
    if si.zeromap[slot]:
        if not page_is_zero(c.m, c.m.mem_map + pfn):
            finding(&c.found, b"swap cache: slot %lu is marked as zeros, and its clean frame %lu is not", slot, pfn)
    elif memcmp(page_address(c.m, c.m.mem_map + pfn), si.data + (slot * c.m.frame_size), frame_size(c.m)):
        finding(&c.found, b"swap cache: slot %lu holds other bytes than its frame %lu, which is clean", slot, pfn)


cdef void check_cached(checker *c, unsigned long slot, struct_page *page) noexcept nogil:
    cdef unsigned long pfn = <unsigned long>(page - c.m.mem_map)
    if pfn >= c.m.plugged_pfn:
        finding(&c.found, b"swap cache: slot %lu has page %p, which is no struct page", slot, page)
        return
    if not page.flags & PG_swapcache or page.private != slot:
        finding(&c.found, b"swap cache: slot %lu has frame %lu, whose flags are %#x and whose slot is %u", slot, pfn, page.flags,
                page.private)
    if page.flags & PG_anon_exclusive and c.slots[slot]:
        finding(&c.found, b"swap cache: slot %lu has frame %lu, which is exclusive, and %u entries", slot, pfn, c.slots[slot])
    c.use[pfn].held += 1
    c.use[pfn].cached = True
    # A page that no entry leads to, nor to its slot, is freed when it is reclaimed, whatever it holds.
    if (page.flags & (PG_swapcache | PG_dirty) == PG_swapcache and not c.use[pfn].dirty
            and (c.use[pfn].mapped or c.use[pfn].entire or c.slots[slot])):
        check_clean(c, slot, pfn)


cdef void check_swap(checker *c) noexcept nogil:
    """Check the swap area, after all page tables and before the frames."""
    cdef swap_info_struct *si = c.m.swap_info
    cdef unsigned long slot, inuse = 0
    cdef unsigned int expected
    if c.slots == NULL:
        return
    for slot in range(1, si.max):
        expected = c.slots[slot]
        if si.i_pages[slot] != NULL:
            expected |= SWAP_HAS_CACHE
            check_cached(c, slot, si.i_pages[slot])
        if si.swap_map[slot] != expected:
            finding(&c.found, b"slot %lu: swap_map %#x, counted %#x", slot, si.swap_map[slot], expected)
        if si.zeromap[slot] and not expected:
            finding(&c.found, b"slot %lu: free, and marked as zeros", slot)
        inuse += expected != 0
    if si.inuse_pages != inuse:
        finding(&c.found, b"swap area: %lu slots in use, counted %lu", si.inuse_pages, inuse)
    if si.users != 1 or si.lock.locked or si.i_pages_lock.locked:
        finding(&c.found, b"swap area: %d users, locks %d and %d", si.users - 1, si.lock.locked, si.i_pages_lock.locked)

# SPDX-License-Identifier: GPL-2.0-only
# Follows include/linux/swapops.h of Linux 6.12.
"""Entries of pages that are not mapped: swapped out, or on their way to another frame.

Bit 10 marks a migration entry, bit 11 a swap entry; the frame or the slot stands from bit 12 on. Bit 6 of both says that the page was
exclusive. Bits 1, 5 and 7 of a migration entry keep whether the page was writable, young and dirty; writable means exclusive, too.
"""

from linux.mm_types cimport machine, pte_t, struct_folio, struct_page
from linux.page_flags cimport page_folio, pfn_to_page

cdef enum:
    SWP_MIGRATION = 0x400
    SWP_ENTRY = 0x800
    SWP_MIGRATION_WRITE = 0x2
    SWP_MIGRATION_YOUNG = 0x20
    SWP_MIGRATION_DIRTY = 0x80
    SWP_EXCLUSIVE = 0x40
    SWP_OFFSET_SHIFT = 12


cdef inline bint is_migration_pte(pte_t pte) noexcept nogil:
    return (pte & 0x101) == 0 and (pte & SWP_MIGRATION) != 0


cdef inline bint is_swap_pte(pte_t pte) noexcept nogil:
    return (pte & 0x101) == 0 and (pte & SWP_ENTRY) != 0


cdef inline pte_t make_migration_pte(unsigned long pfn, bint write, bint exclusive) noexcept nogil:
    return (pfn << SWP_OFFSET_SHIFT) | SWP_MIGRATION | (SWP_MIGRATION_WRITE if write else 0) | (SWP_EXCLUSIVE if exclusive else 0)


cdef inline bint is_writable_migration_pte(pte_t pte) noexcept nogil:
    return (pte & SWP_MIGRATION_WRITE) != 0


cdef inline bint is_readable_migration_pte(pte_t pte) noexcept nogil:
    # The page is not exclusive: another process may have it, too.
    return (pte & (SWP_MIGRATION_WRITE | SWP_EXCLUSIVE)) == 0


cdef inline pte_t make_migration_pte_young(pte_t pte) noexcept nogil:
    return pte | SWP_MIGRATION_YOUNG


cdef inline pte_t make_migration_pte_dirty(pte_t pte) noexcept nogil:
    return pte | SWP_MIGRATION_DIRTY


cdef inline bint is_migration_pte_young(pte_t pte) noexcept nogil:
    return (pte & SWP_MIGRATION_YOUNG) != 0


cdef inline bint is_migration_pte_dirty(pte_t pte) noexcept nogil:
    return (pte & SWP_MIGRATION_DIRTY) != 0


cdef inline pte_t make_swap_pte(unsigned long slot, bint exclusive) noexcept nogil:
    return (slot << SWP_OFFSET_SHIFT) | SWP_ENTRY | (SWP_EXCLUSIVE if exclusive else 0)


cdef inline bint pte_swp_exclusive(pte_t pte) noexcept nogil:
    return (pte & SWP_EXCLUSIVE) != 0


cdef inline pte_t pte_swp_clear_exclusive(pte_t pte) noexcept nogil:
    return pte & ~<pte_t>SWP_EXCLUSIVE


cdef inline unsigned long swp_offset(pte_t pte) noexcept nogil:
    return pte >> SWP_OFFSET_SHIFT


cdef inline struct_page *pfn_swap_entry_to_page(machine *m, pte_t pte) noexcept nogil:
    return pfn_to_page(m, swp_offset(pte))


cdef inline struct_folio *pfn_swap_entry_folio(machine *m, pte_t pte) noexcept nogil:
    return page_folio(pfn_swap_entry_to_page(m, pte))

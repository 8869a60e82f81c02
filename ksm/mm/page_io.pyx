# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/page_io.c of Linux 6.12.
"""Writing a page to its swap slot and reading it back, at once.

A page of zeros is not written. Its slot is marked instead, and neither writing nor reading it is counted as input or output.
"""

from libc.string cimport memcpy

from linux.bug cimport VM_BUG_ON
from linux.highmem cimport clear_highpage, frame_size, page_is_zero
from linux.mm cimport count_vm_event
from linux.mm_types cimport PSWPIN, PSWPOUT, machine, struct_folio, swap_info_struct
from linux.page_flags cimport __folio_mark_uptodate, folio_test_locked, folio_test_swapcache, folio_unlock, page_address
from linux.swap cimport folio_swap

from ksm.mm.swapfile cimport folio_free_swap


cdef inline bint is_folio_zero_filled(machine *m, struct_folio *folio) noexcept nogil:
    return page_is_zero(m, folio)


cdef void swap_writepage(machine *m, struct_folio *folio) noexcept nogil:
    """Write the locked page to its slot, and unlock it. If no entry needs the slot, the page loses the slot instead, and becomes dirty."""
    cdef swap_info_struct *si = m.swap_info
    cdef unsigned long entry
    if not folio_free_swap(m, folio):
        # The folio's lock guards zeromap: only its page has the slot.
        entry = folio_swap(folio)
        si.zeromap[entry] = is_folio_zero_filled(m, folio)
        if not si.zeromap[entry]:
            memcpy(si.data + (entry * m.frame_size), page_address(m, folio), frame_size(m))
            count_vm_event(m, PSWPOUT)
    folio_unlock(folio)


cdef void swap_read_folio(machine *m, struct_folio *folio) noexcept nogil:
    """Fill the locked page from its slot, and unlock it. The page is not mapped yet."""
    cdef swap_info_struct *si = m.swap_info
    cdef unsigned long entry = folio_swap(folio)
    VM_BUG_ON(not folio_test_swapcache(folio))
    VM_BUG_ON(not folio_test_locked(folio))
    if si.zeromap[entry]:
        clear_highpage(m, folio)
    else:
        memcpy(page_address(m, folio), si.data + (entry * m.frame_size), frame_size(m))
        count_vm_event(m, PSWPIN)
    __folio_mark_uptodate(folio)
    folio_unlock(folio)

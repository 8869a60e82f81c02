# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/swap_state.c of Linux 6.12.

from linux.mm_types cimport machine, struct_folio, vm_area_struct


cdef void add_to_swap_cache(machine *m, struct_folio *folio, unsigned long entry) noexcept nogil
cdef void __delete_from_swap_cache(machine *m, struct_folio *folio, unsigned long entry) noexcept nogil
cdef bint add_to_swap(machine *m, struct_folio *folio) noexcept nogil
cdef void delete_from_swap_cache(machine *m, struct_folio *folio) noexcept nogil
cdef void free_swap_cache(machine *m, struct_folio *folio) noexcept nogil
cdef struct_folio *swap_cache_get_folio(machine *m, unsigned long entry) noexcept nogil
cdef struct_folio *swapin_readahead(machine *m, unsigned long entry, vm_area_struct *vma) noexcept nogil

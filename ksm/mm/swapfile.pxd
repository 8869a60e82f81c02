# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/swapfile.c of Linux 6.12.

from linux.mm_types cimport machine, struct_folio, swap_info_struct


cdef swap_info_struct *get_swap_device(machine *m, unsigned long entry) noexcept nogil
cdef void put_swap_device(swap_info_struct *si) noexcept nogil
cdef unsigned long folio_alloc_swap(machine *m) noexcept nogil
cdef int swap_duplicate(machine *m, unsigned long entry) noexcept nogil
cdef int swapcache_prepare(machine *m, unsigned long entry) noexcept nogil
cdef void swap_free(machine *m, unsigned long entry) noexcept nogil
cdef void put_swap_folio(machine *m, unsigned long entry) noexcept nogil
cdef unsigned int swap_swapcount(swap_info_struct *si, unsigned long entry) noexcept nogil
cdef bint folio_free_swap(machine *m, struct_folio *folio) noexcept nogil
cdef void free_swap_and_cache(machine *m, unsigned long entry) noexcept nogil
cdef int swapon(machine *m, unsigned long nr_pages) noexcept nogil
cdef int swapoff(machine *m) noexcept nogil
cdef void swap_exit(machine *m) noexcept nogil

# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/page_io.c of Linux 6.12.

from linux.mm_types cimport machine, struct_folio


cdef void swap_writepage(machine *m, struct_folio *folio) noexcept nogil
cdef void swap_read_folio(machine *m, struct_folio *folio) noexcept nogil

# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/pagewalk.c of Linux 6.12.

from linux.mm_types cimport struct_folio, vm_area_struct
from linux.pagewalk cimport folio_walk, mm_walk_ops


cdef struct_folio *folio_walk_start(folio_walk *fw, vm_area_struct *vma, unsigned long addr, int flags) noexcept nogil
cdef int walk_page_range_vma(vm_area_struct *vma, unsigned long start, unsigned long end, const mm_walk_ops *ops,
                             void *private) noexcept nogil

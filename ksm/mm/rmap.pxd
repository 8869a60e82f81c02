# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/rmap.c of Linux 6.12.

from linux.atomic cimport atomic_dec_and_test
from linux.mm_types cimport anon_vma_chain, machine, mm_struct, struct_anon_vma, struct_folio, struct_page, vm_area_struct
from linux.rmap cimport rmap_walk_control, vma_has_anon_vma


cdef int __anon_vma_prepare(vm_area_struct *vma) noexcept nogil
cdef int anon_vma_clone(vm_area_struct *dst, vm_area_struct *src) noexcept nogil
cdef int anon_vma_fork(vm_area_struct *vma, vm_area_struct *pvma) noexcept nogil
cdef void unlink_anon_vmas(vm_area_struct *vma) noexcept nogil
cdef void __put_anon_vma(machine *m, struct_anon_vma *anon_vma) noexcept nogil
cdef unsigned long page_address_in_vma(struct_page *page, vm_area_struct *vma) noexcept nogil
cdef void folio_move_anon_rmap(struct_folio *folio, vm_area_struct *vma) noexcept nogil
cdef void folio_add_anon_rmap_pte(struct_folio *folio, struct_page *page, vm_area_struct *vma, unsigned long address,
                                  int flags) noexcept nogil
cdef void folio_add_new_anon_rmap(struct_folio *folio, vm_area_struct *vma, unsigned long address, int flags) noexcept nogil
cdef void folio_remove_rmap_pte(struct_folio *folio, struct_page *page, vm_area_struct *vma) noexcept nogil
cdef struct_anon_vma *folio_get_anon_vma(machine *m, struct_folio *folio) noexcept nogil
cdef void try_to_unmap(machine *m, struct_folio *folio) noexcept nogil
cdef void try_to_migrate(machine *m, struct_folio *folio) noexcept nogil
cdef void rmap_walk(machine *m, struct_folio *folio, rmap_walk_control *rwc) noexcept nogil


cdef inline int anon_vma_prepare(vm_area_struct *vma) noexcept nogil:
    if vma_has_anon_vma(vma):
        return 0
    return __anon_vma_prepare(vma)


cdef inline void put_anon_vma(machine *m, struct_anon_vma *anon_vma) noexcept nogil:
    if atomic_dec_and_test(&anon_vma.refcount):
        __put_anon_vma(m, anon_vma)

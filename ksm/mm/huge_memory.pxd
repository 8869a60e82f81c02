# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/huge_memory.c of Linux 6.12.

from linux.mm_types cimport machine, mm_struct, pgprot_t, pmd_t, struct_page, vm_area_struct, vm_fault_t


cdef vm_fault_t do_huge_pmd_anonymous_page(vm_area_struct *vma, pmd_t *pmdp, unsigned long address) noexcept nogil
cdef vm_fault_t do_huge_pmd_wp_page(vm_area_struct *vma, pmd_t *pmdp, unsigned long address, pmd_t orig_pmd,
                                    unsigned int flags) noexcept nogil
cdef int copy_huge_pmd(vm_area_struct *dst_vma, vm_area_struct *src_vma, pmd_t *dst_pmd, pmd_t *src_pmd,
                       unsigned long addr) noexcept nogil
cdef bint zap_huge_pmd(vm_area_struct *vma, pmd_t *pmdp, unsigned long addr) noexcept nogil
cdef void huge_pmd_set_accessed(vm_area_struct *vma, pmd_t *pmdp, unsigned long address, pmd_t orig_pmd, unsigned int flags) noexcept nogil
cdef bint move_huge_pmd(vm_area_struct *vma, pmd_t *old_pmd, unsigned long new_addr, pmd_t *new_pmd) noexcept nogil
cdef bint change_huge_pmd(vm_area_struct *vma, pmd_t *pmdp, unsigned long addr) noexcept nogil
cdef void split_huge_pmd(vm_area_struct *vma, pmd_t *pmdp, unsigned long address) noexcept nogil
cdef int split_huge_page(machine *m, struct_page *page) noexcept nogil
cdef int split_huge_page_of_two(machine *m, struct_page *page, struct_page *other) noexcept nogil
cdef void vma_adjust_trans_huge(vm_area_struct *vma, unsigned long start, unsigned long end) noexcept nogil
cdef bint split_folio(machine *m, struct_page *page) noexcept nogil

# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/memory.c of Linux 6.12.

from linux.mm_types cimport mm_struct, pmd_t, vm_area_struct, vm_fault_t


cdef vm_fault_t handle_mm_fault(vm_area_struct *vma, unsigned long address, unsigned int flags) noexcept nogil
cdef int copy_page_range(vm_area_struct *dst_vma, vm_area_struct *src_vma) noexcept nogil
cdef void unmap_page_range(vm_area_struct *vma, unsigned long addr, unsigned long end) noexcept nogil
cdef void free_pgd_range(mm_struct *mm, unsigned long addr, unsigned long end, unsigned long floor,
                         unsigned long ceiling) noexcept nogil
cdef void free_page_tables(mm_struct *mm) noexcept nogil
cdef pmd_t *pmd_alloc(mm_struct *mm, unsigned long addr) noexcept nogil
cdef int pte_alloc(mm_struct *mm, pmd_t *pmdp) noexcept nogil
cdef unsigned long access_remote_vm(mm_struct *mm, unsigned long addr, char *buf, unsigned long length, bint write,
                                    int *error) noexcept nogil
cdef int insert_frames(vm_area_struct *vma, unsigned long addr, unsigned long pfn, unsigned long nr_pages) noexcept nogil

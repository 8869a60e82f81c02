# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/vma.c of Linux 6.12.

from linux.mm_types cimport file, machine, mm_struct, pgprot_t, vm_area_struct, vm_flags_t


cdef pgprot_t vm_get_page_prot(vm_flags_t vm_flags) noexcept nogil
cdef vm_area_struct *vm_area_alloc(mm_struct *mm) noexcept nogil
cdef vm_area_struct *vm_area_dup(vm_area_struct *orig, mm_struct *mm) noexcept nogil
cdef void vm_area_free(vm_area_struct *vma) noexcept nogil
cdef int vma_link(mm_struct *mm, vm_area_struct *vma) noexcept nogil
cdef void fput(machine *m, file *object) noexcept nogil
cdef void remove_vma(vm_area_struct *vma) noexcept nogil
cdef vm_area_struct *vma_modify_flags(vm_area_struct *vma, unsigned long start, unsigned long end, vm_flags_t flags,
                                      int *error) noexcept nogil
cdef vm_area_struct *vma_merge_new_range(mm_struct *mm, unsigned long start, unsigned long end, vm_flags_t flags,
                                         unsigned long pgoff, vm_area_struct *like) noexcept nogil
cdef void vma_set_range(vm_area_struct *vma, unsigned long start, unsigned long end, unsigned long pgoff) noexcept nogil
cdef int do_vma_munmap(mm_struct *mm, unsigned long start, unsigned long end) noexcept nogil
cdef void exit_mmap(mm_struct *mm) noexcept nogil

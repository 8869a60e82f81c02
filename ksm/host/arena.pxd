# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the memory that stands in for physical memory.

from linux.mm_types cimport machine


cdef void *reserve(size_t length, size_t align, int prot) noexcept nogil
cdef int arena_create(machine *m, unsigned long max_pfn) noexcept nogil
cdef void arena_destroy(machine *m) noexcept nogil
cdef int arena_add_ram(machine *m, unsigned long pfn, unsigned long nr_pages) noexcept nogil
cdef int arena_add_file(machine *m, unsigned long pfn, unsigned long nr_pages, int fd, unsigned long offset) noexcept nogil
cdef long arena_read_file(machine *m, unsigned long pfn, unsigned long nr_pages, int fd, unsigned long offset) noexcept nogil
cdef void arena_remove(machine *m, unsigned long pfn, unsigned long nr_pages) noexcept nogil
cdef void arena_give_back(machine *m, unsigned int *pfns, unsigned int count) noexcept nogil
cdef void arena_give_back_page(machine *m, unsigned long number) noexcept nogil
cdef bint arena_resident(machine *m, unsigned long pfn) noexcept nogil
cdef bint arena_present(machine *m, unsigned long pfn, unsigned long nr_pages, unsigned char *there) noexcept nogil
cdef void arena_populate(machine *m, unsigned long pfn, unsigned long nr_pages) noexcept nogil

# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/memory_hotplug.c of Linux 6.12.

from linux.mm_types cimport machine


cdef long add_memory_file(machine *m, int nid, int fd, unsigned long offset, unsigned long nr_pages) noexcept nogil
cdef void memory_is_used(machine *m, unsigned long start_pfn) noexcept nogil
cdef void remove_memory(machine *m, unsigned long start_pfn) noexcept nogil
cdef void remove_unused_memory(machine *m) noexcept nogil
cdef int offline_pages(machine *m, unsigned long start_pfn, unsigned long nr_pages) noexcept nogil
cdef int online_pages(machine *m, unsigned long start_pfn, unsigned long nr_pages) noexcept nogil

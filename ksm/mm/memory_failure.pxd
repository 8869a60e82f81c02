# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/memory-failure.c of Linux 6.12.

from linux.mm_types cimport machine, mm_address


cdef int memory_failure(machine *m, unsigned long pfn, mm_address *to_kill, int room) noexcept nogil

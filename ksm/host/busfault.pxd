# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: bus errors of the computer that this runs on.

from linux.mm_types cimport machine


cdef int watch_arena(machine *m) noexcept nogil
cdef void unwatch_arena(machine *m) noexcept nogil

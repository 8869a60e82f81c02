# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: checksums by several threads.

from linux.mm_types cimport mm_struct

from ksm.fast.state cimport fast_state, scanned_page


cdef int first_look_init(fast_state *fast, unsigned int threads) noexcept nogil
cdef void first_look_exit(fast_state *fast) noexcept nogil
cdef void first_look(fast_state *fast, mm_struct *mm, unsigned long address, unsigned long most) noexcept nogil
cdef bint looked_at(fast_state *fast, scanned_page *seen) noexcept nogil

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: how much a scan asks of the processes that it looks at.

cdef long long now() noexcept nogil
cdef void look_ends(long long begun) noexcept nogil
cdef void rest() noexcept nogil
cdef size_t step(size_t length) noexcept nogil
cdef void turn() noexcept nogil

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: verifying the memory behind the frames.

from ksm.check.checker cimport checker


cdef void check_zeros(checker *c) noexcept nogil
cdef void check_fingerprints(checker *c) noexcept nogil

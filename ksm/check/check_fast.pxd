# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: verifying what ksmd remembers.

from ksm.check.checker cimport checker


cdef void check_keys(checker *c) noexcept nogil

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: verifying address spaces and frames.

from ksm.check.checker cimport checker


cdef void check_mms(checker *c) noexcept nogil
cdef void check_files(checker *c) noexcept nogil
cdef void check_anon_vmas(checker *c) noexcept nogil
cdef void check_frames(checker *c) noexcept nogil
cdef void check_caches(checker *c) noexcept nogil

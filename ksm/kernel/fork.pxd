# SPDX-License-Identifier: GPL-2.0-only
# Follows kernel/fork.c of Linux 6.12.

from linux.atomic cimport atomic_dec_and_test
from linux.mm_types cimport machine, mm_struct


cdef mm_struct *mm_alloc(machine *m) noexcept nogil
cdef mm_struct *dup_mm(mm_struct *oldmm, int *error) noexcept nogil
cdef void mmput(mm_struct *mm) noexcept nogil
cdef void __mmdrop(mm_struct *mm) noexcept nogil
cdef void mm_discard(mm_struct *mm) noexcept nogil


cdef inline void mmdrop(mm_struct *mm) noexcept nogil:
    if atomic_dec_and_test(&mm.mm_count):
        __mmdrop(mm)

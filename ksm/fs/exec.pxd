# SPDX-License-Identifier: GPL-2.0-only
# Follows fs/exec.c of Linux 6.12.

from linux.mm_types cimport mm_struct


cdef mm_struct *exec_mm(mm_struct *oldmm, int *error) noexcept nogil

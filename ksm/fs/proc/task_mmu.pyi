# SPDX-License-Identifier: GPL-2.0-only
# The types of task_mmu.pyx.
PAGE_PRESENT: int
PAGE_KSM: int
PAGE_ZERO: int
PAGE_KSM_ZERO: int
PAGE_ANON: int
PAGE_SWAPPED: int
PAGE_THP: int
PAGE_FLAGS_SHIFT: int

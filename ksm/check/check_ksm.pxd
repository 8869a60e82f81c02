# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: verifying the data of KSM.

from linux.mm_types cimport mm_struct

from ksm.check.checker cimport checker
from ksm.mm.ksm cimport ksm_rmap_item, ksm_stable_node


cdef void check_stable_trees(checker *c) noexcept nogil
cdef void check_slots(checker *c) noexcept nogil
cdef void check_unstable_trees(checker *c) noexcept nogil
cdef void check_counters(checker *c) noexcept nogil
cdef ksm_rmap_item *find_item(checker *c, unsigned long address, ksm_stable_node *node, mm_struct *mm, size_t *from_) noexcept nogil

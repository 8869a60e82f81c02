# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel. TEST SUPPORT: ksm/fast/seams.pyx that remembers nothing, built in its place with KSM_STUB=1.
"""Without the speed layer ksm.pyx does everything itself. All tests have to pass, except those of tests/fast."""

from linux.mm_types cimport struct_page
from linux.rbtree cimport rb_node
from linux.types cimport u32

from ksm.mm.ksm cimport ksm_globals, ksm_rmap_item, scan_get_next_rmap_item


cdef int fast_init(ksm_globals *g, unsigned int threads) noexcept nogil:
    return 0


cdef void fast_exit(ksm_globals *g) noexcept nogil:
    pass


cdef void fast_distrust(ksm_globals *g) noexcept nogil:
    pass


cdef ksm_rmap_item *next_known_item(ksm_globals *g, struct_page **page, unsigned int scan_npages) noexcept nogil:
    return scan_get_next_rmap_item(g, page)


cdef bint stable_tree_go_down(ksm_globals *g, struct_page *page, rb_node **parent, rb_node ***new) noexcept nogil:
    return new[0][0] != NULL


cdef bint unstable_tree_go_down(ksm_globals *g, struct_page *page, rb_node **parent, rb_node ***new) noexcept nogil:
    return new[0][0] != NULL


cdef bint checksum_of(ksm_globals *g, struct_page *page, u32 *checksum) noexcept nogil:
    return False

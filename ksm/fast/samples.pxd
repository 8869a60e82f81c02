# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: samples of all mergeable pages. See samples.pyx.

from ksm.fast.page_keys cimport key_book
from ksm.fast.state cimport fast_state

cdef key_book *look_at_book(fast_state *fast) noexcept nogil

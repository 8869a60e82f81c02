# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what kernel/fork.c has left behind, as pagemap shows it.

cdef enum:
    # A flag more in a word of Process.page_table(): another page of the sources has had the same frame since a fork, and stands for it.
    PAGE_REPEATED = 128

# SPDX-License-Identifier: GPL-2.0-only
# Follows include/linux/poison.h of Linux 6.12, the part that lists use.

cdef extern from *:
    """
    #ifndef LIST_POISON1
    /* CONFIG_ILLEGAL_POINTER_VALUE of 64-bit machines: no process can map anything there. */
    #define POISON_POINTER_DELTA 0xdead000000000000UL
    #define LIST_POISON1 ((void *)(0x100 + POISON_POINTER_DELTA))
    #define LIST_POISON2 ((void *)(0x122 + POISON_POINTER_DELTA))
    #endif
    """
    void *LIST_POISON1
    void *LIST_POISON2

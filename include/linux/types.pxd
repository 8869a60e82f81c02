# SPDX-License-Identifier: GPL-2.0-only
# Follows include/linux/types.h of Linux 6.12.

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t

ctypedef int8_t s8
ctypedef int16_t s16
ctypedef int32_t s32
ctypedef int64_t s64
ctypedef uint8_t u8
ctypedef uint16_t u16
ctypedef uint32_t u32
ctypedef uint64_t u64

cdef extern from "linux/list_types.h":
    struct list_head:
        list_head *next
        list_head *prev

    struct hlist_head:
        hlist_node *first

    struct hlist_node:
        hlist_node *next
        hlist_node **pprev

# SPDX-License-Identifier: GPL-2.0-only
# Follows include/linux/memory.h and notifier.h of Linux 6.12.
"""What is announced when frames are added to the machine or taken away."""

cdef enum:
    MEM_ONLINE = 1 << 0
    MEM_GOING_OFFLINE = 1 << 1
    MEM_OFFLINE = 1 << 2
    MEM_GOING_ONLINE = 1 << 3
    MEM_CANCEL_ONLINE = 1 << 4
    MEM_CANCEL_OFFLINE = 1 << 5

    NOTIFY_OK = 1

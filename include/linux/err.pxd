# SPDX-License-Identifier: GPL-2.0-only
# Follows include/linux/err.h and errno.h of Linux 6.12.
"""Errors carried in pointers, and the errno that user space never sees."""

cdef enum:
    EHWPOISON = 133
    ERESTARTSYS = 512
    MAX_ERRNO = 4095


cdef inline void *ERR_PTR(long error) noexcept nogil:
    return <void *>error


cdef inline long PTR_ERR(void *ptr) noexcept nogil:
    return <long>ptr


cdef inline bint IS_ERR(void *ptr) noexcept nogil:
    return <unsigned long>ptr >= <unsigned long>(-MAX_ERRNO)

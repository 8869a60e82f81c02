# SPDX-License-Identifier: GPL-2.0-only
# Stands in for include/linux/bug.h and mmdebug.h of Linux 6.12.
"""Assertions. BUG_ON() always looks; VM_BUG_ON() only in a debug build (KSM_DEBUG=1 at build time)."""


cdef extern from *:
    """
    #ifndef KSM_BUG_DEFINED
    #define KSM_BUG_DEFINED
    #include <stdio.h>
    #include <stdlib.h>
    #define KSM_BUG_ON(x) do { if (__builtin_expect(!!(x), 0)) { \\
        fprintf(stderr, "ksm: BUG at %s:%d: %s\\n", __FILE__, __LINE__, #x); abort(); } } while (0)
    #ifdef KSM_DEBUG
    #define KSM_VM_BUG_ON(x) KSM_BUG_ON(x)
    #else
    #define KSM_VM_BUG_ON(x) do { if (0) { (void)(x); } } while (0)
    #endif
    #endif
    """
    void BUG_ON "KSM_BUG_ON"(bint x) noexcept nogil
    void VM_BUG_ON "KSM_VM_BUG_ON"(bint x) noexcept nogil


cdef inline bint WARN_ON_ONCE(bint x) noexcept nogil:
    VM_BUG_ON(x)
    return x

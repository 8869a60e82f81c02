# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the Python face of a machine.

from linux.mm_types cimport machine
from linux.spinlock cimport spinlock_t

from ksm.mm.ksm cimport ksm_globals


cdef class Machine:
    cdef machine *m
    cdef ksm_globals *g
    cdef spinlock_t lock
    cdef int active             # calls that are inside
    cdef int exports            # memoryviews of the memory
    cdef bint closed_
    cdef unsigned long ram_pages
    cdef int next_pid
    cdef readonly dict processes
    cdef readonly object ksm
    cdef object __weakref__
    cdef int enter(self) except -1
    cdef void leave(self) noexcept nogil
    cdef void teardown(self) noexcept
    cdef dict caches(self)
    cdef int check_node(self, object node) except -1
    cdef int swapon_(self, object size) except -1
    cdef unsigned long check_pfn(self, object pfn) except? 0xdeadbeef


cdef unsigned long ulong(str name, object value) except? 0xdeadbeef
cdef int cint(str name, object value) except? -0xdead
cdef object oserror(long err, str what)

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the Python face of a machine.

from linux.mm_types cimport machine

from ksm.gate cimport machine_gate
from ksm.mm.ksm cimport ksm_globals


cdef class Machine:
    # NULL until all of the machine is made. Who has entered may use both.
    cdef machine *m
    cdef ksm_globals *g
    cdef machine_gate gate
    cdef unsigned long ram_pages
    cdef int nr_nodes
    cdef unsigned int nr_threads
    cdef int last_pid
    cdef dict all_processes
    cdef long nr_held           # frames that somebody looks at, each with a reference on its page
    cdef object files           # Ksm
    cdef object __weakref__
    cdef int enter(self) except -1 nogil
    cdef void leave(self) noexcept nogil
    cdef int hold(self) except -1
    cdef void release(self) noexcept nogil
    cdef void teardown(self) noexcept
    cdef int check_node(self, object node) except -1
    cdef bint has_frame(self, const void *data) except -1
    cdef unsigned long check_pfn(self, unsigned long pfn) except? 0xdeadbeef nogil


cdef unsigned long ulong(str name, object value) except? 0xdeadbeef
cdef int cint(str name, object value) except? -0xdead
cdef object oserror(long err, str what)

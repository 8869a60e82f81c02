# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what mm/gup.c has pinned of a process, held in the machine, too.
"""Pages of a machine that are held, so that KSM does not merge them."""

from libc.stdlib cimport free, realloc

cimport cython

from linux.mm_types cimport machine as struct_machine
from linux.page_flags cimport folio_try_get, pfn_folio

from ksm.fs.proc.task_mmu cimport PAGE_FLAGS_SHIFT, PAGE_KSM_ZERO, PAGE_PRESENT, PAGE_ZERO
from ksm.machine cimport Machine
from ksm.mm.page_alloc cimport folio_put


@cython.no_gc_clear
cdef class Held:
    """Held(machine)
--

    References to pages, as a driver takes them. They end with release(), or with the machine.
    """

    cdef Machine machine
    cdef unsigned long *frames
    cdef size_t nr

    def __cinit__(self, Machine machine not None):
        self.machine = machine

    def __dealloc__(self):
        free(self.frames)

    def __reduce__(self):
        raise TypeError("references to pages cannot be copied or pickled")

    def __len__(self):
        return self.nr

    @cython.critical_section
    def add(self, const unsigned long[::1] words):
        """Hold the pages of a page table, as Process.page_table() gives it. MemoryError."""
        cdef struct_machine *m
        cdef Py_ssize_t i
        cdef unsigned long pfn
        cdef unsigned long *more = <unsigned long *>realloc(self.frames, (self.nr + words.shape[0] + 1) * sizeof(unsigned long))
        if more == NULL:
            raise MemoryError
        self.frames = more
        with nogil:
            self.machine.enter()
            m = self.machine.m
            for i in range(words.shape[0]):
                pfn = words[i] >> PAGE_FLAGS_SHIFT
                if words[i] & (PAGE_PRESENT | PAGE_ZERO | PAGE_KSM_ZERO) != PAGE_PRESENT or pfn >= m.plugged_pfn:
                    continue
                if folio_try_get(pfn_folio(m, pfn)):
                    self.frames[self.nr] = pfn
                    self.nr += 1
            self.machine.leave()

    @cython.critical_section
    def release(self):
        """Let go of all pages. ValueError if the machine is closed."""
        cdef struct_machine *m
        cdef size_t i
        with nogil:
            self.machine.enter()
            m = self.machine.m
            for i in range(self.nr):
                folio_put(m, pfn_folio(m, self.frames[i]))
            self.nr = 0
            self.machine.leave()

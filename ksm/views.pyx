# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: read-only views of a machine.
"""machine.frame() and machine.processes.

A view of a frame has a reference on its page, as a driver has one (get_user_pages()). As long as a view exists, the page keeps its frame,
and an image that the frame is part of stays mapped. The view keeps the machine open. Taking and dropping the reference are calls that enter
the machine. ksm/gate.pyx has the rules.
"""

from collections.abc import Mapping

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.dict cimport PyDict_Items
from libc.errno cimport EBUSY, EINVAL

from linux.atomic cimport atomic_long_add_return
from linux.highmem cimport frame_size
from linux.mm_types cimport struct_folio
from linux.mm_types cimport machine as struct_machine
from linux.page_flags cimport folio_put_testzero, folio_try_get, pfn_folio
from linux.pgtable cimport is_zero_pfn
from linux.spinlock cimport mutex_lock, mutex_unlock

from ksm.gate cimport gate_export, gate_is_foreign, gate_unexport
from ksm.machine cimport Machine, oserror, ulong
from ksm.mm.memory_hotplug cimport remove_unused_memory
from ksm.mm.page_alloc cimport __folio_put, folio_put


cdef int hold_page(struct_machine *m, unsigned long pfn) noexcept nogil:
    """Take a reference on the page in this frame: 0, -EINVAL for a frame that does not exist, -EBUSY for a frame without a page."""
    cdef struct_folio *folio
    while True:
        folio = pfn_folio(m, pfn)
        if not folio_try_get(folio):
            return -EBUSY
        if folio == pfn_folio(m, pfn):
            return 0
        folio_put(m, folio)     # the page became part of a huge page, or was split from one, meanwhile


cdef bint is_pending(struct_machine *m, unsigned long pfn) noexcept nogil:
    """Whether the frame belongs to an image that is not mapped yet."""
    cdef int i
    for i in range(m.nr_blocks):
        if m.blocks[i].online and m.blocks[i].pending and 0 <= <long>(pfn - m.blocks[i].start_pfn) < <long>m.blocks[i].nr_pages:
            return True
    return False


cdef int hold_frame(Machine of, unsigned long pfn) noexcept nogil:
    cdef struct_machine *m = of.m
    cdef int err = 0
    # A thread that plugs an image in may have to take it away again, and waits for its frames with this lock.
    mutex_lock(&m.hotplug_lock)
    if pfn >= m.plugged_pfn:
        err = -EINVAL
    elif is_pending(m, pfn):
        err = -EBUSY
    elif not is_zero_pfn(m, pfn):       # the zero page is never freed
        err = hold_page(m, pfn)
        if not err:
            atomic_long_add_return(&of.nr_held, 1)
    mutex_unlock(&m.hotplug_lock)
    return err


cdef void let_frame_go(Machine of, unsigned long pfn) noexcept nogil:
    cdef struct_machine *m = of.m
    cdef struct_folio *folio = pfn_folio(m, pfn)
    if is_zero_pfn(m, pfn):
        return
    atomic_long_add_return(&of.nr_held, -1)
    if folio_put_testzero(folio):
        __folio_put(m, folio)
        if pfn >= of.ram_pages:
            remove_unused_memory(m)     # as after an exit: only this frame may have kept the image


@cython.no_gc_clear
cdef class Frame:
    """Frame()
--

    The object behind the memoryview of a frame: see Machine.frame(). Calling the class raises TypeError.
    """

    cdef Machine machine
    cdef unsigned long pfn

    def __init__(self):
        raise TypeError("frames come from Machine.frame()")

    def __reduce__(self):
        raise TypeError("a frame cannot be copied or pickled: bytes(machine.frame(pfn)) can")

    def __repr__(self):
        return f"<frame {self.pfn} of {self.machine!r}>"

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        cdef int err = 0
        gate_export(&self.machine.gate)
        try:
            PyBuffer_FillInfo(buffer, self, self.machine.m.arena + (self.pfn * self.machine.m.frame_size),
                              <Py_ssize_t>frame_size(self.machine.m), 1, flags)
            with nogil:
                self.machine.enter()
                err = hold_frame(self.machine, self.pfn)
                self.machine.leave()
            if err:
                raise oserror(err, f"frame {self.pfn} has no page" if err == -EBUSY else f"frame {self.pfn}")
        except BaseException:
            gate_unexport(&self.machine.gate)
            raise

    def __releasebuffer__(self, Py_buffer *buffer):
        # In a forked process it was a view of the copy.
        if not gate_is_foreign(&self.machine.gate):
            with nogil:
                self.machine.enter()
                let_frame_go(self.machine, self.pfn)
                self.machine.leave()
        gate_unexport(&self.machine.gate)


def frame_of(Machine machine not None, pfn):
    """Machine.frame()."""
    cdef Frame frame = Frame.__new__(Frame)
    frame.machine = machine
    frame.pfn = ulong("pfn", pfn)
    return memoryview(frame)


@cython.no_gc_clear
cdef class Processes:
    """Processes(machine)
--

    The processes of a machine that have not exited: {pid: ksm.Process}, the oldest first.

    It shows the present processes, and cannot be changed. keys(), values(), items() and an iteration go over the processes that existed
    when they began. So other threads may spawn processes, or let them exit, meanwhile.
    """

    cdef Machine machine

    def __cinit__(self, Machine machine not None):
        self.machine = machine

    def __reduce__(self):
        raise TypeError("the processes of a machine cannot be copied or pickled")

    def copy(self):
        """The present processes as a dict."""
        # dict.copy() of Python 3.11 makes a damaged dict when a finalizer that runs in it empties the original.
        return dict(PyDict_Items(self.machine.all_processes))

    def keys(self):
        """The pids of the present processes."""
        return self.copy().keys()

    def values(self):
        """The present processes."""
        return self.copy().values()

    def items(self):
        """The pids and present processes."""
        return self.copy().items()

    def get(self, pid, default=None):
        """The process with this pid, or the default."""
        return self.machine.all_processes.get(pid, default)

    def __getitem__(self, pid):
        return self.machine.all_processes[pid]

    def __contains__(self, pid):
        return pid in self.machine.all_processes

    def __len__(self):
        return len(self.machine.all_processes)

    def __iter__(self):
        return iter(self.copy())

    def __reversed__(self):
        return reversed(self.copy())

    def __eq__(self, other):
        return self.copy() == dict(other) if isinstance(other, Mapping) else NotImplemented

    def __or__(self, other):
        return self.copy() | other

    def __ror__(self, other):
        return other | self.copy()

    def __repr__(self):
        return f"Processes({self.copy()})"


Mapping.register(Processes)

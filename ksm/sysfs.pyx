# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the folder /sys/kernel/mm/ksm as an object.
"""machine.ksm: every file of /sys/kernel/mm/ksm is an attribute, and scan() does what ksmd would.

Values go through the show and store functions of ksm/mm/ksm.pyx as text, like in sysfs, so parsing, limits and errors are theirs.
"""

import operator

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EINVAL, ENOMEM
from libc.string cimport strcmp

from linux.list cimport list_empty
from linux.spinlock cimport mutex_lock, mutex_unlock

from ksm.machine cimport Machine, oserror, ulong
from ksm.mm.ksm cimport kobj_attribute, ksm_globals, ksm_run_batch, wait_while_offlining
from ksm.mm.page_alloc cimport drain_all_pages


cdef enum:
    SYSFS_PAGE = 4096
    BATCH = 16384               # pages between two looks for Ctrl-C, at most,
    SLICE_NS = 50000000         # and so much time


cdef class Ksm:
    """The attributes of KSM, named after the files of /sys/kernel/mm/ksm.

    Reading gives an int; of advisor_mode, "none" or "scan-time". Writing takes an int, a bool or a str, and raises OSError with the
    kernel's errno (EINVAL, EBUSY, ERANGE), or AttributeError for a file that can only be read. Setting run to 1 starts ksmd, a thread.
    """

    cdef Machine machine

    def __cinit__(self, Machine machine not None):
        self.machine = machine

    cdef kobj_attribute *find(self, str name) except? NULL:
        """The table's entry; NULL when there is none. The machine must be entered."""
        cdef bytes wanted = name.encode()
        cdef int i
        for i in range(self.machine.g.nr_ksm_attrs):
            if strcmp(self.machine.g.ksm_attrs[i].name, wanted) == 0:
                return &self.machine.g.ksm_attrs[i]
        return NULL

    def show(self, str name):
        """The text of a file, with its newline. KeyError for a file that does not exist."""
        cdef char buf[SYSFS_PAGE]
        cdef kobj_attribute *attr
        self.machine.enter()
        try:
            attr = self.find(name)
            if attr == NULL:
                raise KeyError(name)
            attr.show(self.machine.g, buf)
            return (<bytes>buf).decode()
        finally:
            self.machine.leave()

    def store(self, str name, text):
        """Write text (str or bytes) to a file. KeyError, AttributeError for a file that can only be read, OSError as the kernel says."""
        cdef bytes data = text.encode() if isinstance(text, str) else bytes(memoryview(text))
        cdef const char *buf = data
        cdef size_t count = len(data)
        cdef kobj_attribute *attr
        cdef long ret
        self.machine.enter()
        try:
            attr = self.find(name)
            if attr == NULL:
                raise KeyError(name)
            if attr.store == NULL:
                raise AttributeError(f"{name} can only be read")
            # A write is cut off where a page ends, and a NUL ends what is parsed.
            if count >= SYSFS_PAGE:
                raise oserror(-EINVAL, name)
            with nogil:
                ret = attr.store(self.machine.g, buf, count)
            if ret < 0:
                raise oserror(ret, f"{name} = {text!r}")
        finally:
            self.machine.leave()

    def __getattr__(self, str name):
        try:
            text = self.show(name).strip()
        except KeyError:
            raise AttributeError(f"KSM has no attribute {name!r}") from None
        if "[" in text:
            return text.partition("[")[2].partition("]")[0]
        return int(text)

    def __setattr__(self, str name, value):
        if isinstance(value, (str, bytes)):
            text = value
        elif isinstance(value, bool):
            text = "1" if value else "0"
        else:
            try:
                text = str(operator.index(value))
            except TypeError:
                raise TypeError(f"{name} takes an int, a bool or a str, not {type(value).__name__}") from None
        try:
            self.store(name, text)
        except KeyError:
            raise AttributeError(f"KSM has no attribute {name!r}") from None

    def __dir__(self):
        return [*object.__dir__(self), *self.names()]

    def names(self):
        """The names of all files, in the kernel's order."""
        self.machine.enter()
        try:
            return [self.machine.g.ksm_attrs[i].name.decode() for i in range(self.machine.g.nr_ksm_attrs)]
        finally:
            self.machine.leave()

    def attributes(self):
        """All files: {name: value}, in the kernel's order."""
        return {name: getattr(self, name) for name in self.names()}

    @property
    def trace(self):
        """The trace events: ksm.trace.Trace, off until its start()."""
        from ksm.trace import Trace
        return Trace(self.machine)

    def __repr__(self):
        if self.machine.closed:
            return "<KSM of a closed machine>"
        return (f"<KSM shared={self.pages_shared} sharing={self.pages_sharing} unshared={self.pages_unshared} "
                f"volatile={self.pages_volatile} full_scans={self.full_scans}>")

    def scan(self, passes=None, *, pages=None):
        """Scan in the calling thread, whatever `run` says: full passes (1 if nothing is asked for), or one batch of at most `pages`.

        Passes begin where the last batch stopped: a pass that was begun counts as one when it ends. True if all passes were completed,
        of a batch if a pass ended in it; False if nothing is registered, or the batch ended within a pass. Ctrl-C stops between pages.
        OSError(ENOMEM) when there is no memory for an rmap_item: the scan stays where it is. Follows ksm_do_scan().
        """
        cdef ksm_globals *g
        cdef unsigned int batch = BATCH
        cdef unsigned long seqnr, todo, looked_at, scanned = 0
        cdef bint empty = False, done = False, stuck = False
        if passes is not None and pages is not None:
            raise TypeError("either passes or pages")
        todo = 1 if passes is None else ulong("passes", passes)
        if pages is not None:
            if not 0 <= operator.index(pages) <= 0xffffffff:
                raise ValueError("pages is an unsigned int")
            batch = pages
        self.machine.enter()
        g = self.machine.g
        try:
            while todo:
                with nogil:
                    mutex_lock(&g.ksm_thread_mutex)
                    wait_while_offlining(g)
                    seqnr = g.ksm_scan.seqnr
                    looked_at = g.ksm_pages_scanned + g.ksm_pages_skipped
                    scanned = g.ksm_pages_scanned
                    ksm_run_batch(g, batch, SLICE_NS)
                    scanned = g.ksm_pages_scanned - scanned
                    done = g.ksm_scan.seqnr != seqnr
                    empty = not done and list_empty(&g.ksm_mm_head.slot.mm_node)
                    # Neither a page nor an end: only the want of an rmap_item does that.
                    stuck = (not done and not empty and batch != 0 and not g.freezer.frozen
                             and looked_at == g.ksm_pages_scanned + g.ksm_pages_skipped)
                    mutex_unlock(&g.ksm_thread_mutex)
                if done:
                    todo -= 1
                if stuck:
                    raise oserror(-ENOMEM, "scan")
                if pages is not None:
                    batch -= <unsigned int>scanned
                if empty or pages is not None and (done or batch == 0):
                    break
                PyErr_CheckSignals()
            with nogil:
                drain_all_pages(g.m)
        finally:
            self.machine.leave()
        return done if pages is not None else todo == 0

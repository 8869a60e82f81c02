# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the folder /sys/kernel/mm/ksm as an object.
"""machine.ksm: every file of /sys/kernel/mm/ksm is an attribute, and scan() does the work of ksmd.

Values go through the show and store functions of ksm/mm/ksm.pyx as text, like in sysfs. So these functions do the parsing, and set the
limits and errors.
"""

import operator

from ksm.trace import Trace

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.errno cimport EACCES, EINVAL, ENOENT, ENOMEM
from libc.string cimport strcmp, strlen

from linux.atomic cimport READ_ONCE_int
from linux.list cimport list_empty
from linux.spinlock cimport mutex_lock, mutex_unlock

from ksm.machine cimport Machine, oserror, ulong
from ksm.mm.ksm cimport NR_KSM_ATTRS, kobj_attribute, ksm_globals, ksm_run_batch, wait_while_offlining
from ksm.mm.page_alloc cimport drain_all_pages


cdef enum:
    SYSFS_PAGE = 4096
    BATCH = 16384               # at most so many pages between two checks for Ctrl-C
    SLICE_NS = 50000000         # and at most so much time


@cython.no_gc_clear
cdef class Ksm:
    """Ksm(machine)
--

    The attributes of KSM, named after the files of /sys/kernel/mm/ksm.

    Reading gives an int; for advisor_mode, "none" or "scan-time". Writing takes an int, a bool or a str. It raises OSError with the
    kernel's errno (EINVAL, EBUSY, ERANGE), or AttributeError for a file that can only be read. Setting run to 1 starts ksmd, a thread.
    """

    cdef Machine machine

    def __cinit__(self, Machine machine not None):
        self.machine = machine

    def __reduce__(self):
        raise TypeError("the files of a machine cannot be copied or pickled")

    cdef long show_(self, const char *name, char *buf) except? -0xdead nogil:
        """Write the file's text into buf; -ENOENT when there is no such file."""
        cdef kobj_attribute *attr
        cdef long ret = -ENOENT
        self.machine.enter()
        attr = find(self.machine.g, name)
        if attr != NULL:
            ret = attr.show(self.machine.g, buf)
        self.machine.leave()
        return ret

    def show(self, str name):
        """The text of a file, with its newline. KeyError for a file that does not exist."""
        cdef char buf[SYSFS_PAGE]
        cdef const char *c_name = file_name(name)
        cdef long ret
        with nogil:
            ret = self.show_(c_name, buf)
        if ret < 0:
            raise KeyError(name)
        return (<bytes>buf).decode()

    def store(self, str name, text):
        """Write text (str or bytes) to a file. KeyError, AttributeError for a file that can only be read, OSError as the kernel says."""
        cdef const char *c_name = file_name(name)
        cdef bytes data = text.encode() if isinstance(text, str) else bytes(memoryview(text))
        cdef const char *buf = data
        cdef size_t count = len(data)
        cdef kobj_attribute *attr
        cdef long ret = 0
        with nogil:
            self.machine.enter()
            attr = find(self.machine.g, c_name)
            if attr == NULL:
                ret = -ENOENT
            elif attr.store == NULL:
                ret = -EACCES
            elif count >= SYSFS_PAGE:
                # A write is cut off after one page, and parsing ends at a NUL.
                ret = -EINVAL
            else:
                ret = attr.store(self.machine.g, buf, count)
            self.machine.leave()
        if attr == NULL:
            raise KeyError(name)
        if ret == -EACCES:
            raise AttributeError(f"{name} can only be read")
        if ret < 0:
            raise oserror(ret, name if count >= SYSFS_PAGE else f"{name} = {text!r}")

    def __getattr__(self, str name):
        if name.startswith("_"):
            raise AttributeError(f"KSM has no attribute {name!r}")      # Python asks for such names, also of a closed machine
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
        cdef const char *all[NR_KSM_ATTRS]
        cdef int i, count
        with nogil:
            self.machine.enter()
            count = self.machine.g.nr_ksm_attrs
            for i in range(count):
                all[i] = self.machine.g.ksm_attrs[i].name       # a constant
            self.machine.leave()
        return [(<bytes>all[i]).decode() for i in range(count)]

    def attributes(self):
        """All files: {name: value}, in the kernel's order."""
        return {name: getattr(self, name) for name in self.names()}

    @property
    def trace(self):
        """The trace events: ksm.trace.Trace, off until its start()."""
        return Trace(self.machine)

    def __repr__(self):
        try:
            return (f"<KSM shared={self.pages_shared} sharing={self.pages_sharing} unshared={self.pages_unshared} "
                    f"volatile={self.pages_volatile} full_scans={self.full_scans}>")
        except (ValueError, RuntimeError) as error:
            return f"<KSM: {error}>"

    def scan(self, passes=None, *, pages=None):
        """Scan in the calling thread, whatever `run` is: full passes (1 by default), or one batch of at most `pages`.

        A pass goes on where the last batch stopped: a pass that was begun before counts as one when it ends. Returns True if all passes
        were completed, or, for a batch, if a pass ended in it. Returns False if nothing is registered, or if the batch ended within a pass.
        Ctrl-C stops between pages. OSError(ENOMEM) when there is no memory for an rmap_item: the scan stays where it is. Follows
        ksm_do_scan().

        Every 16,384 pages, and every 50 ms, it checks for signals. Their handlers may use the machine. When a handler or another thread
        closes it, the scan raises ValueError.
        """
        cdef ksm_globals *g
        cdef unsigned int batch = BATCH
        cdef unsigned long seqnr, todo, looked_at, scanned, left = 0
        cdef bint one_batch = pages is not None, empty = False, done = False, stuck = False, last = False, broken_off
        if passes is not None and one_batch:
            raise TypeError("either passes or pages")
        todo = 1 if passes is None else ulong("passes", passes)
        if one_batch:
            pages = operator.index(pages)
            if not 0 <= pages <= 0xffffffff:
                raise ValueError("pages is an unsigned int")
            left = pages
        while todo and not last:
            # Each round leaves the machine and its locks, so that a signal handler may do anything, and close() does not wait long.
            with nogil:
                if one_batch:
                    batch = <unsigned int>(left if left < BATCH else BATCH)
                self.machine.enter()
                g = self.machine.g
                mutex_lock(&g.ksm_thread_mutex)
                wait_while_offlining(g)
                seqnr = g.ksm_scan.seqnr
                looked_at = g.ksm_pages_scanned + g.ksm_pages_skipped
                scanned = g.ksm_pages_scanned
                ksm_run_batch(g, batch, SLICE_NS)
                scanned = g.ksm_pages_scanned - scanned
                done = g.ksm_scan.seqnr != seqnr
                empty = not done and list_empty(&g.ksm_mm_head.slot.mm_node)
                # There is neither a page nor the end of a pass. Either there was no memory for an rmap_item, or the machine is being
                # closed.
                broken_off = g.freezer.frozen or READ_ONCE_int(g.m.freezing)
                stuck = (not done and not empty and batch != 0 and looked_at == g.ksm_pages_scanned + g.ksm_pages_skipped
                         and not broken_off)
                mutex_unlock(&g.ksm_thread_mutex)
                todo -= done
                if one_batch:
                    left -= scanned
                # A batch that ended early goes no further: its pass has ended, or there was no memory for an rmap_item.
                last = empty or todo == 0 or (one_batch and (left == 0 or not broken_off and scanned < batch))
                if last and not stuck:
                    drain_all_pages(g.m)
                self.machine.leave()
            if stuck:
                raise oserror(-ENOMEM, "scan")
            if not last:
                PyErr_CheckSignals()
        return done if one_batch else todo == 0


cdef const char *file_name(str name) except NULL:
    """The C string of a name, valid as long as the name lives. No file name has a NUL or a character that cannot be encoded."""
    cdef const char *utf8 = NULL
    cdef const char *none = b""
    cdef Py_ssize_t length = 0
    try:
        utf8 = PyUnicode_AsUTF8AndSize(name, &length)
    except UnicodeEncodeError:
        pass
    return utf8 if utf8 != NULL and strlen(utf8) == <size_t>length else none


cdef kobj_attribute *find(ksm_globals *g, const char *name) noexcept nogil:
    """The table's entry with this name; NULL when there is none."""
    cdef int i
    for i in range(g.nr_ksm_attrs):
        if strcmp(g.ksm_attrs[i].name, name) == 0:
            return &g.ksm_attrs[i]
    return NULL

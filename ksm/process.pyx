# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the Python face of a process.
"""A process: an address space, and the system calls and memory accesses that it makes.

Addresses and lengths are in bytes, as for the system calls of the same names; what they return as -errno comes as OSError. An access to
memory that is not mapped, or not in this way, is OSError(EFAULT) where a real process would get SIGSEGV. Every call keeps the address
space alive until it returns, so that another thread may let the process exit meanwhile.
"""

import os
from array import array

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EFAULT, EINVAL, ENOMEM, ESRCH

from linux.atomic cimport test_bit
from linux.ksm cimport ksm_disable_merge_any, ksm_enable_merge_any
from linux.mm cimport get_mm_counter, vma_lookup
from linux.mm_types cimport (MMF_VM_MERGE_ANY, MM_ANONPAGES, MM_SHMEMPAGES, MM_SWAPENTS, PAGE_SHIFT, PAGE_SIZE, mm_struct, page_mask,
                             struct_folio)
from linux.mman cimport (MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_PRIVATE, MREMAP_FIXED, MREMAP_MAYMOVE, PROT_READ, PROT_WRITE,
                         PR_GET_MEMORY_MERGE, PR_SET_MEMORY_MERGE)
from linux.mmap_lock cimport mmap_read_lock, mmap_read_unlock, mmap_write_lock, mmap_write_unlock, mmget
from linux.spinlock cimport spin_lock, spin_lock_init, spin_unlock, spinlock_t

from ksm.cpu cimport cpu_access, cpu_touch, cpu_update
from ksm.fs.exec cimport exec_mm
from ksm.kernel.fork cimport dup_mm, mm_alloc, mmput
from ksm.machine cimport Machine, cint, oserror, ulong
from ksm.mm.ksm cimport ERA_2_6_38
from ksm.mm.madvise cimport do_madvise
from ksm.mm.memory cimport access_remote_vm, insert_frames
from ksm.mm.memory_hotplug cimport add_memory_file, remove_memory, remove_unused_memory
from ksm.mm.migrate cimport add_folio_for_migration, migrate_pages
from ksm.mm.mmap cimport do_brk, do_mmap, do_munmap
from ksm.mm.mprotect cimport do_mprotect
from ksm.mm.mremap cimport do_mremap
from ksm.mm.swap cimport lru_add_drain_all
from ksm.mm.vmscan cimport reclaim_range
from ksm.procfs cimport read_page_table, show_ksm_stat, show_maps, show_smaps

cdef object MADE_HERE = object()


cdef class Process:
    """A process of a machine. Made by Machine.spawn(), fork() and exec(); not by hand."""

    cdef readonly Machine machine
    cdef readonly int pid
    cdef public str name
    cdef mm_struct *mm
    cdef spinlock_t lock
    cdef object __weakref__

    def __cinit__(self, made_by=None):
        # Without a machine nothing below would hold.
        if made_by is not MADE_HERE:
            raise TypeError("processes come from Machine.spawn() and Process.fork()")
        spin_lock_init(&self.lock)

    cdef mm_struct *get_mm(self) except NULL:
        """The address space, kept until put_mm(); ProcessLookupError after exit, ValueError when the machine is closed."""
        cdef mm_struct *mm
        self.machine.enter()
        spin_lock(&self.lock)
        mm = self.mm
        if mm != NULL:
            mmget(mm)
        spin_unlock(&self.lock)
        if mm == NULL:
            self.machine.leave()
            raise ProcessLookupError(ESRCH, f"{os.strerror(ESRCH)}: {self.name} (pid {self.pid}) has exited")
        return mm

    cdef void put_mm(self, mm_struct *mm) noexcept:
        with nogil:
            mmput(mm)
        self.machine.leave()

    @property
    def alive(self):
        """False after exit()."""
        return self.mm != NULL

    @property
    def mm_id(self):
        """The number of the address space, which trace events carry: its own for each process, new after exec()."""
        cdef mm_struct *mm = self.get_mm()
        number = mm.id
        self.put_mm(mm)
        return number

    def __repr__(self):
        return f"<ksm.Process {self.pid} {self.name!r}{'' if self.mm != NULL else ' exited'}>"

    # System calls

    def mmap(self, length, prot=PROT_READ | PROT_WRITE, flags=MAP_PRIVATE | MAP_ANONYMOUS, addr=0):
        """Map memory of zeros: its address. Private or shared (MAP_SHARED), anonymous; addr is a hint unless MAP_FIXED or
        MAP_FIXED_NOREPLACE is set. OSError EINVAL, ENOMEM, EEXIST. Follows do_mmap()."""
        cdef unsigned long clength = ulong("length", length), caddr = ulong("addr", addr)
        cdef int cprot = cint("prot", prot), cflags = cint("flags", flags)
        cdef mm_struct *mm = self.get_mm()
        cdef long ret
        with nogil:
            mmap_write_lock(mm)
            ret = do_mmap(mm, caddr, clength, cprot, cflags)
            mmap_write_unlock(mm)
        self.put_mm(mm)
        if ret < 0:
            raise oserror(ret, f"mmap of {length} bytes at {addr:#x}")
        return ret

    def munmap(self, addr, length):
        """Unmap [addr, addr + length). OSError EINVAL, ENOMEM. Follows do_munmap()."""
        cdef unsigned long caddr = ulong("addr", addr), clength = ulong("length", length)
        cdef mm_struct *mm = self.get_mm()
        cdef int ret
        with nogil:
            mmap_write_lock(mm)
            ret = do_munmap(mm, caddr, clength)
            mmap_write_unlock(mm)
        self.put_mm(mm)
        if ret < 0:
            raise oserror(ret, f"munmap of {length} bytes at {addr:#x}")

    def mprotect(self, addr, length, prot):
        """Change what may be done with memory. OSError EINVAL, ENOMEM. Follows do_mprotect_pkey()."""
        cdef unsigned long caddr = ulong("addr", addr), clength = ulong("length", length)
        cdef int cprot = cint("prot", prot), ret
        cdef mm_struct *mm = self.get_mm()
        with nogil:
            mmap_write_lock(mm)
            ret = do_mprotect(mm, caddr, clength, cprot)
            mmap_write_unlock(mm)
        self.put_mm(mm)
        if ret < 0:
            raise oserror(ret, f"mprotect of {length} bytes at {addr:#x}")

    def mremap(self, addr, old_length, new_length, flags=MREMAP_MAYMOVE, new_addr=None):
        """Resize or move a mapping: its address. With new_addr it goes there (MREMAP_FIXED). Merged pages are unmerged when they move.
        OSError EINVAL, EFAULT, ENOMEM. Follows mremap(2)."""
        cdef unsigned long caddr = ulong("addr", addr), cold = ulong("old_length", old_length), cnew = ulong("new_length", new_length)
        cdef unsigned long cto = 0
        cdef int cflags = cint("flags", flags)
        cdef mm_struct *mm
        cdef long ret
        if new_addr is not None:
            cto = ulong("new_addr", new_addr)
            cflags |= MREMAP_MAYMOVE | MREMAP_FIXED
        mm = self.get_mm()
        with nogil:
            mmap_write_lock(mm)
            ret = do_mremap(mm, caddr, cold, cnew, cflags, cto)
            mmap_write_unlock(mm)
        self.put_mm(mm)
        if ret < 0:
            raise oserror(ret, f"mremap of {old_length} bytes at {addr:#x}")
        return ret

    def madvise(self, addr, length, advice):
        """Give advice on memory: MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_DONTNEED, MADV_HUGEPAGE, ... OSError EINVAL, ENOMEM for a range
        with holes, EAGAIN without memory. Follows do_madvise()."""
        cdef unsigned long caddr = ulong("addr", addr), clength = ulong("length", length)
        cdef int cadvice = cint("advice", advice), ret
        cdef mm_struct *mm = self.get_mm()
        with nogil:
            ret = do_madvise(mm, caddr, clength, cadvice)
        self.put_mm(mm)
        if ret < 0:
            raise oserror(ret, f"madvise({advice}) of {length} bytes at {addr:#x}")

    def brk(self, addr=0):
        """Move the end of the heap: the new end, or the old one when it could not be moved. Follows brk(2)."""
        cdef unsigned long caddr = ulong("addr", addr)
        cdef mm_struct *mm = self.get_mm()
        cdef long ret
        with nogil:
            mmap_write_lock(mm)
            ret = do_brk(mm, caddr)
            mmap_write_unlock(mm)
        self.put_mm(mm)
        return ret

    def prctl(self, option, arg=0):
        """PR_SET_MEMORY_MERGE: make all memory that can be merged mergeable, now and in future, or (arg 0) unmerge it all;
        PR_GET_MEMORY_MERGE: whether that is so. OSError EINVAL, ENOMEM. Follows kernel/sys.c."""
        cdef int coption = cint("option", option), ret = -EINVAL
        cdef unsigned long carg = ulong("arg", arg)
        cdef mm_struct *mm = self.get_mm()
        with nogil:
            mmap_write_lock(mm)
            if coption == PR_GET_MEMORY_MERGE:
                ret = test_bit(MMF_VM_MERGE_ANY, &mm.flags)
            elif coption == PR_SET_MEMORY_MERGE:
                ret = ksm_enable_merge_any(mm) if carg else ksm_disable_merge_any(mm)
            mmap_write_unlock(mm)
        self.put_mm(mm)
        if ret < 0:
            raise oserror(ret, f"prctl({option}, {arg})")
        return ret

    def fork(self, name=None):
        """A child that shares all pages, copy on write: ksm.Process. OSError(ENOMEM). Follows dup_mm()."""
        cdef mm_struct *mm = self.get_mm()
        cdef mm_struct *child
        cdef int error = 0
        with nogil:
            child = dup_mm(mm, &error)
        self.put_mm(mm)
        if child == NULL:
            raise oserror(error, f"fork of {self.name}")
        return adopt(self.machine, child, name)

    def exec(self, name=None):
        """Begin a new program: an empty address space with a stack. OSError(ENOMEM). Follows fs/exec.c."""
        cdef mm_struct *mm = self.get_mm()
        cdef mm_struct *fresh
        cdef int error = 0
        cdef bint exited = False
        with nogil:
            fresh = exec_mm(mm, &error)
            if fresh != NULL:
                spin_lock(&self.lock)
                exited = self.mm != mm
                if not exited:
                    self.mm = fresh
                spin_unlock(&self.lock)
                mmput(fresh if exited else mm)
        self.put_mm(mm)
        if fresh == NULL:
            raise oserror(error, f"exec of {self.name}")
        if name is not None:
            self.name = name

    def exit(self):
        """Give everything back. What KSM keeps of the process goes when ksmd comes by. Exiting twice is no error."""
        try:
            self.machine.enter()
        except ValueError:
            return              # close() has seen to it
        try:
            self._exit()
        finally:
            self.machine.leave()

    def _exit(self):
        cdef mm_struct *mm
        spin_lock(&self.lock)
        mm = self.mm
        self.mm = NULL
        spin_unlock(&self.lock)
        self.machine.processes.pop(self.pid, None)
        if mm != NULL:
            with nogil:
                mmput(mm)
                if self.machine.m.nr_blocks:
                    remove_unused_memory(self.machine.m)

    def _let_go(self):
        """The machine is closing, and frees the memory of all processes at once."""
        spin_lock(&self.lock)
        self.mm = NULL
        spin_unlock(&self.lock)
        self.machine.processes.pop(self.pid, None)

    # Memory

    def write(self, addr, data, *, force=False):
        """Store bytes; pages are made, and copied, as faults demand. `force` also writes where the process itself may not, like a
        debugger. OSError EFAULT or ENOMEM; what comes before the bad page is written."""
        cdef const unsigned char[::1] view = memoryview(data).cast("B")
        cdef unsigned long caddr = ulong("addr", addr), length = view.shape[0], done
        cdef mm_struct *mm
        cdef int error = 0
        if length == 0:
            return
        mm = self.get_mm()
        if force:
            done = remote(mm, caddr, <char *>&view[0], length, True, &error)
        else:
            with nogil:
                done = cpu_access(mm, caddr, <char *>&view[0], length, True, &error)
        self.put_mm(mm)
        if done < length:
            raise oserror(error, f"write of {length} bytes at {addr:#x}, {done} done")

    def read(self, addr, length, *, force=False):
        """Load bytes. OSError EFAULT or ENOMEM."""
        cdef unsigned long caddr = ulong("addr", addr), clength = ulong("length", length), done
        cdef mm_struct *mm
        cdef bytes result
        cdef char *buf
        cdef int error = 0
        if clength > <unsigned long>1 << 46:
            raise oserror(-EFAULT, f"read of {length} bytes at {addr:#x}")
        mm = self.get_mm()
        try:
            result = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>clength)
            buf = PyBytes_AS_STRING(result)
            if force:
                done = remote(mm, caddr, buf, clength, False, &error)
            else:
                with nogil:
                    done = cpu_access(mm, caddr, buf, clength, False, &error)
        finally:
            self.put_mm(mm)
        if done < clength:
            raise oserror(error, f"read of {length} bytes at {addr:#x}, {done} done")
        return result

    def touch(self, addr, length=1, *, bint write=True):
        """Write the first byte of every page in the range with its own value; with write=False only read it."""
        cdef unsigned long caddr = ulong("addr", addr) & page_mask(), end = ulong("addr + length", addr + length)
        cdef mm_struct *mm = self.get_mm()
        cdef int error = 0
        with nogil:
            caddr = cpu_touch(mm, caddr, end, write, &error)
        self.put_mm(mm)
        if error:
            raise oserror(error, f"touch at {caddr:#x}")

    def update(self, addr, buffer):
        """Make whole pages equal to the buffer, writing only those that differ or are not there: how many that were. OSError EFAULT,
        ENOMEM."""
        cdef const unsigned char[::1] view = memoryview(buffer).cast("B")
        cdef unsigned long caddr = ulong("addr", addr), nr_pages = view.shape[0] >> PAGE_SHIFT
        cdef mm_struct *mm
        cdef long changed
        cdef int error = 0
        if caddr & (PAGE_SIZE - 1) or view.shape[0] & (PAGE_SIZE - 1):
            raise ValueError("update() takes whole pages")
        if nr_pages == 0:
            return 0
        mm = self.get_mm()
        with nogil:
            changed = cpu_update(mm, caddr, <const char *>&view[0], nr_pages, &error)
        self.put_mm(mm)
        if error:
            raise oserror(error, f"update of {nr_pages} pages at {addr:#x}")
        return changed

    def mmap_image(self, image, offset=0, length=None, addr=0, *, node=0):
        """Map a part of a file as memory that the process has filled itself: its address.

        image is an open file or a file descriptor; offset and length are whole pages, length up to the end of the file when it is not
        given. The file's pages become frames of the machine, mapped privately and not copied: the file must not shrink meanwhile. With
        addr, the place is fixed, and must be free. OSError ENOMEM when max_memory or memory is too small, EEXIST, EINVAL.
        """
        cdef int fd = cint("image", image if isinstance(image, int) else image.fileno())
        cdef unsigned long coffset = ulong("offset", offset), caddr = ulong("addr", addr), clength
        cdef int nid = cint("node", node), flags = MAP_PRIVATE | MAP_ANONYMOUS
        cdef mm_struct *mm
        cdef long pfn = 0, place = 0
        cdef int err = 0
        size = os.fstat(fd).st_size
        clength = ulong("length", size - offset if length is None else length)
        if coffset % PAGE_SIZE or clength % PAGE_SIZE or clength == 0:
            raise ValueError("offset and length of an image are whole pages")
        if offset + clength > size:
            raise ValueError(f"the file ends at {size}, before {offset + clength}")
        if caddr:
            flags |= MAP_FIXED_NOREPLACE
        mm = self.get_mm()
        if not 0 <= nid < self.machine.m.nr_node_ids:
            self.put_mm(mm)
            raise ValueError(f"there is no node {node}")
        with nogil:
            # First the frames: hotplug waits for ksmd, which may wait for mmap_lock.
            pfn = add_memory_file(self.machine.m, nid, fd, coffset, clength >> PAGE_SHIFT)
            err = <int>pfn if pfn < 0 else 0
            if not err:
                mmap_write_lock(mm)
                place = do_mmap(mm, caddr, clength, PROT_READ | PROT_WRITE, flags)
                if place < 0:
                    err = <int>place
                else:
                    err = insert_frames(vma_lookup(mm, <unsigned long>place), <unsigned long>place, <unsigned long>pfn,
                                        clength >> PAGE_SHIFT)
                    if err:
                        do_munmap(mm, <unsigned long>place, clength)
                mmap_write_unlock(mm)
                if err:
                    remove_memory(self.machine.m, <unsigned long>pfn)
        self.put_mm(mm)
        if err:
            raise oserror(err, f"mmap_image of {clength} bytes")
        return place

    def swap_out(self, addr, length):
        """Reclaim the range's anonymous pages, those that are shared with others for all of them: how many frames that freed.

        Pages come back when somebody touches them. What cannot be written, because the swap area is full, or somebody holds the page,
        stays. Stands for memory pressure; madvise(MADV_PAGEOUT) does this for pages that nobody shares.
        """
        cdef unsigned long caddr = ulong("addr", addr) & page_mask(), end = ulong("addr + length", addr + length)
        cdef mm_struct *mm = self.get_mm()
        cdef long reclaimed
        with nogil:
            reclaimed = reclaim_range(mm, caddr, end)
        self.put_mm(mm)
        return reclaimed

    def move_pages(self, addr, length, node):
        """Move the range's pages to a node, those that are shared too: a list with, for every page, the node where it is now, or -errno:
        -ENOENT for none, -EFAULT for the zero page, -EBUSY, -EAGAIN, -ENOMEM. Follows move_pages(2) with MPOL_MF_MOVE_ALL."""
        cdef unsigned long caddr = ulong("addr", addr) & page_mask(), end = ulong("addr + length", addr + length), new_pfn = 0
        cdef int nid = self.machine.check_node(node), err
        cdef mm_struct *mm = self.get_mm()
        cdef struct_folio *folio = NULL
        status = []
        try:
            lru_add_drain_all(mm.machine)
            while caddr < end:
                with nogil:
                    err = add_folio_for_migration(mm, caddr, nid, &folio)
                    if err > 0:
                        err = migrate_pages(mm.machine, folio, nid, <unsigned long>1 << nid, &new_pfn)
                status.append(err if err < 0 else nid)
                caddr += PAGE_SIZE
        finally:
            self.put_mm(mm)
        return status

    # What there is

    @property
    def node(self):
        """The NUMA node from which faults take pages first."""
        cdef mm_struct *mm = self.get_mm()
        cdef int nid = mm.nid
        self.put_mm(mm)
        return nid

    def page_table(self, addr, length):
        """One word for each page of the range, as array('Q'): 0 where nothing is mapped, else frame << 8 | PAGE_* flags. Of a page that is
        swapped out it is its place in the swap area << 8 | PAGE_SWAPPED."""
        cdef unsigned long caddr = ulong("addr", addr) & page_mask(), clength = ulong("length", length)
        cdef unsigned long nr_pages = (clength + PAGE_SIZE - 1) >> PAGE_SHIFT
        cdef mm_struct *mm
        cdef unsigned long[::1] words
        if nr_pages > <unsigned long>1 << 35:
            raise ValueError("length is larger than an address space")
        result = array("L" if sizeof(unsigned long) == 8 else "Q", bytes(8)) * nr_pages
        if nr_pages == 0:
            return result
        words = result
        mm = self.get_mm()
        with nogil:
            read_page_table(mm, caddr, nr_pages, &words[0])
        self.put_mm(mm)
        return result

    def present(self, addr, length):
        """One byte for each page of the range: 1 where a page is mapped."""
        return bytes(word & 1 for word in self.page_table(addr, length))

    def maps(self):
        """The mappings, ascending: a list of Vma."""
        cdef mm_struct *mm = self.get_mm()
        try:
            return show_maps(mm)
        finally:
            self.put_mm(mm)

    def smaps(self):
        """The mappings with their pages, ascending: a list of Smap, in bytes. What KSM has replaced by the zero page counts nowhere, as in
        the kernel. Follows show_smap()."""
        cdef mm_struct *mm = self.get_mm()
        try:
            return show_smaps(mm)
        finally:
            self.put_mm(mm)

    def rss(self):
        """Pages of one's own and of shared objects, as /proc/PID/statm counts them; the zero page does not count."""
        cdef mm_struct *mm = self.get_mm()
        cdef long pages = get_mm_counter(mm, MM_ANONPAGES) + get_mm_counter(mm, MM_SHMEMPAGES)
        self.put_mm(mm)
        return pages

    def swap_entries(self):
        """Pages that are swapped out: VmSwap of /proc/PID/status, in pages."""
        cdef mm_struct *mm = self.get_mm()
        cdef long pages = get_mm_counter(mm, MM_SWAPENTS)
        self.put_mm(mm)
        return pages

    def ksm_stat(self):
        """/proc/PID/ksm_stat: ksm_rmap_items, ksm_zero_pages, ksm_merging_pages, and ksm_process_profit in bytes. Empty in the era of 2011,
        which counted nothing for a process. Follows proc_pid_ksm_stat()."""
        cdef mm_struct *mm = self.get_mm()
        result = {} if self.machine.g.era == ERA_2_6_38 else show_ksm_stat(mm)
        self.put_mm(mm)
        return result

    cdef object ksm_count(self, str name):
        """A line of ksm_stat; AttributeError where this era has none."""
        stat = self.ksm_stat()
        if name not in stat:
            raise AttributeError(f"KSM of this era has no {name}")
        return stat[name]

    @property
    def ksm_rmap_items(self):
        """Pages that KSM keeps an rmap_item for."""
        return self.ksm_count("ksm_rmap_items")

    @property
    def ksm_zero_pages(self):
        """Pages that KSM has replaced by the zero page."""
        return self.ksm_count("ksm_zero_pages")

    @property
    def ksm_merging_pages(self):
        """Pages that are merged, as far as ksmd has noticed."""
        return self.ksm_count("ksm_merging_pages")

    @property
    def ksm_process_profit(self):
        """Bytes saved, less 64 for each rmap_item."""
        return self.ksm_count("ksm_process_profit")


cdef unsigned long remote(mm_struct *mm, unsigned long addr, char *buf, unsigned long length, bint write, int *error) noexcept:
    cdef long done
    with nogil:
        mmap_read_lock(mm)
        done = access_remote_vm(mm, addr, buf, length, write)
        mmap_read_unlock(mm)
    error[0] = <int>done if done < 0 else -EFAULT
    return <unsigned long>done if done > 0 else 0


cdef object adopt(Machine machine, mm_struct *mm, name):
    cdef Process process = Process.__new__(Process, MADE_HERE)
    process.machine = machine
    process.pid = machine._next_pid()
    process.name = f"process-{process.pid}" if name is None else str(name)
    process.mm = mm
    machine.processes[process.pid] = process
    return process


def processes_by_mm(Machine machine):
    """{address space: process}, of all that have one."""
    cdef Process process
    return {<size_t>process.mm: process for process in list(machine.processes.values()) if process.mm != NULL}


def spawn(Machine machine, name, int node):
    """Machine.spawn()."""
    cdef mm_struct *mm
    machine.enter()
    try:
        mm = mm_alloc(machine.m)
        if mm == NULL:
            raise oserror(-ENOMEM, "spawn")
        mm.nid = node
        return adopt(machine, mm, name)
    finally:
        machine.leave()

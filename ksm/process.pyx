# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the Python face of a process.
"""A process: an address space, and the system calls and memory accesses of the process.

Addresses and lengths are in bytes, as for the system calls of the same names. Where these return -errno, OSError is raised. An access to
memory that is not mapped, or does not allow it, is OSError(EFAULT) where a real process would get SIGSEGV. Every call keeps the address
space alive until it returns, so another thread may let the process exit meanwhile.
"""

import os
from array import array

from ksm.host import memory as host
from ksm.host.holes import data_pages

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport E2BIG, EFAULT, EINVAL, EIO, ENOMEM, EOPNOTSUPP, ESRCH

from linux.atomic cimport atomic_add_return, test_bit
from linux.highmem cimport frame_damaged, has_bytes, ksm_frame
from linux.ksm cimport ksm_add_vma, ksm_disable_merge_any, ksm_enable_merge_any, ksm_vma_flags
from linux.mm cimport VM_DONTEXPAND, get_mm_counter, vma_lookup
from linux.mm_types cimport (MMF_VM_MERGE_ANY, MM_ANONPAGES, MM_SHMEMPAGES, MM_SWAPENTS, PAGE_SHIFT, PAGE_SIZE, mm_struct, page_mask,
                             vm_area_struct)
from linux.mman cimport (MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_PRIVATE, MREMAP_FIXED, MREMAP_MAYMOVE, PROT_READ, PROT_WRITE,
                         PR_GET_MEMORY_MERGE, PR_SET_MEMORY_MERGE)
from linux.mmap_lock cimport mmap_read_lock, mmap_read_unlock, mmap_write_lock, mmap_write_unlock, mmget
from linux.spinlock cimport spin_lock, spin_lock_init, spin_unlock, spinlock_t

from ksm.cpu cimport cpu_access, cpu_touch, cpu_update
from ksm.fingerprint.store cimport store_pages
from ksm.fs.exec cimport exec_mm
from ksm.host.arena cimport arena_read_file
from ksm.kernel.fork cimport dup_mm, mm_alloc, mmput
from ksm.machine cimport Machine, cint, oserror, ulong
from ksm.mm.ksm cimport ERA_2_6_38, ERA_6_1, ERA_7_3
from ksm.mm.madvise cimport do_madvise
from ksm.mm.memory cimport access_remote_vm, insert_frames
from ksm.mm.memory_hotplug cimport add_memory_file, memory_is_used, remove_memory, remove_unused_memory
from ksm.mm.migrate cimport MOST_QUEUED, do_pages_move, do_pages_stat, pages_move
from ksm.mm.mmap cimport do_brk, do_mmap, do_munmap
from ksm.mm.mprotect cimport do_mprotect
from ksm.mm.mremap cimport do_mremap
from ksm.mm.vmscan cimport reclaim_range
from ksm.procfs cimport ksm_stat_lines, read_maps, read_page_table, show_ksm_stat, show_maps, show_smaps, vma_lines

cdef object MADE_HERE = object()

cdef enum:
    ROUND = 268435456           # bytes of a range, between two looks for signals, and for a close()
    MOST_TOLD = 268435456       # pages of which page_table() tells
    MOST_MOVED = 4194304        # largest number of pages for move_pages()
    LITTLE = 16777216           # bytes of an image that are read at once; for longer images the available memory is checked


@cython.no_gc_clear
cdef class Process:
    """Process()
--

    A process of a machine. Machine.spawn() and fork() make it; calling the class raises TypeError.

    Its attributes are its settings (machine, pid, name, node), its state (alive, mm_id), and the numbers of /proc/PID/ksm_stat by their
    names. A count, or anything that does work, is a method.
    """

    cdef readonly Machine machine
    cdef readonly int pid
    cdef str given_name         # None: the name is process-PID
    # Only a call that has entered the machine uses these
    cdef mm_struct *mm
    cdef unsigned long number   # mm.id
    cdef spinlock_t lock
    cdef object __weakref__

    def __cinit__(self, made_by=None, machine=None, name=None):
        # Without a machine the methods below would fail.
        if made_by is not MADE_HERE:
            raise TypeError("processes come from Machine.spawn() and Process.fork()")
        self.machine = machine
        self.given_name = name
        spin_lock_init(&self.lock)

    def __reduce__(self):
        raise TypeError("a process cannot be copied or pickled: fork() makes another one")

    cdef int check_alive(self) except -1:
        """Before room is made for what is going to be read: a process that has exited is the error, and not the room."""
        with nogil:
            self.put_mm(self.get_mm())
        return 0

    cdef mm_struct *get_mm(self) except NULL nogil:
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
            with gil:
                raise ProcessLookupError(ESRCH, f"{os.strerror(ESRCH)}: {self.name} (pid {self.pid}) has exited")
        return mm

    cdef void put_mm(self, mm_struct *mm) noexcept nogil:
        mmput(mm)
        self.machine.leave()

    cdef void be_born(self, mm_struct *mm) noexcept nogil:
        """Give the process this address space and the next pid."""
        self.mm = mm
        self.number = mm.id
        self.pid = atomic_add_return(&self.machine.last_pid, 1)

    @property
    def name(self):
        """The name of the process; "process-PID" when no name was given. It can be set."""
        return name_of(self)

    @name.setter
    def name(self, str name not None):
        set_name(self, name)

    @name.deleter
    def name(self):
        raise AttributeError("a process has a name: set it to another one")

    @property
    def alive(self):
        """False after exit(), and when the machine is closed."""
        return self.mm != NULL and not self.machine.gate.closed

    @property
    def mm_id(self):
        """The number of the address space, which trace events have as mm_id. It is unique to each process, and new after exec()."""
        cdef mm_struct *mm
        cdef unsigned long number
        with nogil:
            mm = self.get_mm()
            number = mm.id
            self.put_mm(mm)
        return number

    def __repr__(self):
        return f"<ksm.Process {self.pid} {self.name!r}{'' if self.alive else ' exited'}>"

    # System calls

    def mmap(self, length, prot=PROT_READ | PROT_WRITE, flags=MAP_PRIVATE | MAP_ANONYMOUS, addr=0):
        """Map memory of zeros. Returns its address. The memory is anonymous, and private or shared (MAP_SHARED). addr is a hint unless
        MAP_FIXED or MAP_FIXED_NOREPLACE is set. OSError EINVAL, ENOMEM, EEXIST. EPERM for an address below 65536, the vm.mmap_min_addr of a
        process without CAP_SYS_RAWIO; a hint below it is raised. Follows do_mmap().
        """
        cdef unsigned long clength = ulong("length", length), caddr = ulong("addr", addr)
        cdef int cprot = cint("prot", prot), cflags = cint("flags", flags)
        cdef mm_struct *mm
        cdef long ret
        with nogil:
            mm = self.get_mm()
            mmap_write_lock(mm)
            ret = do_mmap(mm, caddr, clength, cprot, cflags)
            mmap_write_unlock(mm)
            self.put_mm(mm)
        if ret < 0:
            raise oserror(ret, f"mmap of {clength} bytes at {caddr:#x}")
        return ret

    def munmap(self, addr, length):
        """Unmap [addr, addr + length). OSError EINVAL, ENOMEM. Follows do_munmap()."""
        cdef unsigned long caddr = ulong("addr", addr), clength = ulong("length", length)
        cdef mm_struct *mm
        cdef int ret
        with nogil:
            mm = self.get_mm()
            mmap_write_lock(mm)
            ret = do_munmap(mm, caddr, clength)
            mmap_write_unlock(mm)
            self.put_mm(mm)
        if ret < 0:
            raise oserror(ret, f"munmap of {clength} bytes at {caddr:#x}")

    def mprotect(self, addr, length, prot):
        """Change the access rights of memory. OSError EINVAL, ENOMEM. Follows do_mprotect_pkey()."""
        cdef unsigned long caddr = ulong("addr", addr), clength = ulong("length", length)
        cdef int cprot = cint("prot", prot), ret
        cdef mm_struct *mm
        with nogil:
            mm = self.get_mm()
            mmap_write_lock(mm)
            ret = do_mprotect(mm, caddr, clength, cprot)
            mmap_write_unlock(mm)
            self.put_mm(mm)
        if ret < 0:
            raise oserror(ret, f"mprotect of {clength} bytes at {caddr:#x}")

    def mremap(self, addr, old_length, new_length, flags=MREMAP_MAYMOVE, new_addr=None):
        """Resize or move a mapping. Returns its address. With new_addr it is moved there (MREMAP_FIXED). Merged pages are unmerged when
        they move. OSError EINVAL, EFAULT, ENOMEM, EPERM as for mmap(). Follows mremap(2).
        """
        cdef unsigned long caddr = ulong("addr", addr), cold = ulong("old_length", old_length), cnew = ulong("new_length", new_length)
        cdef unsigned long cto = 0
        cdef int cflags = cint("flags", flags)
        cdef mm_struct *mm
        cdef long ret
        if new_addr is not None:
            cto = ulong("new_addr", new_addr)
            cflags |= MREMAP_MAYMOVE | MREMAP_FIXED
        with nogil:
            mm = self.get_mm()
            mmap_write_lock(mm)
            ret = do_mremap(mm, caddr, cold, cnew, cflags, cto)
            mmap_write_unlock(mm)
            self.put_mm(mm)
        if ret < 0:
            raise oserror(ret, f"mremap of {cold} bytes at {caddr:#x}")
        return ret

    def madvise(self, addr, length, advice):
        """Give advice on memory: MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_DONTNEED, MADV_HUGEPAGE, ... OSError EINVAL, ENOMEM for a range
        with holes, EAGAIN without memory. Follows do_madvise()."""
        cdef unsigned long caddr = ulong("addr", addr), clength = ulong("length", length)
        cdef int cadvice = cint("advice", advice), ret
        cdef mm_struct *mm
        with nogil:
            mm = self.get_mm()
            ret = do_madvise(mm, caddr, clength, cadvice)
            self.put_mm(mm)
        if ret < 0:
            raise oserror(ret, f"madvise({cadvice}) of {clength} bytes at {caddr:#x}")

    def brk(self, addr=0):
        """Move the end of the heap. Returns the new end, or the old one when it could not be moved. Follows brk(2)."""
        cdef unsigned long caddr = ulong("addr", addr)
        cdef mm_struct *mm
        cdef long ret
        with nogil:
            mm = self.get_mm()
            mmap_write_lock(mm)
            ret = do_brk(mm, caddr)
            mmap_write_unlock(mm)
            self.put_mm(mm)
        return ret

    def prctl(self, option, arg=0, arg3=0, arg4=0, arg5=0):
        """PR_SET_MEMORY_MERGE: make all memory that can be merged mergeable, now and in future, or (arg 0) unmerge it all;
        PR_GET_MEMORY_MERGE, with arg 0: whether that is so. All further arguments have to be 0. OSError EINVAL, also in an era until 6.1,
        which had neither; ENOMEM. Follows kernel/sys.c.
        """
        cdef int coption = cint("option", option), ret = -EINVAL
        cdef unsigned long carg = ulong("arg", arg)
        cdef unsigned long rest = ulong("arg3", arg3) | ulong("arg4", arg4) | ulong("arg5", arg5)
        cdef mm_struct *mm
        with nogil:
            mm = self.get_mm()
            mmap_write_lock(mm)
            if self.machine.g.era <= ERA_6_1 or rest:
                ret = -EINVAL
            elif coption == PR_GET_MEMORY_MERGE:
                ret = -EINVAL if carg else test_bit(MMF_VM_MERGE_ANY, &mm.flags)
            elif coption == PR_SET_MEMORY_MERGE:
                ret = ksm_enable_merge_any(mm) if carg else ksm_disable_merge_any(mm)
            mmap_write_unlock(mm)
            self.put_mm(mm)
        if ret < 0:
            raise oserror(ret, f"prctl({coption}, {carg})")
        return ret

    def _merge_any(self):
        """prctl(PR_SET_MEMORY_MERGE, 1) in every era, for ksm scan."""
        cdef mm_struct *mm
        cdef int ret
        with nogil:
            mm = self.get_mm()
            mmap_write_lock(mm)
            ret = ksm_enable_merge_any(mm)
            mmap_write_unlock(mm)
            self.put_mm(mm)
        if ret < 0:
            raise oserror(ret, "merging all memory of a process")

    def fork(self, name=None):
        """A child that shares all pages, copy on write: ksm.Process. OSError(ENOMEM). Follows dup_mm()."""
        cdef Process process = Process.__new__(Process, MADE_HERE, self.machine, as_name(name))
        cdef mm_struct *mm
        cdef mm_struct *child
        cdef int error = 0
        with nogil:
            mm = self.get_mm()
            child = dup_mm(mm, &error)
            if child != NULL:
                process.be_born(child)
            self.put_mm(mm)
        if child == NULL:
            raise oserror(error, f"fork of {self.name}")
        return register(process)

    def exec(self, name=None):
        """Begin a new program: an empty address space with a stack. OSError(ENOMEM). Follows fs/exec.c."""
        cdef str new_name = as_name(name)
        cdef mm_struct *mm
        cdef mm_struct *fresh
        cdef int error = 0
        cdef bint exited = False
        with nogil:
            mm = self.get_mm()
            fresh = exec_mm(mm, &error)
            if fresh != NULL:
                spin_lock(&self.lock)
                exited = self.mm != mm
                if not exited:
                    self.mm = fresh
                    self.number = fresh.id
                spin_unlock(&self.lock)
                mmput(fresh if exited else mm)
            self.put_mm(mm)
        if fresh == NULL:
            raise oserror(error, f"exec of {self.name}")
        if new_name is not None:
            set_name(self, new_name)

    def exit(self):
        """End the process and free its memory. ksmd frees what KSM keeps of it when it comes by. Exiting twice is no error, nor is exiting
        after the machine was closed.
        """
        cdef mm_struct *mm
        try:
            with nogil:
                self.machine.enter()
                spin_lock(&self.lock)
                mm = self.mm
                self.mm = NULL
                spin_unlock(&self.lock)
                if mm != NULL:
                    mmput(mm)
                    remove_unused_memory(self.machine.m)
                self.machine.leave()
        except ValueError:
            return              # close() has ended the process
        self.machine.all_processes.pop(self.pid, None)

    # Memory

    def write(self, addr, data, *, force=False):
        """Store bytes. Page faults make and copy pages as needed. `force` also writes where the process itself may not, like a debugger.
        OSError EFAULT or ENOMEM; the bytes before the bad page are written. EOPNOTSUPP in a machine of fingerprints, where update() stores
        whole pages. A view of the machine's memory is copied first.
        """
        cdef const unsigned char[::1] view = bytes_of(self.machine, data)
        cdef unsigned long caddr = ulong("addr", addr), length = view.shape[0], done
        cdef bint forced = force
        cdef mm_struct *mm
        cdef char *buf
        cdef int error = 0
        if length == 0:
            return
        buf = <char *>&view[0]
        with nogil:
            mm = self.get_mm()
            if check_bytes(mm, &error):
                done = 0
            elif forced:
                done = remote(mm, caddr, buf, length, True, &error)
            else:
                done = cpu_access(mm, caddr, buf, length, True, &error)
            self.put_mm(mm)
        if done < length:
            raise no_bytes(error, f"write of {length} bytes at {caddr:#x}, {done} done")

    def read(self, addr, length, *, force=False):
        """Load bytes. OSError EFAULT or ENOMEM; EOPNOTSUPP in a machine of fingerprints."""
        cdef unsigned long caddr = ulong("addr", addr), clength = ulong("length", length), done
        cdef bint forced = force
        cdef mm_struct *mm
        cdef bytes result
        cdef char *buf
        cdef int error = 0
        if clength > <unsigned long>1 << 46:
            raise oserror(-EFAULT, f"read of {clength} bytes at {caddr:#x}")
        self.check_alive()
        result = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>clength)
        buf = PyBytes_AS_STRING(result)
        with nogil:
            mm = self.get_mm()
            if check_bytes(mm, &error):
                done = 0
            elif forced:
                done = remote(mm, caddr, buf, clength, False, &error)
            else:
                done = cpu_access(mm, caddr, buf, clength, False, &error)
            self.put_mm(mm)
        if done < clength:
            raise no_bytes(error, f"read of {clength} bytes at {caddr:#x}, {done} done")
        return result

    def touch(self, addr, length=1, *, bint write=True):
        """Write the first byte of every page in the range with its own value; with write=False only read it."""
        cdef unsigned long caddr, end
        cdef mm_struct *mm
        cdef int error = 0
        page_range(addr, length, &caddr, &end)
        while True:
            with nogil:
                mm = self.get_mm()
                caddr = cpu_touch(mm, caddr, end_of_round(caddr, end), write, &error)
                self.put_mm(mm)
            if error:
                raise oserror(error, f"touch at {caddr:#x}")
            if caddr >= end:
                break
            PyErr_CheckSignals()

    def update(self, addr, buffer, *, bint always=False):
        """Make whole pages equal to the buffer, and write only to pages that differ or are not mapped. Returns how many were written. With
        always=True all are written: this gives the process a frame of its own for a page that it shared. A machine of fingerprints stores
        those of the pages. OSError EFAULT, ENOMEM.
        """
        cdef const unsigned char[::1] view = bytes_of(self.machine, buffer)
        cdef unsigned long caddr = ulong("addr", addr), nr_pages = view.shape[0] >> PAGE_SHIFT
        cdef const char *buf
        cdef mm_struct *mm
        cdef long changed
        cdef int error = 0
        if caddr & (PAGE_SIZE - 1) or view.shape[0] & (PAGE_SIZE - 1):
            raise ValueError("update() takes whole pages")
        if nr_pages == 0:
            return 0
        buf = <const char *>&view[0]
        with nogil:
            mm = self.get_mm()
            if has_bytes(mm.machine):
                changed = cpu_update(mm, caddr, buf, nr_pages, always, &error)
            else:
                changed = store_pages(mm, caddr, buf, nr_pages, always, &error)
            self.put_mm(mm)
        if error:
            raise oserror(error, f"update of {nr_pages} pages at {caddr:#x}")
        return changed

    def load(self, addr, frames, *, bint always=False):
        """update() with frames of a machine of fingerprints, 32 bytes for each page, in place of pages: how many were written. They come
        from ksm.fingerprint.frames_of(), for the machine's era and with its key. OSError EFAULT, ENOMEM; EOPNOTSUPP in a machine of bytes.
        ValueError for what stands for no page; nothing is stored then.
        """
        cdef const unsigned char[::1] view = bytes_of(self.machine, frames)
        cdef unsigned long caddr = ulong("addr", addr), nr_pages = view.shape[0] // <Py_ssize_t>sizeof(ksm_frame)
        cdef mm_struct *mm
        cdef const char *buf
        cdef unsigned long good = 0
        cdef long changed = 0
        cdef int error = 0
        if caddr & (PAGE_SIZE - 1) or view.shape[0] % <Py_ssize_t>sizeof(ksm_frame):
            raise ValueError(f"load() takes whole pages, {sizeof(ksm_frame)} bytes each")
        if nr_pages == 0:
            return 0
        buf = <const char *>&view[0]
        with nogil:
            mm = self.get_mm()
            if has_bytes(mm.machine):
                error = -EOPNOTSUPP
            else:
                while good < nr_pages and not frame_damaged(<const ksm_frame *>buf + good):
                    good += 1
                if good == nr_pages:
                    changed = cpu_update(mm, caddr, buf, nr_pages, always, &error)
            self.put_mm(mm)
        if error == -EOPNOTSUPP:
            raise oserror(error, f"load of {nr_pages} pages at {caddr:#x}: the machine's frames hold bytes")
        if error:
            raise oserror(error, f"load of {nr_pages} pages at {caddr:#x}")
        if good < nr_pages:
            raise ValueError(f"frame {good} of those to load stands for no page")
        return changed

    def mmap_image(self, image, offset=0, length=None, addr=0, *, node=0, bint still=False):
        """Map a part of a file as memory that looks as if the process had filled it itself. Returns its address.

        image is an open file or a file descriptor. offset and length are in bytes, and whole pages. Without a length, the part reaches to
        the end of the file. The file's pages become frames of the machine, in addition to its memory. They are copied, so later changes of
        the file have no effect. Holes and pages of zeros take no memory of this computer. With still=True the file is mapped, and not
        copied. The caller then promises that nobody writes to the file, or cuts it off, as long as the machine has it. Otherwise not only
        this process's memory may change, but also that of every process whose pages were merged with the file's. Pages that can no longer
        be read become zeros, and lost_pages() of the machine counts them. With addr, the address is fixed, and must be free.

        OSError ENOMEM when max_memory is too small, or this computer's memory for a copy. EEXIST, EINVAL. EPERM for an address below 65536.
        EIO for a file that is too short. EOPNOTSUPP in a machine of fingerprints: mmap() and update() take its pages there. Any other error
        of reading or mapping the file.
        """
        cdef int fd = cint("image", image if isinstance(image, int) else image.fileno())
        cdef unsigned long coffset = ulong("offset", offset), caddr = ulong("addr", addr), clength
        cdef int nid = cint("node", node), flags = MAP_PRIVATE | MAP_ANONYMOUS
        cdef mm_struct *mm
        cdef long pfn = 0, place = 0
        cdef int err = 0
        size = os.fstat(fd).st_size
        clength = ulong("length", size - coffset if length is None else length)
        if coffset % PAGE_SIZE or clength % PAGE_SIZE or clength == 0:
            raise ValueError("offset and length of an image are whole pages")
        if <object>coffset + clength > size:
            raise ValueError(f"the file ends at {size}, before {<object>coffset + clength}")
        if caddr:
            flags |= MAP_FIXED_NOREPLACE
        if not 0 <= nid < self.machine.nr_nodes:
            raise ValueError(f"there is no node {nid}")
        with nogil:
            mm = self.get_mm()
            # The frames come first: hotplug waits for ksmd, which may wait for mmap_lock.
            if not check_bytes(mm, &err):
                pfn = add_memory_file(self.machine.m, nid, fd if still else -1, coffset, clength >> PAGE_SHIFT)
            self.put_mm(mm)
        if err:
            raise no_bytes(err, f"mmap_image of {clength} bytes")
        err = <int>pfn if pfn < 0 else 0
        if not err:
            try:
                err = 0 if still else read_image(self.machine, <unsigned long>pfn, fd, coffset, clength)
                if not err:
                    with nogil:
                        mm = self.get_mm()
                        place = map_frames(mm, caddr, clength, flags, <unsigned long>pfn)
                        if place >= 0:
                            memory_is_used(self.machine.m, <unsigned long>pfn)
                        self.put_mm(mm)
                    err = <int>place if place < 0 else 0
            except BaseException:
                unplug(self.machine, <unsigned long>pfn)
                raise
            if err:
                unplug(self.machine, <unsigned long>pfn)
        if err:
            raise oserror(err, f"mmap_image of {clength} bytes")
        return place

    def swap_out(self, addr, length):
        """Reclaim the range's anonymous pages. A shared page is taken from all its processes. Returns the number of frames freed.

        A page comes back when a process touches it. A page that cannot be written, because the swap area is full, or because it has another
        reference, stays. This stands for memory pressure; madvise(MADV_PAGEOUT) does the same for pages that are not shared.
        """
        cdef unsigned long caddr, end, stop
        cdef mm_struct *mm
        cdef long reclaimed = 0
        page_range(addr, length, &caddr, &end)
        while True:
            with nogil:
                mm = self.get_mm()
                stop = end_of_round(caddr, end)
                reclaimed += reclaim_range(mm, caddr, stop)
                self.put_mm(mm)
            caddr = stop
            if caddr >= end:
                return reclaimed
            PyErr_CheckSignals()

    def move_pages(self, addr, length, node):
        """Move the range's pages to a node, also those that are shared; with node None, only say where they are. Returns a list that has,
        for every page, the node where it is now, or -errno: -ENOENT for none, -EFAULT for the zero page, -EBUSY, -EAGAIN, -ENOMEM. As in
        the kernel since 4.17, pages behind one that cannot be moved may not be tried. OSError E2BIG for more than 4,194,304 pages at once.
        Follows move_pages(2) with MPOL_MF_MOVE_ALL.
        """
        cdef unsigned long caddr, end, nr_pages, i = 0
        cdef int nid = 0 if node is None else self.machine.check_node(node)
        cdef mm_struct *mm
        cdef pages_move state
        cdef int[::1] status
        page_range(addr, length, &caddr, &end)
        nr_pages = pages_in(end - caddr)
        if nr_pages > MOST_MOVED:
            raise oserror(-E2BIG, f"move_pages of {nr_pages} pages at {caddr:#x}")
        self.check_alive()
        result = array("i", [nid]) * nr_pages
        status = result
        state.stayed, state.ended = False, node is None
        while i < nr_pages:
            # Each round leaves the machine, so that a signal handler may do anything.
            with nogil:
                mm = self.get_mm()
                if state.ended:
                    do_pages_stat(mm, caddr + i * PAGE_SIZE, min(MOST_QUEUED, nr_pages - i), &status[i])
                    i = min(i + MOST_QUEUED, nr_pages)
                else:
                    i += do_pages_move(mm, caddr + i * PAGE_SIZE, min(MOST_QUEUED, nr_pages - i), nid, &status[i], &state)
                self.put_mm(mm)
            if i < nr_pages:
                PyErr_CheckSignals()
        return result.tolist()

    # The state of the memory

    @property
    def node(self):
        """The NUMA node from which faults take pages first."""
        cdef mm_struct *mm
        cdef int nid
        with nogil:
            mm = self.get_mm()
            nid = mm.nid
            self.put_mm(mm)
        return nid

    def page_table(self, addr, length):
        """One word for each page of the range, as array('L'): 0 where nothing is mapped, else frame << 8 | PAGE_* flags. For a page that is
        swapped out it is its place in the swap area << 8 | PAGE_SWAPPED. ValueError for more than 2**28 pages (1 TiB) at once.
        """
        cdef unsigned long caddr = ulong("addr", addr) & page_mask(), clength = ulong("length", length)
        cdef unsigned long nr_pages = pages_in(clength)
        cdef mm_struct *mm
        cdef unsigned long[::1] words
        if nr_pages > MOST_TOLD:
            raise ValueError(f"length is {nr_pages} pages, and {<unsigned long>MOST_TOLD} are the most that a table is made of at once")
        self.check_alive()
        result = array("L" if sizeof(unsigned long) == 8 else "Q", bytes(8)) * nr_pages
        if nr_pages == 0:
            return result
        words = result
        with nogil:
            mm = self.get_mm()
            read_page_table(mm, caddr, nr_pages, &words[0])
            self.put_mm(mm)
        return result

    def present(self, addr, length):
        """One byte for each page of the range: 1 where a page is mapped."""
        cdef const unsigned long[::1] words = self.page_table(addr, length)
        cdef bytes result = PyBytes_FromStringAndSize(NULL, words.shape[0])
        cdef char *there = PyBytes_AS_STRING(result)
        cdef Py_ssize_t i
        for i in range(words.shape[0]):
            there[i] = words[i] & 1
        return result

    def maps(self):
        """The mappings, ascending: a list of Vma."""
        cdef mm_struct *mm
        cdef vma_lines lines
        with nogil:
            mm = self.get_mm()
            read_maps(mm, &lines, False)
            self.put_mm(mm)
        return show_maps(&lines)

    def smaps(self):
        """The mappings with their pages, ascending: a list of Smap, in bytes. Pages that KSM has replaced by the zero page are not counted,
        as in the kernel. Follows show_smap().
        """
        cdef mm_struct *mm
        cdef vma_lines lines
        with nogil:
            mm = self.get_mm()
            read_maps(mm, &lines, True)
            self.put_mm(mm)
        return show_smaps(&lines)

    def rss(self):
        """The number of pages in memory, the process's own and those of shared objects, as /proc/PID/statm counts them. The zero page does
        not count.
        """
        cdef mm_struct *mm
        cdef long pages
        with nogil:
            mm = self.get_mm()
            pages = get_mm_counter(mm, MM_ANONPAGES) + get_mm_counter(mm, MM_SHMEMPAGES)
            self.put_mm(mm)
        return pages

    def swap_entries(self):
        """Pages that are swapped out: VmSwap of /proc/PID/status, in pages."""
        cdef mm_struct *mm
        cdef long pages
        with nogil:
            mm = self.get_mm()
            pages = get_mm_counter(mm, MM_SWAPENTS)
            self.put_mm(mm)
        return pages

    def ksm_stat(self):
        """/proc/PID/ksm_stat: ksm_rmap_items, ksm_zero_pages, ksm_merging_pages, and ksm_process_profit in bytes.

        In the era 7.3 also ksm_merge_any and ksm_mergeable: 1 for "yes", 0 for "no". In the era 6.1 it has only ksm_rmap_items:
        ksm_merging_pages is a file of its own. It is empty in the era of 2011, which had no counts for a process. Follows
        proc_pid_ksm_stat().
        """
        counts = self.ksm_counts()
        return {name: counts[name] for name in counts if name == "ksm_rmap_items"} if self.machine.era == "6.1" else counts

    cdef object ksm_counts(self):
        """What /proc/PID says of KSM in this era: the lines of ksm_stat, and the file ksm_merging_pages."""
        cdef mm_struct *mm
        cdef ksm_stat_lines lines
        cdef int era
        with nogil:
            mm = self.get_mm()
            era = self.machine.g.era
            show_ksm_stat(mm, &lines)
            self.put_mm(mm)
        if era == ERA_2_6_38:
            return {}
        if era == ERA_6_1:
            return {"ksm_rmap_items": lines.ksm_rmap_items, "ksm_merging_pages": lines.ksm_merging_pages}
        counts = dict(lines)
        if era < ERA_7_3:
            del counts["ksm_merge_any"], counts["ksm_mergeable"]
        return counts

    cdef object ksm_count(self, str name):
        """One of these counts; AttributeError in an era that does not have it."""
        counts = self.ksm_counts()
        if name not in counts:
            raise AttributeError(f"KSM of this era has no {name}")
        return counts[name]

    @property
    def ksm_rmap_items(self):
        """The number of pages for which KSM keeps an rmap_item."""
        return self.ksm_count("ksm_rmap_items")

    @property
    def ksm_zero_pages(self):
        """The number of pages that KSM has replaced by the zero page."""
        return self.ksm_count("ksm_zero_pages")

    @property
    def ksm_merging_pages(self):
        """The number of merged pages, as far as ksmd has seen them."""
        return self.ksm_count("ksm_merging_pages")

    @property
    def ksm_process_profit(self):
        """The bytes that merging saves, less 64 for each rmap_item."""
        return self.ksm_count("ksm_process_profit")


cdef int check_bytes(mm_struct *mm, int *error) noexcept nogil:
    """Bytes are read and written where frames hold bytes."""
    if not has_bytes(mm.machine):
        error[0] = -EOPNOTSUPP
    return error[0]


cdef object no_bytes(long err, str what):
    """The exception for a -errno, which may be that of check_bytes()."""
    return oserror(err, f"{what}: the machine's frames hold fingerprints, not bytes" if err == -EOPNOTSUPP else what)


cdef unsigned long remote(mm_struct *mm, unsigned long addr, char *buf, unsigned long length, bint write, int *error) noexcept nogil:
    cdef unsigned long done
    mmap_read_lock(mm)
    done = access_remote_vm(mm, addr, buf, length, write, error)
    mmap_read_unlock(mm)
    return done


cdef const unsigned char[::1] bytes_of(Machine machine, object data):
    """The bytes to be written. If they lie in the machine's own frames, they are copied: the call may change, move or free that frame."""
    flat = memoryview(data).cast("B")
    cdef const unsigned char[::1] view = flat
    if machine.gate.exports and view.shape[0] and machine.has_frame(&view[0]):
        view = bytes(flat)
    return view


cdef long map_frames(mm_struct *mm, unsigned long addr, unsigned long length, int flags, unsigned long pfn) noexcept nogil:
    """Map private memory that has these frames: its address, or -errno."""
    cdef vm_area_struct *vma
    cdef long place
    cdef int err
    mmap_write_lock(mm)
    # A flag that its neighbours have not keeps the mapping apart from them: all of a mapping can be taken away without memory, a part not.
    mm.def_flags |= VM_DONTEXPAND
    place = do_mmap(mm, addr, length, PROT_READ | PROT_WRITE, flags)
    mm.def_flags &= ~VM_DONTEXPAND
    if place >= 0:
        vma = vma_lookup(mm, <unsigned long>place)
        err = insert_frames(vma, <unsigned long>place, pfn, length >> PAGE_SHIFT)
        if err:
            do_munmap(mm, <unsigned long>place, length)
            place = err
        else:
            vma.vm_flags = ksm_vma_flags(mm, vma.vm_flags & ~VM_DONTEXPAND)
            ksm_add_vma(vma)
    mmap_write_unlock(mm)
    return place


cdef int unplug(Machine machine, unsigned long pfn) except -1:
    """Take away frames that are not mapped. A machine that was closed meanwhile has none any more."""
    try:
        with nogil:
            machine.enter()
            remove_memory(machine.m, pfn)
            machine.leave()
    except (ValueError, RuntimeError):
        pass
    return 0


cdef int read_image(Machine machine, unsigned long pfn, int fd, unsigned long offset, unsigned long length) except? -1:
    """Copy a part of a file into frames that read as zeros: 0, -ENOMEM when this computer has no room for it, -EIO for a file that has
    become shorter, or another -errno.

    Ctrl-C stops it.
    """
    cdef unsigned long start, end, chunk
    cdef long done
    parts = data_pages(fd, offset, offset + length, PAGE_SIZE)
    if length > LITTLE and sum(end - start for start, end in parts) > host.available_memory():
        return -ENOMEM
    for start, end in parts:
        while start < end:
            chunk = min(end - start, <unsigned long>LITTLE)
            # Each round leaves the machine, so that a signal handler may do anything.
            with nogil:
                machine.enter()
                done = arena_read_file(machine.m, pfn + ((start - offset) >> PAGE_SHIFT), chunk >> PAGE_SHIFT, fd, start)
                machine.leave()
            if done < 0:
                return <int>done
            start += <unsigned long>done << PAGE_SHIFT
            PyErr_CheckSignals()
    # The end of the file may have looked like a hole because the file was cut off.
    return -EIO if os.fstat(fd).st_size < <object>offset + length else 0


cdef inline unsigned long end_of_round(unsigned long start, unsigned long end) noexcept nogil:
    """How far a round goes that begins at start."""
    return start + ROUND if end > start and end - start > ROUND else end


cdef inline unsigned long pages_in(unsigned long length) noexcept nogil:
    """The number of pages of a range that begins at a page. Rounding the end up could overflow to 0."""
    return ((length - 1) >> PAGE_SHIFT) + 1 if length else 0


cdef int page_range(object addr, object length, unsigned long *start, unsigned long *end) except -1:
    """The range from the page of addr up to addr + length."""
    cdef unsigned long first = ulong("addr", addr), size = ulong("length", length)
    if first + size < first:
        raise ValueError("addr + length must be between 0 and 2**64 - 1")
    start[0] = first & page_mask()
    end[0] = first + size
    return 0


# Without the GIL two threads could have the old name and the new one at the same time.

@cython.critical_section
cdef str name_of(Process process):
    return f"process-{process.pid}" if process.given_name is None else process.given_name


@cython.critical_section
cdef int set_name(Process process, str name) except -1:
    process.given_name = name
    return 0


cdef str as_name(name):
    return None if name is None else str(name)


cdef object register(Process process):
    """Put the process into the machine's list."""
    try:
        process.machine.all_processes[process.pid] = process
    except BaseException:
        process.exit()
        raise
    if process.machine.gate.closed:
        process.machine.all_processes.pop(process.pid, None)
    return process


def processes_by_mm(Machine machine not None):
    """{number of the address space: process}, of all processes that have one."""
    cdef Process process
    return {process.number: process for process in list(machine.all_processes.values())}


def spawn(Machine machine not None, name, node):
    """Machine.spawn()."""
    cdef int nid = machine.check_node(node)
    cdef Process process = Process.__new__(Process, MADE_HERE, machine, as_name(name))
    cdef mm_struct *mm
    with nogil:
        machine.enter()
        mm = mm_alloc(machine.m)
        if mm != NULL:
            mm.nid = nid
            process.be_born(mm)
        machine.leave()
    if mm == NULL:
        raise oserror(-ENOMEM, "spawn")
    return register(process)

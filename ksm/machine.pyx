# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the Python face of a machine.
"""A machine as an object: physical memory, processes, and KSM.

Every call that touches the machine goes through enter() and leave(), and no Python runs between them: gate.pyx has the reasons.
"""

import operator
import os
import re

from ksm.fingerprint.frames import key_name
from ksm.host import memory as host

from cpython.buffer cimport PyBuffer_FillInfo
from libc.errno cimport EBUSY, EINTR, EINVAL, ENOMEM, EOPNOTSUPP
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from linux.atomic cimport READ_ONCE_int, WRITE_ONCE_int, atomic_long_read, smp_load_acquire_ulong
from linux.err cimport ERESTARTSYS
from linux.highmem cimport has_bytes
from linux.jiffies cimport KTIME_SEC_MAX, ktime_get
from linux.mm_types cimport HPAGE_PMD_NR, MAX_NUMNODES, NR_VM_EVENT_ITEMS, NUMA_NO_NODE, PAGE_SHIFT, PAGE_SIZE, machine, to_kill_list
from linux.page_flags cimport folio_try_get, pfn_folio
from linux.slab cimport fault_attr, kmem_cache
from linux.spinlock cimport mutex_lock, mutex_unlock, spin_lock, spin_unlock

from ksm.fast.seams cimport fast_distrust
from ksm.gate cimport (gate_begin, gate_close, gate_enter, gate_export, gate_hold, gate_init, gate_is_foreign, gate_leave, gate_open,
                       gate_release, gate_unexport, gate_wait_for_calls)
from ksm.kernel.fork cimport mmdrop
from ksm.mm.ksm cimport ERA_2_6_38, ERA_6_1, ERA_6_12, ERA_7_3, ksm_globals
from ksm.mm.memory_failure cimport memory_failure, soft_offline_page
from ksm.mm.memory_hotplug cimport offline_pages, online_pages
from ksm.mm.migrate cimport migrate_pfn
from ksm.mm.mm_init cimport machine_exit, machine_forget, machine_init, machine_plan
from ksm.mm.page_alloc cimport drain_all_pages, folio_put, nr_free_pages
from ksm.mm.swap cimport lru_add_drain_all
from ksm.mm.swapfile cimport swapoff, swapon

VM_EVENTS = ("pgfault", "cow_ksm", "ksm_swpin_copy", "pswpin", "pswpout", "pgmigrate_success", "pgmigrate_fail", "thp_fault_alloc",
             "thp_fault_fallback", "thp_split_page", "thp_split_page_failed", "thp_split_pmd")
HUGEPAGE_MODES = ("never", "madvise", "always")
ERAS = {"7.3": ERA_7_3, "6.12": ERA_6_12, "6.1": ERA_6_1, "2.6.38": ERA_2_6_38}
CACHES = ("mm_struct", "vm_area_struct", "anon_vma", "anon_vma_chain", "ksm_rmap_item", "ksm_stable_node", "ksm_mm_slot")
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


cdef unsigned long ulong(str name, object value) except? 0xdeadbeef:
    """An argument that the kernel has as unsigned long: TypeError or ValueError for anything else."""
    value = operator.index(value)
    if not 0 <= value <= 0xffffffffffffffff:
        raise ValueError(f"{name} must be between 0 and 2**64 - 1, not {value}")
    return value


cdef int cint(str name, object value) except? -0xdead:
    """An argument that the kernel has as int: TypeError or ValueError for anything else."""
    value = operator.index(value)
    if not -0x80000000 <= value <= 0x7fffffff:
        raise ValueError(f"{name} must be between -2**31 and 2**31 - 1, not {value}")
    return value


cdef object oserror(long err, str what):
    """The exception for a -errno."""
    err = -err if err < 0 else err
    if err == ERESTARTSYS:
        err = EINTR             # as a program sees it when its system call is not repeated
    return OSError(err, f"{os.strerror(err)}: {what}")


def parse_size(size, str name="memory"):
    """Bytes of a size: an int, or a string like "512M" (K, M, G, T are powers of 1024)."""
    if isinstance(size, str):
        match = re.fullmatch(r"(\d+)([KMGT]?)(?:i?B)?", size.strip(), re.IGNORECASE)
        if match is None:
            raise ValueError(f'{name} is a number of bytes, or one with K, M, G or T behind it, not {size!r}')
        return int(match[1]) * UNITS[match[2].upper()]
    return operator.index(size)


cdef unsigned long swap_size(size) except 0:
    """Pages of a swap area of this size."""
    nbytes = parse_size(size, "swap")
    if nbytes < PAGE_SIZE or nbytes % PAGE_SIZE:
        raise ValueError(f"swap must be a multiple of {PAGE_SIZE} bytes, not {nbytes}")
    return ulong("swap", nbytes) >> PAGE_SHIFT


cdef kmem_cache *cache_of(machine *m, int which) noexcept nogil:
    """The cache in this place of CACHES."""
    cdef ksm_globals *g = <ksm_globals *>m.ksm
    cdef kmem_cache *all[7]
    all[0], all[1], all[2], all[3] = m.mm_cachep, m.vm_area_cachep, m.anon_vma_cachep, m.anon_vma_chain_cachep
    all[4], all[5], all[6] = g.rmap_item_cache, g.stable_node_cache, g.mm_slot_cache
    return all[which]


cdef int hugepage_mode(mode) except -1:
    if mode not in HUGEPAGE_MODES:
        raise ValueError(f"transparent_hugepage is one of {', '.join(HUGEPAGE_MODES)}, not {mode!r}")
    return HUGEPAGE_MODES.index(mode)


cdef class Machine:
    """Machine(memory="1G", *, nodes=1, max_memory=None, swap=None, clock="real", transparent_hugepage="madvise", era="6.12", plain=None, \
pages="bytes", key=None, threads=1)
--

    A machine: physical memory in NUMA nodes, processes, a clock, and KSM.

    memory      size of the memory, in bytes or as "512M", "1G"; whole pages of 4096 bytes
    nodes       NUMA nodes, each with an equal share of the memory
    max_memory  the memory and all images that are ever mapped, together; addresses for them are reserved. Default: memory and 64 GiB
    swap        size of the swap area, "64M": Process.swap_out() writes pages there. None: no swap area
    clock       "real", or "manual": only advance() moves the time
    transparent_hugepage
                "madvise", "always" or "never": where a first write gets a huge page, as in /sys/kernel/mm/transparent_hugepage/enabled
    era         the kernel whose KSM it is: "7.3", "6.12", "6.1" with 14 sysfs files, or "2.6.38", the KSM of 2011, with eight
    pages       "bytes", or "fingerprints": a frame holds 20 bytes that stand for its page, in place of its 4096. KSM's counters are the
                same. read() and write() of bytes are an OSError(EOPNOTSUPP). Process.update() and load() fill memory: docs/fingerprints.md
    key         32 bytes: fingerprints are keyed. Without the key, nobody can tell from them what pages hold. None: they have no key
    threads     how many threads compute the checksums of pages that were written to or are new, where a scan meets thousands of them; the
                results are those of one thread. 1 to 256
    plain       scan without the speed layer, in the kernel's steps; the results are the same. Default: true if the environment variable
                KSM_PLAIN is set to anything but 0 or an empty string

    Any number of threads may use a machine, and so may signal handlers and finalizers. It belongs to the process that made it: in a process
    forked from that one, close() frees the copy, and every other call raises RuntimeError.

    A machine is a context manager; leaving it closes it. Memory that no process uses is given back to the operating system. A view of the
    memory (memoryview(machine), read-only, frame n at n * 4096, or n * 20 with fingerprints; or frame(n)) has to be released before the
    machine can be closed.

    Settings, states, parts of a machine, and numbers with the name of a kernel file are attributes. A count, or anything that does work, is
    a method. The same holds for processes and the other objects of a machine.

    Raises ValueError for sizes that are not possible. Raises OSError: ENOMEM when there are not enough addresses, EOPNOTSUPP where the
    pages of this computer are not of 4096 bytes.
    """

    def __cinit__(self):
        gate_init(&self.gate)
        self.all_processes = {}

    def __init__(self, memory="1G", *, nodes=1, max_memory=None, swap=None, clock="real", transparent_hugepage="madvise",
                 era="6.12", plain=None, pages="bytes", key=None, threads=1):
        cdef machine_plan plan
        cdef machine *m
        cdef unsigned long swap_pages
        cdef int err = 0
        cdef bint opened
        cdef bytes secret
        if host.page_size() != PAGE_SIZE:
            raise oserror(EOPNOTSUPP, f"frames are pages of {PAGE_SIZE} bytes, and this system's have {host.page_size()}")
        memory = parse_size(memory)
        nodes = operator.index(nodes)
        max_memory = memory + (64 << 30) if max_memory is None else parse_size(max_memory, "max_memory")
        if memory < 16 * PAGE_SIZE or memory % PAGE_SIZE:
            raise ValueError(f"memory must be a multiple of {PAGE_SIZE} and at least {16 * PAGE_SIZE} bytes, not {memory}")
        if not memory <= max_memory <= 1 << 44:
            raise ValueError(f"max_memory must be between memory and 16 TiB, not {max_memory}")
        if not 1 <= nodes <= MAX_NUMNODES:
            raise ValueError(f"nodes must be between 1 and {MAX_NUMNODES}, not {nodes}")
        if nodes > 1 and memory < nodes * HPAGE_PMD_NR * PAGE_SIZE:
            raise ValueError(f"each of {nodes} nodes needs 2 MiB of memory at least")
        if clock not in ("real", "manual"):
            raise ValueError(f'clock is "real" or "manual", not {clock!r}')
        plan.transparent_hugepage = hugepage_mode(transparent_hugepage)
        if era not in ERAS:
            raise ValueError(f"era is one of {', '.join(ERAS)}, not {era!r}")
        plan.era = ERAS[era]
        plan.plain = bool(os.environ.get("KSM_PLAIN", "0") not in ("", "0") if plain is None else plain)
        if not 1 <= threads <= 256:
            raise ValueError(f"threads must be between 1 and 256, not {threads}")
        plan.threads = threads
        plan.manual_clock = clock == "manual"
        if pages not in ("bytes", "fingerprints"):
            raise ValueError(f'pages are "bytes" or "fingerprints", not {pages!r}')
        plan.fingerprints = pages == "fingerprints"
        plan.key = NULL
        if key is not None:
            if not plan.fingerprints:
                raise ValueError("only fingerprints have a key")
            secret = bytes(memoryview(key))
            key_name(secret)        # ValueError for another length
            plan.key = secret
        plan.ram_pages = memory >> PAGE_SHIFT
        plan.max_pages = max_memory >> PAGE_SHIFT
        plan.nr_nodes = nodes
        swap_pages = 0 if swap is None else swap_size(swap)
        from ksm.sysfs import Ksm
        files = Ksm(self)

        # Until gate_open() no other thread sees any of it.
        gate_begin(&self.gate)
        with nogil:
            m = machine_init(&plan, &err)
            opened = m != NULL
            if opened and swap_pages:
                err = swapon(m, swap_pages)
                if err:
                    machine_exit(m)
            if opened and not err:
                self.g = <ksm_globals *>m.ksm
                self.m = m          # last, because close() frees it from now on
            if err:
                gate_open(&self.gate, False)
        if err:
            raise oserror(err, f"swapon of {swap_pages << PAGE_SHIFT} bytes" if opened else f"a machine of {max_memory} bytes")
        self.ram_pages = plan.ram_pages
        self.nr_nodes = plan.nr_nodes
        self.nr_threads = plan.threads
        self.files = files
        if not gate_open(&self.gate, True):
            self.teardown()
            raise ValueError("the machine is closed")

    cdef int enter(self) except -1 nogil:
        """Keep the machine open until leave(). ValueError when it is closed or not made, RuntimeError in a process that was forked."""
        return gate_enter(&self.gate)

    cdef void leave(self) noexcept nogil:
        gate_leave(&self.gate)

    cdef int hold(self) except -1:
        """Enter when no other call is inside, and keep others waiting until release()."""
        return gate_hold(&self.gate)

    cdef void release(self) noexcept nogil:
        gate_release(&self.gate)

    cdef void teardown(self) noexcept:
        """Free the machine. No call is inside."""
        cdef machine *m
        cdef bint foreign = gate_is_foreign(&self.gate)
        with nogil:
            if not foreign:
                spin_lock(&self.gate.lock)
            m = self.m
            self.m = NULL
            if not foreign:
                spin_unlock(&self.gate.lock)
            if m != NULL and foreign:
                machine_forget(m)
            elif m != NULL:
                machine_exit(m)

    def __dealloc__(self):
        self.teardown()

    def __reduce__(self):
        raise TypeError("a machine cannot be copied or pickled")

    def close(self):
        """End all processes and free the memory. Closing twice is no error.

        From then on other calls raise ValueError. A running scan stops where it is and raises it, too. close() waits for the calls of other
        threads that are inside. Those that look for signals end early, with InterruptedError: unmerging, swapoff(), offline(). An exception
        in a signal handler (Ctrl-C) ends the waiting: the machine is closed then, and another close(), or the end of the object, frees its
        memory. close() may be called from a signal handler or a finalizer, whatever this thread is doing.

        In a process that was forked from the machine's, it frees the copy of the machine there.

        Raises BufferError while a memoryview of the memory exists.
        """
        gate_close(&self.gate)
        if not gate_is_foreign(&self.gate):
            with nogil:
                spin_lock(&self.gate.lock)
                if self.m != NULL:
                    WRITE_ONCE_int(self.m.sigpending, 1)
                    WRITE_ONCE_int(self.m.freezing, 1)
                spin_unlock(&self.gate.lock)
        gate_wait_for_calls(&self.gate)
        self.teardown()
        self.all_processes.clear()

    def _count_as_written(self):
        """For ksm bench, before a pass: treat every page as written since the last pass, and as written again while it is in a tree."""
        with nogil:
            self.enter()
            mutex_lock(&self.g.ksm_thread_mutex)
            fast_distrust(self.g)
            mutex_unlock(&self.g.ksm_thread_mutex)
            self.leave()

    @property
    def memory(self):
        """Bytes of memory with which the machine was made. Images and offline frames do not change it."""
        with nogil:
            self.enter()
            self.leave()
        return self.ram_pages << PAGE_SHIFT

    @property
    def nodes(self):
        """The number of NUMA nodes. They are numbered from 0."""
        with nogil:
            self.enter()
            self.leave()
        return self.nr_nodes

    @property
    def clock(self):
        """"real", or "manual" when only advance() moves the time. time() reads the clock."""
        cdef bint manual
        with nogil:
            self.enter()
            manual = self.m.manual_clock
            self.leave()
        return "manual" if manual else "real"

    @property
    def era(self):
        """The kernel whose KSM the machine runs: "7.3", "6.12", "6.1" or "2.6.38"."""
        cdef int era
        with nogil:
            self.enter()
            era = self.g.era
            self.leave()
        return next(name for name, value in ERAS.items() if value == era)

    @property
    def processes(self):
        """The processes that have not exited, by their pids: a mapping that cannot be changed, ksm.views.Processes."""
        from ksm.views import Processes
        return Processes(self)

    @property
    def plain(self):
        """Whether the machine scans without the speed layer, in the kernel's steps."""
        cdef bint plain
        with nogil:
            self.enter()
            plain = self.g.fast == NULL
            self.leave()
        return plain

    @property
    def threads(self):
        """How many threads may compute checksums."""
        cdef unsigned int threads
        with nogil:
            self.enter()
            threads = self.nr_threads
            self.leave()
        return threads

    @property
    def pages(self):
        """What frames hold: "bytes" or "fingerprints"."""
        cdef bint of_bytes
        with nogil:
            self.enter()
            of_bytes = has_bytes(self.m)
            self.leave()
        return "bytes" if of_bytes else "fingerprints"

    @property
    def key_name(self):
        """The name of the key with which fingerprints are made: ksm.fingerprint.key_name(). None without a key."""
        cdef unsigned char[32] key
        cdef bint keyed
        with nogil:
            self.enter()
            keyed = self.m.maker.keyed
            memcpy(key, self.m.fingerprint_key, sizeof(key))
            self.leave()
        return key_name(key[:32]) if keyed else None

    @property
    def ksm(self):
        """The files of /sys/kernel/mm/ksm, and scan(): ksm.Ksm. ValueError before the machine is made."""
        if self.files is None:
            with nogil:
                self.enter()
                self.leave()
        return self.files

    @property
    def closed(self):
        """Whether close() was called."""
        return self.gate.closed

    @property
    def transparent_hugepage(self):
        """Where a first write gets a huge page: "never", "madvise" (after MADV_HUGEPAGE) or "always". Setting it affects later faults only;
        ValueError for another word.
        """
        cdef int thp
        with nogil:
            self.enter()
            thp = READ_ONCE_int(self.m.transparent_hugepage)
            self.leave()
        return HUGEPAGE_MODES[thp]

    @transparent_hugepage.setter
    def transparent_hugepage(self, mode):
        cdef int thp = hugepage_mode(mode)
        with nogil:
            self.enter()
            WRITE_ONCE_int(self.m.transparent_hugepage, thp)
            self.leave()

    @transparent_hugepage.deleter
    def transparent_hugepage(self):
        raise AttributeError("transparent_hugepage can only be set")

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def __repr__(self):
        if self.gate.closed:
            return "<ksm.Machine closed>"
        if self.files is None:
            return "<ksm.Machine not made>"
        return f"<ksm.Machine {self.ram_pages * PAGE_SIZE >> 20} MiB, {self.nr_nodes} node(s), {len(self.all_processes)} process(es)>"

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        gate_export(&self.gate)
        try:
            PyBuffer_FillInfo(buffer, self, self.m.arena, self.ram_pages * self.m.frame_size, 1, flags)
        except BaseException:
            gate_unexport(&self.gate)
            raise

    def __releasebuffer__(self, Py_buffer *buffer):
        gate_unexport(&self.gate)

    def spawn(self, name=None, node=0):
        """A new process with an empty address space: ksm.Process. Its pages, and those of its children, come from this NUMA node as long as
        the node has free frames. OSError(ENOMEM).
        """
        from ksm.process import spawn
        return spawn(self, name, node)

    cdef int check_node(self, object node) except -1:
        node = operator.index(node)
        with nogil:
            self.enter()
            self.leave()
        if not 0 <= node < self.nr_nodes:
            raise ValueError(f"there is no node {node}")
        return node

    cdef bint has_frame(self, const void *data) except -1:
        """Whether the data lies in a frame of the machine."""
        cdef bint inside
        with nogil:
            self.enter()
            inside = <const void *>self.m.arena <= data < <const void *>(self.m.arena + (self.m.max_pfn * self.m.frame_size))
            self.leave()
        return inside

    def total_pages(self):
        """The number of frames of the memory, without images and offline frames. One of them is the zero page."""
        cdef unsigned long pages
        with nogil:
            self.enter()
            pages = self.ram_pages - self.m.nr_offline
            self.leave()
        return pages

    def free_pages(self):
        """The number of free frames of the memory."""
        cdef unsigned long pages
        with nogil:
            self.enter()
            pages = nr_free_pages(self.m)
            self.leave()
        return pages

    def lost_pages(self):
        """The number of pages of images mapped with still=True that could not be read and became zeros, because the file was cut off or its
        disk has failed. See Process.mmap_image().
        """
        cdef long lost
        with nogil:
            self.enter()
            lost = atomic_long_read(&self.m.nr_lost)
            self.leave()
        return lost

    def vmstat(self):
        """Events since the machine was made, named as in /proc/vmstat: page faults, copies of merged pages on write (cow_ksm), ..."""
        cdef long[NR_VM_EVENT_ITEMS] events
        cdef int i
        with nogil:
            self.enter()
            for i in range(NR_VM_EVENT_ITEMS):
                events[i] = self.m.vm_event[i]
            self.leave()
        return {name: events[i] for i, name in enumerate(VM_EVENTS)}

    def slabinfo(self):
        """Objects in use, by cache, as in /proc/slabinfo: mm_struct, vm_area_struct, anon_vma, anon_vma_chain, ksm_rmap_item,
        ksm_stable_node, ksm_mm_slot."""
        cdef long[7] objects
        cdef int i
        with nogil:
            self.enter()
            for i in range(7):
                objects[i] = cache_of(self.m, i).nr_objects
            self.leave()
        return {name: objects[i] for i, name in enumerate(CACHES)}

    def fail(self, what, nth=1, times=1):
        """Let an allocation fail, as CONFIG_FAULT_INJECTION does: the nth from now, and `times` of them in a row. nth 0 cancels it.

        what is "page", for frames, or the name of a cache of slabinfo(). Returns how many failures of the last call have yet to come.
        ValueError for another name, and for negative numbers.
        """
        cdef fault_attr *attr
        cdef long left, cnth, ctimes
        cdef int which = -1
        nth, times = operator.index(nth), operator.index(times)
        if not (0 <= nth < 1 << 62 and 0 < times < 1 << 62):
            raise ValueError("nth is 0 or more, times 1 or more")
        if what in CACHES:
            which = CACHES.index(what)
        elif what != "page":
            raise ValueError(f"what fails is page or one of {', '.join(CACHES)}, not {what!r}")
        cnth, ctimes = nth, times
        with nogil:
            self.enter()
            attr = &self.m.fail_page_alloc if which < 0 else &cache_of(self.m, which).fail
            left = attr.times if attr.nth else 0
            attr.times = ctimes
            attr.nth = cnth
            self.leave()
        return left

    def lru_add_drain_all(self):
        """Empty the batch in which new pages wait, and where they cannot be merged. ksmd does it at the start of every pass."""
        with nogil:
            self.enter()
            lru_add_drain_all(self.m)
            self.leave()

    def drain_all_pages(self):
        """Give the memory of free frames back to the operating system now. scan() does it at its end."""
        with nogil:
            self.enter()
            drain_all_pages(self.m)
            self.leave()

    # Swap

    def swapon(self, size):
        """Give the machine a swap area. OSError EBUSY if it has one, ENOMEM. Follows swapon(2)."""
        cdef unsigned long nr_pages = swap_size(size)
        cdef int err
        with nogil:
            self.enter()
            err = swapon(self.m, nr_pages)
            self.leave()
        if err:
            raise oserror(err, f"swapon of {nr_pages << PAGE_SHIFT} bytes")

    def swapoff(self):
        """Bring every page back into memory, and take the swap area away. OSError ENOMEM when memory is too small; the pages that are still
        swapped out stay so. EINVAL without an area. Follows swapoff(2).
        """
        cdef int err
        with nogil:
            self.enter()
            err = swapoff(self.m)
            self.leave()
        if err:
            raise oserror(err, "swapoff")

    def swap_pages(self):
        """Pages of the swap area: (used, all). A page in memory may have a place in the area, too."""
        cdef unsigned long used = 0, total = 0
        with nogil:
            self.enter()
            if self.m.swap_info != NULL and self.m.swap_info.flags:
                used = self.m.swap_info.inuse_pages
                total = self.m.swap_info.max - 1
            self.leave()
        return used, total

    # Frames

    cdef unsigned long check_pfn(self, unsigned long pfn) except? 0xdeadbeef nogil:
        """The machine is entered, and left again if there is no such frame: OSError(EINVAL)."""
        if pfn < smp_load_acquire_ulong(self.m.plugged_pfn):
            return pfn
        self.leave()
        with gil:
            raise oserror(EINVAL, f"frame {pfn}")

    def frame(self, pfn):
        """A read-only memoryview of the 4096 bytes of a frame: of the memory, or of an image that a process has mapped. With fingerprints
        it has 20 bytes. Process.page_table() has the frames of a process. For Cython it is a `const unsigned char[::1]`.

        The view shows the frame as it is, also while a process writes to it. It holds the page as a driver does. As long as the view
        exists, the page stays in its frame: KSM does not merge it into another page, it is not migrated, and its frame is not taken
        offline. The frame is not freed either when the last process unmaps the page. All views must be released before the machine can be
        closed: close() raises BufferError.

        OSError EINVAL for a frame that does not exist, EBUSY for a frame without a page, or with one that is being moved.
        """
        from ksm.views import frame_of
        return frame_of(self, pfn)

    def migrate(self, pfn, node=None):
        """Move the page in this frame to another frame: on this node, or by default anywhere. Returns the new frame's number.

        OSError EBUSY if the frame has no page that can be moved; in the era of 2011 also if the page is merged. EAGAIN when another
        reference on the page prevents the move. ENOMEM. Follows mm/migrate.c.
        """
        cdef int nid = NUMA_NO_NODE if node is None else self.check_node(node)
        cdef unsigned long cpfn = ulong("pfn", pfn)
        cdef long ret
        with nogil:
            self.enter()
            ret = migrate_pfn(self.m, self.check_pfn(cpfn), nid)
            self.leave()
        if ret < 0:
            raise oserror(ret, f"migration of frame {cpfn}")
        return ret

    def offline(self, start_pfn, nr_pages):
        """Take frames out of the machine: blocks of 512 of its memory, or a whole image. Their pages are moved elsewhere first.

        OSError EBUSY when a page cannot be moved; all frames stay then. EINVAL for any other range. Follows mm/memory_hotplug.c.
        """
        cdef unsigned long start = ulong("start_pfn", start_pfn), nr = ulong("nr_pages", nr_pages)
        cdef int err
        with nogil:
            self.enter()
            err = offline_pages(self.m, start, nr)
            self.leave()
        if err:
            raise oserror(err, f"offlining of {nr} frames from {start} on")

    def online(self, start_pfn, nr_pages):
        """Bring frames back that offline() has taken. OSError EINVAL; EHWPOISON if one of them is broken."""
        cdef unsigned long start = ulong("start_pfn", start_pfn), nr = ulong("nr_pages", nr_pages)
        cdef int err
        with nogil:
            self.enter()
            err = online_pages(self.m, start, nr)
            self.leave()
        if err:
            raise oserror(err, f"onlining of {nr} frames from {start} on")

    def memory_failure(self, pfn):
        """Declare the memory of this frame broken. Returns a list of (process, address): the processes that the kernel would kill.

        Each process is listed once, with the first address that is found. For a merged page these are all processes related to one that has
        it, each at the same address. The page stays mapped here. The frame keeps it for good, and is not used again. OSError EBUSY for a
        free frame, and in an era until 6.1 for a merged page, whose frame is broken all the same; ENXIO for a frame that does not exist,
        ENOMEM. Follows mm/memory-failure.c.
        """
        cdef unsigned long cpfn = ulong("pfn", pfn)
        cdef to_kill_list tokill
        cdef unsigned long *mm_ids = NULL
        cdef int err, i
        from ksm.process import processes_by_mm
        memset(&tokill, 0, sizeof(tokill))
        try:
            with nogil:
                self.enter()
                err = memory_failure(self.m, cpfn, &tokill)
                mm_ids = <unsigned long *>malloc(<size_t>(tokill.nr + 1) * sizeof(unsigned long))
                if mm_ids == NULL and not err:
                    err = -ENOMEM
                for i in range(tokill.nr):
                    if mm_ids != NULL:
                        mm_ids[i] = tokill.procs[i].mm.id
                    mmdrop(tokill.procs[i].mm)
                self.leave()
            if err:
                raise oserror(err, f"memory_failure of frame {cpfn}")
            processes = processes_by_mm(self)
            return [(processes.get(mm_ids[i]), tokill.procs[i].addr) for i in range(tokill.nr)]
        finally:
            free(tokill.procs)
            free(mm_ids)

    def soft_offline(self, pfn):
        """Move the page in this frame to another frame, and do not use this one again, because it is about to break. Nobody is killed.

        A frame that is broken already is left alone. OSError EBUSY for a free frame, for a page that cannot be moved, and in the era of
        2011 for a merged one; EIO for the zero page and for a page that somebody else holds; ENXIO for a frame that does not exist; ENOMEM.
        Follows soft_offline_page() in mm/memory-failure.c.
        """
        cdef unsigned long cpfn = ulong("pfn", pfn)
        cdef int err
        with nogil:
            self.enter()
            err = soft_offline_page(self.m, cpfn)
            self.leave()
        if err:
            raise oserror(err, f"soft_offline of frame {cpfn}")

    def _get_page(self, pfn):
        """Take a reference on the page in this frame, as a driver would. For tests: such a page must not be merged or moved."""
        cdef unsigned long cpfn = ulong("pfn", pfn)
        cdef bint got
        with nogil:
            self.enter()
            got = folio_try_get(pfn_folio(self.m, self.check_pfn(cpfn)))
            self.leave()
        if not got:
            raise oserror(EBUSY, f"frame {cpfn} is free")

    def _put_page(self, pfn):
        """Drop a reference of _get_page()."""
        cdef unsigned long cpfn = ulong("pfn", pfn)
        with nogil:
            self.enter()
            folio_put(self.m, pfn_folio(self.m, self.check_pfn(cpfn)))
            self.leave()

    def advance(self, double seconds, *, double ksmd=0.0):
        """Move a manual clock forward. ksmd was on a processor for `ksmd` of these seconds: its advisor takes this as the cost of a pass.

        ValueError on the real clock, for negative seconds, past the 292 years that a clock can count, and if ksmd is larger than seconds.
        """
        cdef bint manual, ends = False
        with nogil:
            self.enter()
            manual = self.m.manual_clock
            if manual and 0 <= seconds < 1e9 and 0 <= ksmd <= seconds:
                mutex_lock(&self.g.ksm_thread_mutex)
                ends = <long>(seconds * 1e9) > <long>KTIME_SEC_MAX * 1000000000 - self.m.clock_ns
                if not ends:
                    self.m.clock_ns += <long>(seconds * 1e9)
                    self.g.ksmd_runtime += <unsigned long long>(ksmd * 1e9)
                mutex_unlock(&self.g.ksm_thread_mutex)
            self.leave()
        if not manual:
            raise ValueError("the clock is the real one")
        if not 0 <= seconds < 1e9:
            raise ValueError("a clock moves forward, by less than 1e9 seconds at a time")
        if not 0 <= ksmd <= seconds:
            raise ValueError("ksmd takes a part of the seconds")
        if ends:
            raise ValueError(f"a clock counts no more than {KTIME_SEC_MAX} seconds")

    def time(self):
        """The time of the machine's clock, in seconds."""
        cdef long now
        with nogil:
            self.enter()
            now = ktime_get(self.m)
            self.leave()
        return now / 1e9

    def record(self, steps=10000):
        """Record what KSM does from now on, `steps` steps at most: ksm.record.recording.Recording, a context manager.

        The machine must be a plain one, because one with the speed layer does not take every step: ValueError. After each step the recorder
        reads all data of KSM and all page tables, so this suits small machines only. Only one recording at a time: OSError(EBUSY).
        """
        # This comes before the import. In a process that was forked while a thread was importing, the lock of the module is never released.
        with nogil:
            self.enter()
            self.leave()
        from ksm.record.recording import Recording
        return Recording(self, steps)

    def draw(self):
        """A picture of the machine: page tables as tiles, the stable and the unstable tree. It is SVG, a str, and a notebook shows it.

        Of a large machine it shows a part, and of one with more than 20,000 mapped pages nothing but that.
        """
        with nogil:
            self.enter()        # as in record()
            self.leave()
        from ksm.draw.svg import draw
        return draw(self)

    def _repr_html_(self):
        """What a notebook shows: counters, and the picture of draw()."""
        from ksm.draw.html import html
        return html(self)

    def check(self):
        """Verify every invariant of the machine: a list of what is wrong, empty when all is well. See ksm/check/invariants.pyx."""
        with nogil:
            self.enter()        # as in record()
            self.leave()
        from ksm.check import check
        return check(self)

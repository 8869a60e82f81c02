# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the Python face of a machine.
"""A machine as an object: physical memory, processes, and KSM.

Every call that touches the machine goes through enter() and leave(), so that close() in one thread waits for calls in others. The work
itself is done without the GIL.
"""

import operator
import os
import re

from cpython.buffer cimport PyBuffer_FillInfo
from libc.errno cimport EBUSY, EINTR, EINVAL, ENOMEM
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from linux.atomic cimport READ_ONCE_int, WRITE_ONCE_int
from linux.err cimport ERESTARTSYS
from linux.jiffies cimport ktime_get
from linux.list cimport INIT_LIST_HEAD, list_head
from linux.mm_types cimport (HPAGE_PMD_NR, MAX_NUMNODES, NUMA_NO_NODE, PAGE_SHIFT, PAGE_SIZE, machine, mm_struct,
                             struct_anon_vma, anon_vma_chain, to_kill_list, vm_area_struct)
from linux.page_flags cimport PG_reserved, PG_uptodate, folio_try_get, pfn_folio
from linux.slab cimport fault_attr, kmem_cache
from linux.spinlock cimport (mutex_destroy, mutex_init, mutex_lock, mutex_unlock, mutex_lock, mutex_unlock, spin_lock, spin_lock_init,
                             spin_unlock, usleep)

from ksm.host.arena cimport arena_add_ram, arena_create, arena_destroy
from ksm.kernel.fork cimport mm_discard, mmdrop
from ksm.fast.seams cimport fast_distrust, fast_exit, fast_init
from ksm.mm.ksm cimport ERA_2_6_38, ERA_6_12, ksm_exit_machine, ksm_globals, ksm_init, ksmd_stop
from ksm.mm.memory_failure cimport memory_failure
from ksm.mm.memory_hotplug cimport offline_pages, online_pages
from ksm.mm.migrate cimport migrate_pfn
from ksm.mm.page_alloc cimport drain_all_pages, folio_put, nr_free_pages, zone_destroy, zone_init
from ksm.mm.slub cimport kmem_cache_create, kmem_cache_create_typesafe, kmem_cache_destroy
from ksm.mm.swap cimport lru_add_drain_all
from ksm.mm.swapfile cimport swap_exit, swapoff, swapon
from ksm.step cimport steps_exit

VM_EVENTS = ("pgfault", "cow_ksm", "ksm_swpin_copy", "pswpin", "pswpout", "pgmigrate_success", "pgmigrate_fail", "thp_fault_alloc",
             "thp_fault_fallback", "thp_split_page", "thp_split_page_failed", "thp_split_pmd")
HUGEPAGE_MODES = ("never", "madvise", "always")
ERAS = {"6.12": ERA_6_12, "2.6.38": ERA_2_6_38}
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
        err = EINTR             # as a program sees it whose call is not made again
    return OSError(err, f"{os.strerror(err)}: {what}")


def parse_size(size, str name="memory"):
    """Bytes of a size: an int, or a string like "512M" (K, M, G, T are powers of 1024)."""
    if isinstance(size, str):
        match = re.fullmatch(r"(\d+)([KMGT]?)(?:i?B)?", size.strip(), re.IGNORECASE)
        if match is None:
            raise ValueError(f'{name} is a number of bytes, or one with K, M, G or T behind it, not {size!r}')
        return int(match[1]) * UNITS[match[2].upper()]
    return operator.index(size)


cdef int hugepage_mode(mode) except -1:
    if mode not in HUGEPAGE_MODES:
        raise ValueError(f"transparent_hugepage is one of {', '.join(HUGEPAGE_MODES)}, not {mode!r}")
    return HUGEPAGE_MODES.index(mode)


cdef class Machine:
    """A machine: physical memory in NUMA nodes, processes, a clock, and KSM.

    memory      size of the memory, in bytes or as "512M", "1G"; whole pages of 4096 bytes
    nodes       NUMA nodes, each with an equal share of the memory
    max_memory  memory and all images that will ever be mapped, together; addresses for them are reserved. Default: 64 GiB more
    swap        size of the swap area, "64M": Process.swap_out() writes pages there. None: there is none
    clock       "real", or "manual": time stands still until advance() moves it
    transparent_hugepage
                "madvise", "always" or "never": where a first write gets a huge page, as in /sys/kernel/mm/transparent_hugepage/enabled
    era         "6.12", or "2.6.38": the KSM of 2011, with its eight sysfs files
    plain       scan as the kernel does, without what makes it faster here: the results are the same. Default: whether the environment
                has KSM_PLAIN, and neither empty nor 0

    A machine is a context manager; leaving it closes it. Memory that no process uses is given back to the operating system. A view of the
    memory (memoryview(machine), read-only, frame n at n * 4096) has to be released before the machine can be closed.

    Raises ValueError for sizes that make no machine, OSError(ENOMEM) when there are no addresses for it.
    """

    def __cinit__(self):
        spin_lock_init(&self.lock)
        self.processes = {}

    def __init__(self, memory="1G", *, nodes=1, max_memory=None, swap=None, clock="real", transparent_hugepage="madvise",
                 era="6.12", plain=None):
        cdef unsigned long ram, most, per_node, end
        cdef int nid, nr_nodes, err, thp
        if self.m != NULL or self.closed_:
            raise RuntimeError("a machine is made once")
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
        thp = hugepage_mode(transparent_hugepage)
        if era not in ERAS:
            raise ValueError(f"era is one of {', '.join(ERAS)}, not {era!r}")
        plain = bool(os.environ.get("KSM_PLAIN", "0") not in ("", "0") if plain is None else plain)
        ram = memory >> PAGE_SHIFT
        most = max_memory >> PAGE_SHIFT
        nr_nodes = nodes

        self.m = <machine *>calloc(1, sizeof(machine))
        if self.m == NULL:
            raise MemoryError
        self.ram_pages = ram
        self.m.manual_clock = clock == "manual"
        self.m.nr_node_ids = nr_nodes
        self.m.transparent_hugepage = thp
        self.m.map_unused_to_zeropage = ERAS[era] != ERA_2_6_38
        mutex_init(&self.m.hotplug_lock)
        mutex_init(&self.m.mf_mutex)
        mutex_init(&self.m.swapon_mutex)
        spin_lock_init(&self.m.lru_lock)
        spin_lock_init(&self.m.mmlist_lock)
        INIT_LIST_HEAD(&self.m.mmlist)
        # Whole huge pages on every node but the last one, and behind the memory.
        err = arena_create(self.m, (most + HPAGE_PMD_NR) & ~(<unsigned long>HPAGE_PMD_NR - 1))
        if not err:
            err = arena_add_ram(self.m, 0, ram)
        if not err:
            self.m.plugged_pfn = ram
            # The zero page, which is nobody's
            self.m.zero_pfn = 0
            self.m.mem_map[0].flags = PG_reserved | PG_uptodate
            self.m.mem_map[0]._refcount = 1
            self.m.mem_map[0]._mapcount = -1
            per_node = (ram // nr_nodes) & ~(<unsigned long>HPAGE_PMD_NR - 1)
            for nid in range(nr_nodes):
                end = ram if nid == nr_nodes - 1 else (nid + 1) * per_node
                err = err or zone_init(self.m, nid, nid * per_node if nid else 1, end)
        if not err:
            self.m.mm_cachep = kmem_cache_create(b"mm_struct", sizeof(mm_struct))
            self.m.vm_area_cachep = kmem_cache_create(b"vm_area_struct", sizeof(vm_area_struct))
            self.m.anon_vma_cachep = kmem_cache_create_typesafe(b"anon_vma", sizeof(struct_anon_vma))
            self.m.anon_vma_chain_cachep = kmem_cache_create(b"anon_vma_chain", sizeof(anon_vma_chain))
            if (self.m.mm_cachep == NULL or self.m.vm_area_cachep == NULL or self.m.anon_vma_cachep == NULL
                    or self.m.anon_vma_chain_cachep == NULL):
                err = -ENOMEM
        if not err:
            err = ksm_init(self.m, ERAS[era])
        if not err and not plain and ERAS[era] == ERA_6_12:
            err = fast_init(<ksm_globals *>self.m.ksm)
        if err:
            self.teardown()
            raise oserror(err, f"a machine of {max_memory} bytes")
        if swap is not None:
            try:
                self.swapon_(swap)
            except BaseException:
                self.teardown()
                raise
        self.g = <ksm_globals *>self.m.ksm
        from ksm.sysfs import Ksm
        self.ksm = Ksm(self)

    @property
    def transparent_hugepage(self):
        """Where a first write gets a huge page: "never", "madvise" (after MADV_HUGEPAGE) or "always". Setting it concerns faults to come;
        ValueError for another word."""
        self.enter()
        try:
            return HUGEPAGE_MODES[READ_ONCE_int(self.m.transparent_hugepage)]
        finally:
            self.leave()

    @transparent_hugepage.setter
    def transparent_hugepage(self, mode):
        cdef int thp = hugepage_mode(mode)
        self.enter()
        WRITE_ONCE_int(self.m.transparent_hugepage, thp)
        self.leave()

    cdef int enter(self) except -1:
        """Keep the machine open until leave(); ValueError when it is closed."""
        cdef bint closed
        spin_lock(&self.lock)
        closed = self.m == NULL or self.closed_
        if not closed:
            self.active += 1
        spin_unlock(&self.lock)
        if closed:
            raise ValueError("the machine is closed")
        return 0

    cdef void leave(self) noexcept nogil:
        spin_lock(&self.lock)
        self.active -= 1
        spin_unlock(&self.lock)

    cdef void teardown(self) noexcept:
        """Free everything. Nobody is inside."""
        cdef machine *m = self.m
        cdef list_head *pos
        cdef mm_struct *mm
        cdef int nid
        if m == NULL:
            return
        self.m = NULL
        with nogil:
            if m.ksm != NULL:
                ksmd_stop(<ksm_globals *>m.ksm)
                steps_exit(m)
                # What processes and KSM still have goes as a whole, with the caches and the arena: page by page it takes long.
                pos = m.mmlist.next
                while pos != &m.mmlist:
                    mm = <mm_struct *>(<char *>pos - <size_t>&(<mm_struct *>NULL).mmlist)
                    pos = pos.next
                    mm_discard(mm)
                fast_exit(<ksm_globals *>m.ksm)
                ksm_exit_machine(m)
            for nid in range(m.nr_node_ids):
                zone_destroy(&m.zones[nid])
            kmem_cache_destroy(m.anon_vma_chain_cachep)
            kmem_cache_destroy(m.anon_vma_cachep)
            kmem_cache_destroy(m.vm_area_cachep)
            kmem_cache_destroy(m.mm_cachep)
            swap_exit(m)
            arena_destroy(m)
            mutex_destroy(&m.swapon_mutex)
            mutex_destroy(&m.mf_mutex)
            mutex_destroy(&m.hotplug_lock)
            free(m.blocks)
            free(m)

    def __dealloc__(self):
        self.teardown()

    def close(self):
        """End all processes and free the memory; waits for calls in other threads. Closing twice is no error.

        Raises BufferError while a memoryview of the memory exists.
        """
        cdef int active
        spin_lock(&self.lock)
        if self.exports:
            spin_unlock(&self.lock)
            raise BufferError("a view of the machine's memory exists")
        self.closed_ = True
        spin_unlock(&self.lock)
        with nogil:
            while True:
                spin_lock(&self.lock)
                active = self.active
                spin_unlock(&self.lock)
                if active == 0:
                    break
                usleep(100)
        for process in list(self.processes.values()):
            process._let_go()
        self.teardown()

    def _count_as_written(self):
        """For ksm bench, before a pass: take every page for written since the last one, and for written again while it is in a tree."""
        self.enter()
        with nogil:
            mutex_lock(&self.g.ksm_thread_mutex)
            fast_distrust(self.g)
            mutex_unlock(&self.g.ksm_thread_mutex)
        self.leave()

    @property
    def plain(self):
        """Whether it scans as the kernel does, in every step."""
        self.enter()
        plain = self.g.fast == NULL
        self.leave()
        return plain

    @property
    def closed(self):
        """Whether close() was called."""
        return self.closed_

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def __repr__(self):
        if self.closed_ or self.m == NULL:
            return "<ksm.Machine closed>"
        return f"<ksm.Machine {self.ram_pages * PAGE_SIZE >> 20} MiB, {self.m.nr_node_ids} node(s), {len(self.processes)} process(es)>"

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        self.enter()
        try:
            PyBuffer_FillInfo(buffer, self, self.m.arena, self.ram_pages << PAGE_SHIFT, 1, flags)
            spin_lock(&self.lock)
            self.exports += 1
            spin_unlock(&self.lock)
        finally:
            self.leave()

    def __releasebuffer__(self, Py_buffer *buffer):
        spin_lock(&self.lock)
        self.exports -= 1
        spin_unlock(&self.lock)

    def spawn(self, name=None, node=0):
        """A new process with an empty address space: ksm.Process. Its pages come from this NUMA node as long as it has free ones, and those
        of its children too. OSError(ENOMEM)."""
        from ksm.process import spawn
        return spawn(self, name, self.check_node(node))

    cdef int check_node(self, object node) except -1:
        node = operator.index(node)
        self.enter()
        nr_nodes = self.m.nr_node_ids
        self.leave()
        if not 0 <= node < nr_nodes:
            raise ValueError(f"there is no node {node}")
        return node

    def _next_pid(self):
        self.next_pid += 1
        return self.next_pid

    def total_pages(self):
        """Frames of the machine's memory, without images and what is offline; one of them is the zero page."""
        cdef unsigned long pages
        self.enter()
        pages = self.ram_pages - self.m.nr_offline
        self.leave()
        return pages

    def free_pages(self):
        """Frames of the memory that nobody uses."""
        cdef unsigned long pages
        self.enter()
        pages = nr_free_pages(self.m)
        self.leave()
        return pages

    def vmstat(self):
        """Events since the machine was made, named as in /proc/vmstat: page faults, copies of merged pages on write (cow_ksm), ..."""
        self.enter()
        try:
            return {name: self.m.vm_event[i] for i, name in enumerate(VM_EVENTS)}
        finally:
            self.leave()

    cdef dict caches(self):
        """The slab caches by name, as addresses. The machine is entered."""
        cdef kmem_cache *all[7]
        cdef int i
        all[:] = [self.m.mm_cachep, self.m.vm_area_cachep, self.m.anon_vma_cachep, self.m.anon_vma_chain_cachep,
                  self.g.rmap_item_cache, self.g.stable_node_cache, self.g.mm_slot_cache]
        return {(<bytes>all[i].name).decode(): <size_t>all[i] for i in range(7)}

    def slabinfo(self):
        """Objects in use, by cache, as in /proc/slabinfo: mm_struct, vm_area_struct, anon_vma, anon_vma_chain, ksm_rmap_item,
        ksm_stable_node, ksm_mm_slot."""
        self.enter()
        try:
            return {name: (<kmem_cache *><size_t>cache).nr_objects for name, cache in self.caches().items()}
        finally:
            self.leave()

    def fail(self, what, nth=1, times=1):
        """Let an allocation fail, as CONFIG_FAULT_INJECTION does: the nth from now, and `times` of them in a row; nth 0 calls it off.

        what is "page", for frames, or the name of a cache of slabinfo(). The answer is how often what was ordered before has yet to fail.
        ValueError for another name, and negative numbers.
        """
        cdef fault_attr *attr
        cdef long left
        nth, times = operator.index(nth), operator.index(times)
        if not (0 <= nth < 1 << 62 and 0 < times < 1 << 62):
            raise ValueError("nth is 0 or more, times 1 or more")
        self.enter()
        try:
            caches = self.caches()
            if what == "page":
                attr = &self.m.fail_page_alloc
            elif what in caches:
                attr = &(<kmem_cache *><size_t>caches[what]).fail
            else:
                raise ValueError(f"what fails is page or one of {', '.join(caches)}, not {what!r}")
            left = attr.times if attr.nth else 0
            attr.times = times
            attr.nth = nth
        finally:
            self.leave()
        return left

    def lru_add_drain_all(self):
        """Empty the batch in which new pages wait, and in which they cannot be merged. ksmd does it at the start of every pass."""
        self.enter()
        with nogil:
            lru_add_drain_all(self.m)
        self.leave()

    def drain_all_pages(self):
        """Give the memory of free frames back to the operating system now. scan() does it at its end."""
        self.enter()
        with nogil:
            drain_all_pages(self.m)
        self.leave()

    # Swap

    cdef int swapon_(self, object size) except -1:
        cdef object nbytes = parse_size(size, "swap")
        cdef unsigned long nr_pages
        cdef int err
        if nbytes < PAGE_SIZE or nbytes % PAGE_SIZE:
            raise ValueError(f"swap must be a multiple of {PAGE_SIZE} bytes, not {nbytes}")
        nr_pages = nbytes >> PAGE_SHIFT
        with nogil:
            err = swapon(self.m, nr_pages)
        if err:
            raise oserror(err, f"swapon of {nbytes} bytes")
        return 0

    def swapon(self, size):
        """Give the machine a swap area. OSError EBUSY if it has one, ENOMEM. Follows swapon(2)."""
        self.enter()
        try:
            self.swapon_(size)
        finally:
            self.leave()

    def swapoff(self):
        """Bring every page back into memory, and take the swap area away. OSError ENOMEM when memory is too small, and what is not back
        by then stays; EINVAL without an area. Follows swapoff(2)."""
        cdef int err
        self.enter()
        with nogil:
            err = swapoff(self.m)
        self.leave()
        if err:
            raise oserror(err, "swapoff")

    def swap_pages(self):
        """Pages of the swap area: (in use, all). A page can be in memory too, and still have its place there."""
        cdef unsigned long used = 0, total = 0
        self.enter()
        if self.m.swap_info != NULL and self.m.swap_info.flags:
            used = self.m.swap_info.inuse_pages
            total = self.m.swap_info.max - 1
        self.leave()
        return used, total

    # Frames

    cdef unsigned long check_pfn(self, object pfn) except? 0xdeadbeef:
        cdef unsigned long cpfn = ulong("pfn", pfn)
        if cpfn >= self.m.plugged_pfn:
            raise oserror(EINVAL, f"frame {pfn}")
        return cpfn

    def migrate(self, pfn, node=None):
        """Move the page in this frame to another one, on this node, or wherever there is one: the new frame's number.

        OSError EBUSY for a frame that has no page which can be moved; EAGAIN when somebody holds the page, so that it could not be moved;
        ENOMEM. Follows mm/migrate.c.
        """
        cdef int nid = NUMA_NO_NODE if node is None else self.check_node(node)
        cdef unsigned long cpfn
        cdef long ret
        self.enter()
        try:
            cpfn = self.check_pfn(pfn)
            with nogil:
                ret = migrate_pfn(self.m, cpfn, nid)
        finally:
            self.leave()
        if ret < 0:
            raise oserror(ret, f"migration of frame {pfn}")
        return ret

    def offline(self, start_pfn, nr_pages):
        """Take frames out of the machine: blocks of 512 of its memory, or all of an image. Their pages move elsewhere first.

        OSError EBUSY when one cannot, and all frames stay; EINVAL for a range that is none. Follows mm/memory_hotplug.c.
        """
        cdef unsigned long start = ulong("start_pfn", start_pfn), nr = ulong("nr_pages", nr_pages)
        cdef int err
        self.enter()
        with nogil:
            err = offline_pages(self.m, start, nr)
        self.leave()
        if err:
            raise oserror(err, f"offlining of {nr_pages} frames from {start_pfn} on")

    def online(self, start_pfn, nr_pages):
        """Bring frames back that offline() has taken. OSError EINVAL."""
        cdef unsigned long start = ulong("start_pfn", start_pfn), nr = ulong("nr_pages", nr_pages)
        cdef int err
        self.enter()
        with nogil:
            err = online_pages(self.m, start, nr)
        self.leave()
        if err:
            raise oserror(err, f"onlining of {nr_pages} frames from {start_pfn} on")

    def memory_failure(self, pfn):
        """Say that the memory of this frame is broken: a list of (process, address), whom the kernel would kill.

        Each process is there once, with one place, the first that is found. For a merged page that is every process related to one that has
        it, at the same address. The page stays mapped here; the frame is not used again. OSError EBUSY for a free frame, ENXIO for one
        that is not there, ENOMEM. Follows mm/memory-failure.c.
        """
        cdef unsigned long cpfn = ulong("pfn", pfn)
        cdef to_kill_list tokill
        cdef int err, i
        from ksm.process import processes_by_mm
        memset(&tokill, 0, sizeof(tokill))
        self.enter()
        try:
            with nogil:
                err = memory_failure(self.m, cpfn, &tokill)
            if err:
                raise oserror(err, f"memory_failure of frame {pfn}")
            processes = processes_by_mm(self)
            return [(processes.get(<size_t>tokill.procs[i].mm), tokill.procs[i].addr) for i in range(tokill.nr)]
        finally:
            for i in range(tokill.nr):
                mmdrop(tokill.procs[i].mm)
            free(tokill.procs)
            self.leave()

    def _get_page(self, pfn):
        """Take a reference on the page in this frame, as a driver would: for tests of what must not be done to such a page."""
        cdef bint got
        self.enter()
        try:
            got = folio_try_get(pfn_folio(self.m, self.check_pfn(pfn)))
        finally:
            self.leave()
        if not got:
            raise oserror(EBUSY, f"frame {pfn} is free")

    def _put_page(self, pfn):
        """Give a reference of _get_page() back."""
        self.enter()
        try:
            folio_put(self.m, pfn_folio(self.m, self.check_pfn(pfn)))
        finally:
            self.leave()

    def advance(self, double seconds, *, double ksmd=0.0):
        """Move a manual clock forward. Of these seconds, ksmd was on a processor for `ksmd`: what its advisor takes for the cost of a pass.

        ValueError on the real clock, backwards, and for a ksmd that took longer than the time.
        """
        self.enter()
        try:
            if not self.m.manual_clock:
                raise ValueError("the clock is the real one")
            if not 0 <= seconds < 1e9:
                raise ValueError("a clock moves forward")
            if not 0 <= ksmd <= seconds:
                raise ValueError("ksmd takes a part of the seconds")
            with nogil:
                mutex_lock(&self.g.ksm_thread_mutex)
                self.m.clock_ns += <long>(seconds * 1e9)
                self.g.ksmd_runtime += <unsigned long long>(ksmd * 1e9)
                mutex_unlock(&self.g.ksm_thread_mutex)
        finally:
            self.leave()

    def time(self):
        """The machine's clock, in seconds."""
        cdef long now
        self.enter()
        now = ktime_get(self.m)
        self.leave()
        return now / 1e9

    def record(self, steps=10000):
        """Record what KSM does from now on, at most so many steps: ksm.study.recording.Recording, a context manager.

        The machine must be a plain one, because a fast one does not take every step: ValueError. After each step the recorder goes through
        all that KSM keeps, and through all page tables: this is for machines that one looks at. One at a time: OSError(EBUSY).
        """
        from ksm.study.recording import Recording
        return Recording(self, steps)

    def check(self):
        """Verify every invariant of the machine: a list of what is wrong, empty when all is well. See ksm/check/invariants.pyx."""
        from ksm.check import check
        return check(self)

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: verifying a machine.
"""Machine.check(): finds out whether the structures of a machine agree with each other.

In a machine many things are recorded twice. A page table maps a frame, and the frame counts its mappings. A stable node names its page, and
the page its node. The counters of sysfs count what the trees hold. The checker walks all of it and reports each pair that disagrees.
check_ksm.pyx checks KSM, check_mm.pyx address spaces, page tables, anon_vmas and frames, check_swap.pyx the swap area, check_host.pyx the
memory of free frames, check_fast.pyx what ksmd remembers.

It may be called at any time. It waits until the calls of other threads have left the machine, and holds new ones off until it is done. ksmd
is held between two batches. The checker changes nothing.

The following looks wrong, but is legal, because the kernel does the same:

- A stable node whose page is gone ("stale") stays until a search comes across it, with all its rmap_items, which are counted as before.
- A chain whose dups are all gone stays until then, too.
- A merged page may have no node: its merge could not be completed, and there was no memory to undo it.
- A merged page may have an entry that its node does not lead to, for four reasons. The process was forked, and ksmd has not seen the page
  there yet. The page was on its way to another frame when ksmd came by: ksmd sees no page there, frees the rmap_item, and gives the entry a
  new one in the next pass. The page has gone to another NUMA node while pages merge on their own node only: ksmd takes its rmap_items away
  and gives them back in the next pass, or never, if the page has one sharer and meets an equal on the new node. The page was in the swap
  cache when it was merged: a process that comes back from swap maps it, and ksmd adds an rmap_item later, if the memory is mergeable.
- An entry of a merged page may be dirty, lie in a vma that is not mergeable, or not be found from the node. This is so if relatives by fork
  shared the page when it was merged, or had its slot in the swap area: ksmd handles only the entry of the process that it looks at. It is
  also so for a page that was in the swap cache, where neither madvise() nor mremap() look for it. And it is so in the era 6.1 for a page
  that its process may not access when it is to be unmerged: break_ksm() does not see it.
- A node may have more sharers than max_page_sharing, when forks brought them.
- A slot may hold other bytes than its page in the swap cache, as long as the page or an entry of it is dirty: the page is written before it
  leaves memory again. If neither is dirty, the page leaves without being written, and check() reports it. Nor does it matter if no entry
  leads to the page or to the slot: a page that was locked when its process gave it up stays until it is reclaimed.
- The number of KSM zero pages may be too large or too small after a fork that left mappings out, or failed half way.
"""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from linux.atomic cimport atomic_inc_not_zero
from linux.list cimport list_head
from linux.mm_types cimport mm_of_mmlist, mm_struct
from linux.mmap_lock cimport mmap_write_lock, mmap_write_unlock
from linux.spinlock cimport mutex_lock, mutex_unlock, spin_lock, spin_unlock

from ksm.check.check_fast cimport check_keys
from ksm.check.check_host cimport check_fingerprints, check_zeros
from ksm.check.check_ksm cimport check_counters, check_slots, check_stable_trees, check_unstable_trees
from ksm.check.check_mm cimport check_anon_vmas, check_caches, check_files, check_frames, check_mms
from ksm.check.check_swap cimport check_swap
from ksm.check.checker cimport KSM_MOST_FINDINGS, checker, frame_use, map_put
from ksm.kernel.fork cimport mmdrop
from ksm.machine cimport Machine


# Holding still

cdef bint hold_mms(checker *c) noexcept nogil:
    """Take a reference on every mm, and its mmap_lock. The order is that of the mms' ids, which fork follows too."""
    cdef list_head *pos = c.m.mmlist.next
    cdef int i, room = 0
    spin_lock(&c.m.mmlist_lock)
    pos = c.m.mmlist.next
    while pos != &c.m.mmlist:
        room += 1
        pos = pos.next
    c.nr_mms = 0
    c.mms = <mm_struct **>malloc((room + 1) * sizeof(mm_struct *))
    if c.mms != NULL:
        pos = c.m.mmlist.next
        while pos != &c.m.mmlist:
            # An mm without references is about to leave the list.
            if atomic_inc_not_zero(&mm_of_mmlist(pos).mm_count):
                c.mms[c.nr_mms] = mm_of_mmlist(pos)
                c.nr_mms += 1
            pos = pos.next
    spin_unlock(&c.m.mmlist_lock)
    for i in range(c.nr_mms):
        mmap_write_lock(c.mms[i])
    return c.mms != NULL


cdef void release_mms(checker *c) noexcept nogil:
    cdef int i
    for i in range(c.nr_mms):
        mmap_write_unlock(c.mms[i])
        mmdrop(c.mms[i])
    free(c.mms)


cdef void run_checks(checker *c) noexcept nogil:
    cdef int i
    for i in range(c.nr_mms):
        map_put(c, &c.mm, c.mms[i])
    c.use = <frame_use *>calloc(c.m.plugged_pfn, sizeof(frame_use))
    if c.m.swap_info != NULL and c.m.swap_info.flags:
        c.slots = <unsigned int *>calloc(c.m.swap_info.max, sizeof(unsigned int))
        c.no_memory = c.no_memory or c.slots == NULL
    if c.use == NULL or c.no_memory:
        c.no_memory = True
        return
    check_stable_trees(c)
    check_slots(c)
    check_unstable_trees(c)
    check_counters(c)
    check_mms(c)
    check_files(c)
    check_swap(c)
    check_anon_vmas(c)
    check_frames(c)
    check_zeros(c)
    check_fingerprints(c)
    check_caches(c)
    if c.found.count == 0:
        check_keys(c)           # relies on the checks before it


def check(Machine machine not None):
    """Check a machine: a list of lines that say what is wrong, empty when nothing is. MemoryError."""
    cdef checker c
    memset(&c, 0, sizeof(c))
    machine.hold()
    with nogil:
        c.m = machine.m
        c.g = machine.g
        c.pinned = machine.nr_held != 0
        mutex_lock(&c.g.ksm_thread_mutex)
        if hold_mms(&c):
            run_checks(&c)
            release_mms(&c)
        else:
            c.no_memory = True
        mutex_unlock(&c.g.ksm_thread_mutex)
        machine.release()
        free(c.mm.slots)
        free(c.nodes.slots)
        free(c.anon_vmas.slots)
        free(c.files.slots)
        free(c.items)
        free(c.use)
        free(c.slots)
    try:
        if c.no_memory:
            raise MemoryError
        lines = c.found.text[:c.found.used].decode("utf-8", "replace").splitlines() if c.found.used else []
        if c.found.count > KSM_MOST_FINDINGS:
            lines.append(f"and {c.found.count - KSM_MOST_FINDINGS} more")
        return lines
    finally:
        free(c.found.text)

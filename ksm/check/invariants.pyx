# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: verifying a machine.
"""Machine.check(): is everything in its place?

A machine is many structures that say the same thing twice: a page table maps a frame, and the frame counts its mappings; a stable node
knows its page, and the page its node; the counters of sysfs count what the trees hold. The checker walks all of it and reports each pair
that disagrees. Beside this file, check_ksm.pyx looks at what KSM keeps, check_mm.pyx at address spaces, page tables, anon_vmas and frames,
check_swap.pyx at the swap area, check_host.pyx at the memory behind free frames, check_fast.pyx at what ksmd remembers.

It may be called at any time: it waits until the calls of other threads have left the machine, and holds new ones off until it is done. ksmd
is held between two of its batches. Nothing is changed, whatever is wrong.

What is legal although it looks wrong, because the kernel does the same:

- A stable node whose page is gone ("stale") stays until a search comes across it, with all its rmap_items, which are counted as before.
- A chain whose dups are all gone stays until then, too.
- A merged page without a node: a merge that could not be completed nor, for want of memory, be undone.
- A merged page that its node does not lead to, in a process that was forked: ksmd has not seen it there yet. Or one that has gone to
  another NUMA node while pages merge on their own node only: ksmd takes its rmap_items away, and gives them back in the next pass, or,
  when it has one sharer and meets an equal on the new node, never. Or one that was in the swap cache when it was merged: who then
  comes back from swap maps it, and waits for ksmd, if its memory is mergeable at all.
- An entry of a merged page that is dirty, in a vma that is not mergeable, or not found from the node, if relatives by fork shared the
  page when it was merged, or had its slot in the swap area: only the entry of the process that ksmd looked at was cared for. The same
  of one that was in the swap cache, where neither madvise() nor mremap() look for it.
- A node with more sharers than max_page_sharing, when forks brought them.
- A page in the swap cache whose slot holds other bytes, as long as an entry of it or the page itself is dirty: it is written before it
  leaves again. When nothing says so, it leaves as it is, and check() reports it.
- More KSM zero pages counted than there are, or fewer, after a fork that left mappings out, or failed half way.
"""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from linux.atomic cimport atomic_inc_not_zero
from linux.list cimport list_head
from linux.mm_types cimport mm_of_mmlist, mm_struct
from linux.mmap_lock cimport mmap_write_lock, mmap_write_unlock
from linux.spinlock cimport mutex_lock, mutex_unlock, spin_lock, spin_unlock

from ksm.check.check_fast cimport check_keys
from ksm.check.check_host cimport check_zeros
from ksm.check.check_ksm cimport check_counters, check_slots, check_stable_trees, check_unstable_trees
from ksm.check.check_mm cimport check_anon_vmas, check_caches, check_files, check_frames, check_mms
from ksm.check.check_swap cimport check_swap
from ksm.check.checker cimport KSM_MOST_FINDINGS, checker, frame_use, map_put
from ksm.kernel.fork cimport mmdrop
from ksm.machine cimport Machine


# Holding still

cdef bint hold_mms(checker *c) noexcept nogil:
    """A reference on every mm, and its mmap_lock, in the order of their birth, in which fork takes them too."""
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
            # One without references is about to leave the list.
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
    check_caches(c)
    if c.found.count == 0:
        check_keys(c)           # which trusts the rest


def check(Machine machine not None):
    """What is wrong with a machine: a list of lines, empty when all is well. MemoryError."""
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

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: looking at what KSM has.
"""The state of a machine as a recording has it after its first step, of any machine, and beside a recording."""

from libc.stdlib cimport calloc, free

from linux.spinlock cimport mutex_lock, mutex_unlock, spin_lock_init

from ksm.machine cimport Machine
from ksm.mm.ksm cimport wait_while_offlining
from ksm.record.look cimport COUNTER, FRAME, ITEM, LINK, MM, NODE, PTE, ROOT
from ksm.record.recorder cimport LABEL, empty, recorder, widths, write_step
from ksm.step cimport STEP_NOTE


def snapshot(Machine of not None):
    """What KSM has now, in rows of numbers by what they are; enum what of look.pxd says which numbers.

    A row begins with the object's number, by which others name it. "contents" has the first bytes of each content, by the number in a
    frame's row. The work and the memory go with the number of mapped pages.
    """
    cdef recorder *r = <recorder *>calloc(1, sizeof(recorder))
    cdef size_t i
    cdef int kind, j
    if r == NULL:
        raise MemoryError
    spin_lock_init(&r.lock)
    r.most_steps = 1
    r.active = True
    r.pfn = -1
    names = {COUNTER: "counters", ROOT: "roots", LINK: "links", NODE: "nodes", ITEM: "items", PTE: "entries", FRAME: "frames", MM: "mms"}
    found = {name: [] for name in names.values()}
    try:
        with nogil:
            of.enter()
            mutex_lock(&of.g.ksm_thread_mutex)
            wait_while_offlining(of.g)
            r.in_pass = of.g.ksm_scan.mm_slot != &of.g.ksm_mm_head
            write_step(r, of.m, STEP_NOTE, NULL, NULL, NULL, 0)
            mutex_unlock(&of.g.ksm_thread_mutex)
            of.leave()
        if r.no_memory:
            raise MemoryError
        i = 7                   # behind the numbers of the step itself
        while i < r.out.n:
            kind = <int>r.out.a[i] - 1
            if kind in names:
                found[names[kind]].append(tuple([r.out.a[i + 1 + <size_t>j] for j in range(widths[kind] + 1)]))
            i += <size_t>widths[kind] + 2
        found["contents"] = [<bytes>(<const char *>r.labels[i].bytes)[:LABEL] for i in range(r.nr_labels)]
        return found
    finally:
        empty(r)
        free(r)

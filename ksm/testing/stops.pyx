# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel. TEST SUPPORT: a machine that is recorded, looked at in each step of its own. Nothing else imports it.
"""Stopping a machine at each step that a recorder writes down, and what there is then, by another way than the recorder's."""


from linux.list cimport list_head
from linux.mm_types cimport COW_KSM, PAGE_SHIFT, machine, mm_of_mmlist, mm_struct, pte_t, struct_page, vm_area_struct
from linux.page_flags cimport folio_mapcount, folio_test_ksm, page_address, page_folio
from linux.pgtable cimport pte_write

from ksm.fs.proc.task_mmu cimport PAGE_FLAGS_SHIFT, PAGE_PRESENT, PAGE_ZERO, pagemap_walk
from ksm.machine cimport Machine
from ksm.mm.ksm cimport ksm_globals
from ksm.step cimport READ_ONCE_step, STEP_PASS_BEGINS, STEP_PASS_ENDS, WRITE_ONCE_step, step_function
from ksm.testing.trees import state

cdef step_function recorded = NULL      # of the recorder
cdef object looked = None               # is called after it
cdef bint in_pass = False               # a pass is under way


cdef void entry(vm_area_struct *vma, unsigned long addr, pte_t pte, unsigned long word, void *found) noexcept nogil:
    if not word:
        return
    with gil:
        (<list><object>found).append((vma.vm_mm.id, addr >> PAGE_SHIFT, word, bool(word & PAGE_PRESENT and pte_write(pte))))


def account(Machine m not None):
    """Counters; each page table entry as {(mm, page): (frame or slot, present, writable)}; each frame that one of them leads to as {frame:
    (mapcount, merged, first bytes)}; and trees.state(). It takes no lock: the machine stands still.
    """
    cdef ksm_globals *g = m.g
    cdef list_head *pos
    cdef mm_struct *mm
    cdef struct_page *page
    cdef int i
    words = []
    pos = m.m.mmlist.next
    while pos != &m.m.mmlist:
        mm = mm_of_mmlist(pos)
        for i in range(mm.map_count):
            pagemap_walk(mm.vmas[i], mm.vmas[i].vm_start, mm.vmas[i].vm_end, entry, <void *>words)
        pos = pos.next
    entries, frames = {}, {}
    for mm_id, number, word, writable in words:
        pfn, present = word >> PAGE_FLAGS_SHIFT, bool(word & PAGE_PRESENT)
        entries[mm_id, number] = (pfn, present, writable)
        if present and not word & PAGE_ZERO:
            page = m.m.mem_map + <size_t>pfn
            frames[pfn] = (folio_mapcount(page_folio(page)), bool(folio_test_ksm(page)), (<char *>page_address(m.m, page))[:24])
    counters = {
        "full_scans": g.ksm_scan.seqnr, "pages_scanned": g.ksm_pages_scanned, "pages_shared": g.ksm_pages_shared,
        "pages_sharing": g.ksm_pages_sharing, "pages_unshared": g.ksm_pages_unshared, "pages_skipped": g.ksm_pages_skipped,
        "stable_node_chains": g.ksm_stable_node_chains, "stable_node_dups": g.ksm_stable_node_dups, "rmap_items": g.ksm_rmap_items,
        "ksm_zero_pages": <unsigned long>m.m.ksm_zero_pages, "cow_ksm": m.m.vm_event[COW_KSM],
    }
    in_trees = counters["pages_shared"] + counters["pages_sharing"] + counters["pages_unshared"]
    counters["pages_volatile"] = max(0, counters["rmap_items"] - in_trees)
    return {"counters": counters, "entries": entries, "frames": frames, **state(m, in_pass)}


cdef void stopped(machine *m, int which, void *item, void *page, void *node, long value) noexcept nogil:
    global in_pass
    recorded(m, which, item, page, node, value)
    if which == STEP_PASS_BEGINS or which == STEP_PASS_ENDS:
        in_pass = which == STEP_PASS_BEGINS
    with gil:
        looked()


def stop_at_each_step(Machine m not None, look not None):
    """Call look() after each step that the recorder of this machine writes down, while the thread that takes the step waits. The
    recording's own notes are no steps of the machine. For one machine at a time, until its recording ends.
    """
    global recorded, looked, in_pass
    recorded, looked, in_pass = READ_ONCE_step(m.m.step), look, m.g.ksm_scan.mm_slot != &m.g.ksm_mm_head
    if recorded == NULL:
        raise ValueError("the machine is not being recorded")
    WRITE_ONCE_step(m.m.step, stopped)

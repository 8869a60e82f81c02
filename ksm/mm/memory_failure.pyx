# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/memory-failure.c of Linux 6.12, as far as it asks who has a page.
"""A frame turns out to be broken: who has its page?

The kernel then unmaps the page and kills, by SIGBUS, those on the list. Here the list is the answer; the page stays mapped, the frame is
marked, and never handed out again once it is free.
"""

from libc.errno cimport EBUSY, ENXIO

from linux.atomic cimport atomic_fetch_or, atomic_read
from linux.ksm cimport collect_procs_ksm
from linux.mm_types cimport machine, mm_address, struct_folio, vm_area_struct
from linux.mmap_lock cimport mmgrab
from linux.page_flags cimport (PG_hwpoison, PG_offline, PG_plugged, PG_reserved, folio_lock, folio_mapped, folio_pfn, folio_test_anon,
                               folio_test_ksm, folio_try_get, folio_unlock, pfn_folio, pfn_to_page, test_page_flag)
from linux.rmap cimport rmap_walk_control

from ksm.mm.huge_memory cimport split_folio
from ksm.mm.page_alloc cimport folio_put
from ksm.mm.page_vma_mapped cimport page_vma_mapped_walk, page_vma_mapped_walk_control, page_vma_mapped_walk_done
from ksm.mm.rmap cimport rmap_walk


cdef struct to_kill_list:
    mm_address *to_kill
    int room
    int found


cdef bint add_to_kill_anon(struct_folio *folio, vm_area_struct *vma, unsigned long address, void *arg) noexcept nogil:
    cdef to_kill_list *tk = <to_kill_list *>arg
    cdef page_vma_mapped_walk_control pvmw
    pvmw.vma = vma
    pvmw.pfn = folio_pfn(vma.vm_mm.machine, folio)
    pvmw.address = address
    pvmw.migration = False
    if page_vma_mapped_walk(&pvmw):
        if atomic_read(&vma.vm_mm.mm_users) > 0:
            if tk.found < tk.room:
                mmgrab(vma.vm_mm)
                tk.to_kill[tk.found].mm = vma.vm_mm
                tk.to_kill[tk.found].address = address
            tk.found += 1
        page_vma_mapped_walk_done(&pvmw)
    return True


cdef int collect_procs_anon(machine *m, struct_folio *folio, mm_address *to_kill, int room) noexcept nogil:
    cdef to_kill_list tk
    cdef rmap_walk_control rwc
    tk.to_kill = to_kill
    tk.room = room
    tk.found = 0
    rwc.arg = &tk
    rwc.try_lock = False
    rwc.contended = False
    rwc.anon_lock = True
    rwc.rmap_one = add_to_kill_anon
    rwc.done = NULL
    rwc.invalid_vma = NULL
    rmap_walk(m, folio, &rwc)
    return tk.found


cdef int memory_failure(machine *m, unsigned long pfn, mm_address *to_kill, int room) noexcept nogil:
    """Mark the frame, and answer how many places have its page, with a reference on the mm of each for which there was room.

    -ENXIO for a frame that is not there, -EBUSY for one that is free, or part of a huge page that cannot be split. Asking again is allowed.
    """
    cdef struct_folio *folio
    cdef int found = 0
    if pfn >= m.plugged_pfn:
        return -ENXIO
    folio = pfn_folio(m, pfn)
    if test_page_flag(folio, PG_reserved) or test_page_flag(folio, PG_offline) and not test_page_flag(folio, PG_plugged):
        return -ENXIO
    if not folio_try_get(folio):
        return -EBUSY
    # What has to go is one page; the rest of a huge one can stay.
    if not split_folio(m, pfn_to_page(m, pfn)):
        folio_put(m, folio)
        return -EBUSY
    folio = pfn_folio(m, pfn)
    folio_lock(folio)
    atomic_fetch_or(&folio.flags, PG_hwpoison)
    if folio_mapped(folio):
        if folio_test_ksm(folio):
            found = collect_procs_ksm(m, folio, to_kill, room)
        elif folio_test_anon(folio):
            found = collect_procs_anon(m, folio, to_kill, room)
    folio_unlock(folio)
    folio_put(m, folio)
    return found

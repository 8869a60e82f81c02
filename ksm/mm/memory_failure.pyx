# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/memory-failure.c of Linux 6.12: what happens to a page, and who is killed for it.
"""Which processes have the page of a broken frame, and moving a page out of a frame that is about to break.

The kernel unmaps the page, and kills the processes on the list by SIGBUS. Here the list is returned and the page stays mapped. The frame is
marked, and is never handed out again. It keeps its page for good, off the LRU, and a merged page keeps its stable node.
"""

from libc.errno cimport EBUSY, EIO, ENOMEM, ENXIO
from libc.stdlib cimport realloc

from linux.atomic cimport atomic_fetch_or, atomic_read, smp_load_acquire_ulong
from linux.ksm cimport collect_procs_ksm
from linux.mm_types cimport machine, mm_struct, struct_folio, to_kill, to_kill_list, vm_area_struct
from linux.mmap_lock cimport mmgrab
from linux.page_flags cimport (PG_active, PG_hwpoison, PG_lru, PG_offline, PG_plugged, PG_reserved, PageHWPoison, clear_page_flag,
                               folio_lock, folio_mapped, folio_test_anon, folio_test_ksm, folio_try_get, folio_unlock, page_to_nid,
                               pfn_folio, pfn_to_page, set_page_flag, test_page_flag)
from linux.rmap cimport rmap_walk_control
from linux.spinlock cimport mutex_lock, mutex_unlock

from ksm.mm.huge_memory cimport split_folio
from ksm.mm.migrate cimport MR_MEMORY_FAILURE, migrate_pages
from ksm.mm.page_alloc cimport folio_put
from ksm.mm.page_vma_mapped cimport DEFINE_FOLIO_VMA_WALK, page_vma_mapped_walk, page_vma_mapped_walk_control, page_vma_mapped_walk_done
from ksm.mm.rmap cimport rmap_walk
from ksm.mm.swap cimport lru_add_drain_all
from ksm.mm.vmscan cimport folio_isolate_lru


cdef void __add_to_kill(mm_struct *mm, to_kill_list *tokill, unsigned long addr) noexcept nogil:
    cdef to_kill *procs
    cdef int room = 2 * tokill.room + 16
    if tokill.nr == tokill.room:
        procs = <to_kill *>realloc(tokill.procs, <size_t>room * sizeof(to_kill))
        if procs == NULL:
            tokill.no_memory = True     # the kernel goes on without this process
            return
        tokill.procs = procs
        tokill.room = room
    mmgrab(mm)                  # get_task_struct()
    tokill.procs[tokill.nr].mm = mm
    tokill.procs[tokill.nr].addr = addr
    tokill.nr += 1


cdef void add_to_kill_ksm(mm_struct *mm, to_kill_list *tokill, unsigned long addr) noexcept nogil:
    """Put a process on the list once. The search meets it in the trees of several anon_vmas, and in one tree with several vmas."""
    # OURS: task_in_to_kill_list() goes through the list. mf_mutex is held.
    if mm.mf_round != tokill.round:
        mm.mf_round = tokill.round
        __add_to_kill(mm, tokill, addr)


cdef bint add_to_kill_anon(struct_folio *folio, vm_area_struct *vma, unsigned long address, void *arg) noexcept nogil:
    cdef page_vma_mapped_walk_control pvmw
    DEFINE_FOLIO_VMA_WALK(&pvmw, folio, vma, address, 0)
    if page_vma_mapped_walk(&pvmw):
        if atomic_read(&vma.vm_mm.mm_users) > 0:
            __add_to_kill(vma.vm_mm, <to_kill_list *>arg, address)
        page_vma_mapped_walk_done(&pvmw)
    return True


cdef void collect_procs_anon(machine *m, struct_folio *folio, to_kill_list *tokill) noexcept nogil:
    cdef rmap_walk_control rwc
    rwc.arg = tokill
    rwc.try_lock = False
    rwc.contended = False
    rwc.anon_lock = True
    rwc.rmap_one = add_to_kill_anon
    rwc.done = NULL
    rwc.invalid_vma = NULL
    rmap_walk(m, folio, &rwc)


cdef void delete_from_lru_cache(machine *m, struct_folio *folio) noexcept nogil:
    if folio_isolate_lru(folio):
        clear_page_flag(folio, PG_active)
        folio_put(m, folio)


cdef int memory_failure(machine *m, unsigned long pfn, to_kill_list *tokill) noexcept nogil:
    """Mark the frame as broken, and put the processes that have its page on the list, with a reference on the mm of each: 0. The list is
    empty before.

    -ENXIO for a frame that does not exist. -EBUSY for a free frame, for a part of a huge page that cannot be split, and in an era until 6.1
    for a merged page, which is marked all the same. -ENOMEM if processes are missing from the list. The call may be repeated.

    The first call keeps its reference on the page.
    """
    cdef struct_folio *folio
    cdef bint repeated
    cdef int err = 0
    if pfn >= smp_load_acquire_ulong(m.plugged_pfn):
        return -ENXIO
    folio = pfn_folio(m, pfn)
    if test_page_flag(folio, PG_reserved) or test_page_flag(folio, PG_offline) and not test_page_flag(folio, PG_plugged):
        return -ENXIO
    if not folio_try_get(folio):
        return -EBUSY
    # A huge page is split, because only one of its parts is broken.
    if not split_folio(m, pfn_to_page(m, pfn)):
        folio_put(m, folio)
        return -EBUSY
    folio = pfn_folio(m, pfn)
    mutex_lock(&m.mf_mutex)
    m.mf_round += 1
    tokill.round = m.mf_round
    lru_add_drain_all(m)        # shake_folio()
    folio_lock(folio)
    repeated = atomic_fetch_or(&folio.flags, PG_hwpoison) & PG_hwpoison
    if folio_mapped(folio):
        if folio_test_ksm(folio) and not m.ksm_pages_fail:
            err = -EBUSY        # hwpoison_user_mappings() of 6.1
        elif folio_test_ksm(folio):
            collect_procs_ksm(m, folio, tokill)
        elif folio_test_anon(folio):
            collect_procs_anon(m, folio, tokill)
    if not err:
        delete_from_lru_cache(m, folio)
    folio_unlock(folio)
    mutex_unlock(&m.mf_mutex)
    if repeated:
        folio_put(m, folio)
    return -ENOMEM if tokill.no_memory else err


cdef void page_handle_poison(machine *m, struct_folio *page) noexcept nogil:
    """Mark a frame whose page has moved, and drop the last reference on it. Then it is no longer used."""
    set_page_flag(page, PG_hwpoison)
    folio_put(m, page)


cdef int soft_offline_in_use_page(machine *m, struct_folio *folio) noexcept nogil:
    """Move the page to another frame, of its node if possible. The caller's reference is dropped."""
    cdef unsigned long new_pfn = 0
    cdef bint isolated
    cdef int ret
    folio_lock(folio)
    if PageHWPoison(folio):
        folio_unlock(folio)
        folio_put(m, folio)
        return 0
    folio_unlock(folio)
    isolated = folio_isolate_lru(folio)
    folio_put(m, folio)
    if not isolated:
        return -EBUSY
    ret = migrate_pages(m, folio, page_to_nid(folio), ~(<unsigned long>0), MR_MEMORY_FAILURE, &new_pfn)
    if ret:
        return ret if ret == -ENOMEM else -EBUSY
    page_handle_poison(m, folio)
    return 0


cdef int soft_offline_page(machine *m, unsigned long pfn) noexcept nogil:
    """Move the page in this frame elsewhere, and do not use the frame again: 0. A frame that is broken already is left alone: 0, too.

    -ENXIO for a frame that does not exist. -EIO for the zero page and for a page that is not on the LRU, because somebody else holds it.
    -EBUSY for a free frame, a huge page that cannot be split, and a page that cannot move. -ENOMEM.
    """
    cdef struct_folio *folio
    cdef int ret = -EIO
    if pfn >= smp_load_acquire_ulong(m.plugged_pfn):
        return -ENXIO
    folio = pfn_folio(m, pfn)
    if test_page_flag(folio, PG_reserved):
        return -EIO
    if test_page_flag(folio, PG_offline) and not test_page_flag(folio, PG_plugged):
        return -EIO
    mutex_lock(&m.mf_mutex)
    if PageHWPoison(folio):
        ret = 0
    else:
        lru_add_drain_all(m)    # shake_page()
        if not folio_try_get(folio):
            ret = -EBUSY        # OURS: the kernel takes a free frame off its lists
        elif not split_folio(m, pfn_to_page(m, pfn)):
            folio_put(m, folio)
            ret = -EBUSY
        else:
            folio = pfn_folio(m, pfn)
            if test_page_flag(folio, PG_lru):
                ret = soft_offline_in_use_page(m, folio)
            else:
                folio_put(m, folio)
    mutex_unlock(&m.mf_mutex)
    return ret

# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/memory_hotplug.c of Linux 6.12.
"""Frames that come and go while the machine runs: images of memory, read or mapped into the arena, and parts of the memory.

Before a range goes, its free frames are put aside and its pages move elsewhere. KSM is told before that, so that no thread walks its trees
meanwhile, and after it, so that KSM frees the stable nodes whose frames were there. Memory goes in blocks of 2 MiB (the kernel's are 128
MiB). An image goes as a whole, and its range is free for another image. A freed frame of an image first waits on a list until its memory
was given back. Until then the range must not be used for another image.
"""

from libc.errno cimport EBUSY, EINTR, EINVAL, ENOMEM
from libc.stdlib cimport realloc

from ksm.host.arena cimport arena_add_file, arena_add_ram, arena_remove
from linux.atomic cimport WRITE_ONCE_uint, smp_load_acquire_int, smp_store_release_ulong
from linux.err cimport EHWPOISON
from linux.memory cimport MEM_CANCEL_OFFLINE, MEM_GOING_OFFLINE, MEM_OFFLINE, memory_notify
from linux.mm cimport signal_pending
from linux.mm_types cimport HPAGE_PMD_NR, machine, memory_block, struct_folio, zone
from linux.page_flags cimport (PG_file, PG_hwpoison, PG_lru, PG_node_shift, PG_offline, PG_plugged, PG_reserved, PageHWPoison,
                               folio_mapped, folio_ref_count, folio_try_get, page_folio, page_to_nid, pfn_folio, pfn_to_page,
                               test_page_flag)
from linux.spinlock cimport backoff, mutex_lock, mutex_unlock, spin_lock, spin_unlock

from ksm.mm.huge_memory cimport split_folio
from ksm.mm.migrate cimport MR_MEMORY_HOTPLUG, migrate_pages
from ksm.mm.page_alloc cimport folio_put, release_plugged, start_isolate_page_range, undo_isolate_page_range
from ksm.mm.swap cimport lru_cache_disable, lru_cache_enable
from ksm.mm.vmscan cimport folio_isolate_lru


cdef enum:
    NR_OFFLINE_ROUNDS = 16      # OURS: the kernel tries until it gets a signal


cdef long add_memory_file(machine *m, int nid, int fd, unsigned long offset, unsigned long nr_pages) noexcept nogil:
    """Plug in frames. Their memory is a part of a file, or zeros without a file (fd -1). Returns the first frame's number, -ENOMEM when the
    arena has no room, or -errno. The frames stay, even without a page, until memory_is_used().
    """
    cdef memory_block *blocks
    cdef memory_block *block
    cdef unsigned long start_pfn, i
    cdef unsigned int flags
    cdef long ret = -ENOMEM
    mutex_lock(&m.hotplug_lock)
    start_pfn = (m.plugged_pfn + HPAGE_PMD_NR - 1) & ~(<unsigned long>HPAGE_PMD_NR - 1)
    if start_pfn <= m.max_pfn and nr_pages <= m.max_pfn - start_pfn:
        blocks = <memory_block *>realloc(m.blocks, (m.nr_blocks + 1) * sizeof(memory_block))
        if blocks != NULL:
            m.blocks = blocks
            ret = arena_add_file(m, start_pfn, nr_pages, fd, offset) if fd >= 0 else arena_add_ram(m, start_pfn, nr_pages)
    if ret == 0:
        block = &m.blocks[m.nr_blocks]
        block.start_pfn = start_pfn
        block.nr_pages = nr_pages
        block.nid = nid
        block.online = True
        block.pending = True
        m.nr_blocks += 1
        for i in range(m.plugged_pfn, start_pfn):
            WRITE_ONCE_uint(m.mem_map[i].flags, PG_reserved)    # a hole, with nothing behind its addresses
        flags = (<unsigned int>nid << PG_node_shift) | PG_plugged | (PG_file if fd >= 0 else 0) | PG_offline
        for i in range(start_pfn, start_pfn + nr_pages):
            m.mem_map[i]._mapcount = -1
            WRITE_ONCE_uint(m.mem_map[i].flags, flags)
        smp_store_release_ulong(m.plugged_pfn, start_pfn + nr_pages)    # last: who goes through all frames holds no lock
        ret = <long>start_pfn
    mutex_unlock(&m.hotplug_lock)
    return ret


cdef void __remove_memory(machine *m, memory_block *block) noexcept nogil:
    cdef unsigned long pfn, end = m.zones[m.nr_node_ids - 1].zone_end_pfn
    block.online = False
    put_broken_pages(m, block.start_pfn, block.start_pfn + block.nr_pages)
    for pfn in range(block.start_pfn, block.start_pfn + block.nr_pages):
        WRITE_ONCE_uint(m.mem_map[pfn].flags, PG_reserved)
    arena_remove(m, block.start_pfn, block.nr_pages)
    # Blocks at the end that are no longer online are dropped, and make room.
    while m.nr_blocks and not m.blocks[m.nr_blocks - 1].online:
        m.nr_blocks -= 1
    if m.nr_blocks:
        end = m.blocks[m.nr_blocks - 1].start_pfn + m.blocks[m.nr_blocks - 1].nr_pages
    smp_store_release_ulong(m.plugged_pfn, end)


cdef memory_block *find_memory_block(machine *m, unsigned long start_pfn) noexcept nogil:
    cdef int i
    for i in range(m.nr_blocks):
        if m.blocks[i].start_pfn == start_pfn and m.blocks[i].online:
            return &m.blocks[i]
    return NULL


cdef bint frames_unused(machine *m, unsigned long start_pfn, unsigned long end_pfn) noexcept nogil:
    """OURS: whether all frames are free and put aside, or broken and no longer mapped."""
    cdef unsigned long pfn
    cdef unsigned int flags
    for pfn in range(start_pfn, end_pfn):
        # The load acquires: the thread that has put the frame aside is done with it.
        flags = <unsigned int>smp_load_acquire_int((<int *>&m.mem_map[pfn].flags)[0])
        if flags & PG_hwpoison and folio_ref_count(m.mem_map + pfn) == 1 and not folio_mapped(pfn_folio(m, pfn)):
            continue
        if folio_ref_count(m.mem_map + pfn) != 0 or not flags & (PG_offline | PG_hwpoison):
            return False
    return True


cdef void put_broken_pages(machine *m, unsigned long start_pfn, unsigned long end_pfn) noexcept nogil:
    """OURS: drop the references that memory_failure() has kept. The range is unused, and goes."""
    cdef unsigned long pfn
    for pfn in range(start_pfn, end_pfn):
        if PageHWPoison(pfn_folio(m, pfn)) and folio_ref_count(pfn_folio(m, pfn)) == 1:
            folio_put(m, pfn_folio(m, pfn))


cdef void memory_is_used(machine *m, unsigned long start_pfn) noexcept nogil:
    """OURS: the frames of this block have pages now, and may go when they have none any more."""
    mutex_lock(&m.hotplug_lock)
    find_memory_block(m, start_pfn).pending = False
    mutex_unlock(&m.hotplug_lock)


cdef void remove_memory(machine *m, unsigned long start_pfn) noexcept nogil:
    """Take away the block at start_pfn, for which memory_is_used() was not called. Pages that it had are unmapped again."""
    cdef memory_block *block
    cdef int spins = 0
    mutex_lock(&m.hotplug_lock)
    block = find_memory_block(m, start_pfn)
    release_plugged(m)
    while not frames_unused(m, start_pfn, start_pfn + block.nr_pages):
        backoff(&spins)         # another thread is giving some frames back, or looks at one
        release_plugged(m)
    __remove_memory(m, block)
    mutex_unlock(&m.hotplug_lock)


cdef void remove_unused_memory(machine *m) noexcept nogil:
    """OURS: after an exit, take away the images of which no process has a page."""
    cdef unsigned long start_pfn, nr_pages
    cdef int i
    mutex_lock(&m.hotplug_lock)
    release_plugged(m)
    for i in range(m.nr_blocks - 1, -1, -1):
        start_pfn = m.blocks[i].start_pfn
        nr_pages = m.blocks[i].nr_pages
        if m.blocks[i].online and not m.blocks[i].pending and frames_unused(m, start_pfn, start_pfn + nr_pages):
            memory_notify(m, MEM_GOING_OFFLINE, start_pfn, nr_pages)
            __remove_memory(m, &m.blocks[i])
            memory_notify(m, MEM_OFFLINE, start_pfn, nr_pages)
    mutex_unlock(&m.hotplug_lock)


# Offline

cdef void do_migrate_range(machine *m, unsigned long start_pfn, unsigned long end_pfn, int nid) noexcept nogil:
    """Try to move every page of the range to another node, or within this node if there is no other."""
    cdef unsigned long pfn, new_pfn = 0, nmask = ~(<unsigned long>0)
    cdef struct_folio *folio
    cdef bint isolated
    if m.nr_node_ids > 1:
        nmask &= ~(<unsigned long>1 << nid)
    for pfn in range(start_pfn, end_pfn):
        folio = page_folio(pfn_to_page(m, pfn))
        if not test_page_flag(folio, PG_lru) or not folio_try_get(folio):
            continue
        isolated = split_folio(m, pfn_to_page(m, pfn))
        folio = page_folio(pfn_to_page(m, pfn))
        # Broken pages stay where they are until they are unmapped.
        isolated = isolated and not PageHWPoison(folio) and folio_isolate_lru(folio)
        folio_put(m, folio)
        if isolated:
            migrate_pages(m, folio, nid, nmask, MR_MEMORY_HOTPLUG, &new_pfn)


cdef bint test_pages_isolated(machine *m, zone *z, unsigned long start_pfn, unsigned long end_pfn) noexcept nogil:
    cdef bint isolated
    if z != NULL:
        spin_lock(&z.lock)
    else:
        release_plugged(m)
    isolated = frames_unused(m, start_pfn, end_pfn)
    if z != NULL:
        spin_unlock(&z.lock)
    return isolated


cdef zone *zone_of_range(machine *m, unsigned long start_pfn, unsigned long end_pfn) noexcept nogil:
    """The zone that contains the range; NULL if there is none. The range has whole blocks, or ends with the zone."""
    cdef int nid
    cdef zone *z
    for nid in range(m.nr_node_ids):
        z = &m.zones[nid]
        # The first zone begins behind the zero page.
        if start_pfn >= z.zone_start_pfn & ~(<unsigned long>HPAGE_PMD_NR - 1) and end_pfn <= z.zone_end_pfn:
            if end_pfn % HPAGE_PMD_NR == 0 or end_pfn == z.zone_end_pfn:
                return z
    return NULL


cdef int offline_pages(machine *m, unsigned long start_pfn, unsigned long nr_pages) noexcept nogil:
    """Take frames away: blocks of memory, or an image. 0; -EINVAL for any other range; -EBUSY when a page of the range cannot move; -EINTR.
    """
    cdef unsigned long end_pfn = start_pfn + nr_pages, pfn
    cdef memory_block *block
    cdef zone *z = NULL
    cdef int ret = -EBUSY, _round
    if nr_pages == 0 or start_pfn % HPAGE_PMD_NR or end_pfn < start_pfn or end_pfn > m.max_pfn:
        return -EINVAL
    mutex_lock(&m.hotplug_lock)
    block = find_memory_block(m, start_pfn)
    if block != NULL and block.pending:
        mutex_unlock(&m.hotplug_lock)
        return -EBUSY
    if block == NULL or block.nr_pages != nr_pages:
        z = zone_of_range(m, start_pfn, end_pfn)
        if z == NULL:
            mutex_unlock(&m.hotplug_lock)
            return -EINVAL
        for pfn in range(start_pfn, end_pfn):
            # The frame is offline already, or is a hole. The zero page never moves.
            if test_page_flag(m.mem_map + pfn, PG_offline | PG_reserved):
                ret = -EINVAL if test_page_flag(m.mem_map + pfn, PG_offline) else -EBUSY
                mutex_unlock(&m.hotplug_lock)
                return ret
        start_isolate_page_range(m, z, start_pfn, end_pfn)

    lru_cache_disable(m)
    memory_notify(m, MEM_GOING_OFFLINE, start_pfn, nr_pages)
    for _round in range(NR_OFFLINE_ROUNDS):
        if signal_pending(m):
            ret = -EINTR
            break
        do_migrate_range(m, start_pfn, end_pfn, page_to_nid(m.mem_map + start_pfn))
        if test_pages_isolated(m, z, start_pfn, end_pfn):
            ret = 0
            break

    lru_cache_enable(m)
    if ret:
        # failed_removal_isolated:
        if z != NULL:
            undo_isolate_page_range(m, z, start_pfn, end_pfn)
        memory_notify(m, MEM_CANCEL_OFFLINE, start_pfn, nr_pages)
    else:
        if z != NULL:
            put_broken_pages(m, start_pfn, end_pfn)
            spin_lock(&z.lock)
            z.isolate_start = 0
            z.isolate_end = 0
            spin_unlock(&z.lock)
            m.nr_offline += nr_pages
        else:
            __remove_memory(m, block)
        memory_notify(m, MEM_OFFLINE, start_pfn, nr_pages)
    mutex_unlock(&m.hotplug_lock)
    return ret


cdef int online_pages(machine *m, unsigned long start_pfn, unsigned long nr_pages) noexcept nogil:
    """Bring frames back that went offline: 0, -EINVAL if some of them did not, or -EHWPOISON if one of them is broken."""
    cdef unsigned long end_pfn = start_pfn + nr_pages, pfn
    cdef zone *z = NULL
    cdef int ret = 0
    if nr_pages == 0 or start_pfn % HPAGE_PMD_NR or end_pfn < start_pfn:
        return -EINVAL
    mutex_lock(&m.hotplug_lock)
    z = zone_of_range(m, start_pfn, end_pfn)
    if z == NULL:
        ret = -EINVAL
    else:
        for pfn in range(start_pfn, end_pfn):
            if not test_page_flag(m.mem_map + pfn, PG_offline | PG_hwpoison):
                ret = -EINVAL
                break
            if PageHWPoison(pfn_folio(m, pfn)) and m.ksm_pages_fail:
                ret = -EHWPOISON        # memory_block_online() of drivers/base/memory.c, since 6.2
    if not ret:
        undo_isolate_page_range(m, z, start_pfn, end_pfn)
        m.nr_offline -= nr_pages
    mutex_unlock(&m.hotplug_lock)
    return ret

# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/page_alloc.c of Linux 6.12, much reduced.
"""Page frames: allocating and freeing them, and the lists of free ones.

There is one zone for each node. Free frames come from four places, in this order: those freed a moment ago (`recent`, last in first out,
like the kernel's per-CPU lists), neighbours whose memory was requested at once (`claimed`), the buddy lists, and the frames that were never
used. Frames leave `recent` in batches. Their memory goes back to the operating system first, so every frame on the buddy lists, and every
unused one, reads as zeros. An allocation that wants zeros need not clear it.

The buddy lists are the kernel's: blocks of 2^order frames, split in halves on the way out, joined with their buddy on the way in.
They are linked by frame numbers inside struct page, `private` to the next and `index` to the one before; frame 0 is the zero page
and so stands for the end.
"""

from libc.errno cimport ENOMEM
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove, memset

from ksm.host.arena cimport arena_give_back, arena_give_back_page, arena_populate
from ksm.mm.vmscan cimport try_to_free_pages
from linux.atomic cimport (READ_ONCE_uint, READ_ONCE_ulong, WRITE_ONCE_uint, atomic_long_inc, atomic_set, atomic_try_cmpxchg,
                           smp_store_release_int)
from linux.bug cimport VM_BUG_ON
from linux.highmem cimport clear_highpage, has_bytes
from linux.ksm cimport ksm_page_freed
from linux.mm_types cimport HPAGE_PMD_NR, NR_PAGE_ORDERS, PAGE_SIZE, machine, struct_folio, struct_page, zone
from linux.page_flags cimport (PG_buddy, PG_file, PG_head, PG_hwpoison, PG_node_shift, PG_offline, PG_plugged, PG_reserved, PG_tail,
                               PageHWPoison, clear_page_flag, folio_set_mapping_word, folio_test_large, page_to_nid,
                               page_to_pfn, set_page_flag, test_page_flag)
from linux.slab cimport should_fail
from linux.spinlock cimport spin_lock, spin_lock_init, spin_unlock


cdef enum:
    RECENT_FRAMES = 2048        # at most so many freed frames keep their memory
    RECENT_BATCH = 1024         # so many leave `recent` at once; also the length of `plugged`
    POPULATE_FRAMES = 64        # memory is requested for so many frames at once
    POPULATE_AFTER = 64         # after so many neighbouring frames were taken one after the other
    CLAIM_AFTER = 64            # so many frames leave the buddy lists before claim_frames() is tried
    CLAIM_FRAMES = 26           # so many of 64 neighbours must be free for claim_frames(); else it is tried after CLAIM_AFTER more


cdef int zone_init(machine *m, int nid, unsigned long start_pfn, unsigned long end_pfn) noexcept nogil:
    cdef zone *z = &m.zones[nid]
    memset(z, 0, sizeof(zone))
    spin_lock_init(&z.lock)
    z.nid = nid
    z.zone_start_pfn = start_pfn
    z.fresh_pfn = start_pfn
    z.zone_end_pfn = end_pfn
    z.nr_free = end_pfn - start_pfn
    z.claim_after = CLAIM_AFTER
    z.recent = <unsigned int *>malloc(RECENT_FRAMES * sizeof(unsigned int))
    return 0 if z.recent != NULL else -ENOMEM


cdef void zone_destroy(zone *z) noexcept nogil:
    free(z.recent)
    z.recent = NULL


# Buddy lists

cdef inline unsigned int buddy_order(struct_page *page) noexcept nogil:
    return <unsigned int>(page.index >> 32)


cdef void add_to_free_list(machine *m, zone *z, unsigned long pfn, unsigned int order) noexcept nogil:
    cdef struct_page *page = m.mem_map + pfn
    cdef unsigned int old = z.free_area[order]
    set_page_flag(page, PG_buddy)
    WRITE_ONCE_uint(page.private, old)      # the look ahead may still read a page that it has seen before
    page.index = <unsigned long>order << 32
    if old:
        m.mem_map[old].index = (<unsigned long>order << 32) | pfn
    z.free_area[order] = <unsigned int>pfn


cdef void del_page_from_free_list(machine *m, zone *z, unsigned long pfn, unsigned int order) noexcept nogil:
    cdef struct_page *page = m.mem_map + pfn
    cdef unsigned int after = page.private, before = <unsigned int>(page.index & 0xffffffffU)
    if before:
        WRITE_ONCE_uint(m.mem_map[before].private, after)
    else:
        z.free_area[order] = after
    if after:
        m.mem_map[after].index = (<unsigned long>order << 32) | before
    clear_page_flag(page, PG_buddy)
    WRITE_ONCE_uint(page.private, 0)
    page.index = 0


cdef void __free_one_page(machine *m, zone *z, unsigned long pfn, unsigned int order) noexcept nogil:
    """Put a block on the buddy lists, and join it with its buddy for as long as the buddy is free too. The zone is locked, and the block's
    memory has been given back.
    """
    cdef unsigned long buddy_pfn
    cdef struct_page *buddy
    while order < NR_PAGE_ORDERS - 1:
        buddy_pfn = pfn ^ (<unsigned long>1 << order)
        if buddy_pfn < z.zone_start_pfn or buddy_pfn >= z.fresh_pfn:
            break
        buddy = m.mem_map + buddy_pfn
        if not test_page_flag(buddy, PG_buddy) or buddy_order(buddy) != order:
            break
        del_page_from_free_list(m, z, buddy_pfn, order)
        pfn &= buddy_pfn
        order += 1
    add_to_free_list(m, z, pfn, order)


cdef inline bint is_migrate_isolate(zone *z, unsigned long pfn) noexcept nogil:
    return z.isolate_start <= pfn < z.isolate_end


cdef void put_free_page(machine *m, zone *z, unsigned long pfn) noexcept nogil:
    """OURS: put a free frame on the buddy lists, or aside while its range goes offline. Its memory has been given back, and the zone is
    locked.
    """
    if is_migrate_isolate(z, pfn):
        set_page_flag(m.mem_map + pfn, PG_offline)
        z.nr_free -= 1
    else:
        __free_one_page(m, z, pfn, 0)


cdef unsigned long __rmqueue_smallest(machine *m, zone *z, unsigned int order) noexcept nogil:
    """Take the smallest block that is large enough from the buddy lists, and halve it until it fits; 0 if there is none."""
    cdef unsigned int current_order = order
    cdef unsigned long pfn
    while current_order < NR_PAGE_ORDERS and z.free_area[current_order] == 0:
        current_order += 1
    if current_order == NR_PAGE_ORDERS:
        return 0
    pfn = z.free_area[current_order]
    del_page_from_free_list(m, z, pfn, current_order)
    while current_order > order:
        current_order -= 1
        add_to_free_list(m, z, pfn + (<unsigned long>1 << current_order), current_order)
    return pfn


cdef unsigned long take_fresh(machine *m, zone *z, unsigned int order) noexcept nogil:
    """OURS: take frames that were never used. A large machine costs no memory before it is used."""
    cdef unsigned long size = <unsigned long>1 << order
    cdef unsigned long pfn = (z.fresh_pfn + size - 1) & ~(size - 1), skipped = z.fresh_pfn
    while pfn < z.zone_end_pfn and test_page_flag(m.mem_map + pfn, PG_offline):
        pfn = (pfn + HPAGE_PMD_NR) & ~(<unsigned long>HPAGE_PMD_NR - 1)     # the huge page went offline before it was used
    if pfn + size > z.zone_end_pfn:
        return 0
    z.fresh_pfn = pfn + size
    while skipped < pfn:
        if not test_page_flag(m.mem_map + skipped, PG_offline):
            WRITE_ONCE_uint(m.mem_map[skipped].flags, <unsigned int>z.nid << PG_node_shift)
            m.mem_map[skipped]._mapcount = -1
            __free_one_page(m, z, skipped, 0)
        skipped += 1
    return pfn


cdef bint all_free(machine *m, zone *z, unsigned long pfn, unsigned long last) noexcept nogil:
    """OURS: whether these frames are all on the buddy lists, or were never used. The zone is locked."""
    cdef unsigned long head
    cdef unsigned int order
    cdef bint unused = z.zone_start_pfn <= pfn and last < z.zone_end_pfn
    while unused and pfn <= last and pfn < z.fresh_pfn:
        unused = False
        for order in range(NR_PAGE_ORDERS):
            head = pfn & ~((<unsigned long>1 << order) - 1)
            if test_page_flag(m.mem_map + head, PG_buddy) and buddy_order(m.mem_map + head) == order:
                unused = True
                pfn = head + (<unsigned long>1 << order)
                break
    return unused


cdef void give_back_shared(machine *m, zone *z, const unsigned int *pfns, unsigned int count) noexcept nogil:
    """OURS: where many frames share a page of the system, give back each page in which these were the last in use. The zone is locked."""
    cdef unsigned long start, number, end, done = ~<unsigned long>0
    cdef unsigned int i
    for i in range(count):
        start = <unsigned long>pfns[i] * m.frame_size
        end = (start + m.frame_size - 1) // PAGE_SIZE
        for number in range(start // PAGE_SIZE, end + 1):
            if number != done and all_free(m, z, number * PAGE_SIZE // m.frame_size, ((number + 1) * PAGE_SIZE - 1) // m.frame_size):
                arena_give_back_page(m, number)
            done = number


cdef void release(machine *m, zone *z, unsigned int *pfns, unsigned int count) noexcept nogil:
    """OURS: give the memory of free frames back, then put them on the buddy lists. The zone is not locked."""
    cdef unsigned int i
    arena_give_back(m, pfns, count)
    spin_lock(&z.lock)
    for i in range(count):
        put_free_page(m, z, pfns[i])
    if not has_bytes(m):
        give_back_shared(m, z, pfns, count)
    z.from_lists = 0
    z.claim_after = CLAIM_AFTER
    spin_unlock(&z.lock)


cdef void release_recent(machine *m, zone *z, unsigned int count) noexcept nogil:
    """OURS: move the frames of `recent` that were freed first to the buddy lists."""
    cdef unsigned int pfns[RECENT_BATCH]
    spin_lock(&z.lock)
    if count > z.nr_recent:
        count = z.nr_recent
    memcpy(pfns, z.recent, count * sizeof(unsigned int))
    z.nr_recent -= count
    memmove(z.recent, z.recent + count, z.nr_recent * sizeof(unsigned int))
    spin_unlock(&z.lock)
    release(m, z, pfns, count)


cdef void release_claimed(machine *m, zone *z) noexcept nogil:
    """OURS: move the frames of `claimed` back to the buddy lists."""
    cdef unsigned int pfns[POPULATE_FRAMES]
    cdef unsigned int count
    spin_lock(&z.lock)
    count = z.nr_claimed
    memcpy(pfns, z.claimed, count * sizeof(unsigned int))
    z.nr_claimed = 0
    spin_unlock(&z.lock)
    release(m, z, pfns, count)


cdef void release_plugged(machine *m) noexcept nogil:
    """OURS: give back the memory of free frames that were plugged in. Their range counts as unused only after that."""
    cdef unsigned int pfns[RECENT_BATCH]
    cdef unsigned int count, i
    spin_lock(&m.plugged_lock)
    count = m.nr_plugged
    memcpy(pfns, m.plugged, count * sizeof(unsigned int))
    m.nr_plugged = 0
    spin_unlock(&m.plugged_lock)
    arena_give_back(m, pfns, count)
    for i in range(count):
        set_page_flag(m.mem_map + pfns[i], PG_offline)


cdef void drain_all_pages(machine *m) noexcept nogil:
    """Give back the memory of all free frames on all nodes. Afterwards the program's process is as small as the memory in use."""
    cdef int nid
    for nid in range(m.nr_node_ids):
        while nr_recent(&m.zones[nid]):
            release_recent(m, &m.zones[nid], RECENT_BATCH)
        release_claimed(m, &m.zones[nid])
    release_plugged(m)


cdef inline unsigned int nr_recent(zone *z) noexcept nogil:
    cdef unsigned int nr
    spin_lock(&z.lock)
    nr = z.nr_recent
    spin_unlock(&z.lock)
    return nr


# Freeing

cdef enum:
    KEPT_FLAGS = 0xff000000U | PG_plugged | PG_file | PG_reserved | PG_hwpoison


cdef bint free_pages_prepare(struct_page *page) noexcept nogil:
    """Reset a frame that is being freed. The mapping word has to be cleared above all: a stable node must never take the next user's page
    for its own.

    False when the frame must not be handed out again, because it belongs to an image or is broken. A frame of a mapped file is put aside at
    once: it has no memory of its own, unless a process has written to it.
    """
    cdef unsigned int flags = READ_ONCE_uint(page.flags)
    VM_BUG_ON(page._mapcount != -1)
    folio_set_mapping_word(<struct_folio *>page, NULL)
    page.index = 0
    WRITE_ONCE_uint(page.private, 0)
    while not atomic_try_cmpxchg(<int *>&page.flags, <int>flags, <int>(flags & KEPT_FLAGS | (PG_offline if flags & PG_file else 0))):
        flags = READ_ONCE_uint(page.flags)
    return not test_page_flag(page, PG_plugged | PG_reserved | PG_hwpoison)


cdef void free_one_page(machine *m, zone *z, unsigned long pfn, unsigned int order) noexcept nogil:
    """Move a frame, or the frames of a block, to `recent`."""
    cdef unsigned long i
    cdef unsigned int frame
    cdef bint full, isolated
    for i in range(<unsigned long>1 << order):
        frame = <unsigned int>(pfn + i)
        spin_lock(&z.lock)
        while z.nr_recent == RECENT_FRAMES:     # another thread has filled it, and is about to make room
            spin_unlock(&z.lock)
            release_recent(m, z, RECENT_BATCH)
            spin_lock(&z.lock)
        z.nr_free += 1
        isolated = is_migrate_isolate(z, frame)
        if not isolated:
            z.recent[z.nr_recent] = frame
            z.nr_recent += 1
        full = z.nr_recent == RECENT_FRAMES
        spin_unlock(&z.lock)
        if isolated:
            arena_give_back(m, &frame, 1)
            spin_lock(&z.lock)
            put_free_page(m, z, frame)
            spin_unlock(&z.lock)
        if full:
            release_recent(m, z, RECENT_BATCH)


cdef void free_plugged_page(machine *m, struct_page *page) noexcept nogil:
    """OURS: free a frame that was plugged in and has memory of its own."""
    cdef bint full = True
    while full:                 # another thread has filled it, and is about to make room
        spin_lock(&m.plugged_lock)
        full = m.nr_plugged == RECENT_BATCH
        if not full:
            m.plugged[m.nr_plugged] = <unsigned int>page_to_pfn(m, page)
            m.nr_plugged += 1
        spin_unlock(&m.plugged_lock)
        if full:
            release_plugged(m)


cdef void __folio_put(machine *m, struct_folio *folio) noexcept nogil:
    """Free a page whose last reference is gone."""
    cdef unsigned int order = 0
    cdef unsigned long i, nr = 1
    cdef bint ours = True
    ksm_page_freed(m, folio)        # OURS
    if folio_test_large(folio):
        nr = HPAGE_PMD_NR
        order = NR_PAGE_ORDERS - 1
    for i in range(nr):
        ours = free_pages_prepare(folio + i)
        folio[i]._mapcount = -1
    if ours:
        free_one_page(m, &m.zones[page_to_nid(folio)], page_to_pfn(m, folio), order)
    elif PageHWPoison(folio):
        atomic_long_inc(&m.num_poisoned_pages)
    elif test_page_flag(folio, PG_plugged) and not test_page_flag(folio, PG_file):
        free_plugged_page(m, folio)


# Allocating

cdef void prep_new_page(struct_page *page, int nid, unsigned int extra_flags) noexcept nogil:
    # A stable node may still read the frame. Each field that it can read is written in one piece, and the count last.
    WRITE_ONCE_uint(page.flags, (<unsigned int>nid << PG_node_shift) | extra_flags)
    page._mapcount = -1
    folio_set_mapping_word(<struct_folio *>page, NULL)
    page.index = 0
    WRITE_ONCE_uint(page.private, 0)
    smp_store_release_int(page._refcount, 1)


cdef void prep_compound_page(struct_page *page, int nid) noexcept nogil:
    cdef unsigned long i
    for i in range(1, HPAGE_PMD_NR):
        prep_new_page(page + i, nid, PG_tail)
        atomic_set(&page[i]._refcount, 0)
    set_page_flag(page, PG_head)


cdef unsigned long frames_to_populate(zone *z, unsigned long pfn) noexcept nogil:
    """OURS: the number of frames, from the one just taken, for which memory is requested at once. It is 0 until many frames were taken one
    after the other.

    The zone is locked.
    """
    cdef unsigned long until = (pfn + POPULATE_FRAMES) & ~(<unsigned long>POPULATE_FRAMES - 1)
    z.in_a_row = z.in_a_row + 1 if pfn == z.last_pfn + 1 else 0
    z.last_pfn = pfn
    if z.in_a_row < POPULATE_AFTER or pfn < z.populated_pfn and pfn + POPULATE_FRAMES >= z.populated_pfn:
        return 0
    if until > z.zone_end_pfn:
        until = z.zone_end_pfn
    z.populated_pfn = until
    return until - pfn


cdef bint claim_frames(machine *m, zone *z, unsigned long pfn) noexcept nogil:
    """OURS: move the free frames around this one from the buddy lists to `claimed`, if there are many. The zone is locked.

    Merging leaves holes of a few free frames between used ones, and the lists hand frames out by their order, not by their place.
    Requesting memory for all of them at once is cheaper than one fault of the operating system for each.
    """
    cdef unsigned long start = pfn & ~(<unsigned long>POPULATE_FRAMES - 1), end = start + POPULATE_FRAMES, i = start, size
    cdef unsigned int nr = 0
    if start < z.zone_start_pfn or end > z.fresh_pfn:
        return False
    while i < end:
        size = 1
        if test_page_flag(m.mem_map + i, PG_buddy):
            size <<= buddy_order(m.mem_map + i)
            nr += <unsigned int>size
        i += size
    if nr < CLAIM_FRAMES or i > end:
        return False        # a block of more than 64 frames: in_a_row will show it
    i = start
    while i < end:
        size = 1
        if test_page_flag(m.mem_map + i, PG_buddy):
            size <<= buddy_order(m.mem_map + i)
            del_page_from_free_list(m, z, i, buddy_order(m.mem_map + i))
            z.nr_claimed += <unsigned int>size
            for pfn in range(i, i + size):
                nr -= 1
                z.claimed[nr] = <unsigned int>pfn
        i += size
    return True


cdef struct_page *rmqueue(machine *m, zone *z, unsigned int order, bint zero) noexcept nogil:
    cdef unsigned long pfn = 0, populate = 0
    cdef bint zeroed = True, has_memory = False, claimed = False
    spin_lock(&z.lock)
    if order == 0 and z.nr_recent:
        z.nr_recent -= 1
        pfn = z.recent[z.nr_recent]
        zeroed = False
        has_memory = True
    elif order == 0 and z.nr_claimed:
        z.nr_claimed -= 1
        pfn = z.claimed[z.nr_claimed]
        has_memory = True
    if pfn == 0:
        pfn = __rmqueue_smallest(m, z, order)
        if pfn and order == 0:
            z.from_lists += 1
            if z.from_lists > z.claim_after:
                claimed = has_memory = claim_frames(m, z, pfn)
                if not claimed:
                    z.claim_after = z.from_lists + CLAIM_AFTER
    if pfn == 0:
        pfn = take_fresh(m, z, order)
    if pfn:
        z.nr_free -= <unsigned long>1 << order
    if order == 0 and not has_memory:
        populate = frames_to_populate(z, pfn)
    spin_unlock(&z.lock)
    if pfn == 0:
        return NULL
    if claimed:
        arena_populate(m, pfn & ~(<unsigned long>POPULATE_FRAMES - 1), POPULATE_FRAMES)
    elif populate:
        arena_populate(m, pfn, populate)
    prep_new_page(m.mem_map + pfn, z.nid, 0)
    if order:
        prep_compound_page(m.mem_map + pfn, z.nid)
    if zero and not zeroed:
        clear_highpage(m, m.mem_map + pfn)
    return m.mem_map + pfn


cdef struct_page *__alloc_pages(machine *m, int preferred_nid, unsigned long nodemask, unsigned int order, bint zero) noexcept nogil:
    """A frame (or a huge page, order 9) with one reference, from the preferred node if it has one, else from another node in the mask; else
    NULL.
    """
    cdef struct_page *page = NULL
    cdef int i, nid
    cdef bint fail = False, again = True
    if m.fail_page_alloc.nth:
        spin_lock(&m.zones[preferred_nid].lock)
        fail = should_fail(&m.fail_page_alloc)
        spin_unlock(&m.zones[preferred_nid].lock)
    if fail:
        return NULL
    while True:
        for i in range(m.nr_node_ids):
            nid = (preferred_nid + i) % m.nr_node_ids
            if nodemask >> nid & 1:
                page = rmqueue(m, &m.zones[nid], order, zero)
                if page != NULL:
                    return page
        # Try again if some pages could be freed. No caller holds a lock that try_to_free_pages() takes.
        if not again or order or not try_to_free_pages(m):
            return NULL
        again = False


cdef struct_page *alloc_pages_node(machine *m, int nid, unsigned int order, bint zero) noexcept nogil:
    """The same from any node, from this node if it has a free frame; NULL when memory is full."""
    return __alloc_pages(m, nid, ~(<unsigned long>0), order, zero)


# Frames that go offline (mm/page_isolation.c)

cdef void start_isolate_page_range(machine *m, zone *z, unsigned long start_pfn, unsigned long end_pfn) noexcept nogil:
    """Hand out no frame of the range from now on. Free frames get PG_offline now, the others when they are freed.

    The range consists of whole blocks of the highest order, so each free block is either in it or outside. There is one such range at a
    time.
    """
    cdef unsigned long pfn, i
    cdef unsigned int order
    cdef struct_page *page
    spin_lock(&z.lock)
    while z.nr_claimed:
        z.nr_claimed -= 1
        __free_one_page(m, z, z.claimed[z.nr_claimed], 0)
    z.isolate_start = start_pfn
    z.isolate_end = end_pfn
    pfn = start_pfn
    while pfn < end_pfn:
        page = m.mem_map + pfn
        if pfn >= z.fresh_pfn:
            if not test_page_flag(page, PG_offline):
                # take_fresh() will pass it over
                WRITE_ONCE_uint(page.flags, (<unsigned int>z.nid << PG_node_shift) | PG_offline)
                page._mapcount = -1
                z.nr_free -= 1
            pfn += 1
        elif test_page_flag(page, PG_buddy):
            order = buddy_order(page)
            del_page_from_free_list(m, z, pfn, order)
            for i in range(<unsigned long>1 << order):
                put_free_page(m, z, pfn + i)
            pfn += <unsigned long>1 << order
        else:
            pfn += 1
    spin_unlock(&z.lock)
    # No frame of the range is on the buddy lists. Those in `recent` are still handed out, and come back.
    while nr_recent(z):
        release_recent(m, z, RECENT_BATCH)


cdef void undo_isolate_page_range(machine *m, zone *z, unsigned long start_pfn, unsigned long end_pfn) noexcept nogil:
    """Take back start_isolate_page_range(): the range stays online."""
    cdef unsigned long pfn
    spin_lock(&z.lock)
    z.isolate_start = 0
    z.isolate_end = 0
    for pfn in range(start_pfn, end_pfn):
        if test_page_flag(m.mem_map + pfn, PG_offline):
            clear_page_flag(m.mem_map + pfn, PG_offline)
            z.nr_free += 1
            if pfn < z.fresh_pfn:
                __free_one_page(m, z, pfn, 0)
    spin_unlock(&z.lock)


cdef unsigned long nr_free_pages(machine *m) noexcept nogil:
    """Free frames of all nodes."""
    cdef unsigned long total = 0
    cdef int nid
    for nid in range(m.nr_node_ids):
        total += READ_ONCE_ulong(m.zones[nid].nr_free)
    return total

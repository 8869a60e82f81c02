# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/ksm.c of Linux 6.12.
#
# Copyright (C) 2008-2009 Red Hat, Inc.
# Authors of mm/ksm.c: Izik Eidus, Andrea Arcangeli, Chris Wright, Hugh Dickins
"""Kernel samepage merging: find pages with equal contents, anywhere, and let one frame serve them all.

A scanner walks the registered memory of every process, page by page, pass after pass. To find the equal of a page among millions it
keeps pages in two red-black trees, ordered by their bytes.

The stable tree has the merged pages. Nobody can write to them any more, so their order holds, and a search in it can be trusted. A node
also lists the mappings of its page: one rmap_item for each place. Reclaim and migration have to visit the whole list. So that it stays
short, a page takes ksm_max_page_sharing sharers at most. After that a second page with the same contents joins the tree. The node becomes a
"chain": it takes one place in the tree, and the pages of equal contents, its "dups", hang below it. Nodes, dups and chains are all struct
ksm_stable_node.

The unstable tree has pages that their owners may still write to. A write can leave a page in the wrong place. Five things keep this
harmless. Only pages whose checksum has not moved since the last pass get in. The tree balances itself by its colours, never by what it
holds, so it stays shallow even when the order is lost. A search that takes a wrong turn costs one merge, which the next pass may find. Two
pages are write-protected and compared in full before they become one. The whole tree is dropped at the start of every pass.

Each new page is first looked up in the stable tree and then in the unstable one. So a page that was merged once is found again in every
later pass. With merge_across_nodes off there is one pair of trees for each NUMA node.

A machine can also run other code: that of 2011 (Linux 2.6.38), which the older texts on KSM describe, that of Linux 6.1, and that of 7.3.
Where 2011 differs, the function asks era_2011(g). Where both older ones differ, it asks until_6_1(g), and for 7.3 since_7_3(g). A comment
at the branch says what the other code does. The differences are small and have large effects. Both older ones search the stable tree before
they look at the checksum, and skip no page. 6.1 does not count its zero pages. 2011 has none, has no limit to sharing and so no chains, and
uses jhash2 in place of xxhash. In 7.3, the item of a merged page forgets its checksum and age.

How to read it beside mm/ksm.c: the order and the names are the kernel's. The kernel's file-level variables are the fields of struct
ksm_globals, always called g, one for each machine; g.m is the machine. Types and layouts stand in ksm.pxd. Where a goto became something
else, a comment names the kernel's label. A helper whose comment begins with "Part of" is a piece of the function that the comment names.
What the kernel does not have is marked "OURS:" with the reason. A mark at the end of a line covers the line and the block below it; a mark
above a line covers that line alone. "Not here:" names what is missing. A call of ksm_step() is ours too: it tells a recording, if there is
one, what was decided here. All other statements are the kernel's: `ksm study --same` compares them, and tests/mm/test_same_code.py fails on
every other one.
"""

from libc.errno cimport EBUSY, EFAULT, EINVAL, ENOMEM
from libc.limits cimport INT_MAX, ULONG_MAX
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from linux.atomic cimport (READ_ONCE_int, READ_ONCE_ptr, READ_ONCE_uint, READ_ONCE_ulong, WRITE_ONCE_int,
                           WRITE_ONCE_uint, WRITE_ONCE_ulong, atomic_long_read, atomic_read, clear_bit, cpu_relax, set_bit, smp_mb,
                           smp_rmb, smp_wmb, test_bit)
from linux.bug cimport BUG_ON, VM_BUG_ON, WARN_ON_ONCE
from linux.err cimport EHWPOISON, ERESTARTSYS, ERR_PTR, PTR_ERR
from linux.freezer cimport freezing, start_slice
from linux.hashtable cimport hash_del, hash_init
from linux.highmem cimport copy_highpage
from linux.jhash cimport jhash2
from linux.jiffies cimport MSEC_PER_SEC, NSEC_PER_MSEC, jiffies, ktime_get, ktime_ms_delta, msecs_to_jiffies, time_before
from linux.kstrtox cimport kstrtobool, kstrtoint, kstrtouint, kstrtoul, sysfs_emit, sysfs_streq
from linux.ksm cimport is_ksm_zero_pte, ksm_map_zero_page, mm_ksm_zero_pages
from linux.list cimport (INIT_HLIST_HEAD, INIT_LIST_HEAD, hlist_add_head, hlist_del, hlist_empty, hlist_is_singular_node, list_add,
                         list_add_tail, list_del, list_empty, list_move)
from linux.memory cimport MEM_CANCEL_OFFLINE, MEM_GOING_OFFLINE, MEM_OFFLINE, NOTIFY_OK, struct_memory_notify
from linux.mm cimport (FAULT_FLAG_REMOTE, FAULT_FLAG_UNSHARE, FAULT_FLAG_WRITE, VM_DONTEXPAND, VM_DROPPABLE, VM_FAULT_OOM, VM_FAULT_SIGBUS,
                       VM_FAULT_SIGSEGV, VM_HUGETLB, VM_IO, VM_MAYSHARE, VM_MERGEABLE, VM_MIXEDMAP, VM_PFNMAP, VM_SHARED,
                       count_vm_event, dec_mm_counter, linear_page_index, mm_tlb_flush_pending, mmu_notifier_invalidate_range_end,
                       mmu_notifier_invalidate_range_start, signal_pending, vm_flags_clear, vm_flags_set, vm_normal_page,
                       vm_normal_page_pmd, vma_is_dax, vma_iter_init, vma_iterator, vma_lookup, vma_next, vma_pages)
from linux.mm_types cimport (KSM_SWPIN_COPY, MMF_VM_MERGEABLE, MMF_VM_MERGE_ANY, MM_ANONPAGES, NUMA_NO_NODE, PAGE_SHIFT, PAGE_SIZE,
                             PMD_SIZE, anon_vma_chain, ksm_operations, machine, mm_struct, page_mask, pmd_t, pte_t, struct_anon_vma,
                             struct_folio, struct_page, to_kill_list, vm_area_struct, vm_fault_t, vm_flags_t)
from linux.mman cimport MADV_MERGEABLE, MADV_UNMERGEABLE
from linux.mmap_lock cimport (mmap_is_write_locked, mmap_read_lock, mmap_read_unlock, mmap_write_lock, mmap_write_unlock, mmgrab,
                              vma_start_write)
from linux.page_flags cimport (PAGE_MAPPING_KSM, PG_ksm_relatives, ClearPageAnonExclusive, PageAnon, PageAnonExclusive,
                               PageDirty, PageHWPoison, PageKsm, PageTransCompound, SetPageDirty, __folio_mark_uptodate, __folio_set_locked,
                               compound_head, folio_anon_vma, folio_mapping_word, folio_set_mapping_word,
                               folio_get, folio_is_zone_device, folio_lock, folio_mapcount, folio_mapped, folio_mark_dirty,
                               folio_page, folio_pfn, folio_raw_mapping, folio_ref_count, folio_set_dirty, folio_test_anon,
                               folio_test_ksm, folio_test_large, folio_test_locked, folio_test_swapcache, folio_test_uptodate,
                               folio_try_get, folio_trylock, folio_unlock, lock_page, page_address, page_folio, page_to_nid,
                               page_to_pfn, pfn_folio, pfn_to_page, set_page_flag, trylock_page, unlock_page)
from linux.pagewalk cimport FW_MIGRATION, FW_ZEROPAGE, PGWALK_RDLOCK, folio_walk, folio_walk_end, mm_walk, mm_walk_ops
from linux.pgtable cimport (ZERO_PAGE, __pte, flush_anon_page, flush_cache_page, flush_dcache_page, is_zero_pfn, mk_pte,
                            mm_find_pmd, pfn_pte, pmd_leaf, pmd_lock, pmd_present, pmd_trans_huge, pmdp_get,
                            pmdp_get_lockless, pte_dirty, pte_mkclean, pte_mkdirty, pte_mkspecial, pte_offset_map_lock, pte_pfn,
                            pte_present, pte_same, pte_unmap, pte_unmap_unlock, pte_write, pte_wrprotect, ptep_clear_flush, ptep_get,
                            set_pte_at)
from linux.rbtree cimport rb_link_node, rb_node, rb_root
from linux.rmap cimport (RMAP_NONE, anon_vma_lock_read, anon_vma_trylock_read, anon_vma_unlock_read, folio_try_share_anon_rmap_pte,
                         get_anon_vma, rmap_walk_control, vma_has_anon_vma)
from linux.spinlock cimport mutex_destroy, mutex_init, mutex_lock, mutex_unlock, spin_lock, spin_lock_init, spin_unlock, spinlock_t
from linux.types cimport hlist_node, list_head, u32
from linux.wait cimport (CLOCK_MONOTONIC, CLOCK_THREAD_CPUTIME_ID, clock_gettime, destroy_waitqueue_head,
                         init_waitqueue_head, prepare_to_wait,
                         pthread_create, pthread_join, timespec, wait_for_wakeup, wait_for_wakeup_timeout, wake_up_interruptible)
from trace.events.ksm cimport (trace_ksm_advisor, trace_ksm_enter, trace_ksm_exit, trace_ksm_merge_one_page,
                               trace_ksm_merge_with_ksm_page, trace_ksm_remove_ksm_page, trace_ksm_remove_rmap_item,
                               trace_ksm_start_scan, trace_ksm_stop_scan)

from ksm.fast.seams cimport known_checksum, passes_over, scan_ahead, stable_tree_descend, unstable_tree_descend
from ksm.kernel.fork cimport mmdrop
from ksm.lib.rbtree cimport rb_erase, rb_first, rb_insert_color, rb_next, rb_replace_node
from ksm.lib.xxhash cimport xxhash
from ksm.mm.huge_memory cimport split_huge_page, split_huge_page_of_two
from ksm.mm.interval_tree cimport anon_vma_interval_tree_iter_first, anon_vma_interval_tree_iter_next
from ksm.mm.memory cimport handle_mm_fault
from ksm.mm.memory_failure cimport add_to_kill_ksm
from ksm.mm.mm_slot cimport mm_slot_alloc, mm_slot_free, mm_slot_insert, mm_slot_lookup, struct_mm_slot
from ksm.mm.page_alloc cimport alloc_pages_node, folio_put, put_page
from ksm.mm.page_vma_mapped cimport DEFINE_FOLIO_VMA_WALK, page_vma_mapped_walk, page_vma_mapped_walk_control, page_vma_mapped_walk_done
from ksm.mm.pagewalk cimport folio_walk_start, walk_page_range_vma
from ksm.mm.rmap cimport folio_add_anon_rmap_pte, folio_remove_rmap_pte, page_address_in_vma, put_anon_vma
from ksm.mm.slub cimport kmem_cache_alloc, kmem_cache_create, kmem_cache_destroy, kmem_cache_free, kmem_cache_zalloc
from ksm.mm.swap cimport lru_add_drain_all, mark_page_accessed
from ksm.mm.swapfile cimport folio_free_swap
from ksm.mm.util cimport memcmp_pages, pages_identical
from ksm.step cimport (STABLE_SEARCHED, STEP_APPENDED, STEP_AT_ITS_NODE, STEP_BECAME_KSM, STEP_BREAK_COW, STEP_BREAK_KSM, STEP_CHAIN_MADE,
                       STEP_CHANGED, STEP_DIFFERS, STEP_DUP_ADDED, STEP_FORKED, STEP_LEFT_STABLE, STEP_LEFT_UNSTABLE, STEP_MERGED,
                       STEP_NODE_MOVED, STEP_NODE_STALE, STEP_NOT_PROTECTED, STEP_PASS_BEGINS, STEP_REPLACED, STEP_SKIPPED,
                       STEP_STABLE_FULL, STEP_STABLE_INSERTED, STEP_TWO_MERGED, STEP_UNCHANGED, STEP_WRITE_PROTECTED, STEP_ZERO_MERGED,
                       UNSTABLE_SEARCHED, ksm_step)


# Built as with CONFIG_NUMA, CONFIG_SYSFS, CONFIG_MIGRATION, CONFIG_MEMORY_HOTREMOVE and CONFIG_MEMORY_FAILURE: a machine with one node
# is a NUMA machine with one node. NUMA(x) is x, and DO_NUMA(x) does x.

# typedef rmap_age_t: ksm.pxd

# struct ksm_mm_slot: KSM's data of one address space. It has an mm_slot, and the first of its rmap_items, which are a list in the order of
# their addresses.
#
# struct ksm_scan: the cursor; a machine has one. mm_slot and address are where the scan stands. rmap_list is the link that holds the next
# rmap_item, or that gets a new one. seqnr counts the completed passes.
#
# struct ksm_stable_node: a merged page, or a chain of merged pages. A node is in one of four places. A node in a stable tree is linked by
# node. A dup in a chain has STABLE_NODE_DUP_HEAD as its head and is linked by hlist_dup. A node whose page has moved to another NUMA node
# has &migrate_nodes as its head and is linked by list. A chain is in the tree itself, has STABLE_NODE_CHAIN as its rmap_hlist_len and its
# dups in hlist. head lies over the tree node's word of parent and colour. That word never equals one of the two special addresses, because
# no tree node is at either. hlist has the rmap_items, and rmap_hlist_len is their number. kpfn is the page's frame. nid is the tree that
# holds the node, whatever NUMA node the frame is on.
#
# struct ksm_rmap_item: one page of one address space. oldchecksum is the checksum of the last visit. age and remaining_skips belong to
# smart scan. The low bits of address say where the item is. An item in the unstable tree is linked by node, and nid is its tree. An item at
# a stable node has that node as its head, is linked by hlist, and has a reference on anon_vma. nid and anon_vma share a word; node and head
# do too.
#
# SEQNR_MASK, UNSTABLE_FLAG, STABLE_FLAG: the low bits of an rmap_item's address. SEQNR_MASK covers the pass in which the item went into the
# unstable tree. UNSTABLE_FLAG says that it went there, STABLE_FLAG that it is at a stable node. All are below PAGE_SIZE.


cdef inline list_head *STABLE_NODE_DUP_HEAD(ksm_globals *g) noexcept nogil:
    # An address inside migrate_nodes. No member of a list or of a tree has this address.
    return <list_head *>&g.migrate_nodes.prev


cdef void ksm_globals_init(ksm_globals *g, machine *m, int era) noexcept nogil:
    # OURS: the initial values of the file-level variables. Everything else is zero.
    cdef bint y2011 = era == ERA_2_6_38
    g.m = m
    g.era = era
    g.root_stable_tree = g.one_stable_tree          # one root until merge_across_nodes is first switched off
    g.root_unstable_tree = g.one_unstable_tree
    INIT_LIST_HEAD(&g.migrate_nodes)                # stable nodes whose page has moved to another NUMA node
    hash_init(g.mm_slots_hash, MM_SLOTS_HASH_BITS)  # from an mm to its slot
    INIT_LIST_HEAD(&g.ksm_mm_head.slot.mm_node)     # all slots, in the order in which they are scanned
    g.ksm_scan.mm_slot = &g.ksm_mm_head             # the cursor is at the head between two passes
    # ksm_pages_scanned: calls of cmp_and_merge_page()
    # ksm_pages_shared: stable nodes with at least one rmap_item
    # ksm_pages_sharing: rmap_items beyond the first of each stable node; the number of frames saved
    # ksm_pages_unshared: rmap_items in the unstable tree, of this pass or left from the last one
    # ksm_rmap_items: all rmap_items; those in neither tree are volatile
    # ksm_stable_node_chains, ksm_stable_node_dups: chains, and the nodes in them
    g.ksm_stable_node_chains_prune_millisecs = 2000     # how long a chain may keep dups whose page is gone
    g.ksm_max_page_sharing = INT_MAX if y2011 else 256      # largest number of mappings of one merged page
    g.ksm_thread_pages_to_scan = DEFAULT_PAGES_TO_SCAN  # in one batch
    g.ksm_thread_sleep_millisecs = 20               # between two batches
    # zero_checksum: the checksum of a page of zeros; ksm_init() computes it
    # ksm_use_zero_pages: let pages of zeros share the machine's zero page
    g.ksm_smart_scan = era > ERA_6_1                # scan pages that never merged less often
    # ksm_zero_pages: a field of struct machine, because page faults and unmapping change it
    # ksm_pages_skipped: pages that smart scan skipped
    g.ksm_advisor_max_pages_to_scan = 30000         # the advisor chooses at most this number of pages
    g.ksm_advisor_max_cpu = 70                      # the advisor uses at most this share of a processor, in percent
    g.ksm_advisor_target_scan_time = 200            # the advisor's aim for one pass, in seconds
    g.ksm_advisor_min_pages_to_scan = 500           # the advisor begins with this number of pages
    # struct advisor_ctx: start of this pass, duration of the last pass, averaged factor, ksmd's processor time
    g.ksm_merge_across_nodes = 1                    # 0: a page merges only with pages of its own NUMA node
    g.ksm_nr_node_ids = 1                           # number of roots of each kind in use
    init_waitqueue_head(&g.ksm_thread_wait)         # ksmd waits here while there is nothing to do
    init_waitqueue_head(&g.ksm_iter_wait)           # ksmd waits here between two batches
    init_waitqueue_head(&g.offline_wait)
    mutex_init(&g.ksm_thread_mutex)                 # held during a batch, and while the trees are taken apart
    spin_lock_init(&g.ksm_mmlist_lock)              # guards the list and the hash of slots, and the cursor's slot
    spin_lock_init(&g.trace.lock)


cdef inline bint era_2011(ksm_globals *g) noexcept nogil:
    # OURS: whether the machine runs the KSM of Linux 2.6.38.
    return g.era == ERA_2_6_38


cdef inline bint until_6_1(ksm_globals *g) noexcept nogil:
    # OURS: whether the machine runs the KSM of Linux 6.1, or that of 2.6.38.
    return g.era <= ERA_6_1


cdef inline bint since_7_3(ksm_globals *g) noexcept nogil:
    # OURS: whether the machine runs the KSM of Linux 7.3.
    return g.era >= ERA_7_3


cdef inline ksm_globals *globals_of(mm_struct *mm) noexcept nogil:
    # OURS: each machine has its own globals.
    return <ksm_globals *>mm.machine.ksm


cdef inline void cond_resched() noexcept nogil:
    # OURS: a thread of a program is preempted without being asked.
    pass


cdef void set_advisor_defaults(ksm_globals *g) noexcept nogil:
    if g.ksm_advisor == KSM_ADVISOR_NONE:
        g.ksm_thread_pages_to_scan = DEFAULT_PAGES_TO_SCAN
    elif g.ksm_advisor == KSM_ADVISOR_SCAN_TIME:
        memset(&g.advisor_ctx, 0, sizeof(struct_advisor_ctx))
        g.ksm_thread_pages_to_scan = <unsigned int>g.ksm_advisor_min_pages_to_scan


cdef inline void advisor_start_scan(ksm_globals *g) noexcept nogil:
    if g.ksm_advisor == KSM_ADVISOR_SCAN_TIME:
        g.advisor_ctx.start_scan = ktime_get(g.m)


cdef inline unsigned long prev_scan_time(struct_advisor_ctx *ctx, unsigned long scan_time) noexcept nogil:
    """The duration of the last pass in seconds. The first pass has no last one and compares with itself."""
    return ctx.scan_time if ctx.scan_time else scan_time


cdef unsigned long ewma(unsigned long prev, unsigned long curr) noexcept nogil:
    """A moving average in which the newest value counts for EWMA_WEIGHT percent."""
    return ((100 - EWMA_WEIGHT) * prev + EWMA_WEIGHT * curr) // 100


cdef unsigned long long task_sched_runtime(ksm_globals *g) noexcept nogil:
    # OURS: the kernel asks the scheduler. Here any thread may scan, so the processor time is added up batch by batch. With a manual clock
    # the caller says how much time scanning has taken.
    cdef timespec ts
    if g.m.manual_clock or g.ksmd_slice == 0:
        return g.ksmd_runtime
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts)
    return g.ksmd_runtime + <unsigned long long>ts.tv_sec * 1000000000 + <unsigned long long>ts.tv_nsec - g.ksmd_slice


cdef void scan_time_advisor(ksm_globals *g) noexcept nogil:
    """At the end of a pass, choose pages_to_scan so that the next one takes ksm_advisor_target_scan_time.

    The rate is scaled by scan time over target. It is scaled again by a smoothed factor of how the scan time has changed, so that it does
    not swing. Then come the limits: what this pass's share of a processor says the largest and the smallest share would allow, and the
    largest number of pages. The arithmetic is in unsigned integers and truncates as the kernel's does.
    """
    cdef unsigned int cpu_percent
    cdef unsigned long cpu_time, cpu_time_diff, cpu_time_diff_ms
    cdef unsigned long pages, per_page_cost, factor, change, last_scan_time, scan_time

    # The scan time in seconds
    scan_time = <unsigned long>(ktime_ms_delta(ktime_get(g.m), g.advisor_ctx.start_scan) // MSEC_PER_SEC)
    scan_time = scan_time if scan_time else 1

    # The processor time of this pass
    cpu_time = task_sched_runtime(g)
    cpu_time_diff = cpu_time - g.advisor_ctx.cpu_time
    cpu_time_diff_ms = cpu_time_diff // 1000 // 1000

    cpu_percent = <unsigned int>((cpu_time_diff_ms * 100) // (scan_time * 1000))
    cpu_percent = cpu_percent if cpu_percent else 1
    last_scan_time = prev_scan_time(&g.advisor_ctx, scan_time)

    # The target in percent of the scan time
    factor = g.ksm_advisor_target_scan_time * 100 // scan_time
    factor = factor if factor else 1

    # The scan time in percent of the last pass's, smoothed
    change = scan_time * 100 // last_scan_time
    change = change if change else 1
    change = ewma(g.advisor_ctx.change, change)

    # The kernel multiplies an unsigned int by an int. The product wraps at 32 bits.
    pages = (g.ksm_thread_pages_to_scan * <unsigned int>100) // factor
    pages = pages * change // 100

    per_page_cost = g.ksm_thread_pages_to_scan // cpu_percent
    per_page_cost = per_page_cost if per_page_cost else 1

    pages = min(pages, per_page_cost * g.ksm_advisor_max_cpu)
    pages = max(pages, per_page_cost * <unsigned long>KSM_ADVISOR_MIN_CPU)
    pages = min(pages, g.ksm_advisor_max_pages_to_scan)

    g.advisor_ctx.change = change
    g.advisor_ctx.scan_time = scan_time
    g.advisor_ctx.cpu_time = cpu_time

    g.ksm_thread_pages_to_scan = <unsigned int>pages
    trace_ksm_advisor(&g.trace, <long>scan_time, pages, cpu_percent)


cdef void advisor_stop_scan(ksm_globals *g) noexcept nogil:
    if g.ksm_advisor == KSM_ADVISOR_SCAN_TIME:
        scan_time_advisor(g)


# KSM_RUN_STOP, _MERGE, _UNMERGE: the values written to `run`. KSM_RUN_OFFLINE: a bit that is set in addition while frames go away. See
# ksm.pxd.

cdef int ksm_slab_init(ksm_globals *g) noexcept nogil:
    g.rmap_item_cache = kmem_cache_create(b"ksm_rmap_item", sizeof(ksm_rmap_item))
    if g.rmap_item_cache == NULL:
        return -ENOMEM          # out:

    g.stable_node_cache = kmem_cache_create(b"ksm_stable_node", sizeof(ksm_stable_node))
    if g.stable_node_cache == NULL:
        kmem_cache_destroy(g.rmap_item_cache)       # out_free1:
        return -ENOMEM

    g.mm_slot_cache = kmem_cache_create(b"ksm_mm_slot", sizeof(ksm_mm_slot))
    if g.mm_slot_cache == NULL:
        kmem_cache_destroy(g.stable_node_cache)     # out_free2:
        kmem_cache_destroy(g.rmap_item_cache)
        return -ENOMEM

    return 0


cdef void ksm_slab_free(ksm_globals *g) noexcept nogil:
    kmem_cache_destroy(g.mm_slot_cache)
    kmem_cache_destroy(g.stable_node_cache)
    kmem_cache_destroy(g.rmap_item_cache)
    g.mm_slot_cache = NULL


cdef bint is_stable_node_chain(ksm_stable_node *chain) noexcept nogil:
    return chain.rmap_hlist_len == STABLE_NODE_CHAIN


cdef bint is_stable_node_dup(ksm_globals *g, ksm_stable_node *dup) noexcept nogil:
    return dup.head == STABLE_NODE_DUP_HEAD(g)


cdef inline void stable_node_chain_add_dup(ksm_globals *g, ksm_stable_node *dup, ksm_stable_node *chain) noexcept nogil:
    VM_BUG_ON(is_stable_node_dup(g, dup))
    dup.head = STABLE_NODE_DUP_HEAD(g)
    VM_BUG_ON(not is_stable_node_chain(chain))
    hlist_add_head(&dup.hlist_dup, &chain.hlist)
    g.ksm_stable_node_dups += 1


cdef inline void __stable_node_dup_del(ksm_globals *g, ksm_stable_node *dup) noexcept nogil:
    VM_BUG_ON(not is_stable_node_dup(g, dup))
    hlist_del(&dup.hlist_dup)
    g.ksm_stable_node_dups -= 1


cdef inline void stable_node_dup_del(ksm_globals *g, ksm_stable_node *dup) noexcept nogil:
    """Take a node out of its chain if it is a dup, else out of its tree."""
    VM_BUG_ON(is_stable_node_chain(dup))
    if is_stable_node_dup(g, dup):
        __stable_node_dup_del(g, dup)
    else:
        rb_erase(&dup.node, g.root_stable_tree + dup.nid)
    # Not here: head: the kernel clears it with CONFIG_DEBUG_VM only


cdef inline ksm_rmap_item *alloc_rmap_item(ksm_globals *g) noexcept nogil:
    cdef ksm_rmap_item *rmap_item = <ksm_rmap_item *>kmem_cache_zalloc(g.rmap_item_cache)
    if rmap_item != NULL:
        g.ksm_rmap_items += 1
    return rmap_item


cdef inline void free_rmap_item(ksm_globals *g, ksm_rmap_item *rmap_item) noexcept nogil:
    g.ksm_rmap_items -= 1
    rmap_item.mm.ksm_rmap_items -= 1
    rmap_item.mm = NULL
    kmem_cache_free(g.rmap_item_cache, rmap_item)


cdef inline ksm_stable_node *alloc_stable_node(ksm_globals *g) noexcept nogil:
    # The node is not cleared: the caller sets its fields.
    return <ksm_stable_node *>kmem_cache_alloc(g.stable_node_cache)


cdef inline void free_stable_node(ksm_globals *g, ksm_stable_node *stable_node) noexcept nogil:
    VM_BUG_ON(stable_node.rmap_hlist_len and not is_stable_node_chain(stable_node))
    kmem_cache_free(g.stable_node_cache, stable_node)


cdef bint ksm_test_exit(mm_struct *mm) noexcept nogil:
    """Whether the address space has lost its last user. KSM must not touch its page tables then.

    An exiting process does not wait for KSM, with one exception: __ksm_exit() takes mmap_lock once if KSM may be inside. A thread that
    finds mm_users at 0 under the lock backs out. A thread that found it higher is done before the page tables go.
    """
    return atomic_read(&mm.mm_users) == 0


cdef int break_ksm(vm_area_struct *vma, unsigned long addr, bint lock_vma) noexcept nogil:
    """Give the process a page of its own at addr, if a merged one is there: 0 or -ENOMEM.

    A page fault with FAULT_FLAG_UNSHARE does the work, as a write fault would. Nothing is written, so the new page is clean and still
    read-only. The fault may give up for reasons of its own, so it is repeated for as long as a merged page is seen. The page is looked for
    each time, because the process may have changed its mappings and other pages must stay as they are.
    """
    cdef machine *m = vma.vm_mm.machine
    # Until 6.1 it is a write fault: the new page is dirty, and writable where the vma is.
    cdef unsigned int unshare = FAULT_FLAG_WRITE if until_6_1(globals_of(vma.vm_mm)) else FAULT_FLAG_UNSHARE
    cdef vm_fault_t ret = 0
    cdef bint ksm_page
    cdef folio_walk fw
    cdef struct_folio *folio

    if lock_vma:
        vma_start_write(vma)

    while True:
        ksm_page = False
        cond_resched()
        folio = folio_walk_start(&fw, vma, addr, FW_MIGRATION | FW_ZEROPAGE)
        if folio != NULL:
            # A small folio means that fw.pte is valid.
            if not folio_test_large(folio) and (folio_test_ksm(folio) or is_ksm_zero_pte(m, fw.pte)):
                ksm_page = True
            folio_walk_end(&fw, vma)

        if not ksm_page:
            return 0
        ksm_step(m, STEP_BREAK_KSM, vma.vm_mm, folio, NULL, <long>addr)
        ret = handle_mm_fault(vma, addr, unshare | FAULT_FLAG_REMOTE)
        if ret & (VM_FAULT_SIGBUS | VM_FAULT_SIGSEGV | VM_FAULT_OOM):
            break
    # SIGBUS and SIGSEGV mean that the memory is gone, and the merged page with it. Out of memory means that the merged page is still there:
    # the caller must not take VM_MERGEABLE away, and a later pass tries again.
    return -ENOMEM if ret & VM_FAULT_OOM else 0


cdef bint vma_ksm_compatible(vm_area_struct *vma) noexcept nogil:
    if vma.vm_flags & (VM_SHARED | VM_MAYSHARE | VM_PFNMAP | VM_IO | VM_DONTEXPAND | VM_HUGETLB | VM_MIXEDMAP | VM_DROPPABLE):
        return False            # KSM merges ordinary private memory only

    if vma_is_dax(vma):
        return False

    # Not here: VM_SAO, VM_SPARC_ADI: flags of other processors
    return True


cdef vm_area_struct *find_mergeable_vma(mm_struct *mm, unsigned long addr) noexcept nogil:
    cdef vm_area_struct *vma
    if ksm_test_exit(mm):
        return NULL
    vma = vma_lookup(mm, addr)
    if vma == NULL or not (vma.vm_flags & VM_MERGEABLE) or not vma_has_anon_vma(vma):
        return NULL
    return vma


cdef void break_cow(ksm_globals *g, ksm_rmap_item *rmap_item) noexcept nogil:
    """Undo the merge of the item's page, which got no stable node."""
    cdef mm_struct *mm = rmap_item.mm
    cdef unsigned long addr = rmap_item.address
    cdef vm_area_struct *vma

    # The merge took a reference on anon_vma for the stable node. No stable node uses it now.
    put_anon_vma(g.m, rmap_item.anon_vma)
    if since_7_3(g):            # 7.3: checksum and age begin anew, since the index lay over them
        rmap_item.linear_page_index = 0

    mmap_read_lock(mm)
    vma = find_mergeable_vma(mm, addr)
    if vma != NULL:
        break_ksm(vma, addr, False)
    mmap_read_unlock(mm)
    ksm_step(g.m, STEP_BREAK_COW, rmap_item, NULL, NULL, 0)


cdef struct_page *get_mergeable_page(ksm_globals *g, ksm_rmap_item *rmap_item) noexcept nogil:
    """The anonymous page that the item's address maps now, with a reference; NULL if there is none."""
    cdef mm_struct *mm = rmap_item.mm
    cdef unsigned long addr = rmap_item.address
    cdef vm_area_struct *vma
    cdef struct_page *page = NULL
    cdef folio_walk fw
    cdef struct_folio *folio

    mmap_read_lock(mm)
    vma = find_mergeable_vma(mm, addr)
    if vma != NULL:
        folio = folio_walk_start(&fw, vma, addr, 0)
        if folio != NULL:
            if not folio_is_zone_device(folio) and folio_test_anon(folio):
                folio_get(folio)
                page = fw.page
            folio_walk_end(&fw, vma)
    # out:
    if page != NULL:
        flush_anon_page(vma, page, addr)
        flush_dcache_page(page)
    mmap_read_unlock(mm)
    return page


cdef inline int get_kpfn_nid(ksm_globals *g, unsigned long kpfn) noexcept nogil:
    """The index of the tree root that a frame belongs to: 0 when merging across nodes, else the frame's NUMA node."""
    return 0 if g.ksm_merge_across_nodes else page_to_nid(pfn_to_page(g.m, kpfn))


cdef ksm_stable_node *alloc_stable_node_chain(ksm_globals *g, ksm_stable_node *dup, rb_root *root) noexcept nogil:
    """A new chain that takes dup's place in the tree, with dup as its first member; NULL without memory."""
    cdef ksm_stable_node *chain = alloc_stable_node(g)
    VM_BUG_ON(is_stable_node_chain(dup))
    if chain != NULL:
        INIT_HLIST_HEAD(&chain.hlist)
        chain.chain_prune_time = jiffies(g.m)
        chain.rmap_hlist_len = STABLE_NODE_CHAIN
        chain.nid = NUMA_NO_NODE
        g.ksm_stable_node_chains += 1

        # The contents are the same, so the chain stands where dup stood and the tree need not be rebalanced.
        rb_replace_node(&dup.node, &chain.node, root)

        # From now on dup is reached through the chain only. All dups of a chain are write-protected and have equal contents.
        stable_node_chain_add_dup(g, dup, chain)
        ksm_step(g.m, STEP_CHAIN_MADE, NULL, NULL, chain, 0)
    return chain


cdef inline void free_stable_node_chain(ksm_globals *g, ksm_stable_node *chain, rb_root *root) noexcept nogil:
    rb_erase(&chain.node, root)
    free_stable_node(g, chain)
    g.ksm_stable_node_chains -= 1


cdef void remove_node_from_stable_tree(ksm_globals *g, ksm_stable_node *stable_node) noexcept nogil:
    """The node's page is gone: let its rmap_items go, and free it."""
    cdef hlist_node *pos
    cdef ksm_rmap_item *rmap_item

    # The length is negative for a chain, and after an underflow.
    BUG_ON(stable_node.rmap_hlist_len < 0)

    pos = stable_node.hlist.first
    while pos != NULL:
        rmap_item = rmap_item_of_hlist(pos)
        if rmap_item.hlist.next != NULL:
            g.ksm_pages_sharing -= 1
            trace_ksm_remove_rmap_item(&g.trace, stable_node.kpfn, rmap_item, rmap_item.mm)
        else:
            g.ksm_pages_shared -= 1

        rmap_item.mm.ksm_merging_pages -= 1

        VM_BUG_ON(stable_node.rmap_hlist_len <= 0)
        stable_node.rmap_hlist_len -= 1
        put_anon_vma(g.m, rmap_item.anon_vma)
        if since_7_3(g):        # as in break_cow()
            rmap_item.linear_page_index = 0
        # OURS: the kernel leaves `head` as it is. A new stable node may be allocated at the same address, and a fork's item may bring this
        # item's page to that node. cmp_and_merge_page() would then take this item for one that is at the node already.
        rmap_item.head = NULL
        rmap_item.address &= page_mask()
        cond_resched()
        pos = pos.next

    # Not here: BUILD_BUG_ON: the kernel's compiler checks that STABLE_NODE_DUP_HEAD lies within migrate_nodes, behind its start

    trace_ksm_remove_ksm_page(&g.trace, stable_node.kpfn)
    if stable_node.head == &g.migrate_nodes:
        list_del(&stable_node.list)
    else:
        stable_node_dup_del(g, stable_node)
    ksm_step(g.m, STEP_NODE_STALE, NULL, NULL, stable_node, <long>stable_node.kpfn)
    free_stable_node(g, stable_node)


cdef enum ksm_get_folio_flags:
    KSM_GET_FOLIO_NOLOCK
    KSM_GET_FOLIO_LOCK
    KSM_GET_FOLIO_TRYLOCK


cdef inline struct_folio *ksm_get_folio_at(ksm_globals *g, unsigned long kpfn, void *expected_mapping, int flags) noexcept nogil:
    # Part of ksm_get_folio(): one attempt. NULL stands for "goto stale".
    cdef struct_folio *folio = pfn_folio(g.m, kpfn)
    if folio_mapping_word(folio) != expected_mapping:
        return NULL

    # A reference count of zero has two causes. Either the page is being freed, and the node is stale. Or the page is in the swap cache, and
    # the thread that moves it to another frame has frozen the count for a moment; then the page still belongs to the node.
    while not folio_try_get(folio):
        if not folio_test_swapcache(folio) or era_2011(g):      # 2011 gives up at once
            return NULL
        cpu_relax()

    # The frame may have been freed and used again before the reference was taken.
    if folio_mapping_word(folio) != expected_mapping:
        folio_put(g.m, folio)
        return NULL

    if flags == KSM_GET_FOLIO_TRYLOCK:
        if not folio_trylock(folio):
            folio_put(g.m, folio)
            return <struct_folio *>ERR_PTR(-EBUSY)
    elif flags == KSM_GET_FOLIO_LOCK:
        folio_lock(folio)

    if flags != KSM_GET_FOLIO_NOLOCK:
        if folio_mapping_word(folio) != expected_mapping:
            folio_unlock(folio)
            folio_put(g.m, folio)
            return NULL
    return folio


cdef struct_folio *ksm_get_folio(ksm_globals *g, ksm_stable_node *stable_node, int flags) noexcept nogil:
    """The node's page with a reference, locked if flags ask for it. NULL if the page is gone; the node is freed then. ERR_PTR(-EBUSY) if
    KSM_GET_FOLIO_TRYLOCK finds the page locked.

    A node holds no reference on its page: a reference would keep an unmapped page alive until ksmd comes by again. The node remembers the
    number of the frame. The frame is still the node's page if its mapping word is the node's own address with the KSM bit. Freeing a page
    clears the word, so no other use of the frame can be taken for the node's page.
    """
    cdef void *expected_mapping = <void *>(<unsigned long>stable_node | PAGE_MAPPING_KSM)
    cdef struct_folio *folio
    cdef unsigned long kpfn

    while True:                 # again:
        kpfn = READ_ONCE_ulong(stable_node.kpfn)
        folio = ksm_get_folio_at(g, kpfn, expected_mapping, flags)
        if folio != NULL:
            return folio
        # stale: unless the page has moved to another frame meanwhile. folio_migrate_ksm() writes the new number before it takes the
        # node's address out of the old frame's mapping word.
        smp_rmb()
        if READ_ONCE_ulong(stable_node.kpfn) == kpfn or era_2011(g):    # 2011 does not look again
            break
    remove_node_from_stable_tree(g, stable_node)
    return NULL


cdef void remove_rmap_item_from_tree(ksm_globals *g, ksm_rmap_item *rmap_item) noexcept nogil:
    """Take the item from its stable node, or out of the unstable tree."""
    cdef ksm_stable_node *stable_node
    cdef struct_folio *folio
    cdef unsigned char age
    if rmap_item.address & STABLE_FLAG:
        stable_node = rmap_item.head
        folio = ksm_get_folio(g, stable_node, KSM_GET_FOLIO_LOCK)
        if folio == NULL:
            cond_resched()      # out: the stale node is freed, and its items are detached
            return

        hlist_del(&rmap_item.hlist)
        folio_unlock(folio)
        folio_put(g.m, folio)

        if not hlist_empty(&stable_node.hlist):
            g.ksm_pages_sharing -= 1
        else:
            g.ksm_pages_shared -= 1

        rmap_item.mm.ksm_merging_pages -= 1

        VM_BUG_ON(stable_node.rmap_hlist_len <= 0)
        stable_node.rmap_hlist_len -= 1

        put_anon_vma(g.m, rmap_item.anon_vma)
        if since_7_3(g):        # as in break_cow()
            rmap_item.linear_page_index = 0
        rmap_item.head = NULL
        rmap_item.address &= page_mask()
        ksm_step(g.m, STEP_LEFT_STABLE, rmap_item, NULL, stable_node, stable_node.rmap_hlist_len)

    elif rmap_item.address & UNSTABLE_FLAG:
        # An item of the last pass is in no tree: the roots were reset, and the nodes that it links to may be freed. An item of this pass is
        # in a tree and must come out. The pass number in the address tells the two apart.
        age = <unsigned char>(g.ksm_scan.seqnr - rmap_item.address)
        BUG_ON(age > 1)
        if not age:
            # In 2011 there is one root, and anon_vma may have been stored over nid.
            rb_erase(&rmap_item.node, g.root_unstable_tree + (0 if era_2011(g) else rmap_item.nid))
        g.ksm_pages_unshared -= 1
        rmap_item.address &= page_mask()
        ksm_step(g.m, STEP_LEFT_UNSTABLE, rmap_item, NULL, NULL, age)
    # out:
    cond_resched()


cdef void remove_trailing_rmap_items(ksm_globals *g, ksm_rmap_item **rmap_list) noexcept nogil:
    cdef ksm_rmap_item *rmap_item
    while rmap_list[0] != NULL:
        rmap_item = rmap_list[0]
        rmap_list[0] = rmap_item.rmap_list
        remove_rmap_item_from_tree(g, rmap_item)
        free_rmap_item(g, rmap_item)


cdef int unmerge_ksm_pages(vm_area_struct *vma, unsigned long start, unsigned long end, bint lock_vma) noexcept nogil:
    """Break every merged page in [start, end): 0, -ENOMEM, or -ERESTARTSYS when a signal came.

    It goes by the page table, address by address, and leaves the rmap_items alone. A page can be merged before its item is at the stable
    node. A child has merged pages and no items yet. ksmd may be at work on one of the items. When ksmd comes by, it finds these items
    useless and corrects the counters.
    """
    cdef unsigned long addr = start
    cdef int err = 0

    while addr < end and not err:
        if ksm_test_exit(vma.vm_mm):
            break
        if signal_pending(vma.vm_mm.machine):
            err = -ERESTARTSYS
        else:
            err = break_ksm(vma, addr, lock_vma)
        addr += PAGE_SIZE
    return err


cdef inline ksm_stable_node *folio_stable_node(struct_folio *folio) noexcept nogil:
    return <ksm_stable_node *>folio_raw_mapping(folio) if folio_test_ksm(folio) else NULL


cdef inline ksm_stable_node *page_stable_node(struct_page *page) noexcept nogil:
    return folio_stable_node(page_folio(page))


cdef inline void folio_set_stable_node(struct_folio *folio, ksm_stable_node *stable_node) noexcept nogil:
    VM_BUG_ON(folio_test_anon(folio) and PageAnonExclusive(folio))
    folio_set_mapping_word(folio, <void *>(<unsigned long>stable_node | PAGE_MAPPING_KSM))


cdef int remove_stable_node(ksm_globals *g, ksm_stable_node *stable_node) noexcept nogil:
    """Free a node that should have no page any more: 0, or -EBUSY if the page is still mapped."""
    cdef struct_folio *folio
    cdef int err

    folio = ksm_get_folio(g, stable_node, KSM_GET_FOLIO_LOCK)
    if folio == NULL:
        return 0                # ksm_get_folio() has freed the node

    # A process that exits may have left KSM's list and not yet unmapped its pages.
    err = -EBUSY
    if not folio_mapped(folio):
        # The swap cache or another user still has a reference, so the mapping word still points to the node. But no sharer is left that the
        # node would have to find.
        folio_set_stable_node(folio, NULL)
        remove_node_from_stable_tree(g, stable_node)
        err = 0

    folio_unlock(folio)
    folio_put(g.m, folio)
    return err


cdef bint remove_stable_node_chain(ksm_globals *g, ksm_stable_node *stable_node, rb_root *root) noexcept nogil:
    """remove_stable_node() for a node of the tree, and for all its dups if it is a chain; true if a page was still mapped."""
    cdef hlist_node *pos
    cdef hlist_node *hlist_safe
    cdef ksm_stable_node *dup

    if not is_stable_node_chain(stable_node):
        VM_BUG_ON(is_stable_node_dup(g, stable_node))
        return remove_stable_node(g, stable_node) != 0

    pos = stable_node.hlist.first
    while pos != NULL:
        hlist_safe = pos.next
        dup = stable_node_of_dup(pos)
        VM_BUG_ON(not is_stable_node_dup(g, dup))
        if remove_stable_node(g, dup):
            return True
        pos = hlist_safe
    BUG_ON(not hlist_empty(&stable_node.hlist))
    free_stable_node_chain(g, stable_node, root)
    return False


cdef int remove_all_stable_nodes(ksm_globals *g) noexcept nogil:
    cdef ksm_stable_node *stable_node
    cdef list_head *pos
    cdef list_head *next
    cdef int nid
    cdef int err = 0

    for nid in range(g.ksm_nr_node_ids):
        while g.root_stable_tree[nid].rb_node != NULL:
            stable_node = stable_node_of(g.root_stable_tree[nid].rb_node)
            if remove_stable_node_chain(g, stable_node, g.root_stable_tree + nid):
                err = -EBUSY
                break           # go on with the next NUMA node's tree
            cond_resched()
    pos = g.migrate_nodes.next
    while pos != &g.migrate_nodes:
        next = pos.next
        stable_node = stable_node_of_list(pos)
        if remove_stable_node(g, stable_node):
            err = -EBUSY
        cond_resched()
        pos = next
    return err


cdef inline int unmerge_mm(mm_struct *mm, vma_iterator *vmi) noexcept nogil:
    # Part of unmerge_and_remove_all_rmap_items(): one address space, up to mm_exiting. The value is 0 or the error of unmerge_ksm_pages().
    cdef vm_area_struct *vma
    cdef int err

    # An exiting process is about to unmap all its pages.
    if ksm_test_exit(mm):
        return 0

    vma = vma_next(vmi)
    while vma != NULL:
        if vma.vm_flags & VM_MERGEABLE and vma_has_anon_vma(vma):
            err = unmerge_ksm_pages(vma, vma.vm_start, vma.vm_end, False)
            if err:
                return err
        vma = vma_next(vmi)
    return 0


cdef void age_unstable_items(ksm_globals *g) noexcept nogil:
    # OURS: a pass was broken off. The next pass has the same number and begins by dropping the unstable trees. The kernel then takes these
    # rmap_items for members of the new tree, and erases from the tree what is not in it. Here they become items of an earlier pass.
    cdef ksm_mm_slot *mm_slot = mm_slot_entry(mm_slot_of_list(g.ksm_mm_head.slot.mm_node.next))
    cdef ksm_rmap_item *rmap_item

    while mm_slot != &g.ksm_mm_head:
        rmap_item = mm_slot.rmap_list
        while rmap_item != NULL:
            if rmap_item.address & UNSTABLE_FLAG:
                rmap_item.address = (rmap_item.address & ~<unsigned long>SEQNR_MASK) | ((g.ksm_scan.seqnr - 1) & SEQNR_MASK)
            rmap_item = rmap_item.rmap_list
        mm_slot = mm_slot_entry(mm_slot_of_list(mm_slot.slot.mm_node.next))


cdef int unmerge_and_remove_all_rmap_items(ksm_globals *g) noexcept nogil:
    """Break all merged pages of all processes, and free all rmap_items and stable nodes. Writing 2 to `run` does this. 0 or -errno."""
    cdef ksm_mm_slot *mm_slot
    cdef struct_mm_slot *slot
    cdef mm_struct *mm
    cdef vma_iterator vmi
    cdef int err = 0

    spin_lock(&g.ksm_mmlist_lock)
    slot = mm_slot_of_list(g.ksm_mm_head.slot.mm_node.next)
    g.ksm_scan.mm_slot = mm_slot_entry(slot)
    spin_unlock(&g.ksm_mmlist_lock)

    mm_slot = g.ksm_scan.mm_slot
    while mm_slot != &g.ksm_mm_head:
        vma_iter_init(&vmi, mm_slot.slot.mm, 0)
        mm = mm_slot.slot.mm
        mmap_read_lock(mm)
        err = unmerge_mm(mm, &vmi)
        if err:                 # error:
            mmap_read_unlock(mm)
            spin_lock(&g.ksm_mmlist_lock)
            g.ksm_scan.mm_slot = &g.ksm_mm_head
            age_unstable_items(g)       # OURS: the next pass has the same number
            spin_unlock(&g.ksm_mmlist_lock)
            return err

        # mm_exiting:
        remove_trailing_rmap_items(g, &mm_slot.rmap_list)
        mmap_read_unlock(mm)

        spin_lock(&g.ksm_mmlist_lock)
        slot = mm_slot_of_list(mm_slot.slot.mm_node.next)
        g.ksm_scan.mm_slot = mm_slot_entry(slot)
        if ksm_test_exit(mm):
            hash_del(&mm_slot.slot.hash)
            list_del(&mm_slot.slot.mm_node)
            spin_unlock(&g.ksm_mmlist_lock)

            mm_slot_free(g.mm_slot_cache, mm_slot)
            clear_bit(MMF_VM_MERGEABLE, &mm.flags)
            clear_bit(MMF_VM_MERGE_ANY, &mm.flags)
            mmdrop(mm)
        else:
            spin_unlock(&g.ksm_mmlist_lock)
        mm_slot = g.ksm_scan.mm_slot

    # A stable node whose page is still mapped may stay. In 2011 all stable nodes stayed until a search or a scan met them.
    if not era_2011(g):
        remove_all_stable_nodes(g)
    g.ksm_scan.seqnr = 0
    return 0


cdef u32 calc_checksum(ksm_globals *g, struct_page *page) noexcept nogil:
    cdef u32 checksum
    cdef void *addr = page_address(g.m, page)
    # OURS: the frame or the look ahead may have the checksum
    if not known_checksum(g, page, &checksum):
        if era_2011(g):
            return jhash2(<const u32 *>addr, PAGE_SIZE // 4, 17)
        checksum = <u32>xxhash(addr, PAGE_SIZE, 0)
    return checksum


cdef inline int write_protect_pte(vm_area_struct *vma, struct_folio *folio, page_vma_mapped_walk_control *pvmw,
                                  pte_t *orig_pte) noexcept nogil:
    # Part of write_protect_page(): the steps with the entry locked, up to out_unlock.
    cdef mm_struct *mm = vma.vm_mm
    cdef int swapped
    cdef bint anon_exclusive
    cdef pte_t entry

    # Not here: WARN_ONCE: a small page is mapped by a page table entry only
    anon_exclusive = PageAnonExclusive(folio)
    entry = ptep_get(pvmw.pte)
    if era_2011(globals_of(mm)) and not (pte_write(entry) or pte_dirty(entry)):
        # 2011 knows no exclusive pages. A read-only clean entry needs no check of the references.
        if anon_exclusive:
            ClearPageAnonExclusive(folio)
    elif pte_write(entry) or pte_dirty(entry) or anon_exclusive or mm_tlb_flush_pending(mm):
        swapped = folio_test_swapcache(folio)
        flush_cache_page(vma, pvmw.address, folio_pfn(mm.machine, folio))
        # The entry is cleared before the references are counted. A thread that took a reference earlier, to read or write the page
        # directly, shows in the count. A thread that wants one now finds no entry and waits for the lock.
        entry = ptep_clear_flush(vma, pvmw.address, pvmw.pte)
        # Each mapping holds one reference, the caller holds one, and the swap cache may hold one. Any other reference forbids the merge.
        if folio_mapcount(folio) + 1 + swapped != folio_ref_count(folio):
            set_pte_at(mm, pvmw.address, pvmw.pte, entry)
            return -EFAULT

        # This step, too, needs the entry to be cleared.
        if anon_exclusive and folio_try_share_anon_rmap_pte(folio, folio):
            set_pte_at(mm, pvmw.address, pvmw.pte, entry)
            return -EFAULT

        if pte_dirty(entry):
            folio_mark_dirty(folio)
        entry = pte_mkclean(entry)

        if pte_write(entry):
            entry = pte_wrprotect(entry)

        set_pte_at(mm, pvmw.address, pvmw.pte, entry)
    orig_pte[0] = entry
    return 0


cdef int write_protect_page(vm_area_struct *vma, struct_folio *folio, pte_t *orig_pte) noexcept nogil:
    """Make the entry that maps the folio in this vma read-only and clean, and return it in *orig_pte: 0, or -EFAULT."""
    cdef mm_struct *mm = vma.vm_mm
    cdef page_vma_mapped_walk_control pvmw
    cdef int err = -EFAULT

    DEFINE_FOLIO_VMA_WALK(&pvmw, folio, vma, 0, 0)

    if WARN_ON_ONCE(folio_test_large(folio)):
        return err

    pvmw.address = page_address_in_vma(folio, vma)
    if pvmw.address == <unsigned long>-EFAULT:
        return err              # out: always taken for a merged page

    mmu_notifier_invalidate_range_start(mm)
    if page_vma_mapped_walk(&pvmw):
        err = write_protect_pte(vma, folio, &pvmw, orig_pte)
        # out_unlock:
        page_vma_mapped_walk_done(&pvmw)
    # out_mn:
    mmu_notifier_invalidate_range_end(mm)
    return err


cdef inline int replace_pte(vm_area_struct *vma, unsigned long addr, struct_page *page, struct_page *kpage, struct_folio *kfolio,
                            pmd_t *pmd, pte_t orig_pte) noexcept nogil:
    # Part of replace_page(): the steps between the two calls of the notifier, up to out_mn.
    cdef mm_struct *mm = vma.vm_mm
    cdef machine *m = mm.machine
    cdef struct_folio *folio
    cdef spinlock_t *ptl
    cdef pte_t *ptep
    cdef pte_t newpte

    ptep = pte_offset_map_lock(mm, pmd, addr, &ptl)
    if ptep == NULL:
        return -EFAULT
    if not pte_same(ptep_get(ptep), orig_pte):
        pte_unmap_unlock(ptep, ptl)
        return -EFAULT
    VM_BUG_ON(PageAnonExclusive(page))
    VM_BUG_ON(folio_test_anon(kfolio) and PageAnonExclusive(kpage))

    # use_zero_pages is not asked here: while it is off, no caller passes the zero page.
    if not is_zero_pfn(m, page_to_pfn(m, kpage)):
        folio_get(kfolio)
        folio_add_anon_rmap_pte(kfolio, kpage, vma, addr, RMAP_NONE)
        newpte = mk_pte(m, kpage, vma.vm_page_prot)
    else:
        # Only KSM makes an entry of the zero page dirty. The dirty bit tells its entries from those of a read fault.
        newpte = pte_mkdirty(pte_mkspecial(pfn_pte(page_to_pfn(m, kpage), vma.vm_page_prot)))
        if until_6_1(globals_of(mm)):       # 6.1 makes the entry of a read fault, and counts nothing
            newpte = pte_mkspecial(pfn_pte(page_to_pfn(m, kpage), vma.vm_page_prot))
        else:
            ksm_map_zero_page(mm)
        # The zero page belongs to no process, so the process has one anonymous page less.
        dec_mm_counter(mm, MM_ANONPAGES)

    flush_cache_page(vma, addr, pte_pfn(ptep_get(ptep)))
    # Both pages are read-only and have the same bytes.
    ptep_clear_flush(vma, addr, ptep)
    set_pte_at(mm, addr, ptep, newpte)

    folio = page_folio(page)
    folio_remove_rmap_pte(folio, page, vma)
    if not folio_mapped(folio):
        folio_free_swap(m, folio)
    folio_put(m, folio)

    pte_unmap_unlock(ptep, ptl)
    return 0


cdef int replace_page(vm_area_struct *vma, struct_page *page, struct_page *kpage, pte_t orig_pte) noexcept nogil:
    """Map kpage where the vma maps page, if the entry is still orig_pte: 0, or -EFAULT."""
    cdef struct_folio *kfolio = page_folio(kpage)
    cdef mm_struct *mm = vma.vm_mm
    cdef pmd_t *pmd
    cdef pmd_t pmde
    cdef unsigned long addr
    cdef int err = -EFAULT

    addr = page_address_in_vma(page, vma)
    if addr == <unsigned long>-EFAULT:
        return err              # out:

    pmd = mm_find_pmd(mm, addr)
    if pmd == NULL:
        return err
    # Another thread may put a huge page in this place meanwhile. One read of the entry has to show that it is present and is not a huge
    # page.
    pmde = pmdp_get_lockless(pmd)
    if not pmd_present(pmde) or pmd_trans_huge(pmde):
        return err

    mmu_notifier_invalidate_range_start(mm)
    err = replace_pte(vma, addr, page, kpage, kfolio, pmd, orig_pte)
    # out_mn:
    mmu_notifier_invalidate_range_end(mm)
    return err


cdef int try_to_merge_one_page(vm_area_struct *vma, struct_page *page, struct_page *kpage) noexcept nogil:
    """Merge page into kpage, or make page a merged page itself when kpage is NULL: 0, or -EFAULT."""
    cdef machine *m = vma.vm_mm.machine
    cdef pte_t orig_pte = __pte(0)
    cdef int err = -EFAULT

    if page == kpage:           # a forked process shares the merged page already
        return 0

    if not PageAnon(page):
        return err              # out:

    # The page lock keeps the swap cache flag from changing while the references are counted. The holder of the lock may keep it for long.
    # The scan does not wait: the page is tried again in the next pass.
    if not trylock_page(page):
        return err

    # Only small pages are merged. The split fails if another thread has a reference on the huge page; a later pass tries again.
    if PageTransCompound(page) and split_huge_page(m, page):
        unlock_page(page)       # goto out_unlock
        return err

    # The entry of a page that is mapped once may be writable. If the page is mapped more often, fork has made all its entries read-only.
    # The references have to be counted in both cases.
    if write_protect_page(vma, page_folio(page), &orig_pte) == 0:
        ksm_step(m, STEP_WRITE_PROTECTED, NULL, page, NULL, 0)
        if kpage == NULL:
            # The page is a merged page from here on. stable_tree_insert() will give it a stable node.
            folio_set_stable_node(page_folio(page), NULL)
            ksm_step(m, STEP_BECAME_KSM, NULL, page, NULL, 0)
            if folio_mapcount(page_folio(page)) > 1 or folio_test_swapcache(page_folio(page)):      # OURS: for Machine.check()
                set_page_flag(page_folio(page), PG_ksm_relatives)
            mark_page_accessed(m, page)
            # The entries are clean now. Reclaim drops a clean page without writing it to swap, so the page is made dirty.
            if not PageDirty(page) and not era_2011(globals_of(vma.vm_mm)):
                SetPageDirty(page)
            err = 0
        elif pages_identical(m, page, kpage):
            err = replace_page(vma, page, kpage, orig_pte)
            ksm_step(m, STEP_REPLACED, NULL, kpage, NULL, err)
        else:
            ksm_step(m, STEP_DIFFERS, NULL, kpage, NULL, 0)
    else:
        ksm_step(m, STEP_NOT_PROTECTED, NULL, page, NULL, 0)

    # out_unlock:
    unlock_page(page)
    return err


cdef int try_to_merge_with_zero_page(ksm_globals *g, ksm_rmap_item *rmap_item, struct_page *page) noexcept nogil:
    """Map the zero page in place of a page of zeros. 0 if that was done, or if the vma is gone and nothing is left to do; else -EFAULT."""
    cdef mm_struct *mm = rmap_item.mm
    cdef vm_area_struct *vma
    cdef int err = -EFAULT

    # The checksum is only a hint: the pages are compared before they are merged.
    if g.ksm_use_zero_pages and rmap_item.oldchecksum == g.zero_checksum:
        mmap_read_lock(mm)
        vma = find_mergeable_vma(mm, rmap_item.address)
        if vma != NULL:
            err = try_to_merge_one_page(vma, page, ZERO_PAGE(g.m, rmap_item.address))
            trace_ksm_merge_one_page(&g.trace, page_to_pfn(g.m, ZERO_PAGE(g.m, rmap_item.address)), rmap_item, mm, err)
        else:
            err = 0
        mmap_read_unlock(mm)

    return err


cdef int try_to_merge_with_ksm_page(ksm_globals *g, ksm_rmap_item *rmap_item, struct_page *page, struct_page *kpage) noexcept nogil:
    """Merge the item's page into kpage, or make it a merged page when kpage is NULL: 0, or -EFAULT.

    On success the item is in no tree any more, and holds a reference on the vma's anon_vma.
    """
    cdef mm_struct *mm = rmap_item.mm
    cdef vm_area_struct *vma
    cdef int err = -EFAULT

    mmap_read_lock(mm)
    vma = find_mergeable_vma(mm, rmap_item.address)
    if vma != NULL:
        err = try_to_merge_one_page(vma, page, kpage)
        if not err:
            # The field anon_vma lies over nid, which leads to the item's unstable tree. So the item leaves the tree first. In 2011 the
            # caller takes it out.
            if not era_2011(g):
                remove_rmap_item_from_tree(g, rmap_item)

            # mmap_lock is held, so the vma still has its anon_vma.
            rmap_item.anon_vma = vma.anon_vma
            if since_7_3(g):    # 7.3: for the walk in the interval tree
                rmap_item.linear_page_index = linear_page_index(vma, rmap_item.address)
            get_anon_vma(vma.anon_vma)
    # out:
    mmap_read_unlock(mm)
    trace_ksm_merge_with_ksm_page(&g.trace, kpage, page_to_pfn(g.m, kpage if kpage != NULL else page), rmap_item, mm, err)
    return err


cdef struct_page *try_to_merge_two_pages(ksm_globals *g, ksm_rmap_item *rmap_item, struct_page *page,
                                         ksm_rmap_item *tree_rmap_item, struct_page *tree_page) noexcept nogil:
    """Make page a merged page and merge tree_page into it. Returns page, or NULL if that failed. No frame is allocated."""
    cdef int err

    err = try_to_merge_with_ksm_page(g, rmap_item, page, NULL)
    if not err:
        err = try_to_merge_with_ksm_page(g, tree_rmap_item, tree_page, page)
        # A merged page with one sharer saves nothing.
        if err:
            break_cow(g, rmap_item)
    return NULL if err else page


cdef inline bint __is_page_sharing_candidate(ksm_globals *g, ksm_stable_node *stable_node, int offset) noexcept nogil:
    VM_BUG_ON(stable_node.rmap_hlist_len < 0)
    # A node may be shared if it is not full and not empty: the page of an empty node is about to be freed.
    return stable_node.rmap_hlist_len != 0 and stable_node.rmap_hlist_len + offset < g.ksm_max_page_sharing


cdef inline bint is_page_sharing_candidate(ksm_globals *g, ksm_stable_node *stable_node) noexcept nogil:
    return __is_page_sharing_candidate(g, stable_node, 0)


cdef struct_folio *stable_node_dup(ksm_globals *g, ksm_stable_node **_stable_node_dup, ksm_stable_node **_stable_node,
                                   rb_root *root, bint prune_stale_stable_nodes) noexcept nogil:
    """The page of the best dup of a chain, with a reference, and the dup. NULL if all dups are gone; the chain is freed then.

    The best dup is the first with room. When it is time to prune, all dups are looked at, the stale ones are dropped, and the best is the
    fullest with room. If no dup has room, any dup is returned. A chain with one dup left is replaced by that dup: *_stable_node is the dup
    then. In 6.1 this is done only when it is time to prune, and only for a dup with room.
    """
    cdef ksm_stable_node *dup
    cdef ksm_stable_node *found = NULL
    cdef ksm_stable_node *stable_node = _stable_node[0]
    cdef hlist_node *pos
    cdef hlist_node *hlist_safe
    cdef struct_folio *folio
    cdef struct_folio *tree_folio = NULL
    cdef int found_rmap_hlist_len = 0

    if not prune_stale_stable_nodes or time_before(jiffies(g.m), stable_node.chain_prune_time
                                                   + msecs_to_jiffies(g.ksm_stable_node_chains_prune_millisecs)):
        prune_stale_stable_nodes = False
    else:
        stable_node.chain_prune_time = jiffies(g.m)

    pos = stable_node.hlist.first
    while pos != NULL:
        hlist_safe = pos.next
        dup = stable_node_of_dup(pos)
        pos = hlist_safe
        cond_resched()
        if passes_over(g, found, dup):      # OURS: the dup is full, and is certainly not stale
            continue
        # ksm_get_folio() frees a dup whose page is gone.
        folio = ksm_get_folio(g, dup, KSM_GET_FOLIO_NOLOCK)
        if folio == NULL:
            continue
        if found == NULL or (is_page_sharing_candidate(g, dup)
                             and (not is_page_sharing_candidate(g, found) or dup.rmap_hlist_len > found_rmap_hlist_len)):
            if found != NULL:
                folio_put(g.m, tree_folio)
            found = dup
            found_rmap_hlist_len = found.rmap_hlist_len
            tree_folio = folio
            # The reference of the best dup is kept.
            if not prune_stale_stable_nodes and is_page_sharing_candidate(g, found):
                break
            continue
        folio_put(g.m, folio)

    if found != NULL:
        if hlist_is_singular_node(&found.hlist_dup, &stable_node.hlist) and not (
                until_6_1(g) and not (prune_stale_stable_nodes and is_page_sharing_candidate(g, found))):
            BUG_ON(stable_node.hlist.first.next != NULL)

            # A chain with one dup is not needed: the dup takes its place in the tree.
            rb_replace_node(&stable_node.node, &found.node, root)
            free_stable_node(g, stable_node)
            g.ksm_stable_node_chains -= 1
            g.ksm_stable_node_dups -= 1
            # The caller sees by this that the chain is gone.
            _stable_node[0] = found
        elif stable_node.hlist.first != &found.hlist_dup and __is_page_sharing_candidate(g, found, 1):
            # The dup has room for one more sharer after the merge that is under way. It moves to the front, where the next search finds it
            # at once. This does not depend on how many dups were looked at.
            hlist_del(&found.hlist_dup)
            hlist_add_head(&found.hlist_dup, &stable_node.hlist)
    else:
        # No dup was found, so the chain is empty.
        free_stable_node_chain(g, stable_node, root)

    _stable_node_dup[0] = found
    return tree_folio


cdef struct_folio *__stable_node_chain(ksm_globals *g, ksm_stable_node **_stable_node_dup, ksm_stable_node **_stable_node,
                                       rb_root *root, bint prune_stale_stable_nodes) noexcept nogil:
    """The page of a node of the tree, whether the node is one page or a chain.

    When the value is NULL, both nodes may be freed. When it is not NULL and the chain was replaced by its last dup, both pointers are the
    same.
    """
    cdef ksm_stable_node *stable_node = _stable_node[0]

    if not is_stable_node_chain(stable_node):
        _stable_node_dup[0] = stable_node
        return ksm_get_folio(g, stable_node, KSM_GET_FOLIO_NOLOCK)
    return stable_node_dup(g, _stable_node_dup, _stable_node, root, prune_stale_stable_nodes)


cdef inline struct_folio *chain_prune(ksm_globals *g, ksm_stable_node **s_n_d, ksm_stable_node **s_n, rb_root *root) noexcept nogil:
    return __stable_node_chain(g, s_n_d, s_n, root, True)


cdef inline struct_folio *chain(ksm_globals *g, ksm_stable_node **s_n_d, ksm_stable_node **s_n, rb_root *root) noexcept nogil:
    return __stable_node_chain(g, s_n_d, s_n, root, False)


cdef inline struct_page *stable_tree_take(ksm_globals *g, ksm_stable_node *page_node, struct_folio *folio) noexcept nogil:
    # Part of stable_tree_search(): "out". The scanned page's own node was put into the tree. The value is the page if others may share it,
    # else NULL.
    if is_page_sharing_candidate(g, page_node):
        folio_get(folio)
        return folio
    return NULL


cdef struct_page *stable_tree_replace(ksm_globals *g, ksm_stable_node *stable_node, ksm_stable_node *stable_node_dup,
                                      ksm_stable_node *page_node, struct_folio *folio, int nid, rb_root *root) noexcept nogil:
    # Part of stable_tree_search(): "replace". The page of the equal node has gone to another NUMA node. The node leaves the tree, and waits
    # in migrate_nodes until one of its sharers is scanned. If the scanned page has a node, that node takes the place.
    if stable_node_dup == stable_node:
        VM_BUG_ON(is_stable_node_chain(stable_node_dup))
        VM_BUG_ON(is_stable_node_dup(g, stable_node_dup))
        # The node is no chain, or was a chain and was replaced by its last dup.
        if page_node != NULL:
            VM_BUG_ON(page_node.head != &g.migrate_nodes)
            list_del(&page_node.list)
            page_node.nid = nid
            rb_replace_node(&stable_node_dup.node, &page_node.node, root)
            folio = stable_tree_take(g, page_node, folio)
        else:
            rb_erase(&stable_node_dup.node, root)
            folio = NULL
    else:
        VM_BUG_ON(not is_stable_node_chain(stable_node))
        __stable_node_dup_del(g, stable_node_dup)
        if page_node != NULL:
            VM_BUG_ON(page_node.head != &g.migrate_nodes)
            list_del(&page_node.list)
            page_node.nid = nid
            stable_node_chain_add_dup(g, page_node, stable_node)
            folio = stable_tree_take(g, page_node, folio)
        else:
            folio = NULL
    stable_node_dup.head = &g.migrate_nodes
    list_add(&stable_node_dup.list, stable_node_dup.head)
    return folio


cdef struct_page *stable_tree_chain_append(ksm_globals *g, ksm_stable_node *stable_node, ksm_stable_node *stable_node_dup,
                                           ksm_stable_node *page_node, struct_folio *folio, int nid, rb_root *root) noexcept nogil:
    # Part of stable_tree_search(): "chain_append". The scanned page has come from another NUMA node and has several sharers. There is an
    # equal page here, and the scanned page's node joins its chain.
    if stable_node_dup == stable_node:
        VM_BUG_ON(is_stable_node_dup(g, stable_node_dup))
        # There is no chain yet.
        stable_node = alloc_stable_node_chain(g, stable_node_dup, root)
        if stable_node == NULL:
            return NULL
    VM_BUG_ON(not is_stable_node_dup(g, stable_node_dup))
    VM_BUG_ON(page_node.head != &g.migrate_nodes)
    list_del(&page_node.list)
    page_node.nid = nid
    stable_node_chain_add_dup(g, page_node, stable_node)
    return stable_tree_take(g, page_node, folio)        # goto out


cdef struct_page *stable_tree_search(ksm_globals *g, struct_page *page) noexcept nogil:
    """A merged page with the same contents, with a reference. NULL if there is none, ERR_PTR(-EBUSY) if it is locked.

    For a page that is merged already the value is the page itself. If its node is waiting in migrate_nodes, the node goes back into a tree
    here. The value is also NULL when all equal pages are full: the page then has to find an equal in the unstable tree, and the two become
    a new dup.
    """
    cdef int nid, ret
    cdef rb_root *root
    cdef rb_node **new
    cdef rb_node *parent
    cdef ksm_stable_node *stable_node
    cdef ksm_stable_node *stable_node_dup
    cdef ksm_stable_node *page_node
    cdef struct_folio *folio
    cdef struct_folio *tree_folio
    cdef bint again

    folio = page_folio(page)
    page_node = folio_stable_node(folio)
    if page_node != NULL and page_node.head != &g.migrate_nodes:
        # page is mapped by a forked process
        folio_get(folio)
        return folio

    nid = get_kpfn_nid(g, folio_pfn(g.m, folio))
    root = g.root_stable_tree + nid
    while True:                 # again:
        new = &root.rb_node
        parent = NULL
        again = False

        # OURS: new[0] != NULL, further down
        while stable_tree_descend(g, page, &parent, &new):
            cond_resched()
            stable_node = stable_node_of(new[0])
            tree_folio = chain_prune(g, &stable_node_dup, &stable_node, root)
            if tree_folio == NULL:
                # The node was stale. Erasing it may have rebalanced the tree, so new and parent cannot be trusted. Giving up would be safe,
                # but would lose merges. 2011 gives up.
                again = not era_2011(g)
                break

            ret = memcmp_pages(g.m, page, tree_folio)
            if era_2011(g) and ret == 0:    # 2011 takes any equal page, also one without items, or one that somebody has locked
                return tree_folio
            folio_put(g.m, tree_folio)

            parent = new[0]     # new[0] is read again: a chain may have been replaced by its last dup
            if ret < 0:
                new = &parent.rb_left
            elif ret > 0:
                new = &parent.rb_right
            else:
                if page_node != NULL:
                    VM_BUG_ON(page_node.head != &g.migrate_nodes)
                    # A page that is mapped once can be merged into the equal page, and the chain need not get longer.
                    if folio_mapcount(folio) > 1:
                        return stable_tree_chain_append(g, stable_node, stable_node_dup, page_node, folio, nid, root)

                if not is_page_sharing_candidate(g, stable_node_dup):
                    # The equal page is full, and so are all dups of its chain.
                    ksm_step(g.m, STEP_STABLE_FULL, NULL, NULL, stable_node_dup, stable_node_dup.rmap_hlist_len)
                    return NULL

                # A thread that moves the page to another frame holds the page lock. Once the lock was taken here, such a thread sees
                # this reference.
                tree_folio = ksm_get_folio(g, stable_node_dup, KSM_GET_FOLIO_TRYLOCK)

                if PTR_ERR(tree_folio) == -EBUSY:
                    return <struct_page *>ERR_PTR(-EBUSY)

                if tree_folio == NULL:
                    again = True
                    break
                folio_unlock(tree_folio)

                if get_kpfn_nid(g, stable_node_dup.kpfn) != stable_node_dup.nid:
                    folio_put(g.m, tree_folio)
                    return stable_tree_replace(g, stable_node, stable_node_dup, page_node, folio, nid, root)
                return tree_folio
        if not again:
            break

    if page_node == NULL:
        return NULL

    list_del(&page_node.list)
    page_node.nid = nid
    rb_link_node(&page_node.node, parent, new)
    rb_insert_color(&page_node.node, root)
    # out:
    return stable_tree_take(g, page_node, folio)


cdef ksm_stable_node *stable_tree_insert(ksm_globals *g, struct_folio *kfolio) noexcept nogil:
    """Make a node for a page that was just merged, and put it into the tree or into the chain of its equals; NULL without memory."""
    cdef int nid, ret
    cdef unsigned long kpfn
    cdef rb_root *root
    cdef rb_node **new
    cdef rb_node *parent
    cdef ksm_stable_node *stable_node = NULL
    cdef ksm_stable_node *stable_node_dup
    cdef ksm_stable_node *orig
    cdef struct_folio *tree_folio
    cdef bint need_chain = False
    cdef bint again

    kpfn = folio_pfn(g.m, kfolio)
    nid = get_kpfn_nid(g, kpfn)
    root = g.root_stable_tree + nid
    while True:                 # again:
        parent = NULL
        new = &root.rb_node
        again = False

        # OURS: new[0] != NULL, further down
        while stable_tree_descend(g, kfolio, &parent, &new):
            cond_resched()
            stable_node = stable_node_of(new[0])
            tree_folio = chain(g, &stable_node_dup, &stable_node, root)
            if tree_folio == NULL:
                # The tree may have changed, as in stable_tree_search().
                if era_2011(g):
                    return NULL
                again = True
                break

            ret = memcmp_pages(g.m, kfolio, tree_folio)
            folio_put(g.m, tree_folio)

            parent = new[0]
            if ret < 0:
                new = &parent.rb_left
            elif ret > 0:
                new = &parent.rb_right
            else:
                # 2011 has no chains, and so no place for an equal page: the caller breaks both pages.
                if era_2011(g):
                    return NULL
                need_chain = True
                break
        if not again:
            break

    stable_node_dup = alloc_stable_node(g)
    if stable_node_dup == NULL:
        return NULL

    INIT_HLIST_HEAD(&stable_node_dup.hlist)
    stable_node_dup.kpfn = kpfn
    stable_node_dup.rmap_hlist_len = 0
    stable_node_dup.nid = nid
    if not need_chain:
        rb_link_node(&stable_node_dup.node, parent, new)
        rb_insert_color(&stable_node_dup.node, root)
    else:
        if not is_stable_node_chain(stable_node):
            orig = stable_node
            # orig becomes the first dup of the new chain.
            stable_node = alloc_stable_node_chain(g, orig, root)
            if stable_node == NULL:
                free_stable_node(g, stable_node_dup)
                return NULL
        stable_node_dup.head = NULL     # OURS: the slab does not clear the node, and its old `head` could look like a dup's
        stable_node_chain_add_dup(g, stable_node_dup, stable_node)

    folio_set_stable_node(kfolio, stable_node_dup)
    ksm_step(g.m, STEP_DUP_ADDED if need_chain else STEP_STABLE_INSERTED, NULL, kfolio, stable_node_dup, 0)

    return stable_node_dup


cdef ksm_rmap_item *unstable_tree_search_insert(ksm_globals *g, ksm_rmap_item *rmap_item, struct_page *page,
                                                struct_page **tree_pagep) noexcept nogil:
    """The item of an equal page in the unstable tree, and that page with a reference. NULL if there is none; the scanned item is put in
    then.

    The search and the insertion take the same way down, so one function does both. NULL also comes back, and nothing is put in, in three
    cases. The way leads past a page that is no longer there. The way leads to the scanned page itself, which a forked process maps. The
    equal page has gone to another NUMA node.
    """
    cdef rb_node **new
    cdef rb_root *root
    cdef rb_node *parent = NULL
    cdef ksm_rmap_item *tree_rmap_item
    cdef struct_page *tree_page
    cdef int nid, ret

    nid = get_kpfn_nid(g, page_to_pfn(g.m, page))
    root = g.root_unstable_tree + nid
    new = &root.rb_node

    # OURS: new[0] != NULL, further down
    while unstable_tree_descend(g, page, &parent, &new):
        cond_resched()
        tree_rmap_item = rmap_item_of(new[0])
        tree_page = get_mergeable_page(g, tree_rmap_item)
        if tree_page == NULL:
            return NULL

        # A page is not its own equal.
        if page == tree_page:
            put_page(g.m, tree_page)
            return NULL

        ret = memcmp_pages(g.m, page, tree_page)

        parent = new[0]
        if ret < 0:
            put_page(g.m, tree_page)
            new = &parent.rb_left
        elif ret > 0:
            put_page(g.m, tree_page)
            new = &parent.rb_right
        elif not g.ksm_merge_across_nodes and page_to_nid(tree_page) != nid:
            # The next pass puts the equal page into the right tree.
            put_page(g.m, tree_page)
            return NULL
        else:
            tree_pagep[0] = tree_page
            return tree_rmap_item

    rmap_item.address |= UNSTABLE_FLAG
    rmap_item.address |= g.ksm_scan.seqnr & SEQNR_MASK
    rmap_item.nid = nid
    rb_link_node(&rmap_item.node, parent, new)
    rb_insert_color(&rmap_item.node, root)

    g.ksm_pages_unshared += 1
    return NULL


cdef void stable_tree_append(ksm_globals *g, ksm_rmap_item *rmap_item, ksm_stable_node *stable_node,
                             bint max_page_sharing_bypass) noexcept nogil:
    """Add an item to the items of a stable node."""
    # The length is negative for a chain, and after an underflow. The page could not be found from such a node.
    BUG_ON(stable_node.rmap_hlist_len < 0)

    stable_node.rmap_hlist_len += 1
    if not max_page_sharing_bypass:
        # This is not fatal, but no caller should let it happen.
        WARN_ON_ONCE(stable_node.rmap_hlist_len > g.ksm_max_page_sharing)
    elif stable_node.rmap_hlist_len > g.ksm_max_page_sharing:       # OURS: for Machine.check()
        g.sharing_bypassed = True

    rmap_item.head = stable_node
    rmap_item.address |= STABLE_FLAG
    hlist_add_head(&rmap_item.hlist, &stable_node.hlist)

    if rmap_item.hlist.next != NULL:
        g.ksm_pages_sharing += 1
    else:
        g.ksm_pages_shared += 1

    rmap_item.mm.ksm_merging_pages += 1
    ksm_step(g.m, STEP_APPENDED, rmap_item, NULL, stable_node, stable_node.rmap_hlist_len)


cdef void cmp_and_merge_page(ksm_globals *g, struct_page *page, ksm_rmap_item *rmap_item) noexcept nogil:
    """Merge one scanned page if it has an equal.

    If the page is merged already, its item is put at the page's node. If not, and if the page has not changed since the last pass, these
    are tried in this order: the zero page, the stable tree, the unstable tree. 6.1 searches the stable tree first, for every page.
    """
    cdef ksm_rmap_item *tree_rmap_item
    cdef struct_page *tree_page = NULL
    cdef ksm_stable_node *stable_node
    cdef struct_page *kpage
    cdef unsigned int checksum
    cdef int err
    cdef bint max_page_sharing_bypass = False
    cdef bint split

    stable_node = page_stable_node(page)
    if stable_node != NULL:
        if stable_node.head != &g.migrate_nodes and get_kpfn_nid(g, READ_ONCE_ulong(stable_node.kpfn)) != stable_node.nid:
            stable_node_dup_del(g, stable_node)
            stable_node.head = &g.migrate_nodes
            list_add(&stable_node.list, stable_node.head)
            ksm_step(g.m, STEP_NODE_MOVED, rmap_item, page, stable_node, 0)
        if stable_node.head != &g.migrate_nodes and rmap_item.head == stable_node:
            ksm_step(g.m, STEP_AT_ITS_NODE, rmap_item, page, stable_node, 0)
            return
        ksm_step(g.m, STEP_FORKED, rmap_item, page, stable_node, 0)
        # A forked process's item has to be at the node, even when the node is full.
        if not is_page_sharing_candidate(g, stable_node):
            max_page_sharing_bypass = True
    elif not until_6_1(g):
        remove_rmap_item_from_tree(g, rmap_item)

        # A page that changes between two passes would put the unstable tree out of order.
        checksum = calc_checksum(g, page)
        if rmap_item.oldchecksum != checksum:
            rmap_item.oldchecksum = checksum
            ksm_step(g.m, STEP_CHANGED, rmap_item, page, NULL, checksum)
            return
        ksm_step(g.m, STEP_UNCHANGED, rmap_item, page, NULL, checksum)

        if not try_to_merge_with_zero_page(g, rmap_item, page):
            ksm_step(g.m, STEP_ZERO_MERGED, rmap_item, page, NULL, 0)
            return

    # The stable tree is searched first.
    kpage = stable_tree_search(g, page)
    if kpage == page and rmap_item.head == stable_node:
        put_page(g.m, kpage)
        ksm_step(g.m, STEP_AT_ITS_NODE, rmap_item, page, stable_node, 0)
        return

    remove_rmap_item_from_tree(g, rmap_item)
    ksm_step(g.m, STABLE_SEARCHED, rmap_item, page, kpage, 0)

    if kpage != NULL:
        if PTR_ERR(kpage) == -EBUSY:
            return

        err = try_to_merge_with_ksm_page(g, rmap_item, page, kpage)
        ksm_step(g.m, STEP_MERGED, rmap_item, kpage, NULL, err)
        if not err:
            lock_page(kpage)
            stable_tree_append(g, rmap_item, page_stable_node(kpage), max_page_sharing_bypass)
            unlock_page(kpage)
        put_page(g.m, kpage)
        return

    if until_6_1(g):            # 6.1 does here what 6.12 has done above
        if page_changed(g, page, rmap_item):
            return
        if not try_to_merge_with_zero_page(g, rmap_item, page):
            ksm_step(g.m, STEP_ZERO_MERGED, rmap_item, page, NULL, 0)
            return

    tree_rmap_item = unstable_tree_search_insert(g, rmap_item, page, &tree_page)
    ksm_step(g.m, UNSTABLE_SEARCHED, rmap_item, page, tree_rmap_item, 0)
    if tree_rmap_item != NULL:
        kpage = try_to_merge_two_pages(g, rmap_item, page, tree_rmap_item, tree_page)
        ksm_step(g.m, STEP_TWO_MERGED, tree_rmap_item, kpage, NULL, 0 if kpage != NULL else -EFAULT)
        # Two equal parts of one huge page cannot be merged together: the reference on one part counts as a foreign reference on the other.
        split = PageTransCompound(page) and compound_head(page) == compound_head(tree_page)
        put_page(g.m, tree_page)
        if kpage != NULL:
            # The new merged page has two sharers.
            lock_page(kpage)
            stable_node = stable_tree_insert(g, page_folio(kpage))
            if stable_node != NULL:
                stable_tree_append(g, tree_rmap_item, stable_node, False)
                stable_tree_append(g, rmap_item, stable_node, False)
            unlock_page(kpage)

            # Without a stable node the two mappings could not be found from the page.
            if stable_node == NULL:
                break_cow(g, tree_rmap_item)
                break_cow(g, rmap_item)
        elif split:
            # Only the reference on this page is left, so the huge page can be split. The parts are merged in a later pass.
            if not trylock_page(page):
                return
            split_huge_page(g.m, page)
            unlock_page(page)


cdef bint page_changed(ksm_globals *g, struct_page *page, ksm_rmap_item *rmap_item) noexcept nogil:
    # OURS: a part of cmp_and_merge_page() until 6.1: whether the page's checksum is another one than at the last visit.
    cdef unsigned int checksum = calc_checksum(g, page)
    cdef bint changed = rmap_item.oldchecksum != checksum
    rmap_item.oldchecksum = checksum
    ksm_step(g.m, STEP_CHANGED if changed else STEP_UNCHANGED, rmap_item, page, NULL, checksum)
    return changed


cdef void cmp_and_merge_page_2011(ksm_globals *g, struct_page *page, ksm_rmap_item *rmap_item) noexcept nogil:
    # OURS: cmp_and_merge_page() of Linux 2.6.38. A merged page is passed over, without a look at its node. There is no zero page. The
    # checksum is compared last: a page that changes can still merge with a page that is merged already.
    cdef ksm_rmap_item *tree_rmap_item
    cdef struct_page *tree_page = NULL
    cdef ksm_stable_node *stable_node = page_stable_node(page)
    cdef struct_page *kpage
    cdef int err

    if PageKsm(page) and rmap_item.address & STABLE_FLAG:
        return
    if stable_node != NULL:
        ksm_step(g.m, STEP_FORKED, rmap_item, page, stable_node, 0)
    remove_rmap_item_from_tree(g, rmap_item)

    kpage = stable_tree_search(g, page)
    ksm_step(g.m, STABLE_SEARCHED, rmap_item, page, kpage, 0)
    if kpage != NULL:
        if PTR_ERR(kpage) == -EBUSY:
            return
        err = try_to_merge_with_ksm_page(g, rmap_item, page, kpage)
        ksm_step(g.m, STEP_MERGED, rmap_item, kpage, NULL, err)
        if not err:
            lock_page(kpage)
            stable_tree_append(g, rmap_item, page_stable_node(kpage), False)
            unlock_page(kpage)
        put_page(g.m, kpage)
        return

    if page_changed(g, page, rmap_item):
        return

    tree_rmap_item = unstable_tree_search_insert(g, rmap_item, page, &tree_page)
    ksm_step(g.m, UNSTABLE_SEARCHED, rmap_item, page, tree_rmap_item, 0)
    if tree_rmap_item != NULL:
        if PageTransCompound(page) and compound_head(page) == compound_head(tree_page) and trylock_page(page):
            # Two equal parts of one huge page: in 2011 it could be split while both references were held.
            split_huge_page_of_two(g.m, page, tree_page)
            unlock_page(page)
        kpage = try_to_merge_two_pages(g, rmap_item, page, tree_rmap_item, tree_page)
        ksm_step(g.m, STEP_TWO_MERGED, tree_rmap_item, kpage, NULL, 0 if kpage != NULL else -EFAULT)
        put_page(g.m, tree_page)
        if kpage != NULL:
            remove_rmap_item_from_tree(g, tree_rmap_item)
            lock_page(kpage)
            stable_node = stable_tree_insert(g, page_folio(kpage))
            if stable_node != NULL:
                stable_tree_append(g, tree_rmap_item, stable_node, False)
                stable_tree_append(g, rmap_item, stable_node, False)
            unlock_page(kpage)
            if stable_node == NULL:
                break_cow(g, tree_rmap_item)
                break_cow(g, rmap_item)


cdef ksm_rmap_item *get_next_rmap_item(ksm_globals *g, ksm_mm_slot *mm_slot, ksm_rmap_item **rmap_list,
                                       unsigned long addr) noexcept nogil:
    """The item of the page at addr; a new one if there is none yet, NULL without memory. Items before addr have no page any more, and are
    freed.
    """
    cdef ksm_rmap_item *rmap_item

    while rmap_list[0] != NULL:
        rmap_item = rmap_list[0]
        if (rmap_item.address & page_mask()) == addr:
            return rmap_item
        if rmap_item.address > addr:
            break
        rmap_list[0] = rmap_item.rmap_list
        remove_rmap_item_from_tree(g, rmap_item)
        free_rmap_item(g, rmap_item)

    rmap_item = alloc_rmap_item(g)
    if rmap_item != NULL:
        # All other fields are zero.
        rmap_item.mm = mm_slot.slot.mm
        rmap_item.mm.ksm_rmap_items += 1
        rmap_item.address = addr
        rmap_item.rmap_list = rmap_list[0]
        rmap_list[0] = rmap_item
    return rmap_item


cdef unsigned int skip_age(rmap_age_t age) noexcept nogil:
    """The number of passes for which a page of this age is skipped."""
    if age <= 3:
        return 1
    if age <= 5:
        return 2
    if age <= 8:
        return 4

    return 8


cdef bint should_skip_rmap_item(ksm_globals *g, struct_page *page, ksm_rmap_item *rmap_item) noexcept nogil:
    """Smart scan: a page that did not merge in its first three visits is looked at less and less often. True if it is skipped now."""
    cdef rmap_age_t age

    if not g.ksm_smart_scan:
        return False

    # A merged page costs little to visit. Its item may still have to be put at its node.
    if PageKsm(page):
        return False

    if since_7_3(g) and rmap_item.address & STABLE_FLAG:    # 7.3: the item has no age, as after a copy on write
        return False

    age = rmap_item.age
    if age != 0xff:
        rmap_item.age += 1

    # A page needs three visits to get through the checksum and the trees.
    if age < 3:
        return False

    # When its skips are used up, the page is visited once and gets new skips. An older page gets more of them.
    if not rmap_item.remaining_skips:
        rmap_item.remaining_skips = <rmap_age_t>skip_age(age)
        return False

    g.ksm_pages_skipped += 1
    rmap_item.remaining_skips -= 1
    remove_rmap_item_from_tree(g, rmap_item)    # an item left in the tree would be two passes old next time
    ksm_step(g.m, STEP_SKIPPED, rmap_item, page, NULL, rmap_item.remaining_skips)
    return True


cdef struct struct_ksm_next_page_arg:
    struct_folio *folio
    struct_page *page
    unsigned long addr


cdef int ksm_next_page_pmd_entry(pmd_t *pmdp, unsigned long addr, unsigned long end, mm_walk *walk) noexcept nogil:
    """Find the first anonymous page below one pmd entry: 1 with walk.private filled in and a reference taken; 0 if there is none."""
    cdef struct_ksm_next_page_arg *private = <struct_ksm_next_page_arg *>walk.private
    cdef vm_area_struct *vma = walk.vma
    cdef pte_t *start_ptep = NULL
    cdef pte_t *ptep
    cdef pte_t pte
    cdef mm_struct *mm = walk.mm
    cdef struct_folio *folio = NULL
    cdef struct_page *page = NULL
    cdef spinlock_t *ptl
    cdef pmd_t pmd

    if ksm_test_exit(mm):
        return 0

    cond_resched()

    pmd = pmdp_get_lockless(pmdp)
    if not pmd_present(pmd):
        return 0

    if pmd_leaf(pmd):
        ptl = pmd_lock(mm, pmdp)
        pmd = pmdp_get(pmdp)
        if not pmd_present(pmd):
            spin_unlock(ptl)
            return 0
        elif pmd_leaf(pmd):
            page = vm_normal_page_pmd(vma, addr, pmd)
            if page == NULL:
                spin_unlock(ptl)
                return 0
            folio = page_folio(page)

            if folio_is_zone_device(folio) or not folio_test_anon(folio):
                spin_unlock(ptl)
                return 0

            page += (addr & (PMD_SIZE - 1)) >> PAGE_SHIFT
            folio_get(folio)    # found_unlock:
            spin_unlock(ptl)
            private.page = page
            private.folio = folio
            private.addr = addr
            return 1
        spin_unlock(ptl)

    start_ptep = pte_offset_map_lock(mm, pmdp, addr, &ptl)
    if start_ptep == NULL:
        return 0

    ptep = start_ptep
    while addr < end:
        pte = ptep_get(ptep)
        if pte_present(pte):
            page = vm_normal_page(vma, addr, pte)
            if page != NULL:
                folio = page_folio(page)
                if not folio_is_zone_device(folio) and folio_test_anon(folio):
                    break
        ptep += 1
        addr += PAGE_SIZE
    if addr >= end:             # not_found_unlock:
        spin_unlock(ptl)
        pte_unmap(start_ptep)
        return 0

    # found_unlock:
    folio_get(folio)
    spin_unlock(ptl)
    pte_unmap(start_ptep)
    private.page = page
    private.folio = folio
    private.addr = addr
    return 1


cdef mm_walk_ops ksm_next_page_ops
ksm_next_page_ops.pmd_entry = ksm_next_page_pmd_entry
ksm_next_page_ops.walk_lock = PGWALK_RDLOCK


cdef ksm_rmap_item *scan_get_next_rmap_item(ksm_globals *g, struct_page **page) noexcept nogil:
    """Move the cursor to the next page to be looked at: returns its item, and the page with a reference.

    NULL at the end of a pass, also when there was nothing to scan. NULL also when there is no memory for an item; the cursor stays then.
    """
    cdef mm_struct *mm
    cdef ksm_mm_slot *mm_slot
    cdef struct_mm_slot *slot
    cdef vm_area_struct *vma
    cdef ksm_rmap_item *rmap_item
    cdef vma_iterator vmi
    cdef ksm_stable_node *stable_node
    cdef list_head *pos
    cdef list_head *next
    cdef struct_ksm_next_page_arg ksm_next_page_arg
    cdef struct_page *tmp_page
    cdef struct_folio *folio
    cdef bint next_mm = False
    cdef bint skip
    cdef int nid, found

    if list_empty(&g.ksm_mm_head.slot.mm_node):
        return NULL

    mm_slot = g.ksm_scan.mm_slot
    if mm_slot == &g.ksm_mm_head:
        advisor_start_scan(g)
        trace_ksm_start_scan(&g.trace, <int>g.ksm_scan.seqnr, <unsigned int>g.ksm_rmap_items)

        # A new page is held in a per-CPU batch until it reaches the LRU lists. The batch's reference forbids a merge. A program that waits
        # for the counters to settle would wait for long. So the batches are drained once a pass.
        lru_add_drain_all(g.m)

        # A search in a tree drops the stale nodes that it meets. No search goes through this list, so its stale nodes are dropped here.
        if not g.ksm_merge_across_nodes:
            pos = g.migrate_nodes.next
            while pos != &g.migrate_nodes:
                next = pos.next
                stable_node = stable_node_of_list(pos)
                folio = ksm_get_folio(g, stable_node, KSM_GET_FOLIO_NOLOCK)
                if folio != NULL:
                    folio_put(g.m, folio)
                cond_resched()
                pos = next

        # OURS: all roots are reset; the kernel resets those in use. If merge_across_nodes is switched on in one pass, and off in the next,
        # the other roots come back into use. They would have links to rmap_items that may be freed.
        # Not here: ksm_nr_node_ids: the number of roots in use
        for nid in range(1 if g.root_unstable_tree == g.one_unstable_tree else g.m.nr_node_ids):
            g.root_unstable_tree[nid].rb_node = NULL

        spin_lock(&g.ksm_mmlist_lock)
        slot = mm_slot_of_list(mm_slot.slot.mm_node.next)
        mm_slot = mm_slot_entry(slot)
        g.ksm_scan.mm_slot = mm_slot
        spin_unlock(&g.ksm_mmlist_lock)
        ksm_step(g.m, STEP_PASS_BEGINS, NULL, NULL, NULL, <long>g.ksm_scan.seqnr)
        # The last slot may have left the list since it was found not empty.
        if mm_slot == &g.ksm_mm_head:
            return NULL
        next_mm = True

    while True:
        if next_mm:             # next_mm:
            g.ksm_scan.address = 0
            g.ksm_scan.rmap_list = &mm_slot.rmap_list
        next_mm = True

        slot = &mm_slot.slot
        mm = slot.mm
        vma_iter_init(&vmi, mm, g.ksm_scan.address)

        mmap_read_lock(mm)
        # An exiting address space goes straight to no_vmas.
        vma = NULL if ksm_test_exit(mm) else vma_next(&vmi)

        while vma != NULL:
            if not (vma.vm_flags & VM_MERGEABLE):
                vma = vma_next(&vmi)
                continue
            if g.ksm_scan.address < vma.vm_start:
                g.ksm_scan.address = vma.vm_start
            if not vma_has_anon_vma(vma):
                g.ksm_scan.address = vma.vm_end

            while g.ksm_scan.address < vma.vm_end:
                tmp_page = NULL
                folio = NULL

                if ksm_test_exit(mm):
                    break

                found = walk_page_range_vma(vma, g.ksm_scan.address, vma.vm_end, &ksm_next_page_ops, &ksm_next_page_arg)

                if found > 0:
                    folio = ksm_next_page_arg.folio
                    tmp_page = ksm_next_page_arg.page
                    g.ksm_scan.address = ksm_next_page_arg.addr
                else:
                    VM_BUG_ON(found < 0)
                    g.ksm_scan.address = vma.vm_end - PAGE_SIZE

                if tmp_page != NULL:
                    flush_anon_page(vma, tmp_page, g.ksm_scan.address)
                    flush_dcache_page(tmp_page)
                    rmap_item = get_next_rmap_item(g, mm_slot, g.ksm_scan.rmap_list, g.ksm_scan.address)
                    skip = False
                    if rmap_item != NULL:
                        g.ksm_scan.rmap_list = &rmap_item.rmap_list
                        if should_skip_rmap_item(g, tmp_page, rmap_item):
                            folio_put(g.m, folio)
                            skip = True         # goto next_page
                        else:
                            g.ksm_scan.address += PAGE_SIZE
                            page[0] = tmp_page
                    else:
                        folio_put(g.m, folio)
                    if not skip:
                        mmap_read_unlock(mm)
                        return rmap_item
                # next_page:
                g.ksm_scan.address += PAGE_SIZE
                cond_resched()
            vma = vma_next(&vmi)

        # OURS: the condition is asked again where the kernel jumps in
        if ksm_test_exit(mm):
            # no_vmas:
            g.ksm_scan.address = 0
            g.ksm_scan.rmap_list = &mm_slot.rmap_list
        # Items above the last page that was found have no page any more.
        remove_trailing_rmap_items(g, g.ksm_scan.rmap_list)

        spin_lock(&g.ksm_mmlist_lock)
        slot = mm_slot_of_list(mm_slot.slot.mm_node.next)
        g.ksm_scan.mm_slot = mm_slot_entry(slot)
        if g.ksm_scan.address == 0:
            # There is not one mergeable vma. The lock was held all the while, so no madvise can have come in between. The slot is freed as
            # __ksm_exit() frees it. Either the process exits, and ksmd came before __ksm_exit(), or it has unmapped all its mergeable
            # memory.
            hash_del(&mm_slot.slot.hash)
            list_del(&mm_slot.slot.mm_node)
            spin_unlock(&g.ksm_mmlist_lock)

            mm_slot_free(g.mm_slot_cache, mm_slot)
            # Only MMF_VM_MERGEABLE is cleared. A process with MMF_VM_MERGE_ANY may have been registered when it was forked, and may have
            # mapped nothing yet.
            clear_bit(MMF_VM_MERGEABLE, &mm.flags)
            mmap_read_unlock(mm)
            mmdrop(mm)
        else:
            mmap_read_unlock(mm)
            # mmap_lock is released before ksm_mmlist_lock. The cursor has left the slot, so without ksm_mmlist_lock __ksm_exit() can free
            # the slot and the address space.
            spin_unlock(&g.ksm_mmlist_lock)

        mm_slot = g.ksm_scan.mm_slot
        if mm_slot == &g.ksm_mm_head:
            break

    advisor_stop_scan(g)

    trace_ksm_stop_scan(&g.trace, <int>g.ksm_scan.seqnr, <unsigned int>g.ksm_rmap_items)
    g.ksm_scan.seqnr += 1
    return NULL


cdef void ksm_do_scan(ksm_globals *g, unsigned int scan_npages) noexcept nogil:
    """Look at scan_npages pages. Stop earlier when the pass ends, when the time slice is over, or when the machine is closed. The
    caller holds ksm_thread_mutex.
    """
    cdef ksm_rmap_item *rmap_item
    cdef struct_page *page

    while scan_npages:
        scan_npages -= 1
        if freezing(g.m, &g.freezer, scan_npages + 1):
            return
        cond_resched()
        rmap_item = scan_ahead(g, &page, scan_npages)   # OURS: scan_get_next_rmap_item(&page)
        if rmap_item == NULL:
            return
        if era_2011(g):
            cmp_and_merge_page_2011(g, page, rmap_item)
        else:
            cmp_and_merge_page(g, page, rmap_item)
        put_page(g.m, page)
        g.ksm_pages_scanned += 1


cdef bint ksmd_should_run(ksm_globals *g) noexcept nogil:
    return READ_ONCE_ulong(g.ksm_run) & KSM_RUN_MERGE and not list_empty(&g.ksm_mm_head.slot.mm_node)


cdef void ksm_run_batch(ksm_globals *g, unsigned int scan_npages, unsigned long long slice_ns) noexcept nogil:
    # OURS: ksm_do_scan() with its processor time counted, for slice_ns nanoseconds at most (0: without a limit). The caller holds the
    # mutex.
    cdef timespec ts
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts)
    g.ksmd_slice = <unsigned long long>ts.tv_sec * 1000000000 + <unsigned long long>ts.tv_nsec
    start_slice(&g.freezer, slice_ns)
    ksm_do_scan(g, scan_npages)
    g.ksmd_runtime = task_sched_runtime(g)
    g.ksmd_slice = 0


cdef inline unsigned long long monotonic_ns() noexcept nogil:
    # OURS: ksmd sleeps by the real clock, even if the machine has a manual one.
    cdef timespec ts
    clock_gettime(CLOCK_MONOTONIC, &ts)
    return <unsigned long long>ts.tv_sec * 1000000000 + <unsigned long long>ts.tv_nsec


cdef inline bint kthread_should_stop(ksm_globals *g) noexcept nogil:
    # OURS: the kernel's flag belongs to the thread.
    return READ_ONCE_int(g.ksmd_should_stop)


cdef void ksmd_sleep(ksm_globals *g, unsigned int sleep_ms) noexcept nogil:
    # OURS: wait_event_freezable_timeout(). Writing another value to sleep_millisecs ends the sleep; writing the same value does not.
    cdef unsigned long long deadline = monotonic_ns() + <unsigned long long>sleep_ms * NSEC_PER_MSEC
    cdef unsigned long ticket = prepare_to_wait(&g.ksm_iter_wait)
    cdef unsigned long long now = monotonic_ns()
    while sleep_ms == READ_ONCE_uint(g.ksm_thread_sleep_millisecs) and not kthread_should_stop(g) and now < deadline:
        wait_for_wakeup_timeout(&g.ksm_iter_wait, ticket, deadline - now)
        ticket = prepare_to_wait(&g.ksm_iter_wait)
        now = monotonic_ns()


cdef void ksmd_wait(ksm_globals *g) noexcept nogil:
    # OURS: wait_event_freezable().
    cdef unsigned long ticket = prepare_to_wait(&g.ksm_thread_wait)
    while not (ksmd_should_run(g) or kthread_should_stop(g)):
        wait_for_wakeup(&g.ksm_thread_wait, ticket)
        ticket = prepare_to_wait(&g.ksm_thread_wait)


cdef void *ksm_scan_thread(void *globals) noexcept nogil:
    """The thread ksmd: it scans a batch and sleeps, by turns, while `run` is 1. Else it waits."""
    cdef ksm_globals *g = <ksm_globals *>globals
    cdef unsigned int sleep_ms

    # Not here: set_freezable, set_user_nice: ksmd is a thread of a program here, and a program has one niceness

    while not kthread_should_stop(g):
        mutex_lock(&g.ksm_thread_mutex)
        wait_while_offlining(g)
        if ksmd_should_run(g):
            ksm_run_batch(g, READ_ONCE_uint(g.ksm_thread_pages_to_scan), 0)     # OURS: ksm_do_scan() with its processor time counted
        mutex_unlock(&g.ksm_thread_mutex)

        if ksmd_should_run(g):
            sleep_ms = READ_ONCE_uint(g.ksm_thread_sleep_millisecs)
            ksmd_sleep(g, sleep_ms)     # OURS: wait_event_freezable_timeout()
        else:
            ksmd_wait(g)                # OURS: wait_event_freezable()
    return NULL


cdef void __ksm_add_vma(vm_area_struct *vma) noexcept nogil:
    cdef vm_flags_t vm_flags = vma.vm_flags

    if vm_flags & VM_MERGEABLE:
        return

    if vma_ksm_compatible(vma):
        vm_flags_set(vma, VM_MERGEABLE)


cdef int __ksm_del_vma(vm_area_struct *vma) noexcept nogil:
    cdef int err

    if not (vma.vm_flags & VM_MERGEABLE):
        return 0

    if vma.anon_vma != NULL:
        err = unmerge_ksm_pages(vma, vma.vm_start, vma.vm_end, True)
        if err:
            return err

    vm_flags_clear(vma, VM_MERGEABLE)
    return 0


cdef void ksm_add_vma(vm_area_struct *vma) noexcept nogil:
    """Make a new vma mergeable if its process asked for all its memory to be merged."""
    cdef mm_struct *mm = vma.vm_mm

    if test_bit(MMF_VM_MERGE_ANY, &mm.flags):
        __ksm_add_vma(vma)
        # The process was registered by prctl or by fork. But ksmd drops a process that had nothing mergeable for a whole pass.
        if not test_bit(MMF_VM_MERGEABLE, &mm.flags):
            __ksm_enter(mm)


cdef vm_flags_t ksm_vma_flags(mm_struct *mm, vm_flags_t vm_flags) noexcept nogil:
    # OURS: in 7.3, ksm_add_vma() before there is a vma. Only memory that becomes mergeable registers its process.
    cdef vm_area_struct vma
    memset(&vma, 0, sizeof(vma))
    vma.vm_mm = mm
    vma.vm_flags = vm_flags
    if test_bit(MMF_VM_MERGE_ANY, &mm.flags) and not vm_flags & VM_MERGEABLE and vma_ksm_compatible(&vma):
        if not test_bit(MMF_VM_MERGEABLE, &mm.flags):
            __ksm_enter(mm)
        vm_flags |= VM_MERGEABLE
    return vm_flags


cdef void ksm_add_vmas(mm_struct *mm) noexcept nogil:
    cdef vma_iterator vmi
    cdef vm_area_struct *vma

    vma_iter_init(&vmi, mm, 0)
    vma = vma_next(&vmi)
    while vma != NULL:
        __ksm_add_vma(vma)
        vma = vma_next(&vmi)


cdef int ksm_del_vmas(mm_struct *mm) noexcept nogil:
    cdef vma_iterator vmi
    cdef vm_area_struct *vma
    cdef int err

    vma_iter_init(&vmi, mm, 0)
    vma = vma_next(&vmi)
    while vma != NULL:
        err = __ksm_del_vma(vma)
        if err:
            return err
        vma = vma_next(&vmi)
    return 0


cdef int ksm_enable_merge_any(mm_struct *mm) noexcept nogil:
    """prctl(PR_SET_MEMORY_MERGE, 1): make all memory that can be merged mergeable, now and in future. 0 or -ENOMEM."""
    cdef int err

    if test_bit(MMF_VM_MERGE_ANY, &mm.flags):
        return 0

    if not test_bit(MMF_VM_MERGEABLE, &mm.flags):
        err = __ksm_enter(mm)
        if err:
            return err

    set_bit(MMF_VM_MERGE_ANY, &mm.flags)
    ksm_add_vmas(mm)

    return 0


cdef int ksm_disable_merge_any(mm_struct *mm) noexcept nogil:
    """prctl(PR_SET_MEMORY_MERGE, 0): unmerge all memory of the process. If that fails, all of it stays mergeable. 0 or -errno."""
    cdef int err

    if not test_bit(MMF_VM_MERGE_ANY, &mm.flags):
        return 0

    err = ksm_del_vmas(mm)
    if err:
        ksm_add_vmas(mm)
        return err

    clear_bit(MMF_VM_MERGE_ANY, &mm.flags)
    return 0


cdef int ksm_disable(mm_struct *mm) noexcept nogil:
    """Unmerge an address space, whether prctl or madvise made it mergeable. 0 or -errno."""
    VM_BUG_ON(not mmap_is_write_locked(mm))

    if not test_bit(MMF_VM_MERGEABLE, &mm.flags):
        return 0
    if test_bit(MMF_VM_MERGE_ANY, &mm.flags):
        return ksm_disable_merge_any(mm)
    return ksm_del_vmas(mm)


cdef int ksm_madvise(vm_area_struct *vma, unsigned long start, unsigned long end, int advice, vm_flags_t *vm_flags) noexcept nogil:
    """madvise(MADV_MERGEABLE) and madvise(MADV_UNMERGEABLE) for one vma. Sets or clears VM_MERGEABLE in *vm_flags, which the caller puts
    into effect. 0 or -errno; an MADV_MERGEABLE that cannot be followed is ignored.
    """
    cdef mm_struct *mm = vma.vm_mm
    cdef int err

    if advice == MADV_MERGEABLE:
        if vma.vm_flags & VM_MERGEABLE:
            return 0
        if not vma_ksm_compatible(vma):
            return 0

        if not test_bit(MMF_VM_MERGEABLE, &mm.flags):
            err = __ksm_enter(mm)
            if err:
                return err

        vm_flags[0] |= VM_MERGEABLE

    elif advice == MADV_UNMERGEABLE:
        if not (vm_flags[0] & VM_MERGEABLE):
            return 0

        if vma.anon_vma != NULL:
            err = unmerge_ksm_pages(vma, start, end, True)
            if err:
                return err

        vm_flags[0] &= ~VM_MERGEABLE

    return 0


cdef int __ksm_enter(mm_struct *mm) noexcept nogil:
    """Register an address space: 0 or -ENOMEM."""
    cdef ksm_globals *g = globals_of(mm)
    cdef ksm_mm_slot *mm_slot
    cdef struct_mm_slot *slot
    cdef bint needs_wakeup

    mm_slot = <ksm_mm_slot *>mm_slot_alloc(g.mm_slot_cache)
    if mm_slot == NULL:
        return -ENOMEM

    slot = &mm_slot.slot

    # Other processes may be registered or leave at this moment.
    needs_wakeup = list_empty(&g.ksm_mm_head.slot.mm_node)

    spin_lock(&g.ksm_mmlist_lock)
    # OURS: asked again with the lock. Otherwise ksmd could sleep on, if the last slot leaves just now.
    needs_wakeup = list_empty(&g.ksm_mm_head.slot.mm_node)
    mm_slot_insert(g.mm_slots_hash, MM_SLOTS_HASH_BITS, mm, slot)
    # The slot goes just behind the cursor. So its memory has nearly a pass of time to settle, and a fork that execs at once is gone by
    # then. But unmerging must find every process that has merged pages, also a child that is forked just now: while `run` is 2 the slot
    # goes to the end of the list, where the cursor has not been.
    if READ_ONCE_ulong(g.ksm_run) & KSM_RUN_UNMERGE and not era_2011(g):    # 2011 lacks this case
        list_add_tail(&slot.mm_node, &g.ksm_mm_head.slot.mm_node)
    else:
        list_add_tail(&slot.mm_node, &g.ksm_scan.mm_slot.slot.mm_node)
    spin_unlock(&g.ksm_mmlist_lock)

    set_bit(MMF_VM_MERGEABLE, &mm.flags)
    mmgrab(mm)

    if needs_wakeup:
        wake_up_interruptible(&g.ksm_thread_wait)

    trace_ksm_enter(&g.trace, mm)
    return 0


cdef void __ksm_exit(mm_struct *mm) noexcept nogil:
    """Unregister an address space whose last user is gone. Its pages are still mapped.

    If the slot has no items and the cursor is elsewhere, the slot is freed here. Else ksmd will free it with its items: the slot is moved
    next to the cursor, so that this is soon. Taking mmap_lock then waits for a break_cow() that may be in the page tables. ksmd may also
    have come first, and the slot may be gone.
    """
    cdef ksm_globals *g = globals_of(mm)
    cdef ksm_mm_slot *mm_slot
    cdef struct_mm_slot *slot
    cdef bint easy_to_free = False

    spin_lock(&g.ksm_mmlist_lock)
    slot = mm_slot_lookup(g.mm_slots_hash, MM_SLOTS_HASH_BITS, mm)
    mm_slot = mm_slot_entry(slot)       # NULL if slot is NULL
    if mm_slot != NULL and g.ksm_scan.mm_slot != mm_slot:
        if mm_slot.rmap_list == NULL:
            hash_del(&slot.hash)
            list_del(&slot.mm_node)
            easy_to_free = True
        else:
            list_move(&slot.mm_node, &g.ksm_scan.mm_slot.slot.mm_node)
    spin_unlock(&g.ksm_mmlist_lock)

    if easy_to_free:
        mm_slot_free(g.mm_slot_cache, mm_slot)
        clear_bit(MMF_VM_MERGE_ANY, &mm.flags)
        clear_bit(MMF_VM_MERGEABLE, &mm.flags)
        mmdrop(mm)
    elif mm_slot != NULL:
        mmap_write_lock(mm)
        mmap_write_unlock(mm)

    trace_ksm_exit(&g.trace, mm)


cdef struct_folio *ksm_might_need_to_copy(struct_folio *folio, vm_area_struct *vma, unsigned long addr) noexcept nogil:
    """The page to map when a page comes back from swap: the page itself if it can be found again from here, else a locked copy.

    NULL without memory, ERR_PTR(-EHWPOISON) for a page that cannot be read.
    """
    cdef machine *m = vma.vm_mm.machine
    cdef ksm_globals *g = globals_of(vma.vm_mm)
    cdef struct_page *page = folio_page(folio, 0)
    cdef struct_anon_vma *anon_vma = folio_anon_vma(folio)
    cdef struct_folio *new_folio

    if folio_test_large(folio):
        return folio

    if folio_test_ksm(folio):
        if folio_stable_node(folio) != NULL and not (READ_ONCE_ulong(g.ksm_run) & KSM_RUN_UNMERGE):
            return folio        # still merged
    elif anon_vma == NULL:
        return folio            # the page is fresh from swap and will belong to this vma
    elif folio.index == linear_page_index(vma, addr) and READ_ONCE_ptr((<void **>&anon_vma.root)[0]) == vma.anon_vma.root:
        # The page belongs to this vma already. The anon_vma of an unmapped page may have been freed and reused, so only its root's address
        # is compared.
        return folio
    if PageHWPoison(page):
        return <struct_folio *>ERR_PTR(-EHWPOISON)
    if not folio_test_uptodate(folio):
        return folio            # do_swap_page() reports the error

    # Not here: mem_cgroup_charge: there are no control groups
    new_folio = alloc_pages_node(m, vma.vm_mm.nid, 0, False)
    if new_folio != NULL:
        # Not here: copy_mc_user_highpage: it fails if a page cannot be read, which does not happen here
        copy_highpage(m, new_folio, page)       # OURS: a copy of the whole page
        folio_set_dirty(new_folio)      # no effect here: the page has no swap slot, and add_to_swap() makes each page dirty that gets one
        __folio_mark_uptodate(new_folio)
        __folio_set_locked(new_folio)
        count_vm_event(m, KSM_SWPIN_COPY)

    return new_folio


cdef inline bint has_index(vm_area_struct *vma, ksm_rmap_item *rmap_item) noexcept nogil:
    # OURS: a walk of 7.3 visits only the vmas that have the page's index: anon_rmap_tree_foreach(vmac, anon_vma, index, index).
    return vma.vm_pgoff <= rmap_item.linear_page_index < vma.vm_pgoff + vma_pages(vma)


cdef void rmap_walk_ksm(struct_folio *folio, rmap_walk_control *rwc) noexcept nogil:
    """Call rmap_one() for every mapping of a merged page. The folio is locked, which guards its node's hlist."""
    cdef ksm_stable_node *stable_node
    cdef ksm_rmap_item *rmap_item
    cdef hlist_node *pos
    cdef struct_anon_vma *anon_vma
    cdef anon_vma_chain *vmac
    cdef vm_area_struct *vma
    cdef unsigned long addr
    cdef int search_new_forks

    VM_BUG_ON(not folio_test_ksm(folio))
    VM_BUG_ON(not folio_test_locked(folio))

    stable_node = folio_stable_node(folio)
    if stable_node == NULL:
        return
    for search_new_forks in range(2):           # again:
        pos = stable_node.hlist.first
        while pos != NULL:
            rmap_item = rmap_item_of_hlist(pos)
            pos = pos.next
            anon_vma = rmap_item.anon_vma

            cond_resched()
            if not anon_vma_trylock_read(anon_vma):
                if rwc.try_lock:
                    rwc.contended = True
                    return
                anon_vma_lock_read(anon_vma)
            vmac = anon_vma_interval_tree_iter_first(&anon_vma.rb_root, 0, ULONG_MAX)
            while vmac != NULL:
                cond_resched()
                vma = vmac.vma
                vmac = anon_vma_interval_tree_iter_next(vmac, 0, ULONG_MAX)

                # The address without the flags in its low bits
                addr = rmap_item.address & page_mask()

                if addr < vma.vm_start or addr >= vma.vm_end:
                    continue
                if since_7_3(globals_of(vma.vm_mm)) and not has_index(vma, rmap_item):
                    continue
                # The first round takes the item's own process, the second its relatives. A child maps the page at the same address and has
                # no item before ksmd has been there.
                if (rmap_item.mm == vma.vm_mm) == search_new_forks:
                    continue

                if rwc.invalid_vma != NULL and rwc.invalid_vma(vma, rwc.arg):
                    continue

                if not rwc.rmap_one(folio, vma, addr, rwc.arg) or (rwc.done != NULL and rwc.done(folio)):
                    anon_vma_unlock_read(anon_vma)
                    return
            anon_vma_unlock_read(anon_vma)


cdef void collect_procs_ksm(struct_folio *folio, to_kill_list *tokill) noexcept nogil:
    """The frame of a merged page is broken: put each process that maps it on the list of those to be killed. Each process is put there
    once, with the first address that is found. Every process counts here, not only one that asked to be killed early.

    The kernel looks for each process in each tree. Here the processes found in the tree are all there are.
    """
    # Not here: page, force_early: only a signal needs them
    cdef ksm_stable_node *stable_node
    cdef ksm_rmap_item *rmap_item
    cdef hlist_node *pos
    cdef struct_anon_vma *av
    cdef anon_vma_chain *vmac
    cdef vm_area_struct *vma
    cdef unsigned long addr

    stable_node = folio_stable_node(folio)
    if stable_node == NULL:
        return
    pos = stable_node.hlist.first
    while pos != NULL:
        rmap_item = rmap_item_of_hlist(pos)
        av = rmap_item.anon_vma

        anon_vma_lock_read(av)
        # Not here: rcu_read_lock, for_each_process, task_early_kill, t, rcu_read_unlock: every process counts, and its mm stands for it
        vmac = anon_vma_interval_tree_iter_first(&av.rb_root, 0, ULONG_MAX)
        while vmac != NULL:
            vma = vmac.vma
            vmac = anon_vma_interval_tree_iter_next(vmac, 0, ULONG_MAX)
            if since_7_3(globals_of(vma.vm_mm)) and not has_index(vma, rmap_item):
                continue
            # OURS: an address space without users has no process
            if atomic_read(&vma.vm_mm.mm_users) > 0:
                addr = rmap_item.address & page_mask()
                add_to_kill_ksm(vma.vm_mm, tokill, addr)
        anon_vma_unlock_read(av)
        pos = pos.next


cdef void folio_migrate_ksm(machine *m, struct_folio *newfolio, struct_folio *folio) noexcept nogil:
    """Let a stable node follow its page to another frame. Both folios are locked, and the new one has the old one's mapping word."""
    cdef ksm_stable_node *stable_node

    VM_BUG_ON(not folio_test_locked(folio))
    VM_BUG_ON(not folio_test_locked(newfolio))
    VM_BUG_ON(newfolio.mapping != folio.mapping)

    stable_node = folio_stable_node(folio)
    if stable_node != NULL:
        VM_BUG_ON(stable_node.kpfn != folio_pfn(m, folio))
        WRITE_ONCE_ulong(stable_node.kpfn, folio_pfn(m, newfolio))      # OURS: ksm_get_folio() reads it without a lock
        # A thread that no longer finds the node's address in the old frame must find the new frame's number: see ksm_get_folio().
        smp_wmb()
        folio_set_stable_node(folio, NULL)


cdef void wait_while_offlining(ksm_globals *g) noexcept nogil:
    cdef unsigned long ticket
    while READ_ONCE_ulong(g.ksm_run) & KSM_RUN_OFFLINE:
        ticket = prepare_to_wait(&g.offline_wait)               # OURS: a part of wait_on_bit()
        mutex_unlock(&g.ksm_thread_mutex)
        if READ_ONCE_ulong(g.ksm_run) & KSM_RUN_OFFLINE:        # OURS: wait_on_bit()
            wait_for_wakeup(&g.offline_wait, ticket)
        mutex_lock(&g.ksm_thread_mutex)


cdef bint stable_node_dup_remove_range(ksm_globals *g, ksm_stable_node *stable_node, unsigned long start_pfn,
                                       unsigned long end_pfn) noexcept nogil:
    # Pages outside the range may move to other frames meanwhile.
    if start_pfn <= READ_ONCE_ulong(stable_node.kpfn) < end_pfn:
        # The node is found by its frame number alone: the frame no longer exists.
        remove_node_from_stable_tree(g, stable_node)
        return True
    return False


cdef bint stable_node_chain_remove_range(ksm_globals *g, ksm_stable_node *stable_node, unsigned long start_pfn,
                                         unsigned long end_pfn, rb_root *root) noexcept nogil:
    """Drop the node, or those of its dups, whose frames are in the range; true if the tree has changed by it."""
    cdef hlist_node *pos
    cdef hlist_node *hlist_safe
    cdef ksm_stable_node *dup

    if not is_stable_node_chain(stable_node):
        VM_BUG_ON(is_stable_node_dup(g, stable_node))
        return stable_node_dup_remove_range(g, stable_node, start_pfn, end_pfn)

    pos = stable_node.hlist.first
    while pos != NULL:
        hlist_safe = pos.next
        dup = stable_node_of_dup(pos)
        VM_BUG_ON(not is_stable_node_dup(g, dup))
        stable_node_dup_remove_range(g, dup, start_pfn, end_pfn)
        pos = hlist_safe
    if hlist_empty(&stable_node.hlist):
        free_stable_node_chain(g, stable_node, root)
        return True
    else:
        return False


cdef void ksm_check_stable_tree(ksm_globals *g, unsigned long start_pfn, unsigned long end_pfn) noexcept nogil:
    cdef ksm_stable_node *stable_node
    cdef list_head *pos
    cdef list_head *next
    cdef rb_node *node
    cdef int nid

    for nid in range(g.ksm_nr_node_ids):
        node = rb_first(g.root_stable_tree + nid)
        while node != NULL:
            stable_node = stable_node_of(node)
            if stable_node_chain_remove_range(g, stable_node, start_pfn, end_pfn, g.root_stable_tree + nid):
                node = rb_first(g.root_stable_tree + nid)
            else:
                node = rb_next(node)
            cond_resched()
    pos = g.migrate_nodes.next
    while pos != &g.migrate_nodes:
        next = pos.next
        stable_node = stable_node_of_list(pos)
        if start_pfn <= READ_ONCE_ulong(stable_node.kpfn) < end_pfn:
            remove_node_from_stable_tree(g, stable_node)
        cond_resched()
        pos = next


cdef int ksm_memory_callback(ksm_globals *g, unsigned long action, void *arg) noexcept nogil:
    """The notifier of memory hotplug: stop ksmd while frames go away, and drop the nodes of frames that are gone."""
    cdef struct_memory_notify *mn = <struct_memory_notify *>arg

    if action == MEM_GOING_OFFLINE:
        # From here on no thread that takes ksm_thread_mutex may touch the trees. Unmerging by madvise and the rmap walks do not take it,
        # and are safe.
        mutex_lock(&g.ksm_thread_mutex)
        WRITE_ONCE_ulong(g.ksm_run, g.ksm_run | KSM_RUN_OFFLINE)    # OURS: ksmd reads it without the mutex
        mutex_unlock(&g.ksm_thread_mutex)

    elif action == MEM_OFFLINE or action == MEM_CANCEL_OFFLINE:
        if action == MEM_OFFLINE:
            # Migration has emptied the range. Stale nodes may still have a frame number of the range, and ksm_get_folio() would look at
            # that frame.
            ksm_check_stable_tree(g, mn.start_pfn, mn.start_pfn + mn.nr_pages)
        mutex_lock(&g.ksm_thread_mutex)
        WRITE_ONCE_ulong(g.ksm_run, g.ksm_run & ~<unsigned long>KSM_RUN_OFFLINE)    # OURS: ksmd reads it without the mutex
        mutex_unlock(&g.ksm_thread_mutex)

        smp_mb()
        wake_up_interruptible(&g.offline_wait)  # OURS: wake_up_bit()
    return NOTIFY_OK


cdef long ksm_process_profit(mm_struct *mm) noexcept nogil:
    """What merging saves this process less what its rmap_items cost, in bytes."""
    return (<long>(mm.ksm_merging_pages + <unsigned long>mm_ksm_zero_pages(mm)) * PAGE_SIZE
            - <long>(mm.ksm_rmap_items * sizeof(ksm_rmap_item)))


# The files of /sys/kernel/mm/ksm. A show function writes the value and a newline into buf. A store function takes the text that was
# written, and returns its length or -errno. KSM_ATTR_RO and KSM_ATTR, which make a table entry from a name, became ksm_attrs_init().

cdef long sleep_millisecs_show(ksm_globals *g, char *buf) noexcept nogil:
    return sysfs_emit(buf, b"%u\n", g.ksm_thread_sleep_millisecs)


cdef long sleep_millisecs_store(ksm_globals *g, const char *buf, size_t count) noexcept nogil:
    cdef unsigned int msecs
    cdef int err

    err = kstrtouint(buf, &msecs)
    if err:
        return -EINVAL

    WRITE_ONCE_uint(g.ksm_thread_sleep_millisecs, msecs)    # OURS: ksmd reads it without the mutex
    wake_up_interruptible(&g.ksm_iter_wait)

    return <long>count


cdef long pages_to_scan_show(ksm_globals *g, char *buf) noexcept nogil:
    return sysfs_emit(buf, b"%u\n", g.ksm_thread_pages_to_scan)


cdef long pages_to_scan_store(ksm_globals *g, const char *buf, size_t count) noexcept nogil:
    cdef unsigned int nr_pages
    cdef int err

    if g.ksm_advisor != KSM_ADVISOR_NONE:
        return -EINVAL

    err = kstrtouint(buf, &nr_pages)
    if err:
        return -EINVAL

    WRITE_ONCE_uint(g.ksm_thread_pages_to_scan, nr_pages)    # OURS: ksmd reads it without the mutex

    return <long>count


cdef long run_show(ksm_globals *g, char *buf) noexcept nogil:
    return sysfs_emit(buf, b"%lu\n", g.ksm_run)


cdef long run_store(ksm_globals *g, const char *buf, size_t count) noexcept nogil:
    cdef unsigned int flags
    cdef int err

    err = kstrtouint(buf, &flags)
    if err:
        return -EINVAL
    if flags > KSM_RUN_UNMERGE:
        return -EINVAL

    # 1 lets ksmd run, 0 stops it. 2 stops it and undoes all merges; the processes stay registered for the next 1. Writing the value that is
    # there does nothing.

    mutex_lock(&g.ksm_thread_mutex)
    wait_while_offlining(g)
    if g.ksm_run != flags:
        WRITE_ONCE_ulong(g.ksm_run, flags)    # OURS: ksmd reads it without the mutex
        if flags & KSM_RUN_UNMERGE:
            # Not here: set_current_oom_origin, clear_current_oom_origin: there is no OOM killer
            err = unmerge_and_remove_all_rmap_items(g)
            if err:
                WRITE_ONCE_ulong(g.ksm_run, KSM_RUN_STOP)    # OURS: ksmd reads it without the mutex
                count = <size_t>err
    mutex_unlock(&g.ksm_thread_mutex)

    if flags & KSM_RUN_MERGE:
        err = ksmd_start(g)     # OURS: the kernel has started ksmd at boot
        if err:                 # OURS: no thread can be created
            return err
        wake_up_interruptible(&g.ksm_thread_wait)

    return <long>count


cdef long merge_across_nodes_show(ksm_globals *g, char *buf) noexcept nogil:
    return sysfs_emit(buf, b"%u\n", g.ksm_merge_across_nodes)


cdef long merge_across_nodes_store(ksm_globals *g, const char *buf, size_t count) noexcept nogil:
    cdef int err
    cdef unsigned long knob
    cdef rb_root *roots

    err = kstrtoul(buf, &knob)
    if err:
        return err
    if knob > 1:
        return -EINVAL

    mutex_lock(&g.ksm_thread_mutex)
    wait_while_offlining(g)
    if g.ksm_merge_across_nodes != knob:
        if g.ksm_pages_shared or remove_all_stable_nodes(g):
            err = -EBUSY
        elif g.root_stable_tree == g.one_stable_tree:
            # The first time, all the roots that may be needed are allocated and kept: stable ones first, then unstable ones.
            roots = <rb_root *>calloc(g.m.nr_node_ids + g.m.nr_node_ids, sizeof(rb_root))
            if roots == NULL:
                err = -ENOMEM
            else:
                g.root_stable_tree = roots
                g.root_unstable_tree = roots + g.m.nr_node_ids
                # No merged page is left, but the unstable tree stays in use.
                g.root_unstable_tree[0] = g.one_unstable_tree[0]
        if not err:
            g.ksm_merge_across_nodes = <unsigned int>knob
            g.ksm_nr_node_ids = 1 if knob else g.m.nr_node_ids
    mutex_unlock(&g.ksm_thread_mutex)

    return err if err else <long>count


cdef long use_zero_pages_show(ksm_globals *g, char *buf) noexcept nogil:
    return sysfs_emit(buf, b"%u\n", <unsigned int>g.ksm_use_zero_pages)


cdef long use_zero_pages_store(ksm_globals *g, const char *buf, size_t count) noexcept nogil:
    cdef int err
    cdef bint value

    err = kstrtobool(buf, &value)
    if err:
        return -EINVAL

    g.ksm_use_zero_pages = value

    return <long>count


cdef long max_page_sharing_show(ksm_globals *g, char *buf) noexcept nogil:
    return sysfs_emit(buf, b"%u\n", <unsigned int>g.ksm_max_page_sharing)


cdef long max_page_sharing_store(ksm_globals *g, const char *buf, size_t count) noexcept nogil:
    cdef int err
    cdef int knob

    err = kstrtoint(buf, &knob)
    if err:
        return err
    # A new merged page has two sharers at once. Negative numbers are smaller than 2, too.
    if knob < 2:
        return -EINVAL

    if READ_ONCE_int(g.ksm_max_page_sharing) == knob:
        return <long>count

    mutex_lock(&g.ksm_thread_mutex)
    wait_while_offlining(g)
    if g.ksm_max_page_sharing != knob:
        if g.ksm_pages_shared or remove_all_stable_nodes(g):
            err = -EBUSY
        else:
            WRITE_ONCE_int(g.ksm_max_page_sharing, knob)    # OURS: it is read above without the mutex
    mutex_unlock(&g.ksm_thread_mutex)

    return err if err else <long>count


cdef long pages_scanned_show(ksm_globals *g, char *buf) noexcept nogil:
    return sysfs_emit(buf, b"%lu\n", g.ksm_pages_scanned)


cdef long pages_shared_show(ksm_globals *g, char *buf) noexcept nogil:
    return sysfs_emit(buf, b"%lu\n", g.ksm_pages_shared)


cdef long pages_sharing_show(ksm_globals *g, char *buf) noexcept nogil:
    return sysfs_emit(buf, b"%lu\n", g.ksm_pages_sharing)


cdef long pages_unshared_show(ksm_globals *g, char *buf) noexcept nogil:
    return sysfs_emit(buf, b"%lu\n", g.ksm_pages_unshared)


cdef long pages_volatile_show(ksm_globals *g, char *buf) noexcept nogil:
    cdef long ksm_pages_volatile

    ksm_pages_volatile = <long>(g.ksm_rmap_items - g.ksm_pages_shared - g.ksm_pages_sharing - g.ksm_pages_unshared)
    # The four numbers are read without a lock and need not agree.
    if ksm_pages_volatile < 0:
        ksm_pages_volatile = 0
    return sysfs_emit(buf, b"%ld\n", ksm_pages_volatile)


cdef long pages_skipped_show(ksm_globals *g, char *buf) noexcept nogil:
    return sysfs_emit(buf, b"%lu\n", g.ksm_pages_skipped)


cdef long ksm_zero_pages_show(ksm_globals *g, char *buf) noexcept nogil:
    return sysfs_emit(buf, b"%ld\n", atomic_long_read(&g.m.ksm_zero_pages))


cdef long general_profit_show(ksm_globals *g, char *buf) noexcept nogil:
    cdef long general_profit

    general_profit = (<long>(g.ksm_pages_sharing + <unsigned long>atomic_long_read(&g.m.ksm_zero_pages)) * PAGE_SIZE
                      - <long>(g.ksm_rmap_items * sizeof(ksm_rmap_item)))

    return sysfs_emit(buf, b"%ld\n", general_profit)


cdef long stable_node_dups_show(ksm_globals *g, char *buf) noexcept nogil:
    return sysfs_emit(buf, b"%lu\n", g.ksm_stable_node_dups)


cdef long stable_node_chains_show(ksm_globals *g, char *buf) noexcept nogil:
    return sysfs_emit(buf, b"%lu\n", g.ksm_stable_node_chains)


cdef long stable_node_chains_prune_millisecs_show(ksm_globals *g, char *buf) noexcept nogil:
    return sysfs_emit(buf, b"%u\n", g.ksm_stable_node_chains_prune_millisecs)


cdef long stable_node_chains_prune_millisecs_store(ksm_globals *g, const char *buf, size_t count) noexcept nogil:
    cdef unsigned int msecs
    cdef int err

    err = kstrtouint(buf, &msecs)
    if err:
        return -EINVAL

    g.ksm_stable_node_chains_prune_millisecs = msecs

    return <long>count


cdef long full_scans_show(ksm_globals *g, char *buf) noexcept nogil:
    return sysfs_emit(buf, b"%lu\n", g.ksm_scan.seqnr)


cdef long smart_scan_show(ksm_globals *g, char *buf) noexcept nogil:
    return sysfs_emit(buf, b"%u\n", <unsigned int>g.ksm_smart_scan)


cdef long smart_scan_store(ksm_globals *g, const char *buf, size_t count) noexcept nogil:
    cdef int err
    cdef bint value

    err = kstrtobool(buf, &value)
    if err:
        return -EINVAL

    g.ksm_smart_scan = value
    return <long>count


cdef long advisor_mode_show(ksm_globals *g, char *buf) noexcept nogil:
    cdef const char *output

    if g.ksm_advisor == KSM_ADVISOR_SCAN_TIME:
        output = b"none [scan-time]"
    else:
        output = b"[none] scan-time"

    return sysfs_emit(buf, b"%s\n", output)


cdef long advisor_mode_store(ksm_globals *g, const char *buf, size_t count) noexcept nogil:
    cdef int curr_advisor = g.ksm_advisor

    if sysfs_streq(b"scan-time", buf):
        g.ksm_advisor = KSM_ADVISOR_SCAN_TIME
    elif sysfs_streq(b"none", buf):
        g.ksm_advisor = KSM_ADVISOR_NONE
    else:
        return -EINVAL

    # Only a change of mode resets the values that the other mode left.
    if curr_advisor != g.ksm_advisor:
        set_advisor_defaults(g)

    return <long>count


cdef long advisor_max_cpu_show(ksm_globals *g, char *buf) noexcept nogil:
    return sysfs_emit(buf, b"%u\n", g.ksm_advisor_max_cpu)


cdef long advisor_max_cpu_store(ksm_globals *g, const char *buf, size_t count) noexcept nogil:
    cdef int err
    cdef unsigned long value

    err = kstrtoul(buf, &value)
    if err:
        return -EINVAL

    g.ksm_advisor_max_cpu = <unsigned int>value
    return <long>count


cdef long advisor_min_pages_to_scan_show(ksm_globals *g, char *buf) noexcept nogil:
    return sysfs_emit(buf, b"%lu\n", g.ksm_advisor_min_pages_to_scan)


cdef long advisor_min_pages_to_scan_store(ksm_globals *g, const char *buf, size_t count) noexcept nogil:
    cdef int err
    cdef unsigned long value

    err = kstrtoul(buf, &value)
    if err:
        return -EINVAL

    g.ksm_advisor_min_pages_to_scan = value
    return <long>count


cdef long advisor_max_pages_to_scan_show(ksm_globals *g, char *buf) noexcept nogil:
    return sysfs_emit(buf, b"%lu\n", g.ksm_advisor_max_pages_to_scan)


cdef long advisor_max_pages_to_scan_store(ksm_globals *g, const char *buf, size_t count) noexcept nogil:
    cdef int err
    cdef unsigned long value

    err = kstrtoul(buf, &value)
    if err:
        return -EINVAL

    g.ksm_advisor_max_pages_to_scan = value
    return <long>count


cdef long advisor_target_scan_time_show(ksm_globals *g, char *buf) noexcept nogil:
    return sysfs_emit(buf, b"%lu\n", g.ksm_advisor_target_scan_time)


cdef long advisor_target_scan_time_store(ksm_globals *g, const char *buf, size_t count) noexcept nogil:
    cdef int err
    cdef unsigned long value

    err = kstrtoul(buf, &value)
    if err:
        return -EINVAL
    if value < 1:
        return -EINVAL

    g.ksm_advisor_target_scan_time = value
    return <long>count


cdef inline void ksm_attr(ksm_globals *g, const char *name, long (*show)(ksm_globals *, char *) noexcept nogil,
                          long (*store)(ksm_globals *, const char *, size_t) noexcept nogil, int since) noexcept nogil:
    # OURS: the next entry of the table, if this era has it.
    if g.era < since:
        return
    g.ksm_attrs[g.nr_ksm_attrs].name = name
    g.ksm_attrs[g.nr_ksm_attrs].show = show
    g.ksm_attrs[g.nr_ksm_attrs].store = store
    g.nr_ksm_attrs += 1


cdef void ksm_attrs_init(ksm_globals *g) noexcept nogil:
    # OURS: ksm_attrs[] in its order. The last argument is the first era that has the file. A file without a store function can only be
    # read.
    ksm_attr(g, b"sleep_millisecs", sleep_millisecs_show, sleep_millisecs_store, ERA_2_6_38)
    ksm_attr(g, b"pages_to_scan", pages_to_scan_show, pages_to_scan_store, ERA_2_6_38)
    ksm_attr(g, b"run", run_show, run_store, ERA_2_6_38)
    ksm_attr(g, b"pages_scanned", pages_scanned_show, NULL, ERA_6_12)
    ksm_attr(g, b"pages_shared", pages_shared_show, NULL, ERA_2_6_38)
    ksm_attr(g, b"pages_sharing", pages_sharing_show, NULL, ERA_2_6_38)
    ksm_attr(g, b"pages_unshared", pages_unshared_show, NULL, ERA_2_6_38)
    ksm_attr(g, b"pages_volatile", pages_volatile_show, NULL, ERA_2_6_38)
    ksm_attr(g, b"pages_skipped", pages_skipped_show, NULL, ERA_6_12)
    ksm_attr(g, b"ksm_zero_pages", ksm_zero_pages_show, NULL, ERA_6_12)
    ksm_attr(g, b"full_scans", full_scans_show, NULL, ERA_2_6_38)
    ksm_attr(g, b"merge_across_nodes", merge_across_nodes_show, merge_across_nodes_store, ERA_6_1)
    ksm_attr(g, b"max_page_sharing", max_page_sharing_show, max_page_sharing_store, ERA_6_1)
    ksm_attr(g, b"stable_node_chains", stable_node_chains_show, NULL, ERA_6_1)
    ksm_attr(g, b"stable_node_dups", stable_node_dups_show, NULL, ERA_6_1)
    ksm_attr(g, b"stable_node_chains_prune_millisecs", stable_node_chains_prune_millisecs_show,
             stable_node_chains_prune_millisecs_store, ERA_6_1)
    ksm_attr(g, b"use_zero_pages", use_zero_pages_show, use_zero_pages_store, ERA_6_1)
    ksm_attr(g, b"general_profit", general_profit_show, NULL, ERA_6_12)
    ksm_attr(g, b"smart_scan", smart_scan_show, smart_scan_store, ERA_6_12)
    ksm_attr(g, b"advisor_mode", advisor_mode_show, advisor_mode_store, ERA_6_12)
    ksm_attr(g, b"advisor_max_cpu", advisor_max_cpu_show, advisor_max_cpu_store, ERA_6_12)
    ksm_attr(g, b"advisor_min_pages_to_scan", advisor_min_pages_to_scan_show, advisor_min_pages_to_scan_store, ERA_6_12)
    ksm_attr(g, b"advisor_max_pages_to_scan", advisor_max_pages_to_scan_show, advisor_max_pages_to_scan_store, ERA_6_12)
    ksm_attr(g, b"advisor_target_scan_time", advisor_target_scan_time_show, advisor_target_scan_time_store, ERA_6_12)
    BUG_ON(g.nr_ksm_attrs > NR_KSM_ATTRS)


# ksm_attr_group: the kernel's folder "ksm" is the Python object machine.ksm.

cdef int ksmd_start(ksm_globals *g) noexcept nogil:
    # OURS: kthread_run(). The kernel starts ksmd at boot. A machine whose scans are all done by the caller needs no thread.
    cdef int err = 0
    mutex_lock(&g.ksm_thread_mutex)
    if not g.ksmd_started:
        WRITE_ONCE_int(g.ksmd_should_stop, 0)
        err = -pthread_create(&g.ksmd, NULL, ksm_scan_thread, g)
        g.ksmd_started = err == 0
    mutex_unlock(&g.ksm_thread_mutex)
    return err


cdef void ksmd_stop(ksm_globals *g) noexcept nogil:
    # OURS: kthread_stop().
    if not g.ksmd_started:
        return
    WRITE_ONCE_int(g.ksmd_should_stop, 1)
    wake_up_interruptible(&g.ksm_iter_wait)
    wake_up_interruptible(&g.ksm_thread_wait)
    pthread_join(g.ksmd, NULL)
    g.ksmd_started = False


cdef int memory_callback_hook(machine *m, unsigned long action, void *arg) noexcept nogil:
    # OURS: ksm_memory_callback_mem_nb, which ksm_init() registers. The hooks are given the machine, not its KSM.
    return ksm_memory_callback(<ksm_globals *>m.ksm, action, arg)


# The functions that the rest of mm/ calls. include/linux/ksm.h declares them.
cdef ksm_operations ksm_ops
ksm_ops.madvise = ksm_madvise
ksm_ops.add_vma = ksm_add_vma
ksm_ops.vma_flags = ksm_vma_flags
ksm_ops.enable_merge_any = ksm_enable_merge_any
ksm_ops.disable_merge_any = ksm_disable_merge_any
ksm_ops.disable = ksm_disable
ksm_ops.enter = __ksm_enter
ksm_ops.exit = __ksm_exit
ksm_ops.might_need_to_copy = ksm_might_need_to_copy
ksm_ops.rmap_walk = rmap_walk_ksm
ksm_ops.migrate = folio_migrate_ksm
ksm_ops.process_profit = ksm_process_profit
ksm_ops.collect_procs = collect_procs_ksm
ksm_ops.memory_callback = memory_callback_hook


cdef int ksm_init(machine *m, int era) noexcept nogil:
    """Give the machine the KSM of this era: 0 or -ENOMEM. ksmd does not run yet."""
    cdef ksm_globals *g = <ksm_globals *>calloc(1, sizeof(ksm_globals))
    cdef int err
    if g == NULL:               # OURS: each machine has its own globals
        return -ENOMEM
    ksm_globals_init(g, m, era)     # OURS: the initial values of the file-level variables

    g.zero_checksum = calc_checksum(g, ZERO_PAGE(m, 0))
    # By default pages of zeros merge like all other pages.
    g.ksm_use_zero_pages = False

    err = ksm_slab_init(g)
    if err:
        free(g)                 # OURS: each machine has its own globals
        return err              # out:

    # Not here: kthread_run, ksm_thread: ksmd is started when `run` is first written
    # Not here: sysfs_create_group, pr_err, ksm_slab_free, hotplug_memory_notifier: the files are attributes, and ksm_ops has the notifier
    ksm_attrs_init(g)           # OURS: the files, in their order
    m.ksm = g
    m.ksm_ops = &ksm_ops        # OURS: what include/linux/ksm.h declares
    return 0


cdef void ksm_exit_machine(machine *m) noexcept nogil:
    # OURS: the kernel's KSM is never freed. All processes have exited, and the references on their mms were dropped.
    cdef ksm_globals *g = <ksm_globals *>m.ksm
    if g == NULL:
        return
    ksmd_stop(g)
    ksm_slab_free(g)
    if g.root_stable_tree != g.one_stable_tree:
        free(g.root_stable_tree)
    free(g.trace.events)
    destroy_waitqueue_head(&g.ksm_thread_wait)
    destroy_waitqueue_head(&g.ksm_iter_wait)
    destroy_waitqueue_head(&g.offline_wait)
    mutex_destroy(&g.ksm_thread_mutex)
    free(g)
    m.ksm = NULL
    m.ksm_ops = NULL

# SPDX-License-Identifier: GPL-2.0-only
# Follows include/linux/mm_types.h and mmzone.h of Linux 6.12, as far as KSM can see.
"""The structures of memory management, and `struct machine`.

In the kernel, mem_map, the zones, the clock and the list of all address spaces are globals. Here they are the fields of one struct machine,
so that a process can hold many machines. A function that needs a global gets the machine as an argument, or finds it in an mm.

A type whose name is also the usual name of a variable (page, folio, anon_vma, mm_slot) is written struct_page and so on, because
Cython keeps types and variables in one name space.
"""

from linux.list cimport list_head
from linux.rbtree cimport rb_node, rb_root
from linux.slab cimport fault_attr, kmem_cache
from linux.spinlock cimport mutex, rw_semaphore, spinlock_t


cdef enum:
    PAGE_SHIFT = 12
    PAGE_SIZE = 4096
    PMD_SHIFT = 21
    PMD_SIZE = 2097152
    PUD_SHIFT = 30
    PGDIR_SHIFT = 39
    PTRS_PER_PTE = 512
    HPAGE_PMD_ORDER = 9
    HPAGE_PMD_NR = 512
    NR_PAGE_ORDERS = 10         # 0 to HPAGE_PMD_ORDER
    MAX_NUMNODES = 64
    NUMA_NO_NODE = -1

# The mask is unsigned and as wide as an address: a narrower mask would clear the upper half of a value.
cdef inline unsigned long page_mask() noexcept nogil:
    return ~(<unsigned long>PAGE_SIZE - 1)


ctypedef unsigned long pte_t
ctypedef unsigned long pmd_t
ctypedef unsigned long pgprot_t
ctypedef unsigned int vm_fault_t
ctypedef unsigned long vm_flags_t


cdef enum:                      # mm counters
    MM_FILEPAGES
    MM_ANONPAGES
    MM_SWAPENTS
    MM_SHMEMPAGES
    NR_MM_COUNTERS


cdef enum:                      # bits of mm_struct.flags
    MMF_VM_MERGEABLE = 16       # registered with KSM; not inherited
    MMF_HAS_PINNED = 27
    MMF_VM_MERGE_ANY = 30       # prctl(PR_SET_MEMORY_MERGE); inherited by fork and exec


cdef enum:                      # the vm_event_items that are used here
    PGFAULT
    COW_KSM
    KSM_SWPIN_COPY
    PSWPIN
    PSWPOUT
    PGMIGRATE_SUCCESS
    PGMIGRATE_FAIL
    THP_FAULT_ALLOC
    THP_FAULT_FALLBACK
    THP_SPLIT_PAGE
    THP_SPLIT_PAGE_FAILED
    THP_SPLIT_PMD
    NR_VM_EVENT_ITEMS


# One frame, 32 bytes. `mapping` is the tagged word of include/linux/page-flags.pxd; the page allocator links free frames through
# `private` and `index`.
cdef struct struct_page "page":
    unsigned int flags
    int _refcount
    int _mapcount
    unsigned int private
    void *mapping
    unsigned long index

ctypedef struct_page struct_folio


cdef struct struct_anon_vma "anon_vma":
    struct_anon_vma *root
    rw_semaphore rwsem          # used in the root only
    int refcount
    unsigned long num_children
    unsigned long num_active_vmas
    struct_anon_vma *parent
    rb_root rb_root      # anon_vma_chains, ordered by the first page offset of their vma


cdef struct anon_vma_chain:
    vm_area_struct *vma
    struct_anon_vma *anon_vma
    list_head same_vma
    rb_node rb
    unsigned long rb_subtree_last


# A shared object behind MAP_SHARED memory: frames by page index. Stands in for struct file and its address_space.
cdef struct file:
    int f_count
    spinlock_t lock
    unsigned long nr_pages
    struct_page **pages


cdef struct vm_area_struct:
    unsigned long vm_start
    unsigned long vm_end
    mm_struct *vm_mm
    pgprot_t vm_page_prot
    vm_flags_t vm_flags
    list_head anon_vma_chain
    struct_anon_vma *anon_vma
    unsigned long vm_pgoff
    file *vm_file


cdef struct mm_struct "mm_struct":
    machine *machine
    unsigned long *pgd
    vm_area_struct **vmas       # sorted by address; stands in for the maple tree mm_mt
    int map_count
    int map_capacity
    int mm_users                # 0: the process exits
    int mm_count                # references on the struct itself
    rw_semaphore mmap_lock
    spinlock_t page_table_lock
    unsigned long flags
    long rss_stat[NR_MM_COUNTERS]
    unsigned long total_vm
    vm_flags_t def_flags
    unsigned long start_brk
    unsigned long brk
    unsigned long mmap_base
    long tlb_flush_pending
    unsigned long notifier_invalidations
    unsigned long ksm_merging_pages
    unsigned long ksm_rmap_items
    long ksm_zero_pages
    bint zero_pages_inexact     # OURS: see dup_mmap()
    unsigned long parents_merging_pages     # OURS: for Machine.check(): what ksm_merging_pages and ksm_rmap_items were after the fork
    unsigned long parents_rmap_items
    unsigned long nr_page_tables
    void *pmd_huge_pte          # tables put aside for huge pages
    list_head mmlist            # machine.mmlist
    unsigned long id            # OURS: never used twice in one machine
    unsigned long mf_round      # OURS: the last memory_failure() that has this process on its list
    int nid                     # OURS: the node on which its faults first look for a frame; the kernel asks the task


# There is one zone for each node. Frames from `fresh_pfn` on were never used. Frames on the free lists are known to read as zeros. Frames
# in `recent` are free, and their memory was not yet given back to the operating system. Frames in `claimed` are free, and their memory was
# requested again.
cdef struct zone:
    spinlock_t lock
    int nid
    unsigned long zone_start_pfn
    unsigned long zone_end_pfn
    unsigned long fresh_pfn
    unsigned long nr_free
    unsigned int free_area[NR_PAGE_ORDERS]
    unsigned int *recent
    unsigned int nr_recent
    unsigned int claimed[64]    # free frames whose memory reads as zeros; the last one is handed out next
    unsigned int nr_claimed
    unsigned int from_lists     # frames taken from the free lists since frames were put there
    unsigned int claim_after    # value of from_lists at which claim_frames() is tried again
    unsigned long last_pfn      # the last frame that came from the lists, or was never used
    unsigned long in_a_row      # number of such frames that came one after the other
    unsigned long populated_pfn  # memory was requested up to this frame
    unsigned long isolate_start  # range of frames that go offline: they are not handed out any more once they are free
    unsigned long isolate_end


# A swap area (include/linux/swap.h). Slot 0 is the header, so 0 is no slot.
cdef struct swap_info_struct:
    spinlock_t lock             # guards swap_map, and the search for a free slot
    int users                   # percpu_ref; 0: there is no area
    unsigned long flags
    unsigned long max           # slots, slot 0 included
    unsigned long cluster_next  # where the search for a free slot goes on
    unsigned long inuse_pages
    unsigned int *swap_map      # for each slot the number of entries that name it, and SWAP_HAS_CACHE
    unsigned char *zeromap      # slots whose page was all zeros, and was not written
    spinlock_t i_pages_lock     # guards the swap cache
    struct_folio **i_pages      # the swap cache: the page of each slot, if it is in memory
    char *data                  # slot n is at data + n frames
    unsigned long data_length   # length of the mapping; its pages are allocated when they are used


# A process that maps a broken page, and the address: struct to_kill of the kernel, without the killing. It holds a reference on the mm
# (mm_count).
cdef struct to_kill:
    mm_struct *mm
    unsigned long addr


cdef struct to_kill_list:
    to_kill *procs
    int nr
    int room
    bint no_memory              # some processes are missing
    unsigned long round         # never used twice in one machine


# A range of frames that was plugged in after the start: an image of memory.
cdef struct memory_block:
    unsigned long start_pfn
    unsigned long nr_pages
    int nid
    bint online
    bint pending                # the block has no pages yet, because its caller is still at work


# From include/linux/rmap.h: the callbacks of an rmap walk. rmap_one() returns false to stop it; done() and invalid_vma() may be NULL.
# anon_lock says that folio_lock_anon_vma_read() has to find the anon_vma: a page that may be unmapped meanwhile needs that.
cdef struct rmap_walk_control:
    void *arg
    bint try_lock
    bint contended
    bint anon_lock
    bint (*rmap_one)(struct_folio *folio, vm_area_struct *vma, unsigned long addr, void *arg) noexcept nogil
    bint (*done)(struct_folio *folio) noexcept nogil
    bint (*invalid_vma)(vm_area_struct *vma, void *arg) noexcept nogil


# The functions of KSM for the rest of mm/; include/linux/ksm.pxd has the inlines that call them. NULL in a machine without KSM.
cdef struct ksm_operations:
    int (*madvise)(vm_area_struct *vma, unsigned long start, unsigned long end, int advice, vm_flags_t *vm_flags) noexcept nogil
    void (*add_vma)(vm_area_struct *vma) noexcept nogil
    vm_flags_t (*vma_flags)(mm_struct *mm, vm_flags_t vm_flags) noexcept nogil      # since 6.17, in place of add_vma
    int (*enable_merge_any)(mm_struct *mm) noexcept nogil
    int (*disable_merge_any)(mm_struct *mm) noexcept nogil
    int (*disable)(mm_struct *mm) noexcept nogil
    int (*enter)(mm_struct *mm) noexcept nogil
    void (*exit)(mm_struct *mm) noexcept nogil
    struct_folio *(*might_need_to_copy)(struct_folio *folio, vm_area_struct *vma, unsigned long addr) noexcept nogil
    void (*rmap_walk)(struct_folio *folio, rmap_walk_control *rwc) noexcept nogil
    void (*migrate)(machine *m, struct_folio *newfolio, struct_folio *folio) noexcept nogil
    long (*process_profit)(mm_struct *mm) noexcept nogil
    void (*collect_procs)(struct_folio *folio, to_kill_list *tokill) noexcept nogil
    int (*memory_callback)(machine *m, unsigned long action, void *arg) noexcept nogil


# OURS: the functions of the speed layer (ksm/fast), which remembers pages so that ksmd need not read them again. NULL in a plain machine.
# The inlines of include/linux/ksm.pxd tell it of changes, those of ksm/mm/util.pxd ask it.
cdef struct ksm_fast_operations:
    void (*page_changed)(machine *m, struct_page *page) noexcept nogil
    void (*range_changed)(vm_area_struct *vma, unsigned long start, unsigned long end) noexcept nogil
    void (*page_freed)(machine *m, struct_folio *folio) noexcept nogil
    int (*memcmp_pages)(machine *m, struct_page *page1, struct_page *page2) noexcept nogil
    bint (*pages_identical)(machine *m, struct_page *page1, struct_page *page2) noexcept nogil


cdef enum:
    FOLIO_BATCH_SIZE = 31       # PAGEVEC_SIZE


# How frames of fingerprints are made: with which key, or with the checksum of which era. And what a page of zeros would have in its frame.
cdef struct frame_maker:
    bint keyed                  # BLAKE3 with `key`, in place of XXH3 and of a checksum
    unsigned int key[8]
    bint jhash                  # jhash2() of 2011, in place of xxhash()
    unsigned char zeros[16]
    unsigned int zero_checksum


cdef struct machine:
    char *arena                 # frame pfn is at arena + pfn * frame_size
    unsigned int frame_size     # PAGE_SIZE, or FRAME_SIZE of include/linux/highmem.pxd
    frame_maker maker           # of frames of fingerprints
    unsigned char fingerprint_key[32]
    struct_page *mem_map
    unsigned long max_pfn       # number of frames in arena and mem_map
    unsigned long plugged_pfn   # end of the frames that are plugged in so far
    unsigned long zero_pfn
    int nr_node_ids
    zone zones[MAX_NUMNODES]
    memory_block *blocks
    int nr_blocks
    int blocks_capacity
    mutex hotplug_lock
    mutex store_lock            # OURS: held while pages are filled with fingerprints. Nothing is held when it is taken
    unsigned long nr_offline    # frames of the memory that are offline
    mutex mf_mutex              # one memory_failure() at a time
    unsigned long mf_round      # number of calls so far
    long num_poisoned_pages     # frames that are marked as broken, and were freed since
    spinlock_t plugged_lock
    unsigned int plugged[1024]  # freed frames of such ranges whose memory was not given back yet
    unsigned int nr_plugged
    long nr_lost                # pages of mapped images that could not be read
    mutex swapon_mutex
    swap_info_struct *swap_info  # NULL until the first swapon()

    spinlock_t lru_lock
    struct_folio *lru_add[FOLIO_BATCH_SIZE]     # the folio_batch of the one CPU
    int nr_lru_add
    int lru_disable_count       # of calls that move pages
    struct_folio *lru_activate[FOLIO_BATCH_SIZE]
    int nr_lru_activate

    kmem_cache *mm_cachep
    kmem_cache *vm_area_cachep
    kmem_cache *anon_vma_cachep
    kmem_cache *anon_vma_chain_cachep
    kmem_cache *pgtable_cachep  # tables of every level
    fault_attr fail_page_alloc

    spinlock_t mmlist_lock
    list_head mmlist
    unsigned long next_mm_id
    long vm_event[NR_VM_EVENT_ITEMS]

    int transparent_hugepage    # 0 never, 1 where MADV_HUGEPAGE was given, 2 always
    bint map_unused_to_zeropage  # every split does so since 6.12
    bint ksm_pages_move         # not only for memory hotplug, which locks KSM out: since 3.9
    bint protnone_is_no_page    # to follow_page() of 6.1, in whose place folio_walk_start() has come
    bint ksm_pages_fail         # memory_failure() finds the processes of a merged page: since 6.4
    bint fork_resets_ksm_counts  # a child does not begin with the counts of its parent
    bint ksm_flags_first        # a new mapping is mergeable before it is joined with its neighbours: since 6.17
    bint mremap_moves_many      # mremap() moves all mappings of a range: since 6.17
    bint lru_drained_seldom     # unmapping and swapping in leave the LRU batches alone, and most write faults do: 7.3
    bint manual_clock           # jiffies and ktime are `clock_ns`, which the caller moves
    long clock_ns
    int sigpending              # value of signal_pending(current) outside ksmd: 1 when the machine is being closed
    int freezing                # value of freezing(current): the same

    long ksm_zero_pages         # the one global of mm/ksm.c that is not static
    bint zero_pages_inexact     # OURS: see dup_mmap()
    const ksm_operations *ksm_ops
    const ksm_fast_operations *fast_ops
    void *ksm                   # struct ksm_globals of ksm/mm/ksm.pxd
    # OURS: the function that records the steps of a scan, or NULL: ksm/step.pxd
    void (*step)(machine *m, int which, void *item, void *page, void *node, long value) noexcept nogil
    void *recorder
    void (*recorder_exit)(machine *m) noexcept nogil
    void *decider
    void (*decider_exit)(machine *m) noexcept nogil


# list_entry(), rb_entry(): from a link to the structure around it

cdef inline mm_struct *mm_of_mmlist(list_head *link) noexcept nogil:
    return <mm_struct *>(<char *>link - <size_t>&(<mm_struct *>NULL).mmlist)


cdef inline anon_vma_chain *avc_of_same_vma(list_head *link) noexcept nogil:
    return <anon_vma_chain *>(<char *>link - <size_t>&(<anon_vma_chain *>NULL).same_vma)


cdef inline anon_vma_chain *avc_of_rb(rb_node *node) noexcept nogil:
    return <anon_vma_chain *>(<char *>node - <size_t>&(<anon_vma_chain *>NULL).rb)

# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/ksm.c of Linux 6.12: its types and its file-level variables.
"""The layout of KSM's data, for ksm.pyx and for every module that looks into a machine.

Cython finds what other modules may see in the .pxd, so the structures of mm/ksm.c stand here, in its order. ksm.pyx says what they are for,
at the places where mm/ksm.c has them. The two structures that overlay fields are declared in C, where they have the kernel's layout and at
most 64 bytes.
"""

from linux.freezer cimport freezer
from linux.mm_types cimport machine, mm_struct, struct_anon_vma, struct_folio, struct_page, vm_area_struct
from linux.rbtree cimport rb_node, rb_root
from linux.slab cimport kmem_cache
from linux.spinlock cimport mutex, spinlock_t
from linux.types cimport hlist_head, hlist_node, list_head, u8, u32
from linux.wait cimport pthread_t, wait_queue_head
from trace.events.ksm cimport ksm_trace_ring

from ksm.mm.mm_slot cimport struct_mm_slot


ctypedef u8 rmap_age_t


cdef extern from *:
    """
    #ifndef KSM_STRUCTS_DEFINED
    #define KSM_STRUCTS_DEFINED
    #include "linux/list_types.h"
    #include "linux/rbtree_types.h"
    struct mm_struct;
    struct anon_vma;
    struct ksm_stable_node {
        union {
            struct rb_node node;
            struct {
                struct list_head *head;
                union { struct hlist_node hlist_dup; struct list_head list; };
            };
        };  /* 24 bytes, like a tree node */
        struct hlist_head hlist;
        union { unsigned long kpfn, chain_prune_time; };
        int rmap_hlist_len, nid;
        unsigned long key;  /* OURS: ksm/fast */
    };
    struct ksm_rmap_item {
        struct ksm_rmap_item *rmap_list;
        union { struct anon_vma *anon_vma; struct { int nid; unsigned int key; }; };    /* OURS: key, in the four bytes after nid */
        struct mm_struct *mm;
        unsigned long address;
        union {
            struct {
                unsigned int oldchecksum;
                unsigned char age, remaining_skips;
                unsigned short key_low;     /* OURS */
            };
            unsigned long linear_page_index;    /* OURS: since 7.3 */
        };
        union {
            struct rb_node node;
            struct { struct ksm_stable_node *head; struct hlist_node hlist; };
        };
    };
    /* The cost of an item is the kernel's 64 bytes. */
    _Static_assert(sizeof(void *) != 8 || sizeof(struct ksm_rmap_item) == 64, "struct ksm_rmap_item");
    _Static_assert(sizeof(void *) != 8 || sizeof(struct ksm_stable_node) <= 64, "struct ksm_stable_node");
    #endif
    """
    struct ksm_stable_node:
        rb_node node                # in the stable tree
        list_head *head             # overlays the node's parent word: &migrate_nodes, or STABLE_NODE_DUP_HEAD
        hlist_node hlist_dup        # in a chain
        list_head list              # in migrate_nodes
        hlist_head hlist            # rmap_items; a chain's dups
        unsigned long kpfn
        unsigned long chain_prune_time
        int rmap_hlist_len          # or STABLE_NODE_CHAIN
        int nid
        unsigned long key           # OURS: the key of its page (ksm/fast/stable_keys.pxd)

    struct ksm_rmap_item:
        ksm_rmap_item *rmap_list
        struct_anon_vma *anon_vma   # when stable
        int nid                     # when in the unstable tree
        mm_struct *mm
        unsigned long address       # with flags in the low bits
        unsigned int oldchecksum
        rmap_age_t age
        rmap_age_t remaining_skips
        unsigned long linear_page_index     # OURS: since 7.3, over these three and key_low, when stable
        unsigned int key            # OURS: upper bits of the page's key, valid until the page is written to (ksm/fast/watch.pxd)
        unsigned short key_low
        rb_node node                # in the unstable tree
        ksm_stable_node *head       # when stable
        hlist_node hlist            # in the stable node's hlist


cdef struct ksm_mm_slot:
    struct_mm_slot slot             # first: an mm_slot is a ksm_mm_slot
    ksm_rmap_item *rmap_list


cdef struct struct_ksm_scan:
    ksm_mm_slot *mm_slot
    unsigned long address
    ksm_rmap_item **rmap_list
    unsigned long seqnr


cdef enum:
    STABLE_NODE_CHAIN = -1024

    SEQNR_MASK = 0x0ff
    UNSTABLE_FLAG = 0x100
    STABLE_FLAG = 0x200

    MM_SLOTS_HASH_BITS = 10
    DEFAULT_PAGES_TO_SCAN = 100
    KSM_ADVISOR_MIN_CPU = 10
    EWMA_WEIGHT = 30

    KSM_ADVISOR_NONE = 0
    KSM_ADVISOR_SCAN_TIME = 1

    KSM_RUN_STOP = 0
    KSM_RUN_MERGE = 1
    KSM_RUN_UNMERGE = 2
    KSM_RUN_OFFLINE = 4

    NR_KSM_ATTRS = 24

    # OURS: which kernel's KSM a machine has. A later kernel has a larger number.
    ERA_2_6_38 = 0
    ERA_6_1 = 1
    ERA_6_12 = 2
    ERA_7_3 = 3


cdef struct struct_advisor_ctx:
    long start_scan                 # ktime
    unsigned long scan_time
    unsigned long change
    unsigned long long cpu_time


cdef struct kobj_attribute:
    const char *name
    long (*show)(ksm_globals *g, char *buf) noexcept nogil
    long (*store)(ksm_globals *g, const char *buf, size_t count) noexcept nogil


# The file-level variables of mm/ksm.c, one set for each machine. ksm_globals_init() in ksm.pyx has the initial values and the meanings.
cdef struct ksm_globals:
    machine *m

    rb_root one_stable_tree[1]
    rb_root one_unstable_tree[1]
    rb_root *root_stable_tree
    rb_root *root_unstable_tree
    list_head migrate_nodes
    hlist_head mm_slots_hash[1 << MM_SLOTS_HASH_BITS]
    ksm_mm_slot ksm_mm_head
    struct_ksm_scan ksm_scan
    kmem_cache *rmap_item_cache
    kmem_cache *stable_node_cache
    kmem_cache *mm_slot_cache
    unsigned long ksm_pages_scanned
    unsigned long ksm_pages_shared
    unsigned long ksm_pages_sharing
    unsigned long ksm_pages_unshared
    unsigned long ksm_rmap_items
    unsigned long ksm_stable_node_chains
    unsigned long ksm_stable_node_dups
    unsigned int ksm_stable_node_chains_prune_millisecs
    int ksm_max_page_sharing
    unsigned int ksm_thread_pages_to_scan
    unsigned int ksm_thread_sleep_millisecs
    unsigned int zero_checksum
    bint ksm_use_zero_pages
    bint ksm_smart_scan
    unsigned long ksm_pages_skipped
    unsigned long ksm_advisor_max_pages_to_scan
    unsigned int ksm_advisor_max_cpu
    unsigned long ksm_advisor_target_scan_time
    struct_advisor_ctx advisor_ctx
    int ksm_advisor
    unsigned long ksm_advisor_min_pages_to_scan
    unsigned int ksm_merge_across_nodes
    int ksm_nr_node_ids
    unsigned long ksm_run
    wait_queue_head ksm_thread_wait
    wait_queue_head ksm_iter_wait
    mutex ksm_thread_mutex
    spinlock_t ksm_mmlist_lock
    kobj_attribute ksm_attrs[NR_KSM_ATTRS]
    int nr_ksm_attrs

    # OURS
    int era
    ksm_trace_ring trace
    wait_queue_head offline_wait    # the kernel waits on the bit of ksm_run itself
    pthread_t ksmd
    bint ksmd_started
    int ksmd_should_stop
    freezer freezer                 # of the current batch
    unsigned long long ksmd_runtime  # nanoseconds that scanning has taken on a processor so far
    unsigned long long ksmd_slice   # the thread's clock when the current batch began
    void *fast                      # state of the speed layer (ksm/fast/state.pxd), or NULL
    rb_node **search_at             # for a recording: the link at which the search in a tree stands
    bint sharing_bypassed           # a fork went over ksm_max_page_sharing. That is allowed, and ksm_check() asks for it.


# From a link to the structure around it

cdef inline ksm_stable_node *stable_node_of(rb_node *node) noexcept nogil:
    return <ksm_stable_node *>node


cdef inline ksm_stable_node *stable_node_of_dup(hlist_node *node) noexcept nogil:
    return <ksm_stable_node *>(<char *>node - <size_t>&(<ksm_stable_node *>NULL).hlist_dup)


cdef inline ksm_stable_node *stable_node_of_list(list_head *link) noexcept nogil:
    return <ksm_stable_node *>(<char *>link - <size_t>&(<ksm_stable_node *>NULL).list)


cdef inline ksm_stable_node *stable_node_of_first(hlist_node **first) noexcept nogil:
    # The stable node whose hlist begins with this link
    return <ksm_stable_node *>(<char *>first - <size_t>&(<ksm_stable_node *>NULL).hlist)


cdef inline ksm_rmap_item *rmap_item_of(rb_node *node) noexcept nogil:
    return <ksm_rmap_item *>(<char *>node - <size_t>&(<ksm_rmap_item *>NULL).node)


cdef inline ksm_rmap_item *rmap_item_of_hlist(hlist_node *node) noexcept nogil:
    return <ksm_rmap_item *>(<char *>node - <size_t>&(<ksm_rmap_item *>NULL).hlist)


cdef inline struct_mm_slot *mm_slot_of_list(list_head *link) noexcept nogil:
    return <struct_mm_slot *>(<char *>link - <size_t>&(<struct_mm_slot *>NULL).mm_node)

cdef inline ksm_mm_slot *mm_slot_entry(struct_mm_slot *slot) noexcept nogil:
    # slot is the first member of struct ksm_mm_slot.
    return <ksm_mm_slot *>slot

cdef inline ksm_mm_slot *mm_slot_of(list_head *link) noexcept nogil:
    return mm_slot_entry(mm_slot_of_list(link))


cdef int ksm_init(machine *m, int era) noexcept nogil
cdef u32 calc_checksum(ksm_globals *g, struct_page *page) noexcept nogil
cdef void ksm_exit_machine(machine *m) noexcept nogil
cdef void ksm_do_scan(ksm_globals *g, unsigned int scan_npages) noexcept nogil
cdef void ksm_run_batch(ksm_globals *g, unsigned int scan_npages, unsigned long long slice_ns) noexcept nogil
cdef void wait_while_offlining(ksm_globals *g) noexcept nogil
cdef int ksmd_start(ksm_globals *g) noexcept nogil
cdef void ksmd_stop(ksm_globals *g) noexcept nogil
cdef bint ksm_test_exit(mm_struct *mm) noexcept nogil
cdef bint is_stable_node_chain(ksm_stable_node *chain) noexcept nogil
cdef bint is_stable_node_dup(ksm_globals *g, ksm_stable_node *dup) noexcept nogil
cdef ksm_rmap_item *get_next_rmap_item(ksm_globals *g, ksm_mm_slot *mm_slot, ksm_rmap_item **rmap_list, unsigned long addr) noexcept nogil
cdef unsigned int skip_age(rmap_age_t age) noexcept nogil
cdef bint should_skip_rmap_item(ksm_globals *g, struct_page *page, ksm_rmap_item *rmap_item) noexcept nogil
cdef ksm_rmap_item *scan_get_next_rmap_item(ksm_globals *g, struct_page **page) noexcept nogil
cdef int ksm_memory_callback(ksm_globals *g, unsigned long action, void *arg) noexcept nogil

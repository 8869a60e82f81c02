# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""Notes that the two files do not have: what is left out and why, old names, and labels that no comment names."""

# Functions of mm/ksm.c that the port does not have. tests/mm/test_beside_the_kernel.py accepts no other.
OMITTED: dict[str, str] = {}

# Functions of lib/rbtree.c that the port does not have. This file is compared function by function, too.
OMITTED_IN_RBTREE = {"rb_replace_node_rcu": "no tree here has readers without a lock"}

_RCU = "no tree here has readers without a lock"
_ORDER = "it takes the order of nodes as a function: every descent here is written out"
OMITTED_IN_RBTREE_H = {
    "rb_link_node_rcu": _RCU, "__rb_change_child_rcu": _RCU, "rb_find_add_rcu": _RCU, "rb_find_rcu": _RCU,
    "rb_add_cached": _ORDER, "rb_add": _ORDER, "rb_find_add": _ORDER, "rb_find": _ORDER, "rb_find_first": _ORDER, "rb_next_match": _ORDER,
    "rb_add_augmented_cached": _ORDER,
}

# Functions that mm/ksm.c of older versions has, and mm/util.c of 6.12
_UTIL = "in ksm/mm/util.pxd: later versions have it in mm/util.c"
IN_ANOTHER_FILE = {"memcmp_pages": _UTIL, "pages_identical": _UTIL}

# Pieces of mm/ksm.c that are not functions: the piece, a string in its text, and where it is here.
ELSEWHERE = (
    ("struct ksm_mm_slot, ksm_scan, ksm_stable_node, ksm_rmap_item", "struct ksm_scan",
     "ksm/mm/ksm.pxd, where Cython finds what other modules may see. Two of them are declared in C there, for the kernel's layout."),
    ("the variables at file level", "ksm_pages_shared;",
     "fields of struct ksm_globals, g, in ksm/mm/ksm.pxd: a program may have many machines."),
    ("SEQNR_MASK, UNSTABLE_FLAG, KSM_RUN_* and other numbers", "SEQNR_MASK", "an enum in ksm/mm/ksm.pxd."),
    ("NUMA(), DO_NUMA()", "DO_NUMA(x)", "left out: the port is built as with CONFIG_NUMA, and a machine may have one node."),
    ("KMEM_CACHE()", "KMEM_CACHE(", "left out: kmem_cache_create() is called with a name and a size."),
    ("KSM_ATTR(), KSM_ATTR_RO(), ksm_attrs[]", "KSM_ATTR_RO(", "ksm_attrs_init(), which makes the same table in the same order."),
    ("ksm_attr_group", "ksm_attr_group", "left out: the kernel's folder is the Python object machine.ksm."),
    ("subsys_initcall(ksm_init)", "subsys_initcall", "left out: ksm_init() is called for each machine."),
    ("the second wait_while_offlining(), for kernels without hotplug", "CONFIG_MEMORY_HOTREMOVE",
     "left out: memory can be unplugged here."),
    ("EXPORT_SYMBOL_GPL()", "EXPORT_SYMBOL", "left out: there are no modules."),
    ("VM_SAO, VM_SPARC_ADI", "VM_SPARC_ADI", "left out: they are flags of other processors."),
    ("mem_cgroup_charge()", "mem_cgroup_charge", "left out: there are no control groups."),
    ("set_current_oom_origin()", "set_current_oom_origin", "left out: there is no OOM killer."),
    ("try_to_freeze(), set_user_nice()", "set_freezable",
     "left out: ksmd is a thread of a program, which is not suspended, and has no niceness of its own."),
)

# The name that another version gives to a function that 6.12 has.
RENAMED = {
    "get_ksm_page": "ksm_get_folio",
    "set_page_stable_node": "folio_set_stable_node",
    "ksm_migrate_page": "folio_migrate_ksm",
}

# mm/memory.c: the functions on the way of a write fault, in the file's order. Other versions have some of them only.
WRITE_FAULT = ("folio_prealloc", "__wp_page_copy_user", "wp_page_reuse", "wp_page_copy", "wp_can_reuse_anon_folio", "do_wp_page",
               "do_anonymous_page", "do_pte_missing", "handle_pte_fault", "__handle_mm_fault", "handle_mm_fault")
RENAMED_IN_MEMORY = {"__handle_mm_fault": "handle_mm_fault"}
OMITTED_IN_MEMORY = {
    "handle_mm_fault": "it asks and counts what is not here, and calls __handle_mm_fault(): the port has one function for both",
    "__wp_page_copy_user": "left out: copy_highpage() in wp_page_copy() is enough, for a frame can always be read here",
}

# Labels whose place in the port needs a sentence, as function:label.
LABELS = {
    "ksm_slab_init:out": "the last line: one return for all steps that can fail",
    "stable_tree_search:replace": "the helper stable_tree_replace()",
    "stable_tree_search:chain_append": "the helper stable_tree_chain_append()",
    "ksm_init:out_free": "left out: only starting ksmd and adding the files can fail after the caches are made, and neither is done here",
}

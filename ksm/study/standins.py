# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""The tables of stand-ins, with which mm/ksm.c and the port are compared statement by statement."""

# Macros of the kernel, in the form in which they are compared, and why. A capital letter stands for any expression.
IN_THE_KERNEL = (
    ("likely(A)", "A", "a hint for the compiler"),
    ("unlikely(A)", "A", "a hint for the compiler"),
    ("NUMA(A)", "A", "as with CONFIG_NUMA"),
    ("DO_NUMA(A)", "A", "as with CONFIG_NUMA"),
    ("IS_ENABLED(A)", "1", "as with CONFIG_TRANSPARENT_HUGEPAGE"),
    ("rb_entry(A, B, C)", "entry(A, C)", "container_of()"),
    ("list_entry(A, B, C)", "entry(A, C)", "container_of()"),
    ("mm_slot_entry(A, B, C)", "entry(A, C)", "container_of()"),
    ("div_s64(A, B)", "A / B", "a division that 32-bit processors need help with"),
    ("VM_BUG_ON_FOLIO(A, B)", "VM_BUG_ON(A)", "the second argument is only printed"),
    ("VM_BUG_ON_PAGE(A, B)", "VM_BUG_ON(A)", "the second argument is only printed"),
    ("VM_WARN_ON_FOLIO(A, B)", "VM_BUG_ON(A)", "a debug build aborts here where the kernel warns"),
    ("VM_WARN_ON_ONCE(A)", "VM_BUG_ON(A)", "a debug build aborts here where the kernel warns"),
    ("&A->page", "A", "struct folio and struct page are one structure here"),
    ("signal_pending(current)", "signal_pending()", "a machine has one flag for all its callers"),
    ("task_sched_runtime(current)", "task_sched_runtime()", "the processor time of ksmd"),
    ("kmem_cache_alloc(A, B)", "kmem_cache_alloc(A)", "the flags of an allocation have no use: it never waits for memory to be freed"),
    ("kmem_cache_zalloc(A, B)", "kmem_cache_zalloc(A)", "the flags of an allocation have no use: it never waits for memory to be freed"),
    ("handle_mm_fault(A, B, C, D)", "handle_mm_fault(A, B, C)", "there are no registers, since no processor has trapped"),
    ("mmu_notifier_invalidate_range_start(A)", "mmu_notifier_invalidate_range_start()", "there are no notifiers; calls are counted"),
    ("mmu_notifier_invalidate_range_end(A)", "mmu_notifier_invalidate_range_end()", "there are no notifiers; calls are counted"),
    ("DEFINE_FOLIO_VMA_WALK(A, B, C, D, E)", "DEFINE_FOLIO_VMA_WALK(&A, B, C, D, E)", "the macro declares it, too"),
    ("mmap_assert_write_locked(A)", "VM_BUG_ON(!mmap_is_write_locked(A))", "both check the same lock"),
    ("add_to_kill_ksm(A, B, C, D, E)", "add_to_kill_ksm(C->vm_mm, D, E)", "an address space stands for its process"),
    ("vma_alloc_folio(A, B, C, D, E)", "vma_alloc_folio(C)", "one size, and one zone"),
    ("kmap_local_page(A)", "page_address(A)", "all memory is mapped"),
    ("kcalloc(A, B, C)", "kcalloc(A, B)", "the flags of an allocation have no use: it never waits for memory to be freed"),
    ("U8_MAX", "255", "a number"),
    ("VMA_ITERATOR(A, B, C)", "vma_iter_init(&A, B, C)", "the macro declares it, too"),
)

# Calls of the port, and what stands in the kernel in their place.
IN_THE_PORT = (
    ("page_mask()", "PAGE_MASK", "a constant"),
    ("jiffies(g.m)", "jiffies", "each machine has a clock"),
    ("STABLE_NODE_DUP_HEAD(g)", "STABLE_NODE_DUP_HEAD", "an address in the machine's globals"),
    ("folio_mapping_word(A)", "READ_ONCE(A->mapping)", "the word is read and written atomically"),
    ("folio_set_mapping_word(A, B)", "A->mapping = B", "the word is read and written atomically"),
    ("stable_node_of(A)", "entry(A, node)", "container_of(): the node is the first member"),
    ("mmu_notifier_invalidate_range_start(A)", "mmu_notifier_invalidate_range_start()", "there are no notifiers; calls are counted"),
    ("mmu_notifier_invalidate_range_end(A)", "mmu_notifier_invalidate_range_end()", "there are no notifiers; calls are counted"),
    ("mm_slot_insert(A, B, C, D)", "mm_slot_insert(A, C, D)", "the macro knows the size of the table"),
    ("mm_slot_lookup(A, B, C)", "mm_slot_lookup(A, C)", "the macro knows the size of the table"),
    ("mm_slot_entry(A)", "entry(A, slot)", "container_of(): slot is the first member"),
    ("alloc_pages_node(m, A.vm_mm.nid, 0, False)", "vma_alloc_folio(0, 0, A, 0, 0)", "one size, and one zone"),
    ("calloc(A, sizeof(rb_root))", "kcalloc(A, sizeof(*buf), 0)", "memory of the program"),
    ("tokill", "to_kill", "to_kill is a type"),
    ("roots", "buf", "a Cython function has one scope, and buf is a parameter"),
    ("memset(&A, 0, sizeof(B))", "A = (struct x){ 0 }", "Cython has no compound literals"),
    ("A.rb_node = NULL", "A = RB_ROOT", "Cython has no compound literals"),
    ("freezing(g.m, &g.freezer, A)", "freezing(current)", "a scan for a caller stops at the end of its slice: the pages left are passed"),
    ("kthread_should_stop(g)", "kthread_should_stop()", "each machine has a ksmd"),
    ("vma_has_anon_vma(A)", "A->anon_vma", "the load acquires, because a fault of another thread may have made the anon_vma"),
    ("page_to_nid(pfn_to_page(g.m, A))", "pfn_to_nid(A)", "a frame has the number of its node"),
    ("kmem_cache_create(A, sizeof(B))", "KMEM_CACHE(B, 0)", "the macro makes the name from the type"),
    ("kstrtouint(A, B)", "kstrtouint(A, 10, B)", "the base is always 10 here"),
    ("kstrtoul(A, B)", "kstrtoul(A, 10, B)", "the base is always 10 here"),
    ("kstrtoint(A, B)", "kstrtoint(A, 10, B)", "the base is always 10 here"),
)

# Stand-ins of lib/rbtree.c and its headers.
WITHOUT_READERS = (
    ("WRITE_ONCE(A, B)", "A = B", "no tree here has readers without a lock"),
    ("READ_ONCE(A)", "A", "no tree here has readers without a lock"),
)

# Names in statements of mm/ksm.c that the port never has, and why. If only one function lacks a name, a "Not here" comment names it there.
OMITTED: dict[str, str] = {
    "mmu_notifier_range_init": "there are no notifiers",
    "kunmap_local": "all memory is mapped",
    "kobj": "the parameter is a folder of sysfs: here the machine is passed",
    "attr": "the parameter is a file of sysfs: each function belongs to one file",
    "nothing": "the parameter is never used",
    "self": "the parameter is the listener: there is only one",
}

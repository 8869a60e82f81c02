# SPDX-License-Identifier: GPL-2.0-only
"""Changes that tests have to notice, each on its own. docs/mutants.md says how they were chosen; run.py builds and tests them."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """One change of one file."""

    name: str  # the file and the function
    file: str
    breaks: str  # the fault that the change causes
    old: str  # found exactly once in the file
    new: str
    unnoticed: str = ""  # why nothing can notice it, if nothing can



# Changes that no test noticed before tests were written for them
KNOWN = (
    Mutant("seams:settle", "ksm/fast/seams.pyx", "A tree with a page that was written to during its merge is said to be in order",
           "        check_order(fast, leaving)\n",
           ""),
    Mutant("look_ahead:watch_table-swapcache", "ksm/fast/look_ahead.pyx", "Pages on their way into the swap cache are watched",
           "nr == want or flags & PG_swapcache or page.private",
           "nr == want or page.private"),
    Mutant("seams:known_place", "ksm/fast/seams.pyx", "A page is put beside an item that has left the tree",
           "    if less != NULL and not in_tree(fast, rmap_item_of(less)):",
           "    if False:"),
    Mutant("page_keys:off_the_way", "ksm/fast/page_keys.pyx",
           "A page that differs in word 63 has a key above that of a page that differs later",
           "    if depth >= 63:",
           "    if depth > 63:"),
    Mutant("page_keys:off_the_way-2", "ksm/fast/page_keys.pyx", "The words 62 and 63 are not told apart",
           "    if depth >= 63:",
           "    if depth >= 62:"),
    Mutant("page_keys:off_the_way-3", "ksm/fast/page_keys.pyx", "A page above the words in common that differs late gets a key below them",
           "(0 if above else <uint64_t>63) << room",
           "<uint64_t>63 << room"),
    Mutant("savings:was_skipped", "ksm/estimate/savings.pyx", "Pages that smart_scan has skipped are said to be volatile",
           "item.age > 3 and",
           "item.age > 255 and"),
    Mutant("report:breakdown", "ksm/estimate/report.py", "Pages that smart_scan has skipped are missing from the breakdown",
           "    if ledger.skipped:",
           "    if not ledger.skipped:"),
    Mutant("core:SHARED_MEMORY", "ksm/sources/core.py", "SysV shared memory in a core counts as private",
           '"/SYSV", ',
           ""),
    Mutant("mappings:REFUSED", "ksm/sources/mappings.py", "Droppable memory counts as mergeable",
           '"ht", "dp"',
           '"ht"'),
    Mutant("extents:_copy", "ksm/sources/extents.py", "Parts of a core that could not be read count as zeros",
           "extent.offset + at) < len(part):",
           "extent.offset + at) < 0:"),
    Mutant("host/memory:cgroup_room-cache", "ksm/host/memory.py", "Page cache does not count as free room",
           "int(limit) - used + cache",
           "int(limit) - used"),
)

# Drawn by draw.py
DRAWN = (
    Mutant("ksm:write_protect_pte", "ksm/mm/ksm.pyx", "Only pages with a foreign reference are merged",
           "if folio_mapcount(folio) + 1 + swapped != folio_ref_count(folio):",
           "if folio_mapcount(folio) + 1 + swapped == folio_ref_count(folio):"),
    Mutant("ksm:write_protect_pte-2", "ksm/mm/ksm.pyx", "A read-only page that is dirty is neither counted nor cleaned",
           "elif pte_write(entry) or pte_dirty(entry) or anon_exclusive or mm_tlb_flush_pending(mm):",
           "elif pte_write(entry) or pte_dirty(entry) and anon_exclusive or mm_tlb_flush_pending(mm):"),
    Mutant("ksm:ksm_next_page_pmd_entry", "ksm/mm/ksm.pyx", "A huge page has no folio",
           """\
            folio = page_folio(page)

""", """\
            pass

"""),
    Mutant("ksm:remove_node_from_stable_tree", "ksm/mm/ksm.pyx", "A node that is freed still counts its items",
           """\
        stable_node.rmap_hlist_len -= 1
        put_anon_vma(g.m, rmap_item.anon_vma)
""", """\
        pass
        put_anon_vma(g.m, rmap_item.anon_vma)
""",
           unnoticed="the node is freed next, and the number is not read before; a debug build asserts that it is 0"),
    Mutant("ksm:remove_rmap_item_from_tree", "ksm/mm/ksm.pyx", "The page of a stale node is used although there is none",
           """\
        if folio == NULL:
            cond_resched()      # out: the stale node is freed, and its items are detached
            return
""", """\
        if False and (folio == NULL):
            cond_resched()      # out: the stale node is freed, and its items are detached
            return
"""),
    Mutant("ksm:run_store", "ksm/mm/ksm.pyx", "2 cannot be written to run",
           "if flags > KSM_RUN_UNMERGE:",
           "if flags >= KSM_RUN_UNMERGE:"),
    Mutant("ksm:scan_get_next_rmap_item", "ksm/mm/ksm.pyx", "A pass begins, and the cursor stays at the head",
           """\
        g.ksm_scan.mm_slot = mm_slot
""", """\
        pass
"""),
    Mutant("ksm:scan_time_advisor", "ksm/mm/ksm.pyx", "The advisor's percentage is off by one",
           "factor = g.ksm_advisor_target_scan_time * 100 // scan_time",
           "factor = g.ksm_advisor_target_scan_time * 101 // scan_time"),
    Mutant("ksm:stable_tree_insert", "ksm/mm/ksm.pyx", "A new node does not have its frame's number",
           "kpfn = folio_pfn(g.m, kfolio)",
           "pass"),
    Mutant("ksm:age_unstable_items", "ksm/mm/ksm.pyx", "Items of a pass that was broken off get all flags",
           "(rmap_item.address & ~<unsigned long>SEQNR_MASK) | ((g.ksm_scan.seqnr - 1) & SEQNR_MASK)\n",
           "(rmap_item.address | ~<unsigned long>SEQNR_MASK) | ((g.ksm_scan.seqnr - 1) & SEQNR_MASK)\n"),
    Mutant("ksm:scan_get_next_rmap_item-2", "ksm/mm/ksm.pyx", "The slot of a process that exits is kept",
           """\
            # no_vmas:
            g.ksm_scan.address = 0
""", """\
            # no_vmas:
            g.ksm_scan.address = 1
"""),
    Mutant("ksm:unstable_tree_search_insert", "ksm/mm/ksm.pyx", "Items in the unstable tree are all of pass 255",
           "rmap_item.address |= g.ksm_scan.seqnr & SEQNR_MASK\n",
           "rmap_item.address |= g.ksm_scan.seqnr | SEQNR_MASK\n"),
    Mutant("ksm:rmap_walk_ksm", "ksm/mm/ksm.pyx", "A walk misses vmas that end with page 0",
           "                vmac = anon_vma_interval_tree_iter_next(vmac, 0, ULONG_MAX)",
           "                vmac = anon_vma_interval_tree_iter_next(vmac, 1, ULONG_MAX)",
           unnoticed="no anonymous page has the index 0, because no address below mmap_min_addr can be mapped"),
    Mutant("ksm:vma_ksm_compatible", "ksm/mm/ksm.pyx", "Device memory can be merged",
           "if vma.vm_flags & (VM_SHARED | VM_MAYSHARE | VM_PFNMAP | VM_IO | VM_DONTEXPAND | VM_HUGETLB | VM_MIXEDMAP | VM_DROPPABLE):",
           "if vma.vm_flags & (VM_SHARED | VM_MAYSHARE | VM_PFNMAP & VM_IO | VM_DONTEXPAND | VM_HUGETLB | VM_MIXEDMAP | VM_DROPPABLE):"),
    Mutant("ksm:remove_stable_node_chain", "ksm/mm/ksm.pyx", "A chain with a dup that is still mapped counts as freed",
           """\
            return True
        pos = hlist_safe
""", """\
            return False
        pos = hlist_safe
"""),
    Mutant("ksm:ksm_scan_thread", "ksm/mm/ksm.pyx", "ksmd sleeps when there is work, and spins when there is none",
           "while not (ksmd_should_run(g) or kthread_should_stop(g)):",
           "while (ksmd_should_run(g) or kthread_should_stop(g)):"),
    Mutant("ksm:cmp_and_merge_page", "ksm/mm/ksm.pyx", "Machine.check() is not told that a fork went over max_page_sharing",
           "max_page_sharing_bypass = True",
           "max_page_sharing_bypass = False"),
    Mutant("ksm:__ksm_del_vma", "ksm/mm/ksm.pyx", "Memory that could not be unmerged is no longer mergeable",
           """\
        err = unmerge_ksm_pages(vma, vma.vm_start, vma.vm_end, True)
        if err:
""", """\
        err = unmerge_ksm_pages(vma, vma.vm_start, vma.vm_end, True)
        if False and (err):
"""),
    Mutant("ksm:stable_tree_append", "ksm/mm/ksm.pyx", "ksm_merging_pages is not counted up",
           "rmap_item.mm.ksm_merging_pages += 1",
           "pass"),
    Mutant("ksm:should_skip_rmap_item", "ksm/mm/ksm.pyx", "Without smart_scan everything is skipped",
           """\
    if PageKsm(page):
        return False
""", """\
    if PageKsm(page):
        return True
"""),
    Mutant("ksm:stable_node_dup_remove_range", "ksm/mm/ksm.pyx", "The node of the first frame that goes offline stays",
           """\
    if start_pfn <= READ_ONCE_ulong(stable_node.kpfn) < end_pfn:
        # The node is found by its frame number alone: the frame no longer exists.
""", """\
    if start_pfn < READ_ONCE_ulong(stable_node.kpfn) < end_pfn:
        # The node is found by its frame number alone: the frame no longer exists.
"""),
    Mutant("ksm:ksm_next_page_pmd_entry-2", "ksm/mm/ksm.pyx", "The end of a table counts as a page",
           "if addr >= end:             # not_found_unlock:",
           "if addr > end:             # not_found_unlock:"),
    Mutant("ksm:ksm_attrs_init", "ksm/mm/ksm.pyx", "The file `run` is missing in 2011",
           'ksm_attr(g, b"run", run_show, run_store, ERA_2_6_38)',
           'ksm_attr(g, b"run", run_show, run_store, ERA_6_1)'),
    Mutant("ksm:remove_rmap_item_from_tree-2", "ksm/mm/ksm.pyx", "A reference on an anon_vma is kept",
           """\
        put_anon_vma(g.m, rmap_item.anon_vma)
        if since_7_3(g):        # as in break_cow()
            rmap_item.linear_page_index = 0
        rmap_item.head = NULL
""", """\
        if since_7_3(g):        # as in break_cow()
            rmap_item.linear_page_index = 0
        rmap_item.head = NULL
"""),
    Mutant("ksm:free_rmap_item", "ksm/mm/ksm.pyx", "Items that were freed are counted",
           "g.ksm_rmap_items -= 1",
           "pass"),
    Mutant("ksm:ksm_next_page_pmd_entry-3", "ksm/mm/ksm.pyx", "A table that has just gone counts as a page",
           """\
    if start_ptep == NULL:
        return 0
""", """\
    if start_ptep == NULL:
        return 1
""",
           unnoticed="a table stays while mmap_lock is held: only khugepaged would take it away, and there is none"),
    Mutant("ksm:write_protect_pte-3", "ksm/mm/ksm.pyx", "A page is merged that its owner can write to",
           "entry = pte_wrprotect(entry)",
           "pass"),
    Mutant("ksm:unstable_tree_search_insert-2", "ksm/mm/ksm.pyx", "pages_unshared is not counted up",
           "g.ksm_pages_unshared += 1",
           "pass"),
    Mutant("ksm:ksm_slab_init", "ksm/mm/ksm.pyx", "There is no cache for slots",
           'g.mm_slot_cache = kmem_cache_create(b"ksm_mm_slot", sizeof(ksm_mm_slot))',
           "pass"),
    Mutant("ksm:alloc_stable_node_chain", "ksm/mm/ksm.pyx", "A chain is made without memory, and none with memory",
           "if chain != NULL:",
           "if not (chain != NULL):"),
    Mutant("memory:can_follow", "ksm/mm/memory.pyx", "A read from outside follows an entry that is not present",
           "if not pte_present(pte):",
           "if False and (not pte_present(pte)):"),
    Mutant("memory:do_shared_fault", "ksm/mm/memory.pyx", "A page is lost when two threads bring one to a shared object",
           "if fresh != NULL:",
           "if not (fresh != NULL):"),
    Mutant("memory:free_page_tables", "ksm/mm/memory.pyx", "Upper tables are not freed, and empty entries are followed",
           "if pmds == NULL:",
           "if not (pmds == NULL):"),
    Mutant("memory:alloc_upper", "ksm/mm/memory.pyx", "An existing table counts as a lack of memory",
           """\
        table_free(mm.machine, table)
    return True
""", """\
        table_free(mm.machine, table)
    return False
"""),
    Mutant("memory:free_pgd_range", "ksm/mm/memory.pyx", "The upper entry of another table is cleared",
           "pud_table[((addr - 1) >> PUD_SHIFT) & 511] = 0",
           "pud_table[((addr - 1) >> PUD_SHIFT) & 512] = 0"),
    Mutant("memory:access_remote_vm", "ksm/mm/memory.pyx", "A write from outside faults as if it was a read",
           "ret = handle_mm_fault(vma, addr, FAULT_FLAG_REMOTE | (FAULT_FLAG_WRITE if write else 0))",
           "ret = handle_mm_fault(vma, addr, FAULT_FLAG_REMOTE & (FAULT_FLAG_WRITE if write else 0))"),
    Mutant("memory:access_remote_vm-2", "ksm/mm/memory.pyx", "A lack of memory half way is reported as a bad address",
           "error[0] = -ENOMEM if ret & VM_FAULT_OOM else -EFAULT",
           "error[0] = -EFAULT"),
    Mutant("memory:copy_page_range", "ksm/mm/memory.pyx", "A fork copies tables that do not exist",
           "if src_pmd != NULL and not pmd_none(pmdp_get_lockless(src_pmd)):",
           "if src_pmd != NULL and pmd_none(pmdp_get_lockless(src_pmd)):"),
    Mutant("rmap:unlink_anon_vmas", "ksm/mm/rmap.pyx", "A vma that is freed stays in the interval tree",
           "anon_vma_interval_tree_remove(avc, &anon_vma.rb_root)",
           "pass"),
    Mutant("rmap:try_to_unmap_one", "ksm/mm/rmap.pyx", "A page is unmapped where it is not mapped",
           "if not page_vma_mapped_walk(&pvmw):",
           "if False and (not page_vma_mapped_walk(&pvmw)):"),
    Mutant("rmap:anon_vma_clone", "ksm/mm/rmap.pyx", "Links that were made before a failure stay",
           "unlink_anon_vmas(dst)",
           "pass"),
    Mutant("rmap:try_to_unmap_one-2", "ksm/mm/rmap.pyx", "The walk ends at the first mapping",
           "            ret = True",
           "            ret = False"),
    Mutant("migrate:remove_migration_ptes", "ksm/mm/migrate.pyx", "No process gets the moved page mapped",
           "rmap_walk(m, dst, &rwc)",
           "pass"),
    Mutant("migrate:map_in_place_of_migration_pte", "ksm/mm/migrate.pyx", "A moved page becomes writable in a read-only mapping",
           "if is_writable_migration_pte(old_pte):",
           "if not (is_writable_migration_pte(old_pte)):"),
    Mutant("migrate:migrate_pages", "ksm/mm/migrate.pyx", "The new page is let go of in the wrong case",
           "if dst != NULL:",
           "if not (dst != NULL):"),
    Mutant("migrate:migrate_pfn", "ksm/mm/migrate.pyx", "A page that was sent to node 0 may go anywhere",
           "~(<unsigned long>0) if nid < 0 else <unsigned long>1 << nid, MR_SYSCALL, &new_pfn)",
           "~(<unsigned long>0) if nid <= 0 else <unsigned long>1 << nid, MR_SYSCALL, &new_pfn)"),
    Mutant("swapfile:unuse_pte", "ksm/mm/swapfile.pyx", "swapoff forgets whether a page was exclusive",
           "old_pte = ptep_get(pte)",
           "pass"),
    Mutant("swapfile:unuse_pte_range", "ksm/mm/swapfile.pyx", "A slot whose entry has changed meanwhile is not read again at once",
           "if ret >= 0:",
           "if ret >= 1:",
           unnoticed=("the entry changes only if another thread's fault comes between two reads; try_to_unuse() finds "
                      "the page in the swap cache then")),
    Mutant("swapfile:swapon", "ksm/mm/swapfile.pyx", "A new area has a slot in use",
           "si.inuse_pages = 0",
           "si.inuse_pages = 1"),
    Mutant("swapfile:__try_to_reclaim_swap", "ksm/mm/swapfile.pyx", "A page that is mapped loses its slot",
           "if ((flags & TTRS_ANYWAY or (flags & TTRS_UNMAPPED and not folio_mapped(folio)) or (flags & TTRS_FULL and vm_swap_full(si)))",
           "if ((flags | TTRS_ANYWAY or (flags & TTRS_UNMAPPED and not folio_mapped(folio)) or (flags & TTRS_FULL and vm_swap_full(si)))"),
    Mutant("huge_memory:do_huge_pmd_wp_page", "ksm/mm/huge_memory.pyx", "It is not checked whether a huge page is exclusive",
           "reuse = PageAnonExclusive(folio)",
           "pass"),
    Mutant("huge_memory:split_huge_pmd", "ksm/mm/huge_memory.pyx", "Entries of a split huge page have every bit",
           "entry = mk_pte(m, page + i, READ_ONCE_ulong(vma.vm_page_prot) & ~<unsigned long>_PAGE_ACCESSED)",
           "entry = mk_pte(m, page + i, READ_ONCE_ulong(vma.vm_page_prot) | ~<unsigned long>_PAGE_ACCESSED)"),
    Mutant("huge_memory:split_huge_page_of_two", "ksm/mm/huge_memory.pyx", "A huge page that could not be split is taken for split",
           "if not done:",
           "if False and (not done):"),
    Mutant("huge_memory:split_huge_pmd-2", "ksm/mm/huge_memory.pyx", "The parts of a split huge page get no table",
           "table = pgtable_trans_huge_withdraw(mm)",
           "pass"),
    Mutant("vma:vma_set_range", "ksm/mm/vma.pyx", "A vma with other bounds stands twice in an interval tree",
           "anon_vma_interval_tree_remove(avc_of_same_vma(pos), &avc_of_same_vma(pos).anon_vma.rb_root)",
           "pass"),
    Mutant("vma:vm_area_dup", "ksm/mm/vma.pyx", "A vma is copied without memory, and not with memory",
           "if new != NULL:",
           "if not (new != NULL):"),
    Mutant("vma:split_vma", "ksm/mm/vma.pyx", "The upper half of a vma lies elsewhere in its object",
           "new.vm_pgoff += (addr - vma.vm_start) >> PAGE_SHIFT",
           "new.vm_pgoff += (addr - vma.vm_start) << PAGE_SHIFT"),
    Mutant("vma:vma_modify_flags", "ksm/mm/vma.pyx", "The error of a split is used as a vma",
           """\
        error[0] = split_vma(vma, end, False)
        if error[0]:
""", """\
        error[0] = split_vma(vma, end, False)
        if False and (error[0]):
"""),
    Mutant("page_alloc:undo_isolate_page_range", "ksm/mm/page_alloc.pyx", "A frame that is online again counts twice",
           "            z.nr_free += 1",
           "            z.nr_free += 2"),
    Mutant("page_alloc:free_one_page", "ksm/mm/page_alloc.pyx", "Freed frames wait until the list is full",
           "while z.nr_recent == RECENT_FRAMES:",
           "while z.nr_recent != RECENT_FRAMES:"),
    Mutant("page_alloc:claim_frames", "ksm/mm/page_alloc.pyx", "Memory is requested for frames that were never used",
           """\
        return False
""", """\
        return True
"""),
    Mutant("page_alloc:put_free_page", "ksm/mm/page_alloc.pyx", "A frame that goes offline is not marked",
           "set_page_flag(m.mem_map + pfn, PG_offline)",
           "pass"),
    Mutant("mremap:do_mremap", "ksm/mm/mremap.pyx", "A length of one byte more than whole pages loses it",
           "old_len = (old_len + PAGE_SIZE - 1) & page_mask()",
           "old_len = (old_len + PAGE_SIZE - 2) & page_mask()"),
    Mutant("mremap:move_page_tables", "ksm/mm/mremap.pyx", "Making a table counts as a lack of memory",
           "if pte_alloc(mm, new_pmd):",
           "if not (pte_alloc(mm, new_pmd)):"),
    Mutant("mremap:move_ptes", "ksm/mm/mremap.pyx", "Pages get lost on the way to another address",
           "set_pte_at(mm, new_addr, new_pte, pte)",
           "pass"),
    Mutant("mmap:do_mmap", "ksm/mm/mmap.pyx", "New memory cannot be written to",
           "vm_flags |= VM_WRITE",
           "pass"),
    Mutant("mmap:mmap_region", "ksm/mm/mmap.pyx", "New memory is not mergeable after prctl(PR_SET_MEMORY_MERGE)",
           """\
    ksm_add_vma(vma)
    return <long>addr
""", """\
    pass
    return <long>addr
"""),
    Mutant("madvise:madvise_walk_vmas", "ksm/mm/madvise.pyx", "The vma behind the range gets the advice, too",
           """\
        if start >= end:
            break
""", """\
        if start > end:
            break
"""),
    Mutant("madvise:madvise_vma_behavior", "ksm/mm/madvise.pyx", "Only shared memory can be told to be wiped on fork",
           "if vma[0].vm_file != NULL or new_flags & VM_SHARED:",
           "if not (vma[0].vm_file != NULL or new_flags & VM_SHARED):"),
    Mutant("memory_hotplug:add_memory_file", "ksm/mm/memory_hotplug.pyx", "Images are counted down",
           "m.nr_blocks += 1",
           "m.nr_blocks -= 1"),
    Mutant("memory_hotplug:add_memory_file-2", "ksm/mm/memory_hotplug.pyx", "The longer list of images is forgotten",
           "m.blocks = blocks",
           "pass"),
    Mutant("memory_failure:add_to_kill_anon", "ksm/mm/memory_failure.pyx", "A listed process gets no reference",
           "    mmgrab(mm)                  # get_task_struct()",
           "    pass"),
    Mutant("swap:folio_batch_add_and_move", "ksm/mm/swap.pyx", "The pages of a full batch stay in it, and it overflows",
           "        nr = folio_batch_take(batch, count, folios)",
           "        pass"),
    Mutant("page_io:swap_read_folio", "ksm/mm/page_io.pyx", "A page of zeros comes back as what the frame held",
           "    clear_highpage(m, folio)",
           "    pass"),
    Mutant("swap:folio_batch_add_and_move-2", "ksm/mm/swap.pyx", "A full batch goes on being filled",
           "if count[0] == FOLIO_BATCH_SIZE or folio_test_large(folio) or lru_cache_disabled(m):",
           "if False and (count[0] == FOLIO_BATCH_SIZE or folio_test_large(folio) or lru_cache_disabled(m)):"),
    Mutant("mprotect:change_protection", "ksm/mm/mprotect.pyx", "Only tables that do not exist are protected",
           "if pmd != NULL and not pmd_none(pmdp_get_lockless(pmd)):",
           "if pmd != NULL and pmd_none(pmdp_get_lockless(pmd)):"),
    Mutant("mprotect:mprotect_fixup", "ksm/mm/mprotect.pyx", "A call that has nothing to do returns an error",
           """\
    return 0

""", """\
    return 1

"""),
    Mutant("pagewalk:walk_page_range_vma", "ksm/mm/pagewalk.pyx", "Only tables that do not exist are walked",
           "elif not pmd_none(pmdp_get_lockless(pmd)):",
           "elif not (not pmd_none(pmdp_get_lockless(pmd))):"),
    Mutant("kstrtox:parse_digits", "include/linux/kstrtox.pxd", "There is no digit 9",
           "while c'0' <= s[0] <= c'9':",
           "while c'0' <= s[0] < c'9':"),
    Mutant("jhash:jhash", "include/linux/jhash.pxd", "Two words are not a block",
           "if length >= 8:",
           "if length > 8:"),
    Mutant("kstrtox:kstrtobool", "include/linux/kstrtox.pxd", 'The word "no" is read as yes',
           "            res[0] = False",
           "            res[0] = True"),
    Mutant("rbtree_augmented:__rb_erase_augmented", "include/linux/rbtree_augmented.pxd", "The search for a successor does not end",
           "break",
           "continue"),
    Mutant("mm:vma_is_dax", "include/linux/mm.pxd", "All memory is persistent",
           "return False                # no persistent memory here",
           "return True                # no persistent memory here"),
    Mutant("list:hlist_move_list", "include/linux/list.pxd", "The first entry of a moved list points back to the old head",
           "new.first.pprev = &new.first",
           "pass"),
    Mutant("rbtree:____rb_erase_color", "ksm/lib/rbtree.pyx", "A rotation loses a child",
           """\
            parent.rb_left = tmp2
            sibling.rb_right = parent
""", """\
            pass
            sibling.rb_right = parent
"""),
    Mutant("rbtree:__rb_insert", "ksm/lib/rbtree.pyx", "A missing uncle counts as red",
           """\
            if tmp is not NULL and rb_is_red(tmp):
                # Case 1: G(p(n, -), u) becomes g(P(n, -), U). The uncle is red too, so both generations change colour; go on from g.
""", """\
            if tmp is not NULL or rb_is_red(tmp):
                # Case 1: G(p(n, -), u) becomes g(P(n, -), U). The uncle is red too, so both generations change colour; go on from g.
"""),
    Mutant("rbtree:____rb_erase_color-2", "ksm/lib/rbtree.pyx", "A missing nephew counts as red",
           """\
                tmp2 = sibling.rb_left
                if tmp2 is NULL or rb_is_black(tmp2):
""", """\
                tmp2 = sibling.rb_left
                if tmp2 is NULL and rb_is_black(tmp2):
"""),
    Mutant("rbtree:____rb_erase_color-3", "ksm/lib/rbtree.pyx", "A nephew keeps its parent and colour",
           """\
                parent.rb_right = tmp2
                if tmp1 is not NULL:
                    rb_set_parent_color(tmp1, sibling, RB_BLACK)
""", """\
                parent.rb_right = tmp2
                if tmp1 is not NULL:
                    pass
"""),
    Mutant("xxhash:xxh64", "ksm/lib/xxhash.pyx", "The last block of 32 bytes is left to the end",
           "if p > limit:",
           "if p >= limit:"),
    Mutant("xxhash:xxh_rotl64", "ksm/lib/xxhash.pyx", "Bits fall out of a rotation",
           "return (x << r) | (x >> (64 - r))",
           "return (x >> r) | (x >> (64 - r))"),
    Mutant("look_ahead:watch_table", "ksm/fast/look_ahead.pyx", "The look ahead goes backwards through a table",
           "ptep += 1",
           "ptep -= 1"),
    Mutant("page_keys:heaviest", "ksm/fast/page_keys.pyx", "Paths go where fewest samples go",
           "if to and book.branches[to].samples > samples:",
           "if not (to and book.branches[to].samples > samples):"),
    Mutant("look_ahead:read_pages", "ksm/fast/look_ahead.pyx", "Pages ahead have no checksums",
           "xxh64_pages(pages, checksums, <int>nr)",
           "pass"),
    Mutant("samples:sample_mm", "ksm/fast/samples.pyx", "All whole samples lie at one place",
           "samples.whole += PAGE_SIZE",
           "pass"),
    Mutant("watch:forget_item_keys", "ksm/fast/watch.pyx", "The lock is released after each item except one in 1,024",
           "if nr % 1024 == 0:      # no other thread changes the list, but every thread that writes to a page wants the lock",
           "if not (nr % 1024 == 0):",
           unnoticed="the change affects only how long other threads wait for the lock"),
    Mutant("page_keys:add_branch", "ksm/fast/page_keys.pyx", "Every second branch is left unused",
           "book.nr_branches += 1",
           "book.nr_branches += 2"),
    Mutant("samples:bytes_at", "ksm/fast/samples.pyx", "Pages that are not anonymous are samples",
           "if page == NULL or not folio_test_anon(page) or folio_test_ksm(page):",
           "if page == NULL and not folio_test_anon(page) or folio_test_ksm(page):"),
    Mutant("look_ahead:look_ahead", "ksm/fast/look_ahead.pyx", "Pages ahead are not read",
           "        read_pages(fast, unread, nr_unread)",
           "        pass"),
    Mutant("stable_keys:filter_refill", "ksm/fast/stable_keys.pyx", "Nodes in migrate_nodes are looked for in the wrong place",
           "filter_add_node(fast, stable_node_of_list(link), new_book)",
           "filter_add_node(fast, stable_node_of_list(link.next), new_book)"),
    Mutant("stable_keys:stable_trees_lack", "ksm/fast/stable_keys.pxd", "The filter is asked for the last key of each word",
           "if fast.filter[place >> 6] >> (place & 63) & 1:",
           "if fast.filter[place >> 6] >> (place | 63) & 1:"),
    Mutant("host/memory:cgroup_room", "ksm/host/memory.py", "Cgroups are ignored",
           "while True:",
           "while False:"),
    Mutant("host/memory:cgroup_room-3", "ksm/host/memory.py", "The cgroup's room does not count",
           "room = min(room, int(limit) - used + cache)",
           "pass"),
    Mutant("pagemap:scan_area", "ksm/sources/pagemap.pyx", "A kernel that makes no progress is asked again for ever",
           """\
            break
        start = arg.walk_end
""", """\
            continue
        start = arg.walk_end
""",
           unnoticed="no kernel reports that it has walked no further than the start of the range"),
    Mutant("live:begin", "ksm/sources/live.py", "Frames that were seen in one pass are left out in the next",
           "self.claimed.clear()",
           "pass"),
    Mutant("extents:_map", "ksm/sources/extents.py", "More than the hole is thrown away",
           "process.madvise(addr + before.end - first, after.offset - before.end, MADV_DONTNEED)",
           "process.madvise(addr + before.end - first, after.offset + before.end, MADV_DONTNEED)"),
    Mutant("image:open_image", "ksm/sources/image.py", "Only files that are not whole pages are images",
           "if size % PAGE_SIZE:",
           "if not (size % PAGE_SIZE):"),
    Mutant("pagemap:place_of", "ksm/sources/pagemap.pyx", "A run is looked for in the same place for ever",
           "mid = (low + high) // 2",
           "pass"),
    Mutant("live:_forget", "ksm/sources/live.py", "Pages that have gone cannot be forgotten",
           """\
        assert self.process is not None
        for start, end in runs:
""", """\
        assert self.process is None
        for start, end in runs:
"""),
    Mutant("live:_parts", "ksm/sources/live.py", "The memory that is to be read is not opened",
           'mem = Memory(self._open("mem"))\n        pagemap = self._open("pagemap")\n        try:\n            for stretch',
           'pagemap = self._open("pagemap")\n        try:\n            for stretch'),
    Mutant("core:read_notes-2", "ksm/sources/core.py", "All cores but gdb's count as gdb's",
           'gdb = gdb or owner == b"GDB"',
           'gdb = gdb or owner != b"GDB"'),
    Mutant("report:shortened", "ksm/estimate/report.py", "A shortened name takes a column more",
           "while columns(name) >= room:",
           "while columns(name) > room:"),
    Mutant("report:shortened-2", "ksm/estimate/report.py", "A name that just fits is shortened",
           "if columns(name) <= room:",
           "if columns(name) < room:"),
    Mutant("savings:count_word", "ksm/estimate/savings.pyx", "Zero pages are counted down",
           """\
        state = ZERO if last[frame] & ZEROS else WITHIN if last[frame] == source else ACROSS
        counts[state] += 1
""", """\
        state = ZERO if last[frame] & ZEROS else WITHIN if last[frame] == source else ACROSS
        counts[state] += -1 if state == ZERO else 1
"""),
    Mutant("settings:writable", "ksm/estimate/settings.py", "After the first file that can only be read no other is listed",
           "continue",
           "break"),
    Mutant("report:sources_table-2", "ksm/estimate/report.py", "A wide terminal leaves no more room for names",
           "room = NAME_WIDTH + max(0, width - 80)",
           "room = NAME_WIDTH + min(0, width - 80)"),
    Mutant("savings:count_word-2", "ksm/estimate/savings.pyx", "Sharing within one source counts as sharing across sources",
           "else WITHIN if last[frame] == source else ACROSS",
           "else WITHIN if last[frame] != source else ACROSS"),
)

MUTANTS = KNOWN + DRAWN

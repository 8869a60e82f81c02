# SPDX-License-Identifier: GPL-2.0-only
# Follows kernel/fork.c of Linux 6.12, and bprm_mm_init() of fs/exec.c.
"""Address spaces: making them, copying them by fork, and freeing them when the last user is gone.

mm_users counts the users of the memory. At 0 the process exits, its pages are unmapped, and ksm_test_exit() is true. mm_count counts the
references on the struct; all users together hold one. KSM holds one for as long as the mm is in its list.
"""

from libc.errno cimport ENOMEM
from libc.stdlib cimport free
from libc.string cimport memcpy

from linux.atomic cimport atomic_long_read, atomic_long_set, test_bit
from linux.ksm cimport ksm_exit, ksm_fork
from linux.list cimport list_add_tail, list_del
from linux.mm cimport VM_DONTCOPY, VM_LOCKED, VM_WIPEONFORK, vm_flags_clear
from linux.mm_types cimport (MMF_VM_MERGEABLE, MMF_VM_MERGE_ANY, NR_MM_COUNTERS, machine, mm_struct, vm_area_struct)
from linux.mmap_lock cimport mmap_write_lock, mmap_write_unlock
from linux.spinlock cimport init_rwsem, spin_lock, spin_lock_init, spin_unlock

from ksm.mm.memory cimport copy_page_range
from ksm.mm.mmap cimport task_size
from ksm.mm.pgtable_generic cimport table_alloc, table_free
from ksm.mm.rmap cimport anon_vma_fork, unlink_anon_vmas
from ksm.mm.slub cimport kmem_cache_alloc, kmem_cache_free, kmem_cache_zalloc
from ksm.mm.vma cimport exit_mmap, fput, remove_vma, vm_area_dup, vm_area_free, vma_link


cdef enum:
    STACK_GAP = 0x8000000       # room below the top of memory that mmap_base leaves for the stack


cdef mm_struct *mm_init(mm_struct *mm, machine *m, mm_struct *oldmm) noexcept nogil:
    """Set the fields that no mm inherits, and those that every mm inherits."""
    cdef int i
    mm.machine = m
    mm.vmas = NULL
    mm.map_count = 0
    mm.map_capacity = 0
    mm.mm_users = 1
    mm.mm_count = 1
    init_rwsem(&mm.mmap_lock)
    spin_lock_init(&mm.page_table_lock)
    for i in range(NR_MM_COUNTERS):
        mm.rss_stat[i] = 0
    mm.total_vm = 0
    mm.nr_page_tables = 0
    mm.mf_round = 0
    mm.parents_merging_pages = mm.ksm_merging_pages
    mm.parents_rmap_items = mm.ksm_rmap_items
    mm.pmd_huge_pte = NULL
    mm.tlb_flush_pending = 0
    mm.notifier_invalidations = 0
    if oldmm != NULL:
        # Only some flags are inherited: the one of prctl(PR_SET_MEMORY_MERGE) is, the one of being registered is not.
        mm.flags = oldmm.flags & (1UL << MMF_VM_MERGE_ANY)
    else:
        mm.flags = 0
        mm.def_flags = 0
    mm.pgd = table_alloc(m)
    if mm.pgd == NULL:
        kmem_cache_free(m.mm_cachep, mm)
        return NULL
    spin_lock(&m.mmlist_lock)
    m.next_mm_id += 1
    mm.id = m.next_mm_id
    list_add_tail(&mm.mmlist, &m.mmlist)
    spin_unlock(&m.mmlist_lock)
    return mm


cdef mm_struct *mm_alloc(machine *m) noexcept nogil:
    """An empty address space with one user; NULL without memory."""
    cdef mm_struct *mm = <mm_struct *>kmem_cache_zalloc(m.mm_cachep)
    if mm == NULL:
        return NULL
    mm.mmap_base = task_size() - STACK_GAP
    mm.start_brk = 0x555555556000UL
    mm.brk = mm.start_brk
    return mm_init(mm, m, NULL)


cdef int dup_mmap(mm_struct *mm, mm_struct *oldmm) noexcept nogil:
    """Copy the parent's mappings: vmas, anon_vmas, pages. The child is registered with KSM last, and only if no step failed."""
    cdef vm_area_struct *mpnt
    cdef vm_area_struct *tmp
    cdef int i, retval = 0
    cdef bint all_copied = True
    mmap_write_lock(oldmm)
    mmap_write_lock(mm)
    # OURS: dup_mm() has copied this count without a lock, in the kernel too. Zero pages that ksmd has merged since would be missing for
    # good from the child's count and the machine's.
    atomic_long_set(&mm.ksm_zero_pages, atomic_long_read(&oldmm.ksm_zero_pages))
    for i in range(oldmm.map_count):
        mpnt = oldmm.vmas[i]
        all_copied = all_copied and not mpnt.vm_flags & (VM_DONTCOPY | VM_WIPEONFORK)
        if mpnt.vm_flags & VM_DONTCOPY:
            continue
        tmp = vm_area_dup(mpnt, mm)
        if tmp == NULL:
            retval = -ENOMEM
            break
        if tmp.vm_flags & VM_WIPEONFORK:
            tmp.anon_vma = NULL
        else:
            retval = anon_vma_fork(tmp, mpnt)
            if retval:
                vm_area_free(tmp)
                break
        vm_flags_clear(tmp, VM_LOCKED)
        if tmp.vm_file != NULL:
            tmp.vm_file.f_count += 1
        retval = vma_link(mm, tmp)
        if retval:
            unlink_anon_vmas(tmp)
            remove_vma(tmp)
            break
        if not (tmp.vm_flags & VM_WIPEONFORK):
            retval = copy_page_range(tmp, mpnt)
        if retval:
            break
    # OURS: the child has the parent's count of KSM's zero pages, also of pages that were not copied. The count is added to the machine's
    # only if no step failed and the parent is registered. Later unmapping subtracts the pages that were copied. Machine.check() must not
    # report this arithmetic of the kernel as an error.
    if oldmm.ksm_zero_pages and (retval or not all_copied or not test_bit(MMF_VM_MERGEABLE, &oldmm.flags)):
        mm.zero_pages_inexact = True
        mm.machine.zero_pages_inexact = True
    if retval == 0:
        ksm_fork(mm, oldmm)
    mmap_write_unlock(mm)
    mmap_write_unlock(oldmm)
    return retval


cdef mm_struct *dup_mm(mm_struct *oldmm, int *error) noexcept nogil:
    """The child's address space; NULL with -ENOMEM."""
    cdef mm_struct *mm = <mm_struct *>kmem_cache_alloc(oldmm.machine.mm_cachep)
    error[0] = -ENOMEM
    if mm == NULL:
        return NULL
    # All fields are copied, KSM's counters too: ksm_fork() reads the parent's count of zero pages here.
    memcpy(mm, oldmm, sizeof(mm_struct))
    mm = mm_init(mm, oldmm.machine, oldmm)
    if mm == NULL:
        return NULL
    error[0] = dup_mmap(mm, oldmm)
    if error[0]:
        mmput(mm)
        return NULL
    return mm


cdef void mmput(mm_struct *mm) noexcept nogil:
    """Count one user fewer. The last user frees the memory."""
    if atomic_dec_and_test(&mm.mm_users):
        ksm_exit(mm)            # before any page is unmapped, because KSM may be at work in this mm
        exit_mmap(mm)
        mmdrop(mm)


cdef void __mmdrop(mm_struct *mm) noexcept nogil:
    cdef machine *m = mm.machine
    spin_lock(&m.mmlist_lock)
    list_del(&mm.mmlist)
    spin_unlock(&m.mmlist_lock)
    free(mm.vmas)
    table_free(m, mm.pgd)
    kmem_cache_free(m.mm_cachep, mm)


cdef void mm_discard(mm_struct *mm) noexcept nogil:
    """OURS: free the parts of an mm that are in no cache. The machine is being freed with all caches and frames, so nothing is unmapped."""
    cdef int i
    for i in range(mm.map_count):
        fput(mm.machine, mm.vmas[i].vm_file)
    free(mm.vmas)

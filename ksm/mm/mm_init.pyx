# SPDX-License-Identifier: GPL-2.0-only
# Stands in for mm/mm_init.c of Linux 6.12.
"""Make a machine, with its memory, nodes, caches and KSM, and free it again. The kernel's machine is never freed."""

from libc.errno cimport ENOMEM
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from linux.atomic cimport WRITE_ONCE_int
from linux.highmem cimport FRAME_SIZE
from linux.list cimport INIT_LIST_HEAD, list_head
from linux.mm_types cimport (HPAGE_PMD_NR, PAGE_SIZE, anon_vma_chain, machine, mm_of_mmlist, mm_struct, struct_anon_vma,
                             vm_area_struct)
from linux.page_flags cimport PG_reserved, PG_uptodate
from linux.pgtable cimport pte_table
from linux.spinlock cimport mutex_destroy, mutex_init, spin_lock_init

from ksm.fast.seams cimport fast_exit, fast_init
from ksm.fingerprint.frames cimport frame_maker_init
from ksm.host.arena cimport arena_add_ram, arena_create, arena_destroy
from ksm.kernel.fork cimport mm_discard
from ksm.mm.ksm cimport ERA_2_6_38, ERA_6_1, ERA_6_12, ksm_exit_machine, ksm_globals, ksm_init, ksmd_stop
from ksm.mm.page_alloc cimport zone_destroy, zone_init
from ksm.mm.slub cimport kmem_cache_create, kmem_cache_create_typesafe, kmem_cache_destroy
from ksm.mm.swapfile cimport swap_exit
from ksm.step cimport steps_exit


cdef int init_memory(machine *m, const machine_plan *plan) noexcept nogil:
    """The arena, the zero page, and the zones: 0 or -errno."""
    cdef unsigned long ram = plan.ram_pages, per_node, end
    cdef int nid, err
    # Every node but the last has whole huge pages, and so has the space behind the memory.
    err = arena_create(m, (plan.max_pages + HPAGE_PMD_NR) & ~(<unsigned long>HPAGE_PMD_NR - 1))
    if not err:
        err = arena_add_ram(m, 0, ram)
    if err:
        return err
    m.plugged_pfn = ram
    # The zero page belongs to no process.
    m.zero_pfn = 0
    m.mem_map[0].flags = PG_reserved | PG_uptodate
    m.mem_map[0]._refcount = 1
    m.mem_map[0]._mapcount = -1
    per_node = (ram // <unsigned long>m.nr_node_ids) & ~(<unsigned long>HPAGE_PMD_NR - 1)
    for nid in range(m.nr_node_ids):
        end = ram if nid == m.nr_node_ids - 1 else (<unsigned long>nid + 1) * per_node
        err = zone_init(m, nid, <unsigned long>nid * per_node if nid else 1, end)
        if err:
            return err
    return 0


cdef int init_caches(machine *m) noexcept nogil:
    m.mm_cachep = kmem_cache_create(b"mm_struct", sizeof(mm_struct))
    m.vm_area_cachep = kmem_cache_create(b"vm_area_struct", sizeof(vm_area_struct))
    m.anon_vma_cachep = kmem_cache_create_typesafe(b"anon_vma", sizeof(struct_anon_vma))
    m.anon_vma_chain_cachep = kmem_cache_create(b"anon_vma_chain", sizeof(anon_vma_chain))
    m.pgtable_cachep = kmem_cache_create(b"page_table", sizeof(pte_table))
    if (m.mm_cachep == NULL or m.vm_area_cachep == NULL or m.anon_vma_cachep == NULL or m.anon_vma_chain_cachep == NULL
            or m.pgtable_cachep == NULL):
        return -ENOMEM
    return 0


cdef machine *machine_init(const machine_plan *plan, int *error) noexcept nogil:
    """A machine without processes; NULL with -errno in *error."""
    cdef machine *m = <machine *>calloc(1, sizeof(machine))
    cdef int err
    error[0] = -ENOMEM
    if m == NULL:
        return NULL
    m.frame_size = FRAME_SIZE if plan.fingerprints else PAGE_SIZE
    if plan.fingerprints:
        frame_maker_init(&m.maker, plan.era == ERA_2_6_38, plan.key)
    if plan.key != NULL:
        memcpy(m.fingerprint_key, plan.key, sizeof(m.fingerprint_key))
    m.manual_clock = plan.manual_clock
    m.nr_node_ids = plan.nr_nodes
    m.transparent_hugepage = plan.transparent_hugepage
    m.map_unused_to_zeropage = plan.era > ERA_6_1
    m.ksm_pages_move = plan.era > ERA_2_6_38
    m.protnone_is_no_page = plan.era == ERA_6_1
    m.ksm_pages_fail = plan.era > ERA_6_1
    m.fork_resets_ksm_counts = plan.era > ERA_6_1
    m.ksm_flags_first = plan.era > ERA_6_12
    m.mremap_moves_many = plan.era > ERA_6_12
    m.lru_drained_seldom = plan.era > ERA_6_12
    mutex_init(&m.hotplug_lock)
    mutex_init(&m.store_lock)
    mutex_init(&m.mf_mutex)
    mutex_init(&m.swapon_mutex)
    spin_lock_init(&m.lru_lock)
    spin_lock_init(&m.plugged_lock)
    spin_lock_init(&m.mmlist_lock)
    INIT_LIST_HEAD(&m.mmlist)
    err = init_memory(m, plan)
    if not err:
        err = init_caches(m)
    if not err:
        err = ksm_init(m, plan.era)
    if not err and not plan.plain and plan.era > ERA_2_6_38:
        err = fast_init(<ksm_globals *>m.ksm, plan.threads)
    if err:
        machine_exit(m)
        m = NULL
    error[0] = err
    return m


cdef void machine_exit(machine *m) noexcept nogil:
    """Free the machine. No thread may be in it."""
    cdef list_head *pos
    cdef mm_struct *mm
    cdef int nid
    if m.ksm != NULL:
        WRITE_ONCE_int(m.freezing, 1)
        ksmd_stop(<ksm_globals *>m.ksm)
        steps_exit(m)
        # The pages that processes and KSM still have are freed with the caches and the arena as a whole. Freeing them page by page takes
        # long.
        pos = m.mmlist.next
        while pos != &m.mmlist:
            mm = mm_of_mmlist(pos)
            pos = pos.next
            mm_discard(mm)
        fast_exit(<ksm_globals *>m.ksm)
        ksm_exit_machine(m)
    for nid in range(m.nr_node_ids):
        zone_destroy(&m.zones[nid])
    kmem_cache_destroy(m.pgtable_cachep)
    kmem_cache_destroy(m.anon_vma_chain_cachep)
    kmem_cache_destroy(m.anon_vma_cachep)
    kmem_cache_destroy(m.vm_area_cachep)
    kmem_cache_destroy(m.mm_cachep)
    swap_exit(m)
    arena_destroy(m)
    mutex_destroy(&m.swapon_mutex)
    mutex_destroy(&m.mf_mutex)
    mutex_destroy(&m.hotplug_lock)
    mutex_destroy(&m.store_lock)
    free(m.blocks)
    free(m)


cdef void machine_forget(machine *m) noexcept nogil:
    """In a forked process: free the copy of the arena, by far the largest part of the machine.

    The rest may have been in the middle of a change when the process was forked: locks are held, and ksmd is missing. It is freed when the
    process ends.
    """
    arena_destroy(m)

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel. TEST SUPPORT: the addresses of the fields of a machine's structures, so that a test can damage one. Nothing else
# imports it.
"""Addresses of the fields behind one page of a process, and of those that belong to the whole machine."""

from typing import NamedTuple

from libc.string cimport memcpy

from linux.ksm cimport ksm_page_changed
from linux.list cimport list_head
from linux.mm cimport vma_lookup
from linux.mm_types cimport (MM_ANONPAGES, MM_SHMEMPAGES, anon_vma_chain, avc_of_same_vma, mm_of_mmlist, mm_struct, page_mask, pmd_t, pte_t,
                             struct_anon_vma, struct_page, swap_info_struct, vm_area_struct, zone)
from linux.pgtable cimport pmd_leaf, pmd_none, pmd_offset_mm, pmd_table, pte_offset_map, pte_pfn, pte_present
from linux.rbtree cimport rb_node
from linux.slab cimport kmem_cache

from ksm.lib.rbtree cimport rb_first, rb_next
from ksm.machine cimport Machine
from ksm.mm.ksm cimport (MM_SLOTS_HASH_BITS, STABLE_FLAG, is_stable_node_chain, is_stable_node_dup, ksm_globals, ksm_mm_slot,
                         ksm_rmap_item, ksm_stable_node, stable_node_of)
from ksm.mm.mm_slot cimport mm_slot_lookup


class Field(NamedTuple):
    """The address of a field, and its size in bytes."""

    address: int
    size: int


cdef object field(const void *p, size_t size):
    return Field(<unsigned long>p, size)


def machine_fields(Machine machine not None):
    """The fields that a machine has once."""
    cdef ksm_globals *g = machine.g
    cdef zone *z = &machine.m.zones[0]
    return {
        "pages_shared": field(&g.ksm_pages_shared, 8),
        "pages_sharing": field(&g.ksm_pages_sharing, 8),
        "pages_unshared": field(&g.ksm_pages_unshared, 8),
        "rmap_items": field(&g.ksm_rmap_items, 8),
        "chains": field(&g.ksm_stable_node_chains, 8),
        "dups": field(&g.ksm_stable_node_dups, 8),
        "zero_pages": field(&machine.m.ksm_zero_pages, 8),
        "max_page_sharing": field(&g.ksm_max_page_sharing, 4),
        "sharing_bypassed": field(&g.sharing_bypassed, 4),
        "merge_across_nodes": field(&g.ksm_merge_across_nodes, 4),
        "scan.mm_slot": field(&g.ksm_scan.mm_slot, 8),
        "scan.address": field(&g.ksm_scan.address, 8),
        "scan.rmap_list": field(&g.ksm_scan.rmap_list, 8),
        "scan.seqnr": field(&g.ksm_scan.seqnr, 8),
        "head": field(&g.ksm_mm_head, sizeof(ksm_mm_slot)),
        "run": field(&g.ksm_run, 8),
        "sigpending": field(&machine.m.sigpending, 4),
        "migrate_nodes.next": field(&g.migrate_nodes.next, 8),
        "stable_root": field(&g.root_stable_tree[0].rb_node, 8),
        "unstable_root": field(&g.root_unstable_tree[0].rb_node, 8),
        "zone.nr_free": field(&z.nr_free, 8),
        "zone.fresh_pfn": field(&z.fresh_pfn, 8),
        "zone.nr_recent": field(&z.nr_recent, 4),
        "zone.recent": field(z.recent, 4),
        "zone.free_area": field(z.free_area, 4),
        "nr_lru_add": field(&machine.m.nr_lru_add, 4),
        "mem_map": field(machine.m.mem_map, sizeof(struct_page)),
        "arena": field(machine.m.arena, 4096),
        **cache_fields("mm_struct", machine.m.mm_cachep),
        **cache_fields("vm_area_struct", machine.m.vm_area_cachep),
        **cache_fields("anon_vma", machine.m.anon_vma_cachep),
        **cache_fields("anon_vma_chain", machine.m.anon_vma_chain_cachep),
        **cache_fields("page_table", machine.m.pgtable_cachep),
        **cache_fields("rmap_item", g.rmap_item_cache),
        **cache_fields("stable_node", g.stable_node_cache),
        **cache_fields("mm_slot", g.mm_slot_cache),
    }


cdef dict cache_fields(str name, kmem_cache *cache):
    return {f"cache.{name}": field(&cache.nr_objects, 8)}


def frame_fields(Machine machine not None, unsigned long pfn):
    """The fields of the struct page of a frame."""
    cdef struct_page *page = machine.m.mem_map + pfn
    return {
        "page.flags": field(&page.flags, 4),
        "page.refcount": field(&page._refcount, 4),
        "page.mapcount": field(&page._mapcount, 4),
        "page.private": field(&page.private, 4),
        "page.mapping": field(&page.mapping, 8),
        "page.index": field(&page.index, 8),
        "page.bytes": field(machine.m.arena + (pfn << 12), 4096),
    }


def slot_fields(Machine machine not None, unsigned long slot):
    """The fields of the swap area, and those of one slot."""
    cdef swap_info_struct *si = machine.m.swap_info
    return {
        "slot.bytes": field(si.data + (slot << 12), 4096),
        "slot.zeromap": field(&si.zeromap[slot], 1),
        "slot.swap_map": field(&si.swap_map[slot], 4),
        "slot.page": field(&si.i_pages[slot], 8),
        "swap.inuse_pages": field(&si.inuse_pages, 8),
        "swap.users": field(&si.users, 4),
        "swap.locked": field(&si.lock.locked, 4),
        "swap.cache_locked": field(&si.i_pages_lock.locked, 4),
    }


def store(Machine machine not None, unsigned long pfn, const unsigned char[::1] data):
    """Write to the beginning of a frame, as a processor does. The caller holds the lock of the page table, as a processor would."""
    if not 0 < data.shape[0] <= 4096:
        raise ValueError("a frame has 4096 bytes")
    ksm_page_changed(machine.m, machine.m.mem_map + pfn)
    memcpy(machine.m.arena + (pfn << 12), &data[0], data.shape[0])


def page_fields(Machine machine not None, unsigned long mm_id, unsigned long addr):
    """The fields for one page of the mm with this id. Fields that do not exist are left out."""
    cdef mm_struct *mm = NULL
    cdef list_head *pos = machine.m.mmlist.next
    cdef pmd_t *pmd
    cdef pte_t *pte
    cdef vm_area_struct *vma
    while pos != &machine.m.mmlist:
        mm = mm_of_mmlist(pos)
        if mm.id == mm_id:
            break
        pos = pos.next
    if pos == &machine.m.mmlist:
        raise LookupError(f"no mm {mm_id}")
    found = {
        "mm": field(mm, sizeof(mm_struct)),
        "mm.mm_users": field(&mm.mm_users, 4),
        "mm.mm_count": field(&mm.mm_count, 4),
        "mm.flags": field(&mm.flags, 8),
        "mm.anon": field(&mm.rss_stat[MM_ANONPAGES], 8),
        "mm.shmem": field(&mm.rss_stat[MM_SHMEMPAGES], 8),
        "mm.total_vm": field(&mm.total_vm, 8),
        "mm.merging_pages": field(&mm.ksm_merging_pages, 8),
        "mm.rmap_items": field(&mm.ksm_rmap_items, 8),
        "mm.zero_pages": field(&mm.ksm_zero_pages, 8),
        "mm.nr_page_tables": field(&mm.nr_page_tables, 8),
        "mm.page_table_lock": field(&mm.page_table_lock.locked, 4),
        "mm.mmap_lock": field(&mm.mmap_lock.count, 4),
    }
    vma = vma_lookup(mm, addr)
    if vma != NULL:
        found.update(vma_fields(vma))
    found.update(ksm_fields(machine.g, mm, addr))
    pmd = pmd_offset_mm(mm, addr)
    if pmd != NULL and not pmd_none(pmd[0]) and not pmd_leaf(pmd[0]):
        pte = pte_offset_map(pmd, addr)
        found["pte"] = field(pte, 8)
        found["table.locked"] = field(&pmd_table(pmd[0]).ptl.locked, 4)
        if pte_present(pte[0]):
            found.update(frame_fields(machine, pte_pfn(pte[0])))
    return found


cdef dict vma_fields(vm_area_struct *vma):
    cdef struct_anon_vma *anon_vma = vma.anon_vma
    cdef anon_vma_chain *avc
    found = {
        "vma.start": field(&vma.vm_start, 8),
        "vma.mm": field(&vma.vm_mm, 8),
        "vma.page_prot": field(&vma.vm_page_prot, 8),
        "vma.flags": field(&vma.vm_flags, 8),
        "vma.anon_vma": field(&vma.anon_vma, 8),
        "vma.pgoff": field(&vma.vm_pgoff, 8),
    }
    if anon_vma != NULL:
        avc = avc_of_same_vma(vma.anon_vma_chain.next)
        found.update({
            "anon_vma": field(anon_vma, sizeof(struct_anon_vma)),
            "anon_vma.refcount": field(&anon_vma.refcount, 4),
            "anon_vma.num_children": field(&anon_vma.num_children, 8),
            "anon_vma.num_active_vmas": field(&anon_vma.num_active_vmas, 8),
            "anon_vma.root": field(&anon_vma.root, 8),
            "anon_vma.root.rwsem": field(&anon_vma.root.rwsem.count, 4),
            "anon_vma.rb_root": field(&anon_vma.rb_root, 8),
            "avc.vma": field(&avc.vma, 8),
            "avc.anon_vma": field(&avc.anon_vma, 8),
        })
    if vma.vm_file != NULL:
        found["file.f_count"] = field(&vma.vm_file.f_count, 4)
        found["file.pages"] = field(vma.vm_file.pages, 8)
    return found


cdef dict ksm_fields(ksm_globals *g, mm_struct *mm, unsigned long addr):
    """The fields of the slot, the rmap_item of this page, its stable node, and the node's chain."""
    cdef ksm_mm_slot *slot = <ksm_mm_slot *>mm_slot_lookup(g.mm_slots_hash, MM_SLOTS_HASH_BITS, mm)
    cdef ksm_rmap_item *item
    cdef ksm_stable_node *node
    cdef rb_node *pos
    if slot == NULL:
        return {}
    found = {"slot": field(slot, sizeof(ksm_mm_slot)), "slot.bucket": field(slot.slot.hash.pprev, 8),
             "slot.mm": field(&slot.slot.mm, 8), "slot.rmap_list": field(&slot.rmap_list, 8)}
    item = slot.rmap_list
    while item != NULL and item.address & page_mask() != addr:
        item = item.rmap_list
    if item == NULL:
        return found
    found.update({
        "item": field(item, sizeof(ksm_rmap_item)),
        "item.rmap_list": field(&item.rmap_list, 8),
        "item.anon_vma": field(&item.anon_vma, 8),
        "item.nid": field(&item.nid, 4),
        "item.mm": field(&item.mm, 8),
        "item.address": field(&item.address, 8),
        "item.rb_parent": field(&item.node, 8),
        "item.head": field(&item.head, 8),
        "item.next": field(&item.hlist.next, 8),
        "item.pprev": field(&item.hlist.pprev, 8),
    })
    if not item.address & STABLE_FLAG:
        return found
    node = item.head
    found.update({
        "node": field(node, sizeof(ksm_stable_node)),
        "node.rb_parent": field(&node.node, 8),
        "node.head": field(&node.head, 8),
        "node.dup_next": field(&node.hlist_dup.next, 8),
        "node.dup_pprev": field(&node.hlist_dup.pprev, 8),
        "node.first": field(&node.hlist.first, 8),
        "node.kpfn": field(&node.kpfn, 8),
        "node.len": field(&node.rmap_hlist_len, 4),
        "node.nid": field(&node.nid, 4),
    })
    if is_stable_node_dup(g, node):
        pos = rb_first(&g.root_stable_tree[0])
        while pos != NULL:
            if is_stable_node_chain(stable_node_of(pos)) and in_chain(stable_node_of(pos), node):
                found["chain.len"] = field(&stable_node_of(pos).rmap_hlist_len, 4)
                found["chain.first"] = field(&stable_node_of(pos).hlist.first, 8)
            pos = rb_next(pos)
    return found


cdef bint in_chain(ksm_stable_node *chain, ksm_stable_node *node):
    pos = chain.hlist.first
    while pos != NULL:
        if pos == &node.hlist_dup:
            return True
        pos = pos.next
    return False

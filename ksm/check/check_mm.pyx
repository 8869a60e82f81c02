# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: verifying address spaces and frames.
"""Checks vmas, page tables, anon_vmas, shared objects, frames, free lists and object caches. See ksm/check/invariants.pyx."""


from linux.atomic cimport test_bit
from linux.highmem cimport page_is_zero
from linux.list cimport list_empty, list_head
from linux.mm cimport VM_MERGEABLE, VM_SHARED, VM_WRITE, linear_page_index, vma_pages
from linux.mm_types cimport (HPAGE_PMD_NR, MMF_HAS_PINNED, MM_ANONPAGES, MM_SHMEMPAGES, MM_SWAPENTS, NR_PAGE_ORDERS, PAGE_SIZE,
                             PGDIR_SHIFT, PGMIGRATE_FAIL, PGMIGRATE_SUCCESS, PMD_SHIFT, PMD_SIZE, PSWPOUT, PUD_SHIFT, anon_vma_chain,
                             avc_of_rb, avc_of_same_vma, file, memory_block, mm_struct, pmd_t, pte_t, struct_anon_vma, struct_page,
                             vm_area_struct, zone)
from linux.page_flags cimport (PAGE_MAPPING_ANON, PAGE_MAPPING_FLAGS, PAGE_MAPPING_KSM, PG_anon_exclusive, PG_buddy, PG_file, PG_head,
                               PG_hwpoison, PG_ksm_relatives, PG_locked, PG_node_shift, PG_offline, PG_plugged, PG_swapcache, PG_tail,
                               compound_head, page_to_pfn)
from linux.pgtable cimport (is_zero_pfn, pmd_leaf, pmd_none, pmd_pfn, pmd_table, pte_dirty, pte_none, pte_pfn, pte_present, pte_special,
                            pte_table, pte_write)
from linux.rbtree cimport rb_node
from linux.slab cimport kmem_cache

from ksm.check.check_ksm cimport find_item
from ksm.check.check_swap cimport check_swap_entry
from ksm.check.checker cimport (ANON_VMA_ACTIVE, ANON_VMA_CHAINS, ANON_VMA_CHILDREN, ANON_VMA_DESCENDANTS, ANON_VMA_ITEMS, FILE_MAPS,
                                MM_SLOTS, NODE_IS_CHAIN, checker, finding, frame_use, looks_like_object, map_find, map_put, see_anon_vma,
                                tally)
from ksm.check.rbtree_check cimport RB_CHECK_OK, rb_check, rb_check_str
from ksm.lib.rbtree cimport rb_first, rb_next
from ksm.mm.ksm cimport ksm_rmap_item, ksm_stable_node
from ksm.mm.vma cimport vm_get_page_prot


cdef bint linked_to(vm_area_struct *vma, const void *anon_vma) noexcept nogil:
    cdef list_head *pos
    if vma.anon_vma == anon_vma:
        return True
    pos = vma.anon_vma_chain.next
    while pos != &vma.anon_vma_chain:
        if avc_of_same_vma(pos).anon_vma == anon_vma:
            return True
        pos = pos.next
    return False


# Entries

cdef void check_reverse(checker *c, vm_area_struct *vma, unsigned long addr, unsigned long pfn, ksm_stable_node *node) noexcept nogil:
    """Check that rmap_walk_ksm() would find this entry. ksm/check/invariants.pyx says which entries it need not find."""
    cdef size_t at = 0
    cdef ksm_rmap_item *item = find_item(c, addr, node, vma.vm_mm, &at)
    if item != NULL:
        if not linked_to(vma, item.anon_vma):
            finding(&c.found, b"mm %lu: at %#lx merged page %lu, whose rmap_item names anon_vma %p, not one of the vma's", vma.vm_mm.id,
                    addr, pfn, item.anon_vma)
        return
    # A vma made by fork is linked to its parents' anon_vmas, too.
    if (not c.m.mem_map[pfn].flags & PG_ksm_relatives and not list_empty(&vma.anon_vma_chain)
            and vma.anon_vma_chain.next == vma.anon_vma_chain.prev and not c.m.vm_event[PSWPOUT]
            and not c.m.vm_event[PGMIGRATE_SUCCESS] and not c.m.vm_event[PGMIGRATE_FAIL]):
        at = 0
        item = find_item(c, addr, node, NULL, &at)
        while item != NULL:
            if linked_to(vma, item.anon_vma):
                return
            item = find_item(c, addr, node, NULL, &at)
        finding(&c.found, b"mm %lu: at %#lx merged page %lu, to which no rmap_item of its node leads", vma.vm_mm.id, addr, pfn)


cdef void check_ksm_pte(checker *c, vm_area_struct *vma, unsigned long addr, pte_t pte, struct_page *page) noexcept nogil:
    cdef unsigned long pfn = pte_pfn(pte)
    cdef mm_struct *mm = vma.vm_mm
    cdef ksm_stable_node *node = <ksm_stable_node *>(<unsigned long>page.mapping & ~<unsigned long>PAGE_MAPPING_FLAGS)
    cdef bint relatives = (page.flags & PG_ksm_relatives) != 0
    cdef bint swapped_in = c.m.vm_event[PSWPOUT] != 0
    if pte_write(pte) or (pte_dirty(pte) and not relatives):
        finding(&c.found, b"mm %lu: at %#lx merged page %lu, by a %s entry", mm.id, addr, pfn, b"writable" if pte_write(pte) else b"dirty")
    if not (vma.vm_flags & VM_MERGEABLE or relatives or swapped_in) or vma.anon_vma == NULL:
        finding(&c.found, b"mm %lu: at %#lx merged page %lu, in a vma that is not mergeable: flags %#lx, anon_vma %p", mm.id, addr, pfn,
                vma.vm_flags, vma.anon_vma)
    if page.flags & PG_anon_exclusive:
        finding(&c.found, b"mm %lu: at %#lx merged page %lu, which is exclusive", mm.id, addr, pfn)
    if node != NULL:
        check_reverse(c, vma, addr, pfn, node)


cdef void check_anon_pte(checker *c, vm_area_struct *vma, unsigned long addr, pte_t pte, struct_page *page) noexcept nogil:
    cdef unsigned long pfn = pte_pfn(pte)
    cdef mm_struct *mm = vma.vm_mm
    if pte_write(pte) and not (page.flags & PG_anon_exclusive):
        finding(&c.found, b"mm %lu: at %#lx page %lu is writable and not exclusive", mm.id, addr, pfn)
    check_anon_place(c, vma, addr, page)


cdef void check_anon_place(checker *c, vm_area_struct *vma, unsigned long addr, struct_page *page) noexcept nogil:
    cdef unsigned long pfn = page_to_pfn(c.m, page)
    cdef struct_page *head = compound_head(page)
    cdef unsigned long index = head.index + <unsigned long>(page - head)
    if index != linear_page_index(vma, addr):
        finding(&c.found, b"mm %lu: at %#lx page %lu has index %#lx, the place has %#lx", vma.vm_mm.id, addr, pfn, index,
                linear_page_index(vma, addr))
    if not linked_to(vma, <void *>(<unsigned long>head.mapping - PAGE_MAPPING_ANON)):
        finding(&c.found, b"mm %lu: at %#lx page %lu names anon_vma %#lx, not one of the vma's", vma.vm_mm.id, addr, pfn,
                <unsigned long>head.mapping - PAGE_MAPPING_ANON)


cdef void check_huge_pmd(checker *c, vm_area_struct *vma, unsigned long addr, pmd_t pmd) noexcept nogil:
    cdef mm_struct *mm = vma.vm_mm
    cdef unsigned long pfn = pmd_pfn(pmd)
    cdef struct_page *page
    if pfn + HPAGE_PMD_NR > c.m.plugged_pfn or pfn & (HPAGE_PMD_NR - 1):
        finding(&c.found, b"mm %lu: at %#lx a huge page at frame %lu of %lu", mm.id, addr, pfn, c.m.plugged_pfn)
        return
    page = c.m.mem_map + pfn
    c.use[pfn].entire += 1
    if not page.flags & PG_head or <unsigned long>page.mapping & PAGE_MAPPING_FLAGS != PAGE_MAPPING_ANON:
        finding(&c.found, b"mm %lu: at %#lx a middle entry of frame %lu: flags %#x, mapping %p", mm.id, addr, pfn, page.flags, page.mapping)
        return
    if addr + PMD_SIZE > vma.vm_end:
        finding(&c.found, b"mm %lu: at %#lx a huge page beyond the end of its vma, %#lx", mm.id, addr, vma.vm_end)
    if pte_write(pmd) and not (vma.vm_flags & VM_WRITE and page.flags & PG_anon_exclusive):
        finding(&c.found, b"mm %lu: at %#lx huge page %lu is writable: its flags %#x, the vma's %#lx", mm.id, addr, pfn, page.flags,
                vma.vm_flags)
    check_anon_place(c, vma, addr, page)


cdef vm_area_struct *vma_of(checker *c, mm_struct *mm, unsigned long addr, unsigned long entry, int *next_vma) noexcept nogil:
    cdef vm_area_struct *vma
    while next_vma[0] < mm.map_count and mm.vmas[next_vma[0]].vm_end <= addr:
        next_vma[0] += 1
    vma = mm.vmas[next_vma[0]] if next_vma[0] < mm.map_count else NULL
    if vma == NULL or vma.vm_start > addr:
        finding(&c.found, b"mm %lu: at %#lx an entry outside of all vmas: %#lx", mm.id, addr, entry)
        return NULL
    return vma if vma.vm_mm == mm else NULL


cdef void check_shared_pte(checker *c, vm_area_struct *vma, unsigned long addr, unsigned long pfn, struct_page *page) noexcept nogil:
    cdef unsigned long index = linear_page_index(vma, addr)
    if vma.vm_file == NULL or index >= vma.vm_file.nr_pages or vma.vm_file.pages[index] != page:
        finding(&c.found, b"mm %lu: at %#lx page %lu, which is neither anonymous nor page %#lx of a shared object", vma.vm_mm.id, addr, pfn,
                index)


cdef void check_pte(checker *c, vm_area_struct *vma, unsigned long addr, pte_t pte, long *anon, long *shmem, long *zero,
                    long *swapents) noexcept nogil:
    cdef mm_struct *mm = vma.vm_mm
    cdef unsigned long pfn = pte_pfn(pte)
    cdef struct_page *page
    if not pte_present(pte):
        swapents[0] += check_swap_entry(c, mm, addr, pte)
        return
    if pfn >= c.m.plugged_pfn:
        finding(&c.found, b"mm %lu: at %#lx frame %lu of %lu", mm.id, addr, pfn, c.m.plugged_pfn)
        return
    if pte_write(pte) and not (vma.vm_flags & VM_WRITE):
        finding(&c.found, b"mm %lu: at %#lx page %lu is writable, its vma is not: flags %#lx", mm.id, addr, pfn, vma.vm_flags)
    if is_zero_pfn(c.m, pfn):
        if not pte_special(pte) or pte_write(pte):
            finding(&c.found, b"mm %lu: at %#lx the zero page, by an entry that is not special or that is writable: %#lx", mm.id, addr, pte)
        if pte_dirty(pte):
            zero[0] += 1
            if not (vma.vm_flags & VM_MERGEABLE):
                finding(&c.found, b"mm %lu: at %#lx KSM's zero page, in a vma that is not mergeable: flags %#lx", mm.id, addr, vma.vm_flags)
        return
    if pte_special(pte):
        finding(&c.found, b"mm %lu: at %#lx page %lu, by a special entry", mm.id, addr, pfn)
    page = c.m.mem_map + pfn
    c.use[pfn].mapped += 1
    c.use[pfn].dirty = c.use[pfn].dirty or pte_dirty(pte)
    if <unsigned long>page.mapping & PAGE_MAPPING_FLAGS == PAGE_MAPPING_KSM:
        anon[0] += 1
        check_ksm_pte(c, vma, addr, pte, page)
    elif <unsigned long>compound_head(page).mapping & PAGE_MAPPING_FLAGS == PAGE_MAPPING_ANON:
        anon[0] += 1
        check_anon_pte(c, vma, addr, pte, page)
    else:
        shmem[0] += 1
        check_shared_pte(c, vma, addr, pfn, page)


cdef void check_tables(checker *c, mm_struct *mm) noexcept nogil:
    """Check the tables of all levels: every page is in a vma, and the mm's counters count what there is."""
    cdef unsigned long *puds
    cdef unsigned long *pmds
    cdef pte_table *table
    cdef vm_area_struct *vma
    cdef unsigned long tables = 0, aside = 0, addr
    cdef long anon = 0, shmem = 0, zero = 0, swapents = 0
    cdef int i, j, k, n, next_vma = 0
    for i in range(512):
        puds = <unsigned long *>mm.pgd[i]
        if puds == NULL:
            continue
        tables += 1
        for j in range(512):
            pmds = <unsigned long *>puds[j]
            if pmds == NULL:
                continue
            tables += 1
            for k in range(512):
                if pmd_none(pmds[k]):
                    continue
                # A table is put aside for each huge page.
                tables += 1
                addr = <unsigned long>i << PGDIR_SHIFT | <unsigned long>j << PUD_SHIFT | <unsigned long>k << PMD_SHIFT
                if pmd_leaf(pmds[k]):
                    aside += 1
                    anon += HPAGE_PMD_NR
                    vma = vma_of(c, mm, addr, pmds[k], &next_vma)
                    if vma != NULL:
                        check_huge_pmd(c, vma, addr, pmds[k])
                    continue
                table = pmd_table(pmds[k])
                if table.ptl.locked:
                    finding(&c.found, b"mm %lu: the page table of %#lx is locked", mm.id, addr)
                for n in range(512):
                    if not pte_none(table.pte[n]):
                        vma = vma_of(c, mm, addr, table.pte[n], &next_vma)
                        if vma != NULL:
                            check_pte(c, vma, addr, table.pte[n], &anon, &shmem, &zero, &swapents)
                    addr += PAGE_SIZE
    table = <pte_table *>mm.pmd_huge_pte
    while table != NULL and aside:
        aside -= 1
        table = <pte_table *>table.pte[0]
    if table != NULL or aside:
        finding(&c.found, b"mm %lu: as many tables put aside as huge pages, and %lu %s", mm.id, aside if aside else 1,
                b"missing" if aside else b"or more left over")
    if mm.nr_page_tables != tables:
        finding(&c.found, b"mm %lu: %lu page tables, counted %lu", mm.id, mm.nr_page_tables, tables)
    if mm.rss_stat[MM_ANONPAGES] != anon:
        finding(&c.found, b"mm %lu: %ld anonymous pages, counted %ld", mm.id, mm.rss_stat[MM_ANONPAGES], anon)
    if mm.rss_stat[MM_SHMEMPAGES] != shmem:
        finding(&c.found, b"mm %lu: %ld shared pages, counted %ld", mm.id, mm.rss_stat[MM_SHMEMPAGES], shmem)
    if mm.rss_stat[MM_SWAPENTS] != swapents:
        finding(&c.found, b"mm %lu: %ld entries of swap, counted %ld", mm.id, mm.rss_stat[MM_SWAPENTS], swapents)
    if mm.ksm_zero_pages != zero and (mm.ksm_zero_pages < zero or not mm.zero_pages_inexact):
        finding(&c.found, b"mm %lu: ksm_zero_pages %ld, counted %ld", mm.id, mm.ksm_zero_pages, zero)
    c.mm_zero_pages += mm.ksm_zero_pages


# Address spaces

cdef void check_vma(checker *c, mm_struct *mm, vm_area_struct *vma, unsigned long previous_end) noexcept nogil:
    cdef list_head *pos = vma.anon_vma_chain.next
    cdef anon_vma_chain *avc
    cdef tally *seen
    cdef bint has_own = vma.anon_vma == NULL
    if vma.vm_start < previous_end or vma.vm_end <= vma.vm_start or (vma.vm_start | vma.vm_end) & (PAGE_SIZE - 1):
        finding(&c.found, b"mm %lu: vma %#lx-%#lx behind one that ends at %#lx", mm.id, vma.vm_start, vma.vm_end, previous_end)
    if vma.vm_mm != mm:
        finding(&c.found, b"mm %lu: vma %#lx-%#lx names mm %p, not %p", mm.id, vma.vm_start, vma.vm_end, vma.vm_mm, mm)
    if vma.vm_page_prot != vm_get_page_prot(vma.vm_flags):
        finding(&c.found, b"mm %lu: vma %#lx-%#lx with flags %#lx has vm_page_prot %#lx, not %#lx", mm.id, vma.vm_start, vma.vm_end,
                vma.vm_flags, vma.vm_page_prot, vm_get_page_prot(vma.vm_flags))
    if (vma.vm_file != NULL) != ((vma.vm_flags & VM_SHARED) != 0):
        finding(&c.found, b"mm %lu: vma %#lx-%#lx with flags %#lx has shared object %p", mm.id, vma.vm_start, vma.vm_end, vma.vm_flags,
                vma.vm_file)
    if vma.vm_file != NULL:
        seen = map_put(c, &c.files, vma.vm_file)
        if seen != NULL:
            seen.n[FILE_MAPS] += 1
    while pos != &vma.anon_vma_chain:
        avc = avc_of_same_vma(pos)
        if not looks_like_object(avc) or pos.prev.next != pos or avc.vma != vma or not looks_like_object(avc.anon_vma):
            finding(&c.found, b"mm %lu: vma %#lx-%#lx has a bad link %p to an anon_vma", mm.id, vma.vm_start, vma.vm_end, avc)
            break
        seen = see_anon_vma(c, avc.anon_vma)
        if seen != NULL:
            seen.n[ANON_VMA_CHAINS] += 1
        has_own = has_own or avc.anon_vma == vma.anon_vma
        pos = pos.next
    if not has_own:
        finding(&c.found, b"mm %lu: vma %#lx-%#lx is not linked to its anon_vma %p", mm.id, vma.vm_start, vma.vm_end, vma.anon_vma)
    elif vma.anon_vma != NULL:
        seen = map_put(c, &c.anon_vmas, vma.anon_vma)
        if seen != NULL:
            seen.n[ANON_VMA_ACTIVE] += 1


cdef void check_mms(checker *c) noexcept nogil:
    cdef mm_struct *mm
    cdef vm_area_struct *vma
    cdef unsigned long total, end
    cdef int i, n, expected
    for i in range(c.nr_mms):
        mm = c.mms[i]
        total = 0
        end = 0
        for n in range(mm.map_count):
            vma = mm.vmas[n]
            check_vma(c, mm, vma, end)
            total += vma_pages(vma)
            end = vma.vm_end
        c.nr_vmas += <unsigned long>mm.map_count
        c.nr_tables += mm.nr_page_tables + 1        # one more for the uppermost table
        if mm.total_vm != total:
            finding(&c.found, b"mm %lu: total_vm %lu, counted %lu", mm.id, mm.total_vm, total)
        check_tables(c, mm)
        # All users hold one reference, a slot holds one, and the checker holds one.
        expected = (mm.mm_users > 0) + <int>map_find(&c.mm, mm).n[MM_SLOTS] + 1
        if mm.mm_count != expected:
            finding(&c.found, b"mm %lu: mm_count %d, explained %d", mm.id, mm.mm_count - 1, expected - 1)
        c.pinned = c.pinned or test_bit(MMF_HAS_PINNED, &mm.flags)
    if c.m.ksm_zero_pages != c.mm_zero_pages and not c.m.zero_pages_inexact:
        finding(&c.found, b"ksm_zero_pages: %ld, those of all mms are %ld", c.m.ksm_zero_pages, c.mm_zero_pages)


cdef void check_files(checker *c) noexcept nogil:
    """Check that shared objects hold a reference on each of their pages, and every vma one on its object."""
    cdef file *object
    cdef unsigned long n
    cdef size_t i
    for i in range(c.files.size):
        object = <file *>c.files.slots[i].key
        if object == NULL:
            continue
        if object.f_count != <long>c.files.slots[i].n[FILE_MAPS]:
            finding(&c.found, b"shared object %p: f_count %d, mapped %lu times", object, object.f_count, c.files.slots[i].n[FILE_MAPS])
        for n in range(object.nr_pages):
            if object.pages[n] != NULL:
                hold(c, object.pages[n])


cdef void check_anon_vma(checker *c, struct_anon_vma *anon_vma, tally *seen) noexcept nogil:
    cdef rb_node *pos
    cdef anon_vma_chain *avc
    cdef unsigned long count, previous = 0, expected
    cdef int result = rb_check(&anon_vma.rb_root, &count)
    if result != RB_CHECK_OK:
        finding(&c.found, b"anon_vma %p: %s", anon_vma, rb_check_str(result))
        return
    if count != seen.n[ANON_VMA_CHAINS]:
        finding(&c.found, b"anon_vma %p: %lu vmas in its tree, %lu are linked to it", anon_vma, count, seen.n[ANON_VMA_CHAINS])
        return
    pos = rb_first(&anon_vma.rb_root)
    while pos != NULL:
        avc = avc_of_rb(pos)
        if avc.anon_vma != anon_vma or avc.vma.vm_pgoff < previous:
            finding(&c.found, b"anon_vma %p: vma of offset %#lx behind %#lx, and names %p", anon_vma, avc.vma.vm_pgoff, previous,
                    avc.anon_vma)
        previous = avc.vma.vm_pgoff
        pos = rb_next(pos)
    # All its vmas together hold one reference, each rmap_item holds one, and so does each anon_vma that uses its lock.
    expected = (count > 0) + seen.n[ANON_VMA_ITEMS] + seen.n[ANON_VMA_DESCENDANTS]
    if anon_vma.refcount != <long>expected:
        finding(&c.found, b"anon_vma %p: refcount %d, explained %lu: %lu vmas, %lu rmap_items, root of %lu", anon_vma, anon_vma.refcount,
                expected, count, seen.n[ANON_VMA_ITEMS], seen.n[ANON_VMA_DESCENDANTS])
    if anon_vma.num_active_vmas != seen.n[ANON_VMA_ACTIVE]:
        finding(&c.found, b"anon_vma %p: num_active_vmas %lu, counted %lu", anon_vma, anon_vma.num_active_vmas, seen.n[ANON_VMA_ACTIVE])
    if count and anon_vma.num_children != seen.n[ANON_VMA_CHILDREN]:
        finding(&c.found, b"anon_vma %p: num_children %lu, counted %lu", anon_vma, anon_vma.num_children, seen.n[ANON_VMA_CHILDREN])


cdef void check_anon_vmas(checker *c) noexcept nogil:
    cdef size_t i
    for i in range(c.anon_vmas.size):
        if c.anon_vmas.slots[i].key != NULL:
            check_anon_vma(c, <struct_anon_vma *>c.anon_vmas.slots[i].key, &c.anon_vmas.slots[i])


# Frames

cdef inline void hold(checker *c, struct_page *page) noexcept nogil:
    cdef unsigned long pfn = <unsigned long>(page - c.m.mem_map)
    if pfn < c.m.plugged_pfn:
        c.use[pfn].held += 1
    else:
        finding(&c.found, b"page %p is no struct page", page)


cdef unsigned long check_listed(checker *c, zone *z, unsigned int *pfns, unsigned int nr, unsigned long most, const char *what,
                                bint zeros) noexcept nogil:
    """Mark free frames that are not on the buddy lists. Returns their number."""
    cdef unsigned long free = 0
    cdef unsigned int i
    if nr > most:
        finding(&c.found, b"node %d: %u frames %s", z.nid, nr, what)
        return 0
    for i in range(nr):
        if pfns[i] < z.zone_start_pfn or pfns[i] >= z.fresh_pfn or c.use[pfns[i]].free:
            finding(&c.found, b"node %d: frame %u among those %s is not its own, or free twice", z.nid, pfns[i], what)
            continue
        c.use[pfns[i]].free = True
        c.use[pfns[i]].zeros = zeros
        free += 1
    return free


cdef void check_free_lists(checker *c, zone *z) noexcept nogil:
    """Mark the free frames of a zone, and count them."""
    cdef struct_page *page
    cdef unsigned long free = 0, size, i
    cdef unsigned int pfn, previous
    cdef int order
    for i in range(z.fresh_pfn, z.zone_end_pfn):
        free += not c.m.mem_map[i].flags & PG_offline
    for order in range(NR_PAGE_ORDERS):
        size = 1UL << order
        pfn = z.free_area[order]
        previous = 0
        while pfn:
            page = c.m.mem_map + pfn
            if pfn < z.zone_start_pfn or pfn + size > z.fresh_pfn or pfn & (size - 1) or not (page.flags & PG_buddy) or c.use[pfn].free:
                finding(&c.found, b"node %d: free list %d has frame %u, flags %#x", z.nid, order, pfn, page.flags)
                break
            if page.index != (<unsigned long>order << 32 | previous):
                finding(&c.found, b"node %d: free list %d, frame %u has index %#lx, not %#lx", z.nid, order, pfn, page.index,
                        <unsigned long>order << 32 | previous)
            for i in range(size):
                c.use[pfn + i].free = True
                c.use[pfn + i].zeros = True
            free += size
            previous = pfn
            pfn = page.private
    free += check_listed(c, z, z.recent, z.nr_recent, z.zone_end_pfn - z.zone_start_pfn, b"freed a moment ago", False)
    free += check_listed(c, z, z.claimed, z.nr_claimed, sizeof(z.claimed) / sizeof(z.claimed[0]), b"claimed", True)
    if z.nr_free != free:
        finding(&c.found, b"node %d: nr_free %lu, counted %lu", z.nid, z.nr_free, free)


cdef void check_compound(checker *c, unsigned long pfn) noexcept nogil:
    """Check a huge page: its head is at a multiple of 512, and tails without references of their own follow."""
    cdef struct_page *page = c.m.mem_map + pfn
    cdef struct_page *head = c.m.mem_map + (pfn & ~(<unsigned long>HPAGE_PMD_NR - 1))
    if page.flags & PG_head and page != head or not head.flags & PG_head or page != head and not page.flags & PG_tail:
        finding(&c.found, b"frame %lu: part of a huge page, flags %#x, its head %#x", pfn, page.flags, head.flags)
    if page != head and (page._refcount or page.mapping != NULL or c.use[pfn].held or c.use[pfn].free):
        finding(&c.found, b"frame %lu: a tail, and has refcount %d, mapping %p, %u references", pfn, page._refcount, page.mapping,
                c.use[pfn].held)


cdef void check_frame(checker *c, unsigned long pfn, int nid) noexcept nogil:
    cdef struct_page *page = c.m.mem_map + pfn
    cdef frame_use *use = &c.use[pfn]
    cdef unsigned long mapping = <unsigned long>page.mapping
    cdef ksm_stable_node *node = <ksm_stable_node *>(mapping & ~<unsigned long>PAGE_MAPPING_FLAGS)
    cdef unsigned int free_flags = 0xff000000U | PG_buddy | PG_plugged | PG_file | PG_hwpoison | PG_offline
    cdef tally *seen
    cdef unsigned long i
    cdef unsigned int mapped
    if page.flags & (PG_head | PG_tail):
        check_compound(c, pfn)
    if <int>(page.flags >> PG_node_shift) != nid:
        finding(&c.found, b"frame %lu: on node %d, flags %#x", pfn, nid, page.flags)
    if page._mapcount + 1 != <long>use.mapped:
        finding(&c.found, b"frame %lu: mapcount %d, counted %u", pfn, page._mapcount + 1, use.mapped)
    if page.flags & PG_tail:
        if page.flags & PG_anon_exclusive and use.mapped + c.use[pfn & ~(<unsigned long>HPAGE_PMD_NR - 1)].entire > 1:
            finding(&c.found, b"frame %lu: a part that is exclusive, and mapped %u times", pfn,
                    use.mapped + c.use[pfn & ~(<unsigned long>HPAGE_PMD_NR - 1)].entire)
        return
    if use.free or page._refcount == 0:
        # Frames that are plugged in, broken or offline are on no list of the page allocator.
        if use.free == ((page.flags & (PG_plugged | PG_hwpoison | PG_offline)) != 0):
            finding(&c.found, b"frame %lu: no references, and on %s free list: flags %#x", pfn, b"a" if use.free else b"no", page.flags)
        if page._refcount or use.mapped or use.held or mapping or page.flags & ~free_flags:
            finding(&c.found, b"frame %lu: free, and has refcount %d, mapping %#lx, flags %#x, %u mappings, %u other references", pfn,
                    page._refcount, mapping, page.flags, use.mapped, use.held)
        return
    if page.flags & PG_hwpoison:
        use.held += 1           # the reference that memory_failure() keeps
    # The mappings of a huge page are counted at its head.
    mapped = use.mapped + use.entire
    if page.flags & PG_head:
        for i in range(1, HPAGE_PMD_NR):
            mapped += c.use[pfn + i].mapped
    if page._refcount != <long>(mapped + use.held) and not (c.pinned and page._refcount > <long>(mapped + use.held)):
        finding(&c.found, b"frame %lu: refcount %d, explained %u: %u mappings, %u other references", pfn, page._refcount,
                mapped + use.held, mapped, use.held)
    if page.flags & PG_head and (page[1].index != mapped or page[2].index != use.entire):
        finding(&c.found, b"frame %lu: huge, mapped %u times and %u times as a whole, counted %u and %u", pfn,
                <unsigned int>page[1].index, <unsigned int>page[2].index, mapped, use.entire)
    if page.flags & (PG_locked | PG_buddy | PG_offline):
        finding(&c.found, b"frame %lu: in use, and locked, offline or in the buddy lists: flags %#x", pfn, page.flags)
    if ((page.flags & PG_swapcache) != 0) != use.cached:
        finding(&c.found, b"frame %lu: flags %#x, and it is %sin the swap cache", pfn, page.flags, b"" if use.cached else b"not ")
    # While a huge page is mapped by a pmd entry, its head's flag stands for all parts.
    if page.flags & PG_anon_exclusive and (mapped if use.entire else use.mapped) > 1:
        finding(&c.found, b"frame %lu: exclusive, and mapped %u times", pfn, mapped if use.entire else use.mapped)
    if mapping & PAGE_MAPPING_FLAGS == PAGE_MAPPING_KSM and node != NULL:
        seen = map_find(&c.nodes, node)
        if seen == NULL or seen.n[NODE_IS_CHAIN]:
            finding(&c.found, b"frame %lu: merged, and names %p, which is no stable node", pfn, node)
        elif node.kpfn != pfn:
            finding(&c.found, b"frame %lu: merged, and its stable node is that of pfn %lu", pfn, node.kpfn)


cdef void check_zero_page(checker *c) noexcept nogil:
    cdef struct_page *page = c.m.mem_map + c.m.zero_pfn
    if page._refcount != 1 or page._mapcount != -1 or page.mapping != NULL:
        finding(&c.found, b"the zero page: refcount %d, mapcount %d, mapping %p", page._refcount, page._mapcount + 1, page.mapping)
    if not page_is_zero(c.m, page):
        finding(&c.found, b"the zero page is not all zeros")


cdef void check_frames(checker *c) noexcept nogil:
    cdef zone *z
    cdef memory_block *block
    cdef unsigned long pfn
    cdef int i
    for i in range(c.m.nr_lru_add):
        hold(c, c.m.lru_add[i])
    for i in range(c.m.nr_lru_activate):
        hold(c, c.m.lru_activate[i])
    check_zero_page(c)
    for i in range(c.m.nr_node_ids):
        z = &c.m.zones[i]
        check_free_lists(c, z)
        for pfn in range(z.zone_start_pfn, z.fresh_pfn):
            check_frame(c, pfn, z.nid)
        for pfn in range(z.fresh_pfn, z.zone_end_pfn):
            if c.use[pfn].mapped or c.use[pfn].held:
                finding(&c.found, b"frame %lu: in use, and never handed out", pfn)
    for i in range(c.m.nr_blocks):
        block = &c.m.blocks[i]
        if block.online:
            for pfn in range(block.start_pfn, block.start_pfn + block.nr_pages):
                check_frame(c, pfn, block.nid)


# Object caches

cdef void check_cache(checker *c, kmem_cache *cache, unsigned long found) noexcept nogil:
    if cache.nr_objects != <long>found:
        finding(&c.found, b"%s: %ld objects, found %lu", cache.name, cache.nr_objects, found)


cdef void check_caches(checker *c) noexcept nogil:
    """Check that every object of a cache was found in some structure; any other object is lost."""
    cdef unsigned long avcs = 0
    cdef size_t i
    for i in range(c.anon_vmas.size):
        if c.anon_vmas.slots[i].key != NULL:
            avcs += c.anon_vmas.slots[i].n[ANON_VMA_CHAINS]
    check_cache(c, c.m.mm_cachep, <unsigned long>c.nr_mms)
    check_cache(c, c.m.vm_area_cachep, c.nr_vmas)
    check_cache(c, c.m.anon_vma_cachep, c.anon_vmas.used)
    check_cache(c, c.m.anon_vma_chain_cachep, avcs)
    check_cache(c, c.m.pgtable_cachep, c.nr_tables)
    check_cache(c, c.g.rmap_item_cache, c.all_items)
    check_cache(c, c.g.stable_node_cache, c.nodes.used)
    check_cache(c, c.g.mm_slot_cache, c.nr_slots)

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the keys by which ksmd compares pages without reading them. See ksm_keys.pxd.
"""The filter of the stable trees' keys, and the book, made of samples of all mergeable pages."""

from libc.errno cimport ENOMEM
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from ksm.fast.ksm_fast cimport forget_item_keys, ksm_prefetch
from ksm.fast.page_keys cimport key_book, count_ties, key_book_free, key_book_make, page_sample, sort_samples
from ksm.host.arena cimport arena_resident, reserve
from ksm.host.mman cimport PROT_READ, PROT_WRITE, c_munmap
from ksm.kernel.fork cimport mmdrop
from ksm.lib.rbtree cimport rb_first, rb_next
from ksm.mm.ksm cimport KNOWN_CHAINS, is_stable_node_chain, known_chain, ksm_globals, ksm_mm_slot, ksm_stable_node
from ksm.mm.page_alloc cimport folio_put
from linux.atomic cimport READ_ONCE_ulong, WRITE_ONCE_int, atomic_long_inc, atomic_read, xchg_ulong
from linux.mm cimport VM_MERGEABLE, vm_normal_page
from linux.mm_types cimport PAGE_SHIFT, PAGE_SIZE, machine, mm_struct, pmd_t, pte_t, struct_folio, struct_page, vm_area_struct
from linux.mmap_lock cimport mmap_read_unlock, mmgrab
from linux.page_flags cimport (PG_file, folio_raw_mapping, folio_test_anon, folio_test_ksm, folio_try_get, page_address, page_to_pfn,
                               pfn_to_page, test_page_flag)
from linux.pgtable cimport pmd_offset_mm, pmd_trans_huge, pmdp_get_lockless, pte_offset_map, pte_present, ptep_get
from linux.rbtree cimport rb_node, rb_parent
from linux.spinlock cimport down_read_trylock, spin_lock, spin_unlock
from linux.types cimport hlist_node, list_head


cdef enum:
    FILTER_LEAST = 15           # the number of bits, as a power of 2
    FILTER_BITS = 4             # for each item, at least; there are at most half as many stable nodes

    SAMPLED_EACH = 32           # one page of so many is a sample,
    FEW_SAMPLES = 1024
    MOST_SAMPLES = 65536
    HEAD_WORDS = 16             # most samples keep so much of a page,
    WHOLE_EACH = 32             # one of so many all of it
    AT_ONCE = 16                # pages that are fetched into the cache together
    BOOK_WAIT = 4               # passes, until the next try


cdef struct samples_taken:
    page_sample *listed
    unsigned int nr
    unsigned int most
    unsigned int left_out       # for now
    size_t size
    char *heads                 # where the next one goes
    char *whole


cdef int ksm_keys_init(ksm_globals *g) noexcept nogil:
    """0 or -ENOMEM."""
    g.stable_filter_bits = FILTER_LEAST
    g.stable_filter = <unsigned long *>calloc(1, <size_t>1 << (FILTER_LEAST - 3))
    return 0 if g.stable_filter != NULL else -ENOMEM


cdef void ksm_keys_exit(ksm_globals *g) noexcept nogil:
    free(g.stable_filter)
    key_book_free(g.book)


# Stable nodes

cdef void page_freed_hook(machine *m, struct_folio *folio) noexcept nogil:
    # The node may be freed already, should ksmd have found it stale, or be another page's: that has no key then until somebody looks.
    cdef ksm_stable_node *stable_node = <ksm_stable_node *>folio_raw_mapping(folio)
    cdef ksm_globals *g = <ksm_globals *>m.ksm
    if stable_node != NULL and stable_key_known(stable_node) and xchg_ulong(&stable_node.key, 0) & STABLE_KEY_KNOWN:
        atomic_long_inc(&g.stable_unkeyed)


cdef void find_chains(ksm_globals *g) noexcept nogil:
    """A search comes past a chain if it turns where the chain lies, at each node above. The nearest on each side are what counts."""
    cdef known_chain *known
    cdef rb_node *node
    cdef rb_node *parent
    cdef unsigned long key
    cdef unsigned int i
    for i in range(g.nr_chains):
        known = &g.chains[i]
        known.below = 0
        known.above = ~<unsigned long>0
        node = &known.chain.node
        parent = rb_parent(node)
        while parent != NULL and (known.below == 0 or known.above == ~<unsigned long>0):
            key = READ_ONCE_ulong(node_with_key(<ksm_stable_node *>parent).key) & ~STABLE_KEY_KNOWN
            if parent.rb_left == node:
                if key and known.above == ~<unsigned long>0:
                    known.above = key
            elif known.below == 0:
                known.below = key
            node = parent
            parent = rb_parent(node)
    g.chains_moved = False


cdef void list_chains(ksm_globals *g) noexcept nogil:
    """There were more than there was room for, and are no longer."""
    cdef rb_node *node = rb_first(g.root_stable_tree)
    g.nr_chains = 0
    g.chains_moved = True
    while node != NULL:
        if is_stable_node_chain(<ksm_stable_node *>node):
            chain_made(g, <ksm_stable_node *>node)
        node = rb_next(node)


cdef void key_by_new_book(ksm_globals *g, ksm_stable_node *stable_node) noexcept nogil:
    cdef struct_folio *folio
    if not xchg_ulong(&stable_node.key, 0) & STABLE_KEY_KNOWN:
        return
    atomic_long_inc(&g.stable_unkeyed)
    folio = pfn_to_page(g.m, READ_ONCE_ulong(stable_node.kpfn))
    if folio_try_get(folio):
        if folio_test_ksm(folio) and folio_raw_mapping(folio) == stable_node:
            set_stable_key(g, stable_node, folio)
        folio_put(g.m, folio)


cdef void filter_add_node(ksm_globals *g, ksm_stable_node *stable_node, bint new_book) noexcept nogil:
    cdef unsigned long key
    if new_book:
        key_by_new_book(g, stable_node)
        return
    key = READ_ONCE_ulong(stable_node.key)
    if key & STABLE_KEY_KNOWN:
        filter_add(g, key & ~STABLE_KEY_KNOWN)


cdef void filter_refill(ksm_globals *g, bint new_book) noexcept nogil:
    """Only the keys that there are: those of the trees, of chains, and of nodes that wait to be put back into a tree."""
    cdef rb_node *node
    cdef hlist_node *pos
    cdef list_head *link
    cdef int nid
    cdef unsigned int bits = FILTER_LEAST
    cdef unsigned long *larger
    while <unsigned long>1 << bits < FILTER_BITS * g.ksm_rmap_items:
        bits += 1
    larger = <unsigned long *>calloc(1, <size_t>1 << (bits - 3))
    if larger != NULL:
        free(g.stable_filter)
        g.stable_filter = larger
        g.stable_filter_bits = bits
    else:
        memset(g.stable_filter, 0, <size_t>1 << (g.stable_filter_bits - 3))
    g.stable_filter_set = 0
    for nid in range(1 if g.root_stable_tree == g.one_stable_tree else g.m.nr_node_ids):
        node = rb_first(g.root_stable_tree + nid)
        while node != NULL:
            if is_stable_node_chain(<ksm_stable_node *>node):
                pos = (<ksm_stable_node *>node).hlist.first
                while pos != NULL:
                    filter_add_node(g, <ksm_stable_node *>(<char *>pos - <size_t>&(<ksm_stable_node *>NULL).hlist_dup), new_book)
                    pos = pos.next
            else:
                filter_add_node(g, <ksm_stable_node *>node, new_book)
            node = rb_next(node)
    link = g.migrate_nodes.next
    while link != &g.migrate_nodes:
        filter_add_node(g, <ksm_stable_node *>(<char *>link - <size_t>&(<ksm_stable_node *>NULL).list), new_book)
        link = link.next


# The book

cdef unsigned long mergeable_pages(mm_struct *mm) noexcept nogil:
    """Room for so many."""
    cdef unsigned long pages = 0
    cdef int i
    for i in range(mm.map_count):
        if mm.vmas[i].vm_flags & VM_MERGEABLE:
            pages += (mm.vmas[i].vm_end - mm.vmas[i].vm_start) >> PAGE_SHIFT
    return pages


cdef const char *bytes_at(vm_area_struct *vma, unsigned long addr, unsigned int *left_out) noexcept nogil:
    """Of a small anonymous page that is not merged; else NULL. The page may go at any time, but there will be something to read.

    A page of a mapped image is left out if the system would have to read it for this.
    """
    cdef pmd_t *pmd = pmd_offset_mm(vma.vm_mm, addr)
    cdef struct_page *page
    cdef pte_t *ptep
    cdef pte_t pte
    if pmd == NULL or pmd_trans_huge(pmdp_get_lockless(pmd)):
        return NULL
    ptep = pte_offset_map(pmd, addr)
    if ptep == NULL:
        return NULL
    pte = ptep_get(ptep)        # once: without its lock it may change
    if not pte_present(pte):
        return NULL
    page = vm_normal_page(vma, addr, pte)
    if page == NULL or not folio_test_anon(page) or folio_test_ksm(page):
        return NULL
    if test_page_flag(page, PG_file) and not arena_resident(vma.vm_mm.machine, page_to_pfn(vma.vm_mm.machine, page)):
        left_out[0] += 1
        return NULL
    return <const char *>page_address(vma.vm_mm.machine, page)


cdef void sample_mm(samples_taken *samples, mm_struct *mm, unsigned long stride) noexcept nogil:
    """Of so many pages one, and not always at the same distance."""
    cdef const char *seen[AT_ONCE]
    cdef vm_area_struct *vma
    cdef unsigned long addr, number
    cdef unsigned int nr, i
    cdef int v
    for v in range(mm.map_count):
        vma = mm.vmas[v]
        number = 0
        while vma.vm_flags & VM_MERGEABLE and vma.vm_start + ((number * stride) << PAGE_SHIFT) < vma.vm_end:
            nr = 0
            while nr < AT_ONCE:
                addr = number * stride + ((number * <uint64_t>0x9E3779B97F4A7C15) >> 40) % stride
                addr = vma.vm_start + (addr << PAGE_SHIFT)
                number += 1
                if addr >= vma.vm_end:
                    break
                seen[nr] = bytes_at(vma, addr, &samples.left_out)
                if seen[nr] != NULL:
                    ksm_prefetch(seen[nr])
                    ksm_prefetch(seen[nr] + 64)
                    nr += 1
            for i in range(nr):
                if samples.nr == samples.most:
                    return
                if samples.nr % WHOLE_EACH == 0:
                    samples.listed[samples.nr].bytes = samples.whole
                    samples.listed[samples.nr].words = PAGE_SIZE // 8
                    memcpy(samples.whole, seen[i], PAGE_SIZE)
                    samples.whole += PAGE_SIZE
                else:
                    samples.listed[samples.nr].bytes = samples.heads
                    samples.listed[samples.nr].words = HEAD_WORDS
                    memcpy(samples.heads, seen[i], HEAD_WORDS * 8)
                    samples.heads += HEAD_WORDS * 8
                samples.nr += 1


cdef size_t list_mms(ksm_globals *g, mm_struct **mms, size_t most) noexcept nogil:
    """The mms of the slots, so many at most, with a reference on each; how many there are."""
    cdef list_head *pos
    cdef size_t nr = 0
    spin_lock(&g.ksm_mmlist_lock)
    pos = g.ksm_mm_head.slot.mm_node.next
    while pos != &g.ksm_mm_head.slot.mm_node:
        if nr < most:
            mms[nr] = (<ksm_mm_slot *>(<char *>pos - <size_t>&(<ksm_mm_slot *>NULL).slot.mm_node)).slot.mm
            mmgrab(mms[nr])
        nr += 1
        pos = pos.next
    spin_unlock(&g.ksm_mmlist_lock)
    return nr


cdef unsigned long each_mm(ksm_globals *g, samples_taken *samples, unsigned long stride) noexcept nogil:
    """mergeable_pages() of all; takes samples of them, if asked to. An mm whose lock somebody has is left out, and so may be one that comes
    meanwhile: the list is free then. 0 without memory for a copy of it."""
    cdef size_t most = list_mms(g, NULL, 0), nr, i
    cdef mm_struct **mms
    cdef unsigned long pages = 0
    if most == 0:
        return 0
    # Not from the heap, which would keep it.
    mms = <mm_struct **>reserve(most * sizeof(mm_struct *), PAGE_SIZE, PROT_READ | PROT_WRITE)
    if mms == NULL:
        return 0
    nr = min(list_mms(g, mms, most), most)
    for i in range(nr):
        if down_read_trylock(&mms[i].mmap_lock):
            if atomic_read(&mms[i].mm_users) != 0:
                pages += mergeable_pages(mms[i])
                if samples != NULL:
                    sample_mm(samples, mms[i], stride)
            mmap_read_unlock(mms[i])
        mmdrop(mms[i])
    c_munmap(mms, most * sizeof(mm_struct *))
    return pages


cdef bint take_samples(ksm_globals *g, samples_taken *samples, unsigned long pages, unsigned int most) noexcept nogil:
    """So many at most, sorted. False without memory; else drop_samples() lets go of them."""
    memset(samples, 0, sizeof(samples_taken))
    samples.most = most
    samples.size = <size_t>most * (sizeof(page_sample) + HEAD_WORDS * 8) + <size_t>(most // WHOLE_EACH + 1) * PAGE_SIZE
    # Not from the heap, which would keep it.
    samples.listed = <page_sample *>reserve(samples.size, PAGE_SIZE, PROT_READ | PROT_WRITE)
    if samples.listed == NULL:
        return False
    samples.heads = <char *>(samples.listed + most)
    samples.whole = samples.heads + <size_t>most * HEAD_WORDS * 8
    each_mm(g, samples, pages // most + 1)
    sort_samples(samples.listed, samples.nr)
    return True


cdef void drop_samples(samples_taken *samples) noexcept nogil:
    c_munmap(samples.listed, samples.size)


cdef key_book *better_book(ksm_globals *g, unsigned long pages, bint *complete) noexcept nogil:
    """A book by which not half as many pages share a key with others; NULL if there is none, or hardly any page does.

    Not complete: there is an image that most of was not read yet.
    """
    cdef samples_taken samples
    cdef key_book *book = NULL
    cdef unsigned int ties, distinct
    # A few say whether it is worth while.
    if not take_samples(g, &samples, pages, FEW_SAMPLES):
        return NULL
    ties = count_ties(g.book, samples.listed, samples.nr, &distinct)
    complete[0] = samples.left_out <= samples.nr
    drop_samples(&samples)
    if 32 * ties <= distinct or not take_samples(g, &samples, pages, min(MOST_SAMPLES, max(FEW_SAMPLES, pages // SAMPLED_EACH))):
        return NULL
    ties = count_ties(g.book, samples.listed, samples.nr, &distinct)
    book = key_book_make(samples.listed, samples.nr)
    if book != NULL and 2 * count_ties(book, samples.listed, samples.nr, &distinct) > ties:
        key_book_free(book)
        book = NULL
    drop_samples(&samples)
    return book


cdef bint look_at_book(ksm_globals *g) noexcept nogil:
    """Make a new one, if that would help, and let go of all keys that were made by the old one."""
    cdef unsigned long pages = each_mm(g, NULL, 0)
    cdef key_book *book
    cdef bint ties = 4 * g.key_ties > g.ksm_rmap_items, complete = True
    g.key_ties = 0
    if g.book_wait:
        g.book_wait -= 1
    # The first pass over some memory compares nothing that it did not read: a book can wait until most of it was seen.
    if 2 * g.ksm_rmap_items < pages or pages <= 2 * g.book_pages and not (ties and not g.book_wait):
        return False
    book = better_book(g, pages, &complete)
    g.book_wait = BOOK_WAIT
    if complete:
        g.book_pages = pages
    if book == NULL:
        return False
    key_book_free(g.book)
    g.book = book
    forget_item_keys(g)
    return True


cdef void begin_pass(ksm_globals *g) noexcept nogil:
    """The unstable trees are empty."""
    cdef bint new_book
    WRITE_ONCE_int(g.rotten, g.counts_as_written)
    if g.plain:
        return
    new_book = look_at_book(g)
    if (new_book or g.stable_filter_set > 2 * <unsigned long>g.stable_node_cache.nr_objects + 64
            or FILTER_BITS * g.ksm_rmap_items > <unsigned long>1 << g.stable_filter_bits):
        filter_refill(g, new_book)
    if g.nr_chains != g.ksm_stable_node_chains <= KNOWN_CHAINS and g.m.nr_node_ids == 1:
        list_chains(g)

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: samples of all mergeable pages, from which the book of keys is made.
"""Each pass begins with a check of the book. If there is much more memory than when the book was made, or too many keys were the same,
samples of all pages are taken. A new book is made from them if it tells more pages apart. page_keys.pyx says what a book is.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

from linux.atomic cimport atomic_read
from linux.highmem cimport has_bytes
from linux.mm cimport VM_MERGEABLE, vm_normal_page
from linux.mm_types cimport PAGE_SHIFT, PAGE_SIZE, mm_struct, pmd_t, pte_t, struct_page, vm_area_struct
from linux.mmap_lock cimport mmap_read_trylock, mmap_read_unlock, mmgrab
from linux.page_flags cimport PG_file, folio_test_anon, folio_test_ksm, page_address, page_to_pfn, test_page_flag
from linux.pgtable cimport pmd_offset_mm, pmd_trans_huge, pmdp_get_lockless, pte_offset_map, pte_present, ptep_get
from linux.spinlock cimport spin_lock, spin_unlock
from linux.types cimport list_head

from ksm.fast.page_keys cimport count_ties, key_book, key_book_free, key_book_make, page_sample, sort_samples
from ksm.fast.state cimport fast_state, ksm_prefetch
from ksm.host.arena cimport arena_resident, reserve
from ksm.host.mman cimport PROT_READ, PROT_WRITE, c_munmap
from ksm.kernel.fork cimport mmdrop
from ksm.mm.ksm cimport ksm_globals, mm_slot_of


cdef enum:
    SAMPLED_EACH = 32           # one of so many pages is a sample
    FEW_SAMPLES = 1024
    MOST_SAMPLES = 65536
    HEAD_WORDS = 16             # most samples keep so many words of a page
    WHOLE_EACH = 32             # one of so many samples keeps the whole page
    AT_ONCE = 16                # pages that are fetched into the cache together
    BOOK_WAIT = 4               # passes until the next try


cdef struct samples_taken:
    page_sample *listed
    unsigned int nr
    unsigned int most
    unsigned int left_out       # pages left out because the system would have to read them
    size_t size
    char *heads                 # where the next sample goes
    char *whole


cdef unsigned long mergeable_pages(mm_struct *mm) noexcept nogil:
    """The number of pages for which the mergeable vmas have room."""
    cdef unsigned long pages = 0
    cdef int i
    for i in range(mm.map_count):
        if mm.vmas[i].vm_flags & VM_MERGEABLE:
            pages += (mm.vmas[i].vm_end - mm.vmas[i].vm_start) >> PAGE_SHIFT
    return pages


cdef const char *bytes_at(vm_area_struct *vma, unsigned long addr, unsigned int *left_out) noexcept nogil:
    """The bytes of a small anonymous page that is not merged; else NULL. The page may be freed at any time, but its memory stays readable.

    A page of a mapped image is left out if the system would have to read it from the file.
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
    pte = ptep_get(ptep)        # read once: the table is not locked, and the entry may change
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
    """Sample one of `stride` pages, at varying distances."""
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
    """Fill in the mms of the slots, `most` at most, with a reference on each. Returns the number of slots."""
    cdef list_head *pos
    cdef size_t nr = 0
    spin_lock(&g.ksm_mmlist_lock)
    pos = g.ksm_mm_head.slot.mm_node.next
    while pos != &g.ksm_mm_head.slot.mm_node:
        if nr < most:
            mms[nr] = mm_slot_of(pos).slot.mm
            mmgrab(mms[nr])
        nr += 1
        pos = pos.next
    spin_unlock(&g.ksm_mmlist_lock)
    return nr


cdef unsigned long each_mm(ksm_globals *g, samples_taken *samples, unsigned long stride) noexcept nogil:
    """The sum of mergeable_pages() over all mms. Takes samples of them if `samples` is given. An mm whose lock another thread has is left
    out. An mm that is registered meanwhile may be left out, because the list is not locked during this. 0 without memory for a copy of the
    list.
    """
    cdef size_t most = list_mms(g, NULL, 0), nr, i
    cdef mm_struct **mms
    cdef unsigned long pages = 0
    if most == 0:
        return 0
    # Not allocated on the heap, which would keep the memory.
    mms = <mm_struct **>reserve(most * sizeof(mm_struct *), PAGE_SIZE, PROT_READ | PROT_WRITE)
    if mms == NULL:
        return 0
    nr = min(list_mms(g, mms, most), most)
    for i in range(nr):
        if mmap_read_trylock(mms[i]):
            if atomic_read(&mms[i].mm_users) != 0:
                pages += mergeable_pages(mms[i])
                if samples != NULL:
                    sample_mm(samples, mms[i], stride)
            mmap_read_unlock(mms[i])
        mmdrop(mms[i])
    c_munmap(mms, most * sizeof(mm_struct *))
    return pages


cdef bint take_samples(ksm_globals *g, samples_taken *samples, unsigned long pages, unsigned int most) noexcept nogil:
    """Take `most` samples at most, and sort them. False without memory; else drop_samples() frees them."""
    memset(samples, 0, sizeof(samples_taken))
    samples.most = most
    samples.size = <size_t>most * (sizeof(page_sample) + HEAD_WORDS * 8) + <size_t>(most // WHOLE_EACH + 1) * PAGE_SIZE
    # Not allocated on the heap, which would keep the memory.
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


cdef key_book *better_book(fast_state *fast, unsigned long pages, bint *complete) noexcept nogil:
    """A book with which at most half as many pages share a key; NULL if there is none, or if hardly any pages share a key now.

    *complete is false if most samples were left out because an image was not read yet.
    """
    cdef samples_taken samples
    cdef key_book *book = NULL
    cdef unsigned int ties, distinct
    # A few samples show whether a new book is worth making.
    if not take_samples(fast.g, &samples, pages, FEW_SAMPLES):
        return NULL
    ties = count_ties(fast.book, samples.listed, samples.nr, &distinct)
    complete[0] = samples.left_out <= samples.nr
    drop_samples(&samples)
    if 32 * ties <= distinct or not take_samples(fast.g, &samples, pages, min(MOST_SAMPLES, max(FEW_SAMPLES, pages // SAMPLED_EACH))):
        return NULL
    ties = count_ties(fast.book, samples.listed, samples.nr, &distinct)
    book = key_book_make(samples.listed, samples.nr)
    if book != NULL and 2 * count_ties(book, samples.listed, samples.nr, &distinct) > ties:
        key_book_free(book)
        book = NULL
    drop_samples(&samples)
    return book


cdef key_book *look_at_book(fast_state *fast) noexcept nogil:
    """A new book, if it would help; NULL to keep the present one."""
    cdef unsigned long pages = each_mm(fast.g, NULL, 0)
    cdef key_book *book
    cdef bint ties = 4 * fast.key_ties > fast.g.ksm_rmap_items, complete = True
    fast.key_ties = 0
    if fast.book_wait:
        fast.book_wait -= 1
    # The first pass over new memory compares only pages that it has just read. A book can wait until most of the memory was seen.
    # A fingerprint tells pages apart by its first word: it needs no book.
    if not has_bytes(fast.g.m) or 2 * fast.g.ksm_rmap_items < pages or pages <= 2 * fast.book_pages and not (ties and not fast.book_wait):
        return NULL
    book = better_book(fast, pages, &complete)
    fast.book_wait = BOOK_WAIT
    if complete:
        fast.book_pages = pages
    return book

# SPDX-License-Identifier: GPL-2.0-only
# Follows include/linux/pgtable.h and arch/x86/include/asm/pgtable.h of Linux 6.12.
"""Page table entries and the four levels of tables.

An entry has x86's bits: present 0, write 1, accessed 5, dirty 6, special 9, and the frame number from bit 12 on. A page without any access
rights keeps its frame, with `protnone` in place of `present`. An entry that is neither is a swap or migration entry (swapops.pxd), or none.
Bit 2 of a pmd marks a huge page.

A table of entries is 512 words, followed by a lock and a count. The levels above are plain. VM_WRITE never puts the write bit into
vm_page_prot of a private mapping. So mk_pte() gives read-only, clean entries, and only the fault handler makes them writable.
"""

from linux.atomic cimport READ_ONCE_ulong, WRITE_ONCE_ulong, smp_load_acquire_ulong, smp_store_release_ulong, xchg_ulong
from linux.mm_types cimport (PAGE_SHIFT, PMD_SHIFT, PMD_SIZE, PGDIR_SHIFT, PUD_SHIFT, machine, mm_struct, pgprot_t, pmd_t, pte_t,
                             struct_page, vm_area_struct)
from linux.page_flags cimport page_to_pfn
from linux.spinlock cimport spin_lock, spin_unlock, spinlock_t


cdef enum:
    _PAGE_PRESENT = 0x1
    _PAGE_RW = 0x2
    _PAGE_ACCESSED = 0x20
    _PAGE_DIRTY = 0x40
    _PAGE_PSE = 0x4             # bit 7 on x86, but a table here is only 64-byte aligned
    _PAGE_PROTNONE = 0x100
    _PAGE_SPECIAL = 0x200
    _PMD_TABLE_BITS = 0x3f      # the low bits of a pmd that points to a table, which is 64-byte aligned


cdef struct pte_table:
    pte_t pte[512]
    spinlock_t ptl


# Entries

cdef inline pte_t ptep_get(pte_t *ptep) noexcept nogil:
    return READ_ONCE_ulong(ptep[0])


cdef inline pmd_t pmdp_get_lockless(pmd_t *pmdp) noexcept nogil:
    return smp_load_acquire_ulong(pmdp[0])


cdef inline pmd_t pmdp_get(pmd_t *pmdp) noexcept nogil:
    return READ_ONCE_ulong(pmdp[0])


cdef inline void set_pte_at(mm_struct *mm, unsigned long addr, pte_t *ptep, pte_t pte) noexcept nogil:
    WRITE_ONCE_ulong(ptep[0], pte)


cdef inline bint pte_none(pte_t pte) noexcept nogil:
    return pte == 0


cdef inline bint pte_present(pte_t pte) noexcept nogil:
    return (pte & (_PAGE_PRESENT | _PAGE_PROTNONE)) != 0


cdef inline bint pte_protnone(pte_t pte) noexcept nogil:
    return (pte & (_PAGE_PRESENT | _PAGE_PROTNONE)) == _PAGE_PROTNONE


cdef inline bint pte_write(pte_t pte) noexcept nogil:
    return (pte & _PAGE_RW) != 0


cdef inline bint pte_dirty(pte_t pte) noexcept nogil:
    return (pte & _PAGE_DIRTY) != 0


cdef inline bint pte_young(pte_t pte) noexcept nogil:
    return (pte & _PAGE_ACCESSED) != 0


cdef inline bint pte_special(pte_t pte) noexcept nogil:
    return (pte & _PAGE_SPECIAL) != 0


cdef inline bint pte_same(pte_t a, pte_t b) noexcept nogil:
    return a == b


cdef inline unsigned long pte_pfn(pte_t pte) noexcept nogil:
    return (pte & 0x000ffffffffff000UL) >> PAGE_SHIFT


cdef inline pte_t pfn_pte(unsigned long pfn, pgprot_t prot) noexcept nogil:
    return (pfn << PAGE_SHIFT) | prot


cdef inline pte_t mk_pte(machine *m, struct_page *page, pgprot_t prot) noexcept nogil:
    return pfn_pte(page_to_pfn(m, page), prot)


cdef inline pte_t __pte(unsigned long value) noexcept nogil:
    return value


cdef inline pte_t pte_mkclean(pte_t pte) noexcept nogil:
    return pte & ~<pte_t>_PAGE_DIRTY


cdef inline pte_t pte_mkdirty(pte_t pte) noexcept nogil:
    return pte | _PAGE_DIRTY


cdef inline pte_t pte_wrprotect(pte_t pte) noexcept nogil:
    return pte & ~<pte_t>_PAGE_RW


cdef inline pte_t pte_mkwrite(pte_t pte) noexcept nogil:
    return pte | _PAGE_RW


cdef inline pte_t pte_mkyoung(pte_t pte) noexcept nogil:
    return pte | _PAGE_ACCESSED


cdef inline pte_t pte_mkold(pte_t pte) noexcept nogil:
    return pte & ~<pte_t>_PAGE_ACCESSED


cdef inline pte_t pte_mkspecial(pte_t pte) noexcept nogil:
    return pte | _PAGE_SPECIAL


cdef inline pte_t pte_modify(pte_t pte, pgprot_t prot) noexcept nogil:
    # The frame and the accessed, dirty and special bits stay; the access rights are new.
    return (pte & ~<pte_t>(_PAGE_PRESENT | _PAGE_RW | _PAGE_PROTNONE)) | (prot & ~<pgprot_t>_PAGE_ACCESSED)


cdef inline pte_t ptep_clear_flush(vm_area_struct *vma, unsigned long addr, pte_t *ptep) noexcept nogil:
    # A thread that reads or writes memory holds the lock of the table meanwhile. That stands in for the TLB flush.
    return xchg_ulong(ptep, 0)


cdef inline pte_t ptep_get_and_clear(mm_struct *mm, unsigned long addr, pte_t *ptep) noexcept nogil:
    return xchg_ulong(ptep, 0)


cdef inline void flush_cache_page(vm_area_struct *vma, unsigned long addr, unsigned long pfn) noexcept nogil:
    pass                        # caches are coherent


cdef inline void flush_anon_page(vm_area_struct *vma, struct_page *page, unsigned long addr) noexcept nogil:
    pass


cdef inline void flush_dcache_page(struct_page *page) noexcept nogil:
    pass


# The zero page

cdef inline struct_page *ZERO_PAGE(machine *m, unsigned long addr) noexcept nogil:
    return m.mem_map + m.zero_pfn


cdef inline bint is_zero_pfn(machine *m, unsigned long pfn) noexcept nogil:
    return pfn == m.zero_pfn


cdef inline unsigned long my_zero_pfn(machine *m, unsigned long addr) noexcept nogil:
    return m.zero_pfn


# Middle level: none, a table of entries, or a huge page

cdef inline bint pmd_none(pmd_t pmd) noexcept nogil:
    return pmd == 0


cdef inline bint pmd_present(pmd_t pmd) noexcept nogil:
    # A huge page without access rights is present, too.
    return (pmd & (_PAGE_PRESENT | _PAGE_PSE)) != 0


cdef inline bint pmd_leaf(pmd_t pmd) noexcept nogil:
    return (pmd & _PAGE_PSE) != 0


cdef inline bint pmd_trans_huge(pmd_t pmd) noexcept nogil:
    return (pmd & _PAGE_PSE) != 0


cdef inline unsigned long pmd_pfn(pmd_t pmd) noexcept nogil:
    return (pmd & 0x000ffffffffff000UL) >> PAGE_SHIFT


cdef inline pte_table *pmd_table(pmd_t pmd) noexcept nogil:
    return <pte_table *>(pmd & ~<pmd_t>_PMD_TABLE_BITS)


cdef inline unsigned long pmd_addr_end(unsigned long addr, unsigned long end) noexcept nogil:
    cdef unsigned long boundary = (addr + PMD_SIZE) & ~(<unsigned long>PMD_SIZE - 1)
    return boundary if boundary - 1 < end - 1 else end


cdef inline void set_pmd_at(mm_struct *mm, unsigned long addr, pmd_t *pmdp, pmd_t pmd) noexcept nogil:
    smp_store_release_ulong(pmdp[0], pmd)


# The walk down. Each function returns NULL where nothing is below.

cdef inline pmd_t *pmd_offset_mm(mm_struct *mm, unsigned long addr) noexcept nogil:
    cdef unsigned long *pud_table
    cdef unsigned long *pmd_table_
    pud_table = <unsigned long *>smp_load_acquire_ulong(mm.pgd[(addr >> PGDIR_SHIFT) & 511])
    if pud_table == NULL:
        return NULL
    pmd_table_ = <unsigned long *>smp_load_acquire_ulong(pud_table[(addr >> PUD_SHIFT) & 511])
    if pmd_table_ == NULL:
        return NULL
    return pmd_table_ + ((addr >> PMD_SHIFT) & 511)


cdef inline pmd_t *mm_find_pmd(mm_struct *mm, unsigned long addr) noexcept nogil:
    return pmd_offset_mm(mm, addr)


cdef inline spinlock_t *pmd_lock(mm_struct *mm, pmd_t *pmdp) noexcept nogil:
    spin_lock(&mm.page_table_lock)
    return &mm.page_table_lock


cdef inline spinlock_t *pte_lockptr(pmd_t pmd) noexcept nogil:
    return &pmd_table(pmd).ptl


cdef inline pte_t *pte_offset_map(pmd_t *pmdp, unsigned long addr) noexcept nogil:
    cdef pmd_t pmd = pmdp_get_lockless(pmdp)
    if pmd_none(pmd) or pmd_leaf(pmd):
        return NULL
    return &pmd_table(pmd).pte[(addr >> PAGE_SHIFT) & 511]


cdef inline pte_t *pte_offset_map_lock(mm_struct *mm, pmd_t *pmdp, unsigned long addr, spinlock_t **ptlp) noexcept nogil:
    cdef pmd_t pmd = pmdp_get_lockless(pmdp)
    while not (pmd_none(pmd) or pmd_leaf(pmd)):
        ptlp[0] = pte_lockptr(pmd)
        spin_lock(ptlp[0])
        if pmdp_get_lockless(pmdp) == pmd:
            return &pmd_table(pmd).pte[(addr >> PAGE_SHIFT) & 511]
        spin_unlock(ptlp[0])
        pmd = pmdp_get_lockless(pmdp)
    return NULL


# OURS: the entry that maps addr, a pte or a pmd: both have the bits of access at the same places.
cdef inline pte_t *entry_offset_map_lock(mm_struct *mm, unsigned long addr, spinlock_t **ptlp, unsigned long *pfn) noexcept nogil:
    cdef pmd_t *pmdp = pmd_offset_mm(mm, addr)
    cdef pte_t *ptep
    if pmdp == NULL:
        return NULL
    if pmd_leaf(pmdp_get_lockless(pmdp)):
        ptlp[0] = pmd_lock(mm, pmdp)
        if pmd_leaf(pmdp_get(pmdp)):
            pfn[0] = pmd_pfn(pmdp_get(pmdp)) + ((addr >> PAGE_SHIFT) & 511)
            return pmdp
        spin_unlock(ptlp[0])
    ptep = pte_offset_map_lock(mm, pmdp, addr, ptlp)
    if ptep != NULL:
        pfn[0] = pte_pfn(ptep_get(ptep))
    return ptep


cdef inline void pte_unmap(pte_t *pte) noexcept nogil:
    pass                        # tables are always mapped


cdef inline void pte_unmap_unlock(pte_t *pte, spinlock_t *ptl) noexcept nogil:
    spin_unlock(ptl)

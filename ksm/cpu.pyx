# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the processor.
"""Loads and stores of a process.

They work as on a processor: read the page table; if the entry allows the access, do it and set the entry's bits (accessed, dirty); if not,
raise a page fault and try again. The lock of the table is held from the reading to the last byte. This stands in for the TLB flush: once
KSM has cleared an entry under that lock, no thread uses it any more.
"""

from libc.errno cimport EFAULT, ENOMEM
from libc.string cimport memcmp, memcpy

from linux.atomic cimport atomic_fetch_or
from linux.highmem cimport frame_size, has_bytes, ksm_frame
from linux.ksm cimport ksm_page_changed
from linux.mm cimport FAULT_FLAG_USER, FAULT_FLAG_WRITE, VM_FAULT_ERROR, VM_FAULT_OOM, VM_WRITE, vma_is_accessible, vma_lookup
from linux.mm_types cimport PAGE_SIZE, mm_struct, pte_t, vm_area_struct, vm_fault_t
from linux.mmap_lock cimport mmap_read_lock, mmap_read_unlock
from linux.page_flags cimport pfn_to_page
from linux.pgtable cimport (_PAGE_ACCESSED, _PAGE_DIRTY, _PAGE_PRESENT, _PAGE_RW, entry_offset_map_lock, pte_unmap_unlock, ptep_get,
                            set_pte_at)
from linux.spinlock cimport spinlock_t
from linux.swapops cimport is_swap_pte

from ksm.mm.memory cimport handle_mm_fault


cdef char *translate(vm_area_struct *vma, unsigned long addr, bint write, spinlock_t **ptl, int *error) noexcept nogil:
    """The place of the byte, with the table locked; NULL with an errno. It faults pages in, and copies them on write."""
    cdef mm_struct *mm = vma.vm_mm
    cdef unsigned long pfn = 0
    cdef pte_t *pte
    cdef pte_t entry, needed = _PAGE_PRESENT | (_PAGE_RW if write else 0)
    cdef pte_t noted = _PAGE_ACCESSED | (_PAGE_DIRTY if write else 0)
    cdef vm_fault_t ret
    while True:
        pte = entry_offset_map_lock(mm, addr, ptl, &pfn)
        if pte != NULL:
            entry = ptep_get(pte)
            if entry & needed == needed:
                if entry & noted != noted:
                    set_pte_at(mm, addr, pte, entry | noted)
                if write:
                    ksm_page_changed(mm.machine, pfn_to_page(mm.machine, pfn))
                return mm.machine.arena + (pfn * mm.machine.frame_size) + (addr & (PAGE_SIZE - 1) if has_bytes(mm.machine) else 0)
            pte_unmap_unlock(pte, ptl[0])
        ret = handle_mm_fault(vma, addr, FAULT_FLAG_USER | (FAULT_FLAG_WRITE if write else 0))
        if ret & VM_FAULT_ERROR:
            error[0] = -ENOMEM if ret & VM_FAULT_OOM else -EFAULT
            return NULL


cdef bint access_error(vm_area_struct *vma, unsigned long addr, bint write) noexcept nogil:
    """Whether the access would be a segmentation fault. Memory that can be written or executed can be read."""
    if vma == NULL:
        return True
    return not (vma.vm_flags & VM_WRITE) if write else not vma_is_accessible(vma)


cdef unsigned long cpu_access(mm_struct *mm, unsigned long addr, char *buf, unsigned long length, bint write,
                              int *error) noexcept nogil:
    """Copy from or to a process's memory. Returns the number of bytes done, with 0, -EFAULT or -ENOMEM in *error."""
    cdef vm_area_struct *vma
    cdef unsigned long done = 0, chunk
    cdef spinlock_t *ptl = NULL
    cdef char *place
    error[0] = 0
    mmap_read_lock(mm)
    while done < length:
        vma = vma_lookup(mm, addr)
        if access_error(vma, addr, write):
            error[0] = -EFAULT
            break
        while done < length and addr < vma.vm_end:
            chunk = PAGE_SIZE - (addr & (PAGE_SIZE - 1))
            if chunk > length - done:
                chunk = length - done
            place = translate(vma, addr, write, &ptl, error)
            if place == NULL:
                break
            if write:
                memcpy(place, buf + done, chunk)
            else:
                memcpy(buf + done, place, chunk)
            pte_unmap_unlock(NULL, ptl)
            addr += chunk
            done += chunk
        if error[0]:
            break
    mmap_read_unlock(mm)
    return done


cdef unsigned long cpu_touch(mm_struct *mm, unsigned long addr, unsigned long end, bint write, int *error) noexcept nogil:
    """Read the first word of every page in [addr, end), or write it unchanged, in one access. Returns where it stopped, with 0 or -errno in
    *error.
    """
    cdef vm_area_struct *vma
    cdef spinlock_t *ptl = NULL
    cdef char *place
    error[0] = 0
    mmap_read_lock(mm)
    while addr < end and error[0] == 0:
        vma = vma_lookup(mm, addr)
        if access_error(vma, addr, write):
            error[0] = -EFAULT
            break
        while addr < end and addr < vma.vm_end:
            place = translate(vma, addr, write, &ptl, error)
            if place == NULL:
                break
            if write:
                atomic_fetch_or(<unsigned int *>place, 0)
            pte_unmap_unlock(NULL, ptl)
            addr += PAGE_SIZE
    mmap_read_unlock(mm)
    return addr


cdef long cpu_update(mm_struct *mm, unsigned long addr, const char *buf, unsigned long nr_pages, bint always,
                     int *error) noexcept nogil:
    """Make whole pages equal to the frames in `buf`, and write only to those that differ, or `always`. Returns how many were written,
    with 0 or -errno in *error.

    A page that is not mapped yet is written, so that it is mapped afterwards, even if it is zero.
    """
    cdef vm_area_struct *vma
    cdef spinlock_t *ptl = NULL
    cdef unsigned long pfn = 0
    cdef pte_t *pte
    cdef pte_t entry
    cdef char *place
    cdef long changed = 0
    cdef size_t size = frame_size(mm.machine)
    cdef bint same
    error[0] = 0
    mmap_read_lock(mm)
    while nr_pages:
        vma = vma_lookup(mm, addr)
        if access_error(vma, addr, True):
            error[0] = -EFAULT
            break
        same = False
        pte = NULL if always else entry_offset_map_lock(mm, addr, &ptl, &pfn)
        if pte != NULL:
            entry = ptep_get(pte)
            if entry & _PAGE_PRESENT:
                same = memcmp(mm.machine.arena + (pfn * mm.machine.frame_size), buf, size) == 0
            pte_unmap_unlock(pte, ptl)
            if is_swap_pte(entry):
                # Read the page back before it is compared.
                place = translate(vma, addr, False, &ptl, error)
                if place == NULL:
                    break
                same = memcmp(place, buf, size) == 0
                pte_unmap_unlock(NULL, ptl)
        if not same:
            place = translate(vma, addr, True, &ptl, error)
            if place == NULL:
                break
            memcpy(place, buf, size)
            pte_unmap_unlock(NULL, ptl)
            changed += 1
        addr += PAGE_SIZE
        buf += PAGE_SIZE if has_bytes(mm.machine) else sizeof(ksm_frame)
        nr_pages -= 1
    mmap_read_unlock(mm)
    return changed

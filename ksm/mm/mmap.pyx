# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/mmap.c of Linux 6.12.
"""mmap, munmap and brk. The caller holds mmap_lock for writing. There is private anonymous memory, and shared anonymous memory.

A process has no CAP_SYS_RAWIO, so it can map nothing below mmap_min_addr, also at an address of its own choice. The value is Debian's.
"""

from libc.errno cimport EEXIST, EINVAL, ENOMEM, EPERM
from libc.stdlib cimport calloc, free

from linux.ksm cimport ksm_add_vma, ksm_vma_flags
from linux.mm cimport (VM_ACCOUNT, VM_EXEC, VM_MAYEXEC, VM_MAYREAD, VM_MAYSHARE, VM_MAYWRITE, VM_NORESERVE, VM_READ, VM_SHARED,
                       VM_WRITE, find_vma, vma_find_index)
from linux.mm_types cimport PAGE_SHIFT, PAGE_SIZE, PMD_SIZE, file, mm_struct, page_mask, struct_page, vm_area_struct, vm_flags_t
from linux.mman cimport (MAP_ANONYMOUS, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_NORESERVE, MAP_POPULATE, MAP_PRIVATE, MAP_SHARED,
                         MAP_TYPE, PROT_EXEC, PROT_READ, PROT_WRITE)
from linux.spinlock cimport spin_lock_init

from ksm.mm.vma cimport do_vma_munmap, remove_vma, vm_area_alloc, vm_get_page_prot, vma_link, vma_merge_new_range


cdef enum:
    MMAP_MIN_ADDR = 65536       # never 0: ksm_scan.address 0 means that nothing mergeable was seen


cdef unsigned long task_size() noexcept nogil:
    return (<unsigned long>1 << 47) - PAGE_SIZE


cdef inline unsigned long round_hint_to_min(unsigned long hint) noexcept nogil:
    hint &= page_mask()
    return MMAP_MIN_ADDR if hint != 0 and hint < MMAP_MIN_ADDR else hint


cdef int check_mmap_addr(unsigned long addr, unsigned long length) noexcept nogil:
    """OURS: the checks of __get_unmapped_area() for an address that the caller has chosen, in the kernel's order. The last one is
    cap_mmap_addr().
    """
    if length > task_size() or addr > task_size() - length:
        return -ENOMEM
    if addr & (PAGE_SIZE - 1):
        return -EINVAL
    return -EPERM if addr < MMAP_MIN_ADDR else 0


cdef unsigned long get_unmapped_area(mm_struct *mm, unsigned long length) noexcept nogil:
    """The highest free range below mmap_base; 0 if there is none."""
    cdef unsigned long high = mm.mmap_base, low
    cdef int i = vma_find_index(mm, high - 1)
    if i < mm.map_count and mm.vmas[i].vm_start < high:
        high = mm.vmas[i].vm_start
    i -= 1
    while True:
        low = mm.vmas[i].vm_end if i >= 0 else MMAP_MIN_ADDR
        if high > low and high - low >= length:
            # A mapping of whole huge pages gets an aligned place, if one is free (mm/huge_memory.c).
            if length & (PMD_SIZE - 1) == 0 and (high - length) & ~(<unsigned long>PMD_SIZE - 1) >= low:
                return (high - length) & ~(<unsigned long>PMD_SIZE - 1)
            return high - length
        if i < 0:
            return 0
        high = mm.vmas[i].vm_start
        i -= 1


cdef file *shmem_file_setup(unsigned long nr_pages) noexcept nogil:
    """The object behind a shared anonymous mapping (mm/shmem.c)."""
    cdef file *object = <file *>calloc(1, sizeof(file))
    if object == NULL:
        return NULL
    object.pages = <struct_page **>calloc(nr_pages, sizeof(struct_page *))
    if object.pages == NULL:
        free(object)
        return NULL
    object.f_count = 1
    object.nr_pages = nr_pages
    spin_lock_init(&object.lock)
    return object


cdef long mmap_region(mm_struct *mm, unsigned long addr, unsigned long length, vm_flags_t vm_flags,
                      unsigned long pgoff) noexcept nogil:
    cdef vm_area_struct *vma
    cdef int err
    # Nothing is accounted here. But VM_ACCOUNT keeps mappings apart that mprotect has made alike.
    if (vm_flags & (VM_NORESERVE | VM_SHARED | VM_WRITE)) == VM_WRITE:
        vm_flags |= VM_ACCOUNT
    # After prctl(PR_SET_MEMORY_MERGE), VM_MERGEABLE is set after the attempt to join neighbours. So the new mapping stays apart from
    # mergeable neighbours. Since 6.17 it is set before.
    vm_flags = ksm_vma_flags(mm, vm_flags)
    if not (vm_flags & VM_SHARED):
        vma = vma_merge_new_range(mm, addr, addr + length, vm_flags, pgoff, NULL)
        if vma != NULL:
            ksm_add_vma(vma)
            return <long>addr
    vma = vm_area_alloc(mm)
    if vma == NULL:
        return -ENOMEM
    vma.vm_start = addr
    vma.vm_end = addr + length
    vma.vm_pgoff = pgoff
    vma.vm_flags = vm_flags
    vma.vm_page_prot = vm_get_page_prot(vm_flags)
    if vm_flags & VM_SHARED:
        vma.vm_file = shmem_file_setup(length >> PAGE_SHIFT)
        vma.vm_pgoff = 0
    err = -ENOMEM if (vm_flags & VM_SHARED) and vma.vm_file == NULL else vma_link(mm, vma)
    if err:
        remove_vma(vma)
        return err
    ksm_add_vma(vma)
    return <long>addr


cdef long do_mmap(mm_struct *mm, unsigned long addr, unsigned long length, int prot, int flags) noexcept nogil:
    """The address of a new mapping, or -errno as mmap(2) has it. `addr` is a hint unless flags fix it."""
    cdef vm_flags_t vm_flags = mm.def_flags | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
    cdef vm_area_struct *vma
    cdef int err
    if length == 0:
        return -EINVAL
    if length > task_size():
        return -ENOMEM
    length = (length + PAGE_SIZE - 1) & page_mask()
    if prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC):
        return -EINVAL
    if flags & ~(MAP_TYPE | MAP_FIXED | MAP_ANONYMOUS | MAP_NORESERVE | MAP_POPULATE | MAP_FIXED_NOREPLACE):
        return -EINVAL
    if not (flags & MAP_ANONYMOUS) or (flags & MAP_TYPE) not in (MAP_PRIVATE, MAP_SHARED):
        return -EINVAL
    if flags & (MAP_FIXED | MAP_FIXED_NOREPLACE):
        err = check_mmap_addr(addr, length)
        if err:
            return err
        vma = find_vma(mm, addr)
        if (flags & MAP_FIXED_NOREPLACE) and vma != NULL and vma.vm_start < addr + length:
            return -EEXIST
    else:
        addr = round_hint_to_min(addr)
        vma = find_vma(mm, addr)
        if addr == 0 or addr > task_size() - length or (vma != NULL and vma.vm_start < addr + length):
            addr = get_unmapped_area(mm, length)
        if addr == 0:
            return -ENOMEM
    if prot & PROT_READ:
        vm_flags |= VM_READ
    if prot & PROT_WRITE:
        vm_flags |= VM_WRITE
    if prot & PROT_EXEC:
        vm_flags |= VM_EXEC
    if (flags & MAP_TYPE) == MAP_SHARED:
        vm_flags |= VM_SHARED | VM_MAYSHARE
    if flags & MAP_NORESERVE:
        vm_flags |= VM_NORESERVE
    err = do_vma_munmap(mm, addr, addr + length)
    if err:
        return err
    return mmap_region(mm, addr, length, vm_flags, addr >> PAGE_SHIFT)


cdef int do_munmap(mm_struct *mm, unsigned long start, unsigned long length) noexcept nogil:
    """munmap(2): 0, -EINVAL for an invalid range, -ENOMEM."""
    if start & (PAGE_SIZE - 1) or start > task_size() or length > task_size() - start:
        return -EINVAL
    length = (length + PAGE_SIZE - 1) & page_mask()
    if length == 0:
        return -EINVAL
    return do_vma_munmap(mm, start, start + length)


cdef long do_brk(mm_struct *mm, unsigned long brk) noexcept nogil:
    """brk(2): the new end of the heap, or the old one when it could not be moved."""
    cdef unsigned long newbrk = (brk + PAGE_SIZE - 1) & page_mask()
    cdef unsigned long oldbrk = (mm.brk + PAGE_SIZE - 1) & page_mask()
    cdef vm_area_struct *vma
    if brk < mm.start_brk or brk > task_size():
        return <long>mm.brk
    if newbrk > oldbrk:
        if check_mmap_addr(oldbrk, newbrk - oldbrk):
            return <long>mm.brk
        # One page before the next mapping stays free.
        vma = find_vma(mm, oldbrk)
        if vma != NULL and newbrk + PAGE_SIZE > vma.vm_start:
            return <long>mm.brk
        if mmap_region(mm, oldbrk, newbrk - oldbrk, mm.def_flags | VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC,
                       oldbrk >> PAGE_SHIFT) < 0:
            return <long>mm.brk
    elif newbrk < oldbrk:
        vma = find_vma(mm, newbrk)
        if vma == NULL or vma.vm_start >= oldbrk or do_vma_munmap(mm, newbrk, oldbrk):
            return <long>mm.brk
    mm.brk = brk
    return <long>brk

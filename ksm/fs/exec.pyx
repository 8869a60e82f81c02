# SPDX-License-Identifier: GPL-2.0-only
# Follows fs/exec.c of Linux 6.12: bprm_mm_init() and exec_mmap().
"""exec: an empty address space replaces the old one, and inherits the setting of prctl(PR_SET_MEMORY_MERGE)."""

from libc.errno cimport ENOMEM

from linux.ksm cimport ksm_execve
from linux.mm_types cimport MMF_VM_MERGE_ANY, mm_struct
from linux.mman cimport MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE
from linux.mmap_lock cimport mmap_write_lock, mmap_write_unlock

from ksm.kernel.fork cimport mm_alloc, mmput
from ksm.mm.mmap cimport do_mmap, task_size


cdef enum:
    STACK_SIZE = 135168         # 33 pages, as setup_arg_pages() leaves it


cdef mm_struct *exec_mm(mm_struct *oldmm, int *error) noexcept nogil:
    """The new program's address space, with a stack; NULL with -ENOMEM. The caller drops the old one."""
    cdef mm_struct *mm = mm_alloc(oldmm.machine)
    error[0] = -ENOMEM
    if mm == NULL:
        return NULL
    mm.flags = oldmm.flags & (1UL << MMF_VM_MERGE_ANY)
    mm.nid = oldmm.nid
    mmap_write_lock(mm)
    error[0] = ksm_execve(mm)
    # The stack is the first thing that KSM may find there.
    if not error[0] and do_mmap(mm, task_size() - STACK_SIZE, STACK_SIZE, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED) < 0:
        error[0] = -ENOMEM
    mmap_write_unlock(mm)
    if error[0]:
        mmput(mm)               # calls ksm_exit()
        return NULL
    return mm

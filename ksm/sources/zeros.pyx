# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: whoever dumps memory writes zeros where there is none.
"""Pages of zeros in a file.

QEMU's pmemsave, dump-guest-memory and gcore write zeros for memory that was never touched. In the running machine there is no page then,
and nothing to merge. The file does not tell such zeros from those of real pages.
"""

from linux.highmem cimport page_is_zero
from linux.mm_types cimport PAGE_SHIFT, machine as struct_machine
from linux.page_flags cimport PG_reserved, test_page_flag
from linux.spinlock cimport mutex_lock, mutex_unlock

from ksm.fs.proc.task_mmu cimport PAGE_FLAGS_SHIFT, PAGE_PRESENT
from ksm.machine cimport Machine


def zero_runs(Machine machine not None, unsigned long start, const unsigned long[::1] words):
    """The runs of zero pages, (start, end), in a page table from the address `start` on, as Process.page_table() gives it."""
    cdef struct_machine *m
    cdef Py_ssize_t i = 0, first, nr = words.shape[0]
    runs = []
    while i < nr:
        with nogil:
            machine.enter()
            m = machine.m
            # The lock keeps images from being removed meanwhile.
            mutex_lock(&m.hotplug_lock)
            while i < nr and not is_zero(m, words[i]):
                i += 1
            first = i
            while i < nr and is_zero(m, words[i]):
                i += 1
            mutex_unlock(&m.hotplug_lock)
            machine.leave()
        if first < i:
            runs.append((start + (<unsigned long>first << PAGE_SHIFT), start + (<unsigned long>i << PAGE_SHIFT)))
    return runs


cdef inline bint is_zero(struct_machine *m, unsigned long word) noexcept nogil:
    cdef unsigned long pfn = word >> PAGE_FLAGS_SHIFT
    if not word & PAGE_PRESENT or pfn >= m.plugged_pfn:
        return False
    return pfn == m.zero_pfn or (not test_page_flag(m.mem_map + pfn, PG_reserved) and page_is_zero(m, m.mem_map + pfn))

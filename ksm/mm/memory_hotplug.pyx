# SPDX-License-Identifier: GPL-2.0-only
# Follows mm/memory_hotplug.c of Linux 6.12.
"""Frames that come and go while the machine runs: images of memory, mapped into the arena."""

from libc.errno cimport ENOMEM
from libc.stdlib cimport realloc

from ksm.arena cimport arena_add_file, arena_remove
from linux.mm_types cimport HPAGE_PMD_NR, machine, memory_block
from linux.page_flags cimport PG_node_shift, PG_plugged, PG_reserved
from linux.spinlock cimport mutex_lock, mutex_unlock


cdef long add_memory_file(machine *m, int nid, int fd, unsigned long offset, unsigned long nr_pages) noexcept nogil:
    """Plug in frames whose memory is a part of a file; the first frame's number, -ENOMEM when the arena has no room, or -errno."""
    cdef memory_block *blocks
    cdef memory_block *block
    cdef unsigned long start_pfn, i
    cdef long ret = -ENOMEM
    mutex_lock(&m.hotplug_lock)
    start_pfn = (m.plugged_pfn + HPAGE_PMD_NR - 1) & ~(<unsigned long>HPAGE_PMD_NR - 1)
    if start_pfn <= m.max_pfn and nr_pages <= m.max_pfn - start_pfn:
        blocks = <memory_block *>realloc(m.blocks, (m.nr_blocks + 1) * sizeof(memory_block))
        if blocks != NULL:
            m.blocks = blocks
            ret = arena_add_file(m, start_pfn, nr_pages, fd, offset)
    if ret == 0:
        block = &m.blocks[m.nr_blocks]
        block.start_pfn = start_pfn
        block.nr_pages = nr_pages
        block.nid = nid
        block.online = True
        block.file_backed = True
        m.nr_blocks += 1
        m.plugged_pfn = start_pfn + nr_pages
        for i in range(nr_pages):
            m.mem_map[start_pfn + i].flags = (<unsigned int>nid << PG_node_shift) | PG_plugged
        ret = <long>start_pfn
    mutex_unlock(&m.hotplug_lock)
    return ret


cdef void remove_memory(machine *m, unsigned long start_pfn) noexcept nogil:
    """Take the block that begins there away. Nobody uses its frames any more."""
    cdef int i
    cdef unsigned long pfn
    cdef memory_block *block
    mutex_lock(&m.hotplug_lock)
    for i in range(m.nr_blocks):
        block = &m.blocks[i]
        if block.start_pfn == start_pfn and block.online:
            block.online = False
            for pfn in range(block.start_pfn, block.start_pfn + block.nr_pages):
                m.mem_map[pfn].flags = PG_reserved
            arena_remove(m, block.start_pfn, block.nr_pages)
    mutex_unlock(&m.hotplug_lock)

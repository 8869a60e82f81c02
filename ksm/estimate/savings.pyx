# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: KSM itself counts no further than pages_sharing.
"""What merging saves, split by where the equal pages are."""

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

cimport cython

from linux.highmem cimport page_is_zero
from linux.mm_types cimport list_head, machine as struct_machine, page_mask, pte_t
from linux.pgtable cimport entry_offset_map_lock, pte_present, pte_unmap_unlock, ptep_get
from linux.spinlock cimport mutex_lock, mutex_unlock, spinlock_t

from ksm.fs.proc.task_mmu cimport PAGE_FLAGS_SHIFT, PAGE_KSM, PAGE_KSM_ZERO, PAGE_PRESENT, PAGE_ZERO
from ksm.machine cimport Machine
from ksm.mm.ksm cimport ERA_6_1, STABLE_FLAG, UNSTABLE_FLAG, ksm_globals, ksm_mm_slot, ksm_rmap_item, mm_slot_of, skip_age
from ksm.sources.frames cimport PAGE_REPEATED


cdef enum:
    ZERO = 0
    SPLIT
    WITHIN
    ACROSS
    MERGED
    UNSHARED
    SKIPPED
    VOLATILE
    COUNTS

# Bits beside the source's number in Tally.last: the frame holds nothing but zeros; only repeated pages were seen to map it; it is in the
# unstable tree; smart_scan has passed over it; it has been counted, and is not merged.
cdef uint32_t ZEROS = <uint32_t>1 << 31
cdef uint32_t OWED = <uint32_t>1 << 30
cdef uint32_t IN_TREE = <uint32_t>1 << 29
cdef uint32_t SKIPPED_FRAME = <uint32_t>1 << 28
cdef uint32_t COUNTED = <uint32_t>1 << 27

# What add() says of each page: its place here. "shared" has its frame since a fork with a page that was counted.
STATES = ("absent", "zero", "split", "within", "across", "merged", "unshared", "skipped", "volatile", "shared")

cdef enum:
    ABSENT = 0
    STATE_OF = 1                # added to ZERO, SPLIT ...
    SHARED = COUNTS + 1

cdef uint32_t SEVERAL = <uint32_t>1 << 31      # sources map the frame
cdef uint32_t MERGED_FRAME = <uint32_t>1 << 30


@cython.no_gc_clear
cdef class Tally:
    """Tally(machine, owners=False)
--

    Counts frames saved, from the page tables of the sources, one source after the other.

    A merged page with n mappings saves n - 1 frames. For a page of zeros all of them count as `zero`, and so does every page that KSM made
    the kernel's zero page. Those that the split of a huge page made the zero page count as `split`. For any other page, `within` counts the
    frames that a separate merge inside each source would have saved. `across` counts the rest: one less than there are sources with the
    page.

    Until 6.1 a page that became the zero page has the entry of a page that was only read. A scan has no such pages, and counts each as
    `zero`.

    `merged` counts the frames that are kept, one for n mappings. Other frames are `unshared` if KSM has them in the unstable tree,
    `skipped` if smart_scan passed over them in the last pass, or else `volatile`: they have changed, or were not seen often enough.
    note_items() finds out which, and comes before add().

    Pages that share a frame since a fork were one frame before. One of them stands for it, the others are marked PAGE_REPEATED. Where KSM
    has merged them into different pages, because of max_page_sharing, a page that has no other mappings has cost a frame.
    """

    cdef Machine machine
    cdef uint32_t *last         # for each frame: the source that was last seen to map it, from 1
    cdef uint32_t *owner        # for each frame: the only source that maps it, or SEVERAL; NULL if nobody asks
    cdef long *owned            # for each source: such frames, and how many of them are merged
    cdef uint32_t source
    cdef readonly long zero
    cdef readonly long split
    cdef readonly long within
    cdef readonly long across
    cdef readonly long merged
    cdef readonly long unshared
    cdef readonly long skipped
    cdef readonly long volatile

    def __cinit__(self, Machine machine not None, bint owners=False):
        with nogil:
            machine.enter()
            self.last = <uint32_t *>calloc(machine.m.max_pfn, sizeof(uint32_t))
            if owners:
                self.owner = <uint32_t *>calloc(machine.m.max_pfn, sizeof(uint32_t))
            machine.leave()
        if self.last == NULL or (owners and self.owner == NULL):
            raise MemoryError
        self.machine = machine

    def __dealloc__(self):
        free(self.last)
        free(self.owner)
        free(self.owned)

    def __reduce__(self):
        raise TypeError("a tally cannot be copied or pickled")

    def next_source(self):
        """The page tables that are added from now on belong to the next source."""
        begin_source(self)

    def note_items(self):
        """Note which frames are in the unstable tree, and which smart_scan passed over in the last pass."""
        cdef list_head *pos
        cdef ksm_globals *g
        self.machine.hold()
        with nogil:
            g = self.machine.g
            pos = g.ksm_mm_head.slot.mm_node.next
            while pos != &g.ksm_mm_head.slot.mm_node:
                note_items_of(g, mm_slot_of(pos), self.last)
                pos = pos.next
            self.machine.release()

    def add(self, const unsigned long[::1] words, unsigned char[::1] states=None):
        """Count a page table, as Process.page_table() gives it: how many pages are present. ValueError for a frame that is not there.

        `states` gets a byte for each word: a place in STATES. They add up to the counts, but for a frame that a merge has cost.
        """
        cdef long counts[COUNTS]
        cdef unsigned long present = 0, word, zero
        cdef Py_ssize_t i
        cdef bint beyond = False
        cdef struct_machine *m
        cdef uint32_t *last = self.last
        cdef uint32_t source = self.source
        cdef int state
        cdef bint noted = states is not None
        if source == 0:
            raise ValueError("next_source() has to be called before add()")
        if noted and states.shape[0] < words.shape[0]:
            raise ValueError("states needs a byte for each word")
        memset(counts, 0, sizeof(counts))
        with nogil:
            self.machine.enter()
            m = self.machine.m
            zero = PAGE_KSM_ZERO if self.machine.g.era > ERA_6_1 else PAGE_ZERO
            # The lock keeps images from being removed meanwhile.
            mutex_lock(&m.hotplug_lock)
            for i in range(words.shape[0]):
                word = words[i]
                present += word != 0
                state = ABSENT
                if word & (PAGE_PRESENT | PAGE_KSM | zero):
                    beyond = not frame_is_there(m, word >> PAGE_FLAGS_SHIFT)
                    if beyond:
                        break
                    if self.owner != NULL and not word & PAGE_ZERO:
                        own_frame(self.owner + (word >> PAGE_FLAGS_SHIFT), source, (word & PAGE_KSM) != 0, self.owned)
                    if word & PAGE_ZERO:
                        state = ZERO if word & zero else SPLIT
                        counts[state] += not word & PAGE_REPEATED
                    elif word & PAGE_KSM:
                        state = count_word(m, word, last, source, counts)
                    else:
                        state = count_frame(word, last + (word >> PAGE_FLAGS_SHIFT), counts)
                    state = SHARED if word & PAGE_REPEATED else state + STATE_OF
                if noted:
                    states[i] = <unsigned char>state
            mutex_unlock(&m.hotplug_lock)
            self.machine.leave()
        if beyond:
            raise ValueError("the page table has frames that the machine has not")
        add_counts(self, counts)
        return present

    def own(self):
        """The frames that only one source maps: for each source, in their order, (frames, how many of them are merged)."""
        if self.owner == NULL:
            raise ValueError("this tally does not know whose frames they are")
        return [(self.owned[2 * i], self.owned[2 * i + 1]) for i in range(1, self.source + 1)]


# Without the GIL two threads could add at the same time, and one sum be lost.

@cython.critical_section
cdef int begin_source(Tally tally) except -1:
    cdef long *owned
    if tally.owner != NULL:
        owned = <long *>realloc(tally.owned, 2 * (<size_t>tally.source + 2) * sizeof(long))
        if owned == NULL:
            raise MemoryError
        memset(owned + 2 * (tally.source + 1), 0, 2 * sizeof(long))
        tally.owned = owned
    tally.source += 1
    return 0


@cython.critical_section
cdef int add_counts(Tally tally, const long *counts) except -1:
    tally.zero += counts[ZERO]
    tally.split += counts[SPLIT]
    tally.within += counts[WITHIN]
    tally.across += counts[ACROSS]
    tally.merged += counts[MERGED]
    tally.unshared += counts[UNSHARED]
    tally.skipped += counts[SKIPPED]
    tally.volatile += counts[VOLATILE]
    return 0


cdef inline void own_frame(uint32_t *owner, uint32_t source, bint merged, long *owned) noexcept nogil:
    """Note who maps a frame: it is its first source's own until another one comes."""
    cdef uint32_t first = owner[0] & ~MERGED_FRAME
    if owner[0] == 0:
        owner[0] = source | (MERGED_FRAME if merged else 0)
        owned[2 * source] += 1
        owned[2 * source + 1] += merged
    elif first != source and first != SEVERAL:
        owned[2 * first] -= 1
        owned[2 * first + 1] -= (owner[0] & MERGED_FRAME) != 0
        owner[0] = SEVERAL


cdef inline int count_frame(unsigned long word, uint32_t *last, long *counts) noexcept nogil:
    """Count a frame that is not merged, once: processes may share it since a fork. What it counts as."""
    cdef int state = UNSHARED if last[0] & IN_TREE else SKIPPED if last[0] & SKIPPED_FRAME else VOLATILE
    if not last[0] & COUNTED:
        counts[state] += 1
        last[0] |= COUNTED
        if word & PAGE_REPEATED:
            # The page that stands for this frame has been merged, and has left it to the others.
            counts[WITHIN] -= 1
            last[0] |= OWED
    elif last[0] & OWED and not word & PAGE_REPEATED:
        counts[WITHIN] += 1
        last[0] &= ~OWED
    return state


cdef void note_items_of(ksm_globals *g, ksm_mm_slot *slot, uint32_t *last) noexcept nogil:
    """Set the bits of the frames of which KSM has rmap_items in this process. Nobody else is in the machine."""
    cdef ksm_rmap_item *item = slot.rmap_list
    cdef spinlock_t *ptl = NULL
    cdef unsigned long pfn = 0
    cdef uint32_t bit
    cdef pte_t *pte
    while item != NULL:
        bit = IN_TREE if item.address & UNSTABLE_FLAG else SKIPPED_FRAME if was_skipped(g, item) else 0
        if bit and not item.address & STABLE_FLAG:
            pte = entry_offset_map_lock(slot.slot.mm, item.address & page_mask(), &ptl, &pfn)
            if pte != NULL:
                if pte_present(ptep_get(pte)):
                    last[pfn] |= bit
                pte_unmap_unlock(pte, ptl)
        item = item.rmap_list


cdef inline bint was_skipped(ksm_globals *g, ksm_rmap_item *item) noexcept nogil:
    """Whether should_skip_rmap_item() let the last visit pass over the item: it then has fewer visits left to skip than it was given."""
    return g.ksm_smart_scan and item.age > 3 and item.remaining_skips < skip_age(item.age - 1)


cdef inline int count_word(struct_machine *m, unsigned long word, uint32_t *last, uint32_t source,
                           long *counts) noexcept nogil:
    """Count a mapping of a merged page. What it counts as."""
    cdef unsigned long frame = word >> PAGE_FLAGS_SHIFT
    cdef int state = MERGED
    if word & PAGE_REPEATED:
        if last[frame] == 0:
            last[frame] = OWED | (ZEROS if page_is_zero(m, m.mem_map + frame) else 0)
            counts[ZERO if last[frame] & ZEROS else WITHIN] -= 1
            counts[MERGED] += 1
        return state
    if last[frame] & OWED:
        # Another one has stood in for the first mapping.
        counts[ZERO if last[frame] & ZEROS else WITHIN] += 1
        last[frame] &= ZEROS
    elif last[frame] == 0:
        # The first mapping saves nothing.
        last[frame] = ZEROS if page_is_zero(m, m.mem_map + frame) else 0
        counts[MERGED] += 1
    else:
        state = ZERO if last[frame] & ZEROS else WITHIN if last[frame] == source else ACROSS
        counts[state] += 1
    last[frame] = (last[frame] & ZEROS) | source
    return state

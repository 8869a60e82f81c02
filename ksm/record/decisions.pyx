# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what KSM has decided of each page.
"""What became of each page, and why, written down where ksm.pyx decides it: a byte for each rmap_item.

ksm.pyx calls ksm_step() where it takes a step (ksm/step.pxd). Each visit of a page ends in one of a few steps, with or without the speed
layer. The function here keeps which one, and what was learnt on the way: whose page was refused, whether an equal was full. It changes
nothing, and looks at page tables only where a search has given up.

The bytes lie beside the items: items are at multiples of 64 bytes, and a piece has those of all items in 2 MiB of addresses.
"""

from typing import NamedTuple

cimport cython
from libc.errno cimport EBUSY
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from linux.err cimport PTR_ERR
from linux.list cimport list_head
from linux.mm_types cimport PAGE_SHIFT, machine as struct_machine, page_mask, struct_page
from linux.page_flags cimport PageAnon
from linux.spinlock cimport mutex_lock, mutex_unlock

from ksm.machine cimport Machine, oserror
from ksm.mm.ksm cimport UNSTABLE_FLAG, ksm_globals, ksm_mm_slot, ksm_rmap_item, mm_slot_of, rmap_item_of
from ksm.record.look cimport page_of
from ksm.step cimport (STABLE_SEARCHED, STEP_AT_ITS_NODE, STEP_BREAK_COW, STEP_CHANGED, STEP_DIFFERS, STEP_FORKED, STEP_MERGED,
                       STEP_NOT_PROTECTED, STEP_SKIPPED, STEP_STABLE_FULL, STEP_TWO_MERGED, STEP_UNCHANGED, STEP_ZERO_MERGED,
                       UNSTABLE_SEARCHED, WRITE_ONCE_step)


cdef enum:
    ITEM_SHIFT = 6
    PIECE_SHIFT = 21
    SEEN = 0x80                 # beside a decision: the item was visited before
    MOST_EVENTS = 1024          # of a page that is followed

# A piece of the table: the items whose addresses, shifted, have this number
cdef struct piece:
    size_t number
    unsigned char *codes

# A visit of the page that is followed, or of another one that found it
cdef struct event:
    unsigned long seqnr         # of the pass
    int code
    bint by_other               # another page has come by
    unsigned long mm_id         # of the other page, or of the item at which the search has ended; 0 for none
    unsigned long address

cdef struct decider:
    ksm_globals *g
    piece *pieces               # a hash table
    size_t nr, room
    piece *last
    bint no_memory
    # Of the visit that goes on
    ksm_rmap_item *current
    struct_page *page
    struct_page *refused        # the last page that write_protect_page() has refused
    ksm_rmap_item *found        # in the unstable tree
    bint differs, full
    # Of the page that is followed
    unsigned long follow_id, follow_address
    event *events
    size_t nr_events


cdef inline size_t slot_of(decider *d, size_t number) noexcept nogil:
    cdef size_t i = (number * <size_t>0x9e3779b97f4a7c15UL >> 20) & (d.room - 1)
    while d.pieces[i].codes != NULL and d.pieces[i].number != number:
        i = (i + 1) & (d.room - 1)
    return i


cdef bint grow(decider *d) noexcept nogil:
    cdef size_t before = d.room, i
    cdef piece *old = d.pieces
    cdef piece *new = <piece *>calloc(before * 2 if before else 64, sizeof(piece))
    if new == NULL:
        return False
    d.room = before * 2 if before else 64
    d.pieces = new
    d.last = NULL
    for i in range(before):
        if old[i].codes != NULL:
            new[slot_of(d, old[i].number)] = old[i]
    free(old)
    return True


cdef unsigned char *code_of(decider *d, void *item, bint make) noexcept nogil:
    """Where the byte of an item is; NULL if it has none, or without memory."""
    cdef size_t number = <size_t>item >> PIECE_SHIFT
    cdef size_t place = (<size_t>item & ((<size_t>1 << PIECE_SHIFT) - 1)) >> ITEM_SHIFT
    cdef piece *found = d.last
    if found == NULL or found.number != number:
        if make and 2 * d.nr >= d.room and not grow(d):
            d.no_memory = True
            return NULL
        if d.room == 0:
            return NULL
        found = &d.pieces[slot_of(d, number)]
        if found.codes == NULL:
            if not make:
                return NULL
            found.codes = <unsigned char *>calloc(1 << (PIECE_SHIFT - ITEM_SHIFT), 1)
            if found.codes == NULL:
                d.no_memory = True
                return NULL
            found.number = number
            d.nr += 1
        d.last = found
    return &found.codes[place]


cdef void forget_item(void *arg, void *item) noexcept nogil:
    """The item is being freed. The next one at its place is another page's."""
    cdef unsigned char *code = code_of(<decider *>arg, item, False)
    if code != NULL:
        code[0] = 0


cdef inline bint is_followed(decider *d, ksm_rmap_item *item) noexcept nogil:
    return d.follow_id and item.address & page_mask() == d.follow_address and item.mm.id == d.follow_id


cdef void note(decider *d, int code, bint by_other, ksm_rmap_item *other) noexcept nogil:
    cdef event *e
    if d.nr_events == MOST_EVENTS:
        return
    e = &d.events[d.nr_events]
    d.nr_events += 1
    memset(e, 0, sizeof(event))
    e.seqnr = d.g.ksm_scan.seqnr
    e.code = code
    e.by_other = by_other
    if other != NULL:
        e.mm_id = other.mm.id
        e.address = other.address & page_mask()


cdef void decided(decider *d, ksm_rmap_item *item, int code, ksm_rmap_item *other) noexcept nogil:
    """A visit has ended. `other` is the item that the page was compared with last, if that is known."""
    cdef unsigned char *byte = code_of(d, item, True)
    if byte != NULL:
        if code == CHANGED and not byte[0] & SEEN:
            code = FIRST_VISIT
        byte[0] = <unsigned char>(code | SEEN)
    if is_followed(d, item):
        note(d, code, False, other)
    d.page = d.refused = NULL
    d.found = NULL
    d.differs = d.full = False


cdef void found_by(decider *d, ksm_rmap_item *item, int code, ksm_rmap_item *other) noexcept nogil:
    """Another page has found this item, which was visited before."""
    cdef unsigned char *byte = code_of(d, item, True)
    if byte != NULL:
        byte[0] = <unsigned char>(code | SEEN)
    if is_followed(d, item):
        note(d, code, True, other)


cdef int why_given_up(decider *d, struct_page *page, ksm_rmap_item *at) noexcept nogil:
    """Why unstable_tree_search_insert() has put nothing in: it asks for these in the same order."""
    cdef struct_page *tree_page = page_of(d.g.m, at)
    if tree_page == NULL or not PageAnon(tree_page):
        return MET_GONE
    return SAME_FRAME if tree_page == page else OTHER_NODE


cdef void searched(decider *d, ksm_rmap_item *item, struct_page *page, ksm_rmap_item *found) noexcept nogil:
    """The search of the unstable tree has ended."""
    cdef ksm_rmap_item *at
    d.page = page
    d.found = found
    if found != NULL:
        return
    if item.address & UNSTABLE_FLAG:
        decided(d, item, HELD if d.refused == page else EQUAL_FULL if d.full else NO_EQUAL, NULL)
    else:
        at = rmap_item_of(d.g.search_at[0])
        decided(d, item, why_given_up(d, page, at), at)


cdef void two_merged(decider *d, ksm_rmap_item *item, ksm_rmap_item *tree_item, long err) noexcept nogil:
    cdef struct_page *refused = d.refused
    cdef bint own = refused == d.page
    if not err:
        found_by(d, tree_item, MERGED, item)
        decided(d, item, MERGED, tree_item)
    elif refused == NULL:
        decided(d, item, DIFFERS if d.differs else FAILED, tree_item)
    else:
        found_by(d, tree_item, NO_EQUAL if own else HELD, item)
        decided(d, item, HELD if own else EQUAL_HELD, tree_item)


cdef void decide(struct_machine *m, int which, void *item, void *page, void *node, long value) noexcept nogil:
    # Other threads take steps, too: those have no case here. All others are taken with ksm_thread_mutex held.
    cdef decider *d = <decider *>m.decider
    cdef ksm_rmap_item *current
    if which == STEP_CHANGED:
        decided(d, <ksm_rmap_item *>item, CHANGED, NULL)
    elif which == STEP_AT_ITS_NODE:
        decided(d, <ksm_rmap_item *>item, MERGED, NULL)
    elif which == STEP_SKIPPED:
        decided(d, <ksm_rmap_item *>item, SKIPPED, NULL)
    elif which == STEP_ZERO_MERGED:
        decided(d, <ksm_rmap_item *>item, TO_ZERO_PAGE, NULL)
    elif which == STEP_UNCHANGED or which == STEP_FORKED:
        d.page = <struct_page *>page
        d.current = <ksm_rmap_item *>item
    elif which == STEP_NOT_PROTECTED:
        d.refused = <struct_page *>page
    elif which == STEP_DIFFERS:
        d.differs = True
    elif which == STEP_STABLE_FULL:
        d.full = True
    elif which == STABLE_SEARCHED:
        d.page = <struct_page *>page
        d.current = <ksm_rmap_item *>item
        if PTR_ERR(node) == -EBUSY:
            decided(d, <ksm_rmap_item *>item, BUSY, NULL)
    elif which == STEP_MERGED:
        decided(d, <ksm_rmap_item *>item, MERGED if not value else HELD if d.refused != NULL else DIFFERS if d.differs else FAILED, NULL)
    elif which == UNSTABLE_SEARCHED:
        d.current = <ksm_rmap_item *>item
        searched(d, <ksm_rmap_item *>item, <struct_page *>page, <ksm_rmap_item *>node)
    elif which == STEP_TWO_MERGED and d.current != NULL:
        current = d.current
        two_merged(d, current, <ksm_rmap_item *>item, value)
    elif which == STEP_BREAK_COW and d.found == NULL and d.current != NULL:
        # Two pages were merged, and there was no memory for a stable node.
        found_by(d, <ksm_rmap_item *>item, FAILED, NULL)


cdef void free_decider(struct_machine *m) noexcept nogil:
    """Free what a machine keeps of decisions. No step can be under way."""
    cdef decider *d = <decider *>m.decider
    cdef size_t i
    for i in range(d.room):
        free(d.pieces[i].codes)
    free(d.pieces)
    free(d.events)
    free(d)
    m.decider = NULL


class Visit(NamedTuple):
    """A visit of the page that was followed: the number of the pass, from 0 on; the decision; and another page, as (mm_id, address).

    The other page is the one that it was found equal to, or at which the search has ended, or None. `by_other`: the other page was visited,
    and found this one.
    """

    number: int
    decision: int
    by_other: bool
    other: tuple[int, int] | None


@cython.no_gc_clear
cdef class Decisions:
    """Decisions(machine)
--

    Write down what KSM decides of each page of a machine, from now on, until stop(). OSError with EBUSY if the machine is recorded already.

    It is a byte for each rmap_item, and changes nothing of what KSM does.
    """

    cdef readonly Machine machine
    cdef decider *d             # only while the machine has it
    # Where of() has ended
    cdef ksm_rmap_item *item
    cdef unsigned long at_id, at_end, at_freed, at_objects

    def __cinit__(self, Machine machine not None):
        cdef decider *d
        cdef bint busy = False
        self.machine = machine
        with nogil:
            machine.enter()
            d = <decider *>calloc(1, sizeof(decider))
            if d != NULL:
                d.events = <event *>calloc(MOST_EVENTS, sizeof(event))
                if d.events == NULL:
                    free(d)
                    d = NULL
            if d != NULL:
                d.g = machine.g
                mutex_lock(&machine.g.ksm_thread_mutex)
                busy = machine.m.step != NULL or machine.m.decider != NULL or machine.g.rmap_item_cache.freed != NULL
                if not busy:
                    machine.m.decider = d
                    machine.m.decider_exit = free_decider
                    machine.g.rmap_item_cache.freed_arg = d
                    machine.g.rmap_item_cache.freed = forget_item
                    WRITE_ONCE_step(machine.m.step, decide)
                mutex_unlock(&machine.g.ksm_thread_mutex)
                if busy:
                    free(d.events)
                    free(d)
            machine.leave()
        if d == NULL:
            raise MemoryError
        if busy:
            raise oserror(EBUSY, "the machine is being recorded already")
        self.d = d

    def __reduce__(self):
        raise TypeError("decisions cannot be copied or pickled")

    def follow(self, unsigned long mm_id, unsigned long address):
        """Keep each visit of one page: of the process with this mm_id, at this address."""
        with nogil:
            self.machine.enter()
            mutex_lock(&self.machine.g.ksm_thread_mutex)
            if self.keeps():
                self.d.follow_id = mm_id
                self.d.follow_address = address & page_mask()
                self.d.nr_events = 0
            mutex_unlock(&self.machine.g.ksm_thread_mutex)
            self.machine.leave()

    def visits(self):
        """The visits of the page that is followed: a list of Visit. The first 1,024 are kept."""
        cdef event[MOST_EVENTS] events
        cdef size_t nr = 0, i
        with nogil:
            self.machine.enter()
            mutex_lock(&self.machine.g.ksm_thread_mutex)
            if self.keeps():
                nr = self.d.nr_events
                for i in range(nr):
                    events[i] = self.d.events[i]
            mutex_unlock(&self.machine.g.ksm_thread_mutex)
            self.machine.leave()
        return [
            Visit(events[i].seqnr, events[i].code, bool(events[i].by_other),
                  (events[i].mm_id, events[i].address) if events[i].mm_id else None)
            for i in range(nr)
        ]

    def of(self, unsigned long mm_id, unsigned long start, Py_ssize_t nr_pages):
        """The decision on each of these pages, a byte for each; 0 where KSM has no item of it, and after stop(). MemoryError if there was
        no memory to write it down.

        Quick where the next call goes on at the end of this one, and no scan comes between them.
        """
        cdef bytearray result = bytearray(nr_pages)
        cdef unsigned char[::1] codes = result
        cdef unsigned char *code
        cdef unsigned long end = start + (<unsigned long>nr_pages << PAGE_SHIFT), addr
        cdef ksm_rmap_item *item
        cdef bint no_memory = False
        self.machine.hold()
        with nogil:
            if self.keeps():
                no_memory = self.d.no_memory
                item = self.first_item(mm_id, start)
                while item != NULL:
                    addr = item.address & page_mask()
                    if addr >= end:
                        break
                    if addr >= start:
                        code = code_of(self.d, item, False)
                        if code != NULL:
                            codes[<Py_ssize_t>((addr - start) >> PAGE_SHIFT)] = code[0] & ~SEEN
                    item = item.rmap_list
                self.item = item
                self.at_id, self.at_end = mm_id, end
                self.at_freed = self.machine.g.rmap_item_cache.nr_freed
                self.at_objects = <unsigned long>self.machine.g.rmap_item_cache.nr_objects
            self.machine.release()
        if no_memory:
            raise MemoryError
        return bytes(result)

    cdef bint keeps(self) noexcept nogil:
        """Whether stop() was not called. The caller has entered the machine, and holds ksm_thread_mutex, or the machine."""
        return self.d != NULL and self.machine.m.decider == self.d

    cdef ksm_rmap_item *first_item(self, unsigned long mm_id, unsigned long start) noexcept nogil:
        """An item of the process from which the one at `start` can be reached. The machine is held."""
        cdef ksm_globals *g = self.machine.g
        cdef list_head *pos
        cdef ksm_mm_slot *slot
        if (mm_id == self.at_id and self.at_end <= start and self.at_freed == g.rmap_item_cache.nr_freed
                and self.at_objects == <unsigned long>g.rmap_item_cache.nr_objects):
            return self.item
        pos = g.ksm_mm_head.slot.mm_node.next
        while pos != &g.ksm_mm_head.slot.mm_node:
            slot = mm_slot_of(pos)
            if slot.slot.mm.id == mm_id:
                return slot.rmap_list
            pos = pos.next
        return NULL

    def stop(self):
        """Write down no more, and forget what was written. Stopping twice is no error."""
        with nogil:
            self.machine.enter()
            mutex_lock(&self.machine.g.ksm_thread_mutex)
            if self.keeps():
                WRITE_ONCE_step(self.machine.m.step, NULL)
                self.machine.g.rmap_item_cache.freed = NULL
                free_decider(self.machine.m)
            mutex_unlock(&self.machine.g.ksm_thread_mutex)
            self.machine.leave()
        self.d = NULL

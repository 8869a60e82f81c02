# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recording what KSM does.
"""machine.record(): each step of a scan, and what it changed.

ksm.pyx calls ksm_step() where it takes a step (ksm/step.pxd). The recorder then looks at everything that the locks held there allow, and
writes down what has changed: counters, roots and links of the trees, stable nodes, rmap_items, page table entries, frames. A player
applies these changes in their order to have the state after every step. To go back, it restores what they replaced.

A recording is a sequence of numbers, with one record for each step:

    step, rmap_item, frame, node, value, offset, length     -1 is none; `offset`: the first byte that differs, where pages are compared
    then `length` numbers: kind + 1, object, values...      has these values now;   -(kind + 1), object    is no more

An object's number is its own for the whole recording. The kinds and their values are in enum what of look.pxd.
"""

from array import array

cimport cython
from libc.errno cimport EBUSY
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from linux.atomic cimport READ_ONCE_int, READ_ONCE_ulong
from linux.err cimport PTR_ERR
from linux.highmem cimport frame_size
from linux.mm_types cimport PAGE_SHIFT, machine, mm_struct, struct_page
from linux.page_flags cimport folio_raw_mapping, folio_test_ksm, page_address, page_folio
from linux.rbtree cimport rb_node
from linux.spinlock cimport (mutex_is_mine, mutex_lock, mutex_trylock, mutex_unlock, spin_lock, spin_lock_init, spin_unlock)

from ksm.lib.xxhash cimport xxhash
from ksm.machine cimport Machine, oserror
from ksm.mm.ksm cimport (KSM_RUN_OFFLINE, UNSTABLE_FLAG, ksm_globals, ksm_rmap_item, rmap_item_of, stable_node_of,
                         wait_while_offlining)
from ksm.step cimport (COMPARED, NR_STEPS, STABLE_SEARCHED, UNSTABLE_SEARCHED,
                       STEP_AT_ITS_NODE, STEP_BECAME_KSM, STEP_BREAK_COW, STEP_BREAK_KSM, STEP_CHAIN_MADE, STEP_CHANGED, STEP_COW,
                       STEP_DIFFERS, STEP_DUP_ADDED, STEP_APPENDED, STEP_FORKED, STEP_INSERT_COMPARE, STEP_LEFT_STABLE,
                       STEP_LEFT_UNSTABLE, STEP_MERGED, STEP_NEXT, STEP_NODE_MOVED, STEP_NODE_STALE, STEP_NOT_PROTECTED, STEP_NOTE,
                       STEP_PASS_BEGINS, STEP_PASS_ENDS, STEP_REPLACED, STEP_SKIPPED, STEP_STABLE_BUSY, STEP_STABLE_COMPARE,
                       STEP_STABLE_FOUND, STEP_STABLE_FULL, STEP_STABLE_INSERTED, STEP_STABLE_MISS, STEP_TWO_MERGED, STEP_UNCHANGED,
                       STEP_UNSTABLE_COMPARE, STEP_UNSTABLE_FOUND, STEP_UNSTABLE_GAVE_UP, STEP_UNSTABLE_INSERTED,
                       STEP_WRITE_PROTECTED, STEP_ZERO_MERGED, WRITE_ONCE_step)
from ksm.record.look cimport (BYTES, CONTENT, FRAME, ITEM, ITEM_STABLE, LINK, NODE, PTE, ROOT, VALUES, longs,
                              look_at_item, look_at_ksm, look_at_mms, page_of, put, saw)

# How many kinds of steps ksm/step.pxd has
KINDS_OF_STEP = NR_STEPS

# Named like the files of sysfs, except the last two: ksm_rmap_items of mm/ksm.c, and cow_ksm of /proc/vmstat.
COUNTERS = ("full_scans", "pages_scanned", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "pages_skipped",
            "ksm_zero_pages", "stable_node_chains", "stable_node_dups", "rmap_items", "cow_ksm")

cdef enum:
    # How far a step can look
    LOOK_NOT = 0                # at nothing: another lock is held, or ksm_thread_mutex is not
    LOOK_KSM = 1                # at what KSM keeps: the thread holds ksm_thread_mutex
    LOOK_ALL = 2                # at the page tables, too: the thread holds no other lock
    LOOK_TRY = 3                # as LOOK_ALL, if no other thread is in the way; else as LOOK_KSM
    LOOK_FAULT = 4              # as LOOK_TRY, if the thread holds ksm_thread_mutex, or gets it at once; else as LOOK_NOT

widths[:] = [2, 3, 5, 6, 6, 4, 5, 3, 4, 2, 0]

cdef int[NR_STEPS] look
memset(look, 0, sizeof(look))
look[<int>STEP_BREAK_KSM] = look[<int>STEP_COW] = LOOK_FAULT
for _step in (STEP_SKIPPED, STEP_NODE_STALE, STEP_LEFT_STABLE, STEP_LEFT_UNSTABLE, STEP_WRITE_PROTECTED, STEP_NOT_PROTECTED,
              STEP_BECAME_KSM, STEP_REPLACED, STEP_DIFFERS, STEP_APPENDED, STEP_INSERT_COMPARE, STEP_STABLE_INSERTED, STEP_DUP_ADDED,
              STEP_CHAIN_MADE):
    look[<int>_step] = LOOK_TRY
for _step in (STEP_NOTE, STEP_PASS_BEGINS, STEP_NEXT, STEP_PASS_ENDS, STEP_AT_ITS_NODE, STEP_FORKED, STEP_NODE_MOVED, STEP_CHANGED,
              STEP_UNCHANGED, STEP_ZERO_MERGED, STEP_STABLE_COMPARE, STEP_STABLE_FOUND, STEP_STABLE_MISS, STEP_STABLE_FULL,
              STEP_STABLE_BUSY, STEP_UNSTABLE_COMPARE, STEP_UNSTABLE_FOUND, STEP_UNSTABLE_GAVE_UP, STEP_UNSTABLE_INSERTED, STEP_MERGED,
              STEP_TWO_MERGED, STEP_BREAK_COW):
    look[<int>_step] = LOOK_ALL


# Objects by what they are

cdef size_t slot_of(recorder *r, int kind, unsigned long key) noexcept nogil:
    """Where the index has the object, or where it would enter it."""
    cdef size_t i = ((key ^ (<unsigned long>kind << 57)) * 0x9e3779b97f4a7c15UL >> 17) & (r.index_size - 1)
    cdef entry *e
    while r.index[i]:
        e = &r.entries[r.index[i] - 1]
        if e.key == key and e.kind == kind:
            break
        i = (i + 1) & (r.index_size - 1)
    return i


cdef bint grow(recorder *r) noexcept nogil:
    cdef size_t room = r.room * 2 if r.room else 1024, i
    cdef entry *entries = <entry *>realloc(r.entries, room * sizeof(entry))
    cdef unsigned int *index
    if entries == NULL:
        return False
    r.entries = entries
    index = <unsigned int *>calloc(room * 4, sizeof(unsigned int))
    if index == NULL:
        return False
    free(r.index)
    r.index = index
    r.index_size = room * 4
    r.room = room
    for i in range(r.nr_entries):
        r.index[slot_of(r, r.entries[i].kind, r.entries[i].key)] = <unsigned int>i + 1
    return True


cdef long number_of(recorder *r, int kind, unsigned long key, bint make) noexcept nogil:
    """The object's number; -1 if it has none, or if there is no memory."""
    cdef size_t i
    cdef entry *e
    if r.nr_entries == r.room and not grow(r):
        r.no_memory = True
        return -1
    i = slot_of(r, kind, key)
    if r.index[i]:
        return r.index[i] - 1
    if not make:
        return -1
    e = &r.entries[r.nr_entries]
    memset(e, 0, sizeof(entry))
    e.key = key
    e.kind = kind
    r.nr_entries += 1
    r.index[i] = <unsigned int>r.nr_entries
    return <long>r.nr_entries - 1


# Writing down what has changed. The recorder is locked.

cdef long contents_of(recorder *r, machine *m, long pfn) noexcept nogil:
    """A number for the bytes that the frame has."""
    cdef const unsigned char *bytes = <const unsigned char *>page_address(m, m.mem_map + pfn)
    cdef long number = number_of(r, CONTENT, xxhash(bytes, frame_size(m), 0), True)
    cdef label *labels
    cdef entry *e
    if number < 0:
        return -1
    e = &r.entries[number]
    if not e.live:
        if r.nr_labels == r.labels_room:
            labels = <label *>realloc(r.labels, (r.labels_room * 2 + 64) * sizeof(label))
            if labels == NULL:
                r.no_memory = True
                return -1
            r.labels = labels
            r.labels_room = r.labels_room * 2 + 64
        memset(r.labels[r.nr_labels].bytes, 0, LABEL)
        memcpy(r.labels[r.nr_labels].bytes, bytes, min(<size_t>LABEL, frame_size(m)))
        e.live = True
        e.v[0] = <long>r.nr_labels
        r.nr_labels += 1
    return e.v[0]


cdef long as_number(recorder *r, int kind, long address) noexcept nogil:
    return number_of(r, kind, <unsigned long>address, True) if address else -1


cdef void note_change(recorder *r, machine *m, long *seen, long fresh_pfn) noexcept nogil:
    """Write an object that was seen into the record, if it is new or has changed."""
    cdef int kind = <int>seen[0], i, tree
    cdef long *v = seen + 2
    cdef long number
    cdef entry *e
    if kind == LINK or kind == ROOT:
        tree = ITEM if (v[0] if kind == ROOT else v[5]) else NODE
        for i in range(2 if kind == ROOT else 0, 3 if kind == ROOT else 4):
            v[i] = as_number(r, tree, v[i])
    elif kind == NODE:
        v[4] = as_number(r, NODE, v[4])
    elif kind == ITEM and v[2] == ITEM_STABLE:
        v[3] = as_number(r, NODE, v[3])
    number = number_of(r, kind, <unsigned long>seen[1], True)
    if number < 0:
        return
    e = &r.entries[number]
    if kind == FRAME:
        if e.live and e.seen == r.looks:
            return              # this look has seen the frame already, by another mapping
        v[3] = e.v[3]
        if not e.live or r.refresh or v[0] == fresh_pfn:
            v[3] = contents_of(r, m, v[0])
            e = &r.entries[number]
    e.seen = r.looks
    for i in range(widths[kind]):
        if not e.live or e.v[i] != v[i]:
            break
    else:
        return
    e.live = True
    put(&r.out, kind + 1)
    put(&r.out, number)
    for i in range(widths[kind]):
        e.v[i] = v[i]
        put(&r.out, v[i])


cdef void note_gone(recorder *r, int looked) noexcept nogil:
    """Write into the record which objects were there at the last look and were not seen at this one."""
    cdef entry *e
    cdef size_t i
    for i in range(r.nr_entries):
        e = &r.entries[i]
        if e.live and e.seen != r.looks and e.kind != CONTENT and (looked == LOOK_ALL or e.kind != PTE and e.kind != FRAME):
            e.live = False
            put(&r.out, -(e.kind + 1))
            put(&r.out, <long>i)


cdef long difference(machine *m, long a, long b) noexcept nogil:
    """The first byte in which two frames differ; -1 if none does."""
    cdef const unsigned char *p = <const unsigned char *>page_address(m, m.mem_map + a)
    cdef const unsigned char *q = <const unsigned char *>page_address(m, m.mem_map + b)
    cdef long i
    for i in range(<int>frame_size(m)):
        if p[i] != q[i]:
            return i
    return -1


cdef long byte_of(machine *m, long pfn, long offset) noexcept nogil:
    return (<const unsigned char *>page_address(m, m.mem_map + pfn))[offset]


# Steps that ksm.pyx reports in part: the recorder finds out the rest

cdef int compared(recorder *r, ksm_globals *g, void **item, void **page, void **node, long *value) noexcept nogil:
    """Find out which search compares. A search of the stable tree right after two pages became one is stable_tree_insert()'s."""
    r.compared_at = g.search_at[0]
    r.compared_page = <struct_page *>page[0]
    r.equal = value[0] == 0
    if folio_test_ksm(r.compared_page) and folio_raw_mapping(r.compared_page) != NULL:
        node[0] = stable_node_of(r.compared_at)
        return STEP_INSERT_COMPARE if r.last == STEP_TWO_MERGED or r.last == STEP_INSERT_COMPARE else STEP_STABLE_COMPARE
    item[0] = rmap_item_of(r.compared_at)
    return STEP_UNSTABLE_COMPARE


cdef int stable_searched(void **item, void **page, void **node) noexcept nogil:
    """On entry, `page` was searched for, and `node` is the page found or an error. On return, `page` was found, and `node` is its node."""
    cdef struct_page *found = <struct_page *>node[0]
    node[0] = NULL
    if found == NULL:
        return STEP_STABLE_MISS
    if PTR_ERR(found) == -EBUSY:
        return STEP_STABLE_BUSY
    page[0] = found
    node[0] = folio_raw_mapping(page_folio(found))
    return STEP_STABLE_FOUND


cdef int unstable_searched(recorder *r, ksm_globals *g, void **item, void **page, void **node, long *value) noexcept nogil:
    """On entry, `item` and `page` were searched for. On return, they are those at which the search has ended."""
    cdef ksm_rmap_item *found = <ksm_rmap_item *>node[0]
    cdef rb_node *at
    node[0] = NULL
    if found != NULL:
        item[0] = found
        page[0] = r.compared_page
        return STEP_UNSTABLE_FOUND
    if (<ksm_rmap_item *>item[0]).address & UNSTABLE_FLAG:
        return STEP_UNSTABLE_INSERTED
    at = g.search_at[0]
    item[0] = rmap_item_of(at)
    if at == r.compared_at and r.equal:
        page[0] = r.compared_page       # the page is on another NUMA node
        value[0] = 1
    elif page_of(g.m, rmap_item_of(at)) != page[0]:
        page[0] = NULL
    return STEP_UNSTABLE_GAVE_UP


cdef void record_step(machine *m, int which, void *item, void *page, void *node, long value) noexcept nogil:
    write_step(<recorder *>m.recorder, m, which, item, page, node, value)


cdef void write_step(recorder *r, machine *m, int which, void *item, void *page, void *node, long value) noexcept nogil:
    cdef ksm_globals *g = <ksm_globals *>m.ksm
    cdef long pfn, item_number = -1, node_number = -1, offset = -1
    cdef int looked
    cdef size_t i, header, start, of_ksm
    cdef int _i
    cdef mm_struct *held = NULL
    cdef bint locked = False
    if not READ_ONCE_int(r.active):
        return
    if which == COMPARED:
        which = compared(r, g, &item, &page, &node, &value)
    elif which == STABLE_SEARCHED:
        which = stable_searched(&item, &page, &node)
    elif which == UNSTABLE_SEARCHED:
        which = unstable_searched(r, g, &item, &page, &node, &value)
    looked = look[which]
    if which == STEP_PASS_BEGINS or which == STEP_PASS_ENDS:
        r.in_pass = which == STEP_PASS_BEGINS
    pfn = -1 if page == NULL else <long>(<struct_page *>page - m.mem_map)
    if looked == LOOK_FAULT:
        held = <mm_struct *>item
        looked = LOOK_TRY
        if not mutex_is_mine(&g.ksm_thread_mutex):
            locked = mutex_trylock(&g.ksm_thread_mutex)
            if not locked or READ_ONCE_ulong(g.ksm_run) & KSM_RUN_OFFLINE:
                looked = LOOK_NOT
    if looked:
        # What happens on the way of a search does not end it: see compared().
        if which not in (STEP_NODE_STALE, STEP_LEFT_STABLE, STEP_LEFT_UNSTABLE, STEP_BREAK_KSM, STEP_COW):
            r.last = which
        r.seen.n = 0
        look_at_ksm(&r.seen, g, which, r.in_pass)
        if which in (STEP_LEFT_STABLE, STEP_LEFT_UNSTABLE):
            look_at_item(&r.seen, g, <ksm_rmap_item *>item, which)      # it may have left its process's list already, and be freed next
        of_ksm = r.seen.n
        if look_at_mms(&r.seen, m, looked == LOOK_ALL, held):
            looked = LOOK_ALL
        else:
            looked = LOOK_KSM
            r.seen.n = of_ksm
        if which == STEP_NEXT:
            r.pfn = pfn
        elif which == STEP_PASS_BEGINS or which == STEP_NOTE:
            r.refresh = True
            r.pfn = -1
        if (which == STEP_STABLE_COMPARE or which == STEP_UNSTABLE_COMPARE or which == STEP_INSERT_COMPARE) and r.pfn >= 0:
            offset = difference(m, r.pfn, pfn)
            if offset >= 0:
                saw(&r.seen, BYTES, 0, byte_of(m, r.pfn, offset), byte_of(m, pfn, offset), 0, 0, 0, 0)

    spin_lock(&r.lock)
    if r.active and r.steps >= r.most_steps:
        r.truncated = True
        r.active = False
    if r.active:
        header = r.out.n
        for _i in range(7):
            put(&r.out, 0)
        start = r.out.n
        if looked:
            r.looks += 1
            i = 0
            while i < r.seen.n:
                note_change(r, m, &r.seen.a[i], pfn)
                i += VALUES + 2
            note_gone(r, looked)
            r.refresh = False
        if which == STEP_BREAK_KSM or which == STEP_COW:
            node_number = <long>(<mm_struct *>item).id
            value = <long>(<unsigned long>value >> PAGE_SHIFT)
        else:
            item_number = number_of(r, ITEM, <unsigned long>item, False) if item != NULL else -1
            node_number = number_of(r, NODE, <unsigned long>node, False) if node != NULL else -1
        if r.no_memory or r.out.no_memory or r.seen.no_memory:
            r.no_memory = True
            r.out.n = header
            r.active = False
        else:
            r.out.a[header], r.out.a[header + 1], r.out.a[header + 2], r.out.a[header + 3] = which, item_number, pfn, node_number
            r.out.a[header + 4], r.out.a[header + 5], r.out.a[header + 6] = value, offset, <long>(r.out.n - start)
            r.steps += 1
    spin_unlock(&r.lock)
    if locked:
        mutex_unlock(&g.ksm_thread_mutex)


cdef void empty(recorder *r) noexcept nogil:
    """Free what the recorder has, except itself."""
    free(r.out.a)
    free(r.seen.a)
    free(r.entries)
    free(r.index)
    free(r.labels)
    forget(r)


cdef void forget(recorder *r) noexcept nogil:
    """Set the recorder's pointers to NULL and their counts to 0, without freeing anything."""
    memset(&r.out, 0, sizeof(longs))
    memset(&r.seen, 0, sizeof(longs))
    r.entries = NULL
    r.index = NULL
    r.labels = NULL
    r.nr_entries = r.room = r.index_size = r.nr_labels = r.labels_room = 0


cdef void free_recorders(machine *m) noexcept nogil:
    """Free all recorders of a machine that is being freed. No thread is inside it."""
    cdef recorder *r = <recorder *>m.recorder
    cdef recorder *older
    while r != NULL:
        older = r.older
        empty(r)
        free(r)
        r = older
    m.recorder = NULL


cdef list labels_of(const label *labels, size_t n):
    """The first bytes of each content."""
    cdef size_t i
    return [<bytes>(<const char *>labels[i].bytes)[:LABEL] for i in range(n)]


@cython.no_gc_clear
cdef class Recorder:
    """Recorder(of, most_steps)
--

    A recording under way of `machine`: Machine.record() makes it. After stop(), `words` and `labels` are what was recorded, and
    ksm/record/recording.py makes a Recording of them.
    """

    cdef readonly Machine machine
    cdef recorder *r            # for a thread that has entered the machine
    cdef object found_words
    cdef list found_labels

    def __cinit__(self, Machine of not None, unsigned long most_steps):
        cdef recorder *r = NULL
        cdef bint plain, busy = False
        self.machine = of
        self.found_words, self.found_labels = array("l"), []
        with nogil:
            of.enter()
            plain = of.g.fast == NULL
            if plain:
                r = <recorder *>calloc(1, sizeof(recorder))
            if r != NULL:
                spin_lock_init(&r.lock)
                r.most_steps = most_steps
                r.active = True
                r.pfn = -1
                mutex_lock(&of.g.ksm_thread_mutex)
                busy = of.m.step != NULL
                r.in_pass = of.g.ksm_scan.mm_slot != &of.g.ksm_mm_head
                if not busy:
                    r.older = <recorder *>of.m.recorder
                    of.m.recorder = r
                    of.m.recorder_exit = free_recorders
                    WRITE_ONCE_step(of.m.step, record_step)
                mutex_unlock(&of.g.ksm_thread_mutex)
                if busy:
                    free(r)
            of.leave()
        if not plain:
            raise ValueError("only a plain machine takes every step that can be recorded: Machine(plain=True)")
        if busy:
            raise oserror(EBUSY, "the machine is being recorded already")
        if r == NULL:
            raise MemoryError
        self.r = r

    @property
    def words(self):
        """The numbers of all records, as array('l'); empty before stop()."""
        return kept(self)[0]

    @property
    def labels(self):
        """The first bytes of each content that a frame had, by its number; empty before stop()."""
        return kept(self)[1]

    def __reduce__(self):
        raise TypeError("a recording under way cannot be copied or pickled")

    def look(self):
        """Record a STEP_NOTE: what calls have changed since the last step. False once the recording has ended."""
        cdef bint active
        with nogil:
            self.machine.enter()
            mutex_lock(&self.machine.g.ksm_thread_mutex)
            wait_while_offlining(self.machine.g)
            # If the machine has another recorder by now, the step would go there.
            active = self.r.active and self.machine.m.recorder == self.r
            if active:
                record_step(self.machine.m, STEP_NOTE, NULL, NULL, NULL, 0)
                active = self.r.active
            mutex_unlock(&self.machine.g.ksm_thread_mutex)
            self.machine.leave()
        return active

    def take(self):
        """Take what was recorded since the last call of this: (words, all labels), and count the steps from 0 again."""
        cdef longs taken
        cdef label *labels = NULL       # a copy: another thread may record meanwhile
        cdef size_t nr_labels = 0
        memset(&taken, 0, sizeof(longs))
        with nogil:
            self.machine.enter()
            mutex_lock(&self.machine.g.ksm_thread_mutex)
            spin_lock(&self.r.lock)
            if not self.r.no_memory:
                memcpy(&taken, &self.r.out, sizeof(longs))
                memset(&self.r.out, 0, sizeof(longs))
                labels = <label *>calloc(self.r.nr_labels + 1, sizeof(label))
                if labels != NULL:
                    nr_labels = self.r.nr_labels
                    memcpy(labels, self.r.labels, nr_labels * sizeof(label))
            if self.r.active:
                self.r.steps = 0
            spin_unlock(&self.r.lock)
            mutex_unlock(&self.machine.g.ksm_thread_mutex)
            self.machine.leave()
        try:
            if labels == NULL:
                raise MemoryError
            words = array("l")
            words.frombytes(<bytes>(<char *>taken.a)[:taken.n * sizeof(long)])
            return words, labels_of(labels, nr_labels)
        finally:
            free(taken.a)
            free(labels)

    def stop(self):
        """End the recording and move its data into `words` and `labels`: (steps, truncated). Stopping twice is no error."""
        cdef recorder taken
        with nogil:
            self.machine.enter()
            mutex_lock(&self.machine.g.ksm_thread_mutex)
            if self.machine.m.recorder == self.r:
                WRITE_ONCE_step(self.machine.m.step, NULL)
            spin_lock(&self.r.lock)
            self.r.active = False
            memcpy(&taken, self.r, sizeof(recorder))
            forget(self.r)
            spin_unlock(&self.r.lock)
            mutex_unlock(&self.machine.g.ksm_thread_mutex)
            self.machine.leave()
        try:
            if taken.no_memory:
                raise MemoryError
            if taken.out.n:
                words = array("l")
                words.frombytes(<bytes>(<char *>taken.out.a)[:taken.out.n * sizeof(long)])
                keep(self, words, labels_of(taken.labels, taken.nr_labels))
            return taken.steps, bool(taken.truncated)
        finally:
            empty(&taken)


# Without the GIL a thread could take what another replaces just then.

@cython.critical_section
cdef tuple kept(Recorder recorder):
    return recorder.found_words, recorder.found_labels


@cython.critical_section
cdef int keep(Recorder recorder, object words, list labels) except -1:
    recorder.found_words, recorder.found_labels = words, labels
    return 0

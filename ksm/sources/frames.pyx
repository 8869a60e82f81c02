# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what kernel/fork.c has left behind, as pagemap shows it.
"""Frames that processes have in common since a fork, told by their numbers.

Two processes share a page when the same frame is at the same address of both. A frame that the kernel's KSM has merged does not count, nor
does the zero page: a fork has not made these one. All comparing goes address by address through the sorted tables of all processes.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free, realloc

cimport cython

from linux.mm_types cimport HPAGE_PMD_NR, PAGE_SHIFT, PAGE_SIZE, PMD_SIZE

from ksm.fs.proc.task_mmu cimport PAGE_KSM, PAGE_ZERO
from ksm.sources.pagemap cimport (KPF_KSM, KPF_ZERO_PAGE, NR_ENTRIES, PM_FILE, PM_MMAP_EXCLUSIVE, PM_PFRAME, PM_PRESENT, append, page_flags,
                                  read_counted, read_entries)

cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int fd, void *buf, size_t count, long offset)


cdef enum:
    # What a process has to do with a page
    HELD = 1                    # the machine's processes share it, as the real ones do
    FORCED = 2                  # the real process has a frame of its own, the machine's one has another's: it has to be written
    FIRST = 4                   # of the processes that hold the frame, the one for which it counts
    MERGED = 8                  # the page of this process has been merged in the machine, or has become the zero page

cdef uint64_t NOWHERE = ~<uint64_t>0
cdef uint64_t BLOCK_MASK = ~(<uint64_t>PMD_SIZE - 1)

cdef struct frame_table:
    uint64_t *addrs             # ascending
    uint64_t *pfns
    unsigned char *states
    size_t nr
    size_t room

# Pages to be written into a process before it forks: what one process has there now
cdef struct order:
    int fork                    # number of the child
    int reader
    uint64_t start
    uint64_t end

cdef struct order_list:
    order *orders
    size_t nr
    size_t room


@cython.no_gc_clear
cdef class Frames:
    """Frames()
--

    A table of pages of a process: their addresses, frames, and what the process has to do with them.
    """

    cdef frame_table t

    def __dealloc__(self):
        free(self.t.addrs)
        free(self.t.pfns)
        free(self.t.states)

    def __reduce__(self):
        raise TypeError("a table of frames cannot be copied or pickled")

    def __len__(self):
        return self.t.nr

    @property
    def held(self):
        """Pages that the process shares."""
        return self.count(HELD, HELD)

    @property
    def repeated(self):
        """Pages that the process shares, without those whose frame counts for it."""
        return self.count(HELD | FIRST, HELD)

    cdef size_t count(self, int mask, int state):
        cdef size_t i, nr = 0
        for i in range(self.t.nr):
            nr += self.t.states[i] & mask == state
        return nr

    def release(self, list runs):
        """The pages in these runs are not shared any more: each process is to write its own."""
        cdef size_t i
        cdef uint64_t end
        for start, end in runs:
            i = place_from(&self.t, start)
            while i < self.t.nr and self.t.addrs[i] < end:
                self.t.states[i] = FORCED
                i += 1

    def changed(self, int pagemap, list runs):
        """The parts of the runs where the process has other frames than in the table. OSError."""
        cdef uint64_t entries[NR_ENTRIES]
        cdef uint64_t addr, end
        cdef ssize_t n, i
        cdef size_t place
        cdef list result = []
        for start, end in runs:
            addr = start
            place = place_from(&self.t, addr)
            while addr < end:
                n = read_entries(pagemap, entries, addr, (end - addr) >> PAGE_SHIFT)
                if n == 0:
                    append(result, addr, end)
                    break
                for i in range(n):
                    while place < self.t.nr and self.t.addrs[place] < addr:
                        place += 1
                    if (place == self.t.nr or self.t.addrs[place] != addr or not entries[i] & PM_PRESENT
                            or entries[i] & PM_PFRAME != self.t.pfns[place]):
                        append(result, addr, addr + PAGE_SIZE)
                    addr += PAGE_SIZE
        return result

    def mark(self, start, const unsigned long[::1] words):
        """Note what the machine's page table has for the shared pages from `start` on: whether they are merged. See first_of_each()."""
        cdef uint64_t addr = start
        cdef uint64_t end = addr + (<uint64_t>words.shape[0] << PAGE_SHIFT)
        cdef size_t i = place_from(&self.t, addr)
        cdef unsigned long word
        while i < self.t.nr and self.t.addrs[i] < end:
            word = words[<Py_ssize_t>((self.t.addrs[i] - addr) >> PAGE_SHIFT)]
            self.t.states[i] &= ~MERGED
            if word == 0:
                self.t.states[i] = 0
            elif word & (PAGE_KSM | PAGE_ZERO):
                self.t.states[i] |= MERGED
            i += 1

    def repeat(self, start, unsigned long[::1] words):
        """Mark in a page table the shared pages whose frame counts for another process (PAGE_REPEATED): how many."""
        cdef uint64_t addr = start
        cdef uint64_t end = addr + (<uint64_t>words.shape[0] << PAGE_SHIFT)
        cdef size_t i = place_from(&self.t, addr)
        cdef Py_ssize_t repeated = 0, at
        while i < self.t.nr and self.t.addrs[i] < end:
            if self.t.states[i] & (HELD | FIRST) == HELD:
                at = <Py_ssize_t>((self.t.addrs[i] - addr) >> PAGE_SHIFT)
                if words[at]:
                    words[at] |= PAGE_REPEATED
                    repeated += 1
            i += 1
        return repeated


cdef int add(frame_table *t, uint64_t addr, uint64_t pfn, int state) except -1 nogil:
    cdef size_t room
    cdef void *more
    if t.nr == t.room:
        room = t.room * 2 if t.room else 1024
        more = realloc(t.addrs, room * sizeof(uint64_t))
        if more == NULL:
            raise MemoryError
        t.addrs = <uint64_t *>more
        more = realloc(t.pfns, room * sizeof(uint64_t))
        if more == NULL:
            raise MemoryError
        t.pfns = <uint64_t *>more
        more = realloc(t.states, room)
        if more == NULL:
            raise MemoryError
        t.states = <unsigned char *>more
        t.room = room
    t.addrs[t.nr] = addr
    t.pfns[t.nr] = pfn
    t.states[t.nr] = <unsigned char>state
    t.nr += 1
    return 0


cdef void shrink(frame_table *t) noexcept nogil:
    """Give back the room that a table does not need any more."""
    cdef size_t room = t.nr if t.nr else 1
    cdef void *less
    if room < t.room:
        less = realloc(t.addrs, room * sizeof(uint64_t))
        if less != NULL:
            t.addrs = <uint64_t *>less
        less = realloc(t.pfns, room * sizeof(uint64_t))
        if less != NULL:
            t.pfns = <uint64_t *>less
        less = realloc(t.states, room)
        if less != NULL:
            t.states = <unsigned char *>less
        t.room = room


cdef size_t place_from(frame_table *t, uint64_t addr) noexcept nogil:
    """The index of the first page at addr or behind it."""
    cdef size_t low = 0, high = t.nr, mid
    while low < high:
        mid = (low + high) // 2
        if t.addrs[mid] < addr:
            low = mid + 1
        else:
            high = mid
    return low


def read_frames(int pagemap, list runs, Frames old=None, *, int kpagecount=-1):
    """The anonymous pages of the runs that other processes map, too; of those that `old` has as shared, also the others. OSError."""
    cdef uint64_t entries[NR_ENTRIES]
    cdef uint64_t entry, addr, end
    cdef ssize_t n, i
    cdef size_t place
    cdef bint before
    cdef Frames frames = Frames()
    for start, end in runs:
        addr = start
        place = place_from(&old.t, addr) if old is not None else 0
        while addr < end:
            n = read_counted(pagemap, kpagecount, entries, addr, (end - addr) >> PAGE_SHIFT)
            if n == 0:
                break
            for i in range(n):
                entry = entries[i]
                if entry & PM_PRESENT and not entry & PM_FILE and entry & PM_PFRAME:
                    before = False
                    if entry & PM_MMAP_EXCLUSIVE and old is not None:
                        while place < old.t.nr and old.t.addrs[place] < addr:
                            place += 1
                        before = place < old.t.nr and old.t.addrs[place] == addr and old.t.states[place] & HELD
                    if before or not entry & PM_MMAP_EXCLUSIVE:
                        add(&frames.t, addr, entry & PM_PFRAME, 0)
                addr += PAGE_SIZE
        PyErr_CheckSignals()
    shrink(&frames.t)
    return frames


def shared_runs(int pagemap, int kpageflags, list runs, Frames frames not None, *, int kpagecount=-1):
    """The pages of the runs: (alone, common, forced, held, hidden). OSError.

    What is not there, of a file, or the zero page is left out. `alone` and `common` are to be read, and the machine's process to be given
    what differs; others map the pages of `common`, too. `forced` is to be read, and written in any case. `held` is shared in the machine
    already. hidden counts pages whose frame cannot be seen.
    """
    cdef uint64_t entries[NR_ENTRIES]
    cdef uint64_t entry, addr, end
    cdef size_t place
    cdef ssize_t n, i
    cdef int state
    cdef unsigned long hidden = 0
    cdef frame_table *t = &frames.t
    cdef list alone = [], common = [], forced = [], held = []
    for start, end in runs:
        addr = start
        place = place_from(t, addr)
        while addr < end:
            n = read_counted(pagemap, kpagecount, entries, addr, (end - addr) >> PAGE_SHIFT)
            if n == 0:
                break
            for i in range(n):
                entry = entries[i]
                while place < t.nr and t.addrs[place] < addr:
                    place += 1
                state = t.states[place] if place < t.nr and t.addrs[place] == addr else 0
                if not entry & PM_PRESENT or entry & PM_FILE:
                    if state:
                        t.states[place] = FORCED        # the page is gone since the tables were compared
                elif state & HELD and entry & PM_PFRAME == t.pfns[place]:
                    append(held, addr, addr + PAGE_SIZE)
                elif not entry & PM_MMAP_EXCLUSIVE and page_flags(kpageflags, entry & PM_PFRAME) >> KPF_ZERO_PAGE & 1:
                    if state:
                        t.states[place] = FORCED
                elif state:
                    t.states[place] = FORCED            # it was written to since the tables were compared
                    append(forced, addr, addr + PAGE_SIZE)
                elif entry & PM_MMAP_EXCLUSIVE:
                    append(alone, addr, addr + PAGE_SIZE)
                else:
                    hidden += entry & PM_PFRAME == 0
                    append(common, addr, addr + PAGE_SIZE)
                addr += PAGE_SIZE
        PyErr_CheckSignals()
    return alone, common, forced, held, hidden


# All tables at once, address by address

@cython.internal
cdef class Walk:
    """The pages of several tables, in the order of their addresses."""

    cdef list tables
    cdef int nr
    cdef frame_table **t
    cdef size_t *at             # where each table is
    cdef uint64_t addr
    cdef int *here              # the tables that have a page at addr
    cdef int nr_here
    # What the functions below note for each table
    cdef uint64_t *own
    cdef uint64_t *need
    cdef uint64_t *current
    cdef int *count
    cdef int *first

    def __cinit__(self, list tables):
        cdef int i
        self.tables = tables
        self.nr = <int>len(tables)
        self.t = <frame_table **>calloc(self.nr + 1, sizeof(void *))
        self.at = <size_t *>calloc(self.nr + 1, sizeof(size_t))
        self.here = <int *>calloc(self.nr + 1, sizeof(int))
        self.own = <uint64_t *>calloc(self.nr + 1, sizeof(uint64_t))
        self.need = <uint64_t *>calloc(self.nr + 1, sizeof(uint64_t))
        self.current = <uint64_t *>calloc(self.nr + 1, sizeof(uint64_t))
        self.count = <int *>calloc(self.nr + 1, sizeof(int))
        self.first = <int *>calloc(self.nr + 1, sizeof(int))
        if not (self.t and self.at and self.here and self.own and self.need and self.current and self.count and self.first):
            raise MemoryError
        for i in range(self.nr):
            self.t[i] = &(<Frames?>tables[i]).t

    def __dealloc__(self):
        free(self.t)
        free(self.at)
        free(self.here)
        free(self.own)
        free(self.need)
        free(self.current)
        free(self.count)
        free(self.first)

    cdef bint step(self) noexcept nogil:
        """Go to the next address; False behind the last one."""
        cdef int i
        cdef uint64_t addr
        for i in range(self.nr_here):
            self.at[self.here[i]] += 1
        self.addr = NOWHERE
        self.nr_here = 0
        for i in range(self.nr):
            if self.at[i] < self.t[i].nr:
                addr = self.t[i].addrs[self.at[i]]
                if addr < self.addr:
                    self.addr = addr
                    self.nr_here = 0
                if addr == self.addr:
                    self.here[self.nr_here] = i
                    self.nr_here += 1
        return self.addr != NOWHERE

    cdef inline uint64_t pfn(self, int table) noexcept nogil:
        return self.t[table].pfns[self.at[table]]


cdef int find(int *parents, int i) noexcept nogil:
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i


def related(list tables not None, int kpageflags):
    """Which processes share frames, directly or by others: for each table the number of one of them. Frames that are the zero page's or
    KSM's become 0 in the tables.
    """
    cdef Walk walk = Walk(tables)
    cdef int *groups = walk.first
    cdef int i, a
    for i in range(walk.nr):
        groups[i] = i
    with nogil:
        while walk.step():
            for i in range(walk.nr_here):
                a = walk.here[i]
                if walk.pfn(a):
                    relate(walk, a, i + 1, kpageflags, groups)
    return [find(groups, i) for i in range(walk.nr)]


cdef void relate(Walk walk, int a, int later, int kpageflags, int *groups) noexcept nogil:
    """Join the groups of the tables that have the same frame here as table a, and stand behind it."""
    cdef uint64_t pfn = walk.pfn(a)
    cdef bint asked = False, by_fork = True
    cdef int i, b
    for i in range(later, walk.nr_here):
        b = walk.here[i]
        if walk.pfn(b) != pfn:
            continue
        if not asked:
            by_fork = not page_flags(kpageflags, pfn) & (<uint64_t>1 << KPF_KSM | <uint64_t>1 << KPF_ZERO_PAGE)
            asked = True
        if by_fork:
            groups[find(groups, b)] = find(groups, a)
        else:
            walk.t[b].pfns[walk.at[b]] = 0
    if not by_fork:
        walk.t[a].pfns[walk.at[a]] = 0


def plan(list tables not None, list parents not None):
    """How the processes of a family are forked of each other, so that they share what the real ones share: (tables, orders, lost).

    Table 0 is the first process, every other one the child of tables[parents[i]], forked in this order. orders[i] says what the parent has
    to write before it forks child i: {reader: runs}, what process `reader` has there now. In the new tables, pages are held or forced.
    `lost` counts pages that cannot be shared: no order of forks and writes leads to what is there.

    A part of a huge page that some of the processes have left is written before the fork to which the huge page goes back, although that
    child has another page in its place. Then it is a part in the machine, too. The tables have such parts: see read_counted().
    """
    cdef Walk walk = Walk(tables)
    cdef Walk result = Walk([Frames() for _ in tables])
    cdef Frames homes = Frames()    # blocks, and in place of frames the first fork before which a page of the block is written
    cdef order_list orders
    cdef int *parent = <int *>calloc(walk.nr, sizeof(int))
    cdef order *last
    cdef int i
    cdef size_t k
    cdef unsigned long lost = 0
    cdef bint left = False          # whether there may be such parts
    orders.orders = NULL
    orders.nr = orders.room = 0
    if parent == NULL:
        raise MemoryError
    try:
        for i in range(1, walk.nr):
            parent[i] = parents[i]
            if not 0 <= parent[i] < i:
                raise ValueError("a parent stands before its children")
        with nogil:
            while walk.step():
                lost += plan_page(walk, parent, &orders, result, NULL, &left)
        if left and orders.nr:
            walk, result = Walk(tables), Walk([Frames() for _ in tables])
            find_homes(&orders, &homes.t)
            lost = orders.nr = 0
            with nogil:
                while walk.step():
                    lost += plan_page(walk, parent, &orders, result, &homes.t, &left)
        with nogil:
            for i in range(result.nr):
                shrink(result.t[i])
        forks = [{} for _ in tables]
        for k in range(orders.nr):
            last = &orders.orders[k]
            (<dict>forks[last.fork]).setdefault(last.reader, []).append((last.start, last.end))
    finally:
        free(parent)
        free(orders.orders)
    return result.tables, forks, lost


cdef inline bint is_part(uint64_t pfn, uint64_t addr) noexcept nogil:
    """Whether the frame may be a part of a huge page: it then is at the place of its page in a block of 2 MiB."""
    return (pfn ^ (addr >> PAGE_SHIFT)) & (HPAGE_PMD_NR - 1) == 0


cdef int find_homes(const order_list *orders, frame_table *homes) except -1 nogil:
    """A table of the blocks of 2 MiB in which these orders are, which ascend by their starts."""
    cdef uint64_t block
    cdef size_t i, place
    for i in range(orders.nr):
        block = orders.orders[i].start & BLOCK_MASK
        while block < orders.orders[i].end:
            place = place_from(homes, block)
            if place == homes.nr:
                add(homes, block, <uint64_t>orders.orders[i].fork, 0)
            elif <uint64_t>orders.orders[i].fork < homes.pfns[place]:
                homes.pfns[place] = <uint64_t>orders.orders[i].fork
            block += PMD_SIZE
    return 0


cdef unsigned long plan_page(Walk walk, const int *parent, order_list *orders, Walk result, frame_table *homes,
                             bint *left) except? 1 nogil:
    """Plan the page at one address: how many processes cannot share it, although the real ones do."""
    cdef int i, k, a, total, most = 0
    cdef size_t home = 0
    cdef uint64_t pfn
    cdef unsigned long lost = 0
    for i in range(walk.nr):
        walk.own[i] = walk.need[i] = walk.current[i] = 0
        walk.first[i] = -1
    for k in range(walk.nr_here):
        walk.own[walk.here[k]] = walk.pfn(walk.here[k])
    # The way of each frame through the tree: it came by the forks that have some of its processes below them, and not all.
    for k in range(walk.nr_here):
        a = walk.here[k]
        pfn = walk.own[a]
        if pfn == 0 or walk.first[a] >= 0:
            continue
        total = 0
        for i in range(walk.nr):
            walk.count[i] = walk.own[i] == pfn
            total += walk.count[i]
        for i in range(a, walk.nr):
            if walk.own[i] == pfn:
                walk.first[i] = a
        left[0] = left[0] or (total < walk.nr and is_part(pfn, walk.addr))
        if total == 1:
            continue
        most = total
        for i in range(walk.nr - 1, 0, -1):
            if 0 < walk.count[i] < total and walk.need[i] == 0:
                walk.need[i] = pfn
            walk.count[parent[i]] += walk.count[i]
    if homes != NULL:
        home = place_from(homes, walk.addr & BLOCK_MASK)
        if home < homes.nr and homes.addrs[home] == walk.addr & BLOCK_MASK:
            pfn = part_from(walk, parent, <int>homes.pfns[home])
            if pfn:
                walk.need[homes.pfns[home]] = pfn
                most = max(most, 1)
    if most == 0:
        return 0
    # count becomes: whether the frame whose first process this is has been written already
    for i in range(walk.nr):
        walk.count[i] = 0
    for i in range(1, walk.nr):
        pfn = walk.need[i]
        if pfn and walk.current[parent[i]] != pfn:
            a = 0
            while walk.own[a] != pfn:
                a += 1
            if walk.count[a] == 0:
                walk.count[a] = 1
                walk.current[parent[i]] = pfn
                put(orders, i, a, walk.addr)
        walk.current[i] = walk.current[parent[i]]
    for i in range(walk.nr):
        if walk.current[i] and walk.current[i] == walk.own[i]:
            add(result.t[i], walk.addr, walk.own[i], HELD)
        else:
            lost += is_shared(walk, i)
            if walk.current[i]:
                add(result.t[i], walk.addr, walk.own[i], FORCED)
    return lost


cdef uint64_t part_from(Walk walk, const int *parent, int home) noexcept nogil:
    """The frame here that may be a part of a huge page, and has come to all who have it by the fork `home`, or later ones. 0 if there is
    none, or if another frame has come by any fork.
    """
    cdef uint64_t pfn = 0
    cdef int i, a
    for i in range(walk.nr_here):
        if pfn == 0 and is_part(walk.pfn(walk.here[i]), walk.addr):
            pfn = walk.pfn(walk.here[i])
    for i in range(1, walk.nr):
        if walk.need[i] and walk.need[i] != pfn:
            return 0
    for i in range(walk.nr):
        a = i
        while walk.own[i] == pfn and a != parent[home]:
            if a == 0 or parent[a] == parent[home] and a < home:
                return 0
            a = parent[a]
    return pfn


cdef bint is_shared(Walk walk, int a) noexcept nogil:
    """Whether another process has the frame of process a, too."""
    cdef int i
    for i in range(walk.nr):
        if i != a and walk.own[a] and walk.own[i] == walk.own[a]:
            return True
    return False


cdef int put(order_list *list, int fork, int reader, uint64_t addr) except -1 nogil:
    """Add a page to the orders, to the last run if it ends here."""
    cdef size_t i = list.nr, room
    cdef void *more
    while i > 0 and list.nr - i < 8:
        i -= 1
        if list.orders[i].fork == fork and list.orders[i].reader == reader and list.orders[i].end == addr:
            list.orders[i].end += PAGE_SIZE
            return 0
    if list.nr == list.room:
        room = list.room * 2 if list.room else 256
        more = realloc(list.orders, room * sizeof(order))
        if more == NULL:
            raise MemoryError
        list.orders = <order *>more
        list.room = room
    list.orders[list.nr].fork = fork
    list.orders[list.nr].reader = reader
    list.orders[list.nr].start = addr
    list.orders[list.nr].end = addr + PAGE_SIZE
    list.nr += 1
    return 0


def follow(list before not None, list now not None):
    """New tables, from those of the last pass and from what the processes have now.

    The processes that shared a frame and have the same one still share it. Those that have others have written to theirs, and are to write
    in the machine. If each is alone by now, the one that has kept the frame goes on with it.
    """
    cdef Walk old = Walk(before)
    cdef Walk result = Walk([Frames() for _ in before])
    cdef Walk new = Walk(now)
    cdef bint more
    cdef int i
    if old.nr != new.nr:
        raise ValueError("a table for each process, twice")
    with nogil:
        more = new.step()
        while old.step():
            while more and new.addr < old.addr:
                more = new.step()
            follow_page(old, new, more and new.addr == old.addr, result)
        for i in range(result.nr):
            shrink(result.t[i])
    return result.tables


cdef int follow_page(Walk old, Walk new, bint is_there, Walk result) except -1 nogil:
    cdef int i, j, k, a, nr, best, most
    cdef uint64_t tag
    for i in range(old.nr):
        old.own[i] = new.own[i] = 0
    for k in range(old.nr_here):
        a = old.here[k]
        if old.t[a].states[old.at[a]] & HELD:
            old.own[a] = old.pfn(a)
    if is_there:
        for k in range(new.nr_here):
            new.own[new.here[k]] = new.pfn(new.here[k])
    for i in range(old.nr):
        tag = old.own[i]
        if tag == 0:
            continue
        # The most processes that still have one frame together; of as many, those that have the old frame
        best = -1
        most = 0
        for j in range(i, old.nr):
            if old.own[j] != tag or new.own[j] == 0 or (j > i and best >= 0 and new.own[j] == new.own[best]):
                continue
            nr = 0
            for k in range(i, old.nr):
                nr += old.own[k] == tag and new.own[k] == new.own[j]
            if nr > most or (nr == most and new.own[j] == tag):
                most = nr
                best = j
        for j in range(i, old.nr):
            if old.own[j] != tag:
                continue
            old.own[j] = 0
            if new.own[j] == 0:
                continue
            if new.own[j] != new.own[best]:
                add(result.t[j], old.addr, 0, FORCED)
            elif most > 1:
                add(result.t[j], old.addr, new.own[j], HELD)
    return 0


def first_of_each(list tables not None, int kpagecount=-1):
    """Choose for each shared frame the process for which it counts: one that KSM has not merged it for, if there is one; else the first.

    Returns how many pages have a frame that counts for another process, and that KSM has not merged; and how many frames it has merged for
    all these processes, and others have, too. Only /proc/kpagecount tells of those.
    """
    cdef Walk walk = Walk(tables)
    cdef int i, j, a, b, first
    cdef uint64_t pfn, mappings, count
    cdef unsigned long again = 0, outside = 0
    with nogil:
        while walk.step():
            for i in range(walk.nr_here):
                a = walk.here[i]
                walk.own[a] = walk.pfn(a) if walk.t[a].states[walk.at[a]] & HELD else 0
                walk.t[a].states[walk.at[a]] &= ~FIRST
            for i in range(walk.nr_here):
                a = walk.here[i]
                pfn = walk.own[a]
                if pfn == 0:
                    continue
                first = -1
                mappings = 0
                for j in range(i, walk.nr_here):
                    b = walk.here[j]
                    if walk.own[b] != pfn:
                        continue
                    walk.own[b] = 0
                    mappings += 1
                    if not walk.t[b].states[walk.at[b]] & MERGED:
                        if first < 0:
                            first = b
                        else:
                            again += 1
                if first < 0:
                    first = a
                    count = 0
                    if kpagecount >= 0 and pread(kpagecount, &count, sizeof(count), <long>pfn * 8) == sizeof(count):
                        outside += count > mappings
                walk.t[first].states[walk.at[first]] |= FIRST
    return again, outside

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the other side of fs/proc/task_mmu.c.
"""The mappings of a running process that KSM may look at, without smaps.

For smaps the kernel looks at each page of a mapping before it lets go of the mmap_lock: 10 ms and more for each GiB, in which the process
can neither map nor unmap anything. maps and pagemap tell the same of most processes, in small steps. What they do not tell is looked up
with the first page of a mapping: frames of hugetlb and of devices are known by their flags.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memchr, memcmp

from linux.mm_types cimport PAGE_SHIFT

from ksm.sources.pagemap cimport PM_PFRAME, PM_PRESENT, append, page_flags, read_entries
from ksm.sources.pagemap import anonymous_runs, has_scan

cdef enum:
    # include/uapi/linux/kernel-page-flags.h
    KPF_ANON = 12
    KPF_SWAPBACKED = 14
    KPF_HUGE = 17

    FEW = 16                    # entries of pagemap that are read at once: mappings are often short, and neighbours

    # What the first page of a mapping tells
    TAKEN = 0
    REFUSED = 1
    UNKNOWN = 2


cdef uint64_t number(const char **text, const char *end) noexcept nogil:
    """A number to the base 16; `text` goes behind it."""
    cdef uint64_t value = 0
    cdef int c
    while text[0] < end:
        c = text[0][0]
        if 48 <= c <= 57:
            value = value << 4 | <uint64_t>(c - 48)
        elif 97 <= c <= 102:
            value = value << 4 | <uint64_t>(c - 87)
        else:
            break
        text[0] += 1
    return value


cdef bint begins(const char *text, const char *end, const char *prefix, size_t length) noexcept nogil:
    return <size_t>(end - text) >= length and memcmp(text, prefix, length) == 0


def private_areas(bytes maps not None):
    """The private mappings of /proc/PID/maps that may have anonymous pages, as (start, end); None if maps alone does not tell that.

    Special mappings, as [vdso], have VM_DONTEXPAND. A device may map anything.
    """
    from ksm.sources.base import HIGHEST, LOWEST

    cdef const char *text = maps
    cdef const char *end = text + len(maps)
    cdef const char *line_end
    cdef const char *name
    cdef uint64_t first, last, lowest = LOWEST, highest = HIGHEST
    cdef int blanks
    cdef list areas = []
    while text < end:
        line_end = <const char *>memchr(text, 10, end - text)
        if line_end == NULL:
            line_end = end
        first = number(&text, line_end)
        text += 1
        last = number(&text, line_end)
        if line_end - text < 5:
            return None
        if text[4] == 112:  # "p"
            name = text + 1
            blanks = 0
            while name < line_end and blanks < 4:
                blanks += name[0] == 32
                name += 1
            while name < line_end and name[0] == 32:
                name += 1
            if begins(name, line_end, b"/dev/", 5) and not begins(name, line_end, b"/dev/zero", 9):
                return None
            special = (begins(name, line_end, b"[", 1) and not begins(name, line_end, b"[heap]", 6)
                       and not begins(name, line_end, b"[stack", 6) and not begins(name, line_end, b"[anon:", 6))
            first = max(first, lowest)
            last = min(last, highest)
            if not special and first < last:
                areas.append((first, last))
        text = line_end + 1
    return areas


cdef class Plain:
    """Plain()
--

    What look() has found of a process, until the next time: nothing is looked at twice that maps and pagemap show unchanged.
    """

    cdef str maps
    cdef readonly list found    # what look() has returned
    cdef list empty             # the mappings that are not among these

    def __reduce__(self):
        raise TypeError("what was found of a process cannot be copied or pickled")

    def forget(self):
        """Somebody has looked at smaps. The next look() begins anew."""
        self.found = None

    def look(self, str maps not None, int pagemap, int kpageflags):
        """The mappings that have anonymous pages, and that KSM may look at: (start, end, bytes of such pages); None if only smaps tells.

        The same list as before, if they are the same. OSError.
        """
        if self.found is None or maps != self.maps or anonymous_runs(pagemap, kpageflags, self.empty):
            self.found, self.empty = plain_mappings(maps.encode(), pagemap, kpageflags, self.found or [])
            self.maps = maps
        return self.found


cdef tuple plain_mappings(bytes maps, int pagemap, int kpageflags, list known):
    """See Plain. Mappings of the same addresses as known ones are not looked at again."""
    cdef uint64_t entries[FEW]
    cdef uint64_t start, end, first, anonymous, at = 0, upto = 0      # of the entries
    cdef Py_ssize_t place = 0, run = 0, nr_runs, nr_known = len(known)
    cdef int what
    areas = private_areas(maps)
    if areas is None or not has_scan(pagemap):
        return None, []
    cdef list result = [], unknown = [], asked = [], empty = []
    for area in areas:
        start, end = area
        while place < nr_known and (<tuple>known[place])[0] < start:
            place += 1
        if place < nr_known and (<tuple>known[place])[0] == start and (<tuple>known[place])[1] == end:
            result.append(known[place])
            continue
        unknown.append(area)
        append(asked, start, end)
    cdef list runs = anonymous_runs(pagemap, kpageflags, asked)
    nr_runs = len(runs)
    for area in unknown:
        start, end = area
        while run < nr_runs and (<tuple>runs[run])[1] <= start:
            run += 1
        first = max(<uint64_t>(<tuple>runs[run])[0], start) if run < nr_runs else end
        if first >= end:
            append(empty, start, end)
            continue
        anonymous = 0
        place = run
        while place < nr_runs and (<tuple>runs[place])[0] < end:
            anonymous += min(<uint64_t>(<tuple>runs[place])[1], end) - max(<uint64_t>(<tuple>runs[place])[0], start)
            place += 1
        if not at <= first < upto:
            at = first
            upto = at + (<uint64_t>read_entries(pagemap, entries, at, FEW) << PAGE_SHIFT)
        what = taken(kpageflags, entries[(first - at) >> PAGE_SHIFT]) if first < upto else UNKNOWN
        if what == UNKNOWN:
            return None, []
        if what == TAKEN:
            result.append((start, end, anonymous))
    result.sort()
    return result, empty


cdef int taken(int kpageflags, uint64_t entry) noexcept nogil:
    """What an anonymous page tells of its mapping. A page that is gone tells nothing, nor does one that MADV_FREE has let go of: those of
    MAP_DROPPABLE look the same.
    """
    cdef uint64_t flags = page_flags(kpageflags, entry & PM_PFRAME) if entry & PM_PRESENT else 0
    if flags == 0:
        return UNKNOWN
    if flags >> KPF_HUGE & 1 or not flags >> KPF_ANON & 1:
        return REFUSED
    return TAKEN if flags >> KPF_SWAPBACKED & 1 else UNKNOWN

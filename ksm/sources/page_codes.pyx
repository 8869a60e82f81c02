# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: a byte for each page of a source.
"""What is known of each page of a source, as a byte, and what pagemap says of pages that no scan looks at.

A process may reserve a thousand times as much as it has. So the bytes lie in blocks of 512, and there are blocks only where there are
pages.
"""

import os

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EINTR, ENOTTY, errno
from libc.stdint cimport uint64_t
from libc.string cimport memset

from linux.mm_types cimport PAGE_SHIFT, PAGE_SIZE

from ksm.sources.pace cimport look_ends, now
from ksm.sources.pagemap cimport (FOUND_AT_ONCE, KPF_ZERO_PAGE, NR_ENTRIES, NR_REGIONS, PAGE_IS_FILE, PAGE_IS_PFNZERO, PAGE_IS_PRESENT,
                                  PAGE_IS_SWAPPED, PAGEMAP_SCAN, PM_FILE, PM_MMAP_EXCLUSIVE, PM_PFRAME, PM_PRESENT, PM_SWAP,
                                  WALKED_AT_ONCE, ioctl, page_flags, page_region, pm_scan_arg, read_entries)


cdef uint64_t PM_GUARD_REGION = <uint64_t>1 << 58      # since Linux 6.15

cdef enum:
    IN_BLOCK = 512              # pages
    BLOCK_SHIFT = PAGE_SHIFT + 9
    CODES = 64                  # that counts() tells apart


cdef class PageCodes:
    """PageCodes()
--

    A byte for each page, by address; 0 where nothing is known. Addresses are multiples of the page size.
    """

    def __cinit__(self):
        self.blocks = {}

    def __reduce__(self):
        raise TypeError("the codes of pages cannot be copied or pickled")

    cdef unsigned char *block(self, uint64_t number, bint make) except? NULL:
        """The bytes of a block; NULL if there are none."""
        cdef object found = self.blocks.get(number)
        if found is None:
            if not make:
                return NULL
            found = bytearray(IN_BLOCK)
            self.blocks[number] = found
        return <unsigned char *>PyByteArray_AS_STRING(found)

    cdef int fill_run(self, uint64_t start, uint64_t end, unsigned char code) except -1:
        cdef uint64_t last
        cdef unsigned char *there
        while start < end:
            last = min(end, ((start >> BLOCK_SHIFT) + 1) << BLOCK_SHIFT)
            there = self.block(start >> BLOCK_SHIFT, code != 0)
            if there != NULL:
                memset(there + (start >> PAGE_SHIFT) % IN_BLOCK, code, (last - start) >> PAGE_SHIFT)
            start = last
        return 0

    def put(self, start, const unsigned char[::1] codes):
        """The codes of neighbouring pages; those that are 0 change nothing."""
        cdef uint64_t addr = start
        cdef unsigned char *there = NULL
        cdef uint64_t number = ~<uint64_t>0
        cdef Py_ssize_t i
        for i in range(codes.shape[0]):
            if codes[i]:
                if addr >> BLOCK_SHIFT != number:
                    number = addr >> BLOCK_SHIFT
                    there = self.block(number, True)
                there[(addr >> PAGE_SHIFT) % IN_BLOCK] = codes[i]
            addr += PAGE_SIZE

    def fill(self, start, end, code):
        """The same code for all pages of a run."""
        self.fill_run(start, end, code)

    def get(self, addr):
        """The code of the page at an address."""
        cdef uint64_t at = addr
        cdef unsigned char *there = self.block(at >> BLOCK_SHIFT, False)
        return there[(at >> PAGE_SHIFT) % IN_BLOCK] if there != NULL else 0

    def codes(self, start, end):
        """The codes of neighbouring pages, as bytes."""
        cdef uint64_t addr = start, stop = end, last
        cdef object found
        cdef list parts = []
        while addr < stop:
            last = min(stop, ((addr >> BLOCK_SHIFT) + 1) << BLOCK_SHIFT)
            found = self.blocks.get(addr >> BLOCK_SHIFT)
            if found is None:
                parts.append(bytes((last - addr) >> PAGE_SHIFT))
            else:
                parts.append(found[(addr >> PAGE_SHIFT) % IN_BLOCK : (addr >> PAGE_SHIFT) % IN_BLOCK + ((last - addr) >> PAGE_SHIFT)])
            addr = last
        return b"".join(parts)

    def counts(self, start, end):
        """How many pages of a run have each code, from 0 to 63."""
        cdef long[CODES] counts
        cdef uint64_t addr = start, stop = end, last
        cdef unsigned char *there
        cdef uint64_t i, first
        memset(counts, 0, sizeof(counts))
        # Of a range that is reserved, most blocks are not there: they are not asked for one by one.
        if (stop - addr) >> BLOCK_SHIFT > <uint64_t>2 * <uint64_t>len(self.blocks) + 2:
            counts[0] = <long>((stop - addr) >> PAGE_SHIFT)
            for number in self.blocks:
                addr = max(<uint64_t>start, <uint64_t>number << BLOCK_SHIFT)
                last = min(stop, (<uint64_t>number + 1) << BLOCK_SHIFT)
                if addr < last:
                    there = self.block(number, False)
                    counts[0] -= <long>((last - addr) >> PAGE_SHIFT)
                    first = (addr >> PAGE_SHIFT) % IN_BLOCK
                    for i in range(first, first + ((last - addr) >> PAGE_SHIFT)):
                        counts[there[i] % CODES] += 1
            return [counts[i] for i in range(CODES)]
        while addr < stop:
            last = min(stop, ((addr >> BLOCK_SHIFT) + 1) << BLOCK_SHIFT)
            there = self.block(addr >> BLOCK_SHIFT, False)
            first = (addr >> PAGE_SHIFT) % IN_BLOCK
            if there == NULL:
                counts[0] += <long>((last - addr) >> PAGE_SHIFT)
            else:
                for i in range(first, first + ((last - addr) >> PAGE_SHIFT)):
                    counts[there[i] % CODES] += 1
            addr = last
        return [counts[i] for i in range(CODES)]

    def span(self, start, end):
        """The run cut to the first and the last page in it that have a code; None if none has."""
        cdef Py_ssize_t first, last
        cdef uint64_t low = 0, high = 0
        cdef bytes codes
        for number in self.numbers(start, end):
            addr = max(<uint64_t>start, <uint64_t>number << BLOCK_SHIFT)
            codes = bytes(self.codes(addr, min(<uint64_t>end, (<uint64_t>number + 1) << BLOCK_SHIFT)))
            last = len(codes.rstrip(b"\0"))
            if last:
                first = len(codes) - len(codes.lstrip(b"\0"))
                if not high:
                    low = <uint64_t>addr + (<uint64_t>first << PAGE_SHIFT)
                high = <uint64_t>addr + (<uint64_t>last << PAGE_SHIFT)
        return (low, high) if high else None

    cdef list numbers(self, uint64_t start, uint64_t end):
        """The blocks of a range that are there. It may be reserved, and have few; or it is small, and there are very many elsewhere."""
        cdef uint64_t first = start >> BLOCK_SHIFT, last = (end + ((<uint64_t>1 << BLOCK_SHIFT) - 1)) >> BLOCK_SHIFT
        if last - first < <uint64_t>len(self.blocks):
            return [number for number in range(first, last) if number in self.blocks]
        return sorted([number for number in self.blocks if first <= number < last])

    def runs(self, start, end):
        """Neighbouring pages of the same code, (start, end, code), by address; those of code 0 are left out."""
        cdef uint64_t first = 0, addr, last
        cdef unsigned char code = 0
        cdef Py_ssize_t i
        cdef bytes codes
        for number in self.numbers(start, end):
            addr = max(<uint64_t>start, <uint64_t>number << BLOCK_SHIFT)
            last = min(<uint64_t>end, (<uint64_t>number + 1) << BLOCK_SHIFT)
            if addr >= last:
                continue
            codes = bytes(self.codes(addr, last))
            if code and (not codes[0] == code or addr != before):
                yield first, before, code
                code = 0
            for i in range(len(codes)):
                if <unsigned char>codes[i] != code:
                    if code:
                        yield first, addr, code
                    code = codes[i]
                    first = addr
                addr += PAGE_SIZE
            before = last
        if code:
            yield first, before, code


cdef struct kinds:
    unsigned char anonymous, missing, file, zero, swapped
    int pagemap, kpageflags


cdef int take(PageCodes into, PageCodes scanned, const kinds *codes, uint64_t start, uint64_t end) except -1:
    """Anonymous pages that are there: with the codes that the scan has given them. Those that it has none of came later, or have no frame
    of their own: the zero page of huge pages.
    """
    cdef unsigned char *there = NULL
    cdef unsigned char *own = NULL
    cdef uint64_t number = ~<uint64_t>0, entry
    cdef size_t place
    if scanned is None:
        return into.fill_run(start, end, codes.anonymous)
    while start < end:
        if start >> BLOCK_SHIFT != number:
            number = start >> BLOCK_SHIFT
            there = scanned.block(number, False)
            own = into.block(number, True)
        place = (start >> PAGE_SHIFT) % IN_BLOCK
        own[place] = there[place] if there != NULL else 0
        if own[place] == 0:
            own[place] = codes.missing
            if codes.kpageflags >= 0 and read_entries(codes.pagemap, &entry, start, 1) == 1:
                if page_flags(codes.kpageflags, entry & PM_PFRAME) >> KPF_ZERO_PAGE & 1:
                    own[place] = codes.zero
        start += PAGE_SIZE
    return 0


cdef int take_swapped(PageCodes into, const kinds *codes, uint64_t start, uint64_t end) except -1:
    """Pages that are swapped out, without those of MADV_GUARD_INSTALL, which have an entry like these."""
    cdef uint64_t entries[NR_ENTRIES]
    cdef ssize_t n, i
    while start < end:
        n = read_entries(codes.pagemap, entries, start, (end - start) >> PAGE_SHIFT)
        if n == 0:
            break
        for i in range(n):
            if entries[i] & PM_SWAP and not entries[i] & PM_GUARD_REGION:
                into.fill_run(start, start + PAGE_SIZE, codes.swapped)
            start += PAGE_SIZE
    return 0


def fill_kinds(int pagemap, int kpageflags, start, end, PageCodes into not None, PageCodes scanned, *, int anonymous, int missing, int file,
               int zero, int swapped, bint ask_ioctl=True):
    """Give each page of a mapping that is there, or swapped out, a code: that which `scanned` has for it (or `anonymous` without),
    `missing` if it has none; `file` for pages of files and of shared memory, `zero` for the zero page. OSError.

    Before Linux 6.7, or without ask_ioctl, each page is asked for.
    """
    cdef kinds codes
    codes.anonymous, codes.missing, codes.file, codes.zero, codes.swapped = anonymous, missing, file, zero, swapped
    codes.pagemap, codes.kpageflags = pagemap, kpageflags
    if not ask_ioctl or not fill_by_scan(pagemap, start, end, into, scanned, &codes):
        fill_by_entries(pagemap, kpageflags, start, end, into, scanned, &codes)


cdef bint fill_by_scan(int fd, uint64_t start, uint64_t end, PageCodes into, PageCodes scanned, const kinds *codes) except -1:
    """False if the kernel does not have PAGEMAP_SCAN."""
    cdef page_region regions[NR_REGIONS]
    cdef pm_scan_arg arg
    cdef long long begun
    cdef uint64_t what
    cdef int n, i, error
    while start < end:
        memset(&arg, 0, sizeof(arg))
        arg.size = sizeof(arg)
        arg.start = start
        arg.end = end if end - start < WALKED_AT_ONCE else start + WALKED_AT_ONCE
        arg.max_pages = FOUND_AT_ONCE
        arg.vec = <uint64_t>&regions[0]
        arg.vec_len = NR_REGIONS
        arg.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED
        arg.return_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED | PAGE_IS_FILE | PAGE_IS_PFNZERO
        with nogil:
            begun = now()
            n = ioctl(fd, PAGEMAP_SCAN, &arg)
            error = errno
            look_ends(begun)
        if n < 0:
            if error == EINTR:
                PyErr_CheckSignals()
                continue
            if error == ENOTTY:
                return False
            raise OSError(error, os.strerror(error))
        for i in range(n):
            what = regions[i].categories
            if not what & PAGE_IS_PRESENT:
                take_swapped(into, codes, regions[i].start, regions[i].end)
            elif what & PAGE_IS_PFNZERO:
                into.fill_run(regions[i].start, regions[i].end, codes.zero)
            elif what & PAGE_IS_FILE:
                into.fill_run(regions[i].start, regions[i].end, codes.file)
            else:
                take(into, scanned, codes, regions[i].start, regions[i].end)
        PyErr_CheckSignals()
        if arg.walk_end <= start:
            break
        start = arg.walk_end
    return True


cdef int fill_by_entries(int fd, int kpageflags, uint64_t start, uint64_t end, PageCodes into, PageCodes scanned,
                         const kinds *codes) except -1:
    cdef uint64_t entries[NR_ENTRIES]
    cdef uint64_t entry
    cdef ssize_t n, i
    while start < end:
        n = read_entries(fd, entries, start, (end - start) >> PAGE_SHIFT)
        if n == 0:
            break
        for i in range(n):
            entry = entries[i]
            if entry & PM_SWAP and not entry & PM_GUARD_REGION:
                into.fill_run(start, start + PAGE_SIZE, codes.swapped)
            elif entry & PM_PRESENT:
                if entry & PM_FILE:
                    into.fill_run(start, start + PAGE_SIZE, codes.file)
                elif not entry & PM_MMAP_EXCLUSIVE and page_flags(kpageflags, entry & PM_PFRAME) >> KPF_ZERO_PAGE & 1:
                    into.fill_run(start, start + PAGE_SIZE, codes.zero)
                else:
                    take(into, scanned, codes, start, start + PAGE_SIZE)
            start += PAGE_SIZE
        PyErr_CheckSignals()
    return 0

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: verifying a machine.
"""The parts that the files of the checker share. ksm/check/invariants.pyx starts the checker, check_ksm.pyx checks KSM, check_mm.pyx
everything below it.
"""

from linux.mm_types cimport machine, mm_struct, struct_anon_vma

from ksm.mm.ksm cimport ksm_globals, ksm_rmap_item


cdef extern from *:
    """
    #ifndef KSM_FINDINGS_DEFINED
    #define KSM_FINDINGS_DEFINED
    #include <stdarg.h>
    #include <stdio.h>
    #include <stdlib.h>
    enum { KSM_MOST_FINDINGS = 200 };
    struct ksm_findings { char *text; size_t used, size; unsigned long count; };
    /* Add one line. Lines without memory are only counted. */
    static void __attribute__((unused, cold, format(printf, 2, 3))) ksm_finding(struct ksm_findings *f, const char *format, ...)
    {
        char line[256];
        va_list args;
        int length;
        if (f->count++ >= KSM_MOST_FINDINGS)
            return;
        va_start(args, format);
        length = vsnprintf(line, sizeof(line) - 1, format, args);
        va_end(args);
        if (length > (int)sizeof(line) - 2)
            length = sizeof(line) - 2;
        line[length++] = '\\n';
        if (f->used + length > f->size) {
            char *text = realloc(f->text, f->size * 2 + 4096);
            if (text == NULL)
                return;
            f->text = text;
            f->size = f->size * 2 + 4096;
        }
        for (int i = 0; i < length; i++)
            f->text[f->used++] = line[i];
    }
    #endif
    """
    enum:
        KSM_MOST_FINDINGS
    struct findings "ksm_findings":
        char *text
        size_t used
        size_t size
        unsigned long count
    void finding "ksm_finding"(findings *f, const char *format, ...) noexcept nogil


# Counters by address: what was found of an object so far.
cdef struct tally:
    const void *key
    unsigned long n[6]

cdef struct ptr_map:
    tally *slots
    size_t size                 # a power of two
    size_t used

# The counters n[] of the four maps
cdef enum:
    MM_SLOTS = 0
    MM_STABLE_ITEMS             # stable items in its list of rmap_items
    MM_ITEMS
    NODE_PLACES = 0             # number of trees, chains and lists that it is in
    NODE_IS_CHAIN
    ANON_VMA_ITEMS = 0          # rmap_items that hold a reference
    ANON_VMA_DESCENDANTS        # anon_vmas whose root it is, without itself
    ANON_VMA_CHILDREN           # anon_vmas whose parent it is, with itself
    ANON_VMA_ACTIVE             # vmas that use it for new pages
    ANON_VMA_CHAINS             # links in its tree
    ANON_VMA_SEEN
    FILE_MAPS = 0


# The uses of a frame, by the tables and lists
cdef struct frame_use:
    unsigned int mapped         # entries that lead to it
    unsigned int entire         # pmd entries that map the huge page of which it is the head
    unsigned int held           # references that are not from entries: of the LRU batch, shared objects and the swap cache
    bint free                   # on a list of free frames
    bint zeros                  # free, and said to read as zeros
    bint cached                 # in the swap cache
    bint dirty                  # an entry that maps it is dirty


cdef struct checker:
    machine *m
    ksm_globals *g
    findings found
    bint no_memory
    mm_struct **mms             # all mms, ascending by id, locked
    int nr_mms
    ptr_map mm
    ptr_map nodes
    ptr_map anon_vmas
    ptr_map files
    ksm_rmap_item **items       # stable items by address and node: open addressing
    size_t items_size
    frame_use *use              # by pfn
    unsigned long stable_items
    unsigned long listed_items  # in the hlists of stable nodes
    unsigned long unstable_items
    unsigned long fresh_items   # unstable items of this pass
    unsigned long all_items
    unsigned long nr_slots
    unsigned long nr_vmas
    unsigned long nr_tables
    unsigned long zero_ptes     # entries of the zero page that KSM made
    long mm_zero_pages          # the sum of the mms' own counters
    unsigned int *slots         # by slot of the swap area: entries that have it
    bint pinned                 # an mm has pinned pages, or a view of a frame exists: references without a mapping


cdef tally *map_find(ptr_map *map, const void *key) noexcept nogil
cdef tally *map_put(checker *c, ptr_map *map, const void *key) noexcept nogil
cdef tally *see_anon_vma(checker *c, struct_anon_vma *anon_vma) noexcept nogil

cdef inline bint looks_like_object(const void *p) noexcept nogil:
    """Whether a pointer may lead to an object of a cache. Objects begin at multiples of 64; the poison in a freed object does not."""
    return p != NULL and <unsigned long>p & 63 == 0

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recording what KSM does.
"""The state of a recorder."""

from linux.mm_types cimport machine, struct_page
from linux.rbtree cimport rb_node
from linux.spinlock cimport spinlock_t

from ksm.record.look cimport NR_KINDS, VALUES, longs


cdef enum:
    LABEL = 24                  # bytes of a page that are kept


cdef int[NR_KINDS] widths       # how many values each kind has


cdef struct entry:
    unsigned long key
    int kind
    bint live
    unsigned int seen           # the last look that saw the object
    long v[VALUES]


cdef struct label:
    unsigned char bytes[LABEL]


cdef struct recorder:
    # One for each recording of a machine, freed with the machine: a step in another thread may come late.
    spinlock_t lock             # all below
    recorder *older
    bint active, no_memory, truncated
    unsigned long steps, most_steps
    longs out
    entry *entries              # an object's number is its index here
    size_t nr_entries, room
    unsigned int *index         # index in entries + 1, by hash
    size_t index_size
    label *labels               # by the number that FRAME has as contents
    size_t nr_labels, labels_room
    # Of the thread that holds ksm_thread_mutex
    unsigned int looks
    long pfn                    # the page that is being scanned
    bint refresh                # the contents of all frames are to be read again
    bint in_pass                # the unstable trees are those of the pass under way
    int last                    # the thread's last step
    rb_node *compared_at        # the node whose page was compared last, that page, and whether it was equal
    struct_page *compared_page
    bint equal
    longs seen                  # kind, key, values


cdef void write_step(recorder *r, machine *m, int which, void *item, void *page, void *node, long value) noexcept nogil
cdef void empty(recorder *r) noexcept nogil

# SPDX-License-Identifier: GPL-2.0-only
# Stands in for mm/mm_init.c of Linux 6.12.

from linux.mm_types cimport machine


# The settings of a new machine. ksm.Machine() explains them.
cdef struct machine_plan:
    unsigned long max_pages     # addresses that are reserved
    unsigned long ram_pages
    int nr_nodes
    int era                     # ERA_* of ksm/mm/ksm.pxd
    int transparent_hugepage
    bint plain
    unsigned int threads
    bint fingerprints           # in the frames, instead of bytes
    const unsigned char *key    # of the fingerprints, 32 bytes; NULL: they have none
    bint manual_clock


cdef machine *machine_init(const machine_plan *plan, int *error) noexcept nogil
cdef void machine_exit(machine *m) noexcept nogil
cdef void machine_forget(machine *m) noexcept nogil

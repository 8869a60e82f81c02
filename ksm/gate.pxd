# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: who is inside a machine.
"""The way into a machine, and what keeps it open: see gate.pyx."""

from linux.atomic cimport atomic_long_add_return, likely
from linux.spinlock cimport spinlock_t


cdef enum:
    GATE_STATE_SHIFT = 32       # below it the calls that are inside, above it the state
    GATE_HELD = 0x40000000


cdef struct machine_gate:
    long word                   # state: the generation in which the machine is open, with GATE_HELD or not; 0: not made, or closed
    spinlock_t lock             # of what follows
    bint made                   # or being made
    bint closed
    int exports                 # memoryviews of the memory: it cannot be closed
    # Since the object is there
    int generation
    int pid


# How many forks of the interpreter ago the program began, and 1
cdef int generation

cdef void gate_init(machine_gate *gate) noexcept nogil
cdef bint gate_is_foreign(machine_gate *gate) noexcept nogil
cdef int gate_begin(machine_gate *gate) except -1
cdef bint gate_open(machine_gate *gate, bint made) noexcept nogil
cdef int gate_refuse(machine_gate *gate) except -1 nogil
cdef void gate_leave(machine_gate *gate) noexcept nogil
cdef int gate_hold(machine_gate *gate) except -1
cdef void gate_release(machine_gate *gate) noexcept nogil
cdef int gate_close(machine_gate *gate) except -1
cdef int gate_wait_for_calls(machine_gate *gate) except -1
cdef int gate_export(machine_gate *gate) except -1
cdef void gate_unexport(machine_gate *gate) noexcept nogil


cdef inline int gate_enter(machine_gate *gate) except -1 nogil:
    """Keep the machine open until gate_leave(). ValueError when it is closed, or not made; RuntimeError in another process."""
    if likely(atomic_long_add_return(&gate.word, 1) >> GATE_STATE_SHIFT == generation):
        return 0
    return gate_refuse(gate)

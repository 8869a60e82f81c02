# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: which calls are inside a machine.
"""Entering a machine, and keeping it open.

Each call of the Python face enters by Machine.enter() or Process.get_mm(), does its work, and leaves. The rules are:

- Between entering and leaving no Python runs. All of it stands in `with nogil` or in a nogil function, where the compiler checks that.
  Arguments are converted before, and results and exceptions are made from C values afterwards. The reason: whenever Python makes an object
  it may collect garbage, and so run any code, which may call the same machine. That code would wait for ever for a lock that this thread
  holds, or in close() for this call to end. tests/face/test_gate.py looks for exceptions from this rule.
- A thread that waits for a lock of a machine does not hold the GIL.
- A scan, which takes long, leaves the machine between two batches, and lets signal handlers run there.

So calls in signal handlers, finalizers and other threads work, also close(). close() lets no further call in, and waits only for the calls
of other threads, which end without Python.

A checker holds the machine: it waits until the calls inside have ended, and new calls wait until it is done.

When the interpreter is forked, the child gets a copy of the memory and of all locks, as they were at some moment, and only the thread that
called fork(). The child cannot enter the machine, which is not its own. close() frees the child's copy of the memory.
"""

from cpython.exc cimport PyErr_CheckSignals

from linux.atomic cimport atomic_long_fetch_and, atomic_long_fetch_or, smp_load_acquire_ulong
from linux.spinlock cimport backoff, spin_lock, spin_lock_init, spin_unlock, usleep
from linux.wait cimport CLOCK_MONOTONIC, clock_gettime, timespec


cdef extern from "<pthread.h>" nogil:
    int pthread_atfork(void (*prepare)() noexcept nogil, void (*parent)() noexcept nogil, void (*child)() noexcept nogil)

cdef extern from "<unistd.h>" nogil:
    int getpid()


cdef enum:
    FIRST_WAIT_MS = 10          # first wait between two checks for signals
    LONGEST_WAIT_MS = 1000

cdef unsigned long HELD = <unsigned long>GATE_HELD << GATE_STATE_SHIFT
cdef unsigned long CALLS = (<unsigned long>1 << GATE_STATE_SHIFT) - 1


cdef void forked() noexcept nogil:
    global generation
    generation += 1


if generation == 0:             # otherwise this module is being loaded a second time
    generation = 1
    if pthread_atfork(NULL, NULL, forked):
        raise MemoryError


cdef inline unsigned long gate_word(machine_gate *gate) noexcept nogil:
    # The load acquires: a thread that finds no call inside sees all that earlier calls have done.
    return smp_load_acquire_ulong((<unsigned long *>&gate.word)[0])


cdef void gate_init(machine_gate *gate) noexcept nogil:
    """Make a closed gate. All fields are zero."""
    spin_lock_init(&gate.lock)
    gate.generation = generation
    gate.pid = getpid()


cdef bint gate_is_foreign(machine_gate *gate) noexcept nogil:
    """Whether the object was made in a process from which this one was forked. Threads that do not exist here may hold its locks."""
    return gate.generation != generation


cdef int gate_is_not_open(machine_gate *gate) except -1:
    """Raise the exception that says why no call may enter."""
    if gate.closed:
        raise ValueError("the machine is closed")
    if gate_is_foreign(gate):
        raise RuntimeError(f"the machine belongs to process {gate.pid}")
    raise ValueError("the machine is not made: its __init__() has not run to its end")


cdef int gate_begin(machine_gate *gate) except -1:
    """Note that a thread is about to make the machine: RuntimeError for a second thread."""
    cdef bint once
    if gate_is_foreign(gate):
        gate_is_not_open(gate)
    spin_lock(&gate.lock)
    once = not gate.made and not gate.closed
    if once:
        gate.made = True
    spin_unlock(&gate.lock)
    if not once:
        raise RuntimeError("a machine is made once")
    return 0


cdef bint gate_open(machine_gate *gate, bint made) noexcept nogil:
    """Note that the machine was made, or could not be. Returns whether calls can enter, which is false if it was closed meanwhile."""
    spin_lock(&gate.lock)
    gate.made = made
    made = made and not gate.closed
    if made:
        atomic_long_add_return(&gate.word, <long>generation << GATE_STATE_SHIFT)
    spin_unlock(&gate.lock)
    return made


cdef bint held_here(machine_gate *gate) noexcept nogil:
    return gate_word(gate) >> GATE_STATE_SHIFT == <unsigned long>(generation | GATE_HELD)


cdef int gate_refuse(machine_gate *gate) except -1 nogil:
    """gate_enter() has counted the call, but the gate is not open: wait as long as another thread holds it. The caller may have the GIL."""
    cdef int spins = 0
    while True:
        gate_leave(gate)
        with gil:
            if not held_here(gate) and gate_word(gate) >> GATE_STATE_SHIFT != <unsigned long>generation:
                gate_is_not_open(gate)
            with nogil:
                while held_here(gate):
                    backoff(&spins)
        if atomic_long_add_return(&gate.word, 1) >> GATE_STATE_SHIFT == generation:
            return 0


cdef void gate_leave(machine_gate *gate) noexcept nogil:
    atomic_long_add_return(&gate.word, -1)


cdef unsigned long monotonic_ms() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <unsigned long>now.tv_sec * 1000 + <unsigned long>now.tv_nsec // 1000000


cdef bint only(machine_gate *gate, unsigned long calls, int ms) noexcept nogil:
    """Wait until only `calls` calls are inside, `ms` milliseconds at most."""
    cdef unsigned long until = monotonic_ms() + <unsigned long>ms
    cdef int spins = 0
    while gate_word(gate) & CALLS != calls:
        if monotonic_ms() >= until:
            return False
        backoff(&spins)
    return True


cdef bint try_to_hold(machine_gate *gate, int ms) noexcept nogil:
    """The caller has entered the machine. True if no other call is inside, and none can enter; False if that was not so in time."""
    if <unsigned long>atomic_long_fetch_or(<unsigned long *>&gate.word, HELD) & HELD:
        return False
    if only(gate, 1, ms):
        return True
    atomic_long_fetch_and(<unsigned long *>&gate.word, ~HELD)
    return False


cdef int gate_hold(machine_gate *gate) except -1:
    """Enter as the only call, and keep others waiting until gate_release().

    Signal handlers run while it waits. The gate is open then, because they may want to enter.
    """
    cdef int ms = FIRST_WAIT_MS
    cdef bint held
    while True:
        with nogil:
            gate_enter(gate)
            held = try_to_hold(gate, ms)
            if not held:
                gate_leave(gate)
                usleep(50)
        if held:
            return 0
        # Each wait is longer than the last, in case the other calls take long.
        ms = min(2 * ms, LONGEST_WAIT_MS)
        PyErr_CheckSignals()


cdef void gate_release(machine_gate *gate) noexcept nogil:
    atomic_long_fetch_and(<unsigned long *>&gate.word, ~HELD)
    gate_leave(gate)


cdef int gate_close(machine_gate *gate) except -1:
    """Let no further call in: BufferError while there are views of the memory."""
    cdef bint exported
    if gate_is_foreign(gate):
        exported = gate.exports != 0
        gate.closed = gate.closed or not exported
    else:
        spin_lock(&gate.lock)
        exported = gate.exports != 0
        if not exported:
            gate.closed = True
            atomic_long_fetch_and(<unsigned long *>&gate.word, CALLS)
        spin_unlock(&gate.lock)
    if exported:
        raise BufferError("a view of the machine's memory exists")
    return 0


cdef int gate_wait_for_calls(machine_gate *gate) except -1:
    """After gate_close(): wait until no call is inside. An exception in a signal handler ends the waiting."""
    cdef bint empty = gate_is_foreign(gate)
    while not empty:
        with nogil:
            empty = only(gate, 0, FIRST_WAIT_MS)
        if not empty:
            PyErr_CheckSignals()
    return 0


cdef int gate_export(machine_gate *gate) except -1:
    """Count one more view of the memory, which keeps the machine open."""
    cdef bint is_open = False
    if not gate_is_foreign(gate):
        spin_lock(&gate.lock)
        is_open = gate.made and not gate.closed and gate_word(gate) >> GATE_STATE_SHIFT != 0
        gate.exports += is_open
        spin_unlock(&gate.lock)
    return 0 if is_open else gate_is_not_open(gate)


cdef void gate_unexport(machine_gate *gate) noexcept nogil:
    if gate_is_foreign(gate):
        gate.exports -= 1
        return
    spin_lock(&gate.lock)
    gate.exports -= 1
    spin_unlock(&gate.lock)

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: where a recording looks in.
"""The steps of a scan that a recording tells apart: see ksm/record/recorder.pyx, which writes them down, and ksm/study/steps.py, which has
what each of them means and where it stands in the kernel's file. ksm/record/decisions.pyx keeps only what was decided of each page.

A step costs one branch while nobody records.
"""

from linux.mm_types cimport machine


cdef enum ksm_step_type:
    STEP_NOTE                   # not a step of KSM: a note of the program that uses the machine
    STEP_PASS_BEGINS
    STEP_NEXT
    STEP_SKIPPED
    STEP_PASS_ENDS
    STEP_AT_ITS_NODE
    STEP_FORKED
    STEP_NODE_MOVED
    STEP_CHANGED
    STEP_UNCHANGED
    STEP_ZERO_MERGED
    STEP_STABLE_COMPARE
    STEP_STABLE_FOUND
    STEP_STABLE_MISS
    STEP_STABLE_FULL
    STEP_STABLE_BUSY
    STEP_NODE_STALE
    STEP_LEFT_STABLE
    STEP_LEFT_UNSTABLE
    STEP_UNSTABLE_COMPARE
    STEP_UNSTABLE_INSERTED
    STEP_UNSTABLE_GAVE_UP
    STEP_UNSTABLE_FOUND
    STEP_WRITE_PROTECTED
    STEP_NOT_PROTECTED
    STEP_BECAME_KSM
    STEP_REPLACED
    STEP_DIFFERS
    STEP_MERGED
    STEP_TWO_MERGED
    STEP_APPENDED
    STEP_INSERT_COMPARE
    STEP_STABLE_INSERTED
    STEP_CHAIN_MADE
    STEP_DUP_ADDED
    STEP_BREAK_COW
    STEP_BREAK_KSM
    STEP_COW
    NR_STEPS

    # The recorder turns each of these into one of the steps above: where a search has ended, and which search compares two pages.
    STABLE_SEARCHED             # `node` is the page that was found, NULL, or -EBUSY
    UNSTABLE_SEARCHED           # `node` is the rmap_item that was found, or NULL
    COMPARED                    # `page` is the tree page


ctypedef void (*step_function)(machine *m, int which, void *item, void *page, void *node, long value) noexcept nogil

# The macros are those of linux/atomic.pxd: a pointer to a function is no void *.
cdef extern from *:
    step_function READ_ONCE_step "KSM_READ_ONCE"(step_function x) noexcept nogil
    void WRITE_ONCE_step "KSM_WRITE_ONCE"(step_function x, step_function v) noexcept nogil


cdef inline void ksm_step(machine *m, int which, void *item, void *page, void *node, long value) noexcept nogil:
    cdef step_function record = READ_ONCE_step(m.step)
    if record != NULL:
        record(m, which, item, page, node, value)


cdef inline void steps_exit(machine *m) noexcept nogil:
    """Free the recorders of a machine that no thread is in. A recording that was not stopped is lost."""
    m.step = NULL
    if m.recorder != NULL:
        m.recorder_exit(m)
    if m.decider != NULL:
        m.decider_exit(m)

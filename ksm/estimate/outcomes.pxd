# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: why a page is merged, or not.


# ksm/estimate/reasons.py says in words what each is. A byte of Region.codes().
cpdef enum:
    ABSENT = 0
    # Merged
    WITHIN
    ACROSS
    ZERO
    SPLIT
    LAST
    # Looked at, and not merged
    FORKED
    ALONE
    HUGE
    VOLATILE
    WAITING
    SMART_SCAN
    FULL
    OTHER_NODE
    HELD
    EQUAL_HELD
    AGAIN
    # Never looked at
    SWAPPED
    FILE_PAGE
    ONLY_READ
    SHARED_MEMORY
    SHARED_FILE
    GUEST
    HUGETLB
    SPECIAL
    DROPPABLE
    NOT_MERGEABLE
    APART
    NR_REASONS

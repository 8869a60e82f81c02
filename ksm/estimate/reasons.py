# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: why pages are merged, or not, in words.
"""The reasons that `ksm why` gives, and what would have to be done: one for each page."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ksm.estimate import outcomes

Group = Literal["merged", "compared", "not looked at", "not there"]


class Reason(NamedTuple):
    """Why a page is merged, or not.

    code        a byte of Region.codes()
    name        in JSON
    group       "merged"; "compared": KSM has looked at it, and has not merged it; "not looked at": it never does; "not there"
    title       in a table
    sentence    what it means
    remedy      what would have to be done to gain something; "" where there is nothing to gain
    """

    code: int
    name: str
    group: Group
    title: str
    sentence: str
    remedy: str = ""


REASONS = (
    Reason(
        outcomes.WITHIN, "within", "merged", "merged within the source",
        "It is one frame with equal pages of the same source.",
    ),
    Reason(
        outcomes.ACROSS, "across", "merged", "merged across sources",
        "It is one frame with equal pages of other sources, and perhaps with more of its own.",
    ),
    Reason(
        outcomes.ZERO, "zero", "merged", "zeros",
        "It holds zeros: it is one frame with other such pages, or the kernel's zero page where use_zero_pages is 1.",
    ),
    Reason(
        outcomes.SPLIT, "split", "merged", "zeros of a split huge page",
        "It was a part of zeros of a huge page. KSM has split that to merge another part, and the split gave such parts the zero page.",
    ),
    Reason(
        outcomes.LAST, "last", "merged", "merged, and alone by now",
        "It was merged, and all others that had the frame are gone: nothing is freed any more.",
    ),
    Reason(
        outcomes.FORKED, "forked", "compared", "shared since a fork",
        "Its frame is another process's, too, since a fork: it is one copy already, and the other page stands for it.",
    ),
    Reason(
        outcomes.ALONE, "alone", "compared", "no page is equal",
        "It held still, was compared with all others, and waits in the unstable tree: no other page has the same bytes.",
    ),
    Reason(
        outcomes.HUGE, "huge", "compared", "no page is equal, part of a huge page",
        "It is as alone as that, and a part of a huge page that KSM has no reason to split: no part of it has merged.",
    ),
    Reason(
        outcomes.VOLATILE, "volatile", "compared", "changed between two visits",
        "Its checksum was another one than at the visit before. KSM compares only pages that hold still.",
        "scan faster (pages_to_scan, sleep_millisecs, or advisor_mode=scan-time), or leave these regions to --advised: each visit costs a"
        " checksum",
    ),
    Reason(
        outcomes.WAITING, "waiting", "compared", "waits for another visit",
        "It came, or was written to, after the last visits of ksmd: a page is merged when two visits find it unchanged.",
        "let ksmd make more passes (here: --passes, --budget)",
    ),
    Reason(
        outcomes.SMART_SCAN, "smart_scan", "compared", "skipped by smart_scan",
        "It had no equal in its first visits, so that ksmd passes over it in most passes. It may have an equal by now.",
        "wait up to nine passes, or set smart_scan to 0, at the cost of more processor time",
    ),
    Reason(
        outcomes.FULL, "max_page_sharing", "compared", "equals are full (max_page_sharing)",
        "An equal is merged, and each frame that has it is full. It waits for one more equal, and the two begin another frame.",
        "raise max_page_sharing, while nothing is merged yet (run=2 unmerges): a content takes a frame for each max_page_sharing pages",
    ),
    Reason(
        outcomes.OTHER_NODE, "other_node", "compared", "its equal is on another NUMA node",
        "An equal has moved to another NUMA node during the pass, and merge_across_nodes is 0.",
        "set merge_across_nodes to 1 (after run=2), if access to another node's memory is fast enough",
    ),
    Reason(
        outcomes.HELD, "held", "compared", "held by another reference",
        "It has an equal, and more references than mappings: io_uring, a device, O_DIRECT or vmsplice() holds it. write_protect_page()"
        " refuses such a page.",
        "unregister the buffers, or use other memory for input and output than that which is alike",
    ),
    Reason(
        outcomes.EQUAL_HELD, "equal_held", "compared", "its equal is held",
        "Its equal in the unstable tree is held by another reference, so that the two cannot be merged.",
    ),
    Reason(
        outcomes.AGAIN, "again", "compared", "tried, and not yet merged",
        "KSM has tried, and has given up for this pass: the search met a page that is gone, the page or its equal was locked, one of the"
        " two changed, or a huge page could not be split.",
        "let ksmd make more passes",
    ),
    Reason(
        outcomes.SWAPPED, "swapped", "not looked at", "swapped out",
        "It is in swap. KSM looks at pages that are in memory.",
        "begin to merge before memory runs short: a page that is merged needs no swap",
    ),
    Reason(
        outcomes.FILE_PAGE, "file", "not looked at", "a file's, not written to",
        "It belongs to a private mapping of a file, and was not written to: it is the page cache's, and not anonymous.",
        "the page cache has each file once: use the same file in all places",
    ),
    Reason(
        outcomes.ONLY_READ, "only_read", "not looked at", "the zero page, only read",
        "It was read, and never written to: it is the kernel's zero page, and takes no memory.",
    ),
    Reason(
        outcomes.SHARED_MEMORY, "shared_memory", "not looked at", "shared memory",
        "It is shared memory (MAP_SHARED, memfd, /dev/shm, System V). vma_ksm_compatible() refuses such mappings.",
        "use private memory, where sharing is not needed: MAP_PRIVATE in place of MAP_SHARED",
    ),
    Reason(
        outcomes.SHARED_FILE, "shared_file", "not looked at", "a shared file's",
        "It is a shared mapping of a file. vma_ksm_compatible() refuses such mappings.",
        "the page cache has each file once: use the same file in all places",
    ),
    Reason(
        outcomes.GUEST, "guest", "not looked at", "shared memory of a guest",
        "It is the memory of a virtual machine, in a memfd, a file of /dev/shm or hugetlbfs: shared memory, as virtiofs and vhost-user"
        " want it.",
        "start QEMU without memory-backend share=on (cloud-hypervisor: --memory shared=off): with private memory, and without virtiofs and"
        " vhost-user",
    ),
    Reason(
        outcomes.HUGETLB, "hugetlb", "not looked at", "hugetlb",
        "It is a page of hugetlb. KSM cannot split it, and vma_ksm_compatible() refuses the mapping.",
        "use transparent huge pages in place of hugetlb: KSM splits those where it pays",
    ),
    Reason(
        outcomes.SPECIAL, "special", "not looked at", "special mappings",
        "It is a mapping of a device or of the kernel (VM_PFNMAP, VM_IO, VM_MIXEDMAP, VM_DONTEXPAND), as [vdso], or at an address that no"
        " program has.",
    ),
    Reason(
        outcomes.DROPPABLE, "droppable", "not looked at", "droppable",
        "It is memory that the kernel may drop at any time (MAP_DROPPABLE), and refuses to merge.",
    ),
    Reason(
        outcomes.NOT_MERGEABLE, "not_mergeable", "not looked at", "not mergeable as it is (--as)",
        "It is private and anonymous, and its mapping has not the flag VM_MERGEABLE: nobody has called madvise(MADV_MERGEABLE) for it, nor"
        " prctl() for the process; or MADV_UNMERGEABLE took it away.",
        "call madvise(MADV_MERGEABLE) for it, or prctl(PR_SET_MEMORY_MERGE) for the process (MemoryKSM=yes of systemd)",
    ),
    Reason(
        outcomes.APART, "zeros_apart", "not looked at", "zeros, perhaps not there",
        "It is a page of zeros of an image or a dump, which may have been written for memory that was never touched.",
        "say --zeros count, if the running machine has these pages",
    ),
    Reason(
        outcomes.ABSENT, "absent", "not there", "not there",
        "There is no page: it was never touched, or was given back; or the file leaves it out.",
    ),
)  # fmt: skip

BY_CODE = {reason.code: reason for reason in REASONS}
BY_NAME = {reason.name: reason for reason in REASONS}

assert len(BY_CODE) == len(REASONS) == outcomes.NR_REASONS

# What Area.refused says
REFUSED = {
    "shared memory": outcomes.SHARED_MEMORY, "shared file": outcomes.SHARED_FILE, "hugetlb": outcomes.HUGETLB, "special": outcomes.SPECIAL,
    "droppable": outcomes.DROPPABLE,
}  # fmt: skip

# What is not looked at, and has contents that can be read
READABLE = frozenset({
    outcomes.FILE_PAGE, outcomes.SHARED_MEMORY, outcomes.SHARED_FILE, outcomes.GUEST, outcomes.HUGETLB, outcomes.DROPPABLE,
    outcomes.NOT_MERGEABLE,
})  # fmt: skip

# What the page cache has once, whoever maps it
FILES = frozenset({outcomes.FILE_PAGE, outcomes.SHARED_FILE})

# What was looked at and could merge, if something else were otherwise
UNLUCKY = frozenset({
    outcomes.VOLATILE, outcomes.WAITING, outcomes.SMART_SCAN, outcomes.FULL, outcomes.OTHER_NODE, outcomes.HELD, outcomes.AGAIN,
})  # fmt: skip

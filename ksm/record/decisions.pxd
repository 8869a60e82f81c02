# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what KSM has decided of each page.


# What the last visit of ksmd has decided of a page. A byte of Decisions.of().
cpdef enum:
    NOT_VISITED = 0
    FIRST_VISIT             # its checksum was taken
    CHANGED                 # its checksum was another one than at the visit before
    SKIPPED                 # by smart_scan
    TO_ZERO_PAGE            # it became the kernel's zero page
    MERGED
    NO_EQUAL                # it waits in the unstable tree
    EQUAL_FULL              # it waits there; an equal is merged, and all frames that have it are full
    SAME_FRAME              # its frame is in the unstable tree already: a fork shares it
    MET_GONE                # the search came to an item whose page has gone, and gave up
    OTHER_NODE              # its equal has gone to another NUMA node
    HELD                    # write_protect_page() has refused it: somebody else has a reference
    EQUAL_HELD              # write_protect_page() has refused its equal
    BUSY                    # its equal is locked
    DIFFERS                 # one of the two has changed while they were merged
    FAILED                  # the page is locked, cannot be split, or its mapping has gone
    NR_DECISIONS

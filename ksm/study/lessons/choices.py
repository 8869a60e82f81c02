# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recordings that explain.
"""Lessons: what can be chosen. Zero pages, NUMA nodes, smart scan, the advisor."""

import ksm
from ksm.record.recording import Recording
from ksm.study.lessons.lesson import NEW, WITH_LIMIT, Lesson, no_skips, pages
from ksm.study.scenes import Scene


def zero_pages(machine: ksm.Machine) -> Recording:
    no_skips(machine)
    machine.ksm.use_zero_pages = 1
    recording = machine.record()
    rita, sam = machine.spawn("rita"), machine.spawn("sam")
    pages(rita, ["\0", "a few words"])
    at = pages(sam, ["\0"])
    recording.note("Rita and Sam have each written a page of zeros. use_zero_pages is 1.")
    machine.ksm.scan(passes=2)
    sam.write(at, b"no zeros")
    recording.note("Sam has written to his page.")
    machine.ksm.use_zero_pages = 0
    pages(sam, ["\0", "\0"])
    recording.note("use_zero_pages is 0 now. Sam has written two more pages of zeros.")
    machine.ksm.scan(passes=2)
    return recording


ZERO = Lesson(
    "zero", "Pages of zeros", "try_to_merge_with_zero_page", zero_pages,
    """A page that was written full of zeros is a page as any other: it takes a frame. The kernel has one frame of zeros for all who read
    memory that they never wrote to, the zero page. With use_zero_pages KSM maps it in place of pages of zeros. They are found by their
    checksum, which is compared with that of zeros, and then byte by byte. {where}

    Such a page is at no node of the stable tree, has no sharers to be counted, and no limit to them. {counted} It is no merged page: a
    write to it is the same fault as the first write to memory that is new.

    With use_zero_pages at 0, which is what the kernel begins with, pages of zeros merge with each other as all others do.""",
    eras=WITH_LIMIT,
    words={
        "where": {"6.1": "In this kernel the stable tree is searched before, so zeros join a merged page of zeros if there is one.",
                  **dict.fromkeys(NEW, "Neither tree is asked.")},
        "counted": {"6.1": "Nothing counts them in this kernel: the entry looks like that of memory that was only read.",
                    **dict.fromkeys(NEW, "ksm_zero_pages counts them, and their entries are marked, so that unmerging finds them.")},
    },
    scenes=(
        Scene("two-zeros", "NOTE", "Two pages of zeros", "Two frames hold nothing but zeros: Rita's and Sam's.", nth=2,
              question="Two equal pages, and both of zeros. What will they share?",
              answers=("A merged page", "The zero page, which is there anyway", "Nothing: zeros are not merged"), right=1,
              why="With use_zero_pages both frames become free. A merged page would still take one."),
        Scene("once", "PASS_ENDS", "The first visit", "As always, the first visit only takes the checksum."),
        Scene("checksum", "UNCHANGED", "The checksum of zeros", """
            It has not changed, and it is that of zeros. The checksum is a hint; the bytes are compared before anything is merged."""),
        Scene("first", "ZERO_MERGED", "The zero page", """
            Rita's entry leads to the zero page, and her frame is free. No node was made: pages_shared is 0."""),
        Scene("words", "UNSTABLE_INSERTED", "The other page", "Rita's words are no zeros, and go into the unstable tree."),
        Scene("second", "ZERO_MERGED", "Sam's, too", "ksm_zero_pages is 2: two frames were saved.", nth=2, eras=NEW),
        Scene("second", "ZERO_MERGED", "Sam's, too", "Two frames were saved, and no counter of KSM's shows it.", nth=2, eras=("6.1",)),
        Scene("written", "NOTE", "A write", """
            Sam writes. His page is no merged page, so cow_ksm does not count it: the fault gives him a new page, as for memory that was
            never written to. ksm_zero_pages goes down.""", nth=3, eras=NEW),
        Scene("written", "NOTE", "A write", """
            Sam writes. His page is no merged page, so cow_ksm does not count it: the fault gives him a new page, as for memory that was
            never written to.""", nth=3, eras=("6.1",)),
        Scene("off", "NOTE", "Switched off", "What has become the zero page stays so. From now on zeros are ordinary contents.", nth=4,
              question="Sam has two new pages of zeros. What becomes of them?",
              answers=("They become the zero page", "They merge with each other", "They stay apart"), right=1,
              why="One of them is freed, and the other is a merged page with a node, like any other."),
        Scene("merged", "TWO_MERGED", "A merged page of zeros", "Sam's two pages are one frame."),
        Scene("counted", "APPENDED", "Counted as all others", "pages_shared 1, pages_sharing 1. Rita's zero page is in neither.", nth=2),
    ),
)


def nodes(machine: ksm.Machine) -> Recording:
    no_skips(machine)
    machine.ksm.merge_across_nodes = 0
    recording = machine.record()
    people = [machine.spawn("tina"), machine.spawn("uwe", node=1), machine.spawn("vera", node=1)]
    for each in people:
        pages(each, ["the same page"])
    recording.note("Three equal pages. Tina's is on node 0, Uwe's and Vera's are on node 1. merge_across_nodes is 0.")
    machine.ksm.scan(passes=2)
    recording.note("Two of the three are one frame.")
    machine.ksm.run = 2
    machine.ksm.run = 0
    machine.ksm.merge_across_nodes = 1
    recording.note("All was unmerged (run = 2), for only then can merge_across_nodes be changed. It is 1 now.")
    machine.ksm.scan(passes=2)
    return recording


NUMA = Lesson(
    "numa", "Trees for each node", "get_kpfn_nid", nodes,
    """In a large computer each processor has memory near to it, and reaches that of the others more slowly: NUMA nodes. A merged page lies
    on one node, and is far away for some of its sharers. With merge_across_nodes at 0 there are a stable and an unstable tree for each
    node, and only pages of one node are compared.

    Tina's page is on node 0, the equal pages of Uwe and Vera are on node 1. Theirs merge, and hers stays alone in its tree.

    merge_across_nodes cannot be changed while anything is merged (EBUSY), because the trees would have to be sorted anew. So run is
    set to 2 first, which unmerges everything. Then all three share one frame.""",
    eras=WITH_LIMIT,
    options={"memory": "8M", "max_memory": "8M", "nodes": 2},
    scenes=(
        Scene("three", "NOTE", "Three equal pages on two nodes", "One page is on node 0, two are on node 1.", nth=2,
              question="merge_across_nodes is 0. How many frames will hold the text in the end?",
              answers=("One", "Two", "Three"), right=1, why="One for each node: pages of two nodes are never compared."),
        Scene("first-tree", "UNSTABLE_INSERTED", "The tree of node 0", "Tina's page is a leaf of the unstable tree of node 0."),
        Scene("second-tree", "UNSTABLE_INSERTED", "The tree of node 1", """
            Uwe's page is a leaf of another tree. It was compared with nothing.""", nth=2),
        Scene("found", "UNSTABLE_FOUND", "In the same tree", "Vera's page meets Uwe's. Tina's equal page is in the other tree."),
        Scene("merged", "STABLE_INSERTED", "A stable tree for each node", "The merged frame is on node 1, and so is its stable tree."),
        Scene("two-frames", "NOTE", "Two frames", "pages_sharing is 1. It could be 2.", nth=3,
              question="Can merge_across_nodes be set to 1 now?",
              answers=("Yes", "No: EBUSY, as long as anything is merged"), right=1,
              why="The merged pages would be in the wrong trees. Everything has to be unmerged first."),
        Scene("unmerge", "BREAK_KSM", "run = 2", "Everything is unmerged: a page fault for each place that maps a merged page."),
        Scene("stale", "NODE_STALE", "The node goes", "Nobody maps the merged frame any more, and its node is removed."),
        Scene("across", "NOTE", "Across the nodes", "Now all pages go into one tree, wherever they are.", nth=4),
        Scene("again", "CHANGED", "From the beginning", """
            The items were taken away with their checksums. So each page is new to ksmd.""", nth=4),
        Scene("two", "TWO_MERGED", "Tina's and Uwe's", "The page on node 1 meets the one on node 0.", nth=2),
        Scene("all", "APPENDED", "All three", "pages_sharing is 2. For those on the other node every read goes further now.", nth=-1),
    ),
)


def skipped_pages(machine: ksm.Machine) -> Recording:
    wanda, xaver = machine.spawn("wanda"), machine.spawn("xaver")
    pages(wanda, ["a poem"])
    at = pages(xaver, ["a recipe"])
    machine.ksm.scan(passes=4)
    recording = machine.record()
    recording.note("Four passes have looked at Wanda's page and at Xaver's. They have no equal.")
    machine.ksm.scan(passes=5)
    xaver.write(at, b"a poem\0\0")
    recording.note("Xaver has copied the poem into his page. It is equal to Wanda's from now on.")
    machine.ksm.scan(passes=14)
    return recording


SMART = Lesson(
    "smart", "Smart scan: pages that are skipped", "should_skip_rmap_item", skipped_pages,
    """Most pages that ever merge do so soon. A page that did not merge in its first visits is looked at less and less often: after its
    fourth visit it is skipped in one pass, after the fifth in two, then in four, and then in eight passes after each visit. It is visited
    in the passes 0, 1, 2, 3, 5, 8, 13, 22, 31 and so on.

    It goes by the page's age: how often ksmd came by without merging it. Whether it has changed is not asked, because that would take the
    checksum, and the checksum is what is to be saved.

    Xaver copies Wanda's poem, and their pages are equal from then on. It takes two visits of his page to see that, and the visits are far
    apart by now: they merge fourteen passes later. With smart_scan at 0 it would have been the second pass.""",
    eras=NEW,
    scenes=(
        Scene("old", "NOTE", "Two old pages", """
            Each was visited four times. At the last visit it was old enough to get its first skip.""", nth=2),
        Scene("first-skip", "SKIPPED", "The first skip", """
            The page is not looked at. It also leaves the unstable tree, where it would be two passes old next time.""",
              question="What does a skip save?",
              answers=("The checksum and the way down the trees", "Memory", "Nothing, it is for order"), right=0,
              why="4096 bytes are read for the checksum, and more for each comparison. That is most of ksmd's work."),
        Scene("visited", "NEXT", "Visited again", "Its skip is used up, so this pass looks at it, and gives it two skips."),
        Scene("two-skips", "SKIPPED", "Now two in a row", "pages_skipped counts each skip.", nth=5),
        Scene("copied", "NOTE", "An equal, and nobody sees it", "Xaver's page has the bytes of Wanda's now. Both have four skips.", nth=3,
              question="In how many passes from now do they merge?",
              answers=("Two", "Five", "Fourteen"), right=2,
              why="Four skips, a visit that sees the new checksum, eight skips, a visit that compares."),
        Scene("seen", "CHANGED", "The first visit after the change", """
            The checksum is another one. It is remembered, and the page is left alone. And it gets eight skips."""),
        Scene("eight", "SKIPPED", "Eight skips", "The page would only have to be visited once more.", nth=15),
        Scene("found", "UNSTABLE_FOUND", "The second visit", "Its checksum holds, and Wanda's page is in the tree."),
        Scene("merged", "TWO_MERGED", "Merged, fourteen passes later", "A merged page is not skipped: it costs little to visit."),
    ),
)


def advised(machine: ksm.Machine) -> Recording:
    no_skips(machine)
    recording = machine.record()
    yuri = machine.spawn("yuri")
    pages(yuri, ["one", "two", "three"])
    machine.ksm.advisor_mode = "scan-time"
    recording.note(f"The advisor is on: advisor_mode is scan-time. pages_to_scan is {machine.ksm.pages_to_scan}, its start value.")
    for seconds, busy in ((10, 1), (400, 300), (300, 99), (200, 40)):
        machine.ksm.scan(pages=1)
        machine.advance(seconds, ksmd=busy)
        machine.ksm.scan()
        recording.note(f"That pass took {seconds} seconds, and {busy} of them on a processor. "
                       f"pages_to_scan is {machine.ksm.pages_to_scan} now.")
    return recording


ADVISOR = Lesson(
    "advisor", "The advisor", "scan_time_advisor", advised,
    """How fast ksmd scans is for the operator to say: pages_to_scan pages, then a sleep of sleep_millisecs. No number is right for long,
    because the memory to scan grows and shrinks. The advisor chooses pages_to_scan by itself: after each pass it looks how long that took,
    and aims at advisor_target_scan_time, 200 seconds.

    The times of this recording were made up, and the numbers are what the kernel computes from them. A pass of 400 seconds was too slow, so
    the next ones scan more at a time. The change is damped: what was last needed counts for a part of it.

    There are limits. advisor_max_cpu is the share of a processor that ksmd may take, 70 percent; advisor_max_pages_to_scan is 30000. The
    file pages_to_scan cannot be written to while the advisor chooses it. advisor_min_pages_to_scan is where it begins, and no limit
    later.""",
    eras=NEW,
    scenes=(
        Scene("on", "NOTE", "The advisor is on", "It begins with 500 pages, which is advisor_min_pages_to_scan.", nth=2,
              question="What does the advisor look at?",
              answers=("How much memory is free", "How long the last pass took", "How many pages merged"), right=1,
              why="It wants each pass to take advisor_target_scan_time, and knows nothing else."),
        Scene("begins", "PASS_BEGINS", "The clock runs", "The time of a pass counts from here."),
        Scene("ends", "PASS_ENDS", "The pass is over", "Its time is known now, and what of it ksmd was on a processor."),
        Scene("fast", "NOTE", "A pass of 10 seconds", """
            Fast enough, by far. The first passes count for little: pages_to_scan stays.""", nth=3),
        Scene("slow", "NOTE", "A pass of 400 seconds", """
            Twice the target, and 75 percent of a processor. The busy processor is what limits it: pages_to_scan even falls.""", nth=4,
              question="The next pass takes 300 seconds, and a third of a processor. Which way will pages_to_scan go?",
              answers=("Up", "Down", "It stays"), right=0,
              why="300 seconds are too many, and there is room up to 70 percent of the processor."),
        Scene("up", "NOTE", "A pass of 300 seconds", "It has doubled.", nth=5),
        Scene("more", "NOTE", "A pass of 200 seconds", """
            What was measured before still has its weight, so the number goes on rising.""", nth=6),
    ),
)

LESSONS = (ZERO, NUMA, SMART, ADVISOR)

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recordings that explain.
"""Lessons: what becomes of the two trees."""

import ksm
from ksm.record.recording import Recording
from ksm.study.lessons.lesson import PAGE, WITH_LIMIT, Lesson, no_skips, pages
from ksm.study.scenes import Scene


def rotten_tree(machine: ksm.Machine) -> Recording:
    recording = machine.record()
    dave, erin = machine.spawn("dave"), machine.spawn("erin")
    texts = ["d: ocean", "h: river", "l: wind", "p: sand", "t: snow", "x: cloud", "z: moon"]
    start = pages(dave, texts)
    pages(erin, ["d: ocean", "k: her own"])
    recording.note("Dave has seven pages, Erin one that is equal to a page of his.")
    machine.ksm.scan()
    machine.ksm.scan(pages=len(texts))
    dave.write(start + 1 * PAGE, b"a: drought")
    recording.note("In the middle of the pass Dave has written to the page at the root. It belongs to the left of all others now.")
    machine.ksm.scan()
    recording.note("A new pass, a new tree. Dave's page that has changed stays out for one pass.")
    machine.ksm.scan(passes=2)
    return recording


ROTTEN = Lesson(
    "unstable", "The unstable tree rots, and is rebuilt", "unstable_tree_search_insert", rotten_tree,
    """Pages in the unstable tree are not write-protected. Here the tree is filled in the second pass with what Dave has; in the middle of
    the pass, with the cursor between Dave and Erin, Dave writes to a page that is in the tree. Nobody tells the tree: the page stays where
    it was, and is now in the wrong place. The tree is rotten.

    Erin's page, whose equal Dave has all the while, is led astray by the node that has changed, and becomes a leaf on the wrong side. That
    costs a merge, and nothing else: the tree is balanced by its colours, not by what is in it, so it cannot degenerate; and no page is
    merged without being compared.

    With the next pass the tree is dropped, by setting its root to nothing, and is built again from what the pages hold now. This time the
    two meet.""",
    scenes=(
        Scene("nine-pages", "NOTE", "Nine pages", "Dave has seven pages, Erin two. One of hers is equal to his first: d: ocean.", nth=2),
        Scene("all-seen", "PASS_ENDS", "Nothing sorted as yet", "The first pass gives each page its checksum."),
        Scene("seven", "UNSTABLE_INSERTED", "Seven pages in order", """
            The second pass has come to the end of Dave's memory. His pages are in the unstable tree, ordered by their bytes, and still
            writable.""", nth=7,
              question="Dave writes to the page at the root now: a: drought. What does the tree do?",
              answers=("It moves the page to its new place", "Nothing: nobody tells it", "It is dropped"), right=1,
              why="The pages are not write-protected, so a write is no fault. Nobody is told, and the page stays where it was."),
        Scene("rotten", "NOTE", "The tree is rotten", """
            The root says a: drought, and all that is smaller than h: river hangs to its left. The order is lost.""", nth=3),
        Scene("astray", "UNSTABLE_INSERTED", "Led astray", """
            Erin's d: ocean is greater than a: drought, so it went to the right. Its equal is on the left. It has become a leaf on the wrong
            side.""", nth=8),
        Scene("cost", "PASS_ENDS", "What it has cost", """
            A merge was missed, and nothing else has happened. The tree is as balanced as before, because its colours keep it so.""", nth=2,
              question="How is the order repaired?",
              answers=("The tree is sorted again", "Each write repairs it", "The tree is thrown away, and built anew"), right=2,
              why="Dropping it costs one assignment. All pages are visited in the next pass anyway."),
        Scene("dropped", "PASS_BEGINS", "Dropped", """
            A new pass: the root is set to nothing. The items still have their marks of the last pass.""", nth=3),
        Scene("stays-out", "CHANGED", "Who has changed stays out", """
            a: drought has another checksum than in the last pass: not in this one.""", nth=10),
        Scene("found", "UNSTABLE_FOUND", "This time they meet", "Erin's page comes to Dave's equal, in a tree of what the pages hold now."),
        Scene("merged", "TWO_MERGED", "A pass late", "The two are one frame."),
        Scene("all-in", "UNSTABLE_INSERTED", "And the one that had changed", """
            In the fourth pass it has kept still, and is in the tree, at its right place.""", nth=-7),
    ),
)


def chain_of_dups(machine: ksm.Machine) -> Recording:
    no_skips(machine)
    machine.ksm.max_page_sharing = 4
    recording = machine.record()
    frank = machine.spawn("frank")
    pages(frank, ["the same page"] * 8)
    recording.note("Frank has eight equal pages. Four may share one frame: max_page_sharing is 4 here.")
    machine.ksm.scan(passes=2)
    recording.note("Eight pages, two frames. Both nodes hang in one chain.")
    machine.ksm.scan()
    return recording


CHAIN = Lesson(
    "chain", "One sharer too many, and the chain", "stable_tree_insert", chain_of_dups,
    """Whoever moves or reclaims a merged page has to visit all places that map it, so a page may have 256 sharers at most
    (max_page_sharing). That is many to look at: here the limit is set to 4, and Frank has eight equal pages.

    The first two become one frame, the third and the fourth join. The fifth finds its equal in the stable tree, and finds it full; it goes
    to the unstable tree, as if there were none. The sixth meets it there, and the two are merged into a second frame with the same bytes.
    This frame cannot have a place of its own in the tree, because the tree has one place for one content. So a chain takes the place of the
    old node, and both nodes hang in the chain, as its dups. The next equal page joins the dup that has room.""",
    eras=WITH_LIMIT,
    scenes=(
        Scene("eight", "NOTE", "Eight equal pages", """
            Frank has eight pages with the same bytes. No more than four may share a frame.""", nth=2,
              question="How many frames will his eight pages take in the end?",
              answers=("One", "Two", "Eight"), right=1, why="One is not allowed. Two frames with four sharers each are."),
        Scene("one-pass", "PASS_ENDS", "The first pass", "Eight checksums, all the same. Nothing is compared as yet."),
        Scene("first-two", "TWO_MERGED", "The first two", "The second page met the first in the unstable tree."),
        Scene("third", "MERGED", "The third", "The third page met the merged one in the stable tree, and joins it."),
        Scene("fourth", "APPENDED", "The fourth", "Four sharers: the frame is full.", nth=4,
              question="The fifth page finds its equal in the stable tree. What becomes of it?",
              answers=("It joins all the same", "It goes on to the unstable tree, as if it had found none",
                       "It is left alone for good"), right=1,
              why="stable_tree_search() finds the page full, and answers that there is none."),
        Scene("full", "STABLE_FULL", "Full", """
            An equal, and no room. The reason is in the rest of the kernel: whoever moves the frame visits all its sharers."""),
        Scene("as-if", "UNSTABLE_INSERTED", "As if there were none", "The fifth page waits in the unstable tree.", nth=2),
        Scene("second-frame", "TWO_MERGED", "A second frame", """
            The sixth page found the first frame full, too, and met the fifth. Now there are two merged frames.""", nth=2),
        Scene("no-place", "INSERT_COMPARE", "The place is taken", """
            The new frame is to get a place in the stable tree. An equal node is there already."""),
        Scene("chain", "CHAIN_MADE", "A chain", "A chain takes the place of the node in the tree, and the node hangs in it."),
        Scene("dup", "DUP_ADDED", "And a second dup", "The new frame's node hangs in the chain as well. Each of the two is a dup."),
        Scene("room", "MERGED", "Who has room", "The seventh page comes to the chain, and joins the dup that has room.", nth=3),
        Scene("end", "NOTE", "Eight pages, two frames", "pages_shared is 2, pages_sharing 6. One chain has two dups.", nth=3),
    ),
)

LESSONS = (ROTTEN, CHAIN)

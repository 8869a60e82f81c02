# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recordings that explain.
"""Lessons: what becomes of the two trees."""

import ksm
from ksm.record.recording import Recording
from ksm.study.lessons.lesson import PAGE, WITH_LIMIT, Lesson, no_skips, pages


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
)

LESSONS = (ROTTEN, CHAIN)

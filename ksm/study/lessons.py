# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recordings that explain.
"""The lessons of `ksm study`: small programs, run and recorded when the page is made, so that they show what this port does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ksm
from ksm.record.recording import Recording
from ksm.study.scenes import Scene, resolve

if TYPE_CHECKING:
    from ksm.machine import _Era as Era

PAGE = ksm.PAGE_SIZE
Lesson = Callable[[ksm.Machine], Recording]


def pages(process: ksm.Process, contents: list[str]) -> int:
    """New mergeable memory of a process, one page for each text: its address."""
    start = process.mmap(len(contents) * PAGE)
    for number, text in enumerate(contents):
        process.write(start + number * PAGE, text.encode())
    process.madvise(start, len(contents) * PAGE, ksm.MADV_MERGEABLE)
    return start


def equal_pages(machine: ksm.Machine) -> Recording:
    """Two equal pages become one

    Alice and Bob each have three pages; one text is in both of their memories. KSM needs two visits to find it. On the first one it only
    computes a checksum, because a page that is being written to is not worth the trouble. On the second one the checksum is the same, so
    the page is looked up in the stable tree, which is empty, and then goes into the unstable tree. Bob's page takes the same way, and on
    its way down meets an equal.

    Now the two become one. Bob's page is write-protected, and then Alice's. They are compared again, because each could be written to
    until now. Then Alice's page table entry is made to point at Bob's frame, and the other frame is free. Bob's frame gets a node in the
    stable tree, with an rmap_item for each place that maps it. From then on the tree finds it for every page with the same bytes.

    Watch the entries lose their W, the frames' mapcounts, and pages_sharing: the number of frames saved.
    """
    recording = machine.record()
    alice, bob = machine.spawn("alice"), machine.spawn("bob")
    pages(alice, ["the same page", "a diary", "a list"])
    pages(bob, ["a novel", "the same page", "a bill"])
    recording.note("Alice and Bob have written their pages, and said MADV_MERGEABLE.")
    machine.ksm.scan(passes=3)
    return recording


def changing_page(machine: ksm.Machine) -> Recording:
    """A page that keeps changing

    The clock writes the time into its page before each pass. Its bytes are those of Carol's page each time, so they could be merged; and
    yet KSM does not try, because the checksum differs from that of the last visit. What changes between two passes is counted as
    volatile, and costs one checksum a pass, no more. It never gets into the unstable tree, where it would soon be in the wrong place.

    A page that does not merge for long is looked at less and less often: that is smart scanning, the skips in this recording. It goes by
    age, not by change: after a few passes the pages that never change are skipped, too.

    Then the clock stops. On the next visit its checksum holds, and it merges. That visit comes two passes late: this is what the skips
    cost.
    """
    recording = machine.record()
    clock, carol = machine.spawn("clock"), machine.spawn("carol")
    face = pages(clock, ["12:00", "made of brass"])
    copy = pages(carol, ["12:00", "a cup of tea"])
    for minute in range(1, 7):
        recording.note(f"The clock says 12:{minute:02}, and Carol writes it down.")
        clock.write(face, f"12:{minute:02}".encode())
        carol.write(copy, f"12:{minute:02}".encode())
        machine.ksm.scan()
    recording.note("The clock has stopped.")
    machine.ksm.scan(passes=4)
    return recording


def rotten_tree(machine: ksm.Machine) -> Recording:
    """The unstable tree rots, and is rebuilt

    Pages in the unstable tree are not write-protected. Here the tree is filled in the second pass with what Dave has; in the middle of the
    pass, with the cursor between Dave and Erin, Dave writes to a page that is in the tree. Nobody tells the tree: the page stays where it
    was, and is now in the wrong place. The tree is rotten.

    Erin's page, whose equal Dave has all the while, is led astray by the node that has changed, and becomes a leaf on the wrong side. That
    costs a merge, and nothing else: the tree is balanced by its colours, not by what is in it, so it cannot degenerate; and no page is
    merged without being compared.

    With the next pass the tree is dropped, by setting its root to nothing, and is built again from what the pages hold now. This time the
    two meet.
    """
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


def chain_of_dups(machine: ksm.Machine) -> Recording:
    """The 257th sharer, and the chain

    Whoever moves or reclaims a merged page has to visit all places that map it, so a page may have 256 sharers at most (max_page_sharing).
    Frank has 260 equal pages. The recording begins with 254 of them merged.

    The 255th and the 256th join. The 257th finds its equal in the stable tree, and finds it full; it goes to the unstable tree, as if there
    were none. The 258th meets it there, and the two are merged into a second frame with the same bytes. This frame cannot have a place of
    its own in the tree, because the tree has one place for one content. So a chain takes the place of the old node, and both nodes hang in
    the chain, as its dups. The next equal page joins the dup that has room.
    """
    frank = machine.spawn("frank")
    start = frank.mmap(260 * PAGE)
    for number in range(254):
        frank.write(start + number * PAGE, b"the same page again")
    frank.madvise(start, 260 * PAGE, ksm.MADV_MERGEABLE)
    machine.ksm.smart_scan = 0
    machine.ksm.scan(passes=3)
    for number in range(254, 260):
        frank.write(start + number * PAGE, b"the same page again")
    machine.ksm.scan()          # their checksums
    machine.ksm.scan(pages=254)
    recording = machine.record()
    recording.note("254 of Frank's pages are one frame already. He has written six more, and the cursor comes to them for the second time.")
    machine.ksm.scan()
    return recording


def copy_on_write(machine: ksm.Machine) -> Recording:
    """A write to a merged page

    Grace, Heidi and Ivan share one frame. All three entries are read-only, whatever their owners may do. When Heidi writes, the processor
    faults; the fault finds a page that is not Heidi's alone, takes a new frame, copies, and makes her entry writable again. Only the
    copy is written to. For the program it was a slow store, and nothing else.

    KSM is not told. Its rmap_item for Heidi stays at the stable node, and pages_sharing still counts it, until the scan comes by, sees that
    the page there is another one, and takes the item out.

    Then Grace says MADV_UNMERGEABLE: the same fault, asked for by break_ksm() and without a write. Last, Ivan writes too, and nobody maps
    the merged frame any more. A stable node holds no reference on its page: the frame is freed at once, and the node is stale. Whatever
    meets the node next, a search or one of its items, removes it.
    """
    recording = machine.record()
    grace, heidi, ivan = (machine.spawn(name) for name in ("grace", "heidi", "ivan"))
    at = {each: pages(each, ["we agree", f"but I am {each.name}"]) for each in (grace, heidi, ivan)}
    machine.ksm.scan(passes=3)
    recording.note("Three passes later they share one frame.")
    heidi.write(at[heidi], b"I object!")
    recording.note("Heidi has written: a frame of her own. Her item is still at the node.")
    machine.ksm.scan()
    grace.madvise(at[grace], PAGE, ksm.MADV_UNMERGEABLE)
    recording.note("Grace does not want to share any more.")
    machine.ksm.scan()
    ivan.write(at[ivan], b"Then I do, too")
    recording.note("Ivan writes: the merged frame is free, and its node stale.")
    machine.ksm.scan()
    return recording


LESSONS: tuple[tuple[str, Era, Lesson], ...] = (
    ("equal", "6.12", equal_pages),
    ("changing", "6.12", changing_page),
    ("unstable", "6.12", rotten_tree),
    ("chain", "6.12", chain_of_dups),
    ("write", "6.12", copy_on_write),
    ("equal-2011", "2.6.38", equal_pages),
)
# What the story of a lesson stops at, by the key of the lesson
EQUAL = (
    Scene("two-memories", "NOTE", "Two memories, six frames", """
        Alice and Bob each have three pages. Below each page is the number of the frame that holds its bytes, and W: its owner may write to
        it. One text is in both memories, in two frames. madvise() has told KSM that it may look at these pages.""", nth=2,
          question="ksmd comes to a page for the first time. What does it do with it?",
          answers=("It compares the page with all others", "It computes a checksum of it, and goes on", "It makes the page read-only"),
          right=1, why="A page that is being written to is not worth comparing, and one visit cannot tell whether it is."),
    Scene("checksum", "CHANGED", "The first visit: a checksum", """
        The first page gets a checksum, which is kept in its rmap_item, and is left alone. Nothing is compared as yet: neither tree has a
        page in it."""),
    Scene("all-seen", "PASS_ENDS", "One pass is over", """
        Each page was seen once. All six count as volatile: nobody knows as yet whether they hold still."""),
    Scene("still", "UNCHANGED", "The second visit: it kept still", """
        The checksum is that of the last visit, so the page may be worth a search. First in the stable tree, which has the pages that are
        merged already.""",
          question="The stable tree is empty. Where does the page go?",
          answers=("Into the stable tree", "Into the unstable tree", "Nowhere, until the next pass"),
          right=1, why="The stable tree has merged pages only. A page without an equal waits for one in the unstable tree.",
          eras=("6.12", "7.3")),
    Scene("still", "UNCHANGED", "The second visit: it kept still", """
        The stable tree, which has the pages that are merged already, was searched first, and is empty. Only then does the checksum count:
        it is that of the last visit, so the page may be worth a search of the other tree.""",
          question="No merged page is its equal. Where does the page go?",
          answers=("Into the stable tree", "Into the unstable tree", "Nowhere, until the next pass"),
          right=1, why="The stable tree has merged pages only. A page without an equal waits for one in the unstable tree.",
          eras=("2.6.38", "6.1")),
    Scene("leaf", "UNSTABLE_INSERTED", "The unstable tree", """
        The page is the root of the unstable tree. It was not made read-only: its owner may still write to it, and this is what the
        tree's name is about."""),
    Scene("left-or-right", "UNSTABLE_COMPARE", "Smaller to the left, greater to the right", """
        Alice's second page is compared with the first, byte by byte. The first byte that differs decides to which side it goes."""),
    Scene("rotation", "UNSTABLE_INSERTED", "The tree balances itself", """
        Three pages in a row would make a list. A red-black tree turns instead, and so a search never needs more than 2 log2(n + 1)
        comparisons.""", nth=3),
    Scene("found", "UNSTABLE_FOUND", "Bob's page meets its equal", """
        On its way down Bob's second page is compared with Alice's first: equal in all 4096 bytes. The two are to become one.""",
          question="Whose page table entry will be changed to another frame?",
          answers=("Alice's, whose page was in the tree", "Bob's, whose page was searched for", "Both: the bytes go to a third frame"),
          right=0, why="Bob's frame becomes the merged page. Alice's entry is made to lead there, and her frame is free."),
    Scene("protected", "WRITE_PROTECTED", "W falls", """
        Bob's entry loses its W. From now on nobody can change this frame without a page fault, so that what is compared now stays so."""),
    Scene("swung", "REPLACED", "Alice's entry swings over", """
        Alice's entry lost its W as well, the two pages were compared once more, and now her entry leads to Bob's frame. Nobody maps the
        other frame: it is free. This is the page that KSM has saved."""),
    Scene("node", "STABLE_INSERTED", "A node in the stable tree", """
        The merged frame gets a stable node. Each page with the same bytes will find it here on its way, before it comes to the unstable
        tree."""),
    Scene("two-sharers", "APPENDED", "Who shares it", """
        An rmap_item for each place that maps the frame hangs at the node: Alice's and Bob's. pages_shared is 1, the frames in the tree;
        pages_sharing is 1, the frames that were saved.""", nth=2,
          question="A new pass begins. What becomes of the two trees?",
          answers=("Both stay", "Both are built anew", "The unstable tree is dropped, the stable tree stays"),
          right=2, why="Nobody can write to merged pages, so their order holds. The order of the others may be lost by any write."),
    Scene("anew", "PASS_BEGINS", "The unstable tree is dropped", """
        Four pages had no equal. Their tree is dropped at once, by setting its root to nothing, and is built again in this pass from what
        the pages hold now.""", nth=3),
    Scene("at-home", "AT_ITS_NODE", "Merged pages are passed over", """
        Alice's first page is at its node already: nothing to do. The four others are compared and sorted again, pass after pass.""",
          eras=("6.1", "6.12", "7.3")),
)
SCENES = {"equal": EQUAL, "equal-2011": EQUAL}

IN_2011 = """The first lesson once more, on the KSM of 2011. The stable tree is searched first, before anybody looks at the
checksum: a page that changes all the time can still merge with one that is merged. The checksum, jhash2 then, only guards
the unstable tree. There are no chains, no skipped pages, and a merged page is passed over at once."""


def record_lesson(key: str) -> dict[str, Any]:
    """Run one of the lessons: its recording, with its text."""
    era, lesson = next((era, lesson) for name, era, lesson in LESSONS if name == key)
    title, _, text = (lesson.__doc__ or "").partition("\n")
    if era != "6.12":
        title, text = f"{title}, in 2011", IN_2011
    with ksm.Machine(memory="4M", max_memory="4M", clock="manual", plain=True, era=era) as machine:
        with lesson(machine) as recording:
            pass
        wrong = machine.check()
    assert not wrong, wrong
    paragraphs = [" ".join(part.split()) for part in text.strip().split("\n\n")]
    data = recording.data(title.strip(), "\n\n".join(paragraphs))
    return {"key": key, **data, "lesson": key, "scenes": resolve(SCENES.get(key, ()), data["steps"], era)}

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recordings that explain.
"""The lessons of `ksm study`: small programs, run and recorded when the page is made, so that they show what this port does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ksm
from ksm.record.recording import Recording

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
    return {"key": key, **recording.data(title.strip(), "\n\n".join(paragraphs))}

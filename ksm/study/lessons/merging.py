# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recordings that explain.
"""Lessons: how two pages become one, and why not at once."""

import ksm
from ksm.record.recording import Recording
from ksm.study.lessons.lesson import NEW, OLD, Lesson, by_era, pages
from ksm.study.scenes import Scene


def equal_pages(machine: ksm.Machine) -> Recording:
    recording = machine.record()
    alice, bob = machine.spawn("alice"), machine.spawn("bob")
    pages(alice, ["the same page", "a diary", "a list"])
    pages(bob, ["a novel", "the same page", "a bill"])
    recording.note("Alice and Bob have written their pages, and said MADV_MERGEABLE.")
    machine.ksm.scan(passes=3)
    return recording


EQUAL_SCENES = (
    Scene("two-memories", "NOTE", "Two memories, six frames", """
        Alice and Bob each have three pages. An arrow leads from each page to the frame that holds its bytes; W says that its owner may
        write to it. One text is in both memories, in two frames. madvise() has told KSM that it may look at these pages.""", nth=2,
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
        Alice's first page is at its node already: nothing to do. The four others are compared and sorted again.""",
          eras=("6.1", "6.12", "7.3")),
)
EQUAL = Lesson(
    "equal", "Two equal pages become one", "cmp_and_merge_page", equal_pages,
    """Alice and Bob each have three pages; one text is in both of their memories. KSM needs two visits to find it. {visits} Bob's page
    takes the same way, and on its way down meets an equal.

    Now the two become one. Bob's page is write-protected, and then Alice's. They are compared again, because each could be written to
    until now. Then Alice's page table entry is made to point at Bob's frame, and the other frame is free. Bob's frame gets a node in the
    stable tree, with an rmap_item for each place that maps it. From then on the tree finds it for every page with the same bytes.

    Watch the entries lose their W, the frames' mapcounts, and pages_sharing: the number of frames saved.""",
    words={"visits": by_era(
        old="""On each one the stable tree, which is empty, is searched first. Then comes the checksum. At the first visit there is none of
        an earlier visit, and a page that is being written to is not worth the trouble. At the second visit the checksum is the same, so the
        page goes into the unstable tree.""",
        new="""On the first one it only computes a checksum, because a page that is being written to is not worth the trouble. On the second
        one the checksum is the same, so the page is looked up in the stable tree, which is empty, and then goes into the unstable tree.""")
        | {"2.6.38": """On each one the stable tree, which is empty, is searched first. Then comes the checksum, jhash2 over the whole page,
        which guards the unstable tree only. At the first visit there is none of an earlier visit. At the second visit it is the same, so
        the page goes into the unstable tree."""}},
    scenes=EQUAL_SCENES,
)


def changing_page(machine: ksm.Machine) -> Recording:
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


CHANGING = Lesson(
    "changing", "A page that keeps changing", "cmp_and_merge_page", changing_page,
    """The clock writes the time into its page before each pass. Its bytes are those of Carol's page each time, so they could be merged; and
    yet KSM does not try, because the checksum differs from that of the last visit. What changes between two passes is counted as
    volatile, and costs {cost}. It never gets into the unstable tree, where it would soon be in the wrong place.

    {skips}

    Then the clock stops. On the next visit its checksum holds, and it merges. {late}""",
    words={
        "cost": by_era(old="one search of the stable tree and one checksum a pass", new="one checksum a pass, no more"),
        "skips": by_era(
            old="""A page that does not merge for long is looked at as often as all others: this kernel has no smart scan. And a page that
            changes all the time would still merge with a page that is merged already, for the stable tree is asked before the checksum.""",
            new="""A page that does not merge for long is looked at less and less often: that is smart scanning, the skips in this
            recording. It goes by age, not by change: after a few passes the pages that never change are skipped, too."""),
        "late": by_era(old="", new="That visit comes two passes late: this is what the skips cost."),
    },
    scenes=(
        Scene("twelve-one", "NOTE", "A clock, and somebody who copies it", """
            Clock and Carol have the same bytes in a page each: 12:01. Each has another page, too, which never changes.""", nth=2,
              question="ksmd makes a pass. Will it merge the two pages?",
              answers=("Yes, they are equal", "No, it has not seen them before"), right=1,
              why="A page has to keep still from one visit to the next before it is worth a search of the unstable tree."),
        Scene("first-visit", "CHANGED", "The first visit", "12:01 gets a checksum. The page is left alone."),
        Scene("twelve-two", "NOTE", "A minute later", "The clock has written 12:02, and Carol, too. The bytes are equal once more.", nth=3),
        Scene("again", "CHANGED", "Another checksum", """
            The checksum of 12:02 is not that of 12:01. The page is volatile: the new checksum is remembered, and that is all.""", nth=5),
        Scene("brass", "UNCHANGED", "What does not change", "The clock's other page has kept still. It may be compared."),
        Scene("leaf", "UNSTABLE_INSERTED", "Into the unstable tree", "It has no equal, and becomes the root of the unstable tree."),
        Scene("skipped", "SKIPPED", "Smart scan", """
            The page did not merge in its first visits, so this pass skips it. It goes by age alone: what never changes is skipped as
            well.""",
              eras=NEW),
        Scene("every-pass", "PASS_ENDS", "Each page in each pass", """
            Two pages have changed, and two have not. This kernel has no smart scan: all four were looked at.""", nth=5, eras=OLD),
        Scene("stopped", "NOTE", "The clock has stopped", "From now on the two pages keep still.", nth=8,
              question="How many visits of a page does it take now until the two are merged?",
              answers=("One", "Two"), right=1, why="The next visit sees the last change. Only at the one after it the checksum holds."),
        Scene("found", "UNSTABLE_FOUND", "They meet", "The checksums have held. Carol's page meets the clock's in the unstable tree."),
        Scene("merged", "TWO_MERGED", "One frame", "Two pages that were equal all the time are one frame at last."),
        Scene("end", "NOTE", "The end", "What changes costs little, and what has kept still is merged.", nth=-1),
    ),
)

LESSONS = (EQUAL, CHANGING)

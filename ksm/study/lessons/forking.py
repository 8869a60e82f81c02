# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recordings that explain.
"""Lesson: a fork, which shares pages by itself."""

import ksm
from ksm.record.recording import Recording
from ksm.study.lessons.lesson import WITH_LIMIT, Lesson, no_skips, pages
from ksm.study.scenes import Scene


def a_child(machine: ksm.Machine) -> Recording:
    no_skips(machine)
    recording = machine.record()
    anna, cleo = machine.spawn("anna"), machine.spawn("cleo")
    at = pages(anna, ["a song", "a letter"])
    pages(cleo, ["a song"])
    machine.ksm.scan(passes=2)
    recording.note("Anna and Cleo share the song. Anna is going to fork.")
    ben = anna.fork("ben")
    recording.note("Ben is Anna's child. His entries lead to her frames.")
    machine.ksm.scan(passes=2)
    recording.note("Ben is going to write to his song.")
    ben.write(at, b"a song of my own")
    recording.note("Ben has written.")
    machine.ksm.scan()
    return recording


FORK = Lesson(
    "fork", "A fork of merged pages", "cmp_and_merge_page", a_child,
    """fork() copies no pages. The child's entries lead to the parent's frames, all of them are read-only from then on, and whoever writes
    gets a copy. So pages are shared before KSM has looked at them; and KSM is not told of the fork, except that the child is put into
    ksmd's list.

    Ben's song is in the merged frame, as Anna's and Cleo's are. When ksmd comes to it, there is nothing to merge: the entry leads there
    already. Only Ben's rmap_item is missing at the stable node. {entered} for otherwise Ben's entry could
    not be found from the frame. pages_sharing goes up, although it was the fork that saved the frame.

    Ben's letter is Anna's frame, too, and no merged page. The search of the unstable tree meets Anna's letter, which is the same frame. A
    page is not its own equal, so the search ends, and Ben's letter is in no tree. Each pass tries again.""",
    words={"entered": {"2.6.38": "It is entered,", **dict.fromkeys(WITH_LIMIT, "It is entered, even if the node is full,")}},
    scenes=(
        Scene("merged", "NOTE", "Before the fork", "Anna and Cleo share one frame. Anna's letter has no equal.", nth=2,
              question="Anna forks. How many more frames do her child's two pages take?",
              answers=("None", "One", "Two"), right=0, why="fork() copies page tables and no pages. The child has the parent's frames."),
        Scene("forked", "NOTE", "After the fork", """
            Ben's two entries lead to Anna's frames. The letter lost its W for both of them. pages_sharing is still 1: KSM knows nothing of
            Ben's pages.""", nth=3),
        Scene("met", "FORKED", "A merged page, and no item there", """
            ksmd comes to Ben's song. It is a merged page already, and Ben's item is not at its node."""),
        Scene("entered", "APPENDED", "Entered", """
            Ben's item is at the node. pages_sharing is 2, though the fork had saved that frame before KSM came.""", nth=3),
        Scene("letter", "CHANGED", "The letter", "Ben's letter gets its first checksum. Its frame is Anna's.", nth=4,
              question="In the next pass Ben's letter meets Anna's in the unstable tree. Do they merge?",
              answers=("Yes, they are equal", "No, they are the same frame"), right=1,
              why="Two entries, one frame: there is nothing to be saved."),
        Scene("same", "UNSTABLE_GAVE_UP", "Not its own equal", """
            The search ends at Anna's letter, which is the scanned page itself. Ben's letter is in no tree."""),
        Scene("to-write", "NOTE", "Three sharers", "Anna, Cleo and Ben map the merged frame.", nth=4,
              question="Ben writes to his song. Who gets a copy?",
              answers=("Ben", "Anna and Ben", "All three"), right=0, why="The one who writes, and nobody else."),
        Scene("copy", "COW", "Ben's own song", "The page fault copies the frame for Ben."),
        Scene("leaves", "LEFT_STABLE", "His item leaves", "ksmd sees another page at Ben's address, and takes his item out of the node."),
        Scene("end", "PASS_ENDS", "As after any write", "Anna and Cleo share the frame as before.", nth=5),
    ),
)

LESSONS = (FORK,)

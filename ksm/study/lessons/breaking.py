# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recordings that explain.
"""Lessons: how a process gets its own page back."""

import ksm
from ksm.record.recording import Recording
from ksm.study.lessons.lesson import PAGE, Lesson, by_era, no_skips, pages
from ksm.study.scenes import Scene


def copy_on_write(machine: ksm.Machine) -> Recording:
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


WRITE = Lesson(
    "write", "A write to a merged page", "break_ksm", copy_on_write,
    """Grace, Heidi and Ivan share one frame. All three entries are read-only, whatever their owners may do. When Heidi writes, the
    processor faults; the fault finds a page that is not Heidi's alone, takes a new frame, copies, and makes her entry writable again. Only
    the copy is written to. For the program it was a slow store, and nothing else.

    KSM is not told. Its rmap_item for Heidi stays at the stable node, and pages_sharing still counts it, until the scan comes by, sees that
    the page there is another one, and takes the item out.

    Then Grace says MADV_UNMERGEABLE: {fault} Last, Ivan writes too, and nobody maps the merged frame any more. A stable node holds no
    reference on its page: the frame is freed at once, and the node is stale. Whatever meets the node next, a search or one of its items,
    removes it.""",
    words={"fault": by_era(
        old="break_ksm() asks for a write fault though nobody writes. Her copy is writable, and counts as dirty.",
        new="break_ksm() asks for an unshare fault, which copies as a write does. Her copy stays read-only until she writes.")},
    scenes=(
        Scene("two", "TWO_MERGED", "Grace and Heidi", "Heidi's page met Grace's: they are one frame."),
        Scene("three", "MERGED", "And Ivan", "Ivan's page found the merged frame in the stable tree."),
        Scene("together", "NOTE", "Three sharers, one frame", "All three entries are read-only, though each of the three may write.", nth=2,
              question="Heidi writes to her page. What becomes of the frame?",
              answers=("It is copied for her; the others keep it", "It is copied for all three", "The write is lost"), right=0,
              why="The write is a page fault. do_wp_page() copies the frame for the one who writes, and for nobody else."),
        Scene("cow", "COW", "Copy on write", """
            Heidi's entry leads to a frame of her own, which has the same bytes as yet. The store happens then."""),
        Scene("not-told", "NOTE", "KSM was not told", "pages_sharing is still 2: Heidi's item is at the stable node.", nth=3,
              question="Who takes the item out?",
              answers=("The page fault", "ksmd, when it comes to Heidi's page"), right=1,
              why="do_wp_page() knows nothing of KSM. The next visit sees that another page is there."),
        Scene("item-leaves", "LEFT_STABLE", "ksmd sees it", "Heidi's page is another one: her item leaves the node. pages_sharing is 1."),
        Scene("asked", "BREAK_KSM", "Grace takes it back", """
            MADV_UNMERGEABLE: break_ksm() asks for a page fault at her page, though nobody writes."""),
        Scene("grace", "COW", "The same copy", "Grace has a frame of her own, with the same bytes.", nth=2),
        Scene("grace-leaves", "LEFT_STABLE", "Her item, too", "Ivan is the only one left. The frame stays a merged page.", nth=2),
        Scene("ivan", "COW", "The last one writes", "Ivan gets a copy. Nobody maps the merged frame any more.", nth=3,
              question="What keeps the frame now?",
              answers=("Its stable node", "Nothing: it is free"), right=1,
              why="A stable node holds no reference on its page. Otherwise merged pages would never be freed."),
        Scene("stale", "NOTE", "A stale node", "The node is still in the stable tree, and its frame is free. It is stale.", nth=5),
        Scene("gone", "NODE_STALE", "Found out", """
            Whoever meets the node next sees that the frame is not its own any more, and removes it."""),
    ),
)


def failed_merge(machine: ksm.Machine) -> Recording:
    no_skips(machine)
    recording = machine.record()
    pat, quinn = machine.spawn("pat"), machine.spawn("quinn")
    at = pages(pat, ["one text"])
    pages(quinn, ["one text"])
    machine.ksm.scan()
    machine.fail("ksm_stable_node")
    recording.note("Pat and Quinn have an equal page. When KSM asks for a stable node now, there will be no memory for it.")
    machine.ksm.scan()
    recording.note("From now on there is memory.")
    machine.ksm.scan(passes=2)
    recording.note("They are merged. Pat is going to write.")
    pat.write(at, b"a text of my own")
    recording.note("Pat has written.")
    machine.ksm.scan()
    return recording


BREAK_COW = Lesson(
    "break-cow", "break_cow(), and what it is not", "break_cow", failed_merge,
    """break_cow() has a name that says too much. It is not what happens when somebody writes to a merged page: that is do_wp_page() in
    mm/memory.c, the copy on write that fork() has as well, and KSM is not asked.

    break_cow() undoes a merge of two pages that could not be completed. Pat's and Quinn's pages are one frame already, and then there is no
    memory for the stable node. {also} Without a node nobody could find from the frame who maps it, so the frame may not stay shared. So
    break_cow() is called for both items, and each process gets a page of its own again.

    It has two callers: cmp_and_merge_page(), for that, and try_to_merge_two_pages(), when the first page is a merged one already and the
    second one could not join it. It does little by itself: it finds the mapping, and calls break_ksm(), which asks for a page fault.
    break_ksm() has other callers: MADV_UNMERGEABLE, and run = 2.""",
    words={"also": {
        "2.6.38": "In this kernel the same happens when an equal page is found where the node should go.",
        **dict.fromkeys(("6.1", "6.12", "7.3"), "(Before there were chains, it was also called when an equal node was there.)"),
    }},
    scenes=(
        Scene("seen", "PASS_ENDS", "Two equal pages", "Pat's and Quinn's pages have their checksums."),
        Scene("no-memory", "NOTE", "No memory", "The next stable node that KSM asks for will not be there.", nth=2),
        Scene("met", "UNSTABLE_FOUND", "They meet", "Second pass: Quinn's page meets Pat's."),
        Scene("one-frame", "TWO_MERGED", "One frame, and no node", "Both entries lead to one frame. Now a node has to be made, and cannot.",
              question="May the two go on sharing the frame?",
              answers=("Yes, it saves memory", "No: nobody could find out who maps it"), right=1,
              why="To swap a page out, or to move it, its entries have to be found: by the node and its items."),
        Scene("fault", "BREAK_KSM", "break_cow(): a fault is asked for", """
            break_cow() calls break_ksm(), which asks for a page fault at Pat's page."""),
        Scene("copy", "COW", "A copy", "The fault copies the frame."),
        Scene("undone", "BREAK_COW", "Undone for Pat", "break_cow() returns. Pat's page is no merged page any more."),
        Scene("both", "BREAK_COW", "And for Quinn", """
            For Quinn as well: the frame that both had is free. All is as before, but for the time that it took.""", nth=2),
        Scene("again", "TWO_MERGED", "Again, with memory", "A later pass merges the two once more.", nth=2),
        Scene("shared", "NOTE", "Merged", "This time there is a node, with two items.", nth=4,
              question="Pat writes to the page now. Is break_cow() called?",
              answers=("Yes", "No"), right=1, why="A write is a page fault of its own: do_wp_page(), as after a fork."),
        Scene("write", "COW", "A plain write", """
            do_wp_page() finds a page that is not Pat's alone, and wp_page_copy() copies it. break_cow() is not called.""", nth=3),
        Scene("item", "LEFT_STABLE", "Seen by ksmd", "The next pass takes Pat's item out of the node."),
    ),
)

LESSONS = (WRITE, BREAK_COW)

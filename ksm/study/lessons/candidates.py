# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recordings that explain.
"""Lessons: which pages KSM looks at."""

import ksm
from ksm.record.recording import Recording
from ksm.study.lessons.lesson import NEW, OLD, PAGE, WITH_LIMIT, Lesson, by_era, no_skips, pages, written
from ksm.study.scenes import Scene

HUGE = 2 << 20


def sorts_of_memory(machine: ksm.Machine) -> Recording:
    no_skips(machine)
    recording = machine.record()
    judy, kurt = machine.spawn("judy"), machine.spawn("kurt")
    pages(judy, ["the news"])
    shared = judy.mmap(PAGE, flags=ksm.MAP_SHARED | ksm.MAP_ANONYMOUS)
    judy.write(shared, b"the news")
    judy.madvise(shared, PAGE, ksm.MADV_MERGEABLE)
    unwritten = judy.mmap(PAGE)
    judy.madvise(unwritten, PAGE, ksm.MADV_MERGEABLE)
    judy.read(unwritten, PAGE)
    pages(kurt, ["the news"])
    recording.note("Judy has three pages: one of her own, one that is mapped as shared memory, one that she has only read. Kurt has one.")
    machine.ksm.scan(passes=2)
    judy.write(shared, b"late news")
    recording.note("Judy has written to her shared page. That is no fault, and nothing for KSM: the page never was merged.")
    machine.ksm.scan()
    return recording


ANONYMOUS = Lesson(
    "anonymous", "Only anonymous pages", "scan_get_next_rmap_item", sorts_of_memory,
    """KSM merges private anonymous pages and nothing else: what a process has written to memory of its own. Judy has the same text twice.
    One copy is in ordinary memory. The other is in memory that she maps as shared, to be seen by others. She said MADV_MERGEABLE for both,
    and madvise() accepted both; but for shared memory it did nothing.

    Her third page was only read. It maps the zero page that all have in common, so there is nothing to save, and ksmd passes it over.

    The same holds for the pages of files: a page of a program's text, or of a file that is mapped, is in the page cache once for all, and
    KSM does not look at it. When a process writes to its private mapping of a file, it gets a copy, and the copy is anonymous: that one KSM
    may merge. (Machines of this page have no files.)""",
    scenes=(
        Scene("three-sorts", "NOTE", "Three sorts of memory", """
            The text "the news" is there three times: in Judy's own page, which is her third, in her shared page, the second, and in Kurt's.
            Her first page she has only read.""", nth=2,
              question="How many of Judy's three pages does ksmd look at?",
              answers=("One", "Two", "Three"), right=0,
              why="Her own page only. Shared memory cannot be merged, and a page that was never written to is the zero page already."),
        Scene("own", "NEXT", "Her own page", "The cursor comes to the page that is private and written to. It gets an rmap_item."),
        Scene("kurts", "NEXT", "And then Kurt's", """
            The next one is Kurt's already. The shared page is in a mapping that is not mergeable, whatever madvise() was told. The page
            that was only read is no anonymous page.""", nth=2),
        Scene("two-seen", "PASS_ENDS", "Two pages in a pass", """
            Four pages are mapped, and two were looked at: rmap_items is 2."""),
        Scene("found", "UNSTABLE_FOUND", "Equal, and both anonymous", "Kurt's page meets Judy's in the unstable tree."),
        Scene("swung", "REPLACED", "One frame", """
            Judy's entry leads to Kurt's frame now. Her shared page has the same bytes, and its own frame still."""),
        Scene("two-sharers", "APPENDED", "Two sharers, not three", """
            Two places are at the stable node. The shared page is none of them.""", nth=2),
        Scene("late-news", "NOTE", "A write to shared memory", """
            Judy writes to the shared page. Its entry was writable all the time, so there is no page fault.""", nth=3),
        Scene("end", "PASS_ENDS", "Nothing has changed", "The third pass finds the two merged pages as they were.", nth=3),
    ),
)


def huge_page(machine: ksm.Machine) -> Recording:
    no_skips(machine)
    recording = machine.record()
    laura, mike = machine.spawn("laura"), machine.spawn("mike")
    start = (laura.mmap(2 * HUGE) + HUGE - 1) & -HUGE
    laura.madvise(start, HUGE, ksm.MADV_HUGEPAGE)
    for number, text in enumerate(["a map", "a compass", "a rope"]):
        laura.write(start + number * PAGE, text.encode())
    # So that there is something to see: 512 pages are too many to draw.
    laura.munmap(start + 3 * PAGE, HUGE - 3 * PAGE)
    pages(mike, ["a map"])
    laura.madvise(start, 3 * PAGE, ksm.MADV_MERGEABLE)
    recording.note("Laura's three pages are parts of one huge page; the other 509 she has unmapped. Mike has one small page.")
    machine.ksm.scan(passes=3)
    return recording


HUGE_PAGES = Lesson(
    "huge", "A huge page is split", "try_to_merge_one_page", huge_page,
    """A huge page is 512 pages that lie side by side in memory, and that the processor maps with one entry. Laura's memory was one. To keep
    the picture small she has unmapped all but three pages of it; those are parts of the huge page still.

    ksmd looks at each part as at any other page: it has an rmap_item, a checksum, and goes into the unstable tree. Nothing is split for
    that. Only when a part has an equal, and is to be merged, the huge page is split into small pages, and the part merges. {zeros}

    So one equal page of 4096 bytes costs the huge page with all that it was good for: one entry in place of 512, and fewer misses of the
    processor's table of addresses. KSM saves memory, and does not ask what it costs in time.""",
    words={"zeros": {
        "2.6.38": "The kernel has such pages since 2.6.38, and KSM has split them from the first.",
        "6.1": "",
        **dict.fromkeys(NEW, """Parts that hold nothing but zeros become the zero page when the huge page is split, whatever use_zero_pages
        says."""),
    }},
    options={"memory": "16M", "max_memory": "16M", "transparent_hugepage": "madvise"},
    scenes=(
        Scene("parts", "NOTE", "Three parts of a huge page", """
            Laura's three frames have numbers in a row: they are parts of one huge page. Mike's page is a small one, with the same bytes as
            Laura's first.""", nth=2,
              question="When does KSM split the huge page?",
              answers=("When it first looks at it", "When a part of it is to be merged", "Never: huge pages do not merge"), right=1,
              why="Until then a part is compared where it is. A split costs more than a comparison."),
        Scene("checksum", "CHANGED", "Each part by itself", "The first of Laura's parts has a checksum of its own.", nth=2),
        Scene("mikes", "UNSTABLE_INSERTED", "Mike's page waits", "Second pass. Mike's page has kept still, and is in the unstable tree."),
        Scene("found", "UNSTABLE_FOUND", "A part has an equal", """
            Laura's first part is compared with Mike's page, and is equal. The huge page is still whole.""",
              question="What has to happen before the part's entry can lead to another frame?",
              answers=("Nothing: an entry is an entry", "The huge page is split into small ones", "All 512 parts are merged"), right=1,
              why="KSM merges small pages only, so try_to_merge_one_page() splits the huge page first."),
        Scene("split", "WRITE_PROTECTED", "Split, and then W falls", """
            The huge page is no more: its parts are small pages. The first of them is write-protected."""),
        Scene("swung", "REPLACED", "Mike's entry swings over", """
            Mike's entry leads to Laura's frame. One frame was saved, and one huge page lost."""),
        Scene("others", "UNSTABLE_INSERTED", "The other parts", """
            Laura's other two parts have no equal. They are small pages now, and go into the unstable tree as any other page.""", nth=2),
        Scene("price", "PASS_ENDS", "What it has cost", """
            pages_sharing is 1: 4096 bytes. In the kernel another thread, khugepaged, may make huge pages of small ones again.""", nth=2),
        Scene("end", "PASS_ENDS", "And so it stays", "The third pass finds the merged page at its node.", nth=3),
    ),
)


def advice(machine: ksm.Machine) -> Recording:
    no_skips(machine)
    recording = machine.record()
    nora, oscar = machine.spawn("nora"), machine.spawn("oscar")
    at = {each: written(each, ["the same page", f"{each.name}'s own"]) for each in (nora, oscar)}
    machine.ksm.scan(passes=2)
    recording.note("Nora and Oscar have an equal page. ksmd has been here, and looked at nothing: nobody has asked for it.")
    nora.madvise(at[nora], 2 * PAGE, ksm.MADV_MERGEABLE)
    if machine.era in NEW:
        oscar.prctl(ksm.PR_SET_MEMORY_MERGE, 1)
    else:
        oscar.madvise(at[oscar], 2 * PAGE, ksm.MADV_MERGEABLE)
    machine.ksm.scan(passes=2)
    recording.note("Now they share one frame.")
    nora.madvise(at[nora], 2 * PAGE, ksm.MADV_UNMERGEABLE)
    recording.note("Nora has said MADV_UNMERGEABLE: she has a frame of her own again.")
    machine.ksm.scan()
    return recording


_BROUGHT = "Nora's two items are taken away: her mapping is not mergeable any more. Nothing of hers is looked at in this pass."
ADVICE = Lesson(
    "madvise", "Who asks for it", "ksm_madvise", advice,
    """KSM looks at no memory by itself. A process asks for it, mapping by mapping: madvise(MADV_MERGEABLE). This marks the mapping and puts
    the process into ksmd's list. {prctl}

    MADV_UNMERGEABLE takes it back, and breaks what was merged: break_ksm() makes a page fault for each merged page, as a write would.
    {fault} The items are left where they are; ksmd takes them away when it comes by.

    Programs that ask: QEMU does for the memory of its guests. Most others never do, and their memory is never looked at.""",
    words={
        "prctl": by_era(
            old="There is no other way in this kernel: since 6.4 prctl(PR_SET_MEMORY_MERGE) asks for all of a process.",
            new="""Or for all of it at once: prctl(PR_SET_MEMORY_MERGE), which is Oscar's way here. His children have it, too, and it
            outlives exec(), so that a program can be started that knows nothing of it."""),
        "fault": by_era(old="It is a write fault: the copy counts as dirty.",
                        new="It is an unshare fault: the copy stays read-only and clean."),
    },
    scenes=(
        Scene("unseen", "NOTE", "Nobody has asked", """
            The bytes are equal, and ksmd ran. It has no process in its list, so it has looked at no page: full_scans is 0.""", nth=2,
              question="Nora says madvise(MADV_MERGEABLE) now. What has happened when madvise() returns?",
              answers=("Her pages were compared", "Her mapping is marked, and her process is in ksmd's list",
                       "Her pages are read-only"), right=1,
              why="madvise() merges nothing. Everything else is ksmd's work, later."),
        Scene("asked", "NEXT", "Now ksmd comes", "Nora's mapping is mergeable. ksmd comes to her first page."),
        Scene("oscars", "NEXT", "And Oscar's", """
            Oscar has called prctl(): all mappings that he has, and will have, are mergeable.""", nth=3, eras=NEW),
        Scene("oscars", "NEXT", "And Oscar's", "Oscar has called madvise(), too.", nth=3, eras=OLD),
        Scene("merged", "TWO_MERGED", "Merged", "In the second pass Oscar's page meets Nora's."),
        Scene("shared", "NOTE", "One frame", "They share one frame. Both entries are read-only.", nth=3,
              question="Nora says MADV_UNMERGEABLE. What happens to her page?",
              answers=("Nothing, until she writes to it", "She gets a copy at once", "Both get copies"), right=1,
              why="The call breaks her merged pages before it returns. Oscar's entry stays as it is."),
        Scene("asked-back", "BREAK_KSM", "A page fault that nobody made", """
            break_ksm() asks for a page fault at Nora's page, although nobody has touched it."""),
        Scene("copied", "COW", "Her own again", """
            The fault copies the merged frame, and Nora's entry leads to the copy. It is no break_cow(): that one undoes merges that
            failed."""),
        Scene("taken-back", "NOTE", "What is left", """
            pages_sharing still counts Nora's item: it is at the stable node until ksmd comes by.""", nth=4),
        Scene("items-go", "LEFT_STABLE", "The item goes", _BROUGHT),
        Scene("alone", "AT_ITS_NODE", "A merged page with one sharer", """
            Oscar's page is a merged page still, and read-only, though nobody shares it: pages_shared 1, pages_sharing 0. It waits for an
            equal.""", nth=-1, eras=WITH_LIMIT),
        Scene("alone", "NEXT", "A merged page with one sharer", """
            Oscar's page is a merged page still, and read-only, though nobody shares it: pages_shared 1, pages_sharing 0. It waits for an
            equal.""", nth=-2, eras=("2.6.38",)),
    ),
)

LESSONS = (ANONYMOUS, HUGE_PAGES, ADVICE)

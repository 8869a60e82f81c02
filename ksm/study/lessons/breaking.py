# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recordings that explain.
"""Lessons: how a process gets its own page back."""

import ksm
from ksm.record.recording import Recording
from ksm.study.lessons.lesson import PAGE, Lesson, by_era, pages


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
)

LESSONS = (WRITE,)

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recordings that explain.
"""The lessons of `ksm study`: small programs, run and recorded when the page is made, in each era in which they make sense. So they show
what this port does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import ksm
from ksm.study.lessons import breaking, candidates, choices, forking, merging, trees
from ksm.study.lessons.lesson import ERAS, PAGE, Lesson, pages
from ksm.study.scenes import resolve

if TYPE_CHECKING:
    from ksm.machine import _Era as Era

__all__ = ["ERAS", "LESSONS", "PAGE", "Lesson", "lesson", "pages", "record_all", "record_lesson"]

LESSONS: tuple[Lesson, ...] = (
    *merging.LESSONS, *trees.LESSONS, *breaking.LESSONS, *forking.LESSONS, *candidates.LESSONS, *choices.LESSONS)
# For each recording, what tells it from that of another era
_SAME = ("lesson", "title", "text", "scenes", "counters", "mms", "notes", "contents", "steps", "truncated", "files")


def lesson(key: str) -> Lesson:
    """The lesson of that name. KeyError."""
    for each in LESSONS:
        if each.key == key:
            return each
    raise KeyError(key)


def record_lesson(key: str, era: Era = "6.12") -> dict[str, Any]:
    """Run a lesson in an era: its recording, with its text."""
    chosen = lesson(key)
    with ksm.Machine(**{"memory": "4M", "max_memory": "4M", "clock": "manual", "plain": True, **chosen.options}, era=era) as machine:
        with chosen.run(machine) as recording:
            pass
        wrong, shown = machine.check(), set(machine.ksm.names())
    assert not wrong, wrong
    data = recording.data(chosen.title, chosen.text_of(era))
    # The counters that this kernel shows: cow_ksm is in /proc/vmstat, and came after 2.6.38; rmap_items is a variable of mm/ksm.c.
    files = [name for name in data["counters"] if name in shown or name == "rmap_items" or (name == "cow_ksm" and era != "2.6.38")]
    scenes = resolve(chosen.scenes, data["steps"], era)
    return {"lesson": key, "function": chosen.function, "eras": [era], **data, "files": files, "scenes": scenes}


def record_all(eras: Iterable[Era] = ERAS, keys: Iterable[str] = ()) -> list[dict[str, Any]]:
    """All lessons in all eras. One recording stands for all eras in which nothing of it differs: "eras"."""
    wanted = set(keys)
    found: list[dict[str, Any]] = []
    for each in LESSONS:
        if wanted and each.key not in wanted:
            continue
        for era in eras:
            if era not in each.eras:
                continue
            data = record_lesson(each.key, era)
            same = next((other for other in found if all(other.get(name) == data.get(name) for name in _SAME)), None)
            if same:
                same["eras"].append(era)
                same["era"] = "6.12" if "6.12" in same["eras"] else same["era"]
            else:
                found.append(data)
    return found

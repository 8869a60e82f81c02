# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: recordings that explain.
"""A lesson of `ksm study`, and what several of them need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ksm
from ksm.record.recording import Recording
from ksm.study.scenes import Scene

if TYPE_CHECKING:
    from ksm.machine import _Era as Era

PAGE = ksm.PAGE_SIZE
ERAS: tuple[Era, ...] = ("2.6.38", "6.1", "6.12", "7.3")  # the oldest first
OLD: tuple[Era, ...] = ("2.6.38", "6.1")
NEW: tuple[Era, ...] = ("6.12", "7.3")
WITH_LIMIT: tuple[Era, ...] = ("6.1", "6.12", "7.3")  # of sharing, and with NUMA and the zero page
Run = Callable[[ksm.Machine], Recording]


@dataclass(frozen=True)
class Lesson:
    """A small program, and what is said about it. `text` has paragraphs; a name in braces stands for the words of `words` for the era.
    `function` is the kernel's function that the lesson is about. `options` are those of the machine."""

    key: str
    title: str
    function: str
    run: Run
    text: str
    eras: tuple[Era, ...] = ERAS
    words: Mapping[str, Mapping[Era, str]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    scenes: tuple[Scene, ...] = ()

    def text_of(self, era: Era) -> str:
        """The paragraphs as they hold in an era, without line breaks in them."""
        text = self.text.format(**{name: by_era[era] for name, by_era in self.words.items()})
        return "\n\n".join(joined for part in text.split("\n\n") if (joined := " ".join(part.split())))


def by_era(*, old: str, new: str) -> dict[Era, str]:
    """Words for 2.6.38 and 6.1, which search the stable tree before the checksum, and for 6.12 and 7.3."""
    return dict.fromkeys(OLD, old) | dict.fromkeys(NEW, new)


def pages(process: ksm.Process, contents: list[str]) -> int:
    """New mergeable memory of a process, one page for each text: its address."""
    start = written(process, contents)
    process.madvise(start, len(contents) * PAGE, ksm.MADV_MERGEABLE)
    return start


def written(process: ksm.Process, contents: list[str]) -> int:
    """New memory of a process, one page for each text: its address. KSM does not look at it."""
    start = process.mmap(len(contents) * PAGE)
    for number, text in enumerate(contents):
        process.write(start + number * PAGE, text.encode())
    return start


def no_skips(machine: ksm.Machine) -> None:
    """Smart scan is off, in eras that have it: a page is looked at in each pass."""
    if machine.era in NEW:
        machine.ksm.smart_scan = 0

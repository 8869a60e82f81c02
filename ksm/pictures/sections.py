# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it prints numbers.
"""What a page is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ksm.constants import PAGE_SIZE
from ksm.host.text import printable

MIB = 1 << 20

# The states of pages, as a page names them: what is freed, then what is kept. The keys are STATES of ksm.estimate.savings.
STATES = {
    "zero": "zero pages",
    "split": "zeros of split huge pages",
    "within": "duplicates within one source",
    "across": "duplicates across sources",
    "shared": "shared since a fork",
    "merged": "merged: the one copy",
    "unshared": "alone: no page is equal",
    "skipped": "skipped by smart scan",
    "volatile": "volatile: changed between passes",
}


@dataclass
class Table:
    """A caption, a head and rows. A cell that is a number stands at the right."""

    caption: str
    head: list[str]
    rows: list[list[str | int | float]]


@dataclass
class Dump:
    """A look at a page's bytes: a title, and lines of hex and text."""

    title: str
    lines: list[str]


@dataclass
class Section:
    """A part of the page: a title, sentences, a picture and the table beside it.

    chart  a specification of Vega-Lite
    map    what the page's own script draws, as JSON
    label  what the picture shows, for who cannot see it
    open   whether the table is shown without being asked for
    """

    id: str
    title: str
    text: list[str] = field(default_factory=list)
    chart: dict[str, Any] | None = None
    map: dict[str, Any] | None = None
    label: str = ""
    tables: list[Table] = field(default_factory=list)
    dumps: list[Dump] = field(default_factory=list)
    open: bool = False


@dataclass
class Page:
    """A page: what it is called, what it says first, a few figures (what it is, the figure), the sections, and notes."""

    title: str
    answer: str
    figures: list[tuple[str, str]]
    sections: list[Section]
    notes: list[str]


def mib(pages: int) -> float:
    """Pages in MiB, for a chart."""
    return round(pages * PAGE_SIZE / MIB, 3)


def shown(name: str) -> str:
    """A name of unknown origin: of a file, a process, a tenant."""
    return printable(name)


def distinct(names: list[str]) -> list[str]:
    """The names, those that come again with a number: the same image may be scanned twice."""
    result: list[str] = []
    taken: set[str] = set()
    for name in map(shown, names):
        number, text = 1, name
        while text in taken:
            number += 1
            text = f"{name} ({number})"
        taken.add(text)
        result.append(text)
    return result

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what ksm watch has seen, for a person and for a program.
"""Lines of ksm watch: line_of() of each look, lines() of the summary, as_json() of it for a program."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ksm.constants import PAGE_SIZE
from ksm.estimate.report import percent
from ksm.estimate.terminal import amount, wrapped
from ksm.estimate.watching import Look, Range, Summary, some_of
from ksm.host.text import size


def line_of(look: Look) -> str:
    """A look as a line: when, what would be saved, what has changed, what the kernel has."""
    would = f"KSM would free {size(look.saved)} of {size(look.total)} ({percent(look.saved // PAGE_SIZE, look.total // PAGE_SIZE)})"
    parts = [would]
    if look.change is not None:
        parts.append(f"{'+' if look.change >= 0 else ''}{amount(look.change)}")
    parts.append(f"profit {amount(look.profit)}")
    least, most = size(max(0, look.least)), size(look.most)
    if look.most - look.least > look.most / 100 and least != most:
        parts.append(f"{least} to {most} of it on top, as far as can be seen")
    if not look.settled:
        parts.append("not settled")
    if look.kernel is not None:
        runs = "" if look.kernel.run == 1 else ", and does not run"
        parts.append(f"the kernel's has freed {size(look.kernel.saved)} (profit {amount(look.kernel.profit)}){runs}")
    if look.came:
        parts.append(f"came: {', '.join(look.came)}")
    if look.gone:
        parts.append(f"gone: {', '.join(look.gone)}")
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(look.time))}  {'; '.join(parts)}"


def as_json(summary: Summary) -> dict[str, Any]:
    """A summary as a value for JSON. Everything is in bytes, times are seconds since 1970."""
    return {
        **summary._asdict(),
        "saved": summary.saved._asdict(),
        "profit": summary.profit._asdict(),
        "kernel": summary.kernel._asdict() if summary.kernel else None,
        "hours": {f"{hour:02}": each._asdict() for hour, each in summary.hours.items()},
    }


def lines(summary: Summary, width: int) -> Iterator[tuple[str, bool]]:
    """The lines of a summary, `width` columns wide, and whether each is bold."""
    first, last = (time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment)) for moment in (summary.first, summary.last))
    saved = summary.saved
    looks = f"{saved.looks:,} looks from {first} to {last}" if saved.looks > 1 else f"One look at {first}"
    for text, _ in wrapped(f"{looks}: KSM would have freed {size(saved.median)}, in the median.", width, "", ""):
        yield text, True
    yield "", False
    rows = [("would be freed", saved), ("profit", summary.profit)]
    if summary.kernel:
        rows.append(("the kernel's KSM", summary.kernel))
    if len(summary.hours) > 1:
        rows += [(f"  {hour:02}:00 to {(hour + 1) % 24:02}:00", each) for hour, each in summary.hours.items()]
    yield from table(rows, width)
    if len(summary.hours) > 1:
        yield "", False
        yield from wrapped("by hour: what would be freed, by the hour of the day", width, "- ", "  ")
    for what, names in (("came", summary.came), ("gone", summary.gone)):
        if names:
            told = [name if count == 1 else f"{name} ({count} times)" for name, count in names.items()]
            yield from wrapped(f"{what}: {', '.join(some_of(told))}", width, "- ", "  ")


def table(rows: list[tuple[str, Range]], width: int) -> Iterator[tuple[str, bool]]:
    cells = [(name, f"{each.looks:,}", amount(each.least), amount(each.median), amount(each.most)) for name, each in rows]
    heads = ("", "looks", "least", "median", "most")
    widths = [max(len(row[column]) for row in (heads, *cells)) for column in range(5)]
    choices = ([0, 1, 2, 3, 4], [0, 2, 3, 4], [0, 3])
    shown = next((some for some in choices if sum(widths[column] + 2 for column in some) - 2 <= width), choices[-1])
    for number, row in enumerate([heads, *cells]):
        first, *others = shown
        yield (f"{row[first]:<{widths[first]}}" + "".join(f"  {row[column]:>{widths[column]}}" for column in others)).rstrip(), number == 0

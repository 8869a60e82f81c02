# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what a scan found, for a person and for a program.
"""The report of a scan: print_report() for a person, as_json() for a program."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ksm.constants import PAGE_SIZE
from ksm.scan import ERA, LEAST_PASSES, MOST_PASSES, MOST_PASSES_LIVE, Result, SourceResult, size

RMAP_ITEM = 64  # bytes, on a 64-bit kernel
NAME_WIDTH = 28  # of a source, where the terminal has 80 columns


def as_json(result: Result) -> dict[str, Any]:
    """The report as JSON takes it. Pages are counts of pages, everything else is in bytes. What the era did not count is not there."""
    return {
        "era": result.era,
        "ksm": result.ksm,
        "sources": [{"name": source.name, "kind": source.kind, "pages": source.pages, **source.ksm_stat} for source in result.sources],
        "savings": {**result.savings._asdict(), "pages": result.savings.pages, "bytes": result.savings.bytes},
        "pages": result.pages,
        "passes": result.passes,
        "settled": result.settled,
        "notes": all_notes(result),
    }


def print_report(result: Result, console: Console) -> None:
    console.print(answer(result), soft_wrap=True)
    if result.pages:
        console.print()
        console.print(breakdown(result))
        console.print()
        console.print(sources_table(result, console.width))
    console.print()
    for note in all_notes(result):
        lines = textwrap.wrap(printable(note), console.width - 1, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
        console.print(Text("\n".join(lines)))


def printable(text: str) -> str:
    """A name that a file or a process has given itself, without what a terminal would act on."""
    return "".join(char if char.isprintable() else "?" for char in text)


def mib(count: int) -> str:
    return f"{count / (1 << 20):,.1f}"


def percent(pages: int, total: int) -> str:
    return f"{100 * pages / total:.1f} %" if total else "-"


def answer(result: Result) -> Text:
    """The first line: is it worth it?"""
    total, saved = result.pages, result.savings.pages
    cost = f", and need {size(metadata(result))} itself" if knows_profit(result) else ""
    share = f"{size(saved * PAGE_SIZE)} of {size(total * PAGE_SIZE)} ({percent(saved, total)})"
    if not total:
        text = "There are no pages that KSM could merge."
    elif not saved and all_compared(result):
        text = f"KSM would free nothing: of {size(total * PAGE_SIZE)}, no two pages are equal."
    elif not saved:
        text = f"KSM found nothing to free in {passes(result)} over {size(total * PAGE_SIZE)}."
    elif knows_profit(result) and result.ksm["general_profit"] <= 0:
        text = f"Not worth it: KSM would free {share}{cost}."
    else:
        text = f"KSM would free {share}{cost}."
    return Text(text, style="bold")


def all_compared(result: Result) -> bool:
    """Whether KSM has looked for an equal of every page: it does so only with those that hold still between two passes."""
    return result.settled and result.passes >= LEAST_PASSES and not volatile(result)


def knows_profit(result: Result) -> bool:
    """Whether the era set what KSM needs itself against what it frees. That of 2011 did not count it."""
    return "general_profit" in result.ksm


def volatile(result: Result) -> int:
    """Pages that were not the same in two passes. KSM also counts those so that smart_scan has passed over."""
    return max(0, result.ksm["pages_volatile"] - result.skipped)


def passes(result: Result) -> str:
    return f"{result.passes} {'pass' if result.passes == 1 else 'passes'}"


def metadata(result: Result) -> int:
    """Bytes of KSM's own records."""
    return RMAP_ITEM * sum(source.ksm_stat["ksm_rmap_items"] for source in result.sources)


def breakdown(result: Result) -> Table:
    """Where all the pages went, and what is left after KSM's own needs."""
    ksm, savings, total = result.ksm, result.savings, result.pages
    table = Table(box=None, padding=(0, 0, 0, 2), pad_edge=False)
    table.add_column("", min_width=42)
    table.add_column("Pages", justify="right", min_width=11)
    table.add_column("MiB", justify="right", min_width=10)
    table.add_column("%", justify="right", min_width=5)

    def row(text: str, pages: int, style: str = "") -> None:
        table.add_row(text, f"{pages:,}", mib(pages * PAGE_SIZE), f"{100 * pages / total:.1f}", style=style)

    def bytes_row(text: str, count: int, style: str = "") -> None:
        table.add_row(text, "", mib(count), f"{100 * count / PAGE_SIZE / total:.1f}", style=style)

    row("Freed", savings.pages, "bold")
    row("  zero pages", savings.zero)
    row("  duplicates within one source", savings.within)
    row("  duplicates across sources", savings.across)
    row("Kept", total - savings.pages, "bold")
    row("  merged: the one copy", ksm["pages_shared"])
    row("  unshared: no page is equal", ksm["pages_unshared"] + result.skipped)
    # After one pass there is nothing yet that a page could differ from.
    row(f"  volatile: {'changed between passes' if result.passes > 1 else 'not yet seen unchanged'}", volatile(result))
    if knows_profit(result):
        bytes_row(f"Metadata: {RMAP_ITEM} bytes for each rmap_item", metadata(result))
        bytes_row("general_profit: freed less metadata", ksm["general_profit"], "bold")
    return table


def sources_table(result: Result, width: int) -> Table:
    """A line a source, with what /proc/PID/ksm_stat would say."""
    columns: dict[str, Callable[[SourceResult], int]] = {"MiB": lambda source: source.pages * PAGE_SIZE}
    if knows_profit(result):
        columns["merged"] = lambda source: source.ksm_stat["ksm_merging_pages"] * PAGE_SIZE
        if any(source.ksm_stat["ksm_zero_pages"] for source in result.sources):  # only with use_zero_pages
            columns["zero"] = lambda source: source.ksm_stat["ksm_zero_pages"] * PAGE_SIZE
        columns["profit"] = lambda source: source.ksm_stat["ksm_process_profit"]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("Source", no_wrap=True)
    table.add_column("Kind", no_wrap=True)
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True, min_width=8)
    room = NAME_WIDTH + max(0, width - 80)
    for source in ordered(result):
        name = Text(shortened(printable(source.name), room))
        table.add_row(name, source.kind, *(mib(count(source)) for count in columns.values()))
    return table


def ordered(result: Result) -> list[SourceResult]:
    """Files in the order in which they were named; processes by what they bring, or where that was not counted, by their size."""
    if all(source.kind == "process" for source in result.sources):
        return sorted(result.sources, key=lambda source: -source.ksm_stat.get("ksm_process_profit", source.pages))
    return result.sources


def shortened(name: str, room: int) -> str:
    """A name that fits; of a path, the end says more."""
    return name if len(name) <= room else "…" + name[len(name) - room + 1 :]


def all_notes(result: Result) -> list[str]:
    """What one should know before one believes the figures."""
    return [how_it_ended(result), *which_era(result), *overstatement(result), *result.notes]


def which_era(result: Result) -> list[str]:
    if result.era == ERA:
        return []
    return [f"the KSM of Linux {result.era}, which did not count what it needs itself"]


def how_it_ended(result: Result) -> str:
    if result.settled:
        return f"{passes(result)}; the last one changed nothing"
    if result.passes == (MOST_PASSES_LIVE if result.live else MOST_PASSES):
        return f"{passes(result)}, and still the last one changed something: this memory does not hold still"
    return f"{passes(result)}, as asked for; the last one still changed something"


def overstatement(result: Result) -> list[str]:
    if all(source.kind == "process" for source in result.sources):
        return []
    return ["a still image overstates: pages that a running machine keeps writing to would not stay merged"]

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what a scan found, for a person and for a program.
"""The report of a scan: print_report() for a person, as_json() for a program."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import click

from ksm.constants import PAGE_SIZE
from ksm.estimate.scan import ERA, LEAST_PASSES, MOST_PASSES, MOST_PASSES_LIVE, Result, SourceResult, size
from ksm.host.text import printable, size_said

RMAP_ITEM = 64  # bytes, on a 64-bit kernel
NAME_WIDTH = 28  # of a source, where the terminal has 80 columns


def as_json(result: Result) -> dict[str, Any]:
    """The report as a value for JSON. Pages are counts of pages, everything else is in bytes. What the era did not count is left out."""
    return {
        "era": result.era,
        "ksm": result.ksm,
        "sources": [
            {
                "name": source.name,
                "kind": source.kind,
                "pages": source.pages,
                "holes": source.holes,
                "zero_holes": source.zero_holes,
                **source.ksm_stat,
            }
            for source in result.sources
        ],
        "savings": {**result.savings._asdict(), "pages": result.savings.pages, "bytes": result.savings.bytes},
        "pages": result.pages,
        "shared": result.shared,
        "passes": result.passes,
        "settled": result.settled,
        **({"snapshots": result.snapshots} if result.snapshots else {}),
        "notes": all_notes(result),
    }


def print_report(result: Result, width: int) -> None:
    """Print the report for a person, `width` columns wide. rich is not used: its import takes as long as scanning 30,000 pages."""
    plain = os.environ.get("TERM") in ("dumb", "unknown")
    for text, bold in lines(result, width):
        click.echo(click.style(text, bold=True) if bold else text, color=False if plain else None)


def lines(result: Result, width: int) -> Iterator[tuple[str, bool]]:
    """The lines of the report, and whether each is bold."""
    yield answer(result), True
    if result.pages:
        yield "", False
        yield from breakdown(result)
        yield "", False
        yield from sources_table(result, width)
    elif absent := sum(source.holes for source in result.sources):
        yield f"Holes, and left out of dumps: {absent:,} pages, which are not counted.", False
    yield "", False
    for note in all_notes(result):
        for line in textwrap.wrap(printable(note), max(20, width - 1), initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False):
            yield line, False


def terminal_width() -> int:
    """Columns of the terminal, or what COLUMNS says; 80 without a terminal."""
    if said := size_said(os.environ.get("COLUMNS", "")):
        return said
    for fd in range(3):
        try:
            return os.get_terminal_size(fd).columns or 80
        except OSError:
            continue
    return 80


def columns(text: str) -> int:
    """The columns that a terminal takes for the text."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(char) else 2 if east_asian_width(char) in "FW" else 1 for char in text)


def mib(count: int) -> str:
    return f"{count / (1 << 20):,.1f}"


def percent(pages: int, total: int) -> str:
    return f"{100 * pages / total:.1f} %" if total else "-"


def answer(result: Result) -> str:
    """The first line of the report: what KSM would free, and whether it is worth it."""
    total, saved = result.pages, result.savings.pages
    cost = f", and need {size(metadata(result))} itself" if knows_profit(result) else ""
    share = f"{size(saved * PAGE_SIZE)} of {size(total * PAGE_SIZE)} ({percent(saved, total)})"
    if not total:
        return "There are no pages that KSM could merge."
    if not saved and all_compared(result):
        return f"KSM would free nothing: of {size(total * PAGE_SIZE)}, no two pages are equal."
    if not saved:
        return f"KSM found nothing to free in {passes(result)} over {size(total * PAGE_SIZE)}."
    if knows_profit(result) and result.ksm["general_profit"] <= 0:
        return f"Not worth it: KSM would free {share}{cost}."
    return f"KSM would free {share}{cost}."


def all_compared(result: Result) -> bool:
    """Whether KSM has looked for an equal of every page. It does so only for pages that hold still between two passes."""
    return result.settled and result.passes >= LEAST_PASSES and not volatile(result)


def knows_profit(result: Result) -> bool:
    """Whether the era counts what KSM needs itself. The KSM of 2011 did not."""
    return "general_profit" in result.ksm


def volatile(result: Result) -> int:
    """Pages that changed between two passes. KSM's pages_volatile also has those that smart_scan has passed over, and those whose frame is
    in the unstable tree for another process.
    """
    changed: int = result.ksm["pages_volatile"] - max(result.skipped, result.again)
    return max(0, changed)


def passes(result: Result) -> str:
    return f"{result.passes} {'pass' if result.passes == 1 else 'passes'}"


def metadata(result: Result) -> int:
    """Bytes of KSM's rmap_items."""
    return RMAP_ITEM * sum(source.ksm_stat["ksm_rmap_items"] for source in result.sources)


def breakdown(result: Result) -> Iterator[tuple[str, bool]]:
    """The table of where the pages went, and of what is left after KSM's own needs."""
    ksm, savings, total = result.ksm, result.savings, result.pages

    def line(text: str, pages: str, size: str, share: str, bold: bool = False) -> tuple[str, bool]:
        return f"{text:<42}  {pages:>11}  {size:>10}  {share:>5}".rstrip(), bold

    def row(text: str, pages: int, bold: bool = False) -> tuple[str, bool]:
        return line(text, f"{pages:,}", mib(pages * PAGE_SIZE), f"{100 * pages / total:.1f}", bold)

    def bytes_row(text: str, count: int, bold: bool = False) -> tuple[str, bool]:
        return line(text, "", mib(count), f"{100 * count / PAGE_SIZE / total:.1f}", bold)

    yield line("", "Pages", "MiB", "%", True)
    yield row("Freed", savings.pages, True)
    yield row("  zero pages", savings.zero)
    yield row("  duplicates within one source", savings.within)
    yield row("  duplicates across sources", savings.across)
    yield row("Kept", total - savings.pages, True)
    yield row("  merged: the one copy", ksm["pages_shared"])
    yield row("  unshared: no page is equal", ksm["pages_unshared"] + max(0, result.skipped - result.again))
    # After one pass there is no earlier checksum that a page could differ from.
    yield row(f"  volatile: {'changed between passes' if result.passes > 1 else 'not yet seen unchanged'}", volatile(result))
    yield from holes(result, row, line)
    if knows_profit(result):
        yield bytes_row(f"Metadata: {RMAP_ITEM} bytes for each rmap_item", metadata(result))
        yield bytes_row("general_profit: freed less metadata", ksm["general_profit"], True)


def holes(
    result: Result, row: Callable[[str, int], tuple[str, bool]], line: Callable[[str, str, str, str], tuple[str, bool]]
) -> Iterator[tuple[str, bool]]:
    """How many pages lie in holes of files: those decide much, and whoever has copied a file may have made or filled them."""
    zeros, absent = (sum(getattr(source, name) for source in result.sources) for name in ("zero_holes", "holes"))
    files = any(source.kind != "process" for source in result.sources)
    if zeros or (files and not absent):
        yield row("Holes of files: zero pages among the above", zeros)
    if absent:
        # They are no part of the pages above, and so have no share of them.
        yield line("Holes, and left out of dumps: not counted", f"{absent:,}", mib(absent * PAGE_SIZE), "")


def sources_table(result: Result, width: int) -> Iterator[tuple[str, bool]]:
    """A line for each source, with what /proc/PID/ksm_stat would say."""
    figures: dict[str, Callable[[SourceResult], int]] = {"MiB": lambda source: source.pages * PAGE_SIZE}
    if knows_profit(result):
        figures["merged"] = lambda source: source.ksm_stat["ksm_merging_pages"] * PAGE_SIZE
        if any(source.ksm_stat["ksm_zero_pages"] for source in result.sources):  # only with use_zero_pages
            figures["zero"] = lambda source: source.ksm_stat["ksm_zero_pages"] * PAGE_SIZE
        figures["profit"] = lambda source: source.ksm_stat["ksm_process_profit"]
    room = NAME_WIDTH + max(0, width - 80)
    utf = (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
    rows = [["Source", "Kind", *figures]]
    for source in ordered(result):
        name = shortened(printable(source.name), room)
        rows.append([name, source.kind, *(mib(count(source)) for count in figures.values())])
    widths = [max(map(columns, cells)) for cells in zip(*rows, strict=True)]
    widths[2:] = [max(8, each) for each in widths[2:]]
    for number, row in enumerate(rows):
        cells = [cell + " " * (most - columns(cell)) for cell, most in zip(row[:2], widths, strict=False)]
        cells += [f"{cell:>{most}}" for cell, most in zip(row[2:], widths[2:], strict=True)]
        yield "   ".join(cells), number == 0
        if number == 0:
            yield ("─" if utf else "-") * (sum(widths) + 3 * (len(widths) - 1)), False


def ordered(result: Result) -> list[SourceResult]:
    """Sources in the order in which they were named. If all are processes: by profit, or by size where the era has no profit."""
    if all(source.kind == "process" for source in result.sources):
        return sorted(result.sources, key=lambda source: -source.ksm_stat.get("ksm_process_profit", source.pages))
    return result.sources


def shortened(name: str, room: int) -> str:
    """The name, cut to fit: its end stays, which says more of a path."""
    if columns(name) <= room:
        return name
    while columns(name) >= room:
        name = name[1:]
    return "…" + name


def all_notes(result: Result) -> list[str]:
    """The notes below the figures: what to know before believing them."""
    return [how_it_ended(result), *which_era(result), *overstatement(result), *result.notes]


def which_era(result: Result) -> list[str]:
    if result.era == ERA:
        return []
    return [f"the KSM of Linux {result.era}, which did not count what it needs itself"]


def how_it_ended(result: Result) -> str:
    if result.snapshots:
        return snapshots_seen(result)
    if result.settled:
        return f"{passes(result)}; the last one changed nothing"
    if result.passes == (MOST_PASSES_LIVE if result.live else MOST_PASSES):
        return f"{passes(result)}, and still the last one changed something: this memory does not hold still"
    return f"{passes(result)}, as asked for; the last one still changed something"


def snapshots_seen(result: Result) -> str:
    more = f", and {result.passes - result.snapshots} more over the last one" if result.passes > result.snapshots else ""
    seen = f"{result.snapshots} snapshots, a pass over each{more}"
    return f"{seen}: what is merged was the same in two that follow each other, and has not changed since"


def overstatement(result: Result) -> list[str]:
    if not any(source.still for source in result.sources):
        return []
    return ["a still image overstates: pages that a running machine keeps writing to would not stay merged"]

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what a scan found, for a person and for a program.
"""The report of a scan: print_report() for a person, as_json() for a program."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ksm.constants import PAGE_SIZE
from ksm.estimate.eras import ERA
from ksm.estimate.ledger import differences
from ksm.estimate.next_step import in_a_word
from ksm.estimate.pace import spell
from ksm.estimate.result import Result, SourceResult
from ksm.estimate.scan import LEAST_PASSES, MOST_PASSES, MOST_PASSES_LIVE
from ksm.estimate.terminal import print_lines, wrapped
from ksm.host.text import printable, size, size_said

NARROW = 80  # a terminal has as many columns, or is narrow
NAME_WIDTH = 28  # of a source, where the terminal has 80 columns
LEAST_NAME = 12  # of a source, where the terminal is narrow: rather fewer columns of the table than less
FULL_WIDTH = 74  # of the table of pages
SHOWN = 20  # sources
SHOWN_NOTES = 8  # on sources


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
                "zeros": source.zeros,
                **source.ksm_stat,
            }
            for source in result.sources
        ],
        "ledger": result.ledger.as_json(),
        "savings": {**result.savings._asdict(), "pages": result.savings.pages, "bytes": result.savings.bytes},
        "pages": result.pages,
        "shared": result.shared,
        "freed": result.freed._asdict(),
        "already": result.already._asdict(),
        "doubts": [doubt._asdict() for doubt in result.doubts],
        **({"projection": result.projection.as_json()} if result.projection else {}),
        "passes": result.passes,
        "settled": result.settled,
        "seconds": round(sum(result.seconds), 3) if result.pace.pages or result.pace.target else None,
        **({"snapshots": result.snapshots} if result.snapshots else {}),
        "history": [*result.history],
        **({"details": result.details.as_json()} if result.details else {}),
        **({"tenants": result.tenants.as_json()} if result.tenants else {}),
        "notes": all_notes(result),
    }


def print_report(result: Result, width: int, next_step: tuple[str, str] = ("", "")) -> None:
    """Print the report for a person, `width` columns wide, and what to do next. rich is not used: its import takes as long as scanning
    30,000 pages.
    """
    print_lines(lines(result, width))
    if word := in_a_word(result):
        print_lines([("", False), *wrapped(word, width, "", "")])
    answers, command = next_step
    if command:
        # The command is one line, also where the terminal is narrow, so that it can be copied.
        print_lines([*wrapped(f"Next: {answers}", width, "", "  "), (f"    {printable(command)}", False)])


def lines(result: Result, width: int) -> Iterator[tuple[str, bool]]:
    """The lines of the report, and whether each is bold."""
    if width < NARROW:
        yield from ((line, True) for line, _ in wrapped(answer(result), width, "", "  "))
    else:  # one line, also for a program that reads it
        yield answer(result), True
    if result.pages:
        yield "", False
        yield from breakdown(result, width)
        yield "", False
        yield from sources_table(result, width)
    else:
        for text, pages, *_ in outside(result, lambda text, pages: (text, f"{pages:,}", "", "", False)):
            if pages != "0":
                yield f"{text.strip().partition(':')[0]}: {pages} pages, which are not counted.", False
    yield "", False
    for note in shown_notes(result):
        yield from wrapped(note, width, "- ", "  ")


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
    ledger, freed, already = result.ledger, result.freed, result.already
    total = size(ledger.pages * PAGE_SIZE)
    if not ledger.pages:
        return "There are no pages that KSM could merge."
    if not freed.most and not already.most:
        if all_compared(result):
            return f"KSM would free nothing: of {total}, no two pages are equal."
        return f"KSM found nothing to free in {passes(result)} over {total}."
    if not freed.most:
        return f"{saved_already(result)}KSM would free nothing more of {total}."
    least, most = (size(pages * PAGE_SIZE) for pages in freed)
    if freed.most - freed.least <= freed.most / 100:
        pages = ledger.freed - already.least
        said = f"{size(pages * PAGE_SIZE)} of {total} ({percent(pages, ledger.pages)})"
    elif freed.least <= 0:
        said = f"between nothing and {most} of {total} (0 to {percent(freed.most, ledger.pages)})"
    else:
        share = f"{100 * freed.least / ledger.pages:.1f} to {percent(freed.most, ledger.pages)}"
        said = f"between {least} and {most} of {total} ({share})"
    worth = (freed.most + already.most) * PAGE_SIZE > ledger.metadata
    said += " more" if already.most else ""
    return f"{'' if worth else 'Not worth it: '}{saved_already(result)}KSM would free {said}, and need {size(ledger.metadata)} itself."


def saved_already(result: Result) -> str:
    """What KSM saves now, before the rest of the sentence."""
    least, most = (size(pages * PAGE_SIZE) for pages in result.already)
    if not result.already.most:
        return ""
    return f"{most if least == most else f'{least} to {most}'} are saved already; "


def all_compared(result: Result) -> bool:
    """Whether KSM has looked for an equal of every page. It does so only for pages that hold still between two passes.

    smart_scan skips what had no equal in earlier passes. In memory that changes, it may have one by now.
    """
    ledger = result.ledger
    return result.settled and result.passes >= LEAST_PASSES and not ledger.volatile and not (result.live and ledger.skipped)


def knows_profit(result: Result) -> bool:
    """Whether the era counts what KSM needs itself. 6.1 and the KSM of 2011 did not."""
    return "general_profit" in result.ksm


def passes(result: Result) -> str:
    return f"{result.passes} {'pass' if result.passes == 1 else 'passes'}"


Row = tuple[str, str, str, str, bool]  # what it is, pages, MiB, percent, whether it is bold


def breakdown(result: Result, width: int = 80) -> Iterator[tuple[str, bool]]:
    """The table of where the pages went, and of what is left after KSM's own needs."""
    ledger = result.ledger
    total = ledger.pages

    def row(text: str, pages: int, bold: bool = False) -> Row:
        return text, f"{pages:,}", mib(pages * PAGE_SIZE), f"{100 * pages / total:.1f}", bold

    def bytes_row(text: str, count: int, bold: bool = False) -> Row:
        return text, "", mib(count), f"{100 * count / PAGE_SIZE / total:.1f}", bold

    rows: list[Row] = [
        ("", "Pages", "MiB", "%", True),
        row("Freed", ledger.freed, True),
        row("  zero pages", ledger.zero),
        *([row("  zeros of huge pages that are split", ledger.split)] if ledger.split else []),
        row("  duplicates within one source", ledger.within),
        row("  duplicates across sources", ledger.across),
        *on_top(result, row),
        row("Kept", ledger.kept, True),
        row("  merged: the one copy", ledger.merged),
        row("  unshared: no page is equal", ledger.unshared),
    ]
    if ledger.skipped:
        rows.append(row("  skipped: had no equal in earlier passes", ledger.skipped))
    # After one pass there is no earlier checksum that a page could differ from.
    rows.append(row(f"  volatile: {'changed between passes' if result.passes > 1 else 'not yet seen unchanged'}", ledger.volatile))
    rows += outside(result, row)
    rows.append(bytes_row("Metadata: KSM's own structures", ledger.metadata))
    at_most = "" if result.freed.least == result.freed.most else ", at most"
    rows.append(bytes_row(f"Profit: freed less metadata{at_most}", ledger.profit, True))
    if knows_profit(result):
        rows.append(bytes_row("general_profit: as the kernel counts", result.ksm["general_profit"]))
    yield from laid_out(rows, width)


def on_top(result: Result, row: Callable[[str, int], Row]) -> list[Row]:
    """Of what is freed, what the running kernel has freed already, and the rest. None where all is yet to come, and certain."""
    freed, already = result.freed, result.already
    certain = freed.least == freed.most
    rows = []
    if already.most:
        least = "" if already.least == already.most else ", at least"
        rows.append(row(f"Freed already{least}", min(already.least, result.ledger.freed)))
    if not certain:
        rows.append(row("Freed on top, at least", freed.least))
    if rows:
        rows.append(row("Freed on top" if certain else "Freed on top, at most", freed.most))
    return rows


def outside(result: Result, row: Callable[[str, int], Row]) -> Iterator[Row]:
    """What is not counted, and so has no share of the pages; holes of files, which decide much: a copy may have made or filled them."""
    apart, in_holes, absent = (sum(getattr(source, name) for source in result.sources) for name in ("zeros", "zero_holes", "holes"))
    if apart:
        yield "Zeros, perhaps not there: not counted", f"{apart:,}", mib(apart * PAGE_SIZE), "", False
        if in_holes:
            yield "  of these in holes of files", f"{in_holes:,}", mib(in_holes * PAGE_SIZE), "", False
    elif in_holes or (any(source.kind != "process" for source in result.sources) and not absent):
        yield row("Holes of files: zero pages among the above", in_holes)
    if absent:
        yield "Holes, and left out of dumps: not counted", f"{absent:,}", mib(absent * PAGE_SIZE), "", False


def laid_out(rows: list[Row], width: int) -> Iterator[tuple[str, bool]]:
    """The rows in columns. Where the terminal is narrow, what a row is takes several lines."""
    widths = [11, 10, 5]
    room = 42
    if width < FULL_WIDTH:
        widths = [max(len(str(row[number])) for row in rows) for number in (1, 2, 3)]
        room = max(LEAST_NAME, min(room, width - sum(widths) - 6))
    for text, pages, count, share, bold in rows:
        indent = " " * (len(text) - len(text.lstrip()))
        *first, last = textwrap.wrap(text.strip(), room, initial_indent=indent, subsequent_indent=indent + "  ") or [""]
        for part in first:
            yield part, bold
        yield f"{last:<{room}}  {pages:>{widths[0]}}  {count:>{widths[1]}}  {share:>{widths[2]}}".rstrip(), bold


def sources_table(result: Result, width: int) -> Iterator[tuple[str, bool]]:
    """A line for each source, with what /proc/PID/ksm_stat would say; of very many, the first ones only."""
    figures: dict[str, Callable[[SourceResult], int]] = {"MiB": lambda source: source.pages * PAGE_SIZE}
    if all("ksm_merging_pages" in source.ksm_stat for source in result.sources):
        figures["merged"] = lambda source: source.ksm_stat["ksm_merging_pages"] * PAGE_SIZE
    if knows_profit(result):
        if any(source.ksm_stat["ksm_zero_pages"] for source in result.sources):  # only with use_zero_pages
            figures["zero"] = lambda source: source.ksm_stat["ksm_zero_pages"] * PAGE_SIZE
        figures["profit"] = lambda source: source.ksm_stat["ksm_process_profit"]
    utf = (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
    every = ordered(result)
    shown = every[:SHOWN]
    gap = "   "
    room = NAME_WIDTH + max(0, width - 80)
    table = {"Kind": [source.kind for source in shown]}
    table.update({name: [mib(count(source)) for source in shown] for name, count in figures.items()})
    least = {name: max(map(columns, [name, *cells])) for name, cells in table.items()}
    widths = {name: most if name == "Kind" else max(8, most) for name, most in least.items()}
    named = min(room, max(columns(printable(source.name)) for source in shown))
    if named + sum(widths.values()) + len(gap) * len(widths) > width:
        widths, gap = least, " "
        for name in ("Kind", "zero", "merged", "MiB"):
            if name in widths and LEAST_NAME + sum(widths.values()) + len(widths) > width:
                del widths[name]
        room = max(LEAST_NAME, width - sum(widths.values()) - len(widths))
    names = ["Source", *(shortened(printable(source.name), room) for source in shown)]
    longest = max(map(columns, names))
    for number, name in enumerate(names):
        cells = [name + " " * (longest - columns(name))]
        for column, most in widths.items():
            cell = table[column][number - 1] if number else column
            cells.append(cell + " " * (most - columns(cell)) if column == "Kind" else f"{cell:>{most}}")
        yield gap.join(cells), number == 0
        if number == 0:
            yield ("─" if utf else "-") * (longest + sum(widths.values()) + len(gap) * len(widths)), False
    if len(every) > SHOWN:
        more = every[SHOWN:]
        yield f"and {len(more):,} more, with {size(sum(source.pages for source in more) * PAGE_SIZE)}; --json lists all", False


def ordered(result: Result) -> list[SourceResult]:
    """Sources in the order in which they were named. Processes, and more sources than are shown: by profit; by size in an era without."""
    if len(result.sources) > SHOWN or all(source.kind == "process" for source in result.sources):
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
    return notes_around(result, [f"{name}: {note}" for name, note in result.source_notes])


def notes_around(result: Result, on_sources: list[str]) -> list[str]:
    doubts = [doubt.why for doubt in result.doubts]
    around = [how_it_ended(result), *doubts, *counters(result), *further(result), *which_era(result), *zeros_apart(result)]
    around += overstatement(result)
    return [*around, *on_sources, *result.notes]


def shown_notes(result: Result) -> list[str]:
    """All notes; where many are on sources, those that are the same in one line, and not all."""
    if len(result.source_notes) <= SHOWN_NOTES:
        return all_notes(result)
    lines = noted(result.source_notes)
    if len(lines) > SHOWN_NOTES:
        lines[SHOWN_NOTES:] = [f"{len(lines) - SHOWN_NOTES:,} more notes on sources; --json lists all"]
    return notes_around(result, lines)


def noted(notes: Sequence[tuple[str, str]]) -> list[str]:
    """Notes on sources, each with a source's name: those that are the same in one line."""
    names: dict[str, list[str]] = {}
    for name, note in notes:
        names.setdefault(note, []).append(name)
    return [f"{each[0] if len(each) == 1 else f'{len(each):,} sources'}: {note}" for note, each in names.items()]


def counters(result: Result) -> list[str]:
    """What the kernel would show, and where that is not what the table has."""
    if not result.pages:
        return []
    names = [name for name in ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "ksm_zero_pages") if name in result.ksm]
    shown = ", ".join(f"{name}={result.ksm[name]:,}" for name in names)
    but_for = "but for these doubts, " if any(doubt.fewer or doubt.more for doubt in result.doubts) else ""
    return [f"{but_for}the kernel would show {shown}", *differences(result.ledger, result.ksm, result.again)]


def which_era(result: Result) -> list[str]:
    if result.era == ERA:
        return []
    if "general_profit" in result.ksm:
        return [f"the KSM of Linux {result.era}"]
    lacks = "what it does for a process" if not any(source.ksm_stat for source in result.sources) else "pages that became the zero page"
    return [f"the KSM of Linux {result.era}, which counted neither general_profit nor {lacks}"]


def how_it_ended(result: Result) -> str:
    if result.snapshots:
        return snapshots_seen(result)
    if not result.pace.pages and not result.pace.target:
        return f"{passes(result)}; but ksmd looks at no page with pages_to_scan 0"
    if result.settled:
        took = f"ksmd would have settled after {spell(sum(result.seconds))} ({result.pace})"
        return f"{passes(result)}; the last one changed nothing: {took}"
    if result.passes == (MOST_PASSES_LIVE if result.live else MOST_PASSES):
        return f"{passes(result)}, and still the last one changed something: this memory does not hold still"
    took = f"ksmd takes {spell(sum(result.seconds))} for {'it' if result.passes == 1 else 'them'} ({result.pace})"
    return f"{passes(result)}; the last one still changed something: {took}"


def snapshots_seen(result: Result) -> str:
    more = f", and {result.passes - result.snapshots} more over the last one" if result.passes > result.snapshots else ""
    seen = f"{result.snapshots} snapshots, a pass over each{more}"
    return f"{seen}: what is merged was the same in two that follow each other, and has not changed since"


def further(result: Result) -> list[str]:
    """What further machines would add."""
    if not result.projection:
        return []
    machines = result.projection.machines
    pages, shared, own, least, most = (size(count * PAGE_SIZE) for count in result.projection[1:6])
    need = size(machines * (result.projection.own * PAGE_SIZE + result.projection.metadata))
    each = f"each further one like these has {pages}: {shared} shared, {own} its own ({least} to {most})"
    return [f"{each}, and {size(result.projection.metadata)} of metadata; {machines:,} more need {need}"]


def zeros_apart(result: Result) -> list[str]:
    """What pages of zeros that may not be there would add."""
    apart = sum(source.zeros for source in result.sources) * PAGE_SIZE
    if not apart:
        return []
    return [f"{size(apart)} of zeros may not be there in the running machine: those that are would be freed, too (--zeros count)"]


def overstatement(result: Result) -> list[str]:
    """What nobody can see."""
    notes = []
    if any(source.still for source in result.sources):
        notes.append("a still image overstates: pages that a running machine keeps writing to would not stay merged")
    if result.live and result.freed.most:
        notes.append("a page that is written to with the bytes that it has looks unchanged here, and would not stay merged")
    return notes

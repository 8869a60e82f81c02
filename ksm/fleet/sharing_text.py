# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""The report of a fleet, for a person and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from ksm.constants import PAGE_SIZE
from ksm.estimate.found import HOW, KINDS
from ksm.estimate.report import FULL_WIDTH, columns, laid_out, mib, percent, shortened
from ksm.estimate.terminal import amount
from ksm.fleet.ledger import FleetLedger
from ksm.fleet.sharing import FleetReport, FleetTenants, Group, Pair
from ksm.host.text import printable

SHOWN = 10  # rows of a table
LEAST_NAME = 12
NAMED = 3  # sources of a group

# The lines of the ledger: a name in JSON, and the words
LINES = (
    ("within", "duplicates within one source"),
    ("same_host", "duplicates across sources of a host"),
    ("across_hosts", "duplicates across hosts"),
    ("kept", "kept: one page for each contents"),
    ("zero", "pages of zeros"),
)
TELLS = {kind: tells for _, kinds, tells in KINDS for kind in kinds}

Lines = Iterator[tuple[str, bool]]


def in_bytes(pages: int) -> str:
    return amount(pages * PAGE_SIZE)


def answer(report: FleetReport) -> str:
    """The answer in a sentence."""
    fleet, ledger = report.fleet, report.ledger
    where = f"{len(fleet.members):,} source{'' if len(fleet.members) == 1 else 's'} on {len(report.hosts):,} "
    where += "host" if len(report.hosts) == 1 else "hosts"
    saved = f"Of {in_bytes(ledger.pages)} in {where}, merging saves {in_bytes(ledger.saved)} where they live"
    more = f"; {in_bytes(ledger.across_hosts)} more are equal to pages of other hosts" if len(report.hosts) > 1 else ""
    return f"{saved}{more}."


def notes(report: FleetReport) -> list[str]:
    """What to know before believing the figures."""
    said = [
        "equal pages are counted, without what KSM needs itself, and without max_page_sharing: ksm scan of the files of a host has both",
        "a fingerprint file is of one moment, which overstates: pages that are written to would not stay merged",
    ]
    if report.ledger.zero:
        said.append(f"{in_bytes(report.ledger.zero)} of zeros are apart: with use_zero_pages they would be freed, too, if they are there")
    if report.sample > 1:
        said.append(f"pairs and groups are found by one of {report.sample:,} contents; \N{PLUS-MINUS SIGN} is the standard error")
    return said


def lines(report: FleetReport, width: int) -> Lines:
    """The lines, `width` columns wide, and whether each is bold."""
    yield from ((line, True) for line in textwrap.wrap(answer(report), width))
    yield "", False
    yield from ledger_lines(report.ledger, width)
    yield "", False
    heads = ["Class", "MiB", "within", "same host", "across hosts", "kept"]
    rows = [[each.name, *map(pages_mib, (each.ledger.pages, *each.ledger[1:]))] for each in report.classes if each.ledger.pages]
    yield from table(heads, rows, width)
    if len(report.hosts) > 1:
        yield "", False
        hosts = sorted(report.hosts, key=lambda host: (-host.ledger.saved, host.name))
        yield from table(
            ["Host", "sources", "MiB", "saved", "left", "zeros"],
            [[host.name, f"{host.sources:,}", *map(pages_mib, (host.ledger.pages, host.ledger.saved, host.ledger.left, host.ledger.zero))]
             for host in hosts], width,
        )  # fmt: skip
    if report.pairs:
        yield "", False
        yield from pairs_lines(report, width)
    if report.groups:
        yield "", False
        yield from groups_lines(report, width)
    if report.tenants is not None:
        yield "", False
        yield from tenants_lines(report.tenants, width)
    yield "", False
    for note in notes(report):
        yield from ((line, False) for line in textwrap.wrap(note, width, initial_indent="- ", subsequent_indent="  "))


def pages_mib(pages: int) -> str:
    return mib(pages * PAGE_SIZE)


def ledger_lines(ledger: FleetLedger, width: int) -> Lines:
    values = ledger._asdict()
    rows = [("Saved where they live", ledger.saved, True), *(("  " + text, values[name], False) for name, text in LINES[:2])]
    rows += [("Left", ledger.left, True), *(("  " + text, values[name], False) for name, text in LINES[2:4])]
    rows += [("Pages of zeros", ledger.zero, True), ("All", ledger.pages, True)]
    cells = [(text, f"{pages:,}", pages_mib(pages), percent(pages, ledger.pages).replace(" %", ""), bold) for text, pages, bold in rows]
    if width < FULL_WIDTH:
        yield from laid_out([("", "Pages", "MiB", "%", True), *cells], width)
        return
    for number, (line, _) in enumerate(table(["", "Pages", "MiB", "%"], [cell[:4] for cell in cells], width, most=len(cells))):
        yield line, number == 0 or cells[number - 1][4]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int, *, names: int = 1, most: int = SHOWN) -> Lines:
    """A table whose first columns, `names` of them, are words, and all others figures. Of more than `most` rows, it says how many more."""
    shown = [list(row) for row in rows[:most]]
    widths = [max(columns(row[place]) for row in [heads, *shown]) for place in range(len(heads))]
    room = max(LEAST_NAME, (width - sum(widths[names:]) - 2 * (len(heads) - 1)) // names)
    for place in range(names):
        for row in shown:
            indent = row[place][: len(row[place]) - len(row[place].lstrip())]
            row[place] = indent + shortened(printable(row[place].strip()), room - len(indent))
        widths[place] = max(columns(row[place]) for row in [heads, *shown])
    bold = True
    for row in [list(heads), *shown]:
        cells = [
            cell + " " * (wide - columns(cell)) if place < names else " " * (wide - columns(cell)) + cell
            for place, (cell, wide) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip(), bold
        bold = False
    if len(rows) > most:
        yield f"and {len(rows) - most:,} more", False


def counted(pair: Pair) -> str:
    error = f" \N{PLUS-MINUS SIGN}{pair.contents.error:,.0f}" if pair.contents.error else ""
    return f"{pair.contents.value:,}{error}"


def pairs_lines(report: FleetReport, width: int) -> Lines:
    members = report.fleet.members
    rows = [
        [members[pair.a].name, members[pair.b].name, counted(pair), f"{100 * pair.alike:.0f} %",
         "yes" if members[pair.a].host == members[pair.b].host else "no"]
        for pair in report.pairs
    ]  # fmt: skip
    yield from table(["Most in common", "with", "contents", "alike", "same host"], rows, width, names=2)


def named(report: FleetReport, group: Group) -> str:
    """The sources of a group, in so many words as fit."""
    some = ", ".join(report.fleet.members[source].name for source in group.members[:NAMED])
    return some + (f", and {len(group.members) - NAMED:,} more" if len(group.members) > NAMED else "")


def groups_lines(report: FleetReport, width: int) -> Lines:
    rows = [
        [str(place), f"{len(group.members):,}", f"{group.hosts:,}", *map(pages_mib, (group.together, group.now, group.gain))]
        for place, group in enumerate(report.groups, 1)
    ]
    heads = ["Group", "sources", "hosts", "on one host", "as they live", "to gain, MiB"]
    yield from table(heads, rows, width)
    for place, group in enumerate(report.groups[:SHOWN], 1):
        text = f"{place}: {printable(named(report, group))}"
        wrapped = textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="     ", break_on_hyphens=False)
        yield from ((line, False) for line in wrapped)


def tenants_lines(tenants: FleetTenants, width: int) -> Lines:
    if not tenants.classes:
        yield "No contents are those of two tenants.", True
        return
    said = f"Merging across tenants saves {in_bytes(tenants.cost)} where they live, which is what it would cost to forbid it."
    yield from ((line, True) for line in textwrap.wrap(said, width))
    yield "", False
    rows = [[each.name, f"{each.sources:,}", pages_mib(each.pages), pages_mib(each.common)] for each in tenants.tenants]
    yield from table(["Tenant", "sources", "MiB", "in common"], rows, width)
    yield "", False
    yield from ((line, False) for line in textwrap.wrap(HOW, width))
    for kind in tenants.classes:
        yield "", False
        yield f"{kind.name}: {kind.contents:,} contents in {kind.pages:,} pages", True
        yield from ((line, False) for line in textwrap.wrap(TELLS[kind.name], width, initial_indent="  ", subsequent_indent="  "))


def as_json(report: FleetReport) -> dict[str, Any]:
    """The report as a value for JSON. All figures are pages or contents, but for shares of 0 to 1."""
    members = report.fleet.members
    value: dict[str, Any] = {
        "hash": report.fleet.hashed,
        "files": report.fleet.files,
        "ledger": of_ledger(report.ledger),
        "classes": [{"name": each.name, **of_ledger(each.ledger)} for each in report.classes],
        "sources": [{**each._asdict(), "within": each.within} for each in report.sources],
        "hosts": [
            {"name": host.name, "sources": host.sources, "pages": host.ledger.pages, "zero": host.ledger.zero, "within": host.ledger.within,
             "same_host": host.ledger.same_host, "saved": host.ledger.saved, "left": host.ledger.left}
            for host in report.hosts
        ],
        "pairs": [
            {"a": members[pair.a].name, "b": members[pair.b].name, "contents": pair.contents.value, "error": pair.contents.error,
             "low": pair.contents.low, "high": pair.contents.high, "alike": pair.alike}
            for pair in report.pairs
        ],
        "groups": [
            {"sources": [members[source].name for source in group.members], "hosts": group.hosts, "together": group.together,
             "now": group.now, "gain": group.gain}
            for group in report.groups
        ],
        "blocks": {
            "sources": [[members[source].name for source in block] for block in report.blocks.members], "alike": report.blocks.alike,
        },
        "alike": report.alike,
        "sample": report.sample,
        "tenants": None,
        "notes": notes(report),
    }  # fmt: skip
    if report.tenants is not None:
        value["tenants"] = {
            "tenants": [each._asdict() for each in report.tenants.tenants],
            "classes": [{**each._asdict(), "tells": TELLS[each.name]} for each in report.tenants.classes],
            "cost": report.tenants.cost,
            "how": HOW,
        }
    return value


def of_ledger(ledger: FleetLedger) -> dict[str, int]:
    return {"pages": ledger.pages, **ledger._asdict(), "saved": ledger.saved, "left": ledger.left}

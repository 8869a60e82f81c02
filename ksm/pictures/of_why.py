# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it prints numbers.
"""The page of `ksm why`, from the JSON of its report, and a map of the pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ksm.constants import PAGE_SIZE
from ksm.estimate.page_map import make_map
from ksm.estimate.reasons import BY_NAME, REASONS
from ksm.estimate.report import shortened
from ksm.estimate.why import Examined, Why
from ksm.estimate.why_report import GROUPS
from ksm.host.text import size
from ksm.pictures import charts
from ksm.pictures.of_scan import MOST_BARS, map_of_cells, percent
from ksm.pictures.sections import Page, Section, Table, distinct, mib, shown

ABSENT = "absent"
MOST_REGIONS = 500  # in the table: a process may have 65,530
# Colours, by what a scan calls it; other reasons take those below, one after the other.
COLOURS = {
    "within": "within", "across": "across", "zero": "zero", "split": "split", "last": "merged", "forked": "shared", "alone": "unshared",
    "huge": "other", "volatile": "volatile", "smart_scan": "skipped",
}  # fmt: skip
OTHERS = ("6", "2", "4", "7", "text", "8", "unknown")
LABEL, ANY = 16, 4096  # columns of names in the chart, and in the table
AT_ONCE = 1 << 16  # pages of a piece


def map_of(why: Why) -> dict[str, Any]:
    """The map of all pages that there are, as JSON."""
    names = [reason.name for reason in REASONS if reason.name in why.reasons and reason.name != ABSENT]
    totals = [sum(count for name, count in source.reasons.items() if name != ABSENT) for source in why.sources]
    return make_map([pieces_of(source, names) for source in why.sources], totals, names).as_json()


def pieces_of(source: Examined, names: list[str]) -> Iterator[tuple[int, bytes]]:
    for region in source.regions:
        for start, end, name in region.runs():
            if name == ABSENT:
                continue
            code = bytes([names.index(name) + 1])
            for addr in range(start, end, AT_ONCE * PAGE_SIZE):
                yield addr, code * (min(end - addr, AT_ONCE * PAGE_SIZE) // PAGE_SIZE)


def page_of(report: dict[str, Any], answer: str) -> Page:
    """`report` is the JSON with "map"; `answer` is the first line of the report in words."""
    sources = report["sources"]
    names = distinct([source["name"] for source in sources])
    there = sum(reason["pages"] for reason in report["reasons"] if reason["name"] != ABSENT)
    merged = sum(reason["pages"] for reason in report["reasons"] if reason["group"] == "merged")
    figures = [
        ("in all", size(there * PAGE_SIZE)), ("merged", size(merged * PAGE_SIZE)),
        ("freed", size(report["ledger"]["freed"] * PAGE_SIZE)), ("mappings", f"{sum(len(source['regions']) for source in sources):,}"),
    ]  # fmt: skip
    titles = {reason["name"]: BY_NAME[reason["name"]].title for reason in report["reasons"] if reason["name"] != ABSENT}
    colours = colours_of(list(titles))
    sections = [reasons_section(report["reasons"], titles, colours)]
    if gains := gains_section(report["reasons"], titles):
        sections.append(gains)
    sections += [sources_section(sources, names, titles, colours), regions_section(sources, names, titles, colours)]
    sections.append(map_of_cells(report["map"], names, at=["map"], words=titles, colours=colours))
    notes = [f"{name}: {note}" for name, source in zip(names, sources, strict=True) for note in source["notes"]]
    return Page("Why memory merges, or not", answer, figures, sections, notes + report["notes"])


def colours_of(names: list[str]) -> dict[str, str]:
    others = [name for name in names if name not in COLOURS]
    return {name: COLOURS[name] if name in COLOURS else OTHERS[others.index(name) % len(OTHERS)] for name in names}


def stacked(
    rows: list[tuple[str, dict[str, int]]], titles: dict[str, str], colours: dict[str, str], description: str
) -> dict[str, Any]:
    parts = [{"name": name, "part": reason, "value": mib(reasons.get(reason, 0))} for name, reasons in rows for reason in titles]
    return charts.bars(parts, [name for name, _ in rows], titles, unit="MiB", description=description, keys=colours)


def reasons_section(reasons: list[dict[str, Any]], titles: dict[str, str], colours: dict[str, str]) -> Section:
    there = [reason for reason in reasons if reason["name"] != ABSENT]
    total = sum(reason["pages"] for reason in there)
    chart = stacked([("all pages", {each["name"]: each["pages"] for each in there})], titles, colours, "All pages by reason, in MiB")
    table = Table(
        "Pages by reason", ["Reason", "Group", "Pages", "MiB", "Share", "What it means"],
        [
            [titles[each["name"]], GROUPS[each["group"]], each["pages"], mib(each["pages"]), percent(each["pages"], total),
             each["sentence"]]
            for each in there
        ],
    )  # fmt: skip
    return Section("reasons", "What became of the pages", chart=chart, label="All pages as one bar", tables=[table], open=True)


def gains_section(reasons: list[dict[str, Any]], titles: dict[str, str]) -> Section | None:
    """What could be gained, the largest gain first; what is not known comes last."""
    chances = [each for each in reasons if each["remedy"] and each["freed"] != 0]
    if not chances:
        return None
    chances.sort(key=lambda each: (each["freed"] is None, -(each["freed"] or 0)))
    table = Table(
        "What could be gained, and how", ["Reason", "MiB", "With an equal", "MiB that could be freed", "What to do"],
        [
            [titles[each["name"]], mib(each["pages"]), "not read" if each["equal"] is None else percent(each["equal"], each["pages"]),
             "not read" if each["freed"] is None else mib(each["freed"]), each["remedy"]]
            for each in chances
        ],
    )  # fmt: skip
    return Section("gains", "What could be gained", tables=[table], open=True)


def sources_section(sources: list[dict[str, Any]], names: list[str], titles: dict[str, str], colours: dict[str, str]) -> Section:
    rows = sorted(zip(names, [source["reasons"] for source in sources], strict=True), key=lambda row: -there_of(row[1]))
    chart = stacked(rows[:MOST_BARS], titles, colours, "Each source's pages by reason, in MiB")
    table = Table(
        "Pages of each source, by reason", ["Source", *titles.values()],
        [[name, *(reasons.get(key, 0) for key in titles)] for name, reasons in rows],
    )  # fmt: skip
    return Section("sources", "By source", chart=chart, label="A bar for each source", tables=[table])


def there_of(reasons: dict[str, int]) -> int:
    return sum(count for name, count in reasons.items() if name != ABSENT)


def regions_section(sources: list[dict[str, Any]], names: list[str], titles: dict[str, str], colours: dict[str, str]) -> Section:
    every = [
        (name if len(names) > 1 else "", region) for name, source in zip(names, sources, strict=True)
        for region in source["regions"] if there_of(region["reasons"])
    ]  # fmt: skip
    every.sort(key=lambda each: -there_of(each[1]["reasons"]))

    def named(room: int) -> list[str]:
        return distinct([
            f"{f'{shortened(name, room)}: ' if name else ''}{region['start']:x} {shortened(shown(region['name']), room)}".rstrip()
            for name, region in every
        ])

    rows = [(text, region["reasons"]) for text, (_, region) in zip(named(ANY), every, strict=True)]
    bars = [(text, reasons) for text, (_, reasons) in zip(named(LABEL), rows, strict=True)][:MOST_BARS]
    chart = stacked(bars, titles, colours, "The largest mappings by reason, in MiB")
    table = Table(
        "Pages of each mapping, by reason", ["Mapping", *titles.values()],
        [[name, *(reasons.get(key, 0) for key in titles)] for name, reasons in rows[:MOST_REGIONS]],
    )  # fmt: skip
    text = [f"The chart has the {MOST_BARS} largest of {len(rows):,}."] if len(rows) > MOST_BARS else []
    if len(rows) > MOST_REGIONS:
        text.append(f"The table has the {MOST_REGIONS} largest; --json has all.")
    return Section("mappings", "By mapping", text, chart=chart, label="A bar for each mapping", tables=[table])

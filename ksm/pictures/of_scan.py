# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it prints numbers.
"""The page of a scan, from the JSON of its report and nothing else."""

from __future__ import annotations

from typing import Any

from ksm.constants import PAGE_SIZE
from ksm.host.text import size
from ksm.pictures import charts
from ksm.pictures.sections import STATES, Dump, Page, Section, Table, distinct, mib, shown

Report = dict[str, Any]

MOST_BARS = 24
LEDGER = (
    ("freed", "Freed"), ("zero", STATES["zero"]), ("split", STATES["split"]), ("within", STATES["within"]), ("across", STATES["across"]),
    ("kept", "Kept"), ("merged", STATES["merged"]), ("unshared", STATES["unshared"]), ("skipped", STATES["skipped"]),
    ("volatile", STATES["volatile"]),
)  # fmt: skip
COUNTERS = {
    "pages_sharing": "pages_sharing: freed", "pages_shared": "pages_shared: kept for them", "ksm_zero_pages": "ksm_zero_pages",
    "pages_unshared": "pages_unshared: alone", "pages_volatile": "pages_volatile",
}  # fmt: skip
LINE = 16  # bytes of a line of hex


def page_of(report: Report, answer: str) -> Page:
    """`answer` is the first line of the report in words."""
    ledger = report["ledger"]
    names = distinct([source["name"] for source in report["sources"]])
    figures = [
        ("scanned", size(ledger["pages"] * PAGE_SIZE)), ("freed", size(ledger["freed"] * PAGE_SIZE)),
        ("KSM's own structures", size(ledger["metadata"])), ("profit", signed(ledger["profit"])),
        ("passes", f"{report['passes']}{'' if report['settled'] else ', not settled'}"),
    ]  # fmt: skip
    sections = [pages_section(ledger), *details_sections(report, names), history_section(report["history"])]
    if "tenants" in report:
        sections.insert(1, tenants_section(report["tenants"], ledger))
    return Page("What KSM would save", answer, figures, sections, report["notes"])


def signed(count: int) -> str:
    return f"-{size(-count)}" if count < 0 else size(count)


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}\N{NO-BREAK SPACE}%" if whole else "-"


def pages_section(ledger: dict[str, int]) -> Section:
    rows: list[list[str | int | float]] = [
        [text, ledger[key], mib(ledger[key]), percent(ledger[key], ledger["pages"])] for key, text in LEDGER
    ]
    parts = [{"name": "all pages", "part": key, "value": mib(ledger[key])} for key in STATES if key in ledger and ledger[key] > 0]
    chart = charts.bars(parts, ["all pages"], STATES, unit="MiB", description="Where the pages went, in MiB")
    table = Table("Pages by what became of them", ["Pages", "Number", "MiB", "Share"], rows)
    return Section("pages", "Where the pages went", chart=chart, label="All pages as one bar", tables=[table], open=True)


def details_sections(report: Report, names: list[str]) -> list[Section]:
    details = report.get("details")
    if not details:
        return []
    sections = [sources_section(report["sources"], details["states"], names), map_of_cells(
        details["map"], names, at=["details", "map"], words=STATES, colours={state: state for state in STATES}
    )]
    if details["contents"]:
        sections.append(contents_section(details["contents"]))
    if len(details["matrix"]["names"]) > 1:
        sections.append(matrix_section(details["matrix"], details["states"], names))
    return sections


def sources_section(sources: list[dict[str, Any]], states: list[dict[str, int]], names: list[str]) -> Section:
    order = sorted(range(len(names)), key=lambda place: -sum(states[place][key] for key in ("zero", "split", "within", "across")))
    bars = order[:MOST_BARS]
    parts = [{"name": names[place], "part": key, "value": mib(states[place][key])} for place in bars for key in STATES]
    chart = charts.bars(parts, [names[place] for place in bars], STATES, unit="MiB", description="Each source's pages by state, in MiB")
    text = [
        "Of pages with equal contents, the first one that is met is kept and counts for its source; the others are freed. So a duplicate "
        "across sources stands with the source that was named later."
    ]
    if len(bars) < len(names):
        text.append(f"The chart has the {len(bars)} sources that free most of {len(names)}; the table has all.")
    present = [key for key in STATES if any(each[key] for each in states)]
    table = Table(
        "Pages of each source", ["Source", "Kind", "Pages", *(STATES[key] for key in present)],
        [[names[place], sources[place]["kind"], sources[place]["pages"], *(states[place][key] for key in present)] for place in order],
    )  # fmt: skip
    return Section("sources", "By source", text, chart=chart, label="A bar for each source", tables=[table])


def map_of_cells(
    data: dict[str, Any], names: list[str], *, at: list[str], words: dict[str, str], colours: dict[str, str]
) -> Section:
    """The map, whose data lie in the report `at` these keys; words and colours of each state."""
    each = "a page" if data["pages"] == 1 else f"{data['pages']:,} pages"
    text = [
        f"A cell is {each}. Cells lie along a Hilbert curve, in the order of sources and their addresses, so that neighbours in memory are "
        "neighbours here."
    ]
    if data["pages"] > 1:
        text.append(
            "Where the pages of a cell differ, its colour is that of some of them, chosen so that the area of each colour is its share."
        )
    cells = sum(data["cells"])
    rows: list[list[str | int | float]] = [[name, count] for name, count in zip(names, data["cells"], strict=True)]
    return Section(
        "map", "Map of memory", text,
        map={"at": at, "names": names, "words": words, "colours": colours},
        label=f"A map of {cells:,} cells. The pages of each source are in a table above. Arrow keys move from cell to cell, and read it.",
        tables=[Table("Cells of each source", ["Source", "Cells"], rows)],
    )  # fmt: skip


def contents_section(contents: list[dict[str, Any]]) -> Section:
    rows: list[list[str | int | float]] = [
        [place, each["class"], each["pages"], each["freed"], mib(each["freed"]), each["sources"], shown(each["source"]),
         f"{each['address']:#x}"]
        for place, each in enumerate(contents, 1)
    ]
    seen = [(place, each) for place, each in enumerate(contents, 1) if each["bytes"] is not None]
    text = ["Equal pages that free most."]
    if not seen:
        text.append("Their bytes are not in this report: they may be secrets. --contents puts the first bytes of each in.")
    dumps = [Dump(f"{place}: {each['class']}, {each['pages']:,} pages", dump(bytes.fromhex(each["bytes"]))) for place, each in seen]
    head = ["", "Class", "Pages", "Freed", "MiB freed", "Sources", "One of them", "Address there"]
    return Section("contents", "Most shared contents", text, tables=[Table("Contents that free most", head, rows)], dumps=dumps, open=True)


def dump(data: bytes) -> list[str]:
    """Lines of hex and text. Lines that are the same as the one before are one line with a star, as hexdump has it."""
    lines: list[str] = []
    before = None
    for at in range(0, len(data), LINE):
        part = data[at : at + LINE]
        if part == before:
            if lines[-1] != "*":
                lines.append("*")
            continue
        before = part
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        lines.append(f"{at:04x}  {part.hex(' ')}  {text}")
    return lines


def matrix_section(matrix: dict[str, Any], states: list[dict[str, int]], every: list[str]) -> Section:
    names = distinct(matrix["names"])
    pages = matrix["pages"]
    sizes = [max(1, max(row)) for row in pages]
    sums = {name: sum(each.values()) for name, each in zip(every, states, strict=True)}
    sizes = [sums.get(name, largest) for name, largest in zip(names, sizes, strict=True)]
    rows = [
        {"a": a, "b": b, "value": mib(pages[i][j]), "share": min(1.0, pages[i][j] / max(1, sizes[i]))}
        for i, a in enumerate(names) for j, b in enumerate(names)
    ]  # fmt: skip
    chart = charts.heat(
        rows, names, titles=("pages of", "that are also in", "MiB"),
        description="How many pages of each source are equal to pages of each other source",
    )  # fmt: skip
    table = Table("Pages of a row that are also in a column", ["Pages of", *names], [[a, *pages[i]] for i, a in enumerate(names)])
    text = [
        "A row is a source: how many of its merged pages are equal to one of each other source, and, under its own name, to another one of "
        "its own. The stronger the colour, the larger the share of the row's pages."
    ]
    return Section("matrix", "Who shares with whom", text, chart=chart, label="A cell for each pair of sources", tables=[table])


def history_section(history: list[dict[str, float]]) -> Section:
    there = [key for key in COUNTERS if any(row[key] for row in history)]
    rows = [{"x": number, "part": key, "value": row[key]} for number, row in enumerate(history, 1) for key in there]
    chart = charts.lines(rows, COUNTERS, x="pass", unit="pages", description="KSM's counters after each pass")
    table = Table(
        "Counters after each pass", ["Pass", "Seconds of ksmd", *COUNTERS, "pages_skipped"],
        [
            [number, row["seconds"], *(int(row[key]) for key in COUNTERS), int(row["pages_skipped"])]
            for number, row in enumerate(history, 1)
        ],
    )  # fmt: skip
    return Section("passes", "Counters over the passes", chart=chart, label="A line for each counter", tables=[table])


def tenants_section(tenants: dict[str, Any], ledger: dict[str, int]) -> Section:
    raw = [tenant["name"] for tenant in tenants["tenants"]]
    names = distinct(raw)
    kinds = {kind["name"].replace(" ", "-"): kind["name"] for kind in tenants["classes"]}
    parts = [
        {"name": name, "part": kind["name"].replace(" ", "-"), "value": mib(kind["tenants"][own])}
        for name, own in zip(names, raw, strict=True) for kind in tenants["classes"]
    ]  # fmt: skip
    description = "Pages that each tenant has in common with others"
    chart = charts.bars(parts, names, kinds, unit="MiB merged with other tenants", description=description)
    cost = tenants["cost"]
    text = [
        tenants["how"],
        f"{tenants['merged']:,} pages are merged with those of another tenant.",
        f"To forbid it costs {signed(cost * PAGE_SIZE)} of the {size(tenants['freed'] * PAGE_SIZE)} that are freed: with each tenant in a "
        f"machine of its own, {size(tenants['apart'] * PAGE_SIZE)} are.",
    ]
    classes = Table(
        "Merged across tenants, by class", ["Class", "Contents", "Pages", *names, "What it can tell"],
        [[kind["name"], kind["contents"], kind["pages"], *(kind["tenants"][own] for own in raw), kind["tells"]]
         for kind in tenants["classes"]],
    )  # fmt: skip
    each = Table(
        "Tenants", ["Tenant", "Sources", "Pages", "Merged with others", "Freed alone"],
        [[name, ", ".join(map(shown, tenant["sources"])), tenant["pages"], tenant["merged"], tenant["apart"]]
         for name, tenant in zip(names, tenants["tenants"], strict=True)],
    )  # fmt: skip
    return Section("tenants", "Across tenants", text, chart=chart, label="A bar for each tenant", tables=[classes, each], open=True)

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it prints numbers.
"""The page of a sweep, from the JSON of its report and nothing else."""

from __future__ import annotations

from typing import Any

from ksm.constants import PAGE_SIZE
from ksm.estimate.pace import spell
from ksm.host.text import size
from ksm.pictures import charts
from ksm.pictures.of_scan import percent, signed
from ksm.pictures.sections import MIB, Page, Section, Table, distinct, mib

MOST_BARS = 40
CURVES = 8  # as many colours as there are
PARTS = {"across": "freed", "unshared": "could be freed, too"}


def page_of(report: dict[str, Any], answer: str, notes: list[str]) -> Page:
    """`answer` is the first line of the report in words, and `notes` are those below it: what the columns mean, too."""
    rows = report["rows"]
    names = distinct([row["name"] for row in rows])
    figures = [
        ("scanned", size(report["pages"] * PAGE_SIZE)), ("could be freed", size(report["bound"] * PAGE_SIZE)),
        ("settings", f"{len(rows)} of {report['asked']}" if len(rows) < report["asked"] else f"{len(rows)}"),
        ("a page costs ksmd", f"{report['cost']:,.0f} ns{'' if report['measured'] else ', as given'}"),
    ]  # fmt: skip
    sections = []
    if rows:
        sections = [rows_section(rows, names, report), curves_section(rows, names), cost_section(rows, names)]
    return Page("What KSM would save with other settings", answer, figures, sections, notes)


def rows_section(rows: list[dict[str, Any]], names: list[str], report: dict[str, Any]) -> Section:
    order = sorted(range(len(rows)), key=lambda place: -rows[place]["ledger"]["freed"])[:MOST_BARS]
    parts = [
        {"name": names[place], "part": part, "value": mib(pages)}
        for place in order
        for part, pages in (
            ("across", rows[place]["ledger"]["freed"]), ("unshared", max(0, report["bound"] - rows[place]["ledger"]["freed"])),
        )
    ]  # fmt: skip
    chart = charts.bars(parts, [names[place] for place in order], PARTS, unit="MiB", description="What each setting frees, in MiB")
    text = [f"{names[place]}: {'; '.join(row['best'])}." for place, row in enumerate(rows) if row["best"]]
    if len(order) < len(rows):
        text.append(f"The chart has the {len(order)} settings that free most of {len(rows)}; the table has all.")
    table = Table(
        "Settings", ["Setting", "MiB freed", "Of all", "Settled after", "Passes", "CPU", "Profit", "Best"],
        [
            [name, mib(row["ledger"]["freed"]), percent(row["ledger"]["freed"], report["bound"]),
             spell(row["seconds"]) if row["settled"] and row["seconds"] is not None else "never",
             row["passes"], f"{100 * row['cpu']:.2f}\N{NO-BREAK SPACE}%", signed(row["ledger"]["profit"]), "yes" if row["best"] else ""]
            for name, row in zip(names, rows, strict=True)
        ],
    )  # fmt: skip
    return Section("settings", "By setting", text, chart=chart, label="A bar for each setting", tables=[table], open=True)


def curves_section(rows: list[dict[str, Any]], names: list[str]) -> Section:
    """What is freed over the time that ksmd takes: of the best rows, then of the first ones."""
    order = sorted(range(len(rows)), key=lambda place: (not rows[place]["best"], place))[:CURVES]
    parts = {str(number): names[place] for number, place in enumerate(order, 1)}
    points = [
        {"x": seconds, "part": part, "value": mib(pages)}
        for part, place in zip(parts, order, strict=True) for seconds, pages in rows[place]["curve"] if seconds > 0
    ]  # fmt: skip
    chart = charts.lines(
        points, parts, x="seconds of ksmd", unit="MiB freed", description="What is freed over the time that ksmd takes", whole=False
    )
    text = ["A point is a pass. The seconds are on a logarithmic scale."]
    if len(order) < len(rows):
        text.append(f"The chart has {len(order)} of {len(rows)} settings, the best ones among them.")
    every = Table(
        "What is freed after each pass", ["Setting", "Pass", "After", "MiB freed"],
        [
            [name, number, spell(seconds), mib(pages)]
            for name, row in zip(names, rows, strict=True) for number, (seconds, pages) in enumerate(row["curve"], 1)
        ],
    )  # fmt: skip
    return Section("curves", "Over time", text, chart=chart, label="A line for each setting", tables=[every])


def cost_section(rows: list[dict[str, Any]], names: list[str]) -> Section:
    points = [
        {"name": name, "x": round(100 * row["cpu"], 3), "value": round(row["ledger"]["profit"] / MIB, 3), "best": int(bool(row["best"]))}
        for name, row in zip(names, rows, strict=True)
    ]
    chart = charts.points(
        points, x="% of a processor, once settled", unit="MiB of profit", description="The profit of each setting by what ksmd takes"
    )
    table = Table(
        "Profit and processor time", ["Setting", "CPU, once settled", "CPU seconds until then", "Profit in MiB"],
        [
            [point["name"], f"{point['x']:.2f}\N{NO-BREAK SPACE}%", f"{row['cpu_seconds']:,.2f}", point["value"]]
            for point, row in zip(points, rows, strict=True)
        ],
    )  # fmt: skip
    return Section(
        "cost", "What it costs", ["The best settings are filled."], chart=chart, label="A point for each setting", tables=[table]
    )

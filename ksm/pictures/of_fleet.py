# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it prints numbers.
"""The pages of a fleet's report and matrix, from their JSON and nothing else."""

from __future__ import annotations

from typing import Any

from ksm.constants import PAGE_SIZE
from ksm.host.text import size
from ksm.pictures import charts
from ksm.pictures.of_scan import percent
from ksm.pictures.sections import Page, Section, Table, distinct, mib, shown

MOST_BARS = 40
MOST_ROWS = 1000  # of a table
MOST_NAMED = 3  # sources of a block

# What pages are, as ksm.fleet.ledger has it, and the colour of each
PARTS = {
    "within": "duplicates within one source", "same_host": "duplicates across sources of a host", "across_hosts": "duplicates across hosts",
    "kept": "kept: one page for each contents", "zero": "pages of zeros",
}  # fmt: skip
COLOURS = {"within": "within", "same_host": "across", "across_hosts": "merged", "kept": "unshared", "zero": "zero"}
OF_HOST = {
    "within": PARTS["within"], "same_host": PARTS["same_host"], "left": "left: one page for each contents there", "zero": PARTS["zero"],
}  # fmt: skip
OF_GROUP = {"now": "saved where they live", "gain": "more on one host"}
GROUP_COLOURS = {"now": "across", "gain": "merged"}

Cells = list[str | int | float]


def page_of(report: dict[str, Any], answer: str) -> Page:
    """The page of a report; `answer` is its first line in words."""
    ledger = report["ledger"]
    figures = [
        ("in the fleet", size(ledger["pages"] * PAGE_SIZE)), ("sources", f"{len(report['sources']):,}"),
        ("hosts", f"{len(report['hosts']):,}"), ("saved where they live", size(ledger["saved"] * PAGE_SIZE)),
        ("more across hosts", size(ledger["across_hosts"] * PAGE_SIZE)),
    ]  # fmt: skip
    sections = [classes_section(report), hosts_section(report["hosts"])]
    if len(report["sources"]) > 1:
        sections.append(blocks_section(report["blocks"]))
    if report["groups"]:
        sections.append(groups_section(report))
    if report["pairs"]:
        sections.append(pairs_section(report["pairs"], "Pairs that have most in common"))
    if report["tenants"]:
        sections.append(tenants_section(report["tenants"]))
    return Page("What a fleet shares", answer, figures, sections, report["notes"])


def matrix_page(matrix: dict[str, Any], blocks: dict[str, Any]) -> Page:
    """The page of a matrix. `blocks` are those of its sources, as in a report."""
    count = len(matrix["sources"])
    possible = count * (count - 1) // 2
    pairs = matrix["pairs"]
    figures = [("sources", f"{count:,}"), ("pairs with contents in common", f"{matrix['all_pairs']:,} of {possible:,}")]
    notes = ["pages of zeros do not count"]
    if matrix["sample"] > 1:
        figures.append(("contents that were looked at", f"one of {matrix['sample']:,}"))
        notes.append("contents are estimates: the true number is between low and high in 95 of 100 cases")
    answer = f"Of {possible:,} pairs of sources, {matrix['all_pairs']:,} have contents in common."
    sections = [blocks_section(blocks)] if count > 1 else []
    if pairs:
        sections.append(pairs_section(pairs, "Pairs that have most in common"))
        if len(pairs) < matrix["all_pairs"]:
            sections[-1].text.append(f"The table has {len(pairs):,} pairs of {matrix['all_pairs']:,}; ksm fleet matrix -o FILE has all.")
    sources: list[Cells] = [
        [shown(each["name"]), shown(each["host"]), each["pages"], each["contents"]]
        for each in sorted(matrix["sources"], key=lambda each: -each["pages"])[:MOST_ROWS]
    ]
    table = Table("Sources", ["Source", "Host", "Pages", "Contents"], sources)
    sections.append(Section("sources", "Sources", tables=[table]))
    return Page("How much sources of a fleet have in common", answer, figures, sections, notes)


def classes_section(report: dict[str, Any]) -> Section:
    classes = [each for each in report["classes"] if each["pages"]]
    rows = [{"name": each["name"], "part": part, "value": mib(each[part])} for each in classes for part in PARTS]
    chart = charts.bars(
        rows, [each["name"] for each in classes], PARTS, unit="MiB", description="What the pages of each class are, in MiB", keys=COLOURS
    )
    whole = report["ledger"]
    lines: list[Cells] = [[text, whole[part], mib(whole[part]), percent(whole[part], whole["pages"])] for part, text in PARTS.items()]
    lines.append(["all", whole["pages"], mib(whole["pages"]), percent(whole["pages"], whole["pages"])])
    tables = [
        Table("All pages", ["What", "Pages", "MiB", "Of all"], lines),
        Table(
            "Classes, in pages", ["Class", "All", *PARTS.values()],
            [[each["name"], each["pages"], *(each[part] for part in PARTS)] for each in classes],
        ),
    ]  # fmt: skip
    text = [
        "Each page is in one part. What is equal within a source, and across sources of a host, is what merging saves where all live; what "
        "is equal across hosts could be saved if its sources lived on one host."
    ]
    return Section("pages", "All pages, by class", text, chart=chart, label="A bar for each class", tables=tables, open=True)


def hosts_section(hosts: list[dict[str, Any]]) -> Section:
    order = sorted(hosts, key=lambda host: (-host["saved"], host["name"]))
    bars = order[:MOST_BARS]
    names = distinct([host["name"] for host in bars])
    rows = [{"name": name, "part": part, "value": mib(host[part])} for name, host in zip(names, bars, strict=True) for part in OF_HOST]
    chart = charts.bars(
        rows, names, OF_HOST, unit="MiB", description="What is saved on each host, in MiB", keys={**COLOURS, "left": "unshared"}
    )
    cells: list[Cells] = [
        [shown(host["name"]), host["sources"], mib(host["pages"]), mib(host["saved"]), percent(host["saved"], host["pages"]),
         *(mib(host[part]) for part in OF_HOST)]
        for host in order[:MOST_ROWS]
    ]  # fmt: skip
    text = [f"The chart has the {len(bars)} hosts of {len(hosts):,} that save most."] if len(bars) < len(hosts) else []
    table = Table("Hosts, in MiB", ["Host", "Sources", "All", "Saved", "Of all", *OF_HOST.values()], cells)
    return Section("hosts", "Saved by host", text, chart=chart, label="A bar for each host", tables=[table])


def blocks_section(blocks: dict[str, Any]) -> Section:
    """The matrix of sources, or of blocks of them, in the order of clusters."""
    names = distinct([named(block) for block in blocks["sources"]])
    values = blocks["alike"]
    largest = max((value for i, row in enumerate(values) for j, value in enumerate(row) if i != j), default=0) or 1
    rows = [
        {"a": a, "b": b, "value": 100 * values[i][j], "share": min(1.0, values[i][j] / largest)}
        for i, a in enumerate(names) for j, b in enumerate(names)
    ]  # fmt: skip
    description = "How alike each two sources are, alike ones side by side"
    chart = charts.heat(rows, names, titles=("sources", "and sources", "percent alike"), description=description)
    several = any(len(block) > 1 for block in blocks["sources"])
    text = [
        "How alike two sources are: 2 · common / (a + b), of a and b contents. Alike sources stand side by side, as they are joined from "
        f"the most alike pair on. The strongest colour is {100 * largest:.0f}\N{NO-BREAK SPACE}%."
    ]
    if several:
        text.append("A row is a block of sources that are neighbours in this order, and a cell the average over their pairs.")
    table = Table(
        "Percent alike", ["Sources", *names], [[a, *(round(100 * value, 1) for value in row)] for a, row in zip(names, values, strict=True)]
    )
    tables = [table]
    if several:
        inside: list[Cells] = [[name, ", ".join(map(shown, block))] for name, block in zip(names, blocks["sources"], strict=True)]
        tables.append(Table("Sources of each block", ["Block", "Sources"], inside))
    return Section("matrix", "Who shares with whom", text, chart=chart, label="A cell for each two of them", tables=tables)


def named(block: list[str]) -> str:
    return block[0] if len(block) == 1 else f"{block[0]} and {len(block) - 1:,} more"


def groups_section(report: dict[str, Any]) -> Section:
    groups = report["groups"]
    bars = groups[:MOST_BARS]
    names = [str(place) for place in range(1, len(groups) + 1)]
    rows = [{"name": name, "part": part, "value": mib(group[part])} for name, group in zip(names, bars, strict=False) for part in OF_GROUP]
    chart = charts.bars(
        rows, names[: len(bars)], OF_GROUP, unit="MiB", description="What each group saves, in MiB", keys=GROUP_COLOURS
    )
    cells: list[Cells] = [
        [name, len(group["sources"]), group["hosts"], *(mib(group[key]) for key in ("together", "now", "gain")), listed(group["sources"])]
        for name, group in zip(names[:MOST_ROWS], groups, strict=False)
    ]
    text = [
        f"The sources of a group are joined by pairs that are {100 * report['alike']:.0f}\N{NO-BREAK SPACE}% alike or more. What they "
        "share is saved where they live on the same host; all of it would be if they lived on one."
    ]
    table = Table("Groups, in MiB", ["Group", "Sources", "Hosts", "On one host", "As they live", "To gain", "Which"], cells)
    return Section("groups", "Groups", text, chart=chart, label="A bar for each group", tables=[table], open=True)


def listed(names: list[str]) -> str:
    more = f", and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return ", ".join(map(shown, names[:MOST_NAMED])) + more


def pairs_section(pairs: list[dict[str, Any]], title: str) -> Section:
    sampled = any(pair.get("error") for pair in pairs)
    head = ["Source", "And", "Contents", *(["Error", "Low", "High"] if sampled else []), "Percent alike"]
    cells: list[Cells] = [
        [shown(pair["a"]), shown(pair["b"]), pair["contents"],
         *([round(pair["error"], 1), pair["low"], pair["high"]] if sampled else []), round(100 * pair["alike"], 1)]
        for pair in pairs
    ]  # fmt: skip
    return Section("pairs", title, tables=[Table("Contents that both have", head, cells)], open=True)


def tenants_section(tenants: dict[str, Any]) -> Section:
    names = distinct([each["name"] for each in tenants["tenants"]])
    text = [
        f"Merging across tenants saves {size(tenants['cost'] * PAGE_SIZE)} where they live, which is what it would cost to forbid it.",
        tenants["how"],
    ]
    owners = Table(
        "Tenants", ["Tenant", "Sources", "Pages", "In common with others"],
        [[name, each["sources"], each["pages"], each["common"]] for name, each in zip(names, tenants["tenants"], strict=True)],
    )  # fmt: skip
    classes = Table(
        "Contents of several tenants, by class", ["Class", "Contents", "Pages", *names, "What it can tell"],
        [[each["name"], each["contents"], each["pages"], *each["tenants"], each["tells"]] for each in tenants["classes"]],
    )  # fmt: skip
    return Section("tenants", "Across tenants", text, tables=[owners, classes], open=True)

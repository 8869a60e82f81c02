# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it prints numbers.
"""The page of a placement, from its JSON and nothing else: hosts before and after, and the moves."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from ksm.constants import PAGE_SIZE
from ksm.pictures import charts
from ksm.pictures.of_fleet import MOST_ROWS, Cells
from ksm.pictures.of_scan import percent, signed
from ksm.pictures.sections import Page, Section, Table, distinct, mib, shown

MOST_BARS = 20  # hosts
PARTS = {"used": "memory after sharing", "shared": "saved by sharing"}
COLOURS = {"used": "unshared", "shared": "across"}
WHEN = {"before": "now", "after": "then"}


def page_of(plan: dict[str, Any], answer: str) -> Page:
    """The page; `answer` is its first line in words."""
    moved = len({move["source"] for move in plan["moves"]})
    figures = [
        ("memory now", signed(plan["before"] * PAGE_SIZE)), ("then", signed(plan["after"] * PAGE_SIZE)),
        ("saved", signed(plan["saving"] * PAGE_SIZE)), ("no placement saves more than", signed(plan["bound"] * PAGE_SIZE)),
        ("sources that move", f"{moved:,} of {len(plan['placement']):,}"),
    ]  # fmt: skip
    sections = [hosts_section(plan["hosts"])]
    if plan["moves"]:
        sections.append(moves_section(plan))
    return Page("Who should live with whom", answer, figures, sections, plan["notes"])


def change(host: dict[str, Any]) -> int:
    """By how many pages a host's memory grows."""
    return int(host["after"]["used"]) - int(host["before"]["used"])


def hosts_section(hosts: list[dict[str, Any]]) -> Section:
    order = sorted(hosts, key=lambda host: (-change(host), host["name"]))
    bars = order if len(order) <= MOST_BARS else [*order[: MOST_BARS // 2], *order[-MOST_BARS // 2 :]]
    own = distinct([host["name"] for host in bars])
    names = [f"{name}, {words}" for name in own for words in WHEN.values()]
    rows = [
        {"name": f"{name}, {words}", "part": part, "value": mib(pages)}
        for name, host in zip(own, bars, strict=True)
        for when, words in WHEN.items()
        for part, pages in (("used", host[when]["used"]), ("shared", host[when]["pages"] - host[when]["used"]))
    ]
    chart = charts.bars(rows, names, PARTS, unit="MiB", description="The memory of each host, now and then, in MiB", keys=COLOURS)
    cells: list[Cells] = [
        [shown(host["name"]), mib(host["capacity"]), *(len(host[when]["sources"]) for when in WHEN),
         *(mib(host[when]["pages"]) for when in WHEN), *(mib(host[when]["used"]) for when in WHEN),
         *(percent(host[when]["used"], host["capacity"]) for when in WHEN)]
        for host in order[:MOST_ROWS]
    ]  # fmt: skip
    head = ["Host", "Capacity", "Sources now", "then", "Pages now", "then", "Memory now", "then", "Of capacity now", "then"]
    text = ["Two bars for each host: with the sources that it has now, and with those that it would have."]
    if len(bars) < len(hosts):
        text.append(f"The chart has {len(bars)} hosts of {len(hosts):,}: those that get most, and those that give most.")
    table = Table("Hosts, in MiB", head, cells)
    return Section("hosts", "Hosts, now and then", text, chart=chart, label="Two bars for each host", tables=[table], open=True)


def moves_section(plan: dict[str, Any]) -> Section:
    moves = plan["moves"]
    saved = list(accumulate(move["gain"] for move in moves))
    points = [{"x": number, "part": "1", "value": mib(pages)} for number, pages in enumerate([0, *saved])]
    chart = charts.lines(points, {"1": "saved after so many moves"}, x="moves", unit="MiB", description="What is saved after each move")
    cells: list[Cells] = [
        [number, shown(move["source"]), shown(move["from"]), shown(move["to"]), mib(move["gain"]), mib(pages)]
        for number, (move, pages) in enumerate(zip(moves[:MOST_ROWS], saved, strict=False), 1)
    ]
    text = ["Moves in an order in which they can be made. What a move saves depends on those before it."]
    if len(moves) > MOST_ROWS:
        text.append(f"The table has the first {MOST_ROWS:,} of {len(moves):,}; the JSON has all.")
    table = Table("Moves", ["", "Source", "From", "To", "MiB saved", "Saved so far"], cells)
    return Section("moves", "Moves", text, chart=chart, label="What is saved after each move", tables=[table], open=True)

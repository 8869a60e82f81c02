# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: which mappings are worth it, for a person and for a program.
"""The report of ksm advise: lines() for a person, as_json() for a program."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from ksm.constants import MADV_MERGEABLE, PAGE_SIZE
from ksm.estimate.advise import THUMB, Advice, Outcome, Region
from ksm.estimate.report import LEAST_NAME, columns
from ksm.estimate.terminal import amount, wrapped
from ksm.host.text import printable, size

SHOWN = 15  # mappings
CALLS = 30
MOST_NAME = 48  # columns of a mapping
DROPPED = ("items", "ksm profit", "pages")  # columns, in the order in which a narrow terminal loses them
LEGEND = {
    "gain": "what a mapping adds to the profit of those with a star, or would take away",
    "items": f"rmap_items for a merged page: above {THUMB}, a mapping costs more than it gives",
    "ksm profit": "as ksm_process_profit counts, which takes the one copy that is kept for saved, too",
}


def as_json(advice: Advice) -> dict[str, Any]:
    """The advice as a value for JSON. Pages are counts of pages, everything else is in bytes."""
    return {
        "better": advice.better,
        "advised": advice.advised._asdict(),
        "whole": advice.whole._asdict(),
        "regions": [{**region._asdict(), "per_page": region.per_page, "call": call(region)} for region in advice.regions],
        "notes": advice.notes,
    }


def lines(advice: Advice, width: int) -> Iterator[tuple[str, bool]]:
    """The lines for a person, `width` columns wide, and whether each is bold."""
    for text, _ in wrapped(answer(advice), width, "", ""):
        yield text, True
    if not advice.regions:
        return
    yield "", False
    head, *rows = table(advice, width)
    yield head
    yield from rows
    yield "", False
    several = len({region.source for region in advice.regions}) > 1
    chosen = [region for region in advice.regions if region.advised]
    if chosen:
        yield f"The calls, from within the process{'es' if several else ''}:", False
        for region in chosen[:CALLS]:
            yield f"  {pid_of(region) + ': ' if several else ''}{call(region)};", False
        if len(chosen) > CALLS:
            yield f"  and {len(chosen) - CALLS:,} more; --json has all", False
        yield "", False
    legend = [f"{name}: {text}" for name, text in LEGEND.items() if f"  {name}" in head[0]]
    for note in [*legend, *explained(advice, chosen), *advice.notes]:
        yield from wrapped(note, width, "- ", "  ")


def call(region: Region) -> str:
    return f"madvise((void *){region.start:#x}, {region.end - region.start:#x}, MADV_MERGEABLE)"


def answer(advice: Advice) -> str:
    chosen = [region for region in advice.regions if region.advised]
    if advice.better == "nothing":
        return f"Nothing here pays: KSM would free {size(advice.whole.freed * PAGE_SIZE)}, and need {size(advice.whole.metadata)} itself."
    some = f"madvise() for {len(chosen):,} of {len(advice.regions):,} mappings {told(advice.advised)}"
    whole = f"prctl() for the whole process {told(advice.whole)}"
    if advice.better == "prctl":
        return f"prctl(PR_SET_MEMORY_MERGE) does as well as advice: {whole}; {some}."
    return f"Advise the mappings: {some}; {whole}."


def told(outcome: Outcome) -> str:
    return f"would free {size(outcome.freed * PAGE_SIZE)} and need {size(outcome.metadata)} (profit {amount(outcome.profit)})"


def title(region: Region, several: bool) -> str:
    name = os.path.basename(region.name) if region.name.startswith("/") else region.name or "anonymous"
    where = f"{region.start:x}-{region.end:x} {name}"
    return f"{pid_of(region)}: {where}" if several else where


def pid_of(region: Region) -> str:
    return region.source.split()[1]


def table(advice: Advice, width: int) -> Iterator[tuple[str, bool]]:
    """A line for each mapping that has pages: those that are advised, with a star; then the others, those that would cost most first."""
    ranked = [region for region in advice.regions if region.pages]
    every = [region for region in ranked if region.advised]
    every += sorted((region for region in ranked if not region.advised), key=lambda region: region.gain)
    shown = every[:SHOWN]
    several = len({region.source for region in advice.regions}) > 1
    cells = {
        "pages": [f"{region.pages:,}" for region in shown],
        "merged": [f"{region.merging + region.zeros:,}" for region in shown],
        "items": ["-" if region.per_page is None else f"{region.per_page:,.1f}" for region in shown],
        "ksm profit": [amount(region.profit) for region in shown],
        "gain": [amount(region.gain) for region in shown],
    }
    widths = {name: max(len(name), *map(len, column)) if column else len(name) for name, column in cells.items()}
    names = [printable(title(region, several)) for region in shown]
    longest = min(MOST_NAME, max([7, *map(columns, names)]))
    for name in DROPPED:
        if 2 + longest + sum(widths.values()) + 2 * len(widths) <= width:
            break
        widths.pop(name, None)
    room = max(LEAST_NAME, min(longest, width - 2 - sum(widths.values()) - 2 * len(widths)))
    yield f"  {'Mapping':<{room}}{''.join(f'  {name:>{wide}}' for name, wide in widths.items())}", True
    for number, region in enumerate(shown):
        name = names[number] if columns(names[number]) <= room else names[number][: room - 1] + "…"
        text = name + " " * (room - columns(name)) + "".join(f"  {cells[column][number]:>{wide}}" for column, wide in widths.items())
        yield f"{'*' if region.advised else ' '} {text}", False
    if len(every) > SHOWN:
        more = every[SHOWN:]
        advised = sum(region.advised for region in more)
        yield from wrapped(f"and {len(more):,} more, {advised:,} of them advised; --json lists all", width, "  ")


def explained(advice: Advice, chosen: list[Region]) -> list[str]:
    notes = []
    if any(region.mergeable for region in advice.regions):
        count = sum(region.mergeable for region in advice.regions)
        notes.append(f"{count:,} mappings are mergeable already: MADV_UNMERGEABLE takes that back where it does not pay")
    if chosen:
        first = chosen[0]
        notes.append(
            f"no other process can call it. A debugger can let it do so: gdb -p {pid_of(first)} --batch -ex"
            f" 'call (int)madvise({first.start:#x}, {first.end - first.start:#x}, {MADV_MERGEABLE})'"
        )
        notes.append("addresses are those of this run: what the next run calls by its own is what stands behind them")
    return notes

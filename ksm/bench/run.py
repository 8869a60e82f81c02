# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the measurements of `ksm bench`, and their table.
"""Measure the ways in turn, several times: medians, and ratios to ksmd."""

from __future__ import annotations

import contextlib
import platform
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich import box
from rich.table import Table

import ksm
from ksm.bench.ksmd import Kernel
from ksm.bench.ways import KSMD, PASSES, Measured, in_a_new_process, run_alone

FIGURES = (*(f"pass {number + 1}" for number in range(PASSES)), "passes", "cow", "unmerge", "bytes a page")
READ_ONCE = "read once"

Progress = Callable[[str], None]


def run_one(way: str, name: str, pages: int, kernel: Kernel | None) -> Measured:
    if way == KSMD:
        assert kernel is not None
        return kernel.run(name, pages)
    return in_a_new_process(run_alone, way, name, pages)


def medians(runs: list[Measured]) -> Measured:
    """The median of each figure; None if a run does not have it."""
    return {
        figure: None if any(run[figure] is None for run in runs) else round(statistics.median(run[figure] for run in runs), 1)
        for figure in FIGURES
        if figure in runs[0]
    }


def measure(
    names: Sequence[str], sizes: Sequence[int], ways: Sequence[str], repeat: int, progress: Progress
) -> Iterator[dict[str, Any]]:
    """One result for each workload and size: {"workload", "pages", "ways": {way: figures}, "ratios": {way: {figure: to ksmd's}}}."""
    with Kernel() if KSMD in ways else contextlib.nullcontext() as kernel:
        for pages in sizes:
            for name in names:
                runs: dict[str, list[Measured]] = {way: [] for way in ways}
                for number in range(repeat):
                    for way in ways:
                        progress(f"{pages:,} pages, {name}: {way} ({number + 1} of {repeat})")
                        runs[way].append(run_one(way, name, pages, kernel))
                yield result(name, pages, {way: medians(each) for way, each in runs.items()})


def result(name: str, pages: int, found: dict[str, Measured]) -> dict[str, Any]:
    ratios: dict[str, dict[str, float]] = {}
    for way, each in found.items():
        if way != KSMD and KSMD in found:
            pairs = {figure: (found[KSMD].get(figure), each.get(figure)) for figure in FIGURES}
            ratios[way] = {figure: round(theirs / ours, 2) for figure, (theirs, ours) in pairs.items() if theirs and ours and ours > 0}
            ratios[way].pop("bytes a page", None)
    return {"workload": name, "pages": pages, "ways": found, "ratios": ratios}


def about() -> dict[str, str]:
    with open("/proc/cpuinfo") as cpuinfo:
        model = next((line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")), platform.machine())
    return {"ksm": ksm.__version__, "python": platform.python_version(), "kernel": platform.release(), "processor": model}


HEADINGS = ("pass 1", "pass 2", "pass 3", "1 to 3", "CoW", "unmerge", "bytes")


def table(found: dict[str, Any]) -> Table:
    """A result for a person: nanoseconds a page, and below how many times as fast as ksmd that is. It fits into 80 columns."""
    made = Table(title=f"{found['workload']}, {found['pages']:,} pages", box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left",
                 padding=(0, 0, 0, 1))
    made.add_column("ns a page", no_wrap=True)
    for heading in HEADINGS:
        made.add_column(heading, justify="right", no_wrap=True, min_width=7)
    for way, each in found["ways"].items():
        made.add_row(way, *("" if each.get(figure) is None else f"{each[figure]:,.0f}" for figure in FIGURES))
    ratios = {way: each for way, each in found["ratios"].items() if each}
    if ratios:
        made.add_section()
        made.add_row("ksmd = 1", style="bold")
    for way, each in ratios.items():
        made.add_row(way, *(f"{each[figure]:,.1f}" if figure in each else "" for figure in FIGURES))
    return made

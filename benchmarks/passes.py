# SPDX-License-Identifier: GPL-2.0-only
"""How fast passes 1 to 3 over memory are, and what KSM's own data takes, for pages that are unique, duplicates or all the same.

    python benchmarks/passes.py                     # 262,144 pages (1 GiB), the median of 3 runs
    python benchmarks/passes.py --pages 32768 --repeat 5 --json

A page has 8 bytes of its own, at --differ, and is filled with the same random bytes otherwise: two pages are compared up to there, and
checksums read all of it. Pass 1 computes the first checksums, pass 2 the second ones, and merges what it can; pass 3 meets pages that
are merged, and the others once more. smart_scan is off, so that every pass looks at every page.

The passes are in pages per second of processor time. The time is that of machine.ksm.scan(1), which ends by
giving the memory of freed frames back to the system.

bytes/page is KSM's own data: what the resident set of the process grew by during the passes, plus 4096 bytes for each frame that was
freed. The machine's struct pages are there before the passes, and are not in it. With few pages the figure says nothing, because memory
comes in slabs. peak is the most that the process ever had resident, the pages themselves included. Every run is a process of its own.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterator
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

import ksm
from ksm.bench.run import about
from ksm.bench.ways import PASSES, in_a_new_process, resident, scan_passes

CHUNK = 1024  # pages in one write()

# How many pages have the same contents
CASES = {"unique": 1, "duplicates": 2, "identical": 0}


def contents(pages: int, equal: int, differ: int) -> Iterator[bytes]:
    """The memory, a chunk at a time. `equal` pages at a time have the same contents, spread evenly over the memory; 0: all are equal."""
    different = pages // equal if equal else 1
    fill = os.urandom(ksm.PAGE_SIZE)
    head, tail = fill[:differ], fill[differ + 8 :]
    # The numbers of the pages, scattered: multiplication by an odd number is a bijection, and the trees see no order.
    for first in range(0, pages, CHUNK):
        numbers = range(first, min(first + CHUNK, pages))
        yield b"".join(head + (number % different * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "little") + tail for number in numbers)


def run(pages: int, equal: int, differ: int) -> dict[str, Any]:
    """One case, once: nanoseconds of each pass, bytes of metadata and at the peak, and what was merged."""
    # The zero page, and what the batches of the page allocator may hold
    with ksm.Machine(memory=(pages + 4096) * ksm.PAGE_SIZE) as machine:
        machine.ksm.smart_scan = 0
        process = machine.spawn()
        start = address = process.mmap(pages * ksm.PAGE_SIZE)
        for chunk in contents(pages, equal, differ):
            process.write(address, chunk)
            address += len(chunk)
        process.madvise(start, pages * ksm.PAGE_SIZE, ksm.MADV_MERGEABLE)

        took, metadata = scan_passes(machine)
        return {
            "took": took,
            "metadata": metadata,
            "peak": resident("VmHWM"),
            "pages_shared": machine.ksm.pages_shared,
            "pages_sharing": machine.ksm.pages_sharing,
        }


def measure(name: str, pages: int, repeat: int, differ: int) -> dict[str, Any]:
    """The medians of one case."""
    runs = [in_a_new_process(run, pages, CASES[name], differ) for _ in range(repeat)]
    median = {key: statistics.median(each[key] for each in runs) for key in ("metadata", "peak")}
    return {
        "case": name,
        "pages_per_second": [round(1e9 * pages / statistics.median(each["took"][i] for each in runs)) for i in range(PASSES)],
        "metadata_per_page": round(median["metadata"] / pages, 1),
        "peak": round(median["peak"]),
        "pages_shared": runs[0]["pages_shared"],
        "pages_sharing": runs[0]["pages_sharing"],
    }


def table(results: list[dict[str, Any]]) -> Table:
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 0, 0, 1))
    made.add_column("pages")
    for heading in (*(f"pass {i + 1}" for i in range(PASSES)), "bytes/page", "peak MiB", "shared", "sharing"):
        made.add_column(heading, justify="right", no_wrap=True)
    for each in results:
        made.add_row(
            each["case"],
            *(f"{speed / 1000:,.0f}" for speed in each["pages_per_second"]),
            f"{each['metadata_per_page']:.1f}",
            f"{each['peak'] / (1 << 20):,.0f}",
            f"{each['pages_shared']:,}",
            f"{each['pages_sharing']:,}",
        )
    return made


@click.command()
@click.option("--pages", type=click.IntRange(2), default=262_144, show_default=True, help="Pages of memory.")
@click.option("--repeat", type=click.IntRange(1), default=3, show_default=True, help="Runs of each case; medians are shown.")
@click.option("--differ", type=click.IntRange(0, ksm.PAGE_SIZE - 8), default=0, show_default=True, help="Where pages differ.")
@click.option("--case", "cases", multiple=True, type=click.Choice(list(CASES)), help="Only this case.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def main(pages: int, repeat: int, differ: int, cases: tuple[str, ...], as_json: bool) -> None:
    """Passes 1 to 3 over pages that are all unique, each there twice, and all the same."""
    results = [measure(name, pages, repeat, differ) for name in cases or CASES]
    if as_json:
        click.echo(json.dumps({**about(), "pages": pages, "repeat": repeat, "differ": differ, "cases": results}, indent=2))
    else:
        console = Console()
        console.print(f"{pages:,} pages, medians of {repeat}; passes in 1000 pages/s of processor time\n", highlight=False)
        console.print(table(results))
        console.print("\n{processor}, Python {python}".format(**about()), highlight=False)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: GPL-2.0-only
"""What a fleet that is too large for this machine would take, computed from what was measured here: the table in docs/fleet.md.

    python benchmarks/fleet_plan.py [--hosts 1000] [--tib 1] [--changed 10]
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

from ksm.constants import PAGE_SIZE
from ksm.fleet.asking import MOST_JOBS, bits_of


class Measured(NamedTuple):
    """For a row, that is a page: bytes of a fingerprint file and of the working folder; nanoseconds of processor time to make the file, to
    spread it, and to compare what was spread. All but the first and the third are those of `python benchmarks/fleet.py steps`.
    """

    file: float
    work: float
    make: float
    spread: float
    compare: float


# `file` and `make` are from docs/fingerprint-files.md: pages that are all different, and processes, whose pages have to be read, too. The
# others are of 200 million rows of 400 sources.
MEASURED = Measured(file=20.0, work=10.8, make=865, spread=230, compare=260)


class Workers(NamedTuple):
    """A cluster: workers, processors and bytes of memory of each, and bytes a second that each reads from where the files are."""

    number: int = 8
    processors: int = 16
    memory: int = 64 << 30
    network: float = 1.25e9


WORKERS = Workers()


class Plan(NamedTuple):
    """What a fleet takes. Times are hours; `bits` of a fingerprint divide the parts, each of which has `part` rows."""

    rows: int
    files: float
    make: float
    work: float
    bits: int
    part: float
    pieces: int
    spread: float
    compare: float
    read: float
    hours: float


def plan(rows: int, workers: Workers = WORKERS, *, changed: float = 1.0, hosts: int = 1, measured: Measured = MEASURED) -> Plan:
    """For so many rows on so many hosts. `changed` is the share of them that is read: of a fleet that was spread before, what is new.

    What has changed is spread twice: the rows that are gone, and those that have come. All parts are compared again.
    """
    read = rows * changed * (2 if changed < 1 else 1)
    files = read * measured.file
    work = rows * measured.work
    bits = bits_of(rows, workers.memory, workers.number)
    spread, compare = (count * each / 1e9 / 3600 for count, each in ((read, measured.spread), (rows, measured.compare)))
    # Files are read once, and what is spread is written once and read once.
    busy = min(workers.number, 1 << bits)  # a part is compared by one worker
    moved = (files + read * measured.work + work) / (busy * workers.network) / 3600
    computed = (spread + compare) / (busy * workers.processors)
    return Plan(
        rows, files, rows * measured.make / 1e9 / 3600 / hosts, work, bits, rows / (1 << bits), MOST_JOBS << bits, spread, compare, moved,
        max(computed, moved),
    )  # fmt: skip


def spelled(count: float) -> str:
    """Bytes, in powers of 1000."""
    for unit in ("PB", "TB", "GB", "MB"):
        size = {"PB": 1e15, "TB": 1e12, "GB": 1e9, "MB": 1e6}[unit]
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"


def time_of(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{hours * 60:.1f} min" if hours * 60 >= 1 else f"{hours * 3600:.1f} s"


def table(hosts: int = 1000, tib: float = 1, changed: float = 0.1, workers: Workers = WORKERS) -> str:
    """The plans for one host, for all hosts, and for a week later, in Markdown."""
    rows = int(tib * (1 << 40)) // PAGE_SIZE
    plans = [plan(rows, workers), plan(rows * hosts, workers, hosts=hosts), plan(rows * hosts, workers, changed=changed, hosts=hosts)]
    lines = [
        ("pages", [f"{each.rows:,}" for each in plans]),
        ("fingerprint files, read", [spelled(each.files) for each in plans]),
        ("made on each host, processor time", [time_of(each.make) for each in plans]),
        ("working folder", [spelled(each.work) for each in plans]),
        ("first bits of fingerprints; parts", [f"{each.bits}; {1 << each.bits:,}" for each in plans]),
        ("pages of a part", [f"{each.part / 1e6:,.0f} million" for each in plans]),
        ("files in the working folder, at most", [f"{each.pieces:,}" for each in plans]),
        ("to spread, processor time", [time_of(each.spread) for each in plans]),
        ("to compare, processor time", [time_of(each.compare) for each in plans]),
        ("to move the bytes", [time_of(each.read) for each in plans]),
        ("in all, with these workers", [time_of(each.hours) for each in plans]),
    ]
    size = f"{tib:g} TiB"
    heads = ["", f"one host of {size}", f"{hosts:,} of them", f"a week later, {100 * changed:g} % changed"]
    text = [heads, ["---"] * len(heads), *([name, *cells] for name, cells in lines)]
    return "\n".join("| " + " | ".join(row) + " |" for row in text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--tib", type=float, default=1)
    parser.add_argument("--changed", type=float, default=10, help="percent of pages a week")
    given = parser.parse_args()
    print(table(given.hosts, given.tib, given.changed / 100), end="")


if __name__ == "__main__":
    main()

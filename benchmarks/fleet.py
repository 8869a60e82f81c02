# SPDX-License-Identifier: GPL-2.0-only
"""What `ksm fleet report` and `matrix` take beside SQL by hand in DuckDB, on fingerprint files that are made. See docs/fleet.md.

    python benchmarks/fleet.py make FOLDER [--rows 200000000] [--sources 400]
    python benchmarks/fleet.py run FOLDER [--memory 4G] [--rounds 1] [--temp DIR]
    python benchmarks/fleet.py steps FOLDER [--memory 4G] [--temp DIR]

`make` writes a file for each source, ten of which are on a host. A tenth of the pages are zeros, four tenths are like no other, and a
half are drawn from a tenth as many contents as there are rows, the n-th of which is drawn 1/n times as often as the first (Zipf). It needs
numpy.

`run` runs each command and the SQL that answers the same, alternating, each in a process of its own: processor time, wall time and the
largest resident size. `steps` gives what benchmarks/fleet_plan.py computes with: bytes a row, of the files and of the working folder, and
nanoseconds of processor time a row, of spreading them and of comparing them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import ksm
import ksm.machine
from ksm.fleet import queries
from ksm.fleet.asking import asking, no_progress
from ksm.fleet.engines.steps import Options
from ksm.fleet.files import open_fleet
from ksm.rows import PLAIN_HASH
from ksm.rows.format import GROUP, Head
from ksm.rows.write import Writer

PAGE = ksm.PAGE_SIZE
ON_A_HOST = 10

# By hand: contents of each source once, those of several sources once more, and the sums. `place` has the host of each source.
HELD = [
    """CREATE TEMP TABLE held AS
       SELECT source AS s, fingerprint AS f, count(*) AS n, min(class) AS c FROM read_parquet('{files}') GROUP BY source, fingerprint""",
    """CREATE TEMP TABLE place AS SELECT s, (row_number() OVER (ORDER BY s) - 1) // 10 AS h FROM (SELECT DISTINCT s FROM held)""",
    """CREATE TEMP TABLE common AS
       SELECT * FROM held WHERE c <> 'zero' AND f IN (SELECT f FROM held GROUP BY f HAVING count(*) > 1)""",
]
PAIRS = "SELECT a.s, b.s, count(*) FROM common AS a JOIN common AS b ON a.f = b.f AND a.s < b.s GROUP BY a.s, b.s"
REPORT = [
    "SELECT s, c, sum(n), count(*) FROM held GROUP BY s, c",
    "SELECT s, c, sum(n), count(*) FROM common GROUP BY s, c",
    "SELECT c, count(DISTINCT f) FROM common GROUP BY c",
    "SELECT h, c, count(*) FROM (SELECT DISTINCT h, f, c FROM common JOIN place USING (s)) GROUP BY h, c",
    PAIRS,
]
BY_HAND = {"report": [*HELD, *REPORT], "matrix": [*HELD, "SELECT s, count(*) FROM held GROUP BY s", PAIRS]}


def make(folder: Path, rows: int, sources: int) -> None:
    import numpy as np

    def mixed(numbers: Any) -> Any:
        """Numbers that look like chance (splitmix64)."""
        numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return numbers ^ (numbers >> np.uint64(31))

    folder.mkdir(parents=True, exist_ok=True)
    pool = float(max(2, rows // 10))
    for source in range(sources):
        chance = np.random.default_rng(source)
        count = rows // sources + (source < rows % sources)
        head = Head(f"host{source // ON_A_HOST:03}", "2026-01-01T00:00:00+00:00", PLAIN_HASH, "", ksm.__version__, [])
        with open(folder / f"vm{source:04}.parquet", "wb") as file:
            writer = Writer(file, head)
            writer.begin(f"vm{source:04}", "image")
            for first in range(0, count, GROUP):
                some = min(GROUP, count - first)
                kind = chance.random(some)
                own = (np.uint64(source + 1) << np.uint64(40)) + np.arange(first, first + some, dtype=np.uint64)
                content = np.where(kind < 0.5, np.power(pool, chance.random(some)).astype(np.uint64), own)
                frames = np.zeros(some, dtype=[("high", "<u8"), ("low", "<u8"), ("checksum", "<u4"), ("rest", "V12")])
                frames["high"] = mixed(content + np.uint64(0x9E3779B97F4A7C15))
                frames["low"] = mixed(content ^ np.uint64(0xD1B54A32D192ED03))
                frames["checksum"] = frames["low"] & np.uint64(0xFFFFFFFF)
                classes = (frames["low"] % np.uint64(6) + np.uint64(1)).astype(np.uint8)
                frames[kind >= 0.9] = np.zeros(1, frames.dtype)
                classes[kind >= 0.9] = 0
                writer.add([(first * PAGE, (first + some) * PAGE)], frames.tobytes(), classes.tobytes())
            writer.end([])
            writer.finish()


def by_hand(folder: str, command: str, memory: str, temp: str) -> None:
    import duckdb

    size = memory + "iB" if memory[-1:].isalpha() else memory + "B"
    con = duckdb.connect(config={"memory_limit": size, "temp_directory": temp, "preserve_insertion_order": False})
    for text in BY_HAND[command]:
        con.execute(text.replace("{files}", f"{folder}/*.parquet")).fetchall()


def taken(words: list[str]) -> dict[str, float]:
    """Seconds of processor and wall time of a command, and its largest resident size in bytes."""
    began = time.monotonic()
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {child.returncode}")
    return {"cpu": used.ru_utime + used.ru_stime, "wall": time.monotonic() - began, "peak": used.ru_maxrss * 1024}


def run(folder: str, memory: str, rounds: int, temp: str) -> dict[str, dict[str, dict[str, float]]]:
    """For each command and the SQL by hand: the medians of what they take."""
    options = ["--memory", memory, "--temp", temp]
    output = os.path.join(temp, "matrix.parquet")
    ways = {
        ("report", "ksm"): [sys.executable, "-m", "ksm", "fleet", "report", folder, "--json", *options],
        ("matrix", "ksm"): [sys.executable, "-m", "ksm", "fleet", "matrix", folder, "-o", output, *options],
        **{(name, "by hand"): [sys.executable, __file__, "hand", folder, name, *options] for name in BY_HAND},
    }
    found: dict[tuple[str, str], list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in sorted(ways):
            found[way].append(taken(ways[way]))
            print(*way, json.dumps(found[way][-1]), file=sys.stderr, flush=True)
    result: dict[str, dict[str, dict[str, float]]] = {}
    for (command, how), all_runs in found.items():
        result.setdefault(command, {})[how] = {name: median(each[name] for each in all_runs) for name in all_runs[0]}
    return result


def steps(folder: str, memory: str, temp: str) -> dict[str, float]:
    """Bytes and nanoseconds of processor time a row."""
    fleet = open_fleet([folder])
    options = Options(memory=ksm.machine.parse_size(memory), temp=temp)
    began = time.process_time()
    with asking(fleet, options, progress=no_progress) as asked:
        spread = time.process_time() - began
        work = sum(path.stat().st_size for each in asked.folders for path in Path(each).rglob("*.parquet"))
        began = time.process_time()
        asked.ask([queries.HELD, queries.COMMON, queries.MET, queries.HOSTS, queries.pairs(len(fleet.members))])
        compared = time.process_time() - began
    files = sum(os.stat(file).st_size for file in fleet.files)
    rows = fleet.pages
    return {"rows": rows, "file": files / rows, "spread": spread / rows * 1e9, "work": work / rows, "compare": compared / rows * 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="what", required=True)
    making = commands.add_parser("make")
    making.add_argument("folder", type=Path)
    making.add_argument("--rows", type=int, default=200_000_000)
    making.add_argument("--sources", type=int, default=400)
    for name in ("run", "hand", "steps"):
        running = commands.add_parser(name)
        running.add_argument("folder")
        if name == "hand":
            running.add_argument("command", choices=list(BY_HAND))
        if name == "run":
            running.add_argument("--rounds", type=int, default=1)
        running.add_argument("--memory", default="4G")
        running.add_argument("--temp", default=tempfile.gettempdir())
    given = parser.parse_args()
    if given.what == "make":
        make(given.folder, given.rows, given.sources)
    elif given.what == "hand":
        by_hand(given.folder, given.command, given.memory, given.temp)
    elif given.what == "steps":
        print(json.dumps(steps(given.folder, given.memory, given.temp), indent=2))
    else:
        print(json.dumps(run(given.folder, given.memory, given.rounds, given.temp), indent=2))


if __name__ == "__main__":
    main()

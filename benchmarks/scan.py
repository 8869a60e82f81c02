# SPDX-License-Identifier: GPL-2.0-only
"""`ksm scan` of an image from start to report, beside hashing it and beside ways to count its duplicates in Python.

    python benchmarks/scan.py                          # a file of 262,144 pages (1 GiB), the median of 3
    python benchmarks/scan.py --pages 1048576 --way ksm --way "xxhash, mapped" --way "xxhash, read" --json

Half of the file's pages are there twice. The file lies in --folder, and in the page cache. Every way is a command of its own, which ends by
printing what it found. Its processor time is what the system charges it with, the start of the interpreter included. Its peak is the most
anonymous memory that it had; the mapped file does not count. The ways take turns. The last column says how many times as long as
`ksm scan` a way takes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

import ksm
from ksm.bench.contents import WORKLOADS, fill

CHUNK = 16384  # pages written at once

MAPPED = """
import mmap, sys
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
    view = memoryview(memory)
    pages = range(0, len(view), 4096)
    {}
    view.release()
"""
COUNT = MAPPED.format("""seen = {{}}
    for at in pages:
        key = {}
        seen[key] = seen.get(key, 0) + 1
    print(len(pages) - len(seen))""")
READ = """
import sys, xxhash
state, buffer = xxhash.xxh64(), bytearray(1 << 20)
with open(sys.argv[1], "rb", buffering=0) as file:
    while count := file.readinto(buffer):
        state.update(memoryview(buffer)[:count])
print(state.hexdigest())
"""
PYTHON = {
    "dict of bytes": COUNT.format("bytes(view[at : at + 4096])"),
    "dict of blake2b": "from hashlib import blake2b" + COUNT.format("blake2b(view[at : at + 4096], digest_size=16).digest()"),
    "dict of sha256": "from hashlib import sha256" + COUNT.format("sha256(view[at : at + 4096]).digest()"),
    "dict of xxh3_128": "from xxhash import xxh3_128_digest" + COUNT.format("xxh3_128_digest(view[at : at + 4096])"),
    "numpy.unique": "import numpy" + MAPPED.format(
        "data = numpy.frombuffer(view, 'V4096')\n    print(len(data) - len(numpy.unique(data)))\n    del data"),
    "xxhash, mapped": "import xxhash" + MAPPED.format("print(xxhash.xxh64_hexdigest(view))"),
    "xxhash, read": READ,
}
NEEDS = {"numpy.unique": "numpy", "dict of xxh3_128": "xxhash", "xxhash, mapped": "xxhash", "xxhash, read": "xxhash"}
XXHSUM = "cat | xxhsum"
SCAN = "ksm scan"
SCANS = {SCAN: [], f"{SCAN} --threads 1": ["--threads", "1"], f"{SCAN} --threads 2": ["--threads", "2"], f"{SCAN} --exact": ["--exact"]}
WAYS = (*SCANS, XXHSUM, *PYTHON)


def command(way: str, path: Path) -> list[str]:
    if way in SCANS:
        return [sys.executable, "-m", "ksm", "scan", *SCANS[way], str(path)]
    if way == XXHSUM:
        return ["sh", "-c", 'cat "$1" | xxhsum', "sh", str(path)]
    return [sys.executable, "-c", PYTHON[way], str(path)]


def missing(way: str) -> bool:
    if way == XXHSUM:
        return not shutil.which("xxhsum")
    return way in NEEDS and importlib.util.find_spec(NEEDS[way]) is None


def anonymous(pid: int) -> int:
    """Bytes of a process's anonymous memory; 0 when the process has none any more."""
    try:
        with open(f"/proc/{pid}/status") as status:
            return sum(int(line.split()[1]) << 10 for line in status if line.startswith(("RssAnon:", "RssShmem:")))
    except (OSError, ValueError):
        return 0


def run(way: str, path: Path, watch: bool) -> dict[str, float]:
    """Run a command once: seconds, and bytes at the peak. The peak is measured only with `watch`, which costs some time."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    peak = 0
    # Python may write .pyc files, so that later runs start as an installed program does.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with subprocess.Popen(command(way, path), stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        if watch:
            os.set_blocking(child.stdout.fileno(), False)
            while child.poll() is None:
                peak = max(peak, anonymous(child.pid))
                time.sleep(0.002)
        child.communicate()
    if child.returncode:
        raise click.ClickException(f"{way} failed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": cpu, "elapsed": time.monotonic() - begun, "peak": peak}


def make(path: Path, pages: int, workload: str) -> None:
    with open(path, "wb", buffering=0) as file:
        for first in range(0, pages, CHUNK):
            part = bytearray(min(CHUNK, pages - first) * ksm.PAGE_SIZE)
            fill(part, workload, first, pages)
            file.write(part)


def table(results: list[dict[str, Any]], pages: int) -> Table:
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    made.add_column("way")
    for heading in ("CPU s", "elapsed s", "ns a page", "peak MiB", "% of image", "/ ksm scan"):
        made.add_column(heading, justify="right", no_wrap=True)
    for each in results:
        made.add_row(each["way"], f"{each['cpu']:.3f}", f"{each['elapsed']:.3f}", f"{each['cpu'] * 1e9 / pages:,.0f}",
                     f"{each['peak'] / (1 << 20):,.1f}", f"{each['peak'] * 100 / (pages * ksm.PAGE_SIZE):.2f}",
                     f"{each['ratio']:.2f}" if "ratio" in each else "")
    return made


@click.command()
@click.option("--pages", type=click.IntRange(256), default=262_144, show_default=True, help="Pages of the image.")
@click.option("--workload", type=click.Choice(list(WORKLOADS)), default="pairs", show_default=True, help="What the pages hold.")
@click.option("--repeat", type=click.IntRange(1), default=3, show_default=True, help="Runs of each way; medians are shown.")
@click.option("--way", "ways", multiple=True, type=click.Choice(WAYS), help="Only this way.  [default: all]")
@click.option("--folder", type=click.Path(file_okay=False, exists=True), help="Where the image lies.  [default: the temporary one]")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def main(pages: int, workload: str, repeat: int, ways: tuple[str, ...], folder: str | None, as_json: bool) -> None:
    """ksm scan from start to report, beside other ways to see duplicates."""
    here = [way for way in ways or WAYS if not missing(way)]
    for way in ways:
        if way not in here:
            raise click.ClickException(f"{way}: not installed")
    with tempfile.TemporaryDirectory(dir=folder) as made:
        path = Path(made) / "image"
        make(path, pages, workload)
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in here}
        for way in here:
            run(way, path, False)  # once for the caches
        for _ in range(repeat):
            for way in here:
                runs[way].append(run(way, path, False))
        peaks = {way: run(way, path, True)["peak"] for way in here}
    results: list[dict[str, Any]] = [
        {"way": way, **{key: statistics.median(each[key] for each in runs[way]) for key in ("cpu", "elapsed")}, "peak": peaks[way]}
        for way in here
    ]
    scan = next((each["cpu"] for each in results if each["way"] == SCAN), None)
    for each in results:
        if scan:
            each["ratio"] = round(each["cpu"] / scan, 3)
    if as_json:
        click.echo(json.dumps({"pages": pages, "workload": workload, "repeat": repeat, "ways": results}, indent=2))
    else:
        console = Console(width=100)
        console.print(f"{pages:,} pages, {workload}, medians of {repeat}\n", highlight=False)
        console.print(table(results, pages))


if __name__ == "__main__":
    main()

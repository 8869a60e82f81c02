# SPDX-License-Identifier: GPL-2.0-only
"""What `ksm fingerprint` takes beside reading alone, with one thread, and what its files take on disk. See docs/fingerprint-files.md.

    python benchmarks/fingerprint.py [--mib 2048] [--rounds 5] [--folder /tmp]

A process of so many MiB, not in huge pages, and an image of as many in the page cache; each read alone and fingerprinted, alternating.
Medians of wall and of CPU time. Then the size of files: of unique, half duplicate and real memory.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from statistics import median

from ksm.sources import Host, open_source
from ksm.sources.save import save_file

MIB = 1 << 20
TARGET = """
import mmap, os, sys
size, seed = int(sys.argv[1]), os.urandom
memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for at in range(0, size, 2 << 20):
    part = os.urandom(1 << 20)
    memory[at : at + (2 << 20)] = part + part
print("ready", flush=True)
sys.stdin.read()
"""


def read_alone(text: str) -> None:
    """Read a source by its pieces, and drop what was read."""
    host = Host()
    source = open_source(text, host)
    buffer = memoryview(bytearray(256 << 10))
    for piece in source.pieces():
        piece.read(buffer, lambda runs, view: None)
    source.close()
    host.close()


def fingerprint(text: str, path: str, threads: int = 1) -> int:
    """Write a fingerprint file: its bytes."""
    host = Host()
    source = open_source(text, host)
    source.threads = threads
    size = save_file(path, [source], progress=lambda what, done, total: None).size
    source.close()
    host.close()
    return size


def taken(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(name: str, text: str, path: str, rounds: int) -> None:
    ways: dict[str, Callable[[], object]] = {
        "read": lambda: read_alone(text),
        "fingerprint": lambda: fingerprint(text, path),
        "two threads": lambda: fingerprint(text, path, 2),
    }
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, work in ways.items():
            times[way].append(taken(work))
    walls, cpus = ({way: median(each[place] for each in times[way]) for way in ways} for place in (0, 1))
    for way in ways:
        print(f"{name:8} {way:12} wall {walls[way]:6.3f} s ({walls[way] / walls['read']:4.2f})   CPU {cpus[way]:6.3f} s"
              f" ({cpus[way] / cpus['read']:4.2f})")  # fmt: skip


def sizes(text: str, name: str, path: str) -> None:
    size = fingerprint(text, path, 2)
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        rows = file.metadata.num_rows
    each = size / rows
    print(f"{name:24} {rows:9,} pages   {size / MIB:8.2f} MiB   {each:5.1f} bytes a page   {each / 4:5.2f} MiB a GiB")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", default="/tmp")
    parser.add_argument("--image", help="a real image, for its size")
    options = parser.parse_args()
    size = options.mib * MIB
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path, image = os.path.join(folder, "f.parquet"), os.path.join(folder, "image")
        process = subprocess.Popen([sys.executable, "-c", TARGET, str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            compare("process", f"pid:{process.pid}", path, options.rounds)
            sizes(f"pid:{process.pid}", "process, half in pairs", path)
        finally:
            process.kill()
            process.communicate()
        with open(image, "wb") as file:
            for _ in range(options.mib):
                file.write(os.urandom(MIB))
        compare("image", image, path, options.rounds)
        sizes(image, "image, all unique", path)
        if options.image:
            sizes(options.image, "image, real", path)


if __name__ == "__main__":
    main()

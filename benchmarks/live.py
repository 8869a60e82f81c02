# SPDX-License-Identifier: GPL-2.0-only
"""`ksm scan` of a running process, three passes, beside reading it three times and doing nothing with it.

    python benchmarks/live.py                       # a process of 65,536 pages (256 MiB), the median of 3
    python benchmarks/live.py --pages 1048576       # 4 GiB

Half of the pages are there twice, and none is in a huge page. The reader calls process_vm_readv() with a buffer that stays in the cache.
Every way is a command of its own. Its processor time is what the system charges it with, without the start of the interpreter, which is
measured by a command that ends at once. The peak is the most anonymous memory that it had more than that. The ways take turns.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from typing import Any

import click

TARGET = """
import ctypes, mmap, signal, sys
from ksm.bench.contents import fill
pages = int(sys.argv[1])
memory = mmap.mmap(-1, pages * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for first in range(0, pages, 16384):
    part = bytearray(min(16384, pages - first) * 4096)
    fill(part, "pairs", first, pages)
    memory[first * 4096:first * 4096 + len(part)] = bytes(part)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
print(address, flush=True)
signal.pause()
"""
READER = """
import ctypes, os, sys
pid, address, pages, times = map(int, sys.argv[1:])
SIZE = 256 << 10
class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(SIZE)
local, remote = Iovec(ctypes.addressof(buffer), SIZE), Iovec()
for _ in range(times):
    for at in range(address, address + pages * 4096, SIZE):
        remote.base, remote.length = at, min(SIZE, address + pages * 4096 - at)
        if libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0) != remote.length:
            sys.exit("process_vm_readv failed")
"""
EMPTY = "pass"


def run(command: list[str]) -> dict[str, float]:
    """Run a command: seconds of processor time and on the clock, and its most resident memory in bytes."""
    begun = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise click.ClickException(f"{command[0]} failed")
    return {"cpu": usage.ru_utime + usage.ru_stime, "elapsed": time.monotonic() - begun, "peak": usage.ru_maxrss << 10}


@click.command()
@click.option("--pages", type=click.IntRange(256), default=65_536, show_default=True, help="Pages of the process.")
@click.option("--repeat", type=click.IntRange(1), default=3, show_default=True, help="Runs of each way; medians are shown.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def main(pages: int, repeat: int, as_json: bool) -> None:
    """ksm scan of a process, beside reading it."""
    target = subprocess.Popen([sys.executable, "-c", TARGET, str(pages)], stdout=subprocess.PIPE, text=True)
    assert target.stdout is not None
    try:
        address = target.stdout.readline().strip()
        scan = [sys.executable, "-m", "ksm", "scan", "--passes", "3", "--interval", "0"]
        ways = {
            "empty": [sys.executable, "-c", EMPTY],
            "read three times": [sys.executable, "-c", READER, str(target.pid), address, str(pages), "3"],
            "ksm scan --threads 1": [*scan, "--threads", "1", f"pid:{target.pid}"],
            "ksm scan --threads 2": [*scan, "--threads", "2", f"pid:{target.pid}"],
            "ksm scan --exact": [*scan, "--exact", f"pid:{target.pid}"],
        }
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(repeat):
            for way, command in ways.items():
                runs[way].append(run(command))
    finally:
        target.send_signal(signal.SIGKILL)
        target.wait()
    middle = {way: {key: statistics.median(each[key] for each in each_run) for key in each_run[0]} for way, each_run in runs.items()}
    results: list[dict[str, Any]] = []
    for way, figures in middle.items():
        more = {key: figures[key] - middle["empty"][key] for key in figures}
        results.append({"way": way, **more, "share": more["peak"] / (pages * 4096)})
    if as_json:
        click.echo(json.dumps({"pages": pages, "repeat": repeat, "ways": results}, indent=2))
        return
    read = results[1]
    click.echo(f"{pages:,} pages, medians of {repeat}; the start of the interpreter is left out\n")
    click.echo(f"{'way':22} {'CPU s':>8} {'/ read':>7} {'elapsed s':>10} {'ns a page':>10} {'peak %':>7}")
    for each in results[1:]:
        click.echo(f"{each['way']:22} {each['cpu']:8.3f} {each['cpu'] / read['cpu']:7.2f} {each['elapsed']:10.3f} "
                   f"{each['cpu'] * 1e9 / pages:10.0f} {100 * each['share']:7.2f}")  # fmt: skip


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what `ksm bench` compares.
"""The ways to find equal pages. Each runs in a process of its own and says what it took, in nanoseconds of processor time a page."""

from __future__ import annotations

import hashlib
import importlib
import mmap
import multiprocessing
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import ksm
from ksm.bench.contents import duplicates, fill, read_once

PASSES = 3
CHUNK = 4 << 20
Measured = dict[str, Any]
Result = TypeVar("Result")


def cpu(work: Callable[[], Any]) -> float:
    """Nanoseconds of processor time, of all threads of this process."""
    begun = time.process_time_ns()
    work()
    return time.process_time_ns() - begun


def resident(field: str = "VmRSS") -> int:
    """Bytes that this process has in memory; VmHWM: that it had at most."""
    with open("/proc/self/status") as status:
        [line] = [line for line in status if line.startswith(f"{field}:")]
    return int(line.split()[1]) << 10


def scan_passes(machine: ksm.Machine, before: Callable[[int], Any] = lambda number: None) -> tuple[list[float], int]:
    """The passes 1 to PASSES over all that is mergeable: nanoseconds of each, and the bytes of KSM's own data.

    These are what the process has grown by, and the frames that were freed. before(number) is called ahead of each pass, from 0 on.
    """
    there, free = resident(), machine.free_pages()
    took = []
    for number in range(PASSES):
        before(number)
        took.append(cpu(lambda: machine.ksm.scan(1)))
    return took, resident() - there + (machine.free_pages() - free) * ksm.PAGE_SIZE


def in_a_new_process(work: Callable[..., Result], *args: Any) -> Result:
    """Do the work in a new process, which has neither the peak, nor the heap, nor the page tables of the last run."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, args)


def figures(pages: int, passes: list[float], merged: tuple[int, int], metadata: float, cow: float, unmerge: float) -> Measured:
    """The figures of a run, per page. `merged`: the pages that are merged in the first half of the memory, and in the second one.

    `cow`: the time of writing to every page of the first half, less that of writing there once more. `unmerge`: the time of run=2, which
    unmerges the second half.
    """
    return {
        **{f"pass {number + 1}": took / pages for number, took in enumerate(passes)},
        "passes": sum(passes) / pages,
        "cow": cow / merged[0] if merged[0] >= 64 else None,
        "unmerge": unmerge / merged[1] if merged[1] >= 64 else None,
        "bytes a page": metadata / pages,
    }


def halves(name: str, pages: int) -> tuple[int, int]:
    return duplicates(name, 0, pages // 2, pages), duplicates(name, pages // 2, pages - pages // 2, pages)


def check_merged(way: str, name: str, pages: int, found: int) -> None:
    """Raise RuntimeError unless the way has merged as many pages as can be merged."""
    expected = 0 if name == "volatile" else duplicates(name, 0, pages, pages)
    if abs(found - expected) > pages / 256 + 1:  # one page of a group may be left over when the pages of its chain are full
        raise RuntimeError(f"{way} has merged {found} pages of {name}, not {expected}")


def chunks(name: str, pages: int, seed: int) -> Iterator[tuple[int, bytearray]]:
    """The memory in chunks: (offset, contents). The buffer is used again for the next chunk."""
    size = pages * ksm.PAGE_SIZE
    buffer = bytearray(min(CHUNK, size))
    for offset in range(0, size, CHUNK):
        if size - offset < len(buffer):
            buffer = bytearray(size - offset)
        fill(buffer, name, offset // ksm.PAGE_SIZE, pages, seed)
        yield offset, buffer


def port(name: str, pages: int, *, written: bool = False, plain: bool = False) -> Measured:
    """Measure the port. With `written`, every page counts as written before each pass, and as written again while it is in a tree."""
    with ksm.Machine(memory=(pages + 4096) * ksm.PAGE_SIZE, plain=plain) as machine:
        machine.ksm.smart_scan = 0
        process = machine.spawn()
        start = process.mmap(pages * ksm.PAGE_SIZE)
        half = pages // 2 * ksm.PAGE_SIZE

        def write(seed: int) -> None:
            for offset, contents in chunks(name, pages, seed):
                process.write(start + offset, contents)

        write(0)
        process.madvise(start, pages * ksm.PAGE_SIZE, ksm.MADV_MERGEABLE)

        def before(number: int) -> None:
            if number and name == "volatile":
                write(number)
            if written:
                machine._count_as_written()

        took, metadata = scan_passes(machine, before)
        check_merged("the port", name, pages, machine.ksm.pages_shared + machine.ksm.pages_sharing)
        cow = cpu(lambda: process.touch(start, half)) - cpu(lambda: process.touch(start, half))
        unmerge = cpu(lambda: machine.ksm.store("run", "2"))
        return figures(pages, took, halves(name, pages), metadata, cow, unmerge)


def in_memory(work: Callable[[mmap.mmap], Any]) -> Callable[[str, int], Measured]:
    """A way that gets the memory as one buffer, and goes through it once."""

    def run(name: str, pages: int) -> Measured:
        with mmap.mmap(-1, pages * ksm.PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            fill(memory, name)
            before = resident()
            took = cpu(lambda: work(memory))
            return {"passes": took / pages, "bytes a page": (resident() - before) / pages}

    return run


def count_by(key: Callable[[memoryview], Any]) -> Callable[[mmap.mmap], int]:
    """A way that counts the pages whose key another page has already, by a dict of keys."""

    def work(memory: mmap.mmap) -> int:
        with memoryview(memory) as view:
            seen: dict[Any, int] = {}
            for at in range(0, len(view), ksm.PAGE_SIZE):
                with view[at : at + ksm.PAGE_SIZE] as page:
                    found = key(page)
                seen[found] = seen.get(found, 0) + 1
            kept.append(seen)
            return len(view) // ksm.PAGE_SIZE - len(seen)

    return work


kept: list[Any] = []  # keeps results in memory until the resident set has been read


def numpy_unique(memory: mmap.mmap) -> int:
    numpy = importlib.import_module("numpy")
    kept.append(numpy.unique(numpy.frombuffer(memory, f"V{ksm.PAGE_SIZE}"), return_counts=True))
    return len(memory) // ksm.PAGE_SIZE - len(kept[-1][0])


def hash_whole(memory: mmap.mmap) -> int:
    return int(importlib.import_module("xxhash").xxh64_intdigest(memory))


def xxh3_128(page: memoryview) -> bytes:
    return bytes(importlib.import_module("xxhash").xxh3_128_digest(page))


PORT = {
    "ksm": port,
    "ksm, written": lambda name, pages: port(name, pages, written=True),
    "ksm, plain": lambda name, pages: port(name, pages, plain=True),
}
PYTHON = {
    "dict of bytes": in_memory(count_by(bytes)),
    "numpy.unique": in_memory(numpy_unique),
    "dict of blake2b": in_memory(count_by(lambda page: hashlib.blake2b(page, digest_size=16).digest())),
    "dict of sha256": in_memory(count_by(lambda page: hashlib.sha256(page).digest())),
    "dict of xxh3_128": in_memory(count_by(xxh3_128)),
    "xxh64 of all": in_memory(hash_whole),
    "read once": in_memory(read_once),
}
ALONE: dict[str, Callable[[str, int], Measured]] = {**PORT, **PYTHON}
NEEDS = {"numpy.unique": "numpy", "dict of xxh3_128": "xxhash", "xxh64 of all": "xxhash"}
KSMD = "ksmd"


def missing(way: str) -> str:
    """Why a way cannot be taken here; empty if it can."""
    if way in NEEDS:
        try:
            importlib.import_module(NEEDS[way])
        except ImportError:
            return f"{NEEDS[way]} is not installed"
    return ""


def run_alone(way: str, name: str, pages: int) -> Measured:
    return ALONE[way](name, pages)

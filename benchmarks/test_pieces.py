# SPDX-License-Identifier: GPL-2.0-only
"""Benchmarks of the small pieces, with pytest-benchmark, so that a change shows.

    pytest benchmarks --benchmark-autosave            # before
    pytest benchmarks --benchmark-compare             # after

or tox -e bench, which measures processor time (--benchmark-timer=time.process_time). A round does COUNT pieces; `ns` in the extra info is
the median for one piece.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ksm
from ksm.bench.contents import fill
from ksm.testing.pieces import checksum, checksums, compare, rb_insert_erase

COUNT = 16384
ROUNDS = 9

Measure = Callable[..., Any]


@pytest.fixture
def measure(benchmark: Any) -> Measure:
    """Run a function in rounds, each after its setup, and note the time of one of the COUNT pieces that it does."""

    def run(piece: Callable[..., Any], setup: Callable[[], Any] | None = None) -> Any:
        result = benchmark.pedantic(piece, setup=setup, rounds=ROUNDS, warmup_rounds=1)
        if benchmark.stats:
            benchmark.extra_info["ns"] = round(benchmark.stats.stats.median * 1e9 / COUNT, 1)
        return result

    return run


@pytest.fixture
def memory() -> bytearray:
    made = bytearray(COUNT * ksm.PAGE_SIZE)
    fill(made, "unique")
    return made


@pytest.fixture
def process() -> Iterator[ksm.Process]:
    with ksm.Machine(memory=(COUNT + 4096) * ksm.PAGE_SIZE) as machine:
        machine.ksm.smart_scan = 0
        yield machine.spawn()


def test_rb_insert_and_erase(measure: Measure) -> None:
    assert measure(lambda: rb_insert_erase(COUNT)) == COUNT


def test_checksum(measure: Measure, memory: bytearray) -> None:
    assert measure(lambda: checksum(memory)) == checksums(memory)


def test_checksums_of_64_pages(measure: Measure, memory: bytearray) -> None:
    assert measure(lambda: checksums(memory)) == checksum(memory)


def test_compare_equal_pages(measure: Measure) -> None:
    equal = bytes(COUNT * ksm.PAGE_SIZE)
    assert measure(lambda: compare(equal)) == COUNT - 1


def test_compare_different_pages(measure: Measure, memory: bytearray) -> None:
    assert measure(lambda: compare(memory)) == 0


def test_fault(measure: Measure, process: ksm.Process) -> None:
    length = COUNT * ksm.PAGE_SIZE

    def fresh() -> tuple[tuple[int], dict[str, Any]]:
        for vma in process.maps():
            process.munmap(vma.start, vma.end - vma.start)
        return (process.mmap(length),), {}

    measure(lambda addr: process.touch(addr, length), fresh)
    assert process.rss() == COUNT


@pytest.mark.parametrize("how", ["cow", "unmerge"])
def test_break_merged_pages(measure: Measure, process: ksm.Process, memory: bytearray, how: str) -> None:
    length = COUNT * ksm.PAGE_SIZE
    fill(memory, "groups of 256")
    fill(memoryview(memory)[length // 2 :], "groups of 256", 0, COUNT // 2)
    memory[: length // 2] = memory[length // 2 :]
    addr = process.mmap(length)
    process.write(addr, memory)
    process.madvise(addr, length, ksm.MADV_MERGEABLE)
    files = process.machine.ksm

    def merge() -> None:
        files.run = 2       # only a change unmerges
        files.run = 0
        assert files.scan(3)
        assert files.pages_shared + files.pages_sharing == COUNT

    if how == "cow":
        measure(lambda: process.touch(addr, length), lambda: merge())
        assert process.ksm_stat()["ksm_merging_pages"] == COUNT     # until the next pass takes the items out
    else:
        measure(lambda: files.store("run", "2"), lambda: merge())
        assert files.pages_shared + files.pages_sharing == 0


def test_a_pass_that_merges(measure: Measure, process: ksm.Process, memory: bytearray) -> None:
    length = COUNT * ksm.PAGE_SIZE
    fill(memory, "pairs")
    addr = process.mmap(length)
    process.write(addr, memory)
    process.madvise(addr, length, ksm.MADV_MERGEABLE)
    files = process.machine.ksm

    def first_pass() -> None:
        files.run = 2       # only a change unmerges
        files.run = 0
        assert files.scan(1)

    assert measure(lambda: files.scan(1), first_pass)
    assert files.pages_shared == COUNT // 4

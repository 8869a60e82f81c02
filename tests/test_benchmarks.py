# SPDX-License-Identifier: GPL-2.0-only
"""The benchmarks run, on little memory. Their figures are not checked."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import ksm
from ksm.bench.contents import WORKLOADS, duplicates, fill, read_once

pytestmark = pytest.mark.once

PASSES = Path(__file__).resolve().parents[1] / "benchmarks" / "passes.py"


def run(*arguments):
    command = [sys.executable, str(PASSES), "--pages", "600", "--repeat", "1", *arguments]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def test_passes_as_json():
    report = json.loads(run("--json"))
    assert (report["pages"], report["repeat"]) == (600, 1)
    cases = {case["case"]: case for case in report["cases"]}
    merged = {name: (case["pages_shared"], case["pages_sharing"]) for name, case in cases.items()}
    # max_page_sharing is 256, so three copies of the identical pages stay.
    assert merged == {"unique": (0, 0), "duplicates": (300, 300), "identical": (3, 597)}
    for case in cases.values():
        assert len(case["pages_per_second"]) == 3
        assert min(case["pages_per_second"]) > 0
        assert case["peak"] > 600 * 4096


def test_passes_as_a_table():
    table = run("--case", "duplicates", "--differ", "4088")
    assert "duplicates" in table
    assert "unique" not in table


def bench(*arguments):
    return subprocess.run([sys.executable, "-m", "ksm", "bench", *arguments], check=False, text=True, capture_output=True, timeout=100)


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("pages", [1000, 1024])
def test_contents_are_as_many_duplicates_as_is_said(name, pages):
    memory = bytearray(pages * ksm.PAGE_SIZE)
    fill(memory, name)
    held = [bytes(memory[at : at + ksm.PAGE_SIZE]) for at in range(0, len(memory), ksm.PAGE_SIZE)]
    counts = {page: held.count(page) for page in set(held)}
    assert duplicates(name, 0, pages, pages) == sum(count for count in counts.values() if count > 1)
    half = pages // 2
    assert duplicates(name, 0, half, pages) == sum(counts[page] > 1 for page in held[:half])
    assert read_once(memory) == xor_of(memory)


def xor_of(memory):
    total = 0
    for word in memoryview(memory).cast("Q"):
        total ^= word
    return total


def test_contents_come_in_pieces_and_change_with_the_seed():
    whole, pieces, other = (bytearray(64 * ksm.PAGE_SIZE) for _ in range(3))
    fill(whole, "real")
    for first in range(0, 64, 16):
        part = bytearray(16 * ksm.PAGE_SIZE)
        fill(part, "real", first, 64)
        pieces[first * ksm.PAGE_SIZE : (first + 16) * ksm.PAGE_SIZE] = part
    fill(other, "unique", seed=1)
    assert pieces == whole
    fill(whole, "unique")
    assert not any(whole[at : at + 8] == other[at : at + 8] for at in range(0, len(whole), ksm.PAGE_SIZE))
    for first, total in [(0, 63), (1, 64), (65, 64)]:
        with pytest.raises(ValueError):
            fill(whole, "unique", first, total)


def test_bench_as_json():
    done = bench("--pages", "512", "--repeat", "1", "--json", "--way", "ksm", "--way", "ksm, written", "--way", "ksm, plain",
                 "--way", "read once", "--way", "dict of sha256")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [result["workload"] for result in report["results"]] == list(WORKLOADS)
    for result in report["results"]:
        assert list(result["ways"]) == ["ksm", "ksm, written", "ksm, plain", "read once", "dict of sha256"]
        for way in ("ksm", "ksm, written", "ksm, plain"):
            figures = result["ways"][way]
            assert min(figures[f"pass {number}"] for number in (1, 2, 3)) > 0
            merges = result["workload"] not in ("unique", "volatile", "last bytes", "sparse")
            assert (figures["unmerge"] is not None) == merges
        assert result["ways"]["dict of sha256"]["passes"] > result["ways"]["read once"]["passes"] > 0


def test_bench_as_a_table():
    done = bench("--pages", "512", "--repeat", "1", "--workload", "pairs", "--way", "ksm")
    assert done.returncode == 0, done.stderr
    assert "pairs, 512 pages" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_bench_refuses_more_than_there_is():
    done = bench("--pages", str(1 << 26))
    assert done.returncode == 1
    assert done.stderr.startswith("ksm: 67,108,864 pages need ")


def test_fleet(tmp_path):
    """Files are made, and what is measured makes sense: a row has 12 to 40 bytes in a file, and fewer than 60 in the working folder."""
    pytest.importorskip("duckdb")
    pytest.importorskip("numpy")
    command = [sys.executable, str(PASSES.parent / "fleet.py")]
    subprocess.run([*command, "make", str(tmp_path), "--rows", "40001", "--sources", "12"], check=True)
    output = subprocess.run([*command, "steps", str(tmp_path), "--memory", "256M"], check=True, text=True, stdout=subprocess.PIPE).stdout
    found = json.loads(output)
    assert found["rows"] == 40001
    assert 12 < found["file"] < 40
    assert 0 < found["work"] < 60
    assert min(found["spread"], found["compare"]) > 0

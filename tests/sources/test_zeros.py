# SPDX-License-Identifier: GPL-2.0-only
"""Pages of zeros in files may be no pages in the running machine: they are set apart."""

import json
import re

import pytest
from commands import invoke
from cores import READ, WRITE, note, write_core
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ksm.estimate.scan import Scan
from ksm.sources import open_file
from ksm.sources.snapshots import open_snapshots

PAGE = 4096


def page(number):
    return number.to_bytes(8, "little") * (PAGE // 8)


def write(path, numbers):
    path.write_bytes(b"".join(map(page, numbers)))
    return str(path)


def scan(opened, **options):
    """What a scan finds that sets zeros apart: its counters, ledger, and the zeros of each source."""
    try:
        with Scan(opened, zeros="apart", **options) as running:
            result = running.run()
            if options.get("exact"):  # a machine of fingerprints has room for many more frames than there are
                assert running.machine.check() == []
    finally:
        for source in opened:
            source.close()
    counters = {name: value for name, value in result.ksm.items() if name not in ("pages_scanned", "full_scans")}
    return counters, result.ledger, [source.zeros for source in result.sources]


numbers = st.lists(st.integers(0, 5), min_size=1, max_size=60)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(numbers, min_size=1, max_size=3), st.booleans(), st.sampled_from(["6.12", "6.1", "2.6.38"]))
def test_as_if_zeros_were_not_in_the_file(tmp_path, images, exact, era):
    fewer = [write(tmp_path / f"fewer{place}", [*filter(None, image), 77 + place]) for place, image in enumerate(images)]
    paths = [write(tmp_path / f"all{place}", [*image, 77 + place]) for place, image in enumerate(images)]
    *without, none = scan([open_file(path) for path in fewer], exact=exact, era=era)
    *found, zeros = scan([open_file(path) for path in paths], exact=exact, era=era)
    assert found == without
    assert (zeros, none) == ([image.count(0) for image in images], [0] * len(images))


@pytest.mark.parametrize("notes", [b"", note("GDB", 0, b"gdb"), note("QEMU", 0, b"abcd")])
def test_cores(tmp_path, notes):
    path = write_core(tmp_path / "core", [(0x100000, page(0) * 3 + page(1) * 2, READ | WRITE)], notes)
    _, ledger, zeros = scan([open_file(path)])
    assert (ledger.pages, zeros) == (2, [3])


def test_a_core_of_the_kernel_with_holes(tmp_path):
    """What the process has never touched is a hole there, so other zeros are pages."""
    path = write_core(tmp_path / "holes", [(0x100000, page(0) * 300 + page(1) * 2, READ | WRITE)])
    source = open_file(sparse(path))
    if not source.holes:
        source.close()
        pytest.skip("this file system has no holes")
    assert source.zeros_are_real
    assert scan([source])[2] == [0]


def sparse(path):
    """Make holes of the first 200 pages of a core's memory."""
    with open(path, "r+b") as file:
        data = file.read()
        start = data.index(bytes(300 * PAGE)) // PAGE * PAGE + PAGE
        file.truncate(start)
        file.seek(start + 200 * PAGE)
        file.write(data[start + 200 * PAGE :])
    return path


def test_fingerprints_of_files_and_of_processes(tmp_path, target):
    image = write(tmp_path / "image", [0, 0, 1, 1])
    target.do("a = area(20); fill(a, 0, [0] * 10 + [3] * 10)")
    for name, source in (("image", image), ("process", f"pid:{target.pid}")):
        invoke("fingerprint", source, "-o", tmp_path / f"{name}.parquet")
    report = json.loads(invoke("scan", "--json", tmp_path / "image.parquet")[0])
    assert [(source["pages"], source["zeros"]) for source in report["sources"]] == [(2, 2)]
    report = json.loads(invoke("scan", "--json", tmp_path / "process.parquet")[0])
    assert report["sources"][0]["zeros"] == 0
    assert report["ledger"]["zero"] >= 9


def test_snapshots(tmp_path):
    """A page that becomes one of zeros is broken off, and set apart."""
    contents = ([1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0])
    moments = [write(tmp_path / str(place), numbers) for place, numbers in enumerate(contents)]
    _, ledger, zeros = scan(open_snapshots(moments))
    assert (ledger.pages, ledger.freed, zeros) == (2, 1, [2])


def test_the_report_says_so(tmp_path):
    path = write(tmp_path / "image", [0] * 256 + [1, 1])
    out = invoke("scan", path)[0]
    assert out.startswith("KSM would free 4.0 KiB of 8.0 KiB (50.0 %)")
    assert re.search(r"\nZeros, perhaps not there: not counted +256 +1\.0\n", out)
    assert "- 1.0 MiB of zeros may not be there in the running machine: " in out
    assert invoke("scan", "--zeros", "count", path)[0].startswith("KSM would free 1.0 MiB of 1.0 MiB (99.")
    out = invoke("scan", write(tmp_path / "zeros", [0] * 5))[0]
    assert out.startswith("There are no pages that KSM could merge.\nZeros, perhaps not there: 5 pages, which are not counted.\n")

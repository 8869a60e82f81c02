# SPDX-License-Identifier: GPL-2.0-only
"""The same bytes, dense and with holes: what a hole stands for, and that the report says how many there are."""

import json
import re
import subprocess

import pytest
from click.testing import CliRunner
from cores import PAGE, READ, WRITE, note, page, write_core
from outcomes import counts

from ksm.cli.group import main
from ksm.sources import open_file

PAGES = [page(number % 7 + 1) for number in range(300)] + [bytes(PAGE)] * 200 + [page(10_000 + number) for number in range(50)]


def sparse_copy(path):
    """A copy in which all pages of zeros are holes."""
    copy = path.with_name("sparse")
    subprocess.run(["cp", "--sparse=always", path, copy], check=True)
    if copy.stat().st_blocks * 512 > path.stat().st_blocks * 512 - 100 * PAGE:
        pytest.skip("this file system has no holes")
    return copy


def dense(path):
    path.write_bytes(b"".join(PAGES))
    return path


def holes_of(path, holes=None):
    source = open_file(str(path), holes)
    source.close()
    return source.holes, source.zero_holes


@pytest.mark.parametrize("exact", [False, True], ids=["fingerprints", "bytes"])
def test_a_sparse_image_is_the_same_image(tmp_path, exact):
    image = dense(tmp_path / "dense")
    copy = sparse_copy(image)
    assert counts(copy, exact=exact) == counts(image, exact=exact) == counts(copy, exact=exact, holes="zeros")
    assert holes_of(image) == (0, 0)
    assert holes_of(copy) == (0, 200)


@pytest.mark.parametrize("exact", [False, True], ids=["fingerprints", "bytes"])
def test_holes_of_an_image_are_absent_if_the_user_says_so(tmp_path, exact):
    image = dense(tmp_path / "dense")
    copy = sparse_copy(image)
    there, absent = counts(image, exact=exact, holes="absent"), counts(copy, exact=exact, holes="absent")
    assert there == counts(image, exact=exact)  # there is none
    assert [there[name] - absent[name] for name in ("pages", "zero", "within", "pages_unshared")] == [200, 199, 0, 0]
    assert holes_of(copy, "absent") == (200, 0)


@pytest.mark.parametrize("odd", [0, 0x8C8], ids=["aligned", "odd"])
@pytest.mark.parametrize("exact", [False, True], ids=["fingerprints", "bytes"])
@pytest.mark.parametrize("owner", ["QEMU", "GDB"])
def test_holes_of_cores_of_machines_and_of_gdb_are_zeros(tmp_path, owner, exact, odd):
    path = write_core(tmp_path / "core", [(0x100000, b"".join(PAGES), READ | WRITE)], note(owner, 0, b"abcd"), odd=odd)
    copy = sparse_copy(path)
    assert counts(copy, exact=exact) == counts(path, exact=exact)
    absent, zeros = holes_of(copy)
    assert (absent, 198 <= zeros <= 200) == (0, True)
    assert counts(copy, exact=exact, holes="absent")["pages"] == len(PAGES) - zeros


@pytest.mark.parametrize("exact", [False, True], ids=["fingerprints", "bytes"])
def test_the_kernel_leaves_holes_for_what_was_never_touched(tmp_path, exact):
    path = write_core(tmp_path / "core", [(0x100000, b"".join(PAGES), READ | WRITE)])
    copy = sparse_copy(path)
    assert counts(copy, exact=exact, holes="zeros") == counts(path, exact=exact)
    assert counts(copy, exact=exact)["pages"] == len(PAGES) - 200
    assert holes_of(copy) == (200, 0)


def split_row(line):
    return re.split(r"(?<=\w)  +", line)


def test_the_report_counts_holes(tmp_path, target):
    image = dense(tmp_path / "dense")
    copy = sparse_copy(image)

    def lines(*arguments, zeros="count"):
        run = CliRunner().invoke(main, ["scan", "--zeros", zeros, *map(str, arguments)])
        assert run.exit_code == 0, run.output
        return [line for line in run.output.splitlines() if line.lstrip().startswith(("Holes", "Zeros, ", "of these"))]

    zeros, absent = "Holes of files: zero pages among the above", "Holes, and left out of dumps: not counted"
    assert [re.split("  +", line) for line in lines(image)] == [[zeros, "0", "0.0", "0.0"]]
    assert [re.split("  +", line) for line in lines(copy)] == [[zeros, "200", "0.8", f"{20000 / len(PAGES):.1f}"]]
    # What is not counted has no share of what is.
    assert [re.split("  +", line) for line in lines("--holes", "absent", copy)] == [[absent, "200", "0.8"]]
    apart, inside = "Zeros, perhaps not there: not counted", "  of these in holes of files"
    pages = [str(PAGES.count(bytes(PAGE))), f"{PAGES.count(bytes(PAGE)) * PAGE / (1 << 20):.1f}"]
    assert [split_row(line) for line in lines(image, zeros="apart")] == [[apart, *pages]]
    assert [split_row(line) for line in lines(copy, zeros="apart")] == [[apart, *pages], [inside, "200", "0.8"]]
    assert lines("--passes", "1", f"pid:{target.pid}") == []
    run = CliRunner().invoke(main, ["scan", "--json", str(image), str(copy)])
    assert [(source["holes"], source["zero_holes"]) for source in json.loads(run.output)["sources"]] == [(0, 0), (0, 200)]


def test_scanning_gives_holes_no_memory(tmp_path):
    """A file system may give memory to a hole that is looked at through a mapping. So it is not."""
    copy = sparse_copy(dense(tmp_path / "dense"))
    before = copy.stat().st_blocks
    for exact in (False, True):
        counts(copy, exact=exact)
    assert copy.stat().st_blocks == before


def test_holes_that_are_longer_than_memory(tmp_path):
    """A hole takes as much of the machine as pages do, and a line says when that is too much."""
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(1 << 42)
        if path.stat().st_blocks:
            pytest.skip("this file system has no holes")
    run = CliRunner().invoke(main, ["scan", str(path)])
    assert (run.exit_code, run.output.count("\n")) == (1, 1)
    assert "not enough memory: the scan needs 160.0 GiB" in run.output
    run = CliRunner().invoke(main, ["scan", "--holes", "absent", str(path)])
    assert run.exit_code == 0

# SPDX-License-Identifier: GPL-2.0-only
"""Which files a fleet has, and what is refused: by its name, in one line."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from made import Machine, write_file
from pyarrow import parquet

import ksm.fleet
from ksm.cli.group import main
from ksm.fleet.files import FleetError, open_fleet
from ksm.rows.format import ENTRY

pytestmark = pytest.mark.once


def machine(name, *contents, host="h"):
    return Machine(name, host, host, 0, list(contents))


@pytest.fixture
def two(tmp_path):
    """Two files: h1 has a and b, h2 has c."""
    folder = tmp_path / "files"
    folder.mkdir()
    write_file(folder / "one.parquet", "h1", [machine("a", 0, 1, 1, 2), machine("b", 2, 3)])
    write_file(folder / "two.parquet", "h2", [machine("c", 3, 4, 0)])
    return folder


def changed(path, **entries):
    """The file with other metadata."""
    table = parquet.read_table(path)
    head = json.loads(parquet.read_metadata(path).metadata[ENTRY]) | entries
    parquet.write_table(table.replace_schema_metadata({ENTRY: json.dumps(head).encode()}), path)


def refused(*texts, **options):
    with pytest.raises(FleetError) as caught:
        open_fleet([str(text) for text in texts], **options)
    said = str(caught.value)
    assert "\n" not in said
    return said


def names(fleet):
    return [member.name for member in fleet.members]


def test_a_file_a_folder_and_a_pattern(two, tmp_path, monkeypatch):
    (two / "notes.txt").write_text("no fingerprints")
    every = ["h1:a", "h1:b", "h2:c"]
    assert names(open_fleet([str(two)])) == every
    assert names(open_fleet([str(two / "*.parquet")])) == every
    assert names(open_fleet([str(two / "two.parquet"), str(two)])) == ["h2:c", "h1:a", "h1:b"]  # each file once
    assert names(open_fleet([f"file://{two}/one.parquet"])) == every[:2]
    assert names(open_fleet([f"file://{two}"])) == every
    assert names(open_fleet([f"file://{two}/t*.parquet"])) == every[2:]
    odd = tmp_path / "[odd]*.parquet"
    write_file(odd, "h3", [machine("d", 5)])
    assert names(open_fleet([str(odd)])) == ["h3:d"]


def test_an_object_store(two):
    """Heads are read from the ends of files, and the rows from a copy."""
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for name in ("one.parquet", "two.parquet"):
        store.pipe_file(f"/fleet/{name}", (two / name).read_bytes())
    far, near = ksm.fleet.report(["memory://fleet"]).json(), ksm.fleet.report([str(two)]).json()
    assert [name.rpartition("/")[2] for name in far.pop("files")] == [name.rpartition("/")[2] for name in near.pop("files")]
    assert far == near
    store.pipe_file("/fleet/bad.parquet", b"PAR1 nothing PAR1")
    assert refused("memory://fleet").startswith("memory://")
    assert "no such file" in refused("memory://fleet/none.parquet")
    assert refused("nostore://x").startswith("nostore://x: ")


def test_files_that_are_none(tmp_path, two):
    assert refused(tmp_path / "none") == f"{tmp_path}/none: No such file or directory"
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty") == f"{tmp_path}/empty: no file in it whose name ends with .parquet"
    assert refused(tmp_path / "x*") == f"{tmp_path}/x*: no file of this name"
    (tmp_path / "text").write_text("text")
    assert refused(tmp_path / "text") == f"{tmp_path}/text: truncated: a Parquet file ends with its footer"
    write_file(tmp_path / "nobody.parquet", "h", [])
    assert refused(tmp_path / "nobody.parquet") == f"{tmp_path}/nobody.parquet: a fingerprint file without sources"
    assert refused() == "no file"


def test_what_cannot_be_compared_is_refused_with_both_names(two, tmp_path):
    one = two / "one.parquet"
    for name, key in (("k1", "00112233"), ("k2", "44556677")):
        write_file(tmp_path / name, "h9", [machine(name, 1)], key=key)
    assert refused(one, tmp_path / "k1") == (
        f"{tmp_path}/k1 has fingerprints of BLAKE3-128 with key 00112233, and {one} of XXH3-128: they cannot be compared"
    )
    said = refused(tmp_path / "k1", tmp_path / "k2")
    assert f"{tmp_path}/k2 has fingerprints of BLAKE3-128 with key 44556677, and {tmp_path}/k1 of BLAKE3-128 with key 00112233" in said
    assert names(open_fleet([str(tmp_path / "k1")])) == ["h9:k1"]
    for entries, words in (
        ({"page_size": 16384}, "of pages of 16384 bytes, and this ksm has pages of 4096"),
        ({"format": "ksm fingerprints 2"}, "of the format 'ksm fingerprints 2', and this ksm reads 'ksm fingerprints 1'"),
        ({"hash": "MD5"}, "of the hash 'MD5', and this ksm knows XXH3-128, and BLAKE3-128 with a key"),
    ):
        write_file(tmp_path / "other", "h8", [machine("x", 1)])
        changed(tmp_path / "other", **entries)
        said = f"{tmp_path}/other: {words}: it cannot be compared with {one}"
        assert refused(one, tmp_path / "other") == refused(tmp_path / "other", one) == said
        assert refused(tmp_path / "other") == f"{tmp_path}/other: {words}"


def test_a_source_has_one_moment(two, tmp_path):
    write_file(tmp_path / "later.parquet", "h1", [machine("z", 1), machine("b", 7)])
    assert refused(two, tmp_path / "later.parquet") == (
        f"{two}/one.parquet and {tmp_path}/later.parquet both have h1:b: of a source, a fleet has one moment"
    )


def test_placement(two, tmp_path):
    path = tmp_path / "where.csv"

    def placed(text):
        path.write_text(text)
        return [member.host for member in open_fleet([str(two)], placement=str(path)).members]

    assert placed("host,source\nx,h1:a\ny,c\n") == ["x", "h1", "y"]
    assert placed("source,host\nh1:*,x\n") == ["x", "x", "h2"]
    for text, words in (
        ("source\na\n", "no column 'host': its first line has to name source, host"),
        ("source,host\na,x\nnone,y\n", "no source 'none' in the fleet"),
        ("source,host\na,x\na,y\n", "h1:a is on x already"),
        ("source,host\na,\n", "a has no host"),
        ("source,host\na,x,y\n", "3 values, and 2 columns"),
        ('source,host\n"a,x\n', "unexpected end of data"),
    ):
        path.write_text(text)
        said = refused(two, placement=str(path))
        assert said.startswith(f"{path}:")
        assert said.endswith(words)
    path.write_bytes(b"source,host\n\xff,x\n")
    assert refused(two, placement=str(path)) == f"{path}: it is not UTF-8: byte 12"
    assert refused(two, placement=str(tmp_path / "none")) == f"{tmp_path}/none: No such file or directory"


def test_whose_a_source_is(two):
    fleet = open_fleet([str(two)], tenants={"blue": ["a", "h2:*"], "red": ["h1:b"]})
    assert [member.tenant for member in fleet.members] == ["blue", "red", "blue"]
    assert refused(two, tenants={"blue": ["a"], "red": ["h1:*"]}) == "h1:a is blue's, and cannot be red's, too"
    assert refused(two, tenants={"blue": ["none"]}) == "tenant blue: no source 'none' in the fleet"
    assert refused(two, tenants={"no tenant": ["a"]}) == "'no tenant' is the name of all other sources"


def test_damage_that_is_met_later_has_the_name_of_its_file(two, tmp_path):
    """The footer is sound, and a page behind it is not."""
    path = two / "two.parquet"
    data = bytearray(path.read_bytes())
    column = parquet.read_metadata(path).row_group(0).column(2)
    middle = column.data_page_offset + column.total_compressed_size - 20
    data[middle] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(OSError, match=r"two\.parquet: damaged") as caught:
        ksm.fleet.report([str(two)], temp=str(tmp_path))
    assert caught.value.errno == errno.EIO
    assert [each for each in os.listdir(tmp_path) if each.startswith("ksm-fleet")] == []


def test_arguments_that_make_no_sense(two):
    for options, words in (
        ({"engine": "spark"}, "engine is one of duckdb, dask"),
        ({"engine": "dask"}, "needs the address of a scheduler"),
        ({"scheduler": "tcp://x:1"}, "only the engine dask has a scheduler"),
        ({"memory": "1M"}, "memory is at least 256M"),
        ({"memory": "much"}, "memory is a number of bytes"),
        ({"sample": 0}, "sample is 1 to"),
        ({"threads": 0}, "threads are 1 to 256"),
        ({"alike": 2}, "alike is 0 to 1"),
    ):
        with pytest.raises(ValueError, match=words):
            ksm.fleet.report([str(two)], **options)
    with pytest.raises(TypeError, match="sequences of str"):
        ksm.fleet.report(str(two))
    with pytest.raises(TypeError, match="sequences of str"):
        ksm.fleet.report([str(two)], tenants={"blue": "vm1"})
    with pytest.raises(ValueError, match="least is 1 or more"):
        ksm.fleet.matrix([str(two)], least=0)
    with pytest.raises(OSError, match="No such file"):
        ksm.fleet.report([str(two)], temp=str(two / "none"))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["report"], 2, "Missing argument"),
        (["report", "none"], 1, "none: No such file or directory"),
        (["report", "FILES", "--engine", "dask"], 2, "--engine dask needs --scheduler ADDRESS"),
        (["report", "FILES", "--scheduler", "tcp://x:1"], 2, "--scheduler is for --engine dask"),
        (["report", "FILES", "--memory", "1M"], 2, "1M: at least 256M"),
        (["report", "FILES", "--memory", "many"], 2, "many: it is a number of bytes"),
        (["report", "FILES", "--sample", "8"], 2, "8: it is written 1/N"),
        (["report", "FILES", "--sample", "1/0"], 2, "1/0: it is written 1/N"),
        (["report", "FILES", "--temp", "none"], 2, "none: no folder that you may write to"),
        (["report", "FILES", "--tenant", "blue"], 2, "blue: it is written NAME=SOURCE,..."),
        (["report", "FILES", "--tenant", "blue=none"], 1, "tenant blue: no source 'none' in the fleet"),
        (["report", "FILES", "--placement", "none"], 1, "none: No such file or directory"),
        (["matrix", "FILES", "--form", "parquet"], 2, "--form parquet needs -o FILE"),
        (["matrix", "FILES", "-o", "none/x.csv"], 1, "none/x.csv cannot be written: No such file or directory"),
        (["matrix", "FILES", "--least", "0"], 2, "0 is not in the range"),
        (["other"], 2, "No such command 'other'"),
    ],
)
def test_one_line_says_what_is_wrong(two, words, code, said, monkeypatch):
    monkeypatch.chdir(two.parent)
    done = CliRunner().invoke(main, ["fleet", *(str(two) if word == "FILES" else word for word in words)])
    assert done.exit_code == code
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


SLOW_READING = """
slow = steps.batches
def batches(*arguments):
    for batch in slow(*arguments):
        print("begun", flush=True)
        time.sleep(0.2)
        yield batch
steps.batches = batches
"""
SLOW_QUERY = """
def progress(what, done, total):
    if what == "comparing":
        print("begun", flush=True)
steps.PREPARE.append("SELECT count(*) FROM range(100000) AS a, range(100000) AS b WHERE a.range + b.range = 7")
from contextlib import nullcontext
from ksm.cli import options
options.progress_bar = lambda: nullcontext(progress)
"""


def heed_interrupts():
    """A shell starts background commands with SIGINT ignored, and their children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("slow", [SLOW_READING, SLOW_QUERY], ids=["reading", "comparing"])
def test_ctrl_c_leaves_nothing(tmp_path, slow):
    """Ctrl-C while rows are read, and while they are compared: exit code 130, and no temporary file."""
    (tmp_path / "temp").mkdir()
    write_file(tmp_path / "one.parquet", "h", [machine("a", *range(100_000))])
    command = "from ksm.cli.start import main; sys.argv = ['ksm', 'fleet', 'report', *sys.argv[1:]]; main()"
    program = f"import sys, time\nfrom ksm.fleet.engines import steps\n{slow}\n{command}"
    words = [sys.executable, "-c", program, str(tmp_path), "--temp", str(tmp_path / "temp")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts) as child:
        try:
            assert child.stdout.readline() == "begun\n"
            time.sleep(0.05)
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=60)
        finally:
            child.kill()
    assert (child.returncode, said) == (130, "ksm: interrupted\n")
    assert os.listdir(tmp_path / "temp") == []


def test_without_duckdb(two, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ImportError, match=r"pip install 'ksm\[fleet\]'"):
        ksm.fleet.report([str(two)])
    done = CliRunner().invoke(main, ["fleet", "matrix", str(two)])
    assert (done.exit_code, done.stderr) == (1, "ksm: a fleet needs duckdb and pyarrow: pip install 'ksm[fleet]'\n")

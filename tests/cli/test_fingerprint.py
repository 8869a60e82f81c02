# SPDX-License-Identifier: GPL-2.0-only
"""The commands `ksm fingerprint` and `ksm scan` of its files, as a user calls them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import invoke, refused, write_image

pytest.importorskip("pyarrow")
from pyarrow import parquet

import ksm
from ksm.rows.read import RowsFile

HOME = Path(ksm.__file__).resolve().parents[1]


def begin(*arguments):
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "ksm", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(HOME)}, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


@pytest.fixture
def images(tmp_path):
    return write_image(tmp_path / "first", [0, 0, 0, 1, 1, 1, 2, 2, 2, 7, 8, 9]), write_image(tmp_path / "second", [0, 7, 8, 10])


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_a_file_and_its_scan(tmp_path, images):
    out, err = invoke("fingerprint", *images, "-o", tmp_path / "f.parquet")
    assert err == ""
    assert re.fullmatch(rf"{tmp_path}/f\.parquet: 16 pages of 2 sources in \d+\.\d KiB\n", out)
    both = (images, [tmp_path / "f.parquet"])
    from_images, from_file = (json.loads(invoke("scan", "--zeros", "count", "--json", *sources)[0]) for sources in both)
    assert [source.pop("name") for source in from_file["sources"]] == [f"{tmp_path}/f.parquet: {image}" for image in images]
    for source in from_images["sources"]:
        del source["name"]
    assert from_file == from_images
    assert invoke("scan", tmp_path / "f.parquet")[0].splitlines()[:11] == invoke("scan", *images)[0].splitlines()[:11]


def test_the_host_that_a_file_names(tmp_path, images):
    for arguments, host in (([], os.uname().nodename), (["--host", "rack 7, unit 3"], "rack 7, unit 3")):
        invoke("fingerprint", *images, "-o", tmp_path / "f.parquet", *arguments)
        with open(tmp_path / "f.parquet", "rb") as file:
            assert RowsFile(file.fileno(), os.path.getsize(file.name)).head.host == host
    invoke("fingerprint", *images, "-o", tmp_path / "s-%N", "--host", "one", "--every", "0s", "--count", "2")
    with open(tmp_path / "s-1", "rb") as file:
        assert RowsFile(file.fileno(), os.path.getsize(file.name)).head.host == "one"


def test_a_process(tmp_path, sleeper):
    out, _ = invoke("fingerprint", f"pid:{sleeper.pid}", "-o", tmp_path / "f")
    assert re.match(rf"{tmp_path}/f: [\d,]+ pages in ", out)
    [name] = set(parquet.read_table(tmp_path / "f")["source"].to_pylist())
    assert name.startswith(f"pid {sleeper.pid} (")
    report = json.loads(invoke("scan", "--zeros", "count", "--json", tmp_path / "f")[0])
    assert report["sources"][0]["kind"] == "process"
    assert report["pages"] > 300
    assert any("a still image overstates" in note for note in report["notes"])


def test_which_mappings_are_in_the_file(tmp_path, sleeper):
    """What is left out is said: the file does not tell."""
    whole, _ = invoke("fingerprint", f"pid:{sleeper.pid}", "-o", tmp_path / "whole")
    assert "--as" not in whole
    part, _ = invoke("fingerprint", "--as", "is", f"pid:{sleeper.pid}", "-o", tmp_path / "part")
    assert ": 0 pages in " in part
    assert re.search(r"^- only memory that is mergeable now counts \(--as is\): .* left out", part, re.MULTILINE)
    advised, _ = invoke("fingerprint", "--advised", f"pid:{sleeper.pid}", "-o", tmp_path / "advised")
    assert "- only memory that is mergeable already counts (--as advised)\n" in advised
    assert "--as is is something else" in refused("fingerprint", "--advised", "--as", "is", "-o", tmp_path / "none", code=2)


def test_a_file_is_replaced_whole(tmp_path, images):
    path = tmp_path / "f"
    path.write_text("old")
    assert "No such file" in refused("fingerprint", images[0], tmp_path / "missing", "-o", path)
    assert path.read_text() == "old"
    invoke("fingerprint", images[0], "-o", path)
    assert path.read_bytes()[:4] == b"PAR1"
    wrong = {f"{tmp_path}/no/f": "No such file or directory", str(tmp_path): "Is a directory", "/dev/null": "not a regular file"}
    for place, reason in wrong.items():
        assert refused("fingerprint", images[0], "-o", place) == f"ksm: {place} cannot be written: {reason}"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["f", "first", "second"]


@pytest.mark.parametrize(("arguments", "text"), [
    ([], "Missing option '-o'"),
    (["-o", "-"], "-o -: a fingerprint file is written whole or not at all, and so not to standard output"),
    (["-o", "f", "--every", "10m"], "--every and --count go together"),
    (["-o", "f", "--count", "3"], "--every and --count go together"),
    (["-o", "f", "--every", "10m", "--count", "3"], "-o f: with --every, its name needs %N"),
    (["-o", "f%N", "--every", "ten", "--count", "3"], "ten: it is written as 30s, 10m, 2h or 1d"),
    (["-o", "f%N", "--every", "-1s", "--count", "3"], "-1s: it is written as"),
    (["-o", "f%N", "--every", "999d", "--count", "3"], "999d: at most 31d"),
    (["-o", "f%N", "--every", "1s", "--count", "0"], "0 is not in the range"),
    (["-o", "first", "first"], "-o first: that is a source"),
    (["-o", "vm-%N", "--every", "1s", "--count", "11", "vm-07"], "-o vm-07: that is a source"),
    (["-o", "folder", "--every", "1s", "--count", "2", "folder/1.parquet"], "-o folder/1.parquet: that is a source"),
    (["-o", "folder/1.parquet", "folder"], "-o folder/1.parquet: that is a source"),
    (["-o", "", "first"], "-o: the name of a file is needed"),
    (["-o", "f", "--host", ""], "a host's name is needed"),
    (["-o", "f", "--host", "a\nb"], "'a?b': a host's name is needed"),
    (["-o", "f", "--host", "x" * 256], "a host's name is needed"),
    (["-o", "f", "--threads", "257"], "257 is not in the range"),
    (["-o", "f", "--threads", "0"], "0 is not in the range"),
])  # fmt: skip
def test_wrong_usage(images, tmp_path, monkeypatch, arguments, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for other in ("vm-07", "folder/1.parquet"):
        os.link("first", other)
    line = refused("fingerprint", *arguments, code=2)
    assert line.startswith("ksm fingerprint: ")
    assert text in line
    assert all((tmp_path / name).read_bytes() == Path(images[0]).read_bytes() for name in ("first", "vm-07", "folder/1.parquet"))


@pytest.mark.parametrize(("arguments", "text"), [
    (["--as-passes", "first"], "--as-passes needs two snapshots at least"),
    (["--as-passes"], "--as-passes needs two snapshots at least"),
    (["--as-passes", "--passes", "1", "first", "first"], "--passes 1: with --as-passes, there is one for each snapshot at least"),
])  # fmt: skip
def test_wrong_usage_of_snapshots(images, tmp_path, monkeypatch, arguments, text):
    monkeypatch.chdir(tmp_path)
    assert text in refused("scan", *arguments, code=2)


def test_snapshots_of_files(tmp_path, images):
    """Every so often, the same files; a folder gets the numbers as names."""
    begun = time.monotonic()
    out, _ = invoke("fingerprint", images[0], "-o", tmp_path / "s-%N.parquet", "--every", "0.1", "--count", 12)
    assert time.monotonic() - begun >= 1.1
    names = [f"s-{number:02}.parquet" for number in range(12)]
    assert [Path(line.partition(":")[0]).name for line in out.splitlines()] == names
    assert sorted(path.name for path in tmp_path.glob("s-*")) == names
    (tmp_path / "folder").mkdir()
    invoke("fingerprint", *images, "-o", tmp_path / "folder", "--every", "0s", "--count", 3)
    files = sorted((tmp_path / "folder").iterdir())
    assert [file.name for file in files] == ["0.parquet", "1.parquet", "2.parquet"]
    report = json.loads(invoke("scan", "--zeros", "count", "--json", "--as-passes", *files)[0])
    assert [source["name"] for source in report["sources"]] == list(images)
    assert (report["savings"]["pages"], report["passes"], report["snapshots"]) == (9, 3, 3)
    out, _ = invoke("scan", "--zeros", "count", "--as-passes", *files)
    assert "3 snapshots, a pass over each" in out
    assert "a still image overstates" not in out


def test_snapshots_of_a_process_that_ends(tmp_path, sleeper):
    running = begin("fingerprint", f"pid:{sleeper.pid}", "-o", tmp_path / "s%N", "--every", "0.5s", "--count", 100_000)
    while not (tmp_path / "s00000").exists():
        assert running.poll() is None
        time.sleep(0.02)
    sleeper.kill()
    sleeper.wait()
    out, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (0, "")
    made = len(list(tmp_path.iterdir()))
    assert re.search(rf"^- pid {sleeper.pid} .*: {made} of 100000 snapshots were made$", out, re.MULTILINE)
    assert out.count("\n") == made + 1
    assert "no such process" in refused("fingerprint", f"pid:{sleeper.pid}", "-o", tmp_path / "t%N", "--every", "1s", "--count", 2)


def test_ctrl_c_between_snapshots(tmp_path, images):
    running = begin("fingerprint", images[0], "-o", tmp_path / "s%N", "--every", "1h", "--count", 5)
    while not (tmp_path / "s0").exists():
        assert running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (130, "ksm: interrupted\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "s0", "second"]


def test_ctrl_c_while_it_is_written(tmp_path):
    """Nothing is left, and an old file stays."""
    (tmp_path / "f").write_text("old")
    with (tmp_path / "large").open("wb") as file:
        file.write(os.urandom(4 << 20) * 100)
    running = begin("fingerprint", tmp_path / "large", "--threads", 1, "-o", tmp_path / "f")
    while running.poll() is None and not list(tmp_path.glob(".f.*")):
        time.sleep(0.001)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    if running.returncode:  # else it was faster
        assert (running.returncode, err) == (130, "ksm: interrupted\n")
        assert (tmp_path / "f").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "large"]


def test_a_scan_that_cannot_be(tmp_path, images):
    invoke("fingerprint", images[0], "-o", tmp_path / "f")
    assert refused("scan", "--exact", tmp_path / "f").endswith(": there are no bytes of pages in it, and --exact needs them")
    (tmp_path / "cut").write_bytes((tmp_path / "f").read_bytes()[:-20])
    assert refused("scan", tmp_path / "cut") == f"ksm: {tmp_path}/cut: truncated: a Parquet file ends with its footer"
    with subprocess.Popen(["cat", tmp_path / "f"], stdout=subprocess.PIPE) as cat:
        assert "is read from its end: unpack it into a file first" in refused("scan", f"/proc/self/fd/{cat.stdout.fileno()}")


def test_keys(tmp_path, images):
    (tmp_path / "key").write_text("0a" * 32)
    (tmp_path / "other").write_bytes(bytes(32))
    (tmp_path / "none").write_text("secret")
    invoke("fingerprint", images[0], "-o", tmp_path / "f", "--key", tmp_path / "key")
    head = json.loads(parquet.read_metadata(tmp_path / "f").metadata[b"ksm"])
    assert head["hash"] == "BLAKE3-128"
    assert re.fullmatch(r"[0-9a-f]{8}", head["key"])
    report = json.loads(invoke("scan", "--zeros", "count", "--json", "--key", tmp_path / "key", tmp_path / "f", images[1])[0])
    assert report["savings"]["pages"] == 9
    assert json.loads(invoke("scan", "--zeros", "count", "--json", tmp_path / "f")[0])["savings"]["pages"] == 6
    with_key = f"{tmp_path}/f: {images[0]} has fingerprints of BLAKE3-128 with key {head['key']}"
    assert refused("scan", tmp_path / "f", images[1]) == f"ksm: {with_key}, {images[1]} of XXH3-128: these cannot be compared"
    line = refused("scan", tmp_path / "f", "--key", tmp_path / "other")
    assert re.fullmatch(rf"ksm: {re.escape(with_key)}, --key of BLAKE3-128 with key [0-9a-f]{{8}}: these cannot be compared", line)
    for command in (("scan", images[0]), ("fingerprint", images[0], "-o", tmp_path / "g")):
        assert refused(*command, "--key", tmp_path / "missing") == f"ksm: {tmp_path}/missing: No such file or directory"
        assert "secret" not in refused(*command, "--key", tmp_path / "none")
    assert "--exact makes none" in refused("scan", "--exact", "--key", tmp_path / "key", images[0], code=2)


def test_without_pyarrow(tmp_path, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    text = "ksm: fingerprint files need pyarrow: pip install ksm[fleet]"
    assert refused("fingerprint", images[0], "-o", tmp_path / "f") == text
    assert not (tmp_path / "f").exists()

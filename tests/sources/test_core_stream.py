# SPDX-License-Identifier: GPL-2.0-only
"""ELF cores that are read from front to back: compressed ones, and those that come through a pipe."""

import gzip
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from cores import PAGE, PT_LOAD, PT_NOTE, READ, WRITE, auxv_note, files_note, note, page, write_core
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from outcomes import counts, line_of, refusal

from ksm.sources import open_file

AGAIN = "has to be read more than once, and comes through a pipe: write it to a file"


def compressed(path, level=1):
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes(), level))
    return packed


@contextmanager
def piped(path):
    """The path of a pipe that cat fills."""
    with subprocess.Popen(["cat", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as feeder:
        yield f"/dev/fd/{feeder.stdout.fileno()}"
        feeder.kill()


def pages_of(path):
    """The pages by their addresses, and the notes."""
    source = open_file(str(path))
    found = {}

    def sink(runs, view):
        at = 0
        for start, end in runs:
            for address in range(start, end, PAGE):
                found[address] = bytes(view[at : at + PAGE])
                at += PAGE

    buffer = memoryview(bytearray(256 << 10))
    for piece in source.pieces():
        piece.read(buffer, sink)
    notes = source.notes
    source.close()
    return found, notes


SEGMENTS = [
    (0x10000, page(1), READ), (0x20000, page(2) * 3 + bytes(PAGE), READ | WRITE), (0x30000, page(3), READ | WRITE),
    (0x40000, page(4), READ), (0x50000, page(5), READ), (0x60000, page(6) + page(7) + page(8), READ),
    (0x7FFFFFFFE000, page(2) + page(10), READ | WRITE), (0xFFFFFFFFFF600000, page(9), READ),
]  # fmt: skip
NOTES = files_note(
    (0x10000, 0x11000, "/bin/a"), (0x20000, 0x21000, "/bin/a"), (0x30000, 0x31000, "/dev/zero (deleted)"), (0x61000, 0x62000, "/b")
) + auxv_note(0x50000)


@pytest.mark.parametrize("exact", [False, True], ids=["fingerprints", "bytes"])
@pytest.mark.parametrize("odd", [0, 0x8C8], ids=["aligned", "odd"])
def test_the_same_as_a_file(tmp_path, exact, odd):
    path = write_core(tmp_path / "core", SEGMENTS, NOTES, odd=odd)
    found, notes = pages_of(path)
    assert len(found) == 9
    for open_it in (lambda: piped(path), lambda: piped(compressed(path))):
        with open_it() as stream:
            streamed = pages_of(stream)
        assert streamed[0] == found
        assert streamed[1] == [*notes, "on its way, what was never touched has become zeros"]
        with open_it() as stream:
            assert counts(stream, exact=exact) == counts(path, exact=exact)
    assert counts(compressed(path), exact=exact) == counts(path, exact=exact)


@pytest.mark.parametrize("owner", ["QEMU", "VMCOREINFO"])
def test_a_machine(tmp_path, owner):
    """Memory without bytes in the file is absent, and what is there twice counts once."""
    segments = [(0x100000, page(1) + page(2), READ), (0x101000, page(2) + page(3), READ), (0x50000, page(4), READ, 11 * PAGE)]
    path = write_core(tmp_path / "core", segments, note(owner, 0, b"abcd"))
    found, notes = pages_of(path)
    assert sorted(found) == [0x50000, 0x100000, 0x101000, 0x102000]
    assert notes == ["pages that the core holds twice and that count once: 1", "left out 10 pages that are not in the dump"]
    with piped(path) as stream:
        assert pages_of(stream) == (found, notes)


@pytest.mark.parametrize(("bits", "xnum"), [(32, False), (64, True)])
def test_other_headers(tmp_path, bits, xnum):
    path = write_core(tmp_path / "core", [(0x10000, page(1) + page(2), READ | WRITE)], bits=bits, xnum=xnum)
    assert pages_of(compressed(path))[0] == pages_of(path)[0] != {}
    with piped(path) as stream:
        if xnum:  # the number of segments lies behind the segments
            assert refusal(stream) == AGAIN
        else:
            assert pages_of(stream)[0] == pages_of(path)[0]


def notes_last(path):
    """A core whose notes lie behind its memory, and whose table of segments lies at the very end."""
    head = 64
    memory, notes = page(1) * 2 + page(2), note("QEMU", 0, b"abcd")
    table_at = head + len(memory) + len(notes)
    elf = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<2HI3QI6H", 4, 62, 1, 0, table_at, 0, 0, 64, 56, 2, 64, 0, 0)
    table = struct.pack("<2I6Q", PT_LOAD, READ, head, 0x10000, 0x20000, len(memory), len(memory), PAGE)
    table += struct.pack("<2I6Q", PT_NOTE, 0, head + len(memory), 0, 0, len(notes), 0, 4)
    path.write_bytes(elf + memory + notes + table)
    return path


def test_notes_behind_the_memory(tmp_path):
    """What the memory is has to be known before it is read: so the core is read twice, if that is possible."""
    path = notes_last(tmp_path / "core")
    assert sorted(pages_of(path)[0]) == [0x20000, 0x21000, 0x22000]
    assert pages_of(compressed(path)) == pages_of(path)
    with piped(path) as stream:
        assert refusal(stream) == AGAIN
    with piped(compressed(path)) as stream:
        assert refusal(stream) == AGAIN


def test_sections_behind_the_memory_must_be_whole(tmp_path):
    """gdb writes the table of sections last. It is not read, but where it is missing the core is cut off."""
    path = write_core(tmp_path / "core", [(0x10000, page(1), READ | WRITE)])
    data = bytearray(path.read_bytes())
    for form, place, value in (("<Q", 40, len(data)), ("<H", 58, 64), ("<H", 60, 5)):
        struct.pack_into(form, data, place, value)
    path.write_bytes(data + bytes(5 * 64))
    assert line_of(compressed(path)) is None
    path.write_bytes(data + bytes(5 * 64 - 1))
    assert refusal(compressed(path)) == f"truncated after {len(data) + 5 * 64 - 1:,} bytes"


def test_elf_files_that_are_not_cores(tmp_path):
    path = write_core(tmp_path / "core", [(0x10000, page(1), READ | WRITE)], kind=3)
    assert refusal(compressed(path)) == "not memory, but a program or a shared library in ELF format"
    assert refusal(compressed(write_core(tmp_path / "none", []))) == "an ELF core without memory"
    (tmp_path / "head").write_bytes(path.read_bytes()[:20])
    assert refusal(compressed(tmp_path / "head")) == "truncated: the file has 20 bytes, and should have 64 at least"


def test_segments_that_share_bytes(tmp_path):
    path = write_core(tmp_path / "core", [(0x10000, page(1) * 2, READ | WRITE), (0x20000, page(2), READ | WRITE)])
    data = bytearray(path.read_bytes())
    [first] = struct.unpack_from("<Q", data, 64 + 56 + 8)
    struct.pack_into("<Q", data, 64 + 2 * 56 + 8, first)
    path.write_bytes(data)
    assert len(pages_of(path)[0]) == 3
    assert refusal(compressed(path)) == "its parts overlap, so that it cannot be read from front to back: unpack it to a file"


def test_more_memory_than_there_is(tmp_path):
    """The size in a header is believed only as far as there is room."""
    path = write_core(tmp_path / "core", [(0x10000, page(1), READ | WRITE)])
    data = bytearray(path.read_bytes())
    for length, text in ((1 << 45, "not enough memory"), ((1 << 64) - PAGE, "not enough memory"), (1 << 20, "truncated after ")):
        struct.pack_into("<Q", data, 64 + 56 + 32, length)
        path.write_bytes(data)
        assert refusal(compressed(path)).startswith(text)


def test_cut_off_anywhere(tmp_path):
    path = write_core(tmp_path / "core", SEGMENTS, NOTES)
    data = path.read_bytes()
    rng = random.Random(0)
    for length in [*rng.sample(range(5, 900), 25), *rng.sample(range(900, len(data)), 25)]:
        path.write_bytes(data[:length])
        assert refusal(compressed(path)).startswith(("truncated", "not a memory image"))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(4, 1000), st.integers(0, 255)), min_size=1, max_size=8))
def test_bytes_changed(tmp_path, changes):
    path = write_core(tmp_path / "core", SEGMENTS, NOTES + note("QEMU", 0, b"abcd"))
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[place] = value
    path.write_bytes(data)
    line_of(compressed(path))


@pytest.mark.skipif(shutil.which("gcore") is None or shutil.which("zstd") is None, reason="no gdb, or no zstd")
def test_gcore_through_zstd(tmp_path, target):
    """What systemd-coredump keeps: a core in zstd. Read from the file, unpacked by others, and as it is."""
    target.do("a = area(400); fill(a, 0, [7] * 100 + [0] * 50 + list(range(1000, 1100)))")
    run = subprocess.run(["gcore", "-o", str(tmp_path / "core"), str(target.pid)], capture_output=True, text=True)
    path = tmp_path / f"core.{target.pid}"
    if not path.exists():
        pytest.skip(f"gcore cannot: {run.stderr}")
    packed = tmp_path / "core.zst"
    subprocess.run(["zstd", "-q", "-1", path, "-o", packed], check=True)
    sparse = tmp_path / "sparse"
    subprocess.run(["zstd", "-q", "-d", "--sparse", packed, "-o", sparse], check=True)
    expected = counts(path)
    assert expected["within"] >= 99
    assert counts(packed) == expected
    assert counts(sparse) == expected
    with piped(path) as stream:
        assert refusal(stream) == AGAIN  # gdb writes the notes last


@pytest.mark.skipif(Path("/proc/sys/kernel/core_pattern").read_text().strip() != "core", reason="cores go elsewhere")
def test_a_core_of_the_kernel(tmp_path):
    """The kernel leaves holes for what was never touched. Whoever compresses the core makes zeros of them, and a note says so."""
    script = Path(__file__).with_name("target.py")

    def prepare():
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        os.chdir(tmp_path)

    lines = "a = area(400); fill(a, 0, [7] * 100 + [0] * 50 + list(range(1000, 1100)))\nos.abort()\n"
    try:
        subprocess.run([sys.executable, script], input=lines, text=True, stdout=subprocess.DEVNULL, preexec_fn=prepare)
    except subprocess.SubprocessError:
        pytest.skip("no cores allowed")
    [path] = tmp_path.glob("core*")
    source = open_file(str(path))
    holes = source.holes
    source.close()
    packed = compressed(path)
    assert counts(packed) == counts(path, holes="zeros")
    assert counts(packed)["pages"] == counts(path)["pages"] + holes
    if path.stat().st_blocks * 512 < path.stat().st_size:
        assert holes >= 150
    with piped(packed) as stream:
        assert counts(stream) == counts(packed)

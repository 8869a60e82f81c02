# SPDX-License-Identifier: GPL-2.0-only
"""ELF cores that are made by the test, by gcore, and by the kernel."""

import mmap
import os
import resource
import shutil
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from cores import PAGE, PT_LOAD, READ, WRITE, auxv_note, files_note, note, page, write_core
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ksm
from ksm.estimate.scan import Scan
from ksm.sources import SourceError, open_file


def content(path):
    """The pages that a core brings into the machine, and the source's notes."""
    source = open_file(str(path))
    try:
        assert source.kind == "core"
        with ksm.Machine("64M", max_memory="1G") as machine:
            source.attach(machine)
            pages = [
                source.process.read(addr + place * PAGE, PAGE)
                for addr, length in source.ranges()
                for place, word in enumerate(source.process.page_table(addr, length))
                if word
            ]
        return pages, " | ".join(source.notes)
    finally:
        source.close()


def refusal(path):
    with pytest.raises(SourceError) as caught:
        open_file(str(path)).close()
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("odd", [0, 0x8C8], ids=["mapped", "copied"])
def test_segments_become_memory(tmp_path, odd):
    data = [page(number) for number in range(1, 9)]
    path = write_core(
        tmp_path / "core", [(0x10000, b"".join(data[:3]), READ | WRITE), (0x40000, b"".join(data[3:]), READ | WRITE)], odd=odd
    )
    source = open_file(str(path))
    assert bool(source.copied) == bool(odd)
    source.close()
    assert content(path) == (data, "")


@pytest.mark.parametrize("bits, xnum", [(32, False), (64, True)])
def test_other_headers(tmp_path, bits, xnum):
    path = write_core(tmp_path / "core", [(0x10000, page(1) + page(2), READ | WRITE)], bits=bits, xnum=xnum)
    assert content(path) == ([page(1), page(2)], "")


def test_memory_without_bytes_is_absent(tmp_path):
    path = write_core(tmp_path / "core", [(0x10000, page(1), READ | WRITE, 100 * PAGE), (0x90000, b"", READ | WRITE, PAGE)])
    assert content(path) == ([page(1)], "")


def test_holes_of_the_file_are_absent(tmp_path):
    path = write_core(tmp_path / "core", [(0x100000, page(1) + bytes(64 * PAGE) + page(2), READ | WRITE)])
    subprocess.run(["fallocate", "--dig-holes", path], check=True, capture_output=True)
    if path.stat().st_blocks * 512 > 32 * PAGE:
        pytest.skip("this file system has no holes")
    assert content(path)[0] == [page(1), page(2)]


def test_parts_of_pages_are_left_out(tmp_path):
    path = write_core(tmp_path / "core", [(0x10800, b"x" * 0x800 + page(1) + b"y" * 100, READ | WRITE)])
    assert content(path) == ([page(1)], "")


def test_what_is_not_anonymous_is_left_out(tmp_path):
    segments = [
        (0x10000, page(1), READ),  # text
        (0x20000, page(2), READ | WRITE),  # data
        (0x30000, page(3), READ | WRITE),  # shared memory
        (0x40000, page(4), READ),  # anonymous, protected
        (0x50000, page(5), READ),  # vdso
        (0x60000, page(6) + page(7) + page(8), READ),  # a file in the middle
        (0xFFFFFFFFFF600000, page(9), READ),  # vsyscall
    ]
    notes = files_note(
        (0x10000, 0x11000, "/bin/a"), (0x20000, 0x21000, "/bin/a"), (0x30000, 0x31000, "/dev/zero (deleted)"), (0x61000, 0x62000, "/b")
    )
    pages, remark = content(write_core(tmp_path / "core", segments, notes + auxv_note(0x50000)))
    assert pages == [page(2), page(4), page(6), page(8)]
    assert remark == "left out 5 pages of mapped files and shared memory, which KSM would not merge"


@pytest.mark.parametrize("name", ["/dev/zero (deleted)", "/SYSV0000abcd (deleted)", "/dev/shm/x", "/memfd:x (deleted)", "/[aio]"])
def test_shared_memory_is_told_by_its_name(tmp_path, name):
    """Shared memory looks like a mapped file that can be written. But a core's pages of such a file are mostly the process's own copies."""
    segments = [(0x10000, page(1), READ | WRITE), (0x20000, page(2), READ | WRITE)]
    notes = files_note((0x10000, 0x11000, name), (0x20000, 0x21000, f"/home{name}"))
    pages, remark = content(write_core(tmp_path / "core", segments, notes))
    assert pages == [page(2)]
    assert remark.startswith("left out 1 pages ")


@pytest.mark.parametrize("owner", ["QEMU", "VMCOREINFO"])
def test_a_machine_counts_whole_and_once(tmp_path, owner):
    # As in /proc/vmcore, the kernel's text is there twice, and some memory cannot be written
    segments = [(0x100000, page(1) + page(2), READ), (0x101000, page(2) + page(3), READ), (0x50000, page(4), READ)]
    pages, remark = content(write_core(tmp_path / "core", segments, note(owner, 0, b"abcd") + files_note((0x50000, 0x51000, "/bin/a"))))
    assert pages == [page(4), page(1), page(2), page(3)]
    assert remark == "pages that the core holds twice and that count once: 1"


def test_a_core_that_is_truncated_while_it_is_scanned(tmp_path):
    """Memory that is cut off is an error, and does not count as zeros."""
    path = write_core(tmp_path / "core", [(0x10000, page(1) * 8, READ | WRITE)], odd=0x8C8)
    source = open_file(str(path))
    os.truncate(path, path.stat().st_size - 1)
    with ksm.Machine("1M") as machine, pytest.raises(SourceError, match=rf"^{path}: was truncated meanwhile$"):
        source.attach(machine)
    source.close()


def test_a_core_that_is_truncated_while_it_is_copied(tmp_path, monkeypatch):
    """The size was looked at before: only the read that is too short tells."""
    path = write_core(tmp_path / "core", [(0x10000, page(1) * 8, READ | WRITE)], odd=0x8C8)
    source = open_file(str(path))
    read = os.preadv

    def cut_off_and_read(fd, buffers, offset):
        os.truncate(path, path.stat().st_size - 1)
        return read(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", cut_off_and_read)
    with ksm.Machine("1M") as machine, pytest.raises(SourceError, match=rf"^{path}: was truncated meanwhile$"):
        source.attach(machine)
    source.close()


def test_gdb_is_told_by_its_note(tmp_path):
    path = write_core(tmp_path / "core", [(0x10000, page(1), READ | WRITE)], note("GDB", 0xFF000000, b"<target/>"))
    assert content(path)[1].startswith("gdb writes pages that were never touched as zeros")


def test_truncated(tmp_path):
    path = write_core(tmp_path / "core", [(0x10000, page(1) * 8, READ | WRITE)])
    os.truncate(path, path.stat().st_size - 1)
    assert refusal(path).startswith("truncated: the file has ")
    os.truncate(path, 100)
    assert refusal(path) == "truncated: the file has 100 bytes, and should have 176 at least"
    os.truncate(path, 20)
    assert refusal(path) == "truncated: the file has 20 bytes, and should have 64 at least"


@pytest.mark.parametrize(
    "bits, section, places", [(64, 64, (("<Q", 40), ("<H", 58), ("<H", 60))), (32, 40, (("<I", 32), ("<H", 46), ("<H", 48)))]
)
def test_truncated_before_the_sections(tmp_path, bits, section, places):
    """gdb writes the table of sections last."""
    path = write_core(tmp_path / "core", [(0x10000, page(1), READ | WRITE)], bits=bits)
    data = bytearray(path.read_bytes())
    size, number = len(data), 5
    for (kind, place), value in zip(places, (size, section, number), strict=True):  # e_shoff, e_shentsize, e_shnum
        struct.pack_into(kind, data, place, value)
    for there in (0, 1, section, number * section - 1):
        path.write_bytes(data + bytes(there))
        assert refusal(path) == f"truncated: the file has {size + there:,} bytes, and should have {size + number * section:,} at least"
    path.write_bytes(data + bytes(number * section))
    assert content(path)[0] == [page(1)]


def test_segments_of_another_size(tmp_path):
    path = write_core(tmp_path / "core", [(0x10000, page(1), READ | WRITE)])
    data = bytearray(path.read_bytes())
    data[54:56] = b"\1\0"  # e_phentsize
    path.write_bytes(data)
    assert refusal(path) == "damaged ELF core"


def test_elf_files_that_are_not_cores(tmp_path):
    assert "a program or a shared library in ELF format" in refusal(shutil.copy(sys.executable, tmp_path / "elf"))
    assert refusal(write_core(tmp_path / "core", [])) == "an ELF core without memory"


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=12), st.booleans())
def test_damage_is_survived(tmp_path, changes, cut):
    notes = files_note((0x10000, 0x11000, "/bin/a")) + auxv_note(0x50000) + note("QEMU", 0, b"abcd")
    path = write_core(tmp_path / "core", [(0x10000, page(1), READ), (0x20000, page(2), READ | WRITE)], notes)
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[place] = value
    data[:4] = b"\x7fELF"
    path.write_bytes(data[: 600 if cut else None])
    try:
        open_file(str(path)).close()
    except SourceError as error:
        assert "\n" not in str(error)


def pages_of_core(path):
    """The test's own reading of a core of a Python process: all writable memory there is private and anonymous."""
    data = path.read_bytes()
    [offset] = struct.unpack_from("<Q", data, 32)
    [size, number] = struct.unpack_from("<2H", data, 54)
    pages = []
    for place in range(number):
        kind, flags, start, _, _, length = struct.unpack_from("<2I4Q", data, offset + place * size)
        if kind == PT_LOAD and flags & WRITE:
            pages += [data[at : at + PAGE] for at in range(start, start + length, PAGE)]
    return pages


FILL = "a = area(400); fill(a, 0, [7] * 100 + [0] * 50 + list(range(1000, 1100)))"


@pytest.mark.skipif(shutil.which("gcore") is None, reason="no gdb")
def test_gcore(tmp_path, target):
    target.do(FILL)
    run = subprocess.run(["gcore", "-o", str(tmp_path / "core"), str(target.pid)], capture_output=True, text=True)
    path = tmp_path / f"core.{target.pid}"
    if not path.exists():
        pytest.skip(f"gcore cannot: {run.stderr}")
    pages, remark = content(path)
    assert "gdb writes pages" in remark
    assert "left out" in remark
    assert pages.count(page(7)) == 100
    assert all(pages.count(page(number)) == 1 for number in range(1000, 1100))
    everything = pages_of_core(path)
    assert sorted(pages) == sorted(everything)

    source = open_file(str(path))
    with Scan([source]) as scan:
        result = scan.run()
    source.close()
    counts = Counter(everything)
    assert result.savings.zero == counts[bytes(PAGE)] - -(-counts[bytes(PAGE)] // 256)
    assert result.savings.within == sum(count - 1 for content, count in counts.items() if content != bytes(PAGE))
    assert result.savings.across == 0


@pytest.mark.skipif(Path("/proc/sys/kernel/core_pattern").read_text().strip() != "core", reason="cores go elsewhere")
def test_core_of_the_kernel(tmp_path):
    script = Path(__file__).with_name("target.py")
    limit = resource.RLIM_INFINITY

    def prepare():
        resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
        os.chdir(tmp_path)

    try:
        subprocess.run([sys.executable, script], input=f"{FILL}\nos.abort()\n", text=True, stdout=subprocess.DEVNULL, preexec_fn=prepare)
    except subprocess.SubprocessError:
        pytest.skip("no cores allowed")
    [path] = tmp_path.glob("core*")
    pages, remark = content(path)
    assert "left out" in remark
    assert pages.count(page(7)) == 100
    # The 150 pages that were never touched are holes
    assert bytes(mmap.PAGESIZE) in pages
    assert 50 <= pages.count(bytes(PAGE)) < 150

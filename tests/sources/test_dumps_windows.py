# SPDX-License-Identifier: GPL-2.0-only
"""Crash dumps of Windows."""

import struct

import pytest
from dump_checks import contents, cut_off, flipped, outcome, same_as_image
from dump_writers import (
    PAGE,
    ZEROS,
    some_memory,
    windows_bitmap,
    windows_complete,
    windows_header,
    windows_table,
    write_image,
)
from fuzz.readers import BytesInput

from ksm.sources import open_file
from ksm.sources.dumps.windows import open_windows

WRITERS = {
    "complete": windows_complete, "complete32": lambda memory: windows_complete(memory, 32),
    "bitmap": windows_bitmap, "bitmap32": lambda memory: windows_bitmap(memory, 32),
    "live": lambda memory: windows_bitmap(memory, kind=6, magic=b"SDMP"),
    "table": windows_table, "kernel": lambda memory: windows_table(memory, 8), "processes": lambda memory: windows_table(memory, 9),
}  # fmt: skip
every_form = pytest.mark.parametrize("form", WRITERS)


def one(content):
    return content.to_bytes(1, "little") * PAGE


@every_form
def test_counts_of_a_raw_image(tmp_path, form):
    memory = some_memory(1, first=3)
    path = tmp_path / "dump"
    path.write_bytes(WRITERS[form](memory))
    same_as_image(path, memory)
    source = open_file(str(path))
    assert source.kind == "dump"
    assert contents(source) == contents(source) == memory
    source.close()
    assert contents(open_windows(BytesInput(WRITERS[form](memory), 3333))) == memory


def test_what_is_not_all_of_the_memory(tmp_path):
    path = tmp_path / "dump"
    notes = {}
    for form, write in [*WRITERS.items(), ("active", lambda memory: windows_bitmap(memory, magic=b"SDMP"))]:
        path.write_bytes(write({1: one(1), 2: ZEROS}))
        source = open_file(str(path))
        contents(source)
        notes[form] = source.notes
    kernel = ["a dump of the kernel's memory only"]
    assert notes.pop("active") == ["a dump of the kernel's memory, or of active memory, only"]
    assert notes.pop("live") == notes.pop("kernel") == kernel
    assert notes.pop("processes") == ["a dump of the kernel's and the processes' memory only"]
    assert set(map(tuple, notes.values())) == {()}


@every_form
def test_cut_off(tmp_path, form):
    data = WRITERS[form](some_memory(4, 200, first=1))
    cut_off(tmp_path / "dump", data, len(data))


@every_form
def test_changed(tmp_path, form):
    flipped(tmp_path / "dump", WRITERS[form](some_memory(5, 60, first=1)), 5, 80, within=3 * PAGE)


@pytest.mark.parametrize(("kind", "what"), [
    (2, "a kernel dump of an old form"), (3, "a dump without pages"), (4, "a small dump (minidump, triage)"), (7, "a dump without pages"),
    (0, "of type 0x0"), (0x45474150, "of type 0x45474150"),
])
@pytest.mark.parametrize("bits", [32, 64])
def test_dumps_that_are_not_read(tmp_path, kind, what, bits):
    path = tmp_path / "dump"
    path.write_bytes(windows_header(kind, bits))
    assert outcome(path) == f"a crash dump of Windows, {what}, which is not read"


def runs_of(count, *runs):
    header = windows_header(1, 64, list(runs) or [(1, 1)])
    struct.pack_into("<I", header, 0x88, count)
    return bytes(header)


def bitmap_of(magic=b"FDMP", valid=b"DUMP", first_page=0x3000, present=1, pages=16, bits=b"\2\0"):
    return bytes(windows_header(5)) + struct.pack("<4s4s24x3Q", magic, valid, first_page, present, pages) + bits + bytes(2 * PAGE)


def table_of(mark=0x40, magic=b"RDMP", length=0x60, first_page=0x2080, total=1, runs=((1, 1),)):
    table = b"".join(struct.pack("<2Q", *run) for run in runs)
    head = struct.pack("<I4s4s4x2Q8xQ", mark, magic, b"DUMP", length, first_page, total)
    return bytes(windows_header(10)) + head + table + bytes(PAGE * 2)


@pytest.mark.parametrize(("data", "reason"), [
    (b"PAGEDU64DUMP", "truncated: a crash dump of Windows has more than 12 bytes"),
    (runs_of(0), "damaged: 0 runs of memory"), (runs_of(0x45474150), "damaged: 1,162,297,680 runs of memory"),
    (runs_of(43), "damaged: 43 runs of memory"), (runs_of(1, (1, 0)), "damaged: 0 pages from page 0x1 on"),
    (runs_of(1, (1, (1 << 64) - 1)), "damaged: 18,446,744,073,709,551,615 pages from page 0x1 on"),
    (runs_of(1, ((1 << 64) - 1, 1)), "damaged: 1 page from page 0xffffffffffffffff on"),
    (runs_of(1, (0, 1 << 33)), "truncated after 8,192 bytes"),
    (bitmap_of(magic=b"PAGE"), "damaged: no header of a bitmap"), (bitmap_of(valid=b"PAGE"), "damaged: no header of a bitmap"),
    (bitmap_of(pages=1 << 60), "damaged: a bitmap of 1,152,921,504,606,846,976 pages"),
    (bitmap_of(pages=1 << 33), "truncated after 8,248 bytes"),
    (bitmap_of(present=7), "damaged: a bitmap of 1 page, and not of 7"),
    (bitmap_of(first_page=0), "damaged: a first page at byte 0"), (bitmap_of(first_page=1 << 63), "damaged: a first page at byte 9,"),
    (bitmap_of(present=16, bits=b"\xff\xff"), "truncated after 12,288 bytes"),
    (table_of(mark=0), "damaged: no header of a table of runs"), (table_of(magic=b"PAGE"), "damaged: no header of a table of runs"),
    (table_of(first_page=0), "damaged: a table of runs of 96 bytes, and a first page at byte 0"),
    (table_of(first_page=1 << 40), "damaged: a table of runs of 96 bytes, and a first page at byte 1,099,511,627,776"),
    (table_of(runs=((1, 1), (5, 1))), ""), (table_of(runs=((1, 2), (5, 1))), "damaged: runs of more than 1 page"),
    (table_of(runs=((1, 0),)), "damaged: 0 pages from page 0x1 on"),
    (table_of(runs=((1 << 50, 1),)), "damaged: 1 page from page 0x4000000000000 on"),
])
def test_numbers_that_are_absurd(tmp_path, data, reason):
    path = tmp_path / "dump"
    path.write_bytes(data)
    assert outcome(path).startswith(reason)
    assert reason or not outcome(path)


def test_a_bitmap_with_more_bits_than_pages(tmp_path):
    """The last byte has bits that stand for nothing."""
    path = tmp_path / "dump"
    path.write_bytes(bitmap_of(pages=10, bits=b"\2\xfc"))
    assert list(contents(open_file(str(path)))) == [1]


def test_long_runs_of_bits(tmp_path):
    """The bitmap is read in parts of 64 KiB: runs go on from one to the next."""
    numbers = {*range(524_280, 524_300), *range(1_048_570, 1_048_576), 1_048_577, *range(1_600_000, 1_600_070)}
    path = tmp_path / "dump"
    path.write_bytes(windows_bitmap({number: one(number % 251) for number in numbers}))
    memory = contents(open_file(str(path)))
    assert memory == {number: one(number % 251) for number in numbers}
    assert write_image(tmp_path / "image", memory).stat().st_size == 1_600_070 * PAGE

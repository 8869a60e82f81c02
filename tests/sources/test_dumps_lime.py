# SPDX-License-Identifier: GPL-2.0-only
"""Dumps of LiME and AVML."""

import ctypes
import struct
import sys

import pytest
from dump_checks import contents, cut_off, flipped, outcome, same_as_image, scanned
from dump_writers import PAGE, ZEROS, avml, crc32c, lime, lime_range, mapped_ram, some_memory, windows_bitmap, windows_complete, xen

from ksm.sources import open_file
from ksm.sources.dumps.lime import MOST_TOGETHER, open_lime
from ksm.sources.unpack import first_module

cramjam = first_module("cramjam")
WRITERS = [lime, *([avml] if cramjam else [])]
needs_cramjam = pytest.mark.skipif(not cramjam, reason="cramjam unpacks AVML's version 2")


def punch(file, offset, length):
    """Make a hole; whether the file system did."""
    libc = ctypes.CDLL(None, use_errno=True)
    KEEP_SIZE, PUNCH_HOLE = 1, 2
    return libc.fallocate(file.fileno(), KEEP_SIZE | PUNCH_HOLE, ctypes.c_long(offset), ctypes.c_long(length)) == 0


def one(content):
    return content.to_bytes(1, "little") * PAGE


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("seed", range(3))
def test_counts_of_a_raw_image(tmp_path, write, seed):
    memory = some_memory(seed, first=1)
    path = tmp_path / "dump"
    path.write_bytes(write(memory))
    same_as_image(path, memory)
    source = open_file(str(path))
    assert (source.kind, source.notes) == ("dump", [])
    assert contents(source) == memory
    assert contents(source) == memory  # from the front once more
    source.close()


@needs_cramjam
def test_both_in_one_file(tmp_path):
    """avml-convert may have put together what it likes."""
    path = tmp_path / "dump"
    path.write_bytes(lime({1: one(1), 2: ZEROS}) + avml({700: one(2)}) + lime({701: one(3)}))
    assert contents(open_file(str(path))) == {1: one(1), 2: ZEROS, 700: one(2), 701: one(3)}


def test_a_range_that_ends_within_a_page(tmp_path):
    """The memory below 640 KiB of most PCs ends so."""
    path = tmp_path / "dump"
    ranges = [(0x1000, one(1) + one(2) + b"x" * 0xC00), (0x8100, b"y" * 0xF00 + one(3)), (0xB010, b"z")]
    path.write_bytes(b"".join(lime_range(first, data) for first, data in ranges))
    source = open_file(str(path))
    assert contents(source) == {1: one(1), 2: one(2), 9: one(3)}
    assert source.notes == ["left out 3 pages that are there only in part, at the ends of ranges"]


def mapped(memory):
    """Here, the bitmap says which pages are zeros, and QEMU leaves holes for them itself."""
    return mapped_ram([("pc.ram", 60 * PAGE, memory)])


@pytest.mark.parametrize("write", [lime, windows_complete, windows_bitmap, xen, mapped], ids=lambda write: write.__name__)
def test_holes_are_pages_of_zeros(tmp_path, write):
    """A sparse copy of a dump counts as the dump, and the report says how many pages lie in holes."""
    memory = {number: ZEROS for number in range(1, 60)} | {number: one(number) for number in (1, 2, 30, 59)}
    path = tmp_path / "dump"
    path.write_bytes(write(memory))
    dense = scanned(path)
    data = path.read_bytes()
    with path.open("r+b") as file:
        for at in range(0, len(data), PAGE):
            if not any(data[at : at + PAGE]) and not punch(file, at, PAGE):
                pytest.skip("this file system makes no holes")
    assert path.read_bytes() == data
    assert scanned(path) == dense
    source = open_file(str(path))
    assert contents(source) == contents(source)
    # LiME's pages lie 32 bytes behind those of the file: at both ends of each run of zeros, a page is only in part in a hole
    zeros = sum(page == ZEROS for page in memory.values())
    assert source.zero_holes == {mapped: 0, lime: zeros - 4}.get(write, zeros)
    assert source.holes == 0
    source.close()


@pytest.mark.parametrize("write", WRITERS)
def test_cut_off(tmp_path, write):
    data = write(some_memory(4, 300))
    cut_off(tmp_path / "dump", data, len(data))


@pytest.mark.parametrize("write", WRITERS)
def test_changed(tmp_path, write):
    flipped(tmp_path / "dump", write(some_memory(5, 200)), 5, within=1 << 18)


@needs_cramjam
@pytest.mark.parametrize(("data", "reason"), [
    (struct.pack("<4sI2Q8x", b"EMiL", 1, 0, (1 << 64) - 1), "damaged: a range from 0x0 to 0xffffffffffffffff"),
    (struct.pack("<4sI2Q8x", b"EMiL", 1, 0x2000, 0x1FFE), "damaged: a range from 0x2000 to 0x1ffe"),
    (struct.pack("<4sI2Q8x", b"EMiL", 1, 0, (1 << 45) - 1), "truncated after 32 bytes"),
    (struct.pack("<4sI2Q8x", b"AVML", 2, 0, (1 << 45) - 1), "truncated after 32 bytes"),
    (struct.pack("<4sI2Q8x", b"AVML", 2, 0x100, 0x10FF), "damaged: a packed range from 0x100 to 0x10ff, which are not whole pages"),
    (struct.pack("<4sI2Q8x", b"EMiL", 2, 0, 0xFFF), "a dump of EMiL, version 2, which is not read"),
    (struct.pack("<4sI2Q8x", b"AVML", 3, 0, 0xFFF), "a dump of AVML, version 3, which is not read"),
    (lime({0: one(1)}) + b"more" * 8, "damaged: no header of a range at byte 4,128"),
    (lime({0: one(1)}) + b"EMi", "truncated after 4,131 bytes"),
])
def test_headers_that_are_wrong(tmp_path, data, reason):
    path = tmp_path / "dump"
    path.write_bytes(data)
    assert outcome(path) == reason


def avml_of(chunks, length, said=None):
    return struct.pack("<4sI2Q8x", b"AVML", 2, 0, length - 1) + chunks + struct.pack("<Q", len(chunks) if said is None else said)


def chunk(kind, data):
    return bytes([kind]) + len(data).to_bytes(3, "little") + data


def plain(data):
    crc = crc32c(data)
    return chunk(1, struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF) + data)


NAME = chunk(0xFF, b"sNaPpY")


@needs_cramjam
def test_chunks_of_all_kinds(tmp_path):
    """Chunks that are not packed, that end within a page, and that are to be skipped."""
    path = tmp_path / "dump"
    data = one(1) + one(2) + one(3)
    chunks = NAME + plain(data[:100]) + chunk(0x80, b"?" * 70) + plain(data[100:5000]) + NAME + chunk(0xFE, bytes(9)) + plain(data[5000:])
    path.write_bytes(avml_of(chunks, 3 * PAGE))
    assert contents(open_file(str(path))) == {0: one(1), 1: one(2), 2: one(3)}


@needs_cramjam
@pytest.mark.parametrize(("chunks", "said", "reason"), [
    (NAME + plain(one(1)), 7, "damaged: a range of 4,114 packed bytes, and not of 7"),
    (plain(one(1))[:-1] + b"x", None, "damaged: pages from 0x0 on cannot be unpacked"),
    (chunk(0, bytes(4) + b"\xff\xff\xff\xff\x0f" + bytes(20)), None, "damaged: chunks that do not end with a page, at byte 65"),
    (chunk(0, bytes(4) + b"\x80\x20" + bytes(20)), None, "damaged: pages from 0x0 on cannot be unpacked"),
    (chunk(2, b"what"), None, "damaged: a chunk of type 0x2 at byte 36"),
    (chunk(0xFF, b"snappy"), None, "damaged: a packed range that is not snappy's"),
    (b"\0\xff\xff\xff", None, "damaged: a chunk of 16,777,215 bytes"),
    (chunk(0, b"    "), None, "damaged: a chunk of 4 bytes"),
    (plain(one(1)[:-1]) + plain(b"12"), None, "damaged: chunks that do not end with a page, at byte 4,145"),
])
def test_chunks_that_are_wrong(tmp_path, chunks, said, reason):
    path = tmp_path / "dump"
    path.write_bytes(avml_of(chunks, PAGE, said))
    assert outcome(path).startswith(reason)


@needs_cramjam
def test_chunks_that_never_end_with_a_page(tmp_path):
    """What is kept until a page ends has a limit."""
    path = tmp_path / "dump"
    packed = bytes(cramjam.snappy.compress_raw(bytes(65536)))
    path.write_bytes(avml_of(plain(b"1") + chunk(0, bytes(4) + packed) * 300, 1 << 30))
    assert outcome(path).startswith("damaged: chunks that do not end with a page")
    assert MOST_TOGETHER < 300 * 65536


@needs_cramjam
def test_without_the_library(tmp_path, monkeypatch):
    packed = avml({1: one(1)})
    monkeypatch.setitem(sys.modules, "cramjam", None)
    path = tmp_path / "dump"
    path.write_bytes(packed)
    assert outcome(path) == "a dump of AVML, packed with snappy, which needs pip install ksm[formats]"
    path.write_bytes(lime({0: one(1)}) + packed)
    assert outcome(path) == "a dump of AVML, packed with snappy, which needs pip install ksm[formats]"


def test_through_a_pipe():
    from fuzz.readers import BytesInput

    memory = some_memory(6, 900)
    for write in WRITERS:
        for at_once in (1 << 20, 7777):
            assert contents(open_lime(BytesInput(write(memory), at_once))) == memory


def test_pieces_are_read_after_the_last_one_was_given(tmp_path):
    """Threads may do so, in each turn."""
    path = tmp_path / "dump"
    path.write_bytes(mapped_ram([("pc.ram", PAGE << 14, some_memory(4, 60, gaps=False))]))
    source = open_file(str(path))
    turns = [in_turn(source) for _ in range(3)]
    assert turns[0] == turns[1] == turns[2] != []
    source.close()


def in_turn(source):
    seen = []
    for piece in list(source.pieces()):
        piece.read(memoryview(bytearray(1 << 20)), lambda runs, view: seen.append((list(runs), bytes(view))))
    return seen

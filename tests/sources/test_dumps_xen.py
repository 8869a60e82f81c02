# SPDX-License-Identifier: GPL-2.0-only
"""Cores of Xen domains, and of VirtualBox."""

import struct

import pytest
from cores import PAGE as SAME_PAGE
from cores import READ, note, write_core
from dump_checks import contents, cut_off, flipped, outcome, same_as_image
from dump_writers import PAGE, some_memory, xen
from fuzz.readers import BytesInput

from ksm.sources import SourceError, open_file
from ksm.sources.dumps.xen import open_xen

assert SAME_PAGE == PAGE


def one(content):
    return content.to_bytes(1, "little") * PAGE


@pytest.mark.parametrize("words", [1, 2], ids=["pfn", "p2m"])
@pytest.mark.parametrize("seed", range(2))
def test_counts_of_a_raw_image(tmp_path, words, seed):
    memory = some_memory(seed)
    path = tmp_path / "core"
    path.write_bytes(xen(memory, words=words))
    same_as_image(path, memory)
    source = open_file(str(path))
    assert (source.kind, source.copied) == ("core", len(memory) * PAGE)
    assert contents(source) == contents(source) == memory
    assert source.notes == []
    source.close()


def test_pages_that_went_meanwhile(tmp_path):
    path = tmp_path / "core"
    path.write_bytes(xen({1: one(1), 2: one(2)}, gone=3))
    source = open_file(str(path))
    assert contents(source) == {1: one(1), 2: one(2)}
    assert source.notes == ["left out 3 pages that went while the core was written"]


def test_more_pages_than_a_piece_has(tmp_path):
    path = tmp_path / "core"
    memory = {number: one(number % 200) for number in range(2500)}
    path.write_bytes(xen(memory))
    source = open_file(str(path))
    assert [piece.length // PAGE for piece in source.pieces()] == [1024, 1024, 452]
    assert contents(source) == memory


def test_through_a_pipe():
    with pytest.raises(SourceError) as caught:
        open_xen(BytesInput(xen({1: one(1)})))
    assert str(caught.value) == "input: a core of Xen, which can be read only as a file that is not packed"


def test_cut_off(tmp_path):
    data = xen(some_memory(3, 100))
    cut_off(tmp_path / "core", data, len(data))


@pytest.mark.parametrize("words", [1, 2])
def test_changed(tmp_path, words):
    flipped(tmp_path / "core", xen(some_memory(5, 60), words=words), 5, within=1 << 19)


def changed(number, place, form, value):
    """A core with a field of a section's header changed."""
    data = bytearray(xen({1: one(1), 5: one(2)}))
    struct.pack_into(form, data, 64 + number * 64 + place, value)
    return bytes(data)


@pytest.mark.parametrize(("data", "reason"), [
    (changed(3, 32, "<Q", 1), "damaged ELF core: a core of Xen without the numbers of its 0 pages"),
    (changed(3, 32, "<Q", 1 << 40), "damaged ELF core: a core of Xen without the numbers of its 268,435,456 pages"),
    (changed(3, 24, "<Q", 1 << 40), "truncated: "), (changed(4, 24, "<Q", 1 << 63), "truncated: "),
    (changed(4, 32, "<Q", 8), "damaged ELF core: a core of Xen without the numbers of its 2 pages"),
    (changed(4, 0, "<I", 0), "damaged ELF core: a core of Xen without the numbers of its 2 pages"),
    (changed(3, 0, "<I", 0), "an ELF core without memory"), (changed(1, 24, "<Q", 1 << 63), "truncated: "),
])
def test_sections_that_are_wrong(tmp_path, data, reason):
    path = tmp_path / "core"
    path.write_bytes(data)
    assert outcome(path).startswith(reason)


def test_a_page_that_is_nowhere(tmp_path):
    data = xen({1: one(1), 5: one(2)})
    path = tmp_path / "core"
    at = data.index(struct.pack("<2Q", 1, 5))
    path.write_bytes(data[:at] + struct.pack("<2Q", 1, 1 << 50) + data[at + 16 :])
    assert outcome(path) == "damaged ELF core: a page with the number 0x4000000000000"


def test_a_core_of_virtualbox(tmp_path):
    """VBoxManage debugvm NAME dumpvmcore: an ELF core whose notes name VBCORE. All segments are physical memory."""
    memory = some_memory(6, 300)
    numbers = sorted(memory)
    segments = [(number * PAGE, memory[number], READ) for number in numbers]
    path = write_core(tmp_path / "core", segments, note("VBCORE", 0xB00, bytes(24)) + note("VBCPU", 0xB01, bytes(100)))
    same_as_image(path, memory)
    source = open_file(str(path))
    assert contents(source) == memory
    source.close()

# SPDX-License-Identifier: GPL-2.0-only
"""Compressed crash dumps: of QEMU, of makedumpfile, and such as the tests write."""

import gzip
import os
import random
import resource
import shutil
import struct
import subprocess

import pytest
import qemu_guest
from cores import note, page, write_core
from crash_dumps import FLAGS, INCOMPLETE, PAGE, flattened, kdump, packer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from outcomes import counts, line_of, refusal

from ksm.sources import flat, open_file
from ksm.sources import kdump as reader
from ksm.sources.formats import packing_of
from ksm.sources.input import FileInput, open_path

pytestmark = pytest.mark.once

FIGURES = ("pages", "zero", "within", "pages_shared", "pages_sharing", "pages_unshared")


def figures(path, **options):
    found = counts(path, **options)
    return [found[name] for name in FIGURES]


def memory():
    rng = random.Random(9)
    some = [page(number % 11 + 1) for number in range(400)] + [bytes(PAGE)] * 300 + [rng.randbytes(PAGE) for _ in range(60)]
    rng.shuffle(some)
    numbers = sorted(rng.sample(range(5000), 500)) + list(range(70_000, 70_000 + len(some) - 500))
    return dict(zip(numbers, some, strict=True))


PAGES = memory()


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(b"".join(PAGES.values()))
    return path


def written(tmp_path, data):
    path = tmp_path / "dump"
    path.write_bytes(data)
    return path


def needs(how):
    try:
        packer(how)
    except ImportError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("how", FLAGS)
@pytest.mark.parametrize("exact", [False, True], ids=["fingerprints", "bytes"])
def test_a_dump_counts_as_its_memory(tmp_path, image, how, exact):
    needs(how)
    path = written(tmp_path, kdump(PAGES, how=how))
    assert counts(path, exact=exact) == counts(image, exact=exact)
    assert open_file(str(path)).kind == "dump"


@pytest.mark.parametrize(("order", "bits", "version"), [("<", 64, 1), (">", 64, 6), ("<", 32, 5), (">", 32, 6)])
def test_dumps_of_other_computers(tmp_path, image, order, bits, version):
    assert figures(written(tmp_path, kdump(PAGES, order=order, bits=bits, version=version))) == figures(image)


@pytest.mark.parametrize("size", [1 << 14, 1 << 16, 1 << 19])
def test_pages_that_are_larger(tmp_path, size):
    rng = random.Random(size)
    large = {number: rng.choice([bytes(size), page(1) * (size // PAGE), rng.randbytes(PAGE) * (size // PAGE)]) for number in range(20)}
    path = tmp_path / "image"
    path.write_bytes(b"".join(large.values()))
    assert figures(written(tmp_path, kdump(large, page=size))) == figures(path)


def places(path):
    """Where the source has pages."""
    source = open_file(str(path))
    runs = [run for piece in source.pieces() for run in piece.runs]
    source.close()
    return {address // PAGE for start, end in runs for address in range(start, end, PAGE)}, source.notes


def test_pages_that_are_left_out_are_absent(tmp_path):
    """The second bitmap says what is in the dump. The first one has all pages of the machine, which the report only counts."""
    path = written(tmp_path, kdump(PAGES, there=range(6000, 6100), level=31))
    there, notes = places(path)
    assert there == set(PAGES)
    assert notes == ["left out 100 pages that are not in the dump (makedumpfile -d 31), pages of zeros among them"]
    source = open_file(str(path))
    assert len({len([*source.pieces()]) for _ in range(2)}) == 1
    assert (len(source.notes), source.holes) == (1, 100)
    source.close()


def test_a_dump_that_ran_out_of_room(tmp_path):
    missing = sorted(PAGES)[-100:]
    path = written(tmp_path, kdump(PAGES, status=INCOMPLETE, missing=missing))
    there, notes = places(path)
    assert there == set(PAGES) - set(missing)
    assert notes == ["the dump is incomplete: there was no room for its last pages"]
    assert refusal(written(tmp_path, kdump(PAGES, missing=missing))) == "damaged crash dump: a page of 0 bytes"


def test_pages_of_zeros_that_are_stored_late(tmp_path, image):
    """makedumpfile stores the page of zeros first. Data that are shared and lie elsewhere are read again."""
    assert figures(written(tmp_path, kdump(PAGES, zeros_last=True))) == figures(image)


def test_a_part_of_a_split_dump_is_refused(tmp_path):
    text = "one part of a crash dump that is split: put the parts together with makedumpfile --reassemble"
    assert refusal(written(tmp_path, kdump(PAGES, split=1))) == text
    assert refusal(written(tmp_path, kdump(PAGES, split=1, bits=32, version=2))) == text


@pytest.mark.parametrize("how", [None, "gzip", "zstd", "xz"])
@pytest.mark.parametrize("seed", range(3))
def test_flattened(tmp_path, image, seed, how):
    path = written(tmp_path, flattened(kdump(PAGES), seed=seed, size=100_000))
    if how:
        if shutil.which(how) is None:
            pytest.skip(f"no {how}")
        packed = tmp_path / "packed"
        with open(packed, "wb") as file:
            subprocess.run([how, "-c", path], stdout=file, stderr=subprocess.DEVNULL, check=True)
        path = packed
    assert figures(path) == figures(image)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=60)), max_size=30), st.integers(1, 90))
def test_blocks_are_put_in_order(blocks, step):
    """Against an array into which the blocks are written one after the other."""
    file = bytearray(struct.pack(">16s2q", b"makedumpfile", 1, 1).ljust(PAGE, b"\0"))
    expected = bytearray()
    for place, data in blocks:
        file += struct.pack(">2q", place, len(data)) + data
        expected += bytes(max(0, place + len(data) - len(expected)))
        expected[place : place + len(data)] = data
    file += struct.pack(">2q", -1, -1)
    fd = os.memfd_create("flat")
    os.write(fd, file)
    input = flat.rearranged(FileInput("flat", fd, len(file)))
    found = b""
    while part := input.block(step):
        found += part
    input.close()
    assert found == expected


def test_blocks_that_follow_each_other_are_a_lane():
    """Two lanes that alternate in the file, as descriptions and pages do. Few of their blocks are remembered."""
    lanes = flat.Lanes()
    position = 4096
    for number in range(10_000):
        for place, size in ((24 * number, 24), ((1 << 30) + 4000 * number, 4000)):
            assert lanes.add(place, size, position)
            position += 16 + size
    assert [(lane.start, lane.end) for lane in lanes.lanes] == [(0, 240_000), (1 << 30, (1 << 30) + 40_000_000)]
    assert [len(lane.places) for lane in lanes.lanes] == [10, 10]
    assert [(start, end) for start, end, _ in lanes.in_order()] == [(lane.start, lane.end) for lane in lanes.lanes]


@pytest.mark.parametrize("how", ["plain", "gzip"])
def test_lanes_are_found_again(tmp_path, monkeypatch, how):
    """With few blocks remembered, the others are found from there, also when it is read backwards."""
    monkeypatch.setattr(flat, "APART", 500)
    rng = random.Random(2)
    lanes = [(0, 7), (5000, 30), (100_000, 400)]
    expected = bytearray(300_000)
    file = bytearray(struct.pack(">16s2q", b"makedumpfile", 1, 1).ljust(PAGE, b"\0"))
    for _ in range(400):
        for number, (place, size) in enumerate(lanes):
            data = rng.randbytes(rng.randrange(1, size))
            file += struct.pack(">2q", place, len(data)) + data
            expected[place : place + len(data)] = data
            lanes[number] = place + len(data), size
    file += struct.pack(">2q", -1, -1)
    path = written(tmp_path, file if how == "plain" else gzip.compress(file))
    found = open_path(str(path))
    input = flat.rearranged(found if how == "plain" else packing_of(found.peek()).open(found))
    assert input.size == lanes[2][0]
    for place in sorted((rng.randrange(input.size) for _ in range(40)), reverse=True):
        again = input.again()
        again.skip(place)
        assert again.block(700) == expected[place : min(place + 700, input.size)]
        again.close()
    assert input.read(input.size) == expected[: input.size]
    input.close()


@pytest.mark.parametrize("how", ["plain", "gzip"])
def test_a_flattened_core(tmp_path, how):
    """makedumpfile -E -F writes one: it is read from front to back."""
    core = write_core(tmp_path / "core", [(0x10000, page(1) * 50 + bytes(PAGE) * 20 + page(2), 6)], note("QEMU", 0, b"abcd"))
    data = flattened(core.read_bytes(), size=9000)
    assert figures(written(tmp_path, data if how == "plain" else gzip.compress(data))) == figures(core)


def test_too_many_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(flat, "MOST", 100)
    path = written(tmp_path, flattened(kdump(PAGES), size=500))
    assert refusal(path) == "a flattened crash dump in too many pieces: put it in order with makedumpfile -R"


# Through a pipe

@pytest.mark.parametrize("how", ["zlib", "none"])
def test_through_a_pipe(tmp_path, image, how):
    """Its descriptions are read before the pages, and kept."""
    read, write = os.pipe()
    with subprocess.Popen(["cat", written(tmp_path, kdump(PAGES, how=how))], stdout=write):
        os.close(write)
        assert figures(f"/dev/fd/{read}") == figures(image)
    os.close(read)


@pytest.mark.parametrize(("data", "text"), [
    (flattened(kdump(PAGES)),
     "in makedumpfile's flattened form, which has to be read more than once: write it to a file, or makedumpfile -R"),
    (kdump(PAGES, zeros_last=True), "its pages do not follow each other: unpack it to a file"),
])  # fmt: skip
def test_what_cannot_come_through_a_pipe(tmp_path, data, text):
    read, write = os.pipe()
    with subprocess.Popen(["cat", written(tmp_path, data)], stdout=write, stderr=subprocess.DEVNULL) as feeder:
        os.close(write)
        assert refusal(f"/dev/fd/{read}") == text
        os.close(read)
        feeder.kill()


# Real ones

@pytest.fixture(scope="module")
def guest(tmp_path_factory):
    """Dumps of one guest, by their form."""
    if not qemu_guest.there():
        pytest.skip("no qemu-system-x86_64")
    with qemu_guest.Guest(tmp_path_factory.mktemp("guest")) as guest:
        dumps = {form: guest.dump(form) for form in guest.formats()}
        guest.do("pmemsave", val=0, size=qemu_guest.MIB << 20, filename=str(guest.folder / "raw"))
        dumps["raw"] = guest.folder / "raw"
        yield dumps


def memory_of(path):
    """The guest's pages from pages 0 on, by the source's pieces; those of firmware and of the video's memory are left out."""
    source = open_file(str(path))
    pages = {}

    def sink(runs, view):
        at = 0
        for start, end in runs:
            for address in range(start, end, PAGE):
                pages[address] = bytes(view[at : at + PAGE])
                at += PAGE

    buffer = memoryview(bytearray(256 << 10))
    for piece in source.pieces():
        piece.read(buffer, sink)
    source.close()
    return pages


def test_qemu(guest):
    """Each form that this QEMU writes has the same pages at the same addresses, and those of its pmemsave."""
    forms = [form for form in guest if form.startswith("kdump")]
    assert forms
    raw, elf = memory_of(guest["raw"]), memory_of(guest["elf"])
    contents = qemu_guest.contents()
    assert b"".join(raw[qemu_guest.AT + at] for at in range(0, len(contents), PAGE)) == contents
    low = {address for address in elf if address < qemu_guest.MIB << 20 and not 0xA0000 <= address < 1 << 20}
    assert len(low) > (qemu_guest.MIB << 20) // PAGE - 100
    assert all(raw[address] == elf[address] for address in low)
    for form in forms:
        assert memory_of(guest[form]) == elf
        assert figures(guest[form]) == figures(guest["elf"])


@pytest.mark.parametrize("command", ["gzip", "zstd", "xz -T1 -0", "lz4 -q"])
def test_packed_dumps_of_qemu(guest, tmp_path, command):
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f"no {command.split()[0]}")
    for form in [form for form in guest if form != "raw"]:
        path = tmp_path / "packed"
        with open(path, "wb") as file:
            subprocess.run([*command.split(), "-c", guest[form]], stdout=file, check=True)
        assert figures(path) == figures(guest["elf"])
        read, write = os.pipe()
        if form == "elf":
            with subprocess.Popen(["cat", path], stdout=write):
                os.close(write)
                assert figures(f"/dev/fd/{read}") == figures(guest["elf"])
        else:
            os.close(write)
        os.close(read)


def test_makedumpfile(guest, tmp_path):
    """What makedumpfile -R makes of QEMU's dump is read, and is byte for byte what this reader makes of it."""
    if shutil.which("makedumpfile") is None:
        pytest.skip("no makedumpfile")
    path = tmp_path / "in order"
    with open(guest["kdump-zlib"], "rb") as file:
        subprocess.run(["makedumpfile", "-R", path], stdin=file, check=True, capture_output=True)
    assert path.read_bytes().startswith(b"KDUMP   ")
    assert figures(path) == figures(guest["elf"])
    input = flat.rearranged(open_path(str(guest["kdump-zlib"])))
    assert input.size == path.stat().st_size
    assert input.read(input.size) == path.read_bytes()
    input.close()


# Damage

SMALL = {number: content for number, content in list(PAGES.items())[:40]}
DAMAGED = (
    "damaged", "truncated", "packed", "not a memory image", "one part", "its pages", "not enough memory", "a crash dump with pages",
    "more memory", "was truncated", "a flattened", "its blocks", "empty", "in makedumpfile's",
)  # fmt: skip


@pytest.mark.parametrize("flat", [False, True])
def test_cut_off_anywhere(tmp_path, flat):
    data = kdump(SMALL)
    data = flattened(data, twice=False) if flat else data
    rng = random.Random(flat)
    for length in [*rng.sample(range(17, len(data) - 1), 49), len(data) - 1]:
        text = line_of(written(tmp_path, data[:length]))
        assert text is not None and text.startswith(DAMAGED)


@pytest.mark.parametrize("flat", [False, True])
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(changes=st.lists(st.tuples(st.integers(16, 17_000), st.integers(0, 255)), min_size=1, max_size=6))
def test_bytes_changed(tmp_path, flat, changes):
    data = bytearray(kdump(SMALL))
    data = bytearray(flattened(data, twice=False)) if flat else data
    for place, value in changes:
        data[place % len(data)] = value
    text = line_of(written(tmp_path, data))
    assert text is None or text.startswith(DAMAGED)


@pytest.mark.parametrize(("place", "form", "value", "text"), [
    (8, "<i", 0, "damaged crash dump: its header"), (428, "<i", 0, "damaged crash dump: its header"),
    (428, "<i", 4095, "damaged crash dump: its header"), (428, "<i", -4096, "damaged crash dump: its header"),
    (428, "<i", 1024, "a crash dump with pages of 1024 bytes"), (432, "<i", -1, "damaged crash dump: "),
    (436, "<I", 0, "damaged crash dump: "), (432, "<i", 0x7FFFFFFF, "truncated after "), (436, "<I", 0xFFFFFFFF, "truncated after "),
    (PAGE + 96, "<Q", 1 << 63, "damaged crash dump: "), (PAGE + 96, "<Q", (1 << 64) - 1, "damaged crash dump: "),
])  # fmt: skip
def test_absurd_headers(tmp_path, place, form, value, text):
    data = bytearray(kdump(SMALL))
    struct.pack_into(form, data, place, value)
    assert refusal(written(tmp_path, data)).startswith(text)


@pytest.mark.parametrize(("row", "text"), [
    ((1 << 63, 100, 1, 0), "truncated after "), ((0, 100, 1, 0), "damaged crash dump: a page that cannot be unpacked"),
    ((PAGE, 0xFFFFFFFF, 1, 0), "damaged crash dump: a page of 4,294,967,295 bytes"),
    ((PAGE, PAGE, 64, 0), "damaged crash dump: a page with the flags 0x40"),
    ((PAGE, 5, 0, 0), "damaged crash dump: a page that cannot be unpacked"), ((PAGE, 0, 0, 0), "damaged crash dump: a page of 0 bytes"),
    ((PAGE, 9, 2, 0), "damaged crash dump: a page that cannot be"), ((PAGE, 9, 4, 0), "damaged crash dump: a page that cannot be"),
    ((PAGE, 9, 0x20, 0), "damaged crash dump: a page that cannot be"),
])  # fmt: skip
def test_absurd_pages(tmp_path, row, text):
    data = bytearray(kdump(SMALL))
    struct.pack_into("<QIIQ", data, 4 * PAGE + 24 * 7, *row)
    assert refusal(written(tmp_path, data)).startswith(text)


@pytest.mark.parametrize("how", ["zlib", "lzo", "snappy", "zstd"])
def test_pages_that_unpack_to_something_else(tmp_path, how):
    """A page that gives more or fewer bytes than it should is damaged, however much it would give."""
    needs(how)
    pack = packer(how)
    for content in (b"", b"a" * (PAGE - 1), b"a" * (PAGE + 1), bytes(200 * PAGE)):
        packed = pack(content)
        data = bytearray(kdump({0: page(1), 1: page(2), 2: page(3)}, how=how))
        struct.pack_into("<QIIQ", data, 4 * PAGE + 24, len(data), min(len(packed), PAGE), FLAGS[how], 0)
        path = written(tmp_path, data + packed)
        if how == "zlib" and len(content) > PAGE:
            # The first bytes are a whole page; zlib is not asked whether more follow.
            assert line_of(path) is None
        elif how == "zstd" and len(content) > PAGE:
            assert line_of(path) is None
        else:
            assert refusal(path).startswith("damaged crash dump: a page ")


def test_data_that_are_everywhere(tmp_path):
    """Descriptions whose data lie far apart, and backwards: it is refused after a number of turns, and not read for ever."""
    many = {number: page(number) for number in range(300)}
    data = bytearray(kdump(many))
    table = 4 * PAGE
    rows = [struct.unpack_from("<QIIQ", data, table + 24 * number) for number in range(300)]
    for number, row in enumerate(reversed(rows)):
        struct.pack_into("<QIIQ", data, table + 24 * number, *row)
    assert refusal(written(tmp_path, data)) == "its pages do not follow each other: unpack it to a file"


def test_bitmaps_of_nothing_but_zeros(tmp_path):
    """A sparse file may say that it has very large bitmaps. They are read, and take no memory."""
    path = written(tmp_path, kdump(SMALL)[: 2 * PAGE])
    most = 1 << 31
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), struct.pack("<2I", 2 * most // 8 // PAGE, 0xFFFFFFFF), 436)
        os.pwrite(file.fileno(), struct.pack("<Q", most), PAGE + 96)
        file.truncate(2 * PAGE + 2 * most // 8)
    if path.stat().st_blocks * 512 > 1 << 20:
        pytest.skip("this file system has no holes")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert counts(path)["pages"] == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


@pytest.mark.parametrize(("place", "size", "text"), [
    (-2, 5, "damaged: a block of 5 bytes for the place -2 of the dump"), (5, -2, "damaged: a block of -2 bytes"),
    (-1, 5, "damaged: a block"),
    (1 << 62, 5, "damaged: a block"), (0, 1 << 61, "truncated after "), (1 << 61, 5, "damaged crash dump: its header"),
])  # fmt: skip
def test_absurd_blocks(tmp_path, place, size, text):
    data = flattened(kdump(SMALL), twice=False)
    block = struct.pack(">2q", place, size) + bytes(5)
    found = line_of(written(tmp_path, data[:PAGE] + block + data[PAGE:]))
    assert found is None or found.startswith(text)
    assert refusal(written(tmp_path, data[:PAGE] + block)).startswith((text, "truncated after ", "empty"))


def test_a_flattened_dump_of_a_version_to_come(tmp_path):
    data = bytearray(flattened(kdump(SMALL)))
    struct.pack_into(">2q", data, 16, 1, 2)
    assert refusal(written(tmp_path, data)) == "a flattened crash dump of an unknown version: 1, 2"


def test_a_missing_package_is_said(tmp_path, monkeypatch):
    needs("lzo")
    path = written(tmp_path, kdump(PAGES, how="lzo"))
    monkeypatch.setattr(reader, "first_module", lambda *_: None)
    assert refusal(path) == "its pages are packed with lzo, which needs pip install ksm[formats]"

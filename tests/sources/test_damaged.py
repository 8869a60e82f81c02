# SPDX-License-Identifier: GPL-2.0-only
"""Cores and images that are cut off, changed, or made to take for ever: the error is one line, comes soon, and takes little memory."""

import os
import resource
import struct
import time

import pytest
from cores import NT_FILE, PAGE, PT_LOAD, PT_NOTE, READ, WRITE, auxv_note, files_note, note, page, write_core
from elftools.elf.elffile import ELFFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ksm
from ksm.sources import SourceError, open_file
from ksm.sources import core as reader
from ksm.sources.parts import FileParts

MIB, GIB = 1 << 20, 1 << 30
MEMORY = 3 * GIB  # the offset of the page that the cores of this file have
# Places of e_machine, e_version, e_entry, e_flags, e_ehsize, e_shentsize, e_shstrndx and padding, which are not read
UNREAD = {*range(6, 16), *range(18, 32), *range(48, 54), 58, 59, 62, 63}


def header(number, *, segments=64, size=56, sections=0, count=0, kind=4):
    ident = b"\x7fELF\2\1\1" + bytes(9)
    return ident + struct.pack("<2HI3QI6H", kind, 62, 1, 0, segments, sections, 0, 64, size, number, 64, count, 0)


def segment(kind, offset, addr, length, flags=READ | WRITE):
    return struct.pack("<2I6Q", kind, flags, offset, addr, addr, length, length, PAGE)


def sparse(path, *parts, size=MEMORY + PAGE):
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in parts:
            file.seek(offset)
            file.write(data)
    return path


def with_notes(path, length, *parts):
    """A core with notes of this length from the second page on, and a page of memory."""
    return sparse(path, (0, header(2) + segment(PT_NOTE, PAGE, 0, length) + segment(PT_LOAD, MEMORY, 0x10000, PAGE)), *parts,
                  (MEMORY, page(1)))


def with_many_segments(path, number, size=MEMORY):
    """A core whose number of segments does not fit into the header. Everything but the section that has the number is zeros."""
    section = struct.pack("<2I4Q2I2Q", 0, 0, 0, 0, 0, 0, 0, number, 0, 0)
    return sparse(path, (0, header(0xFFFF, segments=128, sections=64, count=1) + section), size=size)


def outcome(path):
    """How many bytes of memory the core has, or the one line that says why it is refused."""
    try:
        source = open_file(str(path))
    except SourceError as error:
        assert "\n" not in str(error)
        assert str(error).startswith(f"{path}: ")
        return str(error).removeprefix(f"{path}: ")
    source.close()
    return sum(group[-1].end - group[0].offset for group in source.groups) + source.copied


@pytest.fixture
def quickly():
    """The test takes little processor time and memory, whatever the file says."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert time.process_time() - start < 8
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 << 10


@pytest.fixture
def few(monkeypatch):
    """Lower the limits to numbers that a test can reach."""
    monkeypatch.setattr(reader, "MOST_SEGMENTS", 1000)
    monkeypatch.setattr(reader, "MOST_NOTES", 1000)


# Counts and sizes that are absurd

@pytest.mark.usefixtures("quickly")
def test_a_gigabyte_of_zeros_as_notes(tmp_path):
    assert outcome(with_notes(tmp_path / "core", GIB)) == PAGE


@pytest.mark.usefixtures("quickly")
def test_64_million_mapped_files(tmp_path):
    data = struct.pack("<3I", 5, GIB, NT_FILE) + b"CORE\0\0\0\0" + struct.pack("<2Q", 64 << 20, PAGE)
    path = with_notes(tmp_path / "core", 2 * GIB, (PAGE, data))
    assert outcome(path) == "damaged ELF core: lists of mapped files of more than 16 MiB"


@pytest.mark.usefixtures("few")
def test_many_notes(tmp_path):
    many = note("A", 1, b"") * 1001
    assert outcome(with_notes(tmp_path / "core", len(many), (PAGE, many))) == "damaged ELF core: more than 1,000 notes"
    assert outcome(with_notes(tmp_path / "core", len(many) - 16, (PAGE, many))) == PAGE


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize(("number", "size", "reason"), [
    ((1 << 32) - 1, 1 << 40, "damaged ELF core: 4,294,967,295 segments, and 1,048,576 are the most that are read"),
    ((1 << 32) - 1, GIB, "truncated: the file has 1,073,741,824 bytes, and should have 240,518,168,648 at least"),
    (19_000_000, MEMORY, "damaged ELF core: 19,000,000 segments, and 1,048,576 are the most that are read"),
    (100_000, MEMORY, "an ELF core without memory"), (0, MEMORY, "an ELF core without memory"),
])
def test_many_segments(tmp_path, number, size, reason):
    assert outcome(with_many_segments(tmp_path / "core", number, size)) == reason


@pytest.mark.parametrize(("head", "reason"), [
    (header(0xFFFF), "damaged ELF core"), (header(0xFFFF, sections=1 << 63, count=1), "truncated: "),
    (header(1, segments=(1 << 64) - 1), "truncated: "), (header(0, sections=(1 << 64) - 1, count=1), "truncated: "),
    (header(0xFFFE, size=0xFFFF), "truncated: "), (header(1, size=57), "damaged ELF core"),
    (header(1) + segment(PT_LOAD, (1 << 64) - PAGE, 0x10000, 2 * PAGE), "truncated: "),
    (header(1) + segment(PT_LOAD, PAGE, 0x10000, (1 << 64) - 1), "truncated: "),
    (header(1) + segment(PT_NOTE, (1 << 64) - 1, 0, (1 << 64) - 1), "truncated: "),
    (header(1) + segment(PT_NOTE, PAGE, 0, (1 << 64) - 1), "truncated: "),
    (header(1, kind=0), "not memory, but another kind in ELF format"),
])
def test_places_that_are_not_in_the_file(tmp_path, head, reason):
    assert outcome(sparse(tmp_path / "core", (0, head), size=MIB)).startswith(reason)


def test_addresses_at_the_end_of_the_address_space(tmp_path):
    """Addresses in a core are only numbers: its memory lies elsewhere in the process."""
    head = header(1) + segment(PT_LOAD, PAGE, (1 << 64) - PAGE, 3 * PAGE)
    assert outcome(sparse(tmp_path / "core", (0, head), size=MIB)) == 0     # the kernel's half


def test_segments_that_share_bytes(tmp_path):
    """Segments with more memory than the file has bytes are refused. A machine's core may have memory twice: see test_core.py."""
    heads = b"".join(segment(PT_LOAD, 0, 0x10000 + number * MIB, MIB) for number in range(1000))
    reason = outcome(sparse(tmp_path / "core", (0, header(1000) + heads), size=MIB))
    assert reason == "damaged ELF core: 256,000 pages of memory in a file of 1,048,576 bytes"


# Notes that contradict themselves

@pytest.mark.parametrize("notes", [
    struct.pack("<3I", 1 << 31, 0, 1), struct.pack("<3I", 0, 1 << 31, 1), struct.pack("<3I", (1 << 32) - 1, (1 << 32) - 1, 1),
    struct.pack("<3I", 5, 100, NT_FILE) + b"CORE\0\0\0\0",
], ids=["owner", "data", "both", "files"])
def test_a_note_longer_than_its_segment(tmp_path, notes):
    assert outcome(with_notes(tmp_path / "core", len(notes), (PAGE, notes))) == "damaged ELF core: a note is longer than its segment"


@pytest.mark.parametrize("data", [
    b"", bytes(15), struct.pack("<2Q", 1, PAGE), struct.pack("<2Q", (1 << 64) - 1, PAGE), struct.pack("<5Q", 1, PAGE, 0, PAGE, 0),
    struct.pack("<5Q", 1, PAGE, 0, PAGE, 0) + b"no end", struct.pack("<8Q", 2, PAGE, 0, PAGE, 0, PAGE, 2 * PAGE, 0) + b"only one\0",
], ids=["nothing", "short", "no entry", "many", "no name", "no end", "one name"])
def test_mapped_files_that_are_cut_off(tmp_path, data):
    notes = note("CORE", NT_FILE, data)
    assert outcome(with_notes(tmp_path / "core", len(notes), (PAGE, notes))) == "damaged ELF core: a list of mapped files that is cut off"


@pytest.mark.parametrize("bounds", [(0x10001, 0x11000), (0x10000, 0x10001), (0x10FFF, 0x11001)])
def test_mapped_files_within_pages(tmp_path, bounds):
    """A page that a file has a part of is the file's."""
    path = write_core(tmp_path / "core", [(0x10000, page(1) * 3, READ)], files_note((*bounds, "/bin/a")))
    whole = 1 if bounds[1] > 0x11000 else 2
    assert outcome(path) == whole * PAGE
    source = open_file(str(path))
    with ksm.Machine("1M", max_memory="64M") as machine:
        source.attach(machine)
        assert source.process.rss() == whole
        source.close()


def test_names_that_are_not_text(tmp_path):
    notes = note("CORE", NT_FILE, struct.pack("<8Q", 2, PAGE, 0, PAGE, 0, 16 * PAGE, 17 * PAGE, 0) + b"\xff\xfe\n\0\0")
    assert outcome(with_notes(tmp_path / "core", len(notes), (PAGE, notes))) == PAGE


@pytest.mark.usefixtures("quickly")
def test_mapped_files_that_are_all_everywhere(tmp_path):
    """Each segment lies in each of the files. Still each file is looked at once."""
    number = 100_000
    notes = note("CORE", NT_FILE, struct.pack("<2Q", number, PAGE) + struct.pack("<3Q", 0, 1 << 46, 0) * number + bytes(number))
    heads = b"".join(segment(PT_LOAD, MEMORY + n * PAGE, 0x10000 + n * PAGE, PAGE, READ) for n in range(20_000))
    head = header(20_001) + segment(PT_NOTE, 4 * MIB, 0, len(notes)) + heads
    assert outcome(sparse(tmp_path / "core", (0, head), (4 * MIB, notes), size=MEMORY + 20_000 * PAGE)) == 0


# Any change

def valid_core(path):
    notes = files_note((0x10000, 0x11000, "/bin/a"), (0x30000, 0x31000, "/dev/zero (deleted)")) + auxv_note(0x50000)
    memory = [(0x10000, page(1), READ), (0x20000, page(2) + page(3), READ | WRITE), (0x40000, page(4), READ)]
    return write_core(path, memory, notes + note("LINUX", 0x202, bytes(100)))


def test_each_byte_changed(tmp_path):
    """Each byte of the header, the segments and the notes is changed. The file is refused in a line, or still is a good core."""
    path = valid_core(tmp_path / "core")
    data = path.read_bytes()
    good = outcome(path)
    assert good == 3 * PAGE
    end = data.index(page(1))
    refused = 0
    with open(path, "r+b", buffering=0) as file, ksm.Machine("4M", max_memory="64M") as machine:
        for place in range(4, end):
            for change in (0x01, 0x80, 0xFF):
                os.pwrite(file.fileno(), bytes([data[place] ^ change]), place)
                found = outcome(path)
                refused += isinstance(found, str)
                assert found == good or place not in UNREAD
                if isinstance(found, int) and place % 16 == 0:
                    source = open_file(str(path))
                    source.attach(machine)
                    source.close()
            os.pwrite(file.fileno(), data[place : place + 1], place)
        assert machine.check() == []
    assert refused > 300


def test_cut_off_anywhere(tmp_path):
    path = valid_core(tmp_path / "core")
    size = path.stat().st_size
    for length in (*range(size - 1, size - 3 * PAGE, -509), *range(700, 3, -1)):
        os.truncate(path, length)
        assert outcome(path).startswith(("truncated: ", "not a memory image: "))
    os.truncate(path, 0)
    assert outcome(path) == "empty"


segments_of_a_core = st.lists(st.tuples(st.integers(0, (1 << 20) - 16), st.sampled_from([READ, WRITE, READ | WRITE])), max_size=6)
notes_of_a_core = st.lists(st.tuples(st.sampled_from(["CORE", "LINUX", "QEMU", "GDB", "AVeryLongOwnerIndeed"]), st.binary(max_size=40)),
                           max_size=6)
files_of_a_core = st.lists(st.tuples(st.integers(1, 1 << 30), st.text("ab/\u00e9", max_size=9)), max_size=4, unique_by=lambda file: file[0])


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(segments_of_a_core, notes_of_a_core, files_of_a_core, st.sampled_from([32, 64]), st.booleans())
def test_the_same_as_pyelftools(tmp_path, segments, notes, files, bits, xnum):
    """Another reader finds the same segments, files and owners in harmless cores."""
    listed = [(start * PAGE, start * PAGE + PAGE, name) for start, name in sorted(files)] if bits == 64 else []
    notes = b"".join(note(owner, 100, data) for owner, data in notes) + (files_note(*listed) if listed else b"")
    memory = [(start * PAGE + 8, page(number) * number, flags) for number, (start, flags) in enumerate(segments, 1)]
    path = write_core(tmp_path / "core", memory, notes, bits=bits, xnum=xnum)
    owners, mapped = set(), []
    with path.open("rb") as file:
        core = reader.read_core(FileParts("core", file.fileno(), path.stat().st_size))
        elf = ELFFile(file)
        for each in (each for one in elf.iter_segments("PT_NOTE") if one["p_filesz"] for each in one.iter_notes()):
            owners.add(each["n_name"])
            if each["n_type"] == "NT_FILE":
                entries = zip(each["n_desc"]["Elf_Nt_File_Entry"], each["n_desc"]["filename"], strict=True)
                mapped += [(entry["vm_start"], entry["vm_end"], name.decode()) for entry, name in entries]
        loads = [(one["p_vaddr"], one["p_offset"], one["p_filesz"], one["p_flags"] & WRITE) for one in elf.iter_segments("PT_LOAD")]
    assert core.notes.machine == ("QEMU" in owners)
    assert core.notes.gdb == ("GDB" in owners)
    assert core.notes.files == mapped == listed
    whole = [(start + PAGE - 8, offset + PAGE - 8, bool(writable)) for start, offset, length, writable in loads if length > PAGE]
    assert [(one.start, one.offset, one.writable) for one in core.segments] == whole


# Files that change meanwhile

@pytest.mark.parametrize("odd", [0, 8], ids=["mapped", "copied"])
@pytest.mark.parametrize("length", [0, 3 * PAGE, -1])
def test_a_core_shrinks_before_it_is_mapped(tmp_path, odd, length):
    path = write_core(tmp_path / "core", [(0x10000, page(1) * 8, READ | WRITE)], odd=odd)
    source = open_file(str(path))
    os.truncate(path, length if length >= 0 else path.stat().st_size - 1)
    refused_meanwhile(source, path)


@pytest.mark.parametrize("length", [0, 3 * PAGE, 8 * PAGE - 1])
@pytest.mark.parametrize("late", [False, True], ids=["before", "within"])
def test_an_image_shrinks_before_it_is_mapped(tmp_path, length, late):
    path = tmp_path / "image"
    path.write_bytes(page(1) * 8)
    source = open_file(str(path))
    os.truncate(path, length)
    if late:
        source.needed = 0  # it was long enough a moment ago
    refused_meanwhile(source, path)


def refused_meanwhile(source, path):
    with ksm.Machine("1M", max_memory="64M") as machine:
        with pytest.raises(SourceError) as caught:
            source.attach(machine)
        assert str(caught.value) == f"{path}: was truncated meanwhile"
        source.close()
        assert machine.check() == []


def test_an_image_grows_before_it_is_mapped(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(page(1) * 8)
    source = open_file(str(path))
    with path.open("ab") as file:
        file.write(b"more")
    with ksm.Machine("1M", max_memory="64M") as machine:
        source.attach(machine)
        assert [length for _, length in source.ranges()] == [8 * PAGE]
        source.close()


# Paths that are not regular files

def test_what_is_no_regular_file_is_not_opened(tmp_path, monkeypatch):
    """Merely opening such a file can wait for ever, or start a watchdog."""
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.setattr(os, "open", lambda *_, **__: pytest.fail("opened"))
    for path in (tmp_path / "fifo", "/dev/zero", "/dev/tty"):
        assert outcome(path) == "not a regular file"
    assert outcome(tmp_path) == "is a directory"


@pytest.mark.parametrize("path", ["/proc/self/mem", "/proc/self/maps", "/proc/kmsg", "/proc/kpageflags", "/sys/kernel/mm/ksm/run"])
def test_files_of_the_kernel(path):
    if not os.access(path, os.R_OK):
        pytest.skip("not here, or not for us")
    source = None
    try:
        source = open_file(path)
        with ksm.Machine("1M", max_memory="64M") as machine:
            source.attach(machine)
    except SourceError as error:
        assert "\n" not in str(error)
    finally:
        if source:
            source.close()

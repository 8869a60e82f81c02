# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's migration stream, as QEMU writes it and as the tests do, and libvirt's header before it."""

import bz2
import gzip
import itertools
import lzma
import struct
import sys
import time
import zlib
from contextlib import ExitStack
from pathlib import Path

import pytest
from dump_checks import contents, cut_off, flipped, outcome, same_as_image, scanned
from dump_writers import (
    BLOCK,
    EOS,
    MIB,
    PAGE,
    ZEROS,
    Stream,
    footer,
    libvirt,
    mapped_ram,
    qemu,
    qemu_configuration,
    section,
    some_memory,
    subsection,
    word,
    write_image,
)
from fuzz.readers import BytesInput
from qemu_guest import Guest, there

from ksm.sources import open_file
from ksm.sources.dumps.qemu import open_qemu

pytestmark = pytest.mark.once

needs_qemu = pytest.mark.skipif(not there(), reason="qemu-system-x86_64 is not installed (Debian: qemu-system-x86)")
MEMORY = 32 * MIB


def one(content):
    return content.to_bytes(1, "little") * PAGE


# Streams of QEMU itself

class Machine(Guest):
    """A guest whose memory is a file, so that an image of its RAM is there: the one of pmemsave has the BIOS where that covers it."""

    def __init__(self, folder, *options, machine="pc"):
        memory = f"memory-backend-file,id=m,size=32M,mem-path={folder}/ram,share=on"
        super().__init__(folder, "-object", memory, "-machine", f"{machine},memory-backend=m", *options)

    def migrate(self, name, *capabilities, to="exec:cat > {}"):
        """Migrate to a file, with these capabilities."""
        known = {each["capability"] for each in self.do("query-migrate-capabilities")}
        if not known.issuperset(capabilities):
            pytest.skip(f"this QEMU does not know {', '.join(capabilities)}")
        self.do("migrate-set-capabilities", capabilities=[{"capability": each, "state": True} for each in capabilities])
        path = self.folder / name
        self.do("migrate", uri=to.format(path))
        for _ in range(400):
            if self.do("query-migrate")["status"] in ("completed", "failed"):
                break
            time.sleep(0.05)
        assert self.do("query-migrate")["status"] == "completed"
        return path

    def raw(self):
        path = self.folder / "ram"
        saved = self.folder / "physical"
        self.do("pmemsave", val=0, size=MEMORY, filename=str(saved))
        data, physical = path.read_bytes(), saved.read_bytes()
        assert data[:0xC0000] == physical[:0xC0000] and data[MIB:] == physical[MIB:] and any(data[MIB:])
        return path


@pytest.fixture
def guest(tmp_path):
    with ExitStack() as stack:
        yield lambda *options, **how: stack.enter_context(Machine(tmp_path, *options, **how))


def ram(source, block="m"):
    """The pages of a block of a source."""
    memory = contents(source)
    first, length = source.blocks[block].base // PAGE, source.blocks[block].length // PAGE
    return {number - first: page for number, page in memory.items() if first <= number < first + length}


def pages_of(path):
    data = path.read_bytes()
    return {at // PAGE: data[at : at + PAGE] for at in range(0, len(data), PAGE)}


@needs_qemu
@pytest.mark.parametrize("capabilities", [(), ("compress",), ("validate-uuid",)], ids=["plain", "compress", "uuid"])
def test_a_guest_of_qemu(guest, tmp_path, capabilities):
    machine = guest("-uuid", "12345678-1234-1234-1234-123456789abc")
    raw = machine.raw()
    path = machine.migrate("stream", *capabilities)
    source = open_file(str(path))
    assert ram(source) == pages_of(raw)
    assert source.holes == 0
    note, = source.notes
    assert note.startswith("RAM blocks of QEMU: m 8,192 pages, pc.bios 64 pages, ")
    assert source.copied == sum(block.length for block in source.blocks.values())
    # The other blocks as a second image: what is counted of both together is what the stream has
    others = {number: page for number, page in contents(source).items() if number >= MEMORY // PAGE}
    source.close()
    both = tmp_path / "both"
    write_image(both, {**pages_of(raw), **others})
    assert scanned(path) == scanned(both) == scanned(path, exact=True)


@needs_qemu
@pytest.mark.parametrize("capabilities", [("mapped-ram",), ("mapped-ram", "multifd")], ids="-".join)
def test_mapped_ram_of_qemu(guest, capabilities):
    """QEMU has it since 9.0."""
    machine = guest()
    raw = machine.raw()
    source = open_file(str(machine.migrate("stream", *capabilities, to="file:{}")))
    assert ram(source) == pages_of(raw)
    assert source.notes[0].startswith("RAM blocks of QEMU: m 8,192 pages, pc.bios 64 pages, ")
    assert source.holes == 0


@needs_qemu
@pytest.mark.parametrize("begin", [200, 4096, 1 << 20])
def test_mapped_ram_of_qemu_behind_a_header(guest, begin):
    """Offsets are those in the file. libvirt's "sparse" writes its header before such a stream."""
    machine = guest()
    raw = machine.raw()
    path = machine.migrate("saved", "mapped-ram", to=f"file:{{}},offset={begin}")
    with path.open("r+b") as file:
        file.write(libvirt(b"", 6))
    assert ram(open_file(str(path))) == pages_of(raw)


def test_mapped_ram_of_qemu_10():
    """A sample: microvm with 4 MiB, a BIOS of zeros, and 300 pages at 1 MiB; multifd. It is packed, too."""
    source = open_file(str(Path(__file__).with_name("samples") / "qemu-10.0-mapped-ram.xz"))
    expected = {number: ZEROS for number in range(1024)}
    for number in range(300):
        expected[256 + number] = b"%08d" % (number % 7 if number % 3 else number) * 512
    assert ram(source, "pc.ram") == expected
    assert source.notes == ["RAM blocks of QEMU: pc.ram 1,024 pages, pc.bios 16 pages"]


@needs_qemu
def test_a_guest_of_libvirt(guest):
    """virsh save writes its header, and has QEMU write the rest."""
    machine = guest()
    raw = machine.raw()
    path = machine.migrate("stream")
    saved = path.with_name("saved")
    saved.write_bytes(libvirt(path.read_bytes()))
    assert ram(open_file(str(saved))) == pages_of(raw)


@needs_qemu
def test_shared_memory_that_is_left_out(guest):
    source = open_file(str(guest().migrate("stream", "x-ignore-shared")))
    contents(source)
    assert source.notes[1] == "left out 8,192 pages of shared memory, which is not in the stream"
    assert source.holes == 0


@needs_qemu
@pytest.mark.parametrize("machine", ["pc", "q35", "microvm"])
def test_a_guest_that_runs(guest, machine):
    """The firmware runs, so that pages come twice."""
    running = guest(machine=machine)
    running.do("cont")
    path = running.migrate("stream")
    assert outcome(path) == ""


@needs_qemu
def test_a_bitmap_of_a_disk_comes_before_the_memory(guest):
    path = guest().migrate("stream", "dirty-bitmaps")
    reason = "a migration stream of QEMU with the section 'dirty-bitmap' before the end of its memory, which is not read"
    assert outcome(path) == reason


@needs_qemu
def test_a_stream_through_a_pipe(guest):
    machine = guest()
    raw = machine.raw()
    data = machine.migrate("stream").read_bytes()
    assert ram(open_qemu(BytesInput(data, 5000))) == pages_of(raw)


# Streams of the tests

def write_mapped(memory):
    return mapped_ram([("pc.ram", (max(memory) + 1) * PAGE, memory), ("pc.rom", PAGE, {0: ZEROS})])


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("compress", [False, True])
def test_counts_of_a_raw_image(tmp_path, seed, compress):
    memory = some_memory(seed)
    path = tmp_path / "stream"
    path.write_bytes(qemu(memory, compress=compress))
    same_as_image(path, memory)
    source = open_file(str(path))
    assert contents(source) == contents(source) == memory
    assert source.holes == max(memory) + 1 + 1 - len(memory)
    source.close()


@pytest.mark.parametrize("seed", range(2))
def test_counts_of_mapped_ram(tmp_path, seed):
    """A page that is not in the bitmap is one of zeros."""
    memory = {number: ZEROS for number in range(700)} | some_memory(seed, 500)
    path = tmp_path / "stream"
    path.write_bytes(write_mapped(memory))
    base = -(-(max(memory) + 1) // 512) * 512
    same_as_image(path, {number: ZEROS for number in range(max(memory))} | memory | {base: ZEROS})
    source = open_file(str(path))
    assert source.holes == 0
    assert contents(source) == contents(source)
    source.close()
    assert contents(open_qemu(BytesInput(write_mapped(memory), 99999)))[max(memory)] == memory[max(memory)]


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("gap", [0, 4000])
def test_mapped_ram_in_a_file_of_libvirt(tmp_path, shift, gap):
    """Offsets count from the beginning of the file, or from that of the stream."""
    memory = {0: one(1), 3: one(2), 5: one(1)}
    head = libvirt(bytes(gap), 6)
    path = tmp_path / "saved"
    path.write_bytes(mapped_ram([("pc.ram", 6 * PAGE, memory)], head, len(head) * shift))
    assert contents(open_file(str(path))) == {number: memory.get(number, ZEROS) for number in range(6)}


def test_shared_memory_beside_mapped_ram(tmp_path):
    """A block that is left out has neither a bitmap nor pages."""
    head = bare(qemu_configuration(capabilities=("x-ignore-shared", "mapped-ram")), section(1, 2, "ram"), word(8 * PAGE | 4))
    head += b"\1a" + word(4 * PAGE) + word(0) + struct.pack(">I3Q", 1, PAGE, 0, 0) + b"\1b" + word(4 * PAGE) + word(1 << 32)
    head += struct.pack(">I3Q", 1, PAGE, len(head) + 28, MIB) + b"\x0a".ljust(8, b"\0")
    path = tmp_path / "stream"
    path.write_bytes(head.ljust(MIB, b"?") + b"".join(one(number) for number in range(4)) + END)
    source = open_file(str(path))
    assert ram(source, "b") == {0: ZEROS, 1: one(1), 2: ZEROS, 3: one(3)}
    assert source.notes == ["RAM blocks of QEMU: b 4 pages", "left out 4 pages of shared memory, which is not in the stream"]
    assert source.holes == 0


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("form", [0, 6])
def test_libvirts_header(tmp_path, order, form):
    path = tmp_path / "saved"
    path.write_bytes(libvirt(qemu({0: one(1)}), form, order=order))
    assert contents(open_file(str(path))) == {0: one(1)}


def zstd(data):
    library = pytest.importorskip("backports.zstd" if sys.version_info < (3, 14) else "compression.zstd", reason="there is no zstd here")
    return library.compress(data)


@pytest.mark.parametrize(("form", "pack"), [(1, gzip.compress), (2, bz2.compress), (3, lzma.compress), (5, zstd)],
                         ids=["gzip", "bzip2", "xz", "zstd"])
def test_guests_that_libvirt_has_packed(tmp_path, form, pack):
    """save_image_format of qemu.conf"""
    memory = some_memory(8, 400)
    path = tmp_path / "saved"
    path.write_bytes(libvirt(pack(qemu(memory)), form))
    same_as_image(path, memory)
    source = open_file(str(path))
    assert contents(source) == contents(source) == memory
    source.close()
    path.write_bytes(libvirt(pack(qemu(memory))[:-100], form))
    assert "truncated" in outcome(path)
    path.write_bytes(libvirt(qemu(memory), form))
    assert "data behind the header of libvirt" in outcome(path)


@pytest.mark.parametrize(("data", "reason"), [
    (libvirt(b"\x89LZO\0", 4), "a saved guest of libvirt, packed with lzop, which is not read: set save_image_format anew"),
    (libvirt(b"", 99), "a saved guest of libvirt, packed in a way that is not read"),
    (struct.pack("<16s19I", b"LibvirtQemudSave", 3, *[0] * 18), "a saved guest of libvirt, of a version that is not read"),
    (struct.pack("<16s19I", b"LibvirtQemudSave", 2, 1 << 31, *[0] * 17), "damaged: a guest's XML of 2,147,483,648 bytes"),
    (struct.pack("<16s19I", b"LibvirtQemudSave", 2, 100, *[0] * 17), "truncated after 92 bytes"),
    (libvirt(b"What is this?"), "a migration stream of QEMU with another beginning, which is not read"),
    (b"LibvirtQemudSave", "truncated after 16 bytes"),
])
def test_headers_of_libvirt_that_are_wrong(tmp_path, data, reason):
    path = tmp_path / "saved"
    path.write_bytes(data)
    assert outcome(path) == reason


def test_the_last_one_of_several_pages_counts(tmp_path):
    """With several threads, too: a page that comes again waits for the one before."""
    stream = Stream([("pc.ram", 4 * MIB), ("pc.rom", PAGE)])
    for content in range(1, 60):
        for number in (*range(0, 512, 2), 7):
            stream.page("pc.ram", number, one(content))
        if content % 10 == 0:
            stream.begin(2)
    stream.begin(3)
    memory = {number: one(59) for number in (*range(0, 512, 2), 7)}
    path = tmp_path / "stream"
    path.write_bytes(stream.end())
    source = open_file(str(path))
    assert contents(source) == memory
    assert source.holes == 1024 + 1 - len(memory)
    for threads in (1, 2, 7):
        assert scanned(path, threads=threads) == scanned(write_image(tmp_path / "image", memory))


def test_blocks_lie_one_after_the_other(tmp_path):
    stream = Stream([("a", 3 * PAGE), ("b", BLOCK + PAGE), ("c", PAGE)])
    for block, number, content in [("a", 2, 1), ("b", 512, 2), ("b", 0, 3), ("c", 0, 4), ("a", 0, 5)]:
        stream.page(block, number, one(content))
    stream.begin(3)
    path = tmp_path / "stream"
    path.write_bytes(stream.end())
    source = open_file(str(path))
    assert contents(source) == {2: one(1), 1024: one(2), 512: one(3), 1536: one(4), 0: one(5)}
    assert source.notes == ["RAM blocks of QEMU: b 2 pages, a 2 pages, c 1 page"]
    assert source.holes == 1 + 511


def test_the_block_of_the_section_before(tmp_path):
    """A page that names no block belongs to that of the page before, in another section too."""
    stream = Stream([("a", 4 * PAGE)])
    stream.page("a", 1, one(1))
    stream.begin(2)
    stream.page("a", 2, one(2))
    stream.begin(3)
    path = tmp_path / "stream"
    path.write_bytes(stream.end())
    assert contents(open_file(str(path))) == {1: one(1), 2: one(2)}


def test_old_pages_of_one_byte(tmp_path):
    """Before 2013, a page that repeats any byte came as that byte."""
    stream = Stream([("a", 4 * PAGE)])
    stream.data += word(PAGE | 2) + b"\1a" + b"\x5a" + word(2 * PAGE | 2 | 32) + b"\0"
    stream.begin(3)
    path = tmp_path / "stream"
    path.write_bytes(stream.end())
    assert contents(open_file(str(path))) == {1: b"\x5a" * PAGE, 2: ZEROS}


def bare(*parts):
    """A stream that begins as it should, and goes on with these parts."""
    return b"QEVM" + struct.pack(">I", 3) + b"".join(parts)


def listed(*parts, name=b"a", length=4 * PAGE, total=None):
    """A stream with a list of one block, and these parts."""
    start = section(1, 2, "ram") + word((length if total is None else total) | 4) + bytes([len(name)]) + name + word(length)
    return bare(qemu_configuration(), start, *parts)


def command(number, data=b""):
    return b"\x08" + struct.pack(">2H", number, len(data)) + data


NOT_READ = ", which is not read"
QEMU = "a migration stream of QEMU with "
END = word(EOS) + section(3, 2) + word(EOS)


@pytest.mark.parametrize(("data", "reason"), [
    (b"QEVM\0\0\0\2" + bytes(20), QEMU + "version 2" + NOT_READ),
    (bare(b"\7\xff\xff\xff\xff"), "damaged: a machine's name of 4,294,967,295 bytes"),
    (bare(qemu_configuration(page_bits=16)), QEMU + "pages of 2^16 bytes" + NOT_READ),
    (bare(qemu_configuration(), subsection("configuration/new")), QEMU + "'configuration/new'" + NOT_READ),
    (bare(qemu_configuration(), subsection("configuration/capabilities"), b"\xff\xff\xff\xff"), "damaged: 4,294,967,295 capabilities"),
    (bare(section(1, 2, "block")), QEMU + "the section 'block' before the end of its memory" + NOT_READ),
    (bare(section(4, 2, "virtio-mem-device-early")),
     QEMU + "the section 'virtio-mem-device-early' before the end of its memory" + NOT_READ),
    (bare(section(1, 2, "ram", 3)), QEMU + "version 3 of its memory" + NOT_READ),
    (bare(section(1, 2, "ram"), word(8)), "damaged: no list of RAM blocks, but 0x8"),
    (bare(section(1, 2, "ram"), word(1 << 60 | 4)), "damaged: no list of RAM blocks, but 0x1000000000000004"),
    (bare(b"\x09"), "damaged: a section of type 0x9"),
    (bare(b"\0"), "damaged: a section of type 0x0"),
    (listed(total=PAGE), "damaged: a RAM block of 16,384 bytes, of 4,096"),
    (listed(length=PAGE // 2, total=PAGE), "damaged: a RAM block of 2,048 bytes, of 4,096"),
    (listed(total=8 * PAGE) + b"\1a" + word(4 * PAGE), "damaged: a RAM block of 16,384 bytes, of 16,384"),
    (listed(word(8) + b"\1b" + one(1)), "damaged: a page of a RAM block that is not in the list"),
    (listed(word(4 * PAGE | 8) + b"\1a" + one(1)), "damaged: a page at 0x4000 of a RAM block of 0x4000 bytes"),
    (listed(word(8 | 32) + one(1)), "damaged: a page at 0x0 of a RAM block of 0x0 bytes"),
    (listed(word(64) + b"\1a"), QEMU + "XBZRLE" + NOT_READ),
    (listed(word(64 | 32)), QEMU + "XBZRLE" + NOT_READ),
    (listed(word(128)), QEMU + "RDMA" + NOT_READ),
    (listed(word(512)), QEMU + "multifd" + NOT_READ),
    (listed(word(8 | 2)), "damaged: a page with flags 0xa"),
    (listed(word(1)), "damaged: a page with flags 0x1"),
    (listed(word(4 * PAGE | 4)), "damaged: a page with flags 0x4"),
    (listed(word(256) + b"\1a" + struct.pack(">I", 1 << 31)), "damaged: a compressed page of 2,147,483,648 bytes"),
    (listed(word(256) + b"\1a" + struct.pack(">I", 8) + bytes(8)), "damaged: a compressed page that cannot be unpacked"),
    (listed(word(256) + b"\1a" + struct.pack(">I", 9) + zlib.compress(b"1")), "damaged: a compressed page that cannot be unpacked"),
    (listed(word(EOS), section(2, 3)), QEMU + "the section number 3 before the end of its memory" + NOT_READ),
    (listed(word(EOS), section(4, 3, "timer")), QEMU + "the section 'timer' before the end of its memory" + NOT_READ),
    (listed(word(EOS), section(1, 3, "ram")), "damaged: a second section of RAM"),
    (listed(word(EOS), b"\0"), "damaged: it ends before its memory does; was the migration cancelled?"),
    (listed(word(EOS), b"\x0a"), "damaged: a section of type 0xa"),
    (listed(END), "no memory in this stream of QEMU; with multifd, it came through other connections"),
    (listed(word(EOS), command(4), END), QEMU + "postcopy" + NOT_READ),
    (listed(word(EOS), command(8, b"1234"), END), QEMU + "postcopy" + NOT_READ),
    (listed(word(EOS), command(10), END), QEMU + "COLO" + NOT_READ),
    (bare(command(3, word(2 << 20 | PAGE) + word(PAGE))), QEMU + "postcopy of huge pages" + NOT_READ),
])
def test_streams_that_are_wrong(tmp_path, data, reason):
    path = tmp_path / "stream"
    path.write_bytes(data)
    assert outcome(path) == reason


def test_commands_that_change_nothing(tmp_path):
    path = tmp_path / "stream"
    page = word(8) + b"\1a" + one(1)
    data = listed(page, word(EOS), footer(2), command(1), command(2, b"1234"), section(3, 2), word(EOS))
    path.write_bytes(bare(command(3, word(PAGE) * 2)) + data[8:])
    assert contents(open_file(str(path))) == {0: one(1)}
    path.write_bytes(bare(command(3)) + data[8:])
    assert contents(open_file(str(path))) == {0: one(1)}


@pytest.mark.parametrize(("version", "size", "bitmap", "pages", "reason"), [
    (2, PAGE, None, None, QEMU + "mapped-ram of version 2 and pages of 4,096 bytes" + NOT_READ),
    (1, 16384, None, None, QEMU + "mapped-ram of version 1 and pages of 16,384 bytes" + NOT_READ),
    (1, PAGE, 7, None, "damaged: mapped-ram with a bitmap at 7 and pages at 1,048,576"),
    (1, PAGE, None, 1 << 62, "damaged: mapped-ram with a bitmap at "),
    (1, PAGE, None, 0, "damaged: mapped-ram with a bitmap at "),
])
def test_mapped_ram_that_is_wrong(tmp_path, version, size, bitmap, pages, reason):
    data = bytearray(mapped_ram([("pc.ram", 6 * PAGE, {0: one(1)})]))
    at = data.index(b"\x06pc.ram") + 7 + 8
    old = struct.unpack_from(">I3Q", data, at)
    struct.pack_into(">I3Q", data, at, version, size, old[2] if bitmap is None else bitmap, old[3] if pages is None else pages)
    path = tmp_path / "stream"
    path.write_bytes(data)
    assert outcome(path).startswith(reason)


def test_a_block_that_is_longer_than_the_file(tmp_path):
    """Neither its bitmap nor its pages are believed."""
    path = tmp_path / "stream"
    head = bare(qemu_configuration(capabilities=("mapped-ram",)), section(1, 2, "ram"), word(1 << 45 | 4), b"\1a", word(1 << 45))
    path.write_bytes(head + struct.pack(">I3Q", 1, PAGE, len(head) + 28, 1 << 31))
    assert outcome(path) == f"truncated after {len(head) + 28} bytes"


@pytest.mark.parametrize("write", [qemu, lambda memory: qemu(memory, compress=True), write_mapped, lambda memory: libvirt(qemu(memory))],
                         ids=["plain", "compressed", "mapped", "libvirt"])
def test_cut_off(tmp_path, write):
    data = write(some_memory(4, 300))
    cut_off(tmp_path / "stream", data, data.index(b"timer") - 30)


@pytest.mark.parametrize("write", [qemu, lambda memory: qemu(memory, compress=True), write_mapped], ids=["plain", "compressed", "mapped"])
def test_changed(tmp_path, write):
    flipped(tmp_path / "stream", write(some_memory(5, 200)), 5, within=1 << 18)


def test_many_pages_here_and_there(tmp_path):
    """A page of each 2 MiB, and back again: pieces of one page."""
    stream = Stream([("a", 300 * BLOCK)])
    for number in itertools.chain(range(300), range(299, -1, -1)):
        stream.page("a", number * 512, one(number % 7))
    stream.begin(3)
    path = tmp_path / "stream"
    path.write_bytes(stream.end())
    source = open_file(str(path))
    assert contents(source) == {number * 512: one(number % 7) for number in range(300)}
    assert source.holes == 300 * 511

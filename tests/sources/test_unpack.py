# SPDX-License-Identifier: GPL-2.0-only
"""Compressed files and pipes: the same memory, however it comes."""

import bz2
import gzip
import lzma
import os
import random
import shutil
import subprocess
import sys
import threading
import time

import pytest
from cores import PAGE, READ, WRITE, page, write_core
from outcomes import counts, line_of, refusal, same_but_for_the_name

from ksm.sources import SourceError, open_file, stream
from ksm.sources import unpack as unpacker
from ksm.sources.formats import packing_of
from ksm.sources.input import FileInput

zstd = unpacker.first_module("compression.zstd", "backports.zstd")
lz4 = unpacker.first_module("lz4.frame")
cramjam = unpacker.first_module("cramjam")

# How the tests pack, with the libraries; the commands of the same names are tried below.
PACK = {
    "gzip": gzip.compress, "xz": lzma.compress, "bzip2": bz2.compress, "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "zstd": zstd and (lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})),
    "lz4": lz4 and (lambda data: lz4.compress(data, content_checksum=True)),
    "snappy": cramjam and (lambda data: bytes(cramjam.snappy.compress(data))),
}  # fmt: skip
PACK = {what: pack for what, pack in PACK.items() if pack}
needs_zstd = pytest.mark.skipif(zstd is None, reason="neither Python's zstd nor backports.zstd")
COMMANDS = {
    "gzip": ["gzip", "-c"], "gzip -9": ["gzip", "-9c"], "zstd": ["zstd", "-qc"], "zstd -T2 --long": ["zstd", "-qc", "-T2", "--long"],
    "zstd --no-check": ["zstd", "-qc", "--no-check", "-1"], "xz": ["xz", "-c"], "xz -T2": ["xz", "-T2", "--block-size=65536", "-c"],
    "xz --format=lzma": ["xz", "--format=lzma", "-c"], "bzip2": ["bzip2", "-c"], "lz4": ["lz4", "-qc"], "lz4 -BD": ["lz4", "-qcBD"],
    "lz4 --content-size": ["lz4", "-qc", "--content-size", "-9"], "pzstd": ["pzstd", "-qc"],
}  # fmt: skip
SKIPPABLE = b"\x53\x2a\x4d\x18\x05\0\0\0hello"


def memory():
    rng = random.Random(5)
    pages = [page(number % 9 + 1) for number in range(300)] + [bytes(PAGE)] * 100 + [rng.randbytes(PAGE) for _ in range(100)]
    rng.shuffle(pages)
    return b"".join(pages)


MEMORY = memory()


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    path = tmp_path_factory.mktemp("unpack") / "raw"
    path.write_bytes(MEMORY)
    return path


def packed(tmp_path, *data):
    path = tmp_path / "packed"
    path.write_bytes(b"".join(data))
    return path


@pytest.mark.parametrize("exact", [False, True], ids=["fingerprints", "bytes"])
@pytest.mark.parametrize("what", PACK)
def test_a_packed_image_counts_as_the_image(tmp_path, raw, what, exact):
    path = packed(tmp_path, PACK[what](MEMORY))
    assert packing_of(path.read_bytes()[:4096]).what == what
    assert counts(path, exact=exact) == counts(raw, exact=exact)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_the_commands_pack(tmp_path, raw, command):
    if {"pzstd": "zstd"}.get(word := command.split()[0], word) not in PACK:
        pytest.skip(f"no package for {command}")
    if shutil.which(COMMANDS[command][0]) is None:
        pytest.skip(f"no {COMMANDS[command][0]}")
    path = tmp_path / "packed"
    with open(raw, "rb") as source, open(path, "wb") as target:
        subprocess.run(COMMANDS[command], stdin=source, stdout=target, check=True)
    assert counts(path) == counts(raw)


@pytest.mark.parametrize("what", PACK)
def test_members_follow_each_other(tmp_path, raw, what):
    """As cat makes them of several files; also empty ones, and padding behind them as a tape has."""
    cut = 100 * PAGE + 77
    parts = [PACK[what](MEMORY[:cut]), PACK[what](b""), PACK[what](MEMORY[cut:])]
    padding = b"" if what == "snappy" else bytes(512)
    assert counts(packed(tmp_path, *parts, padding)) == counts(raw)


@pytest.mark.parametrize("what", [what for what in ("zstd", "lz4") if what in PACK])
def test_skippable_frames(tmp_path, raw, what):
    half = len(MEMORY) // 2
    parts = [SKIPPABLE, PACK[what](MEMORY[:half]), SKIPPABLE, PACK[what](MEMORY[half:]), SKIPPABLE]
    assert counts(packed(tmp_path, *parts)) == counts(raw)


@pytest.mark.skipif(cramjam is None, reason="no cramjam")
def test_chunks_of_snappy_that_nobody_has_to_know(tmp_path, raw):
    data = PACK["snappy"](MEMORY)
    assert counts(packed(tmp_path, data[:10], b"\xfe\x03\0\0abc\x80\0\0\0", data[10:])) == counts(raw)
    assert "damaged snappy data before byte " in refusal(packed(tmp_path, data[:10], b"\x02\x03\0\0abc", data[10:]))
    assert "damaged snappy data before byte " in refusal(packed(tmp_path, data[:10], b"\0\xff\xff\xff", data[10:]))


def test_packed_twice_and_no_more(tmp_path, raw):
    twice = PACK["gzip"](PACK["bzip2"](MEMORY))
    assert counts(packed(tmp_path, twice)) == counts(raw)
    assert refusal(packed(tmp_path, PACK["xz"](twice))) == "packed more than 2 times"


@pytest.mark.parametrize("what", PACK)
def test_what_is_inside_is_told_by_its_content(tmp_path, what):
    assert refusal(packed(tmp_path, PACK[what](b"%PDF-1.7".ljust(2 * PAGE, b"\0")))) == "not a memory image, but a PDF document"
    assert refusal(packed(tmp_path, PACK[what](b""))) == "empty"
    assert "4097 bytes are not whole pages of 4096" in refusal(packed(tmp_path, PACK[what](bytes(PAGE + 1))))


@pytest.mark.parametrize("what", PACK)
def test_cut_off_anywhere(tmp_path, what):
    data = PACK[what](MEMORY[: 150 * PAGE])
    random.seed(what)
    for length in [*random.sample(range(1, len(data) - 1), 48), len(data) - 1, 20]:
        assert line_of(packed(tmp_path, data[:length])) is not None


@pytest.mark.parametrize("what", PACK)
def test_bytes_changed(tmp_path, what):
    """The data are refused in a line, or give pages: not every byte of every format is covered by a checksum."""
    data = bytearray(PACK[what](MEMORY[: 60 * PAGE]))
    rng = random.Random(what)
    refused = 0
    for _ in range(60):
        changed = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        refused += line_of(packed(tmp_path, changed)) is not None
    assert refused > (0 if what == "lzma" else 30)


def test_bytes_behind_the_end(tmp_path):
    path = packed(tmp_path, PACK["gzip"](MEMORY), b"something")
    assert refusal(path) == f"damaged: byte {path.stat().st_size - 9:,} is behind the gzip data, and does not begin more of them"
    assert "does not begin more of them" in refusal(packed(tmp_path, PACK["gzip"](MEMORY), PACK["xz"](MEMORY)))


@needs_zstd
def test_large_windows(tmp_path):
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 28})
    text = refusal(packed(tmp_path, compressor.compress(MEMORY), compressor.flush()))
    assert text == "packed with a window of more than 128 MiB (zstd --long): zstd -dc --long=31 FILE | ksm scan -"
    # The compressor would take gigabytes, so only the header says that the dictionary is large.
    data = bytearray(lzma.compress(MEMORY, lzma.FORMAT_ALONE))
    data[1:5] = (1 << 29).to_bytes(4, "little")
    assert refusal(packed(tmp_path, data)) == "lzma needs more than 256 MiB to unpack this: xz -dc FILE | ksm scan -"


@pytest.mark.parametrize("what", ["gzip", "xz", "bzip2", *(["zstd"] if zstd else [])])
def test_bombs_take_bounded_memory(tmp_path, what, monkeypatch):
    """What unpacks to very much is read in small parts. What ends it is the room that its pages take in the machine."""
    chunk = PACK[what](bytes(32 << 20))
    path = packed(tmp_path, *[chunk] * 40)
    largest = 0
    original = unpacker.Unpacked._next

    def measured(self, most):
        nonlocal largest
        data = original(self, most)
        largest = max(largest, len(data))
        return data

    rooms = iter([500 << 20] * 4 + [50 << 20])
    monkeypatch.setattr(unpacker.Unpacked, "_next", measured)
    monkeypatch.setattr(stream, "available_memory", lambda: next(rooms))
    assert refusal(path) == "not enough memory: it runs out after 320 MiB of the source"
    assert 0 < largest <= 1 << 20


@pytest.mark.parametrize(("what", "module", "command"), [
    ("zstd", "zstd", "zstd -dc FILE"), ("lz4", "lz4.frame", "lz4 -dc FILE"), ("snappy", "cramjam", "snzip -dc FILE"),
])  # fmt: skip
def test_a_missing_package_is_said(tmp_path, monkeypatch, what, module, command):
    for name in (module, f"backports.{module}", f"compression.{module}"):
        monkeypatch.setitem(sys.modules, name, None)
    # What it would be is known by the first bytes.
    start = {"zstd": b"\x28\xb5\x2f\xfd", "lz4": b"\x04\x22\x4d\x18", "snappy": b"\xff\x06\0\0sNaPpY"}[what]
    text = refusal(packed(tmp_path, start, bytes(100)))
    assert text == f"packed with {what}, which needs pip install ksm[formats]; or pipe it: {command} | ksm scan -"


# Pipes

@pytest.fixture
def piped():
    """A function that gives the path of a pipe, as the shell's <(command) does, into which the data are written."""
    ends, writers = [], []

    def pipe(data):
        read, write = os.pipe()
        ends.append(read)

        def feed():
            try:
                with open(write, "wb") as file:
                    file.write(data)
            except BrokenPipeError:
                pass

        writers.append(threading.Thread(target=feed))
        writers[-1].start()
        return f"/dev/fd/{read}"

    yield pipe
    for end in ends:
        os.close(end)
    for writer in writers:
        writer.join()


@pytest.mark.parametrize("what", [None, *PACK])
def test_through_a_pipe(piped, raw, what):
    assert counts(piped(MEMORY if what is None else PACK[what](MEMORY))) == counts(raw)


def test_a_pipe_that_ends_within_a_page(piped):
    assert refusal(piped(MEMORY[:-1])) == (
        f"not a memory image: {len(MEMORY) - 1} bytes are not whole pages of 4096; or it is truncated")  # fmt: skip
    assert refusal(piped(b"")) == "empty"


def test_a_core_through_a_pipe(tmp_path, piped):
    path = write_core(tmp_path / "core", [(0x10000, MEMORY[: 200 * PAGE], READ | WRITE), (0x7FFFFFFFE000, page(3), READ | WRITE)])
    assert counts(piped(path.read_bytes())) == counts(path)


def test_standard_input(raw, tmp_path):
    command = [sys.executable, "-m", "ksm", "scan", "-"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    expected = subprocess.run([*command[:-1], raw], capture_output=True, text=True, env=environment)
    assert expected.returncode == 0
    path = packed(tmp_path, PACK["gzip"](MEMORY))
    with open(path, "rb") as file:
        from_a_file = subprocess.run(command, stdin=file, capture_output=True, text=True, env=environment)
    from_a_pipe = subprocess.run(command, input=path.read_bytes(), capture_output=True, env=environment)
    assert same_but_for_the_name(from_a_file.stdout) == same_but_for_the_name(from_a_pipe.stdout.decode())
    assert same_but_for_the_name(from_a_file.stdout) == same_but_for_the_name(expected.stdout)
    with open(raw, "rb") as file:
        file.read(1 << 20)  # unbuffered or not, the position moves
        os.lseek(file.fileno(), PAGE, os.SEEK_SET)
        rest = subprocess.run(command, stdin=file, capture_output=True, text=True, env=environment)
    assert rest.stdout.splitlines()[0] != from_a_file.stdout.splitlines()[0]

    for arguments, stdin, text in (
        (["-"], subprocess.DEVNULL, "standard input: neither a file nor a pipe"),
        (["-", "-"], subprocess.DEVNULL, "-: standard input is given twice"),
    ):
        run = subprocess.run([*command[:-1], *arguments], stdin=stdin, capture_output=True, text=True, env=environment)
        assert (run.returncode, run.stdout, run.stderr) == (1, "", f"ksm: {text}\n")


def test_a_pipe_that_does_not_wait():
    """Whoever has made the pipe may have told it not to wait for its writer."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = "import sys; from ksm.sources import open_file; print('begin', flush=True); open_file('-').close(); print('end')"
    with subprocess.Popen([sys.executable, "-c", code], stdin=read, stdout=subprocess.PIPE, text=True, env=environment) as process:
        os.close(read)
        assert process.stdout.readline() == "begin\n"
        time.sleep(0.2)
        with open(write, "wb") as file:
            file.write(PACK["gzip"](MEMORY[: 4 * PAGE]))
        assert process.stdout.read() == "end\n"


def test_a_source_is_read_again_where_it_can_be(tmp_path, piped):
    path = packed(tmp_path, PACK["gzip"](MEMORY))
    source = open_file(str(path))
    first, second = (b"".join(bytes(piece.data) for piece in source.pieces()) for _ in range(2))
    source.close()
    assert first == second == MEMORY
    source = open_file(piped(PACK["gzip"](MEMORY)))
    assert b"".join(bytes(piece.data) for piece in source.pieces()) == MEMORY
    with pytest.raises(SourceError, match=r"comes through a pipe, and can be read only once$"):
        list(source.pieces())
    source.close()


def test_nothing_stays_open(tmp_path):
    before = set(os.listdir("/proc/self/fd"))
    for what in PACK:
        counts(packed(tmp_path, PACK[what](MEMORY[:PAGE])))
        refusal(packed(tmp_path, PACK[what](MEMORY[:PAGE])[:-1]))
        refusal(packed(tmp_path, PACK[what](PACK[what](PACK[what](b"")))))
    assert set(os.listdir("/proc/self/fd")) == before


def test_an_input_gives_back_what_was_read(raw):
    input = FileInput("raw", os.open(raw, os.O_RDONLY), len(MEMORY))
    try:
        assert input.peek(5) == MEMORY[:5]
        data = input.read(100)
        input.back(data[60:])
        assert (input.position, input.peek(8), input.block(50)) == (60, MEMORY[60:68], MEMORY[60:110])
        input.skip(PAGE)
        assert input.block(len(MEMORY)) == MEMORY[110 + PAGE :]
        assert input.block(1) == b""
        with pytest.raises(SourceError, match="truncated after"):
            input.read(1)
    finally:
        input.close()
        input.close()

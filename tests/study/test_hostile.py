# SPDX-License-Identifier: GPL-2.0-only
"""Files for ksm study that are made to take for ever, or all the memory, or that are damaged: the error is one line, and comes soon."""

import bz2
import gzip
import io
import json
import lzma
import os
import random
import resource
import shutil
import subprocess
import tarfile
import time
import zlib

import pytest

import ksm
from ksm.record.recording import RecordingError, load
from ksm.study import archive
from ksm.study import kernel as reader
from ksm.study.functions import bare, c_source, normalised
from ksm.study.kernel import StudyError, read_kernel, unlike
from ksm.study.lessons import record_lesson
from ksm.study.page import render

pytestmark = pytest.mark.once

MIB, GIB = 1 << 20, 1 << 30
NAMES = ("stable_tree_search", "unstable_tree_search_insert", "cmp_and_merge_page")
PASSES = "".join(f"static void {name}(void)\n{{\n}}\n\n" for name in NAMES)  # for a mm/ksm.c


def refusal(where, call=read_kernel):
    """The one line that says why a file is refused."""
    with pytest.raises((StudyError, RecordingError)) as caught:
        call(str(where))
    assert "\n" not in str(caught.value)
    assert str(where) in str(caught.value)
    return str(caught.value)


@pytest.fixture
def quickly():
    """The test takes little processor time and memory, whatever the file says."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert time.process_time() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 << 10


# The parser

def hostile_texts(size):
    """Texts on which a careless regular expression takes quadratic time."""
    def repeated(text):
        return text * (size // len(text))

    return {
        "parentheses": repeated("("), "closed": repeated(")"), "newlines": repeated("\n"), "static": repeated("static "),
        "static lines": repeated("static\n"), "comments": repeated("/* "), "quotes": repeated('"\\'), "escaped": repeated('\\"'),
        "apostrophes": repeated("'\\"), "braces": repeated("{"), "closed braces": repeated("}"), "stars": repeated("*"),
        "functions": "".join(f"a{number}(){{}}\n" for number in range(size // 12)),
        "labels": "void f(void)\n{\n" + "".join(f"a{number}:\n" for number in range(size // 10)) + "}\n", "words": repeated("a "),
        "calls": "void f(void)\n{\n" + repeated("a(") + "\n}\n", "directives": repeated("#\\\n"), "spaces": repeated(" ") + "x",
        "heads": repeated("f(" + "(a)" * 50 + "\n{}\n"), "far": "f" + repeated(" ") + "(", "macros": repeated("x(a)\n"),
        "deep": repeated("f(){"),
        "words and gaps": repeated("f" + "\n" * 50), "colons": "a:" + repeated(" \n"), "one line": repeated("x"),
    }


@pytest.mark.parametrize("name", hostile_texts(1))
def test_the_parser_is_linear(name):
    """Four times the text takes about four times as long. A quadratic parser would take sixteen times as long."""
    def taken(size):
        text = PASSES + hostile_texts(size)[name]
        start = time.process_time()
        source = c_source(text)
        bare(text)
        normalised(text)
        assert set(NAMES) <= set(source.functions)
        return time.process_time() - start

    # The least time of several runs: other work of the computer makes a run longer.
    small, large = (min(taken(size) for _ in range(3)) for size in (1 << 15, 1 << 17))
    assert large < 10 * small + 0.1


def test_functions_where_conditions_leave_braces_open():
    source = c_source("#ifdef A\nint one(int a) {\n#else\nint one(long a) {\n#endif\n\tif (a) {\n\t}\n}\n\n  #define B(x) {\n"
                      "int two(void)\n{\nout:\n\treturn one(2);\n}\n\nstruct three {\n\tint a;\n};\n\n"
                      "static int four[] = {\n\t1, (2)\n};\n")
    assert {name: (each.first, each.last) for name, each in source.functions.items()} == {"one": (2, 8), "two": (11, 15)}
    assert source.functions["two"].labels == {"out": 13}
    assert source.functions["two"].calls == ["one"]


def test_what_is_not_closed_ends_with_the_text_or_the_line():
    assert c_source("/* no end\nint f(void)\n{\n}\n").functions == {}
    source = c_source('int f(void)\n{\n\tx = "no end;\n\ty = \'no end;\n}\nint g(void)\n{\n')
    assert {name: (each.first, each.last) for name, each in source.functions.items()} == {"f": (1, 5), "g": (6, 7)}


# Texts that are not mm/ksm.c

@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("name", hostile_texts(1))
def test_a_text_that_nobody_has_written(tmp_path, name):
    """The text is refused, or becomes a page."""
    path = tmp_path / "ksm.c"
    path.write_text(PASSES + hostile_texts(60_000)[name])
    try:
        kernel = read_kernel(str(path))
    except StudyError as error:
        assert str(error).startswith(f"{path} is not mm/ksm.c: it has ")
    else:
        render(kernel, [])


@pytest.mark.parametrize(("text", "reason"), [
    ("\n" * 10_000, "it has more than 10,000 lines"), ("x" * 4097, "it has a line of more than 4,096 characters"),
    ("\t" * 600, "it has a line of more than 4,096 characters"), ("a,\n" * 2000, "it has more than 4,096 characters without one of ; { }"),
    ("a;" + "\n" * 257 + ";", "it has more than 256 spaces and empty lines in a row"),
    ("a;" + "\n" * 200 + "/* b */" + "\n" * 200 + ";", ""), ("/*" + "a\n" * 9000 + "*/", ""),
    ("a;" + " " * 257 + ";", "it has more than 256"),
    ("int f(void)\n{\n" + "\ta;\n" * 1000 + "}\n", "f() has more than 1,000 lines"),
])
def test_the_limits_of_a_text(tmp_path, text, reason):
    (tmp_path / "ksm.c").write_text(PASSES + text)
    if reason:
        assert reason in refusal(tmp_path / "ksm.c")
    else:
        read_kernel(str(tmp_path / "ksm.c"))


def test_linux_itself_is_far_from_the_limits(linux):
    text = (linux / "mm/ksm.c").read_text()
    assert unlike(text * 2) == ""
    assert len(text) * 4 < reader.LARGEST
    assert max(each.last - each.first for each in read_kernel(str(linux)).source.functions.values()) * 4 < reader.LONGEST_FUNCTION


@pytest.mark.usefixtures("quickly")
def test_long_functions_beside_the_port(tmp_path):
    """Both sides of every comparison have many lines that are alike."""
    def kernel(name, seed):
        numbers = random.Random(seed)
        lines = "".join(f"\tif (x{numbers.randrange(200)} && rmap_item->mm) goto out{numbers.randrange(9)};\n" for _ in range(300))
        text = "".join(f"static void {each}(void)\n{{\n{lines}}}\n" for each in (*NAMES, "stable_tree_insert", "break_ksm", "ksm_do_scan"))
        (tmp_path / name).write_text(text)
        return read_kernel(str(tmp_path / name))

    assert "goto out1" in render(kernel("a.c", 1), [], kernel("b.c", 2))


def test_text_that_directs_a_terminal(tmp_path, capsys):
    from rich.console import Console

    from ksm.study.terminal import print_diff

    (tmp_path / "ksm.c").write_text(PASSES.replace("{\n", "{\n\treturn; /* \x1b[31m \x1b]0;t\x07 \x9b1m */\n"))
    print_diff(read_kernel(str(tmp_path / "ksm.c")), "cmp_and_merge_page", Console(width=10**9))
    out = capsys.readouterr().out
    assert "return; /* ?[31m" in out
    assert not set("\x1b\x07\x9b") & set(out)
    assert max(map(len, out.splitlines())) < 2000


def test_a_name_that_is_no_text(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff.c"
    with open(path, "w") as file:
        file.write(PASSES)
    kernel = read_kernel(os.fsdecode(path))
    assert kernel.name == f"{tmp_path}/?.c"
    render(kernel, []).encode()


# Where the text comes from

def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    assert refusal(tmp_path / "fifo") == f"{tmp_path}/fifo: not a regular file"
    assert refusal("/dev/zero") == "/dev/zero: not a regular file"
    (tmp_path / "tree/mm").mkdir(parents=True)
    os.mkfifo(tmp_path / "tree/mm/ksm.c")
    assert "there is no mm/ksm.c in it" in refusal(tmp_path / "tree")
    assert refusal("x" * 5000).endswith("File name too long")
    assert "no such file" in refusal("a\0b")


def test_a_pipe_of_the_shell():
    ours, theirs = os.pipe()
    os.write(theirs, PASSES.encode())
    os.close(theirs)
    assert list(read_kernel(f"/dev/fd/{ours}").source.functions) == list(NAMES)
    os.close(ours)


@pytest.mark.usefixtures("quickly")
def test_large_files(tmp_path):
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 40)
    assert refusal(tmp_path / "sparse") == f"{tmp_path}/sparse: larger than 512 KiB"
    (tmp_path / "mm").mkdir()
    (tmp_path / "mm/ksm.c").write_text(PASSES)
    os.rename(tmp_path / "sparse", tmp_path / "Makefile")
    with pytest.raises(StudyError, match="Makefile: larger than 512 KiB"):
        read_kernel(str(tmp_path))


@pytest.mark.parametrize(("makefile", "version"), [
    ("VERSION = 6\nPATCHLEVEL = " + "1" * 5000, ""), ("VERSION = 6\nPATCHLEVEL = 1\nEXTRAVERSION = " + "x" * 5000, "6.1" + "x" * 80),
    ("VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = x\n", "6.1"),
])
def test_versions(tiny, makefile, version):
    (tiny / "Makefile").write_text(makefile)
    assert read_kernel(str(tiny)).version == version


@pytest.mark.parametrize(("head", "what"), [(b"PK\x03\x04", "a zip archive: unpack it"),
                                            (b"\x28\xb5\x2f\xfd", "packed with zstd: unpack it")])
def test_archives_of_other_kinds(tmp_path, head, what):
    (tmp_path / "file").write_bytes(head + bytes(100))
    assert refusal(tmp_path / "file") == f"{tmp_path}/file is not text, but {what}"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_large_file_in_git(tmp_path):
    (tmp_path / "mm").mkdir()
    (tmp_path / "mm/ksm.c").write_text(" " * (4 * MIB))
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", tmp_path, *words], check=True, capture_output=True)
    assert refusal(f"{tmp_path}@HEAD") == f"{tmp_path}@HEAD: git: it prints more than 512 KiB"


# Tarballs

def tarball(*members):
    """Members are (name, text) or TarInfo without data."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.GNU_FORMAT) as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                file.addfile(info, io.BytesIO(member[1].encode()))
    return data.getvalue()


LINUX = tarball(("linux/README", "x"), ("linux/Makefile", "VERSION = 6\nPATCHLEVEL = 1\n"), ("linux/mm/ksm.c", PASSES))
PACK = {"tar": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def member(size, kind=tarfile.REGTYPE, name="linux/a"):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", PACK)
def test_tarballs_are_read(tmp_path, kind):
    path = tmp_path / "linux"  # the file's name does not matter
    path.write_bytes(PACK[kind](LINUX))
    assert read_kernel(str(path)).version == "6.1"
    path.write_bytes(b"".join(PACK[kind](LINUX[at:at + 700]) for at in range(0, len(LINUX), 700)))
    assert list(read_kernel(str(path)).source.functions) == list(NAMES)
    path.write_bytes(PACK[kind](LINUX) + bytes(5000))
    read_kernel(str(path))


@pytest.mark.parametrize("kind", PACK)
def test_each_byte_of_a_tarball_changed(tmp_path, kind):
    """A tarball with a changed byte, or cut off anywhere, is read, or refused in one line that names the file."""
    path, data = tmp_path / "linux.tar", PACK[kind](LINUX)
    numbers = random.Random(1)
    refused = 0
    for place in (*range(min(64, len(data))), *numbers.sample(range(len(data)), 60)):
        for changed in (data[:place] + bytes([data[place] ^ 1 << numbers.randrange(8)]) + data[place + 1:], data[:place]):
            path.write_bytes(changed)
            try:
                read_kernel(str(path))
            except (StudyError, RecordingError) as error:
                assert str(path) in str(error) and "\n" not in str(error)
                refused += 1
    assert refused > 30


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_two_million_streams(tmp_path, kind):
    (tmp_path / "file").write_bytes(PACK[kind](b"") * 2_000_000)
    assert refusal(tmp_path / "file").endswith("it is made of more than 100,000 compressed streams")


@pytest.mark.usefixtures("quickly")
def test_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MOST_MEMBERS", 1000)
    (tmp_path / "file").write_bytes(gzip.compress(member(0) * 1001 + LINUX))
    assert refusal(tmp_path / "file").endswith("it has more than 1,000 members")
    (tmp_path / "file").write_bytes(gzip.compress(member(0) * 900 + LINUX))
    read_kernel(str(tmp_path / "file"))


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, b"?"], ids=str)
def test_large_members(tmp_path, monkeypatch, kind):
    """A member that is not wanted is not kept in memory, whatever its type; and not all of it is unpacked."""
    monkeypatch.setattr(archive, "MOST_BYTES", 128 * MIB)
    for size, fits in ((100 * MIB, True), (1 << 40, False)):
        with open(tmp_path / "file", "wb") as file:
            file.write(member(size, kind))
            file.seek(size, os.SEEK_CUR)
            file.write(LINUX)
        if fits:
            read_kernel(str(tmp_path / "file"))
        else:
            assert "what was looked for is not in the first" in refusal(tmp_path / "file")


@pytest.mark.usefixtures("quickly")
def test_what_unpacks_to_much_more(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MOST_BYTES", 16 * MIB)
    for name, pack in {"gz": zlib.compressobj(9, wbits=31), "bz2": bz2.BZ2Compressor(), "xz": lzma.LZMACompressor(preset=0)}.items():
        with open(tmp_path / name, "wb") as file:
            file.write(pack.compress(member(1 << 40)))
            for _ in range(20):
                file.write(pack.compress(bytes(MIB)))
            file.write(pack.flush())
        assert "what was looked for is not in the first" in refusal(tmp_path / name)


def test_xz_that_wants_all_the_memory(tmp_path):
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": GIB, "mode": lzma.MODE_FAST, "mf": lzma.MF_HC3, "nice_len": 8, "preset": 0}]
    header = lzma.compress(LINUX, filters=[{**filters[0], "dict_size": 1 << 20}])
    place = header.index(bytes([16]), 12)  # the size of the dictionary, which stands in a header with a checksum of its own
    block = bytearray(header[12:12 + (header[12] + 1) * 4])
    block[place - 12] = 36  # 1 GiB
    block[-4:] = zlib.crc32(bytes(block[:-4])).to_bytes(4, "little")
    (tmp_path / "file").write_bytes(header[:12] + bytes(block) + header[12 + len(block):])
    assert refusal(tmp_path / "file").endswith("Memory usage limit exceeded")


def test_a_member_that_is_larger_than_mm_ksm_c(tmp_path):
    (tmp_path / "file").write_bytes(tarball(("linux/Makefile", "VERSION = 6\n"), ("linux/mm/ksm.c", " " * MIB)))
    assert refusal(tmp_path / "file") == f"{tmp_path}/file:mm/ksm.c: larger than 512 KiB"
    link = tarfile.TarInfo("linux/mm/ksm.c")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    (tmp_path / "file").write_bytes(tarball(link))
    assert "there is no mm/ksm.c in it" in refusal(tmp_path / "file")
    (tmp_path / "file").write_bytes(gzip.compress(PASSES.encode()))
    assert refusal(tmp_path / "file").endswith("it is no tar archive, or damaged")


# Recordings

def recording(**changes):
    ours = ("lesson", "eras", "files", "function", "scenes")
    return {key: value for key, value in {**record_lesson("equal"), **changes}.items() if key not in ours}


@pytest.mark.parametrize("changes", [
    {"title": "\ud800"}, {"text": "\udfff"}, {"mms": {"1": "\ud800"}}, {"notes": ["\udc00"]}, {"contents": ["\ud9ff"]}, {"more": "\ud800"},
    {"title": 7}, {"text": None}, {"era": []}, {"truncated": "no"}, {"counters": {}}, {"counters": [7]}, {"mms": []}, {"mms": {"1": 7}},
    {"notes": [None]}, {"notes": "text"}, {"contents": [7]}, {"steps": []}, {"steps": {}}, {"steps": [7]}, {"steps": [[0] * 5]},
    {"steps": [[99] * 6]}, {"steps": [[-1] * 6]}, {"steps": [[0.5] * 6]}, {"steps": [["0"] * 6]}, {"steps": [[True] * 6]},
    {"format": "ksm recording 0"},
], ids=str)
def test_recordings_with_something_else_in_them(tmp_path, changes):
    (tmp_path / "file").write_text(json.dumps(recording(**changes)))
    refusal(tmp_path / "file", load)


@pytest.mark.parametrize("key", ["title", "text", "era", "truncated", "counters", "mms", "notes", "contents", "steps"])
def test_recordings_without_something(tmp_path, key):
    data = recording()
    del data[key]
    (tmp_path / "file").write_text(json.dumps(data))
    assert refusal(tmp_path / "file", load).endswith(f"is damaged: {key} is not there, or not what it should be")


def test_what_else_is_in_a_recording_is_left_out(tmp_path):
    (tmp_path / "file").write_text(json.dumps(recording(deep=json.loads("[" * 400 + "]" * 400))))
    assert load(str(tmp_path / "file")) == recording()


@pytest.mark.usefixtures("quickly")
def test_recordings_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    assert refusal(tmp_path / "fifo", load) == f"{tmp_path}/fifo: not a regular file"
    assert refusal("/dev/zero", load) == "/dev/zero: not a regular file"
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(2 * GIB)
    assert refusal(tmp_path / "sparse", load) == f"{tmp_path}/sparse: larger than 64 MiB"
    (tmp_path / "lists").write_bytes(b"[" + b"[]," * 3_000_000 + b"[]]")
    assert refusal(tmp_path / "lists", load) == f"{tmp_path}/lists is not a recording: it has more than 2,000,000 lists and objects"


def test_halves_of_characters_are_not_written(tmp_path):
    """load() reads what save() has written, even with a name from a command line that was not UTF-8."""
    with ksm.Machine(memory="4M", max_memory="4M", plain=True) as machine:
        machine.spawn("\ud800")
        with machine.record() as made:
            made.note("\udc00")
            machine.ksm.scan()
    made.save(tmp_path / "file", "a \udcff title", "\udcff")
    data = load(str(tmp_path / "file"))
    assert (data["title"], data["text"], list(data["mms"].values())) == ("a ? title", "?", ["?"])
    render(None, [data]).encode()


def test_a_recording_is_not_written_where_nobody_reads(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with ksm.Machine(memory="4M", max_memory="4M", plain=True) as machine, machine.record() as made:
        machine.ksm.scan()
    with pytest.raises(OSError, match="No such device"):
        made.save(tmp_path / "fifo")

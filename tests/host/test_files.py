# SPDX-License-Identifier: GPL-2.0-only
"""Files that a user names."""

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading

import pytest

import ksm
from ksm.host import json_file
from ksm.host.command import CommandError, output_of
from ksm.host.files import FileError, open_to_read, open_to_write, read_file, write_whole
from ksm.host.json_file import parse_json, read_json, shown
from ksm.host.text import printable, size_said

HOME = os.path.dirname(os.path.dirname(ksm.__file__))


def refused(call, *arguments, error=FileError):
    with pytest.raises(error) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Reading

def test_at_most_so_much_is_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 2048)
    assert read_file(str(path), 2048) == b"x" * 2048
    assert refused(read_file, str(path), 2047) == f"{path}: larger than 1 KiB"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert refused(read_file, str(path), 1 << 20) == f"{path}: larger than 1 MiB"


def test_a_file_that_says_nothing_of_its_size():
    assert read_file("/proc/self/status", 1 << 16).startswith(b"Name:")
    assert refused(read_file, "/proc/self/status", 100) == "/proc/self/status: larger than 0 KiB"


def test_what_is_no_file_is_not_opened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo")
    os.mknod(tmp_path / "socket", stat.S_IFSOCK | 0o600)
    opened = os.open
    monkeypatch.setattr(os, "open", lambda path, *more: pytest.fail(f"{path} was opened"))
    for path in ("/dev/zero", "/dev/null", "/dev/tty", str(tmp_path / "socket"), str(tmp_path / "fifo")):
        assert refused(open_to_read, path) == f"{path}: not a regular file"
    assert refused(open_to_read, str(tmp_path)) == f"{tmp_path}: is a directory"
    assert refused(open_to_read, f"{tmp_path}/no") == f"{tmp_path}/no: No such file or directory"
    assert "embedded null" in refused(open_to_read, "a\0b")  # the text is Python's
    monkeypatch.setattr(os, "open", opened)
    assert refused(read_file, str(tmp_path / "fifo"), 10) == f"{tmp_path}/fifo: not a regular file"


def test_a_pipe_of_the_shell_is_read():
    """<(command) of the shell. The shell's descriptor stays open."""
    ours, theirs = os.pipe()
    try:
        assert refused(open_to_read, f"/dev/fd/{ours}") == f"/dev/fd/{ours}: not a regular file"
        writer = threading.Timer(0.05, lambda: (os.write(theirs, b"late"), os.close(theirs)))
        writer.start()
        assert read_file(f"/dev/fd/{ours}", 100) == b"late"
        writer.join()
        assert read_file(f"/dev/fd/{ours}", 100) == b""
        assert os.get_blocking(ours)
    finally:
        os.close(ours)


# Writing

def test_a_fifo_that_nobody_reads_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="No such device or address"):
        open_to_write(tmp_path / "fifo")
    ours = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with open(open_to_write(tmp_path / "fifo"), "wb") as file:
        assert os.get_blocking(file.fileno())
        file.write(b"text")
    assert os.read(ours, 100) == b"text"
    os.close(ours)


def test_written_whole(tmp_path):
    path = tmp_path / "file"
    write_whole(str(path), "one")
    assert path.read_text() == "one"
    path.chmod(0o640)
    (tmp_path / "link").symlink_to(path)
    write_whole(str(tmp_path / "link"), "two")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("two", 0o640)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "link"]


def test_a_file_that_cannot_be_written_whole_stays_as_it_is(tmp_path):
    """A limit on the size of files stands for a full disk: the old file stays, and no new one is left."""
    (tmp_path / "file").write_text("old")
    code = f"""if True:
        import resource, signal
        from ksm.host.files import write_whole
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        for name in ("file", "other"):
            try:
                write_whole({str(tmp_path)!r} + "/" + name, "x" * 1000)
            except OSError as error:
                print(error.strerror)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": HOME})
    assert (done.stdout, done.stderr) == ("File too large\n" * 2, "")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


# JSON

@pytest.mark.parametrize(("data", "reason"), [
    (b"", "it is not JSON: Expecting value: line 1 column 1 (char 0)"),
    (b"[1, 2", "it is not JSON: Expecting ',' delimiter: line 1 column 6 (char 5)"),
    (b"\xff", "it is not UTF-8: byte 0"), (b'"\xed\xa0\x80"', "it is not UTF-8: byte 1"), (b"[" * 100_000, "it is nested too deeply"),
    (b'{"a":' * 100_000, "it is nested too deeply"), (b"1" * 5001, "a number has too many digits"),
    (b"-" + b"1" * 5001, "a number has too many digits"),
    (b"NaN", "NaN is no number of JSON"), (b"[-Infinity]", "-Infinity is no number of JSON"),
    (rb'"\ud800"', "a string has half of a surrogate pair in it"), (rb'{"\uDFFF": 1}', "a string has half of a surrogate pair in it"),
    (rb'[["\udc00\ud800"]]', "a string has half of a surrogate pair in it"), ("[7]".encode("utf-16"), "it is not UTF-8: byte 0"),
], ids=lambda data: repr(data[:20]))
def test_what_is_no_json(data, reason):
    assert refused(parse_json, data, error=ValueError) == reason


def test_what_is_json():
    assert parse_json(rb'["\ud83d\ude00", "\\ud800", 1e999, -0.0, null]')[:2] == ["\U0001f600", r"\ud800"]
    assert parse_json(b"[" * 500 + b"]" * 500)


def test_json_of_many_small_things(monkeypatch):
    """A list takes forty times the memory of its brackets in the file."""
    monkeypatch.setattr(json_file, "MOST_CONTAINERS", 10)
    assert refused(parse_json, b"[" + b"[]," * 9 + b"{}]", error=ValueError) == "it has more than 10 lists and objects"
    assert len(parse_json(b"[" + b"[]," * 8 + b"{}]")) == 9
    monkeypatch.setattr(json_file, "MOST_VALUES", 10)
    assert refused(parse_json, b"[" + b"1," * 11 + b"1]", error=ValueError) == "it has more than 10 values"
    assert len(parse_json(b"[" + b"1," * 10 + b"1]")) == 11
    monkeypatch.setattr(json_file, "LARGEST", 1 << 20)
    assert refused(parse_json, b" " * (1 << 20) + b"1", error=ValueError) == "it has more than 1 MiB"


def test_json_of_a_file(tmp_path):
    (tmp_path / "file").write_text(json.dumps({"a": [1]}))
    assert read_json(str(tmp_path / "file")) == {"a": [1]}
    assert "larger than" in refused(read_json, str(tmp_path / "file"), 3)


def test_values_in_messages_are_short():
    deep = [[[[[[[[[[[]]]]]]]]]]]
    for value in (deep, "x" * 10_000, 10**4000, {str(n): [n] * 99 for n in range(999)}, ["\n" * 999] * 999):
        assert len(shown(value)) < 1000
        assert shown(value).isprintable()


def test_text_for_a_terminal():
    assert printable("a\x1b[31m\n\ud800\u202e\U0001f600") == "a?[31m???\U0001f600"
    assert [size_said(text) for text in ("80", "0", "", "-1", "99999", "9" * 5001, "\u00b2", "\u0661", "8 0")] == [80] + [0] * 8


# Commands

def test_what_a_command_prints():
    assert output_of(["cat"], 1 << 22, b"x" * (1 << 20)) == b"x" * (1 << 20)
    assert output_of(["true"], 10, b"x" * (1 << 20)) == b""
    assert output_of(["sh", "-c", "echo said >&2; echo printed"], 100) == b"printed\n"


@pytest.mark.parametrize(("words", "reason"), [
    (["no-such-command"], "no-such-command: No such file or directory"), (["/"], "/: Permission denied"),
    (["false"], "false: it ended with exit code 1"), (["sh", "-c", "echo a >&2; echo b >&2; exit 3"], "sh: a"),
    (["sh", "-c", "kill -9 $$"], "sh: it was ended by signal 9"), (["cat", "/dev/zero"], "cat: it prints more than 64 KiB"),
    (["sh", "-c", "yes >&2"], "sh: it prints more than 64 KiB"), (["sh", "-c", "yes"], "sh: it prints more than 64 KiB"),
])
def test_a_command_that_gives_nothing(words, reason):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert refused(output_of, words, 1 << 16, error=CommandError) == reason
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_a_command_goes_when_it_is_interrupted(tmp_path):
    """Whatever ends the call ends the command, too."""
    def interrupt(*_):
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        with pytest.raises(KeyboardInterrupt):
            output_of(["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 60"], 100)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not os.path.exists(f"/proc/{(tmp_path / 'pid').read_text().strip()}")

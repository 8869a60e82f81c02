# SPDX-License-Identifier: GPL-2.0-only
"""ksm watch and ksm.watch(): looks, what changes between them, the file, and its summary."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import commands
import pytest
from commands import write_image
from hypothesis import given, settings
from hypothesis import strategies as st

import ksm
from ksm.estimate import watch_report, watching
from ksm.estimate.watching import Kernel, Look, Watcher, read_looks, summary, watch
from ksm.host.files import FileError
from ksm.host.log import Log

HOME = Path(ksm.__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(HOME)}
PAGE = 4096
invoke, refused = partial(commands.invoke, "watch"), partial(commands.refused, "watch")
A_LOOK = Look(1e9, 2, 8000 * PAGE, 500 * PAGE, 400 * PAGE, 500 * PAGE, 300 * PAGE, True, None, [], [], None)


@pytest.fixture(autouse=True)
def no_ksm(tmp_path, monkeypatch):
    """What the running kernel's KSM has is another test's."""
    monkeypatch.setattr(watching, "RUNNING", str(tmp_path / "none"))


def sleeper():
    """A process with 40 equal pages, that ends when its standard input does."""
    program = "import mmap; m = mmap.mmap(-1, 40 * 4096, flags=34); m[:] = b'%4096d' % 7 * 40; print(flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def test_a_file_that_changes(tmp_path):
    """Each look reads the file as it is now."""
    path = tmp_path / "image"
    sizes = [40, 60, 60, 10]
    looks = []
    write_image(path, [1] * sizes[0])
    for look in ksm.watch([str(path)], every=0.01, count=4):
        looks.append(look)
        write_image(path, [1] * sizes[len(looks) % 4])
    assert [look.saved // PAGE for look in looks] == [size - 1 for size in sizes]
    assert [None if look.change is None else look.change // PAGE for look in looks] == [None, 20, 0, -50]
    assert [look.total // PAGE for look in looks] == sizes
    assert all(look.settled and look.sources == 1 and look.came == look.gone == [] for look in looks)


def test_a_process_that_exits_is_told():
    first, second = sleeper(), sleeper()
    try:
        looks = ksm.watch([f"pid:{first.pid}", f"pid:{second.pid}"], every=0.01, budget=0.1)
        assert next(looks).sources == 2
        first.communicate()
        look = next(looks)
        assert (look.sources, look.gone) == (1, [f"pid {first.pid}: no such process"])
        assert look.change < 0
        second.communicate()
        assert list(looks) == []
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()


def test_another_process_with_the_same_number_is_another_one():
    process = sleeper()
    try:
        watcher = Watcher([f"pid:{process.pid}"], budget=0.1)
        watcher.look()
        watcher.started[process.pid] = "1"
        with pytest.raises(watching.Ended, match="has exited, and another process has its number: there is nothing to watch any more"):
            watcher.look()
    finally:
        process.communicate()


def test_sources_that_never_were(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        next(ksm.watch([str(tmp_path / "missing")]))
    with pytest.raises(ValueError, match="every is more than 0"):
        ksm.watch([], every=0)
    with pytest.raises(ValueError, match="KSM has no nothing"):
        ksm.watch([], settings={"nothing": 1})
    with pytest.raises(TypeError):
        ksm.watch("pid:1")
    assert refused(tmp_path / "missing") == f"ksm: {tmp_path / 'missing'}: No such file or directory"


class Clock:
    def __init__(self, takes):
        self.now, self.takes, self.begun = 100.0, takes, []

    def monotonic(self):
        return self.now

    def wait(self, seconds):
        assert seconds > 0
        self.now += seconds

    def look(self):
        self.begun.append(self.now - 100.0)
        self.now += self.takes.pop(0)
        return A_LOOK


def test_looks_come_so_often(monkeypatch):
    """A look that takes longer than that is followed at once, and then the looks come at their times again."""
    clock = Clock([1.0, 25.0, 1.0, 1.0])
    monkeypatch.setattr(watching, "time", clock)
    assert len(list(watch(clock, every=10.0, count=4, wait=clock.wait))) == 4
    assert clock.begun == [0.0, 10.0, 35.0, 40.0]


def test_lines_and_log(tmp_path):
    image, log = write_image(tmp_path / "image", [1] * 40 + [2]), tmp_path / "log"
    out, err = invoke("--every", "0.01s", "--count", "2", "--log", log, image)
    assert err == ""
    first, second = out.splitlines()
    assert first[20:] == " KSM would free 156.0 KiB of 164.0 KiB (95.1 %); profit 153.3 KiB"
    assert second[20:] == " KSM would free 156.0 KiB of 164.0 KiB (95.1 %); +0.0 KiB; profit 153.3 KiB"
    looks = read_looks(log.read_bytes(), "log")
    assert [look.saved for look in looks] == [39 * PAGE] * 2
    out, _ = invoke("--json", "--count", "1", "--log", log, image)
    assert read_looks(out.encode(), "out")[0].saved == 39 * PAGE
    assert log.read_text().count("\n") == 3
    out, _ = invoke("--read", log)
    assert out.startswith("3 looks from ")
    assert "in the median." in out
    found = json.loads(invoke("--read", log, "--json")[0])
    assert found["saved"] == {"looks": 3, "least": 39 * PAGE, "median": 39 * PAGE, "most": 39 * PAGE}


def test_ctrl_c_and_kill(tmp_path):
    """Ctrl-C sums up and ends with 130. The file has whole lines then, and after SIGKILL."""
    image, log = write_image(tmp_path / "image", range(1000)), tmp_path / "log"
    command = [sys.executable, "-m", "ksm", "watch", "--every", "0.02s", "--log", str(log), image]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(3):
            process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "ksm: interrupted\n")
    assert " looks from " in out
    before = len(read_looks(log.read_bytes(), "log"))
    assert before >= 3
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.kill()
    assert log.read_bytes().endswith(b"\n")
    assert len(read_looks(log.read_bytes(), "log")) > before


def test_a_line_for_which_there_is_no_room(tmp_path):
    """Not a part of it stays in the file, and the error names the file."""
    path = tmp_path / "log"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with Log(str(path)) as log:
            log.add("a" * 50)
            resource.setrlimit(resource.RLIMIT_FSIZE, (80, before[1]))
            with pytest.raises(OSError, match="No space left") as error:
                log.add("b" * 50)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert error.value.filename == str(path)
    assert path.read_bytes() == b"a" * 50 + b"\n"


def test_files_to_which_no_line_is_added(tmp_path):
    image = write_image(tmp_path / "image", [1])
    path = tmp_path / "log"
    path.write_bytes(b"no end")
    assert refused("--log", path, image) == f"ksm: {path}: its last line has no end, so no other line is added to it"
    assert path.read_bytes() == b"no end"
    assert refused("--log", tmp_path, image) == f"ksm: {tmp_path}: is a directory"
    os.mkfifo(tmp_path / "fifo")
    assert refused("--log", tmp_path / "fifo", image) == f"ksm: {tmp_path / 'fifo'}: not a regular file"


def test_wrong_usage(tmp_path):
    assert "--read looks at nothing" in refused("--read", "log", "--count", "2", code=2)
    assert "--every 0: some time has to pass" in refused("--every", "0", "image", code=2)
    assert "standard input can be read once" in refused("-", code=2)
    assert "it is written as 30s" in refused("--every", "soon", code=2)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "it is not JSON"),
        ("[1]", "it is no object"),
        ("{}", "it has no time"),
        (A_LOOK._replace(saved=True).line(), "saved is no number"),
        (A_LOOK._replace(saved=1 << 70).line(), "saved is no number"),
        (A_LOOK._replace(time=-1.0).line(), "time -1.0 is none"),
        (A_LOOK._replace(change="much").line(), "change is no number"),
        (A_LOOK._replace(came=[1]).line(), "came and gone are lists of names"),
        (A_LOOK.line().replace('"kernel": null', '"kernel": 5'), "kernel is no object"),
        (A_LOOK.line().replace('"kernel": null', '"kernel": {"run": 1}'), "it has no saved"),
        ("[" * 100_000, "it is nested too deeply"),
        ("\ud800", "it is not UTF-8"),
    ],
)
def test_lines_of_others(tmp_path, line, said):
    path = tmp_path / "log"
    path.write_bytes(A_LOOK.line().encode() + b"\n" + line.encode(errors="surrogatepass") + b"\n")
    assert refused("--read", path).startswith(f"ksm: {path}: line 2 is not one of ksm watch: {said}")


def test_an_empty_file(tmp_path):
    path = tmp_path / "log"
    path.touch()
    assert refused("--read", path) == f"ksm: {path}: empty"
    with pytest.raises(FileError):
        read_looks(b"", "log")


@pytest.mark.parametrize(("zone", "hour"), [("UTC", 1), ("XXX-5", 6)])
def test_hours_are_local(monkeypatch, zone, hour):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        found = summary([A_LOOK._replace(time=1e9)])  # 2001-09-09 01:46:40 UTC
    time.tzset()
    assert set(found.hours) == {hour}



@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(0, 3 * 86400), st.booleans()), min_size=1, max_size=30))
def test_summary(figures):
    """The least, the median and the most, and by hour: nothing is lost, and a log gives the same as the looks themselves."""
    looks = [
        A_LOOK._replace(saved=saved, time=1e9 + later, kernel=Kernel(1, saved // 2, 0) if kernel else None)
        for saved, later, kernel in figures
    ]
    found = summary(looks)
    saved = sorted(look.saved for look in looks)
    assert (found.saved.looks, found.saved.least, found.saved.most) == (len(looks), saved[0], saved[-1])
    assert abs(found.saved.median * 2 - saved[(len(saved) - 1) // 2] - saved[len(saved) // 2]) <= 1
    assert sum(each.looks for each in found.hours.values()) == len(looks)
    assert set(found.hours) == {time.localtime(look.time).tm_hour for look in looks}
    assert (found.kernel is None) == (not any(kernel for _, _, kernel in figures))
    assert summary(read_looks("\n".join(look.line() for look in looks).encode(), "log")) == found
    for width in (100, 60, 40):
        assert max(len(line) for line, _ in watch_report.lines(found, width)) <= width


def test_what_a_line_says():
    look = A_LOOK._replace(
        settled=False, change=-3 * PAGE, came=["pid 5 (x)"], gone=["pid 6: no such process"], kernel=Kernel(0, 1 << 20, -4096)
    )
    said = watch_report.line_of(look)
    for part in ("not settled", "-12.0 KiB", "1.6 MiB to 2.0 MiB of it on top", "came: pid 5 (x)", "gone: pid 6: no such process",
                 "the kernel's has freed 1.0 MiB (profit -4.0 KiB), and does not run"):  # fmt: skip
        assert part in said


def test_what_the_kernel_has(tmp_path, monkeypatch):
    folder = tmp_path / "ksm"
    folder.mkdir()
    monkeypatch.setattr(watching, "RUNNING", str(folder))
    assert watching.kernel_has() is None
    figures = {"run": 1, "pages_shared": 10, "pages_sharing": 90, "pages_unshared": 100, "pages_volatile": 0, "ksm_zero_pages": 7}
    for name, value in figures.items():
        (folder / name).write_text(f"{value}\n")
    (folder / "general_profit").write_text(f"{97 * PAGE - 200 * 64}\n")
    assert watching.kernel_has() == (1, 97 * PAGE, 97 * PAGE - 200 * 64)
    (folder / "run").write_text("0\n")
    assert watching.kernel_has() == (0, 97 * PAGE, 97 * PAGE - 200 * 64)
    for name in ("pages_sharing", "ksm_zero_pages"):
        (folder / name).write_text("0\n")
    assert watching.kernel_has() is None

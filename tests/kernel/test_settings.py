# SPDX-License-Identifier: GPL-2.0-only
"""ksm verify and ksm bench put KSM's settings back; a file has them meanwhile. Here /sys/kernel/mm/ksm is a folder of plain files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import ksm
from ksm.bench import ksmd as bench
from ksm.cli import workloads
from ksm.cli.group import main
from ksm.oracle import kernel, proc
from ksm.oracle.kernel import Ksmd, run_kernel
from ksm.oracle.proc import is_asleep
from ksm.oracle.workload import OracleError

HANDLED = (signal.SIGTERM, signal.SIGHUP)
HOME = str(Path(ksm.__file__).resolve().parents[1])
SETTINGS = {"run": "1", "sleep_millisecs": "33", "pages_to_scan": "123", "use_zero_pages": "1", "advisor_mode": "[none] scan-time",
            "max_page_sharing": "256"}
COUNTERS = {"full_scans": "5", "pages_scanned": "9", "pages_skipped": "0", "ksm_zero_pages": "0", "general_profit": "-64"}
SAVED = {"run": 1, "sleep_millisecs": 33, "pages_to_scan": 123, "use_zero_pages": 1, "advisor_mode": "none", "max_page_sharing": 256}
NOTHING = {"name": "nothing", "procs": [], "steps": [{"op": "sysfs", "file": "max_page_sharing", "value": 3}, {"op": "record"}]}


@pytest.fixture(autouse=True)
def signals():
    """Restore the signal mask and handlers of this process."""
    mask, handlers = signal.pthread_sigmask(signal.SIG_BLOCK, ()), {number: signal.getsignal(number) for number in HANDLED}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@pytest.fixture
def sysfs(tmp_path, monkeypatch):
    """KSM's folder, and a ksmd that is at rest, beside another process named ksmd."""
    folder = tmp_path / "ksm"
    folder.mkdir()
    for name, text in (SETTINGS | COUNTERS).items():
        (folder / name).write_text(text + "\n")
        (folder / name).chmod(0o644 if name in SETTINGS else 0o444)
    for pid, parent in ((1, 0), (7, 1), (8, 2)):
        (tmp_path / "proc" / str(pid)).mkdir(parents=True)
        (tmp_path / "proc" / str(pid) / "comm").write_text("init\n" if pid == 1 else "ksmd\n")
        (tmp_path / "proc" / str(pid) / "stat").write_text(f"{pid} (ksmd) {'S' if pid == 8 else 'R'} {parent} 0 0\n")
    monkeypatch.setattr(kernel, "KSM", folder)
    monkeypatch.setattr(proc, "PROC", tmp_path / "proc")
    monkeypatch.setattr(kernel, "default_lock", lambda: tmp_path / "lock")
    monkeypatch.setattr(workloads, "unavailable", lambda: "")
    monkeypatch.setattr(kernel, "unavailable", lambda: "")
    return folder


@pytest.fixture
def saved(tmp_path):
    return tmp_path / "lock.saved"


def settings(folder):
    return {name: (folder / name).read_text().strip() for name in SETTINGS}


AFTER = SETTINGS | {"advisor_mode": "none"}  # a plain file does not show the other modes


def test_settings_are_put_back_and_the_file_goes(sysfs, saved, tmp_path):
    ksmd = Ksmd(saved)
    assert json.loads(saved.read_text()) == SAVED
    ksmd.start()
    assert settings(sysfs)["sleep_millisecs"] in ("2000000000", "2000000001")
    assert settings(sysfs)["pages_to_scan"] == "4294967295"
    ksmd.restore()
    assert settings(sysfs) == AFTER
    assert not saved.exists()
    assert [each.name for each in tmp_path.iterdir() if "lock" in each.name] == []


def test_a_workload_runs_and_leaves_nothing(sysfs, saved):
    outcome = run_kernel(NOTHING)
    assert outcome["records"][0] == {"step": 0, "sysfs": "max_page_sharing", "value": 3, "error": ""}
    assert outcome["records"][1]["ksm"]["max_page_sharing"] == 3
    assert settings(sysfs) == AFTER
    assert not saved.exists()


def test_a_run_that_was_killed_is_mended_by_the_next(sysfs, saved):
    Ksmd(saved).start()
    assert settings(sysfs)["run"] == "0"
    run_kernel(NOTHING)
    assert settings(sysfs) == AFTER
    assert not saved.exists()


def test_a_file_that_was_lost(sysfs, saved):
    """The sleep of a run that was killed is not taken for a setting."""
    (sysfs / "sleep_millisecs").write_text("2000000001\n")
    run_kernel(NOTHING)
    assert settings(sysfs) == AFTER | {"sleep_millisecs": "20"}
    Ksmd(saved)
    saved.write_text(json.dumps(SAVED | {"sleep_millisecs": 2_000_000_000}))
    run_kernel(NOTHING)
    assert settings(sysfs)["sleep_millisecs"] == "20"


def with_saved(**changes):
    return json.dumps(SAVED | changes)


DAMAGED = {
    "empty": "", "list": "[]", "object": "{}", "number": "7", "half of it": json.dumps(SAVED)[:40], "deep": "[" * 100_000,
    "some": '{"run": 0, "sleep_millisecs": 20}', "more": json.dumps(SAVED | {"../../x": 1}), "text": with_saved(run="1"),
    "object in it": with_saved(run={}), "bool": with_saved(run=True), "negative": with_saved(pages_to_scan=-1),
    "null": with_saved(run=None), "binary": "\0" * 100,
    "mode": with_saved(advisor_mode="none\nx"), "digits": json.dumps(SAVED)[:-1] + ', "x": ' + "1" * 5001 + "}",
    "large": " " * 100_000,
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_named_and_does_no_harm(sysfs, saved, tmp_path, text):
    saved.write_text(text)
    (tmp_path / "w.json").write_text(json.dumps(NOTHING))
    result = CliRunner().invoke(main, ["verify", str(tmp_path / "w.json")], prog_name="ksm")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith(f"ksm: nothing: {saved} is damaged (")
    assert "Traceback" not in result.stderr and len(result.stderr) < 500
    assert settings(sysfs) == SETTINGS
    assert saved.read_text() == text
    with pytest.raises(OracleError, match="is damaged"):
        bench.Kernel(tmp_path / "lock")
    saved.unlink()
    run_kernel(NOTHING)
    assert settings(sysfs) == AFTER


@pytest.mark.parametrize("what", ["fifo", "folder", "/dev/zero", "nowhere"])
def test_something_else_in_its_place(sysfs, saved, what):
    {"fifo": os.mkfifo, "folder": os.mkdir}.get(what, lambda path: os.symlink(what, path))(saved)
    with pytest.raises(OracleError, match=f"{saved} is damaged"):
        run_kernel(NOTHING)
    assert settings(sysfs) == SETTINGS


FULL = """
import resource, signal, sys
from pathlib import Path
from ksm.oracle import kernel, proc
from ksm.cli import workloads
from ksm.cli.group import main
folder = Path(sys.argv[1])
kernel.KSM, proc.PROC, kernel.default_lock = folder / "ksm", folder / "proc", lambda: folder / "lock"
kernel.unavailable = workloads.unavailable = lambda: ""
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
main(["verify", str(folder / "w.json")], prog_name="ksm")
"""


def test_a_full_run_folder(sysfs, saved, tmp_path):
    """The settings cannot be saved: no setting is changed, and no file is left that would stop later runs."""
    (tmp_path / "w.json").write_text(json.dumps(NOTHING))
    environment = {**os.environ, "PYTHONPATH": HOME}
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, env=environment)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"ksm: nothing: {saved} cannot be written: File too large\n"
        assert settings(sysfs) == SETTINGS
        assert sorted(each.name for each in tmp_path.iterdir()) == ["ksm", "lock", "proc", "w.json"]


@pytest.mark.parametrize("when", ["write", "flush", "rename"])
def test_killed_while_it_is_written(sysfs, saved, monkeypatch, when):
    """At whatever moment the run is killed, there is a whole file or none."""
    def die(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(*{"write": (json, "dumps"), "flush": (os, "fsync"), "rename": (os, "replace")}[when], die)
    with pytest.raises(KeyboardInterrupt):
        run_kernel(NOTHING)
    assert not saved.exists()
    assert settings(sysfs) == SETTINGS


def test_a_setting_that_cannot_be_put_back(sysfs, saved, monkeypatch):
    """The other settings are put back, this one is named, and the file stays."""
    ksmd = Ksmd(saved)
    ksmd.start()
    write = kernel.sysfs_write

    def busy(name, value):
        if name == "max_page_sharing":
            raise OSError(16, "Device or resource busy")
        write(name, value)

    monkeypatch.setattr(kernel, "sysfs_write", busy)
    with pytest.raises(OracleError, match=r"max_page_sharing = 256: Device or resource busy.* stand in .*lock\.saved"):
        ksmd.restore()
    assert {name for name, value in settings(sysfs).items() if value != AFTER[name]} <= {"max_page_sharing"}
    assert json.loads(saved.read_text()) == SAVED


def test_errors_of_the_system_are_no_difference(sysfs, tmp_path, monkeypatch):
    """verify ends with 1 when something differs, and with 2 for errors that keep it from finding out. Other commands end with 1."""
    (tmp_path / "w.json").write_text(json.dumps(NOTHING))

    def ends(error, *arguments):
        def fail(*_, **__):
            raise error
        for name in ("running_kernel", "run_port"):
            monkeypatch.setattr(workloads, name, fail)
        result = CliRunner().invoke(main, [*arguments, str(tmp_path / "w.json")], prog_name="ksm")
        assert result.stdout == ""
        return result.exit_code, result.stderr

    for error, line in ((OSError(28, "No space left on device", "/run/x"), "ksm: No space left on device: /run/x\n"),
                        (MemoryError(), "ksm: out of memory\n"), (BrokenPipeError(32, "Broken pipe"), "")):
        assert ends(error, "verify") == (2, line)
        assert ends(error, "replay") == (1, line)
    assert ends(KeyboardInterrupt(), "verify") == (130, "ksm: interrupted\n")
    assert ends(OracleError("why"), "verify") == (2, "ksm: nothing: why\n")
    code, text = ends(ZeroDivisionError("a fault of ours"), "verify")
    assert code == 2 and "ZeroDivisionError" in text


def test_a_process_that_only_has_the_name_is_not_ksmd(sysfs, tmp_path):
    assert proc.kernel_thread("ksmd") == tmp_path / "proc/8"
    (tmp_path / "proc/8/stat").unlink()
    with pytest.raises(OracleError, match="this kernel has no ksmd"):
        proc.kernel_thread("ksmd")


@pytest.mark.parametrize("code, asleep", [("input()", True), ("while True: pass", False)])
def test_whether_a_thread_sleeps(code, asleep):
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        stat = os.open(f"/proc/{process.pid}/stat", os.O_RDONLY)
        try:
            deadline = time.monotonic() + 20
            while is_asleep(stat) != asleep and time.monotonic() < deadline:
                time.sleep(0.01)
            assert is_asleep(stat) == asleep
        finally:
            os.close(stat)
            process.kill()


def test_a_thread_in_the_middle_of_falling_asleep_does_not_sleep(tmp_path):
    """It has state S, and goes on: the kernel does not tell of its system call then."""
    (tmp_path / "stat").write_text("37 (ksmd) S 2 0 0")
    for syscall, asleep in (("running\n", False), ("0 0x0 0x0\n", True)):
        (tmp_path / "syscall").write_text(syscall)
        stat = os.open(tmp_path / "stat", os.O_RDONLY)
        assert is_asleep(stat) == asleep
        os.close(stat)

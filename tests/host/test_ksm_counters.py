# SPDX-License-Identifier: GPL-2.0-only
"""Reading the counters of KSM from text and from trees."""

import time

import pytest

from ksm.estimate.counters import KSM_STAT, SYSTEM
from ksm.host import ksm_counters
from ksm.host.files import FileError
from ksm.host.ksm_counters import read_lines, read_tree


@pytest.fixture
def tree(tmp_path):
    """A copy of a system's files with three processes."""
    (tmp_path / "sys/kernel/mm/ksm").mkdir(parents=True)
    (tmp_path / "sys/kernel/mm/ksm/run").write_text("1\n")
    for pid in (5, 40, 300):
        (tmp_path / f"proc/{pid}").mkdir(parents=True)
        (tmp_path / f"proc/{pid}/ksm_stat").write_text(f"ksm_rmap_items {pid}\n")
    return tmp_path


def read(folder):
    return read_tree(str(folder), SYSTEM, KSM_STAT)


def lines(text):
    return read_lines(text.encode(), "here", SYSTEM, KSM_STAT)


def failing(monkeypatch, ends, why):
    """Let files whose path ends so be refused."""
    real = ksm_counters.read_file

    def read_file(path, limit):
        if path.endswith(ends):
            raise FileError(f"{path}: {why}")
        return real(path, limit)

    monkeypatch.setattr(ksm_counters, "read_file", read_file)


def test_processes_are_in_the_order_of_their_numbers(tree):
    assert [(name, values["ksm_rmap_items"]) for name, values in read(tree).processes.items()] == [("5", "5"), ("40", "40"), ("300", "300")]


def test_processes_of_others_are_counted(tree, monkeypatch):
    failing(monkeypatch, "40/ksm_stat", "Permission denied")
    reading = read(tree)
    assert (list(reading.processes), reading.unreadable) == (["5", "300"], 1)


def test_a_process_that_ends_meanwhile_is_left_out(tree, monkeypatch):
    failing(monkeypatch, "40/ksm_stat", "No such process")
    reading = read(tree)
    assert (list(reading.processes), reading.unreadable) == (["5", "300"], 0)


def test_a_file_of_sysfs_that_cannot_be_read(tree, monkeypatch):
    failing(monkeypatch, "ksm/run", "Permission denied")
    with pytest.raises(FileError, match="ksm/run: Permission denied"):
        read(tree)


def test_names_in_proc_that_are_no_processes(tree):
    for name in ("self", "12x", "9" * 50, "-5", "\u0661"):
        (tree / "proc" / name).mkdir()
    assert len(read(tree).processes) == 3


def test_lines_of_processes_are_told_apart_from_those_of_the_system():
    reading = lines("/sys/kernel/mm/ksm/ksm_zero_pages:7\n/proc/5/ksm_stat:ksm_zero_pages 3\n/proc/12/ksm_stat:ksm_merge_any: yes\n")
    assert reading.system == {"ksm_zero_pages": "7"}
    assert reading.processes == {"5": {"ksm_zero_pages": "3"}, "12": {"ksm_merge_any": "yes"}}


def test_the_same_line_twice():
    assert lines("run 1\nrun 1\n").system == {"run": "1"}
    with pytest.raises(FileError, match="here: run is there twice, with another value in line 2"):
        lines("run 1\nrun 0\n")


@pytest.mark.parametrize("line", [
    "/" * 2_000_000, "a" * 2_000_000, "a" + " " * 2_000_000 + "b", "1/" * 1_000_000, "a:" * 1_000_000, "\n" * 2_000_000],
    ids=["slashes", "letters", "spaces", "numbers", "colons", "lines"])  # fmt: skip
def test_long_lines_take_no_long_time(line):
    began = time.process_time()
    assert lines(f"{line}\nrun 1\n").system == {"run": "1"}
    assert time.process_time() - began < 2

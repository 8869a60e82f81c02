# SPDX-License-Identifier: GPL-2.0-only
"""The multi-generational LRU is off while a workload runs. Here its file is a plain one."""

import pytest

from ksm.oracle import lru
from ksm.oracle.lru import OlderLists
from ksm.oracle.workload import OracleError


@pytest.fixture
def enabled(tmp_path, monkeypatch):
    file = tmp_path / "enabled"
    file.write_text("0x0007\n")
    monkeypatch.setattr(lru, "GENERATIONS", file)
    return file


def test_it_is_off_meanwhile(enabled, tmp_path):
    backup = tmp_path / "backup"
    lists = OlderLists(backup)
    assert (enabled.read_text(), backup.read_text()) == ("0\n", "7\n")
    lists.close()
    assert enabled.read_text() == "7\n"
    assert not backup.exists()


def test_the_run_after_one_that_was_killed_switches_it_on(enabled, tmp_path):
    OlderLists(tmp_path / "backup")
    enabled.write_text("0x0000\n")  # as the kernel shows it
    lists = OlderLists(tmp_path / "backup")
    assert enabled.read_text() == "0\n"
    lists.close()
    assert enabled.read_text() == "7\n"
    assert not (tmp_path / "backup").exists()


@pytest.mark.parametrize("there", [False, True])
def test_nothing_is_written_where_it_is_off(enabled, tmp_path, there):
    if there:
        enabled.write_text("0x0000\n")
    else:
        enabled.unlink()
        (tmp_path / "backup").write_text("7\n")  # of another kernel
    lists = OlderLists(tmp_path / "backup")
    assert (tmp_path / "backup").exists() != there
    lists.close()
    assert (enabled.read_text() if there else "") == ("0x0000\n" if there else "")


@pytest.mark.parametrize("text", ["", "on\n", "-1\n", "7" * 99])
def test_a_damaged_backup_is_named(enabled, tmp_path, text):
    (tmp_path / "backup").write_text(text)
    with pytest.raises(OracleError, match="backup is damaged"):
        OlderLists(tmp_path / "backup")
    assert enabled.read_text() == "0x0007\n"

# SPDX-License-Identifier: GPL-2.0-only
"""How much memory a scan may take, on a computer that is made of files."""

import sys

import pytest

from ksm.host import memory

MIB = 1 << 20


class Computer:
    """A computer of files: those of /proc and /sys, by their paths."""

    def __init__(self, monkeypatch):
        self.files = {
            "/proc/meminfo": "MemTotal:       65536 kB\nMemFree:         1024 kB\nMemAvailable:    32768 kB\n",
            "/proc/self/cgroup": "0::/\n",
        }
        monkeypatch.setattr(memory, "read_text", self.read)

    def read(self, *place):
        try:
            return self.files["/".join(place)]
        except KeyError:
            raise FileNotFoundError from None

    def cgroup(self, path, limit, used, cache):
        """A cgroup with memory; sizes in MiB."""
        folder = f"/sys/fs/cgroup{path}"
        self.files[f"{folder}/memory.max"] = f"{limit if limit == 'max' else limit * MIB}\n"
        self.files[f"{folder}/memory.current"] = f"{used * MIB}\n"
        self.files[f"{folder}/memory.stat"] = f"anon {(used - cache) * MIB}\nfile {cache * MIB}\nfile_mapped 4096\n"


@pytest.fixture
def computer(monkeypatch):
    return Computer(monkeypatch)


def test_what_meminfo_says(computer):
    assert memory.total_memory() == 64 * MIB
    assert memory.available_memory() == 32 * MIB


def test_a_system_that_does_not_say(computer):
    computer.files["/proc/meminfo"] = "MemTotal: 65536 kB\n"
    assert memory.available_memory() == sys.maxsize


def test_a_cgroup_has_less(computer):
    """Page cache of the cgroup counts as room: it goes when memory is needed."""
    computer.files["/proc/self/cgroup"] = "0::/a/b\n"
    computer.cgroup("/a/b", 20, 15, 6)
    assert memory.cgroup_room() == memory.available_memory() == 11 * MIB


def test_a_cgroup_has_more(computer):
    computer.files["/proc/self/cgroup"] = "0::/a\n"
    computer.cgroup("/a", 50, 1, 0)
    assert memory.cgroup_room() == 49 * MIB
    assert memory.available_memory() == 32 * MIB


@pytest.mark.parametrize("least", ["/", "/a", "/a/b"])
def test_the_smallest_of_those_above_counts(computer, least):
    computer.files["/proc/self/cgroup"] = "12:cpu:/other\n0::/a/b\n"
    for path in ("/", "/a", "/a/b"):
        computer.cgroup("" if path == "/" else path, 8 if path == least else 16, 5, 1)
    assert memory.cgroup_room() == 4 * MIB


def test_a_cgroup_without_a_limit(computer):
    computer.files["/proc/self/cgroup"] = "0::/a/b\n"
    computer.cgroup("/a/b", "max", 15, 6)
    assert memory.cgroup_room() == sys.maxsize
    computer.cgroup("/a", 10, 4, 0)
    assert memory.cgroup_room() == 6 * MIB


@pytest.mark.parametrize("damage", [("memory.max", "many\n"), ("memory.current", ""), ("memory.stat", "anon 0\n")])
def test_a_cgroup_that_cannot_be_understood(computer, damage):
    computer.files["/proc/self/cgroup"] = "0::/a\n"
    computer.cgroup("/a", 20, 15, 6)
    computer.files[f"/sys/fs/cgroup/a/{damage[0]}"] = damage[1]
    assert memory.cgroup_room() == sys.maxsize


@pytest.mark.parametrize("text", [None, "", "12:cpu:/a\n"])
def test_without_cgroups_of_version_2(computer, text):
    if text is None:
        del computer.files["/proc/self/cgroup"]
    else:
        computer.files["/proc/self/cgroup"] = text
    computer.cgroup("/a", 20, 15, 6)
    assert memory.cgroup_room() == sys.maxsize


def test_this_computer():
    assert 0 < memory.available_memory() <= memory.total_memory()

# SPDX-License-Identifier: GPL-2.0-only
"""How much memory a scan may take, on a computer that is made of files."""

import sys

import pytest

from ksm.host import memory
from ksm.sources import work

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

    def cgroup_v1(self, path, limit, used, cache, shmem=0, hierarchical=None, mounted="/sys/fs/cgroup/memory"):
        """A cgroup of version 1; sizes in MiB, no limit as the kernel writes it."""
        limits = [(1 << 63) - 4096 if each is None else each * MIB for each in (limit, limit if hierarchical is None else hierarchical)]
        folder = f"{mounted}{path}"
        self.files[f"{folder}/memory.limit_in_bytes"] = f"{limits[0]}\n"
        self.files[f"{folder}/memory.usage_in_bytes"] = f"{used * MIB}\n"
        self.files[f"{folder}/memory.use_hierarchy"] = "1\n"
        self.files[f"{folder}/memory.stat"] = (
            f"cache 4096\nrss 4096\nhierarchical_memory_limit {limits[1]}\ntotal_cache {cache * MIB}\ntotal_shmem {shmem * MIB}\n"
        )


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


def test_shared_memory_of_a_cgroup_does_not_go(computer):
    """It counts as page cache, but without swap nothing takes it back."""
    computer.files["/proc/self/cgroup"] = "0::/a\n"
    computer.cgroup("/a", 20, 15, 6)
    computer.files["/sys/fs/cgroup/a/memory.stat"] += f"shmem {4 * MIB}\n"
    assert memory.cgroup_room() == 7 * MIB


def test_a_cgroup_that_is_slowed_down(computer):
    """Above memory.high a process is not killed, but hardly goes on."""
    computer.files["/proc/self/cgroup"] = "0::/a\n"
    computer.cgroup("/a", 20, 10, 0)
    computer.files["/sys/fs/cgroup/a/memory.high"] = f"{13 * MIB}\n"
    assert memory.cgroup_room() == 3 * MIB
    computer.files["/sys/fs/cgroup/a/memory.high"] = f"{9 * MIB}\n"
    assert memory.cgroup_room() == 0


V1 = "11:cpu,cpuacct:/other\n4:hugetlb,memory:/a/b\n1:name=systemd:/\n0::/\n"


def test_a_cgroup_of_version_1(computer):
    computer.files["/proc/self/cgroup"] = V1
    computer.cgroup_v1("/a/b", 20, 15, 6, 2)
    assert memory.cgroup_room() == memory.available_memory() == 9 * MIB


@pytest.mark.parametrize("least", ["", "/a", "/a/b"])
def test_the_smallest_of_those_above_counts_in_version_1(computer, least):
    computer.files["/proc/self/cgroup"] = V1
    for path in ("", "/a", "/a/b"):
        computer.cgroup_v1(path, 8 if path == least else None, 5, 1)
    assert memory.cgroup_room() == 4 * MIB


def test_a_cgroup_of_version_1_without_a_limit(computer):
    computer.files["/proc/self/cgroup"] = V1
    for path in ("", "/a", "/a/b"):
        computer.cgroup_v1(path, None, 5, 1)
    assert memory.cgroup_room() == sys.maxsize


def test_a_limit_above_all_that_a_container_sees(computer):
    """A container's tree may begin at its own cgroup, which has another name outside, and a parent with a limit."""
    computer.files["/proc/self/cgroup"] = "4:memory:/docker/1234\n"
    for root in ("/docker/1234", "/"):
        computer.files["/proc/self/mountinfo"] = (
            f"20 1 0:5 / / rw - ext4 /dev/sda rw\n31 23 0:28 {root} /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
            f"35 31 0:32 {root} /groups/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
        )
        computer.cgroup_v1("" if root != "/" else "/docker/1234", None, 5, 1, hierarchical=12, mounted="/groups/memory")
        assert memory.cgroup_room() == 8 * MIB
        del computer.files["/groups/memory" + ("" if root != "/" else "/docker/1234") + "/memory.stat"]


def test_version_2_beside_version_1(computer):
    computer.files["/proc/self/cgroup"] = V1.replace("0::/", "0::/c")
    computer.files["/proc/self/mountinfo"] = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
    computer.files["/sys/fs/cgroup/unified/c/memory.max"] = f"{10 * MIB}\n"
    computer.files["/sys/fs/cgroup/unified/c/memory.current"] = f"{4 * MIB}\n"
    computer.files["/sys/fs/cgroup/unified/c/memory.stat"] = "file 0\n"
    assert memory.cgroup_room() == 6 * MIB
    computer.cgroup_v1("/a/b", 9, 5, 0)
    assert memory.cgroup_room() == 4 * MIB


def test_ancestors_that_do_not_count_what_is_below(computer):
    computer.files["/proc/self/cgroup"] = V1
    computer.cgroup_v1("/a/b", 9, 5, 0)
    computer.cgroup_v1("/a", 6, 5, 0)
    assert memory.cgroup_room() == 1 * MIB
    computer.files["/sys/fs/cgroup/memory/a/memory.use_hierarchy"] = "0\n"
    assert memory.cgroup_room() == 4 * MIB


@pytest.mark.parametrize("file", ["limit_in_bytes", "usage_in_bytes", "stat"])
@pytest.mark.parametrize("text", ["", "many\n"])
def test_a_cgroup_of_version_1_that_cannot_be_understood(computer, file, text):
    computer.files["/proc/self/cgroup"] = V1
    computer.cgroup_v1("/a/b", 20, 15, 6)
    computer.files[f"/sys/fs/cgroup/memory/a/b/memory.{file}"] = text
    assert memory.cgroup_room() == sys.maxsize


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


def test_processors_that_cgroups_leave(computer, monkeypatch):
    """The quotas of both versions, those of ancestors included; a part of a processor takes a thread."""
    monkeypatch.setattr(work, "read_text", computer.read)
    computer.files["/proc/self/cgroup"] = V1
    assert work.cgroup_processors() == 1 << 16
    for path, quota in (("", -1), ("/other", 250_000)):
        computer.files[f"/sys/fs/cgroup/cpu{path}/cpu.cfs_quota_us"] = f"{quota}\n"
        computer.files[f"/sys/fs/cgroup/cpu{path}/cpu.cfs_period_us"] = "100000\n"
    assert work.cgroup_processors() == 3
    computer.files["/sys/fs/cgroup/cpu.max"] = "max 100000\n"
    assert work.cgroup_processors() == 3
    computer.files["/sys/fs/cgroup/cpu.max"] = "150000 100000\n"
    assert work.cgroup_processors() == 2


def test_this_computer():
    assert 0 < memory.available_memory() <= memory.total_memory()

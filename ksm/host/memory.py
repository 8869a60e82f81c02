# SPDX-License-Identifier: GPL-2.0-only
"""How much memory this computer has, and how much of it a scan may take."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

UNLIMITED = 1 << 62  # bytes: a limit of version 1 that nobody has set is the largest number of whole pages


def read_text(*place: str) -> str:
    """The text of a file; OSError. pathlib is not used: its import takes longer than all that this module does."""
    with open(os.path.join(*place)) as file:
        return file.read()


def has_mthp(folder: str = "/sys/kernel/mm/transparent_hugepage") -> bool:
    """Whether there are anonymous folios of several pages that are smaller than 2 MiB. Before 6.12, the kernel does not tell."""
    try:
        sizes = [name for name in os.listdir(folder) if name.startswith("hugepages-") and name != "hugepages-2048kB"]
    except OSError:
        return False
    for size in sizes:
        try:
            if int(read_text(folder, size, "stats", "nr_anon")):
                return True
        except (OSError, ValueError):
            continue
    return False


def meminfo(name: str) -> int:
    """A line of /proc/meminfo, in bytes; sys.maxsize if it is not there."""
    for line in read_text("/proc/meminfo").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) << 10
    return sys.maxsize


def page_size() -> int:
    """Bytes of a page of this computer, which maps and takes back whole pages."""
    return os.sysconf("SC_PAGE_SIZE")


def total_memory() -> int:
    return meminfo("MemTotal")


def available_memory() -> int:
    """Bytes that can be had without swapping, or what the cgroup leaves if that is less."""
    return min(meminfo("MemAvailable"), cgroup_room())


def cgroup_folders(controller: str = "") -> Iterator[str]:
    """The folders of the process's cgroup and of its ancestors, the highest that can be seen last; none where there is no such cgroup.

    Without a controller that is the cgroup of version 2, else the one of version 1 that has this controller.
    """
    try:
        for line in read_text("/proc/self/cgroup").splitlines():
            _, controllers, inside = line.split(":", 2)
            if controller in controllers.split(","):
                break
        else:
            return
    except (OSError, ValueError):
        return
    root, mounted = cgroup_mount(controller)
    # A container may see only a part of the tree, and its cgroup by the name that the host has for it.
    below = os.path.relpath(inside, root)
    folder = mounted if below == "." or below.startswith("..") else os.path.join(mounted, below)
    while True:
        yield folder
        if folder == mounted:
            break
        folder = os.path.dirname(folder)


def cgroup_mount(controller: str) -> tuple[str, str]:
    """Which folder of the cgroups is mounted, and where; see cgroup_folders()."""
    try:
        for line in read_text("/proc/self/mountinfo").splitlines():
            mount, _, kind = line.partition(" - ")
            root, place = mount.split()[3:5]
            name, _, options = kind.split()
            if (name == "cgroup" and controller and controller in options.split(",")) or (name == "cgroup2" and not controller):
                return root, place
    except (OSError, ValueError):
        pass
    return "/", os.path.join("/sys/fs/cgroup", controller).rstrip("/")


def numbers(*place: str) -> dict[str, int]:
    """The lines of a memory.stat; OSError, ValueError."""
    return {key: int(value) for key, value in (line.split() for line in read_text(*place).splitlines())}


def cgroup_room() -> int:
    """Bytes that the limits of the cgroup and of its ancestors leave. Page cache counts as room: it goes when memory is needed."""
    return min(cgroup_room_v2(), cgroup_room_v1())


def cgroup_room_v2() -> int:
    """What memory.max and memory.high leave. Above memory.high, the kernel makes a process wait for memory, again and again."""
    room = sys.maxsize
    for folder in cgroup_folders():
        for file in ("memory.max", "memory.high"):
            try:
                limit = read_text(folder, file).strip()
                if limit != "max":
                    stat = numbers(folder, "memory.stat")
                    used, cache = int(read_text(folder, "memory.current")), stat["file"] - stat.get("shmem", 0)
                    room = min(room, int(limit) - used + cache)
            except (OSError, ValueError, KeyError):
                pass
    return max(0, room)


def cgroup_room_v1() -> int:
    """What memory.limit_in_bytes leaves. Of ancestors that cannot be seen, the limit is known, and what they use is not."""
    room = sys.maxsize
    for number, folder in enumerate(cgroup_folders("memory")):
        try:
            if number and int(read_text(folder, "memory.use_hierarchy")) == 0:
                break  # before Linux 5.11: it does not count what is below it
            stat = numbers(folder, "memory.stat")
            limit = min(int(read_text(folder, "memory.limit_in_bytes")), stat.get("hierarchical_memory_limit", sys.maxsize))
            if limit < UNLIMITED:
                used = int(read_text(folder, "memory.usage_in_bytes"))
                room = min(room, limit - used + stat["total_cache"] - stat.get("total_shmem", 0))
        except (OSError, ValueError, KeyError):
            pass
    return max(0, room)

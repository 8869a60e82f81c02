# SPDX-License-Identifier: GPL-2.0-only
"""How much memory this computer has, and how much of it a scan may take."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator


def read_text(*place: str) -> str:
    """The text of a file; OSError. pathlib is not used: its import takes longer than all that this module does."""
    with open(os.path.join(*place)) as file:
        return file.read()


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


def cgroup_folders() -> Iterator[str]:
    """The folders of the process's cgroup (version 2) and of its ancestors, the root last; none where there is no such cgroup."""
    try:
        inside = next(line[3:] for line in read_text("/proc/self/cgroup").splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return
    root = "/sys/fs/cgroup"
    folder = os.path.join(root, inside.strip("/")).rstrip("/")
    while True:
        yield folder
        if folder == root:
            break
        folder = os.path.dirname(folder)


def cgroup_room() -> int:
    """Bytes that memory.max of the cgroup (version 2) and of its ancestors leaves."""
    room = sys.maxsize
    for folder in cgroup_folders():
        try:
            limit = read_text(folder, "memory.max").strip()
            if limit != "max":
                used = int(read_text(folder, "memory.current"))
                cache = next(int(line.split()[1]) for line in read_text(folder, "memory.stat").splitlines() if line.startswith("file "))
                room = min(room, int(limit) - used + cache)
        except (OSError, ValueError, StopIteration):
            pass
    return room

# SPDX-License-Identifier: GPL-2.0-only
"""How much memory this computer has, and how much of it a scan may take."""

from __future__ import annotations

import sys
from pathlib import Path


def meminfo(name: str) -> int:
    """A line of /proc/meminfo, in bytes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) << 10
    return sys.maxsize


def total_memory() -> int:
    return meminfo("MemTotal")


def available_memory() -> int:
    """What can be had without swapping: less where the cgroup has less."""
    return min(meminfo("MemAvailable"), cgroup_room())


def cgroup_room() -> int:
    """What memory.max of the cgroup (version 2) and of those above it leaves."""
    try:
        inside = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return sys.maxsize
    root = Path("/sys/fs/cgroup")
    room = sys.maxsize
    folder = root / inside.strip("/")
    for place in (folder, *folder.parents):
        try:
            limit = (place / "memory.max").read_text().strip()
            if limit != "max":
                used = int((place / "memory.current").read_text())
                cache = next(int(line.split()[1]) for line in (place / "memory.stat").open() if line.startswith("file "))
                room = min(room, int(limit) - used + cache)
        except (OSError, ValueError, StopIteration):
            pass
        if place == root:
            break
    return room

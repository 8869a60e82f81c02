# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: the other side of /sys/kernel/mm/ksm, /proc/PID/ksm_stat and /proc/vmstat.
"""Reading the counters of KSM: of the running kernel, of a copied tree, or of lines of text."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from ksm.host.files import FileError, read_file

LARGEST = 16 << 20  # bytes of text
FILE = 1 << 16  # bytes of a file of a tree; the kernel's have 4096 at most, and /proc/vmstat more
MOST_PROCESSES = 1 << 22  # the kernel's own limit of PIDs

LONGEST = 4096  # characters of a line

# A line of `cat`, of `grep . FILE...` (with the file before a colon), of ksm_stat or of vmstat.
LINE = re.compile(
    r"(?:(?:[^\s:]*/)?(?P<pid>[0-9]{1,10})/ksm_stat:|(?:[^\s:]*/)?[\w-]+:)?\s*(?P<name>[a-z_]+)\s*[:=\s]\s*(?P<value>.*)"
)
ONE = re.compile(r"(?:[^\s:]*/)?(?P<name>[a-z_]+):(?P<value>.*)")


class Reading(NamedTuple):
    """What was read: counters of the system, counters of processes by name, the release of the kernel ("" if not told), unreadable ones."""

    system: dict[str, str]
    processes: dict[str, dict[str, str]]
    release: str
    unreadable: int = 0


def text_of(data: bytes, what: str) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise FileError(f"{what}: not text") from None
    if "\0" in text:
        raise FileError(f"{what}: not text")
    return text


def read_lines(data: bytes, what: str, system: Collection[str], stat: Collection[str]) -> Reading:
    """Counters from `name value` lines; others than those named are passed over. FileError if there is none, or one is there twice.

    Lines may have the file before a colon, as `grep . /sys/kernel/mm/ksm/* /proc/[0-9]*/ksm_stat` prints them. Without it, names that only
    a process has make all lines those of one process.
    """
    found: list[tuple[str, str, str, int]] = []  # PID, name, value, number of the line
    for number, line in enumerate(text_of(data, what).splitlines(), 1):
        if len(line) > LONGEST:
            continue
        one, many = ONE.fullmatch(line.strip()), LINE.fullmatch(line.strip())
        if one and one["name"] in system:
            found.append(("", one["name"], one["value"].strip(), number))
        elif many and (many["name"] in stat or many["name"] in system):
            found.append((many["pid"] or "", many["name"], many["value"].strip(), number))
    alone = {name for pid, name, _, _ in found if not pid}
    if alone & (set(stat) - set(system)) and not alone & (set(system) - set(stat)):
        found = [(pid or "the process", name, value, number) for pid, name, value, number in found]
    reading = Reading({}, {}, "")
    for pid, name, value, number in found:
        if name not in (stat if pid else system):
            continue
        into = reading.processes.setdefault(pid, {}) if pid else reading.system
        if into.setdefault(name, value) != value:
            raise FileError(f"{what}: {name} is there twice, with another value in line {number}")
    if not reading.system and not reading.processes:
        raise FileError(f"{what}: no counter of KSM is in it")
    return reading


def read_tree(folder: str, system: Collection[str], stat: Collection[str]) -> Reading:
    """Counters from a copy of /sys/kernel/mm/ksm, or of / with sys and proc in it. FileError."""
    below = os.path.join(folder, "sys/kernel/mm/ksm")
    whole = os.path.isdir(below)
    knobs, proc = (below, os.path.join(folder, "proc")) if whole else (folder, "")
    if not os.path.isdir(knobs):
        lacks = "no folder" if folder != "/" else "no such folder: this kernel has no KSM (CONFIG_KSM)"
        raise FileError(f"{knobs}: {lacks}")
    values = {name: read_small(os.path.join(knobs, name)) for name in system}
    found = {name: text.strip() for name, text in values.items() if text is not None}
    if not found:
        raise FileError(f"{knobs}: no counter of KSM is in it")
    if not proc:
        return Reading(found, {}, "")
    for line in (read_small(os.path.join(proc, "vmstat")) or "").splitlines():
        name, _, value = line.partition(" ")
        if name in system:
            found.setdefault(name, value.strip())
    processes, unreadable = read_processes(proc, stat)
    return Reading(found, processes, (read_small(os.path.join(proc, "sys/kernel/osrelease")) or "").strip(), unreadable)


def read_small(path: str) -> str | None:
    """The text of a file of a tree; None if there is none. FileError."""
    if not os.path.lexists(path):
        return None
    return text_of(read_file(path, FILE), path)


def read_processes(proc: str, stat: Collection[str]) -> tuple[dict[str, dict[str, str]], int]:
    """ksm_stat of each process, by "PID name", and how many may not be read. One that ends meanwhile is left out."""
    found: dict[str, dict[str, str]] = {}
    unreadable = 0
    for pid in pids(proc):
        path = os.path.join(proc, pid, "ksm_stat")
        try:
            text = read_small(path)
        except FileError as error:
            if not os.path.exists(path) or "No such process" in str(error):
                continue
            if "Permission denied" not in str(error):
                raise
            unreadable += 1
            continue
        lines = (re.split(r"[:\s]\s*", line.strip(), maxsplit=1) for line in (text or "").splitlines())
        values = {pair[0]: pair[1] for pair in lines if len(pair) == 2 and pair[0] in stat}
        if values:
            found[f"{pid} {name_of(proc, pid)}".strip()] = values
    return found, unreadable


def name_of(proc: str, pid: str) -> str:
    """The name of a process, which may be any bytes; "" if it is not there."""
    try:
        return read_file(os.path.join(proc, pid, "comm"), FILE).decode(errors="replace").strip()
    except FileError:
        return ""


def pids(proc: str) -> Iterator[str]:
    try:
        names = os.listdir(proc)
    except OSError:
        return
    yield from sorted((name for name in names if re.fullmatch(r"[0-9]{1,7}", name) and int(name) <= MOST_PROCESSES), key=int)

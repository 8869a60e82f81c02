# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: workloads that are compared with it.
"""Checks that JSON is a workload or an outcome, and no larger than allowed. ksm.oracle.workload describes both."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ksm.host.json_file import shown
from ksm.oracle.workload import ADVICE, MAX_NODES, MAX_PAGES, SLOTS, Json, OracleError

MOST_PAGES = 1 << 16  # mapped at a time, in all processes together: 256 MiB
MOST_VMAS = 10_000  # at a time: each has page tables of its own, because they are 1 GiB apart
MOST_PROCESSES = 1000  # at a time
LONGEST_NAME = 200

_PAGES = {"page", "count"}
_VMA = {"contents", "mergeable", "slot"}
# For each op, the keys that a step must have, and those that it may have
OPS: dict[str, tuple[set[str], set[str]]] = {
    "write": ({"proc", "vma", "contents"}, _PAGES),
    "touch": ({"proc", "vma"}, _PAGES),
    "read": ({"proc", "vma"}, _PAGES),
    "poke": ({"proc", "vma", "contents"}, _PAGES),
    "peek": ({"proc", "vma"}, _PAGES),
    "madvise": ({"proc", "vma", "advice"}, _PAGES),
    "mprotect": ({"proc", "vma", "prot"}, _PAGES),
    "munmap": ({"proc", "vma"}, _PAGES),
    "pageout": ({"proc", "vma"}, _PAGES),
    "migrate": ({"proc", "vma", "node"}, _PAGES),
    "soft_offline": ({"proc", "vma"}, _PAGES | {"by", "node"}),
    "hwpoison": ({"proc", "vma"}, _PAGES | {"by", "node"}),
    "mmap": ({"proc", "vma", "pages"}, _VMA),
    "mremap": ({"proc", "vma"}, {"pages", "slot"}),
    "move": ({"proc", "vma", "into"}, {"page", "count", "slot"}),
    "fork": ({"proc", "child"}, set()),
    "exec": ({"proc"}, set()),
    "prctl": ({"proc", "merge"}, {"arg3"}),
    "exit": ({"proc"}, set()),
    "sysfs": ({"file", "value"}, set()),
    "scan": (set(), {"passes"}),
    "batch": (set(), {"pages"}),
    "record": (set(), set()),
    "sleep": ({"ms"}, set()),
    "offline": ({"node"}, set()),
    "online": ({"node"}, set()),
}
RESIZING = ("mmap", "mremap", "munmap", "move", "fork", "exec", "exit")


def is_number(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_name(value: Any) -> bool:
    """Whether a value can be a name, which is printed in a line and written into the kernel's trace."""
    return isinstance(value, str) and len(value) <= LONGEST_NAME and value.isprintable()


def is_setting(value: Any) -> bool:
    """Whether a value can be written to a file of sysfs: the kernel has to see all of it, in one write."""
    return (is_name(value) and value.isascii()) or (isinstance(value, int) and abs(value) < 1 << 64)


def is_contents(value: Any) -> bool:
    def is_id(content: Any) -> bool:
        return content is None or is_number(content, 0, (1 << 48) - 1)

    def is_item(item: Any) -> bool:
        return len(item) == 2 and is_id(item[0]) and is_number(item[1], 0, MAX_PAGES) if isinstance(item, list) else is_id(item)

    return isinstance(value, list) and all(map(is_item, value))


# Checks of values, by key. The value of any other key is a name.
VALUES: dict[str, Callable[[Any], bool]] = {
    "contents": is_contents,
    "mergeable": lambda value: isinstance(value, bool),
    "advice": lambda value: isinstance(value, str) and value in ADVICE,
    "prot": lambda value: is_number(value, 0, 3),
    "merge": lambda value: is_number(value, 0, 1),
    "arg3": lambda value: is_number(value, 0, (1 << 64) - 1),
    "file": lambda value: isinstance(value, str) and bool(re.fullmatch(r"[a-z0-9_]{1,64}", value)),  # in KSM's folder, and in no other
    "value": is_setting,
    "slot": lambda value: is_number(value, 0, SLOTS - 1),
    "page": lambda value: is_number(value, 0, MAX_PAGES),
    "count": lambda value: is_number(value, 0, MAX_PAGES),
    "pages": lambda value: is_number(value, 1, MAX_PAGES),
    "passes": lambda value: is_number(value, 1, 1_000_000),
    "by": lambda value: value in ("frame", "madvise"),
    "node": lambda value: is_number(value, 0, MAX_NODES - 1),
    "swap": lambda value: is_number(value, 1, MAX_PAGES),
    "nodes": lambda value: is_number(value, 1, MAX_NODES),
    "ms": lambda value: isinstance(value, (int, float)) and 0 <= value <= 1e6,
}


def check(what: str, item: Any, must: set[str], may: set[str]) -> None:
    """Raise OracleError unless `item` is an object with these keys, and with values that they can have."""
    if not isinstance(item, dict):
        raise OracleError(f"{what} is not a JSON object")
    keys = set(item)
    if missing := must - keys:
        raise OracleError(f"{what}: {', '.join(sorted(missing))} missing")
    if unknown := keys - must - may:
        raise OracleError(f"{what}: {shown(min(unknown))} unknown")
    for key, value in item.items():
        if not VALUES.get(key, is_name)(value):
            raise OracleError(f"{what}: {key} cannot be {shown(value)}")


def list_in(item: Json, key: str) -> list[Any]:
    if not isinstance(item.get(key), list):
        raise OracleError(f"{key} has to be a list")
    found: list[Any] = item[key]
    return found


def check_workload(workload: Any) -> None:
    """Raise OracleError for what is not a workload, or too large. Names that do not exist show only when it runs."""
    if not isinstance(workload, dict):
        raise OracleError("a workload is a JSON object")
    rest = {key: value for key, value in workload.items() if key not in ("settings", "procs", "steps")}
    check("the workload", rest, set(), {"name", "nodes", "swap"})
    settings = workload.get("settings", {})
    if not isinstance(settings, dict):
        raise OracleError("settings is not a JSON object")
    for name, value in settings.items():
        check("settings", {"file": name, "value": value}, {"file", "value"}, set())
    for proc in list_in(workload, "procs"):
        check("a process", {**proc, "vmas": ""} if isinstance(proc, dict) else proc, {"name", "vmas"}, set())
        for vma in list_in(proc, "vmas"):
            check(f"a VMA of {proc['name']}", vma, {"name", "pages"}, _VMA)
    for number, step in enumerate(list_in(workload, "steps")):
        op = step.get("op") if isinstance(step, dict) else None
        if not isinstance(op, str) or op not in OPS:
            raise OracleError(f"step {number}: unknown op {shown(op)}")
        check(f"step {number}, {op}", {key: value for key, value in step.items() if key != "op"}, *OPS[op])
    names = process_names(workload)
    if len(set(names)) != len(names):
        raise OracleError("process names are not unique")
    check_size(workload)


def process_names(workload: Json) -> list[str]:
    """The names of all processes that the workload will ever have."""
    return [proc["name"] for proc in workload["procs"]] + [step["child"] for step in workload["steps"] if step["op"] == "fork"]


class Mapped:
    """What a process has mapped: for each VMA a number with a bit for each page."""

    def __init__(self, vmas: dict[str | int, int] | None = None, pages: int = 0) -> None:
        self.vmas, self.pages = dict(vmas or {}), pages

    def set(self, vma: str, pages: int) -> None:
        self.pages += pages.bit_count() - self.vmas.pop(vma, 0).bit_count()
        if pages:
            self.vmas[vma] = pages

    def add(self, vma: str, pages: int, number: int) -> None:
        """Add a VMA. An older VMA of this name stays mapped, but no step can name it any more."""
        if old := self.vmas.pop(vma, 0):
            self.vmas[number] = old
        self.set(vma, pages)


class Sizes:
    """What a workload has mapped after the steps so far. OracleError when it is too much."""

    def __init__(self) -> None:
        self.procs: dict[str, Mapped] = {}
        self.pages = self.vmas = 0

    def put(self, where: str, name: str, now: Mapped | None) -> None:
        """Set what a process has mapped; None if it has exited."""
        if now is None:
            self.procs.pop(name)
        else:
            self.procs[name] = now
            self.pages += now.pages
            self.vmas += len(now.vmas)
        for what, count, most, more in (("pages", self.pages, MOST_PAGES, " (256 MiB)"), ("VMAs", self.vmas, MOST_VMAS, ""),
                                        ("processes", len(self.procs), MOST_PROCESSES, "")):
            if count > most:
                raise OracleError(f"{where}: there are {count:,} {what}, and {most:,}{more} are the most that may be at a time")

    def step(self, number: int, op: str, args: Json) -> None:
        """Follow a step. A step whose process or VMA does not exist changes nothing here."""
        name, vma = args.get("proc", ""), args.get("vma", "")
        if op not in RESIZING or name not in self.procs:
            return
        where = f"step {number}, {op}"
        if op == "fork":
            parent = self.procs[name]
            self.put(where, args["child"], Mapped(parent.vmas, parent.pages))
            return
        proc: Mapped | None = self.procs[name]
        assert proc is not None
        self.pages -= proc.pages
        self.vmas -= len(proc.vmas)
        old, start, count = proc.vmas.get(vma, 0), args.get("page", 0), args.get("count")
        part = (1 << (max(0, old.bit_length() - start) if count is None else count)) - 1
        if op == "mmap":
            proc.add(vma, (1 << args["pages"]) - 1, number)
        elif op == "mremap" and old:
            proc.set(vma, (1 << args["pages"]) - 1 if "pages" in args else old)
        elif op == "munmap":
            proc.set(vma, old & ~(part << start))
        elif op == "move":
            proc.set(vma, old & ~(part << start))
            proc.add(args["into"], part, number)
        elif op == "exec":
            proc = Mapped()
        elif op == "exit":
            proc = None
        self.put(where, name, proc)


def check_size(workload: Json) -> None:
    """Raise OracleError for a workload that has more pages, VMAs or processes at a time than it may."""
    sizes = Sizes()
    for proc in workload["procs"]:
        mapped = Mapped()
        for number, vma in enumerate(proc["vmas"]):
            mapped.add(vma["name"], (1 << vma["pages"]) - 1, -1 - number)
        sizes.put(f"process {proc['name']}", proc["name"], mapped)
    for number, step in enumerate(workload["steps"]):
        sizes.step(number, step["op"], step)


def is_plain(value: Any, depth: int) -> bool:
    """Whether a value is a number, a string or None; or lists and objects of these, nested `depth` deep at most."""
    if isinstance(value, dict | list):
        return depth > 0 and all(is_plain(each, depth - 1) for each in (value.values() if isinstance(value, dict) else value))
    return True


# Checks of a record's values, by key. The value of any other key is plain. None is in records that hold only what has changed.
RECORD: dict[str, Callable[[Any], bool]] = {
    "step": lambda value: is_number(value, -1, 1 << 31),  # -1: before the first step
    "ksm": lambda value: isinstance(value, dict) and is_plain(value, 1),
    "procs": lambda value: isinstance(value, dict) and is_plain(value, 3),
    "pages": lambda value: isinstance(value, dict) and is_plain(value, 3),
    "nodes": lambda value: isinstance(value, dict) and is_plain(value, 3),
    "killed": lambda value: isinstance(value, dict) and is_plain(value, 1),
    "rss": lambda value: isinstance(value, list) and all(isinstance(size, list) and is_plain(size, 1) for size in value),
    "events": lambda value: isinstance(value, list) and all(isinstance(event, list) and is_plain(event, 1) for event in value),
}


def check_outcome(outcome: Any) -> None:
    """Raise OracleError for what is not an outcome of a workload. An outcome can be compared, and printed."""
    if not isinstance(outcome, dict):
        raise OracleError("an outcome is a JSON object")
    for number, record in enumerate(list_in(outcome, "records")):
        if not isinstance(record, dict) or "step" not in record:
            raise OracleError(f"record {number} has no step")
        for key, value in record.items():
            if not RECORD.get(key, lambda value: is_plain(value, 0))(value):
                raise OracleError(f"record {number}: {shown(key)} cannot be {shown(value)}")

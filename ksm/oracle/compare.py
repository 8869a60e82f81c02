# SPDX-License-Identifier: GPL-2.0-only
"""Where two outcomes of the same workload differ first."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any, NamedTuple

from ksm.host.text import printable
from ksm.oracle.workload import Json

# Keys that Linux 6.12, or an older recording, does not have
NEWER = ("ksm_merge_any", "ksm_mergeable", "smaps", "anon_huge_pages", "nodes", "rss")
ADVISED = ("pages_to_scan", "batches")  # in scan-time mode they depend on the processor time that ksmd has had since boot
MISSING = "nothing"
LONGEST = 500  # characters of a value that are shown


class Difference(NamedTuple):
    """The first value that differs."""

    step: int
    where: str
    kernel: Any
    port: Any
    events: tuple[list[Any], list[Any]] = ([], [])  # of this record, the kernel's and the port's

    def __str__(self) -> str:
        return f"step {self.step}: {brief(self.where)}: kernel {brief(self.kernel)}, port {brief(self.port)}"

    def report(self, name: str) -> str:
        """Some lines: what differs, and the events side by side, "|" where they are not the same."""
        lines = [f"{name}: {self}"]
        if any(self.events):
            left, right = ([" ".join(map(brief, event)) for event in side] for side in self.events)
            width = max(map(len, ["kernel", *left]))
            rows = [("kernel", " ", "port"), *side_by_side(left, right)]
            lines += [f"    {one:{width}} {mark} {other}".rstrip() for one, mark, other in rows]
        return "\n".join(lines)


def brief(value: Any) -> str:
    """A value of unknown origin as a terminal can show it, shortened."""
    text = printable(str(value))
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def side_by_side(left: list[str], right: list[str]) -> Iterator[tuple[str, str, str]]:
    """Rows of (left, mark, right). Equal lines share a row with the mark " "; the mark of all others is "|"."""
    for what, start, end, other_start, other_end in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        for one, other in zip_longest(left[start:end], right[other_start:other_end], fillvalue=""):
            yield one, " " if what == "equal" else "|", other


def first_difference(kernel: Json, port: Json) -> Difference | None:
    """The first difference between the outcomes of the kernel and the port; None if they are the same."""
    for ours, theirs in zip(kernel["records"], port["records"], strict=False):
        named = ", ".join(f"{key} {brief(ours[key])}" for key in ("op", "scan", "sysfs") if key in ours)
        for path, left, right in differences("", ours, theirs):
            events = ours.get("events", []), theirs.get("events", [])
            return Difference(ours["step"], named + path if named else path.removeprefix(", "), left, right, events)
    if len(kernel["records"]) != len(port["records"]):
        return Difference(-1, "number of records", len(kernel["records"]), len(port["records"]))
    return None


def differences(path: str, ours: Any, theirs: Any) -> Any:
    """(path, value, value) of everything that differs, counters first."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        files = [side.get("ksm", side) for side in (ours, theirs)]
        advised = all(isinstance(side, dict) and side.get("advisor_mode") == "scan-time" for side in files)
        for key in dict.fromkeys([*ours, *theirs]):
            if (key in NEWER and (key not in ours or key not in theirs)) or (key in ADVISED and advised):
                continue
            yield from differences(f"{path}, {key}", ours.get(key, MISSING), theirs.get(key, MISSING))
    elif isinstance(ours, list) and isinstance(theirs, list):
        for index in range(max(len(ours), len(theirs))):
            left, right = (values[index] if index < len(values) else MISSING for values in (ours, theirs))
            if left != right:
                yield f"{path}[{index}]", left, right
    elif ours != theirs:
        yield path, ours, theirs

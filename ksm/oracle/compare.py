# SPDX-License-Identifier: GPL-2.0-only
"""Where two outcomes of the same workload differ first."""

from __future__ import annotations

from typing import Any, NamedTuple

from ksm.oracle.workload import Json

NEWER = ("ksm_merge_any", "ksm_mergeable", "smaps")  # what Linux 6.12, or an older record of a run, does not have
MISSING = "nothing"


class Difference(NamedTuple):
    """The first value that differs."""

    step: int
    where: str
    kernel: Any
    port: Any

    def __str__(self) -> str:
        return f"step {self.step}: {self.where}: kernel {self.kernel}, port {self.port}"


def first_difference(kernel: Json, port: Json) -> Difference | None:
    """The first difference between the outcomes of the kernel and the port; None if they are the same."""
    for number, (ours, theirs) in enumerate(zip(kernel["records"], port["records"], strict=False)):
        where = f"record {number}" + "".join(f", {key} {ours[key]}" for key in ("op", "scan", "sysfs") if key in ours)
        for path, left, right in differences("", ours, theirs):
            return Difference(ours["step"], where + path, left, right)
    if len(kernel["records"]) != len(port["records"]):
        return Difference(-1, "number of records", len(kernel["records"]), len(port["records"]))
    return None


def all_differences(kernel: Json, port: Json) -> list[Difference]:
    """All differences of the first record that has some."""
    for number, (ours, theirs) in enumerate(zip(kernel["records"], port["records"], strict=False)):
        if found := [Difference(ours["step"], f"record {number}{path}", *values) for path, *values in differences("", ours, theirs)]:
            return found
    return []


def differences(path: str, ours: Any, theirs: Any) -> Any:
    """(path, value, value) of everything that differs, counters first."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in dict.fromkeys([*ours, *theirs]):
            if key in NEWER and (key not in ours or key not in theirs):
                continue
            yield from differences(f"{path}, {key}", ours.get(key, MISSING), theirs.get(key, MISSING))
    elif isinstance(ours, list) and isinstance(theirs, list):
        for index in range(max(len(ours), len(theirs))):
            left, right = (values[index] if index < len(values) else MISSING for values in (ours, theirs))
            if left != right:
                yield f"{path}[{index}]", left, right
    elif ours != theirs:
        yield path, ours, theirs

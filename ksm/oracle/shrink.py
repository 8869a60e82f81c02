# SPDX-License-Identifier: GPL-2.0-only
"""Shrinking a workload on which kernel and port differ to a smallest one on which they still differ.

Delta debugging leaves out ever smaller parts, first of the steps, then of the processes, settings, VMAs and numbers, until nothing more
can go. Steps that make no sense without a part go with it, such as those of a process that is no longer forked.
"""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any

from ksm.oracle.workload import Json, OracleError

Differs = Callable[[Json], bool]
Change = Callable[[Json], object]


def sensible(workload: Json) -> Json:
    """The workload without the steps of processes and VMAs that it does not have."""
    vmas: dict[str, set[str]] = {proc["name"]: {vma["name"] for vma in proc["vmas"]} for proc in workload["procs"]}
    steps = []
    for step in workload["steps"]:
        if "proc" in step:
            own = vmas.get(step["proc"])
            if own is None or ("vma" in step and step["op"] != "mmap" and step["vma"] not in own):
                continue
            if step["op"] == "fork":
                vmas[step["child"]] = set(own)
            elif step["op"] == "exit":
                del vmas[step["proc"]]
            elif step["op"] == "exec":
                own.clear()
            elif step["op"] == "mmap":
                own.add(step["vma"])
            elif step["op"] == "move":
                own.add(step["into"])
        steps.append(step)
    return {**workload, "steps": steps}


class Shrinker:
    def __init__(self, workload: Json, differs: Differs) -> None:
        self.workload, self.differs = workload, differs
        self.tried = 0

    def attempt(self, smaller: Json) -> bool:
        """Go on with the smaller workload if it still differs."""
        smaller = sensible(smaller)
        if smaller == self.workload:
            return False
        self.tried += 1
        try:
            if not self.differs(smaller):
                return False
        except OracleError:  # the smaller workload cannot be run, or not without harm
            return False
        self.workload = smaller
        return True

    def parts(self, *path: Any) -> bool:
        """Leave out parts of the list that is there in the workload, first halves, in the end single items."""
        shrunk = False
        size = max(1, len(found(self.workload, *path)) // 2)
        while True:
            start = 0
            while start < len(found(self.workload, *path)):
                smaller = copy.deepcopy(self.workload)
                del found(smaller, *path)[start:start + size]
                if self.attempt(smaller):
                    shrunk = True
                else:
                    start += size
            if size == 1:
                return shrunk
            size = max(1, size // 2)

    def numbers(self) -> bool:
        """Fewer passes, pages and settings."""
        shrunk = False
        for change in list(changes(self.workload)):
            smaller = copy.deepcopy(self.workload)
            try:
                change(smaller)
            except (KeyError, IndexError):  # what it would change has gone
                continue
            shrunk = self.attempt(smaller) or shrunk
        return shrunk

    def shrink(self) -> Json:
        while True:
            shrunk = self.parts("steps")
            shrunk = self.parts("procs") or shrunk
            for number in range(len(self.workload["procs"])):
                shrunk = self.parts("procs", number, "vmas") or shrunk
            while self.numbers():
                shrunk = True
            if not shrunk:
                return self.workload


def found(workload: Json, *path: Any) -> Any:
    """What is in the workload below these keys and indices."""
    return functools.reduce(operator.getitem, path, workload)


def without(*path: Any) -> Change:
    """The change that takes out what is there."""
    return lambda smaller: found(smaller, *path[:-1]).pop(path[-1])


def put(value: Any, *path: Any) -> Change:
    """The change that puts a value there."""
    return lambda smaller: found(smaller, *path[:-1]).__setitem__(path[-1], value)


def changes(workload: Json) -> Iterator[Change]:
    """Functions that each make one thing in a workload smaller."""
    for name in workload.get("settings", {}):
        yield without("settings", name)
    for number, proc in enumerate(workload["procs"]):
        for index, vma in enumerate(proc["vmas"]):
            yield from smaller_numbers(vma, "procs", number, "vmas", index)
    for number, step in enumerate(workload["steps"]):
        yield from smaller_numbers(step, "steps", number)


def smaller_numbers(owner: Json, *path: Any) -> Iterator[Change]:
    """Changes of the numbers of a VMA or step that is there in the workload."""
    for key in ("passes", "pages", "count"):
        if owner.get(key, 1) > 1:
            for value in dict.fromkeys((1, owner[key] // 2, owner[key] - 1)):
                yield put(value, *path, key)
    for index in range(len(owner.get("contents", ()))):
        # From the end, so that earlier places keep their numbers
        last = len(owner["contents"]) - 1 - index
        if last == len(owner["contents"]) - 1:
            yield without(*path, "contents", last)
        if owner["contents"][last] is not None:
            yield put(None, *path, "contents", last)


def shrink(workload: Json, differs: Differs, step: int | None = None) -> tuple[Json, int]:
    """A smallest workload that still differs, and how many were tried. The given one is known to differ, first after step `step`."""
    shrinker = Shrinker(sensible(workload), differs)
    if step is not None and step >= 0:
        shrinker.attempt({**workload, "steps": workload["steps"][:step + 1]})
    return shrinker.shrink(), shrinker.tried

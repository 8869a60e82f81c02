# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: reading the port beside it.
"""The era through which a page is read: which lines of the port run in it, which line takes each step, which recordings show it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import ksm
from ksm.study.anchors import KSM, MEMORY, lines
from ksm.study.base import base_hashes
from ksm.study.eras import ERAS, absent, functions_of
from ksm.study.functions import Source, cython_source
from ksm.study.kernel import Kernel
from ksm.study.notes import RENAMED
from ksm.study.steps import STEPS, era_of

PREFIX = {KSM: "", MEMORY: "m"}  # of a line's id in the page, behind k or p


def running(port: Source) -> dict[int, dict[str, str]]:
    """For each line of the port that does not run in every era, what its cell says: the eras in which it does."""
    return {line: {"data-era": " ".join(era for era in ERAS if era not in eras)} for line, eras in absent(port).items()}


@cache
def memory() -> Source:
    """The port's mm/memory.c."""
    return cython_source((Path(ksm.__file__).parent / "mm/memory.pyx").read_text())


def kernels_of(name: str) -> list[str]:
    """The eras whose mm/ksm.c has the twin of a function of the port, by this name or the one that it had."""
    names = {name, *(old for old, now in RENAMED.items() if now == name)}
    return [era for era in ERAS if not names.isdisjoint(functions_of()[era])]


def section_eras(name: str) -> str:
    """The eras whose mm/ksm.c has the function of a section; "" if all have it. The port may call it in the others, too."""
    eras = kernels_of(name) if name in base_hashes() else []
    return "" if len(eras) in (0, len(ERAS)) else " ".join(eras)


def steps_for(kernel: Kernel | None, port: Source, theirs: dict[str, Source] | None = None) -> list[dict[str, Any]]:
    """The table of steps that the player has, with the lines that it lights: their ids, by case; those of the port by era, too.

    `theirs`: further files of the kernel that the page shows.
    """
    era = era_of(kernel.source) if kernel else ""
    files = {KSM: kernel.source, **(theirs or {})} if kernel and era else {}
    ours = {KSM: port, MEMORY: memory()}
    return [
        {"name": step.name, "text": step.text, "kind": step.kind, "function": step.function,
         "kernel": {case: f"k{PREFIX[file]}{line}" for file, source in files.items()
                    for case, line in lines(step, era, source, file).items()},
         "port": {each: {case: f"p{PREFIX[file]}{line}" for file, source in ours.items()
                         for case, line in lines(step, each, source, file, port=True).items()} for each in ERAS}}
        for step in STEPS
    ]


def lessons_of(recordings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lessons of a page: for each its key, its title, and the number of its recording in each era. A file's recording is one, too."""
    found: dict[str, dict[str, Any]] = {}
    for number, recording in enumerate(recordings):
        key = recording.get("lesson") or f"file-{number}"
        entry = found.setdefault(key, {"key": key, "title": recording["title"] or f"Recording {number + 1}", "recordings": {}})
        entry["recordings"].update(dict.fromkeys(recording.get("eras") or [recording["era"]], number))
    return list(found.values())


def table(kernel: Kernel | None, recordings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What lens.js has: the eras, that of the kernel's file, the one that is chosen at first, and the lessons."""
    file = era_of(kernel.source) if kernel else ""
    return {"eras": ERAS, "file": file, "name": kernel.name if kernel else "", "chosen": file or "6.12", "lessons": lessons_of(recordings)}

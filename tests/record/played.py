# SPDX-License-Identifier: GPL-2.0-only
"""Playing a recording: the objects that are there after each step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import ksm
from ksm.record.recorder import COUNTERS
from ksm.record.recording import HEADER
from ksm.study.steps import NAMES

COUNTER, ROOT, LINK, NODE, ITEM, PTE, FRAME, CURSOR, MM, BYTES = range(10)
WIDTHS = [2, 3, 5, 6, 6, 4, 5, 3, 4, 2]


Things = dict[int, tuple[int, list[int]]]  # by number: the kind and the values


def states(data: dict[str, Any]) -> Iterator[tuple[str, list[int], Things]]:
    """For each step its name, its numbers, and all objects that are there then, as {number: (kind, values)}."""
    things: Things = {}
    for step in data["steps"]:
        changes = iter(step[HEADER - 1:])
        for code in changes:
            number = next(changes)
            if code < 0:
                assert things.pop(number)[0] == -code - 1
            else:
                things[number] = (code - 1, list(itertools.islice(changes, WIDTHS[code - 1])))
                assert len(things[number][1]) == WIDTHS[code - 1]
        yield NAMES[step[0]], step, things


def of_kind(things: Things, kind: int) -> list[list[int]]:
    return [values for what, values in things.values() if what == kind]


def counters(things: Things) -> dict[str, int]:
    return {COUNTERS[number]: value for number, value in of_kind(things, COUNTER)}


def machine_of(era: Any = "6.12", **more: Any) -> ksm.Machine:
    return ksm.Machine(memory="4M", max_memory="4M", clock="manual", plain=True, era=era, **more)

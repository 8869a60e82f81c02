# SPDX-License-Identifier: GPL-2.0-only
"""Playing a recording: the objects that are there after each step."""

import itertools

import ksm
from ksm.record.recorder import COUNTERS
from ksm.record.recording import HEADER
from ksm.study.steps import NAMES

COUNTER, ROOT, LINK, NODE, ITEM, PTE, FRAME, CURSOR, MM = range(9)
WIDTHS = [2, 3, 5, 6, 6, 4, 5, 3, 4]


def states(data):
    """For each step its name, its numbers, and all objects that are there then, as {number: (kind, values)}."""
    things = {}
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


def of_kind(things, kind):
    return [values for what, values in things.values() if what == kind]


def counters(things):
    return {COUNTERS[number]: value for number, value in of_kind(things, COUNTER)}


def machine_of(era="6.12", **more):
    return ksm.Machine(memory="4M", max_memory="4M", clock="manual", plain=True, era=era, **more)

# SPDX-License-Identifier: GPL-2.0-only
# Follows the rules of ksmtuned, which sets KSM's knobs on hosts of virtual machines.
"""What sets pages_to_scan and sleep_millisecs while ksmd runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from ksm.machine import Machine


# Of ksmtuned: KSM_MONITOR_INTERVAL in seconds, KSM_NPAGES_BOOST, _DECAY, _MIN and _MAX, and KSM_SLEEP_MSEC, of a host of 16 GiB
INTERVAL = 60.0
BOOST, DECAY, MIN, MAX = 300, -50, 64, 1250
SLEEP = 10


class Tuner(Protocol):
    def at(self, elapsed: float) -> tuple[int, float]:
        """What ksmd does `elapsed` seconds after it was started: how many pages at once, and seconds of sleep."""


class Knobs:
    """The machine's own knobs: as they were set, or as the kernel's advisor sets them."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def at(self, elapsed: float) -> tuple[int, float]:
        return self.machine.ksm.pages_to_scan, self.machine.ksm.sleep_millisecs / 1000


class Still(NamedTuple):
    """Knobs that nobody sets any more."""

    pages: int
    sleep: float

    def at(self, elapsed: float) -> tuple[int, float]:
        return self


class Ksmtuned(NamedTuple):
    """ksmtuned with the defaults of its /etc/ksmtuned.conf, in version 4.20150326, and of Red Hat's from 2009 on.

    Each minute it looks at the memory that is free. While that is less than a fifth of all, ksmd looks at 300 pages more, up to 1,250;
    else at 50 less, down to 64. It sleeps for 10 ms on a host of 16 GiB, longer on smaller ones, and no less on larger ones.

    short    whether memory is short all the time, or never
    total    bytes of memory of the host
    """

    short: bool
    total: int

    def at(self, elapsed: float) -> tuple[int, float]:
        pages = 0
        for _ in range(1 + min(int(elapsed / INTERVAL), MAX // BOOST + 1)):
            pages = max(MIN, min(MAX, pages + (BOOST if self.short else DECAY)))
        return pages, max(10, SLEEP * (16 << 30) // max(1, self.total)) / 1000


class Timing(NamedTuple):
    """How long ksmd takes: for each pass the seconds, and of these those on a processor."""

    took: list[float]
    busy: list[float]


STEP = 1.0  # seconds after which ksmtuned is asked again


def timing(passes: Sequence[int], tuner: Tuner, cost: float) -> Timing:
    """Of passes that look at so many pages each; a page takes `cost` seconds."""
    took: list[float] = []
    elapsed = 0.0
    for pages in passes:
        began, left = elapsed, float(pages)
        while left > 0:
            at_once, sleep = tuner.at(elapsed)
            each = sleep / max(1, at_once) + cost
            some = left if isinstance(tuner, Still) or not each else min(left, STEP / each)
            elapsed += some * each
            left -= some
        took.append(elapsed - began)
    return Timing(took, [pages * cost for pages in passes])

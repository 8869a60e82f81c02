# SPDX-License-Identifier: GPL-2.0-only
# Follows ksm_do_scan() and ksm_scan_thread() of Linux 6.12, mm/ksm.c, in how long they take.
"""The pace of ksmd, and what memory does between two of its visits.

ksmd looks at pages_to_scan pages, sleeps for sleep_millisecs, and so on: at the kernel's defaults, 5,000 pages a second. KSM merges a page
that has not changed between two visits, and a write to a merged page takes it away again. So it matters how far apart the visits are.

A scan reads processes as often as ksmd would come round. Where that takes too long, it reads them more often, and says what may change in
the longer time.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple

from ksm.estimate.doubt import Doubt

if TYPE_CHECKING:
    from ksm.machine import Machine

VISIT = 5e-6  # seconds of a processor for a page: ksmd took 0.3 to 18 us in passes 2 and 3 of `ksm bench`
BUDGET = 10.0  # seconds
SKIPS = 9  # smart_scan looks at a page in one of so many passes, when it is old: see skip_age() of mm/ksm.c


class Pace(NamedTuple):
    """How fast ksmd goes: `pages` at once, and `sleep` seconds between. `target` seconds for a pass, where the advisor sees to that.

    With 0 pages at once, ksmd looks at none; then its times are those of 1.
    """

    pages: int
    sleep: float
    target: float = 0.0
    most: int = 0  # pages at once that the advisor gives; advisor_min_pages_to_scan is only where it begins

    def seconds(self, pages: int) -> float:
        """How long ksmd takes for so many pages."""
        return pages / self.at_once(pages) * self.sleep + pages * VISIT

    def at_once(self, pages: int) -> int:
        if not self.target:
            return max(1, self.pages)
        # A batch takes the sleep and the visits to its pages.
        batches = max(self.target - pages * VISIT, self.sleep) / self.sleep if self.sleep else 1
        return max(1, min(self.most, math.ceil(pages / batches)))

    def __str__(self) -> str:
        if self.target:
            return f"advisor_target_scan_time {self.target:g}"
        return f"pages_to_scan {self.pages:,}, sleep_millisecs {round(self.sleep * 1000)}"


def pace_of(machine: Machine) -> Pace:
    """The pace at the machine's knobs."""
    ksm = machine.ksm
    pace = Pace(ksm.pages_to_scan, ksm.sleep_millisecs / 1000)
    if getattr(ksm, "advisor_mode", "none") == "none":
        return pace
    return pace._replace(target=float(ksm.advisor_target_scan_time), most=ksm.advisor_max_pages_to_scan)


class Watch:
    """When to read memory that changes.

    `visit` are the seconds that ksmd takes to come round, and `passes` how many times it is to come; None: until nothing changes. If the
    passes take longer than the budget, the time from each to the next grows: the last one is the longest, and what changes in it is what
    is known best.
    """

    def __init__(self, visit: float, budget: float, passes: int | None, least: int, began: float) -> None:
        self.visit, self.budget, self.open = visit, budget, passes is None
        self.read = [began]  # when memory was read
        between = (passes or least) - 1
        self.hurried = visit * between > budget
        if self.hurried:
            first = budget / ((1 << between) - 1) if between < 60 else 0.0
            self.waits = [min(visit, first * (1 << place)) for place in range(between)]
        else:
            self.waits = [visit] * between

    def may_go_on(self) -> bool:
        """Whether there is time for another pass, as ksmd would make it."""
        return self.open and not self.hurried and time.monotonic() - self.read[0] + self.visit <= self.budget

    def next(self) -> float:
        """How many seconds from now the next pass begins."""
        place = len(self.read) - 1
        wait = self.waits[place] if place < len(self.waits) else self.visit
        return max(0.0, self.read[-1] + wait - time.monotonic())

    def reads(self) -> None:
        """Memory is read now."""
        self.read.append(time.monotonic())

    @property
    def last(self) -> float:
        """Seconds between the last two times that memory was read; 0 if it was read once."""
        return self.read[-1] - self.read[-2] if len(self.read) > 1 else 0.0

    @property
    def whole(self) -> float:
        """Seconds between the first and the last time that memory was read."""
        return self.read[-1] - self.read[0]


def doubt_of_hurry(freed: int, merged: int, broken: int, watch: Watch, pace: Pace) -> Doubt | None:
    """What may change between two visits of ksmd, if memory was read more often; None if that makes no difference.

    Of `merged` pages, `broken` were written to between the last two times that memory was read.
    """
    if not watch.hurried or watch.last <= 0 or watch.last >= 0.9 * watch.visit:
        return None
    changed = broken / merged if merged else 0.0
    fewer = lost_in(watch.visit / watch.last, freed, merged, broken)
    lines = f"a pass of ksmd takes {spell(watch.visit)} here ({pace}), and processes were watched for {spell(watch.whole)}"
    if merged:
        lines += f": {100 * changed:.1f} % of what was merged changed in the last {spell(watch.last)}"
    whole = math.ceil(watch.visit * len(watch.waits))
    return Doubt(fewer, 0, f"{lines}; --budget {whole} watches them at its pace")


def doubt_of_skips(freed: int, merged: int, broken: int, watch: Watch) -> Doubt | None:
    """What smart_scan may cost besides, in passes to come; None if nothing that was merged has changed.

    skip_age() lets ksmd pass over a page in eight of nine passes, if that is old. Such a page has to hold still for as long to be merged.
    """
    if broken <= 0 or merged <= 0 or watch.last <= 0:
        return None
    fewer = lost_in(SKIPS * watch.visit / watch.last, freed, merged, broken)
    if watch.hurried:
        fewer -= lost_in(max(1.0, watch.visit / watch.last), freed, merged, broken)
    if fewer <= 0:
        return None
    share = f"{100 * min(1.0, broken / merged):.1f} % of what was merged changed in the last {spell(watch.last)}"
    return Doubt(fewer, 0, f"{share}: smart_scan looks at such pages in one of {SKIPS} passes later on, and may never find them unchanged")


def lost_in(times: float, freed: int, merged: int, broken: int) -> int:
    """How much less may be freed, where what is merged has to hold still for so many times as long as it was watched.

    Of `merged` pages, `broken` were written to in the time that was watched. In a time that is n times as long, at most n times as many
    are, whichever they are and however the writes come; at least, it is as many. What was seen is a sample: of events that come one by one,
    2 sqrt(broken) + 3 more would be no surprise.
    """
    changed = broken / merged if merged else 0.0
    later = min(1.0, (broken + 2 * math.sqrt(broken) + 3) / max(1, merged) * times)
    return freed if changed >= 1 else max(0, math.ceil(max(0, freed) * (later - changed) / (1 - changed)))


def spell(seconds: float) -> str:
    """A time for a person."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what a scan found.
"""What a scan found, as data: scan.py finds it, report.py says it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ksm.constants import PAGE_SIZE
from ksm.estimate.already import Already
from ksm.estimate.doubt import Doubt, Freed, freed_between
from ksm.estimate.ledger import Ledger
from ksm.estimate.pace import Pace
from ksm.estimate.project import Projection

if TYPE_CHECKING:
    from ksm.estimate.found import Details, Tenants
    from ksm.machine import _Era as Era


class Savings(NamedTuple):
    """Frames that merging frees; see ksm.estimate.savings.Tally. `zero` has those of huge pages that are split, too."""

    zero: int
    within: int
    across: int

    @property
    def pages(self) -> int:
        return sum(self)

    @property
    def bytes(self) -> int:
        return self.pages * PAGE_SIZE


class Stretch(NamedTuple):
    """Neighbouring pages of a source, from an address of the machine's process on: a place in ksm.estimate.savings.STATES for each."""

    start: int
    states: bytearray


class SourceResult(NamedTuple):
    """A source after the last pass: its pages, and what /proc/PID says of KSM: all lines of ksm_stat, or in the era 6.1 ksm_rmap_items and
    ksm_merging_pages. 2011 had nothing of that.

    holes        pages that lie in holes of a file, or that a dump has left out: they are not counted
    zero_holes   pages that lie in holes of a file and are pages of zeros
    zeros        pages of zeros that were set apart: the running machine may not have them. They are not counted either
    """

    name: str
    kind: str
    pages: int
    ksm_stat: dict[str, int]
    holes: int = 0
    zero_holes: int = 0
    still: bool = True
    zeros: int = 0


class Result(NamedTuple):
    """What a scan found."""

    era: Era
    ksm: dict[str, Any]  # every sysfs file after the last pass
    sources: list[SourceResult]
    savings: Savings
    ledger: Ledger
    already: Already
    passes: int
    settled: bool  # the last pass changed nothing
    skipped: int  # pages that smart_scan passed over in the last pass; KSM counts them as volatile
    live: bool
    notes: list[str]
    source_notes: list[tuple[str, str]]  # (name of a source, note)
    doubts: list[Doubt]
    projection: Projection | None
    pace: Pace
    seconds: list[float]  # that ksmd takes for each pass, without the last one if that changed nothing
    snapshots: int = 0  # that the passes saw, one after the other
    shared: int = 0  # pages of processes whose frames other processes of the scan have since a fork
    again: int = 0  # those of them that KSM has not merged
    history: Sequence[dict[str, float]] = ()  # HISTORY after each pass, and the seconds that ksmd takes for it
    details: Details | None = None  # what pictures are made of; None if nobody asked
    tenants: Tenants | None = None

    @property
    def pages(self) -> int:
        """Frames: what processes share since a fork counts once."""
        return sum(source.pages for source in self.sources) - self.shared

    @property
    def freed(self) -> Freed:
        """What would be freed on top of what is freed already."""
        return freed_between(self.ledger, self.doubts, self.already.least)

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: nothing there has to guess.
"""Between which figures the truth lies, where a scan cannot see all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ksm.constants import PAGE_SIZE
from ksm.estimate.ledger import Ledger
from ksm.sources.standing import Standing


class Bounds(NamedTuple):
    """What KSM saves already, and would free on top of that: frames, at least and at most.

    lower, upper    frames freed on top: the ledger's `freed` without what is saved already; `lower` also without `pinned` and `hidden`
    already         frames that are saved already: KSM's zero pages, and merged pages whose frame counts for another page
    already_upper   the same at most, where frames are hidden
    pinned          pages that may be held, and would not be merged then
    hidden          pages that may be one frame with others already, by a fork or by KSM, and that the ledger has as copies
    """

    lower: int
    upper: int
    already: int
    already_upper: int
    pinned: int
    hidden: int

    @property
    def exact(self) -> bool:
        return self.lower == self.upper

    def as_json(self) -> dict[str, int]:
        return {**self._asdict(), "lower_bytes": self.lower * PAGE_SIZE, "upper_bytes": self.upper * PAGE_SIZE}


def make_bounds(ledger: Ledger, standings: Sequence[Standing], most_shared: int) -> Bounds:
    """The bounds of a ledger. `most_shared` are the frames that the running kernel has merged pages in: its pages_shared.

    A merge frees no frame where n pages have one already, and the ledger counts hidden pages as if each had its own. So a merge frees at
    most what the ledger has, less what KSM has merged for sure: merged pages less all frames that they may have. It frees at least what the
    ledger has, less all that hidden pages may save already. Each pinned page can cost one frame.
    """
    zeros = sum(standing.zeros for standing in standings)
    repeated = sum(standing.repeated for standing in standings)
    common = one_frame_at_most(standings)
    merged_most = sum(standing.hidden if standing.merged is None else standing.merged for standing in standings)
    merged_surely = sum(standing.merged or 0 for standing in standings)
    most = min(merged_most, common)
    least = min(max(0, merged_surely - most_shared), most)
    already = zeros + repeated + least
    hidden = common - least
    pinned = sum(standing.pinned for standing in standings)
    upper = max(0, ledger.freed - already)
    return Bounds(max(0, upper - hidden - pinned), upper, already, zeros + repeated + most, pinned, hidden)


def one_frame_at_most(standings: Sequence[Standing]) -> int:
    """How many hidden pages may have the frame of another page of the scan.

    Each process has a frame of a fork once. So of what forks share, the pages of one process are frames of their own.
    """
    hidden = [standing.hidden for standing in standings]
    merged = sum(standing.hidden if standing.merged is None else standing.merged for standing in standings)
    return min(sum(standing.common for standing in standings), sum(hidden) - max(hidden, default=0) + merged)


def doubts(bounds: Bounds, devices: Sequence[str]) -> list[str]:
    """Why the figures are a range. `devices` are names of processes that drive devices themselves."""
    lines = []
    if bounds.hidden:
        lines.append(
            f"{bounds.hidden:,} pages at most are one frame with others already, by a fork or by KSM: only root can see which; the lower "
            "figure is without them"
        )
    if bounds.pinned:
        lines.append(f"{bounds.pinned:,} pages at most are pinned (VmPin), and would not merge: the lower figure is without them")
    for name in devices:
        lines.append(f"{name} drives a device by VFIO, which pins its memory: what is locked counts as pinned")
    return lines

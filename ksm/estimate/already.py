# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: nothing there has to guess what mm/ksm.c and kernel/fork.c have done.
"""What is one frame already: by the running kernel's KSM, or by a fork; and what cannot be merged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ksm.constants import PAGE_SIZE
from ksm.estimate.doubt import Doubt
from ksm.sources.standing import Standing


class Already(NamedTuple):
    """Pages that the running kernel's KSM has freed, at least and at most: its zero pages, and merged pages whose frame others have."""

    least: int = 0
    most: int = 0


def already_freed(standings: Sequence[Standing], most_shared: int) -> Already:
    """What KSM has freed of the pages of the sources. `most_shared` are all frames that it has merged pages in: its pages_shared.

    Frames of hidden pages cannot be told apart. KSM has freed at least the merged ones less all frames that they may have.
    """
    seen = sum(standing.zeros + standing.repeated for standing in standings)
    most = min(sum(merged_at_most(standing) for standing in standings), one_frame_at_most(standings))
    least = min(max(0, sum(standing.merged or 0 for standing in standings) - most_shared), most)
    return Already(seen + least, seen + most)


def doubts_of(standings: Sequence[Standing], already: Already, *, outside: int = 0, whole: bool = False) -> list[Doubt]:
    """Pages that the ledger has as freed, and that a merge may not free.

    The ledger counts hidden pages as if each had a frame of its own. A merge frees nothing where they are one, by a fork or by KSM, and
    nothing where a process outside the scan keeps the frame. If k of its n mappings are in the scan, k pages are lost at most, which is no
    more than twice k (1 - 1 / n); or k - 1, if the scan has all of them (`whole`). `outside` are frames that root sees to be kept.
    """
    doubts = []
    seen = sum(standing.zeros + standing.repeated for standing in standings)
    lost = one_frame_at_most(standings)
    if not whole:
        lost = min(sum(standing.hidden for standing in standings), 2 * sum(standing.common for standing in standings) // PAGE_SIZE)
    if hidden := lost - (already.least - seen):
        why = f"{hidden:,} pages at most share their frames already, by a fork or by KSM: only root can see which, and with whom"
        doubts.append(Doubt(hidden, 0, why))
    if outside := outside + sum(standing.outside for standing in standings):
        why = f"{outside:,} pages that would merge share their frames with processes outside the scan, which may keep them"
        doubts.append(Doubt(outside, 0, why))
    if pinned := sum(standing.pinned for standing in standings):
        why = f"{pinned:,} pages at most are pinned (VmPin), and would not merge: which, cannot be seen, nor what they keep from merging"
        doubts.append(Doubt(pinned, 0, why))
    pipes: dict[str, int] = {}
    for standing in standings:
        pipes.update(standing.pipes)  # a pipe has two ends, perhaps in two processes
    if piped := sum(pipes.values()):
        why = f"{piped:,} pages at most lie in pipes: those that vmsplice() has put there would not merge"
        doubts.append(Doubt(piped, 0, why))
    return doubts


def merged_at_most(standing: Standing) -> int:
    return standing.hidden if standing.merged is None else standing.merged


def one_frame_at_most(standings: Sequence[Standing]) -> int:
    """How many hidden pages may have the frame of another page of the scan.

    Each process has a frame of a fork once. So of what forks share, the pages of one process are frames of their own.
    """
    hidden = [standing.hidden for standing in standings]
    merged = sum(merged_at_most(standing) for standing in standings)
    return min(sum(standing.common for standing in standings) // PAGE_SIZE, sum(hidden) - max(hidden, default=0) + merged)

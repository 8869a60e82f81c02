# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what a report says of mappings.
"""What the user should know of which mappings count: who has asked for KSM, and what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ksm.host.text import size
from ksm.sources.base import Source
from ksm.sources.live import LiveSource
from ksm.sources.mappings import Which

MOST_KINDS = 4  # of mappings, named in one line


def of_advice(sources: Sequence[Source], which: Which) -> list[str]:
    """Processes that have asked for KSM themselves, and those that have not: before the scan."""
    live = [source for source in sources if isinstance(source, LiveSource)]
    asked = [source for source in live if any(mapping.mergeable for mapping in source.mappings)]
    if which != "prctl" and live and not asked:
        who = f"{live[0].name} has not" if len(live) == 1 else f"none of the {len(live):,} processes has"
        option = "--advised" if which == "advised" else "--as is"
        return [f"{who} asked for KSM (MADV_MERGEABLE), and {option} scans nothing else"]
    partly = [source for source in asked if not all(mapping.mergeable for mapping in source.mappings)]
    if which != "prctl" or not partly:
        return []
    if len(partly) == 1:
        return [f"{partly[0].name} has asked for KSM, for a part of its memory, as QEMU does for its guest: --advised scans only that"]
    who = f"{len(partly):,} of the processes have"
    return [f"{who} asked for KSM, for parts of their memory, as QEMU does for its guest: --advised scans only those"]


def of_which(sources: Sequence[Source], which: Which) -> list[str]:
    """Which mappings count, and what is left out: a line, after the scan."""
    live = [source for source in sources if isinstance(source, LiveSource)]
    if not live:
        return []
    left: Counter[str] = sum((source.standing.left for source in live), Counter())
    out = f"{named(left)} left out, which KSM does not look at" if left else "nothing else is there"
    if which == "advised":
        return ["only memory that is mergeable already counts (--as advised)"]
    if which == "is":
        return [f"only memory that is mergeable now counts (--as is): {out}"]
    line = "processes count as if they called prctl(PR_SET_MEMORY_MERGE) now (--as prctl)"
    if called := [source for source in live if source.standing.merge_any]:
        who = f"{called[0].name} has" if len(called) == 1 else f"{len(called):,} of them have"
        line += f"; {who} called it before, and a second call changes nothing{f': {out}' if left else ''}"
    return [line]


def named(left: Counter[str]) -> str:
    """How much, and of what: the largest ones by name."""
    largest = left.most_common(MOST_KINDS)
    parts = [f"{size(count)} of {kind}" for kind, count in largest]
    if rest := left.total() - sum(count for _, count in largest):
        parts.append(f"{size(rest)} of others")
    return f"{', '.join(parts)} {'is' if len(parts) == 1 else 'are'}"

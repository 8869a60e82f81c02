# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: runs of pages as lists, sorted by address.
"""Lists of runs (start, end)."""

from __future__ import annotations

from collections.abc import Iterator

from ksm.sources.pieces import Run


def parts_of(runs: list[Run], size: int) -> Iterator[list[Run]]:
    """The runs in lists of `size` bytes at most; a run may be cut."""
    part: list[Run] = []
    left = size
    for start, end in runs:
        while start < end:
            cut = min(end, start + left)
            part.append((start, cut))
            left -= cut - start
            start = cut
            if not left:
                yield part
                part, left = [], size
    if part:
        yield part


def joined(runs: list[Run]) -> list[Run]:
    """Sorted runs, neighbours made one."""
    result: list[Run] = []
    for start, end in runs:
        if result and result[-1][1] == start:
            start = result.pop()[0]
        result.append((start, end))
    return result


def without(runs: list[Run], others: list[Run]) -> list[Run]:
    """The parts of the runs that none of the others covers; all are sorted."""
    result: list[Run] = []
    place = 0
    for start, end in runs:
        while place < len(others) and others[place][1] <= start:
            place += 1
        other = place
        while other < len(others) and others[other][0] < end:
            if start < others[other][0]:
                result.append((start, others[other][0]))
            start = max(start, others[other][1])
            other += 1
        if start < end:
            result.append((start, end))
    return result

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""Tables of hosts and moves for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ksm.constants import PAGE_SIZE
from ksm.estimate.report import columns, shortened
from ksm.estimate.terminal import amount

NAME = 28  # columns of a name at most
LEAST = 8  # and at least


def table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]], names: int, width: int) -> Iterator[tuple[str, bool]]:
    """A table whose first columns are `names` names, which are shortened where the terminal is narrow, and whose others are figures. The
    head is bold.
    """
    widths = [max(map(columns, column)) for column in zip(heads, *rows, strict=True)]
    figures = sum(widths[names:]) + 2 * (len(heads) - 1)
    most = max(LEAST, min(NAME, (width - figures) // names))
    for row in [heads, *rows]:
        cells = []
        for place, cell in enumerate(row):
            if place < names:
                room = min(most, widths[place])
                short = shortened(cell, room)
                cells.append(short + " " * (room - columns(short)))
            else:
                cells.append(f"{cell:>{widths[place]}}")
        yield "  ".join(cells).rstrip(), row is heads


def rest(count: int, shown: int, what: str) -> Iterator[tuple[str, bool]]:
    if count > shown:
        yield f"({count - shown:,} more {what}: --json has all)", False


def in_bytes(pages: int) -> str:
    return amount(pages * PAGE_SIZE)

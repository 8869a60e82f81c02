# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""Tables of hosts and moves for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ksm.constants import PAGE_SIZE
from ksm.estimate.report import columns, shortened
from ksm.estimate.terminal import amount

LEAST, MOST = 8, 60  # columns of a name


def table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]], names: int, width: int) -> Iterator[tuple[str, bool]]:
    """A table whose first columns are `names` names, which are shortened where the terminal is narrow, and whose others are figures. The
    head is bold.
    """
    widths = [max(map(columns, column)) for column in zip(heads, *rows, strict=True)]
    rooms = shared_out(widths[:names], width - sum(widths[names:]) - 2 * (len(heads) - 1))
    for row in [heads, *rows]:
        short = [shortened(cell, room) for cell, room in zip(row, rooms, strict=False)]
        cells = [cell + " " * (room - columns(cell)) for cell, room in zip(short, rooms, strict=True)]
        cells += [f"{cell:>{wide}}" for cell, wide in zip(row[names:], widths[names:], strict=True)]
        yield "  ".join(cells).rstrip(), row is heads


def shared_out(wanted: Sequence[int], room: int) -> list[int]:
    """Columns for each of some names: what it wants, or an equal share of what the shorter ones leave."""
    given = [0] * len(wanted)
    for left, place in zip(range(len(wanted), 0, -1), sorted(range(len(wanted)), key=wanted.__getitem__), strict=True):
        given[place] = min(wanted[place], MOST, max(LEAST, room // left))
        room -= given[place]
    return given


def rest(count: int, shown: int, what: str) -> Iterator[tuple[str, bool]]:
    if count > shown:
        yield f"({count - shown:,} more {what}: --json has all)", False


def in_bytes(pages: int) -> str:
    return amount(pages * PAGE_SIZE)

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it prints numbers.
"""A map of memory: what became of pages, many of them in a cell where there are many."""

from __future__ import annotations

import base64
import sys
import zlib
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ksm.constants import PAGE_SIZE

SIDE = 256  # cells, at most
MOST_PAGES = (1 << 16) - 1  # of a cell


class Map(NamedTuple):
    """Pages in the order of sources and addresses, `pages` of them in a cell. A cell has pages of one source.

    side    the map has side * side cells at most; a power of two
    pages   in a cell, but for the last one of each source
    cells   of each source
    states  what may have become of a page
    counts  for each cell, how many of its pages became each of the states, in 16 bits each
    first   for each cell, the source's own address of its first page
    """

    side: int
    pages: int
    cells: list[int]
    states: tuple[str, ...]
    counts: array[int]
    first: array[int]

    def as_json(self) -> dict[str, Any]:
        """counts and first are packed: zlib, then base64, the lowest byte first; first as 64-bit floats, less the one before each."""
        steps = array("d", [after - before for before, after in zip([0, *self.first], self.first)])  # noqa: B905 (one shorter)
        return {
            "side": self.side, "pages": self.pages, "cells": self.cells, "states": list(self.states), "counts": packed(self.counts),
            "first": packed(steps),
        }  # fmt: skip


def packed(numbers: array[Any]) -> str:
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return base64.b64encode(zlib.compress(numbers.tobytes(), 6)).decode()


def make_map(
    sources: Sequence[Iterable[tuple[int, bytes | bytearray]]], totals: Sequence[int], states: Sequence[str]
) -> Map:
    """The map of sources with so many pages in all. Each source gives, in the order of its addresses, pages that lie side by side: the
    address of the first one, and a byte for each: a place in `states`, from 1 on.
    """
    side = 2
    while side < SIDE and side * side < sum(totals):
        side *= 2
    pages = max(1, -(-sum(totals) // (side * side)))
    while sum(-(-total // pages) for total in totals) > side * side and pages < max(totals):
        pages += -(-pages // 16)
    pages = min(pages, MOST_PAGES)
    cells, counts, first = [], array("H"), array("Q")
    empty = array("H", bytes(2 * len(states)))
    for source in sources:
        before = len(first)
        filled = pages  # pages in the last cell
        for addr, codes in source:
            at = 0
            while at < len(codes):
                if filled == pages:
                    first.append(addr + at * PAGE_SIZE)
                    counts.extend(empty)
                    filled = 0
                some = min(len(codes) - at, pages - filled)
                part = codes[at : at + some]
                for code in set(part):
                    counts[len(counts) - len(states) + code - 1] += part.count(code)
                filled += some
                at += some
        cells.append(len(first) - before)
    return Map(side, pages, cells, tuple(states), counts, first)

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges what is there.
"""What each further machine like these would add.

Of each source, the scan knows which frames nobody else needs. If it were the last one to come, it would have added just these. The mean of
all sources is what one more adds; the least and the most of them say how alike they are. The more machines there are, the more of a further
one is there already, so this is rather too much than too little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ksm.estimate.ledger import Sizes

LEAST_SOURCES = 2  # of one alone, nothing can be said


class Share(NamedTuple):
    """A source: its pages, the frames that only it needs, and how many of these are merged."""

    pages: int
    own: int
    merged: int


class Projection(NamedTuple):
    """What `machines` further ones add. All but these are for one of them, on average: in pages, and in bytes of KSM's structures."""

    machines: int
    pages: int
    shared: int  # pages for which it needs no frame of its own
    own: int  # frames that it needs
    least: int  # frames that the source with the fewest needs
    most: int
    metadata: int

    def as_json(self) -> dict[str, int]:
        return self._asdict()


def project(shares: Sequence[Share], machines: int, sizes: Sizes) -> Projection:
    """The projection from at least two sources; ValueError for fewer."""
    if len(shares) < LEAST_SOURCES:
        raise ValueError("what a further machine adds can be told from two sources at least")

    def mean(numbers: Sequence[int]) -> int:
        return round(sum(numbers) / len(numbers))

    pages, own = mean([share.pages for share in shares]), mean([share.own for share in shares])
    metadata = [share.pages * sizes.rmap_item + share.merged * sizes.stable_node + sizes.mm_slot for share in shares]
    every = [share.own for share in shares]
    return Projection(machines, pages, pages - own, own, min(every), max(every), mean(metadata))

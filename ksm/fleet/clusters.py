# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""Which sources are alike: their groups, and an order in which alike ones stand side by side.

Two sources are as alike as 2 * common / (a + b) says, of a and b contents. Pairs are joined from the most alike one on (single linkage).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

MOST_JOINED = 4_000_000  # pairs that are looked at: the most alike ones


class Clusters(NamedTuple):
    """`order` has each source once. `groups` have two sources at least, the largest group first; a source is in one of them at most."""

    order: list[int]
    groups: list[list[int]]


def by_likeness(pairs: Any, contents: Sequence[int], sample: int = 1) -> Any:
    """A table of pairs, a, b and contents counted in a sample, with the column `alike`, 0 to 1; the most alike pair first. `contents` has
    the contents of each source, of all and not of the sample.
    """
    import pyarrow as pa
    from pyarrow import compute

    column = pa.array(contents, pa.float64())
    both = compute.add(compute.take(column, pairs["a"]), compute.take(column, pairs["b"]))
    likeness = compute.divide(compute.multiply(compute.cast(pairs["contents"], pa.float64()), 2.0 * sample), both)
    table = pairs.append_column("alike", compute.min_element_wise(likeness, 1.0))
    return table.sort_by([("alike", "descending"), ("a", "ascending"), ("b", "ascending")])


def rows_of(table: Any) -> Iterator[tuple[int, int, float]]:
    """The sources of each pair, and how alike they are."""
    for batch in table.to_batches(1 << 16):
        yield from zip(*(batch.column(name).to_pylist() for name in ("a", "b", "alike")), strict=True)


def clusters(count: int, pairs: Iterable[tuple[int, int, float]], least: float) -> Clusters:
    """Of so many sources, and pairs with how alike they are, the most alike one first. The sources of a group are joined by pairs that are
    as alike as `least` says, or more so.
    """
    joined = [[source] for source in range(count)]  # the cluster of each source, shared by all its sources
    groups: list[list[int]] | None = None
    for a, b, likeness in pairs:
        if groups is None and likeness < least:
            groups = several(joined)
        one, other = joined[a], joined[b]
        if one is other:
            continue
        if len(one) < len(other):
            one, other = other, one
        one += other
        for source in other:
            joined[source] = one
    if groups is None:
        groups = several(joined)
    order = {id(each): each for each in sorted(joined, key=len, reverse=True)}
    return Clusters([source for each in order.values() for source in each], groups)


class Blocks(NamedTuple):
    """Sources in the order of clusters, neighbours together: the numbers of each block's sources, and how alike those of two blocks are on
    average, 0 to 1. Of a block itself it is that of its pairs; of a single source 1.
    """

    members: list[list[int]]
    alike: list[list[float]]


def blocks(order: Sequence[int], pairs: Any, most: int) -> Blocks:
    """The sources in `most` blocks at most; `pairs` is a table of by_likeness()."""
    import pyarrow as pa
    from pyarrow import compute

    count = min(most, len(order))
    ends = [(place + 1) * len(order) // count for place in range(count)] if count else []
    members = [list(order[first:end]) for first, end in zip([0, *ends], ends, strict=False)]
    place_of = [0] * len(order)
    for place, block in enumerate(members):
        for source in block:
            place_of[source] = place
    places = pa.array(place_of, pa.int32())
    table = pa.table({"i": compute.take(places, pairs["a"]), "j": compute.take(places, pairs["b"]), "alike": pairs["alike"]})
    sums = [[0.0] * count for _ in range(count)]
    for row in table.group_by(["i", "j"]).aggregate([("alike", "sum")]).to_pylist():
        sums[row["i"]][row["j"]] += row["alike_sum"]
    sizes = [len(block) for block in members]

    def mean(i: int, j: int) -> float:
        if i != j:
            return (sums[i][j] + sums[j][i]) / (sizes[i] * sizes[j])
        return sums[i][i] / (sizes[i] * (sizes[i] - 1) / 2) if sizes[i] > 1 else 1.0

    return Blocks(members, [[mean(i, j) for j in range(count)] for i in range(count)])


def several(joined: list[list[int]]) -> list[list[int]]:
    """The clusters of two sources and more, each once."""
    found = {id(each): sorted(each) for each in joined if len(each) > 1}
    return sorted(found.values(), key=lambda each: (-len(each), each))

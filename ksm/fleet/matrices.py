# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""The matrix of a fleet: how many contents each two sources have in common. Only pairs that have some are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from ksm.fleet import queries
from ksm.fleet.asking import asking
from ksm.fleet.clusters import MOST_JOINED, blocks, by_likeness, clusters, rows_of
from ksm.fleet.engines.steps import Options, Progress
from ksm.fleet.files import Fleet
from ksm.fleet.sample import Estimate, estimate
from ksm.fleet.sharing import ALIKE, MOST_BLOCKS, ZERO

FORMS = ("csv", "json", "parquet")
SOME = 1 << 16  # pairs that are written at once


class Matrix(NamedTuple):
    """What ksm.fleet.matrix() returns.

    `pairs` is a table of Arrow, the most alike pair first: a and b, the numbers of two sources, a before b; contents, those that both have;
    alike, 2 * common / (a + b), of a and b contents. `contents` are those of each source. Zeros are in no figure. With a sample of one in
    `sample`, all of these are of the sample alone: estimate() says what they mean. `order` has alike sources side by side.
    """

    fleet: Fleet
    contents: list[int]
    pairs: Any
    sample: int
    order: list[int]

    def rows(self, most: int | None = None) -> Iterator[dict[str, Any]]:
        """The pairs, with names, and with the estimate and its error where there is a sample; or the `most` that have most in common."""
        names = [member.name for member in self.fleet.members]
        pairs = self.pairs
        if most is not None:
            pairs = pairs.sort_by([("contents", "descending"), ("a", "ascending"), ("b", "ascending")]).slice(0, most)
        for part in pairs.to_batches(SOME):
            for row in part.to_pylist():
                yield {"a": names[row["a"]], "b": names[row["b"]], **common(row["contents"], self.sample), "alike": row["alike"]}

    def common(self, a: int, b: int) -> Estimate:
        """How many contents two sources have in common, by their numbers. It reads all pairs."""
        from pyarrow import compute

        a, b = min(a, b), max(a, b)
        found = self.pairs.filter(compute.and_(compute.equal(self.pairs["a"], a), compute.equal(self.pairs["b"], b)))
        return estimate(found["contents"][0].as_py() if len(found) else 0, self.sample)

    def json(self, most: int | None = None) -> dict[str, Any]:
        """All of it, as `ksm fleet matrix --form json` prints it; or of its pairs the `most` that have most in common."""
        sources = [
            {"name": member.name, "host": member.host, "tenant": member.tenant, "pages": member.pages, **common(some, self.sample)}
            for member, some in zip(self.fleet.members, self.contents, strict=True)
        ]
        order = [self.fleet.members[number].name for number in self.order]
        return {
            "hash": self.fleet.hashed, "sample": self.sample, "sources": sources, "order": order,
            "all_pairs": len(self.pairs), "pairs": list(self.rows(most)),
        }  # fmt: skip

    def blocks(self) -> dict[str, Any]:
        """The sources in the order of clusters, neighbours together so that there are 48 blocks at most, and how alike these are: for a
        picture.
        """
        found = blocks(self.order, self.pairs, MOST_BLOCKS)
        return {"sources": [[self.fleet.members[number].name for number in block] for block in found.members], "alike": found.alike}

    def write(self, file: IO[bytes], form: str) -> None:
        """Write the pairs as "csv" or "parquet", or all as "json"."""
        if form == "parquet":
            self.write_parquet(file)
        elif form == "json":
            file.write(json.dumps(self.json(), indent=2).encode() + b"\n")
        else:
            self.write_csv(file)

    def table(self) -> Any:
        """The pairs as a table of Arrow, with the columns of rows()."""
        import pyarrow as pa
        from pyarrow import compute

        names = pa.array([member.name for member in self.fleet.members])
        columns = {name: compute.take(names, self.pairs[name]) for name in ("a", "b")}
        if self.sample == 1:
            columns["contents"] = self.pairs["contents"]
        else:
            some = [estimate(counted, self.sample) for counted in self.pairs["contents"].to_pylist()]
            kinds = {"value": pa.uint64(), "error": pa.float64(), "low": pa.uint64(), "high": pa.uint64()}
            for name, kind in kinds.items():
                columns["contents" if name == "value" else name] = pa.array([getattr(each, name) for each in some], kind)
        return pa.table({**columns, "alike": self.pairs["alike"]})

    def write_parquet(self, file: IO[bytes]) -> None:
        from pyarrow import parquet

        parquet.write_table(self.table(), file, compression="zstd")

    def write_csv(self, file: IO[bytes]) -> None:
        from pyarrow import csv

        csv.write_csv(self.table(), file, csv.WriteOptions(quoting_style="needed"))


def common(counted: int, sample: int) -> dict[str, Any]:
    """A number of contents, with its error if it is an estimate."""
    if sample == 1:
        return {"contents": counted}
    value, error, low, high = estimate(counted, sample)
    return {"contents": value, "error": error, "low": low, "high": high}


def make_matrix(fleet: Fleet, options: Options, *, sample: int = 1, least: int = 1, progress: Progress) -> Matrix:
    """Compare each two sources by their contents, or by one contents of `sample`. Pairs with less than `least` in common, counted in the
    sample, are left out. FleetError.
    """
    from pyarrow import compute

    count = len(fleet.members)
    with asking(fleet, options, sample=sample, progress=progress) as asked:
        answers = asked.ask([queries.HELD, queries.pairs(count)])
    contents = [0] * count
    for (number, kind), (_, some) in answers["held"].items():
        contents[number] += some if kind != ZERO else 0
    pairs = answers["pairs"]
    if least > 1:
        pairs = pairs.filter(compute.greater_equal(pairs["contents"], least))
    ranked = by_likeness(pairs, contents)
    found = clusters(count, rows_of(ranked.slice(0, MOST_JOINED)), ALIKE)
    return Matrix(fleet, contents, ranked, sample, found.order)

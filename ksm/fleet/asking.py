# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""Asking a fleet: which steps there are to do, and adding up what the parts answer. An engine says where the steps are done."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from ksm.fleet.engines import steps
from ksm.fleet.engines.steps import Job, Options, Progress
from ksm.fleet.files import Fleet, FleetError
from ksm.fleet.queries import Query

Answers = dict[str, dict[tuple[Any, ...], tuple[int, ...]]]

BATCH = 1 << 20  # rows that are spread together at least
MOST_JOBS = 1024
A_ROW = 200  # bytes that a row of a part may need while it is asked
MOST_BITS = 12


class Engine(Protocol):
    """Where steps are done."""

    def spread(self, jobs: Sequence[Job], work: str, progress: Progress) -> list[str]: ...

    def ask(
        self, parts: int, folders: Sequence[str], places: Sequence[tuple[int, ...]], queries: Sequence[Query], progress: Progress
    ) -> Iterator[dict[str, steps.Rows]]: ...

    def memory(self) -> int:
        """Bytes that a step may use."""
        ...

    def close(self) -> None: ...


class Asking:
    """A fleet that was spread, and can be asked."""

    def __init__(self, fleet: Fleet, engine: Engine, parts: int, folders: list[str], progress: Progress) -> None:
        self.fleet, self.engine, self.parts, self.folders, self.progress = fleet, engine, parts, folders, progress

    def ask(self, queries: Sequence[Query], groups: Mapping[int, int] | None = None) -> Answers:
        """What all parts answer to each query, added up: {columns in front: sums}. `groups` has the group of sources by their numbers."""
        hosts = {name: place for place, name in enumerate(self.fleet.hosts)}
        tenants = {name: place for place, name in enumerate(self.fleet.tenants)}
        places = [
            (member.number, hosts[member.host], tenants[member.tenant], -1 if groups is None else groups.get(member.number, -1))
            for member in self.fleet.members
        ]
        found: dict[str, dict[tuple[Any, ...], list[int]]] = {query.name: defaultdict(lambda: [0] * 8) for query in queries}
        for answers in self.engine.ask(self.parts, self.folders, places, queries, self.progress):
            for query in queries:
                sums = found[query.name]
                for *front, last in folded(answers[query.name], query.sums):
                    own = sums[tuple(front)]
                    for place, value in enumerate(last):
                        own[place] += value
        return {query.name: {key: tuple(sums[: query.sums]) for key, sums in found[query.name].items()} for query in queries}


def folded(rows: steps.Rows, sums: int) -> Iterator[list[Any]]:
    """Rows, with the last columns as one. A list in a row becomes a tuple."""
    for row in rows:
        yield [*(tuple(value) if isinstance(value, list) else value for value in row[:-sums]), row[-sums:]]


def jobs_of(fleet: Fleet, sample: int, bits: int) -> list[Job]:
    """Sources in the order of their files, so many together that there are not too many jobs, and no tiny ones."""
    least = max(BATCH, fleet.pages // MOST_JOBS)
    jobs: list[Job] = []
    some: list[Any] = []
    rows = 0
    for member in fleet.members:
        some.append(member)
        rows += member.pages
        if rows >= least:
            jobs.append(Job(some, sample, bits))
            some, rows = [], 0
    return [*jobs, Job(some, sample, bits)] if some else jobs


def bits_of(rows: int, memory: int) -> int:
    """How many first bits of fingerprints divide so many rows, so that each part fits into memory."""
    bits = 0
    while rows * A_ROW >> bits > memory and bits < MOST_BITS:
        bits += 1
    return bits


def engine_of(options: Options, temp: str) -> Engine:
    if options.engine == "dask":
        from ksm.fleet.engines.cluster import Cluster

        return Cluster(options, temp)
    from ksm.fleet.engines.duck import Duck

    return Duck(options, temp)


@contextmanager
def asking(fleet: Fleet, options: Options, *, sample: int = 1, progress: Progress) -> Iterator[Asking]:
    """The fleet, spread into a working folder that is gone at the end; of `sample` contents one, by their fingerprints. FleetError."""
    steps.need_duckdb()
    temp = options.temp or tempfile.gettempdir()
    try:
        work = tempfile.mkdtemp(prefix="ksm-fleet-", dir=temp)
    except OSError as error:
        raise FleetError(f"{temp}: {error.strerror}") from None
    try:
        engine = engine_of(options, os.path.join(work, "spilled"))
        try:
            bits = bits_of(fleet.pages // sample, engine.memory())
            folders = engine.spread(jobs_of(fleet, sample, bits), work, progress)
            yield Asking(fleet, engine, 1 << bits, folders, progress)
        finally:
            engine.close()
    finally:
        steps.forget(work)


def no_progress(what: str, done: int, total: int) -> None:
    pass

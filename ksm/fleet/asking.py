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
from ksm.fleet.engines.steps import Answer, Asked, Job, Options, Progress
from ksm.fleet.files import Fleet, FleetError, Member
from ksm.fleet.queries import HELD, Query

Answers = dict[str, Any]

BATCH = 1 << 20  # rows that are spread together at least
MOST_JOBS = 1024
A_ROW = 200  # bytes that a row of a part may need while it is asked
MOST_BITS = 12


class Engine(Protocol):
    """Where steps are done."""

    def spread(self, jobs: Sequence[Job], work: str, progress: Progress) -> list[str]: ...

    def ask(self, parts: int, asked: Asked, work: str, progress: Progress) -> Iterator[Answer]: ...

    def memory(self) -> int:
        """Bytes that a step may use."""
        ...

    def at_once(self) -> int:
        """How many steps are done at the same time."""
        ...

    def close(self) -> None: ...


class Asking:
    """A fleet that was spread, and can be asked. `folders` are below `work`; `pages` are in them, if that is known."""

    def __init__(
        self, fleet: Fleet, engine: Engine, parts: int, work: str, folders: list[str], pages: int | None, progress: Progress
    ) -> None:
        self.fleet, self.engine, self.parts, self.work, self.folders, self.progress = fleet, engine, parts, work, folders, progress
        self.pages = pages

    def ask(self, queries: Sequence[Query], groups: Mapping[int, int] | None = None, *, narrow: bool = False) -> Answers:
        """What all parts answer to each query, added up: {columns in front: sums}, or a table of Arrow where a query says so.

        `groups` has the group of sources by their numbers. `narrow`: from now on, nothing is asked but what several sources have, so that
        the others need not be read again.
        """
        hosts = {name: place for place, name in enumerate(self.fleet.hosts)}
        tenants = {name: place for place, name in enumerate(self.fleet.tenants)}
        places = [
            (member.number, hosts[member.host], tenants[member.tenant], -1 if groups is None else groups.get(member.number, -1))
            for member in self.fleet.members
        ]
        sums = [Table(query) if query.table else Sums(query) for query in queries]
        folders = []
        for found, folder in self.engine.ask(self.parts, Asked(self.folders, places, list(queries), narrow), self.work, self.progress):
            for each in sums:
                each.add(found[each.query.name])
            if folder is not None:
                folders.append(folder)
        if narrow:
            for folder in self.folders:
                steps.forget(folder)
            self.folders = folders
        answers = {each.query.name: each.result() for each in sums}
        if self.pages is not None and HELD.name in answers:
            there = sum(pages for pages, _ in answers[HELD.name].values())
            if there != self.pages:
                raise FleetError(f"{self.work}: {there:,} pages are there of {self.pages:,}: all workers have to see the same files")
        if narrow:
            self.pages = None
        return answers


class Sums:
    """Rows of a query, added up."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self.sums: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * query.sums)

    def add(self, rows: list[tuple[Any, ...]]) -> None:
        for row in rows:
            own = self.sums[tuple(tuple(value) if isinstance(value, list) else value for value in row[: -self.query.sums])]
            for place, value in enumerate(row[-self.query.sums :]):
                own[place] += value

    def result(self) -> dict[tuple[Any, ...], tuple[int, ...]]:
        return {key: tuple(sums) for key, sums in self.sums.items()}


class Table:
    """The same for answers of many rows."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self.table: Any = None

    def add(self, table: Any) -> None:
        import pyarrow as pa

        if self.table is None:
            self.table = table
            return
        names = table.column_names
        front, last = names[: -self.query.sums], names[-self.query.sums :]
        both = pa.concat_tables([self.table, table]).group_by(front).aggregate([(name, "sum") for name in last])
        self.table = both.select([*front, *(f"{name}_sum" for name in last)]).rename_columns(names)

    def result(self) -> Any:
        return self.table


def jobs_of(fleet: Fleet, sample: int, bits: int) -> list[Job]:
    """Sources in the order of their files, so many together that there are not too many jobs, and no tiny ones."""
    least = max(BATCH, fleet.pages // MOST_JOBS)
    jobs: list[Job] = []
    some: list[Member] = []
    rows = 0
    for member in fleet.members:
        some.append(member)
        rows += member.pages
        if rows >= least:
            jobs.append(Job(some, sample, bits))
            some, rows = [], 0
    return [*jobs, Job(some, sample, bits)] if some else jobs


def bits_of(rows: int, memory: int, at_once: int = 1) -> int:
    """How many first bits of fingerprints divide so many rows, so that each part fits into memory, and there are parts enough for so many
    steps at the same time.
    """
    bits = 0
    while bits < MOST_BITS and (rows * A_ROW >> bits > memory or (1 << bits < at_once and rows >> bits > BATCH)):
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
        work = tempfile.mkdtemp(prefix="ksm-fleet-", dir=os.path.abspath(temp))
    except OSError as error:
        raise FleetError(f"{temp}: {error.strerror}") from None
    try:
        spilled = os.path.join(work, "spilled")
        os.mkdir(spilled)
        engine = engine_of(options, spilled)
        try:
            bits = bits_of(fleet.pages // sample, engine.memory(), engine.at_once())
            folders = engine.spread(jobs_of(fleet, sample, bits), work, progress)
            yield Asking(fleet, engine, 1 << bits, work, folders, fleet.pages if sample == 1 else None, progress)
        finally:
            engine.close()
    finally:
        steps.forget(work)


def no_progress(what: str, done: int, total: int) -> None:
    pass

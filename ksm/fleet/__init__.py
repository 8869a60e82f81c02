# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""Who shares with whom over many hosts, from fingerprint files: docs/fleet.md explains it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ksm.estimate.scan import Zeros
    from ksm.fleet.answers import Report
    from ksm.fleet.checks import Check
    from ksm.fleet.matrices import Matrix
    from ksm.fleet.placing.plan import Plan
    from ksm.machine import _Era as Era


def report(
    files: Sequence[str],
    *,
    placement: str | None = None,
    tenants: Mapping[str, Sequence[str]] | None = None,
    sample: int = 1,
    alike: float = 0.25,
    engine: Literal["duckdb", "dask"] = "duckdb",
    scheduler: str | None = None,
    memory: str | int | None = None,
    threads: int | None = None,
    temp: str | None = None,
) -> Report:
    """What a fleet shares: an object, with what `ksm fleet report` prints.

    `files` are fingerprint files: files, folders whose *.parquet are taken, patterns, or addresses for fsspec. Each says from which host
    its sources are, or the CSV file `placement` does, with the columns source and host. `tenants` has the sources of each tenant by his
    name: as HOST:SOURCE, as SOURCE, or as a pattern of either.

    All figures are exact, but for pairs and groups, which are found by one of `sample` contents. The sources of a group are as `alike` as
    that, 0 to 1, or more so.

    `engine` is DuckDB inside this process, or the Dask cluster with the address `scheduler`, whose workers see the files and the folder
    `temp`. `memory` is what this process may take, or each worker, in bytes or as "4G"; without it, half of what is available. `threads`
    compare; by default as many as there are processors. `temp` gets what does not fit into memory, and is empty again at the end.

    ValueError for arguments that make no sense, OSError(EIO) with the reason for a file that cannot be used, ImportError without duckdb and
    pyarrow. What is equal is what ksm_do_scan() would merge, but for max_page_sharing and pages that change.
    """
    from ksm.fleet.answers import report_of  # an import that few callers need

    return report_of(
        files, placement=placement, tenants=tenants, sample=sample, alike=alike, engine=engine, scheduler=scheduler, memory=memory,
        threads=threads, temp=temp,
    )  # fmt: skip


def matrix(
    files: Sequence[str],
    *,
    placement: str | None = None,
    sample: int = 1,
    least: int = 1,
    engine: Literal["duckdb", "dask"] = "duckdb",
    scheduler: str | None = None,
    memory: str | int | None = None,
    threads: int | None = None,
    temp: str | None = None,
) -> Matrix:
    """How many contents each two sources have in common: an object, with what `ksm fleet matrix` writes.

    With `sample` N, one of N contents is looked at, and the figures are estimates with their errors. Pairs that have less than `least` of
    these in common are left out. Zeros are in no figure. The other arguments, and errors, are as for report().
    """
    from ksm.fleet.answers import matrix_of  # an import that few callers need

    return matrix_of(
        files, placement=placement, sample=sample, least=least, engine=engine, scheduler=scheduler, memory=memory, threads=threads,
        temp=temp,
    )  # fmt: skip


def place(
    files: Sequence[str],
    *,
    hosts: str | Mapping[str, str | int] | None = None,
    capacity: str | int | None = None,
    placement: str | None = None,
    headroom: str | int = "10%",
    fit: Literal["after", "before"] = "after",
    apart: Sequence[Sequence[str]] = (),
    pinned: Sequence[str] = (),
    tenants: Mapping[str, Sequence[str]] | None = None,
    tenants_apart: bool = False,
    moves: int | None = None,
    least: str | int = 0,
    seconds: float = 60.0,
    seed: int = 0,
    sample: int | None = None,
    engine: Literal["duckdb", "dask"] = "duckdb",
    scheduler: str | None = None,
    memory: str | int | None = None,
    threads: int | None = None,
    temp: str | None = None,
) -> Plan:
    """Which source should live on which host, so that KSM saves most: an object, with what `ksm fleet place` prints.

    `hosts` has capacities by the names of hosts, as "64GiB" or as a number of pages, or is a CSV file with the columns host and capacity;
    hosts that it does not name have `capacity`. Of each, `headroom` is kept free, as "10%" or a size. `fit` says whether the memory after
    sharing must fit into that, or all pages before. `placement` is a CSV file that says where sources are now.

    No two sources of a set in `apart` meet, those that are `pinned` stay, and with `tenants_apart` a host has sources of one tenant. At
    most so many `moves` are made, and each has to be worth `least`, a size. The search takes `seconds` at
    most, and depends on the `seed`. One of `sample` contents is looked at; by default all, or 20 million pages of a large fleet. The other
    arguments are as for report().

    ValueError for arguments that make no sense, OSError(EIO) with the reason for a file that cannot be used or a placement that does not
    exist, ImportError without duckdb, pyarrow and numpy. What is equal is what ksm_do_scan() would merge, but for max_page_sharing.
    """
    from ksm.fleet.placing.answers import place_of  # an import that few callers need

    return place_of(
        files, hosts=hosts, capacity=capacity, placement=placement, headroom=headroom, fit=fit, apart=apart, pinned=pinned, tenants=tenants,
        tenants_apart=tenants_apart, moves=moves, least=least, seconds=seconds, seed=seed, sample=sample, engine=engine,
        scheduler=scheduler, memory=memory, threads=threads, temp=temp,
    )  # fmt: skip


def check(
    files: Sequence[str],
    *,
    placement: str | None = None,
    compare: bool = False,
    settings: Mapping[str, str | int] | None = None,
    era: Era = "6.12",
    passes: int | None = None,
    zeros: Zeros = "apart",
    memory: str | int | None = None,
    threads: int | None = None,
    temp: str | None = None,
) -> Check:
    """What KSM would do on each host of a placement: an object, with what `ksm fleet check` prints.

    Without the CSV file `placement`, the hosts are those that the files name; with `compare`, these are checked, too. `settings`, `era`,
    `passes` and `zeros` are as for ksm.scan(). As many hosts as fit into `memory` are checked side by side, `threads` at most.

    ValueError for settings that KSM refuses, OSError(EIO) with the reason for a file that cannot be used, ImportError without pyarrow. Each
    host is merged as ksm_do_scan() does.
    """
    from ksm.fleet.placing.answers import check_of  # an import that few callers need

    return check_of(
        files, placement=placement, compare=compare, settings=settings or {}, era=era, passes=passes, zeros=zeros, memory=memory,
        threads=threads, temp=temp,
    )  # fmt: skip

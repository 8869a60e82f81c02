# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""Who shares with whom over many hosts, from fingerprint files: docs/fleet.md explains it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ksm.fleet.answers import Report
    from ksm.fleet.matrices import Matrix


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

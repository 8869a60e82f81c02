# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""A Dask cluster that exists: each step is a task, done by the DuckDB of a worker.

A task of a worker that dies is done again by another one. What a step has written is found by the folder that it returns, so that what is
left of an attempt that died is not read.
"""

from __future__ import annotations

import os
from asyncio import CancelledError
from collections.abc import Iterator, Sequence
from typing import Any

from ksm.fleet.engines.steps import Answer, Asked, Job, Options, Progress, Room, ask, spread
from ksm.fleet.files import FleetError, is_address, one_line

NEEDED = "a cluster needs dask and distributed: pip install 'ksm[cluster]'"
WAIT = 10  # seconds for the scheduler to answer
USUAL = 1 << 30  # bytes that a step may take where neither the user nor the worker says


class Cluster:
    def __init__(self, options: Options, folder: str) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise FleetError(NEEDED) from None
        assert options.scheduler is not None
        try:
            self.client = Client(options.scheduler, timeout=WAIT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise FleetError(f"{options.scheduler}: {one_line(error)}") from None
        workers: list[dict[str, Any]] = list(self.client.scheduler_info(n_workers=-1)["workers"].values())
        if not workers:
            self.client.close()
            raise FleetError(f"{options.scheduler}: a cluster without workers")
        # A worker does as many steps at the same time as it has threads.
        each = min((options.memory or (worker["memory_limit"] or 2 * USUAL) // 2) // worker["nthreads"] for worker in workers)
        self.address = options.scheduler
        self.threads: int = sum(worker["nthreads"] for worker in workers)
        self.room = Room(each, options.threads or 1, folder)

    def memory(self) -> int:
        assert self.room.memory is not None
        return self.room.memory

    def at_once(self) -> int:
        return self.threads

    def spread(self, jobs: Sequence[Job], work: str, progress: Progress) -> list[str]:
        tasks = [self.client.submit(spread, for_all(job), self.room, work, pure=False) for job in jobs]
        return list(self.results(tasks, "reading fingerprints", progress))

    def ask(self, parts: int, asked: Asked, work: str, progress: Progress) -> Iterator[Answer]:
        known = self.client.scatter(asked, broadcast=True)
        tasks = [self.client.submit(ask, part, known, self.room, work, pure=False) for part in range(parts)]
        yield from self.results(tasks, "comparing", progress)

    def results(self, tasks: list[Any], what: str, progress: Progress) -> Iterator[Any]:
        """What tasks return, as they end. FleetError."""
        from distributed import as_completed
        from distributed.scheduler import KilledWorker

        try:
            for number, task in enumerate(as_completed(tasks, loop=self.client.loop)):
                progress(what, number, len(tasks))
                yield task.result()
                task.release()
        except KilledWorker as error:
            raise FleetError(f"a step has ended several workers: {one_line(error)}") from None
        except (OSError, CancelledError):
            raise FleetError(f"{self.address}: the cluster has gone") from None
        finally:
            self.client.cancel(tasks)

    def close(self) -> None:
        self.client.close()


def for_all(job: Job) -> Job:
    """The same, also in another current folder than this one."""
    files = {member.file: member.file if is_address(member.file) else os.path.abspath(member.file) for member in job.members}
    return job._replace(members=[member._replace(file=files[member.file]) for member in job.members])

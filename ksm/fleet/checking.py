# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""Each host of a placement through KSM itself: a machine of fingerprints for each, as ksm scan has it for the same sources."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, cast

from ksm.estimate.eras import ERA
from ksm.estimate.result import Result
from ksm.estimate.scan import PAGE_OF_FINGERPRINT, WORKING, Scan, Zeros
from ksm.fleet.checks import Check, HostCheck
from ksm.fleet.files import Fleet, FleetError, Member, open_rows, with_hosts
from ksm.host.files import allow_files
from ksm.host.memory import available_memory
from ksm.host.text import printable, size
from ksm.rows.read import RowsFile
from ksm.sources import Source, SourceError
from ksm.sources.fingerprints import Opened, RowsSource
from ksm.sources.pieces import BUFFER
from ksm.sources.work import usable_threads

if TYPE_CHECKING:
    from ksm.machine import _Era as Era

SHARE = 0.8  # of the memory that is available, if nobody says how much may be taken

Progress = Callable[[str, int, int], None]


def no_progress(what: str, done: int, total: int) -> None:
    pass


class Rows(RowsSource):
    """A source of a fingerprint file that is closed elsewhere."""

    def __init__(self, file: str, rows: RowsFile, place: int) -> None:
        super().__init__(file, cast(Opened, Given(rows)), place)


class Given:
    """Stands for ksm.sources.fingerprints.Opened: a file that nobody has to release."""

    def __init__(self, file: RowsFile) -> None:
        self.file = file

    def release(self) -> None:
        pass


@contextmanager
def sources_of(members: Sequence[Member], temp: str | None) -> Iterator[list[Source]]:
    """Sources in their order; each file is open once. FleetError."""
    with ExitStack() as stack:
        files: dict[str, RowsFile] = {}
        for member in members:
            if member.file not in files:
                files[member.file] = stack.enter_context(open_rows(member.file, folder=temp))
        yield [Rows(member.file, files[member.file], member.place) for member in members]


class Budget:
    """Bytes that several threads share: each takes what it needs, and waits until that is there."""

    def __init__(self, whole: int) -> None:
        self.left = whole
        self.changed = threading.Condition()
        self.stopped = False

    @contextmanager
    def taking(self, count: int) -> Iterator[None]:
        with self.changed:
            self.changed.wait_for(lambda: self.stopped or count <= self.left)
            if self.stopped:
                raise Stopped
            self.left -= count
        try:
            yield
        finally:
            with self.changed:
                self.left += count
                self.changed.notify_all()

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify_all()


class Stopped(Exception):
    """Another host has failed, or Ctrl-C."""


def needed(members: Sequence[Member]) -> int:
    """Bytes that the machine of a host may take."""
    return sum(member.pages for member in members) * PAGE_OF_FINGERPRINT + WORKING + BUFFER


def check_fleet(
    fleet: Fleet, placement: Mapping[int, str] | None = None, *, hosts: Sequence[str] = (), compare: bool = False,
    settings: Mapping[str, str] | None = None, era: Era = ERA, passes: int | None = None, zeros: Zeros = "apart", memory: int | None = None,
    threads: int | None = None, temp: str | None = None, progress: Progress = no_progress,
) -> Check:  # fmt: skip
    """Run KSM on each host: on those of the fleet, or as `placement` says, which has hosts by the numbers of sources. FleetError.

    With `compare`, also on the hosts of the fleet. Hosts are run side by side, as many as `threads` and `memory` (bytes) allow. `hosts`
    names some that have no sources.
    """
    then = by_host(fleet, placement or {}, hosts)
    now = by_host(fleet, {}, [*then])
    jobs: dict[tuple[int, ...], list[Member]] = {}
    for some in [*then.values(), *(now.values() if compare else ())]:
        if any(member.pages for member in some):
            jobs.setdefault(numbers(some), some)
    budget = Budget(int(available_memory() * SHARE) if memory is None else memory)
    for name, some in (*then.items(), *(now.items() if compare else ())):
        if needed(some) > budget.left and numbers(some) in jobs:
            said = "are available" if memory is None else "are allowed (--memory)"
            raise FleetError(f"{printable(name)}: not enough memory: it needs {size(needed(some))}, and {size(budget.left)} {said}")
    workers = min(threads or usable_threads(), max(1, len(jobs)))
    allow_files(workers * max((len({member.file for member in some}) for some in jobs.values()), default=1))
    found = run_all(jobs, budget, workers, {"settings": settings, "era": era, "zeros": zeros}, passes, temp, progress)

    def checked(placed: Mapping[str, list[Member]]) -> list[HostCheck]:
        return [HostCheck(name, [member.name for member in some], found.get(numbers(some))) for name, some in placed.items()]

    return Check(checked(then), checked(now) if compare else None)


def placed(fleet: Fleet, placement: str | None) -> dict[int, str]:
    """The hosts that a CSV file says, by the numbers of sources. FleetError."""
    if placement is None:
        return {}
    return {member.number: member.host for member in with_hosts(fleet.members, placement)}


def numbers(members: Sequence[Member]) -> tuple[int, ...]:
    return tuple(member.number for member in members)


def by_host(fleet: Fleet, placement: Mapping[int, str], more: Sequence[str]) -> dict[str, list[Member]]:
    """The sources of each host."""
    found: dict[str, list[Member]] = {name: [] for name in fleet.hosts}
    found.update({name: [] for name in more if name not in found})
    for member in fleet.members:
        found.setdefault(placement.get(member.number, member.host), []).append(member)
    return found


def run_all(
    jobs: Mapping[tuple[int, ...], list[Member]], budget: Budget, workers: int, how: Mapping[str, Any], passes: int | None,
    temp: str | None, progress: Progress,
) -> dict[tuple[int, ...], Result]:  # fmt: skip
    """A machine for each host. The largest begin, so that none of them is last and alone."""
    done = 0

    def step(what: str, count: int, of: int) -> None:
        if budget.stopped:
            raise Stopped

    def run(members: Sequence[Member]) -> Result:
        nonlocal done
        with (
            budget.taking(needed(members)), sources_of(members, temp) as sources,
            Scan(sources, exact=False, threads=1, progress=step, **how) as running,
        ):  # fmt: skip
            result = running.run(passes)
        with budget.changed:
            done += 1
            progress("merging", done, len(jobs))
        return result

    pool = ThreadPoolExecutor(workers, thread_name_prefix="ksm-check")
    order = sorted(jobs, key=lambda key: -sum(member.pages for member in jobs[key]))
    progress("merging", 0, len(jobs))
    futures = {key: pool.submit(run, jobs[key]) for key in order}
    try:
        wait(futures.values(), return_when=FIRST_EXCEPTION)
        errors = [error for future in futures.values() if future.done() and (error := future.exception()) is not None]
        for error in errors:
            if isinstance(error, SourceError):
                raise FleetError(str(error)) from None
            raise error
        return {key: future.result() for key, future in futures.items()}
    finally:
        budget.stop()
        pool.shutdown(cancel_futures=True)

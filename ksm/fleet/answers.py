# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what commands print, as objects.
"""The functions of the package. What is wrong is a ValueError, an OSError or an ImportError."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ksm.fleet import sharing_text
from ksm.fleet.asking import no_progress
from ksm.fleet.engines.steps import NEEDED, Options
from ksm.fleet.files import FleetError, open_fleet
from ksm.fleet.ledger import FleetLedger
from ksm.fleet.matrices import Matrix, make_matrix
from ksm.fleet.sharing import FleetReport, make_report
from ksm.machine import parse_size

LEAST_MEMORY = 256 << 20  # bytes: what a step needs, whatever the fleet
MOST_SAMPLE = 1 << 32
ENGINES = ("duckdb", "dask")


class Report:
    """What a fleet shares, as ksm.fleet.report() has found it. str() of it is what `ksm fleet report` prints."""

    def __init__(self, found: FleetReport) -> None:
        self.found = found

    def __repr__(self) -> str:
        return f"<ksm fleet report: {self.answer}>"

    def __str__(self) -> str:
        return self.text()

    @property
    def answer(self) -> str:
        """The answer in a sentence."""
        return sharing_text.answer(self.found)

    @property
    def ledger(self) -> FleetLedger:
        """What each page is, in pages: each is in one of its lines."""
        return self.found.ledger

    def json(self) -> dict[str, Any]:
        """All of it as `ksm fleet report --json` prints it: docs/fleet.md names each entry."""
        return sharing_text.as_json(self.found)

    def text(self, width: int = 80) -> str:
        """What `ksm fleet report` prints on a terminal of this many columns, without colours."""
        return "\n".join(line for line, _ in sharing_text.lines(self.found, width)) + "\n"


@contextmanager
def refusals() -> Iterator[None]:
    """OSError for what is wrong with files, ImportError for packages."""
    try:
        yield
    except FleetError as error:
        if str(error) == NEEDED:
            raise ImportError(NEEDED) from None
        raise OSError(errno.EIO, str(error)) from None


def options_of(engine: str, scheduler: str | None, memory: str | int | None, threads: int | None, temp: str | None) -> Options:
    """ValueError, TypeError."""
    if engine not in ENGINES:
        raise ValueError(f"engine is one of {', '.join(ENGINES)}, not {engine!r}")
    if engine == "dask" and scheduler is None:
        raise ValueError("the engine dask needs the address of a scheduler")
    if engine != "dask" and scheduler is not None:
        raise ValueError("only the engine dask has a scheduler")
    size = None if memory is None else parse_size(memory)
    if size is not None and size < LEAST_MEMORY:
        raise ValueError(f"memory is at least {LEAST_MEMORY >> 20}M")
    if threads is not None and not 1 <= threads <= 256:
        raise ValueError(f"threads are 1 to 256, not {threads}")
    return Options(engine, size, threads, temp, scheduler)


def checked(sample: int) -> int:
    if not 1 <= sample <= MOST_SAMPLE:
        raise ValueError(f"sample is 1 to {MOST_SAMPLE}, not {sample}")
    return sample


def report_of(
    files: Sequence[str], *, placement: str | None, tenants: Mapping[str, Sequence[str]] | None, sample: int, alike: float, engine: str,
    scheduler: str | None, memory: str | int | None, threads: int | None, temp: str | None,
) -> Report:  # fmt: skip
    """See ksm.fleet.report()."""
    if not 0 <= alike <= 1:
        raise ValueError(f"alike is 0 to 1, not {alike}")
    options = options_of(engine, scheduler, memory, threads, temp)
    with refusals():
        fleet = open_fleet(files, placement=placement, tenants=tenants)
        return Report(make_report(fleet, options, sample=checked(sample), least=alike, progress=no_progress))


def matrix_of(
    files: Sequence[str], *, placement: str | None, sample: int, least: int, engine: str, scheduler: str | None, memory: str | int | None,
    threads: int | None, temp: str | None,
) -> Matrix:  # fmt: skip
    """See ksm.fleet.matrix()."""
    if least < 1:
        raise ValueError(f"least is 1 or more, not {least}")
    options = options_of(engine, scheduler, memory, threads, temp)
    with refusals():
        return make_matrix(open_fleet(files, placement=placement), options, sample=checked(sample), least=least, progress=no_progress)

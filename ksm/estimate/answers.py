# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what commands print, as objects.
"""The functions of the package that open sources: ksm.why(), ksm.sweep(), ksm.advise() and ksm.watch(). What is wrong is a ValueError or
OSError.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ksm.estimate.advise import Advice, advise
from ksm.estimate.arguments import check_arguments
from ksm.estimate.look import ask
from ksm.estimate.replay import Reader
from ksm.estimate.scan import Zeros
from ksm.estimate.settings import SettingError, check_settings
from ksm.estimate.sweep import Sweep, Sweeper, settings_of
from ksm.estimate.watching import Ended, Look, Watcher, watch
from ksm.estimate.why import Why
from ksm.sources import Host, Source, SourceError, Which, open_sources

if TYPE_CHECKING:
    from ksm.machine import _Era as Era


def texts_of(settings: Mapping[str, str | int]) -> dict[str, str]:
    return {name: str(value) for name, value in settings.items()}


@contextmanager
def refusals() -> Iterator[None]:
    """ValueError for a setting that is refused, OSError for a source."""
    try:
        yield
    except SettingError as error:
        raise ValueError(str(error)) from None
    except SourceError as error:
        raise OSError(errno.EIO, str(error)) from None


@contextmanager
def opened(texts: Sequence[str], which: Which) -> Iterator[tuple[list[Source], list[str]]]:
    """The sources, and remarks on what is left out. SourceError."""
    host = Host()
    sources: list[Source] = []
    try:
        sources, remarks = open_sources(list(texts), host, which=which)
        if not sources:
            raise SourceError("there is no process that you may read")
        yield sources, remarks
    finally:
        for source in sources:
            source.close()
        host.close()


def why_of(
    texts: Sequence[str], address: int | None, *, settings: Mapping[str, str | int], era: Era, passes: int | None, interval: float | None,
    budget: float, which: Which, zeros: Zeros, quick: bool, threads: int | None,
) -> Why:  # fmt: skip
    """See ksm.why()."""
    check_arguments(
        texts, era=era, which=which, zeros=zeros, threads=threads, passes=passes, interval=interval, budget=budget,
    )  # fmt: skip
    if address is not None and not 0 <= address < 1 << 64:
        raise ValueError(f"an address has 64 bits, and not {address:#x}")
    base = {name: str(value) for name, value in settings.items()}
    try:
        check_settings(base, era)
        return ask(
            list(texts), address, settings=base, era=era, passes=passes, interval=interval, budget=budget, which=which, zeros=zeros,
            quick=quick, threads=threads,
        )  # fmt: skip
    except SettingError as error:
        raise ValueError(str(error)) from None
    except SourceError as error:
        raise OSError(errno.EIO, str(error)) from None


def advise_of(texts: Sequence[str], *, settings: Mapping[str, str | int], era: Era, interval: float, threads: int | None) -> Advice:
    """See ksm.advise()."""
    check_arguments(texts, era=era, threads=threads, interval=interval)
    if not texts:
        raise ValueError("at least one process is needed")
    base = texts_of(settings)
    with refusals():
        check_settings(base, era)
        with opened(texts, "prctl") as (sources, remarks):
            found = advise(Reader(sources, threads=threads, interval=interval), settings=base, era=era)
    return found._replace(notes=[*found.notes, *remarks])


def watch_of(
    texts: Sequence[str], *, every: float, count: int | None, settings: Mapping[str, str | int], era: Era, which: Which, zeros: Zeros,
    budget: float, threads: int | None,
) -> Iterator[Look]:  # fmt: skip
    """See ksm.watch()."""
    check_arguments(texts, era=era, which=which, zeros=zeros, threads=threads, count=count, budget=budget)
    if not every > 0:
        raise ValueError(f"every is more than 0 seconds, not {every}")
    base = texts_of(settings)
    with refusals():
        check_settings(base, era)
    watcher = Watcher(texts, settings=base, era=era, which=which, zeros=zeros, budget=budget, threads=threads)

    def looks() -> Iterator[Look]:
        with refusals(), suppress(Ended):
            yield from watch(watcher, every=every, count=count)

    return looks()


def sweep_of(
    texts: Sequence[str], vary: Mapping[str, Sequence[str | int]], *, settings: Mapping[str, str | int], era: Era, rules: bool,
    cost: float | None, which: Which, zeros: Zeros, interval: float, threads: int | None,
) -> Sweep:  # fmt: skip
    """See ksm.sweep()."""
    check_arguments(texts, era=era, which=which, zeros=zeros, threads=threads, interval=interval)
    if cost is not None and not 0 < cost <= 1e9:
        raise ValueError(f"cost is above 0 and at most 1e9 nanoseconds, not {cost}")
    base, varied = texts_of(settings), {name: [str(value) for value in values] for name, values in vary.items()}
    with refusals():
        rows, remarks = settings_of(varied, base, era, rules=rules)
        with opened(texts, which) as (sources, others):
            reader = Reader(sources, threads=threads, zeros=zeros, interval=interval)
            found = Sweeper(reader, rows, cost=cost, threads=threads).run()
    return found._replace(notes=[*found.notes, *remarks, *others])

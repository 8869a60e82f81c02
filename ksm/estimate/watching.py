# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it has the counters of this moment only.
"""What KSM would save, looked at again and again: look() is one look, watch() an iterator, summary() sums up many."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ksm.constants import PAGE_SIZE
from ksm.estimate.counters import KSM_STAT, SYSTEM, Counters, version_of
from ksm.estimate.eras import ERA
from ksm.estimate.pace import BUDGET
from ksm.estimate.scan import Progress, Scan, Zeros, no_progress
from ksm.host.files import FileError
from ksm.host.json_file import parse_json
from ksm.host.knobs import RUNNING
from ksm.host.ksm_counters import read_tree
from ksm.host.memory import page_size
from ksm.sources import Host, Source, SourceError, SourceGone, Which, open_sources
from ksm.sources.live import LiveSource

if TYPE_CHECKING:
    from ksm.machine import _Era as Era

EVERY = 60.0  # seconds
LARGEST = 64 << 20  # bytes of a file of looks
MOST_NAMES = 20  # sources that came or went, by name; of more, only how many


class Kernel(NamedTuple):
    """What the running kernel's KSM has: whether ksmd runs, bytes that it saves, and its profit by general_profit's formula."""

    run: int
    saved: int
    profit: int


class Look(NamedTuple):
    """What one look has found. Memory is in bytes.

    time      seconds since 1970
    sources   how many there were
    total     their memory
    saved     what KSM would free, with what it has freed already
    least     what it would free at least on top of what it has freed already
    most      the same, at most
    profit    saved less KSM's own structures
    settled   whether the last pass changed nothing
    change    saved, less that of the look before; None for the first one
    came      sources that were not there before, by name
    gone      sources that are not there any more, by name, with the reason where there is one
    kernel    what the running kernel's KSM has; None where it has none, or does nothing
    """

    time: float
    sources: int
    total: int
    saved: int
    least: int
    most: int
    profit: int
    settled: bool
    change: int | None
    came: list[str]
    gone: list[str]
    kernel: Kernel | None

    def line(self) -> str:
        """The line of a log."""
        kernel = None if self.kernel is None else self.kernel._asdict()
        return json.dumps({**self._asdict(), "time": round(self.time, 3), "kernel": kernel})


class Ended(Exception):
    """There is nothing to watch any more. The text says why, and how often there was."""


class Watcher:
    """Looks at sources, as they are called on a command line; without any, at all processes that may be read.

    Each look opens them anew: a file that was replaced is read as it is now.
    """

    def __init__(
        self,
        texts: Sequence[str] = (),
        *,
        settings: Mapping[str, str] | None = None,
        era: Era = ERA,
        which: Which = "prctl",
        zeros: Zeros = "apart",
        budget: float = BUDGET,
        threads: int | None = None,
        gentle: bool = False,
        progress: Progress = no_progress,
    ) -> None:
        self.texts = list(texts)
        self.settings, self.era, self.which, self.zeros, self.budget, self.threads = settings, era, which, zeros, budget, threads
        self.gentle = gentle
        self.progress = progress
        self.names: list[str] | None = None  # of the last look
        self.saved = 0
        self.started: dict[int, str] = {}  # of processes that were named: when each was started
        self.lost: list[str] = []  # why sources cannot be opened any more
        self.looks = 0

    def open(self, host: Host) -> list[Source]:
        """The sources that are there. Those that were named and have gone are told. SourceError for one that never was."""
        if not self.texts:
            return open_sources([], host, which=self.which)[0]
        if self.names is None:
            sources = open_sources(self.texts, host, which=self.which)[0]
            self.started = {source.pid: source.started for source in sources if isinstance(source, LiveSource)}
            return sources
        found: list[Source] = []
        try:
            for text in list(self.texts):
                try:
                    for source in open_sources([text], host, which=self.which)[0]:
                        found.append(source)
                        if isinstance(source, LiveSource) and source.started != self.started.get(source.pid):
                            found.pop().close()
                            raise SourceGone(f"pid {source.pid}: has exited, and another process has its number")
                except SourceError as error:
                    self.texts.remove(text)
                    self.lost.append(str(error))
        except BaseException:
            for source in found:
                source.close()
            raise
        return found

    def look(self) -> Look:
        """Look once. Ended if nothing is there any more; SourceError."""
        host = Host(gentle=self.gentle)
        sources: list[Source] = []
        self.lost = []
        try:
            now = time.time()
            sources = self.open(host)
            if not sources and self.names is None:
                raise SourceError("there is no process that you may read")
            if not sources:
                raise Ended(self.ended())
            try:
                with Scan(
                    sources, settings=self.settings, era=self.era, threads=self.threads, zeros=self.zeros, progress=self.progress
                ) as scan:
                    result = scan.run(None, None, self.budget)
            except SourceGone as error:
                if self.names is None:
                    raise
                self.lost.append(str(error))
                raise Ended(self.ended()) from None
        finally:
            for source in sources:
                source.close()
            host.close()
        names = [source.name for source in result.sources]
        before = names if self.names is None else self.names
        saved = result.ledger.freed * PAGE_SIZE
        look = Look(
            time=now, sources=len(names), total=result.pages * PAGE_SIZE, saved=saved, least=result.freed.least * PAGE_SIZE,
            most=result.freed.most * PAGE_SIZE, profit=result.ledger.profit, settled=result.settled,
            change=None if self.names is None else saved - self.saved, came=some_of(name for name in names if name not in set(before)),
            gone=self.gone(before, names), kernel=kernel_has(),
        )  # fmt: skip
        self.names, self.saved = names, saved
        self.looks += 1
        return look

    def gone(self, before: list[str], names: list[str]) -> list[str]:
        """The sources that are not there any more: with the reason, if there is one."""
        there = set(names)
        missing = [name for name in before if name not in there]
        why = {name: next((reason for reason in self.lost if reason.startswith(name.partition(" (")[0] + ":")), name) for name in missing}
        return some_of(dict.fromkeys(why.values()))

    def ended(self) -> str:
        reason = "; ".join(self.lost) or "all sources have gone"
        return f"{reason}: there is nothing to watch any more"


def some_of(names: Iterable[str]) -> list[str]:
    every = list(names)
    return every if len(every) <= MOST_NAMES else [*every[:MOST_NAMES], f"and {len(every) - MOST_NAMES:,} more"]


def watch(
    watcher: Watcher, *, every: float = EVERY, count: int | None = None, wait: Callable[[float], None] = time.sleep
) -> Iterator[Look]:
    """Look, wait until `every` seconds have passed since the last look began, and so on, `count` times; Ended when nothing is there."""
    begun = time.monotonic()
    number = 0
    while count is None or number < count:
        if number:
            # A look that takes longer than that is followed by the next one; those that were missed are left out.
            number_now = max(number, int((time.monotonic() - begun) / every) if every else number)
            begun += (number_now - number) * every
            if (left := begun + number * every - time.monotonic()) > 0:
                wait(left)
        yield watcher.look()
        number += 1


def kernel_has() -> Kernel | None:
    """What the running kernel's KSM has; None where it has no KSM, or has never merged anything and does not run."""
    try:
        reading = read_tree(RUNNING, SYSTEM, KSM_STAT)
        counters = Counters(reading.system, {}, version_of(os.uname().release), page_size())
    except (FileError, ValueError):
        return None
    if not counters.saved and counters.get("run") != 1:
        return None
    return Kernel(counters.get("run"), counters.saved * counters.page_size, counters.profit)


class Range(NamedTuple):
    """The least, the median and the most of a figure, in bytes, over so many looks."""

    looks: int
    least: int
    median: int
    most: int


class Summary(NamedTuple):
    """What many looks add up to.

    first, last    seconds since 1970
    saved, profit  what KSM would have freed, and what that gives
    kernel         what the running kernel's KSM had; None if it never had any
    hours          saved, by the hour of the day, in local time
    came, gone     sources, by name, with how often
    """

    first: float
    last: float
    saved: Range
    profit: Range
    kernel: Range | None
    hours: dict[int, Range]
    came: dict[str, int]
    gone: dict[str, int]


def range_of(figures: Sequence[int]) -> Range:
    return Range(len(figures), min(figures), round(statistics.median(figures)), max(figures))


def summary(looks: Sequence[Look]) -> Summary:
    """Sum up looks, of which there is one at least: ValueError."""
    if not looks:
        raise ValueError("there is no look to sum up")
    hours: dict[int, list[int]] = {}
    for look in looks:
        hours.setdefault(time.localtime(look.time).tm_hour, []).append(look.saved)
    kernel = [look.kernel.saved for look in looks if look.kernel is not None]

    def counted(every: Iterable[list[str]]) -> dict[str, int]:
        result: dict[str, int] = {}
        for names in every:
            for name in names:
                result[name] = result.get(name, 0) + 1
        return result

    return Summary(
        first=looks[0].time, last=looks[-1].time, saved=range_of([look.saved for look in looks]),
        profit=range_of([look.profit for look in looks]), kernel=range_of(kernel) if kernel else None,
        hours={hour: range_of(hours[hour]) for hour in sorted(hours)}, came=counted(look.came for look in looks),
        gone=counted(look.gone for look in looks),
    )  # fmt: skip


NUMBERS = {"time": float, "sources": int, "total": int, "saved": int, "least": int, "most": int, "profit": int}
LATEST = 1 << 36  # seconds since 1970 that localtime() can tell
LARGEST_NUMBER = 1 << 62


def read_looks(data: bytes, what: str) -> list[Look]:
    """The looks in the lines of a log. FileError."""
    looks = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            looks.append(look_of(parse_json(line)))
        except ValueError as error:
            raise FileError(f"{what}: line {number:,} is not one of ksm watch: {error}") from None
    if not looks:
        raise FileError(f"{what}: empty")
    return looks


def look_of(value: Any) -> Look:
    """A look, from its line. ValueError."""
    if not isinstance(value, dict):
        raise ValueError("it is no object")
    found: dict[str, Any] = {}
    for name, kind in NUMBERS.items():
        found[name] = number_in(value, name, (int, float) if kind is float else (int,))
    if not 0 <= found["time"] < LATEST:
        raise ValueError(f"time {found['time']} is none")
    change = value.get("change")
    kernel = value.get("kernel")
    names = [value.get(name) for name in ("came", "gone")]
    if not all(isinstance(some, list) and all(isinstance(name, str) for name in some) for some in names):
        raise ValueError("came and gone are lists of names")
    if kernel is not None:
        if not isinstance(kernel, dict):
            raise ValueError("kernel is no object")
        kernel = Kernel(*(number_in(kernel, name, (int,)) for name in Kernel._fields))
    if change is not None:
        change = number_in(value, "change", (int,))
    came, gone = names
    return Look(**found, settled=bool(value.get("settled")), change=change, came=came or [], gone=gone or [], kernel=kernel)


def number_in(value: dict[str, Any], name: str, kinds: tuple[type, ...]) -> Any:
    number: Any = value.get(name)
    if type(number) not in kinds or not -LARGEST_NUMBER < number < LARGEST_NUMBER:
        raise ValueError(f"{name} is no number" if name in value else f"it has no {name}")
    return number

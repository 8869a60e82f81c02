# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges the one memory that there is.
"""Sources that are read once, and scanned many times: by machines with other settings, or over parts of the memory."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from ksm.constants import MADV_DONTNEED, PAGE_SIZE
from ksm.estimate.eras import ERA
from ksm.estimate.pace import spell
from ksm.estimate.scan import PAGE_OF_FINGERPRINT, Progress, Result, Scan, Zeros, make_machine, no_progress
from ksm.estimate.tuners import Knobs, Timing, Tuner
from ksm.fingerprint.frames import frames_of
from ksm.host.memory import available_memory
from ksm.sources import Source, SourceError
from ksm.sources.base import new_process
from ksm.sources.families import Family
from ksm.sources.live import LiveSource
from ksm.sources.merged import MergedFrames
from ksm.sources.notebook import Notebook, NotedProcess, Stage, Step, changed, turns
from ksm.sources.runs import without

if TYPE_CHECKING:
    from ksm.machine import Machine
    from ksm.machine import _Era as Era
    from ksm.process import Process

APART = 1.0  # seconds between two readings of processes
LEAST_BATCH, MOST_BATCH = 64, 16384  # pages between two looks at the clock
LATEST, LONGEST = 5e9, 9e8  # seconds of a machine's clock, and at once
BATCHES = 64  # in a pass, or more: so exactly the advisor knows how long a pass took


class Stopped(Exception):
    """A scan was told to stop."""


class Reader(Scan):
    """Reads sources, processes twice: what differs is volatile. `notes` says so. The sources stay the caller's to close."""

    def __init__(
        self,
        sources: list[Source],
        *,
        key: bytes | None = None,
        threads: int | None = None,
        zeros: Zeros = "count",
        interval: float = APART,
        progress: Progress = no_progress,
    ) -> None:
        """interval    seconds between two readings of processes"""
        self.notebook = Notebook(key)
        super().__init__(sources, key=key, threads=threads, zeros=zeros, progress=progress)
        self.lock = threading.Lock()  # results of replays use the same tables of frames
        self.known_frames = super().merged_frames()
        self.given = list(self.sources)
        began = time.monotonic()
        self.notebook.begin()
        self.read(0)
        self.apart = 0.0
        if self.live:
            self.wait(max(0.0, began + interval - time.monotonic()), 0)
            self.apart = time.monotonic() - began
            self.notebook.begin()
            self.read(1)
        merged = MergedFrames()
        for source in self.sources:
            source.look_back(merged)
        self.turns = turns(self.notebook.readings)
        self.readings = changed(self.notebook.readings)
        self.notebook.close()

    def make_machine(self, exact: bool | None, threads: int) -> Machine:
        return cast("Machine", self.notebook)

    def set_zeros_apart(self, source: Source) -> None:
        self.notebook.note(-1, "apart", self.given.index(source))

    def wait(self, seconds: float, number: int) -> None:
        if seconds > 0:
            self.progress(f"waiting {spell(seconds)} to read once more", 0, 0)
            time.sleep(seconds)

    @property
    def needed(self) -> int:
        """Bytes that a machine takes, about."""
        return sum(source.copied + source.mapped for source in self.sources) // PAGE_SIZE * PAGE_OF_FINGERPRINT


class Replay(Scan):
    """A scan of what a Reader has read, in a machine of its own, with a manual clock that goes as ksmd would.

    `knobs` says how many pages ksmd looks at and how long it sleeps, and `cost` how many seconds a page takes. stop() ends it: Stopped.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        settings: Mapping[str, str] | None = None,
        era: Era = ERA,
        cost: float,
        knobs: Tuner | None = None,
        perfect: bool = False,
        only: Mapping[str, list[tuple[int, int]]] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """perfect    nothing is huge or held, and pages that differ between readings are those of the last one
        only       by the names of sources, the addresses (start, end) that count
        """
        self.reader = reader
        self.perfect = perfect
        self.only = only
        self.stop = stop
        self.cost = cost
        self.timing = Timing([], [])
        self.saved: list[int] = []  # after each pass, by the counters
        self.looked: list[int] = []  # pages of each pass
        self.chains = False  # whether there were any after a pass
        super().__init__(list(reader.sources), settings=settings, era=era, key=reader.key, threads=1, zeros=reader.zeros)
        self.knobs = knobs or Knobs(self.machine)
        self.left = list(reader.left)
        self.stage = Stage(self.machine)
        copies = {id(source): copy.copy(source) for source in reader.given}
        self.given = [copies[id(source)] for source in reader.given]
        self.sources = [copies[id(source)] for source in reader.sources]
        self.families = []
        for family in reader.families:
            mine: Family = copy.copy(family)
            mine.members = [None if member is None else cast(LiveSource, copies[id(member)]) for member in family.members]
            self.families.append(mine)
        if any(reader.turns) and not perfect:
            self.period = len(reader.turns)

    def make_machine(self, exact: bool | None, threads: int) -> Machine:
        return make_machine(self.sources, self.era, key=self.key, threads=threads, clock="manual")

    def families_of(self) -> list[Family]:
        return []

    def read(self, number: int) -> None:
        readings = self.reader.readings
        if self.perfect:
            for steps in readings if number == 0 else []:
                self.play(steps)
        elif number < len(readings):
            self.play(readings[number])
        elif any(self.reader.turns):
            self.play(self.reader.turns[number % len(self.reader.turns)])

    def play(self, steps: Sequence[Step]) -> None:
        self.stage.play(steps, huge=not self.perfect, hold=not self.perfect, apart=self.apart, pause=self.pause)
        self.find_processes()
        if self.only is not None:
            self.drop_others(self.only)

    def pause(self) -> None:
        if self.stop():
            raise Stopped

    def find_processes(self) -> None:
        """The sources' processes are those of this machine."""
        for source in self.given:
            if isinstance(source.process, NotedProcess) and source.process.number < len(self.stage.processes):
                source.process = self.stage.processes[source.process.number]

    def apart(self, number: int) -> None:
        self.find_processes()
        self.given[number].set_zeros_apart(self.machine)

    def drop_others(self, only: Mapping[str, list[tuple[int, int]]]) -> None:
        """Take away what does not count. A range that the machine's process has not mapped yet has nothing."""
        for source in self.sources:
            for start, end in without([(addr, addr + length) for addr, length in source.ranges()], only.get(source.name, [])):
                assert source.process is not None
                with suppress(OSError):
                    source.process.madvise(start, end - start, MADV_DONTNEED)

    def spawn_zeros(self) -> Process | None:
        if self.counter("use_zero_pages") or self.perfect:
            return None
        process = new_process(self.machine, "pages of zeros")
        addr = process.mmap(2 * PAGE_SIZE)
        process.load(addr, frames_of(bytes(2 * PAGE_SIZE), key=self.key), always=True)
        return process

    def scan(self, number: int) -> int:
        """One pass, as Scan makes it, on a clock that ksmd's sleeps and work move."""
        skipped = self.counter("pages_skipped")
        total = sum(source.process.rss() for source in self.sources if source.process is not None)
        batch = min(MOST_BATCH, max(LEAST_BATCH, total // BATCHES))
        took = busy = 0.0
        before = sum(self.timing.took)
        left = total
        done = False
        while not done:
            self.pause()
            pages = max(0, min(batch, left))
            at_once, sleep = self.knobs.at(before + took)
            seconds = pages / max(1, at_once) * sleep + pages * self.cost
            self.advance(seconds, pages * self.cost)
            took += seconds
            busy += pages * self.cost
            left -= pages
            passed = self.counter("pages_skipped")
            done = self.machine.ksm.scan(pages=batch)
            left -= self.counter("pages_skipped") - passed
        self.skipped = self.counter("pages_skipped") - skipped
        self.timing.took.append(took)
        self.timing.busy.append(busy)
        self.looked.append(max(0, total - self.skipped))
        self.saved.append(self.counter("pages_sharing") + self.counter("ksm_zero_pages"))
        self.chains = self.chains or self.counter("stable_node_chains") > 0
        return self.looked[-1]

    def advance(self, seconds: float, busy: float) -> None:
        """Move the machine's clock, which ends after 292 years: with knobs that need longer, it stops before that."""
        left = max(0.0, min(LATEST - self.machine.time(), LONGEST))
        self.machine.advance(min(seconds, left), ksmd=min(busy, seconds, left))

    def go_on(self, passes: int, most: int) -> None:
        """Make further passes, `most` of them, until the advisor leaves pages_to_scan as it is."""
        for number in range(passes, passes + most):
            before = self.counter("pages_to_scan")
            self.read(number)
            self.scan(number + 1)
            if self.counter("pages_to_scan") == before:
                break

    def look_back(self, source: Source, merged: MergedFrames) -> None:
        return None  # the reader has

    def merged_frames(self) -> int:
        return self.reader.known_frames

    def result(self, passes: int, settled: bool, seconds: Sequence[float] = ()) -> Result:
        with self.reader.lock:
            return super().result(passes, settled, seconds)


def fitting(reader: Reader, threads: int) -> int:
    """How many machines fit into memory at the same time, `threads` at most. SourceError if none does."""
    room = available_memory()
    if reader.needed > room:
        raise SourceError(f"not enough memory for a machine: it needs {reader.needed >> 20:,} MiB, and {room >> 20:,} are available")
    return max(1, min(threads, room // max(1, reader.needed)))

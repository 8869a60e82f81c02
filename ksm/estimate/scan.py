# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what `ksm scan` does, without the command line.
"""Run KSM over sources of memory until it finds nothing more, and say what it would save."""

from __future__ import annotations

import errno
import mmap
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, Literal

from ksm.constants import PAGE_SIZE
from ksm.estimate.already import already_freed, doubts_of
from ksm.estimate.eras import ERA
from ksm.estimate.ledger import SIZES, make_ledger
from ksm.estimate.pace import BUDGET, Watch, doubt_of_hurry, doubt_of_skips, pace_of, spell
from ksm.estimate.project import LEAST_SOURCES, Projection, Share, project
from ksm.estimate.result import Result as Result
from ksm.estimate.result import Savings, SourceResult, Stretch
from ksm.estimate.savings import Tally
from ksm.estimate.settings import SettingError, apply_settings
from ksm.fingerprint.frames import key_name
from ksm.host.ksm import merged_frames
from ksm.host.memory import available_memory, total_memory
from ksm.host.text import size
from ksm.machine import Machine
from ksm.rows import hashed
from ksm.sources import Source, SourceError, SourceGone
from ksm.sources.base import new_process
from ksm.sources.families import Family, families_of
from ksm.sources.live import LiveSource
from ksm.sources.merged import MergedFrames
from ksm.sources.pace import pause
from ksm.sources.pieces import BUFFER
from ksm.sources.work import usable_threads

if TYPE_CHECKING:
    from ksm.machine import _Era as Era
    from ksm.process import Process

ZEROS_NEEDED = 2  # passes: the second one merges them
LEAST_PASSES = 3  # the first one only takes checksums, the second one merges, the third one shows that this was all
MOST_PASSES, MOST_PASSES_LIVE = 100, 10  # if every pass changes something
BATCH = 16384  # pages between two looks at the progress
SLACK = 64 << 20
OTHERS = 256 << 20  # bytes of addresses that a machine leaves to the rest of the program, if they are limited
UNKNOWN = 1 << 40  # room for sources that do not say how large they are
PAGE_OF_FINGERPRINT = 160  # bytes: a frame, a struct page, an rmap_item, a page table entry, and half a stable node, if all are pairs
PAGE_OF_FORK = 144  # bytes of a page whose frame another process has: an rmap_item, a page table entry, and the tables of families.py
WORKING = 8 << 20  # bytes that a scan takes besides, and a buffer for each thread
MOST_LINES = 5  # of the report, on processes that were left out

# What is kept of each pass
HISTORY = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "ksm_zero_pages", "pages_skipped")

PASS_STATE = ("pages_shared", "pages_sharing", "ksm_zero_pages", "stable_node_chains", "stable_node_dups")

Zeros = Literal["apart", "count"]  # what is done with pages of zeros that may be no pages in the running machine

# What is being done, and how far it is: (what, done, total)
Progress = Callable[[str, int, int], None]


def no_progress(what: str, done: int, total: int) -> None:
    pass


def make_machine(
    sources: list[Source],
    era: Era = ERA,
    *,
    exact: bool = False,
    key: bytes | None = None,
    threads: int = 1,
    clock: Literal["real", "manual"] = "real",
) -> Machine:
    """A machine large enough for the sources: of bytes if `exact`, else of fingerprints, which may have a key. SourceError."""
    forked = sum(source.forked for source in sources)
    copied = sum(source.copied for source in sources) - forked
    mapped = sum(source.mapped for source in sources)
    working = WORKING + threads * BUFFER
    as_fingerprints = ((copied + mapped) * PAGE_OF_FINGERPRINT + forked * PAGE_OF_FORK) // PAGE_SIZE + working
    if exact:
        # Besides the copies, 128 bytes for every page: a struct page, an rmap_item, and what else belongs to it
        needed = copied + (copied + forked + mapped) // 32 + working
    else:
        copied, mapped = copied + mapped, 0
        needed = as_fingerprints
    if needed > available_memory():
        fewer = ""
        if exact and as_fingerprints <= available_memory():
            fewer = f"; without --exact, it needs {size(as_fingerprints)}"
        elif len(sources) > 1:
            fewer = "; scan fewer at once" + (" (pid:N for a process)" if any(source.live for source in sources) else "")
        raise SourceError(f"not enough memory: the scan needs {size(needed)}, and {size(available_memory())} are available{fewer}")
    # Processes grow, and a stream does not say how long it is. Memory that nobody uses costs nothing.
    room = UNKNOWN if not exact else 0
    if any(source.live or not (source.copied or source.mapped) for each in sources for source in each.moments_of()):
        room += max(copied, total_memory())
    pages: Literal["bytes", "fingerprints"] = "bytes" if exact else "fingerprints"
    others: Any = nullcontext()
    while True:
        memory = -(-(copied + SLACK + room) // PAGE_SIZE) * PAGE_SIZE
        try:
            with others:
                return Machine(memory, max_memory=memory + mapped, era=era, pages=pages, key=key, threads=threads, clock=clock)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno != errno.ENOMEM:
                raise
        # Addresses may be limited, as by ulimit -v: then less room is better than none, and the interpreter and threads need some.
        if room <= SLACK:
            raise SourceError(f"{size(copied + mapped + room)} of memory in {len(sources)} sources are too much for one scan")
        room //= 4
        others = nullcontext()
        with suppress(OSError):
            others = mmap.mmap(-1, OTHERS, prot=0)


def mapped_at_once(sources: list[Source]) -> bool:
    """Whether all sources are files that are mapped, and fit into memory together.

    KSM on the bytes of mapped files takes less time and memory than reading them for their fingerprints: the first pass reads each page
    once, and later ones read few. A file that does not stay in memory would be read again, and from place to place.
    """
    return all(source.mapped and not source.copied for source in sources) and sum(source.mapped for source in sources) < available_memory()


def check_together(sources: list[Source], exact: bool | None, key: bytes | None) -> None:
    """Whether one machine can have the pages of all sources. SourceError."""
    read = [moment for source in sources for moment in source.moments_of()]
    made = [source for source in read if source.hash]
    if not made:
        return
    if exact:
        raise SourceError(f"{made[0].name}: there are no bytes of pages in it, and --exact needs them")
    own = hashed(key_name(key) if key else "")
    first = made[0]
    others = [(source.name, source.hash or own) for source in read] + ([("--key", own)] if key else [])
    for name, hash in others:
        if hash != first.hash:
            raise SourceError(f"{first.name} has fingerprints of {first.hash}, {name} of {hash}: these cannot be compared")


def add_zeros(counters: dict[str, Any], profit: str, zeros: int) -> None:
    """Count pages for which the running kernel's KSM has given its zero page, where the era counts such pages."""
    if "ksm_zero_pages" in counters:
        counters["ksm_zero_pages"] += zeros
        counters[profit] += zeros * PAGE_SIZE


class Scan:
    """Sources in a machine of an era. The sources stay the caller's to close."""

    keeps_states = False  # whether `states` has what became of each page: for each source, a stretch for each part of its page tables

    def __init__(
        self,
        sources: list[Source],
        *,
        settings: Mapping[str, str] | None = None,
        era: Era = ERA,
        exact: bool | None = None,
        key: bytes | None = None,
        threads: int | None = None,
        zeros: Zeros = "count",
        project: int = 0,
        progress: Progress = no_progress,
    ) -> None:
        self.sources = list(sources)
        self.zeros = zeros
        self.project = project
        self.era = era
        self.progress = progress
        self.left: list[str] = []  # why sources were left out
        self.skipped = 0
        self.period = 1  # passes after which the memory is the same again
        self.changed = 0, 0  # in the last reading: merged pages, and how many of them were written to
        self.key = key
        check_together(sources, exact, key)
        threads = threads or usable_threads()
        for source in sources:
            source.threads = threads
            source.same_checksums = era != ERA and not key and any(each.hash for each in sources)
        self.families = self.families_of()
        self.machine = self.make_machine(exact, min(threads, 256))
        try:
            apply_settings(self.machine, settings or {})
        except SettingError:
            self.machine.close()
            raise

    def families_of(self) -> list[Family]:
        return families_of(self.sources)

    def make_machine(self, exact: bool | None, threads: int) -> Machine:
        if exact is None:
            exact = mapped_at_once(self.sources) and self.key is None
        return make_machine(self.sources, self.era, exact=exact, key=self.key, threads=threads)

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *_: object) -> None:
        self.machine.close()

    @property
    def live(self) -> bool:
        return any(source.live for source in self.sources)

    def run(self, passes: int | None = None, interval: float | None = None, budget: float = BUDGET) -> Result:
        """Make `passes` passes, or as many as it takes until nothing changes. Each takes no time; files are scanned without waiting.

        Live sources are read as often as ksmd would come round at the machine's knobs, if that takes no more than `budget` seconds, or else
        more often; or every `interval` seconds.
        """
        if interval is None and not self.live:
            interval = 0.0
        most = passes or (MOST_PASSES_LIVE if self.live else MOST_PASSES)
        pace = pace_of(self.machine)
        watch: Watch | None = None
        seconds: list[float] = []  # that ksmd takes for each pass
        history: list[dict[str, float]] = []
        zeros = self.spawn_zeros() if passes is None and self.live else None
        states: list[list[int]] = []
        number = merged = broken = 0
        settled = False
        while number < most and not (settled and passes is None and number >= LEAST_PASSES):
            if watch is not None and number > len(watch.waits) and not watch.may_go_on():
                break
            if number:
                self.wait(watch.next() if watch is not None else interval or 0.0, number)
            merged, broken = self.merged(), self.broken()
            if watch is not None:
                watch.reads()
            began = time.monotonic()
            self.read(number)
            broken = self.broken() - broken
            self.changed = merged, broken
            if zeros is not None and (number == ZEROS_NEEDED or not self.machine.vmstat()["thp_fault_alloc"]):
                zeros.exit()
                zeros = None
            number += 1
            seconds.append(pace.seconds(self.scan(number)))
            if watch is None and interval is None:
                watch = Watch(seconds[0], budget, passes, LEAST_PASSES, began)
            state = [*(self.counter(name) for name in PASS_STATE), self.uncounted()]
            settled = len(states) >= self.period and state == states[-self.period]
            states.append(state)
            history.append({"seconds": round(seconds[-1], 3), **{name: self.counter(name) for name in HISTORY}})
        result = self.result(number, settled, seconds[: -self.period if settled else None])._replace(history=history)
        if watch is not None:
            doubts = [doubt_of_hurry(result.ledger.freed, merged, broken, watch, pace)]
            if self.counter("smart_scan"):
                doubts.append(doubt_of_skips(result.ledger.freed, merged, broken, watch))
            result.doubts.extend(doubt for doubt in doubts if doubt is not None)
        return result

    def spawn_zeros(self) -> Process | None:
        """A process with two pages of zeros, which are merged before any others are.

        The kernel splits one huge page of zeros in a pass, as long as no small page of zeros is merged: of the next one, a search meets the
        item of a part of the first, which has no page any more, and gives up. A scan says how it ends. It has no time for so many passes.
        """
        if self.counter("use_zero_pages"):
            return None
        process = new_process(self.machine, "pages of zeros")
        addr = process.mmap(2 * PAGE_SIZE)
        process.update(addr, bytes(2 * PAGE_SIZE), always=True)
        return process

    def uncounted(self) -> int:
        """Pages of the sources, if KSM lets pages of zeros become the zero page and does not count them: their number shows in it."""
        if not self.counter("use_zero_pages") or "ksm_zero_pages" in self.machine.ksm.names():
            return 0
        return sum(source.process.rss() for source in self.sources if source.process is not None)

    def merged(self) -> int:
        """Pages that are merged, or have become the zero page."""
        return sum(self.counter(name) for name in ("pages_shared", "pages_sharing", "ksm_zero_pages"))

    def broken(self) -> int:
        """How often a merged page has been written to."""
        return self.machine.vmstat()["cow_ksm"] - self.counter("ksm_zero_pages")

    def wait(self, seconds: float, number: int) -> None:
        if seconds > 0:
            self.progress(f"waiting {spell(seconds)} after pass {number}", 0, 0)
            time.sleep(seconds)

    def read(self, number: int) -> None:
        """Map the memory of all sources, or later read what has changed. A process that cannot be read is left out."""
        what = "reading" if number else "mapping"
        for family in self.families:
            self.progress("comparing the frames of processes", 0, 0)
            if number:
                family.look()
            else:
                family.build(self.machine)
        for place, source in enumerate(list(self.sources)):
            self.progress(f"{what} {source.name}", place, len(self.sources))
            try:
                if number:
                    source.refresh(number)
                else:
                    source.attach(self.machine)
                if self.zeros == "apart" and not source.zeros_are_real and number < max(1, source.snapshots):
                    self.set_zeros_apart(source)
            except SourceError as error:
                # One process among many must not end the whole scan, whether it has gone or grown too large. An error of a file ends it:
                # the file will not get better, and the user should know first.
                if len(self.sources) == 1 or not source.live:
                    raise
                self.left.append(str(error))
                if isinstance(source, LiveSource) and not isinstance(error, SourceGone):
                    source.host.whole = False  # it goes on, and may keep frames
                self.sources.remove(source)
                if source.process is not None:
                    source.process.exit()

    def set_zeros_apart(self, source: Source) -> None:
        source.set_zeros_apart(self.machine)

    def look_back(self, source: Source, merged: MergedFrames) -> None:
        """See Source.look_back()."""
        source.look_back(merged)

    def merged_frames(self) -> int:
        """Frames in which the running kernel's KSM has merged pages."""
        return merged_frames()

    def scan(self, number: int) -> int:
        """One pass of KSM over everything: how many pages it looked at."""
        skipped = self.counter("pages_skipped")
        total = sum(source.process.rss() for source in self.sources if source.process is not None)
        scanned = 0
        done = False
        while not done:
            done = self.machine.ksm.scan(pages=BATCH)
            scanned += BATCH
            self.skipped = self.counter("pages_skipped") - skipped
            self.progress(f"pass {number}", min(scanned + self.skipped, total), total)
            pause()
            if self.machine.lost_pages():
                raise SourceError("a memory image cannot be read any more: it has been truncated, or its disk has failed")
        return max(0, total - self.skipped)

    def counter(self, name: str) -> int:
        """A file of /sys/kernel/mm/ksm; 0 where the era does not have it, because what it counts does not happen there."""
        value: int = getattr(self.machine.ksm, name, 0)
        return value

    def result(self, passes: int, settled: bool, seconds: Sequence[float] = ()) -> Result:
        tally = Tally(self.machine, owners=bool(self.project))
        self.states: list[list[Stretch]] = []
        unmerged = sum(family.count() for family in self.families)
        shared = 0
        results = []
        merged = MergedFrames()
        tally.note_items()
        for source in self.sources:
            assert source.process is not None
            tally.next_source()
            pages = 0
            stretches: list[Stretch] = []
            for start, words in source.page_tables():
                shared += source.repeat(start, words)
                states = bytearray(len(words)) if self.keeps_states else None
                pages += tally.add(words, states)
                if states is not None:
                    stretches.append(Stretch(start, states))
            self.states.append(stretches)
            still = source.still and not source.live
            stat = source.process.ksm_stat()
            if stat:
                stat.setdefault("ksm_merging_pages", source.process.ksm_merging_pages)
            # What is the kernel's zero page by KSM is no page that could be read. It is one that KSM has freed.
            self.look_back(source, merged)
            source.count_outside()
            standing = source.standing
            pages += standing.zeros
            standing.pinned = min(standing.pinned, pages)
            add_zeros(stat, "ksm_process_profit", standing.zeros)
            results.append(SourceResult(source.name, source.kind, pages, stat, source.holes, source.zero_holes, still, source.zeros))
        counters = self.machine.ksm.attributes()
        standings = [source.standing for source in self.sources]
        zeros = sum(standing.zeros for standing in standings)
        add_zeros(counters, "general_profit", zeros)
        total = sum(source.pages for source in results) - shared
        ledger = make_ledger(self.era, pages=total, zeros=zeros, tally=tally, slabs=self.machine.slabinfo())
        already = already_freed(standings, self.merged_frames())
        return Result(
            era=self.era,
            ksm=counters,
            sources=results,
            savings=Savings(ledger.zero + ledger.split, ledger.within, ledger.across),
            ledger=ledger,
            already=already,
            passes=passes,
            settled=settled,
            skipped=self.skipped,
            live=self.live,
            notes=self.left_notes() + self.common_notes(shared, ledger.split) + self.pin_notes(),
            source_notes=[(source.name, note) for source in self.sources for note in source.notes],
            snapshots=max((source.snapshots for source in self.sources), default=0),
            doubts=doubts_of(standings, already, outside=sum(family.outside for family in self.families), whole=self.whole),
            projection=self.projection(results, tally) if self.project else None,
            pace=pace_of(self.machine),
            seconds=[*seconds],
            shared=shared,
            again=unmerged,
        )

    def projection(self, sources: list[SourceResult], tally: Tally) -> Projection | None:
        """What further machines like these add; None where there is one source left, of which nothing can be said."""
        shares = [Share(source.pages, *own) for source, own in zip(sources, tally.own(), strict=True)]
        return project(shares, self.project, SIZES[self.era]) if len(shares) >= LEAST_SOURCES else None

    def left_notes(self) -> list[str]:
        """Notes on sources that were left out during the scan; of many sources, only their number."""
        if len(self.left) > MOST_LINES:
            return [f"skipped {len(self.left):,} processes that exited, grew too large or became unreadable during the scan"]
        return [f"skipped {reason}" for reason in self.left]

    def common_notes(self, shared: int, split: int) -> list[str]:
        """Notes on all sources together: processes share so many pages, and so many zeros were given up when huge pages were split."""
        left_out = sum(source.shared for source in self.sources)
        notes = []
        if self.project and len(self.sources) < LEAST_SOURCES:
            notes.append("nothing can be said of further machines (--project): there is one source left, and it takes two")
        if shared:
            notes.append(
                f"{shared:,} pages that processes share since a fork are one copy already, and count once; each source has them all"
            )
        if left_out:
            notes.append(
                f"{left_out:,} pages that processes share since a fork are in the fingerprints of one of them: KSM would count them all"
            )
        if lost := sum(family.lost for family in self.families):
            notes.append(f"{lost:,} pages that processes share count as copies: no order of forks and writes leads to what they share")
        if split and self.live and not self.counter("use_zero_pages"):
            notes.append(
                f"{split:,} pages of zeros are parts of huge pages: until a small page of zeros is merged, ksmd splits one of these huge"
                " pages in a pass, or in nine with smart_scan, and takes longer than is said here"
            )
        if mthp := sum(source.mthp for source in self.sources):
            notes.append(
                f"{mthp:,} pages are in large folios of other sizes than 2 MiB, and count as small ones: when KSM splits these, parts of"
                " zeros are freed that no counter shows"
            )
        return notes

    @property
    def whole(self) -> bool:
        """Whether all processes of this computer are in the scan, but for those that have exited."""
        return all(isinstance(source, LiveSource) and source.host.whole for source in self.sources)

    def pin_notes(self) -> list[str]:
        """Notes on what is held, and on processes that pin memory without saying how much."""
        notes = []
        if held := sum(source.standing.held for source in self.sources):
            notes.append(f"{held:,} pages are registered with io_uring, which holds them: they do not merge")
        for source in self.sources:
            if source.standing.device:
                notes.append(f"{source.name} drives a device by VFIO, which pins its memory: what is locked counts as pinned")
        return notes

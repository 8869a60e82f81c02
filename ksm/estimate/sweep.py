# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it has one setting at a time.
"""What KSM would save with other settings: the same memory, merged by a machine for each of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, NamedTuple

from ksm.constants import PAGE_SIZE
from ksm.estimate.cost import measured
from ksm.estimate.doubt import Doubt, Freed
from ksm.estimate.eras import ERA
from ksm.estimate.ledger import Ledger
from ksm.estimate.pace import Pace, lost_in, spell
from ksm.estimate.replay import Reader, Replay, fitting
from ksm.estimate.scan import Progress, Result, no_progress
from ksm.estimate.settings import SettingError, apply_settings, check_settings
from ksm.estimate.terminal import amount
from ksm.estimate.tuners import Knobs, Ksmtuned, Still, Timing, Tuner, timing
from ksm.host.memory import total_memory
from ksm.machine import ERAS, Machine
from ksm.sources import SourceError
from ksm.sources.work import usable_threads

if TYPE_CHECKING:
    from ksm.machine import _Era as Era

MOST_ROWS = 1000
PERFECT = {"max_page_sharing": str((1 << 31) - 1), "use_zero_pages": "1", "smart_scan": "0"}
PACE = ("pages_to_scan", "sleep_millisecs")
MORE = 10  # passes after the last one, in which the advisor may find its pace
LOOK = 0.2  # seconds between two looks at whether to stop
NEAR = 0.99  # of the most that is saved: worth as much

# What is varied if nobody says what: each by itself
USUAL: dict[str, tuple[str, ...]] = {
    "pages_to_scan": ("1000", "5000"), "use_zero_pages": ("1",), "max_page_sharing": ("1024",), "smart_scan": ("0",),
}  # fmt: skip


class Setting(NamedTuple):
    """A row to be: its name, the knobs, the era, and who sets them while ksmd runs."""

    name: str
    settings: dict[str, str]
    era: Era
    tuner: Tuner | None = None


class Row(NamedTuple):
    """What KSM would save with one setting.

    name          the setting, as the table shows it
    settings      the knobs, by name
    era           whose KSM it is
    ledger        where the pages went; see Ledger
    freed         pages that would be freed on top of what is freed already, at least and at most
    ksm           the files of /sys/kernel/mm/ksm after the last pass
    passes        until nothing changed any more, with the one that shows it
    settled       whether that was so
    seconds       that ksmd takes until then, without the passes that changed nothing; None if it looks at no page
    cpu_seconds   of these, on a processor
    cpu           ksmd's share of a processor from then on, 0 to 1
    reached       the share of Sweep.bound that is freed, 0 to 1
    curve         after each pass: seconds since ksmd began, and the pages that pages_sharing and ksm_zero_pages have
    best          why the row is marked; no reason for most
    """

    name: str
    settings: dict[str, str]
    era: str
    ledger: Ledger
    freed: Freed
    ksm: dict[str, Any]
    passes: int
    settled: bool
    seconds: float | None
    cpu_seconds: float
    cpu: float
    reached: float
    curve: list[tuple[float, int]]
    best: list[str]

    @property
    def saved(self) -> int:
        """Pages that the setting frees."""
        return self.ledger.freed


class Sweep(NamedTuple):
    """What KSM would save with several settings.

    rows       a Row for each setting
    bound      pages that would be freed if of all equal pages one were kept, and none of zeros
    pages      pages that there are
    cost       nanoseconds of a processor that ksmd takes for a page
    measured   whether that was measured, or else given
    notes      what else to know
    asked      how many rows there were to be: more than there are, if the sweep was interrupted
    """

    rows: list[Row]
    bound: int
    pages: int
    cost: float
    measured: bool
    notes: list[str]
    asked: int


def settings_of(
    vary: Mapping[str, Sequence[str]], base: Mapping[str, str], era: Era, *, rules: bool = True
) -> tuple[list[Setting], list[str]]:
    """The rows to be, and notes on what is left out. SettingError if nothing is left.

    `vary` has the values of each knob: all combinations are rows. `era` is a knob, too. Without any, each of USUAL is a row of its own.
    With `rules` the defaults, the advisor of the kernel and ksmtuned have a row each.
    """
    wanted: list[dict[str, str]] = []
    if "run" in vary:
        raise SettingError("run: ksmd runs for every row")
    for name, some in vary.items():
        if not some:
            raise SettingError(f"{name} has no value to try")
    if vary:
        wanted = [dict(zip(vary, values, strict=True)) for values in itertools.product(*vary.values())]
    else:
        wanted = [{name: value} for name, values in USUAL.items() for value in values]
    if len(wanted) > MOST_ROWS:
        raise SettingError(f"{len(wanted):,} settings are more than the {MOST_ROWS:,} that one sweep takes")
    result: list[Setting] = []
    refused: dict[str, None] = {}
    for values in wanted:
        of_era = era_of(values.get("era", era))
        knobs = ordered({**base, **{name: value for name, value in values.items() if name != "era"}})
        try:
            check(knobs, of_era)
        except SettingError as error:
            refused[f"era {of_era}: {error}" if of_era != ERA or "era" in vary else str(error)] = None
        else:
            result.append(Setting(", ".join(f"{name}={value}" for name, value in values.items()), knobs, of_era))
    if not result or (refused and not vary.get("era") and vary):
        raise SettingError(next(iter(refused)))
    if rules:
        result += rules_of(base, era, [setting.settings for setting in result])
    return result, [f"left out: {reason.partition('; there are ')[0]}" for reason in refused] if vary else []


def era_of(text: str) -> Era:
    for era in ERAS:
        if era == text:
            return era
    raise SettingError(f"era={text}: there are {', '.join(ERAS)}")


def ordered(knobs: dict[str, str]) -> dict[str, str]:
    """The advisor's mode last: from then on it sets what others have set."""
    return dict(sorted(knobs.items(), key=lambda knob: knob[0] == "advisor_mode"))


def check(knobs: Mapping[str, str], era: Era) -> None:
    """SettingError for a setting that KSM refuses, or with which it looks at no page."""
    check_settings(knobs, era)
    if knobs.get("pages_to_scan", "").strip() == "0" and "advisor_mode" not in knobs:
        raise SettingError("pages_to_scan=0: ksmd looks at no page")


def rules_of(base: Mapping[str, str], era: Era, others: list[dict[str, str]]) -> list[Setting]:
    """The defaults, the advisor and ksmtuned, where they are no rows already, and the era has them."""
    paced = {name: value for name, value in base.items() if name not in ("pages_to_scan", "sleep_millisecs")}
    found = []
    if dict(base) not in others:
        found.append(Setting("as set with --set" if base else "defaults", dict(base), era))
    if not any("advisor_mode" in other for other in others):
        advised = ordered({**paced, "advisor_mode": "scan-time"})
        try:
            check_settings(advised, era)
            found.append(Setting("advisor_mode=scan-time", advised, era))
        except SettingError:
            pass  # the era has no advisor
    still = {name: value for name, value in paced.items() if not name.startswith("advisor_")}
    total = total_memory()
    found.append(Setting("ksmtuned, memory short", still, era, Ksmtuned(True, total)))
    found.append(Setting("ksmtuned, memory free", still, era, Ksmtuned(False, total)))
    return found


class Done(NamedTuple):
    """A row that is done: what a scan says, and how long ksmd takes for each pass."""

    result: Result
    timing: Timing
    replay: Replay


class Sweeper:
    """Rows, made by several threads at the same time. Ctrl-C leaves those that are done: see sweep().

    Settings that differ only in ksmd's pace merge the same pages in the same passes, unless memory changes and there are chains: how long a
    chain is left alone is the only time in KSM that decides anything. So such settings have one machine.
    """

    def __init__(self, reader: Reader, settings: Sequence[Setting], *, cost: float | None, threads: int | None = None) -> None:
        """cost    nanoseconds that ksmd takes for a page; it is measured if that is not known"""
        self.reader = reader
        self.settings = list(settings)
        self.threads = fitting(reader, threads or usable_threads())
        pages = sum(source.copied + source.mapped for source in reader.sources) // PAGE_SIZE
        self.measured = cost is None
        self.cost = measured(pages) if cost is None else cost / 1e9
        self.stopping = False
        self.found: dict[int, Done] = {}
        self.bound: Result | None = None

    def run(self, progress: Progress = no_progress) -> Sweep:
        """Make all rows. KeyboardInterrupt passes through, when the threads have ended."""
        groups: dict[Any, list[int]] = {}
        for number, setting in enumerate(self.settings):
            groups.setdefault(alike(setting, number), []).append(number)
        with ThreadPoolExecutor(self.threads, "ksm-sweep") as pool:
            jobs: dict[Future[Done], list[int]] = {pool.submit(self.one, perfect()): []}
            jobs.update({pool.submit(self.one, self.settings[group[0]]): group for group in groups.values()})
            later: list[list[int]] = []
            try:
                while jobs:
                    for job in wait(jobs, timeout=LOOK, return_when=FIRST_COMPLETED).done:
                        numbers = jobs.pop(job)
                        if isinstance(job.exception(), SourceError) and jobs:
                            # Others have taken the memory that it needs: when these are done, it is tried once more.
                            later.append(numbers)
                            continue
                        first, *others = numbers or [-1]
                        done = job.result()
                        if first < 0:
                            self.bound = done.result
                            continue
                        self.found[first] = done
                        for number in others:
                            if any(self.reader.turns) and done.replay.chains:
                                jobs[pool.submit(self.one, self.settings[number])] = [number]
                            else:
                                self.found[number] = self.as_well(done, self.settings[number])
                    while later and len(jobs) < self.threads:
                        numbers = later.pop()
                        jobs[pool.submit(self.one, self.settings[numbers[0]] if numbers else perfect())] = numbers
                    progress("settings", len(self.found), len(self.settings))
            finally:
                self.stopping = True
                pool.shutdown(wait=True, cancel_futures=True)
        return self.sweep()

    def one(self, setting: Setting) -> Done:
        replay = Replay(
            self.reader, settings=setting.settings, era=setting.era, cost=self.cost, knobs=setting.tuner,
            perfect=setting.name == PERFECTLY, stop=lambda: self.stopping,
        )  # fmt: skip
        with replay:
            result = replay.run(interval=0.0)
            if "advisor_mode" in setting.settings:
                replay.go_on(result.passes, MORE)
                return Done(result, replay.timing, replay)
            return Done(result, timing(replay.looked, setting.tuner or Still(*replay.knobs.at(0.0)), self.cost), replay)

    def as_well(self, done: Done, setting: Setting) -> Done:
        """A setting that does as another one, at another pace."""
        with Machine(memory=1 << 16, max_memory=1 << 16, era=setting.era) as machine:
            apply_settings(machine, setting.settings)
            knobs = {name: getattr(machine.ksm, name) for name in PACE}
            still = Still(*Knobs(machine).at(0.0))
        result = done.result._replace(ksm={**done.result.ksm, **knobs}, pace=Pace(*still))
        return Done(result, timing(done.replay.looked, setting.tuner or still, self.cost), done.replay)

    def sweep(self) -> Sweep:
        """What is done so far."""
        bound = self.bound.ledger.freed if self.bound is not None else 0
        rows = [self.row(self.settings[number], self.found[number], bound) for number in sorted(self.found)]
        results = [self.found[number].result for number in sorted(self.found)] + ([self.bound] if self.bound is not None else [])
        notes = self.notes(results)
        return Sweep(
            rows=marked(rows), bound=bound, pages=results[0].ledger.pages if results else 0, cost=round(self.cost * 1e9, 1),
            measured=self.measured, notes=notes, asked=len(self.settings),
        )  # fmt: skip

    def row(self, setting: Setting, done: Done, bound: int) -> Row:
        result, replay, (took, busy) = done.result, done.replay, done.timing
        until = result.passes - (replay.period if result.settled else 0)
        doubt = self.doubt_of_pace(took[-1], replay, result)
        looks = setting.tuner is not None or result.pace.pages or result.pace.target
        seconds = round(sum(took[:until]), 3) if looks else None
        freed = result._replace(doubts=[*result.doubts, *([doubt] if doubt else [])]).freed
        return Row(
            name=setting.name, settings=setting.settings, era=setting.era, ledger=result.ledger, freed=freed, ksm=result.ksm,
            passes=result.passes, settled=result.settled, seconds=seconds, cpu_seconds=round(sum(busy[:until]), 3),
            cpu=busy[-1] / took[-1] if took[-1] and looks else 0.0, reached=result.ledger.freed / bound if bound else 0.0,
            curve=list(zip(itertools.accumulate(took), replay.saved, strict=True)), best=[],
        )  # fmt: skip

    def doubt_of_pace(self, visit: float, replay: Replay, result: Result) -> Doubt | None:
        """What may change between two visits of ksmd, if these are further apart than the two readings."""
        if not self.reader.apart or visit <= self.reader.apart:
            return None
        fewer = lost_in(visit / self.reader.apart, result.ledger.freed, *replay.changed)
        return Doubt(fewer, 0, "pages may change between two visits of ksmd")

    def notes(self, results: Sequence[Result]) -> list[str]:
        notes = []
        if self.reader.live:
            notes.append(
                f"processes were read twice, {spell(self.reader.apart)} apart, and each row has these two readings: a page that differs"
                " counts as volatile; what may change besides until ksmd comes again makes a range"
            )
        if any(source.still for source in self.reader.sources) and not self.reader.live:
            notes.append("a still image overstates: pages that a running machine keeps writing to would not stay merged")
        for result in results[:1]:
            notes += [doubt.why for doubt in result.doubts] + result.notes
        return notes


PERFECTLY = ""  # the name of the setting that is none


def perfect() -> Setting:
    """What merges all that is equal."""
    return Setting(PERFECTLY, PERFECT, ERA)


def alike(setting: Setting, number: int) -> Any:
    """The same for settings that differ only in ksmd's pace. The advisor sets it by what it sees, so its rows are not like others."""
    if "advisor_mode" in setting.settings:
        return number
    return setting.era, tuple(sorted((name, value) for name, value in setting.settings.items() if name not in PACE))


def marked(rows: list[Row]) -> list[Row]:
    """The rows, the best few with a reason. Of rows that are as good, the one that changes least is the best."""
    able = [row for row in rows if row.saved > 0 and row.seconds is not None]
    if len(able) < 2:
        return rows
    reasons: dict[int, list[str]] = {}

    def mark(rows: list[Row], figure: Callable[[Row], float], reason: Callable[[Row], str], among: str = "") -> None:
        best, others = lowest(rows, figure)
        as_good = f", as {others} others" if others > 1 else ", as one other" if others else ""
        reasons.setdefault(id(best), []).append(reason(best) + as_good + among)

    mark(able, loss, lambda row: f"the most profit, {amount(row.ledger.profit)}")
    as_much = [row for row in able if row.saved >= NEAR * max(each.saved for each in able)]
    if len(as_much) > 1:
        among = "" if len(as_much) == len(able) else ", of those that save as much to within 1 %"
        if settled := [row for row in as_much if row.settled]:
            mark(settled, lambda row: row.seconds or 0.0, lambda row: f"settles soonest, after {spell(row.seconds or 0.0)}", among)
        mark(as_much, lambda row: row.cpu, lambda row: f"takes the least of a processor, {share(row.cpu)}", among)
    return [row._replace(best=reasons.get(id(row), [])) for row in rows]


def loss(row: Row) -> float:
    return -row.ledger.profit


def lowest(rows: Sequence[Row], figure: Callable[[Row], float]) -> tuple[Row, int]:
    """The row whose figure is lowest, and how many others are as good: to a thousandth. Of these it is the one that changes least."""
    least = min(map(figure, rows))
    good = [row for row in rows if figure(row) - least <= abs(least) / 1000]
    return min(good, key=lambda row: len(row.settings)), len(good) - 1


def most_profit(rows: Sequence[Row]) -> Row:
    return lowest(rows, loss)[0]


def share(part: float) -> str:
    """A share of a processor for a person."""
    return f"{100 * part:.0f} %" if part >= 0.1 else f"{100 * part:.1f} %" if part >= 0.0005 else "under 0.1 %"

# SPDX-License-Identifier: GPL-2.0-only
"""A sweep: each row is what a scan with that setting finds, on a clock that goes as ksmd would."""


import pytest

from ksm.estimate import cost, sweep_report
from ksm.estimate.replay import Reader, Replay
from ksm.estimate.scan import Scan
from ksm.estimate.settings import SettingError
from ksm.estimate.sweep import USUAL, Sweeper, marked, settings_of
from ksm.estimate.tuners import Ksmtuned
from ksm.sources import SourceError, SourceGone, open_file

from .test_scan import PAGE, Changing, page, write_image

COST = 1000.0  # ns


@pytest.fixture
def images(tmp_path):
    """Two images: zeros, 40 and 30 copies of contents, 2 of others, and pages that are alone."""
    first = [0] * 20 + [1] * 40 + [2] * 30 + [*range(100, 150)] + [*range(100, 120)]
    second = [0] * 10 + [1] * 25 + [*range(100, 130)] + [*range(300, 340)]
    return [write_image(tmp_path / "first", first), write_image(tmp_path / "second", second)]


@pytest.fixture
def opened():
    """A function that opens sources. They are closed with the test."""
    sources = []

    def opened(paths):
        sources.extend(open_file(path) for path in paths)
        return sources[-len(paths) :]

    yield opened
    for source in sources:
        source.close()


def sweep(reader, vary, *, cost=COST, rules=False, threads=None):
    rows, _ = settings_of(vary, {}, "6.12", rules=rules)
    return Sweeper(reader, rows, cost=cost, threads=threads).run()


def swept(sources, vary, **options):
    with Reader(sources, interval=0.0) as reader:
        return sweep(reader, vary, **options)


@pytest.mark.parametrize("zeros", ["count", "apart"])
def test_each_row_is_a_scan(images, opened, zeros):
    vary = {"max_page_sharing": ["2", "8", "256"], "use_zero_pages": ["0", "1"], "smart_scan": ["0", "1"]}
    with Reader(opened(images), zeros=zeros) as reader:
        found = sweep(reader, vary, threads=2)
    assert len(found.rows) == found.asked == 12
    for row in found.rows:
        with Scan(opened(images), settings=row.settings, zeros=zeros) as scan:
            result = scan.run()
        assert (row.ledger, row.passes, row.settled) == (result.ledger, result.passes, True), row.name
        assert row.freed == result.freed
        assert {name: value for name, value in row.ksm.items() if name != "pages_scanned"} == {
            name: value for name, value in result.ksm.items() if name != "pages_scanned"
        }


def test_each_row_of_an_era_is_a_scan(images, opened):
    found = swept(opened(images), {"era": ["6.12", "6.1", "2.6.38"]})
    assert [row.era for row in found.rows] == ["6.12", "6.1", "2.6.38"]
    for row in found.rows:
        with Scan(opened(images), era=row.era) as scan:
            assert scan.run().ledger == row.ledger


def test_what_perfect_deduplication_would_free(images, opened):
    contents = [0] * 30 + [1] * 65 + [2] * 30 + [*range(100, 150)] + [*range(100, 120)] + [*range(100, 130)] + [*range(300, 340)]
    perfect = len(contents) - len(set(contents) - {0})
    found = swept(opened(images), {"use_zero_pages": ["0", "1"], "max_page_sharing": ["2", "256"]})
    assert (found.bound, found.pages) == (perfect, len(contents))
    rows = {row.name: row for row in found.rows}
    assert rows["use_zero_pages=1, max_page_sharing=256"].reached == 1.0
    assert rows["use_zero_pages=0, max_page_sharing=256"].reached == (perfect - 1) / perfect
    assert 0 < rows["use_zero_pages=0, max_page_sharing=2"].reached < 0.7


def test_the_clock_goes_as_ksmd_would(tmp_path, opened):
    """100 pages every 20 ms are 5,000 a second: 4,000 pages take 0.8 s a pass, and what the pages themselves take."""
    path = write_image(tmp_path / "image", range(1, 4001))
    found = swept(opened([path]), {"pages_to_scan": ["100", "1000"], "sleep_millisecs": ["20", "200"]})
    for row in found.rows:
        sleeps = 4000 / int(row.settings["pages_to_scan"]) * int(row.settings["sleep_millisecs"]) / 1000
        assert (row.passes, row.settled) == (3, True)
        assert row.seconds == pytest.approx(2 * (sleeps + 4000 * COST / 1e9), abs=0.002)
        assert row.cpu == pytest.approx(4000 * COST / 1e9 / (sleeps + 4000 * COST / 1e9), rel=0.01)
        assert row.cpu_seconds == pytest.approx(2 * 4000 * COST / 1e9, abs=0.001)
        assert [seconds for seconds, _ in row.curve] == pytest.approx([row.seconds / 2 * (number + 1) for number in range(3)], abs=0.003)
    assert {row.saved for row in found.rows} == {0}


def test_knobs_that_take_longer_than_a_clock_counts(tmp_path, opened):
    """A page every 50 days."""
    path = write_image(tmp_path / "image", [*range(1, 3000), 5])
    slow = {"pages_to_scan": ["1"], "sleep_millisecs": ["4294967295"], "advisor_mode": ["none", "scan-time"]}
    found = swept(opened([path]), slow)
    for row in found.rows:
        assert row.settled
        assert row.seconds > 3000 * 4294967 / 500
    assert max(len(line) for line, _ in sweep_report.lines(found, 80)) <= 80


def test_the_advisor_sets_the_pace(tmp_path, opened):
    """It begins with 500 pages at once. A pass that takes no second has a share of a processor of less than one percent, and so may take
    ten times as many pages the next time: see scan_time_advisor() of mm/ksm.c."""
    path = write_image(tmp_path / "image", range(1, 2001))
    found = swept(opened([path]), {"advisor_mode": ["scan-time"]})
    [row] = found.rows
    times = [now - before for (now, _), (before, _) in zip(row.curve, [(0.0, 0), *row.curve], strict=False)]
    assert times[:3] == pytest.approx([2000 / pages * 0.02 + 0.002 for pages in (500, 5000, 30000)], rel=0.05)
    assert row.ksm["pages_to_scan"] == 30000


def test_ksmtuned():
    """300 pages more each minute up to 1,250, or never more than 64. 10 ms on a host of 16 GiB, and longer on smaller ones."""
    short, free = Ksmtuned(True, 16 << 30), Ksmtuned(False, 4 << 30)
    assert [short.at(seconds) for seconds in (0, 59, 60, 120, 180, 240, 1e9)] == [
        (pages, 0.01) for pages in (300, 300, 600, 900, 1200, 1250, 1250)
    ]
    assert [free.at(seconds) for seconds in (0, 1e9)] == [(64, 0.04)] * 2
    assert Ksmtuned(True, 1 << 40).at(0) == (300, 0.01)


def test_rules_are_rows(images, opened):
    names = [row.name for row in swept(opened(images), {"pages_to_scan": ["500"]}, rules=True).rows]
    assert names == ["pages_to_scan=500", "defaults", "advisor_mode=scan-time", "ksmtuned, memory short", "ksmtuned, memory free"]
    settings, notes = settings_of({}, {}, "6.1")
    assert [setting.name for setting in settings[-3:]] == ["defaults", "ksmtuned, memory short", "ksmtuned, memory free"]
    assert (len(settings), notes) == (sum(map(len, USUAL.values())) - 1 + 3, [])  # 6.1 has no smart_scan


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        ({"nothing": ["1"]}, "KSM has no nothing"),
        ({"pages_shared": ["1"]}, "pages_shared can only be read"),
        ({"max_page_sharing": ["256", "1"]}, "max_page_sharing=1: Invalid argument"),
        ({"pages_to_scan": ["0"]}, "pages_to_scan=0: ksmd looks at no page"),
        ({"era": ["6.12", "5.0"]}, "era=5.0: there are "),
        ({"era": ["6.1"], "smart_scan": ["0", "1"]}, "era 6.1: KSM has no smart_scan"),
        ({"sleep_millisecs": list(map(str, range(1001)))}, "1,001 settings are more than the 1,000"),
    ],
)
def test_settings_that_cannot_be(vary, said):
    with pytest.raises(SettingError, match=said.replace("(", r"\(")):
        settings_of(vary, {}, "6.12")


def test_knobs_with_which_ksmd_looks_at_no_page(images, opened):
    """They are no row that is asked for. Where they are those of all rows, the row of them never settles, and others set the knob."""
    settings, _ = settings_of({"sleep_millisecs": ["10"], "pages_to_scan": ["50"]}, {"pages_to_scan": "0"}, "6.12")
    with Reader(opened(images)) as reader:
        rows = {row.name: row for row in Sweeper(reader, settings, cost=COST).run().rows}
    idle = rows["as set with --set"]
    assert (idle.seconds, idle.cpu, idle.best) == (None, 0.0, [])
    assert rows["sleep_millisecs=10, pages_to_scan=50"].seconds > 0
    assert rows["ksmtuned, memory free"].seconds > 0
    text = [line for line, _ in sweep_report.table(sweep(reader, {"smart_scan": ["0"]})._replace(rows=[idle]), 80)]
    assert "never" in text[1]


def test_a_knob_that_an_era_has_not():
    settings, notes = settings_of({"era": ["6.12", "6.1", "2.6.38"], "use_zero_pages": ["0", "1"]}, {}, "6.12", rules=False)
    assert [(setting.era, setting.settings) for setting in settings] == [
        ("6.12", {"use_zero_pages": "0"}), ("6.12", {"use_zero_pages": "1"}), ("6.1", {"use_zero_pages": "0"}),
        ("6.1", {"use_zero_pages": "1"}),
    ]  # fmt: skip
    assert notes == ["left out: era 2.6.38: KSM has no use_zero_pages"]


def test_the_advisor_comes_last():
    """From then on pages_to_scan cannot be set: EINVAL."""
    base = {"advisor_min_pages_to_scan": "700", "pages_to_scan": "300"}
    [setting], _ = settings_of({"advisor_mode": ["scan-time"]}, base, "6.12", rules=False)
    assert list(setting.settings)[-1] == "advisor_mode"


def test_processes_are_read_twice_for_all_rows():
    """20 pages change between the readings. They are volatile in each pass of each row, and nothing is read any more."""
    source = Changing()
    read = []
    refresh = source.refresh
    source.refresh = lambda number: (read.append(number), refresh(number))
    found = swept([source], {"smart_scan": ["0", "1"], "max_page_sharing": ["2", "256"]})
    assert read == [0, 1]
    for row in found.rows:
        with Scan([Changing()], settings=row.settings) as scan:
            result = scan.run(interval=0)
        assert row.ledger == result.ledger
        assert (row.settled, row.ledger.volatile) == (True, 20)


def test_a_pace_that_decides(monkeypatch):
    """Where memory changes and there are chains, settings that differ in ksmd's pace have a machine each; else they have one."""
    machines = []
    make = Replay.make_machine
    monkeypatch.setattr(Replay, "make_machine", lambda self, *args: (machines.append(1), make(self, *args))[1])
    paces = {"pages_to_scan": ["10", "100", "1000"]}
    for most, expected in (("2", 3), ("256", 1)):  # 20 pages are equal
        machines.clear()
        found = swept([Changing()], {"max_page_sharing": [most], **paces})
        assert len(machines) == expected + 1  # one is for what perfect deduplication would free
        assert len({row.ledger for row in found.rows}) == 1
        assert [row.ksm["pages_to_scan"] for row in found.rows] == [10, 100, 1000]


class ComesAndGoes(Changing):
    """20 pages in the first reading, of which the second one has 10, and 10 others, equal to those."""

    def refresh(self, number):
        if number == 0:
            self.process.update(self.addr, b"".join(page(place) for place in range(1, 21)))
        else:
            self.process.madvise(self.addr, 10 * PAGE, 4)
            self.process.update(self.addr + 20 * PAGE, b"".join(page(place) for place in range(11, 21)))


def test_pages_that_come_and_go_are_those_of_the_last_reading():
    found = swept([ComesAndGoes()], {"smart_scan": ["0"]})
    [row] = found.rows
    assert (row.ledger.pages, row.ledger.volatile, row.saved) == (20, 0, 10)
    assert found.bound == 10


class Grows(Changing):
    """40 pages, which the second reading has unmapped, and 40 others in a mapping that is new."""

    def refresh(self, number):
        if number:
            self.process.munmap(self.addr, 40 * PAGE)
            self.addr = self.process.mmap(40 * PAGE)
        self.process.update(self.addr, page(number + 1) * 40)


def test_mappings_that_come_between_the_readings():
    found = swept([Grows()], {"smart_scan": ["0", "1"], "advisor_mode": ["none", "scan-time"]})
    assert [row.saved for row in found.rows] == [39] * 4
    assert found.bound == 39


def test_a_process_that_exits_between_the_readings():
    images = [Changing(), Changing("other", end=1)]
    with Reader(images, interval=0.0) as reader:
        assert [source.name for source in reader.sources] == ["changing"]
        found = sweep(reader, {"smart_scan": ["0"]})
    assert found.rows[0].ledger.pages == 40
    assert any("other: gone" in note for note in found.notes)
    gone = Changing(end=1)
    with pytest.raises(SourceGone):
        Reader([gone], interval=0.0)


def test_memory_changes_between_the_visits_of_ksmd():
    """What was merged and changed between two readings may change as often as they fit between two visits."""

    class HalfMerged(Changing):
        def refresh(self, number):
            others = [] if number == 0 else [99, 100, 101, 102]
            self.process.update(self.addr, page(7) * (40 - len(others)) + b"".join(map(page, others)))

    with Reader([HalfMerged()], interval=0.05) as reader:
        found = sweep(reader, {"sleep_millisecs": ["1", "10000"]})
    fast, slow = found.rows
    assert fast.freed.least <= fast.freed.most == slow.freed.most
    assert slow.freed.least < fast.freed.most


def test_the_best_are_marked(images, opened):
    found = swept(opened(images), {"pages_to_scan": ["100", "1000"], "max_page_sharing": ["2", "256"]})
    best = {row.name: row.best for row in found.rows if row.best}
    assert list(best) == ["pages_to_scan=100, max_page_sharing=256", "pages_to_scan=1000, max_page_sharing=256"]
    assert best["pages_to_scan=100, max_page_sharing=256"][0].startswith("the most profit")
    assert "settles soonest" in best["pages_to_scan=1000, max_page_sharing=256"][0]
    assert marked(found.rows[:1]) == found.rows[:1]


def test_ctrl_c_leaves_what_is_done(images, opened):
    """A KeyboardInterrupt ends the threads within a batch, and the rows that are done stay."""

    def interrupt(what, done, total):
        if done >= 2:
            raise KeyboardInterrupt

    with Reader(opened(images)) as reader:
        settings, _ = settings_of({"max_page_sharing": [str(number) for number in range(2, 41)]}, {}, "6.12", rules=False)
        sweeper = Sweeper(reader, settings, cost=COST, threads=1)
        with pytest.raises(KeyboardInterrupt):
            sweeper.run(interrupt)
        found = sweeper.sweep()
    assert 2 <= len(found.rows) < 39 == found.asked
    assert next(sweep_report.lines(found, 80))[0].startswith("Interrupted: ")


def test_as_many_machines_as_threads(images, opened, monkeypatch):
    there = most = 0
    make, leave = Replay.make_machine, Replay.__exit__

    def making(self, *args):
        nonlocal there, most
        there += 1
        most = max(most, there)
        return make(self, *args)

    def leaving(self, *args):
        nonlocal there
        leave(self, *args)
        there -= 1

    monkeypatch.setattr(Replay, "make_machine", making)
    monkeypatch.setattr(Replay, "__exit__", leaving)
    swept(opened(images), {"max_page_sharing": [str(number) for number in range(2, 14)]}, threads=2)
    assert (there, most) == (0, 2)


def test_what_a_page_costs():
    """More pages cost more each; and it is measured, so it is some nanoseconds and no second."""
    few, many = cost.measured(1000), cost.measured(1 << 24)
    assert 1e-8 < few < many < 1e-3


def test_memory_that_others_have_taken(images, opened, monkeypatch):
    """A machine that finds no room while others are there is made when they are done. One that finds none alone is an error."""
    make = Replay.make_machine
    refused = []

    def making(self, *args):
        if len(refused) < 3:
            refused.append(1)
            raise SourceError("not enough memory")
        return make(self, *args)

    monkeypatch.setattr(Replay, "make_machine", making)
    found = swept(opened(images), {"max_page_sharing": ["2", "3", "4", "5", "6"]}, threads=2)
    assert (len(found.rows), found.bound > 0, len(refused)) == (5, True, 3)
    monkeypatch.setattr(Replay, "make_machine", lambda *_: (_ for _ in ()).throw(SourceError("not enough memory")))
    with pytest.raises(SourceError, match="not enough memory"):
        swept(opened(images), {"max_page_sharing": ["2", "3"]}, threads=2)


def test_narrow_terminals(images, opened):
    found = swept(opened(images), {}, rules=True)
    for width in (200, 80, 60, 40, 30):
        text = [line for line, _ in sweep_report.lines(found, width)]
        assert max(map(len, text)) <= width
    wide = "\n".join(line for line, _ in sweep_report.lines(found, 100))
    assert "passes" in wide
    assert "of all" in wide
    assert all(row.name in wide for row in found.rows)


@pytest.mark.parametrize("width", [40, 60, 80])
def test_rows_of_several_knobs_can_be_told_apart(images, opened, width):
    """A name that has no room in its column goes on in further lines, the figures stand in the last one."""
    vary = {"pages_to_scan": ["100", "1000"], "max_page_sharing": ["16", "256"], "use_zero_pages": ["0", "1"]}
    found = swept(opened(images), vary)
    text = [line for line, _ in sweep_report.lines(found, width)]
    begin, end = (number for number, line in enumerate(text) if not line)
    names = " ".join(line.removeprefix("*").split("  0.")[0].strip() for line in text[begin + 2 : end])
    assert " ".join(names.split()) == " ".join(row.name for row in found.rows)
    assert max(map(len, text)) <= width


def test_nothing_to_merge(tmp_path, opened):
    found = swept(opened([write_image(tmp_path / "image", range(1, 50))]), {"smart_scan": ["0", "1"]})
    text = [line for line, _ in sweep_report.lines(found, 80)]
    assert text[0] == "With none of these settings would KSM free anything of 196.0 KiB."
    assert not any(row.best for row in found.rows)

# SPDX-License-Identifier: GPL-2.0-only
"""Memory is read at the pace of ksmd, or faster with a doubt that covers what the pace would have shown."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksm.estimate import pace, report, scan
from ksm.estimate.doubt import Doubt, freed_between
from ksm.estimate.pace import Pace, Watch, doubt_of_hurry, doubt_of_skips, spell
from ksm.machine import Machine

from .test_scan import PAGE, Changing, page, run, write_image

DEFAULT = Pace(100, 0.02)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in (pace, scan):
        monkeypatch.setattr(module, "time", clock)
    return clock


class Writer(Changing):
    """Pairs of equal pages. Both pages of a pair are written to every so many seconds; 0: never."""

    def __init__(self, clock, periods):
        super().__init__()
        self.clock, self.periods = clock, periods

    def attach(self, machine):
        self.addr = self.spawn(machine).mmap(2 * len(self.periods) * PAGE)
        self.refresh(0)

    def refresh(self, number):
        del number
        texts = []
        for pair, (period, phase) in enumerate(self.periods):
            version = int((self.clock.now + phase) / period) if period else 0
            texts += 2 * [page(1 + pair + 1000 * version)]
        self.process.update(self.addr, b"".join(texts))

    def ranges(self):
        return [(self.addr, 2 * len(self.periods) * PAGE)]


def freed(clock, periods, smart_scan=1, **options):
    """What a scan says at a pace of 10 pages every 1 s; its result."""
    clock.now = 0.0
    knobs = {"pages_to_scan": "10", "sleep_millisecs": "1000", "smart_scan": str(smart_scan)}
    with scan.Scan([Writer(clock, periods)], settings=knobs) as running:
        return running.run(**options)


def test_the_kernels_defaults_are_5000_pages_a_second():
    assert DEFAULT.seconds(5000) == pytest.approx(1, rel=0.03)
    assert DEFAULT.seconds(1 << 20) == pytest.approx(210, rel=0.03)
    with Machine("4M", max_memory="4M") as machine:
        assert pace.pace_of(machine) == DEFAULT
        machine.ksm.sleep_millisecs = 0
        assert 0 < pace.pace_of(machine).seconds(1 << 20) < 10
    for era in ("6.1", "2.6.38"):
        with Machine("4M", max_memory="4M", era=era) as machine:
            assert pace.pace_of(machine) == DEFAULT


def test_the_advisor_sees_to_the_time_of_a_pass():
    with Machine("4M", max_memory="4M") as machine:
        machine.ksm.advisor_mode = "scan-time"
        machine.ksm.advisor_target_scan_time = 100
        machine.ksm.advisor_max_pages_to_scan = 30000
        advised = pace.pace_of(machine)
    assert advised.seconds(1 << 20) == pytest.approx(100, rel=0.05)
    assert advised.seconds(500000) == pytest.approx(100, rel=0.05)
    assert advised.seconds(1 << 30) > 500                                               # no faster than its most
    assert str(advised) == "advisor_target_scan_time 100"


def test_when_memory_is_read(clock):
    watch = Watch(visit=3.0, budget=10.0, passes=None, least=3, began=0.0)
    assert (watch.hurried, watch.waits) == (False, [3.0, 3.0])
    clock.now = 1.0
    assert watch.next() == 2.0                  # reading has taken a second
    clock.now = 3.0
    watch.reads()
    clock.now = 6.0
    watch.reads()
    assert watch.may_go_on() and (watch.last, watch.whole) == (3.0, 6.0)
    clock.now = 9.0
    watch.reads()
    assert not watch.may_go_on()
    watch = Watch(visit=100.0, budget=10.0, passes=None, least=3, began=0.0)
    assert watch.hurried and watch.waits == [pytest.approx(10 / 3), pytest.approx(20 / 3)] and not watch.may_go_on()
    watch = Watch(visit=4.0, budget=10.0, passes=5, least=3, began=0.0)
    assert sum(watch.waits) <= 10 and max(watch.waits) <= 4 and not watch.may_go_on()
    assert Watch(visit=4.0, budget=10.0, passes=1, least=3, began=0.0).waits == []
    assert sum(Watch(visit=4.0, budget=10.0, passes=1000, least=3, began=0.0).waits) <= 10


def test_a_rolling_writer_at_the_pace_of_ksmd(clock):
    """It comes round every 3 s, and so does ksmd, in 4 s: nothing at these knobs. One that takes 100 s loses little."""
    quick = [(3.0, phase) for phase in (0.0, 1.0, 2.0)] * 7         # 42 pages
    result = freed(clock, quick, budget=60)
    assert (result.freed, result.doubts) == ((0, 0), [])
    assert report.answer(result).startswith("KSM found nothing to free in")
    slow = [(1000.0, phase) for phase in range(20)]
    result = freed(clock, slow, budget=60)
    assert result.freed == (20, 20) and result.settled
    assert "ksmd would have settled after 8.0 s (pages_to_scan 10, sleep_millisecs 1000)" in report.how_it_ended(result)


def test_a_rolling_writer_that_was_watched_for_too_short(clock):
    """In 2/3 of a second, a sixth of what is merged changes. In the 4 s that ksmd takes, all of it may."""
    result = freed(clock, [(4.0, phase / 5) for phase in range(20)], budget=1)
    assert result.freed.least == 0 < result.freed.most
    assert report.answer(result).startswith("KSM would free between nothing and ")
    [doubt] = result.doubts
    knobs = "pages_to_scan 10, sleep_millisecs 1000"
    assert doubt.why.startswith(f"a pass of ksmd takes 4.0 s here ({knobs}), and processes were watched for 1.0 s: ")
    assert doubt.why.endswith(" % of what was merged changed in the last 667 ms; --budget 9 watches them at its pace")
    assert report.as_json(result)["freed"] == {"least": 0, "most": result.freed.most}
    assert report.as_json(result)["doubts"] == [{"fewer": doubt.fewer, "more": 0, "why": doubt.why}]
    assert report.all_notes(result)[1] == doubt.why


periods = st.tuples(st.sampled_from([0.0, 0.5, 2.0, 5.0, 11.0, 40.0, 300.0]), st.integers(0, 300).map(float))


@settings(max_examples=60, deadline=None)
@given(st.lists(periods, min_size=4, max_size=40), st.floats(0.2, 6.0))
def test_the_range_has_what_the_pace_would_have_shown(pairs, budget):
    """Writers whose phases are spread evenly: what changes in a time does not depend on when one looks."""
    spread = [(period, period * place / 5) for period, _ in pairs for place in range(5)]
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        for module in (pace, scan):
            patch.setattr(module, "time", clock)
        true = freed(clock, spread, budget=10000, passes=3)
        hurried = freed(clock, spread, budget=budget)
    room = len(pairs)           # one of the five of each writer, where a look falls between two of them
    assert hurried.freed.least - room <= true.ledger.freed <= hurried.freed.most + room


def test_doubts_add_up(tmp_path):
    ledger = run([write_image(tmp_path / "image", [1] * 10 + [2, 3])]).ledger
    assert ledger.freed == 9
    assert freed_between(ledger, []) == (9, 9)
    assert freed_between(ledger, [Doubt(2, 1, ""), Doubt(3, 0, "")]) == (4, 10)
    assert freed_between(ledger, [Doubt(90, 90, "")]) == (0, 12)


def test_what_is_in_no_doubt():
    watch = Watch(visit=1.0, budget=10.0, passes=None, least=3, began=0.0)
    watch.read = [0.0, 1.0, 2.0]
    assert doubt_of_hurry(10, 20, 5, watch, DEFAULT) is None
    watch = Watch(visit=100.0, budget=10.0, passes=None, least=3, began=0.0)
    watch.read = [0.0, 3.0, 10.0]
    nothing = doubt_of_hurry(0, 0, 0, watch, DEFAULT)
    assert (nothing.fewer, nothing.more) == (0, 0) and "merged" not in nothing.why
    assert doubt_of_hurry(9000, 10000, 0, watch, DEFAULT).fewer == 39        # 3 may have been missed, in 7 s of 100
    assert doubt_of_hurry(10, 20, 20, watch, DEFAULT).fewer == 10


def test_what_smart_scan_leaves_alone_is_in_doubt():
    """A page that changes within nine passes may never be found unchanged, if it was passed over in eight of them."""
    watch = Watch(visit=1.0, budget=10.0, passes=None, least=3, began=0.0)
    watch.read = [0.0, 1.0, 2.0]
    assert doubt_of_skips(10, 20, 0, watch) is None
    doubt = doubt_of_skips(9000, 10000, 100, watch)         # at most 9 * 123 of 10,000 change in nine passes, and 100 did in one
    assert (doubt.fewer, doubt.more) == (math.ceil(9000 * (0.1107 - 0.01) / 0.99), 0)
    assert "smart_scan" in doubt.why and "1.0 %" in doubt.why
    assert doubt_of_skips(10, 20, 20, watch).fewer == 10
    hurried = Watch(visit=100.0, budget=10.0, passes=None, least=3, began=0.0)
    hurried.read = [0.0, 3.0, 10.0]
    assert doubt_of_skips(9000, 10000, 100, hurried).fewer == 9000 - doubt_of_hurry(9000, 10000, 100, hurried, DEFAULT).fewer


def test_a_scan_doubts_what_changes_under_smart_scan(clock):
    rolling = [(40.0, 2.0 * place) for place in range(20)]      # ksmd comes round every 4 s
    result = freed(clock, rolling, budget=100)
    [doubt] = result.doubts
    assert "smart_scan" in doubt.why and result.freed.least == 0 < result.freed.most
    assert freed(clock, rolling, smart_scan=0, budget=100).doubts == []


def test_a_ksmd_that_looks_at_no_page(tmp_path):
    result = run([write_image(tmp_path / "image", [1, 1])], settings={"pages_to_scan": "0"})
    assert report.how_it_ended(result) == "3 passes; but ksmd looks at no page with pages_to_scan 0"
    assert report.as_json(result)["seconds"] is None


def test_times_for_a_person():
    assert [spell(seconds) for seconds in (0.0123, 3.21, 45.4, 600, 86400)] == ["12 ms", "3.2 s", "45 s", "10 minutes", "24.0 hours"]
    assert all(spell(seconds) for seconds in range(0, 10000, 7))


def test_a_long_sleep_is_written_as_it_is_set():
    assert str(Pace(4_000_000_000, 4_294_967.295)) == "pages_to_scan 4,000,000,000, sleep_millisecs 4294967295"
    assert str(DEFAULT) == "pages_to_scan 100, sleep_millisecs 20"

# SPDX-License-Identifier: GPL-2.0-only
"""The advisor, which chooses pages_to_scan by how long passes take: every number is the one that Linux 6.12 computes."""

import re

import pytest

import ksm

PAGE = ksm.PAGE_SIZE
ADVICE = re.compile(r"ksm_advisor: ksm scan time (\d+) pages_to_scan (\d+) cpu percent (\d+)")


def mergeable(machine, pages):
    process = machine.spawn()
    addr = process.mmap(pages * PAGE)
    for i in range(pages):
        process.write(addr + i * PAGE, i.to_bytes(4, "little"))
    process.madvise(addr, pages * PAGE, ksm.MADV_MERGEABLE)
    return process


@pytest.fixture
def machine():
    with ksm.Machine(memory="8M", max_memory="8M", clock="manual") as machine:
        mergeable(machine, 4)
        machine.ksm.smart_scan = 0
        machine.ksm.trace.start()
        yield machine
        assert machine.check() == []


def take(machine, seconds, busy=0.0):
    """Make a pass of `seconds`, `busy` of them on a processor: pages_to_scan after it, and the share of the processor in percent."""
    machine.ksm.scan(pages=1)
    machine.advance(seconds, ksmd=busy)
    assert machine.ksm.scan()
    found = [ADVICE.fullmatch(str(event)) for event in machine.ksm.trace.read() if event.name == "ksm_advisor"]
    assert len(found) == 1
    scan_time, pages, percent = map(int, found[0].groups())
    assert scan_time == max(1, int(seconds))
    assert pages == machine.ksm.pages_to_scan
    return pages, percent


def test_five_passes(machine):
    """The factor of change starts at 0, so the first pass counts for little. A pass of 400 seconds then makes the next ones fast."""
    machine.ksm.advisor_mode = "scan-time"
    assert (machine.ksm.advisor_target_scan_time, machine.ksm.advisor_max_cpu, machine.ksm.pages_to_scan) == (200, 70, 500)
    passes = [(10, 1), (400, 300), (300, 99), (200, 40), (200, 40)]
    assert [take(machine, *one) for one in passes] == [(500, 10), (420, 75), (840, 33), (2940, 20), (10290, 20)]


def test_the_limits(machine):
    knobs = machine.ksm
    knobs.advisor_mode = "scan-time"
    # A pass of no time counts as a second. The least that is chosen is ten times what one percent of a processor scans,
    assert take(machine, 0) == (5000, 1)
    # the most is advisor_max_cpu times what one percent scans,
    assert take(machine, 100000, 100000) == (50 * 70, 100)
    # but never more than advisor_max_pages_to_scan, which also limits the least.
    knobs.advisor_max_pages_to_scan = 600
    assert take(machine, 100000, 1000) == (600, 1)
    knobs.advisor_max_pages_to_scan = 10
    assert take(machine, 1) == (10, 1)
    # One percent of a processor counts as one page at least, even if the share in percent is larger than the number of pages.
    assert take(machine, 10000, 9000) == (10, 90)
    # A limit of 0 is taken as it is: nothing is scanned any more.
    knobs.advisor_max_pages_to_scan = 0
    assert take(machine, 10) == (0, 1)
    knobs.advisor_max_pages_to_scan = 30000
    assert take(machine, 10) == (10, 1)


def test_the_start_value_is_no_limit(machine):
    """advisor_min_pages_to_scan is only the start value: a share of the processor above ten percent takes pages_to_scan below it."""
    machine.ksm.advisor_min_pages_to_scan = 1000
    assert machine.ksm.pages_to_scan == 100
    machine.ksm.advisor_mode = "scan-time"
    assert machine.ksm.pages_to_scan == 1000
    assert take(machine, 10, 10) == (100, 100)
    machine.ksm.advisor_min_pages_to_scan = 2000
    assert machine.ksm.pages_to_scan == 100


def test_target_and_processor_share_can_be_set(machine):
    knobs = machine.ksm
    knobs.advisor_target_scan_time = 10
    knobs.advisor_max_cpu = 5
    knobs.advisor_mode = "scan-time"
    # A pass of ten seconds, with a target of ten: 30 % of 500 is 150. The least, ten percent of a processor, lifts that to 500, although
    # the most is five percent.
    assert take(machine, 10, 1) == (500, 10)
    knobs.advisor_max_cpu = 70
    knobs.advisor_target_scan_time = 1
    # A pass of ten times the target wants ten times as many pages. The average gives about half of that, cut at 70 percent of a processor.
    assert take(machine, 10, 5) == (700, 50)


def test_switching(machine):
    """Only a change of mode sets pages_to_scan. The new mode starts without the measurements of the last one."""
    knobs = machine.ksm
    knobs.pages_to_scan = 77
    knobs.advisor_mode = "none"
    assert knobs.pages_to_scan == 77
    machine.ksm.scan()
    assert knobs.pages_to_scan == 77
    knobs.advisor_mode = "scan-time"
    assert (knobs.advisor_mode, knobs.pages_to_scan) == ("scan-time", 500)
    with pytest.raises(OSError, match="pages_to_scan"):
        knobs.pages_to_scan = 100
    first = [take(machine, *one) for one in [(10, 1), (400, 300)]]
    knobs.advisor_mode = "scan-time"
    assert knobs.pages_to_scan == 420
    knobs.advisor_mode = "none"
    assert (knobs.advisor_mode, knobs.pages_to_scan) == ("none", 100)
    knobs.pages_to_scan = 200
    knobs.advisor_mode = "scan-time"
    assert knobs.pages_to_scan == 500
    # All of ksmd's processor time so far counts for the first pass, because no earlier value is known.
    assert take(machine, 301) == (500 * 100 // 66 * 30 // 100, 100)
    assert first == [(500, 10), (420, 75)]


def test_switched_on_within_a_pass(machine):
    """The pass counts from the start of the clock, because the start of the pass was not noted."""
    machine.advance(1000)
    machine.ksm.scan(pages=1)
    machine.ksm.advisor_mode = "scan-time"
    machine.advance(100, ksmd=50)
    machine.ksm.scan()
    assert [str(event) for event in machine.ksm.trace.read() if event.name == "ksm_advisor"] == [
        "ksm_advisor: ksm scan time 1100 pages_to_scan 1250 cpu percent 4"]


def test_the_clock_is_the_callers(machine):
    for seconds, busy in ((1, 2), (1, -1), (1, float("nan")), (-1, 0)):
        with pytest.raises(ValueError, match=r"ksmd|forward"):
            machine.advance(seconds, ksmd=busy)
    assert machine.time() == 0
    with ksm.Machine(memory="8M", max_memory="8M") as real, pytest.raises(ValueError, match="real"):
        real.advance(1, ksmd=1)


def test_on_the_real_clock():
    """A pass of less than a second counts as one second. Its cost is the processor time of the thread that scans."""
    with ksm.Machine(memory="8M", max_memory="8M") as machine:
        mergeable(machine, 100)
        machine.ksm.trace.start()
        machine.ksm.advisor_mode = "scan-time"
        machine.ksm.scan(passes=4)
        found = [ADVICE.fullmatch(str(event)) for event in machine.ksm.trace.read() if event.name == "ksm_advisor"]
        assert len(found) == 4
        assert all(1 <= int(percent) <= 100 * int(seconds) and 0 < int(pages) <= 30000 for seconds, pages, percent in
                   (match.groups() for match in found))
        assert machine.ksm.pages_to_scan == int(found[-1][2])
        assert machine.check() == []


@pytest.mark.parametrize(("target", "result"), [(60, 60), (200, 92)])
def test_an_hour(target, result):
    """ksmd makes a batch a second over 5000 pages, which cost two milliseconds each. Passes come to take the target time; but not more than
    92 seconds, because the advisor never chooses less than ten percent of a processor, and a pass takes ten seconds of its time."""
    with ksm.Machine(memory="32M", max_memory="32M", clock="manual") as machine:
        mergeable(machine, 5000)
        knobs = machine.ksm
        knobs.smart_scan = 0
        knobs.advisor_min_pages_to_scan = 125
        knobs.advisor_target_scan_time = target
        knobs.advisor_mode = "scan-time"
        knobs.trace.start()
        while machine.time() < 3600:
            before = knobs.pages_scanned
            knobs.scan(pages=knobs.pages_to_scan)
            busy = (knobs.pages_scanned - before) * 0.002
            machine.advance(1 + busy, ksmd=busy)
        passes = [int(match[1]) for match in map(ADVICE.fullmatch, map(str, knobs.trace.read())) if match]
        assert passes[0] == 50
        assert all(abs(seconds - result) <= result * 0.05 for seconds in passes[-20:])
        assert machine.check() == []

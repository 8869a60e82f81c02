# SPDX-License-Identifier: GPL-2.0-only
"""machine.ksm.trace."""

import re
import time

import pytest

import ksm

HEX = "[0-9a-f]{16}"
LINES = [
    f"ksm_enter: mm {HEX}", "ksm_start_scan: seq 0 rmap size 0", "ksm_stop_scan: seq 0 rmap size 2", "ksm_start_scan: seq 1 rmap size 2",
    rf"ksm_merge_with_ksm_page: pfn \d+ rmap_item {HEX} mm {HEX} error 0",
    rf"ksm_merge_with_ksm_page: ksm pfn \d+ rmap_item {HEX} mm {HEX} error 0", "ksm_stop_scan: seq 1 rmap size 2",
]


@pytest.fixture
def machine():
    with ksm.Machine("16M", max_memory="16M", clock="manual") as machine:
        yield machine


def merge(machine):
    process = machine.spawn()
    addr = process.mmap(2 * ksm.PAGE_SIZE)
    process.write(addr, b"a" * 2 * ksm.PAGE_SIZE)
    process.madvise(addr, 2 * ksm.PAGE_SIZE, ksm.MADV_MERGEABLE)
    machine.ksm.scan(2)
    return process


def test_off_until_start(machine):
    trace = machine.ksm.trace
    merge(machine)
    assert (trace.enabled, trace.capacity, trace.lost, len(trace), trace.read()) == (False, 0, 0, 0, [])


def test_lines_are_the_kernels(machine):
    machine.ksm.trace.start()
    process = merge(machine)
    events = machine.ksm.trace.read()
    assert len(events) == len(LINES)
    for event, line in zip(events, LINES, strict=True):
        assert re.fullmatch(line, str(event))
    assert {event.mm_id for event in events if event.mm} == {process.mm_id}
    assert machine.ksm.trace.read() == []


def test_a_full_ring_forgets_the_oldest(machine):
    trace = machine.ksm.trace
    trace.start(5)
    merge(machine)
    machine.ksm.scan(10)
    assert (trace.capacity, len(trace), trace.lost) == (8, 8, 27 - 8)
    assert [event.seq for event in trace.read(3)] == [8, 8, 9]
    assert len(trace) == 5


def test_stopped_it_can_be_read(machine):
    trace = machine.ksm.trace
    trace.start()
    merge(machine)
    trace.stop()
    machine.ksm.scan(3)
    assert len(trace.read()) == len(LINES)


def test_a_read_ends_beside_ksmd(machine):
    """It takes what is there when it begins, and not what ksmd adds meanwhile."""
    process = machine.spawn()
    addr = process.mmap(ksm.PAGE_SIZE)
    process.write(addr, b"a")
    process.madvise(addr, ksm.PAGE_SIZE, ksm.MADV_MERGEABLE)
    machine.ksm.trace.start(1 << 16)
    machine.ksm.sleep_millisecs = 0
    machine.ksm.run = 1         # a pass over one page is two events
    while len(machine.ksm.trace) < 1 << 16:
        time.sleep(0.01)
    assert 0 < len(machine.ksm.trace.read(1 << 28)) <= 1 << 16
    machine.ksm.run = 0


@pytest.mark.parametrize("capacity", [0, -1, 1 << 40])
def test_capacity_is_checked(machine, capacity):
    with pytest.raises(ValueError, match="capacity"):
        machine.ksm.trace.start(capacity)

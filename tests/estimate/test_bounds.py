# SPDX-License-Identifier: GPL-2.0-only
"""Between which figures the truth lies: of frames that are known here, and hidden from what is tested."""

from collections import Counter
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from ksm.constants import PAGE_SIZE
from ksm.estimate.bounds import Bounds, doubts, make_bounds
from ksm.sources.standing import Standing

PROCESSES = 4  # of which the last one is not in the scan

# A frame: its content, whether KSM has merged it, and how often each process maps it. Fork gives each process one mapping.
forked = st.tuples(st.integers(0, 5), st.just(False), st.tuples(*[st.integers(0, 1)] * PROCESSES))
merged = st.tuples(st.integers(0, 5), st.just(True), st.tuples(*[st.integers(0, 3)] * PROCESSES))


def standing(process, frames):
    """What /proc tells of one process: pages whose frames have several mappings are hidden."""
    hidden = sum(maps[process] for _, _, maps in frames if sum(maps) > 1)
    pss = sum(maps[process] / sum(maps) for _, _, maps in frames if sum(maps) > 1)
    by_ksm = sum(maps[process] for _, is_merged, maps in frames if is_merged)
    return Standing(hidden=hidden, common=int((hidden - pss) * PAGE_SIZE + 1), merged=min(hidden, by_ksm))


@given(st.lists(forked | merged, max_size=30), st.booleans())
def test_the_truth_lies_between(frames, told):
    standings = [standing(process, frames) for process in range(PROCESSES - 1)]
    if not told:  # as from a file of fingerprints
        standings = [Standing(hidden=each.hidden, common=each.hidden * PAGE_SIZE, merged=None) for each in standings]
    seen = [(content, is_merged, sum(maps[:-1])) for content, is_merged, maps in frames if sum(maps[:-1])]
    pages: Counter[int] = Counter()
    kept: Counter[int] = Counter()
    for content, _, count in seen:
        pages[content] += count
        kept[content] += 1
    saved = sum(count - 1 for _, is_merged, count in seen if is_merged)
    copies = SimpleNamespace(freed=sum(count - 1 for count in pages.values()))
    bounds = make_bounds(copies, standings, sum(is_merged and sum(maps) > 0 for _, is_merged, maps in frames))
    assert bounds.lower <= sum(count - 1 for count in kept.values()) <= bounds.upper
    assert bounds.already <= saved <= bounds.already_upper
    assert bounds.exact == (bounds.hidden == 0 or bounds.upper == 0)


def test_what_is_certain():
    """Zero pages of KSM, and merged pages that root has seen, are taken off. Nothing is in doubt."""
    bounds = make_bounds(SimpleNamespace(freed=100), [Standing(zeros=10, repeated=20), Standing(zeros=1)], 999)
    assert bounds == Bounds(lower=69, upper=69, already=31, already_upper=31, pinned=0, hidden=0)
    assert doubts(bounds, 0, []) == []


def test_what_nobody_has_freed_yet():
    """A scan of one pass merges nothing, and what KSM has merged is more than that."""
    assert make_bounds(SimpleNamespace(freed=0), [Standing(repeated=20)], 5) == Bounds(0, 0, 20, 20, 0, 0)


def test_pins():
    bounds = make_bounds(SimpleNamespace(freed=100), [Standing(pinned=30), Standing()], 0)
    assert (bounds.lower, bounds.upper, bounds.pinned) == (70, 100, 30)
    pinned, device = doubts(bounds, 0, ["pid 7 (qemu)"])
    assert pinned.startswith("30 pages at most are pinned (VmPin)")
    assert device.startswith("pid 7 (qemu) drives a device by VFIO")
    [held] = doubts(bounds._replace(pinned=0), 50, [])
    assert held == "50 pages are registered with io_uring, which holds them: they do not merge"

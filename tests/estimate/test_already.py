# SPDX-License-Identifier: GPL-2.0-only
"""What is freed already, and how sure that is: of frames that are known here, and hidden from what is tested."""

from collections import Counter
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from ksm.constants import PAGE_SIZE
from ksm.estimate.already import Already, already_freed, doubts_of
from ksm.estimate.doubt import Doubt, Freed, freed_between
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
    already = already_freed(standings, sum(is_merged and sum(maps) > 0 for _, is_merged, maps in frames))
    assert already.least <= saved <= already.most
    # A process outside the scan may keep the frame of a fork that is merged in it. KSM's own frame serves all.
    outside = Counter(content for content, is_merged, maps in frames if sum(maps[:-1]) and maps[-1] and not is_merged)
    whole = not any(maps[-1] for _, _, maps in frames)
    doubts = doubts_of(standings, already, whole=whole)
    copies = ledger(freed=sum(count - 1 for count in pages.values()), pages=pages.total())
    freed = freed_between(copies, doubts, already.least)
    assert freed.least <= sum(max(0, count - 1 - outside[content]) for content, count in kept.items())
    assert sum(count - 1 for count in kept.values()) <= freed.most == copies.freed - already.least


def ledger(freed, pages=1000):
    return SimpleNamespace(freed=freed, pages=pages)


def test_what_is_certain():
    """Zero pages of KSM, and merged pages that root has seen, are taken off. Nothing is in doubt."""
    standings = [Standing(zeros=10, repeated=20), Standing(zeros=1)]
    already = already_freed(standings, 999)
    assert already == Already(31, 31)
    assert doubts_of(standings, already) == []
    assert freed_between(ledger(100), [], already.least) == Freed(69, 69)


def test_what_nobody_has_freed_yet():
    """A scan of one pass merges nothing, and what KSM has merged is more than that. What takes more frames than before stays so."""
    assert freed_between(ledger(0), [], 20) == Freed(0, 0)
    assert freed_between(ledger(-3), [], 0) == Freed(-3, -3)


def test_no_more_than_there_is():
    doubts = [Doubt(0, 5000, "more"), Doubt(5000, 0, "fewer")]
    assert freed_between(ledger(100), doubts, 30) == Freed(0, 970)


def test_frames_that_others_keep():
    [doubt] = doubts_of([Standing(outside=7), Standing(outside=1)], Already(), outside=2)
    assert doubt == Doubt(10, 0, "10 pages that would merge share their frames with processes outside the scan, which may keep them")


def test_pins():
    standings = [Standing(pinned=30), Standing()]
    [doubt] = doubts_of(standings, Already())
    assert doubt == Doubt(30, 0, doubt.why)
    assert doubt.why.startswith("30 pages at most are pinned (VmPin)")
    assert freed_between(ledger(100), [doubt]) == Freed(70, 100)
    assert freed_between(ledger(20), [doubt]) == Freed(0, 20)

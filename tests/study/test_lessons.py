# SPDX-License-Identifier: GPL-2.0-only
"""The lessons, in each era in which they run: what they say happens."""

import pytest
from played import ITEM, PTE, counters, of_kind, states

from ksm.study.lessons import ERAS, LESSONS, lesson, record_all, record_lesson
from ksm.study.steps import NAMES

pytestmark = pytest.mark.once

ALL = [(each.key, era) for each in LESSONS for era in each.eras]
WITH_LIMIT, NEW = ERAS[1:], ERAS[2:]
# Counters at the end of each lesson, and how often steps are taken in it. What some eras have otherwise stands in OTHERWISE.
ENDS = {
    "equal": ({"pages_shared": 1, "pages_sharing": 1}, {"TWO_MERGED": 1}),
    "changing": ({"pages_shared": 1, "pages_sharing": 1}, {"TWO_MERGED": 1, "CHANGED": 14}),
    "unstable": ({"pages_shared": 1, "pages_sharing": 1}, {"TWO_MERGED": 1, "PASS_BEGINS": 4}),
    "chain": ({"pages_shared": 2, "pages_sharing": 6, "stable_node_chains": 1, "stable_node_dups": 2},
              {"CHAIN_MADE": 1, "DUP_ADDED": 1, "STABLE_FULL": 2}),
    "write": ({"pages_shared": 0, "pages_sharing": 0, "cow_ksm": 3}, {"COW": 3, "BREAK_KSM": 1, "BREAK_COW": 0, "NODE_STALE": 1}),
    "break-cow": ({"pages_shared": 1, "pages_sharing": 0, "cow_ksm": 3}, {"BREAK_COW": 2, "BREAK_KSM": 2, "COW": 3, "TWO_MERGED": 2}),
    "fork": ({"pages_shared": 1, "pages_sharing": 1, "rmap_items": 5, "cow_ksm": 1}, {"FORKED": 1, "UNSTABLE_GAVE_UP": 2, "COW": 1}),
    "anonymous": ({"pages_shared": 1, "pages_sharing": 1, "rmap_items": 2, "cow_ksm": 0}, {"NEXT": 6, "COW": 0}),
    "huge": ({"pages_shared": 1, "pages_sharing": 1, "pages_unshared": 2}, {"TWO_MERGED": 1, "NOT_PROTECTED": 0}),
    "madvise": ({"pages_shared": 1, "pages_sharing": 0, "cow_ksm": 1, "rmap_items": 2}, {"BREAK_KSM": 1, "BREAK_COW": 0}),
    "zero": ({"pages_shared": 1, "pages_sharing": 1, "ksm_zero_pages": 1, "cow_ksm": 0}, {"ZERO_MERGED": 2, "TWO_MERGED": 1}),
    "numa": ({"pages_shared": 1, "pages_sharing": 2, "cow_ksm": 2}, {"BREAK_KSM": 2, "NODE_STALE": 1, "TWO_MERGED": 2}),
    "smart": ({"pages_shared": 1, "pages_sharing": 1, "pages_skipped": 30, "full_scans": 23}, {"SKIPPED": 30, "CHANGED": 1}),
    "advisor": ({"pages_shared": 0, "full_scans": 4}, {"PASS_BEGINS": 4}),
}
OTHERWISE = {
    ("zero", "6.1"): {"ksm_zero_pages": 0},
    **{("changing", era): {"CHANGED": 12} for era in NEW},      # two visits less: skipped
}
HUGE, WRITE = 256, 64       # bits of an entry of a page table: ksm/record/look.pxd


def played(key, era):
    """For each step of a lesson its name, its numbers, and a copy of the state."""
    return [(name, step, dict(things)) for name, step, things in states(record_lesson(key, era))]


@pytest.mark.parametrize(("key", "era"), ALL)
def test_a_lesson_ends_as_it_says(key, era):
    wanted, steps = ENDS[key]
    otherwise = OTHERWISE.get((key, era), {})
    found = played(key, era)
    end = counters(found[-1][2])
    assert {name: end[name] for name in wanted} == {name: otherwise.get(name, value) for name, value in wanted.items()}
    names = [name for name, _, _ in found]
    assert {name: names.count(name) for name in steps} == {name: otherwise.get(name, value) for name, value in steps.items()}


@pytest.mark.parametrize(("key", "era"), ALL)
def test_a_lesson_is_told_in_scenes(key, era):
    data = record_lesson(key, era)
    scenes = data["scenes"]
    assert 7 <= len(scenes) <= 14 and any(scene["question"] for scene in scenes)
    assert len(data["steps"]) <= (230 if key in ("changing", "unstable", "write") else 150)
    assert data["lesson"] == key and data["era"] == era and data["function"]
    assert len(data["text"].split()) > 60 and "{" not in data["text"] and "  " not in data["text"]


def test_a_lesson_runs_where_it_makes_sense():
    assert {each.key: each.eras for each in LESSONS if each.eras != ERAS} == {
        "chain": WITH_LIMIT, "zero": WITH_LIMIT, "numa": WITH_LIMIT, "smart": NEW, "advisor": NEW}
    assert [each.key for each in LESSONS] == list(ENDS)
    with pytest.raises(KeyError):
        lesson("nothing")


def test_equal_recordings_of_two_eras_are_there_once():
    found = record_all(keys=["anonymous", "advisor"])
    assert sorted((each["lesson"], era) for each in found for era in each["eras"]) == sorted(
        [("anonymous", era) for era in ERAS] + [("advisor", era) for era in NEW])
    for each in found:
        assert each["era"] in each["eras"]
        for era in each["eras"]:
            assert record_lesson(each["lesson"], era)["steps"] == each["steps"]


# What the texts say

@pytest.mark.parametrize("era", ERAS)
def test_a_huge_page_is_split_when_a_part_merges_and_not_before(era):
    at = {}
    for name, _, things in played("huge", era):
        bits = [values[3] for values in of_kind(things, PTE) if values[3] & HUGE]
        at.setdefault(name, len(bits))
    assert (at["CHANGED"], at["UNSTABLE_FOUND"], at["WRITE_PROTECTED"]) == (3, 3, 0)


@pytest.mark.parametrize("era", ERAS)
def test_only_anonymous_pages_get_items(era):
    found = played("anonymous", era)
    entries = [len(of_kind(things, PTE)) for _, _, things in found]
    assert max(entries) >= 3 and len(of_kind(found[-1][2], ITEM)) == 2


@pytest.mark.parametrize("era", NEW)
def test_the_passes_in_which_an_old_page_is_visited(era):
    seen, visits = 4, {0, 1, 2, 3}
    for name, _, things in played("smart", era):
        if name == "NEXT":
            visits.add(counters(things)["full_scans"])
    assert sorted(visits) == [0, 1, 2, 3, 5, 8, 13, 22] and seen == 4


@pytest.mark.parametrize("era", NEW)
def test_the_advisors_numbers_are_those_of_its_test(era):
    """tests/mm/test_ksm_advisor.py has what Linux computes for the same passes."""
    notes = [note for note in record_lesson("advisor", era)["notes"] if "now" in note]
    assert [int(note.split()[-2]) for note in notes] == [500, 420, 840, 2940]


@pytest.mark.parametrize("era", ERAS)
def test_a_copy_is_writable_until_6_1_and_read_only_since(era):
    """The copy of a page that was unmerged."""
    for name, step, things in played("madvise", era):
        if name == "COW":
            (bits,) = [values[3] for values in of_kind(things, PTE) if values[:2] == [step[3], step[4]]]
            assert bool(bits & WRITE) == (era in ("2.6.38", "6.1"))
    assert "COW" in NAMES

# SPDX-License-Identifier: GPL-2.0-only
"""Every step of a recording has the state in which the step has left the machine: what a sentence names has changed when it is read."""

import pytest
from played import ITEM, LINK, MM, NODE, PTE, counters, machine_of, of_kind, states

import ksm
from ksm.study.lessons import pages, record_lesson

PAGE = ksm.PAGE_SIZE
WRITE, KSM, UNSTABLE, STABLE, STALE = 64, ksm.PAGE_KSM, 1, 2, 3


def entries(things):
    return {tuple(values[:2]): tuple(values[2:]) for values in of_kind(things, PTE)}


def steps(data):
    """Each step with its name, its numbers, and the things before and after it."""
    before = {}
    for name, step, things in states(data):
        yield name, step, before, dict(things)
        before = dict(things)


def test_a_merge_changes_one_thing_after_the_other():
    seen = []
    for name, step, before, after in steps(record_lesson("equal")):
        old, new = entries(before), entries(after)
        moved = {key: (old[key], new[key]) for key in new if key in old and old[key] != new[key]}
        if name == "WRITE_PROTECTED":
            # One entry loses its W. It leads to the frame that the step names.
            ((was, now),) = moved.values()
            assert was[0] == now[0] == step[2] and was[1] & WRITE and not now[1] & WRITE
        elif name == "BECAME_KSM":
            ((was, now),) = moved.values()
            assert was[0] == now[0] == step[2] and now[1] & KSM and not was[1] & KSM
        elif name == "REPLACED":
            ((was, now),) = moved.values()
            assert was[0] != step[2] and now[0] == step[2] and now[1] & KSM
        elif name == "LEFT_UNSTABLE":
            assert before[step[1]][1][2] in (UNSTABLE, STALE) and after[step[1]][1][2] == 0
            assert counters(before)["pages_unshared"] - counters(after)["pages_unshared"] == 1
        elif name == "APPENDED":
            assert after[step[1]][1][2:4] == [STABLE, step[3]]
            assert sum(values[2] for values in of_kind(after, MM)) == sum(values[2] for values in of_kind(before, MM)) + 1
        else:
            assert not moved or name == "NOTE", name
        seen.append(name)
    assert seen.count("WRITE_PROTECTED") == 2 and seen.count("BECAME_KSM") == seen.count("REPLACED") == 1


@pytest.mark.parametrize("era", ["6.12", "6.1", "2.6.38"])
def test_a_write_and_what_follows(era):
    with machine_of(era) as machine, machine.record() as recording:
        both = [machine.spawn(name) for name in "ab"]
        at = [pages(process, ["same", process.name]) for process in both]
        machine.ksm.scan(passes=3)
        both[0].write(at[0], b"mine")
        machine.ksm.scan()
        both[1].madvise(at[1], PAGE, ksm.MADV_UNMERGEABLE)
        machine.ksm.scan()
    seen = []
    for name, step, before, after in steps(recording.data()):
        if name == "COW":
            key = (step[3], step[4])
            was, now = entries(before)[key], entries(after)[key]
            assert was[0] == step[2] and was[1] & KSM and now[0] != step[2] and not now[1] & KSM
            assert bool(now[1] & WRITE) == (era != "6.12" or "COW" not in seen)
            assert counters(after)["cow_ksm"] - counters(before)["cow_ksm"] == 1
        elif name == "LEFT_STABLE":
            assert before[step[1]][1][2:4] == [STABLE, step[3]] and after[step[1]][1][2] == 0
            assert counters(before)["pages_sharing"] - counters(after)["pages_sharing"] == 1
        elif name == "NODE_STALE":
            assert before[step[3]][0] == NODE and step[3] not in after
            assert not [values for values in of_kind(after, ITEM) if values[2:4] == [STABLE, step[3]]]
        elif name != "NOTE":
            # Nothing else takes a merged page away.
            assert not [key for key, value in entries(before).items() if value[1] & KSM and not entries(after).get(key, (0, KSM))[1] & KSM]
        seen.append(name)
    assert seen.count("COW") == 2 and {"LEFT_STABLE", "NODE_STALE"} <= set(seen)


def test_when_a_pass_ends_its_tree_is_there_once_more():
    with machine_of() as machine, machine.record() as recording:
        pages(machine.spawn("a"), ["one", "two", "three", "four"])
        machine.ksm.scan(passes=2)
    (*_, (_, end), (last, after)) = [(name, things) for name, _, _, things in steps(recording.data()) if name in ("PASS_ENDS", "NOTE")]
    for things, place in ((end, UNSTABLE), (after, STALE)):
        assert [values[2] for values in of_kind(things, ITEM)] == [place] * 4
        assert counters(things)["pages_unshared"] == 4
    assert last == "NOTE"


@pytest.mark.parametrize("era", ["2.6.38", "6.1", "6.12", "7.3"])
def test_between_two_passes_nothing_is_looked_up_in_the_tree(era):
    """Run 2 frees the items one after the other. The tree of the last pass still leads to them."""
    with machine_of(era) as machine:
        process = machine.spawn()
        start = process.mmap(20 * PAGE)
        for number in range(20):
            process.write(start + number * PAGE, b"%d" % number)
        process.madvise(start, 20 * PAGE, ksm.MADV_MERGEABLE)
        machine.ksm.scan(passes=3)
        with machine.record() as recording:
            machine.ksm.run = 2
        left = [things for name, _, things in states(recording.data()) if name == "LEFT_UNSTABLE"]
        assert left
        assert not any(of_kind(things, LINK) for things in left)
        machine.ksm.run = 0
        machine.ksm.scan()
        with machine.record() as recording:
            machine.ksm.scan(pages=10)
            machine.ksm.run = 2
        assert max(len(of_kind(things, LINK)) for _, _, things in states(recording.data())) == 10

# SPDX-License-Identifier: GPL-2.0-only
"""What KSM has decided of each page: the same with the speed layer and without it, and nothing changes because it is written down."""

import errno
import random

import pytest

import ksm
from ksm.record import decisions
from ksm.record.decisions import Decisions

PAGE = ksm.PAGE_SIZE
HUGE = 512 * PAGE
KINDS = {"plain": {"plain": True}, "fast": {}, "fingerprints": {"pages": "fingerprints"}}


@pytest.fixture(params=KINDS)
def make(request):
    """A function that makes a machine, and closes it after the test."""
    machines = []

    def make(memory="16M", **arguments):
        machines.append(ksm.Machine(memory, **{**KINDS[request.param], **arguments}))
        return machines[-1]

    yield make
    for machine in machines:
        assert machine.check() == []
        machine.close()


def page(number):
    return number.to_bytes(8, "little") * (PAGE // 8)


def fill(process, addr, numbers):
    for place, number in enumerate(numbers):
        process.update(addr + place * PAGE, page(number), always=True)


def mergeable(machine, numbers):
    process = machine.spawn()
    addr = process.mmap(len(numbers) * PAGE)
    fill(process, addr, numbers)
    process.madvise(addr, len(numbers) * PAGE, ksm.MADV_MERGEABLE)
    return process, addr


def told(kept, process, addr, pages):
    return list(kept.of(process.mm_id, addr, pages))


def test_each_visit_ends_in_a_decision(make):
    machine = make()
    process, addr = mergeable(machine, [1, 1, 2, 3])
    kept = Decisions(machine)
    assert told(kept, process, addr, 4) == [decisions.NOT_VISITED] * 4
    machine.ksm.scan()
    assert told(kept, process, addr, 4) == [decisions.FIRST_VISIT] * 4
    fill(process, addr + 3 * PAGE, [4])
    machine.ksm.scan()
    assert told(kept, process, addr, 4) == [decisions.MERGED, decisions.MERGED, decisions.NO_EQUAL, decisions.CHANGED]
    machine.ksm.scan(5)
    assert told(kept, process, addr, 4)[2] in (decisions.NO_EQUAL, decisions.SKIPPED)
    kept.stop()
    kept.stop()
    assert told(kept, process, addr, 4) == [decisions.NOT_VISITED] * 4


def test_smart_scan_skips(make):
    machine = make()
    process, addr = mergeable(machine, [1])
    kept = Decisions(machine)
    seen = []
    for _ in range(6):
        machine.ksm.scan()
        seen += told(kept, process, addr, 1)
    # The age of a page is counted from 0 on: three visits, and one that gives it its skips.
    assert seen == [decisions.FIRST_VISIT, *[decisions.NO_EQUAL] * 3, decisions.SKIPPED, decisions.NO_EQUAL]


def test_zeros(make):
    machine = make()
    machine.ksm.use_zero_pages = 1
    process, addr = mergeable(machine, [0, 0, 7])
    kept = Decisions(machine)
    machine.ksm.scan(2)
    assert told(kept, process, addr, 3)[2] == decisions.NO_EQUAL
    assert [word & ksm.PAGE_ZERO != 0 for word in process.page_table(addr, 3 * PAGE)] == [True, True, False]


def test_a_fork_shares_the_frame(make):
    machine = make()
    process, addr = mergeable(machine, [1, 2])
    child = process.fork()
    kept = Decisions(machine)
    machine.ksm.scan(2)
    both = [told(kept, each, addr, 2) for each in (process, child)]
    assert sorted(both) == [[decisions.NO_EQUAL] * 2, [decisions.SAME_FRAME] * 2]


@pytest.mark.parametrize("held", [0, 1])
def test_who_is_held(make, held):
    """Of two equal pages one has another reference: neither merges, and it is known because of which."""
    machine = make()
    process, addr = mergeable(machine, [1, 1])
    machine._get_page(process.page_table(addr, 2 * PAGE)[held] >> ksm.PAGE_FLAGS_SHIFT)
    kept = Decisions(machine)
    machine.ksm.scan(2)
    pfn = process.page_table(addr, 2 * PAGE)[held] >> ksm.PAGE_FLAGS_SHIFT
    seen = told(kept, process, addr, 2)
    assert seen[held] == decisions.HELD
    assert seen[1 - held] in (decisions.EQUAL_HELD, decisions.NO_EQUAL)
    assert machine.ksm.pages_sharing == 0
    machine._put_page(pfn)


def test_a_held_page_of_zeros(make):
    machine = make()
    machine.ksm.use_zero_pages = 1
    process, addr = mergeable(machine, [0])
    pfn = process.page_table(addr, PAGE)[0] >> ksm.PAGE_FLAGS_SHIFT
    machine._get_page(pfn)
    kept = Decisions(machine)
    machine.ksm.scan(2)
    assert told(kept, process, addr, 1) == [decisions.HELD]
    machine._put_page(pfn)


def test_equals_are_full(make):
    machine = make()
    machine.ksm.max_page_sharing = 2
    process, addr = mergeable(machine, [1] * 5)
    kept = Decisions(machine)
    machine.ksm.scan(3)
    assert told(kept, process, addr, 5) == [decisions.MERGED] * 4 + [decisions.EQUAL_FULL]


def test_another_node(make):
    """An equal that goes to another node between its visit and that of the other page."""
    machine = make("32M", nodes=2)
    machine.ksm.merge_across_nodes = 0
    process, addr = mergeable(machine, [1, 1])
    kept = Decisions(machine)
    machine.ksm.scan()
    machine.ksm.scan(pages=1)
    machine.migrate(process.page_table(addr, PAGE)[0] >> ksm.PAGE_FLAGS_SHIFT, 1)
    machine.ksm.scan(pages=1)
    assert told(kept, process, addr, 2) == [decisions.NO_EQUAL, decisions.OTHER_NODE]


def test_the_search_meets_a_page_that_is_gone(make):
    machine = make()
    process, addr = mergeable(machine, [1, 1])
    kept = Decisions(machine)
    machine.ksm.scan()
    machine.ksm.scan(pages=1)
    process.madvise(addr, PAGE, ksm.MADV_DONTNEED)
    machine.ksm.scan(pages=1)
    assert told(kept, process, addr, 2)[1] == decisions.MET_GONE


def test_two_parts_of_a_huge_page(make):
    """They are merged when the huge page is split: in a later pass."""
    machine = make("32M", transparent_hugepage="always")
    process = machine.spawn()
    addr = process.mmap(2 * HUGE, addr=1 << 30)
    fill(process, addr, [1, 1, *range(2, 512)])
    process.madvise(addr, HUGE, ksm.MADV_MERGEABLE)
    assert process.page_table(addr, PAGE)[0] & ksm.PAGE_THP
    kept = Decisions(machine)
    machine.ksm.scan(2)
    assert told(kept, process, addr, 3) == [decisions.NO_EQUAL, decisions.FAILED, decisions.NO_EQUAL]
    machine.ksm.scan()
    assert told(kept, process, addr, 2) == [decisions.MERGED] * 2


def test_an_item_that_is_used_again_begins_anew(make):
    machine = make()
    process, _ = mergeable(machine, [1, 2, 3])
    kept = Decisions(machine)
    machine.ksm.scan(2)
    process.exit()
    machine.ksm.scan()
    other, there = mergeable(machine, [4, 5, 6])
    assert told(kept, other, there, 3) == [decisions.NOT_VISITED] * 3
    machine.ksm.scan()
    assert told(kept, other, there, 3) == [decisions.FIRST_VISIT] * 3


def test_all_parts_of_a_large_process(make):
    """Part by part, as a report asks, and each part alone."""
    machine = make("64M")
    process, addr = mergeable(machine, [number % 1500 for number in range(3000)])
    kept = Decisions(machine)
    machine.ksm.scan(3)
    whole = kept.of(process.mm_id, addr, 3000)
    assert b"".join(kept.of(process.mm_id, addr + at * PAGE, 500) for at in range(0, 3000, 500)) == whole
    assert all(kept.of(process.mm_id, addr + at * PAGE, 500) == whole[at : at + 500] for at in (2500, 0, 1000))
    assert whole == bytes([decisions.MERGED]) * 3000
    assert kept.of(12345, addr, 10) == bytes(10)


def test_the_visits_of_one_page(make):
    machine = make()
    process, addr = mergeable(machine, [1, 2, 1])
    kept = Decisions(machine)
    kept.follow(process.mm_id, addr + 5)
    machine.ksm.scan(3)
    other = (process.mm_id, addr + 2 * PAGE)
    assert [(visit.number, visit.decision, visit.by_other, visit.other) for visit in kept.visits()] == [
        (0, decisions.FIRST_VISIT, False, None),
        (1, decisions.NO_EQUAL, False, None),
        (1, decisions.MERGED, True, other),
        (2, decisions.MERGED, False, None),
    ]


def test_a_machine_is_recorded_once():
    with ksm.Machine("4M", plain=True) as machine:
        kept = Decisions(machine)
        for again in (lambda: Decisions(machine), machine.record):
            with pytest.raises(OSError) as error:
                again()
            assert error.value.errno == errno.EBUSY
        kept.stop()
        with machine.record():
            machine.ksm.scan()
        Decisions(machine)
    with pytest.raises(ValueError, match="closed"):
        kept.stop()


@pytest.mark.parametrize("era", [*ksm.machine.ERAS])
@pytest.mark.parametrize("plain", [True, False])
def test_nothing_else_changes(era, plain):
    """Two machines with the same random life, of which one is watched: every counter, tree and frame is the same after each pass."""
    machines = [ksm.Machine("32M", era=era, plain=plain, clock="manual") for _ in range(2)]
    kept = Decisions(machines[0])
    chance = random.Random(7)
    lives = [[mergeable(machine, [place % 40 for place in range(200)]) for _ in range(3)] for machine in machines]
    for step in range(12):
        process = chance.randrange(3)
        for place in chance.sample(range(200), 60):
            number = chance.randrange(60)
            for life in lives:
                owner, addr = life[process]
                owner.update(addr + place * PAGE, page(number), always=True)
        if step == 5:
            for life in lives:
                life.append((life[0][0].fork(), life[0][1]))
        for machine in machines:
            machine.ksm.scan()
        assert machines[0].ksm.attributes() == machines[1].ksm.attributes()
        for owners in zip(*lives, strict=True):
            words = [[word & 0xFF for word in owner.page_table(addr, 200 * PAGE)] for owner, addr in owners]
            assert words[0] == words[1]
    # What was kept agrees with what the page tables show.
    for owner, addr in lives[0]:
        for word, decision in zip(owner.page_table(addr, 200 * PAGE), kept.of(owner.mm_id, addr, 200), strict=True):
            assert bool(word & ksm.PAGE_KSM) == (decision == decisions.MERGED), (word, decision)
    for machine in machines:
        assert machine.check() == []
        machine.close()

# SPDX-License-Identifier: GPL-2.0-only
"""Machine(era="2.6.38"): where the KSM of 2011 differs from that of Linux 6.12."""

import errno

import pytest

import ksm

PAGE = ksm.PAGE_SIZE
FILES = ["sleep_millisecs", "pages_to_scan", "run", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "full_scans"]


def new_machine(era):
    return ksm.Machine(memory="8M", max_memory="8M", era=era, swap="256K")


@pytest.fixture
def machine():
    with new_machine("2.6.38") as machine:
        yield machine
        assert machine.check() == []


@pytest.fixture(params=["2.6.38", "6.12"])
def either(request):
    with new_machine(request.param) as machine:
        if request.param == "6.12":
            machine.ksm.smart_scan = 0
        yield machine, request.param == "2.6.38"
        assert machine.check() == []


def mergeable(process, contents, settled=True):
    addr = process.mmap(len(contents) * PAGE)
    for i, letter in enumerate(contents):
        process.write(addr + i * PAGE, letter.encode() * PAGE)
    process.madvise(addr, len(contents) * PAGE, ksm.MADV_MERGEABLE)
    if settled:
        process.machine.lru_add_drain_all()
    return addr


def bytes_of(process, addr, pages):
    return "".join(process.read(addr + i * PAGE, PAGE).decode()[0] for i in range(pages))


def state(machine):
    return machine.ksm.pages_shared, machine.ksm.pages_sharing, machine.ksm.pages_unshared, machine.ksm.pages_volatile


def test_the_files_of_sysfs(machine):
    assert machine.ksm.names() == FILES
    with pytest.raises(AttributeError, match="max_page_sharing"):
        machine.ksm.max_page_sharing = 2


def test_no_limit_to_sharing(machine):
    mergeable(machine.spawn(), "a" * 1000)
    machine.ksm.scan(3)
    assert state(machine) == (1, 999, 0, 0)


def test_zeros_merge_like_everything_else(machine):
    mergeable(machine.spawn(), "\0" * 10)
    machine.ksm.scan(3)
    assert state(machine) == (1, 9, 0, 0)


def test_nothing_is_skipped(machine):
    mergeable(machine.spawn(), "abcdef")
    machine.ksm.scan(20)
    assert state(machine) == (0, 0, 6, 0)


def test_new_pages_wait_for_nobody(either):
    """A new page has the reference of an LRU batch until the batch is full. Both eras empty the batches at the start of a pass."""
    machine, _ = either
    mergeable(machine.spawn(), "aa", settled=False)
    machine.ksm.scan(5)
    assert state(machine) == (1, 1, 0, 0)


def test_a_page_that_changes_merges_with_a_merged_one(either):
    """In 2011 the stable tree was searched before the checksum was computed: a new page merges at once."""
    machine, y2011 = either
    process = machine.spawn()
    addr = mergeable(process, "aabc")
    machine.ksm.scan(3)
    assert state(machine) == (1, 1, 2, 0)
    process.write(addr + 2 * PAGE, b"a" * PAGE)
    machine.ksm.scan()
    assert state(machine) == ((1, 2, 1, 0) if y2011 else (1, 1, 1, 1))
    # In both eras, a page that changes and equals no merged page is in no tree.
    process.write(addr + 3 * PAGE, b"d" * PAGE)
    machine.ksm.scan()
    assert state(machine) == (1, 2, 0, 1)
    machine.ksm.scan()
    assert state(machine) == (1, 2, 1, 0)


def test_a_page_is_broken_by_a_write(either):
    """In 2011 a broken page comes back writable. Since 6.2 it comes back as it was, and the next write takes another fault."""
    machine, y2011 = either
    process = machine.spawn()
    addr = mergeable(process, "aa")
    machine.ksm.scan(2)
    process.madvise(addr, 2 * PAGE, ksm.MADV_UNMERGEABLE)
    faults = machine.vmstat()["pgfault"]
    process.write(addr, b"b")
    assert machine.vmstat()["pgfault"] - faults == (0 if y2011 else 1)
    assert machine.vmstat()["cow_ksm"] == 2


def test_merged_pages_move_only_when_memory_goes_offline(either):
    """The searches of 2011 held no lock against it: a page that was found had to stay where it is. To go offline locks KSM out."""
    machine, y2011 = either
    process = machine.spawn()
    process.touch(process.mmap(600 * PAGE), 600 * PAGE)     # the frames that cannot go offline
    addr = mergeable(process, "aab")
    machine.ksm.scan(2)
    merged, _same, single = (word >> ksm.PAGE_FLAGS_SHIFT for word in process.page_table(addr, 3 * PAGE))
    if y2011:
        with pytest.raises(OSError, match="busy") as caught:
            machine.migrate(merged)
        assert caught.value.errno == errno.EBUSY
        assert machine.vmstat()["pgmigrate_fail"] == 1
    else:
        merged = machine.migrate(merged)
    single = machine.migrate(single)
    assert [word >> ksm.PAGE_FLAGS_SHIFT for word in process.page_table(addr, 3 * PAGE)] == [merged, merged, single]
    machine.offline(merged & ~511, 512)
    moved = process.page_table(addr, PAGE)[0]
    assert moved & ksm.PAGE_KSM
    assert moved >> ksm.PAGE_FLAGS_SHIFT != merged
    assert bytes_of(process, addr, 3) == "aab"
    assert state(machine) == (1, 1, 1, 0)


@pytest.mark.parametrize("era", ["2.6.38", "6.12"])
def test_moving_merged_pages_to_another_node(era):
    with ksm.Machine(memory="8M", max_memory="8M", era=era, nodes=2) as machine:
        process = machine.spawn()
        addr = mergeable(process, "aab")
        machine.ksm.scan(2)
        assert process.move_pages(addr, 3 * PAGE, 1) == ([-errno.EBUSY, -errno.EBUSY, 1] if era == "2.6.38" else [1, -errno.EBUSY, 1])
        assert bytes_of(process, addr, 3) == "aab"
        assert machine.check() == []


def test_a_clean_page_that_nobody_may_write(machine):
    """An entry that is neither dirty nor writable is not protected, and the references are not counted."""
    process = machine.spawn()
    addr = mergeable(process, "aab")
    process.mprotect(addr, 3 * PAGE, ksm.PROT_READ)
    process.swap_out(addr, 3 * PAGE)
    assert bytes_of(process, addr, 3) == "aab"
    machine.lru_add_drain_all()
    machine.ksm.scan(3)
    assert state(machine) == (1, 1, 1, 0)
    assert bytes_of(process, addr, 3) == "aab"


@pytest.mark.parametrize("stale", range(5))
def test_stale_nodes_end_a_search(stale):
    """In 2011 a search gave up when it met a stale node, and so did an insertion. An insertion also gave up when it met an equal page, for
    there were no chains: the two pages that were to be merged are broken again. Only time is lost."""
    with new_machine("2.6.38") as machine:
        process = machine.spawn()
        others = "".join(letter * 2 for letter in "bcde"[:stale])
        addr = mergeable(process, "aaaa" + others)
        machine.ksm.scan(2)
        assert state(machine) == (1 + stale, 3 + stale, 0, 0)
        # The first two pages are written, and then hold their old contents again. The pages of the other letters are unmapped.
        for i in range(2):
            process.write(addr + i * PAGE, b"z" * PAGE)
            process.write(addr + i * PAGE, b"a" * PAGE)
        machine.lru_add_drain_all()
        if stale:
            process.munmap(addr + 4 * PAGE, 2 * stale * PAGE)
        broken = machine.vmstat()["cow_ksm"]
        machine.ksm.scan()
        assert machine.check() == []
        assert bytes_of(process, addr, 4) == "aaaa"
        # With two stale nodes neither of the two pages finds the merged page. They find each other, and meet it at the insertion.
        assert machine.vmstat()["cow_ksm"] - broken == (2 if stale >= 2 else 0)
        machine.lru_add_drain_all()
        machine.ksm.scan(3)
        assert state(machine) == (1, 3, 0, 0)
        assert machine.check() == []


def test_a_search_finds_a_merged_page_whose_items_are_gone(either):
    """A and B share a page, and B forks C; then A and B exit. C still maps the page, and has no item at its node yet. A search of 2011 took
    any equal page. Later ones refuse a node without items."""
    machine, y2011 = either
    a, b, d = (machine.spawn(name) for name in "abd")
    at_d, _, at_b = (mergeable(process, letter) for process, letter in ((d, "z"), (a, "a"), (b, "a")))
    machine.ksm.scan(3)
    assert state(machine) == (1, 1, 1, 0)
    if not y2011:               # at its next visit the page is settled: then the stable tree is searched
        d.write(at_d, b"a" * PAGE)
        machine.ksm.scan()
        assert state(machine) == (1, 1, 0, 1)
    child = b.fork("c")
    a.exit()
    b.exit()
    d.write(at_d, b"a" * PAGE)

    def frames():
        return [process.page_table(addr, PAGE)[0] >> ksm.PAGE_FLAGS_SHIFT for process, addr in ((child, at_b), (d, at_d))]

    before = frames()
    assert before[0] != before[1]
    machine.ksm.scan(pages=1)   # d's page: all that was registered later comes after it
    assert frames() == ([before[0], before[0]] if y2011 else before)
    machine.ksm.scan(3)
    assert state(machine) == (1, 1, 0, 0)

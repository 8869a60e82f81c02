# SPDX-License-Identifier: GPL-2.0-only
"""Machine(era="6.1"): where the KSM of Linux 6.1 differs from that of 6.12. Every test runs the same workload in both eras."""

import errno

import pytest

import ksm

PAGE = ksm.PAGE_SIZE
OLD, NEW = "6.1", "6.12"
FILES = ["sleep_millisecs", "pages_to_scan", "run", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "full_scans",
         "merge_across_nodes", "max_page_sharing", "stable_node_chains", "stable_node_dups", "stable_node_chains_prune_millisecs",
         "use_zero_pages"]
KINDS = [(OLD, False), (OLD, True), (NEW, False), (NEW, True)]


@pytest.fixture(params=KINDS, ids=[f"{era}-{'plain' if plain else 'fast'}" for era, plain in KINDS])
def machine(request):
    era, plain = request.param
    with ksm.Machine(memory="8M", max_memory="8M", era=era, plain=plain, swap="256K", clock="manual") as machine:
        if era == NEW:
            machine.ksm.smart_scan = 0
        yield machine
        assert machine.check() == []


def old(machine):
    return machine.era == OLD


def mergeable(process, contents):
    addr = process.mmap(len(contents) * PAGE)
    write(process, addr, contents)
    process.madvise(addr, len(contents) * PAGE, ksm.MADV_MERGEABLE)
    return addr


def write(process, addr, contents):
    for i, letter in enumerate(contents):
        process.write(addr + i * PAGE, letter.encode() * PAGE)
    process.machine.lru_add_drain_all()


def frames(process, addr, pages):
    return [word >> ksm.PAGE_FLAGS_SHIFT for word in process.page_table(addr, pages * PAGE)]


def state(machine):
    return machine.ksm.pages_shared, machine.ksm.pages_sharing, machine.ksm.pages_unshared, machine.ksm.pages_volatile


def chains(machine):
    return machine.ksm.stable_node_chains, machine.ksm.stable_node_dups


# What a page meets

def test_the_second_of_a_merged_page_merges_at_once(machine):
    """6.1 searches the stable tree before it looks at the checksum."""
    process = machine.spawn()
    mergeable(process, "aa")
    machine.ksm.scan(2)
    mergeable(process, "a")
    machine.ksm.scan()
    assert state(machine) == ((1, 2, 0, 0) if old(machine) else (1, 1, 0, 1))
    machine.ksm.scan()
    assert state(machine) == (1, 2, 0, 0)


def test_two_new_pages_merge_in_the_second_pass(machine):
    mergeable(machine.spawn(), "abab")
    machine.ksm.scan()
    assert state(machine) == (0, 0, 0, 4)
    machine.ksm.scan()
    assert state(machine) == (2, 2, 0, 0)


def test_a_page_that_always_changes_merges_when_it_is_equal(machine):
    process = machine.spawn()
    addr = mergeable(process, "aab")
    machine.ksm.scan(2)
    for letter in "cda":
        write(process, addr + 2 * PAGE, letter)
        machine.ksm.scan()
    assert state(machine) == ((1, 2, 0, 0) if old(machine) else (1, 1, 0, 1))


def test_a_merged_page_of_zeros_comes_before_the_zero_page(machine):
    """With use_zero_pages, 6.1 asks for the zero page after the stable tree, 6.12 before it."""
    process = machine.spawn()
    mergeable(process, "\0\0")
    machine.ksm.scan(2)
    machine.ksm.use_zero_pages = 1
    addr = mergeable(process, "\0")
    machine.ksm.scan(2)
    (word,) = process.page_table(addr, PAGE)
    assert bool(word & ksm.PAGE_KSM) == old(machine)
    assert bool(word & ksm.PAGE_ZERO) == (not old(machine))
    assert state(machine)[:2] == ((1, 2) if old(machine) else (1, 1))


def test_the_zero_page_comes_before_the_unstable_tree(machine):
    machine.ksm.use_zero_pages = 1
    process = machine.spawn()
    addr = mergeable(process, "\0\0a\0")
    machine.ksm.scan(3)
    assert [bool(word & ksm.PAGE_ZERO) for word in process.page_table(addr, 4 * PAGE)] == [True, True, False, True]
    assert state(machine)[:3] == (0, 0, 1)
    assert process.rss() == 1
    # 6.1 keeps no mark in the page table, and no count.
    marked = [bool(word & ksm.PAGE_KSM_ZERO) for word in process.page_table(addr, 4 * PAGE)]
    assert marked == [False] * 4 if old(machine) else marked == [True, True, False, True]
    if not old(machine):
        assert machine.ksm.ksm_zero_pages == process.ksm_zero_pages == 3
    process.write(addr, b"x")
    assert process.read(addr, 2) == b"x\0"


@pytest.mark.parametrize("way", ["madvise", "run"])
def test_unmerging_leaves_zero_pages(machine, way):
    """In 6.1 nothing tells a zero page of KSM from that of a read fault."""
    machine.ksm.use_zero_pages = 1
    process = machine.spawn()
    addr = mergeable(process, "\0\0aa")
    machine.ksm.scan(3)
    assert process.rss() == 2
    if way == "run":
        machine.ksm.run = 2
    else:
        process.madvise(addr, 4 * PAGE, ksm.MADV_UNMERGEABLE)
    words = process.page_table(addr, 4 * PAGE)
    assert [bool(word & ksm.PAGE_ZERO) for word in words] == [old(machine)] * 2 + [False] * 2
    assert not any(word & ksm.PAGE_KSM for word in words)
    assert process.rss() == (2 if old(machine) else 4)
    assert process.read(addr, 4 * PAGE) == bytes(2 * PAGE) + b"a" * (2 * PAGE)


def test_nothing_is_skipped():
    for era, unshared in ((OLD, 6), (NEW, 0)):
        with ksm.Machine(memory="8M", max_memory="8M", era=era) as machine:
            mergeable(machine.spawn(), "abcdef")
            machine.ksm.scan(4)
            for _ in range(20):
                machine.ksm.scan()
                if machine.ksm.pages_unshared == unshared:
                    break
                assert era == NEW           # some passes of 6.12 look at all of them
            assert machine.ksm.pages_unshared == unshared
            assert machine.check() == []


def test_a_broken_page_is_written_to(machine):
    """6.1 breaks a merged page by a write fault: the page is writable at once."""
    process = machine.spawn()
    addr = mergeable(process, "aa")
    machine.ksm.scan(2)
    process.madvise(addr, 2 * PAGE, ksm.MADV_UNMERGEABLE)
    faults = machine.vmstat()["pgfault"]
    process.write(addr, b"b")
    assert machine.vmstat()["pgfault"] - faults == (0 if old(machine) else 1)
    assert machine.vmstat()["cow_ksm"] == 2


def test_a_broken_page_is_dirty(machine):
    """To a page that is only read again, 6.1 gives a dirty entry: the count of references is taken when it is to merge."""
    process = machine.spawn()
    addr = mergeable(process, "aa")
    machine.ksm.scan(2)
    process.mprotect(addr, 2 * PAGE, ksm.PROT_READ)
    process.madvise(addr, 2 * PAGE, ksm.MADV_UNMERGEABLE)
    assert process.read(addr, 2 * PAGE) == b"a" * (2 * PAGE)
    with pytest.raises(OSError, match="Bad address"):
        process.write(addr, b"b")
    process.madvise(addr, 2 * PAGE, ksm.MADV_MERGEABLE)
    machine.lru_add_drain_all()
    machine.ksm.scan(3)
    assert state(machine) == (1, 1, 0, 0)


def test_unmerging_leaves_what_nobody_may_access(machine):
    """follow_page() of 6.1 finds no page there, so break_ksm() has nothing to break."""
    process = machine.spawn()
    addr = mergeable(process, "aab")
    machine.ksm.scan(2)
    process.mprotect(addr, 3 * PAGE, ksm.PROT_NONE)
    process.madvise(addr, 3 * PAGE, ksm.MADV_UNMERGEABLE)
    assert [bool(word & ksm.PAGE_KSM) for word in process.page_table(addr, 3 * PAGE)] == [old(machine)] * 2 + [False]
    machine.ksm.scan(2)
    assert machine.check() == []
    process.mprotect(addr, 3 * PAGE, ksm.PROT_READ | ksm.PROT_WRITE)
    process.madvise(addr, 3 * PAGE, ksm.MADV_MERGEABLE)
    machine.ksm.scan(3)
    assert state(machine) == (1, 1, 1, 0)
    process.write(addr, b"x")
    assert process.read(addr + PAGE, PAGE) == b"a" * PAGE


@pytest.mark.parametrize("hidden", [0, 1])
def test_a_tree_page_that_nobody_may_access(machine, hidden):
    """In 6.1 a search ends at it: its equal does not merge with it, and is in no tree. The other way round the two merge."""
    process = machine.spawn()
    addr = mergeable(process, "aa")
    process.mprotect(addr + hidden * PAGE, PAGE, ksm.PROT_NONE)
    machine.ksm.scan(4)
    assert state(machine) == ((0, 0, 1, 1) if old(machine) and not hidden else (1, 1, 0, 0))


@pytest.mark.parametrize("era", [OLD, NEW])
def test_what_nobody_may_access_stays_on_its_node(era):
    with ksm.Machine(memory="8M", max_memory="8M", era=era, nodes=2) as machine:
        process = machine.spawn()
        addr = mergeable(process, "ab")
        process.mprotect(addr, PAGE, ksm.PROT_NONE)
        assert process.move_pages(addr, 2 * PAGE, 1) == ([-errno.ENOENT, 1] if era == OLD else [1, 1])
        assert machine.check() == []


# Chains

def chain_of_two(machine, room):
    """Two dups of the content "a": the second one loses its page. The first one has room for `room` more."""
    machine.ksm.max_page_sharing = 3
    process = machine.spawn()
    addr = mergeable(process, "aaaaaa")
    machine.ksm.scan(3)
    assert (state(machine)[:2], chains(machine)) == ((2, 4), (1, 2))
    first, second = sorted(set(frames(process, addr, 6)), key=frames(process, addr, 6).index)
    places = [i for i, frame in enumerate(frames(process, addr, 6)) if frame == second]
    kept = [i for i, frame in enumerate(frames(process, addr, 6)) if frame == first]
    for i in places + kept[:room]:
        process.munmap(addr + i * PAGE, PAGE)
    machine.ksm.scan()                  # the items of the pages that went are freed
    return process


@pytest.mark.parametrize("room", [0, 1])
@pytest.mark.parametrize("pruning", [False, True])
def test_when_a_chain_of_one_ends(machine, room, pruning):
    """6.1 makes a chain of one a single node only when it is time to prune, and only if the dup has room."""
    process = chain_of_two(machine, room)
    machine.advance(10 if pruning else 0)
    if not pruning:
        machine.ksm.stable_node_chains_prune_millisecs = 1000000
    mergeable(process, "a")
    machine.ksm.scan(2)
    collapsed = not old(machine) or (pruning and room)
    assert chains(machine) == ((0, 0) if collapsed else (1, 1))
    assert state(machine) == ((1, 2, 0, 0) if room else (1, 2, 1, 0))


def test_a_chain_of_one_gets_another_dup(machine):
    process = chain_of_two(machine, 0)
    mergeable(process, "aa")
    machine.ksm.scan(3)
    assert (state(machine), chains(machine)) == ((2, 3, 0, 0), (1, 2))


# What can be read and written

def test_the_files_of_sysfs():
    with ksm.Machine(memory="1M", era=OLD) as machine, ksm.Machine(memory="1M", era=NEW) as newer:
        assert machine.ksm.names() == FILES == [name for name in newer.ksm.names() if name in FILES]
        assert {name: machine.ksm.show(name) for name in FILES} == {name: newer.ksm.show(name) for name in FILES}
        with pytest.raises(AttributeError, match="smart_scan"):
            machine.ksm.smart_scan = 1


@pytest.mark.parametrize("name, value, error", [
    ("run", "3", errno.EINVAL), ("run", "x", errno.EINVAL), ("pages_to_scan", "-1", errno.EINVAL), ("max_page_sharing", "1", errno.EINVAL),
    ("max_page_sharing", "x", errno.EINVAL), ("max_page_sharing", "8", errno.EBUSY), ("merge_across_nodes", "0", errno.EBUSY),
    ("merge_across_nodes", "2", errno.EINVAL), ("use_zero_pages", "x", errno.EINVAL), ("sleep_millisecs", "4294967296", errno.EINVAL),
])  # fmt: skip
def test_what_the_files_refuse(machine, name, value, error):
    mergeable(machine.spawn(), "aa")
    machine.ksm.scan(2)
    with pytest.raises(OSError, match=name) as caught:
        machine.ksm.store(name, value)
    assert caught.value.errno == error


def test_the_files_of_a_process(machine):
    process = machine.spawn()
    mergeable(process, "aab")
    machine.ksm.scan(2)
    stat = {"ksm_rmap_items": 3, "ksm_zero_pages": 0, "ksm_merging_pages": 2, "ksm_process_profit": 2 * PAGE - 3 * 64}
    assert process.ksm_stat() == ({"ksm_rmap_items": 3} if old(machine) else stat)
    assert (process.ksm_rmap_items, process.ksm_merging_pages) == (3, 2)
    if old(machine):
        for name in ("ksm_zero_pages", "ksm_process_profit"):
            with pytest.raises(AttributeError, match=f"^KSM of this era has no {name}$"):
                getattr(process, name)


def test_a_child_counts_what_its_parent_had(machine):
    """6.1 copies both counts with the rest of the address space, and takes nothing back."""
    parent = machine.spawn()
    addr = mergeable(parent, "aab")
    machine.ksm.scan(2)
    child = parent.fork()
    assert (child.ksm_rmap_items, child.ksm_merging_pages) == ((3, 2) if old(machine) else (0, 0))
    machine.ksm.scan(2)
    grandchild = child.fork()
    assert (child.ksm_rmap_items, child.ksm_merging_pages) == ((6, 4) if old(machine) else (3, 2))
    assert grandchild.ksm_rmap_items == (6 if old(machine) else 0)
    assert (parent.ksm_rmap_items, parent.ksm_merging_pages) == (3, 2)
    assert machine.check() == []
    child.munmap(addr, 3 * PAGE)
    machine.ksm.scan(2)
    assert (child.ksm_rmap_items, child.ksm_merging_pages) == ((3, 2) if old(machine) else (0, 0))
    child.exec()
    assert (child.ksm_rmap_items, child.ksm_merging_pages) == (0, 0)


def test_prctl(machine):
    process = machine.spawn()
    for arguments in ((ksm.PR_SET_MEMORY_MERGE, 1), (ksm.PR_GET_MEMORY_MERGE,)):
        if old(machine):
            with pytest.raises(OSError, match="Invalid argument") as caught:
                process.prctl(*arguments)
            assert caught.value.errno == errno.EINVAL
        else:
            process.prctl(*arguments)
    addr = process.mmap(PAGE)
    assert next(each for each in process.maps() if each.start <= addr < each.end).mergeable == (not old(machine))


# The rest of mm/

def test_the_frame_of_a_merged_page_breaks(machine):
    """memory_failure() of 6.1 gives up on a merged page, which stays where it is in a frame that is marked."""
    process = machine.spawn()
    addr = mergeable(process, "aab")
    machine.ksm.scan(2)
    merged, _, single = frames(process, addr, 3)
    if old(machine):
        with pytest.raises(OSError, match="busy") as caught:
            machine.memory_failure(merged)
        assert caught.value.errno == errno.EBUSY
    else:
        assert [named for named, _addr in machine.memory_failure(merged)] == [process]
    assert machine.memory_failure(single) == [(process, addr + 2 * PAGE)]
    assert frames(process, addr, 3) == [merged, merged, single]
    assert process.read(addr, PAGE) == b"a" * PAGE


@pytest.mark.parametrize("era", [OLD, NEW])
def test_parts_of_zeros_of_a_huge_page(era):
    """6.12 maps them to the zero page when the huge page is split, whatever use_zero_pages says."""
    with ksm.Machine(memory="16M", max_memory="16M", era=era, transparent_hugepage="always") as machine:
        process = machine.spawn()
        addr = process.mmap(1024 * PAGE)
        addr += -addr % (512 * PAGE)
        process.write(addr, b"a" * PAGE)
        other = process.mmap(PAGE)
        process.write(other, b"a" * PAGE)
        for start, pages in ((addr, 512), (other, 1)):
            process.madvise(start, pages * PAGE, ksm.MADV_MERGEABLE)
        machine.lru_add_drain_all()
        machine.ksm.scan(4)
        assert machine.vmstat()["thp_split_page"] == 1
        words = process.page_table(addr + PAGE, 511 * PAGE)
        assert all(bool(word & ksm.PAGE_ZERO) == (era == NEW) for word in words)
        assert all(bool(word & ksm.PAGE_KSM) == (era == OLD) for word in words)
        assert machine.check() == []


def test_merged_pages_move(machine):
    process = machine.spawn()
    addr = mergeable(process, "aab")
    machine.ksm.scan(2)
    moved = machine.migrate(frames(process, addr, 1)[0])
    assert frames(process, addr, 2) == [moved, moved]
    assert process.read(addr, 2 * PAGE) == b"a" * (2 * PAGE)
    machine.ksm.scan()
    assert state(machine) == (1, 1, 1, 0)

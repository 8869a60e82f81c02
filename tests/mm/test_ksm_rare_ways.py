# SPDX-License-Identifier: GPL-2.0-only
"""Ways through ksm.c that are seldom taken: pages leave while they are searched for, are held or locked, move to another NUMA node that has
their equals, or are merged and have no stable node."""

import ctypes
import errno
import threading

import pytest
from pages import looks_like_zeros
from waiting import until_it_waits

import ksm
from ksm.testing.corrupt import frame_fields, machine_fields, page_fields

PAGE = ksm.PAGE_SIZE
PG_LOCKED = 0x1


def new_machine(nodes=1):
    machine = ksm.Machine(memory="4M", max_memory="4M", nodes=nodes, swap="256K", clock="manual")
    machine.ksm.smart_scan = 0
    return machine


@pytest.fixture
def machine():
    with new_machine() as machine:
        yield machine
        assert machine.check() == []


@pytest.fixture
def numa():
    with new_machine(2) as machine:
        machine.ksm.merge_across_nodes = 0
        yield machine
        assert machine.check() == []


def mergeable(process, letters):
    addr = process.mmap(len(letters) * PAGE)
    for i, letter in enumerate(letters):
        process.write(addr + i * PAGE, letter.encode() * PAGE)
    process.madvise(addr, len(letters) * PAGE, ksm.MADV_MERGEABLE)
    return addr


def letters(process, addr, pages):
    return "".join(process.read(addr + i * PAGE, PAGE).decode()[0] for i in range(pages))


def frame(process, addr):
    return process.page_table(addr, PAGE)[0] >> ksm.PAGE_FLAGS_SHIFT


def state(machine):
    return machine.ksm.pages_shared, machine.ksm.pages_sharing, machine.ksm.pages_unshared, machine.ksm.pages_volatile


def word(machine, pfn, name):
    """A field of a frame, which the test can write."""
    address, size = frame_fields(machine, pfn)[name]
    return {4: ctypes.c_uint, 8: ctypes.c_ulong}[size].from_address(address)


# Pages that leave

@pytest.mark.parametrize("leave", ["munmap", "unmerge", "exit"])
def test_the_way_leads_past_a_page_that_is_gone(machine, leave):
    """A search in the unstable tree ends where a page has left, and the scanned page waits for the next pass."""
    one, two = machine.spawn(), machine.spawn()
    addr = mergeable(one, "a")
    mergeable(two, "bc")
    machine.ksm.scan()
    machine.ksm.scan(pages=2)
    assert state(machine)[2] == 2
    if leave == "munmap":
        one.munmap(addr, PAGE)
    elif leave == "unmerge":
        one.madvise(addr, PAGE, ksm.MADV_UNMERGEABLE)
    else:
        one.exit()
    assert machine.check() == []
    machine.ksm.scan(pages=1)
    assert state(machine)[2] == 2
    machine.ksm.scan(2)
    assert state(machine) == (0, 0, 2, 0)


# Pages that are held or locked

def test_the_second_of_two_pages_is_held(machine):
    """When the second page turns out to be held, the first one is a merged page already: it is broken again."""
    process = machine.spawn()
    addr = mergeable(process, "aa")
    machine.ksm.scan()
    held = frame(process, addr)
    machine._get_page(held)
    machine.ksm.scan()
    assert state(machine)[:2] == (0, 0)
    assert machine.vmstat()["cow_ksm"] == 1
    machine._put_page(held)
    assert machine.check() == []
    machine.ksm.scan(2)
    assert state(machine) == (1, 1, 0, 0)
    assert letters(process, addr, 2) == "aa"


def test_a_merged_page_is_locked(machine):
    """A page that is being moved is locked, and ksmd must not wait for it. Its equal stays as it is, in no tree, until the next pass."""
    process = machine.spawn()
    addr = mergeable(process, "aaba")
    process.write(addr + 3 * PAGE, b"c" * PAGE)
    machine.ksm.scan(2)
    assert state(machine) == (1, 1, 2, 0)
    process.write(addr + 2 * PAGE, b"a" * PAGE)
    machine.ksm.scan()
    flags = word(machine, frame(process, addr), "page.flags")
    flags.value |= PG_LOCKED
    machine.ksm.scan()
    flags.value &= ~PG_LOCKED
    assert state(machine) == (1, 1, 1, 1)
    machine.ksm.scan()
    assert state(machine) == (1, 2, 1, 0)


def test_a_page_that_would_be_merged_is_locked(machine):
    process = machine.spawn()
    addr = mergeable(process, "aa")
    machine.ksm.scan()
    flags = word(machine, frame(process, addr + PAGE), "page.flags")
    flags.value |= PG_LOCKED
    machine.ksm.scan()
    flags.value &= ~PG_LOCKED
    assert state(machine) == (0, 0, 1, 1)
    machine.ksm.scan()
    assert state(machine) == (1, 1, 0, 0)


def test_a_count_that_is_frozen_for_a_moment(machine):
    """A page in the swap cache has a reference count of 0 for a moment when it moves to another frame: the scan waits."""
    process = machine.spawn()
    addr = mergeable(process, "baa")
    machine.ksm.scan(2)
    process.write(addr, b"a" * PAGE)
    machine.ksm.scan()
    pfn = frame(process, addr + PAGE)
    machine._get_page(pfn)
    process.swap_out(addr + PAGE, PAGE)
    machine._put_page(pfn)
    machine.lru_add_drain_all()
    count = word(machine, pfn, "page.refcount")
    frozen, count.value = count.value, 0
    thread = threading.Thread(target=machine.ksm.scan, kwargs={"pages": 1}, daemon=True)
    try:
        thread.start()
        thread.join(0.1)                # it waits without sleeping, as the kernel does
        assert thread.is_alive()
    finally:
        count.value = frozen
        thread.join(10)
    assert not thread.is_alive()
    assert state(machine) == (1, 2, 0, 0)
    assert letters(process, addr, 3) == "aaa"


def test_nobody_scans_while_frames_go_away(machine):
    mergeable(machine.spawn(), "aa")
    run = ctypes.c_ulong.from_address(machine_fields(machine)["run"].address)
    run.value |= 4
    thread = threading.Thread(target=machine.ksm.scan, args=(2,), daemon=True)
    thread.start()
    until_it_waits(thread)
    assert thread.is_alive() and machine.ksm.pages_scanned == 0
    machine.offline(512, 512)
    thread.join(10)
    assert not thread.is_alive()
    assert state(machine) == (1, 1, 0, 0)


# Memory that is left alone

@pytest.mark.parametrize("bit", [3, 7, 10, 14, 18, 22, 28, 40],
                         ids=["SHARED", "MAYSHARE", "PFNMAP", "IO", "DONTEXPAND", "HUGETLB", "MIXEDMAP", "DROPPABLE"])
def test_memory_that_is_not_the_process_s_own(machine, bit):
    """The port maps no devices, so the test sets the flag. madvise() does nothing then, and neither does prctl()."""
    process = machine.spawn()
    addr = process.mmap(PAGE)
    process.touch(addr)
    address, _ = page_fields(machine, process.mm_id, addr)["vma.flags"]
    flags = ctypes.c_ulong.from_address(address)
    before, flags.value = flags.value, flags.value | 1 << bit
    process.madvise(addr, PAGE, ksm.MADV_MERGEABLE)
    process.prctl(ksm.PR_SET_MEMORY_MERGE, 1)
    assert flags.value == before | 1 << bit
    flags.value = before
    process.madvise(addr, PAGE, ksm.MADV_MERGEABLE)
    assert flags.value == before | 1 << 31


# Unmerging

def test_everything_is_unmerged_after_a_process_has_gone(machine):
    """The process's rmap_items are still there, because no scan was made since. They go, and nothing has to be copied."""
    one, two = machine.spawn(), machine.spawn()
    mergeable(one, "aab")
    addr = mergeable(two, "cc")
    machine.ksm.scan(2)
    one.exit()
    assert machine.slabinfo()["ksm_rmap_item"] == 5
    machine.ksm.run = 2
    assert machine.vmstat()["cow_ksm"] == 2
    assert (machine.slabinfo()["ksm_rmap_item"], machine.slabinfo()["ksm_mm_slot"]) == (0, 1)
    assert state(machine) == (0, 0, 0, 0)
    assert letters(two, addr, 2) == "cc"


def test_a_process_that_asked_for_everything_takes_it_back(machine):
    """Memory that is not mergeable stays as it is: memory with MADV_UNMERGEABLE, and shared memory."""
    process = machine.spawn()
    process.prctl(ksm.PR_SET_MEMORY_MERGE, 1)
    addr = mergeable(process, "aabb")
    process.madvise(addr, 2 * PAGE, ksm.MADV_UNMERGEABLE)
    shared = process.mmap(PAGE, flags=ksm.MAP_SHARED | ksm.MAP_ANONYMOUS)
    process.write(shared, b"s")
    machine.ksm.scan(2)
    assert [vma.mergeable for vma in process.maps() if vma.start in (addr, addr + 2 * PAGE, shared)].count(True) == 1
    process.prctl(ksm.PR_SET_MEMORY_MERGE, 0)
    assert machine.vmstat()["cow_ksm"] == 2
    assert not any(vma.mergeable for vma in process.maps())
    assert (letters(process, addr, 4), process.read(shared, 1)) == ("aabb", b"s")


# A signal

def test_unmerging_is_interrupted(machine):
    process = machine.spawn()
    addr = mergeable(process, "aab")
    machine.ksm.scan(2)
    pending = ctypes.c_int.from_address(machine_fields(machine)["sigpending"].address)
    pending.value = 1
    for call in (lambda: process.madvise(addr, 3 * PAGE, ksm.MADV_UNMERGEABLE), lambda: setattr(machine.ksm, "run", 2)):
        with pytest.raises(OSError) as error:
            call()
        assert error.value.errno == errno.EINTR
        assert state(machine) == (1, 1, 1, 0)
        assert machine.ksm.run == 0
    pending.value = 0
    assert [vma.mergeable for vma in process.maps()] == [True]
    machine.ksm.run = 2
    assert state(machine) == (0, 0, 0, 0)


# Pages that are not what they look like

def test_a_page_with_the_checksum_of_zeros(machine):
    """The page is compared with the zero page before it may share it, and differs."""
    machine.ksm.use_zero_pages = 1
    machine.ksm.trace.start()
    process = machine.spawn()
    addr = mergeable(process, "\0\0")
    process.write(addr, looks_like_zeros())
    machine.ksm.scan(2)
    events = [(event.name, event.error) for event in machine.ksm.trace.read() if event.name.startswith("ksm_merge")]
    assert events == [("ksm_merge_one_page", -errno.EFAULT), ("ksm_merge_one_page", 0)]
    assert process.read(addr, 2 * PAGE) == looks_like_zeros() + bytes(PAGE)
    assert (machine.ksm.ksm_zero_pages, machine.ksm.pages_unshared) == (1, 1)


# Pages that move to another NUMA node

def left_behind(numa):
    """A merged page has moved to node 1, and the scan of an equal page has seen that. Its stable node waits in migrate_nodes."""
    first, one = numa.spawn(), numa.spawn()
    addr, mine = mergeable(first, "b"), mergeable(one, "aau")
    numa.ksm.scan(3)
    assert state(numa) == (1, 1, 2, 0)
    first.write(addr, b"a" * PAGE)
    numa.ksm.scan()
    numa.migrate(frame(one, mine), 1)
    numa.ksm.scan(pages=1)
    assert state(numa) == (1, 1, 2, 0)
    assert numa.check() == []
    return first, addr, one, mine


def test_the_equal_page_has_left_for_another_node(numa):
    """The moved page's stable node leaves its tree, and goes into the tree of node 1 when a sharer is scanned."""
    first, addr, one, mine = left_behind(numa)
    numa.ksm.scan()
    assert state(numa) == (1, 1, 2, 0)
    first.write(addr, b"b" * PAGE)
    numa.ksm.scan(2)
    assert (letters(first, addr, 1), letters(one, mine, 3)) == ("b", "aau")
    one.move_pages(mine, 2 * PAGE, 0)
    first.write(addr, b"a" * PAGE)
    numa.ksm.scan(3)
    assert state(numa) == (1, 2, 1, 0)


def test_everything_is_unmerged_while_a_node_waits(numa):
    _, _, one, mine = left_behind(numa)
    numa.ksm.run = 2
    assert state(numa) == (0, 0, 0, 0)
    assert numa.slabinfo()["ksm_stable_node"] == 0
    assert letters(one, mine, 3) == "aau"


def test_its_frame_goes_away_while_a_node_waits(numa):
    """The page is gone, too. The waiting node has the number of a frame that no longer exists, which must not be looked up."""
    _, _, one, mine = left_behind(numa)
    one.munmap(mine, 2 * PAGE)
    assert numa.slabinfo()["ksm_stable_node"] == 1
    numa.offline(512, 512)
    assert numa.slabinfo()["ksm_stable_node"] == 0
    assert numa.check() == []
    numa.ksm.scan(2)


def test_frames_go_away_while_a_node_waits(numa):
    """The page moves to another frame, and the node goes with it."""
    _, _, one, mine = left_behind(numa)
    numa.offline(512, 512)
    assert numa.slabinfo()["ksm_stable_node"] == 1
    assert numa.check() == []
    numa.ksm.scan(2)
    assert state(numa) == (1, 2, 1, 0)
    assert letters(one, mine, 3) == "aau"


@pytest.mark.parametrize(("sharing", "there"), [(256, 2), (3, 5)], ids=["page", "chain"])
def test_two_pages_change_places(numa, sharing, there):
    """The page that comes finds its equal about to leave. It takes the equal's place in the tree, or in the chain."""
    numa.ksm.max_page_sharing = sharing
    one, two = numa.spawn(node=0), numa.spawn(node=1)
    mine, his = mergeable(one, "aa"), mergeable(two, "a" * there)
    numa.ksm.scan(4)
    before = state(numa)
    assert before == ((2, 2, 0, 0) if there == 2 else (3, 4, 0, 0))
    one.write(mine, b"z" * PAGE)            # which leaves one sharer
    one.move_pages(mine, 2 * PAGE, 1)
    two.move_pages(his, there * PAGE, 0)
    for _ in range(4):
        numa.ksm.scan()
        assert numa.check() == []
    assert (letters(one, mine, 2), letters(two, his, there)) == ("za", "a" * there)
    one.exit()
    two.exit()
    numa.ksm.scan(2)


def test_an_equal_page_of_the_unstable_tree_has_left(numa):
    """The page that has left is in the wrong tree by now: the two do not merge."""
    one, two = numa.spawn(), numa.spawn()
    mine = mergeable(one, "a")
    mergeable(two, "a")
    numa.ksm.scan()
    numa.ksm.scan(pages=1)
    numa.migrate(frame(one, mine), 1)
    numa.ksm.scan(pages=1)
    assert state(numa) == (0, 0, 1, 1)
    numa.ksm.scan(2)
    assert state(numa) == (0, 0, 2, 0)


# Merged pages that only a child has

@pytest.mark.parametrize(("contents", "sharing"), [("aa", 256), ("aaaa", 2)], ids=["page", "chain"])
def test_a_limit_cannot_change_while_a_child_has_merged_pages(machine, contents, sharing):
    """No rmap_item leads to the child's pages, so none counts as shared. But the stable trees are not empty."""
    machine.ksm.max_page_sharing = sharing
    parent = machine.spawn()
    addr = mergeable(parent, contents + "u")
    machine.ksm.scan(3)
    child = parent.fork()
    parent.munmap(addr, len(contents) * PAGE)
    machine.ksm.scan(pages=1)
    assert state(machine) == (0, 0, 1, 0)
    for _ in range(2):
        with pytest.raises(OSError, match="max_page_sharing") as error:
            machine.ksm.max_page_sharing = 5
        assert error.value.errno == errno.EBUSY
        assert machine.check() == []
    machine.ksm.scan()
    assert letters(child, addr, len(contents)) == contents
    child.exit()
    machine.ksm.scan(2)
    machine.ksm.max_page_sharing = 5


@pytest.mark.parametrize(("contents", "sharing"), [("aa", 256), ("aaaaaa", 2)], ids=["page", "chain"])
def test_a_limit_can_change_when_the_child_has_gone(machine, contents, sharing):
    """Stable nodes without pages and without rmap_items are left. A new limit drops them, and their chain."""
    machine.ksm.max_page_sharing = sharing
    parent = machine.spawn()
    addr = mergeable(parent, contents + "u")
    machine.ksm.scan(4)
    child = parent.fork()
    parent.munmap(addr, len(contents) * PAGE)
    machine.ksm.scan(pages=1)
    child.exit()
    assert (machine.ksm.stable_node_chains, machine.ksm.stable_node_dups) == ((0, 0) if len(contents) == 2 else (1, 3))
    assert machine.slabinfo()["ksm_stable_node"] == (1 if len(contents) == 2 else 4)
    machine.ksm.max_page_sharing = 5
    assert (machine.ksm.stable_node_chains, machine.ksm.stable_node_dups, machine.slabinfo()["ksm_stable_node"]) == (0, 0, 0)


def test_merge_across_nodes_cannot_change_while_a_node_waits(numa):
    _, _, one, mine = left_behind(numa)
    child = one.fork()
    one.munmap(mine, 2 * PAGE)
    numa.ksm.scan(pages=1)
    assert state(numa)[:2] == (0, 0)
    with pytest.raises(OSError, match="merge_across_nodes") as error:
        numa.ksm.merge_across_nodes = 1
    assert error.value.errno == errno.EBUSY
    assert letters(child, mine, 2) == "aa"


# Merged pages without a node

def test_a_merged_page_that_has_no_node(machine):
    """There is no memory for a stable node, and none to undo the merge. The page stays merged, and its mappings cannot be found from its
    frame: it does not move. Unmerging finds it."""
    process = machine.spawn()
    addr = mergeable(process, "aab")
    machine.ksm.scan()
    machine.fail("ksm_stable_node", 1, 1 << 40)
    machine.fail("page", 1, 1 << 40)
    machine.ksm.scan()
    machine.fail("ksm_stable_node", 0)
    machine.fail("page", 0)
    assert machine.check() == []
    pfn = frame(process, addr)
    assert frame(process, addr + PAGE) == pfn
    assert state(machine)[:2] == (0, 0)
    with pytest.raises(OSError, match="frame"):
        machine.migrate(pfn)
    machine.ksm.scan(2)
    assert machine.check() == []
    broken = machine.vmstat()["cow_ksm"]
    process.madvise(addr, 3 * PAGE, ksm.MADV_UNMERGEABLE)
    assert frame(process, addr + PAGE) != frame(process, addr)
    assert machine.vmstat()["cow_ksm"] - broken == 2
    assert letters(process, addr, 3) == "aab"


def test_a_frame_breaks_whose_page_has_no_node(machine):
    process = machine.spawn()
    addr = mergeable(process, "aab")
    machine.ksm.scan()
    machine.fail("ksm_stable_node", 1, 1 << 40)
    machine.fail("page", 1, 1 << 40)
    machine.ksm.scan()
    machine.fail("ksm_stable_node", 0)
    machine.fail("page", 0)
    assert machine.memory_failure(frame(process, addr)) == []
    assert machine.check() == []
    process.exit()


def test_each_process_with_a_broken_page_is_told_once(machine):
    """The parent's anon_vma leads to the child's mapping as well, and each of the two processes has two rmap_items at the node."""
    parent = machine.spawn()
    addr = mergeable(parent, "aab")
    machine.ksm.scan(2)
    child = parent.fork()
    machine.ksm.scan()
    assert state(machine)[:2] == (1, 3)
    places = machine.memory_failure(frame(parent, addr))
    assert len(places) == 2
    assert {process for process, _ in places} == {parent, child}
    assert {place for _, place in places} <= {addr, addr + PAGE}


def test_a_broken_page_is_not_copied_on_its_way_back(machine):
    """A merged page is held in the swap cache when its frame breaks. A process that touches it gets an error. So does swapoff, which would
    make copies after run = 2."""
    process = machine.spawn()
    addr = mergeable(process, "aa")
    machine.ksm.scan(2)
    pfn = frame(process, addr)
    machine._get_page(pfn)
    process.swap_out(addr, 2 * PAGE)
    machine.memory_failure(pfn)
    machine._put_page(pfn)
    machine.ksm.run = 2
    with pytest.raises(OSError, match="read") as error:
        process.read(addr, 1)
    assert error.value.errno == errno.EFAULT
    with pytest.raises(OSError, match="swapoff") as error:
        machine.swapoff()
    assert error.value.errno == errno.EIO
    assert machine.check() == []
    process.exit()


# Pages that are skipped

def test_a_page_that_never_merges_is_looked_at_less_and_less_often(machine):
    machine.ksm.smart_scan = 1
    mergeable(machine.spawn(), "a")
    looked_at = []
    for number in range(1, 33):
        before = machine.ksm.pages_scanned
        machine.ksm.scan()
        if machine.ksm.pages_scanned > before:
            looked_at.append(number)
    assert looked_at == [1, 2, 3, 4, 6, 9, 14, 23, 32]

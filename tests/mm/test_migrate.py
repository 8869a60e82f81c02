# SPDX-License-Identifier: GPL-2.0-only
"""Pages move to other frames and other NUMA nodes: a merged page with all its mappings, and with its stable node."""

import errno
import random
import signal
import threading
import time
import tracemalloc

import pytest
from pages import PAGE, Life, damage, fill, finish, frames, mergeable

import ksm

ACTIONS = [
    "write", "write", "fork", "spawn", "swap_out", "scan",
    "scan", "exit", "unmerge", "merge", "move", "migrate", "migrate", "write_by_force", "update",
]  # fmt: skip


def make(nodes=1, **knobs):
    machine = ksm.Machine("64M", nodes=nodes, swap="16M")
    machine.ksm.smart_scan = 0
    for name, value in knobs.items():
        setattr(machine.ksm, name, value)
    return machine


@pytest.fixture
def machine():
    machine = make()
    yield machine
    finish(machine)


def node_of(machine, frame):
    return frame * 2 // machine.total_pages()


def test_a_private_page(machine):
    process = machine.spawn()
    addr = process.mmap(2 * PAGE)
    process.write(addr, fill(1) + fill(2))
    (frame, other) = frames(process, addr, 2)
    new = machine.migrate(frame)
    assert new != frame
    assert frames(process, addr, 2) == [new, other]
    assert process.read(addr, 2 * PAGE) == fill(1) + fill(2)
    assert machine.vmstat()["pgmigrate_success"] == 1
    # The page is still exclusive, and writable: no fault, no copy.
    faults = machine.vmstat()["pgfault"]
    process.write(addr, b"X")
    assert machine.vmstat()["pgfault"] == faults
    assert frames(process, addr) == [new]


def test_a_page_shared_by_fork(machine):
    parent = machine.spawn()
    addr = parent.mmap(PAGE)
    parent.write(addr, fill(1))
    children = [parent.fork() for _ in range(3)]
    children.append(children[0].fork())
    new = machine.migrate(frames(parent, addr)[0])
    assert {frames(process, addr)[0] for process in (parent, *children)} == {new}
    children[3].write(addr, b"X")
    assert parent.read(addr, PAGE) == fill(1)


def test_a_merged_page_in_a_tree_of_processes(machine):
    """Two unrelated processes share the page, and so do children and grandchildren: ksmd has scanned only one of these."""
    one, two = machine.spawn(), machine.spawn()
    a, b = mergeable(one, [fill(1)] * 2 + [fill(9)]), mergeable(two, [fill(1)] * 3)
    child = one.fork()
    machine.ksm.scan(passes=3)
    grandchild, cousin = child.fork(), two.fork()
    (frame,) = set(frames(one, a, 2))
    stats = [process.ksm_stat() for process in (one, two)]
    machine.lru_add_drain_all()
    new = machine.migrate(frame)
    for process, addr, pages in ((one, a, 2), (child, a, 2), (grandchild, a, 2), (two, b, 3), (cousin, b, 3)):
        assert set(frames(process, addr, pages)) == {new}
        assert process.read(addr, pages * PAGE) == fill(1) * pages
    assert damage(machine) == []
    assert [process.ksm_stat() for process in (one, two)] == stats
    shared = machine.ksm.pages_shared, machine.ksm.pages_sharing
    machine.ksm.scan(passes=2)
    assert machine.ksm.pages_shared == shared[0] == 1
    assert machine.ksm.pages_sharing == 2 * 2 + 2 + 3 + 3 - 1
    # The node is found by its new frame: another equal page merges into it.
    other = machine.spawn()
    there = mergeable(other, [fill(1)])
    machine.ksm.scan(passes=2)
    assert frames(other, there) == [new]
    # A write and MADV_UNMERGEABLE break the page as before it moved.
    two.write(b, b"X")
    assert one.read(a, PAGE) == fill(1)
    one.madvise(a, 3 * PAGE, ksm.MADV_UNMERGEABLE)
    assert new not in frames(one, a, 3)


def test_who_cannot_move(machine):
    process = machine.spawn()
    addr = process.mmap(3 * PAGE)
    process.write(addr, fill(1))
    machine.lru_add_drain_all()
    (frame,) = frames(process, addr)
    shared = process.mmap(PAGE, flags=ksm.MAP_SHARED | ksm.MAP_ANONYMOUS)
    process.write(shared, b"shared")
    process.read(addr + PAGE, 1)

    def fails(number, frame):
        with pytest.raises(OSError) as caught:
            machine.migrate(frame)
        assert caught.value.errno == number

    fails(errno.EBUSY, 0)                               # the zero page
    fails(errno.EBUSY, frames(process, shared)[0])      # of a shared object
    fails(errno.EBUSY, machine.total_pages() - 1)       # free
    fails(errno.EINVAL, machine.total_pages())
    machine._get_page(frame)
    fails(errno.EAGAIN, frame)
    assert machine.vmstat()["pgmigrate_fail"] == 1
    assert process.read(addr, PAGE) == fill(1)
    assert frames(process, addr) == [frame]
    process.write(addr, b"X")                           # still exclusive: no copy
    assert frames(process, addr) == [frame]
    machine._put_page(frame)
    # The page is in the LRU batch now. The batch's reference does not prevent the move, because batches are emptied first.
    assert machine.migrate(frame) != frame
    with pytest.raises(ValueError, match="node 1"):
        machine.migrate(frame, node=1)


def test_a_merged_page_that_somebody_holds(machine):
    process = machine.spawn()
    addr = mergeable(process, [fill(1)] * 3)
    machine.ksm.scan(passes=3)
    child = process.fork()
    frame = frames(process, addr)[0]
    machine._get_page(frame)
    with pytest.raises(OSError) as caught:
        machine.migrate(frame)
    assert caught.value.errno == errno.EAGAIN
    assert set(frames(process, addr, 3) + frames(child, addr, 3)) == {frame}
    machine._put_page(frame)
    machine.lru_add_drain_all()
    assert damage(machine) == []


def test_no_memory():
    with ksm.Machine("1M") as machine:
        process = machine.spawn()
        addr = process.mmap(400 * PAGE)
        with pytest.raises(OSError):
            for i in range(400):
                process.write(addr + i * PAGE, fill(i))
        frame = frames(process, addr)[0]
        with pytest.raises(OSError) as caught:
            machine.migrate(frame)
        assert caught.value.errno == errno.ENOMEM
        assert process.read(addr, PAGE) == fill(0)
        assert machine.check() == []


def test_pages_of_the_swap_cache(machine):
    process = machine.spawn()
    addr = mergeable(process, [fill(1)] * 2 + [fill(2)])
    machine.ksm.scan(passes=3)
    process.swap_out(addr + 2 * PAGE, PAGE)
    assert process.read(addr + 2 * PAGE, PAGE) == fill(2)
    machine.migrate(frames(process, addr + 2 * PAGE)[0])
    assert machine.check() == []
    assert process.read(addr + 2 * PAGE, PAGE) == fill(2)
    # A merged page of the cache that no process maps: swap entries find it at its new frame.
    frame = frames(process, addr)[0]
    machine._get_page(frame)
    assert process.swap_out(addr, 2 * PAGE) == 0
    machine._put_page(frame)
    new = machine.migrate(frame)
    assert machine.check() == []
    assert process.read(addr, 2 * PAGE) == fill(1) * 2
    assert frames(process, addr, 2) == [new, new]
    assert machine.vmstat()["ksm_swpin_copy"] == 0
    assert machine.ksm.pages_shared == 1


def test_faults_wait_for_the_move(machine):
    process = machine.spawn()
    addr = mergeable(process, [fill(1)] * 4)
    machine.ksm.scan(passes=3)
    child = process.fork()
    errors = []
    done = threading.Event()

    def reads(who):
        while not done.is_set():
            if who.read(addr, 4 * PAGE) != fill(1) * 4:
                errors.append(who)
                return

    threads = [threading.Thread(target=reads, args=(who,)) for who in (process, child)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            try:
                machine.migrate(frames(process, addr)[0])
            except OSError as error:
                assert error.errno in (errno.EAGAIN, errno.EBUSY)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not errors
    assert damage(machine) == []


# Nodes

@pytest.fixture
def numa():
    machine = make(nodes=2, merge_across_nodes=0)
    yield machine
    finish(machine)


def test_faults_prefer_a_node(numa):
    near, far = numa.spawn(), numa.spawn(node=1)
    assert (near.node, far.node) == (0, 1)
    child = far.fork()
    assert child.node == 1
    for process, node in ((near, 0), (far, 1), (child, 1)):
        addr = process.mmap(4 * PAGE)
        process.touch(addr, 4 * PAGE)
        assert {node_of(numa, frame) for frame in frames(process, addr, 4)} == {node}
    far.exec()
    assert far.node == 1
    with pytest.raises(ValueError, match="node 2"):
        numa.spawn(node=2)


def test_move_pages(numa):
    process = numa.spawn()
    addr = process.mmap(5 * PAGE)
    process.write(addr, fill(1) + fill(2))
    process.read(addr + 2 * PAGE, 1)
    held = frames(process, addr)[0]
    numa.lru_add_drain_all()
    numa._get_page(held)
    assert process.move_pages(addr, 6 * PAGE, 1) == [-errno.EAGAIN, 1, -errno.EFAULT, -errno.ENOENT, -errno.ENOENT, -errno.EFAULT]
    numa._put_page(held)
    assert process.move_pages(addr, 2 * PAGE, 1) == [1, 1]
    assert {node_of(numa, frame) for frame in frames(process, addr, 2)} == {1}
    assert process.move_pages(addr, 2 * PAGE, 0) == [0, 0]
    assert process.read(addr, 2 * PAGE) == fill(1) + fill(2)


@pytest.mark.parametrize("era", ksm.machine.ERAS)
def test_a_page_that_stays_ends_the_call(era):
    """Pages are queued until one cannot be. Then the queue moves, and if a page of it stays, the rest is not tried (since 4.17)."""
    with ksm.Machine("4M", nodes=2, era=era) as numa:
        process = numa.spawn()
        addr = process.mmap(6 * PAGE)
        for number in (0, 1, 3, 5):
            process.write(addr + number * PAGE, fill(number))
        held = frames(process, addr)[0]
        numa.lru_add_drain_all()
        numa._get_page(held)
        rest = 1 if era == "2.6.38" else 0
        assert process.move_pages(addr, 6 * PAGE, 1) == [-errno.EAGAIN, 1, -errno.ENOENT, rest, -errno.ENOENT, rest]
        assert process.move_pages(addr + PAGE, 5 * PAGE, 1) == [1, -errno.ENOENT, 1, -errno.ENOENT, 1]
        numa._put_page(held)


@pytest.mark.parametrize("era", ksm.machine.ERAS)
def test_where_pages_are(era):
    """move_pages(2) without nodes. 6.1 says that a page to which its mapping gives no access is not there."""
    with ksm.Machine("4M", nodes=2, era=era) as numa:
        process = numa.spawn(node=1)
        addr = process.mmap(5 * PAGE)
        process.write(addr, fill(1) * 2)
        process.read(addr + 2 * PAGE, 1)
        assert process.move_pages(addr, 6 * PAGE, None) == [1, 1, -errno.EFAULT, -errno.ENOENT, -errno.ENOENT, -errno.EFAULT]
        process.mprotect(addr, PAGE, ksm.PROT_NONE)
        assert process.move_pages(addr, 2 * PAGE, None) == [-errno.ENOENT if era == "6.1" else 1, 1]


def test_a_page_that_is_in_the_range_twice(numa):
    """It is isolated for its first place already, so for the second it says EBUSY, and moves all the same."""
    process = numa.spawn()
    addr = process.mmap(3 * PAGE)
    process.write(addr, fill(1) * 2 + fill(2))
    process.madvise(addr, 3 * PAGE, ksm.MADV_MERGEABLE)
    numa.ksm.run = 1
    numa.ksm.scan(passes=2)
    numa.lru_add_drain_all()
    assert process.move_pages(addr, 3 * PAGE, 1) == [1, -errno.EBUSY, 1]
    assert {node_of(numa, frame) for frame in frames(process, addr, 3)} == {1}
    assert process.move_pages(addr, 3 * PAGE, 1) == [1, 1, 1]


def test_move_pages_of_more_than_can_be_told(numa):
    """The answer has an entry for each page, so the range has a limit."""
    process = numa.spawn()
    addr = process.mmap(1 << 40)
    process.write(addr, fill(1))
    numa.lru_add_drain_all()
    before = time.process_time()
    tracemalloc.start()
    for length in (1 << 40, (1 << 34) + 1, (1 << 47) - addr, (1 << 64) - addr - 1):
        with pytest.raises(OSError, match="too long") as caught:
            process.move_pages(addr, length, 1)
        assert caught.value.errno == errno.E2BIG
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert time.process_time() - before < 0.5
    assert node_of(numa, frames(process, addr)[0]) == 0
    assert process.move_pages(addr, 1 << 22, 1) == [1] + [-errno.ENOENT] * 1023
    assert process.move_pages(addr + (1 << 22), 0, 1) == []


def test_move_pages_hears_signals(numa):
    process = numa.spawn()
    addr = process.mmap(1 << 34)
    seen = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: seen.append(1 / 0))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        with pytest.raises(ZeroDivisionError):
            process.move_pages(addr, 1 << 34, 1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("node", [0, 1])
def test_a_node_that_is_full(node):
    """A page that is moved to the full node stays where it is. A page that may go anywhere finds room on the other node."""
    with ksm.Machine("4M", nodes=2) as numa:
        process, filler = numa.spawn(node=1 - node), numa.spawn(node=node)
        addr, much = process.mmap(PAGE), filler.mmap(4 << 20)
        process.write(addr, fill(1))
        frame = frames(process, addr)[0]
        while node_of(numa, frames(filler, much, filler.rss())[-1] if filler.rss() else node * 512) == node:
            filler.touch(much + filler.rss() * PAGE)
        numa.lru_add_drain_all()
        with pytest.raises(OSError) as caught:
            numa.migrate(frame, node)
        assert caught.value.errno == errno.ENOMEM
        assert process.move_pages(addr, PAGE, node) == [-errno.ENOMEM]
        assert frames(process, addr) == [frame]
        moved = numa.migrate(frame)
        assert node_of(numa, moved) == 1 - node
        assert process.read(addr, PAGE) == fill(1)
        assert numa.check() == []


def test_each_node_has_its_own_merged_page(numa):
    near, far = numa.spawn(), numa.spawn(node=1)
    a, b = mergeable(near, [fill(1)] * 3), mergeable(far, [fill(1)] * 3)
    numa.ksm.scan(passes=3)
    assert (numa.ksm.pages_shared, numa.ksm.pages_sharing) == (2, 4)
    assert [node_of(numa, frame) for frame in frames(near, a, 3) + frames(far, b, 3)] == [0, 0, 0, 1, 1, 1]


def test_a_page_with_a_new_node_is_linked_there(numa):
    """The page moves to a NUMA node whose tree has no equal page: its stable node goes into that tree."""
    process = numa.spawn()
    addr = mergeable(process, [fill(1)] * 3)
    numa.ksm.scan(passes=3)
    new = numa.migrate(frames(process, addr)[0], node=1)
    assert node_of(numa, new) == 1
    assert set(frames(process, addr, 3)) == {new}
    assert damage(numa) == []
    numa.ksm.scan(passes=1)
    assert (numa.ksm.pages_shared, numa.ksm.pages_sharing) == (1, 2)
    assert damage(numa) == []
    # The stable node is in the tree of node 1: a process there finds it, a process on node 0 does not.
    far, near = numa.spawn(node=1), numa.spawn()
    b, c = mergeable(far, [fill(1)]), mergeable(near, [fill(1)])
    numa.ksm.scan(passes=3)
    assert frames(far, b) == [new]
    assert frames(near, c) != [new]
    assert (numa.ksm.pages_shared, numa.ksm.pages_sharing) == (1, 3)


def test_a_page_that_meets_its_equal_on_the_new_node(numa):
    """Both pages are merged already. The moved page is shared, so it becomes a second page of these contents, in a chain."""
    near, far = numa.spawn(), numa.spawn(node=1)
    a, b = mergeable(near, [fill(1)] * 3), mergeable(far, [fill(1)] * 3)
    numa.ksm.scan(passes=3)
    new = numa.migrate(frames(near, a)[0], node=1)
    numa.ksm.scan(passes=2)
    assert damage(numa) == []
    assert set(frames(near, a, 3)) == {new}
    assert set(frames(far, b, 3)) != {new}
    assert (numa.ksm.pages_shared, numa.ksm.pages_sharing) == (2, 4)
    assert numa.ksm.stable_node_chains == 1
    assert numa.ksm.stable_node_dups == 2


def test_a_page_with_one_mapping_that_meets_its_equal(numa):
    """Trap 9 of docs/traps.md: the page cannot be merged with its equal, because page_address_in_vma() does not know merged pages. KSM
    tries again in every pass. The page stays, and no counter has it."""
    near, far = numa.spawn(), numa.spawn(node=1)
    a, b = mergeable(near, [fill(1)] * 2), mergeable(far, [fill(1)] * 3)
    numa.ksm.scan(passes=3)
    near.munmap(a + PAGE, PAGE)
    new = numa.migrate(frames(near, a)[0], node=1)
    for _ in range(3):
        numa.ksm.scan(passes=1)
        assert frames(near, a) == [new]
        assert near.read(a, PAGE) == fill(1)
        assert (numa.ksm.pages_shared, numa.ksm.pages_sharing) == (1, 2)
        assert all("no rmap_item" in line for line in numa.check())
    # No rmap walk finds the page's mapping any more: it cannot move.
    numa.lru_add_drain_all()
    with pytest.raises(OSError) as caught:
        numa.migrate(new)
    assert caught.value.errno == errno.EAGAIN
    near.write(a, b"X")
    assert far.read(b, PAGE) == fill(1)


def test_merge_across_nodes_cannot_change_while_pages_are_merged(numa):
    process = numa.spawn()
    addr = mergeable(process, [fill(1)] * 2)
    numa.ksm.scan(passes=3)
    numa.migrate(frames(process, addr)[0], node=1)
    for value in (1, "1"):
        with pytest.raises(OSError) as caught:
            numa.ksm.merge_across_nodes = value
        assert caught.value.errno == errno.EBUSY
    numa.ksm.run = 2
    numa.ksm.merge_across_nodes = 1
    assert process.read(addr, 2 * PAGE) == fill(1) * 2
    assert damage(numa) == []


def test_merged_across_nodes_nothing_is_linked_anew():
    machine = make(nodes=2)
    process = machine.spawn()
    addr = mergeable(process, [fill(1)] * 2)
    machine.ksm.scan(passes=3)
    new = machine.migrate(frames(process, addr)[0], node=1)
    near = machine.spawn()
    there = mergeable(near, [fill(1)])
    machine.ksm.scan(passes=3)
    assert frames(near, there) == [new]
    assert (machine.ksm.pages_shared, machine.ksm.pages_sharing) == (1, 2)
    finish(machine)


@pytest.mark.parametrize("across", [0, 1])
@pytest.mark.parametrize("seed", range(8))
def test_everything_at_random(seed, across):
    rng = random.Random(seed)
    machine = make(nodes=2, merge_across_nodes=across, max_page_sharing=rng.choice([2, 4, 256]))
    life = Life(machine, rng, pages=16, contents=4)
    for _ in range(150):
        life.step(rng.choice(ACTIONS))
        assert damage(machine) == []
    life.finish()
    finish(machine)

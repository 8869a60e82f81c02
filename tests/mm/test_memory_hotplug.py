# SPDX-License-Identifier: GPL-2.0-only
"""Frames leave the machine: parts of its memory, images, and broken frames."""

import errno
import threading
import time

import pytest
from pages import PAGE, fails, fill, finish, frames, mergeable

import ksm

BLOCK = 512


@pytest.fixture
def machine():
    machine = ksm.Machine("16M")
    machine.ksm.smart_scan = 0
    yield machine
    assert machine.check() == []
    finish(machine)


def in_second_block(machine):
    """A process with so much memory that the next pages are in the second block."""
    process = machine.spawn()
    addr = process.mmap(BLOCK * PAGE)
    process.touch(addr, BLOCK * PAGE)
    machine.lru_add_drain_all()
    return process, addr


def test_unused_memory(machine):
    free = machine.free_pages()
    machine.offline(2 * BLOCK, 3 * BLOCK)
    assert machine.free_pages() == free - 3 * BLOCK
    assert machine.total_pages() == 16 * BLOCK // 2 - 3 * BLOCK
    assert machine.check() == []
    process = machine.spawn()
    addr = process.mmap(16 << 20)
    with pytest.raises(OSError):
        process.touch(addr, 16 << 20)
    assert process.rss() == machine.total_pages() - 1
    assert not {frame for frame in frames(process, addr, 4096) if frame and 2 * BLOCK <= frame < 5 * BLOCK}
    process.munmap(addr, 16 << 20)
    assert machine.check() == []
    machine.online(2 * BLOCK, 3 * BLOCK)
    machine.lru_add_drain_all()
    assert machine.free_pages() == free


def test_ranges(machine):
    fails(errno.EINVAL, machine.offline, 1, BLOCK)
    fails(errno.EINVAL, machine.offline, BLOCK, 100)
    fails(errno.EINVAL, machine.offline, BLOCK, 0)
    fails(errno.EINVAL, machine.offline, 7 * BLOCK, 2 * BLOCK)
    fails(errno.EINVAL, machine.offline, 1 << 40, BLOCK)
    fails(errno.EINVAL, machine.online, BLOCK, BLOCK)
    fails(errno.EBUSY, machine.offline, 0, BLOCK)       # the zero page
    machine.offline(BLOCK, BLOCK)
    fails(errno.EINVAL, machine.offline, BLOCK, BLOCK)
    machine.online(BLOCK, BLOCK)


def test_pages_move_out(machine):
    process, addr = in_second_block(machine)
    before = frames(process, addr, BLOCK)
    assert any(frame >= BLOCK for frame in before)
    process.write(addr, b"".join(fill(i) for i in range(BLOCK)))
    machine.offline(BLOCK, BLOCK)
    assert all(not BLOCK <= frame < 2 * BLOCK for frame in frames(process, addr, BLOCK))
    assert process.read(addr, BLOCK * PAGE) == b"".join(fill(i) for i in range(BLOCK))
    fails(errno.EINVAL, machine.offline, BLOCK, BLOCK)
    machine.online(BLOCK, BLOCK)


def test_merged_pages_move_out(machine):
    process, _ = in_second_block(machine)
    addr = mergeable(process, [fill(i // 4) for i in range(64)])
    machine.ksm.scan(passes=3)
    child = process.fork()
    assert (machine.ksm.pages_shared, machine.ksm.pages_sharing) == (16, 48)
    assert all(BLOCK <= frame < 2 * BLOCK for frame in frames(process, addr, 64))
    gone = mergeable(process, [fill(100)] * 2)
    machine.ksm.scan(passes=3)
    process.munmap(gone, 2 * PAGE)                       # a stale node, whose frame number lies in the range
    assert (machine.ksm.pages_shared, machine.ksm.pages_sharing) == (17, 113)
    machine.offline(BLOCK, BLOCK)
    assert machine.ksm.run == 0
    assert machine.check() == []
    # The stale node is dropped; the others have moved.
    assert (machine.ksm.pages_shared, machine.ksm.pages_sharing) == (16, 112)
    for who in (process, child):
        assert who.read(addr, 64 * PAGE) == b"".join(fill(i // 4) for i in range(64))
    machine.ksm.scan(passes=2)
    assert (machine.ksm.pages_shared, machine.ksm.pages_sharing) == (16, 112)
    machine.online(BLOCK, BLOCK)


@pytest.mark.parametrize("stale", [2, 4], ids=["some", "all"])
def test_stale_pages_of_a_chain_go_away(machine, stale):
    """Equal pages with two sharers each make a chain, which is dropped with the last of its pages."""
    machine.ksm.max_page_sharing = 2
    process, _ = in_second_block(machine)
    addr = mergeable(process, [fill(1)] * 8)
    machine.ksm.scan(passes=4)
    before = frames(process, addr, 8)
    assert (machine.ksm.stable_node_chains, machine.ksm.stable_node_dups, len(set(before))) == (1, 4, 4)
    assert min(before) >= BLOCK
    gone = sorted(set(before))[:stale]
    for i, frame in enumerate(before):
        if frame in gone:
            process.munmap(addr + i * PAGE, PAGE)
    assert (machine.ksm.stable_node_chains, machine.ksm.stable_node_dups) == (1, 4)
    machine.offline(BLOCK, BLOCK)
    assert (machine.ksm.stable_node_chains, machine.ksm.stable_node_dups) == ((0, 0) if stale == 4 else (1, 4 - stale))
    assert machine.slabinfo()["ksm_stable_node"] == (0 if stale == 4 else 5 - stale)
    assert machine.check() == []
    machine.ksm.scan(passes=2)
    for i, frame in enumerate(before):
        if frame not in gone:
            assert process.read(addr + i * PAGE, PAGE) == fill(1)
    machine.online(BLOCK, BLOCK)


@pytest.mark.parametrize("frame", [BLOCK - 1, BLOCK, 2 * BLOCK - 1, 2 * BLOCK])
def test_a_stale_node_goes_with_its_frame(machine, frame):
    """The offline call drops a stale node if its frame goes. A stale node of another frame can wait until a search meets it."""
    process = machine.spawn()
    addr = mergeable(process, [fill(number) for number in range(3 * BLOCK)])
    there = frames(process, addr, 3 * BLOCK).index(frame)
    process.write(addr, fill(there))
    machine.ksm.scan(2)
    assert frames(process, addr) == [frame] and machine.ksm.pages_shared == 1
    process.munmap(addr, 3 * BLOCK * PAGE)
    assert machine.slabinfo()["ksm_stable_node"] == 1
    machine.offline(BLOCK, BLOCK)
    assert machine.slabinfo()["ksm_stable_node"] == (not BLOCK <= frame < 2 * BLOCK)


def test_what_cannot_move_cancels(machine):
    process, _ = in_second_block(machine)
    addr = mergeable(process, [fill(i // 4) for i in range(16)])
    machine.ksm.scan(passes=3)
    free = machine.free_pages()
    frame = frames(process, addr)[0]
    assert BLOCK <= frame < 2 * BLOCK
    machine._get_page(frame)
    fails(errno.EBUSY, machine.offline, BLOCK, BLOCK)
    assert machine.ksm.run == 0                          # KSM_RUN_OFFLINE is gone
    assert frames(process, addr)[0] == frame
    machine._put_page(frame)
    machine.lru_add_drain_all()
    assert machine.check() == []
    assert machine.free_pages() == free
    assert machine.ksm.pages_shared == 4
    assert process.read(addr, 16 * PAGE) == b"".join(fill(i // 4) for i in range(16))
    machine.offline(BLOCK, BLOCK)
    machine.online(BLOCK, BLOCK)


def test_shared_objects_do_not_move(machine):
    process, _ = in_second_block(machine)
    addr = process.mmap(PAGE, flags=ksm.MAP_SHARED | ksm.MAP_ANONYMOUS)
    process.write(addr, b"shared")
    fails(errno.EBUSY, machine.offline, BLOCK, BLOCK)
    assert process.read(addr, 6) == b"shared"


def test_no_room_elsewhere():
    with ksm.Machine("4M") as machine:
        process = machine.spawn()
        addr = process.mmap(900 * PAGE)
        process.touch(addr, 900 * PAGE)
        machine.lru_add_drain_all()
        free = machine.free_pages()
        fails(errno.EBUSY, machine.offline, BLOCK, BLOCK)
        assert machine.free_pages() == free
        assert machine.check() == []


def test_other_nodes_take_the_pages():
    with ksm.Machine("16M", nodes=2) as machine:
        process = machine.spawn(node=1)
        addr = process.mmap(8 * PAGE)
        process.write(addr, b"".join(map(fill, range(8))))
        assert min(frames(process, addr, 8)) >= 4 * BLOCK
        machine.offline(4 * BLOCK, 4 * BLOCK)
        assert max(frames(process, addr, 8)) < 4 * BLOCK
        assert process.read(addr, 8 * PAGE) == b"".join(map(fill, range(8)))
        process.touch(process.mmap(8 * PAGE), 8 * PAGE)  # a node without memory
        assert machine.check() == []


def test_ksmd_waits_until_it_is_over(machine):
    process, _ = in_second_block(machine)
    addr = mergeable(process, [fill(i // 2) for i in range(64)])
    machine.ksm.sleep_millisecs = 0
    machine.ksm.run = 1
    for _ in range(30):
        machine.offline(BLOCK, BLOCK)
        machine.online(BLOCK, BLOCK)
    machine.ksm.run = 0
    machine.ksm.scan(passes=3)
    assert machine.ksm.pages_shared == 32
    assert process.read(addr, 64 * PAGE) == b"".join(fill(i // 2) for i in range(64))


def test_processes_go_on_meanwhile(machine):
    process, _ = in_second_block(machine)
    addr = mergeable(process, [fill(i // 2) for i in range(64)])
    machine.ksm.scan(passes=3)
    child = process.fork()
    done, errors = threading.Event(), []

    def works():
        number = 0
        while not done.is_set():
            number += 1
            child.write(addr, fill(number % 1000))
            if child.read(addr, 2 * PAGE) != fill(number % 1000) + fill(0):
                errors.append(number)

    thread = threading.Thread(target=works)
    thread.start()
    try:
        for _ in range(20):
            try:
                machine.offline(BLOCK, BLOCK)
                machine.online(BLOCK, BLOCK)
            except OSError as error:
                assert error.errno == errno.EBUSY
    finally:
        done.set()
        thread.join()
    assert not errors


# Broken frames

@pytest.fixture
def broken():
    machine = ksm.Machine("16M")
    machine.ksm.smart_scan = 0
    yield machine
    for process in list(machine.processes.values()):
        process.exit()
    machine.ksm.scan(passes=2)
    machine.lru_add_drain_all()
    assert machine.check() == []
    machine.close()


def test_who_has_a_private_page(broken):
    machine = broken
    process = machine.spawn()
    addr = process.mmap(2 * PAGE)
    process.write(addr, fill(1) + fill(2))
    child = process.fork()
    frame, other = frames(process, addr, 2)
    assert sorted(machine.memory_failure(frame), key=str) == sorted([(process, addr), (child, addr)], key=str)
    child.write(addr + PAGE, b"X")
    assert machine.memory_failure(other) == [(process, addr + PAGE)]
    fails(errno.EBUSY, machine.migrate, frame)
    fails(errno.ENXIO, machine.memory_failure, 0)
    fails(errno.ENXIO, machine.memory_failure, machine.total_pages())
    fails(errno.EBUSY, machine.memory_failure, machine.total_pages() - 1)
    assert machine.check() == []


def test_who_has_a_merged_page(broken):
    machine = broken
    one, two = machine.spawn(), machine.spawn()
    a, b = mergeable(one, [fill(1)] * 2), mergeable(two, [fill(1)])
    machine.ksm.scan(passes=3)
    child = one.fork()
    # Each process is told once, at the first place that the node's rmap_items lead to: the page that was merged last comes first.
    found = machine.memory_failure(frames(one, a)[0])
    assert len(found) == 3
    assert set(found) == {(one, a + PAGE), (child, a + PAGE), (two, b)}
    # Asking again is allowed.
    assert machine.memory_failure(frames(one, a)[0]) == found


def test_two_of_four_have_it(broken):
    """With max_page_sharing at 2, four processes with equal pages have two frames. Only the two that have the broken frame are told."""
    machine = broken
    machine.ksm.max_page_sharing = 2
    processes = [machine.spawn() for _ in range(4)]
    places = {process: mergeable(process, [fill(1)]) for process in processes}
    machine.ksm.scan(passes=3)
    assert (machine.ksm.pages_shared, machine.ksm.pages_sharing) == (2, 2)
    assert (machine.ksm.stable_node_chains, machine.ksm.stable_node_dups) == (1, 2)
    having = {frame: {(process, addr) for process, addr in places.items() if frames(process, addr) == [frame]}
              for frame in {frames(process, addr)[0] for process, addr in places.items()}}
    assert [len(those) for those in having.values()] == [2, 2]
    for frame, those in having.items():
        found = machine.memory_failure(frame)
        assert len(found) == 2
        assert set(found) == those
    # One of the two processes does not map the page any more.
    frame, those = having.popitem()
    (first, addr), (second, there) = those
    first.write(addr, b"own")
    assert frames(first, addr) != [frame]
    assert set(machine.memory_failure(frame)) == those      # as in the kernel, its rmap_item is still at the node
    machine.ksm.scan()
    assert machine.memory_failure(frame) == [(second, there)]


@pytest.mark.parametrize("pages", [1, 7, 200])
def test_a_process_with_many_places_is_told_once(broken, pages):
    machine = broken
    process, other = machine.spawn(), machine.spawn()
    addr = mergeable(process, [fill(1)] * pages)
    there = mergeable(other, [fill(1)])
    machine.ksm.scan(passes=3)
    found = machine.memory_failure(frames(process, addr)[0])
    assert len(found) == 2
    found = dict(found)
    assert found[other] == there
    assert addr <= found[process] < addr + pages * PAGE


def test_who_left_is_not_told(broken):
    machine = broken
    processes = [machine.spawn() for _ in range(100)]
    places = {process: mergeable(process, [fill(1)]) for process in processes}
    machine.ksm.scan(passes=3)
    frame = frames(processes[0], places[processes[0]])[0]
    assert set(machine.memory_failure(frame)) == set(places.items())
    for process in processes[1::2]:
        process.exit()
        del places[process]
    assert set(machine.memory_failure(frame)) == set(places.items())


def test_told_while_others_come_and_go(broken):
    machine = broken
    parent = machine.spawn()
    addr = mergeable(parent, [fill(1)] * 2)
    machine.ksm.scan(passes=3)
    frame = frames(parent, addr)[0]
    kept = [parent.fork() for _ in range(20)]
    done, errors = threading.Event(), []

    def come_and_go():
        while not done.is_set():
            parent.fork().exit()

    def ask():
        try:
            for _ in range(300):
                found = machine.memory_failure(frame)
                named = [process for process, _ in found if process is not None]
                assert len(named) == len(set(named))
                assert {parent, *kept} <= set(named)
        except BaseException as error:
            errors.append(error)

    other = threading.Thread(target=come_and_go)
    threads = [threading.Thread(target=ask) for _ in range(2)]
    other.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    other.join()
    assert not errors


def test_asking_takes_as_long_as_there_are_sharers():
    """Eight times as many sharers take eight times as long, not 64 times."""
    took = {}
    for number in (1000, 8000):
        with ksm.Machine("256M") as machine:
            machine.ksm.max_page_sharing = 1 << 20
            parent = machine.spawn()
            addr = mergeable(parent, [fill(1)] * 2)
            machine.ksm.scan(passes=3)
            processes = [parent, *(parent.fork() for _ in range(number - 1))]
            frame = frames(parent, addr)[0]
            times = []
            for _ in range(3):
                before = time.process_time()
                found = machine.memory_failure(frame)
                times.append(time.process_time() - before)
            assert {process for process, _ in found} == set(processes)
            assert len(found) == number
            took[number] = min(times)
    assert took[8000] < 30 * took[1000], took


def test_a_broken_frame_is_not_used_again():
    with ksm.Machine("1M") as machine:
        process = machine.spawn()
        addr = process.mmap(300 * PAGE)
        process.write(addr, fill(1))
        frame = frames(process, addr)[0]
        machine.memory_failure(frame)
        process.munmap(addr, PAGE)
        machine.lru_add_drain_all()
        assert machine.check() == []
        with pytest.raises(OSError):
            process.touch(addr + PAGE, 299 * PAGE)
        assert frame not in frames(process, addr + PAGE, 299)
        assert process.rss() == 254

# SPDX-License-Identifier: GPL-2.0-only
"""What becomes of a page whose frame breaks, or is about to break. Who is told: test_memory_hotplug.py."""

import errno

import pytest

import ksm

PAGE = ksm.PAGE_SIZE
BLOCK = 512


def fill(byte):
    return bytes([byte]) * PAGE


def mergeable(process, *contents):
    addr = process.mmap(len(contents) * PAGE)
    process.write(addr, b"".join(map(fill, contents)))
    process.madvise(addr, len(contents) * PAGE, ksm.MADV_MERGEABLE)
    return addr


def frame(process, addr):
    word, = process.page_table(addr, PAGE)
    return word >> ksm.PAGE_FLAGS_SHIFT


def fails(number, call, *args):
    with pytest.raises(OSError) as caught:
        call(*args)
    assert caught.value.errno == number


@pytest.fixture
def machine():
    with ksm.Machine("16M", nodes=2, clock="manual") as machine:
        machine.ksm.smart_scan = 0
        yield machine
        machine.lru_add_drain_all()
        assert machine.check() == []


def broken(machine):
    """A merged page whose frame breaks, after which nobody has it any more: the number of its frame."""
    one, two = machine.spawn(node=1), machine.spawn(node=1)
    addr = mergeable(one, 1)
    mergeable(two, 1)
    machine.ksm.scan(3)
    pfn = frame(one, addr)
    assert {process for process, _ in machine.memory_failure(pfn)} == {one, two}
    one.exit()
    two.exit()
    return pfn


def test_a_broken_page_stays_in_its_tree(machine):
    """The kernel keeps the reference that memory_failure() takes, so the stable node is never stale. A node that nobody has takes nobody
    in: equal pages become a second dup of a chain.
    """
    pfn = broken(machine)
    machine.ksm.scan(2)
    assert (machine.ksm.pages_shared, machine.ksm.pages_sharing, machine.ksm.stable_node_dups) == (0, 0, 0)
    process = machine.spawn()
    addr = mergeable(process, 1, 1)
    machine.ksm.scan(3)
    assert frame(process, addr) == frame(process, addr + PAGE) != pfn
    assert (machine.ksm.pages_shared, machine.ksm.pages_sharing) == (1, 1)
    assert (machine.ksm.stable_node_chains, machine.ksm.stable_node_dups) == (1, 2)


def test_a_broken_page_does_not_move(machine):
    """It is not on the LRU any more."""
    process = machine.spawn()
    addr = mergeable(process, 1, 1)
    machine.ksm.scan(3)
    pfn = frame(process, addr)
    machine.memory_failure(pfn)
    assert process.move_pages(addr, PAGE, 1) == [-errno.EBUSY]
    fails(errno.EBUSY, machine.migrate, pfn)
    machine.soft_offline(pfn)
    assert frame(process, addr) == pfn
    process.write(addr, b"X")
    assert frame(process, addr) != pfn


def test_run_2_takes_a_broken_page_off_its_tree(machine):
    pfn = broken(machine)
    machine.ksm.run = 2
    process = machine.spawn()
    addr = mergeable(process, 1, 1)
    machine.ksm.scan(3)
    assert frame(process, addr) == frame(process, addr + PAGE) != pfn


def test_a_block_with_a_broken_frame_goes_offline(machine):
    pfn = broken(machine)
    start = pfn & ~(BLOCK - 1)
    machine.ksm.scan()
    nodes = machine.slabinfo()["ksm_stable_node"]
    machine.offline(start, BLOCK)
    assert machine.slabinfo()["ksm_stable_node"] == nodes - 1
    assert machine.check() == []
    # Memory with a broken frame does not come back.
    fails(133, machine.online, start, BLOCK)    # EHWPOISON
    assert machine.check() == []


def test_a_block_with_a_broken_page_that_is_mapped_stays(machine):
    process = machine.spawn(node=1)
    addr = mergeable(process, 1)
    pfn = frame(process, addr)
    machine.memory_failure(pfn)
    start = pfn & ~(BLOCK - 1)
    fails(errno.EBUSY, machine.offline, start, BLOCK)
    process.munmap(addr, PAGE)
    machine.offline(start, BLOCK)


def test_soft_offline_moves_the_page(machine):
    """Nobody notices, and the frame is not used again. A merged page takes its stable node along."""
    process = machine.spawn(node=1)
    addr = mergeable(process, 1, 1, 2)
    machine.ksm.scan(3)
    merged, other = frame(process, addr), frame(process, addr + 2 * PAGE)
    free = machine.free_pages()
    for pfn in (merged, other):
        machine.soft_offline(pfn)
    assert machine.free_pages() == free - 2
    assert frame(process, addr) == frame(process, addr + PAGE) != merged
    assert [process.read(addr + page * PAGE, 2) for page in range(3)] == [b"\1\1", b"\1\1", b"\2\2"]
    assert machine.ksm.pages_sharing == 1
    assert machine.check() == []
    late = mergeable(process, 1)
    machine.ksm.scan(2)
    assert frame(process, late) == frame(process, addr)
    assert machine.memory_failure(frame(process, addr + 2 * PAGE)) == [(process, addr + 2 * PAGE)]
    machine.soft_offline(merged)    # a broken frame is left alone


def test_soft_offline_refuses(machine):
    process = machine.spawn()
    addr = mergeable(process, 1)
    fails(errno.ENXIO, machine.soft_offline, machine.total_pages() + 512)
    fails(errno.EBUSY, machine.soft_offline, machine.total_pages() - 5)
    fails(errno.EIO, machine.soft_offline, 0)
    with memoryview(machine.frame(frame(process, addr))):
        fails(errno.EBUSY, machine.soft_offline, frame(process, addr))
    machine.soft_offline(frame(process, addr))


def test_soft_offline_splits_a_huge_page():
    with ksm.Machine("16M", transparent_hugepage="always") as machine:
        process = machine.spawn()
        addr = process.mmap(4 << 20)
        addr = (addr + (2 << 20) - 1) & ~((2 << 20) - 1)
        process.write(addr, fill(1))
        process.write(addr + 7 * PAGE, fill(7))
        pfn = frame(process, addr + 7 * PAGE)
        assert pfn == frame(process, addr) + 7
        machine.soft_offline(pfn)
        assert frame(process, addr) == pfn - 7
        assert frame(process, addr + 7 * PAGE) != pfn
        assert process.read(addr + 7 * PAGE, PAGE) == fill(7)
        assert machine.check() == []


def test_of_2011_a_merged_page_does_not_leave_its_frame():
    with ksm.Machine("16M", era="2.6.38") as machine:
        process = machine.spawn()
        addr = mergeable(process, 1, 1)
        machine.ksm.scan(3)
        fails(errno.EBUSY, machine.soft_offline, frame(process, addr))
        assert machine.check() == []


@pytest.mark.parametrize("move", [
    lambda machine, process, addr: process.move_pages(addr, PAGE, 0),
    lambda machine, process, addr: machine.offline(frame(process, addr) & ~(BLOCK - 1), BLOCK),
], ids=["move_pages", "offline"])  # fmt: skip
def test_a_page_that_was_moved_waits_in_no_batch(machine, move):
    """move_pages() and the offlining of memory have pages go to the LRU lists at once: lru_cache_disable(). So the moved page has no
    reference more, and its node is stale as soon as run = 2 has taken its last mapping away.
    """
    process = machine.spawn(node=1)
    addr = mergeable(process, 1, 1, 1)
    machine.ksm.scan(3)
    machine.ksm.trace.start(100)
    move(machine, process, addr)
    machine.ksm.run = 2
    removed = [event.name for event in machine.ksm.trace.read() if event.name.startswith("ksm_remove")]
    assert removed == ["ksm_remove_rmap_item", "ksm_remove_rmap_item", "ksm_remove_ksm_page"]


@pytest.mark.parametrize("era, sharing", [("2.6.38", 0), ("6.1", 1), ("6.12", 1)])
def test_in_2011_a_moved_page_waits(era, sharing):
    """While it waits, it cannot be merged."""
    with ksm.Machine("16M", nodes=2, era=era) as machine:
        process = machine.spawn()
        addr = mergeable(process, 9, 1, 1)
        machine.ksm.scan(1)
        machine.ksm.scan(pages=1)
        assert process.move_pages(addr, 3 * PAGE, 1) == [1, 1, 1]
        machine.ksm.scan(pages=2)
        assert machine.ksm.pages_sharing == sharing
        machine.ksm.scan(2)
        assert machine.ksm.pages_sharing == 1

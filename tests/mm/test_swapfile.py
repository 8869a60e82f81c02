# SPDX-License-Identifier: GPL-2.0-only
"""Swap: pages leave, are not merged any more, and come back. No byte is lost, and no slot or frame is left over."""

import errno
import random

import pytest
from pages import PAGE, Life, fill, finish, frames, mergeable

import ksm

ACTIONS = [
    "write", "write", "read", "fork", "swap_out", "swap_out",
    "scan", "exit", "unmerge", "merge", "swapoff", "discard", "write_a_byte", "write_by_force", "update",
]  # fmt: skip


def flags(process, addr, pages=1):
    return [word & 255 for word in process.page_table(addr, pages * PAGE)]


@pytest.fixture
def machine():
    machine = ksm.Machine("32M", swap="16M")
    machine.ksm.smart_scan = 0
    yield machine
    assert machine.check() == []
    finish(machine)


def test_out_and_in(machine):
    process = machine.spawn()
    addr = process.mmap(8 * PAGE)
    process.write(addr, b"".join(map(fill, range(1, 9))))
    machine.lru_add_drain_all()
    free = machine.free_pages()
    assert process.swap_out(addr, 8 * PAGE) == 8
    assert machine.free_pages() == free + 8
    assert (process.rss(), process.swap_entries()) == (0, 8)
    assert flags(process, addr, 8) == [ksm.PAGE_SWAPPED] * 8
    assert process.present(addr, 8 * PAGE) == bytes(8)
    assert machine.swap_pages() == (8, 4096)
    assert machine.vmstat()["pswpout"] == 8
    assert machine.check() == []
    assert process.read(addr, 8 * PAGE) == b"".join(map(fill, range(1, 9)))
    assert (process.rss(), process.swap_entries()) == (8, 0)
    assert machine.vmstat()["pswpin"] == 8
    # The pages were read, but not written to: they keep their slots, and need not be written again.
    assert machine.swap_pages()[0] == 8
    machine.lru_add_drain_all()
    assert process.swap_out(addr, 8 * PAGE) == 8
    assert machine.vmstat()["pswpout"] == 8
    # A page that is written to differs from its slot.
    process.write(addr, b"X")
    machine.lru_add_drain_all()
    assert process.swap_out(addr, PAGE) == 1
    assert machine.vmstat()["pswpout"] == 9
    assert process.read(addr, PAGE) == b"X" + fill(1)[1:]


def test_zeros_are_not_written(machine):
    process = machine.spawn()
    addr = process.mmap(2 * PAGE)
    process.touch(addr, 2 * PAGE)
    assert process.swap_out(addr, 2 * PAGE) == 2
    assert machine.swap_pages()[0] == 2
    assert process.read(addr, 2 * PAGE) == bytes(2 * PAGE)
    assert machine.vmstat()["pswpout"] == machine.vmstat()["pswpin"] == 0


def test_the_zero_page_and_holes_stay(machine):
    process = machine.spawn()
    addr = process.mmap(3 * PAGE)
    process.read(addr, 1)
    assert process.swap_out(addr, 3 * PAGE) == 0
    assert flags(process, addr, 3) == [ksm.PAGE_PRESENT | ksm.PAGE_ZERO, 0, 0]


def test_no_area():
    with ksm.Machine("16M") as machine:
        process = machine.spawn()
        addr = process.mmap(PAGE)
        process.write(addr, b"here")
        assert process.swap_out(addr, PAGE) == 0
        assert process.read(addr, 4) == b"here"
        with pytest.raises(OSError) as caught:
            machine.swapoff()
        assert caught.value.errno == errno.EINVAL
        machine.swapon("1M")
        with pytest.raises(OSError) as caught:
            machine.swapon("1M")
        assert caught.value.errno == errno.EBUSY
        machine.lru_add_drain_all()
        assert process.swap_out(addr, PAGE) == 1
        machine.swapoff()
        machine.swapon("2M")
        assert machine.swap_pages() == (0, 512)
        assert process.read(addr, 4) == b"here"
        assert machine.check() == []


@pytest.mark.parametrize("size", ["0", 100, "4097", -4096])
def test_bad_sizes(size):
    with pytest.raises(ValueError, match="swap"):
        ksm.Machine("16M", swap=size)


def test_a_full_area():
    with ksm.Machine("16M", swap=4 * PAGE) as machine:
        process = machine.spawn()
        addr = process.mmap(8 * PAGE)
        process.write(addr, b"".join(map(fill, range(1, 9))))
        assert process.swap_out(addr, 8 * PAGE) == 4
        assert machine.swap_pages() == (4, 4)
        assert process.read(addr, 8 * PAGE) == b"".join(map(fill, range(1, 9)))
        # The area is more than half full: pages that are in memory do not keep their slots.
        assert machine.swap_pages()[0] <= 2
        machine.lru_add_drain_all()
        assert process.swap_out(addr, 8 * PAGE) == 4
        assert machine.check() == []
        process.munmap(addr, 8 * PAGE)
        assert machine.swap_pages() == (0, 4)


def test_what_takes_entries_away_frees_slots(machine):
    process = machine.spawn()
    addr = process.mmap(6 * PAGE)
    process.write(addr, b"".join(map(fill, range(1, 7))))
    assert process.swap_out(addr, 6 * PAGE) == 6
    process.madvise(addr, PAGE, ksm.MADV_DONTNEED)
    assert machine.swap_pages()[0] == 5
    assert process.read(addr, PAGE) == bytes(PAGE)
    process.munmap(addr + PAGE, PAGE)
    assert machine.swap_pages()[0] == 4
    process.mprotect(addr + 2 * PAGE, PAGE, ksm.PROT_READ)
    moved = process.mremap(addr + 3 * PAGE, 3 * PAGE, 5 * PAGE)
    assert machine.swap_pages()[0] == 4
    assert process.read(moved, 3 * PAGE) == b"".join(map(fill, range(4, 7)))
    assert process.read(addr + 2 * PAGE, PAGE) == fill(3)
    with pytest.raises(OSError):
        process.write(addr + 2 * PAGE, b"x")
    process.mprotect(addr + 2 * PAGE, PAGE, ksm.PROT_READ | ksm.PROT_WRITE)
    process.write(addr + 2 * PAGE, b"x")
    assert machine.check() == []
    process.exit()
    assert machine.swap_pages()[0] == 0


def test_fork_shares_slots(machine):
    parent = machine.spawn()
    addr = parent.mmap(4 * PAGE)
    parent.write(addr, b"".join(map(fill, range(1, 5))))
    assert parent.swap_out(addr, 4 * PAGE) == 4
    child = parent.fork()
    assert child.swap_entries() == 4
    assert machine.swap_pages()[0] == 4
    assert machine.check() == []
    # One process reads a page. The other one finds it in the swap cache, and maps the same frame.
    assert parent.read(addr, PAGE) == child.read(addr, PAGE) == fill(1)
    assert frames(parent, addr, 1) == frames(child, addr, 1)
    assert machine.vmstat()["pswpin"] == 1
    child.write(addr + PAGE, b"child")
    assert parent.read(addr + PAGE, PAGE) == fill(2)
    parent.write(addr, b"parent")
    assert child.read(addr, PAGE) == fill(1)
    parent.exit()
    assert child.read(addr + 2 * PAGE, 2 * PAGE) == fill(3) + fill(4)
    assert machine.check() == []


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("mapped", [False, True])
def test_when_a_page_loses_its_slot(mapped, full):
    """A page loses its slot when no entry has the slot any more, and either no process maps the page or the area is more than half full."""
    with ksm.Machine("4M", swap=16 * PAGE) as machine:
        parent = machine.spawn()
        addr = parent.mmap(9 * PAGE)
        parent.write(addr, b"".join(map(fill, range(1, 10))))
        child = parent.fork()
        child.munmap(addr + PAGE, 8 * PAGE)
        machine.lru_add_drain_all()
        parent.swap_out(addr, 9 * PAGE if full else PAGE)
        used = machine.swap_pages()[0]
        assert used == (9 if full else 1)
        assert parent.read(addr, PAGE) == fill(1)
        assert machine.swap_pages()[0] == used
        if not mapped:
            parent.munmap(addr, PAGE)
            machine.lru_add_drain_all()
        child.munmap(addr, PAGE)
        assert machine.swap_pages()[0] == used - (full or not mapped)
        assert not mapped or parent.read(addr, PAGE) == fill(1)
        assert machine.check() == []


def test_a_page_shared_by_fork_goes_for_both(machine):
    parent = machine.spawn()
    addr = parent.mmap(2 * PAGE)
    parent.write(addr, fill(1) + fill(2))
    child = parent.fork()
    assert parent.swap_out(addr, 2 * PAGE) == 2
    assert parent.swap_entries() == child.swap_entries() == 2
    assert child.read(addr, 2 * PAGE) == fill(1) + fill(2)
    assert parent.swap_entries() == 2


def test_an_anon_vma_that_is_used_again(machine):
    """A fault of the kernel's own: ksm_might_need_to_copy() reads the root of the anon_vma of a page in the swap cache, and nothing keeps
    that anon_vma once the page has no mapping. Here it is freed with its process, and used again by a fork of the reader. The page then
    counts as one of the reader's, and no rmap walk from the page finds its mapping."""
    flags = ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED
    one, two = machine.spawn(), machine.spawn()
    addr = 0x10000000
    for process in (two, one):
        process.mmap(2 * PAGE, addr=addr, flags=flags)
        process.madvise(addr, 2 * PAGE, ksm.MADV_MERGEABLE)
        process.write(addr, fill(1))
    machine.ksm.scan(passes=3)
    assert two.swap_out(addr, PAGE) == 1
    one.read(addr, 1)
    one.exit()
    machine.ksm.scan(passes=2)                          # the process's rmap_item goes, and the anon_vma with it
    child = two.fork()
    two.read(addr, 1)
    assert any("names anon_vma" in line for line in machine.check())
    machine.lru_add_drain_all()
    with pytest.raises(OSError) as caught:
        machine.migrate(frames(two, addr, 1)[0])
    assert caught.value.errno == errno.EAGAIN
    child.exit()
    assert two.read(addr, PAGE) == fill(1)
    two.write(addr, fill(2))
    assert machine.check() == []


def test_merged_pages_go_at_once_and_are_forgotten(machine):
    one, two = machine.spawn(), machine.spawn()
    a, b = mergeable(one, [fill(1)] * 3 + [fill(2)]), mergeable(two, [fill(1)] * 2)
    machine.ksm.scan(passes=3)
    assert (machine.ksm.pages_shared, machine.ksm.pages_sharing) == (1, 4)
    child = one.fork()
    # The eight mappings have one frame.
    assert two.swap_out(b, PAGE) == 1
    assert (one.swap_entries(), two.swap_entries(), child.swap_entries()) == (3, 2, 3)
    assert machine.swap_pages()[0] == 1
    assert machine.vmstat()["pswpout"] == 1
    assert machine.check() == []
    # The node is stale, and its items count until ksmd meets them.
    assert (machine.ksm.pages_shared, machine.ksm.pages_sharing) == (1, 4)
    machine.ksm.scan(passes=1)
    assert (machine.ksm.pages_shared, machine.ksm.pages_sharing) == (0, 0)

    # Each place gets a page of its own now, except for related processes, whose pages have the same index.
    assert one.read(a, PAGE) == fill(1)
    assert machine.vmstat()["ksm_swpin_copy"] == 0
    assert child.read(a, PAGE) == fill(1)
    assert machine.vmstat()["ksm_swpin_copy"] == 0
    assert one.read(a + PAGE, PAGE) == two.read(b, PAGE) == fill(1)
    assert machine.vmstat()["ksm_swpin_copy"] == 2
    assert machine.vmstat()["pswpin"] == 1
    assert frames(one, a, 1) == frames(child, a, 1) != frames(one, a + PAGE, 1)
    assert machine.check() == []
    for process, addr, pages in ((one, a, 3), (child, a, 3), (two, b, 2)):
        assert process.read(addr, pages * PAGE) == fill(1) * pages
    assert machine.ksm.pages_shared == 0
    machine.ksm.scan(passes=4)
    assert machine.ksm.pages_shared == 1
    assert machine.ksm.pages_sharing == 7


def test_a_merged_page_in_the_swap_cache(machine):
    """The page is held, so it is unmapped and written to swap, but not freed. It is still a merged page, and mapped again as one."""
    process = machine.spawn()
    addr = mergeable(process, [fill(1)] * 4)
    machine.ksm.scan(passes=3)
    (frame,) = set(frames(process, addr, 4))
    machine._get_page(frame)
    assert process.swap_out(addr, 4 * PAGE) == 0
    assert process.swap_entries() == 4
    child = process.fork()
    assert child.swap_entries() == 4
    assert process.read(addr, PAGE) == child.read(addr + PAGE, PAGE) == fill(1)
    assert frames(process, addr, 1) == frames(child, addr + PAGE, 1) == [frame]
    assert flags(process, addr) == [ksm.PAGE_PRESENT | ksm.PAGE_KSM | ksm.PAGE_ANON]
    assert machine.vmstat()["ksm_swpin_copy"] == 0
    # A write to a merged page makes a copy, although this is its only mapping.
    process.write(addr, b"X")
    assert machine.vmstat()["cow_ksm"] == 1
    assert frames(process, addr, 1) != [frame]
    machine._put_page(frame)
    machine.lru_add_drain_all()
    assert machine.check() == []
    # write_protect_page() expects the reference of the swap cache: a page that is in it merges.
    other = machine.spawn()
    there = mergeable(other, [fill(1)])
    machine.ksm.scan(passes=3)
    assert frames(other, there, 1) == [frame]
    assert machine.ksm.pages_shared == 1


def test_pages_of_the_swap_cache_merge(machine):
    """Pages that were read back and not written have slots. They merge: mapcount + 1 + swapped is their reference count."""
    process = machine.spawn()
    addr = mergeable(process, [fill(1)] * 2 + [fill(2)] * 2)
    machine.lru_add_drain_all()
    assert process.swap_out(addr, 4 * PAGE) == 4
    assert process.read(addr, 4 * PAGE) == fill(1) * 2 + fill(2) * 2
    assert machine.swap_pages()[0] == 4
    machine.ksm.scan(passes=3)
    assert (machine.ksm.pages_shared, machine.ksm.pages_sharing) == (2, 2)
    # replace_page() has given up the slots of the pages that were replaced.
    assert machine.swap_pages()[0] == 2
    assert machine.check() == []
    # Merging has made the pages dirty: they are written to their slots again.
    assert process.swap_out(addr, 4 * PAGE) == 2
    assert machine.vmstat()["pswpout"] == 6
    assert process.read(addr, 4 * PAGE) == fill(1) * 2 + fill(2) * 2


@pytest.mark.parametrize("how", ["madvise", "run"])
def test_unmerge_while_swapped_out(machine, how):
    process = machine.spawn()
    addr = mergeable(process, [fill(1)] * 4 + [fill(2)] * 4)
    machine.ksm.scan(passes=3)
    child = process.fork()
    assert process.swap_out(addr, 4 * PAGE) == 1
    if how == "madvise":
        process.madvise(addr, 8 * PAGE, ksm.MADV_UNMERGEABLE)
    else:
        machine.ksm.run = 2
        assert machine.ksm.pages_shared == 0
    # Pages that are swapped out are not merged any more, and stay in the area.
    assert process.swap_entries() == 4
    assert machine.check() == []
    assert process.read(addr, 8 * PAGE) == child.read(addr, 8 * PAGE) == fill(1) * 4 + fill(2) * 4
    assert not any(flag & ksm.PAGE_KSM for flag in flags(process, addr, 8))


def test_unmerge_while_in_the_swap_cache(machine):
    """After run = 2, a fault copies a merged page that the swap cache has, and does not map it."""
    process = machine.spawn()
    addr = mergeable(process, [fill(1)] * 2)
    machine.ksm.scan(passes=3)
    frame = frames(process, addr, 1)[0]
    machine._get_page(frame)
    process.swap_out(addr, 2 * PAGE)
    machine.ksm.run = 2
    assert machine.ksm.pages_shared == 0
    assert process.read(addr, 2 * PAGE) == fill(1) * 2
    assert machine.vmstat()["ksm_swpin_copy"] == 2
    assert frame not in frames(process, addr, 2)
    machine._put_page(frame)


def test_swapoff(machine):
    parent = machine.spawn()
    addr = mergeable(parent, [fill(i // 2) for i in range(1, 33)])
    machine.ksm.scan(passes=3)
    children = [parent.fork() for _ in range(3)]
    children[0].write(addr, b"child")
    assert parent.swap_out(addr, 32 * PAGE) > 0
    children[1].read(addr, 8 * PAGE)
    assert machine.check() == []
    machine.swapoff()
    assert machine.check() == []
    assert machine.swap_pages() == (0, 0)
    for process in (parent, *children):
        assert process.swap_entries() == 0
        assert process.rss() == 32
        expected = b"".join(fill(i // 2) for i in range(1, 33))
        assert process.read(addr, 32 * PAGE) == (b"child" + expected[5:] if process is children[0] else expected)


@pytest.mark.parametrize("shared", [False, True])
def test_who_had_a_page_alone_has_it_alone_again(machine, shared):
    """The page comes back read-only. A write does not copy it, even if it is held. If a child has the page, too, a write copies it."""
    process = machine.spawn()
    addr = process.mmap(PAGE)
    process.write(addr, fill(1))
    child = process.fork() if shared else None
    machine.lru_add_drain_all()
    assert process.swap_out(addr, PAGE) == 1
    machine.swapoff()
    machine.lru_add_drain_all()
    [frame] = frames(process, addr)
    machine._get_page(frame)
    process.write(addr, b"!")
    assert (frames(process, addr) == [frame]) is not shared
    assert not shared or child.read(addr, PAGE) == fill(1)
    machine._put_page(frame)


def test_swapoff_without_room():
    with ksm.Machine("1M", swap="1M") as machine:
        process = machine.spawn()
        addr = process.mmap(300 * PAGE)
        for i in range(100):
            process.write(addr + i * PAGE, fill(i + 1))
        process.swap_out(addr, 100 * PAGE)
        for i in range(100, 300):
            process.write(addr + i * PAGE, fill(i + 1))
        with pytest.raises(OSError) as caught:
            machine.swapoff()
        assert caught.value.errno == errno.ENOMEM
        assert machine.check() == []
        process.munmap(addr + 200 * PAGE, 100 * PAGE)
        for i in range(200):
            assert process.read(addr + i * PAGE, PAGE) == fill(i + 1)
        machine.swapoff()
        assert machine.check() == []


def test_no_memory_to_come_back():
    with ksm.Machine("1M", swap="1M") as machine:
        process = machine.spawn()
        addr = process.mmap(400 * PAGE)
        process.write(addr, fill(1))
        process.swap_out(addr, PAGE)
        with pytest.raises(OSError) as caught:
            for i in range(1, 400):
                process.write(addr + i * PAGE, fill(i + 1))
        assert caught.value.errno == errno.ENOMEM
        with pytest.raises(OSError) as caught:
            process.read(addr, 1)
        assert caught.value.errno == errno.ENOMEM
        process.munmap(addr + PAGE, 399 * PAGE)
        assert process.read(addr, PAGE) == fill(1)
        assert machine.check() == []


def test_what_only_the_cache_has_goes_when_memory_is_full():
    with ksm.Machine("1M", swap="1M") as machine:
        process = machine.spawn()
        addr = process.mmap(PAGE)
        process.write(addr, fill(1))
        child = process.fork()
        process.read(addr, PAGE)
        machine._get_page(frame := frames(process, addr, 1)[0])
        process.swap_out(addr, PAGE)
        machine._put_page(frame)
        assert machine.swap_pages()[0] == 1
        filler = process.mmap(300 * PAGE)
        with pytest.raises(OSError):
            process.write(filler, bytes([1]) * 300 * PAGE)
        assert process.rss() == 255     # all frames but the zero page: the page in the cache has gone
        assert machine.check() == []
        process.munmap(filler, 300 * PAGE)
        assert process.read(addr, PAGE) == child.read(addr, PAGE) == fill(1)


@pytest.mark.parametrize("seed", range(12))
def test_everything_at_random(machine, seed):
    """Processes write, fork, swap, merge, unmerge and exit; each knows what it should read."""
    rng = random.Random(seed)
    life = Life(machine, rng, pages=24, contents=5)
    for _ in range(160):
        life.step(rng.choice(ACTIONS))
        assert machine.check() == []
    life.finish()

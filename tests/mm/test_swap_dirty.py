# SPDX-License-Identifier: GPL-2.0-only
"""Dirty pages: a page that came back from swap keeps its slot, and if it is written to since, it must be written to the slot again.

A page in the swap cache is dropped without being written when nothing says that it changed: neither the dirty bit of an entry that maps it
nor the flag of the page. So every write sets one of them, and code that takes an entry away or moves the page hands it on.
"""

from contextlib import nullcontext

import pytest
from pages import PAGE, fill, finish, frames, looks_like_zeros, mergeable

import ksm

RW = ksm.PROT_READ | ksm.PROT_WRITE
PAGES = 3
OLD = b"".join(map(fill, (1, 0, 3)))
NEW = b"".join(map(fill, (7, 8, 0)))


# Ways in which the three pages come to be in memory with their slots

def read(process, addr):
    process.swap_out(addr, PAGES * PAGE)
    process.read(addr, PAGES * PAGE)


def read_by_force(process, addr):
    process.swap_out(addr, PAGES * PAGE)
    process.read(addr, PAGES * PAGE, force=True)


def read_only(process, addr):
    process.mprotect(addr, PAGES * PAGE, ksm.PROT_READ)
    process.swap_out(addr, PAGES * PAGE)
    process.read(addr, PAGES * PAGE)


def read_by_the_last_one(process, addr):
    child = process.fork()
    process.swap_out(addr, PAGES * PAGE)
    child.exit()
    process.read(addr, PAGES * PAGE)


def read_by_two(process, addr):
    process.swap_out(addr, PAGES * PAGE)
    child = process.fork()
    child.read(addr, PAGES * PAGE)
    process.read(addr, PAGES * PAGE)
    child.exit()


def held(process, addr):
    """The pages are held: they are unmapped and written to swap, and stay in memory."""
    pages = frames(process, addr, PAGES)
    for frame in pages:
        process.machine._get_page(frame)
    process.swap_out(addr, PAGES * PAGE)
    process.read(addr, PAGES * PAGE)
    for frame in pages:
        process.machine._put_page(frame)
    process.machine.lru_add_drain_all()


def by_swapoff_in_vain(process, addr):
    """swapoff fails, because there is no memory for another page that is in the area."""
    machine = process.machine
    other = machine.spawn()
    there = other.mmap(PAGE)
    other.write(there, b"other")
    child = process.fork()
    process.swap_out(addr, PAGES * PAGE)
    other.swap_out(there, PAGE)
    machine.fail("page", PAGES + 1, 100)
    with pytest.raises(OSError, match="Cannot allocate memory"):
        machine.swapoff()
    machine.fail("page", 0)
    other.exit()
    child.exit()
    process.read(addr, PAGES * PAGE)


COMEBACKS = [read, read_by_force, read_only, read_by_the_last_one, read_by_two, held, by_swapoff_in_vain]


# Ways in which the pages are written to

def store(process, addr):
    process.mprotect(addr, PAGES * PAGE, RW)
    process.write(addr, NEW)


def by_force(process, addr):
    process.write(addr, NEW, force=True)


def by_force_page_by_page(process, addr):
    for i in range(PAGES * 2):
        process.write(addr + i * PAGE // 2, NEW[i * PAGE // 2:(i + 1) * PAGE // 2], force=True)


def update(process, addr):
    process.mprotect(addr, PAGES * PAGE, RW)
    assert process.update(addr, NEW) == PAGES


WRITES = [store, by_force, by_force_page_by_page, update]


# What happens between the write and the next swap out. Each function returns the address of the pages.

def nothing(process, addr):
    return addr


def fork(process, addr):
    process.fork()
    return addr


def fork_and_exit(process, addr):
    process.fork().exit()
    return addr


def protect(process, addr):
    process.mprotect(addr, PAGES * PAGE, ksm.PROT_NONE)
    process.mprotect(addr, PAGES * PAGE, ksm.PROT_READ)
    return addr


def move(process, addr):
    return process.mremap(addr, PAGES * PAGE, PAGES * PAGE, new_addr=0x20000000)


def migrate(process, addr):
    process.machine.lru_add_drain_all()
    for frame in frames(process, addr, PAGES):
        process.machine.migrate(frame)
    return addr


def migrate_in_vain(process, addr):
    process.machine.lru_add_drain_all()
    for frame in frames(process, addr, PAGES):
        process.machine._get_page(frame)
        with pytest.raises(OSError, match="Resource temporarily unavailable"):
            process.machine.migrate(frame)
        process.machine._put_page(frame)
    return addr


def go_to_the_other_node(process, addr):
    assert process.move_pages(addr, PAGES * PAGE, 0) == [0] * PAGES
    return addr


def offline(process, addr):
    (block,) = {frame // 512 for frame in frames(process, addr, PAGES)}
    process.machine.offline(block * 512, 512 if block * 512 < process.machine.total_pages() else PAGES)     # an image goes as a whole
    return addr


def look_at_them(process, addr):
    """ksmd scans the pages, and finds no equal ones."""
    process.madvise(addr, PAGES * PAGE, ksm.MADV_MERGEABLE)
    process.machine.ksm.scan(3)
    assert process.machine.ksm.pages_shared == 0
    return addr


def meet(process, addr):
    """ksmd scanned the pages before their equals come: the equals become the merged pages, and replace the pages."""
    look_at_them(process, addr)
    with_equals(process.machine.spawn())
    process.machine.ksm.scan(3)
    assert process.machine.ksm.pages_shared == PAGES
    return addr


def become_merged(process, addr):
    """ksmd scans the equals first: the pages become the merged pages, and keep their frames."""
    with_equals(process.machine.spawn())
    process.madvise(addr, PAGES * PAGE, ksm.MADV_MERGEABLE)
    before = frames(process, addr, PAGES)
    process.machine.ksm.scan(3)
    assert process.machine.ksm.pages_shared == PAGES
    assert frames(process, addr, PAGES) == before
    return addr


def become_merged_and_unmerge(process, addr):
    become_merged(process, addr)
    process.madvise(addr, PAGES * PAGE, ksm.MADV_UNMERGEABLE)
    return addr


def with_equals(process):
    mergeable(process, [NEW[i * PAGE:(i + 1) * PAGE] for i in range(PAGES)])
    process.machine.lru_add_drain_all()


BETWEEN = [nothing, fork, fork_and_exit, protect, move, migrate, migrate_in_vain, go_to_the_other_node, offline, look_at_them, meet,
           become_merged, become_merged_and_unmerge]


def life(machine, come_back, write, between, image=None):
    with machine, machine.record() if image is None and machine.plain else nullcontext():
        if "smart_scan" in machine.ksm.names():
            machine.ksm.smart_scan = 0
        process = machine.spawn(node=1)
        if image is None:
            addr = process.mmap(PAGES * PAGE)
            process.write(addr, OLD)
        else:
            addr = process.mmap_image(image)
        machine.lru_add_drain_all()
        come_back(process, addr)
        assert machine.swap_pages()[0] == PAGES
        assert process.read(addr, PAGES * PAGE, force=True) == OLD
        write(process, addr)
        assert machine.check() == []
        addr = between(process, addr)
        assert machine.check() == []
        process.swap_out(addr, PAGES * PAGE)
        assert process.swap_entries() == PAGES
        assert machine.check() == []
        for each in machine.processes.values():
            assert each.read(each.maps()[0].start, PAGES * PAGE, force=True) == NEW
        finish(machine)


@pytest.mark.parametrize("between", BETWEEN, ids=lambda function: function.__name__)
@pytest.mark.parametrize("write", WRITES, ids=lambda function: function.__name__)
@pytest.mark.parametrize("kind", [{"plain": False}, {"plain": True}, {"era": "6.1"}, {"era": "2.6.38"}],
                         ids=["fast", "recorded", "6.1", "2011"])
def test_what_is_written_leaves_again(kind, write, between):
    for come_back in COMEBACKS:
        life(ksm.Machine("16M", nodes=2, swap="1M", transparent_hugepage="never", **kind), come_back, write, between)


@pytest.mark.parametrize("between", BETWEEN, ids=lambda function: function.__name__)
@pytest.mark.parametrize("write", WRITES, ids=lambda function: function.__name__)
def test_pages_of_an_image(tmp_path, write, between):
    """Pages that are held stay in the image's frames. The others come back in frames of the machine's own memory."""
    path = tmp_path / "image"
    path.write_bytes(OLD)
    for come_back in COMEBACKS:
        with open(path, "rb") as image:
            life(ksm.Machine("16M", nodes=2, swap="1M"), come_back, write, between, image)
    assert path.read_bytes() == OLD


@pytest.mark.parametrize("plain", [False, True], ids=["fast", "plain"])
def test_what_ksmd_has_protected_and_not_merged(plain):
    """The page has the checksum of the zero page, so it is write-protected to be compared with the zero page, and differs. Its entry
    becomes clean, and the page itself dirty."""
    with ksm.Machine("4M", swap="1M", plain=plain) as machine:
        machine.ksm.use_zero_pages = 1
        process = machine.spawn()
        addr = mergeable(process, [fill(1)])
        process.swap_out(addr, PAGE)
        process.read(addr, 1)
        process.write(addr, looks_like_zeros())
        machine.ksm.trace.start()
        machine.ksm.scan(2)
        assert "ksm_merge_one_page" in [event.name for event in machine.ksm.trace.read()]
        assert machine.check() == []
        assert process.swap_out(addr, PAGE) == 1
        assert process.read(addr, PAGE) == looks_like_zeros()
        finish(machine)


@pytest.mark.parametrize("dirty", [False, True])
def test_entries_are_as_dirty_after_a_move_as_before(dirty):
    """KSM counts the references of a page that several processes share only when the entry is dirty. A page that is held does not merge
    then."""
    with ksm.Machine("4M", swap="1M") as machine:
        machine.ksm.smart_scan = 0
        process = machine.spawn()
        addr = mergeable(process, [fill(1)] * 3)
        if not dirty:
            process.mprotect(addr, 3 * PAGE, ksm.PROT_READ)
            process.swap_out(addr, 3 * PAGE)
            process.read(addr, 3 * PAGE)
        child = process.fork()
        machine.lru_add_drain_all()
        held = machine.migrate(frames(process, addr + 2 * PAGE)[0])
        machine._get_page(held)
        machine.ksm.scan(3)
        merged = [word & ksm.PAGE_KSM != 0 for each in (process, child) for word in each.page_table(addr, 3 * PAGE)]
        assert merged == [True, True, not dirty] * 2
        machine._put_page(held)
        finish(machine)

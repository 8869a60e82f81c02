# SPDX-License-Identifier: GPL-2.0-only
"""Another thread acts between two steps of ksm.c. To make it come just then, the test holds a lock that the next step waits for."""

import ctypes
import threading
from contextlib import contextmanager

import pytest
from waiting import until_it_waits

import ksm
from ksm.testing.corrupt import machine_fields, page_fields

PAGE = ksm.PAGE_SIZE
TABLE = 512 * PAGE
START = 1 << 30
RW = ksm.PROT_READ | ksm.PROT_WRITE
PG_LOCKED = 0x1


@pytest.fixture
def machine():
    with ksm.Machine(memory="4M", max_memory="4M", clock="manual") as machine:
        machine.ksm.smart_scan = 0
        yield machine
        assert machine.check() == []


def mergeable(machine, letters):
    """A process with a mergeable page for each letter. A dot stands for no page."""
    process = machine.spawn()
    process.mmap(len(letters) * PAGE, RW, ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED, START)
    for i, letter in enumerate(letters):
        if letter != ".":
            process.write(START + i * PAGE, letter.encode() * PAGE)
    process.madvise(START, len(letters) * PAGE, ksm.MADV_MERGEABLE)
    return process


def word(process, name, page=0):
    address, size = page_fields(process.machine, process.mm_id, START + page * PAGE)[name]
    return {4: ctypes.c_int, 8: ctypes.c_ulong}[size].from_address(address)


def state(machine):
    return machine.ksm.pages_shared, machine.ksm.pages_sharing, machine.ksm.pages_unshared, machine.ksm.pages_volatile


@contextmanager
def waiting(lock, held, *calls):
    """Start each call in a thread of its own, and assert that all wait, for the lock or for each other. Then run the block.

    `held` is added to the word of the lock, in which there may be flags, too."""
    lock.value += held
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    try:
        for thread in threads:
            thread.start()
            until_it_waits(thread)
        assert all(thread.is_alive() for thread in threads)
        yield
    finally:
        lock.value -= held
        for thread in threads:
            thread.join(10)
    assert not any(thread.is_alive() for thread in threads)


# A process exits

def test_a_process_exits_while_its_tables_are_walked(machine):
    """ksmd leaves the pages behind the first page table alone."""
    process = mergeable(machine, "a" + 511 * "." + "b")
    process.madvise(START, PAGE, ksm.MADV_DONTNEED)
    users = word(process, "mm.mm_users")
    with waiting(word(process, "table.locked"), 1, machine.ksm.scan, process.exit):
        assert users.value == 0
    assert machine.ksm.pages_scanned == 0
    assert machine.slabinfo()["ksm_mm_slot"] == machine.slabinfo()["ksm_rmap_item"] == 0


def test_a_process_exits_while_a_page_is_skipped(machine):
    machine.ksm.smart_scan = 1
    process = mergeable(machine, "ab")
    machine.ksm.scan(4)
    assert (machine.ksm.pages_scanned, machine.ksm.pages_skipped) == (8, 0)
    with waiting(word(process, "table.locked"), 1, machine.ksm.scan, process.exit):
        pass
    assert (machine.ksm.pages_scanned, machine.ksm.pages_skipped) == (8, 1)
    assert machine.slabinfo()["ksm_rmap_item"] == 0


def test_a_process_exits_while_it_is_unmerged(machine):
    """KSM is about to break the first merged page. The other page goes with the process, and needs no copy."""
    process = mergeable(machine, "aa")
    machine.ksm.scan(2)
    with waiting(word(process, "table.locked"), 1, lambda: setattr(machine.ksm, "run", 2), process.exit):
        pass
    assert machine.vmstat()["cow_ksm"] == 1
    assert machine.slabinfo()["ksm_mm_slot"] == machine.slabinfo()["ksm_rmap_item"] == 0


# A page leaves while it is looked at: the scan waits for the lock of the merged page that was mapped there before

@pytest.fixture
def unmerged(machine):
    """Two pages of zeros are merged, and one of them is written to: its rmap_item is still at the node. One page lies before it, three
    behind it."""
    process = mergeable(machine, "w\0x\0y")
    machine.ksm.scan(2)
    assert state(machine) == (1, 1, 3, 0)
    process.write(START + PAGE, b"\0")
    return process


def test_a_page_of_zeros_is_unmapped_before_it_merges(machine, unmerged):
    machine.ksm.use_zero_pages = 1
    flags = word(unmerged, "page.flags", 3)
    with waiting(flags, PG_LOCKED, lambda: machine.ksm.scan(pages=2)):
        unmerged.munmap(START + PAGE, PAGE)
    assert machine.ksm.ksm_zero_pages == 0
    assert state(machine) == (1, 0, 3, 1)
    machine.ksm.scan(2)
    assert unmerged.read(START + 3 * PAGE, PAGE) == bytes(PAGE)


@pytest.mark.parametrize("leave", ["write", "dontneed"])
def test_the_page_that_is_next_leaves(machine, unmerged, leave):
    """The next page was looked at together with the first one. If it is written to, ksmd must see the new bytes; if it is gone, the scan
    goes on."""
    flags = word(unmerged, "page.flags", 3)
    with waiting(flags, PG_LOCKED, machine.ksm.scan):
        if leave == "write":
            unmerged.write(START + 2 * PAGE, b"y" * PAGE)
        else:
            unmerged.madvise(START + 2 * PAGE, PAGE, ksm.MADV_DONTNEED)
    machine.ksm.scan(2)
    assert state(machine) == ((2, 2, 1, 0) if leave == "write" else (1, 1, 2, 0))


# A merged page moves

def test_who_moves_a_merged_page_waits_for_its_mappings(machine):
    process = mergeable(machine, "aa")
    machine.ksm.scan(2)
    pfn = process.page_table(START, PAGE)[0] >> ksm.PAGE_FLAGS_SHIFT
    moved = []
    with waiting(word(process, "anon_vma.root.rwsem"), -1, lambda: moved.append(machine.migrate(pfn))):
        pass
    assert moved != [pfn]
    assert [entry >> ksm.PAGE_FLAGS_SHIFT for entry in process.page_table(START, 2 * PAGE)] == 2 * moved


# Counters

def test_counters_that_do_not_fit_together(machine):
    """pages_volatile is computed from four counters that are read without a lock. It is never less than 0."""
    mergeable(machine, "ab")
    machine.ksm.scan(2)
    items = ctypes.c_ulong.from_address(machine_fields(machine)["rmap_items"].address)
    items.value -= 1
    assert state(machine) == (0, 0, 2, 0)
    items.value += 1

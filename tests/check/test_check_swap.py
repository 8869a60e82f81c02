# SPDX-License-Identifier: GPL-2.0-only
"""Machine.check() and the swap area: one field at a time is overwritten, and the finding must name it."""

import ctypes
import re

import pytest

import ksm
from ksm.testing.corrupt import frame_fields, page_fields, slot_fields

from .damage import damaged, flip, plus

PAGE = ksm.PAGE_SIZE
# Pages of the process, all swapped out once. CLEAN, ZEROS: read back; WRITTEN: read back, then written; FORCED: read back, then written by
# a debugger; OUT: not read back; BOTH: not read back, and a child has it, too
CLEAN, ZEROS, WRITTEN, FORCED, OUT, BOTH = range(6)
LOCKED, DIRTY, SWAPCACHE, EXCLUSIVE = 0x1, 0x8, 0x20, 0x400
ENTRY_DIRTY = ENTRY_EXCLUSIVE = 0x40
NEVER_USED = 9


class Scene:
    def __init__(self):
        self.machine = machine = ksm.Machine(memory="16M", max_memory="16M", swap="1M")
        self.process = process = machine.spawn()
        self.addr = process.mmap(6 * PAGE)
        process.write(self.addr, b"".join(bytes([i != ZEROS and i + 1]) * PAGE for i in range(6)))
        machine.lru_add_drain_all()
        assert process.swap_out(self.addr, 6 * PAGE) == 6
        self.slots = [word >> ksm.PAGE_FLAGS_SHIFT for word in process.page_table(self.addr, 6 * PAGE)]
        process.read(self.addr, 4 * PAGE)
        process.write(self.place(WRITTEN), b"written")
        process.write(self.place(FORCED), b"forced", force=True)
        self.child = process.fork()
        self.child.munmap(self.addr, 5 * PAGE)
        machine.lru_add_drain_all()
        assert machine.check() == []

    def place(self, page):
        return self.addr + page * PAGE

    def fields(self, page):
        found = page_fields(self.machine, self.process.mm_id, self.place(page))
        found.update(slot_fields(self.machine, self.slots[page]))
        found["free.zeromap"] = slot_fields(self.machine, NEVER_USED)["slot.zeromap"]
        return found

    def damage(self, page, name, value):
        return damaged(self.machine, self.fields(page), name, value)


@pytest.fixture(scope="module")
def scene():
    scene = Scene()
    yield scene
    scene.machine.close()


LAST_BYTE = 1 << (8 * PAGE - 1)
DAMAGE = {
    # A page that was written to since is written to the slot again, if it or its entry is dirty
    "first byte of a clean page": (CLEAN, "page.bytes", plus(1), r"slot 1 holds other bytes than its frame \d+, which is clean"),
    "last byte of a clean page": (CLEAN, "page.bytes", flip(LAST_BYTE), r"slot 1 holds other bytes"),
    "first byte of a slot": (CLEAN, "slot.bytes", plus(1), r"slot 1 holds other bytes"),
    "last byte of a slot": (CLEAN, "slot.bytes", flip(LAST_BYTE), r"slot 1 holds other bytes"),
    "slot marked as zeros": (CLEAN, "slot.zeromap", 1, r"slot 1 is marked as zeros, and its clean frame \d+ is not"),
    "first byte of zeros": (ZEROS, "page.bytes", plus(1), r"slot 2 is marked as zeros, and its clean frame \d+ is not"),
    "last byte of zeros": (ZEROS, "page.bytes", flip(LAST_BYTE), r"slot 2 is marked as zeros"),
    "dirty bit of the entry": (WRITTEN, "pte", flip(ENTRY_DIRTY), r"slot 3 holds other bytes"),
    "dirty flag of the page": (FORCED, "page.flags", flip(DIRTY), r"slot 4 holds other bytes"),
    # Who has the slot
    "entries": (OUT, "slot.swap_map", plus(1), r"slot 5: swap_map 0x2, counted 0x1"),
    "entries of a page in the cache": (CLEAN, "slot.swap_map", plus(1), r"slot 1: swap_map 0x\w+1, counted 0x\w+0"),
    "no longer in use": (OUT, "slot.swap_map", 0, r"slot 5: swap_map 0, counted 0x1"),
    "an entry that says exclusive": (BOTH, "pte", flip(ENTRY_EXCLUSIVE), r"an exclusive entry of slot 6, whose swap_map is 0x2"),
    "an entry of no slot": (OUT, "pte", lambda old, fields: old | 1 << 40, r"an entry that is not present, nor of the swap area"),
    "free, and marked as zeros": (OUT, "free.zeromap", 1, r"slot 9: free, and marked as zeros"),
    # The swap cache
    "page not in it": (CLEAN, "slot.page", 0, r"slot 1: swap_map 0x\w+, counted 0"),
    "no struct page": (CLEAN, "slot.page", 64, r"slot 1 has page 0x40, which is no struct page"),
    "flag": (CLEAN, "page.flags", flip(SWAPCACHE), r"slot 1 has frame \d+, whose flags are"),
    "slot of the page": (CLEAN, "page.private", plus(1), r"slot 1 has frame \d+, whose flags are 0x\w+ and whose slot is 2"),
    # The area
    "in use": (OUT, "swap.inuse_pages", plus(-1), r"swap area: 5 slots in use, counted 6"),
    "users": (OUT, "swap.users", plus(1), r"swap area: 1 users"),
    "locked": (OUT, "swap.locked", 1, r"swap area: 0 users, locks 1 and 0"),
    "cache locked": (OUT, "swap.cache_locked", 1, r"swap area: 0 users, locks 0 and 1"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found(scene, name):
    page, field, value, expected = DAMAGE[name]
    findings = scene.damage(page, field, value)
    assert any(re.search(expected, line) for line in findings), findings


@pytest.mark.parametrize("page", [WRITTEN, FORCED])
def test_a_dirty_page_may_differ(scene, page):
    assert scene.damage(page, "page.bytes", plus(1)) == []
    assert scene.damage(page, "slot.bytes", plus(1)) == []
    assert scene.damage(page, "slot.zeromap", 1) == []


def written_since(machine):
    """A process with a page in the swap cache that it has written to since: the process, the page's address."""
    process = machine.spawn()
    addr = process.mmap(PAGE)
    process.write(addr, b"old")
    process.swap_out(addr, PAGE)
    process.read(addr, 1)
    process.write(addr, b"new")
    return process, addr


def test_one_dirty_entry_of_two_is_enough():
    with ksm.Machine(memory="1M", swap="64K") as machine:
        process, addr = written_since(machine)
        child = process.fork()
        entries = [page_fields(machine, each.mm_id, addr)["pte"].address for each in (process, child)]
        finding = "swap cache: slot 1 holds other bytes than its frame 1, which is clean"
        for cleaned in ([0], [1], [0, 1]):
            for i in cleaned:
                ctypes.c_ulong.from_address(entries[i]).value ^= ENTRY_DIRTY
            assert machine.check() == ([finding] if len(cleaned) == 2 else [])
            for i in cleaned:
                ctypes.c_ulong.from_address(entries[i]).value ^= ENTRY_DIRTY


def test_a_page_that_nobody_needs_may_differ():
    """It was locked when its process gave it up, and stays in the swap cache until it is reclaimed. Nobody reads the slot any more."""
    with ksm.Machine(memory="1M", swap="64K") as machine:
        process, addr = written_since(machine)
        fields = frame_fields(machine, process.page_table(addr, PAGE)[0] >> ksm.PAGE_FLAGS_SHIFT)
        flags = ctypes.c_uint.from_address(fields["page.flags"].address)
        flags.value |= LOCKED
        process.madvise(addr, PAGE, ksm.MADV_DONTNEED)
        flags.value &= ~LOCKED
        assert flags.value & SWAPCACHE and not flags.value & DIRTY
        assert machine.check() == []


def test_exclusive_and_wanted_by_others(scene):
    """A page in the swap cache is exclusive to one process, while entries of others have its slot."""
    machine = scene.machine
    parent = machine.spawn()
    addr = parent.mmap(PAGE)
    parent.write(addr, b"parent")
    parent.swap_out(addr, PAGE)
    child = parent.fork()
    parent.read(addr, 1)
    flags = frame_fields(machine, parent.page_table(addr, PAGE)[0] >> ksm.PAGE_FLAGS_SHIFT)["page.flags"].address
    ctypes.c_uint.from_address(flags).value ^= EXCLUSIVE
    findings = machine.check()
    ctypes.c_uint.from_address(flags).value ^= EXCLUSIVE
    assert any(re.search(r"slot \d+ has frame \d+, which is exclusive, and 1 entries", line) for line in findings), findings
    child.exit()
    parent.exit()
    machine.lru_add_drain_all()
    assert machine.check() == []

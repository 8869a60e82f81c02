# SPDX-License-Identifier: GPL-2.0-only
"""Object caches: freed objects are used again, the last freed one first, and nothing is lost."""

import ctypes

import pytest

import ksm
from ksm.testing.corrupt import machine_fields, page_fields

PAGE = ksm.PAGE_SIZE


@pytest.fixture
def machine():
    with ksm.Machine(memory="16M", max_memory="16M") as machine:
        yield machine
        assert machine.check() == []


def objects(machine):
    return {name: ctypes.c_long.from_address(address).value for name, (address, _) in machine_fields(machine).items()
            if name.startswith("cache.")}


def test_objects_of_a_life(machine):
    before = objects(machine)
    assert set(before.values()) == {0}
    process = machine.spawn()
    addr = process.mmap(1000 * PAGE)
    process.write(addr, b"".join(bytes([i % 250]) * PAGE for i in range(1000)))
    process.madvise(addr, 1000 * PAGE, ksm.MADV_MERGEABLE)
    machine.ksm.scan(3)
    now = objects(machine)
    assert now == {"cache.mm_struct": 1, "cache.vm_area_struct": 1, "cache.anon_vma": 1, "cache.anon_vma_chain": 1, "cache.page_table": 5,
                   "cache.rmap_item": 1000, "cache.stable_node": 250, "cache.mm_slot": 1}
    child = process.fork()
    assert objects(machine)["cache.anon_vma_chain"] == 3
    process.exit()
    child.exit()
    machine.ksm.scan(2)
    machine.ksm.run = 2
    assert objects(machine) == before


def test_last_freed_is_first_used(machine):
    """As in the kernel's slabs, the address of a freed object is used again soon. That brings stale links to light."""
    process = machine.spawn()
    places = [process.mmap(PAGE, flags=ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED, addr=0x100000 + i * 0x10000) for i in range(8)]

    def object_of(place):
        return page_fields(machine, 1, place)["vma.start"].address

    seen = [object_of(place) for place in places]
    assert len(set(seen)) == 8
    assert all(address % 64 == 0 for address in seen)
    for i in (2, 5, 3):
        process.munmap(places[i], PAGE)
    for i, old in zip((0, 1, 6), (3, 5, 2), strict=True):
        place = process.mmap(PAGE, flags=ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED, addr=0x900000 + i * 0x10000)
        assert object_of(place) == seen[old]


def test_freed_objects_are_poisoned(machine):
    process = machine.spawn()
    place = process.mmap(PAGE)
    address = page_fields(machine, 1, place)["vma.start"].address
    process.munmap(place, PAGE)
    assert ctypes.string_at(address + 8, 64) == b"\x6b" * 64


def test_caches_grow(machine):
    """A cache grows to more objects than one chunk has, and shrinks to none."""
    process = machine.spawn()
    for i in range(3000):
        process.mmap(PAGE, flags=ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED, addr=0x1000000 + 2 * i * PAGE)
    assert objects(machine)["cache.vm_area_struct"] == 3000
    assert len(process.maps()) == 3000
    process.munmap(0x1000000, 6000 * PAGE)
    assert objects(machine)["cache.vm_area_struct"] == 0

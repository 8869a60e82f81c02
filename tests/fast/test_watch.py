# SPDX-License-Identifier: GPL-2.0-only
"""ksmd forgets what it remembers of a page when it must, also when another thread acts just then."""

import ctypes
import threading
import time

import pytest
from waiting import until_it_waits

import ksm
from ksm.testing.corrupt import frame_fields, page_fields, store

PAGE = ksm.PAGE_SIZE
START = 1 << 30
RW = ksm.PROT_READ | ksm.PROT_WRITE
PG_SWAPCACHE, PG_KSM_WATCHED = 0x20, 0x80000      # include/linux/page_flags.pxd


@pytest.fixture
def machine():
    with ksm.Machine(memory="4M", max_memory="4M", clock="manual", plain=False) as machine:
        machine.ksm.smart_scan = 0
        yield machine
        assert machine.check() == []


def mergeable(machine, letters):
    process = machine.spawn()
    process.mmap(len(letters) * PAGE, RW, ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED, START)
    for i, letter in enumerate(letters):
        process.write(START + i * PAGE, letter.encode() * PAGE)
    process.madvise(START, len(letters) * PAGE, ksm.MADV_MERGEABLE)
    return process


def frame(process):
    return process.page_table(START, PAGE)[0] >> ksm.PAGE_FLAGS_SHIFT


def word(process, name):
    return ctypes.c_int.from_address(page_fields(process.machine, process.mm_id, START)[name].address)


def becomes(word, value):
    """Wait until another thread has set the word to this value."""
    deadline = time.monotonic() + 30
    while word.value != value:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_page_is_written_to_while_it_is_merged(machine):
    """The page in the tree was found equal, and is written to before it is write-protected. It stays in the tree, which is out of order
    now."""
    first, second = mergeable(machine, "a"), mergeable(machine, "ay")
    machine.ksm.scan()
    machine.ksm.scan(pages=1)
    assert machine.ksm.pages_unshared == 1
    of_first, of_second = word(first, "table.locked"), word(second, "table.locked")
    in_first, in_second = word(first, "mm.mmap_lock"), word(second, "mm.mmap_lock")
    pfn = frame(first)
    scan = threading.Thread(target=machine.ksm.scan, kwargs={"pages": 1}, daemon=True)
    of_second.value = 1
    try:
        scan.start()
        becomes(in_second, 1)       # the scan waits to look at the second process's page, done with the first process,
        of_first.value, of_second.value = 1, 0
        becomes(in_second, 0)
        becomes(in_first, 1)        # to look at the first one's, which is in the tree,
        of_second.value, of_first.value = 1, 0
        becomes(in_first, 0)
        becomes(in_second, 1)       # to write-protect the second one's,
        of_first.value, of_second.value = 1, 0
        becomes(in_second, 0)
        becomes(in_first, 1)        # and to write-protect the first one's, which was found equal
        until_it_waits(scan)
        store(machine, pfn, b"x" * PAGE)
    finally:
        of_first.value = of_second.value = 0
        scan.join(10)
    assert not scan.is_alive()
    assert (machine.ksm.pages_shared, machine.ksm.pages_unshared) == (0, 1)
    assert machine.check() == []
    machine.ksm.scan(pages=1)           # ksmd sees what has become of its last page
    assert machine.check() == []
    machine.ksm.scan(3)
    assert (machine.ksm.pages_shared, machine.ksm.pages_unshared) == (0, 3)
    assert (first.read(START, PAGE), second.read(START, PAGE)) == (b"x" * PAGE, b"a" * PAGE)


@pytest.mark.parametrize("swapcache", [False, True])
def test_a_page_on_its_way_into_the_swap_cache_is_not_watched(machine, swapcache):
    """Whoever puts a page into the swap cache or takes it out uses `private`, without a lock that ksmd takes. The flag is set first, and
    cleared last."""
    process = mergeable(machine, "ab")
    flags = ctypes.c_int.from_address(frame_fields(machine, frame(process))["page.flags"].address)
    flags.value |= swapcache * PG_SWAPCACHE
    machine.ksm.scan(pages=1)
    assert bool(flags.value & PG_KSM_WATCHED) != swapcache
    flags.value &= ~PG_SWAPCACHE
    machine.ksm.scan(2)
    assert flags.value & PG_KSM_WATCHED
    assert machine.ksm.pages_unshared == 2


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("pages", [1, 30, 300])
def test_what_nobody_has_written_to_is_not_read_again(plain, pages):
    """The test changes bytes without a write of the process. A plain machine reads all bytes, and sees it; a fast one does not."""
    with ksm.Machine(memory="4M", max_memory="4M", plain=plain) as machine:
        machine.ksm.smart_scan = 0
        process = machine.spawn()
        addr = process.mmap(pages * PAGE)
        for i in range(pages):
            process.write(addr + i * PAGE, b"%d" % i)
        process.madvise(addr, pages * PAGE, ksm.MADV_MERGEABLE)
        machine.ksm.scan(3)
        assert (machine.ksm.pages_unshared, machine.ksm.pages_volatile) == (pages, 0)
        frames = [word >> ksm.PAGE_FLAGS_SHIFT for word in process.page_table(addr, pages * PAGE)]
        last = [ctypes.c_ubyte.from_address(frame_fields(machine, pfn)["page.bytes"].address + PAGE - 1) for pfn in frames]
        for byte in last:
            byte.value = 1
        machine.ksm.scan()
        assert (machine.ksm.pages_unshared, machine.ksm.pages_volatile) == ((0, pages) if plain else (pages, 0))
        for byte in last:
            byte.value = 0

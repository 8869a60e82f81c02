# SPDX-License-Identifier: GPL-2.0-only
"""Frames: where they come from, that all come back, and that merging makes the test's own process smaller."""

import ctypes
import errno
import os
import random
import re

import pytest

import ksm
from ksm.testing.corrupt import machine_fields
from ksm.testing.trees import claimed

PAGE = ksm.PAGE_SIZE
MIB = 1 << 20
RW = ksm.PROT_READ | ksm.PROT_WRITE
FIXED = ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED


def resident():
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def emptied(machine):
    machine.lru_add_drain_all()
    return machine.free_pages() == machine.total_pages() - 1


def test_an_unused_machine_is_small():
    before = resident()
    with ksm.Machine(memory="4G", max_memory="8G") as machine:
        assert machine.total_pages() == 1 << 20
        assert machine.free_pages() == (1 << 20) - 1
        assert resident() - before < 4 * MIB


def test_merging_gives_memory_back():
    with ksm.Machine(memory="128M", max_memory="128M") as machine:
        process = machine.spawn()
        pages = 64 * MIB // PAGE
        addr = process.mmap(64 * MIB)
        chunk = b"the same page over and over again".ljust(PAGE, b".") * 1024
        before = resident()
        for offset in range(0, 64 * MIB, len(chunk)):
            process.write(addr + offset, chunk)
        full = resident()
        assert full - before > 60 * MIB
        process.madvise(addr, 64 * MIB, ksm.MADV_MERGEABLE)
        machine.ksm.scan(3)
        assert machine.ksm.pages_sharing > pages - 2 * pages // 256
        assert full - resident() > 60 * MIB
        assert process.read(addr + 63 * MIB, PAGE) == chunk[:PAGE]
        process.exit()
        assert emptied(machine)
        assert machine.check() == []


def test_exit_gives_memory_back():
    with ksm.Machine(memory="32M", max_memory="32M") as machine:
        before = resident()
        process = machine.spawn()
        process.touch(process.mmap(24 * MIB), 24 * MIB)
        assert resident() - before > 23 * MIB
        process.exit()
        machine.lru_add_drain_all()
        machine.drain_all_pages()
        assert resident() - before < 2 * MIB


def test_memory_that_is_full():
    with ksm.Machine(memory="256K", max_memory="256K") as machine:
        process = machine.spawn()
        addr = process.mmap(100 * PAGE)
        with pytest.raises(OSError, match="Cannot allocate") as info:
            process.write(addr, b"x" * 100 * PAGE)
        assert info.value.errno == errno.ENOMEM
        assert machine.free_pages() == 0
        assert process.rss() == 63
        assert process.read(addr, 63 * PAGE) == b"x" * 63 * PAGE
        assert machine.check() == []
        # The zero page is always there.
        assert process.read(addr + 63 * PAGE, PAGE) == bytes(PAGE)
        child = process.fork()
        assert child.read(addr, PAGE) == b"x" * PAGE
        with pytest.raises(OSError, match="Cannot allocate"):
            child.write(addr, b"y")
        assert machine.check() == []
        machine.lru_add_drain_all()
        process.munmap(addr, PAGE)
        child.write(addr, b"y")         # no other process has the page now
        assert child.read(addr, 2) == b"yx"


def test_merging_makes_room():
    with ksm.Machine(memory="256K", max_memory="256K") as machine:
        process = machine.spawn()
        addr = process.mmap(200 * PAGE)
        process.madvise(addr, 200 * PAGE, ksm.MADV_MERGEABLE)
        for i in range(200):
            process.write(addr + i * PAGE, b"all alike")
            if machine.free_pages() < 4:
                machine.ksm.scan(2)
        assert process.rss() == 200
        assert machine.check() == []
        assert all(process.read(addr + i * PAGE, 9) == b"all alike" for i in range(200))


def test_nodes_fall_back_on_each_other():
    with ksm.Machine(memory="4M", max_memory="4M", nodes=2) as machine:
        process = machine.spawn()
        addr = process.mmap(4 * MIB)
        process.touch(addr, 1023 * PAGE)
        frames = {word >> ksm.PAGE_FLAGS_SHIFT for word in process.page_table(addr, 1023 * PAGE)}
        assert frames == set(range(1, 1024))
        assert machine.check() == []


@pytest.mark.parametrize("seed", range(4))
def test_nothing_leaks(seed):
    """Pages come and go in random order. The free lists stay in order, and all frames come back."""
    rng = random.Random(seed)
    with ksm.Machine(memory="16M", max_memory="16M", nodes=2) as machine:
        process = machine.spawn()
        mapped = []
        for step in range(300):
            if mapped and rng.random() < 0.45:
                process.munmap(*mapped.pop(rng.randrange(len(mapped))))
            else:
                length = rng.choice([1, 1, 2, 7, 30, 200]) * PAGE
                if (machine.free_pages() * PAGE) > length:
                    addr = process.mmap(length)
                    process.touch(addr, length)
                    mapped.append((addr, length))
            if rng.random() < 0.1:
                machine.drain_all_pages()
            if step % 10 == 0:
                assert machine.check() == []
        while mapped:
            process.munmap(*mapped.pop(rng.randrange(len(mapped))))
        machine.drain_all_pages()
        assert emptied(machine)
        assert machine.check() == []


def test_frames_given_back_read_as_zeros():
    with ksm.Machine(memory="4M", max_memory="4M") as machine:
        process = machine.spawn()
        for _ in range(3):
            addr = process.mmap(1000 * PAGE)
            assert process.read(addr, 1000 * PAGE).count(0) == 1000 * PAGE
            process.touch(addr, 1000 * PAGE)
            assert process.read(addr, 1000 * PAGE).count(0) == 1000 * PAGE
            process.write(addr, b"\xff" * 1000 * PAGE)
            machine.lru_add_drain_all()
            process.munmap(addr, 1000 * PAGE)
            machine.drain_all_pages()


@pytest.mark.parametrize("every", [2, 3, 8, 256])
def test_holes_of_merged_pages_are_used_again(every):
    """Most frames become free by merging, with used ones between them. The free frames read as zeros, have one user each, and all come
    back."""
    rng = random.Random(every)
    with ksm.Machine(memory="16M", max_memory="16M") as machine:
        process = machine.spawn()
        pages = 3000
        addr = process.mmap(pages * PAGE)
        contents = [b"%d" % i if i % every == 0 else b"the same" for i in range(pages)]
        process.write(addr, b"".join(content.ljust(PAGE, b".") for content in contents))
        process.madvise(addr, pages * PAGE, ksm.MADV_MERGEABLE)
        machine.ksm.scan(2)
        other = process.mmap(500 * PAGE)
        ahead = 0
        for i in rng.sample(range(500), 300):
            process.touch(other + i * PAGE, PAGE)
            ahead = max(ahead, claimed(machine))
        assert ahead >= 20
        assert machine.check() == []
        assert process.read(other, 500 * PAGE).count(0) == 500 * PAGE
        process.touch(addr, pages // 2 * PAGE)
        assert machine.check() == []
        machine.ksm.store("run", "2")
        assert machine.check() == []
        assert process.read(addr, pages * PAGE) == b"".join(content.ljust(PAGE, b".") for content in contents)
        assert process.read(other, 500 * PAGE).count(0) == 500 * PAGE
        process.munmap(other, 500 * PAGE)
        machine.lru_add_drain_all()
        machine.drain_all_pages()
        assert machine.check() == []
        process.exit()
        assert emptied(machine)


def there(machine, frame, count):
    """The frames of a range that have memory from the system."""
    answer = ctypes.create_string_buffer(count)
    arena, _ = machine_fields(machine)["arena"]
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(arena + frame * PAGE), ctypes.c_size_t(count * PAGE), answer) == 0
    return [frame + i for i in range(count) if answer[i] != b"\0"]


@pytest.mark.parametrize("used", [10, 40, 63])
def test_no_memory_is_asked_for_where_nobody_was_yet(used):
    """Free frames between used ones get memory for 64 frames at once. Frames behind the last one that was ever used get none."""
    with ksm.Machine(memory="16M", max_memory="16M") as machine:
        process, last = machine.spawn(), 4 * 64 + used
        addr = process.mmap(last * PAGE)
        for place in range(last - 1):
            process.touch(addr + place * PAGE)
            if place % 50 == 0:         # otherwise the frames would be taken one after the other
                machine.lru_add_drain_all()
                process.munmap(addr + place * PAGE, PAGE)
                machine.drain_all_pages()
                process.mmap(PAGE, RW, FIXED, addr + place * PAGE)
                process.touch(addr + place * PAGE)
        machine.lru_add_drain_all()
        assert there(machine, 1, 511) == list(range(1, last))
        # Every second frame becomes free. Those of the last block are freed first, and so are used again last.
        place_of = {word >> ksm.PAGE_FLAGS_SHIFT: addr + i * PAGE for i, word in enumerate(process.page_table(addr, (last - 1) * PAGE))}
        for frames in (range(4 * 64, last, 2), range(2, 4 * 64, 2)):
            for frame in frames:
                process.munmap(place_of[frame], PAGE)
            machine.drain_all_pages()
        other = process.mmap(last * PAGE)
        for i in range(4 * 64 // 2 - 1 + (used + 1) // 2):
            process.touch(other + i * PAGE)
        assert there(machine, 1, 511) == list(range(1, last))
        assert machine.check() == []


def test_memory_asked_for_ahead_goes_back():
    with ksm.Machine(memory="32M", max_memory="32M") as machine:
        process = machine.spawn()
        pages = 6000
        addr = process.mmap(pages * PAGE)
        process.write(addr, b"the same page".ljust(PAGE, b".") * pages)
        process.madvise(addr, pages * PAGE, ksm.MADV_MERGEABLE)
        machine.ksm.scan(2)
        before, free = resident(), machine.free_pages()
        process.touch(addr, 400 * PAGE)
        ahead = resident()
        machine.drain_all_pages()
        assert resident() < ahead
        assert resident() - before < (free - machine.free_pages()) * PAGE + MIB // 8
        assert machine.check() == []


def test_frames_never_get_huge_pages_of_the_system():
    """On a system that uses huge pages always, memory that is given back in parts would not be free."""
    with ksm.Machine(memory="48M", max_memory="48M") as machine:
        process = machine.spawn()
        process.touch(process.mmap(16 * MIB), 16 * MIB)
        with open("/proc/self/smaps") as smaps:
            mappings = re.findall(r"^Size: +49152 kB\n(?:\w+: .*\n)*?VmFlags: (.*)", smaps.read(), re.MULTILINE)
        assert len(mappings) == 1
        assert "nh" in mappings[0].split()

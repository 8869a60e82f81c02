# SPDX-License-Identifier: GPL-2.0-only
"""Helpers of the tests of migration, swap and hotplug: pages with a number, their frames, a random life, and a machine's end."""

import errno
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

import ksm

PAGE = ksm.PAGE_SIZE


def fill(number: int) -> bytes:
    """The bytes of a page."""
    return bytes([number & 255, number >> 8]) * (PAGE // 2)


def looks_like_zeros() -> bytes:
    """A page with the xxhash of a page of zeros: what its first word does to the first of the four sums, the word after the next three
    takes back."""
    prime1, prime2, word = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 1 << 64

    def step(total: int, data: int) -> int:
        total = (total + data * prime2) % word
        return (total << 31 | total >> 33) * prime1 % word

    start = (prime1 + prime2) % word
    back = (step(start, 0) - step(start, 1)) * pow(prime2, -1, word) % word
    return (1).to_bytes(32, "little") + back.to_bytes(PAGE - 32, "little")


def fails(number: int, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
    """The call raises OSError with this errno."""
    with pytest.raises(OSError) as caught:
        function(*args, **kwargs)
    assert caught.value.errno == number


def frames(process: ksm.Process, addr: int, pages: int = 1) -> list[int | None]:
    """The frames of the range, None where the page is not there."""
    return [word >> 8 if word & ksm.PAGE_PRESENT else None for word in process.page_table(addr, pages * PAGE)]


def mergeable(process: ksm.Process, contents: Sequence[bytes]) -> int:
    """A mapping with these pages, mergeable: its address."""
    addr = process.mmap(len(contents) * PAGE)
    process.madvise(addr, len(contents) * PAGE, ksm.MADV_MERGEABLE)
    for i, content in enumerate(contents):
        process.write(addr + i * PAGE, content)
    return addr


def damage(machine: ksm.Machine) -> list[str]:
    """What check() finds, without two holes of the kernel's: see test_a_page_with_one_mapping_that_meets_its_equal() of test_migrate.py,
    and test_an_anon_vma_that_is_used_again() of test_swapfile.py."""
    known = ["names anon_vma"] + (["to which no rmap_item"] if not getattr(machine.ksm, "merge_across_nodes", 1) else [])
    return [line for line in machine.check() if not any(words in line for words in known)]


def finish(machine: ksm.Machine) -> None:
    """Close a machine. When all processes have exited, nothing may be left."""
    assert damage(machine) == []
    for process in list(machine.processes.values()):
        process.exit()
    machine.ksm.scan(passes=2)
    machine.lru_add_drain_all()
    assert machine.check() == []
    # Pages that only the swap cache has: as in the kernel, they stay until the memory is needed.
    cached = machine.swap_pages()[0]
    assert machine.free_pages() == machine.total_pages() - 1 - cached
    if cached:
        machine.swapoff()
    assert machine.check() == []
    assert machine.free_pages() == machine.total_pages() - 1
    assert machine.ksm.pages_shared == machine.ksm.pages_sharing == 0
    machine.close()


class Life:
    """Processes with the same mapping, each of which knows what it should read. An action is a method."""

    def __init__(self, machine: ksm.Machine, rng: random.Random, pages: int, contents: int) -> None:
        self.machine, self.rng, self.pages, self.contents = machine, rng, pages, contents
        first = machine.spawn()
        self.addr = mergeable(first, [fill(0)] * pages)
        self.known = {first: [fill(0)] * pages}

    def step(self, action: str) -> None:
        """Do it with some pages of some process."""
        process = self.rng.choice(list(self.known))
        page = self.rng.randrange(self.pages)
        length = self.rng.randrange(1, self.pages - page + 1)
        getattr(self, action)(process, slice(page, page + length), self.addr + page * PAGE, length * PAGE)

    def finish(self) -> None:
        for process, contents in self.known.items():
            assert process.read(self.addr, self.pages * PAGE) == b"".join(contents)

    def write(self, process: ksm.Process, pages: slice, addr: int, length: int) -> None:
        self.known[process][pages] = [fill(self.rng.randrange(1, self.contents)) for _ in range(length // PAGE)]
        for i, content in enumerate(self.known[process][pages]):
            process.write(addr + i * PAGE, content)

    def write_a_byte(self, process: ksm.Process, pages: slice, addr: int, length: int) -> None:
        self.known[process][pages.start] = b"!" + self.known[process][pages.start][1:]
        process.write(addr, b"!")

    def write_by_force(self, process: ksm.Process, pages: slice, addr: int, length: int) -> None:
        content = fill(self.rng.randrange(self.contents))
        self.known[process][pages] = [content] * (length // PAGE)
        process.write(addr, content * (length // PAGE), force=True)

    def update(self, process: ksm.Process, pages: slice, addr: int, length: int) -> None:
        content = fill(self.rng.randrange(self.contents))
        self.known[process][pages] = [content] * (length // PAGE)
        process.update(addr, content * (length // PAGE))

    def read(self, process: ksm.Process, pages: slice, addr: int, length: int) -> None:
        assert process.read(addr, length) == b"".join(self.known[process][pages])

    def discard(self, process: ksm.Process, pages: slice, addr: int, length: int) -> None:
        process.madvise(addr, length, ksm.MADV_DONTNEED)
        self.known[process][pages] = [fill(0)] * (length // PAGE)

    def fork(self, process: ksm.Process, pages: slice, addr: int, length: int) -> None:
        if len(self.known) < 6:
            self.known[process.fork()] = list(self.known[process])

    def spawn(self, process: ksm.Process, pages: slice, addr: int, length: int) -> None:
        if len(self.known) < 6:
            fresh = self.machine.spawn(node=self.rng.randrange(2))
            fresh.mmap(self.pages * PAGE, addr=self.addr, flags=ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED)
            fresh.madvise(self.addr, self.pages * PAGE, ksm.MADV_MERGEABLE)
            self.known[fresh] = [fill(0)] * self.pages

    def exit(self, process: ksm.Process, pages: slice, addr: int, length: int) -> None:
        if len(self.known) > 1:
            process.exit()
            del self.known[process]

    def scan(self, process: ksm.Process, pages: slice, addr: int, length: int) -> None:
        self.machine.ksm.scan(passes=self.rng.randrange(1, 4))

    def merge(self, process: ksm.Process, pages: slice, addr: int, length: int) -> None:
        process.madvise(self.addr, self.pages * PAGE, ksm.MADV_MERGEABLE)

    def unmerge(self, process: ksm.Process, pages: slice, addr: int, length: int) -> None:
        process.madvise(addr, length, ksm.MADV_UNMERGEABLE)

    def swap_out(self, process: ksm.Process, pages: slice, addr: int, length: int) -> None:
        process.swap_out(addr, length)

    def swapoff(self, process: ksm.Process, pages: slice, addr: int, length: int) -> None:
        if self.rng.randrange(4) == 0:
            self.machine.swapoff()
            self.machine.swapon("16M")

    def move(self, process: ksm.Process, pages: slice, addr: int, length: int) -> None:
        process.move_pages(addr, length, self.rng.randrange(2))

    def migrate(self, process: ksm.Process, pages: slice, addr: int, length: int) -> None:
        frame = frames(process, addr)[0]
        try:
            if frame:
                self.machine.migrate(frame, node=self.rng.choice([0, 1, None]))
        except OSError as error:
            assert error.errno in (errno.EAGAIN, errno.EBUSY)

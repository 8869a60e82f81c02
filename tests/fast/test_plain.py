# SPDX-License-Identifier: GPL-2.0-only
"""The speed layer changes no result: a plain machine and a fast one that do the same things are equal after each of them.

They are equal in what calls answer, in counters, trace events, page tables with their frames, rmap_items, and the trees with their shapes
and colours. This matters most when pages in the unstable tree are written to, so that the tree is out of order.
"""

import contextlib
import random

import pytest
from hypothesis import settings

import ksm
from ksm.testing.trees import first_looks, look_from, state

from ..test_stateful import FAST, LONG, World

pytestmark = pytest.mark.once

PAGE = ksm.PAGE_SIZE
RW = ksm.PROT_READ | ksm.PROT_WRITE


class Both:
    """Two objects in one: every call is made on both, and both have to answer alike."""

    def __init__(self, plain, fast):
        self.__dict__.update(plain=plain, fast=fast)

    def __getattr__(self, name):
        return both(getattr(self.plain, name), getattr(self.fast, name), name)

    def __setattr__(self, name, value):
        alike(lambda: setattr(self.plain, name, value), lambda: setattr(self.fast, name, value), name)


def both(plain, fast, name):
    if callable(plain):
        return lambda *args, **kwargs: alike(lambda: plain(*args, **kwargs), lambda: fast(*args, **kwargs), name)
    if isinstance(plain, (ksm.Process, ksm.Machine, type(PROBE.ksm))):
        return Both(plain, fast)
    assert plain == fast, name
    return fast


def alike(plain, fast, name):
    answers = []
    for call in (plain, fast):
        try:
            answers.append(call())
        except OSError as error:
            answers.append(error)
    failed = [answer.errno for answer in answers if isinstance(answer, OSError)]
    if failed:
        assert len(failed) == 2 and failed[0] == failed[1], (name, answers)
        raise answers[1]
    return both(*answers, name)


PROBE = ksm.Machine(memory="1M", max_memory="1M")


def pair(**kwargs):
    """A plain machine, and a fast one that lets three threads compute checksums wherever it can."""
    machines = Both(*(ksm.Machine(clock="manual", plain=plain, threads=3, **kwargs) for plain in (True, False)))
    look_from(machines.fast, 8, 100)
    for machine in (machines.plain, machines.fast):
        machine.ksm.trace.start(1 << 16)
    return machines


class Names:
    """Names for addresses of structures, by the order in which they come up."""

    def __init__(self):
        self.known = {}

    def __call__(self, address):
        return address and self.known.setdefault(address, len(self.known) + 1)


def events(machine, names):
    return [(event.name, event.seq, event.rmap_entries, event.pfn, bool(event.ksm_page), names(event.rmap_item), event.mm_id, event.error)
            for event in machine.ksm.trace.read()]


def compare(machines):
    """Assert that everything that can be seen is equal."""
    plain, fast = machines.plain, machines.fast
    assert state(plain) == state(fast)
    assert plain.ksm.attributes() == fast.ksm.attributes()
    assert plain.vmstat() == fast.vmstat()
    assert plain.free_pages() == fast.free_pages()
    assert plain.slabinfo() == fast.slabinfo()
    assert events(plain, Names()) == events(fast, Names())


class Twins(World):
    """The random life of test_stateful.py, on both machines."""

    @staticmethod
    def make(**kwargs):
        return pair(**kwargs)

    @staticmethod
    def view_of(machine):
        return memoryview(machine.fast)

    def nothing_is_wrong(self):
        if hasattr(self, "machine"):
            compare(self.machine)
        super().nothing_is_wrong()


class CrowdedTwins(Twins):
    memory = "160K"
    nodes = 1
    filled = 0


class OldTwins(Twins):
    era = "6.1"


class OldCrowdedTwins(CrowdedTwins):
    era = "6.1"


TestTwins = Twins.TestCase
TestTwins.settings = settings(FAST, max_examples=60)
TestCrowdedTwins = CrowdedTwins.TestCase
TestCrowdedTwins.settings = settings(FAST, max_examples=60)
TestOldTwins = OldTwins.TestCase
TestOldTwins.settings = settings(FAST, max_examples=40)
TestOldCrowdedTwins = OldCrowdedTwins.TestCase
TestOldCrowdedTwins.settings = settings(FAST, max_examples=40)


@pytest.mark.slow
@pytest.mark.parametrize("world", [Twins, CrowdedTwins, OldTwins, OldCrowdedTwins])
@pytest.mark.parametrize("part", range(4))
def test_long(world, part):
    class Test(world.TestCase):
        settings = LONG

    Test().runTest()


class Life:
    """Processes that write most of the time, mostly to pages in the unstable tree."""

    def __init__(self, seed, nodes, era):
        self.random = random.Random(seed)
        self.nodes = nodes
        self.machines = pair(memory="16M", max_memory="16M", swap="2M", nodes=nodes, era=era,
                             transparent_hugepage=self.random.choice(["never", "madvise", "always"]))
        self.kinds = self.random.choice([5, 40, 1000])
        self.places = self.random.choice([[0], [0, 1, 5, 7], [4, 5, 6], [4095], [0, 6, 8, 100, 4095]])
        knobs = self.machines.ksm
        smart_scan = self.random.random() < 0.3
        if era != "6.1":
            knobs.smart_scan = smart_scan
        knobs.use_zero_pages = self.random.random() < 0.3
        knobs.max_page_sharing = self.random.choice([2, 3, 256])
        self.pages = 600
        self.processes = [self.spawn() for _ in range(2)]

    def content(self):
        page = bytearray(PAGE)
        kind = self.random.randrange(self.kinds)
        for place in self.places:
            page[place] = kind & 255
            kind = kind * 167 >> 3
        return bytes(page)

    def spawn(self):
        process = self.machines.spawn()
        addr = process.mmap(self.pages * PAGE, RW, ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED, 1 << 30)
        assert addr == 1 << 30
        for i in range(self.pages):
            if self.random.random() < 0.9:
                process.write(addr + i * PAGE, self.content())
        process.madvise(addr, self.pages * PAGE, ksm.MADV_MERGEABLE)
        return process

    def step(self):
        chance, process = self.random.random(), self.random.choice(self.processes)
        first = self.random.randrange(self.pages)
        addr, length = (1 << 30) + first * PAGE, min(self.random.randint(1, 40), self.pages - first) * PAGE
        if chance < 0.35:
            self.machines.ksm.scan(pages=self.random.choice([1, 3, 17, 64, 65, 200, 600]))
        elif chance < 0.75:
            for _ in range(self.random.randint(1, 30)):
                where = (1 << 30) + self.random.randrange(self.pages) * PAGE
                data = self.content() if self.random.random() < 0.5 else b"\0\1\2\xff"[self.random.randrange(4):][:1]
                offset = 0 if len(data) > 1 else self.random.choice([*self.places, 2000])
                with contextlib.suppress(OSError):
                    process.write(where + offset, data, force=self.random.random() < 0.2)
        elif chance < 0.78 and len(self.processes) < 4:
            self.processes.append(process.fork())
        elif chance < 0.80 and len(self.processes) > 1:
            self.processes.remove(process)
            process.exit()
        else:
            with contextlib.suppress(OSError):
                self.random.choice([
                    lambda: process.madvise(addr, length, ksm.MADV_DONTNEED),
                    lambda: process.madvise(addr, length, ksm.MADV_UNMERGEABLE),
                    lambda: process.madvise(addr, length, ksm.MADV_MERGEABLE),
                    lambda: process.madvise(1 << 30, self.pages * PAGE, ksm.MADV_HUGEPAGE),
                    lambda: process.madvise(1 << 30, 512 * PAGE, ksm.MADV_DONTNEED),
                    lambda: process.mprotect(addr, length, self.random.choice([0, 1, RW])),
                    lambda: process.mprotect(addr, length, RW),
                    lambda: process.munmap(addr, length),
                    lambda: process.mmap(length, RW, ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED, addr),
                    lambda: process.mremap(addr, length, length,
                                           new_addr=(1 << 30) + self.random.randrange(self.pages - length // PAGE) * PAGE),
                    lambda: process.swap_out(addr, length),
                    lambda: process.move_pages(addr, length, addr // PAGE % self.nodes),
                    lambda: setattr(self.machines.ksm, "merge_across_nodes", self.random.randrange(2)),
                    lambda: process.read(addr, length),
                    lambda: self.machines.ksm.scan(1),
                ])()

    def tables(self):
        for process in self.processes:
            process.page_table(1 << 30, self.pages * PAGE)
            process.maps()

    def close(self):
        assert self.machines.check() == []
        for machine in (self.machines.plain, self.machines.fast):
            machine.close()


def live(seed, steps, nodes, era):
    life = Life(seed, nodes, era)
    for _ in range(steps):
        life.step()
        compare(life.machines)
        life.tables()
    life.close()


@pytest.mark.parametrize("huge", ["never", "always"])
@pytest.mark.parametrize("written", [False, True])
def test_a_page_that_was_looked_at_and_is_written_to(written, huge):
    """Threads have read a hundred pages more than are scanned. When one is scanned, only what it holds then counts."""
    machines = pair(memory="4M", max_memory="4M", transparent_hugepage=huge)
    process = machines.spawn()
    addr = process.mmap(600 * PAGE, RW, ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED, 1 << 30)
    for i in range(600):
        process.write(addr + i * PAGE, i.to_bytes(8, "little") * 512)
    process.madvise(addr, 600 * PAGE, ksm.MADV_MERGEABLE)
    machines.ksm.scan(pages=200)
    assert first_looks(machines.fast) == (300 - 64, 200 - 64)
    if written:
        process.write(addr + 200 * PAGE, b"new!")
    for _ in range(4):
        machines.ksm.scan(pages=200)
        compare(machines)
    read, known = first_looks(machines.fast)
    assert (read, known) == (352, 352 - written)
    for machine in (machines.plain, machines.fast):
        assert machine.check() == []
        machine.close()


def test_a_first_look_ends_with_its_pass():
    """The last page that threads have read comes up again in a later pass, when keys are made with a new book. It was not written to, but
    its key is kept by the child's item. No look ahead of that pass is long enough for another first look."""
    machines = pair(memory="8M", max_memory="8M")
    machines.ksm.smart_scan = 0
    process = machines.spawn()
    addr = process.mmap(300 * PAGE)
    for i in range(300):
        process.write(addr + i * PAGE, bytes(PAGE - 8) + i.to_bytes(8, "big"))
    process.madvise(addr, 300 * PAGE, ksm.MADV_MERGEABLE)
    machines.ksm.scan(1)
    assert first_looks(machines.fast) == (300 - 64, 300 - 64)
    child = process.fork()
    for _ in range(60):
        machines.ksm.scan(pages=50)
        compare(machines)
        assert machines.check() == []
    assert first_looks(machines.fast) == (300 - 64, 300 - 64)
    child.exit()
    for machine in (machines.plain, machines.fast):
        machine.close()


@pytest.mark.parametrize("seed, era", [(seed, era) for era, seeds in (("6.12", 8), ("7.3", 3), ("6.1", 4)) for seed in range(seeds)])
def test_heavy_writes(seed, era):
    live(seed, 60, nodes=1 + seed % 2, era=era)


@pytest.mark.slow
@pytest.mark.parametrize("era", ["7.3", "6.12", "6.1"])
@pytest.mark.parametrize("seed", range(100, 140))
def test_heavy_writes_for_long(seed, era):
    live(seed, 600, nodes=1 + seed % 2, era=era)


def test_the_environment_asks_for_the_plain_path(monkeypatch):
    monkeypatch.setenv("KSM_PLAIN", "1")
    with ksm.Machine(memory="1M", max_memory="1M") as machine:
        assert machine.plain
    monkeypatch.setenv("KSM_PLAIN", "0")
    with ksm.Machine(memory="1M", max_memory="1M") as machine:
        assert not machine.plain
    with ksm.Machine(memory="1M", max_memory="1M", plain=True) as machine:
        assert machine.plain


ENDS = {
    "write": lambda process, addr, length: [process.write(place, b"\x80") for place in range(addr, addr + length, PAGE)],
    "forced": lambda process, addr, length: [process.mprotect(addr, length, ksm.PROT_READ),
                                             *(process.write(place, b"\x80", force=True) for place in range(addr, addr + length, PAGE))],
    "update": lambda process, addr, length: process.update(addr, random.Random(1).randbytes(length)),
    "munmap": lambda process, addr, length: process.munmap(addr, length),
    "dontneed": lambda process, addr, length: process.madvise(addr, length, ksm.MADV_DONTNEED),
    "unmergeable": lambda process, addr, length: process.madvise(addr, length, ksm.MADV_UNMERGEABLE),
    "mremap": lambda process, addr, length: process.mremap(addr, length, length, new_addr=addr + (1 << 30)),
    "swap out": lambda process, addr, length: process.swap_out(addr, length),
    "swap out and in": lambda process, addr, length: [process.swap_out(addr, length), process.read(addr, length)],
    "migrate": lambda process, addr, length: process.move_pages(addr, length, 1),
    "not readable": lambda process, addr, length: process.mprotect(addr, length, 0),
    "exit": lambda process, addr, length: process.exit(),
    "fork, and write": lambda process, addr, length: [process.fork(), process.write(addr, random.Random(1).randbytes(length))],
    "prctl": lambda process, addr, length: [process.prctl(ksm.PR_SET_MEMORY_MERGE, 1), process.prctl(ksm.PR_SET_MEMORY_MERGE, 0)],
}


@pytest.mark.parametrize("across, era", [(0, "6.12"), (1, "6.12"), (1, "6.1")])
@pytest.mark.parametrize("what", ENDS)
def test_what_ends_a_key(what, across, era):
    """In the middle of a pass something happens to pages in the unstable tree, and searches for other pages go past them."""
    if era == "6.1" and what == "prctl":
        pytest.skip("6.1 has no PR_SET_MEMORY_MERGE")
    machines = pair(memory="8M", max_memory="8M", swap="2M", nodes=2, era=era)
    machines.ksm.merge_across_nodes = across
    if era == "6.12":
        machines.ksm.smart_scan = 0
    processes = [machines.spawn(), machines.spawn()]
    contents = random.Random(what)
    for process in processes:
        process.mmap(300 * PAGE, RW, ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED, 1 << 30)
        for i in range(300):
            process.write((1 << 30) + i * PAGE, contents.randbytes(8))
        process.madvise(1 << 30, 300 * PAGE, ksm.MADV_MERGEABLE)
    machines.ksm.scan(1)
    machines.ksm.scan(pages=350)
    assert machines.ksm.pages_unshared == 350
    ENDS[what](processes[0], 1 << 30, 120 * PAGE)
    for _ in range(4):
        machines.ksm.scan(pages=50)
        compare(machines)
    machines.ksm.scan(3)
    compare(machines)
    for machine in (machines.plain, machines.fast):
        machine.close()


@pytest.mark.parametrize("pages", [120, 512, 1024])
@pytest.mark.parametrize("what", ENDS)
def test_what_ends_a_key_of_a_huge_page(what, pages):
    """The same happens to a part of a huge page, to a whole one, and to two."""
    machines = pair(memory="24M", max_memory="24M", swap="8M", nodes=2, transparent_hugepage="always")
    machines.ksm.smart_scan = 0
    processes = [machines.spawn(), machines.spawn()]
    contents = random.Random(what)
    for process in processes:
        process.mmap(1024 * PAGE, RW, ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED, 1 << 30)
        for i in range(1024):
            process.write((1 << 30) + i * PAGE, contents.randbytes(8))
        process.madvise(1 << 30, 1024 * PAGE, ksm.MADV_MERGEABLE)
    machines.ksm.scan(1)
    machines.ksm.scan(pages=1100)
    assert machines.ksm.pages_unshared == 1100
    assert processes[0].smaps()[0].anon_huge_pages == 1024 * PAGE
    ENDS[what](processes[0], 1 << 30, pages * PAGE)
    for _ in range(4):
        machines.ksm.scan(pages=150)
        compare(machines)
    machines.ksm.scan(3)
    compare(machines)
    for machine in (machines.plain, machines.fast):
        machine.close()


def test_a_fast_machine_is_not_recorded():
    with ksm.Machine(memory="4M", max_memory="4M", plain=False) as machine, pytest.raises(ValueError, match="plain"):
        machine.record()

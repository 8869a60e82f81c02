# SPDX-License-Identifier: GPL-2.0-only
"""Whatever processes and KSM do, in whatever order: every byte is what was last written, and Machine.check() finds nothing.

A model keeps the bytes of every page of every process. The rules are actions of processes and of ksmd. After each rule all mapped
frames are compared with the model, without touching the pages, and the machine is checked.
"""

import errno
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import ksm

pytestmark = pytest.mark.once

PAGE = ksm.PAGE_SIZE
RW = ksm.PROT_READ | ksm.PROT_WRITE
ZEROS = bytes(PAGE)
HEAP = 0x555555556000
# The window lies across a boundary of every level of page tables.
BASE = (1 << 39) - 24 * PAGE
WINDOW = 48
MOST_PROCESSES = 4

# Few contents, so that equal pages occur. Some differ in the first or the last byte only.
POOL = [ZEROS, b"A" * PAGE, b"B" + b"A" * (PAGE - 1), b"A" * (PAGE - 1) + b"B", bytes(PAGE - 1) + b"\1", b"\xff" * PAGE,
        b"\x80" + bytes(PAGE - 1)]
ADVICE = [ksm.MADV_MERGEABLE, ksm.MADV_MERGEABLE, ksm.MADV_UNMERGEABLE, ksm.MADV_DONTNEED, ksm.MADV_DONTFORK, ksm.MADV_DOFORK,
          ksm.MADV_WIPEONFORK, ksm.MADV_KEEPONFORK, ksm.MADV_NORMAL, ksm.MADV_HUGEPAGE, ksm.MADV_NOHUGEPAGE]


KNOBS = [("use_zero_pages", 0), ("use_zero_pages", 1), ("smart_scan", 0), ("smart_scan", 1), ("merge_across_nodes", 0),
         ("merge_across_nodes", 1), *(("max_page_sharing", n) for n in (2, 3, 4, 7, 256)),
         *(("stable_node_chains_prune_millisecs", n) for n in (0, 2000))]
CHANGES = {ksm.MADV_DONTNEED: {"data": ZEROS}, ksm.MADV_DONTFORK: {"dontfork": True}, ksm.MADV_DOFORK: {"dontfork": False},
           ksm.MADV_WIPEONFORK: {"wipeonfork": True}, ksm.MADV_KEEPONFORK: {"wipeonfork": False}}
SLABS = ["mm_struct", "vm_area_struct", "anon_vma", "anon_vma_chain", "ksm_rmap_item", "ksm_stable_node", "ksm_mm_slot"]


@dataclass(frozen=True)
class Page:
    """A mapped page of the model: a private one with its bytes, or one of a shared object, which has the bytes."""

    prot: int
    shared: tuple | None = None
    data: bytes = ZEROS
    dontfork: bool = False
    wipeonfork: bool = False


class Model:
    """A process, and what its memory has to be."""

    def __init__(self, process, pages=(), brk=HEAP):
        self.process = process
        self.pages = dict(pages)
        self.brk = brk

    def data(self, addr):
        page = self.pages[addr]
        return page.data if page.shared is None else page.shared[0][page.shared[1]]

    def store(self, addr, data):
        page = self.pages[addr]
        if page.shared is None:
            self.pages[addr] = replace(page, data=data)
        else:
            page.shared[0][page.shared[1]] = data

    def beyond_object(self, addr):
        page = self.pages[addr]
        return page.shared is not None and page.shared[1] >= len(page.shared[0])

    def readable(self, addr):
        return addr in self.pages and self.pages[addr].prot != 0 and not self.beyond_object(addr)

    def writable(self, addr):
        return addr in self.pages and self.pages[addr].prot & ksm.PROT_WRITE and not self.beyond_object(addr)


@contextmanager
def may_fail(*errors):
    """The block may raise OSError with one of these errnos. The list that it gets has the errno then."""
    result = []
    try:
        yield result
    except OSError as e:
        if e.errno not in errors:
            raise
        result.append(e.errno)


def span(addr, pages):
    return range(addr, addr + pages * PAGE, PAGE)


slots = st.integers(0, WINDOW - 1)
lengths = st.integers(1, 12)
who = st.integers(0, MOST_PROCESSES - 1)
prots = st.sampled_from([RW, RW, RW, ksm.PROT_READ, ksm.PROT_NONE, RW | ksm.PROT_EXEC])
contents = st.integers(0, len(POOL) - 1)     # contents by number, so that failing runs print well


def place(slot):
    return BASE + slot * PAGE


def addresses(slot, n, heap):
    return span(HEAP + slot % 8 * PAGE if heap else place(slot), n)


class World(RuleBasedStateMachine):
    """Two NUMA nodes, the first of them nearly full, and a swap area that may be missing."""

    era = "6.12"
    memory = "4M"
    nodes = 2
    filled = 450
    shortage = ()
    make = staticmethod(ksm.Machine)
    view_of = staticmethod(memoryview)

    @initialize(smart=st.booleans(), zero=st.booleans(), sharing=st.sampled_from([2, 3, 5, 256]), across=st.booleans(),
                prune=st.sampled_from([0, 2000]), swap=st.sampled_from([None, "32K", "400K"]))
    def start(self, smart, zero, sharing, across, prune, swap):
        self.machine = self.make(memory=self.memory, max_memory=self.memory, nodes=self.nodes, swap=swap, era=self.era)
        self.view = self.view_of(self.machine)
        knobs = self.machine.ksm
        if self.era != "6.1":
            knobs.smart_scan = smart
        knobs.use_zero_pages, knobs.max_page_sharing = zero, sharing
        knobs.merge_across_nodes, knobs.stable_node_chains_prune_millisecs = across, prune
        self.filler = self.machine.spawn()
        self.filler.touch(self.filler.mmap(512 * PAGE), self.filled * PAGE)
        self.models = [Model(self.machine.spawn())]
        self.mmap(0, 4, 40, RW, False)
        self.settle(0, 4, 40, min(sharing, len(POOL)), False)

    def model(self, who):
        return self.models[who % len(self.models)]

    # Mappings

    @precondition(lambda self: len(self.models) < MOST_PROCESSES)
    @rule(node=st.integers(0, 1))
    def spawn(self, node):
        with may_fail(errno.ENOMEM) as failed:
            process = self.machine.spawn(node=node % self.nodes)
        if not failed:
            self.models.append(Model(process))

    @rule(who=who, slot=slots, n=lengths, prot=prots, shared=st.booleans())
    def mmap(self, who, slot, n, prot, shared):
        model = self.model(who)
        kind = ksm.MAP_SHARED if shared else ksm.MAP_PRIVATE
        assert model.process.mmap(n * PAGE, prot, kind | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED, place(slot)) == place(slot)
        object_ = [ZEROS] * n if shared else None
        for i, addr in enumerate(span(place(slot), n)):
            model.pages[addr] = Page(prot, (object_, i) if shared else None)

    @rule(who=who, slot=slots, n=lengths)
    def munmap(self, who, slot, n):
        model = self.model(who)
        model.process.munmap(place(slot), n * PAGE)
        for addr in span(place(slot), n):
            model.pages.pop(addr, None)

    @rule(who=who, slot=slots, n=lengths, prot=prots)
    def mprotect(self, who, slot, n, prot):
        model = self.model(who)
        with may_fail(errno.ENOMEM) as failed:
            model.process.mprotect(place(slot), n * PAGE, prot)
        for addr in span(place(slot), n):
            if addr not in model.pages:
                assert failed
                return
            model.pages[addr] = replace(model.pages[addr], prot=prot)
        assert not failed

    @rule(who=who, slot=slots, n=lengths, advice=st.sampled_from(ADVICE))
    def madvise(self, who, slot, n, advice):
        model = self.model(who)
        with may_fail(errno.ENOMEM, errno.EAGAIN, errno.EINVAL) as failed:
            model.process.madvise(place(slot), n * PAGE, advice)
        holes = False
        for addr in span(place(slot), n):
            page = model.pages.get(addr)
            if page is None:
                holes = True
                continue
            if advice == ksm.MADV_WIPEONFORK and page.shared is not None:
                assert failed == [errno.EINVAL]
                return
            model.pages[addr] = replace(page, **CHANGES.get(advice, {}))
        if advice == ksm.MADV_UNMERGEABLE and failed == [errno.EAGAIN]:
            return
        assert failed == ([errno.ENOMEM] if holes else [])

    @rule(who=who, slot=slots, old=st.integers(0, 12), new=lengths, to=st.none() | slots, may_move=st.booleans())
    def mremap(self, who, slot, old, new, to, may_move):
        model = self.model(who)
        addr, pages = place(slot), model.pages
        vma = next((vma for vma in model.process.maps() if vma.start <= addr < vma.end), None)
        target = None if to is None else place(to)
        with may_fail(errno.EINVAL, errno.EFAULT, errno.ENOMEM) as failed:
            result = model.process.mremap(addr, old * PAGE, new * PAGE, ksm.MREMAP_MAYMOVE if may_move else 0, target)
        if vma is None:
            assert failed == [errno.EFAULT]
            return
        if target is not None and addr + old * PAGE > target and target + new * PAGE > addr:
            assert failed == [errno.EINVAL]
            return
        if target is not None:
            # Pages at the target are gone even if the call fails, and so are pages that are cut off.
            for gone in [*span(target, new), *(span(addr + new * PAGE, old - new) if old > new else ())]:
                pages.pop(gone, None)
            old = min(old, new)
        elif old >= new:
            for gone in span(addr + new * PAGE, old - new):
                pages.pop(gone, None)
            assert not failed and result == addr
            return
        if addr not in pages or (old == 0 and not vma.shared):
            assert failed == [errno.EFAULT if addr not in pages else errno.EINVAL]
            return
        if failed:
            assert failed[0] != errno.EINVAL
            if failed == [errno.EFAULT]:
                assert addr + old * PAGE > vma.end or any(page not in pages for page in span(addr, old))
            elif target is None and not may_move:
                assert addr + old * PAGE < vma.end or any(page in pages for page in span(vma.end, new - old))
            return
        moved, first = [pages[page] for page in span(addr, old)], pages[addr]
        if result != addr:
            for page in span(addr, old):
                del pages[page]
        for i in range(new):
            if i < old:
                pages[result + i * PAGE] = moved[i]
            elif first.shared is not None:
                pages[result + i * PAGE] = replace(first, shared=(first.shared[0], first.shared[1] + i))
            else:
                pages[result + i * PAGE] = replace(first, data=ZEROS)

    @rule(who=who, pages=st.integers(-1, 8), odd=st.sampled_from([0, 0, 1]))
    def brk(self, who, pages, odd):
        model = self.model(who)
        wanted = HEAP + pages * PAGE + odd
        result = model.process.brk(wanted)
        assert result == (wanted if wanted >= HEAP else model.brk)
        if wanted < HEAP:
            return
        old, new = -(-model.brk // PAGE) * PAGE, -(-wanted // PAGE) * PAGE
        for addr in range(old, new, PAGE):
            model.pages[addr] = Page(RW)
        for addr in range(new, old, PAGE):
            model.pages.pop(addr, None)
        model.brk = wanted

    # Bytes

    def store(self, model, addr, offset, data, force=False):
        """Write within one page. The write is refused if it is not allowed, and changes nothing without memory."""
        page = model.pages.get(addr)
        allowed = model.writable(addr) or (force and page is not None and page.shared is None)
        with may_fail(errno.ENOMEM, errno.EFAULT) as failed:
            model.process.write(addr + offset, data, force=force)
        assert failed in ([[], [errno.ENOMEM]] if allowed else [[errno.EFAULT]])
        if not failed:
            old = model.data(addr)
            model.store(addr, old[:offset] + data + old[offset + len(data):])

    @rule(who=who, slot=slots, n=lengths, content=contents, heap=st.booleans())
    def write(self, who, slot, n, content, heap):
        model = self.model(who)
        for addr in addresses(slot, n, heap):
            self.store(model, addr, 0, POOL[content])

    @rule(who=who, slot=slots, offset=st.sampled_from([0, 1, 2048, PAGE - 1]), byte=st.sampled_from([b"\0", b"A", b"B"]),
          force=st.booleans())
    def write_byte(self, who, slot, offset, byte, force):
        self.store(self.model(who), place(slot), offset, byte, force)

    @rule(who=who, slot=slots, n=lengths, write=st.booleans(), heap=st.booleans())
    def touch(self, who, slot, n, write, heap):
        model = self.model(who)
        for addr in addresses(slot, n, heap):
            with may_fail(errno.EFAULT, errno.ENOMEM) as failed:
                model.process.touch(addr, write=write)
            if failed != [errno.ENOMEM]:
                assert (failed == []) == bool(model.writable(addr) if write else model.readable(addr))

    @rule(who=who, slot=slots, n=lengths, force=st.booleans())
    def read(self, who, slot, n, force):
        model = self.model(who)
        for addr in span(place(slot), n):
            with may_fail(errno.EFAULT, errno.ENOMEM) as failed:
                data = model.process.read(addr, PAGE, force=force)
            allowed = model.readable(addr) or (force and addr in model.pages and not model.beyond_object(addr))
            if failed != [errno.ENOMEM]:
                assert (failed == []) == allowed
            assert failed or data == model.data(addr)

    @rule(who=who, slot=slots, n=lengths, content=contents)
    def update(self, who, slot, n, content):
        model, data = self.model(who), POOL[content]
        for addr in span(place(slot), n):
            with may_fail(errno.EFAULT, errno.ENOMEM) as failed:
                changed = model.process.update(addr, data)
            if not model.writable(addr):
                assert failed == [errno.EFAULT]
            elif not failed:
                assert changed in ([1] if model.data(addr) != data else [0, 1])
                model.store(addr, data)

    @rule(who=who, slot=slots, n=st.integers(2, 40), kinds=st.integers(1, len(POOL)), heap=st.booleans())
    def settle(self, who, slot, n, kinds, heap):
        """Write and merge many equal pages, so that later rules have something to unmerge."""
        model = self.model(who)
        for i, addr in enumerate(addresses(slot, n, heap)):
            if model.writable(addr):
                self.store(model, addr, 0, POOL[i % kinds])
        with may_fail(errno.ENOMEM, errno.EAGAIN):
            model.process.madvise(HEAP if heap else place(slot), n * PAGE, ksm.MADV_MERGEABLE)
        self.scan(2)

    # Processes

    @precondition(lambda self: len(self.models) < MOST_PROCESSES)
    @rule(who=who)
    def fork(self, who):
        model = self.model(who)
        with may_fail(errno.ENOMEM) as failed:
            child = model.process.fork()
        if failed:
            return
        pages = {addr: replace(page, data=ZEROS) if page.wipeonfork and page.shared is None else page
                 for addr, page in model.pages.items() if not page.dontfork}
        self.models.append(Model(child, pages, model.brk))

    @precondition(lambda self: len(self.models) > 1)
    @rule(who=who)
    def exit(self, who):
        self.models.pop(who % len(self.models)).process.exit()

    @rule(who=who)
    def exec(self, who):
        model = self.model(who)
        with may_fail(errno.ENOMEM) as failed:
            model.process.exec()
        if not failed:
            model.pages, model.brk = {}, HEAP

    @rule(who=who, on=st.booleans())
    def prctl(self, who, on):
        with may_fail(errno.ENOMEM, *([errno.EINVAL] if self.era == "6.1" else [])):
            self.model(who).process.prctl(ksm.PR_SET_MEMORY_MERGE, int(on))

    # KSM

    @rule(passes=st.integers(1, 3))
    def scan(self, passes):
        with may_fail(*self.shortage):
            self.machine.ksm.scan(passes)

    @rule(pages=st.integers(1, 20))
    def batch(self, pages):
        self.machine.ksm.scan(pages=pages)

    @rule(knob=st.sampled_from(KNOBS))
    def knob(self, knob):
        if knob[0] in self.machine.ksm.names():
            with may_fail(errno.EBUSY):
                setattr(self.machine.ksm, *knob)

    @rule()
    def unmerge(self):
        with may_fail(errno.ENOMEM) as failed:
            self.machine.ksm.run = 2
        if not failed:
            assert self.machine.ksm.pages_unshared == self.machine.ksm.full_scans == 0
        self.machine.ksm.run = 0

    # Frames

    @rule()
    def drain(self):
        self.machine.lru_add_drain_all()

    @rule(who=who, slot=slots, n=st.integers(1, 40))
    def swap_out(self, who, slot, n):
        self.model(who).process.swap_out(place(slot), n * PAGE)

    @rule(on=st.booleans())
    def swap_area(self, on):
        with may_fail(errno.ENOMEM, errno.EINVAL, errno.EBUSY):
            self.machine.swapon("64K") if on else self.machine.swapoff()

    @rule(who=who, slot=slots, n=st.integers(1, 40), node=st.integers(0, 1))
    def move_pages(self, who, slot, n, node):
        status = self.model(who).process.move_pages(place(slot), n * PAGE, node % self.nodes)
        assert set(status) <= {0, 1, -errno.ENOENT, -errno.EFAULT, -errno.EBUSY, -errno.EAGAIN, -errno.ENOMEM}

    @rule(block=st.integers(0, 1), call=st.sampled_from(["online", "offline"]))
    def hotplug(self, block, call):
        with may_fail(errno.EINVAL, errno.EBUSY):
            getattr(self.machine, call)(block * 512, 512)

    @rule(what=st.sampled_from(["page", "page", *SLABS]), nth=st.integers(1, 6), times=st.integers(1, 3),
          then=st.sampled_from(["fork", "spawn", "exec", "write", "scan", "settle", "prctl", "merge", "unmerge", "swap_out", "move_pages"]),
          who=who, slot=slots)
    def without_memory(self, what, nth, times, then, who, slot):
        """An allocation fails in the middle of another rule."""
        self.machine.fail(what, nth, times)
        self.shortage = [errno.ENOMEM]      # scan() raises it for a lack of rmap_items
        if then in ("fork", "spawn") and len(self.models) == MOST_PROCESSES:
            then = "write"
        process = self.model(who).process
        with may_fail(errno.ENOMEM, errno.EAGAIN):
            {
                "fork": lambda: self.fork(who),
                "spawn": lambda: self.spawn(0),
                "exec": lambda: self.exec(who),
                "write": lambda: self.write(who, slot, 12, slot % len(POOL), False),
                "scan": lambda: self.scan(1),
                "settle": lambda: self.settle(who, slot, 20, 3, False),
                "prctl": lambda: self.prctl(who, True),
                "merge": lambda: process.madvise(place(slot), 12 * PAGE, ksm.MADV_MERGEABLE),
                "unmerge": lambda: process.madvise(place(slot), 12 * PAGE, ksm.MADV_UNMERGEABLE),
                "swap_out": lambda: self.swap_out(who, slot, 12),
                "move_pages": lambda: self.move_pages(who, slot, 12, 0),
            }[then]()
        self.machine.fail(what, 0)
        self.shortage = []

    # After every rule

    @invariant()
    def nothing_is_wrong(self):
        if hasattr(self, "machine"):
            assert self.machine.check() == []

    @invariant()
    def bytes_are_what_was_written(self):
        for model in getattr(self, "models", ()):
            for first, count in ((BASE - 16 * PAGE, WINDOW + 32), (HEAP, 10)):
                words = model.process.page_table(first, count * PAGE)
                for addr, word in zip(span(first, count), words, strict=True):
                    if word & ksm.PAGE_PRESENT:
                        start = (word >> ksm.PAGE_FLAGS_SHIFT) * PAGE
                        assert self.view[start:start + PAGE] == model.data(addr)
                    elif word == 0 and addr in model.pages and model.pages[addr].shared is None:
                        assert model.pages[addr].data == ZEROS

    def teardown(self):
        if not hasattr(self, "machine"):
            return
        machine = self.machine
        for process in [self.filler, *(model.process for model in self.models)]:
            process.exit()
        assert machine.check() == []
        machine.ksm.scan(2)
        machine.ksm.run = 2         # frees stale nodes, which would wait for a search
        with may_fail(errno.EINVAL):
            machine.swapoff()       # frees pages that only the swap cache has, which would wait for reclaim
        machine.lru_add_drain_all()
        assert machine.check() == []
        assert machine.free_pages() == machine.total_pages() - 1
        assert set(machine.slabinfo().values()) == {0}
        assert machine.swap_pages()[0] == 0
        self.view.release()
        machine.close()


class Crowded(World):
    """A machine in which memory runs out."""

    memory = "160K"
    nodes = 1
    filled = 0


class OldWorld(World):
    era = "6.1"


class OldCrowded(Crowded):
    era = "6.1"


class NewWorld(World):
    """Since 6.17, mremap() moves all mappings of a range, and a call that fails has unmapped nothing."""

    era = "7.3"

    @rule(who=who, slot=slots, old=st.integers(0, 12), new=lengths, to=st.none() | slots, may_move=st.booleans())
    def mremap(self, who, slot, old, new, to, may_move):
        if to is None:
            super().mremap(who, slot, old, new, to, may_move)
            return
        model = self.model(who)
        addr, target = place(slot), place(to)
        vma = next((vma for vma in model.process.maps() if vma.start <= addr < vma.end), None)
        with may_fail(errno.EINVAL, errno.EFAULT, errno.ENOMEM) as failed:
            model.process.mremap(addr, old * PAGE, new * PAGE, ksm.MREMAP_MAYMOVE, target)
        if addr + old * PAGE > target and target + new * PAGE > addr:
            assert failed == [errno.EINVAL]
        elif failed == [errno.EFAULT]:
            assert vma is None or (old != new and addr + min(old, new) * PAGE > vma.end)
        elif failed == [errno.EINVAL]:
            assert old == 0 and not vma.shared
        else:
            self.moved(model, addr, old, new, target, failed)

    def moved(self, model, addr, old, new, target, failed):
        """Each mapping has moved as a whole, or not at all if there was no memory."""
        pages, maps = model.pages, model.process.maps()
        there = {page for vma in maps for page in range(vma.start, vma.end, PAGE)}
        first = pages.get(addr)
        moved = {page: pages.pop(page) for page in span(addr, min(old, new)) if page in pages and page not in there}
        for page in [*span(addr, old), *span(target, new)]:
            if page not in there:
                pages.pop(page, None)
        for page, contents in moved.items():
            if page - addr + target in there:
                pages[page - addr + target] = contents
        for i in range(old, 0 if failed else new):
            shared = first.shared and (first.shared[0], first.shared[1] + i)
            pages[target + i * PAGE] = replace(first, shared=shared) if shared else replace(first, data=ZEROS)


# The fast runs are the same every time, the long runs are new ones.
FAST = settings(max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), database=None,
                derandomize=True, phases=(Phase.generate, Phase.shrink))
LONG = settings(FAST, max_examples=500, stateful_step_count=80, derandomize=False, print_blob=True)

TestWorld = World.TestCase
TestWorld.settings = FAST
TestCrowded = Crowded.TestCase
TestCrowded.settings = FAST
TestOldWorld = OldWorld.TestCase
TestOldWorld.settings = settings(FAST, max_examples=60)
TestNewWorld = NewWorld.TestCase
TestNewWorld.settings = settings(FAST, max_examples=30)
TestOldCrowded = OldCrowded.TestCase
TestOldCrowded.settings = settings(FAST, max_examples=60)


@pytest.mark.slow
@pytest.mark.parametrize("world", [World, Crowded, OldWorld, OldCrowded, NewWorld])
@pytest.mark.parametrize("part", range(8))
def test_long(world, part):
    class Test(world.TestCase):
        settings = LONG

    Test().runTest()

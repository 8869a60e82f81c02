# SPDX-License-Identifier: GPL-2.0-only
"""Huge pages: where they come from, what splits them, and how their parts are merged."""

import ctypes
import errno
import gc
import threading

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from waiting import until_it_waits

import ksm
from ksm.testing.corrupt import frame_fields, page_fields

PAGE = ksm.PAGE_SIZE
HUGE = 512 * PAGE
PG_LOCKED = 0x1
RW = ksm.PROT_READ | ksm.PROT_WRITE


@pytest.fixture
def machine():
    with ksm.Machine(memory="32M", max_memory="32M", swap="8M") as machine:
        yield machine
        assert machine.check() == []
        for process in list(machine.processes.values()):
            process.exit()
        machine.ksm.scan(2)
        assert machine.check() == []
        assert machine.free_pages() == machine.total_pages() - 1


def huge_process(machine, pages=1, **arguments):
    process = machine.spawn(**arguments)
    addr = process.mmap(pages * HUGE)
    process.madvise(addr, pages * HUGE, ksm.MADV_HUGEPAGE)
    process.write(addr, b"".join(b"page %6d " % i * (PAGE // 12) + bytes(PAGE % 12) for i in range(pages * 512)))
    return process, addr


def flags(process, addr, pages=1):
    return {word & 0xFF for word in process.page_table(addr, pages * PAGE)}


def events(machine):
    return {name.removeprefix("thp_"): count for name, count in machine.vmstat().items() if name.startswith("thp_") and count}


WHOLE = {ksm.PAGE_PRESENT | ksm.PAGE_ANON | ksm.PAGE_THP}
SMALL = {ksm.PAGE_PRESENT | ksm.PAGE_ANON}
MERGED = {ksm.PAGE_PRESENT | ksm.PAGE_ANON | ksm.PAGE_KSM}


# From the first write to the last part

def test_a_first_write_after_madvise_gets_a_huge_page(machine):
    process, addr = huge_process(machine, 2)
    assert addr % HUGE == 0
    assert events(machine) == {"fault_alloc": 2}
    assert flags(process, addr, 1024) == WHOLE
    assert process.rss() == 1024
    frames = [word >> ksm.PAGE_FLAGS_SHIFT for word in process.page_table(addr, HUGE)]
    assert frames == list(range(frames[0], frames[0] + 512)) and frames[0] % 512 == 0
    assert process.read(addr + 700 * PAGE, 11) == b"page    700"
    assert process.read(addr + 700 * PAGE, 11, force=True) == b"page    700"


@pytest.mark.parametrize(("mode", "advice", "huge"), [
    ("never", ksm.MADV_HUGEPAGE, False), ("madvise", ksm.MADV_NORMAL, False), ("madvise", ksm.MADV_HUGEPAGE, True),
    ("always", ksm.MADV_NORMAL, True), ("always", ksm.MADV_NOHUGEPAGE, False)])
def test_who_gets_huge_pages(machine, mode, advice, huge):
    machine.transparent_hugepage = mode
    assert machine.transparent_hugepage == mode
    process = machine.spawn()
    addr = process.mmap(HUGE)
    process.madvise(addr, HUGE, advice)
    process.touch(addr + 5 * PAGE, write=True)
    assert process.rss() == (512 if huge else 1)


def test_a_mode_that_there_is_not(machine):
    with pytest.raises(ValueError, match="never, madvise, always"):
        machine.transparent_hugepage = "sometimes"
    with pytest.raises(ValueError, match="never, madvise, always"):
        ksm.Machine(memory="4M", transparent_hugepage=2)


def test_a_read_comes_too_early_and_a_range_may_be_too_short(machine):
    process = machine.spawn()
    addr = process.mmap(2 * HUGE)
    process.madvise(addr, 2 * HUGE, ksm.MADV_HUGEPAGE)
    process.munmap(addr + HUGE + 100 * PAGE, PAGE)
    process.read(addr, 1)                       # the zero page, in a table
    process.touch(addr, write=True)
    process.touch(addr + HUGE, write=True)
    assert process.rss() == 2


def test_without_a_free_block_small_pages_do(machine):
    huge_process(machine, 15)                   # the only block that is left has the zero page in it
    process = machine.spawn()
    addr = process.mmap(HUGE)
    process.madvise(addr, HUGE, ksm.MADV_HUGEPAGE)
    process.touch(addr, 100 * PAGE)
    assert events(machine) == {"fault_alloc": 15, "fault_fallback": 1}
    assert process.rss() == 100
    assert flags(process, addr, 100) == SMALL


@pytest.mark.parametrize("what", ["munmap", "mprotect", "dontneed", "madvise"])
def test_what_concerns_a_part_splits_the_mapping_and_leaves_the_page_whole(machine, what):
    process, addr = huge_process(machine)
    part = (addr + 100 * PAGE, 50 * PAGE)
    {"munmap": lambda: process.munmap(*part),
     "mprotect": lambda: process.mprotect(*part, ksm.PROT_READ),
     "dontneed": lambda: process.madvise(*part, ksm.MADV_DONTNEED),
     "madvise": lambda: process.madvise(*part, ksm.MADV_MERGEABLE)}[what]()
    assert events(machine) == {"fault_alloc": 1, "split_pmd": 1}
    gone = what in ("munmap", "dontneed")
    assert process.rss() == (462 if gone else 512)
    assert flags(process, addr, 100) == flags(process, addr + 150 * PAGE, 362) == WHOLE
    assert flags(process, *part[:1], 50) == ({0} if gone else WHOLE)
    assert machine.total_pages() - machine.free_pages() - 1 == 512     # the frames of a huge page become free together
    assert process.read(addr + 99 * PAGE, 11) == b"page     99"
    process.write(addr + 99 * PAGE, b"mine")                          # still exclusive to this process
    assert machine.total_pages() - machine.free_pages() - 1 == 512
    process.munmap(addr, HUGE)
    assert machine.total_pages() - machine.free_pages() - 1 == 0


@pytest.mark.parametrize("what", ["mprotect", "mremap", "munmap"])
def test_what_concerns_the_whole_leaves_it_whole(machine, what):
    process, addr = huge_process(machine)
    if what == "mprotect":
        process.mprotect(addr, HUGE, ksm.PROT_NONE)
        with pytest.raises(OSError) as error:
            process.read(addr, 1)
        assert error.value.errno == errno.EFAULT
        assert process.read(addr + PAGE, 11, force=True) == b"page      1"
        process.mprotect(addr, HUGE, RW)
        process.write(addr + 7, b"x")
    elif what == "mremap":
        target = process.mmap(HUGE) - 8 * HUGE
        assert process.mremap(addr, HUGE, HUGE, ksm.MREMAP_MAYMOVE, target) == target
        assert flags(process, target, 512) == WHOLE
        assert process.read(target + 300 * PAGE, 11) == b"page    300"
    else:
        process.munmap(addr, HUGE)
    assert events(machine) == {"fault_alloc": 1}


def test_a_move_to_another_offset_splits_the_mapping(machine):
    process, addr = huge_process(machine)
    target = process.mmap(2 * HUGE) + 3 * PAGE
    process.mremap(addr, HUGE, HUGE, ksm.MREMAP_MAYMOVE, target)
    assert events(machine) == {"fault_alloc": 1, "split_pmd": 1}
    assert process.read(target + 300 * PAGE, 11) == b"page    300"


def test_memory_that_moved_may_have_any_offset(machine):
    """An anonymous vma has no file, so its page offset need not be aligned: see thp_vma_suitable_order()."""
    process = machine.spawn()
    addr = process.mmap(4 * HUGE)
    process.write(addr, b"x")       # from now on the page offset moves with the mapping
    to = process.mremap(addr + HUGE + PAGE, 2 * HUGE, 2 * HUGE, new_addr=addr + 64 * HUGE)
    assert {vma.start: (vma.start // PAGE - vma.pgoff) % 512 for vma in process.maps()}[to] == 511
    process.madvise(to, 2 * HUGE, ksm.MADV_HUGEPAGE)
    process.write(to, b"".join(b"%5d" % number + bytes(PAGE - 5) for number in range(1024)))
    assert events(machine) == {"fault_alloc": 2}
    process.madvise(to, 2 * HUGE, ksm.MADV_MERGEABLE)
    child = process.fork()
    child.write(to + 600 * PAGE, b"    7")
    machine.ksm.scan(3)
    assert machine.ksm.pages_sharing > 0
    assert machine.check() == []
    assert process.read(to + 600 * PAGE, 5) == b"  600" and child.read(to + 601 * PAGE, 5) == b"  601"


def test_a_fork_shares_it_and_a_write_copies_one_part(machine):
    process, addr = huge_process(machine)
    child = process.fork()
    assert machine.total_pages() - machine.free_pages() - 1 == 512
    child.write(addr + 9 * PAGE, b"child")
    assert machine.total_pages() - machine.free_pages() - 1 == 513
    assert events(machine) == {"fault_alloc": 1, "split_pmd": 1}
    assert flags(process, addr, 512) == WHOLE
    assert process.read(addr + 9 * PAGE, 5) == b"page "
    child.exit()
    process.write(addr, b"alone again")          # no other process has the page: it is not copied
    assert machine.total_pages() - machine.free_pages() - 1 == 512
    assert events(machine)["split_pmd"] == 1


# KSM

def test_scanning_alone_splits_nothing(machine):
    process, addr = huge_process(machine)
    process.madvise(addr, HUGE, ksm.MADV_MERGEABLE)
    machine.ksm.scan(3)
    assert machine.ksm.pages_unshared == 512
    assert flags(process, addr, 512) == WHOLE
    assert events(machine) == {"fault_alloc": 1}


def test_a_merge_splits_both_huge_pages(machine):
    a, addr = huge_process(machine)
    b, other = huge_process(machine)
    for i in range(512):
        if i != 77:
            b.write(other + i * PAGE, b"of b")
    for process, start in ((a, addr), (b, other)):
        process.madvise(start, HUGE, ksm.MADV_MERGEABLE)
    machine.ksm.scan(3)
    assert (machine.ksm.pages_shared, machine.ksm.pages_sharing, machine.ksm.pages_unshared) == (1, 1, 1022)
    assert flags(a, addr + 77 * PAGE) == flags(b, other + 77 * PAGE) == MERGED
    assert events(machine) == {"fault_alloc": 2, "split_pmd": 2, "split_page": 2}
    assert not flags(a, addr, 512) & WHOLE and not flags(b, other, 512) & WHOLE


def test_two_equal_parts_of_one_huge_page_take_one_pass_more(machine):
    """Each of the two parts holds a reference on the huge page, so the first split fails. The page is split after that, and merged in the
    next pass."""
    process, addr = huge_process(machine)
    process.write(addr + 3 * PAGE, process.read(addr + 400 * PAGE, PAGE))
    process.madvise(addr, HUGE, ksm.MADV_MERGEABLE)
    machine.ksm.scan(2)
    assert events(machine) == {"fault_alloc": 1, "split_pmd": 1, "split_page": 1, "split_page_failed": 1}
    assert machine.ksm.pages_shared == 0
    assert flags(process, addr, 512) == SMALL
    machine.ksm.scan()
    assert (machine.ksm.pages_shared, machine.ksm.pages_sharing) == (1, 1)


def test_a_locked_huge_page_is_not_split(machine):
    process, addr = huge_process(machine)
    process.write(addr + 3 * PAGE, process.read(addr + 400 * PAGE, PAGE))
    process.madvise(addr, HUGE, ksm.MADV_MERGEABLE)
    machine.ksm.scan()
    head = process.page_table(addr, PAGE)[0] >> ksm.PAGE_FLAGS_SHIFT
    word = ctypes.c_ulong.from_address(frame_fields(machine, head)["page.flags"].address)
    word.value |= PG_LOCKED
    machine.ksm.scan()
    word.value &= ~PG_LOCKED
    assert events(machine) == {"fault_alloc": 1}
    assert flags(process, addr, 512) == WHOLE
    machine.ksm.scan(2)
    assert (machine.ksm.pages_shared, machine.ksm.pages_sharing) == (1, 1)


def test_parts_of_zeros_go_to_the_zero_page_when_it_is_split(machine):
    """The split does so, and not KSM, which does not count them: since 6.12 every split does that. The KSM of 2011 would merge them."""
    machine.ksm.use_zero_pages = 1
    process = machine.spawn()
    addr = process.mmap(HUGE)
    process.madvise(addr, HUGE, ksm.MADV_HUGEPAGE)
    process.touch(addr, write=True)
    process.madvise(addr, HUGE, ksm.MADV_MERGEABLE)
    machine.ksm.scan(2)
    assert (machine.ksm.ksm_zero_pages, process.rss()) == (0, 0)
    assert flags(process, addr, 512) == {ksm.PAGE_PRESENT | ksm.PAGE_ZERO}
    assert machine.total_pages() - machine.free_pages() - 1 == 0


def test_a_fork_does_not_prevent_a_split(machine):
    process, addr = huge_process(machine)
    process.write(addr, b"E" * (2 * PAGE))
    process.madvise(addr, HUGE, ksm.MADV_MERGEABLE)
    small, place = machine.spawn(), None
    place = small.mmap(PAGE)
    small.write(place, b"E" * PAGE)
    small.madvise(place, PAGE, ksm.MADV_MERGEABLE)
    child = process.fork()                      # the child's reference is that of a mapping, and does not prevent the split
    machine.ksm.scan(4)
    assert machine.ksm.pages_sharing >= 2
    assert flags(process, addr, 2) == MERGED
    assert child.read(addr, PAGE) == b"E" * PAGE


def test_a_forced_first_write_makes_it_dirty(machine):
    """A forced write makes the page dirty although the process may not write there. KSM counts the references of a shared page only when
    its entry is dirty or writable, or the page is exclusive. So a page that is held does not merge."""
    process = machine.spawn()
    addr = process.mmap(HUGE, ksm.PROT_READ)
    process.madvise(addr, HUGE, ksm.MADV_HUGEPAGE)
    process.madvise(addr, HUGE, ksm.MADV_MERGEABLE)
    process.write(addr, b"E" * (3 * PAGE), force=True)
    assert flags(process, addr, 512) == WHOLE
    child = process.fork()
    machine.migrate(process.page_table(addr + 5 * PAGE, PAGE)[0] >> ksm.PAGE_FLAGS_SHIFT)
    machine._get_page(held := process.page_table(addr + PAGE, PAGE)[0] >> ksm.PAGE_FLAGS_SHIFT)
    machine.ksm.scan(4)
    for each in (process, child):
        assert [flags(each, addr + i * PAGE) for i in range(3)] == [MERGED, SMALL, MERGED]
    machine._put_page(held)


def test_a_reference_that_comes_while_it_is_split(machine):
    """The reference comes when all parts are unmapped already. They are mapped again, the page stays whole, and all counts are right."""
    process, addr = huge_process(machine)
    machine.lru_add_drain_all()
    pfn = process.page_table(addr, PAGE)[0] >> ksm.PAGE_FLAGS_SHIFT
    lock = ctypes.c_int.from_address(page_fields(machine, process.mm_id, addr)["mm.page_table_lock"].address)
    answers = []

    def move():
        try:
            answers.append(machine.migrate(pfn))
        except OSError as error:
            answers.append(error.errno)

    thread = threading.Thread(target=move, daemon=True)
    lock.value = 1
    try:
        thread.start()
        until_it_waits(thread)
        assert thread.is_alive()
        machine._get_page(pfn)
    finally:
        lock.value = 0
        thread.join(10)
    assert answers == [errno.EBUSY]
    assert events(machine)["split_page_failed"] == 1
    machine._put_page(pfn)
    assert machine.check() == []
    assert process.read(addr, HUGE) == b"".join(b"page %6d " % i * (PAGE // 12) + bytes(PAGE % 12) for i in range(512))
    assert machine.migrate(pfn) != pfn


def test_a_machine_closes_with_huge_pages_in_it():
    """The huge page is in one process, in two by fork, or beside a page table; also without close()."""
    for close in (True, False):
        machine = ksm.Machine(memory="16M", max_memory="16M")
        process, addr = huge_process(machine, 3)
        process.munmap(addr + 5 * PAGE, PAGE)
        process.fork()
        assert events(machine) == {"fault_alloc": 3, "split_pmd": 1}
        if close:
            machine.close()
        del machine, process
        gc.collect()


def test_the_2011_era_splits_too():
    with ksm.Machine(memory="16M", era="2.6.38", transparent_hugepage="always") as machine:
        a, addr = huge_process(machine)
        b, other = huge_process(machine)
        for process, start in ((a, addr), (b, other)):
            process.madvise(start, HUGE, ksm.MADV_MERGEABLE)
        machine.ksm.scan(3)
        assert machine.ksm.pages_sharing == 512
        assert machine.check() == []


def test_two_equal_parts_merged_at_once_in_2011():
    """In 2011 a reference did not stop a split."""
    with ksm.Machine(memory="16M", era="2.6.38") as machine:
        process, addr = huge_process(machine)
        process.write(addr + 3 * PAGE, process.read(addr + 400 * PAGE, PAGE))
        process.madvise(addr, HUGE, ksm.MADV_MERGEABLE)
        machine.ksm.scan(2)
        assert (machine.ksm.pages_shared, machine.ksm.pages_sharing) == (1, 1)
        assert flags(process, addr + 3 * PAGE) == flags(process, addr + 400 * PAGE) == MERGED
        assert events(machine) == {"fault_alloc": 1, "split_pmd": 1, "split_page": 1}
        assert machine.check() == []
        process.exit()
        machine.ksm.scan(2)
        assert machine.check() == []
        assert machine.free_pages() == machine.total_pages() - 1


# Swap and migration of small pages split a huge page first

def test_swap_and_migration(machine):
    process, addr = huge_process(machine, 2)
    assert process.swap_out(addr, 10 * PAGE) == 10
    assert flags(process, addr + 10 * PAGE, 502) == SMALL
    pfn = process.page_table(addr + HUGE + 5 * PAGE, PAGE)[0] >> ksm.PAGE_FLAGS_SHIFT
    assert machine.migrate(pfn) != pfn
    assert flags(process, addr + HUGE, 512) == SMALL
    assert process.read(addr + 3 * PAGE, 11) == b"page      3"


def test_the_parts_of_an_active_page_are_active(machine):
    """A page that a debugger has read twice is active, and so is each part of it. A part that is read twice more is not in an LRU batch,
    whose reference would make the next write copy it."""
    process, addr = huge_process(machine)
    for _ in range(2):
        process.read(addr, 1, force=True)
    machine.migrate(process.page_table(addr, PAGE)[0] >> ksm.PAGE_FLAGS_SHIFT)
    process.fork().exit()
    before = process.page_table(addr + 5 * PAGE, PAGE)[0]
    for _ in range(2):
        process.read(addr + 5 * PAGE, 1, force=True)
    process.write(addr + 5 * PAGE, b"x")
    assert process.page_table(addr + 5 * PAGE, PAGE)[0] == before


def test_offline_moves_the_parts_one_by_one(machine):
    process, addr = huge_process(machine)
    pfn = process.page_table(addr, PAGE)[0] >> ksm.PAGE_FLAGS_SHIFT
    machine.offline(pfn, 512)
    assert flags(process, addr, 512) == SMALL
    assert process.read(addr + 300 * PAGE, 11) == b"page    300"
    machine.online(pfn, 512)


def test_a_broken_frame_is_one_small_page():
    with ksm.Machine(memory="8M") as machine:
        process, addr = huge_process(machine)
        pfn = process.page_table(addr + 5 * PAGE, PAGE)[0] >> ksm.PAGE_FLAGS_SHIFT
        assert machine.memory_failure(pfn) == [(process, addr + 5 * PAGE)]
        assert flags(process, addr, 512) == SMALL
        process.exit()
        assert machine.check() == []
        assert machine.free_pages() == machine.total_pages() - 2


# At random

WINDOW = 2 * HUGE
PLACES = [0, 1, 100, 511, 512, 513, 900, 1023]
LENGTHS = [1, 2, 60, 511, 512, 1024]
where = st.tuples(st.sampled_from(PLACES), st.sampled_from(LENGTHS))
OPERATIONS = st.one_of(
    st.tuples(st.just("write"), where, st.sampled_from([b"A", b"B", b"\0"])),
    st.tuples(st.just("byte"), where, st.sampled_from([b"a", b"b"])),
    st.tuples(st.sampled_from(["mmap", "munmap", "dontneed", "hugepage", "mergeable", "unmergeable", "readonly", "writable", "fork", "exit",
                               "scan", "batch", "swap_out", "migrate", "mremap", "drain"]), where, st.just(b"")))


class Life:
    """Processes with one window of two huge pages each, and what each page has to hold: its first byte, and the byte of all others."""

    def __init__(self):
        self.machine = ksm.Machine(memory="24M", max_memory="24M", swap="6M", transparent_hugepage="always")
        first = self.machine.spawn()
        self.base = first.mmap(WINDOW)
        self.processes = [(first, {i: (b"\0", b"\0") for i in range(1024)}, set())]
        self.turn = 0

    def run(self, name, at, data):
        self.turn += 1
        process, pages, sealed = self.processes[self.turn % len(self.processes)]
        first, count = at[0], min(at[1], 1024 - at[0])
        addr, length, span = self.base + first * PAGE, count * PAGE, range(first, first + count)
        mapped = all(i in pages for i in span)
        if name in ("write", "byte"):
            for i in span if name == "write" else span[:1]:
                if i in pages and i not in sealed:
                    process.write(self.base + i * PAGE, data * PAGE if name == "write" else data)
                    pages[i] = (data, data) if name == "write" else (data, pages[i][1])
        elif name == "mmap":
            process.mmap(length, RW, ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED, addr)
            pages.update((i, (b"\0", b"\0")) for i in span)
            sealed.difference_update(span)
        elif name == "munmap":
            process.munmap(addr, length)
            for i in span:
                pages.pop(i, None)
            sealed.difference_update(span)
        elif name == "fork" and len(self.processes) < 3:
            self.processes.append((process.fork(), dict(pages), set(sealed)))
        elif name == "exit" and len(self.processes) > 1:
            self.processes.pop(self.turn % len(self.processes))[0].exit()
        elif name == "scan":
            self.machine.ksm.scan(2)
        elif name == "batch":
            self.machine.ksm.scan(pages=37)
        elif name == "swap_out":
            process.swap_out(addr, length)
        elif name == "migrate" and process.page_table(addr, PAGE)[0] & ksm.PAGE_PRESENT:
            try:
                self.machine.migrate(process.page_table(addr, PAGE)[0] >> ksm.PAGE_FLAGS_SHIFT)
            except OSError as error:
                assert error.errno in (errno.EBUSY, errno.EAGAIN, errno.ENOMEM)
        elif name == "drain":
            self.machine.lru_add_drain_all()
        elif not mapped:
            return
        elif name == "mremap":
            # Away, and back with the first page left behind; mremap() refuses what lies in more than one mapping
            if not any(vma.start <= addr and addr + length <= vma.end for vma in process.maps()):
                return
            away = process.mmap(2 * WINDOW) + (0 if first % 2 else 5 * PAGE)
            process.mremap(addr, length, length, ksm.MREMAP_MAYMOVE, away)
            process.mremap(away, length, length, ksm.MREMAP_MAYMOVE, addr)
            process.munmap(away & -HUGE, WINDOW)
        elif name in ("readonly", "writable"):
            process.mprotect(addr, length, ksm.PROT_READ if name == "readonly" else RW)
            (sealed.update if name == "readonly" else sealed.difference_update)(span)
        elif name in ("dontneed", "hugepage", "mergeable", "unmergeable"):
            process.madvise(addr, length, getattr(ksm, f"MADV_{name.upper()}"))
            if name == "dontneed":
                pages.update((i, (b"\0", b"\0")) for i in span)

    def check(self):
        assert self.machine.check() == []
        with memoryview(self.machine) as view:
            for process, pages, _ in self.processes:
                for i, word in enumerate(process.page_table(self.base, WINDOW)):
                    if word & ksm.PAGE_PRESENT:
                        start = (word >> ksm.PAGE_FLAGS_SHIFT) * PAGE
                        assert view[start:start + 1] == pages[i][0], i
                        assert view[start + 1:start + PAGE] == pages[i][1] * (PAGE - 1), i
                    elif word == 0 and i in pages:
                        assert pages[i] == (b"\0", b"\0"), i

    def end(self):
        for process, _, _ in self.processes:
            process.exit()
        self.machine.ksm.scan(2)
        self.machine.ksm.run = 2
        self.machine.swapoff()
        assert self.machine.check() == []
        assert self.machine.free_pages() == self.machine.total_pages() - 1
        self.machine.close()


RANDOM = settings(max_examples=25, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck),
                  phases=(Phase.generate, Phase.shrink))


def live(operations):
    life = Life()
    for operation in operations:
        life.run(*operation)
        life.check()
    life.end()


test_whatever_happens_no_byte_is_lost = RANDOM(given(st.lists(OPERATIONS, min_size=5, max_size=25))(live))
test_whatever_happens_for_long = pytest.mark.slow(
    settings(RANDOM, max_examples=1500, derandomize=False, print_blob=True)(given(st.lists(OPERATIONS, min_size=5, max_size=40))(live)))

# SPDX-License-Identifier: GPL-2.0-only
"""mmap, munmap, mprotect, mremap, madvise, brk: their results and the mappings that they leave, also beside the running kernel."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pages import fails

import ksm

PAGE = ksm.PAGE_SIZE
RW = ksm.PROT_READ | ksm.PROT_WRITE
FIXED = ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED
BASE = 0x10000000
HEAP = 0x555555556000
TASK_SIZE = (1 << 47) - PAGE


def ranges(process):
    return [((vma.start - BASE) // PAGE, (vma.end - BASE) // PAGE, vma.prot) for vma in process.maps()]


# mmap

def test_mmap_places_downwards(process):
    first = process.mmap(3 * PAGE)
    assert process.mmap(PAGE) == first - PAGE
    assert process.mmap(1) == first - 2 * PAGE
    assert [vma.start for vma in process.maps()] == [first - 2 * PAGE]


def test_mmap_fills_a_hole_that_is_large_enough(process):
    top = process.mmap(8 * PAGE)
    process.munmap(top + 2 * PAGE, 3 * PAGE)
    assert process.mmap(4 * PAGE) == top - 4 * PAGE
    assert process.mmap(3 * PAGE) == top + 2 * PAGE


def test_mmap_hint(process):
    assert process.mmap(PAGE, addr=BASE + 5) == BASE
    taken = process.mmap(PAGE, addr=BASE)
    assert taken != BASE
    assert process.mmap(PAGE, addr=PAGE) not in (0, PAGE)
    assert process.mmap(PAGE, addr=TASK_SIZE) < TASK_SIZE


def test_mmap_errors(process):
    fails(errno.EINVAL, process.mmap, 0)
    fails(errno.ENOMEM, process.mmap, 1 << 48)
    fails(errno.ENOMEM, process.mmap, 2**64 - 1)
    fails(errno.EINVAL, process.mmap, PAGE, flags=FIXED, addr=BASE + 1)
    fails(errno.ENOMEM, process.mmap, PAGE, flags=FIXED, addr=TASK_SIZE)
    fails(errno.EINVAL, process.mmap, PAGE, flags=ksm.MAP_ANONYMOUS)
    fails(errno.EINVAL, process.mmap, PAGE, flags=ksm.MAP_PRIVATE)
    noreplace = ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED_NOREPLACE
    assert process.mmap(2 * PAGE, flags=noreplace, addr=BASE) == BASE
    fails(errno.EEXIST, process.mmap, 2 * PAGE, flags=noreplace, addr=BASE + PAGE)
    fails(errno.EEXIST, process.mmap, 2 * PAGE, flags=noreplace, addr=BASE - PAGE)
    assert process.mmap(PAGE, flags=noreplace, addr=BASE + 2 * PAGE) == BASE + 2 * PAGE


def test_mmap_fixed_replaces(process):
    process.mmap(4 * PAGE, flags=FIXED, addr=BASE)
    process.write(BASE, b"x" * 4 * PAGE)
    process.mmap(2 * PAGE, ksm.PROT_READ, FIXED, BASE + PAGE)
    assert ranges(process) == [(0, 1, RW), (1, 3, ksm.PROT_READ), (3, 4, RW)]
    assert process.read(BASE, 4 * PAGE) == b"x" * PAGE + bytes(2 * PAGE) + b"x" * PAGE
    assert process.rss() == 2


def test_last_page_of_the_address_space(process):
    process.mmap(PAGE, flags=FIXED, addr=TASK_SIZE - PAGE)
    process.write(TASK_SIZE - 1, b"e")
    assert process.read(TASK_SIZE - PAGE, PAGE) == bytes(PAGE - 1) + b"e"
    fails(errno.EFAULT, process.write, TASK_SIZE - 1, b"ef")


# munmap

def test_munmap_splits(process):
    process.mmap(5 * PAGE, flags=FIXED, addr=BASE)
    process.write(BASE, bytes(range(1, 6)) * PAGE)
    process.munmap(BASE + 2 * PAGE, 1)
    assert ranges(process) == [(0, 2, RW), (3, 5, RW)]
    fails(errno.EFAULT, process.read, BASE + 2 * PAGE, 1)
    process.munmap(BASE, 16 * PAGE)
    assert process.maps() == []
    assert process.rss() == 0


def test_munmap_errors(process):
    process.munmap(BASE, PAGE)          # a range without mappings is no error
    fails(errno.EINVAL, process.munmap, BASE, 0)
    fails(errno.EINVAL, process.munmap, BASE + 1, PAGE)
    fails(errno.EINVAL, process.munmap, BASE, 1 << 60)
    fails(errno.EINVAL, process.munmap, 1 << 60, PAGE)


def test_tables_go_with_the_last_page(machine, process):
    """Mappings lie far apart, over every level of page tables. Frames and tables come back in whatever order they are unmapped."""
    places = [BASE, BASE + (1 << 21), BASE + (1 << 30), BASE + (1 << 39), BASE + (1 << 39) + (1 << 21) - PAGE]
    for order in (places, places[::-1], places[2:] + places[:2]):
        for place in places:
            process.mmap(2 * PAGE, flags=FIXED, addr=place)
            process.write(place, b"x" * 2 * PAGE)
        assert machine.check() == []
        for place in order:
            process.munmap(place, 2 * PAGE)
            assert machine.check() == []
    machine.lru_add_drain_all()
    assert machine.free_pages() == machine.total_pages() - 1


# mprotect

def test_mprotect_splits_and_merges(process):
    process.mmap(6 * PAGE, flags=FIXED, addr=BASE)
    process.write(BASE, b"x" * 6 * PAGE)
    process.mprotect(BASE + 2 * PAGE, 2 * PAGE, ksm.PROT_READ)
    assert ranges(process) == [(0, 2, RW), (2, 4, ksm.PROT_READ), (4, 6, RW)]
    fails(errno.EFAULT, process.write, BASE + 2 * PAGE, b"y")
    process.mprotect(BASE + 2 * PAGE, 2 * PAGE, RW)
    assert ranges(process) == [(0, 6, RW)]
    process.write(BASE + 2 * PAGE, b"y")
    process.mprotect(BASE, 6 * PAGE, ksm.PROT_NONE)
    fails(errno.EFAULT, process.read, BASE, 1)
    assert process.read(BASE + 2 * PAGE, 1, force=True) == b"y"


def test_mprotect_stops_at_a_hole(process):
    process.mmap(2 * PAGE, flags=FIXED, addr=BASE)
    process.mmap(2 * PAGE, flags=FIXED, addr=BASE + 3 * PAGE)
    fails(errno.ENOMEM, process.mprotect, BASE, 5 * PAGE, ksm.PROT_READ)
    assert ranges(process) == [(0, 2, ksm.PROT_READ), (3, 5, RW)]
    fails(errno.ENOMEM, process.mprotect, BASE + 2 * PAGE, 2 * PAGE, ksm.PROT_READ)
    assert ranges(process) == [(0, 2, ksm.PROT_READ), (3, 5, RW)]


def test_mprotect_errors(process):
    fails(errno.EINVAL, process.mprotect, BASE + 1, PAGE, RW)
    process.mprotect(BASE, 0, RW)
    process.mprotect(BASE, 0, 0x1000)       # the length is checked first
    fails(errno.EINVAL, process.mprotect, BASE, PAGE, 0x1000)
    fails(errno.ENOMEM, process.mprotect, BASE, PAGE, RW)
    fails(errno.ENOMEM, process.mprotect, BASE, 2**64 - PAGE, RW)


# mremap

def test_mremap_shrinks_and_grows(process):
    process.mmap(4 * PAGE, flags=FIXED, addr=BASE)
    process.write(BASE, b"abcd" * PAGE)
    assert process.mremap(BASE, 4 * PAGE, 2 * PAGE, 0) == BASE
    assert ranges(process) == [(0, 2, RW)]
    assert process.mremap(BASE, 2 * PAGE, 4 * PAGE, 0) == BASE
    assert process.read(BASE + 2 * PAGE, 2 * PAGE) == bytes(2 * PAGE)
    process.mmap(PAGE, flags=FIXED, addr=BASE + 5 * PAGE)
    fails(errno.ENOMEM, process.mremap, BASE, 4 * PAGE, 8 * PAGE, 0)
    moved = process.mremap(BASE, 4 * PAGE, 8 * PAGE)
    assert moved != BASE
    assert process.read(moved, 8 * PAGE) == (b"abcd" * PAGE)[:2 * PAGE] + bytes(6 * PAGE)


def test_mremap_shared_grows_in_place(process):
    """Beyond the end of the shared object there are no pages: SIGBUS in the kernel, EFAULT here."""
    addr = process.mmap(2 * PAGE, flags=ksm.MAP_SHARED | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED, addr=BASE)
    process.write(addr, b"shared")
    assert process.mremap(addr, 2 * PAGE, 4 * PAGE, 0) == addr
    assert process.read(addr, 6) == b"shared"
    fails(errno.EFAULT, process.read, addr + 2 * PAGE, 1)


def test_mremap_duplicates_shared_memory(process):
    addr = process.mmap(2 * PAGE, flags=ksm.MAP_SHARED | ksm.MAP_ANONYMOUS)
    again = process.mremap(addr, 0, 2 * PAGE)
    process.write(addr + PAGE, b"both")
    assert process.read(again + PAGE, 4) == b"both"
    private = process.mmap(PAGE)
    fails(errno.EINVAL, process.mremap, private, 0, PAGE)


@pytest.mark.parametrize("odd", [1, PAGE // 2, PAGE - 1, PAGE])
def test_mremap_takes_parts_of_pages_for_pages(process, odd):
    process.mmap(4 * PAGE, flags=FIXED, addr=BASE)
    process.write(BASE, b"a" * 4 * PAGE)
    assert process.mremap(BASE + PAGE, odd, PAGE + odd, new_addr=BASE + 8 * PAGE) == BASE + 8 * PAGE
    assert ranges(process) == [(0, 1, RW), (2, 4, RW), (8, 10, RW)]
    assert process.read(BASE + 8 * PAGE, 2 * PAGE) == b"a" * PAGE + bytes(PAGE)
    assert process.mremap(BASE + 2 * PAGE, PAGE + odd, odd) == BASE + 2 * PAGE
    assert ranges(process) == [(0, 1, RW), (2, 3, RW), (8, 10, RW)]


def test_mremap_moves_pages_back_and_forth(machine, process):
    """A moved mapping merges with its neighbours, or replaces them."""
    process.mmap(8 * PAGE, flags=FIXED, addr=BASE)
    process.write(BASE, b"".join(bytes([i]) * PAGE for i in range(8)))
    assert process.mremap(BASE + 2 * PAGE, 2 * PAGE, 2 * PAGE, new_addr=BASE + 8 * PAGE) == BASE + 8 * PAGE
    assert process.mremap(BASE + 8 * PAGE, 2 * PAGE, 2 * PAGE, new_addr=BASE + 2 * PAGE) == BASE + 2 * PAGE
    assert ranges(process) == [(0, 8, RW)]
    assert process.mremap(BASE, 2 * PAGE, 3 * PAGE, new_addr=BASE + 4 * PAGE) == BASE + 4 * PAGE
    assert process.read(BASE + 2 * PAGE, 6 * PAGE) == b"".join(bytes([i]) * PAGE for i in (2, 3, 0, 1, 0, 7))
    assert process.rss() == 5
    assert machine.check() == []


def test_mremap_errors(process):
    process.mmap(2 * PAGE, flags=FIXED, addr=BASE)
    process.mmap(2 * PAGE, ksm.PROT_READ, FIXED, BASE + 2 * PAGE)
    fails(errno.EINVAL, process.mremap, BASE + 1, PAGE, PAGE)
    fails(errno.EINVAL, process.mremap, BASE, PAGE, 0)
    fails(errno.EINVAL, process.mremap, BASE, PAGE, PAGE, 0x100)
    fails(errno.EINVAL, process.mremap, BASE, PAGE, PAGE, ksm.MREMAP_FIXED)
    fails(errno.EINVAL, process.mremap, BASE, PAGE, PAGE, new_addr=BASE + 1)
    fails(errno.EINVAL, process.mremap, BASE, 2 * PAGE, 2 * PAGE, new_addr=BASE + PAGE)
    fails(errno.EINVAL, process.mremap, BASE, 2 * PAGE, 2 * PAGE, new_addr=1 << 60)
    fails(errno.EFAULT, process.mremap, BASE + 9 * PAGE, PAGE, PAGE)
    fails(errno.EFAULT, process.mremap, BASE, 3 * PAGE, 9 * PAGE)
    fails(errno.ENOMEM, process.mremap, BASE, 2 * PAGE, 1 << 47)


# brk

def test_brk(process):
    assert process.brk() == HEAP
    assert process.brk(HEAP + 3 * PAGE + 1) == HEAP + 3 * PAGE + 1
    process.write(HEAP, b"x" * 4 * PAGE)
    assert process.brk(HEAP - 1) == HEAP + 3 * PAGE + 1
    assert process.brk(HEAP + PAGE) == HEAP + PAGE
    fails(errno.EFAULT, process.read, HEAP + PAGE, 1)
    assert process.brk(HEAP + 2 * PAGE) == HEAP + 2 * PAGE
    assert process.read(HEAP, 2 * PAGE) == b"x" * PAGE + bytes(PAGE)
    assert process.brk(2**64 - 1) == HEAP + 2 * PAGE
    assert process.brk(HEAP) == HEAP
    assert process.maps() == []


def test_brk_keeps_a_page_free_before_the_next_mapping(process):
    process.mmap(PAGE, flags=FIXED, addr=HEAP + 4 * PAGE)
    assert process.brk(HEAP + 4 * PAGE) == HEAP
    assert process.brk(HEAP + 3 * PAGE) == HEAP + 3 * PAGE


def test_brk_does_not_shrink_over_nothing(process):
    process.brk(HEAP + 4 * PAGE)
    process.munmap(HEAP + 2 * PAGE, 2 * PAGE)
    assert process.brk(HEAP + 2 * PAGE) == HEAP + 4 * PAGE
    assert process.brk(HEAP + PAGE) == HEAP + PAGE


# madvise

def test_madvise_errors(process):
    process.mmap(2 * PAGE, flags=FIXED, addr=BASE)
    process.mmap(2 * PAGE, flags=FIXED, addr=BASE + 3 * PAGE)
    fails(errno.EINVAL, process.madvise, BASE + 1, PAGE, ksm.MADV_MERGEABLE)
    fails(errno.EINVAL, process.madvise, BASE, PAGE, 4711)
    fails(errno.EINVAL, process.madvise, BASE, 2**64 - 1, ksm.MADV_MERGEABLE)
    process.madvise(BASE, 0, ksm.MADV_MERGEABLE)
    fails(errno.ENOMEM, process.madvise, BASE, 5 * PAGE, ksm.MADV_MERGEABLE)
    assert [vma.mergeable for vma in process.maps()] == [True, True]
    fails(errno.ENOMEM, process.madvise, BASE + 16 * PAGE, PAGE, ksm.MADV_MERGEABLE)


def test_madvise_shared_memory_is_not_mergeable(process):
    addr = process.mmap(PAGE, flags=ksm.MAP_SHARED | ksm.MAP_ANONYMOUS)
    process.madvise(addr, PAGE, ksm.MADV_MERGEABLE)
    assert not process.maps()[0].mergeable
    fails(errno.EINVAL, process.madvise, addr, PAGE, ksm.MADV_WIPEONFORK)


def test_dontneed(process):
    addr = process.mmap(2 * PAGE)
    process.write(addr, b"x" * 2 * PAGE)
    process.madvise(addr, PAGE, ksm.MADV_DONTNEED)
    assert process.read(addr, 2 * PAGE) == bytes(PAGE) + b"x" * PAGE
    assert process.rss() == 1
    shared = process.mmap(PAGE, flags=ksm.MAP_SHARED | ksm.MAP_ANONYMOUS)
    process.write(shared, b"kept")
    process.madvise(shared, PAGE, ksm.MADV_DONTNEED)
    assert process.read(shared, 4) == b"kept"


# Beside the running kernel

MERGES_MORE = tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 16)
WINDOW = 40
# Far from everything, and across the boundary of a page table
START = 0x200000000000 - 20 * PAGE


class Real:
    """tests/mm/real_mmap.py in a process of its own."""

    def __init__(self, *user):
        self.child = subprocess.Popen([sys.executable, str(Path(__file__).with_name("real_mmap.py")), *user], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True)

    def run(self, calls, start=START, end=START + WINDOW * PAGE):
        self.child.stdin.write(json.dumps([start, end, calls]) + "\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        assert line, f"the process died of {calls}"
        return json.loads(line)

    def close(self):
        self.child.stdin.close()
        self.child.wait(10)
        self.child.stdout.close()


@pytest.fixture(scope="module")
def real():
    real = Real()
    yield real
    real.close()


pages = st.integers(0, WINDOW - 13)
lengths = st.integers(0, 12)
prots = st.sampled_from([RW, RW, RW, ksm.PROT_READ, ksm.PROT_NONE, ksm.PROT_READ | ksm.PROT_EXEC])
odd = st.sampled_from([0] * 15 + [1])
ADVICE = [ksm.MADV_NORMAL, ksm.MADV_DONTNEED, ksm.MADV_DONTFORK, ksm.MADV_DOFORK, ksm.MADV_WIPEONFORK, ksm.MADV_KEEPONFORK,
          ksm.MADV_NOHUGEPAGE]
CALLS = st.one_of(
    st.tuples(st.just("mmap"), pages, odd, lengths, prots, st.sampled_from([ksm.MAP_PRIVATE] * 3 + [ksm.MAP_SHARED]),
              st.sampled_from([ksm.MAP_FIXED] * 3 + [ksm.MAP_FIXED_NOREPLACE])),
    st.tuples(st.just("munmap"), pages, odd, lengths),
    st.tuples(st.just("mprotect"), pages, odd, lengths, prots),
    st.tuples(st.just("madvise"), pages, odd, lengths, st.sampled_from(ADVICE)),
    st.tuples(st.just("mremap"), pages, odd, lengths, lengths, st.none() | pages),
    st.tuples(st.just("write"), pages, st.integers(1, 255)),
    st.tuples(st.just("write"), pages, st.integers(1, 255)),
    st.tuples(st.just("read"), pages),
)


def concrete(process, name, page, *rest):
    """The call with addresses, for both sides; None if the two sides cannot be compared for it."""
    addr = START + page * PAGE
    vma = next((vma for vma in process.maps() if vma.start <= addr < vma.end), None)
    if name in ("write", "read"):
        allowed = vma is not None and vma.prot & (ksm.PROT_WRITE if name == "write" else 7)
        beyond = vma is not None and vma.shared and process_object_ends(process, addr)
        return [name, addr, *rest] if allowed and not beyond else None
    shift, length, *rest = rest
    addr, length = addr + shift, length * PAGE
    if name == "mmap":
        prot, kind, fixed = rest
        return [name, addr, length, prot, kind | ksm.MAP_ANONYMOUS | fixed]
    if name != "mremap":
        return [name, addr, length, *rest]
    new_length, target = rest[0] * PAGE, rest[1]
    if vma is not None and addr + length > vma.end:
        return None                     # since Linux 6.17 several mappings move at once, and errors are checked in another order
    if target is None:
        return [name, addr, length, new_length, 0, 0]
    if vma is None or length == 0:
        return None
    return [name, addr, length, new_length, ksm.MREMAP_MAYMOVE | ksm.MREMAP_FIXED, START + target * PAGE]


def process_object_ends(process, addr):
    try:
        process.read(addr, 1, force=True)
    except OSError:
        return True
    return False


def perform(process, name, *arguments):
    try:
        if name == "mmap":
            addr, length, prot, flags = arguments
            process.mmap(length, prot, flags, addr)
        elif name == "mremap":
            addr, length, new_length, flags, target = arguments
            process.mremap(addr, length, new_length, flags, target if flags & ksm.MREMAP_FIXED else None)
        elif name == "write":
            process.write(arguments[0], bytes(arguments[1:]))
        elif name == "read":
            return process.read(arguments[0], 1)[0]
        else:
            getattr(process, name)(*arguments)
    except OSError as e:
        return e.errno
    return 0


def window(process):
    return [[vma.start, vma.end, vma.prot, vma.shared] for vma in process.maps()]


def joined(vmas):
    """The mappings without the boundaries between those that look alike."""
    found = []
    for start, end, prot, shared in vmas:
        if found and found[-1][1:] == [start, prot, shared]:
            found[-1][1] = end
        else:
            found.append([start, end, prot, shared])
    return found


def compare(real, sequence):
    with ksm.Machine(memory="1M", max_memory="1M") as machine:
        process = machine.spawn()
        calls, results = [], []
        # The first call maps most of the window.
        for step in [("mmap", 2, 0, 24, RW, ksm.MAP_PRIVATE, ksm.MAP_FIXED), *sequence]:
            call = concrete(process, *step)
            if call is None:
                continue
            calls.append(call)
            results += [perform(process, *call), window(process)]
        contents = []
        for start, end, prot, shared in window(process):
            if prot and not shared:
                contents.append(process.read(start, end - start)[::PAGE].hex())
        assert machine.check() == []
    real_results, real_contents = real.run(calls)
    for i, call in enumerate(calls):
        assert results[2 * i] == real_results[2 * i], calls[:i + 1]
        ours, theirs = results[2 * i + 1], real_results[2 * i + 1]
        # Since 6.16 two mappings merge even if only one was written to, or the written one comes second: the kernel may have fewer.
        assert joined(ours) == joined(theirs), (call, calls[:i + 1])
        assert ours == theirs or (MERGES_MORE and {vma[0] for vma in theirs} <= {vma[0] for vma in ours}), (ours, theirs, calls[:i + 1])
    assert "".join(contents) == "".join(real_contents)


# Addresses below mmap_min_addr

LOWEST = 65536
ANONYMOUS = ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS


def test_nothing_is_mapped_at_the_lowest_addresses(machine, process):
    for addr in (0, PAGE, LOWEST - PAGE):
        for flags in (FIXED, ANONYMOUS | ksm.MAP_FIXED_NOREPLACE, ksm.MAP_SHARED | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED):
            fails(errno.EPERM, process.mmap, 32 * PAGE, flags=flags, addr=addr)
    assert process.mmap(PAGE, flags=FIXED, addr=LOWEST) == LOWEST
    source = process.mmap(4 * PAGE)
    process.write(source, b"abcd" * PAGE)
    for addr in (0, PAGE, LOWEST - PAGE):
        fails(errno.EPERM, process.mremap, source, 4 * PAGE, 4 * PAGE, new_addr=addr)
    assert process.read(source, 4 * PAGE) == b"abcd" * PAGE
    # The new address is checked last: the end of the old mapping is unmapped by then.
    fails(errno.EPERM, process.mremap, source, 4 * PAGE, 2 * PAGE, new_addr=0)
    fails(errno.EFAULT, process.read, source + 2 * PAGE, 1)
    assert process.read(source, 2 * PAGE) == (b"abcd" * PAGE)[:2 * PAGE]
    assert process.mremap(source, 2 * PAGE, 2 * PAGE, new_addr=LOWEST) == LOWEST
    process.madvise(LOWEST, 2 * PAGE, ksm.MADV_MERGEABLE)
    machine.ksm.scan(3)
    assert machine.check() == []


def test_no_image_is_mapped_at_the_lowest_addresses(machine, process, tmp_path):
    (tmp_path / "image").write_bytes(b"i" * 4 * PAGE)
    with (tmp_path / "image").open("rb") as image:
        for still in (False, True):
            fails(errno.EPERM, process.mmap_image, image, addr=PAGE, still=still)
            fails(errno.EPERM, process.mmap_image, image, addr=LOWEST - PAGE, still=still)
        assert process.mmap_image(image, addr=LOWEST) == LOWEST
    assert machine.check() == []


def test_a_hint_below_is_raised(process):
    assert process.mmap(PAGE, addr=PAGE) == LOWEST
    assert process.mmap(PAGE, addr=LOWEST - 1) > LOWEST + PAGE     # taken
    assert process.mmap(PAGE, addr=PAGE - 1) > 1 << 40             # rounded down to 0: no hint at all


def test_what_is_wrong_with_an_address_is_looked_at_in_order(process):
    fails(errno.EINVAL, process.mmap, PAGE, flags=FIXED, addr=1)
    fails(errno.ENOMEM, process.mmap, TASK_SIZE, flags=FIXED, addr=PAGE + 1)
    fails(errno.EPERM, process.mmap, TASK_SIZE, flags=FIXED, addr=0)
    source = process.mmap(PAGE)
    fails(errno.EINVAL, process.mremap, source, PAGE, PAGE, new_addr=1)
    fails(errno.EFAULT, process.mremap, source, 2 * PAGE, 2 * PAGE, new_addr=0)


@pytest.fixture
def nobody():
    """real_mmap.py as a user without privileges."""
    real = Real("65534") if os.geteuid() == 0 else Real()
    yield real
    real.close()


def fixed_calls(limit):
    """Calls with a fixed address at the limit and beside it, with and without room above."""
    for addr in (0, 1, limit - PAGE, limit - 1, limit, limit + 1, limit + PAGE):
        for length in (1, 2 * PAGE, 40 * PAGE):
            for fixed in (ksm.MAP_FIXED, ksm.MAP_FIXED_NOREPLACE):
                yield ["mmap", addr, length, RW, ANONYMOUS | fixed]
        for old, new in ((4, 4), (4, 2), (4, 6), (8, 8)):
            yield ["mremap", limit + 32 * PAGE, old * PAGE, new * PAGE, ksm.MREMAP_MAYMOVE | ksm.MREMAP_FIXED, addr]


def hints(limit):
    for addr in (0, 1, PAGE - 1, limit - 1, limit, limit + 1, limit + PAGE):
        for length in (1, 2 * PAGE, 40 * PAGE):
            yield ["mmap", addr, length, RW, ANONYMOUS]


def same_below(real, calls, limit):
    """Compare each call with the kernel's, which may have another limit. There is a mapping a little above the limit."""
    for call, real_call in zip(calls(LOWEST), calls(limit), strict=True):
        with ksm.Machine("1M", max_memory="1M") as machine:
            process = machine.spawn()
            prepared = [RW, FIXED]
            assert perform(process, "mmap", LOWEST + 32 * PAGE, 8 * PAGE, *prepared) == 0
            result = perform(process, *call)
            ours = [vma for vma in window(process) if vma[0] < LOWEST + 64 * PAGE]
            assert machine.check() == []
        theirs, _ = real.run([["mmap", limit + 32 * PAGE, 8 * PAGE, *prepared], real_call], 0, limit + 64 * PAGE)
        moved = [[start + LOWEST - limit, end + LOWEST - limit, *rest] for start, end, *rest in theirs[3]]
        assert (result, joined(ours)) == (theirs[2], joined(moved)), (call, real_call)


def test_low_addresses_beside_the_kernel(nobody):
    with open("/proc/sys/vm/mmap_min_addr") as file:
        limit = int(file.read())
    if limit == 0:
        pytest.skip("a kernel without a limit")
    same_below(nobody, fixed_calls, limit)


def test_low_hints_beside_the_kernel(nobody):
    """Hints are raised to the limit, or to that of the security modules if that is higher. The test asks the kernel which it is."""
    results, _ = nobody.run([["mmap", PAGE, PAGE, RW, ANONYMOUS]], 0, 1 << 20)
    if results[1] and results[1][0][0] > PAGE:
        same_below(nobody, hints, results[1][0][0])
    else:
        pytest.skip("a kernel without a limit")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
@given(st.lists(CALLS, min_size=20, max_size=60))
def test_beside_the_kernel(real, sequence):
    compare(real, sequence)

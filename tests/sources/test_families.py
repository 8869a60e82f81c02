# SPDX-License-Identifier: GPL-2.0-only
"""Processes that share pages since a fork: the machine's share the same ones, and KSM counts them as the kernel's would."""

import os
import signal
import struct
from collections import Counter
from contextlib import contextmanager

import pytest

import ksm
from ksm.estimate.scan import Scan
from ksm.sources import Host, open_source

PAGE = 4096
pytestmark = [pytest.mark.once, pytest.mark.skipif(os.geteuid() != 0, reason="only root sees frames")]
UNIQUE = "fill(a, 0, list(range(1000, 1300)))"


@contextmanager
def scan_of(*pids, read=True, host=None, **options):
    """A scan of these processes that has read them once, or not yet."""
    host = host or Host()
    sources = [open_source(f"pid:{pid}", host) for pid in pids]
    try:
        with Scan(sources, **{"exact": True, **options}) as scan:
            if read:
                scan.read(0)
            yield scan
            assert scan.machine.check() == []
    finally:
        for source in sources:
            source.close()
        host.close()


def real_frames(pid, addr, pages):
    """The frame of each page; 0 where none is, or one of a file."""
    with open(f"/proc/{pid}/pagemap", "rb") as file:
        file.seek(addr // PAGE * 8)
        entries = struct.unpack(f"{pages}Q", file.read(8 * pages))
    return [entry & (1 << 55) - 1 if entry >> 63 and not entry >> 61 & 1 else 0 for entry in entries]


def check_sharing(scan):
    """Assert that processes of the machine share a frame where, and only where, the real ones do. How many pages they have, and frames."""
    real, made = {}, {}
    for source in scan.sources:
        for addr, length in source.ranges():
            theirs = real_frames(source.pid, addr, length // PAGE)
            for place, word in enumerate(source.process.page_table(addr, length)):
                if word:
                    assert theirs[place], f"{source.name} has no page at {addr + place * PAGE:#x}"
                    real.setdefault(addr + place * PAGE, []).append(theirs[place])
                    made.setdefault(addr + place * PAGE, []).append(word >> 8)
    for addr in real:
        assert [real[addr].index(frame) for frame in real[addr]] == [made[addr].index(frame) for frame in made[addr]], hex(addr)
    return sum(map(len, real.values())), sum(len(set(frames)) for frames in real.values())


def numbers(source, addr, pages):
    """The numbers that fill() has given to the pages of an area; None where there is no page."""
    words = source.process.page_table(addr, pages * PAGE)
    return [int.from_bytes(source.process.read(addr + i * PAGE, 8), "little") if words[i] else None for i in range(pages)]


@pytest.fixture
def family(target):
    """A process with an area of 300 pages, of which each is another: the process, and the address."""
    target.do("a = area(300)")
    target.do(UNIQUE)
    target.do("import signal")
    return target, target.ask("[address(a)]")[0]


def fork(target):
    return target.ask("[child()]")[0]


def tell(target, pid, line):
    return target.ask(f"[tell({pid}, {line!r})]")[0]


def test_a_child_that_wrote_some_pages(family):
    target, addr = family
    child = fork(target)
    tell(target, child, "fill(a, 200, [1] * 50)")
    tell(target, child, "a.madvise(mmap.MADV_DONTNEED, 250 * PAGE, 50 * PAGE)")
    with scan_of(target.pid, child) as scan:
        pages, frames = check_sharing(scan)
        assert pages - frames >= 200
        parent, second = scan.sources
        assert numbers(parent, addr, 300) == list(range(1000, 1300))
        assert numbers(second, addr, 300) == list(range(1000, 1200)) + [1] * 50 + [None] * 50
        result = scan.result(1, False)
        assert result.shared == pages - frames
        assert result.pages == frames
        assert sum(source.pages for source in result.sources) == pages


def test_the_order_in_which_they_are_named_does_not_matter(family):
    target, _ = family
    child = fork(target)
    with scan_of(child, target.pid) as scan:
        pages, frames = check_sharing(scan)
        assert pages - frames >= 300


def test_a_page_with_the_same_bytes_and_a_frame_of_its_own(family):
    target, _ = family
    child = fork(target)
    tell(target, child, UNIQUE)
    with scan_of(target.pid, child) as scan:
        check_sharing(scan)
    with scan_of(target.pid, child, read=False) as scan:
        result = scan.run(3, 0)
    assert result.savings.across >= 300


def test_a_page_that_the_parent_wrote_after_the_fork(family):
    target, addr = family
    first = fork(target)
    target.do("fill(a, 0, [2000] * 100)")
    second = fork(target)
    target.do("fill(a, 50, [3000] * 100)")
    with scan_of(target.pid, first, second) as scan:
        check_sharing(scan)
        assert numbers(scan.sources[0], addr, 151) == [2000] * 50 + [3000] * 100 + [1150]
        assert numbers(scan.sources[1], addr, 151) == list(range(1000, 1151))
        assert numbers(scan.sources[2], addr, 151) == [2000] * 100 + list(range(1100, 1151))


def test_pages_that_only_the_children_share(family):
    target, _ = family
    children = [fork(target) for _ in range(3)]
    target.do("fill(a, 0, [2000] * 300)")
    with scan_of(target.pid, *children) as scan:
        pages, frames = check_sharing(scan)
        assert pages - frames >= 600


def test_a_grandchild(family):
    target, addr = family
    child = fork(target)
    tell(target, child, "fill(a, 0, [2000 + i for i in range(100)])")
    grandchild = tell(target, child, "answer = child()")
    tell(target, child, "fill(a, 50, [3000] * 100)")
    target.do("fill(a, 200, [4000] * 100)")
    with scan_of(target.pid, child, grandchild) as scan:
        check_sharing(scan)
        assert numbers(scan.sources[2], addr, 300) == [2000 + i for i in range(100)] + list(range(1100, 1300))
    with scan_of(target.pid, grandchild) as scan:  # the child is not in the scan
        check_sharing(scan)
        assert not scan.families[0].lost


def test_siblings_whose_parent_is_not_in_the_scan(family):
    target, addr = family
    first = fork(target)
    target.do("fill(a, 0, [2000] * 100)")
    second = fork(target)
    tell(target, second, "fill(a, 100, [3000] * 100)")
    with scan_of(first, second) as scan:
        pages, frames = check_sharing(scan)
        assert pages - frames >= 100
        assert numbers(scan.sources[0], addr, 300) == list(range(1000, 1300))
        assert numbers(scan.sources[1], addr, 300) == [2000] * 100 + [3000] * 100 + list(range(1200, 1300))
        assert len(scan.machine.processes) == 2


def test_siblings_of_a_dead_parent(family):
    target, _ = family
    parent = fork(target)
    tell(target, parent, "fill(a, 0, [2000 + i for i in range(100)])")
    children = [tell(target, parent, "answer = sleeper()") for _ in range(2)]
    try:
        os.kill(parent, signal.SIGKILL)
        target.do(f"os.waitpid({parent}, 0)")
        with scan_of(*children) as scan:
            pages, frames = check_sharing(scan)
            assert pages - frames >= 300
        with scan_of(*children, target.pid) as scan:
            check_sharing(scan)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)


def test_later_passes(family):
    target, addr = family
    children = [fork(target) for _ in range(2)]
    with scan_of(target.pid, *children) as scan:
        scan.scan(1)
        tell(target, children[0], "fill(a, 0, [2000] * 50)")
        tell(target, children[1], "fill(a, 20, list(range(1020, 1060)))")  # what is there already
        target.do("fill(a, 200, [3000] * 50)")
        target.do("a.madvise(mmap.MADV_DONTNEED, 280 * PAGE, 10 * PAGE)")
        for number in (1, 2):
            scan.read(number)
            if number == 1:
                check_sharing(scan)
            assert numbers(scan.sources[0], addr, 300) == [*range(1000, 1200)] + [3000] * 50 + [*range(1250, 1280)] + [None] * 10 + [
                *range(1290, 1300)
            ]
            assert numbers(scan.sources[1], addr, 300) == [2000] * 50 + [*range(1050, 1300)]
            assert numbers(scan.sources[2], addr, 300) == [*range(1000, 1300)]
            scan.scan(number + 1)


def test_one_that_exits_during_the_scan(family):
    target, addr = family
    children = [fork(target) for _ in range(2)]
    with scan_of(target.pid, *children) as scan:
        os.kill(children[0], signal.SIGKILL)
        target.do(f"os.waitpid({children[0]}, 0)")
        target.do("fill(a, 0, [2000] * 50)")
        scan.read(1)
        assert len(scan.sources) == 2
        pages, frames = check_sharing(scan)
        assert numbers(scan.sources[1], addr, 300) == [*range(1000, 1300)]
        result = scan.result(1, False)
        assert (result.pages, result.shared) == (frames, pages - frames)


@pytest.mark.parametrize("exact", [True, False])
def test_counters_are_those_of_mappings_and_frames_count_once(family, exact):
    """Three contents, each in 100 pages of a process that forks twice: KSM has an rmap_item for each of the 900 mappings."""
    target, addr = family
    target.do("fill(a, 0, [2000 + i // 100 for i in range(300)])")
    children = [fork(target) for _ in range(2)]
    tell(target, children[1], "fill(a, 0, [5000 + i for i in range(50)])")
    with scan_of(target.pid, *children, exact=exact) as scan:
        pages, frames = check_sharing(scan)
    with scan_of(target.pid, *children, read=False, exact=exact, settings={"max_page_sharing": "1000"}) as scan:
        result = scan.run(4, 0)
        contents = Counter()
        for source in scan.sources:
            contents.update(word >> 8 for word in source.process.page_table(addr, 300 * PAGE))
    merged = sorted(count for count in contents.values() if count > 1)
    assert sum(count for count in merged if count >= 50) == 850
    assert result.ksm["pages_shared"] + result.ksm["pages_sharing"] >= 850
    assert sum(source.ksm_stat["ksm_rmap_items"] for source in result.sources) == pages
    assert (result.pages, result.shared) == (frames, pages - frames)
    # Frames that are not there any more: of 300, three have stayed
    assert 297 <= result.savings.pages <= 297 + frames - 350
    assert result.ksm["general_profit"] == result.ksm["pages_sharing"] * PAGE - 64 * pages


@pytest.mark.parametrize("most", [2, 3, 7, 256])
@pytest.mark.parametrize("passes", [2, 4])
@pytest.mark.parametrize("zero_pages", [0, 1])
def test_savings_are_frames_before_less_frames_after(family, most, passes, zero_pages):
    """Also where a page is merged for some of the processes that share it, or into different ones, which max_page_sharing demands."""
    target, _ = family
    target.do("fill(a, 0, [2000] * 40 + [0] * 40)")
    children = [fork(target) for _ in range(5)]
    tell(target, children[0], "fill(a, 80, [7000] * 100 + [2000] * 20 + [0] * 20)")
    with scan_of(target.pid, *children) as scan:
        _, before = check_sharing(scan)
    options = {"max_page_sharing": str(most), "use_zero_pages": str(zero_pages)}
    with scan_of(target.pid, *children, read=False, settings=options) as scan:
        result = scan.run(passes, 0)
        after = set()
        for source in scan.sources:
            for start, length in source.ranges():
                # The kernel's zero page is no frame of theirs.
                after |= {word >> 8 for word in source.process.page_table(start, length) if word and not word & ksm.PAGE_KSM_ZERO}
    assert result.savings.pages == before - len(after)
    assert (result.ledger.pages, result.ledger.freed, result.ledger.kept) == (before, before - len(after), len(after))


@pytest.mark.parametrize("passes", [2, 4, 5, 6, 7, 8, 12])
def test_pages_that_are_shared_and_have_no_equal(family, passes):
    """One of the processes has such a page in the unstable tree, or smart_scan skips it for all. It is not volatile for the others."""
    target, _ = family
    children = [fork(target) for _ in range(3)]
    with scan_of(target.pid, *children) as scan:
        pages, frames = check_sharing(scan)
    with scan_of(target.pid, *children, read=False) as scan:
        ledger = scan.run(passes, 0).ledger
    assert ledger.kept == frames - ledger.freed
    assert (ledger.volatile, ledger.rmap_items) == (0, pages)
    assert ledger.unshared + ledger.skipped >= 300
    assert bool(ledger.skipped) == (passes in (5, 7, 8, 12))         # see skip_age()


def test_a_family_is_read_once(family):
    """The machine has frames for what there is, and the memory that is asked for is not that of copies."""
    target, _ = family
    target.do("b = area(5000); b[:] = os.urandom(5000 * PAGE)")
    children = [fork(target) for _ in range(8)]
    with scan_of(target.pid, *children) as scan:
        pages, frames = check_sharing(scan)
        ranges = [(source.process, *run) for source in scan.sources for run in source.ranges()]
        used = {word >> 8 for process, start, length in ranges for word in process.page_table(start, length) if word}
        assert len(used) == frames < pages / 4
        assert sum(source.forked for source in scan.sources) == (pages - frames) * PAGE

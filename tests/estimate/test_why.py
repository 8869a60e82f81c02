# SPDX-License-Identifier: GPL-2.0-only
"""ksm why: of each page of a process that a test makes, the reason is right, and reasons add up to what /proc says there is."""

import os
import re
import time
from contextlib import contextmanager

import pytest
from targets import Target

import ksm
from ksm.estimate import outcomes
from ksm.estimate.look import Look, examine
from ksm.estimate.reasons import BY_CODE, BY_NAME, REASONS
from ksm.estimate.scan import Scan
from ksm.estimate.why import Gain
from ksm.sources import Host, SourceGone, open_sources
from ksm.sources.areas import areas_of
from ksm.sources.page_codes import PageCodes, fill_kinds

PAGE = ksm.PAGE_SIZE
NOT_IN_RSS = {"absent", "only_read", "swapped", "hugetlb", "split"}


@pytest.fixture
def start():
    targets = []

    def start(*lines):
        targets.append(Target())
        for line in lines:
            targets[-1].do(line)
        return targets[-1]

    yield start
    for target in targets:
        target.end()


@contextmanager
def opened(texts, **options):
    host = Host()
    sources, _ = open_sources(texts, host, **options)
    try:
        yield sources
    finally:
        for source in sources:
            source.close()
        host.close()


def look_at(texts, passes=3, interval=0, *, which="prctl", followed=None, quick=False, **options):
    with opened(texts, which=which) as sources, Look(sources, **options) as look:
        look.followed, look.quick = followed, quick
        return examine(look, passes, interval)


def pid(*targets):
    return [f"pid:{target.pid}" for target in targets]


def reasons_at(why, addr, pages, source=0):
    """The names of the reasons of some pages."""
    region = next(each for each in why.sources[source].regions if each.start <= addr < each.end)
    codes = region.codes()[(addr - region.start) // PAGE :]
    return [BY_CODE[code].name for code in codes[:pages]]


def where(target, *names):
    return dict(zip(names, target.ask(f"[address(each) for each in ({', '.join(names)},)]"), strict=True))


MADE = [
    "import tempfile",
    "twice = area(12); fill(twice, 0, [1000, 1001, 1002, 1003] * 2 + [0, 0, 1999])",
    "noise = area(8); noise[:] = os.urandom(8 * PAGE)",
    "moving = area(4); fill(moving, 0, [2000, 2001, 2002, 2003])",
    "shared = area(6, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS); fill(shared, 0, [1000, 1001, 3000, 3000])",
    "memory = os.memfd_create('guest'); os.ftruncate(memory, 4 * PAGE); memfd = mmap.mmap(memory, 4 * PAGE); fill(memfd, 0, [4000, 1001])",
    "file = tempfile.TemporaryFile(); _ = file.write(os.urandom(6 * PAGE)); file.flush()",
    "private = mmap.mmap(file.fileno(), 6 * PAGE, flags=mmap.MAP_PRIVATE); seen = sum(private[at] for at in range(0, 6 * PAGE, PAGE))",
    "fill(private, 2, [5000, 1003])",
    "reader = mmap.mmap(file.fileno(), 2 * PAGE, prot=mmap.PROT_READ); seen += reader[0]",
    "locked = area(4); fill(locked, 0, [1000, 6000, 6001]); assert not ctypes.CDLL(None).mlock(ctypes.c_void_p(address(locked)), 3 * PAGE)",
    "read = area(6); seen += read[0] + read[PAGE]; fill(read, 3, [7000])",
    "reserved = area(1 << 24, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)",
]


@pytest.fixture
def made(start):
    return start(*MADE)


def test_each_page_has_the_right_reason(made):
    with opened(pid(made)) as sources, Look(sources, threads=1) as look:
        for number in range(3):
            made.do(f"fill(moving, 0, list(range({2000 + 4 * number}, {2004 + 4 * number})))")
            look.read(number)
            look.scan(number + 1)
        look.result(3, False)
    why = look.why
    at = where(made, "twice", "noise", "moving", "shared", "memfd", "private", "locked", "read", "reserved")
    assert reasons_at(why, at["twice"], 12) == ["within"] * 8 + ["zero"] * 2 + ["alone", "absent"]
    assert reasons_at(why, at["noise"], 8) == ["alone"] * 8
    assert reasons_at(why, at["moving"], 4) == ["volatile"] * 4
    assert reasons_at(why, at["shared"], 6) == ["shared_memory"] * 4 + ["absent"] * 2
    assert reasons_at(why, at["memfd"], 4) == ["shared_memory"] * 2 + ["absent"] * 2
    assert reasons_at(why, at["private"], 6) == ["file"] * 2 + ["alone", "within"] + ["file"] * 2
    assert reasons_at(why, at["locked"], 3) == ["within", "alone", "alone"]
    assert reasons_at(why, at["read"], 6) == ["only_read"] * 2 + ["absent", "alone", "absent", "absent"]
    assert reasons_at(why, at["reserved"], 6) == ["absent"] * 6
    region = next(each for each in why.sources[0].regions if each.start <= at["reserved"] < each.end)
    assert region.reasons["absent"] >= 1 << 24 and sum(region.reasons.values()) == region.pages


def test_what_is_not_looked_at_is_compared(made):
    """The gain of shared memory: two of its pages are in the rest, too, and it has two equal ones."""
    why = look_at(pid(made), threads=1)
    at = where(made, "shared", "memfd")
    gains = {region.start: region.gains for _, region in why.regions}
    assert gains[at["shared"]] == {"shared_memory": Gain(4, 3)}
    assert gains[at["memfd"]] == {"shared_memory": Gain(1, 1)}
    # 1001 is in the rest, so that it is freed in both.
    assert why.gains["shared_memory"] == Gain(5, 4)
    quick = look_at(pid(made), threads=1, quick=True)
    assert "shared_memory" not in quick.gains
    assert next(chance for chance in quick.chances() if chance.reason.name == "shared_memory").freed is None


def test_reasons_add_up_to_what_proc_says(made):
    why = look_at(pid(made), threads=1)
    with open(f"/proc/{made.pid}/smaps") as smaps:
        areas = list(areas_of(smaps.read()))
    assert len(areas) == len(why.sources[0].regions)
    for area, region in zip(areas, why.sources[0].regions, strict=True):
        assert (area.start, area.end, area.name) == (region.start, region.end, region.name)
        assert sum(region.reasons.values()) == region.pages == (area.end - area.start) // PAGE
        if "heap" in region.name or area.name == "[stack]" or "special" in region.reasons:
            continue  # the interpreter may be at work there
        there = sum(count for name, count in region.reasons.items() if name not in NOT_IN_RSS)
        assert there * PAGE == region.rss, region
        assert region.reasons.get("swapped", 0) * PAGE == region.swap
        assert list(region.codes()).count(0) == region.reasons.get("absent", 0) if region.pages < 1 << 20 else True
    total = why.sources[0].reasons
    assert sum(total.values()) == why.sources[0].pages


@pytest.mark.parametrize("exact", [False, True])
def test_it_counts_what_a_scan_counts(start, exact):
    """The machine that answers is the machine of the scan: the same counters, ledger, savings and passes."""
    targets = [start(*MADE), start(*MADE)]
    results = []
    for kind in (Scan, Look):
        with opened(pid(*targets)) as sources, kind(sources, threads=2, exact=exact) as scan:
            results.append(scan.run(5, 0))
    first, second = results
    assert first.ksm == second.ksm
    assert (first.ledger, first.savings, first.passes, first.settled) == (second.ledger, second.savings, second.passes, second.settled)


def test_reasons_and_ledger_agree(start):
    """Reasons count pages, and the ledger frames. Without a fork, the pages that are merged are the frames freed and the ones kept."""
    targets = [start(*MADE), start(*MADE)]
    why = look_at(pid(*targets), threads=1)
    reasons, ledger = why.reasons, why.scan.ledger
    merged = sum(reasons.get(name, 0) for name in ("within", "across", "zero", "last"))
    assert merged == ledger.zero + ledger.within + ledger.across + ledger.merged
    assert reasons["alone"] + reasons.get("huge", 0) == ledger.unshared
    assert reasons.get("volatile", 0) + reasons.get("waiting", 0) + reasons.get("again", 0) == ledger.volatile
    assert reasons["across"]


def test_a_page_of_another_source(start):
    targets = [start("a = area(3); fill(a, 0, [1000, 1001, 1002])"), start("a = area(3); fill(a, 0, [1000, 1005, 1002])")]
    why = look_at(pid(*targets), threads=1)
    for source, target in enumerate(targets):
        assert reasons_at(why, where(target, "a")["a"], 3, source) == ["across", "alone", "across"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees frames")
def test_what_is_shared_since_a_fork(start):
    target = start("a = area(3); fill(a, 0, [1000, 1001, 1002])")
    child = target.ask("[child()]")[0]
    target.do("fill(a, 2, [1001])")
    why = look_at([f"pid:{target.pid}", f"pid:{child}"], threads=1)
    addr = where(target, "a")["a"]
    both = [reasons_at(why, addr, 3, source) for source in range(2)]
    assert sorted(each[0] for each in both) == ["alone", "forked"]
    assert {both[0][1], both[1][1]} <= {"across", "within"}
    assert both[0][2] in ("across", "within") and both[1][2] == "alone"


def test_passes_that_are_too_few(start):
    target = start("a = area(2); fill(a, 0, [1000, 1000])")
    addr = where(target, "a")["a"]
    assert reasons_at(look_at(pid(target), passes=1, threads=1), addr, 2) == ["waiting"] * 2
    assert reasons_at(look_at(pid(target), passes=2, threads=1), addr, 2) == ["within"] * 2


def test_max_page_sharing(start):
    target = start("a = area(5); fill(a, 0, [1000] * 5)")
    why = look_at(pid(target), threads=1, settings={"max_page_sharing": "2"})
    assert reasons_at(why, where(target, "a")["a"], 5) == ["within"] * 4 + ["max_page_sharing"]
    assert why.gains["max_page_sharing"].freed >= 1


def test_smart_scan(start):
    target = start("a = area(2); fill(a, 0, [1000, 1001])")
    why = look_at(pid(target), passes=6, threads=1)
    addr = where(target, "a")["a"]
    assert set(reasons_at(why, addr, 2)) <= {"smart_scan", "alone"}
    assert why.reasons.get("smart_scan", 0) == why.scan.ledger.skipped


def test_what_is_not_mergeable_as_it_is(start):
    target = start("a = area(4); fill(a, 0, [1000, 1000]); b = area(2); b.madvise(12); fill(b, 0, [1000])")
    why = look_at(pid(target), which="advised", threads=1)
    at = where(target, "a", "b")
    assert reasons_at(why, at["a"], 4) == ["not_mergeable"] * 2 + ["absent"] * 2
    assert reasons_at(why, at["b"], 2) == ["alone", "absent"]
    gain = next(region.gains for _, region in why.regions if region.start <= at["a"] < region.end)
    assert gain["not_mergeable"].freed >= 2


def test_what_is_held(start):
    target = start("a = area(4); fill(a, 0, [1000, 1000, 1001, 1002])")
    target.do("libc = ctypes.CDLL(None); ring = libc.syscall(425, 4, ctypes.create_string_buffer(120))")
    target.do("buffer = (ctypes.c_void_p * 2)(address(a), PAGE)")
    if target.ask("[0 if ring >= 0 and libc.syscall(427, ring, 0, ctypes.byref(buffer), 1) == 0 else 1]") != [0]:
        pytest.skip("no io_uring here")
    why = look_at(pid(target), threads=1)
    assert reasons_at(why, where(target, "a")["a"], 4) == ["held", "equal_held", "alone", "alone"]
    assert why.gains == {**why.gains, "held": Gain(1, 1)}
    assert "equal_held" not in why.gains


def test_memory_that_may_be_dropped(start):
    """MAP_DROPPABLE is since Linux 6.11."""
    target = start("libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_long")
    addr = target.ask(f"[libc.mmap(None, 4 * PAGE, 3, {8 | 32}, -1, 0)]")[0]
    if addr == -1:
        pytest.skip("no MAP_DROPPABLE")
    target.do(f"_ = ctypes.memset({addr}, 7, 2 * PAGE)")
    assert reasons_at(look_at(pid(target), threads=1), addr, 4) == ["droppable"] * 2 + ["absent"] * 2


@pytest.mark.parametrize("ask_ioctl", [True, False])
def test_guard_pages_are_not_swapped_out(start, ask_ioctl):
    """MADV_GUARD_INSTALL is since Linux 6.13: its pages have entries like those of pages in swap. pagemap tells them since 6.15."""
    target = start("a = area(4); fill(a, 0, [1000, 1001])")
    addr = where(target, "a")["a"]
    if target.ask(f"[ctypes.CDLL(None).madvise(ctypes.c_void_p({addr + 2 * PAGE}), PAGE, 102)]") != [0]:
        pytest.skip("no MADV_GUARD_INSTALL")
    assert reasons_at(look_at(pid(target), threads=1), addr, 4) == ["alone"] * 2 + ["absent"] * 2
    codes = PageCodes()
    with open(f"/proc/{target.pid}/pagemap", "rb") as pagemap:
        fill_kinds(
            pagemap.fileno(), -1, addr, addr + 4 * PAGE, codes, None, anonymous=1, missing=2, file=3, zero=4, swapped=5,
            ask_ioctl=ask_ioctl,
        )  # fmt: skip
    assert list(codes.codes(addr, addr + 4 * PAGE)) == [1, 1, 0, 0]


def test_what_is_swapped_out(start):
    target = start("a = area(8); fill(a, 0, list(range(1000, 1008))); a.madvise(21, 0, 4 * PAGE)")  # MADV_PAGEOUT
    why = look_at(pid(target), threads=1)
    region = next(region for _, region in why.regions if region.start <= where(target, "a")["a"] < region.end)
    if not region.swap:
        pytest.skip("no swap here")
    assert reasons_at(why, where(target, "a")["a"], 8) == ["swapped"] * (region.swap // PAGE) + ["alone"] * (8 - region.swap // PAGE)


def test_hugetlb(start):
    with open("/proc/meminfo") as meminfo:
        if not int(re.search(r"HugePages_Free: *(\d+)", meminfo.read())[1]):
            pytest.skip("no pages of hugetlb here")
    target = start("a = mmap.mmap(-1, 2 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000); a[0] = 1")
    assert reasons_at(look_at(pid(target), threads=1), where(target, "a")["a"], 512) == ["hugetlb"] * 512


def test_a_huge_page_that_no_part_of_merges(start):
    target = start("a = huge_area(1); fill(a, first_huge(a), list(range(1000, 1512)))")
    first = target.ask("[address(a) + first_huge(a) * PAGE]")[0]
    why = look_at(pid(target), threads=1)
    seen = set(reasons_at(why, first, 512))
    if seen == {"alone"}:
        pytest.skip("no huge pages here")
    assert seen == {"huge"}


def test_the_story_of_one_page(start):
    targets = [start("a = area(3); fill(a, 0, [1000, 1001, 1002])"), start("a = area(3); fill(a, 2, [1000])")]
    at = [where(target, "a")["a"] for target in targets]
    why = look_at(pid(*targets), threads=1, followed=(0, at[0]))
    story = why.story
    assert (story.reason.name, story.place.address, story.region.start <= at[0] < story.region.end) == ("across", at[0], True)
    assert [visit.number for visit in story.visits] == [0, 1, 1, 2]
    assert [(place.source, place.address) for place in story.same_frame] == [(why.sources[1].name, at[1] + 2 * PAGE)]
    assert not story.same_content and not story.more
    nowhere = look_at(pid(targets[0]), threads=1, followed=(0, 4096)).story
    assert (nowhere.region, nowhere.reason.name, nowhere.visits) == (None, "absent", ())


def test_one_that_exits(start):
    """During the scan it is an error, or a note if there are others; behind the last pass its mappings are known."""
    targets = [start("a = area(2); fill(a, 0, [1000, 1000])") for _ in range(2)]
    addr = where(targets[0], "a")["a"]
    with opened(pid(*targets)) as sources, Look(sources, threads=1) as look:
        for number in range(3):
            look.read(number)
            look.scan(number + 1)
        targets[0].end()
        look.result(3, True)
        assert reasons_at(look.why, addr, 2) == ["across"] * 2
        assert any("exited" in note for note in look.why.sources[0].notes)
    with pytest.raises(SourceGone), opened(pid(targets[1])) as sources, Look(sources, threads=1) as look:
        look.read(0)
        look.scan(1)
        targets[1].end()
        deadline = time.monotonic() + 10
        while os.path.exists(f"/proc/{targets[1].pid}"):
            assert time.monotonic() < deadline
        look.read(1)


def image(path, numbers):
    path.write_bytes(b"".join(bytes(PAGE) if number == 0 else number.to_bytes(8, "little") * 512 for number in numbers))
    return str(path)


@pytest.mark.parametrize("exact", [True, False])
def test_images(tmp_path, exact):
    texts = [image(tmp_path / "a", [1, 2, 2, 0, 3]), image(tmp_path / "b", [1, 4, 0, 0])]
    for zeros, reason in (("apart", "zeros_apart"), ("count", "zero")):
        why = look_at(texts, threads=1, exact=exact, zeros=zeros)
        assert reasons_at(why, 0, 5) == ["across", "within", "within", reason, "alone"]
        assert reasons_at(why, 0, 4, 1) == ["across", "alone", reason, reason]
        assert [region.start for region in why.sources[0].regions] == [0]
        assert any("of a still image" in note for note in why.sources[0].notes)
    assert look_at(texts, threads=1, followed=(0, 2 * PAGE)).story.same_frame[0].address == PAGE


def test_a_story_of_an_image(tmp_path):
    why = look_at([image(tmp_path / "a", [1, 2, 2, 5])], followed=(0, 3 * PAGE), threads=1)
    assert why.story.reason.name == "alone"


def test_reasons_are_all_explained():
    assert len({reason.name for reason in REASONS}) == len(REASONS) == outcomes.NR_REASONS
    for reason in REASONS:
        assert reason.sentence.endswith("."), reason
        assert not reason.remedy.endswith("."), reason
        assert BY_NAME[reason.name] is reason
        assert re.fullmatch("[a-z_]+", reason.name)

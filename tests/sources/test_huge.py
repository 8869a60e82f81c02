# SPDX-License-Identifier: GPL-2.0-only
"""Huge pages of a process are huge in the machine."""

import os

import pytest

import ksm
from ksm.host.memory import has_mthp
from ksm.sources import Host
from ksm.sources.huge import huge_blocks
from ksm.sources.live import LiveSource
from tests.sources.test_families import check_sharing, fork, scan_of, tell

PAGE = 4096
HUGE = 512 * PAGE
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root sees frames")


class Area:
    """An area of huge pages in a process that runs what it is told, as `a`: the address of its first huge page."""

    def __init__(self, target, blocks):
        self.target = target
        target.do(f"a = huge_area({blocks}); first = first_huge(a)")
        self.start = target.ask("[address(a) + first * PAGE]")[0]
        if anonymous_huge(target.pid, self.start) < blocks * HUGE:
            pytest.skip("the kernel gives no huge pages here")

    def fill(self, first, contents):
        self.target.do(f"fill(a, first + {first}, {contents})")

    def drop(self, first, pages):
        self.target.do(f"a.madvise(mmap.MADV_DONTNEED, (first + {first}) * PAGE, {pages} * PAGE)")


def anonymous_huge(pid, addr):
    """Bytes in huge pages that are mapped by one entry each, in the mapping with this address."""
    inside = False
    with open(f"/proc/{pid}/smaps") as file:
        for line in file:
            name, *rest = line.split()
            if "-" in name and not name.endswith(":"):
                start, end = (int(end, 16) for end in name.split("-"))
                inside = start <= addr < end
            elif inside and name == "AnonHugePages:":
                return int(rest[0]) << 10
    return 0


@pytest.fixture(autouse=True)
def small_machines(monkeypatch):
    """check() looks at each frame that a machine may have."""
    monkeypatch.setattr("ksm.estimate.scan.UNKNOWN", 0)
    monkeypatch.setattr("ksm.estimate.scan.total_memory", lambda: 256 << 20)


@pytest.fixture
def area(target):
    return lambda blocks: Area(target, blocks)


def blind_scan_of(*pids, **options):
    """scan_of() by somebody who sees no frames."""
    host = Host()
    host.close()
    return scan_of(*pids, host=host, **{"exact": None, **options})


def kinds(source, addr, pages):
    """For each page: "-" where there is none, "h" a part of a huge page, "0" the zero page, "k" merged, "s" another small page."""
    return "".join(
        "-" if not word else "h" if word & ksm.PAGE_THP else "0" if word & ksm.PAGE_ZERO else "k" if word & ksm.PAGE_KSM else "s"
        for word in source.process.page_table(addr, pages * PAGE)
    )


def content(source, addr, pages):
    return [int.from_bytes(source.process.read(addr + place * PAGE, 8), "little") for place in range(pages)]


@pytest.mark.parametrize("exact", [True, False])
def test_a_huge_page_is_one(area, exact):
    a = area(2)
    a.fill(0, list(range(1000, 1600)))
    with scan_of(a.target.pid, exact=exact) as scan:
        assert kinds(scan.sources[0], a.start, 1024) == "h" * 1024
        if exact:
            assert content(scan.sources[0], a.start, 700) == [*range(1000, 1600), *[0] * 100]


def test_who_sees_no_frames_sees_huge_pages(area):
    a = area(2)
    with blind_scan_of(a.target.pid) as scan:
        assert kinds(scan.sources[0], a.start, 1024) == "h" * 1024


def test_small_pages_stay_small(target):
    target.do("a = area(2048); fill(a, 0, list(range(1000, 3048)))")
    [start] = target.ask("[address(a)]")
    if anonymous_huge(target.pid, start):
        pytest.skip("the kernel gives huge pages to everybody")
    with scan_of(target.pid) as scan:
        assert kinds(scan.sources[0], start, 2048) == "s" * 2048


@pytest.mark.parametrize("exact", [True, False])
def test_zeros_of_a_huge_page_are_freed_when_it_is_split(area, exact):
    """A part of the first huge page is equal to one of the second. All other parts are zeros, of which no counter says anything."""
    a = area(3)
    a.fill(0, [1000])
    a.fill(600, [1000])
    a.fill(1024, list(range(2000, 2512)))
    with scan_of(a.target.pid, read=False, exact=exact) as scan:
        result = scan.run(4, 0)
        assert kinds(scan.sources[0], a.start, 1536) == "k" + "0" * 599 + "k" + "0" * 423 + "h" * 512
    assert result.ledger.split == 1022
    assert result.savings.zero >= 1022
    assert result.ledger.freed == result.savings.pages


@pytest.fixture
def nothing_else(monkeypatch):
    """Only huge pages count: elsewhere in a process there are small pages of zeros."""
    mappings = LiveSource._mappings

    def of_huge_pages(source):
        source._take_mappings([each for each in mappings(source) if anonymous_huge(source.pid, each.start)])
        return source.mappings

    monkeypatch.setattr(LiveSource, "_mappings", of_huge_pages)


def test_all_huge_pages_of_zeros_are_split(area, nothing_else):
    """The kernel splits one of them in a pass, as long as no small page of zeros is merged. A scan says how it ends."""
    a = area(6)
    with scan_of(a.target.pid, read=False) as scan:
        result = scan.run(interval=0)
        assert result.passes < 8
        assert kinds(scan.sources[0], a.start, 3072) == "0" * 3072
        assert len(scan.machine.processes) == 1
        assert result.ledger.rmap_items == scan.sources[0].process.ksm_stat()["ksm_rmap_items"]
    assert result.ledger.split == 3072
    assert any("one of these huge" in note for note in result.notes)


def test_a_pass_that_is_asked_for_splits_one_huge_page_of_zeros(area, nothing_else):
    a = area(6)
    with scan_of(a.target.pid, read=False) as scan:
        scan.run(3, interval=0)
        assert sorted(kinds(scan.sources[0], a.start, 3072)) == ["0"] * 1024 + ["h"] * 2048


def test_with_use_zero_pages(area):
    """KSM makes the first part of zeros the zero page, which splits the huge page; the split takes the others."""
    a = area(2)
    with scan_of(a.target.pid, read=False, settings={"use_zero_pages": "1"}) as scan:
        before = scan.run(1, 0).ksm["ksm_zero_pages"]
        result = scan.run(4, 0)
        assert kinds(scan.sources[0], a.start, 1024) == "0" * 1024
    assert result.ledger.split >= 1020
    assert result.ksm["ksm_zero_pages"] - before < 500


def test_zeros_of_locked_memory_are_pages(area):
    """A split leaves them there, and KSM merges them."""
    a = area(2)
    a.target.do(f"assert ctypes.CDLL(None).mlock(ctypes.c_void_p({a.start}), {2 * HUGE}) == 0")
    if anonymous_huge(a.target.pid, a.start) < 2 * HUGE:
        pytest.skip("locking splits huge pages here")
    with scan_of(a.target.pid, read=False) as scan:
        result = scan.run(4, 0)
        assert kinds(scan.sources[0], a.start, 1024) == "k" * 1024
    assert result.ledger.split == 0
    assert result.ledger.zero >= 1000


def test_huge_pages_that_come_later(area):
    a = area(1)
    with scan_of(a.target.pid) as scan:
        later = Area(a.target, 2)
        later.fill(0, [7] * 5)
        scan.read(1)
        assert kinds(scan.sources[0], later.start, 1024) == "h" * 1024
        later.fill(100, [8])
        scan.read(2)
        assert content(scan.sources[0], later.start + 99 * PAGE, 2) == [0, 8]


def test_a_process_that_writes_to_zeros_that_were_freed(area):
    a = area(2)
    a.fill(0, [1000])
    a.fill(512, [1000])
    with scan_of(a.target.pid) as scan:
        for number in range(1, 4):
            scan.scan(number)
            scan.read(number)
        assert kinds(scan.sources[0], a.start, 4) == "k000"
        a.fill(2, [5])
        scan.read(4)
        assert kinds(scan.sources[0], a.start, 4) == "k0s0"
        assert content(scan.sources[0], a.start, 4) == [1000, 0, 5, 0]


@needs_root
@pytest.mark.parametrize("ask_ioctl", [True, False])
def test_the_rest_of_a_huge_page(area, monkeypatch, ask_ioctl):
    """A part was unmapped, so that entries map the others; the folio is still whole. Old kernels show such and whole ones by frames."""
    a = area(3)
    a.fill(0, list(range(1000, 1200)))
    a.drop(100, 300)
    monkeypatch.setattr("ksm.sources.live.huge_blocks", lambda *rest, **options: huge_blocks(*rest, **options, ask_ioctl=ask_ioctl))
    with scan_of(a.target.pid) as scan:
        assert kinds(scan.sources[0], a.start, 1536) == "h" * 100 + "-" * 300 + "h" * 112 + "h" * 1024
        check_sharing(scan)


@needs_root
def test_a_huge_page_that_processes_share(area):
    a = area(2)
    a.fill(0, list(range(1000, 1100)))
    child = fork(a.target)
    with scan_of(a.target.pid, child) as scan:
        check_sharing(scan)
        for source in scan.sources:
            assert kinds(source, a.start, 1024) == "h" * 1024
    tell(a.target, child, "fill(a, first + 50, [5])")
    a.fill(600, [6])
    with scan_of(a.target.pid, child) as scan:
        check_sharing(scan)
        # Each has copied one part, and the other one has that part alone.
        assert [kinds(source, a.start, 1024).count("h") for source in scan.sources] == [1023, 1023]
        a.fill(601, [6])
        tell(a.target, child, "fill(a, first + 51, [5])")
        for number in range(1, 5):
            scan.read(number)
            scan.scan(number)
        result = scan.result(4, True)
        # The two huge pages are split for 5, or 6. Their zeros go from both processes, and count once.
        assert [kinds(source, a.start + 700 * PAGE, 300) for source in scan.sources] == ["0" * 300] * 2
    assert 800 < result.ledger.split < 1000


@needs_root
def test_the_kernels_huge_zero_page_is_no_memory(area):
    a = area(1)
    a.target.do("b = area(1024); b.madvise(14); second = first_huge(b); b[second * PAGE]")
    [start] = a.target.ask("[address(b) + second * PAGE]")
    with scan_of(a.target.pid) as scan:
        blocks = [run for run in scan.sources[0].ranges() if run[0] <= start < run[0] + run[1]]
        assert not blocks or kinds(scan.sources[0], start, 512) == "-" * 512


@needs_root
def test_a_huge_page_whose_first_part_a_child_has_written(area):
    """pagemap says of each part of a huge page what is true of the first one: that nobody else maps it."""
    a = area(1)
    a.fill(0, list(range(1000, 1512)))
    child = fork(a.target)
    tell(a.target, child, "fill(a, first, [5])")
    with scan_of(a.target.pid, child) as scan:
        check_sharing(scan)
        scan.read(1)
        check_sharing(scan)
    assert anonymous_huge(a.target.pid, a.start) == HUGE
    with scan_of(a.target.pid, child, read=False) as scan:
        assert pages_of(scan.sources, a.start) == [512, 1]
    assert anonymous_huge(a.target.pid, a.start) == HUGE


def test_reading_splits_no_huge_page(area):
    """process_vm_readv() would: each part that a child has, too, would be copied. Who sees no frames asks smaps."""
    a = area(1)
    a.fill(0, list(range(1000, 1512)))
    child = fork(a.target)
    tell(a.target, child, "fill(a, first, [5])")
    with blind_scan_of(a.target.pid, child, exact=True) as scan:
        assert content(scan.sources[0], a.start, 512) == list(range(1000, 1512))
        scan.read(1)
    assert anonymous_huge(a.target.pid, a.start) == HUGE


def pages_of(sources, start):
    """How many pages of a huge page at this address each source brings to a fingerprint file."""
    return [
        sum(max(0, min(end, start + HUGE) - max(first, start)) for piece in source.pieces() for first, end in piece.runs) // PAGE
        for source in sources
    ]


def test_folios_of_other_sizes_are_said(target, monkeypatch):
    """This computer may have none. So every small page is taken for one of those."""
    monkeypatch.setattr("ksm.sources.live.has_mthp", lambda: True)
    monkeypatch.setattr("ksm.sources.live.huge_blocks", lambda *_, others: ([], 16 * others))
    with scan_of(target.pid, read=False) as scan:
        [note] = [note for note in scan.run(1, 0).notes if "folios" in note]
    assert note.startswith("16 pages are in large folios of other sizes than 2 MiB, and count as small ones")


def test_whether_there_are_folios_of_other_sizes(tmp_path):
    assert not has_mthp(str(tmp_path / "none"))
    for size, count in (("16", "0"), ("2048", "7"), ("64", "x")):
        (tmp_path / f"hugepages-{size}kB" / "stats").mkdir(parents=True)
        (tmp_path / f"hugepages-{size}kB" / "stats" / "nr_anon").write_text(count)
    assert not has_mthp(str(tmp_path))
    (tmp_path / "hugepages-16kB" / "stats" / "nr_anon").write_text("3\n")
    assert has_mthp(str(tmp_path))

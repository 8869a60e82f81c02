# SPDX-License-Identifier: GPL-2.0-only
"""Mappings without smaps: the same as with it."""

import mmap
import os

import pytest

from ksm.estimate.scan import Scan
from ksm.sources import Host
from ksm.sources.live import LiveSource
from ksm.sources.mappings import mappings_of
from ksm.sources.plain import Plain, private_areas

PAGE = 4096
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root sees frames")
# include/uapi/linux/mman.h; a mapping with MAP_NORESERVE is not joined with its neighbours
MAP_HUGETLB, MAP_DROPPABLE, MAP_NORESERVE = 0x40000, 0x08, 0x4000
LIBC = "import ctypes; libc = ctypes.CDLL(None, use_errno=True); libc.mmap.restype = ctypes.c_void_p"

LINE = "{}-{} {} 00000000 00:00 0 {}\n"


def maps_of(*lines):
    return "".join(LINE.format(*line) for line in lines).encode()


def test_which_names_may_have_anonymous_pages():
    lines = [
        ("10000", "11000", "rw-p", ""),
        ("12000", "13000", "r--p", "                        /usr/lib/libc.so.6"),
        ("13000", "14000", "rw-s", "                        /dev/shm/common"),
        ("20000", "21000", "---p", "                        [heap]"),
        ("21000", "22000", "rw-p", "                        [anon:a name]"),
        ("22000", "23000", "rw-p", "                        /dev/zero (deleted)"),
        ("30000", "31000", "r--p", "                        [vvar]"),
        ("31000", "32000", "r-xp", "                        [vdso]"),
        ("7ffc00000000", "7ffc00021000", "rw-p", "                        [stack]"),
    ]
    starts = [start for start, _ in private_areas(maps_of(*lines))]
    assert starts == [0x10000, 0x12000, 0x20000, 0x21000, 0x22000, 0x7FFC00000000]


def test_only_what_a_process_may_have_in_the_machine():
    """See LOWEST and HIGHEST."""
    ends = [("f000", "12000"), ("7fffffffd000", "7ffffffff000"), ("ffffffffff600000", "ffffffffff601000")]
    assert private_areas(maps_of(*[(*each, "rw-p", "") for each in ends])) == [(0x10000, 0x12000), (0x7FFFFFFFD000, 0x7FFFFFFFE000)]


@pytest.mark.parametrize("text", [b"", b"\n", b"10000", b"10000-11000", b"10000-11000 rw", b"x-y zzzzp", b"10000-11000 rw-p"])
def test_damaged_lines_do_no_harm(text):
    assert private_areas(text) in (None, [], [(0x10000, 0x11000)])


def test_a_device_may_map_anything():
    assert private_areas(maps_of(("10000", "11000", "rw-p", "   /dev/mem"))) is None


class Looker:
    """The mappings of a target with anonymous pages, by both ways."""

    def __init__(self, target):
        self.target, self.host, self.plain = target, Host(), Plain()
        self.pagemap = os.open(f"/proc/{target.pid}/pagemap", os.O_RDONLY)

    def text(self, name):
        with open(f"/proc/{self.target.pid}/{name}") as file:
            return file.read()

    def look(self):
        return self.plain.look(self.text("maps"), self.pagemap, self.host.kpageflags)

    def smaps(self):
        return [mapping[:3] for mapping in mappings_of(self.text("smaps")) if mapping.anonymous]

    def close(self):
        os.close(self.pagemap)
        self.host.close()


@pytest.fixture
def looker(target):
    looker = Looker(target)
    if looker.look() is None and not os.geteuid():
        pytest.skip("before Linux 6.7")
    looker.plain.forget()
    yield looker
    looker.close()


@needs_root
def test_the_same_as_smaps(target, looker, tmp_path):
    (tmp_path / "file").write_bytes(bytes(8 * PAGE))
    target.do("a = area(100); fill(a, 10, [1001] * 5); b = area(10); fill(b, 9, [7]); empty = area(1000)")
    target.do("s = area(10, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS); fill(s, 0, [1002])")
    target.do(f"fd = os.open({str(tmp_path / 'file')!r}, os.O_RDWR); f = mmap.mmap(fd, 8 * PAGE, flags=mmap.MAP_PRIVATE); f[PAGE]")
    target.do("fill(f, 3, [1003]); big = area(5000); fill(big, 0, [8] * 3000); fill(big, 4000, [9] * 1000)")
    assert looker.look() == looker.smaps()


@needs_root
def test_many_mappings(target, looker):
    """Each second page is read-only: as many mappings as pages, beside each other."""
    target.do(LIBC + "; a = area(1000); fill(a, 0, [5] * 900); base = address(a)")
    target.do("for page in range(0, 1000, 2): libc.mprotect(ctypes.c_void_p(base + page * PAGE), PAGE, 1)")
    looked = looker.look()
    assert looked == looker.smaps()
    assert len(looked) > 900


@needs_root
def test_what_is_unchanged_is_not_looked_at_again(target, looker):
    target.do(f"a = area(100); fill(a, 0, [1]); empty = area(1000, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | {MAP_NORESERVE})")
    before = looker.look()
    assert looker.look() is before
    target.do("fill(empty, 500, [1])")  # maps is the same, and yet there is one more
    after = looker.look()
    assert len(after) == len(before) + 1
    assert {mapping[:2] for mapping in after} == {mapping[:2] for mapping in looker.smaps()}
    target.do("empty.close()")
    assert {mapping[:2] for mapping in looker.look()} == {mapping[:2] for mapping in looker.smaps()}


@needs_root
def test_hugetlb_is_left_out(target, looker):
    with open("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages") as file:
        if not int(file.read()):
            pytest.skip("no huge pages are reserved")
    target.do(f"a = area(512, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | {MAP_HUGETLB}); a[0] = 1")
    assert looker.look() == looker.smaps()


@needs_root
@pytest.mark.parametrize("flags", [MAP_DROPPABLE, mmap.MAP_PRIVATE | MAP_NORESERVE])
def test_pages_that_may_be_dropped(target, looker, flags):
    """Those of MADV_FREE and of MAP_DROPPABLE look the same. KSM may not look at the latter: only smaps tells."""
    target.do(LIBC + f"; p = libc.mmap(None, 256 * PAGE, 3, {flags | mmap.MAP_ANONYMOUS}, -1, 0)")
    if target.ask("[p]")[0] == (1 << 64) - 1:
        pytest.skip("before Linux 6.11")
    target.do("ctypes.memset(p, 1, 256 * PAGE)")  # MADV_FREE works in batches
    if flags != MAP_DROPPABLE:
        assert looker.look() == looker.smaps()
        looker.plain.forget()
        target.do("libc.madvise(ctypes.c_void_p(p), 256 * PAGE, 8)")  # MADV_FREE
    assert looker.look() is None


def test_who_cannot_see_frames_has_smaps(target):
    """The first page of a mapping is asked for its flags."""
    looker = Looker(target)
    try:
        assert looker.plain.look(looker.text("maps"), looker.pagemap, -1) is None
    finally:
        looker.close()


@needs_root
def test_a_scan_does_not_read_smaps(target, looker, monkeypatch):
    """It would hold the mmap_lock for 10 ms and more for each GiB of a mapping."""
    target.do("a = area(100); fill(a, 0, [1001] * 100)")
    if "ksm_mergeable: no" not in " ".join(looker.text("ksm_stat").split()):
        pytest.skip("before Linux 6.14, only smaps tells whether a process has asked for KSM")
    read = LiveSource._text

    def text(source, file):
        assert not file.startswith("smaps")
        return read(source, file)

    monkeypatch.setattr(LiveSource, "_text", text)
    source = LiveSource(target.pid, looker.host)
    with Scan([source]) as scan:
        result = scan.run(3, 0)
    source.close()
    assert result.sources[0].pages > 100


@needs_root
@pytest.mark.parametrize("line", ["a.madvise(12)", "libc.mlock(ctypes.c_void_p(address(a)), PAGE)"])
def test_flags_that_only_smaps_shows(target, looker, line):
    """VM_MERGEABLE and VM_LOCKED."""
    target.do(LIBC + "; a = area(100); fill(a, 0, [1001] * 100)")
    source = LiveSource(target.pid, looker.host)
    plain = source.plain.found is not None
    target.do(line)
    again = LiveSource(target.pid, looker.host)
    assert again.plain.found is None
    assert sum(mapping.mergeable for mapping in again.mappings) == ("madvise" in line)
    assert plain or "ksm_mergeable" not in looker.text("ksm_stat")
    target.do("a.close()")


@needs_root
def test_a_gentle_scan_of_an_old_kernel(target, monkeypatch):
    """Before Linux 6.14, ksm_stat does not tell whether a process has asked for KSM. A process without rmap_items has no merged pages."""
    read = LiveSource._text
    monkeypatch.setattr(
        LiveSource, "_text",
        lambda source, file: "ksm_rmap_items 0\nksm_zero_pages 0\n" if file == "ksm_stat" else read(source, file),
    )  # fmt: skip
    for gentle in (False, True):
        host = Host(gentle=gentle)
        assert (LiveSource(target.pid, host).plain.found is not None) == gentle
        host.close()

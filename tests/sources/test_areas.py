# SPDX-License-Identifier: GPL-2.0-only
"""All mappings of a process, and what pagemap says of their pages: from texts and entries that a test writes."""

import os

import pytest

from ksm.estimate import outcomes
from ksm.estimate.reasons import BY_CODE
from ksm.estimate.regions import fill
from ksm.sources import SourceGone
from ksm.sources.areas import Part, Unread, areas, areas_of
from ksm.sources.page_codes import PageCodes, fill_kinds

PAGE = 4096
START = 0x7F0000000000
PRESENT, SWAPPED, FILE, GUARD, ALONE = 1 << 63, 1 << 62, 1 << 61, 1 << 58, 1 << 56


def mapping(flags, permissions="rw-p", name="", file="00:00 0", offset=0, start=START, pages=8, **figures):
    lines = "".join(f"{key + ':':<16}{value:>8} kB\n" for key, value in {"Size": pages * 4, "Rss": 0, "Swap": 0, **figures}.items())
    return f"{start:x}-{start + pages * PAGE:x} {permissions} {offset:08x} {file} {name:>20}\n{lines}VmFlags: {flags}\n"


@pytest.mark.parametrize(
    "flags, permissions, name, refused",
    [
        ("rd wr mr mw me ac", "rw-p", "", ""),
        ("rd wr mr mw me ac mg", "rw-p", "", ""),
        ("rd wr sh mr mw me ms", "rw-s", "/dev/zero (deleted)", "shared memory"),
        ("rd wr sh mr mw me ms", "rw-s", "/memfd:guest (deleted)", "shared memory"),
        ("rd wr sh mr mw me ms", "rw-s", "/SYSV00000000 (deleted)", "shared memory"),
        ("rd mr mw me ms", "r--s", "/usr/share/x", "shared file"),
        ("rd wr mr mw me ac ht", "rw-p", "/anon_hugepage (deleted)", "hugetlb"),
        ("rd wr sh mr mw me ms ht", "rw-s", "/dev/hugepages/guest", "hugetlb"),
        ("rd ex mr mw me de", "r-xp", "[vdso]", "special"),
        ("rd mr pf io de dd", "r--p", "[vvar]", "special"),
        ("rd wr sh mr mw me ms pf io", "rw-s", "/dev/mem", "special"),
        ("rd wr mr mw me mm", "rw-p", "/dev/x", "special"),
        ("rd wr mr mw me dp", "rw-p", "", "droppable"),
    ],
)
def test_what_vma_ksm_compatible_refuses(flags, permissions, name, refused):
    [area] = areas_of(mapping(flags, permissions, name))
    assert area.refused == refused
    assert (area.start, area.end, area.name) == (START, START + 8 * PAGE, name)


def test_addresses_that_no_machine_has():
    assert [area.refused for area in areas_of(mapping("rd ex", start=0xFFFFFFFFFF600000, pages=1, name="[vsyscall]"))] == ["special"]
    assert [area.refused for area in areas_of(mapping("rd wr", start=0, pages=16))] == ["special"]


def test_figures():
    [area] = areas_of(mapping("rd wr ht", file="00:0f 77", offset=0x5000, Rss=12, Swap=8, Shared_Hugetlb=2048, Private_Hugetlb=4096))
    assert (area.rss, area.swap, area.hugetlb, area.file, area.offset) == (12 << 10, 8 << 10, 6 << 20, ("00:0f", 77), 0x5000)


class Process:
    """A source with this text as its smaps."""

    def __init__(self, path):
        self.path = path

    def _open(self, name):
        return os.open(self.path, os.O_RDONLY)

    def gone(self):
        return SourceGone("gone")


@pytest.mark.parametrize("number", [1, 3, 4000])
def test_smaps_is_read_in_parts(tmp_path, number):
    path = tmp_path / "smaps"
    path.write_text("".join(mapping("rd wr", start=START + place * 16 * PAGE, name=f"/name {place}") for place in range(number)))
    found = list(areas(Process(path)))
    assert [area.name for area in found] == [f"/name {place}" for place in range(number)]
    assert found == list(areas_of(path.read_text()))


def test_no_smaps(tmp_path):
    (tmp_path / "smaps").write_text("")
    with pytest.raises(SourceGone):
        list(areas(Process(tmp_path / "smaps")))


@pytest.fixture
def pagemap(tmp_path):
    """A file of entries, from START on: the ioctl of pagemap is not there, as before Linux 6.7."""
    with open(tmp_path / "pagemap", "wb+", buffering=0) as file:

        def write(*entries):
            file.seek(START // PAGE * 8)
            file.write(b"".join(entry.to_bytes(8, "little") for entry in entries))
            return file.fileno()

        yield write


ENTRIES = (0, PRESENT | ALONE | 5, SWAPPED | 7, PRESENT | FILE | 9, SWAPPED | GUARD, PRESENT | ALONE | 6, SWAPPED | FILE | 8, 0)


def names(codes):
    return [BY_CODE[code].name for code in codes.codes(START, START + 8 * PAGE)]


def reasons(pagemap, flags="rd wr", permissions="rw-p", name="", *, every=True, hypervisor=False, Swap=8):
    """The reasons of pages with ENTRIES, of which the scan has seen the one with the number 1."""
    scanned, codes = PageCodes(), PageCodes()
    scanned.fill(START + PAGE, START + 2 * PAGE, outcomes.ALONE)
    [area] = areas_of(mapping(flags, permissions, name, Swap=Swap))
    fill(codes, scanned, area, pagemap(*ENTRIES), -1, every, hypervisor)
    return names(codes)


def test_pages_of_a_mapping_that_ksm_looks_at(pagemap):
    assert reasons(pagemap) == ["absent", "alone", "swapped", "file", "absent", "waiting", "swapped", "absent"]
    # Without anything in swap, such entries are something else.
    assert reasons(pagemap, Swap=0) == ["absent", "alone", "absent", "file", "absent", "waiting", "absent", "absent"]


def test_pages_of_a_mapping_that_is_not_mergeable(pagemap):
    expected = ["absent", "not_mergeable", "swapped", "file", "absent", "not_mergeable", "swapped", "absent"]
    assert reasons(pagemap, every=False) == expected
    assert reasons(pagemap, "rd wr mg", every=False)[1] == "alone"


@pytest.mark.parametrize("hypervisor", [False, True])
@pytest.mark.parametrize(
    "flags, permissions, name, reason, guest",
    [
        ("rd wr sh ms", "rw-s", "/memfd:x", "shared_memory", "guest"),
        ("rd wr sh ms", "rw-s", "/home/x", "shared_file", "shared_file"),
        ("rd wr sh ms", "rw-s", "/dev/hugepages/x", "shared_file", "guest"),
        ("rd wr sh ms ht", "rw-s", "/dev/hugepages/x", "hugetlb", "guest"),
        ("rd wr ht", "rw-p", "/anon_hugepage (deleted)", "hugetlb", "hugetlb"),
        ("rd wr io pf", "rw-p", "/dev/x", "special", "special"),
        ("rd wr dp", "rw-p", "", "droppable", "droppable"),
    ],
)
def test_pages_of_what_ksm_never_looks_at(pagemap, hypervisor, flags, permissions, name, reason, guest):
    own = guest if hypervisor else reason
    seen = reasons(pagemap, flags, permissions, name, hypervisor=hypervisor)
    assert seen == ["absent", own, "swapped", own, "absent", own, "swapped", "absent"]


def test_codes_of_pages():
    codes = PageCodes()
    codes.put(START, bytes([1, 1, 0, 2]))
    codes.put(START, bytes([0, 3]))
    codes.fill(START + 510 * PAGE, START + 515 * PAGE, 4)
    assert list(codes.runs(0, 1 << 47)) == [
        (START, START + PAGE, 1), (START + PAGE, START + 2 * PAGE, 3), (START + 3 * PAGE, START + 4 * PAGE, 2),
        (START + 510 * PAGE, START + 515 * PAGE, 4),
    ]  # fmt: skip
    assert list(codes.runs(START + 511 * PAGE, START + 513 * PAGE)) == [(START + 511 * PAGE, START + 513 * PAGE, 4)]
    assert codes.counts(0, 1 << 47)[:5] == [(1 << 35) - 8, 1, 1, 1, 5]
    assert codes.counts(START, START + 600 * PAGE)[:5] == [592, 1, 1, 1, 5]
    assert codes.span(0, 1 << 47) == (START, START + 515 * PAGE)
    assert codes.span(START + 8 * PAGE, START + 512 * PAGE) == (START + 510 * PAGE, START + 512 * PAGE)
    assert codes.span(START + 8 * PAGE, START + 16 * PAGE) is None
    assert codes.get(START + 3 * PAGE) == 2 and codes.get(12345 * PAGE) == 0
    assert codes.codes(START, START + 5 * PAGE) == bytes([1, 3, 0, 2, 0])


def test_the_ioctl_and_the_entries_say_the_same():
    """Of this process: each of its mappings, in both ways."""
    with open("/proc/self/smaps") as smaps, open("/proc/self/pagemap", "rb") as file:
        every = [area for area in areas_of(smaps.read()) if area.end < 1 << 47 and area.end - area.start < 1 << 30 and "[" not in area.name]
        differ = 0
        for area in every:
            both = []
            for ask_ioctl in (True, False):
                codes = PageCodes()
                fill_kinds(
                    file.fileno(), -1, area.start, area.end, codes, None, anonymous=1, missing=2, file=3, zero=1, swapped=5,
                    ask_ioctl=ask_ioctl,
                )  # fmt: skip
                both.append(codes.codes(area.start, area.end))
            differ += both[0] != both[1]
    # This process goes on meanwhile.
    assert differ <= len(every) // 10 and len(every) > 20


def test_what_was_read_is_not_read_again():
    unread = Unread()
    file = ("00:01", 7)

    def ask(*parts):
        return [(part.start, part.end, part.region) for part in unread.of(file, [Part(*part, 0, number, 0) for number, part in parts])]

    assert ask((0, (0, 100)), (1, (50, 150)), (2, (300, 400))) == [(0, 100, 0), (100, 150, 1), (300, 400, 2)]
    assert ask((3, (0, 500))) == [(150, 300, 3), (400, 500, 3)]
    assert ask((4, (10, 20))) == []
    assert [part.start for part in unread.of(("00:01", 8), [Part(10, 20, 0, 0, 0)])] == [10]

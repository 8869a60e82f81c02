# SPDX-License-Identifier: GPL-2.0-only
"""Folders of CRIU."""

import os
import random
import struct
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from dump_checks import contents, outcome, scanned
from dump_writers import (
    ANON,
    FILE,
    PAGE,
    SHARED,
    VDSO,
    ZEROS,
    criu_image,
    criu_process,
    message,
    runs,
    some_memory,
    write_image,
)

from ksm.cli.group import main
from ksm.sources import Host, SourceError, open_file, open_sources
from ksm.sources.dumps.criu import LIMIT, TOP, open_criu

HEAP, STACK = 0x555555000000, 0x7FFC00000000


def one(content):
    return content.to_bytes(1, "little") * PAGE


def entries(memory, address=HEAP):
    """The runs of a process that has this memory from an address on."""
    return [(address + first * PAGE, len(data) // PAGE, data) for first, data in runs(memory)]


def whole(memory, address=HEAP):
    return [(address, address + (max(memory) + 1) * PAGE, ANON)]


def only(folder):
    (source,) = open_criu(str(folder))
    return source


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_counts_of_raw_images(tmp_path, old, seed):
    """A folder of three processes counts as three images."""
    folder = tmp_path / "dump"
    images = []
    for pid in (1, 20, 300):
        memory = some_memory(seed + pid, 300)
        criu_process(folder, pid, entries(memory), whole(memory), old=old)
        images.append(write_image(tmp_path / f"image{pid}", memory))
        sources = open_criu(str(folder))
        assert contents(sources[-1]) == {number + HEAP // PAGE: page for number, page in memory.items()}
    counts = scanned(*images)
    assert counts[0] == 3 * 300 + sum(path.stat().st_size // PAGE - 300 for path in images) - sum(
        path.stat().st_size // PAGE - len(contents(source)) for path, source in zip(images, sources, strict=True)
    )
    assert scanned(folder) == counts
    assert scanned(folder, exact=True) == counts
    assert scanned(folder, *images)[0] == 2 * counts[0]


def test_what_the_report_says(tmp_path):
    folder = tmp_path / "dump"
    criu_process(folder, 7, [(HEAP, 2, one(1) + one(2))], [(HEAP, HEAP + 2 * PAGE, ANON)])
    assert open_criu(str(folder))[0].notes[:1] == ["CRIU stores no pages of zeros that were only read"]
    criu_process(folder, 8, [(HEAP, 2, one(1) + one(3))], [(HEAP, HEAP + 2 * PAGE, ANON)])
    run = CliRunner().invoke(main, ["scan", str(folder)], env={"COLUMNS": "300"})
    assert run.exit_code == 0
    assert f"{folder}:7" in run.output and f"{folder}:8" in run.output
    text = run.output.replace("\n  ", " ")
    common = "and a page that processes share since a fork once for each of them: these count as duplicates here"
    assert common in text
    # A scan of their fingerprints counts them in the same way, and says so as well.
    pytest.importorskip("pyarrow")
    assert CliRunner().invoke(main, ["fingerprint", str(folder), "-o", str(tmp_path / "rows")]).exit_code == 0
    run = CliRunner().invoke(main, ["scan", str(tmp_path / "rows")], env={"COLUMNS": "300"})
    assert common in run.output.replace("\n  ", " ")


def test_a_tree_that_criu_has_dumped(tmp_path):
    """A sample: a pre-dump and a dump of two processes, the second one forked from the first, by CRIU 3.17 on Linux 6.1.

    Each had 40 pages of the contents 1 to 7 at 0x10000000, one of written zeros, and four that were only read; shared memory at
    0x20000000; and at 0x30000000 four pages of a file, of which it wrote the third. The child had written five pages. Each wrote pages 3
    and 4 between the pre-dump and the dump.
    """
    with tarfile.open(Path(__file__).with_name("samples") / "criu-3.17.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    sources = open_criu(str(tmp_path / "1"))
    assert [source.name for source in sources] == [f"{tmp_path}/1:97", f"{tmp_path}/1:99"]
    assert [source.name for source in open_criu(f"{tmp_path}/1/")] == [source.name for source in sources]
    written = [{3: 203, 4: 204}, {3: 103, 4: 104, **{number: 150 + number for number in range(10, 15)}}]
    for source, changes in zip(sources, written, strict=True):
        memory = contents(source)
        expected = {number: number % 7 + 1 for number in range(40)} | {40: 0} | changes
        assert {number - 0x10000: page for number, page in memory.items() if 0x10000 <= number < 0x10040} == {
            number: one(content) for number, content in expected.items()
        }
        assert {number: page for number, page in memory.items() if 0x20000 <= number < 0x30010} == {0x30002: one(90)}
        assert source.notes[:1] == ["left out 2 pages of mappings that KSM does not look at"]  # the vdso
        assert (len(memory), source.copied, source.holes) == (65, 65 * PAGE, 0)
    assert scanned(tmp_path / "1")[0] == 130
    before = open_criu(str(tmp_path / "0"))
    assert len(contents(before[0])) == 67  # with those of the vdso: a pre-dump does not say what is mapped where
    assert before[0].notes[:1] == ["mm-97.img is missing: pages that KSM would not merge may be among these"]


def test_only_private_mappings_count(tmp_path):
    kinds = [ANON, FILE, SHARED, VDSO, ANON | 1 << 13, 1 | 1 << 2, ANON | 1 << 10, ANON]
    pages = [(HEAP + number * 4 * PAGE, 2, one(number + 1) * 2) for number in range(len(kinds))]
    vmas = [(HEAP + number * 4 * PAGE, HEAP + (number * 4 + 3) * PAGE, kind) for number, kind in enumerate(kinds)]
    criu_process(tmp_path, 5, pages, vmas)
    source = only(tmp_path)
    assert {page[0] for page in contents(source).values()} == {1, 2, 8}
    assert source.notes[:1] == ["left out 10 pages of mappings that KSM does not look at"]
    assert source.copied == 6 * PAGE


def test_a_run_over_several_mappings(tmp_path):
    pages = b"".join(one(number + 1) for number in range(8))
    vmas = [(HEAP + start * PAGE, HEAP + end * PAGE, kind) for start, end, kind in
            [(0, 2, ANON), (2, 3, SHARED), (3, 5, ANON), (4, 6, FILE), (7, 9, ANON)]]
    criu_process(tmp_path, 5, [(HEAP, 8, pages)], vmas)
    assert [page[0] for page in contents(only(tmp_path)).values()] == [1, 2, 4, 5, 6, 8]


def test_huge_pages_of_hugetlbfs(tmp_path):
    criu_process(tmp_path, 5, [(HEAP, 1, one(1))], [])
    vma = message((1, HEAP), (2, HEAP + PAGE), (6, 0x40022), (7, ANON))
    (tmp_path / "mm-5.img").write_bytes(criu_image(0x57492820, message((14, vma))))
    source = only(tmp_path)
    assert (contents(source), source.copied) == ({}, 0)


def test_without_the_list_of_mappings(tmp_path):
    criu_process(tmp_path, 5, [(HEAP, 1, one(1))])
    source = only(tmp_path)
    assert contents(source) == {HEAP // PAGE: one(1)}
    assert source.notes[:1] == ["mm-5.img is missing: pages that KSM would not merge may be among these"]


def test_pages_in_the_folder_before(tmp_path):
    """criu pre-dump: three folders, each with the pages that were written since the one before."""
    memory = {number: one(number + 1) for number in range(20)}
    place = HEAP
    criu_process(tmp_path / "0", 5, entries(memory), whole(memory))
    second = [(place, 3, None), (place + 3 * PAGE, 2, one(101) * 2), (place + 5 * PAGE, 15, None)]
    criu_process(tmp_path / "1", 5, second, whole(memory), pages_id=9)
    third = [(place, 1, None), (place + PAGE, 1, one(201)), (place + 2 * PAGE, 3, None), (place + 8 * PAGE, 2, None),
             (place + 30 * PAGE, 1, one(202))]
    criu_process(tmp_path / "2", 5, third, [(place, place + 40 * PAGE, ANON)], pages_id=1)
    for number in (1, 2):
        (tmp_path / str(number) / "parent").symlink_to(f"../{number - 1}")
    expected = {0: 1, 1: 201, 2: 3, 3: 101, 4: 101, 8: 9, 9: 10, 30: 202}
    source = only(tmp_path / "2")
    assert contents(source) == {place // PAGE + number: one(content) for number, content in expected.items()}
    assert source.holes == 0
    # What the folder before does not have is not there
    criu_process(tmp_path / "1", 5, [(place + 3 * PAGE, 2, one(101) * 2)], whole(memory), pages_id=9)
    source = only(tmp_path / "2")
    assert source.holes == 4
    assert len(contents(source)) == 4
    (tmp_path / "2" / "parent").unlink()
    line = f"{tmp_path}/2: a part of a dump: the folder {tmp_path}/2/parent is missing, which has the other pages"
    assert outcome(tmp_path / "2") == line.removeprefix(f"{tmp_path}/2: ").join(["5: ", ""])


def test_a_folder_that_is_its_own_parent(tmp_path):
    criu_process(tmp_path, 5, [(HEAP, 1, None)], whole({0: one(1)}))
    (tmp_path / "parent").symlink_to(".")
    assert outcome(tmp_path) == "5: more than 64 folders, each the parent of the one before"


def test_a_stack_at_the_end_of_the_address_space(tmp_path):
    """Without randomised addresses, a stack ends where a StreamSource cannot map. Its pages are put lower, where nothing is."""
    low = TOP - (1 << 36)
    pages = [(0x400000, 1, one(1)), (low - 30 * PAGE, 40, b"".join(one(100 + number) for number in range(40))),
             (LIMIT - PAGE, 3, one(2) + one(3) + one(4)), (TOP - 2 * PAGE, 1, one(5))]
    criu_process(tmp_path, 5, pages, [(0, TOP, ANON)])
    memory = contents(only(tmp_path))
    assert sorted(page[0] for page in memory.values()) == sorted([1, 2, 3, 4, 5, *range(100, 140)])
    assert max(memory) < LIMIT // PAGE
    assert scanned(tmp_path)[0] == 45
    assert scanned(tmp_path, exact=True)[0] == 45
    criu_process(tmp_path, 5, [(0x10000, (LIMIT - 0x10000) // PAGE + 5, None)], [(0, TOP, ANON)])
    (tmp_path / "parent").mkdir()
    criu_process(tmp_path / "parent", 5, [], [])
    assert outcome(tmp_path).startswith("5: memory at 0x10000, which is higher than this can be read")


# What is wrong

def test_a_folder_without_processes(tmp_path):
    (tmp_path / "pagemap-shmem-5.img").write_bytes(b"")
    assert outcome(tmp_path) == "is a directory, and not one that CRIU has written"
    with pytest.raises(SourceError, match="No such file"):
        open_criu(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["pagemap-5.img", "mm-5.img", "inventory.img"])
def test_a_single_image(tmp_path, name):
    criu_process(tmp_path, 5, [(HEAP, 1, one(1))], whole({0: ZEROS}))
    assert outcome(tmp_path / name) == "not a memory image, but an image of CRIU: name the folder that it is in"


def test_pages_alone(tmp_path, monkeypatch):
    criu_process(tmp_path, 5, [(HEAP, 1, one(1))], whole({0: ZEROS}))
    reason = "not a memory image, but pages of CRIU without what says where they belong: name the folder that they are in"
    assert outcome(tmp_path / "pages-5.img") == reason
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match="name the folder"):
        open_file("pages-5.img")
    (tmp_path / "pagemap-5.img").unlink()
    assert outcome(tmp_path / "pages-5.img") == ""  # an image that is only called so


def broken(folder, name, data):
    criu_process(folder, 5, [(HEAP, 2, one(1) * 2)], whole({1: ZEROS}))
    (folder / name).write_bytes(data)
    return outcome(folder).replace(str(folder), "DIR")


def pagemap(*messages):
    return criu_image(0x56084025, message((1, 5)), *messages)


@pytest.mark.parametrize(("name", "data", "reason"), [
    ("pagemap-5.img", b"", "5: truncated: DIR/pagemap-5.img has 0 bytes"),
    ("pagemap-5.img", criu_image(7), "5: damaged: DIR/pagemap-5.img does not begin as it should"),
    ("pagemap-5.img", criu_image(0x56084025), "5: damaged: an image of CRIU without a number that it must have"),
    ("pagemap-5.img", pagemap()[:-1], "5: truncated: DIR/pagemap-5.img has 13 bytes"),
    ("pagemap-5.img", pagemap() + b"\xff\xff\xff\xff", "5: truncated: DIR/pagemap-5.img has 18 bytes"),
    ("pagemap-5.img", pagemap(message((2, 1))), "5: damaged: an image of CRIU without a number that it must have"),
    ("pagemap-5.img", pagemap(message((1, b"1"), (2, 1))), "5: damaged: an image of CRIU without a number that it must have"),
    ("pagemap-5.img", pagemap(message((1, HEAP), (2, 1), (6, 1))), "5: pages that CRIU has stored in a newer way, which is not read"),
    ("pagemap-5.img", pagemap(message((1, HEAP + 1), (2, 1))), "5: damaged: 1 page at 0x555555000001"),
    ("pagemap-5.img", pagemap(message((1, HEAP), (2, (1 << 64) - 1))), "5: damaged: 18,446,744,073,709,551,615 pages at 0x555555000000"),
    ("pagemap-5.img", pagemap(message((1, (1 << 64) - PAGE), (2, 1))), "5: damaged: 1 page at 0xfffffffffffff000"),
    ("pagemap-5.img", pagemap(message((1, HEAP), (2, 2)), message((1, HEAP), (2, 1))), "5: damaged: 1 page at 0x555555000000"),
    ("pagemap-5.img", pagemap(message((1, HEAP), (2, 3))), "5: truncated: DIR/pages-5.img has 8,192 bytes, and should have 12,288"),
    ("pagemap-5.img", pagemap(message((1, PAGE), (2, 1 << 34))),
     "5: truncated: DIR/pages-5.img has 8,192 bytes, and should have 70,368,744,177,664"),
    ("mm-5.img", criu_image(0x57492820, message((14, message((1, 1), (2, PAGE), (6, 1), (7, ANON))))),
     "5: damaged: a mapping from 0x1 to 0x1000"),
    ("pagemap-5.img", criu_image(0x56084025, message((1, 77)), message((1, HEAP), (2, 1))),
     "5: DIR/pages-77.img: No such file or directory"),
    ("pagemap-5.img", pagemap(b"\x0b"), "5: damaged: a field of kind 3 in an image of CRIU"),
    ("pagemap-5.img", pagemap(b"\x0a\x7f1"), "5: damaged: an image of CRIU with a field that is cut off"),
    ("pagemap-5.img", pagemap(b"\x09\0"), "5: damaged: an image of CRIU with a field that is cut off"),
    ("pagemap-5.img", pagemap(b"\x08" + b"\xff" * 12), "5: damaged: an image of CRIU with a number that is cut off"),
    ("pagemap-5.img", pagemap(b"\x08\xff"), "5: damaged: an image of CRIU with a number that is cut off"),
    ("pages-5.img", one(1), "5: truncated: DIR/pages-5.img has 4,096 bytes, and should have 8,192"),
    ("mm-5.img", criu_image(0x57492820, message((14, message((1, 0))))), "5: damaged: an image of CRIU without a number that it must have"),
    ("mm-5.img", criu_image(0x56084025), "5: damaged: DIR/mm-5.img does not begin as it should"),
])
def test_images_that_are_wrong(tmp_path, name, data, reason):
    assert broken(tmp_path, name, data) == reason


def test_an_image_that_is_too_large(tmp_path):
    criu_process(tmp_path, 5, [(HEAP, 2, one(1) * 2)])
    with (tmp_path / "pagemap-5.img").open("r+b") as file:
        file.truncate(1 << 40)
    assert outcome(tmp_path) == f"5: {tmp_path}/pagemap-5.img: larger than 64 MiB"


@pytest.mark.parametrize("name", ["pagemap-5.img", "pages-5.img", "mm-5.img"])
def test_what_is_no_file(tmp_path, name):
    """A FIFO in a folder is not waited for."""
    criu_process(tmp_path, 5, [(HEAP, 2, one(1) * 2)], whole({1: ZEROS}))
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    assert outcome(tmp_path)


def test_pages_that_are_cut_off_meanwhile(tmp_path):
    criu_process(tmp_path, 5, [(HEAP, 2, one(1) * 2)], whole({1: ZEROS}))
    source = only(tmp_path)
    (tmp_path / "pages-5.img").write_bytes(one(1))
    with pytest.raises(SourceError, match=r"pages-5.img: was truncated meanwhile"):
        contents(source)


@pytest.mark.parametrize("name", ["pagemap-5.img", "mm-5.img"])
def test_changed_and_cut_off(tmp_path, name):
    memory = some_memory(3, 100)
    criu_process(tmp_path, 5, entries(memory), [*whole(memory), (STACK, STACK + PAGE, ANON)])
    data = (tmp_path / name).read_bytes()
    draw = random.Random(name)
    for place in range(50):
        (tmp_path / name).write_bytes(data[: len(data) * place // 50])
        outcome(tmp_path)
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(draw.choice((1, 1, 4))):
            changed[draw.randrange(len(data))] = draw.randrange(256)
        (tmp_path / name).write_bytes(changed)
        outcome(tmp_path)


def test_many_processes_do_not_keep_files_open(tmp_path):
    for pid in range(1, 60):
        criu_process(tmp_path, pid, [(HEAP, 1, struct.pack("<I", pid) * 1024)], whole({0: ZEROS}))
    host = Host()
    before = len(os.listdir("/proc/self/fd"))
    sources, _ = open_sources([str(tmp_path)], host)
    assert len(sources) == 59
    assert all(len(contents(source)) == 1 for source in sources)
    assert len(os.listdir("/proc/self/fd")) == before
    for source in sources:
        source.close()
    host.close()

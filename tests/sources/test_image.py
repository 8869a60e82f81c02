# SPDX-License-Identifier: GPL-2.0-only
"""Raw images, and files that are not images."""

import ctypes
import mmap
import os
import struct

import pytest

import ksm
from ksm.sources import SourceError, open_file
from ksm.sources.formats import MAGIC, what_is
from ksm.testing.trees import branches

PAGE = 4096


def cached(file):
    """The share of a file that is in the page cache, from 0 to 1."""
    size = os.fstat(file.fileno()).st_size
    pages = size // PAGE
    there = ctypes.create_string_buffer(pages)
    with mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE) as mapping:  # writable, so that ctypes says where it is
        first = ctypes.c_char.from_buffer(mapping)
        assert ctypes.CDLL(None).mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), there) == 0
        del first
    return sum(byte & 1 for byte in there.raw) / pages


def content(source):
    """The pages of a source as the machine sees them; None for an absent page."""
    with ksm.Machine("1M", max_memory="1G") as machine:
        source.attach(machine)
        pages = []
        for addr, length in source.ranges():
            for place, word in enumerate(source.process.page_table(addr, length)):
                pages.append(source.process.read(addr + place * PAGE, PAGE) if word else None)
        source.close()
    return pages


def write_sparse(path, size, places):
    """Write a file of holes with a page at each of these places, which holds the number of its place."""
    with path.open("wb") as file:
        file.truncate(size)
        for place in places:
            file.seek(place * PAGE)
            file.write(bytes([place % 256]) * PAGE)


def test_an_image_becomes_memory(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(b"a" * PAGE + bytes(PAGE) + b"c" * PAGE)
    source = open_file(str(path))
    assert (source.kind, source.name, source.live, source.notes) == ("image", str(path), False, [])
    assert content(source) == [b"a" * PAGE, bytes(PAGE), b"c" * PAGE]


def test_a_hole_may_be_absent(tmp_path):
    path = tmp_path / "image"
    write_sparse(path, 64 << 20, (3, 5, 9000))
    if path.stat().st_blocks > 1000:
        pytest.skip("this file system has no holes")
    pages = content(open_file(str(path), "absent"))
    assert [page for page in pages if page is not None] == [bytes([3]) * PAGE, bytes([5]) * PAGE, bytes([9000 % 256]) * PAGE]
    assert len(pages) < 16      # the wide holes are not even mapped


def test_an_image_of_nothing_but_holes(tmp_path):
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(128 * PAGE)
    if path.stat().st_blocks:
        pytest.skip("this file system has no holes")
    assert content(open_file(str(path), "absent")) == []
    assert content(open_file(str(path))) == [bytes(PAGE)] * 128


def refusal(path):
    with pytest.raises(SourceError) as caught:
        open_file(str(path)).close()
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


def test_what_is_no_image(tmp_path):
    assert refusal(tmp_path / "missing") == "No such file or directory"
    assert refusal(tmp_path) == "is a directory"
    assert refusal("/dev/null") == "not a regular file"
    os.mkfifo(tmp_path / "fifo")
    assert refusal(tmp_path / "fifo") == "not a regular file"
    (tmp_path / "empty").touch()
    assert refusal(tmp_path / "empty") == "empty"
    (tmp_path / "short").write_bytes(b"a" * (PAGE + 1))
    assert "4097 bytes are not whole pages of 4096; or it is truncated" in refusal(tmp_path / "short")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(bytes(PAGE))
    path.chmod(0)
    assert refusal(path) == "Permission denied"


@pytest.mark.parametrize("offset, magic, what, remedy", MAGIC, ids=lambda value: value if isinstance(value, str) and value else "")
def test_other_formats_are_known(tmp_path, offset, magic, what, remedy):
    path = tmp_path / "file"
    path.write_bytes((bytes(offset) + magic).ljust(2 * PAGE, b"\0"))
    text = refusal(path)
    assert text.startswith(f"not a memory image, but {what}")
    assert text.endswith(remedy)


def test_memory_looks_like_nothing_else():
    assert what_is(bytes(PAGE)) is None
    assert what_is(b"") is None
    # A PC's memory begins with the interrupt table of real mode.
    assert what_is(b"\x53\xff\x00\xf0" * 1024) is None


@pytest.mark.skipif(not os.path.exists("/sys/kernel/mm/transparent_hugepage"), reason="a kernel without huge pages")
def test_an_image_is_read_in_huge_pages(tmp_path):
    """Pages that are not in the page cache yet come in large pieces. Mapping them one by one takes as long as reading them."""
    path = tmp_path / "image"
    path.write_bytes(b"a" * (4 << 20))
    with ksm.Machine("1M", max_memory="1G") as machine, open(path, "rb") as file:
        machine.spawn().mmap_image(file, still=True)
        with open("/proc/self/smaps") as smaps:
            lines = iter(smaps)
            assert any(line.endswith(f" {path}\n") for line in lines)
            flags = next(line.split()[1:] for line in lines if line.startswith("VmFlags:"))
    assert "hg" in flags


def test_a_scan_begins_without_reading_all_of_an_image(tmp_path):
    """Keys are learned from samples of pages. A page that is not in the page cache is not sampled."""
    path = tmp_path / "image"
    size = 64 << 20
    with open(path, "wb") as file:
        for number in range(size >> 20):
            file.write(b"".join(b"alike".ljust(PAGE - 8) + struct.pack(">Q", number << 20 | i) for i in range(256)))
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with ksm.Machine("1M", max_memory="1G") as machine, open(path, "rb") as file:
        if cached(file) > 0.5:
            pytest.skip("a file system that keeps everything in memory")
        process = machine.spawn()
        addr = process.mmap_image(file, still=True)
        process.madvise(addr, size, ksm.MADV_MERGEABLE)
        machine.ksm.scan(pages=64)
        assert cached(file) < 0.5
        machine.ksm.smart_scan = 0
        machine.ksm.scan(2)
        assert machine.ksm.pages_unshared == size // PAGE
        machine.ksm.scan(1)
        assert machine.plain or branches(machine)


def test_frames_are_aligned_like_the_file(tmp_path):
    """Frames are aligned like the file, so that there can be huge pages wherever in the file the memory begins."""
    path = tmp_path / "image"
    write_sparse(path, 30 << 20, (700, 701, 7000))
    if path.stat().st_blocks * 512 >= 30 << 20:
        pytest.skip("a file system without holes")
    source = open_file(str(path), "absent")
    with ksm.Machine("1M", max_memory="1G") as machine:
        source.attach(machine)
        with open("/proc/self/maps") as maps:
            ours = [line.split() for line in maps if line.endswith(f" {path}\n")]
        assert ours
        for addresses, _, offset, *_ in ours:
            assert (int(addresses.split("-")[0], 16) - int(offset, 16)) % (2 << 20) == 0
        seen = []
        for addr, length in source.ranges():
            for place, word in enumerate(source.process.page_table(addr, length)):
                if word:
                    seen.append(source.process.read(addr + place * PAGE, PAGE))
        assert seen == [bytes([place % 256]) * PAGE for place in (700, 701, 7000)]
        assert source.process.rss() == 3
        source.close()

# SPDX-License-Identifier: GPL-2.0-only
"""The places in a file that have pages."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksm.host.holes import data_extents
from ksm.sources.extents import WIDE_HOLE, Extent, groups, split

PAGE = 4096


def sparse(path, size, *data):
    """A file of holes with data at some offsets."""
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, content in data:
            file.seek(offset)
            file.write(content)
    return path


@pytest.fixture
def can_have_holes(tmp_path):
    if sparse(tmp_path / "probe", 1 << 20).stat().st_blocks:
        pytest.skip("this file system has no holes")


def extents_of(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return list(data_extents(fd, os.fstat(fd).st_size))
    finally:
        os.close(fd)


@pytest.mark.usefixtures("can_have_holes")
def test_data_extents(tmp_path):
    path = sparse(tmp_path / "image", 100 * PAGE, (10 * PAGE, b"a" * PAGE), (50 * PAGE, b"b" * 3 * PAGE))
    assert extents_of(path) == [(10 * PAGE, 11 * PAGE), (50 * PAGE, 53 * PAGE)]
    assert extents_of(sparse(tmp_path / "hole", 100 * PAGE)) == []
    assert extents_of(sparse(tmp_path / "full", PAGE, (0, bytes(PAGE)))) == [(0, PAGE)]


def test_data_extents_where_nobody_knows_of_holes():
    # This file cannot be asked for its holes.
    with open("/proc/self/status", "rb") as file:
        assert list(data_extents(file.fileno(), 8192)) == [(0, 8192)]


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), max_size=4),
    st.lists(st.tuples(st.integers(0, 400), st.integers(1, 60)), max_size=8),
    st.integers(0, 9),
)
def test_the_pages_that_have_data_and_the_holes(wanted, data, odd):
    # In units of a tenth of a page
    unit = 512
    extents = [Extent((odd + 8 * start) * unit, pages * PAGE, start * PAGE) for start, pages in wanted]
    parts, last = [], 0
    for start, length in sorted(data):
        if start > last:
            parts.append((start * unit, (start + length) * unit))
            last = start + length
    pages = [(extent.address + offset - extent.offset, offset) for extent in extents for offset in range(extent.offset, extent.end, PAGE)]
    has_data = [any(start < offset + PAGE and end > offset for start, end in parts) for _, offset in pages]
    for found, wanted in zip(split(extents, reversed(parts)), (True, False), strict=True):
        assert [
            (extent.address + at, extent.offset + at) for extent in found for at in range(0, extent.length, PAGE)
        ] == [page for page, there in zip(pages, has_data, strict=True) if there == wanted]
        assert all(extent.length > 0 and extent.length % PAGE == 0 for extent in found)


def test_wide_holes_split_mappings():
    extents = [Extent(page * PAGE + hole, PAGE, 0) for page, hole in ((0, 0), (2, 0), (3, WIDE_HOLE), (1, 0))]
    assert list(groups(extents)) == [extents[:2], extents[2:3], extents[3:]]
    assert list(groups([])) == []

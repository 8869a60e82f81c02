# SPDX-License-Identifier: GPL-2.0-only
"""ksm/fast/xxhash_many: every form gives the same checksums, bit for bit, as one page at a time."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksm.fast.xxhash_many import WAYS, hash_pages
from ksm.testing.lists import xxh64

PAGE = 4096
ways = pytest.mark.parametrize("way", [*WAYS, None])


@ways
@pytest.mark.parametrize("count", [*range(36), 63, 64, 65, 255, 256])
def test_any_number_of_pages(count, way):
    data = random.Random(count).randbytes(max(count, 1) * PAGE)
    offsets = range(0, count * PAGE, PAGE)
    assert hash_pages(data, offsets, way) == [xxh64(data[at : at + PAGE]) for at in offsets]


@ways
@pytest.mark.parametrize("fill", [0, 1, 0x7F, 0x80, 0xFF])
def test_pages_of_one_byte(fill, way):
    page = bytes([fill]) * PAGE
    assert hash_pages(page, [0] * 37, way) == [xxh64(page)] * 37


@ways
def test_every_bit_counts_in_its_own_page(way):
    """A bit of each 32-bit word in turn, in each of 16 places of a group."""
    rng = random.Random(7)
    for word in range(PAGE // 4):
        data = bytearray(16 * PAGE)
        page = word % 16
        data[page * PAGE + 4 * word + rng.randrange(4)] = 1 << rng.randrange(8)
        zero = xxh64(bytes(PAGE))
        expected = [zero] * 16
        expected[page] = xxh64(data[page * PAGE : (page + 1) * PAGE])
        assert expected[page] != zero
        assert hash_pages(data, range(0, 16 * PAGE, PAGE), way) == expected


@given(seed=st.integers(0, 2**32), offsets=st.lists(st.integers(0, 7 * PAGE), max_size=40), way=st.sampled_from(WAYS))
@settings(deadline=None)
def test_pages_at_any_address(seed, offsets, way):
    data = random.Random(seed).randbytes(8 * PAGE)
    assert hash_pages(data, offsets, way) == [xxh64(data[at : at + PAGE]) for at in offsets]


@ways
def test_is_the_packages(way):
    package = pytest.importorskip("xxhash")
    data = random.Random(1).randbytes(40 * PAGE)
    offsets = range(0, 40 * PAGE, PAGE)
    assert hash_pages(data, offsets, way) == [package.xxh64_intdigest(data[at : at + PAGE]) for at in offsets]


def test_a_page_outside_is_refused():
    for at in (-1, 1, PAGE):
        with pytest.raises(IndexError):
            hash_pages(bytes(PAGE), [at])

# SPDX-License-Identifier: GPL-2.0-only
"""Keys order pages as memcmp() does, whatever the book was made from. With a good book most pages have different keys."""

import random
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ksm
from ksm.bench.contents import WORKLOADS, fill
from ksm.fast.page_keys import keys

PAGE = ksm.PAGE_SIZE
HEAD = 256


def page_of(words):
    """A page with these words at their numbers, and zeros elsewhere."""
    page = bytearray(PAGE)
    for number, word in words.items():
        struct.pack_into(">Q", page, 8 * number, word)
    return bytes(page)


# Pages that are alike: few different words, in few places.
WORDS = st.sampled_from([0, 1, 2, 255, 256, 1 << 40, (1 << 40) + 1, 1 << 63, (1 << 64) - 2, (1 << 64) - 1]) | st.integers(0, (1 << 64) - 1)
PLACES = st.sampled_from([0, 0, 0, 1, 2, 31, 32, 61, 62, 63, 64, 65, 70, 126, 510, 511])
PAGES = st.builds(page_of, st.dictionaries(PLACES, WORDS, max_size=4))
SAMPLES = st.builds(lambda page, words: page[: 8 * words], PAGES, st.sampled_from([1, 2, 32, 32, 64, 511, 512, 512]))


def in_order(pages, found):
    assert all(0 < key < 1 << 46 for key in found)
    ordered = sorted(zip(pages, found, strict=True))
    assert all(before <= after for (_, before), (_, after) in pairwise(ordered)), "not as memcmp() orders them"


@given(st.lists(PAGES, min_size=2, max_size=12))
def test_without_a_book(pages):
    in_order(pages, keys(pages))


@given(st.lists(PAGES, min_size=2, max_size=12), st.lists(SAMPLES, max_size=12))
def test_any_book(pages, samples):
    in_order(pages, keys(pages, samples))
    in_order(pages, keys(pages, samples + pages[::2]))


@given(st.integers(0, 1 << 32), st.integers(2, 300))
def test_near_pages(seed, count):
    """Pages that differ in one bit from each other, or in one word from a common page."""
    rng = random.Random(seed)
    base = rng.randbytes(PAGE)
    pages = []
    for _ in range(count):
        page = bytearray(base)
        at = rng.choice([0, 8, 500, 512, 4088, rng.randrange(PAGE // 8) * 8])
        page[at : at + 8] = struct.pack(">Q", (struct.unpack_from(">Q", page, at)[0] + rng.randrange(-3, 4)) % (1 << 64))
        pages.append(bytes(page))
    in_order(pages, keys(pages, pages[:: rng.randrange(1, 5)]))


@pytest.mark.parametrize("above", [False, True])
def test_pages_that_leave_the_way(above):
    """All samples have a hundred words in common. A page may differ in any of them. Keys tell which of the first 63 differs first."""
    base = page_of({number: 1 << 63 for number in range(100)})
    rng = random.Random(1)
    pages, words = [], []
    for number in range(100):
        for word in sorted(rng.randrange(1 << 63) for _ in range(4)):
            page = bytearray(base)
            struct.pack_into(">Q", page, 8 * number, word | (above << 63))
            pages.append(bytes(page))
            words.append(number)
    found = keys(pages, [base, page_of({**{number: 1 << 63 for number in range(100)}, 100: 1})])
    in_order(pages, found)
    assert len(set(found[: 4 * 63])) == 4 * 63
    assert not set(found[: 4 * 63]) & set(found[4 * 63 :])


def workload(name, count):
    memory = bytearray(count * PAGE)
    fill(memory, name)
    return [bytes(memory[at : at + PAGE]) for at in range(0, len(memory), PAGE)]


@pytest.mark.parametrize("name", WORKLOADS)
def test_most_pages_have_a_key_of_their_own(name):
    pages = workload(name, 4096)
    heads = [page[:HEAD] for page in pages[::4]]
    whole = pages[::64]
    found = keys(pages, heads + whole)
    in_order(pages, found)
    apart = dict.fromkeys(pages)
    assert len(set(found)) >= 0.9 * len(apart)
    if name == "last bytes":
        assert len(set(keys(pages))) == 1  # without a book, nothing tells them apart


def test_no_two_samples_differ():
    pages = workload("unique", 64)
    assert keys(pages, [pages[0]] * 5) == keys(pages)
    assert keys(pages, [pages[0], pages[0][:HEAD]]) == keys(pages)


def test_what_is_no_page():
    with pytest.raises(ValueError):
        keys([b"short"])
    with pytest.raises(ValueError):
        keys([bytes(PAGE)], [b"1234567"])
    with pytest.raises(ValueError):
        keys([bytes(PAGE)], [b""])

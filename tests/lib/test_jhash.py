# SPDX-License-Identifier: GPL-2.0-only
"""include/linux/jhash.h: the checksums of KSM before xxhash, lookup3's own vectors, the kernel's own code."""

import struct
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksm.testing.lists import jhash, jhash2, jhash_size, jhash_words

U32 = st.integers(0, 2**32 - 1)
INITVAL = 0xDEADBEEF

little_endian = pytest.mark.skipif(sys.byteorder != "little", reason="jhash reads words in the machine's byte order")


@pytest.mark.parametrize(
    ("page", "checksum"),
    [
        (bytes(4096), 0x61574272),
        (b"\xff" * 4096, 0x8602B83E),
        pytest.param(b"\x01" + bytes(4095), 0x5D93FDB1, marks=little_endian),
        pytest.param(bytes(range(256)) * 16, 0xFF35631B, marks=little_endian),
    ],
    ids=["zeros", "all ones", "one", "counting"],
)
def test_pages(page, checksum):
    assert jhash2(page, 17) == checksum


@little_endian
@pytest.mark.parametrize(("initval", "digest"), [(0, 0x17770551), (1, 0xCD628161)])
def test_published(initval, digest):
    """hashlittle() of lookup3.c, from its driver5()."""
    assert jhash(b"Four score and seven years ago", initval) == digest


def test_no_bytes():
    # As in lookup3.c, there is no final mix without bytes.
    assert jhash(b"") == INITVAL
    assert jhash2(b"", 5) == INITVAL + 5


@given(words=st.lists(U32, min_size=1, max_size=3), initval=U32)
@settings(deadline=None)
def test_few_words_are_jhash2(words, initval):
    assert jhash_words(words, initval) == jhash2(struct.pack(f"{len(words)}I", *words), initval)


@little_endian
@given(words=st.lists(U32, max_size=40), initval=U32)
@settings(deadline=None)
def test_whole_words_are_jhash(words, initval):
    data = struct.pack(f"{len(words)}I", *words)
    assert jhash(data, initval) == jhash2(data, initval)


def test_alignment():
    data = bytes(range(64)) * 2
    for length in range(40):
        assert len({jhash(memoryview(bytes(shift) + data)[shift : shift + length], 3) for shift in range(8)}) == 1


def test_size_and_mask():
    assert jhash_size(10) == (1024, 1023)


@given(data=st.binary(max_size=100), words=st.lists(U32, min_size=1, max_size=60), initval=U32)
@settings(deadline=None)
def test_is_the_kernels(kernel, data, words, initval):
    assert jhash(data, initval) == kernel.driver_jhash(data, len(data), initval)
    packed = struct.pack(f"{len(words)}I", *words)
    assert jhash2(packed, initval) == kernel.driver_jhash2(packed, len(words), initval)
    few = words[:3]
    name = ["driver_jhash_1word", "driver_jhash_2words", "driver_jhash_3words"][len(few) - 1]
    assert jhash_words(few, initval) == getattr(kernel, name)(*few, initval)

# SPDX-License-Identifier: GPL-2.0-only
"""lib/xxhash.c: published vectors, the checksums of KSM's pages, the xxhash package, the kernel's own code."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksm.testing.lists import xxh64, xxhash

PRIME32 = 2654435761
PRIME64 = 11400714785074694797


def sanity_buffer(length):
    """The buffer of xxHash's own self-test."""
    state, data = PRIME32, bytearray()
    for _ in range(length):
        data.append(state >> 56)
        state = state * PRIME64 & 0xFFFFFFFFFFFFFFFF
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (b"", 0xEF46DB3751D8E999),
        (b"a", 0xD24EC4F1A98C6E5B),
        (b"abc", 0x44BC2CF5AD770999),
        (b"Nobody inspects the spammish repetition", 0xFBCEA83C8A378BF1),
    ],
)
def test_published(data, digest):
    assert xxh64(data) == digest


@pytest.mark.parametrize(
    ("length", "plain", "seeded"),
    [
        (0, 0xEF46DB3751D8E999, 0xAC75FDA2929B17EF),
        (1, 0xE934A84ADB052768, 0x5014607643A9B4C3),
        (4, 0x9136A0DCA57457EE, 0xCAAB286BD8E9FDB5),
        (14, 0x8282DCC4994E35C8, 0xC3BD6BF63DEB6DF0),
        (222, 0xB641AE8CB691C174, 0x20CB8AB7AE10C14A),
    ],
)
def test_self_test_of_xxhash(length, plain, seeded):
    assert xxh64(sanity_buffer(length)) == plain
    assert xxh64(sanity_buffer(length), PRIME32) == seeded


@pytest.mark.parametrize(
    ("page", "checksum"),
    [
        (bytes(4096), 0x32D8BBDB),
        (b"\x01" + bytes(4095), 0xA2484610),
        (b"\xff" * 4096, 0x4282321F),
        (bytes(range(256)) * 16, 0x186AF6A4),
    ],
    ids=["zeros", "one", "all ones", "counting"],
)
def test_pages(page, checksum):
    assert xxh64(page) & 0xFFFFFFFF == checksum
    assert xxhash(page) == xxh64(page)


def test_counting_page_in_full():
    assert xxhash(bytes(range(256)) * 16) == 0x0F6E64BE186AF6A4


def test_every_short_length_at_every_alignment_is_the_packages():
    package = pytest.importorskip("xxhash")
    data = memoryview(sanity_buffer(160))
    for length in range(150):
        for offset in range(9):
            piece = data[offset : offset + length]
            assert xxh64(piece, length) == package.xxh64_intdigest(piece, length)


@given(data=st.binary(max_size=400), seed=st.integers(0, 2**64 - 1))
@settings(deadline=None)
def test_is_the_kernels(kernel, data, seed):
    assert xxh64(data, seed) == kernel.xxh64(data, len(data), seed)

# SPDX-License-Identifier: GPL-2.0-only
"""include/linux/hash.h and hashtable.h."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ksm.testing.lists import HashTable, hash32_ptr, hash_32, hash_64, hash_ptr

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)


@given(val=U32, bits=st.integers(1, 32))
def test_hash_32(val, bits):
    assert hash_32(val, bits) == (val * 0x61C88647 & 0xFFFFFFFF) >> (32 - bits)


@given(val=U64, bits=st.integers(1, 32))
def test_hash_64(val, bits):
    assert hash_64(val, bits) == hash_ptr(val, bits) == (val * 0x61C8864680B583EB & 0xFFFFFFFFFFFFFFFF) >> (64 - bits)


@given(val=U64)
def test_hash32_ptr(val):
    assert hash32_ptr(val) == (val ^ val >> 32) & 0xFFFFFFFF


@given(val=U64, bits=st.integers(1, 32))
@settings(deadline=None)
def test_is_the_kernels(kernel, val, bits):
    assert hash_64(val, bits) == kernel.driver_hash_64(val, bits)
    assert hash_32(val & 0xFFFFFFFF, bits) == kernel.driver_hash_32(val & 0xFFFFFFFF, bits)
    assert hash_ptr(val, bits) == kernel.driver_hash_ptr(val, bits)
    assert hash32_ptr(val) == kernel.driver_hash32_ptr(val)


@given(keys=st.lists(U64, max_size=50), bits=st.integers(1, 6), data=st.data())
@settings(deadline=None)
def test_hashtable(keys, bits, data):
    table = HashTable(bits, len(keys))
    assert table.hash_empty()
    for item, key in enumerate(keys):
        assert not table.hash_hashed(item)
        table.hash_add(item, key)
        assert table.hash_hashed(item)
        assert table.bucket(key)[0] == item
    assert table.hash_empty() == (not keys)
    left = set(range(len(keys)))
    for item in data.draw(st.permutations(range(len(keys)))):
        table.hash_del(item)
        assert not table.hash_hashed(item)
        left.remove(item)
        same_bucket = [other for other in left if hash_64(keys[other], bits) == hash_64(keys[item], bits)]
        assert table.bucket(keys[item]) == sorted(same_bucket, reverse=True)
    assert table.hash_empty()

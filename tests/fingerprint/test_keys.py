# SPDX-License-Identifier: GPL-2.0-only
"""Keyed fingerprints are those of BLAKE3, and a key is 32 bytes or 64 hex digits."""

import os
import random
import subprocess
from pathlib import Path

import pytest
from lives import Life

import ksm
from ksm.fingerprint import frames_of, key_name
from ksm.fingerprint.key import read_key
from ksm.host.files import FileError

pytestmark = pytest.mark.once

PAGE, FRAME = ksm.PAGE_SIZE, 32
ROOT = Path(__file__).resolve().parents[2]
KEY = bytes(range(32))
# Of the test vectors of BLAKE3: the key, 4096 bytes of input, and the beginning of the keyed hash; and that of a page of zeros
VECTOR_KEY, VECTOR_PAGE = b"whats the Elvish word for friend", bytes(i % 251 for i in range(PAGE))
ZEROS = "c28f5e90f57c7752e69e9d3f5f78fb8efa7ab988"
VECTOR = "befc660aea2f1718884cd8deb9902811d332f4fc"


def xor(one, other):
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def test_the_vector_of_blake3():
    """A frame has the hash without that of a page of zeros."""
    assert xor(frames_of(VECTOR_PAGE, key=VECTOR_KEY)[:20], bytes.fromhex(ZEROS)).hex() == VECTOR


def test_frames_are_those_of_the_package():
    blake3 = pytest.importorskip("blake3").blake3
    assert blake3(bytes(PAGE), key=VECTOR_KEY).digest(20).hex() == ZEROS
    rng = random.Random(1)
    for _ in range(50):
        page, key = rng.randbytes(PAGE), rng.randbytes(32)
        wanted = xor(blake3(page, key=key).digest(20), blake3(bytes(PAGE), key=key).digest(20))
        assert frames_of(page, key=key) == wanted + bytes(12)
        assert key_name(key) == blake3(key, derive_key_context="ksm 2026-11-29 the name of a key of fingerprints").hexdigest(4)


def pages_of(frames):
    return [frames[i:i + FRAME] for i in range(0, len(frames), FRAME)]


@pytest.mark.parametrize("nr", [1, 2, 7, 15, 16, 17, 63, 64, 65, 200])
def test_any_number_of_pages_at_once(nr):
    data = random.Random(nr).randbytes(nr * PAGE)
    frames = frames_of(data, key=KEY)
    assert frames == b"".join(frames_of(data[i:i + PAGE], key=KEY) for i in range(0, len(data), PAGE))
    assert len(set(pages_of(frames))) == nr
    assert all(each[20:] == bytes(12) for each in pages_of(frames))
    assert frames_of(bytes(nr * PAGE), key=KEY) == bytes(nr * FRAME)


PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include "page_hash.h"

extern int g_cpu_features;

int main(void)
{
	static char data[16][4096];
	static const int levels[] = { 0, 1, 7, 31, 127 };	/* portable, SSE2, SSE4.1, AVX2, AVX-512 */
	const char *pages[16];
	unsigned char key[32], hashes[16][32], wanted[32];
	uint32_t words[8];
	int all, level, nr, i;

	for (i = 0; i < 16 * 4096; i++)
		data[i / 4096][i % 4096] = (char)(rand() >> 3);
	for (i = 0; i < 32; i++)
		key[i] = (unsigned char)rand();
	for (i = 0; i < 16; i++)
		pages[i] = data[i];
	key_words(key, words);
	blake3_simd_degree();
	all = g_cpu_features;
	for (level = 0; level < 5; level++) {
		g_cpu_features = all & levels[level];
		for (nr = 1; nr <= 16; nr++) {
			page_hashes_keyed(words, pages, nr, hashes[0]);
			for (i = 0; i < nr; i++) {
				blake3_hasher hasher;

				blake3_hasher_init_keyed(&hasher, key);
				blake3_hasher_update(&hasher, pages[i], 4096);
				blake3_hasher_finalize(&hasher, wanted, 32);
				if (memcmp(wanted, hashes[i], 32))
					return printf("level %d, page %d of %d\n", level, i, nr), 1;
			}
		}
		printf("%zu ", blake3_simd_degree());
	}
	return 0;
}
"""


@pytest.mark.skipif(os.uname().machine != "x86_64" or not (ROOT / "third_party").is_dir(), reason="for the sources, on x86-64")
def test_every_width_of_registers_gives_the_same(tmp_path):
    flags = {"sse2": ["-msse2"], "sse41": ["-msse4.1"], "avx2": ["-mavx2"], "avx512": ["-mavx512f", "-mavx512vl"]}
    (tmp_path / "program.c").write_text(PROGRAM)
    includes = [f"-I{ROOT / folder}" for folder in ("ksm/fingerprint", "third_party/xxhash", "third_party/blake3")]
    sources = [(tmp_path / "program.c", []), (ROOT / "third_party/xxhash/xxh_x86dispatch.c", []),
               *((ROOT / f"third_party/blake3/blake3{name}.c", []) for name in ("", "_dispatch", "_portable")),
               *((ROOT / f"third_party/blake3/blake3_{name}.c", more) for name, more in flags.items())]
    objects = []
    for source, more in sources:
        objects.append(tmp_path / (source.stem + ".o"))
        subprocess.run(["gcc", "-O1", "-w", "-DBLAKE3_TESTING", *includes, *more, "-c", source, "-o", objects[-1]], check=True)
    subprocess.run(["gcc", *objects, "-o", tmp_path / "program"], check=True)
    run = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert run.stdout.startswith("1 4 4 ")


def test_another_key_gives_other_frames():
    page = b"A" * PAGE
    frames = [frames_of(page), frames_of(page, key=KEY), frames_of(page, key=bytes(32))]
    assert len({each[:16] for each in frames}) == len({each[16:20] for each in frames}) == 3
    # The checksum is one of the key's, in every era.
    assert frames_of(page, key=KEY, jhash=True) == frames_of(page, key=KEY)


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33), bytes(64)])
def test_a_key_of_another_length(key):
    for call in (lambda: key_name(key), lambda: frames_of(bytes(PAGE), key=key),
                 lambda: ksm.Machine("4M", pages="fingerprints", key=key)):
        with pytest.raises(ValueError, match=f"a key has 32 bytes, not {len(key)}"):
            call()


@pytest.mark.parametrize("key", [5, "A" * 32])
def test_a_key_that_is_none(key):
    for call in (lambda: key_name(key), lambda: frames_of(bytes(PAGE), key=key),
                 lambda: ksm.Machine("4M", pages="fingerprints", key=key)):
        with pytest.raises(TypeError):
            call()


def test_a_key_is_for_fingerprints():
    with pytest.raises(ValueError, match="only fingerprints have a key"):
        ksm.Machine("4M", key=KEY)


def test_a_machine_with_a_key():
    with ksm.Machine("4M", pages="fingerprints", key=bytearray(KEY)) as machine, ksm.Machine("4M", pages="fingerprints") as other:
        assert (machine.key_name, other.key_name) == (key_name(KEY), None)
        process = machine.spawn()
        contents = [b"A" * PAGE, bytes(PAGE), b"A" * PAGE, b"B" * PAGE]
        addr = process.mmap(4 * PAGE)
        assert process.update(addr, b"".join(contents)) == 4
        assert process.load(addr, frames_of(b"".join(contents), key=KEY)) == 0
        assert process.load(addr, frames_of(b"".join(contents))) == 3
        assert process.update(addr, b"".join(contents)) == 3
        process.madvise(addr, 4 * PAGE, ksm.MADV_MERGEABLE)
        machine.ksm.use_zero_pages = 1
        machine.ksm.scan(3)
        assert (machine.ksm.pages_shared, machine.ksm.pages_sharing, machine.ksm.ksm_zero_pages) == (1, 1, 1)
        assert machine.check() == []


@pytest.mark.parametrize("era", ["6.12", "6.1", "2.6.38"])
def test_a_key_changes_no_counter(era):
    for seed in range(5):
        one, other = (Life("fingerprints", "loose", seed, era, key=key).live(8) for key in (None, KEY))
        for life in (one, other):
            life.scan(3)
        changing = {"savings", "sharing", "stable_node_chains", "stable_node_dups", "slabinfo"}
        assert {name for name in one.seen[-1] if one.seen[-1][name] != other.seen[-1][name]} <= changing
        one.finish()
        other.finish()


def test_the_name_of_a_key():
    assert key_name(VECTOR_KEY) == "a1a18ff4"
    assert key_name(KEY) != key_name(bytes(32))


@pytest.mark.parametrize("data", [KEY, KEY.hex().encode(), KEY.hex().upper().encode() + b"\n", b" " + KEY.hex().encode() + b"\r\n"])
def test_files_of_keys(tmp_path, data):
    path = tmp_path / "key"
    path.write_bytes(data)
    assert read_key(str(path)) == KEY


@pytest.mark.parametrize("data, words", [
    (b"", "0 bytes are no key: it has 32 bytes, or 64 hex digits"),
    (KEY + b"\n", "33 bytes are no key"),
    (bytes(64), "64 bytes are no key"),
    (b"0" * 32, "32 hex digits are no key: it has 64"),     # half a key is not taken for bytes
    (b"0" * 63 + b"\n", "63 hex digits are no key: it has 64"),
    (b"0" * 63 + b"g", "64 bytes are no key"),
    (bytes(5000), "larger than"),
])
def test_files_that_are_no_keys(tmp_path, data, words):
    path = tmp_path / "key"
    path.write_bytes(data)
    with pytest.raises(FileError) as caught:
        read_key(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileError, match="No such file"):
        read_key(str(tmp_path / "key"))
    with pytest.raises(FileError, match="is a directory"):
        read_key(str(tmp_path))

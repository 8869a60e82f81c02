/* SPDX-License-Identifier: GPL-2.0-only */
/* No twin in the kernel: hashes of pages, by the libraries in third_party: XXH3 of xxHash, and keyed BLAKE3. */
#ifndef KSM_PAGE_HASH_H
#define KSM_PAGE_HASH_H

#include <stdint.h>
#include <string.h>

#define XXH_INLINE_ALL
#include "xxhash.h"

#if defined(__x86_64__) && defined(__GNUC__)
/* The best of SSE2, AVX2 and AVX-512 that the processor has, chosen when it runs. */
#include "xxh_x86dispatch.h"
#undef XXH3_128bits
#define ksm_xxh3_128 XXH3_128bits_dispatch
#else
#define ksm_xxh3_128 XXH3_128bits
#endif

#include "blake3_impl.h"

enum {
	PAGE_CHUNKS = 4096 / BLAKE3_CHUNK_LEN,	/* BLAKE3 hashes a page as a tree with four leaves */
	CHUNK_BLOCKS = BLAKE3_CHUNK_LEN / BLAKE3_BLOCK_LEN,
	KEYED_AT_ONCE = 16,			/* as many as AVX-512 hashes at once */
};

static inline void store_be64(unsigned char *to, uint64_t value)
{
	for (int i = 7; i >= 0; i--, value >>= 8)
		to[i] = (unsigned char)value;
}

/* XXH3 of one page, in the order in which it is printed. */
static inline void page_hash_128(const void *page, unsigned char hash[16])
{
	XXH128_hash_t found = ksm_xxh3_128(page, 4096);

	store_be64(hash, found.high64);
	store_be64(hash + 8, found.low64);
}

/* BLAKE3 of KEYED_AT_ONCE pages at most, 32 bytes each. blake3_hasher_update() would hash the four leaves of one page side by side. Here
   the same leaf of all pages is hashed side by side, which fills the widest registers. */
static inline void page_hashes_keyed(const uint32_t key[8], const char *const *pages, int nr, unsigned char *hashes)
{
	const uint8_t *inputs[2 * KEYED_AT_ONCE];
	uint8_t leaves[KEYED_AT_ONCE][BLAKE3_OUT_LEN];
	uint8_t parents[KEYED_AT_ONCE][PAGE_CHUNKS][BLAKE3_OUT_LEN];
	uint8_t roots[2 * KEYED_AT_ONCE][BLAKE3_OUT_LEN];
	int i, leaf;

	for (leaf = 0; leaf < PAGE_CHUNKS; leaf++) {
		for (i = 0; i < nr; i++)
			inputs[i] = (const uint8_t *)pages[i] + leaf * BLAKE3_CHUNK_LEN;
		blake3_hash_many(inputs, (size_t)nr, CHUNK_BLOCKS, key, (uint64_t)leaf, false, KEYED_HASH, CHUNK_START, CHUNK_END, leaves[0]);
		for (i = 0; i < nr; i++)
			memcpy(parents[i][leaf], leaves[i], BLAKE3_OUT_LEN);
	}
	for (i = 0; i < 2 * nr; i++)
		inputs[i] = parents[i / 2][i % 2 * 2];
	blake3_hash_many(inputs, (size_t)(2 * nr), 1, key, 0, false, KEYED_HASH | PARENT, 0, 0, roots[0]);
	for (i = 0; i < nr; i++)
		inputs[i] = roots[2 * i];
	blake3_hash_many(inputs, (size_t)nr, 1, key, 0, false, KEYED_HASH | PARENT | ROOT, 0, 0, hashes);
}

/* The key as numbers, and the first bytes of its name: BLAKE3 derives it, so that it tells nothing of the key. */
static inline void key_words(const unsigned char key[32], uint32_t words[8])
{
	load_key_words(key, words);
}

static inline void key_digest(const char *context, const unsigned char key[32], unsigned char *digest, size_t length)
{
	blake3_hasher hasher;

	blake3_hasher_init_derive_key(&hasher, context);
	blake3_hasher_update(&hasher, key, 32);
	blake3_hasher_finalize(&hasher, digest, length);
}

#endif

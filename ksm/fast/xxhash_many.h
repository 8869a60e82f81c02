/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * No twin in the kernel: the checksums of many pages at once, bit for bit those of lib/xxhash.c of Linux 6.12.
 *
 * xxh64 keeps four sums of 64 bits, and each takes every fourth word. A page's four sums fill half of a register of AVX-512, or one of
 * AVX2, and the words come as they lie in memory. One page alone is a chain of multiplications that wait for each other; several pages
 * side by side fill those waits.
 *
 * While a group of pages is hashed, the next one is fetched, line by line: the processor's own prefetch ends at a page's end. It goes into
 * the second-level cache: two groups are as much as the first level holds, and there they push each other out.
 *
 * Which form runs is decided at run time, so that one build serves every x86-64; elsewhere there is the plain form.
 */
#ifndef KSM_LIB_XXHASH_MANY_H
#define KSM_LIB_XXHASH_MANY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define MANY_X86 1
#include <immintrin.h>
#else
#define MANY_X86 0
#endif

/* How to hash: the best there is, or one form, for tests and benchmarks. */
enum many_way { MANY_BEST = -1, MANY_PLAIN = 0, MANY_AVX2 = 1, MANY_AVX512 = 2 };

#define MANY_PAGE 4096
#define MANY_LINE 64

#define MANY_P1 0x9E3779B185EBCA87ULL
#define MANY_P2 0xC2B2AE3D27D4EB4FULL
#define MANY_P3 0x165667B19E3779F9ULL
#define MANY_P4 0x85EBCA77C2B2AE63ULL

#define MANY_INLINE static inline __attribute__((always_inline))

MANY_INLINE uint64_t many_rotl(uint64_t x, int bits)
{
	return x << bits | x >> (64 - bits);
}

/* Little-endian, whatever the machine is. */
MANY_INLINE uint64_t many_word(const char *from)
{
	uint64_t word;

	memcpy(&word, from, sizeof(word));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	word = __builtin_bswap64(word);
#endif
	return word;
}

MANY_INLINE uint64_t many_round(uint64_t sum, uint64_t word)
{
	return many_rotl(sum + word * MANY_P2, 31) * MANY_P1;
}

/* From the four sums of a page to its checksum; a page has no odd bytes at its end. */
MANY_INLINE uint64_t many_finish(const uint64_t sum[4])
{
	uint64_t hash = many_rotl(sum[0], 1) + many_rotl(sum[1], 7) + many_rotl(sum[2], 12) + many_rotl(sum[3], 18);

	for (int i = 0; i < 4; i++)
		hash = (hash ^ many_round(0, sum[i])) * MANY_P1 + MANY_P4;
	hash += MANY_PAGE;
	hash = (hash ^ hash >> 33) * MANY_P2;
	hash = (hash ^ hash >> 29) * MANY_P3;
	return hash ^ hash >> 32;
}

/* One page; next may be NULL. */
static uint64_t many_xxh64_plain(const char *page, const char *next)
{
	uint64_t sum[4] = { MANY_P1 + MANY_P2, MANY_P2, 0, 0 - MANY_P1 };

	for (int at = 0; at < MANY_PAGE; at += MANY_LINE) {
		if (next)
			__builtin_prefetch(next + at, 0, 2);
		for (int half = at; half < at + MANY_LINE; half += 32)
			for (int i = 0; i < 4; i++)
				sum[i] = many_round(sum[i], many_word(page + half + 8 * i));
	}
	return many_finish(sum);
}

#if MANY_X86

#define MANY_TARGET_AVX2 __attribute__((target("avx2")))
#define MANY_TARGET_AVX512 __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl")))

/* `registers` times two pages. A constant, so that the loops over it unroll and the sums stay in registers. */
MANY_TARGET_AVX512 MANY_INLINE
void many_xxh64_avx512(const char *const *page, const char *const *next, uint64_t *out, const int registers)
{
	const __m512i p1 = _mm512_set1_epi64((long long)MANY_P1), p2 = _mm512_set1_epi64((long long)MANY_P2);
	const __m512i start = _mm512_broadcast_i64x4(_mm256_set_epi64x((long long)(0 - MANY_P1), 0, (long long)MANY_P2,
								     (long long)(MANY_P1 + MANY_P2)));
	__m512i sum[4];
	uint64_t sums[8];

	for (int i = 0; i < registers; i++)
		sum[i] = start;
	for (int at = 0; at < MANY_PAGE; at += MANY_LINE) {
		if (next)
			for (int i = 0; i < 2 * registers; i++)
				_mm_prefetch(next[i] + at, _MM_HINT_T1);
		for (int half = at; half < at + MANY_LINE; half += 32)
			for (int i = 0; i < registers; i++) {
				__m256i low = _mm256_loadu_si256((const __m256i *)(page[2 * i] + half));
				__m256i high = _mm256_loadu_si256((const __m256i *)(page[2 * i + 1] + half));
				__m512i words = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);

				sum[i] = _mm512_add_epi64(sum[i], _mm512_mullo_epi64(words, p2));
				sum[i] = _mm512_mullo_epi64(_mm512_rol_epi64(sum[i], 31), p1);
			}
	}
	for (int i = 0; i < registers; i++) {
		_mm512_storeu_si512(sums, sum[i]);
		out[2 * i] = many_finish(sums);
		out[2 * i + 1] = many_finish(sums + 4);
	}
}

MANY_TARGET_AVX512
static void many_xxh64_all_avx512(const char *const *pages, uint64_t *out, int count)
{
	int i = 0;

	for (; i + 16 <= count; i += 8)
		many_xxh64_avx512(pages + i, pages + i + 8, out + i, 4);
	for (; i + 8 <= count; i += 8)
		many_xxh64_avx512(pages + i, NULL, out + i, 4);
	if (i + 4 <= count) {
		many_xxh64_avx512(pages + i, NULL, out + i, 2);
		i += 4;
	}
	if (i + 2 <= count) {
		many_xxh64_avx512(pages + i, NULL, out + i, 1);
		i += 2;
	}
	if (i < count)
		out[i] = many_xxh64_plain(pages[i], NULL);
}

/* Four products of 64 bits out of those of 32, which is what AVX2 has: low * low, and the two crossed ones above it. */
MANY_TARGET_AVX2 MANY_INLINE __m256i many_mul_avx2(__m256i a, __m256i factor, __m256i factor_high)
{
	__m256i crossed = _mm256_add_epi64(_mm256_mul_epu32(_mm256_srli_epi64(a, 32), factor), _mm256_mul_epu32(a, factor_high));

	return _mm256_add_epi64(_mm256_mul_epu32(a, factor), _mm256_slli_epi64(crossed, 32));
}

MANY_TARGET_AVX2 MANY_INLINE
void many_xxh64_avx2(const char *const *page, const char *const *next, uint64_t *out, const int registers)
{
	const __m256i p1 = _mm256_set1_epi64x((long long)MANY_P1), p1_high = _mm256_srli_epi64(p1, 32);
	const __m256i p2 = _mm256_set1_epi64x((long long)MANY_P2), p2_high = _mm256_srli_epi64(p2, 32);
	const __m256i start = _mm256_set_epi64x((long long)(0 - MANY_P1), 0, (long long)MANY_P2, (long long)(MANY_P1 + MANY_P2));
	__m256i sum[4];
	uint64_t sums[4];

	for (int i = 0; i < registers; i++)
		sum[i] = start;
	for (int at = 0; at < MANY_PAGE; at += MANY_LINE) {
		if (next)
			for (int i = 0; i < registers; i++)
				_mm_prefetch(next[i] + at, _MM_HINT_T1);
		for (int half = at; half < at + MANY_LINE; half += 32)
			for (int i = 0; i < registers; i++) {
				__m256i words = _mm256_loadu_si256((const __m256i *)(page[i] + half));

				sum[i] = _mm256_add_epi64(sum[i], many_mul_avx2(words, p2, p2_high));
				sum[i] = _mm256_or_si256(_mm256_slli_epi64(sum[i], 31), _mm256_srli_epi64(sum[i], 33));
				sum[i] = many_mul_avx2(sum[i], p1, p1_high);
			}
	}
	for (int i = 0; i < registers; i++) {
		_mm256_storeu_si256((__m256i *)sums, sum[i]);
		out[i] = many_finish(sums);
	}
}

MANY_TARGET_AVX2
static void many_xxh64_all_avx2(const char *const *pages, uint64_t *out, int count)
{
	int i = 0;

	for (; i + 8 <= count; i += 4)
		many_xxh64_avx2(pages + i, pages + i + 4, out + i, 4);
	for (; i + 4 <= count; i += 4)
		many_xxh64_avx2(pages + i, NULL, out + i, 4);
	for (; i < count; i++)
		out[i] = many_xxh64_plain(pages[i], i + 1 < count ? pages[i + 1] : NULL);
}

#endif /* MANY_X86 */

/* The best form that this processor and its system have. */
static int many_best(void)
{
#if MANY_X86
	__builtin_cpu_init();
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
	    __builtin_cpu_supports("avx512vl"))
		return MANY_AVX512;
	if (__builtin_cpu_supports("avx2"))
		return MANY_AVX2;
#endif
	return MANY_PLAIN;
}

static void many_xxh64(const void *const *pages, uint64_t *out, int count, int way)
{
	const char *const *page = (const char *const *)pages;

	if (way == MANY_BEST)
		way = many_best();
#if MANY_X86
	if (way == MANY_AVX512) {
		many_xxh64_all_avx512(page, out, count);
		return;
	}
	if (way == MANY_AVX2) {
		many_xxh64_all_avx2(page, out, count);
		return;
	}
#endif
	for (int i = 0; i < count; i++)
		out[i] = many_xxh64_plain(page[i], i + 1 < count ? page[i + 1] : NULL);
}

#endif

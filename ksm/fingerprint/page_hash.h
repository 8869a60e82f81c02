/* SPDX-License-Identifier: GPL-2.0-only */
/* No twin in the kernel: XXH3 of one page, by the xxHash library in third_party/xxhash. */
#ifndef KSM_PAGE_HASH_H
#define KSM_PAGE_HASH_H

#include <stdint.h>

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

static inline void page_hash_128(const void *page, uint64_t *high, uint64_t *low)
{
	XXH128_hash_t hash = ksm_xxh3_128(page, 4096);

	*high = hash.high64;
	*low = hash.low64;
}

static inline void store_be64(unsigned char *to, uint64_t value)
{
	for (int i = 7; i >= 0; i--, value >>= 8)
		to[i] = (unsigned char)value;
}

#endif

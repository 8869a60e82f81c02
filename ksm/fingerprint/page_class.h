/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * No twin in the kernel: what kind of contents a page has. docs/fingerprint-files.md has each formula, and how well it tells pages apart.
 *
 * A quarter of the page is looked at: of each four lines of 64 bytes, one, and each time the next one, so that structures of 256 bytes
 * are seen at all of their offsets.
 */
#ifndef KSM_PAGE_CLASS_H
#define KSM_PAGE_CLASS_H

#include <stdint.h>
#include <string.h>

enum page_class {
	PAGE_CLASS_ZERO,
	PAGE_CLASS_BYTE,
	PAGE_CLASS_WORD,
	PAGE_CLASS_TEXT,
	PAGE_CLASS_POINTERS,
	PAGE_CLASS_CODE,
	PAGE_CLASS_OTHER,
};

enum {
	CLASS_LINES = 16,		/* of 64 bytes, of the 64 that a page has */
	CLASS_LEAST_TEXT = 768,		/* of 1024 bytes */
	CLASS_LEAST_POINTERS = 32,	/* of 128 words of 64 bits */
	CLASS_LEAST_X86 = 8,		/* of 512 halves of 16 bits */
	CLASS_LEAST_ARM64 = 32,		/* of 256 words of 32 bits */
};

struct page_counts {
	unsigned text, x86, arm64, pointers;
};

#define LINES class_lines_plain
#define WIDTH 16
#define TARGET
#include "page_lines.h"
#undef LINES
#undef WIDTH
#undef TARGET

#if defined(__x86_64__) && defined(__GNUC__)
#define LINES class_lines_avx2
#define WIDTH 32
#define TARGET __attribute__((target("avx2")))
#include "page_lines.h"
#undef LINES
#undef WIDTH
#undef TARGET
#endif

/* The forms that this processor can run: 1, or 2 with AVX2. */
static inline int class_forms(void)
{
#if defined(__x86_64__) && defined(__GNUC__)
	return __builtin_cpu_supports("avx2") ? 2 : 1;
#else
	return 1;
#endif
}

static inline enum page_class page_class(const char *page, int form)
{
	struct page_counts counts;
	uint64_t word;

	memcpy(&word, page, sizeof(word));
	/* Nearly all pages differ within the first line already. */
	if (memcmp(page, page + 8, 56) == 0 && memcmp(page, page + 8, 4096 - 8) == 0)
		return word == 0 ? PAGE_CLASS_ZERO : word == (word & 0xff) * 0x0101010101010101 ? PAGE_CLASS_BYTE : PAGE_CLASS_WORD;
#if defined(__x86_64__) && defined(__GNUC__)
	if (form > 1)
		class_lines_avx2(page, &counts);
	else
#endif
		class_lines_plain(page, &counts);
	if (counts.text >= CLASS_LEAST_TEXT)
		return PAGE_CLASS_TEXT;
	if (counts.pointers >= CLASS_LEAST_POINTERS)
		return PAGE_CLASS_POINTERS;
	if (counts.x86 >= CLASS_LEAST_X86 || counts.arm64 >= CLASS_LEAST_ARM64)
		return PAGE_CLASS_CODE;
	return PAGE_CLASS_OTHER;
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * No twin in the kernel: the counts that tell classes of pages apart, for one width of vectors. page_class.h includes this file once for
 * each, with LINES (the function's name), WIDTH (bytes of a vector) and TARGET (what the processor must have).
 *
 * GCC's and Clang's vectors: a comparison gives -1 in each lane where it holds. So a sum is subtracted from.
 */

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define BYTES JOIN(LINES, _bytes)
#define HALVES JOIN(LINES, _halves)
#define WORDS JOIN(LINES, _words)
#define LONGS JOIN(LINES, _longs)

typedef int8_t BYTES __attribute__((vector_size(WIDTH)));
typedef uint16_t HALVES __attribute__((vector_size(WIDTH)));
typedef uint32_t WORDS __attribute__((vector_size(WIDTH)));
typedef int64_t LONGS __attribute__((vector_size(WIDTH)));

TARGET static void LINES(const char *page, struct page_counts *counts)
{
	BYTES text = {0};
	HALVES x86 = {0};
	WORDS arm64 = {0};
	LONGS pointers = {0};

	for (int k = 0; k < CLASS_LINES; k++) {
		for (int part = 0; part < 64; part += WIDTH) {
			BYTES bytes;
			HALVES halves;
			WORDS words;
			LONGS longs, folded;

			memcpy(&bytes, page + 64 * (4 * k + k % 4) + part, WIDTH);
			halves = (HALVES)bytes;
			words = (WORDS)bytes;
			longs = (LONGS)bytes;

			text -= (BYTES)(bytes >= 0x20) | ((BYTES)(bytes >= 9) & (BYTES)(bytes <= 13));
			x86 -= (HALVES)((halves & 0xf1f8) == 0x8148);
			arm64 -= (WORDS)((words & 0x97000000) == 0x91000000) | (WORDS)((words & 0xff000000) == 0xaa000000);
			folded = longs ^ (LONGS)(longs < 0);
			pointers -= (LONGS)(folded >= (int64_t)1 << 32) & (LONGS)(folded < (int64_t)1 << 48) & (LONGS)((longs & 7) == 0);
		}
	}
	memset(counts, 0, sizeof(*counts));
	for (int i = 0; i < WIDTH; i++)
		counts->text += (uint8_t)text[i];
	for (int i = 0; i < WIDTH / 2; i++)
		counts->x86 += x86[i];
	for (int i = 0; i < WIDTH / 4; i++)
		counts->arm64 += arm64[i];
	for (int i = 0; i < WIDTH / 8; i++)
		counts->pointers += (unsigned)pointers[i];
}

#undef JOIN_
#undef JOIN
#undef BYTES
#undef HALVES
#undef WORDS
#undef LONGS

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * memory KIND [PAGES [SECONDS]]: a process with 2048 pages of a kind, or PAGES. Each content is there twice, and in no other process. It prints
 * "ready" and waits until its input ends; a kind that writes goes on writing, each page once in SECONDS.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define SIZE (pages * PAGE)
#define HUGE (2UL << 20)

static unsigned long pages = 2048;
static uint64_t seed;

static void must(int right, const char *what)
{
	if (!right) {
		perror(what);
		exit(3);
	}
}

static int is(const char *kind, const char *name)
{
	return !strcmp(kind, name);
}

static void fill_page(char *page, uint64_t number)
{
	uint64_t value = (seed + number + 1) * 0x9e3779b97f4a7c15ULL;

	for (unsigned long word = 0; word < PAGE / 8; word++) {
		value ^= value << 13;
		value ^= value >> 7;
		value ^= value << 17;
		((uint64_t *)page)[word] = value;
	}
}

static void fill(char *area)
{
	for (unsigned long page = 0; page < pages; page++)
		fill_page(area + page * PAGE, page % (pages / 2));
}

static void clear(char *area)
{
	for (unsigned long page = 0; page < pages; page++)
		*(volatile char *)(area + page * PAGE) = 0;
}

static char *area_of(int prot, int flags, int fd)
{
	char *area = mmap(NULL, SIZE, prot, flags, fd, 0);

	must(area != MAP_FAILED, "mmap");
	return area;
}

/* Private and anonymous, at the start of a huge page */
static char *anonymous(int advice)
{
	char *area = mmap(NULL, SIZE + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(area != MAP_FAILED, "mmap");
	area = (char *)(((uintptr_t)area + HUGE - 1) & ~(HUGE - 1));
	must(!madvise(area, SIZE, advice), "madvise");
	return area;
}

static char *filled(int advice)
{
	char *area = anonymous(advice);

	fill(area);
	return area;
}

static int file(void)
{
	char name[] = "/var/tmp/ksm-memory-XXXXXX";
	int fd = mkstemp(name);
	char *area;

	must(fd >= 0 && !unlink(name) && !ftruncate(fd, SIZE), name);
	area = area_of(PROT_READ | PROT_WRITE, MAP_SHARED, fd);
	fill(area);
	munmap(area, SIZE);
	return fd;
}

static int memory_file(void)
{
	int fd = memfd_create("memory", 0);

	must(fd >= 0 && !ftruncate(fd, SIZE), "memfd");
	return fd;
}

/* The buffers of an io_uring, as of a database or of QEMU */
static void pin(char *area)
{
	struct io_uring_params params = { 0 };
	struct iovec whole = { area, SIZE };
	int ring = syscall(SYS_io_uring_setup, 4, &params);

	must(ring >= 0, "io_uring_setup");
	must(!syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &whole, 1), "io_uring_register");
}

/* In pipes, which have references to the pages, but do not pin them */
static void splice_all(char *area)
{
	for (unsigned long at = 0; at < SIZE; at += 256 * PAGE) {
		struct iovec part = { area + at, 256 * PAGE };
		int ends[2];

		must(!pipe(ends) && fcntl(ends[1], F_SETPIPE_SZ, 256 * PAGE) >= 0, "pipe");
		must(vmsplice(ends[1], &part, 1, 0) == (long)(256 * PAGE), "vmsplice");
	}
}

static char *make(const char *kind)
{
	char *area;

	if (is(kind, "plain") || is(kind, "touching") || is(kind, "rolling"))
		return filled(MADV_NOHUGEPAGE);
	if (is(kind, "huge"))
		return filled(MADV_HUGEPAGE);
	if (is(kind, "zeros") || is(kind, "huge-zeros") || is(kind, "huge-locked-zeros") || is(kind, "huge-touched")) {
		area = anonymous(is(kind, "zeros") ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
		clear(area);
		if (is(kind, "huge-locked-zeros"))
			must(!mlock(area, SIZE), "mlock");
		if (is(kind, "huge-touched"))
			for (unsigned long at = 0; at < SIZE; at += HUGE)
				area[at] = 1;
		return area;
	}
	if (is(kind, "private-file")) {
		area = area_of(PROT_READ | PROT_WRITE, MAP_PRIVATE, file());
		for (unsigned long at = 0; at < SIZE; at += PAGE)
			*(volatile char *)(area + at) = area[at];
		return area;
	}
	if (is(kind, "private-file-read")) {
		area = area_of(PROT_READ, MAP_PRIVATE, file());
		for (unsigned long at = 0; at < SIZE; at += PAGE)
			(void)*(volatile char *)(area + at);
		return area;
	}
	if (is(kind, "memfd"))
		area = area_of(PROT_READ | PROT_WRITE, MAP_PRIVATE, memory_file());
	else if (is(kind, "memfd-shared"))
		area = area_of(PROT_READ | PROT_WRITE, MAP_SHARED, memory_file());
	else if (is(kind, "shared"))
		area = area_of(PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
	else if (is(kind, "hugetlb"))
		area = area_of(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1);
	else
		area = anonymous(MADV_NOHUGEPAGE);
	if (is(kind, "never-written")) {
		for (unsigned long at = 0; at < SIZE; at += PAGE)
			(void)*(volatile char *)(area + at);
		return area;
	}
	fill(area);
	if (is(kind, "locked"))
		must(!mlock(area, SIZE), "mlock");
	else if (is(kind, "no-access"))
		must(!mprotect(area, SIZE, PROT_NONE), "mprotect");
	else if (is(kind, "read-only"))
		must(!mprotect(area, SIZE, PROT_READ), "mprotect");
	else if (is(kind, "unmergeable"))
		must(!madvise(area, SIZE, MADV_UNMERGEABLE), "MADV_UNMERGEABLE");
	else if (is(kind, "free"))
		must(!madvise(area, SIZE, MADV_FREE), "MADV_FREE");
	else if (is(kind, "swapped"))
		must(!madvise(area, SIZE, MADV_PAGEOUT), "MADV_PAGEOUT");
	else if (is(kind, "pinned"))
		pin(area);
	else if (is(kind, "in-pipes"))
		splice_all(area);
	return area;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec * 1e-9;
}

/* Write the pages one after the other, both of a content at nearly the same time */
static void write_page(char *area, const char *kind, uint64_t number)
{
	uint64_t page = number % (pages / 2);

	for (int copy = 0; copy < 2; copy++) {
		char *at = area + (page + copy * (pages / 2)) * PAGE;

		if (is(kind, "rolling"))
			fill_page(at, number + pages);
		else
			*(volatile char *)at = *at;
	}
}

int main(int count, char **words)
{
	const char *kind = count > 1 ? words[1] : "plain";
	double seconds = count > 3 ? atof(words[3]) : 0, start;
	struct pollfd input = { .fd = 0, .events = POLLIN };
	char *area;

	if (count > 2)
		pages = strtoul(words[2], NULL, 10);
	for (const char *letter = kind; *letter; letter++)
		seed = seed * 31 + *letter;
	seed <<= 32;
	area = make(kind);
	puts("ready");
	fflush(stdout);
	start = now();
	for (uint64_t written = 0; poll(&input, 1, seconds ? 10 : -1) == 0;)
		for (uint64_t due = (now() - start) / seconds * (pages / 2); written < due; written++)
			write_page(area, kind, written);
	return 0;
}

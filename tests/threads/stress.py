# SPDX-License-Identifier: GPL-2.0-only
"""Application threads write, read, fork, map, move, discard and unmerge while ksmd merges. Every byte has to be what was written last.

    python stress.py [SECONDS [SEED]]
"""

import sys
import time

from applications import Application, run

import ksm
from ksm.testing.trees import look_from  # type: ignore[import-not-found]  # only tests use it: it has no stub

PAGES = 64
LENGTH = PAGES * ksm.PAGE_SIZE


class Forked(Application):
    """A thread with a process of its own, whose pages have one of four contents, zeros among them."""

    def __init__(self, parent: ksm.Process, seed: int, until: float) -> None:
        super().__init__(parent.fork(), seed, until)
        self.places = [(seed + 1 << 36) + i * 2 * LENGTH for i in range(8)]
        self.base = self.process.mmap(LENGTH, flags=ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED, addr=self.places[0])
        self.process.madvise(self.base, LENGTH, ksm.MADV_MERGEABLE)
        self.contents = [0] * PAGES

    def expect(self, process: ksm.Process, page: int) -> None:
        data = process.read(self.base + page * ksm.PAGE_SIZE, ksm.PAGE_SIZE)
        if data != bytes([self.contents[page]]) * ksm.PAGE_SIZE:
            self.errors.append(f"{process.name}: page {page} is not {self.contents[page]}")

    def step(self) -> None:
        chance, page = self.random.random(), self.random.randrange(PAGES)
        self.contents[page] = self.random.randrange(4)
        self.process.write(self.base + page * ksm.PAGE_SIZE, bytes([self.contents[page]]) * ksm.PAGE_SIZE)
        page = self.random.randrange(PAGES)
        self.expect(self.process, page)
        if chance < 0.02:
            child = self.process.fork()
            self.expect(child, page)
            child.exit()
        elif chance < 0.04:
            self.process.madvise(self.base + page * ksm.PAGE_SIZE, ksm.PAGE_SIZE, ksm.MADV_DONTNEED)
            self.contents[page] = 0
        elif chance < 0.05:
            self.process.madvise(self.base, LENGTH, ksm.MADV_UNMERGEABLE)
            self.process.madvise(self.base, LENGTH, ksm.MADV_MERGEABLE)
        elif chance < 0.06:
            self.process.munmap(self.process.mmap(LENGTH), LENGTH)
        elif chance < 0.07:
            place = self.random.choice([place for place in self.places if place != self.base])
            self.base = self.process.mremap(self.base, LENGTH, LENGTH, new_addr=place)
        elif chance < 0.08:
            self.process.mprotect(self.base, LENGTH, ksm.PROT_READ)
            self.expect(self.process, page)
            self.process.mprotect(self.base, LENGTH, ksm.PROT_READ | ksm.PROT_WRITE)


def stress(seconds: float, seed: int = 0) -> tuple[list[str], int, int]:
    """What went wrong, how many steps the threads made, and how many passes ksmd made."""
    with ksm.Machine(memory="64M", max_memory="64M", threads=2) as machine:
        look_from(machine, 8, 50)  # ksmd itself looks at 100 pages at once
        parent = machine.spawn()
        addr = parent.mmap(600 * ksm.PAGE_SIZE)
        parent.write(addr, b"\x22" * 600 * ksm.PAGE_SIZE)
        parent.madvise(addr, 600 * ksm.PAGE_SIZE, ksm.MADV_MERGEABLE)
        machine.ksm.sleep_millisecs = 0
        machine.ksm.use_zero_pages = 1
        machine.ksm.run = 1
        errors, steps = run([Forked(parent, 3 * seed + i, time.monotonic() + seconds) for i in range(3)])
        passes = machine.ksm.full_scans
        machine.ksm.run = 0
        errors += machine.check()
        machine.ksm.run = 2
        if machine.ksm.pages_sharing or machine.ksm.pages_shared:
            errors.append("run=2 left merged pages")
        return errors, steps, passes


if __name__ == "__main__":
    arguments = [float(argument) for argument in sys.argv[1:]]
    errors, steps, passes = stress(arguments[0] if arguments else 10, int(arguments[1]) if len(arguments) > 1 else 0)
    print(*errors, f"{steps} steps, {passes} passes", sep="\n")
    sys.exit(bool(errors))

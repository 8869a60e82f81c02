# SPDX-License-Identifier: GPL-2.0-only
"""Application threads store fingerprints, fork, discard, swap and exit while ksmd merges. Every frame has to be what was stored last.

    python stress_fingerprints.py [SECONDS [SEED]]
"""

import sys
import time

from applications import Application, run

import ksm
from ksm.fingerprint import frames_of

PAGES = 600
LENGTH = PAGES * ksm.PAGE_SIZE
CONTENTS = [frames_of(bytes([number]) * ksm.PAGE_SIZE) for number in range(20)]


class Storing(Application):
    """A thread with a process of its own, whose pages have one of a few contents, zeros among them."""

    def __init__(self, machine: ksm.Machine, seed: int, until: float) -> None:
        super().__init__(machine.spawn(), seed, until)
        self.base = self.process.mmap(LENGTH)
        self.process.madvise(self.base, LENGTH, ksm.MADV_MERGEABLE)
        self.contents = [0] * PAGES

    def check_all(self) -> None:
        self.process.madvise(self.base, LENGTH, ksm.MADV_UNMERGEABLE)
        self.process.touch(self.base, LENGTH)       # load() counts pages that are not there, too
        if differing := self.process.load(self.base, b"".join(CONTENTS[number] for number in self.contents)):
            self.errors.append(f"{differing} pages are not what was stored last")

    def step(self) -> None:
        first = self.random.randrange(PAGES)
        last = min(PAGES, first + self.random.randrange(1, 60))
        addr, length = self.base + first * ksm.PAGE_SIZE, (last - first) * ksm.PAGE_SIZE
        chance = self.random.random()
        if chance < 0.8:
            self.contents[first:last] = self.random.choices(range(len(CONTENTS)), k=last - first)
            self.process.load(addr, b"".join(CONTENTS[number] for number in self.contents[first:last]))
        elif chance < 0.9:
            self.process.madvise(addr, length, ksm.MADV_DONTNEED)
            self.contents[first:last] = [0] * (last - first)
        elif chance < 0.95:
            self.process.swap_out(addr, length)
        else:
            child = self.process.fork()
            child.load(addr, CONTENTS[1] * (last - first))
            child.exit()


def stress(seconds: float, seed: int = 1) -> tuple[list[str], int, int]:
    """What went wrong, how many steps the threads made, and how many passes ksmd made."""
    with ksm.Machine("64M", max_memory="64M", swap="4M", pages="fingerprints") as machine:
        machine.ksm.smart_scan = 0
        machine.ksm.use_zero_pages = 1
        until = time.monotonic() + seconds
        errors, steps = run([Storing(machine, 100 * seed + i, until) for i in range(3)], machine)
        errors += machine.check()
        passes = machine.ksm.full_scans
        machine.ksm.scan(2)
        machine.swapoff()
        machine.lru_add_drain_all()
        if machine.free_pages() != machine.total_pages() - 1:
            errors.append(f"{machine.total_pages() - 1 - machine.free_pages()} frames are left")
        errors += machine.check()
        return errors, steps, passes


if __name__ == "__main__":
    arguments = [float(argument) for argument in sys.argv[1:]]
    errors, steps, passes = stress(arguments[0] if arguments else 10, int(arguments[1]) if len(arguments) > 1 else 1)
    print(*errors, f"{steps} steps, {passes} passes", sep="\n")
    sys.exit(bool(errors))

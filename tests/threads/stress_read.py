# SPDX-License-Identifier: GPL-2.0-only
"""Application threads write while ksmd has several threads read what it comes to. Every byte has to be what was written last.

    python stress_read.py [SECONDS [SEED]]
"""

import sys
import time

from applications import Application, run

import ksm

PAGES = 2048
LENGTH = PAGES * ksm.PAGE_SIZE


class Writing(Application):
    """A thread with a process of its own, which writes at random, and at times gets other memory."""

    def __init__(self, machine: ksm.Machine, seed: int, until: float) -> None:
        super().__init__(machine.spawn(), seed, until)
        self.base = self.process.mmap(LENGTH)
        self.process.madvise(self.base, LENGTH, ksm.MADV_MERGEABLE)
        self.held = bytearray(LENGTH)
        self.fill()

    def fill(self) -> None:
        """Every page changes: ksmd knows nothing of it any more."""
        for page in range(PAGES):
            self.write(page * ksm.PAGE_SIZE, self.random.randrange(1000).to_bytes(8, "big") * 4)

    def write(self, at: int, data: bytes) -> None:
        self.held[at:at + len(data)] = data
        self.process.write(self.base + at, data)

    def leave(self) -> None:
        """The process stays, and is scanned on."""
        if self.process.read(self.base, LENGTH) != self.held:
            self.errors.append(f"{self.process.name}: not what was written last")

    def step(self) -> None:
        for _ in range(100):
            self.write(self.random.randrange(LENGTH - 8), self.random.randrange(1000).to_bytes(8, "big"))
        if self.random.random() < 0.02:
            self.fill()


def stress(seconds: float, seed: int = 1) -> tuple[list[str], int, int]:
    """Errors, steps and passes."""
    until = time.monotonic() + seconds
    with ksm.Machine("64M", max_memory="64M", threads=3) as machine:
        machine.ksm.smart_scan = 0
        errors, steps = run([Writing(machine, 100 * seed + i, until) for i in range(2)], machine)
        errors += machine.check()
        machine.ksm.scan(3)
        if machine.ksm.pages_volatile:
            errors.append(f"{machine.ksm.pages_volatile} pages are volatile, and nobody writes")
        errors += machine.check()
        return errors, steps, machine.ksm.full_scans


def main() -> int:
    errors, steps, passes = stress(float(sys.argv[1]) if len(sys.argv) > 1 else 10, int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    print(f"{steps} steps, {passes} passes", *errors, sep="\n")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: GPL-2.0-only
"""machine.check() runs again and again while other threads take structures away: swap areas of other sizes come and go, processes exit
and exec, images come, frames go offline. check() waits for these threads, and finds nothing wrong.

    python stress_check.py [SECONDS [SEED]]
"""

import errno
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable

import ksm
import ksm.check  # now: ThreadSanitizer takes the loading of a module beside other threads for a race

PAGE = ksm.PAGE_SIZE
PAGES = 64
SWAP: list[int | str] = [PAGE, 8 * PAGE, "1M", "4M"]
EXPECTED = {errno.EAGAIN, errno.EBUSY, errno.ESRCH, errno.EINVAL, errno.ENOMEM}


class Stress:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.machine = machine = ksm.Machine("32M", max_memory="64M", swap="2M", nodes=2)
        machine.ksm.sleep_millisecs = 0
        machine.ksm.smart_scan = 0
        machine.ksm.use_zero_pages = 1
        machine.ksm.run = 1
        self.image = tempfile.TemporaryFile()  # noqa: SIM115
        self.image.write(b"".join(bytes([i % 7]) * PAGE for i in range(2 * PAGES)))
        self.image.flush()
        self.stop = threading.Event()
        self.errors: list[BaseException] = []
        self.findings: list[str] = []
        self.checks = 0

    def fill(self, process: ksm.Process, rng: random.Random) -> int:
        addr = process.mmap(PAGES * PAGE)
        process.madvise(addr, PAGES * PAGE, ksm.MADV_MERGEABLE)
        for page in range(PAGES):
            process.write(addr + page * PAGE, bytes([rng.randrange(4)]) * PAGE)
        return addr

    def user(self, rng: random.Random) -> None:
        """Processes that live for a moment."""
        process = self.machine.spawn()
        addr = self.fill(process, rng)
        child = process.fork()
        child.write(addr, b"child")
        process.swap_out(addr, rng.randrange(PAGES) * PAGE)
        if rng.random() < 0.3:
            child.exec()
        process.munmap(addr + 8 * PAGE, 8 * PAGE)
        process.exit()
        if rng.random() < 0.3:
            child.mmap_image(self.image, rng.randrange(PAGES) * PAGE, PAGES * PAGE)
        child.exit()

    def swap(self, rng: random.Random) -> None:
        self.machine.swapoff()
        self.machine.swapon(rng.choice(SWAP))

    def offline(self, rng: random.Random) -> None:
        block = rng.randrange(1, 15) * 512
        self.machine.offline(block, 512)
        self.machine.online(block, 512)

    def settings(self, rng: random.Random) -> None:
        files = self.machine.ksm
        files.run = rng.choice([0, 1, 2])
        files.scan(pages=rng.randrange(200))
        files.run = 1

    def check(self, rng: random.Random) -> None:
        self.findings += self.machine.check()
        self.checks += 1

    def thread(self, function: Callable[[random.Random], None], number: int) -> None:
        rng = random.Random(number)
        try:
            while not self.stop.is_set():
                try:
                    function(rng)
                except OSError as error:
                    assert error.errno in EXPECTED, error
        except BaseException as error:  # the thread's starter reports it
            self.errors.append(error)

    def run(self, seconds: float) -> list[BaseException | str]:
        functions = [self.user, self.user, self.swap, self.offline, self.settings, self.check, self.check]
        threads = [threading.Thread(target=self.thread, args=(function, 100 * self.seed + i)) for i, function in enumerate(functions)]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        self.stop.set()
        for thread in threads:
            thread.join()
        self.machine.close()
        # A fault of the kernel's own: see damage() of tests/mm/pages.py
        findings = [line for line in self.findings if "names anon_vma" not in line]
        return [*self.errors, *findings]


def stress(seconds: float, seed: int = 0) -> tuple[list[BaseException | str], int]:
    """What went wrong, and how often the machine was checked."""
    life = Stress(seed)
    return life.run(seconds), life.checks


if __name__ == "__main__":
    arguments = [float(argument) for argument in sys.argv[1:]]
    errors, checks = stress(arguments[0] if arguments else 10, int(arguments[1]) if len(arguments) > 1 else 0)
    print(*errors[:20], f"{len(errors)} errors, {checks} checks", sep="\n")
    sys.exit(bool(errors))

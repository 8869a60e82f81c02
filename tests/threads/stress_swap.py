# SPDX-License-Identifier: GPL-2.0-only
"""Threads write, read and fork while others swap their memory out, move it, take frames offline, and ksmd merges: no byte and no frame is
lost, and no thread waits for ever. Half of the time the memory comes in huge pages, which are split by all of that.

    python stress_swap.py [SECONDS [SEED]]
"""

import errno
import random
import sys
import threading
import time
from collections.abc import Callable

import ksm

PAGE = ksm.PAGE_SIZE
PAGES = 64
HUGE = 512 * PAGE
BASE = 0x10000000
EXPECTED = {errno.EAGAIN, errno.EBUSY, errno.ESRCH, errno.EINVAL, errno.ENOMEM}


def fill(number: int) -> bytes:
    return bytes([number]) * PAGE


class Stress:
    def __init__(self, across: int, seed: int = 0) -> None:
        self.across, self.seed = across, seed
        self.machine = machine = ksm.Machine("64M", nodes=2, swap="4M", transparent_hugepage="always" if across else "never")
        machine.ksm.smart_scan = 0
        machine.ksm.merge_across_nodes = across
        machine.ksm.sleep_millisecs = 0
        machine.ksm.run = 1
        self.stop = threading.Event()
        self.processes: list[ksm.Process] = []
        self.errors: list[BaseException] = []

    def user(self, number: int) -> None:
        """A process that knows what it should read; now and then it forks a child for a moment."""
        rng = random.Random(number)
        process = self.machine.spawn(node=number % 2)
        self.processes.append(process)
        known: list[bytes] = []
        while not self.stop.is_set():
            page, action = rng.randrange(PAGES), rng.random()
            if not known or action > 0.99:
                process.mmap(HUGE, addr=BASE, flags=ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED)
                process.madvise(BASE, HUGE, ksm.MADV_MERGEABLE)
                known = [fill(0)] * PAGES
            place = BASE + page * PAGE
            if action < 0.4:
                known[page] = fill(rng.randrange(1, 5))
                if action < 0.05:
                    process.update(place, known[page])
                else:
                    process.write(place, known[page], force=action < 0.15)
            elif action < 0.8:
                assert process.read(place, PAGE) == known[page]
            elif action < 0.85:
                child = process.fork()
                self.processes.append(child)
                child.write(place, b"child")
                assert child.read(place, PAGE) == b"child" + known[page][5:]
                other = rng.randrange(PAGES)
                assert other == page or child.read(BASE + other * PAGE, PAGE) == known[other]
                self.processes.remove(child)
                child.exit()
            elif action < 0.9:
                process.swap_out(place, 8 * PAGE)
            elif action < 0.92:
                process.madvise(place, PAGE, ksm.MADV_DONTNEED)
                known[page] = fill(0)
            elif action < 0.94:
                process.madvise(BASE, HUGE, ksm.MADV_UNMERGEABLE)
                process.madvise(BASE, HUGE, ksm.MADV_MERGEABLE)
            elif action < 0.97:
                process.move_pages(place, PAGE, rng.randrange(2))
        assert process.read(BASE, PAGES * PAGE) == b"".join(known)

    def trouble(self, number: int) -> None:
        rng = random.Random(number)
        machine = self.machine
        while not self.stop.is_set():
            action = rng.random()
            try:
                if action < 0.5:
                    words = rng.choice(list(self.processes)).page_table(BASE, PAGES * PAGE)
                    machine.migrate(rng.choice([word >> 8 for word in words if word & ksm.PAGE_PRESENT]), node=rng.choice([0, 1, None]))
                elif action < 0.7:
                    rng.choice(list(self.processes)).swap_out(BASE, PAGES * PAGE)
                elif action < 0.75:
                    machine.swapoff()
                    machine.swapon("4M")
                elif action < 0.8:
                    block = rng.randrange(1, 16) * 512
                    machine.offline(block, 512)
                    machine.online(block, 512)
                elif action < 0.82:
                    machine.ksm.run = 2
                    machine.ksm.run = 1
                elif action < 0.9:
                    process = rng.choice(list(self.processes))
                    assert sum(line.size for line in process.smaps()) == sum(line.end - line.start for line in process.maps())
                    process.ksm_stat()
            except IndexError:
                pass
            except OSError as error:
                assert error.errno in EXPECTED

    def caught(self, function: Callable[[int], None], number: int) -> None:
        try:
            function(number)
        except BaseException as error:
            self.errors.append(error)

    def run(self, seconds: float) -> None:
        threads = [threading.Thread(target=self.caught, args=(self.user, 100 * self.seed + number)) for number in range(4)]
        threads += [threading.Thread(target=self.caught, args=(self.trouble, 100 * self.seed + number)) for number in (98, 99)]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        self.stop.set()
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def finish(self) -> list[str]:
        """What is wrong when all is quiet, and when all processes have exited."""
        machine = self.machine
        machine.ksm.run = 0
        # Without two faults of the kernel's own: see damage() of tests/mm/pages.py
        errors = [line for line in machine.check() if "names anon_vma" not in line and (self.across or "no rmap_item" not in line)]
        events = machine.vmstat()
        wanted = ["pswpin", "pswpout", "pgmigrate_success", *(["thp_split_page", "thp_split_pmd"] if self.across else [])]
        errors += [f"no {name}" for name in wanted if not events[name]]
        for process in list(machine.processes.values()):
            process.exit()
        machine.ksm.scan(passes=2)
        machine.lru_add_drain_all()
        if machine.swap_pages()[0]:
            machine.swapoff()
        errors += machine.check()
        if machine.free_pages() != machine.total_pages() - 1:
            errors.append(f"{machine.total_pages() - 1 - machine.free_pages()} frames are lost")
        machine.close()
        return errors


def stress(seconds: float, seed: int = 0) -> list[str]:
    """What went wrong, after so many seconds with merging across nodes and as many without."""
    errors: list[str] = []
    for across in (0, 1):
        life = Stress(across, seed)
        life.run(seconds)
        errors += life.finish()
    return errors


if __name__ == "__main__":
    arguments = [float(argument) for argument in sys.argv[1:]]
    errors = stress(arguments[0] if arguments else 10, int(arguments[1]) if len(arguments) > 1 else 0)
    print(*errors, f"{len(errors)} errors", sep="\n")
    sys.exit(bool(errors))

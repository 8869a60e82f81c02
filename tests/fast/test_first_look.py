# SPDX-License-Identifier: GPL-2.0-only
"""Machine(threads=N): what several threads have read of pages is used only if nobody has written to them since."""

import random
import threading

import pytest

import ksm
from ksm.testing.trees import first_looks, look_from

PAGE = ksm.PAGE_SIZE
PAGES = 3000


def machine_of(threads, **kwargs):
    machine = ksm.Machine("40M", max_memory="40M", swap="4M", clock="manual", threads=threads, **kwargs)
    machine.ksm.smart_scan = 0
    look_from(machine, 256, 300)
    return machine


def filled(machine, rng, pages=PAGES):
    """A process with pages of which some are equal, and the address."""
    process = machine.spawn()
    addr = process.mmap(pages * PAGE)
    process.madvise(addr, pages * PAGE, ksm.MADV_MERGEABLE)
    for first in range(0, pages, 100):
        process.write(addr + first * PAGE, b"".join(content(rng) for _ in range(min(100, pages - first))))
    return process, addr


def content(rng):
    return rng.randbytes(8) * (PAGE // 8) if rng.random() < 0.7 else bytes([rng.randrange(40)]) * PAGE


def counted(machine, processes):
    return {**machine.ksm.attributes(), "stat": [each.ksm_stat() for each in processes], "slabs": machine.slabinfo(),
            "tables": [each.page_table(addr, PAGES * PAGE).tobytes() for each, addr in processes.items()]}


def life(threads, seed):
    """Scans that stop within what was read ahead, while pages are written to, moved, shared and freed behind and before ksmd."""
    rng = random.Random(seed)
    seen = []
    with machine_of(threads) as machine:
        processes = dict(filled(machine, rng) for _ in range(2))
        for _ in range(30):
            machine.ksm.scan(pages=rng.choice([100, 600, 700, 1500, 4000]))
            process, addr = rng.choice(list(processes.items()))
            for _ in range(rng.randrange(60)):
                process.write(addr + rng.randrange(PAGES * PAGE - 8), rng.randbytes(8))
            first, nr = rng.randrange(PAGES - 100), rng.randrange(1, 100)
            action = rng.randrange(8)
            if action == 0:
                process.madvise(addr + first * PAGE, nr * PAGE, ksm.MADV_DONTNEED)
            elif action == 1:
                process.swap_out(addr + first * PAGE, nr * PAGE)
            elif action == 2:
                process.touch(addr + first * PAGE, nr * PAGE)
            elif action == 3 and len(processes) < 4:
                processes[process.fork()] = addr
            elif action == 4 and len(processes) > 2:
                del processes[process]
                process.exit()
            elif action == 5:
                process.madvise(addr + first * PAGE, nr * PAGE, ksm.MADV_UNMERGEABLE)
                process.madvise(addr + first * PAGE, nr * PAGE, ksm.MADV_MERGEABLE)
            elif action == 6:
                process.write(addr + first * PAGE, content(rng) * nr)
            machine.ksm.scan(pages=rng.choice([64, 513, 3000]))
            seen.append(counted(machine, processes))
            assert machine.check() == []
        _, known = first_looks(machine)
        assert (known > 0) == (threads > 1)
    return seen


@pytest.mark.parametrize("seed", range(6))
def test_threads_change_nothing(seed):
    assert life(1, seed) == life(2, seed) == life(5, seed)


@pytest.mark.slow
def test_threads_change_nothing_in_many_lives():
    for seed in range(6, 60):
        assert life(1, seed) == life(3, seed), seed


@pytest.mark.parametrize("threads", [1, 2, 64])
def test_a_page_that_is_written_to_after_it_was_read(threads):
    """Nothing is used that was computed before a write: the page's checksum is that of what it holds when ksmd comes to it."""
    with machine_of(threads) as machine:
        process, addr = filled(machine, random.Random(1))
        machine.ksm.scan(pages=600)
        changed = range(600, PAGES, 7)
        for page in changed:
            process.write(addr + page * PAGE, b"!")         # threads have read it, and ksmd has not seen it
        machine.ksm.scan(1)
        assert (machine.ksm.full_scans, machine.ksm.pages_volatile) == (1, PAGES)
        machine.ksm.scan(1)
        # All pages are as they were when ksmd came to them: none is volatile.
        assert machine.ksm.pages_volatile == 0
        assert machine.check() == []


def test_a_page_that_changes_back_is_read_again():
    """A page is written to twice, and has its old contents again: that is no change for KSM, with or without threads."""
    for threads in (1, 3):
        with machine_of(threads) as machine:
            process, addr = filled(machine, random.Random(2))
            machine.ksm.scan(pages=600)
            for value in (b"!", process.read(addr + 900 * PAGE, 1)):
                process.write(addr + 900 * PAGE, value)
            machine.ksm.scan(2)
            assert machine.ksm.pages_volatile == 0


def test_a_machine_that_is_closed_while_threads_read():
    for _ in range(5):
        machine = machine_of(4)
        filled(machine, random.Random(3))
        scan = threading.Thread(target=scan_until_closed, args=(machine,))
        scan.start()
        machine.close()
        scan.join()


def scan_until_closed(machine):
    with pytest.raises(ValueError):
        while True:
            machine.ksm.scan(1)
            for process in machine.processes.values():
                for vma in process.maps():
                    process.touch(vma.start, vma.end - vma.start)


@pytest.mark.parametrize("kwargs", [{"plain": True}, {"pages": "fingerprints"}, {"era": "6.1"}, {"era": "2.6.38"}])
def test_machines_that_read_with_one_thread(kwargs):
    with ksm.Machine("4M", threads=4, **kwargs) as machine:
        assert machine.threads == 4
        process = machine.spawn()
        addr = process.mmap(600 * PAGE)
        process.madvise(addr, 600 * PAGE, ksm.MADV_MERGEABLE)
        process.update(addr, b"A" * PAGE * 600)
        machine.ksm.scan(3)
        assert machine.ksm.pages_sharing > 500


@pytest.mark.parametrize("threads", [0, -1, 257, 1 << 40])
def test_numbers_of_threads_that_cannot_be(threads):
    with pytest.raises(ValueError, match="threads must be between 1 and 256"):
        ksm.Machine("4M", threads=threads)
    with pytest.raises(TypeError):
        ksm.Machine("4M", threads="2")


def test_one_thread_is_the_default():
    with ksm.Machine("4M") as machine:
        assert machine.threads == 1

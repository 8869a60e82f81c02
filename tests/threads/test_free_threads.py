# SPDX-License-Identifier: GPL-2.0-only
"""What several threads do to one object at the same time, when no global lock keeps them apart (python3.13t, python3.14t). With the lock
most of it cannot fail; numbers that are given without it can.
"""

import subprocess
import sys
import sysconfig
import threading

import pytest

import ksm
from ksm.estimate.savings import Tally
from ksm.record.recorder import Recorder

PAGE = ksm.PAGE_SIZE
THREADS = 8

IMPORTS = """
import importlib, pkgutil, sys
import ksm
names = [each.name for each in pkgutil.walk_packages(ksm.__path__, "ksm.") if not each.name.endswith("__main__")]
compiled = [module for module in map(importlib.import_module, names) if module.__file__.endswith(".so")]
print(len(compiled) > 40, sys._is_gil_enabled())
"""


def at_once(*calls):
    """Call all of them at the same time; the first exception of one is raised."""
    start, failed = threading.Barrier(len(calls)), []

    def run(call):
        start.wait()
        try:
            call()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a global lock")
def test_no_module_brings_the_lock_back():
    run = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("True False\n", "")


def test_no_pid_is_given_twice():
    with ksm.Machine("64M") as machine:
        pids = [[] for _ in range(THREADS)]

        def make(mine):
            for _ in range(2000):
                process = machine.spawn()
                mine.append((process.pid, process.mm_id))
                process.exit()

        at_once(*(lambda mine=mine: make(mine) for mine in pids))
        numbers, spaces = zip(*(each for mine in pids for each in mine), strict=True)
        assert sorted(numbers) == list(range(1, THREADS * 2000 + 1))
        assert len(set(spaces)) == THREADS * 2000
        assert len(machine.processes) == 0 and machine.check() == []


def test_processes_are_those_of_all_threads():
    """The mapping has all that live, whatever threads spawn and fork at the same time."""
    with ksm.Machine("64M") as machine:
        made = [[] for _ in range(THREADS)]

        def make(mine):
            for n in range(60):
                child = mine[-1].fork() if mine and n % 2 == 0 else machine.spawn()
                child.name = f"{child.name} of a thread"
                mine.append(child)
                assert machine.processes[child.pid] is child
                if n % 5 == 4:
                    mine.pop().exit()
                assert dict(machine.processes.items())[mine[-1].pid] is mine[-1]

        at_once(*(lambda mine=mine: make(mine) for mine in made))
        alive = [process for mine in made for process in mine]
        assert len({process.pid for process in alive}) == len(alive) == len(machine.processes) == THREADS * 48
        assert len({process.mm_id for process in alive}) == len(alive)
        assert machine.processes == {process.pid: process for process in alive}
        assert all(process.name.endswith(" of a thread") for process in alive)
        assert machine.check() == []


def test_a_tally_loses_nothing():
    with ksm.Machine("4M") as machine:
        process = machine.spawn()
        addr = process.mmap(8 * PAGE)
        process.write(addr, b"same" * 1024 * 8)
        process.madvise(addr, 8 * PAGE, ksm.MADV_MERGEABLE)
        machine.ksm.scan(3)
        words = process.page_table(addr, 8 * PAGE)
        tally = Tally(machine)
        tally.next_source()
        tally.add(words)
        before = tally.within

        def add():
            for _ in range(2000):
                tally.add(words)

        at_once(*[add] * THREADS)
        assert before == 7 and tally.within - before == THREADS * 2000 * 8
        assert tally.zero == tally.across == 0


def test_what_was_recorded_is_there_or_not():
    """While one thread stops a recording, others look at what it has."""
    with ksm.Machine("1M", max_memory="1M", plain=True) as machine:
        process = machine.spawn()
        process.madvise(addr := process.mmap(4 * PAGE), 4 * PAGE, ksm.MADV_MERGEABLE)
        for n in range(100):
            process.write(addr, bytes([n]) * 4 * PAGE)
            recorder = Recorder(machine, 1000)
            machine.ksm.scan()
            words, labels = set(), set()

            def look(recorder=recorder, words=words, labels=labels):
                for _ in range(50):
                    words.add(len(recorder.words))
                    labels.add(len(recorder.labels))

            at_once(recorder.stop, *[look] * 3)
            assert recorder.words and words <= {0, len(recorder.words)} and labels <= {0, len(recorder.labels)}


def test_a_frame_is_held_by_all_who_look():
    with ksm.Machine("1M", max_memory="1M") as machine:
        process = machine.spawn()
        process.write(addr := process.mmap(PAGE), b"page" * 1024)
        [pfn] = (word >> ksm.PAGE_FLAGS_SHIFT for word in process.page_table(addr, PAGE))

        def look():
            for _ in range(500):
                with machine.frame(pfn) as view:
                    assert view[0] == ord("p")

        at_once(*[look] * THREADS)
        assert machine.check() == []        # it would find a reference too many, or one too few
        process.exit()
        assert machine.free_pages() == machine.total_pages() - 1

# SPDX-License-Identifier: GPL-2.0-only
"""How long things take: in proportion to the work, and a call that takes long still reacts to a signal."""

import signal
import time

import pytest

import ksm

PAGE = ksm.PAGE_SIZE


def seconds(function, *arguments):
    """The processor time of a call."""
    before = time.process_time()
    function(*arguments)
    return time.process_time() - before


def fastest(times, function, *arguments):
    return min(seconds(function, *arguments) for _ in range(times))


def test_a_pass_over_many_processes():
    """A pass over eight times as many processes takes about eight times as long, not 64 times."""
    took = {}
    for number in (2000, 16000):
        with ksm.Machine("128M") as machine:
            for _ in range(number):
                process = machine.spawn()
                addr = process.mmap(PAGE)
                process.write(addr, b"alike")
                process.madvise(addr, PAGE, ksm.MADV_MERGEABLE)
            machine.ksm.scan(2)
            took[number] = fastest(5, machine.ksm.scan)
            assert machine.ksm.pages_sharing > number * 0.99
    assert took[16000] < 30 * took[2000], took


@pytest.fixture
def slow():
    """A machine with one content in many frames: a page that looks for a frame with room goes past all of them."""
    machine = ksm.Machine("128M", plain=True)
    machine.ksm.smart_scan = 0
    machine.ksm.max_page_sharing = 2
    process = machine.spawn()
    addr = process.mmap(16384 * PAGE)
    for start in range(0, 16384, 1024):
        process.write(addr + start * PAGE, b"same" * (1024 * PAGE // 4))
    process.madvise(addr, 16384 * PAGE, ksm.MADV_MERGEABLE)
    machine.ksm.scan()
    yield machine
    machine.close()


class Alarm(Exception):
    pass


@pytest.fixture
def alarm():
    """Raise Alarm in this thread after so many seconds of processor time: the time at which it was raised."""
    def ring(number, frame):
        raise Alarm

    before = signal.signal(signal.SIGPROF, ring)

    def wind(after):
        signal.setitimer(signal.ITIMER_PROF, after)
        return time.process_time() + after

    yield wind
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


@pytest.mark.parametrize("how", [{}, {"passes": 5}, {"pages": 1 << 30}])
def test_a_signal_is_heard_in_a_scan(slow, alarm, how):
    times = []
    for _ in range(3):
        at = alarm(0.1)
        with pytest.raises(Alarm):
            slow.ksm.scan(**how)
        times.append(time.process_time() - at)
    assert min(times) < 0.2, times
    assert slow.check() == []


def test_a_batch_is_as_large_as_asked_for(slow):
    """A batch that takes long is done in several pieces, and still has the size that was asked for."""
    for pages in (1, 63, 64, 65, 1000, 5000):
        before = slow.ksm.pages_scanned
        assert slow.ksm.scan(pages=pages) is False
        assert slow.ksm.pages_scanned - before == pages


def test_a_batch_ends_with_the_pass():
    with ksm.Machine("16M") as machine:
        process = machine.spawn()
        addr = process.mmap(2000 * PAGE)
        process.touch(addr, 2000 * PAGE)
        process.madvise(addr, 2000 * PAGE, ksm.MADV_MERGEABLE)
        assert machine.ksm.scan(pages=100) is False
        assert machine.ksm.scan(pages=1 << 20) is True
        assert (machine.ksm.pages_scanned, machine.ksm.full_scans) == (2000, 1)
        process.munmap(addr, 2000 * PAGE)
        machine.ksm.scan()
        assert machine.ksm.scan(pages=1 << 20) is False         # nothing is registered


def test_ksmd_ends_with_its_machine(slow):
    """ksmd ends soon, however large its batch is."""
    slow.ksm.pages_to_scan = 0xffffffff
    slow.ksm.run = 1
    time.sleep(0.2)
    before = time.process_time()
    slow.close()
    assert time.process_time() - before < 0.3


def test_a_scan_of_pages_that_are_slow_is_the_same_as_another():
    """A pass has the same result whether it is cut into pieces or not."""
    states = []
    for pieces in (False, True):
        with ksm.Machine("32M", clock="manual") as machine:
            machine.ksm.smart_scan = 0
            machine.ksm.max_page_sharing = 2
            process = machine.spawn()
            addr = process.mmap(4096 * PAGE)
            process.write(addr, b"".join((b"same" if i % 3 else b"%04d" % i) * 1024 for i in range(4096)))
            process.madvise(addr, 4096 * PAGE, ksm.MADV_MERGEABLE)
            for _ in range(3):
                if pieces:
                    while not machine.ksm.scan(pages=37):
                        pass
                else:
                    machine.ksm.scan()
            states.append((machine.ksm.attributes(), list(process.page_table(addr, 4096 * PAGE))))
            assert machine.check() == []
    assert states[0] == states[1]

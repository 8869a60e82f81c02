# SPDX-License-Identifier: GPL-2.0-only
"""A mapped image that was said to stay as it is, and is truncated: no process dies of it."""

import signal

import pytest

# One process maps the file, another has pages that are merged with it.
SCENE = """if True:
    import faulthandler, mmap, os, signal, sys, threading
    import ksm
    PAGE = ksm.PAGE_SIZE
    path = sys.argv[1]
    with open(path, "wb") as file:
        file.write(b"".join(bytes([1 + i % 200]) * PAGE for i in range(512)))
    machine = ksm.Machine("16M")
    machine.ksm.smart_scan = 0
    a = machine.spawn()
    image = open(path, "rb")
"""


def test_what_was_cut_off_is_zeros(in_a_process, tmp_path):
    in_a_process(SCENE + """
    addr = a.mmap_image(image, still=True)
    assert a.read(addr + 300 * PAGE, 1) == bytes([101])
    a.write(addr + 400 * PAGE, b"mine")
    assert machine.lost_pages() == 0
    os.truncate(path, 100 * PAGE)
    assert a.read(addr + 99 * PAGE, 2 * PAGE) == bytes([100]) * PAGE + bytes(PAGE)
    assert machine.lost_pages() == 1
    assert a.read(addr, 512 * PAGE) == b"".join(bytes([1 + i]) * PAGE for i in range(100)) + bytes(412 * PAGE)
    assert machine.lost_pages() == 412
    a.write(addr + 200 * PAGE, b"again")
    assert a.read(addr + 200 * PAGE, PAGE) == b"again" + bytes(PAGE - 5)
    assert machine.check() == []
    a.exit()
    assert machine.check() == []
    b = machine.spawn()
    addr = b.mmap_image(image, still=True)
    assert b.read(addr, 100 * PAGE)[::PAGE] == bytes(range(1, 101))
    assert machine.lost_pages() == 412
    machine.close()
    """, tmp_path / "image")


@pytest.mark.parametrize("before", [0, 1, 2])
@pytest.mark.parametrize("plain", [False, True])
def test_a_scan_over_what_was_cut_off(in_a_process, tmp_path, plain, before):
    in_a_process(SCENE + f"""
    machine = ksm.Machine("16M", plain={plain})
    a = machine.spawn()
    addr = a.mmap_image(image, still=True)
    a.madvise(addr, 512 * PAGE, ksm.MADV_MERGEABLE)
    machine.ksm.scan({before})
    os.truncate(path, 0)
    machine.ksm.scan(5)
    assert {before} == 2 or machine.lost_pages() > 0    # what was merged need not be looked at
    assert set(a.read(addr, 512 * PAGE)) == {{0}}
    machine.ksm.run = 2
    a.exit()
    machine.close()
    """, tmp_path / "image")


def test_threads_that_find_the_same_page_cut_off(in_a_process, tmp_path):
    """What one thread has written is not lost because another thread comes late."""
    in_a_process(SCENE + """
    addr = a.mmap_image(image, still=True)
    processes = [a, a.fork(), a.fork(), a.fork()]
    os.truncate(path, 0)
    start = threading.Barrier(4)

    def work(process, number):
        start.wait()
        for page in range(512):
            process.write(addr + page * PAGE + 8 * number, b"%07d" % page)

    # a's pages are its own again
    for process in processes[1:]:
        process.exit()
    threads = [threading.Thread(target=work, args=(a, number)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for page in range(512):
        assert a.read(addr + page * PAGE, 32) == (b"%07d" % page + bytes(1)) * 4
    assert machine.lost_pages() == 512
    assert machine.check() == []
    machine.close()
    """, tmp_path / "image")


def test_many_machines(in_a_process, tmp_path):
    in_a_process(SCENE + """
    for number in range(100):
        with ksm.Machine("1M", max_memory="8M") as other:
            process = other.spawn()
            addr = process.mmap_image(image, still=True)
            if number == 50:
                os.truncate(path, 0)
                os.truncate(path, 512 * PAGE)
                kept = addr
                os.truncate(path, 256 * PAGE)
                assert process.read(addr, 512 * PAGE) == bytes(512 * PAGE)
                assert other.lost_pages() == 256
                os.truncate(path, 512 * PAGE)
    """, tmp_path / "image")


@pytest.mark.parametrize("others", ["", "faulthandler.enable()", "signal.signal(signal.SIGBUS, signal.SIG_IGN)"])
@pytest.mark.parametrize("mapped", [False, True])
def test_other_bus_errors_end_the_program(in_a_process, tmp_path, others, mapped):
    """A bus error that is not the machine's ends the program, as it does without a machine."""
    in_a_process(SCENE + f"""
    {others}
    if {mapped}:
        a.mmap_image(image, still=True)
    with open(path, "r+b") as file:
        other = mmap.mmap(file.fileno(), 0)
    os.truncate(path, 0)
    other[5]
    """, tmp_path / "image", code=-signal.SIGBUS, error="Fatal Python error: Bus error" if "fault" in others else "")


def test_a_signal_from_outside_is_passed_on(in_a_process, tmp_path):
    script = SCENE + """
    seen = []
    if sys.argv[2] == "handled":
        signal.signal(signal.SIGBUS, lambda number, frame: seen.append(number))
    a.mmap_image(image, still=True)
    os.kill(os.getpid(), signal.SIGBUS)
    assert seen == [signal.SIGBUS]
    """
    in_a_process(script, tmp_path / "image", "handled")
    in_a_process(script, tmp_path / "image", "not handled", code=-signal.SIGBUS)


def test_a_copy_needs_no_handler(in_a_process, tmp_path):
    in_a_process(SCENE + """
    addr = a.mmap_image(image)
    os.truncate(path, 0)
    assert a.read(addr, 512 * PAGE) == b"".join(bytes([1 + i % 200]) * PAGE for i in range(512))
    assert machine.lost_pages() == 0
    with open("/proc/self/status") as status:
        caught = int(next(line for line in status if line.startswith("SigCgt")).split()[1], 16)
    assert not caught >> (signal.SIGBUS - 1) & 1
    """, tmp_path / "image")

# SPDX-License-Identifier: GPL-2.0-only
"""The counters that Linux 6.12 shows for simple workloads, once they have settled."""

import pytest

import ksm

PAGE = ksm.PAGE_SIZE

# max_page_sharing, identical pages -> pages_shared, pages_sharing, stable_node_chains, stable_node_dups, general_profit
GOLDEN = {
    (2, 3): (1, 1, 0, 0, 3904),
    (2, 5): (2, 2, 1, 2, 7872),
    (2, 1025): (512, 512, 1, 512, 2031552),
    (3, 10): (3, 6, 1, 3, 23936),
    (3, 257): (86, 171, 1, 86, 683968),
    (10, 22): (3, 19, 1, 3, 76416),
    (10, 1025): (103, 922, 1, 103, 3710912),
    (256, 257): (1, 255, 0, 0, 1028032),
    (256, 1000): (4, 996, 1, 4, 4015616),
}


@pytest.fixture
def machine():
    with ksm.Machine(memory="16M", max_memory="16M") as machine:
        yield machine
        assert machine.check() == []


def counters(knobs):
    return (knobs.pages_shared, knobs.pages_sharing, knobs.stable_node_chains, knobs.stable_node_dups, knobs.general_profit)


def fill(process, pages, content):
    addr = process.mmap(pages * PAGE)
    process.write(addr, content * pages)
    process.madvise(addr, pages * PAGE, ksm.MADV_MERGEABLE)
    return addr


def settle(machine, most=60):
    """Scan until three passes in a row change nothing."""
    knobs = machine.ksm
    seen = []
    for _ in range(most):
        knobs.scan()
        assert machine.check() == []
        seen.append((*counters(knobs), knobs.pages_unshared, knobs.pages_volatile))
        if len(seen) >= 4 and len(set(seen[-3:])) == 1:
            return


@pytest.mark.parametrize(("sharing", "pages"), GOLDEN)
def test_identical_pages(machine, sharing, pages):
    machine.ksm.max_page_sharing = sharing
    process = machine.spawn()
    addr = fill(process, pages, b"same" * (PAGE // 4))
    settle(machine)
    assert counters(machine.ksm) == GOLDEN[sharing, pages]
    assert process.read(addr, pages * PAGE) == b"same" * (PAGE // 4) * pages
    frames = {word >> ksm.PAGE_FLAGS_SHIFT for word in process.page_table(addr, pages * PAGE)}
    shared, _, *_ = GOLDEN[sharing, pages]
    assert len(frames) == shared + machine.ksm.pages_unshared + machine.ksm.pages_volatile


def test_written_again(machine):
    """Two merged pages are both written: one pass later their node is gone."""
    process = machine.spawn()
    addr = fill(process, 2, b"x" * PAGE)
    settle(machine)
    assert counters(machine.ksm)[:2] == (1, 1)
    process.write(addr, b"1")
    process.write(addr + PAGE, b"2")
    assert counters(machine.ksm)[:2] == (1, 1)
    machine.ksm.scan()
    assert counters(machine.ksm)[:2] == (0, 0)
    assert machine.vmstat()["cow_ksm"] == 2


def test_zero_pages(machine):
    process = machine.spawn()
    fill(process, 10, bytes(PAGE))
    settle(machine)
    assert counters(machine.ksm)[:2] == (1, 9)
    assert machine.ksm.ksm_zero_pages == 0


def test_zero_pages_become_the_zero_page(machine):
    machine.ksm.use_zero_pages = 1
    process = machine.spawn()
    addr = fill(process, 10, bytes(PAGE))
    settle(machine)
    assert counters(machine.ksm)[:2] == (0, 0)
    assert machine.ksm.ksm_zero_pages == process.ksm_zero_pages == 10
    assert process.rss() == 0
    assert machine.ksm.general_profit == process.ksm_process_profit == 10 * PAGE
    process.write(addr, b"\1")
    assert machine.ksm.ksm_zero_pages == 9
    process.munmap(addr, 5 * PAGE)
    assert machine.ksm.ksm_zero_pages == 5
    process.exit()
    assert machine.ksm.ksm_zero_pages == 0


def test_pass_law(machine):
    """Static memory, smart_scan off, no cap: nothing changes after the third pass, and every content has one frame."""
    machine.ksm.smart_scan = 0
    machine.ksm.max_page_sharing = 100000
    contents = [bytes([i * i % 23]) * PAGE for i in range(300)]
    processes = [machine.spawn() for _ in range(3)]
    places = []
    for process in processes:
        addr = process.mmap(300 * PAGE)
        process.write(addr, b"".join(contents))
        process.madvise(addr, 300 * PAGE, ksm.MADV_MERGEABLE)
        places.append(addr)
    machine.ksm.scan(3)
    settled = machine.ksm.attributes()
    for _ in range(5):
        machine.ksm.scan()
        now = machine.ksm.attributes()
        assert {name for name in now if now[name] != settled[name]} <= {"full_scans", "pages_scanned"}
    frames = {word >> ksm.PAGE_FLAGS_SHIFT for process, addr in zip(processes, places, strict=True)
              for word in process.page_table(addr, 300 * PAGE)}
    assert len(frames) == len(set(contents))

# SPDX-License-Identifier: GPL-2.0-only
"""What people have reported of KSM, on mailing lists and in the trackers of projects that use it, and what is right.

docs/reports.md lists all of them. Those that a workload can tell are in tests/kernel/reports/, with what the kernel did; here are the
values that they are about.
"""

import ctypes
import re
import threading
from pathlib import Path

import pytest
from pages import fails, fill, finish, frames, mergeable

import ksm
from ksm.oracle import recorded
from ksm.oracle.replay import run_port
from ksm.testing.corrupt import frame_fields, page_fields

PAGE = ksm.PAGE_SIZE
WORKLOADS = Path(__file__).parents[1] / "kernel/reports"
PG_LOCKED = 0x1
EINVAL = 22


def new_machine(**options):
    return ksm.Machine(memory="4M", max_memory="4M", clock="manual", **options)


def state(machine):
    return machine.ksm.pages_shared, machine.ksm.pages_sharing, machine.ksm.pages_unshared, machine.ksm.pages_volatile


def state_of(record):
    return tuple(record["ksm"][f"pages_{name}"] for name in ("shared", "sharing", "unshared", "volatile"))


def both(name):
    """The records of a workload, the kernel's and the port's."""
    data, outcome = recorded.load(WORKLOADS / f"{name}.json")
    return outcome["records"], run_port(data["workload"], pages=True)["records"]


# The kernel's mailing lists and its history

@pytest.mark.parametrize("side", [0, 1], ids=["kernel", "port"])
def test_a_page_that_has_moved_is_merged(side):
    """linux-mm, April 2026, on walks by address: mremap moves a page, and its index is no longer that of its address."""
    records = both("moved-page")[side]
    assert state_of(records[-1]) == (1, 1, 1, 0)
    assert records[-1]["pages"] == {"a": {"v": [1, "-", "a"], "w": [1]}}


def test_a_page_that_has_moved_is_found_when_its_frame_is_wanted():
    """linux-mm, April 2026, on walks by address. The page moves onto the next one, and a walk has to find it by its index."""
    with new_machine(swap="64K") as machine:
        process = machine.spawn()
        addr = process.mmap(3 * PAGE)
        process.madvise(addr, 3 * PAGE, ksm.MADV_MERGEABLE)
        process.madvise(addr, 3 * PAGE, ksm.MADV_DONTFORK)
        process.write(addr, fill(0x77) * 2)
        process.mremap(addr + PAGE, PAGE, PAGE, new_addr=addr + 2 * PAGE)
        machine.ksm.scan(3)
        assert state(machine) == (1, 1, 0, 0)
        free = machine.free_pages()
        assert process.swap_out(addr, PAGE) == 1
        assert machine.free_pages() == free + 1
        first, second = process.page_table(addr, PAGE)[0], process.page_table(addr + 2 * PAGE, PAGE)[0]
        assert first == second and first & ksm.PAGE_SWAPPED
        assert process.read(addr, PAGE) == process.read(addr + 2 * PAGE, PAGE) == fill(0x77)
        finish(machine)


def test_a_merged_page_is_locked_for_two_passes():
    """linux-mm, February 2019, a BUG on an item's age: its equal is locked, and it was visited twice while it was in the unstable tree."""
    with new_machine() as machine:
        machine.ksm.smart_scan = 0
        process = machine.spawn()
        addr = mergeable(process, [fill(1), fill(1), fill(2)])
        machine.ksm.scan(2)
        assert state(machine) == (1, 1, 1, 0)
        process.write(addr + 2 * PAGE, fill(1))
        address, _ = frame_fields(machine, frames(process, addr)[0])["page.flags"]
        flags = ctypes.c_ulong.from_address(address)
        flags.value |= PG_LOCKED
        machine.ksm.scan(2)
        assert state(machine) == (1, 1, 0, 1)
        flags.value &= ~PG_LOCKED
        assert machine.check() == []
        machine.ksm.scan()
        assert state(machine) == (1, 2, 0, 0)
        finish(machine)


@pytest.mark.parametrize("side", [0, 1], ids=["kernel", "port"])
def test_a_child_counts_nothing_of_its_parent(side):
    """4d6fc29f3634: the child of a process with merged pages began with its parent's counts."""
    *_, forked, _, scanned = both("fork-counts-nothing")[side]
    names = "ksm_merging_pages", "ksm_rmap_items"
    assert [[forked["procs"][process][name] for name in names] for process in "ab"] == [[32, 32], [0, 0]]
    assert state_of(forked) == (1, 31, 0, 0)
    assert [[scanned["procs"][process][name] for name in names] for process in "ab"] == [[32, 32], [32, 32]]


@pytest.mark.parametrize("side", [0, 1], ids=["kernel", "port"])
def test_a_process_asks_before_it_has_memory(side):
    """linux-mm, October 2025, prctl and exec: ksmd dropped a process that had no memory yet, and its wish was lost."""
    records = both("merge-any-before-memory")[side]
    assert [record["procs"]["a"]["ksm_merge_any"] for record in records] == ["yes"] * 5
    assert state_of(records[-2]) == (1, 7, 0, 0)


def test_flags_above_bit_31_stay():
    """CVE-2025-40040: the flag of mergeable memory was an int, and taking it away took the upper half of the flags with it."""
    with new_machine() as machine:
        process = machine.spawn()
        addr = process.mmap(PAGE)
        process.touch(addr)
        flags = ctypes.c_ulong.from_address(page_fields(machine, process.mm_id, addr)["vma.flags"][0])
        before, flags.value = flags.value, flags.value | 1 << 37
        process.madvise(addr, PAGE, ksm.MADV_MERGEABLE)
        assert flags.value == before | 1 << 37 | 1 << 31
        process.madvise(addr, PAGE, ksm.MADV_UNMERGEABLE)
        assert flags.value == before | 1 << 37
        flags.value = before


@pytest.mark.parametrize("length", [1 << 38, pytest.param(1 << 45, marks=pytest.mark.slow)], ids=["256G", "32T"])
def test_unmerging_addresses_without_pages(length):
    """linux-mm, October 2025, break_ksm(): one page in 32 TiB of addresses. 6.12 walks over all of them, and so does the port."""
    def after(length):
        with new_machine() as machine:
            process = machine.spawn()
            addr = process.mmap(length)
            process.touch(addr)
            process.madvise(addr, length, ksm.MADV_MERGEABLE)
            machine.ksm.scan(2)
            assert state(machine) == (0, 0, 1, 0)
            process.madvise(addr, length, ksm.MADV_UNMERGEABLE)
            return machine.ksm.attributes(), process.ksm_stat(), process.rss(), len(process.maps()), machine.check()

    assert after(length) == after(PAGE)


@pytest.mark.parametrize("side", [0, 1], ids=["kernel", "port"])
def test_zero_pages_are_not_in_rss(side):
    """a38c015f3156: a page that became the zero page stayed in its process's count of pages."""
    before, _, _, merged, written, unmapped = both("zero-pages-in-rss")[side]
    resident = [record["procs"]["a"]["smaps"][:1] for record in (before, merged, written, unmapped)]
    assert resident == [[30 * PAGE], [5 * PAGE], [8 * PAGE], []]
    assert merged["procs"]["a"]["ksm_zero_pages"] == 25


def test_rss_is_nothing_at_the_end():
    """a38c015f3156, the other half: the kernel complained of an exiting process whose count was not 0."""
    with new_machine() as machine:
        machine.ksm.use_zero_pages = 1
        process = machine.spawn()
        addr = mergeable(process, [bytes(PAGE)] * 20 + [fill(1)] * 4)
        resident = process.rss()
        machine.ksm.scan(2)
        assert resident - process.rss() == 20
        process.munmap(addr, 24 * PAGE)
        for vma in process.maps():
            process.munmap(vma.start, vma.end - vma.start)
        assert process.rss() == 0
        finish(machine)


def test_zero_pages_are_counted_while_threads_write():
    """c2dc78b86e08: ksmd and page faults counted zero pages with no lock in common, and the count went below 0."""
    pages = 64
    with new_machine() as machine:
        machine.ksm.use_zero_pages = 1
        machine.ksm.smart_scan = 0
        process = machine.spawn()
        addr = mergeable(process, [bytes(PAGE)] * pages)
        stop, seen = threading.Event(), []

        def write(first):
            while not stop.is_set():
                for content in (b"!", b"\0"):
                    for page in range(first, pages, 2):
                        process.write(addr + page * PAGE, content)

        writers = [threading.Thread(target=write, args=(first,)) for first in range(2)]
        for writer in writers:
            writer.start()
        try:
            for _ in range(200):
                machine.ksm.scan()
                seen.append((machine.ksm.ksm_zero_pages, process.ksm_zero_pages))
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        assert all(0 <= count <= pages for counts in seen for count in counts)
        process.write(addr, bytes(pages * PAGE))
        machine.ksm.scan(2)
        assert machine.ksm.ksm_zero_pages == process.ksm_zero_pages == pages
        for page in range(pages):
            process.write(addr + page * PAGE, b"!")
        assert machine.ksm.ksm_zero_pages == process.ksm_zero_pages == 0
        finish(machine)


def test_there_is_no_memory_for_a_chain():
    """90e823498881: stable_tree_insert() freed a node that a frame still pointed to when it could not have a chain."""
    with new_machine() as machine:
        machine.ksm.max_page_sharing = 2
        process = machine.spawn()
        mergeable(process, [fill(1)] * 2)
        machine.ksm.scan(2)
        addr = mergeable(process, [fill(1)] * 2)
        machine.ksm.scan()
        assert machine.fail("ksm_stable_node", 2) == 0  # the first is the node itself
        machine.ksm.scan()
        assert machine.fail("ksm_stable_node", 0) == 0  # it has failed
        assert state(machine) == (1, 1, 0, 2)
        assert machine.check() == []
        broken = machine.vmstat()["cow_ksm"]
        assert not any(word & ksm.PAGE_KSM for word in process.page_table(addr, 2 * PAGE))
        process.write(addr, b"!" + fill(1)[1:] + b"!")
        assert machine.vmstat()["cow_ksm"] == broken
        finish(machine)


def test_a_broken_frame_of_several_with_the_same_bytes():
    """linux-mm, November 2025, on recovery from memory failures: two frames have the same bytes, and one breaks."""
    with new_machine() as machine:
        machine.ksm.max_page_sharing = 2
        processes = [machine.spawn() for _ in range(4)]
        addresses = [mergeable(process, [fill(1)]) for process in processes]
        machine.ksm.scan(3)
        assert (machine.ksm.stable_node_chains, machine.ksm.stable_node_dups) == (1, 2)
        maps = [frames(process, addr)[0] for process, addr in zip(processes, addresses, strict=True)]
        broken = maps[0]
        places = machine.memory_failure(broken)
        assert sorted(process.pid for process, _ in places) == [
            process.pid for process, frame in zip(processes, maps, strict=True) if frame == broken]
        assert len(places) == 2
        assert machine.check() == []


# Programs that use KSM

def test_a_pass_over_four_gigabytes():
    """ltp, issues 431 and 1166: a test waited for less time than a pass over a guest's memory takes at the default settings."""
    settings = {"run": 1, "pages_to_scan": 100, "sleep_millisecs": 20}
    found = ksm.doctor({**settings, "pages_shared": 0, "pages_sharing": 0, "pages_unshared": 1 << 20, "pages_volatile": 0}, kernel="6.12")
    assert 210 <= found.pass_seconds < 400


def test_shared_memory_never_counts():
    """forkd, issue 267; cloud-hypervisor, 4832; kata-containers, 2798; incus, 3589: guests whose memory is shared, or of a memfd."""
    with new_machine() as machine:
        machine.ksm.use_zero_pages = 1
        process = machine.spawn()
        addr = process.mmap(8 * PAGE, flags=ksm.MAP_SHARED | ksm.MAP_ANONYMOUS)
        process.write(addr, fill(1) * 4 + bytes(4 * PAGE))
        process.madvise(addr, 8 * PAGE, ksm.MADV_MERGEABLE)
        process.prctl(ksm.PR_SET_MEMORY_MERGE, 1)
        machine.ksm.scan(3)
        assert state(machine) == (0, 0, 0, 0)
        assert {machine.ksm.ksm_zero_pages, machine.ksm.general_profit, machine.ksm.pages_scanned, *process.ksm_stat().values()} == {0}
        assert not any(vma.mergeable for vma in process.maps())
        finish(machine)


@pytest.mark.parametrize("side", [0, 1], ids=["kernel", "port"])
def test_chains_without_pages(side):
    """netdata, issue 13628: counters of chains after all merged memory has gone. A new max_page_sharing drops them."""
    *_, merged, gone, _, cleared = both("empty-chains")[side]
    chains = "stable_node_chains", "stable_node_dups"
    assert [merged["ksm"][name] for name in chains] == [11, 44]
    assert [gone["ksm"][name] for name in chains] == [11, 0] and state_of(gone) == (0, 0, 0, 0)
    assert [cleared["ksm"][name] for name in chains] == [0, 0]


@pytest.mark.parametrize("side", [0, 1], ids=["kernel", "port"])
def test_prctl_with_more_arguments(side):
    """systemd, issue 31683: whatever was in the registers of prctl's last three arguments was passed on, and they have to be 0."""
    refused, before, *_, again, after = both("merge-any-with-more-arguments")[side]
    assert refused["error"] == again["error"] == "EINVAL"
    assert [record["procs"]["a"]["ksm_merge_any"] for record in (before, after)] == ["no", "yes"]


@pytest.mark.parametrize("arguments", [(1, 1), (1, 0, 1), (1, 0, 0, 1), (0, 1), (0, 0, 0, 1 << 63)])
def test_each_argument_of_prctl_counts(arguments):
    """systemd, issue 31683. What asks has no argument at all."""
    with new_machine() as machine:
        process = machine.spawn()
        fails(EINVAL, process.prctl, ksm.PR_SET_MEMORY_MERGE, *arguments)
        fails(EINVAL, process.prctl, ksm.PR_GET_MEMORY_MERGE, 1)
        fails(EINVAL, process.prctl, ksm.PR_GET_MEMORY_MERGE, 0, *arguments[1:])
        assert process.prctl(ksm.PR_GET_MEMORY_MERGE) == 0


def test_the_list_names_tests_that_exist():
    text = (Path(__file__).parents[2] / "docs/reports.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "`test" in line]
    assert len(rows) == 17
    for row in rows:
        path = "tests/reports/test_reports.py"
        for name in re.findall(r"`((?:tests/\S+::)?test_\w+)`", row.rpartition(" | ")[2]):
            path = name.rpartition("::")[0] or path
            assert f"def {name.rpartition('::')[2]}(" in (Path(__file__).parents[2] / path).read_text(), name
    workloads = {path.stem for path in WORKLOADS.glob("*.json")}
    assert workloads == set(re.findall(r'both\("([\w-]+)"\)', Path(__file__).read_text()))

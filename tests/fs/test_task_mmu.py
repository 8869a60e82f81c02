# SPDX-License-Identifier: GPL-2.0-only
"""/proc/PID/smaps. tests/kernel/test_live.py compares its sums with the running kernel's."""

import pytest

import ksm

PAGE = ksm.PAGE_SIZE


@pytest.fixture
def machine():
    with ksm.Machine("64M", swap="4M") as machine:
        machine.ksm.smart_scan = 0
        yield machine


def smap(process, addr):
    [found] = [line for line in process.smaps() if line.start <= addr < line.end]
    return found


def test_every_kind_of_page(machine):
    process = machine.spawn()
    addr = process.mmap(10 * PAGE)
    process.madvise(addr, 10 * PAGE, ksm.MADV_MERGEABLE)
    process.write(addr, b"same" * (3 * PAGE // 4))
    process.write(addr + 3 * PAGE, bytes(2 * PAGE))
    process.write(addr + 5 * PAGE, b"of its own")
    process.read(addr + 6 * PAGE, 1)  # the zero page
    process.write(addr + 7 * PAGE, b"to be swapped out")
    before = smap(process, addr)
    assert before.start == addr
    assert (before.size, before.rss, before.anonymous, before.ksm, before.swap) == (10 * PAGE, 7 * PAGE, 7 * PAGE, 0, 0)
    machine.ksm.scan(passes=3)
    assert smap(process, addr).ksm == 5 * PAGE  # two of them zeros, which are like any other page without use_zero_pages
    assert process.swap_out(addr + 7 * PAGE, PAGE) == 1
    after = smap(process, addr)
    assert (after.rss, after.anonymous, after.ksm, after.swap) == (7 * PAGE - PAGE, 6 * PAGE, 5 * PAGE, PAGE)
    assert after.rss == process.rss() * PAGE
    assert after.swap == process.swap_entries() * PAGE
    process.write(addr, b"!")
    assert smap(process, addr).ksm == 4 * PAGE


def test_the_zero_page_counts_nowhere(machine):
    """Not even where KSM has mapped it: the kernel counts pages, and the zero page is not one of the process."""
    machine.ksm.use_zero_pages = 1
    process = machine.spawn()
    addr = process.mmap(4 * PAGE)
    process.madvise(addr, 4 * PAGE, ksm.MADV_MERGEABLE)
    process.write(addr, bytes(4 * PAGE))
    machine.ksm.scan(passes=3)
    assert process.ksm_zero_pages == 4
    assert smap(process, addr)[2:9] == (4 * PAGE, 0, 0, 0, 0, 0, 0)


def test_pages_of_a_child_and_of_shared_memory(machine):
    process = machine.spawn()
    addr = process.mmap(4 * PAGE)
    shared = process.mmap(4 * PAGE, flags=ksm.MAP_SHARED | ksm.MAP_ANONYMOUS)
    process.touch(addr, 3 * PAGE)
    process.touch(shared, 2 * PAGE)
    child = process.fork()
    child.madvise(addr, PAGE, ksm.MADV_DONTNEED)
    assert [smap(one, addr).anonymous // PAGE for one in (process, child)] == [3, 2]
    found = smap(process, shared)
    assert (found.rss, found.anonymous, found.ksm) == (2 * PAGE, 0, 0)
    assert smap(child, shared).rss == 0  # fork copies no entries that a fault can bring
    assert sum(line.rss for line in process.smaps()) == process.rss() * PAGE
    child.exit()
    with pytest.raises(ProcessLookupError):
        child.smaps()


def test_huge_pages(machine):
    """A huge page that is mapped as a whole counts as one. KSM splits a huge page of which it merges a part."""
    huge = 512 * PAGE
    process = machine.spawn()
    addr = process.mmap(3 * huge)
    addr += -addr % huge
    process.madvise(addr, 2 * huge, ksm.MADV_HUGEPAGE)
    process.write(addr, b"".join(number.to_bytes(8, "little") * 512 for number in range(1, 1025)))
    assert smap(process, addr)[2:9] == (2 * huge, 2 * huge, 2 * huge, 0, 2 * huge, 0, 0)
    process.write(addr + PAGE, process.read(addr, PAGE))
    process.madvise(addr, 2 * huge, ksm.MADV_MERGEABLE)
    machine.ksm.scan(passes=3)
    assert smap(process, addr)[2:9] == (2 * huge, 2 * huge, 2 * huge, 2 * PAGE, huge, 0, 0)
    assert smap(process, addr).rss == process.rss() * PAGE
    process.madvise(addr + huge, PAGE, ksm.MADV_DONTNEED)
    assert smap(process, addr)[3:9] == (2 * huge - PAGE, 2 * huge - PAGE, 2 * PAGE, 0, 0, 0)


def test_flags(machine):
    """The flags are those that such a mapping has on x86-64, without soft-dirty."""
    process = machine.spawn()
    addr = process.mmap(4 * PAGE)
    assert smap(process, addr).vm_flags == ("rd", "wr", "mr", "mw", "me", "ac")
    process.madvise(addr, PAGE, ksm.MADV_MERGEABLE)
    assert smap(process, addr).vm_flags == ("rd", "wr", "mr", "mw", "me", "ac", "mg")
    assert smap(process, addr + PAGE).vm_flags == ("rd", "wr", "mr", "mw", "me", "ac")
    process.touch(addr)  # a mapping that never had a page loses "ac" when it becomes read-only
    process.madvise(addr, PAGE, ksm.MADV_NOHUGEPAGE)
    process.madvise(addr, PAGE, ksm.MADV_DONTFORK)
    process.mprotect(addr, PAGE, ksm.PROT_READ | ksm.PROT_EXEC)
    assert smap(process, addr).vm_flags == ("rd", "ex", "mr", "mw", "me", "dc", "ac", "nh", "mg")
    shared = process.mmap(PAGE, flags=ksm.MAP_SHARED | ksm.MAP_ANONYMOUS)
    assert smap(process, shared).vm_flags == ("rd", "wr", "sh", "mr", "mw", "me", "ms")
    assert [(line.start, line.end) for line in process.smaps()] == [(line.start, line.end) for line in process.maps()]

# SPDX-License-Identifier: GPL-2.0-only
"""Page faults, copy on write, fork, unsharing, zero pages, counts: the memory below KSM."""

import errno

import pytest

import ksm

PAGE = ksm.PAGE_SIZE
RW = ksm.PROT_READ | ksm.PROT_WRITE
SHARED = ksm.MAP_SHARED | ksm.MAP_ANONYMOUS


def frames(process, addr, pages=1):
    return [word >> ksm.PAGE_FLAGS_SHIFT for word in process.page_table(addr, pages * PAGE)]


def flags(process, addr):
    return process.page_table(addr, PAGE)[0] & 0xFF


def merged(machine, process, pages=2, content=b"merged!!"):
    addr = process.mmap(pages * PAGE)
    process.write(addr, content * (pages * PAGE // len(content)))
    process.madvise(addr, pages * PAGE, ksm.MADV_MERGEABLE)
    machine.ksm.scan(3)
    assert all(word & ksm.PAGE_KSM for word in process.page_table(addr, pages * PAGE))
    return addr


# First touch

def test_nothing_is_there_before_the_first_access(process):
    addr = process.mmap(3 * PAGE)
    assert process.present(addr, 3 * PAGE) == bytes(3)
    assert process.rss() == 0


def test_a_read_maps_the_zero_page(machine, process):
    addr = process.mmap(2 * PAGE)
    free = machine.free_pages()
    assert process.read(addr, 2 * PAGE) == bytes(2 * PAGE)
    assert flags(process, addr) == ksm.PAGE_PRESENT | ksm.PAGE_ZERO
    assert frames(process, addr, 2) == [0, 0]
    assert process.rss() == 0
    assert machine.free_pages() == free
    process.write(addr, b"1")
    assert flags(process, addr) == ksm.PAGE_PRESENT | ksm.PAGE_ANON
    assert process.read(addr, 2) == b"1\0"
    assert process.rss() == 1
    assert machine.free_pages() == free - 1


def test_a_write_maps_a_page_of_zeros(machine, process):
    """Also on a frame that somebody else has used before."""
    addr = process.mmap(PAGE)
    process.write(addr, b"\xff" * PAGE)
    frame = frames(process, addr)
    machine.lru_add_drain_all()
    process.munmap(addr, PAGE)
    addr = process.mmap(PAGE)
    process.write(addr + 7, b"7")
    assert frames(process, addr) == frame
    assert process.read(addr, PAGE) == bytes(7) + b"7" + bytes(PAGE - 8)


def test_faults_are_counted(machine, process):
    addr = process.mmap(2 * PAGE)
    before = machine.vmstat()["pgfault"]
    process.write(addr, b"x" * 2 * PAGE)
    assert machine.vmstat()["pgfault"] == before + 2
    process.write(addr, b"y" * 2 * PAGE)
    process.read(addr, 2 * PAGE)
    assert machine.vmstat()["pgfault"] == before + 2


def test_access_that_is_not_allowed(process):
    addr = process.mmap(3 * PAGE)
    process.mprotect(addr + PAGE, PAGE, ksm.PROT_READ)
    with pytest.raises(OSError, match=f"{PAGE} done") as info:
        process.write(addr, b"w" * 3 * PAGE)
    assert info.value.errno == errno.EFAULT
    assert process.read(addr, 3 * PAGE) == b"w" * PAGE + bytes(2 * PAGE)
    process.mprotect(addr, PAGE, ksm.PROT_NONE)
    with pytest.raises(OSError, match="0 done"):
        process.read(addr, 1)
    process.mprotect(addr, PAGE, ksm.PROT_EXEC)
    assert process.read(addr, 1) == b"w"


# Fork

def test_fork_shares_until_somebody_writes(machine, process):
    addr = process.mmap(3 * PAGE)
    process.write(addr, b"p" * 3 * PAGE)
    child = process.fork()
    assert frames(child, addr, 3) == frames(process, addr, 3)
    assert child.rss() == 3
    child.write(addr, b"c")
    process.write(addr + PAGE, b"P")
    assert process.read(addr, 1) + process.read(addr + PAGE, 1) == b"pP"
    assert child.read(addr, 1) + child.read(addr + PAGE, 1) == b"cp"
    assert frames(child, addr + 2 * PAGE) == frames(process, addr + 2 * PAGE)
    frame = frames(process, addr + 2 * PAGE)
    child.exit()
    machine.lru_add_drain_all()
    process.write(addr + 2 * PAGE, b"mine")         # nobody else is left: no copy
    assert frames(process, addr + 2 * PAGE) == frame


def test_fork_leaves_out_what_it_is_told_to(machine, process):
    addr = process.mmap(3 * PAGE)
    process.write(addr, b"x" * 3 * PAGE)
    process.madvise(addr, PAGE, ksm.MADV_DONTFORK)
    process.madvise(addr + PAGE, PAGE, ksm.MADV_WIPEONFORK)
    child = process.fork()
    with pytest.raises(OSError, match="Bad address"):
        child.read(addr, 1)
    assert child.read(addr + PAGE, 2 * PAGE) == bytes(PAGE) + b"x" * PAGE
    assert child.rss() == 1


def test_generations_of_forks(machine, process):
    """Every line of descent has its own bytes, and all anon_vmas are in order whoever dies first."""
    addr = process.mmap(4 * PAGE)
    process.write(addr, b"0" * 4 * PAGE)
    line = [process]
    for i in range(1, 12):
        child = line[-1].fork()
        child.write(addr + i % 4 * PAGE, b"%d" % i)
        line.append(child)
        assert machine.check() == []
        if i % 3 == 0:
            line.pop(0).exit()
            assert machine.check() == []
    last = line.pop()
    for process in line:
        process.exit()
        assert machine.check() == []
    assert [last.read(addr + i * PAGE, 2) for i in range(4)] == [b"80", b"90", b"10", b"11"]


def test_merged_pages_survive_fork(machine, process):
    addr = merged(machine, process, 4)
    child = process.fork()
    assert frames(child, addr, 4) == frames(process, addr, 4)
    process.exit()
    machine.ksm.scan()
    assert child.ksm_merging_pages == 4
    assert (machine.ksm.pages_shared, machine.ksm.pages_sharing) == (1, 3)
    child.write(addr, b"X")
    assert child.read(addr, 16) == b"Xerged!!merged!!"


# Merged pages

def test_a_write_to_a_merged_page_copies_it(machine, process):
    addr = merged(machine, process, 3)
    free = machine.free_pages()
    process.write(addr + PAGE, b"M")
    assert machine.free_pages() == free - 1
    assert machine.vmstat()["cow_ksm"] == 1
    assert flags(process, addr + PAGE) == ksm.PAGE_PRESENT | ksm.PAGE_ANON
    assert process.read(addr + PAGE, 8) == b"Merged!!"
    assert process.read(addr, 8) == b"merged!!"
    assert process.rss() == 3


def test_the_last_mapping_of_a_merged_page_is_copied_too(machine, process):
    """A merged page is never taken over, even by the only one who maps it: its node could still give it to others."""
    addr = merged(machine, process, 2)
    process.munmap(addr, PAGE)
    frame = frames(process, addr + PAGE)
    process.write(addr + PAGE, b"M")
    assert frames(process, addr + PAGE) != frame
    assert machine.vmstat()["cow_ksm"] == 1


def test_unmergeable_gives_every_page_its_own_frame(machine, process):
    addr = merged(machine, process, 4)
    process.madvise(addr + PAGE, 2 * PAGE, ksm.MADV_UNMERGEABLE)
    assert [bool(word & ksm.PAGE_KSM) for word in process.page_table(addr, 4 * PAGE)] == [True, False, False, True]
    assert len(set(frames(process, addr, 4))) == 3
    assert process.read(addr, 4 * PAGE) == b"merged!!" * (4 * PAGE // 8)
    # Unshared, but not written: the next write takes one fault, and no copy.
    copied = frames(process, addr + PAGE)
    faults = machine.vmstat()["pgfault"]
    process.write(addr + PAGE, b"M")
    assert frames(process, addr + PAGE) == copied
    assert machine.vmstat()["pgfault"] == faults + 1


def test_unmergeable_without_memory():
    """EAGAIN, and what could not be unmerged stays merged and mergeable."""
    with ksm.Machine(memory="256K", max_memory="256K") as machine:
        process, filler = machine.spawn(), machine.spawn()
        addr = merged(machine, process, 20)
        rest = filler.mmap(64 * PAGE)
        filler.touch(rest, (machine.free_pages() - 3) * PAGE)
        with pytest.raises(OSError, match="unavailable") as info:
            process.madvise(addr, 20 * PAGE, ksm.MADV_UNMERGEABLE)
        assert info.value.errno == errno.EAGAIN
        assert machine.check() == []
        assert process.maps()[0].mergeable
        assert sum(not word & ksm.PAGE_KSM for word in process.page_table(addr, 20 * PAGE)) == 3
        assert process.read(addr, 20 * PAGE) == b"merged!!" * (20 * PAGE // 8)
        filler.exit()
        process.madvise(addr, 20 * PAGE, ksm.MADV_UNMERGEABLE)
        assert not any(word & ksm.PAGE_KSM for word in process.page_table(addr, 20 * PAGE))
        assert machine.check() == []


def test_ksm_zero_pages(machine, process):
    machine.ksm.use_zero_pages = 1
    addr = process.mmap(3 * PAGE)
    process.write(addr, bytes(3 * PAGE))
    process.madvise(addr, 3 * PAGE, ksm.MADV_MERGEABLE)
    machine.ksm.scan(2)
    assert [word & 0xFF for word in process.page_table(addr, 3 * PAGE)] == [ksm.PAGE_PRESENT | ksm.PAGE_ZERO | ksm.PAGE_KSM_ZERO] * 3
    assert process.rss() == 0
    child = process.fork()
    assert (process.ksm_zero_pages, child.ksm_zero_pages, machine.ksm.ksm_zero_pages) == (3, 3, 6)
    child.write(addr, b"1")
    child.madvise(addr, 3 * PAGE, ksm.MADV_DONTNEED)
    assert (child.ksm_zero_pages, machine.ksm.ksm_zero_pages) == (0, 3)
    process.madvise(addr, 3 * PAGE, ksm.MADV_UNMERGEABLE)
    assert (process.ksm_zero_pages, machine.ksm.ksm_zero_pages, process.rss()) == (0, 0, 3)


def test_mprotect_does_not_make_merged_pages_writable(machine, process):
    addr = merged(machine, process, 2)
    process.mprotect(addr, 2 * PAGE, ksm.PROT_READ)
    process.mprotect(addr, 2 * PAGE, RW)
    assert machine.check() == []
    process.write(addr, b"M")
    assert process.read(addr + PAGE, 8) == b"merged!!"


def test_a_moved_mapping_is_unmerged_first(machine, process):
    addr = merged(machine, process, 3)
    to = process.mmap(3 * PAGE)
    process.mremap(addr, 3 * PAGE, 3 * PAGE, new_addr=to)
    assert not any(word & ksm.PAGE_KSM for word in process.page_table(to, 3 * PAGE))
    assert process.maps()[0].mergeable
    machine.ksm.scan(3)
    assert machine.ksm.pages_sharing == 2


# Shared memory

def test_shared_memory_is_seen_by_parent_and_child(machine, process):
    addr = process.mmap(2 * PAGE, flags=SHARED)
    process.write(addr, b"parent")
    child = process.fork()
    child.write(addr + PAGE, b"child")
    assert process.read(addr + PAGE, 5) == b"child"
    assert child.read(addr, 6) == b"parent"
    assert frames(child, addr, 2) == frames(process, addr, 2)
    process.exit()
    assert child.read(addr, 6) == b"parent"
    child.munmap(addr, PAGE)
    assert machine.check() == []
    child.exit()
    machine.lru_add_drain_all()
    assert machine.free_pages() == machine.total_pages() - 1


# Access of a debugger

def test_forced_writes(machine, process):
    addr = process.mmap(3 * PAGE)
    process.write(addr, b"same" * (3 * PAGE // 4))
    process.mprotect(addr, 3 * PAGE, ksm.PROT_READ)
    child = process.fork()
    process.write(addr, b"forced", force=True)
    assert process.read(addr, 6) == b"forced"
    assert child.read(addr, 6) == b"samesa"
    process.madvise(addr, 3 * PAGE, ksm.MADV_MERGEABLE)
    machine.ksm.scan(3)
    assert machine.check() == []
    process.write(addr + PAGE, b"again", force=True)
    assert process.read(addr + PAGE, 6) == b"againa"
    assert child.read(addr + PAGE, 6) == b"samesa"
    shared = process.mmap(PAGE, ksm.PROT_READ, SHARED)
    with pytest.raises(OSError, match="Bad address"):
        process.write(shared, b"x", force=True)
    assert process.read(shared, 1, force=True) == b"\0"


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("before", [0, 1, 2])
def test_access_that_runs_out_of_memory(before, force):
    """ENOMEM, also when some pages were done before."""
    with ksm.Machine("1M", max_memory="1M", swap="64K") as machine:
        process = machine.spawn()
        addr = process.mmap(4 * PAGE)
        process.write(addr, b"o" * 4 * PAGE)
        process.swap_out(addr, 4 * PAGE)
        machine.fail("page", 1 + before, 1 << 61)
        with pytest.raises(OSError, match=f"{before * PAGE} done") as info:
            process.read(addr, 4 * PAGE, force=force)
        assert info.value.errno == errno.ENOMEM
        with pytest.raises(OSError, match=f"{before * PAGE} done") as info:
            process.write(addr, b"n" * 4 * PAGE, force=force)
        assert info.value.errno == errno.ENOMEM
        machine.fail("page", 0)
        assert process.read(addr, 4 * PAGE, force=force) == b"n" * before * PAGE + b"o" * (4 - before) * PAGE
        with pytest.raises(OSError, match=f"{4 * PAGE} done") as info:
            process.read(addr, 5 * PAGE, force=force)
        assert info.value.errno == errno.EFAULT


def test_exec_starts_empty(machine, process):
    addr = merged(machine, process, 2)
    process.prctl(ksm.PR_SET_MEMORY_MERGE, 1)
    process.exec("fresh")
    with pytest.raises(OSError, match="Bad address"):
        process.read(addr, 1)
    assert process.prctl(ksm.PR_GET_MEMORY_MERGE) == 1
    assert [vma.mergeable for vma in process.maps()] == [True]
    assert process.rss() == 0
    machine.ksm.scan(2)
    assert machine.ksm.pages_shared == 0


def test_a_page_table_is_read_alike_in_one_go_and_page_by_page():
    """Across tables, holes, mappings, huge pages, zero pages and pages that are swapped out or merged."""
    huge = 2 << 20
    with ksm.Machine("32M", swap="1M", transparent_hugepage="madvise") as machine:
        process = machine.spawn()
        start = process.mmap(8 * huge)
        base = -(-start // huge) * huge
        process.madvise(base + 2 * huge, huge, ksm.MADV_HUGEPAGE)
        process.write(base + 2 * huge, b"huge")
        for place in (0, 1, 3, 511, 512, 513, 1022, 1023, 1536, 1537, 2047):
            process.write(base + place * PAGE, b"x" * PAGE)
        process.touch(base + 5 * PAGE, 3 * PAGE, write=False)
        process.munmap(base + 100 * PAGE, 600 * PAGE)
        process.mprotect(base + 1023 * PAGE, 2 * PAGE, ksm.PROT_READ)
        process.swap_out(base + 3 * PAGE, PAGE)
        process.madvise(base, 8 * PAGE, ksm.MADV_MERGEABLE)
        machine.ksm.scan(3)
        first, pages = base - 3 * PAGE, 5 * 512 + 7
        words = list(process.page_table(first, pages * PAGE))
        assert words == [process.page_table(first + place * PAGE, PAGE)[0] for place in range(pages)]
        for flag in (ksm.PAGE_PRESENT, ksm.PAGE_KSM, ksm.PAGE_ZERO, ksm.PAGE_ANON, ksm.PAGE_SWAPPED, ksm.PAGE_THP):
            assert any(word & flag for word in words)
        assert sum(1 for word in words if word & ksm.PAGE_THP) == 512
        assert 0 in words

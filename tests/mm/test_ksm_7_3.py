# SPDX-License-Identifier: GPL-2.0-only
"""Machine(era="7.3"): where the KSM of Linux 7.3 differs from that of 6.12. Every test runs the same workload in both eras."""

import errno

import pytest

import ksm

PAGE = ksm.PAGE_SIZE
OLD, NEW = "6.12", "7.3"
KINDS = [(OLD, False), (OLD, True), (NEW, False), (NEW, True)]


@pytest.fixture(params=KINDS, ids=[f"{era}-{'plain' if plain else 'fast'}" for era, plain in KINDS])
def machine(request):
    era, plain = request.param
    with ksm.Machine(memory="8M", max_memory="8M", era=era, plain=plain, swap="256K", clock="manual") as machine:
        machine.ksm.smart_scan = 0
        yield machine
        assert machine.check() == []


def new(machine):
    return machine.era == NEW


def mergeable(process, contents):
    addr = process.mmap(len(contents) * PAGE)
    write(process, addr, contents)
    process.madvise(addr, len(contents) * PAGE, ksm.MADV_MERGEABLE)
    return addr


def write(process, addr, contents):
    for i, letter in enumerate(contents):
        process.write(addr + i * PAGE, letter.encode() * PAGE)
    process.machine.lru_add_drain_all()


def frames(process, addr, pages):
    return [word >> ksm.PAGE_FLAGS_SHIFT for word in process.page_table(addr, pages * PAGE)]


def state(machine):
    return machine.ksm.pages_shared, machine.ksm.pages_sharing, machine.ksm.pages_unshared, machine.ksm.pages_volatile


# What a page meets: the item of a page that was merged has neither checksum nor age

@pytest.mark.parametrize("smart", [0, 1])
def test_a_page_that_gets_the_same_bytes_again(machine, smart):
    """After the copy on write, 6.12 still knows the checksum, and merges at the next visit. 7.3 merges at the one after it."""
    machine.ksm.smart_scan = smart
    process = machine.spawn()
    addr = mergeable(process, "aaa")
    machine.ksm.scan(2)
    write(process, addr, "a")
    machine.ksm.scan()
    assert state(machine) == ((1, 1, 0, 1) if new(machine) else (1, 2, 0, 0))
    machine.ksm.scan()
    assert state(machine) == (1, 2, 0, 0)


def test_a_page_that_gets_other_bytes(machine):
    """Both need two visits."""
    process = machine.spawn()
    addr = mergeable(process, "aaabb")
    machine.ksm.scan(2)
    write(process, addr, "b")
    machine.ksm.scan()
    assert state(machine) == (2, 2, 0, 1)
    machine.ksm.scan()
    assert state(machine) == (2, 3, 0, 0)


@pytest.mark.parametrize("smart", [0, 1])
@pytest.mark.parametrize("way", ["madvise", "prctl", "mremap"])
def test_unmerged_pages_merge_again(machine, way, smart):
    """The nodes of their pages are stale, and found so before the items are."""
    machine.ksm.smart_scan = smart
    process = machine.spawn()
    if way == "prctl":
        process.prctl(ksm.PR_SET_MEMORY_MERGE, 1)
    addr = mergeable(process, "aab")
    machine.ksm.scan(2)
    if way == "madvise":
        process.madvise(addr, 3 * PAGE, ksm.MADV_UNMERGEABLE)
        process.madvise(addr, 3 * PAGE, ksm.MADV_MERGEABLE)
    elif way == "prctl":
        process.prctl(ksm.PR_SET_MEMORY_MERGE, 0)
        process.prctl(ksm.PR_SET_MEMORY_MERGE, 1)
    else:
        # There and back: the items are those of the same addresses, and the bytes, too.
        process.mremap(addr, 3 * PAGE, 3 * PAGE, ksm.MREMAP_MAYMOVE | ksm.MREMAP_FIXED, addr - 64 * PAGE)
        process.mremap(addr - 64 * PAGE, 3 * PAGE, 3 * PAGE, ksm.MREMAP_MAYMOVE | ksm.MREMAP_FIXED, addr)
    assert not any(word & ksm.PAGE_KSM for word in process.page_table(addr, 3 * PAGE))
    machine.lru_add_drain_all()
    machine.ksm.scan()
    assert state(machine) == ((0, 0, 1, 2) if new(machine) else (1, 1, 1, 0))
    machine.ksm.scan()
    assert state(machine) == (1, 1, 1, 0)


@pytest.mark.parametrize("smart", [0, 1])
def test_a_merge_that_is_broken_at_once(machine, smart):
    """There is no memory for the stable node, so both pages are broken: break_cow()."""
    machine.ksm.smart_scan = smart
    process = machine.spawn()
    mergeable(process, "aa")
    machine.ksm.scan()
    machine.fail("ksm_stable_node")
    machine.ksm.scan()
    assert state(machine) == (0, 0, 0, 2)
    machine.ksm.scan()
    assert state(machine) == ((0, 0, 0, 2) if new(machine) else (1, 1, 0, 0))
    machine.ksm.scan()
    assert state(machine) == (1, 1, 0, 0)


@pytest.mark.parametrize("smart", [0, 1])
def test_a_page_that_comes_back_from_swap(machine, smart):
    """Its frame is another one, and its node stale."""
    machine.ksm.smart_scan = smart
    process = machine.spawn()
    addr = mergeable(process, "aa")
    machine.ksm.scan(2)
    process.swap_out(addr, 2 * PAGE)
    assert process.read(addr, 2 * PAGE) == b"a" * (2 * PAGE)
    machine.lru_add_drain_all()
    machine.ksm.scan()
    first = state(machine)
    machine.ksm.scan()
    assert (first, state(machine)) == (((0, 0, 0, 2), (1, 1, 0, 0)) if new(machine) else ((1, 1, 0, 0), (1, 1, 0, 0)))


def passes_until(machine, wanted):
    for number in range(1, 30):
        machine.ksm.scan()
        if state(machine)[:2] == wanted:
            return number
    raise AssertionError(state(machine))


def test_an_old_page_is_young_after_its_merge(machine):
    """Smart scan of 6.12 goes on to skip a page that was old before it merged. In 7.3 it is looked at in each of the next passes."""
    machine.ksm.smart_scan = 1
    process = machine.spawn()
    addr = mergeable(process, "abcd")
    machine.ksm.scan(12)
    write(process, addr, "xxx")
    passes_until(machine, (1, 2))
    skipped = machine.ksm.pages_skipped
    write(process, addr, "x")
    assert passes_until(machine, (1, 2)) == (2 if new(machine) else 9)
    assert machine.ksm.pages_skipped > skipped


@pytest.mark.parametrize("way", ["item", "node", "break_cow"])
def test_when_smart_scan_begins_to_skip(machine, way):
    """A page is skipped first when it is 3 passes old. 6.12 counts from its first pass, 7.3 from the end of its merge, however it ended."""
    machine.ksm.smart_scan = 1
    process = machine.spawn()
    addr = mergeable(process, "aaa" if way == "item" else "aa")
    machine.ksm.scan()
    if way == "break_cow":
        machine.fail("ksm_stable_node")
    machine.ksm.scan()
    write(process, addr, "z" if way == "item" else "yz")
    passes = 0
    while not machine.ksm.pages_skipped:
        machine.ksm.scan()
        passes += 1
    # The next pass does not count for an item that is still at its node. The second page's item has left it with the first one's.
    assert passes == (3 if not new(machine) else 6 if way == "item" else 5)


# The walk over those who map a merged page

def test_moved_mappings_are_found(machine):
    """Pages keep their index when they move. 7.3 looks for it, and has to find a child's page, too."""
    machine.ksm.max_page_sharing = 10
    process = machine.spawn()
    addr = mergeable(process, "aab")
    process.mremap(addr, 2 * PAGE, 2 * PAGE, ksm.MREMAP_MAYMOVE | ksm.MREMAP_FIXED, addr - 64 * PAGE)
    addr -= 64 * PAGE
    machine.ksm.scan(2)
    child = process.fork()
    assert len(set(frames(process, addr, 2) + frames(child, addr, 2))) == 1
    moved = machine.migrate(frames(process, addr, 1)[0])
    assert frames(process, addr, 2) == frames(child, addr, 2) == [moved] * 2
    assert [named for named, _addr in machine.memory_failure(moved)] == [process, child]


# Mappings

def test_new_mappings_join_mergeable_neighbours(machine):
    """Since 6.17, a process that has called prctl() gets one mapping where 6.12 makes two."""
    process = machine.spawn()
    process.prctl(ksm.PR_SET_MEMORY_MERGE, 1)
    addr = process.mmap(2 * PAGE)
    assert process.mmap(2 * PAGE) == addr - 2 * PAGE
    there = [(vma.start, vma.end, vma.mergeable) for vma in process.maps() if addr - 2 * PAGE <= vma.start < addr + 2 * PAGE]
    apart = [(addr - 2 * PAGE, addr, True), (addr, addr + 2 * PAGE, True)]
    assert there == ([(addr - 2 * PAGE, addr + 2 * PAGE, True)] if new(machine) else apart)
    heap = process.brk()
    for pages in (1, 2):
        process.brk(heap + pages * PAGE)
    assert len([vma for vma in process.maps() if heap <= vma.start < heap + 2 * PAGE]) == (1 if new(machine) else 2)


@pytest.mark.parametrize("era", [OLD, NEW])
def test_a_huge_page_in_joined_mappings(era):
    """Two mappings of half a huge page: only where they are one, a huge page fits."""
    with ksm.Machine(memory="16M", max_memory="16M", era=era, transparent_hugepage="always") as machine:
        process = machine.spawn()
        process.prctl(ksm.PR_SET_MEMORY_MERGE, 1)
        addr = process.mmap(1024 * PAGE)
        process.munmap(addr, 1024 * PAGE)
        addr += -addr % (512 * PAGE)
        for half in (addr, addr + 256 * PAGE):
            process.mmap(256 * PAGE, flags=ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED, addr=half)
        process.write(addr, b"a")
        assert process.rss() == (512 if era == NEW else 1)
        assert machine.check() == []


def test_who_registers_again(machine):
    """ksmd has dropped a process without mergeable memory. In 7.3 only mergeable memory brings it back."""
    process = machine.spawn()
    process.prctl(ksm.PR_SET_MEMORY_MERGE, 1)
    for vma in process.maps():
        process.munmap(vma.start, vma.end - vma.start)
    machine.ksm.scan(2)
    machine.ksm.trace.start()
    process.mmap(PAGE, flags=ksm.MAP_SHARED | ksm.MAP_ANONYMOUS)
    assert [event.name for event in machine.ksm.trace.read()] == ([] if new(machine) else ["ksm_enter"])
    process.mmap(PAGE)
    assert [event.name for event in machine.ksm.trace.read()] == (["ksm_enter"] if new(machine) else [])


def test_mremap_moves_all_mappings_of_a_range(machine):
    """Since 6.17. Merged pages are unmerged in each."""
    process = machine.spawn()
    addr = mergeable(process, "aabbcc")
    machine.ksm.scan(2)
    process.mprotect(addr + 2 * PAGE, PAGE, ksm.PROT_READ)
    process.munmap(addr + 3 * PAGE, PAGE)
    there = addr - 64 * PAGE
    if not new(machine):
        with pytest.raises(OSError, match="Bad address") as caught:
            process.mremap(addr, 6 * PAGE, 6 * PAGE, ksm.MREMAP_MAYMOVE | ksm.MREMAP_FIXED, there)
        assert caught.value.errno == errno.EFAULT
        return
    assert process.mremap(addr, 6 * PAGE, 6 * PAGE, ksm.MREMAP_MAYMOVE | ksm.MREMAP_FIXED, there) == there
    assert [process.read(there + i * PAGE, 1) for i in (0, 1, 2, 4, 5)] == [b"a", b"a", b"b", b"c", b"c"]
    for empty in (addr, there + 3 * PAGE):
        with pytest.raises(OSError, match="Bad address"):
            process.read(empty, 1)
    assert not any(word & ksm.PAGE_KSM for word in process.page_table(there, 6 * PAGE))
    assert process.mremap(there, 2 * PAGE, 2 * PAGE, ksm.MREMAP_MAYMOVE | ksm.MREMAP_FIXED, addr) == addr
    for start, new_addr, error in ((there, addr, errno.EFAULT), (addr, addr + 1, errno.EINVAL), (addr, addr + PAGE, errno.EINVAL)):
        with pytest.raises(OSError, match="mremap") as caught:
            process.mremap(start, 2 * PAGE, 2 * PAGE, ksm.MREMAP_MAYMOVE | ksm.MREMAP_FIXED, new_addr)
        assert caught.value.errno == error
    machine.ksm.scan(3)
    assert state(machine)[:2] == (2, 2)


def test_what_a_failed_mremap_leaves(machine):
    """Since 6.17, the old place is looked at before the new place is unmapped."""
    process = machine.spawn()
    addr = mergeable(process, "aa")
    target = addr - 64 * PAGE
    process.mmap(4 * PAGE, flags=ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED, addr=target)
    write(process, target, "z")
    process.munmap(addr + PAGE, PAGE)
    with pytest.raises(OSError, match="Bad address") as caught:
        process.mremap(addr, 2 * PAGE, 3 * PAGE, ksm.MREMAP_MAYMOVE | ksm.MREMAP_FIXED, target)
    assert caught.value.errno == errno.EFAULT
    if new(machine):
        assert process.read(target, 1) == b"z"
    else:
        with pytest.raises(OSError, match="Bad address"):
            process.read(target, 1)


def test_a_mapping_that_is_to_be_larger_than_all_addresses(machine):
    """Since 6.17, the new size is looked at before the mapping."""
    process = machine.spawn()
    addr = process.mmap(PAGE)
    for start, older in ((addr, errno.ENOMEM), (addr - (1 << 40), errno.EFAULT)):
        with pytest.raises(OSError, match="mremap") as caught:
            process.mremap(start, PAGE, 1 << 47)
        assert caught.value.errno == (errno.EINVAL if new(machine) else older)


# The batches of the LRU lists: who waits in one has a reference more

@pytest.mark.parametrize("way", ["munmap", "exit", "exec", "madvise"])
def test_unmapped_pages_wait_in_the_batch(machine, way):
    """6.12 empties the batches before it unmaps, so the pages are free at once. In 7.3 the batch keeps them."""
    process = machine.spawn()
    addr = process.mmap(4 * PAGE)
    process.write(addr, b"abcd" * PAGE)
    before = machine.free_pages()
    if way == "madvise":
        process.madvise(addr, 4 * PAGE, ksm.MADV_DONTNEED)
    elif way == "munmap":
        process.munmap(addr, 4 * PAGE)
    else:
        getattr(process, way)()
    freed = machine.free_pages() - before
    machine.lru_add_drain_all()
    assert (freed >= 4) != new(machine)
    assert machine.free_pages() - before >= 4


@pytest.mark.parametrize("way", ["shared", "left by a child", "swapped out"])
def test_write_faults_and_the_batch(machine, way):
    """A new page merges when it has left the batch. In 6.12 each of these faults empties it; in 7.3 only that of a page that the process
    seems to have alone.
    """
    process, other = machine.spawn(), machine.spawn()
    addr = mergeable(process, "aa")
    there = other.mmap(PAGE)
    if way == "swapped out":
        write(other, there, "b")
        other.swap_out(there, PAGE)
    machine.ksm.scan()
    machine.ksm.scan(pages=1)
    process.madvise(addr + PAGE, PAGE, ksm.MADV_DONTNEED)
    process.write(addr + PAGE, b"a" * PAGE)
    if way != "swapped out":
        other.write(there, b"b")
        child = other.fork()
        if way == "left by a child":
            child.exit()
    other.write(there, b"c")
    machine.ksm.scan(pages=1)
    assert machine.ksm.pages_shared == (way == "left by a child" or not new(machine))


# What can be read

def test_the_files_of_a_process(machine):
    process = machine.spawn()
    process.mmap(PAGE)
    stat = {"ksm_rmap_items": 0, "ksm_zero_pages": 0, "ksm_merging_pages": 0, "ksm_process_profit": 0}
    for asked in (0, 1, 0):
        process.prctl(ksm.PR_SET_MEMORY_MERGE, asked)
        more = {"ksm_merge_any": asked, "ksm_mergeable": asked}
        assert list(process.ksm_stat().items()) == list((stat | more if new(machine) else stat).items())
    mergeable(process, "a")
    if new(machine):
        assert (process.ksm_stat()["ksm_merge_any"], process.ksm_stat()["ksm_mergeable"]) == (0, 1)


def test_the_files_of_sysfs():
    with ksm.Machine(memory="1M", era=OLD) as machine, ksm.Machine(memory="1M", era=NEW) as newer:
        assert {name: machine.ksm.show(name) for name in machine.ksm.names()} == {name: newer.ksm.show(name) for name in newer.ksm.names()}
        assert machine.slabinfo().keys() == newer.slabinfo().keys()

# SPDX-License-Identifier: GPL-2.0-only
"""The checks of the kernel's own test programs for KSM, written anew: tools/testing/selftests/mm/ksm_tests.c and ksm_functional_tests.c of
Linux 6.12, and LTP's ksm01, ksm05, ksm06 and ksm07."""

import pytest

import ksm
from ksm import PAGE_SIZE

MIB = 1 << 20
READ_WRITE = ksm.PROT_READ | ksm.PROT_WRITE


@pytest.fixture
def machine():
    with ksm.Machine(memory="64M", max_memory="64M") as machine:
        yield machine


def filled(process, size, value=b"*", prot=READ_WRITE):
    addr = process.mmap(size)
    process.write(addr, value * size)
    if prot != READ_WRITE:
        process.mprotect(addr, size, prot)
    return addr


def merge(machine, passes=3):
    machine.ksm.scan(passes=passes)


def frames(process, addr, size):
    return [word >> ksm.PAGE_FLAGS_SHIFT for word in process.page_table(addr, size) if word]


def duplicates(process, addr, size):
    """Whether a frame appears twice in the range."""
    found = frames(process, addr, size)
    return len(set(found)) < len(found)


def merged(machine):
    """The number of merged pages as ksm_tests.c counts them: the first and the further sharers together."""
    return machine.ksm.pages_shared + machine.ksm.pages_sharing


def mergeable(process, addr, size, how):
    if how == "madvise":
        process.madvise(addr, size, ksm.MADV_MERGEABLE)
    else:
        process.prctl(ksm.PR_SET_MEMORY_MERGE, 1)


class TestKsmTests:
    """selftests/mm/ksm_tests.c"""

    @pytest.mark.parametrize("how", ["madvise", "prctl"])
    @pytest.mark.parametrize("prot", [READ_WRITE, ksm.PROT_READ, READ_WRITE | ksm.PROT_EXEC])
    def test_merge(self, machine, how, prot):  # -M
        process = machine.spawn()
        addr = filled(process, 10 * PAGE_SIZE, prot=prot)
        mergeable(process, addr, 10 * PAGE_SIZE, how)
        merge(machine)
        assert merged(machine) == 10
        assert process.read(addr, 10 * PAGE_SIZE) == b"*" * 10 * PAGE_SIZE
        assert machine.check() == []

    @pytest.mark.parametrize("how", ["madvise", "prctl"])
    def test_unmerge(self, machine, how):  # -U
        process = machine.spawn()
        addr = filled(process, 2 * PAGE_SIZE)
        mergeable(process, addr, 2 * PAGE_SIZE, how)
        merge(machine)
        assert merged(machine) == 2
        process.write(addr, b"-")
        process.write(addr + PAGE_SIZE, b"+")
        merge(machine, passes=1)
        assert merged(machine) == 0

    @pytest.mark.parametrize("use_zero_pages", [0, 1])
    def test_zero_page_merge(self, machine, use_zero_pages):  # -Z
        machine.ksm.use_zero_pages = use_zero_pages
        process = machine.spawn()
        addr = filled(process, 10 * PAGE_SIZE, b"\0")
        mergeable(process, addr, 10 * PAGE_SIZE, "madvise")
        merge(machine)
        assert merged(machine) == (0 if use_zero_pages else 10)
        assert machine.ksm.ksm_zero_pages == (10 if use_zero_pages else 0)

    @pytest.mark.parametrize("merge_across_nodes", [0, 1])
    def test_numa_merge(self, merge_across_nodes):  # -N
        with ksm.Machine(memory="16M", max_memory="16M", nodes=2) as machine:
            machine.ksm.merge_across_nodes = merge_across_nodes
            for node in range(2):
                process = machine.spawn(node=node)
                mergeable(process, filled(process, PAGE_SIZE), PAGE_SIZE, "madvise")
            merge(machine)
            assert merged(machine) == (2 if merge_across_nodes else 0)
            assert machine.check() == []


class TestFunctional:
    """selftests/mm/ksm_functional_tests.c"""

    SIZE = 2 * MIB

    def merged_range(self, machine, process, value, how="madvise", prot=READ_WRITE):
        addr = filled(process, self.SIZE, value, prot)
        mergeable(process, addr, self.SIZE, how)
        merge(machine)
        return addr

    def test_unmerge(self, machine):
        process = machine.spawn()
        addr = self.merged_range(machine, process, b"\xcf")
        assert duplicates(process, addr, self.SIZE)
        process.madvise(addr, self.SIZE, ksm.MADV_UNMERGEABLE)
        assert not duplicates(process, addr, self.SIZE)

    def test_unmerge_zero_pages(self, machine):
        machine.ksm.use_zero_pages = 1
        process = machine.spawn()
        addr = self.merged_range(machine, process, b"\0")
        assert process.ksm_zero_pages == self.SIZE // PAGE_SIZE
        process.madvise(addr, self.SIZE // 2, ksm.MADV_UNMERGEABLE)
        assert process.ksm_zero_pages == self.SIZE // PAGE_SIZE // 2
        for offset in range(self.SIZE // 2, self.SIZE, PAGE_SIZE):
            process.write(addr + offset, offset.to_bytes(4, "little"))
        assert process.ksm_zero_pages == 0
        assert machine.ksm.ksm_zero_pages == 0
        assert not duplicates(process, addr, self.SIZE)

    def test_unmerge_discarded(self, machine):
        process = machine.spawn()
        addr = self.merged_range(machine, process, b"\xcf")
        process.madvise(addr, self.SIZE // 2, ksm.MADV_DONTNEED)
        process.madvise(addr, self.SIZE, ksm.MADV_UNMERGEABLE)
        assert not duplicates(process, addr, self.SIZE)
        assert process.read(addr, self.SIZE) == b"\0" * (self.SIZE // 2) + b"\xcf" * (self.SIZE // 2)

    def test_unmerge_write_protected(self, machine):
        """Unmerging must not need a write. The suite write-protects by userfaultfd, this test by mprotect."""
        process = machine.spawn()
        addr = self.merged_range(machine, process, b"\xcf")
        process.mprotect(addr, self.SIZE, ksm.PROT_READ)
        process.madvise(addr, self.SIZE, ksm.MADV_UNMERGEABLE)
        assert not duplicates(process, addr, self.SIZE)

    def test_prot_none(self, machine):
        process = machine.spawn()
        addr = self.merged_range(machine, process, b"\x11", prot=ksm.PROT_NONE)
        assert duplicates(process, addr, self.SIZE)
        for offset in range(0, self.SIZE // 2, PAGE_SIZE):
            process.write(addr + offset, offset.to_bytes(4, "little"), force=True)
        process.madvise(addr, self.SIZE, ksm.MADV_UNMERGEABLE)
        assert not duplicates(process, addr, self.SIZE)
        with pytest.raises(OSError, match="Bad address"):
            process.read(addr, 1)
        assert process.read(addr + PAGE_SIZE, 8, force=True) == PAGE_SIZE.to_bytes(4, "little") + b"\x11" * 4

    def test_prctl(self, machine):
        process = machine.spawn()
        for value in (1, 0):
            process.prctl(ksm.PR_SET_MEMORY_MERGE, value)
            assert process.prctl(ksm.PR_GET_MEMORY_MERGE) == value

    def test_prctl_fork(self, machine):
        parent = machine.spawn()
        parent.prctl(ksm.PR_SET_MEMORY_MERGE, 1)
        child = parent.fork()
        assert child.prctl(ksm.PR_GET_MEMORY_MERGE) == 1
        addr = filled(child, self.SIZE, b"\xcf")
        merge(machine)
        assert child.ksm_merging_pages == self.SIZE // PAGE_SIZE
        assert duplicates(child, addr, self.SIZE)

    def test_prctl_fork_exec(self, machine):
        parent = machine.spawn()
        parent.prctl(ksm.PR_SET_MEMORY_MERGE, 1)
        child = parent.fork()
        child.exec("program")
        assert child.prctl(ksm.PR_GET_MEMORY_MERGE) == 1
        addr = filled(child, self.SIZE, b"\xcf")
        merge(machine)
        assert child.ksm_merging_pages == self.SIZE // PAGE_SIZE
        assert duplicates(child, addr, self.SIZE)

    def test_prctl_unmerge(self, machine):
        process = machine.spawn()
        addr = self.merged_range(machine, process, b"\xcf", how="prctl")
        assert duplicates(process, addr, self.SIZE)
        process.prctl(ksm.PR_SET_MEMORY_MERGE, 0)
        assert not duplicates(process, addr, self.SIZE)

    def test_fork_ksm_merging_pages(self, machine):
        """A child begins with counts of its own: they are 0 until ksmd has scanned the child."""
        parent = machine.spawn()
        addr = self.merged_range(machine, parent, b"\xcf")
        child = parent.fork()
        assert parent.ksm_merging_pages > 0
        assert child.ksm_merging_pages == 0
        assert child.ksm_rmap_items == 0
        merge(machine, passes=1)
        assert child.ksm_merging_pages == self.SIZE // PAGE_SIZE
        assert duplicates(child, addr, self.SIZE)


class TestLtp:
    """The Linux Test Project's testcases/kernel/mem/ksm"""

    PAGES = 64

    def test_ksm01(self, machine):
        """Three processes fill their memory with letters, four times in turn. The counters follow, and run=2 clears them."""
        machine.ksm.max_page_sharing = 3 * self.PAGES
        processes = [machine.spawn() for _ in range(3)]
        size = self.PAGES * PAGE_SIZE
        addrs = [process.mmap(size) for process in processes]
        for process, addr in zip(processes, addrs, strict=True):
            process.madvise(addr, size, ksm.MADV_MERGEABLE)

        def counters(letters, last=None):
            for process, addr, letter in zip(processes, addrs, letters, strict=True):
                process.write(addr, letter * size)
            if last:
                processes[1].write(addrs[1] + size - 1, last)
            merge(machine, passes=8)
            assert machine.check() == []
            k = machine.ksm
            return k.pages_shared, k.pages_sharing, k.pages_unshared, k.pages_volatile

        machine.ksm.smart_scan = 0
        every = 3 * self.PAGES
        assert counters([b"c", b"a", b"a"]) == (2, every - 2, 0, 0)
        assert counters([b"c", b"b", b"a"]) == (3, every - 3, 0, 0)
        assert counters([b"d", b"d", b"d"]) == (1, every - 1, 0, 0)
        assert counters([b"d", b"d", b"d"], last=b"e") == (1, every - 2, 1, 0)
        machine.ksm.run = 2
        assert (machine.ksm.pages_shared, machine.ksm.pages_sharing, machine.ksm.pages_unshared) == (0, 0, 0)
        assert machine.ksm.pages_volatile == 0
        for process, addr, last in zip(processes, addrs, [b"d", b"e", b"d"], strict=True):
            assert process.read(addr, size) == b"d" * (size - 1) + last

    def test_ksm05(self, machine):
        """Memory that is mergeable and was never touched, in a process that ends while ksmd scans."""
        machine.ksm.sleep_millisecs = 0
        machine.ksm.run = 1
        for _ in range(50):
            process = machine.spawn()
            addr = process.mmap(PAGE_SIZE)
            process.madvise(addr, PAGE_SIZE, ksm.MADV_MERGEABLE)
            process.exit()
        machine.ksm.run = 0
        assert machine.ksm.scan(passes=2) is False
        assert machine.check() == []

    def test_ksm06(self):
        """merge_across_nodes: equal pages of all nodes become one page, or one page on each node."""
        nodes = 4
        with ksm.Machine(memory="32M", max_memory="32M", nodes=nodes) as machine:
            for knob, shared in ((1, 1), (0, nodes)):
                machine.ksm.run = 2
                machine.ksm.merge_across_nodes = knob
                processes = [machine.spawn(node=node) for node in range(nodes)]
                for process in processes:
                    mergeable(process, filled(process, 10 * PAGE_SIZE, b"\1"), 10 * PAGE_SIZE, "madvise")
                machine.ksm.run = 0
                merge(machine)
                assert (machine.ksm.pages_shared, machine.ksm.pages_sharing) == (shared, 10 * nodes - shared)
                assert machine.check() == []
                for process in processes:
                    process.exit()
                merge(machine)

    def test_ksm07(self, machine):
        """Smart scanning: pages that never merge are skipped in the end."""
        process = machine.spawn()
        addr = process.mmap(self.PAGES * PAGE_SIZE)
        for page in range(self.PAGES):
            process.write(addr + page * PAGE_SIZE, bytes([page]) * PAGE_SIZE)
        process.madvise(addr, self.PAGES * PAGE_SIZE, ksm.MADV_MERGEABLE)
        merge(machine, passes=4)
        assert machine.ksm.pages_skipped == 0
        merge(machine, passes=1)
        assert machine.ksm.pages_skipped == self.PAGES


def test_mremap_over_a_merged_range(machine):
    """Memory that is moved is unmerged first. The mapping that it replaces goes with its merged pages."""
    process = machine.spawn()
    size = 16 * PAGE_SIZE
    first, second = filled(process, size, b"1"), filled(process, size, b"2")
    for addr in (first, second):
        process.madvise(addr, size, ksm.MADV_MERGEABLE)
    merge(machine)
    assert merged(machine) == 32
    assert process.mremap(first, size, size, new_addr=second) == second
    assert process.read(second, size) == b"1" * size
    assert not duplicates(process, second, size)
    assert machine.check() == []
    merge(machine)
    assert merged(machine) == 16
    assert duplicates(process, second, size)

# SPDX-License-Identifier: GPL-2.0-only
"""Every allocation fails once: the same life runs again and again, and each time another allocation fails. Whichever it is, the machine
stays sound, every byte is what was last written, and in the end no frame and no object is lost."""

import errno

import pytest

import ksm

PAGE = ksm.PAGE_SIZE
SHARED, PAIR, ZEROS = b"shared" * 682 + b"....", b"pair" * 1024, bytes(PAGE)
FOR_EVER = 1 << 40


class Life:
    """Two processes and a child, on two NUMA nodes, with few sharers for a page: each kind of merge, and each way of unmerging.

    A call that lacks memory may fail. Later calls that need its result are then left out.
    """

    def __init__(self, machine, crowded=False):
        self.machine = machine
        self.crowded = crowded  # no frame can be had while KSM scans
        self.pages = {}         # (process, address) -> what was written last
        self.most = {}          # the largest value that each counter had

    def may_fail(self, call, *args):
        try:
            return call(*args)
        except OSError as e:
            assert e.errno in (errno.ENOMEM, errno.EAGAIN)
            return e
        finally:
            assert self.machine.check() == []

    def write(self, process, addr, contents):
        for i, data in enumerate(contents):
            place = process, addr + i * PAGE
            if not isinstance(self.may_fail(process.write, place[1], data), OSError):
                self.pages[place] = data

    def fill(self, process, contents):
        addr = self.may_fail(process.mmap, len(contents) * PAGE)
        if isinstance(addr, OSError):
            return None
        self.pages.update({(process, addr + i * PAGE): ZEROS for i in range(len(contents))})
        self.write(process, addr, contents)
        return addr

    def spawn(self, node):
        process = self.may_fail(self.machine.spawn, None, node)
        return None if isinstance(process, OSError) else process

    def fork(self, parent):
        child = self.may_fail(parent.fork)
        if isinstance(child, OSError):
            return None
        self.pages.update({(child, addr): data for (process, addr), data in self.pages.items() if process is parent})
        return child

    def unmap(self, process):
        for vma in process.maps():
            self.may_fail(process.munmap, vma.start, vma.end - vma.start)
        left = [range(vma.start, vma.end) for vma in process.maps()]
        self.pages = {place: data for place, data in self.pages.items() if place[0] is not process or any(place[1] in r for r in left)}

    def scan(self, passes):
        if self.crowded:
            self.machine.fail("page", 1, FOR_EVER)
        for _ in range(passes):
            self.may_fail(self.machine.ksm.scan)
            for name, value in {**self.machine.vmstat(), **self.machine.ksm.attributes()}.items():
                if isinstance(value, int):
                    self.most[name] = max(value, self.most.get(name, 0))
        if self.crowded:
            self.machine.fail("page", 0)

    def set(self, name, value):
        self.may_fail(setattr, self.machine.ksm, name, value)

    def live(self):
        knobs = self.machine.ksm
        knobs.smart_scan, knobs.max_page_sharing, knobs.merge_across_nodes, knobs.use_zero_pages = 0, 2, 0, 1
        knobs.stable_node_chains_prune_millisecs = 0
        one, two = self.spawn(0), self.spawn(1)
        mine = his = None
        if one is not None:
            mine = self.fill(one, [SHARED] * 5 + [PAIR] * 2 + [ZEROS, b"alone" + ZEROS[5:]])
            if mine is not None:
                self.may_fail(one.madvise, mine, 9 * PAGE, ksm.MADV_MERGEABLE)
        if two is not None:
            self.may_fail(two.prctl, ksm.PR_SET_MEMORY_MERGE, 1)
            his = self.fill(two, [SHARED] * 2 + [PAIR] * 2)
        self.scan(3)
        child = self.fork(one) if one is not None else None
        self.scan(1)
        # Merged pages with several sharers go to another node, where they have equals
        if mine is not None:
            self.may_fail(one.move_pages, mine, 9 * PAGE, 1)
        self.scan(2)
        # The pages go to the swap area and back, and some are written
        if mine is not None:
            self.may_fail(one.swap_out, mine, 9 * PAGE)
            self.write(one, mine, [b"written" + ZEROS[7:]])
            self.scan(1)
            self.may_fail(one.madvise, mine + PAGE, 3 * PAGE, ksm.MADV_UNMERGEABLE)
            self.may_fail(one.madvise, mine + PAGE, 3 * PAGE, ksm.MADV_MERGEABLE)
        if two is not None:
            self.may_fail(two.prctl, ksm.PR_SET_MEMORY_MERGE, 0)
            self.may_fail(two.prctl, ksm.PR_SET_MEMORY_MERGE, 1)
            # KSM forgets a process without mergeable memory, until the process maps some
            self.unmap(two)
            self.scan(1)
            his = self.fill(two, [PAIR] * 3)
        self.scan(2)
        # Pages are swapped out while merged, and unmerged before they are back
        if his is not None:
            self.may_fail(two.swap_out, his, 3 * PAGE)
        self.set("run", 2)
        if his is not None:
            self.may_fail(two.read, his, 3 * PAGE)
        self.set("run", 0)
        self.scan(2)
        if child is not None:
            child.exit()
            self.pages = {place: data for place, data in self.pages.items() if place[0] is not child}

    def end(self):
        for (process, addr), data in self.pages.items():
            assert process.read(addr, PAGE) == data
        assert self.machine.check() == []
        for process in self.machine.processes.copy().values():
            process.exit()
        assert self.machine.check() == []
        self.machine.ksm.scan(2)
        self.machine.ksm.run = 2
        self.machine.swapoff()
        self.machine.lru_add_drain_all()
        assert self.machine.check() == []
        assert self.machine.slabinfo() == dict.fromkeys(self.machine.slabinfo(), 0)
        assert self.machine.free_pages() == self.machine.total_pages() - 1
        assert self.machine.swap_pages() == (0, 0)


def new_machine():
    return ksm.Machine(memory="4M", max_memory="4M", nodes=2, swap="256K", clock="manual")


def lived(what, nth, times, crowded=False):
    """Run one life: how many failures of the allocation are left at its end."""
    with new_machine() as machine:
        life = Life(machine, crowded)
        machine.fail(what, nth, times)
        life.live()
        left = machine.fail(what, 0)
        life.end()
        return left


def test_the_life_has_everything_in_it():
    with new_machine() as machine:
        life = Life(machine)
        life.live()
        wanted = ("cow_ksm", "ksm_swpin_copy", "pgmigrate_success", "pswpin", "pswpout", "pages_shared", "pages_sharing", "pages_unshared",
                  "stable_node_chains", "stable_node_dups", "ksm_zero_pages")
        assert [name for name in wanted if not life.most[name]] == []
        life.end()


# How many allocations a life has, at least
CALLS = {"page": 30, "mm_struct": 3, "vm_area_struct": 6, "anon_vma": 4, "anon_vma_chain": 6, "ksm_rmap_item": 25, "ksm_stable_node": 8,
         "ksm_mm_slot": 4}


@pytest.mark.parametrize("times", [1, FOR_EVER], ids=["once", "from_then_on"])
@pytest.mark.parametrize("what", CALLS)
def test_each_allocation_fails(what, times):
    nth = 1
    while lived(what, nth, times) < times:
        nth += 1
    assert nth > CALLS[what]


@pytest.mark.parametrize("times", [1, FOR_EVER], ids=["once", "from_then_on"])
def test_a_merge_that_fails_and_cannot_be_undone(times):
    """A merged page without a stable node stays merged, because there is no frame to break it. Later it is unmerged, or gets a node."""
    nth = 1
    while lived("ksm_stable_node", nth, times, crowded=True) < times:
        nth += 1
    assert nth > CALLS["ksm_stable_node"]

# SPDX-License-Identifier: GPL-2.0-only
"""Two ways into a broken unstable tree that mm/ksm.c of Linux 6.12 leaves open, and that the port closes."""

import pytest

import ksm

PAGE = ksm.PAGE_SIZE


def unique(process, pages, seed):
    """A mergeable mapping of unique pages."""
    addr = process.mmap(pages * PAGE)
    for i in range(pages):
        process.write(addr + i * PAGE, b"%d %d" % (seed, i))
    process.madvise(addr, pages * PAGE, ksm.MADV_MERGEABLE)
    return addr


@pytest.mark.parametrize("leave", [False, True])
def test_roots_of_other_nodes_are_reset(leave):
    """merge_across_nodes is switched on and off again between two passes: the items that the other node's root led to are gone."""
    with ksm.Machine(memory="4M", max_memory="4M", nodes=2) as machine:
        knobs = machine.ksm
        knobs.smart_scan = 0
        knobs.merge_across_nodes = 0
        filler = machine.spawn()
        filler.touch(filler.mmap(511 * PAGE), 511 * PAGE)       # all of node 0
        first, second = machine.spawn(), machine.spawn()
        unique(first, 20, 1)
        unique(second, 20, 2)
        knobs.scan()
        assert not knobs.scan(pages=40)
        assert knobs.pages_unshared == 40
        assert machine.check() == []
        knobs.merge_across_nodes = 1
        knobs.scan()
        assert machine.check() == []
        if leave:
            first.exit()
            knobs.scan(pages=1)
        else:
            knobs.scan(pages=20)
        assert machine.check() == []
        knobs.merge_across_nodes = 0
        assert machine.check() == []
        knobs.scan(pages=20)
        assert machine.check() == []
        knobs.scan(2)
        assert machine.check() == []
        assert knobs.pages_unshared == (20 if leave else 40)


def test_unmerging_that_fails_within_a_pass():
    """run = 2 without memory gives up in the middle. The pass that it ended must not leave items in the tree of the next pass."""
    with ksm.Machine(memory="512K", max_memory="512K") as machine:
        knobs = machine.ksm
        knobs.smart_scan = 0
        first, second, filler = machine.spawn(), machine.spawn(), machine.spawn()
        same = first.mmap(10 * PAGE)
        first.write(same, b"same" * (10 * PAGE // 4))
        first.madvise(same, 10 * PAGE, ksm.MADV_MERGEABLE)
        unique(second, 30, 1)
        knobs.scan(3)
        assert (knobs.pages_shared, knobs.pages_sharing, knobs.pages_unshared) == (1, 9, 30)
        assert not knobs.scan(pages=40)
        addr = filler.mmap(128 * PAGE)
        with pytest.raises(OSError, match="allocate"):
            filler.touch(addr, 128 * PAGE)
        with pytest.raises(OSError, match="run"):
            knobs.run = 2
        assert knobs.run == 0
        assert knobs.pages_unshared == 30
        filler.exit()
        assert machine.check() == []
        for _ in range(45):
            knobs.scan(pages=1)
            assert machine.check() == []
        assert second.exit() is None
        knobs.scan(2)
        assert machine.check() == []
        knobs.run = 2
        assert knobs.ksm_zero_pages == knobs.pages_shared == knobs.pages_unshared == 0
        assert first.read(same, 10 * PAGE) == b"same" * (10 * PAGE // 4)

# SPDX-License-Identifier: GPL-2.0-only
"""anon_vmas: they lead from a page to the mappings that map it."""

import errno

import pytest
from pages import PAGE, fill

import ksm


@pytest.fixture
def machine():
    with ksm.Machine("4M", max_memory="4M", swap="1M") as machine:
        yield machine
        assert machine.check() == []
        for process in list(machine.processes.values()):
            process.exit()
        assert machine.slabinfo() == dict.fromkeys(machine.slabinfo(), 0)


CALLS = {
    "split": lambda process, addr: process.mprotect(addr + PAGE, PAGE, ksm.PROT_READ),
    "move": lambda process, addr: process.mremap(addr, PAGE, PAGE, new_addr=addr - (1 << 30)),
    "fork": lambda process, addr: process.fork(),
}


@pytest.mark.parametrize("what", CALLS)
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_mapping_with_several_cannot_be_copied(machine, what, nth):
    """A grandchild's mapping is linked to its own anon_vma and to those of its ancestors. If one link fails, the others are undone."""
    parent = machine.spawn()
    addr = parent.mmap(4 * PAGE)
    parent.write(addr, b"".join(fill(number) for number in range(4)))
    child = parent.fork()
    child.write(addr, fill(9))
    process = child.fork()
    process.write(addr, fill(10))
    chains = machine.slabinfo()["anon_vma_chain"]
    machine.fail("anon_vma_chain", nth)
    with pytest.raises(OSError) as caught:
        CALLS[what](process, addr)
    assert caught.value.errno == errno.ENOMEM
    assert machine.slabinfo()["anon_vma_chain"] == chains
    assert machine.check() == []
    CALLS[what](process, addr)
    machine.lru_add_drain_all()
    process.swap_out(addr, 4 * PAGE)
    assert machine.check() == []
    assert [each.read(addr, PAGE) for each in (parent, child)] == [fill(0), fill(9)]

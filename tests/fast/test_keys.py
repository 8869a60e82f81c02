# SPDX-License-Identifier: GPL-2.0-only
"""Keys from a book, and searches that they save: a plain machine and a fast one stay equal when books change, and with chains."""

import random

import pytest

import ksm
from ksm.testing.trees import branches, chains_known, state

from .test_plain import PAGE, RW, compare, pair

START = 1 << 30


def spawn(machines, contents, at=START):
    process = machines.spawn()
    more(process, contents, at)
    return process


def more(process, contents, at):
    process.mmap(len(contents) * PAGE, RW, ksm.MAP_PRIVATE | ksm.MAP_ANONYMOUS | ksm.MAP_FIXED, at)
    for number, content in enumerate(contents):
        process.write(at + number * PAGE, content)
    process.madvise(at, len(contents) * PAGE, ksm.MADV_MERGEABLE)


def page(rng, place, kinds):
    """A page that is zeros up to `place`, and is one of `kinds` pages."""
    made = bytearray(PAGE)
    made[place : place + 8] = rng.randrange(kinds).to_bytes(8, "big")
    return bytes(made)


def scan(machines, pages):
    machines.ksm.scan(pages=pages)
    compare(machines)
    assert machines.check() == []


def close(machines):
    assert machines.check() == []
    for machine in (machines.plain, machines.fast):
        machine.close()


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("place", [0, 8, 1000, PAGE - 8])
def test_a_book_changes(place, nodes):
    """Pages that are not written to keep a key of the old book until they are looked at; merged pages do so, too."""
    rng = random.Random(place)
    machines = pair(memory="16M", max_memory="16M", nodes=nodes)
    machines.ksm.smart_scan, machines.ksm.max_page_sharing = 0, 3
    first = spawn(machines, [page(rng, place, 200) for _ in range(300)])
    for _ in range(7):
        scan(machines, 150)
    begun = branches(machines.fast)
    assert begun
    # Three times as much memory, of another kind: the next pass begins with another book.
    more(first, [page(rng, (place + 504) % PAGE, 400) for _ in range(350)], START + (1 << 28))
    second = spawn(machines, [page(rng, place, 300) for _ in range(350)])
    for step in range(12):
        scan(machines, 333)
        for _ in range(20):
            where = START + rng.randrange(300) * PAGE + rng.choice([place, 0, 2000])
            rng.choice([first, second]).write(where, rng.randbytes(rng.choice([1, 8])))
        if step == 5:
            assert branches(machines.fast) != begun
    second.exit()
    scan(machines, 5000)
    close(machines)


def test_too_many_keys_are_the_same():
    """The memory does not grow, but all its contents change."""
    rng = random.Random(1)
    machines = pair(memory="16M", max_memory="16M")
    machines.ksm.smart_scan = 0
    process = spawn(machines, [rng.randbytes(PAGE) for _ in range(600)])
    scan(machines, 1800)
    assert not branches(machines.fast)
    for number in range(600):
        process.write(START + number * PAGE, page(rng, 2000, 1 << 30))
    for _ in range(8):
        machines.ksm.scan(1)
        compare(machines)
    assert branches(machines.fast)
    assert machines.ksm.pages_unshared >= 590
    close(machines)


@pytest.mark.parametrize("era", ["6.12", "6.1"])
@pytest.mark.parametrize("groups", [1, 5, 30])
@pytest.mark.parametrize("seed", range(3))
def test_chains(groups, seed, era):
    """There are few chains or many. Pages of dups go, chains are pruned after some time, and searches pass by the chains or end in them."""
    rng = random.Random(seed)
    machines = pair(memory="16M", max_memory="16M", era=era)
    machines.ksm.max_page_sharing = 2
    if era == "6.12":
        machines.ksm.smart_scan = 0
    machines.ksm.stable_node_chains_prune_millisecs = rng.choice([0, 50, 2000])
    alike = [rng.randbytes(8) for _ in range(groups)]
    pairs = [rng.randbytes(8) for _ in range(60)] * 2
    contents = [rng.choice(alike) for _ in range(240)] + pairs + [rng.randbytes(8) for _ in range(150)]
    rng.shuffle(contents)
    process = spawn(machines, contents)
    child = None
    for step in range(25):
        scan(machines, rng.choice([64, 200, 700]))
        where = rng.randrange(len(contents) - 40)
        for number in range(where, where + rng.randrange(40)):
            process.write(START + number * PAGE, rng.choice([*alike, rng.randbytes(8), rng.choice(pairs)]))
        if step == 8:
            known, chains = chains_known(machines.fast)
            assert 0 < chains == machines.ksm.stable_node_chains
            assert (known == chains) == (chains <= 16)
            child = process.fork()
        if step == 16:
            child.exit()
        machines.advance(rng.choice([0.001, 0.06, 2.5]))
        if step % 6 == 5:
            process.madvise(START + rng.randrange(400) * PAGE, 100 * PAGE, ksm.MADV_DONTNEED)
    close(machines)


def test_the_filter_is_made_anew_while_a_node_waits():
    """The node's page has moved to another NUMA node, and no sharer was scanned since. Back in a tree, the node is found by its key."""
    machines = pair(memory="64M", max_memory="64M", nodes=2)
    machines.ksm.smart_scan = machines.ksm.merge_across_nodes = 0
    equal = b"equal".ljust(PAGE, b".")
    sharers = spawn(machines, [equal, equal])
    late = spawn(machines, [b"other"])
    scan(machines, 100)
    scan(machines, 100)
    scan(machines, 100)
    assert machines.ksm.pages_shared == 1
    late.write(START, equal)
    scan(machines, 100)
    # So many items need a larger filter, which is made at the start of the next pass.
    more(late, [b"%d" % number for number in range(8300)], START + (1 << 28))
    scan(machines, 2)
    machines.migrate(sharers.page_table(START, PAGE)[0] >> ksm.PAGE_FLAGS_SHIFT, 1)
    scan(machines, 1)
    assert len(state(machines.fast)["waiting"]) == 1
    assert machines.ksm.scan(pages=10000) and machines.ksm.full_scans == 5
    scan(machines, 100)
    assert state(machines.fast)["waiting"] == []
    other = machines.spawn(node=1)
    more(other, [equal], START)
    for _ in range(3):
        machines.ksm.scan(1)
        compare(machines)
    assert machines.ksm.pages_sharing == 2
    close(machines)

# SPDX-License-Identifier: GPL-2.0-only
"""A machine of fingerprints counts what a machine of bytes counts.

Its trees have another order, which is that of fingerprints. KSM's results depend on the order of the trees in three ways, in the kernel as
here, and only these may differ:

- A search that goes through a chain puts the dup that it finds in front, also on its way to another page. Of two dups with as many sharers
  the next page joins the first. So which dup a page joins may differ, and with it how savings are split within and across sources.
- A stable node whose page is gone is dropped by a search that meets it. Else it stays until its rmap_items are visited. So the numbers of
  chains, dups and stable nodes may differ in the meantime. In 2011 such a search found nothing: the page is merged one pass later.
- While ksmd is in the middle of a pass, pages of the unstable trees may be written to, or go. Which pages are not found then depends on the
  order. Where one content has more pages than max_page_sharing, they may then be split into other groups, for good.
"""

import pytest
from lives import ERAS, EVERY_ERA, Life

pytestmark = pytest.mark.once

SPLIT = {"savings", "sharing"}
NODES = {"stable_node_chains", "stable_node_dups", "slabinfo"}
PAGES = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")


def both(kind, seed, era, passes, **kwargs):
    return [Life(pages, kind, seed, era, **kwargs).live(passes) for pages in ("bytes", "fingerprints")]


def states(seen):
    """What page table entries say of pages, without the frames."""
    return [[flags for _, flags in words] for words in seen["sharing"]]


def nodes_aside(seen):
    return {name: number for name, number in seen["slabinfo"].items() if name != "ksm_stable_node"}


def differing(one, other):
    return {name for name in one if one[name] != other[name]}


def finish(*lives):
    for life in lives:
        life.finish()


def check_steady(seed, era, kind="steady", passes=8, **kwargs):
    one, other = both(kind, seed, era, passes, **kwargs)
    chains = 0
    for number, (a, b) in enumerate(zip(one.seen, other.seen, strict=True)):
        chains += a.get("stable_node_chains", 0)
        if era == "6.1" and chains:
            # A page merges at its first visit if a dup has room then. Which one has depends on the order of the tree, where a fork has
            # brought a dup more sharers than it may have.
            assert sum(a[name] for name in PAGES) == sum(b[name] for name in PAGES)
            continue
        assert differing(a, b) <= (SPLIT if chains else set()), number
        assert states(a) == states(b)
        assert a["savings"][0] == b["savings"][0]
        assert sum(a["savings"]) == sum(b["savings"])
    finish(one, other)
    return chains


@pytest.mark.parametrize("era", ERAS)
def test_every_counter_is_equal_while_no_stable_node_is_stale(era):
    chains = [check_steady(seed, era) for seed in range(60)]
    assert chains.count(0) == 60 if era == "2.6.38" else 10 < chains.count(0) < 50


def test_a_plain_machine_of_fingerprints_counts_the_same():
    for seed in range(10):
        check_steady(seed, "6.12", plain=True)
        fast, plain = (Life("fingerprints", "busy", seed, "6.12", plain=plain).live(8) for plain in (False, True))
        for a, b in zip(fast.seen, plain.seen, strict=True):
            assert differing(a, b) == set()
        finish(fast, plain)


@pytest.mark.slow
@pytest.mark.parametrize("era", EVERY_ERA)
def test_every_counter_is_equal_in_many_lives(era):
    for seed in range(60, 400):
        check_steady(seed, era)


def check_loose(seed, era):
    one, other = both("loose", seed, era, 8)
    for a, b in zip(one.seen, other.seen, strict=True):
        if era != "2.6.38":
            assert differing(a, b) <= SPLIT | NODES
            assert states(a) == states(b)
            assert sum(a["savings"]) == sum(b["savings"])
            assert nodes_aside(a) == nodes_aside(b)
        assert sum(a[name] for name in PAGES) == sum(b[name] for name in PAGES)
        assert (a["full_scans"], a["vmstat"]) == (b["full_scans"], b["vmstat"])
    for life in (one, other):
        life.scan(3)
    assert differing(one.seen[-1], other.seen[-1]) <= (set() if era == "2.6.38" else SPLIT | NODES)
    finish(one, other)


@pytest.mark.parametrize("era", ERAS)
def test_stale_stable_nodes_change_only_when_they_are_dropped(era):
    for seed in range(40):
        check_loose(seed, era)


@pytest.mark.slow
@pytest.mark.parametrize("era", EVERY_ERA)
def test_stale_stable_nodes_of_many_lives(era):
    for seed in range(40, 300):
        check_loose(seed, era)


def check_busy(seed, era, kind="busy", passes=8):
    one, other = both(kind, seed, era, passes)
    for life in (one, other):
        if era in ("7.3", "6.12"):
            life.machine.ksm.smart_scan = 0
        life.scan(3)
        assert list(life.wrong_pages()) == []
    a, b = one.seen[-1], other.seen[-1]
    if era == "6.1" and (a["use_zero_pages"] or a["max_page_sharing"] < 256):
        # While a merged page of zeros lives, pages of zeros find it first. Without it they become the zero page, and lose their rmap_items.
        # A new page may join a group at once, and swapping takes whole groups.
        return finish(one, other)
    assert sum(a[name] for name in PAGES) == sum(b[name] for name in PAGES)
    assert nodes_aside(a) == nodes_aside(b)
    if era == "2.6.38" or a["max_page_sharing"] == 256:
        # By now all pages with the same contents share one frame.
        assert differing(a, b) <= NODES | {"vmstat", "pages_scanned", "pages_skipped"}
    finish(one, other)


@pytest.mark.parametrize("era", ERAS)
def test_swap_fork_migration_and_exit(era):
    for seed in range(30):
        check_busy(seed, era)


def test_some_lives_of_7_3():
    for seed in range(8):
        check_steady(seed, "7.3")
        check_loose(seed, "7.3")
        check_busy(seed, "7.3")


def test_huge_pages_of_2011():
    for seed in range(6):
        check_steady(seed, "2.6.38", "huge", 4)


def test_huge_pages():
    """A split takes parts of zeros out of the unstable trees, in the middle of a pass."""
    for seed in range(12):
        check_busy(seed, "6.12", "huge", 4)


@pytest.mark.slow
@pytest.mark.parametrize("era", EVERY_ERA)
def test_swap_fork_migration_and_exit_in_many_lives(era):
    for seed in range(30, 400):
        check_busy(seed, era)

# SPDX-License-Identifier: GPL-2.0-only
"""include/linux/list.h and poison.h, against Python's lists."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ksm.testing.lists import SIZES, Chains, Rings, poison

POISON = (0xDEAD000000000100, 0xDEAD000000000122)
HEADS, ITEMS = 3, 12
HEAD, ITEM = st.integers(0, HEADS - 1), st.integers(0, ITEMS - 1)


def test_layout():
    assert (SIZES["list_head"], SIZES["hlist_head"], SIZES["hlist_node"]) == (16, 8, 16)
    assert poison() == POISON


class RingMachine(RuleBasedStateMachine):
    """Some rings; every item is on one of them or on none."""

    def __init__(self):
        super().__init__()
        self.rings = Rings(HEADS, ITEMS)
        self.model = [[] for _ in range(HEADS)]

    def home(self, item):
        return next((ring for ring in self.model if item in ring), None)

    @rule(item=ITEM, head=HEAD, tail=st.booleans())
    def add_or_move(self, item, head, tail):
        home = self.home(item)
        name = ("list_add" if home is None else "list_move") + ("_tail" if tail else "")
        getattr(self.rings, name)(item, head)
        if home is not None:
            home.remove(item)
        self.model[head].insert(len(self.model[head]) if tail else 0, item)

    @rule(item=ITEM, init=st.booleans())
    def delete(self, item, init):
        if (home := self.home(item)) is not None:
            home.remove(item)
            if init:
                self.rings.list_del_init(item)
                assert self.rings.alone(item)
            else:
                self.rings.list_del(item)
                assert self.rings.links(item) == POISON

    @rule(item=ITEM, other=ITEM, init=st.booleans())
    def replace(self, item, other, init):
        home = self.home(item)
        if home is not None and self.home(other) is None:
            (self.rings.list_replace_init if init else self.rings.list_replace)(item, other)
            home[home.index(item)] = other

    @rule(item=ITEM, other=ITEM)
    def swap(self, item, other):
        here, there = self.home(item), self.home(other)
        if item != other and here is not None and there is not None:
            self.rings.list_swap(item, other)
            i, j = here.index(item), there.index(other)
            here[i], there[j] = other, item

    @rule(head=HEAD)
    def rotate_left(self, head):
        self.rings.list_rotate_left(head)
        self.model[head] = self.model[head][1:] + self.model[head][:1]

    @rule(item=ITEM)
    def rotate_to_front(self, item):
        if (home := self.home(item)) is not None:
            head = self.model.index(home)
            self.rings.list_rotate_to_front(item, head)
            at = home.index(item)
            home[:] = home[at:] + home[:at]

    @rule(head=HEAD, other=HEAD, tail=st.booleans(), init=st.booleans())
    def splice(self, head, other, tail, init):
        if head == other:
            return
        name = "list_splice" + ("_tail" if tail else "") + ("_init" if init else "")
        getattr(self.rings, name)(head, other)
        if not init:
            self.rings.init(head)
        moved, target = self.model[head], self.model[other]
        self.model[other] = target + moved if tail else moved + target
        self.model[head] = []

    @rule(head=HEAD, data=st.data())
    def bulk_move_tail(self, head, data):
        ring = self.model[head]
        if ring:
            i, j = sorted(data.draw(st.tuples(*[st.integers(0, len(ring) - 1)] * 2)))
            self.rings.list_bulk_move_tail(head, ring[i], ring[j])
            ring[:] = ring[:i] + ring[j + 1 :] + ring[i : j + 1]

    @invariant()
    def same(self):
        for head, ring in enumerate(self.model):
            assert self.rings.order(head) == ring
            assert self.rings.list_empty(head) == (not ring)
            assert self.rings.list_is_singular(head) == (len(ring) == 1)
            for item in ring:
                assert self.rings.list_is_first(item, head) == (item == ring[0])
                assert self.rings.list_is_last(item, head) == (item == ring[-1])
            assert self.rings.list_is_head(head, 0) == (head == 0)


class ChainMachine(RuleBasedStateMachine):
    """Some chains (hlist); every item is on one of them or on none."""

    def __init__(self):
        super().__init__()
        self.chains = Chains(HEADS, ITEMS)
        self.model = [[] for _ in range(HEADS)]

    def home(self, item):
        return next((chain for chain in self.model if item in chain), None)

    @rule(item=ITEM, head=HEAD)
    def add_head(self, item, head):
        if self.home(item) is None:
            self.chains.hlist_add_head(item, head)
            self.model[head].insert(0, item)

    @rule(item=ITEM, other=ITEM, behind=st.booleans())
    def add_beside(self, item, other, behind):
        home = self.home(other)
        if home is not None and self.home(item) is None:
            (self.chains.hlist_add_behind if behind else self.chains.hlist_add_before)(item, other)
            home.insert(home.index(other) + behind, item)

    @rule(item=ITEM)
    def delete(self, item):
        if (home := self.home(item)) is not None:
            self.chains.hlist_del(item)
            assert self.chains.links(item) == POISON
            assert not self.chains.hlist_unhashed(item)
            home.remove(item)

    @rule(item=ITEM)
    def delete_init(self, item):
        home = self.home(item)
        if home is not None or self.chains.hlist_unhashed(item):  # a second time does nothing
            self.chains.hlist_del_init(item)
            assert self.chains.hlist_unhashed(item)
            assert self.chains.links(item) == (0, 0)
        if home is not None:
            home.remove(item)

    @rule(head=HEAD, other=HEAD)
    def move_list(self, head, other):
        if not self.model[other] and head != other:
            self.chains.hlist_move_list(head, other)
            self.model[other], self.model[head] = self.model[head], []

    @invariant()
    def same(self):
        for head, chain in enumerate(self.model):
            assert self.chains.order(head) == chain
            assert self.chains.hlist_empty(head) == (not chain)
            for item in chain:
                assert self.chains.hlist_is_singular_node(item, head) == (len(chain) == 1)


RingMachine.TestCase.settings = ChainMachine.TestCase.settings = settings(deadline=None, max_examples=60)
TestRings = RingMachine.TestCase
TestChains = ChainMachine.TestCase

# SPDX-License-Identifier: GPL-2.0-only
"""lib/rbtree.c: the same shape as the kernel's after every step, and the validator."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksm.testing.rbtree import SIZES, RBTree, empty_node

pytestmark = pytest.mark.once

GOLDEN = json.loads(Path(__file__).with_name("golden_rbtree.json").read_text())
KINDS = ["plain", "cached", "augmented", "augmented_cached"]

# (key, how): an absent key is inserted; the node of a present key is erased or replaced.
# Lists without a minimum size are mostly short: a few steps shrink well, many steps reach every case.
STEP = st.tuples(st.integers(0, 60), st.sampled_from(["erase", "erase", "replace"]))
STEPS = st.lists(STEP, max_size=300) | st.lists(STEP, min_size=150, max_size=300)


def text(shape):
    """A shape on one line: 3B(1R .) is a black 3 with a red 1 on its left."""
    if shape is None:
        return "."
    key, color, left, right = shape
    return f"{key}{color}" if left is right is None else f"{key}{color}({text(left)} {text(right)})"


def keys_of(shape):
    return [] if shape is None else [*keys_of(shape[2]), shape[0], *keys_of(shape[3])]


def postorder(shape):
    return [] if shape is None else [*postorder(shape[2]), *postorder(shape[3]), shape[0]]


def sizes(shape):
    """The number of keys at and below each, in the order of the keys."""
    return [] if shape is None else [*sizes(shape[2]), len(keys_of(shape)), *sizes(shape[3])]


def run(steps, *trees):
    """Takes the trees through the steps, and yields the set of keys after each."""
    present = set()
    for key, how in steps:
        if key not in present:
            how = "insert"
        for tree in trees:
            getattr(tree, how)(key)
        if how == "insert":
            present.add(key)
        elif how == "erase":
            present.remove(key)
        yield present


def script(words):
    """'+5 +3 =3 -5': insert, replace, erase."""
    return [(int(word[1:]), {"+": "insert", "-": "erase", "=": "replace"}[word[0]]) for word in words.split()]


def long_run(nr_steps, nr_keys):
    """Pseudo-random steps that are always the same, by Knuth's 64-bit generator."""
    state = 20110302
    for _ in range(nr_steps):
        state = (state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        yield (state >> 33) % nr_keys, "replace" if (state >> 60) == 0 else "erase"


def digest(tree, nr_steps, nr_keys):
    """A hash of the shapes after every step."""
    total = hashlib.sha256()
    for _ in run(long_run(nr_steps, nr_keys), tree):
        total.update(text(tree.shape()).encode())
    return total.hexdigest()


def test_layout():
    assert SIZES["rb_node"] == 24
    assert SIZES["rb_root"] == 8


@pytest.mark.parametrize("case", GOLDEN["shapes"], ids=lambda case: case["name"])
def test_golden_shape(case):
    tree = RBTree()
    for _ in run(script(case["steps"]), tree):
        assert tree.check(tree.count)[0] == 0
    assert text(tree.shape()) == case["shape"]


@pytest.mark.parametrize("case", GOLDEN["digests"], ids=lambda case: f"{case['steps']} steps, {case['keys']} keys")
def test_golden_digest(case):
    assert digest(RBTree(), case["steps"], case["keys"]) == case["sha256"]


def test_golden_is_the_kernels(kernel):
    for case in GOLDEN["shapes"]:
        tree = kernel.tree()
        for _ in run(script(case["steps"]), tree):
            pass
        assert text(tree.shape()) == case["shape"], case["name"]
    for case in GOLDEN["digests"]:
        assert digest(kernel.tree(), case["steps"], case["keys"]) == case["sha256"]


@given(steps=STEPS)
@settings(deadline=None, max_examples=200)
def test_shape_is_the_kernels(kernel, steps):
    ours, theirs = RBTree(), kernel.tree()
    for _ in run(steps, ours, theirs):
        assert ours.shape() == theirs.shape()


@pytest.mark.slow
def test_shape_is_the_kernels_in_a_large_tree(kernel):
    ours, theirs = RBTree("augmented_cached"), kernel.tree()
    for number, _ in enumerate(run(long_run(200_000, 4096), ours, theirs)):
        if number % 50 == 0:
            assert ours.shape() == theirs.shape()
    assert ours.shape() == theirs.shape()


def check_steps(steps, kind):
    tree, plain = RBTree(kind), RBTree()
    for present in run(steps, tree, plain):
        shape = tree.shape()
        assert shape == plain.shape()
        assert tree.check(len(present)) == (0, "ok", len(present))
        assert tree.first() == min(present, default=None)
        assert tree.keys() == keys_of(shape) == sorted(present)
        assert tree.keys_reversed() == sorted(present, reverse=True)
        assert tree.keys_postorder() == postorder(shape)
        if kind.startswith("augmented"):
            assert tree.sizes() == sizes(shape)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_keeps_the_rules(kind):
    check_steps(long_run(2000, 64), kind)


@given(steps=STEPS, kind=st.sampled_from(KINDS))
@settings(deadline=None)
def test_every_kind_keeps_the_rules_on_any_steps(steps, kind):
    check_steps(steps, kind)


def test_equal_keys_keep_the_order_of_insertion_on_the_right():
    tree = RBTree()
    for _ in range(100):
        tree.insert(7)
    assert tree.keys() == [7] * 100
    assert tree.check(100)[0] == 0


def test_an_empty_tree():
    tree = RBTree()
    assert tree.empty()
    assert tree.shape() is None
    assert tree.first() is None
    assert tree.keys() == tree.keys_reversed() == tree.keys_postorder() == []
    assert tree.check(0) == (0, "ok", 0)
    tree.insert(1)
    assert not tree.empty()
    tree.erase(1)
    assert tree.empty()


def test_empty_node():
    # A cleared node is empty, and has no neighbours; in post-order nothing follows NULL. Linked as the only node, it is black.
    assert empty_node() == (True, True, True, True, False, 1)


class TestCheck:
    """rb_check() finds every broken rule, and ends."""

    @pytest.fixture
    def tree(self):
        tree = RBTree()
        for key in range(20):
            tree.insert(key)
        shape = "7B(3R(1B(0B 2B) 5B(4B 6B)) 11R(9B(8B 10B) 15B(13R(12B 14B) 17R(16B 18B(. 19R)))))"
        assert text(tree.shape()) == shape
        return tree

    def test_red_root(self, tree):
        tree.paint(7, 0)
        assert tree.check()[:2] == (-1, "the root is red")

    @pytest.mark.parametrize("key", [1, 5, 9, 18])
    def test_red_under_red(self, tree, key):
        tree.paint(key, 0)
        assert tree.check()[:2] == (-2, "a red node has a red child")

    @pytest.mark.parametrize("key", [3, 11, 13, 17, 19])
    def test_black_height(self, tree, key):
        tree.paint(key, 1)
        assert tree.check()[:2] == (-3, "two ways down have unequal numbers of black nodes")

    @pytest.mark.parametrize(("key", "side"), [(18, "right"), (3, "left"), (7, "right"), (13, "right")])
    def test_lost_child(self, tree, key, side):
        tree.set_child(key, side, None)
        assert tree.check(20)[0] == (-6 if (key, side) == (18, "right") else -3)

    @pytest.mark.parametrize(("key", "parent"), [(0, 3), (19, 17), (7, 3), (11, None), (3, 3)])
    def test_wrong_parent(self, tree, key, parent):
        tree.set_parent(key, parent)
        assert tree.check()[:2] == (-4, "a node does not name the parent that it hangs from")

    @pytest.mark.parametrize(
        ("key", "side", "child"),
        [(19, "left", 7), (19, "right", 11), (0, "left", 0), (1, "left", 2), (5, "right", 9), (18, "left", 19)],
        ids=["ring to the root", "ring", "ring of one", "both children one", "shared subtree", "both children one red"],
    )
    def test_rings_and_shared_nodes(self, tree, key, side, child):
        tree.set_child(key, side, child)
        assert tree.check()[0] == -4

    def test_pointer(self, tree):
        tree.set_child(1, "left", 0, tag=1)
        assert tree.check()[:2] == (-5, "a link is not the address of a node")

    def test_tag_in_the_parent_word(self, tree):
        tree.paint(4, 3)
        assert tree.check()[0] == -5

    def test_count(self, tree):
        assert tree.check(20) == (0, "ok", 20)
        assert tree.check(21)[:2] == (-6, "the number of nodes is not the expected one")
        assert tree.check(19)[0] == -6

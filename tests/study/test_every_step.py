# SPDX-License-Identifier: GPL-2.0-only
"""The picture of every step of every lesson is that of a machine which was stopped there, and each sentence tells of what has changed."""

import math
import re

import pytest
from chromium import screenshot, start
from drawn import drawn_at_each_step, look_as
from stopped import accounts

from ksm.record.recording import label_of
from ksm.study.lessons import record_all
from ksm.study.page import NAME, render
from ksm.study.steps import NAMES

pytestmark = pytest.mark.browser

WRITE, STABLE_FLAG, UNSTABLE_FLAG = 64, 0x200, 0x100
SIZES = [(390, 844), (1000, 750), (1440, 900), (2560, 1440)]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page's file, without a kernel, and the recordings in it."""
    recordings = record_all()
    path = tmp_path_factory.mktemp("page") / NAME
    path.write_text(render(None, recordings), encoding="utf-8")
    return path, recordings


@pytest.fixture(scope="module")
def browser(page):
    driver = start()
    yield driver
    driver.quit()


def open_at(browser, page, size, scheme="light"):
    look_as(browser, size, scheme)
    browser.get("about:blank")
    browser.get(f"file://{page[0]}#lessons")


def preorder(nodes):
    """The drawn nodes of a tree or of trees: depth, side, black, frame; sides by where they are drawn."""
    def x(number):
        return float(nodes[number]["at"].removeprefix("translate(").split("px")[0])

    def walk(number, depth, side):
        yield depth, side, nodes[number]["colour"] == "black", nodes[number]
        children = sorted((each for each in nodes if nodes[each]["parent"] == number), key=x)
        assert len(children) <= 2
        for child in children:
            yield from walk(child, depth + 1, "left" if x(child) < x(number) else "right")

    roots = sorted((each for each in nodes if nodes[each]["parent"] not in nodes), key=x)
    return [[*walk(root, 0, "root")] for root in roots]


def sharers(face, content):
    """Whether a node of the stable tree is drawn as it is."""
    below = [line for line in face["below"] if not line.startswith("node ")]
    if content[0] == "chain":
        wanted = [f"dup {kpfn} × {length}" for kpfn, _, length, _ in content[1]]
        return face["frame"] == "chain" and below == wanted
    return (face["frame"], below) == (str(content[0]), [f"× {content[2]}"])


def wrong(seen, there, name, names):
    """What the picture has otherwise than the machine, in words."""
    if seen["counters"] != {name: there["counters"][name] for name in seen["counters"]}:
        yield "counters"
    entries = {f"{mm}:{number}": each for (mm, number), each in there["entries"].items()}
    drawn = {key: each for key, each in seen["pages"].items() if "none" not in each["marks"]}
    if {key: (each["frame"], bool(int(each["bits"]) & WRITE)) for key, each in drawn.items()} != {
            key: (str(frame) if present else "", writable) for key, (frame, present, writable) in entries.items()}:
        yield "page tables"
    if set(seen["writable"]) != {key for key in seen["words"] if key in entries and entries[key][2]}:
        yield "W"
    present = {key: str(entries[key][0]) for key in seen["words"] if key in entries and entries[key][1]}
    if seen["arrows"] != {key: frame for key, frame in present.items() if frame in seen["frames"]}:
        yield "arrows"
    frames = {str(pfn): (str(count), "1" if merged else "", label_of(start)) for pfn, (count, merged, start) in there["frames"].items()}
    shown = {key: (each["mapcount"], each["ksm"], each["word"]) for key, each in seen["frames"].items()
             if "free" not in each["marks"] and key in frames}
    if shown != {key: frames[key] for key in shown} or (len(seen["words"]) == len(seen["pages"]) and set(shown) != set(frames)):
        yield "frames"
    items = {f"{mm}:{item[1] >> 12}": item for mm, slot in there["slots"] for item in slot}
    for key, item in items.items():
        place = seen["pages"][key]["place"] if key in seen["pages"] else "?"
        if place not in ("2" if item[1] & STABLE_FLAG else "13" if item[1] & UNSTABLE_FLAG else "0"):
            yield f"the place of {key}"
    yield from wrong_trees("stable", seen, there, sharers)
    # Between two passes KSM has a root that it does not use any more.
    if name == "PASS_ENDS":
        return
    yield from wrong_trees("unstable", seen, there, lambda face, item: (face["frame"], face["below"][0]) == (
        str(entries[f"{item[0]}:{item[1] >> 12}"][0]), names[str(item[0])]))


def wrong_trees(which, seen, there, same):
    trees, pictured = [tree for tree in there[which] if tree], preorder(seen[which]["nodes"])
    shapes = [[(depth, side, bool(black)) for depth, side, black, _ in tree] for tree in trees]
    if [[each[:3] for each in tree] for tree in pictured] != shapes:
        yield f"the {which} tree"
    elif not all(same(face, content) for drawn, real in zip(pictured, trees, strict=True)
                 for (*_, face), (*_, content) in zip(drawn, real, strict=True)):
        yield f"nodes of the {which} tree"
    height, n = max(((max(each[0] for each in tree) + 1, len(tree)) for tree in trees), key=lambda each: each[0], default=(0, 0))
    if seen[which]["said"] != (f"height {height} ≤ 2 log₂({n} + 1) = {2 * math.log2(n + 1):.1f}" if n else "height 0"):
        yield f"the height of the {which} tree"


def wrong_words(seen, there, name, step, pages, names):
    """What the sentence and the looks say otherwise than the machine. `pages`: the pages of each process, in their order."""
    owners = {names[mm]: int(mm) for mm in names}

    def frame_of(number, owner):
        return there["entries"][owners[owner], pages[owners[owner]][int(number) - 1]][0]

    for number, owner, frame in re.findall(r"page (\d+) of (\w+)(?:, in|, which is in) frame (\d+)", seen["sentence"], re.IGNORECASE):
        if frame_of(number, owner) != int(frame):
            yield "the frame in the sentence"
    here = cursor(seen)
    items = {f"{mm}:{item[1] >> 12}": item for mm, slot in there["slots"] for item in slot}
    if name == "NEXT" and not items[here[0]][1] & STABLE_FLAG:
        old = items[here[0]][2]
        if seen["checksum"][0] != (f"{old & 0xffffffff:08x}" if old else "none yet"):
            yield "the checksum of the last visit"
    if name.endswith("_COMPARE"):
        mine = there["frames"][there["entries"][tuple(map(int, here[0].split(":")))][0]][2]
        other = there["frames"][step[2]][2]
        at = next((i for i in range(24) if mine[i] != other[i]), None)
        if at is None:
            told = seen["bytes"] == "-1 -1" and ": equal." in seen["sentence"]
        else:
            side = "smaller" if mine[at] < other[at] else "greater"
            told = seen["bytes"] == f"{mine[at]} {other[at]}" and f"it is {side} at byte {at}, so on to the" in seen["sentence"]
        if not told:
            yield "the comparison"


def pages_of(there):
    """The pages that each process ever has, in their order."""
    found = {}
    for mm, number in {key for each in there for key in each["entries"]} | {
            (mm, item[1] >> 12) for each in there for mm, slot in each["slots"] for item in slot}:
        found.setdefault(mm, []).append(number)
    return {mm: sorted(numbers) for mm, numbers in found.items()}


# What the sentence of a step says has changed since the step before, by its kind. `s` is the step's numbers, `a` and `b` the pictures.
def node(picture, tree, number):
    return picture[tree]["nodes"].get(str(number))


def cursor(picture):
    return [key for key, each in picture["pages"].items() if "now" in each["marks"]]


def looked_at(a, b):
    """A node of a tree is marked, and the bytes that decide are shown."""
    here = [key for tree in ("stable", "unstable") for key, each in b[tree]["nodes"].items() if "now" in each["marks"]]
    said = f"byte {b['byte']} decides" if b["byte"] != "-1" else "all bytes are equal"
    return len(here) == 1 and said in b["compared"] and a["compared"] != b["compared"]


CHANGED = {
    "PASS_BEGINS": lambda s, a, b: not b["unstable"]["nodes"] and (b["unstable"] != a["unstable"] or s[4] == 0 or b["unstable"]["note"]),
    "NEXT": lambda s, a, b: cursor(b) and cursor(b) != cursor(a),
    # An item that has to leave the tree first has been counted by then.
    "SKIPPED": lambda s, a, b: "pages_skipped" in b["moved"] or (cursor(b) and cursor(b) != cursor(a)),
    "PASS_ENDS": lambda s, a, b: "full_scans" in b["moved"],
    "CHANGED": lambda s, a, b: a["checksum"][1] == "not computed yet" and b["checksum"][1] == f"{s[4]:08x}",
    "UNCHANGED": lambda s, a, b: a["checksum"][1] == "not computed yet" and b["checksum"] == [f"{s[4]:08x}"] * 2,
    "STABLE_COMPARE": lambda s, a, b: looked_at(a, b), "UNSTABLE_COMPARE": lambda s, a, b: looked_at(a, b),
    "INSERT_COMPARE": lambda s, a, b: looked_at(a, b),
    "NODE_STALE": lambda s, a, b: a["stable"]["nodes"] != b["stable"]["nodes"],
    "LEFT_STABLE": lambda s, a, b: a["pages"] != b["pages"] and "pages_volatile" in b["moved"],
    "LEFT_UNSTABLE": lambda s, a, b: a["pages"] != b["pages"] and "pages_unshared" in b["moved"],
    "UNSTABLE_INSERTED": lambda s, a, b: node(b, "unstable", s[1]) and not node(a, "unstable", s[1]),
    "WRITE_PROTECTED": lambda s, a, b: len(b["writable"]) < len(a["writable"]) or "read-only already" in b["sentence"],
    "BECAME_KSM": lambda s, a, b: (a["frames"][str(s[2])]["ksm"], b["frames"][str(s[2])]["ksm"]) == ("", "1"),
    "REPLACED": lambda s, a, b: s[4] != 0 or str(s[2]) in [frame for key, frame in b["arrows"].items() if a["arrows"].get(key) != frame],
    "APPENDED": lambda s, a, b: a["pages"] != b["pages"] and a["stable"] != b["stable"],
    "STABLE_INSERTED": lambda s, a, b: a["stable"]["nodes"].keys() != b["stable"]["nodes"].keys(),
    "CHAIN_MADE": lambda s, a, b: "stable_node_chains" in b["moved"] and a["stable"] != b["stable"],
    "DUP_ADDED": lambda s, a, b: "stable_node_dups" in b["moved"] and a["stable"] != b["stable"],
    "COW": lambda s, a, b: a["arrows"] != b["arrows"] and ("cow_ksm" in b["moved"] or "cow_ksm" not in b["counters"]),
    "NODE_MOVED": lambda s, a, b: a["stable"] != b["stable"],
}
# Sentences that tell what was found or decided: nothing has changed yet, or what has was told already.
NOTHING = {
    "NOTE": "a text of the lesson's own", "AT_ITS_NODE": "there is nothing to do", "FORKED": "the search comes next",
    "STABLE_FOUND": "the merge comes next", "STABLE_MISS": "the other search or the checksum comes next",
    "STABLE_FULL": "the search goes on",
    "STABLE_BUSY": "the page is left alone", "UNSTABLE_GAVE_UP": "the page is left alone", "UNSTABLE_FOUND": "the merge comes next",
    "NOT_PROTECTED": "no merge", "DIFFERS": "no merge", "MERGED": "REPLACED has shown it", "TWO_MERGED": "REPLACED has shown it",
    "ZERO_MERGED": "REPLACED has shown it",
    "BREAK_COW": "COW follows, if there is something to break", "BREAK_KSM": "COW follows",
}


def test_every_kind_of_sentence_is_in_one_of_the_tables():
    assert sorted([*CHANGED, *NOTHING]) == sorted(NAMES)


def compare(browser, page, numbers):
    """Each picture with the machine that was stopped there, and with the one before. The pictures, by the recording's number."""
    found = {}
    for number in numbers:
        data = page[1][number]
        seen, there = drawn_at_each_step(browser, number), accounts(data["lesson"], data["eras"][0])
        pages = pages_of(there)
        assert len(seen) == len(there) == len(data["steps"]) and list(seen[0]["counters"]) == sorted(data["files"])
        for at, (picture, machine, step) in enumerate(zip(seen, there, data["steps"], strict=True)):
            name, where = NAMES[step[0]], (data["lesson"], data["eras"], at, picture["sentence"])
            assert picture["at"] == f"{at + 1} / {len(seen)}" and (picture["sentence"] or name == "NOTE"), where
            assert [*wrong(picture, machine, name, data["mms"])] == [], (*where, name)
            assert [*wrong_words(picture, machine, name, step, pages, data["mms"])] == [], (*where, name)
            assert name in NOTHING or CHANGED[name](step, seen[at - 1], picture), (*where, name)
        found[number] = seen
    return found


def one_of_each(recordings, era="6.12"):
    """A recording of each lesson, by its number."""
    best = {}
    for number, data in enumerate(recordings):
        if data["lesson"] not in best or era in data["eras"]:
            best[data["lesson"]] = number
    return [*best.values()]


def test_every_picture_is_that_of_a_machine_stopped_there(browser, page):
    """Each lesson in one era. On a phone, some of the pictures."""
    open_at(browser, page, (1440, 900))
    seen = compare(browser, page, one_of_each(page[1]))
    open_at(browser, page, (390, 844), "dark")
    for number, pictures in seen.items():
        some = pictures[::11] + ([] if (len(pictures) - 1) % 11 == 0 else [pictures[-1]])
        assert drawn_at_each_step(browser, number, 11) == some, page[1][number]["lesson"]


@pytest.mark.slow
def test_every_picture_in_all_eras_and_sizes(browser, page):
    """Each lesson in each era, at four sizes, light and dark."""
    open_at(browser, page, (1440, 900))
    seen = compare(browser, page, range(len(page[1])))
    for size in SIZES:
        for scheme in ("light", "dark"):
            open_at(browser, page, size, scheme)
            for number, pictures in seen.items():
                assert drawn_at_each_step(browser, number) == pictures, (size, scheme, page[1][number]["lesson"])
                screenshot(browser, f"{page[1][number]['lesson']}-{page[1][number]['era']}-{size[0]}-{scheme}")

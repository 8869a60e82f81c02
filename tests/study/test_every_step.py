# SPDX-License-Identifier: GPL-2.0-only
"""The picture of every step of every lesson is that of a machine which was stopped there, and each sentence tells of what has changed."""

import os

import pytest
from chromium import screenshot, start
from drawn import drawn_at_each_step
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


def look_as(browser, size, scheme, motion="reduce"):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                            {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 700})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme},
                                                                        {"name": "prefers-reduced-motion", "value": motion}]})


def open_at(browser, page, size, scheme="light", address="lessons"):
    look_as(browser, size, scheme)
    browser.get("about:blank")
    browser.get(f"file://{page[0]}#{address}")


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
    if content[0] == "chain":
        wanted = [f"dup {kpfn} × {length}" for kpfn, _, length, _ in content[1]]
        return face["frame"] == "chain" and face["below"] == wanted
    return (face["frame"], face["below"]) == (str(content[0]), [f"× {content[2]}"])


def wrong(seen, there, name, names):
    """What the picture has otherwise than the machine, in words."""
    counters = {key: value for key, value in seen["counters"].items() if key in there["counters"]}
    if counters != {key: there["counters"][key] for key in counters}:
        yield "counters"
    entries = {f"{mm}:{number}": each for (mm, number), each in there["entries"].items()}
    drawn = {key: each for key, each in seen["pages"].items() if "none" not in each["marks"]}
    if {key: (each["frame"], bool(int(each["bits"]) & WRITE)) for key, each in drawn.items()} != {
            key: (str(frame) if present else "", writable) for key, (frame, present, writable) in entries.items()}:
        yield "page tables"
    if set(seen["writable"]) != {key for key in seen["words"] if key in entries and entries[key][2]}:
        yield "W"
    arrows = {key: str(entries[key][0]) for key in seen["words"] if key in entries and entries[key][1] and str(entries[key][0]) in seen["frames"]}
    if seen["arrows"] != arrows:
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
    stable = [tree for tree in there["stable"] if tree]
    pictured = preorder(seen["stable"]["nodes"])
    if [[each[:3] for each in tree] for tree in pictured] != [[(depth, side, bool(black)) for depth, side, black, _ in tree] for tree in stable]:
        yield "the stable tree"
    elif not all(sharers(face, content) for tree, real in zip(pictured, stable, strict=True)
                 for (*_, face), (*_, content) in zip(tree, real, strict=True)):
        yield "nodes of the stable tree"
    # Between two passes KSM has a root that it does not use any more.
    if name == "PASS_ENDS":
        return
    unstable = [tree for tree in there["unstable"] if tree]
    pictured = preorder(seen["unstable"]["nodes"])
    if [[each[:3] for each in tree] for tree in pictured] != [[(depth, side, bool(black)) for depth, side, black, _ in tree] for tree in unstable]:
        yield "the unstable tree"
    elif not all((face["frame"], face["below"][0]) == (str(entries[f"{item[0]}:{item[1] >> 12}"][0]), names[str(item[0])])
                 for tree, real in zip(pictured, unstable, strict=True) for (*_, face), (*_, item) in zip(tree, real, strict=True)):
        yield "nodes of the unstable tree"


def test_every_picture_is_the_machines(browser, page):
    open_at(browser, page, (1440, 900))
    for number, data in enumerate(page[1]):
        seen, there = drawn_at_each_step(browser, number), accounts(data["lesson"], data["eras"][0])
        assert len(seen) == len(there) == len(data["steps"])
        for at, (picture, machine, step) in enumerate(zip(seen, there, data["steps"], strict=True)):
            assert picture["at"] == f"{at + 1} / {len(seen)}"
            found = [*wrong(picture, machine, NAMES[step[0]], data["mms"])]
            assert not found, (data["lesson"], data["eras"], at, NAMES[step[0]], picture["sentence"], found)

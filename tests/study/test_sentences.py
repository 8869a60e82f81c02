# SPDX-License-Identifier: GPL-2.0-only
"""What the player says of each step, and what it marks meanwhile, in headless Chromium: tox -e study."""

import pytest
from chromium import start

import ksm
from ksm.study.kernel import read_kernel
from ksm.study.lessons import LESSONS, pages, record_lesson
from ksm.study.page import NAME, render
from ksm.study.steps import NAMES

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser(linux, tmp_path_factory):
    """The page with two lessons, open."""
    path = tmp_path_factory.mktemp("page") / NAME
    path.write_text(render(read_kernel(str(linux)), [record_lesson("equal"), record_lesson("equal", "2.6.38")]), encoding="utf-8")
    driver = start()
    driver.get(f"file://{path}")
    yield driver
    driver.quit()


def told(browser, data):
    """The sentence of each step of a recording, with the step's name."""
    sentences = browser.execute_script(
        "const [data] = arguments, r = new Replay(data, JSON.parse(document.getElementById('steps').textContent));"
        "return data.steps.map((_, i) => { r.seek(i); return r.sentence(); })", data)
    return [(NAMES[step[0]], sentence) for step, sentence in zip(data["steps"], sentences, strict=True)]


def record(era, life, **more):
    with ksm.Machine(memory="4M", max_memory="4M", clock="manual", plain=True, era=era, **more) as machine:
        with machine.record() as recording:
            life(machine)
        return recording.data()


def said(found, name):
    return [sentence for each, sentence in found if each == name]


@pytest.mark.parametrize(("key", "era"), [(lesson.key, era) for lesson in LESSONS for era in lesson.eras])
def test_every_step_of_a_lesson_is_told(browser, key, era):
    data = record_lesson(key, era)
    found = told(browser, data)
    assert not [pair for pair in found if "{" in pair[1] or "undefined" in pair[1] or (pair[0] != "NOTE" and not pair[1])]
    # At the first visit there is no checksum to be another one than.
    seen = set()
    for (name, sentence), step in zip(found, data["steps"], strict=True):
        # In other lessons items go or lose their checksums, or the recording begins later.
        if name == "CHANGED" and key in ("equal", "changing", "unstable", "anonymous", "huge"):
            assert ("no checksum of an earlier visit" in sentence) == (step[1] not in seen)
            seen.add(step[1])
    follows = "now its checksum counts." if era in ("2.6.38", "6.1") else "on to the unstable tree."
    assert said(found, "STABLE_MISS") and all(sentence.endswith(follows) for sentence in said(found, "STABLE_MISS"))


def test_a_full_page_is_equal_and_so_nobody_says_that_none_is(browser):
    found = told(browser, record_lesson("chain"))
    at = [number for number, (name, _) in enumerate(found) if name == "STABLE_FULL"]
    assert len(at) == 2
    for number in at:
        assert "it has 4 sharers" in found[number][1]
        assert found[number + 1] == ("STABLE_MISS", "No merged page with its bytes can take it: on to the unstable tree.")


def test_a_node_without_items_is_not_full(browser):
    def life(machine):
        machine.ksm.smart_scan = 0
        a, b, d = (machine.spawn(name) for name in "abd")
        at_d = pages(d, ["other"])
        pages(a, ["same"])
        pages(b, ["same"])
        machine.ksm.scan(passes=3)
        d.write(at_d, b"same\0")
        machine.ksm.scan()
        b.fork("c")
        a.exit()
        b.exit()
        machine.ksm.scan(passes=2)

    found = told(browser, record("6.12", life))
    (full,) = said(found, "STABLE_FULL")
    assert "has no items" in full and "sharers" not in full
    assert "No merged page with its bytes can take it: on to the unstable tree." in said(found, "STABLE_MISS")


def test_why_a_search_gives_up(browser):
    def life(machine):
        machine.ksm.smart_scan = 0
        a = machine.spawn("a")
        pages(a, ["one"])
        machine.ksm.scan()
        a.fork("b")
        machine.ksm.scan(passes=3)

    assert any("which both map" in sentence for sentence in said(told(browser, record("6.12", life)), "UNSTABLE_GAVE_UP"))


def test_an_item_that_leaves_says_why(browser):
    def life(machine):
        a, b = machine.spawn("a"), machine.spawn("b")
        at = pages(a, ["same"])
        pages(b, ["same"])
        machine.ksm.scan(passes=3)
        a.write(at, b"mine")
        machine.ksm.scan()

    (left,) = said(told(browser, record("6.12", life)), "LEFT_STABLE")
    assert left.endswith("leaves its stable node: it does not map that page any more.")


def test_the_end_of_a_recording_says_what_is_still_counted(browser):
    browser.execute_script(
        "location.hash = '#lessons'; showView(); player.show(0, 'steps'); document.getElementById('last').click()")
    unshared = browser.find_element("css selector", '[data-counter="pages_unshared"] b').text
    note = browser.find_element("css selector", "#stage .of-unstable figcaption small:last-child").text
    assert unshared == "4"
    assert "0 pages, 4 of the last pass's tree still in pages_unshared" in note


def marked(browser):
    return browser.execute_async_script(
        "const [done] = arguments, all = () => [...document.querySelectorAll('#index .here')].map(each => each.textContent.trim());"
        "setTimeout(() => done(all()), 250)")


def test_the_index_marks_the_function_that_is_shown(browser):
    browser.execute_script("location.hash = '#source'; showView()")
    names = browser.execute_script("return [...document.querySelectorAll('#index a')].map(each => each.title)")
    for name in ("cmp_and_merge_page", "break_ksm", "ksm_init", "stable_tree_search", names[-1], names[0]):
        browser.execute_script("document.querySelector(`#index a[href='#f-${arguments[0]}']`).click()", name)
        assert marked(browser) == [name]


def test_the_index_marks_the_function_whose_line_is_lit(browser):
    browser.execute_script("location.hash = '#lessons'; showView(); player.show(0, 'source'); document.getElementById('first').click()")
    for _ in range(25):
        browser.execute_script("document.getElementById('step').click()")
        lit = browser.execute_script(
            "const l = [...document.querySelectorAll('code.lit')].pop(); return l && l.closest('section.pair').id.slice(2)")
        now = browser.execute_script("return document.querySelector('#index .here').textContent.trim()")
        assert not lit or now == lit
    assert marked(browser) == [now]

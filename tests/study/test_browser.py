# SPDX-License-Identifier: GPL-2.0-only
"""The page in headless Chromium: tox -e study. See chromium.py."""

import os
import time
from pathlib import Path

import pytest
from chromium import LAPTOP, eventually, every, one, screenshot, start
from drawn import drawn

import ksm
from ksm.record.recorder import COUNTERS
from ksm.study.kernel import read_kernel
from ksm.study.lessons import lesson, pages, record_lesson
from ksm.study.page import NAME, render
from ksm.study.pairing import read_port, study

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    driver = start()
    yield driver
    driver.quit()


def many_pages():
    """A recording of 10,000 steps."""
    with ksm.Machine(memory="16M", max_memory="16M", clock="manual", plain=True) as machine:
        pages(machine.spawn("a"), [f"page {n % 500}" for n in range(1000)])
        with machine.record() as recording:
            machine.ksm.scan(passes=4)
        data = recording.data("Ten thousand steps")
        assert len(data["steps"]) == 10_000
        return {"key": "many", **data}


def final_counters(data):
    """The last value of each counter in a recording."""
    result = {}
    for step in data["steps"]:
        changes, at = step[6:], 0
        while at < len(changes):
            if changes[at] == 1:
                result[COUNTERS[changes[at + 2]]] = changes[at + 3]
            at += 2 + ([2, 3, 5, 6, 6, 4, 5, 3, 4, 2][changes[at] - 1] if changes[at] > 0 else 0)
    return result


LESSONS = [("equal", "6.12"), ("changing", "6.12"), ("unstable", "6.12"), ("chain", "6.12"), ("write", "6.12"), ("equal", "2.6.38")]


@pytest.fixture(scope="module")
def page(linux, tmp_path_factory):
    """The page's file, with the lessons and a long recording; and all recordings in it."""
    recordings = [record_lesson(key, era) for key, era in LESSONS] + [many_pages()]
    path = tmp_path_factory.mktemp("page") / NAME
    path.write_text(render(read_kernel(str(linux)), recordings), encoding="utf-8")
    return path, recordings


@pytest.fixture
def opened(browser, page):
    browser.get_log("browser")
    browser.get("about:blank")      # another part of the same page would not be loaded anew
    browser.get(f"file://{page[0]}#source")
    yield browser
    assert browser.get_log("browser") == []


def visible(browser, element):
    return browser.execute_script(
        "const e = arguments[0].getBoundingClientRect(), c = document.getElementById('code').getBoundingClientRect();"
        "return e.height > 0 && e.bottom > c.top && e.top < c.bottom", element)


def watch(browser, number, depth="steps"):
    """Show a recording of the page, from its first step on."""
    if not one(browser, "#player").is_displayed():
        one(browser, '#views a[href^="#lessons"]').click()
        eventually(one(browser, "#player").is_displayed)
    browser.execute_script("player.show(...arguments); document.getElementById('first').click()", number, depth)


def counters(browser):
    rows = browser.execute_script(
        "return [...document.querySelectorAll('#counters > div')].map(row => [row.dataset.counter, row.querySelector('b').textContent])")
    return {name: int(value) for name, value in rows}


def at(browser):
    return one(browser, "#at").text


# The parts of the page

def test_the_address_says_which_part_is_shown(opened):
    shown = "return ['door', 'player', 'code', 'nav'].filter(id => document.getElementById(id).getClientRects().length)"
    parts = {"door": ["door"], "lessons": ["player"], "source": ["code", "nav"]}
    for part, seen in parts.items():
        one(opened, f'#views a[href="#{part}"]').click()
        eventually(lambda part=part, seen=seen: opened.execute_script(shown) == seen and opened.current_url.endswith(f"#{part}"))
        assert [link.get_attribute("href").partition("#")[2] for link in every(opened, '#views [aria-current="page"]')] == [part]
    opened.back()
    eventually(lambda: opened.execute_script(shown) == parts["lessons"])
    opened.refresh()
    assert opened.execute_script(shown) == parts["lessons"]
    opened.back()
    opened.execute_script("location.hash = '#f-break_cow'")
    eventually(lambda: opened.execute_script(shown) == parts["source"])
    eventually(lambda: visible(opened, one(opened, "#f-break_cow h2")))
    opened.refresh()
    eventually(lambda: visible(opened, one(opened, "#f-break_cow h2")))


def test_it_opens_at_the_front_door(opened, page):
    opened.get("about:blank")
    opened.get(f"file://{page[0]}")
    assert one(opened, "#door").is_displayed() and not one(opened, "#code").is_displayed()


# Reading

def test_all_paired_functions_are_there(opened, linux):
    subject = study(read_kernel(str(linux)))
    assert one(opened, "#share").text == f"{subject.paired} of {subject.of_kernel}"
    shown = set(opened.execute_script("return [...document.querySelectorAll('#file-k section.pair.paired')].map(each => each.id)"))
    assert shown == {f"f-{name}" for name in read_kernel(str(linux)).source.functions} and len(shown) > 120
    assert len(every(opened, '#index li[data-file="mm/ksm.c"]')) == len(read_port().functions)
    lines = opened.execute_script(
        "return [...document.querySelectorAll('section.pair.paired')].map(each =>"
        " [each.id, each.querySelectorAll('code[id^=k]').length, each.querySelectorAll('code[id^=p]').length])")
    assert [name for name, left, right in lines if not left or not right] == []
    screenshot(opened, "reading")


@pytest.mark.parametrize("side", ["k", "p"])
def test_a_call_leads_to_the_function(opened, side):
    one(opened, '#index a[href="#f-cmp_and_merge_page"]').click()
    link = one(opened, f'#f-cmp_and_merge_page code[id^={side}] a[href="#f-stable_tree_search"]')
    assert link.text == "stable_tree_search"
    target = one(opened, "#f-stable_tree_search h2")
    link.click()
    assert opened.current_url.endswith("#f-stable_tree_search")
    eventually(lambda: visible(opened, target))
    screenshot(opened, f"call-{side}")


def test_a_label_leads_to_its_stand_in(opened):
    one(opened, '#index a[href="#f-write_protect_page"]').click()
    links = every(opened, "#f-write_protect_page .labels span")
    assert [link.text.split(":")[0] for link in links] == ["out_unlock", "out_mn", "out"]
    stand_in = links[0].find_elements("css selector", "a")[1]
    line = one(opened, stand_in.get_attribute("href")[stand_in.get_attribute("href").index("#"):])
    stand_in.click()
    eventually(lambda: visible(opened, line))
    assert "# out_unlock:" in line.text


def test_the_two_sides_scroll_together(opened):
    one(opened, '#index a[href="#f-stable_tree_append"]').click()
    tops = opened.execute_script(
        "return ['k', 'p'].map(side => [...document.querySelectorAll(`#f-stable_tree_append code[id^=${side}]`)]"
        ".find(line => line.textContent.includes('hlist_add_head')).getBoundingClientRect().top)")
    assert tops[0] == tops[1]


def test_search(opened):
    search = one(opened, "#search")
    search.send_keys("unstable_tree")
    shown = [entry.text for entry in every(opened, '#index li[data-file="mm/ksm.c"]') if entry.is_displayed()]
    assert shown == ["unstable_tree_search_insert"]
    search.clear()
    search.send_keys("keyhole\n")
    hits = every(opened, "code.hit")
    assert one(opened, "#found").text == f"line 1 of {len(hits)}" and hits
    eventually(lambda: visible(opened, hits[0]))
    search.clear()
    search.send_keys("no such words anywhere\n")
    assert one(opened, "#found").text == "not in the text"


def test_omissions_have_reasons(opened):
    one(opened, 'nav a[href="#omissions"]').click()
    rows = every(opened, "#omissions tr")
    assert len(rows) >= 10 and all(row.find_element("css selector", "td").text for row in rows)


def test_light_and_dark(opened):
    def brightness():
        colour = opened.execute_script("return getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in colour.removeprefix("rgb(").rstrip(")").split(","))

    one(opened, "#theme").click()
    assert brightness() > 600
    one(opened, "#theme").click()
    assert brightness() < 150
    screenshot(opened, "dark")


@pytest.mark.parametrize("width", [1280, 1920])
def test_nothing_is_cut_off(opened, width):
    opened.set_window_size(width, 800)
    try:
        watch(opened, 0)
        wider = opened.execute_script("return [document.documentElement.scrollWidth - innerWidth,"
                                      " document.getElementById('code').scrollWidth - document.getElementById('code').clientWidth]")
        assert max(wider) <= 0
    finally:
        opened.set_window_size(*LAPTOP)


def test_it_can_be_printed(opened):
    import base64

    data = base64.b64decode(opened.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "pageRanges": "1-3"})["data"])
    assert data.startswith(b"%PDF") and len(data) > 20_000
    folder = os.environ.get("KSM_SCREENSHOTS")
    if folder:
        Path(folder, "printed.pdf").write_bytes(data)


# Watching

def test_a_recording_is_played_to_its_end_and_back(opened, page):
    watch(opened, 0)
    steps = len(page[1][0]["steps"])
    assert at(opened) == f"1 / {steps}"
    one(opened, '#speed option[value="0"]').click()
    one(opened, "#play").click()
    eventually(lambda: at(opened) == f"{steps} / {steps}", 60)
    assert one(opened, "#play").text == "Play"
    assert counters(opened) == final_counters(page[1][0])
    there = drawn(opened)
    one(opened, "#back").click()
    one(opened, "#back").click()
    assert at(opened) == f"{steps - 2} / {steps}"
    one(opened, "#step").click()
    one(opened, "#step").click()
    assert drawn(opened) == there
    one(opened, "#first").click()
    assert at(opened) == f"1 / {steps}" and counters(opened)["full_scans"] == 0


def test_the_counters_are_the_ports(opened, page):
    """The page's counters at the end of each lesson are those of a machine that runs the lesson again."""
    for number, (key, era) in enumerate(LESSONS):
        watch(opened, number)
        one(opened, "#last").click()
        with ksm.Machine(memory="4M", max_memory="4M", clock="manual", plain=True, era=era) as machine:
            lesson(key).run(machine).stop()
            wanted = {name: int(machine.ksm.show(name)) for name in machine.ksm.names() if name in COUNTERS}
            if era != "2.6.38":
                wanted["cow_ksm"] = machine.vmstat()["cow_ksm"]
        assert {name: value for name, value in counters(opened).items() if name in wanted} == wanted, key
        screenshot(opened, f"lesson-{key}-{era}-end")


def test_back_is_the_same_state_as_forward(opened):
    watch(opened, 2)
    opened.execute_script("const s = document.getElementById('slider'); s.value = 70; s.dispatchEvent(new Event('input'))")
    seen = []
    for _ in range(25):
        seen.append(drawn(opened))
        one(opened, "#step").click()
    for state in reversed(seen):
        one(opened, "#back").click()
        assert drawn(opened) == state


def test_the_decision_is_lit_on_both_sides(opened):
    watch(opened, 0, "source")
    said = []
    for _ in range(40):
        one(opened, "#step").click()
        lit = every(opened, "code.lit")
        said.append(one(opened, "#sentence").text)
        assert said[-1]
        if len(lit) == 2:
            sides = {line.get_attribute("id")[0]: line for line in lit}
            # The line that does it is lit, and not the call that tells the recorder.
            assert set(sides) == {"k", "p"}
            assert "ksm_step(" not in sides["p"].text
            assert visible(opened, sides["p"])
    assert any("checksum" in sentence for sentence in said)
    screenshot(opened, "watching")


def test_the_tree_is_drawn_with_its_colours_and_the_path(opened):
    watch(opened, 2)
    for _ in range(500):
        if len(every(opened, "#stage .of-unstable .lost")):
            break
        one(opened, "#step").click()
    assert [group.find_element("css selector", ".name").text for group in every(opened, "#stage .of-unstable .lost")] == ["a: drought"]
    assert len(every(opened, "#stage .of-unstable .n .red")) >= 1 and len(every(opened, "#stage .of-unstable .n .black")) >= 1
    for _ in range(500):
        if every(opened, "#stage .of-unstable .now"):
            break
        one(opened, "#step").click()
    assert len(every(opened, "#stage .of-unstable .now")) == 1
    screenshot(opened, "rotten-tree")


def test_the_life_of_a_page(opened):
    watch(opened, 4)
    one(opened, "#last").click()
    one(opened, "#stage .page").click()
    life = [button.text.partition(": ")[2] for button in every(opened, "#life [data-event]")]
    for event in ("first seen",
                  "volatile: its checksum has changed", "unstable: in the tree", "stable: at a node", "broken: a page of its own"):
        assert event in life
    every(opened, "#life [data-event]")[2].click()
    assert at(opened).split(" ")[0] == every(opened, "#life [data-event]")[2].text.partition(":")[0]
    screenshot(opened, "life")


def test_keys(opened):
    watch(opened, 1)
    body = one(opened, "body")
    body.send_keys("\ue014")        # right
    body.send_keys("\ue014")
    body.send_keys("\ue012")        # left
    assert at(opened).startswith("2 / ")
    body.send_keys("\ue010")        # end
    assert at(opened).split(" / ")[0] == at(opened).split(" / ")[1]


def test_the_first_lesson_in_2011(opened):
    watch(opened, 5, "source")
    told = one(opened, "#telling").get_attribute("textContent")
    assert "jhash2" in told and "KSM of Linux 2.6.38" in told
    for _ in range(200):
        one(opened, "#step").click()
        if "has no checksum" in one(opened, "#sentence").text:
            break
    # The lines of 6.12 did not run so, and are not lit.
    (line,) = every(opened, "code.lit")
    assert line.get_attribute("id")[0] == "p" and "another version" in told
    assert "oldchecksum = checksum" in line.text and int(line.get_attribute("data-n")) > 1600


def test_ten_thousand_steps_open_quickly_and_are_small(browser, page):
    path, recordings = page
    assert path.stat().st_size < 20_000_000
    browser.get("about:blank")
    began = time.monotonic()
    browser.get(f"file://{path}")
    watch(browser, len(recordings) - 1)
    assert at(browser) == "1 / 10000"
    opened = time.monotonic() - began
    one(browser, "#last").click()
    assert at(browser) == "10000 / 10000"
    assert counters(browser) == final_counters(recordings[-1])
    screenshot(browser, "ten-thousand-steps")
    look = (
        "const s = document.querySelector('#stage .of-unstable svg'), n = s.querySelector('.now').getBoundingClientRect(),"
        " f = document.querySelector('#stage .of-unstable .tree').getBoundingClientRect();"
        "return [s.getScreenCTM().a, n.left >= f.left && n.right <= f.right && n.top >= f.top && n.bottom <= f.bottom]")
    assert browser.execute_script(look)[0] >= 0.7
    eventually(lambda: browser.execute_script(look)[1])
    assert opened < 3.0
    assert browser.get_log("browser") == []


def test_the_files_begin_beside_each_other(opened):
    tops = [one(opened, f"#{side}1").location["y"] for side in "kp"]
    assert tops[0] == tops[1]
    assert all(visible(opened, one(opened, f"#{side}1")) for side in "kp")


def test_print_is_light_also_where_the_page_is_dark(opened):
    opened.execute_script("document.documentElement.dataset.theme = 'dark'")
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert opened.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_what_is_lit_is_in_sight_on_both_sides(opened, page):
    """Looked at for the first step of each kind."""
    opened.set_script_timeout(120)
    for number, recording in enumerate(page[1][:5]):
        watch(opened, number, "source")
        kinds = [step[0] for step in recording["steps"]]
        hidden = opened.execute_async_script(
            "const [steps, done] = arguments, found = [], slider = document.getElementById('slider');"
            "const frame = () => new Promise(requestAnimationFrame), c = document.getElementById('code').getBoundingClientRect();"
            "(async () => { for (const step of steps) {"
            "  slider.value = step; slider.dispatchEvent(new Event('input')); await frame(); await frame();"
            "  for (const line of document.querySelectorAll('code.lit')) {"
            "    const box = line.getBoundingClientRect();"
            "    if (box.top < c.top + 20 || box.top > c.bottom) found.push(document.getElementById('sentence').textContent); }"
            "} done(found); })()", [kinds.index(kind) for kind in sorted(set(kinds))])
        assert hidden == []


def test_the_keyboard_stays_where_it_was(opened):
    watch(opened, 0)
    assert one(opened, "#play").text == "Play"
    one(opened, "#last").click()
    page = every(opened, "#stage .page")[1]
    page.send_keys("\n")
    pressed = one(opened, '#stage [aria-pressed="true"]')
    assert opened.switch_to.active_element.get_attribute("data-page") == pressed.get_attribute("data-page")
    every(opened, "#life [data-event]")[2].send_keys("\n")
    assert opened.switch_to.active_element.get_attribute("data-event") == "2"
    one(opened, "#lesson").send_keys("\ue014")         # right: a step, not another lesson
    assert one(opened, "#lesson").get_attribute("value") == "0"


def test_many_pages_follow_the_cursor(opened):
    watch(opened, 3)
    one(opened, "#last").click()
    for _ in range(8):
        one(opened, "#back").click()
    shown = opened.execute_script(
        "const c = document.querySelector('.memory-side').getBoundingClientRect();"
        "const b = document.querySelector('.page.now').getBoundingClientRect();"
        "return b.top >= c.top && b.bottom <= c.bottom")
    assert shown


def test_a_fault_that_was_asked_for_is_no_write(opened):
    watch(opened, 4)
    said = []
    for _ in range(int(one(opened, "#slider").get_attribute("max"))):
        opened.execute_script("document.getElementById('step').click()")
        said.append(one(opened, "#sentence").text)
    faults = [sentence for sentence in said if sentence.startswith("Page fault")]
    assert [("break_ksm()" in sentence, "writes" in sentence) for sentence in faults] == [(False, True), (True, False), (False, True)]
    assert not any("{" in sentence for sentence in said)
    one(opened, "#stage .page").click()
    life = [button.text.partition(": ")[2] for button in every(opened, "#life [data-event]")]
    assert "a page fault, asked for by break_ksm()" in life and "written to: a page fault" not in life


def test_nothing_is_asked_of_the_network(opened):
    import json

    opened.get_log("performance")
    opened.refresh()
    watch(opened, 0)
    messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = {message["params"]["request"]["url"].split(":")[0] for message in messages if message["method"] == "Network.requestWillBeSent"}
    assert asked <= {"file", "data"}

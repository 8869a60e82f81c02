# SPDX-License-Identifier: GPL-2.0-only
"""The lessons as a reader has them: stories with questions, steps, addresses, words; on a phone, on paper, with a keyboard, read aloud."""

import base64
import re
from pathlib import Path

import pytest
from chromium import missing, screenshot, start
from drawn import drawn, look_as
from selenium.webdriver.common.by import By

from ksm.study.lessons import record_all, record_lesson
from ksm.study.page import NAME, render
from ksm.study.steps import NAMES

pytestmark = pytest.mark.browser

PHONE, SMALL, LAPTOP, LARGE = (390, 844), (1000, 750), (1440, 900), (2560, 1440)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    recordings = record_all(["6.12", "2.6.38"])
    path = tmp_path_factory.mktemp("page") / NAME
    path.write_text(render(None, recordings), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def driver():
    browser = start()
    yield browser
    browser.quit()


@pytest.fixture
def at(driver, page):
    """Opens the page at an address of the lessons."""
    def go(address="lessons/equal/6.12/two-memories", size=LAPTOP, scheme="light", motion="reduce"):
        look_as(driver, size, scheme, motion)
        driver.get("about:blank")
        driver.get(f"file://{page}#{address}")
        return driver

    driver.get_log("browser")
    yield go
    assert driver.get_log("browser") == []


def one(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def every(browser, selector):
    return browser.find_elements(By.CSS_SELECTOR, selector)


def step(browser):
    return int(one(browser, "#at").text.split(" / ")[0]) - 1


def scenes(key="equal"):
    return record_lesson(key)["scenes"]


# A story

def test_a_story_goes_from_scene_to_scene(at):
    browser, told = at(), scenes()
    for number, scene in enumerate(told):
        assert step(browser) == scene["step"]
        assert one(browser, ".scenes .shown h2").text == scene["title"] and one(browser, ".scenes .shown p").text == scene["text"]
        assert one(browser, "#chapter option:checked").text.startswith(f"Scene {number + 1} of {len(told)}: ")
        assert one(browser, "#ask").is_displayed() == bool(scene["question"])
        one(browser, "#step").click()
    assert step(browser) == len(record_lesson("equal")["steps"]) - 1 and one(browser, "#step").text == "Next lesson"
    for scene in reversed(told):
        one(browser, "#back").click()
        assert step(browser) == scene["step"]
    assert len(every(browser, "#ticks i")) == len(told)


def test_a_question_comes_before_what_happens_next(at):
    browser, scene = at(), scenes()[0]
    answers = every(browser, "#ask .answers button")
    assert [each.text for each in answers] == scene["answers"] and one(browser, "#ask h3").text == scene["question"]
    wrong = (scene["right"] + 1) % len(answers)
    answers[wrong].click()
    assert "wrong" in every(browser, "#ask .answers button")[wrong].get_attribute("class")
    assert "right" in every(browser, "#ask .answers button")[scene["right"]].get_attribute("class")
    assert one(browser, "#ask [role=status]").text == f"No. {scene['why']}"
    assert browser.switch_to.active_element.text == "See what happens"
    browser.switch_to.active_element.click()
    assert step(browser) == scenes()[1]["step"]
    one(browser, "#back").click()
    assert "No. " in one(browser, "#ask").text          # the answer is remembered
    every(browser, "#ask .answers button")[scene["right"]].click()
    assert one(browser, "#ask [role=status]").text == f"Yes. {scene['why']}"


def test_a_recording_without_scenes_has_steps(at, driver, tmp_path):
    data = {name: value for name, value in record_lesson("write").items() if name not in ("scenes", "lesson", "eras")}
    (tmp_path / NAME).write_text(render(None, [data]), encoding="utf-8")
    driver.get(f"file://{tmp_path / NAME}#lessons")
    assert not one(driver, "#depths [data-depth=story]").is_enabled() and not one(driver, "#chapter").is_displayed()
    assert one(driver, "#step").text == "Next step" and data["text"].split("\n")[0][:60] in one(driver, "#telling").text


# Where one is

@pytest.mark.parametrize(("address", "depth", "number"), [
    ("lessons/equal/6.12/found", "story", 43), ("lessons/equal/6.12/48", "steps", 47), ("lessons/equal/6.12/48/source", "source", 47),
    ("lessons/equal/2.6.38/found", "story", 49), ("lessons/write/6.12/80", "steps", 79),
])
def test_an_address_is_a_step(at, address, depth, number):
    browser = at(address)
    for _ in range(2):
        assert step(browser) == number
        assert browser.execute_script("return document.documentElement.dataset.depth") == depth
        assert one(browser, "#source").is_displayed() == (depth == "source")
        browser.refresh()
    one(browser, "#step").click()
    browser.execute_script("dispatchEvent(new Event('pagehide'))")      # the address is written at once
    now, url = step(browser), browser.current_url
    assert url != f"#{address}" and "#lessons/" in url
    browser.refresh()
    assert step(browser) == now and browser.current_url == url


def test_an_address_of_nothing_shows_a_lesson(at):
    for address in ("nothing/6.12/3", "equal/9.9/999999", "equal/6.12/no-such-scene", "////", "equal/6.12/-5/source/more", "equal/6.12/%zz",
                    "%00/%3Cb%3E"):
        browser = at(f"lessons/{address}")
        assert one(browser, "#sentence").get_attribute("textContent") and every(browser, "#stage .page")


def test_the_next_event_is_the_next_change(at):
    browser, data = at("lessons/equal/6.12/1"), record_lesson("equal")
    seen = []
    for _ in range(40):
        one(browser, "#next-event").click()
        seen.append(NAMES[data["steps"][step(browser)][0]])
    assert {"WRITE_PROTECTED", "BECAME_KSM", "REPLACED", "STABLE_INSERTED", "UNSTABLE_INSERTED", "APPENDED"} <= set(seen)
    assert not {"NEXT", "CHANGED", "UNCHANGED", "STABLE_MISS", "UNSTABLE_COMPARE"} & set(seen)


# Words

def test_a_term_says_what_it_means(at):
    browser = at("lessons/equal/6.12/leaf")
    term = one(browser, ".scenes .shown .term")
    assert term.text == "unstable tree"
    term.send_keys("\n")
    meaning = one(browser, "#meaning")
    assert meaning.is_displayed() and "no equal yet" in meaning.text and browser.switch_to.active_element == meaning
    meaning.send_keys("\ue00c")         # escape
    assert not meaning.is_displayed() and browser.switch_to.active_element == term
    term.click()
    term.click()
    assert not meaning.is_displayed()


# The picture

def test_nothing_jumps(at):
    """What the picture is made of stays where it is, and as large, at each step of a lesson."""
    parts = [".memory", ".of-stable svg", ".of-unstable svg", ".looks", "#counters", "#dock"]
    for size in (PHONE, LAPTOP):
        browser = at("lessons/equal/6.12/1", size)
        places = browser.execute_script(
            "const [parts] = arguments, found = new Set(), n = player.replay.length;"
            "const place = part => { const b = document.querySelector(`#player ${part}`).getBoundingClientRect();"
            " return [b.x, b.y, b.width, b.height]; };"
            "for (let i = 0; i < n; i++) { player.go(i); found.add(JSON.stringify(parts.map(place))); } return [...found]", parts)
        assert len(places) == 1, (size, places)
        browser = at("lessons/equal/6.12/two-memories", size)
        tops = browser.execute_script(
            "const found = new Set(); for (const option of document.querySelectorAll('#chapter option')) { if (option.value < 0) continue;"
            " chapter.value = option.value; chapter.dispatchEvent(new Event('change'));"
            " found.add(document.querySelector('#stage').getBoundingClientRect().y); } return [...found]")
        assert len(tops) == 1


def test_what_changes_moves(at):
    """A rotation, an entry that swings over, and W that falls are movements; and none for readers who do not want them."""
    moving = ("return document.querySelector(arguments[0]).getAnimations({subtree: true}).map("
              "each => each.transitionProperty || each.animationName)")
    data = record_lesson("equal")
    third = [i for i, each in enumerate(data["steps"]) if NAMES[each[0]] == "UNSTABLE_INSERTED"][2]
    for motion in ("no-preference", "reduce"):
        browser = at(f"lessons/equal/6.12/{third}", motion=motion)
        browser.execute_script("return document.querySelector('.of-unstable').getBoundingClientRect().width")
        one(browser, "#step").click()
        found = browser.execute_script(moving, ".of-unstable")
        browser.execute_script("player.go(arguments[0])", [NAMES[each[0]] for each in data["steps"]].index("REPLACED") - 2)
        browser.execute_script("return document.querySelector('.memory').getBoundingClientRect().width")
        one(browser, "#step").click()
        falls = browser.execute_script(moving, ".large")
        one(browser, "#step").click()
        swings = browser.execute_script(moving, ".arrows")
        if motion == "reduce":
            assert found == falls == swings == []
        else:
            assert found.count("transform") >= 2 and found.count("d") >= 1 and "appear" in found
            assert "opacity" in falls and "transform" in falls and "d" in swings


def test_a_page_whose_life_is_read(at):
    browser = at("lessons/write/6.12/170")
    one(browser, "#stage .page").click()
    assert one(browser, "#life [data-event]").text.partition(": ")[2] == "first seen"
    one(browser, "#life .shut").click()
    assert not one(browser, "#life").is_displayed() and not every(browser, "#stage [aria-pressed=true]")


# Anywhere

OUTSIDE = """
const least = arguments[0], width = document.documentElement.clientWidth, bad = [];
if (document.documentElement.scrollWidth > innerWidth) bad.push("the page is wider than the window");
for (const each of document.querySelectorAll("#player :is(button, select, input, summary, a), #bar :is(a, button, select), #meaning")) {
  if (!each.checkVisibility({visibilityProperty: true})) continue;
  const box = each.getBoundingClientRect(), name = each.id || each.className || each.textContent;
  if (box.left < -0.5 || box.right > width + 0.5) bad.push(`${name} is outside: ${box.left} ${box.right}`);
  // Words in a text are as wide as they are: only their height is asked for.
  if (box.height < least || (box.width < least && !each.classList.contains("term"))) bad.push(`${name}: ${box.width} × ${box.height}`);
}
const dock = document.getElementById("dock").getBoundingClientRect();
if (dock.bottom > innerHeight + 0.5 || dock.top < 0) bad.push("the buttons are out of sight");
return bad;
"""


@pytest.mark.parametrize("size", [PHONE, SMALL, LAPTOP, LARGE])
def test_each_control_can_be_reached(at, size):
    least = 40 if size == PHONE else 16
    for scheme in ("light", "dark"):
        for address in ("equal/6.12/found", "unstable/6.12/120", "chain/6.12/95/source"):
            browser = at(f"lessons/{address}", size, scheme)
            if address.startswith("unstable"):
                one(browser, "#stage .page").click()
                assert one(browser, "#life").is_displayed()
            assert browser.execute_script(OUTSIDE, least) == [], (address, scheme)
            screenshot(browser, f"player-{address.replace('/', '-')}-{size[0]}-{scheme}")


@pytest.mark.parametrize(("size", "scheme", "address"), [
    (PHONE, "light", "equal/6.12/found"), (LAPTOP, "dark", "unstable/6.12/120"), (LAPTOP, "light", "write/6.12/80/source"),
    *(pytest.param(*each, marks=pytest.mark.slow) for each in [
        (PHONE, "dark", "equal/6.12/found"), (SMALL, "light", "unstable/6.12/120"), (SMALL, "dark", "write/6.12/80/source"),
        (LARGE, "light", "equal/6.12/found"), (LARGE, "dark", "write/6.12/80"), (PHONE, "light", "write/6.12/80/source"),
    ])])
def test_rules_of_accessibility(at, size, scheme, address):
    try:
        import axe_core_python
    except ImportError:
        missing("axe-core-python")
    script = Path(axe_core_python.__file__).with_name("axe.min.js").read_text()
    browser = at(f"lessons/{address}", size, scheme)
    browser.execute_script("document.querySelector('#stage .page').click();"
                           "document.querySelector('#sentence .term, .scenes .shown .term')?.click()")
    browser.execute_script(script)
    found = browser.execute_async_script("axe.run({include: [['#player'], ['#meaning']]}, {}).then(arguments[0])")
    assert [(each["id"], each["impact"], each["nodes"][0]["html"][:160]) for each in found["violations"]] == []
    assert len(found["passes"]) > 15


def test_what_is_read_aloud_is_not_hurried(at):
    browser = at("lessons/unstable/6.12/1")
    browser.set_script_timeout(20)
    said = browser.execute_async_script(
        "const [done] = arguments, said = document.getElementById('said'); let n = 0;"
        "new MutationObserver(() => n++).observe(said, {childList: true});"
        "document.getElementById('speed').value = '120'; document.getElementById('play').click();"
        "setTimeout(() => { document.getElementById('play').click(); setTimeout(() => done([n, said.textContent]), 300); }, 2000)")
    assert said[0] <= 3 and said[1] == drawn(browser)["sentence"]
    assert one(browser, "#said").get_attribute("aria-live") == "polite" and one(browser, "#sentence").get_attribute("aria-live") is None


def test_the_lessons_are_a_booklet(at):
    browser = at()
    told = browser.execute_script(
        "dispatchEvent(new Event('beforeprint')); const all = [...document.querySelectorAll('#booklet .scene')].map(each =>"
        " [each.querySelector('h3').textContent, each.querySelectorAll('.page').length, each.querySelectorAll('.arrow').length]);"
        "const ids = [...document.querySelectorAll('[id]')].map(each => each.id); dispatchEvent(new Event('afterprint'));"
        "return [all, ids.length === new Set(ids).size, document.querySelectorAll('#booklet').length]")
    assert len(told[0]) == sum(len(each["scenes"]) for each in record_all(["6.12"])) and told[1:] == [True, 0]
    assert all(pages and arrows for _, pages, arrows in told[0])
    data = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"])
    pages = len(re.findall(rb"/Type\s*/Page\b", data))
    assert len(told[0]) / 9 < pages <= 30

# SPDX-License-Identifier: GPL-2.0-only
"""The lessons as a reader has them: stories with questions, steps, addresses, words; on a phone, on paper, with a keyboard, read aloud."""

import base64
import random
import re
from pathlib import Path

import pytest
from chromium import every, missing, one, screenshot, start
from drawn import drawn, look_as

import ksm
from ksm.study.lessons import LESSONS, pages, record_all, record_lesson
from ksm.study.page import NAME, render
from ksm.study.steps import NAMES

pytestmark = pytest.mark.browser

PHONE, SMALL, LAPTOP, LARGE = (390, 844), (1000, 750), (1440, 900), (2560, 1440)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    recordings = record_all(["2.6.38", "6.12", "7.3"])
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


def visit(browser, address):
    browser.execute_script("location.hash = arguments[0]; showView()", f"#lessons/{address}")


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


def test_between_two_scenes_the_steps_are_seen(at):
    browser = at("lessons/equal/6.12/two-sharers", motion="no-preference")
    browser.set_script_timeout(20)
    seen = browser.execute_async_script(
        "const [done] = arguments, seen = [], at = document.getElementById('at');"
        "const look = () => { const n = parseInt(at.value) - 1; if (seen[seen.length - 1] !== n) seen.push(n);"
        " if (document.querySelector('.scenes .shown').dataset.scene === 'anew') done(seen); else requestAnimationFrame(look); };"
        "look(); document.getElementById('step').click();")
    first, last = (each["step"] for each in scenes() if each["key"] in ("two-sharers", "anew"))
    assert seen == [*range(first, last + 1)]


def test_another_era_shows_the_same_scene(at):
    browser = at("lessons/equal/6.12/found")
    one(browser, "#era").send_keys("2.6.38")
    assert one(browser, ".scenes .shown").get_attribute("data-scene") == "found" and step(browser) == 49
    browser.execute_script("dispatchEvent(new Event('pagehide'))")
    assert browser.current_url.endswith("#lessons/equal/2.6.38/found")


def test_a_recording_without_scenes_has_steps(at, driver, tmp_path):
    data = {name: value for name, value in record_lesson("write").items() if name not in ("scenes", "lesson", "eras")}
    (tmp_path / NAME).write_text(render(None, [data]), encoding="utf-8")
    driver.get(f"file://{tmp_path / NAME}#lessons")
    assert not one(driver, "#depths [data-depth=story]").is_enabled() and not one(driver, "#chapter").is_displayed()
    assert one(driver, "#step").text == "Next step" and data["text"].split("\n")[0][:60] in one(driver, "#telling").text


# Where one is

def test_an_address_is_a_step(at):
    browser = at()
    for address, depth, number in [
            ("equal/6.12/found", "story", 43), ("equal/6.12/48", "steps", 47), ("equal/6.12/48/source", "source", 47),
            ("equal/2.6.38/found", "story", 49), ("write/6.12/80", "steps", 79)]:
        visit(browser, address)
        assert step(browser) == number and browser.execute_script("return document.documentElement.dataset.depth") == depth
        assert one(browser, "#source").is_displayed() == (depth == "source")
        one(browser, "#step").click()
        browser.execute_script("dispatchEvent(new Event('pagehide'))")      # the address is written at once
        now, url = step(browser), browser.current_url
        assert now > number and url.partition("#")[2] != f"lessons/{address}"
        browser.refresh()
        assert step(browser) == now and browser.current_url == url


def test_an_address_of_nothing_shows_a_lesson(at):
    browser = at()
    for address in ("nothing/6.12/3", "equal/9.9/999999", "equal/6.12/no-such-scene", "////", "equal/6.12/-5/source/more", "equal/6.12/%zz",
                    "%00/%3Cb%3E", "equal/6.12/0", "equal/6.12/99999999999999999999"):
        visit(browser, address)
        assert one(browser, "#sentence").get_attribute("textContent") and every(browser, "#stage .page")
        assert 0 <= step(browser) < int(one(browser, "#at").text.split(" / ")[1])


def test_the_next_event_is_the_next_change(at):
    browser, data = at("lessons/equal/6.12/1"), record_lesson("equal")
    steps = browser.execute_script(
        "return [...Array(40)].map(() => { document.getElementById('next-event').click(); return player.replay.at; })")
    seen = {NAMES[data["steps"][number][0]] for number in steps}
    assert {"WRITE_PROTECTED", "BECAME_KSM", "REPLACED", "STABLE_INSERTED", "UNSTABLE_INSERTED", "APPENDED"} <= seen
    assert not {"NEXT", "CHANGED", "UNCHANGED", "STABLE_MISS", "UNSTABLE_COMPARE"} & seen


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

def test_a_damaged_recording_does_not_hold_up_the_page(at):
    """Numbers of its steps are others: it is drawn somehow, or not, and in a moment."""
    browser = at()
    browser.set_script_timeout(30)
    random.seed(7)
    for number in range(12):
        data = record_lesson("unstable" if number % 2 else "write")
        for step in data["steps"]:
            for place in range(1, len(step)):
                if random.random() < 0.02:
                    step[place] = random.choice([*step[6:], -1, 0, 1, 2, 3, 40, 2 ** 31, -5])
        browser.execute_script(
            "const r = new Replay(arguments[0], JSON.parse(document.getElementById('steps').textContent));"
            "const stage = new Stage(document.createElement('div'), {width: 300});"
            "for (let i = 0; i < r.length; i++) { r.seek(i); try { stage.draw(r); r.sentence(); } catch { } }", data)


def test_the_bytes_that_decide_are_read_from_labels_in_older_recordings(at):
    browser = at()
    data = record_lesson("unstable")
    shown = browser.execute_script(
        "const types = JSON.parse(document.getElementById('steps').textContent), found = [], [data] = arguments;"
        "const pair = r => { const c = comparisonOf(r); return c && [c.at, ...c.sides.map(side => side.byte)]; };"
        "const old = structuredClone(data);"
        "for (const step of old.steps) { const kept = incrementsOf(step).filter(each => each[0] !== BYTES);"
        " step.splice(HEAD, step.length, ...kept.flatMap(([kind, id, v]) => v ? [kind + 1, id, ...v] : [-kind - 1, id])); }"
        "const a = new Replay(data, types), b = new Replay(old, types);"
        "for (let i = 0; i < a.length; i++) { a.seek(i); b.seek(i);"
        " if (a.all(BYTES).length) found.push([pair(a), pair(b), data.steps[i][4]]); } return found", data)
    assert len(shown) > 20 and all(new == old for new, old, _ in shown)
    assert all((pair[1] < pair[2]) == (order < 0) and pair[1] != pair[2] for pair, _, order in shown)


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
    moving = ("const [part, at] = arguments, found = document.querySelector(part); player.go(at - 1); found.getBoundingClientRect();"
              "for (const each of found.getAnimations({subtree: true})) each.finish(); player.go(at);"
              "return found.getAnimations({subtree: true}).map(each => each.transitionProperty || each.animationName)")
    names = [NAMES[each[0]] for each in record_lesson("equal")["steps"]]
    third = [i for i, name in enumerate(names) if name == "UNSTABLE_INSERTED"][2]
    for motion in ("no-preference", "reduce"):
        browser = at("lessons/equal/6.12/1", motion=motion)
        turns = browser.execute_script(moving, "#stage .of-unstable", third)
        falls = browser.execute_script(moving, "#stage .large", names.index("WRITE_PROTECTED"))
        swings = browser.execute_script(moving, "#stage .arrows", names.index("REPLACED"))
        if motion == "reduce":
            assert turns == falls == swings == []
        else:
            assert turns.count("transform") >= 2 and turns.count("d") >= 1 and "appear" in turns
            assert "opacity" in falls and "transform" in falls and "d" in swings


def test_a_page_whose_life_is_read(at):
    browser = at("lessons/write/6.12/170")
    one(browser, "#stage .page").click()
    assert one(browser, "#life [data-event]").text.partition(": ")[2] == "first seen"
    one(browser, "#life .shut").click()
    assert not one(browser, "#life").is_displayed() and not every(browser, "#stage [aria-pressed=true]")


@pytest.mark.parametrize("address", ["nope/6.12/found", "equal/9/found", "__proto__/6.12/constructor", "equal//found"])
def test_an_address_of_nothing_leads_to_the_lesson_in_the_chosen_era(at, address):
    browser = at(f"lessons/{address}")
    told = browser.execute_script("player.go(player.replay.at); return [player.replay.data.lesson, player.replay.data.era, lens.chosen]")
    assert told == ["equal", "6.12", "6.12"]


def test_a_lesson_that_the_era_does_not_have_says_which_it_runs_in(at):
    browser = at("lessons/smart/2.6.38/first-skip")
    titles = [each.text.strip() for each in every(browser, "#lesson option")]
    assert titles[0] == "Two equal pages become one" and "Smart scan: pages that are skipped (6.12)" in titles
    assert "One sharer too many, and the chain (6.12)" in titles and len(titles) == len(LESSONS)
    # The lens stays: a lesson that the era has runs in it.
    told = browser.execute_script("const box = document.getElementById('lesson'); box.selectedIndex = 0;"
                                  "box.dispatchEvent(new Event('change'));"
                                  "return [player.replay.data.lesson, player.replay.data.era, lens.chosen]")
    assert told == ["equal", "2.6.38", "2.6.38"]


def test_a_memory_of_many_pages_is_read_with_the_keyboard(at, driver, tmp_path):
    with ksm.Machine(memory="4M", max_memory="4M", clock="manual", plain=True) as machine:
        pages(machine.spawn("ann"), [f"text {number % 40}" for number in range(120)])
        with machine.record() as recording:
            machine.ksm.scan(passes=2)
    (tmp_path / NAME).write_text(render(None, [recording.data("Many")]), encoding="utf-8")
    at()
    driver.get(f"file://{tmp_path / NAME}#lessons")
    one(driver, "#last").click()
    grid = one(driver, "#stage .grid")
    assert "120 pages of ann" in grid.get_attribute("aria-label") and len(every(driver, "#stage .page")) == 3
    for key, number in [("\ue014", 1), ("\ue014", 2), ("\ue010", 120), ("\ue012", 119), ("\ue011", 1)]:     # right, end, left, home
        grid.send_keys(key)
        assert one(driver, "#life h3").text == f"The life of page {number} of ann"
        assert one(driver, "#stage [aria-pressed=true] b").text == str(number)
    before = step(driver)
    grid.send_keys("\ue015")            # down
    assert one(driver, "#life h3").text != "The life of page 1 of ann" and step(driver) == before


# Anywhere

OUTSIDE = """
const least = arguments[0], width = document.documentElement.clientWidth, bad = [];
for (const each of [document.documentElement, ...document.querySelectorAll("#player, #telling, .memory-side, #counters")]) {
  if (each.scrollWidth > each.clientWidth && each.clientWidth) bad.push(`${each.id || each.className} is wider than its place`);
}
for (const each of document.querySelectorAll("#player :is(button, select, input, summary, a), #bar :is(a, button, select), #meaning")) {
  if (!each.checkVisibility({visibilityProperty: true})) continue;
  const box = each.getBoundingClientRect(), name = each.id || each.className || each.textContent;
  if (box.left < -0.5 || box.right > width + 0.5) bad.push(`${name} is outside: ${box.left} ${box.right}`);
  // Words in a text are as wide as they are: only their height is asked for.
  if (box.height < least || (box.width < least && !each.classList.contains("term"))) bad.push(`${name}: ${box.width} × ${box.height}`);
}
for (const each of document.querySelectorAll("#stage figcaption small")) {
  const box = each.getBoundingClientRect(), all = each.closest("figure").getBoundingClientRect();
  if (box.width && box.right > all.right + 0.5) bad.push(`${each.textContent} is cut off: ${box.right} > ${all.right}`);
}
for (const [part, least] of [[".memory", 250],
  [".of-stable .tree", 90], [".of-unstable .tree", 90], [".sums", 90], [".bytes", 130], ["#counters", 300]]) {
  const box = document.querySelector(`#player ${part}`).getBoundingClientRect();
  if (box.width < least || box.left < 0 || box.right > width + 0.5) bad.push(`${part} has no room: ${box.left} ${box.width}`);
}
const dock = document.getElementById("dock").getBoundingClientRect();
if (dock.bottom > innerHeight + 0.5 || dock.top < 0) bad.push("the buttons are out of sight");
return bad;
"""


@pytest.mark.parametrize("size", [PHONE, SMALL, LAPTOP, LARGE])
def test_each_control_can_be_reached(at, size):
    least = 40 if size == PHONE else 16
    browser = at("lessons/equal/6.12/found", size)
    for address in ("equal/6.12/found", "unstable/6.12/120", "chain/6.12/95/source", "huge/6.12/split"):
        visit(browser, address)
        if address.startswith("unstable"):
            browser.execute_script("document.querySelector('#stage .page').click()")
            assert one(browser, "#life").is_displayed()
        for scheme in ("light", "dark"):
            look_as(browser, size, scheme)
            browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(arguments[0])))")
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


@pytest.mark.parametrize(("address", "printed"), [
    ("door", "booklet"), ("lessons/write/6.12/cow", "booklet"), ("source", "source"), ("f-break_cow", "source"),
    ("article-memcmp", "article")])
def test_the_part_that_is_shown_is_printed(at, address, printed):
    browser = at(address)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        seen = browser.execute_script(
            "dispatchEvent(new Event('beforeprint')); const seen = ['door', 'player', 'source', 'article', 'booklet']"
            ".filter(id => document.getElementById(id)?.getClientRects().length); dispatchEvent(new Event('afterprint')); return seen")
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert seen == [printed]


def test_the_booklet_is_that_of_the_chosen_era(at):
    browser = at("lessons/equal/7.3/two-memories")
    told = browser.execute_script("dispatchEvent(new Event('beforeprint')); const all = [...document.querySelectorAll('#booklet .era')]"
                                  ".map(each => each.textContent); dispatchEvent(new Event('afterprint')); return all")
    assert told == [f"On the KSM of Linux {'7.3' if '7.3' in each.eras else '6.12'}." for each in LESSONS]


@pytest.mark.slow
def test_the_booklet_has_some_twenty_pages(at):
    data = base64.b64decode(at().execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"])
    assert 15 < len(re.findall(rb"/Type\s*/Page\b", data)) <= 26

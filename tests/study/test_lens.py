# SPDX-License-Identifier: GPL-2.0-only
"""The era through which the page is read, and the annotated article, in headless Chromium: tox -e study."""

import pytest
from chromium import start

from ksm.study.anchors import KSM, MEMORY, OF_STEP, anchors, case_of, port_line
from ksm.study.article import STATEMENTS
from ksm.study.eras import ERAS
from ksm.study.kernel import read_kernel
from ksm.study.lens import PREFIX, memory
from ksm.study.lessons import LESSONS, record_all, record_lesson
from ksm.study.page import NAME, render
from ksm.study.pairing import read_port
from ksm.study.steps import NAMES

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser(linux, tmp_path_factory):
    """The page of 6.12 with all lessons, open."""
    path = tmp_path_factory.mktemp("page") / NAME
    path.write_text(render(read_kernel(str(linux)), record_all()), encoding="utf-8")
    driver = start()
    driver.get(f"file://{path}#source")
    yield driver
    assert driver.get_log("browser") == []
    driver.quit()


def choose(browser, era):
    browser.execute_script("const e = document.getElementById('era'); e.value = arguments[0]; e.dispatchEvent(new Event('change'))", era)


def runs(browser, line):
    """Whether a line of the port is shown as one that runs."""
    return browser.execute_script("return getComputedStyle(document.getElementById(arguments[0])).backgroundImage", f"p{line}") == "none"


def with_text(text):
    (found,) = [number for number, line in enumerate(read_port().lines, 1) if text in line]
    return found


def test_the_files_era_is_chosen_at_first_and_another_one_says_what_is_not_of_it(browser):
    state = ("return [document.getElementById('era').value, document.documentElement.dataset.lens, "
             "document.getElementById('lens-note').textContent]")
    own = "Lines of the port that do not run in the era 6.12 are hatched."
    assert browser.execute_script(state) == ["6.12", "6.12", own]
    choose(browser, "2.6.38")
    era, lens, note = browser.execute_script(state)
    assert era == lens == "2.6.38" and "the port's lines alone are lit" in note and "6.12" in note
    choose(browser, "6.12")
    assert browser.execute_script(state)[2] == own


def test_lines_that_do_not_run_in_the_era_are_hatched(browser):
    jhash, xxhash, always = with_text("return jhash2("), with_text("checksum = <u32>xxhash("), with_text("age = <unsigned char>(g.ksm_scan")
    for era in ERAS:
        choose(browser, era)
        assert [runs(browser, line) for line in (jhash, xxhash, always)] == [era == "2.6.38", era != "2.6.38", True], era
        none = browser.execute_script(
            "return getComputedStyle(document.querySelector('#f-should_skip_rmap_item > h2'), '::after').content")
        assert ("no such function in" in none) == (era in ERAS[:2])


@pytest.mark.parametrize("era", ERAS)
def test_the_lines_of_each_step_of_each_lesson_are_in_the_page(browser, era):
    """As the player asks for them: the port's line in each era, the kernel's too in the era of its file."""
    found = browser.execute_script("""
        const [era] = arguments, types = JSON.parse(document.getElementById("steps").textContent), lost = [], ours = [], lit = {};
        for (const { key, recordings } of window.lens.lessons) {
            if (!(era in recordings)) continue;
            lit[key] = [];
            const data = JSON.parse(document.getElementById(`recording-${recordings[era]}`).textContent);
            data.steps.forEach((step, i) => {
                const type = types[step[0]], [kernel, port] = window.lens.lines(type, step, era);
                lit[key].push(port);
                if (type.name === "NOTE") return;
                const line = document.getElementById(port);
                if (!line || line.textContent.includes("ksm_step(")) lost.push([key, i, type.name, port]);
                const memory = type.name === "COW" && !document.querySelector('[id^="km"]');
                if (era === window.lens.file && !memory && !document.getElementById(kernel)) lost.push([key, i, type.name, kernel]);
                if (era !== window.lens.file && kernel) ours.push([key, i]);
            });
        }
        return [lost, ours, lit];""", era)
    files = {KSM: read_port(), MEMORY: memory()}
    lines = {(name, case): f"p{PREFIX[anchor.file]}{port_line(anchor, files[anchor.file], era)}"
             for name in OF_STEP for case, anchor in anchors(name, era).items()}
    assert found == [[], [], {
        lesson.key: [lines.get((NAMES[step[0]], case_of(step)), "") for step in record_lesson(lesson.key, era)["steps"]]
        for lesson in LESSONS if era in lesson.eras}]


def test_the_lessons_of_the_era(browser):
    browser.execute_script("location.hash = '#lessons'")
    for era in ("2.6.38", "7.3"):
        choose(browser, era)
        shown = browser.execute_script("return [...document.querySelectorAll('#lesson option')].map(each => each.textContent)")
        wanted = [lesson.title for lesson in LESSONS if era in lesson.eras]
        assert [title for title in shown if title in wanted] == wanted


def test_a_statement_of_the_article_leads_to_its_scene(browser):
    for key in ("whose-frame", "checksum", "speed"):
        (statement,) = [each for each in STATEMENTS if each.key == key]
        browser.execute_script("location.hash = '#article'")
        link = browser.find_element("css selector", f"#article-{key} a.scene")
        browser.execute_script("arguments[0].scrollIntoView(); arguments[0].click()", link)
        lesson, era, scene = statement.scene
        state = browser.execute_async_script(
            "const [done] = arguments; setTimeout(() => done([document.documentElement.dataset.view, window.lens.chosen, location.hash,"
            "document.getElementById('lesson').selectedOptions[0].text, window.player.replay.at]), 300)")
        title = next(each.title for each in LESSONS if each.key == lesson)
        assert state[:2] == ["lessons", era] and state[2].startswith(f"#lessons/{lesson}/{era}") and state[3] == title
        assert state[4] == next(each["step"] for each in record_lesson(lesson, era)["scenes"] if each["key"] == scene)

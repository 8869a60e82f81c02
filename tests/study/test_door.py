# SPDX-License-Identifier: GPL-2.0-only
"""The front door of the page in headless Chromium: from a file, and with the machine of ksm study --serve."""

import json

import pytest
from chromium import LAPTOP, eventually, every, one, screenshot, start
from played import COUNTER, COUNTERS, FRAME, ITEM, LINK, NODE, PTE, ROOT, WIDTHS
from visitor import Twin, serving

import ksm
from ksm.record.snapshot import snapshot
from ksm.study.door import CHOICES, EVERYWHERE, RUNS, recorded
from ksm.study.page import NAME, render
from ksm.study.serve.actions import PAGES, World

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    driver = start()
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("door") / NAME
    path.write_text(render(None, []), encoding="utf-8")
    return f"file://{path}"


@pytest.fixture(scope="module")
def server():
    with serving(render(None, [], live=True)) as made:
        yield made


@pytest.fixture
def door(browser, file):
    yield from opened(browser, file)


@pytest.fixture
def live(browser, server):
    yield from opened(browser, server.address)


def opened(browser, address):
    browser.get_log("browser")
    browser.get("about:blank")
    browser.get(address)
    eventually(lambda: browser.execute_script("return Boolean(door.replay)"))
    yield browser
    assert [line for line in browser.get_log("browser") if "status of 4" not in line["message"]] == []


def act(browser, *actions):
    """Send actions by the page's own function, without playing: "" or what was said of the last one that was refused."""
    return browser.execute_async_script(
        "const [actions, done] = arguments; (async () => { let wrong = '';"
        " for (const each of actions) try { await door.act(each, true); } catch (error) { wrong = error.message; }"
        " done(wrong); })()", list(actions))


def shown_counters(browser):
    return {name: int(value) for name, value in browser.execute_script(
        "return [...document.querySelectorAll('#door-counters tr')].map(row => [row.dataset.counter, row.lastChild.textContent])")}


def things(browser):
    """What the page's replay has, by kind."""
    return browser.execute_script(
        "return [...door.replay.things].map(([id, thing]) => [thing.kind, id, ...thing.v])")


def tiles(browser):
    """The texts, frames and W of all tiles, by process and page."""
    return browser.execute_script(
        "const part = (tile, name) => tile.querySelector(name);"
        "return [...document.querySelectorAll('#door-processes .process')].map(card => [card.dataset.process,"
        " [...card.querySelectorAll('.tile')].map(tile => [part(tile, 'b').textContent.trim(), part(tile, 'small').textContent,"
        "  part(tile, 'i').className])])")


# From a file

def test_a_first_visit(door):
    """What a reader sees who presses what the page proposes."""
    assert one(door, "#door h1").is_displayed() and one(door, "#door-hint").text.startswith("Begin here")
    assert len(every(door, "#door-processes .tile")) == 6 and len(every(door, "#door-frames .dframe")) == 6
    screenshot(door, "door")
    one(door, "#door-pass").click()
    assert door.execute_script("return door.playing")
    one(door, "#door-end").click()
    assert "again" in one(door, "#door-hint").text and shown_counters(door)["pages_sharing"] == 0
    one(door, "#door-pass").click()
    one(door, "#door-end").click()
    assert shown_counters(door)["pages_sharing"] == 1 and len(every(door, "#door-frames .dframe")) == 5
    assert "4 KiB saved" in one(door, "#door-saved").text and len(every(door, "#door-processes .tile.shared")) == 2
    said = one(door, "#door-cards").text
    for title in ("Why two visits", "What the stable tree is for", "What the unstable tree is for", "How a page is merged"):
        assert title in said
    screenshot(door, "door-merged")
    every(door, "#door-processes .tile")[4].click()            # bob's copy: the recorded write
    one(door, "#door-end").click()
    assert tiles(door)[1][1][1][0] == "my own words" and len(every(door, "#door-frames .dframe")) == 6
    assert "What a write does" in one(door, "#door-cards").text and shown_counters(door)["pages_sharing"] == 1
    assert "let it pass by" in one(door, "#door-hint").text
    one(door, "#door-pass").click()
    one(door, "#door-end").click()
    assert shown_counters(door)["pages_sharing"] == 0
    assert "ksm study --serve" in one(door, "#door-static").text


def test_each_choice_that_was_recorded_can_be_taken(door):
    """And its end is that of a machine which does the same."""
    for era in ("6.12", "2.6.38"):
        for keys in map(str.split, RUNS.get(era, EVERYWHERE)):
            door.execute_async_script("door.begin(arguments[0]).then(arguments[1])", era)
            assert act(door, *(CHOICES[key][1] for key in keys)) == ""
            world = World(era)
            world.begun()
            for key in keys:
                world.do(CHOICES[key][1])
            compare(door, world.machine)
            world.close()


def test_what_was_not_recorded_is_said(door):
    every(door, "#door-processes .tile")[0].click()
    eventually(lambda: "ksm study --serve" in one(door, "#door-hint").text)
    assert not any(button.is_displayed() for button in every(door, "#door .live"))


def test_other_eras(door):
    for era in ("2.6.38", "6.1", "7.3"):
        door.execute_script("lens.choose(arguments[0])", era)
        eventually(lambda era=era: door.execute_script("return door.replay.data.era") == era)
        assert act(door, *[CHOICES["scan"][1]] * 2) == ""
        assert shown_counters(door)["pages_sharing"] == 1
        assert one(door, "#door-limit").is_enabled() is False
        with ksm.Machine(memory="4M", era=era) as machine:      # only files that there were; cow_ksm came with 5.19, to /proc/vmstat
            shown = {*shown_counters(door)}
            assert shown - {"cow_ksm"} == {*COUNTERS} & {*machine.ksm.names()} and ("cow_ksm" in shown) == (era != "2.6.38")


def test_one_may_go_back_and_look_again(door):
    act(door, *[CHOICES["scan"][1]] * 2)
    lines = every(door, "#door-log li")
    assert len(lines) == door.execute_script("return door.replay.length") - 1
    merged = next(line for line in lines if "frame 5" in line.text and "leads to" in line.text)
    button = merged.find_element("css selector", "button")
    door.execute_script("arguments[0].scrollIntoView(); arguments[0].click()", button)
    assert one(door, "#door-sentence").text == button.text and shown_counters(door)["pages_sharing"] == 0
    assert len(every(door, "#door-frames .dframe")) == 5
    one(door, "#door-back").click()
    assert len(every(door, "#door-frames .dframe")) == 6
    one(door, "#door-step").click()
    assert len(every(door, "#door-frames .dframe")) == 5


@pytest.mark.parametrize("width", [390, 1000, 1440, 2560])
def test_everything_is_in_the_window(door, width):
    phone = width < 500
    if phone:
        door.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": True})
    else:
        door.set_window_size(width, 1000)
    try:
        act(door, *[CHOICES["scan"][1]] * 2)
        for theme in ("light", "dark"):
            door.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
            screenshot(door, f"door-{width}-{theme}")
            wrong = door.execute_script(
                "const small = arguments[0]; return [...document.querySelectorAll('#bar :is(a, button), #door :is(button, select, input)')]"
                ".filter(e => e.getClientRects().length && !e.closest('#door-log, #door-choices'))"
                ".map(e => [e.id || e.textContent, (e.type === 'checkbox' ? e.closest('label') : e).getBoundingClientRect()])"
                ".filter(([, box]) => box.left < 0 || box.right > innerWidth + .5 || (small && box.height < 40))"
                ".map(([name]) => name)", phone)
            assert wrong == []
            assert door.execute_script("const d = document.getElementById('door'); return d.scrollWidth - d.clientWidth") <= 0
    finally:
        if phone:
            door.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        else:
            door.set_window_size(*LAPTOP)


def test_there_is_no_serious_barrier(door):
    from axe_core_python.selenium import Axe

    act(door, *[CHOICES["scan"][1]] * 2)
    for theme in ("light", "dark"):
        door.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
        result = Axe().run(door, {"include": [["#bar"], ["#door"]]})["violations"]
        assert [(each["id"], each["nodes"][0]["html"]) for each in result if each["impact"] in ("serious", "critical")] == []


def test_it_is_small():
    assert len(json.dumps(recorded(), separators=(",", ":"))) < 400_000


# With a machine

def compare(browser, machine):
    """The page's state, its picture and its counters are those of the machine."""
    seen = snapshot(machine)
    rows = things(browser)
    page = {kind: sorted(row[2:] for row in rows if row[0] == kind) for kind in range(len(WIDTHS))}
    assert page[COUNTER] == sorted(list(row[1:]) for row in seen["counters"])
    assert page[PTE] == sorted(list(row[1:]) for row in seen["entries"])
    labels = browser.execute_script("return door.replay.data.contents")
    texts = {pfn: labels[content] for pfn, _, _, content, _ in page[FRAME]}
    assert texts == {
        row[1]: seen["contents"][row[4]].split(b"\0")[0].decode() or "zeros" for row in seen["frames"]}
    assert [row[:3] + row[4:] for row in page[FRAME]] == [[*row[1:4], row[5]] for row in sorted(seen["frames"], key=lambda row: row[1])]
    # Objects have numbers of their own on either side: they are named by the page, or the frame, that they are about.
    theirs = shapes({kind: [(row[1], *row[2:]) for row in rows if row[0] == kind] for kind in (NODE, ITEM, LINK, ROOT)})
    mine = shapes({NODE: seen["nodes"], ITEM: seen["items"], LINK: seen["links"], ROOT: seen["roots"]})
    assert theirs == mine
    shown = shown_counters(browser)
    values = dict(zip(COUNTERS, (row[2] for row in seen["counters"]), strict=True))
    assert shown == {name: values[name] for name in shown}
    expected = []
    for process in machine.processes.values():
        at = process.maps()[0].start
        cards = []
        for number, word in enumerate(process.page_table(at, PAGES * ksm.PAGE_SIZE)):
            text = process.read(at + number * ksm.PAGE_SIZE, ksm.PAGE_SIZE).rstrip(b"\0").decode() if word else ""
            frame = f"frame {word >> ksm.PAGE_FLAGS_SHIFT}"
            cards.append((text or "zeros", "zero page" if word & ksm.PAGE_ZERO else frame) if word else ("", "no frame yet"))
        expected.append((process.name, cards))
    assert [(name, [(text, where.removesuffix("W").strip()) for text, where, _ in cards]) for name, cards in tiles(browser)] == expected


def shapes(seen):
    nodes = {number: ("node", *row[:4], *row[5:]) for number, *row in seen[NODE]}
    items = {number: ("item", *row[:2]) for number, *row in seen[ITEM]}
    name = {**nodes, **items, -1: None}.get
    return {
        "nodes": sorted(map(repr, nodes.values())),
        "items": sorted(repr((*row[:3], name(row[3]) if row[2] == 2 else row[3], *row[4:])) for _, *row in seen[ITEM]),
        "links": sorted(repr((name(node), *map(name, around), red)) for _, node, *around, red in seen[LINK]),
        "roots": sorted(repr((tree, nid, name(root))) for _, tree, nid, root in seen[ROOT]),
    }


def by_hand(browser, action):
    """Do an action as a visitor does it, with the mouse or the keyboard, where there is a control for it; False if there is not."""
    what, who = action["do"], action.get("process")
    card = f'#door-processes [data-process="{who}"]'
    if what == "scan" and action["passes"] == 1:
        one(browser, "#door-pass").click()
    elif what == "visit" and action["pages"] == 1:
        one(browser, "#door-visit").click()
    elif what in ("fork", "exit"):
        one(browser, f'{card} [data-do="{what}"]').send_keys("\n")
    elif what == "spawn":
        one(browser, "#door-spawn").click()
    elif what == "write":
        one(browser, f'{card} .tile[data-page="{action["page"]}"]').send_keys("\n")
        field = browser.switch_to.active_element
        field.send_keys(f"\ue003{action['text']}\n")
    elif what == "madvise" and one(browser, f"{card} input").is_selected() != action["mergeable"]:
        browser.execute_script("arguments[0].click()", one(browser, f"{card} input"))
    else:
        return False
    return True


def test_what_is_proposed_and_what_is_said_to_be_saved_holds(live):
    def said(name):
        return one(live, f"#door-{name}").text

    act(live, {"do": "fork", "process": "alice"})
    assert said("saved") == "9 pages in 6 frames: 12 KiB saved by fork"
    act(live, *[{"do": "scan", "passes": 1}] * 2)
    assert said("saved") == "9 pages in 5 frames: 8 KiB saved by merging, 8 KiB by fork" and "bob" in said("hint")
    act(live, {"do": "exit", "process": "bob"})
    assert "bob" not in said("hint")
    live.execute_async_script("door.begin().then(arguments[0])")
    assert said("hint").startswith("Begin here")
    # What went wrong is marked, and is so no longer than it is said.
    one(live, "#door-pass").click()
    eventually(lambda: live.execute_script("return door.playing"))
    live.execute_script("door.end()")
    for _ in range(3):
        one(live, "[data-process=alice] [data-do=fork]").click()
        live.execute_script("return new Promise(done => setTimeout(done, 300))")
    eventually(lambda: "4 processes already" in said("hint"))
    one(live, "#door-back").click()
    one(live, "#door-step").click()
    assert "already" not in said("hint") and one(live, "#door-hint").get_attribute("class") == ""


def test_a_phone_shows_the_sentence_below_the_buttons(live):
    live.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True})
    try:
        act(live, {"do": "fork", "process": "alice"})
        places = live.execute_script(
            "document.getElementById('door').scrollTop = 300;"
            "return ['door-tools', 'door-sentence'].map(id => document.getElementById(id).getBoundingClientRect().toJSON())")
        assert 0 <= places[0]["bottom"] <= places[1]["top"] and places[1]["bottom"] < 844 / 3
    finally:
        live.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_200_actions_are_the_same_calls_in_python(live):
    twin = Twin()
    clicked, sent = 0, []
    begun = live.execute_script("return door.replay.length")
    for number, action in enumerate(twin.random(200, seed=16), 1):
        sent.append(action)
        if number % 8 == 0:
            *others, last = sent
            assert act(live, *others) == "", others
            answers = live.execute_script("return door.answers")
            if by_hand(live, last):
                clicked += 1
                eventually(lambda answers=answers: live.execute_script("return door.answers") == answers + 1)
                live.execute_script("door.end()")
            else:
                assert act(live, last) == "", last
            sent = []
        if number % 40 == 0:
            compare(live, twin.machine)
    assert clicked >= 8 and live.execute_script("return door.replay.length") > begun + 500
    assert twin.machine.check() == []
    # Played back to the beginning and on again, it is the same.
    live.execute_script("door.replay.seek(0); door.replay.seek(door.replay.length - 1)")
    compare(live, twin.machine)
    twin.machine.close()
    screenshot(live, "door-live")


def test_a_page_that_is_being_written_to_is_not_lost(live):
    """By a window that becomes smaller, as on a phone whose keyboard opens; nor by the button that is pressed next."""
    one(live, "#door-processes .tile").click()
    field = live.switch_to.active_element
    field.send_keys("half a ")
    live.execute_script("dispatchEvent(new Event('resize'))")
    assert live.switch_to.active_element == field
    field.send_keys("word")
    one(live, "#door-pass").click()
    eventually(lambda: live.execute_script("return door.answers") == 3)
    live.execute_script("door.end()")
    assert tiles(live)[0][1][0][0] == "half a word" and shown_counters(live)["full_scans"] == 1
    one(live, "#door-processes .tile").send_keys("\n")
    live.switch_to.active_element.send_keys("not this\ue00c")
    assert tiles(live)[0][1][0][0] == "half a word"
    assert live.switch_to.active_element.get_attribute("data-page") == "1"


def test_a_second_visitor_has_his_own_machine(live, server):
    act(live, {"do": "write", "process": "alice", "page": 1, "text": "mine"})
    first = live.current_window_handle
    live.switch_to.new_window("tab")
    try:
        live.get(server.address)
        eventually(lambda: live.execute_script("return Boolean(door.replay)"))
        assert tiles(live)[0][1][0][0] == "the same page"
        act(live, {"do": "fork", "process": "bob"})
        assert len(tiles(live)) == 3
    finally:
        live.close()
        live.switch_to.window(first)
    act(live, {"do": "scan", "passes": 1})
    assert len(tiles(live)) == 2 and tiles(live)[0][1][0][0] == "mine"


def test_a_wrong_action_gets_a_sentence(live):
    act(live, *[{"do": "scan", "passes": 1}] * 2)
    before = things(live)
    one(live, "#door-limit option").click()
    eventually(lambda: "The kernel answers EBUSY" in one(live, "#door-hint").text)
    assert one(live, "#door-limit").get_attribute("value") == "256"
    assert "no process “nobody”" in act(live, {"do": "fork", "process": "nobody"})
    assert things(live) == before
    assert act(live, {"do": "scan", "passes": 1}) == ""


def test_a_machine_that_was_given_up_can_be_begun_anew(live, server):
    for visit in list(server.visits.visits.values()):
        visit.last -= 10_000
    server.visits.sweep()
    one(live, "#door-pass").click()
    eventually(lambda: "Begin anew." in one(live, "#door-hint").text)
    one(live, "#door-begin").click()
    eventually(lambda: len(server.visits.visits) == 1)
    assert act(live, {"do": "scan", "passes": 2}) == "" and shown_counters(live)["pages_sharing"] == 1
    assert not one(live, "#door-static").is_displayed()

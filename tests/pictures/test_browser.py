# SPDX-License-Identifier: GPL-2.0-only
"""The page of a scan in headless Chromium: tox -e study. See chromium.py."""

import base64
import json
import os
from pathlib import Path

import pytest
from chromium import eventually, missing, one, screenshot, start

pytestmark = pytest.mark.browser
pytest.importorskip("altair")
DRAWN = (
    "const done = arguments[0], all = [...document.querySelectorAll('[data-chart], [data-map]')];"
    "const look = () => all.every(each => 'drawn' in each.dataset) ? done(all.length) : setTimeout(look, 20); look()"
)
# Controls, charts and rows of text that are cut off at the window's edge. What scrolls by itself may be wider.
CUT = (
    "const scrolls = each => each && Boolean(each.closest('.wide, .chart, pre'));"
    "return [...document.querySelectorAll('a, summary, select, canvas, button, p, dd, dt, h1, h2, li, figure, .wide, .chart, pre')]"
    ".filter(each => !scrolls(each.parentElement)).map(each => [each.tagName, each.className, each.getBoundingClientRect()])"
    ".filter(([, , box]) => box.width && (box.left < -0.5 || box.right > document.documentElement.clientWidth + 0.5))"
    ".map(([tag, name]) => `${tag} ${name}`)"
)


@pytest.fixture(scope="module")
def browser():
    driver = start()
    driver.set_script_timeout(30)
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, page_of_images, request):
    """The page, drawn; a test may say how wide, and in which colours."""
    browser.get_log("browser")
    look_as(browser, *getattr(request, "param", (1440, "light")))
    browser.get(f"file://{page_of_images[0]}")
    assert browser.execute_async_script(DRAWN) == 6
    yield browser
    assert browser.get_log("browser") == []


def look_as(browser, width, scheme, media=""):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def brightness(browser, colour):
    return sum(browser.execute_script(
        "const c = document.createElement('canvas').getContext('2d'); c.fillStyle = arguments[0]; c.fillRect(0, 0, 1, 1);"
        "return [...c.getImageData(0, 0, 1, 1).data].slice(0, 3)", colour))


def style(browser, selector, name):
    return browser.execute_script("return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]", selector, name)


@pytest.mark.parametrize("opened", [(390, "light"), (390, "dark"), (768, "light"), (1440, "dark")], indirect=True, ids=str)
def test_nothing_is_cut_off(opened, request):
    width, scheme = request.node.callspec.params["opened"]
    opened.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
    assert opened.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    assert opened.execute_script(CUT) == []
    whole = opened.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png"})["data"]
    if folder := os.environ.get("KSM_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, f"scan-{width}-{scheme}.png").write_bytes(base64.b64decode(whole))


def test_colours_follow_the_system(opened):
    bar = "[data-chart=sources] .mark-rect path"
    seen = {}
    for scheme in ("light", "dark"):
        look_as(opened, 1440, scheme)
        paper = brightness(opened, style(opened, "html", "backgroundColor"))
        ink = brightness(opened, style(opened, "[data-chart=sources] .role-axis-label text", "fill"))
        assert (paper > 600 > 300 > ink) if scheme == "light" else (paper < 150 < 500 < ink)
        seen[scheme] = style(opened, bar, "fill")
    assert seen["light"] != seen["dark"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_rules_of_accessibility(opened, scheme):
    try:
        import axe_core_python
    except ImportError:
        missing("axe-core-python")
    look_as(opened, 1440, scheme)
    opened.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
    opened.execute_script(Path(axe_core_python.__file__).with_name("axe.min.js").read_text())
    rules = {} if scheme == "light" else {"runOnly": ["color-contrast"]}
    found = opened.execute_async_script("axe.run(document, arguments[0]).then(arguments[1])", rules)
    assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found["violations"]] == []
    assert len(found["passes"]) > (20 if scheme == "light" else 0)


def test_the_map_shows_the_share_of_each_state(opened, page_of_images):
    """Each page has a cell here, so its colour is that of its state."""
    _, data = page_of_images
    counted = opened.execute_script(
        "const c = document.querySelector('canvas'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, n = {};"
        "const scale = Math.floor(1280 / arguments[0]);"
        "for (let y = scale >> 1; y < c.height; y += scale) for (let x = scale >> 1; x < c.width; x += scale) {"
        "  const at = 4 * (y * c.width + x), key = [d[at], d[at + 1], d[at + 2]].join(); n[key] = (n[key] || 0) + 1; }"
        "return n", data["details"]["map"]["side"])
    for state in ("zero", "within", "across", "merged", "unshared"):
        colour = opened.execute_script(
            "const c = document.createElement('canvas').getContext('2d');"
            "c.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(arguments[0]); c.fillRect(0, 0, 1, 1);"
            "return [...c.getImageData(0, 0, 1, 1).data].slice(0, 3).join()", f"--c-{state}")
        assert counted.get(colour, 0) == sum(states[state] for states in data["details"]["states"]), state


def test_the_map_is_read_with_the_keyboard(opened, page_of_images):
    _, data = page_of_images
    canvas, said = one(opened, "canvas"), one(opened, "output")
    canvas.send_keys("\ue011")          # home
    first = said.text
    assert data["sources"][0]["name"] in first and ", at 0x0, 1 page: " in first
    canvas.send_keys("\ue010")          # end
    assert data["sources"][2]["name"] in said.text
    canvas.send_keys("\ue011")
    seen = {said.text}
    for key in ("\ue014", "\ue015", "\ue012", "\ue013"):    # right, down, left, up
        canvas.send_keys(key)
        seen.add(said.text)
    assert said.text == first and len(seen) == 4
    one(opened, "select option[value='1']").click()
    screenshot(opened, "map-of-one-source")


def test_neighbours_on_the_curve_are_neighbours_on_the_map(opened):
    steps = opened.execute_script(
        "const far = []; for (const side of [2, 4, 8, 64]) for (let n = 1; n < side * side; n++) {"
        "  const [a, b] = place(side, n - 1), [c, d] = place(side, n);"
        "  if (Math.abs(a - c) + Math.abs(b - d) !== 1 || numberAt(side, c, d) !== n) far.push([side, n]); }"
        "return far")
    assert steps == []


def test_cells_of_many_pages_have_colours_by_their_share(opened):
    """90 % of one state and 10 % of another one, in each cell: one cell of ten has the second colour."""
    shown = opened.execute_script("return [...chosen(new Uint16Array(1000 * 2).map((_, n) => n % 2 ? 10 : 90), 2, 1000)]")
    assert 99 <= sum(shown) <= 101


def test_it_is_printed_in_light_colours_with_all_tables(opened):
    look_as(opened, 1440, "dark", media="print")
    assert style(opened, "html", "backgroundColor") == "rgb(255, 255, 255)"
    look_as(opened, 1440, "light")
    data = base64.b64decode(opened.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"])
    assert data.startswith(b"%PDF") and len(data) > 50_000
    if folder := os.environ.get("KSM_SCREENSHOTS"):
        Path(folder, "scan.pdf").write_bytes(data)


def test_no_network_is_asked_or_needed(opened):
    opened.execute_cdp_cmd("Network.enable", {})
    rates = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    opened.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, **rates})
    try:
        opened.get_log("performance")
        opened.refresh()
        assert opened.execute_async_script(DRAWN) == 6
        messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
        urls = [message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"]
        assert urls and {url.split(":")[0] for url in urls} <= {"file", "data"}
    finally:
        opened.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": False, **rates})


def test_what_a_bar_is_is_said_beside_it(opened):
    """A tooltip has the name as text."""
    from selenium.webdriver import ActionChains

    bars = opened.find_elements("css selector", "[data-chart=sources] .mark-rect path")
    seen = set()
    for bar in bars:
        opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", bar)
        ActionChains(opened).move_to_element(bar).perform()
        eventually(lambda: one(opened, "#vg-tooltip-element").text not in {"", *seen})
        seen.add(one(opened, "#vg-tooltip-element").text)
    assert len(seen) == len(bars) > 6 and any("<img src=x onerror=alert(1)>" in text for text in seen)
    assert all("MiB" in text for text in seen)


def test_a_hostile_name_runs_nothing(opened):
    assert opened.execute_script("return document.querySelectorAll('img').length") == 0
    assert "<img src=x onerror=alert(1)>" in one(opened, "main").text
    policy = opened.execute_script(
        "const e = document.createElement('script'); e.textContent = 'window.ran = 1'; document.body.append(e); return window.ran || 0")
    assert policy == 0
    assert "Content Security Policy" in opened.get_log("browser")[0]["message"]

# SPDX-License-Identifier: GPL-2.0-only
"""What the picture of a recording shows at a step, read from the page's elements."""

from __future__ import annotations

from typing import Any

# As JSON, in an order of its own: elements are kept from one step to the next.
READ = """
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const has = (element, ...names) => names.filter(name => element.classList.contains(name));
const sorted = pairs => Object.fromEntries(pairs.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0)));
const text = (element, selector) => element.querySelector(selector).textContent;
function drawn() {
  const stage = document.getElementById("stage");
  const tree = side => {
    const nodes = all(`.of-${side} .n`, stage).map(n => [n.dataset.id, {parent: n.dataset.parent,
      colour: n.dataset.colour, frame: text(n, ".in"), name: text(n, ".name"), below: all(".sub", n).map(each => each.textContent),
      marks: has(n, "path", "now", "lost", "stale"),
      at: n.style.transform}]);
    const figure = stage.querySelector(`.of-${side}`);
    return {nodes: sorted(nodes), edges: all(".edge", figure).length, note: text(figure, "figcaption small:last-child"),
      height: figure.dataset.height,
      said: text(figure, ".height"), box: figure.querySelector("svg").getAttribute("viewBox")};
  };
  return {
    at: document.getElementById("at").value, sentence: document.querySelector("#sentence > span").textContent,
    counters: sorted(all("#counters > div").map(each => [each.dataset.counter, Number(text(each, "b"))])),
    moved: all("#counters > .moved").map(each => each.dataset.counter).sort(),
    pages: sorted(all(".page, .square", stage).filter(each => !each.classList.contains("square") || !stage.querySelector(
      `.page[data-page="${each.dataset.page}"]`)).map(each => [each.dataset.page, {frame: each.dataset.frame, bits: each.dataset.bits,
      place: each.dataset.place, marks: has(each, "now", "other", "none", "volatile", "unstable", "stable", "stale")}])),
    words: sorted(all(".page", stage).map(each => [each.dataset.page, text(each, "span")])),
    writable: all(".page", stage).filter(each => !each.querySelector(".w.off")).map(each => each.dataset.page).sort(),
    frames: sorted(all(".pageframe", stage).map(each => [each.dataset.frame, {mapcount: each.dataset.mapcount, ksm: each.dataset.ksm,
      word: text(each, "span"),
      marks: has(each, "free", "now")}])),
    arrows: sorted(all(".arrow", stage).map(each => [each.dataset.page, each.dataset.frame])),
    hot: all(".hot", stage).map(each => each.dataset.page || each.dataset.frame || each.dataset.id).sort(),
    stable: tree("stable"), unstable: tree("unstable"),
    checksum: all(".sums code", stage).map(each => each.textContent), bytes: stage.querySelector(".bytes").dataset.pair,
    byte: stage.querySelector(".bytes").dataset.at, compared: stage.querySelector(".bytes").textContent,
  };
}
"""


def look_as(browser: Any, size: tuple[int, int], scheme: str = "light", motion: str = "reduce") -> None:
    """Let the window have this size, and the reader want these colours, and motion or not."""
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                            {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 700})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme},
                                                                        {"name": "prefers-reduced-motion", "value": motion}]})


def drawn(browser: Any) -> dict[str, Any]:
    """The picture as it is now."""
    return dict(browser.execute_script(READ + "return drawn()"))


def drawn_at_each_step(browser: Any, number: int, every: int = 1) -> list[dict[str, Any]]:
    """Play a recording of the page from its first step to its last one: the picture at each of them, or at every so many and the last."""
    browser.set_script_timeout(240)
    return list(browser.execute_script(
        READ + "player.show(arguments[0], 'steps'); const n = player.replay.length, found = [], step = document.getElementById('step');"
        "document.getElementById('first').click();"
        "for (let at = 0; at < n; at++) { if (at) step.click(); if (at % arguments[1] === 0 || at === n - 1) found.push(drawn()); }"
        "return found", number, every))

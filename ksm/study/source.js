// SPDX-License-Identifier: GPL-2.0-only
// No twin in the kernel: the page of ksm study.
// The source: showing a line, the search, the index, what is folded or hidden, which side a phone shows.
// @ts-check
"use strict";

const code = byId("code", HTMLElement);

/** Fold a helper's lines away, or show them. @param {Element} bar @param {boolean} open */
function fold(bar, open) {
  bar.setAttribute("aria-expanded", String(open));
  for (const line of code.querySelectorAll(`[data-part="${bar.getAttribute("data-fold")}"]`)) line.toggleAttribute("data-folded", !open);
}

/** Show one side on a phone. @param {string} side "kernel" or "port" */
function showSide(side) {
  code.dataset.side = side;
  for (const button of document.querySelectorAll("#sides button")) {
    button.setAttribute("aria-pressed", String(button.getAttribute("data-side") === side));
  }
}

/** Open what a line is in: the includes, a helper, the hooks, the other side of a phone. @param {Element} line */
function reveal(line) {
  const opening = line.closest("details");
  if (opening) opening.open = true;
  const bar = line.hasAttribute("data-folded") && code.querySelector(`[data-fold="${line.getAttribute("data-part")}"]`);
  if (bar) fold(bar, true);
  if (code.hasAttribute("data-no-hooks") && (line.hasAttribute("data-hook") || line.closest(".only-ours"))) setHooks(true);
}

/** Show what only the port has, or not. @param {boolean} on */
function setHooks(on) {
  code.toggleAttribute("data-no-hooks", !on);
  byId("hooks", HTMLButtonElement).setAttribute("aria-pressed", String(on));
}

/** Scroll to one or two lines of the code, if they are not in comfortable sight already. The first is the kernel's. If the two are too far
 * apart, the last one is in sight.
 * @param {Element[]} lines */
function show(...lines) {
  for (const line of lines) reveal(line);
  if (lines.length && code.offsetParent && !lines.some((line) => line.getClientRects().length)) showSide(lines[0].id[0] === "k" ? "kernel" : "port");
  lines = lines.filter((line) => line.getClientRects().length);
  if (!lines.length) return;
  const bounds = () => {
    const boxes = lines.map((line) => line.getBoundingClientRect()), frame = code.getBoundingClientRect();
    let top = Math.min(...boxes.map((box) => box.top)), bottom = Math.max(...boxes.map((box) => box.bottom));
    if (bottom - top > frame.height - 50) ({ top, bottom } = boxes[boxes.length - 1]);
    return { top: top - frame.top, bottom: bottom - frame.top, height: frame.height };
  };
  // Sections that were not drawn yet may have another height than estimated, so scroll twice.
  const settle = () => {
    const { top, bottom, height } = bounds();
    // The middle of the room that the headings leave
    if (top < 30 || bottom > height - 15) code.scrollTop += (top + bottom) / 2 - (height + 25) / 2;
  };
  lines[lines.length - 1].scrollIntoView({ block: "nearest" });
  settle();
  requestAnimationFrame(settle);
}

/** Scroll to a function or a file. Sections that are drawn on the way have another height than estimated, and are drawn a frame later: so
 * scroll until the place has been the right one for some frames.
 * @param {Element} target */
function bring(target) {
  let frames = 60, still = 0;
  const step = () => {
    const before = code.scrollTop;
    target.scrollIntoView();
    still = Math.abs(code.scrollTop - before) > 1 ? 0 : still + 1;
    if (--frames && still < 5) requestAnimationFrame(step);
  };
  step();
}

/** Mark the function in the index: this one, or without an argument the one that is in sight.
 * @param {Element | null} [section] */
let mark = (section) => {};

(() => {
  const search = byId("search", HTMLInputElement), found = byId("found", HTMLElement);
  const entries = [...document.querySelectorAll("#index li")];
  /** @type {Element[]} */
  let hits = [];
  let next = 0, wanted = "";

  /** Function names in the index that have the text in them. */
  function filter() {
    const text = search.value.trim().toLowerCase();
    let count = 0;
    for (const entry of entries) {
      const fits = !entry.matches(".of-file") && (entry.textContent || "").toLowerCase().includes(text);
      entry.toggleAttribute("hidden", !fits && text !== "");
      count += fits ? 1 : 0;
    }
    // If no function has the text in its name, show where the text is in the code.
    if (text && !count) for (const entry of entries) entry.removeAttribute("hidden");
    found.textContent = text ? `${count} function${count === 1 ? "" : "s"}; Enter: in the text` : "";
  }

  /** The next line with the text, on either side and in every file.
   * @param {boolean} backwards */
  function find(backwards) {
    const text = search.value.trim().toLowerCase();
    if (!text) return;
    if (text !== wanted) {
      for (const hit of hits) hit.classList.remove("hit");
      hits = [...code.querySelectorAll(".rows code")].filter((line) => (line.textContent || "").toLowerCase().includes(text));
      for (const hit of hits) hit.classList.add("hit");
      [wanted, next] = [text, backwards ? hits.length - 1 : 0];
    } else if (hits.length) {
      next = (next + (backwards ? hits.length - 1 : 1)) % hits.length;
    }
    found.textContent = hits.length ? `line ${next + 1} of ${hits.length}` : "not in the text";
    if (hits.length) show(hits[next]);
  }

  search.addEventListener("input", () => {
    if (!search.value) for (const hit of hits.splice(0)) hit.classList.remove("hit");
    wanted = "";
    filter();
  });
  search.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Enter") find(event.shiftKey);
  });

  // The function that is in sight is marked in the index, and its file above.
  const links = new Map(entries.map((entry) => [(entry.querySelector("a") || entry).getAttribute("href"), entry]));
  const sections = [...document.querySelectorAll("section.pair")];
  const files = [...document.querySelectorAll("#files a")];
  /** @type {Element | undefined} */
  let here;
  let asked = false;

  /** The section of the line that is lit, if that is in sight; else the one below the headings. */
  function shown() {
    const frame = code.getBoundingClientRect(), top = frame.top + 60;
    const lit = [...code.querySelectorAll("code.lit")].pop(), box = lit?.getBoundingClientRect();
    if (lit && box && box.bottom > frame.top && box.top < frame.bottom) return lit.closest("section.pair");
    // The last ones cannot come to the top.
    const asked = location.hash ? document.getElementById(location.hash.slice(1))?.closest("section.pair") : null;
    if (asked && code.scrollTop + code.clientHeight >= code.scrollHeight - 2 && asked.getBoundingClientRect().top >= top) return asked;
    let found = sections[0];
    for (const section of sections) {
      if (!section.getClientRects().length) continue;
      // The first one of a file counts as soon as the file's heading is there.
      const begins = section.matches("section:first-of-type") && section.closest(".file") || section;
      if (begins.getBoundingClientRect().top > top) break;
      found = section;
    }
    return found;
  }

  mark = (section) => {
    section = section || shown();
    for (const file of files) {
      const of = section?.closest(".file")?.id === file.getAttribute("href")?.slice(1);
      if (of) file.setAttribute("aria-current", "true"); else file.removeAttribute("aria-current");
    }
    const entry = links.get(`#${section?.id}`);
    if (!entry || entry === here) return;
    here?.classList.remove("here");
    here = entry;
    entry.classList.add("here");
    entry.scrollIntoView({ block: "nearest" });
  };
  code.addEventListener("scroll", () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; mark(); });
  }, { passive: true });
  addEventListener("view", () => {
    const target = location.hash.length > 1 ? document.getElementById(location.hash.slice(1)) : null;
    if (target?.matches(".rows code")) show(target);
    else if (target && code.contains(target) && code.offsetParent) bring(target);
    if (code.offsetParent) mark();
  });

  code.addEventListener("click", (event) => {
    const bar = event.target instanceof Element ? event.target.closest(".bar") : null;
    if (bar) fold(bar, bar.getAttribute("aria-expanded") !== "true");
  });
  byId("sides", HTMLElement).addEventListener("click", (event) => {
    const side = event.target instanceof Element ? event.target.getAttribute("data-side") : null;
    if (!side) return;
    // The same function stays in sight.
    const section = shown();
    showSide(side);
    section?.scrollIntoView();
  });
  byId("hooks", HTMLButtonElement).addEventListener("click", (event) => {
    const section = shown();
    setHooks(code.hasAttribute("data-no-hooks"));
    if (section?.getClientRects().length) section.scrollIntoView();
  });
  const helpers = byId("helpers", HTMLButtonElement);
  helpers.addEventListener("click", () => {
    const section = shown(), open = helpers.getAttribute("aria-pressed") !== "true";
    helpers.setAttribute("aria-pressed", String(open));
    for (const bar of code.querySelectorAll(".bar")) fold(bar, open);
    section?.scrollIntoView();
  });
})();

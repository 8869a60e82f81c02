// SPDX-License-Identifier: GPL-2.0-only
// The part that is shown; reading: the index, the search, light and dark.
// @ts-check
"use strict";

/** An element that the page has.
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T} */
function byId(id, type) {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`no ${id} in the page`);
  return found;
}

/** A new element.
 * @param {string} tag
 * @param {Record<string, string>} attributes
 * @param {(Node | string)[]} children
 * @returns {HTMLElement} */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const code = byId("code", HTMLElement);

/** Scroll to one or two lines of the code, if they are not in comfortable sight already. The first is the kernel's. If the two are too far
 * apart, the last one is in sight.
 * @param {Element[]} lines */
function show(...lines) {
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

/** Show the part of the page that the address says, and what the address names in it. The window gets an event "view" whenever the address
 * has changed, whose detail is the part. @param {string} [before] the part that was shown */
function showView(before) {
  const root = document.documentElement, view = viewOf(location.hash);
  root.dataset.view = view;
  for (const link of document.querySelectorAll("#views a")) {
    if (link.getAttribute("href") === `#${view}`) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  // The browser could not scroll to what was not drawn, and does not when a page is loaded again. Sections that were not drawn yet may have another height than estimated: scroll twice.
  const target = before === view ? null : document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.id !== view) {
    target.scrollIntoView();
    requestAnimationFrame(() => { target.scrollIntoView(); requestAnimationFrame(() => target.scrollIntoView()); });
  }
  dispatchEvent(new CustomEvent("view", { detail: view }));
}
addEventListener("hashchange", () => showView(document.documentElement.dataset.view));

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
      const fits = (entry.textContent || "").toLowerCase().includes(text);
      entry.toggleAttribute("hidden", !fits);
      count += fits ? 1 : 0;
    }
    // If no function has the text in its name, show where the text is in the code.
    if (text && !count) for (const entry of entries) entry.removeAttribute("hidden");
    found.textContent = text ? `${count} function${count === 1 ? "" : "s"}; Enter: in the text` : "";
  }

  /** The next line with the text, on either side.
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

  // The function that is in sight is marked in the index.
  const links = new Map(entries.map((entry) => [(entry.querySelector("a") || entry).getAttribute("href"), entry]));
  const sections = [...document.querySelectorAll("section.pair")];
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
      if (section.getBoundingClientRect().top > top) break;
      found = section;
    }
    return found;
  }

  mark = (section) => {
    const entry = links.get(`#${(section || shown())?.id}`);
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
  addEventListener("view", () => { if (code.offsetParent) mark(); });

  // On a phone the list of functions opens and closes.
  const functions = byId("functions", HTMLButtonElement), nav = byId("nav", HTMLElement);
  const open = (/** @type {boolean} */ on) => { nav.classList.toggle("open", on); functions.setAttribute("aria-expanded", String(on)); };
  functions.addEventListener("click", () => open(!nav.classList.contains("open")));
  search.addEventListener("input", () => open(search.value.trim() !== ""));
  byId("index", HTMLElement).addEventListener("click", (event) => { if (event.target instanceof HTMLAnchorElement) open(false); });

  const themes = ["", "light", "dark"];
  byId("theme", HTMLButtonElement).addEventListener("click", () => {
    const root = document.documentElement;
    root.dataset.theme = themes[(themes.indexOf(root.dataset.theme || "") + 1) % themes.length];
  });
})();

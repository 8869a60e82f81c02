// SPDX-License-Identifier: GPL-2.0-only
// The part that is shown; the list of functions on a phone; light and dark.
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

/** What the address names, without its escapes; as it is, if they are none. */
function plainHash() {
  const hash = location.hash.slice(1);
  try { return decodeURIComponent(hash); } catch { return hash; }
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
  const target = before === view ? null : document.getElementById(plainHash());
  if (target && target.id !== view) {
    target.scrollIntoView();
    requestAnimationFrame(() => { target.scrollIntoView(); requestAnimationFrame(() => target.scrollIntoView()); });
  }
  dispatchEvent(new CustomEvent("view", { detail: view }));
}
// The lessons open where they were left.
document.querySelector('#views a[href="#lessons"]')?.addEventListener("click", (event) => {
  const place = /** @type {HTMLElement} */ (event.currentTarget).dataset.place;
  if (!place) return;
  event.preventDefault();
  location.hash = place;
});
addEventListener("hashchange", () => showView(document.documentElement.dataset.view));

(() => {
  // On a phone the list of functions opens and closes.
  const functions = byId("functions", HTMLButtonElement), nav = byId("nav", HTMLElement), search = byId("search", HTMLInputElement);
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

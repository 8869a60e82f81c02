// SPDX-License-Identifier: GPL-2.0-only
// No twin in the kernel: the page of ksm study.
// The picture of the front door: memories, frames and what leads where, counters. Both trees are those of stage.js.
// @ts-check
"use strict";

/** @typedef {{name: string, mm: number, first: number, pages: number, mergeable: boolean}} DoorProcess */

/** The counters that the era has as files @type {string[]} */
let doorFiles = [];

/** The lessons' picture: its trees and its looks stand here, its memory is not shown. */
const doorStage = new Stage(document.createElement("div"), { width: 360 });
byId("door-trees", HTMLElement).append(doorStage.trees, doorStage.looks);

/** The words on a page. @param {Replay} r @param {number} content */
function doorText(r, content) {
  return content < 0 ? "" : r.data.contents[content] || "";
}

/** Draw the state of a recording at its step.
 * @param {Replay} r
 * @param {DoorProcess[]} processes
 * @param {{write: (process: string, page: number, box: HTMLElement) => void, act: (action: object) => void, live: boolean}} hands */
function drawDoor(r, processes, hands) {
  const frames = new Map(r.all(FRAME).map(([, v]) => [v[0], v])), items = new Map(r.all(ITEM));
  const entries = new Map(r.all(PTE).map(([, v]) => [`${v[0]}:${v[1]}`, v]));
  const byKey = new Map([...items.values()].map((v) => [`${v[0]}:${v[1]}`, v]));
  const keyOf = (/** @type {number} */ id) => (items.get(id) || []).slice(0, 2).join(":");
  const now = keyOf(r.current()), other = keyOf(r.data.steps[r.at][1]);
  byId("door-processes", HTMLElement).replaceChildren(...processes.map((process) => card(process)));

  /** @param {DoorProcess} process */
  function card(process) {
    const { name, mm, first, pages } = process;
    const tiles = Array.from({ length: pages }, (_, i) => tile(process, i + 1, `${mm}:${first + i}`));
    const box = /** @type {HTMLInputElement} */ (make("input", { type: "checkbox", ...(process.mergeable ? { checked: "" } : {}), ...(hands.live ? {} : { disabled: "" }) }));
    box.addEventListener("change", () => hands.act({ do: "madvise", process: name, mergeable: box.checked }));
    const buttons = ["fork", "exit"].map((what) => {
      const button = make("button", { type: "button", class: "live", "data-do": what, "aria-label": `${name}: ${what}` }, what);
      button.addEventListener("click", () => hands.act({ do: what, process: name }));
      return button;
    });
    return make("article", { class: "process", "data-process": name }, make("header", {}, make("h3", {}, name), make("label", { title: "madvise(MADV_MERGEABLE): ksmd may look at these pages" }, box, " mergeable"), ...buttons),
      make("div", { class: "tiles" }, ...tiles));
  }

  /** @param {DoorProcess} process @param {number} page @param {string} key */
  function tile(process, page, key) {
    const entry = entries.get(key), frame = entry && frames.get(entry[2]), item = byKey.get(key), bits = entry ? entry[3] : 0;
    const zero = Boolean(bits & (BIT_ZERO | BIT_KSM_ZERO)), text = zero ? "zeros" : frame ? doorText(r, frame[3]) : "", place = item ? PLACES[item[2]] : "";
    const shared = Boolean(bits & BIT_KSM);
    const below = !entry ? "no frame yet" : zero ? "zero page" : `frame ${entry[2]}`;
    const box = make("button", { type: "button", class: `tile ${place} ${shared ? "shared" : ""} ${key === now ? "now" : key === other ? "other" : ""}`, "data-key": key, "data-page": String(page),
      "aria-label": `page ${page} of ${process.name}: ${text || "empty"}, ${below}${shared ? ", shared" : ""}. Write into it` },
      make("b", {}, text || "\u00a0"), make("small", {}, below, " ", make("i", { class: bits & BIT_WRITE ? "w" : "no-w", title: bits & BIT_WRITE ? "its owner may write" : "write-protected" }, entry ? "W" : "")));
    box.addEventListener("click", () => hands.write(process.name, page, box));
    return box;
  }

  // Frames, in the order in which processes have them
  const used = new Map();
  for (const { mm, first, pages } of processes) for (let i = 0; i < pages; i++) {
    const entry = entries.get(`${mm}:${first + i}`);
    if (entry && frames.has(entry[2]) && !(entry[3] & BIT_ZERO)) used.set(entry[2], (used.get(entry[2]) || 0) + 1);
  }
  const boxes = [...used].sort((a, b) => a[0] - b[0]).map(([pfn, count]) => {
    const frame = frames.get(pfn) || [], merged = Boolean(frame[4] & BIT_KSM);
    return make("div", { class: `dframe ${merged ? "shared" : ""}`, "data-frame": String(pfn) }, make("small", {}, `frame ${pfn}`), make("b", {}, doorText(r, frame[3])),
      make("small", {}, count > 1 ? `for ${count} pages` : ""));
  });
  byId("door-frames", HTMLElement).replaceChildren(...boxes);
  const mapped = [...used.values()].reduce((sum, count) => sum + count, 0);
  const merged = [...used].reduce((sum, [pfn, count]) => sum + ((frames.get(pfn) || [])[4] & BIT_KSM ? count - 1 : 0), 0), forked = mapped - used.size - merged;
  const saved = [merged && `${4 * merged} KiB saved by merging`, forked && `${4 * forked} KiB ${merged ? "" : "saved "}by fork`].filter(Boolean);
  byId("door-saved", HTMLElement).textContent = `${mapped} pages in ${used.size} frames` + (saved.length ? `: ${saved.join(", ")}` : "");
  drawArrows(entries);
  doorStage.draw(r);
  drawDoorCounters(r);
}

/** A line from each page to its frame, where they stand side by side. @param {Map<string, number[]>} entries */
function drawArrows(entries) {
  const grid = byId("door-grid", HTMLElement), base = grid.getBoundingClientRect(), drawing = document.getElementById("door-arrows");
  if (!drawing) return;
  const old = new Map([...drawing.children].map((path) => [path.getAttribute("data-key"), path]));
  for (const box of document.querySelectorAll("#door-processes .tile")) {
    const key = box.getAttribute("data-key") || "", entry = entries.get(key), target = entry && document.querySelector(`#door-frames [data-frame="${entry[2]}"]`);
    if (!target) continue;
    const a = box.getBoundingClientRect(), b = target.getBoundingClientRect();
    if (b.left < a.right) continue;     // one below the other: the numbers have to do
    const [x1, y1, x2, y2] = [a.right - base.left, (a.top + a.bottom) / 2 - base.top, b.left - base.left, (b.top + b.bottom) / 2 - base.top], bend = (x2 - x1) / 2;
    const path = old.get(key) || svg("path", { "data-key": key });
    old.delete(key);
    path.setAttribute("class", target.classList.contains("shared") ? "shared" : "");
    const line = `M ${x1} ${y1} C ${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
    path.setAttribute("d", line);
    /** @type {SVGElement} */ (path).style.setProperty("d", `path("${line}")`);
    if (!path.parentNode) drawing.append(path);
  }
  for (const path of old.values()) path.remove();
}

/** @type {Record<string, number>} */
let doorBefore = {};

/** @param {Replay} r */
function drawDoorCounters(r) {
  const counters = r.counters(), shown = [...doorFiles, ...(r.data.era === "2.6.38" ? [] : ["cow_ksm"])];
  byId("door-counters", HTMLElement).getElementsByTagName("tbody")[0].replaceChildren(...shown.map((name) =>
    make("tr", { "data-counter": name, class: doorBefore[name] !== undefined && doorBefore[name] !== counters[name] ? "moved" : "" }, make("th", { scope: "row" }, name, ...(doorFiles.includes(name) ? [] : [make("small", {}, " of /proc/vmstat")])), make("td", {}, String(counters[name] ?? 0)))));
  doorBefore = counters;
}

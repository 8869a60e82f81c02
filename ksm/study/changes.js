// SPDX-License-Identifier: GPL-2.0-only
// No twin in the kernel: the page of ksm study.
// What a step of a recording has changed, and what it has looked at.
// @ts-check
"use strict";

/** @typedef {{pages: Set<string>, frames: Set<number>, objects: Set<number>, counters: Set<string>, kinds: Set<number>}} Changes */
/** @typedef {{stable: Room, unstable: Room, pages: string[], frames: number[]}} Extent the most that a picture has to show */
/** @typedef {{name: string, label: string, byte: number}} Side of a comparison: whose bytes, how they begin, the one that decides or -1 */
/** @typedef {{item: number, before: number, now: number | null}} Checksums now: null before it is computed */

/** The changes that a step has in a recording: kind, number, values; no values if the object is gone.
 * @param {number[]} step @returns {[number, number, number[] | null][]} */
function incrementsOf(step) {
  /** @type {[number, number, number[] | null][]} */
  const found = [];
  for (let i = HEAD; i < step.length;) {
    const kind = Math.abs(step[i]) - 1, end = i + 2 + (step[i] < 0 ? 0 : WIDTHS[kind]);
    found.push([kind, step[i + 1], step[i] < 0 ? null : step.slice(i + 2, end)]);
    i = end;
  }
  return found;
}

/** What the step that a replay is at has changed. @param {Replay} r @returns {Changes} */
function changesOf(r) {
  /** @type {Changes} */
  const found = { pages: new Set(), frames: new Set(), objects: new Set(), counters: new Set(), kinds: new Set() };
  for (const [kind, id, now] of incrementsOf(r.data.steps[r.at])) {
    const was = r.before(id)?.v, v = now || was;
    // What a note finds there for the first time has not changed.
    if (!v || (!was && r.data.steps[r.at][0] === 0)) continue;
    found.kinds.add(kind);
    if (kind === PTE || kind === ITEM) found.pages.add(`${v[0]}:${v[1]}`);
    if (kind === PTE) for (const each of [was, now]) if (each) found.frames.add(each[2]);
    // References come and go with each look at a page.
    if (kind === FRAME && !(was && now && was[1] === now[1] && was[3] === now[3] && was[4] === now[4])) found.frames.add(v[0]);
    if (kind === COUNTER) found.counters.add(r.data.counters[v[0]]);
    if (kind === LINK) found.objects.add(v[0]);
    if (kind === ITEM || kind === NODE) found.objects.add(id);
  }
  return found;
}

/** The steps at which something is decided or done: an entry, a place of an item, a node or a tree changes. @param {Replay} r @returns {number[]} */
function eventsOf(r) {
  const places = new Map();
  return r.data.steps.flatMap((step, at) => {
    let event = false;
    for (const [kind, id, now] of incrementsOf(step)) {
      if (kind === ITEM && now) {
        event ||= places.has(id) && places.get(id) !== now[2];
        places.set(id, now[2]);
      } else if (kind === PTE || kind === NODE || kind === LINK) event = true;
    }
    return event && r.types[step[0]].name !== "NOTE" || (at > 0 && r.noteOf.get(at)) ? [at] : [];
  });
}

/** How much room all pictures of a recording need. @param {Replay} r @returns {Extent} */
function extentOf(r) {
  /** @type {Extent} */
  const most = { stable: { columns: 1, levels: 1, below: 1 }, unstable: { columns: 1, levels: 1, below: 2 }, pages: [], frames: [] };
  const pages = [...r.pagesOf].sort((a, b) => a[0] - b[0]).flatMap(([mm, numbers]) => numbers.map((page) => `${mm}:${page}`));
  /** @type {Map<number, Link>} */
  const links = new Map();
  /** @type {Map<number, number[]>} */
  const roots = new Map();
  /** @type {Map<number, number>} */
  const numbers = new Map(), chains = new Map();
  /** @type {Map<string, number>} */
  const first = new Map();
  const frames = new Set();
  for (const step of r.data.steps) {
    let grown = false;
    for (const [kind, id, now] of incrementsOf(step)) {
      if (kind === LINK) {
        grown = true;
        if (!now) links.delete(numbers.get(id) ?? -1); else {
          numbers.set(id, now[0]);
          links.set(now[0], { parent: now[1], left: now[2], right: now[3], red: now[4] === 1 });
        }
      } else if (kind === ROOT && now) roots.set(id, now);
      else if (kind === NODE && now?.[0] === IN_CHAIN) chains.set(now[4], Math.max(chains.get(now[4]) || 0, now[5] + 1));
      else if (kind === PTE && now && !(now[3] & BIT_SWAPPED)) {
        const key = `${now[0]}:${now[1]}`;
        if (!first.has(key)) first.set(key, now[2]);
        frames.add(now[2]);
      }
    }
    most.stable.below = Math.max(most.stable.below, ...chains.values());
    if (!grown) continue;
    for (const [tree, room] of /** @type {[number, Room][]} */ ([[0, most.stable], [1, most.unstable]])) {
      const there = [...roots.values()].filter((v) => v[0] === tree && links.has(v[2])).map((v) => v[2]);
      const columns = there.reduce((sum, root) => sum + sizeOf(root, links) + 1, -1);
      room.columns = Math.max(room.columns, columns);
      if (columns <= LARGE) room.levels = Math.max(room.levels, ...there.map((root) => heightOf(root, links)));
    }
  }
  const early = pages.map((key) => first.get(key)).filter((frame) => frame !== undefined);
  most.pages = pages;
  most.frames = [...new Set([...early, ...[...frames].sort((a, b) => a - b)])];
  return most;
}

/** The step at which the cursor came to the page that is being scanned; -1 between two pages. @param {Replay} r */
function visitOf(r) {
  for (let i = r.at; i >= 0; i--) {
    const name = r.types[r.data.steps[i][0]].name;
    if (name === "NEXT") return i;
    if (["NOTE", "PASS_BEGINS", "PASS_ENDS", "SKIPPED"].includes(name)) return -1;
  }
  return -1;
}

/** The checksum that the scanned page had at the last visit, and the one that it has now. @param {Replay} r @returns {Checksums | null} */
function checksumsOf(r) {
  const began = visitOf(r);
  if (began < 0) return null;
  const item = r.data.steps[began][1];
  let thing = r.things.get(item), now = null;
  for (let i = r.at; i > began; i--) {
    const replaced = r.undo[i].find(([id]) => id === item), step = r.data.steps[i];
    if (replaced) thing = replaced[1];
    if (step[1] === item && ["CHANGED", "UNCHANGED"].includes(r.types[step[0]].name)) now = step[4] >>> 0;
  }
  return thing ? { item, before: thing.v[4], now } : null;
}

/** The two pages that a step has compared, or the step before it, which led to it; the scanned one first. Null if none were compared. @param {Replay} r
 * @returns {{sides: Side[], at: number, order: number} | null} at: the byte that decides, or -1 */
function comparisonOf(r) {
  const nameAt = (/** @type {number} */ step) => r.types[r.data.steps[step][0]].name;
  const last = ["STABLE_FOUND", "STABLE_FULL", "STABLE_INSERTED", "DUP_ADDED", "UNSTABLE_FOUND", "UNSTABLE_INSERTED"].includes(nameAt(r.at)) ? r.at - 1 : r.at;
  const [, item, page, , order, at] = r.data.steps[last], name = nameAt(last);
  if (!name.endsWith("_COMPARE")) return null;
  const contents = (/** @type {number} */ frame) => r.data.contents[r.all(FRAME).find(([, v]) => v[0] === frame)?.[1][3] ?? -1] || "";
  const current = r.things.get(r.current())?.v, entry = current && r.all(PTE).find(([, v]) => v[0] === current[0] && v[1] === current[1])?.[1];
  const read = last === r.at ? r.all(BYTES)[0]?.[1] : incrementsOf(r.data.steps[r.at]).some(([kind]) => kind === BYTES) ? r.undo[r.at].find(([, was]) => was?.kind === BYTES)?.[1]?.v : undefined;
  /** A label that is text shows its bytes. @param {string} label */
  const byte = (label) => /^[0-9a-f]{16}$/.test(label) || label === "zeros" ? -1 : at < label.length ? label.charCodeAt(at) : at === label.length ? 0 : -1;
  const sides = [{ name: r.itemName(r.current()), label: entry ? contents(entry[2]) : "" },
    { name: name === "UNSTABLE_COMPARE" ? r.itemName(item) : `frame ${page}`, label: contents(page) }];
  return { at, order, sides: sides.map((side, i) => ({ ...side, byte: at < 0 ? -1 : read ? read[i] : byte(side.label) })) };
}

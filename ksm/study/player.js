// SPDX-License-Identifier: GPL-2.0-only
// Playing a recording. ksm/record/recorder.pyx says what its numbers are.
// @ts-check
"use strict";

/** @typedef {{name: string, text: string, kind: string, function: string, kernel: number, port: number[],
 *   cases?: Record<string, number[]>}} StepType */
/** @typedef {{title: string, text: string, era: string, truncated: boolean, counters: string[], mms: Record<string, string>,
 *   notes: string[], contents: string[], steps: number[][]}} RecordingData */
/** @typedef {{kind: number, v: number[]}} Thing */

const [COUNTER, ROOT, LINK, NODE, ITEM, PTE, FRAME, CURSOR, MM] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
const WIDTHS = [2, 3, 5, 6, 6, 4, 5, 3, 4];
const [IN_TREE, IN_CHAIN, MIGRATING, CHAIN] = [0, 1, 2, 3];
const PLACES = ["volatile", "unstable", "stable", "stale"];
const [BIT_KSM, BIT_ZERO, BIT_KSM_ZERO, BIT_SWAPPED, BIT_WRITE, BIT_HUGE] = [2, 4, 8, 32, 64, 256];
const HEAD = 6;   // numbers of a step before its changes

/** The state of a machine at any step of a recording. */
class Replay {
  /** @param {RecordingData} data @param {StepType[]} types */
  constructor(data, types) {
    this.data = data;
    this.types = types;
    this.at = -1;
    /** @type {Map<number, Thing>} */
    this.things = new Map();
    /** @type {[number, Thing | undefined][][]} what each step has replaced */
    this.undo = [];
    /** @type {Map<string, {at: number, text: string}[]>} of each page, by "mm:page" */
    this.lives = new Map();
    /** @type {Map<number, {at: number, content: number}[]>} of each item, when it went into the unstable tree, and with what */
    this.inserted = new Map();
    this.noteOf = new Map(data.steps.flatMap((step, i) => step[0] === 0 ? [i] : []).map((i, n) => [i, data.notes[n] || ""]));
    this.findLives();
    this.seek(0);
  }

  get length() { return this.data.steps.length; }

  forward() {
    const step = this.data.steps[++this.at], keep = this.at === this.undo.length;
    /** @type {[number, Thing | undefined][]} */
    const replaced = [];
    for (let i = HEAD; i < step.length;) {
      const kind = Math.abs(step[i]) - 1, id = step[i + 1];
      if (keep) replaced.push([id, this.things.get(id)]);
      if (step[i] < 0) {
        this.things.delete(id);
        i += 2;
      } else {
        this.things.set(id, { kind, v: step.slice(i + 2, i + 2 + WIDTHS[kind]) });
        i += 2 + WIDTHS[kind];
      }
    }
    if (keep) this.undo.push(replaced);
  }

  backward() {
    const replaced = this.undo[this.at--];
    for (let i = replaced.length - 1; i >= 0; i--) {
      const [id, thing] = replaced[i];
      if (thing) this.things.set(id, thing); else this.things.delete(id);
    }
  }

  /** @param {number} target */
  seek(target) {
    target = Math.max(0, Math.min(this.length - 1, target));
    while (this.at < target) this.forward();
    while (this.at > target) this.backward();
  }

  /** All things of a kind, by number. @param {number} kind @returns {[number, number[]][]} */
  all(kind) {
    /** @type {[number, number[]][]} */
    const found = [];
    for (const [id, thing] of this.things) if (thing.kind === kind) found.push([id, thing.v]);
    return found;
  }

  /** @returns {Record<string, number>} */
  counters() {
    return Object.fromEntries(this.all(COUNTER).map(([, v]) => [this.data.counters[v[0]], v[1]]));
  }

  /** @param {number} mm */
  nameOf(mm) { return this.data.mms[String(mm)] || `mm ${mm}`; }

  /** A page's number among the pages of its process that the recording has, from 1 on. @param {string} key */
  pageName(key) {
    const [mm, page] = key.split(":").map(Number);
    const pages = this.pagesOf.get(mm) || [];
    return `page ${pages.indexOf(page) + 1} of ${this.nameOf(mm)}`;
  }

  /** Go through the whole recording once: the pages that there are, and what became of each. */
  findLives() {
    /** @type {Map<number, number[]>} */
    this.pagesOf = new Map();
    /** @type {Map<number, string>} */
    const keys = new Map();
    /** @type {Map<string, number>} */
    const bits = new Map();
    /** @type {Map<number, number>} */
    const places = new Map();
    /** @type {Map<string, number>} */
    const frameOf = new Map();
    /** @type {Map<number, number>} */
    const contentOf = new Map();
    /** @param {string} key @param {number} at @param {string} text */
    const note = (key, at, text) => {
      const life = this.lives.get(key) || [];
      if (!life.length || life[life.length - 1].text !== text) life.push({ at, text });
      this.lives.set(key, life);
    };
    this.data.steps.forEach((step, at) => {
      for (let i = HEAD; i < step.length;) {
        const kind = Math.abs(step[i]) - 1, id = step[i + 1];
        if (step[i] > 0 && (kind === ITEM || kind === PTE)) {
          const key = `${step[i + 2]}:${step[i + 3]}`;
          keys.set(id, key);
          const pages = this.pagesOf.get(step[i + 2]) || [];
          if (!pages.includes(step[i + 3])) pages.push(step[i + 3]);
          this.pagesOf.set(step[i + 2], pages);
          if (kind === ITEM) {
            const before = places.get(id), now = step[i + 4];
            if (before === undefined) note(key, at, "first seen");
            else if (before !== now && now === 1) note(key, at, "unstable: in the tree");
            else if (before !== now && now === 2) note(key, at, "stable: at a node");
            else if (before === 2 && now !== 2) note(key, at, "has left its node");
            places.set(id, now);
          } else {
            const before = bits.get(key) || 0, now = step[i + 5];
            if (before & BIT_KSM && !(now & BIT_KSM)) note(key, at, "broken: a page of its own");
            if (!(before & BIT_KSM) && now & BIT_KSM) note(key, at, "merged: it maps a shared frame");
            if (before & BIT_WRITE && !(now & BIT_WRITE) && !(now & BIT_KSM)) note(key, at, "write-protected");
            bits.set(key, now);
            frameOf.set(key, step[i + 4]);
          }
        } else if (step[i] > 0 && kind === FRAME) contentOf.set(step[i + 2], step[i + 5]);
        i += step[i] < 0 ? 2 : 2 + WIDTHS[kind];
      }
      const type = this.types[step[0]], key = keys.get(step[1]);
      if (key && type.kind === "volatile") note(key, at, type.name === "SKIPPED" ? "skipped" : "volatile: its checksum has changed");
      if (key && type.name === "UNSTABLE_INSERTED") {
        const list = this.inserted.get(step[1]) || [];
        list.push({ at, content: contentOf.get(frameOf.get(key) ?? -1) ?? -1 });
        this.inserted.set(step[1], list);
      }
      if (type.name === "COW") note(`${step[3]}:${step[4]}`, at, this.askedFor(at) ? "a page fault, asked for by break_ksm()" : "written to: a page fault");
    });
    for (const pages of this.pagesOf.values()) pages.sort((a, b) => a - b);
  }

  /** Whether break_ksm() has asked for the page fault of this step. Otherwise a process has written. @param {number} at */
  askedFor(at) {
    const fault = this.data.steps[at], before = this.data.steps[at - 1];
    return Boolean(before) && this.types[before[0]].name === "BREAK_KSM" && before[3] === fault[3] && before[4] === fault[4];
  }

  /** The contents of an item's page when the item went into the tree that it is in now. @param {number} item */
  contentThen(item) {
    let content = -1;
    for (const entry of this.inserted.get(item) || []) if (entry.at <= this.at) content = entry.content;
    return content;
  }

  /** The item that is being scanned; -1 between two items. */
  current() {
    for (let i = this.at; i >= 0; i--) {
      const step = this.data.steps[i], name = this.types[step[0]].name;
      if (name === "NEXT" || name === "SKIPPED") return step[1];
      if (name === "NOTE" || name === "PASS_BEGINS" || name === "PASS_ENDS") return -1;
    }
    return -1;
  }

  /** @param {number} item */
  itemName(item) {
    const thing = this.things.get(item);
    return thing && thing.kind === ITEM ? this.pageName(`${thing.v[0]}:${thing.v[1]}`) : "the page";
  }

  /** The nodes that the search under way has met, by the tree that it is in. @returns {{stable: number[], unstable: number[]}} */
  path() {
    /** @type {{stable: number[], unstable: number[]}} */
    const path = { stable: [], unstable: [] };
    for (let i = this.at; i >= 0; i--) {
      const step = this.data.steps[i], name = this.types[step[0]].name;
      if (name === "STABLE_COMPARE" || name === "INSERT_COMPARE") path.stable.unshift(step[3]);
      else if (name === "UNSTABLE_COMPARE") path.unstable.unshift(step[1]);
      else if (["NEXT", "NOTE", "PASS_BEGINS", "PASS_ENDS"].includes(name)) break;
      if (name === "INSERT_COMPARE" && i > 0 && this.types[this.data.steps[i - 1][0]].name !== "INSERT_COMPARE") {
        // The search for a place of the new node is another search than the one for an equal page.
        break;
      }
    }
    return path;
  }

  /** Whether a step of this name came since the cursor came to the item. @param {string} wanted */
  since(wanted) {
    for (let i = this.at; i >= 0; i--) {
      const name = this.types[this.data.steps[i][0]].name;
      if (name === wanted) return true;
      if (["NEXT", "NOTE", "PASS_BEGINS", "PASS_ENDS"].includes(name)) return false;
    }
    return false;
  }

  /** What a thing was before this step. @param {number} id @returns {Thing | undefined} */
  before(id) {
    const replaced = (this.undo[this.at] || []).find(([each]) => each === id);
    return replaced ? replaced[1] : this.things.get(id);
  }

  /** Words that depend on more than the numbers of the step, by what stands for them in its text. @returns {Record<string, string>} */
  words() {
    const [, item, page, node, value] = this.data.steps[this.at], name = this.itemName(item);
    const thing = this.things.get(item), held = this.things.get(node), had = this.before(item);
    const entry = thing && this.all(PTE).find(([, v]) => v[0] === thing.v[0] && v[1] === thing.v[1])?.[1];
    const older = ["2.6.38", "6.1"].includes(this.data.era);
    return {
      "{checksum}": had && had.v[4] ? `The checksum of ${name} is not that of the last visit.` : `${name} has no checksum of an earlier visit: it gets one.`,
      "{miss}": (this.since("STABLE_FULL") ? "No merged page with its bytes can take it" : this.since("NODE_STALE") && this.data.era === "2.6.38"
        ? "The search has found no merged page" : "No merged page is its equal") + (older ? ": now its checksum counts." : ": on to the unstable tree."),
      "{full}": value ? `There is an equal, but it has ${value} sharers: max_page_sharing allows no more.`
        : "There is an equal, but its stable node has no items: a page that nobody is known to map may be freed at any time, and takes nobody.",
      "{mapped}": entry && held && held.kind === NODE && entry[2] === held.v[1] && entry[3] & BIT_KSM ? "" : ": it does not map that page any more",
      "{gone}": value === 1 ? "its page is equal, but on another NUMA node" : page < 0 ? "its page is gone" : "its page is the scanned one, which both map",
      "{replaced}": value ? "The page table entry has changed meanwhile: it stays as it is. No merge."
        : `The page table entry leads to frame ${page} now; the old frame loses a user.`,
    };
  }

  /** The sentence of the step. */
  sentence() {
    const [which, item, page, node, value, offset] = this.data.steps[this.at], type = this.types[which];
    if (type.name === "NOTE") {
      const end = this.at === this.length - 1;
      return this.noteOf.get(this.at) || (end ? (this.data.truncated ? "The recording was full here." : "The recording ends.") : this.at ? "" : "The recording begins.");
    }
    const where = offset < 0 ? "" : ` at byte ${offset}`;
    const equal = value === 0 ? "equal" : value < 0 ? `it is smaller${where}, so on to the left` : `it is greater${where}, so on to the right`;
    let words = type.text;
    for (const [key, text] of type.text.includes("{") ? Object.entries(this.words()) : []) words = words.replace(key, text);
    const text = words.replace("{fault}", this.askedFor(this.at)
      ? ", as break_ksm() has asked for: page {value} of {process} is the merged frame {page}."
      : ": {process} writes to its page {value}, which is the merged frame {page}.")
      .replace("{item}", this.itemName(item)).replace("{current}", this.itemName(this.current()))
      .replaceAll("{page}", String(page)).replace("{node}", String(node)).replace("{process}", this.nameOf(node))
      .replace("{value}", type.name === "COW" || type.name === "BREAK_KSM" ? String((this.pagesOf?.get(node) || []).indexOf(value) + 1) : String(value))
      .replace("{left}", value ? "was in the tree of the last pass, which is gone: only its mark goes, too" : "comes out of the unstable tree")
      .replace("{compared}", equal).replace("{merged}", value ? "could not be merged into" : "maps")
      .replace("{became}", value ? "could not be made one" : `are one now, in frame ${page}`);
    return text[0].toUpperCase() + text.slice(1);
  }
}

(() => {
  /** @type {StepType[]} */
  const types = JSON.parse(byId("steps", HTMLElement).textContent || "[]");
  const panel = byId("player", HTMLElement), lesson = byId("lesson", HTMLSelectElement), slider = byId("slider", HTMLInputElement);
  const playButton = byId("play", HTMLButtonElement), speed = byId("speed", HTMLSelectElement), life = byId("life", HTMLElement);
  const watch = byId("watch", HTMLButtonElement);
  /** @type {Replay | undefined} */
  let replay;
  let timer = 0, chosen = "";
  /** @type {Record<string, number>} */
  let before = {};
  /** @type {Element[]} */
  let lit = [];

  /** @param {Replay} r @param {number} content @param {boolean} short */
  function contentName(r, content, short) {
    const name = content < 0 ? "" : r.data.contents[content] || "";
    return short && name.length > 13 ? `${name.slice(0, 12)}…` : name;
  }

  /** Whether an era takes its steps in the order of 6.12. @param {string | undefined} era */
  const newer = (era) => era === "6.12" || era === "7.3";

  /** @param {Replay} r */
  function light(r) {
    for (const line of lit) line.classList.remove("lit");
    const type = types[r.data.steps[r.at][0]];
    // If the step is taken in two places, the later one is that of 2011, or of 6.1, which does these three after the stable tree.
    const late = r.data.era === "2.6.38" ? type.name !== "AT_ITS_NODE" && type.name !== "UNSTABLE_GAVE_UP"
      : r.data.era === "6.1" && ["CHANGED", "UNCHANGED", "ZERO_MERGED"].includes(type.name);
    // In a version of another era the kernel's line did not run.
    const same = document.documentElement.dataset.era === r.data.era || (newer(document.documentElement.dataset.era) && newer(r.data.era));
    const step = r.data.steps[r.at], one = type.cases?.[step[4] === 1 ? "node" : step[2] < 0 ? "gone" : "same"];
    const [kernel, port] = one || [type.kernel, type.port.length ? type.port[late ? type.port.length - 1 : 0] : 0];
    const lines = [same && kernel && `k${kernel}`, port && `p${port}`];
    lit = lines.flatMap((id) => (id && document.getElementById(id)) || []);
    for (const line of lit) line.classList.add("lit");
    show(...lit);
    if (lit.length) mark(lit[lit.length - 1].closest("section.pair"));
  }

  /** @param {Replay} r */
  function drawBoth(r) {
    const frames = new Map(r.all(FRAME).map(([, v]) => [v[0], v]));
    const nodes = new Map(r.all(NODE)), items = new Map(r.all(ITEM)), path = r.path();
    const entries = new Map(r.all(PTE).map(([, v]) => [`${v[0]}:${v[1]}`, v]));
    /** @type {Map<number, Link>} */
    const links = new Map(r.all(LINK).map(([, v]) => [v[0], { parent: v[1], left: v[2], right: v[3], red: v[4] === 1 }]));
    /** @type {Map<number, string[]>} */
    const sharers = new Map();
    for (const [, v] of items) if (v[2] === 2) sharers.set(v[3], [...(sharers.get(v[3]) || []), r.pageName(`${v[0]}:${v[1]}`)]);
    /** @type {Map<number, [number, number[]][]>} */
    const dups = new Map();
    for (const [id, v] of nodes) if (v[0] === IN_CHAIN) dups.set(v[4], [...(dups.get(v[4]) || []), [id, v]]);
    for (const list of dups.values()) list.sort((a, b) => a[1][5] - b[1][5]);

    /** @param {number} id @returns {Face} */
    const stableFace = (id) => {
      const v = nodes.get(id) || [], hanging = dups.get(id) || [], first = v[0] === CHAIN ? hanging[0]?.[1] || [] : v;
      const frame = frames.get(first[1]), name = frame ? contentName(r, frame[3], true) : "stale";
      const list = v[0] === CHAIN ? hanging : [[id, v]];
      return {
        title: list.map(([key, dup]) => `frame ${/** @type {number[]} */ (dup)[1]}: ${(sharers.get(/** @type {number} */ (key)) || []).join(", ") || "nobody"}`).join("\n"),
        name, inside: v[0] === CHAIN ? "chain" : String(v[1]), square: v[0] === CHAIN, lost: false, stale: !frame || !(frame[4] & BIT_KSM),
        below: v[0] === CHAIN ? hanging.map(([, dup]) => `dup ${dup[1]} × ${dup[2]}`) : [`× ${v[2]}`],
      };
    };
    /** @param {number} id @returns {Face} */
    const unstableFace = (id) => {
      const v = items.get(id) || [], key = `${v[0]}:${v[1]}`, entry = entries.get(key), frame = entry && frames.get(entry[2]);
      const then = r.contentThen(id), lost = Boolean(frame) && then >= 0 && frame?.[3] !== then;
      return { title: `${r.pageName(key)}${lost ? `: was ${contentName(r, then, false)} when it came here` : ""}`, name: frame ? contentName(r, frame[3], true) : "gone",
        inside: entry ? String(entry[2]) : "", below: [r.nameOf(v[0]), ...(lost ? ["has changed"] : [])], square: false, lost, stale: !entry };
    };
    const roots = r.all(ROOT).sort((a, b) => a[1][1] - b[1][1]);
    const rootsOf = (/** @type {number} */ tree) => roots.filter(([, v]) => v[0] === tree && v[2] >= 0).map(([, v]) => v[2]);
    const heights = [drawTrees(byId("stable", HTMLElement), rootsOf(0), links, stableFace, path.stable.map((id) => (nodes.get(id)?.[0] === IN_CHAIN ? nodes.get(id)?.[4] ?? id : id)),
      (id) => choose([...items].find(([, v]) => v[2] === 2 && v[3] === id)?.[1])),
    drawTrees(byId("unstable", HTMLElement), rootsOf(1), links, unstableFace, path.unstable, (id) => choose(items.get(id)))];
    // The two trees share the room by what each needs. An empty tree needs none.
    byId("trees", HTMLElement).style.gridTemplateRows = heights.map((height) => (height ? `minmax(0, ${height + 30}fr)` : "3.4rem")).join(" ");
    const count = (/** @type {number} */ n, /** @type {string} */ what) => `${n} ${what}${n === 1 ? "" : "s"}`;
    const waiting = [...nodes.values()].filter((v) => v[0] === MIGRATING).length;
    byId("stable-note", HTMLElement).textContent = `${count([...nodes.values()].filter((v) => v[0] === IN_TREE || v[0] === IN_CHAIN).length, "merged page")}`
      + (waiting ? `, ${waiting} waiting in migrate_nodes` : "") + "; inside: frame, below: sharers";
    // Between two passes the tree is there no more, and its pages still count in pages_unshared.
    const left = [...items.values()].filter((v) => v[2] === 3).length;
    byId("unstable-note", HTMLElement).textContent = `${count([...items.values()].filter((v) => v[2] === 1).length, "page")}`
      + (left ? `, ${left} of the last pass's tree still in pages_unshared` : "") + "; inside: frame, below: whose";
    drawMemory(r, entries, frames, items);
  }

  /** @param {number[] | undefined} item */
  function choose(item) {
    if (!item || !replay) return;
    chosen = `${item[0]}:${item[1]}`;
    draw();
  }

  /** @param {Replay} r @param {Map<string, number[]>} entries @param {Map<number, number[]>} frames @param {Map<number, number[]>} items */
  function drawMemory(r, entries, frames, items) {
    const itemOf = new Map([...items.values()].map((v) => [`${v[0]}:${v[1]}`, v]));
    const keyOf = (/** @type {number} */ id) => (items.get(id) || []).slice(0, 2).join(":");
    const nowKey = keyOf(r.current()), otherKey = keyOf(r.data.steps[r.at][1]);
    const blocks = [];
    for (const [mm, pages] of [...(r.pagesOf || [])].sort((a, b) => a[0] - b[0])) {
      const saved = r.all(MM).find(([, v]) => v[0] === mm)?.[1], many = pages.length > 24;
      const boxes = make("div", { class: `pages ${many ? "many" : ""} ${pages.length > 100 ? "more" : ""}` });
      for (const [i, page] of pages.entries()) {
        const key = `${mm}:${page}`, entry = entries.get(key), item = itemOf.get(key);
        if (!entry) continue;
        const [frame, bits] = [entry[2], entry[3]], frameInfo = frames.get(frame), swapped = Boolean(bits & BIT_SWAPPED);
        const name = swapped ? "swapped" : bits & BIT_KSM_ZERO ? "KSM's zero page" : bits & BIT_ZERO ? "zero page" : contentName(r, frameInfo ? frameInfo[3] : -1, false);
        const place = item ? PLACES[item[2]] : "";
        const state = place === "volatile" && !(item && item[4]) ? "not looked at" : place || "not seen";
        const box = make("button", { class: `page ${place} ${key === nowKey ? "now" : key === otherKey ? "other" : ""} ${swapped ? "swapped" : ""}`, type: "button", "data-page": key, "aria-pressed": String(key === chosen),
          title: `page ${i + 1} of ${r.nameOf(mm)}, ${state}\nframe ${frame}${frameInfo ? `: mapcount ${frameInfo[1]}, references ${frameInfo[2]}` : ""}${bits & BIT_HUGE ? ", part of a huge page" : ""}\n${name}`
            + (item ? `\nchecksum ${item[4].toString(16)}, age ${item[5] & 255}, skips ${item[5] >> 8}` : "") },
          make("span", {}, name), make("br"), make("i", {}, swapped ? `slot ${frame}` : `${frame} ${bits & BIT_WRITE ? "W" : "-"}${bits & BIT_HUGE ? "H" : ""} ×${frameInfo ? frameInfo[1] : 1}`));
        box.addEventListener("click", () => { chosen = chosen === key ? "" : key; draw(); });
        boxes.append(box);
      }
      blocks.push(make("h4", {}, r.nameOf(mm), " ", make("small", {}, saved ? `${saved[1]} rmap_items, ${saved[2]} at nodes` : "not registered")), boxes);
    }
    byId("mms", HTMLElement).replaceChildren(...blocks);
    life.hidden = chosen === "";
    if (!chosen) return follow();
    const events = r.lives.get(chosen) || [];
    let last = -1;
    events.forEach((event, i) => { if (event.at <= r.at) last = i; });
    life.replaceChildren(make("b", {}, `The life of ${r.pageName(chosen)}`), ...events.map((event, i) => {
      const button = make("button", { type: "button", class: i === last ? "now" : "", "data-event": String(i) }, `${event.at + 1}: ${event.text}`);
      button.addEventListener("click", () => go(event.at));
      return button;
    }), ...(events.length ? [] : [make("p", {}, "nothing happened to it")]));
  }

  /** Bring the page that the step is about into sight, where there are many pages. */
  function follow() {
    const box = document.querySelector("#mms .page.now") || document.querySelector("#mms .page.other"), frame = byId("memory", HTMLElement);
    if (!box) return;
    const spot = box.getBoundingClientRect(), bounds = frame.getBoundingClientRect();
    if (spot.top < bounds.top || spot.bottom > bounds.bottom) frame.scrollTop += (spot.top + spot.bottom - bounds.top - bounds.bottom) / 2;
  }

  function draw() {
    const r = replay;
    if (!r) return;
    // Pages and events are made anew. The one that has the keyboard's focus gets it back.
    const { page, event } = document.activeElement instanceof HTMLElement ? document.activeElement.dataset : /** @type {DOMStringMap} */ ({});
    slider.value = String(r.at);
    byId("at", HTMLOutputElement).value = `${r.at + 1} / ${r.length}`;
    const type = types[r.data.steps[r.at][0]];
    byId("sentence", HTMLElement).replaceChildren(r.sentence(), ...(type.function ? [make("code", {}, `${type.function}()`)] : []));
    const counters = r.counters();
    byId("counters", HTMLElement).getElementsByTagName("tbody")[0].replaceChildren(...r.data.counters.map((name) =>
      make("tr", { "data-counter": name, class: before[name] !== undefined && before[name] !== counters[name] ? "moved" : "" },
        make("th", {}, name), make("td", {}, String(counters[name] ?? 0)))));
    before = counters;
    drawBoth(r);
    light(r);
    const again = page ? document.querySelector(`#mms [data-page="${page}"]`) : event ? document.querySelector(`#life [data-event="${event}"]`) : null;
    if (again instanceof HTMLElement) again.focus({ preventScroll: true });
  }

  /** @param {number} target */
  function go(target) {
    if (!replay) return;
    replay.seek(target);
    if (replay.at === replay.length - 1) pause();
    draw();
  }

  function pause() {
    clearTimeout(timer);
    timer = 0;
    playButton.textContent = "Play";
  }

  function tick() {
    if (!replay) return;
    // Very fast: so many steps for each picture that the recording ends after ten seconds, and at least one.
    const wait = Number(speed.value), leap = wait ? 1 : Math.max(1, Math.round(replay.length / 400));
    timer = window.setTimeout(tick, wait || 16);
    go(replay.at + leap);
  }

  function play() {
    if (!replay) return;
    if (timer) return pause();
    if (replay.at === replay.length - 1) replay.seek(0);
    playButton.textContent = "Pause";
    timer = window.setTimeout(tick, Number(speed.value) || 16);
  }

  /** @param {string} number */
  function load(number) {
    pause();
    /** @type {RecordingData} */
    const data = JSON.parse(document.getElementById(`recording-${number}`)?.textContent || "null");
    if (!data) return;
    replay = new Replay(data, types);
    [chosen, before] = ["", {}];
    slider.max = String(replay.length - 1);
    const era = document.documentElement.dataset.era, both = document.documentElement.classList.contains("both");
    const other = both && era !== data.era && !(newer(era) && newer(data.era));
    byId("text", HTMLElement).replaceChildren(make("h3", {}, data.title), ...data.text.split("\n\n").map((part) => make("p", {}, part)),
      make("p", {}, make("small", {}, `${replay.length} steps, on the KSM of Linux ${data.era}.${other ? " mm/ksm.c on this page is of another version, so only the port's lines are lit." : ""}`)));
    byId("text", HTMLElement).scrollTop = 0;
    draw();
  }

  /** @param {boolean} on */
  function toggle(on) {
    if (!on && panel.contains(document.activeElement)) watch.focus();
    panel.hidden = !on;
    if (on) playButton.focus();
    if (on && !replay) load(lesson.value);
    if (!on) {
      pause();
      for (const line of lit) line.classList.remove("lit");
    } else if (replay) draw();
  }

  watch.hidden = !lesson.options.length;
  watch.addEventListener("click", () => toggle(Boolean(panel.hidden)));
  byId("close", HTMLButtonElement).addEventListener("click", () => toggle(false));
  lesson.addEventListener("change", () => load(lesson.value));
  slider.addEventListener("input", () => go(Number(slider.value)));
  playButton.addEventListener("click", play);
  const buttons = /** @type {[string, () => void][]} */ ([["first", () => go(0)], ["back", () => replay && go(replay.at - 1)], ["step", () => replay && go(replay.at + 1)],
    ["last", () => replay && go(replay.length - 1)]]);
  for (const [id, action] of buttons) byId(id, HTMLButtonElement).addEventListener("click", () => { pause(); action(); });
  document.addEventListener("keydown", (event) => {
    if (panel.hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    // Keys that the slider or a list of choices uses itself are left to it.
    const theirs = event.target instanceof HTMLInputElement ? ["ArrowLeft", "ArrowRight", "Home", "End"]
      : event.target instanceof HTMLSelectElement ? ["Home", "End", " ", "Escape"] : [];
    if (theirs.includes(event.key)) return;
    const keys = /** @type {Record<string, string>} */ ({ ArrowLeft: "back", ArrowRight: "step", Home: "first", End: "last", " ": "play", Escape: "close" });
    if (!keys[event.key] || (event.key === " " && event.target instanceof HTMLButtonElement)) return;
    event.preventDefault();
    byId(keys[event.key], HTMLButtonElement).click();
  });
})();

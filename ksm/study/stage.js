// SPDX-License-Identifier: GPL-2.0-only
// No twin in the kernel: the page of ksm study.
// The picture of a machine: page tables and frames with the entries that lead from one to the other, the trees, what was compared.
// @ts-check
"use strict";

const MOST_TILES = 24, MOST_FRAMES = 26;   // from where on only the pages and frames that a step is about are drawn large
const TILE = 44, LABEL = 24;               // heights, with the gap below
const FEW = 3;                             // tiles that are drawn large in a memory of many pages
const AGES = ["volatile", "unstable", "stable", "stale"];

/** @typedef {{onPage?: (key: string) => void, width?: number}} StageOptions width: of the memory, where the page is not laid out */
/** @typedef {{mm: number, key: string, entry: number[] | undefined, item: number[] | undefined, frame: number[] | undefined}} PageState */

let stages = 0;

class Stage {
  /** Fills an element. draw() shows a replay as it is now. @param {HTMLElement} root @param {StageOptions} options */
  constructor(root, options = {}) {
    this.options = options;
    this.number = ++stages;
    root.classList.add("stage");
    this.memory = make("div", { class: "memory" });
    this.arrows = svg("svg", { class: "arrows", "aria-hidden": "true" }, svg("defs", {}, svg("marker", { id: `head-${this.number}`, viewBox: "0 0 8 8", refX: 7, refY: 4,
      markerWidth: 6, markerHeight: 6, orient: "auto-start-reverse" }, svg("path", { d: "M 0 0.5 L 8 4 L 0 7.5 z" }))));
    this.grids = make("div", { class: "grids" });
    this.large = make("div", { class: "large" }, this.arrows);
    this.memory.append(this.large, this.grids);
    const figure = (/** @type {string} */ name, /** @type {string} */ kind) => {
      const box = make("div", { class: "tree", tabindex: "0", role: "group", "aria-label": name }), note = make("small"), meter = make("span", { class: "meter" }, make("i")), height = make("small", { class: "height" });
      return { box, note, meter, height, all: make("figure", { class: kind }, make("figcaption", {}, make("b", {}, name), make("span", { class: "room" }), meter, height, note), box) };
    };
    this.stable = figure("Stable tree", "of-stable");
    this.unstable = figure("Unstable tree", "of-unstable");
    this.trees = make("div", { class: "trees" }, this.stable.all, this.unstable.all);
    this.sums = make("div", { class: "sums" });
    this.bytes = make("div", { class: "bytes" });
    this.looks = make("div", { class: "looks" }, this.sums, this.bytes);
    root.append(make("div", { class: "memory-side" }, make("h3", {}, make("span", {}, "Page tables"), make("span", {}, "Frames")), this.memory), make("div", { class: "trees-side" }, this.trees, this.looks));
    this.stablePicture = new TreePicture(this.stable.box, "Stable tree", (id) => this.pickItem(2, id));
    this.unstablePicture = new TreePicture(this.unstable.box, "Unstable tree", (id) => this.pickItem(1, id));
    /** @type {Map<string, HTMLElement>} */
    this.tiles = new Map();
    /** @type {Map<number, HTMLElement>} */
    this.boxes = new Map();
    /** @type {Map<string, SVGElement>} */
    this.lines = new Map();
    /** @type {Map<string, HTMLElement>} */
    this.squares = new Map();
    /** @type {Replay | undefined} */
    this.replay = undefined;
    this.chosen = "";
    this.width = 360;
    this.frame = 0;
    if (!options.width) new ResizeObserver(() => this.measure()).observe(this.memory);
  }

  /** Begin with a recording, or go on with one that has become longer: all its pictures get the same room. @param {Replay} r */
  fit(r) {
    const extent = this.extent = extentOf(r), many = extent.pages.length > MOST_TILES, longer = r === this.replay && many === this.many && !many;
    this.measure();
    this.length = r.length;
    this.replay = r;
    this.many = many;
    this.few = this.many || extent.frames.length > MOST_FRAMES;
    if (!longer) {
      for (const map of [this.tiles, this.boxes, this.lines, this.squares]) { for (const each of map.values()) each.remove(); map.clear(); }
      for (const heading of this.large.querySelectorAll("h4")) heading.remove();
      this.grids.replaceChildren();
    }
    for (const [room, picture] of /** @type {[Room, TreePicture][]} */ ([[extent.stable, this.stablePicture], [extent.unstable, this.unstablePicture]])) {
      picture.fit(room.columns > LARGE ? null : room);
    }
    this.trees.style.setProperty("--rows", `minmax(7.2rem, ${this.stablePicture.high}fr) minmax(7.2rem, ${this.unstablePicture.high}fr)`);
    if (!this.many) return;
    for (const [mm, pages] of [...r.pagesOf].sort((a, b) => a[0] - b[0])) {
      const grid = make("div", { class: `grid ${pages.length > 100 ? "more" : ""}`, tabindex: "0", role: "application",
        "aria-label": `${pages.length} pages of ${r.nameOf(mm)}: the arrow keys choose one, and its life is shown` });
      grid.addEventListener("keydown", (event) => this.choose(event, grid, pages.map((page) => `${mm}:${page}`)));
      for (const page of pages) {
        const key = `${mm}:${page}`, square = make("i", { class: "square", "data-page": key });
        square.addEventListener("click", () => this.options.onPage?.(key));
        this.squares.set(key, square);
        grid.append(square);
      }
      this.grids.append(make("h4", { "data-mm": String(mm) }), grid);
    }
  }

  /** The keys of a grid of pages. @param {KeyboardEvent} event @param {HTMLElement} grid @param {string[]} keys */
  choose(event, grid, keys) {
    const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length, now = keys.indexOf(this.chosen);
    const moves = /** @type {Record<string, number>} */ ({ ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -keys.length, End: keys.length });
    if (!moves[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    const next = now < 0 ? 0 : Math.max(0, Math.min(keys.length - 1, now + moves[event.key]));
    if (next !== now) this.options.onPage?.(keys[next]);
  }

  /** Take note of the room that there is, and draw anew if it is another one. */
  measure() {
    const before = this.width;
    this.width = this.options.width || this.memory.clientWidth || 360;
    if (this.width !== before && this.replay && this.length === this.replay.length) this.draw(this.replay, this.chosen);
  }

  /** @param {number} place @param {number} id of a node or an item */
  pickItem(place, id) {
    const found = this.replay?.all(ITEM).find(([item, v]) => (place === 1 ? item === id : v[2] === 2 && v[3] === id));
    if (found) this.options.onPage?.(`${found[1][0]}:${found[1][1]}`);
  }

  /** Show the replay as it is. @param {Replay} r @param {string} chosen the page that is picked out, as "mm:page" */
  draw(r, chosen = "") {
    if (r !== this.replay || r.length !== this.length) this.fit(r);
    this.chosen = chosen;
    this.frames = new Map(r.all(FRAME).map(([, v]) => [v[0], v]));
    this.entries = new Map(r.all(PTE).map(([, v]) => [`${v[0]}:${v[1]}`, v]));
    this.items = new Map(r.all(ITEM));
    this.changes = changesOf(r);
    this.drawMemory(r);
    // Asking for places makes the browser lay out the page, so it is done once for each picture that is seen.
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => { this.follow(); this.stablePicture.follow(); this.unstablePicture.follow(); });
    this.drawTrees(r);
    this.drawLooks(r);
  }

  /** @param {Replay} r @param {number} content @param {boolean} short */
  contentName(r, content, short) {
    const name = content < 0 ? "" : r.data.contents[content] || "";
    return short && name.length > 13 ? `${name.slice(0, 12)}…` : name;
  }

  /** What an entry leads to, in a word or two. @param {Replay} r @param {number[]} entry */
  wordOf(r, entry) {
    const frame = this.frames?.get(entry[2]);
    return entry[3] & BIT_SWAPPED ? `in swap, slot ${entry[2]}` : entry[3] & BIT_KSM_ZERO ? "KSM's zero page" : entry[3] & BIT_ZERO ? "zero page" : this.contentName(r, frame ? frame[3] : -1, false);
  }

  /** @param {Replay} r */
  drawMemory(r) {
    const { entries, frames, items, changes, extent } = this;
    if (!entries || !frames || !items || !changes || !extent) return;
    const itemOf = new Map([...items.values()].map((v) => [`${v[0]}:${v[1]}`, v]));
    const step = r.data.steps[r.at], keyOf = (/** @type {number} */ id) => (items.get(id) || []).slice(0, 2).join(":");
    const nowKey = keyOf(r.current()), otherKey = r.types[step[0]].name === "COW" || r.types[step[0]].name === "BREAK_KSM" ? `${step[3]}:${step[4]}` : keyOf(step[1]);
    const role = (/** @type {string} */ key) => (key === nowKey ? "now" : key === otherKey ? "other" : "");
    let shown = extent.pages, frameList = extent.frames;
    if (this.many) {
      const wanted = [nowKey, otherKey, this.chosen, ...changes.pages, ...extent.pages.slice(-FEW)];
      const few = new Set(wanted.filter((key) => key && entries.has(key)).slice(0, 40));
      shown = [...few].slice(0, FEW).sort((a, b) => extent.pages.indexOf(a) - extent.pages.indexOf(b));
    }
    if (this.few) {
      const merged = [...frames.values()].filter((v) => v[4] & BIT_KSM).map((v) => v[0]);
      const wanted = [...shown.map((key) => entries.get(key)).filter((entry) => entry && !(entry[3] & BIT_SWAPPED)).map((entry) => /** @type {number[]} */ (entry)[2]), ...(frames.has(step[2]) ? [step[2]] : []), ...merged];
      frameList = [...new Set(wanted)].slice(0, this.many ? FEW + 2 : MOST_FRAMES);
    }
    this.place(r, shown, frameList);
    /** @type {Map<number, string>} */
    const roles = new Map([[step[2], "now"]]);
    for (const [key, tile] of this.tiles) {
      const entry = entries.get(key), item = itemOf.get(key), [mm, page] = key.split(":").map(Number);
      const number = (r.pagesOf.get(mm) || []).indexOf(page) + 1, place = item ? AGES[item[2]] : "", skips = item ? item[5] >> 8 : 0;
      const state = !entry ? "not mapped" : place === "volatile" && !item?.[4] && r.data.era !== "7.3" ? "not looked at" : place || "not seen";
      const word = entry ? this.wordOf(r, entry) : "", write = Boolean(entry && entry[3] & BIT_WRITE), frame = entry && frames.get(entry[2]);
      put(tile, "class", ["page", place, role(key), changes.pages.has(key) ? "hot" : "", entry ? "" : "none", entry && entry[3] & BIT_SWAPPED ? "swapped" : ""].filter(Boolean).join(" "));
      put(tile, "aria-pressed", String(key === this.chosen));
      put(tile, "title", `page ${number} of ${r.nameOf(mm)}, ${state}${entry ? `\nframe ${entry[2]}, ${write ? "writable" : "read-only"}${entry[3] & BIT_HUGE ? ", part of a huge page" : ""}` : ""}\n${word}`
        + (item ? `\nchecksum ${item[4].toString(16)}, age ${item[5] & 255}, skips ${skips}` : ""));
      put(tile, "data-frame", entry && !(entry[3] & BIT_SWAPPED) ? String(entry[2]) : "");
      put(tile, "data-bits", entry ? String(entry[3]) : "");
      put(tile, "data-place", item ? String(item[2]) : "");
      const [name, what, flag, small] = tile.children;
      put(flag, "class", write ? "w" : "w off");
      say(name, String(number));
      say(what, word);
      say(small, (this.many ? `${r.nameOf(mm)}, ` : "") + (entry && entry[3] & BIT_HUGE ? "huge, " : "") + state + (skips ? `, skips ${skips}` : ""));
      this.drawArrow(r, key, entry, frame, role(key));
    }
    for (const [number, box] of this.boxes) {
      const frame = frames.get(number), zero = !frame && [...entries.values()].some((entry) => entry[2] === number && entry[3] & (BIT_ZERO | BIT_KSM_ZERO) && !(entry[3] & BIT_SWAPPED));
      const ksm = Boolean(frame && frame[4] & BIT_KSM);
      put(box, "class", ["pageframe", ksm ? "ksm" : "", frame || zero ? "" : "free", roles.get(number) || "", changes.frames.has(number) ? "hot" : ""].filter(Boolean).join(" "));
      const word = zero ? "the zero page" : frame ? this.contentName(r, frame[3], false) : "";
      const [name, what, count] = box.children;
      say(name, String(number));
      say(what, frame || zero ? word : "free");
      say(count, frame ? `×${frame[1]}` : "");
      put(box, "title", frame ? `frame ${number}: ${word}\nmapcount ${frame[1]}, references ${frame[2]}${ksm ? ", a merged page" : ""}` : zero ? `frame ${number}: zeros` : `frame ${number}: free`);
      put(box, "data-mapcount", frame ? String(frame[1]) : "");
      put(box, "data-ksm", ksm ? "1" : "");
    }
    for (const [key, square] of this.squares) {
      const item = itemOf.get(key), entry = entries.get(key), look = ["square", item ? AGES[item[2]] : "", role(key), key === this.chosen ? "chosen" : "", entry ? "" : "none",
        entry && entry[3] & BIT_HUGE ? "huge" : "", changes.pages.has(key) ? "hot" : ""].filter(Boolean).join(" ");
      put(square, "class", look);
      put(square, "data-bits", entry ? String(entry[3]) : "");
      put(square, "data-frame", entry && !(entry[3] & BIT_SWAPPED) ? String(entry[2]) : "");
      put(square, "data-place", item ? String(item[2]) : "");
    }
    for (const heading of this.memory.querySelectorAll("h4")) {
      const mm = Number(/** @type {HTMLElement} */ (heading).dataset.mm), saved = r.all(MM).find(([, v]) => v[0] === mm)?.[1];
      if (!heading.firstChild) heading.append(make("span", {}, r.nameOf(mm)), " ", make("small"));
      say(/** @type {Element} */ (heading.lastElementChild), saved ? `${saved[1]} rmap_item${saved[1] === 1 ? "" : "s"}, ${saved[2]} at nodes` : "not registered");
    }
  }

  /** Bring the page that the step is about into sight, where the memory is higher than its box. */
  follow() {
    const side = /** @type {HTMLElement} */ (this.memory.parentElement), page = this.large.querySelector(".page.now") || this.large.querySelector(".page.other");
    if (!page || side.scrollHeight <= side.clientHeight) return;
    const spot = page.getBoundingClientRect(), frame = side.getBoundingClientRect();
    if (spot.top < frame.top || spot.bottom > frame.bottom) side.scrollTop += (spot.top + spot.bottom - frame.top - frame.bottom) / 2;
  }

  /** Put tiles and frames where they belong, and make those that are not there yet. @param {Replay} r @param {string[]} shown @param {number[]} frameList */
  place(r, shown, frameList) {
    const width = this.width;
    const wide = Math.min(240, Math.round(width * 0.44)), box = Math.min(190, Math.round(width * 0.4));
    this.spots = { right: wide + 12, left: width - box, y: new Map() };
    /** @type {Map<string, number>} */
    const rows = new Map();
    let y = 0, mm = "";
    for (const key of shown) {
      const whose = key.split(":")[0];
      if (whose !== mm) {
        mm = whose;
        if (!this.many) {
          let heading = /** @type {HTMLElement | null} */ (this.large.querySelector(`h4[data-mm="${mm}"]`));
          if (!heading) this.large.append(heading = make("h4", { "data-mm": mm }));
          heading.style.top = `${y}px`;
          y += LABEL;
        }
      }
      rows.set(key, y);
      y += TILE;
    }
    let tile;
    for (const [key, top] of rows) {
      if (!(tile = this.tiles.get(key))) {
        tile = make("button", { type: "button", "data-page": key }, make("b"), make("span"), make("i", { class: "w" }, "W"), make("small"));
        tile.addEventListener("click", () => this.options.onPage?.(key));
        this.tiles.set(key, tile);
        this.large.append(tile);
      }
      put(tile, "style", `top: ${top}px; left: 12px; width: ${wide}px`);
      this.spots.y.set(key, top + TILE / 2 - 2);
    }
    for (const [key, tile] of this.tiles) if (!rows.has(key)) { tile.remove(); this.tiles.delete(key); this.lines.get(key)?.remove(); this.lines.delete(key); }
    // A frame stands beside the first page that has it, if there is room.
    const tops = [...rows.values()], last = tops.length ? tops[tops.length - 1] : 0;
    frameList.forEach((number, i) => {
      let box = this.boxes.get(number);
      if (!box) {
        box = make("div", { "data-frame": String(number) }, make("b"), make("span"), make("i"));
        this.boxes.set(number, box);
        this.large.append(box);
      }
      const top = i < tops.length ? tops[i] : last + (i - tops.length + 1) * TILE;
      put(box, "style", `top: ${top}px; left: ${this.spots?.left}px; width: ${width - (this.spots?.left ?? 0)}px`);
      this.spots?.y.set(`frame ${number}`, top + TILE / 2 - 2);
    });
    for (const [number, box] of this.boxes) if (!frameList.includes(number)) { box.remove(); this.boxes.delete(number); }
    const height = this.many ? Math.max(FEW, FEW + 2) * TILE : Math.max(y, last + Math.max(0, frameList.length - tops.length) * TILE + TILE);
    put(this.large, "style", `height: ${height}px`);
    for (const [name, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` })) put(this.arrows, name, String(value));
  }

  /** The entry of a page as an arrow to its frame. @param {Replay} r @param {string} key @param {number[] | undefined} entry @param {number[] | undefined} frame @param {string} role */
  drawArrow(r, key, entry, frame, role) {
    const from = this.spots?.y.get(key), to = entry && !(entry[3] & BIT_SWAPPED) ? this.spots?.y.get(`frame ${entry[2]}`) : undefined;
    let line = this.lines.get(key);
    if (from === undefined || to === undefined || !entry || !this.spots) {
      line?.remove();
      this.lines.delete(key);
      return;
    }
    if (!line) {
      line = svg("path", { "data-page": key, "marker-end": `url(#head-${this.number})` });
      this.lines.set(key, line);
      this.arrows.append(line);
    }
    const { right, left } = this.spots, bend = (left - right) / 2;
    put(line, "d", `M ${right + 1} ${from} C ${right + bend} ${from} ${left - bend} ${to} ${left - 2} ${to}`);
    put(line, "class", ["arrow", entry[3] & BIT_WRITE ? "writable" : "", frame && frame[4] & BIT_KSM && entry[3] & BIT_KSM ? "ksm" : "", role].filter(Boolean).join(" "));
    put(line, "data-frame", String(entry[2]));
  }

  /** @param {Replay} r */
  drawTrees(r) {
    const { frames, items, entries, changes } = this;
    if (!frames || !items || !entries || !changes) return;
    const nodes = new Map(r.all(NODE)), path = r.path();
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
      const v = nodes.get(id) || [], hanging = dups.get(id) || [], first = v[0] === CHAIN ? hanging[0]?.[1] || [] : v, frame = frames.get(first[1]);
      const list = /** @type {[number, number[]][]} */ (v[0] === CHAIN ? hanging : [[id, v]]);
      return {
        title: list.map(([key, dup]) => `frame ${dup[1]}: ${(sharers.get(key) || []).join(", ") || "nobody"}`).join("\n"),
        name: frame ? this.contentName(r, frame[3], true) : "stale", inside: v[0] === CHAIN ? "chain" : String(v[1]), square: v[0] === CHAIN, lost: false,
        stale: !frame || !(frame[4] & BIT_KSM), below: v[0] === CHAIN ? hanging.map(([, dup]) => `dup ${dup[1]} × ${dup[2]}`) : [`× ${v[2]}`],
      };
    };
    /** @param {number} id @returns {Face} */
    const unstableFace = (id) => {
      const v = items.get(id) || [], key = `${v[0]}:${v[1]}`, entry = entries.get(key), frame = entry && frames.get(entry[2]);
      const then = r.contentThen(id), lost = Boolean(frame) && then >= 0 && frame?.[3] !== then;
      return { title: `${r.pageName(key)}${lost ? `: was ${this.contentName(r, then, false)} when it came here` : ""}`, name: frame ? this.contentName(r, frame[3], true) : "gone",
        inside: entry ? String(entry[2]) : "", below: [r.nameOf(v[0]), ...(lost ? ["changed"] : [])], square: false, lost, stale: !entry };
    };
    const roots = r.all(ROOT).sort((a, b) => a[1][1] - b[1][1]), nodesOf = roots.length > 2 ? new Map(roots.map(([, v]) => [v[2], v[1]])) : new Map();
    // With a tree for each NUMA node, its root says which one.
    const whose = (/** @type {number} */ id, /** @type {Face} */ face) => (nodesOf.has(id) ? { ...face, below: [...face.below, `node ${nodesOf.get(id)}`] } : face);
    const rootsOf = (/** @type {number} */ tree) => roots.filter(([, v]) => v[0] === tree && v[2] >= 0).map(([, v]) => v[2]);
    const hot = new Set([...changes.objects].flatMap((id) => [id, nodes.get(id)?.[4] ?? id]));
    const most = [this.stablePicture.draw(rootsOf(0), links, (id) => whose(id, stableFace(id)), path.stable.map((id) => (nodes.get(id)?.[0] === IN_CHAIN ? nodes.get(id)?.[4] ?? id : id)), hot, path.last === "stable"),
      this.unstablePicture.draw(rootsOf(1), links, (id) => whose(id, unstableFace(id)), path.unstable, hot, path.last === "unstable")];
    [this.stable, this.unstable].forEach((side, i) => {
      const { n, height } = most[i], bound = 2 * Math.log2(n + 1);
      side.height.textContent = n ? `height ${height} ≤ 2 log₂(${n} + 1) = ${bound.toFixed(1)}` : "height 0";
      side.meter.title = side.height.textContent;
      /** @type {HTMLElement} */ (side.meter.firstChild).style.width = n ? `${Math.round(100 * height / Math.max(bound, height))}%` : "0";
      Object.assign(side.all.dataset, { nodes: String(n), height: String(height) });
    });
    const count = (/** @type {number} */ n, /** @type {string} */ what) => `${n} ${what}${n === 1 ? "" : "s"}`;
    const waiting = [...nodes.values()].filter((v) => v[0] === MIGRATING).length, left = [...items.values()].filter((v) => v[2] === 3).length;
    this.stable.note.textContent = count([...nodes.values()].filter((v) => v[0] === IN_TREE || v[0] === IN_CHAIN).length, "merged page") + (waiting ? `, ${waiting} waiting in migrate_nodes` : "");
    // Between two passes the tree is there no more, and its pages still count in pages_unshared.
    this.unstable.note.textContent = count([...items.values()].filter((v) => v[2] === 1).length, "page") + (left ? `, ${left} of the last pass's tree still in pages_unshared` : "");
  }

  /** The checksums, and the bytes that decide. @param {Replay} r */
  drawLooks(r) {
    const sums = checksumsOf(r), compared = comparisonOf(r), hex = (/** @type {number} */ sum) => (sum >>> 0).toString(16).padStart(8, "0");
    const row = (/** @type {string} */ name, /** @type {Node | string} */ value) => make("p", {}, make("span", {}, name), " ", make("code", {}, value));
    this.sums.replaceChildren(make("h4", {}, sums ? `Checksum of ${r.itemName(sums.item)}` : "Checksum"),
      row("last visit", sums ? (sums.before ? hex(sums.before) : "none yet") : "–"), row("now", sums ? (sums.now === null ? "not computed yet" : hex(sums.now)) : "–"));
    this.sums.className = `sums ${sums && sums.now !== null ? (sums.now === sums.before >>> 0 ? "holds" : "differs") : ""}`;
    /** @param {Side} side */
    const line = (side) => {
      const at = compared ? compared.at : -1, text = /^[0-9a-f]{16}$/.test(side.label) ? "" : side.label, from = Math.max(0, at - 8);
      const shown = side.byte > 32 && side.byte < 127 ? String.fromCharCode(side.byte) : side.byte >= 0 ? side.byte.toString(16).padStart(2, "0") : "?";
      if (at < 0) return make("p", {}, make("span", {}, side.name), " ", make("code", {}, side.label));
      return make("p", {}, make("span", {}, side.name), " ", make("code", {}, from ? "…" : "", at < 24 ? text.slice(from, at) : "", make("mark", {}, shown), at < 24 ? text.slice(at + 1, at + 10) : "…"));
    };
    const said = !compared ? "" : compared.at < 0 ? "all bytes are equal" : `byte ${compared.at} decides: ${compared.order < 0 ? "smaller, so to the left" : "greater, so to the right"}`;
    this.bytes.replaceChildren(make("h4", {}, "Bytes compared"), ...(compared ? [...compared.sides.map(line), make("small", {}, said)] : [make("p", {}, "–")]));
    this.bytes.dataset.at = compared ? String(compared.at) : "";
    this.bytes.dataset.pair = compared ? compared.sides.map((side) => side.byte).join(" ") : "";
  }
}

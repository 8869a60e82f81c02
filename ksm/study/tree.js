// SPDX-License-Identifier: GPL-2.0-only
// No twin in the kernel: the page of ksm study.
// Drawing a red-black tree. Nodes and edges are kept from one picture to the next, so that rotations can be seen to move.
// @ts-check
"use strict";

/** @typedef {{parent: number, left: number, right: number, red: boolean}} Link */
/** @typedef {{title: string, name: string, inside: string, below: string[], square: boolean, lost: boolean, stale: boolean}} Face */
/** @typedef {{columns: number, levels: number, below: number}} Room how many nodes side by side, levels, and lines below a node */
/** @typedef {{x: number, y: number, id: number}} Place */

const SVG = "http://www.w3.org/2000/svg";
const LARGE = 31, TOP = 3;   // from how many nodes on only a part is drawn, and how many levels of it at least

/** @param {string} tag @param {Record<string, string | number>} attributes @param {(Node | string)[]} children */
function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

// What is as it should be already is left alone: a browser does not look what was written.

/** @param {Element} element @param {string} name @param {string} value */
function put(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** @param {Element} element @param {string} text */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** How many nodes a subtree has. In a damaged recording a node may be below itself: it counts once.
 * @param {number} root @param {Map<number, Link>} links @param {Set<number>} seen @returns {number} */
function sizeOf(root, links, seen = new Set()) {
  const link = links.get(root);
  if (!link || seen.has(root)) return 0;
  seen.add(root);
  return 1 + sizeOf(link.left, links, seen) + sizeOf(link.right, links, seen);
}

/** The nodes of a large tree that are drawn: its top, and the nodes that the search has met, with their children. The nodes below the
 * others are left out, and counted.
 * @param {number} root @param {Map<number, Link>} links @param {Set<number>} met @returns {Map<number, Link>} */
function pruned(root, links, met) {
  /** @type {Map<number, Link>} */
  const kept = new Map();
  /** @param {number} id @param {number} depth @param {boolean} wanted */
  const keep = (id, depth, wanted) => {
    const link = links.get(id);
    if (!link || kept.has(id) || !(wanted || depth < TOP)) return;
    kept.set(id, link);
    for (const child of [link.left, link.right]) keep(child, depth + 1, met.has(id) || met.has(child));
  };
  keep(root, 0, true);
  return kept;
}

/** Where each node goes: its turn in the order from left to right, and its depth.
 * @param {number} root @param {Map<number, Link>} links @returns {Place[]} */
function placed(root, links) {
  /** @type {Place[]} */
  const places = [];
  /** @type {{id: number, y: number}[]} */
  const stack = [];
  let id = root, y = 0;
  while (links.has(id) || stack.length) {
    for (let link = links.get(id); link; link = links.get(id)) {
      stack.push({ id, y });
      [id, y] = [link.left, y + 1];
      if (stack.length > 200) return places;   // no tree is so deep
    }
    const top = /** @type {{id: number, y: number}} */ (stack.pop());
    places.push({ x: places.length, y: top.y, id: top.id });
    [id, y] = [/** @type {Link} */ (links.get(top.id)).right, top.y + 1];
  }
  return places;
}

/** How many levels of nodes a tree has. @param {number} root @param {Map<number, Link>} links @param {Set<number>} seen @returns {number} */
function heightOf(root, links, seen = new Set()) {
  const link = links.get(root);
  if (!link || seen.has(root)) return 0;
  seen.add(root);
  return 1 + Math.max(heightOf(link.left, links, seen), heightOf(link.right, links, seen));
}

/** The picture of the trees of one kind, side by side: one for each NUMA node. */
class TreePicture {
  /** @param {HTMLElement} box @param {string} name @param {(id: number) => void} chosen */
  constructor(box, name, chosen) {
    this.box = box;
    this.name = name;
    this.chosen = chosen;
    this.edges = svg("g", {});
    this.knots = svg("g", {});
    this.drawing = svg("svg", { role: "img" }, this.edges, this.knots);
    box.replaceChildren(this.drawing);
    /** @type {Map<number, SVGElement>} */
    this.nodes = new Map();
    /** @type {Map<number, SVGElement>} each edge by the child that it leads to */
    this.lines = new Map();
    this.fit(null);
  }

  /** Keep room for all pictures of a recording; null: each picture takes what it needs. @param {Room | null} room */
  fit(room) {
    this.room = room;
    this.high = room ? room.levels * 62 + 14 + room.below * 13 : 400;
  }

  /** @param {number[]} roots @param {Map<number, Link>} whole @param {(id: number) => Face} faceOf
   * @param {number[]} path the nodes that a search has met, the last one now
   * @param {Set<number>} hot what the step has changed @param {boolean} here whether the search is in these trees
   * @returns {{n: number, height: number}} of the highest tree */
  draw(roots, whole, faceOf, path, hot, here) {
    const met = new Set(path), now = here ? path[path.length - 1] : -1;
    /** @type {Place[]} */
    const places = [];
    /** @type {Map<number, Link>} */
    const links = new Map();
    let most = { n: 0, height: 0 };
    for (const root of roots) {
      const n = sizeOf(root, whole), height = heightOf(root, whole);
      if (height > most.height) most = { n, height };
      const shown = n > LARGE ? pruned(root, whole, met) : whole;
      for (const [id, link] of shown) links.set(id, link);
      const shift = places.length ? places[places.length - 1].x + 2 : 0;
      for (const place of placed(root, shown)) places.push({ ...place, x: place.x + shift });
    }
    const columns = places.length ? places[places.length - 1].x + 1 : 0;
    const room = this.room || { columns, levels: Math.max(1, ...places.map((place) => place.y + 1)), below: Math.max(1, ...places.map(({ id }) => faceOf(id).below.length)) };
    const wide = room.columns > 12 ? 48 : 58, high = 62, r = 14;
    const width = Math.max(3, room.columns) * wide + 40, height = room.levels * high + 14 + room.below * 13;
    const left = (width - columns * wide) / 2;
    const at = new Map(places.map((place) => [place.id, { x: left + (place.x + 0.5) * wide, y: place.y * high + 34 }]));
    for (const [name, value] of Object.entries({ viewBox: `0 0 ${width} ${height}`, width, height,
      "aria-label": `${this.name}: ${most.n} nodes, height ${most.height}` })) put(this.drawing, name, String(value));
    // A tree takes the room that there is, within limits. A large one is so large that its names can be read, and the box scrolls.
    const [least, largest] = this.room ? [0.6, 1.4] : [0.8, 1.2];
    Object.assign(this.drawing.style, { minWidth: `${Math.round(width * (this.room ? 0 : least))}px`, minHeight: `${Math.round(height * least)}px`, maxWidth: `${Math.round(width * largest)}px`, maxHeight: `${Math.round(height * largest)}px` });
    this.high = height;

    for (const { id } of places) put(this.node(id, /** @type {Link} */ (links.get(id)), faceOf(id), whole, links), "class", ["n", met.has(id) ? "path" : "", id === now ? "now" : "", faceOf(id).lost ? "lost" : "", faceOf(id).stale ? "stale" : "", hot.has(id) ? "hot" : ""].filter(Boolean).join(" "));
    for (const [id, spot] of at) {
      const node = /** @type {SVGElement} */ (this.nodes.get(id)), parent = links.get(id)?.parent ?? -1, from = at.get(parent);
      node.style.transform = `translate(${spot.x}px, ${spot.y}px)`;
      if (!from) continue;
      let line = this.lines.get(id);
      if (!line) this.edges.append(line = svg("path", {}));
      this.lines.set(id, line);
      put(line, "d", `M ${from.x} ${from.y} L ${spot.x} ${spot.y}`);
      put(line, "class", met.has(id) && met.has(parent) ? "edge path" : "edge");
    }
    for (const [id, node] of this.nodes) if (!at.has(id)) { node.remove(); this.nodes.delete(id); }
    for (const [id, line] of this.lines) if (!at.has(id) || !at.has(links.get(id)?.parent ?? -1)) { line.remove(); this.lines.delete(id); }
    return most;
  }

  /** The group of a node, with its words as they are now. @param {number} id @param {Link} link @param {Face} face
   * @param {Map<number, Link>} whole @param {Map<number, Link>} drawn */
  node(id, link, face, whole, drawn) {
    const r = 14, colour = link.red ? "red" : "black";
    let group = this.nodes.get(id);
    if (!group || (group.dataset.square === "1") !== face.square) {
      group?.remove();
      group = svg("g", { "data-id": id, "data-square": face.square ? "1" : "0" }, svg("title", {}),
        face.square ? svg("rect", { x: -1.7 * r, y: -r, width: 3.4 * r, height: 2 * r, rx: 3 }) : svg("circle", { r }),
        svg("text", { class: "in", y: 4 }), svg("text", { class: "name", y: -r - 5 }), svg("g", { class: "below" }));
      group.addEventListener("click", () => this.chosen(id));
      this.nodes.set(id, group);
    }
    if (group.parentNode !== this.knots) this.knots.append(group);
    group.dataset.colour = colour;
    group.dataset.parent = String(link.parent);
    const [title, shape, inside, name, below] = group.children;
    say(title, face.title);
    put(shape, "class", colour);
    say(inside, face.inside);
    say(name, face.name);
    // A child that is drawn takes the room below.
    const hidden = [link.left, link.right].reduce((sum, child) => sum + (drawn.has(child) ? 0 : sizeOf(child, whole)), 0);
    const lines = hidden ? [...face.below, `+ ${hidden}`] : face.below;
    while (below.children.length > lines.length) below.lastChild?.remove();
    lines.forEach((line, i) => say(below.children[i] || below.appendChild(svg("text", { class: "sub", y: r + 12 + 12 * i })), line));
    return group;
  }

  /** Bring the node that is compared into sight, where the tree is larger than its box. */
  follow() {
    const last = this.knots.querySelector(".now"), box = this.box;
    if (!last || (box.scrollWidth <= box.clientWidth && box.scrollHeight <= box.clientHeight)) return;
    const spot = last.getBoundingClientRect(), frame = box.getBoundingClientRect();
    if (spot.left < frame.left || spot.right > frame.right) box.scrollLeft += (spot.left + spot.right - frame.left - frame.right) / 2;
    if (spot.top < frame.top || spot.bottom > frame.bottom) box.scrollTop += (spot.top + spot.bottom - frame.top - frame.bottom) / 2;
  }
}

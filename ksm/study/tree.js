// SPDX-License-Identifier: GPL-2.0-only
// Drawing a red-black tree.
// @ts-check
"use strict";

/** @typedef {{parent: number, left: number, right: number, red: boolean}} Link */
/** @typedef {{title: string, name: string, inside: string, below: string[], square: boolean, lost: boolean, stale: boolean}} Face */
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

/** How many nodes a subtree has. @param {number} root @param {Map<number, Link>} links @returns {number} */
function sizeOf(root, links) {
  const link = links.get(root);
  return link ? 1 + sizeOf(link.left, links) + sizeOf(link.right, links) : 0;
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
    if (!link || !(wanted || depth < TOP)) return;
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

/** Draw trees side by side into a box: one for each NUMA node.
 * @param {HTMLElement} box
 * @param {number[]} roots
 * @param {Map<number, Link>} links
 * @param {(id: number) => Face} faceOf
 * @param {number[]} path the nodes that a search has met, the last one now
 * @param {(id: number) => void} chosen
 * @returns {number} how high it would like to be; 0 without a tree */
function drawTrees(box, roots, links, faceOf, path, chosen) {
  /** @type {Place[]} */
  const places = [];
  const met = new Set(path), whole = links;
  links = new Map();
  for (const root of roots) {
    const shown = sizeOf(root, whole) > LARGE ? pruned(root, whole, met) : whole;
    for (const [id, link] of shown) links.set(id, link);
    const tree = placed(root, shown), shift = places.length ? places[places.length - 1].x + 2 : 0;
    for (const place of tree) places.push({ ...place, x: place.x + shift });
  }
  if (!places.length) {
    box.replaceChildren(make("small", {}, "empty"));
    return 0;
  }
  const wide = places.length > 12 ? 46 : 54, high = 62, r = 13;
  const depth = Math.max(...places.map((place) => place.y)), dups = Math.max(...places.map(({ id }) => faceOf(id).below.length));
  const width = (places[places.length - 1].x + 1) * wide + 50, height = (depth + 1) * high + 24 + dups * 16;
  const at = new Map(places.map((place) => [place.id, { x: (place.x + 0.5) * wide + 25, y: place.y * high + 26 }]));
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", preserveAspectRatio: "xMidYMin meet" });
  // A small tree need not fill the box. A large one is so large that its names can be read, and the box scrolls.
  drawing.style.minWidth = `${Math.round(width * 0.75)}px`;
  drawing.style.minHeight = `${Math.round(height * 0.75)}px`;
  drawing.style.maxHeight = `${Math.round(height * 1.2)}px`;
  drawing.style.maxWidth = `${Math.round(width * 1.2)}px`;
  for (const { id } of places) {
    const from = at.get(id), link = links.get(id);
    for (const child of link ? [link.left, link.right] : []) {
      const to = at.get(child);
      if (from && to) drawing.append(svg("line", { x1: from.x, y1: from.y, x2: to.x, y2: to.y, class: met.has(id) && met.has(child) ? "path" : "" }));
    }
  }
  for (const { id } of places) {
    const spot = at.get(id), link = links.get(id), face = faceOf(id);
    if (!spot || !link) continue;
    const now = path.length > 0 && path[path.length - 1] === id;
    const group = svg("g", { class: ["n", met.has(id) ? "path" : "", now ? "now" : "", face.lost ? "lost" : "", face.stale ? "stale" : ""].join(" "),
      transform: `translate(${spot.x} ${spot.y})` }, svg("title", {}, face.title));
    const colour = link.red ? "red" : "black";
    group.append(face.square ? svg("rect", { x: -1.6 * r, y: -r, width: 3.2 * r, height: 2 * r, rx: 2, class: colour }) : svg("circle", { r, class: colour }));
    group.append(svg("text", { class: "in", y: 4 }, face.inside), svg("text", { class: "name", y: -r - 4 }, face.name));
    // A child that is drawn takes the room below.
    const hidden = [link.left, link.right].reduce((sum, child) => sum + (links.has(child) ? 0 : sizeOf(child, whole)), 0);
    const below = hidden ? [...face.below, `+ ${hidden}`] : face.below;
    below.forEach((line, i) => group.append(svg("text", { class: "sub", y: r + 11 + 12 * i }, line)));
    group.addEventListener("click", () => chosen(id));
    drawing.append(group);
  }
  box.replaceChildren(drawing);
  const last = drawing.querySelector(".now");
  if (last && (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight)) {
    const spot = last.getBoundingClientRect(), frame = box.getBoundingClientRect();
    box.scrollLeft += (spot.left + spot.right - frame.left - frame.right) / 2;
    box.scrollTop += (spot.top + spot.bottom - frame.top - frame.bottom) / 2;
  }
  return height;
}

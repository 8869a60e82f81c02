// SPDX-License-Identifier: GPL-2.0-only
// No twin in the kernel: it prints numbers.
"use strict";

const json = id => JSON.parse(document.getElementById(id).textContent);
const byData = (name, id) => document.querySelector(`[data-${name}="${CSS.escape(id)}"]`);

// Charts. Their expressions are interpreted, so that the page's policy need not allow to make code of text.

for (const place of document.querySelectorAll("[data-chart]"))
  vegaEmbed(place, json(`chart-${place.dataset.chart}`), {ast: true, renderer: "svg", actions: false, tooltip: {theme: "custom"}})
    .then(() => { place.dataset.drawn = ""; });

// The map of memory

async function unpacked(text) {
  const packed = Uint8Array.from(atob(text), each => each.charCodeAt(0));
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
}

// Where the cell of a number lies on a Hilbert curve that fills a square, and the other way round. `side` is a power of two.
function place(side, number) {
  let x = 0, y = 0;
  for (let s = 1; s < side; s *= 2) {
    const right = 1 & (number >> 1), up = 1 & (number ^ right);
    if (!up) {
      if (right) { x = s - 1 - x; y = s - 1 - y; }
      [x, y] = [y, x];
    }
    x += s * right;
    y += s * up;
    number >>= 2;
  }
  return [x, y];
}

function numberAt(side, x, y) {
  let number = 0;
  for (let s = side / 2; s >= 1; s /= 2) {
    const right = x & s ? 1 : 0, up = y & s ? 1 : 0;
    number += s * s * ((3 * right) ^ up);
    if (!up) {
      if (right) { x = side - 1 - x; y = side - 1 - y; }
      [x, y] = [y, x];
    }
  }
  return number;
}

// The state that each cell shows. Along the curve, a state is owed its share of each cell; the one that is owed most gets the cell.
function chosen(counts, states, cells) {
  const owed = new Float64Array(states), shown = new Uint8Array(cells);
  for (let cell = 0; cell < cells; cell++) {
    let sum = 0, most = -1;
    for (let s = 0; s < states; s++) sum += counts[cell * states + s];
    for (let s = 0; s < states; s++) {
      const count = counts[cell * states + s];
      owed[s] += count / sum;
      if (count && (most < 0 || owed[s] > owed[most])) most = s;
    }
    owed[most] -= 1;
    shown[cell] = most;
  }
  return shown;
}

async function drawMap(canvas) {
  const id = canvas.dataset.map, about = json(`map-${id}`);
  const map = about.at.reduce((data, key) => data[key], json("report"));
  const counts = new Uint16Array(await unpacked(map.counts)), steps = new Float64Array(await unpacked(map.first));
  const states = map.states.length, cells = steps.length, side = map.side;
  const first = steps.slice();
  for (let cell = 1; cell < cells; cell++) first[cell] += first[cell - 1];
  const source = new Uint32Array(cells);
  let at = 0;
  map.cells.forEach((number, which) => { source.fill(which, at, at + number); at += number; });
  const shown = chosen(counts, states, cells), only = byData("only", id), said = byData("said", id), legend = byData("legend", id);
  const scale = Math.max(2, Math.floor(1280 / side));
  let now = -1, wide = 0, high = 0;
  for (let cell = 0; cell < cells; cell++) {
    const [x, y] = place(side, cell);
    [wide, high] = [Math.max(wide, x + 1), Math.max(high, y + 1)];
  }
  [canvas.width, canvas.height] = [wide * scale, high * scale];

  const there = new Array(states).fill(0);
  counts.forEach((count, n) => { there[n % states] += count; });
  map.states.forEach((state, s) => {
    if (!there[s]) return;
    const item = document.createElement("li"), swatch = document.createElement("i");
    swatch.style.background = `var(--c-${about.colours[state]})`;
    item.append(swatch, about.words[state]);
    legend.append(item);
  });
  about.names.forEach((name, which) => {
    if (map.cells[which]) only.append(new Option(name, which));
  });

  function draw() {
    const style = getComputedStyle(document.documentElement), context = canvas.getContext("2d");
    const colours = map.states.map(state => style.getPropertyValue(`--c-${about.colours[state]}`));
    context.fillStyle = style.getPropertyValue("--paper");
    context.fillRect(0, 0, canvas.width, canvas.height);
    for (let cell = 0; cell < cells; cell++) {
      const [x, y] = place(side, cell);
      context.globalAlpha = only.value === "" || source[cell] === Number(only.value) ? 1 : 0.12;
      context.fillStyle = colours[shown[cell]];
      context.fillRect(x * scale, y * scale, scale, scale);
    }
    context.globalAlpha = 1;
    if (now >= 0) {
      const [x, y] = place(side, now), thick = Math.max(2, scale / 3);
      context.lineWidth = thick;
      context.strokeStyle = style.getPropertyValue("--ink");
      context.strokeRect(x * scale - thick / 2, y * scale - thick / 2, scale + thick, scale + thick);
    }
    canvas.dataset.drawn = "";
  }

  function say(cell) {
    if (cell < 0 || cell >= cells || cell === now) return;
    now = cell;
    const parts = map.states.map((state, s) => [about.words[state], counts[cell * states + s]]).filter(each => each[1]);
    const pages = parts.reduce((sum, each) => sum + each[1], 0);
    const what = pages === 1 ? parts[0][0] : parts.map(each => `${each[0]} ${each[1].toLocaleString("en")}`).join(", ");
    said.textContent = `${about.names[source[cell]]}, at 0x${first[cell].toString(16)}, ${pages.toLocaleString("en")} `
      + `${pages === 1 ? "page" : "pages"}: ${what}`;
    draw();
  }

  canvas.addEventListener("pointermove", event => {
    const box = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top].map(each => Math.floor(each / box.width * wide));
    if (x >= 0 && y >= 0 && x < wide && y < high) say(numberAt(side, x, y));
  });
  canvas.addEventListener("keydown", event => {
    const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    const end = {Home: 0, End: cells - 1}[event.key];
    if (step) {
      const [x, y] = now < 0 ? [-step[0], -step[1]] : place(side, now);
      const [right, down] = [x + step[0], y + step[1]];
      if (right >= 0 && down >= 0 && right < wide && down < high) say(numberAt(side, right, down));
    } else if (end !== undefined) say(end);
    else return;
    event.preventDefault();
  });
  only.addEventListener("change", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  matchMedia("print").addEventListener("change", draw);
  draw();
}

for (const canvas of document.querySelectorAll("[data-map]")) drawMap(canvas);

// What is folded is printed, too.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("main details:not([open])")];
  for (const each of folded) each.open = true;
});
addEventListener("afterprint", () => { for (const each of folded) each.open = false; });

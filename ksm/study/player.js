// SPDX-License-Identifier: GPL-2.0-only
// Playing a recording: buttons, trees, page tables, counters.
// @ts-check
"use strict";

(() => {
  /** @type {StepType[]} */
  const types = JSON.parse(byId("steps", HTMLElement).textContent || "[]");
  const lesson = byId("lesson", HTMLSelectElement), slider = byId("slider", HTMLInputElement);
  const playButton = byId("play", HTMLButtonElement), speed = byId("speed", HTMLSelectElement), life = byId("life", HTMLElement);
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

  /** @param {Replay} r */
  function light(r) {
    for (const line of lit) line.classList.remove("lit");
    const type = types[r.data.steps[r.at][0]];
    const lines = window.lens.lines(type, r.data.steps[r.at], window.lens.eraOf(r.data));
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
    const other = both && era !== window.lens.eraOf(data);
    byId("text", HTMLElement).replaceChildren(make("h3", {}, data.title), ...data.text.split("\n\n").map((part) => make("p", {}, part)),
      make("p", {}, make("small", {}, `${replay.length} steps, on the KSM of Linux ${data.era}.${other ? " mm/ksm.c on this page is of another version, so only the port's lines are lit." : ""}`)));
    byId("text", HTMLElement).scrollTop = 0;
    draw();
  }

  /** Begin or end with the part of the page. @param {boolean} on */
  function toggle(on) {
    if (!on) {
      pause();
      for (const line of lit) line.classList.remove("lit");
    } else if (replay) draw();
    else load(lesson.value);
  }

  addEventListener("view", (event) => toggle(/** @type {CustomEvent} */ (event).detail === "lessons"));
  lesson.addEventListener("change", () => load(lesson.value));
  slider.addEventListener("input", () => go(Number(slider.value)));
  playButton.addEventListener("click", play);
  const buttons = /** @type {[string, () => void][]} */ ([["first", () => go(0)], ["back", () => replay && go(replay.at - 1)], ["step", () => replay && go(replay.at + 1)],
    ["last", () => replay && go(replay.length - 1)]]);
  for (const [id, action] of buttons) byId(id, HTMLButtonElement).addEventListener("click", () => { pause(); action(); });
  document.addEventListener("keydown", (event) => {
    if (document.documentElement.dataset.view !== "lessons" || event.ctrlKey || event.metaKey || event.altKey) return;
    // Keys that the slider or a list of choices uses itself are left to it.
    const theirs = event.target instanceof HTMLInputElement ? ["ArrowLeft", "ArrowRight", "Home", "End"]
      : event.target instanceof HTMLSelectElement ? ["Home", "End", " "] : [];
    if (theirs.includes(event.key)) return;
    const keys = /** @type {Record<string, string>} */ ({ ArrowLeft: "back", ArrowRight: "step", Home: "first", End: "last", " ": "play" });
    if (!keys[event.key] || (event.key === " " && event.target instanceof HTMLButtonElement)) return;
    event.preventDefault();
    byId(keys[event.key], HTMLButtonElement).click();
  });
})();

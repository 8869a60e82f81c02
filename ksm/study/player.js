// SPDX-License-Identifier: GPL-2.0-only
// No twin in the kernel: the page of ksm study.
// Playing a recording: the controls, the depth, the address, the lines of the source that are lit.
// @ts-check
"use strict";

/** @typedef {"story" | "steps" | "source"} Depth */

(() => {
  /** @type {StepType[]} */
  const types = JSON.parse(byId("steps", HTMLElement).textContent || "[]");
  const root = document.documentElement, player = byId("player", HTMLElement);
  const lesson = byId("lesson", HTMLSelectElement), slider = byId("slider", HTMLInputElement), chapter = byId("chapter", HTMLSelectElement);
  const playButton = byId("play", HTMLButtonElement), speed = byId("speed", HTMLSelectElement), life = byId("life", HTMLElement);
  const sentence = byId("sentence", HTMLElement), said = byId("said", HTMLElement), ticks = byId("ticks", HTMLElement), ask = byId("ask", HTMLElement);
  const aside = byId("aside", HTMLElement), telling = byId("telling", HTMLElement), dock = byId("dock", HTMLElement), counterBox = byId("counters", HTMLElement);
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const glossary = new Glossary(JSON.parse(byId("glossary", HTMLElement).textContent || "{}"));
  const story = new Story(telling, ask, glossary, () => onward());
  const stage = new Stage(byId("stage", HTMLElement), { onPage: (key) => { chosen = chosen === key ? "" : key; draw(); } });
  /** @type {{number: string, lesson: string, eras: string[], title: string}[]} */
  const catalogue = [...lesson.options].map((option) => ({ number: option.value, lesson: option.dataset.lesson || "", eras: (option.dataset.eras || "").split(" "), title: option.text }));
  /** @type {Replay | undefined} */
  let replay;
  /** @type {Depth} */
  let depth = "story";
  /** @type {number[]} */
  let events = [];
  let timer = 0, chosen = "", loaded = "", era = "", goal = -1, told = 0, addressed = 0;
  /** @type {Element[]} */
  let lit = [];

  /** @param {Replay} r */
  function light(r) {
    for (const line of lit) line.classList.remove("lit");
    lit = [];
    if (depth !== "source") return;
    const type = types[r.data.steps[r.at][0]];
    const lines = window.lens.lines(type, r.data.steps[r.at], era);
    lit = lines.flatMap((/** @type {string} */ id) => (id && document.getElementById(id)) || []);
    for (const line of lit) line.classList.add("lit");
    show(...lit);
    if (lit.length) mark(lit[lit.length - 1].closest("section.pair"));
  }

  /** @param {Replay} r */
  function drawCounters(r) {
    const counters = r.counters(), before = r.at ? r.countersBefore() : counters;
    counterBox.replaceChildren(...(r.data.files || r.data.counters).map((name) => {
      const now = counters[name] ?? 0, was = before[name] ?? now, more = now - was;
      return make("div", { "data-counter": name, class: more ? "moved" : "" }, make("span", {}, name), " ", make("b", {}, String(now)), make("i", {}, more ? `${more > 0 ? "+" : "−"}${Math.abs(more)}` : ""));
    }));
  }

  /** @param {Replay} r */
  function drawLife(r) {
    life.hidden = chosen === "";
    if (!chosen) return life.replaceChildren();
    const all = r.lives.get(chosen) || [];
    let last = -1;
    all.forEach((event, i) => { if (event.at <= r.at) last = i; });
    const shut = make("button", { type: "button", class: "shut", "aria-label": "Close" }, "×");
    shut.addEventListener("click", () => { chosen = ""; draw(); });
    life.replaceChildren(make("h3", {}, `The life of ${r.pageName(chosen)}`), shut, ...all.map((event, i) => {
      const button = make("button", { type: "button", class: i === last ? "now" : "", "data-event": String(i) }, `${event.at + 1}: ${event.text}`);
      button.addEventListener("click", () => { pause(); go(event.at); });
      return button;
    }), ...(all.length ? [] : [make("p", {}, "nothing happened to it")]));
  }

  /** What a screen reader is told: the sentence, but not more often than it can be read. @param {string} text */
  function tell(text) {
    clearTimeout(told);
    told = window.setTimeout(() => { said.textContent = text; }, timer ? 900 : 60);
  }

  function draw() {
    const r = replay;
    if (!r || root.dataset.view !== "lessons") return;
    // Some buttons are made anew. The one that has the keyboard's focus gets it back.
    const { event } = document.activeElement instanceof HTMLElement ? document.activeElement.dataset : /** @type {DOMStringMap} */ ({});
    player.classList.toggle("still", calm.matches || (timer > 0 && goal < 0 && speed.value === "0"));
    slider.value = String(r.at);
    byId("at", HTMLOutputElement).value = `${r.at + 1} / ${r.length}`;
    const type = types[r.data.steps[r.at][0]], words = r.sentence(), where = make("button", { type: "button", class: "where", title: "Show the line that does it" }, `${type.function}()`);
    where.addEventListener("click", () => choose("source"));
    sentence.replaceChildren(make("span", {}, ...glossary.marked(words)), ...(type.function ? [" ", where] : []));
    slider.setAttribute("aria-valuetext", `${r.at + 1} of ${r.length}: ${words}`);
    const scene = story.sceneAt(r.at);
    if (goal < 0) story.draw(r.at, depth === "story" && !timer);
    chapter.value = String(scene);
    byId("step", HTMLButtonElement).textContent = depth !== "story" ? "Next step" : story.scenes.some((each) => each.step > r.at) ? "Next scene"
      : r.at < r.length - 1 ? "To the end" : following() ? "Next lesson" : "First lesson";
    drawCounters(r);
    stage.draw(r, chosen);
    drawLife(r);
    light(r);
    tell(depth === "story" && story.scenes[scene]?.step === r.at && !timer ? `${story.scenes[scene].title}. ${words}` : words);
    const again = event ? life.querySelector(`[data-event="${event}"]`) : null;
    if (again instanceof HTMLElement) again.focus({ preventScroll: true });
    address();
  }

  // The address: #lessons/LESSON/ERA/STEP, with a scene's key in the place of the step in a story

  function place() {
    const r = replay;
    if (!r) return "#lessons";
    const scene = story.scenes.find((each) => each.step === r.at), one = catalogue.find((each) => each.number === loaded);
    const where = depth === "story" && scene ? scene.key : String(r.at + 1) + (depth === "source" ? "/source" : "");
    return `#lessons/${one?.lesson}/${era}/${where}`;
  }

  /** Write where we are into the address: not at every step, which browsers refuse. @param {boolean} [now] */
  function address(now) {
    clearTimeout(addressed);
    const write = () => {
      if (root.dataset.view !== "lessons" || !replay) return;
      if (location.hash !== place()) history.replaceState(null, "", place());
    };
    if (now) write(); else addressed = window.setTimeout(write, 250);
  }
  addEventListener("pagehide", () => address(true));

  /** Go where the address says, or to the lesson that was shown. */
  function arrive() {
    const [, name = "", asked = "", where = "", more = ""] = plainHash().split("/");
    // A lesson or an era that there is not: the one that is shown, or chosen
    const key = catalogue.some((each) => each.lesson === name) ? name : "", version = window.lens.eras.includes(asked) ? asked : "";
    const wanted = key || catalogue.find((each) => each.number === loaded)?.lesson || catalogue[0]?.lesson;
    if (key && version && window.lens.chosen !== version) window.lens.choose(version);
    open({ lesson: wanted, era: version || (key ? "" : era), step: /^\d+$/.test(where) ? Number(where) - 1 : undefined, scene: /^\d+$/.test(where) ? undefined : where, depth: !where ? undefined : more === "source" ? "source" : /^\d+$/.test(where) ? "steps" : "story" });
  }

  /** The recording of a lesson in an era, or in the nearest that there is. @param {string} key @param {string} version */
  function recordingOf(key, version) {
    const number = window.lens.recording(key, version);
    return catalogue.find((each) => each.number === String(number)) || catalogue[0];
  }

  /** @param {{lesson?: string, era?: string, step?: number, scene?: string, depth?: Depth}} wanted */
  function open(wanted) {
    const version = wanted.era || chosenEra(), one = recordingOf(wanted.lesson || "", version);
    if (!one) return;
    if (one.number !== loaded || era !== version) load(one.number, version);
    if (!replay) return;
    if (wanted.depth && (wanted.depth !== "story" || story.scenes.length)) depth = wanted.depth;
    const scene = story.scenes.find((each) => each.key === wanted.scene);
    if (wanted.step !== undefined) replay.seek(wanted.step); else if (scene) replay.seek(scene.step);
    setDepth();
  }

  /** @returns {string} */
  const chosenEra = () => window.lens.chosen;

  /** @param {string} number @param {string} version */
  function load(number, version) {
    pause();
    const one = catalogue.find((each) => each.number === number);
    /** @type {RecordingData} */
    const data = JSON.parse(document.getElementById(`recording-${number}`)?.textContent || "null");
    if (!data || !one) return;
    if (!one.eras.includes(version)) version = data.era;
    replay = new Replay(data, types);
    events = eventsOf(replay);
    [chosen, loaded, era] = ["", number, version];
    slider.max = String(replay.length - 1);
    const shown = catalogue.filter((each) => recordingOf(each.lesson, chosenEra()) === each);
    lesson.replaceChildren(...shown.map((each) => {
      const runs = each.eras.includes(chosenEra()) ? "" : each.eras.includes("6.12") ? "6.12" : each.eras[0];
      return make("option", { value: each.number }, runs ? `${each.title} (${runs})` : each.title);
    }));
    lesson.value = number;
    const other = root.classList.contains("both") && window.lens.file !== version;
    story.load(data, `${replay.length} steps, on the KSM of Linux ${version}.${other ? " mm/ksm.c on this page is of another version, so only the port's lines are lit." : ""}`);
    const end = replay.length - 1;
    ticks.replaceChildren(...story.scenes.map((scene) => { const tick = make("i"); tick.style.left = `${100 * scene.step / end}%`; return tick; }));
    chapter.replaceChildren(...(story.scenes.length ? [make("option", { value: "-1", hidden: "" }, "Before the first scene")] : []), ...story.scenes.map((scene, i) => make("option", { value: String(i) }, `Scene ${i + 1} of ${story.scenes.length}: ${scene.title}`)));
    chapter.hidden = !story.scenes.length;
    telling.scrollTop = 0;
    if (depth === "story" && story.scenes.length) replay.seek(story.scenes[0].step);
    setDepth();
  }

  function setDepth() {
    if (depth === "story" && !story.scenes.length) depth = "steps";
    root.dataset.depth = depth;
    for (const button of document.querySelectorAll("#depths button")) {
      const mine = /** @type {HTMLButtonElement} */ (button);
      mine.setAttribute("aria-pressed", String(mine.dataset.depth === depth));
      if (mine.dataset.depth === "story") mine.disabled = !story.scenes.length;
    }
    settle();
    draw();
  }

  /** @param {Depth} wanted */
  function choose(wanted) {
    pause();
    depth = wanted;
    if (depth === "story" && replay && story.scenes.length) replay.seek(story.scenes[Math.max(0, story.sceneAt(replay.at))].step);
    setDepth();
  }

  // Moving

  /** @param {number} target */
  function go(target) {
    if (!replay) return;
    replay.seek(target);
    if (replay.at === replay.length - 1 || (goal >= 0 && replay.at >= goal)) pause();
    draw();
  }

  function pause() {
    clearTimeout(timer);
    [timer, goal] = [0, -1];
    playButton.textContent = "Play";
  }

  function tick() {
    if (!replay) return;
    // Very fast: so many steps for each picture that the recording ends after ten seconds, and at least one. To the next scene in some two seconds.
    const wait = goal >= 0 ? Math.max(60, Math.min(420, 2200 / Math.max(1, goal - replay.at))) : Number(speed.value);
    const leap = goal >= 0 ? Math.max(1, Math.ceil((goal - replay.at) / 30)) : wait ? 1 : Math.max(1, Math.round(replay.length / 400));
    timer = window.setTimeout(tick, wait || 16);
    go(goal >= 0 ? Math.min(goal, replay.at + leap) : replay.at + leap);
  }

  /** Let the steps up to one be seen. @param {number} target */
  function run(target) {
    pause();
    if (!replay) return;
    if (calm.matches || target - replay.at < 2) return go(target);
    [goal, timer] = [target, window.setTimeout(tick, 16)];
    ask.hidden = true;
  }

  function play() {
    if (!replay) return;
    if (timer) return pause(), draw();
    if (replay.at === replay.length - 1) replay.seek(0);
    playButton.textContent = "Pause";
    timer = window.setTimeout(tick, Number(speed.value) || 16);
    story.draw(replay.at, false);
  }

  /** The lesson after this one. */
  const following = () => catalogue.find((each) => each.number === lesson.options[lesson.selectedIndex + 1]?.value);

  /** To the next scene of the story; after the last one to the end, and then to the next lesson. */
  function onward() {
    if (!replay) return;
    const now = replay.at;
    if (goal >= 0) return go(goal);
    if (now === replay.length - 1) return load(following()?.number || lesson.options[0].value, chosenEra());
    run(story.scenes.find((scene) => scene.step > now)?.step ?? replay.length - 1);
  }

  function backward() {
    if (!replay) return;
    const now = replay.at;
    pause();
    go([...story.scenes].reverse().find((scene) => scene.step < now)?.step ?? 0);
  }

  const moves = /** @type {Record<string, () => void>} */ ({
    first: () => { pause(); go(0); },
    back: () => { if (depth === "story") return backward(); pause(); if (replay) go(replay.at - 1); },
    step: () => { if (depth === "story") return onward(); pause(); if (replay) go(replay.at + 1); },
    "next-event": () => { pause(); const now = replay?.at ?? 0; go(events.find((each) => each > now) ?? (replay?.length ?? 1) - 1); },
    last: () => { pause(); if (replay) go(replay.length - 1); },
    play,
  });
  for (const [id, move] of Object.entries(moves)) byId(id, HTMLButtonElement).addEventListener("click", move);
  slider.addEventListener("input", () => { if (goal >= 0) pause(); go(Number(slider.value)); });
  chapter.addEventListener("change", () => { pause(); go(story.scenes[Number(chapter.value)]?.step ?? 0); });
  lesson.addEventListener("change", () => load(lesson.value, chosenEra()));
  byId("depths", HTMLElement).addEventListener("click", (event) => {
    const wanted = event.target instanceof HTMLElement ? event.target.dataset.depth : "";
    if (wanted) choose(/** @type {Depth} */ (wanted));
  });
  document.addEventListener("keydown", (event) => {
    if (root.dataset.view !== "lessons" || event.ctrlKey || event.metaKey || event.altKey) return;
    // Keys that the slider or a list of choices uses itself are left to it.
    const theirs = event.target instanceof HTMLInputElement ? ["ArrowLeft", "ArrowRight", "Home", "End"]
      : event.target instanceof HTMLSelectElement ? ["Home", "End", " ", "e"] : [];
    if (theirs.includes(event.key)) return;
    const keys = /** @type {Record<string, string>} */ ({ ArrowLeft: "back", ArrowRight: "step", Home: "first", End: "last", " ": "play", e: "next-event" });
    if (!keys[event.key] || (event.key === " " && event.target instanceof HTMLButtonElement)) return;
    event.preventDefault();
    moves[keys[event.key]]();
  });

  // On paper: the lessons of the chosen era, also in place of the front door, where nothing moves on paper. A browser prints whenever the reader says so, not only by our button.
  byId("print", HTMLButtonElement).addEventListener("click", () => print());
  addEventListener("beforeprint", () => {
    if (root.dataset.view !== "lessons" && root.dataset.view !== "door") return;
    if (!loaded) arrive();
    const shown = [...lesson.options].map((option) => JSON.parse(document.getElementById(`recording-${option.value}`)?.textContent || "null"));
    document.getElementById("booklet")?.remove();
    document.body.append(bookletOf(shown, types, chosenEra()));
  });
  addEventListener("afterprint", () => document.getElementById("booklet")?.remove());

  /** Where questions and lives stand: beside the picture, or above the buttons of a phone. */
  function settle() {
    const narrow = player.clientWidth < 760 || depth === "source";
    if (narrow !== (aside.parentElement === dock)) (narrow ? dock : telling)[narrow ? "prepend" : "append"](aside);
  }
  new ResizeObserver(settle).observe(player);

  addEventListener("view", (event) => {
    if (/** @type {CustomEvent} */ (event).detail === "lessons") return arrive();
    pause();
    for (const line of lit) line.classList.remove("lit");
  });
  document.addEventListener("lens", () => {
    const one = catalogue.find((each) => each.number === loaded);
    if (root.dataset.view === "lessons" && one && chosenEra() !== era) open({ lesson: one.lesson, era: chosenEra(), step: undefined, scene: story.scenes[story.sceneAt(replay?.at ?? 0)]?.key });
  });
  // What other parts of the page, and who reads it, may ask for
  Object.assign(window, { player: {
    open, choose, glossary, get replay() { return replay; }, get stage() { return stage; }, go: (/** @type {number} */ at) => { pause(); go(at); },
    show: (/** @type {number} */ number, /** @type {Depth} */ wanted) => { depth = wanted; load(String(number), catalogue[number].eras[0]); },
  } });
})();

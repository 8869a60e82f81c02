// SPDX-License-Identifier: GPL-2.0-only
// No twin in the kernel: the page of ksm study.
// The front door: a visitor acts, a machine answers with a recording, and the recording is played.
// @ts-check
"use strict";

/** @typedef {{steps: number[][], notes: string[], contents: string[], mms: Record<string, string>, processes: DoorProcess[],
 *   settings: Record<string, number>, visit?: string, era?: string, counters?: string[]}} DoorAnswer */
/** Who answers: the machine behind the page (door_live.js), or what was recorded (below). An answer that begins anew has its era.
 * @typedef {{live: boolean, begin: (era: string) => Promise<DoorAnswer[]>, act: (action: Record<string, unknown>) => Promise<DoorAnswer[]>,
 *   choices: () => {label: string, action: Record<string, unknown>}[]}} DoorMachine */

/** What was recorded when the page was made. @returns {DoorMachine} */
function recordedMachine() {
  /** @type {{choices: Record<string, {label: string, action: Record<string, unknown>}>, runs: Record<string, {keys: string[], answers: DoorAnswer[]}[]>}} */
  const { choices, runs } = JSON.parse(document.getElementById("door-runs")?.textContent || "{}");
  /** @type {string[]} */
  let keys = [];
  let era = "6.12", run = runs[era][0];
  const same = (/** @type {Record<string, unknown>} */ a, /** @type {Record<string, unknown>} */ b) => JSON.stringify(Object.entries(a).sort()) === JSON.stringify(Object.entries(b).sort());
  const begins = (/** @type {string[]} */ all) => keys.every((key, i) => all[i] === key);
  const open = () => [...new Set(runs[era].filter(({ keys: all }) => begins(all) && all.length > keys.length).map(({ keys: all }) => all[keys.length]))];
  return {
    live: false,
    choices: () => open().map((key) => choices[key]),
    async begin(wanted) {
      [era, keys] = [wanted, []];
      run = runs[era][0];
      return [run.answers[0]];
    },
    async act(action) {
      const key = open().find((each) => same(choices[each].action, action));
      if (!key) throw new Error("This was not recorded. With “ksm study --serve” a machine answers.");
      keys.push(key);
      // The same steps have other numbers in another run: then it is told from its beginning.
      if (begins(run.keys)) return [run.answers[keys.length]];
      run = runs[era].find(({ keys: all }) => begins(all)) || run;
      return run.answers.slice(0, keys.length + 1);
    },
  };
}

/** The front door. act() and begin() do what the controls do, and are done when the machine has answered. */
const door = (() => {
  /** @type {StepType[]} */
  const types = JSON.parse(byId("steps", HTMLElement).textContent || "[]");
  const machine = typeof liveMachine === "function" ? liveMachine() : recordedMachine();
  const log = byId("door-log", HTMLOListElement), cards = byId("door-cards", HTMLElement), play = byId("door-play", HTMLButtonElement);
  const limit = byId("door-limit", HTMLSelectElement), pace = byId("door-pace", HTMLSelectElement);
  const hint = byId("door-hint", HTMLElement), sentence = byId("door-sentence", HTMLElement);
  /** @type {Replay | undefined} */
  let replay;
  /** @type {{from: number, processes: DoorProcess[], settings: Record<string, number>}[]} what is not in the recording, by the step from which on it holds */
  let epochs = [];
  const seen = new Set(), done = new Set(), USUAL = new Set(["", "seen", "volatile", "compare", "unstable"]);
  /** @type {Map<string, number>} how often a step of each name was played */
  const shown = new Map();
  let timer = 0, told = 0, answers = 0, begun = false, writing = false;
  /** @type {Promise<unknown>} what was asked for before: one thing is done after the other */
  let queue = Promise.resolve();

  document.documentElement.classList.add(machine.live ? "live" : "static");

  const epoch = () => epochs.filter(({ from }) => !replay || from <= replay.at).pop() || epochs[0];
  const nameOf = (/** @type {number} */ at) => (replay ? types[replay.data.steps[at][0]].name : "");

  function draw() {
    const r = replay;
    if (!r || writing) return;
    const focused = document.activeElement?.getAttribute("data-key");
    drawDoor(r, epoch().processes, { write, act: (action) => { attempt(/** @type {Record<string, unknown>} */ (action)); }, live: machine.live });
    sentence.textContent = r.sentence();
    byId("door-at", HTMLOutputElement).value = `${r.at + 1} / ${r.length}`;
    play.textContent = timer ? "Pause" : "Play";
    for (const line of log.children) line.classList.toggle("now", line.getAttribute("data-at") === String(r.at));
    const ended = r.at === r.length - 1;
    const nothing = !machine.live && !machine.choices().length;
    hint.textContent = !ended || timer ? "" : nothing ? "This is as far as it was recorded. Begin anew, and go another way." : doorHint(seen, r.counters(), done);
    if (focused) /** @type {HTMLElement | null} */ (document.querySelector(`#door [data-key="${focused}"]`))?.focus({ preventScroll: true });
  }

  /** Write down the steps up to this one, and explain what happens for the first time. @returns {boolean} whether something was explained */
  function tell() {
    const r = replay, before = cards.childElementCount;
    for (; r && told <= r.at; told++) {
      const at = told, here = r.at;
      r.seek(at);
      const text = r.sentence(), name = nameOf(at);
      r.seek(here);
      if (!text || at === 0) continue;
      const button = make("button", { type: "button" }, text);
      button.addEventListener("click", () => { stop(); r.seek(at); draw(); });
      log.append(make("li", { "data-at": String(at), class: name === "NOTE" ? "note" : "" }, button));
      if (DOOR_WORDS[name] && !seen.has(name)) cards.prepend(make("article", { class: "card" }, make("h3", {}, DOOR_WORDS[name][0]), make("p", {}, DOOR_WORDS[name][1])));
      seen.add(name);
    }
    log.scrollTop = log.scrollHeight;
    cards.scrollTop = 0;
    const newest = cards.firstElementChild?.cloneNode(true);
    if (newest) byId("door-why", HTMLElement).replaceChildren(newest);
    [...cards.children].forEach((card, i) => card.classList.toggle("new", i === 0));
    return cards.childElementCount > before;
  }

  function stop() {
    clearTimeout(timer);
    timer = 0;
  }

  function tick() {
    if (!replay) return;
    timer = 0;
    if (replay.at < replay.length - 1) {
      replay.seek(replay.at + 1);
      // What is explained is given time to be read; what was seen often goes by quickly.
      const { name, kind } = types[replay.data.steps[replay.at][0]], often = (shown.get(name) || 0) > 2 && USUAL.has(kind);
      shown.set(name, (shown.get(name) || 0) + 1);
      const wait = Number(pace.value) * (tell() ? 3 : often ? 0.4 : 1);
      if (replay.at < replay.length - 1) timer = window.setTimeout(tick, wait);
    }
    draw();
  }

  function end() {
    stop();
    if (!replay) return;
    replay.seek(replay.length - 1);
    tell();
    draw();
  }

  /** Take the machine's answers in, and play what is new. @param {DoorAnswer[]} answers @param {boolean} quickly */
  function take(answers, quickly) {
    stop();
    answers.forEach((answer, i) => {
      if (answer.era) {
        replay = new Replay({ title: "", text: "", truncated: false, era: answer.era, counters: answer.counters || [], steps: [...answer.steps], notes: [...answer.notes],
          contents: [...answer.contents], mms: { ...answer.mms } }, types);
        [epochs, told, doorBefore] = [[], 0, {}];
        log.replaceChildren();
      } else {
        // Only the last answer is new: the others are there already, or are told in one go.
        if (replay) { replay.seek(replay.length - 1); tell(); }
        replay?.extend(answer);
      }
      epochs.push({ from: replay ? replay.length - answer.steps.length : 0, processes: answer.processes, settings: answer.settings });
      if (answer.era && i === answers.length - 1) quickly = true;
    });
    const last = answers[answers.length - 1], allowed = last.settings.max_page_sharing;
    if (replay && last.era === undefined) replay.seek(epochs[epochs.length - 1].from - 1);
    limit.disabled = allowed === undefined || (!machine.live && !machine.choices().some(({ action }) => action.do === "set"));
    if (allowed !== undefined) limit.value = String(allowed);
    choices();
    if (quickly || !replay || last.steps.length < 2) end();
    else tick();
  }

  function choices() {
    const all = machine.choices(), others = all.filter(({ action }) => action.do !== "scan");
    const pass = byId("door-pass", HTMLButtonElement);
    pass.disabled = !machine.live && all.length === others.length;
    byId("door-choices", HTMLElement).replaceChildren(...others.map(({ label, action }) => {
      const button = make("button", { type: "button", class: "choice" }, label);
      button.addEventListener("click", () => attempt(action));
      return button;
    }));
  }

  /** @param {() => Promise<DoorAnswer[]>} ask @param {boolean} quickly @returns {Promise<DoorAnswer[]>} */
  function asked(ask, quickly) {
    const given = queue.then(async () => {
      if (replay && replay.at < replay.length - 1) end();
      const found = await ask();
      take(found, quickly);
      answers++;
      return found;
    });
    queue = given.catch(() => {});
    return given;
  }

  /** @param {Record<string, unknown>} action @param {boolean} [quickly] without playing */
  const act = (action, quickly = false) => asked(() => {
    done.add(action.do === "visit" ? "scan" : action.do);
    return machine.act(action);
  }, quickly);

  /** @param {string} [wanted] the era */
  function begin(wanted = window.lens.chosen) {
    if (wanted !== "6.12") done.add("era");
    byId("door-kernel", HTMLElement).textContent = `of Linux ${wanted}`;
    return asked(() => machine.begin(wanted), true);
  }

  /** What a control does. What goes wrong is said where the hint is. @param {Record<string, unknown>} action */
  async function attempt(action) {
    try {
      await (action.do === "begin" ? begin() : act(action));
    } catch (error) {
      hint.textContent = error instanceof Error ? error.message : String(error);
      hint.classList.add("wrong");
      showLimit();
      return;
    }
    hint.classList.remove("wrong");
    // On a phone the memories are brought below what is said.
    if (action.do !== "begin" && matchMedia("(max-width: 860px)").matches) byId("door-memories", HTMLElement).scrollIntoView({ block: "start" });
  }

  /** A setting that was refused shows what it still is. */
  function showLimit() {
    const value = epoch()?.settings.max_page_sharing;
    if (value !== undefined) limit.value = String(value);
  }

  /** A page that is clicked becomes a field; where nothing answers, the page's recorded write is done.
   * @param {string} process @param {number} page @param {HTMLElement} box */
  function write(process, page, box) {
    if (!machine.live) {
      const choice = machine.choices().find(({ action }) => action.do === "write" && action.process === process && action.page === page);
      attempt(choice ? choice.action : { do: "write", process, page });
      return;
    }
    end();
    const tile = document.querySelector(`#door [data-key="${box.dataset.key}"]`);
    if (!(tile instanceof HTMLElement)) return;
    const text = tile.querySelector("b")?.textContent || "";
    const field = /** @type {HTMLInputElement} */ (make("input", { type: "text", maxlength: "20", class: "tile", "data-key": box.dataset.key || "", "aria-label": `Text of page ${page} of ${process}`, value: text === "zeros" ? "" : text.trim() }));
    let over = false;
    const finish = (/** @type {boolean} */ keep) => {
      if (over) return;
      over = true;
      writing = false;
      if (keep) attempt({ do: "write", process, page, text: field.value }); else draw();
    };
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== "Escape") return;
      event.preventDefault();     // the tile that gets the focus back is not pressed
      finish(event.key === "Enter");
    });
    field.addEventListener("blur", () => finish(field.value !== text.trim()));
    tile.replaceWith(field);
    writing = true;
    field.focus();
    field.select();
  }

  const click = (/** @type {string} */ id, /** @type {() => void} */ what) => byId(id, HTMLButtonElement).addEventListener("click", what);
  click("door-pass", () => attempt({ do: "scan", passes: 1 }));
  click("door-visit", () => attempt({ do: "visit", pages: 1 }));
  click("door-spawn", () => attempt({ do: "spawn" }));
  click("door-begin", () => attempt({ do: "begin" }));
  click("door-end", end);
  click("door-step", () => { stop(); tick(); stop(); draw(); });
  click("door-back", () => { stop(); replay?.seek(replay.at - 1); draw(); });
  click("door-play", () => { if (timer) { stop(); draw(); } else { if (replay && replay.at === replay.length - 1) replay.seek(epochs[epochs.length - 1].from - 1); tick(); } });
  document.addEventListener("lens", () => { if (begun) attempt({ do: "begin" }); });
  limit.addEventListener("change", () => attempt({ do: "set", name: "max_page_sharing", value: Number(limit.value) }));
  addEventListener("resize", draw);

  addEventListener("view", (event) => {
    const here = /** @type {CustomEvent} */ (event).detail === "door";
    if (!here) stop();
    else if (begun) draw();
    else {
      begun = true;
      attempt({ do: "begin" });
    }
  });

  return {
    act, begin, end,
    /** Whether there is something to play, for who waits for its end. */
    get playing() { return timer !== 0; },
    get replay() { return replay; },
    get answers() { return answers; },
    get epoch() { return epoch(); },
  };
})();

// SPDX-License-Identifier: GPL-2.0-only
// No twin in the kernel: the page of ksm study.
// What is told beside the picture: scenes with their questions, and the glossary under the words.
// @ts-check
"use strict";

/** The words that the glossary has. */
class Glossary {
  /** @param {Record<string, string>} terms */
  constructor(terms) {
    this.terms = new Map(Object.entries(terms).map(([term, text]) => [term.toLowerCase(), { term, text }]));
    const names = [...this.terms.keys()].sort((a, b) => b.length - a.length).map((name) => name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    this.finder = new RegExp(`(?<![\\w-])(${names.join("|")})(s?)(?![\\w-])`, "gi");
    this.box = make("div", { id: "meaning", popover: "auto", role: "note", tabindex: "-1" });
    document.body.append(this.box);
    /** @type {HTMLElement | null} */
    this.asked = null;
    this.box.addEventListener("toggle", (event) => {
      const open = /** @type {ToggleEvent} */ (event).newState === "open";
      if (this.asked) this.asked.setAttribute("aria-expanded", String(open));
      if (!open && this.asked && (document.activeElement === this.box || document.activeElement === document.body)) this.asked.focus({ preventScroll: true });
    });
  }

  /** A text with a button for each term of the glossary, where it comes first. @param {string} text @returns {(Node | string)[]} */
  marked(text) {
    /** @type {(Node | string)[]} */
    const parts = [];
    const seen = new Set();
    let end = 0;
    for (const found of text.matchAll(this.finder)) {
      const entry = this.terms.get(found[1].toLowerCase());
      if (!entry || seen.has(entry.text)) continue;
      seen.add(entry.text);
      parts.push(text.slice(end, found.index), this.button(found[0], entry));
      end = found.index + found[0].length;
    }
    return [...parts, text.slice(end)];
  }

  /** @param {string} word @param {{term: string, text: string}} entry */
  button(word, entry) {
    const button = make("button", { type: "button", class: "term", "aria-expanded": "false", "aria-controls": "meaning" }, word);
    // A press outside of the box closes it, also one on the button that has opened it.
    let closes = false;
    button.addEventListener("pointerdown", () => { closes = this.asked === button && this.box.matches(":popover-open"); });
    button.addEventListener("click", () => { if (!closes) this.show(button, entry); closes = false; });
    return button;
  }

  /** @param {HTMLElement} button @param {{term: string, text: string}} entry */
  show(button, entry) {
    const again = this.asked === button && this.box.matches(":popover-open");
    if (this.box.matches(":popover-open")) this.box.hidePopover();
    if (again) return;
    this.asked = button;
    this.box.replaceChildren(make("b", {}, entry.term), make("p", {}, entry.text));
    this.box.showPopover();
    const at = button.getBoundingClientRect(), size = this.box.getBoundingClientRect(), room = 8;
    this.box.style.left = `${Math.max(room, Math.min(at.left, innerWidth - size.width - room))}px`;
    this.box.style.top = `${at.bottom + size.height + room > innerHeight ? Math.max(room, at.top - size.height - 4) : at.bottom + 4}px`;
    this.box.focus({ preventScroll: true });
  }
}

/** The scenes of a recording: title, text, question. */
class Story {
  /** @param {HTMLElement} telling @param {HTMLElement} ask @param {Glossary} glossary @param {() => void} onward */
  constructor(telling, ask, glossary, onward) {
    this.ask = ask;
    this.glossary = glossary;
    this.onward = onward;
    this.scene = make("div", { class: "scenes" });
    this.more = make("details", {}, make("summary", {}, "About this lesson"), make("div", {}));
    /** @type {HTMLElement} */ (telling.firstElementChild).after(this.scene, this.more);
    /** @type {SceneData[]} */
    this.scenes = [];
    /** @type {Map<string, number>} what was answered, by the scene */
    this.answers = new Map();
    this.shown = "";
  }

  /** @param {RecordingData} data @param {string} remark */
  load(data, remark) {
    this.data = data;
    this.scenes = data.scenes || [];
    this.shown = "";
    this.more.children[0].textContent = data.lesson ? "About this lesson" : "About this recording";
    const paragraphs = data.text.split("\n\n").map((part) => make("p", {}, ...this.glossary.marked(part)));
    this.more.children[1].replaceChildren(...paragraphs, make("p", {}, make("small", {}, remark)));
    /** @type {HTMLDetailsElement} */ (this.more).open = !this.scenes.length && innerWidth > 760;
    // All scenes lie in one place, so that it is as high as the longest one, and the picture stays where it is.
    const told = this.scenes.map((scene) => make("div", { "data-scene": scene.key }, make("h2", {}, scene.title), make("p", {}, ...this.glossary.marked(scene.text))));
    this.scene.replaceChildren(make("div", { "data-scene": "" }, make("h2", {}, data.title)), ...told);
  }

  /** The scene that a step belongs to: the last one that has begun; -1 before the first. @param {number} at */
  sceneAt(at) {
    let found = -1;
    this.scenes.forEach((scene, i) => { if (scene.step <= at) found = i; });
    return found;
  }

  /** Show the scene of a step; with its question, if the story stops here. @param {number} at @param {boolean} stops */
  draw(at, stops) {
    const number = this.sceneAt(at), scene = this.scenes[number], here = Boolean(scene) && scene.step === at && stops;
    const key = `${number} ${here}`;
    if (key === this.shown) return;
    this.shown = key;
    [...this.scene.children].forEach((each, i) => each.classList.toggle("shown", i === number + 1));
    this.drawQuestion(here && scene.question ? scene : null);
  }

  /** @param {SceneData | null} scene */
  drawQuestion(scene) {
    this.ask.hidden = !scene;
    if (!scene) return this.ask.replaceChildren();
    const name = `${this.data?.lesson}/${this.data?.era}/${scene.key}`, given = this.answers.get(name);
    const buttons = scene.answers.map((answer, i) => {
      const button = make("button", { type: "button", class: given === undefined ? "" : i === scene.right ? "right" : i === given ? "wrong" : "", ...(given === undefined ? {} : { "aria-pressed": String(i === given) }) }, answer);
      button.addEventListener("click", () => {
        this.answers.set(name, i);
        this.drawQuestion(scene);
        const onward = this.ask.querySelector(".onward");
        if (onward instanceof HTMLElement) onward.focus({ preventScroll: true });
      });
      return button;
    });
    this.ask.replaceChildren(make("h3", { id: "question" }, scene.question), make("div", { role: "group", "aria-labelledby": "question", class: "answers" }, ...buttons));
    if (given === undefined) return;
    const onward = make("button", { type: "button", class: "onward" }, "See what happens");
    onward.addEventListener("click", () => this.onward());
    this.ask.append(make("p", { role: "status" }, make("b", {}, given === scene.right ? "Yes. " : "No. "), ...this.glossary.marked(scene.why)), onward);
  }
}

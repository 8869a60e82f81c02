// SPDX-License-Identifier: GPL-2.0-only
// A recording, and the state of the machine at each step of it. ksm/record/recorder.pyx says what its numbers are.
// @ts-check
"use strict";

/** @typedef {{name: string, text: string, kind: string, function: string, kernel: Record<string, string>,
 *   port: Record<string, Record<string, string>>}} StepType the lines' ids, by case; the port's by era, too */
/** @typedef {{title: string, text: string, era: string, truncated: boolean, counters: string[], mms: Record<string, string>,
 *   notes: string[], contents: string[], steps: number[][], lesson?: string, eras?: string[], files?: string[], scenes?: SceneData[]}} RecordingData */
/** @typedef {{key: string, step: number, title: string, text: string, question: string, answers: string[], right: number, why: string}} SceneData */
/** @typedef {{kind: number, v: number[]}} Thing */

const [COUNTER, ROOT, LINK, NODE, ITEM, PTE, FRAME, CURSOR, MM, BYTES] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
const WIDTHS = [2, 3, 5, 6, 6, 4, 5, 3, 4, 2];
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
    /** @type {Map<number, string>} the text of each note, by its step */
    this.noteOf = new Map();
    /** @type {Map<number, number[]>} the pages of each process */
    this.pagesOf = new Map();
    /** What the steps up to here have left: of items by number, of entries by "mm:page", of frames.
     * @type {{at: number, keys: Map<number, string>, places: Map<number, number>, bits: Map<string, number>, frameOf: Map<string, number>,
     *   contentOf: Map<number, number>}} */
    this.known = { at: 0, keys: new Map(), places: new Map(), bits: new Map(), frameOf: new Map(), contentOf: new Map() };
    this.findLives();
    this.seek(0);
  }

  /** What Recording.take() gives: the steps that followed, with what they need of notes, contents and names.
   * @param {{steps: number[][], notes: string[], contents: string[], mms: Record<string, string>}} part */
  extend(part) {
    this.data.steps.push(...part.steps);
    this.data.notes.push(...part.notes);
    this.data.contents.push(...part.contents);
    Object.assign(this.data.mms, part.mms);
    this.findLives();
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

  /** What the counters were before this step. @returns {Record<string, number>} */
  countersBefore() {
    const all = this.counters();
    for (const [, was] of this.undo[this.at] || []) if (was && was.kind === COUNTER) all[this.data.counters[was.v[0]]] = was.v[1];
    return all;
  }

  /** @param {number} mm */
  nameOf(mm) { return this.data.mms[String(mm)] || `mm ${mm}`; }

  /** A page's number among the pages of its process that the recording has, from 1 on. @param {string} key */
  pageName(key) {
    const [mm, page] = key.split(":").map(Number);
    const pages = this.pagesOf.get(mm) || [];
    return `page ${pages.indexOf(page) + 1} of ${this.nameOf(mm)}`;
  }

  /** Go once through the steps that are new: the pages that there are, and what became of each. */
  findLives() {
    const { keys, places, bits, frameOf, contentOf } = this.known;
    /** @param {string} key @param {number} at @param {string} text */
    const note = (key, at, text) => {
      const life = this.lives.get(key) || [];
      if (!life.length || life[life.length - 1].text !== text) life.push({ at, text });
      this.lives.set(key, life);
    };
    for (let at = this.known.at; at < this.length; at++) {
      const step = this.data.steps[at];
      if (step[0] === 0) this.noteOf.set(at, this.data.notes[this.noteOf.size] || "");
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
    }
    this.known.at = this.length;
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

  /** The nodes that the search under way has met, by the tree that it is in, and the tree in which it was last.
   * @returns {{stable: number[], unstable: number[], last: "stable" | "unstable"}} */
  path() {
    /** @type {{stable: number[], unstable: number[], last: "stable" | "unstable"}} */
    const path = { stable: [], unstable: [], last: "stable" };
    for (let i = this.at; i >= 0; i--) {
      const step = this.data.steps[i], name = this.types[step[0]].name;
      if (name === "STABLE_COMPARE" || name === "INSERT_COMPARE") path.stable.unshift(step[3]);
      else if (name === "UNSTABLE_COMPARE") {
        path.unstable.unshift(step[1]);
        path.last = "unstable";
      }
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

  /** The page whose page table entry leads to another frame since this step, or has lost its W; "" if there is none. */
  entryOf() {
    for (const [kind, id, now] of incrementsOf(this.data.steps[this.at])) {
      const was = this.before(id)?.v;
      if (kind === PTE && now && was && (was[2] !== now[2] || (was[3] & BIT_WRITE && !(now[3] & BIT_WRITE)))) return this.pageName(`${now[0]}:${now[1]}`);
    }
    return "";
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
      "{protected}": this.entryOf() ? `Frame ${page} is write-protected: the entry of ${this.entryOf()} loses its W, and nobody can change the frame now.`
        : `Frame ${page} is read-only already: nobody can change it.`,
      "{replaced}": value ? "The page table entry has changed meanwhile: it stays as it is. No merge."
        : `The entry of ${this.entryOf() || "the page"} leads to frame ${page} now; the old frame loses a user.`,
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
      .replace("{left}", value ? "was in the tree of the last pass, which was dropped: now it loses its mark of that tree" : "comes out of the unstable tree")
      .replace("{compared}", equal).replace("{merged}", value ? "could not be merged into" : "maps")
      .replace("{became}", value ? "could not be made one" : `are one now, in frame ${page}`);
    return text[0].toUpperCase() + text.slice(1);
  }
}

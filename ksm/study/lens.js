// SPDX-License-Identifier: GPL-2.0-only
// The era through which the page is read. Choosing one fires "lens" at the document.
// @ts-check
"use strict";

/** @typedef {{eras: string[], file: string, name: string, chosen: string,
 *   lessons: {key: string, title: string, recordings: Record<string, number>}[]}} LensTable */

(() => {
  const root = document.documentElement, select = byId("era", HTMLSelectElement), note = byId("lens-note", HTMLElement);
  /** @type {LensTable} */
  const table = JSON.parse(byId("lens", HTMLElement).textContent || "null");

  /** What the reader has to know of the two sides: which of them is of the chosen era. @param {string} era */
  function told(era) {
    const other = table.name && table.file !== era ? `mm/ksm.c here is ${table.name}: in the era ${era} the port's lines alone are lit. ` : "";
    return `${other}Lines of the port that do not run in the era ${era} are hatched.`;
  }

  const lens = {
    /** The era that is chosen. */
    chosen: table.chosen,
    /** The era of the kernel's file; "" without one, or if none runs as it does. */
    file: table.file,
    eras: table.eras,
    lessons: table.lessons,

    /** Read the page through another era. @param {string} era */
    choose(era) {
      if (!table.eras.includes(era)) return;
      const other = era !== lens.chosen;
      lens.chosen = root.dataset.lens = select.value = era;
      note.textContent = told(era);
      note.hidden = false;
      if (other) document.dispatchEvent(new CustomEvent("lens", { detail: era }));
    },

    /** The number of a lesson's recording in the chosen era; if it does not run in that one, in the nearest newer one, or older one.
     * @param {string} key
     * @param {string} [era] */
    recording(key, era = lens.chosen) {
      const recordings = table.lessons.find((lesson) => lesson.key === key)?.recordings || {};
      const at = table.eras.indexOf(era), nearest = [...table.eras.slice(at), ...table.eras.slice(0, at).reverse()];
      const found = nearest.find((each) => each in recordings);
      return found === undefined ? undefined : recordings[found];
    },

    /** The ids of the lines that took a step: the kernel's, if its file is of that era, and the port's; "" for none.
     * @param {StepType} type @param {number[]} step @param {string} era @returns {[string, string]} */
    lines(type, step, era) {
      // As ksm/study/anchors.py has it.
      const which = type.name === "UNSTABLE_GAVE_UP" ? (step[4] === 1 ? "node" : step[2] < 0 ? "gone" : "same")
        : type.name === "LEFT_UNSTABLE" ? (step[4] ? "mark" : "tree") : "";
      return [(era === table.file && type.kernel[which]) || "", type.port[era]?.[which] || ""];
    },
  };
  window.lens = lens;
  select.addEventListener("change", () => lens.choose(select.value));
  lens.choose(lens.chosen);
})();

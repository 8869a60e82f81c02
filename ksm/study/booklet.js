// SPDX-License-Identifier: GPL-2.0-only
// No twin in the kernel: the page of ksm study.
// The lessons on paper: each scene with its picture. It is there only while the page is printed.
// @ts-check
"use strict";

/** One scene, with the picture of its step. @param {Replay} replay @param {SceneData} scene @param {number} number @returns {HTMLElement} */
function scenePrinted(replay, scene, number) {
  const picture = make("div", { class: "still" }), stage = new Stage(picture, { width: 380 });
  replay.seek(scene.step);
  stage.draw(replay);
  for (const button of picture.querySelectorAll("button, [tabindex]")) button.setAttribute("tabindex", "-1");
  const asked = scene.question ? [make("p", { class: "asked" }, make("b", {}, scene.question), ` ${scene.answers.join(" / ")}`),
    make("p", { class: "answer" }, `${scene.answers[scene.right]}. ${scene.why}`)] : [];
  return make("section", { class: "scene" }, make("h3", {}, `${number}. ${scene.title}`), make("p", {}, scene.text), make("p", { class: "said" }, replay.sentence()), picture, ...asked);
}

/** All lessons that have scenes, one after the other. @param {RecordingData[]} recordings @param {StepType[]} types
 * @param {string} era that the reader has chosen: a recording may be the same in several @returns {HTMLElement} */
function bookletOf(recordings, types, era) {
  const book = make("div", { id: "booklet" }, make("h1", {}, "Kernel samepage merging, in pictures"));
  for (const data of recordings) {
    if (!data.scenes?.length) continue;
    const replay = new Replay(data, types);
    book.append(make("h2", {}, data.title), make("p", { class: "era" }, `On the KSM of Linux ${data.eras?.includes(era) ? era : data.era}.`),
      make("div", { class: "scenes-printed" }, ...data.scenes.map((scene, i) => scenePrinted(replay, scene, i + 1))));
  }
  return book;
}

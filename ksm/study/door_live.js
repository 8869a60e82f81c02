// SPDX-License-Identifier: GPL-2.0-only
// No twin in the kernel: a machine behind a page.
// The machine behind the page of ksm study --serve. The page of a file does not have this.
// @ts-check
"use strict";

/** @returns {DoorMachine} */
function liveMachine() {
  let visit = "";

  /** @param {Record<string, unknown>} action @returns {Promise<DoorAnswer[]>} */
  async function ask(action) {
    let answer;
    try {
      answer = await fetch("do", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ ...action, visit: visit || null }) });
    } catch {
      throw new Error("No answer: ksm study --serve has ended.");
    }
    const data = await answer.json();
    if (!answer.ok) throw new Error(data.error || "The machine does not answer.");
    if (data.visit) visit = data.visit;
    return [data];
  }

  return { live: true, choices: () => [], act: ask, begin: (era) => ask({ do: "begin", era }) };
}

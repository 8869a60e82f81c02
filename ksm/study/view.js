// SPDX-License-Identifier: GPL-2.0-only
// No twin in the kernel: the page of ksm study.
// Which part of the page is shown. It runs before the page is drawn; the address decides.
// @ts-check
"use strict";

/** The part that an address belongs to: #door, #lessons/..., #article/...; all else is a place in the source.
 * @param {string} hash @returns {"door" | "lessons" | "source" | "article"} */
function viewOf(hash) {
  const [name] = hash.slice(1).split(/[/?&]|-(?=.)/);
  return name === "" || name === "door" ? "door" : name === "lessons" || name === "article" ? name : "source";
}

document.documentElement.dataset.view = viewOf(location.hash);

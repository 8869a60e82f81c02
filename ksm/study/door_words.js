// SPDX-License-Identifier: GPL-2.0-only
// No twin in the kernel: the page of ksm study.
// What the front door explains, at the step where it first happens; and what a visitor may try next.
// @ts-check
"use strict";

/** By the name of a step: a title, and a few sentences. @type {Record<string, [string, string]>} */
const DOOR_WORDS = {
  NOTE: ["Pages, frames, and what leads where", "A program's memory is cut into pages of 4096 bytes. Its page table has an entry for each: in which frame of "
    + "physical memory it lies, and whether the program may write to it (W). Two entries may lead to one frame, as after a fork. madvise(MADV_MERGEABLE) is how "
    + "a program lets KSM do the same with pages that became equal by chance."],
  PASS_BEGINS: ["A pass", "ksmd goes through all pages of all processes that have said madvise(MADV_MERGEABLE), and then begins again. One such round "
    + "is a pass. Here it goes when you press the button; a kernel's ksmd looks at 100 pages, sleeps for 20 milliseconds, and so on."],
  CHANGED: ["Why two visits", "At the first visit ksmd takes a checksum of the page, and goes on. A page that somebody writes to all the time would be "
    + "merged, and taken apart again at once. So a page gets into the unstable tree only if its checksum is the same at the next visit."],
  STABLE_MISS: ["What the stable tree is for", "It holds the pages that are merged already, sorted by their bytes. They are write-protected, so they never "
    + "change, and the tree is always in order. A page is searched for here first: a single search finds its equal among millions."],
  UNSTABLE_INSERTED: ["What the unstable tree is for", "A page without an equal waits here, sorted by its bytes, until an equal one comes by. It is not "
    + "write-protected: its owner may write to it, and then it stands in the wrong place. So nobody relies on this tree. It is thrown away after each "
    + "pass, and made anew."],
  UNSTABLE_COMPARE: ["Left or right", "Two pages are compared byte by byte, as memcmp() does. If the page that is scanned is smaller, the search goes to the "
    + "left; if it is greater, to the right. A thousand pages take ten comparisons or a few more, and never more than twenty."],
  UNSTABLE_FOUND: ["An equal is found", "Both pages were in use by their owners until now. Each is write-protected first, so that nobody can change it, and then "
    + "they are compared once more."],
  REPLACED: ["How a page is merged", "The entry in the owner's page table is turned to the other frame. Nothing is copied. The owner reads the same bytes "
    + "at the same address, and its old frame is free."],
  STABLE_INSERTED: ["From the unstable tree to the stable one", "The shared page gets a node in the stable tree. From now on every equal page finds it there."],
  APPENDED: ["Who shares it", "The node keeps a list with an rmap_item for each place that maps the page. So the kernel can find all of them, when the page "
    + "is to be moved or written to disk. pages_sharing counts them, but for one: that many frames are saved."],
  AT_ITS_NODE: ["Merged pages cost little", "ksmd comes to a page that is merged and whose item is at its node: nothing to do."],
  COW: ["What a write does", "The tile had no W: the processor stops the store, and the kernel copies the page into a new frame, turns the writer's entry to it, "
    + "and lets the store go on. The others still have the old page. The program notices nothing, but that this store took longer."],
  LEFT_STABLE: ["ksmd learns late", "Nobody tells ksmd of a write. It finds out when it comes by: then the item leaves the node, and pages_sharing goes down."],
  NODE_STALE: ["The last sharer has gone", "A node does not hold its page. When nobody maps it any more, the frame is free at once, and whoever comes to the node "
    + "next clears it away."],
  BREAK_KSM: ["Taken apart", "madvise(MADV_UNMERGEABLE) asks for a page fault at each merged page, as a write would: a copy for its owner, and an item less."],
  FORKED: ["A fork has the page, too", "fork() copies page tables, not pages. The child maps the merged frame, and ksmd enters it at the node when it comes by."],
  STABLE_FULL: ["max_page_sharing", "To move a merged page, the kernel visits all who map it. So that this stays short, a page may have so many sharers, "
    + "and no more. The next equal page begins a second copy."],
  CHAIN_MADE: ["A chain", "The tree has one place for one content. When there are several merged pages with the same bytes, a chain takes that place, and they "
    + "hang in it. Each is called a dup."],
  SKIPPED: ["Smart scan", "A page that has not merged for some passes is looked at less often. That saves ksmd's time; a merge may come some passes later."],
  ZERO_MERGED: ["The zero page", "With use_zero_pages a page of zeros is not merged with others: it is given the kernel's own page of zeros."],
};

/** What to try next, from what has happened already.
 * @param {Set<string>} seen names of steps @param {Record<string, number>} counters @param {Set<string>} done what the visitor has done */
function doorHint(seen, counters, done) {
  if (!done.has("scan")) return "Begin here: press the button.";
  if (!seen.has("UNSTABLE_FOUND") && !counters.pages_sharing) return "Nothing is merged yet: each page has been looked at once. Let ksmd pass by again.";
  if (!done.has("write")) return "Two of the pages are one now. What if bob writes into his?";
  if (seen.has("COW") && !seen.has("LEFT_STABLE")) return "The writer has a copy now, and pages_sharing still counts it. ksmd does not know yet: let it pass by.";
  if (!done.has("fork")) return "Try a fork: begin anew, or fork now, and let ksmd pass by.";
  if (!done.has("madvise")) return "Take a memory back: madvise(MADV_UNMERGEABLE).";
  if (!done.has("set")) return "Begin anew, set max_page_sharing to 2, and give more than two pages the same text.";
  if (!done.has("era")) return "Choose another era above: in 2.6.38, the KSM of 2011, which step comes first?";
  return "The lessons tell more, and the source shows each step in the kernel's code.";
}

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what is said of KSM.
"""What articles say of pages: which of them merge, what a merge does, and what ends it."""

from ksm.study.article.statement import ALL, NEVER, OUTDATED, RIGHT, SINCE_6_1, SINCE_6_12, UNTIL_6_1, Part, Statement

CANDIDATES = Part("Which pages", (
    Statement(
        "anonymous", "Only anonymous pages merge: no pages of files, and no shared memory.", RIGHT,
        {ALL: "ksmd passes over all others. A page of a private file mapping that was written to is anonymous."},
        ("anonymous", "6.12", "kurts"), "scan_get_next_rmap_item"),
    Statement(
        "madvise", "A program has to ask for it with madvise(MADV_MERGEABLE), mapping by mapping.", OUTDATED,
        {UNTIL_6_1: "There is no other way.",
         SINCE_6_12: "prctl(PR_SET_MEMORY_MERGE) asks for all of a process, now and later, and for its children."},
        ("madvise", "6.12", "oscars"), "ksm_enable_merge_any", "6.4"),
    Statement(
        "unmergeable", "MADV_UNMERGEABLE takes it back, and merged pages become separate again at once.", RIGHT,
        {ALL: "A page fault is asked for at each merged page. The rmap_items stay until ksmd comes by."},
        ("madvise", "6.12", "copied"), "unmerge_ksm_pages"),
    Statement(
        "huge", "Huge pages do not merge.", OUTDATED,
        {"2.6.38 6.1": "A huge page is split when a part of it is to be merged. That began with 2.6.38.",
         SINCE_6_12: "The same. And parts of zeros become the zero page when a huge page is split, whatever use_zero_pages says."},
        ("huge", "6.12", "split"), "try_to_merge_one_page", "2.6.38"),
    Statement(
        "zeros", "Pages of zeros are merged as all others.", OUTDATED,
        {"2.6.38": "They are ordinary contents.",
         "6.1": "With use_zero_pages at 1 they become the zero page, and nothing counts them.",
         SINCE_6_12: "With use_zero_pages at 1 they become the zero page, and ksm_zero_pages counts them."},
        ("zero", "6.12", "first"), "try_to_merge_with_zero_page", "4.11"),
    Statement(
        "every-page", "Each full scan looks at every page.", OUTDATED,
        {UNTIL_6_1: "At each one, however old it is.",
         SINCE_6_12: "Smart scan skips pages that did not merge in their first visits, up to eight passes in a row."},
        ("smart", "6.12", "first-skip"), "should_skip_rmap_item", "6.7"),
    Statement(
        "speed", "ksmd scans pages_to_scan pages, then sleeps for sleep_millisecs. Both are for the operator to set.", OUTDATED,
        {UNTIL_6_1: "100 pages and 20 milliseconds at first.",
         SINCE_6_12: "Still so; but with advisor_mode scan-time the kernel chooses pages_to_scan itself."},
        ("advisor", "6.12", "on"), "scan_time_advisor", "6.8"),
))

MERGING = Part("Merging", (
    Statement(
        "whose-frame", "The page that was found in the unstable tree becomes the merged page, and the scanned page is mapped to it.", NEVER,
        {ALL: """It is the other way round. The frame of the scanned page becomes the merged page; the entry of the page that was in the
         tree is made to lead there, and its frame is free."""},
        ("equal", "6.12", "swung"), "try_to_merge_two_pages"),
    Statement(
        "moves", "Two equal pages leave the unstable tree, and their page goes into the stable tree.", RIGHT,
        {ALL: """The item that was in the tree comes out of it; the scanned one never was in. The merged frame gets a new node, and both
         items."""},
        ("equal", "6.12", "two-sharers"), "stable_tree_append"),
    Statement(
        "counters", "pages_shared counts the frames that are shared, pages_sharing how many more places share them.", RIGHT,
        {"2.6.38": "pages_sharing is the number of frames that are saved.",
         SINCE_6_1: "pages_sharing is the number of frames that are saved, without those that the zero page has saved."},
        ("equal", "6.12", "two-sharers"), "stable_tree_append"),
    Statement(
        "swap", "Merged pages are locked in memory, and cannot be swapped out.", OUTDATED,
        {ALL: "They are swapped as others are: the items at the stable node lead to all entries. Only the KSM of before 2.6.33 could not."},
        ("break-cow", "6.12", "one-frame"), "rmap_walk_ksm", "2.6.33*"),
))

BREAKING = Part("Breaking", (
    Statement(
        "copy-on-write", "A write to a merged page is a page fault, and the writer gets a copy of his own.", RIGHT,
        {ALL: "do_wp_page() in mm/memory.c does it, as after a fork. The others keep the merged frame."},
        ("write", "6.12", "cow"), "do_wp_page"),
    Statement(
        "break-cow", "When a process writes to a merged page, KSM calls break_cow().", NEVER,
        {ALL: "break_cow() undoes a merge that could not be completed. KSM is not told of a write: ksmd sees it when it comes by."},
        ("break-cow", "6.12", "write"), "break_cow"),
    Statement(
        "break-ksm", "break_ksm() breaks a merged page with a write fault.", OUTDATED,
        {UNTIL_6_1: "The copy is writable where the mapping is, and counts as dirty.",
         SINCE_6_12: "With an unshare fault: the copy is read-only and clean, and the next write takes one more fault."},
        ("madvise", "2.6.38", "asked-back"), "break_ksm", "6.2"),
    Statement(
        "at-once", "After a write, pages_sharing goes down at once.", NEVER,
        {ALL: "The writer's item stays at the stable node, and is counted, until ksmd comes to its page."},
        ("write", "6.12", "not-told"), "remove_rmap_item_from_tree"),
))

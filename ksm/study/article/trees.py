# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what is said of KSM.
"""What articles say of the two trees, and of how pages are compared."""

from ksm.study.article.statement import ALL, NEVER, OUTDATED, RIGHT, SINCE_6_1, SINCE_6_12, UNTIL_6_1, Part, Statement

TREES = Part("The two trees", (
    Statement(
        "two-trees", "KSM keeps its pages in two red-black trees, the stable and the unstable one.", OUTDATED,
        {"2.6.38": "There are two roots, and no more.",
         SINCE_6_1: """With merge_across_nodes at 0 there are two for each NUMA node. At 1, which is what a machine begins with, there are
         two."""},
        ("numa", "6.12", "second-tree"), "get_kpfn_nid", "3.9"),
    Statement(
        "bound", "A search takes 2 log2(n + 1) comparisons at most, if n pages are in the tree.", RIGHT,
        {ALL: """No path of a red-black tree is longer. A comparison is a memcmp() of two pages: it may end at the first byte, or at the
         last one. So the number of comparisons is no measure of the time."""},
        ("equal", "6.12", "rotation"), "unstable_tree_search_insert"),
    Statement(
        "stable", "The stable tree has the merged pages. They are write-protected, so their order holds.", RIGHT,
        {ALL: """All entries that map a merged page are read-only, whatever the owner may do. A page that nobody maps any more is freed,
         and its node stays until somebody meets it."""},
        ("equal", "6.12", "node"), "stable_tree_insert"),
    Statement(
        "unstable", "The pages in the unstable tree can be written to, and then the tree is out of order.", RIGHT,
        {ALL: "A write is no fault there, and nobody is told. A search may miss its equal, and no page is merged without being compared."},
        ("unstable", "6.12", "rotten"), "unstable_tree_search_insert"),
    Statement(
        "balance", "The unstable tree stays balanced even if its contents have changed.", RIGHT,
        {ALL: "The colours of the nodes keep it balanced, and they do not depend on what the pages hold."},
        ("unstable", "6.12", "astray"), "unstable_tree_search_insert"),
    Statement(
        "anew", "After each full scan the unstable tree is thrown away and built anew.", RIGHT,
        {ALL: """At the beginning of a pass its root is set to nothing. The rmap_items keep their marks, by which they tell that they are
         of the last pass."""},
        ("unstable", "6.12", "dropped"), "scan_get_next_rmap_item"),
    Statement(
        "one-node", "Each content has one node in the stable tree.", OUTDATED,
        {"2.6.38": "If an equal node is found where a new one should go, the merge is undone.",
         SINCE_6_1: "A content that more than max_page_sharing pages have gets a chain of nodes at one place of the tree."},
        ("chain", "6.12", "chain"), "alloc_stable_node_chain", "4.13"),
    Statement(
        "no-limit", "Any number of pages may share one frame.", OUTDATED,
        {"2.6.38": "As many as there are.",
         SINCE_6_1: "max_page_sharing, 256 at first: whoever moves or swaps a merged page has to find all that map it."},
        ("chain", "6.12", "full"), "is_page_sharing_candidate", "4.13"),
    Statement(
        "reference", "A merged page stays in memory until KSM lets go of it.", NEVER,
        {ALL: """A stable node holds no reference on its page. When the last process unmaps it or writes to it, the frame is free at once,
         and the node is stale."""},
        ("write", "6.12", "stale"), "ksm_get_folio"),
))

COMPARING = Part("Checksums and comparisons", (
    Statement(
        "checksum", "The checksum of a page is jhash2() over its words, beginning with 17.", OUTDATED,
        {"2.6.38": "jhash2() over 1,024 words, from 17 on.", SINCE_6_1: "The lower half of xxh64(), from 0 on."},
        ("equal", "2.6.38", "checksum"), "calc_checksum", "5.0*"),
    Statement(
        "kept", "The checksum is kept in the page's rmap_item, as oldchecksum.", RIGHT,
        {"2.6.38 6.1 6.12": "It outlives a merge and a copy on write.",
         "7.3": "While the page is merged, its index lies over it. An item that leaves its node has no checksum."},
        ("equal", "6.12", "checksum"), "cmp_and_merge_page"),
    Statement(
        "hash", "Pages with the same checksum are looked up by it, and merged.", NEVER,
        {ALL: "The trees are ordered by the bytes of the pages. A checksum is only compared with that of the same page at its last visit."},
        ("equal", "6.12", "left-or-right"), "cmp_and_merge_page"),
    Statement(
        "volatile", "A page whose checksum has changed since the last visit is too volatile for the unstable tree.", RIGHT,
        {ALL: "The new checksum is remembered, and the page is left alone until the next visit."},
        ("changing", "6.12", "again"), "cmp_and_merge_page"),
    Statement(
        "stable-first", "Each page is first searched for in the stable tree, and only then its checksum is computed.", OUTDATED,
        {UNTIL_6_1: "So a page that is equal to a merged one merges at its first visit, even if it changes all the time.",
         SINCE_6_12: "The checksum comes first. A page that is equal to a merged one merges at its second visit, if it did not change."},
        ("equal", "2.6.38", "still"), "cmp_and_merge_page", "6.11"),
    Statement(
        "memcmp", "memcmp_pages() compares two pages byte by byte: smaller goes to the left, greater to the right.", RIGHT,
        {ALL: "The sign of memcmp() over 4,096 bytes decides. Bytes are unsigned, and the first that differs counts."},
        ("equal", "6.12", "left-or-right"), "memcmp_pages"),
    Statement(
        "once-more", "Before two pages become one they are write-protected, and compared once more.", RIGHT,
        {ALL: "Until then either of them could be written to. The last comparison is what makes merging safe."},
        ("equal", "6.12", "protected"), "try_to_merge_one_page"),
))

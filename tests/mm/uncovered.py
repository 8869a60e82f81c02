# SPDX-License-Identifier: GPL-2.0-only
"""The lines of ksm/mm/ksm.pyx that no test runs, with the reason for each. Prints the line coverage, and fails when other lines are missed.

    tox -e coverage
"""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path("ksm/mm/ksm.pyx")

RACE = "Another thread must act between two steps, and no lock that a test can hold makes it come just then. tests/threads tries."
DAEMON = "ksmd is a thread that Python does not know, and coverage counts none of its lines. tests/threads and test_ksm05 run it."
CALLOC = "calloc() or pthread_create() of the C library fails: neither can be told to."
SPLIT = "A huge page is split before."
NEVER = "What it asks for does not exist here: "

# (function, lines, reason). A line may be named as often as it stands in the function. None: all lines.
Uncovered = list[tuple[str, list[str] | None, str]]
UNCOVERED: Uncovered = [
    ("ksm_slab_init", ["return -ENOMEM", "kmem_cache_destroy(g.rmap_item_cache)", "return -ENOMEM",
                       "kmem_cache_destroy(g.stable_node_cache)", "kmem_cache_destroy(g.rmap_item_cache)", "return -ENOMEM"], CALLOC),
    ("ksm_init", ["return -ENOMEM", "free(g)", "return err"], CALLOC),
    ("ksm_exit_machine", ["return"], CALLOC),
    ("merge_across_nodes_store", ["err = -ENOMEM"], CALLOC),
    ("run_store", ["return err"], CALLOC),
    ("vma_ksm_compatible", ["return False"], NEVER + "DAX."),
    ("ksm_get_folio_at", ["return NULL", "folio_put(g.m, folio)", "return NULL", "folio_unlock(folio)", "folio_put(g.m, folio)",
                          "return NULL"], RACE),
    ("write_protect_pte", ["set_pte_at(mm, pvmw.address, pvmw.pte, entry)", "return -EFAULT"],
     "folio_maybe_dma_pinned() is true only with references that the count before has found already."),
    ("write_protect_page", ["return err"], SPLIT),
    ("replace_pte", ["return -EFAULT", "pte_unmap_unlock(ptep, ptl)", "return -EFAULT"], RACE),
    ("replace_page", ["return err", "return err", "return err"],
     "write_protect_page() has found the entry under the same mmap_lock; only a huge page put together there could change that."),
    ("try_to_merge_one_page", ["return err"], "A page that was found anonymous is so until it is freed, and the caller has a reference."),
    ("stable_tree_search", ["again = True", "break"], RACE),
    ("stable_tree_insert", ["again = True", "break"], RACE),
    ("ksm_next_page_pmd_entry", ["return 0", "spin_unlock(ptl)", "return 0", "spin_unlock(ptl)", "return 0"], RACE),
    ("ksm_next_page_pmd_entry", ["spin_unlock(ptl)", "return 0"], NEVER + "huge pages that are not anonymous."),
    ("ksm_next_page_pmd_entry", ["spin_unlock(ptl)", "return 0"], NEVER + "a huge zero page."),
    ("scan_get_next_rmap_item", ["return NULL"], RACE),
    ("ksmd_should_run", None, DAEMON),
    ("monotonic_ns", None, DAEMON),
    ("kthread_should_stop", None, DAEMON),
    ("ksmd_sleep", None, DAEMON),
    ("ksmd_wait", None, DAEMON),
    ("ksm_scan_thread", None, DAEMON),
    ("ksm_disable", None, NEVER + "only the virtual machines of s390 call it."),
    ("ksm_might_need_to_copy", ["return folio"], SPLIT),
    ("ksm_might_need_to_copy", ["return folio"], "Reading swap never fails, so what is in the swap cache is up to date."),
    ("rmap_walk_ksm", ["rwc.contended = True", "return"], "None here asks not to wait (try_lock); the kernel's folio_referenced() does."),
    ("rmap_walk_ksm", ["continue"], "No walk here leaves out vmas (invalid_vma): the kernel's does for cgroups and for idle pages."),
]


def functions(source: str) -> Iterator[tuple[str, str]]:
    """Of each line, the function that it is in and its text without comment."""
    name = ""
    for line in source.splitlines():
        if line.startswith("cdef ") and "(" in line:
            name = line.split("(")[0].split()[-1].lstrip("*")
        yield name, line.split("  #")[0].strip()


def unexplained(source: str, missed: set[int], uncovered: Uncovered = UNCOVERED) -> list[int]:
    """Of the missed lines, by number, those that the table does not name."""
    whole = {name for name, lines, _ in uncovered if lines is None}
    named = Counter((name, line) for name, lines, _ in uncovered for line in lines or ())
    rest = []
    for number, place in enumerate(functions(source), 1):
        if number not in missed or place[0] in whole:
            continue
        if named[place]:
            named[place] -= 1
        else:
            rest.append(number)
    return rest


def main() -> int:
    import coverage

    data = coverage.Coverage(config_file=".coveragerc")
    data.load()
    _, statements, _, missed, _ = data.analysis2(str(SOURCE))
    source = SOURCE.read_text()
    rest = unexplained(source, set(missed))
    walked = len(statements) - len(missed)
    print(f"{SOURCE}: {walked} of {len(statements)} lines, {100 * walked / len(statements):.1f} %; of {len(missed)} missed lines "
          f"{len(missed) - len(rest)} are explained")
    lines = source.splitlines()
    for number in rest:
        print(f"{SOURCE}:{number}: {lines[number - 1].strip()}")
    return 1 if rest else 0


if __name__ == "__main__":
    sys.exit(main())

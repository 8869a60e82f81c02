# SPDX-License-Identifier: GPL-2.0-only
"""An article of 2011, annotated: each statement has a scene that shows it, and a small program that shows that its verdict is so."""

import errno
import math
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from played import ITEM, LINK, PTE, counters, machine_of, of_kind, states

import ksm
from ksm.cli.group import main
from ksm.study.article import PARTS, STATEMENTS, VERDICTS
from ksm.study.article.words import as_html, as_markdown, scene_title
from ksm.study.eras import ERAS
from ksm.study.lessons import record_lesson
from ksm.study.pairing import read_port

pytestmark = pytest.mark.once

DOCS = Path(__file__).parents[2] / "docs/article.md"
PAGE = ksm.PAGE_SIZE
OLD, NEW, NOT_2011 = ERAS[:2], ERAS[2:], ERAS[1:]
KSM, WRITABLE = 2, 64       # bits of an entry in a recording


# The text

def test_each_statement_is_whole():
    assert 20 <= len(STATEMENTS) <= 35 and sum(len(part.statements) for part in PARTS) == len(STATEMENTS)
    assert len({statement.key for statement in STATEMENTS}) == len(STATEMENTS)
    for statement in STATEMENTS:
        assert statement.verdict in VERDICTS and bool(statement.since) == (statement.verdict == "outdated"), statement.key
        assert sorted(era for eras in statement.so for era in eras.split()) == sorted(ERAS), statement.key
        assert re.fullmatch(r"(\d\.\d+(\.\d+)?\*?)?", statement.since)


def test_each_statement_has_a_scene_that_is_there():
    for statement in STATEMENTS:
        key, era, scene = statement.scene
        assert scene in [each["key"] for each in record_lesson(key, era)["scenes"]], statement.key
        assert statement.address == f"#lessons/{key}/{era}/{scene}" and era in scene_title(statement)


def test_each_statement_names_a_function_of_the_kernel():
    ours = {"do_wp_page", "memcmp_pages"}       # in mm/memory.c and mm/util.c
    assert {statement.function for statement in STATEMENTS} <= read_port().functions.keys() | ours


def test_the_docs_are_made_from_it():
    text = DOCS.read_text()
    assert text.startswith("# An article of 2011, annotated\n\n") and text.split("\n\n", 1)[1] == as_markdown(), (
        "docs/article.md is made by: python -m ksm.study.article")


def test_in_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    result = CliRunner().invoke(main, ["study", "--article"], prog_name="ksm", catch_exceptions=False)
    lines = result.stdout.splitlines()
    assert result.exit_code == 0 and max(map(len, lines)) <= 90 and "\x1b" not in result.stdout and result.stdout.isascii()
    flat = " ".join(result.stdout.split())
    assert all(statement.says in flat and " ".join(text.split()) in flat for statement in STATEMENTS for text in statement.so.values())
    assert not [line for line in lines if line != line.rstrip()]
    refused = CliRunner().invoke(main, ["study", "--article", "--kernel", os.devnull], prog_name="ksm")
    assert refused.exit_code == 2 and "--article goes alone" in refused.stderr


def test_in_the_page():
    text = as_html({"break_cow"}, {"equal"})
    assert text.count('class="statement"') == len(STATEMENTS)
    assert '<a href="#f-break_cow">' in text and '<a href="#f-calc_checksum">' not in text
    assert 'href="#lessons/equal/6.12/swung"' in text and 'href="#lessons/write' not in text


# What is so, on a machine

def fill(process, texts, madvise=True, **more):
    """New memory with a page for each text: its address."""
    start = process.mmap(len(texts) * PAGE, **more)
    for number, text in enumerate(texts):
        process.write(start + number * PAGE, text if isinstance(text, bytes) else text.encode())
    if madvise:
        process.madvise(start, len(texts) * PAGE, ksm.MADV_MERGEABLE)
    return start


def quiet(machine):
    if machine.era in NEW:
        machine.ksm.smart_scan = 0
    return machine


def merged(machine):
    return machine.ksm.pages_shared, machine.ksm.pages_sharing


def frames(process, start, pages=1):
    return [word >> ksm.PAGE_FLAGS_SHIFT for word in process.page_table(start, pages * PAGE)]


def is_ksm(process, start):
    return bool(process.page_table(start, PAGE)[0] & ksm.PAGE_KSM)


def two_merged(machine):
    """Two processes whose only page is one frame: the processes, and the addresses."""
    processes = [machine.spawn(name) for name in ("alice", "bob")]
    starts = [fill(process, ["the same"]) for process in processes]
    machine.ksm.scan(passes=2)
    assert merged(machine) == (1, 1)
    return processes, starts


def recorded(machine, life):
    with machine.record() as recording:
        life()
    return [(name, list(step), dict(things)) for name, step, things in states(recording.data())]


def depth(links, root):
    """How many nodes are on the longest way down a tree."""
    if root not in links:
        return 0
    return 1 + max(depth(links, links[root][1]), depth(links, links[root][2]))


def unstable_tree(things):
    """The links of the unstable tree by item, and its root."""
    items = {key: values for key, (kind, values) in things.items() if kind == ITEM}
    links = {values[0]: values[1:] for values in of_kind(things, LINK) if values[0] in items}
    roots = [key for key, values in links.items() if values[0] not in links]
    return links, roots[0] if roots else None


def anonymous(era):
    with machine_of(era) as machine:
        process = machine.spawn()
        shared = fill(process, ["the same"] * 2, flags=ksm.MAP_SHARED | ksm.MAP_ANONYMOUS)
        own = fill(process, ["the same"] * 2)
        machine.ksm.scan(passes=3)
        assert merged(machine) == (1, 1) and (machine.ksm.pages_unshared, machine.ksm.pages_volatile) == (0, 0)
        assert is_ksm(process, own) and not is_ksm(process, shared)


def madvise(era):
    with machine_of(era) as machine:
        process = machine.spawn()
        fill(process, ["the same"] * 2, madvise=False)
        machine.ksm.scan(passes=3)
        assert merged(machine) == (0, 0)
        if era in OLD:
            with pytest.raises(OSError, match="Invalid argument") as caught:
                process.prctl(ksm.PR_SET_MEMORY_MERGE, 1)
            assert caught.value.errno == errno.EINVAL
            return
        process.prctl(ksm.PR_SET_MEMORY_MERGE, 1)
        machine.ksm.scan(passes=2)
        assert merged(machine) == (1, 1)
        child = process.fork()
        assert child.prctl(ksm.PR_GET_MEMORY_MERGE) == 1


def unmergeable(era):
    with machine_of(era) as machine:
        (alice, bob), (at_alice, at_bob) = two_merged(machine)
        alice.madvise(at_alice, PAGE, ksm.MADV_UNMERGEABLE)
        assert not is_ksm(alice, at_alice) and is_ksm(bob, at_bob) and merged(machine) == (1, 1)
        machine.ksm.scan()
        assert merged(machine) == (1, 0)


def huge(era):
    size = 2 << 20
    with ksm.Machine(memory="16M", max_memory="16M", clock="manual", plain=True, era=era, transparent_hugepage="madvise") as machine:
        process = machine.spawn()
        start = (process.mmap(2 * size) + size - 1) & -size
        process.madvise(start, size, ksm.MADV_HUGEPAGE)
        process.write(start, b"a map")
        assert process.page_table(start, PAGE)[0] & ksm.PAGE_THP
        fill(machine.spawn(), ["a map"])
        process.madvise(start, PAGE, ksm.MADV_MERGEABLE)
        machine.ksm.scan()
        assert process.page_table(start + PAGE, PAGE)[0] & ksm.PAGE_THP      # looked at, and still whole
        machine.ksm.scan()
        assert merged(machine) == (1, 1)
        other = process.page_table(start + PAGE, PAGE)[0]
        assert not other & ksm.PAGE_THP and bool(other & ksm.PAGE_ZERO) == (era in NEW)


def zeros(era):
    for use in ([0, 1] if era in NOT_2011 else [0]):
        with machine_of(era) as machine:
            if use:
                machine.ksm.use_zero_pages = 1
            process = machine.spawn()
            start = fill(process, [b"\0"] * 3)
            machine.ksm.scan(passes=2)
            assert merged(machine) == ((0, 0) if use else (1, 2))
            assert bool(process.page_table(start, PAGE)[0] & ksm.PAGE_ZERO) == bool(use)
            if era in NEW:
                assert machine.ksm.ksm_zero_pages == (3 if use else 0)


def every_page(era):
    with machine_of(era) as machine:
        fill(machine.spawn(), ["one", "two"])
        found = recorded(machine, lambda: machine.ksm.scan(passes=20))
        visits = sum(name == "NEXT" for name, _, _ in found)
        assert visits == (40 if era in OLD else 2 * len([0, 1, 2, 3, 5, 8, 13]))


def speed(era):
    with machine_of(era) as machine:
        assert (machine.ksm.pages_to_scan, machine.ksm.sleep_millisecs) == (100, 20)
        assert ("advisor_mode" in machine.ksm.names()) == (era in NEW)
        if era in NEW:
            machine.ksm.advisor_mode = "scan-time"
            with pytest.raises(OSError, match="Invalid argument"):
                machine.ksm.pages_to_scan = 1000


def two_trees(era):
    with ksm.Machine(memory="8M", max_memory="8M", clock="manual", plain=True, era=era, nodes=2) as machine:
        if era in NOT_2011:
            machine.ksm.merge_across_nodes = 0
        for node in (0, 1):
            fill(machine.spawn(node=node), ["the same"])
        machine.ksm.scan(passes=3)
        assert merged(machine) == ((0, 0) if era in NOT_2011 else (1, 1))


def bound(era):
    with machine_of(era) as machine:
        fill(machine.spawn(), [f"{number * 7919 % 1000:04}" for number in range(100)])
        machine.ksm.scan()
        found = recorded(machine, lambda: machine.ksm.scan())
        longest = max(depth(*unstable_tree(things)) for name, _, things in found if name == "UNSTABLE_INSERTED")
        assert 7 <= longest <= 2 * math.log2(101)


def stable(era):
    with machine_of(era) as machine:
        found = recorded(machine, lambda: two_merged(machine))
        entries = [values[3] for values in of_kind(found[-1][2], PTE)]
        assert len(entries) == 2 and all(bits & KSM and not bits & WRITABLE for bits in entries)


def unstable(era):
    with machine_of(era) as machine:
        process = machine.spawn()
        start = fill(process, ["one", "two", "three"])
        machine.ksm.scan(passes=2)
        assert machine.ksm.pages_unshared == 3
        faults = machine.vmstat()["pgfault"]
        process.write(start, b"zero")
        assert machine.vmstat()["pgfault"] == faults and machine.ksm.pages_unshared == 3


def balance(era):
    with machine_of(era) as machine:
        process = machine.spawn()
        texts = [f"{number:03}" for number in range(100)]
        start = fill(process, texts)
        machine.ksm.scan()
        machine.ksm.scan(pages=50)
        for number in range(50):
            process.write(start + number * PAGE, f"{999 - number:03}".encode())
        found = recorded(machine, lambda: machine.ksm.scan(pages=50))
        assert depth(*unstable_tree([things for name, _, things in found if name == "UNSTABLE_INSERTED"][-1])) <= 2 * math.log2(101)


def anew(era):
    with machine_of(era) as machine:
        fill(machine.spawn(), ["one", "two", "three"])
        found = recorded(machine, lambda: machine.ksm.scan(passes=3))
        trees = {(name, number): len(unstable_tree(things)[0]) for number, (name, _, things) in enumerate(found)
                 if name in ("PASS_BEGINS", "PASS_ENDS")}
        assert list(trees.values()) == [0, 0, 0, 3, 0, 3]


def one_node(era):
    with machine_of(era) as machine:
        quiet(machine)
        if era in NOT_2011:
            machine.ksm.max_page_sharing = 2
        fill(machine.spawn(), ["the same"] * 6)
        machine.ksm.scan(passes=3)
        if era in NOT_2011:
            assert (machine.ksm.stable_node_chains, machine.ksm.stable_node_dups, machine.ksm.pages_shared) == (1, 3, 3)
        else:
            assert merged(machine) == (1, 5)


def no_limit(era):
    with machine_of(era) as machine:
        fill(quiet(machine).spawn(), ["the same"] * 300)
        machine.ksm.scan(passes=3)
        assert merged(machine) == ((1, 299) if era == "2.6.38" else (2, 298))


def reference(era):
    with machine_of(era) as machine:
        processes, starts = two_merged(machine)
        free = machine.free_pages()
        for process, start in zip(processes, starts, strict=True):
            process.madvise(start, PAGE, ksm.MADV_DONTNEED)
        machine.lru_add_drain_all()
        assert machine.free_pages() == free + 1 and machine.ksm.pages_shared == 1


def checksum(era):
    with machine_of(era) as machine:
        fill(machine.spawn(), [b"\0"])
        (found,) = [step[4] for name, step, _ in recorded(machine, lambda: machine.ksm.scan()) if name == "CHANGED"]
        assert found == (0x61574272 if era == "2.6.38" else 0x32D8BBDB)


def kept(era):
    """Bytes that are written once more, and are the same, make a page of its own. It merges again as soon as its checksum is known."""
    with machine_of(era) as machine:
        (alice, _), (start, _) = two_merged(quiet(machine))
        alice.write(start, b"the same")
        assert not is_ksm(alice, start)
        machine.ksm.scan()
        assert is_ksm(alice, start) == (era != "7.3")
        machine.ksm.scan()
        assert is_ksm(alice, start)


def ordered(era):
    """The unstable tree is in the order of the bytes, which is not that of the checksums."""
    with machine_of(era) as machine:
        texts = [b"\x01", b"\x7f", b"\x80", b"\xff", b"a", b"b", b"\x00\x01"]
        process = machine.spawn()
        start = fill(process, texts)
        machine.ksm.scan()
        found = recorded(machine, lambda: machine.ksm.scan())
        things = [things for name, _, things in found if name == "UNSTABLE_INSERTED"][-1]
        links, root = unstable_tree(things)
        items = {key: values for key, (kind, values) in things.items() if kind == ITEM}

        def walk(key):
            return [] if key not in links else [*walk(links[key][1]), key, *walk(links[key][2])]

        order = [(items[key][1] * PAGE - start) // PAGE for key in walk(root)]
        by_bytes = sorted(range(len(texts)), key=lambda number: process.read(start + number * PAGE, PAGE))
        by_checksum = sorted(range(len(texts)), key=lambda number: items[walk(root)[order.index(number)]][4])
        assert order == by_bytes != by_checksum


def volatile(era):
    with machine_of(era) as machine:
        process = machine.spawn()
        start = fill(process, ["0", "a", "b"])
        for number in range(5):
            process.write(start, f"{number}".encode())
            machine.ksm.scan()
            assert machine.ksm.pages_volatile >= 1
        assert machine.ksm.pages_unshared < 3
        machine.ksm.scan(passes=2 if era in OLD else 9)
        assert machine.ksm.pages_unshared + (machine.ksm.pages_volatile if era in NEW else 0) == 3


def stable_first(era):
    """A page gets the contents of a merged page just before ksmd comes to it."""
    with machine_of(era) as machine:
        process = quiet(machine).spawn()
        start = fill(process, ["the same", "the same", "another"])
        machine.ksm.scan(passes=3)
        process.write(start + 2 * PAGE, b"the same")
        machine.ksm.scan()
        assert merged(machine) == ((1, 2) if era in OLD else (1, 1))
        machine.ksm.scan()
        assert merged(machine) == (1, 2)


def once_more(era):
    with machine_of(era) as machine:
        found = recorded(machine, lambda: two_merged(machine))
        names = [name for name, _, _ in found]
        at = names.index("REPLACED")
        # Both are read-only before the entry is changed.
        assert names[:at].count("WRITE_PROTECTED") == 2
        assert not any(values[3] & WRITABLE for values in of_kind(found[at - 1][2], PTE))


def whose_frame(era):
    with machine_of(era) as machine:
        alice, bob = machine.spawn(), machine.spawn()
        starts = [fill(process, ["the same"]) for process in (alice, bob)]
        (in_tree,), (scanned,) = frames(alice, starts[0]), frames(bob, starts[1])
        machine.ksm.scan(passes=2)
        assert frames(alice, starts[0]) == frames(bob, starts[1]) == [scanned] != [in_tree]


def moves(era):
    with machine_of(era) as machine:
        found = recorded(machine, lambda: two_merged(machine))
        before = next(things for name, _, things in found if name == "UNSTABLE_FOUND")
        assert counters(before)["pages_unshared"] == 1
        end = counters(found[-1][2])
        assert (end["pages_unshared"], end["pages_shared"], end["pages_sharing"]) == (0, 1, 1)
        assert sum(name == "LEFT_UNSTABLE" for name, _, _ in found) == 1


def counting(era):
    with machine_of(era) as machine:
        fill(machine.spawn(), ["the same"] * 5)
        free = machine.free_pages()
        machine.ksm.scan(passes=2)
        machine.lru_add_drain_all()
        assert merged(machine) == (1, 4) and machine.free_pages() == free + 4


def swap(era):
    with machine_of(era, swap="256K") as machine:
        processes, starts = two_merged(machine)
        machine.lru_add_drain_all()
        assert processes[0].swap_out(starts[0], PAGE) == 1
        assert [process.page_table(start, PAGE)[0] & ksm.PAGE_SWAPPED for process, start in zip(processes, starts, strict=True)] == [
            ksm.PAGE_SWAPPED] * 2
        assert processes[1].read(starts[1], 8) == b"the same"


def copy_on_write(era):
    with machine_of(era) as machine:
        (alice, bob), (at_alice, at_bob) = two_merged(machine)
        alice.write(at_alice, b"mine")
        assert machine.vmstat()["cow_ksm"] == 1 and not is_ksm(alice, at_alice) and is_ksm(bob, at_bob)
        assert (alice.read(at_alice, 4), bob.read(at_bob, 8)) == (b"mine", b"the same")


def break_cow(era):
    with machine_of(era) as machine:
        (alice, _), (start, _) = two_merged(machine)
        names = [name for name, _, _ in recorded(machine, lambda: alice.write(start, b"mine"))]
        assert "COW" in names and "BREAK_COW" not in names and "BREAK_KSM" not in names


def break_ksm(era):
    with machine_of(era) as machine:
        (alice, _), (start, _) = two_merged(machine)
        alice.madvise(start, PAGE, ksm.MADV_UNMERGEABLE)
        faults = machine.vmstat()["pgfault"]
        alice.write(start, b"mine")
        assert machine.vmstat()["pgfault"] - faults == (0 if era in OLD else 1)


def at_once(era):
    with machine_of(era) as machine:
        (alice, _), (start, _) = two_merged(machine)
        alice.write(start, b"mine")
        assert merged(machine) == (1, 1)
        machine.ksm.scan()
        assert merged(machine) == (1, 0)


CHECKS = {
    "anonymous": anonymous, "madvise": madvise, "unmergeable": unmergeable, "huge": huge, "zeros": zeros, "every-page": every_page,
    "speed": speed, "two-trees": two_trees, "bound": bound, "stable": stable, "unstable": unstable, "balance": balance, "anew": anew,
    "one-node": one_node, "no-limit": no_limit, "reference": reference, "checksum": checksum, "kept": kept, "hash": ordered,
    "volatile": volatile, "stable-first": stable_first, "memcmp": ordered, "once-more": once_more, "whose-frame": whose_frame,
    "moves": moves, "counters": counting, "swap": swap, "copy-on-write": copy_on_write, "break-cow": break_cow, "break-ksm": break_ksm,
    "at-once": at_once,
}


def test_each_statement_is_checked():
    assert list(CHECKS) == [statement.key for statement in STATEMENTS]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("key", CHECKS)
def test_what_is_so(key, era):
    CHECKS[key](era)

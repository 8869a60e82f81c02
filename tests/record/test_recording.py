# SPDX-License-Identifier: GPL-2.0-only
"""A recording has the machine's state after each step, and recording changes nothing."""

import errno
import itertools
import json
import threading

import pytest
from played import BYTES, FRAME, ITEM, LINK, NODE, PTE, ROOT, WIDTHS, counters, machine_of, of_kind, states

import ksm
from ksm.record.recorder import COUNTERS
from ksm.record.recording import RecordingError, load
from ksm.study.lessons import LESSONS, pages, record_lesson
from ksm.study.steps import NAMES, STEPS

PAGE = ksm.PAGE_SIZE


def of_machine(machine):
    wanted = {name: int(machine.ksm.show(name)) for name in machine.ksm.names() if name in COUNTERS}
    return {**wanted, "cow_ksm": machine.vmstat()["cow_ksm"]}


def check_trees(things):
    """Assert that every tree is a tree, and red-black."""
    links = {values[0]: values[1:] for values in of_kind(things, LINK)}
    seen = set()
    for _tree, _nid, root in of_kind(things, ROOT):
        if root in links:
            assert links[root][0] == -1 and not links[root][3]
        stack = [(root, 0)] if root in links else []
        depths = set()
        while stack:
            number, blacks = stack.pop()
            assert number not in seen
            seen.add(number)
            _, left, right, red = links[number]
            for child in (left, right):
                if child == -1:
                    depths.add(blacks + (not red))
                else:
                    assert links[child][0] == number and not (red and links[child][3])
                    stack.append((child, blacks + (not red)))
        assert len(depths) <= 1
    assert seen == set(links)


def some_life(machine, note=lambda text: None):
    """A life with merges, writes, a fork, an exit, zeros, swap."""
    a, b = machine.spawn("a"), machine.spawn("b")
    at_a, at_b = pages(a, [f"page {n % 5}" for n in range(12)]), pages(b, [f"page {n % 7}" for n in range(9)])
    machine.lru_add_drain_all()
    note("written")
    machine.ksm.scan(passes=3)
    child = a.fork("child")
    child.write(at_a, b"mine")
    note("forked")
    machine.ksm.scan(passes=2)
    b.write(at_b + 2 * PAGE, bytes(PAGE))
    b.madvise(at_b, PAGE, ksm.MADV_UNMERGEABLE)
    note("broken")
    machine.ksm.scan()
    a.exit()
    note("exited")
    machine.ksm.scan(passes=3)
    return [b, child], [(at_b, 9), (at_a, 12)]


@pytest.mark.parametrize("era", ["6.12", "6.1", "2.6.38"])
def test_the_last_state_is_the_machines(era):
    with machine_of(era) as machine:
        with machine.record() as recording:
            processes, ranges = some_life(machine, recording.note)
        data = recording.data("a title", "a text")
        for _name, _step, things in states(data):       # noqa: B007 only the last state is wanted
            pass
        assert counters(things) | of_machine(machine) == counters(things)
        for process, (start, count) in zip(processes, ranges, strict=True):
            entries = {values[1]: values[2:] for values in of_kind(things, PTE) if values[0] == process.mm_id}
            table = process.page_table(start, count * PAGE)
            for i, word in enumerate(table):
                frame, bits = entries[(start >> 12) + i]
                assert (frame, bits & 31) == (word >> ksm.PAGE_FLAGS_SHIFT, word & 31)
        assert machine.check() == []
    assert data["truncated"] is False and data["era"] == era and data["title"] == "a title"
    assert [note for note in data["notes"] if note] == ["written", "forked", "broken", "exited"]
    assert set(data["mms"].values()) == {"a", "b", "child"}


@pytest.mark.parametrize("era", ["6.12", "6.1", "2.6.38"])
def test_every_step_is_consistent(era):
    with machine_of(era) as machine, machine.record() as recording:
        some_life(machine)
    seen = set()
    for name, _step, things in states(recording.data()):
        seen.add(name)
        # If the recorder could not look, the state is that of the step before, and is as consistent.
        check_trees(things)
        count = counters(things)
        in_tree = sum(values[2] in (1, 3) for values in of_kind(things, ITEM))
        assert count["pages_unshared"] == in_tree, name
        # A stale node is found when an item is taken from it that has left its list.
        assert count["rmap_items"] - len(of_kind(things, ITEM)) in ((0, 1) if name == "NODE_STALE" else (0,)), name
        assert count["stable_node_dups"] == sum(values[0] == 1 for values in of_kind(things, NODE))
        at_nodes = [values[3] for values in of_kind(things, ITEM) if values[2] == 2]
        for number, (kind, values) in things.items():
            assert kind != NODE or values[2] in (-1, at_nodes.count(number)), name
    assert {"NEXT", "CHANGED", "UNSTABLE_INSERTED", "TWO_MERGED", "APPENDED", "STABLE_COMPARE", "COW", "LEFT_STABLE"} <= seen


def test_a_search_tells_where_pages_differ():
    with machine_of() as machine, machine.record() as recording:
        pages(machine.spawn("a"), ["abcd", "abxd"])
        machine.ksm.scan(passes=2)
    seen = [(name, step, of_kind(things, BYTES)) for name, step, things in states(recording.data())]
    ((step, found),) = [(step, found) for name, step, found in seen if name == "UNSTABLE_COMPARE"]
    assert step[4] > 0 and step[5] == 2 and found == [[ord("x"), ord("c")]]
    assert [name for name, _, found in seen if found] == ["UNSTABLE_COMPARE"]


@pytest.mark.parametrize("era", ["6.12", "6.1", "2.6.38"])
def test_recording_changes_nothing(era):
    outcomes = []
    for recorded in (False, True):
        with machine_of(era) as machine:
            machine.ksm.trace.start()
            recording = machine.record() if recorded else None
            processes, ranges = some_life(machine, recording.note if recording else lambda text: None)
            tables = [process.page_table(start, count * PAGE) for process, (start, count) in zip(processes, ranges, strict=True)]
            events = [(event.name, event.pfn, event.mm_id, event.error, event.seq) for event in machine.ksm.trace.read()]
            outcomes.append((of_machine(machine), machine.vmstat(), tables, events))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("era", ["2.6.38", "6.1", "6.12", "7.3"])
@pytest.mark.parametrize("pages", [None, 2])
def test_unmerging_everything_is_recorded(era, pages):
    """run=2 goes through the processes, and frees items to which the unstable tree of the last pass still leads."""
    with machine_of(era) as machine:
        for number in range(3):
            process = machine.spawn()
            at = process.mmap(2 * PAGE)
            process.write(at, b"the same")
            process.write(at + PAGE, b"another %d" % number)
            process.madvise(at, 2 * PAGE, ksm.MADV_MERGEABLE)
        with machine.record() as recording:
            machine.ksm.scan(passes=2)
            if pages:
                machine.ksm.scan(pages=pages)       # in the middle of a pass the tree has items
            machine.ksm.run = 2
            recording.note("unmerged")
            machine.ksm.run = 0
            machine.ksm.scan(passes=2)
        found = [(name, step, dict(things)) for name, step, things in states(recording.data())]
        (at,) = (number for number, (name, step, _) in enumerate(found) if name == "NOTE" and 0 < number < len(found) - 1)
        assert found[at][2] and not of_kind(found[at][2], ITEM) and counters(found[at][2])["pages_unshared"] == 0
        assert counters(found[-1][2])["pages_sharing"] == 2
        assert any(name == "LEFT_UNSTABLE" for name, _, _ in found[:at])


# The lessons say what happens in them

def steps_of(data, name):
    return [step for step in data["steps"] if NAMES[step[0]] == name]


@pytest.mark.parametrize(("key", "era", "wanted", "steps"), [
    ("equal", "6.12", {"pages_shared": 1, "pages_sharing": 1, "full_scans": 3}, {"TWO_MERGED": 1, "APPENDED": 2}),
    ("changing", "6.12", {"pages_shared": 1, "pages_sharing": 1, "full_scans": 10}, {"CHANGED": 12, "TWO_MERGED": 1}),
    ("unstable", "6.12", {"pages_shared": 1, "pages_sharing": 1, "full_scans": 4}, {"TWO_MERGED": 1, "PASS_BEGINS": 4}),
    ("chain", "6.12", {"pages_shared": 2, "pages_sharing": 6, "stable_node_chains": 1, "stable_node_dups": 2},
     {"CHAIN_MADE": 1, "STABLE_FULL": 2}),
    ("write", "6.12", {"pages_shared": 0, "pages_sharing": 0, "cow_ksm": 3}, {"COW": 3, "BREAK_KSM": 1, "NODE_STALE": 1}),
    ("equal", "2.6.38", {"pages_shared": 1, "pages_sharing": 1, "full_scans": 3}, {"TWO_MERGED": 1, "AT_ITS_NODE": 0}),
])
def test_lessons(key, era, wanted, steps):
    data = record_lesson(key, era)
    *_, (_, _, things) = states(data)
    assert {name: counters(things)[name] for name in wanted} == wanted
    assert {name: len(steps_of(data, name)) for name in steps} == steps
    assert len(data["steps"]) < 400 and len(data["title"]) > 10 and len(data["text"].split()) > 50


def test_the_rotten_tree_costs_the_merge_of_that_pass():
    """In the pass in which Dave writes, Erin's page does not find its equal, although that is in the tree."""
    data = record_lesson("unstable")
    passes = [sum(name == "PASS_BEGINS" for name, _, _ in itertools.islice(states(data), i + 1)) for i in range(len(data["steps"]))]
    assert [passes[i] for i, step in enumerate(data["steps"]) if NAMES[step[0]] == "TWO_MERGED"] == [3]


def test_all_lessons_are_there_and_every_step_has_words():
    assert [lesson.key for lesson in LESSONS][:5] == ["equal", "changing", "unstable", "chain", "write"]
    assert [step.name for step in STEPS if not step.text] == ["NOTE"]


# Ends

def test_a_full_recording_stops():
    with machine_of() as machine:
        with machine.record(steps=50) as recording:
            some_life(machine, recording.note)
        assert (recording.steps, recording.truncated) == (50, True)
        data = recording.data()
        assert len(data["steps"]) == 50 and len(data["notes"]) == len(steps_of(data, "NOTE"))
        with machine.record() as again:
            machine.ksm.scan()
        assert not again.truncated


def test_one_recording_at_a_time():
    with machine_of() as machine:
        recording = machine.record()
        with pytest.raises(OSError, match="recorded already") as error:
            machine.record()
        assert error.value.errno == errno.EBUSY
        with pytest.raises(ValueError, match="under way"):
            recording.data()
        recording.stop()
        recording.stop()
        with pytest.raises(ValueError, match="ended"):
            recording.note("too late")
        del recording
        machine.record()            # dropped at once
        with machine.record():
            pass


@pytest.mark.parametrize("steps", [0, -1, 1 << 40])
def test_a_number_of_steps_that_makes_no_sense(steps):
    with machine_of() as machine, pytest.raises(ValueError, match="steps"):
        machine.record(steps)


def test_a_machine_that_is_closed_takes_its_recording_along():
    machine = machine_of()
    with machine.record() as recording:
        some_life(machine)
        machine.close()
    with pytest.raises(ValueError, match="under way"):
        recording.data()
    with pytest.raises(ValueError, match="closed"):
        machine.record()


def test_processes_write_and_exit_while_ksmd_is_recorded():
    with machine_of() as machine:
        machine.ksm.sleep_millisecs = 0
        processes = [machine.spawn(f"p{i}") for i in range(3)]
        starts = [pages(process, ["same", "other", "same"]) for process in processes]
        with machine.record() as recording:
            machine.ksm.run = 1

            def write(process, start):
                for i in range(150):
                    process.write(start + i % 3 * PAGE, b"same" if i % 2 else b"new")
                process.exit()

            threads = [threading.Thread(target=write, args=pair) for pair in zip(processes, starts, strict=True)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            machine.ksm.run = 0
            machine.ksm.scan(passes=2)
        for _name, _step, things in states(recording.data()):
            check_trees(things)
        assert machine.check() == []


def test_ten_thousand_steps_are_small():
    with ksm.Machine(memory="16M", max_memory="16M", clock="manual", plain=True) as machine:
        a = machine.spawn("a")
        pages(a, [f"page {n % 500}" for n in range(1000)])
        with machine.record() as recording:
            machine.ksm.scan(passes=4)
    data = recording.data()
    assert len(data["steps"]) == 10_000 and data["truncated"]
    assert len(json.dumps(data, separators=(",", ":"))) < 4_000_000


# Files

def test_a_saved_recording_is_loaded(tmp_path):
    path = tmp_path / "life.json"
    with machine_of() as machine:
        with machine.record() as recording:
            some_life(machine)
        recording.save(path, "a life", "of pages")
    assert load(str(path)) == recording.data("a life", "of pages")


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"nonsense", b"\xff\xfe", b"[" * 100_000, b'{"format": "ksm recording 1"}',
                                     b'{"format": "ksm recording 1", "counters": [], "notes": [], "contents": [], "steps": [["x"]],'
                                     b' "title": "", "text": "", "era": "", "mms": {}}'])
def test_what_is_not_a_recording_gets_one_clear_line(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(RecordingError) as error:
        load(str(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(RecordingError):
        load(str(tmp_path / "nothing"))


# Machines of other kinds

def test_a_huge_page_is_recorded_and_splits():
    huge = 512 * PAGE
    with ksm.Machine(memory="16M", max_memory="16M", clock="manual", plain=True, transparent_hugepage="always") as machine:
        a = machine.spawn("a")
        start = a.mmap(2 * huge)
        start += -start % huge
        for number in range(512):
            a.write(start + number * PAGE, f"page {number // 2}".encode())
        a.madvise(start, huge, ksm.MADV_MERGEABLE)
        with machine.record() as recording:
            machine.ksm.scan(passes=1)
            machine.ksm.scan(pages=40)
    seen = [[values for values in of_kind(dict(things), PTE)] for _, _, things in itertools.islice(states(recording.data()), 1)]
    assert len(seen[0]) == 512 and all(values[3] & 256 for values in seen[0])
    frames = [values[2] for values in sorted(seen[0], key=lambda values: values[1])]
    assert frames == list(range(frames[0], frames[0] + 512))
    for _name, _step, things in states(recording.data()):
        check_trees(things)
    entries = of_kind(things, PTE)
    assert len(entries) == 512 and not any(values[3] & 256 for values in entries)
    assert counters(things)["pages_sharing"] > 0


def test_a_huge_page_that_is_mapped_page_by_page_is_one():
    """Its entries are as page_table() has them, and each of its frames has the mappings and references of the whole."""
    huge = 512 * PAGE
    with ksm.Machine(memory="16M", max_memory="16M", clock="manual", plain=True, transparent_hugepage="always") as machine:
        a = machine.spawn("a")
        start = a.mmap(2 * huge)
        start += -start % huge
        a.write(start, b"huge")
        a.mprotect(start, PAGE, ksm.PROT_READ)
        machine.lru_add_drain_all()
        table = a.page_table(start, huge)
        assert machine.vmstat()["thp_split_pmd"] == 1 and all(word & ksm.PAGE_THP for word in table)
        other = a.mmap(PAGE)
        a.write(other, b"small")
        a.madvise(other, PAGE, ksm.MADV_MERGEABLE)
        with machine.record() as recording:
            machine.ksm.scan(passes=1)
    _name, _step, things = next(states(recording.data()))
    entries = {values[1]: values[2:] for values in of_kind(things, PTE)}
    frames = {values[0]: values[1:] for values in of_kind(things, FRAME)}
    for i, word in enumerate(table):
        frame, bits = entries[(start >> 12) + i]
        assert (frame, bits & 63, bool(bits & 256)) == (word >> ksm.PAGE_FLAGS_SHIFT, word & 63, True)
        mapcount, references, _content, kind = frames[frame]
        assert (mapcount, references, kind) == (512, 512, ksm.PAGE_ANON | 256)


def test_numa_nodes_have_their_own_trees_and_migrated_nodes_wait():
    with ksm.Machine(memory="16M", max_memory="16M", nodes=2, clock="manual", plain=True) as machine:
        machine.ksm.merge_across_nodes = 0
        on = [[machine.spawn(f"{n}{i}", node=n) for i in range(2)] for n in range(2)]
        at = {process: pages(process, ["the same", process.name]) for pair in on for process in pair}
        with machine.record() as recording:
            machine.ksm.scan(passes=3)
            frame = on[0][0].page_table(at[on[0][0]], PAGE)[0] >> ksm.PAGE_FLAGS_SHIFT
            machine.migrate(frame, 1)
            recording.note("migrated")
            machine.ksm.scan(passes=2)
    roots, names = set(), set()
    for name, _step, things in states(recording.data()):
        check_trees(things)
        names.add(name)
        roots |= {(tree, nid) for tree, nid, root in of_kind(things, ROOT) if root >= 0}
    assert roots == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert "NODE_MOVED" in names


def test_what_is_taken_piece_by_piece_is_the_whole():
    """Two machines live the same; of one the steps are taken after every call."""
    def live(machine, after):
        a, b = machine.spawn("a"), machine.spawn("b")
        starts = [process.mmap(2 * PAGE) for process in (a, b)]
        for process, start in zip((a, b), starts, strict=True):
            process.write(start, b"the same")
            process.madvise(start, 2 * PAGE, ksm.MADV_MERGEABLE)
        after("written")
        for number in range(3):
            machine.ksm.scan()
            after(f"pass {number}")
        a.write(starts[0], b"another")
        after("a has written")

    with machine_of() as machine:
        with machine.record() as recording:
            live(machine, recording.note)
        whole = recording.data()
    parts = []
    with machine_of() as machine, machine.record(steps=25) as recording:
        def take(text):
            recording.note(text)
            parts.append(recording.take())

        live(machine, take)
        assert not recording.truncated
    with pytest.raises(ValueError, match="has ended"):
        recording.take()
    joined = {key: [each for part in parts for each in part[key]] for key in ("steps", "notes", "contents")}
    assert len(joined["steps"]) > 25
    assert (joined["steps"], joined["contents"]) == (whole["steps"][:-1], whole["contents"])
    assert joined["notes"] == whole["notes"][:-1] and parts[-1]["mms"] == whole["mms"]


@pytest.mark.parametrize("before", ["between two passes", "in the middle of a pass"])
def test_unmerging_does_not_look_at_the_tree_of_the_last_pass(before):
    """Writing 2 to run moves the cursor, and the roots still lead to items that it frees."""
    with machine_of() as machine:
        for name in ("a", "b"):
            pages(machine.spawn(name), ["same", f"{name} 1", f"{name} 2", f"{name} 3"])
        machine.ksm.scan(passes=3)
        if before != "between two passes":
            machine.ksm.scan(pages=6)
        with machine.record() as recording:
            machine.ksm.run = 2
        steps = list(states(recording.data()))[1:]
        assert len(steps) > 5 and machine.check() == []
    for name, _, things in steps:
        unstable = {number for number, (kind, _) in things.items() if kind == ITEM}
        linked = {values[0] for values in of_kind(things, LINK)} & unstable
        in_tree = {number for number in unstable if things[number][1][2] == 1}
        assert linked == in_tree, name
    assert of_kind(steps[-1][2], ITEM) == of_kind(steps[-1][2], NODE) == []


def test_unmerging_again_after_it_has_failed_does_not_look_at_the_tree_of_the_pass_that_was_broken_off():
    with machine_of() as machine, machine.record() as recording:
        for name in ("a", "b", "c"):
            pages(machine.spawn(name), [f"{name}0", "same", "same", *(f"{name}{number}" for number in range(3, 8))])
        machine.ksm.scan(passes=2)
        machine.ksm.scan(pages=16)
        machine.fail("page", 1)
        with pytest.raises(OSError):
            machine.ksm.run = 2
        machine.ksm.run = 0
        recording.take()
        machine.ksm.run = 2
        steps = recording.take()["steps"]
        assert len(steps) > 3 and machine.check() == []
        # Nobody has a root of an unstable tree.
        for step in steps:
            changes = iter(step[6:])
            for code in changes:
                number, *values = itertools.islice(changes, 1 + (WIDTHS[code - 1] if code > 0 else 0))
                assert (code, values[:1]) != (ROOT + 1, [1]), number

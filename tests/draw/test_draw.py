# SPDX-License-Identifier: GPL-2.0-only
"""A machine draws itself: what the picture has is what the machine has, and a large one is bounded."""

import re
import threading
import xml.etree.ElementTree as ElementTree

import pytest

import ksm
from ksm.draw.state import MOST_NODES, MOST_PROCESSES, MOST_TILES, state_of
from ksm.draw.svg import Drawing

PAGE = ksm.PAGE_SIZE
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(params=[True, False], ids=["plain", "fast"])
def machine(request):
    with ksm.Machine(memory="16M", max_memory="16M", swap="1M", clock="manual", plain=request.param) as made:
        yield made


def written(machine, name, texts, advise=True):
    process = machine.spawn(name)
    start = process.mmap(len(texts) * PAGE)
    for number, text in enumerate(texts):
        process.write(start + number * PAGE, text.encode())
    if advise:
        process.madvise(start, len(texts) * PAGE, ksm.MADV_MERGEABLE)
    return process, start


def test_page_tables_are_those_of_the_machine(machine):
    a, start = written(machine, "alice", ["same", "a diary", "a list", "going"])
    written(machine, "bob", ["a novel", "same"])
    other, _ = written(machine, "carol", ["same"], advise=False)
    machine.ksm.scan(passes=3)
    a.swap_out(start + 3 * PAGE, PAGE)
    other.fork("dave")
    spaces = {space.name: space for space in state_of(machine).spaces}
    assert list(spaces) == ["alice", "bob", "carol", "dave"]
    kinds = {name: [tile.kind for tile in space.tiles] for name, space in spaces.items()}
    assert kinds == {"alice": ["merged", "volatile", "volatile", "swapped"], "bob": ["volatile", "merged"], "carol": ["shared"],
                     "dave": ["shared"]}
    for process in machine.processes.values():
        for tile in spaces[process.name].tiles:
            (word,) = process.page_table(tile.number * PAGE, PAGE)
            assert tile.frame == (-1 if word & ksm.PAGE_SWAPPED else word >> ksm.PAGE_FLAGS_SHIFT)
    assert [tile.writable for tile in spaces["alice"].tiles] == [False, True, True, False]
    assert [tile.text for tile in spaces["alice"].tiles[:2]] == ["same", "a diary"]


def test_trees_are_search_trees_of_the_pages(machine):
    written(machine, "a", [f"page {number:02}" for number in range(20)] + ["twice"])
    written(machine, "b", ["twice"] + [f"page {number:02}" for number in range(5)])
    machine.ksm.scan(passes=2)
    machine.ksm.scan(pages=18)
    state = state_of(machine)
    assert sorted(node.text for node in state.stable) == [*(f"page {number:02}" for number in range(5)), "twice"]
    assert all(node.below == "× 2" for node in state.stable)
    for nodes in (state.stable, state.unstable):
        # From left to right they are sorted, as memcmp() sorts them.
        assert [node.text for node in nodes] == sorted(node.text for node in nodes)
        assert [node.x for node in nodes] == list(range(len(nodes)))
        assert sum(node.parent < 0 for node in nodes) == 1
        for node in nodes:
            assert node.parent < 0 or (nodes[node.parent].y == node.y - 1 and not (node.red and nodes[node.parent].red))
    assert len(state.unstable) == 13 and machine.check() == []


def test_a_chain_shows_its_dups(machine):
    machine.ksm.max_page_sharing = 2
    written(machine, "a", ["same"] * 5)
    machine.ksm.scan(passes=4)
    (chain,) = state_of(machine).stable
    assert (chain.text, chain.frame, chain.below) == ("same", -1, "× 2 × 2")
    assert ">chain</text>" in machine.draw()


def test_the_picture_is_svg_and_has_every_tile_and_node(machine):
    written(machine, "a <b> & \x07", ["same", "1 < 2", "x"])
    written(machine, "b", ["same"])
    machine.ksm.scan(passes=3)
    drawing = machine.draw()
    assert isinstance(drawing, Drawing) and drawing._repr_svg_() == str(drawing)
    tree = ElementTree.fromstring(drawing)
    titles = [title.text for title in tree.iter(f"{SVG}title")]
    assert len(titles) == 5 and any("1 < 2" in title for title in titles)
    assert any("a <b> & ?" in (text.text or "") for text in tree.iter(f"{SVG}text"))


def test_what_a_notebook_shows(machine):
    written(machine, "a", ["same", "same", "x"])
    machine.ksm.scan(passes=3)
    shown = machine._repr_html_()
    assert "<th>pages_sharing</th>" in shown and "<svg" in shown
    values = dict(zip(re.findall(r"<th>(\w+)</th>", shown), re.findall(r"<td>([\d,-]+)</td>", shown), strict=True))
    assert values["pages_sharing"] == "1" and values["full_scans"] == "3"
    machine.close()
    assert machine._repr_html_() == "<p>A machine that is closed</p>"
    with pytest.raises(ValueError):
        machine.draw()


@pytest.mark.parametrize("era", ["2.6.38", "6.1", "7.3"])
def test_every_era_can_be_drawn(era):
    with ksm.Machine(memory="4M", max_memory="4M", era=era) as machine:
        written(machine, "a", ["same", "same", "x"])
        machine.ksm.scan(passes=2)
        ElementTree.fromstring(machine.draw())
        assert f"KSM of Linux {era}" in machine._repr_html_()


def test_a_large_machine_is_shown_in_part():
    with ksm.Machine(memory="128M", max_memory="128M") as machine:
        process = machine.spawn("many")
        start = process.mmap(3000 * PAGE)
        for number in range(3000):
            process.write(start + number * PAGE, f"page {number % 1500}".encode())
        process.madvise(start, 3000 * PAGE, ksm.MADV_MERGEABLE)
        for number in range(20):
            written(machine, f"p{number}", ["x"], advise=False)
        machine.ksm.scan(passes=2)
        state = state_of(machine)
        assert len(state.spaces) == MOST_PROCESSES and state.more_processes == 21 - MOST_PROCESSES
        assert len(state.spaces[0].tiles) == MOST_TILES and state.spaces[0].more == 3000 - MOST_TILES
        assert len(state.stable) <= MOST_NODES and len(state.stable) + sum(node.hidden for node in state.stable) == 1500
        assert len(machine.draw()) < 200_000
        start = process.mmap(20_000 * PAGE)
        process.touch(start, 20_000 * PAGE)
        assert state_of(machine).too_large and "the counters tell more" in machine.draw()
        assert len(machine._repr_html_()) < 5_000


def test_it_can_be_drawn_while_it_is_recorded_and_while_others_work():
    with ksm.Machine(memory="16M", max_memory="16M", clock="manual", plain=True) as machine:
        process, start = written(machine, "a", ["same"] * 40)
        with machine.record() as recording:
            before = recording.take()
            machine.draw()
            assert before["steps"] and recording.take()["steps"] == []
        ended = threading.Event()

        def work():
            while not ended.is_set():
                machine.ksm.scan()
                process.write(start, b"another")
                process.fork().exit()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            for _ in range(30):
                ElementTree.fromstring(machine.draw())
        finally:
            ended.set()
            thread.join()
        assert machine.check() == []

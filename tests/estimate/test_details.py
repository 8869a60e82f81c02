# SPDX-License-Identifier: GPL-2.0-only
"""What pictures are made of, compared with counts that know nothing of KSM."""

import base64
import random
import threading
import zlib
from array import array
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ksm
from ksm.estimate import details, page_map, report
from ksm.estimate.closer import CloserScan
from ksm.estimate.copies import copied_frames
from ksm.estimate.savings import STATES, Tally
from ksm.estimate.scan import Scan
from ksm.estimate.shares import Shares
from ksm.sources import open_file

from .test_scan import PAGE, Changing, page, write_image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


def looked(paths, **options):
    """The result with details, of machines of fingerprints and of bytes: the same."""
    results = []
    for exact in (False, True):
        sources = [open_file(path) for path in paths]
        try:
            with CloserScan(sources, exact=exact, details=True, contents=True, **options) as running:
                results.append(running.run())
        finally:
            for source in sources:
                source.close()
    assert report.as_json(results[0]) == report.as_json(results[1])
    return results[0]


numbers = st.lists(st.integers(0, 9), min_size=1, max_size=60)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(numbers, min_size=1, max_size=3), st.sampled_from([{}, {"use_zero_pages": "1"}, {"max_page_sharing": "3"}]))
def test_details_are_what_counting_gives(folder, images, knobs):
    paths = [write_image(folder / f"image{place}", image) for place, image in enumerate(images)]
    result = looked(paths, settings=knobs)
    found, ledger = result.details, report.as_json(result)["ledger"]
    # Each page has a state, and these are the lines of the ledger.
    assert [sum(states.values()) for states in found.states] == [len(image) for image in images]
    for name in STATES[1:-1]:
        assert sum(states[name] for states in found.states) == ledger[name]
    # Who shares with whom
    everything = Counter(number for image in images for number in image)
    for a, one in enumerate(images):
        for b, other in enumerate(images):
            wanted = sum(one.count(number) > 1 if a == b else number in other for number in one)
            if knobs != {"max_page_sharing": "3"} and not (a == b and knobs):
                assert found.matrix.pages[a][b] == wanted
    # The contents that free most
    shared = {number: count for number, count in everything.items() if count > 1 or (number == 0 and "use_zero_pages" in knobs)}
    if knobs != {"max_page_sharing": "3"}:
        assert sorted(content.pages for content in found.contents) == sorted(shared.values())
        for content in found.contents:
            number = int.from_bytes(content.bytes[:8], "little")
            assert content.pages == everything[number]
            assert content.sources == sum(number in image for image in images)
            place = [source.name for source in result.sources].index(content.source)
            assert images[place][content.address // PAGE] == number
            assert content.kind == ("zero" if number == 0 else "word")
    assert [content.freed for content in found.contents] == sorted((content.freed for content in found.contents), reverse=True)


def unpacked(code, text):
    return array(code, zlib.decompress(base64.b64decode(text)))


@pytest.mark.parametrize("side, length", [(256, 100), (4, 1000), (2, 997), (8, 64)])
def test_the_map_has_each_page_once(folder, monkeypatch, side, length):
    monkeypatch.setattr(page_map, "SIDE", side)
    pick = random.Random(length)
    images = [[pick.randrange(40) for _ in range(length)] for _ in range(2)]
    paths = [write_image(folder / f"map{place}", image) for place, image in enumerate(images)]
    data = report.as_json(looked(paths))["details"]
    found = data["map"]
    counts, steps = unpacked("H", found["counts"]), unpacked("d", found["first"])
    assert sum(found["cells"]) == len(steps) <= found["side"] ** 2 and found["side"] <= side
    states = found["states"]
    cell = 0
    for place, cells in enumerate(found["cells"]):
        sums = [sum(counts[at * len(states) + state] for at in range(cell, cell + cells)) for state in range(len(states))]
        assert dict(zip(states, sums, strict=True)) == data["states"][place]
        addresses = [int(sum(steps[: at + 1])) for at in range(cell, cell + cells)]
        assert addresses == [at * found["pages"] * PAGE for at in range(cells)]
        cell += cells


def test_what_changes_is_volatile_and_what_has_gone_has_no_place():
    class Restless(Changing):
        def refresh(self, number):
            self.process.update(self.addr, b"".join(page(1000 * number + place) for place in range(1, 41)))

    with CloserScan([Restless()], details=True) as running:
        result = running.run(passes=3, interval=0)
    [states] = result.details.states
    assert (states["volatile"], sum(states.values())) == (40, 40)
    assert result.details.contents == []


def test_history_has_the_counters_of_each_pass(folder):
    path = write_image(folder / "history", [1, 1, 2, 3])
    result = looked([path])
    assert len(result.history) == result.passes
    assert [row["pages_sharing"] for row in result.history] == [0, 1, 1]
    last = {name: value for name, value in result.history[-1].items() if name != "seconds"}
    assert last == {name: result.ksm[name] for name in last}


def test_many_sources_share_the_last_row_of_the_matrix(folder, monkeypatch):
    monkeypatch.setattr(details, "MOST_GROUPS", 3)
    images = [[1, 2, 3, 4], [1, 2, 3], [1], [1], [5, 5]]
    paths = [write_image(folder / f"many{place}", image) for place, image in enumerate(images)]
    found = looked(paths).details.matrix
    assert found.names == [paths[0], paths[1], details.OTHERS]
    assert found.pages == [[0, 3, 1], [3, 0, 1], [2, 2, 4]]


def test_bytes_are_left_out_unless_they_are_asked_for(folder):
    path = write_image(folder / "secret", [7, 7])
    source = open_file(path)
    with CloserScan([source], details=True) as running:
        [content] = running.run().details.contents
    source.close()
    assert content.bytes is None and content.kind == "word"


def test_states_need_room(folder):
    source = open_file(write_image(folder / "room", [7, 7]))
    with Scan([source]) as running:
        running.run()
        tally = Tally(running.machine)
        tally.next_source()
        [(_, words)] = source.page_tables()
        with pytest.raises(ValueError, match="a byte for each word"):
            tally.add(words, bytearray(len(words) - 1))
    source.close()


def merged():
    """A machine with a process of 8 equal pages, merged, and its page table."""
    machine = ksm.Machine(memory="4M", max_memory="4M")
    process = machine.spawn()
    addr = process.mmap(8 * PAGE)
    process.write(addr, page(7) * 8)
    process.madvise(addr, 8 * PAGE, ksm.MADV_MERGEABLE)
    machine.ksm.scan(passes=3)
    return machine, process.page_table(addr, 8 * PAGE)


def test_shares_are_asked_in_order():
    machine, words = merged()
    with machine:
        shares = Shares(machine)
        with pytest.raises(ValueError, match="comes after next_source"):
            shares.add(0, words)
        shares.next_source()
        shares.add(0, words)
        for early in (lambda: shares.matrix([0], 1), lambda: shares.between([0], 1), lambda: shares.by_class([0], 1, b"")):
            with pytest.raises(ValueError, match=r"done\(\) comes first"):
                early()
        shares.done()
        for late in (shares.done, lambda: shares.add(0, words)):
            with pytest.raises(ValueError, match="done"):
                late()
        assert shares.matrix([0], 1) == [[8]] and shares.matrix([-1], 0) == []
        for groups in ([], [1], [-2], [0, 0]):
            with pytest.raises(ValueError, match="each source has a group"):
                shares.matrix(groups, 1)


def test_frames_that_the_machine_has_not():
    machine, words = merged()
    with machine:
        for frame in (1 << 20, (1 << 56) - 1):
            bad = array("L", [frame << ksm.PAGE_FLAGS_SHIFT | ksm.PAGE_PRESENT | ksm.PAGE_KSM])
            shares = Shares(machine)
            shares.next_source()
            with pytest.raises(ValueError, match="frames that the machine has not"):
                shares.add(0, bad)
            with pytest.raises(ValueError, match="frames that the machine has not"):
                copied_frames(machine, bad, b"\1")
        with pytest.raises(ValueError, match="a byte for each word"):
            copied_frames(machine, words, b"\1" * 7)
    for closed in (lambda: Shares(machine), lambda: shares.done(), lambda: copied_frames(machine, words, b"\1" * 8)):
        with pytest.raises(ValueError, match="the machine is closed"):
            closed()


def test_threads_that_use_the_same_shares():
    """A call is refused while another one goes on, and nothing is lost or freed twice."""
    machine, words = merged()
    with machine:
        shares = Shares(machine)
        shares.next_source()
        refused = []

        def add():
            for _ in range(300):
                try:
                    shares.add(0, words)
                except RuntimeError:
                    refused.append(1)

        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        shares.done()
        [content] = shares.most(5)
        assert content.pages == 8 * (1200 - len(refused))

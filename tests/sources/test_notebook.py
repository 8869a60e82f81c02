# SPDX-License-Identifier: GPL-2.0-only
"""What is read once and played in machines is what a machine would have read: forks, huge pages, pages that are held, fingerprints."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ksm
from ksm.estimate.replay import Reader, Replay
from ksm.estimate.scan import Scan
from ksm.sources import Host, open_source, open_sources
from ksm.sources.notebook import FRAME, Notebook, Shadow, Stage, Step, changed, turns

PAGE = 4096
KNOBS = [{}, {"use_zero_pages": "1"}, {"max_page_sharing": "3"}, {"smart_scan": "0"}]


def scanned(texts, knobs):
    host = Host()
    sources, _ = open_sources(texts, host)
    try:
        with Scan(sources, settings=knobs) as scan:
            return scan.run(interval=0)
    finally:
        for source in sources:
            source.close()
        host.close()


def replayed(texts, every):
    """What replays of one reading find. A small machine in which it is played is a sound one."""
    host = Host()
    sources, _ = open_sources(texts, host)
    try:
        with Reader(sources, interval=0) as reader:
            for knobs in every:
                with Replay(reader, settings=knobs, cost=1e-6) as replay:
                    yield replay.run(interval=0)
            with ksm.Machine("64M", pages="fingerprints") as machine:
                stage = Stage(machine)
                for reading in reader.readings:
                    stage.play(reading)
                    machine.ksm.scan(2)
                    assert machine.check() == []
                stage.held.release()
    finally:
        for source in sources:
            source.close()
        host.close()


def check_same(texts, every=KNOBS):
    found = list(replayed(texts, every))
    for knobs, result in zip(every, found, strict=True):
        other = scanned(texts, knobs)
        assert result.ledger == other.ledger, knobs
        assert (result.passes, result.settled, result.shared, result.again) == (other.passes, other.settled, other.shared, other.again)
        assert [source.ksm_stat for source in result.sources] == [source.ksm_stat for source in other.sources]
        assert result.already == other.already
    return found


def test_a_process(target):
    target.do("a = area(600); fill(a, 0, [0] * 100 + [7] * 200 + list(range(1000, 1300)))")
    result = check_same([f"pid:{target.pid}"])[0]
    assert result.savings.within >= 198


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees frames")
def test_forks(target):
    """Processes that share pages since a fork, and have written to some, share the same ones in each machine."""
    target.do("a = area(600); fill(a, 0, [7] * 200 + list(range(1000, 1400)))")
    pids = [target.pid, *target.ask("[child(), child()]")]
    target.do(f"tell({pids[1]}, 'fill(a, 100, [7] * 50 + list(range(5000, 5100)))')")
    target.do("fill(a, 400, list(range(5000, 5100)))")
    result = check_same([f"pid:{pid}" for pid in pids])[0]
    assert result.shared > 600
    assert result.savings.across >= 100


def test_huge_pages(target):
    target.do("a = huge_area(4); fill(a, first_huge(a) + 3, [7] * 40 + list(range(2000, 2040)))")
    [result, *_] = check_same([f"pid:{target.pid}"])
    if "[never]" not in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
        assert result.ledger.split > 0


def test_fingerprints(tmp_path):
    """Of a fingerprint file, with and without a key, beside the image that it was made of."""
    pytest.importorskip("pyarrow")
    from ksm.sources.save import save_file

    image = tmp_path / "image"
    image.write_bytes(b"".join(bytes([number % 7]) * PAGE for number in range(100)))
    source = open_source(str(image), Host())
    save_file(str(tmp_path / "f.parquet"), [source], progress=lambda *_: None)
    source.close()
    result = check_same([str(tmp_path / "f.parquet"), str(image)])[0]
    assert (result.ledger.pages, result.ledger.merged) == (200, 7)


def test_held_pages():
    """What is held is held in the machine that is played, and not where nothing is to be held."""
    notebook = Notebook()
    notebook.begin()
    process = notebook.spawn("held")
    process._merge_any()
    addr = process.mmap(4 * PAGE)
    process.update(addr, bytes([7]) * 4 * PAGE)
    held = notebook.held()
    held.add(process.page_table(addr + 2 * PAGE, 2 * PAGE))
    assert len(held) == 2
    for hold, merged in ((True, 2), (False, 4)):
        with ksm.Machine("4M", pages="fingerprints") as machine:
            stage = Stage(machine)
            stage.play(notebook.readings[0], hold=hold)
            machine.ksm.scan(3)
            assert machine.ksm.pages_shared + machine.ksm.pages_sharing == merged
            stage.held.release()


def frames(number):
    return bytes([number]) * FRAME


steps = st.lists(
    st.one_of(
        st.tuples(st.just("load"), st.integers(0, 20), st.lists(st.integers(1, 4), min_size=1, max_size=6)),
        st.tuples(st.just("drop"), st.integers(0, 20), st.integers(1, 6)),
    ),
    max_size=8,
)


def noted(some):
    base = 1 << 21
    result = []
    for kind, page, what in some:
        start = base - 10 * PAGE + page * PAGE  # across the border of two blocks
        if kind == "load":
            result.append(Step(0, "load", ([(start, start + len(what) * PAGE)], b"".join(map(frames, what)), False)))
        else:
            result.append(Step(0, "madvise", (start, what * PAGE, ksm.MADV_DONTNEED)))
    return result


def pages_of(shadow):
    found = {}
    for (_, number), block in shadow.blocks.items():
        for page in range(512):
            frame = bytes(block[page * FRAME : (page + 1) * FRAME])
            if frame != bytes(FRAME):
                found[number * 512 + page] = frame
    return found


@settings(max_examples=40, deadline=None)
@given(steps, steps)
def test_what_differs_between_two_readings(first, second):
    """The second reading without what has not changed gives the same memory. In turn, pages that both have are as in one and the other."""
    readings = [noted(first), noted(second)]
    before, whole, short = Shadow(), Shadow(), Shadow()
    before.follow(readings[0])
    whole.follow(readings[0])
    whole.follow(readings[1])
    for reading in changed(readings):
        short.follow(reading)
    assert pages_of(short) == pages_of(whole)
    was, now = pages_of(before), pages_of(whole)
    there, here = turns(readings)
    for turn, frames_then in ((there, was), (here, now)):
        whole.follow(turn)
        both = {page for page in now if page in was}
        assert pages_of(whole) == {page: frames_then[page] if page in both else frame for page, frame in now.items()}
    assert bool(there) == bool(here) == any(was[page] != now[page] for page in now if page in was)

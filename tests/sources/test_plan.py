# SPDX-License-Identifier: GPL-2.0-only
"""Whether any history of forks and writes can be told again from the frames that it has left behind. No real process is needed."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from ksm.sources.frames import first_of_each, follow, plan, read_frames, related, shared_runs

PAGE, PAGES = 4096, 3
PRESENT, EXCLUSIVE = 1 << 63, 1 << 56
EVERYWHERE = [(PAGE, PAGE * (PAGES + 1))]


class History:
    """Processes by their numbers, and the frame of each page, 0 for none."""

    def __init__(self, huge=False):
        self.huge = huge  # whether the first frames are parts of a huge page: read_counted() leaves all of them in the tables
        self.frames = [list(range(1, PAGES + 1))]
        self.parents = [0]
        self.last = PAGES

    def is_part(self, frame):
        return self.huge and frame <= PAGES

    def fork(self, parent):
        self.frames.append(list(self.frames[parent]))
        self.parents.append(parent)

    def write(self, process, page):
        self.last += 1
        self.frames[process][page] = self.last

    def drop(self, process, page):
        self.frames[process][page] = 0

    def pagemap(self, process, path):
        """What pagemap would say, in a file."""
        mapped = [frame for frames in self.frames for frame in frames]
        alone = {frame for frame in mapped if mapped.count(frame) == 1 and not self.is_part(frame)}
        words = [PRESENT | frame | EXCLUSIVE * (frame in alone) if frame else 0 for frame in self.frames[process]]
        path.write_bytes(struct.pack(f"{PAGES + 1}Q", 0, *words))
        return path


# Few processes, fewer pages and many steps: most pages have a history.
steps = st.lists(
    st.tuples(st.sampled_from(["fork", "write", "write", "drop"]), st.integers(0, 6), st.integers(0, PAGES - 1)), min_size=20, max_size=60
)


def live(history, steps, forks=True):
    for what, place, page in steps:
        process = place % len(history.frames)
        if what != "fork":
            getattr(history, what)(process, page)
        elif forks and len(history.frames) < 7:
            history.fork(process)


def tables(history, folder, old=None):
    result = []
    for process in range(len(history.frames)):
        with open(history.pagemap(process, folder / str(process)), "rb") as file:
            result.append(read_frames(file.fileno(), EVERYWHERE, old and old[process]))
    return result


def to_write(history, process, frames, folder):
    """The pages that the process is to write in any case."""
    with open(history.pagemap(process, folder / str(process)), "rb") as file:
        _, _, forced, _, _ = shared_runs(file.fileno(), -1, EVERYWHERE, frames)
    return {at // PAGE - 1 for start, end in forced for at in range(start, end, PAGE)}


def check(history, machine, frames, folder):
    """Update the machine's processes, and compare which share a frame."""
    new = max((frame for pages in machine for frame in pages), default=0)
    for process, pages in enumerate(history.frames):
        forced = to_write(history, process, frames[process], folder)
        for page, frame in enumerate(pages):
            if frame == 0:
                machine[process][page] = 0
            elif page in forced or machine[process][page] == 0:  # all others are only brought up to date
                new += 1
                machine[process][page] = new
    for page in range(PAGES):
        real = [pages[page] for pages in history.frames]
        made = [pages[page] for pages in machine]
        assert [real.index(frame) for frame in real if frame] == [made.index(frame) for frame in made if frame]


@settings(max_examples=80, deadline=None)
@given(steps, steps, st.booleans())
def test_any_history_can_be_told_again(tmp_path_factory, before, after, huge):
    folder = tmp_path_factory.mktemp("history")
    history = History(huge)
    live(history, before)
    raw = tables(history, folder)
    groups = related(raw, -1)
    nr = len(raw)
    for a in range(nr):
        for b in range(nr):
            if any(x == y != 0 for x, y in zip(history.frames[a], history.frames[b], strict=True)):
                assert groups[a] == groups[b]
    frames, orders, lost = plan(raw, history.parents)
    assert lost == 0
    machine = [[0] * PAGES]
    new = 0
    for child in range(1, nr):
        parent = history.parents[child]
        for reader, runs in orders[child].items():
            for start, end in runs:
                for at in range(start, end, PAGE):
                    assert history.frames[reader][at // PAGE - 1]
                    new += 1
                    machine[parent][at // PAGE - 1] = new
        machine.append(list(machine[parent]))
    check(history, machine, frames, folder)
    # Each shared frame counts once
    first_of_each(frames)
    mappings = [(page, frame) for pages in history.frames for page, frame in enumerate(pages) if frame]
    assert sum(table.repeated for table in frames) == len(mappings) - len(set(mappings))
    # A pass later
    live(history, after, forks=False)
    check(history, machine, follow(frames, tables(history, folder, frames)), folder)


def test_parts_of_a_huge_page_come_from_one_fork(tmp_path):
    """A part that only the parent has left, and one that the second child has, too, are written with those that all have."""
    history = History(huge=True)
    history.fork(0)
    history.fork(0)
    history.write(1, 1)
    history.write(1, 2)
    history.write(2, 2)
    frames, orders, lost = plan(tables(history, tmp_path), history.parents)
    assert orders == [{}, {0: EVERYWHERE}, {}]
    assert lost == 0
    assert [to_write(history, process, frames[process], tmp_path) for process in range(3)] == [set(), {1, 2}, {2}]

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: how the processes of a scan came to share pages.
"""Processes that share pages since a fork, made again in the machine by forks and writes.

The machine's processes are forked of each other in the order in which the real ones were started. Before each fork, the parent gets the
pages that the child shares with others. What a process has of its own is written when the forks are done. Where the parent that they have
in common has exited, or is not in the scan, another process stands in for it, and exits after the forks.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from contextlib import suppress

from ksm.constants import PAGE_SIZE
from ksm.host.memory import read_text
from ksm.machine import Machine
from ksm.process import Process
from ksm.sources.base import Source, SourceError, new_process
from ksm.sources.blocks import blocks_of, map_blocks
from ksm.sources.frames import Frames, first_of_each, follow, plan, related
from ksm.sources.live import LiveSource
from ksm.sources.pieces import Run
from ksm.sources.runs import joined, without

FARTHEST = 64  # ancestors that are asked for their parents


class Family:
    """Processes that share pages. `lost` counts those that no order of forks and writes leads to: each process gets its own copy. `outside`
    counts frames that KSM has merged for all of them, and that other processes have, too.
    """

    def __init__(self, members: list[LiveSource], tables: dict[LiveSource, Frames]) -> None:
        parents = parents_of(members)
        order = sorted(members, key=birth)
        roots = [member for member in order if parents[member] is None]
        self.members: list[LiveSource | None] = [*([None] if len(roots) > 1 else []), *order]
        self.tables = [Frames() if member is None else tables[member] for member in self.members]
        places: dict[LiveSource | None, int] = {member: place for place, member in enumerate(self.members)}
        self.parents = [0 if member is None else places.get(parents[member], 0) for member in self.members]
        planned, self.forks, self.lost = plan(self.tables, self.parents)
        first_of_each(planned)
        self.outside = 0
        for member, frames in zip(self.members, planned, strict=True):
            if member is not None:
                member.frames = frames
                member.forked = frames.repeated * PAGE_SIZE

    def present(self) -> list[LiveSource]:
        return [member for member in self.members if member is not None]

    def build(self, machine: Machine) -> None:
        """Make the machine's processes. Their own pages have yet to be read. SourceError."""
        try:
            self._build(machine)
        except OSError as error:
            what = "more memory than this scan can take" if error.errno == errno.ENOMEM else error.strerror or str(error)
            raise SourceError(f"{self.present()[0].name} and the processes that share pages with it: {what}") from None

    def _build(self, machine: Machine) -> None:
        made: list[Made] = []
        for place, member in enumerate(self.members):
            name = "stands in for a parent" if member is None else member.name
            if place == 0:
                made.append(Made(new_process(machine, name), [], []))
            else:
                parent = made[self.parents[place]]
                self.map(parent, self.forks[place])
                for reader, runs in self.forks[place].items():
                    self.write(parent, reader, runs)
                made.append(Made(parent.process.fork(name), parent.runs, parent.blocks))
            if member is not None:
                member.process = made[place].process
        for member, new in zip(self.members, made, strict=True):
            if member is None:
                new.process.exit()
            else:
                member.runs, member.blocks = new.runs, new.blocks
        self.tables, self.forks = [], []

    def map(self, parent: Made, orders: dict[int, list[Run]]) -> None:
        """Map what the parent is to be given, and fault its huge pages."""
        runs = joined(sorted(run for some in orders.values() for run in some))
        blocks = parent.add(runs)
        for reader in orders if blocks else ():
            member = self.members[reader]
            assert member is not None
            with suppress(SourceError):  # the process has exited: it will be said when it is read
                blocks = without(blocks, member.lend_huge(parent.process, blocks, runs))

    def write(self, parent: Made, reader: int, runs: list[Run]) -> None:
        """Give the parent pages that one of the processes has now. Pages that change meanwhile are shared by nobody any more."""
        member = self.members[reader]
        assert member is not None
        try:
            changed = member.lend(parent.process, self.tables[reader], runs)
        except SourceError:
            changed = runs  # the process has exited
        for other in self.present() if changed else ():
            other.frames.release(changed)

    def look(self) -> None:
        """Find out, before a pass, which pages the processes still share."""
        members = self.present()
        now = []
        for member in members:
            try:
                now.append(member.look(member.frames) if member.process is not None and member.process.alive else Frames())
            except SourceError:
                now.append(Frames())  # it will be said when it is read
        for member, frames in zip(members, follow([member.frames for member in members], now), strict=True):
            member.frames = frames

    def count(self) -> int:
        """Choose for whom each shared frame counts; how many pages have a frame that counts for another one, and are not merged."""
        for member in self.present():
            if member.process is None or not member.process.alive:
                member.frames = Frames()
                continue
            for start, words in member.page_tables():
                member.frames.mark(start, words)
        members = self.present()
        again, self.outside = first_of_each([member.frames for member in members], members[0].host.kpagecount)
        return again


class Made:
    """A process of the machine while the forks go on: the pages and the blocks that it has."""

    def __init__(self, process: Process, runs: list[Run], blocks: list[Run]) -> None:
        self.process, self.runs, self.blocks = process, runs, blocks

    def add(self, runs: list[Run]) -> list[Run]:
        """Map the blocks that these pages need: those that were not mapped."""
        self.runs = joined(sorted(self.runs + without(runs, self.runs)))
        blocks = blocks_of(self.runs)
        new = without(blocks, self.blocks)
        map_blocks(self.process, self.blocks, blocks)
        self.blocks = blocks
        return new


def families_of(sources: Iterable[Source]) -> list[Family]:
    """The families among the sources. Without the right to see frames, there are none."""
    tables: dict[LiveSource, Frames] = {}
    for source in sources:
        if isinstance(source, LiveSource) and source.host.kpageflags >= 0:
            try:
                tables[source] = source.look()
            except SourceError:
                continue  # it will be said when it is read
    if not tables:
        return []
    kpageflags = next(iter(tables)).host.kpageflags
    groups: dict[int, list[LiveSource]] = {}
    for source, group in zip(tables, related([*tables.values()], kpageflags), strict=True):
        groups.setdefault(group, []).append(source)
    return [Family(members, tables) for members in groups.values() if len(members) > 1]


def parents_of(members: list[LiveSource]) -> dict[LiveSource, LiveSource | None]:
    """The nearest ancestor of each that is one of them. Processes that are not among them are asked for their parents, too."""
    by_pid = {member.pid: member for member in members}
    result: dict[LiveSource, LiveSource | None] = {}
    for member in members:
        pid = member.parent
        for _ in range(FARTHEST):
            if pid in by_pid or pid == 0:
                break
            pid = parent_of(pid)
        parent = by_pid.get(pid)
        # A process that adopts orphans may be younger than they are. It has forked none of them.
        result[member] = parent if parent is not None and birth(parent) < birth(member) else None
    return result


def parent_of(pid: int) -> int:
    """The parent of a process; 0 if there is none."""
    try:
        return int(read_text(f"/proc/{pid}", "stat").rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def birth(source: LiveSource) -> tuple[int, int]:
    """What sorts processes by the time of their start: the kernel tells that in hundredths of a second."""
    return int(source.started), source.pid

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: pictures of a machine.
"""What a picture shows, taken from the machine: a part of it where it is large."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import ksm
from ksm.record.recording import label_of, whole
from ksm.record.snapshot import snapshot

if TYPE_CHECKING:
    from ksm.machine import Machine
    from ksm.record.snapshot import _Snapshot

MOST_PAGES = 20_000  # mapped pages of a machine that is looked at page by page
MOST_PROCESSES = 8
MOST_TILES = 96  # of a process
MOST_NODES = 63  # of a tree: the top of a larger one is drawn
WRITE = 64  # a bit of an entry in a snapshot, as in ksm/record/look.pxd
UNSTABLE = 1  # the place of an rmap_item, as there
IN_CHAIN, CHAIN = 1, 3  # the place of a stable node, as there


@dataclass(frozen=True)
class Tile:
    """A page of a process: what it begins with, its frame or -1, and what is so of it."""

    number: int  # of the page: its address / 4096
    text: str
    frame: int
    kind: str  # merged, zero, swapped, own, shared (with a forked process), or volatile, unstable: not merged, and what KSM knows of it
    writable: bool


@dataclass(frozen=True)
class Node:
    """A node of a tree. The frame is -1 for a chain, whose dups are below."""

    text: str
    frame: int
    below: str
    red: bool
    x: int  # its turn from left to right
    y: int  # its depth
    parent: int  # in the list of nodes; -1 for a root
    hidden: int = 0  # nodes below it that are not drawn


@dataclass
class Space:
    """A process: its tiles, and how many more pages it has."""

    name: str
    pid: int
    tiles: list[Tile] = field(default_factory=list)
    more: int = 0


@dataclass
class State:
    counters: dict[str, int]
    spaces: list[Space]
    more_processes: int
    stable: list[Node]
    unstable: list[Node]
    too_large: bool  # for page tables and trees


def state_of(machine: Machine) -> State:
    """Look at a machine. One with more than MOST_PAGES mapped pages is not looked into, but counted."""
    processes = list(machine.processes.values())
    counters = {name: value for name, value in machine.ksm.attributes().items() if isinstance(value, int)}
    items = sum(counters[name] for name in ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile"))
    pages = 0
    spaces: dict[int, Space] = {}  # by mm
    for process in processes:
        with suppress(ProcessLookupError):  # one that exits meanwhile
            pages += process.rss() + process.swap_entries()
            if len(spaces) < MOST_PROCESSES:
                spaces[process.mm_id] = Space(whole(process.name), process.pid)
    state = State(counters, list(spaces.values()), len(processes) - len(spaces), [], [], max(pages, items) > MOST_PAGES)
    if not state.too_large:
        fill(state, spaces, snapshot(machine))
    return state


def fill(state: State, spaces: dict[int, Space], seen: _Snapshot) -> None:
    """Put the rows of a snapshot into the state."""
    labels = [label_of(label) for label in seen["contents"]]
    frames = {pfn: (labels[content] if 0 <= content < len(labels) else "", mapped) for _, pfn, mapped, _, content, _ in seen["frames"]}
    places = {(mm, page): place for _, mm, page, place, _, _, _ in seen["items"]}
    for _, mm, page, where, bits in sorted(seen["entries"], key=lambda row: row[1:3]):
        space = spaces.get(mm)
        if space is None:
            continue
        if len(space.tiles) == MOST_TILES:
            space.more += 1
            continue
        text, mapped = frames.get(where, ("zeros" if bits & ksm.PAGE_ZERO else "", 1))
        place = places.get((mm, page))
        kind = ("swapped" if bits & ksm.PAGE_SWAPPED else "zero" if bits & ksm.PAGE_ZERO else "merged" if bits & ksm.PAGE_KSM
                else "shared" if mapped > 1 else "own" if place is None else "unstable" if place == UNSTABLE else "volatile")
        space.tiles.append(Tile(page, text, -1 if kind in ("swapped", "zero") else where, kind, bool(bits & WRITE)))
    links = {node: (left, right, bool(red)) for _, node, _, left, right, red in seen["links"]}
    roots = [(tree, root) for _, tree, _, root in sorted(seen["roots"], key=lambda row: row[1:3]) if root >= 0]
    nodes = {number: row for number, *row in seen["nodes"]}
    dups: dict[int, list[list[int]]] = defaultdict(list)
    for row in nodes.values():
        if row[0] == IN_CHAIN:
            dups[row[4]].append(row)
    owners = {number: (mm, page) for number, mm, page, *_ in seen["items"]}
    frame_of = {(mm, page): where for _, mm, page, where, bits in seen["entries"] if not bits & ksm.PAGE_SWAPPED}

    def stable(number: int) -> tuple[str, int, str]:
        row = nodes[number]
        if row[0] != CHAIN:
            return frames.get(row[1], ("stale", 0))[0], row[1], f"× {row[2]}"
        hung = sorted(dups[number], key=lambda dup: dup[5])
        text = next((frames[dup[1]][0] for dup in hung if dup[1] in frames), "stale")
        return text, -1, " ".join(f"× {dup[2]}" for dup in hung[:3]) + (f" + {len(hung) - 3}" if len(hung) > 3 else "")

    def unstable(number: int) -> tuple[str, int, str]:
        frame = frame_of.get(owners[number], -1)
        space = spaces.get(owners[number][0])
        return frames.get(frame, ("gone", 0))[0], frame, space.name if space else ""

    for face, tree, result in ((stable, 0, state.stable), (unstable, 1, state.unstable)):
        for root in [root for number, root in roots if number == tree]:
            place_tree(root, links, face, result)


def place_tree(root: int, links: dict[int, tuple[int, int, bool]], face: Callable[[int], tuple[str, int, str]],
               result: list[Node]) -> None:
    """Add the nodes of a tree, from left to right. Of a large one, as many whole levels as have room."""
    levels, kept = [[root]], 0
    while levels[-1]:
        kept += len(levels[-1])
        below = [child for node in levels[-1] for child in links[node][:2] if child >= 0]
        if kept + len(below) > MOST_NODES:
            break
        levels.append(below)
    deepest = len(levels) - 1 if levels[-1] else len(levels) - 2
    left_of = len(result) + 1 if result else 0

    def size(node: int) -> int:
        count, todo = 0, [node]
        while todo:
            here = todo.pop()
            if here >= 0:
                count += 1
                todo.extend(links[here][:2])
        return count

    order: list[tuple[int, int, int]] = []  # node, depth, parent

    def walk(node: int, depth: int, parent: int) -> None:
        if node < 0 or depth > deepest:
            return
        walk(links[node][0], depth + 1, node)
        order.append((node, depth, parent))
        walk(links[node][1], depth + 1, node)

    walk(root, 0, -1)
    index = {node: len(result) + number for number, (node, _, _) in enumerate(order)}
    for turn, (node, depth, parent) in enumerate(order):
        text, frame, below_it = face(node)
        hidden = sum(size(child) for child in links[node][:2] if child >= 0) if depth == deepest else 0
        result.append(Node(text, frame, below_it, links[node][2], left_of + turn, depth, index.get(parent, -1), hidden))

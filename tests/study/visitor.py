# SPDX-License-Identifier: GPL-2.0-only
"""What a visitor of the page does, as random actions, and the same as calls on a machine, written down apart from ksm/study/serve."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ksm
from ksm.record.snapshot import snapshot
from ksm.study.serve.server import Server

PAGE = ksm.PAGE_SIZE
TEXTS = ("the same page", "a diary", "x", "", "my own words")


@contextmanager
def serving(page: str, **more: Any) -> Iterator[Server]:
    """A server of the page, in a thread of its own."""
    server = Server(page, **more)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.close()


class Twin:
    """A machine that is called by hand: what the visitor's machine has to be like."""

    def __init__(self, era: Any = "6.12") -> None:
        self.machine = ksm.Machine(memory="4M", max_memory="4M", clock="manual", plain=True, era=era)
        self.at: dict[str, tuple[ksm.Process, int]] = {}
        for name, texts in (("alice", ("the same page", "a diary", "a list")), ("bob", ("a novel", "the same page", "a bill"))):
            self.spawn(name)
            for page, text in enumerate(texts, 1):
                self.write(name, page, text)
            self.advise(name, True)

    def spawn(self, name: str) -> None:
        process = self.machine.spawn(name)
        self.at[name] = process, process.mmap(3 * PAGE)

    def write(self, name: str, page: int, text: str) -> None:
        process, start = self.at[name]
        process.write(start + (page - 1) * PAGE, text.encode() + bytes(PAGE - len(text)))

    def advise(self, name: str, on: bool) -> None:
        process, start = self.at[name]
        process.madvise(start, 3 * PAGE, ksm.MADV_MERGEABLE if on else ksm.MADV_UNMERGEABLE)

    def call(self, action: dict[str, Any]) -> None:
        ksmd = self.machine.ksm
        match action:
            case {"do": "write", "process": name, "page": page, "text": text}:
                self.write(name, page, text)
            case {"do": "fork", "process": name}:
                new = self.free_name()
                process, start = self.at[name]
                self.at[new] = process.fork(new), start
            case {"do": "exit", "process": name}:
                self.at.pop(name)[0].exit()
            case {"do": "spawn"}:
                self.spawn(self.free_name())
            case {"do": "madvise", "process": name, "mergeable": on}:
                self.advise(name, on)
            case {"do": "set", "name": name, "value": value}:
                setattr(ksmd, name, value)
            case {"do": "scan", "passes": passes}:
                ksmd.scan(passes=passes)
            case {"do": "visit", "pages": pages}:
                ksmd.scan(pages=pages)
            case {"do": "unmerge"}:
                ksmd.run = 2
                ksmd.run = 0
            case _:
                raise AssertionError(action)

    def free_name(self) -> str:
        return next(name for name in ("alice", "bob", "carol", "dave", "erin", "frank") if name not in self.at)

    def random(self, count: int, seed: int) -> Iterator[dict[str, Any]]:
        """Random actions that are possible, each already done here."""
        choose = random.Random(seed)
        while count:
            names = list(self.at)
            actions: list[dict[str, Any]] = [{"do": "scan", "passes": choose.choice((1, 1, 2))},
                                             {"do": "visit", "pages": choose.randint(1, 7)}]
            if names:
                who = choose.choice(names)
                actions += 3 * [{"do": "write", "process": who, "page": choose.randint(1, 3), "text": choose.choice(TEXTS)}]
                actions += [{"do": "madvise", "process": who, "mergeable": choose.random() < 0.7}]
                if len(names) > 1:
                    actions += [{"do": "exit", "process": who}]
            if len(names) < 4:
                actions += [{"do": "spawn"}] + [{"do": "fork", "process": each} for each in names[:1]]
            if choose.random() < 0.1:
                actions = [{"do": "unmerge"}]
            elif choose.random() < 0.15 and self.machine.era == "6.12":
                name, value = choose.choice((("max_page_sharing", 2), ("max_page_sharing", 256), ("smart_scan", 0), ("use_zero_pages", 1)))
                actions = [{"do": "set", "name": name, "value": value}]
            action = choose.choice(actions)
            try:
                self.call(action)
            except OSError:  # a setting that cannot be changed now
                continue
            count -= 1
            yield action


def state_of(machine: ksm.Machine) -> Any:
    """All that there is to see, by names that two machines share: objects of KSM are named by the page or the frame they are about."""
    seen = snapshot(machine)
    nodes = {number: tuple(row[:4]) + tuple(row[5:]) for number, *row in seen["nodes"]}
    items = {number: tuple(row[:2]) for number, *row in seen["items"]}
    contents = seen["contents"]
    objects: dict[int, tuple[int, ...]] = {**nodes, **items}
    return {
        "counters": [row[1:] for row in seen["counters"]],
        "files": machine.ksm.attributes(),
        "entries": sorted(row[1:] for row in seen["entries"]),
        "frames": sorted((pfn, mapped, users, contents[content], bits) for _, pfn, mapped, users, content, bits in seen["frames"]),
        "items": sorted((*row[1:4], objects.get(row[4], ()), *row[5:]) if row[3] == 2 else row[1:] for row in seen["items"]),
        "nodes": sorted(nodes.values()),
        "roots": sorted((tree, nid, objects.get(root, ())) for _, tree, nid, root in seen["roots"]),
        "links": sorted((objects[node], *(objects.get(each, ()) for each in around), red) for _, node, *around, red in seen["links"]),
        "names": {process.name: process.mm_id for process in machine.processes.values()},
        "vmstat": machine.vmstat(),
    }

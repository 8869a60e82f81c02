# SPDX-License-Identifier: GPL-2.0-only
"""Seeded random workloads.

What is mapped is tracked, so that no operation of a workload is invalid. A workload depends on the seed and the options only.
"""

from __future__ import annotations

import random
from typing import Any

from ksm.oracle.workload import Json

NEVER = 0xFFFF_FFFF  # a prune interval that does not end


class Vma:
    def __init__(self, name: str, pages: int, mergeable: bool) -> None:
        self.name, self.pages = name, pages
        self.mapped = [True] * pages
        self.whole = True  # never split by munmap or a partial madvise
        self.mergeable = mergeable

    def copy(self) -> Vma:
        other = Vma(self.name, self.pages, self.mergeable)
        other.mapped, other.whole = list(self.mapped), self.whole
        return other


class Generator:
    def __init__(self, seed: int, batches: bool = False, prune: bool = True,
                 max_pages: int = 32) -> None:
        self.rng = random.Random(seed)
        self.batches, self.prune, self.max_pages = batches, prune, max_pages
        self.procs: dict[str, list[Vma]] = {}
        self.counter = 0
        rng = self.rng
        families = [0] + rng.sample(range(1, 1 << 20), rng.choice((2, 4, 8)))
        pool = list(families)
        for family in families:  # pages that differ in one byte only
            pool += [family | rng.randrange(1, 256) << 32, family | rng.randrange(1, 256) << 40]
        self.pool = pool
        self.skew = rng.choice((0.5, 1.0, 2.0))
        self.unique = rng.choice((0.0, 0.1, 0.4))
        self.absent = rng.choice((0.0, 0.1, 0.3))

    def fresh(self, prefix: str) -> str:
        self.counter += 1
        return f"{prefix}{self.counter}"

    def content(self) -> int:
        rng = self.rng
        if rng.random() < self.unique:
            return rng.randrange(1 << 24, 1 << 32)
        weights = [1 / (rank + 1) ** self.skew for rank in range(len(self.pool))]
        return rng.choices(self.pool, weights)[0]

    def contents(self, count: int) -> list[Any]:
        items: list[Any] = []
        while count:
            repeat = min(count, self.rng.choice((1, 1, 1, 2, 5)))
            content = None if self.rng.random() < self.absent else self.content()
            items.append([content, repeat] if repeat > 1 else content)
            count -= repeat
        return items

    def new_vma(self) -> tuple[Vma, Json]:
        rng = self.rng
        vma = Vma(self.fresh("v"), rng.randint(1, self.max_pages), rng.random() < 0.9)
        return vma, {"pages": vma.pages, "contents": self.contents(vma.pages),
                     "mergeable": vma.mergeable}

    def run_of_pages(self, vma: Vma) -> tuple[int, int]:
        """A random mapped range, or count 0."""
        start = self.rng.randrange(vma.pages)
        end = start
        limit = self.rng.choice((1, 1, 2, 4, vma.pages))
        while end < vma.pages and vma.mapped[end] and end - start < limit:
            end += 1
        return start, end - start

    def step(self) -> list[Json]:
        rng = self.rng
        kinds = {"scan": 10, "long": 1, "write": 8, "touch": 3, "read": 1, "unmerge": 1.5,
                 "merge": 2, "dontneed": 1, "munmap": 1, "mmap": 1, "mremap": 1, "fork": 1.5,
                 "exit": 1, "sysfs": 1.5, "record": 1, "batch": 10 if self.batches else 0}
        kind = rng.choices(list(kinds), list(kinds.values()))[0]
        if kind == "scan":
            return [{"op": "scan", "passes": rng.choice((1, 1, 1, 2, 3))}]
        if kind == "long":
            return [{"op": "scan", "passes": rng.randint(5, 25)}]
        if kind == "record":
            return [{"op": "record"}]
        if kind == "batch":
            return [{"op": "batch", "pages": rng.choice((1, 2, 5, 10, 20))}]
        if kind == "sysfs":
            return [self.sysfs()]
        if not self.procs:
            return []
        proc = rng.choice(list(self.procs))
        vmas = self.procs[proc]
        where: Json = {"proc": proc}
        if kind == "mmap":
            if len(vmas) >= 6:
                return []
            vma, keys = self.new_vma()
            vmas.append(vma)
            return [{"op": "mmap", **where, "vma": vma.name, **keys}]
        if kind == "fork":
            if len(self.procs) >= 7:
                return []
            child = self.fresh("p")
            self.procs[child] = [vma.copy() for vma in vmas]
            return [{"op": "fork", **where, "child": child}]
        if kind == "exit":
            if len(self.procs) == 1 and rng.random() < 0.7:
                return []
            del self.procs[proc]
            return [{"op": "exit", **where}]
        if not vmas:
            return []
        vma = rng.choice(vmas)
        where["vma"] = vma.name
        if kind == "mremap":
            if not vma.whole:
                return []
            if rng.random() < 0.3:  # in place: shrink, or grow by untouched pages
                vma.pages = max(1, vma.pages + rng.randint(-4, 4))
                vma.mapped = [True] * vma.pages
                where["pages"] = vma.pages
            return [{"op": "mremap", **where}]
        page, count = self.run_of_pages(vma)
        if not count:
            return []
        where["page"] = page
        if kind == "write":
            return [{"op": "write", **where, "contents": self.contents(count)}]
        where["count"] = count
        if kind in ("touch", "read"):
            return [{"op": kind, **where}]
        if kind == "munmap":
            vma.mapped[page:page + count] = [False] * count
            vma.whole = False
            if not any(vma.mapped):
                vmas.remove(vma)
            return [{"op": "munmap", **where}]
        if kind in ("unmerge", "merge") and count < vma.pages:
            vma.whole = False
        advice = {"unmerge": "unmergeable", "merge": "mergeable"}.get(kind, kind)
        return [{"op": "madvise", **where, "advice": advice}]

    def sysfs(self) -> Json:
        rng = self.rng
        choices: list[tuple[str, list[Any]]] = [
            ("use_zero_pages", [0, 1]), ("smart_scan", [0, 1]), ("run", [0, 2]),
            ("max_page_sharing", [2, 3, 4, 256]), ("merge_across_nodes", [0, 1]),
            ("pages_to_scan", [7, 50, NEVER])]
        if self.prune:
            choices.append(("stable_node_chains_prune_millisecs", [0, NEVER]))
        file, values = rng.choice(choices)
        return {"op": "sysfs", "file": file, "value": rng.choice(values)}

    def workload(self, name: str, steps: int) -> Json:
        rng = self.rng
        settings: Json = {"use_zero_pages": rng.choice((0, 0, 1)),
                          "smart_scan": rng.choice((0, 1, 1)),
                          "max_page_sharing": rng.choice((2, 3, 4, 6, 256))}
        if self.prune:
            settings["stable_node_chains_prune_millisecs"] = rng.choice((0, 0, NEVER))
        procs = []
        for _ in range(rng.randint(1, 4)):
            proc = self.fresh("p")
            vmas = []
            self.procs[proc] = []
            for _ in range(rng.randint(1, 3)):
                vma, keys = self.new_vma()
                self.procs[proc].append(vma)
                vmas.append({"name": vma.name, **keys})
            procs.append({"name": proc, "vmas": vmas})
        todo: list[Json] = [{"op": "scan", "passes": rng.randint(1, 3)}]
        while len(todo) < steps:
            todo += self.step()
        todo.append({"op": "scan", "passes": 3})
        return {"name": name, "settings": settings, "procs": procs, "steps": todo}


def generate(seed: int, *, steps: int = 40, batches: bool = False, prune: bool = True,
             max_pages: int = 32) -> Json:
    """The workload of a seed."""
    return Generator(seed, batches, prune, max_pages).workload(f"random-{seed}", steps)

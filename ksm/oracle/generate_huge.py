# SPDX-License-Identifier: GPL-2.0-only
"""Seeded random workloads with huge pages.

VMAs have one to two huge pages and a rest, with MADV_HUGEPAGE before the first write. Workloads avoid the differences that README.md of
tests/kernel tells of: a page is not read before it was written to, where the kernel could map its huge zero page; and MADV_DONTNEED does
not empty a page table and its 2 MiB at once.
"""

from __future__ import annotations

from typing import Any

from ksm.oracle.generate import Generator, Vma
from ksm.oracle.workload import Json

HUGE = 512  # pages
SIZES = (HUGE, HUGE, HUGE + 1, 700, 2 * HUGE, 2 * HUGE, 1100)
KINDS = {"advice": 0, "read": 0.5, "peek": 0.5, "thp": 1.0, "move": 1.5, "mremap": 1.5, "scan": 6, "batch": 6}


class HugeGenerator(Generator):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.many = False
        self.kinds |= {kind: weight for kind, weight in KINDS.items() if kind in self.kinds or kind == "thp"}
        if self.swap:  # for a part of a huge page, the kernel only guesses whether several processes map it
            self.kinds = {kind: weight for kind, weight in self.kinds.items() if not kind.endswith("fork")}
        self.absent = self.rng.choice((0.0, 0.1))
        self.unique = self.rng.choice((0.1, 0.9, 0.99))  # a merge splits a huge page

    def contents(self, count: int) -> list[Any]:
        """Contents in longer runs. The first page of each huge page has a content."""
        items: list[Any] = []
        done = 0
        while done < count:
            repeat = min(count - done, HUGE - done % HUGE, self.rng.choice((1, 1, 2, 5, 40)))
            absent = done % HUGE and self.rng.random() < self.absent
            if not absent and self.rng.random() < self.unique:
                items += [self.rng.randrange(1 << 24, 1 << 32) for _ in range(repeat)]
            else:
                items.append([None if absent else self.content(), repeat])
            done += repeat
        return items

    def new_vma(self, vmas: list[Vma]) -> tuple[Vma, Json]:
        """A new VMA without contents: fill() writes them."""
        vma, _ = super().new_vma(vmas)
        vma.pages = self.rng.choice(SIZES)
        vma.mapped, vma.prot, vma.fork = [True] * vma.pages, [3] * vma.pages, ["keep"] * vma.pages
        return vma, {"pages": vma.pages, "contents": [], "mergeable": False, "slot": vma.slot}

    def fill(self, proc: str, vma: Vma) -> list[Json]:
        where = {"proc": proc, "vma": vma.name}
        steps: list[Json] = []
        if self.rng.random() < 0.9:
            steps.append({"op": "madvise", **where, "advice": "hugepage"})
        for last in (False, True):
            if last or self.rng.random() < 0.2:
                steps.append({"op": "write", **where, "contents": self.contents(vma.pages)})
            if not last and len(steps) > 1:  # all contents go, and are written again
                steps.append({"op": "madvise", **where, "advice": "dontneed"})
        if self.rng.random() < 0.9:
            steps.append({"op": "madvise", **where, "advice": "mergeable"})
        return steps

    def run_of_pages(self, vma: Vma, prot: int = 0) -> tuple[int, int]:
        rng = self.rng
        start = rng.choice((0, rng.randrange(vma.pages), rng.randrange(vma.pages), vma.pages // HUGE * HUGE % vma.pages))
        limit = rng.choice((1, 1, 3, 50, HUGE - 1, vma.pages))
        end = start
        while end < vma.pages and vma.mapped[end] and vma.prot[end] >= prot and end - start < limit:
            end += 1
        return start, end - start

    def on_vma(self, kind: str) -> list[Json]:
        steps = super().on_vma(kind)
        if kind == "dontneed":
            for step in steps:
                step["count"] = min(step["count"], HUGE - 1)
        return steps

    def do_thp(self) -> list[Json]:
        proc = self.process()
        if not self.procs[proc]:
            return []
        vma = self.rng.choice(self.procs[proc])
        page, count = self.run_of_pages(vma)
        if not count:
            return []
        vma.whole = vma.whole and count == vma.pages
        advice = self.rng.choice(("hugepage", "nohugepage"))
        return [{"op": "madvise", "proc": proc, "vma": vma.name, "page": page, "count": count, "advice": advice}]

    def do_mmap(self) -> list[Json]:
        steps = super().do_mmap() if sum(map(len, self.procs.values())) < 6 else []
        return steps + [fill for step in steps for fill in self.fill(step["proc"], self.procs[step["proc"]][-1])]

    def do_exec(self) -> list[Json]:
        steps = super().do_exec()
        return steps + [fill for step in steps[1:] for fill in self.fill(step["proc"], self.procs[step["proc"]][-1])]

    def do_fork(self) -> list[Json]:
        return super().do_fork() if sum(map(len, self.procs.values())) < 8 else []

    def do_mremap(self, vmas: list[Vma], vma: Vma, where: Json) -> list[Json]:
        """A VMA that grows in place gets pages that are written at once."""
        if not vma.whole or self.rng.random() < 0.5:
            return super().do_mremap(vmas, vma, where)
        old, pages = vma.pages, max(1, vma.pages + self.rng.choice((-600, -512, -3, 3, 512, 600)))
        if pages > old and (vma.prot[0] != 3 or pages > 3 * HUGE):
            return []
        vma.pages, vma.mapped = pages, [True] * pages
        vma.prot, vma.fork = vma.prot[:1] * pages, vma.fork[:1] * pages
        steps = [{"op": "mremap", **where, "pages": pages}]
        if pages > old:
            steps.append({"op": "write", **where, "page": old, "contents": [self.content() for _ in range(old, pages)]})
        return steps

    def workload(self, name: str, steps: int) -> Json:
        workload = super().workload(name, steps)
        filled: list[Json] = []
        for proc in workload["procs"]:
            for vma in proc["vmas"]:
                filled += self.fill(proc["name"], Vma(vma["name"], vma["pages"], vma["slot"]))
        return {**workload, "steps": filled + workload["steps"]}

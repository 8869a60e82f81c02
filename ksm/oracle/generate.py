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
        # Of wide workloads
        self.prot = [3] * pages
        self.fork: list[str] = ["keep"] * pages  # keep, drop, wipe, drop+wipe
        self.slot: int | None = None

    def copy(self) -> Vma:
        other = Vma(self.name, self.pages, self.mergeable)
        other.mapped, other.whole = [mapped and "drop" not in fork for mapped, fork in zip(self.mapped, self.fork, strict=True)], self.whole
        other.prot, other.fork, other.slot = list(self.prot), list(self.fork), self.slot
        other.whole = self.whole and all(other.mapped)
        return other


class Generator:
    def __init__(self, seed: int, batches: bool = False, prune: bool = True,
                 max_pages: int = 32, wide: bool = False) -> None:
        self.rng = random.Random(seed)
        self.wide = wide
        self.zero = not wide or seed % 2 == 0  # zero pages, or advice on fork: not both, see kernel.leaves_traces()
        self.batches, self.prune, self.max_pages = batches, prune, max_pages
        self.procs: dict[str, list[Vma]] = {}
        self.counter = 0
        rng = self.rng
        families = [0, *rng.sample(range(1, 1 << 20), rng.choice((2, 4, 8)))]
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

    def new_vma(self, vmas: list[Vma]) -> tuple[Vma, Json]:
        rng = self.rng
        vma = Vma(self.fresh("v"), rng.randint(1, self.max_pages), rng.random() < 0.9)
        keys = {"pages": vma.pages, "contents": self.contents(vma.pages), "mergeable": vma.mergeable}
        if self.wide:
            keys["slot"] = vma.slot = self.free_slot(vmas)
        return vma, keys

    def free_slot(self, vmas: list[Vma]) -> int:
        """A low one, so that addresses are used again."""
        used = {vma.slot for vma in vmas}
        return self.rng.choice([slot for slot in range(10) if slot not in used])

    def run_of_pages(self, vma: Vma, prot: int = 0) -> tuple[int, int]:
        """A random range that is mapped, and allows so much; or count 0."""
        start = self.rng.randrange(vma.pages)
        end = start
        limit = self.rng.choice((1, 1, 2, 4, vma.pages))
        while end < vma.pages and vma.mapped[end] and vma.prot[end] >= prot and end - start < limit:
            end += 1
        return start, end - start

    def step(self) -> list[Json]:
        rng = self.rng
        kinds = {"scan": 10, "long": 1, "write": 8, "touch": 3, "read": 1, "unmerge": 1.5,
                 "merge": 2, "dontneed": 1, "munmap": 1, "mmap": 1, "mremap": 1, "fork": 1.5,
                 "exit": 1, "sysfs": 1.5, "record": 1, "batch": 10 if self.batches else 0}
        if self.wide:
            kinds |= {"mprotect": 3, "advice": 0 if self.zero else 2, "move": 1, "poke": 2, "peek": 1, "munmap": 2}
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
            vma, keys = self.new_vma(vmas)
            vmas.append(vma)
            return [{"op": "mmap", **where, "vma": vma.name, **keys}]
        if kind == "fork":
            if len(self.procs) >= 7:
                return []
            child = self.fresh("p")
            self.procs[child] = [copy for vma in vmas if any((copy := vma.copy()).mapped)]
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
                vma.prot, vma.fork = vma.prot[:1] * vma.pages, vma.fork[:1] * vma.pages
                where["pages"] = vma.pages
            elif self.wide:
                where["slot"] = vma.slot = self.free_slot(vmas)
            return [{"op": "mremap", **where}]
        page, count = self.run_of_pages(vma, {"write": 3, "touch": 3, "read": 1}.get(kind, 0))
        if not count:
            return []
        where["page"] = page
        if kind in ("write", "poke"):
            return [{"op": kind, **where, "contents": self.contents(count)}]
        where["count"] = count
        if kind in ("touch", "read", "peek"):
            return [{"op": kind, **where}]
        if kind in ("mprotect", "advice", "move"):
            return self.wide_step(kind, vmas, vma, where)
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

    def wide_step(self, kind: str, vmas: list[Vma], vma: Vma, where: Json) -> list[Json]:
        rng = self.rng
        page, count = where["page"], where["count"]
        if kind == "move" and (not vma.whole or len(vmas) >= 8):
            return []
        vma.whole = vma.whole and count == vma.pages
        if kind == "mprotect":
            prot = rng.choice((0, 1, 3, 3))
            vma.prot[page:page + count] = [prot] * count
            return [{"op": "mprotect", **where, "prot": prot}]
        if kind == "advice":
            advice = rng.choice(("dontfork", "dofork", "wipeonfork", "keeponfork"))
            # The two are flags of their own; a VMA that is not copied is not wiped.
            for number in range(page, page + count):
                flags = set(vma.fork[number].split("+")) - {"keep"}
                flags ^= flags & {"drop" if "do" in advice else "wipe"}
                flags |= {"dontfork": {"drop"}, "wipeonfork": {"wipe"}}.get(advice, set())
                vma.fork[number] = "+".join(sorted(flags)) or "keep"
            return [{"op": "madvise", **where, "advice": advice}]
        moved = Vma(self.fresh("v"), count, vma.mergeable)
        moved.prot, moved.fork, moved.slot = vma.prot[page:page + count], vma.fork[page:page + count], self.free_slot(vmas)
        vmas.append(moved)
        vma.mapped[page:page + count] = [False] * count
        if not any(vma.mapped):
            vmas.remove(vma)
        return [{"op": "move", **where, "into": moved.name, "slot": moved.slot}]

    def sysfs(self) -> Json:
        rng = self.rng
        choices: list[tuple[str, list[Any]]] = [
            ("use_zero_pages", [0, 1]), ("smart_scan", [0, 1]), ("run", [0, 2]),
            ("max_page_sharing", [2, 3, 4, 256]), ("merge_across_nodes", [0, 1]),
            ("pages_to_scan", [7, 50, NEVER])]
        if self.prune:
            choices.append(("stable_node_chains_prune_millisecs", [0, NEVER]))
        if not self.zero:
            choices.remove(("use_zero_pages", [0, 1]))
        file, values = rng.choice(choices)
        return {"op": "sysfs", "file": file, "value": rng.choice(values)}

    def workload(self, name: str, steps: int) -> Json:
        rng = self.rng
        settings: Json = {"use_zero_pages": rng.choice((0, 0, 1) if self.zero else (0,)),
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
                vma, keys = self.new_vma(self.procs[proc])
                self.procs[proc].append(vma)
                vmas.append({"name": vma.name, **keys})
            procs.append({"name": proc, "vmas": vmas})
        todo: list[Json] = [{"op": "scan", "passes": rng.randint(1, 3)}]
        while len(todo) < steps:
            todo += self.step()
        todo.append({"op": "scan", "passes": 3})
        return {"name": name, "settings": settings, "procs": procs, "steps": todo}


def generate(seed: int, *, steps: int = 40, batches: bool = False, prune: bool = True,
             max_pages: int = 32, wide: bool = False) -> Json:
    """The workload of a seed; a wide one also uses mprotect, debuggers, advice on fork, and addresses again."""
    return Generator(seed, batches, prune, max_pages, wide).workload(f"random-{seed}", steps)

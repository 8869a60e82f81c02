# SPDX-License-Identifier: GPL-2.0-only
"""Seeded random workloads.

The generator tracks what is mapped, so that no operation of a workload is invalid. A workload depends only on the seed and the number of
steps.
"""

from __future__ import annotations

import random
from typing import Any

from ksm.oracle.workload import WHOLE_PASS, Json

NEVER = 0xFFFF_FFFF  # a prune interval that does not end
HUGE_SEEDS = range(1000, 2000)
KINDS = {
    "scan": 10.0, "long": 0.7, "record": 0.5, "sysfs": 1.5, "wrong": 0.3, "advisor": 0.4,
    "write": 8, "touch": 3, "read": 1, "poke": 1.5, "peek": 1,
    "unmerge": 1.5, "merge": 2, "dontneed": 1, "mprotect": 2, "prctl": 1, "advice": 2,
    "mmap": 1.5, "munmap": 1.5, "mremap": 1, "move": 1, "fork": 1.5, "exec": 0.5, "exit": 1,
    "batch": 8, "batch_exit": 1, "batch_exec": 0.5, "batch_unmerge": 0.7, "batch_fork": 1,
}
RANGES = ("write", "touch", "read", "poke", "peek", "unmerge", "merge", "dontneed", "mprotect", "advice", "munmap", "move", "pageout")


class Vma:
    def __init__(self, name: str, pages: int, slot: int) -> None:
        self.name, self.pages, self.slot = name, pages, slot
        self.mapped = [True] * pages
        self.whole = True  # never split
        self.prot = [3] * pages
        self.fork: list[str] = ["keep"] * pages  # keep, drop, wipe, drop+wipe

    def part(self, name: str, page: int, count: int, slot: int) -> Vma:
        other = Vma(name, count, slot)
        end = page + count
        other.mapped, other.prot, other.fork = self.mapped[page:end], self.prot[page:end], self.fork[page:end]
        return other

    def copy(self) -> Vma:
        """The VMA that a child gets by a fork."""
        other = self.part(self.name, 0, self.pages, self.slot)
        other.mapped = [mapped and "drop" not in fork for mapped, fork in zip(self.mapped, self.fork, strict=True)]
        other.whole = self.whole and all(other.mapped)
        return other


class Generator:
    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.procs: dict[str, list[Vma]] = {}
        self.counter = 0
        # Each workload leaves some kinds of steps out, so that it has more of the others.
        self.batches = rng.random() < 0.5
        self.zero = rng.random() < 0.6  # zero pages, or advice on fork: not both, see kernel.leaves_traces()
        self.many = rng.random() < 0.2  # small processes
        self.kinds = {kind: weight for kind, weight in KINDS.items() if rng.random() < 0.8 or kind == "scan"}
        if not self.batches:
            self.kinds = {kind: weight for kind, weight in self.kinds.items() if not kind.startswith("batch")}
        if self.zero:
            self.kinds.pop("advice", None)
        self.swap = seed % 10 == 7
        if self.swap:
            self.kinds |= {"pageout": 3.0}
        self.advisor = False  # scan-time mode: the advisor decides how long batches are
        self.max_pages = rng.choice((4, 8, 32))
        self.pool: list[int] = self.make_pool()
        self.skew = rng.choice((0.5, 1.0, 2.0))
        self.unique = rng.choice((0.0, 0.1, 0.4))
        self.absent = rng.choice((0.0, 0.1, 0.3))

    def make_pool(self) -> list[int]:
        """Contents in families: the members differ in the last or first byte only."""
        rng = self.rng
        families = [0, *rng.sample(range(1, 1 << 20), rng.choice((1, 2, 4, 8)))]
        pool = list(families)
        for family in families:
            pool += [family | rng.randrange(1, 256) << 32, family | rng.randrange(1, 256) << 40]
        return pool

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
        vma = Vma(self.fresh("v"), self.rng.randint(1, self.max_pages), self.free_slot(vmas))
        keys = {"pages": vma.pages, "contents": self.contents(vma.pages), "mergeable": self.rng.random() < 0.9, "slot": vma.slot}
        return vma, keys

    def free_slot(self, vmas: list[Vma]) -> int:
        """A free slot with a low number, so that addresses are used again."""
        used = {vma.slot for vma in vmas}
        return self.rng.choice([slot for slot in range(10) if slot not in used])

    def run_of_pages(self, vma: Vma, prot: int = 0) -> tuple[int, int]:
        """A random range of pages that are mapped and allow `prot`: (first page, count). The count is 0 if there are none."""
        start = self.rng.randrange(vma.pages)
        end = start
        limit = self.rng.choice((1, 1, 2, 4, vma.pages))
        while end < vma.pages and vma.mapped[end] and vma.prot[end] >= prot and end - start < limit:
            end += 1
        return start, end - start

    # Steps: each of these methods gives a list of steps, which is empty if the step makes no sense now.

    def step(self) -> list[Json]:
        kind = self.rng.choices(list(self.kinds), list(self.kinds.values()))[0]
        if kind in RANGES or kind == "mremap":
            return self.on_vma(kind)
        steps: list[Json] = getattr(self, "do_" + kind)()
        return steps

    def do_scan(self) -> list[Json]:
        return [{"op": "scan", "passes": self.rng.choice((1, 1, 1, 2, 3))}]

    def do_long(self) -> list[Json]:
        return [{"op": "scan", "passes": self.rng.randint(5, 25)}]

    def do_record(self) -> list[Json]:
        return [{"op": "record"}]

    def do_batch(self) -> list[Json]:
        return [] if self.advisor else [{"op": "batch", "pages": self.rng.choice((1, 1, 2, 3, 5, 10, 20))}]

    def do_batch_exit(self) -> list[Json]:
        return self.do_batch() + self.do_exit()

    def do_batch_exec(self) -> list[Json]:
        return self.do_batch() + self.do_exec()

    def do_batch_fork(self) -> list[Json]:
        return self.do_batch() + self.do_fork() + self.do_batch()

    def do_batch_unmerge(self) -> list[Json]:
        return [*self.do_batch(), {"op": "sysfs", "file": "run", "value": 2}]

    def do_sysfs(self) -> list[Json]:
        choices: list[tuple[str, list[Any]]] = [
            ("smart_scan", [0, 1]), ("run", [0, 2]), ("max_page_sharing", [2, 3, 4, 5, 256]), ("merge_across_nodes", [0, 1]),
            ("pages_to_scan", [7, 50, WHOLE_PASS]), ("stable_node_chains_prune_millisecs", [0, NEVER])]
        if self.zero:
            choices.append(("use_zero_pages", [0, 1]))
        file, values = self.rng.choice(choices)
        return [{"op": "sysfs", "file": file, "value": self.rng.choice(values)}]

    def do_wrong(self) -> list[Json]:
        """A write to sysfs that the kernel refuses."""
        file, value = self.rng.choice((
            ("run", 3), ("max_page_sharing", 1), ("merge_across_nodes", 2), ("smart_scan", "maybe"), ("advisor_max_cpu", -1),
            ("pages_to_scan", -1), ("advisor_mode", "scan"), ("advisor_max_cpu", 101), ("pages_shared", 1),
            ("advisor_target_scan_time", 0)))
        return [{"op": "sysfs", "file": file, "value": value}]

    def do_advisor(self) -> list[Json]:
        rng = self.rng
        file, values = rng.choice((
            ("advisor_mode", ["none", "scan-time"]), ("advisor_mode", ["none", "scan-time"]), ("advisor_max_cpu", [1, 50, 100]),
            ("advisor_min_pages_to_scan", [1, 100, 1000]), ("advisor_max_pages_to_scan", [50, 10000]),
            ("advisor_target_scan_time", [1, 60, 1000])))
        value = rng.choice(values)
        if file == "advisor_mode":
            self.advisor = value == "scan-time"
        return [{"op": "sysfs", "file": file, "value": value}]

    def process(self) -> str:
        return self.rng.choice(list(self.procs))

    def do_mmap(self) -> list[Json]:
        vmas = self.procs[proc := self.process()]
        if len(vmas) >= 6:
            return []
        vma, keys = self.new_vma(vmas)
        vmas.append(vma)
        return [{"op": "mmap", "proc": proc, "vma": vma.name, **keys}]

    def do_prctl(self) -> list[Json]:
        return [{"op": "prctl", "proc": self.process(), "merge": self.rng.choice((0, 1, 1))}]

    def do_fork(self) -> list[Json]:
        if len(self.procs) >= (24 if self.many else 7):
            return []
        vmas, child = self.procs[proc := self.process()], self.fresh("p")
        self.procs[child] = [copy for vma in vmas if any((copy := vma.copy()).mapped)]
        return [{"op": "fork", "proc": proc, "child": child}]

    def do_exec(self) -> list[Json]:
        proc = self.process()
        if len(self.procs) == 1 and self.rng.random() < 0.7:
            return []
        self.procs[proc] = []
        vma, keys = self.new_vma([])
        self.procs[proc].append(vma)
        return [{"op": "exec", "proc": proc}, {"op": "mmap", "proc": proc, "vma": vma.name, **keys}]

    def do_exit(self) -> list[Json]:
        if len(self.procs) == 1:
            return []
        del self.procs[proc := self.process()]
        return [{"op": "exit", "proc": proc}]

    def on_vma(self, kind: str) -> list[Json]:
        vmas = self.procs[proc := self.process()]
        if not vmas:
            return []
        vma = self.rng.choice(vmas)
        where: Json = {"proc": proc, "vma": vma.name}
        if kind == "mremap":
            return self.do_mremap(vmas, vma, where)
        page, count = self.run_of_pages(vma, {"write": 3, "touch": 3, "read": 1}.get(kind, 0))
        if not count:
            return []
        where["page"] = page
        if kind in ("write", "poke"):
            return [{"op": kind, **where, "contents": self.contents(count)}]
        where["count"] = count
        if kind in ("touch", "read", "peek", "pageout"):
            return [{"op": kind, **where}]
        if kind in ("mprotect", "advice", "munmap", "move"):
            steps: list[Json] = getattr(self, "do_" + kind)(vmas, vma, where)
            return steps
        vma.whole = vma.whole and (count == vma.pages or kind == "dontneed")
        advice = {"unmerge": "unmergeable", "merge": "mergeable"}.get(kind, kind)
        return [{"op": "madvise", **where, "advice": advice}]

    def do_mremap(self, vmas: list[Vma], vma: Vma, where: Json) -> list[Json]:
        if not vma.whole:
            return []
        if self.rng.random() < 0.3:  # in place: shrink, or grow by untouched pages
            vma.pages = max(1, vma.pages + self.rng.randint(-4, 4))
            vma.mapped = [True] * vma.pages
            vma.prot, vma.fork = vma.prot[:1] * vma.pages, vma.fork[:1] * vma.pages
            return [{"op": "mremap", **where, "pages": vma.pages}]
        vma.slot = self.free_slot(vmas)
        return [{"op": "mremap", **where, "slot": vma.slot}]

    def do_mprotect(self, _vmas: list[Vma], vma: Vma, where: Json) -> list[Json]:
        prot = self.rng.choice((0, 1, 3, 3))
        vma.prot[where["page"]:where["page"] + where["count"]] = [prot] * where["count"]
        vma.whole = vma.whole and where["count"] == vma.pages
        return [{"op": "mprotect", **where, "prot": prot}]

    def do_advice(self, _vmas: list[Vma], vma: Vma, where: Json) -> list[Json]:
        advice = self.rng.choice(("dontfork", "dofork", "wipeonfork", "keeponfork"))
        vma.whole = vma.whole and where["count"] == vma.pages
        # Dropping and wiping are two flags of a VMA. A VMA that is not copied is not wiped.
        for number in range(where["page"], where["page"] + where["count"]):
            flags = set(vma.fork[number].split("+")) - {"keep"}
            flags -= {"drop" if "do" in advice else "wipe"}
            flags |= {"dontfork": {"drop"}, "wipeonfork": {"wipe"}}.get(advice, set())
            vma.fork[number] = "+".join(sorted(flags)) or "keep"
        return [{"op": "madvise", **where, "advice": advice}]

    def do_munmap(self, vmas: list[Vma], vma: Vma, where: Json) -> list[Json]:
        vma.mapped[where["page"]:where["page"] + where["count"]] = [False] * where["count"]
        vma.whole = False
        if not any(vma.mapped):
            vmas.remove(vma)
        return [{"op": "munmap", **where}]

    def do_move(self, vmas: list[Vma], vma: Vma, where: Json) -> list[Json]:
        if not vma.whole or len(vmas) >= 8:
            return []
        moved = vma.part(self.fresh("v"), where["page"], where["count"], self.free_slot(vmas))
        self.do_munmap(vmas, vma, where)
        vmas.append(moved)
        return [{"op": "move", **where, "into": moved.name, "slot": moved.slot}]

    def workload(self, name: str, steps: int) -> Json:
        rng = self.rng
        settings: Json = {"use_zero_pages": rng.choice((0, 1)) if self.zero else 0,
                          "smart_scan": rng.choice((0, 1, 1)),
                          "max_page_sharing": rng.choice((2, 3, 4, 5, 256)),
                          "stable_node_chains_prune_millisecs": rng.choice((0, 0, NEVER))}
        procs = []
        for _ in range(rng.randint(8, 16) if self.many else rng.randint(1, 4)):
            proc = self.fresh("p")
            vmas = []
            self.procs[proc] = []
            for _ in range(1 if self.many else rng.randint(1, 3)):
                vma, keys = self.new_vma(self.procs[proc])
                self.procs[proc].append(vma)
                vmas.append({"name": vma.name, **keys})
            procs.append({"name": proc, "vmas": vmas})
        todo: list[Json] = [{"op": "scan", "passes": rng.randint(1, 3)}]
        while len(todo) < steps:
            todo += self.step()
        todo.append({"op": "scan", "passes": 3})
        return {"name": name, "settings": settings, **({"swap": 4096} if self.swap else {}), "procs": procs, "steps": todo}

# SPDX-License-Identifier: GPL-2.0-only
"""Seeded random workloads for a machine with several NUMA nodes.

merge_across_nodes is drawn once, and does not change: a change back to 0 makes the kernel follow stale links (trap-28 in docs/traps.md).
Pages, ranges, and whole processes migrate.
"""

from __future__ import annotations

from ksm.oracle.generate import Generator
from ksm.oracle.workload import Json


class NodesGenerator(Generator):
    def __init__(self, seed: int, nodes: int) -> None:
        super().__init__(seed)
        self.nodes = nodes
        self.kinds |= {"migrate": 6.0, "migrate_all": 1.5}

    def step(self) -> list[Json]:
        return [step for step in super().step() if step.get("file") != "merge_across_nodes"]

    def do_migrate(self) -> list[Json]:
        vmas = self.procs[proc := self.process()]
        if not vmas:
            return []
        vma = self.rng.choice(vmas)
        page, count = self.run_of_pages(vma, 0)
        where = {"proc": proc, "vma": vma.name, "page": page, "count": count}
        return [{"op": "migrate", **where, "node": self.rng.randrange(self.nodes)}] if count else []

    def do_migrate_all(self) -> list[Json]:
        """Whoever moves a process to another node moves all its memory."""
        proc, node = self.process(), self.rng.randrange(self.nodes)
        return [{"op": "migrate", "proc": proc, "vma": vma.name, "page": page, "count": count, "node": node}
                for vma in self.procs[proc] for page, count in runs(vma.mapped)]

    def workload(self, name: str, steps: int) -> Json:
        workload = super().workload(name, steps)
        workload["settings"]["merge_across_nodes"] = self.rng.choice((0, 0, 1))
        return {**workload, "nodes": self.nodes}


def runs(mapped: list[bool]) -> list[tuple[int, int]]:
    """The runs of pages that are mapped: (first, how many)."""
    found = []
    first = None
    for number, there in enumerate([*mapped, False]):
        if there and first is None:
            first = number
        elif not there and first is not None:
            found.append((first, number - first))
            first = None
    return found

# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: random workloads.
"""Seeded random workloads for guests with several NUMA nodes, whose memory goes and comes back, and whose frames break.

The memory of a node goes as a whole: in which of its blocks a page is does not repeat itself. Processes have memory on node 0 only, until
it migrates, so node 0 stays. Only frames of node 0 break: memory with a broken frame never comes back (memory_block_online()). What a
process's own calls leave in the counters is recorded at once.
"""

from __future__ import annotations

from ksm.oracle.generate_nodes import NodesGenerator
from ksm.oracle.workload import Json

BREAKING_SEEDS = range(2000, 3000)


class BreakingGenerator(NodesGenerator):
    def __init__(self, seed: int, nodes: int) -> None:
        super().__init__(seed, nodes)
        self.away: set[int] = set()  # nodes without memory
        self.kinds |= {"hotplug": 5.0, "soft_offline": 3.0, "hwpoison": 1.0}
        if self.swap:  # a broken page stays in the swap cache
            del self.kinds["hwpoison"]

    def step(self) -> list[Json]:
        steps = [{**step, "node": 0} if step["op"] == "migrate" and step["node"] in self.away else step for step in super().step()]
        if steps and steps[-1]["op"] in ("fork", "exec", "prctl", "exit", "mmap", "hwpoison", "offline"):
            steps.append({"op": "record"})
        return steps

    def do_hotplug(self) -> list[Json]:
        node = self.rng.randrange(1, self.nodes)
        self.away ^= {node}
        return [{"op": "offline" if node in self.away else "online", "node": node}]

    def do_soft_offline(self) -> list[Json]:
        return self.breaking("soft_offline")

    def do_hwpoison(self) -> list[Json]:
        return self.breaking("hwpoison")

    def breaking(self, op: str) -> list[Json]:
        """A step by the frame, or by the process itself, which has to be able to read the page."""
        vmas = self.procs[proc := self.process()]
        if not vmas:
            return []
        vma = self.rng.choice(vmas)
        page, count = self.run_of_pages(vma, 1)
        count = min(count, 1) if op == "hwpoison" else count
        where = {"proc": proc, "vma": vma.name, "page": page, "count": count}
        return [{"op": op, **where, "node": 0, "by": self.rng.choice(("frame", "madvise"))}] if count else []

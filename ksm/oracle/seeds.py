# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: random workloads.
"""The random workload of a seed."""

from __future__ import annotations

from ksm.oracle.generate import HUGE_SEEDS, Generator
from ksm.oracle.generate_breaking import BREAKING_SEEDS, BreakingGenerator
from ksm.oracle.generate_huge import HugeGenerator
from ksm.oracle.generate_nodes import NodesGenerator
from ksm.oracle.workload import Json

DRAWN = range(1 << 32, 1 << 48)  # of which ksm verify --forever begins with one
EACH_HUGE = 20  # of these, each so many have huge pages
EACH_BREAKING = 4  # or, on several nodes, memory that goes and breaks


def has_huge_pages(seed: int) -> bool:
    return seed in HUGE_SEEDS or (seed in DRAWN and seed % EACH_HUGE == 0)


def breaks_memory(seed: int) -> bool:
    return seed in BREAKING_SEEDS or (seed in DRAWN and seed % EACH_BREAKING == 0)


def generate(seed: int, *, steps: int = 40, nodes: int = 1) -> Json:
    """The random workload of a seed, with about `steps` steps, for so many NUMA nodes. On one node, those of some seeds have huge pages; on
    several, memory goes and breaks in some.
    """
    if nodes > 1:
        drawn = (BreakingGenerator if breaks_memory(seed) else NodesGenerator)(seed, nodes)
        return drawn.workload(f"random-{seed}-nodes-{nodes}", steps)
    return (HugeGenerator if has_huge_pages(seed) else Generator)(seed).workload(f"random-{seed}", steps)


def fitting(workload: Json, files: list[str]) -> Json:
    """The workload without settings that a kernel with these files does not have."""
    settings = {name: value for name, value in workload["settings"].items() if name in files}
    return {**workload, "settings": settings, "steps": [step for step in workload["steps"] if step.get("file", "run") in files]}

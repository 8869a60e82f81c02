# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: random workloads.
"""The random workload of a seed."""

from __future__ import annotations

from ksm.oracle.generate import HUGE_SEEDS, Generator
from ksm.oracle.generate_breaking import BREAKING_SEEDS, BreakingGenerator
from ksm.oracle.generate_huge import HugeGenerator
from ksm.oracle.generate_nodes import NodesGenerator
from ksm.oracle.workload import Json


def generate(seed: int, *, steps: int = 40, nodes: int = 1) -> Json:
    """The random workload of a seed, with about `steps` steps, for so many NUMA nodes. With a seed in HUGE_SEEDS it has huge pages; with
    several nodes and a seed in BREAKING_SEEDS, memory goes and breaks.
    """
    if nodes > 1:
        drawn = (BreakingGenerator if seed in BREAKING_SEEDS else NodesGenerator)(seed, nodes)
        return drawn.workload(f"random-{seed}-nodes-{nodes}", steps)
    return (HugeGenerator if seed in HUGE_SEEDS else Generator)(seed).workload(f"random-{seed}", steps)


def fitting(workload: Json, files: list[str]) -> Json:
    """The workload without settings that a kernel with these files does not have."""
    settings = {name: value for name, value in workload["settings"].items() if name in files}
    return {**workload, "settings": settings, "steps": [step for step in workload["steps"] if step.get("file", "run") in files]}
